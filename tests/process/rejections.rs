//! What operators see of refused deliveries, what they can do about them, and what nobody may see.

use std::fs;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use rand::Rng;
use serde_json::{Value, json};

use crate::common::http::Request;
use crate::common::program::{both, hookpool, output_within};
use crate::common::server::{Connector, Data, Server, signed};
use crate::common::{eventually, now_s, seeded, sign};

const BODY: &[u8] = br#"{"region": "North","sales": 1}"#;

/// The rejection of a request, once it is kept.
fn rejection(server: &Server, id: &str) -> Value {
    let target = format!("/api/admin/rejections/{id}");
    eventually("the rejection is kept", Duration::from_secs(10), || {
        let answer = server.get(&target);
        (answer.status == 200).then(|| answer.json())
    })
}

/// Sends what is to be refused; the rejection.
#[track_caller]
fn refused(server: &Server, request: &Request, status: u16) -> Value {
    let answer = server.call(request).expect(status);
    rejection(server, answer.header("X-Request-Id").unwrap())
}

fn listed(server: &Server, query: &str) -> Vec<Value> {
    let page: Value = server
        .get(&format!("/api/admin/rejections?{query}"))
        .expect(200)
        .json();
    page["rejections"].as_array().unwrap().clone()
}

fn webhook(key: &str) -> Request {
    Request::post("/api/webhook/sales").bearer(key)
}

fn hook_of(made: &Value) -> String {
    let url = made["hookUrl"].as_str().unwrap();
    url.split_at(url.find("/api/").unwrap()).1.to_owned()
}

