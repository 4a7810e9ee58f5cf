//! A pool in a folder: derived from the log, never synced, deleted when in doubt.

use std::{
    fmt,
    fs::File,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use fjall::{Database, Keyspace, PersistMode, Readable as _, Snapshot};
use hookpool_core::{
    codec::{decode_item, encode_item},
    fold::Item,
    name::{ItemId, StreamName},
    position::Generation,
};
use hookpool_store::{
    Checkpoint, ItemPage, PoolChanges, PoolError, PoolSnapshot, PoolStore, StreamState,
};
use thiserror::Error;

use crate::{
    database::{self, DatabaseError},
    error::OpenError,
    folder,
    keys::{Key, POOL, STATE_PREFIX, item_of, item_prefix, state_of},
    rows, tables,
};

/// The one keyspace.
const KEYSPACES: u64 = 1;
/// A damaged table is found when it is read; only the metadata is checked when the pool opens.
const VERIFY_BYTES: u64 = 0;

/// A pool in a folder.
pub struct FjallPool {
    database: Database,
    rows: Keyspace,
    published: ArcSwap<FjallPoolSnapshot>,
    writing: Mutex<()>,
    _lock: File,
}

/// A [`FjallPool`] at one checkpoint.
pub struct FjallPoolSnapshot {
    rows: Keyspace,
    snapshot: Snapshot,
    checkpoint: Option<Checkpoint>,
}

/// A row that is not what was written.
#[derive(Debug, Clone, Copy, Error)]
#[error("a stored {0} is damaged")]
struct DamagedRow(&'static str);

impl fmt::Debug for FjallPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FjallPool")
            .field("checkpoint", &self.published.load().checkpoint)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for FjallPoolSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FjallPoolSnapshot")
            .field("checkpoint", &self.checkpoint)
            .finish_non_exhaustive()
    }
}

impl FjallPool {
    /// Opens the pool in a folder, or creates it.
    ///
    /// # Errors
    /// [`OpenError::Pool`] if it is damaged: deleting the folder rebuilds it. [`OpenError::Locked`], [`OpenError::Unusable`].
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        let lock = folder::lock(dir)?;
        let db = folder::db(dir);
        let refused = |what: String| OpenError::Pool {
            dir: dir.into(),
            what,
        };
        let exists = db
            .try_exists()
            .map_err(|error| OpenError::unusable(dir, error))?;
        if exists {
            tables::check(&db, KEYSPACES, VERIFY_BYTES).map_err(refused)?;
        } else {
            create(dir)?;
        }
        let (database, [rows]) =
            database::open(&db, [POOL]).map_err(|error| refused(error.to_string()))?;
        let snapshot = FjallPoolSnapshot::at(database.snapshot(), rows.clone())
            .map_err(|error| refused(error.to_string()))?;
        Ok(Self {
            database,
            rows,
            published: ArcSwap::from_pointee(snapshot),
            writing: Mutex::new(()),
            _lock: lock,
        })
    }

    /// Not synced: what a power cut takes is applied again from the log.
    fn write(&self, changes: &PoolChanges) -> Result<(), fjall::Error> {
        let mut batch = self.database.batch().durability(Some(PersistMode::Buffer));
        for change in &changes.items {
            let key = Key::Item(&change.stream, change.generation, &change.id).encode();
            batch.insert(&self.rows, key, encode_item(&change.item));
        }
        for (stream, state) in &changes.streams {
            let key = Key::State(stream).encode();
            let row = rows::stream_state(&key, *state);
            batch.insert(&self.rows, key, row);
        }
        let key = Key::Checkpoint.encode();
        let row = rows::checkpoint(&key, changes.checkpoint);
        batch.insert(&self.rows, key, row);
        batch.commit()
    }
}

fn create(dir: &Path) -> Result<(), OpenError> {
    let unusable = |error| OpenError::unusable(dir, error);
    let unfinished = folder::unfinished_db(dir);
    if unfinished.try_exists().map_err(unusable)? {
        std::fs::remove_dir_all(&unfinished).map_err(unusable)?;
    }
    database::create(&unfinished, [POOL]).map_err(|error| OpenError::Unusable {
        dir: dir.into(),
        cause: Arc::new(error),
    })?;
    std::fs::rename(&unfinished, folder::db(dir)).map_err(unusable)?;
    folder::sync(dir).map_err(unusable)
}

