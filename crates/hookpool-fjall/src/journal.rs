//! Reads fjall's journals before fjall does, and strictly.
//!
//! fjall 3.1.13 takes the first thing it can't read for the torn end of the last batch, cuts the file there, and starts. Then a
//! flipped bit has silently dropped every later event. Here the end of what can be read must be proved to be a torn, never
//! acknowledged batch before anything is cut, and what is cut is saved first.
//!
//! A batch of the appender begins with its block. One that writes a block again without dropped events ends with it; that moves no head,
//! and when it is torn, nobody was told that the events are gone. `docs/storage.md` has why what is cut holds no other event.

use std::{
    fs::{self, OpenOptions},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use hookpool_core::{
    codec::{Block, BlockHeader, MAGIC, THINNED_HEADER_BYTES, find_blocks},
    position::{Epoch, Position},
};
use hookpool_store::LogEnd;
use xxhash_rust::xxh3::xxh3_64;

use crate::{folder, keys, log::TURN_BLOCKS, tables::Finding, witness::Witness};

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const END_MAGIC: [u8; 4] = *b"FJL\x03";
/// Bytes of the key of a block.
const KEY_BYTES: usize = 8;
/// Bytes of an item before its key: tag, kind, compression, keyspace(8), lengths of key(2) and value(4) and stored value(4).
const ITEM_HEADER_BYTES: usize = 21;
/// Bytes of a batch before its first item.
const BATCH_START_BYTES: usize = 13;
/// Bytes of a batch before its first key.
const FIRST_KEY_AT: usize = BATCH_START_BYTES + ITEM_HEADER_BYTES;
/// fjall's number of `streams`, the second keyspace that a log makes; that of `blocks` is 1, two flipped bits away.
const STREAMS_KEYSPACE: u64 = 2;
/// A block is a batch of the appender, far smaller; bounds what a damaged length can make us allocate.
const BLOCK_BYTES_MAX: usize = 1 << 28;

/// Why the journals can't be used.
#[derive(Debug)]
pub(crate) enum JournalError {
    /// Bytes before the end are damaged; `readable` is the end that can be kept if the rest is given up.
    Damaged {
        what: Finding,
        /// Everything in the journals up to here is intact, and what is in the tables is before it.
        after: Position,
        readable: Option<LogEnd>,
    },
    /// Their last block ends before what was durable.
    Shorter { end: LogEnd, durable: Position },
    /// The system failed.
    Io(std::io::Error),
}

impl From<std::io::Error> for JournalError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

/// Checks all journals in `dir`'s database against the end that was durable at least, and cuts off a torn end.
///
/// An operator may accept that the log ends where the journals can't be read any more.
pub(crate) fn check(
    dir: &Path,
    epoch: Epoch,
    durable: Position,
    accepted: Option<&Witness>,
) -> Result<(), JournalError> {
    let paths = journals(&folder::db(dir))?;
    let mut reader = Reader {
        epoch,
        durable,
        accepted: accepted.map(|end| end.head),
        last: None,
    };
    for (at, path) in paths.iter().enumerate() {
        let raw = Bytes::from(fs::read(path)?);
        let active = at + 1 == paths.len();
        if let Some(cut) = reader.read(&raw, path, active)? {
            cut.make(dir, path, &raw)?;
        }
    }
    Ok(())
}

/// The journals, oldest first.
fn journals(db: &Path) -> Result<Vec<PathBuf>, JournalError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(db)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "jnl") {
            let number: Option<u64> = path
                .file_stem()
                .and_then(|stem| stem.to_str()?.parse().ok());
            let number = number.ok_or_else(|| {
                lost(format!("`{}` is not the name of a journal", path.display()))
            })?;
            found.push((number, path));
        }
    }
    // fjall always has one; without, it begins to count anew, and what is in its tables is invisible.
    if found.is_empty() {
        return Err(lost("the journals are missing".into()));
    }
    found.sort_unstable();
    let gap = found
        .windows(2)
        .any(|pair| matches!(pair, [(a, _), (b, _)] if a + 1 != *b));
    if gap {
        return Err(lost("a journal is missing".into()));
    }
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// Damage with nothing to keep.
fn lost(what: Finding) -> JournalError {
    JournalError::Damaged {
        what,
        after: Position::ZERO,
        readable: None,
    }
}

/// Where a torn end begins and what is behind it.
#[derive(Debug, PartialEq, Eq)]
struct Cut {
    at: usize,
    end: usize,
}

impl Cut {
    /// IMPORTANT: saved and durable before it is cut.
    fn make(&self, dir: &Path, path: &Path, raw: &Bytes) -> std::io::Result<()> {
        folder::save_torn(dir, raw.get(self.at..self.end).unwrap_or_default())?;
        let file = OpenOptions::new().write(true).open(path)?;
        file.set_len(self.at as u64)?;
        file.sync_all()
    }
}

