//! Signed ingest of the real server against a bare warp route that answers 202, under the same load in the same minutes.
//!
//! Closed loop over raw sockets: every connection sends its next request when it has its answer. Every request has a body and a
//! signature of its own, made before the clock starts. Prints medians. `cargo bench --bench load -- --seconds 5 --rounds 3`; in the same
//! rounds `--before PROGRAM` measures another build, `--durable-streams PROGRAM` and `--redis PROGRAM` peers, `--keys` requests that each
//! have an `Idempotency-Key`, `--history 10000000` a server with so many events in its log; `--connections 64` one level alone.
//! With `--beside-rebuild 200000` the server against itself while it rebuilds so many events a second; with `--bulk 1000` requests of so
//! many events against requests of one; with `--reopen 10000000` how long a log of so many events takes to open after a kill.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench that prints its figures"
)]

mod bare;
mod beside;
mod bulk;
mod client;
mod history;
mod reopen;
mod servers;

use std::time::Duration;

use client::Run;
use servers::{Server, Target};

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
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let text = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).cloned()
    };
    let number = |name: &str| -> Option<u64> { text(name)?.parse().ok() };
    // `cargo test --benches` only asks whether it still works.
    let smoke = !has("--bench");
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
    let reopened = number("--reopen").or_else(|| smoke.then_some(50_000));
    if let Some(events) = reopened {
        reopen::measure(&plan, events);
    }
    if ["--beside-rebuild", "--bulk", "--reopen"]
        .into_iter()
        .any(has)
    {
        return;
    }
    let mut targets = vec![Target::Bare, Target::Hookpool];
    targets.extend(text("--before").map(Target::Before));
    targets.extend(text("--durable-streams").map(Target::DurableStreams));
    targets.extend(text("--redis").map(Target::Redis));
    targets.extend(has("--keys").then_some(Target::Keyed));
    targets.extend(number("--history").map(Target::History));
    println!(
        "{} s a run, {} rounds, medians; body about 100 bytes",
        plan.seconds, plan.rounds
    );
    println!(
        "{:>11} {:<16} {:>10} {:>8} {:>15} {:>18}",
        "connections", "server", "requests/s", ": bare", "p50/p99", "processor time each"
    );
    let levels = if smoke { &LEVELS[..1] } else { &LEVELS[..] };
    match number("--connections") {
        Some(level) => compare(usize::try_from(level).unwrap(), &plan, &targets),
        None => levels
            .iter()
            .for_each(|level| compare(*level, &plan, &targets)),
    }
}

/// What one server did in one round.
struct Figures {
    run: Run,
    to_bare: f64,
    processor_micros: f64,
}

fn compare(connections: usize, plan: &Plan, targets: &[Target]) {
    // A long history takes long to make; what is added to it is little.
    let history = targets
        .iter()
        .find(|target| matches!(target, Target::History(_)))
        .map(Server::start);
    let mut figures: Vec<Vec<Figures>> = targets.iter().map(|_| Vec::new()).collect();
    for _ in 0..plan.rounds {
        let mut bare = None;
        for (target, figures) in targets.iter().zip(&mut figures) {
            let fresh;
            let server = match (target, &history) {
                (Target::History(_), Some(server)) => server,
                _ => {
                    fresh = Server::start(target);
                    &fresh
                }
            };
            let (run, processor_micros) = measure(server, connections, plan);
            let to_bare = run.rate() / *bare.get_or_insert_with(|| run.rate());
            figures.push(Figures {
                run,
                to_bare,
                processor_micros,
            });
        }
    }
    for (target, figures) in targets.iter().zip(&figures) {
        let of = |pick: fn(&Figures) -> f64| median(figures.iter().map(pick).collect());
        println!(
            "{connections:>11} {:<16} {:>10.0} {:>8.3} {:>15} {:>15.1} us",
            target.name(),
            of(|it| it.run.rate()),
            of(|it| it.to_bare),
            format!(
                "{:.2}/{:.2} ms",
                of(|it| it.run.millis(500)),
                of(|it| it.run.millis(990))
            ),
            of(|it| it.processor_micros),
        );
    }
}

/// A run, and the processor time of the server for each answer, until the pool has it.
fn measure(server: &Server, connections: usize, plan: &Plan) -> (Run, f64) {
    let before = server.processor_time();
    let time = Duration::from_secs(plan.seconds);
    let run = client::run(server.address, connections, time, &server.speaks);
    server.check(run.answers);
    let took = server.processor_time() - before;
    let micros = took.as_secs_f64() * 1e6 / run.answers as f64;
    (run, micros)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
