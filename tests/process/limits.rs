//! How much may come: failures of an address, events of a connector, bytes and properties of an event.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::common::http::{Request, Response};
use crate::common::program::{both, hookpool};
use crate::common::server::{Connector, Data, Server};
use crate::common::{eventually, hex};

fn wrong(target: &str) -> Request {
    Request::post(target)
        .bearer("ik_000000000000_nothing")
        .body("{}")
}

/// What a refused sender sees, without what is another each time.
fn seen(answer: &Response) -> (u16, Vec<(String, String)>, Value) {
    let varying = ["x-request-id", "date", "retry-after", "content-length"];
    let headers = answer.headers.iter();
    let headers = headers.filter(|(name, _)| !varying.contains(&&*name.to_ascii_lowercase()));
    let mut body: Value = answer.json();
    body.as_object_mut().unwrap().remove("requestId");
    (answer.status, headers.cloned().collect(), body)
}

#[test]
fn ten_thousand_wrong_keys_spend_a_budget_and_good_keys_work_on() {
    let data = Data::new();
    let server = data.serve();
    let (plain, signed) = (
        server.add_connector("plain", false),
        server.add_connector("signed", true),
    );
    let reader = server.add_reader("reader", &["plain"]);
    let mut connection = server.connect();
    let mut statuses = [0, 0];
    let mut looks: Vec<Vec<_>> = vec![Vec::new(), Vec::new()];
    for n in 0..10_000 {
        let target = [
            "/api/webhook/plain",
            "/api/webhook/nowhere",
            "/api/streams/plain",
        ][n % 3];
        let request = match n % 3 {
            2 => Request::get(target).bearer("rk_000000000000_nothing"),
            _ => wrong(target),
        };
        let answer = connection.call(&request).unwrap();
        let which = usize::from(answer.status == 429);
        assert!(matches!(answer.status, 401 | 429), "{answer:?}");
        statuses[which] += 1;
        let look = seen(&answer);
        if !looks[which].contains(&look) {
            looks[which].push(look);
        }
        if which == 1 {
            let wait: u64 = answer.header("Retry-After").unwrap().parse().unwrap();
            assert!((1..=60).contains(&wait));
        }
        if n % 1_000 == 999 {
            // The same address, the same connection, the same moment.
            let answer = connection.call(&plain.delivery(br#"{"id":"a"}"#)).unwrap();
            answer.expect(202);
            server.post(&signed, r#"{"id":"a"}"#).expect(202);
            let read = Request::get("/api/streams/plain/items").bearer(&reader);
            connection.call(&read).unwrap().expect(200);
            server.get("/api/admin/connectors").expect(200);
        }
    }
    assert!((60..2_000).contains(&statuses[0]), "{statuses:?}");
    // One look each: neither tells whether there is such a stream, nor what the key was for.
    assert!(looks.iter().all(|looks| looks.len() == 1), "{looks:#?}");
    let metrics = server.get("/metrics").text().to_owned();
    assert!(metrics.contains(r#"hookpool_rejections_total{reason="address-budget",connector=""}"#));
}

/// The statuses of failures that say they come from two addresses.
fn from_two(settings: &[(&str, &str)]) -> Vec<u16> {
    let data = Data::new();
    let mut settings = settings.to_vec();
    settings.push(("HOOKPOOL_LIMITS_AUTH_FAILURES_PER_MINUTE", "1"));
    let server = Server::try_start_with(data.path(), &settings).unwrap();
    let from = |address: &str| {
        let request = wrong("/api/webhook/sales").header("X-Forwarded-For", address);
        server.call(&request).status
    };
    vec![
        from("198.51.100.1"),
        from("198.51.100.1"),
        from("198.51.100.2"),
        from("198.51.100.1, 198.51.100.3"),
    ]
}

#[test]
fn only_trusted_proxies_are_believed_whom_they_speak_for() {
    assert_eq!(from_two(&[]), [401, 429, 429, 429]);
    let trusted = ("HOOKPOOL_TRUSTED_PROXIES", "10.0.0.0/8, 127.0.0.1");
    assert_eq!(from_two(&[trusted]), [401, 429, 401, 401]);
}

/// How many such requests are answered 401 before the budget of the address is spent.
#[track_caller]
fn spend(connector: &Connector, server: &Server, request: &Request) -> usize {
    let status = |_: &usize| server.call(request).status == 401;
    let refused = (0..20).take_while(status).count();
    server
        .call(request)
        .expect_problem(429, "TOO_MANY_FAILURES");
    // The same key, from the same address, where it may write to.
    server.post(connector, "{}").expect(202);
    server.call(&lines(connector, "{}\n{}")).expect(202);
    refused
}

#[test]
fn many_events_for_another_stream_spend_what_one_does_and_a_good_key_works_on() {
    let budget = ("HOOKPOOL_LIMITS_AUTH_FAILURES_PER_MINUTE", "5");
    let one = |key: &str| Request::post("/api/webhook/other").bearer(key).body("{}");
    let items = |key: &str| {
        let body = json!({"stream": "other", "items": [{"fields": {}}]}).to_string();
        let request = Request::post("/api/ingest").bearer(key);
        request
            .header("Content-Type", "application/json")
            .body(body)
    };
    let named = |key: &str| {
        let request = Request::post("/api/ingest?stream=other").bearer(key);
        request
            .header("Content-Type", "application/x-ndjson")
            .body("{}")
    };
    let makers: [&dyn Fn(&str) -> Request; 3] = [&one, &items, &named];
    for make in makers {
        let data = Data::new();
        let server = Server::try_start_with(data.path(), &[budget]).unwrap();
        let sales = server.add_connector("sales", false);
        server.add_connector("other", false);
        // What is refused of a good key, for its own stream, spends nothing.
        for _ in 0..10 {
            server
                .call(&lines(&sales, "{}\n["))
                .expect_problem(400, "INVALID_PAYLOAD");
        }
        let started = Instant::now();
        let refused = spend(&sales, &server, &make(&sales.ingest_key));
        // One comes back every twelve seconds.
        let more = usize::try_from(started.elapsed().as_secs() / 12 + 1).unwrap();
        assert!((5..=5 + more).contains(&refused), "{refused}");
        assert!(server.log("other").is_empty());
    }
}

fn lines(connector: &Connector, body: &str) -> Request {
    let request = connector.delivery_to("/api/ingest", body.as_bytes());
    request.header("Content-Type", "application/x-ndjson")
}

fn items(connector: &Connector, items: &Value) -> Request {
    let body = json!({"stream": connector.stream, "items": items}).to_string();
    let request = connector.delivery_to("/api/ingest", body.as_bytes());
    request.header("Content-Type", "application/json")
}

fn limited(server: &Server, limits: &Value) -> Connector {
    server.add_connector_with(&json!({"stream": "sales", "signed": true, "limits": limits}))
}

#[test]
fn a_limited_connector_is_told_and_others_are_not() {
    let data = Data::new();
    let server = data.serve();
    let sales = limited(&server, &json!({"eventsPerSecond": 1, "burst": 3}));
    let other = server.add_connector("other", false);
    let post = |n: u64| server.post(&sales, format!(r#"{{"id":"{n}"}}"#));
    let started = Instant::now();
    for n in 1..=3 {
        let answer = post(n).expect(202);
        assert_eq!(
            answer.header("RateLimit-Policy"),
            Some(r#""connector";q=3;w=3"#)
        );
        // One comes back each second, and a busy machine takes some.
        let most = (3 - n + started.elapsed().as_secs()).min(2);
        assert!((3 - n..=most).contains(&left(&answer)), "{answer:?}");
    }
    // Whatever may be there by now is taken, and so much more that no delay brings it back.
    let all = "{}\n".repeat(1_000);
    let taken = eventually("none is missing", Duration::from_secs(30), || {
        let answer = server.call(&lines(&sales, &all));
        (answer.status == 202).then_some(answer)
    });
    assert_eq!(left(&taken), 0);
    let answer = post(4);
    answer.expect_problem(429, "RATE_LIMITED");
    let wait: u64 = answer.header("Retry-After").unwrap().parse().unwrap();
    assert!((500..=1_000).contains(&wait), "{wait}");
    assert_eq!(left(&answer), 0);
    assert!(answer.header("RateLimit-Policy").is_some());
    for n in 0..20 {
        let answer = server
            .post(&other, format!(r#"{{"id":"{n}"}}"#))
            .expect(202);
        assert_eq!(answer.header("RateLimit"), None);
    }
    let free = server.admin("PATCH", "connectors/sales", &json!({"limits": {}}));
    assert_eq!(free.expect(200).json::<Value>()["limits"], json!({}));
    assert_eq!(post(5).expect(202).header("RateLimit"), None);
    assert_eq!(server.log("sales").len(), 1_004);
}

/// What is left of what may come, as the answer says.
fn left(answer: &Response) -> u64 {
    let limit = answer.header("RateLimit").unwrap();
    let (_, left) = limit.split_once(";r=").unwrap();
    left.split(';').next().unwrap().parse().unwrap()
}

#[test]
fn all_events_of_a_request_are_taken_at_once_or_none_is_there() {
    let data = Data::new();
    let server = data.serve();
    let limits = json!({"eventsPerSecond": 1, "burst": 500});
    let settings = json!({"stream": "sales", "limits": limits});
    let sales = server.add_connector_with(&settings);
    let started = Instant::now();
    let of = |n: usize| lines(&sales, &"{}\n".repeat(n));
    // What is malformed takes none.
    server
        .call(&lines(&sales, &format!("{}[", "{}\n".repeat(400))))
        .expect_problem(400, "INVALID_PAYLOAD");
    let first = server.call(&of(300)).expect(202);
    let policy = r#""connector";q=500;w=500"#;
    assert_eq!(first.header("RateLimit-Policy"), Some(policy));
    let come_back = started.elapsed().as_secs() + 1;
    let is_left = |answer: &Response| (200..=200 + come_back).contains(&left(answer));
    assert!(is_left(&first), "{first:?}");
    for request in [
        of(490),
        items(&sales, &json!(vec![json!({"fields": {}}); 490])),
    ] {
        let refused = server.call(&request);
        refused.expect_problem(429, "RATE_LIMITED");
        assert_eq!(refused.header("RateLimit-Policy"), Some(policy));
        assert!(left(&refused) >= 200, "{refused:?}");
        let wait: u64 = refused.header("Retry-After").unwrap().parse().unwrap();
        assert!((100..=290).contains(&wait), "{wait}");
    }
    assert_eq!(server.log("sales").len(), 300);
    server.call(&of(150)).expect(202);
    // One event more is one of the same.
    server.post(&sales, "{}").expect(202);
    assert_eq!(server.log("sales").len(), 451);
}

#[test]
fn each_event_of_a_request_is_held_to_the_limits_of_its_connector() {
    let data = Data::new();
    let server = data.serve();
    let settings = json!({"stream": "sales", "limits": {"bodyBytes": 40, "fields": 2}});
    let sales = server.add_connector_with(&settings);
    let good = r#"{"id":"a","b":1}"#;
    let many = r#"{"id":"a","b":1,"c":2}"#;
    let large = r#"{"id":"a","b":"0123456789012345678901234567890"}"#;
    for (bad, status, code) in [
        (many, 422, "TOO_MANY_FIELDS"),
        (large, 413, "PAYLOAD_TOO_LARGE"),
    ] {
        let refused = server.call(&lines(&sales, &format!("{good}\n\n{bad}\n{good}")));
        refused.expect_problem(status, code);
        assert_eq!(refused.json::<Value>()["line"], 3);
        let item = |fields: &str| json!({"fields": serde_json::from_str::<Value>(fields).unwrap()});
        let refused = server.call(&items(&sales, &json!([item(good), item(bad)])));
        refused.expect_problem(status, code);
        assert_eq!(refused.json::<Value>()["item"], 1);
    }
    assert!(server.log("sales").is_empty());
    // They are those of an event, not of the request.
    server
        .call(&lines(&sales, &format!("{good}\n").repeat(20)))
        .expect(202);
    assert_eq!(server.log("sales").len(), 20);
}

#[test]
fn a_wrong_signature_takes_nothing_of_what_a_connector_may_send() {
    let data = Data::new();
    let server = data.serve();
    let sales = limited(&server, &json!({"eventsPerSecond": 1, "burst": 1}));
    let forged = Connector {
        signing_key: Some("whsk_somebody_elses_key".to_owned()),
        ..sales.clone()
    };
    for _ in 0..20 {
        server
            .post(&forged, r#"{"id":"a"}"#)
            .expect_problem(401, "SIGNATURE_INVALID");
    }
    server.post(&sales, r#"{"id":"a"}"#).expect(202);
}

#[test]
fn limits_outlive_a_restart_and_hold_for_hooks() {
    let data = Data::new();
    let server = data.serve();
    let made: Value = server
        .admin(
            "POST",
            "connectors",
            &json!({"stream": "github", "scheme": "github", "limits": {"bodyBytes": 40, "fields": 2}}),
        )
        .expect(201)
        .json();
    let server = server.restart();
    let url = made["hookUrl"].as_str().unwrap();
    let hook = url.split_at(url.find("/api/").unwrap()).1.to_owned();
    let post = |body: &str| {
        let key = made["signingKey"].as_str().unwrap();
        let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap();
        mac.update(body.as_bytes());
        let signature = format!("sha256={}", hex(&mac.finalize().into_bytes()));
        let request = Request::post(&hook).header("X-Hub-Signature-256", signature);
        (
            request.clone().body(body),
            request.chunked(body.as_bytes(), 7),
        )
    };
    let call = |request: &Request| server.call(request);
    call(&post(r#"{"id":"a","b":1}"#).0).expect(202);
    call(&post(r#"{"id":"a","b":1,"c":2}"#).0).expect_problem(422, "TOO_MANY_FIELDS");
    let (whole, chunked) = post(r#"{"id":"a","b":"0123456789012345678901234567890"}"#);
    call(&whole).expect_problem(413, "PAYLOAD_TOO_LARGE");
    call(&chunked).expect_problem(413, "PAYLOAD_TOO_LARGE");
    assert_eq!(server.log("github").len(), 1);
    for bad in [
        json!({"burst": 3}),
        json!({"eventsPerSecond": 0}),
        json!({"eventsPerMinute": 1}),
        json!({"fields": -1}),
        json!({"fields": null}),
        json!([1, 2]),
    ] {
        let answer = server.admin("PATCH", "connectors/github", &json!({"limits": bad}));
        answer.expect_problem(400, "INVALID_PAYLOAD");
    }
}

/// A proxy that loses the answer to the first request, once the server has given it.
fn losing_the_first_answer(server: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    // Ends with the process.
    std::thread::spawn(move || {
        for (nth, client) in listener.incoming().map_while(Result::ok).enumerate() {
            let mut upstream = TcpStream::connect(server).unwrap();
            let (mut requests, mut to_server) =
                (client.try_clone().unwrap(), upstream.try_clone().unwrap());
            let requests = std::thread::spawn(move || io::copy(&mut requests, &mut to_server));
            if nth == 0 {
                upstream.read_exact(&mut [0; 1]).unwrap();
            } else {
                io::copy(&mut upstream, &mut &client).unwrap();
            }
            let _ = client.shutdown(Shutdown::Both);
            let _ = upstream.shutdown(Shutdown::Both);
            let _ = requests.join();
        }
    });
    addr
}

#[test]
fn a_limit_that_a_lost_answer_spent_is_waited_out_and_the_events_are_there_once() {
    let data = Data::new();
    let server = data.serve();
    let sales = limited(&server, &json!({"eventsPerSecond": 1, "burst": 1}));
    let proxy = format!("http://{}", losing_the_first_answer(server.addr));
    let mut send = hookpool();
    send.args(["ingest", "sales", "-", "--server", &proxy])
        .env("HOOKPOOL_INGEST_KEY", &sales.ingest_key)
        .env("HOOKPOOL_SIGNING_KEY", sales.signing_key.as_ref().unwrap())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut send = send.spawn().unwrap();
    // Their ids are generated, so that second events would show. They leave four seconds to make up for: the next try is in time to be refused.
    let events = "{\"n\":1}\n".repeat(4);
    let mut stdin = send.stdin.take().unwrap();
    stdin.write_all(events.as_bytes()).unwrap();
    drop(stdin);
    let output = send.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", both(&output));
    let said = String::from_utf8_lossy(&output.stdout);
    let before = said.lines().find(|it| it.starts_with("recorded before "));
    assert!(before.is_some_and(|it| it.ends_with(" 1")), "{said}");
    assert_eq!(server.log("sales").len(), 4);
    let refused = server.get("/metrics").expect(200);
    let limited = |line: &str| line.contains("rate-limited") && !line.ends_with(" 0");
    assert!(refused.text().lines().any(limited), "no try was refused");
    server.stop();
}
