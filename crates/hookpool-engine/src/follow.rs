//! Following a stream: recent frames shared by all who are up to date, pages of the log for who is behind.
//!
//! A follower holds a position and pulls. There is no lag state: whoever is inside the ring of recent frames gets shared bytes,
//! whoever is not reads the log until it is. A follower belongs to one generation; when another is served, it is told so after the last
//! event before that. What the bytes mean is the encoder's business.

mod feed;
mod ring;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use bytes::Bytes;
use hookpool_core::{
    cursor::Cursor,
    event::Event,
    fold::{self, Note},
    json::JsonError,
    name::{ItemId, StreamName},
    plan::Ruled,
    position::{Epoch, Generation, Position},
    projection::{Change, Projection, Unfit},
};
use hookpool_store::{EventLog, Page, PageRequest, PoolError, PoolSnapshot, PoolStore, ReadError};
use thiserror::Error;
use tokio::sync::watch;

pub use feed::Feed;
use ring::{BYTES_MIN, Behind, Fresh, Ring};

use crate::control::Control;

/// Writes one change as it goes out to followers.
pub type EncodeChange = fn(into: &mut Vec<u8>, cursor: &Cursor, event: &Event, change: &Change<'_>);

/// Writes an encoded change in another form. All who want another form want the same one.
pub type Rewrite = fn(into: &mut Vec<u8>, frame: &[u8]);

/// Why a follower can't go on.
#[derive(Debug, Error)]
pub enum FollowError {
    /// The log.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// What the pool says of its events.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// A body that was checked before it was appended, and is not what it was.
    #[error("read the event at position {0}: {1}")]
    Body(Position, JsonError),
    /// An event that fits its projection not at all, and was not noted as such.
    #[error("read the event at position {0}: {1}, and the pool does not say so")]
    Unfit(Position, Unfit),
    /// What is asked for is older than what the retention of the stream keeps.
    #[error("read what was before position {0}: the retention of the stream keeps it no longer")]
    BeforeRetention(Position),
}

/// The rings of all streams that somebody follows.
#[derive(Debug)]
pub struct Rings {
    encode: EncodeChange,
    epoch: Epoch,
    state: Mutex<RingsState>,
}

#[derive(Debug)]
struct RingsState {
    /// Everything up to here was published.
    applied: Position,
    /// Which generations are served; without an entry it is the first.
    served: BTreeMap<StreamName, Generation>,
    /// A ring lives as long as it has followers: a stream that nobody follows costs no encoding.
    rings: BTreeMap<StreamName, Weak<Ring>>,
}

/// Frames of one page, by stream, as they are made.
pub(crate) struct Frames<'r> {
    rings: &'r Rings,
    /// Nothing is encoded: who follows reads the log.
    skip: bool,
    /// `None` for a stream that nobody followed when its first event came.
    streams: BTreeMap<StreamName, Option<Fresh>>,
}

impl Frames<'_> {
    /// Encodes what an event did, if it did something that can be seen and somebody wants to see it.
    pub(crate) fn push<'a>(
        &mut self,
        ruled: &'a Ruled,
        event: &Event,
        change: &mut Change<'a>,
        note: Option<&'a Note>,
    ) {
        let (encode, epoch) = (self.rings.encode, self.rings.epoch);
        let Some(fresh) = self.of(&event.event.stream) else {
            return;
        };
        let shown = match note {
            Some(Note::Quarantined(_) | Note::Superseded | Note::Absent) => false,
            Some(Note::Adjusted { defaulted, unset }) => {
                ruled.projection.adjust(change, defaulted, unset);
                true
            }
            None => true,
        };
        if shown {
            let cursor = Cursor {
                epoch,
                generation: ruled.generation,
                position: event.position,
            };
            let item = change.item_id.as_str();
            fresh.push(event.position, item, |into| {
                encode(into, &cursor, event, change);
            });
        }
    }

    fn of(&mut self, stream: &StreamName) -> Option<&mut Fresh> {
        if !self.streams.contains_key(stream) {
            let wanted = !self.skip && self.rings.is_followed(stream);
            let fresh = wanted.then(Fresh::default);
            self.streams.insert(stream.clone(), fresh);
        }
        self.streams.get_mut(stream).and_then(Option::as_mut)
    }
}

impl Rings {
    /// Rings that start after what is applied already.
    #[must_use]
    pub fn new(
        encode: EncodeChange,
        epoch: Epoch,
        applied: Position,
        served: BTreeMap<StreamName, Generation>,
    ) -> Self {
        Self {
            encode,
            epoch,
            state: Mutex::new(RingsState {
                applied,
                served,
                rings: BTreeMap::new(),
            }),
        }
    }

