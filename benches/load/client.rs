//! Connections that send prepared requests as fast as they are answered. The same for every server, whatever it speaks.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use hookpool_core::sign::signature;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::Instant,
};

/// What a request is signed with.
pub(crate) struct Keys {
    pub(crate) ingest: String,
    pub(crate) signing: String,
}

/// What a server wants of a request.
pub(crate) enum Speaks {
    /// A signature.
    Hookpool(Keys),
    /// The same, and `Idempotency-Key`, never the same twice.
    Keyed(Keys),
    DurableStreams,
    Redis,
}

/// What one run measured.
pub(crate) struct Run {
    pub(crate) answers: u64,
    took: Duration,
    /// Sorted, in microseconds.
    latencies: Vec<u32>,
}

impl Run {
    pub(crate) fn rate(&self) -> f64 {
        self.answers as f64 / self.took.as_secs_f64()
    }

    pub(crate) fn millis(&self, thousandths: usize) -> f64 {
        let at = (self.latencies.len() - 1) * thousandths / 1_000;
        f64::from(self.latencies[at]) / 1_000.0
    }
}

/// Requests of one connection, end to end, and where each ends.
#[derive(Default)]
struct Prepared {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

/// More than two cores answer in a second, over all connections.
const REQUESTS_PER_SECOND: usize = 250_000;
const BULK_EVENTS_PER_SECOND: usize = 2_000_000;

/// One event in each request.
pub(crate) fn run(server: SocketAddr, connections: usize, time: Duration, speaks: &Speaks) -> Run {
    let each = REQUESTS_PER_SECOND * usize::try_from(time.as_secs()).unwrap() / connections;
    let prepared = (0..connections).map(|connection| prepare(connection, each, speaks));
    send(server, prepared.collect(), time)
}

/// So many events in each request.
pub(crate) fn run_bulk(
    server: SocketAddr,
    connections: usize,
    time: Duration,
    speaks: &Speaks,
    events: usize,
) -> Run {
    let seconds = usize::try_from(time.as_secs()).unwrap();
    let each = (BULK_EVENTS_PER_SECOND * seconds / events / connections).max(8);
    let prepared =
        (0..connections).map(|connection| prepare_bulk(connection, each, speaks, events));
    send(server, prepared.collect(), time)
}

fn send(server: SocketAddr, prepared: Vec<Prepared>, time: Duration) -> Run {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut tasks = JoinSet::new();
        let begin = Instant::now();
        let end = begin + time;
        for requests in prepared {
            tasks.spawn(connection(server, requests, end));
        }
        let mut latencies = Vec::new();
        while let Some(done) = tasks.join_next().await {
            latencies.extend(done.unwrap());
        }
        let took = begin.elapsed();
        latencies.sort_unstable();
        Run {
            answers: latencies.len() as u64,
            took,
            latencies,
        }
    })
}

fn prepare(connection: usize, requests: usize, speaks: &Speaks) -> Prepared {
    let mut prepared = Prepared::default();
    for n in 0..requests {
        let body = event(connection, n);
        prepared.push(&request("/api/webhook/load", JSON, &body, speaks), &body);
    }
    prepared
}

fn prepare_bulk(connection: usize, requests: usize, speaks: &Speaks, events: usize) -> Prepared {
    let mut prepared = Prepared::default();
    for request_number in 0..requests {
        let lines = (0..events).map(|n| event(connection, request_number * events + n) + "\n");
        let body: String = lines.collect();
        let head = request(
            "/api/ingest?stream=load",
            "application/x-ndjson",
            &body,
            speaks,
        );
        prepared.push(&head, &body);
    }
    prepared
}

const JSON: &str = "application/json";

/// All that comes before the body.
fn request(target: &str, media: &str, body: &str, speaks: &Speaks) -> String {
    let length = body.len();
    let (keys, more) = match speaks {
        Speaks::Hookpool(keys) => (keys, String::new()),
        Speaks::Keyed(keys) => (keys, format!("Idempotency-Key: {}\r\n", fresh())),
        Speaks::DurableStreams => {
            return format!(
                "POST /load HTTP/1.1\r\nHost: h\r\nContent-Type: {media}\r\nContent-Length: {length}\r\n\r\n"
            );
        }
        Speaks::Redis => {
            return format!(
                "*5\r\n$4\r\nXADD\r\n$4\r\nload\r\n$1\r\n*\r\n$1\r\nd\r\n${length}\r\n"
            );
        }
    };
    #[expect(clippy::disallowed_methods, reason = "signatures need the time of day")]
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let signature = signature(&keys.signing, now, body.as_bytes());
    format!(
        "POST {target} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {}\r\nContent-Type: {media}\r\n\
         X-Webhook-Timestamp: {now}\r\nX-Webhook-Signature: {signature}\r\n{more}Content-Length: {length}\r\n\r\n",
        keys.ingest,
    )
}

/// A key that nobody else has, as long as a UUID.
fn fresh() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    // Spread like one: keys do not come in their order.
    let spread = next.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("{spread:016x}-{:03}-{next:016}", std::process::id() % 1_000)
}

fn event(connection: usize, n: usize) -> String {
    let item = (connection * 31 + n) % 1_000;
    format!(
        r#"{{"region":"r{item}","sales":{n},"target":130000,"updated":"2026-04-09T10:30:00Z","c":{connection}}}"#
    )
}

impl Prepared {
    fn push(&mut self, head: &str, body: &str) {
        self.bytes.extend_from_slice(head.as_bytes());
        self.bytes.extend_from_slice(body.as_bytes());
        if head.starts_with('*') {
            self.bytes.extend_from_slice(b"\r\n");
        }
        self.ends.push(self.bytes.len());
    }
}

async fn connection(server: SocketAddr, requests: Prepared, end: Instant) -> Vec<u32> {
    let mut stream = TcpStream::connect(server).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut latencies = Vec::with_capacity(requests.ends.len());
    let mut answer = vec![0; 4_096];
    let mut from = 0;
    for to in &requests.ends {
        let sent = Instant::now();
        if sent >= end {
            return latencies;
        }
        stream.write_all(&requests.bytes[from..*to]).await.unwrap();
        from = *to;
        read_answer(&mut stream, &mut answer).await;
        latencies.push(u32::try_from(sent.elapsed().as_micros()).unwrap());
    }
    panic!("more requests were answered than were prepared: raise the rate that is prepared for");
}

/// Reads one whole answer, which must say that the event is taken.
async fn read_answer(stream: &mut TcpStream, buffer: &mut [u8]) {
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).await.unwrap();
        assert!(read > 0, "the server closed a connection");
        filled += read;
        let answer = &buffer[..filled];
        let whole = if answer.starts_with(b"$") {
            memchr::memmem::find_iter(answer, b"\r\n").count() == 2
        } else {
            is_whole(answer)
        };
        if whole {
            return;
        }
    }
}

fn is_whole(answer: &[u8]) -> bool {
    let Some(head) = memchr::memmem::find(answer, b"\r\n\r\n") else {
        return false;
    };
    // durable-streams says 204 when an event is durable.
    let taken = answer.starts_with(b"HTTP/1.1 202") || answer.starts_with(b"HTTP/1.1 204");
    assert!(taken, "{}", String::from_utf8_lossy(answer));
    let text = std::str::from_utf8(&answer[..head]).unwrap();
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |length| length.parse::<usize>().unwrap());
    answer.len() >= head + 4 + length
}
