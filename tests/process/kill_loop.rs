//! SIGKILL at random moments under load: what was acknowledged stays, once, at its position, and every follower sees all of it.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rand::Rng;
use rand::rngs::StdRng;
use serde::Deserialize;

use crate::common::fold::{Event, assert_same, fold};
use crate::common::http::{Connection, Request};
use crate::common::server::{Connector, Data, position};
use crate::common::sse::Parser;
use crate::common::{eventually, number_from_env, program, seeded};

const CLIENTS: usize = 8;
const STREAM: &str = "ledger";

/// Nonce to position, written down only after the whole 202 was read.
type Ledger = BTreeMap<String, u64>;

#[test]
fn a_few_kills_lose_nothing() {
    kill_loop("a_few_kills_lose_nothing", 3);
}

#[test]
#[ignore = "needs a minute: tests/run"]
fn many_kills_lose_nothing() {
    kill_loop(
        "many_kills_lose_nothing",
        number_from_env("HOOKPOOL_ROUNDS").unwrap_or(50),
    );
}

fn kill_loop(test: &str, rounds: u64) {
    let mut rng = seeded(test);
    let data = Data::new();
    let mut server = data.serve();
    let connector = server.add_connector(STREAM, false);
    let follower = Follower::start(server.addr, server.operator_key.clone());
    let mut ledger = Ledger::new();
    let mut log: Vec<Event> = Vec::new();
    let started = Instant::now();

    for round in 1..=rounds {
        let clients = spawn_clients(server.addr, &connector, round);
        std::thread::sleep(Duration::from_millis(rng.random_range(5..300)));
        server.kill9();
        for client in clients {
            ledger.extend(client.join().unwrap());
        }
        if rng.random_bool(0.3) {
            kill_while_opening(&data, &mut rng);
        }
        server = data.serve();
        follower.meet(server.addr);

        let from = log.last().map_or(0, |event| event.position);
        log.extend(server.log_after(STREAM, from));
        if round % 10 == 0 || round == rounds {
            assert_same(&server.log(STREAM), &log, "read again from the start");
        }
        check(&ledger, &log);
        let head = log.last().map_or(0, |event| event.position);
        let (applied, items) = server.items(STREAM, head);
        assert!(applied >= head);
        assert_eq!(items, fold(&log), "the pool is not the fold of the log");
    }

    let last = server
        .post(&connector, r#"{"id":"last","nonce":"last"}"#)
        .expect(202);
    let seen = follower.finish(position(&last));
    log.extend(server.log_after(STREAM, log.last().map_or(0, |event| event.position)));
    let positions: Vec<u64> = log.iter().map(|event| event.position).collect();
    assert_eq!(
        seen, positions,
        "the follower has a gap, a repetition or something else"
    );
    assert!(
        !ledger.is_empty(),
        "nothing was acknowledged: the loop has shown nothing"
    );
    server.stop();
    eprintln!(
        "{rounds} kills in {:.0?}: {} acknowledged, {} in the log, none lost, none twice",
        started.elapsed(),
        ledger.len(),
        log.len() - 1
    );
}

/// Every acknowledged nonce once, at its position; every other one at most once.
fn check(ledger: &Ledger, log: &[Event]) {
    #[derive(Deserialize)]
    struct Body {
        nonce: String,
    }
    let mut found = Ledger::new();
    for event in log {
        let Body { nonce } = serde_json::from_str(&event.body).unwrap();
        let twice = found.insert(nonce.clone(), event.position);
        assert_eq!(twice, None, "{nonce} is in the log twice");
    }
    for (nonce, position) in ledger {
        assert_eq!(
            found.get(nonce),
            Some(position),
            "{nonce} was acknowledged at {position}"
        );
    }
}

fn spawn_clients(addr: SocketAddr, connector: &Connector, round: u64) -> Vec<JoinHandle<Ledger>> {
    let client = |client: usize| {
        let connector = connector.clone();
        std::thread::spawn(move || deliver_until_cut(addr, &connector, round, client))
    };
    (0..CLIENTS).map(client).collect()
}

/// Posts one delivery after the other on one connection until the server is gone.
fn deliver_until_cut(addr: SocketAddr, connector: &Connector, round: u64, client: usize) -> Ledger {
    let mut ledger = Ledger::new();
    let Ok(mut connection) = Connection::open(addr) else {
        return ledger;
    };
    for n in 0.. {
        let nonce = format!("{round}-{client}-{n}");
        let body = format!(
            r#"{{"id":"item-{}","nonce":"{nonce}","client-{client}":{n}.0,"of":{{"round":{round}}}}}"#,
            n % 16
        );
        let Ok(answer) = connection.call(&connector.delivery(body.as_bytes())) else {
            break;
        };
        ledger.insert(nonce, position(&answer.expect(202)));
    }
    ledger
}

/// Starts a server and kills it while it opens its data.
fn kill_while_opening(data: &Data, rng: &mut StdRng) {
    let mut command = program::serve(data.path());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    std::thread::sleep(Duration::from_millis(rng.random_range(0..60)));
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Reads the changes from the beginning and resumes with its last id wherever the server is by then.
struct Follower {
    addr: Arc<Mutex<SocketAddr>>,
    positions: Arc<Mutex<Vec<u64>>>,
    done: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Follower {
    fn start(addr: SocketAddr, key: String) -> Self {
        let addr = Arc::new(Mutex::new(addr));
        let positions = Arc::new(Mutex::new(Vec::new()));
        let done = Arc::new(AtomicBool::new(false));
        let thread = {
            let (addr, positions, done) = (addr.clone(), positions.clone(), done.clone());
            std::thread::spawn(move || {
                let mut parser = Parser::default();
                while !done.load(Ordering::Relaxed) {
                    parser.reconnect();
                    let addr = *addr.lock().unwrap();
                    // How it ends does not matter: the next connection takes up where this one was cut.
                    let _ = follow(addr, &key, &mut parser, &positions, &done);
                    std::thread::sleep(Duration::from_millis(5));
                }
            })
        };
        Self {
            addr,
            positions,
            done,
            thread,
        }
    }

    /// Tells it where the server is now.
    fn meet(&self, addr: SocketAddr) {
        *self.addr.lock().unwrap() = addr;
    }

    /// What it saw, up to and including `last`.
    fn finish(self, last: u64) -> Vec<u64> {
        eventually(
            "the follower sees the last event",
            Duration::from_secs(60),
            || {
                assert!(!self.thread.is_finished(), "the follower has failed");
                self.positions.lock().unwrap().contains(&last).then_some(())
            },
        );
        self.done.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        Arc::into_inner(self.positions)
            .unwrap()
            .into_inner()
            .unwrap()
    }
}

fn follow(
    addr: SocketAddr,
    key: &str,
    parser: &mut Parser,
    positions: &Mutex<Vec<u64>>,
    done: &AtomicBool,
) -> std::io::Result<()> {
    let target = format!("/api/streams/{STREAM}/changes?after=earliest&heartbeat=1");
    let mut request = Request::get(&target).bearer(key);
    if !parser.last_id().is_empty() {
        request = request.header("Last-Event-ID", parser.last_id());
    }
    let mut connection = Connection::open(addr)?;
    let (head, mut body) = connection.follow(&request)?;
    assert_eq!(head.status, 200);
    let mut buffer = [0; 8192];
    while !done.load(Ordering::Relaxed) {
        let read = body.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        for frame in parser.push(&buffer[..read]) {
            match &*frame.event {
                "change" => positions.lock().unwrap().push(frame.position()),
                "bookmark" | "goodbye" => {}
                _ => panic!("a follower that resumes properly got {frame:?}"),
            }
        }
    }
    Ok(())
}
