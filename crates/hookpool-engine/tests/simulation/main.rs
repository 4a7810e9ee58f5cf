//! The pipeline over a log that is slow and fails, from a seed: whatever happens, what was acknowledged is there once; the pool is the fold
//! of the log, and followers are told of all that can be seen, once and in order.
//!
//! Requests make one event or several, or delete an item. Some are signed, some have an idempotency key: these are sent until they are
//! acknowledged, and the others once.
//!
//! `HOOKPOOL_SEEDS=1000` runs that many seeds, `HOOKPOOL_SEED=42` repeats one. A seed fixes the faults and the senders' choices; threads
//! still race, so a failure may need a few repetitions.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod check;
mod follower;
mod plain;
mod senders;

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use check::{check_log, check_pool, events};
use follower::{encode, follow};
use hookpool_core::{
    control::ControlChange,
    key::KeyId,
    name::{ConnectorName, StreamName},
    position::Epoch,
    seal::MasterKey,
};
use hookpool_engine::{
    Engine, Options, appender::Limits, clock::Clock, control::ConnectorSpec, engine::Running,
    entropy::Entropy, follow::Form, status::Status,
};
use hookpool_store::{
    EventLog,
    faulty::{Faults, FaultyLog},
    memory::{MemoryLog, MemoryPool},
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use senders::{Asks, Keys, Ledger, Sent, send};

type Log = FaultyLog<Arc<MemoryLog>>;
type Pipeline = Engine<Log, Arc<MemoryPool>>;

const STREAM: &str = "sim";
const NOW: u64 = 1_700_000_000;
const SENDERS: u64 = 4;
const LIVES: u64 = 3;

/// What outlives a crash.
struct Disk {
    log: Arc<MemoryLog>,
    control: Arc<MemoryLog>,
    pool: Arc<MemoryPool>,
}

/// What a run did, so that one that does nothing is seen.
#[derive(Debug, Default)]
struct Done {
    acknowledged: usize,
    deletions: usize,
    of_several: usize,
    repeated: usize,
    /// Changes that followers saw.
    told: usize,
    lives_failed: usize,
}

impl Done {
    fn add(&mut self, other: &Self) {
        self.acknowledged += other.acknowledged;
        self.deletions += other.deletions;
        self.of_several += other.of_several;
        self.repeated += other.repeated;
        self.told += other.told;
        self.lives_failed += other.lives_failed;
    }

    fn count(&mut self, sent: &Sent) {
        if sent.acknowledged.is_empty() {
            return;
        }
        self.acknowledged += sent.acknowledged.len();
        self.deletions += usize::from(matches!(sent.asks, Asks::Deletion(_)));
        self.of_several += usize::from(matches!(sent.asks, Asks::Lines(_)));
        self.repeated += usize::from(sent.attempts.len() > 1);
    }
}

#[test]
fn what_was_acknowledged_is_there_once_whatever_fails() {
    let seeds = match number("HOOKPOOL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("HOOKPOOL_SEEDS").unwrap_or(50),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let mut done = Done::default();
    // Several at a time: each mostly waits.
    let mut queue = seeds.into_iter();
    let mut running: Vec<_> = Vec::new();
    loop {
        running.extend(
            queue
                .by_ref()
                .take(8 - running.len())
                .map(|seed| (seed, runtime.spawn(simulate(seed)))),
        );
        if running.is_empty() {
            break;
        }
        let (seed, run) = running.remove(0);
        let some = runtime.block_on(run).unwrap_or_else(|error| {
            panic!("seed {seed} failed, HOOKPOOL_SEED={seed} repeats it: {error}")
        });
        done.add(&some);
    }
    println!("{done:?}");
    assert!(
        done.deletions > 0 && done.of_several > 0 && done.repeated > 0 && done.told > 0,
        "nothing was tried: {done:?}"
    );
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .map(|text| text.parse().expect("a number"))
}

/// A few lives of the pipeline over one disk.
async fn simulate(seed: u64) -> Done {
    let mut random = StdRng::seed_from_u64(seed);
    let disk = Disk {
        log: Arc::new(MemoryLog::new(Epoch(seed + 1))),
        control: Arc::new(MemoryLog::new(Epoch(seed + 2))),
        pool: Arc::new(MemoryPool::default()),
    };
    let keys = provision(&disk, seed).await;
    let ledger = Ledger::default();
    let mut done = Done::default();
    for life in 0..LIVES {
        let faults = Faults {
            seed: random.random(),
            // Timers tick in milliseconds, so a few slow lives in many fast ones show more than all slow ones.
            delay_max: Duration::from_micros(if random.random_bool(0.1) { 200 } else { 0 }),
            unknown_one_in: random.random_range(2..20),
            final_one_in: if random.random_bool(0.3) {
                random.random_range(5..40)
            } else {
                0
            },
            read_one_in: random.random_range(3..30),
        };
        let (engine, running) = start(&disk, faults, seed * LIVES + life).await;
        let rewritten = Form::Rewritten(|into, frame| into.extend_from_slice(frame));
        let one = Some("item-1");
        let followers = [
            (Form::Encoded, None),
            (rewritten, None),
            (Form::Events, None),
            (Form::Encoded, one),
            (Form::Events, one),
        ]
        .map(|(form, item)| tokio::spawn(follow(Arc::clone(&engine), form, item, random.random())));
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                let sender = life * SENDERS + sender;
                tokio::spawn(send(
                    Arc::clone(&engine),
                    keys.clone(),
                    sender,
                    random.random(),
                    Arc::clone(&ledger),
                ))
            })
            .collect();
        for sender in senders {
            sender.await.unwrap();
        }
        done.lives_failed += usize::from(matches!(engine.status().get(), Status::Failed(_)));
        done.told += finish(engine, running, followers, &disk).await;
        check_log(&disk, &ledger.lock().unwrap());
    }
    let (engine, running) = start(&disk, Faults::default(), seed).await;
    assert!(
        engine
            .wait_applied(disk.log.head(), Duration::from_secs(10))
            .await,
        "the pool catches up"
    );
    check_pool(&disk, &*engine.pool());
    engine.status().stop();
    drop(engine);
    tokio::task::spawn_blocking(|| running.join())
        .await
        .unwrap();
    ledger
        .lock()
        .unwrap()
        .iter()
        .for_each(|sent| done.count(sent));
    done
}

