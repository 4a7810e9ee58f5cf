//! Retention: keeps less history of streams, as their plans say, and never another state of their items.
//!
//! For each stream a floor rises with time or with the head. It is recorded first, and from then on nothing before it can be read. Then the
//! pool lets go of what its items do not need of the expired events, and is synced; then the log drops what the pool no longer names. Each
//! step can be broken off anywhere and done again. A failure is logged, counted and tried again; nothing else depends on it.

mod drop;
mod floor;
mod trim;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hookpool_core::{
    control::ControlChange,
    key::KeyId,
    name::StreamName,
    plan::Plan,
    position::{Generation, Position},
    registry::Registry,
};
use hookpool_store::{
    AppendError, Dropped, EventLog, PoolError, PoolSnapshot, PoolStore, ReadError,
};
use thiserror::Error;
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};

use crate::{
    clock::Clock,
    control::{Control, ControlError},
    follow::{FollowError, blocking, follows_checkpoint},
    projector::Command,
    status::StatusCell,
};

pub use floor::Expiring;
pub(crate) use floor::Floors;
pub(crate) use trim::Trim;

/// How often floors rise by themselves.
const EVERY: Duration = Duration::from_secs(600);
/// How long a stream is left alone that could not be finished.
const RETRY: Duration = Duration::from_secs(1);
/// What is recorded as the author of a floor that rose by itself.
const AUTHOR: &str = "retention";

/// Why history is not dropped now. It is tried again.
#[derive(Debug, Error)]
pub enum RetainError {
    /// The log can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The past of an item can't be read.
    #[error(transparent)]
    Follow(#[from] FollowError),
    /// The pool.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// A floor could not be recorded.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Events could not be dropped.
    #[error("drop events: {0}")]
    Drop(#[from] AppendError),
    /// A bug: it is reported where it happened.
    #[error("drop history: it broke off")]
    BrokeOff,
}

/// What the history of a stream waits for before it can be dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// A rebuild reads all of it.
    Rebuild(Generation),
    /// One call goes back to a generation that may need other events.
    Previous(Generation),
    /// The pool has not applied it yet.
    Pool,
}

/// How far the retention of a stream is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RetentionState {
    /// What it waits for.
    pub waiting: Option<Waiting>,
    /// Whether it is being brought up to the floor.
    pub working: bool,
    /// The floor that it was brought up to.
    pub done: Option<Position>,
    /// Expired events that items need; known once it is at the floor.
    pub kept: Option<u64>,
    /// Items of which all expired events are kept, since fewer did not prove to be enough.
    pub whole_items: u64,
    /// Why it failed the last time; it is tried again.
    pub failed: Option<String>,
    /// How often it was looked at since the start.
    pub looks: u64,
}

/// What was done since the start.
#[derive(Debug, Default)]
pub struct RetentionStats {
    /// Events that were dropped.
    pub events: AtomicU64,
    /// Their bytes in the log.
    pub bytes: AtomicU64,
    /// Attempts that failed.
    pub failures: AtomicU64,
}

/// How far retention is, shared with those who ask.
#[derive(Debug, Default)]
pub struct Retentions {
    states: Mutex<BTreeMap<StreamName, RetentionState>>,
    /// Streams whose log is being thinned: no rebuild begins to read one.
    thinning: Mutex<BTreeSet<StreamName>>,
    stats: RetentionStats,
    /// Somebody set one.
    set: Notify,
}

impl Retentions {
    /// How far a stream is.
    #[must_use]
    pub fn state(&self, stream: &StreamName) -> RetentionState {
        locked(&self.states)
            .get(stream)
            .cloned()
            .unwrap_or_default()
    }

    /// What was done since the start.
    #[must_use]
    pub fn stats(&self) -> &RetentionStats {
        &self.stats
    }

    /// Brings every stream to where its floor should be now.
    pub fn look(&self) {
        self.set.notify_one();
    }

    pub(crate) fn is_thinning(&self, stream: &StreamName) -> bool {
        locked(&self.thinning).contains(stream)
    }

    fn update(&self, stream: &StreamName, change: impl FnOnce(&mut RetentionState)) {
        change(locked(&self.states).entry(stream.clone()).or_default());
    }

    fn count(&self, dropped: Dropped) {
        self.stats
            .events
            .fetch_add(dropped.events, Ordering::Relaxed);
        self.stats.bytes.fetch_add(dropped.bytes, Ordering::Relaxed);
    }
}

