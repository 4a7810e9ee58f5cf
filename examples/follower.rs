//! Keeps a copy of a stream in memory, exact through restarts of the server and cuts of the network.
//!
//! `hookpool reader add example --stream rooms` prints the key for `HOOKPOOL_READ_KEY`.

#![expect(clippy::print_stdout, reason = "it shows what it does")]

use std::env;

use anyhow::Context;
use hookpool_client::{Follower, Secret, Server};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let url = env::var("HOOKPOOL_SERVER").unwrap_or_else(|_| "http://127.0.0.1:8080".to_owned());
    let key = env::var("HOOKPOOL_READ_KEY").context("HOOKPOOL_READ_KEY is not set")?;
    let mut follower = Follower::new(Server::new(&url)?, "rooms", Secret::new(key));
    let mut copy = follower.state();
    while let Some(frame) = follower.next().await {
        copy.feed(&frame?);
        // Without a cursor it is between two positions.
        if let Some(cursor) = copy.cursor() {
            println!("{cursor} {:?}", copy.items("rooms"));
        }
    }
    Ok(())
}
