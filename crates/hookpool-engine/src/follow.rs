//! Following a stream: recent frames shared by all who are up to date, pages of the log for who is behind.
//!
//! A follower holds a position and pulls. There is no lag state: whoever is inside the ring of recent frames gets shared bytes,
//! whoever is not reads the log until it is. What the bytes mean is the encoder's business.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use bytes::Bytes;
use hookpool_core::{
    cursor::Cursor,
    event::Event,
    json::Fields,
    name::StreamName,
    position::{Epoch, Generation, Position},
};
use hookpool_store::{EventLog, Page, PageRequest, ReadError};
use tokio::sync::watch;

/// Writes one change as it goes out to followers. `fields` are what the event set.
pub type EncodeChange = fn(into: &mut Vec<u8>, cursor: &Cursor, event: &Event, fields: &Fields<'_>);

/// Bytes of encoded frames that a ring keeps.
const RING_BYTES: usize = 1 << 20;

/// The rings of all streams that somebody follows.
#[derive(Debug)]
pub struct Rings {
    encode: EncodeChange,
    state: Mutex<RingsState>,
}

#[derive(Debug)]
struct RingsState {
    /// Everything up to here was published.
    applied: Position,
    /// A ring lives as long as it has followers: a stream that nobody follows costs no encoding.
    rings: BTreeMap<StreamName, Weak<Ring>>,
}

/// Frames of one stream, encoded once.
#[derive(Debug)]
struct Ring {
    recent: Mutex<Recent>,
    /// Position of the newest frame.
    newest: watch::Sender<Position>,
}

/// Frames of one stream that are being encoded.
#[derive(Default)]
struct Fresh {
    bytes: Vec<u8>,
    ends: Vec<(Position, usize)>,
}

impl Ring {
    fn push(&self, chunk: Chunk) {
        let newest = chunk.last();
        locked(&self.recent).push(chunk);
        self.newest.send_replace(newest);
    }
}

/// All frames after `from`, in chunks.
#[derive(Debug)]
struct Recent {
    from: Position,
    chunks: VecDeque<Chunk>,
    bytes: usize,
}

/// The frames of one page of the projector.
#[derive(Debug)]
struct Chunk {
    bytes: Bytes,
    /// Position and end of each frame.
    ends: Vec<(Position, usize)>,
}

impl Chunk {
    fn last(&self) -> Position {
        self.ends
            .last()
            .map_or(Position::ZERO, |(position, _)| *position)
    }

    /// The frames after a position.
    fn after(&self, after: Position) -> Bytes {
        let seen = self
            .ends
            .partition_point(|(position, _)| *position <= after);
        let start = seen
            .checked_sub(1)
            .and_then(|seen| self.ends.get(seen))
            .map_or(0, |(_, end)| *end);
        self.bytes.slice(start..)
    }
}

impl Recent {
    fn push(&mut self, chunk: Chunk) {
        self.bytes += chunk.bytes.len();
        self.chunks.push_back(chunk);
        while self.bytes > RING_BYTES && self.chunks.len() > 1 {
            if let Some(old) = self.chunks.pop_front() {
                self.bytes -= old.bytes.len();
                self.from = old.last();
            }
        }
    }

    /// The next chunk after a position: `None` if nothing is, or an error if the ring does not go back that far.
    fn next(&self, after: Position) -> Result<Option<(Bytes, Position)>, Behind> {
        if after < self.from {
            return Err(Behind);
        }
        let next = self.chunks.partition_point(|chunk| chunk.last() <= after);
        Ok(self
            .chunks
            .get(next)
            .map(|chunk| (chunk.after(after), chunk.last())))
    }
}

/// The ring does not go back that far.
struct Behind;

impl Rings {
    /// Rings that start after what is applied already.
    #[must_use]
    pub fn new(encode: EncodeChange, applied: Position) -> Self {
        Self {
            encode,
            state: Mutex::new(RingsState {
                applied,
                rings: BTreeMap::new(),
            }),
        }
    }

    /// Publishes a page that is now in the pool. Each event comes with the fields of its body.
    pub(crate) fn publish(&self, epoch: Epoch, events: &[(&Event, Fields<'_>)], through: Position) {
        // IMPORTANT: under one lock from the look-up to `applied`, so that a ring made meanwhile starts after this page.
        let mut state = locked(&self.state);
        let mut fresh: BTreeMap<&StreamName, (Arc<Ring>, Fresh)> = BTreeMap::new();
        for (event, fields) in events {
            let stream = &event.event.stream;
            if !fresh.contains_key(stream) {
                let Some(ring) = state.rings.get(stream).and_then(Weak::upgrade) else {
                    continue;
                };
                fresh.insert(stream, (ring, Fresh::default()));
            }
            if let Some((_, frames)) = fresh.get_mut(stream) {
                let cursor = Cursor {
                    epoch,
                    generation: Generation::FIRST,
                    position: event.position,
                };
                (self.encode)(&mut frames.bytes, &cursor, event, fields);
                frames.ends.push((event.position, frames.bytes.len()));
            }
        }
        for (ring, frames) in fresh.into_values() {
            ring.push(Chunk {
                bytes: frames.bytes.into(),
                ends: frames.ends,
            });
        }
        state.applied = through;
    }

    /// The ring of a stream, made if nobody follows it yet.
    fn join(&self, stream: &StreamName) -> Arc<Ring> {
        let mut state = locked(&self.state);
        if let Some(ring) = state.rings.get(stream).and_then(Weak::upgrade) {
            return ring;
        }
        let recent = Recent {
            from: state.applied,
            chunks: VecDeque::new(),
            bytes: 0,
        };
        let ring = Arc::new(Ring {
            recent: Mutex::new(recent),
            newest: watch::Sender::new(state.applied),
        });
        state.rings.retain(|_, ring| ring.strong_count() > 0);
        state.rings.insert(stream.clone(), Arc::downgrade(&ring));
        ring
    }

    /// Position up to which everything was published.
    fn applied(&self) -> Position {
        locked(&self.state).applied
    }
}

/// What comes next for a follower.
#[derive(Debug)]
pub enum Step {
    /// Encoded frames, shared with all who are here.
    Encoded(Bytes),
    /// Events from the log, for who is behind or wants another form. Perhaps none.
    Events(Vec<Event>),
}

/// How a follower wants its frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As the encoder of the engine makes them, where there are some.
    Encoded,
    /// Always as events.
    Events,
}

/// Somebody who reads a stream from a position on.
#[derive(Debug)]
pub struct Follower<L> {
    log: Arc<L>,
    rings: Arc<Rings>,
    stream: StreamName,
    form: Form,
    ring: Arc<Ring>,
    newest: watch::Receiver<Position>,
    position: Position,
}

impl<L: EventLog> Follower<L> {
    pub(crate) fn new(
        log: Arc<L>,
        rings: Arc<Rings>,
        stream: StreamName,
        form: Form,
        after: Position,
    ) -> Self {
        let ring = rings.join(&stream);
        let newest = ring.newest.subscribe();
        Self {
            log,
            rings,
            stream,
            form,
            ring,
            newest,
            position: after,
        }
    }

    /// Everything up to here was handed out.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// Waits for what comes after the position, hands it out and moves on. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`ReadError`] where the log can't be read; the position stays.
    pub async fn next(&mut self) -> Result<Step, ReadError> {
        loop {
            self.newest.mark_unchanged();
            if let Some(step) = self.ready().await? {
                return Ok(step);
            }
            if self.newest.changed().await.is_err() {
                // Our own handle keeps the ring and its sender alive.
                std::future::pending::<()>().await;
            }
        }
    }

    async fn ready(&mut self) -> Result<Option<Step>, ReadError> {
        let recent = locked(&self.ring.recent).next(self.position);
        match (recent, self.form) {
            (Ok(None), _) => Ok(None),
            (Ok(Some((bytes, through))), Form::Encoded) => {
                self.position = through;
                Ok(Some(Step::Encoded(bytes)))
            }
            (Ok(Some((_, through))), Form::Events) => self.read(through).await,
            (Err(Behind), _) => self.read(self.rings.applied()).await,
        }
    }

    /// One page of the log, no further than what is in the pool.
    async fn read(&mut self, until: Position) -> Result<Option<Step>, ReadError> {
        let request = PageRequest {
            until,
            events_max: 256,
            bytes_max: 256 << 10,
            ..PageRequest::of_stream(self.stream.clone(), self.position)
        };
        let page = read_page(&self.log, request).await?;
        self.position = page.through.max(self.position);
        Ok(Some(Step::Events(page.events)))
    }
}

/// Reads a page of a log.
///
/// # Errors
/// [`ReadError`]
pub(crate) async fn read_page<L: EventLog>(
    log: &Arc<L>,
    request: PageRequest,
) -> Result<Page, ReadError> {
    let log = Arc::clone(log);
    let runtime = tokio::runtime::Handle::current();
    blocking(move || runtime.block_on(log.page(request))).await
}

/// Runs a read on a thread that may block, so that a cold disk delays no other request.
///
/// # Panics
/// If the read does.
pub async fn blocking<T: Send + 'static>(read: impl FnOnce() -> T + Send + 'static) -> T {
    let read = tokio::task::spawn_blocking(read).await;
    read.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
