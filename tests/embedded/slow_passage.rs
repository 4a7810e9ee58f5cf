//! A reader that stops while it goes over to another generation holds no view of the pool for long: what is left of the generation before is told
//! whole whenever it goes on, and who stopped in the difference gets a snapshot.

use std::{sync::Arc, time::Duration};

use hookpool_store::EventLog;
use serde_json::Value;

use crate::{
    node::{Node, Shape, event, is_let_go, run},
    slow::{Slow, count, cursor, folded, index_of, items},
    wide::{OTHER_RULES, STREAM, id, item},
};

const LARGE: &str = "large";
/// So many that a generation of them is not removed at once.
const LARGE_ITEMS: u64 = 20_000;
/// Of two kilobytes each: more than the buffers between the two sides hold.
const EVENTS: u64 = 4_000;
/// More than these buffers hold.
const BUFFERED: usize = 2 << 20;
const SHAPE: Shape = Shape {
    // What a reader that goes on does in one view is done in that time.
    view_lifetime: Duration::from_secs(3),
    ..Shape::PROMPT
};

#[test]
fn who_stops_in_what_is_left_of_a_generation_is_told_all_of_it_and_goes_over() {
    run(async {
        let (node, mut slow) = stopped_in_what_is_left().await;
        let last = node.log.head().0;
        let frames = slow.read_until(|frame| cursor(frame) == Some((2, last)));
        assert_eq!(told(frames), (1..=last).collect::<Vec<_>>(), "a hole");
        // It was told in a newer view than the one that was let go.
        let passage = &frames[index_of(frames, "generation")];
        assert_eq!(passage["data"]["position"], last);
        assert_eq!(cursor(passage), Some((0, last)));
        assert_eq!(count(frames, "generation"), 1);
        assert_eq!(count(frames, "reset"), 0);
        assert_eq!(folded(frames), items(&node));
        node.stop().await;
    });
}

#[test]
fn who_stops_in_what_is_left_of_a_generation_stays_where_it_is_served_again() {
    run(async {
        let (node, mut slow) = stopped_in_what_is_left().await;
        node.roll_back(STREAM).await;
        // Up to now, and one more: there it is live again.
        for n in [1, 2] {
            node.append([item(3, n)].into_iter()).await;
            let last = node.log.head().0;
            slow.read_until(|frame| cursor(frame) == Some((1, last)));
        }
        let (frames, last) = (&slow.frames, node.log.head().0);
        assert_eq!(told(frames), (1..=last).collect::<Vec<_>>(), "a hole");
        assert_eq!(count(frames, "generation"), 0);
        assert_eq!(count(frames, "reset"), 0);
        assert_eq!(folded(frames), items(&node));
        node.stop().await;
    });
}

/// What is released is not followed from then on, and is there until it is removed, which may take its time.
#[test]
fn what_is_left_of_a_generation_is_not_read_when_it_was_released() {
    run(async {
        let node = Node::start(SHAPE, &[LARGE, STREAM]).await;
        node.append((0..LARGE_ITEMS).map(|n| event(LARGE, &id(n), n, "{}".into())))
            .await;
        node.append((0..EVENTS).map(|n| item(n % 10, n))).await;
        let mut slow = Slow::ask(&node, "earliest");
        slow.read_bytes(64 << 10);
        node.put_in_force(LARGE, "{}").await;
        let rules = r#"{"fields": {"hidden": {"drop": true}}}"#;
        node.put_in_force(STREAM, rules).await;
        // One that is removed before.
        node.release(LARGE).await;
        node.release(STREAM).await;
        let hidden = r#"{"id": "item-000003", "hidden": true}"#;
        let hidden = event(STREAM, &id(3), EVENTS, hidden.into());
        node.append([hidden].into_iter()).await;
        let last = node.log.head().0;
        let frames = slow.read_until(|frame| cursor(frame) == Some((2, last)));
        assert_eq!(folded(frames), items(&node));
        let reset = &frames[index_of(frames, "reset")];
        assert_eq!(reset["data"]["reason"], "other-generation");
        assert_eq!(count(frames, "generation"), 0);
        node.stop().await;
    });
}

#[test]
fn who_stops_in_a_difference_gets_a_snapshot() {
    run(async {
        let node = Node::start(SHAPE, &[STREAM]).await;
        node.append((0..EVENTS).map(|n| item(n, 0))).await;
        let at = node.log.head().0;
        let mut slow = Slow::ask(&node, "now");
        slow.read_until(|frame| frame["event"] == "bookmark");
        node.put_in_force(STREAM, OTHER_RULES).await;
        slow.read_until(|frame| frame["event"] == "generation");
        its_view_is_let_go(&node).await;
        let last = node.log.head().0;
        let frames = slow.read_until(|frame| frame["event"] == "snapshot-end");
        let (before, rest) = frames.split_at(index_of(frames, "reset"));
        let (passage, difference) = before[index_of(before, "generation")..]
            .split_first()
            .unwrap();
        assert_eq!(cursor(passage), Some((0, at)));
        // Some of it, in its order, and nothing that says that it was all.
        let ids = difference
            .iter()
            .filter_map(|it| it["data"]["itemId"].as_str());
        let ids: Vec<_> = ids.collect();
        assert_eq!(ids, (0..ids.len() as u64).map(id).collect::<Vec<_>>());
        assert!((1..4_000).contains(&ids.len()), "{}", ids.len());
        assert!(difference.iter().all(|it| cursor(it).is_none()));
        let reset = &rest[0]["data"];
        assert_eq!(reset["reason"], "other-generation");
        assert_eq!(reset["requested"], passage["id"]);
        assert_eq!(rest.last().and_then(cursor), Some((2, last)));
        assert_eq!(folded(rest), items(&node));
        node.stop().await;
    });
}

/// A reader that stopped in what is left of the first generation, while another is served; the view that it was read from is let go, and not the newest.
async fn stopped_in_what_is_left() -> (Node, Slow) {
    let node = Node::start(SHAPE, &[STREAM]).await;
    // Few items: their difference is told at once.
    node.append((0..EVENTS).map(|n| item(n % 10, n))).await;
    let mut slow = Slow::ask(&node, "earliest");
    slow.read_bytes(64 << 10);
    node.put_in_force(STREAM, OTHER_RULES).await;
    // What was on its way, and some that was read since the other one is served.
    slow.read_bytes(BUFFERED);
    its_view_is_let_go(&node).await;
    (node, slow)
}

/// Changes items, and waits until nobody holds the view from before.
async fn its_view_is_let_go(node: &Node) {
    let view = Arc::downgrade(&node.engine.pool());
    node.append((0..100).map(|n| item(n % 10, EVENTS + n)))
        .await;
    is_let_go(&view).await;
}

/// Positions of the events that were told, all as the first generation shows them.
fn told(frames: &[Value]) -> Vec<u64> {
    let changes = frames.iter().filter(|frame| frame["event"] == "change");
    let cursors = changes.filter_map(cursor);
    let in_first = |(generation, position)| {
        assert_eq!(generation, 1, "{position}");
        position
    };
    cursors.map(in_first).collect()
}
