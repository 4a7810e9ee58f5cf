//! Signed ingest beside a throttled rebuild of a long history, against the same server without one.

use std::{
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use hookpool_client::{Operator, Rebuild, Secret};
use hookpool_core::{
    event::{NewEvent, Op, Request, RequestId},
    name::{ConnectorName, ItemId, StreamName},
    position::Epoch,
    time::Timestamp,
};
use hookpool_fjall::{FjallLog, Options};
use hookpool_store::EventLog as _;

use crate::{
    client::{self, Keys, Run},
    median, servers,
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
    keys: Keys,
    operator: Operator,
    runtime: tokio::runtime::Runtime,
    child: Child,
}

impl Server {
    /// On a history that no sender had to send.
    fn start(data: &Path, events: u64) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (mut child, address) = serve(data);
        let key = std::fs::read_to_string(data.join("operator.key")).unwrap();
        let key = Secret::new(key.trim().to_owned());
        let keys = servers::connector(address, key.clone());
        stop(&mut child);
        runtime.block_on(fill(&data.join("log"), events));
        let (child, address) = serve(data);
        let server = Self {
            address,
            keys,
            operator: Operator::new(servers::server(address), key),
            runtime,
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
        let rebuilt = (after.done - before.done) as f64 / took.as_secs_f64();
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
        let run = client::run(self.address, CONNECTIONS, time, &self.keys);
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
        stop(&mut self.child);
    }
}

fn serve(data: &Path) -> (Child, SocketAddr) {
    let mut serve = Command::new(env!("CARGO_BIN_EXE_hookpool"));
    serve
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(data)
        .env("RUST_LOG", "warn")
        .stderr(Stdio::null());
    servers::listening(&mut serve)
}

fn stop(child: &mut Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

async fn fill(log: &Path, events: u64) {
    let log = FjallLog::open(log, Options::new(Epoch(1))).unwrap();
    let mut n = 0;
    while n < events {
        let batch: Vec<_> = (n..events.min(n + 1_024)).map(event).collect();
        n += batch.len() as u64;
        log.append(Request::each(batch)).await.unwrap();
    }
}

/// About 90 bytes, of 10,000 items.
fn event(n: u64) -> NewEvent {
    let item = n.wrapping_mul(2_654_435_761) % 10_000;
    let body = format!(
        r#"{{"region":"r{item}","sales":{n},"target":130000,"updated":"2026-04-09T10:30:00Z"}}"#
    );
    NewEvent {
        time: Timestamp(1_700_000_000_000_000 + n),
        stream: StreamName::new(STREAM).unwrap(),
        op: Op::Upsert,
        item_id: ItemId::new(format!("r{item}")).unwrap(),
        generated_id: false,
        duplicate_keys: false,
        field_count: 4,
        connector: ConnectorName::new("past").unwrap(),
        request_id: RequestId(u128::from(n).to_le_bytes()),
        dedupe: None,
        idempotency: None,
        body: Bytes::from(body),
    }
}
