//! The contract of a pool: the materialised state, derived from the log and disposable.

use std::sync::Arc;

use hookpool_core::{
    difference::DifferenceSum,
    fold::{History, Item, Note},
    name::{ItemId, StreamName},
    position::{Epoch, Generation, Position},
};
use thiserror::Error;

use crate::log::Cause;

/// Keeps the generations of streams: their items with their past, what became of single events, and the checkpoint up to which the log
/// is in those that follow it.
///
/// **Commits** are atomic: after a crash the items are those of the checkpoint, no more and no less. A crash may go back to an
/// earlier commit, since the log can be applied again; it never tears one, and never keeps one without those before it.
///
/// **Generations** are apart. One that is being built has a place of its own up to which the log is in it, and moves by commits that leave
/// the checkpoint where it is. Several may write at once, each its own generations; commits take their turns.
///
/// **Less history.** A commit can take notes and histories away that the retention of the stream no longer keeps. What it puts in their place is in the
/// same commit, so a history begins where the one before it did or at the floor, never in between.
///
/// **Deleted items** are apart from those that are there: they are neither found nor listed as items, and cost those who list items nothing.
/// What became of them is kept all the same, since their past can be read and their order still counts.
///
/// **Reads** go through a snapshot that is published after each commit: all reads of one snapshot see one checkpoint.
pub trait PoolStore: Send + Sync + 'static {
    /// Its view at one checkpoint.
    type Snapshot: PoolSnapshot;

    /// The state after the last commit.
    fn snapshot(&self) -> Arc<Self::Snapshot>;

    /// Applies changes and moves the checkpoint, as one.
    ///
    /// # Errors
    /// [`PoolError`]; the state is then that of the last commit.
    fn commit(&self, changes: PoolChanges) -> Result<(), PoolError>;

    /// Returns when all commits so far outlive a power cut. What is read from a log that drops events after this needs none of them.
    ///
    /// # Errors
    /// [`PoolError`]
    fn sync(&self) -> Result<(), PoolError>;

    /// Removes all of a generation that nobody writes any more. May take long; from its begin on the generation counts as one that is
    /// being built, so that nobody takes what is left for all. Broken off, it can be called again.
    ///
    /// # Errors
    /// [`PoolError`]
    fn remove(&self, stream: &StreamName, generation: Generation) -> Result<(), PoolError>;
}

/// A pool that several hold is the same pool.
impl<P: PoolStore> PoolStore for Arc<P> {
    type Snapshot = P::Snapshot;

    fn snapshot(&self) -> Arc<Self::Snapshot> {
        P::snapshot(self)
    }

    fn commit(&self, changes: PoolChanges) -> Result<(), PoolError> {
        P::commit(self, changes)
    }

    fn sync(&self) -> Result<(), PoolError> {
        P::sync(self)
    }

    fn remove(&self, stream: &StreamName, generation: Generation) -> Result<(), PoolError> {
        P::remove(self, stream, generation)
    }
}

/// The pool at one checkpoint. Calls may block for the time of a disk access.
pub trait PoolSnapshot: Send + Sync + 'static {
    /// Up to where the log is applied; `None` in a new pool.
    fn checkpoint(&self) -> Option<Checkpoint>;

    /// One item that is there.
    ///
    /// # Errors
    /// [`PoolError`]
    fn item(
        &self,
        stream: &StreamName,
        generation: Generation,
        id: &ItemId,
    ) -> Result<Option<Item>, PoolError>;

    /// One item that is deleted.
    ///
    /// # Errors
    /// [`PoolError`]
    fn tombstone(
        &self,
        stream: &StreamName,
        generation: Generation,
        id: &ItemId,
    ) -> Result<Option<Item>, PoolError>;

    /// Whether a generation may have a deleted item: where it has none, none need be looked for.
    ///
    /// # Errors
    /// [`PoolError`]
    fn has_tombstones(
        &self,
        stream: &StreamName,
        generation: Generation,
    ) -> Result<bool, PoolError>;

    /// One item, whether it is there or deleted.
    ///
    /// # Errors
    /// [`PoolError`]
    fn touched(
        &self,
        stream: &StreamName,
        generation: Generation,
        id: &ItemId,
    ) -> Result<Option<Item>, PoolError> {
        match self.item(stream, generation, id)? {
            Some(item) => Ok(Some(item)),
            None => self.tombstone(stream, generation, id),
        }
    }

    /// At most `limit` items that are there, after an id, in byte order of their ids; no further item once they have `bytes_max` bytes of text.
    ///
    /// # Errors
    /// [`PoolError`]
    fn items(
        &self,
        stream: &StreamName,
        generation: Generation,
        after: Option<&ItemId>,
        limit: usize,
        bytes_max: usize,
    ) -> Result<ItemPage, PoolError>;

    /// The same of all items, whether they are there or deleted.
    ///
    /// # Errors
    /// [`PoolError`]
    fn touched_items(
        &self,
        stream: &StreamName,
        generation: Generation,
        after: Option<&ItemId>,
        limit: usize,
        bytes_max: usize,
    ) -> Result<ItemPage, PoolError>;

    /// The last full history of an item that ends at or before a position.
    ///
    /// # Errors
    /// [`PoolError`]
    fn history_until(
        &self,
        stream: &StreamName,
        generation: Generation,
        id: &ItemId,
        until: Position,
    ) -> Result<Option<History>, PoolError>;

    /// The first full history of an item that ends after a position.
    ///
    /// # Errors
    /// [`PoolError`]
    fn history_after(
        &self,
        stream: &StreamName,
        generation: Generation,
        id: &ItemId,
        after: Position,
    ) -> Result<Option<History>, PoolError>;

    /// What became of the events after a position and up to another, of those that have a note.
    ///
    /// # Errors
    /// [`PoolError`]
    fn notes(
        &self,
        stream: &StreamName,
        generation: Generation,
        after: Position,
        until: Position,
    ) -> Result<Vec<(Position, Note)>, PoolError>;

    /// At most `limit` events after a position that fit the projection not at all.
    ///
    /// # Errors
    /// [`PoolError`]
    fn quarantined(
        &self,
        stream: &StreamName,
        generation: Generation,
        after: Position,
        limit: usize,
    ) -> Result<Vec<(Position, Note)>, PoolError>;

    /// The generation of a stream that is served.
    ///
    /// # Errors
    /// [`PoolError`]
    fn served(&self, stream: &StreamName) -> Result<Option<Generation>, PoolError>;

    /// All streams by name, with the generation that is served.
    ///
    /// # Errors
    /// [`PoolError`]
    fn streams(&self) -> Result<Vec<(StreamName, Generation)>, PoolError>;

    /// How far a generation is; `None` if there is none.
    ///
    /// # Errors
    /// [`PoolError`]
    fn generation(
        &self,
        stream: &StreamName,
        generation: Generation,
    ) -> Result<Option<GenerationState>, PoolError>;

    /// All generations of all streams, by name and number.
    ///
    /// # Errors
    /// [`PoolError`]
    fn generations(&self) -> Result<Vec<(StreamName, Generation)>, PoolError>;
}

