//! Changes for who wants some of a stream, or wants it less often: by what items were before and after.
//!
//! A condition is about an item, not about an event: an item that comes to meet it is told with all of its fields, one that ceases to
//! is told as a deletion. So what a client puts together is at every bookmark what the pool has.

use std::{collections::BTreeMap, sync::Arc};

use hookpool_core::{
    cursor::Cursor,
    difference::Difference,
    event::Event,
    fold::Item,
    name::{ItemId, StreamName},
    position::Position,
    projection::Projection,
    selection::Selection,
    time::Timestamp,
};
use hookpool_engine::{
    follow::{FollowError, Told},
    past::{Known, Observer, Stretch},
};

use crate::{
    render::Nested,
    sse::{Facts, Frame, difference_json},
};

/// Changes that are made at once for one reader; the rest of what was read is told behind them.
pub(super) const CHANGES_BYTES_MAX: usize = 1 << 20;
/// Different items in one interval; more are told in parts.
const ITEMS_MAX: usize = 10_000;
/// What items that are at hand take in memory, in an interval both before and after it; more are told in parts.
const ITEMS_BYTES_MAX: usize = 16 << 20;

/// What a reader wants to be told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Wanted {
    /// Only this item.
    pub(super) item: Option<ItemId>,
    /// Of all items or of that one.
    pub(super) selection: Selection,
    /// Whether the events of a stretch are merged, item by item.
    pub(super) merged: bool,
    /// How nested values are told.
    pub(super) nested: Nested,
}

impl Wanted {
    /// Whether events say it all, without a look at their items.
    pub(super) fn is_of_events(&self) -> bool {
        self.selection.is_all() && !self.merged
    }

    /// Whether each event is told by what its item was before and after.
    pub(super) fn is_of_states(&self) -> bool {
        !self.selection.is_all() && !self.merged
    }

    pub(super) fn names(&self, id: &ItemId) -> bool {
        self.item.as_ref().is_none_or(|item| item == id)
    }

    /// The item, if the reader is to see it.
    pub(super) fn seen<'a>(&self, item: Option<&'a Item>) -> Option<&'a Item> {
        item.filter(|item| self.selection.takes(item))
    }
}

/// What a reader wants to be told of, of all events of a stream between two positions.
pub(super) fn stretch(
    (after, through): (Position, Position),
    told: Vec<Told>,
    projection: &Projection,
    wanted: &Wanted,
) -> Result<Stretch, FollowError> {
    let mut events = Vec::new();
    for told in told {
        let change = told.change(projection)?;
        let named = change.filter(|change| wanted.names(&change.item_id));
        if let Some(id) = named.map(|change| change.item_id.into_owned()) {
            events.push((id, told.event));
        }
    }
    Ok(Stretch {
        after,
        events,
        through,
    })
}

/// The data of a change for each event that a reader is to see.
#[derive(Debug)]
pub(super) struct Each {
    stream: StreamName,
    wanted: Arc<Wanted>,
    /// The item before the event that is happening to it, if the reader saw it.
    before: Option<Item>,
    told: Vec<(Position, String)>,
    bytes: usize,
    bytes_max: usize,
}

impl Each {
    pub(super) fn new(stream: StreamName, wanted: Arc<Wanted>, bytes_max: usize) -> Self {
        Self {
            stream,
            wanted,
            before: None,
            told: Vec::new(),
            bytes: 0,
            bytes_max,
        }
    }

    /// Each with the position of its event, oldest first.
    pub(super) fn told(self) -> Vec<(Position, String)> {
        self.told
    }
}

impl Observer for Each {
    fn before(&mut self, _id: &ItemId, item: Option<&Item>) {
        self.before = self.wanted.seen(item).cloned();
    }

