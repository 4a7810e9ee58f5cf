//! Hundreds of readers of every kind, each cut hundreds of times at a random byte, some of them slow, while writers write and the server
//! is killed or stopped and started again: what each is told over all of its connections is exactly what comes after its first cursor, in order, once.
//!
//! Readers of events are held to the list of events; those who want some items or fields, or merged changes, to the fold of the log at
//! every id that they were given. Writers delete items now and then, also such as are not there, of which nobody is to be told.

mod follower;
mod kind;
mod wire;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use tokio::sync::{Barrier, watch};

use self::follower::{Cuts, Follower, Stage};
use self::kind::{Expected, KINDS, Kind, STREAMS};
use crate::common::fold::Event;
use crate::common::http::Connection;
use crate::common::server::{Connector, Data, position};
use crate::common::{number_from_env, seeded};

/// Events that are there before the first reader.
const PAST: u64 = 100;

#[test]
fn a_few_readers_are_told_everything_once() {
    swarm("a_few_readers_are_told_everything_once", 27, 12);
}

#[test]
#[ignore = "needs minutes: tests/run"]
fn many_readers_are_told_everything_once() {
    swarm(
        "many_readers_are_told_everything_once",
        number_from_env("HOOKPOOL_FOLLOWERS").unwrap_or(500),
        number_from_env("HOOKPOOL_CUTS").unwrap_or(200),
    );
}

