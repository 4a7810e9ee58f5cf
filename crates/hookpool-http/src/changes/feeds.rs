//! Frames for who wants some of a stream, made once for all who want the same.
//!
//! What a reader is told of an event depends on the event, the item and what the reader wants, and on nothing else: so one task reads the
//! events for all of them, looks at the items and makes the frames. It ends with the last of them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hookpool_core::{
    name::StreamName,
    plan::Ruled,
    position::{Generation, Position},
};
use hookpool_engine::{
    follow::{Feed, FollowError, Follower, Form, Step},
    past::{Known, View},
};
use hookpool_store::{EventLog, PoolStore};
use tokio::time::Instant;

use super::selected::{CHANGES_BYTES_MAX, Each, Wanted, stretch};
use crate::{app::App, read::checkpoint, sse::Framing};

/// How often at most followers are woken to hear that events were passed over: twice as often as they say so.
const PASSED_EVERY: Duration = Duration::from_millis(125);
/// How long a feed waits after it could not read.
const RETRY: Duration = Duration::from_secs(1);
/// Changes that are made at once, however many share them: who is not through with them when the next ones come makes its own.
const SHARED_CHANGES_BYTES_MAX: usize = 16 << 20;

/// All feeds that somebody follows.
#[derive(Debug, Default)]
pub(crate) struct Feeds(Mutex<HashMap<Key, Feed>>);

/// What a feed is of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) stream: StreamName,
    pub(super) generation: Generation,
    pub(super) wanted: Arc<Wanted>,
    pub(super) framing: Framing,
}

/// Follows what is wanted of a generation after a position, through the feed of all who want the same.
pub(super) fn follow<L: EventLog, P: PoolStore>(
    app: &Arc<App<L, P>>,
    key: Key,
    ruled: Ruled,
    after: Position,
) -> Follower<L, P> {
    let stream = key.stream.clone();
    let follower = app
        .engine
        .follow(stream, ruled.clone(), Form::Encoded, after);
    // IMPORTANT: followed under the lock under which a feed ends that nobody follows.
    let mut feeds = app.feeds.locked();
    let feed = feeds.entry(key.clone()).or_insert_with(|| {
        let from = reached(app);
        let feed = Feed::new(from);
        tokio::spawn(Maker::new(app, key, ruled, feed.clone(), from).run());
        feed
    });
    follower.of_feed(feed)
}

impl Feeds {
    /// Takes a feed away that is followed no more; whether it was taken.
    fn end_if_unfollowed(&self, key: &Key, feed: &Feed) -> bool {
        let mut feeds = self.locked();
        let ends = feed.followers() == 0;
        if ends {
            feeds.remove(key);
        }
        ends
    }

