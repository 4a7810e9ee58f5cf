//! A running engine with its edge, and a client for it.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use bytes::Bytes;
use hookpool_core::{
    control::{ControlChange, Streams},
    event::{NewEvent, Op, Request, RequestId},
    key::KeyId,
    name::{ConnectorName, ItemId, StreamName},
    position::{Epoch, Generation},
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
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;
use tokio::{net::TcpListener, runtime::Handle, sync::oneshot, task::JoinHandle};

pub(crate) type Log = Arc<FjallLog>;
/// To the engine the log may be slow.
pub(crate) type Pipeline = Engine<FaultyLog<Log>, FjallPool>;

/// How a node is made.
pub(crate) struct Shape {
    /// What of the pool is kept in memory before it is written to a file.
    pub(crate) memtable_bytes: u64,
    /// How long the engine may wait for a page of the log.
    pub(crate) page_delay_max: Duration,
    /// How long a connection may hold a view of the pool.
    pub(crate) view_lifetime: Duration,
    /// One in this many pages that the engine wants of the log can't be read; 0 is never.
    pub(crate) read_one_in: u64,
}

impl Shape {
    /// Its log answers at once and always, and a view is soon let go.
    pub(crate) const PROMPT: Self = Self {
        memtable_bytes: 1 << 20,
        page_delay_max: Duration::ZERO,
        view_lifetime: Duration::from_millis(500),
        read_one_in: 0,
    };
}

/// Runs a test as the program runs: on several threads.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(test)
}

pub(crate) struct Node {
    pub(crate) log: Log,
    pub(crate) engine: Arc<Pipeline>,
    pub(crate) client: Client,
    operator: KeyId,
    running: Running,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
    _folder: TempDir,
}

impl Node {
    /// A new one, with a connector for each stream.
    pub(crate) async fn start(shape: Shape, streams: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let view_lifetime = shape.view_lifetime;
        let (log, engine, running) = open(folder.path(), shape).await;
        let (operator, key) = first_operator(&engine, streams).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = serve_until(listener, Arc::clone(&engine), view_lifetime, stopped);
        let serving = tokio::spawn(serving);
        Self {
            log,
            engine,
            client: Client { addr, key },
            operator,
            running,
            stop,
            serving,
            _folder: folder,
        }
    }

    /// Appends events, and waits until they are in the pool.
    pub(crate) async fn append(&self, events: impl Iterator<Item = NewEvent>) {
        let events: Vec<_> = events.collect();
        for some in events.chunks(500) {
            let appended = self.log.append(Request::each(some.to_vec())).await;
            assert_eq!(appended.unwrap().len(), some.len());
        }
        let limit = Duration::from_secs(60);
        assert!(self.engine.wait_applied(self.log.head(), limit).await);
    }

    /// Makes the next generation of a stream, with other rules, and serves it.
    pub(crate) async fn put_in_force(&self, stream: &str, rules: &str) {
        let generation = self.rebuild(stream, rules).await;
        self.promote(stream, generation).await;
    }

