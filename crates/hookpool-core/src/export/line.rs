//! The lines as JSON. Each has one spelling: a line that means something else than it says, or says it in other bytes, was changed.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{FORMAT, Header, Range, Requested, Scope};
use crate::{
    codec::{BlockHeader, Digest, Thinned, event_crc, thinned_crc},
    event::{DedupeKey, Event, Idempotency, NewEvent, Op, RequestId},
    hex::Hex,
    name::{ConnectorName, ItemId, StreamName},
    position::{Epoch, Position},
    time::Timestamp,
};

/// Writes a value as a line, with its line feed.
pub(super) fn text(line: &impl Serialize) -> String {
    let mut text = serde_json::to_string(line).expect("lines have texts for keys");
    text.push('\n');
    text
}

/// What the lines of each kind begin with.
const BEGINNINGS: [(Kind, &[u8]); 5] = [
    (Kind::Event, br#"{"position":"#),
    (Kind::Header, br#"{"export":{"#),
    (Kind::Thinned, br#"{"thinned":{"#),
    (Kind::Block, br#"{"block":{"f"#),
    (Kind::Trailer, br#"{"end":{"eve"#),
];

/// What a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Header,
    Event,
    Thinned,
    Block,
    Trailer,
}

impl Kind {
    /// What a line is, or was before it was damaged: the kind whose beginning differs in the fewest places.
    pub(super) fn of(line: &[u8]) -> Self {
        let differences = |beginning: &[u8]| {
            let pairs = beginning.iter().zip(line);
            pairs.filter(|(a, b)| a != b).count()
        };
        let closest = BEGINNINGS
            .iter()
            .min_by_key(|(_, beginning)| differences(beginning));
        closest.map_or(Self::Event, |(kind, _)| *kind)
    }
}

/// The first line.
pub(super) fn header(header: &Header) -> String {
    text(&HeaderLine::of(header, FORMAT))
}

/// Reads a first line, and of which format it is.
pub(super) fn read_header(line: &[u8]) -> Option<(u32, Header)> {
    let read: HeaderLine = serde_json::from_slice(line).ok()?;
    let format = read.export.format;
    let header = read.export.header()?;
    let known = (1..=FORMAT).contains(&format);
    let same = text(&HeaderLine::of(&header, format)).as_bytes() == line;
    (known && same).then_some((format, header))
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeaderLine {
    export: HeaderFields,
    /// CRC-32 of the text of `export`.
    crc: Hex<4>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct HeaderFields {
    format: u32,
    epoch: Hex<8>,
    after: Position,
    until: Position,
    requested: Requested,
    stream: Option<StreamName>,
    chained: bool,
    previous: Option<Hex<32>>,
    server: String,
    time: String,
}

impl HeaderLine {
    fn of(header: &Header, format: u32) -> Self {
        let (stream, previous) = match &header.scope {
            Scope::Chained { previous } => (None, Some(Hex(previous.0))),
            Scope::Stream(stream) => (Some(stream.clone()), None),
        };
        let export = HeaderFields {
            format,
            epoch: Hex(header.epoch.0.to_be_bytes()),
            after: header.range.after,
            until: header.range.until,
            requested: header.requested,
            stream,
            chained: previous.is_some(),
            previous,
            server: header.server.clone(),
            time: header.time.to_string(),
        };
        let json = serde_json::to_string(&export).expect("a header is JSON");
        let crc = Hex(crc32fast::hash(json.as_bytes()).to_be_bytes());
        Self { export, crc }
    }
}

impl HeaderFields {
    fn header(self) -> Option<Header> {
        let scope = match (self.stream, self.previous) {
            (None, Some(Hex(previous))) => Scope::Chained {
                previous: Digest(previous),
            },
            (Some(stream), None) => Scope::Stream(stream),
            _ => return None,
        };
        Some(Header {
            epoch: Epoch(u64::from_be_bytes(self.epoch.0)),
            range: Range {
                after: self.after,
                until: self.until,
            },
            requested: self.requested,
            scope,
            server: self.server,
            time: Timestamp::parse(&self.time)?,
        })
    }
}

/// The number of the format, of any header whose first member it is.
pub(super) fn format_of(line: &[u8]) -> Option<u32> {
    let digits = line.strip_prefix(br#"{"export":{"format":"#)?;
    let end = digits.iter().position(|byte| !byte.is_ascii_digit())?;
    str::from_utf8(digits.get(..end)?).ok()?.parse().ok()
}

/// The line of an event.
pub(super) fn event(event: &Event) -> String {
    text(&EventLine::from(event))
}

/// Reads the line of an event.
pub(super) fn read_event(line: &[u8]) -> Option<Event> {
    let read: EventLine<'_> = serde_json::from_slice(line).ok()?;
    let read = read.event()?;
    (event(&read).as_bytes() == line).then_some(read)
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct EventLine<'a> {
    position: Position,
    time_micros: Timestamp,
    stream: StreamName,
    op: LineOp,
    item_id: Cow<'a, str>,
    generated_id: bool,
    duplicate_keys: bool,
    field_count: u32,
    connector: ConnectorName,
    request_id: Cow<'a, str>,
    dedupe: Option<Hex<16>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency: Option<LineIdempotency>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Cow<'a, str>>,
    /// In place of a body that is not text.
    #[serde(skip_serializing_if = "Option::is_none")]
    body_hex: Option<String>,
    /// Of the entry in its block.
    crc: Hex<4>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum LineOp {
    Upsert,
    Delete,
}

impl<'a> From<&'a Event> for EventLine<'a> {
    fn from(stored: &'a Event) -> Self {
        let Event { position, event } = stored;
        let body = str::from_utf8(&event.body).ok();
        Self {
            position: *position,
            time_micros: event.time,
            stream: event.stream.clone(),
            op: match event.op {
                Op::Upsert => LineOp::Upsert,
                Op::Delete => LineOp::Delete,
            },
            item_id: event.item_id.as_str().into(),
            generated_id: event.generated_id,
            duplicate_keys: event.duplicate_keys,
            field_count: event.field_count,
            connector: event.connector.clone(),
            request_id: event.request_id.to_string().into(),
            dedupe: event.dedupe.map(|key| Hex(key.0)),
            idempotency: event.idempotency.as_ref().map(LineIdempotency::of),
            body: body.map(Into::into),
            body_hex: body.is_none().then(|| const_hex::encode(&event.body)),
            crc: Hex(event_crc(stored).to_be_bytes()),
        }
    }
}

impl EventLine<'_> {
    fn event(self) -> Option<Event> {
        let body = match (self.body, self.body_hex) {
            (Some(text), None) => Bytes::from(text.into_owned()),
            (None, Some(hex)) => const_hex::decode(hex).ok()?.into(),
            _ => return None,
        };
        let event = NewEvent {
            time: self.time_micros,
            stream: self.stream,
            op: match self.op {
                LineOp::Upsert => Op::Upsert,
                LineOp::Delete => Op::Delete,
            },
            item_id: ItemId::new(self.item_id).ok()?,
            generated_id: self.generated_id,
            duplicate_keys: self.duplicate_keys,
            field_count: self.field_count,
            connector: self.connector,
            request_id: RequestId::parse(&self.request_id)?,
            dedupe: self.dedupe.map(|key| DedupeKey(key.0)),
            idempotency: self.idempotency.map(LineIdempotency::idempotency),
            body,
        };
        let position = self.position;
        Some(Event { position, event })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LineIdempotency {
    key: Hex<16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<Hex<16>>,
    events: u32,
}

impl LineIdempotency {
    fn of(idempotency: &Idempotency) -> Self {
        Self {
            key: Hex(idempotency.key.0),
            request: idempotency.request.map(Hex),
            events: idempotency.events,
        }
    }

    fn idempotency(self) -> Idempotency {
        Idempotency {
            key: DedupeKey(self.key.0),
            request: self.request.map(|request| request.0),
            events: self.events,
        }
    }
}

/// The line before the events of a block that lost some.
pub(super) fn thinned(header: &BlockHeader) -> Option<String> {
    let thinned = header.thinned.as_ref()?;
    Some(text(&ThinnedLine {
        thinned: ThinnedFields {
            first: header.first,
            count: header.count,
            kept: thinned.kept,
            length: header.length,
            digest: Hex(thinned.digest.0),
            crc: Hex(thinned_crc(header).to_be_bytes()),
        },
    }))
}

/// Reads such a line, of a log and behind a block with this digest.
pub(super) fn read_thinned(line: &[u8], epoch: Epoch, previous: Digest) -> Option<BlockHeader> {
    let ThinnedLine { thinned: read } = serde_json::from_slice(line).ok()?;
    let header = BlockHeader {
        epoch,
        first: read.first,
        count: read.count,
        length: read.length,
        previous,
        thinned: Some(Thinned {
            kept: read.kept,
            digest: Digest(read.digest.0),
        }),
    };
    (thinned(&header)?.as_bytes() == line).then_some(header)
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ThinnedLine {
    thinned: ThinnedFields,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ThinnedFields {
    first: Position,
    count: u32,
    kept: u32,
    length: u32,
    digest: Hex<32>,
    /// Of the header of the block, so over the epoch and the block before too.
    crc: Hex<4>,
}

/// The line behind the events of a block.
pub(super) fn block(first: Position, count: u32, digest: Digest) -> String {
    #[derive(Serialize)]
    struct Line {
        block: Block,
    }
    #[derive(Serialize)]
    struct Block {
        first: Position,
        count: u32,
        digest: Hex<32>,
    }
    let digest = Hex(digest.0);
    text(&Line {
        block: Block {
            first,
            count,
            digest,
        },
    })
}

/// The last line. `sha256` is over all lines before it.
pub(super) fn trailer(
    events: u64,
    last: Position,
    digest: Option<Digest>,
    sha256: [u8; 32],
) -> String {
    #[derive(Serialize)]
    struct Line {
        end: End,
    }
    #[derive(Serialize)]
    struct End {
        events: u64,
        last: Position,
        digest: Option<Hex<32>>,
        sha256: Hex<32>,
    }
    text(&Line {
        end: End {
            events,
            last,
            digest: digest.map(|digest| Hex(digest.0)),
            sha256: Hex(sha256),
        },
    })
}
