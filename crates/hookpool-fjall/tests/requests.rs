//! The index of idempotency keys: it is a hint that is never believed alone, and copies have it too.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::{fs, path::Path};

use fjall::{Database, Keyspace, PersistMode};
use hookpool_core::{
    event::Request,
    position::{Epoch, Position},
};
use hookpool_fjall::{FjallLog, OpenError, Options, verify};
use hookpool_store::{
    AppendError, Appended, EventLog as _, conformance::sample, dedupe::IDEMPOTENCY_SECONDS,
};
use tempfile::TempDir;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(future)
}

fn open(dir: &Path) -> FjallLog {
    FjallLog::open(dir, Options::new(Epoch(7))).unwrap()
}

/// A request at this second, with the key.
fn append(log: &FjallLog, second: u64, key: u8) -> Result<Appended, AppendError> {
    let batch = Request::each([sample::identified("sales", second, key)]);
    block_on(log.append(batch)).map(|outcomes| outcomes[0])
}

/// A log with a request for each of these keys, a second apart; none for 9.
fn log_of(keys: &[u8]) -> TempDir {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path());
    for (second, key) in (0..).zip(keys) {
        append(&log, second, *key).unwrap();
    }
    dir
}

/// Changes rows behind the log's back.
fn with_rows(dir: &Path, change: impl FnOnce(&Database, &Keyspace)) {
    let database = Database::builder(dir.join("db")).open().unwrap();
    let rows = database.keyspace("requests", Default::default).unwrap();
    change(&database, &rows);
    database.persist(PersistMode::SyncAll).unwrap();
}

/// An intact row, as `docs/storage.md` has it.
fn row(key: [u8; 16], position: u64, second: u64) -> Vec<u8> {
    let micros = (1_700_000_000 + second) * 1_000_000;
    let mut row = vec![2];
    row.extend_from_slice(&position.to_le_bytes());
    row.extend_from_slice(&u64::to_le_bytes(micros));
    let crc = crc32fast::hash(&[&key[..], &row].concat());
    row.extend_from_slice(&crc.to_le_bytes());
    row
}

fn put(dir: &Path, key: [u8; 16], row: Vec<u8>) {
    with_rows(dir, |database, rows| {
        let mut batch = database.batch();
        batch.insert(rows, key, row);
        batch.commit().unwrap();
    });
}

fn problem(dir: &Path) -> Option<String> {
    let report = verify(dir, |_| {}).unwrap();
    report.problem.map(|problem| problem.what)
}

#[test]
fn the_row_is_what_the_documentation_says() {
    let dir = log_of(&[1, 2]);
    assert_eq!(problem(dir.path()), None);
    put(dir.path(), [2; 16], row([2; 16], 2, 1));
    assert_eq!(problem(dir.path()), None);
    let again = append(&open(dir.path()), 5, 2).unwrap();
    assert_eq!(again, Appended::Duplicate(Position(2)));
}

/// The key was never used, and a row says that it was: at an event with another key, at one without, past the head, before the first.
#[test]
fn a_row_that_is_wrong_is_never_answered_from() {
    for position in [1, 2, 3, 400, 0] {
        let dir = log_of(&[1, 2]);
        block_on(open(dir.path()).append(Request::each([sample::event("sales", 2, "{}")])))
            .unwrap();
        put(dir.path(), [9; 16], row([9; 16], position, 1));
        let what = problem(dir.path()).expect("a problem");
        assert!(what.contains("index of requests has 3 rows"), "{what}");
        let log = open(dir.path());
        let error = append(&log, 5, 9).unwrap_err();
        assert!(matches!(error, AppendError::Unknown(_)), "{error}");
        // Nothing of it was written, and the log goes on.
        assert_eq!(log.head(), Position(3));
        assert_eq!(
            append(&log, 6, 2).unwrap(),
            Appended::Duplicate(Position(2))
        );
        assert_eq!(append(&log, 6, 3).unwrap(), Appended::New(Position(4)));
    }
}

#[test]
fn a_row_of_another_key_is_damaged() {
    let dir = log_of(&[1, 2]);
    put(dir.path(), [9; 16], row([1; 16], 1, 0));
    assert!(problem(dir.path()).unwrap().contains("is damaged"));
    let log = open(dir.path());
    assert!(
        append(&log, 5, 9)
            .unwrap_err()
            .to_string()
            .contains("is damaged")
    );
}

/// Or the request would be appended again.
#[test]
fn a_log_without_a_row_that_counts_is_refused() {
    let dir = log_of(&[1, 2, 3]);
    with_rows(dir.path(), |database, rows| {
        let mut batch = database.batch();
        batch.remove(rows, [2; 16]);
        batch.commit().unwrap();
    });
    let error = FjallLog::open(dir.path(), Options::new(Epoch(7))).unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("at position 2"), "{error}");
    assert!(problem(dir.path()).unwrap().contains("at position 2"));
}

#[test]
fn a_row_that_has_expired_is_not_missed() {
    let dir = log_of(&[1, 2]);
    append(&open(dir.path()), IDEMPOTENCY_SECONDS + 2, 3).unwrap();
    with_rows(dir.path(), |database, rows| {
        let mut batch = database.batch();
        batch.remove(rows, [1; 16]);
        batch.remove(rows, [2; 16]);
        batch.commit().unwrap();
    });
    assert_eq!(problem(dir.path()), None);
    let log = open(dir.path());
    let late = append(&log, IDEMPOTENCY_SECONDS + 2, 1).unwrap();
    assert_eq!(late, Appended::New(Position(4)));
}

/// A copy answers as the log that it was made of, also of what was in it before.
#[test]
fn a_copy_knows_the_keys() {
    let dir = log_of(&[1, 2, 3]);
    let copy = TempDir::new().unwrap();
    {
        let (log, copy) = (open(dir.path()), open(copy.path()));
        for block in block_on(log.blocks(Position::ZERO, usize::MAX)).unwrap() {
            copy.append_block(&block).unwrap();
        }
        let again = append(&copy, 5, 2).unwrap();
        assert_eq!(again, Appended::Duplicate(Position(2)));
    }
    assert_eq!(problem(copy.path()), None);
    let again = append(&open(copy.path()), 5, 3).unwrap();
    assert_eq!(again, Appended::Duplicate(Position(3)));
}

/// A flipped byte in a table of it is found before the log opens, and by `verify`.
#[test]
fn damaged_tables_of_it_are_found() {
    let dir = log_of(&[1, 2, 3]);
    with_rows(dir.path(), |_, rows| {
        rows.rotate_memtable_and_wait().unwrap()
    });
    let tables = dir.path().join("db/keyspaces/3/tables");
    let table = fs::read_dir(tables)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let whole = fs::read(&table).unwrap();
    for at in (0..whole.len()).step_by(7) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x40;
        fs::write(&table, bytes).unwrap();
        assert!(
            FjallLog::open(dir.path(), Options::new(Epoch(7))).is_err(),
            "{at}"
        );
        assert!(
            verify(dir.path(), |_| {}).unwrap().problem.is_some(),
            "{at}"
        );
    }
    fs::write(&table, whole).unwrap();
    assert_eq!(problem(dir.path()), None);
}
