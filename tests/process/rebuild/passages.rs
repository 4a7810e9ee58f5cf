//! Followers go along wherever the served generation goes.

use std::time::Duration;

use rand::Rng;
use serde_json::{Value, json};

use super::writers::Writers;
use super::{Operated, counts, counts_of, deliver, operate};
use crate::common::follower::{Follower, Framing, From, named, state};
use crate::common::projection::{difference, project};
use crate::common::seeded;
use crate::common::server::{Data, position};

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
        let frames = follower.finish(last);
        assert_eq!(state(&frames), items);
        assert_eq!(named(&frames, "snapshot-end").len(), 1);
        assert!(named(&frames, "generation").len() > 1);
    }
    let mut one = items;
    one.retain(|id, _| id == "a1");
    assert_eq!(state(&of_one.finish(last)), one);
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
        let frames = follower.finish(last);
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
