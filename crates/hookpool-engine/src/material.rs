//! A generation in the hands of its writer: what was touched since it was last let go, as of the last event, and what is to be committed of it.
//!
//! Each generation has one writer, so what it wrote need not be read back. A busy item is then decoded once, not once per page.

use std::sync::Arc;

use hashbrown::{HashMap, hash_map::EntryRef};
use hookpool_core::{
    event::Event,
    fold::{History, Item, Note},
    name::{ItemId, StreamName},
    plan::Ruled,
    position::Position,
    projection::{Change, Projection, Unfit},
};
use hookpool_store::{GenerationChanges, GenerationState, PoolError, PoolSnapshot};
use thiserror::Error;

use crate::retention::Trim;

/// Items and checkpoint are written as one, so only damage can part them.
#[derive(Debug, Clone, Copy, Error)]
#[error("an item is ahead of the checkpoint")]
struct AheadOfCheckpoint;

/// The pool was made by rules that are not those of the control log.
#[derive(Debug, Clone, Copy, Error)]
#[error("generation {0} was made by projection {1}, not {2}")]
struct OtherProjection(u32, u32, u32);

#[derive(Debug)]
pub(crate) struct Material {
    stream: StreamName,
    ruled: Ruled,
    pub(crate) state: GenerationState,
    /// As it is in the pool.
    committed: GenerationState,
    /// Whether the pool may have an item of it.
    stored: bool,
    /// Whether it may have a deleted one, there or in hand.
    tombstones: bool,
    held: HashMap<ItemId, Held>,
    /// About the memory that they take.
    held_bytes: usize,
    changed: Vec<ItemId>,
    /// About the memory of what waits to be committed beside the items.
    pending_bytes: usize,
    histories: Vec<(ItemId, History)>,
    notes: Vec<(Position, Note)>,
}

/// About what a note takes in memory.
const NOTE_BYTES: usize = 128;

/// An item that is in hand; at position zero it is not in the pool.
#[derive(Debug, Default)]
struct Held {
    item: Arc<Item>,
    /// Since the last commit.
    changed: bool,
}

impl Material {
    /// Takes a generation in hand where the pool has it, or begins it.
    pub(crate) fn open(
        pool: &impl PoolSnapshot,
        stream: &StreamName,
        ruled: &Ruled,
    ) -> Result<Self, PoolError> {
        let version = ruled.projection.version;
        let new = GenerationState {
            projection: version,
            ..GenerationState::default()
        };
        let state = pool.generation(stream, ruled.generation)?.unwrap_or(new);
        if state.projection != version {
            let other = OtherProjection(ruled.generation.0, state.projection, version);
            return Err(PoolError::Damaged(Arc::new(other)));
        }
        Ok(Self {
            stream: stream.clone(),
            ruled: ruled.clone(),
            stored: state.position > Position::ZERO,
            tombstones: pool.has_tombstones(stream, ruled.generation)?,
            committed: state,
            state,
            held: HashMap::new(),
            held_bytes: 0,
            pending_bytes: 0,
            changed: Vec::new(),
            histories: Vec::new(),
            notes: Vec::new(),
        })
    }

    /// The same for a generation that is built apart from the checkpoint.
    pub(crate) fn open_apart(
        pool: &impl PoolSnapshot,
        stream: &StreamName,
        ruled: &Ruled,
    ) -> Result<Self, PoolError> {
        let mut material = Self::open(pool, stream, ruled)?;
        material.state.built.get_or_insert_default();
        material.committed = material.state;
        Ok(material)
    }

    /// Another one of the same generation, for items that the first never sees. What it counts and changes is committed with the first, by
    /// [`Self::changes_with`].
    pub(crate) fn part(&self) -> Self {
        Self {
            stream: self.stream.clone(),
            ruled: self.ruled.clone(),
            stored: self.stored,
            tombstones: self.tombstones,
            state: GenerationState::default(),
            committed: GenerationState::default(),
            held: HashMap::new(),
            held_bytes: 0,
            pending_bytes: 0,
            changed: Vec::new(),
            histories: Vec::new(),
            notes: Vec::new(),
        }
    }

    pub(crate) fn ruled(&self) -> &Ruled {
        &self.ruled
    }

    pub(crate) fn projection(&self) -> Arc<Projection> {
        Arc::clone(&self.ruled.projection)
    }

