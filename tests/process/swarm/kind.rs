//! What the followers of a swarm ask for, and what of the log each is to be told.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::follower::Merged;
use crate::common::fold::{Event, Field, Fields, fold};
use crate::common::http::Request;
use crate::common::server::percent;

/// The stream that all follow, and the one that some follow with it.
pub(super) const STREAMS: [&str; 2] = ["swarm-a", "swarm-b"];
/// The item of those who want one.
const ITEM: &str = "i3";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Plain,
    Snapshot,
    Ndjson,
    Item,
    Selected,
    Merged,
    MergedSelected,
    Several,
    Poll,
}

/// As many of each as there are here in every nine.
pub(super) const KINDS: [Kind; 9] = [
    Kind::Plain,
    Kind::Snapshot,
    Kind::Ndjson,
    Kind::Item,
    Kind::Selected,
    Kind::Merged,
    Kind::MergedSelected,
    Kind::Several,
    Kind::Poll,
];

impl Kind {
    /// The request of the next connection.
    pub(super) fn request(self, key: &str, last_id: Option<&str>) -> Request {
        let conditions = format!(
            "where={}&where={}&fields=n,extra",
            percent("n>=5"),
            percent("kind=a")
        );
        let query = match self {
            Self::Plain | Self::Ndjson | Self::Poll => "after=earliest".to_owned(),
            Self::Snapshot => String::new(),
            Self::Item => format!("after=earliest&item={ITEM}"),
            Self::Selected => conditions,
            Self::Merged => "after=earliest&conflate=20".to_owned(),
            Self::MergedSelected => format!("conflate=20&{conditions}"),
            Self::Several => format!("stream={}&stream={}", STREAMS[1], STREAMS[0]),
        };
        let target = match self {
            Self::Several => "/api/changes".to_owned(),
            _ => format!("/api/streams/{}/changes", STREAMS[0]),
        };
        let request = Request::get(&format!("{target}?heartbeat=1&{query}")).bearer(key);
        let request = match self {
            Self::Ndjson => request.header("Accept", "application/x-ndjson"),
            Self::Poll => request
                .header("Accept", "application/json")
                .header("Prefer", "wait=1"),
            _ => request,
        };
        match last_id {
            Some(id) => request.header("Last-Event-ID", id),
            None => request,
        }
    }

    pub(super) fn streams(self) -> &'static [&'static str] {
        match self {
            Self::Several => &STREAMS,
            _ => &STREAMS[..1],
        }
    }

    /// Whether it is told each event in a frame of its own.
    pub(super) fn is_of_events(self) -> bool {
        !matches!(self, Self::Selected | Self::Merged | Self::MergedSelected)
    }

    /// Whether its frames say of how many events they are.
    pub(super) fn is_merged(self) -> bool {
        matches!(self, Self::Merged | Self::MergedSelected)
    }

    pub(super) fn starts_with_a_snapshot(self) -> bool {
        matches!(
            self,
            Self::Snapshot | Self::Selected | Self::MergedSelected | Self::Several
        )
    }

    pub(super) fn names(self, item: &str) -> bool {
        self != Self::Item || item == ITEM
    }

    /// What it is to see of an item.
    fn sees(self, id: &str, item: &Fields) -> Option<Fields> {
        if !self.names(id) {
            return None;
        }
        if !matches!(self, Self::Selected | Self::MergedSelected) {
            return Some(item.clone());
        }
        let n = match item.get("n")? {
            Field::Verbatim(text) => text.parse::<i64>().ok()?,
            Field::String(_) => return None,
        };
        let wanted = n >= 5 && item.get("kind") == Some(&Field::String("a".into()));
        let mut seen = item.clone();
        seen.retain(|name, _| name == "n" || name == "extra");
        wanted.then_some(seen)
    }
}

/// A number for an item; those of all items, xored, are a number for the pool.
pub(super) fn sum(id: &str, item: Option<&Fields>) -> u64 {
    let mut hasher = DefaultHasher::new();
    let Some(item) = item else {
        return 0;
    };
    (id, item).hash(&mut hasher);
    hasher.finish()
}

/// What the log says that a kind of follower is told of a stream.
pub(super) struct Expected {
    /// Position of each event, and the sum of what is to be seen after it.
    sums: Vec<(u64, u64)>,
    /// Positions of events that are told one by one.
    told: Vec<u64>,
    /// The same by item, and whether it is there after the event.
    of_items: BTreeMap<String, Vec<(u64, bool)>>,
}

impl Expected {
    pub(super) fn of(kind: Kind, log: &[Event]) -> Self {
        let (mut pool, mut total) = (fold(&[]), 0);
        let mut expected = Self {
            sums: Vec::new(),
            told: Vec::new(),
            of_items: BTreeMap::new(),
        };
        for event in log {
            let (id, deletes) = (&event.item_id, event.op == "delete");
            let item = pool.entry(id.clone()).or_default();
            let seen = |item: &Fields| kind.sees(id, item).filter(|_| !item.is_empty());
            let was_there = !item.is_empty();
            total ^= sum(id, seen(item).as_ref());
            if deletes {
                item.clear();
            }
            for (_, fields) in fold(std::slice::from_ref(event)) {
                item.extend(fields);
            }
            total ^= sum(id, seen(item).as_ref());
            expected.sums.push((event.position, total));
            if kind.names(id) && (was_there || !deletes) {
                expected.told.push(event.position);
                let of_item = expected.of_items.entry(id.clone()).or_default();
                of_item.push((event.position, !deletes));
            }
        }
        expected
    }

    /// Holds merged changes up to a position, from the beginning, to the events of their items: each is of as many as it says, which follow those of
    /// the change before. What is left out in between, or at the end, came and went.
    pub(super) fn check_merged(&self, merged: &[Merged], last: u64, context: &str) {
        for (item, events) in &self.of_items {
            let events = &events[..events.partition_point(|(at, _)| *at <= last)];
            let there_after = |count: usize| count > 0 && events[count - 1].1;
            let mut done = 0;
            let passed = |done: usize, begins: usize| {
                let came_and_went = !there_after(done) && !there_after(begins);
                let context = || format!("{context}: events {done} to {begins} of {item}");
                assert!(begins == done || came_and_went, "{} are lost", context());
            };
            for change in merged.iter().filter(|change| change.item == *item) {
                let end = events.partition_point(|(at, _)| *at <= change.position);
                assert_eq!(events[end - 1].0, change.position, "{context}: {change:?}");
                let begins = end
                    .checked_sub(change.events)
                    .filter(|begins| *begins >= done);
                let begins = begins.unwrap_or_else(|| panic!("{context}: twice in {change:?}"));
                passed(done, begins);
                done = end;
            }
            passed(done, events.len());
        }
    }

    /// The sum at a position.
    pub(super) fn at(&self, position: u64) -> u64 {
        let after = self.sums.partition_point(|(at, _)| *at <= position);
        after.checked_sub(1).map_or(0, |last| self.sums[last].1)
    }

    /// Positions that are told after one and up to another.
    pub(super) fn told(&self, after: u64, through: u64) -> &[u64] {
        let place = |position| self.told.partition_point(|at| *at <= position);
        &self.told[place(after)..place(through)]
    }
}
