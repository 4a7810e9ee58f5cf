//! A block: the events of one commit in one envelope. The unit that is written, synced, chained and checked.

mod thin;

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

pub use thin::{THINNED_HEADER_BYTES, Thinned, Thinning, encode_thinned, thinned_crc};

use super::META_CONFIG;
use crate::{
    event::{DedupeKey, Event, Idempotency, NewEvent, Op, RequestId},
    name::{ConnectorName, ItemId, StreamName},
    position::{Epoch, Position},
    time::Timestamp,
};

/// First bytes of every block; also what a search of a raw journal looks for.
pub const MAGIC: [u8; 4] = *b"HKPL";
/// The format of a block as a commit writes it. Every format ever written stays readable.
pub const FORMAT_VERSION: u8 = 1;
/// The format of a block that lost events.
pub const THINNED_VERSION: u8 = 2;
/// Bytes that every format begins with; a block of format 1 has its first entry behind them.
pub const HEADER_BYTES: usize = 68;
/// Bytes of an entry before its metadata.
const ENTRY_HEADER_BYTES: usize = 12;
/// Of these, its checksum.
const CRC_BYTES: usize = 4;

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

/// The checksum that an event has in its block.
///
/// # Panics
/// As [`encode_block`].
#[must_use]
pub fn event_crc(Event { position, event }: &Event) -> u32 {
    let (meta, lengths) = encode_meta(event);
    entry_crc(*position, &[&lengths, &meta, &event.body])
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

/// An entry as it lies in a block.
struct Entry<'a> {
    crc: u32,
    /// The two lengths, metadata and body: one piece, as the checksum takes them.
    checked: &'a [u8],
    meta: &'a [u8],
    body: Range<usize>,
}

impl<'a> Entry<'a> {
    fn read(block: &'a [u8], at: &mut usize) -> Option<Self> {
        let mut reader = Reader(block.get(*at..*at + ENTRY_HEADER_BYTES)?);
        let crc = u32::from_le_bytes(reader.array()?);
        let meta_bytes = usize::try_from(u32::from_le_bytes(reader.array()?)).ok()?;
        let body_bytes = usize::try_from(u32::from_le_bytes(reader.array()?)).ok()?;
        let meta_at = *at + ENTRY_HEADER_BYTES;
        let body_at = meta_at.checked_add(meta_bytes)?;
        let end = body_at.checked_add(body_bytes)?;
        let checked = block.get(*at + CRC_BYTES..end)?;
        let meta = block.get(meta_at..body_at)?;
        *at = end;
        Some(Self {
            crc,
            checked,
            meta,
            body: body_at..end,
        })
    }

    fn is_intact(&self, position: Position) -> bool {
        self.crc == entry_crc(position, &[self.checked])
    }

    fn decode(self, block: &Bytes, position: Position, names: &mut Names) -> Option<Event> {
        if !self.is_intact(position) {
            return None;
        }
        let (meta, read): (Meta<'_>, usize) =
            bincode::borrow_decode_from_slice(self.meta, META_CONFIG).ok()?;
        let idempotency = match self.meta.get(read..)? {
            [] => None,
            tail => Some(StoredIdempotency::decode(tail)?),
        };
        let event = meta.into_event(idempotency, block.slice(self.body), names)?;
        Some(Event { position, event })
    }
}

fn encode_entry(position: Position, event: &NewEvent, into: &mut Vec<u8>) {
    let (meta, lengths) = encode_meta(event);
    let crc = entry_crc(position, &[&lengths, &meta, &event.body]);
    into.extend_from_slice(&crc.to_le_bytes());
    into.extend_from_slice(&lengths);
    into.extend_from_slice(&meta);
    into.extend_from_slice(&event.body);
}

/// The metadata, and its length with that of the body.
fn encode_meta(event: &NewEvent) -> (Vec<u8>, [u8; 8]) {
    let mut meta = bincode::encode_to_vec(Meta::of(event), META_CONFIG)
        .expect("metadata is a few hundred bytes");
    if let Some(idempotency) = &event.idempotency {
        let tail = StoredIdempotency::of(idempotency);
        let tail = bincode::encode_to_vec(tail, META_CONFIG).expect("it is some 40 bytes");
        meta.extend_from_slice(&tail);
    }
    let length = |bytes: usize| {
        u32::try_from(bytes)
            .expect("a body is under 4 GiB")
            .to_le_bytes()
    };
    let [meta_length, body_length] = [length(meta.len()), length(event.body.len())];
    let mut lengths = [0; 8];
    lengths
        .iter_mut()
        .zip(meta_length.into_iter().chain(body_length))
        .for_each(|(to, from)| *to = from);
    (meta, lengths)
}

/// Over the position too, so that an event moved to another place is damaged. Fewer pieces are quicker.
fn entry_crc(position: Position, pieces: &[&[u8]]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&position.0.to_le_bytes());
    for piece in pieces {
        crc.update(piece);
    }
    crc.finalize()
}

