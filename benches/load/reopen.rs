//! How long a server with a long log takes from its start, after it was killed under load.

use std::time::Duration;

use crate::{
    Plan, client, median,
    servers::{Server, Target},
};

const CONNECTIONS: usize = 64;

/// Kills it once a round, right behind the last answer: what it had not yet written to files is in its journals.
pub(crate) fn measure(plan: &Plan, events: u64) {
    let mut server = Server::start(&Target::History(events));
    let mut total = events;
    println!(
        "{:>12} {:>12} {:>20} {:>22}",
        "events", "answered", "listens and is ready", "pool has all of the log"
    );
    let (mut ready, mut applied) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        let time = Duration::from_secs(plan.seconds);
        let run = client::run(server.address, CONNECTIONS, time, &server.speaks);
        total += run.answers;
        let took = server.kill_and_start(total);
        println!(
            "{total:>12} {:>12} {:>18.2} s {:>20.2} s",
            run.answers,
            took.ready.as_secs_f64(),
            took.applied.as_secs_f64()
        );
        ready.push(took.ready.as_secs_f64());
        applied.push(took.applied.as_secs_f64());
    }
    println!("medians {:.2} s, {:.2} s", median(ready), median(applied));
}
