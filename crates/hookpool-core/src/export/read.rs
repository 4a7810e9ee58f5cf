//! Reads an export, and names the first line that is not what was written.

use std::fmt;

use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::{
    FORMAT, FORMAT_OF_THINNED, Header, Scope,
    line::{self, Kind},
};
use crate::{
    codec::{BlockHeader, Digest, EncodedBlock, encode_block, encode_thinned},
    event::Event,
    position::Position,
};

/// Why a text is not the export that was written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("read line {line} of the export, {place}: {fault}")]
pub struct ExportError {
    /// Counted from 1.
    pub line: u64,
    /// What the line is, or should be.
    pub place: Place,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What a line of an export is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The first line.
    Header,
    /// The event at this position.
    Event(Position),
    /// An event of a stream or of a block that lost some, after this position.
    After(Position),
    /// The line before the events of the block that begins at this position, which lost some.
    Thinned(Position),
    /// The line behind the events of the block that begins at this position.
    Block(Position),
    /// The last line.
    Trailer,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header => write!(f, "the header"),
            Self::Event(position) => write!(f, "the event at position {position}"),
            Self::After(position) => write!(f, "an event after position {position}"),
            Self::Thinned(first) => write!(f, "the start of the block at position {first}"),
            Self::Block(first) => write!(f, "the end of the block at position {first}"),
            Self::Trailer => write!(f, "the trailer"),
        }
    }
}

/// What is wrong with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Fault {
    /// It is not what was written.
    #[error("it is damaged")]
    Damaged,
    /// A newer Hookpool wrote it.
    #[error("it is of format {0}, and this program knows formats up to {FORMAT}; use that version")]
    NewerFormat(u32),
    /// Lines before it are missing, doubled or in another order.
    #[error("it does not follow the line before it")]
    Order,
    /// It is not what the lines before it make.
    #[error("it is damaged, or lines before it are missing or not its own")]
    OtherEvents,
    /// The last line is not a whole trailer.
    #[error("the export breaks off here; make it again")]
    BreaksOff,
    /// There are more lines.
    #[error("there is more behind the trailer")]
    Surplus,
}

/// What a line was.
#[derive(Debug)]
pub enum Piece {
    /// The header.
    Header(Header),
    /// The start of a block that lost this many events.
    Thinned(u32),
    /// An event, which is intact.
    Event(Position),
    /// The end of a block: the same bytes as in the log.
    Block(EncodedBlock),
    /// The trailer.
    Trailer,
}

/// What a whole export holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// What it is of.
    pub header: Header,
    /// Number of events.
    pub events: u64,
    /// Blocks that lost events.
    pub thinned: u64,
    /// Events that were dropped from them.
    pub dropped: u64,
    /// Of its last event; where the range begins if there is none.
    pub last: Position,
    /// Of its last block; `None` where blocks can't be made.
    pub digest: Option<Digest>,
}

/// No block of a log is larger; bounds what a text that was made up can make us hold.
const BLOCK_BYTES_MAX: usize = 1 << 30;

/// Takes an export line by line; holds the events of one block at most.
#[derive(Debug, Default)]
pub struct Reader {
    lines: u64,
    hash: Sha256,
    format: u32,
    summary: Option<Summary>,
    /// Everything of the range up to here was read.
    reached: Position,
    /// What the block said that has begun and lost events.
    thinned: Option<BlockHeader>,
    /// Events whose block has not ended.
    block: Vec<Event>,
    /// Bytes of the lines of these events.
    block_bytes: usize,
    ended: bool,
}

impl Reader {
    /// Takes the next line with its line feed.
    ///
    /// # Errors
    /// [`ExportError`]; there is no going on then.
    pub fn line(&mut self, line: &[u8]) -> Result<Piece, ExportError> {
        self.lines += 1;
        let kind = match (self.lines, self.ended) {
            (1, _) => Kind::Header,
            (_, false) => Kind::of(line),
            (_, true) => return Err(self.error(Kind::Trailer, Fault::Surplus)),
        };
        let piece = if line.ends_with(b"\n") {
            self.take(kind, line)
        } else {
            Err(Fault::BreaksOff)
        };
        self.hash.update(line);
        piece.map_err(|fault| self.error(kind, fault))
    }

    /// Says what was read, if it was a whole export.
    ///
    /// # Errors
    /// [`ExportError`] if there was no trailer.
    pub fn finish(mut self) -> Result<Summary, ExportError> {
        self.lines += 1;
        let error = self.error(Kind::Trailer, Fault::BreaksOff);
        self.summary.filter(|_| self.ended).ok_or(error)
    }

    fn take(&mut self, kind: Kind, line: &[u8]) -> Result<Piece, Fault> {
        match (kind, &mut self.summary) {
            (Kind::Header, None) => self.header(line).map(Piece::Header),
            (Kind::Thinned, Some(_)) => self.thinned(line).map(Piece::Thinned),
            (Kind::Event, Some(_)) => self.event(line).map(Piece::Event),
            (Kind::Block, Some(_)) => self.block(line).map(Piece::Block),
            (Kind::Trailer, Some(_)) => self.trailer(line).map(|()| Piece::Trailer),
            // A second header, or no header at all, after which there is no second line.
            (_, _) => Err(Fault::Order),
        }
    }

