//! One open change stream: where it starts, what it sends next, how it passes from one generation to another, and why it ends.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use hookpool_core::{
    cursor::Cursor,
    difference::Difference,
    key::PresentedKey,
    name::{ItemId, StreamName},
    plan::Ruled,
    position::{Generation, Position},
};
use hookpool_engine::{
    compare::{Comparison, Pair},
    follow::{FollowError, Follower, Form, Step, Told, blocking},
    status::Status,
};
use hookpool_store::{EventLog, ItemPage, PoolError, PoolSnapshot, PoolStore};
use tokio::sync::watch;

use crate::{
    app::App,
    metrics::FollowerGauge,
    render::{Nested, push_item},
    sse::{Framing, RETRY, difference_json},
};

/// Rows of a snapshot that are written at once.
const ROWS: usize = 256;
/// Bytes of item text in them; the last row may go over.
const ROWS_BYTES: usize = 256 << 10;

/// Where a client wants to start.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Start {
    Snapshot,
    Now,
    Earliest,
    /// As sent: whether it is a cursor of ours is answered on the stream.
    Cursor(String),
}

/// One open connection.
pub(super) struct Session<L, P: PoolStore> {
    app: Arc<App<L, P>>,
    framing: Framing,
    stream: StreamName,
    item: Option<ItemId>,
    heartbeat: Duration,
    authorization: Bytes,
    registry: watch::Receiver<Position>,
    status: watch::Receiver<Status>,
    /// The generation that cursors name.
    ruled: Ruled,
    /// The head when the request came.
    opened_at: Position,
    phase: Phase<L, P>,
    /// Frames that are ready to go out before the phase goes on.
    ready: VecDeque<Bytes>,
    greeted: bool,
    _open: FollowerGauge,
}

enum Phase<L, P: PoolStore> {
    Start(Start),
    Snapshot {
        pool: Arc<P::Snapshot>,
        after: Option<ItemId>,
        rows: u64,
    },
    Live(Box<Follower<L, P>>),
    /// Another generation is served: what is left of the one before, as of a view that has both.
    Leaving {
        pool: Arc<P::Snapshot>,
        to: Ruled,
        after: Position,
    },
    /// The difference between the two, in the same view.
    Crossing {
        comparison: Box<Comparison<P::Snapshot>>,
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
    Quiet,
    Stopping,
    RegistryChanged,
}

impl<L: EventLog, P: PoolStore> Session<L, P> {
    pub(super) fn new(
        app: &Arc<App<L, P>>,
        framing: Framing,
        stream: StreamName,
        item: Option<ItemId>,
        heartbeat: Duration,
        authorization: Bytes,
        start: Start,
    ) -> Self {
        let plan = app.engine.control().registry().plan(stream.as_str());
        Self {
            framing,
            stream,
            item,
            heartbeat,
            authorization,
            registry: changed_at_first(app.engine.control().changes()),
            status: app.engine.status().subscribe(),
            ruled: plan.live.clone(),
            // The head, not what is applied: what was acknowledged before this request is the past.
            opened_at: app.engine.head(),
            phase: Phase::Start(start),
            ready: VecDeque::new(),
            greeted: false,
            _open: app.metrics.follower(),
            app: Arc::clone(app),
        }
    }

    async fn begin(&mut self) -> Result<(), PoolError> {
        let Phase::Start(start) = std::mem::replace(&mut self.phase, Phase::Ended) else {
            return Ok(());
        };
        let pool = self.app.engine.pool();
        self.ruled = self.served(&pool).await?;
        self.phase = match start {
            Start::Snapshot => snapshot(pool),
            Start::Earliest => self.live(self.earliest()),
            Start::Now => {
                self.bookmark(self.opened_at);
                self.live(self.opened_at)
            }
            Start::Cursor(text) => match self.honour(&text) {
                Ok(position) => self.live(position),
                Err(reason) => self.reset(reason, &text, pool),
            },
        };
        Ok(())
    }

