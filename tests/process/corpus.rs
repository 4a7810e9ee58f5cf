//! The bad requests of `tests/corpus` over raw sockets: as they stand, cut in two, behind a good one, and two faults at once.
//! After each a good request succeeds and the log has grown by exactly what the case says.

mod case;
mod send;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rand::Rng;
use rand::seq::IteratorRandom;

use crate::common::http::Request;
use crate::common::program::repository;
use crate::common::server::{Data, Server, position};
use crate::common::shared::Stream;
use crate::common::{number_from_env, seeded};
use case::{Case, corpus};
use send::{Mode, probe};
use world::{Others, World};

/// So many at a time: enough for group commits, few enough for two cores.
const WORKERS: usize = 8;
/// A request up to this size is cut at each of its first bytes, a larger one at a few places.
const CUT_EVERYWHERE_MAX: usize = 16 << 10;
const FIRST_BYTES: usize = 600;
const SOME_PLACES: usize = 24;
/// Cases that take longer than this, as the server waits for a client's rest, are cut at a few places too.
const SLOW: Duration = Duration::from_millis(300);
/// Thousands of wrong keys come from one address.
const PATIENT: (&str, &str) = ("HOOKPOOL_LIMITS_AUTH_FAILURES_PER_MINUTE", "1000000");

#[test]
fn every_number_from_1_to_140_is_there_or_is_a_test_that_exists() {
    let cases = corpus();
    let numbers: BTreeSet<u16> = cases.iter().map(|case| case.number).collect();
    assert_eq!(numbers, (1..=140).collect());
    let mut files = BTreeMap::new();
    for case in &cases {
        let says = case.is_request() || !case.elsewhere.is_empty();
        assert!(says, "{case} is neither a request nor a test");
        for place in &case.elsewhere {
            let (file, test) = place.split_once("::").unwrap();
            let text = files
                .entry(file)
                .or_insert_with(|| std::fs::read_to_string(repository(file)).unwrap());
            assert!(text.contains(&format!("fn {test}(")), "{case}: {place}");
        }
    }
}

#[test]
fn the_corpus_as_it_stands() {
    let count = run("the_corpus_as_it_stands", |cases, _| {
        let each = cases.iter().filter(|case| !case.is_paced());
        each.map(|case| (case.clone(), Mode::Plain)).collect()
    });
    assert!(count > 400, "{count} requests");
}

#[test]
fn the_corpus_behind_a_good_request() {
    run("the_corpus_behind_a_good_request", |cases, _| {
        let each = cases.iter().filter(|case| case.is_whole());
        each.map(|case| (case.clone(), Mode::Pipelined)).collect()
    });
}

#[test]
fn the_corpus_cut_at_some_bytes() {
    cut("the_corpus_cut_at_some_bytes", 4);
}

#[test]
#[ignore = "needs a minute: tests/run"]
fn the_corpus_cut_at_every_byte() {
    cut("the_corpus_cut_at_every_byte", 10_000);
}

/// Cuts each case at this many of its places.
fn cut(test: &str, places: usize) {
    run(test, |cases, random| {
        let whole = cases.iter().filter(|case| case.is_whole());
        let each = whole.map(|case| {
            let seed = random.random();
            (case.clone(), Mode::Cut { places, seed })
        });
        each.collect()
    });
}

#[test]
fn some_pairs_of_faults() {
    pairs("some_pairs_of_faults", 400);
}

#[test]
#[ignore = "needs a minute: tests/run"]
fn many_pairs_of_faults() {
    let pairs_wanted = number_from_env("HOOKPOOL_PAIRS").unwrap_or(6_000);
    pairs(
        "many_pairs_of_faults",
        usize::try_from(pairs_wanted).unwrap(),
    );
}

/// Two cases that touch different parts of a request, in one: the fault that is looked at first is told.
fn pairs(test: &str, wanted: usize) {
    run(test, |cases, random| {
        let mut all = Vec::new();
        for (n, one) in cases.iter().enumerate() {
            let others = cases[n + 1..].iter().filter(|two| two.number != one.number);
            all.extend(others.filter_map(|two| one.with(two)));
        }
        let chosen = all.into_iter().choose_multiple(random, wanted);
        chosen.into_iter().map(|pair| (pair, Mode::Plain)).collect()
    });
}

