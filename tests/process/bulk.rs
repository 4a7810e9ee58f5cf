//! `POST /api/ingest` as `docs/protocol.md` has it: many events in one request, all or none, also under SIGKILL.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use rand::Rng;
use serde_json::{Value, json};

use crate::common::fold::Event;
use crate::common::http::{Connection, Request, Response};
use crate::common::program::{both, hookpool, output_within};
use crate::common::seeded;
use crate::common::server::{Connector, Data, Server, position};
use crate::common::shared::shared;

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";
const INGEST: &str = "/api/ingest";

/// Signed where the connector asks for it.
fn request(connector: &Connector, target: &str, media_type: &str, body: &str) -> Request {
    let request = connector.delivery_to(target, body.as_bytes());
    request.header("Content-Type", media_type)
}

fn lines(connector: &Connector, body: &str) -> Request {
    request(connector, INGEST, NDJSON, body)
}

fn items(connector: &Connector, items: &Value) -> Request {
    let body = json!({"stream": connector.stream, "items": items});
    request(connector, INGEST, JSON, &body.to_string())
}

/// What must be the same in the first answer and in each repeated one.
fn answer(response: &Response) -> (String, u64) {
    (response.text().to_owned(), position(response))
}

fn replayed(response: &Response) -> bool {
    response.header("Idempotency-Replayed") == Some("true")
}

/// Ids and bodies, in order.
fn recorded(server: &Server, stream: &str) -> Vec<(String, String)> {
    let log = server.log(stream).into_iter();
    log.map(|Event { item_id, body, .. }| (item_id, body))
        .collect()
}

fn of(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(id, body): &(&str, &str)| ((*id).to_owned(), (*body).to_owned());
    pairs.iter().map(owned).collect()
}

