//! Proves the end of an opened log: blocks, chain, index and witness; and remembers which deliveries it holds.

use std::{collections::BTreeMap, num::NonZeroUsize, panic::resume_unwind};

use bytes::Bytes;
use fjall::{Keyspace, Readable as _, Snapshot};
use hookpool_core::{
    codec::{Block, BlockHeader, Digest},
    event::{DedupeKey, Event},
    name::StreamName,
    position::{Epoch, Position},
    time::Timestamp,
};
use hookpool_store::dedupe::{DedupeWindow, WINDOW_SECONDS};

use crate::{
    keys::{self, Key},
    requests::{Indexed, Missed, key_of},
    rows::Ordinals,
    tables::Finding,
};

/// Enough for all processors, few enough to hold.
const BLOCKS_AT_ONCE: usize = 64;

/// A moment of the log's database.
#[derive(Clone)]
pub(crate) struct View {
    pub(crate) blocks: Keyspace,
    pub(crate) streams: Keyspace,
    pub(crate) requests: Keyspace,
    pub(crate) snapshot: Snapshot,
}

/// The end of an intact log.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    pub(crate) head: Position,
    pub(crate) digest: Digest,
    pub(crate) dedupe: DedupeWindow,
    /// Of the last event that is there.
    pub(crate) time: Timestamp,
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

    /// The blocks that hold the positions after `after` up to `until`, which is in the log: all of them, or an error.
    pub(crate) fn blocks_without_holes(
        &self,
        after: Position,
        until: Position,
    ) -> Result<impl Iterator<Item = Result<Block, Finding>> + use<>, Finding> {
        let next = after.plus(1);
        let first = self
            .block_at(next)?
            .filter(|block| block.header().last() >= next)
            .ok_or_else(|| missing(next))?;
        let mut expected = first.header().first;
        let rest = self.blocks(first.header().last().plus(1)..=until);
        let end = std::iter::once_with(|| Ok(None));
        let blocks = std::iter::once(Ok(first)).chain(rest);
        Ok(blocks
            .map(|block| block.map(Some))
            .chain(end)
            .filter_map(move |block| match block {
                Ok(Some(block)) if block.header().first == expected => {
                    expected = block.header().last().plus(1);
                    Some(Ok(block))
                }
                Ok(None) if expected > until => None,
                Ok(_) => Some(Err(missing(expected))),
                Err(what) => Some(Err(what)),
            }))
    }

    /// Whether the index names this block for exactly the streams that it holds.
    pub(crate) fn check_index(&self, block: &Block, events: &[Event]) -> Result<(), Finding> {
        let first = block.header().first;
        for (stream, ordinals) in index_of(block, events) {
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
        let mut chain = Chain::default();
        let mut window = Window::default();
        let mut missed = Missed::default();
        let mut latest = Timestamp::default();
        let mut tail = Tail::default();
        let mut bytes = 0;
        let mut blocks = self.blocks(Position::ZERO..=Position(u64::MAX)).rev();
        loop {
            let some: Result<Vec<_>, _> = blocks.by_ref().take(BLOCKS_AT_ONCE).collect();
            let some = some?;
            if some.is_empty() {
                chain.finish()?;
                break;
            }
            let mut done = false;
            for checked in self.check_all(&some, epoch, bytes < bytes_max) {
                let mut checked = checked?;
                chain.link(&checked)?;
                latest = latest.max(checked.newest());
                let mut unnamed = std::mem::take(&mut checked.missed);
                unnamed.expire(latest);
                missed.append(unnamed);
                if tail.head == Position::ZERO {
                    (tail.head, tail.digest) = (checked.header.last(), checked.digest);
                }
                bytes += checked.bytes;
                done = window.take(checked) && bytes >= bytes_max;
            }
            if done {
                break;
            }
        }
        missed.finish()?;
        tail.time = window.last.unwrap_or_default();
        tail.dedupe = window.finish();
        Ok(tail)
    }

    /// Checks blocks each by itself, on all processors.
    fn check_all(
        &self,
        blocks: &[Block],
        epoch: Epoch,
        with_index: bool,
    ) -> Vec<Result<Checked, Finding>> {
        let workers = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        std::thread::scope(|scope| {
            let parts: Vec<_> = blocks
                .chunks(blocks.len().div_ceil(workers).max(1))
                .map(|part| {
                    let check = |block| self.check(block, epoch, with_index);
                    scope.spawn(move || part.iter().map(check).collect::<Vec<_>>())
                })
                .collect();
            parts
                .into_iter()
                .flat_map(|part| part.join().unwrap_or_else(|panic| resume_unwind(panic)))
                .collect()
        })
    }

    fn check(&self, block: &Block, epoch: Epoch, with_index: bool) -> Result<Checked, Finding> {
        let events = check_block(block, epoch)?;
        let mut missed = Missed::default();
        if with_index {
            self.check_index(block, &events)?;
            missed = self.check_requests(&events)?.0;
        }
        Ok(Checked {
            missed,
            ..Checked::of(block, &events)
        })
    }

    /// Of events that begin requests with an identity, those that the index does not know, and how many it names.
    pub(crate) fn check_requests(&self, events: &[Event]) -> Result<(Missed, u64), Finding> {
        let (mut missed, mut named) = (Missed::default(), 0);
        for event in events {
            let Some(key) = key_of(event) else { continue };
            match self.indexed(&key, event.position)? {
                Indexed::Named => named += 1,
                Indexed::Replaced => {}
                Indexed::Missing => missed.push(event.event.time, event.position),
            }
        }
        Ok((missed, named))
    }
}