    /// Takes the next event of the stream as its projection read it; what became of it, if the event does not say it. After an error
    /// the material must not be used again.
    pub(crate) fn apply(
        &mut self,
        pool: &impl PoolSnapshot,
        event: &Event,
        read: Result<&Change<'_>, &Unfit>,
    ) -> Result<Option<Note>, PoolError> {
        let note = match read {
            Ok(change) => self.change(pool, event, change)?,
            Err(unfit) => Some(Note::Quarantined(unfit.clone())),
        };
        self.state.position = event.position;
        self.state.events += 1;
        match &note {
            Some(Note::Quarantined(_)) => self.state.quarantined += 1,
            Some(Note::Superseded) => self.state.superseded += 1,
            Some(Note::Absent | Note::Adjusted { .. }) | None => {}
        }
        self.pending_bytes += note.iter().len() * NOTE_BYTES;
        let noted = note.iter().map(|note| (event.position, note.clone()));
        self.notes.extend(noted);
        Ok(note)
    }

    fn change(
        &mut self,
        pool: &impl PoolSnapshot,
        event: &Event,
        change: &Change<'_>,
    ) -> Result<Option<Note>, PoolError> {
        let projection = self.projection();
        let held = self.held(pool, &change.item_id)?;
        if held.item.position >= event.position {
            return Err(PoolError::Damaged(Arc::new(AheadOfCheckpoint)));
        }
        let was_there = held.item.is_there();
        let item = Arc::make_mut(&mut held.item);
        let before = item.memory_bytes();
        let note = item.apply(event, change, &projection);
        if item.position == event.position {
            let (history, first) = (item.take_history(), !held.changed);
            let is_there = item.is_there();
            held.changed = true;
            let after = item.memory_bytes();
            // Less where a history was taken.
            self.held_bytes = (self.held_bytes + after).saturating_sub(before);
            if let Some(history) = &history {
                self.pending_bytes += history.memory_bytes();
            }
            // Of a part alone the count may be negative, modulo 2^64.
            self.state.items = match (was_there, is_there) {
                (false, true) => self.state.items.wrapping_add(1),
                (true, false) => self.state.items.wrapping_sub(1),
                _ => self.state.items,
            };
            self.tombstones |= !is_there;
            if first {
                self.changed.push(change.item_id.as_ref().clone());
            }
            let history = history.map(|history| (change.item_id.as_ref().clone(), history));
            self.histories.extend(history);
        }
        Ok(note)
    }

    /// An item as of the last event, if there is one; it may be deleted.
    pub(crate) fn item(
        &mut self,
        pool: &impl PoolSnapshot,
        id: &ItemId,
    ) -> Result<Option<Arc<Item>>, PoolError> {
        let item = Arc::clone(&self.held(pool, id)?.item);
        Ok((item.position > Position::ZERO).then_some(item))
    }

    /// In hand, or else from the pool.
    fn held(&mut self, pool: &impl PoolSnapshot, id: &ItemId) -> Result<&mut Held, PoolError> {
        Ok(match self.held.entry_ref(id) {
            EntryRef::Occupied(held) => held.into_mut(),
            EntryRef::Vacant(place) => {
                // Where nothing is stored, nothing need be looked for.
                let (stream, generation) = (&self.stream, self.ruled.generation);
                let stored = match (self.stored, self.tombstones) {
                    (false, _) => None,
                    (true, false) => pool.item(stream, generation, id)?,
                    (true, true) => pool.touched(stream, generation, id)?,
                };
                let held = Held {
                    item: Arc::new(stored.unwrap_or_default()),
                    changed: false,
                };
                self.held_bytes += held.item.memory_bytes();
                place.insert(held)
            }
        })
    }

    /// About the memory of all that is in hand.
    pub(crate) fn held_bytes(&self) -> usize {
        self.held_bytes + self.pending_bytes
    }

