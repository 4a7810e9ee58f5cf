//! The contract of a log.

use std::{future::Future, sync::Arc};

use hookpool_core::{
    codec::{Block, Digest},
    event::{DedupeKey, Event, Request},
    name::StreamName,
    position::{Epoch, Position},
    time::Timestamp,
};
use thiserror::Error;
use tokio::sync::watch;

/// What went wrong below the contract; shared, since one failed batch is told to everyone in it.
pub type Cause = Arc<dyn std::error::Error + Send + Sync>;

/// An append-only, totally ordered, durable sequence of events.
///
/// **Positions** strictly increase in the order of appending, and may have gaps. They start after [`Position::ZERO`]. A log is one
/// [`Epoch`] for its whole life; positions of another epoch mean nothing here.
///
/// **Appending.** A batch is a unit of work, not of atomicity: each request's outcome is reported, in order. What is reported appended is durable: it
/// survives a kill and a power cut, at that position, with those bytes. There is one appender; calls do not overlap.
///
/// **Requests** are units of atomicity. The events of one lie in one block, in order, at positions without a gap between them, all or none.
///
/// **Errors.** After an error the unreported requests are *unknown*: each is wholly there or wholly absent. A retry is safe where a request
/// has a key. After [`AppendError::Final`] every later append fails the same way.
///
/// **Duplicates.** A request is known by its first event. One whose dedupe key is equal to that of a request at most [`crate::dedupe::WINDOW_SECONDS`]
/// older, or whose idempotency key is equal to that of a request at most [`crate::dedupe::IDEMPOTENCY_SECONDS`] older, is not appended again, with none of its
/// events: it yields [`Appended::Duplicate`] with the first one's position, also inside one batch and also after a restart. An idempotency key comes before a dedupe key.
///
/// **Reading.** A page holds the events after a position in order, without holes, and never one that is not durable. What can't be proved
/// intact is a [`ReadError`], never a shorter page. Reads go on after a failed append.
///
/// **Head** is the last durable position. It never moves back, and moves only after what it covers can be read.
///
/// **Blocks.** The events lie in blocks, one for each commit; how a batch is divided into commits is the log's business. A block never changes but by losing
/// events that are dropped, and names the digest of the one before it, the first one zeros: so the digest of the last block is that of the whole history. Blocks are
/// read whole, in order, without one missing in between, and none ends past the head.
///
/// **Dropping.** A dropped event is gone for good, from pages and from its block. Its position stays a gap; its block keeps its place and the digest of what was
/// committed, even without any event. So head, end and chain stay what they were, and every other event is there as before, at its position, byte for byte.
/// What is reported dropped stays dropped through a kill and a power cut; after an error each event is wholly there or dropped. Dropping may run while the appender appends, which never waits
/// for more than a small part of it. A dropped event may be forgotten for duplicates, so whoever drops leaves what is younger than its window.
///
/// **End** is the head with the digest of the block that ends there. Both are of one moment.
///
/// Calls may block the calling thread for the time of a disk access: the appender has a thread of its own, and readers bound
/// their pages.
pub trait EventLog: Send + Sync + 'static {
    /// Appends a batch and returns when it is durable. An empty batch is nothing.
    fn append(
        &self,
        batch: Vec<Request>,
    ) -> impl Future<Output = Result<Vec<Appended>, AppendError>> + Send;

    /// The events after a position.
    fn page(&self, request: PageRequest) -> impl Future<Output = Result<Page, ReadError>> + Send;

    /// The intact blocks that end after a position, oldest first: no further one once they have `bytes_max` bytes, and at least one if there is any.
    /// The first one may begin at or before the position.
    fn blocks(
        &self,
        after: Position,
        bytes_max: usize,
    ) -> impl Future<Output = Result<Vec<Block>, ReadError>> + Send;

    /// Where the request with this idempotency key begins, if the key still counts for a request of this time. One that is being appended may be missed.
    fn find(
        &self,
        key: DedupeKey,
        time: Timestamp,
    ) -> impl Future<Output = Result<Option<Position>, ReadError>> + Send;

    /// Drops the events at these positions, in any order, and returns when that is durable. A position without an event is nothing.
    /// A call may block for as long as a backend needs to give their bytes back to the disk.
    fn drop_events(
        &self,
        positions: Vec<Position>,
    ) -> impl Future<Output = Result<Dropped, AppendError>> + Send;

    /// The last durable position.
    fn head(&self) -> Position;

    /// The head with its digest.
    fn end(&self) -> LogEnd;

    /// Identity of this log.
    fn epoch(&self) -> Epoch;

    /// Waits until the head is past a position, and returns the head.
    fn wait(&self, past: Position) -> impl Future<Output = Position> + Send;
}

