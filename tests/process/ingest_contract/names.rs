//! Which names streams and items can have, and where the id of an item comes from.

use std::collections::BTreeSet;

use serde_json::json;

use super::{Stream, accepted, string};
use crate::common::http::Response;

/// The id is a UUID of version 7, in lower case.
#[track_caller]
fn assert_generated(response: Response) -> String {
    assert_eq!(response.header("DataPool-Notice"), Some("generated-id"));
    let id = accepted(response).item_id;
    let dashes: Vec<usize> = id.match_indices('-').map(|(at, _)| at).collect();
    assert_eq!((id.len(), &dashes[..]), (36, &[8, 13, 18, 23][..]), "{id}");
    assert!(
        id.bytes()
            .all(|b| matches!(b, b'-' | b'0'..=b'9' | b'a'..=b'f')),
        "{id}"
    );
    assert_eq!(
        (&id[14..15], "89ab".contains(&id[19..20])),
        ("7", true),
        "{id}"
    );
    id
}

#[test]
fn a_stream_name_has_up_to_64_characters_of_the_listed_ones() {
    let longest = format!("0aZ._-{}", "x".repeat(58));
    let stream = Stream::new(&longest);
    stream.post("{}").expect(202);
    for name in [
        "",
        "-a",
        ".a",
        "_a",
        "a b",
        "a/b",
        "é",
        &format!("{longest}x"),
    ] {
        let answer = stream
            .server()
            .admin("POST", "connectors", &json!({"stream": name}));
        answer.expect(400);
    }
}

#[test]
fn a_number_or_boolean_as_id_is_its_json_text() {
    let stream = Stream::new("scalar-ids");
    for (id, item_id) in [
        ("42", "42"),
        ("\"42\"", "42"),
        ("42.0", "42.0"),
        ("4.2e1", "4.2e1"),
        ("true", "true"),
    ] {
        assert_eq!(
            accepted(stream.post(format!(r#"{{"id":{id}}}"#))).item_id,
            item_id
        );
    }
    let ids: Vec<String> = stream.items().into_keys().collect();
    assert_eq!(
        ids,
        ["4.2e1", "42", "42.0", "true"],
        "42 and \"42\" are one item"
    );
}

#[test]
fn an_id_that_cannot_be_one_is_generated() {
    let stream = Stream::new("generated-ids");
    let bodies = [
        "{}",
        r#"{"id":null}"#,
        r#"{"id":""}"#,
        r#"{"id":{}}"#,
        r#"{"id":["a"]}"#,
    ];
    let ids: BTreeSet<String> = bodies
        .iter()
        .map(|body| assert_generated(stream.post(body)))
        .collect();
    assert_eq!(ids.len(), bodies.len());
    let logged: BTreeSet<String> = stream
        .log()
        .into_iter()
        .map(|event| event.item_id)
        .collect();
    assert_eq!(logged, ids, "fixed at append");
}

#[test]
fn an_id_field_that_is_missing_does_not_fall_back_to_id() {
    let stream = Stream::new("no-fallback");
    let id = assert_generated(stream.query("idField=absent", r#"{"id":"a","b":1}"#));
    assert_eq!(stream.items()[&id]["id"], string("a"));
}

#[test]
fn the_id_field_of_the_request_wins_over_the_connectors() {
    let stream = Stream::with(json!({"stream": "id-fields", "idField": "region"}));
    let body = r#"{"id":"i","region":"North","build":7}"#;
    assert_eq!(accepted(stream.post(body)).item_id, "North");
    assert_eq!(accepted(stream.query("idField=build", body)).item_id, "7");
    assert_eq!(accepted(stream.query("idField=b%75ild", body)).item_id, "7");
    assert_eq!(
        accepted(stream.query("idField=a.b", r#"{"a.b":"x","a":{"b":"y"}}"#)).item_id,
        "x"
    );
}

#[test]
fn an_empty_id_field_is_as_not_given() {
    let stream = Stream::new("empty-id-field");
    assert_eq!(
        accepted(stream.query("idField=", r#"{"id":"a","":"b"}"#)).item_id,
        "a"
    );
}

#[test]
fn an_item_id_has_at_most_256_bytes() {
    let stream = Stream::new("long-ids");
    let longest = "é".repeat(128);
    assert_eq!(
        accepted(stream.post(json!({"id": longest}).to_string())).item_id,
        longest
    );
    for id in [format!("{longest}x"), "x".repeat(70_000)] {
        let request = stream
            .connector
            .delivery(json!({"id": id}).to_string().as_bytes());
        stream.refuses(&request, 400, "INVALID_ITEM_ID");
    }
}
