//! The past of an item: what it was at a position, and what each event did to it.
//!
//! The pool keeps for each item which events touched it and, every so often, what it was then; so a moment of the past is a fold of a few
//! events, however long the history of the item or of the log is.

use std::{collections::BTreeMap, sync::Arc};

use hookpool_core::{
    event::Event,
    fold::{HISTORY_EVENTS, Item, Note},
    name::{ItemId, StreamName},
    plan::Ruled,
    position::Position,
    projection::Projection,
    time::Timestamp,
};
use hookpool_store::{
    Cause, EventLog, ItemPage, PageRequest, PoolError, PoolSnapshot, PoolStore, ReadError,
};
use thiserror::Error;
use tokio::runtime::Handle;

use crate::follow::{FollowError, follows_checkpoint, read_page};

/// A generation of a stream, with its rules, in one view of the pool.
#[derive(Debug)]
pub struct View<S> {
    /// The pool at one checkpoint.
    pub pool: Arc<S>,
    /// The stream.
    pub stream: StreamName,
    /// Which generation of it.
    pub ruled: Ruled,
}

impl<S> Clone for View<S> {
    fn clone(&self) -> Self {
        Self {
            pool: Arc::clone(&self.pool),
            stream: self.stream.clone(),
            ruled: self.ruled.clone(),
        }
    }
}

impl<S: PoolSnapshot> View<S> {
    /// An item as it is now; `None` if it is not there.
    ///
    /// # Errors
    /// [`PoolError`]
    pub fn item(&self, id: &ItemId) -> Result<Option<Item>, PoolError> {
        self.pool.item(&self.stream, self.ruled.generation, id)
    }

    /// Items that are there now, as [`PoolSnapshot::items`] gives them.
    ///
    /// # Errors
    /// [`PoolError`]
    pub fn items(
        &self,
        after: Option<&ItemId>,
        limit: usize,
        bytes_max: usize,
    ) -> Result<ItemPage, PoolError> {
        let generation = self.ruled.generation;
        self.pool
            .items(&self.stream, generation, after, limit, bytes_max)
    }

    /// All items that there ever were, as they are now: who reads the past needs those too that are deleted since.
    ///
    /// # Errors
    /// [`PoolError`]
    pub fn touched_items(
        &self,
        after: Option<&ItemId>,
        limit: usize,
        bytes_max: usize,
    ) -> Result<ItemPage, PoolError> {
        let generation = self.ruled.generation;
        self.pool
            .touched_items(&self.stream, generation, after, limit, bytes_max)
    }
}

/// Items as they were at a moment, as far as was looked for them.
#[derive(Debug, Default)]
pub struct PastPage {
    /// Those that were there then, in byte order of their ids.
    pub items: Vec<(ItemId, Item)>,
    /// How many items were looked at: of those that came later, or were deleted before, nothing is to be seen.
    pub looked_at: usize,
    /// The last one of them, behind which the next page begins.
    pub after: Option<ItemId>,
    /// Whether more may follow.
    pub more: bool,
}

impl From<ItemPage> for PastPage {
    /// Items as they are now: each that was looked at is there.
    fn from(page: ItemPage) -> Self {
        Self {
            looked_at: page.items.len(),
            after: page.items.last().map(|(id, _)| id.clone()),
            items: page.items,
            more: page.more,
        }
    }
}

/// The past of a stream, to be read on a thread that may block.
///
/// A view may name events that were dropped after it was made. A newer one does not need them, and says the same of every moment that can still
/// be read.
pub(crate) struct Past<L, P: PoolStore> {
    pub(crate) log: Arc<L>,
    pub(crate) pool: Arc<P>,
    pub(crate) view: View<P::Snapshot>,
    pub(crate) runtime: Handle,
}

/// A page of what happened to an item ends behind the touch with which it takes as much in memory: each holds the whole item twice.
const TOUCHES_BYTES: usize = 4 << 20;
/// Newer views that are tried before what is missing counts as damage.
const RENEWALS_MAX: usize = 3;
/// Items that are remembered from one stretch to the next take as much in memory.
const KNOWN_BYTES_MAX: usize = 1 << 20;

