//! A follower that comes back at its position now and then, and what it saw.

use std::sync::Arc;

use hookpool_core::{
    cursor::Cursor,
    event::Event,
    name::{ItemId, StreamName},
    plan::Plan,
    position::Position,
    projection::Change,
};
use hookpool_engine::follow::{Form, Step};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{Pipeline, STREAM};

/// Follows all items or one from the start and comes back at its position now and then; returns what it was to see, and what it saw, each
/// change as its line.
pub(super) async fn follow(
    engine: Arc<Pipeline>,
    form: Form,
    item: Option<&'static str>,
    seed: u64,
) -> (Option<&'static str>, Vec<String>) {
    let mut random = StdRng::seed_from_u64(seed);
    let stream = StreamName::new(STREAM).unwrap();
    let mut seen = Vec::new();
    let ruled = Plan::default().live;
    let id = item.map(|item| ItemId::new(item).unwrap());
    let follow = |after| {
        let follower = engine.follow(stream.clone(), ruled.clone(), form, after);
        follower.of_item(id.clone())
    };
    let mut follower = follow(Position::ZERO);
    loop {
        let step = tokio::select! {
            step = follower.next() => step,
            _ = engine.status().ended() => return (item, seen),
        };
        match step {
            Ok(Step::Encoded(bytes, _)) => {
                let lines = std::str::from_utf8(&bytes).unwrap().lines();
                seen.extend(lines.map(str::to_owned));
            }
            Ok(Step::Told(told)) => {
                for told in told {
                    let change = told.change(&ruled.projection).unwrap();
                    let named =
                        change.filter(|change| id.as_ref().is_none_or(|id| *id == *change.item_id));
                    seen.extend(named.map(|change| line(&told.event, &change)));
                }
            }
            Ok(Step::Passed) => {}
            Ok(Step::Retired) => panic!("nothing was promoted"),
            Err(_) => {}
        }
        if random.random_bool(0.2) {
            follower = follow(follower.position());
        }
    }
}

/// A frame is a line.
pub(super) fn encode(into: &mut Vec<u8>, cursor: &Cursor, event: &Event, change: &Change<'_>) {
    assert_eq!(cursor.position, event.position);
    into.extend_from_slice(line(event, change).as_bytes());
    into.push(b'\n');
}

fn line(event: &Event, change: &Change<'_>) -> String {
    let (position, op) = (event.position, event.event.op.as_str());
    let mut set: Vec<_> = change
        .set()
        .map(|(name, value)| format!("{name}={}", value.text))
        .collect();
    set.sort();
    format!("{position} {op} {} {}", change.item_id, set.join(" "))
}
