//! What is appended as one is seen as one: writers rewrite 50 items with one stamp in each batch, and no snapshot and no chain of pages
//! ever shows two stamps.
//!
//! Each batch is one commit of the log; there is no endpoint for batches, so this covers everything from the log on. The pool has so small
//! a table in memory that it is written to files and merged all the time. Readers page through views of the pool, through `items`, and take
//! snapshots of `changes`, while the projector is some pages behind, or far. `HOOKPOOL_BATCHES` says how many batches.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use hookpool_core::{
    event::Request,
    fold::Item,
    name::StreamName,
    position::{Generation, Position},
};
use hookpool_store::{EventLog, PoolSnapshot};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::Value;

use crate::{
    node::{Client, Log, Node, Pipeline, Shape, event},
    number_from_env,
};

const STREAM: &str = "stamped";
const ITEMS: u64 = 50;
const SHAPE: Shape = Shape {
    memtable_bytes: 64 << 10,
    // In half of that time come more batches than fit one page.
    page_delay_max: Duration::from_millis(100),
};
/// Events that may wait.
const BEHIND_MAX: u64 = 40_000;

#[test]
fn no_snapshot_ever_shows_two_stamps() {
    let seed = number_from_env("HOOKPOOL_SEED").unwrap_or_else(|| rand::random_range(0..1 << 32));
    let batches = number_from_env("HOOKPOOL_BATCHES").unwrap_or(400);
    eprintln!("snapshots: repeat with HOOKPOOL_SEED={seed}");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(rewrite(batches, StdRng::seed_from_u64(seed)));
}

async fn rewrite(batches: u64, mut random: StdRng) {
    let node = Node::start(SHAPE, &[STREAM]).await;
    append(&node.log, 0).await;
    let limit = Duration::from_secs(60);
    assert!(node.engine.wait_applied(node.log.head(), limit).await);
    let readers = Arc::new(Readers {
        engine: Arc::clone(&node.engine),
        client: node.client.clone(),
        done: AtomicBool::new(false),
        seen: Default::default(),
        stamps: AtomicU64::new(0),
    });
    let begun = Instant::now();
    let ways: [fn(&Readers, u64) -> Vec<u64>; 3] =
        [Readers::view, Readers::pages, Readers::changes];
    let tasks = ways.into_iter().enumerate().map(|(n, way)| {
        let (readers, random) = (Arc::clone(&readers), StdRng::from_rng(&mut random));
        tokio::task::spawn_blocking(move || readers.read(n, way, random))
    });
    let tasks: Vec<_> = tasks.collect();
    for stamp in 1..=batches {
        append(&node.log, stamp).await;
        let far = node.log.head().0.saturating_sub(BEHIND_MAX);
        assert!(node.engine.wait_applied(Position(far), limit).await);
        if tasks.iter().any(tokio::task::JoinHandle::is_finished) {
            break;
        }
    }
    readers.done.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    let readers = Arc::into_inner(readers).unwrap();
    let [views, pages, changes] = readers.seen.map(AtomicU64::into_inner);
    let stamps = readers.stamps.into_inner();
    eprintln!(
        "{batches} batches of {ITEMS} in {:.0?}; {views} views, {pages} chains of pages, {changes} snapshots of changes, at {stamps} \
         different stamps: none with two",
        begun.elapsed(),
    );
    assert!([views, pages, changes].iter().all(|seen| *seen > 0));
    drop(readers.engine);
    node.stop().await;
}

/// Rewrites all items in one commit.
async fn append(log: &Log, stamp: u64) {
    let stamped = |item| {
        let (id, padding) = (format!("item-{item:02}"), "x".repeat(100));
        let body = format!(r#"{{"id":"{id}","stamp":{stamp},"padding":"{padding}"}}"#);
        event(STREAM, &id, stamp, body)
    };
    let before = log.head();
    let outcomes = log.append(Request::each((0..ITEMS).map(stamped))).await;
    assert_eq!(outcomes.unwrap().len() as u64, ITEMS);
    if stamp.is_multiple_of(100) {
        let blocks = log.blocks(before, 1).await.unwrap();
        assert_eq!(u64::from(blocks[0].header().count), ITEMS, "one commit");
    }
}

struct Readers {
    engine: Arc<Pipeline>,
    client: Client,
    done: AtomicBool,
    seen: [AtomicU64; 3],
    /// Times that a reader saw another stamp than before.
    stamps: AtomicU64,
}

impl Readers {
    /// Reads all items in one way, again and again.
    fn read(&self, n: usize, way: fn(&Self, u64) -> Vec<u64>, mut random: StdRng) {
        let mut before = None;
        while !self.done.load(Ordering::Relaxed) {
            let stamps = way(self, random.random_range(1..20));
            assert_eq!(stamps.len() as u64, ITEMS);
            let first = stamps[0];
            assert!(
                stamps.iter().all(|stamp| *stamp == first),
                "two stamps at once: {stamps:?}"
            );
            assert!(before <= Some(first), "back from {before:?} to {first}");
            let moved = before.replace(first) != Some(first);
            self.stamps.fetch_add(u64::from(moved), Ordering::Relaxed);
            self.seen[n].fetch_add(1, Ordering::Relaxed);
            // Not so often that nobody writes.
            std::thread::sleep(Duration::from_millis(random.random_range(0..5)));
        }
    }

    /// One view of the pool, page by page.
    fn view(&self, limit: u64) -> Vec<u64> {
        let (view, stream) = (self.engine.pool(), StreamName::new(STREAM).unwrap());
        let mut stamps = Vec::new();
        let mut after = None;
        loop {
            let limit = usize::try_from(limit).unwrap();
            let page = view.items(&stream, Generation::FIRST, after.as_ref(), limit, 1 << 20);
            let page = page.unwrap();
            stamps.extend(page.items.iter().map(|(_, item)| stamp(item)));
            after = page.items.last().map(|(id, _)| id.clone());
            if !page.more {
                return stamps;
            }
        }
    }

    /// A chain of pages over HTTP.
    fn pages(&self, limit: u64) -> Vec<u64> {
        let first = format!("/api/streams/{STREAM}/items?limit={limit}");
        let mut stamps = Vec::new();
        let mut target = first.clone();
        loop {
            let page: Value = serde_json::from_str(&self.client.get(&target)).unwrap();
            let items = page["items"].as_array().unwrap().iter();
            stamps.extend(items.map(|item| item["fields"]["stamp"].as_u64().unwrap()));
            let Some(next) = page["next"].as_str() else {
                return stamps;
            };
            target = format!("{first}&after={next}");
        }
    }

    /// The snapshot that a stream of changes begins with.
    fn changes(&self, _limit: u64) -> Vec<u64> {
        let target = format!("/api/streams/{STREAM}/changes?until=0");
        let text = self.client.get(&target);
        let frames = text.lines().map(serde_json::from_str::<Value>);
        let rows = frames.filter_map(|frame| {
            let frame = frame.unwrap();
            (frame["event"] == "item").then_some(frame)
        });
        rows.map(|row| row["data"]["fields"]["stamp"].as_u64().unwrap())
            .collect()
    }
}

fn stamp(item: &Item) -> u64 {
    let mut fields = item.fields().iter();
    let (_, field) = fields.find(|(name, _)| &**name == "stamp").unwrap();
    field.value().text.parse().unwrap()
}
