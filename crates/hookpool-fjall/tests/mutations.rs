//! Damage at rest: thousands of broken copies of a data folder. Each opens and holds every event, or is refused with a message
//! that says what to do; none is ever shorter, and none panics.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

#[path = "mutations/flips.rs"]
mod flips;
mod folder;

use std::{
    collections::BTreeMap,
    fs,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use fjall::Database;
use folder::{Files, Random, read_files, write_files};
use hookpool_core::{
    codec::Block,
    event::{DedupeKey, Event, Idempotency, NewEvent, Request},
    position::{Epoch, Position},
};
use hookpool_fjall::{FjallLog, OpenError, Options, Problem, verify};
use hookpool_store::{
    AppendError, Appended, EventLog as _, Page, PageRequest, ReadError,
    conformance::sample::{self, stream},
};
use tempfile::TempDir;

const STREAMS: [&str; 3] = ["sales", "hr", "it"];
const BLOCKS: u64 = 60;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Mutation {
    Flip { file: PathBuf, bit: usize },
    Cut { file: PathBuf, length: usize },
    Zero { file: PathBuf, at: usize },
    Delete { file: PathBuf },
    Older { file: PathBuf },
    Swap { file: PathBuf, with: PathBuf },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Intact,
    RefusedUntouched,
    RefusedTouched,
    RefusedRead,
}

/// The events of one block: one to four, over the streams.
fn batch(block: u64) -> Vec<NewEvent> {
    let event = |n: u64| {
        let name = STREAMS[usize::try_from((block * 7 + n) % 3).unwrap()];
        let body = format!(r#"{{"block":{block},"n":{n},"text":"{}"}}"#, "x".repeat(40));
        let event = sample::event(name, block * 10 + n, &body);
        let idempotency = (n == 1).then_some(Idempotency {
            key: DedupeKey([u8::try_from(block).unwrap(); 16]),
            request: None,
            events: 1,
        });
        NewEvent {
            idempotency,
            ..event
        }
    };
    (0..=block % 4).map(event).collect()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
}

fn options() -> Options {
    Options::new(Epoch(0x1122_3344_5566_7788))
}

fn open(dir: &Path) -> FjallLog {
    FjallLog::open(dir, options()).unwrap()
}

fn append(log: &FjallLog, blocks: Range<u64>) {
    let runtime = runtime();
    for block in blocks {
        runtime
            .block_on(log.append(Request::each(batch(block))))
            .unwrap();
    }
}

/// Opening once more cuts the unused end off the journal, so that copies are small.
fn trim(dir: &Path) {
    drop(open(dir));
}

/// Moves everything into table files.
fn flush(dir: &Path) {
    let database = Database::builder(dir.join("db")).open().unwrap();
    for name in ["blocks", "streams", "requests"] {
        let keyspace = database.keyspace(name, Default::default).unwrap();
        keyspace.rotate_memtable_and_wait().unwrap();
    }
}

fn empty_journals(dir: &Path) {
    for entry in fs::read_dir(dir.join("db")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "jnl") {
            fs::File::create(path).unwrap();
        }
    }
}

/// All in the journal, closed in order.
fn journal_only(dir: &Path) {
    append(&open(dir), 0..BLOCKS);
    trim(dir);
}

/// Half in table files and in no journal any more, the rest in a journal.
fn tables_and_journal(dir: &Path) {
    append(&open(dir), 0..BLOCKS / 2);
    flush(dir);
    empty_journals(dir);
    append(&open(dir), BLOCKS / 2..BLOCKS);
    trim(dir);
}

/// The same with events that were dropped: before the tables were written, and after, from blocks in tables and in the journal.
fn thinned(dir: &Path) {
    append(&open(dir), 0..BLOCKS / 3);
    drop_events(dir, gone_early);
    flush(dir);
    empty_journals(dir);
    append(&open(dir), BLOCKS / 3..BLOCKS * 2 / 3);
    drop_events(dir, gone);
    append(&open(dir), BLOCKS * 2 / 3..BLOCKS);
    trim(dir);
}

/// Some of each block, and all of some; the last third of the log is whole.
fn gone(position: u64) -> bool {
    position <= 90 && (position.is_multiple_of(3) || (20..30).contains(&position))
}

fn gone_early(position: u64) -> bool {
    gone(position) && position.is_multiple_of(2)
}

fn drop_events(dir: &Path, gone: fn(u64) -> bool) {
    let log = open(dir);
    let positions = (1..=log.head().0).filter(|position| gone(*position));
    let dropped = runtime().block_on(log.drop_events(positions.map(Position).collect()));
    assert!(dropped.unwrap().events > 5);
}

/// Until the witness has seen the log up to its head, which is at this place in its file.
fn await_witness(dir: &Path, head: Position) {
    let seen = || fs::read(dir.join("witness")).unwrap()[16..24] == head.0.to_le_bytes();
    for _ in 0..2_000 {
        if seen() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("not witnessed");
}

/// Copied while open, as a kill leaves it; the journal is longer than what is in it.
fn killed(dir: &Path) {
    let log = open(&dir.join("running"));
    append(&log, 0..BLOCKS);
    await_witness(&dir.join("running"), log.head());
    let mut files = read_files(&dir.join("running"));
    for (path, bytes) in &mut files {
        if path.extension().is_some_and(|extension| extension == "jnl") {
            let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
            bytes.resize(used + 5_000, 0);
        }
    }
    drop(log);
    fs::remove_dir_all(dir.join("running")).unwrap();
    write_files(dir, &files);
}

/// A folder before damage: its files, an older state of them, and what is in it.
struct Base {
    files: Files,
    older: Files,
    events: Vec<Event>,
}

impl Base {
    fn new(make: fn(&Path)) -> Self {
        Self::without(make, |_| false)
    }

    /// Of a log that lost events.
    fn without(make: fn(&Path), gone: fn(u64) -> bool) -> Self {
        let older = TempDir::new().unwrap();
        append(&open(older.path()), 0..BLOCKS / 3);
        trim(older.path());
        let dir = TempDir::new().unwrap();
        make(dir.path());
        let files = read_files(dir.path());
        let log = open(dir.path());
        let events = read(&log, None).unwrap();
        let mut positions = 1..;
        let expected = (0..BLOCKS).flat_map(batch).map(|event| Event {
            position: Position(positions.next().unwrap()),
            event,
        });
        let expected = expected.filter(|event| !gone(event.position.0));
        assert_eq!(events, expected.collect::<Vec<_>>());
        Self {
            files,
            older: read_files(older.path()),
            events,
        }
    }

    /// Opens a copy with this damage.
    fn check(&self, mutation: &Mutation) -> Outcome {
        let dir = TempDir::new().unwrap();
        let mut files = self.files.clone();
        mutation.apply(&mut files, &self.older);
        write_files(dir.path(), &files);
        let opened = catch_unwind(AssertUnwindSafe(|| FjallLog::open(dir.path(), options())));
        let opened = opened.unwrap_or_else(|_| panic!("opening panicked: {mutation:?}"));
        let log = match opened {
            Ok(log) => log,
            Err(error) => {
                check_message(&error, mutation);
                let mut after = read_files(dir.path());
                after.remove(Path::new("lock"));
                files.remove(Path::new("lock"));
                return if after == files {
                    Outcome::RefusedUntouched
                } else {
                    Outcome::RefusedTouched
                };
            }
        };
        let Ok(events) = read(&log, None) else {
            return Outcome::RefusedRead;
        };
        assert_eq!(events, self.events, "{mutation:?}");
        for name in STREAMS {
            let Ok(events) = read(&log, Some(name)) else {
                return Outcome::RefusedRead;
            };
            let of_stream = |event: &&Event| event.event.stream.as_str() == name;
            let expected: Vec<_> = self.events.iter().filter(of_stream).cloned().collect();
            assert_eq!(events, expected, "{name}: {mutation:?}");
        }
        match self.repeat(&log) {
            Ok(()) => Outcome::Intact,
            Err(_) => Outcome::RefusedRead,
        }
    }

    /// Every request that has an identity is known, or it is refused.
    fn repeat(&self, log: &FjallLog) -> Result<(), AppendError> {
        let named = |event: &&Event| event.event.idempotency.is_some();
        for event in self.events.iter().filter(named) {
            let again = NewEvent {
                body: Bytes::from_static(b"{}"),
                ..event.event.clone()
            };
            let outcome = runtime().block_on(log.append(Request::each([again])))?;
            assert_eq!(outcome, [Appended::Duplicate(event.position)]);
        }
        Ok(())
    }

    fn random(&self, random: &mut Random) -> Mutation {
        // The older state has no tables, so its journal and metadata are what there is to restore.
        let names: Vec<_> = self
            .files
            .iter()
            .filter(|(name, bytes)| !name.ends_with("lock") && !bytes.is_empty())
            .collect();
        let (mut file, mut bytes) = names[random.below(names.len())];
        if random.below(2) == 0 {
            // Large files are hit as often as all together.
            let total = names.iter().map(|(_, bytes)| bytes.len()).sum();
            let mut at = random.below(total);
            let hit = names.iter().find(|(_, bytes)| {
                let hit = at < bytes.len();
                at = at.saturating_sub(bytes.len());
                hit
            });
            (file, bytes) = *hit.unwrap();
        }
        let file = file.clone();
        match random.below(20) {
            0..12 => Mutation::Flip {
                file,
                bit: random.below(bytes.len() * 8),
            },
            12..15 => Mutation::Cut {
                file,
                length: random.below(bytes.len()),
            },
            15..17 => Mutation::Zero {
                file,
                at: random.below(bytes.len()) / 512 * 512,
            },
            17 => Mutation::Delete { file },
            18 => Mutation::Older { file },
            _ => Mutation::Swap {
                file,
                with: names[random.below(names.len())].0.clone(),
            },
        }
    }
}

fn check_message(error: &OpenError, mutation: &Mutation) {
    let text = error.to_string();
    let names_what_to_do = [
        "restore",
        "hookpool verify",
        "start that version",
        "check that the folder",
    ];
    assert!(
        names_what_to_do.iter().any(|what| text.contains(what)),
        "{mutation:?}: {text}"
    );
}

/// All events that a log says it has.
fn read(log: &FjallLog, name: Option<&str>) -> Result<Vec<Event>, ReadError> {
    let runtime = runtime();
    let mut events = Vec::new();
    let mut after = Position::ZERO;
    while after < log.head() {
        let request = PageRequest {
            stream: name.map(stream),
            ..PageRequest::after(after)
        };
        let Page {
            events: page,
            through,
        } = runtime.block_on(log.page(request))?;
        events.extend(page);
        after = through;
    }
    Ok(events)
}

impl Mutation {
    fn apply(&self, files: &mut Files, older: &Files) {
        match self {
            Self::Flip { file, bit } => {
                files.get_mut(file).unwrap()[bit / 8] ^= 1 << (bit % 8);
            }
            Self::Cut { file, length } => files.get_mut(file).unwrap().truncate(*length),
            Self::Zero { file, at } => {
                let bytes = files.get_mut(file).unwrap();
                let end = bytes.len().min(at + 512);
                bytes[*at..end].fill(0);
            }
            Self::Delete { file } => {
                files.remove(file);
            }
            Self::Older { file } => {
                match older.get(file) {
                    Some(bytes) => files.insert(file.clone(), bytes.clone()),
                    None => files.remove(file),
                };
            }
            Self::Swap { file, with } => {
                let bytes = files[with].clone();
                let other = files.insert(file.clone(), bytes).unwrap();
                files.insert(with.clone(), other);
            }
        }
    }
}

/// Runs the mutations and prints what became of them, by kind of file.
#[expect(clippy::print_stdout, reason = "for whoever runs it by hand")]
fn run(name: &str, base: &Base, mutations: impl Iterator<Item = Mutation>) {
    let mut counts = BTreeMap::<(String, Outcome), u32>::new();
    for mutation in mutations {
        let (Mutation::Flip { file, .. }
        | Mutation::Cut { file, .. }
        | Mutation::Zero { file, .. }
        | Mutation::Delete { file }
        | Mutation::Older { file }
        | Mutation::Swap { file, .. }) = &mutation;
        let file = file.to_string_lossy().into_owned();
        *counts.entry((file, base.check(&mutation))).or_default() += 1;
    }
    let total: u32 = counts.values().sum();
    println!("{name}: {total} mutations");
    for ((file, outcome), count) in counts {
        println!("  {file:<36} {outcome:?} {count}");
    }
}

fn random_mutations(name: &str, base: &Base, seed: u64, count: usize) {
    let mut random = Random(seed);
    run(
        name,
        base,
        std::iter::repeat_with(|| base.random(&mut random)).take(count),
    );
}

/// More or other mutations by hand: `HOOKPOOL_MUTATIONS=20000 HOOKPOOL_SEED=1 cargo test ...`.
fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

fn mutations_of(name: &str, base: &Base, share: u64) {
    let count = from_environment("HOOKPOOL_MUTATIONS", 2_000) * share / 100;
    let seed = from_environment("HOOKPOOL_SEED", 0x5eed) ^ share << 32;
    random_mutations(name, base, seed, usize::try_from(count).unwrap());
}

#[test]
fn a_damaged_log_in_a_journal_is_intact_or_refused() {
    mutations_of("journal", &Base::new(journal_only), 34);
}

#[test]
fn a_damaged_log_in_tables_is_intact_or_refused() {
    mutations_of("tables and journal", &Base::new(tables_and_journal), 40);
}

#[test]
fn a_damaged_log_after_a_kill_is_intact_or_refused() {
    mutations_of("killed", &Base::new(killed), 30);
}

#[test]
fn a_damaged_log_that_lost_events_is_intact_or_refused() {
    mutations_of("thinned", &Base::without(thinned, gone), 35);
}

/// A pointer that a flip turns to an older manifest made fjall delete a whole keyspace.
#[test]
fn every_flipped_bit_of_a_pointer_to_a_manifest_is_refused() {
    let base = Base::new(tables_and_journal);
    let pointers = base
        .files
        .iter()
        .filter(|(name, _)| name.ends_with("current"));
    let flips = pointers.flat_map(|(name, bytes)| {
        (0..bytes.len() * 8).map(|bit| Mutation::Flip {
            file: name.clone(),
            bit,
        })
    });
    for mutation in flips {
        assert_eq!(base.check(&mutation), Outcome::RefusedUntouched);
    }
}

/// Where intact blocks lie in a file, and the position before each.
fn blocks_in(file: &[u8]) -> Vec<(Range<usize>, Position)> {
    let starts = (0..file.len()).filter(|at| file[*at..].starts_with(b"HKPL"));
    let block = |start: usize| {
        let mut rest = BytesMut::from(&file[start..]);
        let block = Block::split_off(&mut rest).ok()??;
        let before = Position(block.header().first.0 - 1);
        Some((start..start + block.len_bytes(), before))
    };
    starts.filter_map(block).collect()
}

/// What `verify` finds in a copy with one flipped bit; a refusal says what to do.
fn verified_with_flip(base: &Base, file: &Path, bit: usize) -> Option<Problem> {
    let dir = TempDir::new().unwrap();
    let mut files = base.files.clone();
    let file = file.to_path_buf();
    let flip = Mutation::Flip { file, bit };
    flip.apply(&mut files, &base.older);
    write_files(dir.path(), &files);
    match verify(dir.path(), |_| {}) {
        Ok(report) => {
            assert!(report.problem.is_some(), "not found: {flip:?}");
            report.problem
        }
        Err(error) => {
            check_message(&error, &flip);
            None
        }
    }
}

/// The one file with all blocks whose name ends like this.
fn with_blocks<'a>(base: &'a Base, end: &str) -> (&'a PathBuf, Vec<(Range<usize>, Position)>) {
    let files = base.files.iter().filter(|(name, _)| name.ends_with(end));
    let mut blocks = files.map(|(name, bytes)| (name, blocks_in(bytes)));
    blocks.find(|(_, blocks)| !blocks.is_empty()).unwrap()
}

#[test]
fn verify_finds_every_flipped_bit_of_a_journal_and_names_the_position_before_it() {
    let base = Base::new(journal_only);
    let mut random = Random(0xf11b);
    let (name, blocks) = with_blocks(&base, "0.jnl");
    assert_eq!(blocks.len() as u64, BLOCKS);
    for _ in 0..100 {
        let (bytes, before) = &blocks[random.below(blocks.len())];
        let bit = bytes.start * 8 + random.below(bytes.len() * 8);
        let problem = verified_with_flip(&base, name, bit).unwrap();
        assert_eq!(problem.after, *before, "bit {bit}");
    }
}

#[test]
fn verify_finds_every_flipped_bit_of_a_table_and_names_its_event() {
    let base = Base::new(tables_and_journal);
    let mut random = Random(0xf11d);
    let (name, blocks) = with_blocks(&base, "keyspaces/1/tables/1");
    assert_eq!(blocks.len() as u64, BLOCKS / 2);
    // A damaged header of the first or last block is not known to be one.
    let inner = &blocks[1..blocks.len() - 1];
    for _ in 0..100 {
        let (bytes, before) = &inner[random.below(inner.len())];
        let bit = bytes.start * 8 + random.below(bytes.len() * 8);
        let problem = verified_with_flip(&base, name, bit).unwrap();
        // A block of these has at most four events.
        let named = (1..=4).map(|n| format!("at position {};", before.plus(n)));
        let named = named.filter(|text| problem.what.contains(text)).count();
        assert_eq!(named, 1, "bit {bit}: {}", problem.what);
    }
}

#[test]
fn verify_finds_every_flipped_bit_of_any_file() {
    for base in [Base::new(tables_and_journal), Base::without(thinned, gone)] {
        let mut random = Random(0xf11c);
        let files = base.files.iter().filter(|(_, bytes)| !bytes.is_empty());
        // Nothing but the time of some housekeeping hangs on this one.
        let files = files.filter(|(name, _)| !name.ends_with("dropped"));
        let files: Vec<_> = files.collect();
        for _ in 0..100 {
            let (name, bytes) = files[random.below(files.len())];
            verified_with_flip(&base, name, random.below(bytes.len() * 8));
        }
    }
}

/// Also of a block that lost events, whose digest says nothing of what it holds.
#[test]
fn verify_finds_every_flipped_bit_of_a_thinned_block() {
    let base = Base::without(thinned, gone);
    let mut random = Random(0xf11e);
    let mut flipped = 0;
    for (name, bytes) in &base.files {
        let thinned = blocks_in(bytes).into_iter().map(|(range, _)| range);
        let thinned = thinned.filter(|range| bytes[range.start + 4] == 2);
        let thinned: Vec<_> = thinned.collect();
        for _ in 0..thinned.len().min(60) {
            let range = &thinned[random.below(thinned.len())];
            let bit = range.start * 8 + random.below(range.len() * 8);
            verified_with_flip(&base, name, bit);
            flipped += 1;
        }
    }
    assert!(flipped > 30, "{flipped}");
}