    fn header(&mut self, line: &[u8]) -> Result<Header, Fault> {
        let newer = line::format_of(line).filter(|format| *format > FORMAT);
        if let Some(format) = newer {
            return Err(Fault::NewerFormat(format));
        }
        let (format, header) = line::read_header(line).ok_or(Fault::Damaged)?;
        if header.range.after > header.range.until || header.range.until == Position(u64::MAX) {
            return Err(Fault::Damaged);
        }
        let digest = match &header.scope {
            Scope::Chained { previous } => Some(*previous),
            Scope::Stream(_) => None,
        };
        self.summary = Some(Summary {
            header: header.clone(),
            events: 0,
            thinned: 0,
            dropped: 0,
            last: header.range.after,
            digest,
        });
        self.format = format;
        self.reached = header.range.after;
        Ok(header)
    }

    fn event(&mut self, line: &[u8]) -> Result<Position, Fault> {
        let (Some(event), Some(summary)) = (line::read_event(line), &mut self.summary) else {
            return Err(Fault::Damaged);
        };
        let position = event.position;
        let follows = match &summary.header.scope {
            Scope::Stream(stream) => *stream == event.event.stream && position > self.reached,
            Scope::Chained { .. } if self.block.is_empty() || self.thinned.is_some() => {
                position > self.reached
            }
            Scope::Chained { .. } => position == self.reached.plus(1),
        };
        self.block_bytes += line.len();
        let block_end = self.thinned.map(|block| block.last());
        let in_range = position <= block_end.unwrap_or(summary.header.range.until);
        if !follows || !in_range || self.block_bytes > BLOCK_BYTES_MAX {
            return Err(Fault::Order);
        }
        summary.events += 1;
        summary.last = position;
        self.reached = position;
        if summary.digest.is_some() {
            self.block.push(event);
        } else {
            self.block_bytes = 0;
        }
        Ok(position)
    }

    fn thinned(&mut self, line: &[u8]) -> Result<u32, Fault> {
        let summary = self.summary.as_mut().ok_or(Fault::Order)?;
        let previous = summary.digest.ok_or(Fault::Order)?;
        if self.format < FORMAT_OF_THINNED {
            return Err(Fault::Damaged);
        }
        if self.thinned.is_some() || !self.block.is_empty() {
            return Err(Fault::Order);
        }
        let header = line::read_thinned(line, summary.header.epoch, previous);
        let header = header.ok_or(Fault::Damaged)?;
        let kept = header.thinned.map_or(0, |thinned| thinned.kept);
        let dropped = header
            .count
            .checked_sub(kept)
            .filter(|dropped| *dropped > 0);
        let dropped = dropped.ok_or(Fault::Damaged)?;
        if header.first <= self.reached || header.last() > summary.header.range.until {
            return Err(Fault::Order);
        }
        summary.thinned += 1;
        summary.dropped += u64::from(dropped);
        self.reached = Position(header.first.0 - 1);
        self.thinned = Some(header);
        Ok(dropped)
    }

    fn block(&mut self, line: &[u8]) -> Result<EncodedBlock, Fault> {
        let block = self.encode()?;
        let count = u32::try_from(block.last.0 - self.first().0 + 1);
        let count = count.map_err(|_| Fault::OtherEvents)?;
        if line != line::block(self.first(), count, block.digest).as_bytes() {
            return Err(Fault::OtherEvents);
        }
        (self.block, self.block_bytes, self.thinned) = (Vec::new(), 0, None);
        self.reached = block.last;
        if let Some(summary) = &mut self.summary {
            summary.digest = Some(block.digest);
        }
        Ok(block)
    }

    /// The block that the events make whose block has not ended.
    fn encode(&self) -> Result<EncodedBlock, Fault> {
        let summary = self.summary.as_ref().ok_or(Fault::Order)?;
        let previous = summary.digest.ok_or(Fault::Order)?;
        let epoch = summary.header.epoch;
        let Some(header) = self.thinned else {
            let first = self.block.first().ok_or(Fault::Order)?.position;
            let events = self.block.iter().map(|it| &it.event);
            return Ok(encode_block(epoch, first, previous, events));
        };
        let digest = header.thinned.ok_or(Fault::Order)?.digest;
        let place = (header.first, header.count);
        let block = encode_thinned(epoch, place, (previous, digest), self.block.iter());
        // Its header has the number and the length of the events that belong to it.
        let made = BlockHeader::of(&block.bytes).map_err(|_| Fault::OtherEvents)?;
        (made == header).then_some(block).ok_or(Fault::OtherEvents)
    }

    /// Where the block begins that has not ended.
    fn first(&self) -> Position {
        let first = self.block.first().map(|event| event.position);
        self.thinned
            .map(|header| header.first)
            .or(first)
            .unwrap_or(self.reached)
    }

    fn trailer(&mut self, line: &[u8]) -> Result<(), Fault> {
        let summary = self.summary.as_ref().ok_or(Fault::Order)?;
        let chained = summary.digest.is_some();
        let whole = !chained || self.reached == summary.header.range.until;
        let sha256 = self.hash.clone().finalize().into();
        let expected = line::trailer(summary.events, summary.last, summary.digest, sha256);
        let in_block = self.thinned.is_some() || !self.block.is_empty();
        if in_block || !whole || line != expected.as_bytes() {
            return Err(Fault::OtherEvents);
        }
        self.ended = true;
        Ok(())
    }

    fn error(&self, kind: Kind, fault: Fault) -> ExportError {
        let chained = self.summary.as_ref().is_some_and(|it| it.digest.is_some());
        let (reached, next) = (self.reached, Position(self.reached.0.saturating_add(1)));
        let place = match kind {
            Kind::Header => Place::Header,
            Kind::Event if chained && self.thinned.is_none() => Place::Event(next),
            Kind::Event => Place::After(reached),
            Kind::Thinned => Place::Thinned(next),
            Kind::Block => Place::Block(self.first()),
            Kind::Trailer => Place::Trailer,
        };
        ExportError {
            line: self.lines,
            place,
            fault,
        }
    }
}