    /// The frames of what is folded next; none are made where `skip`, and followers read the log instead.
    pub(crate) fn frames(&self, skip: bool) -> Frames<'_> {
        Frames {
            rings: self,
            skip,
            streams: BTreeMap::new(),
        }
    }

    /// Publishes the frames of a page that is now in the pool.
    pub(crate) fn publish(&self, frames: Frames<'_>, through: Position) {
        // IMPORTANT: under one lock with `applied`, so that a ring made meanwhile starts after this page.
        let mut state = locked(&self.state);
        for (stream, fresh) in frames.streams {
            let ring = state.rings.get(&stream).and_then(Weak::upgrade);
            match (ring, fresh) {
                (Some(ring), Some(fresh)) => ring.push(fresh),
                (Some(ring), None) => ring.skip(through),
                (None, _) => {}
            }
        }
        state.applied = through;
    }

    /// From now on another generation of a stream is served: who follows the one before is told.
    pub(crate) fn serve(&self, stream: &StreamName, generation: Generation) {
        let mut state = locked(&self.state);
        let before = state.served.insert(stream.clone(), generation);
        if before.unwrap_or(Generation::FIRST) == generation {
            return;
        }
        if let Some(ring) = state.rings.remove(stream).and_then(|ring| ring.upgrade()) {
            ring.retire();
        }
    }

    fn is_followed(&self, stream: &StreamName) -> bool {
        let state = locked(&self.state);
        state
            .rings
            .get(stream)
            .is_some_and(|ring| ring.strong_count() > 0)
    }

    /// The ring of a stream, made if nobody follows it yet; a retired one if another generation is served.
    fn join(&self, stream: &StreamName, generation: Generation) -> Arc<Ring> {
        let mut state = locked(&self.state);
        let served = state.served.get(stream).copied();
        if served.unwrap_or(Generation::FIRST) != generation {
            let retired = Ring::new(Position::ZERO, BYTES_MIN);
            retired.retire();
            return Arc::new(retired);
        }
        if let Some(ring) = state.rings.get(stream).and_then(Weak::upgrade) {
            return ring;
        }
        let ring = Arc::new(Ring::new(state.applied, BYTES_MIN));
        state.rings.retain(|_, ring| ring.strong_count() > 0);
        state.rings.insert(stream.clone(), Arc::downgrade(&ring));
        ring
    }
}

/// An event, and what became of it where it does not say so itself.
#[derive(Debug, Clone)]
pub struct Told {
    /// The event.
    pub event: Event,
    /// What became of it.
    pub note: Option<Note>,
}

impl Told {
    /// What it changed under the projection of its generation; `None` if nothing that can be seen.
    ///
    /// # Errors
    /// [`FollowError::Body`], [`FollowError::Unfit`]
    pub fn change<'a>(
        &'a self,
        projection: &'a Projection,
    ) -> Result<Option<Change<'a>>, FollowError> {
        let position = self.event.position;
        let fields = self.event.event.fields();
        let fields = fields.map_err(|error| FollowError::Body(position, error))?;
        fold::effect(&self.event, fields, self.note.as_ref(), projection)
            .map_err(|unfit| FollowError::Unfit(position, unfit))
    }
}

/// What comes next for a follower.
#[derive(Debug)]
pub enum Step {
    /// Encoded frames, shared with all who are here, and the position of the last of them. What comes after it, up to the position of the
    /// follower, is of no item that is followed.
    Encoded(Bytes, Position),
    /// Events from the log, for who is behind or wants another form. Perhaps none, and perhaps of other items.
    Told(Vec<Told>),
    /// Nothing of what is followed, up to the position of the follower.
    Passed,
    /// Another generation is served. What of this one is not handed out yet is in the pool and the log.
    Retired,
}

/// How a follower wants its frames.
#[derive(Debug, Clone, Copy)]
pub enum Form {
    /// As the encoder of the engine makes them, where there are some.
    Encoded,
    /// The same, each rewritten.
    Rewritten(Rewrite),
    /// Always as events.
    Events,
}

/// Somebody who reads a generation of a stream from a position on.
#[derive(Debug)]
pub struct Follower<L, P> {
    log: Arc<L>,
    pool: Arc<P>,
    control: Arc<Control<L>>,
    stream: StreamName,
    ruled: Ruled,
    form: Form,
    /// Of all items or of this one.
    item: Option<ItemId>,
    ring: Arc<Ring>,
    retired: watch::Receiver<bool>,
    position: Position,
}

