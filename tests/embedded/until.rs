//! What is asked for up to a position ends there, and a long poll ends where there is a place to go on from for every stream, and not before.

use std::time::{Duration, Instant};

use hookpool_core::position::Position;
use hookpool_store::EventLog;
use serde_json::Value;

use crate::{
    node::{Node, Shape, event, run},
    slow::{Slow, count, cursor},
    wide::{OTHER_RULES, STREAM, item},
};

const OTHER: &str = "other";
const SHAPE: Shape = Shape {
    view_lifetime: Duration::from_secs(60),
    ..Shape::PROMPT
};

#[test]
fn a_stream_ends_at_a_position_that_is_of_another_one() {
    run(async {
        let node = Node::start(SHAPE, &[STREAM, OTHER]).await;
        node.append((0..3).map(|n| item(n, 0))).await;
        let until = Position(node.log.head().0 + 1);
        let ways = ["", "&item=item-000001", "&fields=n", "&conflate=50"];
        let mut followers = ways.map(|way| {
            let query = format!("earliest&until={until}&heartbeat=60{way}");
            let mut slow = Slow::ask(&node, &query);
            slow.read_until(|frame| frame["event"] == "change");
            slow
        });
        node.append([event(OTHER, "a", 9, "{}".to_owned())].into_iter())
            .await;
        assert_eq!(node.log.head(), until);
        for follower in &mut followers {
            let frames = follower.read_until(|frame| frame["event"] == "goodbye");
            let last = frames.last().unwrap();
            assert_eq!(last["data"]["reason"], "until");
        }
        node.stop().await;
    });
}

#[test]
fn a_promotion_carries_nobody_past_where_the_stream_is_to_end() {
    run(async {
        let node = Node::start(SHAPE, &[STREAM]).await;
        // Of two kilobytes each: more than the buffers between the two sides hold.
        node.append((0..4_000).map(|n| item(n % 10, n))).await;
        let until = node.log.head().0 - 500;
        let mut slow = Slow::ask(&node, &format!("earliest&until={until}"));
        slow.read_bytes(64 << 10);
        node.put_in_force(STREAM, OTHER_RULES).await;
        let frames = slow.read_until(|frame| frame["event"] == "goodbye");
        assert_eq!(count(frames, "generation"), 0);
        let last = frames.iter().rev().find_map(cursor);
        assert_eq!(last, Some((1, until)));
        node.stop().await;
    });
}

#[test]
fn a_long_poll_of_several_streams_ends_although_one_of_them_is_empty() {
    run(async {
        let node = Node::start(SHAPE, &[STREAM, OTHER]).await;
        node.append((0..3).map(|n| item(n, 0))).await;
        let target = format!("/api/changes?stream={STREAM}&stream={OTHER}&after=earliest");
        let answer = node.client.poll(&target, 30);
        let place = answer["cursor"].as_str().unwrap();
        assert_eq!(place.split(',').count(), 2, "{place}");
        node.stop().await;
    });
}

#[test]
fn a_long_poll_of_several_streams_goes_on_from_one_cursor() {
    run(async {
        let node = Node::start(SHAPE, &[STREAM, OTHER]).await;
        node.append((0..3).map(|n| item(n, 0))).await;
        let poll = |after: &str| {
            let target = format!("/api/changes?stream={STREAM}&stream={OTHER}&after={after}");
            let answer = node.client.poll(&target, 2);
            let events: Vec<_> = events(&answer).into_iter().map(str::to_owned).collect();
            (events, answer["cursor"].as_str().map(str::to_owned))
        };
        let head = node.log.head().0;
        let [last, before] = [head, head - 1].map(|at| format!("0000000000000001.1.{at}"));
        let (events, place) = poll(&before);
        assert_eq!(
            events,
            ["change"],
            "and the other stream has nothing to say"
        );
        assert_eq!(place, Some(format!("{OTHER}:{before},{STREAM}:{last}")));
        let (events, place) = poll(&last);
        assert!(events.is_empty(), "{events:?}");
        assert_eq!(place, Some(format!("{OTHER}:{last},{STREAM}:{last}")));
        // One of another log is answered by both, and not handed back.
        let (events, place) = poll("00000000000000ff.1.1");
        assert!(events.contains(&"reset".into()), "{events:?}");
        let place = place.unwrap();
        assert!(!place.contains("ff."), "{place}");
        node.stop().await;
    });
}