/// The names of the event before: most often the next one has the same, and shares their text.
#[derive(Default)]
struct Names {
    stream: Option<StreamName>,
    connector: Option<ConnectorName>,
}

impl Names {
    fn stream(&mut self, text: &str) -> Option<StreamName> {
        if self
            .stream
            .as_ref()
            .is_none_or(|last| last.as_str() != text)
        {
            self.stream = StreamName::new(text).ok();
        }
        self.stream.clone()
    }

    fn connector(&mut self, text: &str) -> Option<ConnectorName> {
        if self
            .connector
            .as_ref()
            .is_none_or(|last| last.as_str() != text)
        {
            self.connector = ConnectorName::new(text).ok();
        }
        self.connector.clone()
    }
}

/// Stored metadata of format 1. Never change it: a new shape is a new format.
#[derive(bincode::Encode, bincode::BorrowDecode)]
struct Meta<'a> {
    time: u64,
    stream: &'a str,
    op: StoredOp,
    item_id: &'a str,
    generated_id: bool,
    duplicate_keys: bool,
    field_count: u32,
    connector: &'a str,
    request_id: [u8; 16],
    dedupe: Option<[u8; 16]>,
}

#[derive(bincode::Encode, bincode::BorrowDecode)]
enum StoredOp {
    Upsert,
    Delete,
}

impl<'a> Meta<'a> {
    fn of(event: &'a NewEvent) -> Self {
        Self {
            time: event.time.0,
            stream: event.stream.as_str(),
            op: match event.op {
                Op::Upsert => StoredOp::Upsert,
                Op::Delete => StoredOp::Delete,
            },
            item_id: event.item_id.as_str(),
            generated_id: event.generated_id,
            duplicate_keys: event.duplicate_keys,
            field_count: event.field_count,
            connector: event.connector.as_str(),
            request_id: event.request_id.0,
            dedupe: event.dedupe.map(|key| key.0),
        }
    }

    fn into_event(
        self,
        idempotency: Option<Idempotency>,
        body: Bytes,
        names: &mut Names,
    ) -> Option<NewEvent> {
        Some(NewEvent {
            time: Timestamp(self.time),
            stream: names.stream(self.stream)?,
            op: match self.op {
                StoredOp::Upsert => Op::Upsert,
                StoredOp::Delete => Op::Delete,
            },
            item_id: ItemId::new(self.item_id).ok()?,
            generated_id: self.generated_id,
            duplicate_keys: self.duplicate_keys,
            field_count: self.field_count,
            connector: names.connector(self.connector)?,
            request_id: RequestId(self.request_id),
            dedupe: self.dedupe.map(DedupeKey),
            idempotency,
            body,
        })
    }
}

/// Behind the metadata of an event that begins a request with an identity. Never change it either.
#[derive(bincode::Encode, bincode::Decode)]
struct StoredIdempotency {
    key: [u8; 16],
    request: Option<[u8; 16]>,
    events: u32,
}

impl StoredIdempotency {
    fn of(idempotency: &Idempotency) -> Self {
        Self {
            key: idempotency.key.0,
            request: idempotency.request,
            events: idempotency.events,
        }
    }

    fn decode(bytes: &[u8]) -> Option<Idempotency> {
        let (stored, read): (Self, usize) = bincode::decode_from_slice(bytes, META_CONFIG).ok()?;
        (read == bytes.len()).then_some(Idempotency {
            key: DedupeKey(stored.key),
            request: stored.request,
            events: stored.events,
        })
    }
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::fold::tests::{deletion, event};

    const EPOCH: Epoch = Epoch(0x0102_0304_0506_0708);

