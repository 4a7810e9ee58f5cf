//! Random operations on the engine against a naive model: events, deletions, rules, rebuilds, promotions, rollbacks, retention, kills, lost pools.
//!
//! After each sequence every generation must be the fold that the model makes of all events under its rules, dropped or not, at every moment
//! from the floor on; the difference must be the one between them; and what a follower is told from the floor on must add up to what is
//! served. A generation that was begun after history was dropped is the fold of what was left then, and of everything since.
//!
//! `HOOKPOOL_SEQUENCES=10000` runs that many, `HOOKPOOL_SEED=42` repeats one, both run as many from there on. A sequence is some 10 ms of work in
//! the profile `checked`, ten times that in a debug build.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod chance;
mod check;
mod life;
mod naive;
mod operate;
mod posted;

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use hookpool_core::{control::ControlChange, position::Epoch};
use hookpool_store::memory::{MemoryLog, MemoryPool};
use rand::{Rng, SeedableRng, rngs::StdRng};

use check::check;
use life::{Disk, connector, control, post, start, stop, stream};
use operate::{cancel, promote, rebuild, retain};
use posted::{Posted, Sent};

const OPERATIONS: usize = 200;
/// Sequences that are run if nothing is said; in fewer some kind of operation may have done nothing.
const MANY: u64 = 40;
/// Sequences that run at the same time.
const AT_ONCE: usize = 64;

#[test]
fn every_generation_is_the_fold_of_all_events_under_its_rules() {
    let (first, sequences) = (number("HOOKPOOL_SEED"), number("HOOKPOOL_SEQUENCES"));
    let sequences = sequences.unwrap_or_else(|| if first.is_some() { 1 } else { MANY });
    let first = first.unwrap_or(0);
    let seeds = first..first + sequences;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    // Never dropped: that would wait for the threads of a sequence that failed.
    let runtime = Box::leak(Box::new(runtime));
    let mut done = Done::default();
    // Many at a time: each mostly waits.
    let mut queue = seeds.into_iter();
    let mut running = VecDeque::new();
    loop {
        let more = queue.by_ref().take(AT_ONCE - running.len());
        running.extend(more.map(|seed| (seed, runtime.spawn(sequence(seed)))));
        let Some((seed, run)) = running.pop_front() else {
            break;
        };
        let some = runtime.block_on(run).unwrap_or_else(|error| {
            panic!("sequence {seed} failed, HOOKPOOL_SEED={seed} repeats it: {error}")
        });
        done.add(&some);
    }
    println!("{done:?}");
    let tried = done.events > 0 && done.deletions > 0 && done.promoted > 0 && done.dropped > 0;
    assert!(tried || sequences < MANY, "nothing was tried: {done:?}");
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("a number"))
}

/// What was done, so that a run that does nothing is seen.
#[derive(Debug, Default)]
struct Done {
    events: u64,
    deletions: u64,
    rebuilds: u64,
    promoted: u64,
    rolled_back: u64,
    refused: u64,
    kills: u64,
    lost_pools: u64,
    dropped: u64,
}

impl Done {
    fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.deletions += other.deletions;
        self.rebuilds += other.rebuilds;
        self.promoted += other.promoted;
        self.rolled_back += other.rolled_back;
        self.refused += other.refused;
        self.kills += other.kills;
        self.lost_pools += other.lost_pools;
        self.dropped += other.dropped;
    }
}

async fn sequence(seed: u64) -> Done {
    let mut random = StdRng::seed_from_u64(seed);
    let mut disk = Disk {
        log: Arc::new(MemoryLog::new(Epoch(seed + 1))),
        control: Arc::new(MemoryLog::new(Epoch(seed + 2))),
        pool: Arc::new(MemoryPool::default()),
        key: String::new(),
        clock: Arc::new(AtomicU64::new(1_700_000_000_000_000)),
    };
    let mut life = start(&disk, seed).await;
    disk.key = connector(&life.engine).await;
    let (mut posted, mut done) = (Posted::default(), Done::default());
    for n in 0..OPERATIONS {
        match random.random_range(0..100) {
            0..66 => {
                let sent = chance::sent(&mut random);
                done.deletions += u64::from(matches!(sent, Sent::Deletion(_)));
                let position = post(&life.engine, &disk.key, &sent).await;
                posted.bodies.push((position, sent));
                disk.clock.fetch_add(10_000_000, Ordering::Relaxed);
                done.events += 1;
            }
            66..70 => retain(&life.engine, &mut random).await,
            70..76 => {
                let change = ControlChange::ProjectionSet {
                    stream: stream(),
                    rules: serde_json::from_value(chance::rules(&mut random)).unwrap(),
                };
                control(&life.engine, change).await.unwrap();
            }
            76..84 => {
                let begun = rebuild(&life.engine, &disk, &mut posted, &mut random).await;
                done.rebuilds += u64::from(begun);
            }
            84..86 => drop(cancel(&life.engine).await),
            86..92 => match promote(&life.engine, &mut random).await {
                Some(true) => done.promoted += 1,
                Some(false) => done.refused += 1,
                None => {}
            },
            92..94 => {
                let change = ControlChange::GenerationRolledBack { stream: stream() };
                done.rolled_back += u64::from(control(&life.engine, change).await.is_ok());
            }
            94..95 => {
                let change = ControlChange::GenerationReleased { stream: stream() };
                drop(control(&life.engine, change).await);
            }
            95..97 => {
                stop(life).await;
                if random.random_bool(0.3) {
                    disk.pool = Arc::new(MemoryPool::default());
                    done.lost_pools += 1;
                }
                life = start(&disk, seed * 1_000 + n as u64).await;
                done.kills += 1;
            }
            _ => check(&life.engine, &disk, &posted).await,
        }
    }
    check(&life.engine, &disk, &posted).await;
    stop(life).await;
    done.dropped = (posted.bodies.len() - posted.left(&disk.log).await.len()) as u64;
    done
}
