//! A copy that is made block by block is the same log; what is not its next block is refused and changes nothing.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::path::Path;

use bytes::Bytes;
use hookpool_core::{
    codec::{Block, Digest, encode_block},
    event::Request,
    position::{Epoch, Position},
};
use hookpool_fjall::{CopyError, FjallLog, Options, verify};
use hookpool_store::{Appended, EventLog as _, PageRequest, conformance::sample};
use tempfile::TempDir;

const EPOCH: Epoch = Epoch(7);

fn open(dir: &Path) -> FjallLog {
    FjallLog::open(dir, Options::new(EPOCH)).unwrap()
}

/// A log with blocks of one to three events, and one delivery with a key.
async fn source(dir: &Path) -> FjallLog {
    let log = open(dir);
    for n in 0..20 {
        let event = |k| sample::event(["sales", "hr"][k % 2], n, "{}");
        let batch = (0..=usize::try_from(n).unwrap() % 3).map(event);
        log.append(Request::each(batch)).await.unwrap();
    }
    log.append(Request::each(vec![sample::keyed("sales", 20, 9)]))
        .await
        .unwrap();
    log
}

#[tokio::test]
async fn a_copy_is_the_same_log_and_goes_on() {
    let dirs = [(); 2].map(|()| TempDir::new().unwrap());
    let log = source(dirs[0].path()).await;
    let blocks = log.blocks(Position::ZERO, usize::MAX).await.unwrap();
    for block in &blocks {
        // Opened again each time, as a copy that was cut off is.
        open(dirs[1].path()).append_block(block).unwrap();
    }
    let report = verify(dirs[1].path(), |_| {}).unwrap();
    assert_eq!(report.problem, None);
    let copy = open(dirs[1].path());
    assert_eq!((copy.end(), copy.epoch()), (log.end(), log.epoch()));
    let copied = copy.blocks(Position::ZERO, usize::MAX).await.unwrap();
    let bytes = |blocks: &[Block]| -> Vec<Bytes> {
        blocks.iter().map(|block| block.bytes().clone()).collect()
    };
    assert_eq!(bytes(&copied), bytes(&blocks));
    let request = || PageRequest::of_stream(sample::stream("hr"), Position::ZERO);
    let page = copy.page(request()).await.unwrap();
    assert_eq!(page.events, log.page(request()).await.unwrap().events);
    let again = copy
        .append(Request::each(vec![sample::keyed("sales", 21, 9)]))
        .await;
    assert_eq!(again.unwrap(), [Appended::Duplicate(log.head())]);
    let next = copy
        .append(Request::each(vec![sample::event("sales", 22, "{}")]))
        .await;
    assert_eq!(next.unwrap(), [Appended::New(log.head().plus(1))]);
}

#[tokio::test]
async fn what_is_not_the_next_block_is_refused_and_changes_nothing() {
    let dirs = [(); 2].map(|()| TempDir::new().unwrap());
    let log = source(dirs[0].path()).await;
    let blocks = log.blocks(Position::ZERO, usize::MAX).await.unwrap();
    let copy = open(dirs[1].path());
    copy.append_block(&blocks[0]).unwrap();
    let end = copy.end();
    let made = |epoch, previous| {
        let event = sample::event("sales", 1, "{}");
        let block = encode_block(epoch, end.head.plus(1), previous, [event].iter());
        Block::parse(block.bytes.into()).unwrap()
    };
    let mut damaged = blocks[1].bytes().to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    let damaged = Block::parse(damaged.into()).unwrap();
    let refused = [
        &blocks[0],
        &blocks[2],
        &damaged,
        &made(Epoch(8), end.digest),
        &made(EPOCH, Digest::default()),
    ]
    .map(|block| copy.append_block(block).unwrap_err());
    assert!(matches!(
        refused,
        [
            CopyError::NotNext { .. },
            CopyError::NotNext { .. },
            CopyError::Damaged(_),
            CopyError::OtherLog { .. },
            CopyError::OtherHistory(_),
        ]
    ));
    assert_eq!(copy.end(), end);
    copy.append_block(&blocks[1]).unwrap();
}
