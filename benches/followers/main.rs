//! Followers of one stream: how fast frames reach them, how late, and what one of them costs, beside servers that others wrote.
//!
//! Every follower is a raw socket that counts the frames that it gets; publishers wait for each answer. Unpaced, the rate is that of all
//! frames until the last; paced, the delay is from before an event is sent, and from its answer, to when its frame is read.
//! `cargo bench --bench followers -- --rounds 3 --followers 1000`; `--nchan` and `--durable-streams PROGRAM` measure peers in the same rounds, and
//! `--before PROGRAM` another build. `--ndjson` and `--select QUERY` follow in other ways, the other build then too; `{n}` in the query is each follower's number. `--troubled`: what it costs those who send that some followers stop reading or vanish.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a bench that prints its figures"
)]

mod client;
mod targets;
mod troubled;

use client::{Figures, Millis, Plan};
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
    let select = text("--select");
    let before = |program| Target::Before(program, select.clone().unwrap_or_default());
    targets.extend(text("--before").map(before));
    targets.extend(has("--ndjson").then_some(Target::Ndjson));
    targets.extend(select.clone().map(Target::Selected));
    targets.extend(text("--durable-streams").map(Target::DurableStreams));
    targets.extend(has("--nchan").then_some(Target::Nchan));
    let rounds = number("--rounds", if smoke { 1 } else { 3 });

    if smoke || has("--troubled") {
        troubled::compare(&plan, rounds);
    }
    if has("--troubled") {
        return;
    }
    println!(
        "{} followers, {} events unpaced by 16 publishers, then {}/s for {} s; medians of {rounds} rounds",
        plan.followers, plan.events, plan.paced_per_second, plan.paced_seconds
    );
    println!(
        "{:<16} {:>11} {:>11} {:>18} {:>18} {:>18} {:>12}",
        "server",
        "frames/s",
        "bytes/frame",
        "send to answer",
        "send to frame",
        "answer to frame",
        "KiB/follower"
    );
    let mut figures: Vec<Vec<Figures>> = targets.iter().map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        for (target, figures) in targets.iter().zip(&mut figures) {
            figures.push(client::on_one_thread(client::measure(
                &Server::start(target),
                &plan,
            )));
        }
    }
    for (target, figures) in targets.iter().zip(&figures) {
        let of = |pick: fn(&Figures) -> f64| median(figures.iter().map(pick).collect());
        let delay = |pick: fn(&Figures) -> Millis| {
            let each = || figures.iter().map(pick);
            let p50 = median(each().map(|millis| millis.p50).collect());
            let p99 = median(each().map(|millis| millis.p99).collect());
            format!("{p50:.2}/{p99:.2} ms")
        };
        println!(
            "{:<16} {:>11.0} {:>11.0} {:>18} {:>18} {:>18} {:>12.1}",
            target.name(),
            of(|figures| figures.rate),
            of(|figures| figures.frame_bytes),
            delay(|figures| figures.to_answer),
            delay(|figures| figures.from_send),
            delay(|figures| figures.from_answer),
            of(|figures| figures.follower_kib),
        );
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
