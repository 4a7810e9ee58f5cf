//! Somebody who follows a stream of changes in the background, keeps every frame, and what they add up to.

use std::io::{ErrorKind, Read};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::eventually;
use super::fold::{Fields, Object, Pool, as_served};
use super::http::{Connection, Request};
use super::server::Server;
use super::sse::{Frame, Parser};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    Sse,
    Ndjson,
}

/// Where to start.
#[derive(Debug, Clone, Default)]
pub(crate) struct From {
    /// As in the query; without it the server's default.
    pub(crate) after: Option<&'static str>,
    pub(crate) cursor: Option<String>,
    /// Only this one.
    pub(crate) item: Option<&'static str>,
    /// Only this field.
    pub(crate) field: Option<&'static str>,
}

pub(crate) struct Follower {
    /// Of the last frame with an id, plus one; zero before the first.
    reached: Arc<AtomicU64>,
    until: Arc<Until>,
    thread: JoinHandle<Vec<Frame>>,
}

/// When it has seen enough.
#[derive(Debug)]
struct Until {
    position: AtomicU64,
    /// Zero for any.
    generation: AtomicU64,
}

impl Until {
    fn is_past(&self, frame: &Frame) -> bool {
        let generation = self.generation.load(Ordering::Relaxed);
        let fits = generation == 0 || generation_of(frame) == Some(generation);
        fits && frame.position() >= self.position.load(Ordering::Relaxed)
    }
}

/// The generation in the id of a frame; none in one from which there is no way on.
pub(crate) fn generation_of(frame: &Frame) -> Option<u64> {
    let generation = frame.id.as_ref()?.split('.').nth(1).unwrap();
    Some(generation.parse().unwrap()).filter(|generation| *generation > 0)
}

impl Follower {
    /// Connects, and returns once the first frame with an id came: from then on it is live, or knows where it is.
    pub(crate) fn start(server: &Server, stream: &str, framing: Framing, from: &From) -> Self {
        let reached = Arc::new(AtomicU64::new(0));
        let until = Arc::new(Until {
            position: AtomicU64::new(u64::MAX),
            generation: AtomicU64::new(0),
        });
        let request = request(&server.operator_key, stream, framing, from);
        let thread = {
            let (addr, reached, until) = (server.addr, Arc::clone(&reached), Arc::clone(&until));
            std::thread::spawn(move || follow(addr, &request, framing, &reached, &until))
        };
        let follower = Self {
            reached,
            until,
            thread,
        };
        if from.after != Some("earliest") {
            follower.wait(0);
        }
        follower
    }

    /// Waits until a position was reached.
    pub(crate) fn wait(&self, position: u64) {
        eventually("the follower gets there", Duration::from_secs(60), || {
            assert!(!self.thread.is_finished(), "the follower has failed");
            (self.reached.load(Ordering::Relaxed) > position).then_some(())
        });
    }

    /// Lets it end by itself with the first frame after a position; otherwise it may wait for a heartbeat to look.
    pub(crate) fn end_after(&self, position: u64) {
        self.until.position.store(position + 1, Ordering::Relaxed);
    }

    /// All frames up to a position.
    pub(crate) fn finish(self, position: u64) -> Vec<Frame> {
        self.until.position.store(position, Ordering::Relaxed);
        self.thread.join().unwrap()
    }

    /// All frames up to a position in a generation: until it hears of it, who follows the one before is told its changes.
    pub(crate) fn finish_in(self, generation: u64, position: u64) -> Vec<Frame> {
        self.until.generation.store(generation, Ordering::Relaxed);
        self.finish(position)
    }
}

fn request(key: &str, stream: &str, framing: Framing, from: &From) -> Request {
    let after = from
        .after
        .map_or_else(String::new, |after| format!("&after={after}"));
    let item = from
        .item
        .map_or_else(String::new, |item| format!("&item={item}"));
    let field = from
        .field
        .map_or_else(String::new, |field| format!("&fields={field}"));
    let target = format!("/api/streams/{stream}/changes?heartbeat=1{after}{item}{field}");
    let mut request = Request::get(&target).bearer(key);
    if let Some(cursor) = &from.cursor {
        request = request.header("Last-Event-ID", cursor);
    }
    match framing {
        Framing::Sse => request.header("Accept", "text/event-stream"),
        Framing::Ndjson => request.header("Accept", "application/x-ndjson"),
    }
}

