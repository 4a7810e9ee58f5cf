//! What is appended as one is seen as one: writers rewrite 50 items with one stamp in each batch, and no snapshot and no chain of pages
//! ever shows two stamps.
//!
//! Real parts but for the writers, which append batches to the log by its contract, each one commit; there is no endpoint for batches. The
//! engine and the HTTP edge run in this process, over a log and a pool in a folder; the pool has so small a table in memory that it is
//! written to files and merged all the time. Readers page through views of the pool, through `items`, and take snapshots of `changes`,
//! while the projector is some pages behind, or far. `HOOKPOOL_BATCHES` says how many batches.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "these tests take real time")]
#![expect(clippy::print_stderr, reason = "seeds and counts are for people")]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use hookpool_core::{
    event::{NewEvent, Op, RequestId},
    fold::Item,
    json::Value as Text,
    name::{ConnectorName, ItemId, StreamName},
    position::{Epoch, Generation, Position},
    seal::MasterKey,
    time::Timestamp,
};
use hookpool_engine::{
    Engine, Options, appender::Limits as QueueLimits, clock::Clock, control::ConnectorSpec,
    engine::Running, entropy::Entropy,
};
use hookpool_fjall::{FjallLog, FjallPool, Options as LogOptions};
use hookpool_http::{
    Settings, encode_change, routes,
    server::{Limits, serve},
};
use hookpool_store::{
    EventLog, PoolSnapshot,
    faulty::{Faults, FaultyLog},
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::Value;
use tokio::{net::TcpListener, sync::oneshot};

type Log = Arc<FjallLog>;
/// To the engine the log is slow at times, so that many batches wait for the projector.
type Pipeline = Engine<FaultyLog<Log>, FjallPool>;

const STREAM: &str = "stamped";
const ITEMS: u64 = 50;
const MEMTABLE_BYTES: u64 = 64 << 10;
/// In half of that time come more batches than fit one page.
const PAGE_DELAY_MAX: Duration = Duration::from_millis(100);
/// Events that may wait.
const BEHIND_MAX: u64 = 40_000;

#[test]
fn no_snapshot_ever_shows_two_stamps() {
    let number = |name: &str| Some(std::env::var(name).ok()?.parse::<u64>().unwrap());
    let seed = number("HOOKPOOL_SEED").unwrap_or_else(|| rand::random_range(0..1 << 32));
    let batches = number("HOOKPOOL_BATCHES").unwrap_or(400);
    eprintln!("snapshots: repeat with HOOKPOOL_SEED={seed}");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(rewrite(batches, StdRng::seed_from_u64(seed)));
}

async fn rewrite(batches: u64, mut random: StdRng) {
    let folder = tempfile::tempdir().unwrap();
    let (log, engine, running) = start(folder.path()).await;
    let key = first_operator(&engine).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(serve_until(listener, Arc::clone(&engine), stopped));

    append(&log, 0).await;
    assert!(
        engine
            .wait_applied(log.head(), Duration::from_secs(10))
            .await
    );
    let readers = Arc::new(Readers {
        engine,
        addr,
        key,
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
        append(&log, stamp).await;
        let far = log.head().0.saturating_sub(BEHIND_MAX);
        let patience = Duration::from_secs(60);
        assert!(readers.engine.wait_applied(Position(far), patience).await);
        if tasks.iter().any(tokio::task::JoinHandle::is_finished) {
            break;
        }
    }
    readers.done.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    let counts = readers
        .seen
        .each_ref()
        .map(|seen| seen.load(Ordering::Relaxed));
    eprintln!(
        "{batches} batches of {ITEMS} in {:.0?}; {} views, {} chains of pages, {} snapshots of changes, at {} different stamps: none \
         with two",
        begun.elapsed(),
        counts[0],
        counts[1],
        counts[2],
        readers.stamps.load(Ordering::Relaxed),
    );
    assert!(counts.iter().all(|seen| *seen > 0));

    stop.send(()).unwrap();
    readers.engine.status().stop();
    serving.await.unwrap();
    drop(readers);
    tokio::task::spawn_blocking(|| running.join())
        .await
        .unwrap();
}

async fn start(dir: &Path) -> (Log, Arc<Pipeline>, Running) {
    let open = |name: &str, epoch| {
        let log = FjallLog::open(&dir.join(name), LogOptions::new(Epoch(epoch)));
        Arc::new(log.unwrap())
    };
    let (log, control) = (open("log", 1), open("control", 2));
    let pool = FjallPool::open_with_memtable(&dir.join("pool"), MEMTABLE_BYTES).unwrap();
    let options = Options {
        master: MasterKey::new(&[7; 32]),
        encode: encode_change,
        limits: QueueLimits::default(),
        clock: Clock::System,
        entropy: Entropy::System,
    };
    let slow = Faults {
        seed: 1,
        delay_max: PAGE_DELAY_MAX,
        ..Faults::default()
    };
    let slow = FaultyLog::new(Arc::clone(&log), slow);
    let control = FaultyLog::new(control, Faults::default());
    let started = Engine::start(slow, control, pool, options).await;
    let (engine, running) = started.unwrap();
    (log, engine, running)
}

/// A key that reads everything; and the stream, which is there once it has a connector.
async fn first_operator(engine: &Pipeline) -> String {
    let (key, change) = engine.control().draw_operator();
    let operator = engine.control().change(&key.key_id, "operator", change);
    operator.await.unwrap();
    let spec = ConnectorSpec {
        name: ConnectorName::new(STREAM).unwrap(),
        stream: StreamName::new(STREAM).unwrap(),
        signed: false,
        id_field: None,
        replay: hookpool_core::registry::Replay::Collapse,
    };
    let added = engine.control().add_connector(&key.key_id, spec).await;
    added.unwrap();
    key.secret.expose().to_owned()
}

async fn serve_until(listener: TcpListener, engine: Arc<Pipeline>, stop: oneshot::Receiver<()>) {
    let settings = Settings {
        body_bytes: 1 << 20,
        body_timeout: Duration::from_secs(10),
        public_url: String::new(),
    };
    let limits = Limits {
        connections: 64,
        head: Duration::from_secs(10),
        keep_alive: Duration::from_secs(60),
        write: Duration::from_secs(60),
        drain: Duration::from_secs(10),
    };
    let stop = async {
        let _gone = stop.await;
    };
    serve(listener, None, routes(engine, settings), limits, stop).await;
}

/// Rewrites all items in one commit.
async fn append(log: &Log, stamp: u64) {
    let batch = (0..ITEMS).map(|item| event(item, stamp)).collect();
    let before = log.head();
    let outcomes = log.append(batch).await.unwrap();
    assert_eq!(outcomes.len() as u64, ITEMS);
    if stamp.is_multiple_of(100) {
        let blocks = log.blocks(before, 1).await.unwrap();
        assert_eq!(u64::from(blocks[0].header().count), ITEMS, "one commit");
    }
}

fn event(item: u64, stamp: u64) -> NewEvent {
    let id = format!("item-{item:02}");
    let padding = "x".repeat(100);
    let body = format!(r#"{{"id":"{id}","stamp":{stamp},"padding":"{padding}"}}"#);
    NewEvent {
        time: Timestamp::from_seconds(1_700_000_000 + stamp),
        stream: StreamName::new(STREAM).unwrap(),
        op: Op::Upsert,
        item_id: ItemId::new(id).unwrap(),
        generated_id: false,
        duplicate_keys: false,
        field_count: 3,
        connector: ConnectorName::new(STREAM).unwrap(),
        request_id: RequestId(u128::from(stamp).to_le_bytes()),
        dedupe: None,
        body: Bytes::from(body),
    }
}

struct Readers {
    engine: Arc<Pipeline>,
    addr: SocketAddr,
    key: String,
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
            let page: Value = serde_json::from_str(&self.get(&target)).unwrap();
            let items = page["items"].as_array().unwrap();
            stamps.extend(
                items
                    .iter()
                    .map(|item| item["fields"]["stamp"].as_u64().unwrap()),
            );
            let Some(next) = page["next"].as_str() else {
                return stamps;
            };
            target = format!("{first}&after={next}");
        }
    }

    /// The snapshot that a stream of changes begins with.
    fn changes(&self, _limit: u64) -> Vec<u64> {
        let target = format!("/api/streams/{STREAM}/changes?until=0");
        let text = self.get(&target);
        let frames = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        let rows = frames.filter(|frame| frame["event"] == "item");
        rows.map(|row| row["data"]["fields"]["stamp"].as_u64().unwrap())
            .collect()
    }

    /// Over HTTP/1.0, where an answer ends with its connection.
    fn get(&self, target: &str) -> String {
        let mut stream = TcpStream::connect(self.addr).unwrap();
        let (key, accept) = (&self.key, "application/x-ndjson, application/json;q=0.5");
        let request = format!(
            "GET {target} HTTP/1.0\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\nAccept: {accept}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(" 200 "), "{answer}");
        body.to_owned()
    }
}

fn stamp(item: &Item) -> u64 {
    let mut fields = item.fields().iter();
    let (_, field) = fields.find(|(name, _)| &**name == "stamp").unwrap();
    let Text { text, .. } = field.value();
    text.parse().unwrap()
}
