//! Random operations on the engine against a naive model: events, deletions, rules, rebuilds, promotions, rollbacks, retention, kills, lost pools.
//!
//! After each sequence every generation must be the fold that the model makes of all events under its rules, dropped or not, at every moment
//! from the floor on; the difference must be the one between them; and what a follower is told from the floor on must add up to what is
//! served. A generation that was begun after history was dropped is the fold of what was left then, and of everything since.
//!
//! `HOOKPOOL_SEQUENCES=10000` runs that many, `HOOKPOOL_SEED=42` repeats one. A sequence is some 10 ms of work in the profile `checked`, ten times
//! that in a debug build.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use hookpool_core::{
    control::ControlChange,
    cursor::Cursor,
    difference::{Difference, DifferenceSum},
    event::{Event, Op},
    fold::Item,
    key::KeyId,
    name::{ConnectorName, ItemId, StreamName},
    plan::{Plan, Ruled},
    position::{Epoch, Generation, Position},
    projection::{Change, Rules},
    registry::Replay,
    retention::Retention,
    seal::MasterKey,
    verify::{Header, Proof},
};
use hookpool_engine::{
    Asked, Engine, Options,
    appender::Limits,
    clock::Clock,
    control::{ConnectorSpec, ControlError},
    engine::Running,
    entropy::Entropy,
    follow::FollowError,
    past::View,
    projector::PromoteError,
};
use hookpool_store::{
    EventLog, PageRequest, PoolSnapshot,
    memory::{MemoryLog, MemoryPool, MemorySnapshot},
};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use serde_json::{Map, Value, json};

type Pipeline = Engine<Arc<MemoryLog>, Arc<MemoryPool>>;

const STREAM: &str = "model";
const OPERATIONS: usize = 200;
/// Sequences that run at the same time.
const AT_ONCE: usize = 64;
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn every_generation_is_the_fold_of_all_events_under_its_rules() {
    let seeds = match number("HOOKPOOL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("HOOKPOOL_SEQUENCES").unwrap_or(40),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    // Never dropped: that would wait for the threads of a sequence that failed.
    let runtime = Box::leak(Box::new(runtime));
    let mut done = Done::default();
    // Many at a time: each mostly waits.
    let mut queue = seeds.into_iter();
    let mut running = VecDeque::new();
    loop {
        let more = queue.by_ref().take(AT_ONCE - running.len());
        running.extend(more.map(|seed| (seed, runtime.spawn(sequence(seed)))));
        let Some((seed, run)) = running.pop_front() else {
            break;
        };
        let some = runtime.block_on(run).unwrap_or_else(|error| {
            panic!("sequence {seed} failed, HOOKPOOL_SEED={seed} repeats it: {error}")
        });
        done.add(&some);
    }
    println!("{done:?}");
    assert!(
        done.events > 0 && done.deletions > 0 && done.promoted > 0 && done.dropped > 0,
        "nothing was tried: {done:?}"
    );
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("a number"))
}

/// What was done, so that a run that does nothing is seen.
#[derive(Debug, Default)]
struct Done {
    events: u64,
    deletions: u64,
    rebuilds: u64,
    promoted: u64,
    rolled_back: u64,
    refused: u64,
    kills: u64,
    lost_pools: u64,
    dropped: u64,
}

impl Done {
    fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.deletions += other.deletions;
        self.rebuilds += other.rebuilds;
        self.promoted += other.promoted;
        self.rolled_back += other.rolled_back;
        self.refused += other.refused;
        self.kills += other.kills;
        self.lost_pools += other.lost_pools;
        self.dropped += other.dropped;
    }
}

/// What outlives a kill.
struct Disk {
    log: Arc<MemoryLog>,
    control: Arc<MemoryLog>,
    pool: Arc<MemoryPool>,
    key: String,
    clock: Arc<AtomicU64>,
}

/// What a connector sends.
#[derive(Debug, Clone)]
enum Sent {
    Body(String),
    /// Of this item.
    Deletion(String),
}

/// What was posted, and what of it a generation never saw since it had been dropped when the generation was begun.
#[derive(Default)]
struct Posted {
    bodies: Vec<(Position, Sent)>,
    missed: BTreeMap<Generation, BTreeSet<Position>>,
}

