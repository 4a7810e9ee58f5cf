//! How much history of a stream is kept, and which of the events before that its items still need.
//!
//! An expired event survives if the item, as it was at the floor, is not the same without it. What is needed is chosen so that *any* part
//! of the expired events that holds it folds to the same item: it does not matter in which order the others go, how many of them are gone,
//! or which of them an older copy of the log still has.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use crate::{
    event::Event,
    fold::{Item, Note},
    json::JsonError,
    position::Position,
    projection::{Change, Projection, Unfit},
    time::Timestamp,
};

/// How much history of a stream is kept; without any limit, all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// Only events that are at most this old.
    pub max_age_seconds: Option<u64>,
    /// Only this many positions before the head.
    pub max_positions: Option<u64>,
}

impl Retention {
    /// Whether all of it is kept.
    #[must_use]
    pub fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }
}

/// Where the readable history of a stream begins: with the state that its items have there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Floor {
    /// The last expired event.
    pub position: Position,
    /// The time of it.
    pub time: Timestamp,
}

/// Why it can't be said what an item needs.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NeedsError {
    /// A body that was checked before it was appended, and is not what it was.
    #[error("read the event at position {0}: {1}")]
    Body(Position, JsonError),
    /// An event that the item names, and that does not fit it.
    #[error("read the event at position {0}: {1}, and the pool does not say so")]
    Unfit(Position, Unfit),
}

/// What an item needs of its events, found by folding all of them.
#[derive(Debug)]
pub struct Needs<'p> {
    projection: &'p Projection,
    item: Item,
    /// The event that brought the item's order.
    mark: Option<Position>,
    /// The last event that was not superseded.
    applied: Option<Position>,
    /// What took a field away that an event named as going.
    unset: BTreeMap<Box<str>, Position>,
    /// What others were superseded by.
    superseding: BTreeSet<Position>,
    superseded: BTreeSet<Position>,
}

impl<'p> Needs<'p> {
    /// Before the first event.
    #[must_use]
    pub fn new(projection: &'p Projection) -> Self {
        Self {
            projection,
            item: Item::default(),
            mark: None,
            applied: None,
            unset: BTreeMap::new(),
            superseding: BTreeSet::new(),
            superseded: BTreeSet::new(),
        }
    }

    /// Takes the next event of the item.
    ///
    /// # Errors
    /// [`NeedsError`]
    pub fn take(&mut self, event: &Event) -> Result<(), NeedsError> {
        let position = event.position;
        let change = read(event, self.projection)?;
        match self.item.apply(event, &change, self.projection) {
            Some(Note::Superseded) => {
                self.superseding.extend(self.mark);
                self.superseded.insert(position);
            }
            Some(Note::Quarantined(unfit)) => return Err(NeedsError::Unfit(position, unfit)),
            Some(Note::Adjusted { .. } | Note::Absent) | None => {
                self.applied = Some(position);
                if self.item.deleted == Some(position) {
                    // Whatever was there before is gone with it.
                    self.unset.clear();
                }
                if change.order.is_some() {
                    self.mark = Some(position);
                }
                let gone = change.unset.iter();
                self.unset
                    .extend(gone.map(|name| (Box::from(name.as_ref()), position)));
            }
        }
        self.item.recent.clear();
        Ok(())
    }

    /// The item after them.
    #[must_use]
    pub fn item(&self) -> &Item {
        &self.item
    }

    /// Those that were older than what the item had seen.
    #[must_use]
    pub fn superseded(&self) -> &BTreeSet<Position> {
        &self.superseded
    }

    /// Those that must survive.
    #[must_use]
    pub fn needed(&self) -> BTreeSet<Position> {
        let mut needed = sources(&self.item);
        needed.extend(self.item.deleted);
        needed.extend(self.mark);
        needed.extend(&self.superseding);
        // In a replaced item the absence of every other field comes from the last event, too; and what came back after a deletion, perhaps
        // without a field, must not stay away.
        let matters = self.projection.replaces() || self.item.deleted.is_some();
        needed.extend(self.applied.filter(|_| matters));
        let absent = |name: &str| self.item.field(name).is_none();
        let gone = self.unset.iter().filter(|(name, _)| absent(name));
        needed.extend(gone.map(|(_, position)| *position));
        needed
    }
}

/// The events that set its fields, the last that deleted it and the last that touched it: all that an item needs under rules that
/// [only add](Projection::only_adds).
#[must_use]
pub fn sources(item: &Item) -> BTreeSet<Position> {
    let sources = item.fields().iter();
    let mut sources: BTreeSet<_> = sources.map(|(_, field)| field.source.position).collect();
    sources.extend(item.deleted);
    sources.extend(Some(item.position).filter(|position| *position > Position::ZERO));
    sources
}

/// The proof: whether these events alone, oldest first, make this item, with what set each field, its order and its position.
///
/// # Errors
/// [`NeedsError`]
pub fn refolds(item: &Item, events: &[Event], projection: &Projection) -> Result<bool, NeedsError> {
    let mut folded = Item::default();
    for event in events {
        let change = read(event, projection)?;
        if let Some(Note::Quarantined(_)) = folded.apply(event, &change, projection) {
            return Ok(false);
        }
        folded.recent.clear();
    }
    Ok(folded.position == item.position
        && folded.order == item.order
        && folded.deleted == item.deleted
        && folded.is_there() == item.is_there()
        && folded.fields() == item.fields())
}

fn read<'a>(event: &'a Event, projection: &'a Projection) -> Result<Change<'a>, NeedsError> {
    let position = event.position;
    let fields = event.event.fields();
    let fields = fields.map_err(|error| NeedsError::Body(position, error))?;
    projection
        .read(event, fields)
        .map_err(|unfit| NeedsError::Unfit(position, unfit))
}

#[cfg(test)]
mod tests;
