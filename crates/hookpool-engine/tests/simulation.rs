//! The pipeline over a log that is slow and fails, from a seed: whatever happens, what was acknowledged is there once; the pool is the fold
//! of the log, and followers are told of all that can be seen, once and in order.
//!
//! Requests make one event or several, or delete an item. Some are signed, some have an idempotency key: these are sent until they are
//! acknowledged, and the others once.
//!
//! `HOOKPOOL_SEEDS=1000` runs that many seeds, `HOOKPOOL_SEED=42` repeats one. A seed fixes the faults and the senders' choices; threads
//! still race, so a failure may need a few repetitions.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, atomic::AtomicU64},
    time::Duration,
};

use bytes::Bytes;
use hookpool_core::{
    bulk,
    control::ControlChange,
    cursor::Cursor,
    event::{Event, Op, RequestId},
    fold::Item,
    idempotency::IdempotencyKey,
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
    AcceptError, Asked, BulkAsked, Engine, Options,
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

/// What a request asks for.
#[derive(Debug, Clone)]
enum Asks {
    Body(String),
    /// Each is one event, and all of them are there or none.
    Lines(Vec<String>),
    /// Of this item.
    Deletion(String),
}

impl Asks {
    /// Item and body of each event that it makes.
    fn events(&self) -> Vec<(String, &str)> {
        match self {
            Self::Body(body) => vec![(item_of(body), body)],
            Self::Lines(bodies) => bodies.iter().map(|body| (item_of(body), &**body)).collect(),
            Self::Deletion(item) => vec![(item.clone(), "")],
        }
    }
}

/// What makes a repetition known.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Known {
    Not,
    /// By its signature, of this second.
    Signed(u64),
    /// By this key.
    Keyed(String),
}

/// A request, and what its sender was told.
#[derive(Debug)]
struct Sent {
    asks: Asks,
    /// Each time it was sent.
    attempts: Vec<RequestId>,
    /// Where its last event is, as often as that was told.
    acknowledged: Vec<Position>,
}

/// All that was sent, of which each sender adds what is its own.
type Ledger = Arc<Mutex<Vec<Sent>>>;

/// What a run did, so that one that does nothing is seen.
#[derive(Debug, Default)]
struct Done {
    acknowledged: usize,
    deletions: usize,
    of_several: usize,
    repeated: usize,
    /// Changes that followers saw.
    told: usize,
    lives_failed: usize,
}

impl Done {
    fn add(&mut self, other: &Self) {
        self.acknowledged += other.acknowledged;
        self.deletions += other.deletions;
        self.of_several += other.of_several;
        self.repeated += other.repeated;
        self.told += other.told;
        self.lives_failed += other.lives_failed;
    }

    fn count(&mut self, sent: &Sent) {
        if sent.acknowledged.is_empty() {
            return;
        }
        self.acknowledged += sent.acknowledged.len();
        self.deletions += usize::from(matches!(sent.asks, Asks::Deletion(_)));
        self.of_several += usize::from(matches!(sent.asks, Asks::Lines(_)));
        self.repeated += usize::from(sent.attempts.len() > 1);
    }
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
    let mut done = Done::default();
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
        let some = runtime.block_on(run).unwrap_or_else(|error| {
            panic!("seed {seed} failed, HOOKPOOL_SEED={seed} repeats it: {error}")
        });
        done.add(&some);
    }
    println!("{done:?}");
    assert!(
        done.deletions > 0 && done.of_several > 0 && done.repeated > 0 && done.told > 0,
        "nothing was tried: {done:?}"
    );
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .map(|text| text.parse().expect("a number"))
}