#[test]
fn items_become_events_in_order_with_their_fields_to_the_letter() {
    let shared = shared();
    let connector = shared.server.add_connector("bulk-items", false);
    let body = r#" {"items":[{"id":"a","fields":{ "x" : 1.0, "x":2e2 }},{"id":42,"fields":{}},
        {"fields":{"id":"not this"}},{"id":"a","fields":{"y":[ 1 ]}}],"stream":"bulk-items"} "#;
    let first = request(&connector, INGEST, "Application/JSON; charset=utf-8", body);
    let first = shared.server.call(&first).expect(202);
    let told: Value = first.json();
    assert_eq!(
        (&told["status"], &told["itemsReceived"]),
        (&json!("accepted"), &json!(4))
    );
    assert_eq!(told["requestId"], first.header("X-Request-Id").unwrap());
    let log = shared.server.log("bulk-items");
    let positions: Vec<_> = log.iter().map(|event| event.position).collect();
    let last = position(&first);
    assert_eq!(positions, (last - 3..=last).collect::<Vec<_>>());
    let generated = log[2].item_id.clone();
    assert_eq!(generated.len(), 36);
    assert_eq!(
        recorded(&shared.server, "bulk-items"),
        of(&[
            ("a", r#"{ "x" : 1.0, "x":2e2 }"#),
            ("42", "{}"),
            (&generated, r#"{"id":"not this"}"#),
            ("a", r#"{"y":[ 1 ]}"#),
        ])
    );
    let (_, pool) = shared.server.items("bulk-items", last);
    assert_eq!(pool.len(), 3);
}

#[test]
fn what_does_not_say_that_it_is_lines_is_json() {
    let shared = shared();
    let connector = shared.server.add_connector("bulk-untyped", false);
    let call = |request: &Request| shared.server.call(request);
    let body = r#"{"stream":"bulk-untyped","items":[{"id":"a","fields":{}}]}"#;
    for media_type in [
        "text/plain",
        "application/jsonl",
        "",
        "application/x-ndjson+x",
    ] {
        call(&request(&connector, INGEST, media_type, body)).expect(202);
        call(&request(&connector, INGEST, media_type, "{}\n{}"))
            .expect_problem(400, "INVALID_PAYLOAD");
    }
    call(&connector.delivery_to(INGEST, body.as_bytes())).expect(202);
    assert_eq!(shared.server.log("bulk-untyped").len(), 5);
}

#[test]
fn lines_are_what_the_webhook_takes() {
    let shared = shared();
    let settings = json!({"stream": "bulk-lines", "idField": "sku"});
    let connector = shared.server.add_connector_with(&settings);
    let body = "{\"sku\":\"a\"}\r\n\r\n \n{\"sku\":7,\"x\":1.0} \n";
    let first = shared.server.call(&lines(&connector, body)).expect(202);
    assert_eq!(first.json::<Value>()["itemsReceived"], 2);
    let target = format!("{INGEST}?stream=bulk-lines&idField=%2Fa%2Fid");
    let named = request(&connector, &target, NDJSON, r#"{"a":{"id":"deep"}}"#);
    shared.server.call(&named).expect(202);
    assert_eq!(
        recorded(&shared.server, "bulk-lines"),
        of(&[
            ("a", r#"{"sku":"a"}"#),
            ("7", r#"{"sku":7,"x":1.0} "#),
            ("deep", r#"{"a":{"id":"deep"}}"#),
        ])
    );
}

/// The problem, without what differs between any two.
fn problem(response: &Response, status: u16, code: &str) -> Value {
    response.expect_problem(status, code);
    let mut problem: Value = response.json();
    problem.as_object_mut().unwrap().remove("requestId");
    problem
}

#[test]
fn one_that_is_refused_refuses_all_and_is_named() {
    let shared = shared();
    let connector = shared.server.add_connector("bulk-atomic", false);
    let call = |request: &Request| shared.server.call(request);
    for (bad, code) in [
        ("{\"a\":}", "INVALID_PAYLOAD"),
        ("[]", "INVALID_PAYLOAD"),
        ("{\"id\":\"\\u0000\"}", "INVALID_ITEM_ID"),
    ] {
        let body = format!("{{}}\r\n\n{{}}\n{bad}\n{{}}\n");
        let problem = problem(&call(&lines(&connector, &body)), 400, code);
        assert_eq!(problem["line"], 4, "{bad}");
    }
    for (bad, code) in [
        (json!(1), "INVALID_PAYLOAD"),
        (json!({"id": "a"}), "INVALID_PAYLOAD"),
        (json!({"fields": "{}"}), "INVALID_PAYLOAD"),
        (json!({"fields": {}, "op": "delete"}), "INVALID_PAYLOAD"),
        (json!({"id": "\u{0}", "fields": {}}), "INVALID_ITEM_ID"),
    ] {
        let body = json!([{"fields": {}}, {"fields": {}}, bad, {"fields": {}}]);
        let problem = problem(&call(&items(&connector, &body)), 400, code);
        assert_eq!(problem["item"], 2, "{bad}");
    }
    let of_one = format!("{{}}\n{{\"a\":\"{}\"}}\n", "x".repeat(1 << 20));
    let too_large = problem(&call(&lines(&connector, &of_one)), 413, "PAYLOAD_TOO_LARGE");
    assert_eq!(too_large["line"], 2);
    for (media_type, body) in [
        (NDJSON, ""),
        (NDJSON, "\r\n\n"),
        (JSON, ""),
        (JSON, r#"{"stream":"bulk-atomic","items":[]}"#),
        (
            JSON,
            r#"{"stream":"bulk-atomic","items":[{"fields":{}}],"x":1}"#,
        ),
        (JSON, r#"{"stream":"bulk-atomic","items":[{"fields":{}}]}}"#),
        (JSON, r#"{"items":[{"fields":{}}]}"#),
    ] {
        call(&request(&connector, INGEST, media_type, body)).expect_problem(400, "INVALID_PAYLOAD");
    }
    assert_eq!(shared.server.log("bulk-atomic").len(), 0);
}

#[test]
fn limits_are_kept_and_the_media_type_is_one_of_two() {
    let data = Data::new();
    let limits = [
        ("HOOKPOOL_LIMITS_BODY_BYTES", "100"),
        ("HOOKPOOL_LIMITS_INGEST_BODY_BYTES", "1000000"),
        ("HOOKPOOL_LIMITS_INGEST_BODY_TIMEOUT_SECONDS", "1"),
    ];
    let server = Server::try_start_with(data.path(), &limits).unwrap();
    let connector = server.add_connector("bulk-limits", false);
    let most = "{}\n".repeat(50_000);
    let first = server.call(&lines(&connector, &most)).expect(202);
    assert_eq!(first.json::<Value>()["itemsReceived"], 50_000);
    assert_eq!(position(&first), 50_000);
    server
        .call(&lines(&connector, &format!("{most}{{}}")))
        .expect_problem(400, "INVALID_PAYLOAD");
    // Blank lines count as bytes.
    let filled = |bytes: usize| format!("{{}}{}", "\n".repeat(bytes - 2));
    server
        .call(&lines(&connector, &filled(1_000_000)))
        .expect(202);
    server
        .call(&lines(&connector, &filled(1_000_001)))
        .expect_problem(413, "PAYLOAD_TOO_LARGE");
    let start = Request::post(INGEST).bearer(&connector.ingest_key);
    let start = start.header("Content-Type", NDJSON);
    let chunked = start.clone().chunked(filled(1_000_001).as_bytes(), 65_536);
    server
        .call(&chunked)
        .expect_problem(413, "PAYLOAD_TOO_LARGE");
    let slow = start.header("Content-Length", "3");
    server.call(&slow).expect_problem(408, "BODY_TIMEOUT");
    let packed = lines(&connector, "{}").header("Content-Encoding", "gzip");
    server
        .call(&packed)
        .expect_problem(415, "UNSUPPORTED_ENCODING");
    for (query, media_type) in [
        ("idField=a", JSON),
        ("stream=bulk-limits", JSON),
        ("x=1", NDJSON),
    ] {
        let target = format!("{INGEST}?{query}");
        server
            .call(&request(&connector, &target, media_type, "{}"))
            .expect_problem(400, "INVALID_PARAMETER");
    }
    assert_eq!(server.log("bulk-limits").len(), 50_001);
    server.stop();
}

#[test]
fn whoever_may_not_write_to_the_stream_gets_one_and_the_same_401() {
    let shared = shared();
    let connector = shared.server.add_connector("bulk-mine", false);
    let disabled = shared.server.add_connector("bulk-disabled", false);
    shared
        .server
        .admin("POST", "connectors/bulk-disabled:disable", &json!({}))
        .expect(200);
    let stranger = |key: &str| {
        let mut stranger = connector.clone();
        key.clone_into(&mut stranger.ingest_key);
        lines(&stranger, "{}")
    };
    let query = |stream: &str| {
        let target = format!("{INGEST}?stream={stream}");
        request(&connector, &target, NDJSON, "{}")
    };
    let body = |stream: &str| {
        let body = json!({"stream": stream, "items": [{"fields": {}}]});
        request(&connector, INGEST, JSON, &body.to_string())
    };
    let twice = lines(&connector, "{}").bearer(&connector.ingest_key);
    let refused = [
        stranger("ik_000000000000_x"),
        stranger(&shared.server.operator_key),
        lines(&disabled, "{}"),
        query("bulk-disabled"),
        query("nowhere"),
        query("no%20name"),
        body("bulk-disabled"),
        body("nowhere"),
        body(""),
        Request::post(INGEST)
            .header("Content-Type", NDJSON)
            .body("{}"),
        twice,
    ];
    let webhook = Request::post("/api/webhook/nowhere").body("{}");
    let expected = problem(&shared.server.call(&webhook), 401, "UNAUTHORIZED");
    for (n, request) in refused.iter().enumerate() {
        let response = shared.server.call(request);
        assert_eq!(problem(&response, 401, "UNAUTHORIZED"), expected, "{n}");
        assert_eq!(response.header("WWW-Authenticate"), Some("Bearer"));
    }
    assert_eq!(shared.server.log("bulk-mine").len(), 0);
}

#[test]
fn a_key_makes_a_request_one_and_is_that_of_one_request() {
    let shared = shared();
    let connector = shared.server.add_connector("bulk-keys", false);
    let keyed = |request: Request| request.header("Idempotency-Key", "k");
    let call = |request: Request| shared.server.call(&request);
    // Ids are generated, so that second events would show.
    let body = "{\"a\":1}\n{\"a\":2}\n{\"a\":3}";
    let first = call(keyed(lines(&connector, body))).expect(202);
    assert!(!replayed(&first));
    let again = call(keyed(lines(&connector, body))).expect(202);
    assert!(replayed(&again));
    assert_eq!(answer(&again), answer(&first));
    let target = format!("{INGEST}?idField=a");
    for other in [
        lines(&connector, &format!("{body}\n")),
        request(&connector, &target, NDJSON, body),
        items(&connector, &json!([{"fields": {}}])),
        connector.delivery(b"{}"),
    ] {
        call(keyed(other)).expect_problem(422, "IDEMPOTENCY_MISMATCH");
    }
    assert_eq!(shared.server.log("bulk-keys").len(), 3);
}

#[test]
fn a_signed_request_is_checked_before_it_is_read_and_is_one_however_often_it_comes() {
    let shared = shared();
    let connector = shared.server.add_connector("bulk-signed", true);
    let call = |request: &Request| shared.server.call(request);
    let mut forged = connector.clone();
    forged.signing_key = Some("whsk_of_somebody_else".to_owned());
    call(&lines(&forged, "{}\n[")).expect_problem(401, "SIGNATURE_INVALID");
    forged.signing_key = None;
    call(&lines(&forged, "{}\n[")).expect_problem(401, "SIGNATURE_INVALID");
    call(&lines(&connector, "{}\n[")).expect_problem(400, "INVALID_PAYLOAD");

    let signed = lines(&connector, "{\"a\":1}\n{\"a\":2}");
    let first = call(&signed).expect(202);
    assert_eq!(first.json::<Value>()["itemsReceived"], 2);
    for again in [signed.clone(), signed.header("Idempotency-Key", "any")] {
        let again = call(&again).expect(202);
        assert!(replayed(&again));
        assert_eq!(answer(&again), answer(&first));
    }
    let many = json!([{"id": "a", "fields": {}}, {"id": "b", "fields": {}}]);
    let items = items(&connector, &many);
    let first = call(&items).expect(202);
    assert_eq!(answer(&call(&items).expect(202)), answer(&first));
    assert_eq!(shared.server.log("bulk-signed").len(), 4);
}

/// The bytes of one delivery, shown to the other call under the same signature, would be other events.
#[test]
fn what_was_signed_for_one_call_is_not_answered_as_another() {
    let shared = shared();
    let connector = shared.server.add_connector("bulk-other-call", true);
    let body = json!({"stream": "bulk-other-call", "items": [{"fields": {}}, {"fields": {}}]});
    let body = body.to_string();
    let signed = connector.delivery(body.as_bytes());
    let webhook = shared.server.call(&signed).expect(202);
    assert_eq!(webhook.json::<Value>()["fieldsUpdated"], 2);
    let ingest = signed.retarget(INGEST).header("Content-Type", JSON);
    shared
        .server
        .call(&ingest)
        .expect_problem(422, "IDEMPOTENCY_MISMATCH");
    assert_eq!(shared.server.log("bulk-other-call").len(), 1);
}

/// `hookpool ingest` on a file, in requests of about a hundred lines.
fn ingest(server: &Server, connector: &Connector, file: &Path, more: &[&str]) -> Output {
    let mut command = hookpool();
    command
        .env("HOOKPOOL_INGEST_KEY", &connector.ingest_key)
        .env("HOOKPOOL_SERVER", server.url())
        .args(["ingest", &connector.stream])
        .arg(file)
        .args(["--request-bytes", "1000", "--output", "json"])
        .args(more);
    if let Some(key) = &connector.signing_key {
        command.env("HOOKPOOL_SIGNING_KEY", key);
    }
    output_within(Duration::from_secs(60), &mut command)
}

/// Events, requests, and requests that were recorded before.
fn summary(output: &Output) -> [u64; 3] {
    assert!(output.status.success(), "{}", both(output));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    ["events", "requests", "replayed"].map(|name| told[name].as_u64().unwrap())
}

#[test]
fn a_file_that_is_ingested_again_after_a_failure_is_recorded_once() {
    let shared = shared();
    let connector = shared.server.add_connector("bulk-file", true);
    let data = Data::new();
    let file = data.path().join("events.ndjson");
    let numbers = |bad: &str| -> String {
        let line = |n| match n {
            300 => bad.to_owned(),
            n => format!("{{\"n\":{n}}}\n"),
        };
        (1..=500).map(line).collect()
    };
    std::fs::write(&file, numbers("{\"n\":}\n")).unwrap();
    let failed = ingest(&shared.server, &connector, &file, &["--id-field", "n"]);
    assert_eq!(failed.status.code(), Some(1), "{}", both(&failed));
    let told = both(&failed);
    assert!(told.contains("line 300 of"), "{told}");
    let before = shared.server.log("bulk-file").len();
    assert!(before > 100 && before < 300, "{before}");

    std::fs::write(&file, numbers("{\"n\":300}\n")).unwrap();
    let again = ingest(&shared.server, &connector, &file, &["--id-field", "n"]);
    let [events, requests, replayed] = summary(&again);
    assert_eq!(events, 500);
    assert!(
        0 < replayed && replayed < requests,
        "{replayed} of {requests}"
    );
    let ids: Vec<_> = shared
        .server
        .log("bulk-file")
        .into_iter()
        .map(|it| it.item_id)
        .collect();
    let expected: Vec<_> = (1..=500).map(|n| n.to_string()).collect();
    assert_eq!(ids, expected);

    // Whole, it is known; under other keys it is another one.
    let again = ingest(&shared.server, &connector, &file, &["--id-field", "n"]);
    assert_eq!(summary(&again), [500, requests, requests]);
    let more = ["--id-field", "n", "--idempotency-key", "second"];
    std::thread::sleep(Duration::from_millis(1_100));
    let other = ingest(&shared.server, &connector, &file, &more);
    assert_eq!(summary(&other), [500, requests, 0]);
    assert_eq!(shared.server.log("bulk-file").len(), 1_000);

    // Parts that are equal to the letter, signed in the same second.
    std::fs::write(&file, "{\"a\":1}\n".repeat(500)).unwrap();
    let [events, _, replayed] = summary(&ingest(&shared.server, &connector, &file, &[]));
    assert_eq!((events, replayed), (500, 0));
    assert_eq!(shared.server.log("bulk-file").len(), 1_500);

    std::fs::write(&file, "\n \n").unwrap();
    let none = ingest(&shared.server, &connector, &file, &[]);
    assert_eq!(none.status.code(), Some(1));
}

const ROUNDS: u64 = 4;
const CLIENTS: usize = 3;

/// Each request is there whole or not at all, once, and what was acknowledged is where it was said to be.
#[test]
fn a_kill_leaves_all_or_none_of_each_request() {
    let mut rng = seeded("a_kill_leaves_all_or_none_of_each_request");
    let data = Data::new();
    let mut server = data.serve();
    let connector = server.add_connector("bulk-kills", false);
    let started = Instant::now();
    let mut told = BTreeMap::new();
    for round in 0..ROUNDS {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (addr, connector) = (server.addr, connector.clone());
                std::thread::spawn(move || {
                    let mut told = BTreeMap::new();
                    let Ok(mut connection) = Connection::open(addr) else {
                        return told;
                    };
                    for n in 0.. {
                        let name = format!("{round}-{client}-{n}");
                        let request =
                            lines(&connector, &body_of(&name, n)).header("Idempotency-Key", &name);
                        let Ok(response) = connection.call(&request) else {
                            break;
                        };
                        told.insert(name, answer(&response.expect(202)));
                    }
                    told
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(rng.random_range(50..600)));
        server.kill9();
        for client in clients {
            told.extend(client.join().unwrap());
        }
        server = data.serve();
        check(&server, &told);
    }
    // What was not answered is sent again: what is there already is not made twice.
    let before = server.log("bulk-kills").len();
    for (name, first) in &told {
        let n = name.rsplit('-').next().unwrap().parse().unwrap();
        let again = lines(&connector, &body_of(name, n)).header("Idempotency-Key", name);
        let again = server.call(&again).expect(202);
        assert!(replayed(&again));
        assert_eq!(answer(&again), *first);
    }
    assert_eq!(server.log("bulk-kills").len(), before);
    assert!(!told.is_empty(), "nothing was acknowledged");
    server.stop();
    eprintln!(
        "{ROUNDS} kills in {:.0?}: {} requests acknowledged, {before} events, none in part",
        started.elapsed(),
        told.len()
    );
}

/// Of very different sizes.
fn count_of(n: u64) -> u64 {
    1 + n * 397 % 1_500
}

fn body_of(name: &str, n: u64) -> String {
    let line = |nth| format!("{{\"of\":\"{name}\",\"nth\":{nth}}}\n");
    (0..count_of(n)).map(line).collect()
}

fn check(server: &Server, told: &BTreeMap<String, (String, u64)>) {
    let mut found: BTreeMap<String, Vec<(u64, u64)>> = BTreeMap::new();
    server.each_event("bulk-kills", 0, |event| {
        let body: Value = serde_json::from_str(&event.body).unwrap();
        let name = body["of"].as_str().unwrap().to_owned();
        let nth = body["nth"].as_u64().unwrap();
        found.entry(name).or_default().push((event.position, nth));
    });
    for (name, events) in &found {
        let count = count_of(name.rsplit('-').next().unwrap().parse().unwrap());
        let first = events[0].0;
        let whole: Vec<_> = (0..count).map(|nth| (first + nth, nth)).collect();
        assert_eq!(*events, whole, "{name} is not whole, in order and once");
    }
    let missing: BTreeSet<_> = told
        .keys()
        .filter(|name| !found.contains_key(*name))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
    for (name, (_, last)) in told {
        assert_eq!(found[name].last().unwrap().0, *last);
    }
}
