//! How an engine starts, and how its threads and tasks end.

use std::{sync::Arc, thread::JoinHandle};

use hookpool_core::{position::Position, seal::MasterKey};
use hookpool_store::{EventLog, PoolError, PoolSnapshot, PoolStore};
use thiserror::Error;
use tokio::{sync::mpsc, task::JoinHandle as TaskHandle};

use super::{Engine, in_flight::InFlight};
use crate::{
    appender::{Appender, Limits},
    clock::Clock,
    control::{Control, ControlReadError},
    entropy::Entropy,
    follow::{EncodeChange, Rings},
    pace::Paces,
    projector::{self, Projector},
    rebuild::{Rebuilder, Rebuilds},
    rejections::{Keeping, Rejections},
    retention::{Retainer, Retentions},
    status::StatusCell,
};

/// What an engine is started with, beside its stores.
#[derive(Debug)]
pub struct Options {
    /// Opens the signing keys of the control log.
    pub master: MasterKey,
    /// How changes look to followers.
    pub encode: EncodeChange,
    /// How much may wait.
    pub limits: Limits,
    /// Where the time comes from.
    pub clock: Clock,
    /// Where random bytes come from.
    pub entropy: Entropy,
    /// What is kept of refused deliveries.
    pub rejections: Keeping,
}

/// Why an engine does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The pool was made from a log that is not this one.
    #[error(
        "start: the pool belongs to log {pool}, and this is log {log}; restore the log it belongs to, or delete the pool folder to rebuild it from this one"
    )]
    ForeignPool {
        /// Epoch in the pool.
        pool: hookpool_core::position::Epoch,
        /// Epoch of the log.
        log: hookpool_core::position::Epoch,
    },
    /// The pool has what the log has not: the log lost events.
    #[error(
        "start: the pool has applied position {applied}, and the log ends at {head}: the log came back shorter; restore it from a backup"
    )]
    ShorterLog {
        /// Checkpoint of the pool.
        applied: Position,
        /// Head of the log.
        head: Position,
    },
    /// The control log.
    #[error(transparent)]
    Control(#[from] ControlReadError),
    /// The pool.
    #[error(transparent)]
    Pool(#[from] PoolError),
}

/// The threads and tasks of an engine.
#[derive(Debug)]
pub struct Running {
    projector: Projector,
    writers: Vec<JoinHandle<()>>,
    registry: TaskHandle<()>,
    rebuilder: TaskHandle<()>,
    retainer: TaskHandle<()>,
    runtime: tokio::runtime::Handle,
}

impl Running {
    /// Waits until all have ended; every handle of the engine must be dropped, and its status changed. May block.
    pub fn join(self) {
        // Its panic has been reported as a failure of the engine.
        let _panicked = self.runtime.block_on(self.rebuilder);
        let _panicked = self.runtime.block_on(self.retainer);
        self.registry.abort();
        self.projector.join();
        for writer in self.writers {
            // A panic of a writer has been reported on its thread.
            let _panicked = writer.join();
        }
    }
}

impl<L: EventLog, P: PoolStore> Engine<L, P> {
    /// Starts the pipeline: reads the control log, checks that pool and log belong together, starts the writers and the projector.
    ///
    /// # Errors
    /// [`StartError`], each with the way out.
    pub async fn start(
        log: L,
        control: L,
        pool: P,
        options: Options,
    ) -> Result<(Arc<Self>, Running), StartError> {
        let Options {
            master,
            encode,
            limits,
            clock,
            entropy,
            rejections,
        } = options;
        let heads = master.head_key().clone();
        let (log, pool, status) = (Arc::new(log), Arc::new(pool), StatusCell::default());
        let applied = check_pool(&*log, &*pool)?;
        let control = Arc::new(control);
        let (control_appender, control_writer) =
            Appender::start(Arc::clone(&control), limits, status.clone());
        let control = Control::open(
            control,
            control_appender,
            master,
            clock.clone(),
            entropy.clone(),
        )
        .await?;
        let control = Arc::new(control);
        projector::must_be_of(&control.registry(), &*pool.snapshot())?;
        let (appender, writer) = Appender::start(Arc::clone(&log), limits, status.clone());
        let served = pool.snapshot().streams()?.into_iter().collect();
        let rings = Arc::new(Rings::new(encode, log.epoch(), applied, served));
        let (command, commands) = mpsc::unbounded_channel();
        let projector = Projector::start(
            Arc::clone(&log),
            Arc::clone(&pool),
            Arc::clone(&rings),
            Arc::clone(&control),
            commands,
            status.clone(),
        );
        let rebuilds = Arc::new(Rebuilds::default());
        let retentions = Arc::new(Retentions::default());
        let rebuilder = Rebuilder {
            log: Arc::clone(&log),
            pool: Arc::clone(&pool),
            control: Arc::clone(&control),
            projector: command.clone(),
            planned: projector.planned(),
            rebuilds: Arc::clone(&rebuilds),
            retentions: Arc::clone(&retentions),
            status: status.clone(),
        };
        let rebuilder = tokio::spawn(rebuilder.run());
        let retainer = Retainer {
            log: Arc::clone(&log),
            pool: Arc::clone(&pool),
            control: Arc::clone(&control),
            projector: command.clone(),
            retentions: Arc::clone(&retentions),
            clock: clock.clone(),
            status: status.clone(),
        };
        let retainer = tokio::spawn(retainer.run());
        let (rejections, keeper) = {
            let control = Arc::clone(&control);
            Rejections::start(rejections, move || Arc::clone(&control.registry()))
        };
        let registry = {
            let (control, status) = (Arc::clone(&control), status.clone());
            tokio::spawn(async move { control.follow(&status).await })
        };
        let engine = Self {
            log,
            pool,
            rings,
            control,
            appender,
            in_flight: InFlight::default(),
            applied: projector.applied(),
            planned: projector.planned(),
            projector: command,
            rebuilds,
            retentions,
            rejections: Arc::new(rejections),
            paces: Paces::default(),
            status,
            clock,
            entropy,
            heads,
        };
        Ok((
            Arc::new(engine),
            Running {
                projector,
                writers: vec![keeper, writer, control_writer],
                registry,
                rebuilder,
                retainer,
                runtime: tokio::runtime::Handle::current(),
            },
        ))
    }
}

/// Whether the pool was made from this log; where it goes on.
fn check_pool(log: &impl EventLog, pool: &impl PoolStore) -> Result<Position, StartError> {
    let Some(checkpoint) = pool.snapshot().checkpoint() else {
        return Ok(Position::ZERO);
    };
    if checkpoint.epoch != log.epoch() {
        return Err(StartError::ForeignPool {
            pool: checkpoint.epoch,
            log: log.epoch(),
        });
    }
    if checkpoint.position > log.head() {
        return Err(StartError::ShorterLog {
            applied: checkpoint.position,
            head: log.head(),
        });
    }
    Ok(checkpoint.position)
}