/// Items in byte order of their ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ItemPage {
    /// What was asked for, as far as the limits allow.
    pub items: Vec<(ItemId, Item)>,
    /// Whether more follow.
    pub more: bool,
}

impl ItemPage {
    /// The first of these items that keep the limits.
    ///
    /// # Errors
    /// The first of the items'.
    pub fn collect(
        items: impl Iterator<Item = Result<(ItemId, Item), PoolError>>,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Self, PoolError> {
        let mut page = Self::default();
        let mut bytes = 0;
        for item in items {
            if page.items.len() >= limit || bytes >= bytes_max {
                page.more = true;
                break;
            }
            let (id, item) = item?;
            bytes += item.text_bytes();
            page.items.push((id, item));
        }
        Ok(page)
    }
}

/// Up to where which log is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// Of the log.
    pub epoch: Epoch,
    /// The last applied position.
    pub position: Position,
}

/// How far a generation is, and what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GenerationState {
    /// Version of the projection that it follows.
    pub projection: u32,
    /// Up to where the log is in it, while it is being built, and again when it is kept no longer; `None` while it follows the pool's checkpoint.
    pub built: Option<Position>,
    /// The last event of the stream that is in it.
    pub position: Position,
    /// Events of the stream that are in it.
    pub events: u64,
    /// Items that are there.
    pub items: u64,
    /// Events that fit the projection not at all.
    pub quarantined: u64,
    /// Events that were older than what their item had seen.
    pub superseded: u64,
    /// How it differs from the generation that is served, where that is kept.
    pub difference: Option<DifferenceState>,
}

/// How a generation differs from the one that is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DifferenceState {
    /// The differences, or what was added to them since their comparison began.
    pub sum: DifferenceSum,
    /// Whether every item was compared.
    pub whole: bool,
}

/// One commit.
#[derive(Debug, Clone, Default)]
pub struct PoolChanges {
    /// The new checkpoint; `None` leaves it where it is.
    pub checkpoint: Option<Checkpoint>,
    /// Generations that are served from now on.
    pub served: Vec<(StreamName, Generation)>,
    /// Each generation at most once.
    pub generations: Vec<GenerationChanges>,
}

/// What a commit does to a generation.
#[derive(Debug, Clone)]
pub struct GenerationChanges {
    /// Its stream.
    pub stream: StreamName,
    /// Which.
    pub generation: Generation,
    /// As it is now.
    pub state: GenerationState,
    /// Items as they are now, each at most once; shared with a writer that has them in hand.
    pub items: Vec<(ItemId, Arc<Item>)>,
    /// Histories that are full, or that begin at the floor.
    pub histories: Vec<(ItemId, History)>,
    /// What became of events, where they don't say it themselves.
    pub notes: Vec<(Position, Note)>,
    /// Items whose histories that end before a position go.
    pub dropped_histories: Vec<(ItemId, Position)>,
    /// Events whose notes go; most have none.
    pub dropped_notes: Vec<Position>,
}

impl GenerationChanges {
    /// A state, and nothing else that changes.
    #[must_use]
    pub fn empty(stream: &StreamName, generation: Generation, state: GenerationState) -> Self {
        Self {
            stream: stream.clone(),
            generation,
            state,
            items: Vec::new(),
            histories: Vec::new(),
            notes: Vec::new(),
            dropped_histories: Vec::new(),
            dropped_notes: Vec::new(),
        }
    }
}

/// Why the pool can't be read or written.
#[derive(Debug, Clone, Error)]
pub enum PoolError {
    /// Stored bytes are not what was written. Deleting the pool folder rebuilds it from the log.
    #[error(
        "read the pool: {0}; it is damaged: delete the pool folder, and it is rebuilt from the log"
    )]
    Damaged(Cause),
    /// The backend failed.
    #[error("use the pool: {0}")]
    Backend(Cause),
}
