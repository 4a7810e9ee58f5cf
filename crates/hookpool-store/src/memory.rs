//! Both contracts in memory: the reference, and what fast tests run on. Durable until the process ends.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use hookpool_core::{
    codec::{Block, encode_block},
    event::{Event, NewEvent},
    fold::Item,
    name::{ItemId, StreamName},
    position::{Epoch, Generation, Position},
};
use tokio::sync::watch;

use crate::{
    dedupe::DedupeWindow,
    log::{
        AppendError, Appended, Cause, EventLog, LogEnd, Page, PageRequest, ReadError, wait_past,
    },
    pool::{Checkpoint, ItemPage, PoolChanges, PoolError, PoolSnapshot, PoolStore, StreamState},
};

/// A log in memory.
#[derive(Debug)]
pub struct MemoryLog {
    epoch: Epoch,
    state: Mutex<LogState>,
    head: watch::Sender<Position>,
}

#[derive(Debug, Default)]
struct LogState {
    events: Vec<Event>,
    /// The same events as they are committed.
    blocks: Vec<Block>,
    end: LogEnd,
    dedupe: DedupeWindow,
}

impl MemoryLog {
    /// An empty log.
    #[must_use]
    pub fn new(epoch: Epoch) -> Self {
        Self {
            epoch,
            state: Mutex::default(),
            head: watch::Sender::new(Position::ZERO),
        }
    }
}

impl LogState {
    fn append(&mut self, event: NewEvent) -> Appended {
        if let Some(position) = event.dedupe.and_then(|key| self.dedupe.find(&key)) {
            return Appended::Duplicate(position);
        }
        let position = self
            .events
            .last()
            .map_or(Position::ZERO, |event| event.position)
            .plus(1);
        if let Some(key) = event.dedupe {
            self.dedupe.remember(key, event.time, position);
        }
        self.events.push(Event { position, event });
        Appended::New(position)
    }

    /// What was appended since the last commit becomes a block.
    fn commit(&mut self, epoch: Epoch) -> Result<(), AppendError> {
        let first = self.end.head.plus(1);
        let from = self.events.partition_point(|event| event.position < first);
        let new = self.events.get(from..).unwrap_or_default();
        if new.is_empty() {
            return Ok(());
        }
        let events = new.iter().map(|event| &event.event);
        let encoded = encode_block(epoch, first, self.end.digest, events);
        self.end = LogEnd {
            head: encoded.last,
            digest: encoded.digest,
        };
        let block = Block::parse(encoded.bytes.into());
        self.blocks
            .push(block.map_err(|error| AppendError::Final(Arc::new(error) as Cause))?);
        Ok(())
    }

    fn blocks(&self, after: Position, bytes_max: usize) -> Vec<Block> {
        let from = self
            .blocks
            .partition_point(|block| block.header().last() <= after);
        let mut bytes = 0;
        let fits = |block: &&Block| {
            let room = bytes == 0 || bytes < bytes_max;
            bytes += block.len_bytes();
            room
        };
        let rest = self.blocks.iter().skip(from);
        rest.take_while(fits).cloned().collect()
    }

    fn page(&self, request: &PageRequest) -> Page {
        let from = self
            .events
            .partition_point(|event| event.position <= request.after);
        let wanted = |event: &&Event| {
            request
                .stream
                .as_ref()
                .is_none_or(|stream| *stream == event.event.stream)
        };
        let mut page = Page {
            events: Vec::new(),
            through: request.after,
        };
        let mut bytes = 0;
        for event in self
            .events
            .iter()
            .skip(from)
            .take_while(|event| event.position <= request.until)
            .filter(wanted)
        {
            let full = page.events.len() >= request.events_max || bytes >= request.bytes_max;
            if full && !page.events.is_empty() {
                return page;
            }
            bytes += event.event.body.len();
            page.through = event.position;
            page.events.push(event.clone());
        }
        page.through = page.through.max(self.end.head.min(request.until));
        page
    }
}

