//! One rebuild: folds the events of a stream from where its last commit left off, hands over, compares.

use std::{sync::Arc, thread, time::Duration};

use hookpool_core::{
    difference::{Difference, DifferenceSum},
    json,
    name::StreamName,
    plan::{Rebuild, Ruled},
    position::{Generation, Position},
};
use hookpool_store::{
    EventLog, GenerationChanges, Page, PageRequest, PoolChanges, PoolError, PoolSnapshot,
    PoolStore, ReadError,
};
use thiserror::Error;
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::{JobCell, halves::Halves};
use crate::{
    compare::Comparison,
    control::Control,
    projector::{Command, ask},
    status::StatusCell,
    worker::Worker,
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
/// Memory of what is in hand from which on it is committed and let go. A commit of all of it takes about as much again until it is in a file.
const HELD_BYTES: usize = 112 << 20;
/// Memory of histories and notes from which on they are written ahead of the items, of which all would be written with them.
const PENDING_BYTES: usize = 8 << 20;
/// How much of the work a kill may cost.
const COMMIT_EVERY: Duration = Duration::from_secs(5);

/// Reads a page, and drops one: what a page took is freed by the thread that took it, which is cheaper.
type PageReader = Worker<(PageRequest, Option<Arc<Page>>), Result<Page, ReadError>>;

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
    /// Returns early, with what it did committed, when the engine ends or the plan no longer wants it. Blocks the thread, which is its own.
    pub(super) fn run(self, runtime: &Handle) -> Result<(), JobError> {
        if !self.build(runtime)? {
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
        let Some(snapshot) = self.ask(runtime, command, attached) else {
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
        if self.ask(runtime, command, compared).is_some() {
            self.tell("a rebuild is ready");
        }
        Ok(())
    }

    fn tell(&self, stage: &str) {
        tracing::debug!(stream = %self.stream, generation = %self.made.generation, "{stage}");
    }

    fn ask<T>(
        &self,
        runtime: &Handle,
        command: Command<P::Snapshot>,
        answer: oneshot::Receiver<T>,
    ) -> Option<T> {
        runtime.block_on(ask(&self.projector, command, answer))
    }

    /// Folds until it is up with the pool; whether it is.
    fn build(&self, runtime: &Handle) -> Result<bool, JobError> {
        let snapshot = self.pool.snapshot();
        let state = snapshot.generation(&self.stream, self.made.generation)?;
        let at = match state {
            Some(state) => match state.built {
                Some(built) => built,
                None => return Ok(true),
            },
            None => Position::ZERO,
        };
        let halves = Halves::open(&*snapshot, &self.stream, &self.made)?;
        // IMPORTANT: a pool keeps in memory what was written since its oldest snapshot.
        drop(snapshot);
        tracing::debug!(stream = %self.stream, generation = %self.made.generation, events = halves.events(), "a rebuild folds");
        thread::scope(|scope| {
            let reader: PageReader = Worker::start(scope, |(request, used)| {
                drop(used);
                runtime.block_on(self.log.page(request))
            });
            let other = Worker::start(scope, |page: Arc<Page>| self.fold(&halves, 1, &page));
            self.fold_pages(runtime, at, &halves, &reader, &other)
        })
    }

    /// Folds a page on two threads while a third reads the next one.
    fn fold_pages(
        &self,
        runtime: &Handle,
        mut at: Position,
        halves: &Halves,
        reader: &PageReader,
        other: &Worker<Arc<Page>, Result<(), JobError>>,
    ) -> Result<bool, JobError> {
        let mut pace = Pace::new(halves.events());
        let mut used = None;
        let mut reading = false;
        loop {
            let Some(rebuild) = self.wanted() else {
                self.commit(halves.changes(at))?;
                return Ok(false);
            };
            let until = self.checkpoint();
            if at >= until {
                self.commit(halves.changes(at))?;
                return Ok(true);
            }
            let request = |after| self.page(after, until, rebuild.events_per_second);
            if !std::mem::replace(&mut reading, true) {
                reader.begin((request(at), None));
            }
            let page = Arc::new(reader.finish()?);
            reader.begin((request(page.through), used.take()));
            other.begin(Arc::clone(&page));
            let (mine, theirs) = (self.fold(halves, 0, &page), other.finish());
            mine.and(theirs)?;
            at = page.through;
            if halves.held_bytes() > HELD_BYTES {
                let changes = halves.changes(at);
                // First, so that each item is gone when it is written.
                halves.forget();
                self.commit(changes)?;
            } else if pace.commit_is_due() {
                self.commit(halves.changes(at))?;
            } else if halves.pending_bytes() > PENDING_BYTES {
                self.commit(halves.ahead())?;
            }
            let events = halves.events();
            self.cell.folded(events, pace.rate(events));
            let length = page.events.len();
            used = Some(page);
            runtime.block_on(pace.throttle(length, rebuild.events_per_second));
        }
    }

    fn fold(&self, halves: &Halves, half: usize, page: &Page) -> Result<(), JobError> {
        halves.fold(half, &*self.pool.snapshot(), &page.events)
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

    fn commit(&self, changes: GenerationChanges) -> Result<(), PoolError> {
        self.pool.commit(PoolChanges {
            generations: vec![changes],
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
