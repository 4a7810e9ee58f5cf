//! One follower of a swarm: connects, is cut at a random byte, goes on with its last id; and keeps what it was told.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Barrier, watch};
use tokio::time::{Instant, timeout_at};

use super::kind::{Kind, STREAMS, sum};
use super::wire::Answer;
use crate::common::fold::Pool;
use crate::common::follower::{Framing, Reader, apply};
use crate::common::sse::Frame;

/// Where the server is, and how far to read once that is known: the last position of each stream.
#[derive(Clone)]
pub(super) struct Stage {
    pub(super) server: watch::Receiver<SocketAddr>,
    pub(super) goal: watch::Receiver<Option<[u64; 2]>>,
    pub(super) key: Arc<str>,
    /// Passed by all who were cut often enough, and by who waits for them.
    pub(super) all_cut: Arc<Barrier>,
}

/// What it was told of one stream.
#[derive(Default)]
pub(super) struct Told {
    items: Pool,
    sum: u64,
    cursor: String,
    /// Frames since the last id: worth nothing until the next.
    pending: Vec<Frame>,
    /// Each place to go on from: its position, and the sum of the items there.
    pub(super) at: Vec<(u64, u64)>,
    /// Positions of changes.
    pub(super) changes: Vec<u64>,
    /// What each change says of how many events it is.
    pub(super) merged: Vec<Merged>,
}

/// A change as one of an item and some events, the last of which is at a position.
#[derive(Debug)]
pub(super) struct Merged {
    pub(super) item: String,
    pub(super) position: u64,
    pub(super) events: usize,
}

/// Where connections were cut.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Cuts {
    pub(super) in_heads: u64,
    pub(super) in_frames: u64,
    pub(super) between: u64,
}

impl Cuts {
    pub(super) fn all(self) -> u64 {
        self.in_heads + self.in_frames + self.between
    }
}

pub(super) struct Follower {
    pub(super) kind: Kind,
    pub(super) streams: BTreeMap<&'static str, Told>,
    pub(super) cuts: Cuts,
    pub(super) frames: u64,
    cuts_wanted: u64,
    last_id: Option<String>,
    random: StdRng,
}

/// The data of a frame, as far as it says where it belongs.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Facts {
    stream: Option<String>,
    item_id: Option<String>,
    position: Option<u64>,
    merged: Option<usize>,
}

impl Follower {
    pub(super) fn new(kind: Kind, cuts_wanted: u64, random: StdRng) -> Self {
        let streams = kind.streams().iter();
        Self {
            kind,
            streams: streams.map(|name| (*name, Told::default())).collect(),
            cuts: Cuts::default(),
            frames: 0,
            cuts_wanted,
            last_id: None,
            random,
        }
    }

    /// Reads until it was cut as often as it is to be, and has everything.
    pub(super) async fn follow(mut self, stage: Stage) -> Self {
        while self.cuts.all() < self.cuts_wanted {
            self.connect(&stage).await;
        }
        stage.all_cut.wait().await;
        while !self.has_all(&stage) {
            self.connect(&stage).await;
        }
        self
    }

    /// One connection, however it ends: the next takes up where it was cut.
    async fn connect(&mut self, stage: &Stage) {
        let addr = *stage.server.borrow();
        let cut_off = match TcpStream::connect(addr).await {
            Ok(stream) => self.read(stream, stage).await.is_err(),
            Err(_) => true,
        };
        if cut_off {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for told in self.streams.values_mut() {
            told.pending.clear();
        }
    }

    async fn read(&mut self, mut stream: TcpStream, stage: &Stage) -> io::Result<()> {
        let request = self.kind.request(&stage.key, self.last_id.as_deref());
        stream.write_all(&request.encode()).await?;
        let (mut left, patience) = self.limits();
        // A busy server takes its time for the head.
        let mut ends_at = Instant::now() + Duration::from_secs(20);
        let pause = self.random.random_bool(0.1).then_some(8);
        let mut body = Body::new(self.kind);
        let mut buffer = [0; 4_096];
        while !self.has_all(stage) && !body.answer.has_ended() {
            let most = if pause.is_some() { 200 } else { buffer.len() };
            let most = left.min(most);
            let Ok(read) = timeout_at(ends_at, stream.read(&mut buffer[..most])).await else {
                break;
            };
            let read = read?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let was_in_head = body.answer.is_in_head();
            for frame in body.push(&buffer[..read]) {
                self.take(frame);
            }
            if was_in_head && !body.answer.is_in_head() {
                ends_at = Instant::now() + patience;
            }
            left -= read;
            if left == 0 {
                break;
            }
            if let Some(millis) = pause {
                tokio::time::sleep(Duration::from_millis(millis)).await;
            }
        }
        if self.cuts.all() < self.cuts_wanted && !body.answer.has_ended() {
            match () {
                () if body.answer.is_in_head() => self.cuts.in_heads += 1,
                () if body.is_between_frames() => self.cuts.between += 1,
                () => self.cuts.in_frames += 1,
            }
        }
        Ok(())
    }

    /// After how many bytes, or else how long after its head, the next connection is cut.
    fn limits(&mut self) -> (usize, Duration) {
        if self.cuts.all() >= self.cuts_wanted {
            return (usize::MAX, Duration::from_secs(600));
        }
        let random = &mut self.random;
        let bytes = match self.kind {
            _ if random.random_bool(0.4) => random.random_range(1..800),
            // Half an answer is worth nothing, so some are read to the end.
            Kind::Poll => usize::MAX,
            _ => random.random_range(1..12_000),
        };
        (bytes, Duration::from_millis(random.random_range(5..500)))
    }

    fn has_all(&self, stage: &Stage) -> bool {
        let Some(goal) = *stage.goal.borrow() else {
            return false;
        };
        let mut streams = STREAMS.iter().zip(goal);
        streams.all(|(name, goal)| {
            let told = self.streams.get(name);
            let reached = |told: &Told| told.at.last().is_some_and(|(at, _)| *at >= goal);
            told.is_none_or(reached)
        })
    }

    fn take(&mut self, frame: Frame) {
        let known = ["item", "snapshot-end", "change", "bookmark", "goodbye"];
        let (kind, last_id) = (self.kind, &self.last_id);
        assert!(
            known.contains(&&*frame.event),
            "{kind:?} after {last_id:?}: {frame:?}"
        );
        let facts: Facts = serde_json::from_str(&frame.data).unwrap();
        self.frames += 1;
        if frame.event == "goodbye" {
            assert_eq!(frame.json()["reason"], "shutdown");
            return;
        }
        let Some(id) = frame.id.clone() else {
            assert!(
                !(kind.is_of_events() && frame.event == "change"),
                "{frame:?}"
            );
            let stream = facts.stream.as_deref().unwrap();
            self.streams.get_mut(stream).unwrap().pending.push(frame);
            return;
        };
        for (stream, cursor) in places(kind, &id) {
            let told = self.streams.get_mut(stream).unwrap();
            let of_it = facts.stream.as_deref().is_none_or(|name| name == stream);
            if of_it && told.cursor != cursor {
                cursor.clone_into(&mut told.cursor);
                told.mark(frame.clone(), position(cursor));
            }
        }
        self.last_id = Some(id);
    }
}

impl Told {
    /// Takes what was pending and a frame with an id.
    fn mark(&mut self, frame: Frame, position: u64) {
        for frame in std::mem::take(&mut self.pending) {
            self.apply(&frame);
        }
        self.apply(&frame);
        self.at.push((position, self.sum));
    }

