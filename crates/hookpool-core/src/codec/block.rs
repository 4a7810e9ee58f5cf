//! A block: the events of one commit in one envelope. The unit that is written, synced, chained and checked.

mod entry;
#[cfg(test)]
pub(super) mod tests;
mod thin;

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

pub use entry::event_crc;
use entry::{CRC_BYTES, Entry, Names, encode_entry};
pub use thin::{THINNED_HEADER_BYTES, Thinned, Thinning, encode_thinned, thinned_crc};

use crate::{
    event::{Event, NewEvent},
    position::{Epoch, Position},
};

/// First bytes of every block; also what a search of a raw journal looks for.
pub const MAGIC: [u8; 4] = *b"HKPL";
/// The format of a block as a commit writes it. Every format ever written stays readable.
pub const FORMAT_VERSION: u8 = 1;
/// The format of a block that lost events.
pub const THINNED_VERSION: u8 = 2;
/// Bytes that every format begins with; a block of format 1 has its first entry behind them.
pub const HEADER_BYTES: usize = 68;

/// SHA-256 of a whole block. Each block holds that of the one before it, the first one zeros.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Digest(pub [u8; 32]);

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&const_hex::encode(self.0))
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// Why bytes are not a block of this log.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BlockError {
    /// A newer Hookpool wrote it.
    #[error("read a block of format {0}; this program knows formats up to {THINNED_VERSION}")]
    NewerFormat(u8),
    /// The header is cut, or its checksum is wrong.
    #[error("read a block: its header is damaged")]
    Header,
    /// The length does not fit, or the checksum of this event is wrong.
    #[error("read the event at position {0}: it is damaged")]
    Entry(Position),
}

/// What a block says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockHeader {
    /// Of the log.
    pub epoch: Epoch,
    /// Of its first event as it was committed; the others followed without gaps.
    pub first: Position,
    /// Number of events as it was committed, at least one.
    pub count: u32,
    /// Bytes that follow.
    pub length: u32,
    /// Digest of the block before.
    pub previous: Digest,
    /// What became of it since.
    pub thinned: Option<Thinned>,
}

impl BlockHeader {
    /// Position of the last event.
    #[must_use]
    pub fn last(&self) -> Position {
        Position(self.first.0 + u64::from(self.count) - 1)
    }

    fn encode(&self) -> Vec<u8> {
        let version = match self.thinned {
            None => FORMAT_VERSION,
            Some(_) => THINNED_VERSION,
        };
        let mut header = [
            &MAGIC[..],
            &[version, 0, 0, 0],
            &self.epoch.0.to_le_bytes(),
            &self.first.0.to_le_bytes(),
            &self.count.to_le_bytes(),
            &self.length.to_le_bytes(),
            &self.previous.0,
        ]
        .concat();
        header.extend_from_slice(&crc32fast::hash(&header).to_le_bytes());
        if let Some(thinned) = &self.thinned {
            thinned.encode(&mut header);
        }
        header
    }

    /// Reads the header of the block that begins with these bytes.
    ///
    /// # Errors
    /// [`BlockError`]
    pub fn of(bytes: &[u8]) -> Result<Self, BlockError> {
        let (version, mut header) = Self::decode_start(bytes)?;
        if version == THINNED_VERSION {
            header.thinned = Some(Thinned::decode(bytes, &header).ok_or(BlockError::Header)?);
        }
        Ok(header)
    }

    fn decode_start(bytes: &[u8]) -> Result<(u8, Self), BlockError> {
        let mut reader = Reader(bytes.get(..HEADER_BYTES).ok_or(BlockError::Header)?);
        let checked = bytes.get(..HEADER_BYTES - 4).ok_or(BlockError::Header)?;
        let mut parse = || {
            let magic: [u8; 4] = reader.array()?;
            let [version, _, _, _] = reader.array::<4>()?;
            let header = Self {
                epoch: Epoch(u64::from_le_bytes(reader.array()?)),
                first: Position(u64::from_le_bytes(reader.array()?)),
                count: u32::from_le_bytes(reader.array()?),
                length: u32::from_le_bytes(reader.array()?),
                previous: Digest(reader.array()?),
                thinned: None,
            };
            let intact = reader.array() == Some(crc32fast::hash(checked).to_le_bytes());
            let sane = magic == MAGIC && header.count > 0 && header.first > Position::ZERO;
            (intact && sane).then_some((version, header))
        };
        match parse() {
            Some((version, header)) if version <= THINNED_VERSION => Ok((version, header)),
            Some((version, _)) => Err(BlockError::NewerFormat(version)),
            None => Err(BlockError::Header),
        }
    }

