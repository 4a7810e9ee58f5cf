//! Copies of a log, made block by block: backups, restores and imports. Not for the server, whose appender has [`EventLog::append`].
//!
//! [`EventLog::append`]: hookpool_store::EventLog::append

use hookpool_core::{
    codec::Block,
    position::{Epoch, Position},
};
use hookpool_store::AppendError;
use thiserror::Error;

use super::FjallLog;
use crate::{tail, witness::Witness};

/// Why a block is not the next one of this log.
#[derive(Debug, Clone, Error)]
pub enum CopyError {
    /// It belongs to another log.
    #[error("copy a block: it is of log {found}, and this is a copy of log {epoch}")]
    OtherLog {
        /// Of the block.
        found: Epoch,
        /// Of this log.
        epoch: Epoch,
    },
    /// Blocks are missing, or it was copied already.
    #[error("copy a block: it begins at position {found}, and this log goes on at {next}")]
    NotNext {
        /// Of the block.
        found: Position,
        /// Of this log.
        next: Position,
    },
    /// Up to here the two logs are not the same.
    #[error("copy the block at position {0}: what comes before it is not what this log holds")]
    OtherHistory(Position),
    /// Its bytes are not what was written.
    #[error("copy a block: {0}")]
    Damaged(String),
    /// It could not be written.
    #[error(transparent)]
    Append(#[from] AppendError),
}

impl FjallLog {
    /// Appends the next block of the log that this is a copy of, byte for byte, and returns when it is durable.
    ///
    /// # Errors
    /// [`CopyError`]; nothing was appended unless it is [`CopyError::Append`].
    pub fn append_block(&self, block: &Block) -> Result<(), CopyError> {
        let mut writer = self.writer()?;
        let header = block.header();
        let next = writer.head.plus(1);
        if header.epoch != self.epoch {
            return Err(CopyError::OtherLog {
                found: header.epoch,
                epoch: self.epoch,
            });
        }
        if header.first != next {
            let found = header.first;
            return Err(CopyError::NotNext { found, next });
        }
        if header.previous != writer.digest {
            return Err(CopyError::OtherHistory(header.first));
        }
        let events = tail::check_block(block, self.epoch).map_err(CopyError::Damaged)?;
        if header.thinned.is_some() {
            self.allow_thinned()?;
        }
        let events: Vec<_> = events
            .iter()
            .map(|event| (event.position, &event.event))
            .collect();
        let end = Witness {
            epoch: self.epoch,
            head: header.last(),
            digest: block.digest(),
        };
        Ok(self.store(&mut writer, end, block.bytes().clone(), &events)?)
    }
}
