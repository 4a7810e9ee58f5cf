//! Writes an export.

use sha2::{Digest as _, Sha256};

use super::{Header, Scope, line};
use crate::{
    codec::{Block, BlockError, Digest},
    event::Event,
    position::Position,
};

/// Writes the lines of one export; whoever has it takes them out as they come.
#[derive(Debug)]
pub struct Writer {
    hash: Sha256,
    lines: String,
    events: u64,
    last: Position,
    digest: Option<Digest>,
}

impl Writer {
    /// Begins with the header's line.
    #[must_use]
    pub fn new(header: &Header) -> Self {
        let digest = match &header.scope {
            Scope::Chained { previous } => Some(*previous),
            Scope::Stream(_) => None,
        };
        let mut writer = Self {
            hash: Sha256::new(),
            lines: String::new(),
            events: 0,
            last: header.range.after,
            digest,
        };
        writer.push(&line::header(header));
        writer
    }

    /// Adds the events of a block and its own line.
    ///
    /// # Errors
    /// [`BlockError`] if an event is damaged; the export must not be ended then.
    pub fn block(&mut self, block: &Block) -> Result<(), BlockError> {
        if let Some(line) = line::thinned(block.header()) {
            self.push(&line);
        }
        for event in block.events() {
            self.event(&event?);
        }
        let (header, digest) = (block.header(), block.digest());
        self.push(&line::block(header.first, header.count, digest));
        self.digest = Some(digest);
        Ok(())
    }

    /// Adds an event of a stream.
    pub fn event(&mut self, event: &Event) {
        self.events += 1;
        self.last = event.position;
        self.push(&line::event(event));
    }

    /// The lines that were written and not taken yet.
    #[must_use]
    pub fn take(&mut self) -> String {
        std::mem::take(&mut self.lines)
    }

    /// Ends with the trailer's line; gives all lines that were not taken yet.
    #[must_use]
    pub fn finish(mut self) -> String {
        let sha256 = self.hash.clone().finalize().into();
        let line = line::trailer(self.events, self.last, self.digest, sha256);
        self.push(&line);
        self.lines
    }

    fn push(&mut self, line: &str) {
        self.hash.update(line);
        self.lines.push_str(line);
    }
}
