//! Changes for who wants some of a stream, or wants it less often: by what items were before and after.
//!
//! A condition is about an item, not about an event: an item that comes to meet it is told with all of its fields, one that ceases to
//! is told as a deletion. So what a client puts together is at every bookmark what the pool has.

use std::collections::{BTreeMap, BTreeSet};

use hookpool_core::{
    cursor::Cursor,
    difference::Difference,
    fold::Item,
    name::{ItemId, StreamName},
    position::Position,
    projection::Projection,
    selection::Selection,
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
/// Different items in one merged stretch; a longer one is told in parts.
const ITEMS_MAX: usize = 10_000;

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
    pub(super) after: Position,
    pub(super) through: Position,
    items: BTreeSet<ItemId>,
}

impl Window {
    pub(super) fn new(after: Position) -> Self {
        Self {
            after,
            through: after,
            items: BTreeSet::new(),
        }
    }

    /// Takes the next events of the stream, which go up to `through`.
    pub(super) fn add(
        &mut self,
        told: &[Told],
        through: Position,
        projection: &Projection,
        wanted: &Wanted,
    ) -> Result<(), FollowError> {
        for told in told {
            let change = told.change(projection)?;
            let named = change.filter(|change| wanted.names(&change.item_id));
            self.items
                .extend(named.map(|change| change.item_id.into_owned()));
        }
        self.through = through;
        Ok(())
    }

    pub(super) fn is_full(&self) -> bool {
        self.items.len() >= ITEMS_MAX
    }
}

/// Items as they were at the end of the last stretch.
#[derive(Debug, Default)]
pub(super) struct Known {
    items: BTreeMap<ItemId, Item>,
    bytes: usize,
}

impl Known {
    /// The frames of a window, oldest first, as a view shows what happened in it; `None` if the view does not have the generation.
    pub(super) async fn frames<L: EventLog, P: PoolStore>(
        &mut self,
        engine: &Engine<L, P>,
        view: View<P::Snapshot>,
        wanted: &Wanted,
        window: &Window,
    ) -> Result<Option<Vec<Frame>>, FollowError> {
        let (stream, stretches) = (view.stream.clone(), self.stretches(window));
        let end = engine.cursor(view.ruled.generation, window.through);
        let filled = engine.touches(view, stretches, window.after, window.through);
        let filled = filled.await?;
        Ok(filled.map(|stretches| self.frames_of(&stream, wanted, stretches, end)))
    }

    /// What has to be filled in for the items of a window.
    fn stretches(&mut self, window: &Window) -> Vec<Stretch> {
        let stretch = |id: &ItemId| {
            let known = self.items.remove(id);
            self.bytes -= known.as_ref().map_or(0, Item::memory_bytes);
            Stretch {
                id: id.clone(),
                known,
                touches: Vec::new(),
            }
        };
        window.items.iter().map(stretch).collect()
    }

    fn remember(&mut self, id: ItemId, item: Item) {
        self.bytes += item.memory_bytes();
        self.items.insert(id, item);
        if self.bytes > KNOWN_BYTES_MAX {
            *self = Self::default();
        }
    }

    /// The frames of stretches that are filled in; the ids go up to the end of their window.
    fn frames_of(
        &mut self,
        stream: &StreamName,
        wanted: &Wanted,
        stretches: Vec<Stretch>,
        end: Cursor,
    ) -> Vec<Frame> {
        let mut told = Vec::new();
        for Stretch { id, touches, .. } in stretches {
            if wanted.merged {
                told.extend(merged(stream, wanted, &id, &touches));
            } else {
                let each = touches.iter();
                told.extend(each.filter_map(|touch| single(stream, wanted, &id, touch)));
            }
            if let Some(last) = touches.into_iter().next_back() {
                self.remember(id, last.after);
            }
        }
        told.sort_by_key(|(position, _)| *position);
        let last = told.len().saturating_sub(1);
        let frames = told.into_iter().enumerate();
        frames
            .map(|(n, (position, data))| {
                // Merged frames are not in the order of events, so only all of them are a place to go on from.
                let cursor = match wanted.merged {
                    true => (n == last).then_some(end),
                    false => Some(Cursor { position, ..end }),
                };
                Frame {
                    event: "change",
                    cursor,
                    data,
                }
            })
            .collect()
    }
}

fn single(
    stream: &StreamName,
    wanted: &Wanted,
    id: &ItemId,
    touch: &Touch,
) -> Option<(Position, String)> {
    let facts = Facts {
        position: touch.event.position,
        time: touch.event.event.time,
        merged: None,
    };
    let (before, after) = (touch.before.as_ref(), Some(&touch.after));
    let data = between(stream, wanted, id, before, after, facts)?;
    Some((facts.position, data))
}

fn merged(
    stream: &StreamName,
    wanted: &Wanted,
    id: &ItemId,
    touches: &[Touch],
) -> Option<(Position, String)> {
    let counting: Vec<&Touch> = touches.iter().filter(|touch| touch.counts()).collect();
    let (first, last) = (counting.first()?, counting.last()?);
    let facts = Facts {
        position: last.event.position,
        time: last.event.event.time,
        merged: Some(counting.len()),
    };
    let (before, after) = (first.before.as_ref(), Some(&last.after));
    let data = between(stream, wanted, id, before, after, facts)?;
    Some((facts.position, data))
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
