//! What each rule does to items, their meta, the quarantine and the changes, event by event. Followers are told the same live, later, and
//! after a rebuild.

use std::sync::Arc;

use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::{Operated, operate};
use crate::common::fold::{Event, Pool};
use crate::common::follower::{Follower, Framing, From, apply, named};
use crate::common::program::both;
use crate::common::projection::{Projected, project};
use crate::common::seeded;
use crate::common::server::{Connector, percent, position};
use crate::common::shared::{Shared, shared};
use crate::common::sse::Frame;

const EVENTS: usize = 150;

#[test]
fn an_order_and_defaults_and_numbers() {
    check(
        "ordered",
        &json!({"order-by": "/v", "fields": {"status": {"default": "new"}, "n": {"type": "number", "default": "0.10"}}}),
    );
}

#[test]
fn replaced_items_with_defaults_and_deleting_nulls() {
    check(
        "replaced",
        &json!({"merge": "replace", "nulls": "delete", "fields": {"status": {"default": "new"}, "at": {"type": "time"}}}),
    );
}

#[test]
fn flattened_and_renamed_and_dropped_fields() {
    check(
        "flattened",
        &json!({"id": "/o/key", "nulls": "delete", "fields": {
            "o": {"flatten": "_"},
            "branch": {"from": "/ref"},
            "first": {"from": "/o/list/0", "type": "string", "default": {"none": [1, 2]}},
            "held": {"type": "json"},
            "sender": {"drop": true},
        }}),
    );
}

#[test]
fn replaced_items_in_the_order_of_times() {
    check(
        "timed",
        &json!({"merge": "replace", "unknown": "drop", "order-by": "at", "fields": {
            "n": {"type": "string"},
            "flag": {"type": "boolean", "default": false},
            "o": {"from": "/o/deep", "flatten": "."},
            "status": {"default": "new"},
            "at": {"type": "time"},
        }}),
    );
}

/// One value of a list, or a rare one that hardly any rule likes.
fn one<'a>(rng: &mut StdRng, usual: &[&'a str], rare: &'a str) -> &'a str {
    if rng.random_bool(0.04) {
        return rare;
    }
    usual[rng.random_range(0..usual.len())]
}

