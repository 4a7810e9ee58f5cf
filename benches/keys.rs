//! A fresh idempotency key on every event, millions of them: what appending costs with them, memory, and bytes of the index for each.
//!
//! `cargo bench --bench keys -- --events 5000000`, and with `--without` the same events without keys.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench that prints its figures"
)]

use std::{path::Path, time::Duration};

use bytes::Bytes;
use hookpool_core::{
    event::{DedupeKey, Idempotency, NewEvent, Op, Request, RequestId},
    name::{ConnectorName, ItemId, StreamName},
    position::Epoch,
    time::Timestamp,
};
use hookpool_fjall::{FjallLog, Options};
use hookpool_store::EventLog as _;
use tokio::time::Instant;

/// The server's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Requests in a commit.
const BATCH: u64 = 1_024;
/// Lines that are printed.
const PARTS: u64 = 5;
/// Until tables have been merged as far as they will be.
const MERGED: Duration = Duration::from_secs(3);

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    // `cargo test --benches` only asks whether it still works.
    let otherwise: u64 = if has("--bench") { 1_000_000 } else { 20_000 };
    let at = arguments.iter().position(|argument| argument == "--events");
    let events = at.map_or(otherwise, |at| arguments[at + 1].parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let log = FjallLog::open(folder.path(), Options::new(Epoch(1))).unwrap();
    let (mut n, mut begun) = (0, Instant::now());
    for part in 1..=PARTS {
        let (from, until) = (n, events * part / PARTS);
        while n < until {
            let batch = n..until.min(n + BATCH);
            n = batch.end;
            let batch = batch.map(|n| event(n, !has("--without")));
            log.append(Request::each(batch)).await.unwrap();
        }
        println!(
            "{n:>10} events, {:>9.0}/s, {:>6.0} MiB of memory",
            (n - from) as f64 / begun.elapsed().as_secs_f64(),
            memory_mib()
        );
        begun = Instant::now();
    }
    tokio::time::sleep(MERGED).await;
    drop(log);
    for keyspace in std::fs::read_dir(folder.path().join("db/keyspaces")).unwrap() {
        let path = keyspace.unwrap().path();
        println!(
            "keyspace {}: {:.1} bytes an event",
            path.file_name().unwrap().to_string_lossy(),
            bytes_in(&path) as f64 / events as f64
        );
    }
}

fn event(n: u64, keyed: bool) -> NewEvent {
    let spread = |salt: u64| {
        let mixed = (n ^ salt).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ mixed >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93)
    };
    let key = u128::from(spread(0)) << 64 | u128::from(spread(1 << 63));
    let identity = Idempotency {
        key: DedupeKey(key.to_le_bytes()),
        request: Some(key.to_be_bytes()),
        events: 1,
    };
    NewEvent {
        time: Timestamp(1_700_000_000_000_000 + n),
        stream: StreamName::new("bench").unwrap(),
        op: Op::Upsert,
        item_id: ItemId::new("North").unwrap(),
        generated_id: false,
        duplicate_keys: false,
        field_count: 4,
        connector: ConnectorName::new("bench").unwrap(),
        request_id: RequestId(u128::from(n).to_le_bytes()),
        dedupe: None,
        idempotency: keyed.then_some(identity),
        body: Bytes::from_static(
            br#"{"region":"North","sales":142000,"target":130000,"updated":"2026-04-09T10:30:00Z"}"#,
        ),
    }
}

/// Resident memory.
fn memory_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    kib.unwrap().parse::<f64>().unwrap() / 1_024.0
}

fn bytes_in(path: &Path) -> u64 {
    let entries = std::fs::read_dir(path).unwrap();
    let bytes = entries.map(|entry| {
        let entry = entry.unwrap();
        let metadata = entry.metadata().unwrap();
        if metadata.is_dir() {
            bytes_in(&entry.path())
        } else {
            metadata.len()
        }
    });
    bytes.sum()
}
