//! How fast connectors send, where an operator limited that.

use std::sync::{Mutex, PoisonError};

use hashbrown::HashMap;
use hookpool_core::{
    name::ConnectorName,
    rate::{Bucket, Level, Rate, Wait},
    registry::Connector,
    time::Timestamp,
};

/// What a limited connector is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// How fast it may.
    pub rate: Rate,
    /// What is left.
    pub level: Level,
}

/// A connector that is too fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooFast {
    /// How fast it may.
    pub rate: Rate,
    /// How long it has to wait.
    pub wait: Wait,
}

/// A bucket for each limited connector that has sent something.
#[derive(Debug, Default)]
pub(crate) struct Paces(Mutex<HashMap<ConnectorName, Bucket>>);

impl Paces {
    /// Lets so many events of a connector in, or none of them. Without a limit nothing is looked at.
    pub(crate) fn take(
        &self,
        connector: &Connector,
        events: u64,
        now: Timestamp,
    ) -> Result<Option<Pace>, TooFast> {
        let Some(rate) = connector.limits.rate() else {
            return Ok(None);
        };
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets.entry_ref(&connector.name).or_default();
        match bucket.take(rate, events, now) {
            Ok(level) => Ok(Some(Pace { rate, level })),
            Err(wait) => Err(TooFast { rate, wait }),
        }
    }
}
