//! What a log promises of its blocks and its end.

use std::sync::Arc;

use hookpool_core::{
    codec::{Block, Digest},
    event::Event,
    position::Position,
};

use super::{LogFixture, append, everything, fill, sample};
use crate::log::{EventLog, LogEnd};

async fn blocks(log: &impl EventLog, after: Position, bytes_max: usize) -> Vec<Block> {
    log.blocks(after, bytes_max).await.expect("blocks")
}

/// All blocks, read a few at a time.
pub(super) async fn all_blocks(log: &impl EventLog, bytes_max: usize) -> Vec<Block> {
    let mut all: Vec<Block> = Vec::new();
    let last = |all: &[Block]| {
        all.last()
            .map_or(Position::ZERO, |block| block.header().last())
    };
    while last(&all) < log.head() {
        let some = blocks(log, last(&all), bytes_max).await;
        assert!(!some.is_empty(), "there are blocks up to the head");
        all.extend(some);
    }
    all
}

fn events_of(blocks: &[Block]) -> Vec<Event> {
    let events = blocks.iter().flat_map(Block::events);
    events.collect::<Result<_, _>>().expect("intact events")
}

/// Each names the digest of the one before it, the first one zeros.
fn assert_chained(blocks: &[Block]) {
    let mut previous = Digest::default();
    for block in blocks {
        assert_eq!(block.header().previous, previous);
        previous = block.digest();
    }
}

/// The events lie in blocks. A block ... names the digest of the one before it, the first one zeros.
pub async fn blocks_hold_every_event_and_are_chained<F: LogFixture>(fixture: &mut F) {
    let log = fixture.create().await;
    assert_eq!(blocks(&log, Position::ZERO, usize::MAX).await.len(), 0);
    let events = fill(&log).await;
    for bytes_max in [0, 1, 1_000, usize::MAX] {
        let blocks = all_blocks(&log, bytes_max).await;
        assert_chained(&blocks);
        assert_eq!(events_of(&blocks), events, "{bytes_max}");
        assert!(
            blocks
                .iter()
                .all(|block| block.header().epoch == log.epoch())
        );
    }
}

/// The intact blocks that end after a position ...: no further one once they have `bytes_max` bytes, and at least one if there is any.
pub async fn blocks_after_a_position_are_whole_and_bounded<F: LogFixture>(fixture: &mut F) {
    let log = fixture.create().await;
    fill(&log).await;
    let all = all_blocks(&log, usize::MAX).await;
    let headers =
        |blocks: &[Block]| -> Vec<_> { blocks.iter().map(|block| *block.header()).collect() };
    for after in (0..=log.head().0 + 2).map(Position) {
        let rest: Vec<_> = headers(&all)
            .into_iter()
            .filter(|header| header.last() > after)
            .collect();
        let whole = blocks(&log, after, usize::MAX).await;
        assert_eq!(headers(&whole), rest, "{after}");
        for bytes_max in [0, 1, 500, 2_000] {
            let some = blocks(&log, after, bytes_max).await;
            assert_eq!(headers(&some), rest[..some.len()], "{after} {bytes_max}");
            assert_eq!(some.is_empty(), rest.is_empty(), "{after} {bytes_max}");
            let before_last: usize = some.iter().rev().skip(1).map(Block::len_bytes).sum();
            assert!(before_last < bytes_max || some.len() <= 1);
        }
    }
}

/// **End** is the head with the digest of the block that ends there.
pub async fn the_end_is_the_head_with_the_digest_of_the_last_block<F: LogFixture>(fixture: &mut F) {
    let log = fixture.create().await;
    assert_eq!(log.end(), LogEnd::default());
    for n in 0..5 {
        append(&log, vec![sample::event("sales", n, "{}"); 3]).await;
        let all = all_blocks(&log, usize::MAX).await;
        let last = all.last().expect("a block");
        let end = LogEnd {
            head: last.header().last(),
            digest: last.digest(),
        };
        assert_eq!((log.end(), log.head()), (end, end.head));
    }
    append(&log, Vec::new()).await;
    let log = fixture.reopen(log).await;
    let last = all_blocks(&log, usize::MAX).await.pop().expect("a block");
    assert_eq!(log.end().digest, last.digest());
}

/// ... and none ends past the head. Both are of one moment.
pub async fn blocks_never_end_past_the_head<F: LogFixture>(fixture: &mut F) {
    const COMMITS: u64 = 100;
    let log = Arc::new(fixture.create().await);
    let reader = tokio::spawn({
        let log = Arc::clone(&log);
        async move {
            let mut all: Vec<Block> = Vec::new();
            let mut after = Position::ZERO;
            while (all.len() as u64) < COMMITS {
                let head = log.wait(after).await;
                let some = blocks(log.as_ref(), after, 1_000).await;
                let end = log.end();
                after = some.last().expect("a block").header().last();
                assert!(after <= end.head && head <= end.head);
                if after == end.head {
                    assert_eq!(some.last().map(Block::digest), Some(end.digest));
                }
                all.extend(some);
            }
            all
        }
    });
    for n in 0..COMMITS {
        append(log.as_ref(), vec![sample::event("sales", n, "{}")]).await;
    }
    let all = reader.await.expect("a reader");
    assert_chained(&all);
    assert_eq!(events_of(&all), everything(log.as_ref()).await);
}

/// A block never changes.
pub async fn blocks_are_the_same_after_reopening<F: LogFixture>(fixture: &mut F) {
    let log = fixture.create().await;
    fill(&log).await;
    let digests = |blocks: Vec<Block>| -> Vec<_> { blocks.iter().map(Block::digest).collect() };
    let before = digests(all_blocks(&log, usize::MAX).await);
    let end = log.end();
    let log = fixture.reopen(log).await;
    assert_eq!(log.end(), end);
    append(&log, vec![sample::event("sales", 40, "{}")]).await;
    let all = all_blocks(&log, usize::MAX).await;
    assert_chained(&all);
    let after = digests(all);
    assert_eq!(after[..before.len()], before);
}
