//! What can't become an event under the key of a request that did: the key counts first, as for everybody who uses it again.

use std::sync::Arc;

use hookpool_core::{event::Idempotency, json::Fields, shape::ShapeError, verify::Verified};
use hookpool_store::{EventLog, PoolStore, ReadError};

use super::{AcceptError, Engine, Receipt};
use crate::follow::blocking;

/// Why a delivery is no event, and what it is known by.
#[derive(Debug)]
pub(crate) struct Unfit {
    pub(super) known_by: Option<Idempotency>,
    pub(crate) error: ShapeError,
}

/// What a delivery is known by that need not be read: the key that its sender chose, or the id in the headers of its scheme.
pub(super) fn known_by(chosen: Option<Idempotency>, verified: &Verified) -> Option<Idempotency> {
    let named = || {
        let key = verified.delivery(&Fields::default())?;
        Some(Idempotency {
            key,
            request: None,
            events: 1,
        })
    };
    chosen.or_else(named)
}

impl<L: EventLog, P: PoolStore> Engine<L, P> {
    /// Why it is refused, or the first answer.
    pub(super) async fn unfit(
        &self,
        Unfit { known_by, error }: Unfit,
    ) -> Result<Receipt, AcceptError> {
        let Some(Idempotency { key, .. }) = known_by else {
            return Err(error.into());
        };
        let _in_flight = self.in_flight.reserve(known_by.as_ref())?;
        let (log, now) = (Arc::clone(&self.log), self.clock.now());
        let runtime = tokio::runtime::Handle::current();
        let found = move || -> Result<_, ReadError> { runtime.block_on(log.find(key, now)) };
        match blocking(found).await? {
            Some(position) => self.first_answer(position, known_by).await,
            None => Err(error.into()),
        }
    }
}