impl Posted {
    /// What a generation is the fold of, up to a position.
    fn seen_by(&self, generation: Generation, until: Position) -> Vec<(Position, Sent)> {
        let missed = self.missed.get(&generation);
        let seen = self.bodies.iter().filter(|(position, _)| {
            *position <= until && !missed.is_some_and(|missed| missed.contains(position))
        });
        seen.cloned().collect()
    }

    /// The same without what the log does not have any more.
    async fn left(&self, log: &MemoryLog) -> Vec<(Position, Sent)> {
        let there = there(log).await;
        let left = self.bodies.iter();
        left.filter(|(position, _)| there.contains(position))
            .cloned()
            .collect()
    }
}

async fn there(log: &MemoryLog) -> BTreeSet<Position> {
    let request = PageRequest {
        events_max: usize::MAX,
        bytes_max: usize::MAX,
        ..PageRequest::after(Position::ZERO)
    };
    let page = log.page(request).await.unwrap();
    page.events.iter().map(|event| event.position).collect()
}

struct Life {
    engine: Arc<Pipeline>,
    running: Running,
}

async fn sequence(seed: u64) -> Done {
    let mut random = StdRng::seed_from_u64(seed);
    let mut disk = Disk {
        log: Arc::new(MemoryLog::new(Epoch(seed + 1))),
        control: Arc::new(MemoryLog::new(Epoch(seed + 2))),
        pool: Arc::new(MemoryPool::default()),
        key: String::new(),
        clock: Arc::new(AtomicU64::new(1_700_000_000_000_000)),
    };
    let mut life = start(&disk, seed).await;
    disk.key = connector(&life.engine).await;
    let (mut posted, mut done) = (Posted::default(), Done::default());
    for n in 0..OPERATIONS {
        match random.random_range(0..100) {
            0..66 => {
                let sent = sent(&mut random);
                done.deletions += u64::from(matches!(sent, Sent::Deletion(_)));
                let position = post(&life.engine, &disk.key, &sent).await;
                posted.bodies.push((position, sent));
                disk.clock.fetch_add(10_000_000, Ordering::Relaxed);
                done.events += 1;
            }
            66..70 => retain(&life.engine, &mut random).await,
            70..76 => {
                let change = ControlChange::ProjectionSet {
                    stream: stream(),
                    rules: serde_json::from_value(rules(&mut random)).unwrap(),
                };
                control(&life.engine, change).await.unwrap();
            }
            76..84 => {
                let begun = rebuild(&life.engine, &disk, &mut posted, &mut random).await;
                done.rebuilds += u64::from(begun);
            }
            84..86 => drop(cancel(&life.engine).await),
            86..92 => match promote(&life.engine, &mut random).await {
                Some(true) => done.promoted += 1,
                Some(false) => done.refused += 1,
                None => {}
            },
            92..94 => {
                let change = ControlChange::GenerationRolledBack { stream: stream() };
                done.rolled_back += u64::from(control(&life.engine, change).await.is_ok());
            }
            94..95 => {
                let change = ControlChange::GenerationReleased { stream: stream() };
                drop(control(&life.engine, change).await);
            }
            95..97 => {
                stop(life).await;
                if random.random_bool(0.3) {
                    disk.pool = Arc::new(MemoryPool::default());
                    done.lost_pools += 1;
                }
                life = start(&disk, seed * 1_000 + n as u64).await;
                done.kills += 1;
            }
            _ => check(&life.engine, &disk, &posted).await,
        }
    }
    check(&life.engine, &disk, &posted).await;
    stop(life).await;
    done.dropped = (posted.bodies.len() - posted.left(&disk.log).await.len()) as u64;
    done
}

fn stream() -> StreamName {
    StreamName::new(STREAM).unwrap()
}

fn author() -> KeyId {
    KeyId::from_random([1; 6])
}

async fn start(disk: &Disk, seed: u64) -> Life {
    let options = Options {
        master: MasterKey::new(&[7; 32]),
        encode: |_: &mut Vec<u8>, _: &Cursor, _: &Event, _: &Change<'_>| {},
        limits: Limits::default(),
        clock: Clock::Manual(Arc::clone(&disk.clock)),
        entropy: Entropy::seeded(seed),
        rejections: Default::default(),
    };
    let (log, control, pool) = (&disk.log, &disk.control, &disk.pool);
    let started = Engine::start(
        Arc::clone(log),
        Arc::clone(control),
        Arc::clone(pool),
        options,
    );
    let (engine, running) = started.await.unwrap();
    Life { engine, running }
}

