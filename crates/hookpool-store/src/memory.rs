//! Both contracts in memory: the reference, and what fast tests run on. Durable until the process ends.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use hookpool_core::{
    codec::{Block, encode_block},
    event::{DedupeKey, Event, NewEvent, Request, RequestId},
    fold::{History, Item, Note},
    name::{ItemId, StreamName},
    position::{Epoch, Generation, Position},
    time::Timestamp,
};
use tokio::sync::watch;

use crate::{
    dedupe::{DedupeWindow, key_counts},
    log::{
        AppendError, Appended, Cause, Dropped, EventLog, LogEnd, Page, PageRequest, ReadError,
        wait_past,
    },
    pool::{
        Checkpoint, GenerationState, ItemPage, PoolChanges, PoolError, PoolSnapshot, PoolStore,
    },
    rejections::RejectionStore,
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
    /// Of the last event, dropped or not.
    last: Position,
    dedupe: DedupeWindow,
    /// Each idempotency key with the first event of the last request that had it.
    requests: HashMap<DedupeKey, (Timestamp, Position)>,
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
    fn append(&mut self, request: Request) -> Appended {
        if let Some(position) = self.find(&request.first) {
            return Appended::Duplicate(position);
        }
        let position = self.last.plus(1);
        self.remember(&request.first, position);
        for event in std::iter::once(request.first).chain(request.rest) {
            self.last = self.last.plus(1);
            let position = self.last;
            self.events.push(Event { position, event });
        }
        Appended::New(position)
    }

    /// Where the request with the same key begins.
    fn find(&self, first: &NewEvent) -> Option<Position> {
        let identity = first.idempotency.as_ref();
        identity
            .and_then(|identity| self.request(&identity.key, first.time))
            .or_else(|| first.dedupe.and_then(|key| self.dedupe.find(&key)))
    }

    fn request(&self, key: &DedupeKey, time: Timestamp) -> Option<Position> {
        let known = self.requests.get(key);
        let known = known.filter(|(first, _)| key_counts(*first, time));
        known.map(|(_, position)| *position)
    }

    fn remember(&mut self, first: &NewEvent, position: Position) {
        if let Some(key) = first.dedupe {
            self.dedupe.remember(key, first.time, position);
        }
        if let Some(identity) = &first.idempotency {
            self.requests.insert(identity.key, (first.time, position));
        }
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

    fn drop_events(&mut self, positions: &BTreeSet<Position>) -> Result<Dropped, AppendError> {
        let mut dropped = Dropped::default();
        for block in &mut self.blocks {
            let thinning = block
                .thin(positions)
                .map_err(|error| AppendError::Unknown(Arc::new(error) as Cause))?;
            if let Some(thinning) = thinning {
                dropped.events += thinning.events;
                dropped.bytes += thinning.bytes;
                *block = thinning.block;
            }
        }
        self.events
            .retain(|event| !positions.contains(&event.position));
        Ok(dropped)
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
        let block = |position: Position| {
            let before = |block: &Block| block.header().last() < position;
            self.blocks.partition_point(before)
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
            let divides = block(page.through) == block(event.position);
            if full && !page.events.is_empty() && !(request.whole_blocks && divides) {
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
    async fn append(&self, batch: Vec<Request>) -> Result<Vec<Appended>, AppendError> {
        let mut state = locked(&self.state);
        let append = |request| state.append(request);
        let outcomes = batch.into_iter().map(append).collect();
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

    async fn find(&self, key: DedupeKey, time: Timestamp) -> Result<Option<Position>, ReadError> {
        Ok(locked(&self.state).request(&key, time))
    }

    async fn drop_events(&self, positions: Vec<Position>) -> Result<Dropped, AppendError> {
        locked(&self.state).drop_events(&positions.into_iter().collect())
    }

    fn head(&self) -> Position {
        self.end().head
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
    served: BTreeMap<StreamName, Generation>,
    generations: BTreeMap<(StreamName, Generation), Arc<MemoryGeneration>>,
}

#[derive(Debug, Clone, Default)]
struct MemoryGeneration {
    state: GenerationState,
    items: BTreeMap<ItemId, Item>,
    /// By item and last event.
    histories: BTreeMap<(ItemId, Position), History>,
    notes: BTreeMap<Position, Note>,
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
        next.checkpoint = changes.checkpoint.or(next.checkpoint);
        next.served.extend(changes.served);
        for changes in changes.generations {
            let key = (changes.stream, changes.generation);
            let generation = Arc::make_mut(next.generations.entry(key).or_default());
            generation.state = changes.state;
            let items = changes.items.into_iter();
            generation
                .items
                .extend(items.map(|(id, item)| (id, Arc::unwrap_or_clone(item))));
            let histories = changes.histories.into_iter();
            generation
                .histories
                .extend(histories.map(|(id, history)| ((id, history.last()), history)));
            generation.notes.extend(changes.notes);
            for (id, before) in changes.dropped_histories {
                let old = (id.clone(), Position::ZERO)..(id, before);
                let old: Vec<_> = generation
                    .histories
                    .range(old)
                    .map(|(key, _)| key.clone())
                    .collect();
                old.iter()
                    .for_each(|key| drop(generation.histories.remove(key)));
            }
            for position in &changes.dropped_notes {
                generation.notes.remove(position);
            }
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), PoolError> {
        Ok(())
    }

    fn remove(&self, stream: &StreamName, generation: Generation) -> Result<(), PoolError> {
        let mut state = locked(&self.state);
        let key = (stream.clone(), generation);
        Arc::make_mut(&mut state).generations.remove(&key);
        Ok(())
    }
}

impl MemorySnapshot {
    fn of(&self, stream: &StreamName, generation: Generation) -> Option<&MemoryGeneration> {
        self.generations
            .get(&(stream.clone(), generation))
            .map(Arc::as_ref)
    }

    fn all_items(
        &self,
        stream: &StreamName,
        generation: Generation,
    ) -> impl Iterator<Item = (&ItemId, &Item)> {
        let generation = self.of(stream, generation).into_iter();
        generation.flat_map(|generation| &generation.items)
    }
}

fn page<'a>(
    items: impl Iterator<Item = (&'a ItemId, &'a Item)>,
    after: Option<&ItemId>,
    limit: usize,
    bytes_max: usize,
) -> Result<ItemPage, PoolError> {
    let rest = items.filter(|(id, _)| after.is_none_or(|after| *id > after));
    let rest = rest.map(|(id, item)| Ok((id.clone(), item.clone())));
    ItemPage::collect(rest, limit, bytes_max)
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
        let item = self.touched(stream, generation, id)?;
        Ok(item.filter(Item::is_there))
    }

    fn tombstone(
        &self,
        stream: &StreamName,
        generation: Generation,
        id: &ItemId,
    ) -> Result<Option<Item>, PoolError> {
        let item = self.touched(stream, generation, id)?;
        Ok(item.filter(|item| !item.is_there()))
    }

    fn has_tombstones(
        &self,
        stream: &StreamName,
        generation: Generation,
    ) -> Result<bool, PoolError> {
        let mut items = self.all_items(stream, generation);
        Ok(items.any(|(_, item)| !item.is_there()))
    }

    fn touched(
        &self,
        stream: &StreamName,
        generation: Generation,
        id: &ItemId,
    ) -> Result<Option<Item>, PoolError> {
        let generation = self.of(stream, generation);
        Ok(generation.and_then(|generation| generation.items.get(id).cloned()))
    }

    fn items(
        &self,
        stream: &StreamName,
        generation: Generation,
        after: Option<&ItemId>,
        limit: usize,
        bytes_max: usize,
    ) -> Result<ItemPage, PoolError> {
        let items = self.all_items(stream, generation);
        page(
            items.filter(|(_, item)| item.is_there()),
            after,
            limit,
            bytes_max,
        )
    }

    fn touched_items(
        &self,
        stream: &StreamName,
        generation: Generation,
        after: Option<&ItemId>,
        limit: usize,
        bytes_max: usize,
    ) -> Result<ItemPage, PoolError> {
        page(self.all_items(stream, generation), after, limit, bytes_max)
    }

    fn history_until(
        &self,
        stream: &StreamName,
        generation: Generation,
        id: &ItemId,
        until: Position,
    ) -> Result<Option<History>, PoolError> {
        let range = (id.clone(), Position::ZERO)..=(id.clone(), until);
        let generation = self.of(stream, generation);
        let last = generation.and_then(|generation| generation.histories.range(range).next_back());
        Ok(last.map(|(_, history)| history.clone()))
    }

    fn history_after(
        &self,
        stream: &StreamName,
        generation: Generation,
        id: &ItemId,
        after: Position,
    ) -> Result<Option<History>, PoolError> {
        let range = (id.clone(), after.plus(1))..=(id.clone(), Position(u64::MAX));
        let generation = self.of(stream, generation);
        let first = generation.and_then(|generation| generation.histories.range(range).next());
        Ok(first.map(|(_, history)| history.clone()))
    }

    fn notes(
        &self,
        stream: &StreamName,
        generation: Generation,
        after: Position,
        until: Position,
    ) -> Result<Vec<(Position, Note)>, PoolError> {
        let generation = self.of(stream, generation).into_iter();
        let notes = generation.flat_map(|generation| &generation.notes);
        let notes = notes.filter(|(position, _)| **position > after && **position <= until);
        Ok(notes
            .map(|(position, note)| (*position, note.clone()))
            .collect())
    }

    fn quarantined(
        &self,
        stream: &StreamName,
        generation: Generation,
        after: Position,
        limit: usize,
    ) -> Result<Vec<(Position, Note)>, PoolError> {
        let mut notes = self.notes(stream, generation, after, Position(u64::MAX))?;
        notes.retain(|(_, note)| matches!(note, Note::Quarantined(_)));
        notes.truncate(limit);
        Ok(notes)
    }

    fn served(&self, stream: &StreamName) -> Result<Option<Generation>, PoolError> {
        Ok(self.served.get(stream).copied())
    }

    fn streams(&self) -> Result<Vec<(StreamName, Generation)>, PoolError> {
        Ok(self
            .served
            .iter()
            .map(|(name, generation)| (name.clone(), *generation))
            .collect())
    }

    fn generation(
        &self,
        stream: &StreamName,
        generation: Generation,
    ) -> Result<Option<GenerationState>, PoolError> {
        Ok(self
            .of(stream, generation)
            .map(|generation| generation.state))
    }

    fn generations(&self) -> Result<Vec<(StreamName, Generation)>, PoolError> {
        Ok(self.generations.keys().cloned().collect())
    }
}

/// A panic while the lock was held left whole values: every change above is made of moves.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Refused deliveries that nobody needs after the end.
#[derive(Debug, Default)]
pub struct MemoryRejections(Mutex<BTreeMap<RequestId, Vec<u8>>>);

impl MemoryRejections {
    fn all(&self) -> MutexGuard<'_, BTreeMap<RequestId, Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RejectionStore for MemoryRejections {
    fn put(&self, id: RequestId, bytes: &[u8]) -> Result<(), Cause> {
        self.all().insert(id, bytes.to_vec());
        Ok(())
    }

    fn get(&self, id: RequestId) -> Result<Option<Vec<u8>>, Cause> {
        Ok(self.all().get(&id).cloned())
    }

    fn remove(&self, id: RequestId) -> Result<(), Cause> {
        self.all().remove(&id);
        Ok(())
    }

    fn ids(&self) -> Result<Vec<RequestId>, Cause> {
        Ok(self.all().keys().copied().collect())
    }
}
