//! Followers go along wherever the served generation goes.

use std::io::Read;
use std::time::Duration;

use rand::Rng;
use serde_json::{Value, json};

use super::writers::Writers;
use super::{Operated, counts, counts_of, deliver, operate};
use crate::common::follower::{Follower, Framing, From, generation_of, named, state};
use crate::common::http::Request;
use crate::common::projection::{difference, project};
use crate::common::seeded;
use crate::common::server::{Connector, Data, Server, position};
use crate::common::sse::{Frame, Parser};

const STREAM: &str = "passages";

fn rules() -> Value {
    json!({"id": "/to", "merge": "replace", "nulls": "delete", "fields": {"n": {"type": "number", "default": -1}}})
}

fn bodies(count: usize) -> Vec<String> {
    let body = |n: usize| match n % 6 {
        0 => format!(r#"{{"id":"a{}","n":"none"}}"#, n % 19),
        1 => format!(
            r#"{{"id":"a{}","to":"b{}","n":"{n}","x":{{"n":{n}}}}}"#,
            n % 19,
            n % 7
        ),
        2 => format!(r#"{{"id":"a{}","to":"a{}","y":{n}}}"#, n % 19, n % 5),
        3 => format!(r#"{{"id":"a{}","n":null,"x":null}}"#, n % 19),
        _ => format!(r#"{{"id":"a{}","n":{n}.0}}"#, n % 19),
    };
    (0..count).map(body).collect()
}

fn both(stream: Operated<'_>) -> [Follower; 2] {
    let follow = |framing| Follower::start(stream.server, stream.name, framing, &From::default());
    [Framing::Sse, Framing::Ndjson].map(follow)
}

#[test]
fn followers_go_along_back_and_forth_while_writers_go_on() {
    let mut rng = seeded("followers_go_along_back_and_forth_while_writers_go_on");
    let data = Data::new();
    let server = data.serve();
    let connector = server.add_connector(STREAM, false);
    let stream = operate(&server, STREAM);
    deliver(&server, &connector, &bodies(100));
    stream.put_in_force(&rules());
    let followers = both(stream);
    let of_one = From {
        item: Some("a1"),
        ..From::default()
    };
    let of_one = Follower::start(&server, STREAM, Framing::Sse, &of_one);
    let of_a_field = From {
        field: Some("n"),
        ..From::default()
    };
    let of_a_field = [Framing::Sse, Framing::Sse, Framing::Ndjson]
        .map(|framing| Follower::start(&server, STREAM, framing, &of_a_field));
    let writers = Writers::start(&server, &connector, &bodies(97), Duration::from_millis(1));
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(rng.random_range(0..60)));
        stream.post(":rollback", &Value::Null).expect(200);
    }
    writers.finish();
    let last = position(&server.post(&connector, r#"{"id":"last"}"#).expect(202));
    let (_, items) = server.items(STREAM, last);
    assert_eq!(items, project(&rules(), &server.log(STREAM)).served());
    for follower in followers {
        let frames = follower.finish_in(2, last);
        assert_eq!(state(&frames), items);
        assert_eq!(named(&frames, "snapshot-end").len(), 1);
        assert!(named(&frames, "generation").len() > 1);
    }
    let mut one = items.clone();
    one.retain(|id, _| id == "a1");
    assert_eq!(state(&of_one.finish_in(2, last)), one);
    let mut some = items;
    for fields in some.values_mut() {
        fields.retain(|name, _| name == "n");
    }
    for follower in of_a_field {
        assert_eq!(state(&follower.finish_in(2, last)), some);
    }
}

#[test]
fn followers_go_along_from_rules_to_rules_while_writers_go_on() {
    let mut rng = seeded("followers_go_along_from_rules_to_rules_while_writers_go_on");
    let data = Data::new();
    let server = data.serve();
    let connector = server.add_connector(STREAM, false);
    let stream = operate(&server, STREAM);
    deliver(&server, &connector, &bodies(100));
    let followers = both(stream);
    let writers = Writers::start(&server, &connector, &bodies(97), Duration::from_millis(1));
    let dropping = |name: &str| json!({"fields": {name: {"drop": true}}});
    let others = [dropping("n"), dropping("x"), rules(), json!({})];
    let mut served = json!({});
    for round in 0..others.len() * 2 {
        let other = &others[round % others.len()];
        stream.start(&json!({"projection": other}));
        stream.ready();
        stream.promote(Some("*")).expect(200);
        let before = std::mem::replace(&mut served, other.clone());
        match rng.random_range(0..4) {
            0 => {
                stream.post(":rollback", &Value::Null).expect(200);
                served = before;
            }
            // Before followers are told of the one that is served now, or after.
            1 => drop(stream.post(":release", &Value::Null).expect(200)),
            2 => {
                std::thread::sleep(Duration::from_millis(rng.random_range(0..20)));
                stream.post(":release", &Value::Null).expect(200);
            }
            _ => {}
        }
    }
    writers.finish();
    let last = position(&server.post(&connector, r#"{"id":"last"}"#).expect(202));
    let (_, items) = server.items(STREAM, last);
    assert_eq!(items, project(&served, &server.log(STREAM)).served());
    let generation = stream.row()["generation"].as_u64().unwrap();
    for follower in followers {
        assert_eq!(state(&follower.finish_in(generation, last)), items);
    }
}

#[test]
fn who_follows_a_stream_without_events_goes_along_too() {
    let data = Data::new();
    let server = data.serve();
    let connector = server.add_connector(STREAM, false);
    let stream = operate(&server, STREAM);
    let followers = both(stream);
    stream.put_in_force(&rules());
    let last = deliver(&server, &connector, &bodies(30));
    let (_, items) = server.items(STREAM, last);
    assert_eq!(items, project(&rules(), &server.log(STREAM)).served());
    for follower in followers {
        let frames = follower.finish_in(2, last);
        assert_eq!(state(&frames), items);
        assert_eq!(named(&frames, "generation").len(), 1);
    }
}

#[test]
fn a_difference_that_was_kept_current_is_that_of_another_comparison() {
    let data = Data::new();
    let server = data.serve();
    let connector = server.add_connector(STREAM, false);
    let stream = operate(&server, STREAM);
    deliver(&server, &connector, &bodies(100));
    let writers = Writers::start(&server, &connector, &bodies(97), Duration::ZERO);
    stream.start(&json!({"projection": rules()}));
    stream.ready();
    std::thread::sleep(Duration::from_millis(300));
    assert!(writers.finish().accepted > 0);
    let last = position(&server.post(&connector, r#"{"id":"last"}"#).expect(202));
    server.items(STREAM, last);
    let (status, (digest, lines)) = (stream.ready(), stream.diff());
    let log = server.log(STREAM);
    assert_eq!(
        lines,
        difference(&project(&json!({}), &log), &project(&rules(), &log))
    );
    assert_eq!(counts_of(&status), counts(&lines));
    stream.act("cancel").expect(200);
    stream.start(&json!({}));
    assert_eq!(stream.ready()["diff"], status["diff"]);
    assert_eq!(stream.diff(), (digest, lines));
}

/// A snapshot that no buffer between server and client holds.
fn large(server: &Server) -> Connector {
    let connector = server.add_connector(STREAM, false);
    let text = "x".repeat(20_000);
    let body = |n: usize| format!(r#"{{"id":"a{n}","n":{n},"text":"{text}"}}"#);
    let bodies: Vec<String> = (0..600).map(body).collect();
    let last = deliver(server, &connector, &bodies);
    server.items(STREAM, last);
    connector
}

/// Asks for changes, does something else, and reads only then, up to a position.
fn read_late(server: &Server, meanwhile: impl FnOnce() -> u64) -> Vec<Frame> {
    let target = format!("/api/streams/{STREAM}/changes?heartbeat=1");
    let mut connection = server.connect();
    let request = Request::get(&target).bearer(&server.operator_key);
    let (head, mut body) = connection.follow(&request).unwrap();
    assert_eq!(head.status, 200);
    let last = meanwhile();
    let (mut parser, mut frames, mut buffer) = (Parser::default(), Vec::new(), vec![0; 64 << 10]);
    let is_last = |frame: &Frame| generation_of(frame) == Some(2) && frame.position() >= last;
    while !frames.iter().any(is_last) {
        let read = body.read(&mut buffer).unwrap();
        assert_ne!(read, 0, "the stream ended");
        frames.extend(parser.push(&buffer[..read]));
    }
    frames
}

#[test]
fn a_promotion_in_the_middle_of_a_snapshot_is_passed_after_it() {
    let data = Data::new();
    let server = data.serve();
    let connector = large(&server);
    let stream = operate(&server, STREAM);
    let frames = read_late(&server, || {
        stream.put_in_force(&rules());
        position(&server.post(&connector, r#"{"id":"last"}"#).expect(202))
    });
    assert_eq!(named(&frames, "snapshot-end").len(), 1);
    assert_eq!(named(&frames, "generation").len(), 1);
    assert_eq!(state(&frames), server.items(STREAM, 0).1);
}

#[test]
fn a_release_in_the_middle_of_a_snapshot_starts_another() {
    let data = Data::new();
    let server = data.serve();
    let connector = large(&server);
    let stream = operate(&server, STREAM);
    let frames = read_late(&server, || {
        stream.put_in_force(&rules());
        stream.post(":release", &Value::Null).expect(200);
        position(&server.post(&connector, r#"{"id":"last"}"#).expect(202))
    });
    assert_eq!(named(&frames, "snapshot-end").len(), 2);
    assert_eq!(named(&frames, "generation").len(), 0);
    let reset = named(&frames, "reset");
    assert_eq!(reset[0].json()["reason"], "other-generation");
    assert_eq!(state(&frames), server.items(STREAM, 0).1);
}
