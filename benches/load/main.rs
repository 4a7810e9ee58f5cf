//! Signed ingest of the real server against a bare warp route that answers 202, under the same load in the same minutes.
//!
//! Closed loop over raw sockets: every connection sends its next request when it has its answer. Every request has a body and a
//! signature of its own, made before the clock starts. Prints a table of medians. `cargo bench --bench load -- --seconds 5 --rounds 3`;
//! with `--beside-rebuild 200000` the server against itself while it rebuilds so many events a second; with `--bulk 1000` requests of so
//! many events against requests of one.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench that prints its figures"
)]

mod bare;
mod beside;
mod bulk;
mod client;
mod servers;

use std::time::Duration;

use client::Run;
use servers::Servers;

const LEVELS: [usize; 3] = [16, 64, 256];

struct Plan {
    seconds: u64,
    rounds: usize,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments
        .first()
        .is_some_and(|first| first == bare::ARGUMENT)
    {
        return bare::serve();
    }
    let number = |name: &str| -> Option<u64> {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1)?.parse().ok()
    };
    // `cargo test --benches` only asks whether it still works.
    let smoke = !arguments.iter().any(|argument| argument == "--bench");
    let plan = Plan {
        seconds: number("--seconds").unwrap_or(if smoke { 1 } else { 5 }),
        rounds: number("--rounds").map_or(if smoke { 1 } else { 3 }, |rounds| {
            usize::try_from(rounds).unwrap()
        }),
    };
    let beside = beside::Plan {
        seconds: plan.seconds,
        rounds: plan.rounds,
        per_second: u32::try_from(number("--beside-rebuild").unwrap_or(1_000)).unwrap(),
        events: number("--events").unwrap_or(if smoke { 50_000 } else { 3_000_000 }),
    };
    if smoke || number("--beside-rebuild").is_some() {
        beside::compare(&beside);
    }
    let bulk = bulk::Plan {
        seconds: plan.seconds,
        rounds: plan.rounds,
        events: usize::try_from(number("--bulk").unwrap_or(100)).unwrap(),
    };
    if smoke || number("--bulk").is_some() {
        bulk::compare(&bulk);
    }
    if number("--beside-rebuild")
        .or_else(|| number("--bulk"))
        .is_some()
    {
        return;
    }
    let levels = if smoke { &LEVELS[..1] } else { &LEVELS[..] };
    println!(
        "{} s a run, {} rounds, medians; body about 100 bytes",
        plan.seconds, plan.rounds
    );
    println!(
        "{:>11} {:>12} {:>12} {:>7} {:>15} {:>15}",
        "connections", "bare req/s", "hookpool/s", "ratio", "bare p50/p99", "hookpool p50/p99"
    );
    for level in levels {
        compare(*level, &plan);
    }
}

fn compare(connections: usize, plan: &Plan) {
    let mut runs: Vec<(Run, Run)> = Vec::new();
    for _ in 0..plan.rounds {
        let mut servers = Servers::start();
        let time = Duration::from_secs(plan.seconds);
        let bare = client::run(servers.bare, connections, time, &servers.keys);
        let ours = client::run(servers.hookpool, connections, time, &servers.keys);
        servers.check(ours.answers);
        runs.push((bare, ours));
    }
    let ratio = median(
        runs.iter()
            .map(|(bare, ours)| ours.rate() / bare.rate())
            .collect(),
    );
    let of = |pick: fn(&(Run, Run)) -> f64| median(runs.iter().map(pick).collect());
    println!(
        "{connections:>11} {:>12.0} {:>12.0} {ratio:>7.2} {:>15} {:>15}",
        of(|(bare, _)| bare.rate()),
        of(|(_, ours)| ours.rate()),
        format!(
            "{:.2}/{:.2} ms",
            of(|(bare, _)| bare.millis(500)),
            of(|(bare, _)| bare.millis(990))
        ),
        format!(
            "{:.2}/{:.2} ms",
            of(|(_, ours)| ours.millis(500)),
            of(|(_, ours)| ours.millis(990))
        ),
    );
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
