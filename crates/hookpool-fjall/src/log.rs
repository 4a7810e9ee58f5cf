//! A log in a folder: one block per commit, synced before anybody is told.

mod copy;
mod open;
mod pages;
#[cfg(test)]
mod tests;
mod thin;

use std::{
    collections::HashMap,
    fmt,
    fs::File,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use bytes::Bytes;
pub use copy::CopyError;
use fjall::{Database, Keyspace, PersistMode};
use hookpool_core::{
    codec::{Block, Digest, encode_block},
    event::{DedupeKey, NewEvent, Request},
    position::{Epoch, Position},
    time::Timestamp,
};
use hookpool_store::{
    AppendError, Appended, Cause, Dropped, EventLog, LogEnd, Page, PageRequest, ReadError,
    dedupe::{DedupeWindow, key_counts},
    wait_past,
};
pub(crate) use open::{Opened, Purpose};
use pages::{BlockReader, PageReader};
pub(crate) use thin::TURN_BLOCKS;
use thin::Thinner;
use thiserror::Error;
use tokio::sync::watch;

use crate::{
    database,
    error::OpenError,
    folder::Layout,
    keys::{BLOCKS, Key, REQUESTS, STREAMS},
    requests::Expiry,
    rows::{self, RequestRow},
    tables::Finding,
    tail::{View, index},
    witness::{Keeper, Witness},
};

/// How much of the end of a log is checked when it opens: all of what fjall's journals can hold, and more.
pub const VERIFY_BYTES: u64 = 256 << 20;
/// IMPORTANT: in this order; fjall numbers them, and the journal is read by these numbers (`journal`).
const NAMES: [&str; 3] = [BLOCKS, STREAMS, REQUESTS];
const KEYSPACES: u64 = NAMES.len() as u64;

/// How a log is opened.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Identity of the log if it is created now.
    pub epoch_if_new: Epoch,
    /// Bytes at the end of the log that are checked; less than [`VERIFY_BYTES`] weakens what opening promises.
    pub verify_bytes: u64,
}

impl Options {
    /// The usual checks.
    #[must_use]
    pub fn new(epoch_if_new: Epoch) -> Self {
        Self {
            epoch_if_new,
            verify_bytes: VERIFY_BYTES,
        }
    }
}

/// A log in a folder.
pub struct FjallLog {
    epoch: Epoch,
    writer: Mutex<Writer>,
    /// Held by who drops events: nobody else changes a block that is there.
    thinner: Mutex<Thinner>,
    dir: PathBuf,
    /// What the file `format` says.
    layout: Mutex<Layout>,
    published: ArcSwap<Published>,
    head: watch::Sender<Position>,
    keeper: Keeper,
    /// For pages.
    blocks_read: AtomicU64,
    database: Database,
    blocks: Keyspace,
    streams: Keyspace,
    requests: Keyspace,
    expiry: Expiry,
    _lock: File,
}

/// What readers see: a snapshot, and up to where it may be read.
struct Published {
    view: View,
    end: LogEnd,
}

/// What only the appender needs.
struct Writer {
    head: Position,
    digest: Digest,
    dedupe: DedupeWindow,
    failed: Option<Cause>,
}

/// A panic or an unfinished commit: nobody knows what is on the disk.
#[derive(Debug, Clone, Copy, Error)]
#[error("a commit did not finish")]
struct Unfinished;

/// Stored bytes that are not what was written.
#[derive(Debug, Clone, Error)]
#[error("{0}")]
struct Damage(String);

impl fmt::Debug for FjallLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FjallLog")
            .field("epoch", &self.epoch)
            .field("head", &self.head())
            .finish_non_exhaustive()
    }
}

impl FjallLog {
    /// Opens the log in a folder, or creates it. Proves that its end is what was written; see `docs/storage.md`.
    ///
    /// # Errors
    /// [`OpenError`], each with what to do next. Nothing was deleted then.
    pub fn open(dir: &Path, options: Options) -> Result<Self, OpenError> {
        let opened = Opened::open(dir, options, Purpose::Use).map_err(|refusal| refusal.error)?;
        let view = opened.view();
        let tail = view
            .tail(opened.epoch, options.verify_bytes)
            .map_err(|what| OpenError::damaged(dir, what))?;
        let witnessed = opened.prove(&view, &tail)?;
        opened.finish(view, tail, witnessed)
    }

