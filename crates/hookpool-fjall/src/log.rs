//! A log in a folder: one block per commit, synced before anybody is told.

mod copy;
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
    codec::{Block, BlockHeader, Digest, encode_block},
    event::{DedupeKey, Event, NewEvent, Request},
    name::StreamName,
    position::{Epoch, Position},
    time::Timestamp,
};
use hookpool_store::{
    AppendError, Appended, Cause, Dropped, EventLog, LogEnd, Page, PageRequest, ReadError,
    dedupe::{DedupeWindow, key_counts},
    wait_past,
};
pub(crate) use thin::TURN_BLOCKS;
use thin::Thinner;
use thiserror::Error;
use tokio::sync::watch;

use crate::{
    database,
    error::{OpenError, Refusal},
    folder::{self, Layout},
    journal,
    keys::{BLOCKS, Key, REQUESTS, STREAMS, stream_of, stream_prefix},
    requests::Expiry,
    rows::{self, Ordinals, RequestRow},
    tables::{self, Finding},
    tail::{self, Tail, View, index},
    witness::{Found, Keeper, Witness},
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

    fn head(&self) -> Position {
        *self.head.borrow()
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

/// What a log is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Use,
    /// Nothing is accepted on the way.
    Verify,
}

/// A log whose files are checked and whose database is open, but whose end is not proved.
pub(crate) struct Opened {
    pub(crate) dir: PathBuf,
    pub(crate) epoch: Epoch,
    layout: Layout,
    witness: Found,
    accepted: Option<Witness>,
    database: Database,
    blocks: Keyspace,
    streams: Keyspace,
    requests: Keyspace,
    expiry: Expiry,
    lock: File,
}

impl Opened {
    /// IMPORTANT: everything is checked before fjall opens, since opening cuts and deletes.
    pub(crate) fn open(dir: &Path, options: Options, purpose: Purpose) -> Result<Self, Refusal> {
        let unusable = |error| OpenError::unusable(dir, error);
        let lock = folder::lock(dir)?;
        let witness = Witness::read(dir).map_err(unusable)?;
        if !folder::db(dir).try_exists().map_err(unusable)? {
            create(dir, options.epoch_if_new, witness)?;
            let format = (Layout::Whole, options.epoch_if_new);
            return Ok(Self::open_database(dir, format, None, lock)?);
        }
        let (layout, epoch) = folder::read_format(dir)?;
        let accepted =
            folder::read_accept(dir).filter(|end| end.epoch == epoch && purpose == Purpose::Use);
        let durable = match (accepted, witness) {
            (Some(end), _) | (None, Found::Intact(end)) => end.head,
            (None, Found::Damaged | Found::Missing) => Position::ZERO,
        };
        tables::check(&folder::db(dir), KEYSPACES, options.verify_bytes)
            .map_err(|what| OpenError::damaged(dir, what))?;
        journal::check(dir, epoch, durable, accepted.as_ref())
            .map_err(|error| Refusal::of_journals(dir, epoch, error))?;
        Ok(Self::open_database(dir, (layout, epoch), accepted, lock)?)
    }

    fn open_database(
        dir: &Path,
        (layout, epoch): (Layout, Epoch),
        accepted: Option<Witness>,
        lock: File,
    ) -> Result<Self, OpenError> {
        let witness = Witness::read(dir).map_err(|error| OpenError::unusable(dir, error))?;
        let expiry = Expiry::default();
        let settings = database::Settings {
            filter: Some((REQUESTS, Arc::new(expiry.clone()))),
            ..database::Settings::default()
        };
        let opened = database::open(&folder::db(dir), NAMES, settings);
        let (database, [blocks, streams, requests]) =
            opened.map_err(|error| OpenError::damaged(dir, error.to_string()))?;
        Ok(Self {
            dir: dir.into(),
            epoch,
            layout,
            witness,
            accepted,
            database,
            blocks,
            streams,
            requests,
            expiry,
            lock,
        })
    }

    pub(crate) fn view(&self) -> View {
        View {
            blocks: self.blocks.clone(),
            streams: self.streams.clone(),
            requests: self.requests.clone(),
            snapshot: self.database.snapshot(),
        }
    }

    /// Proves by the witness that the log did not come back shorter; returns what the file `witness` says afterwards.
    pub(crate) fn prove(&self, view: &View, tail: &Tail) -> Result<Witness, OpenError> {
        let end = Witness {
            epoch: self.epoch,
            head: tail.head,
            digest: tail.digest,
        };
        match self.vouch(view, &end) {
            Ok(witness) => Ok(witness),
            Err(_) if self.accepted == Some(end) => self.accept(end),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn vouch(&self, view: &View, end: &Witness) -> Result<Witness, OpenError> {
        let doubt = |what: &str| OpenError::Witness {
            dir: self.dir.clone(),
            what: what.into(),
            epoch: end.epoch,
            head: end.head,
        };
        let witness = match self.witness {
            Found::Intact(witness) => witness,
            Found::Damaged => return Err(doubt("the file `witness` is damaged")),
            Found::Missing => return Err(doubt("the file `witness` is missing")),
        };
        if witness.epoch != end.epoch {
            return Err(doubt("the file `witness` is of another log"));
        }
        if witness.head > end.head {
            return Err(OpenError::Shorter {
                dir: self.dir.clone(),
                head: end.head,
                durable: witness.head,
            });
        }
        let witnessed = if witness.head == Position::ZERO {
            Digest::default()
        } else {
            view.block_at(witness.head)
                .map_err(|what| OpenError::damaged(&self.dir, what))?
                .filter(|block| block.header().last() == witness.head)
                .ok_or_else(|| doubt("no block ends where the file `witness` says"))?
                .digest()
        };
        if witnessed == witness.digest {
            Ok(witness)
        } else {
            Err(doubt("the file `witness` is of another history"))
        }
    }

    /// An operator takes the log as it is.
    fn accept(&self, end: Witness) -> Result<Witness, OpenError> {
        let unusable = |error| OpenError::unusable(&self.dir, error);
        end.write(&self.dir).map_err(unusable)?;
        folder::remove_accept(&self.dir).map_err(unusable)?;
        Ok(end)
    }

    fn finish(self, view: View, tail: Tail, witnessed: Witness) -> Result<FjallLog, OpenError> {
        let end = Witness {
            epoch: self.epoch,
            head: tail.head,
            digest: tail.digest,
        };
        self.expiry.set(tail.time);
        let keeper = Keeper::start(&self.dir, end, witnessed)
            .map_err(|error| OpenError::unusable(&self.dir, error))?;
        let writer = Writer {
            head: tail.head,
            digest: tail.digest,
            dedupe: tail.dedupe,
            failed: None,
        };
        Ok(FjallLog {
            epoch: self.epoch,
            writer: Mutex::new(writer),
            thinner: Mutex::new(Thinner::of(&self.dir)),
            dir: self.dir,
            layout: Mutex::new(self.layout),
            published: ArcSwap::from_pointee(Published {
                view,
                end: end.log_end(),
            }),
            head: watch::Sender::new(tail.head),
            keeper,
            blocks_read: AtomicU64::new(0),
            database: self.database,
            blocks: self.blocks,
            streams: self.streams,
            requests: self.requests,
            expiry: self.expiry,
            _lock: self.lock,
        })
    }
}

/// IMPORTANT: `db` takes its name last; where it is, the log is whole and has a format and a witness.
fn create(dir: &Path, epoch: Epoch, witness: Found) -> Result<(), OpenError> {
    let unusable = |error| OpenError::unusable(dir, error);
    match witness {
        Found::Missing => {}
        // A creation that was killed.
        Found::Intact(witness) if witness.head == Position::ZERO => {}
        Found::Intact(_) | Found::Damaged => {
            return Err(OpenError::damaged(dir, "the folder `db` is missing"));
        }
    }
    let unfinished = folder::unfinished_db(dir);
    if unfinished.try_exists().map_err(unusable)? {
        std::fs::remove_dir_all(&unfinished).map_err(unusable)?;
    }
    database::create(&unfinished, NAMES).map_err(|error| OpenError::Unusable {
        dir: dir.into(),
        cause: Arc::new(error),
    })?;
    let empty = Witness {
        epoch,
        head: Position::ZERO,
        digest: Digest::default(),
    };
    empty.write(dir).map_err(unusable)?;
    folder::write_format(dir, Layout::Whole, epoch).map_err(unusable)?;
    std::fs::rename(&unfinished, folder::db(dir)).map_err(unusable)?;
    folder::sync(dir).map_err(unusable)?;
    // The folder's own name.
    dir.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .map_or(Ok(()), folder::sync)
        .map_err(unusable)
}

/// Reads some whole blocks.
struct BlockReader<'a> {
    view: &'a View,
    epoch: Epoch,
    /// Everything up to here was read or not asked for.
    seen: Position,
}

impl<'a> BlockReader<'a> {
    fn new(view: &'a View, epoch: Epoch, after: Position) -> Self {
        Self {
            view,
            epoch,
            seen: after,
        }
    }

    fn read(&mut self, head: Position, bytes_max: usize) -> Result<Vec<Block>, String> {
        let mut blocks = Vec::new();
        if self.seen >= head {
            return Ok(blocks);
        }
        let mut bytes = 0;
        for block in self.view.blocks_without_holes(self.seen, head)? {
            let block = block?;
            tail::check_block(&block, self.epoch)?;
            bytes += block.len_bytes();
            self.seen = block.header().last();
            blocks.push(block);
            if bytes >= bytes_max {
                break;
            }
        }
        Ok(blocks)
    }
}

/// Fills one page.
struct PageReader<'a> {
    published: &'a Published,
    until: Position,
    /// Up to here all is in the page, or was not asked for.
    seen: Position,
    events: Vec<Event>,
    bytes: usize,
    events_max: usize,
    bytes_max: usize,
    whole_blocks: bool,
    /// How many were read.
    blocks: u64,
}

impl<'a> PageReader<'a> {
    fn new(published: &'a Published, request: &PageRequest) -> Self {
        Self {
            published,
            until: request.until.min(published.end.head),
            seen: request.after,
            events: Vec::new(),
            bytes: 0,
            events_max: request.events_max.max(1),
            bytes_max: request.bytes_max,
            whole_blocks: request.whole_blocks,
            blocks: 0,
        }
    }

    fn read(&mut self, request: &PageRequest) -> Result<Page, ReadError> {
        if self.until > self.seen {
            let whole = match &request.stream {
                None => self.read_all(),
                Some(stream) => self.read_stream(stream),
            };
            let whole = whole.map_err(|what| ReadError::Damaged {
                after: self.seen,
                cause: Arc::new(Damage(what)),
            })?;
            if whole {
                self.seen = self.until;
            }
        }
        Ok(Page {
            events: std::mem::take(&mut self.events),
            through: self.seen,
        })
    }

    /// Whether everything up to the end is in the page.
    fn read_all(&mut self) -> Result<bool, String> {
        for block in self
            .published
            .view
            .blocks_without_holes(self.seen, self.until)?
        {
            let block = block?;
            self.blocks += 1;
            if self.whole_blocks && self.is_full() {
                return Ok(false);
            }
            for event in block.events_from(self.seen.plus(1)) {
                let event = event.map_err(|error| error.to_string())?;
                if event.position > self.until {
                    return Ok(true);
                }
                if !self.take(event) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Whether everything of the stream up to the end is in the page.
    fn read_stream(&mut self, stream: &StreamName) -> Result<bool, String> {
        let view = &self.published.view;
        let key = |first| Key::Stream(stream, first).encode();
        // The block that holds the next position may begin before it.
        let from = self
            .rows(key(Position::ZERO)..=key(self.seen.plus(1)))
            .next_back()
            .transpose()?
            .map_or_else(|| stream_prefix(stream), |(first, _)| key(first));
        for row in self.rows(from..=key(self.until)) {
            let (first, row) = row?;
            if self.whole_blocks && self.is_full() {
                return Ok(false);
            }
            let block = view.block(first)?.ok_or_else(|| tail::missing(first))?;
            self.blocks += 1;
            let BlockHeader { count, thinned, .. } = *block.header();
            let ordinals = Ordinals::decode(&row, count)
                // A block that lost events belongs to no stream as a whole.
                .filter(|ordinals| thinned.is_none() || *ordinals != Ordinals::All)
                .ok_or_else(|| format!("the index of stream {stream} is damaged at {first}"))?;
            for stretch in ordinals.stretches(count) {
                if !self.take_stretch(stream, &block, &ordinals, stretch)? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Takes the events of a stream out of a stretch of a block.
    fn take_stretch(
        &mut self,
        stream: &StreamName,
        block: &Block,
        ordinals: &Ordinals,
        (ordinal, length): (u32, u32),
    ) -> Result<bool, String> {
        let start = block.header().first;
        let first = start.plus(ordinal.into());
        let end = first.plus(length.into()).min(self.until.plus(1));
        let from = first.max(self.seen.plus(1));
        if from >= end {
            return Ok(true);
        }
        let ordinal_of =
            |position: Position| u32::try_from(position.0 - start.0).unwrap_or(u32::MAX);
        let mut missing = ordinals.count_in(ordinal_of(from)..ordinal_of(end));
        for event in block.events_within(from..end) {
            let event = event.map_err(|error| error.to_string())?;
            let is_of_stream = event.event.stream == *stream;
            if is_of_stream != ordinals.hold(ordinal_of(event.position)) {
                return Err(format!(
                    "the index of stream {stream} is wrong about position {}",
                    event.position
                ));
            }
            if is_of_stream {
                if !self.take(event) {
                    return Ok(false);
                }
                missing -= 1;
            }
        }
        if missing > 0 {
            return Err(format!(
                "the index of stream {stream} names {missing} events that are not in the block at position {start}"
            ));
        }
        Ok(true)
    }

    fn rows(
        &self,
        range: std::ops::RangeInclusive<Vec<u8>>,
    ) -> impl DoubleEndedIterator<Item = Result<(Position, fjall::Slice), String>> + use<> {
        use fjall::Readable as _;
        let view = &self.published.view;
        view.snapshot.range(&view.streams, range).map(|guard| {
            let (key, row) = guard.into_inner().map_err(|error| error.to_string())?;
            let (_, first) = stream_of(&key).ok_or("a key in `streams` is damaged")?;
            Ok((first, row))
        })
    }

    fn is_full(&self) -> bool {
        self.events.len() >= self.events_max
            || (self.bytes >= self.bytes_max && !self.events.is_empty())
    }

    /// Puts an event into the page, if it has room or its block is not to be divided.
    fn take(&mut self, event: Event) -> bool {
        if self.is_full() && !self.whole_blocks {
            return false;
        }
        self.bytes += event.event.body.len();
        self.seen = event.position;
        self.events.push(event);
        true
    }
}
