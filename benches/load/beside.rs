//! Signed ingest beside a throttled rebuild of a long history, against the same server without one.

use std::{net::SocketAddr, path::Path, process::Child, time::Duration};

use hookpool_client::{Operator, Rebuild};

use crate::{
    client::{self, Run, Speaks},
    history, median, servers,
};

const CONNECTIONS: usize = 64;
const STREAM: &str = "load";

pub(crate) struct Plan {
    pub(crate) seconds: u64,
    pub(crate) rounds: usize,
    pub(crate) per_second: u32,
    /// Of the history; they must last for a run and its preparation.
    pub(crate) events: u64,
}

pub(crate) fn compare(plan: &Plan) {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path().join("data"), plan.events);
    println!(
        "{CONNECTIONS} connections, {} s a run, {} rounds; a history of {} events is rebuilt at {} events/s",
        plan.seconds, plan.rounds, plan.events, plan.per_second
    );
    println!(
        "{:>9} {:>10} {:>6} {:>12} {:>17} {:>17}",
        "alone/s", "beside/s", "ratio", "rebuilt/s", "alone p50/p99", "beside p50/p99"
    );
    let ratios = (0..plan.rounds).map(|_| server.round(plan)).collect();
    println!("median ratio {:.2}", median(ratios));
}

struct Server {
    address: SocketAddr,
    speaks: Speaks,
    operator: Operator,
    runtime: tokio::runtime::Runtime,
    child: Child,
}

impl Server {
    /// On a history that no sender had to send.
    fn start(data: &Path, events: u64) -> Self {
        let (child, address, keys) = history::serve(data, events);
        let server = Self {
            address,
            speaks: Speaks::Hookpool(keys),
            operator: Operator::new(servers::client(address), servers::operator_key(data)),
            runtime: tokio::runtime::Runtime::new().unwrap(),
            child,
        };
        server.wait_applied(events);
        server
    }

    fn round(&self, plan: &Plan) -> f64 {
        let alone = self.run(plan);
        let started = self
            .operator
            .start_rebuild(STREAM, None, Some(plan.per_second));
        self.runtime.block_on(started).unwrap();
        let before = self.rebuild();
        let begun = tokio::time::Instant::now();
        let beside = self.run(plan);
        let (after, took) = (self.rebuild(), begun.elapsed());
        assert!(
            after.state == "running" && after.done < after.total,
            "the rebuild ended before the run: give it more --events"
        );
        self.runtime
            .block_on(self.operator.cancel_rebuild(STREAM))
            .unwrap();
        let ratio = beside.rate() / alone.rate();
        let [before, after] = [before, after].map(|rebuild| rebuild.done.unwrap_or(0));
        let rebuilt = (after - before) as f64 / took.as_secs_f64();
        let delays = |run: &Run| format!("{:.2}/{:.2} ms", run.millis(500), run.millis(990));
        println!(
            "{:>9.0} {:>10.0} {ratio:>6.2} {rebuilt:>12.0} {:>17} {:>17}",
            alone.rate(),
            beside.rate(),
            delays(&alone),
            delays(&beside)
        );
        ratio
    }

    fn run(&self, plan: &Plan) -> Run {
        let time = Duration::from_secs(plan.seconds);
        let run = client::run(self.address, CONNECTIONS, time, &self.speaks);
        self.wait_applied(run.answers);
        run
    }

    fn rebuild(&self) -> Rebuild {
        self.runtime
            .block_on(self.operator.rebuild(STREAM))
            .unwrap()
    }

    fn wait_applied(&self, events: u64) {
        self.runtime
            .block_on(servers::wait_applied(self.address, events));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        servers::stop(&mut self.child);
    }
}
