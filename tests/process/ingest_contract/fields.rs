//! What was sent is what is stored and read: fields merge at the top level, and values keep their text.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Stream, accepted, string, verbatim};
use crate::common::http::Request;
use crate::common::server::position;

#[test]
fn an_upsert_merges_at_the_top_level_and_stores_null() {
    let stream = Stream::new("upsert");
    stream
        .post(r#"{"id":"a","kept":1,"replaced":{"x":1},"nulled":"text"}"#)
        .expect(202);
    stream
        .post(r#"{"id":"a","replaced":{"y":2},"nulled":null,"added":true}"#)
        .expect(202);
    let items = stream.items();
    assert_eq!(items["a"]["kept"], verbatim("1"));
    assert_eq!(items["a"]["replaced"], string(r#"{"y":2}"#));
    assert_eq!(items["a"]["nulled"], verbatim("null"));
    assert_eq!(items["a"]["added"], verbatim("true"));
    assert_eq!(items["a"]["id"], string("a"));
}

#[test]
fn nested_values_are_strings_with_the_text_as_sent() {
    let stream = Stream::new("nested");
    let object = "{ \"b\" : [1.0,\t2e2], \"a\":{\"\\u0061\":null}}";
    let array = "[ ]";
    stream
        .post(format!(
            r#"{{"id":"a","object":{object} , "array": {array} }}"#
        ))
        .expect(202);
    let items = stream.items();
    assert_eq!(items["a"]["object"], string(object));
    assert_eq!(items["a"]["array"], string(array));
}

#[test]
fn expand_gives_nested_values_back_as_json() {
    let stream = Stream::new("expand");
    stream
        .post(r#"{"id":"a","object":{"n":[1,2]},"text":"[3]"}"#)
        .expect(202);
    stream.items();
    let item: Value = stream
        .server()
        .get("/api/streams/expand/items/a?expand=json")
        .expect(200)
        .json();
    assert_eq!(
        item["fields"],
        json!({"id": "a", "object": {"n": [1, 2]}, "text": "[3]"})
    );
}

#[test]
fn expanded_values_stay_on_one_line_wherever_they_are_told() {
    let stream = Stream::new("expand-lines");
    let posted = stream.post("{\"id\":\"a\",\"object\":{\"n\":[1,\r\n2.0]}}");
    let position = position(&posted.expect(202));
    stream.server().items("expand-lines", position);
    let get = |target: &str, accept: &str| {
        let target = format!("/api/streams/expand-lines/{target}expand=json");
        let request = Request::get(&target).bearer(&stream.server().operator_key);
        stream.server().call(&request.header("Accept", accept))
    };
    let expanded = r#"{"n":[1,  2.0]}"#;
    for target in ["items?", "items/a?", "items/a/history?", "diff?from=0&to="] {
        let target = match target.strip_suffix("to=") {
            Some(_) => format!("{target}{position}&"),
            None => target.to_owned(),
        };
        let answer = get(&target, "*/*").expect(200);
        assert!(
            answer.text().contains(expanded),
            "{target}: {}",
            answer.text()
        );
    }
    for start in ["snapshot", "earliest"] {
        for more in ["", "&fields=object", "&conflate=1"] {
            let target = format!("changes?after={start}&until={position}{more}&");
            for accept in ["text/event-stream", "application/x-ndjson"] {
                let answer = get(&target, accept).expect(200);
                let line = answer.text().lines().find(|line| line.contains(expanded));
                assert!(line.is_some(), "{accept} {target}: {}", answer.text());
            }
        }
    }
}

#[test]
fn numbers_come_back_as_they_were_sent() {
    let stream = Stream::new("numbers");
    let numbers = [
        "1.0",
        "1e2",
        "1E+2",
        "-0",
        "-0.0",
        "0.10",
        "18446744073709551616",
        "9007199254740993",
        "123456789012345678901234567890",
        "0.1234567890123456789012345678901",
        "1e400",
        "1e-999",
    ];
    let members: Vec<String> = numbers
        .iter()
        .enumerate()
        .map(|(n, number)| format!(r#""n{n}":{number}"#))
        .collect();
    let body = format!(r#"{{"id":"a",{}}}"#, members.join(","));
    stream.post(&body).expect(202);
    let items = stream.items();
    for (n, number) in numbers.iter().enumerate() {
        assert_eq!(items["a"][&format!("n{n}")], verbatim(number));
    }
    let log = stream.log();
    assert_eq!(log[0].body, body);
    let target = format!("/api/streams/numbers/log/{}", log[0].position);
    let request = Request::get(&target).bearer(&stream.server().operator_key);
    let raw = stream
        .call(&request.header("Accept", "application/octet-stream"))
        .expect(200);
    assert_eq!(raw.text(), body);
}

#[test]
fn field_names_are_kept_and_distinct() {
    let stream = Stream::new("field-names");
    let body = "{\"id\":\"a\",\"\":1,\"__proto__\":2,\"a\\nb\":3,\"\\\"\":4,\"\u{e9}\":5,\"e\u{301}\":6,\
        \"\u{1f600}\":7,\"\\ud83d\\ude01\":8,\"a.b\":9}";
    assert_eq!(accepted(stream.post(body)).fields_updated, 10);
    let item = &stream.items()["a"];
    assert_eq!(item["__proto__"], verbatim("2"));
    assert_eq!(item["a\nb"], verbatim("3"));
    assert_eq!(item["\u{1f601}"], verbatim("8"));
    assert_eq!(
        (&item["\u{e9}"], &item["e\u{301}"]),
        (&verbatim("5"), &verbatim("6"))
    );
}

#[test]
fn of_duplicate_keys_the_last_wins_and_the_raw_body_keeps_both() {
    let stream = Stream::new("duplicate-keys");
    let body = r#"{"id":"a","x":1,"\u0078":2,"id":"b"}"#;
    let answer = stream.post(body);
    assert_eq!(answer.header("DataPool-Notice"), Some("duplicate-keys"));
    let answer = accepted(answer);
    assert_eq!((&*answer.item_id, answer.fields_updated), ("b", 2));
    assert_eq!(stream.items()["b"]["x"], verbatim("2"));
    assert_eq!(stream.log()[0].body, body);
    let both = stream.post(r#"{"x":1,"x":2}"#);
    let notice: BTreeSet<&str> = both
        .header("DataPool-Notice")
        .unwrap()
        .split(", ")
        .collect();
    assert_eq!(notice, BTreeSet::from(["duplicate-keys", "generated-id"]));
}

#[test]
fn blanks_around_the_object_are_kept() {
    let stream = Stream::new("blanks");
    let body = "\r\n\t {\"id\":\"a\"} \n";
    stream.post(body).expect(202);
    assert_eq!(stream.log()[0].body, body);
}
