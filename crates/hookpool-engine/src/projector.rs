//! Keeps the pool up with the log: reads pages after the checkpoint, folds them, commits items and checkpoint as one.
//!
//! Started on an empty pool it is a rebuild. It has a thread of its own, since commits block.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use hookpool_core::{
    event::Event,
    fold::Item,
    json::{self, Fields},
    name::{ItemId, StreamName},
    position::{Generation, Position},
};
use hookpool_store::{
    Checkpoint, EventLog, ItemChange, PageRequest, PoolChanges, PoolError, PoolSnapshot, PoolStore,
    ReadError, StreamState,
};
use thiserror::Error;
use tokio::sync::watch;

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
            let projection = Projection { log, pool, rings };
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
}

impl<L: EventLog, P: PoolStore> Projection<L, P> {
    async fn run(
        &self,
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

    async fn apply_page(&self, after: Position) -> Result<Position, ProjectError> {
        let page = self.log.page(PageRequest::after(after)).await?;
        let events = parsed(&page.events)?;
        let checkpoint = Checkpoint {
            epoch: self.log.epoch(),
            position: page.through,
        };
        self.pool
            .commit(fold(&*self.pool.snapshot(), &events, checkpoint)?)?;
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

/// The items and streams that a page of events changes, as they are after it.
fn fold(
    pool: &impl PoolSnapshot,
    events: &[(&Event, Fields<'_>)],
    checkpoint: Checkpoint,
) -> Result<PoolChanges, PoolError> {
    let mut streams: BTreeMap<&StreamName, StreamState> = BTreeMap::new();
    let mut items: BTreeMap<(&StreamName, &ItemId), Item> = BTreeMap::new();
    for (event, fields) in events {
        let (stream, id) = (&event.event.stream, &event.event.item_id);
        let state = match streams.entry(stream) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(pool.stream(stream)?.unwrap_or(NEW_STREAM)),
        };
        state.position = event.position;
        let item = match items.entry((stream, id)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let stored = pool.item(stream, state.generation, id)?;
                state.items += u64::from(stored.is_none());
                new.insert(stored.unwrap_or_default())
            }
        };
        item.apply(event, fields);
    }
    let change = |((stream, id), item): ((&StreamName, &ItemId), Item)| ItemChange {
        stream: stream.clone(),
        generation: streams
            .get(stream)
            .map_or(Generation::FIRST, |state| state.generation),
        id: id.clone(),
        item,
    };
    let items = items.into_iter().map(change).collect();
    let streams = streams
        .into_iter()
        .map(|(stream, state)| (stream.clone(), state))
        .collect();
    Ok(PoolChanges {
        checkpoint,
        items,
        streams,
    })
}

const NEW_STREAM: StreamState = StreamState {
    generation: Generation::FIRST,
    items: 0,
    position: Position::ZERO,
};
