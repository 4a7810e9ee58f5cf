//! One rebuild: folds the events of a stream from where its last commit left off, hands over, compares.

use std::{panic::resume_unwind, sync::Arc, thread, time::Duration};

use hookpool_core::{
    difference::{Difference, DifferenceSum},
    event::Event,
    json,
    name::StreamName,
    plan::{Rebuild, Ruled},
    position::{Generation, Position},
    projection::{Change, Projection, Unfit},
};
use hookpool_store::{
    EventLog, Page, PageRequest, PoolChanges, PoolError, PoolSnapshot, PoolStore, ReadError,
};
use thiserror::Error;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::JobCell;
use crate::{
    compare::Comparison, control::Control, material::Material, projector::Command,
    status::StatusCell,
};

/// Why a rebuild broke off.
#[derive(Debug, Error)]
pub(crate) enum JobError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Pool(#[from] PoolError),
    #[error("fold the event at position {0}: {1}")]
    Body(Position, json::JsonError),
    #[error("start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// Events and bytes of a page; large, since nobody waits for a single one.
const PAGE_EVENTS: usize = 8_192;
const PAGE_BYTES: usize = 4 << 20;
/// Memory of items in hand from which on those that were not touched since the last time are let go.
const HELD_BYTES: usize = 160 << 20;
/// How much of the work a kill may cost.
const COMMIT_EVERY: Duration = Duration::from_secs(5);

pub(super) struct Job<L, P: PoolStore> {
    pub(super) log: Arc<L>,
    pub(super) pool: Arc<P>,
    pub(super) control: Arc<Control<L>>,
    pub(super) projector: mpsc::UnboundedSender<Command<P::Snapshot>>,
    pub(super) status: StatusCell,
    pub(super) stream: StreamName,
    pub(super) made: Ruled,
    pub(super) live: Generation,
    pub(super) cell: Arc<JobCell>,
}

impl<L: EventLog, P: PoolStore> Job<L, P> {
    /// Returns early, with what it did committed, when the engine ends or the plan no longer wants it.
    pub(super) async fn run(self) -> Result<(), JobError> {
        if !self.build().await? {
            return Ok(());
        }
        self.tell("a rebuild is handed over");
        let (answer, attached) = oneshot::channel();
        let command = Command::Attach {
            stream: self.stream.clone(),
            generation: self.made.generation,
            answer,
        };
        // The projector stops only with the engine.
        let Some(snapshot) = self.ask(command, attached).await else {
            return Ok(());
        };
        self.tell("a rebuild is compared");
        let Some(sum) = self.compare(snapshot)? else {
            return Ok(());
        };
        let (answer, compared) = oneshot::channel();
        let command = Command::Compared {
            stream: self.stream.clone(),
            generation: self.made.generation,
            to: self.live,
            sum,
            answer,
        };
        if self.ask(command, compared).await.is_some() {
            self.tell("a rebuild is ready");
        }
        Ok(())
    }

    fn tell(&self, stage: &str) {
        tracing::debug!(stream = %self.stream, generation = %self.made.generation, "{stage}");
    }

    async fn ask<T>(
        &self,
        command: Command<P::Snapshot>,
        answer: oneshot::Receiver<T>,
    ) -> Option<T> {
        self.projector.send(command).ok()?;
        answer.await.ok()
    }

    /// Folds until it is up with the pool; whether it is.
    async fn build(&self) -> Result<bool, JobError> {
        let mut material = Material::open(&*self.pool.snapshot(), &self.stream, &self.made)?;
        let state = self
            .pool
            .snapshot()
            .generation(&self.stream, self.made.generation)?;
        let mut at = match state {
            Some(state) => match state.built {
                Some(built) => built,
                None => return Ok(true),
            },
            None => Position::ZERO,
        };
        tracing::debug!(stream = %self.stream, generation = %self.made.generation, events = material.state.events, "a rebuild folds");
        let mut pace = Pace::new(material.state.events);
        let mut page = None;
        loop {
            let Some(rebuild) = self.wanted() else {
                self.commit(&mut material, at)?;
                return Ok(false);
            };
            let until = self.checkpoint();
            if at >= until {
                self.commit(&mut material, at)?;
                return Ok(true);
            }
            let request = |after| self.page(after, until, rebuild.events_per_second);
            let events = match page.take() {
                Some(page) => page,
                None => self.log.page(request(at)).await?,
            };
            page = Some(self.fold(&mut material, &events, request(events.through))?);
            at = events.through;
            let full = material.held_bytes() > HELD_BYTES;
            if full || pace.commit_is_due() {
                self.commit(&mut material, at)?;
            }
            if full {
                material.forget_old();
            }
            let rate = pace.rate(material.state.events);
            self.cell.folded(material.state.events, rate);
            pace.throttle(events.events.len(), rebuild.events_per_second)
                .await;
        }
    }

    fn checkpoint(&self) -> Position {
        let checkpoint = self.pool.snapshot().checkpoint();
        checkpoint.map_or(Position::ZERO, |at| at.position)
    }

    /// A slow rebuild reads small pages, so that it can be stopped soon.
    fn page(&self, after: Position, until: Position, per_second: Option<u32>) -> PageRequest {
        let quarter = |per_second: u32| usize::try_from(per_second / 4).unwrap_or(usize::MAX);
        PageRequest {
            until,
            events_max: per_second
                .map_or(PAGE_EVENTS, quarter)
                .clamp(1, PAGE_EVENTS),
            bytes_max: PAGE_BYTES,
            ..PageRequest::of_stream(self.stream.clone(), after)
        }
    }

    /// Folds a page while the next one is read. Bodies are parsed on two threads: that is more than half of the work.
    fn fold(
        &self,
        material: &mut Material,
        page: &Page,
        next: PageRequest,
    ) -> Result<Page, JobError> {
        let snapshot = self.pool.snapshot();
        let projection = material.projection();
        let runtime = tokio::runtime::Handle::current();
        let (first, second) = page.events.split_at(page.events.len() / 2);
        let parse = |events| parse(events, &projection);
        thread::scope(|scope| {
            let second = scope.spawn(|| parse(second));
            let next = scope.spawn(|| runtime.block_on(self.log.page(next)));
            for read in parse(first)? {
                apply(material, &*snapshot, &read)?;
            }
            for read in joined(second)? {
                apply(material, &*snapshot, &read)?;
            }
            Ok(joined(next)?)
        })
    }

    fn commit(&self, material: &mut Material, at: Position) -> Result<(), PoolError> {
        material.state.built = Some(at);
        self.pool.commit(PoolChanges {
            generations: vec![material.changes()],
            ..PoolChanges::default()
        })
    }

    /// The rebuild as it is planned now, if it is still to go on.
    fn wanted(&self) -> Option<Rebuild> {
        let plan = self.control.registry().plan(self.stream.as_str());
        let rebuild = plan
            .next
            .clone()
            .filter(|next| next.made == self.made && !next.paused);
        rebuild.filter(|_| self.status.is_ready())
    }

    /// The sum of all differences in a snapshot; `None` if it is not wanted any more.
    fn compare(&self, snapshot: Arc<P::Snapshot>) -> Result<Option<DifferenceSum>, PoolError> {
        let mut sum = DifferenceSum::default();
        let mut compared = 0;
        let (old, new) = (self.live, self.made.generation);
        let mut comparison = Comparison::new(snapshot, self.stream.clone(), old, new);
        self.cell.compared(0);
        while let Some(pairs) = comparison.pairs()? {
            for pair in &pairs {
                let difference = Difference::between(pair.old.as_ref(), pair.new.as_ref());
                if let Some(difference) = difference {
                    sum.add(&pair.id, &difference);
                }
            }
            compared += pairs.len() as u64;
            self.cell.compared(compared);
            if self.wanted().is_none() {
                return Ok(None);
            }
        }
        Ok(Some(sum))
    }
}

/// An event as the projection read it.
type Read<'a> = (&'a Event, Result<Change<'a>, Unfit>);

fn parse<'a>(events: &'a [Event], projection: &'a Projection) -> Result<Vec<Read<'a>>, JobError> {
    let read = |event: &'a Event| {
        let object = json::object(&event.event.body)
            .map_err(|error| JobError::Body(event.position, error))?;
        Ok((event, projection.read(event, object.fields)))
    };
    events.iter().map(read).collect()
}

