//! What is appended as one is seen as one: writers rewrite 50 items with one stamp in each batch, and no snapshot and no chain of pages
//! ever shows two stamps. Some batches delete ten of them, and others delete ten and bring them back: a reader sees exactly the items that
//! the batch left.
//!
//! Each batch is one commit of the log; there is no endpoint for batches, so this covers everything from the log on. The pool has so small
//! a table in memory that it is written to files and merged all the time. Readers page through views of the pool, through `items`, and take
//! snapshots of `changes`, while the projector is some pages behind, or far. `HOOKPOOL_BATCHES` says how many batches. A chain of pages that
//! waited too long on a busy machine begins again, as its error says, and is counted.

use std::{
    ops::Range,
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
    node::{Client, Log, Node, Pipeline, Shape, deletion, event, run},
    number_from_env,
};

const STREAM: &str = "stamped";
const ITEMS: u64 = 50;
const SHAPE: Shape = Shape {
    memtable_bytes: 64 << 10,
    // In half of that time come more batches than fit one page.
    page_delay_max: Duration::from_millis(100),
    ..Shape::PROMPT
};
/// Events that may wait.
const BEHIND_MAX: u64 = 40_000;
/// Batches between two lines that say how far it is.
const TOLD: u64 = 50_000;

/// What a reader saw: the stamp of each item that was there.
type Seen = Vec<(String, u64)>;

#[test]
fn no_snapshot_ever_shows_two_stamps() {
    let seed = number_from_env("HOOKPOOL_SEED").unwrap_or_else(|| rand::random_range(0..1 << 32));
    // The last one leaves items deleted.
    let batches = number_from_env("HOOKPOOL_BATCHES").unwrap_or(400);
    let batches = batches.next_multiple_of(4);
    eprintln!("snapshots: repeat with HOOKPOOL_SEED={seed}");
    run(rewrite(batches, StdRng::seed_from_u64(seed)));
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
        gaps: AtomicU64::new(0),
    });
    let begun = Instant::now();
    let ways: [fn(&Readers, u64) -> Seen; 3] = [Readers::view, Readers::pages, Readers::changes];
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
        if stamp.is_multiple_of(TOLD) {
            let seconds = begun.elapsed().as_secs();
            eprintln!("snapshots: {stamp} of {batches} batches, {seconds} s");
        }
    }
    assert!(node.engine.wait_applied(node.log.head(), limit).await);
    readers.done.store(true, Ordering::Relaxed);
    for task in tasks {
        assert_eq!(task.await.unwrap(), batches, "each sees the last batch");
    }
    let readers = Arc::into_inner(readers).unwrap();
    let [views, pages, changes] = readers.seen.map(AtomicU64::into_inner);
    let [stamps, gaps] = [readers.stamps, readers.gaps].map(AtomicU64::into_inner);
    eprintln!(
        "{batches} batches of {ITEMS} in {:.0?}; {views} views, {pages} chains of pages, {changes} snapshots of changes, at {stamps} \
         different stamps: none with two; {gaps} without the items that were deleted",
        begun.elapsed(),
    );
    assert!([views, pages, changes, gaps].iter().all(|seen| *seen > 0));
    drop(readers.engine);
    node.stop().await;
}

