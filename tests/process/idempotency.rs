//! `Idempotency-Key` as `docs/protocol.md` has it, and duplicates of every sort in a storm of them while the server is killed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::Rng;
use serde_json::{Value, json};

use crate::common::http::{Connection, Request, Response};
use crate::common::server::{Connector, Data, Server, position};
use crate::common::shared::shared;
use crate::common::{eventually, number_from_env, seeded};

fn with_key(connector: &Connector, key: &str, body: &str) -> Request {
    let request = Request::post(&connector.target()).bearer(&connector.ingest_key);
    request.header("Idempotency-Key", key).body(body)
}

/// What must be the same in the first answer and in each repeated one.
fn answer(response: &Response) -> (String, u64) {
    (response.text().to_owned(), position(response))
}

fn replayed(response: &Response) -> bool {
    response.header("Idempotency-Replayed") == Some("true")
}

#[test]
fn a_repeated_request_gets_the_first_answer_and_makes_no_event() {
    let shared = shared();
    let connector = shared.server.add_connector("idempotent", false);
    // The id is generated, so that a second event would show.
    let body = r#"{"sales":1}"#;
    let first = shared.server.call(&with_key(&connector, "order-1", body));
    let first = first.expect(202);
    assert!(!replayed(&first));
    for key in ["order-1", "\"order-1\"", " order-1 "] {
        let again = shared.server.call(&with_key(&connector, key, body));
        let again = again.expect(202);
        assert!(replayed(&again), "{key}");
        assert_eq!(answer(&again), answer(&first), "{key}");
    }
    let other = shared.server.call(&with_key(&connector, "order-2", body));
    assert!(!replayed(&other.expect(202)));
    assert_eq!(shared.server.log("idempotent").len(), 2);
}

