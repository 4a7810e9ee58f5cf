//! What only shows inside an open log: rows of the index of requests that leave when fjall merges tables.

use fjall::Readable as _;
use hookpool_store::{conformance::sample, dedupe::IDEMPOTENCY_SECONDS};

use super::*;

const DAY: u64 = 24 * 60 * 60;

fn append(log: &FjallLog, second: u64, key: u8) -> Appended {
    let batch = Request::each([sample::identified("sales", second, key)]);
    log.commit(&batch).unwrap()[0]
}

/// Merges all tables of the index, as fjall does from time to time.
fn merge(log: &FjallLog) -> usize {
    log.requests.rotate_memtable_and_wait().unwrap();
    log.requests.major_compact().unwrap();
    log.database.snapshot().iter(&log.requests).count()
}

#[test]
fn rows_leave_when_they_have_expired_and_a_day_has_passed() {
    let dir = tempfile::tempdir().unwrap();
    let open = || FjallLog::open(dir.path(), Options::new(Epoch(7))).unwrap();
    let mut log = open();
    for key in 0..3 {
        append(&log, key.into(), key);
    }
    assert_eq!(merge(&log), 3);
    for (second, key, left) in [
        (IDEMPOTENCY_SECONDS + 5, 10, 4),
        (IDEMPOTENCY_SECONDS + DAY, 11, 5),
        (IDEMPOTENCY_SECONDS + DAY + 1, 12, 5),
        (IDEMPOTENCY_SECONDS + DAY + 3, 13, 3 + 1),
    ] {
        assert_eq!(append(&log, second, key), Appended::New(log.head()));
        assert_eq!(merge(&log), left, "{second}");
        drop(log);
        log = open();
        assert_eq!(merge(&log), left, "{second}, opened again");
    }
    assert_eq!(
        append(&log, IDEMPOTENCY_SECONDS + DAY + 3, 10),
        Appended::Duplicate(Position(4))
    );
    assert_eq!(
        append(&log, IDEMPOTENCY_SECONDS + DAY + 3, 1),
        Appended::New(Position(8))
    );
    drop(log);
    assert_eq!(crate::verify(dir.path(), |_| {}).unwrap().problem, None);
}

/// An older row of the same key comes to light when the newer one is removed; it counts even less.
#[test]
fn a_key_that_was_used_again_is_forgotten_as_a_whole() {
    let dir = tempfile::tempdir().unwrap();
    let log = FjallLog::open(dir.path(), Options::new(Epoch(7))).unwrap();
    append(&log, 0, 1);
    merge(&log);
    let again = IDEMPOTENCY_SECONDS + 1;
    assert_eq!(append(&log, again, 1), Appended::New(Position(2)));
    log.requests.rotate_memtable_and_wait().unwrap();
    let late = again + IDEMPOTENCY_SECONDS + DAY + 1;
    append(&log, late, 2);
    assert_eq!(merge(&log), 1);
    assert_eq!(append(&log, late, 1), Appended::New(Position(4)));
}
