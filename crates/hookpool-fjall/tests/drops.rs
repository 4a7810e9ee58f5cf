//! Dropped events and what a crash leaves of them: they are gone or wholly there, and nothing else is missing, whatever was torn.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod folder;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use fjall::Database;
use folder::{Files, Random, read_files, write_files};
use hookpool_core::{
    codec::Block,
    event::{Event, NewEvent, Request},
    position::{Epoch, Position},
};
use hookpool_fjall::{FjallLog, OpenError, Options, verify};
use hookpool_store::{EventLog as _, LogEnd, PageRequest, conformance::sample};
use tempfile::TempDir;

const EPOCH: Epoch = Epoch(0x1122_3344_5566_7788);
const STREAMS: [&str; 3] = ["sales", "hr", "it"];

fn open(dir: &Path) -> Result<FjallLog, OpenError> {
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

fn journal(dir: &Path) -> PathBuf {
    dir.join("db/0.jnl")
}

/// Opening once more cuts the unused end off the journal.
fn trim(dir: &Path) {
    drop(open(dir).unwrap());
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

/// What a log must hold.
#[derive(Debug, Default)]
struct Model {
    events: BTreeMap<u64, NewEvent>,
    head: u64,
    dropped: u64,
    /// Digests of blocks, by their last position.
    ends: BTreeMap<u64, LogEnd>,
}

impl Model {
    fn append(&mut self, log: &FjallLog, n: u64) {
        let events = batch(n);
        block_on(log.append(Request::each(events.clone()))).unwrap();
        for event in events {
            self.head += 1;
            self.events.insert(self.head, event);
        }
        self.ends.insert(self.head, log.end());
    }

    fn drop_some(&mut self, log: &FjallLog, random: &mut Random) {
        let one_in = [2, 5, 20][random.below(3)];
        let from = u64::try_from(random.below(usize::try_from(self.head + 1).unwrap())).unwrap();
        let some: Vec<_> = (from..self.head + 3)
            .filter(|_| random.below(one_in) == 0)
            .collect();
        let before = self.events.len();
        self.events.retain(|position, _| !some.contains(position));
        let gone = (before - self.events.len()) as u64;
        assert_eq!(drop_events(log, some), gone);
        self.dropped += gone;
    }

    fn check(&self, log: &FjallLog) {
        let expected = self.events.iter().map(|(position, event)| Event {
            position: Position(*position),
            event: event.clone(),
        });
        assert_eq!(read(log), expected.collect::<Vec<_>>());
        assert_eq!(log.head().0, self.head);
        let blocks = block_on(log.blocks(Position::ZERO, usize::MAX)).unwrap();
        let ends = blocks.iter().map(|block| LogEnd {
            head: block.header().last(),
            digest: block.digest(),
        });
        assert!(ends.eq(self.ends.values().copied()));
    }
}

/// Appends, drops, closes, kills (a copy of the folder as it is while the log is open) and flushes at random.
#[test]
fn a_log_that_is_appended_to_dropped_from_and_killed_at_random_is_its_model() {
    for seed in 0..8 {
        let mut random = Random(0xbeef + seed);
        let mut dir = TempDir::new().unwrap();
        let mut log = open(dir.path()).unwrap();
        let mut model = Model::default();
        for n in 0..120 {
            match random.below(20) {
                0..11 => model.append(&log, n),
                11..16 => model.drop_some(&log, &mut random),
                16 => {
                    drop(log);
                    log = open(dir.path()).unwrap();
                }
                17 => {
                    drop(log);
                    flush(dir.path());
                    log = open(dir.path()).unwrap();
                }
                _ => {
                    let files = read_files(dir.path());
                    drop(log);
                    dir = TempDir::new().unwrap();
                    write_files(dir.path(), &files);
                    log = open(dir.path()).unwrap();
                }
            }
            if n % 10 == 0 {
                model.check(&log);
            }
        }
        model.check(&log);
        let copy = TempDir::new().unwrap();
        copy_blocks(&log, copy.path());
        drop(log);
        for dir in [dir.path(), copy.path()] {
            let report = verify(dir, |_| {}).unwrap();
            assert_eq!(report.problem, None, "seed {seed}");
            assert_eq!(report.events, model.events.len() as u64);
            assert_eq!(report.dropped, model.dropped);
            assert_eq!(report.head.0, model.head);
            model.check(&open(dir).unwrap());
        }
    }
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

/// Set for the process that is killed: its folder.
const FOLDER: &str = "HOOKPOOL_DROPS_FOLDER";
/// Begins the lines of that process that matter.
const SAYS: &str = "log:";

/// Appends and drops until it is killed, and says what it is about to do and what was done. Started by the test below.
#[test]
#[ignore = "never ends; the test that kills it starts it"]
fn appends_and_drops_until_it_is_killed() {
    let Ok(dir) = std::env::var(FOLDER) else {
        return;
    };
    let log = open(Path::new(&dir)).unwrap();
    let mut random = Random(log.head().0);
    for n in 0.. {
        if n == 0 || random.below(3) > 0 {
            block_on(log.append(Request::each(batch(n)))).unwrap();
            println!("{SAYS} head {}", log.head());
        } else {
            let head = usize::try_from(log.head().0).unwrap().max(1);
            let some: Vec<_> = (0..random.below(40))
                .map(|_| 1 + random.below(head))
                .collect();
            println!("{SAYS} drops {}", join(&some));
            drop_events(&log, some.iter().map(|position| *position as u64));
            println!("{SAYS} dropped {}", join(&some));
        }
    }
}

fn join(positions: &[usize]) -> String {
    let text: Vec<_> = positions.iter().map(ToString::to_string).collect();
    text.join(" ")
}

/// What was reported appended is there and what was reported dropped is not; what was being dropped may be either.
#[test]
fn what_was_reported_dropped_stays_dropped_when_the_process_is_killed() {
    let dir = TempDir::new().unwrap();
    let (mut head, mut dropped) = (0, BTreeSet::new());
    for round in 0..15 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "appends_and_drops_until_it_is_killed",
                "--ignored",
                "--nocapture",
            ])
            .env(FOLDER, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut dropping = BTreeSet::new();
        let mut killed = false;
        let mut said = 0;
        for line in lines {
            let line = line.unwrap();
            let Some((_, line)) = line.split_once(SAYS) else {
                continue;
            };
            let (what, numbers) = line
                .trim()
                .split_once(' ')
                .unwrap_or_else(|| (line.trim(), ""));
            let mut numbers = numbers
                .split_whitespace()
                .map(|number| number.parse::<u64>().unwrap());
            match what {
                "head" => head = numbers.next_back().unwrap(),
                "drops" => dropping = numbers.collect(),
                _ => dropped.append(&mut numbers.collect()),
            }
            said += 1;
            // What it says until it is gone counts too.
            if !killed && said > 20 + round * 13 {
                child.kill().unwrap();
                killed = true;
            }
        }
        child.wait().unwrap();
        assert!(killed);
        let log = open(dir.path()).unwrap();
        assert!(log.head().0 >= head);
        let there: BTreeSet<_> = positions(&read(&log)).into_iter().collect();
        for position in 1..=head {
            let is_there = there.contains(&position);
            if !is_there {
                assert!(
                    dropped.contains(&position) || dropping.contains(&position),
                    "{position}"
                );
            }
        }
        let gone = dropped.iter().filter(|position| there.contains(position));
        let gone: Vec<_> = gone.collect();
        assert!(gone.is_empty(), "{gone:?} are there again");
        dropped.retain(|position| !there.contains(position));
        dropped.extend((1..=head).filter(|position| !there.contains(position)));
        head = log.head().0;
        drop(log);
        assert_eq!(verify(dir.path(), |_| {}).unwrap().problem, None);
    }
    assert!(dropped.len() > 100, "{}", dropped.len());
}
