//! Keeps the pool up with the log: reads pages after the checkpoint, folds them, commits items and checkpoint as one.
//!
//! Started on an empty pool it is a rebuild. It has a thread of its own, since commits block. It is the one writer of every generation
//! that follows the checkpoint, and the one who says between two pages which of them is served.

mod materials;

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use hookpool_core::{
    control::ControlChange,
    difference::DifferenceSum,
    event::Event,
    json,
    key::KeyId,
    name::StreamName,
    position::{Generation, Position},
    registry::Registry,
};
use hookpool_store::{
    Checkpoint, EventLog, Page, PageRequest, PoolChanges, PoolError, PoolSnapshot, PoolStore,
    ReadError,
};
use thiserror::Error;
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

use materials::Materials;
pub(crate) use materials::{has_attached, must_be_of};

use crate::{
    control::{Control, ControlError},
    follow::{Frames, Rings},
    retention::Trim,
    status::{FailOnPanic, StatusCell},
    worker::Worker,
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

/// Why a generation is not promoted.
#[derive(Debug, Error)]
pub enum PromoteError {
    /// It has not caught up, or was not compared to the end.
    #[error("promote: the rebuild is not ready yet")]
    NotReady,
    /// The difference is another one by now.
    #[error("promote: the difference is {0} by now; look at it again")]
    Moved(String),
    /// It could not be recorded.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The projector has stopped.
    #[error("promote: the engine is stopping")]
    Stopped,
}

/// Asks the projector for something that is done between two pages.
pub(crate) enum Command<S> {
    /// Takes a generation over from who built it, and begins to keep its difference; answers with the pool as of then.
    Attach {
        stream: StreamName,
        generation: Generation,
        answer: oneshot::Sender<Arc<S>>,
    },
    /// Adds what the comparison of all items with those of the generation `to`, as of [`Command::Attach`], found.
    Compared {
        stream: StreamName,
        generation: Generation,
        to: Generation,
        sum: DifferenceSum,
        answer: oneshot::Sender<()>,
    },
    /// Lets go of history of a generation, if it is the one that is served; answers whether it was.
    Trim {
        stream: StreamName,
        generation: Generation,
        trim: Trim,
        answer: oneshot::Sender<bool>,
    },
    /// Serves a generation, if its difference is the expected one.
    Promote {
        stream: StreamName,
        generation: Generation,
        author: KeyId,
        expected: Option<String>,
        answer: oneshot::Sender<Result<(), PromoteError>>,
    },
}

/// Events that are not applied, from which on commits are made by time instead of by page.
const FAR_BEHIND: u64 = 16_384;
/// How often then; readers see the pool move as often.
const COMMIT_EVERY: Duration = Duration::from_secs(1);
/// Where commits take long, more is folded between them, so that they are no more than this part of the work; but a kill must not cost much.
const COMMITTING_PART: u32 = 8;
const COMMIT_LATEST: Duration = Duration::from_secs(5);
/// Events and bytes of a page then.
const PAGE_EVENTS: usize = 8_192;
const PAGE_BYTES: usize = 4 << 20;
/// How long a log that does not answer is left alone at first; doubled each time.
const RETRY_MIN: Duration = Duration::from_millis(2);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// A running projector.
#[derive(Debug)]
pub struct Projector {
    applied: watch::Receiver<Position>,
    planned: watch::Receiver<Position>,
    thread: JoinHandle<()>,
}

impl Projector {
    /// Starts after the pool's checkpoint, and stops when the status says so.
    ///
    /// # Panics
    /// Outside a tokio runtime, or if the machine has no thread left.
    pub(crate) fn start<L: EventLog, P: PoolStore>(
        log: Arc<L>,
        pool: Arc<P>,
        rings: Arc<Rings>,
        control: Arc<Control<L>>,
        commands: mpsc::UnboundedReceiver<Command<P::Snapshot>>,
        status: StatusCell,
    ) -> Self {
        let checkpoint = pool
            .snapshot()
            .checkpoint()
            .map_or(Position::ZERO, |checkpoint| checkpoint.position);
        let (applied, seen) = watch::channel(checkpoint);
        let (planned, replanned) = watch::channel(Position::ZERO);
        let runtime = Handle::current();
        let run = move || {
            let _failing = FailOnPanic::new("the projector", &status);
            let mut projection = Projection {
                materials: Materials::new(Arc::clone(&control.registry())),
                log,
                pool,
                rings,
                control,
                at: checkpoint,
                committing: Duration::ZERO,
                applied,
                planned,
            };
            if let Err(error) = runtime.block_on(projection.run(commands, &status)) {
                status.fail(error.to_string());
            }
        };
        let thread = thread::Builder::new()
            .name("projector".into())
            .spawn(run)
            .expect("a thread for the projector");
        Self {
            applied: seen,
            planned: replanned,
            thread,
        }
    }

    /// The last applied position, as it moves.
    #[must_use]
    pub fn applied(&self) -> watch::Receiver<Position> {
        self.applied.clone()
    }

    /// The position of the control log up to which plans are in force.
    #[must_use]
    pub(crate) fn planned(&self) -> watch::Receiver<Position> {
        self.planned.clone()
    }

    /// Waits until the thread has ended; the status must have been changed.
    pub fn join(self) {
        // A panic of the projector has been reported on its thread.
        let _panicked = self.thread.join();
    }
}

/// Sends a command and waits for its answer; `None` if the projector has ended.
pub(crate) async fn ask<S, T>(
    projector: &mpsc::UnboundedSender<Command<S>>,
    command: Command<S>,
    answer: oneshot::Receiver<T>,
) -> Option<T> {
    projector.send(command).ok()?;
    tokio::select! {
        biased;
        answer = answer => answer.ok(),
        // IMPORTANT: what is sent while the projector goes may lie in the channel, unanswered, for as long as we hold it.
        () = projector.closed() => None,
    }
}

/// A page may show what the head does not yet.
fn is_far_behind(log: &impl EventLog, at: Position) -> bool {
    log.head().0.saturating_sub(at.0) > FAR_BEHIND
}

/// IMPORTANT: only whole blocks between two checkpoints, so that no view of the pool shows a part of what was committed as one.
fn whole_blocks(after: Position) -> PageRequest {
    PageRequest {
        whole_blocks: true,
        ..PageRequest::after(after)
    }
}

struct Projection<L, P> {
    log: Arc<L>,
    pool: Arc<P>,
    rings: Arc<Rings>,
    control: Arc<Control<L>>,
    materials: Materials,
    at: Position,
    /// What the last commit took.
    committing: Duration,
    applied: watch::Sender<Position>,
    planned: watch::Sender<Position>,
}

impl<L: EventLog, P: PoolStore> Projection<L, P> {
    async fn run(
        &mut self,
        mut commands: mpsc::UnboundedReceiver<Command<P::Snapshot>>,
        status: &StatusCell,
    ) -> Result<(), ProjectError> {
        let mut pause = RETRY_MIN;
        let mut plans = self.control.changes();
        plans.mark_changed();
        loop {
            let outcome = tokio::select! {
                biased;
                // What was acknowledged before the stop is applied at the next start; a failed log is left alone.
                _ = status.ended() => return Ok(()),
                // Our own handle of the control keeps the channel open.
                _ = plans.changed() => self.replan(),
                Some(command) = commands.recv() => self.obey(command).await,
                _ = self.log.wait(self.at) => self.apply_pages().await,
            };
            match outcome {
                Ok(()) => pause = RETRY_MIN,
                // A backend that does not answer may do so later; a damaged one will not.
                Err(ProjectError::Read(error @ ReadError::Backend(_))) => {
                    tracing::warn!(%error, "the projector tries again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY_MAX);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// One page and its commit; many pages and one commit while the pool is far behind, where a commit for each would be most of the work.
    async fn apply_pages(&mut self) -> Result<(), ProjectError> {
        let behind = is_far_behind(&*self.log, self.at);
        let rings = Arc::clone(&self.rings);
        let mut frames = rings.frames(behind);
        let through = if behind {
            self.fold_many(&mut frames)?
        } else {
            let page = self.log.page(whole_blocks(self.at)).await?;
            self.fold(&page.events, &mut frames)?;
            page.through
        };
        let begun = Instant::now();
        let mut changes = self.materials.changes(&*self.pool.snapshot())?;
        changes.checkpoint = Some(Checkpoint {
            epoch: self.log.epoch(),
            position: through,
        });
        self.pool.commit(changes)?;
        self.committing = begun.elapsed();
        self.at = through;
        // IMPORTANT: after the commit, so that nobody sees a change before the pool has it.
        rings.publish(frames, through);
        self.applied.send_replace(self.at);
        Ok(())
    }

    /// Folds pages, each while the next one is read, until a commit is due; answers up to where.
    fn fold_many(&mut self, frames: &mut Frames<'_>) -> Result<Position, ProjectError> {
        let (log, runtime) = (Arc::clone(&self.log), Handle::current());
        let every = (self.committing * COMMITTING_PART).clamp(COMMIT_EVERY, COMMIT_LATEST);
        let begun = Instant::now();
        thread::scope(|scope| {
            // What a page took is freed by the thread that took it: that is cheaper.
            let reader = Worker::start(scope, |(after, used): (Position, Option<Page>)| {
                drop(used);
                let request = PageRequest {
                    events_max: PAGE_EVENTS,
                    bytes_max: PAGE_BYTES,
                    ..whole_blocks(after)
                };
                runtime.block_on(log.page(request))
            });
            let mut through = self.at;
            let mut used = None;
            reader.begin((through, None));
            loop {
                let page = match reader.finish() {
                    Ok(page) => page,
                    // What is folded must be committed, or it would be folded again.
                    Err(error) if through == self.at => return Err(error.into()),
                    Err(_) => return Ok(through),
                };
                through = page.through;
                let more = is_far_behind(&*log, through) && begun.elapsed() < every;
                if more {
                    reader.begin((through, used.take()));
                }
                self.fold(&page.events, frames)?;
                if !more || self.materials.is_full() {
                    return Ok(through);
                }
                used = Some(page);
            }
        })
    }

    fn fold(&mut self, events: &[Event], frames: &mut Frames<'_>) -> Result<(), ProjectError> {
        let snapshot = self.pool.snapshot();
        for event in events {
            let fields = event.event.fields();
            let fields = fields.map_err(|error| ProjectError::Body(event.position, error))?;
            self.materials.fold(&*snapshot, event, fields, frames)?;
        }
        Ok(())
    }

    /// Brings what is kept and what is served in line with the plans.
    fn replan(&mut self) -> Result<(), ProjectError> {
        let position = *self.control.changes().borrow();
        let registry = Arc::clone(&self.control.registry());
        let changes = self.materials.replan(&*self.pool.snapshot(), registry)?;
        let served = changes.served.clone();
        if !(served.is_empty() && changes.generations.is_empty()) {
            self.pool.commit(changes)?;
        }
        for (stream, generation) in served {
            self.rings.serve(&stream, generation);
        }
        // Nothing is there to be committed, but somebody may wait for the first event.
        for (stream, generation) in self.materials.awaited(&*self.pool.snapshot())? {
            self.rings.serve(&stream, generation);
        }
        self.planned.send_replace(position);
        Ok(())
    }

    async fn obey(&mut self, command: Command<P::Snapshot>) -> Result<(), ProjectError> {
        // Who asked may have gone away; what was asked for is done all the same.
        match command {
            Command::Attach {
                stream,
                generation,
                answer,
            } => {
                self.attach(&stream, generation).await?;
                let _gone = answer.send(self.pool.snapshot());
            }
            Command::Compared {
                stream,
                generation,
                to,
                sum,
                answer,
            } => {
                self.materials.take_up(&*self.pool.snapshot(), &stream)?;
                let changes = self.materials.compared(&stream, generation, to, &sum);
                self.commit_beside(changes)?;
                let _gone = answer.send(());
            }
            Command::Trim {
                stream,
                generation,
                trim,
                answer,
            } => {
                let snapshot = self.pool.snapshot();
                let changes = self
                    .materials
                    .trimmed(&*snapshot, &stream, generation, trim)?;
                let served = changes.is_some();
                self.commit_beside(changes)?;
                let _gone = answer.send(served);
            }
            Command::Promote {
                stream,
                generation,
                author,
                expected,
                answer,
            } => {
                self.materials.take_up(&*self.pool.snapshot(), &stream)?;
                // IMPORTANT: before the record, which outlives a power cut: the generation must, too.
                self.pool.sync()?;
                let promoted = self.promote(stream, generation, &author, expected).await;
                if promoted.is_ok() {
                    self.replan()?;
                }
                let _gone = answer.send(promoted);
            }
        }
        Ok(())
    }

    async fn attach(
        &mut self,
        stream: &StreamName,
        generation: Generation,
    ) -> Result<(), ProjectError> {
        let snapshot = self.pool.snapshot();
        let Some(mut at) = self.materials.attach(&*snapshot, stream, generation)? else {
            return Ok(());
        };
        while at < self.at {
            let request = PageRequest {
                until: self.at,
                ..PageRequest::of_stream(stream.clone(), at)
            };
            let page = self.log.page(request).await?;
            for event in &page.events {
                let fields = event.event.fields();
                let fields = fields.map_err(|error| ProjectError::Body(event.position, error))?;
                self.materials
                    .catch_up(&*snapshot, event, fields, generation)?;
            }
            at = page.through;
        }
        let changes = self.materials.attached(stream, generation);
        self.commit_beside(changes)
    }

    /// IMPORTANT: between two pages, so that what was compared is what is served; and the record first, since it decides.
    async fn promote(
        &mut self,
        stream: StreamName,
        generation: Generation,
        author: &KeyId,
        expected: Option<String>,
    ) -> Result<(), PromoteError> {
        let difference = self
            .materials
            .difference(&stream, generation)
            .ok_or(PromoteError::NotReady)?;
        let digest = difference.digest();
        if expected.is_some_and(|expected| expected != digest) {
            return Err(PromoteError::Moved(digest));
        }
        let compared_with = self.materials.planned(&stream).live.generation;
        let subject = stream.to_string();
        let change = ControlChange::GenerationPromoted {
            stream,
            generation,
            digest: Some(digest),
            counts: Some(difference.counts()),
        };
        // Who rolled back meanwhile has another generation served, from which nobody looked at the difference.
        let holds = |registry: &Registry| registry.plan(&subject).live.generation == compared_with;
        let recorded = self.control.change_if(author, &subject, change, holds);
        match recorded.await? {
            true => Ok(()),
            false => Err(PromoteError::NotReady),
        }
    }

    /// A commit between two pages, at the checkpoint.
    fn commit_beside(&self, changes: Option<PoolChanges>) -> Result<(), ProjectError> {
        match changes {
            Some(changes) => Ok(self.pool.commit(changes)?),
            None => Ok(()),
        }
    }
}
