use bytes::{Bytes, BytesMut};

use super::*;
use crate::codec::{
    block::tests::{encoded, events},
    encode_block, find_blocks, find_damage,
};

fn whole() -> Block {
    Block::parse(encoded().bytes.into()).unwrap()
}

fn positions(positions: impl IntoIterator<Item = u64>) -> BTreeSet<Position> {
    positions.into_iter().map(Position).collect()
}

/// The block of 41 to 43 without some of them.
fn without(dropped: impl IntoIterator<Item = u64>) -> Block {
    let thinning = whole().thin(&positions(dropped)).unwrap();
    thinning.unwrap().block
}

fn read(block: &Block) -> Vec<Event> {
    block.events().map(Result::unwrap).collect()
}

#[test]
fn what_is_kept_is_what_was_there_at_its_positions() {
    let all = read(&whole());
    for dropped in [vec![41], vec![42], vec![43], vec![41, 43], vec![41, 42, 43]] {
        let block = without(dropped.clone());
        let kept = all
            .iter()
            .filter(|event| !dropped.contains(&event.position.0));
        let kept: Vec<_> = kept.cloned().collect();
        assert_eq!(read(&block), kept, "without {dropped:?}");
        assert_eq!(block.events_kept() as usize, kept.len());
        for from in 40..45 {
            let tail = block.events_from(Position(from)).map(Result::unwrap);
            let expected = kept
                .iter()
                .filter(|event| event.position.0 >= from)
                .cloned();
            assert_eq!(tail.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
        }
    }
}

#[test]
fn a_thinned_block_keeps_its_place_and_its_digest() {
    let (before, after) = (whole(), without([42]));
    assert_eq!(after.digest(), before.digest());
    let of = |block: &Block| {
        let header = block.header();
        (header.epoch, header.first, header.last(), header.previous)
    };
    assert_eq!(of(&after), of(&before));
}

#[test]
fn thinning_step_by_step_is_thinning_at_once() {
    let steps = without([42]).thin(&positions([41])).unwrap().unwrap();
    assert_eq!(steps.block.bytes(), without([41, 42]).bytes());
    assert_eq!(steps.events, 1);
}

#[test]
fn what_is_not_there_is_not_dropped() {
    assert!(whole().thin(&positions([40, 44])).unwrap().is_none());
    assert!(without([42]).thin(&positions([42])).unwrap().is_none());
}

#[test]
fn dropped_bytes_are_counted_and_gone() {
    let thinning = whole().thin(&positions([42])).unwrap().unwrap();
    let grown = EXTENSION_BYTES + 2 * ORDINAL_BYTES;
    let left = whole().len_bytes() + grown - thinning.block.len_bytes();
    assert_eq!((thinning.events, thinning.bytes), (1, left as u64));
    let found = |block: &Block| block.bytes().windows(5).any(|bytes| bytes == b"South");
    assert!(found(&whole()) && !found(&thinning.block));
}

#[test]
fn a_block_without_events_is_a_header_alone() {
    let stub = without([41, 42, 43]);
    assert_eq!(
        (stub.len_bytes(), stub.events().count()),
        (THINNED_HEADER_BYTES, 0)
    );
}

#[test]
fn a_damaged_block_is_not_thinned() {
    let mut bytes = encoded().bytes;
    *bytes.last_mut().unwrap() ^= 1;
    let damaged = Block::parse(bytes.into()).unwrap();
    let error = damaged.thin(&positions([41])).unwrap_err();
    assert_eq!(error, BlockError::Entry(Position(43)));
}

#[test]
fn a_thinned_block_is_made_again_of_what_is_kept() {
    for dropped in [vec![41], vec![42], vec![41, 42, 43]] {
        let block = without(dropped);
        let header = block.header();
        let made = encode_thinned(
            header.epoch,
            (header.first, header.count),
            (header.previous, block.digest()),
            read(&block).iter(),
        );
        assert_eq!(
            (&made.bytes, made.digest),
            (&block.bytes().to_vec(), block.digest())
        );
        assert_eq!(made.last, Position(43));
    }
}

#[test]
fn golden_bytes_of_format_2_still_read() {
    let golden = const_hex::decode(include_str!("../../block_v2.hex").trim()).unwrap();
    let block = Block::parse(golden.clone().into()).unwrap();
    let kept: Vec<_> = read(&block).into_iter().map(|event| event.event).collect();
    let [first, _, last] = events().try_into().unwrap();
    assert_eq!(kept, [first, last]);
    assert_eq!(without([42]).bytes(), &golden);
}

#[test]
fn every_flipped_bit_is_found() {
    for dropped in [vec![42], vec![41, 42], vec![41, 42, 43]] {
        let good = without(dropped).bytes().to_vec();
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let Ok(block) = Block::parse(bytes.into()) else {
                continue;
            };
            // Also by a reader who passes over what comes before.
            for from in 40..=44 {
                let intact = block.events_from(Position(from)).all(|event| event.is_ok());
                let unread = from > 43 || block.events_kept() == 0;
                assert!(!intact || unread, "bit {bit} from {from}");
            }
            assert!(block.events().any(|event| event.is_err()), "bit {bit}");
        }
    }
}

