//! Wherever a process that appends and drops is killed, what it reported is so, and nothing else is missing.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use hookpool_core::{
    event::{Event, NewEvent, Request},
    position::Position,
};
use hookpool_fjall::{FjallLog, verify};
use hookpool_store::{EventLog as _, LogEnd};
use tempfile::TempDir;

use crate::{
    batch, block_on, copy_blocks, drop_events, flush,
    folder::{Random, read_files, write_files},
    open, positions, read,
};

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
                "killed::appends_and_drops_until_it_is_killed",
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
