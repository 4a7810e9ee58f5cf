//! An engine on stores that hold whoever comes, and say what was done to them.

use std::{
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use hookpool_core::{
    codec::Block,
    cursor::Cursor,
    event::{DedupeKey, Event, Request},
    idempotency::IdempotencyKey,
    key::KeyId,
    name::{ConnectorName, StreamName},
    position::{Epoch, Generation, Position},
    projection::Change,
    retention::Retention,
    seal::MasterKey,
    time::Timestamp,
    verify::{Header, Proof},
};
use hookpool_engine::{
    Asked, Engine, Options, appender::Limits, clock::Clock, control::ConnectorSpec,
    engine::Running, entropy::Entropy, status::StatusCell,
};
use hookpool_store::{
    AppendError, Appended, Dropped, EventLog, LogEnd, Page, PageRequest, PoolChanges, PoolError,
    PoolSnapshot, PoolStore, ReadError,
    memory::{MemoryLog, MemoryPool, MemorySnapshot},
};
use tokio::sync::Semaphore;

pub(super) const PATIENCE: Duration = Duration::from_secs(20);
pub(super) const START: u64 = 1_700_000_000_000_000;

/// Holds who comes while it is shut.
pub(super) struct Gate {
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
    pub(super) fn shut(&self) {
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

    pub(super) async fn holds(&self) {
        until("somebody is held", || self.held.load(Ordering::SeqCst)).await;
    }

    pub(super) fn open(&self) {
        self.open.add_permits(1);
    }
}

/// A log whose pages and drops can be held.
pub(super) struct Held {
    log: MemoryLog,
    pub(super) pages: Gate,
    pub(super) drops: Gate,
    pool: Arc<Watched>,
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

/// A pool that says whether all of it is synced, and which of its views somebody holds.
#[derive(Default)]
pub(super) struct Watched {
    pool: MemoryPool,
    synced: AtomicBool,
    views: Mutex<Vec<Weak<MemorySnapshot>>>,
    /// What outlives a power cut.
    pub(super) lasting: Mutex<Option<Arc<MemorySnapshot>>>,
    /// Whether it removes nothing.
    pub(super) keeps: AtomicBool,
    /// Whether who syncs it has to wait.
    pub(super) syncs_wait: AtomicBool,
    /// Whether somebody does.
    pub(super) sync_waits: AtomicBool,
}

impl Watched {
    /// Whether somebody holds a view from before a position was applied.
    pub(super) fn is_held_before(&self, position: Position) -> bool {
        let views = self.views.lock().unwrap();
        let mut held = views.iter().filter_map(Weak::upgrade);
        held.any(|view| view.checkpoint().is_none_or(|at| at.position < position))
    }
}

impl PoolStore for Watched {
    type Snapshot = MemorySnapshot;

    fn snapshot(&self) -> Arc<MemorySnapshot> {
        let view = self.pool.snapshot();
        self.views.lock().unwrap().push(Arc::downgrade(&view));
        view
    }

    fn commit(&self, changes: PoolChanges) -> Result<(), PoolError> {
        self.synced.store(false, Ordering::SeqCst);
        self.pool.commit(changes)
    }

    fn sync(&self) -> Result<(), PoolError> {
        while self.syncs_wait.load(Ordering::SeqCst) {
            self.sync_waits.store(true, Ordering::SeqCst);
            std::thread::yield_now();
        }
        self.synced.store(true, Ordering::SeqCst);
        *self.lasting.lock().unwrap() = Some(self.pool.snapshot());
        self.pool.sync()
    }

    fn remove(&self, stream: &StreamName, generation: Generation) -> Result<(), PoolError> {
        if self.keeps.load(Ordering::SeqCst) {
            return Ok(());
        }
        self.pool.remove(stream, generation)
    }
}

/// Stops the engine of a test that fails.
pub(super) struct StopOnPanic(StatusCell);

impl Drop for StopOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop();
        }
    }
}

pub(super) struct World {
    _stop: StopOnPanic,
    pub(super) log: Arc<Held>,
    pub(super) pool: Arc<Watched>,
    pub(super) clock: Arc<AtomicU64>,
    pub(super) engine: Arc<Engine<Arc<Held>, Arc<Watched>>>,
    running: Running,
    authorization: String,
    pub(super) last: Position,
}

impl World {
    /// An event every ten seconds, all of one item.
    pub(super) async fn with_events(events: u64) -> Self {
        let pool = Arc::new(Watched::default());
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
        let spec = ConnectorSpec::new(ConnectorName::new("sales").unwrap(), stream());
        let made = engine.control().add_connector(&author(), spec).await;
        let key = made.unwrap().ingest_key.secret;
        let mut world = Self {
            _stop: StopOnPanic(engine.status().clone()),
            log,
            pool,
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
    pub(super) async fn deliver(&mut self, key: Option<&IdempotencyKey>) {
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
    pub(super) async fn floor_of(&self, positions: u64) -> Option<Position> {
        let limits = Retention {
            max_positions: Some(positions),
            ..Retention::default()
        };
        let expiring = self.engine.expiring(&stream(), limits).await.unwrap();
        expiring.floor.map(|floor| floor.position)
    }

    pub(super) async fn retain(&self, limits: Retention) {
        let author = author();
        let set = self.engine.set_retention(&author, stream(), limits);
        set.await.unwrap();
    }

    pub(super) async fn keep(&self, positions: u64) {
        self.retain(Retention {
            max_positions: Some(positions),
            ..Retention::default()
        })
        .await;
    }

    pub(super) async fn is_done_at(&self, floor: Position) {
        until("history is dropped", || {
            let state = self.engine.retentions().state(&stream());
            assert_eq!(state.failed, None);
            state.done == Some(floor)
        })
        .await;
    }

    pub(super) async fn end(self) {
        self.engine.status().stop();
        drop(self.engine);
        tokio::task::spawn_blocking(|| self.running.join())
            .await
            .unwrap();
    }
}

pub(super) fn stream() -> StreamName {
    StreamName::new("sales").unwrap()
}

pub(super) fn author() -> KeyId {
    KeyId::from_random([1; 6])
}

pub(super) async fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !reached() {
        assert!(tokio::time::Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
