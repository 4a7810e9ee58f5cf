//! Frames on the wire, as server-sent events or lines of JSON. The only place that knows either framing.
//!
//! warp's own events write ids and carriage returns unescaped; a field of ours never holds a line end, and that is checked here.

use std::fmt::Display;

use hookpool_core::{
    cursor::Cursor,
    difference::{Difference, Sort},
    event::Event,
    name::{ItemId, StreamName},
    position::Position,
    projection::Change,
    selection::Selection,
    time::Timestamp,
};

use crate::render::{Nested, push_fields, push_string};

/// How a client reads its frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Framing {
    /// `text/event-stream`
    Sse,
    /// `application/x-ndjson`
    Ndjson,
}

/// Sent with the first frame that has data: how long a client waits before it comes back.
pub(crate) const RETRY: &[u8] = b"retry: 2000\n";
/// The same where there is no room now.
pub(crate) const RETRY_LATER: &[u8] = b"retry: 15000\n";

impl Framing {
    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Self::Sse => "text/event-stream",
            Self::Ndjson => "application/x-ndjson",
        }
    }

    /// A sign of life without content.
    pub(crate) fn heartbeat(self) -> &'static [u8] {
        match self {
            // Without an empty line: some clients would take it for an empty event.
            Self::Sse => b": hb\n",
            Self::Ndjson => b"\n",
        }
    }

    /// Appends one frame; `data` is one JSON value, and an id has no line ends.
    ///
    /// # Panics
    /// If a line end got into the data: it would forge a frame. Every string of ours is escaped, so that would be a bug.
    pub(crate) fn push(
        self,
        into: &mut Vec<u8>,
        event: &str,
        id: Option<&dyn Display>,
        data: &str,
    ) {
        assert!(!data.contains(['\n', '\r']), "data of a frame is one line");
        let frame = match (self, id) {
            // The id last: some clients take it before the frame is whole, and would resume past what they never had.
            (Self::Sse, Some(id)) => format!("event: {event}\ndata: {data}\nid: {id}\n\n"),
            (Self::Sse, None) => format!("event: {event}\ndata: {data}\n\n"),
            (Self::Ndjson, Some(id)) => {
                format!("{{\"event\":\"{event}\",\"id\":\"{id}\",\"data\":{data}}}\n")
            }
            (Self::Ndjson, None) => format!("{{\"event\":\"{event}\",\"data\":{data}}}\n"),
        };
        into.extend_from_slice(frame.as_bytes());
    }
}

/// A frame before it is on the wire.
#[derive(Debug)]
pub(crate) struct Frame {
    /// What sort of frame.
    pub(crate) event: &'static str,
    /// Where a client that has it may go on.
    pub(crate) cursor: Option<Cursor>,
    /// One JSON value.
    pub(crate) data: String,
}

/// Encodes a change for all followers that read server-sent events.
pub fn encode_change(into: &mut Vec<u8>, cursor: &Cursor, event: &Event, change: &Change<'_>) {
    let data = change_json(event, change, Nested::AsString);
    Framing::Sse.push(into, "change", Some(cursor), &data);
}

/// Writes a change that was encoded for readers of server-sent events as a line, for those of NDJSON.
pub(crate) fn change_as_line(into: &mut Vec<u8>, frame: &[u8]) {
    let mut lines = frame.split(|byte| *byte == b'\n');
    let mut value = |name: &[u8]| {
        let value = lines.next().and_then(|line| line.strip_prefix(name));
        value.unwrap_or_default()
    };
    let (event, data, id) = (value(b"event: "), value(b"data: "), value(b"id: "));
    let parts: [&[u8]; 7] = [
        br#"{"event":""#,
        event,
        br#"","id":""#,
        id,
        br#"","data":"#,
        data,
        b"}\n",
    ];
    into.extend_from_slice(&parts.concat());
}

