//! Changes for who wants some of a stream, or wants it less often: by what items were before and after.
//!
//! A condition is about an item, not about an event: an item that comes to meet it is told with all of its fields, one that ceases to
//! is told as a deletion. So what a client puts together is at every bookmark what the pool has.

use std::collections::BTreeMap;

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
    Engine,
    follow::{FollowError, Told},
    past::{Stretch, Touch, View},
};
use hookpool_store::{EventLog, PoolStore};

use crate::{
    render::Nested,
    sse::{Facts, Frame, difference_json},
};

/// Text of items that are remembered, in bytes: an item that is remembered need not be looked up again.
const KNOWN_BYTES_MAX: usize = 1 << 20;
/// Different items in one interval, and what they take in memory before and after it; more are told in parts.
const ITEMS_MAX: usize = 10_000;
const BYTES_MAX: usize = 16 << 20;

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

/// A stretch of a stream that is to be told.
#[derive(Debug)]
pub(super) struct Window {
    after: Position,
    /// What did something to an item that is wanted, oldest first.
    events: BTreeMap<ItemId, Vec<Event>>,
}

impl Window {
    /// All events of the stream after a position that come next.
    pub(super) fn new(
        after: Position,
        told: Vec<Told>,
        projection: &Projection,
        wanted: &Wanted,
    ) -> Result<Self, FollowError> {
        let mut events: BTreeMap<ItemId, Vec<Event>> = BTreeMap::new();
        for told in told {
            let change = told.change(projection)?;
            let named = change.filter(|change| wanted.names(&change.item_id));
            if let Some(id) = named.map(|change| change.item_id.into_owned()) {
                events.entry(id).or_default().push(told.event);
            }
        }
        Ok(Self { after, events })
    }
}

/// What happened to some items, each with its events.
pub(super) type Touched = Vec<(ItemId, Vec<Touch>)>;

/// Items as they were at the end of the last window.
#[derive(Debug, Default)]
pub(super) struct Known {
    items: BTreeMap<ItemId, Item>,
    bytes: usize,
}

impl Known {
    /// What happened in a window; `None` if the view does not have the generation.
    pub(super) async fn touches<L: EventLog, P: PoolStore>(
        &mut self,
        engine: &Engine<L, P>,
        view: View<P::Snapshot>,
        window: Window,
    ) -> Result<Option<Touched>, FollowError> {
        let events = window.events.into_iter();
        let stretches = events.map(|(id, events)| Stretch {
            known: self.take(&id),
            id,
            events,
        });
        let touched = engine.touches(view, stretches.collect(), window.after);
        let touched = touched.await?;
        for (id, touches) in touched.iter().flatten() {
            if let Some(last) = touches.last() {
                self.bytes += last.after.memory_bytes();
                self.items.insert(id.clone(), last.after.clone());
            }
        }
        Ok(touched)
    }

    fn take(&mut self, id: &ItemId) -> Option<Item> {
        let known = self.items.remove(id)?;
        self.bytes -= known.memory_bytes();
        Some(known)
    }

    /// Forgets everything where that is too much.
    pub(super) fn trim(&mut self) {
        if self.bytes > KNOWN_BYTES_MAX {
            *self = Self::default();
        }
    }
}

/// The data of a change for each event that a reader is to see, oldest first.
pub(super) fn each(
    stream: &StreamName,
    wanted: &Wanted,
    touched: &Touched,
) -> Vec<(Position, String)> {
    let mut told = Vec::new();
    for (id, touches) in touched {
        told.extend(touches.iter().filter_map(|touch| {
            let facts = Facts {
                position: touch.event.position,
                time: touch.event.event.time,
                merged: None,
            };
            let (before, after) = (touch.before.as_ref(), Some(&touch.after));
            let data = between(stream, wanted, id, before, after, facts)?;
            Some((facts.position, data))
        }));
    }
    told.sort_by_key(|(position, _)| *position);
    told
}

/// What happened in an interval, item by item.
#[derive(Debug, Default)]
pub(super) struct Merging {
    items: BTreeMap<ItemId, Merged>,
    bytes: usize,
}

#[derive(Debug)]
struct Merged {
    before: Option<Item>,
    after: Item,
    events: usize,
    position: Position,
    time: Timestamp,
}

impl Merging {
    pub(super) fn add(&mut self, touched: Touched) {
        for (id, touches) in touched {
            for touch in touches {
                self.add_one(&id, touch);
            }
        }
    }

    fn add_one(&mut self, id: &ItemId, touch: Touch) {
        self.bytes += touch.after.memory_bytes();
        let (position, time) = (touch.event.position, touch.event.event.time);
        if let Some(merged) = self.items.get_mut(id) {
            self.bytes -= merged.after.memory_bytes();
            merged.after = touch.after;
            merged.events += 1;
            (merged.position, merged.time) = (position, time);
            return;
        }
        self.bytes += touch.before.as_ref().map_or(0, Item::memory_bytes);
        let merged = Merged {
            before: touch.before,
            after: touch.after,
            events: 1,
            position,
            time,
        };
        self.items.insert(id.clone(), merged);
    }

    /// Whether more would take too much memory.
    pub(super) fn is_full(&self) -> bool {
        self.items.len() >= ITEMS_MAX || self.bytes >= BYTES_MAX
    }

    /// A frame for each item that is different from before. They are not in the order of events, so only all of them are a place to go on
    /// from: `end`.
    pub(super) fn frames(self, stream: &StreamName, wanted: &Wanted, end: Cursor) -> Vec<Frame> {
        let told = self.items.iter().filter_map(|(id, merged)| {
            let facts = Facts {
                position: merged.position,
                time: merged.time,
                merged: Some(merged.events),
            };
            let (before, after) = (merged.before.as_ref(), Some(&merged.after));
            let data = between(stream, wanted, id, before, after, facts)?;
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