impl<L: EventLog, P: PoolStore> Past<L, P> {
    /// An item as it was at a position; `None` if it was not there.
    pub(crate) fn item_at(
        &mut self,
        id: &ItemId,
        at: Position,
    ) -> Result<Option<Item>, FollowError> {
        let touched = self.touched_at(id, at)?;
        Ok(touched.filter(Item::is_there))
    }

    /// The same, there or deleted; `None` before its first event.
    pub(crate) fn touched_at(
        &mut self,
        id: &ItemId,
        at: Position,
    ) -> Result<Option<Item>, FollowError> {
        self.read(|log, view, runtime| {
            let walk = runtime.block_on(Walk::from(log, view, id, at))?;
            Ok(walk.item().cloned())
        })
    }

    /// The events after a position that touched an item, at most `limit` and fewer of a large item, but one if there is one; and whether more
    /// follow.
    pub(crate) fn touches(
        &mut self,
        id: &ItemId,
        after: Position,
        limit: usize,
    ) -> Result<(Vec<Touch>, bool), FollowError> {
        self.read(|log, view, runtime| {
            runtime.block_on(async {
                let mut walk = Walk::from(log, view, id, after).await?;
                let (mut touches, mut bytes) = (Vec::new(), 0);
                while touches.len() < limit && bytes < TOUCHES_BYTES {
                    let Some(touch) = walk.next().await? else {
                        return Ok((touches, false));
                    };
                    bytes += touch.memory_bytes();
                    touches.push(touch);
                }
                Ok((touches, walk.peek()?.is_some()))
            })
        })
    }

    /// Applies events to their items, in order, as long as the observer has room. What an item was before is looked up where it is not known.
    pub(crate) fn fold<O: Observer>(
        &mut self,
        mut known: Known,
        stretch: Stretch,
        mut observer: O,
    ) -> Result<Folded<O>, FollowError> {
        let Stretch {
            after,
            events,
            mut through,
        } = stretch;
        let mut reached = after;
        for (id, event) in events {
            if !observer.has_room_for(&id, &known) {
                through = reached;
                break;
            }
            let mut item = match known.take(&id) {
                Some(item) => item,
                None => self.touched_at(&id, after)?.unwrap_or_default(),
            };
            observer.before(&id, there_or_deleted(&item));
            apply(&event, &mut item, &self.view.ruled.projection)?;
            observer.after(&id, &item, &event);
            known.put(id, item);
            reached = event.position;
        }
        Ok(Folded {
            known,
            observer,
            through,
        })
    }

    fn read<T>(
        &mut self,
        mut read: impl FnMut(&L, &View<P::Snapshot>, &Handle) -> Result<T, FollowError>,
    ) -> Result<T, FollowError> {
        for _ in 0..RENEWALS_MAX {
            match read(&self.log, &self.view, &self.runtime) {
                Err(FollowError::Read(ReadError::Damaged { .. })) if self.renew()? => {}
                outcome => return outcome,
            }
        }
        read(&self.log, &self.view, &self.runtime)
    }

    /// Takes the newest view, if it is another one and all of the generation is in it: of one that is being removed some is.
    fn renew(&mut self) -> Result<bool, PoolError> {
        let (newest, view) = (self.pool.snapshot(), &mut self.view);
        let newer = !Arc::ptr_eq(&newest, &view.pool)
            && follows_checkpoint(&*newest, &view.stream, view.ruled.generation)?;
        if newer {
            view.pool = newest;
        }
        Ok(newer)
    }
}

/// An event that touched an item, and the item before and after it.
#[derive(Debug, Clone)]
pub struct Touch {
    /// The event.
    pub event: Event,
    /// Whether it was older than what the item had seen, and changed nothing.
    pub superseded: bool,
    /// Before it, there or deleted; `None` if it is the first.
    pub before: Option<Item>,
    /// After it, there or deleted.
    pub after: Item,
}

