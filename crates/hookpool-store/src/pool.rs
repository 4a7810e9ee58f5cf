//! The contract of a pool: the materialised state, derived from the log and disposable.

use std::sync::Arc;

use hookpool_core::{
    fold::Item,
    name::{ItemId, StreamName},
    position::{Epoch, Generation, Position},
};
use thiserror::Error;

use crate::log::Cause;

/// Keeps items by stream, generation and id, and the checkpoint up to which the log is in them.
///
/// **Commits** are atomic: after a crash the items are those of the checkpoint, no more and no less. A crash may go back to an
/// earlier commit, since the log can be applied again; it never tears one.
///
/// **Reads** go through a snapshot that is published after each commit: all reads of one snapshot see one checkpoint.
/// There is one writer; calls of [`PoolStore::commit`] do not overlap.
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
}

/// The pool at one checkpoint. Calls may block for the time of a disk access.
pub trait PoolSnapshot: Send + Sync + 'static {
    /// Up to where the log is applied; `None` in a new pool.
    fn checkpoint(&self) -> Option<Checkpoint>;

    /// One item.
    ///
    /// # Errors
    /// [`PoolError`]
    fn item(
        &self,
        stream: &StreamName,
        generation: Generation,
        id: &ItemId,
    ) -> Result<Option<Item>, PoolError>;

    /// At most `limit` items after an id, in byte order of their ids; no further item once they have `bytes_max` bytes of text.
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

    /// The generation of a stream that is served.
    ///
    /// # Errors
    /// [`PoolError`]
    fn generation(&self, stream: &StreamName) -> Result<Generation, PoolError> {
        Ok(self
            .stream(stream)?
            .map_or(Generation::FIRST, |state| state.generation))
    }

    /// What is known of a stream; `None` before its first event.
    ///
    /// # Errors
    /// [`PoolError`]
    fn stream(&self, stream: &StreamName) -> Result<Option<StreamState>, PoolError>;

    /// All streams by name.
    ///
    /// # Errors
    /// [`PoolError`]
    fn streams(&self) -> Result<Vec<(StreamName, StreamState)>, PoolError>;
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

/// A stream in the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamState {
    /// The generation that is served.
    pub generation: Generation,
    /// Number of items in it.
    pub items: u64,
    /// Last event of the stream that is applied.
    pub position: Position,
}

/// One commit.
#[derive(Debug, Clone)]
pub struct PoolChanges {
    /// The new checkpoint.
    pub checkpoint: Checkpoint,
    /// Items as they are now, each at most once.
    pub items: Vec<ItemChange>,
    /// Streams as they are now.
    pub streams: Vec<(StreamName, StreamState)>,
}

/// An item as it is now.
#[derive(Debug, Clone)]
pub struct ItemChange {
    /// Its stream.
    pub stream: StreamName,
    /// In which generation.
    pub generation: Generation,
    /// Its id.
    pub id: ItemId,
    /// All of it; shared with a writer that has it in hand.
    pub item: Arc<Item>,
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