fn swarm(test: &str, followers: u64, cuts: u64) {
    let mut random = seeded(test);
    let begun = Instant::now();
    let data = Data::new();
    let mut server = data.serve();
    let connectors = STREAMS.map(|stream| server.add_connector(stream, false));
    let key = server.add_reader("swarm", &STREAMS);
    for seq in 0..PAST {
        let body = body(&mut random, seq);
        server.post(&connectors[0], body).expect(202);
    }
    let (moved, addr) = watch::channel(server.addr);
    let (arrive, goal) = watch::channel(None);
    let stage = Stage {
        server: addr,
        goal,
        key: key.into(),
        all_cut: Arc::new(Barrier::new(usize::try_from(followers).unwrap() + 1)),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let mut readers: Vec<_> = (0..followers)
        .zip(KINDS.into_iter().cycle())
        .map(|(_, kind)| {
            let follower = Follower::new(kind, cuts, StdRng::from_rng(&mut random));
            runtime.spawn(follower.follow(stage.clone()))
        })
        .collect();
    let done = Arc::new(AtomicBool::new(false));
    let writers = connectors.map(|connector| {
        let (addr, done) = (stage.server.clone(), Arc::clone(&done));
        let random = StdRng::from_rng(&mut random);
        std::thread::spawn(move || write(&connector, random, &addr, &done))
    });

    let all_cut = runtime.spawn(async move { stage.all_cut.wait().await });
    let (mut starts, mut kills) = (0, 0);
    while kills < 2 || !all_cut.is_finished() {
        let pause = random.random_range(300..5_000 * followers.min(200) / 200 + 700);
        std::thread::sleep(Duration::from_millis(pause));
        if let Some(failed) = readers.iter().position(|reader| reader.is_finished()) {
            // Before it knows where the end is, it can only have failed.
            runtime.block_on(readers.swap_remove(failed)).unwrap();
        }
        server = if random.random_bool(0.7) {
            server.kill9();
            kills += 1;
            data.serve()
        } else {
            server.restart()
        };
        starts += 1;
        moved.send_replace(server.addr);
    }
    done.store(true, Ordering::Relaxed);
    let written: usize = writers.map(|writer| writer.join().unwrap()).iter().sum();
    let logs = STREAMS.map(|stream| server.log(stream));
    assert!(logs.iter().map(Vec::len).sum::<usize>() >= written);
    let last = |log: &Vec<Event>| log.last().unwrap().position;
    arrive.send_replace(Some([last(&logs[0]), last(&logs[1])]));

    let limit = Duration::from_secs(120);
    let all = async {
        let mut ended = Vec::new();
        for reader in readers {
            ended.push(reader.await.unwrap());
        }
        ended
    };
    let ended = runtime.block_on(async { tokio::time::timeout(limit, all).await });
    let readers = ended.expect("every reader gets to the end");
    check(&readers, &logs);
    report(&readers, &logs, (starts, kills), begun.elapsed());
    server.stop();
}

/// Writes a little at a time, wherever the server is, until it is enough; how much was acknowledged.
fn write(
    connector: &Connector,
    mut random: StdRng,
    addr: &watch::Receiver<SocketAddr>,
    done: &AtomicBool,
) -> usize {
    let (mut acknowledged, mut seq) = (0, PAST);
    while !done.load(Ordering::Relaxed) {
        let server = *addr.borrow();
        let Ok(mut connection) = Connection::open(server) else {
            std::thread::sleep(Duration::from_millis(10));
            continue;
        };
        while !done.load(Ordering::Relaxed) {
            seq += 1;
            let request = match random.random_bool(0.08) {
                true => connector.deletion(&item(&mut random)),
                false => connector.delivery(body(&mut random, seq).as_bytes()),
            };
            let Ok(answer) = connection.call(&request) else {
                break;
            };
            if answer.status == 503 {
                // It is stopping.
                break;
            }
            position(&answer.expect(202));
            acknowledged += 1;
            if random.random_bool(0.1) {
                let pause = random.random_range(50..500);
                std::thread::sleep(Duration::from_millis(pause));
            }
        }
    }
    acknowledged
}

fn item(random: &mut StdRng) -> String {
    format!("i{}", random.random_range(0..12))
}

/// Each event changes something; most name some of the fields only.
fn body(random: &mut StdRng, seq: u64) -> String {
    let mut body = json!({ "id": item(random), "seq": seq });
    if random.random_bool(0.7) {
        body["n"] = random.random_range(0..10).into();
    }
    if random.random_bool(0.4) {
        body["kind"] = ["a", "b"][random.random_range(0..2)].into();
    }
    if random.random_bool(0.4) {
        let text = "\n\r: \u{2028}\u{e9}id: 1\n\n".repeat(random.random_range(0..8));
        body["extra"] = text.into();
    }
    if random.random_bool(0.2) {
        body["nested"] = json!({ "seq": [seq, {}] });
    }
    body.to_string()
}

fn check(readers: &[Follower], logs: &[Vec<Event>; 2]) {
    let mut expected: Vec<(Kind, BTreeMap<&str, Expected>)> = Vec::new();
    for kind in KINDS {
        let streams = STREAMS.into_iter().zip(logs);
        let streams = streams.map(|(name, log)| (name, Expected::of(kind, log)));
        expected.push((kind, streams.collect()));
    }
    for (n, reader) in readers.iter().enumerate() {
        let kind = reader.kind;
        let (_, expected) = expected.iter().find(|(of, _)| *of == kind).unwrap();
        for (stream, told) in &reader.streams {
            let (expected, context) = (&expected[stream], format!("{n}, {kind:?} of {stream}"));
            assert!(told.at.is_sorted_by(|a, b| a.0 < b.0), "{context}");
            for (position, sum) in &told.at {
                let here = expected.at(*position);
                assert_eq!(*sum, here, "{context}: not the fold at {position}");
            }
            let (first, last) = (told.at[0].0, told.at[told.at.len() - 1].0);
            let first = if kind.starts_with_a_snapshot() {
                first
            } else {
                0
            };
            let events = expected.told(first, last);
            if kind.is_of_events() {
                assert_eq!(told.changes, events, "{context}: the events after {first}");
            }
            if kind == Kind::Merged {
                expected.check_merged(&told.merged, last, &context);
            }
            assert!(!told.changes.is_empty(), "{context}: no changes");
            let single = told.merged.iter().all(|merged| merged.events == 1);
            assert!(kind.is_merged() || single, "{context}");
        }
    }
}

fn report(
    readers: &[Follower],
    logs: &[Vec<Event>; 2],
    (starts, kills): (u64, u64),
    took: Duration,
) {
    let mut cuts = Cuts::default();
    for reader in readers {
        cuts.in_heads += reader.cuts.in_heads;
        cuts.in_frames += reader.cuts.in_frames;
        cuts.between += reader.cuts.between;
    }
    let frames: u64 = readers.iter().map(|reader| reader.frames).sum();
    let (events, others) = (logs[0].len(), logs[1].len());
    let deletions = logs.iter().flatten().filter(|event| event.op == "delete");
    let deletions = deletions.count();
    assert!(deletions > 0, "none of {events} and {others} events");
    eprintln!(
        "{} readers, {} cuts ({} in heads, {} in frames, {} between), {starts} restarts of which {kills} by SIGKILL, {events} and {others} events \
         of which {deletions} deletions, {frames} frames in {took:.0?}: nothing lost, nothing twice",
        readers.len(),
        cuts.all(),
        cuts.in_heads,
        cuts.in_frames,
        cuts.between,
    );
}
