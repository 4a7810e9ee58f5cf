//! Rebuilds: generations that are made beside the served one, from the start of the log, while it goes on.
//!
//! The control log says what is to be rebuilt; this keeps a thread for each rebuild that runs, and removes what is not planned any more. A
//! rebuild that was broken off goes on from its last commit. When it has caught up, the projector takes its generation over, and every
//! item is compared with the served one.

mod halves;
mod job;

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hookpool_core::{
    name::StreamName,
    plan::{Plan, Rebuild},
    position::{Generation, Position},
};
use hookpool_store::{EventLog, PoolError, PoolSnapshot, PoolStore};
use tokio::sync::{Notify, mpsc, watch};

use crate::{
    control::Control,
    follow::blocking,
    projector::{Command, has_attached},
    retention::Retentions,
    status::{FailOnPanic, StatusCell},
};
use job::Job;

/// Rebuilds at once; others wait for their turn. More than there are processors would only take them from ingest.
const JOBS_MAX: usize = 2;
/// How often the plans are looked at when nothing is heard.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How long a removal that failed is left alone.
const RETRY: Duration = Duration::from_secs(1);

/// How far a rebuild is, as its job sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobState {
    /// Events of the stream that are folded, committed or not.
    pub events: u64,
    /// Events a second, lately.
    pub rate: u64,
    /// Items that were compared, once all events are folded.
    pub compared: Option<u64>,
    /// Why it broke off; it is tried again when the server starts or the rebuild is resumed.
    pub failed: Option<String>,
}

/// What a job and those who ask about it share.
#[derive(Debug, Default)]
pub(crate) struct JobCell {
    events: AtomicU64,
    rate: AtomicU64,
    compared: AtomicU64,
    comparing: std::sync::atomic::AtomicBool,
    failed: Mutex<Option<String>>,
}

impl JobCell {
    pub(crate) fn folded(&self, events: u64, rate: u64) {
        self.events.store(events, Ordering::Relaxed);
        self.rate.store(rate, Ordering::Relaxed);
    }

    pub(crate) fn compared(&self, items: u64) {
        self.comparing.store(true, Ordering::Relaxed);
        self.compared.store(items, Ordering::Relaxed);
    }

    fn state(&self) -> JobState {
        let comparing = self.comparing.load(Ordering::Relaxed);
        JobState {
            events: self.events.load(Ordering::Relaxed),
            rate: self.rate.load(Ordering::Relaxed),
            compared: comparing.then(|| self.compared.load(Ordering::Relaxed)),
            failed: locked(&self.failed).clone(),
        }
    }
}

/// The rebuilds that run or ran here.
#[derive(Debug, Default)]
pub struct Rebuilds {
    jobs: Mutex<BTreeMap<(StreamName, Generation), Entry>>,
    /// A job ended.
    ended: Notify,
}

#[derive(Debug)]
struct Entry {
    cell: Arc<JobCell>,
    running: bool,
}

impl Rebuilds {
    /// How far a rebuild is, if it ran since the server started.
    #[must_use]
    pub fn state(&self, stream: &StreamName, generation: Generation) -> Option<JobState> {
        let jobs = locked(&self.jobs);
        jobs.get(&(stream.clone(), generation))
            .map(|entry| entry.cell.state())
    }

    fn running(&self) -> usize {
        locked(&self.jobs)
            .values()
            .filter(|entry| entry.running)
            .count()
    }

    fn is_running(&self, stream: &StreamName, generation: Generation) -> bool {
        let jobs = locked(&self.jobs);
        jobs.get(&(stream.clone(), generation))
            .is_some_and(|entry| entry.running)
    }

    fn has_failed(&self, stream: &StreamName, generation: Generation) -> bool {
        self.state(stream, generation)
            .is_some_and(|state| state.failed.is_some())
    }
}

/// Starts and ends rebuilds as the plans say.
pub(crate) struct Rebuilder<L, P: PoolStore> {
    pub(crate) log: Arc<L>,
    pub(crate) pool: Arc<P>,
    pub(crate) control: Arc<Control<L>>,
    pub(crate) projector: mpsc::UnboundedSender<Command<P::Snapshot>>,
    /// Up to where the projector follows the plans.
    pub(crate) planned: watch::Receiver<Position>,
    pub(crate) rebuilds: Arc<Rebuilds>,
    pub(crate) retentions: Arc<Retentions>,
    pub(crate) status: StatusCell,
}

