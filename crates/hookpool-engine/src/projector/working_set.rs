//! What the projector has in hand: the streams, and the items that were touched lately, as of the last commit.
//!
//! The projector is the pool's only writer, so what it wrote need not be read back. A busy item is then decoded once, not once per page.

use std::collections::{BTreeMap, BTreeSet, HashMap, btree_map};
use std::sync::Arc;

use hookpool_core::{
    event::Event,
    fold::Item,
    json::Fields,
    name::{ItemId, StreamName},
    position::{Generation, Position},
};
use hookpool_store::{Checkpoint, ItemChange, PoolChanges, PoolError, PoolSnapshot, StreamState};
use thiserror::Error;

/// Bytes of touched items after which those that were not touched since the last time are let go.
const TOUCHED_BYTES: usize = 16 << 20;

#[derive(Debug, Default)]
pub(super) struct WorkingSet {
    streams: BTreeMap<StreamName, Stream>,
    touched_bytes: usize,
}

/// Items and checkpoint are written as one, so only damage can part them.
#[derive(Debug, Clone, Copy, Error)]
#[error("an item is ahead of the checkpoint")]
struct AheadOfCheckpoint;

#[derive(Debug)]
struct Stream {
    state: StreamState,
    young: HashMap<ItemId, Arc<Item>>,
    old: HashMap<ItemId, Arc<Item>>,
}

