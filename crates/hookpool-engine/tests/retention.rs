//! Retention held at chosen moments: between the steps of a drop, and in the middle of somebody's read.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use hookpool_core::{
    codec::Block,
    control::ControlChange,
    cursor::Cursor,
    event::{DedupeKey, Event, Request},
    idempotency::IdempotencyKey,
    key::KeyId,
    name::{ConnectorName, StreamName},
    position::{Epoch, Generation, Position},
    projection::Change,
    registry::Replay,
    retention::Retention,
    seal::MasterKey,
    time::Timestamp,
    verify::{Header, Proof},
};
use hookpool_engine::{
    Asked, Engine, Options, appender::Limits, clock::Clock, control::ConnectorSpec,
    engine::Running, entropy::Entropy, follow::FollowError, status::StatusCell,
};
use hookpool_store::{
    AppendError, Appended, Dropped, EventLog, LogEnd, Page, PageRequest, PoolChanges, PoolError,
    PoolSnapshot, PoolStore, ReadError,
    dedupe::IDEMPOTENCY_SECONDS,
    memory::{MemoryLog, MemoryPool, MemorySnapshot},
};
use tokio::sync::Semaphore;

const PATIENCE: Duration = Duration::from_secs(20);
const START: u64 = 1_700_000_000_000_000;

/// Holds who comes while it is shut.
struct Gate {
    shut: AtomicBool,
    held: AtomicBool,
    open: Semaphore,
}

impl Gate {
    fn new() -> Self {
        Self {
            shut: AtomicBool::new(false),
            held: AtomicBool::new(false),
            open: Semaphore::new(0),
        }
    }

    /// The next one who comes is held.
    fn shut(&self) {
        self.shut.store(true, Ordering::SeqCst);
    }

    async fn pass(&self) {
        if self.shut.swap(false, Ordering::SeqCst) {
            self.held.store(true, Ordering::SeqCst);
            // A test that has failed opens nothing any more, and is not to hang.
            if let Ok(permit) = tokio::time::timeout(PATIENCE, self.open.acquire()).await {
                permit.unwrap().forget();
            }
        }
    }

    async fn holds(&self) {
        until("somebody is held", || self.held.load(Ordering::SeqCst)).await;
    }

    fn open(&self) {
        self.open.add_permits(1);
    }
}

/// A log whose pages and drops can be held.
struct Held {
    log: MemoryLog,
    pages: Gate,
    drops: Gate,
    pool: Arc<Synced>,
}

impl EventLog for Held {
    async fn append(&self, batch: Vec<Request>) -> Result<Vec<Appended>, AppendError> {
        self.log.append(batch).await
    }

    async fn page(&self, request: PageRequest) -> Result<Page, ReadError> {
        self.pages.pass().await;
        self.log.page(request).await
    }

    async fn blocks(&self, after: Position, bytes_max: usize) -> Result<Vec<Block>, ReadError> {
        self.log.blocks(after, bytes_max).await
    }

    async fn find(&self, key: DedupeKey, time: Timestamp) -> Result<Option<Position>, ReadError> {
        self.log.find(key, time).await
    }

    async fn drop_events(&self, positions: Vec<Position>) -> Result<Dropped, AppendError> {
        self.drops.pass().await;
        let synced = self.pool.synced.load(Ordering::SeqCst);
        assert!(synced, "dropped before the pool was synced");
        self.log.drop_events(positions).await
    }

    fn head(&self) -> Position {
        self.log.head()
    }

    fn end(&self) -> LogEnd {
        self.log.end()
    }

    fn epoch(&self) -> Epoch {
        self.log.epoch()
    }

    async fn wait(&self, past: Position) -> Position {
        self.log.wait(past).await
    }
}

/// A pool that says whether all of it is synced.
#[derive(Default)]
struct Synced {
    pool: MemoryPool,
    synced: AtomicBool,
}

impl PoolStore for Synced {
    type Snapshot = MemorySnapshot;

    fn snapshot(&self) -> Arc<MemorySnapshot> {
        self.pool.snapshot()
    }

    fn commit(&self, changes: PoolChanges) -> Result<(), PoolError> {
        self.synced.store(false, Ordering::SeqCst);
        self.pool.commit(changes)
    }

