//! Dropped events, and nothing else, are gone: from the log, from its copies, and from the disk.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod folder;
#[path = "drops/killed.rs"]
mod killed;
#[path = "drops/torn.rs"]
mod torn;

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use fjall::Database;
use folder::{Random, read_files};
use hookpool_core::{
    codec::Block,
    event::{Event, NewEvent, Request},
    position::{Epoch, Position},
};
use hookpool_fjall::{FjallLog, OpenError, Options, verify};
use hookpool_store::{EventLog as _, PageRequest, conformance::sample};
use tempfile::TempDir;

const EPOCH: Epoch = Epoch(0x1122_3344_5566_7788);
const STREAMS: [&str; 3] = ["sales", "hr", "it"];

/// Tries again while the folder is locked: a process that a test beside this one starts has all that is open here until it runs its own program.
fn open(dir: &Path) -> Result<FjallLog, OpenError> {
    for _ in 0..2_000 {
        match FjallLog::open(dir, Options::new(EPOCH)) {
            Err(OpenError::Locked { .. }) => std::thread::sleep(Duration::from_millis(1)),
            opened => return opened,
        }
    }
    FjallLog::open(dir, Options::new(EPOCH))
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

/// One to four events over the streams, with some body.
fn batch(n: u64) -> Vec<NewEvent> {
    let event = |k: u64| {
        let stream = STREAMS[usize::try_from((n * 7 + k) % 3).unwrap()];
        let body = format!(r#"{{"n":{n},"k":{k},"text":"{}"}}"#, "x".repeat(200));
        sample::event(stream, n * 10 + k, &body)
    };
    (0..=n % 4).map(event).collect()
}

fn append(log: &FjallLog, batches: std::ops::Range<u64>) {
    for n in batches {
        block_on(log.append(Request::each(batch(n)))).unwrap();
    }
}

fn drop_events(log: &FjallLog, positions: impl IntoIterator<Item = u64>) -> u64 {
    let positions = positions.into_iter().map(Position).collect();
    block_on(log.drop_events(positions)).unwrap().events
}

/// All events, read in every way, which agree.
fn read(log: &FjallLog) -> Vec<Event> {
    let all = |request: PageRequest| {
        let mut events = Vec::new();
        let mut after = Position::ZERO;
        while after < log.head() {
            let request = PageRequest {
                after,
                ..request.clone()
            };
            let page = block_on(log.page(request)).unwrap();
            events.extend(page.events);
            after = page.through;
        }
        events
    };
    let events = all(PageRequest::after(Position::ZERO));
    for name in STREAMS {
        let stream = sample::stream(name);
        let of_stream = |event: &&Event| event.event.stream == stream;
        let expected: Vec<_> = events.iter().filter(of_stream).cloned().collect();
        assert_eq!(
            all(PageRequest::of_stream(stream, Position::ZERO)),
            expected
        );
    }
    events
}

fn positions(events: &[Event]) -> Vec<u64> {
    events.iter().map(|event| event.position.0).collect()
}

/// Opening once more cuts the unused end off the journal.
fn trim(dir: &Path) {
    drop(open(dir).unwrap());
}

/// Moves everything into table files.
fn flush(dir: &Path) {
    let database = Database::builder(dir.join("db")).open().unwrap();
    for name in ["blocks", "streams"] {
        let keyspace = database.keyspace(name, Default::default).unwrap();
        keyspace.rotate_memtable_and_wait().unwrap();
    }
}

/// A program that does not know thinned blocks must refuse the log by name.
#[test]
fn a_log_says_in_its_format_that_events_were_dropped() {
    let dir = TempDir::new().unwrap();
    let format = || fs::read_to_string(dir.path().join("format")).unwrap();
    let log = open(dir.path()).unwrap();
    append(&log, 0..3);
    drop_events(&log, [100]);
    assert!(format().starts_with("hookpool-log 1\n"));
    drop_events(&log, [1]);
    assert!(format().starts_with("hookpool-log 2\n"));
    drop(log);
    trim(dir.path());
    assert!(format().starts_with("hookpool-log 2\n"));
}

/// A copy is made of the same blocks, byte for byte.
fn copy_blocks(log: &FjallLog, dir: &Path) {
    let copy = open(dir).unwrap();
    let blocks = block_on(log.blocks(Position::ZERO, usize::MAX)).unwrap();
    for block in &blocks {
        copy.append_block(block).unwrap();
    }
    let copied = block_on(copy.blocks(Position::ZERO, usize::MAX)).unwrap();
    let bytes =
        |blocks: &[Block]| -> Vec<_> { blocks.iter().map(|it| it.bytes().clone()).collect() };
    assert_eq!(bytes(&copied), bytes(&blocks));
    assert_eq!(copy.end(), log.end());
}

/// A backup that was begun before events were dropped keeps them, and goes on with blocks that lost theirs.
#[test]
fn a_copy_that_was_begun_before_a_drop_goes_on_after_it() {
    let (dir, copy) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let log = open(dir.path()).unwrap();
    append(&log, 0..6);
    copy_blocks(&log, copy.path());
    let before = read(&log);
    append(&log, 6..12);
    let all = read(&log);
    let gone = (1..=log.head().0).filter(|position| position % 3 > 0);
    drop_events(&log, gone);
    let copied = open(copy.path()).unwrap();
    for block in block_on(log.blocks(copied.head(), usize::MAX)).unwrap() {
        copied.append_block(&block).unwrap();
    }
    assert_eq!(copied.end(), log.end());
    drop(copied);
    let copied = open(copy.path()).unwrap();
    let head = before.last().unwrap().position.0;
    let kept = all
        .into_iter()
        .filter(|event| event.position.0 <= head || event.position.0 % 3 == 0);
    assert_eq!(read(&copied), kept.collect::<Vec<_>>());
    drop(copied);
    assert_eq!(verify(copy.path(), |_| {}).unwrap().problem, None);
    let format = fs::read_to_string(copy.path().join("format")).unwrap();
    assert!(format.starts_with("hookpool-log 2\n"));
}

/// An append waits for one turn of a drop, not for all of it.
#[test]
fn appends_come_in_between_the_turns_of_a_drop() {
    const BLOCKS: u64 = 3_000;
    let dir = TempDir::new().unwrap();
    let log = open(dir.path()).unwrap();
    let one = |n| vec![sample::event("sales", n, "{}")];
    (0..BLOCKS).for_each(|n| drop(block_on(log.append(Request::each(one(n)))).unwrap()));
    let appended = std::thread::scope(|scope| {
        let dropping = scope.spawn(|| drop_events(&log, 1..=BLOCKS));
        let mut appended = 0;
        // Where the log begins after each append.
        let mut begins = BTreeSet::new();
        while !dropping.is_finished() {
            block_on(log.append(Request::each(one(BLOCKS + appended)))).unwrap();
            appended += 1;
            let first = PageRequest {
                events_max: 1,
                ..PageRequest::after(Position::ZERO)
            };
            let page = block_on(log.page(first)).unwrap();
            begins.insert(page.events[0].position.0);
        }
        assert_eq!(dropping.join().unwrap(), BLOCKS);
        begins.retain(|position| (2..=BLOCKS).contains(position));
        assert!(begins.len() > 5, "appends in between: {begins:?}");
        appended
    });
    let left = read(&log).len() as u64;
    assert_eq!(left, appended);
}

/// Many dropped bytes leave the disk, not only the log.
#[test]
fn many_dropped_bytes_are_given_back_to_the_disk() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path()).unwrap();
    let mut random = Random(0xd2);
    let mut large = |n: u64| {
        let bytes = std::iter::repeat_with(|| u8::try_from(random.below(256)).unwrap());
        let mut event = sample::event("sales", n, "");
        event.body = bytes.take(50_000).collect();
        event
    };
    for n in 0..85 {
        let events = (0..20).map(|k| large(n * 20 + k));
        block_on(log.append(Request::each(events))).unwrap();
    }
    let head = log.head().0;
    drop(log);
    // Neither half would be enough, and the log is closed in between.
    let mut dropped = 0;
    for half in [1..=head / 2, head / 2 + 1..=head] {
        let log = open(dir.path()).unwrap();
        dropped += drop_events(&log, half.filter(|position| position % 20 > 0));
    }
    assert_eq!(dropped, head / 20 * 19);
    let log = open(dir.path()).unwrap();
    assert!(read(&log).iter().all(|event| event.position.0 % 20 == 0));
    assert_eq!(read(&log).len() as u64, head / 20);
    drop(log);
    let files = read_files(dir.path());
    let tables = files
        .iter()
        .filter(|(name, _)| name.to_string_lossy().contains("tables"));
    let bytes: usize = tables.map(|(_, bytes)| bytes.len()).sum();
    assert!(bytes < 20_000_000, "{bytes} bytes of tables");
    assert_eq!(verify(dir.path(), |_| {}).unwrap().problem, None);
}

