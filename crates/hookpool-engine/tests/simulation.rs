//! The pipeline over a log that is slow and fails, from a seed: whatever happens, what was acknowledged is there once.
//!
//! `HOOKPOOL_SEEDS=1000` runs that many seeds, `HOOKPOOL_SEED=42` repeats one. A seed fixes the faults and the senders' choices; threads
//! still race, so a failure may need a few repetitions.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, atomic::AtomicU64},
    time::Duration,
};

use bytes::Bytes;
use hookpool_core::{
    control::ControlChange,
    cursor::Cursor,
    event::Event,
    fold::Item,
    json,
    key::KeyId,
    name::{ConnectorName, ItemId, StreamName},
    plan::Plan,
    position::{Epoch, Generation, Position},
    projection::{Change, Projection},
    registry::Replay,
    seal::MasterKey,
    sign::signature,
    verify::{Header, Proof},
};
use hookpool_engine::{
    Asked, Engine, Options,
    appender::Limits,
    clock::Clock,
    control::ConnectorSpec,
    engine::Running,
    entropy::Entropy,
    follow::{Form, Step},
    status::Status,
};
use hookpool_store::{
    EventLog, PageRequest, PoolSnapshot,
    faulty::{Faults, FaultyLog},
    memory::{MemoryLog, MemoryPool},
};
use rand::{Rng, SeedableRng, rngs::StdRng};

type Log = FaultyLog<Arc<MemoryLog>>;
type Pipeline = Engine<Log, Arc<MemoryPool>>;

const STREAM: &str = "sim";
const NOW: u64 = 1_700_000_000;
const SENDERS: u64 = 4;
const DELIVERIES: u64 = 12;
const LIVES: u64 = 3;

/// What outlives a crash.
struct Disk {
    log: Arc<MemoryLog>,
    control: Arc<MemoryLog>,
    pool: Arc<MemoryPool>,
}

/// Both ways into the stream.
#[derive(Clone)]
struct Keys {
    plain: String,
    signed: String,
    signing: String,
}

/// What senders were told: body to position.
#[derive(Default)]
struct Ledger {
    acknowledged: Vec<(String, Position)>,
    signed: BTreeSet<String>,
}

#[test]
fn what_was_acknowledged_is_there_once_whatever_fails() {
    let seeds = match number("HOOKPOOL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("HOOKPOOL_SEEDS").unwrap_or(50),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let (mut acknowledged, mut failed) = (0, 0);
    // Several at a time: each mostly waits.
    let mut queue = seeds.into_iter();
    let mut running: Vec<_> = Vec::new();
    loop {
        running.extend(
            queue
                .by_ref()
                .take(8 - running.len())
                .map(|seed| (seed, runtime.spawn(simulate(seed)))),
        );
        if running.is_empty() {
            break;
        }
        let (seed, run) = running.remove(0);
        let (told, ends) = runtime.block_on(run).unwrap_or_else(|error| {
            panic!("seed {seed} failed, HOOKPOOL_SEED={seed} repeats it: {error}")
        });
        acknowledged += told;
        failed += ends;
    }
    println!("{acknowledged} acknowledged deliveries, {failed} lives ended by a final failure");
    assert!(acknowledged > 0, "a run without deliveries shows nothing");
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .map(|text| text.parse().expect("a number"))
}

/// A few lives of the pipeline over one disk; returns how much was acknowledged and how many lives failed for good.
async fn simulate(seed: u64) -> (usize, usize) {
    let mut random = StdRng::seed_from_u64(seed);
    let disk = Disk {
        log: Arc::new(MemoryLog::new(Epoch(seed + 1))),
        control: Arc::new(MemoryLog::new(Epoch(seed + 2))),
        pool: Arc::new(MemoryPool::default()),
    };
    let keys = provision(&disk, seed).await;
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let mut failed = 0;
    for life in 0..LIVES {
        let faults = Faults {
            seed: random.random(),
            // Timers tick in milliseconds, so a few slow lives in many fast ones show more than all slow ones.
            delay_max: Duration::from_micros(if random.random_bool(0.1) { 200 } else { 0 }),
            unknown_one_in: random.random_range(2..20),
            final_one_in: if random.random_bool(0.3) {
                random.random_range(5..40)
            } else {
                0
            },
            read_one_in: random.random_range(3..30),
        };
        let (engine, running) = start(&disk, faults, seed * LIVES + life).await;
        let followers = [Form::Encoded, Form::Events]
            .map(|form| tokio::spawn(follow(Arc::clone(&engine), form, random.random())));
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                let sender = life * SENDERS + sender;
                tokio::spawn(send(
                    Arc::clone(&engine),
                    keys.clone(),
                    sender,
                    random.random(),
                    Arc::clone(&ledger),
                ))
            })
            .collect();
        for sender in senders {
            sender.await.unwrap();
        }
        failed += usize::from(matches!(engine.status().get(), Status::Failed(_)));
        finish(engine, running, followers).await;
        check_log(&disk, &ledger.lock().unwrap());
    }
    let (engine, running) = start(&disk, Faults::default(), seed).await;
    assert!(
        engine
            .wait_applied(disk.log.head(), Duration::from_secs(10))
            .await,
        "the pool catches up"
    );
    check_pool(&disk, &*engine.pool());
    engine.status().stop();
    drop(engine);
    tokio::task::spawn_blocking(|| running.join())
        .await
        .unwrap();
    let told = ledger.lock().unwrap().acknowledged.len();
    (told, failed)
}