impl Touch {
    /// Lets an event happen to its item.
    fn of(event: Event, item: &mut Item, projection: &Projection) -> Result<Self, FollowError> {
        let before = there_or_deleted(item).cloned();
        let superseded = apply(&event, item, projection)?;
        Ok(Self {
            event,
            superseded,
            before,
            after: item.clone(),
        })
    }

    /// About what it takes in memory.
    fn memory_bytes(&self) -> usize {
        let before = self.before.as_ref().map_or(0, Item::memory_bytes);
        before + self.after.memory_bytes() + self.event.event.body.len()
    }
}

/// `None` before its first event.
fn there_or_deleted(item: &Item) -> Option<&Item> {
    Some(item).filter(|item| item.position > Position::ZERO)
}

/// Lets an event happen to its item, and says whether it came too late.
fn apply(event: &Event, item: &mut Item, projection: &Projection) -> Result<bool, FollowError> {
    let position = event.position;
    let fields = event.event.fields();
    let fields = fields.map_err(|error| FollowError::Body(position, error))?;
    let change = projection
        .read(event, fields)
        .map_err(|unfit| FollowError::Unfit(position, unfit))?;
    let note = item.apply(event, &change, projection);
    item.recent.clear();
    Ok(note == Some(Note::Superseded))
}

/// Items of a generation as they were at one moment, as far as somebody looked at them.
#[derive(Debug, Default)]
pub struct Known {
    items: BTreeMap<ItemId, Item>,
    bytes: usize,
}

impl Known {
    /// One of them, there or deleted; before its first event its position is zero.
    #[must_use]
    pub fn get(&self, id: &ItemId) -> Option<&Item> {
        self.items.get(id)
    }

    /// About what they take in memory.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.bytes
    }

    /// Forgets everything where that is more than is worth remembering: an item that is remembered need not be looked up again.
    pub fn forget_if_large(&mut self) {
        if self.bytes > KNOWN_BYTES_MAX {
            *self = Self::default();
        }
    }

    fn take(&mut self, id: &ItemId) -> Option<Item> {
        let item = self.items.remove(id)?;
        self.bytes -= item.memory_bytes();
        Some(item)
    }

    fn put(&mut self, id: ItemId, item: Item) {
        self.bytes += item.memory_bytes();
        self.items.insert(id, item);
    }
}

/// A stretch of a stream.
#[derive(Debug)]
pub struct Stretch {
    /// The position that it comes after.
    pub after: Position,
    /// Its events that did something to an item that is wanted, each with the item, oldest first.
    pub events: Vec<(ItemId, Event)>,
    /// Its end.
    pub through: Position,
}

impl Stretch {
    /// What is looked at to fold it, in bytes: for each event its item, as far as that is known, and all that events before it may have added.
    pub(crate) fn bytes(&self, known: &Known) -> usize {
        let mut bodies = 0;
        let of_each = |(id, event): &(ItemId, Event)| {
            bodies += event.event.body.len();
            bodies + known.get(id).map_or(0, Item::memory_bytes)
        };
        self.events.iter().map(of_each).sum()
    }
}

/// Is told what events do to items, one event at a time: who keeps of each only what it needs takes little memory, however large they are.
pub trait Observer: Send + 'static {
    /// An item to which an event is about to happen, there or deleted; `None` if it is its first.
    fn before(&mut self, id: &ItemId, item: Option<&Item>);

    /// The same item behind that event.
    fn after(&mut self, id: &ItemId, item: &Item, event: &Event);

    /// Whether another event may happen to this item: not where what it keeps and the items that are known are as much as should be in memory
    /// at once. Who begins, with no more known than is remembered, has room.
    fn has_room_for(&self, id: &ItemId, known: &Known) -> bool;
}