    fn sync(&self) -> Result<(), PoolError> {
        self.synced.store(true, Ordering::SeqCst);
        self.pool.sync()
    }

    fn remove(&self, stream: &StreamName, generation: Generation) -> Result<(), PoolError> {
        self.pool.remove(stream, generation)
    }
}

/// Stops the engine of a test that fails.
struct StopOnPanic(StatusCell);

impl Drop for StopOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop();
        }
    }
}

struct World {
    _stop: StopOnPanic,
    log: Arc<Held>,
    clock: Arc<AtomicU64>,
    engine: Arc<Engine<Arc<Held>, Arc<Synced>>>,
    running: Running,
    authorization: String,
    last: Position,
}

impl World {
    /// An event every ten seconds, all of one item.
    async fn with_events(events: u64) -> Self {
        let pool = Arc::new(Synced::default());
        let held = |epoch| {
            Arc::new(Held {
                log: MemoryLog::new(Epoch(epoch)),
                pages: Gate::new(),
                drops: Gate::new(),
                pool: Arc::clone(&pool),
            })
        };
        let (log, clock) = (held(1), Arc::new(AtomicU64::new(START)));
        let options = Options {
            master: MasterKey::new(&[7; 32]),
            encode: |_: &mut Vec<u8>, _: &Cursor, _: &Event, _: &Change<'_>| {},
            limits: Limits::default(),
            clock: Clock::Manual(Arc::clone(&clock)),
            entropy: Entropy::seeded(1),
            rejections: Default::default(),
        };
        let started = Engine::start(Arc::clone(&log), held(2), Arc::clone(&pool), options);
        let (engine, running) = started.await.unwrap();
        let spec = ConnectorSpec {
            name: ConnectorName::new("sales").unwrap(),
            stream: stream(),
            signed: false,
            id_field: None,
            replay: Replay::Collapse,
            scheme: None,
            signing_key: None,
            limits: Default::default(),
            keep_rejected: false,
        };
        let made = engine.control().add_connector(&author(), spec).await;
        let key = made.unwrap().ingest_key.secret;
        let mut world = Self {
            _stop: StopOnPanic(engine.status().clone()),
            log,
            clock,
            engine,
            running,
            authorization: format!("Bearer {}", key.expose()),
            last: Position::ZERO,
        };
        for _ in 0..events {
            world.deliver(None).await;
        }
        world
    }