/// Rewrites the items in one commit; those that it deletes are deleted before all else.
async fn append(log: &Log, stamp: u64) {
    let stamped = |item| {
        let (id, padding) = (id(item), "x".repeat(100));
        let body = format!(r#"{{"id":"{id}","stamp":{stamp},"padding":"{padding}"}}"#);
        event(STREAM, &id, stamp, body)
    };
    let deleted = deleted_by(stamp).map(|item| deletion(STREAM, &id(item), stamp));
    let events: Vec<_> = deleted.chain(left_by(stamp).map(stamped)).collect();
    let (before, count) = (log.head(), events.len());
    let outcomes = log.append(Request::each(events)).await;
    assert_eq!(outcomes.unwrap().len(), count);
    if stamp % 100 < 4 {
        let blocks = log.blocks(before, 1).await.unwrap();
        assert_eq!(blocks[0].header().count as usize, count, "one commit");
    }
}

fn id(item: u64) -> String {
    format!("item-{item:02}")
}

/// The items that a batch deletes: ten in every second one, which are others each time.
fn deleted_by(stamp: u64) -> Range<u64> {
    let first = stamp * 7 % (ITEMS - 10);
    first..first + 10 * u64::from(stamp.is_multiple_of(2))
}

/// The items that are there after a batch; every second one of those that delete brings back what it deleted.
fn left_by(stamp: u64) -> impl Iterator<Item = u64> {
    let brings_back = stamp % 4 == 2;
    (0..ITEMS).filter(move |item| brings_back || !deleted_by(stamp).contains(item))
}

struct Readers {
    engine: Arc<Pipeline>,
    client: Client,
    done: AtomicBool,
    seen: [AtomicU64; 3],
    /// Times that a reader saw another stamp than before.
    stamps: AtomicU64,
    /// Times that a reader saw a stamp of a batch that left items deleted.
    gaps: AtomicU64,
}

impl Readers {
    /// Reads all items in one way, again and again, and once more when all is done; returns the stamp that it saw last.
    fn read(&self, n: usize, way: fn(&Self, u64) -> Seen, mut random: StdRng) -> u64 {
        let mut before = None;
        loop {
            let done = self.done.load(Ordering::Relaxed);
            let seen = way(self, random.random_range(1..20));
            let first = seen[0].1;
            let left: Seen = left_by(first).map(|item| (id(item), first)).collect();
            assert_eq!(seen, left, "what batch {first} left, and all of it");
            assert!(before <= Some(first), "back from {before:?} to {first}");
            let moved = before.replace(first) != Some(first);
            self.stamps.fetch_add(u64::from(moved), Ordering::Relaxed);
            let gap = (left.len() as u64) < ITEMS;
            self.gaps.fetch_add(u64::from(gap), Ordering::Relaxed);
            self.seen[n].fetch_add(1, Ordering::Relaxed);
            if done {
                return first;
            }
            // Not so often that nobody writes.
            std::thread::sleep(Duration::from_millis(random.random_range(0..5)));
        }
    }

    /// One view of the pool, page by page.
    fn view(&self, limit: u64) -> Seen {
        let (view, stream) = (self.engine.pool(), StreamName::new(STREAM).unwrap());
        let mut seen = Vec::new();
        let mut after = None;
        loop {
            let limit = usize::try_from(limit).unwrap();
            let page = view.items(&stream, Generation::FIRST, after.as_ref(), limit, 1 << 20);
            let page = page.unwrap();
            let items = page.items.iter();
            seen.extend(items.map(|(id, item)| (id.as_str().to_owned(), stamp(item))));
            after = page.items.last().map(|(id, _)| id.clone());
            if !page.more {
                return seen;
            }
        }
    }

    /// A chain of pages over HTTP.
    fn pages(&self, limit: u64) -> Seen {
        let first = format!("/api/streams/{STREAM}/items?limit={limit}");
        let mut seen = Vec::new();
        let mut target = first.clone();
        loop {
            let (status, page) = self.client.answer(&target);
            let page: Value = serde_json::from_str(&page).unwrap();
            assert_eq!(status, 200, "{page}");
            seen.extend(page["items"].as_array().unwrap().iter().map(row));
            let Some(next) = page["next"].as_str() else {
                return seen;
            };
            target = format!("{first}&after={next}");
        }
    }

    /// The snapshot that a stream of changes begins with.
    fn changes(&self, _limit: u64) -> Seen {
        let target = format!("/api/streams/{STREAM}/changes?until=0");
        let text = self.client.get(&target);
        let frames = text.lines().map(serde_json::from_str::<Value>);
        let rows = frames.filter_map(|frame| {
            let frame = frame.unwrap();
            (frame["event"] == "item").then(|| row(&frame["data"]))
        });
        rows.collect()
    }
}

/// An item as readers are sent it.
fn row(item: &Value) -> (String, u64) {
    let id = item["itemId"].as_str().unwrap();
    (id.to_owned(), item["fields"]["stamp"].as_u64().unwrap())
}

fn stamp(item: &Item) -> u64 {
    let mut fields = item.fields().iter();
    let (_, field) = fields.find(|(name, _)| &**name == "stamp").unwrap();
    field.value().text.parse().unwrap()
}