/// What came of a stretch.
#[derive(Debug)]
pub struct Folded<O> {
    /// The items that were known, and those of the events, as they were behind what was told.
    pub known: Known,
    /// Who was told.
    pub observer: O,
    /// Up to where it was told: to the end of the stretch, unless there was no room for more.
    pub through: Position,
}

/// An event that the pool names is not in the log.
#[derive(Debug, Clone, Copy, Error)]
#[error("the event at position {0} is not there")]
struct Missing(Position);

/// An event of an item is in the log, and the pool does not know of it.
#[derive(Debug, Clone, Copy, Error)]
#[error("the event at position {0} is in no item")]
struct Unknown(Position);

/// Walks through the past of an item, oldest event first. Calls may block for the time of some disk accesses.
pub(crate) struct Walk<'a, L, S> {
    log: &'a L,
    view: &'a View<S>,
    id: &'a ItemId,
    item: Item,
    /// Positions of events to come, last first.
    coming: Vec<Position>,
    /// Up to where positions are known.
    known: Position,
}

impl<'a, L: EventLog, S: PoolSnapshot> Walk<'a, L, S> {
    /// The item as it was at a position, ready to go on from there.
    pub(crate) async fn from(
        log: &'a L,
        view: &'a View<S>,
        id: &'a ItemId,
        at: Position,
    ) -> Result<Self, FollowError> {
        let generation = view.ruled.generation;
        let history = view.pool.history_until(&view.stream, generation, id, at)?;
        let item = history.map(|history| history.after).unwrap_or_default();
        let mut walk = Self {
            log,
            view,
            id,
            known: item.position,
            item,
            coming: Vec::new(),
        };
        while walk.peek()?.is_some_and(|position| position <= at) {
            if let Some(event) = walk.take().await? {
                apply(&event, &mut walk.item, &view.ruled.projection)?;
            }
        }
        Ok(walk)
    }

    /// What it is where the walk is, there or deleted; `None` before its first event.
    pub(crate) fn item(&self) -> Option<&Item> {
        there_or_deleted(&self.item)
    }

    /// The next event that touched it.
    pub(crate) async fn next(&mut self) -> Result<Option<Touch>, FollowError> {
        let Some(event) = self.take().await? else {
            return Ok(None);
        };
        Touch::of(event, &mut self.item, &self.view.ruled.projection).map(Some)
    }

    async fn take(&mut self) -> Result<Option<Event>, FollowError> {
        let Some(position) = self.peek()? else {
            return Ok(None);
        };
        self.coming.pop();
        event_at(self.log, &self.view.stream, position)
            .await
            .map(Some)
    }

    fn peek(&mut self) -> Result<Option<Position>, FollowError> {
        if self.coming.is_empty() {
            self.coming = self.positions()?;
            self.coming.retain(|position| *position > self.known);
            self.known = self.coming.last().copied().unwrap_or(self.known);
            self.coming.reverse();
        }
        Ok(self.coming.last().copied())
    }

    /// Of the next stretch.
    fn positions(&self) -> Result<Vec<Position>, FollowError> {
        let View {
            pool,
            stream,
            ruled,
        } = self.view;
        let history = pool.history_after(stream, ruled.generation, self.id, self.known)?;
        if let Some(history) = history {
            return Ok(history.positions.iter().collect());
        }
        let item = pool.touched(stream, ruled.generation, self.id)?;
        let recent = item.map(|item| item.recent).unwrap_or_default();
        debug_assert!(recent.len() < HISTORY_EVENTS, "a full history is a row");
        Ok(recent.iter().collect())
    }
}

/// An event that the pool names.
pub(crate) async fn event_at(
    log: &impl EventLog,
    stream: &StreamName,
    position: Position,
) -> Result<Event, FollowError> {
    let before = Position(position.0 - 1);
    let request = PageRequest {
        until: position,
        events_max: 1,
        ..PageRequest::of_stream(stream.clone(), before)
    };
    let mut page = log.page(request).await?;
    let damaged = || ReadError::Damaged {
        after: before,
        cause: Arc::new(Missing(position)) as Cause,
    };
    Ok(page.events.pop().ok_or_else(damaged)?)
}

