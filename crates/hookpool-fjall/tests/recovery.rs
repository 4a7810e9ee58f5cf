//! What opening does with a folder that a crash, a power cut or an operator left behind.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use hookpool_core::{
    codec::{Digest, encode_block},
    event::{NewEvent, Request},
    position::{Epoch, Position},
};
use hookpool_fjall::{FjallLog, FjallPool, OpenError, Options, verify};
use hookpool_store::{AppendError, EventLog as _, PageRequest, conformance::sample};
use tempfile::TempDir;

const EPOCH: Epoch = Epoch(0x1122_3344_5566_7788);

fn open(dir: &Path) -> Result<FjallLog, OpenError> {
    FjallLog::open(dir, Options::new(EPOCH))
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

fn batch(block: u64) -> Vec<NewEvent> {
    let event = |n| sample::event("sales", block * 10 + n, &format!(r#"{{"n":{block}}}"#));
    (0..3).map(event).collect()
}

fn append(log: &FjallLog, events: Vec<NewEvent>) {
    block_on(log.append(Request::each(events))).unwrap();
}

/// How many events can be read.
fn count(log: &FjallLog) -> usize {
    let page = block_on(log.page(PageRequest::after(Position::ZERO))).unwrap();
    assert_eq!(page.through, log.head());
    page.events.len()
}

/// A log of some blocks of three events, all in a journal without unused space.
fn log_of(dir: &Path, blocks: u64) {
    let log = open(dir).unwrap();
    (0..blocks).for_each(|block| append(&log, batch(block)));
    drop(log);
    drop(open(dir).unwrap());
}

fn journal(dir: &Path) -> PathBuf {
    dir.join("db/0.jnl")
}

/// Ten blocks, of which the last was never acknowledged: the witness is from before it.
struct Torn {
    dir: TempDir,
    /// Where the last batch begins, and all of the journal.
    at: usize,
    journal: Vec<u8>,
    witness: Vec<u8>,
    last_witness: Vec<u8>,
}

impl Torn {
    fn new(last: Vec<NewEvent>) -> Self {
        let dir = TempDir::new().unwrap();
        log_of(dir.path(), 9);
        let witness = fs::read(dir.path().join("witness")).unwrap();
        let at = fs::read(journal(dir.path())).unwrap().len();
        append(&open(dir.path()).unwrap(), last);
        let last_witness = fs::read(dir.path().join("witness")).unwrap();
        let journal = fs::read(journal(dir.path())).unwrap();
        assert!(journal.len() > at);
        Self {
            dir,
            at,
            journal,
            witness,
            last_witness,
        }
    }

    fn open(&self, journal_bytes: &[u8], witness: &[u8]) -> Result<FjallLog, OpenError> {
        fs::write(journal(self.dir.path()), journal_bytes).unwrap();
        fs::write(self.dir.path().join("witness"), witness).unwrap();
        open(self.dir.path())
    }

    /// The unacknowledged batch torn in many ways: cut, cut with zeros behind, a lost sector or page.
    fn torn_journals(&self) -> Vec<Vec<u8>> {
        let mut journals = Vec::new();
        let length = self.journal.len();
        for end in (self.at..length).step_by(197).chain([length - 1]) {
            journals.push(self.journal[..end].to_vec());
            let mut zeros = self.journal[..end].to_vec();
            zeros.resize(length + 4096, 0);
            journals.push(zeros);
        }
        for sector in [256, 512, 4096] {
            for start in (self.at..length).step_by(sector) {
                let mut holed = self.journal.clone();
                let end = (start + sector).min(length);
                holed[start..end].fill(0);
                journals.push(holed);
            }
        }
        // Zeroing zeros tears nothing.
        journals.retain(|journal| *journal != self.journal);
        journals
    }
}

fn large_batch() -> Vec<NewEvent> {
    let body = format!(r#"{{"text":"{}"}}"#, "x".repeat(3_000));
    (0..3).map(|n| sample::event("sales", n, &body)).collect()
}

#[test]
fn a_torn_batch_that_nobody_was_told_of_is_dropped_and_saved() {
    let torn = Torn::new(large_batch());
    let journals = torn.torn_journals();
    assert!(journals.len() > 100, "{}", journals.len());
    for bytes in journals {
        let _ = fs::remove_file(torn.dir.path().join("torn"));
        let log = torn.open(&bytes, &torn.witness).unwrap();
        assert_eq!((count(&log), log.head()), (27, Position(27)));
        let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        if used > torn.at {
            let saved = fs::read(torn.dir.path().join("torn")).unwrap();
            assert!(saved.starts_with(&bytes[torn.at..used]));
        }
        append(&log, batch(10));
        drop(log);
        assert_eq!(count(&open(torn.dir.path()).unwrap()), 30);
    }
}

#[test]
fn a_torn_batch_that_was_witnessed_is_refused_and_left_alone() {
    let torn = Torn::new(large_batch());
    for bytes in torn.torn_journals() {
        let error = torn.open(&bytes, &torn.last_witness).unwrap_err();
        assert!(
            matches!(error, OpenError::Shorter { .. } | OpenError::Damaged { .. }),
            "{error}"
        );
        assert_eq!(fs::read(journal(torn.dir.path())).unwrap(), bytes);
    }
}

/// The last batch is whole, though nobody was told: it may be kept.
#[test]
fn a_whole_batch_after_the_witness_is_kept() {
    let torn = Torn::new(large_batch());
    let log = torn.open(&torn.journal, &torn.witness).unwrap();
    assert_eq!(count(&log), 30);
}

/// What a producer posts must not be taken for blocks of the log.
#[test]
fn a_body_that_holds_a_block_does_not_keep_a_log_from_opening() {
    let forged =
        |first, n| encode_block(EPOCH, Position(first), Digest::default(), batch(n).iter()).bytes;
    let body = [forged(28, 1), forged(31, 2), forged(1_000_000, 3)].concat();
    let mut events = large_batch();
    events[0].body = body.into();
    let torn = Torn::new(events);
    for end in (torn.at..torn.journal.len()).step_by(149) {
        let mut bytes = torn.journal[..end].to_vec();
        bytes.resize(torn.journal.len() + 512, 0);
        let log = torn.open(&bytes, &torn.witness).unwrap();
        assert_eq!(count(&log), 27, "cut at {end}");
    }
    let log = torn.open(&torn.journal, &torn.witness).unwrap();
    assert_eq!(count(&log), 30);
}

#[test]
fn a_witness_that_does_not_vouch_is_refused_until_the_log_is_accepted() {
    let dir = TempDir::new().unwrap();
    log_of(dir.path(), 5);
    let path = dir.path().join("witness");
    let good = fs::read(&path).unwrap();
    let other = TempDir::new().unwrap();
    drop(FjallLog::open(other.path(), Options::new(Epoch(9))).unwrap());
    let foreign = fs::read(other.path().join("witness")).unwrap();
    for witness in [None, Some(good[..20].to_vec()), Some(foreign)] {
        let _ = fs::remove_file(&path);
        if let Some(bytes) = witness {
            fs::write(&path, bytes).unwrap();
        }
        let error = open(dir.path()).unwrap_err();
        assert!(matches!(error, OpenError::Witness { .. }), "{error}");
        let report = verify(dir.path(), |_| {}).unwrap();
        assert_eq!((report.events, report.head), (15, Position(15)));
        fs::write(dir.path().join("accept"), report.accept.unwrap()).unwrap();
        assert_eq!(count(&open(dir.path()).unwrap()), 15);
        assert!(!dir.path().join("accept").exists());
        assert_eq!(fs::read(&path).unwrap(), good);
    }
}

#[test]
fn a_log_that_came_back_shorter_is_refused_until_the_loss_is_accepted() {
    let dir = TempDir::new().unwrap();
    log_of(dir.path(), 5);
    let short = fs::read(journal(dir.path())).unwrap();
    append(&open(dir.path()).unwrap(), batch(5));
    fs::write(journal(dir.path()), short).unwrap();
    let error = open(dir.path()).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("ends at position 15, but 18 was durable"),
        "{text}"
    );
    let report = verify(dir.path(), |_| {}).unwrap();
    assert!(report.problem.unwrap().what.contains("shorter"));
    fs::write(dir.path().join("accept"), report.accept.unwrap()).unwrap();
    assert_eq!(count(&open(dir.path()).unwrap()), 15);
    assert_eq!(count(&open(dir.path()).unwrap()), 15);
}

#[test]
fn a_journal_damaged_in_the_middle_is_refused_until_the_rest_is_given_up() {
    let dir = TempDir::new().unwrap();
    log_of(dir.path(), 5);
    let at = fs::read(journal(dir.path())).unwrap().len();
    let log = open(dir.path()).unwrap();
    (5..9).for_each(|block| append(&log, batch(block)));
    drop(log);
    let mut bytes = fs::read(journal(dir.path())).unwrap();
    bytes[at + 1] ^= 1;
    fs::write(journal(dir.path()), &bytes).unwrap();
    assert!(matches!(open(dir.path()), Err(OpenError::Damaged { .. })));
    let report = verify(dir.path(), |_| {}).unwrap();
    assert_eq!(report.problem.unwrap().after, Position(15));
    assert_eq!(fs::read(journal(dir.path())).unwrap(), bytes);
    fs::write(dir.path().join("accept"), report.accept.unwrap()).unwrap();
    assert_eq!(count(&open(dir.path()).unwrap()), 15);
    assert_eq!(
        fs::read(dir.path().join("torn")).unwrap(),
        bytes[at..bytes.len()]
    );
}

#[test]
fn an_accepted_end_that_is_not_the_end_accepts_nothing() {
    let dir = TempDir::new().unwrap();
    log_of(dir.path(), 5);
    fs::remove_file(dir.path().join("witness")).unwrap();
    let line = verify(dir.path(), |_| {}).unwrap().accept.unwrap();
    for wrong in [
        line.replace(" 15 ", " 14 "),
        line.replacen('1', "2", 1),
        String::new(),
    ] {
        fs::write(dir.path().join("accept"), wrong).unwrap();
        assert!(open(dir.path()).is_err());
    }
}

#[test]
fn a_log_is_open_once() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path()).unwrap();
    let error = open(dir.path()).unwrap_err();
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    assert!(matches!(
        verify(dir.path(), |_| {}),
        Err(OpenError::Locked { .. })
    ));
    drop(log);
    open(dir.path()).unwrap();
}

#[test]
fn a_creation_that_was_killed_starts_again() {
    let finished = TempDir::new().unwrap();
    drop(open(finished.path()).unwrap());
    for files in [
        &["db.new"][..],
        &["db.new", "witness"],
        &["db.new", "witness", "format"],
    ] {
        let dir = TempDir::new().unwrap();
        for name in files {
            if *name == "db.new" {
                fs::create_dir(dir.path().join(name)).unwrap();
                fs::write(dir.path().join("db.new/0.jnl"), "part").unwrap();
            } else {
                fs::copy(finished.path().join(name), dir.path().join(name)).unwrap();
            }
        }
        let log = FjallLog::open(dir.path(), Options::new(Epoch(5))).unwrap();
        assert_eq!(log.epoch(), Epoch(5));
        append(&log, batch(1));
    }
}

#[test]
fn a_log_whose_database_is_gone_is_not_created_anew() {
    let dir = TempDir::new().unwrap();
    log_of(dir.path(), 2);
    fs::remove_dir_all(dir.path().join("db")).unwrap();
    let error = open(dir.path()).unwrap_err();
    assert!(error.to_string().contains("`db` is missing"), "{error}");
}

#[test]
fn a_newer_layout_is_refused_by_name() {
    let dir = TempDir::new().unwrap();
    log_of(dir.path(), 1);
    fs::write(dir.path().join("format"), "hookpool-log 3\nanything\n").unwrap();
    let error = open(dir.path()).unwrap_err();
    assert!(error.to_string().contains("start that version"), "{error}");
}

#[test]
fn a_folder_that_can_not_be_made_is_named() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let error = open(&dir.path().join("file/log")).unwrap_err();
    assert!(matches!(error, OpenError::Unusable { .. }), "{error}");
}