    /// How many blocks were read for [`pages`](EventLog::page) since it was opened: the work that reading was.
    #[must_use]
    pub fn blocks_read(&self) -> u64 {
        self.blocks_read.load(Ordering::Relaxed)
    }

    fn commit(&self, batch: &[Request]) -> Result<Vec<Appended>, AppendError> {
        let mut writer = self.writer()?;
        let (outcomes, new) = self
            .sort_out(&writer, batch)
            .map_err(|what| AppendError::Unknown(Arc::new(Damage(what))))?;
        if new.is_empty() {
            return Ok(outcomes);
        }
        let first = writer.head.plus(1);
        let block = encode_block(self.epoch, first, writer.digest, new.iter().copied());
        let new: Vec<_> = (first.0..).map(Position).zip(new).collect();
        let end = Witness {
            epoch: self.epoch,
            head: block.last,
            digest: block.digest,
        };
        self.store(&mut writer, end, block.bytes.into(), &new)?;
        Ok(outcomes)
    }

    /// What becomes of each request, and the events that are new. What can't be told apart from a repetition is not appended.
    fn sort_out<'a>(
        &self,
        writer: &Writer,
        batch: &'a [Request],
    ) -> Result<(Vec<Appended>, Vec<&'a NewEvent>), Finding> {
        let mut outcomes = Vec::with_capacity(batch.len());
        let mut new = Vec::with_capacity(batch.len());
        let mut seen = Seen::default();
        let mut next = writer.head.plus(1);
        for request in batch {
            let first = &request.first;
            outcomes.push(match self.find(writer, &seen, first)? {
                Some(position) => Appended::Duplicate(position),
                None => {
                    let position = next;
                    seen.remember(first, position);
                    next = next.plus(request.count() as u64);
                    new.extend(request.events());
                    Appended::New(position)
                }
            });
        }
        Ok((outcomes, new))
    }

    /// Where the request begins that has the same key.
    fn find(
        &self,
        writer: &Writer,
        seen: &Seen,
        first: &NewEvent,
    ) -> Result<Option<Position>, Finding> {
        if let Some(identity) = &first.idempotency {
            let known = match seen.request(&identity.key, first.time) {
                // The snapshot has all that was appended: the writer is held.
                None => {
                    let view = &self.published.load().view;
                    view.request(&identity.key, first.time)?
                }
                known => known,
            };
            if known.is_some() {
                return Ok(known);
            }
        }
        let known = |key| writer.dedupe.find(&key).or_else(|| seen.dedupe(&key));
        Ok(first.dedupe.and_then(known))
    }

    /// The right to append.
    fn writer(&self) -> Result<MutexGuard<'_, Writer>, AppendError> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        match writer.failed.clone().or_else(|| self.keeper.failed()) {
            Some(cause) => Err(AppendError::Final(cause)),
            None => Ok(writer),
        }
    }

    /// Makes the next block durable, with which the log ends at `end`.
    fn store(
        &self,
        writer: &mut Writer,
        end: Witness,
        block: Bytes,
        events: &[(Position, &NewEvent)],
    ) -> Result<(), AppendError> {
        writer.attempt(|writer| self.write((writer.head.plus(1), end.head), block, events))?;
        writer.advance(&end, events);
        if let Some((_, last)) = events.last() {
            self.expiry.set(last.time);
        }
        self.publish(&end);
        Ok(())
    }

    /// IMPORTANT: one batch, synced; the block and its index are both there or both absent. The block is its first item: a journal tells by
    /// that whether a block was appended or written again (`journal`).
    fn write(
        &self,
        (first, last): (Position, Position),
        block: Bytes,
        events: &[(Position, &NewEvent)],
    ) -> Result<(), fjall::Error> {
        // A block has fewer events than that.
        let count = u32::try_from(last.0 - first.0 + 1).unwrap_or(u32::MAX);
        let streams = events.iter().map(|(at, event)| (*at, &event.stream));
        let mut batch = self
            .database
            .batch()
            .durability(Some(PersistMode::SyncData));
        batch.insert(&self.blocks, Key::Block(first).encode(), block);
        for (stream, ordinals) in index((first, count), streams) {
            let key = Key::Stream(stream, first).encode();
            batch.insert(&self.streams, key, ordinals.encode());
        }
        for (position, event) in events {
            if let Some(identity) = &event.idempotency {
                let key = Key::Request(&identity.key).encode();
                let (position, time) = (*position, event.time);
                let row = rows::request(&key, RequestRow { position, time });
                batch.insert(&self.requests, key, row);
            }
        }
        batch.commit()
    }

    /// IMPORTANT: the snapshot before the head, so that whoever sees the head can read up to it.
    fn publish(&self, end: &Witness) {
        self.publish_view(end.log_end());
        self.head.send_replace(end.head);
        self.keeper.moved(*end);
    }

    /// Shows readers what was written, with a log that ends there.
    fn publish_view(&self, end: LogEnd) {
        let view = View {
            blocks: self.blocks.clone(),
            streams: self.streams.clone(),
            requests: self.requests.clone(),
            snapshot: self.database.snapshot(),
        };
        self.published.store(Arc::new(Published { view, end }));
    }
}

