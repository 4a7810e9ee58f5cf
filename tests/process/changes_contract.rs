//! The contract of `GET /api/streams/{s}/changes` in `docs/protocol.md`.

use std::io::Read;

use serde_json::{Value, json};

use crate::common::http::{Connection, Request};
use crate::common::server::{Data, Server, position};
use crate::common::shared::Stream;
use crate::common::sse::{Frame, Parser};

impl Stream {
    /// Frames of a new connection until `last` holds for one.
    fn until(
        &self,
        query: &str,
        header: Option<&str>,
        last: impl Fn(&Frame) -> bool,
    ) -> Vec<Frame> {
        frames_until(
            &self.shared.server,
            &self.connector.stream,
            query,
            header,
            last,
        )
    }
}

pub(crate) fn frames_until(
    server: &Server,
    stream: &str,
    query: &str,
    last_event_id: Option<&str>,
    last: impl Fn(&Frame) -> bool,
) -> Vec<Frame> {
    let request = Request::get(&format!("/api/streams/{stream}/changes?{query}"));
    let request = request.bearer(&server.operator_key);
    let request = match last_event_id {
        Some(id) => request.header("Last-Event-ID", id),
        None => request,
    };
    let mut connection = Connection::open(server.addr).unwrap();
    let (head, mut body) = connection.follow(&request).unwrap();
    assert_eq!(head.status, 200);
    assert_eq!(head.header("Content-Type"), Some("text/event-stream"));
    let (mut parser, mut frames, mut buffer) = (Parser::default(), Vec::new(), [0; 1024]);
    while !frames.iter().any(&last) {
        let read = body.read(&mut buffer).unwrap();
        assert_ne!(read, 0, "the stream ended after {frames:?}");
        frames.extend(parser.push(&buffer[..read]));
    }
    frames
}

pub(crate) fn named(name: &str) -> impl Fn(&Frame) -> bool {
    move |frame| frame.event == name
}

fn change_at(position: u64) -> impl Fn(&Frame) -> bool {
    move |frame| frame.event == "change" && frame.position() == position
}

pub(crate) fn names(frames: &[Frame]) -> Vec<&str> {
    frames.iter().map(|frame| &*frame.event).collect()
}