impl PoolStore for FjallPool {
    type Snapshot = FjallPoolSnapshot;

    fn snapshot(&self) -> Arc<FjallPoolSnapshot> {
        self.published.load_full()
    }

    fn commit(&self, changes: PoolChanges) -> Result<(), PoolError> {
        // Guards no data, only the order of publishing.
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.write(&changes)
            .map_err(|error| PoolError::Backend(database::cause(error)))?;
        self.published.store(Arc::new(FjallPoolSnapshot {
            rows: self.rows.clone(),
            snapshot: self.database.snapshot(),
            checkpoint: Some(changes.checkpoint),
        }));
        Ok(())
    }
}

impl FjallPoolSnapshot {
    fn at(snapshot: Snapshot, rows: Keyspace) -> Result<Self, PoolError> {
        let key = Key::Checkpoint.encode();
        let checkpoint = snapshot
            .get(&rows, &key)
            .map_err(read_failed)?
            .map(|row| rows::to_checkpoint(&key, &row).ok_or_else(|| damaged("checkpoint")))
            .transpose()?;
        Ok(Self {
            rows,
            snapshot,
            checkpoint,
        })
    }
}

impl PoolSnapshot for FjallPoolSnapshot {
    fn checkpoint(&self) -> Option<Checkpoint> {
        self.checkpoint
    }

    fn item(
        &self,
        stream: &StreamName,
        generation: Generation,
        id: &ItemId,
    ) -> Result<Option<Item>, PoolError> {
        let key = Key::Item(stream, generation, id).encode();
        let row = self.snapshot.get(&self.rows, key).map_err(read_failed)?;
        row.map(|row| to_item(&row)).transpose()
    }

    fn items(
        &self,
        stream: &StreamName,
        generation: Generation,
        after: Option<&ItemId>,
        limit: usize,
        bytes_max: usize,
    ) -> Result<ItemPage, PoolError> {
        use std::ops::Bound::{Excluded, Unbounded};
        let prefix = item_prefix(stream, generation);
        let start = after.map_or_else(
            || prefix.clone(),
            |id| Key::Item(stream, generation, id).encode(),
        );
        let rows = self
            .snapshot
            .range::<Vec<u8>, _>(&self.rows, (Excluded(start), Unbounded))
            .map(|guard| guard.into_inner().map_err(read_failed))
            .take_while(|row| {
                row.as_ref()
                    .map_or(true, |(key, _)| key.starts_with(&prefix))
            })
            .map(|row| {
                let (key, row) = row?;
                let id = item_of(&key, &prefix).ok_or_else(|| damaged("item id"))?;
                Ok((id, to_item(&row)?))
            });
        ItemPage::collect(rows, limit, bytes_max)
    }

    fn stream(&self, stream: &StreamName) -> Result<Option<StreamState>, PoolError> {
        let key = Key::State(stream).encode();
        let row = self.snapshot.get(&self.rows, &key).map_err(read_failed)?;
        row.map(|row| to_state(&key, &row)).transpose()
    }

    fn streams(&self) -> Result<Vec<(StreamName, StreamState)>, PoolError> {
        self.snapshot
            .prefix(&self.rows, STATE_PREFIX)
            .map(|guard| {
                let (key, row) = guard.into_inner().map_err(read_failed)?;
                let name = state_of(&key).ok_or_else(|| damaged("stream name"))?;
                Ok((name, to_state(&key, &row)?))
            })
            .collect()
    }
}

fn to_item(row: &[u8]) -> Result<Item, PoolError> {
    decode_item(row).map_err(|error| PoolError::Damaged(Arc::new(error)))
}

fn to_state(key: &[u8], row: &[u8]) -> Result<StreamState, PoolError> {
    rows::to_stream_state(key, row).ok_or_else(|| damaged("stream state"))
}

fn damaged(what: &'static str) -> PoolError {
    PoolError::Damaged(Arc::new(DamagedRow(what)))
}

/// fjall finds damage by its own checksums; what the system refuses is not damage.
fn read_failed(error: fjall::Error) -> PoolError {
    let failed_io = matches!(error, fjall::Error::Io(_));
    let cause = Arc::new(DatabaseError::from(error));
    if failed_io {
        PoolError::Backend(cause)
    } else {
        PoolError::Damaged(cause)
    }
}
