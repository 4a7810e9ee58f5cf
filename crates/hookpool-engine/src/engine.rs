//! The engine: opens the pipeline, takes deliveries, hands out views and followers, ends in order.

mod accept;
mod bulk;
mod history;
mod in_flight;
mod operate;
mod read;
mod start;
mod travel;
mod unfit;

use std::sync::Arc;

pub use accept::{AcceptError, Asked, Receipt};
pub use bulk::{Bulk, BulkAsked, BulkReceipt};
pub use history::LogName;
use hookpool_core::{
    event::RequestId, key::PresentedKey, position::Position, proof::HeadKey, registry::Access,
    time::Timestamp,
};
use hookpool_store::{EventLog, PoolStore};
use in_flight::InFlight;
pub use start::{Options, Running, StartError};
use tokio::sync::{mpsc, watch};

use crate::{
    appender::{Appender, AppenderStats},
    clock::Clock,
    control::Control,
    entropy::Entropy,
    follow::Rings,
    pace::Paces,
    projector::Command,
    rebuild::Rebuilds,
    rejections::Rejections,
    retention::Retentions,
    status::StatusCell,
};

/// The running pipeline over a log and a pool. Dropping it without waiting for [`Running::join`] is a kill: nothing acknowledged is lost.
#[derive(Debug)]
pub struct Engine<L, P: PoolStore> {
    log: Arc<L>,
    pool: Arc<P>,
    rings: Arc<Rings>,
    control: Arc<Control<L>>,
    appender: Appender,
    in_flight: InFlight,
    applied: watch::Receiver<Position>,
    planned: watch::Receiver<Position>,
    projector: mpsc::UnboundedSender<Command<P::Snapshot>>,
    rebuilds: Arc<Rebuilds>,
    retentions: Arc<Retentions>,
    rejections: Arc<Rejections>,
    paces: Paces,
    status: StatusCell,
    clock: Clock,
    entropy: Entropy,
    heads: HeadKey,
}

impl<L: EventLog, P: PoolStore> Engine<L, P> {
    /// What was refused.
    #[must_use]
    pub fn rejections(&self) -> &Arc<Rejections> {
        &self.rejections
    }

    /// A new identity for a request.
    #[must_use]
    pub fn request_id(&self) -> RequestId {
        RequestId::new(self.clock.now(), &self.entropy.bytes())
    }

    /// Random bytes, fit for keys.
    #[must_use]
    pub fn random<const N: usize>(&self) -> [u8; N] {
        self.entropy.bytes()
    }

    /// What a read or operator key may do.
    #[must_use]
    pub fn access(&self, key: &PresentedKey<'_>) -> Option<Access> {
        self.control.registry().access_of(key)
    }

    /// The registry and the way to change it.
    #[must_use]
    pub fn control(&self) -> &Control<L> {
        &self.control
    }

    /// Whether it takes deliveries.
    #[must_use]
    pub fn status(&self) -> &StatusCell {
        &self.status
    }

    /// What the writer of the log has done.
    #[must_use]
    pub fn appender_stats(&self) -> &AppenderStats {
        self.appender.stats()
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }
}