/// A witness that can't be written is a failed disk: nothing more is acknowledged, reads go on.
#[test]
fn after_the_first_failed_write_every_append_fails_and_reads_go_on() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path()).unwrap();
    append(&log, batch(0));
    fs::create_dir(dir.path().join("witness.new"))
        .or_else(|_| {
            let _ = fs::remove_file(dir.path().join("witness.new"));
            fs::create_dir(dir.path().join("witness.new"))
        })
        .unwrap();
    let mut acknowledged = 3;
    let failed = (0..200).find_map(|n| {
        std::thread::sleep(Duration::from_millis(10));
        match block_on(log.append(Request::each(batch(n)))) {
            Ok(_) => {
                acknowledged += 3;
                None
            }
            Err(error) => Some(error),
        }
    });
    assert!(matches!(failed, Some(AppendError::Final(_))));
    fs::remove_dir(dir.path().join("witness.new")).unwrap();
    for _ in 0..3 {
        let again = block_on(log.append(Request::each(batch(1))));
        assert!(matches!(again, Err(AppendError::Final(_))));
    }
    assert_eq!(count(&log), acknowledged);
    drop(log);
    assert_eq!(count(&open(dir.path()).unwrap()), acknowledged);
}

#[test]
fn verification_of_an_intact_log_counts_it() {
    let dir = TempDir::new().unwrap();
    log_of(dir.path(), 7);
    let mut last = None;
    let report = verify(dir.path(), |progress| last = Some(progress)).unwrap();
    assert_eq!((report.events, report.blocks), (21, 7));
    assert_eq!((report.head, report.epoch), (Position(21), EPOCH));
    assert_eq!((report.problem, report.accept), (None, None));
    let last = last.unwrap();
    assert_eq!((last.position, last.head), (Position(21), Position(21)));
}

#[test]
fn verification_of_nothing_makes_nothing() {
    let dir = TempDir::new().unwrap();
    let missing = dir.path().join("log");
    assert!(matches!(
        verify(&missing, |_| {}),
        Err(OpenError::Missing { .. })
    ));
    assert!(!missing.exists());
}

#[test]
fn a_damaged_pool_says_that_it_may_be_deleted() {
    let dir = TempDir::new().unwrap();
    drop(FjallPool::open(dir.path()).unwrap());
    fs::write(dir.path().join("db/keyspaces/1/current"), "nonsense").unwrap();
    let error = FjallPool::open(dir.path()).unwrap_err();
    assert!(error.to_string().contains("delete this folder"), "{error}");
    fs::remove_dir_all(dir.path()).unwrap();
    FjallPool::open(dir.path()).unwrap();
}
