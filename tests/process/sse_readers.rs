//! Readers that others wrote follow a stream through a proxy that cuts their connections, and miss and repeat nothing.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use crate::common::program::{command, hookpool, lines, repository, tool};
use crate::common::server::{Data, Server, position};
use crate::common::sse::{Frame, Parser};
use crate::common::{eventually, seeded};

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
        // Ends with the process. A browser has several connections at a time.
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let cut = counter.load(Ordering::Relaxed) > 0;
                let budget = if cut {
                    rng.random_range(1..4000)
                } else {
                    u64::MAX
                };
                let counter = Arc::clone(&counter);
                std::thread::spawn(move || {
                    if pass(client, server, budget).is_ok_and(|was_cut| was_cut) {
                        let less = |left: usize| Some(left.saturating_sub(1));
                        let order = Ordering::Relaxed;
                        counter.fetch_update(order, order, less).unwrap();
                    }
                });
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

    /// How often it has cut; most of what it was to do, or the reader was not put to the test.
    #[track_caller]
    pub(crate) fn has_cut(&self) -> usize {
        let cut = self.cuts - self.left.load(Ordering::Relaxed);
        assert!(
            cut * 2 > self.cuts,
            "only {cut} of {} cuts happened",
            self.cuts
        );
        cut
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
    /// Gives what has to be seen: positions and texts.
    writer: JoinHandle<Vec<(u64, String)>>,
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
        // Ends of lines by the rules of some languages, as they are and escaped.
        let text = "\\n\\r: \u{2028}\u{85}\\u2029\\u001e\u{feff}id: \u{e9} "
            .repeat(rng.random_range(0..8));
        let body = format!("{{\"id\":\"{id}\",\"n\":{n},\r\n\"text\":\"{text}\",\"x\":[1,\n2]}}");
        let request = connector.delivery(body.as_bytes());
        let answer = connection.call(&request).unwrap().expect(202);
        let body: Value = serde_json::from_str(&body).unwrap();
        (position(&answer), body["text"].as_str().unwrap().to_owned())
    };
    let mut written: Vec<_> = (0..EVENTS / 2).map(&mut post).collect();
    let writer = std::thread::spawn(move || {
        // A pace at which a reader can be live, not a wait for anything.
        let pace = Duration::from_millis(10);
        written.extend((EVENTS / 2..EVENTS).map(|n| {
            std::thread::sleep(pace);
            post(n)
        }));
        written
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
        let written = self.writer.join().unwrap();
        let change = |frame: &&Frame| frame.event == "change";
        let of = |frame: &Frame| {
            let text = frame.json()["set"]["text"].as_str().unwrap().to_owned();
            (frame.position(), text)
        };
        let seen: Vec<_> = frames.iter().filter(change).map(of).collect();
        assert_eq!(seen, written);
        for frame in frames.iter().filter(|frame| frame.event == "change") {
            assert!(frame.id.is_some());
            assert_eq!(frame.json()["stream"], "feed");
        }
        let other = |frame: &&Frame| !["change", "bookmark"].contains(&&*frame.event);
        assert_eq!(frames.iter().find(other), None);
        let cuts = self.proxy.has_cut();
        eprintln!("{} events over {cuts} cuts, each once", seen.len());
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
    let frames = frames_until_last(&lines(child.stdout.take().unwrap()));
    let _ = child.kill();
    child.wait().unwrap();
    frames
}

fn frames_until_last(lines: &mpsc::Receiver<String>) -> Vec<Frame> {
    let mut frames: Vec<Frame> = Vec::new();
    while !frames.last().is_some_and(is_last) {
        let Ok(line) = lines.recv_timeout(Duration::from_secs(60)) else {
            break;
        };
        if !line.is_empty() {
            frames.push(frame_of(&line));
        }
    }
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

/// A reader in Python, by its file and the package that it is to use.
fn python_resumes(test: &str, cuts: usize, package: &str) {
    let stage = stage(test, cuts);
    let mut python = command(tool("HOOKPOOL_PYTHON"));
    python.arg(repository("tests/readers/follow.py"));
    python.args([package, &stage.proxy.changes("feed"), &stage.reader_key]);
    let frames = run_reader(python);
    stage.assert_saw(&frames);
}

/// The same in Node.
fn node_resumes(test: &str, cuts: usize, package: &str) {
    let stage = stage(test, cuts);
    let mut node = command(tool("HOOKPOOL_NODE"));
    node.arg(repository("tests/readers/follow.mjs"));
    node.args([package, &stage.proxy.changes("feed"), &stage.reader_key]);
    node.env("HOOKPOOL_NODE_MODULES", tool("HOOKPOOL_NODE_MODULES"));
    let frames = run_reader(node);
    stage.assert_saw(&frames);
}

#[test]
#[ignore = "needs python with httpx-sse: tests/run"]
fn httpx_sse_resumes_without_gap_or_repetition() {
    let test = "httpx_sse_resumes_without_gap_or_repetition";
    python_resumes(test, 20, "httpx-sse");
}

#[test]
#[ignore = "needs python with requests-sse: tests/run"]
fn requests_sse_resumes_without_gap_or_repetition() {
    // The package waits twice the server's two seconds after each cut.
    let test = "requests_sse_resumes_without_gap_or_repetition";
    python_resumes(test, 5, "requests-sse");
}

#[test]
#[ignore = "needs node with eventsource: tests/run"]
fn eventsource_resumes_without_gap_or_repetition() {
    // The package waits the server's two seconds after each cut.
    let test = "eventsource_resumes_without_gap_or_repetition";
    node_resumes(test, 8, "eventsource");
}

#[test]
#[ignore = "needs node with eventsource-client: tests/run"]
fn eventsource_client_resumes_without_gap_or_repetition() {
    // So does this one.
    let test = "eventsource_client_resumes_without_gap_or_repetition";
    node_resumes(test, 8, "eventsource-client");
}

#[test]
#[ignore = "needs node with @microsoft/fetch-event-source: tests/run"]
fn fetch_event_source_resumes_without_gap_or_repetition() {
    let test = "fetch_event_source_resumes_without_gap_or_repetition";
    node_resumes(test, 20, "@microsoft/fetch-event-source");
}

#[test]
#[ignore = "needs chromium and node: tests/run"]
fn chromium_resumes_with_a_new_ticket_without_gap_or_repetition() {
    // A browser waits the server's two seconds, and is refused with its old ticket, after each cut.
    let test = "chromium_resumes_with_a_new_ticket_without_gap_or_repetition";
    let stage = stage(test, 6);
    let mut node = command(tool("HOOKPOOL_NODE"));
    node.arg(repository("tests/readers/chromium.mjs"));
    node.arg(tool("HOOKPOOL_CHROMIUM"));
    node.args([&stage.proxy.url(), &stage.server.url(), &stage.reader_key]);
    let piped = node.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    let frames = frames_until_last(&lines(child.stdout.take().unwrap()));
    // It ends with its input, and the browser with it.
    drop(child.stdin.take());
    let ended = || child.try_wait().unwrap();
    let status = eventually("the browser ends", Duration::from_secs(30), ended);
    assert!(status.success(), "{status}");
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