#[test]
fn a_refused_credential_is_told_to_operators_and_one_answer_to_senders() {
    let data = Data::new();
    let server = data.serve();
    let sales = server.add_connector("sales", false);
    let other = server.add_connector("other", false);
    let off = server.add_connector("off", false);
    let hooked = json!({"stream": "hooked", "scheme": "hookpool"});
    let hooked: Value = server
        .admin("POST", "connectors", &hooked)
        .expect(201)
        .json();
    let old = sales.ingest_key;
    let new: Value = server
        .admin("POST", "connectors/sales/keys:rotate", &json!({}))
        .expect(200)
        .json();
    let new = new["ingestKey"].as_str().unwrap().to_owned();
    let gone = format!("connectors/other/keys/{}", other.key_id);
    server.admin("DELETE", &gone, &json!({})).expect(204);
    server
        .admin("POST", "connectors/off:disable", &json!({}))
        .expect(200);
    let reader = server.add_reader("reader", &["sales"]);
    let hook = hook_of(&hooked);
    let cases = [
        (
            Request::post("/api/webhook/sales").body("{}"),
            "missing-key",
            None,
        ),
        (webhook("sesame").body("{}"), "malformed-key", None),
        (
            webhook("ik_000000000000_nothing").body("{}"),
            "unknown-key",
            None,
        ),
        (
            webhook(&format!("{new}x")).body("{}"),
            "wrong-secret",
            Some("sales"),
        ),
        (webhook(&reader).body("{}"), "other-kind", None),
        (webhook(&old).body("{}"), "expired-key", Some("sales")),
        (
            webhook(&other.ingest_key).body("{}"),
            "revoked-key",
            Some("other"),
        ),
        (
            Request::post("/api/webhook/hooked").bearer(&new).body("{}"),
            "other-stream",
            Some("sales"),
        ),
        (
            Request::post("/api/webhook/off")
                .bearer(&off.ingest_key)
                .body("{}"),
            "disabled",
            Some("off"),
        ),
        (
            Request::post("/api/hooks/hk_000000000000_x").body("{}"),
            "unknown-key",
            None,
        ),
        (
            Request::post(&format!("{hook}x")).body("{}"),
            "wrong-secret",
            Some("hooked"),
        ),
        (
            Request::post(&format!("/api/hooks/{new}")).body("{}"),
            "other-kind",
            None,
        ),
        (
            Request::new("DELETE", "/api/streams/sales/items/a").bearer("ik_000000000000_x"),
            "unknown-key",
            None,
        ),
    ];
    let mut told = Vec::new();
    for (request, reason, connector) in &cases {
        let answer = server.call(request).expect(401);
        let found = rejection(&server, answer.header("X-Request-Id").unwrap());
        assert_eq!(found["reason"], *reason, "{found:#}");
        assert_eq!(found["connector"].as_str(), *connector, "{found:#}");
        assert_eq!(
            (&found["status"], &found["address"]),
            (&json!(401), &json!("127.0.0.1"))
        );
        let mut document: Value = answer.json();
        document.as_object_mut().unwrap().remove("requestId");
        let mut headers = answer.headers.clone();
        headers
            .retain(|(name, _)| !["x-request-id", "date"].contains(&&*name.to_ascii_lowercase()));
        told.push((headers, document));
    }
    assert!(told.windows(2).all(|pair| pair[0] == pair[1]), "{told:#?}");
    assert_eq!(listed(&server, "limit=1")[0]["way"], "delete");
    assert_eq!(listed(&server, "reason=wrong-secret").len(), 2);
    assert_eq!(listed(&server, "connector=sales&limit=1").len(), 1);
    let metrics = server.get("/metrics").text().to_owned();
    for line in [
        r#"hookpool_rejections_total{reason="unknown-key",connector=""} 3"#,
        r#"hookpool_rejections_total{reason="expired-key",connector="sales"} 1"#,
        "hookpool_rejections_kept 13",
        "hookpool_rejections_dropped_total 0",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
}

/// Where it says which stream it is for differs, what is told does not.
#[test]
fn many_events_for_another_stream_are_told_as_one_is() {
    let data = Data::new();
    let server = data.serve();
    let settings = json!({"stream": "sales", "keepRejected": true});
    let sales = server.add_connector_with(&settings);
    server.add_connector("other", false);
    let one = |stream: &str| {
        let target = format!("/api/webhook/{stream}");
        Request::post(&target).bearer(&sales.ingest_key).body("{}")
    };
    let many = |query: &str, media_type: &str, body: &str| {
        let target = format!("/api/ingest{query}");
        let request = Request::post(&target).bearer(&sales.ingest_key);
        request.header("Content-Type", media_type).body(body)
    };
    let lines = |stream: &str| many(&format!("?stream={stream}"), "application/x-ndjson", "{}");
    let items = |stream: &str| {
        let body = json!({"stream": stream, "items": [{"fields": {}}]});
        many("", "application/json", &body.to_string())
    };
    let told = |request: &Request| {
        let mut found = refused(&server, request, 401);
        let members = found.as_object_mut().unwrap();
        for own in ["id", "time", "way", "headers", "bodyBytes"] {
            members.remove(own);
        }
        found
    };
    for stream in ["other", "nowhere"] {
        let expected = told(&one(stream));
        assert_eq!(expected["reason"], "other-stream");
        assert_eq!(expected["connector"], "sales");
        assert_eq!(expected["stream"].as_str().unwrap_or("nowhere"), stream);
        assert_eq!(expected["kept"], false);
        assert_eq!(told(&lines(stream)), expected);
        assert_eq!(told(&items(stream)), expected);
    }
    let unnamed = told(&items("no name"));
    assert_eq!(
        (&unnamed["reason"], &unnamed["stream"]),
        (&json!("other-stream"), &Value::Null)
    );
    let counted = r#"hookpool_rejections_total{reason="other-stream",connector="sales"} 7"#;
    let metrics = server.get("/metrics").text().to_owned();
    assert!(metrics.contains(counted), "{metrics}");
    assert!(!metrics.contains(r#"reason="other","#), "{metrics}");
}

#[test]
fn a_wrong_signature_is_diagnosed() {
    let data = Data::new();
    let server = data.serve();
    let sales = server.add_connector("sales", true);
    let another = server.add_connector("another", true);
    let key = sales.signing_key.clone().unwrap();
    let now = now_s().to_string();
    let late = (now_s() - 3_612).to_string();
    let request = |signature: &str, timestamp: &str| {
        webhook(&sales.ingest_key)
            .header("X-Webhook-Signature", signature)
            .header("X-Webhook-Timestamp", timestamp)
            .body(BODY)
    };
    let good = sign(&key, &now, BODY);
    let cases = [
        (
            request(&sign(&key, &late, BODY), &late),
            "TIMESTAMP_OUT_OF_RANGE",
            "s behind the server's clock",
        ),
        (
            request(&good, &format!("{now}000")),
            "SIGNATURE_INVALID",
            "milliseconds",
        ),
        (
            request(&good.to_uppercase(), &now),
            "SIGNATURE_INVALID",
            "does not begin with \"sha256=\"",
        ),
        (
            request(&sign(&key, &now, br#"{"region":"North","sales":1}"#), &now),
            "SIGNATURE_INVALID",
            "after JSON re-serialisation",
        ),
        (
            request(&sign(&key, &now, &[BODY, b"\n"].concat()), &now),
            "SIGNATURE_INVALID",
            "with a line feed behind it",
        ),
        (
            request(&sign(key.strip_prefix("whsk_").unwrap(), &now, BODY), &now),
            "SIGNATURE_INVALID",
            "without its prefix",
        ),
        (
            request(
                &sign(another.signing_key.as_deref().unwrap(), &now, BODY),
                &now,
            ),
            "SIGNATURE_INVALID",
            "of the connector another",
        ),
        (
            request("sha256=00", &now),
            "SIGNATURE_INVALID",
            "64 hex digits",
        ),
        (
            webhook(&sales.ingest_key)
                .header("X-Hub-Signature-256", &good)
                .body(BODY),
            "SIGNATURE_INVALID",
            "scheme github",
        ),
    ];
    for (request, code, said) in &cases {
        let answer = server.call(request);
        answer.expect_problem(401, code);
        let found = rejection(&server, answer.header("X-Request-Id").unwrap());
        let diagnosis = found["diagnosis"].as_str().unwrap_or_default();
        assert!(diagnosis.contains(said), "{said} in {found:#}");
        assert_eq!(
            (&found["connector"], &found["kept"]),
            (&json!("sales"), &json!(false))
        );
        assert_eq!(found["keyId"], sales.key_id);
    }
    assert!(server.log("sales").is_empty());
}

/// A connector whose sender has a signing key of its own, which the server does not know yet.
fn mistaken(server: &Server) -> (Connector, Connector) {
    let settings =
        json!({"stream": "sales", "signed": true, "idField": "region", "keepRejected": true});
    let sales = server.add_connector_with(&settings);
    let theirs = Connector {
        signing_key: Some("whsk_the_senders_own_signing_key".to_owned()),
        ..sales.clone()
    };
    (sales, theirs)
}

#[test]
fn what_was_kept_is_tried_again_after_the_connector_was_put_right() {
    let data = Data::new();
    let server = data.serve();
    let (_, theirs) = mistaken(&server);
    let found = refused(&server, &theirs.delivery(BODY), 401);
    let id = found["id"].as_str().unwrap().to_owned();
    assert_eq!(
        (&found["kept"], &found["bodyBytes"]),
        (&json!(true), &json!(BODY.len()))
    );
    let unkept = server.call(&webhook("ik_0_x").body("{}")).expect(401);
    let unkept = unkept.header("X-Request-Id").unwrap().to_owned();
    // An operator sees it hours later.
    let server = server.restart();
    let retry = |id: &str| server.admin("POST", &format!("rejections/{id}:retry"), &json!({}));
    let still: Value = retry(&id).expect(200).json();
    assert_eq!(
        (&still["outcome"], &still["code"]),
        (&json!("refused"), &json!("SIGNATURE_INVALID"))
    );
    let key = json!({"signingKey": theirs.signing_key});
    server
        .admin("POST", "connectors/sales/signing-keys:rotate", &key)
        .expect(200);
    let first: Value = retry(&id).expect(200).json();
    assert_eq!(
        (&first["outcome"], &first["itemId"]),
        (&json!("accepted"), &json!("North"))
    );
    let again: Value = retry(&id).expect(200).json();
    assert_eq!(
        (&again["position"], &again["replayed"]),
        (&first["position"], &json!(true))
    );
    let log = server.log("sales");
    assert_eq!(log.len(), 1);
    assert_eq!(
        rejection(&server, &id)["retried"]["position"],
        first["position"]
    );
    retry(&unkept).expect_problem(409, "CONFLICT");
    retry("00000000-0000-7000-8000-000000000000").expect_problem(404, "NOT_FOUND");
    // Also after another restart it is known.
    let server = server.restart();
    let again = server.admin("POST", &format!("rejections/{id}:retry"), &json!({}));
    assert_eq!(again.expect(200).json::<Value>()["replayed"], true);
    assert_eq!(server.log("sales").len(), 1);
}

#[test]
fn what_came_again_meanwhile_is_not_doubled() {
    let data = Data::new();
    let server = data.serve();
    let limited =
        json!({"stream": "sales", "signed": true, "keepRejected": true, "limits": {"fields": 1}});
    let sales = server.add_connector_with(&limited);
    let delivery = sales.delivery(BODY);
    let found = refused(&server, &delivery, 422);
    assert_eq!(found["reason"], "too-many-fields");
    server
        .admin("PATCH", "connectors/sales", &json!({"limits": {}}))
        .expect(200);
    let accepted = server.call(&delivery).expect(202);
    let all = server.admin("POST", "rejections:retry?connector=sales", &json!({}));
    let all: Value = all.expect(200).json();
    assert_eq!(
        (&all["accepted"], &all["refused"], &all["more"]),
        (&json!(1), &json!(0), &json!(false))
    );
    let outcome = &all["rejections"][0];
    assert_eq!(
        outcome["position"].to_string(),
        accepted.header("DataPool-Position").unwrap()
    );
    assert_eq!(outcome["replayed"], true);
    assert_eq!(server.log("sales").len(), 1);
    let none: Value = server
        .admin("POST", "rejections:retry?connector=sales", &json!({}))
        .expect(200)
        .json();
    assert_eq!(none["rejections"], json!([]));
    server
        .admin("POST", "rejections:retry", &json!({}))
        .expect_problem(400, "INVALID_PARAMETER");
}

#[test]
fn a_request_that_has_a_name_of_its_own_is_not_doubled_either() {
    let data = Data::new();
    let server = data.serve();
    let settings = json!({"stream": "sales", "keepRejected": true, "limits": {"fields": 1}});
    let sales = server.add_connector_with(&settings);
    let delivery = |key: &str| {
        let request = webhook(&sales.ingest_key).header("Idempotency-Key", key);
        request.body(BODY)
    };
    for key in ["one", "two"] {
        refused(&server, &delivery(key), 422);
    }
    server
        .admin("PATCH", "connectors/sales", &json!({"limits": {}}))
        .expect(200);
    server.call(&delivery("one")).expect(202);
    let all = server.admin("POST", "rejections:retry?connector=sales", &json!({}));
    let all: Value = all.expect(200).json();
    let replayed: Vec<_> = all["rejections"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["replayed"] == true)
        .collect();
    assert_eq!(replayed, [true, false], "{all:#}");
    // The sender tries the other one again too.
    let late = server.call(&delivery("two")).expect(202);
    assert_eq!(late.header("Idempotency-Replayed"), Some("true"));
    assert_eq!(server.log("sales").len(), 2);
}

#[test]
fn what_was_read_in_part_is_not_kept_and_what_was_not_kept_can_not_be_tried_again() {
    let data = Data::new();
    let server = data.serve();
    let small = json!({"stream": "sales", "keepRejected": true, "limits": {"bodyBytes": 40}});
    let sales = server.add_connector_with(&small);
    let body = r#"{"id":"a","text":"more than forty bytes, by far"}"#;
    let chunked = webhook(&sales.ingest_key).chunked(body.as_bytes(), 30);
    let part = refused(&server, &chunked, 413);
    assert_eq!(part["kept"], json!(false), "{part:#}");
    let whole = refused(&server, &sales.delivery(body.as_bytes()), 413);
    assert_eq!(
        (&whole["reason"], &whole["kept"]),
        (&json!("payload-too-large"), &json!(true))
    );
    let larger = json!({"limits": {"bodyBytes": 400}, "keepRejected": false});
    server
        .admin("PATCH", "connectors/sales", &larger)
        .expect(200);
    let all = server.admin("POST", "rejections:retry?connector=sales", &json!({}));
    assert_eq!(all.expect(200).json::<Value>()["accepted"], 1);
    assert_eq!(server.log("sales")[0].body, body);
    let unkept = refused(&server, &sales.delivery(b"[]"), 400);
    assert_eq!(
        (&unkept["reason"], &unkept["kept"]),
        (&json!("invalid-payload"), &json!(false))
    );
}

fn many(connector: &Connector, query: &str, media_type: &str, body: &str) -> Request {
    let target = format!("/api/ingest{query}");
    let request = connector.delivery_to(&target, body.as_bytes());
    request.header("Content-Type", media_type)
}

const LINES: &str = "application/x-ndjson";

fn retry(server: &Server, id: &str) -> Value {
    let answer = server.admin("POST", &format!("rejections/{id}:retry"), &json!({}));
    answer.expect(200).json()
}

#[test]
fn many_events_that_were_refused_are_taken_whole_or_not_at_all_by_another_try() {
    let data = Data::new();
    let server = data.serve();
    let (sales, theirs) = mistaken(&server);
    let lines = "{\"n\":1}\n\n{\"n\":2,\"x\":1.0}\r\n{\"n\":3}";
    let lines = many(&theirs, "?idField=n", LINES, lines);
    let items = json!({"stream": "sales", "items": [{"id": "i", "fields": {}}, {"fields": {"a": 1, "b": 2}}]});
    let items = items.to_string();
    let items = many(&theirs, "", "application/json", &items);
    let ids: Vec<String> = [&lines, &items]
        .map(|request| {
            let found = refused(&server, request, 401);
            assert_eq!(
                (&found["way"], &found["kept"]),
                (&json!("ingest"), &json!(true))
            );
            assert_eq!(
                (&found["reason"], &found["notKept"]),
                (&json!("signature"), &Value::Null)
            );
            found["id"].as_str().unwrap().to_owned()
        })
        .to_vec();
    let server = server.restart();
    assert_eq!(retry(&server, &ids[0])["code"], "SIGNATURE_INVALID");
    let key = json!({"signingKey": theirs.signing_key});
    server
        .admin("POST", "connectors/sales/signing-keys:rotate", &key)
        .expect(200);
    // One that is refused refuses all, as when it came.
    let limit =
        |fields: Value| server.admin("PATCH", "connectors/sales", &json!({"limits": fields}));
    limit(json!({"fields": 1})).expect(200);
    let refused = retry(&server, &ids[0]);
    assert_eq!(
        (&refused["code"], &refused["line"]),
        (&json!("TOO_MANY_FIELDS"), &json!(3))
    );
    assert_eq!(retry(&server, &ids[1])["item"], 1);
    assert!(server.log("sales").is_empty());
    limit(json!({})).expect(200);
    let first = retry(&server, &ids[0]);
    assert_eq!(
        (&first["outcome"], &first["events"], &first["itemId"]),
        (&json!("accepted"), &json!(3), &Value::Null)
    );
    assert_eq!(
        (&first["position"], &first["replayed"]),
        (&json!(3), &json!(false))
    );
    let second = retry(&server, &ids[1]);
    assert_eq!(
        (&second["position"], &second["events"]),
        (&json!(5), &json!(2))
    );
    let log = server.log("sales");
    let found: Vec<_> = log.iter().map(|it| (&*it.item_id, &*it.body)).collect();
    assert_eq!(
        found[..4],
        [
            ("1", r#"{"n":1}"#),
            ("2", r#"{"n":2,"x":1.0}"#),
            ("3", r#"{"n":3}"#),
            ("i", "{}"),
        ]
    );
    // Again, after a restart too, and by its sender, whose request it is.
    let server = server.restart();
    let again = retry(&server, &ids[0]);
    assert_eq!(
        (&again["position"], &again["events"], &again["replayed"]),
        (&first["position"], &json!(3), &json!(true))
    );
    let sent = server.call(&items).expect(202);
    assert_eq!(sent.header("Idempotency-Replayed"), Some("true"));
    assert_eq!(sent.header("DataPool-Position"), Some("5"));
    let taken = rejection(&server, &ids[1]);
    assert_eq!(taken["retried"]["events"], 2);
    assert_eq!(taken["notKept"]["reason"], "taken");
    assert_eq!(server.log("sales").len(), 5);
    assert_eq!(sales.stream, "sales");
}

#[test]
fn many_events_under_a_name_of_their_own_are_not_doubled_by_another_try() {
    let data = Data::new();
    let server = data.serve();
    let settings = json!({"stream": "sales", "keepRejected": true, "limits": {"bodyBytes": 10}});
    let sales = server.add_connector_with(&settings);
    let named = many(&sales, "", LINES, "{\"a\":1}\n{\"text\":\"long\"}");
    let named = named.header("Idempotency-Key", "one");
    let found = refused(&server, &named, 413);
    let id = found["id"].as_str().unwrap();
    let refused = retry(&server, id);
    assert_eq!(
        (&refused["code"], &refused["line"]),
        (&json!("PAYLOAD_TOO_LARGE"), &json!(2))
    );
    server
        .admin("PATCH", "connectors/sales", &json!({"limits": {}}))
        .expect(200);
    let sent = server.call(&named).expect(202);
    let taken = retry(&server, id);
    assert_eq!(
        (&taken["replayed"], &taken["events"]),
        (&json!(true), &json!(2))
    );
    assert_eq!(
        taken["position"].to_string(),
        sent.header("DataPool-Position").unwrap()
    );
    assert_eq!(server.log("sales").len(), 2);
}

/// Tries all of the connector again.
fn retry_all(server: &Server, force: &str) -> [u64; 3] {
    let target = format!("rejections:retry?connector=sales{force}");
    let all: Value = server.admin("POST", &target, &json!({})).expect(200).json();
    ["accepted", "refused", "doubtful"].map(|count| all[count].as_u64().unwrap())
}

/// Runs the program as its operator.
fn run(server: &Server, args: &[&str]) -> Output {
    let mut command = hookpool();
    command
        .env("HOOKPOOL_SERVER", server.url())
        .env("HOOKPOOL_OPERATOR_KEY", &server.operator_key)
        .args(args);
    output_within(Duration::from_secs(60), &mut command)
}

#[test]
fn what_has_no_name_and_came_again_is_taken_only_by_force() {
    for is_signed in [false, true] {
        let data = Data::new();
        let server = data.serve();
        let settings = json!({"stream": "sales", "signed": is_signed, "keepRejected": true, "limits": {"fields": 1}});
        let sales = server.add_connector_with(&settings);
        let body = "{\"a\":1}\n{\"b\":1,\"c\":2}";
        let one = refused(&server, &sales.delivery(BODY), 422);
        let all = refused(&server, &many(&sales, "", LINES, body), 422);
        let other = refused(&server, &sales.delivery(br#"{"other":1,"n":2}"#), 422);
        let [one, all, other] = [one, all, other].map(|found| {
            assert_eq!(found["knownBy"], "content");
            found["id"].as_str().unwrap().to_owned()
        });
        server
            .admin("PATCH", "connectors/sales", &json!({"limits": {}}))
            .expect(200);
        // The sender comes again by itself, and signs anew.
        std::thread::sleep(Duration::from_millis(1_100));
        server.post(&sales, BODY).expect(202);
        server.call(&many(&sales, "", LINES, body)).expect(202);
        assert_eq!(retry_all(&server, ""), [1, 0, 2]);
        assert_eq!(rejection(&server, &other)["retried"]["position"], 4);
        for (id, position) in [(&one, 1), (&all, 2)] {
            let doubtful = retry(&server, id);
            assert_eq!(
                (&doubtful["outcome"], &doubtful["position"]),
                (&json!("doubtful"), &json!(position))
            );
        }
        let shown = run(&server, &["rejections", "show", &one]);
        assert!(both(&shown).contains("--force"), "{}", both(&shown));
        let retried = run(&server, &["rejections", "retry", &one]);
        assert_eq!(retried.status.code(), Some(1), "{}", both(&retried));
        assert!(both(&retried).contains("--force"), "{}", both(&retried));
        assert_eq!(server.log("sales").len(), 4);
        let forced = run(&server, &["rejections", "retry", &one, "--force"]);
        assert_eq!(forced.status.code(), Some(0), "{}", both(&forced));
        assert_eq!(retry_all(&server, "&force=true"), [1, 0, 0]);
        let bodies: Vec<_> = server.log("sales").into_iter().map(|it| it.body).collect();
        assert_eq!(bodies[..3], bodies[4..], "whole, in order, once more");
        // Nothing is taken twice, by force either.
        for id in [&one, &all] {
            let target = format!("rejections/{id}:retry?force=true");
            let again: Value = server.admin("POST", &target, &json!({})).expect(200).json();
            assert_eq!(again["replayed"], true, "{again:#}");
        }
        assert_eq!(server.log("sales").len(), 7);
    }
}

#[test]
fn of_those_that_are_alike_one_is_taken_until_more_is_said() {
    let data = Data::new();
    let server = data.serve();
    let settings = json!({"stream": "sales", "keepRejected": true, "limits": {"fields": 1}});
    let sales = server.add_connector_with(&settings);
    for _ in 0..3 {
        refused(&server, &sales.delivery(BODY), 422);
    }
    for key in ["a", "b"] {
        let named = sales.delivery(BODY).header("Idempotency-Key", key);
        assert_eq!(refused(&server, &named, 422)["knownBy"], "idempotency-key");
    }
    server
        .admin("PATCH", "connectors/sales", &json!({"limits": {}}))
        .expect(200);
    assert_eq!(
        retry_all(&server, ""),
        [3, 0, 2],
        "those with names are two"
    );
    assert_eq!(retry_all(&server, ""), [0, 0, 2]);
    assert_eq!(retry_all(&server, "&force=true"), [2, 0, 0]);
    assert_eq!(server.log("sales").len(), 5);
}

/// As if the server had been killed between the event and the note that it is there, and with kills wherever they fall.
#[test]
fn a_rejection_is_one_event_however_often_it_is_tried_and_whenever_the_server_is_killed() {
    let mut rng = seeded("a_rejection_is_one_event_however_often_it_is_tried");
    let data = Data::new();
    let mut server = data.serve();
    let settings = json!({"stream": "sales", "keepRejected": true, "limits": {"fields": 1}});
    let sales = server.add_connector_with(&settings);
    let body = |n: u64, nth: u64| format!("{{\"n\":{n},\"nth\":{nth}}}");
    let ids: Vec<String> = (0..12)
        .map(|n| {
            let request = match n % 3 {
                0 => many(
                    &sales,
                    "",
                    LINES,
                    &format!("{}\n{}", body(n, 0), body(n, 1)),
                ),
                1 => sales.delivery(body(n, 0).as_bytes()),
                _ => sales
                    .delivery(body(n, 0).as_bytes())
                    .header("Idempotency-Key", n.to_string()),
            };
            let found = refused(&server, &request, 422);
            found["id"].as_str().unwrap().to_owned()
        })
        .collect();
    server
        .admin("PATCH", "connectors/sales", &json!({"limits": {}}))
        .expect(200);
    for _ in 0..4 {
        let mut connection = server.connect();
        let all = Request::post("/api/admin/rejections:retry?connector=sales");
        let all = all.bearer(&server.operator_key);
        // What it is answered, if anything, is not known to whoever comes after the kill.
        let trying = std::thread::spawn(move || connection.call(&all).is_ok());
        std::thread::sleep(Duration::from_millis(rng.random_range(0..60)));
        server.kill9();
        trying.join().unwrap();
        server = data.serve();
    }
    let folder = data.path().join("rejections");
    for id in &ids {
        let file = folder.join(format!("{id}.json"));
        let waiting = fs::read(&file).unwrap();
        let first = retry(&server, id);
        assert_eq!(first["outcome"], "accepted", "{first:#}");
        server.kill9();
        fs::write(&file, waiting).unwrap();
        server = data.serve();
        for _ in 0..2 {
            let again = retry(&server, id);
            assert_eq!(
                (&again["outcome"], &again["replayed"], &again["position"]),
                (&json!("accepted"), &json!(true), &first["position"]),
                "{again:#}"
            );
        }
    }
    let mut bodies: Vec<_> = server.log("sales").into_iter().map(|it| it.body).collect();
    let mut expected: Vec<_> = (0..12)
        .flat_map(|n| (0..if n % 3 == 0 { 2 } else { 1 }).map(move |nth| (n, nth)))
        .map(|(n, nth)| body(n, nth))
        .collect();
    bodies.sort_unstable();
    expected.sort_unstable();
    assert_eq!(bodies, expected);
}

#[test]
fn why_a_delivery_can_not_be_tried_again_is_said() {
    let data = Data::new();
    let room = ("HOOKPOOL_LIMITS_REJECTION_BYTES", "20000");
    let server = Server::try_start_with(data.path(), &[room]).unwrap();
    let settings = json!({"stream": "sales", "keepRejected": true, "limits": {"bodyBytes": 4_000}});
    let sales = server.add_connector_with(&settings);
    let off = server.add_connector("off", false);
    let of_lines = |connector: &Connector, bytes: usize| {
        many(
            connector,
            "",
            LINES,
            &format!("{{}}{}[", "\n".repeat(bytes)),
        )
    };
    let unread = webhook(&sales.ingest_key).chunked(&[b' '; 5_000], 700);
    let dry = sales.delivery_to("/api/webhook/sales?dryRun=true", b"[]");
    let deletion = sales.deletion("a").body("{}");
    let cases = [
        (webhook("ik_000000000000_x").body("{}"), 401, "credential"),
        (of_lines(&off, 10), 400, "off"),
        (off.delivery(b"[]"), 400, "off"),
        (dry, 400, "no-delivery"),
        (deletion, 400, "no-delivery"),
        (many(&sales, "", "text/plain", "{}"), 415, "form"),
        (many(&sales, "?x=1", LINES, "{}"), 400, "form"),
        (unread, 413, "partial"),
        (of_lines(&sales, 10_001), 400, "too-large"),
    ];
    for (request, status, reason) in &cases {
        let found = refused(&server, request, *status);
        assert_eq!(found["notKept"]["reason"], *reason, "{found:#}");
        assert_eq!(found["kept"], false);
        let target = format!("rejections/{}:retry", found["id"].as_str().unwrap());
        let answer = server.admin("POST", &target, &json!({}));
        answer.expect_problem(409, "CONFLICT");
        let problem: Value = answer.json();
        assert_eq!(problem["detail"], found["notKept"]["detail"], "{reason}");
    }
    // Each takes the room of the one before it.
    let ids = [9_000, 9_000, 9_000].map(|bytes| {
        let found = refused(&server, &of_lines(&sales, bytes), 400);
        assert_eq!(
            (&found["kept"], &found["notKept"]),
            (&json!(true), &Value::Null)
        );
        found["id"].as_str().unwrap().to_owned()
    });
    let gone = eventually("the first gave room", Duration::from_secs(10), || {
        let gone = rejection(&server, &ids[0]);
        (gone["kept"] == false).then_some(gone)
    });
    assert_eq!(gone["notKept"]["reason"], "room");
    // The program says the same.
    let why = gone["notKept"]["detail"].as_str().unwrap();
    let shown = run(&server, &["rejections", "show", &ids[0]]);
    assert!(
        shown.status.success() && both(&shown).contains(why),
        "{}",
        both(&shown)
    );
    let retried = run(&server, &["rejections", "retry", &ids[0]]);
    assert_eq!(retried.status.code(), Some(5), "{}", both(&retried));
    assert!(both(&retried).contains(why), "{}", both(&retried));
    let all = run(&server, &["rejections", "list", "--connector", "sales"]);
    assert!(both(&all).contains("too-large"), "{}", both(&all));
}

#[test]
fn a_disabled_connector_keeps_what_comes_and_takes_it_when_it_is_on_again() {
    let data = Data::new();
    let server = data.serve();
    let settings = json!({"stream": "sales", "signed": true, "keepRejected": true});
    let sales = server.add_connector_with(&settings);
    server
        .admin("POST", "connectors/sales:disable", &json!({}))
        .expect(200);
    for n in 0..3 {
        let body = format!(r#"{{"id":"one","n":{n}}}"#);
        let found = refused(&server, &sales.delivery(body.as_bytes()), 401);
        assert_eq!(
            (&found["reason"], &found["kept"]),
            (&json!("disabled"), &json!(true))
        );
    }
    // What only asked what would happen must not happen later.
    let dry = sales.delivery_to("/api/webhook/sales?dryRun=true", b"{}");
    assert_eq!(refused(&server, &dry, 401)["kept"], false);
    let all = |server: &Server| -> Value {
        server
            .admin("POST", "rejections:retry?connector=sales", &json!({}))
            .expect(200)
            .json()
    };
    assert_eq!(all(&server)["refused"], 3);
    server
        .admin("POST", "connectors/sales:enable", &json!({}))
        .expect(200);
    assert_eq!(all(&server)["accepted"], 3);
    let last = server.log("sales").last().unwrap().position;
    server.items("sales", last);
    let item = "/api/streams/sales/items/one";
    let item: Value = server.get(item).expect(200).json();
    assert_eq!(item["fields"]["n"], 2, "in the order in which they came");
}

/// The names and contents of all files of a folder, and of those in it.
fn bytes_of(folder: &Path, into: &mut Vec<u8>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        into.extend_from_slice(path.to_string_lossy().as_bytes());
        match path.is_dir() {
            true => bytes_of(&path, into),
            false => into.extend(fs::read(&path).unwrap()),
        }
    }
}

#[test]
fn no_secret_gets_into_rejections_logs_or_metrics() {
    let data = Data::new();
    let debug = ("RUST_LOG", "trace");
    let server = Server::try_start_with(data.path(), &[debug]).unwrap();
    let settings =
        json!({"stream": "sales", "scheme": "hookpool", "signed": true, "keepRejected": true});
    let made: Value = server
        .admin("POST", "connectors", &settings)
        .expect(201)
        .json();
    let secrets: Vec<String> = ["ingestKey", "signingKey", "hookUrl"]
        .iter()
        .map(|member| {
            made[member]
                .as_str()
                .unwrap()
                .rsplit('_')
                .next()
                .unwrap()
                .to_owned()
        })
        .chain([
            "canaryone".to_owned(),
            "canarytwo".to_owned(),
            "canarythree".to_owned(),
            "canaryfour".to_owned(),
            server.operator_key.rsplit('_').next().unwrap().to_owned(),
        ])
        .collect();
    let (key, signing_key) = (
        made["ingestKey"].as_str().unwrap(),
        made["signingKey"].as_str().unwrap(),
    );
    let hook = hook_of(&made);
    let now = now_s().to_string();
    let requests = [
        // A good key with a bad signature, by both ways.
        signed(webhook(key), "whsk_another_signing_key", &now, BODY)
            .header("Cookie", "s=canaryone")
            .body(BODY),
        signed(Request::post(&hook), "whsk_another_signing_key", &now, BODY).body(BODY),
        // Secrets where they do not belong.
        webhook("ik_canarytwo_canarythree").body("{}"),
        webhook(&format!("{key}x")).body("{}"),
        Request::post(&format!("/api/webhook/{key}"))
            .bearer(signing_key)
            .body("{}"),
        Request::post(&format!("{hook}x?key=canaryfour")).body("{}"),
        Request::post(&format!("/api/hooks/{}", server.operator_key))
            .header("X-Key", "canaryone")
            .body("{}"),
        Request::post(&format!("/api/webhook/sales?key={signing_key}"))
            .header("Authorization", format!("Basic {key}"))
            .body("{}"),
    ];
    for request in &requests {
        refused(&server, request, 401);
    }
    let mut found = server.get("/metrics").text().as_bytes().to_vec();
    found.extend(server.get("/api/admin/rejections").body);
    let folder = data.path().join("rejections");
    assert!(fs::read_dir(&folder).unwrap().count() >= requests.len());
    found.extend(server.kill9_heard().into_bytes());
    bytes_of(&folder, &mut found);
    assert!(found.len() > 5_000);
    for secret in &secrets {
        assert!(
            memchr::memmem::find(&found, secret.as_bytes()).is_none(),
            "{secret}"
        );
    }
}

#[test]
fn a_folder_that_can_not_be_written_refuses_nothing() {
    let data = Data::new();
    data.serve().stop();
    fs::remove_dir_all(data.path().join("rejections")).unwrap();
    fs::write(data.path().join("rejections"), "in the way").unwrap();
    let server = data.serve();
    let sales = server.add_connector("sales", false);
    refused(&server, &webhook("ik_0_x").body("{}"), 401);
    server.post(&sales, BODY).expect(202);
}
