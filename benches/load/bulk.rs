//! Many events in a request against one in each, on fresh servers in the same minutes.

use std::time::Duration;

use crate::{
    client, median,
    servers::{Server, Target},
};

/// How many connections each side has: few large requests keep as much under way as many small ones.
const SINGLE_CONNECTIONS: usize = 256;
const BULK_CONNECTIONS: usize = 4;

pub(crate) struct Plan {
    pub(crate) seconds: u64,
    pub(crate) rounds: usize,
    /// In each request.
    pub(crate) events: usize,
}

pub(crate) fn compare(plan: &Plan) {
    let time = Duration::from_secs(plan.seconds);
    println!(
        "{:>15} {:>15} {:>7} {:>15} {:>15}",
        "single events/s", "bulk events/s", "ratio", "single p50/p99", "bulk p50/p99"
    );
    let mut ratios = Vec::new();
    for _ in 0..plan.rounds {
        let server = Server::start(&Target::Hookpool);
        let single = client::run(server.address, SINGLE_CONNECTIONS, time, &server.speaks);
        server.check(single.answers);
        let server = Server::start(&Target::Hookpool);
        let bulk = client::run_bulk(
            server.address,
            BULK_CONNECTIONS,
            time,
            &server.speaks,
            plan.events,
        );
        server.check(bulk.answers * plan.events as u64);
        let rate = bulk.rate() * plan.events as f64;
        ratios.push(rate / single.rate());
        println!(
            "{:>15.0} {rate:>15.0} {:>7.2} {:>15} {:>15}",
            single.rate(),
            rate / single.rate(),
            format!("{:.2}/{:.2} ms", single.millis(500), single.millis(990)),
            format!("{:.2}/{:.2} ms", bulk.millis(500), bulk.millis(990)),
        );
    }
    println!("median ratio {:.2}", median(ratios));
}