    /// The generation that a view of the pool serves.
    async fn served(&self, pool: &Arc<P::Snapshot>) -> Result<Ruled, PoolError> {
        let (app, pool, stream) = (Arc::clone(&self.app), Arc::clone(pool), self.stream.clone());
        blocking(move || app.engine.served(&pool, &stream)).await
    }

    /// The position of a cursor that this log can go on from.
    ///
    /// One of another generation is not: who was cut off in the middle of a difference holds some of both.
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
        self.app.engine.earliest(&self.stream)
    }

    fn live(&self, after: Position) -> Phase<L, P> {
        let shared = self.framing == Framing::Sse && self.item.is_none();
        let form = if shared { Form::Encoded } else { Form::Events };
        Phase::Live(Box::new(self.app.engine.follow(
            self.stream.clone(),
            self.ruled.clone(),
            form,
            after,
        )))
    }

    /// The next bytes to send, or the end.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                return Some(self.greet(bytes));
            }
            if !matches!(self.phase, Phase::Ended | Phase::Live(_)) && self.must_end() {
                continue;
            }
            let outcome = match &self.phase {
                Phase::Ended => return None,
                Phase::Live(_) => self.live_step().await,
                Phase::Start(_) => self.begin().await.map_err(FollowError::from),
                Phase::Snapshot { .. } => self.snapshot_rows().await.map_err(FollowError::from),
                Phase::Leaving { .. } => self.leave().await,
                Phase::Crossing { .. } => self.cross().await.map_err(FollowError::from),
            };
            let outcome = match outcome {
                Err(FollowError::BeforeRetention(_)) => self.overtaken().await,
                outcome => outcome,
            };
            if let Err(error) = outcome {
                tracing::error!(stream = %self.stream, %error, "a follower can't go on");
                self.goodbye("unreadable");
            }
        }
    }

    /// History went while this client was still in it: a snapshot of what is served, and never a hole.
    async fn overtaken(&mut self) -> Result<(), FollowError> {
        let at = match &self.phase {
            Phase::Live(follower) => follower.position(),
            Phase::Leaving { after, .. } => *after,
            Phase::Start(_) | Phase::Snapshot { .. } | Phase::Crossing { .. } | Phase::Ended => {
                self.opened_at
            }
        };
        let cursor = self.app.engine.cursor(self.ruled.generation, at);
        let pool = self.app.engine.pool();
        self.ruled = self.served(&pool).await?;
        self.phase = self.reset("before-retention", &cursor.to_string(), pool);
        Ok(())
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

    /// The first frame with data carries the retry time; alone it would be an empty event to some clients.
    fn greet(&mut self, bytes: Bytes) -> Bytes {
        if self.greeted || self.framing == Framing::Ndjson || !bytes.starts_with(b"event:") {
            return bytes;
        }
        self.greeted = true;
        [RETRY, &bytes].concat().into()
    }

    /// Some rows of the snapshot, or its end.
    async fn snapshot_rows(&mut self) -> Result<(), PoolError> {
        let Phase::Snapshot { pool, after, .. } = &self.phase else {
            return Ok(());
        };
        let rows = rows_after(
            Arc::clone(pool),
            self.stream.clone(),
            self.ruled.generation,
            self.item.clone(),
            after.clone(),
        );
        let page = blocking(rows).await?;
        self.push_rows(&page);
        Ok(())
    }

    fn push_rows(&mut self, page: &ItemPage) {
        let Phase::Snapshot { pool, after, rows } = &mut self.phase else {
            return;
        };
        *rows += page.items.len() as u64;
        let mut bytes = Vec::new();
        for (id, item) in &page.items {
            let mut json = format!(r#"{{"stream":"{}","#, self.stream);
            push_item(&mut json, id.as_str(), item, Nested::AsString);
            json.push_str(&format!(r#","position":{}}}"#, item.position));
            self.framing.push(&mut bytes, "item", None, &json);
        }
        if !bytes.is_empty() {
            self.ready.push_back(bytes.into());
        }
        if page.more {
            *after = page.items.last().map(|(id, _)| id.clone());
            return;
        }
        let position = checkpoint(&**pool);
        let data = format!(r#"{{"position":{position},"items":{rows}}}"#);
        self.push("snapshot-end", Some(position), &data);
        self.phase = self.live(position);
    }

    async fn live_step(&mut self) -> Result<(), FollowError> {
        match self.woken().await {
            Woken::Step(step) => match step? {
                Step::Encoded(bytes) => self.ready.push_back(bytes),
                Step::Told(told) => self.push_told(&told)?,
                Step::Retired => self.go_over().await?,
            },
            Woken::Quiet => self
                .ready
                .push_back(Bytes::from_static(self.framing.heartbeat())),
            Woken::Stopping => self.goodbye("shutdown"),
            Woken::RegistryChanged => {
                if !self.may_still_read() {
                    self.goodbye("revoked");
                }
            }
        }
        Ok(())
    }

    /// From the generation that was followed to the one that is served now.
    async fn go_over(&mut self) -> Result<(), FollowError> {
        let Phase::Live(follower) = &self.phase else {
            return Ok(());
        };
        let after = follower.position();
        let pool = self.app.engine.pool();
        let to = self.served(&pool).await?;
        self.phase = if to.generation == self.ruled.generation {
            self.live(after)
        } else {
            Phase::Leaving { pool, to, after }
        };
        Ok(())
    }

    /// What is left of the generation before, page by page, then the frame that says that another is served.
    ///
    /// Until the difference is through, the id is one of the generation before, which nobody can resume from: a client that breaks off in
    /// it gets a snapshot.
    async fn leave(&mut self) -> Result<(), FollowError> {
        let Phase::Leaving { pool, to, after } = &self.phase else {
            return Ok(());
        };
        let (pool, to, after) = (Arc::clone(pool), to.clone(), *after);
        let (stream, generation) = (self.stream.clone(), self.ruled.generation);
        let page = self
            .app
            .engine
            .told(Arc::clone(&pool), stream, generation, after);
        let Some((told, through)) = page.await? else {
            let cursor = self.app.engine.cursor(generation, after).to_string();
            self.ruled = to;
            self.phase = self.reset("other-generation", &cursor, pool);
            return Ok(());
        };
        self.push_told(&told)?;
        let at = checkpoint(&*pool);
        self.phase = if through < at {
            Phase::Leaving {
                pool,
                to,
                after: through,
            }
        } else {
            let (number, version) = (to.generation, to.projection.version);
            let data =
                format!(r#"{{"generation":{number},"projection":{version},"position":{at}}}"#);
            self.push("generation", Some(at), &data);
            let stream = self.stream.clone();
            let comparison = Comparison::new(pool, stream, generation, number);
            Phase::Crossing {
                comparison: Box::new(comparison),
                to,
                at,
            }
        };
        Ok(())
    }

    /// Some of the difference, or its end.
    async fn cross(&mut self) -> Result<(), PoolError> {
        let Phase::Crossing {
            mut comparison,
            to,
            at,
        } = std::mem::replace(&mut self.phase, Phase::Ended)
        else {
            return Ok(());
        };
        let read = move || comparison.pairs().map(|pairs| (pairs, comparison));
        let (pairs, comparison) = blocking(read).await?;
        match pairs {
            Some(pairs) => {
                self.push_differences(&pairs, at);
                self.phase = Phase::Crossing { comparison, to, at };
            }
            None => {
                self.ruled = to;
                self.bookmark(at);
                self.phase = self.live(at);
            }
        }
        Ok(())
    }

    fn push_differences(&mut self, pairs: &[Pair], at: Position) {
        let mut bytes = Vec::new();
        let time = self.app.engine.now();
        for pair in pairs.iter().filter(|pair| self.wants(&pair.id)) {
            let difference = Difference::between(pair.old.as_ref(), pair.new.as_ref());
            if let Some(difference) = difference {
                let json = difference_json(&self.stream, &pair.id, &difference, at, time);
                self.framing.push(&mut bytes, "change", None, &json);
            }
        }
        if !bytes.is_empty() {
            self.ready.push_back(bytes.into());
        }
    }

    fn wants(&self, id: &ItemId) -> bool {
        self.item.as_ref().is_none_or(|item| item == id)
    }

    async fn woken(&mut self) -> Woken {
        let Phase::Live(follower) = &mut self.phase else {
            return Woken::Quiet;
        };
        tokio::select! {
            biased;
            _ = self.status.wait_for(|status| *status != Status::Ready) => Woken::Stopping,
            _ = self.registry.changed() => Woken::RegistryChanged,
            step = follower.next() => Woken::Step(step),
            () = tokio::time::sleep(self.heartbeat) => Woken::Quiet,
        }
    }

    /// Frames of these events; a bookmark if nothing of them is shown.
    fn push_told(&mut self, told: &[Told]) -> Result<(), FollowError> {
        let mut bytes = Vec::new();
        for told in told {
            let Some(change) = told.change(&self.ruled.projection)? else {
                continue;
            };
            if self.wants(&change.item_id) {
                let cursor = self
                    .app
                    .engine
                    .cursor(self.ruled.generation, told.event.position);
                self.framing
                    .push_change(&mut bytes, &cursor, &told.event, &change);
            }
        }
        match told.last() {
            _ if !bytes.is_empty() => self.ready.push_back(bytes.into()),
            Some(last) => self.bookmark(last.event.position),
            None => {}
        }
        Ok(())
    }

    fn may_still_read(&self) -> bool {
        PresentedKey::from_authorization(&self.authorization)
            .and_then(|key| self.app.engine.access(&key))
            .is_some_and(|access| access.may_read(self.stream.as_str()))
    }

    fn bookmark(&mut self, position: Position) {
        self.push(
            "bookmark",
            Some(position),
            &format!(r#"{{"position":{position}}}"#),
        );
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
        self.push("reset", None, &data.to_string());
        snapshot(pool)
    }

    fn goodbye(&mut self, reason: &str) {
        self.push("goodbye", None, &format!(r#"{{"reason":"{reason}"}}"#));
        self.phase = Phase::Ended;
    }

    fn push(&mut self, event: &str, position: Option<Position>, data: &str) {
        let generation = self.ruled.generation;
        let cursor = position.map(|position| self.app.engine.cursor(generation, position));
        let mut bytes = Vec::new();
        self.framing.push(&mut bytes, event, cursor.as_ref(), data);
        self.ready.push_back(bytes.into());
    }
}

fn snapshot<L, P: PoolStore>(pool: Arc<P::Snapshot>) -> Phase<L, P> {
    Phase::Snapshot {
        pool,
        after: None,
        rows: 0,
    }
}

fn checkpoint(pool: &impl PoolSnapshot) -> Position {
    pool.checkpoint()
        .map_or(Position::ZERO, |checkpoint| checkpoint.position)
}

/// The next rows of a snapshot, all of them or those of one item.
fn rows_after<S: PoolSnapshot>(
    pool: Arc<S>,
    stream: StreamName,
    generation: Generation,
    item: Option<ItemId>,
    after: Option<ItemId>,
) -> impl FnOnce() -> Result<ItemPage, PoolError> {
    move || match item {
        Some(id) => {
            let item = pool.item(&stream, generation, &id)?;
            Ok(ItemPage {
                items: item.map(|item| (id, item)).into_iter().collect(),
                more: false,
            })
        }
        None => pool.items(&stream, generation, after.as_ref(), ROWS, ROWS_BYTES),
    }
}