    /// Makes the next generation of a stream, with other rules, up to where it could be served.
    pub(crate) async fn rebuild(&self, stream: &str, rules: &str) -> Generation {
        let stream = StreamName::new(stream).unwrap();
        let rules = serde_json::from_str(rules).unwrap();
        let plan = || self.engine.control().registry().plan(stream.as_str());
        let generation = plan().next_generation();
        self.change(ControlChange::ProjectionSet {
            stream: stream.clone(),
            rules,
        })
        .await;
        self.change(ControlChange::RebuildStarted {
            stream: stream.clone(),
            generation,
            projection: plan().newest().version,
            events_per_second: None,
        })
        .await;
        let begun = Instant::now();
        let is_compared = || {
            let made = self.engine.pool().generation(&stream, generation).unwrap();
            let difference = made.and_then(|made| made.difference);
            difference.is_some_and(|difference| difference.whole)
        };
        while !is_compared() {
            assert!(begun.elapsed() < Duration::from_secs(60), "no difference");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        generation
    }

    /// A client with a read key of its own, by this name.
    pub(crate) async fn reader(&self, name: &str) -> Client {
        let name = ConnectorName::new(name).unwrap();
        let control = self.engine.control();
        let added = control.add_reader(&self.operator, name, Streams::All).await;
        Client {
            key: added.unwrap().secret.expose().to_owned(),
            ..self.client.clone()
        }
    }

    /// Another operator's key id, and a client with its key.
    pub(crate) async fn operator(&self, name: &str) -> (KeyId, Client) {
        let name = ConnectorName::new(name).unwrap();
        let control = self.engine.control();
        let added = control.add_operator(&self.operator, name).await.unwrap();
        let client = Client {
            key: added.secret.expose().to_owned(),
            ..self.client.clone()
        };
        (added.key_id, client)
    }

    pub(crate) async fn revoke_operator(&self, key_id: KeyId) {
        self.change(ControlChange::OperatorRevoked { key_id }).await;
    }

    /// Revokes a read key.
    pub(crate) async fn revoke(&self, reader: &str) {
        let reader = ConnectorName::new(reader).unwrap();
        self.change(ControlChange::ReaderRevoked { reader }).await;
    }

    /// Serves what was rebuilt.
    pub(crate) async fn promote(&self, stream: &str, generation: Generation) {
        let stream = StreamName::new(stream).unwrap();
        let promoted = self
            .engine
            .promote(&self.operator, stream, generation, None);
        promoted.await.unwrap();
    }

    /// Serves the generation again that was served before.
    pub(crate) async fn roll_back(&self, stream: &str) {
        let stream = StreamName::new(stream).unwrap();
        self.change(ControlChange::GenerationRolledBack { stream })
            .await;
        assert!(self.engine.wait_planned(Duration::from_secs(60)).await);
    }

    /// Keeps the generation of a stream no longer that was served before.
    pub(crate) async fn release(&self, stream: &str) {
        let stream = StreamName::new(stream).unwrap();
        self.change(ControlChange::GenerationReleased { stream })
            .await;
        assert!(self.engine.wait_planned(Duration::from_secs(60)).await);
    }

    async fn change(&self, change: ControlChange) {
        let control = self.engine.control();
        let changed = control.change(&self.operator, "the stream", change).await;
        changed.unwrap();
    }

    /// Ends in order; every other handle of the engine must be dropped.
    pub(crate) async fn stop(self) {
        self.engine.status().stop();
        self.stop.send(()).unwrap();
        self.serving.await.unwrap();
        drop(self.engine);
        let running = self.running;
        let joined = tokio::task::spawn_blocking(|| running.join());
        joined.await.unwrap();
    }
}

async fn open(dir: &Path, shape: Shape) -> (Log, Arc<Pipeline>, Running) {
    let open = |name: &str, epoch| {
        let log = FjallLog::open(&dir.join(name), LogOptions::new(Epoch(epoch)));
        Arc::new(log.unwrap())
    };
    let (log, control) = (open("log", 1), open("control", 2));
    let pool = FjallPool::open_with_memtable(&dir.join("pool"), shape.memtable_bytes).unwrap();
    let options = Options {
        master: MasterKey::new(&[7; 32]),
        encode: encode_change,
        limits: QueueLimits::default(),
        clock: Clock::System,
        entropy: Entropy::System,
        rejections: Default::default(),
    };
    let slow = Faults {
        seed: 1,
        delay_max: shape.page_delay_max,
        read_one_in: shape.read_one_in,
        ..Faults::default()
    };
    let slow = FaultyLog::new(Arc::clone(&log), slow);
    let control = FaultyLog::new(control, Faults::default());
    let started = Engine::start(slow, control, pool, options).await;
    let (engine, running) = started.unwrap();
    (log, engine, running)
}

/// A key that reads everything; and the streams, each of which is there once it has a connector.
async fn first_operator(engine: &Pipeline, streams: &[&str]) -> (KeyId, String) {
    let (key, change) = engine.control().draw_operator();
    let operator = engine.control().change(&key.key_id, "operator", change);
    operator.await.unwrap();
    for stream in streams {
        let spec = ConnectorSpec::new(
            ConnectorName::new(stream).unwrap(),
            StreamName::new(stream).unwrap(),
        );
        let added = engine.control().add_connector(&key.key_id, spec).await;
        added.unwrap();
    }
    let secret = key.secret.expose().to_owned();
    (key.key_id, secret)
}

async fn serve_until(
    listener: TcpListener,
    engine: Arc<Pipeline>,
    view_lifetime: Duration,
    stop: oneshot::Receiver<()>,
) {
    let settings = Settings {
        body_bytes: 1 << 20,
        body_timeout: Duration::from_secs(10),
        bulk_bytes: 16 << 20,
        bulk_timeout: Duration::from_secs(60),
        public_url: String::new(),
        cors_origins: Vec::new(),
        trusted_proxies: Vec::new(),
        failures_per_minute: 60,
        followers_max: usize::MAX,
        view_lifetime,
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
    let followers = Handle::current();
    let routes = routes(engine, settings);
    serve(listener, &followers, None, routes, limits, stop).await;
}

/// Delivery number `n`, which sets the fields of a body on an item.
pub(crate) fn event(stream: &str, item: &str, n: u64, body: String) -> NewEvent {
    NewEvent {
        time: Timestamp::from_seconds(1_700_000_000 + n),
        stream: StreamName::new(stream).unwrap(),
        op: Op::Upsert,
        item_id: ItemId::new(item).unwrap(),
        generated_id: false,
        duplicate_keys: false,
        field_count: 3,
        connector: ConnectorName::new(stream).unwrap(),
        request_id: RequestId(u128::from(n).to_le_bytes()),
        dedupe: None,
        idempotency: None,
        body: Bytes::from(body),
    }
}

/// Delivery number `n`, which deletes an item.
pub(crate) fn deletion(stream: &str, item: &str, n: u64) -> NewEvent {
    NewEvent {
        op: Op::Delete,
        field_count: 0,
        ..event(stream, item, n, String::new())
    }
}

/// Reads with the first operator's key.
#[derive(Clone)]
pub(crate) struct Client {
    addr: SocketAddr,
    key: String,
}

impl Client {
    /// The body of a good answer, frames of changes as lines.
    pub(crate) fn get(&self, target: &str) -> String {
        let (status, body) = self.answer(target);
        assert_eq!(status, 200, "{body}");
        body
    }

    /// The status and the body of an answer, frames of changes as lines.
    pub(crate) fn answer(&self, target: &str) -> (u16, String) {
        self.answer_as(target, "application/x-ndjson, application/json;q=0.5")
    }

    /// The answer to a good long poll, which waits for so many seconds at most.
    pub(crate) fn poll(&self, target: &str, wait: u64) -> Value {
        let accept = format!("application/json\r\nPrefer: wait={wait}");
        let (status, body) = self.answer_as(target, &accept);
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Over HTTP/1.0, where an answer ends with its connection.
    fn answer_as(&self, target: &str, accept: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.addr).unwrap();
        let patience = Duration::from_secs(120);
        stream.set_read_timeout(Some(patience)).unwrap();
        self.send(&mut stream, target, accept, "1.0");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap();
        (status.parse().unwrap(), body.to_owned())
    }

    /// Asks for frames of changes as lines, and leaves them to be read: not more than so many bytes come before.
    pub(crate) fn ask(&self, target: &str, buffer: usize) -> TcpStream {
        self.ask_in("1.0", target, buffer)
    }

    /// The same in a version of HTTP: in 1.1 the end of an answer is told apart from that of its connection.
    pub(crate) fn ask_in(&self, version: &str, target: &str, buffer: usize) -> TcpStream {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(buffer).unwrap();
        socket.connect(&self.addr.into()).unwrap();
        let mut stream = socket.into();
        self.send(&mut stream, target, "application/x-ndjson", version);
        stream
    }

    fn send(&self, stream: &mut TcpStream, target: &str, accept: &str, version: &str) {
        let key = &self.key;
        let request = format!(
            "GET {target} HTTP/{version}\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
    }
}

/// Waits until nobody holds a view of the pool any more.
pub(crate) async fn is_let_go<T>(view: &Weak<T>) {
    let begun = Instant::now();
    while view.strong_count() > 0 {
        assert!(begun.elapsed() < Duration::from_secs(30), "it is held");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
