//! Commands that do several things: what is done is told, and neither one that is refused nor a reader that is gone stops the others.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::json;
use tempfile::TempDir;

use super::{LIMIT, at, ends, parsed};
use crate::common::eventually;
use crate::common::program::lines;
use crate::common::server::{Data, Server};

fn rebuilds(server: &Server, stream: &str) -> usize {
    let list = at_json(server, &format!("rebuild list {stream} --output json"));
    list["rebuilds"].as_array().unwrap().len()
}

fn at_json(server: &Server, line: &str) -> serde_json::Value {
    parsed(&ends(0, &mut at(server, line)).0)
}

fn streams_of(printed: &str) -> Vec<String> {
    let lines = printed.lines().map(parsed);
    lines
        .map(|rebuild| rebuild["stream"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn one_stream_that_is_refused_stops_no_other_and_hides_none() {
    let data = Data::new();
    let server = data.serve();
    for stream in ["s1", "s2", "s3"] {
        let connector = server.add_connector(stream, false);
        server.post(&connector, r#"{"id":"a"}"#).expect(202);
    }
    for (line, wait) in [("s1 nope s2", ""), ("nope s3", " --wait")] {
        let line = format!("rebuild start {line} --output json{wait}");
        let (printed, said) = ends(3, &mut at(&server, &line));
        let expected: &[&str] = if wait.is_empty() {
            &["s1", "s2"]
        } else {
            &["s3"]
        };
        assert_eq!(streams_of(&printed), expected, "{said}");
        assert!(said.contains("starting a rebuild of nope: "), "{said}");
        assert!(said.contains("hint: names are case-sensitive"), "{said}");
    }
    ends(0, &mut at(&server, "rebuild status s1 --wait"));
    ends(0, &mut at(&server, "rebuild promote s1 --any"));

    // As after a partial failure: the ones that wait are told, and what can be started is.
    let again = "rebuild start --all --output json";
    let (printed, said) = ends(5, &mut at(&server, again));
    assert_eq!(streams_of(&printed), ["s1"], "{said}");
    for stream in ["s2", "s3"] {
        let refused = format!("error: starting a rebuild of {stream}: ");
        assert!(said.contains(&refused), "{said}");
    }
    assert!(said.contains("hint: `hookpool rebuild promote`"), "{said}");
    assert!(said.contains("2 of 3 rebuilds failed"), "{said}");
    let counts = ["s1", "s2", "s3"].map(|stream| rebuilds(&server, stream));
    assert_eq!(counts, [2, 1, 1]);
}

#[test]
fn what_is_the_same_for_all_streams_is_told_once() {
    let data = Data::new();
    let server = data.serve();
    let mut start = at(&server, "rebuild start s1 s2");
    start.env(
        "HOOKPOOL_OPERATOR_KEY",
        format!("ok_0123456789ab_{}", "x".repeat(43)),
    );
    let (_, said) = ends(4, &mut start);
    assert_eq!(said.matches("error: ").count(), 1, "{said}");
}

/// Runs a command whose output nobody reads; how it ends.
fn ends_unread(command: &mut Command) -> Option<i32> {
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    eventually("it ends", LIMIT, || child.try_wait().unwrap()).code()
}

#[test]
fn what_was_begun_is_done_though_nobody_reads_of_it() {
    let data = Data::new();
    let server = data.serve();
    let sales = server.add_connector("sales", false);
    server.add_connector("orders", false);
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("events.ndjson");
    fs::write(&file, "{\"id\":\"a\"}\n".repeat(20)).unwrap();
    let mut send = at(&server, "send sales");
    send.arg(&file)
        .env("HOOKPOOL_INGEST_KEY", &sales.ingest_key);
    assert_eq!(ends_unread(&mut send), Some(0));
    assert_eq!(server.log("sales").len(), 20);
    let mut start = at(&server, "rebuild start sales orders");
    assert_eq!(ends_unread(&mut start), Some(0));
    assert_eq!(["sales", "orders"].map(|it| rebuilds(&server, it)), [1, 1]);
}

#[test]
fn all_streams_are_those_that_the_operator_sees() {
    let data = Data::new();
    let server = data.serve();
    for stream in ["s1", "s2"] {
        let connector = server.add_connector(stream, false);
        server.post(&connector, r#"{"id":"a"}"#).expect(202);
    }
    let reader = server.add_reader("desk", &["s1"]);
    let mut start = at(&server, "rebuild start --all --output json");
    let (printed, _) = ends(0, start.env("HOOKPOOL_READ_KEY", reader));
    assert_eq!(streams_of(&printed), ["s1", "s2"]);
}

#[test]
fn who_waits_for_a_rebuild_learns_that_it_was_cancelled() {
    let data = Data::new();
    let server = data.serve();
    let sales = server.add_connector("sales", false);
    for n in 0..100 {
        let body = format!("{{\"id\":\"{n}\"}}");
        server.post(&sales, &body).expect(202);
    }
    let mut start = at(&server, "rebuild start sales --wait --events-per-second 1");
    let start = start.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = start.spawn().unwrap();
    let said = lines(child.stderr.take().unwrap());
    assert!(said.recv_timeout(LIMIT).unwrap().contains("is started"));
    ends(0, &mut at(&server, "rebuild cancel sales"));
    let (_, told) = ends(1, &mut at(&server, "rebuild status sales --wait"));
    assert!(told.contains("of sales is cancelled"), "{told}");
    // Another one is not what it waits for.
    let slow = json!({"eventsPerSecond": 1});
    server
        .admin("POST", "streams/sales/rebuilds", &slow)
        .expect(201);
    let ended = eventually("it ends", LIMIT, || child.try_wait().unwrap());
    assert_eq!(ended.code(), Some(1));
    let told = said.recv_timeout(LIMIT).unwrap();
    assert!(told.contains("of sales is cancelled"), "{told}");
}
