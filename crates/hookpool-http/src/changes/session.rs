//! One followed stream: where it starts, what it hands out next, and why it ends.

mod interval;
mod passage;
mod rows;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use hookpool_core::{
    cursor::Cursor,
    name::{ItemId, StreamName},
    plan::Ruled,
    position::{Generation, Position},
    time::Timestamp,
};
use hookpool_engine::{
    compare::Comparison,
    follow::{FollowError, Follower, Form, Step, Told, blocking},
    past::{Known, Observer, Stretch, View},
    status::Status,
};
use hookpool_store::{EventLog, PoolError, PoolStore};
use tokio::{sync::watch, time::Instant};

use crate::{
    app::App,
    changes::{
        feeds::{self, Key},
        selected::{CHANGES_BYTES_MAX, Each, Wanted, stretch},
        wire::Out,
    },
    followers::Listed,
    lease::Lease,
    metrics::FollowerGauge,
    read::checkpoint,
    sse::{Frame, Framing, change_as_line, change_json},
    viewer::Viewer,
};

/// How often at most a bookmark says that events were passed over.
const BOOKMARK_EVERY: Duration = Duration::from_millis(250);

/// Why a stream ends of which all was said that was asked for.
pub(super) const DONE: &str = "until";

/// Why one ends that was one too many.
pub(super) const OVERLOADED: &str = "overloaded";

/// Where a client wants to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Start {
    Snapshot,
    Now,
    Earliest,
    /// After the last event that is not later.
    Time(Timestamp),
    /// As sent: whether it is a cursor of ours is answered on the stream.
    Cursor(String),
}

/// What a client asks of a stream.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) stream: StreamName,
    pub(super) start: Start,
    pub(super) wanted: Arc<Wanted>,
    /// How long what happens to an item is merged.
    pub(super) conflate: Duration,
    /// After this position the stream ends.
    pub(super) until: Option<Position>,
    /// Whether it wants to hear that there is nothing more for now.
    pub(super) says_at_rest: bool,
    /// How it takes frames that are shared; `None` if it does not.
    pub(super) shared: Option<Framing>,
}

/// One followed stream of one connection.
pub(super) struct Session<L, P: PoolStore> {
    app: Arc<App<L, P>>,
    ask: Ask,
    viewer: Viewer,
    registry: watch::Receiver<Position>,
    status: watch::Receiver<Status>,
    /// The generation that cursors name.
    ruled: Ruled,
    /// The head when the request came.
    opened_at: Position,
    /// Everything up to here was handed out, before what is being read now.
    told: Position,
    phase: Phase<L, P>,
    /// What is ready to go out before the phase goes on.
    ready: VecDeque<Out>,
    /// Items as they were before what is read next, for who looks at them alone.
    known: Known,
    /// When the last frames went out.
    told_at: Instant,
    /// When merged ones may go out again.
    due: Instant,
    /// Up to where events were passed over since then.
    passed: Option<Position>,
    /// Whether it is still to say that there is nothing more for now.
    says_at_rest: bool,
    listed: Listed,
    _open: FollowerGauge,
}

enum Phase<L, P: PoolStore> {
    Start(Start),
    /// The items as they were at a position.
    Snapshot {
        pool: Lease<Arc<P::Snapshot>>,
        at: Position,
        after: Option<ItemId>,
        rows: u64,
    },
    Live(Box<Follower<L, P>>),
    /// Another generation is served: what is left of the one before, as of a view that has both.
    Leaving {
        pool: Lease<Arc<P::Snapshot>>,
        to: Ruled,
        after: Position,
    },
    /// The difference between the two, in the same view.
    Crossing {
        comparison: Lease<Box<Comparison<P::Snapshot>>>,
        to: Ruled,
        at: Position,
    },
    Ended,
}

/// So that the first look at it checks the key again: it may have been revoked since the request came.
fn changed_at_first(mut registry: watch::Receiver<Position>) -> watch::Receiver<Position> {
    registry.mark_changed();
    registry
}

/// What a live connection woke up for.
enum Woken {
    Step(Result<Step, FollowError>),
    AtRest,
    Quiet,
    Stopping,
    RegistryChanged,
}