fn follow(
    addr: SocketAddr,
    request: &Request,
    framing: Framing,
    reached: &AtomicU64,
    until: &Until,
) -> Vec<Frame> {
    let mut connection = Connection::open(addr).unwrap();
    let (head, mut body) = connection.follow(request).unwrap();
    assert_eq!(head.status, 200);
    let (mut reader, mut frames, mut buffer) =
        (Reader::new(framing), Vec::new(), vec![0; 64 << 10]);
    let mut last: Option<Frame> = None;
    while !last.as_ref().is_some_and(|frame| until.is_past(frame)) {
        let read = match body.read(&mut buffer) {
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => panic!("{error} after {} frames", frames.len()),
        };
        assert_ne!(read, 0, "the stream ended");
        for frame in reader.push(&buffer[..read]) {
            if frame.event == "reset" {
                last = None;
            }
            if generation_of(&frame).is_some() {
                let before = last.as_ref().map_or(0, Frame::position);
                assert!(frame.position() >= before, "back from {before}: {frame:?}");
                reached.store(frame.position() + 1, Ordering::Relaxed);
                last = Some(frame.clone());
            }
            frames.push(frame);
        }
    }
    frames
}

/// Takes bytes of a stream of changes as they come.
pub(crate) enum Reader {
    Sse(Parser),
    Ndjson(Vec<u8>),
}

impl Reader {
    pub(crate) fn new(framing: Framing) -> Self {
        match framing {
            Framing::Sse => Self::Sse(Parser::default()),
            Framing::Ndjson => Self::Ndjson(Vec::new()),
        }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<Frame> {
        match self {
            Self::Sse(parser) => parser.push(bytes),
            Self::Ndjson(rest) => {
                rest.extend_from_slice(bytes);
                let whole = rest
                    .iter()
                    .rposition(|byte| *byte == b'\n')
                    .map_or(0, |at| at + 1);
                let lines: Vec<u8> = rest.drain(..whole).collect();
                let lines = str::from_utf8(&lines).unwrap().lines();
                lines
                    .filter(|line| !line.is_empty())
                    .map(line_frame)
                    .collect()
            }
        }
    }
}

/// A line as the frame it stands for.
fn line_frame(line: &str) -> Frame {
    #[derive(Deserialize)]
    struct Line<'a> {
        event: String,
        id: Option<String>,
        #[serde(borrow)]
        data: &'a RawValue,
    }
    let Line { event, id, data } = serde_json::from_str(line).unwrap();
    Frame {
        event,
        id,
        data: data.get().to_owned(),
    }
}

/// `data` of `item` and `change` frames.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Row {
    op: Option<String>,
    item_id: String,
    #[serde(default, alias = "fields")]
    set: Object,
    #[serde(default)]
    unset: Vec<String>,
}

impl Row {
    pub(crate) fn of(frame: &Frame) -> Self {
        let row: Self = serde_json::from_str(&frame.data)
            .unwrap_or_else(|error| panic!("{error} in the data of {frame:?}"));
        assert!(
            row.unset.iter().all(|name| !row.set.contains_key(name)),
            "a field is set and goes away in one frame: {frame:?}"
        );
        row
    }
}

/// What the frames add up to.
pub(crate) fn state(frames: &[Frame]) -> Pool {
    let mut pool = Pool::new();
    for frame in frames {
        apply(&mut pool, frame);
    }
    pool
}

pub(crate) fn apply(pool: &mut Pool, frame: &Frame) {
    match &*frame.event {
        "item" | "change" => take_row(pool, Row::of(frame)),
        "reset" => pool.clear(),
        "snapshot-end" | "bookmark" | "generation" => {}
        _ => panic!("a follower does not expect {frame:?}"),
    }
}

fn take_row(pool: &mut Pool, row: Row) {
    if row.op.as_deref() == Some("delete") {
        assert!(
            pool.remove(&row.item_id).is_some(),
            "{} is not there",
            row.item_id
        );
        return;
    }
    let fields: &mut Fields = pool.entry(row.item_id).or_default();
    fields.extend(
        row.set
            .iter()
            .map(|(name, value)| (name.clone(), as_served(value))),
    );
    fields.retain(|name, _| !row.unset.contains(name));
}

/// The frames of one kind.
pub(crate) fn named<'a>(frames: &'a [Frame], event: &str) -> Vec<&'a Frame> {
    frames.iter().filter(|frame| frame.event == event).collect()
}
