//! Sample events: a shop's sales by region, its orders as they go through their lives, and builds of its software.

use std::time::Duration;

use hookpool_client::{CreatedConnector, Producer, Server};
use hookpool_engine::entropy::Entropy;
use serde_json::json;

use crate::output;

/// Makes the body of the nth event; `chance` is random.
pub(super) type Make = fn(n: u64, chance: u64) -> String;

/// Sends events of one kind until the server stops.
pub(super) async fn flow(server: Server, connector: CreatedConnector, make: Make) {
    let producer = Producer::new(server, connector.stream, connector.ingest_key);
    let producer = match connector.signing_key {
        Some(key) => producer.signing_key(key),
        None => producer,
    };
    for n in 0.. {
        let chance = u64::from_le_bytes(Entropy::System.bytes());
        tokio::time::sleep(Duration::from_millis(500 + chance % 1_500)).await;
        if let Err(error) = producer.send(make(n, chance)).await {
            return output::say(&format!("a sample producer stopped: {error}"));
        }
    }
}

pub(super) fn sale(n: u64, chance: u64) -> String {
    let region = pick(&["North", "East", "South", "West"], chance);
    json!({ "region": region, "sales": 100_000 + n * 250 + chance % 997, "target": 130_000 })
        .to_string()
}

/// Each order is placed, paid and shipped before the next but one begins.
pub(super) fn order(n: u64, chance: u64) -> String {
    let (order, step) = (1_000 + n / 3, n % 3);
    let id = format!("order-{order}");
    match step {
        0 => json!({
            "id": id,
            "status": "placed",
            "total": f64::from(u32::try_from(chance % 20_000).unwrap_or(0)) / 100.0,
            "customer": { "name": pick(&["Ada", "Grace", "Edsger", "Barbara"], order), "country": "NL" },
        })
        .to_string(),
        1 => json!({ "id": id, "status": "paid", "method": pick(&["card", "transfer"], chance) }).to_string(),
        _ => json!({ "id": id, "status": "shipped", "parcels": 1 + chance % 3 }).to_string(),
    }
}

pub(super) fn build(n: u64, chance: u64) -> String {
    let build = (4_711 + n / 2).to_string();
    if n.is_multiple_of(2) {
        json!({ "build": build, "status": "running", "branch": pick(&["main", "release"], chance) })
            .to_string()
    } else {
        let status = pick(&["passed", "passed", "passed", "failed"], chance);
        json!({ "build": build, "status": status, "durationSeconds": 40 + chance % 200 })
            .to_string()
    }
}

fn pick<'a>(words: &[&'a str], chance: u64) -> &'a str {
    let at = usize::try_from(chance % words.len() as u64).unwrap_or(0);
    words.get(at).copied().unwrap_or_default()
}
