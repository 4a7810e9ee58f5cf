//! A signed request that comes again gets its first answer and makes no second event, unless its connector allows that.

use serde_json::json;

use super::{Stream, verbatim};
use crate::common::http::Response;
use crate::common::server::{Data, position};

/// The parts of an answer that a replay has to repeat.
fn first_answer(response: &Response) -> (u16, &str, u64) {
    (response.status, response.text(), position(response))
}

#[test]
fn a_replayed_signed_request_gets_the_first_answer_and_no_second_event() {
    let stream = Stream::signed("replay");
    let request = stream.connector.delivery(br#"{"n":1}"#);
    let first = stream.call(&request).expect(202);
    let newer = stream.post(r#"{"n":2}"#).expect(202);
    for _ in 0..3 {
        let again = stream.call(&request);
        assert_eq!(first_answer(&again), first_answer(&first));
        assert_eq!(again.header("Idempotency-Replayed"), Some("true"));
    }
    assert_eq!(newer.header("Idempotency-Replayed"), None);
    assert_eq!(stream.log().len(), 2);
}

#[test]
fn a_replay_of_an_older_delivery_does_not_roll_the_item_back() {
    let stream = Stream::signed("no-roll-back");
    let older = stream.connector.delivery(br#"{"id":"a","n":1}"#);
    stream.call(&older).expect(202);
    stream.post(r#"{"id":"a","n":2}"#).expect(202);
    stream.call(&older).expect(202);
    assert_eq!(stream.items()["a"]["n"], verbatim("2"));
}

#[test]
fn concurrent_replays_make_one_event() {
    let stream = Stream::signed("concurrent-replay");
    let request = stream.connector.delivery(br#"{"n":1}"#);
    let answers: Vec<Response> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..16)
            .map(|_| scope.spawn(|| stream.call(&request)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    for answer in &answers {
        assert_eq!(first_answer(answer), first_answer(&answers[0]));
    }
    let fresh = answers
        .iter()
        .filter(|a| a.header("Idempotency-Replayed").is_none())
        .count();
    assert_eq!((fresh, stream.log().len()), (1, 1));
}

#[test]
fn where_replay_is_allowed_each_one_is_an_event() {
    let stream =
        Stream::with(json!({"stream": "replay-allowed", "signed": true, "replay": "allow"}));
    let request = stream.connector.delivery(b"{}");
    let first = stream.call(&request).expect(202);
    let second = stream.call(&request).expect(202);
    assert!(position(&second) > position(&first));
    assert_eq!(second.header("Idempotency-Replayed"), None);
    assert_eq!(stream.log().len(), 2);
}

#[test]
fn a_replay_is_recognised_after_a_stop_and_after_a_kill() {
    let data = Data::new();
    let server = data.serve();
    let connector = server.add_connector("sales", true);
    let request = connector.delivery(br#"{"no":"id"}"#);
    let first = server.call(&request).expect(202);

    let server = server.restart();
    let again = server.call(&request);
    assert_eq!(first_answer(&again), first_answer(&first));
    assert_eq!(again.header("Idempotency-Replayed"), Some("true"));

    server.kill9();
    let server = data.serve();
    let again = server.call(&request);
    assert_eq!(first_answer(&again), first_answer(&first));
    assert_eq!(server.log("sales").len(), 1);
}
