//! A data folder, and the real binary serving it.

use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::fold::{Event, Object, Pool, as_served};
use super::http::{Connection, Request, Response};
use super::{canary, eventually, now_s, program, sign};

/// A data folder that outlives the servers on it.
pub(crate) struct Data(TempDir);

impl Data {
    pub(crate) fn new() -> Self {
        Self(TempDir::with_prefix("hookpool-test-").unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn serve(&self) -> Server {
        Server::start(self.path())
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        canary::search_folder(self.path());
    }
}

/// A running server; killed when dropped.
pub(crate) struct Server {
    child: Child,
    stderr: Arc<Mutex<String>>,
    talk: Option<JoinHandle<()>>,
    pub(crate) addr: SocketAddr,
    pub(crate) operator_key: String,
    pub(crate) data: PathBuf,
    /// As it was last scraped.
    metrics: Mutex<String>,
}

/// The answer to a new connector.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Connector {
    pub(crate) name: String,
    pub(crate) stream: String,
    pub(crate) key_id: String,
    pub(crate) ingest_key: String,
    pub(crate) signing_key: Option<String>,
}

impl Server {
    /// Starts on a folder and waits until the server says that it listens.
    pub(crate) fn start(data: &Path) -> Self {
        Self::try_start(data).unwrap_or_else(|refusal| panic!("no server: {refusal}"))
    }

    /// The same where the server may refuse; gives its status and what it wrote to stderr.
    pub(crate) fn try_start(data: &Path) -> Result<Self, String> {
        Self::try_start_with(data, &[])
    }