    /// About the memory of what waits to be committed beside the items.
    pub(crate) fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }

    /// What a commit has to write; from then on it counts as written.
    pub(crate) fn changes(&mut self) -> GenerationChanges {
        let mut items = Vec::with_capacity(self.changed.len());
        for id in self.changed.drain(..) {
            if let Some(held) = self.held.get_mut(&id) {
                held.changed = false;
                items.push((id, Arc::clone(&held.item)));
            }
        }
        // A sorted list is written quicker.
        items.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        self.pending_bytes = 0;
        self.committed = self.state;
        self.stored |= self.state.position > Position::ZERO;
        GenerationChanges {
            stream: self.stream.clone(),
            generation: self.ruled.generation,
            state: self.state,
            items,
            histories: std::mem::take(&mut self.histories),
            notes: std::mem::take(&mut self.notes),
            dropped_histories: Vec::new(),
            dropped_notes: Vec::new(),
        }
    }

    /// What can be written before the items of the same events, of a generation that is being built: it is not read before it has caught up, and
    /// a rebuild that goes on from its last commit makes the same rows again.
    pub(crate) fn ahead_with(&mut self, part: &mut Self) -> GenerationChanges {
        debug_assert!(self.committed.built.is_some(), "nobody reads it");
        let mut changes =
            GenerationChanges::empty(&self.stream, self.ruled.generation, self.committed);
        for material in [self, part] {
            material.pending_bytes = 0;
            changes.histories.append(&mut material.histories);
            changes.notes.append(&mut material.notes);
        }
        changes
    }

    /// What a commit has to write where history is let go of; the items stay as they are.
    pub(crate) fn trimmed(&mut self, trim: Trim) -> GenerationChanges {
        let state = &mut self.state;
        state.events = state.events.saturating_sub(trim.events);
        state.superseded = state.superseded.saturating_sub(trim.superseded);
        state.quarantined = state.quarantined.saturating_sub(trim.quarantined);
        let mut changes = self.changes();
        let begins = trim.histories.iter();
        changes.dropped_histories = begins
            .map(|(id, history)| (id.clone(), history.last()))
            .collect();
        changes.dropped_notes = trim.notes;
        changes.histories.extend(trim.histories);
        changes
    }

    /// The same with those of a part.
    pub(crate) fn changes_with(&mut self, part: &mut Self) -> GenerationChanges {
        let counted = std::mem::take(&mut part.state);
        self.state.position = self.state.position.max(counted.position);
        self.state.events += counted.events;
        self.state.items = self.state.items.wrapping_add(counted.items);
        self.state.quarantined += counted.quarantined;
        self.state.superseded += counted.superseded;
        let (mut changes, others) = (self.changes(), part.changes());
        part.stored = self.stored;
        changes.items.extend(others.items);
        changes.histories.extend(others.histories);
        changes.notes.extend(others.notes);
        changes
    }

    /// Lets go of everything, which must be committed.
    pub(crate) fn forget(&mut self) {
        debug_assert!(
            self.changed.is_empty(),
            "what is not committed is not forgotten"
        );
        self.held_bytes = 0;
        self.held = HashMap::new();
    }
}

#[cfg(test)]
mod tests {
    use hookpool_core::{fold::HISTORY_EVENTS, json, position::Generation};
    use hookpool_store::{PoolStore as _, conformance::sample, memory::MemoryPool};

    use super::*;

    /// Takes events of one item after those that it took, and says how much is in hand then.
    fn take(material: &mut Material, pool: &MemoryPool, events: usize) -> usize {
        let mut event = sample::event("sales", 1, r#"{"sales":1}"#);
        event.item_id = ItemId::new("North".to_owned()).unwrap();
        for _ in 0..events {
            let position = material.state.position.plus(1_000_000);
            let event = Event {
                position,
                event: event.clone(),
            };
            let fields = json::object(&event.event.body).unwrap().fields;
            let read = material.projection();
            let read = read.read(&event, fields);
            material
                .apply(&*pool.snapshot(), &event, read.as_ref())
                .unwrap();
        }
        material.held_bytes()
    }

    fn apart(pool: &MemoryPool) -> Material {
        let ruled = Ruled {
            generation: Generation(2),
            projection: Arc::default(),
        };
        Material::open_apart(&*pool.snapshot(), &sample::stream("sales"), &ruled).unwrap()
    }

    #[test]
    fn an_item_takes_no_more_memory_with_each_history() {
        let pool = MemoryPool::default();
        let mut material = apart(&pool);
        take(&mut material, &pool, HISTORY_EVENTS);
        material.changes();
        let one = material.held_bytes();
        take(&mut material, &pool, 100 * HISTORY_EVENTS);
        material.changes();
        assert_eq!(material.held_bytes(), one);
    }

    #[test]
    fn histories_that_are_written_ahead_leave_the_state_at_the_last_commit() {
        let pool = MemoryPool::default();
        let mut material = apart(&pool);
        let mut part = material.part();
        take(&mut material, &pool, HISTORY_EVENTS);
        let ahead = material.ahead_with(&mut part);
        assert_eq!((ahead.items.len(), ahead.histories.len()), (0, 1));
        assert_eq!(
            (ahead.state.events, ahead.state.built),
            (0, Some(Position::ZERO))
        );
        material.state.built = Some(material.state.position);
        let committed = material.changes_with(&mut part);
        assert_eq!((committed.items.len(), committed.histories.len()), (1, 0));
        take(&mut material, &pool, HISTORY_EVENTS);
        let ahead = material.ahead_with(&mut part);
        assert_eq!(ahead.state, committed.state);
    }
}