impl WorkingSet {
    /// The items and streams that a page of events changes, as they are after it. After an error the set must not be used again.
    pub(super) fn fold(
        &mut self,
        pool: &impl PoolSnapshot,
        events: &[(&Event, Fields<'_>)],
        checkpoint: Checkpoint,
    ) -> Result<PoolChanges, PoolError> {
        let mut touched: BTreeSet<(&StreamName, &ItemId)> = BTreeSet::new();
        for (event, fields) in events {
            let (name, id) = (&event.event.stream, &event.event.item_id);
            let stream = self.stream(pool, name)?;
            stream.state.position = event.position;
            let item = stream.item(pool, name, id)?;
            if item.position >= event.position {
                return Err(PoolError::Damaged(Arc::new(AheadOfCheckpoint)));
            }
            Arc::make_mut(item).apply(event, fields);
            touched.insert((name, id));
        }
        let changes = self.changes(&touched, checkpoint);
        self.touched_bytes += changes
            .items
            .iter()
            .map(|change| change.item.text_bytes())
            .sum::<usize>();
        if self.touched_bytes > TOUCHED_BYTES {
            self.forget_old();
        }
        Ok(changes)
    }

    fn stream(
        &mut self,
        pool: &impl PoolSnapshot,
        name: &StreamName,
    ) -> Result<&mut Stream, PoolError> {
        Ok(match self.streams.entry(name.clone()) {
            btree_map::Entry::Occupied(known) => known.into_mut(),
            btree_map::Entry::Vacant(new) => {
                let state = pool.stream(name)?.unwrap_or(NEW_STREAM);
                new.insert(Stream {
                    state,
                    young: HashMap::new(),
                    old: HashMap::new(),
                })
            }
        })
    }

    fn changes(
        &self,
        touched: &BTreeSet<(&StreamName, &ItemId)>,
        checkpoint: Checkpoint,
    ) -> PoolChanges {
        let mut changes = PoolChanges {
            checkpoint,
            items: Vec::with_capacity(touched.len()),
            streams: Vec::new(),
        };
        for (name, id) in touched {
            let Some(stream) = self.streams.get(*name) else {
                continue;
            };
            let Some(item) = stream.young.get(*id) else {
                continue;
            };
            let (stream_name, id, item) = ((*name).clone(), (*id).clone(), Arc::clone(item));
            changes.items.push(ItemChange {
                stream: stream_name,
                generation: stream.state.generation,
                id,
                item,
            });
            if changes.streams.last().is_none_or(|(last, _)| last != *name) {
                changes.streams.push(((*name).clone(), stream.state));
            }
        }
        changes
    }

    fn forget_old(&mut self) {
        self.touched_bytes = 0;
        for stream in self.streams.values_mut() {
            stream.old = std::mem::take(&mut stream.young);
        }
    }
}

impl Stream {
    /// The item as of the last event, from where it is nearest; a new one counts.
    fn item(
        &mut self,
        pool: &impl PoolSnapshot,
        name: &StreamName,
        id: &ItemId,
    ) -> Result<&mut Arc<Item>, PoolError> {
        if !self.young.contains_key(id) {
            let item = match self.old.remove(id) {
                Some(item) => item,
                None => {
                    let stored = pool.item(name, self.state.generation, id)?;
                    self.state.items += u64::from(stored.is_none());
                    Arc::new(stored.unwrap_or_default())
                }
            };
            self.young.insert(id.clone(), item);
        }
        Ok(self.young.entry(id.clone()).or_default())
    }
}

const NEW_STREAM: StreamState = StreamState {
    generation: Generation::FIRST,
    items: 0,
    position: Position::ZERO,
};

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use hookpool_core::{
        event::{NewEvent, Op, RequestId},
        json,
        name::ConnectorName,
        position::Epoch,
        time::Timestamp,
    };
    use hookpool_store::{
        PoolStore,
        memory::{MemoryPool, MemorySnapshot},
    };

    use super::*;

    fn event(position: u64) -> Event {
        let body = format!(
            r#"{{"f{}":{position},"big":"{}"}}"#,
            position % 5,
            "x".repeat(1_000)
        );
        Event {
            position: Position(position),
            event: NewEvent {
                time: Timestamp(position),
                stream: StreamName::new(&format!("s{}", position % 2)).unwrap(),
                op: Op::Upsert,
                item_id: ItemId::new(format!("item-{}", position * 7 % 23)).unwrap(),
                generated_id: false,
                duplicate_keys: false,
                field_count: 2,
                connector: ConnectorName::new("c").unwrap(),
                request_id: RequestId([0; 16]),
                dedupe: None,
                body: Bytes::from(body),
            },
        }
    }

    /// Folds 400 events in pages, with `forget` called after each page, and returns the pool.
    fn pool_after(page: usize, mut forget: impl FnMut(&mut WorkingSet)) -> Arc<MemorySnapshot> {
        let (pool, mut set) = (MemoryPool::default(), WorkingSet::default());
        let events: Vec<Event> = (1..=400).map(event).collect();
        for page in events.chunks(page) {
            let parsed: Vec<_> = page
                .iter()
                .map(|event| (event, json::object(&event.event.body).unwrap().fields))
                .collect();
            let checkpoint = Checkpoint {
                epoch: Epoch(1),
                position: page.last().unwrap().position,
            };
            let changes = set.fold(&*pool.snapshot(), &parsed, checkpoint).unwrap();
            pool.commit(changes).unwrap();
            forget(&mut set);
        }
        pool.snapshot()
    }

    type Content = (StreamName, StreamState, Vec<(ItemId, Item)>);

    fn content(pool: &MemorySnapshot) -> Vec<Content> {
        let streams = pool.streams().unwrap();
        let items = |name| {
            pool.items(name, Generation::FIRST, None, usize::MAX, usize::MAX)
                .unwrap()
                .items
        };
        streams
            .iter()
            .map(|(name, state)| (name.clone(), *state, items(name)))
            .collect()
    }

    #[test]
    fn an_item_that_is_ahead_of_the_checkpoint_is_damage() {
        let pool = pool_after(10, |_| {});
        let event = event(400);
        let parsed = [(&event, json::object(&event.event.body).unwrap().fields)];
        let checkpoint = Checkpoint {
            epoch: Epoch(1),
            position: event.position,
        };
        let again = WorkingSet::default().fold(&*pool, &parsed, checkpoint);
        assert!(matches!(again, Err(PoolError::Damaged(_))));
    }

    #[test]
    fn what_is_in_hand_changes_nothing_about_the_pool() {
        let expected = content(&pool_after(1, |set| *set = WorkingSet::default()));
        assert_eq!(content(&pool_after(1, |_| {})), expected);
        assert_eq!(content(&pool_after(64, |_| {})), expected);
        assert_eq!(content(&pool_after(7, WorkingSet::forget_old)), expected);
        let mut n = 0;
        let sometimes = |set: &mut WorkingSet| {
            n += 1;
            if n % 3 == 0 {
                set.forget_old();
            }
        };
        assert_eq!(content(&pool_after(3, sometimes)), expected);
    }
}
