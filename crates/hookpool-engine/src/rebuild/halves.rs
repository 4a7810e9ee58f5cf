//! A generation that two threads fold at once: each reads the events of its half of the items, and no other.

use std::sync::{Mutex, MutexGuard, PoisonError};

use hookpool_core::{
    event::Event,
    name::{ItemId, StreamName},
    plan::Ruled,
    position::Position,
    projection::{Change, Unfit},
};
use hookpool_store::{GenerationChanges, PoolError, PoolSnapshot};

use super::job::JobError;
use crate::material::Material;

/// Each is locked by its thread for a page, and both between two pages.
pub(super) struct Halves([Mutex<Material>; 2]);

impl Halves {
    pub(super) fn open(
        pool: &impl PoolSnapshot,
        stream: &StreamName,
        made: &Ruled,
    ) -> Result<Self, PoolError> {
        let material = Material::open_apart(pool, stream, made)?;
        let part = material.part();
        Ok(Self([Mutex::new(material), Mutex::new(part)]))
    }

    /// Takes the events of one half. Without a rule for ids, those of the other are passed over unread.
    pub(super) fn fold(
        &self,
        half: usize,
        pool: &impl PoolSnapshot,
        events: &[Event],
    ) -> Result<(), JobError> {
        let [one, other] = &self.0;
        let mut material = locked(if half == 0 { one } else { other });
        let projection = material.projection();
        let given = projection.rules().id.is_none();
        for event in events {
            if given && half_of(&event.event.item_id) != half {
                continue;
            }
            let fields = event.event.fields();
            let fields = fields.map_err(|error| JobError::Body(event.position, error))?;
            let read = projection.read(event, fields);
            if given || half_of_read(event, &read) == half {
                material.apply(pool, event, read.as_ref())?;
            }
        }
        Ok(())
    }

    /// Events that are folded.
    pub(super) fn events(&self) -> u64 {
        let [one, other] = self.locked();
        one.state.events + other.state.events
    }

    /// About the memory of all that is in hand.
    pub(super) fn held_bytes(&self) -> usize {
        let [one, other] = self.locked();
        one.held_bytes() + other.held_bytes()
    }

    /// About the memory of what waits to be committed beside the items.
    pub(super) fn pending_bytes(&self) -> usize {
        let [one, other] = self.locked();
        one.pending_bytes() + other.pending_bytes()
    }

    /// What a commit has to write, with which the log up to `at` is in the generation.
    pub(super) fn changes(&self, at: Position) -> GenerationChanges {
        let [mut one, mut other] = self.locked();
        one.state.built = Some(at);
        one.changes_with(&mut other)
    }

    /// What can be written before the items of the same events.
    pub(super) fn ahead(&self) -> GenerationChanges {
        let [mut one, mut other] = self.locked();
        one.ahead_with(&mut other)
    }

    /// Lets go of everything, which must be committed or about to be.
    pub(super) fn forget(&self) {
        for mut material in self.locked() {
            material.forget();
        }
    }

    fn locked(&self) -> [MutexGuard<'_, Material>; 2] {
        self.0.each_ref().map(locked)
    }
}

/// By the item that an event is read to be of; one that fits none is where its own id is.
fn half_of_read(event: &Event, read: &Result<Change<'_>, Unfit>) -> usize {
    half_of(match read {
        Ok(change) => &change.item_id,
        Err(_) => &event.event.item_id,
    })
}

/// Not by the last bits: ids are often numbers with a pattern.
fn half_of(id: &ItemId) -> usize {
    let sum = id.as_str().bytes().fold(0_u32, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(byte.into())
    });
    usize::from(sum.wrapping_mul(0x9e37_79b9) >> 31 == 1)
}

fn locked(material: &Mutex<Material>) -> MutexGuard<'_, Material> {
    material.lock().unwrap_or_else(PoisonError::into_inner)
}
