//! Sends signed readings of three thermometers, one a second.
//!
//! `hookpool connector add rooms --signed --id-field room` prints the keys for `HOOKPOOL_INGEST_KEY` and `HOOKPOOL_SIGNING_KEY`.

#![expect(clippy::print_stdout, reason = "it shows what it does")]

use std::{env, time::Duration};

use anyhow::Context;
use hookpool_client::{Producer, Secret, Server};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let url = env::var("HOOKPOOL_SERVER").unwrap_or_else(|_| "http://127.0.0.1:8080".to_owned());
    let producer = Producer::new(Server::new(&url)?, "rooms", secret("HOOKPOOL_INGEST_KEY")?)
        .signing_key(secret("HOOKPOOL_SIGNING_KEY")?)
        .id_field("room");
    for second in 0.. {
        let room = ["kitchen", "cellar", "attic"][second % 3];
        let body = format!(
            r#"{{"room":"{room}","celsius":{}.5,"second":{second}}}"#,
            15 + second % 7
        );
        // Lost connections and overload are retried inside; what comes back is final.
        let accepted = producer.send(body).await?;
        println!("{} is at position {}", accepted.item_id, accepted.position);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

fn secret(name: &str) -> anyhow::Result<Secret> {
    env::var(name)
        .map(Secret::new)
        .with_context(|| format!("{name} is not set"))
}
