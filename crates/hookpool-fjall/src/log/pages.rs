//! Reading a log as it was published: whole blocks, or a page of events.

use std::sync::Arc;

use hookpool_core::{
    codec::{Block, BlockHeader},
    event::Event,
    name::StreamName,
    position::{Epoch, Position},
};
use hookpool_store::{Page, PageRequest, ReadError};

use super::{Damage, Published};
use crate::{
    keys::{Key, stream_of, stream_prefix},
    rows::Ordinals,
    tail::{self, View},
};

/// Reads some whole blocks.
pub(super) struct BlockReader<'a> {
    view: &'a View,
    epoch: Epoch,
    /// Everything up to here was read or not asked for.
    pub(super) seen: Position,
}

impl<'a> BlockReader<'a> {
    pub(super) fn new(view: &'a View, epoch: Epoch, after: Position) -> Self {
        Self {
            view,
            epoch,
            seen: after,
        }
    }

    pub(super) fn read(&mut self, head: Position, bytes_max: usize) -> Result<Vec<Block>, String> {
        let mut blocks = Vec::new();
        if self.seen >= head {
            return Ok(blocks);
        }
        let mut bytes = 0;
        for block in self.view.blocks_without_holes(self.seen, head)? {
            let block = block?;
            tail::check_block(&block, self.epoch)?;
            bytes += block.len_bytes();
            self.seen = block.header().last();
            blocks.push(block);
            if bytes >= bytes_max {
                break;
            }
        }
        Ok(blocks)
    }
}

/// Fills one page.
pub(super) struct PageReader<'a> {
    published: &'a Published,
    until: Position,
    /// Up to here all is in the page, or was not asked for.
    seen: Position,
    events: Vec<Event>,
    bytes: usize,
    events_max: usize,
    bytes_max: usize,
    whole_blocks: bool,
    /// How many were read.
    pub(super) blocks: u64,
}

impl<'a> PageReader<'a> {
    pub(super) fn new(published: &'a Published, request: &PageRequest) -> Self {
        Self {
            published,
            until: request.until.min(published.end.head),
            seen: request.after,
            events: Vec::new(),
            bytes: 0,
            events_max: request.events_max.max(1),
            bytes_max: request.bytes_max,
            whole_blocks: request.whole_blocks,
            blocks: 0,
        }
    }

    pub(super) fn read(&mut self, request: &PageRequest) -> Result<Page, ReadError> {
        if self.until > self.seen {
            let whole = match &request.stream {
                None => self.read_all(),
                Some(stream) => self.read_stream(stream),
            };
            let whole = whole.map_err(|what| ReadError::Damaged {
                after: self.seen,
                cause: Arc::new(Damage(what)),
            })?;
            if whole {
                self.seen = self.until;
            }
        }
        Ok(Page {
            events: std::mem::take(&mut self.events),
            through: self.seen,
        })
    }

    /// Whether everything up to the end is in the page.
    fn read_all(&mut self) -> Result<bool, String> {
        for block in self
            .published
            .view
            .blocks_without_holes(self.seen, self.until)?
        {
            let block = block?;
            self.blocks += 1;
            if self.whole_blocks && self.is_full() {
                return Ok(false);
            }
            for event in block.events_from(self.seen.plus(1)) {
                let event = event.map_err(|error| error.to_string())?;
                if event.position > self.until {
                    return Ok(true);
                }
                if !self.take(event) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Whether everything of the stream up to the end is in the page.
    fn read_stream(&mut self, stream: &StreamName) -> Result<bool, String> {
        let view = &self.published.view;
        let key = |first| Key::Stream(stream, first).encode();
        // The block that holds the next position may begin before it.
        let from = self
            .rows(key(Position::ZERO)..=key(self.seen.plus(1)))
            .next_back()
            .transpose()?
            .map_or_else(|| stream_prefix(stream), |(first, _)| key(first));
        for row in self.rows(from..=key(self.until)) {
            let (first, row) = row?;
            if self.whole_blocks && self.is_full() {
                return Ok(false);
            }
            let block = view.block(first)?.ok_or_else(|| tail::missing(first))?;
            self.blocks += 1;
            let BlockHeader { count, thinned, .. } = *block.header();
            let ordinals = Ordinals::decode(&row, count)
                // A block that lost events belongs to no stream as a whole.
                .filter(|ordinals| thinned.is_none() || *ordinals != Ordinals::All)
                .ok_or_else(|| format!("the index of stream {stream} is damaged at {first}"))?;
            for stretch in ordinals.stretches(count) {
                if !self.take_stretch(stream, &block, &ordinals, stretch)? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Takes the events of a stream out of a stretch of a block.
    fn take_stretch(
        &mut self,
        stream: &StreamName,
        block: &Block,
        ordinals: &Ordinals,
        (ordinal, length): (u32, u32),
    ) -> Result<bool, String> {
        let start = block.header().first;
        let first = start.plus(ordinal.into());
        let end = first.plus(length.into()).min(self.until.plus(1));
        let from = first.max(self.seen.plus(1));
        if from >= end {
            return Ok(true);
        }
        let ordinal_of =
            |position: Position| u32::try_from(position.0 - start.0).unwrap_or(u32::MAX);
        let mut missing = ordinals.count_in(ordinal_of(from)..ordinal_of(end));
        for event in block.events_within(from..end) {
            let event = event.map_err(|error| error.to_string())?;
            let is_of_stream = event.event.stream == *stream;
            if is_of_stream != ordinals.hold(ordinal_of(event.position)) {
                return Err(format!(
                    "the index of stream {stream} is wrong about position {}",
                    event.position
                ));
            }
            if is_of_stream {
                if !self.take(event) {
                    return Ok(false);
                }
                missing -= 1;
            }
        }
        if missing > 0 {
            return Err(format!(
                "the index of stream {stream} names {missing} events that are not in the block at position {start}"
            ));
        }
        Ok(true)
    }

    fn rows(
        &self,
        range: std::ops::RangeInclusive<Vec<u8>>,
    ) -> impl DoubleEndedIterator<Item = Result<(Position, fjall::Slice), String>> + use<> {
        use fjall::Readable as _;
        let view = &self.published.view;
        view.snapshot.range(&view.streams, range).map(|guard| {
            let (key, row) = guard.into_inner().map_err(|error| error.to_string())?;
            let (_, first) = stream_of(&key).ok_or("a key in `streams` is damaged")?;
            Ok((first, row))
        })
    }

    fn is_full(&self) -> bool {
        self.events.len() >= self.events_max
            || (self.bytes >= self.bytes_max && !self.events.is_empty())
    }

    /// Puts an event into the page, if it has room or its block is not to be divided.
    fn take(&mut self, event: Event) -> bool {
        if self.is_full() && !self.whole_blocks {
            return false;
        }
        self.bytes += event.event.body.len();
        self.seen = event.position;
        self.events.push(event);
        true
    }
}
