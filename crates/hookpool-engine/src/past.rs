//! The past of an item: what it was at a position, and what each event did to it.
//!
//! The pool keeps for each item which events touched it and, every so often, what it was then; so a moment of the past is a fold of a few
//! events, however long the history of the item or of the log is.

use std::sync::Arc;

use hookpool_core::{
    event::{Event, Op},
    fold::{HISTORY_EVENTS, Item, Note},
    name::{ItemId, StreamName},
    plan::Ruled,
    position::Position,
    time::Timestamp,
};
use hookpool_store::{
    Cause, EventLog, ItemPage, PageRequest, PoolError, PoolSnapshot, PoolStore, ReadError,
};
use thiserror::Error;
use tokio::runtime::Handle;

use crate::follow::{FollowError, read_page};

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

/// Newer views that are tried before what is missing counts as damage.
const RENEWALS_MAX: usize = 3;

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

    /// The events after a position that touched an item, at most `limit`, and whether more follow.
    pub(crate) fn touches(
        &mut self,
        id: &ItemId,
        after: Position,
        limit: usize,
    ) -> Result<(Vec<Touch>, bool), FollowError> {
        self.read(|log, view, runtime| {
            runtime.block_on(async {
                let mut walk = Walk::from(log, view, id, after).await?;
                let mut touches = Vec::new();
                while let Some(touch) = walk.next().await? {
                    if touches.len() == limit {
                        return Ok((touches, true));
                    }
                    touches.push(touch);
                }
                Ok((touches, false))
            })
        })
    }

    /// What the events after a position and up to another did to items.
    pub(crate) fn fill(
        &mut self,
        stretches: &mut [Stretch],
        after: Position,
        until: Position,
    ) -> Result<(), FollowError> {
        self.read(|log, view, runtime| runtime.block_on(fill(log, view, stretches, after, until)))
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

    /// Takes the newest view, if it is another one and still has the generation.
    fn renew(&mut self) -> Result<bool, PoolError> {
        let (newest, view) = (self.pool.snapshot(), &mut self.view);
        let newer = !Arc::ptr_eq(&newest, &view.pool)
            && newest
                .generation(&view.stream, view.ruled.generation)?
                .is_some();
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
    /// Whether it can have changed what is there: not if it came too late, nor if there was nothing to delete.
    #[must_use]
    pub fn counts(&self) -> bool {
        let was_there = self.before.as_ref().is_some_and(Item::is_there);
        !self.superseded && (self.event.event.op != Op::Delete || was_there)
    }
}

/// A stretch of the past of one item.
#[derive(Debug)]
pub struct Stretch {
    /// Which item.
    pub id: ItemId,
    /// What the item was before it, if somebody has it at hand; else it is looked up.
    pub known: Option<Item>,
    /// The events that touched it in the stretch, oldest first.
    pub touches: Vec<Touch>,
}

/// Fills in what the events after a position and up to another did to items. Blocks for the time of some disk accesses.
async fn fill<L: EventLog, S: PoolSnapshot>(
    log: &L,
    view: &View<S>,
    stretches: &mut [Stretch],
    after: Position,
    until: Position,
) -> Result<(), FollowError> {
    for stretch in stretches {
        let walk = match stretch.known.take() {
            Some(item) => Walk::on(log, view, &stretch.id, item),
            None => Walk::from(log, view, &stretch.id, after).await?,
        };
        stretch.touches = walk.until(until).await?;
    }
    Ok(())
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
            walk.step().await?;
        }
        Ok(walk)
    }

    /// Goes on from an item that is at hand.
    fn on(log: &'a L, view: &'a View<S>, id: &'a ItemId, mut item: Item) -> Self {
        item.recent.clear();
        Self {
            log,
            view,
            id,
            known: item.position,
            item,
            coming: Vec::new(),
        }
    }

    /// What it is where the walk is, there or deleted; `None` before its first event.
    pub(crate) fn item(&self) -> Option<&Item> {
        Some(&self.item).filter(|item| item.position > Position::ZERO)
    }

    /// The next event that touched it.
    pub(crate) async fn next(&mut self) -> Result<Option<Touch>, FollowError> {
        let before = self.item().cloned();
        let Some((event, superseded)) = self.step().await? else {
            return Ok(None);
        };
        Ok(Some(Touch {
            event,
            superseded,
            before,
            after: self.item.clone(),
        }))
    }

    async fn step(&mut self) -> Result<Option<(Event, bool)>, FollowError> {
        let Some(position) = self.peek()? else {
            return Ok(None);
        };
        self.coming.pop();
        let event = self.event(position).await?;
        let fields = event.event.fields();
        let fields = fields.map_err(|error| FollowError::Body(position, error))?;
        let projection = &self.view.ruled.projection;
        let change = projection
            .read(&event, fields)
            .map_err(|unfit| FollowError::Unfit(position, unfit))?;
        let note = self.item.apply(&event, &change, projection);
        self.item.recent.clear();
        Ok(Some((event.clone(), note == Some(Note::Superseded))))
    }

    /// The events up to a position.
    async fn until(mut self, until: Position) -> Result<Vec<Touch>, FollowError> {
        let mut touches = Vec::new();
        while self.peek()?.is_some_and(|position| position <= until) {
            touches.extend(self.next().await?);
        }
        Ok(touches)
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

    async fn event(&self, position: Position) -> Result<Event, FollowError> {
        event_at(self.log, &self.view.stream, position).await
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