impl<L: EventLog, P: PoolStore> Session<L, P> {
    pub(super) fn new(app: &Arc<App<L, P>>, viewer: Viewer, mut ask: Ask) -> Self {
        let plan = app.engine.control().registry().plan(ask.stream.as_str());
        let start = std::mem::replace(&mut ask.start, Start::Snapshot);
        let says_at_rest = ask.says_at_rest;
        let reader = viewer.reader(&app.engine);
        let listed = app
            .followers
            .list(ask.stream.clone(), reader, app.engine.now());
        Self {
            ask,
            viewer,
            registry: changed_at_first(app.engine.control().changes()),
            status: app.engine.status().subscribe(),
            ruled: plan.live.clone(),
            // The head, not what is applied: what was acknowledged before this request is the past.
            opened_at: app.engine.head(),
            told: Position::ZERO,
            phase: Phase::Start(start),
            ready: VecDeque::new(),
            known: Known::default(),
            told_at: Instant::now(),
            due: Instant::now(),
            passed: None,
            says_at_rest,
            listed,
            _open: app.metrics.follower(),
            app: Arc::clone(app),
        }
    }

    async fn begin(&mut self) -> Result<(), FollowError> {
        let Phase::Start(start) = std::mem::replace(&mut self.phase, Phase::Ended) else {
            return Ok(());
        };
        if self.app.followers.count() > self.app.settings.followers_max {
            self.goodbye(OVERLOADED);
            return Ok(());
        }
        let pool = self.app.engine.pool();
        self.ruled = self.served(&pool).await?;
        self.phase = match start {
            Start::Snapshot => self.snapshot(pool),
            Start::Earliest => {
                // Where nothing comes, that is a place to go on from.
                self.passed = Some(self.earliest());
                self.live(self.earliest())
            }
            Start::Now => {
                self.bookmark(self.opened_at);
                self.live(self.opened_at)
            }
            Start::Time(time) => {
                let engine = &self.app.engine;
                let position = engine.position_at(&self.ask.stream, time).await?;
                if position < self.earliest() {
                    self.reset("before-retention", &time.to_string(), pool)
                } else {
                    self.bookmark(position);
                    self.live(position)
                }
            }
            Start::Cursor(text) => match self.honour(&text) {
                Ok(position) => self.live(position),
                Err(reason) => self.reset(reason, &text, pool),
            },
        };
        if let Phase::Live(follower) = &self.phase {
            self.end_if_done(follower.position());
        }
        Ok(())
    }

    /// The generation that a view of the pool serves.
    async fn served(&self, pool: &Arc<P::Snapshot>) -> Result<Ruled, PoolError> {
        let (app, pool) = (Arc::clone(&self.app), Arc::clone(pool));
        let stream = self.ask.stream.clone();
        blocking(move || app.engine.served(&pool, &stream)).await
    }