    fn after(&mut self, id: &ItemId, item: &Item, event: &Event) {
        let facts = Facts {
            position: event.position,
            time: event.event.time,
            merged: None,
        };
        let (before, after) = (self.before.as_ref(), Some(item));
        if let Some(data) = between(&self.stream, &self.wanted, id, before, after, facts) {
            self.bytes += data.len();
            self.told.push((facts.position, data));
        }
    }

    fn has_room_for(&self, id: &ItemId, known: &Known) -> bool {
        let has_room = known.memory_bytes() < ITEMS_BYTES_MAX || known.get(id).is_some();
        self.bytes < self.bytes_max && has_room
    }
}

/// What happened in an interval, item by item; what items are at its end is what is known.
#[derive(Debug)]
pub(super) struct Merging {
    wanted: Arc<Wanted>,
    items: BTreeMap<ItemId, Merged>,
    bytes: usize,
}

#[derive(Debug)]
struct Merged {
    /// The item before the interval, if the reader saw it.
    before: Option<Item>,
    events: usize,
    position: Position,
    time: Timestamp,
}

impl Observer for Merging {
    fn before(&mut self, id: &ItemId, item: Option<&Item>) {
        if !self.items.contains_key(id) {
            let seen = self.wanted.seen(item);
            self.bytes += seen.map_or(0, Item::memory_bytes);
            let merged = Merged {
                before: seen.cloned(),
                events: 0,
                position: Position::ZERO,
                time: Timestamp::default(),
            };
            self.items.insert(id.clone(), merged);
        }
    }

    fn after(&mut self, id: &ItemId, _item: &Item, event: &Event) {
        if let Some(merged) = self.items.get_mut(id) {
            merged.events += 1;
            (merged.position, merged.time) = (event.position, event.event.time);
        }
    }

    /// However large an item is, what happens to it in an interval is merged.
    fn has_room_for(&self, id: &ItemId, known: &Known) -> bool {
        let bytes = self.bytes + known.memory_bytes();
        let has_room = self.items.len() < ITEMS_MAX && bytes < ITEMS_BYTES_MAX;
        has_room || self.items.contains_key(id)
    }
}

impl Merging {
    pub(super) fn new(wanted: Arc<Wanted>) -> Self {
        Self {
            wanted,
            items: BTreeMap::new(),
            bytes: 0,
        }
    }

    /// What the items take, before and after.
    pub(super) fn memory_bytes(&self, known: &Known) -> usize {
        let after = self.items.keys().filter_map(|id| known.get(id));
        self.bytes + after.map(Item::memory_bytes).sum::<usize>()
    }

    /// A frame for each item that is different from before. They are not in the order of events, so only all of them are a place to go on
    /// from: `end`.
    pub(super) fn frames(self, known: &Known, stream: &StreamName, end: Cursor) -> Vec<Frame> {
        let told = self.items.iter().filter_map(|(id, merged)| {
            let facts = Facts {
                position: merged.position,
                time: merged.time,
                merged: Some(merged.events),
            };
            // IMPORTANT: one that is not known would be told as a deletion.
            let after = known.get(id).expect("nothing is forgotten in an interval");
            let before = merged.before.as_ref();
            let data = between(stream, &self.wanted, id, before, Some(after), facts)?;
            Some((facts.position, data))
        });
        let mut told: Vec<_> = told.collect();
        told.sort_by_key(|(position, _)| *position);
        let last = told.len().saturating_sub(1);
        let frame = |(n, (_, data))| Frame {
            event: "change",
            cursor: (n == last).then_some(end),
            data,
        };
        told.into_iter().enumerate().map(frame).collect()
    }
}

/// What a reader is to be told of an item that was one thing and is another.
pub(super) fn between(
    stream: &StreamName,
    wanted: &Wanted,
    id: &ItemId,
    before: Option<&Item>,
    after: Option<&Item>,
    facts: Facts,
) -> Option<String> {
    let difference = Difference::between(wanted.seen(before), wanted.seen(after))?;
    difference_json(
        stream,
        id,
        &difference,
        &wanted.selection,
        wanted.nested,
        facts,
    )
}
