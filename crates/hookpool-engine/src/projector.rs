//! Keeps the pool up with the log: reads pages after the checkpoint, folds them, commits items and checkpoint as one.
//!
//! Started on an empty pool it is a rebuild. It has a thread of its own, since commits block.

mod working_set;

use std::{sync::Arc, thread::JoinHandle, time::Duration};

use hookpool_core::{
    event::Event,
    json::{self, Fields},
    position::Position,
};
use hookpool_store::{
    Checkpoint, EventLog, PageRequest, PoolError, PoolSnapshot, PoolStore, ReadError,
};
use thiserror::Error;
use tokio::sync::watch;

use working_set::WorkingSet;

use crate::{
    follow::Rings,
    status::{FailOnPanic, Status, StatusCell},
};

/// Why the pool can't keep up with the log. Each is final.
#[derive(Debug, Error)]
pub enum ProjectError {
    /// The log.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The pool.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// An event that was checked before it was appended, and is not what it was.
    #[error("fold the event at position {0}: {1}")]
    Body(Position, json::JsonError),
}

/// How long a log that does not answer is left alone at first; doubled each time.
const RETRY_MIN: Duration = Duration::from_millis(2);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// A running projector.
#[derive(Debug)]
pub struct Projector {
    applied: watch::Receiver<Position>,
    thread: JoinHandle<()>,
}

impl Projector {
    /// Starts after the pool's checkpoint, and stops when the status says so.
    ///
    /// # Panics
    /// Outside a tokio runtime, or if the machine has no thread left.
    #[must_use]
    pub fn start<L: EventLog, P: PoolStore>(
        log: Arc<L>,
        pool: Arc<P>,
        rings: Arc<Rings>,
        status: StatusCell,
    ) -> Self {
        let checkpoint = pool
            .snapshot()
            .checkpoint()
            .map_or(Position::ZERO, |checkpoint| checkpoint.position);
        let (moved, applied) = watch::channel(checkpoint);
        let runtime = tokio::runtime::Handle::current();
        let run = move || {
            let _failing = FailOnPanic::new("the projector", &status);
            let mut projection = Projection {
                log,
                pool,
                rings,
                in_hand: WorkingSet::default(),
            };
            if let Err(error) = runtime.block_on(projection.run(checkpoint, &moved, &status)) {
                status.fail(error.to_string());
            }
        };
        let thread = std::thread::Builder::new()
            .name("projector".into())
            .spawn(run)
            .expect("a thread for the projector");
        Self { applied, thread }
    }

    /// The last applied position, as it moves.
    #[must_use]
    pub fn applied(&self) -> watch::Receiver<Position> {
        self.applied.clone()
    }

    /// Waits until the thread has ended; the status must have been changed.
    pub fn join(self) {
        // A panic of the projector has been reported on its thread.
        let _panicked = self.thread.join();
    }
}

struct Projection<L, P> {
    log: Arc<L>,
    pool: Arc<P>,
    rings: Arc<Rings>,
    in_hand: WorkingSet,
}

impl<L: EventLog, P: PoolStore> Projection<L, P> {
    async fn run(
        &mut self,
        mut at: Position,
        moved: &watch::Sender<Position>,
        status: &StatusCell,
    ) -> Result<(), ProjectError> {
        let mut pause = RETRY_MIN;
        loop {
            tokio::select! {
                biased;
                ended = status.ended() => {
                    // What was acknowledged before the stop is applied at the next start; a failed log is left alone.
                    debug_assert_ne!(ended, Status::Ready);
                    return Ok(());
                }
                _ = self.log.wait(at) => match self.apply_page(at).await {
                    Ok(through) => {
                        at = through;
                        pause = RETRY_MIN;
                    }
                    // A backend that does not answer may do so later; a damaged one will not.
                    Err(ProjectError::Read(error @ ReadError::Backend(_))) => {
                        tracing::warn!(%error, "the projector tries again");
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(RETRY_MAX);
                    }
                    Err(error) => return Err(error),
                },
            }
            moved.send_replace(at);
        }
    }

    async fn apply_page(&mut self, after: Position) -> Result<Position, ProjectError> {
        let page = self.log.page(PageRequest::after(after)).await?;
        let events = parsed(&page.events)?;
        let checkpoint = Checkpoint {
            epoch: self.log.epoch(),
            position: page.through,
        };
        let changes = self
            .in_hand
            .fold(&*self.pool.snapshot(), &events, checkpoint)?;
        self.pool.commit(changes)?;
        // IMPORTANT: after the commit, so that nobody sees a change before the pool has it.
        self.rings.publish(self.log.epoch(), &events, page.through);
        Ok(page.through)
    }
}

fn parsed(events: &[Event]) -> Result<Vec<(&Event, Fields<'_>)>, ProjectError> {
    let mut parsed = Vec::with_capacity(events.len());
    for event in events {
        let object = json::object(&event.event.body)
            .map_err(|error| ProjectError::Body(event.position, error))?;
        parsed.push((event, object.fields));
    }
    Ok(parsed)
}
