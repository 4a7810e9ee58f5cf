//! What was posted, and what of it is left in the log.

use std::collections::{BTreeMap, BTreeSet};

use hookpool_core::position::{Generation, Position};
use hookpool_store::{EventLog, PageRequest, memory::MemoryLog};

/// What a connector sends.
#[derive(Debug, Clone)]
pub(super) enum Sent {
    Body(String),
    /// Of this item.
    Deletion(String),
}

/// What was posted, and what of it a generation never saw since it had been dropped when the generation was begun.
#[derive(Default)]
pub(super) struct Posted {
    pub(super) bodies: Vec<(Position, Sent)>,
    pub(super) missed: BTreeMap<Generation, BTreeSet<Position>>,
}

impl Posted {
    /// What a generation is the fold of, up to a position.
    pub(super) fn seen_by(&self, generation: Generation, until: Position) -> Vec<(Position, Sent)> {
        let missed = self.missed.get(&generation);
        let seen = self.bodies.iter().filter(|(position, _)| {
            *position <= until && !missed.is_some_and(|missed| missed.contains(position))
        });
        seen.cloned().collect()
    }

    /// The same without what the log does not have any more.
    pub(super) async fn left(&self, log: &MemoryLog) -> Vec<(Position, Sent)> {
        let there = there(log).await;
        let left = self.bodies.iter();
        left.filter(|(position, _)| there.contains(position))
            .cloned()
            .collect()
    }
}

pub(super) async fn there(log: &MemoryLog) -> BTreeSet<Position> {
    let request = PageRequest {
        events_max: usize::MAX,
        bytes_max: usize::MAX,
        ..PageRequest::after(Position::ZERO)
    };
    let page = log.page(request).await.unwrap();
    page.events.iter().map(|event| event.position).collect()
}
