//! A drop that was torn or damaged on the disk leaves each event wholly there or gone, or the log is refused; its head stays.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use hookpool_fjall::{OpenError, verify};
use hookpool_store::{EventLog as _, LogEnd};
use tempfile::TempDir;

use crate::{
    append, drop_events, flush,
    folder::{Files, Random, read_files, write_files},
    open, positions, read, trim,
};

fn journal(dir: &Path) -> PathBuf {
    dir.join("db/0.jnl")
}

/// A log whose last writes dropped events from several blocks in one turn; closed in order, so all of it was witnessed.
struct Thinned {
    files: Files,
    /// Where the batches of these writes begin.
    at: usize,
    /// The events after each of them.
    states: Vec<Vec<u64>>,
    end: LogEnd,
}

impl Thinned {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        append(&open(dir.path()).unwrap(), 0..12);
        trim(dir.path());
        let at = fs::read(journal(dir.path())).unwrap().len();
        let log = open(dir.path()).unwrap();
        let all = positions(&read(&log));
        // Of four blocks: all of one, some of others, of the last one too.
        let drops: [&[u64]; 4] = [&[2, 3], &[5], &[12, 13], &[all.len() as u64]];
        drop_events(&log, drops.concat());
        let mut states = vec![all];
        for some in drops {
            let mut next = states.last().unwrap().clone();
            next.retain(|position| !some.contains(position));
            states.push(next);
        }
        assert_eq!(positions(&read(&log)), states[4]);
        let end = log.end();
        drop(log);
        trim(dir.path());
        Self {
            files: read_files(dir.path()),
            at,
            states,
            end,
        }
    }

    fn journal(&self) -> &[u8] {
        &self.files[Path::new("db/0.jnl")]
    }

    /// A copy with another journal.
    fn with_journal(&self, bytes: Vec<u8>) -> TempDir {
        let dir = TempDir::new().unwrap();
        let mut files = self.files.clone();
        files.insert("db/0.jnl".into(), bytes);
        write_files(dir.path(), &files);
        dir
    }
}

/// A torn write of blocks without their dropped events was not reported. It may be cut, and then the events are there.
#[test]
fn a_torn_drop_leaves_each_event_wholly_there_or_gone() {
    let thinned = Thinned::new();
    let whole = thinned.journal();
    let mut journals = Vec::new();
    for end in (thinned.at..whole.len())
        .step_by(61)
        .chain([whole.len() - 1])
    {
        journals.push(whole[..end].to_vec());
        let mut zeros = whole[..end].to_vec();
        zeros.resize(whole.len() + 4096, 0);
        journals.push(zeros);
    }
    for sector in [256, 512, 4096] {
        for start in (thinned.at..whole.len()).step_by(sector) {
            let mut holed = whole.to_vec();
            let end = (start + sector).min(whole.len());
            holed[start..end].fill(0);
            journals.push(holed);
        }
    }
    assert!(journals.len() > 60, "{}", journals.len());
    let mut seen = BTreeMap::<usize, u32>::new();
    for bytes in journals {
        let dir = thinned.with_journal(bytes);
        let log = open(dir.path()).unwrap();
        assert_eq!((log.head(), log.end()), (thinned.end.head, thinned.end));
        let there = positions(&read(&log));
        let state = thinned.states.iter().position(|state| *state == there);
        *seen.entry(state.expect("one of the states")).or_default() += 1;
        // Dropping goes on where it was.
        drop_events(
            &log,
            thinned.states[0]
                .iter()
                .copied()
                .filter(|position| !thinned.states[4].contains(position)),
        );
        assert_eq!(positions(&read(&log)), thinned.states[4]);
        append(&log, 12..13);
        drop(log);
        let report = verify(dir.path(), |_| {}).unwrap();
        assert_eq!((report.problem, report.dropped), (None, 6));
    }
    assert_eq!(seen.len(), 4, "{seen:?}");
}

