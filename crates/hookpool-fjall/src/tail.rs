//! Proves the end of an opened log: blocks, chain, index and witness; and remembers which deliveries it holds.

use bytes::Bytes;
use fjall::{Keyspace, Readable as _, Snapshot};
use hookpool_core::{
    codec::{Block, Digest},
    event::{DedupeKey, Event},
    name::StreamName,
    position::{Epoch, Position},
    time::Timestamp,
};
use hookpool_store::dedupe::{DedupeWindow, WINDOW_SECONDS};
use std::collections::BTreeMap;

use crate::{
    keys::{self, Key},
    rows::Ordinals,
    tables::Finding,
};

/// A moment of the log's database.
#[derive(Clone)]
pub(crate) struct View {
    pub(crate) blocks: Keyspace,
    pub(crate) streams: Keyspace,
    pub(crate) snapshot: Snapshot,
}

/// The end of an intact log.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    pub(crate) head: Position,
    pub(crate) digest: Digest,
    pub(crate) dedupe: DedupeWindow,
}

impl View {
    /// A block by its first position.
    pub(crate) fn block(&self, first: Position) -> Result<Option<Block>, Finding> {
        let value = self
            .snapshot
            .get(&self.blocks, Key::Block(first).encode())
            .map_err(|error| unreadable(&error))?;
        value.map(|value| parse(first, value.into())).transpose()
    }

    /// The last block that begins at or before a position.
    pub(crate) fn block_at(&self, position: Position) -> Result<Option<Block>, Finding> {
        let range = ..=Key::Block(position).encode();
        self.snapshot
            .range(&self.blocks, range)
            .next_back()
            .map(read)
            .transpose()
    }

    /// All blocks that begin in a range, in order.
    pub(crate) fn blocks(
        &self,
        range: std::ops::RangeInclusive<Position>,
    ) -> impl DoubleEndedIterator<Item = Result<Block, Finding>> + use<> {
        let range = Key::Block(*range.start()).encode()..=Key::Block(*range.end()).encode();
        self.snapshot.range(&self.blocks, range).map(read)
    }

    /// Whether the index names this block for exactly the streams that it holds.
    pub(crate) fn check_index(&self, block: &Block, events: &[Event]) -> Result<(), Finding> {
        let first = block.header().first;
        for (stream, ordinals) in index(events.iter().map(|event| &event.event.stream)) {
            let row = self
                .snapshot
                .get(&self.streams, Key::Stream(stream, first).encode())
                .map_err(|error| unreadable(&error))?;
            if row.as_deref() != Some(&ordinals.encode()) {
                return Err(format!(
                    "the index of stream {stream} does not name the block at position {first}"
                ));
            }
        }
        Ok(())
    }

    /// Number of rows of the index.
    pub(crate) fn index_rows(&self) -> Result<u64, Finding> {
        let rows = self.snapshot.iter(&self.streams).map(|row| {
            let key = row.key().map_err(|error| unreadable(&error))?;
            keys::stream_of(&key).ok_or("a key in `streams` is damaged")?;
            Ok(1)
        });
        rows.sum()
    }

    /// Checks the last `bytes_max` of the log, and reads as far back as duplicates must be known.
    pub(crate) fn tail(&self, epoch: Epoch, bytes_max: u64) -> Result<Tail, Finding> {
        let mut chain = Chain::new(epoch);
        let mut window = Window::default();
        let mut tail = Tail::default();
        let mut bytes = 0;
        for block in self.blocks(Position::ZERO..=Position(u64::MAX)).rev() {
            let block = block?;
            let events = chain.check(&block)?;
            if bytes < bytes_max {
                self.check_index(&block, &events)?;
            }
            if tail.head == Position::ZERO {
                (tail.head, tail.digest) = (block.header().last(), block.digest());
            }
            bytes += block.len_bytes() as u64;
            let known = window.take(&events);
            if known && bytes >= bytes_max {
                tail.dedupe = window.finish();
                return Ok(tail);
            }
        }
        chain.finish()?;
        tail.dedupe = window.finish();
        Ok(tail)
    }
}

