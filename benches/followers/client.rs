//! Followers and publishers over raw sockets: all followers on one thread, all publishers on another.

use std::{
    net::SocketAddr,
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
    /// From before an event is sent to when its frame is read.
    pub(crate) from_send: Millis,
    /// From when its answer is read; nothing where the frame is first.
    pub(crate) from_answer: Millis,
    /// From before an event is sent to when its answer is read.
    pub(crate) to_answer: Millis,
    pub(crate) follower_kib: f64,
}

/// The median and the 99th percentile.
#[derive(Clone, Copy)]
pub(crate) struct Millis {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

impl Millis {
    pub(crate) fn of(mut micros: Vec<u64>) -> Self {
        micros.sort_unstable();
        let at = |hundredths: usize| micros[(micros.len() - 1) * hundredths / 100] as f64 / 1e3;
        Self {
            p50: at(50),
            p99: at(99),
        }
    }
}

const PUBLISHERS: usize = 16;
/// So few that no server's queue of connections runs over: each one that does costs a second until the kernel asks again.
const OPENED_AT_ONCE: usize = 100;
/// Every so many followers one looks at how late its frames are.
const SAMPLED: usize = 10;
/// In front of the number of an event; nothing else in a frame looks like it.
const MARK: &[u8] = b"\"sent\":";
/// Digits behind it: numbers start so that there are always as many.
const DIGITS: usize = 12;
const FIRST: u64 = 100_000_000_000;

/// What all followers count together, and when events were sent and answered.
pub(crate) struct Counted {
    begun: Instant,
    connected: AtomicU64,
    frames: AtomicU64,
    bytes: AtomicU64,
    last_micros: AtomicU64,
    events: Mutex<Vec<Event>>,
    /// Events, and when they were read.
    read: Mutex<Vec<(usize, u64)>>,
}

#[derive(Clone, Copy, Default)]
struct Event {
    sent: u64,
    answered: u64,
}

impl Counted {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            begun: Instant::now(),
            connected: AtomicU64::new(0),
            frames: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            last_micros: AtomicU64::new(0),
            events: Mutex::new(Vec::new()),
            read: Mutex::new(Vec::new()),
        })
    }

    fn micros(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap()
    }

    /// Begins an event: its number, which is also its place in the list.
    fn begin(&self) -> usize {
        let mut events = self.events.lock().unwrap();
        events.push(Event {
            sent: self.micros(),
            answered: 0,
        });
        events.len() - 1
    }

    fn answered(&self, event: usize) {
        self.events.lock().unwrap()[event].answered = self.micros();
    }

    pub(crate) async fn are_connected(&self, followers: usize) {
        wait("all followers are connected", || {
            self.connected.load(Ordering::Relaxed) == followers as u64
        })
        .await;
    }

    /// How late the frames were that were read since the last look: after their events were sent, and answered.
    fn delays(&self) -> (Millis, Millis) {
        let (events, read) = (self.events.lock().unwrap(), self.read.lock().unwrap());
        let after = |pick: fn(&Event) -> u64| {
            let each = read.iter();
            Millis::of(
                each.map(|(event, at)| at.saturating_sub(pick(&events[*event])))
                    .collect(),
            )
        };
        (after(|event| event.sent), after(|event| event.answered))
    }
}

/// Runs all followers.
pub(crate) fn on_one_thread<T>(run: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(run)
}

pub(crate) async fn measure(server: &Server, plan: &Plan) -> Figures {
    let counted = Counted::new();
    publish(server, &counted, 1, None).await;
    let idle = server.memory_kib();
    let mut followers = JoinSet::new();
    for n in 0..plan.followers {
        let stream = TcpStream::connect(server.address).await.unwrap();
        let request = server.follow.replace("{n}", &n.to_string());
        let open = follow(stream, request, Arc::clone(&counted), n % SAMPLED == 0);
        followers.spawn(open);
        if (n + 1) % OPENED_AT_ONCE == 0 {
            counted.are_connected(n + 1).await;
        }
    }
    let followers_count = plan.followers as u64;
    counted.are_connected(plan.followers).await;
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

    counted.read.lock().unwrap().clear();
    let paced = plan.paced_per_second * plan.paced_seconds;
    let answered = publish(server, &counted, paced, Some(plan.paced_per_second)).await;
    let expected = expected + followers_count * paced as u64;
    wait("every follower has every paced frame", || {
        frames.load(Ordering::Relaxed) >= expected
    })
    .await;
    let (from_send, from_answer) = counted.delays();
    Figures {
        rate: delivered as f64 / (took as f64 / 1e6),
        frame_bytes,
        from_send,
        from_answer,
        to_answer: Millis::of(answered),
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

pub(crate) async fn follow(
    mut stream: TcpStream,
    request: String,
    counted: Arc<Counted>,
    sampled: bool,
) {
    stream.write_all(request.as_bytes()).await.unwrap();
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
                let event = digits.parse::<u64>().unwrap() - FIRST;
                let event = (usize::try_from(event).unwrap(), counted.micros());
                counted.read.lock().unwrap().push(event);
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

/// Sends events on a thread of its own, each publisher its next one when it has its answer, so many a second or as fast as it goes;
/// microseconds to each answer.
pub(crate) async fn publish(
    server: &Server,
    counted: &Arc<Counted>,
    events: usize,
    per_second: Option<usize>,
) -> Vec<u64> {
    let (address, head, counted) = (server.address, server.publish.clone(), Arc::clone(counted));
    let sent = tokio::task::spawn_blocking(move || {
        on_one_thread(send(address, head, counted, events, per_second))
    });
    sent.await.unwrap()
}

async fn send(
    address: SocketAddr,
    head: String,
    counted: Arc<Counted>,
    events: usize,
    per_second: Option<usize>,
) -> Vec<u64> {
    let publishers = PUBLISHERS.min(events);
    let mut running = JoinSet::new();
    for n in 0..publishers {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (head, counted) = (head.clone(), Arc::clone(&counted));
        let share = events / publishers + usize::from(n < events % publishers);
        running.spawn(async move {
            let (mut answer, mut delays) = (vec![0; 4_096], Vec::new());
            let begun = Instant::now();
            for round in 0..share {
                if let Some(per_second) = per_second {
                    let place = (round * publishers + n) as f64 / per_second as f64;
                    tokio::time::sleep_until(begun + Duration::from_secs_f64(place)).await;
                }
                let sent = counted.micros();
                let event = counted.begin();
                let number = FIRST + event as u64;
                let body = format!(
                    r#"{{"id":"North","sent":{number},"sales":142000,"target":130000,"n":{round}}}"#
                );
                let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
                stream.write_all(request.as_bytes()).await.unwrap();
                let read = stream.read(&mut answer).await.unwrap();
                assert!(
                    answer.starts_with(b"HTTP/1.1 20"),
                    "{}",
                    String::from_utf8_lossy(&answer[..read])
                );
                counted.answered(event);
                delays.push(counted.micros() - sent);
            }
            delays
        });
    }
    let mut delays = Vec::new();
    while let Some(done) = running.join_next().await {
        delays.extend(done.unwrap());
    }
    delays
}
