//! However its bytes come, a delivery is one event in its order, or one refusal that arrives.

use std::time::{Duration, Instant};

use super::{Stream, verbatim};
use crate::common::http::Request;
use crate::common::server::position;

const MIB: usize = 1 << 20;

/// An object of exactly this many bytes.
fn object_of(bytes: usize) -> String {
    format!(r#"{{"id":"a","x":"{}"}}"#, "x".repeat(bytes - 17))
}

#[test]
fn a_body_of_the_limit_is_accepted_chunked_or_not() {
    let stream = Stream::new("at-the-limit");
    let body = object_of(MIB);
    assert_eq!(body.len(), MIB);
    stream.post(&body).expect(202);
    stream
        .call(&stream.request().chunked(body.as_bytes(), 50_000))
        .expect(202);
    assert!(stream.log().iter().all(|event| event.body == body));
}

#[test]
fn endless_chunks_are_cut_off_at_the_limit() {
    let stream = Stream::new("endless");
    let mut connection = stream.server().connect();
    let request = stream.request().header("Transfer-Encoding", "chunked");
    connection.send(&request.encode()).unwrap();
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(1 << 16));
    let sent = (0..4096)
        .take_while(|_| connection.send(chunk.as_bytes()).is_ok())
        .count();
    assert!(sent < 4096, "256 MiB were taken");
    assert!(stream.log().is_empty());
}

#[test]
fn a_body_that_never_comes_is_answered_408() {
    let stream = Stream::new("slow-body");
    let mut connection = stream.server().connect();
    let started = Instant::now();
    connection
        .send(&stream.request().header("Content-Length", "100").encode())
        .unwrap();
    connection.send(br#"{"id":"a""#).unwrap();
    connection
        .response()
        .unwrap()
        .expect_problem(408, "BODY_TIMEOUT");
    assert!(started.elapsed() >= Duration::from_secs(9));
    assert!(stream.log().is_empty());
}

/// A server that closed on unread bytes would reset the connection, and with it the answer.
#[test]
fn a_refusal_arrives_although_the_body_was_still_coming() {
    let stream = Stream::new("refused-large");
    let body = vec![b' '; 900 << 10];
    let request = Request::post(&stream.connector.target()).body(body);
    let bytes = request.encode();
    let attempt = || {
        let mut connection = stream.server().connect();
        let begun = Instant::now();
        let sent = bytes.chunks(300 << 10).try_for_each(|part| {
            connection.send(part)?;
            std::thread::sleep(Duration::from_millis(100));
            Ok(())
        });
        // The server waits for a second. A test that was kept from sending in time may fail, and has to try again.
        let in_time = begun.elapsed() < Duration::from_millis(700);
        let answer = sent.and_then(|()| connection.response());
        (in_time || answer.is_ok()).then(|| answer.unwrap())
    };
    let answer = (0..10).find_map(|_| attempt()).expect("one was in time");
    answer.expect_problem(401, "UNAUTHORIZED");
}

#[test]
fn pipelined_deliveries_keep_their_order() {
    let stream = Stream::new("pipeline");
    let requests: Vec<Vec<u8>> = (0..50)
        .map(|n| {
            stream
                .connector
                .delivery(format!(r#"{{"id":"a","n":{n}}}"#).as_bytes())
                .encode()
        })
        .collect();
    let mut connection = stream.server().connect();
    connection.send(&requests.concat()).unwrap();
    let positions: Vec<u64> = (0..50)
        .map(|_| position(&connection.response().unwrap().expect(202)))
        .collect();
    assert!(positions.is_sorted_by(|a, b| a < b));
    assert_eq!(stream.items()["a"]["n"], verbatim("49"));
}

#[test]
fn a_delivery_split_at_every_byte_is_one_delivery() {
    let stream = Stream::new("split");
    let bytes = stream.connector.delivery(br#"{"id":"a"}"#).encode();
    let mut connection = stream.server().connect();
    for byte in bytes {
        connection.send(&[byte]).unwrap();
    }
    connection.response().unwrap().expect(202);
    assert_eq!(stream.log().len(), 1);
}