/// Which events of a block belong to which stream.
pub(crate) fn index<'a>(
    streams: impl Iterator<Item = &'a StreamName>,
) -> Vec<(&'a StreamName, Ordinals)> {
    let mut index = BTreeMap::<_, Vec<u32>>::new();
    let mut count = 0;
    for (ordinal, stream) in (0..).zip(streams) {
        index.entry(stream).or_default().push(ordinal);
        count += 1;
    }
    index
        .into_iter()
        .map(|(stream, ordinals)| (stream, Ordinals::of(ordinals, count)))
        .collect()
}

fn read(guard: fjall::Guard) -> Result<Block, Finding> {
    let (key, value) = guard.into_inner().map_err(|error| unreadable(&error))?;
    let first = keys::block_of(&key).ok_or("a key in `blocks` is damaged")?;
    parse(first, value.into())
}

fn parse(first: Position, value: Bytes) -> Result<Block, Finding> {
    let block = Block::parse(value).map_err(|error| format!("at position {first}: {error}"))?;
    if block.header().first == first {
        Ok(block)
    } else {
        Err(format!("another block lies at position {first}"))
    }
}

fn unreadable(error: &fjall::Error) -> Finding {
    format!("the database can't be read ({error})")
}

/// Checks blocks from the last to the first, each against the one after it.
struct Chain {
    epoch: Epoch,
    /// Of the block checked before, the next one in the log.
    next: Option<(Position, Digest)>,
}

impl Chain {
    fn new(epoch: Epoch) -> Self {
        Self { epoch, next: None }
    }

    /// The events of the block, all intact.
    fn check(&mut self, block: &Block) -> Result<Vec<Event>, Finding> {
        let header = block.header();
        if header.epoch != self.epoch {
            return Err(format!(
                "the block at position {} is of another log",
                header.first
            ));
        }
        if let Some((first, previous)) = self.next {
            if header.last().plus(1) != first {
                return Err(format!(
                    "events are missing after position {}",
                    header.last()
                ));
            }
            if block.digest() != previous {
                return Err(format!(
                    "the block at position {first} does not follow the one before it"
                ));
            }
        }
        self.next = Some((header.first, header.previous));
        let events: Result<Vec<_>, _> = block.events().collect();
        events.map_err(|error| error.to_string())
    }

    /// At the first block of the log.
    fn finish(self) -> Result<(), Finding> {
        match self.next {
            None => Ok(()),
            Some((Position(1), previous)) if previous == Digest::default() => Ok(()),
            Some((Position(1), _)) => Err("the first block names one before it".into()),
            Some((first, _)) => Err(format!("events are missing before position {first}")),
        }
    }
}

/// Dedupe keys of the end of a log, met from its last block backwards.
#[derive(Default)]
struct Window {
    newest: Timestamp,
    /// Newest block first; within a block in order.
    blocks: Vec<Vec<(DedupeKey, Timestamp, Position)>>,
}

impl Window {
    /// Takes the block before; says whether all that is older is out of the window.
    fn take(&mut self, events: &[Event]) -> bool {
        let newest = events.iter().map(|event| event.event.time).max();
        let newest = newest.unwrap_or_default();
        self.newest = self.newest.max(newest);
        let keys = events.iter().filter_map(|event| {
            let key = event.event.dedupe?;
            Some((key, event.event.time, event.position))
        });
        self.blocks.push(keys.collect());
        newest.plus_seconds(WINDOW_SECONDS) < self.newest
    }

    fn finish(self) -> DedupeWindow {
        let mut window = DedupeWindow::default();
        for (key, time, position) in self.blocks.into_iter().rev().flatten() {
            window.remember(key, time, position);
        }
        window
    }
}