/// Ends wherever the threads are; what they were about to do is not done.
async fn stop(Life { engine, running }: Life) {
    engine.status().stop();
    drop(engine);
    tokio::task::spawn_blocking(|| running.join())
        .await
        .unwrap();
}

async fn connector(engine: &Pipeline) -> String {
    let spec = ConnectorSpec {
        name: ConnectorName::new(STREAM).unwrap(),
        stream: stream(),
        signed: false,
        id_field: None,
        replay: Replay::Collapse,
        scheme: None,
        signing_key: None,
        limits: Default::default(),
        keep_rejected: false,
    };
    let made = engine
        .control()
        .add_connector(&author(), spec)
        .await
        .unwrap();
    made.ingest_key.secret.expose().to_owned()
}

async fn post(engine: &Pipeline, key: &str, sent: &Sent) -> Position {
    let authorization = format!("Bearer {key}");
    let proof = Proof {
        authorization: Header::One(authorization.as_bytes()),
        headers: &Vec::<(&str, &str)>::new(),
    };
    let admitted = engine.admit(STREAM, proof).unwrap();
    let id = engine.request_id();
    let accepted = match sent {
        Sent::Body(body) => {
            let body = Bytes::copy_from_slice(body.as_bytes());
            engine.accept(admitted, body, Asked::default(), id).await
        }
        Sent::Deletion(item) => {
            let verified = engine.verify(admitted, Bytes::new()).unwrap();
            let item = ItemId::new(item.as_str()).unwrap();
            engine.record_deletion(verified, item, None, id).await
        }
    };
    match accepted {
        Ok(receipt) => receipt.position,
        Err(error) => panic!("{error}: {:?}", engine.status().get()),
    }
}

async fn control(engine: &Pipeline, change: ControlChange) -> Result<(), ControlError> {
    engine.control().change(&author(), STREAM, change).await
}

fn plan(engine: &Pipeline) -> Arc<Plan> {
    engine.control().registry().plan(STREAM)
}

async fn rebuild(engine: &Pipeline, disk: &Disk, posted: &mut Posted, random: &mut StdRng) -> bool {
    let plan = plan(engine);
    let generation = plan.next_generation();
    let change = ControlChange::RebuildStarted {
        stream: stream(),
        generation,
        projection: random.random_range(0..=plan.newest().version),
        events_per_second: None,
    };
    let begun = control(engine, change).await.is_ok();
    if begun {
        // What is being dropped now may go, what is not stays until this is over.
        settle(engine).await;
        let there = there(&disk.log).await;
        let all = posted.bodies.iter().map(|(position, _)| *position);
        let missed = all.filter(|position| !there.contains(position)).collect();
        posted.missed.insert(generation, missed);
    }
    begun
}

/// Another retention; sometimes what follows from it is awaited.
async fn retain(engine: &Pipeline, random: &mut StdRng) {
    let mut limit = |most: u64| {
        let some = random.random_bool(0.6);
        some.then(|| random.random_range(0..most))
    };
    let limits = Retention {
        max_age_seconds: limit(1_000),
        max_positions: limit(100),
    };
    let author = author();
    let set = engine.set_retention(&author, stream(), limits);
    set.await.unwrap();
    if random.random_bool(0.5) {
        settle(engine).await;
    }
}

/// Waits until the retention has nothing to do, or waits itself.
async fn settle(engine: &Pipeline) {
    for _ in 0..2 {
        let now = plan(engine);
        if now.retention.is_unlimited() && now.floor.is_none() {
            return;
        }
        let before = engine.retentions().state(&stream()).looks;
        engine.retentions().look();
        let told = || {
            let state = engine.retentions().state(&stream());
            format!(
                "retention: {state:?} {:?} {:?}",
                engine.status().get(),
                plan(engine)
            )
        };
        until(&told, || {
            engine.retentions().state(&stream()).looks > before
        })
        .await;
    }
    let state = engine.retentions().state(&stream());
    assert_eq!((state.failed, state.whole_items), (None, 0));
    assert!(
        state.waiting.is_some() || state.done == Some(plan(engine).earliest()),
        "it rests where it should not"
    );
}