    fn apply(&mut self, frame: &Frame) {
        let facts: Facts = serde_json::from_str(&frame.data).unwrap();
        let (Some(item), Some(position)) = (facts.item_id, facts.position) else {
            return;
        };
        self.sum ^= sum(&item, self.items.get(&item));
        apply(&mut self.items, frame);
        self.sum ^= sum(&item, self.items.get(&item));
        if frame.event == "change" {
            self.changes.push(position);
            self.merged.push(Merged {
                item,
                position,
                events: facts.merged.unwrap_or(1),
            });
        }
    }
}

/// The cursors in an id.
fn places(kind: Kind, id: &str) -> Vec<(&'static str, &str)> {
    let Kind::Several = kind else {
        return vec![(STREAMS[0], id)];
    };
    let one = |place| {
        let (stream, cursor) = str::split_once(place, ':').unwrap();
        let known = STREAMS.into_iter().find(|name| *name == stream);
        (known.unwrap(), cursor)
    };
    id.split(',').map(one).collect()
}

fn position(cursor: &str) -> u64 {
    cursor.rsplit('.').next().unwrap().parse().unwrap()
}

/// The body of one answer.
struct Body {
    answer: Answer,
    form: Form,
    /// The last two bytes.
    end: [u8; 2],
}

enum Form {
    Frames(Reader),
    /// A whole answer or nothing.
    Poll(Vec<u8>),
}

impl Body {
    fn new(kind: Kind) -> Self {
        let form = match kind {
            Kind::Ndjson => Form::Frames(Reader::new(Framing::Ndjson)),
            Kind::Poll => Form::Poll(Vec::new()),
            _ => Form::Frames(Reader::new(Framing::Sse)),
        };
        Self {
            answer: Answer::default(),
            form,
            end: *b"\n\n",
        }
    }

    fn push(&mut self, bytes: &[u8]) -> Vec<Frame> {
        let body = self.answer.push(bytes);
        for byte in &body {
            self.end = [self.end[1], *byte];
        }
        match &mut self.form {
            Form::Frames(reader) => reader.push(&body),
            Form::Poll(whole) => {
                whole.extend(body);
                match self.answer.has_ended() {
                    true => polled(whole),
                    false => Vec::new(),
                }
            }
        }
    }

    fn is_between_frames(&self) -> bool {
        match &self.form {
            Form::Frames(Reader::Sse(_)) => self.end == *b"\n\n",
            Form::Frames(Reader::Ndjson(_)) => self.end[1] == b'\n',
            Form::Poll(_) => false,
        }
    }
}

/// The frames of a long poll, and a bookmark for its cursor, which has to be the last id if there is one.
fn polled(answer: &[u8]) -> Vec<Frame> {
    #[derive(Deserialize)]
    struct Polled<'a> {
        #[serde(borrow)]
        frames: Vec<One<'a>>,
        cursor: String,
    }
    #[derive(Deserialize)]
    struct One<'a> {
        event: String,
        id: Option<String>,
        #[serde(borrow)]
        data: &'a RawValue,
    }
    let polled: Polled<'_> = serde_json::from_slice(answer).unwrap();
    let frames = polled.frames.into_iter().map(|frame| Frame {
        event: frame.event,
        id: frame.id,
        data: frame.data.get().to_owned(),
    });
    let frames: Vec<Frame> = frames.collect();
    if let Some(last) = frames.iter().rev().find_map(|frame| frame.id.as_ref()) {
        assert_eq!(*last, polled.cursor);
    }
    frames
}