async fn start(disk: &Disk, faults: Faults, seed: u64) -> (Arc<Pipeline>, Running) {
    let options = Options {
        master: MasterKey::new(&[7; 32]),
        encode,
        limits: Limits {
            batch_events: 8,
            ..Limits::default()
        },
        clock: Clock::Manual(Arc::new(AtomicU64::new(NOW * 1_000_000))),
        entropy: Entropy::seeded(seed),
        rejections: Default::default(),
    };
    let log = FaultyLog::new(Arc::clone(&disk.log), faults);
    let control = FaultyLog::new(Arc::clone(&disk.control), Faults::default());
    Engine::start(log, control, Arc::clone(&disk.pool), options)
        .await
        .unwrap()
}

/// A frame is its position on a line.
fn encode(into: &mut Vec<u8>, cursor: &Cursor, event: &Event, _change: &Change<'_>) {
    assert_eq!(cursor.position, event.position);
    into.extend_from_slice(format!("{}\n", event.position).as_bytes());
}

async fn provision(disk: &Disk, seed: u64) -> Keys {
    let (engine, running) = start(disk, Faults::default(), seed).await;
    let author = KeyId::from_random([1; 6]);
    let spec = |name: &str, signed| ConnectorSpec {
        name: ConnectorName::new(name).unwrap(),
        stream: StreamName::new(STREAM).unwrap(),
        signed,
        id_field: None,
        replay: Replay::Collapse,
        scheme: None,
        signing_key: None,
        limits: Default::default(),
        keep_rejected: false,
    };
    let plain = engine
        .control()
        .add_connector(&author, spec("plain", false))
        .await
        .unwrap();
    let signed = engine
        .control()
        .add_connector(&author, spec("signed", true))
        .await
        .unwrap();
    let again = engine
        .control()
        .add_connector(&author, spec("plain", false))
        .await;
    assert!(again.is_err(), "a name is taken once");
    let enabled = ControlChange::ConnectorEnabled {
        connector: ConnectorName::new("plain").unwrap(),
        enabled: true,
    };
    engine
        .control()
        .change(&author, "plain", enabled)
        .await
        .unwrap();
    engine.status().stop();
    drop(engine);
    tokio::task::spawn_blocking(|| running.join())
        .await
        .unwrap();
    Keys {
        plain: plain.ingest_key.secret.expose().to_owned(),
        signed: signed.ingest_key.secret.expose().to_owned(),
        signing: signed.signing_key.unwrap().secret.expose().to_owned(),
    }
}

/// Sends deliveries; signed ones again until they are acknowledged, since that is safe.
async fn send(
    engine: Arc<Pipeline>,
    keys: Keys,
    sender: u64,
    seed: u64,
    ledger: Arc<Mutex<Ledger>>,
) {
    let mut random = StdRng::seed_from_u64(seed);
    for n in 0..DELIVERIES {
        let item = random.random_range(0..6);
        let signed = random.random_bool(0.5);
        let body = format!(
            r#"{{"id":"item-{item}","nonce":"{sender}-{n}","f{}":{n}}}"#,
            random.random_range(0..4)
        );
        if signed {
            ledger.lock().unwrap().signed.insert(body.clone());
        }
        for _ in 0..if signed { 20 } else { 1 } {
            if let Some(position) = deliver(&engine, &keys, &body, signed).await {
                ledger
                    .lock()
                    .unwrap()
                    .acknowledged
                    .push((body.clone(), position));
                // Once more sometimes, as senders do.
                if !(signed && random.random_bool(0.3)) {
                    break;
                }
            }
        }
    }
}

async fn deliver(engine: &Pipeline, keys: &Keys, body: &str, signed: bool) -> Option<Position> {
    let authorization = format!("Bearer {}", if signed { &keys.signed } else { &keys.plain });
    let signature = signature(&keys.signing, NOW, body.as_bytes());
    let timestamp = NOW.to_string();
    let headers = [
        ("X-Webhook-Signature", signature),
        ("X-Webhook-Timestamp", timestamp),
    ];
    let proof = Proof {
        authorization: Header::One(authorization.as_bytes()),
        headers: &headers,
    };
    let admitted = engine.admit(STREAM, proof).unwrap();
    let body = Bytes::copy_from_slice(body.as_bytes());
    engine
        .accept(admitted, body, Asked::default(), engine.request_id())
        .await
        .ok()
        .map(|receipt| receipt.position)
}