async fn cancel(engine: &Pipeline) -> Option<()> {
    let generation = plan(engine).next.as_ref()?.made.generation;
    let stream = stream();
    let change = ControlChange::RebuildCancelled { stream, generation };
    control(engine, change).await.ok()
}

/// `None` if nothing is being rebuilt; else whether it was promoted: it is not under a digest that is not its own.
async fn promote(engine: &Pipeline, random: &mut StdRng) -> Option<bool> {
    let generation = plan(engine).next.as_ref()?.made.generation;
    if random.random_bool(0.7) {
        ready(engine, generation).await;
    }
    let expected = match random.random_range(0..3) {
        0 => None,
        1 => digest(engine, generation),
        _ => Some("another".to_owned()),
    };
    let wrong = expected.as_deref() == Some("another");
    match engine
        .promote(&author(), stream(), generation, expected)
        .await
    {
        Ok(()) => {
            assert!(!wrong, "promoted under a digest of something else");
            let served = engine.served(&engine.pool(), &stream()).unwrap();
            assert_eq!(served.generation, plan(engine).live.generation);
            Some(true)
        }
        Err(PromoteError::NotReady | PromoteError::Moved(_)) => Some(false),
        Err(error) => panic!("{error}"),
    }
}

fn digest(engine: &Pipeline, generation: Generation) -> Option<String> {
    let state = engine.pool().generation(&stream(), generation).unwrap()?;
    let difference = state.difference.filter(|difference| difference.whole)?;
    Some(difference.sum.digest())
}

async fn ready(engine: &Pipeline, generation: Generation) {
    let told = || {
        let state = engine.pool().generation(&stream(), generation);
        let job = engine.rebuilds().state(&stream(), generation);
        format!("{generation} ready: {state:?} {job:?} {:?}", plan(engine))
    };
    until(&told, || {
        let failed = engine.rebuilds().state(&stream(), generation);
        let failed = failed.and_then(|state| state.failed);
        assert_eq!(failed, None);
        digest(engine, generation).is_some()
    })
    .await;
}