/// An index row that names a dropped event, or all of a block that lost some, is damage and never a shorter page.
#[test]
fn an_index_that_does_not_fit_a_thinned_block_is_an_error() {
    // Blocks of one, two and three events; what is left of the third is its first event.
    let dir = TempDir::new().unwrap();
    let log = open(dir.path()).unwrap();
    append(&log, 0..3);
    drop_events(&log, [5, 6]);
    let left = read(&log).pop().unwrap();
    assert_eq!(left.position, Position(4));
    drop(log);
    let stream = left.event.stream;
    let key = [stream.as_str().as_bytes(), &[0], &4_u64.to_be_bytes()].concat();
    let row = |ordinals: &[u32]| -> Vec<u8> {
        ordinals
            .iter()
            .flat_map(|ordinal| ordinal.to_le_bytes())
            .collect()
    };
    for (wrong, row) in [
        (true, row(&[0, 1])),
        (true, row(&[])),
        (true, row(&[1])),
        (false, row(&[0])),
    ] {
        let database = Database::builder(dir.path().join("db")).open().unwrap();
        let streams = database.keyspace("streams", Default::default).unwrap();
        let mut batch = database.batch();
        batch.insert(&streams, key.clone(), row.clone());
        batch.commit().unwrap();
        drop((streams, database));
        assert_eq!(open(dir.path()).is_err(), wrong, "{row:?}");
        assert_eq!(verify(dir.path(), |_| {}).unwrap().problem.is_some(), wrong);
        // Further back than what is checked when a log opens.
        let options = Options {
            verify_bytes: 0,
            ..Options::new(EPOCH)
        };
        let log = FjallLog::open(dir.path(), options).unwrap();
        let request = PageRequest::of_stream(stream.clone(), Position::ZERO);
        assert_eq!(block_on(log.page(request)).is_err(), wrong, "{row:?}");
    }
}