impl<L: EventLog, P: PoolStore> Rebuilder<L, P> {
    /// Runs until the engine ends, then waits for the jobs.
    pub(crate) async fn run(mut self) {
        let status = self.status.clone();
        let _failing = FailOnPanic::new("the rebuilder", &status);
        let mut plans = self.control.changes();
        plans.mark_changed();
        loop {
            tokio::select! {
                biased;
                _ = status.ended() => break,
                // Our own handle of the control keeps the channel open.
                _ = plans.changed() => self.forget_failures(),
                () = self.rebuilds.ended.notified() => {}
                _ = self.planned.changed() => {}
                // Whatever was missed is seen by then: a rebuild that rests without a reason is worse than a look at a few plans.
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
            self.start_jobs();
            if let Err(error) = self.remove_unplanned().await {
                tracing::warn!(%error, "a generation could not be removed; trying again");
                tokio::time::sleep(RETRY).await;
                self.rebuilds.ended.notify_one();
            }
        }
        while self.rebuilds.running() > 0 {
            self.rebuilds.ended.notified().await;
        }
    }

    /// A change of the plans is a reason to try again.
    fn forget_failures(&self) {
        let mut jobs = locked(&self.rebuilds.jobs);
        jobs.retain(|_, entry| entry.running || locked(&entry.cell.failed).is_none());
    }

    fn start_jobs(&self) {
        let registry = self.control.registry();
        for (stream, plan) in registry.plans() {
            let Some(rebuild) = plan.next.as_ref().filter(|rebuild| !rebuild.paused) else {
                continue;
            };
            let generation = rebuild.made.generation;
            let free = self.rebuilds.running() < JOBS_MAX;
            // A log that is being thinned would be read half before and half after.
            let thinning = self.retentions.is_thinning(stream);
            let busy = thinning || self.rebuilds.is_running(stream, generation);
            if free && !busy && !self.rebuilds.has_failed(stream, generation) {
                self.start(stream, plan, rebuild);
            }
        }
    }

    fn start(&self, stream: &StreamName, plan: &Arc<Plan>, rebuild: &Rebuild) {
        let generation = rebuild.made.generation;
        match is_ready(&*self.pool.snapshot(), stream, generation) {
            Ok(false) => {}
            Ok(true) => return,
            Err(error) => return self.status.fail(error.to_string()),
        }
        let cell = Arc::new(JobCell::default());
        let entry = Entry {
            cell: Arc::clone(&cell),
            running: true,
        };
        locked(&self.rebuilds.jobs).insert((stream.clone(), generation), entry);
        let job = Job {
            log: Arc::clone(&self.log),
            pool: Arc::clone(&self.pool),
            control: Arc::clone(&self.control),
            projector: self.projector.clone(),
            status: self.status.clone(),
            stream: stream.clone(),
            made: rebuild.made.clone(),
            live: plan.live.generation,
            cell,
        };
        let (rebuilds, name) = (Arc::clone(&self.rebuilds), stream.clone());
        let runtime = tokio::runtime::Handle::current();
        let run = move || {
            // A panic of a job is a failure of the job: what is served does not depend on it, and what it had in hand is dropped.
            let outcome = catch_unwind(AssertUnwindSafe(|| job.run(&runtime)));
            rebuilds.finish(&name, generation, outcome);
        };
        let thread = std::thread::Builder::new()
            .name("rebuild".into())
            .spawn(run);
        if let Err(error) = thread {
            self.rebuilds
                .finish(stream, generation, Ok(Err(error.into())));
        }
    }

    /// Removes generations that no plan names, once nobody writes them.
    async fn remove_unplanned(&self) -> Result<(), PoolError> {
        let snapshot = self.pool.snapshot();
        let generations = blocking(move || snapshot.generations()).await?;
        for (stream, generation) in generations {
            let planned = self.control.registry().plan(stream.as_str());
            let kept = planned.ruled(generation).is_some();
            if !kept && !self.rebuilds.is_running(&stream, generation) {
                let pool = Arc::clone(&self.pool);
                blocking(move || remove(&*pool, &stream, generation)).await?;
            }
        }
        Ok(())
    }
}

/// Removes a generation, unless it still follows the checkpoint.
///
/// IMPORTANT: then the projector goes by a plan from before, and needs it. It says in the pool when it does not.
fn remove(
    pool: &impl PoolStore,
    stream: &StreamName,
    generation: Generation,
) -> Result<(), PoolError> {
    match has_attached(&*pool.snapshot(), stream, generation)? {
        true => Ok(()),
        false => pool.remove(stream, generation),
    }
}

impl Rebuilds {
    fn finish(
        &self,
        stream: &StreamName,
        generation: Generation,
        outcome: std::thread::Result<Result<(), job::JobError>>,
    ) {
        let failed = match outcome {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("the rebuild broke off".to_owned()),
        };
        if let Some(reason) = &failed {
            tracing::error!(%stream, %generation, reason, "a rebuild failed");
        }
        if let Some(entry) = locked(&self.jobs).get_mut(&(stream.clone(), generation)) {
            entry.running = false;
            *locked(&entry.cell.failed) = failed;
        }
        self.ended.notify_one();
    }
}

/// Whether a generation was compared to the end, so that there is nothing to do but to promote it.
fn is_ready(
    pool: &impl PoolSnapshot,
    stream: &StreamName,
    generation: Generation,
) -> Result<bool, PoolError> {
    let state = pool.generation(stream, generation)?;
    Ok(state
        .and_then(|state| state.difference)
        .is_some_and(|difference| difference.whole))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use hookpool_store::{GenerationChanges, GenerationState, PoolChanges, memory::MemoryPool};

    use super::*;

    #[test]
    fn a_generation_is_removed_when_the_projector_has_let_go_of_it_and_not_before() {
        let (pool, stream) = (MemoryPool::default(), StreamName::new("s").unwrap());
        let generation = Generation(2);
        for (built, left) in [(None, 1), (Some(Position(7)), 0)] {
            let state = GenerationState {
                built,
                ..GenerationState::default()
            };
            let changes = GenerationChanges::empty(&stream, generation, state);
            let changes = PoolChanges {
                generations: vec![changes],
                ..PoolChanges::default()
            };
            pool.commit(changes).unwrap();
            remove(&pool, &stream, generation).unwrap();
            let generations = pool.snapshot().generations().unwrap();
            assert_eq!(generations.len(), left, "{built:?}");
        }
    }
}