/// A body with a random half of these properties.
fn body(rng: &mut StdRng) -> String {
    let v = one(
        rng,
        &[
            "1",
            "2.50",
            "\"3\"",
            "1e1",
            "\"2024-01-01T00:00:00+02:00\"",
            "\"b\"",
            "null",
        ],
        "true",
    );
    let n = one(rng, &["1", "2.0", "\"3e2\"", "null"], "\"many\"");
    let at = one(
        rng,
        &[
            "\"2024-02-01T12:00:00.250+02:00\"",
            "1700000000",
            "1700000000123",
            "\"2019-05-15T15:20:33Z\"",
            "\"9999-12-31T23:59:59Z\"",
            "null",
        ],
        "\"yesterday\"",
    );
    let status = one(rng, &["\"open\"", "\"cl\\u00f6sed\"", "null"], "[1]");
    let key = one(rng, &["\"k1\"", "2", "null", "\"k3\""], "\"a\\u0001\"");
    let deep = one(
        rng,
        &[
            "{\"x\":{\"y\": [1, {}]},\"z\":null}",
            "{}",
            "7",
            "{\"x\":1.0}",
        ],
        "{\"a.b\":1,\"a\":{\"b\":2}}",
    );
    let list = one(rng, &["[]", "[1.0,2]", "[{\"k\":1}]", "null"], "{}");
    let held = one(
        rng,
        &["\"[1, 2]\"", "\"1.0\"", "{\"a\": 1}", "null"],
        "\"x\"",
    );
    let object = format!(r#"{{"key":{key},"deep":{deep},"list":{list}}}"#);
    let flag = one(rng, &["true", "\"false\"", "null"], "0");
    let all = [
        ("v", v),
        ("n", n),
        ("at", at),
        ("status", status),
        ("o", &object),
        ("held", held),
        ("flag", flag),
        ("ref", "\"main\""),
        ("sender", "{\"login\":\"me\"}"),
        ("x", "\"\\u2028\\n\""),
    ];
    let mut text = format!(r#"{{"id":"i{}""#, rng.random_range(0..6));
    for (name, value) in all {
        if rng.random_bool(0.5) {
            text.push_str(&format!(r#", "{name}": {value}"#));
        }
    }
    text.push('}');
    text
}

/// A stream with these rules in force from its first event on.
struct Ruled {
    shared: Arc<Shared>,
    connector: Connector,
    name: String,
}

impl Ruled {
    fn new(name: &str, rules: &Value) -> Self {
        let shared = shared();
        let name = format!("rules-{name}");
        let connector = shared.server.add_connector(&name, false);
        operate(&shared.server, &name).put_in_force(rules);
        Self {
            shared,
            connector,
            name,
        }
    }

    fn operated(&self) -> Operated<'_> {
        operate(&self.shared.server, &self.name)
    }

    fn follow(&self, framing: Framing, after: Option<&'static str>) -> Follower {
        let from = From {
            after,
            ..From::default()
        };
        Follower::start(&self.shared.server, &self.name, framing, &from)
    }

    fn post_all(&self, bodies: &[String]) -> u64 {
        let mut connection = self.shared.server.connect();
        let post = |body: &String| {
            let request = self.connector.delivery(body.as_bytes());
            position(&connection.call(&request).unwrap().expect(202))
        };
        bodies.iter().map(post).max().unwrap()
    }

    /// The changes from the first event on.
    fn told_later(&self, framing: Framing, last: u64) -> Vec<Frame> {
        changes(self.follow(framing, Some("earliest")).finish(last))
    }
}

fn changes(frames: Vec<Frame>) -> Vec<Frame> {
    frames
        .into_iter()
        .filter(|frame| frame.event == "change")
        .collect()
}

/// The same but for the generation in the ids.
fn data(frames: &[Frame]) -> Vec<&str> {
    frames.iter().map(|frame| &*frame.data).collect()
}

fn check(name: &str, rules: &Value) {
    let mut rng = seeded(name);
    let bodies: Vec<String> = (0..EVENTS).map(|_| body(&mut rng)).collect();
    check_bodies(name, rules, &bodies);
}

/// All that is claimed of a history under these rules.
pub(super) fn check_bodies(name: &str, rules: &Value, bodies: &[String]) {
    let stream = Ruled::new(name, rules);
    let live = [Framing::Sse, Framing::Ndjson].map(|framing| stream.follow(framing, None));
    let before = stream.post_all(bodies);
    live.iter().for_each(|follower| follower.end_after(before));
    // A last one that no rules here hide.
    let last = stream
        .post_all(&[r#"{"id":"last","o":{"key":"last"},"at":4000000000,"v":"z"}"#.to_owned()]);
    let log = stream.shared.server.log(&stream.name);
    let expected = project(rules, &log);

    let (_, items) = stream.shared.server.items(&stream.name, last);
    assert_eq!(items, expected.served());
    check_meta(&stream, &expected);
    check_quarantine(stream.operated(), &expected);

    let told = stream.told_later(Framing::Sse, last);
    check_frames(rules, &log, &told);
    for follower in live {
        assert_eq!(changes(follower.finish(last)), told, "live and later");
    }
    assert_eq!(stream.told_later(Framing::Ndjson, last), told);

    stream.operated().start(&json!({}));
    let status = stream.operated().ready();
    assert_eq!(status["superseded"], expected.superseded);
    assert_eq!(status["quarantined"], expected.quarantined.len());
    let hash = stream.operated().hash();
    stream.operated().promote(Some("*")).expect(200);
    assert_eq!(stream.operated().hash(), hash);
    assert_eq!(
        data(&stream.told_later(Framing::Sse, last)),
        data(&told),
        "by the projector and by a rebuild"
    );
    eprintln!(
        "{name}: {} events, {} in quarantine, {} superseded, {} changes",
        log.len(),
        expected.quarantined.len(),
        expected.superseded,
        told.len()
    );
}

fn check_meta(stream: &Ruled, expected: &Projected) {
    for (id, item) in &expected.items {
        let target = format!(
            "/api/streams/{}/items/{}?meta=true",
            stream.name,
            percent(id)
        );
        let shown: Value = stream.shared.server.get(&target).expect(200).json();
        assert_eq!(shown["position"], item.position, "{id}");
        let meta = shown["meta"].as_object().unwrap();
        let found: Vec<_> = meta
            .iter()
            .map(|(name, meta)| (name.clone(), meta["position"].as_u64().unwrap()))
            .collect();
        let set: Vec<_> = item
            .fields
            .iter()
            .map(|(name, (_, position))| (name.clone(), *position))
            .collect();
        assert_eq!(found, set, "{id}");
        assert!(
            meta.values()
                .all(|meta| meta["connector"] == stream.connector.name.as_str())
        );
    }
}

fn check_quarantine(stream: Operated<'_>, expected: &Projected) {
    let (mut found, mut after) = (Vec::new(), 0);
    loop {
        let page: Value = stream
            .get(&format!("/quarantine?limit=3&after={after}"))
            .expect(200)
            .json();
        assert_eq!(page["total"], expected.quarantined.len());
        let events = page["events"].as_array().unwrap();
        found.extend(
            events
                .iter()
                .map(|event| event["position"].as_u64().unwrap()),
        );
        let Some(next) = page["next"].as_u64() else {
            break;
        };
        after = next;
    }
    assert_eq!(found, expected.quarantined);
    assert_eq!(stream.row()["quarantined"], found.len());
    let output = stream.cli(&[
        "quarantine",
        "list",
        stream.name,
        "--limit",
        "1000",
        "--output",
        "json",
    ]);
    assert!(output.status.success(), "{}", both(&output));
    let listed: Value = serde_json::from_slice(&output.stdout).unwrap();
    let all: Value = stream.get("/quarantine?limit=1000").expect(200).json();
    assert_eq!(listed["events"], all["events"]);
}

/// One frame for each event that can be seen, and after each the state that an independent fold has.
fn check_frames(rules: &Value, log: &[Event], frames: &[Frame]) {
    let (mut projected, mut pool, mut frames) =
        (Projected::default(), Pool::new(), frames.iter().peekable());
    for event in log {
        let before = (projected.quarantined.len(), projected.superseded);
        projected.take(rules, event);
        let seen = before == (projected.quarantined.len(), projected.superseded);
        let frame = frames.next_if(|frame| frame.position() == event.position);
        assert_eq!(frame.is_some(), seen, "the frame of {event:?}");
        if let Some(frame) = frame {
            apply(&mut pool, frame);
        }
        assert_eq!(pool, projected.served(), "after {event:?}");
    }
    assert_eq!(frames.next(), None);
}

#[test]
fn a_change_says_what_was_set_and_what_went_away() {
    let rules = json!({"merge": "replace", "nulls": "delete", "order-by": "/v", "fields": {"status": {"default": "new"}}});
    let stream = Ruled::new("told", &rules);
    let live = stream.follow(Framing::Sse, None);
    let bodies = [
        r#"{"id":"a","v":1,"x":1}"#,
        r#"{"id":"a","v":2,"status":"old"}"#,
        r#"{"id":"a","v":1,"z":1}"#,
        r#"{"id":"a","v":3}"#,
        r#"{"id":"a","v":3,"status":null}"#,
        r#"{"id":"a","v":{}}"#,
        r#"{"id":"a","v":"4"}"#,
    ];
    let last = stream.post_all(&bodies.map(str::to_owned));
    let told: Vec<Value> = changes(live.finish(last)).iter().map(Frame::json).collect();
    let said: Vec<_> = told
        .iter()
        .map(|change| json!([change["set"], change["unset"]]))
        .collect();
    assert_eq!(
        json!(said),
        json!([
            [{"id": "a", "v": 1, "x": 1, "status": "new"}, null],
            [{"id": "a", "v": 2, "status": "old"}, ["x"]],
            [{"id": "a", "v": 3, "status": "new"}, null],
            [{"id": "a", "v": 3, "status": "new"}, null],
            [{"id": "a", "v": "4", "status": "new"}, null],
        ])
    );
    let later: Vec<Value> = stream
        .told_later(Framing::Sse, last)
        .iter()
        .map(Frame::json)
        .collect();
    assert_eq!(later, told);
}

#[test]
fn events_that_do_not_fit_are_listed_with_the_reason() {
    let rules = json!({"id": "/k", "order-by": "/v", "fields": {
        "n": {"type": "number"}, "at": {"type": "time"}, "held": {"type": "json"}, "o": {"flatten": "."},
    }});
    let stream = Ruled::new("unfit", &rules);
    let long = format!(r#"{{"k":"{}"}}"#, "x".repeat(257));
    let name = format!(r#"{{"o":{{"{}":1}}}}"#, "x".repeat(1_023));
    let cases = [
        (
            &*long,
            "the id is longer than 256 bytes or holds a control character",
        ),
        (r#"{"k":"a","n":"1 "}"#, "field n is not a number"),
        (r#"{"k":"a","at":1.5}"#, "field at is not a time"),
        (r#"{"k":"a","held":"{"}"#, "field held is not a JSON text"),
        (
            r#"{"k":"a","v":[1]}"#,
            "the value of order-by is neither a number nor a string",
        ),
        (
            &name,
            "field o can't be flattened: two fields have one name, or a name is longer than 1024 bytes",
        ),
    ];
    let bodies: Vec<String> = cases.iter().map(|(body, _)| (*body).to_owned()).collect();
    let mut last = 0;
    for body in &bodies {
        last = stream.post_all(std::slice::from_ref(body));
    }
    let (_, items) = stream.shared.server.items(&stream.name, last);
    assert!(items.is_empty(), "{items:?}");
    let listed: Value = stream.operated().get("/quarantine").expect(200).json();
    let reasons: Vec<_> = listed["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["reason"].clone())
        .collect();
    assert_eq!(reasons, cases.map(|(_, reason)| reason));
    assert_eq!(
        (&listed["generation"], &listed["next"]),
        (&json!(2), &Value::Null)
    );

    let output = stream.operated().cli(&["quarantine", "list", &stream.name]);
    let said = String::from_utf8(output.stdout).unwrap();
    for (event, (_, reason)) in listed["events"].as_array().unwrap().iter().zip(cases) {
        let line = said
            .lines()
            .find(|line| line.starts_with(&event["position"].to_string()));
        assert!(line.is_some_and(|line| line.ends_with(reason)), "{said}");
    }
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "6 events in generation 2\n"
    );
    // Followers are told of none of them.
    let frames = stream.follow(Framing::Sse, Some("earliest")).finish(last);
    assert!(named(&frames, "change").is_empty());
}