#[test]
fn a_snapshot_comes_first_and_changes_follow_it() {
    let stream = Stream::new("snapshot-first");
    stream.post(r#"{"id":"a","n":1.0,"nested":{"x": [1]}}"#);
    let second = stream.post(r#"{"id":"b"}"#);
    stream.shared.server.items("snapshot-first", second);
    let frames = stream.until("", None, named("snapshot-end"));
    assert_eq!(names(&frames), ["item", "item", "snapshot-end"]);
    assert!(frames[0].id.is_none() && frames[1].id.is_none());
    let fields = json!({"id": "a", "n": 1.0, "nested": "{\"x\": [1]}"});
    assert_eq!(
        (&frames[0].json()["itemId"], &frames[0].json()["fields"]),
        (&json!("a"), &fields)
    );
    assert!(
        frames[0].data.contains("1.0"),
        "a number went through a float: {}",
        frames[0].data
    );
    // Other streams of this server move the position too.
    assert!(frames[2].position() >= second);
    assert_eq!(frames[2].json()["items"], 2);

    let third = stream.post(r#"{"id":"a","n":2}"#);
    let cursor = frames[2].id.as_deref();
    let after = stream.until("", cursor, change_at(third));
    assert_eq!(names(&after), ["change"]);
    let change = after[0].json();
    assert_eq!(
        (&change["op"], &change["stream"]),
        (&json!("upsert"), &json!("snapshot-first"))
    );
    assert_eq!(change["set"], json!({"id": "a", "n": 2}));
    assert_eq!(change["itemId"], "a");
    assert!(change["time"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn after_every_cursor_come_exactly_the_later_changes() {
    let stream = Stream::new("every-cursor");
    let positions: Vec<u64> = (0..20)
        .map(|n| stream.post(&format!(r#"{{"id":"{n}"}}"#)))
        .collect();
    let all = stream.until("after=earliest", None, change_at(positions[19]));
    let seen = |frames: &[Frame]| frames.iter().map(Frame::position).collect::<Vec<u64>>();
    assert_eq!(seen(&all), positions);
    for n in 0..19 {
        let rest = stream.until("after=now", all[n].id.as_deref(), change_at(positions[19]));
        assert_eq!(
            seen(&rest),
            positions[n + 1..],
            "the header wins over `after`"
        );
        let query = format!("last_event_id={}", all[n].id.as_deref().unwrap());
        assert_eq!(stream.until(&query, None, change_at(positions[19])), rest);
        let query = format!("after={}", all[n].id.as_deref().unwrap());
        assert_eq!(stream.until(&query, None, change_at(positions[19])), rest);
    }
}

#[test]
fn now_answers_at_once_with_a_place_to_resume_from() {
    let stream = Stream::new("from-now");
    stream.post(r#"{"id":"before"}"#);
    let frames = stream.until("after=now", None, named("bookmark"));
    assert_eq!(names(&frames), ["bookmark"]);
    let later = stream.post(r#"{"id":"after"}"#);
    let rest = stream.until("", frames[0].id.as_deref(), change_at(later));
    assert_eq!(names(&rest), ["change"]);
}

#[test]
fn an_item_filter_shows_one_item_and_moves_past_the_others() {
    let stream = Stream::new("one-item");
    for n in 0..10 {
        stream.post(&format!(r#"{{"id":"{}","n":{n}}}"#, n % 3));
    }
    let last = stream.post(r#"{"id":"1","n":"last"}"#);
    let frames = stream.until("after=earliest&item=1", None, change_at(last));
    let (changes, others): (Vec<_>, Vec<_>) =
        frames.iter().partition(|frame| frame.event == "change");
    assert_eq!(changes.len(), 4);
    assert!(changes.iter().all(|frame| frame.json()["itemId"] == "1"));
    assert!(
        others
            .iter()
            .all(|frame| frame.event == "bookmark" && frame.id.is_some())
    );
    let snapshot = stream.until("item=1", None, named("snapshot-end"));
    assert_eq!(names(&snapshot), ["item", "snapshot-end"]);

    let hidden = stream.post(r#"{"id":"2"}"#);
    let moved = |frame: &Frame| frame.event == "bookmark" && frame.position() >= hidden;
    stream.until("item=1&heartbeat=1", changes[3].id.as_deref(), moved);
}

#[test]
fn a_cursor_that_cannot_be_honoured_is_answered_with_reset_and_a_snapshot() {
    let stream = Stream::new("resets");
    let last = stream.post(r#"{"id":"a"}"#);
    let good = stream.until("after=earliest", None, change_at(last))[0]
        .id
        .clone()
        .unwrap();
    let parts: Vec<&str> = good.split('.').collect();
    let [epoch, generation, position] = parts[..] else {
        panic!("{good}")
    };
    assert_eq!(position, last.to_string());
    let other: String = epoch.chars().rev().collect();
    assert_ne!(other, epoch, "an unlucky epoch");
    for (cursor, reason) in [
        ("nonsense", "malformed"),
        ("-1", "malformed"),
        (&format!("{epoch}.{generation}"), "malformed"),
        (&format!("{epoch}.{generation}.1e3"), "malformed"),
        (
            &format!("{epoch}.{generation}.99999999999999999999999"),
            "malformed",
        ),
        (&"9".repeat(5_000), "malformed"),
        (&format!("{other}.{generation}.{position}"), "other-epoch"),
        (&format!("{epoch}.7777.{position}"), "other-generation"),
        (&format!("{epoch}.{generation}.999999999"), "ahead-of-head"),
    ] {
        let frames = stream.until("", Some(cursor), named("snapshot-end"));
        assert_eq!(
            names(&frames),
            ["reset", "item", "snapshot-end"],
            "{cursor:.80}"
        );
        assert_eq!(frames[0].json()["reason"], reason, "{cursor:.80}");
        assert!(frames[0].json()["earliest"].is_string());
    }
}

#[test]
fn a_cursor_of_another_data_folder_is_of_another_epoch() {
    let (first, second) = (Data::new(), Data::new());
    let mut ids = Vec::new();
    for data in [&first, &second] {
        let server = data.serve();
        let connector = server.add_connector("twins", false);
        let at = position(&server.post(&connector, r#"{"id":"a"}"#).expect(202));
        if let Some(id) = ids.first() {
            let id: &String = id;
            let frames = frames_until(&server, "twins", "", Some(id), named("snapshot-end"));
            assert_eq!(frames[0].json()["reason"], "other-epoch");
        }
        let frames = frames_until(&server, "twins", "after=earliest", None, change_at(at));
        ids.push(frames[0].id.clone().unwrap());
    }
    assert_ne!(ids[0], ids[1]);
}

#[test]
fn text_that_looks_like_framing_stays_data() {
    let stream = Stream::new("injection");
    let body = "{\"id\":\"a\\u2028\",\r\n\"x\":\"line\\r\\nid: 7\\n\\nevent: reset\\ndata: y\",\n\n\"o\":{\r\n\"k\"\r:\n1}}";
    let last = stream.post(body);
    let frames = stream.until("after=earliest", None, change_at(last));
    assert_eq!(names(&frames), ["change"]);
    let set = &frames[0].json()["set"];
    assert_eq!(set["x"], "line\r\nid: 7\n\nevent: reset\ndata: y");
    assert_eq!(set["o"], "{\r\n\"k\"\r:\n1}");
    let snapshot = stream.until("", None, named("snapshot-end"));
    assert_eq!(names(&snapshot), ["item", "snapshot-end"]);
    assert_eq!(&snapshot[0].json()["fields"], set);
}

#[test]
fn as_ndjson_every_frame_is_a_line() {
    let stream = Stream::new("ndjson-changes");
    let first = stream.post(r#"{"id":"a"}"#);
    // The snapshot is to have it.
    stream.shared.server.items("ndjson-changes", first);
    let request = Request::get("/api/streams/ndjson-changes/changes?heartbeat=1");
    let request = request.bearer(&stream.shared.server.operator_key);
    let mut connection = stream.shared.server.connect();
    let request = request.header("Accept", "application/x-ndjson");
    let (head, mut body) = connection.follow(&request).unwrap();
    assert_eq!(
        (head.status, head.header("Content-Type")),
        (200, Some("application/x-ndjson"))
    );
    let (mut text, mut buffer) = (String::new(), [0; 1024]);
    while !text.ends_with("\n\n") {
        let read = body.read(&mut buffer).unwrap();
        assert_ne!(read, 0);
        text.push_str(str::from_utf8(&buffer[..read]).unwrap());
    }
    let lines: Vec<Value> = text
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines[0]["event"], "item");
    assert_eq!(lines[0].get("id"), None);
    assert_eq!(lines[1]["event"], "snapshot-end");
    assert_eq!(lines[1]["data"]["items"], 1);
    // Other streams of this server move the position too.
    assert!(lines[1]["data"]["position"].as_u64() >= Some(first));
    assert!(lines[1]["id"].is_string());
    assert!(text.ends_with("\n\n"), "a heartbeat is an empty line");
}

#[test]
fn another_media_type_is_not_acceptable() {
    let stream = Stream::new("not-acceptable");
    let request = Request::get("/api/streams/not-acceptable/changes").header("Accept", "text/html");
    let request = request.bearer(&stream.shared.server.operator_key);
    stream
        .shared
        .server
        .call(&request)
        .expect_problem(406, "NOT_ACCEPTABLE");
}
