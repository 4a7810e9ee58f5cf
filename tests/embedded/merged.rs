//! Who wants changes merged and is far behind: it hears that the server is there, moves on in every interval, and gets the parts of what is too much for one
//! as soon as they are made.

use std::{
    io::{BufRead, BufReader},
    time::{Duration, Instant},
};

use hookpool_store::EventLog;
use serde_json::Value;

use crate::node::{Node, Shape, event, run};

const STREAM: &str = "merged";

#[test]
fn a_server_that_merges_for_long_gives_signs_of_life() {
    let slow = Shape {
        page_delay_max: Duration::from_millis(500),
        ..Shape::PROMPT
    };
    run(async move {
        // Pages of 256 events: some six seconds of reading.
        let node = filled(slow, 6_000, 10).await;
        let lines = read(&node, 60_000, "heartbeat=1");
        let quiet = lines.iter().take_while(|line| line.is_empty()).count();
        assert!(quiet > 0, "{:?}", lines.first());
        assert_eq!(events(&lines), 6_000);
        assert_eq!(ids(&lines).len(), 1, "one interval");
        node.stop().await;
    });
}

#[test]
fn who_is_far_behind_moves_on_in_every_interval() {
    let slow = Shape {
        page_delay_max: Duration::from_millis(20),
        ..Shape::PROMPT
    };
    run(async move {
        let node = filled(slow, 20_000, 10).await;
        let lines = read(&node, 100, "heartbeat=60");
        assert_eq!(events(&lines), 20_000);
        let ids = ids(&lines);
        assert!(ids.len() > 2, "{ids:?}");
        node.stop().await;
    });
}

#[test]
fn parts_of_more_than_an_interval_holds_do_not_wait_for_the_next() {
    run(async {
        let node = filled(Shape::PROMPT, 25_000, 25_000).await;
        let begun = Instant::now();
        let lines = read(&node, 60_000, "heartbeat=60");
        assert_eq!(events(&lines), 25_000);
        assert_eq!(ids(&lines).len(), 3, "parts of 10,000 items");
        assert!(begun.elapsed() < Duration::from_secs(60));
        node.stop().await;
    });
}

/// So many events of so many items, all in the pool.
async fn filled(shape: Shape, count: u64, items: u64) -> Node {
    let node = Node::start(shape, &[STREAM]).await;
    let events = (0..count).map(|n| {
        let body = format!(r#"{{"n":{n}}}"#);
        event(STREAM, &format!("item-{}", n % items), n, body)
    });
    node.append(events).await;
    node
}

/// All lines of changes from the earliest to the last event.
fn read(node: &Node, conflate: u64, more: &str) -> Vec<String> {
    let until = node.log.head();
    let target = format!(
        "/api/streams/{STREAM}/changes?after=earliest&until={until}&conflate={conflate}&{more}"
    );
    let stream = node.client.ask(&target, 64 << 10);
    stream
        .set_read_timeout(Some(Duration::from_secs(120)))
        .unwrap();
    let lines = BufReader::new(stream).lines().map(Result::unwrap);
    // Behind the head of the answer.
    lines.skip_while(|line| !line.is_empty()).skip(1).collect()
}

fn frames(lines: &[String]) -> impl Iterator<Item = Value> {
    let lines = lines.iter().filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_str(line).unwrap())
}

/// How many events all frames together tell of.
fn events(lines: &[String]) -> u64 {
    frames(lines)
        .filter_map(|frame| frame["data"]["merged"].as_u64())
        .sum()
}

/// Where a client can go on from.
fn ids(lines: &[String]) -> Vec<String> {
    frames(lines)
        .filter_map(|frame| frame["id"].as_str().map(str::to_owned))
        .collect()
}
