//! Another try doubles nothing: not what its sender sent again meanwhile, not what was tried before, and not when the server is killed.

use std::fs;
use std::time::Duration;

use rand::Rng;
use serde_json::{Value, json};

use super::{BODY, LINES, many, refused, rejection, retry, run, webhook};
use crate::common::http::Request;
use crate::common::program::both;
use crate::common::seeded;
use crate::common::server::{Data, Server};

/// Tries all of the connector again.
fn retry_all(server: &Server, force: &str) -> [u64; 3] {
    let target = format!("rejections:retry?connector=sales{force}");
    let all: Value = server.admin("POST", &target, &json!({})).expect(200).json();
    ["accepted", "refused", "doubtful"].map(|count| all[count].as_u64().unwrap())
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
        (&all["accepted"], &all["refused"], &all["next"]),
        (&json!(1), &json!(0), &Value::Null)
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
