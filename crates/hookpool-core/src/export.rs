//! A log as lines of text that prove themselves: written block by block, read line by line, in bounded memory.
//!
//! `docs/protocol.md` has the format. What is read back makes the same blocks, byte for byte, so that an export's chain can be proved
//! against a signed head, and a log be made of it again. [`cloud_event`] is the other format, for programs that know nothing of
//! ours; it proves nothing. Not here: files, HTTP, where blocks come from.

mod cloudevent;
mod line;
mod read;
mod write;

pub use cloudevent::{CloudEventError, cloud_event};
pub use read::{ExportError, Fault, Piece, Place, Reader, Summary};
pub use write::Writer;

use crate::{
    codec::Digest,
    name::StreamName,
    position::{Epoch, Position},
    time::Timestamp,
};

/// The format that is written. Every format ever written stays readable.
const FORMAT: u32 = 2;
/// The first one that has blocks that lost events.
const FORMAT_OF_THINNED: u32 = 2;

/// The positions after one and up to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// Only events with greater positions.
    pub after: Position,
    /// Only events up to here.
    pub until: Position,
}

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requested {
    /// Only events with greater positions.
    pub after: Position,
    /// Only events up to here; `None` is up to the end.
    pub until: Option<Position>,
}

/// What an export is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Of the log.
    pub epoch: Epoch,
    /// What is in it: whole blocks, where it is of all streams.
    pub range: Range,
    /// What was asked for.
    pub requested: Requested,
    /// What ties it to the log.
    pub scope: Scope,
    /// Version of the program that wrote it.
    pub server: String,
    /// When it was begun.
    pub time: Timestamp,
}

/// Which events of the range are in an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All of them: its blocks can be made again.
    Chained {
        /// Digest of the block before the first one; zeros at the start of the log.
        previous: Digest,
    },
    /// Those of one stream: each is intact, but that none is missing can't be proved.
    Stream(StreamName),
}

impl Header {
    /// Whether it begins where the log begins, with nothing left out.
    #[must_use]
    pub fn is_from_the_start(&self) -> bool {
        let previous = Digest::default();
        self.scope == Scope::Chained { previous } && self.range.after == Position::ZERO
    }
}

#[cfg(test)]
mod tests;
