//! `rebuild start` of several streams: what is started is told, and one that is refused stops no other.

use super::{at, ends, parsed};
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