    /// Bytes before the first entry.
    fn header_bytes(&self) -> usize {
        match self.thinned {
            None => HEADER_BYTES,
            Some(_) => THINNED_HEADER_BYTES,
        }
    }

    /// Bytes of the whole block.
    fn block_bytes(&self) -> Option<usize> {
        HEADER_BYTES.checked_add(usize::try_from(self.length).ok()?)
    }
}

/// A block ready to be written.
#[derive(Debug)]
pub struct EncodedBlock {
    /// All of it.
    pub bytes: Vec<u8>,
    /// Of the bytes, or, of a thinned block, of what they were.
    pub digest: Digest,
    /// Of its last event.
    pub last: Position,
}

/// Encodes a commit. The events get the positions from `first` on, without gaps.
///
/// # Panics
/// On an empty batch, or one over 4 GiB: both are bugs of the appender, which forms batches under a limit.
#[must_use]
pub fn encode_block<'a>(
    epoch: Epoch,
    first: Position,
    previous: Digest,
    events: impl Iterator<Item = &'a NewEvent>,
) -> EncodedBlock {
    let mut bytes = vec![0; HEADER_BYTES];
    let mut count = 0;
    for event in events {
        encode_entry(first.plus(u64::from(count)), event, &mut bytes);
        count += 1;
    }
    assert!(count > 0, "a block has events");
    let length = u32::try_from(bytes.len() - HEADER_BYTES).expect("a batch is under 4 GiB");
    let header = BlockHeader {
        epoch,
        first,
        count,
        length,
        previous,
        thinned: None,
    };
    bytes
        .iter_mut()
        .zip(header.encode())
        .for_each(|(to, from)| *to = from);
    let digest = Digest(Sha256::digest(&bytes).into());
    EncodedBlock {
        bytes,
        digest,
        last: header.last(),
    }
}

/// A block that was read back. The header is checked; each event is checked as it is read.
#[derive(Debug, Clone)]
pub struct Block {
    header: BlockHeader,
    bytes: Bytes,
}

impl Block {
    /// Checks the header and that the length fits.
    ///
    /// # Errors
    /// [`BlockError`]
    pub fn parse(bytes: Bytes) -> Result<Self, BlockError> {
        let header = BlockHeader::of(&bytes)?;
        if header.block_bytes() == Some(bytes.len()) {
            Ok(Self { header, bytes })
        } else {
            Err(BlockError::Entry(header.first))
        }
    }

    /// What it says of itself.
    #[must_use]
    pub fn header(&self) -> &BlockHeader {
        &self.header
    }

    /// SHA-256 over all of it as it was committed: what the next block names.
    #[must_use]
    pub fn digest(&self) -> Digest {
        match &self.header.thinned {
            None => Digest(Sha256::digest(&self.bytes).into()),
            Some(thinned) => thinned.digest,
        }
    }

    /// Number of its events that are there.
    #[must_use]
    pub fn events_kept(&self) -> u32 {
        self.header
            .thinned
            .map_or(self.header.count, |thinned| thinned.kept)
    }

    /// Takes the first block off bytes that may go on; `None` as long as it is not whole.
    ///
    /// # Errors
    /// [`BlockError`] if there is none.
    pub fn split_off(stream: &mut BytesMut) -> Result<Option<Self>, BlockError> {
        if stream.len() < HEADER_BYTES {
            return Ok(None);
        }
        let (_, header) = BlockHeader::decode_start(stream)?;
        let end = header.block_bytes().ok_or(BlockError::Header)?;
        if stream.len() < end {
            return Ok(None);
        }
        Self::parse(stream.split_to(end).freeze()).map(Some)
    }