impl<L: EventLog, P: PoolStore> Follower<L, P> {
    pub(crate) fn new(
        (log, pool, control): (Arc<L>, Arc<P>, Arc<Control<L>>),
        rings: &Rings,
        stream: StreamName,
        ruled: Ruled,
        form: Form,
        after: Position,
    ) -> Self {
        let ring = rings.join(&stream, ruled.generation);
        let retired = ring.subscribe();
        Self {
            log,
            pool,
            control,
            stream,
            ruled,
            form,
            item: None,
            ring,
            retired,
            position: after,
        }
    }

    /// The same, from a feed of its generation where it is not behind that. Events are told as they are, whatever the feed is of.
    #[must_use]
    pub fn of_feed(self, feed: &Feed) -> Self {
        Self {
            ring: Arc::clone(&feed.ring),
            retired: feed.ring.subscribe(),
            ..self
        }
    }

    /// The same, of one item.
    #[must_use]
    pub fn of_item(self, item: Option<ItemId>) -> Self {
        Self { item, ..self }
    }

    /// Everything up to here was handed out.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// The generation that is followed, and its rules.
    #[must_use]
    pub fn ruled(&self) -> &Ruled {
        &self.ruled
    }

    /// Goes back to a position in what was handed out last: what is behind it will be handed out again.
    pub fn go_back_to(&mut self, position: Position) {
        self.position = position.min(self.position);
    }

    /// Waits for what comes after the position, hands it out and moves on. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`FollowError`]; the position stays.
    pub async fn next(&mut self) -> Result<Step, FollowError> {
        self.next_unless(std::future::pending()).await
    }

    /// The same, for who needs to know that there is nothing: nobody is woken for what happens to other streams or can't be seen. From `applied` on, all
    /// that is in the pool by then is handed out without a wait, and where that is nothing no events are.
    ///
    /// # Errors
    /// [`FollowError`]; the position stays.
    pub async fn next_unless(
        &mut self,
        applied: impl Future<Output = ()>,
    ) -> Result<Step, FollowError> {
        let mut applied = std::pin::pin!(applied);
        loop {
            if let Some(step) = self.try_next().await? {
                return Ok(step);
            }
            tokio::select! {
                biased;
                changed = self.retired.changed() => {
                    if changed.is_err() {
                        // Our own handle keeps the ring and its sender alive.
                        std::future::pending::<()>().await;
                    }
                }
                () = &mut applied => return self.read().await,
            }
        }
    }

    /// What there is without waiting; `None` if it is up to date.
    ///
    /// # Errors
    /// [`FollowError`]; the position stays.
    pub async fn try_next(&mut self) -> Result<Option<Step>, FollowError> {
        let retired = *self.retired.borrow_and_update();
        self.ready(retired).await
    }

    async fn ready(&mut self, retired: bool) -> Result<Option<Step>, FollowError> {
        let chunk = match self.ring.next(self.position) {
            Ok(Some(chunk)) => chunk,
            Ok(None) | Err(Behind) if retired => return Ok(Some(Step::Retired)),
            Ok(None) => return Ok(None),
            Err(Behind) => return self.read().await.map(Some),
        };
        let item = self.item.as_ref();
        let step = match self.form {
            Form::Events if item.is_none_or(|item| chunk.tells_of(item, self.position)) => {
                return self.read().await.map(Some);
            }
            Form::Events => None,
            Form::Encoded => chunk.after(self.position, item, None),
            Form::Rewritten(rewrite) => chunk.after(self.position, item, Some(rewrite)),
        };
        self.position = chunk.last();
        Ok(Some(step.map_or(Step::Passed, |(bytes, last)| {
            Step::Encoded(bytes, last)
        })))
    }

    /// One page of the log, no further than what is in the pool.
    async fn read(&mut self) -> Result<Step, FollowError> {
        let pool = self.pool.snapshot();
        let (stream, generation) = (self.stream.clone(), self.ruled.generation);
        let page = told(&self.log, pool, stream, generation, self.position).await?;
        // IMPORTANT: after the page was read, so that nothing of it was dropped meanwhile.
        must_reach(&self.control, &self.stream, self.position)?;
        Ok(match page {
            Some((told, through)) => {
                self.position = through.max(self.position);
                Step::Told(told)
            }
            None => Step::Retired,
        })
    }
}

