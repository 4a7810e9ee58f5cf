//! What the tries of one delivery have come to: whether there should be another, and what is known after the last.

use std::time::Duration;

use crate::{backoff::Dice, error::Error, producer::Retries};

/// The failed tries of one delivery.
#[derive(Debug)]
pub(crate) struct Tries {
    retries: Retries,
    /// Whether a try that arrived has done something.
    records: bool,
    failures: u32,
    /// Whether a try so far may have arrived.
    may_have_arrived: bool,
}

impl Tries {
    pub(crate) fn new(retries: Retries, records: bool) -> Self {
        Self {
            retries,
            records,
            failures: 0,
            may_have_arrived: false,
        }
    }

    /// How long to wait before the next try, after one that failed; `None` if there should be none. `can_be_renewed` says that what was
    /// refused for its age will be younger.
    pub(crate) fn wait(
        &mut self,
        error: &Error,
        can_be_renewed: bool,
        dice: &Dice,
    ) -> Option<Duration> {
        self.failures += 1;
        self.may_have_arrived |= self.records && error.outcome_is_unknown();
        let is_repeatable = can_be_renewed || self.is_repeatable(error);
        if self.failures > self.retries.most || !is_repeatable {
            return None;
        }
        let wait = self.retries.backoff.delay(self.failures, dice.throw());
        // Jitter on top: everybody was told the same number of seconds.
        let wait = error
            .retry_after()
            .map_or(wait, |asked| asked.saturating_add(wait));
        (wait <= self.retries.patience).then_some(wait)
    }

    fn is_repeatable(&self, error: &Error) -> bool {
        match error {
            Error::Unreachable { .. } => true,
            Error::Problem(problem) => match problem.status {
                502..=504 => true,
                // Asked before the key is looked at, so it says nothing of the try before, and the server knows the answer.
                429 => self.may_have_arrived,
                _ => problem.is_in_progress(),
            },
            Error::MayBeRecorded { .. } | Error::Protocol(_) | Error::Invalid(_) => false,
        }
    }

    /// The last error, in the light of those before.
    pub(crate) fn outcome(self, last: Error, idempotency_key: &str) -> Error {
        if !self.may_have_arrived {
            return last;
        }
        Error::MayBeRecorded {
            idempotency_key: idempotency_key.to_owned(),
            last: Box::new(last),
        }
    }
}
