//! The logs as they are stored, for whoever copies, exports or proves them.

use std::sync::Arc;

use hookpool_core::{
    codec::Block,
    position::{Epoch, Position},
    proof::SignedHead,
};
use hookpool_store::{EventLog, LogEnd, PoolStore, ReadError};

use super::Engine;
use crate::follow::blocking;

/// One of the two logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogName {
    /// Deliveries.
    Events,
    /// What operators changed.
    Control,
}

impl<L: EventLog, P: PoolStore> Engine<L, P> {
    /// The end of the log of deliveries as of now, signed.
    #[must_use]
    pub fn signed_head(&self) -> SignedHead {
        let LogEnd { head, digest } = self.log.end();
        self.heads
            .sign(self.log.epoch(), head, digest, self.clock.now())
    }

    /// Which log it is.
    #[must_use]
    pub fn log_epoch(&self, log: LogName) -> Epoch {
        self.stored(log).epoch()
    }

    /// Where a log ends.
    #[must_use]
    pub fn log_end(&self, log: LogName) -> LogEnd {
        self.stored(log).end()
    }

    /// Whole blocks of a log, as [`EventLog::blocks`] has them.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn log_blocks(
        &self,
        log: LogName,
        after: Position,
        bytes_max: usize,
    ) -> Result<Vec<Block>, ReadError> {
        let log = Arc::clone(self.stored(log));
        let runtime = tokio::runtime::Handle::current();
        blocking(move || runtime.block_on(log.blocks(after, bytes_max))).await
    }

    fn stored(&self, log: LogName) -> &Arc<L> {
        match log {
            LogName::Events => &self.log,
            LogName::Control => self.control.log(),
        }
    }
}