/// Looks again and again. Counts looks and not time: a machine that stood still, or had no turn for us, waited for nothing meanwhile.
async fn until(what: &impl Fn() -> String, mut reached: impl FnMut() -> bool) {
    for _ in 0..PATIENCE.as_millis() {
        if reached() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("in vain: {}", what());
}

/// Everything that can be read is what the model makes of the same events.
async fn check(engine: &Pipeline, disk: &Disk, posted: &Posted) {
    assert!(engine.wait_applied(disk.log.head(), PATIENCE).await);
    assert!(engine.wait_planned(PATIENCE).await);
    let plan = plan(engine);
    if let Some(next) = &plan.next {
        ready(engine, next.made.generation).await;
    }
    let wanted: BTreeSet<_> = plan.generations().map(|ruled| ruled.generation).collect();
    until(&|| "unplanned generations are gone".to_owned(), || {
        let there = engine.pool().generations().unwrap();
        there
            .iter()
            .all(|(_, generation)| wanted.contains(generation))
    })
    .await;
    settle(engine).await;
    let plan = engine.control().registry().plan(STREAM);
    let (pool, head, floor) = (engine.pool(), disk.log.head(), plan.earliest());
    if posted.bodies.is_empty() {
        return;
    }
    assert_eq!(pool.served(&stream()).unwrap(), Some(plan.live.generation));
    let left = posted.left(&disk.log).await;
    let waiting = engine.retentions().state(&stream()).waiting.is_some();
    let mut folds = BTreeMap::new();
    for ruled in plan.generations() {
        let generation = ruled.generation;
        let rules = serde_json::to_value(ruled.projection.rules()).unwrap();
        let fold = model::fold(&rules, &posted.seen_by(generation, head));
        let items = pool
            .items(&stream(), generation, None, usize::MAX, usize::MAX)
            .unwrap()
            .items;
        let shown: BTreeMap<_, _> = items.iter().map(shown).collect();
        assert_eq!(shown, fold.items, "generation {generation} under {rules}");
        let state = pool.generation(&stream(), generation).unwrap().unwrap();
        assert_eq!(state.items, items.len() as u64);
        // What waits to be dropped may be in the log and not count any more.
        if !waiting || plan.floor.is_none() {
            let fold = model::fold(&rules, &left);
            assert_eq!(
                (state.events, state.quarantined, state.superseded),
                (left.len() as u64, fold.quarantined, fold.superseded),
                "what counts is what is left"
            );
            assert_eq!(shown, fold.items, "the fold of what is left");
        }
        folds.insert(generation, items);
        let middle = posted.bodies[posted.bodies.len() * 2 / 3].0;
        for at in [floor, middle.max(floor), floor.plus(1).min(head)] {
            let past = model::fold(&rules, &posted.seen_by(generation, at)).items;
            let then = at_position(engine, ruled, at).await.unwrap();
            assert_eq!(then, past, "at {at} of {floor} to {head} under {rules}");
        }
        if floor > Position::ZERO {
            let before = at_position(engine, ruled, Position(floor.0 - 1)).await;
            assert!(matches!(before, Err(FollowError::BeforeRetention(at)) if at == floor));
        }
        let told = told(engine, ruled, floor).await;
        assert_eq!(
            told, fold.items,
            "what a follower of generation {generation} is told"
        );
        histories(engine, ruled, floor).await;
    }
    if let Some(next) = &plan.next {
        let (old, new) = (&folds[&plan.live.generation], &folds[&next.made.generation]);
        let (old, new): (BTreeMap<_, _>, BTreeMap<_, _>) =
            (old.iter().cloned().collect(), new.iter().cloned().collect());
        let mut sum = DifferenceSum::default();
        for id in old.keys().chain(new.keys()).collect::<BTreeSet<_>>() {
            if let Some(difference) = Difference::between(old.get(id), new.get(id)) {
                sum.add(id, &difference);
            }
        }
        let kept = pool
            .generation(&stream(), next.made.generation)
            .unwrap()
            .unwrap();
        assert_eq!(
            kept.difference.unwrap().sum,
            sum,
            "the difference is kept current"
        );
    }
}

fn shown((id, item): &(ItemId, Item)) -> (String, model::Fields) {
    let fields = item.fields().iter();
    let fields = fields.map(|(name, field)| (name.to_string(), field.text.to_string()));
    (id.to_string(), fields.collect())
}

fn view(engine: &Pipeline, ruled: &Ruled) -> View<MemorySnapshot> {
    View {
        pool: engine.pool(),
        stream: stream(),
        ruled: ruled.clone(),
    }
}

/// The items of a moment of the past.
async fn at_position(
    engine: &Pipeline,
    ruled: &Ruled,
    at: Position,
) -> Result<BTreeMap<String, model::Fields>, FollowError> {
    let page = engine.items_at(view(engine, ruled), at, None, usize::MAX, usize::MAX);
    Ok(page.await?.items.iter().map(shown).collect())
}

/// The history of every item can be read from the floor on, and ends with the item, whether it is there or deleted.
async fn histories(engine: &Pipeline, ruled: &Ruled, floor: Position) {
    let items = view(engine, ruled).touched_items(None, usize::MAX, usize::MAX);
    for (id, item) in items.unwrap().items {
        let read = engine.history(view(engine, ruled), id, None, usize::MAX);
        let (touches, _) = read.await.unwrap();
        assert!(touches.iter().all(|touch| touch.event.position > floor));
        match touches.last() {
            Some(last) => {
                assert_eq!(last.after.fields(), item.fields());
                assert_eq!(last.after.is_there(), item.is_there());
            }
            None => assert!(item.position <= floor),
        }
    }
}

/// What a follower holds who began with the items at the floor, and applied every change of a generation since.
async fn told(
    engine: &Pipeline,
    ruled: &Ruled,
    floor: Position,
) -> BTreeMap<String, model::Fields> {
    let (pool, mut at) = (engine.pool(), floor);
    let mut items = at_position(engine, ruled, floor).await.unwrap();
    if let Some(before) = floor.0.checked_sub(1) {
        let before = engine.told(engine.pool(), stream(), ruled.generation, Position(before));
        assert!(matches!(before.await, Err(FollowError::BeforeRetention(_))));
    }
    while at < pool.checkpoint().unwrap().position {
        let page = engine
            .told(Arc::clone(&pool), stream(), ruled.generation, at)
            .await;
        let (told, through) = page.unwrap().unwrap();
        for told in &told {
            let Some(change) = told.change(&ruled.projection).unwrap() else {
                continue;
            };
            if told.event.event.op == Op::Delete {
                let was_there = items.remove(change.item_id.as_str());
                assert!(was_there.is_some(), "a deletion of nothing is told");
                continue;
            }
            let fields = items.entry(change.item_id.to_string()).or_default();
            fields.retain(|name, _| !change.unset.contains(name.as_str()));
            let set = change.set();
            fields.extend(set.map(|(name, value)| (name.to_owned(), value.text.to_owned())));
        }
        at = through;
    }
    items
}

const NAMES: [&str; 5] = ["a", "b", "c", "v", "o"];

fn value(random: &mut StdRng) -> Value {
    match random.random_range(0..9) {
        0 => Value::Null,
        1 => json!(random.random_range(0..5)),
        2 => json!(random.random_range(0..5).to_string()),
        3 => json!(random.random_bool(0.5)),
        4 => json!("text"),
        5 => json!({ "id": random.random_range(0..3), "v": random.random_range(0..4) }),
        6 => json!([1, "x"]),
        7 => json!("true"),
        _ => json!(random.random_range(-3..3)),
    }
}

/// Ids as bodies give them, and as rules find them.
const DELETED: [&str; 9] = [
    "item-0", "item-1", "item-2", "item-3", "0", "1", "2", "true", "text",
];

fn sent(random: &mut StdRng) -> Sent {
    if random.random_bool(0.12) {
        let item = DELETED.choose(random).unwrap();
        return Sent::Deletion((*item).to_owned());
    }
    Sent::Body(body(random))
}

fn body(random: &mut StdRng) -> String {
    let mut body = Map::new();
    body.insert(
        "id".into(),
        json!(format!("item-{}", random.random_range(0..4))),
    );
    for name in NAMES {
        if random.random_bool(0.5) {
            body.insert(name.into(), value(random));
        }
    }
    Value::Object(body).to_string()
}

fn rules(random: &mut StdRng) -> Value {
    let mut rules = Map::new();
    let mut maybe = |name: &str, values: &[Value], random: &mut StdRng| {
        if random.random_bool(0.5) {
            rules.insert(name.into(), values.choose(random).unwrap().clone());
        }
    };
    maybe("id", &[json!("a"), json!("/o/id"), json!("/b")], random);
    maybe("merge", &[json!("merge"), json!("replace")], random);
    maybe("nulls", &[json!("store"), json!("delete")], random);
    maybe("unknown", &[json!("keep"), json!("drop")], random);
    maybe("order-by", &[json!("v"), json!("/o/v")], random);
    let mut fields = Map::new();
    for name in ["a", "b", "o", "new"] {
        if random.random_bool(0.4) {
            fields.insert(name.into(), field(random));
        }
    }
    rules.insert("fields".into(), Value::Object(fields));
    let rules = Value::Object(rules);
    assert!(
        serde_json::from_value::<Rules>(rules.clone()).is_ok(),
        "{rules}"
    );
    rules
}

fn field(random: &mut StdRng) -> Value {
    let from = ["/o/id", "a", "/c", "/o/v"].choose(random).unwrap();
    match random.random_range(0..6) {
        0 => json!({ "drop": true }),
        1 => json!({ "from": from }),
        2 => json!({ "from": from, "type": "string", "default": "none" }),
        3 => json!({ "type": "number" }),
        4 => json!({ "type": "boolean", "default": false }),
        _ => json!({ "from": "o", "flatten": "." }),
    }
}

/// The rules of `docs/projections.md`, as plainly as they can be written.
mod model {
    use std::collections::{BTreeMap, BTreeSet};

    use hookpool_core::position::Position;
    use serde_json::Value;

    use super::Sent;

    pub(super) type Fields = BTreeMap<String, String>;

    #[derive(Default)]
    pub(super) struct Fold {
        pub(super) items: BTreeMap<String, Fields>,
        pub(super) quarantined: u64,
        pub(super) superseded: u64,
    }

    /// Numbers before texts; no times here.
    #[derive(Clone, PartialEq, PartialOrd)]
    enum Order {
        Number(f64),
        Text(String),
    }

    pub(super) fn fold(rules: &Value, bodies: &[(Position, Sent)]) -> Fold {
        let mut fold = Fold::default();
        let mut orders: BTreeMap<String, Order> = BTreeMap::new();
        for (_, sent) in bodies {
            let body = match sent {
                Sent::Body(body) => body,
                Sent::Deletion(id) => {
                    fold.items.remove(id);
                    continue;
                }
            };
            let body: Value = serde_json::from_str(body).unwrap();
            let Some((id, order, mut set)) = read(rules, &body) else {
                fold.quarantined += 1;
                continue;
            };
            if order.is_some() && orders.contains_key(&id) && order.as_ref() < orders.get(&id) {
                fold.superseded += 1;
                continue;
            }
            orders.extend(order.map(|order| (id.clone(), order)));
            let item = fold.items.entry(id).or_default();
            if rules["merge"] == "replace" {
                item.clear();
            }
            if rules["nulls"] == "delete" {
                item.retain(|name, _| set.get(name).is_none_or(|value| value != "null"));
                set.retain(|_, value| value != "null");
            }
            item.extend(set);
            for (name, rule) in rules["fields"].as_object().into_iter().flatten() {
                if !rule["default"].is_null() && !item.contains_key(name) {
                    item.insert(name.clone(), rule["default"].to_string());
                }
            }
        }
        fold
    }

    fn find<'a>(body: &'a Value, source: &Value) -> Option<&'a Value> {
        match source.as_str()? {
            pointer if pointer.starts_with('/') => body.pointer(pointer),
            name => body.get(name),
        }
    }

    /// Item, order, and fields that are set; `None` if the event does not fit.
    fn read(rules: &Value, body: &Value) -> Option<(String, Option<Order>, Fields)> {
        let id = find(body, &rules["id"]).and_then(id_text);
        let id = id.or_else(|| id_text(&body["id"])).unwrap();
        let order = match find(body, &rules["order-by"]) {
            None | Some(Value::Null) => None,
            Some(Value::Number(number)) => number.as_f64().map(Order::Number),
            Some(Value::String(text)) => Some(match text.parse() {
                Ok(number) => Order::Number(number),
                Err(_) => Order::Text(text.clone()),
            }),
            Some(_) => return None,
        };
        let (mut set, mut named) = (Fields::new(), BTreeSet::new());
        for (name, rule) in rules["fields"].as_object().into_iter().flatten() {
            named.insert(name.clone());
            let from = rule.get("from").and_then(Value::as_str).unwrap_or(name);
            if from.matches('/').count() <= 1 {
                named.insert(from.trim_start_matches('/').to_owned());
            }
            let Some(value) = find(body, &Value::from(from)).filter(|_| rule["drop"] != true)
            else {
                continue;
            };
            match rule["flatten"].as_str() {
                Some(separator) => flatten(name, value, separator, &mut set),
                None => drop(set.insert(name.clone(), convert(value, &rule["type"])?)),
            }
        }
        for (name, value) in body.as_object().unwrap() {
            if rules["unknown"] != "drop" && !named.contains(name) && !set.contains_key(name) {
                set.insert(name.clone(), value.to_string());
            }
        }
        Some((id, order, set))
    }

    fn id_text(value: &Value) -> Option<String> {
        match value {
            Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
            Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }

    fn flatten(name: &str, value: &Value, separator: &str, set: &mut Fields) {
        match value.as_object() {
            Some(members) => members.iter().for_each(|(member, value)| {
                flatten(&format!("{name}{separator}{member}"), value, separator, set)
            }),
            None => drop(set.insert(name.to_owned(), value.to_string())),
        }
    }

    fn convert(value: &Value, into: &Value) -> Option<String> {
        if value.is_null() {
            return Some("null".to_owned());
        }
        match (into.as_str(), value) {
            (None, value) => Some(value.to_string()),
            (Some("string"), Value::String(_)) => Some(value.to_string()),
            (Some("string"), other) => Some(Value::from(other.to_string()).to_string()),
            (Some("number"), Value::Number(number)) => Some(number.to_string()),
            (Some("number"), Value::String(text)) => text.parse::<i64>().ok().map(|_| text.clone()),
            (Some("boolean"), Value::Bool(_)) => Some(value.to_string()),
            (Some("boolean"), Value::String(text)) if text == "true" || text == "false" => {
                Some(text.clone())
            }
            _ => None,
        }
    }
}
