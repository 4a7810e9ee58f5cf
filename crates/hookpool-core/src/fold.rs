//! The state of an item as a fold of its events under a projection. A pure function of the events' bytes and the rules: every replay
//! gives the same item.

mod positions;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

use crate::{
    event::{Event, Op, RequestId},
    json::{Fields, Kind, Value},
    name::ConnectorName,
    position::Position,
    projection::{Change, Order, Projection, Unfit},
    time::Timestamp,
};

pub use positions::Positions;

/// Largest item, in bytes of names and values. An event that would make one larger goes to quarantine: without a bound, one sender
/// who always names new properties would make each of its events dearer than the last.
pub const ITEM_BYTES_MAX: usize = 16 << 20;

/// The event that set a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its position.
    pub position: Position,
    /// Its time.
    pub time: Timestamp,
    /// Who wrote it.
    pub connector: ConnectorName,
    /// The request it came with.
    pub request_id: RequestId,
}

impl Source {
    fn of(Event { position, event }: &Event) -> Arc<Self> {
        Arc::new(Self {
            position: *position,
            time: event.time,
            connector: event.connector.clone(),
            request_id: event.request_id,
        })
    }
}

/// A field of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// How the value is stored.
    pub kind: Kind,
    /// Its JSON text as sent.
    pub text: Box<str>,
    /// What set it.
    pub source: Arc<Source>,
}

impl Field {
    fn new(value: Value<'_>, source: Arc<Source>) -> Self {
        Self {
            kind: value.kind,
            text: value.text.into(),
            source,
        }
    }

    /// Takes another value, or the same from another event: then the text is kept.
    fn set(&mut self, value: Value<'_>, source: &Arc<Source>) {
        self.kind = value.kind;
        if *self.text != *value.text {
            self.text = value.text.into();
        }
        self.source = Arc::clone(source);
    }

    /// The value to show.
    #[must_use]
    pub fn value(&self) -> Value<'_> {
        Value {
            kind: self.kind,
            text: &self.text,
        }
    }
}

/// Current state of one item of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Item {
    /// Of the last event that touched it, also if it set nothing.
    pub position: Position,
    /// The newest value of its projection's order so far.
    pub order: Option<Order>,
    /// Positions of the events that touched it since its last [`History`], oldest first.
    pub recent: Positions,
    /// The last event that deleted it: what was before counts no more.
    pub deleted: Option<Position>,
    /// Whether there is anything of it: not before its first event, and not between a deletion and what brings it back.
    there: bool,
    /// By name, in byte order: a list, since most items are small and there are many.
    fields: Vec<(Box<str>, Field)>,
    /// Bytes of all names and values.
    text_bytes: usize,
}

/// What became of an event that the event alone does not say: what its item held before decided it. Kept with the pool, so that a
/// follower can be told of the event later without the item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// It fits the projection not at all.
    Quarantined(Unfit),
    /// It is older than what its item has seen.
    Superseded,
    /// It is a deletion, and there was nothing to delete.
    Absent,
    /// It did more than it says.
    Adjusted {
        /// Fields that got their default.
        defaulted: Vec<Box<str>>,
        /// Fields that went away with the rest of a replaced item.
        unset: Vec<Box<str>>,
    },
}

/// A stretch of the past of an item: which events touched it, and what it was after them. With it, the item at any moment is a fold
/// of less than [`HISTORY_EVENTS`] events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// [`HISTORY_EVENTS`] events, oldest first; where history was dropped, the first stretch has those that survive.
    pub positions: Positions,
    /// The item after the last of them.
    pub after: Item,
}

impl History {
    /// The last of its events.
    #[must_use]
    pub fn last(&self) -> Position {
        self.after.position
    }

    /// About what it takes in memory.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.after.memory_bytes() + self.positions.memory_bytes()
    }
}

/// Events in one [`History`].
pub const HISTORY_EVENTS: usize = 64;

