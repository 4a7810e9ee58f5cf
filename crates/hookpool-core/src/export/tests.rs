use super::*;
use crate::{
    codec::{Block, EncodedBlock, encode_block},
    event::{DedupeKey, Event, Idempotency, NewEvent},
    fold::tests::{deletion, event},
};

const EPOCH: Epoch = Epoch(0x0102_0304_0506_0708);

/// Bodies that have been trouble somewhere.
const BODIES: [&[u8]; 6] = [
    br#"{"region":"North","sales":1.0e+2}"#,
    b"{\n  \"a\": \"\\u0000\\\"\"\r\n}",
    "{\"x\":\"ü\u{2028}\u{10ffff}\"}".as_bytes(),
    b"{}",
    b"\xff\x00 not text",
    b"",
];

/// The events of one commit; the bodies go round.
fn commit(block: u64) -> Vec<NewEvent> {
    let new = |n: u64| {
        let mut new = event(block * 10 + n, "North", "").event;
        new.generated_id = n == 1;
        new.duplicate_keys = n == 2;
        new.dedupe = (n == 0).then_some(DedupeKey([0xdd; 16]));
        let body = usize::try_from((block + n) % 6).unwrap();
        new.body = BODIES[body].into();
        new
    };
    (0..=block % 4).map(new).collect()
}

fn blocks(count: u64) -> Vec<EncodedBlock> {
    let mut end = (Position::ZERO, Digest::default());
    let block = |n| {
        let block = encode_block(EPOCH, end.0.plus(1), end.1, commit(n).iter());
        end = (block.last, block.digest);
        block
    };
    (0..count).map(block).collect()
}

fn header(range: Range, scope: Scope) -> Header {
    Header {
        epoch: EPOCH,
        range,
        requested: Requested {
            after: range.after,
            until: Some(range.until),
        },
        scope,
        server: "1.2.3".into(),
        time: Timestamp(1_700_000_000_123_456),
    }
}

/// The same blocks; two of three lost some events, or all.
fn thinned(blocks: Vec<EncodedBlock>) -> Vec<EncodedBlock> {
    let thin = |block: EncodedBlock| {
        let whole = Block::parse(block.bytes.clone().into()).unwrap();
        let first = whole.header().first.0;
        let gone = |position: &u64| match first % 3 {
            0 => true,
            1 => position.is_multiple_of(2),
            _ => false,
        };
        let gone = (first..=block.last.0).filter(gone).map(Position).collect();
        let thinning = whole.thin(&gone).unwrap();
        let bytes = thinning.map_or(block.bytes, |thinning| thinning.block.bytes().to_vec());
        EncodedBlock { bytes, ..block }
    };
    blocks.into_iter().map(thin).collect()
}

/// An export of these blocks.
fn export(blocks: &[EncodedBlock]) -> String {
    let parsed = |block: &EncodedBlock| Block::parse(block.bytes.clone().into()).unwrap();
    let first = *parsed(&blocks[0]).header();
    let range = Range {
        after: Position(first.first.0 - 1),
        until: blocks.last().unwrap().last,
    };
    let previous = first.previous;
    let mut writer = Writer::new(&header(range, Scope::Chained { previous }));
    for block in blocks {
        writer.block(&parsed(block)).unwrap();
    }
    writer.finish()
}

fn read(text: &[u8]) -> Result<(Summary, Vec<EncodedBlock>), ExportError> {
    let mut reader = Reader::default();
    let mut blocks = Vec::new();
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        if let Piece::Block(block) = reader.line(line)? {
            blocks.push(block);
        }
    }
    Ok((reader.finish()?, blocks))
}