/// What is cut for a torn drop must hold no commit: a damaged one before it is refused and left alone, also where the witness has not
/// seen it. The number of a batch is not under its checksum, so a log with another one may open, with every event.
#[test]
fn a_damaged_commit_before_a_drop_is_refused() {
    let dir = TempDir::new().unwrap();
    append(&open(dir.path()).unwrap(), 0..8);
    trim(dir.path());
    let witness = fs::read(dir.path().join("witness")).unwrap();
    let at = fs::read(journal(dir.path())).unwrap().len();
    append(&open(dir.path()).unwrap(), 8..9);
    trim(dir.path());
    let end = fs::read(journal(dir.path())).unwrap().len();
    drop_events(&open(dir.path()).unwrap(), [2, 9]);
    trim(dir.path());
    let good = read_files(dir.path());
    let kept = positions(&read(&open(dir.path()).unwrap()));
    let numbers = (at + 5) * 8..(at + 13) * 8;
    let mut random = Random(0xd0);
    // Every bit of what a batch begins with and of the header of its block, and others.
    let start = (at * 8..(at + 115) * 8).collect::<Vec<_>>();
    let others = std::iter::repeat_with(|| at * 8 + random.below((end - at) * 8));
    let bits: Vec<_> = start.into_iter().chain(others.take(100)).collect();
    for older_witness in [false, true] {
        for bit in bits.iter().step_by(if older_witness { 1 } else { 5 }) {
            let mut files = good.clone();
            files.get_mut(Path::new("db/0.jnl")).unwrap()[bit / 8] ^= 1 << (bit % 8);
            if older_witness {
                files.insert("witness".into(), witness.clone());
            }
            let dir = TempDir::new().unwrap();
            write_files(dir.path(), &files);
            let error = match open(dir.path()) {
                Ok(log) => {
                    assert!(numbers.contains(bit), "bit {bit}");
                    let there = positions(&read(&log));
                    assert!(kept.iter().all(|position| there.contains(position)));
                    continue;
                }
                Err(error) => error,
            };
            let refused = matches!(error, OpenError::Damaged { .. } | OpenError::Shorter { .. });
            assert!(refused, "bit {bit}: {error}");
            let after = fs::read(journal(dir.path())).unwrap();
            assert_eq!(after, files[Path::new("db/0.jnl")], "bit {bit}");
        }
    }
}

/// A flipped bit in the last writes looks as if they were torn: events are there again, and none is missing.
#[test]
fn a_flipped_bit_in_the_last_drop_brings_events_back_or_is_refused() {
    let thinned = Thinned::new();
    let whole = thinned.journal();
    let mut random = Random(0xd1);
    let (mut opened, mut refused) = (0, 0);
    for _ in 0..150 {
        let bit = thinned.at * 8 + random.below((whole.len() - thinned.at) * 8);
        let mut bytes = whole.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let dir = thinned.with_journal(bytes);
        match open(dir.path()) {
            Ok(log) => {
                let there = positions(&read(&log));
                assert!(thinned.states[..4].contains(&there), "bit {bit}");
                assert_eq!(log.end(), thinned.end);
                opened += 1;
            }
            Err(OpenError::Damaged { .. }) => refused += 1,
            Err(error) => panic!("bit {bit}: {error}"),
        }
    }
    assert!(opened > 0, "{opened} opened, {refused} refused");
}

/// Writing an old block again must not be taken for the end of the log.
#[test]
fn a_journal_with_nothing_but_drops_moves_no_head() {
    let dir = TempDir::new().unwrap();
    append(&open(dir.path()).unwrap(), 0..12);
    flush(dir.path());
    for entry in fs::read_dir(dir.path().join("db")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "jnl") {
            fs::File::create(path).unwrap();
        }
    }
    let log = open(dir.path()).unwrap();
    let end = log.end();
    drop_events(&log, [1, 2, 9, 14]);
    let expected = positions(&read(&log));
    drop(log);
    for _ in 0..2 {
        let log = open(dir.path()).unwrap();
        assert_eq!((log.end(), positions(&read(&log))), (end, expected.clone()));
    }
    append(&open(dir.path()).unwrap(), 12..14);
    let log = open(dir.path()).unwrap();
    assert!(log.head() > end.head);
}
