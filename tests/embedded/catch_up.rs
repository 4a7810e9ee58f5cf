//! What it costs to read a small stream does not grow with what others wrote: the same number of blocks is read, however long the log is.
//!
//! Blocks are counted and not seconds. `HOOKPOOL_OTHERS` says how many events of others there are in the longer log; seconds are printed
//! for who wants to see them.

use std::time::{Duration, Instant};

use hookpool_core::event::Request;
use hookpool_store::EventLog;

use crate::{
    node::{Log, Node, Shape, event, run},
    number_from_env,
};

const SMALL: &str = "small";
const OTHERS: [&str; 3] = ["other-a", "other-b", "other-c"];
/// Events of the small stream, each in a block of its own.
const EVENTS: u64 = 300;
/// Events of others in one block.
const BLOCK: u64 = 1_000;

#[test]
fn catching_up_reads_no_more_blocks_in_a_longer_log() {
    let others = number_from_env("HOOKPOOL_OTHERS").unwrap_or(200_000);
    let [short, long] = [others / 100, others].map(|others| run(costs(others)));
    let blocks =
        |costs: &[(String, u64)]| -> Vec<u64> { costs.iter().map(|(_, blocks)| *blocks).collect() };
    assert_eq!(blocks(&long), blocks(&short), "{long:?}\n{short:?}");
    // Each block of the stream is read; and at the seams of pages, of which there are few, once more.
    let (least, most) = (EVENTS, EVENTS + EVENTS / 10);
    for way in &long[..4] {
        assert!((least..=most).contains(&way.1), "{way:?}");
    }
}

/// How many blocks each way of reading the small stream reads, in a log with so many events of others.
async fn costs(others: u64) -> Vec<(String, u64)> {
    let shape = Shape {
        memtable_bytes: 16 << 20,
        view_lifetime: Duration::from_secs(60),
        ..Shape::PROMPT
    };
    let [a, b, c] = OTHERS;
    let node = Node::start(shape, &[SMALL, a, b, c]).await;
    fill(&node.log, others).await;
    let head = node.log.head();
    let limit = Duration::from_secs(1_800);
    assert!(node.engine.wait_applied(head, limit).await);

    let changes = format!("/api/streams/{SMALL}/changes?until={head}&after=earliest");
    let stream = format!("/api/streams/{SMALL}");
    let mut costs = Vec::new();
    for (way, target, lines) in [
        ("changes", changes.clone(), EVENTS),
        ("where", format!("{changes}&where=n%3E=0"), EVENTS),
        ("item", format!("{changes}&item=i3"), EVENTS / 10),
        ("conflate", format!("{changes}&conflate=1"), 10),
        ("snapshot", format!("{stream}/changes?until=0"), 11),
        ("log", format!("{stream}/log?limit=1000"), EVENTS),
        ("history", format!("{stream}/items/i3/history"), 1),
    ] {
        let (before, begun) = (node.log.blocks_read(), Instant::now());
        let client = node.client.clone();
        let read = tokio::task::spawn_blocking(move || client.get(&target));
        let answer = read.await.unwrap();
        assert!(answer.lines().count() as u64 >= lines, "{way}: {answer}");
        let blocks = node.log.blocks_read() - before;
        let took = begun.elapsed();
        eprintln!(
            "{way} of {EVENTS} events beside {others} of others: {blocks} blocks, {took:.1?}"
        );
        costs.push((way.to_owned(), blocks));
    }
    node.stop().await;
    costs
}

/// An event of the small stream after every so many of others.
async fn fill(log: &Log, others: u64) {
    let mut n = 0;
    for small in 0..EVENTS {
        let mut left = others / EVENTS;
        while left > 0 {
            let events = left.min(BLOCK);
            let block = (0..events).map(|_| {
                n += 1;
                let stream = OTHERS[usize::try_from(n % 3).unwrap()];
                let id = format!("i{}", n % 1_000);
                event(stream, &id, n, format!(r#"{{"id":"{id}","n":{n}}}"#))
            });
            log.append(Request::each(block)).await.unwrap();
            left -= events;
        }
        let id = format!("i{}", small % 10);
        let body = format!(r#"{{"id":"{id}","n":{small}}}"#);
        let outcome = log
            .append(Request::each([event(SMALL, &id, n, body)]))
            .await;
        outcome.unwrap();
    }
}