    /// The position of a cursor that this log can go on from.
    fn honour(&self, text: &str) -> Result<Position, &'static str> {
        let cursor: Cursor = text.parse().map_err(|_| "malformed")?;
        let here = self
            .app
            .engine
            .cursor(self.ruled.generation, self.app.engine.head());
        if cursor.epoch != here.epoch {
            Err("other-epoch")
        } else if cursor.generation != here.generation {
            Err("other-generation")
        } else if cursor.position > here.position {
            tracing::warn!(cursor = %cursor, head = %here, "a follower says it has seen more than this log holds");
            Err("ahead-of-head")
        } else if cursor.position < self.earliest() {
            Err("before-retention")
        } else {
            Ok(cursor.position)
        }
    }

    fn earliest(&self) -> Position {
        self.app.engine.earliest(&self.ask.stream)
    }

    fn live(&self, after: Position) -> Phase<L, P> {
        let (wanted, ruled) = (&self.ask.wanted, self.ruled.clone());
        let framing = self.ask.shared.filter(|_| self.ask.until.is_none());
        let form = match framing {
            Some(framing) if wanted.is_of_states() => {
                let key = Key {
                    stream: self.ask.stream.clone(),
                    generation: ruled.generation,
                    wanted: Arc::clone(wanted),
                    framing,
                };
                let follower = feeds::follow(&self.app, key, ruled, after);
                return Phase::Live(Box::new(follower));
            }
            Some(Framing::Sse) if wanted.is_of_events() => Form::Encoded,
            Some(Framing::Ndjson) if wanted.is_of_events() => Form::Rewritten(change_as_line),
            _ => Form::Events,
        };
        let engine = &self.app.engine;
        let follower = engine.follow(self.ask.stream.clone(), ruled, form, after);
        Phase::Live(Box::new(follower.of_item(wanted.item.clone())))
    }

    /// What to send next; `None` after the end.
    pub(super) async fn next(&mut self) -> Option<Out> {
        loop {
            if let Some(out) = self.ready.pop_front() {
                return Some(out);
            }
            if !matches!(self.phase, Phase::Ended | Phase::Live(_)) && self.must_end() {
                continue;
            }
            let outcome = match &self.phase {
                Phase::Ended => return None,
                Phase::Live(_) => self.live_step().await,
                Phase::Start(_) => self.begin().await,
                Phase::Snapshot { .. } => self.snapshot_rows().await,
                Phase::Leaving { .. } => self.leave().await,
                Phase::Crossing { .. } => self.cross().await,
            };
            let outcome = match outcome {
                Err(FollowError::BeforeRetention(_)) => self.overtaken().await,
                outcome => outcome,
            };
            if let Err(error) = outcome {
                tracing::error!(stream = %self.ask.stream, %error, "a follower can't go on");
                self.goodbye("unreadable");
            }
        }
    }

    /// History went while this client was still in it: a snapshot of what is served, and never a hole.
    async fn overtaken(&mut self) -> Result<(), FollowError> {
        let cursor = self.app.engine.cursor(self.ruled.generation, self.told);
        let pool = self.app.engine.pool();
        self.ruled = self.served(&pool).await?;
        self.phase = self.reset("before-retention", &cursor.to_string(), pool);
        Ok(())
    }

    /// The stream that it follows.
    pub(super) fn stream(&self) -> &StreamName {
        &self.ask.stream
    }

    /// Whether the end came while something long is being sent.
    fn must_end(&mut self) -> bool {
        if !self.app.engine.status().is_ready() {
            self.goodbye("shutdown");
            return true;
        }
        if self.registry.has_changed().unwrap_or(true) {
            self.registry.mark_unchanged();
            if !self.may_still_read() {
                self.goodbye("revoked");
                return true;
            }
        }
        false
    }

    /// Follows after a position, unless that was all.
    fn go_live(&mut self, after: Position) {
        // What was passed over is before this: a bookmark of it would send the client back.
        self.passed = None;
        self.phase = self.live(after);
        self.end_if_done(after);
    }

    /// Nothing behind it is told.
    fn until(&self) -> Position {
        self.ask.until.unwrap_or(Position(u64::MAX))
    }

    fn end_if_done(&mut self, through: Position) {
        if self.ask.until.is_some_and(|until| through >= until) {
            self.goodbye(DONE);
        }
    }

    async fn live_step(&mut self) -> Result<(), FollowError> {
        let Phase::Live(follower) = &self.phase else {
            return Ok(());
        };
        let after = follower.position();
        self.listed.is_at(after);
        self.told = after;
        match self.woken().await {
            Woken::Step(step) => match step? {
                Step::Encoded(bytes, last) => self.push_shared(bytes, last),
                Step::Told(told) => self.live_events(after, told).await?,
                Step::Passed => self.pass_over(),
                Step::Retired => self.go_over().await?,
            },
            Woken::AtRest => {
                self.says_at_rest = false;
                self.ready.push_back(Out::AtRest);
            }
            Woken::Quiet => self.break_silence(),
            Woken::Stopping => self.goodbye("shutdown"),
            Woken::RegistryChanged => {
                if !self.may_still_read() {
                    self.goodbye("revoked");
                }
            }
        }
        Ok(())
    }

    /// Events that follow the last ones.
    async fn live_events(
        &mut self,
        after: Position,
        mut told: Vec<Told>,
    ) -> Result<(), FollowError> {
        let Phase::Live(follower) = &self.phase else {
            return Ok(());
        };
        let until = self.until();
        if self.ask.wanted.merged {
            // In a box, since few need the room for it.
            return Box::pin(self.merge(after, told, until)).await;
        }
        told.retain(|told| told.event.position <= until);
        let (pool, through) = (self.app.engine.pool(), follower.position().min(until));
        let Some(through) = self.push_told(pool, after, told, through).await? else {
            // The generation is not there any more; whoever serves now has a snapshot.
            return self.go_over_after(after).await;
        };
        self.go_on_after(through);
        Ok(())
    }

    /// Goes on behind what was told: what was read and not told is read again.
    fn go_on_after(&mut self, told: Position) {
        if let Phase::Live(follower) = &mut self.phase {
            follower.go_back_to(told);
        }
        self.end_if_done(told);
    }

    /// Says up to where nothing was shown, if that is news.
    fn break_silence(&mut self) {
        if let Some(position) = self.passed.take() {
            self.bookmark(position);
        }
    }

    async fn woken(&mut self) -> Woken {
        let Phase::Live(follower) = &mut self.phase else {
            return Woken::Quiet;
        };
        let (engine, until) = (&self.app.engine, self.ask.until);
        let applied = async {
            let reached = match until {
                // In a box, since few need the room for it.
                Some(until) => Box::pin(engine.wait_applied(until, Duration::MAX)).await,
                None => false,
            };
            if !reached {
                std::future::pending::<()>().await;
            }
        };
        let passed = self.passed.is_some();
        // What was passed over is still to be told of, and so is an end that was reached.
        let says_at_rest =
            self.says_at_rest && !passed && until.is_none_or(|until| engine.applied() < until);
        let step = async {
            if !says_at_rest {
                return Woken::Step(follower.next_unless(applied).await);
            }
            let step = follower.try_next().await.transpose();
            step.map_or(Woken::AtRest, Woken::Step)
        };
        let quiet = async {
            match passed {
                true => tokio::time::sleep(BOOKMARK_EVERY).await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = self.status.wait_for(|status| *status != Status::Ready) => Woken::Stopping,
            _ = self.registry.changed() => Woken::RegistryChanged,
            step = step => step,
            () = quiet => Woken::Quiet,
        }
    }

    /// Frames that all who are here share, up to a position. What was passed over before is behind them, what was after is told of later.
    fn push_shared(&mut self, bytes: Bytes, last: Position) {
        let Phase::Live(follower) = &self.phase else {
            return;
        };
        let through = follower.position();
        self.passed = Some(through).filter(|through| last < *through);
        (self.told_at, self.known) = (Instant::now(), Known::default());
        self.ready.push_back(Out::Shared(bytes));
    }

    /// Events of other items.
    fn pass_over(&mut self) {
        let Phase::Live(follower) = &self.phase else {
            return;
        };
        let through = follower.position().min(self.until());
        self.known = Known::default();
        self.push_frames(Vec::new(), Some(through));
        self.end_if_done(through);
    }

    /// Frames of the events after a position and up to another, or, where they are large, of the first of them; answers up to where. `None` if the
    /// view does not have the generation.
    async fn push_told(
        &mut self,
        pool: Arc<P::Snapshot>,
        after: Position,
        told: Vec<Told>,
        through: Position,
    ) -> Result<Option<Position>, FollowError> {
        let projection = &self.ruled.projection;
        if self.ask.wanted.is_of_events() {
            let mut changes = Vec::new();
            for told in &told {
                let change = told.change(projection)?;
                if let Some(change) = change.filter(|change| self.ask.wanted.names(&change.item_id))
                {
                    let data = change_json(&told.event, &change, self.ask.wanted.nested);
                    changes.push((told.event.position, data));
                }
            }
            let last = told.last().map(|told| told.event.position);
            self.push_changes(changes, last.map(|last| last.min(through)));
            return Ok(Some(through));
        }
        let stretch = stretch((after, through), told, projection, &self.ask.wanted)?;
        if self.ask.wanted.merged {
            let folded = self.fold(pool, stretch, self.merging()).await?;
            let Some((merging, through)) = folded else {
                return Ok(None);
            };
            self.push_merged(merging, after, through).await;
            return Ok(Some(through));
        }
        let (stream, wanted) = (self.ask.stream.clone(), Arc::clone(&self.ask.wanted));
        let each = Each::new(stream, wanted, CHANGES_BYTES_MAX);
        let folded = self.fold(pool, stretch, each).await?;
        self.known.forget_if_large();
        Ok(folded.map(|(each, through)| {
            self.push_changes(
                each.told(),
                Some(through).filter(|through| *through > after),
            );
            through
        }))
    }

    /// Tells an observer what happens in a stretch, as a view says, and up to where it was told; `None` if that does not have the generation.
    async fn fold<O: Observer>(
        &mut self,
        pool: Arc<P::Snapshot>,
        stretch: Stretch,
        observer: O,
    ) -> Result<Option<(O, Position)>, FollowError> {
        let view = View {
            pool,
            stream: self.ask.stream.clone(),
            ruled: self.ruled.clone(),
        };
        // IMPORTANT: taken, so that nothing is known where nothing was told: whoever then begins before this stretch looks items up again.
        let known = std::mem::take(&mut self.known);
        let folded = self.app.engine.fold(view, known, stretch, observer).await?;
        Ok(folded.map(|folded| {
            self.known = folded.known;
            (folded.observer, folded.through)
        }))
    }

    fn push_changes(&mut self, changes: Vec<(Position, String)>, through: Option<Position>) {
        let frame = |(position, data)| Frame {
            event: "change",
            cursor: Some(self.app.engine.cursor(self.ruled.generation, position)),
            data,
        };
        let frames = changes.into_iter().map(frame).collect();
        self.push_frames(frames, through);
    }

    /// Frames; and what was passed over behind them, up to a position, is told by a bookmark, but not too often.
    fn push_frames(&mut self, frames: Vec<Frame>, through: Option<Position>) {
        let told = frames.iter().rev().find_map(|frame| frame.cursor);
        let silent = frames.is_empty() && self.told_at.elapsed() >= BOOKMARK_EVERY;
        if !frames.is_empty() {
            (self.told_at, self.passed) = (Instant::now(), None);
            self.ready.push_back(Out::Frames(frames));
        }
        let behind = |through: &Position| told.is_none_or(|told| told.position < *through);
        if let Some(through) = through.filter(behind) {
            self.passed = Some(through);
            if silent {
                self.break_silence();
            }
        }
    }

    fn may_still_read(&self) -> bool {
        self.viewer
            .may_read(&self.app.engine, self.ask.stream.as_str())
    }

    fn bookmark(&mut self, position: Position) {
        self.told_at = Instant::now();
        let data = format!(r#"{{"position":{position}}}"#);
        self.push("bookmark", position, data);
    }

    /// Says that there is no way from where the client is; a snapshot of the served generation follows.
    fn reset(&mut self, reason: &str, requested: &str, pool: Arc<P::Snapshot>) -> Phase<L, P> {
        let generation = self.ruled.generation;
        let earliest = self
            .app
            .engine
            .cursor(generation, self.earliest())
            .to_string();
        // Only as much of a stranger's text as a cursor may have.
        let requested: String = requested.chars().take(64).collect();
        let data =
            serde_json::json!({ "reason": reason, "requested": requested, "earliest": earliest });
        self.known = Known::default();
        self.listed.is_nowhere();
        self.push_lost("reset", checkpoint(&*pool), data.to_string());
        self.snapshot(pool)
    }

    /// Holds a view, or what reads one, for as long as a connection may.
    fn lease<T: Send + 'static>(&self, held: T) -> Lease<T> {
        self.app.lease(held)
    }

    fn goodbye(&mut self, reason: &'static str) {
        if let Some(position) = self.passed.take() {
            self.bookmark(position);
        }
        self.ready.push_back(Out::Goodbye(reason));
        self.phase = Phase::Ended;
    }

    /// The id behind which a client holds neither what it had nor what it gets: who is cut off there begins with a snapshot, whatever is
    /// served by then. Without it the client would come back with the id before, which may have become a good one.
    fn nowhere(&self, position: Position) -> Cursor {
        self.app.engine.cursor(Generation::NONE, position)
    }

    fn push_lost(&mut self, event: &'static str, position: Position, data: String) {
        // What was passed over before is no place to go on from any more.
        self.passed = None;
        self.push_one(event, self.nowhere(position), data);
    }

    fn push(&mut self, event: &'static str, position: Position, data: String) {
        let cursor = self.app.engine.cursor(self.ruled.generation, position);
        self.push_one(event, cursor, data);
    }

    fn push_one(&mut self, event: &'static str, cursor: Cursor, data: String) {
        let cursor = Some(cursor);
        self.ready.push_back(Out::Frames(vec![Frame {
            event,
            cursor,
            data,
        }]));
    }
}