    pub(super) fn events() -> Vec<NewEvent> {
        let mut signed = event(1, "South", r#"{"region":"South"}"#).event;
        signed.dedupe = Some(DedupeKey([0xdd; 16]));
        vec![
            event(1, "North", r#"{"region":"North","sales":1.0}"#).event,
            signed,
            event(1, "x", "{}").event,
        ]
    }

    pub(super) fn encoded() -> EncodedBlock {
        encode_block(EPOCH, Position(41), Digest([0xaa; 32]), events().iter())
    }

    #[test]
    fn what_is_written_is_read_back() {
        let encoded = encoded();
        let block = Block::parse(encoded.bytes.into()).unwrap();
        assert_eq!(
            (block.header().first, block.header().last(), encoded.last),
            (Position(41), Position(43), Position(43))
        );
        assert_eq!(
            (block.header().epoch, block.header().previous),
            (EPOCH, Digest([0xaa; 32]))
        );
        assert_eq!(block.digest(), encoded.digest);
        let read: Vec<_> = block.events().map(Result::unwrap).collect();
        let positions: Vec<_> = read.iter().map(|event| event.position.0).collect();
        assert_eq!(positions, [41, 42, 43]);
        assert_eq!(
            read.into_iter()
                .map(|event| event.event)
                .collect::<Vec<_>>(),
            events()
        );
        let tail: Vec<_> = block
            .events_from(Position(43))
            .map(|event| event.unwrap().position.0)
            .collect();
        assert_eq!(tail, [43]);
    }

    #[test]
    fn golden_bytes_of_format_1_still_read() {
        let golden = const_hex::decode(include_str!("block_v1.hex").trim()).unwrap();
        let block = Block::parse(golden.clone().into()).unwrap();
        assert_eq!(
            block
                .events()
                .map(|event| event.unwrap().event)
                .collect::<Vec<_>>(),
            events()
        );
        assert_eq!(encoded().bytes, golden);
    }

    /// What begins a request with an identity: one with a fingerprint, one of many events without.
    fn identified() -> Vec<NewEvent> {
        let mut events = events();
        events[0].idempotency = Some(Idempotency {
            key: DedupeKey([0xee; 16]),
            request: Some([0xff; 16]),
            events: 1,
        });
        events[1].idempotency = Some(Idempotency {
            key: DedupeKey([0xef; 16]),
            request: None,
            events: 300,
        });
        events
    }

    fn encoded_identified() -> EncodedBlock {
        encode_block(EPOCH, Position(41), Digest([0xaa; 32]), identified().iter())
    }

    #[test]
    fn golden_bytes_of_events_with_an_identity_still_read() {
        let golden = const_hex::decode(include_str!("block_v1_idempotency.hex").trim()).unwrap();
        let block = Block::parse(golden.clone().into()).unwrap();
        let read = block.events().map(|event| event.unwrap().event);
        assert_eq!(read.collect::<Vec<_>>(), identified());
        assert_eq!(encoded_identified().bytes, golden);
    }

    #[test]
    fn golden_bytes_of_a_deletion_still_read() {
        let golden = const_hex::decode(include_str!("block_v1_delete.hex").trim()).unwrap();
        let events = [events().remove(0), deletion(2, "North").event];
        let encoded = encode_block(EPOCH, Position(41), Digest([0xaa; 32]), events.iter());
        assert_eq!(
            const_hex::encode(&encoded.bytes),
            const_hex::encode(&golden)
        );
        let block = Block::parse(golden.into()).unwrap();
        let read = block.events().map(|event| event.unwrap().event);
        assert!(read.eq(events));
    }

    #[test]
    fn every_flipped_bit_is_found() {
        every_flipped_bit_of(&encoded().bytes);
        every_flipped_bit_of(&encoded_identified().bytes);
    }

    fn every_flipped_bit_of(good: &[u8]) {
        for bit in 0..good.len() * 8 {
            // The three reserved bytes are covered by the header's checksum too.
            let mut bytes = good.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let intact = Block::parse(bytes.into())
                .is_ok_and(|block| block.events().all(|event| event.is_ok()));
            assert!(!intact, "bit {bit}");
        }
    }

    #[test]
    fn a_damaged_event_is_named_by_its_position() {
        let mut bytes = encoded().bytes;
        let at = bytes
            .windows(5)
            .rposition(|window| window == b"South")
            .unwrap();
        bytes[at] ^= 1;
        let block = Block::parse(bytes.into()).unwrap();
        let errors: Vec<_> = block.events().filter_map(Result::err).collect();
        assert_eq!(errors, [BlockError::Entry(Position(42))]);
    }

    #[test]
    fn blocks_are_taken_off_a_stream_when_they_are_whole() {
        let block = encoded().bytes;
        let mut stream = BytesMut::new();
        for byte in block.iter().chain(&block).take(2 * block.len() - 1) {
            stream.extend_from_slice(&[*byte]);
            let taken = Block::split_off(&mut stream).unwrap();
            assert_eq!(taken.is_some(), stream.is_empty());
            assert!(taken.is_none_or(|taken| taken.bytes() == &block));
        }
        assert_eq!(stream.len(), block.len() - 1);
        stream[0] ^= 1;
        assert!(Block::split_off(&mut stream).is_err());
    }

    #[test]
    fn every_cut_is_found() {
        let good = encoded().bytes;
        for length in 0..good.len() {
            assert!(
                Block::parse(good[..length].to_vec().into()).is_err(),
                "{length}"
            );
        }
    }

    #[test]
    fn a_newer_format_is_named() {
        let mut bytes = encoded().bytes;
        bytes[4] = 3;
        let crc = crc32fast::hash(&bytes[..64]).to_le_bytes();
        bytes[64..68].copy_from_slice(&crc);
        assert_eq!(
            Block::parse(bytes.into()).unwrap_err(),
            BlockError::NewerFormat(3)
        );
    }

    #[test]
    fn blocks_are_found_in_raw_bytes_unless_cut_or_damaged() {
        let block = encoded().bytes;
        let mut damaged = block.clone();
        *damaged.last_mut().unwrap() ^= 1;
        let raw = [
            &b"HKPLxx"[..],
            &block,
            b"junk",
            &damaged,
            &block,
            &block[..block.len() - 1],
        ]
        .concat();
        let raw = Bytes::from(raw);
        assert_eq!(find_blocks(&raw).count(), 2);
    }
}