#[test]
fn a_key_is_that_of_one_request_of_one_connector() {
    let shared = shared();
    let connector = shared.server.add_connector("mismatched", false);
    let call = |request: &Request| shared.server.call(request);
    call(&with_key(&connector, "k", r#"{"a":1}"#)).expect(202);
    call(&with_key(&connector, "k", r#"{"a":1 }"#)).expect_problem(422, "IDEMPOTENCY_MISMATCH");
    let target = format!("{}?idField=a", connector.target());
    let asked = Request::post(&target).bearer(&connector.ingest_key);
    let asked = asked.header("Idempotency-Key", "k").body(r#"{"a":1}"#);
    call(&asked).expect_problem(422, "IDEMPOTENCY_MISMATCH");
    // The key counts before the body is read.
    for body in ["", "nonsense", r#"{"id":"\n"}"#] {
        call(&with_key(&connector, "k", body)).expect_problem(422, "IDEMPOTENCY_MISMATCH");
    }
    let deletion = connector.deletion("a").header("Idempotency-Key", "k");
    call(&deletion.body("{}")).expect_problem(422, "IDEMPOTENCY_MISMATCH");
    // What is refused has not used its key.
    call(&with_key(&connector, "l", "[]")).expect_problem(400, "INVALID_PAYLOAD");
    assert!(!replayed(
        &call(&with_key(&connector, "l", "{}")).expect(202)
    ));
    let name = json!({"stream": "mismatched", "name": "another"});
    let another = shared.server.add_connector_with(&name);
    assert!(!replayed(&call(&with_key(&another, "k", "{}")).expect(202)));
    assert_eq!(shared.server.log("mismatched").len(), 3);
}

#[test]
fn what_is_no_key_is_told_to_those_who_may_write() {
    let shared = shared();
    let connector = shared.server.add_connector("malformed-key", false);
    let long = "k".repeat(256);
    for key in [
        "",
        "\"\"",
        "a b",
        "a, b",
        "\"a",
        "\"a\";b=1",
        "\u{e9}",
        &*long,
    ] {
        let request = with_key(&connector, key, "{}");
        shared
            .server
            .call(&request)
            .expect_problem(400, "INVALID_PARAMETER");
    }
    let twice = Request::post(&connector.target()).bearer(&connector.ingest_key);
    let twice = twice
        .header("Idempotency-Key", "a")
        .header("Idempotency-Key", "a");
    shared
        .server
        .call(&twice.body("{}"))
        .expect_problem(400, "INVALID_PARAMETER");
    let stranger = Request::post(&connector.target()).bearer("ik_000000000000_x");
    let stranger = stranger.header("Idempotency-Key", "").body("{}");
    shared
        .server
        .call(&stranger)
        .expect_problem(401, "UNAUTHORIZED");
    assert_eq!(shared.server.log("malformed-key").len(), 0);
    let longest = &long[1..];
    shared
        .server
        .call(&with_key(&connector, longest, "{}"))
        .expect(202);
}

/// A signature is made anew for each try; it is no part of the request.
#[test]
fn a_request_that_is_signed_anew_is_the_same_and_a_replay_is_known_under_any_key() {
    let shared = shared();
    let connector = shared.server.add_connector("signed-keys", true);
    let body = br#"{"a":1}"#;
    let signed = connector.delivery(body);
    let first = shared
        .server
        .call(&signed.clone().header("Idempotency-Key", "k"));
    let first = answer(&first.expect(202));
    std::thread::sleep(Duration::from_millis(1_100));
    let anew = connector.delivery(body).header("Idempotency-Key", "k");
    for again in [
        anew,
        signed.clone(),
        signed.header("Idempotency-Key", "other"),
    ] {
        let again = shared.server.call(&again).expect(202);
        assert!(replayed(&again));
        assert_eq!(answer(&again), first);
    }
    assert_eq!(shared.server.log("signed-keys").len(), 1);
}

#[test]
fn keys_are_known_after_a_restart_and_after_a_kill() {
    let data = Data::new();
    let mut server = data.serve();
    let connector = server.add_connector("lasting", false);
    let mut first = BTreeMap::new();
    for round in 0..6 {
        let key = format!("key-{round}");
        let body = format!(r#"{{"round":{round}}}"#);
        let request = with_key(&connector, &key, &body);
        first.insert(round, (answer(&server.call(&request).expect(202)), request));
        server = match round % 2 {
            0 => server.restart(),
            _ => {
                server.kill9();
                data.serve()
            }
        };
        for (expected, request) in first.values() {
            let again = server.call(request).expect(202);
            assert!(replayed(&again));
            assert_eq!(answer(&again), *expected);
        }
        let other = with_key(&connector, &key, "{}");
        server
            .call(&other)
            .expect_problem(422, "IDEMPOTENCY_MISMATCH");
    }
    assert_eq!(server.log("lasting").len(), 6);
    server.stop();
}

const CLIENTS: usize = 8;
const ROUNDS: u64 = 4;

/// `HOOKPOOL_DUPLICATES` says how many requests are sent.
#[test]
fn a_storm_of_duplicates_makes_one_event_each() {
    storm(number_from_env("HOOKPOOL_DUPLICATES").unwrap_or(2_000));
}

/// Every request is sent by all clients at once, until each has an answer; the server is killed meanwhile. Half of them have keys, half are
/// signed replays.
fn storm(duplicates: u64) {
    let mut rng = seeded("a_storm_of_duplicates_makes_one_event_each");
    let data = Data::new();
    let mut server = data.serve();
    let plain = server.add_connector("keyed", false);
    let signed = server.add_connector("replayed", true);
    let place = Arc::new(Mutex::new(server.addr));
    let started = Instant::now();
    let (mut told, mut kills, mut repeats) = (0, 0, 0);
    let distinct = (duplicates / CLIENTS as u64).div_ceil(ROUNDS).div_ceil(2);
    for round in 0..ROUNDS {
        let requests = (0..distinct).flat_map(|n| {
            let body = format!(r#"{{"nonce":"{round}-{n}"}}"#);
            let key = format!("{round}-{n}");
            [
                with_key(&plain, &key, &body),
                signed.delivery(body.as_bytes()),
            ]
        });
        let requests: Arc<Vec<Request>> = Arc::new(requests.collect());
        let clients = (0..CLIENTS).map(|_| {
            let (requests, place) = (Arc::clone(&requests), Arc::clone(&place));
            std::thread::spawn(move || send_all(&requests, &place))
        });
        let clients: Vec<_> = clients.collect();
        for _ in 0..2 {
            std::thread::sleep(Duration::from_millis(rng.random_range(20..200)));
            server.kill9();
            kills += 1;
            server = data.serve();
            *place.lock().unwrap() = server.addr;
        }
        let answers: Vec<Vec<_>> = clients.into_iter().map(|it| it.join().unwrap()).collect();
        for n in 0..requests.len() {
            let same: BTreeSet<_> = answers.iter().map(|of| &of[n].0).collect();
            assert_eq!(same.len(), 1, "request {n} of round {round}: {same:?}");
            repeats += answers.iter().filter(|of| of[n].1).count();
            told += answers.len();
        }
    }
    for stream in ["keyed", "replayed"] {
        assert_once(&server, stream, distinct * ROUNDS);
    }
    assert!(repeats > 0);
    server.stop();
    eprintln!(
        "{told} answers to {} requests, {repeats} of them repeated, {kills} kills, {:.0?}: one event each",
        2 * distinct * ROUNDS,
        started.elapsed()
    );
}

fn assert_once(server: &Server, stream: &str, expected: u64) {
    let mut seen = BTreeSet::new();
    server.each_event(stream, 0, |event| {
        let body: Value = serde_json::from_str(&event.body).unwrap();
        let nonce = body["nonce"].as_str().unwrap().to_owned();
        assert!(seen.insert(nonce), "{} is there twice", event.body);
    });
    assert_eq!(seen.len() as u64, expected);
}

/// What each request was answered in the end, and whether the answer was a repeated one.
fn send_all(requests: &[Request], place: &Mutex<SocketAddr>) -> Vec<((String, u64), bool)> {
    let mut connection = None;
    let mut send = |request: &Request| {
        eventually("a request is answered", Duration::from_secs(60), || {
            let address = *place.lock().unwrap();
            let mut open = match connection.take() {
                Some(open) => open,
                None => Connection::open(address).ok()?,
            };
            let response = open.call(request).ok()?;
            match response.status {
                202 => {
                    connection = Some(open);
                    Some((answer(&response), replayed(&response)))
                }
                409 => {
                    assert_eq!(response.problem(), "IDEMPOTENCY_IN_PROGRESS");
                    assert_eq!(response.header("Retry-After"), Some("1"));
                    connection = Some(open);
                    None
                }
                503 => None,
                status => panic!("{status}: {}", response.text()),
            }
        })
    };
    requests.iter().map(&mut send).collect()
}
