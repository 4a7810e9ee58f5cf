//! Whoever is cut off where it holds some of two generations, or some of a snapshot, begins with a snapshot when it comes back, also if the generation
//! of its last good id is served again by then.

use std::time::Duration;

use hookpool_core::event::NewEvent;
use hookpool_store::EventLog;
use serde_json::Value;

use crate::{
    node::{Node, Shape, event, run},
    slow::{Slow, count, cursor, folded, index_of, items},
    wide::{OTHER_RULES, STREAM, id, item},
};

/// Of two kilobytes each: more than the buffers between the two sides hold.
const ITEMS: u64 = 2_000;
const SHAPE: Shape = Shape {
    view_lifetime: Duration::from_secs(60),
    ..Shape::PROMPT
};

#[test]
fn who_is_cut_off_in_a_difference_that_is_taken_back_gets_a_snapshot() {
    run(async {
        let node = started().await;
        let mut slow = Slow::ask(&node, "snapshot");
        slow.read_until(|frame| frame["event"] == "snapshot-end");
        node.put_in_force(STREAM, OTHER_RULES).await;
        slow.read_until(|frame| frame["event"] == "generation");
        slow.read_bytes(64 << 10);
        node.roll_back(STREAM).await;
        begins_with_a_snapshot(&node, slow.place());
        node.stop().await;
    });
}

#[test]
fn who_is_cut_off_in_the_snapshot_of_a_reset_gets_another_also_if_its_cursor_is_good_again() {
    run(async {
        let node = started().await;
        let begun = Slow::ask(&node, "now")
            .read_until(|frame| frame["event"] == "bookmark")
            .to_vec();
        let good = begun[0]["id"].as_str().unwrap();
        node.put_in_force(STREAM, OTHER_RULES).await;
        let mut slow = Slow::ask(&node, good);
        slow.read_until(|frame| frame["event"] == "reset");
        slow.read_bytes(64 << 10);
        assert_eq!(count(&slow.frames, "snapshot-end"), 0);
        node.roll_back(STREAM).await;
        begins_with_a_snapshot(&node, slow.place());
        node.stop().await;
    });
}

/// What was passed over before is no place to go on from in a difference.
#[test]
fn the_last_word_in_a_difference_is_no_place_to_go_on_from() {
    run(async {
        let node = started().await;
        let mut slow = Slow::ask(&node, "now&fields=padding,text");
        slow.read_until(|frame| frame["event"] == "bookmark");
        let made = node.rebuild(STREAM, OTHER_RULES).await;
        let hide = async {
            for n in 0..40 {
                node.append([hidden(n)].into_iter()).await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let promote = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            node.promote(STREAM, made).await;
        };
        tokio::join!(hide, promote);
        slow.read_until(|frame| frame["event"] == "generation");
        node.engine.status().stop();
        let frames = slow.read_until(|frame| frame["event"] == "goodbye");
        let rest = &frames[index_of(frames, "generation")..];
        assert!((rest.len() as u64) < ITEMS, "the difference is not through");
        let ids: Vec<_> = rest.iter().filter_map(cursor).collect();
        assert_eq!(ids.len(), 1, "{ids:?}");
        node.stop().await;
    });
}

#[test]
fn a_long_poll_that_begins_with_a_reset_answers_with_all_of_the_snapshot() {
    run(async {
        let node = started().await;
        let target = format!("/api/streams/{STREAM}/changes?after=of-another-life");
        let answer = node.client.poll(&target, 30);
        let frames = answer["frames"].as_array().unwrap();
        assert_eq!(frames[0]["event"], "reset");
        assert!(folded(frames) == items(&node), "other items");
        let end = frames.last().unwrap();
        assert_eq!(end["event"], "snapshot-end");
        assert_eq!(answer["cursor"], end["id"]);
        node.stop().await;
    });
}

async fn started() -> Node {
    let node = Node::start(SHAPE, &[STREAM]).await;
    node.append((0..ITEMS).map(|n| item(n, 0))).await;
    node
}

/// Changes nothing that a reader of the wide field sees.
fn hidden(n: u64) -> NewEvent {
    event(STREAM, &id(n), ITEMS + n, format!(r#"{{"n":{n}}}"#))
}

/// Of a client that comes back with this id, and gets one event more.
fn begins_with_a_snapshot(node: &Node, place: &str) {
    let until = node.log.head();
    let target = format!("/api/streams/{STREAM}/changes?after={place}&until={until}");
    let answer = node.client.get(&target);
    let frames: Vec<Value> = answer
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(frames[0]["event"], "reset", "{place}");
    assert!(folded(&frames) == items(node), "other items");
}