/// What each line is, by its text.
fn places(text: &str) -> Vec<Place> {
    let number = |line: &str, name: &str| {
        let (_, rest) = line.split_once(&format!(r#""{name}":"#)).unwrap();
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next();
        Position(digits.unwrap().parse().unwrap())
    };
    let mut last = Position::ZERO;
    let mut in_thinned = false;
    let place = |line: &str| {
        if line.starts_with(r#"{"export""#) {
            Place::Header
        } else if line.starts_with(r#"{"end""#) {
            Place::Trailer
        } else if line.starts_with(r#"{"thinned""#) {
            in_thinned = true;
            Place::Thinned(number(line, "first"))
        } else if line.starts_with(r#"{"block""#) {
            in_thinned = false;
            let first = number(line, "first");
            last = Position(first.0 + number(line, "count").0 - 1);
            Place::Block(first)
        } else {
            let before = std::mem::replace(&mut last, number(line, "position"));
            if in_thinned {
                Place::After(before)
            } else {
                Place::Event(last)
            }
        }
    };
    text.lines().map(place).collect()
}

#[test]
fn what_is_read_makes_the_same_blocks() {
    for made in [blocks(9), thinned(blocks(9))] {
        let (summary, read) = read(export(&made).as_bytes()).unwrap();
        assert_eq!(read.len(), made.len());
        for (read, made) in read.iter().zip(&made) {
            assert_eq!((&read.bytes, read.digest), (&made.bytes, made.digest));
        }
        assert_eq!(summary.digest, Some(made[8].digest));
        assert!(summary.header.is_from_the_start());
    }
}

#[test]
fn an_export_says_how_much_was_dropped() {
    let (whole, _) = read(export(&blocks(9)).as_bytes()).unwrap();
    assert_eq!((whole.thinned, whole.dropped), (0, 0));
    let last = blocks(9)[8].last;
    assert_eq!((whole.events, whole.last), (last.0, last));
    let (thin, blocks) = read(export(&thinned(blocks(9))).as_bytes()).unwrap();
    let parsed = blocks
        .iter()
        .map(|block| Block::parse(block.bytes.clone().into()));
    let lost = parsed.filter(|block| block.as_ref().unwrap().header().thinned.is_some());
    assert_eq!(thin.thinned, lost.count() as u64);
    assert!(thin.thinned > 3 && thin.dropped > thin.thinned);
    assert_eq!(thin.events + thin.dropped, whole.events);
}

#[test]
fn a_range_keeps_its_chain() {
    let made = blocks(9);
    let (summary, read) = read(export(&made[3..7]).as_bytes()).unwrap();
    assert_eq!(read.len(), 4);
    assert_eq!(summary.digest, Some(made[6].digest));
    assert!(!summary.header.is_from_the_start());
}

#[test]
fn the_golden_export_of_format_1_still_reads() {
    let golden = include_str!("export_v1.ndjson");
    let (_, read) = read(golden.as_bytes()).unwrap();
    let bytes = |blocks: Vec<EncodedBlock>| blocks.into_iter().map(|block| block.bytes);
    assert!(bytes(read).eq(bytes(blocks(4))));
}

/// A commit with what begins a request with an identity: one with a fingerprint, one of many events without.
fn identified() -> Vec<EncodedBlock> {
    let identity = |key, request, events| Idempotency {
        key: DedupeKey([key; 16]),
        request,
        events,
    };
    let mut events = commit(3);
    events[0].idempotency = Some(identity(0xee, Some([0xff; 16]), 1));
    events[1].idempotency = Some(identity(0xef, None, 3));
    let first = Position::ZERO.plus(1);
    vec![encode_block(EPOCH, first, Digest::default(), events.iter())]
}

#[test]
fn the_golden_export_of_events_with_an_identity_still_reads() {
    let golden = include_str!("export_v2_idempotency.ndjson");
    assert_eq!(export(&identified()), golden);
    let (_, blocks) = read(golden.as_bytes()).unwrap();
    let bytes = |blocks: Vec<EncodedBlock>| blocks.into_iter().map(|block| block.bytes);
    assert!(bytes(blocks).eq(bytes(identified())));
    let other = golden.replacen(r#""events":3"#, r#""events":4"#, 1);
    assert!(read(other.as_bytes()).is_err());
}

#[test]
fn the_golden_export_of_format_2_still_reads() {
    let golden = include_str!("export_v2.ndjson");
    assert_eq!(export(&thinned(blocks(4))), golden);
    assert!(read(golden.as_bytes()).is_ok());
}

/// A block with a deletion.
fn with_deletion() -> EncodedBlock {
    let events = [event(1, "North", "{}").event, deletion(2, "North").event];
    encode_block(EPOCH, Position(1), Digest::default(), events.iter())
}

#[test]
fn the_golden_export_of_a_deletion_still_reads() {
    let golden = include_str!("export_v2_delete.ndjson");
    assert_eq!(export(&[with_deletion()]), golden);
    let (_, read) = read(golden.as_bytes()).unwrap();
    assert_eq!(read[0].bytes, with_deletion().bytes);
}

#[test]
fn format_1_has_no_thinned_blocks() {
    let text = export(&thinned(blocks(4)));
    let header = include_str!("export_v1.ndjson").lines().next().unwrap();
    let text = text.replacen(text.lines().next().unwrap(), header, 1);
    let error = read(text.as_bytes()).unwrap_err();
    assert!(matches!(error.place, Place::Thinned(_)), "{error}");
}

#[test]
fn an_export_of_a_stream_says_that_it_is_not_chained() {
    let range = Range {
        after: Position(3),
        until: Position(9),
    };
    let sales = StreamName::new("sales").unwrap();
    let mut writer = Writer::new(&header(range, Scope::Stream(sales)));
    writer.event(&event(5, "North", "{}"));
    writer.event(&event(8, "North", "{}"));
    let text = writer.finish();
    assert!(text.contains(r#""chained":false,"previous":null"#));
    let (summary, blocks) = read(text.as_bytes()).unwrap();
    assert_eq!((summary.events, summary.last.0, blocks.len()), (2, 8, 0));
    let error = read(text.replacen("North", "South", 1).as_bytes()).unwrap_err();
    assert_eq!((error.line, error.place), (2, Place::After(Position(3))));
    let other = text.replace(r#""stream":"sales","op""#, r#""stream":"other","op""#);
    assert!(read(other.as_bytes()).is_err());
}

#[test]
fn every_flipped_bit_is_found_at_its_line() {
    for made in [blocks(4), thinned(blocks(4))] {
        let text = export(&made);
        let places = places(&text);
        for bit in 0..text.len() * 8 {
            assert_found(&text, &places, bit / 8, 1 << (bit % 8));
        }
    }
}

#[test]
fn ten_thousand_flipped_bytes_are_found_at_their_lines() {
    let text = export(&thinned(blocks(12)));
    let places = places(&text);
    let mut random = 0x5eed_u64;
    let mut below = |limit: usize| {
        random = random
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        usize::try_from(random >> 33).unwrap() % limit
    };
    for _ in 0..10_000 {
        let at = below(text.len());
        let flip = u8::try_from(1 + below(255)).unwrap();
        assert_found(&text, &places, at, flip);
    }
}

/// Flips bits of one byte and expects an error at its line.
fn assert_found(text: &str, places: &[Place], at: usize, flip: u8) {
    let mut bytes = text.as_bytes().to_vec();
    let ends = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count();
    let line = ends(&bytes[..at]);
    let start = bytes[..at].iter().rposition(|byte| *byte == b'\n');
    let start = start.map_or(0, |end| end + 1);
    bytes[at] ^= flip;
    let error = read(&bytes).expect_err(&format!("byte {at} with {flip:02x}"));
    assert_eq!(error.line, line as u64 + 1, "byte {at} with {flip:02x}");
    // What is left of a line that ends after two bytes could be any line.
    if at - start > 2 || bytes[at] != b'\n' {
        assert_eq!(
            error.place, places[line],
            "byte {at} with {flip:02x}: {error}"
        );
    }
}

#[test]
fn every_cut_and_every_missing_doubled_or_swapped_line_is_found() {
    let text = export(&thinned(blocks(6)));
    for length in 0..text.len() {
        let error = read(&text.as_bytes()[..length]).unwrap_err();
        assert_eq!(error.fault, Fault::BreaksOff, "{length}: {error}");
    }
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    for n in 0..lines.len() {
        let mut without = lines.clone();
        without.remove(n);
        assert!(read(without.concat().as_bytes()).is_err(), "without {n}");
        let mut doubled = lines.clone();
        doubled.insert(n, lines[n]);
        assert!(read(doubled.concat().as_bytes()).is_err(), "{n} twice");
        if n > 0 {
            let mut swapped = lines.clone();
            swapped.swap(n - 1, n);
            assert!(read(swapped.concat().as_bytes()).is_err(), "{n} swapped");
        }
    }
}

#[test]
fn a_newer_format_is_named() {
    let text = export(&blocks(1)).replacen(r#""format":2"#, r#""format":3"#, 1);
    let error = read(text.as_bytes()).unwrap_err();
    assert_eq!(error.fault, Fault::NewerFormat(3));
}

#[test]
fn a_cloud_event_has_what_the_specification_asks_for() {
    let body = "{\n \"n\": 123456789012345678901234567890.10,\r\n \"n\": \"a\\nb\" }";
    let line = cloud_event("https://h.example", EPOCH, &event(42, "North \"x\"", body)).unwrap();
    assert_eq!(line.matches('\n').count(), 1);
    assert!(line.contains(r#""data":{  "n": 123456789012345678901234567890.10,"#));
    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
    for (name, expected) in [
        ("specversion", "1.0"),
        ("id", "0102030405060708.42"),
        ("source", "https://h.example/api/streams/sales"),
        ("type", "hookpool.upsert"),
        ("subject", "North \"x\""),
        ("time", "1970-01-01T00:00:00.042000Z"),
        ("datacontenttype", "application/json"),
        ("position", "42"),
    ] {
        assert_eq!(value[name], expected);
    }
    let line = cloud_event("http://h", EPOCH, &deletion(7, "North")).unwrap();
    let deleted: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(deleted["type"], "hookpool.delete");
    assert_eq!(
        (deleted.get("data"), deleted.get("datacontenttype")),
        (None, None)
    );
    let attributes = value.as_object().unwrap();
    let lower = |name: &String| {
        name.bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    assert!(attributes.keys().all(lower), "names of attributes");
    let event: Event = event(7, "North", "not JSON");
    assert_eq!(
        cloud_event("http://h", EPOCH, &event),
        Err(CloudEventError(Position(7)))
    );
}
