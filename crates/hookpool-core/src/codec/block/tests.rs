use super::*;
use crate::{
    event::{DedupeKey, Idempotency},
    fold::tests::{deletion, event},
};

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
    let golden = const_hex::decode(include_str!("../block_v1.hex").trim()).unwrap();
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
    let golden = const_hex::decode(include_str!("../block_v1_idempotency.hex").trim()).unwrap();
    let block = Block::parse(golden.clone().into()).unwrap();
    let read = block.events().map(|event| event.unwrap().event);
    assert_eq!(read.collect::<Vec<_>>(), identified());
    assert_eq!(encoded_identified().bytes, golden);
}

#[test]
fn golden_bytes_of_a_deletion_still_read() {
    let golden = const_hex::decode(include_str!("../block_v1_delete.hex").trim()).unwrap();
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
        let intact =
            Block::parse(bytes.into()).is_ok_and(|block| block.events().all(|event| event.is_ok()));
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
