//! Readers that others wrote follow a stream through a proxy that cuts their connections, and miss and repeat nothing.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use crate::common::program::{command, hookpool, lines, repository, tool};
use crate::common::seeded;
use crate::common::server::{Data, Server, position};
use crate::common::sse::{Frame, Parser};

const EVENTS: usize = 300;
/// The item of the last one.
const LAST: &str = "last";

/// Passes connections on and cuts each one after a random number of the server's bytes, at most `cuts` times.
pub(crate) struct CuttingProxy {
    addr: SocketAddr,
    left: Arc<AtomicUsize>,
    cuts: usize,
}

impl CuttingProxy {
    pub(crate) fn start(server: SocketAddr, cuts: usize, mut rng: StdRng) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let left = Arc::new(AtomicUsize::new(cuts));
        let counter = Arc::clone(&left);
        // Ends with the process; a connection is served to its end before the next is taken.
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let cut = counter.load(Ordering::Relaxed) > 0;
                let budget = if cut {
                    rng.random_range(1..4000)
                } else {
                    u64::MAX
                };
                if pass(client, server, budget).is_ok_and(|was_cut| was_cut) {
                    counter.fetch_sub(1, Ordering::Relaxed);
                }
            }
        });
        Self { addr, left, cuts }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    fn changes(&self, stream: &str) -> String {
        format!("{}/api/streams/{stream}/changes?after=earliest", self.url())
    }

    #[track_caller]
    pub(crate) fn assert_has_cut(&self) {
        let cut = self.cuts - self.left.load(Ordering::Relaxed);
        assert!(
            cut * 2 > self.cuts,
            "only {cut} of {} cuts happened",
            self.cuts
        );
    }
}

/// One connection; true if the budget ended it.
fn pass(client: TcpStream, server: SocketAddr, budget: u64) -> io::Result<bool> {
    let mut upstream = TcpStream::connect(server)?;
    let (mut requests, mut to_server) = (client.try_clone()?, upstream.try_clone()?);
    let requests = std::thread::spawn(move || {
        let _ = io::copy(&mut requests, &mut to_server);
        let _ = to_server.shutdown(Shutdown::Both);
    });
    let (mut client, mut left, mut buffer) = (client, budget, [0; 512]);
    while left > 0 {
        let most = buffer
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        let Ok(read @ 1..) = upstream.read(&mut buffer[..most]) else {
            break;
        };
        if client.write_all(&buffer[..read]).is_err() {
            break;
        }
        left -= read as u64;
    }
    let _ = client.shutdown(Shutdown::Both);
    let _ = upstream.shutdown(Shutdown::Both);
    let _ = requests.join();
    Ok(left == 0)
}

/// The set-up that all readers share: half of the events are there before, half come while they read.
struct Stage {
    server: Server,
    proxy: CuttingProxy,
    reader_key: String,
    /// Gives what has to be seen.
    writer: JoinHandle<Vec<u64>>,
    data: Data,
}

fn stage(test: &str, cuts: usize) -> Stage {
    let mut rng = seeded(test);
    let data = Data::new();
    let server = data.serve();
    let connector = server.add_connector("feed", false);
    let reader_key = server.add_reader("reader", &["feed"]);
    let proxy = CuttingProxy::start(server.addr, cuts, StdRng::from_rng(&mut rng));
    let mut connection = server.connect();
    let mut post = move |n: usize| {
        let id = if n == EVENTS - 1 {
            LAST.to_owned()
        } else {
            format!("item-{}", n % 9)
        };
        let text = r"\n\r: \u2028\u00e9 ".repeat(rng.random_range(0..8));
        let body = format!("{{\"id\":\"{id}\",\"n\":{n},\r\n\"text\":\"{text}\",\"x\":[1,\n2]}}");
        position(
            &connection
                .call(&connector.delivery(body.as_bytes()))
                .unwrap()
                .expect(202),
        )
    };
    let mut positions: Vec<u64> = (0..EVENTS / 2).map(&mut post).collect();
    let writer = std::thread::spawn(move || {
        // A pace at which a reader can be live, not a wait for anything.
        let pace = Duration::from_millis(10);
        positions.extend((EVENTS / 2..EVENTS).map(|n| {
            std::thread::sleep(pace);
            post(n)
        }));
        positions
    });
    Stage {
        server,
        proxy,
        reader_key,
        writer,
        data,
    }
}

fn is_last(frame: &Frame) -> bool {
    frame.event == "change" && frame.json()["itemId"] == LAST
}