async fn start(disk: &Disk, faults: Faults, seed: u64) -> (Arc<Pipeline>, Running) {
    let options = Options {
        master: MasterKey::new(&[7; 32]),
        encode,
        limits: Limits {
            batch_events: 8,
            ..Limits::default()
        },
        clock: Clock::Manual(Arc::new(AtomicU64::new(NOW * 1_000_000))),
        entropy: Entropy::seeded(seed),
        rejections: Default::default(),
    };
    let log = FaultyLog::new(Arc::clone(&disk.log), faults);
    let control = FaultyLog::new(Arc::clone(&disk.control), Faults::default());
    Engine::start(log, control, Arc::clone(&disk.pool), options)
        .await
        .unwrap()
}

async fn provision(disk: &Disk, seed: u64) -> Keys {
    let (engine, running) = start(disk, Faults::default(), seed).await;
    let author = KeyId::from_random([1; 6]);
    let spec = |name: &str, signed| ConnectorSpec {
        signed,
        ..ConnectorSpec::new(
            ConnectorName::new(name).unwrap(),
            StreamName::new(STREAM).unwrap(),
        )
    };
    let plain = engine
        .control()
        .add_connector(&author, spec("plain", false))
        .await
        .unwrap();
    let signed = engine
        .control()
        .add_connector(&author, spec("signed", true))
        .await
        .unwrap();
    let again = engine
        .control()
        .add_connector(&author, spec("plain", false))
        .await;
    assert!(again.is_err(), "a name is taken once");
    let enabled = ControlChange::ConnectorEnabled {
        connector: ConnectorName::new("plain").unwrap(),
        enabled: true,
    };
    engine
        .control()
        .change(&author, "plain", enabled)
        .await
        .unwrap();
    engine.status().stop();
    drop(engine);
    tokio::task::spawn_blocking(|| running.join())
        .await
        .unwrap();
    Keys {
        plain: plain.ingest_key.secret.expose().to_owned(),
        signed: signed.ingest_key.secret.expose().to_owned(),
        signing: signed.signing_key.unwrap().secret.expose().to_owned(),
    }
}

/// Ends a life, half of the time before everybody has caught up, and checks what the followers saw; how much that was.
async fn finish(
    engine: Arc<Pipeline>,
    running: Running,
    followers: [tokio::task::JoinHandle<(Option<&'static str>, Vec<String>)>; 5],
    disk: &Disk,
) -> usize {
    let head = engine.head();
    let healthy = engine.status().is_ready();
    if healthy && head.0.is_multiple_of(2) {
        assert!(
            engine.wait_applied(head, Duration::from_secs(10)).await,
            "the pool catches up"
        );
    }
    engine.status().stop();
    drop(engine);
    let all = plain::Fold::of(&events(disk)).told;
    let mut told = 0;
    for follower in followers {
        let (item, seen) = follower.await.unwrap();
        let is_of = |line: &&String| line.split(' ').nth(2) == item;
        let expected: Vec<_> = match item {
            Some(_) => all.iter().filter(is_of).cloned().collect(),
            None => all.clone(),
        };
        let expected = &expected[..seen.len().min(expected.len())];
        assert_eq!(seen, expected, "a follower sees each change once, in order");
        told += seen.len();
    }
    tokio::task::spawn_blocking(|| running.join())
        .await
        .unwrap();
    told
}
