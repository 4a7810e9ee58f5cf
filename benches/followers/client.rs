//! Followers and publishers over raw sockets, all on one thread.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::Instant,
};

use crate::targets::Server;

pub(crate) struct Plan {
    pub(crate) followers: usize,
    pub(crate) events: usize,
    pub(crate) paced_per_second: usize,
    pub(crate) paced_seconds: usize,
}

pub(crate) struct Figures {
    /// Frames a second, all followers together.
    pub(crate) rate: f64,
    pub(crate) frame_bytes: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) follower_kib: f64,
}

const PUBLISHERS: usize = 16;
/// Every so many followers one looks at how late its frames are.
const SAMPLED: usize = 10;
/// In front of the microseconds at which an event was sent; nothing else in a frame looks like it.
const MARK: &[u8] = b"\"sent\":";
/// Digits behind it, of a clock that starts so that there are always as many.
const DIGITS: usize = 12;
const CLOCK_START: u64 = 100_000_000_000;

/// What all followers count together.
struct Counted {
    begun: Instant,
    connected: AtomicU64,
    frames: AtomicU64,
    bytes: AtomicU64,
    last_micros: AtomicU64,
    delays: Mutex<Vec<u64>>,
}

impl Counted {
    fn micros(&self) -> u64 {
        CLOCK_START + u64::try_from(self.begun.elapsed().as_micros()).unwrap()
    }
}

pub(crate) fn measure(server: &Server, plan: &Plan) -> Figures {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(run(server, plan))
}

async fn run(server: &Server, plan: &Plan) -> Figures {
    let counted = Arc::new(Counted {
        begun: Instant::now(),
        connected: AtomicU64::new(0),
        frames: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
        last_micros: AtomicU64::new(0),
        delays: Mutex::new(Vec::new()),
    });
    publish(server, &counted, 1, None).await;
    let idle = server.memory_kib();
    let mut followers = JoinSet::new();
    for n in 0..plan.followers {
        followers.spawn(follow(
            TcpStream::connect(server.address).await.unwrap(),
            server.follow.clone(),
            Arc::clone(&counted),
            n % SAMPLED == 0,
        ));
    }
    let followers_count = plan.followers as u64;
    wait("all followers are connected", || {
        counted.connected.load(Ordering::Relaxed) == followers_count
    })
    .await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let follower_kib = (server.memory_kib() - idle) / plan.followers as f64;

    let (frames, bytes) = (&counted.frames, &counted.bytes);
    let (frames_before, bytes_before) = (
        frames.load(Ordering::Relaxed),
        bytes.load(Ordering::Relaxed),
    );
    let begun = counted.micros();
    publish(server, &counted, plan.events, None).await;
    let expected = frames_before + followers_count * plan.events as u64;
    wait("every follower has every frame", || {
        frames.load(Ordering::Relaxed) >= expected
    })
    .await;
    let took = counted.last_micros.load(Ordering::Relaxed) - begun;
    let delivered = frames.load(Ordering::Relaxed) - frames_before;
    assert_eq!(
        delivered,
        followers_count * plan.events as u64,
        "each frame once"
    );
    let frame_bytes = (bytes.load(Ordering::Relaxed) - bytes_before) as f64 / delivered as f64;

    counted.delays.lock().unwrap().clear();
    let paced = plan.paced_per_second * plan.paced_seconds;
    let every = Duration::from_secs(1) / u32::try_from(plan.paced_per_second).unwrap();
    publish(server, &counted, paced, Some(every)).await;
    let expected = expected + followers_count * paced as u64;
    wait("every follower has every paced frame", || {
        frames.load(Ordering::Relaxed) >= expected
    })
    .await;
    let mut delays = std::mem::take(&mut *counted.delays.lock().unwrap());
    delays.sort_unstable();
    let millis = |thousandths: usize| delays[(delays.len() - 1) * thousandths / 1_000] as f64 / 1e3;
    Figures {
        rate: delivered as f64 / (took as f64 / 1e6),
        frame_bytes,
        p50_ms: millis(500),
        p99_ms: millis(990),
        follower_kib,
    }
}

async fn wait(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(120), "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn follow(mut stream: TcpStream, request: Vec<u8>, counted: Arc<Counted>, sampled: bool) {
    stream.write_all(&request).await.unwrap();
    let (mut buffer, mut filled, mut first) = (vec![0; 16 << 10], 0, true);
    let mark = memchr::memmem::Finder::new(MARK);
    loop {
        let read = stream.read(&mut buffer[filled..]).await.unwrap();
        assert!(read > 0, "the server closed a connection");
        if std::mem::take(&mut first) {
            assert!(
                buffer.starts_with(b"HTTP/1.1 200"),
                "{}",
                String::from_utf8_lossy(&buffer[..read])
            );
            counted.connected.fetch_add(1, Ordering::Relaxed);
        }
        filled += read;
        counted.bytes.fetch_add(read as u64, Ordering::Relaxed);
        let (mut frames, mut seen) = (0, 0);
        for at in mark.find_iter(&buffer[..filled]) {
            let end = at + MARK.len() + DIGITS;
            if end > filled {
                break;
            }
            (frames, seen) = (frames + 1, end);
            if sampled {
                let digits = std::str::from_utf8(&buffer[at + MARK.len()..end]).unwrap();
                let sent: u64 = digits.parse().unwrap();
                let delay = counted.micros().saturating_sub(sent);
                counted.delays.lock().unwrap().push(delay);
            }
        }
        if frames > 0 {
            counted.frames.fetch_add(frames, Ordering::Relaxed);
            counted
                .last_micros
                .fetch_max(counted.micros(), Ordering::Relaxed);
        }
        // A mark may lie across two reads.
        let keep = (filled - seen).min(MARK.len() + DIGITS - 1);
        buffer.copy_within(filled - keep..filled, 0);
        filled = keep;
    }
}

/// Sends events, each publisher its next one when it has its answer; or one at a time at a pace.
async fn publish(server: &Server, counted: &Arc<Counted>, events: usize, every: Option<Duration>) {
    let publishers = PUBLISHERS.min(events);
    let mut running = JoinSet::new();
    for n in 0..publishers {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (head, counted) = (server.publish.clone(), Arc::clone(counted));
        let share = events / publishers + usize::from(n < events % publishers);
        running.spawn(async move {
            let mut answer = vec![0; 4_096];
            let begun = Instant::now();
            for event in 0..share {
                if let Some(every) = every {
                    let place = u32::try_from(event * publishers + n).unwrap();
                    tokio::time::sleep_until(begun + every * place).await;
                }
                let sent = counted.micros();
                let body = format!(
                    r#"{{"id":"North","sent":{sent},"sales":142000,"target":130000,"n":{event}}}"#
                );
                let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
                stream.write_all(request.as_bytes()).await.unwrap();
                let read = stream.read(&mut answer).await.unwrap();
                assert!(
                    answer.starts_with(b"HTTP/1.1 20"),
                    "{}",
                    String::from_utf8_lossy(&answer[..read])
                );
            }
        });
    }
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
}
