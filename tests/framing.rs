//! Whatever a sender writes into ids, names and values, a reader of server-sent events gets it back: nothing of it ends a line, a frame
//! or a string.
//!
//! The frames are the encoder's own; they are read back by a parser that was written from the HTML standard, and their data by
//! `serde_json` and by a reader of JSON strings that knows nothing else. `HOOKPOOL_STRINGS` says how many texts are tried.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "common/hostile.rs"]
mod hostile;
#[path = "common/sse.rs"]
mod sse;

use bytes::Bytes;
use hookpool_core::{
    cursor::Cursor,
    event::{Event, NewEvent, Op, RequestId},
    json,
    name::{ConnectorName, ItemId, StreamName},
    position::{Epoch, Generation, Position},
    projection::Projection,
    time::Timestamp,
};
use hookpool_http::encode_change;
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::Value;

use hostile::Delivery;
use sse::{Frame, Parser};

#[test]
fn a_parser_by_the_standard_gives_back_what_was_stored() {
    let number = |name: &str| Some(std::env::var(name).ok()?.parse::<u64>().unwrap());
    let seed = number("HOOKPOOL_SEED").unwrap_or_else(|| rand::random_range(0..1 << 32));
    let wanted = number("HOOKPOOL_STRINGS").unwrap_or(20_000);
    eprintln!("framing: repeat with HOOKPOOL_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let (mut parser, mut position, mut texts, mut refused) = (Parser::default(), 0, 0, 0);
    while texts < wanted {
        let delivery = Delivery::random(&mut random);
        position += 1;
        let (cursor, bytes) = encoded(&delivery, position);
        if random.random_bool(0.05) {
            // A connection that was cut in the middle leaves nothing behind.
            let cut = random.random_range(0..bytes.len());
            assert_eq!(parser.push(&bytes[..cut]), []);
            parser.reconnect();
        }
        let frames = pushed(&mut parser, &bytes, &mut random);
        let [frame] = &frames[..] else {
            panic!("{} frames of {:?}", frames.len(), delivery.body)
        };
        check(frame, &delivery, &cursor);
        assert_eq!(parser.last_id(), cursor.to_string());
        refused += u64::from(is_refused_with_a_lone_surrogate(&delivery, &mut random));
        texts += delivery.texts();
    }
    eprintln!(
        "{texts} texts in {position} frames came back, {refused} lone surrogates were refused"
    );
}

/// The frame of a delivery.
fn encoded(delivery: &Delivery, position: u64) -> (Cursor, Vec<u8>) {
    let event = Event {
        position: Position(position),
        event: NewEvent {
            time: Timestamp(1_700_000_000_000_000),
            stream: StreamName::new("sales").unwrap(),
            op: Op::Upsert,
            item_id: ItemId::new(&*delivery.id).unwrap(),
            generated_id: false,
            duplicate_keys: false,
            field_count: 0,
            connector: ConnectorName::new("till").unwrap(),
            request_id: RequestId([0; 16]),
            dedupe: None,
            idempotency: None,
            body: Bytes::copy_from_slice(delivery.body.as_bytes()),
        },
    };
    let cursor = Cursor {
        epoch: Epoch(7),
        generation: Generation::FIRST,
        position: event.position,
    };
    let projection = Projection::default();
    let fields = json::object(&event.event.body).unwrap().fields;
    let change = projection.read(&event, fields).unwrap();
    let mut bytes = Vec::new();
    encode_change(&mut bytes, &cursor, &event, &change);
    (cursor, bytes)
}

/// The frames of some bytes that come in pieces.
fn pushed(parser: &mut Parser, mut bytes: &[u8], random: &mut StdRng) -> Vec<Frame> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let (piece, rest) = bytes.split_at(random.random_range(1..=bytes.len()));
        frames.extend(parser.push(piece));
        bytes = rest;
    }
    frames
}

fn check(frame: &Frame, delivery: &Delivery, cursor: &Cursor) {
    let body = &delivery.body;
    assert_eq!(frame.event, "change", "{body:?}");
    assert_eq!(frame.id, Some(cursor.to_string()), "{body:?}");
    assert_eq!(frame.position(), cursor.position.0, "{body:?}");
    let data = frame.json();
    let object = |fields: &Value| -> Vec<(String, String)> {
        let fields = fields.as_object().unwrap().iter();
        fields
            .map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()))
            .collect()
    };
    let stored: Vec<_> = delivery.fields.clone().into_iter().collect();
    assert_eq!(object(&data["set"]), stored, "{body:?}");
    assert_eq!(data["itemId"], *delivery.id, "{body:?}");

    let mut expected = ["op", "upsert", "stream", "sales", "itemId", &delivery.id].to_vec();
    expected.push("set");
    expected.extend(stored.iter().flat_map(|(name, value)| [&**name, value]));
    expected.extend(["position", "time", "2023-11-14T22:13:20.000000Z"]);
    assert_eq!(strings(&frame.data), expected, "{body:?}");
}

/// All strings in a JSON text, in order, by the grammar of RFC 8259 for strings alone.
fn strings(json: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = json.chars();
    while let Some(c) = rest.next() {
        if c == '"' {
            found.push(string(&mut rest));
        }
    }
    found
}

fn string(rest: &mut impl Iterator<Item = char>) -> String {
    let mut units: Vec<u16> = Vec::new();
    loop {
        let c = rest.next().unwrap();
        assert!(c >= ' ', "a control character in a string");
        let c = match c {
            '"' => return String::from_utf16(&units).unwrap(),
            '\\' => match rest.next().unwrap() {
                'u' => {
                    let digits: String = rest.take(4).collect();
                    units.push(u16::from_str_radix(&digits, 16).unwrap());
                    continue;
                }
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                same @ ('"' | '\\' | '/') => same,
                other => panic!("the escape {other:?}"),
            },
            c => c,
        };
        units.extend_from_slice(c.encode_utf16(&mut [0; 2]));
    }
}

/// Half of a pair is no text: a body with one never gets as far as a frame. Tried now and then.
fn is_refused_with_a_lone_surrogate(delivery: &Delivery, random: &mut StdRng) -> bool {
    if random.random_bool(0.9) {
        return false;
    }
    let half = random.random_range(0xd800..0xe000);
    let body = delivery.body.strip_suffix('}').unwrap();
    let body = format!("{body},\"lone\":\"\\u{half:04x}\"}}");
    assert!(json::object(body.as_bytes()).is_err(), "{body:?}");
    true
}
