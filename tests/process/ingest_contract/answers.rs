//! An answer says what became of a delivery, and nothing else: the page's success, counts, the check that came first, no echo.

use serde_json::json;

use super::{Stream, accepted};
use crate::common::http::Request;
use crate::common::now_s;
use crate::common::server::{position, signed};

#[test]
fn the_success_body_is_exactly_the_pages() {
    let stream = Stream::with(json!({"stream": "exact-body", "idField": "region"}));
    let answer = stream
        .post(r#"{ "region": "North", "sales": 142000 }"#)
        .expect(202);
    assert_eq!(
        answer.text(),
        r#"{"status":"accepted","itemId":"North","fieldsUpdated":2}"#
    );
    assert_eq!(answer.header("Content-Type"), Some("application/json"));
    assert_eq!(answer.header("DataPool-Notice"), None);
    assert_eq!(answer.header("Idempotency-Replayed"), None);
    assert!(!answer.header("X-Request-Id").unwrap().is_empty());
    let header = answer.header("DataPool-Position").unwrap();
    assert_eq!(
        header,
        position(&answer).to_string(),
        "decimal without decoration"
    );
    let event = &stream.log()[0];
    assert_eq!(event.position, position(&answer));
    assert_eq!(
        (&*event.item_id, &*event.op, &*event.connector),
        ("North", "upsert", "exact-body")
    );
    assert_eq!(event.body, r#"{ "region": "North", "sales": 142000 }"#);
    assert_eq!(event.bytes, event.body.len());
}

#[test]
fn an_item_id_is_escaped_in_the_success_body() {
    let stream = Stream::new("escaped-id");
    let answer = accepted(stream.post(r#"{"id":"a\"b\\c/\u00e9 %41"}"#));
    assert_eq!(answer.item_id, "a\"b\\c/é %41");
    assert!(stream.items().contains_key("a\"b\\c/é %41"));
}

#[test]
fn fields_updated_counts_distinct_properties_with_the_id() {
    let stream = Stream::new("fields-updated");
    for (body, count) in [
        ("{}", 0),
        (r#"{"id":"a"}"#, 1),
        (r#"{"id":"a","b":null,"c":{"d":1,"e":2}}"#, 3),
        (r#"{"a":1,"a":2,"\u0061":3,"b":4}"#, 2),
        (r#"{"":1}"#, 1),
    ] {
        assert_eq!(accepted(stream.post(body)).fields_updated, count, "{body}");
    }
}

#[test]
fn checks_run_in_their_order() {
    let stream = Stream::signed("order-of-checks");
    let target = stream.connector.target();
    let get = Request::get(&target).bearer("nonsense");
    stream.call(&get).expect_problem(405, "METHOD_NOT_ALLOWED");
    let bad_key = signed(Request::post(&target).bearer("nonsense"), "x", "1", b"[").body("[");
    stream.call(&bad_key).expect_problem(401, "UNAUTHORIZED");
    let bad_signature = signed(stream.request(), "x", &now_s().to_string(), b"[").body("[");
    stream
        .call(&bad_signature)
        .expect_problem(401, "SIGNATURE_INVALID");
    stream.post("[").expect_problem(400, "INVALID_PAYLOAD");
    let first = stream.connector.delivery(b"[");
    stream.call(&first).expect_problem(400, "INVALID_PAYLOAD");
    stream.call(&first).expect_problem(400, "INVALID_PAYLOAD");
}

#[test]
fn a_problem_echoes_nothing_that_was_sent() {
    let stream = Stream::new("echo");
    let canary = "canary-51d7";
    let bodies = [
        format!(r#"{{"{canary}":}}"#),
        format!(r#"{{"id":"{canary}\u0000"}}"#),
        canary.to_owned(),
    ];
    for body in bodies {
        let answer = stream.query(&format!("x={canary}"), &body);
        assert_eq!(answer.status, 400);
        assert!(!String::from_utf8_lossy(&answer.body).contains(canary));
    }
}