#[test]
fn a_long_poll_that_does_not_wait_comes_past_what_is_not_wanted() {
    run(async {
        let node = Node::start(SHAPE, &[STREAM]).await;
        // Many parts of a snapshot.
        node.append((0..2_000).map(|n| item(n, 0))).await;
        let head = node.log.head().0;
        let [end, before] = [head, head - 1].map(|at| format!("0000000000000001.1.{at}"));
        for (after, told) in [("snapshot", "snapshot-end"), (&*before, "bookmark")] {
            let target = format!("/api/streams/{STREAM}/changes?where=n%3D1&after={after}");
            let answer = node.client.poll(&target, 0);
            assert_eq!(events(&answer), [told]);
            assert_eq!(answer["cursor"], end);
        }
        node.stop().await;
    });
}

#[test]
fn a_long_poll_that_does_not_wait_reads_what_is_there() {
    let slow = Shape {
        page_delay_max: Duration::from_millis(500),
        ..SHAPE
    };
    run(async move {
        let node = Node::start(slow, &[STREAM, OTHER]).await;
        node.append((0..3).map(|n| item(n, 0))).await;
        let poll = |after: u64, query: &str| {
            let cursor = format!("0000000000000001.1.{after}");
            let target = format!("/api/streams/{STREAM}/changes?after={cursor}{query}");
            node.client.poll(&target, 0)
        };
        let head = node.log.head().0;
        let end = format!("0000000000000001.1.{head}");
        let answer = poll(head - 1, "");
        assert_eq!(events(&answer), ["change"]);
        assert_eq!(answer["cursor"], end);
        let begun = Instant::now();
        let answer = poll(head, "");
        assert!(events(&answer).is_empty(), "{answer}");
        assert_eq!(answer["cursor"], end);
        assert!(begun.elapsed() < Duration::from_secs(20), "it waits");
        // The end of what was asked for is there, too, although the stream has nothing up to it.
        let mut beside = Slow::ask(&node, "now");
        beside.read_until(|frame| frame["event"] == "bookmark");
        node.append([event(OTHER, "a", 9, "{}".to_owned())].into_iter())
            .await;
        let answer = poll(head, &format!("&until={}", head + 1));
        assert_eq!(events(&answer), ["goodbye"]);
        node.stop().await;
    });
}

#[test]
fn a_long_poll_goes_along_with_a_promotion_that_takes_longer_than_it_waits() {
    let slow = Shape {
        page_delay_max: Duration::from_secs(6),
        ..SHAPE
    };
    run(async move {
        let node = Node::start(slow, &[STREAM]).await;
        node.append((0..3).map(|n| item(n, 0))).await;
        let generation = node.rebuild(STREAM, OTHER_RULES).await;
        let head = node.log.head();
        let target = format!("/api/streams/{STREAM}/changes?after=0000000000000001.1.{head}");
        // How long each has to read of the generation before is left to chance.
        let polls = [(); 6].map(|()| {
            let (client, target) = (node.client.clone(), target.clone());
            std::thread::spawn(move || client.poll(&target, 3))
        });
        tokio::time::sleep(Duration::from_millis(300)).await;
        node.promote(STREAM, generation).await;
        for poll in polls {
            let answer = poll.join().unwrap();
            let events = events(&answer);
            assert_eq!(events.first(), Some(&"generation"), "{events:?}");
            let end = format!("0000000000000001.{generation}.{head}");
            assert_eq!(answer["cursor"], end);
        }
        node.stop().await;
    });
}

/// What sorts of frames are in the answer to a long poll.
fn events(answer: &Value) -> Vec<&str> {
    let frames = answer["frames"].as_array().unwrap().iter();
    let events = frames.map(|frame| frame["event"].as_str().unwrap());
    events.collect()
}