impl EventLog for FjallLog {
    async fn append(&self, batch: Vec<Request>) -> Result<Vec<Appended>, AppendError> {
        self.commit(&batch)
    }

    async fn page(&self, request: PageRequest) -> Result<Page, ReadError> {
        let published = self.published.load_full();
        let mut reader = PageReader::new(&published, &request);
        let page = reader.read(&request);
        self.blocks_read.fetch_add(reader.blocks, Ordering::Relaxed);
        page
    }

    async fn blocks(&self, after: Position, bytes_max: usize) -> Result<Vec<Block>, ReadError> {
        let published = self.published.load_full();
        let mut reader = BlockReader::new(&published.view, self.epoch, after);
        reader
            .read(published.end.head, bytes_max)
            .map_err(|what| ReadError::Damaged {
                after: reader.seen,
                cause: Arc::new(Damage(what)),
            })
    }

    async fn find(&self, key: DedupeKey, time: Timestamp) -> Result<Option<Position>, ReadError> {
        let found = self.published.load().view.request(&key, time);
        found.map_err(|what| ReadError::Backend(Arc::new(Damage(what))))
    }

    async fn drop_events(&self, positions: Vec<Position>) -> Result<Dropped, AppendError> {
        self.thin(&positions.into_iter().collect())
    }

    // Of the view, not of who waits for it, who hears a moment later: no page shows more than the head.
    fn head(&self) -> Position {
        self.end().head
    }

    fn end(&self) -> LogEnd {
        self.published.load().end
    }

    fn epoch(&self) -> Epoch {
        self.epoch
    }

    async fn wait(&self, past: Position) -> Position {
        wait_past(&self.head, past).await
    }
}

/// Requests of one batch, which the log does not have yet.
#[derive(Default)]
struct Seen {
    requests: HashMap<DedupeKey, (Timestamp, Position)>,
    dedupe: HashMap<DedupeKey, Position>,
}

impl Seen {
    fn request(&self, key: &DedupeKey, time: Timestamp) -> Option<Position> {
        let (first, position) = self.requests.get(key)?;
        key_counts(*first, time).then_some(*position)
    }

    fn dedupe(&self, key: &DedupeKey) -> Option<Position> {
        self.dedupe.get(key).copied()
    }

    fn remember(&mut self, first: &NewEvent, position: Position) {
        if let Some(key) = first.dedupe {
            self.dedupe.insert(key, position);
        }
        if let Some(identity) = &first.idempotency {
            self.requests.insert(identity.key, (first.time, position));
        }
    }
}

impl Writer {
    fn end(&self) -> LogEnd {
        LogEnd {
            head: self.head,
            digest: self.digest,
        }
    }

    /// Writes; the first failure is the last thing that is written.
    fn attempt(
        &mut self,
        write: impl FnOnce(&Self) -> Result<(), fjall::Error>,
    ) -> Result<(), AppendError> {
        // A panic in here leaves it set.
        self.failed = Some(Arc::new(Unfinished));
        if let Err(error) = write(self) {
            let cause = database::cause(error);
            self.failed = Some(Arc::clone(&cause));
            return Err(AppendError::Final(cause));
        }
        self.failed = None;
        Ok(())
    }

    fn advance(&mut self, end: &Witness, events: &[(Position, &NewEvent)]) {
        for (position, event) in events {
            if let Some(key) = event.dedupe {
                self.dedupe.remember(key, event.time, *position);
            }
        }
        (self.head, self.digest) = (end.head, end.digest);
    }
}