    /// All of it.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Size in bytes.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Its events in order, each checked; the first damaged one ends it with an error.
    pub fn events(&self) -> impl Iterator<Item = Result<Event, BlockError>> + '_ {
        self.events_from(self.header.first)
    }

    /// Its events from a position on; those before it are passed over unread.
    pub fn events_from(
        &self,
        from: Position,
    ) -> impl Iterator<Item = Result<Event, BlockError>> + '_ {
        self.events_within(from..Position(u64::MAX))
    }

    /// Its events from a position on and before another; the others are passed over unread.
    pub fn events_within(
        &self,
        Range { start, end }: Range<Position>,
    ) -> impl Iterator<Item = Result<Event, BlockError>> + '_ {
        let mut entries = Entries::of(self);
        let mut names = Names::default();
        // An ordinal that was changed must not hide its event.
        let unread = self.header.thinned.is_none();
        let passed_over = move |position, entry: &Entry<'_>| {
            position < start && (unread || entry.is_intact(position))
        };
        std::iter::from_fn(move || {
            loop {
                let (position, entry) = match entries.next()? {
                    Ok(entry) => entry,
                    Err(error) => return Some(Err(error)),
                };
                if position >= end {
                    return None;
                }
                if passed_over(position, &entry) {
                    continue;
                }
                let event = entry.decode(&self.bytes, position, &mut names);
                entries.failed = event.is_none();
                return Some(event.ok_or(BlockError::Entry(position)));
            }
        })
    }
}

/// The entries of a block as they lie in it; the first one that can't lie there ends it with an error.
struct Entries<'a> {
    block: &'a Block,
    at: usize,
    left: u32,
    /// The next entry has this position, or in a thinned block a greater one.
    next: Position,
    failed: bool,
}

impl<'a> Entries<'a> {
    fn of(block: &'a Block) -> Self {
        Self {
            block,
            at: block.header.header_bytes(),
            left: block.events_kept(),
            next: block.header.first,
            failed: false,
        }
    }

    fn read(&mut self) -> Option<(Position, Entry<'a>)> {
        let Block { header, bytes } = self.block;
        if header.thinned.is_some() {
            let mut reader = Reader(bytes.get(self.at..)?);
            let ordinal = u32::from_le_bytes(reader.array()?);
            let position = header.first.plus(ordinal.into());
            if position < self.next || position > header.last() {
                return None;
            }
            self.at += thin::ORDINAL_BYTES;
            self.next = position;
        }
        let position = self.next;
        let entry = Entry::read(bytes, &mut self.at)?;
        self.next = position.plus(1);
        Some((position, entry))
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<(Position, Entry<'a>), BlockError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        if let Some(left) = self.left.checked_sub(1) {
            self.left = left;
            let entry = self.read();
            self.failed = entry.is_none();
            return Some(entry.ok_or(BlockError::Entry(self.next)));
        }
        // Bytes behind the last event are not ours: the length of an entry was changed.
        self.failed = true;
        (self.at != self.block.bytes.len())
            .then(|| Err(BlockError::Entry(self.block.header.last())))
    }
}

/// Headers of the intact blocks that lie anywhere in raw bytes, such as a journal file.
pub fn find_blocks(raw: &Bytes) -> impl Iterator<Item = BlockHeader> + '_ {
    blocks_in(raw)
        .filter(|block| block.events().all(|event| event.is_ok()))
        .map(|block| block.header)
}

/// The first damaged position among blocks that lie in raw bytes in order, such as a table file, where that can be seen.
#[must_use]
pub fn find_damage(raw: &Bytes) -> Option<Position> {
    // Behind the block before, if it is whole: thinned ones lie alone where they were written again.
    let mut next = None;
    for block in blocks_in(raw) {
        let BlockHeader { first, thinned, .. } = block.header;
        let whole = thinned.is_none();
        if let Some(missing) = next.filter(|next| whole && *next < first) {
            return Some(missing);
        }
        if let Some(BlockError::Entry(position)) = block.events().find_map(Result::err) {
            return Some(position);
        }
        next = whole
            .then(|| next.max(Some(block.header.last().plus(1))))
            .flatten();
    }
    None
}

/// Blocks by their headers, which are intact.
fn blocks_in(raw: &Bytes) -> impl Iterator<Item = Block> + '_ {
    memchr::memmem::find_iter(raw, &MAGIC).filter_map(|at| {
        let header = BlockHeader::of(raw.get(at..)?).ok()?;
        let end = at.checked_add(header.block_bytes()?)?;
        let bytes = (end <= raw.len()).then(|| raw.slice(at..end))?;
        Some(Block { header, bytes })
    })
}

/// Takes fixed pieces off the front of a slice.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }
}
