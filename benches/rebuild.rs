//! Rebuilds of long histories on fjall: events a second and memory, for the projector on an empty pool and for a rebuild beside it.
//!
//! `cargo bench --bench rebuild -- --events 10000000 --items 100000`. Each figure is of one run in a process of its own log and pool.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench that prints its figures"
)]

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use hookpool_core::{
    control::ControlChange,
    cursor::Cursor,
    event::{Event, NewEvent, Op, Request, RequestId},
    key::KeyId,
    name::{ConnectorName, ItemId, StreamName},
    position::{Epoch, Generation},
    projection::{Change, Rules},
    seal::MasterKey,
    time::Timestamp,
};
use hookpool_engine::{
    Engine, Options, appender::Limits, clock::Clock, engine::Running, entropy::Entropy,
};
use hookpool_fjall::{FjallLog, FjallPool};
use hookpool_store::{EventLog, PoolSnapshot};
use tokio::time::Instant;

/// The server's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Pipeline = Engine<FjallLog, FjallPool>;

const STREAM: &str = "bench";
const RULES: &str = r#"{"unknown":"drop","fields":{"region":{"type":"string"},"sales":{"type":"number"},"day":{"from":"updated","type":"time"}}}"#;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str, otherwise: u64| {
        let at = arguments.iter().position(|argument| argument == name);
        at.map_or(otherwise, |at| arguments[at + 1].parse().unwrap())
    };
    // `cargo test --benches` only asks whether it still works.
    let smoke = !arguments.iter().any(|argument| argument == "--bench");
    let events = number("--events", if smoke { 20_000 } else { 1_000_000 });
    let items = number("--items", if smoke { 1_000 } else { 100_000 });
    let folder = tempfile::tempdir().unwrap();
    let begun = Begun::now();
    fill(&folder.path().join("log"), events, items).await;
    begun.say("log written", events);

    let begun = Begun::now();
    let (engine, running) = start(folder.path()).await;
    assert!(
        engine
            .wait_applied(engine.head(), Duration::from_secs(3_600))
            .await
    );
    begun.say("empty pool", events);

    for (name, rules) in [("same rules", "{}"), ("other rules", RULES)] {
        let begun = Begun::now();
        let generation = rebuild(&engine, rules).await;
        begun.say(name, events);
        cancel(&engine, generation).await;
    }
    engine.status().stop();
    drop(engine);
    tokio::task::spawn_blocking(|| running.join())
        .await
        .unwrap();
}

/// When something began, and the processor time of the process by then.
struct Begun {
    at: Instant,
    processor: f64,
}

impl Begun {
    fn now() -> Self {
        // Linux begins a new peak.
        std::fs::write("/proc/self/clear_refs", "5").unwrap_or_default();
        Self {
            at: Instant::now(),
            processor: processor_seconds(),
        }
    }

    fn say(&self, what: &str, events: u64) {
        let seconds = self.at.elapsed().as_secs_f64();
        let processor = (processor_seconds() - self.processor) * 1e6 / events as f64;
        println!(
            "{what:<12} {events} events in {seconds:.1} s: {:.0}/s, {processor:.2} us of processor each, peak memory {} MiB",
            events as f64 / seconds,
            peak_mib()
        );
    }
}

/// User and system, of all threads; Linux counts it in hundredths.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks = stat.rsplit(") ").next().unwrap_or_default();
    let ticks = ticks.split(' ').skip(11).take(2);
    ticks
        .filter_map(|ticks| ticks.parse::<f64>().ok())
        .sum::<f64>()
        / 100.0
}

/// Of the whole process since [`Begun::now`].
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.unwrap_or_default() / 1_024
}

async fn fill(dir: &Path, events: u64, items: u64) {
    let log = FjallLog::open(dir, hookpool_fjall::Options::new(Epoch(1))).unwrap();
    let mut n = 0;
    while n < events {
        let batch: Vec<_> = (n..events.min(n + 1_024))
            .map(|n| event(n, items))
            .collect();
        n += batch.len() as u64;
        log.append(Request::each(batch)).await.unwrap();
    }
}

/// About 90 bytes; items in an order that is no order.
fn event(n: u64, items: u64) -> NewEvent {
    let item = n.wrapping_mul(2_654_435_761) % items;
    let body = format!(
        r#"{{"region":"r-{item}","sales":{n},"target":130000,"updated":"2026-04-09T10:30:00Z"}}"#
    );
    NewEvent {
        time: Timestamp(1_700_000_000_000_000 + n),
        stream: StreamName::new(STREAM).unwrap(),
        op: Op::Upsert,
        item_id: ItemId::new(format!("r-{item}")).unwrap(),
        generated_id: false,
        duplicate_keys: false,
        field_count: 4,
        connector: ConnectorName::new("bench").unwrap(),
        request_id: RequestId(u128::from(n).to_le_bytes()),
        dedupe: None,
        idempotency: None,
        body: Bytes::from(body),
    }
}

async fn start(dir: &Path) -> (Arc<Pipeline>, Running) {
    let log = |name: &str| {
        FjallLog::open(&dir.join(name), hookpool_fjall::Options::new(Epoch(2))).unwrap()
    };
    let options = Options {
        master: MasterKey::new(&[7; 32]),
        encode: |_: &mut Vec<u8>, _: &Cursor, _: &Event, _: &Change<'_>| {},
        limits: Limits::default(),
        clock: Clock::System,
        entropy: Entropy::System,
        rejections: Default::default(),
    };
    let pool = FjallPool::open(&dir.join("pool")).unwrap();
    Engine::start(log("log"), log("control"), pool, options)
        .await
        .unwrap()
}

/// From the start to a difference that is whole.
async fn rebuild(engine: &Pipeline, rules: &str) -> Generation {
    let stream = StreamName::new(STREAM).unwrap();
    let rules: Rules = serde_json::from_str(rules).unwrap();
    let set = ControlChange::ProjectionSet {
        stream: stream.clone(),
        rules,
    };
    change(engine, set).await;
    let plan = engine.control().registry().plan(STREAM);
    let generation = plan.next_generation();
    let started = ControlChange::RebuildStarted {
        stream: stream.clone(),
        generation,
        projection: plan.newest().version,
        events_per_second: None,
    };
    change(engine, started).await;
    loop {
        let state = engine.pool().generation(&stream, generation).unwrap();
        if state
            .and_then(|state| state.difference)
            .is_some_and(|difference| difference.whole)
        {
            return generation;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Returns when it is removed, so that the next one has the machine to itself.
async fn cancel(engine: &Pipeline, generation: Generation) {
    let stream = StreamName::new(STREAM).unwrap();
    let cancelled = ControlChange::RebuildCancelled {
        stream: stream.clone(),
        generation,
    };
    change(engine, cancelled).await;
    while engine
        .pool()
        .generation(&stream, generation)
        .unwrap()
        .is_some()
    {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn change(engine: &Pipeline, change: ControlChange) {
    let author = KeyId::from_random([1; 6]);
    let control = engine.control();
    control.change(&author, STREAM, change).await.unwrap();
}