    /// The same with settings from the environment.
    pub(crate) fn try_start_with(data: &Path, settings: &[(&str, &str)]) -> Result<Self, String> {
        let mut command = program::serve(data);
        command
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (stderr, talk) = collect(child.stderr.take().unwrap());
        let stdout = program::lines(child.stdout.take().unwrap());
        let first = stdout.recv_timeout(Duration::from_secs(60)).ok();
        let address = |line: &str| line.strip_prefix("listening on http://")?.parse().ok();
        let Some(addr) = first.as_deref().and_then(address) else {
            let _ = child.kill();
            let status = child.wait().unwrap();
            talk.join().unwrap();
            return Err(format!(
                "{status}, said {first:?} and {}",
                stderr.lock().unwrap()
            ));
        };
        let operator_key = std::fs::read_to_string(data.join("operator.key")).unwrap();
        let operator_key = operator_key.trim_end().to_owned();
        canary::plant(data, &operator_key);
        Ok(Self {
            child,
            stderr,
            talk: Some(talk),
            addr,
            operator_key,
            data: data.to_owned(),
            metrics: Mutex::default(),
        })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, as a power cut would be for the process.
    pub(crate) fn kill9(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The same, and gives all that it wrote to stderr until then.
    pub(crate) fn kill9_heard(mut self) -> String {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.talk.take().unwrap().join().unwrap();
        self.said()
    }

    /// What it wrote to stderr so far.
    pub(crate) fn said(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    /// SIGTERM; the server has to drain and end with 0.
    pub(crate) fn stop(self) {
        self.terminate();
        let stderr = Arc::clone(&self.stderr);
        let status = self.wait();
        assert_eq!(
            status.code(),
            Some(0),
            "stderr:\n{}",
            stderr.lock().unwrap()
        );
    }

    pub(crate) fn terminate(&self) {
        self.scrape();
        program::signal("TERM", self.pid());
    }

    /// Keeps the metrics, if it still answers.
    fn scrape(&self) {
        let request = Request::get("/metrics").bearer(&self.operator_key);
        let answer = Connection::open(self.addr).and_then(|mut connection| {
            connection.patience(Duration::from_secs(2));
            connection.call(&request)
        });
        if let Ok(answer) = answer {
            *self.metrics.lock().unwrap() = String::from_utf8_lossy(&answer.body).into_owned();
        }
    }

    pub(crate) fn wait(mut self) -> ExitStatus {
        let limit = Duration::from_secs(30);
        eventually("the server ends", limit, || self.child.try_wait().unwrap())
    }

    /// Waits until everything in the log is applied; false if the server ends before.
    pub(crate) fn settles(&mut self) -> bool {
        let limit = Duration::from_secs(60);
        eventually("the pool catches up", limit, || {
            if self.child.try_wait().unwrap().is_some() {
                return Some(false);
            }
            let answer = Connection::open(self.addr)
                .and_then(|mut it| it.call(&Request::get("/readyz")))
                .ok()?;
            let ready: Value = (answer.status == 200).then(|| answer.json())?;
            (ready["applied"] == ready["position"]).then_some(true)
        })
    }

    /// The status and stderr of a server that ends by itself, as those of one that did not start.
    pub(crate) fn last_words(self) -> String {
        let stderr = Arc::clone(&self.stderr);
        let status = self.wait();
        let said = stderr.lock().unwrap().clone();
        format!("{status}, said {said}")
    }

    /// Stops and starts again on the same folder.
    pub(crate) fn restart(self) -> Self {
        self.restart_with(&[])
    }

    pub(crate) fn restart_with(self, settings: &[(&str, &str)]) -> Self {
        let data = self.data.clone();
        self.stop();
        Self::try_start_with(&data, settings)
            .unwrap_or_else(|refusal| panic!("no server: {refusal}"))
    }

    pub(crate) fn connect(&self) -> Connection {
        Connection::open(self.addr).unwrap()
    }

    /// One request on a connection of its own.
    #[track_caller]
    pub(crate) fn call(&self, request: &Request) -> Response {
        let answer = self.connect().call(request).unwrap();
        // What makes secrets answers 200 or 201, as one small document.
        if matches!(answer.status, 200 | 201)
            && answer.body.len() < 4_096
            && let Ok(answer) = serde_json::from_slice(&answer.body)
        {
            canary::plant_all(&self.data, &answer);
        }
        answer
    }

    pub(crate) fn get(&self, target: &str) -> Response {
        self.call(&Request::get(target).bearer(&self.operator_key))
    }

    /// A call under `/api/admin`.
    pub(crate) fn admin(&self, method: &str, target: &str, body: &Value) -> Response {
        let request = Request::new(method, &format!("/api/admin/{target}"));
        self.call(&request.bearer(&self.operator_key).body(body.to_string()))
    }

    pub(crate) fn add_connector(&self, stream: &str, signed: bool) -> Connector {
        self.add_connector_with(&json!({"stream": stream, "signed": signed}))
    }

    pub(crate) fn add_connector_with(&self, settings: &Value) -> Connector {
        self.admin("POST", "connectors", settings)
            .expect(201)
            .json()
    }

    /// A read key for these streams.
    pub(crate) fn add_reader(&self, name: &str, streams: &[&str]) -> String {
        let answer = self.admin(
            "POST",
            "readers",
            &json!({"name": name, "streams": streams}),
        );
        answer.expect(201).json::<Value>()["readKey"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// Delivers to the webhook endpoint, signed where the connector asks for it.
    pub(crate) fn post(&self, connector: &Connector, body: impl AsRef<[u8]>) -> Response {
        self.call(&connector.delivery(body.as_ref()))
    }

    /// Every event of a stream with its body, page by page.
    pub(crate) fn log(&self, stream: &str) -> Vec<Event> {
        self.log_after(stream, 0)
    }

    pub(crate) fn log_after(&self, stream: &str, after: u64) -> Vec<Event> {
        let mut events: Vec<Event> = Vec::new();
        self.each_event(stream, after, |event| events.push(event));
        assert!(events.is_sorted_by(|a, b| a.position < b.position));
        events
    }

    /// The same one by one, for a log that does not fit into memory.
    pub(crate) fn each_event(&self, stream: &str, mut after: u64, mut take: impl FnMut(Event)) {
        #[derive(Deserialize)]
        struct Page {
            events: Vec<Event>,
            next: Option<u64>,
        }
        loop {
            let target = format!("/api/streams/{stream}/log?after={after}&limit=1000&body=true");
            let page: Page = self.get(&target).expect(200).json();
            page.events.into_iter().for_each(&mut take);
            let Some(next) = page.next else { break };
            assert!(next > after, "the chain of pages stands still at {after}");
            after = next;
        }
    }

    /// All items of a stream once `min_position` is applied, and the position they show.
    pub(crate) fn items(&self, stream: &str, min_position: u64) -> (u64, Pool) {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Item {
            item_id: String,
            fields: Object,
        }
        #[derive(Deserialize)]
        struct Page {
            position: u64,
            items: Vec<Item>,
            next: Option<String>,
        }
        let mut connection = self.connect();
        let mut pool = Pool::new();
        let mut position = None;
        let mut target =
            format!("/api/streams/{stream}/items?limit=1000&minPosition={min_position}");
        loop {
            let request = Request::get(&target).bearer(&self.operator_key);
            let answer = connection
                .call(&request.header("Prefer", "wait=60"))
                .unwrap();
            let page: Page = answer.expect(200).json();
            assert_eq!(
                *position.get_or_insert(page.position),
                page.position,
                "a torn chain"
            );
            for Item { item_id, fields } in page.items {
                let fields = fields
                    .into_iter()
                    .map(|(name, v)| (name, as_served(&v)))
                    .collect();
                let twice = pool.insert(item_id, fields);
                assert!(twice.is_none(), "an item came twice in one chain of pages");
            }
            let Some(next) = page.next else { break };
            target = format!(
                "/api/streams/{stream}/items?limit=1000&after={}",
                percent(&next)
            );
        }
        (position.unwrap(), pool)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.scrape();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(talk) = self.talk.take() {
            let _ = talk.join();
        }
        let stderr = self.said();
        if std::thread::panicking() {
            let from = stderr.floor_char_boundary(stderr.len().saturating_sub(SHOWN_BYTES));
            eprintln!("stderr of the server:\n{}", &stderr[from..]);
        }
        let metrics = std::mem::take(&mut *self.metrics.lock().unwrap());
        canary::search_server(&self.data, self.addr, &stderr, &metrics);
    }
}

/// Of what a server said, when its test fails.
const SHOWN_BYTES: usize = 16 << 10;

impl Connector {
    /// The request target of the webhook endpoint.
    pub(crate) fn target(&self) -> String {
        format!("/api/webhook/{}", self.stream)
    }

    /// A complete delivery of `body` as of now.
    pub(crate) fn delivery(&self, body: &[u8]) -> Request {
        self.delivery_to(&self.target(), body)
    }

    /// A deletion of an item; signed if the connector is.
    pub(crate) fn deletion(&self, item: &str) -> Request {
        let target = format!("/api/streams/{}/items/{}", self.stream, percent(item));
        let request = Request::new("DELETE", &target).bearer(&self.ingest_key);
        match &self.signing_key {
            Some(key) => signed(request, key, &now_s().to_string(), b""),
            None => request,
        }
    }

    /// A delivery with another request target, for query parameters.
    pub(crate) fn delivery_to(&self, target: &str, body: &[u8]) -> Request {
        let request = Request::post(target).bearer(&self.ingest_key);
        match &self.signing_key {
            Some(key) => signed(request, key, &now_s().to_string(), body).body(body),
            None => request.body(body),
        }
    }
}

/// Adds both signature headers.
pub(crate) fn signed(request: Request, key: &str, timestamp: &str, body: &[u8]) -> Request {
    request
        .header("X-Webhook-Timestamp", timestamp)
        .header("X-Webhook-Signature", sign(key, timestamp, body))
}

/// The position of an accepted delivery.
pub(crate) fn position(response: &Response) -> u64 {
    let header = response.header("DataPool-Position");
    header
        .unwrap_or_else(|| panic!("no position in {response:?}"))
        .parse()
        .unwrap()
}

/// Percent-encodes everything but letters and digits.
pub(crate) fn percent(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

/// What a program writes, while it writes it, and the thread that ends with it.
fn collect(mut from: impl Read + Send + 'static) -> (Arc<Mutex<String>>, JoinHandle<()>) {
    let text = Arc::new(Mutex::new(String::new()));
    let sink = Arc::clone(&text);
    let thread = std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            sink.lock()
                .unwrap()
                .push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
    });
    (text, thread)
}