fn apply(
    material: &mut Material,
    pool: &impl PoolSnapshot,
    (event, read): &Read<'_>,
) -> Result<(), PoolError> {
    material.apply(pool, event, read.as_ref()).map(drop)
}

/// What a thread of ours returned; its panic is ours.
fn joined<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| resume_unwind(panic))
}

/// When to commit, how fast it goes, and how fast it may go.
struct Pace {
    committed: Instant,
    page_began: Instant,
    measured: (Instant, u64),
    rate: u64,
}

/// How long events are counted for one rate.
const RATE_EVERY: Duration = Duration::from_millis(500);

impl Pace {
    fn new(events: u64) -> Self {
        let now = Instant::now();
        Self {
            committed: now,
            page_began: now,
            measured: (now, events),
            rate: 0,
        }
    }

    fn commit_is_due(&mut self) -> bool {
        let due = self.committed.elapsed() >= COMMIT_EVERY;
        if due {
            self.committed = Instant::now();
        }
        due
    }

    /// Events a second, after so many of them.
    fn rate(&mut self, events: u64) -> u64 {
        let (since, before) = self.measured;
        let elapsed = since.elapsed();
        if elapsed >= RATE_EVERY {
            let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
            self.rate = (events - before) * 1_000 / millis;
            self.measured = (Instant::now(), events);
        }
        self.rate
    }

    /// Sleeps until the page took as long as it may take at least.
    async fn throttle(&mut self, events: usize, per_second: Option<u32>) {
        if let Some(per_second) = per_second {
            let seconds = Duration::from_secs(events as u64).checked_div(per_second);
            tokio::time::sleep_until(self.page_began + seconds.unwrap_or_default()).await;
        }
        self.page_began = Instant::now();
    }
}