/// The data of the frame of one event.
pub(crate) fn change_json(
    Event { position, event }: &Event,
    change: &Change<'_>,
    nested: Nested,
) -> String {
    let (op, stream, time) = (event.op.as_str(), &event.stream, event.time);
    let mut json = format!(r#"{{"op":"{op}","stream":"{stream}","itemId":"#);
    push_string(&mut json, change.item_id.as_str());
    json.push_str(r#","set":"#);
    push_fields(&mut json, change.set(), nested);
    push_unset(&mut json, change.unset.iter().map(AsRef::as_ref));
    json.push_str(&format!(r#","position":{position},"time":"{time}"}}"#));
    json
}

/// Appends `,"unset":[...]` if there are such fields.
fn push_unset<'a>(json: &mut String, names: impl Iterator<Item = &'a str>) {
    let mut names = names.peekable();
    if names.peek().is_none() {
        return;
    }
    json.push_str(r#","unset":["#);
    for (n, name) in names.enumerate() {
        if n > 0 {
            json.push(',');
        }
        push_string(json, name);
    }
    json.push(']');
}

/// Where a change that is the difference of two states of an item comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    /// Of the last event.
    pub(crate) position: Position,
    /// Of the last event, or of now.
    pub(crate) time: Timestamp,
    /// Events in it, where they were merged.
    pub(crate) merged: Option<usize>,
}

/// What turns one state of an item into another, as the data of a change; `None` where a reader of this selection sees nothing of it.
pub(crate) fn difference_json(
    stream: &StreamName,
    id: &ItemId,
    difference: &Difference<'_>,
    selection: &Selection,
    nested: Nested,
    facts: Facts,
) -> Option<String> {
    let mut fields = difference
        .fields
        .iter()
        .filter(|(name, _)| selection.shows(name))
        .peekable();
    if fields.peek().is_none() && difference.sort == Sort::Changed {
        return None;
    }
    let fields: Vec<_> = fields.collect();
    let op = match difference.sort {
        Sort::Removed => "delete",
        Sort::Added | Sort::Changed => "upsert",
    };
    let mut json = format!(r#"{{"op":"{op}","stream":"{stream}","itemId":"#);
    push_string(&mut json, id.as_str());
    json.push_str(r#","set":"#);
    let set = fields
        .iter()
        .filter_map(|(name, (_, new))| Some((**name, (*new)?)));
    push_fields(&mut json, set, nested);
    if op != "delete" {
        let gone = fields.iter().filter(|(_, (_, new))| new.is_none());
        push_unset(&mut json, gone.map(|(name, _)| **name));
    }
    let Facts {
        position,
        time,
        merged,
    } = facts;
    json.push_str(&format!(r#","position":{position},"time":"{time}""#));
    if let Some(merged) = merged {
        json.push_str(&format!(r#","merged":{merged}"#));
    }
    json.push('}');
    Some(json)
}

#[cfg(test)]
pub(crate) mod tests {
    use bytes::Bytes;
    use hookpool_core::{
        event::{NewEvent, Op, RequestId},
        name::ConnectorName,
        position::{Epoch, Generation},
        projection::Projection,
    };

    use super::*;

    /// An event of item `a`.
    pub(crate) fn event(body: &'static str) -> Event {
        Event {
            position: Position(42),
            event: NewEvent {
                time: Timestamp(1_700_000_000_000_000),
                stream: StreamName::new("sales").unwrap(),
                op: Op::Upsert,
                item_id: ItemId::new("a").unwrap(),
                generated_id: false,
                duplicate_keys: false,
                field_count: 0,
                connector: ConnectorName::new("till").unwrap(),
                request_id: RequestId([0; 16]),
                dedupe: None,
                idempotency: None,
                body: Bytes::from_static(body.as_bytes()),
            },
        }
    }

    fn framed(framing: Framing, id: &str, body: &'static str) -> String {
        let mut event = event(body);
        event.event.item_id = ItemId::new(id).unwrap();
        framed_event(framing, &event)
    }

    fn framed_event(framing: Framing, event: &Event) -> String {
        let cursor = Cursor {
            epoch: Epoch(1),
            generation: Generation::FIRST,
            position: event.position,
        };
        let mut bytes = Vec::new();
        let projection = Projection::default();
        let fields = event.event.fields().unwrap();
        let change = projection.read(event, fields).unwrap();
        let data = change_json(event, &change, Nested::AsString);
        framing.push(&mut bytes, "change", Some(&cursor), &data);
        String::from_utf8(bytes).unwrap()
    }

    const DATA: &str = r#"{"op":"upsert","stream":"sales","itemId":"North","set":{"n":1.0,"o":"{ \"x\": 1 }"},"position":42,"time":"2023-11-14T22:13:20.000000Z"}"#;

    #[test]
    fn a_change_looks_as_the_protocol_says() {
        let body = r#"{"n":1.0,"o":{ "x": 1 }}"#;
        let sse = format!("event: change\ndata: {DATA}\nid: 0000000000000001.1.42\n\n");
        assert_eq!(framed(Framing::Sse, "North", body), sse);
        let ndjson =
            format!("{{\"event\":\"change\",\"id\":\"0000000000000001.1.42\",\"data\":{DATA}}}\n");
        assert_eq!(framed(Framing::Ndjson, "North", body), ndjson);
        let mut rewritten = Vec::new();
        change_as_line(&mut rewritten, sse.as_bytes());
        assert_eq!(rewritten, ndjson.as_bytes());
    }

    #[test]
    fn a_deletion_sets_nothing() {
        let mut event = event("");
        event.event.op = Op::Delete;
        let data = r#"{"op":"delete","stream":"sales","itemId":"a","set":{},"position":42,"time":"2023-11-14T22:13:20.000000Z"}"#;
        let sse = format!("event: change\ndata: {data}\nid: 0000000000000001.1.42\n\n");
        assert_eq!(framed_event(Framing::Sse, &event), sse);
    }

    #[test]
    fn nothing_that_a_sender_writes_ends_a_line() {
        let body = "{\"a\\r\\ndata: x\":\"\\n\\nid: 1\\u2028\",\"o\":[\r\n1,\r2\n]}";
        let frame = framed(Framing::Sse, "a\u{2028}b", body);
        assert_eq!(frame.matches('\n').count(), 4, "{frame}");
        assert!(!frame.contains('\r'), "{frame}");
    }
}