#[test]
fn every_cut_is_found() {
    let good = without([42]).bytes().to_vec();
    for length in 0..good.len() {
        assert!(
            Block::parse(good[..length].to_vec().into()).is_err(),
            "{length}"
        );
    }
}

/// The header of one thinned block must not be taken for that of another.
#[test]
fn parts_of_two_thinned_blocks_are_no_block() {
    let stub = |first| {
        let block = encode_block(
            Epoch(1),
            Position(first),
            Digest::default(),
            events().iter(),
        );
        let block = Block::parse(block.bytes.into()).unwrap();
        let thinning = block.thin(&positions(first..first + 3)).unwrap();
        thinning.unwrap().block.bytes().to_vec()
    };
    let start = super::super::HEADER_BYTES;
    let mixed = [&stub(1)[..start], &stub(4)[start..]].concat();
    assert_eq!(Block::parse(mixed.into()).unwrap_err(), BlockError::Header);
}

#[test]
fn thinned_blocks_are_taken_off_a_stream_when_they_are_whole() {
    let block = without([42]).bytes().to_vec();
    let mut stream = BytesMut::new();
    for byte in block.iter().chain(&block) {
        stream.extend_from_slice(&[*byte]);
        let taken = Block::split_off(&mut stream).unwrap();
        assert_eq!(taken.is_some(), stream.is_empty());
        assert!(taken.is_none_or(|taken| taken.bytes() == &block));
    }
}

#[test]
fn thinned_blocks_are_found_in_raw_bytes() {
    let [some, none] = [without([42]), without([41, 42, 43])];
    let raw = [&b"HKPLxx"[..], some.bytes(), none.bytes()];
    let raw = Bytes::from(raw.concat());
    assert!(find_blocks(&raw).all(|header| header.thinned.is_some()));
    assert_eq!(find_blocks(&raw).count(), 2);
}

#[test]
fn a_place_between_thinned_blocks_is_no_damage_and_a_damaged_entry_is() {
    let next = |first| {
        encode_block(
            Epoch(1),
            Position(first),
            Digest::default(),
            events().iter(),
        )
    };
    let thinned = without([42]);
    let raw = |thinned: &[u8]| {
        let parts = [thinned, b"..", &next(60).bytes, &next(63).bytes];
        Bytes::from(parts.concat())
    };
    assert_eq!(find_damage(&raw(thinned.bytes())), None);
    let mut damaged = thinned.bytes().to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    assert_eq!(find_damage(&raw(&damaged)), Some(Position(43)));
    let hole = [&next(60).bytes[..], &next(66).bytes].concat();
    assert_eq!(find_damage(&hole.into()), Some(Position(63)));
}