/// Follows from the start and comes back at its position now and then; returns what it saw.
async fn follow(engine: Arc<Pipeline>, form: Form, seed: u64) -> Vec<u64> {
    let mut random = StdRng::seed_from_u64(seed);
    let stream = StreamName::new(STREAM).unwrap();
    let mut seen = Vec::new();
    let ruled = Plan::default().live;
    let follow = |after| engine.follow(stream.clone(), ruled.clone(), form, after);
    let mut follower = follow(Position::ZERO);
    loop {
        let step = tokio::select! {
            step = follower.next() => step,
            _ = engine.status().ended() => return seen,
        };
        match step {
            Ok(Step::Encoded(bytes)) => {
                seen.extend(
                    std::str::from_utf8(&bytes)
                        .unwrap()
                        .lines()
                        .map(|line| line.parse::<u64>().unwrap()),
                );
            }
            Ok(Step::Told(told)) => seen.extend(told.iter().map(|told| told.event.position.0)),
            Ok(Step::Retired) => panic!("nothing was promoted"),
            Err(_) => {}
        }
        if random.random_bool(0.2) {
            follower = follow(follower.position());
        }
    }
}

/// Ends a life, half of the time before everybody has caught up, and checks what the followers saw.
async fn finish(
    engine: Arc<Pipeline>,
    running: Running,
    followers: [tokio::task::JoinHandle<Vec<u64>>; 2],
) {
    let head = engine.head();
    let healthy = engine.status().is_ready();
    if healthy && head.0.is_multiple_of(2) {
        assert!(
            engine.wait_applied(head, Duration::from_secs(10)).await,
            "the pool catches up"
        );
    }
    engine.status().stop();
    drop(engine);
    for follower in followers {
        let seen = follower.await.unwrap();
        let expected: Vec<u64> = (1..=seen.len() as u64).collect();
        assert_eq!(
            seen, expected,
            "a follower sees each position once, in order"
        );
        assert!(seen.len() as u64 <= head.0);
    }
    tokio::task::spawn_blocking(|| running.join())
        .await
        .unwrap();
}

/// Every acknowledged body is at its position; a signed one is nowhere else.
fn check_log(disk: &Disk, ledger: &Ledger) {
    let events = events(disk);
    for (body, position) in &ledger.acknowledged {
        let event = events
            .get(position)
            .unwrap_or_else(|| panic!("nothing at {position}"));
        assert_eq!(event.event.body, body.as_bytes(), "at {position}");
    }
    let mut times: BTreeMap<&[u8], usize> = BTreeMap::new();
    for event in events.values() {
        *times.entry(&event.event.body).or_default() += 1;
    }
    for (body, times) in times {
        let signed = ledger.signed.contains(std::str::from_utf8(body).unwrap());
        // An unsigned delivery is sent once, so it is there at most once as well.
        assert_eq!(
            times,
            1,
            "{} (signed: {signed})",
            String::from_utf8_lossy(body)
        );
    }
}

fn check_pool(disk: &Disk, pool: &impl PoolSnapshot) {
    let stream = StreamName::new(STREAM).unwrap();
    let mut expected: BTreeMap<ItemId, Item> = BTreeMap::new();
    for event in events(disk).values() {
        let fields = json::object(&event.event.body).unwrap().fields;
        let projection = Projection::default();
        let change = projection.read(event, fields).unwrap();
        let item = expected.entry(event.event.item_id.clone()).or_default();
        item.apply(event, &change, &projection);
        item.take_history();
    }
    let items = pool
        .items(&stream, Generation::FIRST, None, usize::MAX, usize::MAX)
        .unwrap()
        .items;
    assert_eq!(
        items,
        expected.into_iter().collect::<Vec<_>>(),
        "the pool is the fold of the log"
    );
    let state = pool.generation(&stream, Generation::FIRST).unwrap();
    assert_eq!(state.map_or(0, |state| state.items), items.len() as u64);
}

fn events(disk: &Disk) -> BTreeMap<Position, Event> {
    let request = PageRequest {
        events_max: usize::MAX,
        bytes_max: usize::MAX,
        ..PageRequest::after(Position::ZERO)
    };
    let page = futures_executor(disk.log.page(request));
    page.events
        .into_iter()
        .map(|event| (event.position, event))
        .collect()
}

/// The memory log never waits.
fn futures_executor<T, E: std::fmt::Debug>(future: impl Future<Output = Result<T, E>>) -> T {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(outcome) => outcome.unwrap(),
        std::task::Poll::Pending => panic!("the memory log waited"),
    }
}
