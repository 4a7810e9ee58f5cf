//! Which idempotency keys belong to requests whose outcome is not known yet. Only who is told what hangs on it: the log keeps requests apart.

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use hookpool_core::event::{DedupeKey, Idempotency};

use super::AcceptError;

/// The keys of verified requests that wait for their outcome.
#[derive(Debug, Default)]
pub(super) struct InFlight(Mutex<HashSet<DedupeKey>>);

/// A key that is reserved until this is dropped. A sender that goes away gives it up: what comes next with it waits for the log, as the first did.
#[derive(Debug)]
pub(super) struct Reserved<'a> {
    in_flight: &'a InFlight,
    key: DedupeKey,
}

impl InFlight {
    /// Reserves the key of a request, if it has one.
    pub(super) fn reserve(
        &self,
        identity: Option<&Idempotency>,
    ) -> Result<Option<Reserved<'_>>, AcceptError> {
        let Some(Idempotency { key, .. }) = identity.copied() else {
            return Ok(None);
        };
        if !self.keys().insert(key) {
            return Err(AcceptError::InFlight);
        }
        let in_flight = self;
        Ok(Some(Reserved { in_flight, key }))
    }

    /// A panic while it was held left whole values.
    fn keys(&self) -> MutexGuard<'_, HashSet<DedupeKey>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.in_flight.keys().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_reserved_once_and_given_back() {
        let in_flight = InFlight::default();
        let identity = |key| Idempotency {
            key: DedupeKey([key; 16]),
            request: None,
            events: 1,
        };
        let first = in_flight.reserve(Some(&identity(1))).unwrap();
        assert!(in_flight.reserve(Some(&identity(2))).is_ok());
        assert!(in_flight.reserve(None).unwrap().is_none());
        let again = in_flight.reserve(Some(&identity(1)));
        assert!(matches!(again, Err(AcceptError::InFlight)));
        drop(first);
        assert!(in_flight.reserve(Some(&identity(1))).is_ok());
    }
}
