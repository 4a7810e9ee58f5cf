//! What readers and followers are told of history that is gone.

use std::io::Read as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::{dropped, fill, read, retain, retention};
use crate::changes_contract::{frames_until, named, names};
use crate::common::http::Request;
use crate::common::server::{Data, Server, position};
use crate::common::sse::{Frame, Parser};

/// A refusal that names the earliest position.
#[track_caller]
fn gone(server: &Server, target: &str, floor: u64) {
    let answer = read(server, target);
    answer.expect_problem(410, "BEFORE_RETENTION");
    let detail = answer.json::<Value>()["detail"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(detail.ends_with(&format!(" {floor}")), "{target}: {detail}");
}

#[test]
fn what_expired_is_gone_for_every_reader_and_what_is_asked_without_a_place_begins_after_it() {
    let data = Data::new();
    let server = data.serve();
    let (_, last) = fill(&server, 300);
    let floor = last - 40;
    let log = server.log("sales");
    let time_of = |position: u64| {
        let event = log.iter().find(|event| event.position == position).unwrap();
        let target = format!("/log/{}", event.position);
        let event: Value = read(&server, &target).expect(200).json();
        event["time"].as_str().unwrap().to_owned()
    };
    let (at_floor, long_before) = (time_of(floor), time_of(floor - 30));
    let then = read(&server, &format!("/items?at={at_floor}")).expect(200);
    retain(&server, 40);
    assert_eq!(dropped(&server), floor);
    for target in [
        format!("/items?at={}", floor - 1),
        format!("/items?at={long_before}"),
        "/items/item-1?at=1".to_owned(),
        "/log?after=0".to_owned(),
        format!("/log?after={}", floor - 1),
        format!("/log/{floor}"),
        "/log/1".to_owned(),
        "/items/item-1/history?after=0".to_owned(),
        format!("/diff?from=1&to={last}"),
        format!("/diff?from={last}&to={}", floor - 1),
    ] {
        gone(&server, &target, floor);
    }
    // Also of events that items still need, and so are in the log.
    for event in log.iter().filter(|event| event.position <= floor) {
        gone(&server, &format!("/log/{}", event.position), floor);
    }
    let page: Value = read(&server, "/log").expect(200).json();
    assert_eq!(page["events"][0]["position"], floor + 1);
    assert_eq!(page["events"].as_array().unwrap().len(), 40);
    // The event is gone, its time still names the moment.
    let again = read(&server, &format!("/items?at={at_floor}")).expect(200);
    assert_eq!(again.text(), then.text());
    for item in 0..7 {
        let history: Value = read(&server, &format!("/items/item-{item}/history"))
            .expect(200)
            .json();
        let events = history["events"].as_array().unwrap();
        assert!(
            events
                .iter()
                .all(|event| event["position"].as_u64() > Some(floor))
        );
    }
    read(&server, "/items/none/history").expect_problem(404, "NOT_FOUND");
    let from = |time: &str| {
        let query = format!("after={time}&until={last}");
        frames_until(&server, "sales", &query, None, named("goodbye"))
    };
    let told = from(&at_floor);
    assert_eq!((&*told[0].event, told[0].position()), ("bookmark", floor));
    // An event that came too late makes no frame, so the first one may be any after the floor.
    let changes = told.iter().filter(|frame| frame.event == "change");
    let first = changes.map(Frame::position).min();
    assert!(first > Some(floor), "{first:?}");
    let reset = &from(&long_before)[0];
    assert_eq!(reset.event, "reset");
    assert_eq!(reset.json()["reason"], "before-retention");
}

#[test]
fn a_cursor_from_before_the_floor_is_reset_and_earliest_is_the_floor() {
    let data = Data::new();
    let server = data.serve();
    let (_, last) = fill(&server, 200);
    let frames = frames_until(&server, "sales", "after=earliest", None, |frame| {
        frame.position() == last
    });
    let id = |position: u64| {
        let mut frames = frames.iter();
        let frame = frames.find(|frame| frame.position() > position).unwrap();
        let id = frame.id.clone().unwrap();
        let (rest, _) = id.rsplit_once('.').unwrap();
        format!("{rest}.{position}")
    };
    let floor = last - 30;
    retain(&server, 30);
    assert_eq!(dropped(&server), floor);
    let reset = frames_until(
        &server,
        "sales",
        "",
        Some(&id(floor - 1)),
        named("snapshot-end"),
    );
    assert_eq!(reset[0].event, "reset");
    assert_eq!(reset[0].json()["reason"], "before-retention");
    assert_eq!(reset[0].json()["earliest"], id(floor));
    assert_eq!(names(&reset)[1], "item");
    let after = |frames: &[Frame]| {
        let shown = frames
            .iter()
            .map(|frame| (frame.position(), frame.data.clone()));
        shown.collect::<Vec<_>>()
    };
    let expected: Vec<_> = after(&frames)
        .into_iter()
        .filter(|(position, _)| *position > floor)
        .collect();
    let until_last = |frame: &Frame| frame.position() == last;
    let earliest = frames_until(&server, "sales", "after=earliest", None, until_last);
    assert_eq!(after(&earliest), expected);
    let resumed = frames_until(&server, "sales", "", Some(&id(floor)), until_last);
    assert_eq!(after(&resumed), expected);
}

#[test]
fn a_slow_follower_that_is_overtaken_gets_a_reset_and_no_hole() {
    let data = Data::new();
    let server = data.serve();
    let connector = server.add_connector("sales", false);
    let (filler, mut connection) = ("x".repeat(64 << 10), server.connect());
    let mut positions = Vec::new();
    for n in 0..600 {
        let body = json!({ "id": "one", "n": n, "filler": filler }).to_string();
        let delivery = connector.delivery(body.as_bytes());
        positions.push(position(&connection.call(&delivery).unwrap().expect(202)));
    }
    let last = *positions.last().unwrap();
    server.items("sales", last);
    let request = Request::get("/api/streams/sales/changes?after=earliest");
    let mut slow = server.connect();
    let (head, mut body) = slow.follow(&request.bearer(&server.operator_key)).unwrap();
    assert_eq!(head.status, 200);
    let (mut parser, mut frames, mut buffer) = (Parser::default(), Vec::new(), vec![0; 1 << 16]);
    while frames.is_empty() {
        let read = body.read(&mut buffer).unwrap();
        frames.extend(parser.push(&buffer[..read]));
    }
    // What is under way fills the sockets; the rest is read from the log when there is room.
    std::thread::sleep(Duration::from_millis(500));
    retain(&server, 5);
    assert_eq!(dropped(&server), last - 5);
    while !frames.iter().any(named("snapshot-end")) {
        let read = body.read(&mut buffer).unwrap();
        assert_ne!(read, 0);
        frames.extend(parser.push(&buffer[..read]));
    }
    let changes: Vec<_> = frames
        .iter()
        .take_while(|frame| frame.event == "change")
        .collect();
    let seen: Vec<_> = changes.iter().map(|frame| frame.position()).collect();
    assert_eq!(seen, positions[..seen.len()], "a hole");
    assert!(seen.len() < 595, "it was not overtaken: {}", seen.len());
    let rest = &frames[seen.len()..];
    assert_eq!(names(rest), ["reset", "item", "snapshot-end"]);
    assert_eq!(rest[0].json()["reason"], "before-retention");
    let requested = rest[0].json()["requested"].as_str().unwrap().to_owned();
    assert!(requested.ends_with(&format!(".{}", seen.last().unwrap())));
}

#[test]
fn limits_are_at_least_one_and_can_be_tried_and_taken_away() {
    let data = Data::new();
    let server = data.serve();
    let (_, last) = fill(&server, 30);
    let put = |target: &str, body: Value| server.admin("PUT", target, &body);
    for bad in [
        json!({}),
        json!({ "maxPositions": 0 }),
        json!({ "maxAgeSeconds": 0 }),
        json!({ "maxAgeSeconds": "30d" }),
        json!({ "other": 1 }),
    ] {
        put("streams/sales/retention", bad).expect_problem(400, "INVALID_PAYLOAD");
    }
    put("streams/none/retention", json!({ "maxPositions": 1 })).expect_problem(404, "NOT_FOUND");
    let tried: Value = put(
        "streams/sales/retention?check=true",
        json!({ "maxPositions": 10 }),
    )
    .expect(200)
    .json();
    assert_eq!(
        (&tried["events"], &tried["earliest"]["position"]),
        (&json!(20), &json!(last - 10))
    );
    assert!(tried["earliest"]["time"].is_string());
    assert_eq!(retention(&server)["maxPositions"], Value::Null);
    let tried: Value = put(
        "streams/sales/retention?check=true",
        json!({ "maxAgeSeconds": 3600 }),
    )
    .expect(200)
    .json();
    assert_eq!(
        (&tried["events"], &tried["earliest"]),
        (&json!(0), &Value::Null)
    );
    put(
        "streams/sales/retention",
        json!({ "maxAgeSeconds": 3600, "maxPositions": 10 }),
    )
    .expect(200);
    assert_eq!(dropped(&server), last - 10);
    let cleared: Value = server
        .admin("DELETE", "streams/sales/retention", &Value::Null)
        .expect(200)
        .json();
    assert_eq!(
        (&cleared["maxAgeSeconds"], &cleared["maxPositions"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(cleared["earliest"]["position"], last - 10);
}

#[test]
fn a_delivery_that_may_come_again_is_not_dropped() {
    let data = Data::new();
    let server = data.serve();
    let plain = server.add_connector("sales", false);
    let signed =
        server.add_connector_with(&json!({ "stream": "sales", "name": "signed", "signed": true }));
    let old = position(&server.post(&plain, r#"{"id":"a","n":1}"#).expect(202));
    let delivery = signed.delivery(br#"{"id":"a","n":2}"#);
    let first = server.call(&delivery).expect(202);
    let last = position(&server.post(&plain, r#"{"id":"a","n":3}"#).expect(202));
    server.items("sales", last);
    retain(&server, 1);
    assert_eq!(
        dropped(&server),
        old,
        "the floor is below the signed delivery"
    );
    let again = server.call(&delivery).expect(202);
    assert_eq!(again.header("Idempotency-Replayed"), Some("true"));
    assert_eq!(position(&again), position(&first));
}

#[test]
fn nothing_is_told_of_a_deletion_before_the_floor() {
    let data = Data::new();
    let server = data.serve();
    let connector = server.add_connector("sales", false);
    let mut last = 0;
    for request in [
        connector.delivery(br#"{"id":"a"}"#),
        connector.deletion("a"),
        connector.delivery(br#"{"id":"b"}"#),
        connector.deletion("b"),
    ] {
        last = position(&server.call(&request).expect(202));
    }
    server.items("sales", last);
    let detail = |item: &str| -> Value {
        let answer = read(&server, &format!("/items/{item}"));
        answer.expect_problem(404, "NOT_FOUND");
        answer.json::<Value>()["detail"].take()
    };
    let deleted = |at: u64| json!(format!("the item was deleted at position {at}"));
    assert_eq!(detail("a"), deleted(last - 2));
    retain(&server, 2);
    assert_eq!(dropped(&server), last - 2);
    assert_eq!(detail("a"), Value::Null, "as if it had never been");
    read(&server, "/items/a/history").expect(404);
    assert_eq!(detail("b"), deleted(last));
}
