//! Format 2: a block that lost events. It keeps its place, its link to the block before and its digest, so that the chain stays what it was.
//!
//! What it holds is proved by its checksums only: of the bytes that its digest was made of, some are gone.

use std::collections::BTreeSet;

use super::{
    Block, BlockError, BlockHeader, Digest, EncodedBlock, Entries, Entry, Reader, encode_entry,
};
use crate::{
    event::Event,
    position::{Epoch, Position},
};

/// Bytes before the first entry of a block that lost events.
pub const THINNED_HEADER_BYTES: usize = super::HEADER_BYTES + EXTENSION_BYTES;
/// Of `kept(4) digest(32) crc(4)`, which follow what every format begins with.
const EXTENSION_BYTES: usize = 40;
/// Before each entry.
pub(super) const ORDINAL_BYTES: usize = 4;

/// What a block says that lost events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thinned {
    /// Number of events that are there; fewer than were committed, perhaps none.
    pub kept: u32,
    /// SHA-256 of the block as it was committed.
    pub digest: Digest,
}

impl Thinned {
    /// Behind what every format begins with: `kept(4) digest(32) crc(4)`.
    pub(super) fn encode(&self, header: &mut Vec<u8>) {
        header.extend_from_slice(&self.kept.to_le_bytes());
        header.extend_from_slice(&self.digest.0);
        header.extend_from_slice(&crc(header).to_le_bytes());
    }

    /// Of a block that begins with these bytes, and so with this header.
    pub(super) fn decode(bytes: &[u8], header: &BlockHeader) -> Option<Self> {
        let checked = bytes.get(..THINNED_HEADER_BYTES - 4)?;
        let mut reader = Reader(bytes.get(super::HEADER_BYTES..THINNED_HEADER_BYTES)?);
        let thinned = Self {
            kept: u32::from_le_bytes(reader.array()?),
            digest: Digest(reader.array()?),
        };
        let intact = reader.array() == Some(crc(checked).to_le_bytes());
        (intact && thinned.kept < header.count).then_some(thinned)
    }
}

/// Over all of the header before it but the other checksum: one that runs over the checksum of what is before it forgets what that was.
fn crc(header: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(header.get(..super::HEADER_BYTES - 4).unwrap_or_default());
    crc.update(header.get(super::HEADER_BYTES..).unwrap_or_default());
    crc.finalize()
}

/// A block without some of its events.
#[derive(Debug, Clone)]
pub struct Thinning {
    /// What is left.
    pub block: Block,
    /// Number of events that it lost now.
    pub events: u64,
    /// Bytes of their entries.
    pub bytes: u64,
}

impl Block {
    /// The block without the events at these positions; `None` if it has none of them.
    ///
    /// # Errors
    /// [`BlockError`] if any event is damaged: what is kept must be what was written.
    pub fn thin(&self, positions: &BTreeSet<Position>) -> Result<Option<Thinning>, BlockError> {
        let (mut kept, mut events, mut bytes) = (0, 0, 0);
        let mut entries = Vec::new();
        for entry in Entries::of(self) {
            let (position, entry) = entry?;
            if !entry.is_intact(position) {
                return Err(BlockError::Entry(position));
            }
            if positions.contains(&position) {
                events += 1;
                bytes += entry.len_bytes();
            } else {
                kept += 1;
                self.put_ordinal(position, &mut entries);
                entry.put(&mut entries);
            }
        }
        if events == 0 {
            return Ok(None);
        }
        let digest = self.digest();
        let thinned = Thinned { kept, digest };
        let bytes_left = encode(self.header, thinned, &entries);
        let block = Self::parse(bytes_left.into())?;
        Ok(Some(Thinning {
            block,
            events,
            bytes,
        }))
    }

    fn put_ordinal(&self, position: Position, into: &mut Vec<u8>) {
        into.extend_from_slice(&ordinal(self.header.first, position));
    }
}

/// Encodes what is left of the block of `count` events from `first` on that had this digest.
///
/// # Panics
/// As [`super::encode_block`]; and if an event is not of the block.
#[must_use]
pub fn encode_thinned<'a>(
    epoch: Epoch,
    (first, count): (Position, u32),
    (previous, digest): (Digest, Digest),
    events: impl Iterator<Item = &'a Event>,
) -> EncodedBlock {
    let mut kept = 0;
    let mut entries = Vec::new();
    for Event { position, event } in events {
        entries.extend_from_slice(&ordinal(first, *position));
        encode_entry(*position, event, &mut entries);
        kept += 1;
    }
    let header = BlockHeader {
        epoch,
        first,
        count,
        length: 0,
        previous,
        thinned: None,
    };
    EncodedBlock {
        bytes: encode(header, Thinned { kept, digest }, &entries),
        digest,
        last: header.last(),
    }
}

/// The checksum at the end of the header of a thinned block, which is over all of the header.
#[must_use]
pub fn thinned_crc(header: &BlockHeader) -> u32 {
    let header = header.encode();
    let crc = header.last_chunk().copied().unwrap_or_default();
    u32::from_le_bytes(crc)
}

fn ordinal(first: Position, position: Position) -> [u8; ORDINAL_BYTES] {
    let ordinal = position.0 - first.0;
    u32::try_from(ordinal)
        .expect("a block has fewer events")
        .to_le_bytes()
}

fn encode(header: BlockHeader, thinned: Thinned, entries: &[u8]) -> Vec<u8> {
    let length = EXTENSION_BYTES + entries.len();
    let header = BlockHeader {
        length: u32::try_from(length).expect("a block is under 4 GiB"),
        thinned: Some(thinned),
        ..header
    };
    let mut bytes = header.encode();
    bytes.extend_from_slice(entries);
    bytes
}

impl Entry<'_> {
    fn len_bytes(&self) -> u64 {
        (super::CRC_BYTES + self.checked.len()) as u64
    }

    fn put(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(&self.crc.to_le_bytes());
        into.extend_from_slice(self.checked);
    }
}

#[cfg(test)]
mod tests;
