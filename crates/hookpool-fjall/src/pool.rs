//! A pool in a folder: derived from the log, synced only before the log drops what it was derived from, deleted when in doubt.

use std::{
    cmp::Ordering,
    fmt,
    fs::File,
    iter,
    ops::Bound,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use fjall::{Database, Guard, Keyspace, OwnedWriteBatch, PersistMode, Readable as _, Snapshot};
use hookpool_core::{
    codec::{decode_history, decode_item, encode_history, encode_item},
    fold::{History, Item, Note},
    name::{ItemId, StreamName},
    position::{Generation, Position},
};
use hookpool_store::{
    Checkpoint, GenerationChanges, GenerationState, ItemPage, PoolChanges, PoolError, PoolSnapshot,
    PoolStore,
};
use thiserror::Error;

use crate::{
    database::{self, DatabaseError},
    error::OpenError,
    folder,
    keys::{
        GENERATION_PREFIX, Key, OF_GENERATION, POOL, SERVED_PREFIX, generation_of,
        generation_prefix, item_of, position_of, served_of,
    },
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
        Self::open_with_memtable(dir, database::MEMTABLE_BYTES)
    }

    /// The same with another size of what is kept in memory before it is written to a file; a small one makes files all the time.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with_memtable(dir: &Path, memtable_bytes: u64) -> Result<Self, OpenError> {
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
        let settings = database::Settings {
            memtable_bytes,
            ..database::Settings::default()
        };
        let (database, [rows]) =
            database::open(&db, [POOL], settings).map_err(|error| refused(error.to_string()))?;
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
    fn write(&self, changes: PoolChanges) -> Result<(), fjall::Error> {
        let mut batch = OwnedWriteBatch::with_capacity(self.database.clone(), rows_of(&changes))
            .durability(Some(PersistMode::Buffer));
        for (stream, generation) in &changes.served {
            let key = Key::Served(stream).encode();
            let row = rows::served(&key, *generation);
            batch.insert(&self.rows, key, row);
        }
        for changes in changes.generations {
            self.drop_history(&mut batch, &changes)?;
            self.write_generation(&mut batch, changes);
        }
        if let Some(checkpoint) = changes.checkpoint {
            let key = Key::Checkpoint.encode();
            let row = rows::checkpoint(&key, checkpoint);
            batch.insert(&self.rows, key, row);
        }
        batch.commit()
    }

    /// What is encoded is dropped at once: a large commit is not twice in memory.
    fn write_generation(&self, batch: &mut OwnedWriteBatch, changes: GenerationChanges) {
        let (stream, generation) = (&changes.stream, changes.generation);
        for (id, item) in changes.items {
            let key = Key::Item(stream, generation, &id).encode();
            if item.is_there() {
                self.insert(batch, &key, &encode_item(&item));
            } else {
                batch.remove(&self.rows, key);
                let key = Key::Tombstone(stream, generation, &id).encode();
                self.insert(batch, &key, &encode_item(&item));
            }
        }
        for (id, history) in changes.histories {
            let key = Key::History(stream, generation, &id, history.last()).encode();
            self.insert(batch, &key, &encode_history(&history));
        }
        for (position, note) in changes.notes {
            let key = match note {
                Note::Quarantined(_) => Key::Quarantined(stream, generation, position),
                Note::Superseded | Note::Absent | Note::Adjusted { .. } => {
                    Key::Note(stream, generation, position)
                }
            };
            let key = key.encode();
            let row = rows::note(&key, &note);
            self.insert(batch, &key, &row);
        }
        let key = Key::Generation(stream, generation).encode();
        let row = rows::generation_state(&key, changes.state);
        batch.insert(&self.rows, key, row);
    }

    /// Copies, since a list would be kept with all the room that it has left.
    fn insert(&self, batch: &mut OwnedWriteBatch, key: &[u8], row: &[u8]) {
        batch.insert(&self.rows, key, row);
    }

    /// Takes away a row that was read. Copies its key, which would keep the block in memory that it was read in.
    fn remove_row(&self, batch: &mut OwnedWriteBatch, key: &[u8]) {
        batch.remove(&self.rows, key);
    }

    /// Takes away what the retention of the stream no longer keeps.
    fn drop_history(
        &self,
        batch: &mut OwnedWriteBatch,
        changes: &GenerationChanges,
    ) -> Result<(), fjall::Error> {
        let (stream, generation) = (&changes.stream, changes.generation);
        let snapshot = self.database.snapshot();
        for (id, before) in &changes.dropped_histories {
            let key = |position| Key::History(stream, generation, id, position).encode();
            for row in snapshot.range(&self.rows, key(Position::ZERO)..key(*before)) {
                self.remove_row(batch, &row.key()?);
            }
        }
        for position in &changes.dropped_notes {
            for key in [Key::Note, Key::Quarantined] {
                let key = key(stream, generation, *position).encode();
                if snapshot.contains_key(&self.rows, &key)? {
                    batch.remove(&self.rows, key);
                }
            }
        }
        Ok(())
    }

    /// Removes rows in batches; a batch is what others wait for.
    fn remove_all(&self, prefix: &[u8]) -> Result<(), fjall::Error> {
        // Each batch begins where the one before ended: what was removed lies in the way until a compaction.
        let mut start = Bound::Included(prefix.to_vec());
        loop {
            let _writing = self.writing();
            let mut batch = self.database.batch().durability(Some(PersistMode::Buffer));
            let snapshot = self.database.snapshot();
            let rows = snapshot.range::<Vec<u8>, _>(&self.rows, (start.clone(), Bound::Unbounded));
            let mut removed = 0;
            for row in rows.take(REMOVED_AT_ONCE) {
                let key = row.key()?;
                if !key.starts_with(prefix) {
                    break;
                }
                start = Bound::Excluded(key.to_vec());
                self.remove_row(&mut batch, &key);
                removed += 1;
            }
            drop(snapshot);
            batch.commit()?;
            self.publish(None);
            if removed < REMOVED_AT_ONCE {
                return Ok(());
            }
        }
    }

    /// Waits until most of what was written is in files, so that large commits do not pile up in memory; fjall itself waits later, and counts
    /// commits and not bytes. Not for ever: whether fjall still writes is for the commit to find out.
    fn wait_for_room(&self) {
        for _ in 0..LOOKS_MAX {
            if self.database.write_buffer_size() <= UNWRITTEN_BYTES {
                break;
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Guards no data, only the order of publishing.
    fn writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows what was written, at this checkpoint or the same as before.
    ///
    /// IMPORTANT: after every write, since fjall keeps in memory what was written since the oldest snapshot.
    fn publish(&self, checkpoint: Option<Checkpoint>) {
        let checkpoint = checkpoint.or(self.published.load().checkpoint);
        self.published.store(Arc::new(FjallPoolSnapshot {
            rows: self.rows.clone(),
            snapshot: self.database.snapshot(),
            checkpoint,
        }));
    }
}

/// What may be in memory and in no file yet when a large commit begins; more than a memtable, since a smaller one stays in memory.
const UNWRITTEN_BYTES: u64 = 2 * database::MEMTABLE_BYTES;
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// About ten seconds.
const LOOKS_MAX: usize = 5_000;
/// Rows of a commit from which on it is large.
const LARGE_ROWS: usize = 8_192;

fn rows_of(changes: &PoolChanges) -> usize {
    let rows = |of: &GenerationChanges| of.items.len() + of.histories.len() + of.notes.len();
    changes.generations.iter().map(rows).sum()
}

/// Rows of a generation that are removed while others wait to write.
const REMOVED_AT_ONCE: usize = 4_096;

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
        let large = rows_of(&changes) >= LARGE_ROWS;
        if large {
            self.wait_for_room();
        }
        let _writing = self.writing();
        if large {
            // What has got into files since the last commit is then let go of.
            self.publish(None);
        }
        let checkpoint = changes.checkpoint;
        self.write(changes)
            .map_err(|error| PoolError::Backend(database::cause(error)))?;
        self.publish(checkpoint);
        Ok(())
    }

    fn sync(&self) -> Result<(), PoolError> {
        self.database
            .persist(PersistMode::SyncAll)
            .map_err(|error| PoolError::Backend(database::cause(error)))
    }

    fn remove(&self, stream: &StreamName, generation: Generation) -> Result<(), PoolError> {
        let failed = |error| PoolError::Backend(database::cause(error));
        if let Some(state) = self.snapshot().generation(stream, generation)? {
            let state = GenerationState {
                built: Some(Position::ZERO),
                ..state
            };
            self.commit(PoolChanges {
                generations: vec![GenerationChanges::empty(stream, generation, state)],
                ..PoolChanges::default()
            })?;
        }
        for sort in OF_GENERATION {
            let prefix = generation_prefix(sort, stream, generation);
            self.remove_all(&prefix).map_err(failed)?;
        }
        // Last, so that a removal that was broken off is seen and done again.
        self.remove_all(&Key::Generation(stream, generation).encode())
            .map_err(failed)
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

    fn item_row(&self, key: Key<'_>) -> Result<Option<Item>, PoolError> {
        let row = self.snapshot.get(&self.rows, key.encode());
        let row = row.map_err(read_failed)?;
        row.map(|row| to_item(&row)).transpose()
    }

    /// Items whose keys begin with a prefix, after an id.
    fn item_rows(
        &self,
        prefix: Vec<u8>,
        after: Option<&ItemId>,
    ) -> impl Iterator<Item = Result<(ItemId, Item), PoolError>> + use<> {
        let id = after.map_or("", ItemId::as_str);
        let start = [&prefix, id.as_bytes()].concat();
        let of_prefix = prefix.clone();
        self.snapshot
            .range::<Vec<u8>, _>(&self.rows, (Bound::Excluded(start), Bound::Unbounded))
            .map(|guard| guard.into_inner().map_err(read_failed))
            .take_while(move |row| {
                row.as_ref()
                    .map_or(true, |(key, _)| key.starts_with(&of_prefix))
            })
            .map(move |row| {
                let (key, row) = row?;
                let id = item_of(&key, &prefix).ok_or_else(|| damaged("item id"))?;
                Ok((id, to_item(&row)?))
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
        self.item_row(Key::Item(stream, generation, id))
    }

    fn tombstone(
        &self,
        stream: &StreamName,
        generation: Generation,
        id: &ItemId,
    ) -> Result<Option<Item>, PoolError> {
        // What a deleted item left behind counts no more once it is there again.
        match self.item(stream, generation, id)? {
            Some(_) => Ok(None),
            None => self.item_row(Key::Tombstone(stream, generation, id)),
        }
    }

    fn has_tombstones(
        &self,
        stream: &StreamName,
        generation: Generation,
    ) -> Result<bool, PoolError> {
        let prefix = generation_prefix(b't', stream, generation);
        let mut rows = self.snapshot.prefix(&self.rows, prefix);
        let first = rows.next().map(Guard::key).transpose();
        Ok(first.map_err(read_failed)?.is_some())
    }

    fn touched(
        &self,
        stream: &StreamName,
        generation: Generation,
        id: &ItemId,
    ) -> Result<Option<Item>, PoolError> {
        match self.item(stream, generation, id)? {
            Some(item) => Ok(Some(item)),
            None => self.item_row(Key::Tombstone(stream, generation, id)),
        }
    }

    fn items(
        &self,
        stream: &StreamName,
        generation: Generation,
        after: Option<&ItemId>,
        limit: usize,
        bytes_max: usize,
    ) -> Result<ItemPage, PoolError> {
        let prefix = generation_prefix(b'i', stream, generation);
        ItemPage::collect(self.item_rows(prefix, after), limit, bytes_max)
    }

    fn touched_items(
        &self,
        stream: &StreamName,
        generation: Generation,
        after: Option<&ItemId>,
        limit: usize,
        bytes_max: usize,
    ) -> Result<ItemPage, PoolError> {
        let rows = |sort| {
            let prefix = generation_prefix(sort, stream, generation);
            self.item_rows(prefix, after).peekable()
        };
        let (mut there, mut deleted) = (rows(b'i'), rows(b't'));
        let merged = iter::from_fn(|| {
            let order = match (there.peek(), deleted.peek()) {
                (Some(Ok((there, _))), Some(Ok((deleted, _)))) => there.cmp(deleted),
                (None, Some(_)) | (_, Some(Err(_))) => Ordering::Greater,
                (_, None) | (Some(Err(_)), _) => Ordering::Less,
            };
            if order.is_eq() {
                // It came back.
                deleted.next();
            }
            if order.is_gt() {
                deleted.next()
            } else {
                there.next()
            }
        });
        ItemPage::collect(merged, limit, bytes_max)
    }

    fn history_until(
        &self,
        stream: &StreamName,
        generation: Generation,
        id: &ItemId,
        until: Position,
    ) -> Result<Option<History>, PoolError> {
        let key = |position| Key::History(stream, generation, id, position).encode();
        let mut range = self
            .snapshot
            .range(&self.rows, key(Position::ZERO)..=key(until));
        range.next_back().map(to_history).transpose()
    }

    fn history_after(
        &self,
        stream: &StreamName,
        generation: Generation,
        id: &ItemId,
        after: Position,
    ) -> Result<Option<History>, PoolError> {
        let key = |position| Key::History(stream, generation, id, position).encode();
        let after = key(after.plus(1));
        let mut range = self
            .snapshot
            .range(&self.rows, after..=key(Position(u64::MAX)));
        range.next().map(to_history).transpose()
    }

    fn notes(
        &self,
        stream: &StreamName,
        generation: Generation,
        after: Position,
        until: Position,
    ) -> Result<Vec<(Position, Note)>, PoolError> {
        let sorts = [Key::Note, Key::Quarantined];
        let notes = sorts.into_iter().flat_map(|key| {
            let key = |position| key(stream, generation, position).encode();
            let range = key(after.plus(1))..=key(until);
            self.snapshot.range(&self.rows, range).map(to_note)
        });
        let mut notes = notes.collect::<Result<Vec<_>, _>>()?;
        notes.sort_by_key(|(position, _)| *position);
        Ok(notes)
    }

    fn quarantined(
        &self,
        stream: &StreamName,
        generation: Generation,
        after: Position,
        limit: usize,
    ) -> Result<Vec<(Position, Note)>, PoolError> {
        let key = |position| Key::Quarantined(stream, generation, position).encode();
        let range = key(after.plus(1))..=key(Position(u64::MAX));
        let rows = self.snapshot.range(&self.rows, range).take(limit);
        rows.map(to_note).collect()
    }

    fn served(&self, stream: &StreamName) -> Result<Option<Generation>, PoolError> {
        let key = Key::Served(stream).encode();
        let row = self.snapshot.get(&self.rows, &key).map_err(read_failed)?;
        row.map(|row| to_served(&key, &row)).transpose()
    }

    fn streams(&self) -> Result<Vec<(StreamName, Generation)>, PoolError> {
        let rows = self.snapshot.prefix(&self.rows, SERVED_PREFIX);
        rows.map(|guard| {
            let (key, row) = guard.into_inner().map_err(read_failed)?;
            let name = served_of(&key).ok_or_else(|| damaged("stream name"))?;
            Ok((name, to_served(&key, &row)?))
        })
        .collect()
    }

    fn generation(
        &self,
        stream: &StreamName,
        generation: Generation,
    ) -> Result<Option<GenerationState>, PoolError> {
        let key = Key::Generation(stream, generation).encode();
        let row = self.snapshot.get(&self.rows, &key).map_err(read_failed)?;
        let state = row.map(|row| {
            rows::to_generation_state(&key, &row).ok_or_else(|| damaged("generation state"))
        });
        state.transpose()
    }

    fn generations(&self) -> Result<Vec<(StreamName, Generation)>, PoolError> {
        let rows = self.snapshot.prefix(&self.rows, GENERATION_PREFIX);
        rows.map(|guard| {
            let key = guard.key().map_err(read_failed)?;
            generation_of(&key).ok_or_else(|| damaged("generation"))
        })
        .collect()
    }
}

fn to_item(row: &[u8]) -> Result<Item, PoolError> {
    decode_item(row).map_err(|error| PoolError::Damaged(Arc::new(error)))
}

fn to_history(guard: Guard) -> Result<History, PoolError> {
    let row = guard.value().map_err(read_failed)?;
    decode_history(&row).map_err(|error| PoolError::Damaged(Arc::new(error)))
}

fn to_note(guard: Guard) -> Result<(Position, Note), PoolError> {
    let (key, row) = guard.into_inner().map_err(read_failed)?;
    let position = position_of(&key).ok_or_else(|| damaged("position"))?;
    let note = rows::to_note(&key, &row).ok_or_else(|| damaged("note"))?;
    Ok((position, note))
}

fn to_served(key: &[u8], row: &[u8]) -> Result<Generation, PoolError> {
    rows::to_served(key, row).ok_or_else(|| damaged("stream"))
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