/// Some events of a stream after a position, with what became of them in a generation, no further than the pool is; and up to where
/// that is all. `None` if the pool does not have the generation any more.
///
/// # Errors
/// [`FollowError`]
pub(crate) async fn told<L: EventLog, S: PoolSnapshot>(
    log: &Arc<L>,
    pool: Arc<S>,
    stream: StreamName,
    generation: Generation,
    after: Position,
) -> Result<Option<(Vec<Told>, Position)>, FollowError> {
    let log = Arc::clone(log);
    let runtime = tokio::runtime::Handle::current();
    blocking(move || {
        if !follows_checkpoint(&*pool, &stream, generation)? {
            return Ok(None);
        }
        let until = pool.checkpoint().map_or(Position::ZERO, |at| at.position);
        let request = PageRequest {
            until,
            events_max: 256,
            bytes_max: 256 << 10,
            ..PageRequest::of_stream(stream.clone(), after)
        };
        let page = runtime.block_on(log.page(request))?;
        let notes = pool.notes(&stream, generation, after, page.through)?;
        let mut notes: BTreeMap<_, _> = notes.into_iter().collect();
        let with_note = |event: Event| Told {
            note: notes.remove(&event.position),
            event,
        };
        let told = page.events.into_iter().map(with_note).collect();
        Ok(Some((told, page.through)))
    })
    .await
}

/// That all of a stream after a position can be read. Whoever asks after reading knows it of what was read: the floor rises before anything is
/// dropped.
///
/// # Errors
/// [`FollowError::BeforeRetention`]
pub(crate) fn must_reach<L: EventLog>(
    control: &Control<L>,
    stream: &StreamName,
    after: Position,
) -> Result<(), FollowError> {
    let earliest = control.registry().plan(stream.as_str()).earliest();
    if after < earliest {
        return Err(FollowError::BeforeRetention(earliest));
    }
    Ok(())
}

/// Whether all of a generation is in the pool, up to its checkpoint; so it is where the pool has nothing of the stream yet.
///
/// # Errors
/// [`PoolError`]
pub fn follows_checkpoint(
    pool: &impl PoolSnapshot,
    stream: &StreamName,
    generation: Generation,
) -> Result<bool, PoolError> {
    match pool.generation(stream, generation)? {
        Some(state) => Ok(state.built.is_none()),
        None => Ok(pool.served(stream)?.is_none()),
    }
}

/// Reads a page of a log.
///
/// # Errors
/// [`ReadError`]
pub(crate) async fn read_page<L: EventLog>(
    log: &Arc<L>,
    request: PageRequest,
) -> Result<Page, ReadError> {
    let log = Arc::clone(log);
    let runtime = tokio::runtime::Handle::current();
    blocking(move || runtime.block_on(log.page(request))).await
}

/// Runs a read on a thread that may block, so that a cold disk delays no other request.
///
/// # Panics
/// If the read does.
pub async fn blocking<T: Send + 'static>(read: impl FnOnce() -> T + Send + 'static) -> T {
    let read = tokio::task::spawn_blocking(read).await;
    read.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// Bytes of items and bodies that are looked at on the thread that asks: less than going to another one takes.
pub const READ_HERE_BYTES_MAX: usize = 32 << 10;

/// Runs what may take long on a thread that may block, and anything else here.
///
/// # Panics
/// If the read does.
pub async fn blocking_if<T: Send + 'static>(
    long: bool,
    read: impl FnOnce() -> T + Send + 'static,
) -> T {
    match long {
        true => blocking(read).await,
        false => read(),
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_retired(ring: &Ring) -> bool {
        *ring.subscribe().borrow()
    }

    /// What is served of a stream that is new since the start is told by [`Rings::serve`] alone, and the pool says it a moment before.
    #[test]
    fn who_knows_first_of_a_promotion_gets_no_frames_of_the_generation_before() {
        let stream = StreamName::new("new").unwrap();
        let [first, second] = [Generation::FIRST, Generation(2)];
        let rings = Rings::new(|_, _, _, _| (), Epoch(1), Position::ZERO, BTreeMap::new());
        let before = rings.join(&stream, first);
        assert!(!is_retired(&before));
        assert!(Arc::ptr_eq(&before, &rings.join(&stream, first)));
        assert!(is_retired(&rings.join(&stream, second)));
        assert!(!is_retired(&before));
        rings.serve(&stream, second);
        assert!(is_retired(&before));
        assert!(is_retired(&rings.join(&stream, first)));
        let after = rings.join(&stream, second);
        assert!(!is_retired(&after));
        assert!(Arc::ptr_eq(&after, &rings.join(&stream, second)));
    }
}