/// The events of a block, if it is of this log and all of them are intact.
pub(crate) fn check_block(block: &Block, epoch: Epoch) -> Result<Vec<Event>, Finding> {
    let header = block.header();
    if header.epoch != epoch {
        return Err(format!(
            "the block at position {} is of another log",
            header.first
        ));
    }
    let events: Result<Vec<_>, _> = block.events().collect();
    events.map_err(|error| error.to_string())
}

pub(crate) fn missing(position: Position) -> Finding {
    format!("the block of position {position} is missing")
}

/// Which events of a block belong to which stream. They are told by their positions; it had `count` when it was committed.
pub(crate) fn index<'a>(
    (first, count): (Position, u32),
    streams: impl Iterator<Item = (Position, &'a StreamName)>,
) -> BTreeMap<&'a StreamName, Ordinals> {
    let mut index = BTreeMap::<_, Vec<u32>>::new();
    for (position, stream) in streams {
        // As many as `count`, which is one.
        let ordinal = u32::try_from(position.0 - first.0).unwrap_or(u32::MAX);
        index.entry(stream).or_default().push(ordinal);
    }
    index
        .into_iter()
        .map(|(stream, ordinals)| (stream, Ordinals::of(ordinals, count)))
        .collect()
}

/// The same of a block that has these events.
pub(crate) fn index_of<'a>(
    block: &Block,
    events: &'a [Event],
) -> BTreeMap<&'a StreamName, Ordinals> {
    let BlockHeader { first, count, .. } = *block.header();
    let streams = events.iter();
    index(
        (first, count),
        streams.map(|event| (event.position, &event.event.stream)),
    )
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

pub(crate) fn unreadable(error: &fjall::Error) -> Finding {
    format!("the database can't be read ({error})")
}

/// A block whose events are all intact.
struct Checked {
    header: BlockHeader,
    digest: Digest,
    bytes: u64,
    /// The oldest and the newest; of no events, none.
    times: Option<(Timestamp, Timestamp)>,
    keys: Vec<(DedupeKey, Timestamp, Position)>,
    missed: Missed,
}

impl Checked {
    fn of(block: &Block, events: &[Event]) -> Self {
        let times = || events.iter().map(|event| event.event.time);
        let keys = events.iter().filter_map(|event| {
            let key = event.event.dedupe?;
            Some((key, event.event.time, event.position))
        });
        Self {
            header: *block.header(),
            digest: block.digest(),
            bytes: block.len_bytes() as u64,
            times: times().min().zip(times().max()),
            keys: keys.collect(),
            missed: Missed::default(),
        }
    }

    fn newest(&self) -> Timestamp {
        self.times
            .map_or_else(Timestamp::default, |(_, newest)| newest)
    }
}

/// Checks blocks from the last to the first, each against the one after it.
#[derive(Default)]
struct Chain {
    /// Of the block checked before, the next one in the log.
    next: Option<(Position, Digest)>,
}

impl Chain {
    fn link(&mut self, block: &Checked) -> Result<(), Finding> {
        let last = block.header.last();
        match self.next {
            Some((first, _)) if last.plus(1) != first => {
                Err(format!("events are missing after position {last}"))
            }
            Some((first, previous)) if block.digest != previous => Err(format!(
                "the block at position {first} does not follow the one before it"
            )),
            _ => {
                self.next = Some((block.header.first, block.header.previous));
                Ok(())
            }
        }
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
    /// Newest time in the last block that has events.
    last: Option<Timestamp>,
    /// Newest block first; within a block in order.
    blocks: Vec<Vec<(DedupeKey, Timestamp, Position)>>,
}

impl Window {
    /// Takes the block before; says whether its times are out of the window around the last.
    ///
    /// A clock that stepped for a while leaves a stretch of such blocks, with others that matter before them; so this alone is
    /// no reason to stop.
    fn take(&mut self, block: Checked) -> bool {
        let Some((oldest, newest)) = block.times else {
            // Whoever dropped all of its events knew that they were out of the window.
            return true;
        };
        let last = *self.last.get_or_insert(newest);
        self.blocks.push(block.keys);
        let before = newest.plus_seconds(WINDOW_SECONDS) < last;
        let after = oldest > last.plus_seconds(WINDOW_SECONDS);
        before || after
    }

    fn finish(self) -> DedupeWindow {
        let mut window = DedupeWindow::default();
        for (key, time, position) in self.blocks.into_iter().rev().flatten() {
            window.remember(key, time, position);
        }
        window
    }
}
