//! How much may come: failures of an address, events of a connector, bytes and properties of an event.

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::common::hex;
use crate::common::http::{Request, Response};
use crate::common::server::{Connector, Data, Server};

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
    for (n, left) in (1..).zip(["r=2", "r=1", "r=0"]) {
        let answer = post(n).expect(202);
        assert_eq!(
            answer.header("RateLimit-Policy"),
            Some(r#""connector";q=3;w=3"#)
        );
        let limit = answer.header("RateLimit").unwrap();
        assert!(
            limit.starts_with(&format!(r#""connector";{left};t="#)),
            "{limit}"
        );
    }
    let answer = post(4);
    answer.expect_problem(429, "RATE_LIMITED");
    assert_eq!(answer.header("Retry-After"), Some("1"));
    assert!(
        answer
            .header("RateLimit")
            .unwrap()
            .starts_with(r#""connector";r=0;t="#)
    );
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
    assert_eq!(server.log("sales").len(), 4);
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
    ] {
        let answer = server.admin("PATCH", "connectors/github", &json!({"limits": bad}));
        answer.expect_problem(400, "INVALID_PAYLOAD");
    }
}