/// The events of an item up to a position that the pool names: all that touched it, but for those that were dropped.
pub(crate) fn named_until(
    view: &View<impl PoolSnapshot>,
    id: &ItemId,
    until: Position,
) -> Result<Vec<Position>, PoolError> {
    let (View { pool, stream, .. }, generation) = (view, view.ruled.generation);
    let (mut named, mut known) = (Vec::new(), Position::ZERO);
    while known < until {
        let history = pool.history_after(stream, generation, id, known)?;
        let (positions, last) = match history {
            Some(history) => {
                let last = history.last();
                (history.positions, last)
            }
            None => {
                let item = pool.touched(stream, generation, id)?;
                (item.map(|item| item.recent).unwrap_or_default(), until)
            }
        };
        // A stretch may name again what was before the floor.
        let new = positions.iter();
        named.extend(new.filter(|position| *position > known && *position <= until));
        known = last;
    }
    Ok(named)
}

/// Whether the pool names an event of an item.
pub(crate) fn is_named(
    view: &View<impl PoolSnapshot>,
    id: &ItemId,
    position: Position,
) -> Result<bool, PoolError> {
    let (View { pool, stream, .. }, generation) = (view, view.ruled.generation);
    let before = Position(position.0 - 1);
    if let Some(history) = pool.history_after(stream, generation, id, before)? {
        return Ok(history.positions.contains(position));
    }
    match pool.touched(stream, generation, id)? {
        Some(item) if item.position >= position => Ok(item.recent.contains(position)),
        // What is to be decided by the pool must be in it.
        _ => Err(PoolError::Damaged(Arc::new(Unknown(position)))),
    }
}

/// The position of the last event before the first one that is later than a time.
pub(crate) async fn position_at<L: EventLog>(
    log: &Arc<L>,
    time: Timestamp,
) -> Result<Position, ReadError> {
    // Everything up to `before` is not later; what follows `later` is.
    let (mut before, mut later) = (Position::ZERO, log.head());
    while before < later {
        let middle = Position(before.0 + (later.0 - before.0) / 2);
        let request = PageRequest {
            events_max: 1,
            ..PageRequest::after(middle)
        };
        match read_page(log, request).await?.events.first() {
            Some(next) if next.event.time <= time => before = next.position,
            _ => later = middle,
        }
    }
    Ok(before)
}

#[cfg(test)]
mod tests {
    use hookpool_core::position::{Epoch, Generation};
    use hookpool_store::{
        GenerationChanges, GenerationState, PoolChanges,
        memory::{MemoryLog, MemoryPool},
    };

    use super::*;

    /// Some of its rows may be gone: an item that is not there would be taken for one that never was.
    #[tokio::test]
    async fn no_newer_view_is_taken_in_which_the_generation_is_being_removed() {
        let (pool, stream) = (
            Arc::new(MemoryPool::default()),
            StreamName::new("s").unwrap(),
        );
        let generation = Generation::FIRST;
        let commit = |built| {
            let state = GenerationState {
                built,
                ..GenerationState::default()
            };
            let changes = GenerationChanges::empty(&stream, generation, state);
            pool.commit(PoolChanges {
                generations: vec![changes],
                ..PoolChanges::default()
            })
            .unwrap();
        };
        commit(None);
        let ruled = Ruled {
            generation,
            projection: Arc::default(),
        };
        let mut past = Past {
            log: Arc::new(MemoryLog::new(Epoch(1))),
            pool: Arc::clone(&pool),
            view: View {
                pool: pool.snapshot(),
                stream: stream.clone(),
                ruled,
            },
            runtime: Handle::current(),
        };
        assert!(!past.renew().unwrap(), "it has the newest one");
        commit(None);
        assert!(past.renew().unwrap());
        commit(Some(Position(7)));
        assert!(!past.renew().unwrap());
    }
}
