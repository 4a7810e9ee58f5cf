//! Keeps a copy of a stream in memory, exact through restarts of the server and cuts of the network.
//!
//! `hookpool reader add example --stream rooms` prints the key for `HOOKPOOL_READ_KEY`.

#![expect(clippy::print_stdout, reason = "it shows what it does")]

use std::{collections::BTreeMap, env};

use anyhow::Context;
use hookpool_client::{Fields, Follower, Frame, Op, Secret, Server};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let url = env::var("HOOKPOOL_SERVER").unwrap_or_else(|_| "http://127.0.0.1:8080".to_owned());
    let key = env::var("HOOKPOOL_READ_KEY").context("HOOKPOOL_READ_KEY is not set")?;
    let mut follower = Follower::new(Server::new(&url)?, "rooms", Secret::new(key));
    let mut copy = BTreeMap::<String, Fields>::new();
    while let Some(frame) = follower.next().await {
        match frame? {
            Frame::Item(row) => drop(copy.insert(row.item_id, row.fields)),
            Frame::Change(change) => match change.op {
                Op::Upsert => {
                    let fields = copy.entry(change.item_id).or_default();
                    fields.retain(|name, _| !change.unset.contains(name));
                    fields.extend(change.set);
                }
                Op::Delete => drop(copy.remove(&change.item_id)),
            },
            // A snapshot follows that may lack what was deleted meanwhile.
            Frame::Reset(_) => copy.clear(),
            _ => continue,
        }
        println!("{copy:?}");
    }
    Ok(())
}