impl Stage {
    /// Compares what a reader saw with what was written.
    fn assert_saw(self, frames: &[Frame]) {
        let positions = self.writer.join().unwrap();
        let change = |frame: &&Frame| frame.event == "change";
        let seen: Vec<u64> = frames.iter().filter(change).map(Frame::position).collect();
        assert_eq!(seen, positions);
        for frame in frames.iter().filter(|frame| frame.event == "change") {
            assert!(frame.id.is_some());
            assert_eq!(frame.json()["stream"], "feed");
        }
        let other = |frame: &&Frame| !["change", "bookmark"].contains(&&*frame.event);
        assert_eq!(frames.iter().find(other), None);
        self.proxy.assert_has_cut();
        self.server.stop();
    }
}

/// Runs a reader that prints `{"event","id","data"}` a line until it shows the last change; `data` may be text or JSON.
fn run_reader(mut reader: Command) -> Vec<Frame> {
    let mut child = reader
        .stdout(Stdio::piped())
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let lines = lines(child.stdout.take().unwrap());
    let mut frames: Vec<Frame> = Vec::new();
    while !frames.last().is_some_and(is_last) {
        let Ok(line) = lines.recv_timeout(Duration::from_secs(60)) else {
            break;
        };
        if !line.is_empty() {
            frames.push(frame_of(&line));
        }
    }
    let _ = child.kill();
    child.wait().unwrap();
    frames
}

fn frame_of(line: &str) -> Frame {
    let line: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {line}"));
    let data = match &line["data"] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let event = line["event"].as_str().unwrap().to_owned();
    Frame {
        event,
        id: line["id"].as_str().map(str::to_owned),
        data,
    }
}

#[test]
#[ignore = "needs curl: tests/run"]
fn curl_resumes_without_gap_or_repetition() {
    let stage = stage("curl_resumes_without_gap_or_repetition", 25);
    let mut parser = Parser::default();
    let mut frames: Vec<Frame> = Vec::new();
    while !frames.iter().any(is_last) {
        let mut curl = command("curl");
        curl.args([
            "-sN",
            "-H",
            &format!("Authorization: Bearer {}", stage.reader_key),
        ]);
        if !parser.last_id().is_empty() {
            curl.args(["-H", &format!("Last-Event-ID: {}", parser.last_id())]);
        }
        curl.arg(stage.proxy.changes("feed")).stdout(Stdio::piped());
        let mut child = curl.spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let mut buffer = [0; 1024];
        while let Ok(read @ 1..) = stdout.read(&mut buffer) {
            frames.extend(parser.push(&buffer[..read]));
            if frames.last().is_some_and(is_last) {
                break;
            }
        }
        let _ = child.kill();
        child.wait().unwrap();
        parser.reconnect();
    }
    stage.assert_saw(&frames);
}

#[test]
#[ignore = "needs python with httpx-sse: tests/run"]
fn httpx_sse_resumes_without_gap_or_repetition() {
    let stage = stage("httpx_sse_resumes_without_gap_or_repetition", 20);
    let mut python = command(tool("HOOKPOOL_PYTHON"));
    python.arg(repository("tests/readers/follow.py"));
    python.args([&stage.proxy.changes("feed"), &stage.reader_key]);
    let frames = run_reader(python);
    stage.assert_saw(&frames);
}

#[test]
#[ignore = "needs node with eventsource: tests/run"]
fn eventsource_resumes_without_gap_or_repetition() {
    // The package waits the server's two seconds after each cut.
    let stage = stage("eventsource_resumes_without_gap_or_repetition", 8);
    let mut node = command(tool("HOOKPOOL_NODE"));
    node.arg(repository("tests/readers/follow.mjs"));
    node.args([&stage.proxy.changes("feed"), &stage.reader_key]);
    node.env("HOOKPOOL_NODE_MODULES", tool("HOOKPOOL_NODE_MODULES"));
    let frames = run_reader(node);
    stage.assert_saw(&frames);
}

#[test]
fn our_own_tail_resumes_without_gap_or_repetition() {
    let stage = stage("our_own_tail_resumes_without_gap_or_repetition", 6);
    let mut tail = hookpool();
    tail.args(["tail", "feed", "--from", "earliest", "--output", "ndjson"]);
    tail.args(["--server", &stage.proxy.url()])
        .arg("--operator-key-file");
    tail.arg(stage.data.path().join("operator.key"));
    let frames = run_reader(tail);
    stage.assert_saw(&frames);
}