/// Says that a stream is being thinned until it is dropped.
struct Thinning<'a>(&'a Retentions, &'a StreamName);

impl<'a> Thinning<'a> {
    fn begin(retentions: &'a Retentions, stream: &'a StreamName) -> Self {
        locked(&retentions.thinning).insert(stream.clone());
        Self(retentions, stream)
    }
}

impl Drop for Thinning<'_> {
    fn drop(&mut self) {
        locked(&self.0.thinning).remove(self.1);
    }
}

/// Keeps what the plans say is to be kept.
pub(crate) struct Retainer<L, P: PoolStore> {
    pub(crate) log: Arc<L>,
    pub(crate) pool: Arc<P>,
    pub(crate) control: Arc<Control<L>>,
    pub(crate) projector: mpsc::UnboundedSender<Command<P::Snapshot>>,
    pub(crate) retentions: Arc<Retentions>,
    pub(crate) clock: Clock,
    pub(crate) status: StatusCell,
}

/// Up to where a generation is finished.
type Finished = BTreeMap<StreamName, (Generation, Position)>;

impl<L: EventLog, P: PoolStore> Retainer<L, P> {
    /// Runs until the engine ends; what is under way is broken off between two of its parts.
    pub(crate) async fn run(self) {
        let this = Arc::new(self);
        let mut plans = this.control.changes();
        let mut finished = Finished::new();
        let mut seen: BTreeMap<StreamName, Arc<Plan>> = BTreeMap::new();
        let mut unfinished = BTreeSet::new();
        let mut rise = Instant::now();
        loop {
            let again = match unfinished.is_empty() {
                true => rise,
                false => rise.min(Instant::now() + RETRY),
            };
            let set = tokio::select! {
                biased;
                _ = this.status.ended() => return,
                () = this.retentions.set.notified() => true,
                // Our own handle of the control keeps the channel open.
                _ = plans.changed() => false,
                () = tokio::time::sleep_until(again) => false,
            };
            let all = set || rise <= Instant::now();
            if all {
                rise = Instant::now() + EVERY;
            }
            for (stream, plan) in this.plans() {
                let other = seen.get(&stream).is_none_or(|seen| !is_same(seen, &plan));
                let wanted = !plan.retention.is_unlimited() || plan.floor.is_some();
                if wanted && (all || other || unfinished.contains(&stream)) {
                    match this.keep_or_fail(&stream, &mut finished).await {
                        true => unfinished.remove(&stream),
                        false => unfinished.insert(stream.clone()),
                    };
                }
                seen.insert(stream, plan);
            }
        }
    }

    fn plans(&self) -> Vec<(StreamName, Arc<Plan>)> {
        let registry = self.control.registry();
        let plans = registry.plans();
        plans
            .map(|(name, plan)| (name.clone(), Arc::clone(plan)))
            .collect()
    }

    /// Whether there is nothing left to do before the floor rises again.
    async fn keep_or_fail(self: &Arc<Self>, stream: &StreamName, finished: &mut Finished) -> bool {
        let done = finished.get(stream).copied();
        let (this, name) = (Arc::clone(self), stream.clone());
        // A panic is a failure of the retention: what is served does not depend on it.
        let kept = tokio::spawn(async move { this.keep(&name, done).await }).await;
        let kept = kept.unwrap_or(Err(RetainError::BrokeOff));
        self.retentions.update(stream, |state| {
            state.working = false;
            state.looks += 1;
            state.failed = kept.as_ref().err().map(ToString::to_string);
            if let Ok(Some((_, done))) = &kept {
                state.done = Some(*done);
            }
        });
        match kept {
            Ok(Some(done)) => {
                finished.insert(stream.clone(), done);
                true
            }
            Ok(None) => {
                finished.remove(stream);
                false
            }
            Err(error) => {
                finished.remove(stream);
                tracing::warn!(%stream, %error, "history could not be dropped; trying again");
                self.retentions
                    .stats
                    .failures
                    .fetch_add(1, Ordering::Relaxed);
                if let RetainError::Drop(AppendError::Final(_)) = error {
                    // The log has stopped, for everybody.
                    self.status.fail(error.to_string());
                }
                false
            }
        }
    }

