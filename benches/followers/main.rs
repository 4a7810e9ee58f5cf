//! Followers of one stream: how fast frames reach them, how late, and what one of them costs, beside servers that others wrote.
//!
//! Every follower is a raw socket that counts the frames that it gets; publishers wait for each answer. Unpaced, the rate is that of all
//! frames until the last; paced, the delay is from before an event is sent to when its frame is read.
//! `cargo bench --bench followers -- --rounds 3 --followers 1000`; `--nchan` and `--durable-streams PROGRAM` measure peers in the same rounds.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a bench that prints its figures"
)]

mod client;
mod targets;

use client::{Figures, Plan};
use targets::{Server, Target};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let text = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).cloned()
    };
    let number = |name: &str, otherwise: usize| -> usize {
        text(name).map_or(otherwise, |text| text.parse().unwrap())
    };
    // `cargo test --benches` only asks whether it still works.
    let smoke = !has("--bench");
    let plan = Plan {
        followers: number("--followers", if smoke { 20 } else { 1_000 }),
        events: number("--events", if smoke { 200 } else { 4_000 }),
        paced_per_second: number("--paced", if smoke { 100 } else { 200 }),
        paced_seconds: number("--seconds", if smoke { 1 } else { 5 }),
    };
    let mut targets = vec![Target::Hookpool];
    targets.extend(text("--durable-streams").map(Target::DurableStreams));
    targets.extend(has("--nchan").then_some(Target::Nchan));
    let rounds = number("--rounds", if smoke { 1 } else { 3 });

    println!(
        "{} followers, {} events unpaced by 16 publishers, then {}/s for {} s; medians of {rounds} rounds",
        plan.followers, plan.events, plan.paced_per_second, plan.paced_seconds
    );
    println!(
        "{:<16} {:>12} {:>12} {:>14} {:>14} {:>16}",
        "server", "frames/s", "bytes/frame", "paced p50", "paced p99", "KiB per follower"
    );
    let mut figures: Vec<Vec<Figures>> = targets.iter().map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        for (target, figures) in targets.iter().zip(&mut figures) {
            figures.push(client::measure(&Server::start(target), &plan));
        }
    }
    for (target, figures) in targets.iter().zip(&figures) {
        let of = |pick: fn(&Figures) -> f64| {
            let mut values: Vec<f64> = figures.iter().map(pick).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        println!(
            "{:<16} {:>12.0} {:>12.0} {:>11.2} ms {:>11.2} ms {:>16.1}",
            target.name(),
            of(|figures| figures.rate),
            of(|figures| figures.frame_bytes),
            of(|figures| figures.p50_ms),
            of(|figures| figures.p99_ms),
            of(|figures| figures.follower_kib),
        );
    }
}
