//! Reads an export, and names the first line that is not what was written.

use std::fmt;

use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::{
    FORMAT, Header, Scope,
    line::{self, Kind},
};
use crate::{
    codec::{Digest, EncodedBlock, encode_block},
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
    /// An event of a stream, after this position.
    After(Position),
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
    summary: Option<Summary>,
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
        let header = line::read_header(line).ok_or(Fault::Damaged)?;
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
            last: header.range.after,
            digest,
        });
        Ok(header)
    }

    fn event(&mut self, line: &[u8]) -> Result<Position, Fault> {
        let (Some(event), Some(summary)) = (line::read_event(line), &mut self.summary) else {
            return Err(Fault::Damaged);
        };
        let position = event.position;
        let follows = match &summary.header.scope {
            Scope::Stream(stream) => *stream == event.event.stream && position > summary.last,
            Scope::Chained { .. } if self.block.is_empty() => position > summary.last,
            Scope::Chained { .. } => position == summary.last.plus(1),
        };
        self.block_bytes += line.len();
        let in_range = position <= summary.header.range.until;
        if !follows || !in_range || self.block_bytes > BLOCK_BYTES_MAX {
            return Err(Fault::Order);
        }
        summary.events += 1;
        summary.last = position;
        if summary.digest.is_some() {
            self.block.push(event);
        } else {
            self.block_bytes = 0;
        }
        Ok(position)
    }

    fn block(&mut self, line: &[u8]) -> Result<EncodedBlock, Fault> {
        let events = std::mem::take(&mut self.block);
        self.block_bytes = 0;
        let (Some(summary), Some(first)) = (&mut self.summary, events.first()) else {
            return Err(Fault::Order);
        };
        let previous = summary.digest.ok_or(Fault::Order)?;
        let count = u32::try_from(events.len()).map_err(|_| Fault::OtherEvents)?;
        let (epoch, first) = (summary.header.epoch, first.position);
        let block = encode_block(epoch, first, previous, events.iter().map(|it| &it.event));
        if line != line::block(first, count, block.digest).as_bytes() {
            self.block = events;
            return Err(Fault::OtherEvents);
        }
        summary.digest = Some(block.digest);
        Ok(block)
    }

    fn trailer(&mut self, line: &[u8]) -> Result<(), Fault> {
        let summary = self.summary.as_ref().ok_or(Fault::Order)?;
        let chained = summary.digest.is_some();
        let whole = !chained || summary.last == summary.header.range.until;
        let sha256 = self.hash.clone().finalize().into();
        let expected = line::trailer(summary.events, summary.last, summary.digest, sha256);
        if !self.block.is_empty() || !whole || line != expected.as_bytes() {
            return Err(Fault::OtherEvents);
        }
        self.ended = true;
        Ok(())
    }

    fn error(&self, kind: Kind, fault: Fault) -> ExportError {
        let last = self.summary.as_ref().map_or(Position::ZERO, |it| it.last);
        let chained = self.summary.as_ref().is_some_and(|it| it.digest.is_some());
        let first = self.block.first().map_or(last, |event| event.position);
        let place = match kind {
            Kind::Header => Place::Header,
            Kind::Event if chained => Place::Event(last.plus(1)),
            Kind::Event => Place::After(last),
            Kind::Block => Place::Block(first),
            Kind::Trailer => Place::Trailer,
        };
        ExportError {
            line: self.lines,
            place,
            fault,
        }
    }
}