/// Reads the journals of one database, oldest first.
struct Reader {
    epoch: Epoch,
    durable: Position,
    accepted: Option<Position>,
    /// The last one that was appended in an intact batch.
    last: Option<Block>,
}

/// An intact batch.
struct Batch {
    sequence_number: u64,
    end: usize,
    appended: Option<Block>,
}

/// A block as a torn end has it: appended, or written again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TornBlock {
    Appended(BlockHeader),
    WrittenAgain(BlockHeader),
}

impl Reader {
    fn read(
        &mut self,
        raw: &Bytes,
        path: &Path,
        active: bool,
    ) -> Result<Option<Cut>, JournalError> {
        let mut at = 0;
        let mut sequence_number = None;
        while let Some(batch) = batch(raw, at, self.epoch)
            .filter(|batch| sequence_number.is_none_or(|last| batch.sequence_number > last))
        {
            at = batch.end;
            sequence_number = Some(batch.sequence_number);
            self.last = batch.appended.or_else(|| self.last.take());
        }
        let end = at + used_bytes(raw.get(at..).unwrap_or_default());
        let torn = end > at;
        if torn && !(active && (self.is_accepted() || self.may_be_dropped(&raw.slice(at..end)))) {
            let what = format!(
                "`{}` is damaged at byte {at}, before events that were durable",
                path.display()
            );
            let first = || first_position(&raw.slice(at..end));
            let before = || first().map(|first| Position(first.0.saturating_sub(1)));
            let after = self.head().or_else(before).unwrap_or_default();
            let readable = self.last.as_ref().filter(|_| active).map(end_of);
            return Err(JournalError::Damaged {
                what,
                after,
                readable,
            });
        }
        match &self.last {
            Some(last) if active && last.header().last() < self.durable => {
                Err(JournalError::Shorter {
                    end: end_of(last),
                    durable: self.durable,
                })
            }
            _ => Ok(torn.then_some(Cut { at, end })),
        }
    }

    fn head(&self) -> Option<Position> {
        self.last.as_ref().map(|block| block.header().last())
    }

    fn is_accepted(&self) -> bool {
        self.accepted.is_some() && self.accepted == self.head()
    }

    /// Whether this can be the end of what nobody was told of: at most one appended block, the next one, not yet witnessed; or blocks
    /// that were being written again, no more than are synced at once.
    fn may_be_dropped(&self, torn: &Bytes) -> bool {
        let (block, rest) = torn_block(torn);
        let rest = torn.slice(rest..);
        let others = find_blocks(&rest)
            .filter(|header| header.epoch == self.epoch)
            // Only its batch says more of a block that lost events.
            .map(|header| match header.thinned {
                None => TornBlock::Appended(header),
                Some(_) => TornBlock::WrittenAgain(header),
            });
        let blocks: Vec<_> = block.into_iter().chain(others).collect();
        match blocks.as_slice() {
            [TornBlock::Appended(block)] => self.may_be_next(block),
            // Perhaps appended to a copy.
            [TornBlock::WrittenAgain(block)] if self.may_be_next(block) => true,
            blocks => {
                let lies_in_the_log = |block: &TornBlock| match block {
                    TornBlock::Appended(_) => false,
                    TornBlock::WrittenAgain(block) => self.may_hold(block),
                };
                let one_turn = blocks.len() <= TURN_BLOCKS && blocks.iter().all(lies_in_the_log);
                one_turn && (blocks.is_empty() || begins_without_block(torn))
            }
        }
    }

    fn may_be_next(&self, block: &BlockHeader) -> bool {
        block.first > self.durable && self.head().is_none_or(|head| block.first == head.plus(1))
    }

    /// Whether the log without the torn end has a block there.
    fn may_hold(&self, block: &BlockHeader) -> bool {
        self.head().is_none_or(|head| block.last() <= head)
    }
}

fn end_of(block: &Block) -> LogEnd {
    LogEnd {
        head: block.header().last(),
        digest: block.digest(),
    }
}

/// The block of the first batch of a torn end, if its header and the batch agree on its length, and where the bytes after it begin.
///
/// Two witnesses of that length are needed: a flipped length must not hide the blocks behind it, and a body that holds the bytes
/// of a block must not be taken for one.
fn torn_block(torn: &Bytes) -> (Option<TornBlock>, usize) {
    let framed = || {
        let mut at = 0;
        let (items, _) = start(torn, &mut at)?;
        for item in 0..items {
            let length = item_header(torn, &mut at)?.value_bytes;
            if torn.get(at..)?.starts_with(&MAGIC) {
                let header = torn_header(torn.get(at..)?, length)?;
                let block = match item {
                    0 => TornBlock::Appended(header),
                    _ => TornBlock::WrittenAgain(header),
                };
                return Some((block, at + length));
            }
            at = at.checked_add(length)?;
        }
        None
    };
    match framed() {
        Some((block, end)) => (Some(block), end.min(torn.len())),
        None => (None, 0),
    }
}