    /// One more event, ten seconds after the last, and in the pool.
    async fn deliver(&mut self, key: Option<&IdempotencyKey>) {
        let proof = Proof {
            authorization: Header::One(self.authorization.as_bytes()),
            headers: &Vec::<(&str, &str)>::new(),
        };
        let engine = &self.engine;
        let admitted = engine.admit("sales", proof).unwrap();
        let body = Bytes::from(format!(r#"{{"id":"a","n":{}}}"#, self.last));
        let asked = Asked {
            key,
            ..Asked::default()
        };
        let accepted = engine.accept(admitted, body, asked, engine.request_id());
        self.last = accepted.await.unwrap().position;
        self.clock.fetch_add(10_000_000, Ordering::Relaxed);
        assert!(engine.wait_applied(self.last, PATIENCE).await);
    }

    /// The floor if so many positions were kept.
    async fn floor_of(&self, positions: u64) -> Option<Position> {
        let limits = Retention {
            max_positions: Some(positions),
            ..Retention::default()
        };
        let expiring = self.engine.expiring(&stream(), limits).await.unwrap();
        expiring.floor.map(|floor| floor.position)
    }

    async fn retain(&self, limits: Retention) {
        let author = author();
        let set = self.engine.set_retention(&author, stream(), limits);
        set.await.unwrap();
    }

    async fn keep(&self, positions: u64) {
        self.retain(Retention {
            max_positions: Some(positions),
            ..Retention::default()
        })
        .await;
    }

    async fn is_done_at(&self, floor: Position) {
        until("history is dropped", || {
            let state = self.engine.retentions().state(&stream());
            assert_eq!(state.failed, None);
            state.done == Some(floor)
        })
        .await;
    }

    async fn end(self) {
        self.engine.status().stop();
        drop(self.engine);
        tokio::task::spawn_blocking(|| self.running.join())
            .await
            .unwrap();
    }
}

fn stream() -> StreamName {
    StreamName::new("sales").unwrap()
}

fn author() -> KeyId {
    KeyId::from_random([1; 6])
}

async fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !reached() {
        assert!(tokio::time::Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_rebuild_begins_to_read_what_is_being_dropped() {
    let world = World::with_events(20).await;
    world.log.drops.shut();
    world.keep(5).await;
    world.log.drops.holds().await;
    let change = ControlChange::RebuildStarted {
        stream: stream(),
        generation: Generation(2),
        projection: 0,
        events_per_second: None,
    };
    let control = world.engine.control();
    control.change(&author(), "sales", change).await.unwrap();
    // The plans are looked at every second.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let made = world.engine.pool().generation(&stream(), Generation(2));
    assert_eq!(made.unwrap(), None, "it has begun");
    world.log.drops.open();
    until("the rebuild is there", || {
        let made = world.engine.pool().generation(&stream(), Generation(2));
        // Of the expired events the last one is left.
        made.unwrap().is_some_and(|state| state.events == 6)
    })
    .await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_the_floor_overtakes_is_refused_and_no_shorter_page() {
    let world = World::with_events(20).await;
    world.log.pages.shut();
    let engine = Arc::clone(&world.engine);
    let reader = tokio::spawn(async move {
        let sales = stream();
        let page = engine.stream_page(&sales, Some(Position::ZERO), |page| page);
        page.await.map(|page| page.events.len())
    });
    world.log.pages.holds().await;
    world.keep(5).await;
    let floor = Position(world.last.0 - 5);
    world.is_done_at(floor).await;
    world.log.pages.open();
    let read = reader.await.unwrap();
    assert!(
        matches!(read, Err(FollowError::BeforeRetention(at)) if at == floor),
        "{read:?}"
    );
    let sales = stream();
    let page = world.engine.stream_page(&sales, None, |page| page);
    assert_eq!(page.await.unwrap().events.len(), 5);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_is_taken_away_while_a_floor_is_looked_for_raises_none() {
    let world = World::with_events(20).await;
    world.log.pages.shut();
    world.keep(5).await;
    world.log.pages.holds().await;
    world.retain(Retention::default()).await;
    world.log.pages.open();
    until("it was looked at", || {
        world.engine.retentions().state(&stream()).looks > 0
    })
    .await;
    assert_eq!(world.engine.earliest(&stream()), Position::ZERO);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_expire_by_age() {
    let world = World::with_events(20).await;
    // The last event is ten seconds old, the first one two hundred.
    let limits = Retention {
        max_age_seconds: Some(105),
        max_positions: None,
    };
    let expiring = world.engine.expiring(&stream(), limits).await.unwrap();
    assert_eq!(expiring.events, 10);
    world.retain(limits).await;
    let floor = Position(10);
    world.is_done_at(floor).await;
    let plan = world.engine.control().registry().plan("sales");
    assert_eq!(plan.floor.unwrap().time.0, START + 9 * 10_000_000);
    world.clock.fetch_add(50_000_000, Ordering::Relaxed);
    world.engine.retentions().look();
    world.is_done_at(Position(15)).await;
    world.end().await;
}

/// Nobody is told of an event that is gone, or made one twice: a request with a key may come again for four days.
#[tokio::test(flavor = "multi_thread")]
async fn events_whose_idempotency_key_counts_do_not_expire() {
    let mut world = World::with_events(4).await;
    let key = IdempotencyKey::parse(b"order-5").unwrap();
    world.deliver(Some(&key)).await;
    for _ in 0..5 {
        world.deliver(None).await;
    }
    assert_eq!(world.floor_of(1).await, Some(Position(4)));
    let advance = |seconds: u64| {
        world
            .clock
            .fetch_add(seconds * 1_000_000, Ordering::Relaxed);
    };
    // The fifth event came 40 seconds after the start, and it is 100 seconds after it now.
    advance(IDEMPOTENCY_SECONDS - 60);
    assert_eq!(world.floor_of(1).await, Some(Position(4)));
    advance(1);
    assert_eq!(world.floor_of(1).await, Some(Position(9)));
    world.end().await;
}