impl Item {
    /// An item that was never deleted, with its fields by name, in byte order.
    #[must_use]
    pub fn new(
        position: Position,
        order: Option<Order>,
        recent: Positions,
        fields: Vec<(Box<str>, Field)>,
    ) -> Self {
        debug_assert!(fields.is_sorted_by(|(one, _), (next, _)| one < next));
        let text_bytes = fields
            .iter()
            .map(|(name, field)| size(name, &field.text))
            .sum();
        Self {
            position,
            order,
            recent,
            deleted: None,
            there: position > Position::ZERO,
            fields,
            text_bytes,
        }
    }

    /// The same with its last deletion, and whether something brought it back.
    #[must_use]
    pub fn deleted_at(self, deleted: Position, there: bool) -> Self {
        Self {
            deleted: Some(deleted),
            there,
            ..self
        }
    }

    /// Whether readers see it: it was touched, and is not deleted.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.there
    }

    /// By name, in byte order.
    #[must_use]
    pub fn fields(&self) -> &[(Box<str>, Field)] {
        &self.fields
    }

    /// A field by its name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        let place = self.place(name).ok()?;
        self.fields.get(place).map(|(_, field)| field)
    }

    /// Where a field is, or where it would be.
    fn place(&self, name: &str) -> Result<usize, usize> {
        self.fields
            .binary_search_by(|(field, _)| field.as_ref().cmp(name))
    }

    /// Bytes of all names and values: about what the item takes on the wire.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        self.text_bytes
    }

    /// About what the item takes in memory: names, values, and what holds them.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        // Its id, its place among others and one source; of a field, the list and what an allocation takes more than it was asked for.
        352 + self.text_bytes + self.fields.capacity() * 72 + self.recent.memory_bytes()
    }

    /// Takes the next event of this item, which [`Projection::read`] read, and says what the event alone does not.
    ///
    /// # Panics
    /// If the event is not after the last one: folding twice would be a wrong answer, and is a bug of the caller.
    pub fn apply(
        &mut self,
        event: &Event,
        change: &Change<'_>,
        projection: &Projection,
    ) -> Option<Note> {
        assert!(
            event.position > self.position,
            "events of an item are folded in order, once"
        );
        if change.order.is_some() && change.order < self.order {
            self.touched(event.position);
            return Some(Note::Superseded);
        }
        if self.text_bytes_with(event, change, projection) > ITEM_BYTES_MAX {
            return Some(Note::Quarantined(Unfit::TooLarge));
        }
        self.touched(event.position);
        if change.order.is_some() {
            self.order.clone_from(&change.order);
        }
        match event.event.op {
            Op::Upsert => self.upsert(&Source::of(event), change, projection),
            Op::Delete => self.delete(event.position),
        }
    }

    /// The order stays, so that what was older than the item does not bring it back.
    fn delete(&mut self, position: Position) -> Option<Note> {
        self.deleted = Some(position);
        self.fields = Vec::new();
        self.text_bytes = 0;
        let was_there = std::mem::replace(&mut self.there, false);
        (!was_there).then_some(Note::Absent)
    }

    fn touched(&mut self, position: Position) {
        self.position = position;
        self.recent.push(position);
    }

    /// The history that is full, if it is; the item then begins another.
    pub fn take_history(&mut self) -> Option<History> {
        if self.recent.len() < HISTORY_EVENTS {
            return None;
        }
        let positions = std::mem::take(&mut self.recent);
        Some(History {
            positions,
            after: self.clone(),
        })
    }

    /// What the item would have, or less where it is far from the bound: as it is, a body makes no more text than it has.
    fn text_bytes_with(
        &self,
        event: &Event,
        change: &Change<'_>,
        projection: &Projection,
    ) -> usize {
        let before = if projection.replaces() {
            0
        } else {
            self.text_bytes
        };
        if projection.is_plain() && before + event.event.body.len() <= ITEM_BYTES_MAX {
            return before;
        }
        // Only near the bound is it worth to look twice.
        let added: usize = change
            .set()
            .map(|(name, value)| size(name, value.text))
            .sum();
        if before + added <= ITEM_BYTES_MAX || projection.replaces() {
            return before + added;
        }
        let taken = change
            .set()
            .filter_map(|(name, _)| Some((name, self.field(name)?)));
        let taken: usize = taken.map(|(name, field)| size(name, &field.text)).sum();
        before + added - taken
    }

    fn upsert(
        &mut self,
        source: &Arc<Source>,
        change: &Change<'_>,
        projection: &Projection,
    ) -> Option<Note> {
        self.there = true;
        let mut unset = Vec::new();
        if projection.replaces() {
            unset = self.remove(|name| !change.sets(name));
        }
        if !change.unset.is_empty() {
            self.remove(|name| change.unset.contains(name));
        }
        self.set_all(change, source);
        let defaulted = self.set_defaults(source, projection);
        // What a default brought back did not go away.
        unset.retain(|name| self.place(name).is_err());
        (!defaulted.is_empty() || !unset.is_empty()).then_some(Note::Adjusted { defaulted, unset })
    }

    /// Takes fields away, and says which.
    fn remove(&mut self, goes: impl Fn(&str) -> bool) -> Vec<Box<str>> {
        let gone = self.fields.extract_if(.., |(name, _)| goes(name));
        let of = |(name, field): (Box<str>, Field)| {
            self.text_bytes -= size(&name, &field.text);
            name
        };
        gone.map(of).collect()
    }

    /// Both the fields and what is set are in the order of their names, and walked together.
    fn set_all(&mut self, change: &Change<'_>, source: &Arc<Source>) {
        let mut new = Vec::new();
        let mut at = 0;
        for (name, value) in change.set() {
            let rest = self.fields.get_mut(at..).unwrap_or_default();
            // Most events name what the item has: then nothing is looked for.
            let place = match rest.first() {
                Some((next, _)) if **next == *name => Ok(0),
                _ => rest.binary_search_by(|(field, _)| field.as_ref().cmp(name)),
            };
            match place.map(|place| (place, rest.get_mut(place))) {
                Ok((place, Some((_, field)))) => {
                    self.text_bytes -= field.text.len();
                    field.set(value, source);
                    at += place + 1;
                }
                Ok((place, None)) | Err(place) => {
                    self.text_bytes += name.len();
                    new.push((Box::from(name), Field::new(value, Arc::clone(source))));
                    at += place;
                }
            }
            self.text_bytes += value.text.len();
        }
        if !new.is_empty() {
            self.fields.append(&mut new);
            // Two sorted runs are merged.
            self.fields.sort_by(|(one, _), (other, _)| one.cmp(other));
        }
    }

    fn set_defaults(&mut self, source: &Arc<Source>, projection: &Projection) -> Vec<Box<str>> {
        let mut defaulted = Vec::new();
        for (name, value) in projection.defaults() {
            if let Err(place) = self.place(name) {
                self.text_bytes += size(name, value.text);
                let field = Field::new(value, Arc::clone(source));
                self.fields.insert(place, (name.into(), field));
                defaulted.push(name.into());
            }
        }
        defaulted
    }
}

fn size(name: &str, text: &str) -> usize {
    name.len() + text.len()
}

/// What an event did to the pool, from the event, its projection and the note of it: the item and its change, or `None` where it
/// changed nothing that can be seen.
///
/// # Errors
/// [`Unfit`] where an event without a note fits no item: the note is missing.
pub fn effect<'a>(
    event: &'a Event,
    fields: Fields<'a>,
    note: Option<&'a Note>,
    projection: &'a Projection,
) -> Result<Option<Change<'a>>, Unfit> {
    let (defaulted, unset) = match note {
        None => return projection.read(event, fields).map(Some),
        Some(Note::Quarantined(_) | Note::Superseded | Note::Absent) => return Ok(None),
        Some(Note::Adjusted { defaulted, unset }) => (defaulted, unset),
    };
    let mut change = projection.read(event, fields)?;
    projection.adjust(&mut change, defaulted, unset);
    Ok(Some(change))
}