/// A few lives of the pipeline over one disk.
async fn simulate(seed: u64) -> Done {
    let mut random = StdRng::seed_from_u64(seed);
    let disk = Disk {
        log: Arc::new(MemoryLog::new(Epoch(seed + 1))),
        control: Arc::new(MemoryLog::new(Epoch(seed + 2))),
        pool: Arc::new(MemoryPool::default()),
    };
    let keys = provision(&disk, seed).await;
    let ledger = Ledger::default();
    let mut done = Done::default();
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
        let rewritten = Form::Rewritten(|into, frame| into.extend_from_slice(frame));
        let one = Some("item-1");
        let followers = [
            (Form::Encoded, None),
            (rewritten, None),
            (Form::Events, None),
            (Form::Encoded, one),
            (Form::Events, one),
        ]
        .map(|(form, item)| tokio::spawn(follow(Arc::clone(&engine), form, item, random.random())));
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
        done.lives_failed += usize::from(matches!(engine.status().get(), Status::Failed(_)));
        done.told += finish(engine, running, followers, &disk).await;
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
    ledger
        .lock()
        .unwrap()
        .iter()
        .for_each(|sent| done.count(sent));
    done
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

/// A frame is a line.
fn encode(into: &mut Vec<u8>, cursor: &Cursor, event: &Event, change: &Change<'_>) {
    assert_eq!(cursor.position, event.position);
    into.extend_from_slice(line(event, change).as_bytes());
    into.push(b'\n');
}

fn line(event: &Event, change: &Change<'_>) -> String {
    let (position, op) = (event.position, event.event.op.as_str());
    let mut set: Vec<_> = change
        .set()
        .map(|(name, value)| format!("{name}={}", value.text))
        .collect();
    set.sort();
    format!("{position} {op} {} {}", change.item_id, set.join(" "))
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

/// Sends requests; those that are known again until they are acknowledged, since that is safe.
async fn send(engine: Arc<Pipeline>, keys: Keys, sender: u64, seed: u64, ledger: Ledger) {
    let mut random = StdRng::seed_from_u64(seed);
    for n in 0..DELIVERIES {
        let asks = asks(&mut random, sender, n);
        let known = match random.random_range(0..4) {
            0 | 1 => Known::Not,
            // In one second all deletions of an item have the same signature.
            2 => Known::Signed(NOW - (sender * DELIVERIES + n)),
            _ => Known::Keyed(format!("{sender}-{n}")),
        };
        let mut sent = Sent {
            asks,
            attempts: Vec::new(),
            acknowledged: Vec::new(),
        };
        for _ in 0..if known == Known::Not { 1 } else { 20 } {
            let id = engine.request_id();
            sent.attempts.push(id);
            if let Some(position) = deliver(&engine, &keys, &sent.asks, &known, id).await {
                sent.acknowledged.push(position);
                // Once more sometimes, as senders do.
                if !random.random_bool(0.3) {
                    break;
                }
            }
        }
        ledger.lock().unwrap().push(sent);
    }
}

fn asks(random: &mut StdRng, sender: u64, n: u64) -> Asks {
    let body = |part: u64, random: &mut StdRng| {
        let (item, field) = (random.random_range(0..6), random.random_range(0..4));
        format!(r#"{{"id":"item-{item}","nonce":"{sender}-{n}-{part}","f{field}":{n}}}"#)
    };
    match random.random_range(0..10) {
        0 | 1 => Asks::Deletion(format!("item-{}", random.random_range(0..6))),
        2 | 3 => {
            let parts = random.random_range(2..6);
            Asks::Lines((0..parts).map(|part| body(part, random)).collect())
        }
        _ => Asks::Body(body(0, random)),
    }
}

fn item_of(body: &str) -> String {
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    body["id"].as_str().unwrap().to_owned()
}

/// Sends once; where the last event is, if that is told.
async fn deliver(
    engine: &Arc<Pipeline>,
    keys: &Keys,
    asks: &Asks,
    known: &Known,
    id: RequestId,
) -> Option<Position> {
    let bytes = Bytes::from(match asks {
        Asks::Body(body) => body.clone(),
        Asks::Lines(bodies) => bodies.join("\n"),
        Asks::Deletion(_) => String::new(),
    });
    let (mut headers, mut key) = (Vec::new(), &keys.plain);
    if let Known::Signed(second) = known {
        let signature = signature(&keys.signing, *second, &bytes);
        headers.push(("X-Webhook-Signature", signature));
        headers.push(("X-Webhook-Timestamp", second.to_string()));
        key = &keys.signed;
    }
    let idempotency = match known {
        Known::Keyed(key) => Some(IdempotencyKey::parse(key.as_bytes()).unwrap()),
        Known::Not | Known::Signed(_) => None,
    };
    let authorization = format!("Bearer {key}");
    let proof = Proof {
        authorization: Header::One(authorization.as_bytes()),
        headers: &headers,
    };
    let admitted = engine.admit(STREAM, proof).unwrap();
    let told = match asks {
        Asks::Body(_) => {
            let asked = Asked {
                key: idempotency.as_ref(),
                ..Asked::default()
            };
            let accepted = engine.accept(admitted, bytes, asked, id).await;
            accepted.map(|receipt| receipt.position)
        }
        Asks::Lines(_) => {
            let asked = BulkAsked {
                form: bulk::Form::Lines { id_field: None },
                key: idempotency,
                body_bytes_max: 1 << 10,
            };
            let bulk = engine.prepare_bulk(admitted, bytes, asked, id).await;
            let recorded = engine.record_bulk(bulk.unwrap()).await;
            recorded.map(|receipt| receipt.last)
        }
        Asks::Deletion(item) => {
            let verified = engine.verify(admitted, bytes).unwrap();
            let item = ItemId::new(item.as_str()).unwrap();
            let recorded = engine.record_deletion(verified, item, idempotency.as_ref(), id);
            recorded.await.map(|receipt| receipt.position)
        }
    };
    match told {
        Ok(position) => Some(position),
        Err(AcceptError::Queue(_) | AcceptError::Read(_)) => None,
        Err(error) => panic!("{error}, of {asks:?}, {known:?}"),
    }
}

/// Follows all items or one from the start and comes back at its position now and then; returns what it was to see, and what it saw, each
/// change as its line.
async fn follow(
    engine: Arc<Pipeline>,
    form: Form,
    item: Option<&'static str>,
    seed: u64,
) -> (Option<&'static str>, Vec<String>) {
    let mut random = StdRng::seed_from_u64(seed);
    let stream = StreamName::new(STREAM).unwrap();
    let mut seen = Vec::new();
    let ruled = Plan::default().live;
    let id = item.map(|item| ItemId::new(item).unwrap());
    let follow = |after| {
        let follower = engine.follow(stream.clone(), ruled.clone(), form, after);
        follower.of_item(id.clone())
    };
    let mut follower = follow(Position::ZERO);
    loop {
        let step = tokio::select! {
            step = follower.next() => step,
            _ = engine.status().ended() => return (item, seen),
        };
        match step {
            Ok(Step::Encoded(bytes, _)) => {
                let lines = std::str::from_utf8(&bytes).unwrap().lines();
                seen.extend(lines.map(str::to_owned));
            }
            Ok(Step::Told(told)) => {
                for told in told {
                    let change = told.change(&ruled.projection).unwrap();
                    let named =
                        change.filter(|change| id.as_ref().is_none_or(|id| *id == *change.item_id));
                    seen.extend(named.map(|change| line(&told.event, &change)));
                }
            }
            Ok(Step::Passed) => {}
            Ok(Step::Retired) => panic!("nothing was promoted"),
            Err(_) => {}
        }
        if random.random_bool(0.2) {
            follower = follow(follower.position());
        }
    }
}

/// Ends a life, half of the time before everybody has caught up, and checks what the followers saw; how much that was.
async fn finish(
    engine: Arc<Pipeline>,
    running: Running,
    followers: [tokio::task::JoinHandle<(Option<&'static str>, Vec<String>)>; 5],
    disk: &Disk,
) -> usize {
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
    let all = plain::Fold::of(&events(disk)).told;
    let mut told = 0;
    for follower in followers {
        let (item, seen) = follower.await.unwrap();
        let is_of = |line: &&String| line.split(' ').nth(2) == item;
        let expected: Vec<_> = match item {
            Some(_) => all.iter().filter(is_of).cloned().collect(),
            None => all.clone(),
        };
        let expected = &expected[..seen.len().min(expected.len())];
        assert_eq!(seen, expected, "a follower sees each change once, in order");
        told += seen.len();
    }
    tokio::task::spawn_blocking(|| running.join())
        .await
        .unwrap();
    told
}

/// Of each request all events are in the log, next to each other, or none; once, however often it was sent; and at the position that was told.
fn check_log(disk: &Disk, ledger: &[Sent]) {
    let mut requests: BTreeMap<RequestId, Vec<Event>> = BTreeMap::new();
    for event in events(disk).into_values() {
        requests
            .entry(event.event.request_id)
            .or_default()
            .push(event);
    }
    for sent in ledger {
        let there = sent.attempts.iter().filter_map(|id| requests.remove(id));
        let there: Vec<Event> = there.flatten().collect();
        if there.is_empty() {
            assert_eq!(sent.acknowledged, [], "nothing of {sent:?}");
            continue;
        }
        let found: Vec<_> = there
            .iter()
            .map(|Event { event, .. }| (event.item_id.to_string(), &*event.body))
            .collect();
        let asked: Vec<_> = sent
            .asks
            .events()
            .into_iter()
            .map(|(item, body)| (item, body.as_bytes()))
            .collect();
        assert_eq!(found, asked, "{sent:?}");
        let (first, last) = (there[0].position, there[there.len() - 1].position);
        assert_eq!(
            last.0 - first.0 + 1,
            there.len() as u64,
            "{sent:?} in one piece"
        );
        assert!(
            sent.acknowledged.iter().all(|told| *told == last),
            "{sent:?} at {last}"
        );
        let op = match sent.asks {
            Asks::Deletion(_) => Op::Delete,
            Asks::Body(_) | Asks::Lines(_) => Op::Upsert,
        };
        assert!(there.iter().all(|event| event.event.op == op), "{sent:?}");
    }
    assert_eq!(requests.len(), 0, "nobody asked for {requests:?}");
}

fn check_pool(disk: &Disk, pool: &impl PoolSnapshot) {
    let stream = StreamName::new(STREAM).unwrap();
    let mut expected: BTreeMap<ItemId, Item> = BTreeMap::new();
    for event in events(disk).values() {
        let projection = Projection::default();
        let change = projection
            .read(event, event.event.fields().unwrap())
            .unwrap();
        let item = expected.entry(event.event.item_id.clone()).or_default();
        item.apply(event, &change, &projection);
        item.take_history();
    }
    expected.retain(|_, item| item.is_there());
    let items = pool
        .items(&stream, Generation::FIRST, None, usize::MAX, usize::MAX)
        .unwrap()
        .items;
    let shown = items.iter().map(|(id, item)| {
        let fields = item.fields().iter();
        let fields = fields.map(|(name, field)| (name.to_string(), field.text.to_string()));
        (id.to_string(), fields.collect())
    });
    assert_eq!(
        shown.collect::<BTreeMap<_, _>>(),
        plain::Fold::of(&events(disk)).items,
        "the items are those of the log"
    );
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

/// The fold without rules, as plainly as it can be written.
mod plain {
    use std::collections::BTreeMap;

    use hookpool_core::{
        event::{Event, Op},
        position::Position,
    };
    use serde_json::{Map, Value};

    type Fields = BTreeMap<String, String>;

    #[derive(Default)]
    pub(super) struct Fold {
        pub(super) items: BTreeMap<String, Fields>,
        /// A line for each event that changes what is there.
        pub(super) told: Vec<String>,
    }

    impl Fold {
        pub(super) fn of(events: &BTreeMap<Position, Event>) -> Self {
            let mut fold = Self::default();
            for (position, Event { event, .. }) in events {
                let item = event.item_id.to_string();
                if event.op == Op::Delete {
                    if fold.items.remove(&item).is_some() {
                        fold.told.push(format!("{position} delete {item} "));
                    }
                    continue;
                }
                let body: Map<String, Value> = serde_json::from_slice(&event.body).unwrap();
                let fields = body
                    .iter()
                    .map(|(name, value)| (name.clone(), value.to_string()));
                let fields: Fields = fields.collect();
                let set: Vec<_> = fields
                    .iter()
                    .map(|(name, text)| format!("{name}={text}"))
                    .collect();
                fold.told
                    .push(format!("{position} upsert {item} {}", set.join(" ")));
                fold.items.entry(item).or_default().extend(fields);
            }
            fold
        }
    }
}
