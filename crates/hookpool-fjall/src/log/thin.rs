//! Dropping events: their blocks are written again without them, some at a time, while the appender goes on.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound::{Excluded, Unbounded},
    path::Path,
    sync::{Arc, PoisonError},
};

use fjall::PersistMode;
use hookpool_core::{
    codec::Block,
    name::StreamName,
    position::{Epoch, Position},
};
use hookpool_store::{AppendError, Dropped};

use super::{Damage, FjallLog};
use crate::{
    database,
    folder::{self, Layout},
    keys::Key,
    rows::Ordinals,
    tables::Finding,
    tail::{check_block, index_of},
};

/// What one turn of the writer's lock may write, so that an append does not wait long for it: a sync, and this many bytes of blocks,
/// or one block.
const TURN_BYTES: usize = 1 << 20;
/// Also as few blocks as may be found torn at the end of a journal (`journal`).
pub(crate) const TURN_BLOCKS: usize = 64;

/// So many dropped bytes, and a quarter of the tables, are worth writing all tables of blocks anew. A log is then written at most four times more.
const RECLAIM_BYTES: u64 = 64 << 20;
const RECLAIM_SHARE: u64 = 4;

/// What whoever drops events needs.
#[derive(Debug)]
pub(super) struct Thinner {
    /// Bytes that were dropped and still lie in tables.
    garbage: u64,
}

impl Thinner {
    /// Of the log in a folder.
    pub(super) fn of(dir: &Path) -> Self {
        Self {
            garbage: folder::read_dropped(dir),
        }
    }
}

/// A block without some of its events, and what of the index changes with it.
struct Rewrite {
    block: Block,
    /// `None` where the block has no event of the stream any more.
    rows: BTreeMap<StreamName, Option<Ordinals>>,
    dropped: Dropped,
}

impl FjallLog {
    /// Drops the events at these positions.
    pub(super) fn thin(&self, positions: &BTreeSet<Position>) -> Result<Dropped, AppendError> {
        // A panic while it was held changed nothing that is not in the database.
        let thinner = self.thinner.lock();
        let mut thinner = thinner.unwrap_or_else(PoisonError::into_inner);
        let mut dropped = Dropped::default();
        let mut after = Position::ZERO;
        loop {
            // What was read stays true until it is written: nobody else changes these blocks.
            let some = self
                .rewrites(positions, &mut after)
                .map_err(|what| AppendError::Unknown(Arc::new(Damage(what))))?;
            if some.is_empty() {
                self.reclaim(&mut thinner, dropped.bytes)?;
                return Ok(dropped);
            }
            self.rewrite(&some)?;
            some.iter().for_each(|rewrite| dropped += rewrite.dropped);
        }
    }

    /// Gives dropped bytes back to the disk when they are many: fjall by itself merges tables of an ever growing log too seldom.
    ///
    /// Appends go on meanwhile. It can be broken off at any moment.
    fn reclaim(&self, thinner: &mut Thinner, dropped: u64) -> Result<(), AppendError> {
        if dropped == 0 {
            return Ok(());
        }
        thinner.garbage = thinner.garbage.saturating_add(dropped);
        let share = self.blocks.disk_space() / RECLAIM_SHARE;
        if thinner.garbage < share.max(RECLAIM_BYTES) {
            return self.note(thinner);
        }
        // What was written again must be in a table to replace what was there.
        self.blocks
            .rotate_memtable_and_wait()
            .and_then(|()| self.blocks.major_compact())
            .map_err(|error| AppendError::Unknown(database::cause(error)))?;
        thinner.garbage = 0;
        self.note(thinner)?;
        // What readers see next holds none of the old tables.
        let writer = self.writer()?;
        self.publish_view(writer.end());
        Ok(())
    }

    fn note(&self, thinner: &Thinner) -> Result<(), AppendError> {
        folder::write_dropped(&self.dir, thinner.garbage)
            .map_err(|error| AppendError::Unknown(Arc::new(error)))
    }

    /// The next blocks that lose events, as many as fit one turn; `after` moves behind them.
    fn rewrites(
        &self,
        positions: &BTreeSet<Position>,
        after: &mut Position,
    ) -> Result<Vec<Rewrite>, Finding> {
        let published = self.published.load_full();
        let mut rewrites = Vec::new();
        let mut bytes = 0;
        while rewrites.len() < TURN_BLOCKS && bytes < TURN_BYTES {
            let Some(next) = positions.range((Excluded(*after), Unbounded)).next() else {
                break;
            };
            let block = published.view.block_at(*next)?;
            let Some(block) = block.filter(|block| *next <= block.header().last()) else {
                // Before the first event or past the head.
                *after = *next;
                continue;
            };
            *after = block.header().last();
            if let Some(rewrite) = Rewrite::of(&block, positions, self.epoch)? {
                bytes += rewrite.block.len_bytes();
                rewrites.push(rewrite);
            }
        }
        Ok(rewrites)
    }

    /// IMPORTANT: before the first block that lost events is written, so that a program that does not know such blocks refuses the log by name.
    pub(super) fn allow_thinned(&self) -> Result<(), AppendError> {
        // A panic while it was held left one or the other.
        let mut layout = self.layout.lock().unwrap_or_else(PoisonError::into_inner);
        if *layout < Layout::Thinned {
            folder::write_format(&self.dir, Layout::Thinned, self.epoch)
                .map_err(|error| AppendError::Unknown(Arc::new(error)))?;
            *layout = Layout::Thinned;
        }
        Ok(())
    }

    /// Makes them durable, then shows them.
    fn rewrite(&self, rewrites: &[Rewrite]) -> Result<(), AppendError> {
        self.allow_thinned()?;
        let mut writer = self.writer()?;
        writer.attempt(|_| {
            for rewrite in rewrites {
                self.write_again(rewrite)?;
            }
            // IMPORTANT: still under the lock, so that nothing is appended behind what is not synced.
            self.database.persist(PersistMode::SyncData)
        })?;
        self.publish_view(writer.end());
        Ok(())
    }

    /// IMPORTANT: one block in one batch, with its index, and as its last item: a journal tells by that that it was not appended (`journal`).
    fn write_again(&self, Rewrite { block, rows, .. }: &Rewrite) -> Result<(), fjall::Error> {
        let first = block.header().first;
        let mut batch = self.database.batch();
        for (stream, ordinals) in rows {
            let key = Key::Stream(stream, first).encode();
            match ordinals {
                Some(ordinals) => batch.insert(&self.streams, key, ordinals.encode()),
                None => batch.remove(&self.streams, key),
            }
        }
        batch.insert(
            &self.blocks,
            Key::Block(first).encode(),
            block.bytes().clone(),
        );
        batch.commit()
    }
}

impl Rewrite {
    /// Of a block that has any of these events.
    fn of(
        block: &Block,
        positions: &BTreeSet<Position>,
        epoch: Epoch,
    ) -> Result<Option<Self>, Finding> {
        let before = check_block(block, epoch)?;
        let thinning = block.thin(positions).map_err(|error| error.to_string())?;
        let Some(thinning) = thinning else {
            return Ok(None);
        };
        let after = check_block(&thinning.block, epoch)?;
        let mut left = index_of(&thinning.block, &after);
        let mut rows = BTreeMap::new();
        for (stream, ordinals) in index_of(block, &before) {
            let left = left.remove(stream);
            if left.as_ref() != Some(&ordinals) {
                rows.insert(stream.clone(), left);
            }
        }
        Ok(Some(Self {
            block: thinning.block,
            rows,
            dropped: Dropped {
                events: thinning.events,
                bytes: thinning.bytes,
            },
        }))
    }
}