/// Whether a torn end begins with a batch that was not appended, or its beginning was lost with the sector it was in.
///
/// A commit that a flipped bit damaged begins otherwise, and must not be cut with the blocks that were written again behind it.
fn begins_without_block(torn: &Bytes) -> bool {
    let mut at = 0;
    let framed = start(torn, &mut at).and_then(|_| item_header(torn, &mut at));
    if framed.is_some_and(|item| item.keyspace == STREAMS_KEYSPACE) {
        return true;
    }
    // No beginning of a commit has so many zeros in a row.
    let lost = |from: usize| {
        let rest = torn.get(from..).unwrap_or_default();
        rest.iter().take(FIRST_KEY_AT).all(|byte| *byte == 0)
    };
    (0..FIRST_KEY_AT).any(lost)
}

/// The header of a block of this length that begins here, whatever became of its entries.
fn torn_header(torn: &[u8], length: usize) -> Option<BlockHeader> {
    let length = Some(length).filter(|bytes| *bytes <= BLOCK_BYTES_MAX)?;
    let header = torn.get(..THINNED_HEADER_BYTES.min(torn.len()).min(length))?;
    let mut bytes = vec![0; length];
    bytes.get_mut(..header.len())?.copy_from_slice(header);
    Block::parse(bytes.into()).ok().map(|block| *block.header())
}

/// Where the block of the commit begins that begins here, by its header or by its key: one flipped byte leaves one of them.
fn first_position(torn: &Bytes) -> Option<Position> {
    if begins_without_block(torn) {
        return None;
    }
    let (before, block) = torn.split_at_checked(FIRST_KEY_AT + KEY_BYTES)?;
    match BlockHeader::of(block) {
        Ok(header) => Some(header.first),
        Err(_) => keys::block_of(before.get(before.len() - KEY_BYTES..)?),
    }
}

/// Reads the batch that begins here: start, items, end, and a checksum over the items.
fn batch(raw: &Bytes, mut at: usize, epoch: Epoch) -> Option<Batch> {
    let (items, sequence_number) = start(raw, &mut at)?;
    let items_at = at;
    let mut appended = None;
    for item_at in 0..items {
        let item = item_header(raw, &mut at)?;
        let value = raw.get(at..at.checked_add(item.value_bytes)?)?;
        if value.starts_with(&MAGIC) {
            let block = Block::parse(raw.slice(at..at + value.len())).ok()?;
            if block.header().epoch != epoch {
                return None;
            }
            appended = Some(block).filter(|_| item_at == 0);
        }
        at += item.value_bytes;
    }
    let checksum = xxh3_64(raw.get(items_at..at)?);
    let (&tag, end) = raw.get(at..at + 13)?.split_first()?;
    let (stored, magic) = end.split_first_chunk()?;
    let intact = tag == END && u64::from_le_bytes(*stored) == checksum && *magic == END_MAGIC;
    intact.then_some(Batch {
        sequence_number,
        end: at + 13,
        appended,
    })
}

/// Number of items and sequence number.
fn start(raw: &Bytes, at: &mut usize) -> Option<(u32, u64)> {
    let (&tag, fields) = raw.get(*at..*at + BATCH_START_BYTES)?.split_first()?;
    let (items, sequence_number) = fields.split_first_chunk()?;
    *at += BATCH_START_BYTES;
    let sequence_number = u64::from_le_bytes(sequence_number.try_into().ok()?);
    (tag == START).then_some((u32::from_le_bytes(*items), sequence_number))
}

/// A journal is made 64 MiB long; behind what was written there are zeros.
fn used_bytes(raw: &[u8]) -> usize {
    const ZEROS: [u8; 4096] = [0; 4096];
    let used = |chunk: &[u8]| chunk != ZEROS.get(..chunk.len()).unwrap_or_default();
    raw.chunks(ZEROS.len())
        .rposition(used)
        .map_or(0, |last| (last + 1) * ZEROS.len())
        .min(raw.len())
}

struct ItemHeader {
    keyspace: u64,
    value_bytes: usize,
}

/// Reads up to where the value begins.
fn item_header(raw: &Bytes, at: &mut usize) -> Option<ItemHeader> {
    let header = raw.get(*at..at.checked_add(ITEM_HEADER_BYTES)?)?;
    let (start, lengths) = header.split_first_chunk::<11>()?;
    let (key_bytes, lengths) = lengths.split_first_chunk::<2>()?;
    let (value_bytes, stored_bytes) = lengths.split_first_chunk::<4>()?;
    let plain = value_bytes == stored_bytes && start.get(2) == Some(&0);
    let key_bytes = usize::from(u16::from_le_bytes(*key_bytes));
    *at = at.checked_add(ITEM_HEADER_BYTES + key_bytes)?;
    let (_, keyspace) = start.split_last_chunk()?;
    (plain && start.first() == Some(&ITEM)).then_some(ItemHeader {
        keyspace: u64::from_le_bytes(*keyspace),
        value_bytes: usize::try_from(u32::from_le_bytes(*value_bytes)).ok()?,
    })
}
