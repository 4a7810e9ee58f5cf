//! An entry of a block: the metadata and the body of one event, under a checksum of their own.

use std::ops::Range;

use bytes::Bytes;

use super::Reader;
use crate::{
    codec::META_CONFIG,
    event::{DedupeKey, Event, Idempotency, NewEvent, Op, RequestId},
    name::{ConnectorName, ItemId, StreamName},
    position::Position,
    time::Timestamp,
};

/// Bytes of an entry before its metadata.
const ENTRY_HEADER_BYTES: usize = 12;
/// Of these, its checksum.
pub(super) const CRC_BYTES: usize = 4;

/// The checksum that an event has in its block.
///
/// # Panics
/// As [`super::encode_block`].
#[must_use]
pub fn event_crc(Event { position, event }: &Event) -> u32 {
    let (meta, lengths) = encode_meta(event);
    entry_crc(*position, &[&lengths, &meta, &event.body])
}

/// An entry as it lies in a block.
pub(super) struct Entry<'a> {
    pub(super) crc: u32,
    /// The two lengths, metadata and body: one piece, as the checksum takes them.
    pub(super) checked: &'a [u8],
    meta: &'a [u8],
    body: Range<usize>,
}

impl<'a> Entry<'a> {
    pub(super) fn read(block: &'a [u8], at: &mut usize) -> Option<Self> {
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

    pub(super) fn is_intact(&self, position: Position) -> bool {
        self.crc == entry_crc(position, &[self.checked])
    }

    pub(super) fn decode(
        self,
        block: &Bytes,
        position: Position,
        names: &mut Names,
    ) -> Option<Event> {
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

pub(super) fn encode_entry(position: Position, event: &NewEvent, into: &mut Vec<u8>) {
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
pub(super) struct Names {
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