/// Waits on a head that its owner holds until it is past a position: [`EventLog::wait`] for logs that have their head at hand.
pub async fn wait_past(head: &watch::Sender<Position>, past: Position) -> Position {
    // The sender is borrowed, so the channel is open while we wait.
    head.subscribe()
        .wait_for(|head| *head > past)
        .await
        .map_or(past, |head| *head)
}

/// A log that several hold is the same log.
impl<L: EventLog> EventLog for Arc<L> {
    fn append(
        &self,
        batch: Vec<Request>,
    ) -> impl Future<Output = Result<Vec<Appended>, AppendError>> + Send {
        L::append(self, batch)
    }

    fn page(&self, request: PageRequest) -> impl Future<Output = Result<Page, ReadError>> + Send {
        L::page(self, request)
    }

    fn blocks(
        &self,
        after: Position,
        bytes_max: usize,
    ) -> impl Future<Output = Result<Vec<Block>, ReadError>> + Send {
        L::blocks(self, after, bytes_max)
    }

    fn find(
        &self,
        key: DedupeKey,
        time: Timestamp,
    ) -> impl Future<Output = Result<Option<Position>, ReadError>> + Send {
        L::find(self, key, time)
    }

    fn drop_events(
        &self,
        positions: Vec<Position>,
    ) -> impl Future<Output = Result<Dropped, AppendError>> + Send {
        L::drop_events(self, positions)
    }

    fn head(&self) -> Position {
        L::head(self)
    }

    fn end(&self) -> LogEnd {
        L::end(self)
    }

    fn epoch(&self) -> Epoch {
        L::epoch(self)
    }

    fn wait(&self, past: Position) -> impl Future<Output = Position> + Send {
        L::wait(self, past)
    }
}

/// Where a log ends, and what its history is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogEnd {
    /// The last durable position.
    pub head: Position,
    /// SHA-256 of the block that ends there; zeros in an empty log.
    pub digest: Digest,
}

/// What became of one request of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// It is in the log; its first event is here.
    New(Position),
    /// One with the same key was there before; its first event is here.
    Duplicate(Position),
}

impl Appended {
    /// Where the first event is, new or not.
    #[must_use]
    pub fn position(self) -> Position {
        match self {
            Self::New(position) | Self::Duplicate(position) => position,
        }
    }
}

/// What was dropped by one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dropped {
    /// Number of events.
    pub events: u64,
    /// Bytes of their entries in their blocks.
    pub bytes: u64,
}

impl std::ops::AddAssign for Dropped {
    fn add_assign(&mut self, other: Self) {
        self.events += other.events;
        self.bytes += other.bytes;
    }
}

/// Which events to read.
#[derive(Debug, Clone)]
pub struct PageRequest {
    /// Only events with greater positions.
    pub after: Position,
    /// Only events up to here.
    pub until: Position,
    /// Only events of this stream. The cost is that of its events, not of the whole log's.
    pub stream: Option<StreamName>,
    /// At most this many events, at least 1.
    pub events_max: usize,
    /// No further event once the bodies have this many bytes; a page that is not at its end has at least one event.
    pub bytes_max: usize,
    /// Whether the limits are kept only between blocks, so that what was committed as one is in one page.
    pub whole_blocks: bool,
}

impl PageRequest {
    /// All streams after a position, 1,024 events or 1 MiB at most.
    #[must_use]
    pub fn after(after: Position) -> Self {
        Self {
            after,
            until: Position(u64::MAX),
            stream: None,
            events_max: 1_024,
            bytes_max: 1 << 20,
            whole_blocks: false,
        }
    }

    /// The same for one stream.
    #[must_use]
    pub fn of_stream(stream: StreamName, after: Position) -> Self {
        Self {
            stream: Some(stream),
            ..Self::after(after)
        }
    }
}

/// Events of a log, oldest first.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// What was asked for, as far as the limits allow.
    pub events: Vec<Event>,
    /// Everything asked for up to here has been seen: the `after` of the next page. At the end it is the head or `until`, whichever is less, and never less than `after`.
    pub through: Position,
}

/// Why a batch was not, or perhaps not, appended; or events dropped.
#[derive(Debug, Clone, Error)]
pub enum AppendError {
    /// Perhaps it was; the log goes on.
    #[error("append to the log; the outcome is unknown: {0}")]
    Unknown(Cause),
    /// Perhaps it was; the log takes nothing any more until it is opened again.
    #[error("append to the log, which has stopped: {0}")]
    Final(Cause),
}

/// Why events can't be read.
#[derive(Debug, Clone, Error)]
pub enum ReadError {
    /// The stored bytes are not what was written.
    #[error("read the log after position {after}: {cause}")]
    Damaged {
        /// The last position that could be read.
        after: Position,
        /// What was found.
        cause: Cause,
    },
    /// The backend did not answer.
    #[error("read the log: {0}")]
    Backend(Cause),
}