    /// Raises the floor if it should, and brings pool and log up to it; where that was finished, or `None` if it has to wait.
    async fn keep(
        &self,
        stream: &StreamName,
        done: Option<(Generation, Position)>,
    ) -> Result<Option<(Generation, Position)>, RetainError> {
        let thinning = Thinning::begin(&self.retentions, stream);
        // IMPORTANT: after the stream is marked: a rebuild is planned before it looks for the mark.
        let plan = self.control.registry().plan(stream.as_str());
        let waiting = self.waiting(stream, &plan)?;
        self.retentions
            .update(stream, |state| state.waiting = waiting);
        if waiting.is_some() {
            return Ok(None);
        }
        if let Some(floor) = self.floors().next(stream, &plan, plan.retention).await? {
            let change = ControlChange::HistoryDropped {
                stream: stream.clone(),
                through: floor.position,
                time: floor.time,
            };
            let author = KeyId::from(AUTHOR);
            // An operator who has set another retention has its answer, and nothing drops by the one before.
            let same = |registry: &Registry| *registry.plan(stream.as_str()) == *plan;
            let recorded = self
                .control
                .change_if(&author, stream.as_str(), change, same);
            if !recorded.await? {
                return Ok(None);
            }
        }
        let to = self.control.registry().plan(stream.as_str()).earliest();
        let generation = plan.live.generation;
        if done == Some((generation, to)) || to == Position::ZERO {
            return Ok(Some((generation, to)));
        }
        self.retentions.update(stream, |state| state.working = true);
        let after = done.filter(|(of, _)| *of == generation);
        let after = after.map_or(Position::ZERO, |(_, position)| position);
        let finished = self.bring_up(stream, &plan, after, to).await?;
        drop(thinning);
        Ok(finished.then_some((generation, to)))
    }

    fn waiting(&self, stream: &StreamName, plan: &Plan) -> Result<Option<Waiting>, PoolError> {
        if let Some(next) = &plan.next {
            return Ok(Some(Waiting::Rebuild(next.made.generation)));
        }
        if let Some(previous) = &plan.previous {
            return Ok(Some(Waiting::Previous(previous.generation)));
        }
        let (pool, live) = (self.pool.snapshot(), plan.live.generation);
        let applied = pool.checkpoint().map_or(Position::ZERO, |at| at.position);
        let served = pool.served(stream)?;
        let there = match served {
            Some(served) => served == live && follows_checkpoint(&*pool, stream, live)?,
            // Nothing of the stream is applied, so nothing can expire.
            None => plan.floor.is_none(),
        };
        Ok((!there || applied < plan.earliest()).then_some(Waiting::Pool))
    }

    fn floors(&self) -> Floors<L, P> {
        Floors {
            log: Arc::clone(&self.log),
            pool: Arc::clone(&self.pool),
            clock: self.clock.clone(),
        }
    }

    /// Whether the stream is still the one that was looked at: nothing is being rebuilt, nothing else is served, nobody stops.
    fn may_go_on(&self, stream: &StreamName, plan: &Plan) -> bool {
        let now = self.control.registry().plan(stream.as_str());
        let same = now.next.is_none() && now.previous.is_none() && now.live == plan.live;
        same && self.status.is_ready()
    }

    async fn bring_up(
        &self,
        stream: &StreamName,
        plan: &Plan,
        after: Position,
        to: Position,
    ) -> Result<bool, RetainError> {
        let go_on = || self.may_go_on(stream, plan);
        if after == Position::ZERO {
            self.retentions
                .update(stream, |state| state.whole_items = 0);
        }
        let live = &plan.live;
        let quarantined = self.drop_quarantined(stream, live.generation, to, &go_on);
        if !quarantined.await? {
            return Ok(false);
        }
        let Some(trimmed) = self.trim(stream, live, after, to, &go_on).await? else {
            return Ok(false);
        };
        let pool = Arc::clone(&self.pool);
        // IMPORTANT: before anything is dropped that older commits were made of.
        blocking(move || pool.sync()).await?;
        if after > Position::ZERO {
            return self.drop_trimmed(stream, trimmed, &go_on).await;
        }
        // Something may be left of an attempt that was broken off.
        self.drop_unnamed(stream, live, to, &go_on).await
    }
}

/// Whether a change of plans is none that retention has to look at.
fn is_same(one: &Plan, other: &Plan) -> bool {
    let (next, previous) = (one.next.is_some(), one.previous.is_some());
    one.retention == other.retention
        && one.live.generation == other.live.generation
        && (next, previous) == (other.next.is_some(), other.previous.is_some())
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