/// Sends what `choose` makes of all cases, checks that nothing else got into any log, and says how many requests it were.
fn run(
    test: &str,
    choose: impl FnOnce(&[Case], &mut rand::rngs::StdRng) -> Vec<(Case, Mode)>,
) -> usize {
    let mut random = seeded(test);
    let cases: Vec<Case> = corpus().iter().flat_map(Case::instances).collect();
    let jobs = choose(&cases, &mut random);
    let begun = Instant::now();
    let data = Data::new();
    let server = Server::try_start_with(data.path(), &[("RUST_LOG", "trace"), PATIENT]).unwrap();
    let others = Others::on(&server);
    let queue = Mutex::new(jobs.iter());
    let (failures, sent) = (Mutex::new(Vec::new()), Mutex::new((0, 0)));
    std::thread::scope(|scope| {
        for n in 0..WORKERS {
            let (server, others, queue, failures, sent) =
                (&server, &others, &queue, &failures, &sent);
            scope.spawn(move || {
                let mut world = World::new(server, others, n);
                loop {
                    let Some((case, mode)) = queue.lock().unwrap().next() else {
                        break;
                    };
                    if let Err(failure) = probe(&mut world, case, *mode) {
                        failures
                            .lock()
                            .unwrap()
                            .push(format!("{case}, {mode:?}: {failure}"));
                        world.catch_up();
                    }
                }
                let mut sent = sent.lock().unwrap();
                sent.0 += world.sent;
                sent.1 += world.events;
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    let shown = failures.iter().take(40).cloned().collect::<Vec<_>>();
    assert!(
        failures.is_empty(),
        "{} failed:\n{}",
        failures.len(),
        shown.join("\n")
    );
    let (sent, events) = sent.into_inner().unwrap();
    assert_eq!(
        Others::events_of_all_streams(&server),
        events,
        "somewhere else than it should"
    );
    eprintln!(
        "{test}: {} cases, {sent} requests, {events} events, {:?}",
        jobs.len(),
        begun.elapsed()
    );
    sent
}

/// The slow cases, all at once: what takes too long is ended.
#[test]
fn the_slow_ones_of_the_corpus_are_ended() {
    let data = Data::new();
    let limits = [
        ("HOOKPOOL_LIMITS_HEADER_TIMEOUT_SECONDS", "1"),
        ("HOOKPOOL_LIMITS_BODY_TIMEOUT_SECONDS", "2"),
        ("HOOKPOOL_LIMITS_KEEP_ALIVE_SECONDS", "3"),
        PATIENT,
    ];
    let server = Server::try_start_with(data.path(), &limits).unwrap();
    let others = Others::on(&server);
    let cases: Vec<Case> = corpus().iter().flat_map(Case::instances).collect();
    let slow: Vec<&Case> = cases.iter().filter(|case| case.is_paced()).collect();
    assert_eq!(slow.len(), 6);
    std::thread::scope(|scope| {
        for (n, case) in slow.into_iter().enumerate() {
            let (server, others) = (&server, &others);
            scope.spawn(move || {
                let begun = Instant::now();
                let mut world = World::new(server, others, n);
                probe(&mut world, case, Mode::Plain)
                    .unwrap_or_else(|failure| panic!("{case}: {failure}"));
                let took = begun.elapsed();
                let patience = Duration::from_millis(950)..Duration::from_secs(15);
                assert!(patience.contains(&took), "{case} took {took:?}");
            });
        }
    });
}

/// The server stops reading when nobody takes its answers.
#[test]
fn a_thousand_requests_whose_answers_nobody_reads_are_bounded() {
    // A server that does nothing else, as its memory is measured.
    let data = Data::new();
    let server = data.serve();
    let connector = server.add_connector("unread", false);
    let post = |body: &str| position(&server.post(&connector, body).expect(202));
    let get = Request::get("/api/streams/unread/log?body=true").bearer(&server.operator_key);
    let fill = format!(r#"{{"id":"a","x":"{}"}}"#, "x".repeat(500_000));
    let last = post(&fill);
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
            >> 10
    };
    let before = resident();
    let mut connection = server.connect();
    connection.send(&get.encode().repeat(1_000)).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let grown = resident().saturating_sub(before);
    assert!(
        grown < 100,
        "{grown} MiB more for 500 MB of answers that nobody reads"
    );
    drop(connection);
    assert!(post("{}") > last);
}

/// Names chosen to fall together in a hash table would make it a list.
#[test]
fn fifty_thousand_names_take_no_longer_than_their_bytes() {
    let stream = Stream::new("names");
    let body = |names: &mut dyn Iterator<Item = String>| {
        let members: Vec<String> = names.map(|name| format!("\"{name}\":0")).collect();
        format!("{{{}}}", members.join(","))
    };
    let timed = |body: &str| {
        let begun = Instant::now();
        stream.post(body);
        begun.elapsed()
    };
    let pairs = body(&mut (0..50_000_u32).map(|n| {
        // All sums of multiples are equal: `Aa` and `BB` are one to the hash of Java's strings.
        (0..16)
            .map(|bit| if n >> bit & 1 == 0 { "Aa" } else { "BB" })
            .collect()
    }));
    let pairs = if pairs.len() < 1 << 20 {
        pairs
    } else {
        body(&mut (0..25_000_u32).map(|n| {
            (0..15)
                .map(|bit| if n >> bit & 1 == 0 { "Aa" } else { "BB" })
                .collect()
        }))
    };
    let plain = body(&mut (0..50_000_u32).map(|n| format!("n{n}")));
    let (pairs, plain) = (timed(&pairs), timed(&plain));
    assert!(
        pairs < plain * 20 + Duration::from_secs(1),
        "{pairs:?}, {plain:?}"
    );
}