impl EventLog for MemoryLog {
    async fn append(&self, batch: Vec<NewEvent>) -> Result<Vec<Appended>, AppendError> {
        let mut state = locked(&self.state);
        let outcomes = batch.into_iter().map(|event| state.append(event)).collect();
        state.commit(self.epoch)?;
        let head = state.end.head;
        // Under the lock, so that nobody reads past the head.
        self.head
            .send_if_modified(|at| std::mem::replace(at, head) != head);
        Ok(outcomes)
    }

    async fn page(&self, request: PageRequest) -> Result<Page, ReadError> {
        Ok(locked(&self.state).page(&request))
    }

    async fn blocks(&self, after: Position, bytes_max: usize) -> Result<Vec<Block>, ReadError> {
        Ok(locked(&self.state).blocks(after, bytes_max))
    }

    fn head(&self) -> Position {
        *self.head.borrow()
    }

    fn end(&self) -> LogEnd {
        locked(&self.state).end
    }

    fn epoch(&self) -> Epoch {
        self.epoch
    }

    async fn wait(&self, past: Position) -> Position {
        wait_past(&self.head, past).await
    }
}

/// A pool in memory.
#[derive(Debug, Default)]
pub struct MemoryPool {
    state: Mutex<Arc<MemorySnapshot>>,
}

/// State of a [`MemoryPool`] at one checkpoint.
#[derive(Debug, Clone, Default)]
pub struct MemorySnapshot {
    checkpoint: Option<Checkpoint>,
    streams: BTreeMap<StreamName, StreamState>,
    items: BTreeMap<(StreamName, Generation), BTreeMap<ItemId, Item>>,
}

impl PoolStore for MemoryPool {
    type Snapshot = MemorySnapshot;

    fn snapshot(&self) -> Arc<MemorySnapshot> {
        Arc::clone(&locked(&self.state))
    }

    fn commit(&self, changes: PoolChanges) -> Result<(), PoolError> {
        let mut state = locked(&self.state);
        // Copied only if somebody still holds the last one.
        let next = Arc::make_mut(&mut state);
        next.checkpoint = Some(changes.checkpoint);
        next.streams.extend(changes.streams);
        for change in changes.items {
            next.items
                .entry((change.stream, change.generation))
                .or_default()
                .insert(change.id, Arc::unwrap_or_clone(change.item));
        }
        Ok(())
    }
}

impl PoolSnapshot for MemorySnapshot {
    fn checkpoint(&self) -> Option<Checkpoint> {
        self.checkpoint
    }

    fn item(
        &self,
        stream: &StreamName,
        generation: Generation,
        id: &ItemId,
    ) -> Result<Option<Item>, PoolError> {
        Ok(self
            .items
            .get(&(stream.clone(), generation))
            .and_then(|items| items.get(id))
            .cloned())
    }

    fn items(
        &self,
        stream: &StreamName,
        generation: Generation,
        after: Option<&ItemId>,
        limit: usize,
        bytes_max: usize,
    ) -> Result<ItemPage, PoolError> {
        let items = self
            .items
            .get(&(stream.clone(), generation))
            .into_iter()
            .flatten();
        let rest = items.filter(|(id, _)| after.is_none_or(|after| *id > after));
        let rest = rest.map(|(id, item)| Ok((id.clone(), item.clone())));
        ItemPage::collect(rest, limit, bytes_max)
    }

    fn stream(&self, stream: &StreamName) -> Result<Option<StreamState>, PoolError> {
        Ok(self.streams.get(stream).copied())
    }

    fn streams(&self) -> Result<Vec<(StreamName, StreamState)>, PoolError> {
        Ok(self
            .streams
            .iter()
            .map(|(name, state)| (name.clone(), *state))
            .collect())
    }
}

/// A panic while the lock was held left whole values: every change above is made of moves.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