    /// Takes a feed away, and not another one that came in its place.
    fn end(&self, key: &Key, feed: &Feed) {
        let mut feeds = self.locked();
        if feeds.get(key).is_some_and(|there| there.is(feed)) {
            feeds.remove(key);
        }
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<Key, Feed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The data of changes, each with the position of its event.
type Changes = Vec<(Position, String)>;

/// Who makes the frames of a feed.
struct Maker<L, P: PoolStore> {
    app: Arc<App<L, P>>,
    key: Key,
    ruled: Ruled,
    feed: Feed,
    follower: Follower<L, P>,
    known: Known,
    /// When something was shown last, and up to where nothing is to be shown since.
    shown_at: Instant,
    passed: Option<Position>,
}

impl<L: EventLog, P: PoolStore> Maker<L, P> {
    fn new(app: &Arc<App<L, P>>, key: Key, ruled: Ruled, feed: Feed, after: Position) -> Self {
        Self {
            follower: events(app, &key, &ruled, after),
            app: Arc::clone(app),
            key,
            ruled,
            feed,
            known: Known::default(),
            shown_at: Instant::now(),
            passed: None,
        }
    }

    /// Makes frames until nobody follows the feed or another generation is served.
    async fn run(mut self) {
        loop {
            let after = self.follower.position();
            let (passed, due) = (self.passed, self.shown_at + PASSED_EVERY);
            let step = tokio::select! {
                biased;
                () = self.feed.unfollowed() => {
                    if self.app.feeds.end_if_unfollowed(&self.key, &self.feed) {
                        return;
                    }
                    continue;
                }
                step = self.follower.next() => step,
                () = tokio::time::sleep_until(due), if passed.is_some() => {
                    self.show(Vec::new());
                    continue;
                }
            };
            let made = match step {
                Ok(step) => self.changes(after, step).await,
                Err(error) => Err(error),
            };
            match made {
                Ok(Some(changes)) if changes.is_empty() && Instant::now() < due => {
                    self.passed = Some(self.follower.position());
                }
                Ok(Some(changes)) => self.show(changes),
                Ok(None) => return,
                Err(error) => self.start_over(&error).await,
            }
        }
    }

    /// The changes of a step; `None` if the generation is served no more.
    async fn changes(
        &mut self,
        after: Position,
        step: Step,
    ) -> Result<Option<Changes>, FollowError> {
        let told = match step {
            Step::Told(told) => told,
            Step::Passed => return Ok(Some(Vec::new())),
            // Encoded frames are for who asks for them.
            Step::Retired | Step::Encoded(..) => return Ok(None),
        };
        let (engine, ruled, key) = (&self.app.engine, &self.ruled, &self.key);
        let through = self.follower.position();
        let stretch = stretch((after, through), told, &ruled.projection, &key.wanted)?;
        let view = View {
            pool: engine.pool(),
            stream: key.stream.clone(),
            ruled: ruled.clone(),
        };
        let (stream, wanted) = (key.stream.clone(), Arc::clone(&key.wanted));
        let shared = CHANGES_BYTES_MAX.saturating_mul(self.feed.followers());
        let bytes_max = shared.clamp(CHANGES_BYTES_MAX, SHARED_CHANGES_BYTES_MAX);
        let each = Each::new(stream, wanted, bytes_max);
        let known = std::mem::take(&mut self.known);
        let Some(folded) = engine.fold(view, known, stretch, each).await? else {
            return Ok(None);
        };
        self.known = folded.known;
        self.known.forget_if_large();
        self.follower.go_back_to(folded.through);
        Ok(Some(folded.observer.told()))
    }

    /// Shows changes; after them there is nothing up to where events were read.
    fn show(&mut self, changes: Changes) {
        let (framing, generation) = (self.key.framing, self.ruled.generation);
        let frame = |(position, data): (Position, String)| {
            let (mut bytes, cursor) = (Vec::new(), self.app.engine.cursor(generation, position));
            framing.push(&mut bytes, "change", Some(&cursor), &data);
            (position, bytes)
        };
        let frames = changes.into_iter().map(frame);
        self.feed.push(frames, self.follower.position());
        (self.shown_at, self.passed) = (Instant::now(), None);
    }

    /// Goes on where the pool is by now. Followers read what is left out for themselves, and say so if they can't.
    async fn start_over(&mut self, error: &FollowError) {
        tracing::warn!(stream = %self.key.stream, %error, "changes that several followers want were not read; each reads them for itself");
        let through = reached(&self.app);
        self.follower = events(&self.app, &self.key, &self.ruled, through);
        (self.known, self.passed) = (Known::default(), None);
        self.feed.skip(through);
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = self.feed.unfollowed() => {}
        }
    }
}

/// However it ends, also by a panic: whoever follows the feed then goes over to what is served, or to another feed of the same.
impl<L, P: PoolStore> Drop for Maker<L, P> {
    fn drop(&mut self) {
        self.app.feeds.end(&self.key, &self.feed);
        self.feed.retire();
    }
}

/// All events after a position of which somebody wants to be told.
fn events<L: EventLog, P: PoolStore>(
    app: &App<L, P>,
    key: &Key,
    ruled: &Ruled,
    after: Position,
) -> Follower<L, P> {
    let (stream, ruled) = (key.stream.clone(), ruled.clone());
    let follower = app.engine.follow(stream, ruled, Form::Events, after);
    follower.of_item(key.wanted.item.clone())
}

/// Up to where the pool is.
fn reached<L: EventLog, P: PoolStore>(app: &App<L, P>) -> Position {
    checkpoint(&*app.engine.pool())
}
