//! What operators do with the generations and the history of streams.

use std::{sync::Arc, time::Duration};

use hookpool_core::{
    control::ControlChange, key::KeyId, name::StreamName, position::Generation,
    retention::Retention,
};
use hookpool_store::{EventLog, PoolStore, ReadError};
use tokio::sync::oneshot;

use super::Engine;
use crate::{
    control::ControlError,
    projector::{Command, PromoteError, ask},
    rebuild::Rebuilds,
    retention::{Expiring, Floors, Retentions},
};

impl<L: EventLog, P: PoolStore> Engine<L, P> {
    /// Serves a rebuilt generation, if its difference to the served one is as expected; `None` takes whatever it is. Returns when readers
    /// see it.
    ///
    /// # Errors
    /// [`PromoteError`]
    pub async fn promote(
        &self,
        author: &KeyId,
        stream: StreamName,
        generation: Generation,
        expected: Option<String>,
    ) -> Result<(), PromoteError> {
        let (answer, promoted) = oneshot::channel();
        let command = Command::Promote {
            stream,
            generation,
            author: author.clone(),
            expected,
            answer,
        };
        let promoted = ask(&self.projector, command, promoted).await;
        promoted.ok_or(PromoteError::Stopped)?
    }

    /// Waits until the projector follows every plan that is recorded, at most for `patience`; whether it does.
    pub async fn wait_planned(&self, patience: Duration) -> bool {
        let recorded = *self.control.changes().borrow();
        let mut planned = self.planned.clone();
        let reached = planned.wait_for(|planned| *planned >= recorded);
        tokio::time::timeout(patience, reached)
            .await
            .is_ok_and(|reached| reached.is_ok())
    }

    /// How far the rebuilds are.
    #[must_use]
    pub fn rebuilds(&self) -> &Rebuilds {
        &self.rebuilds
    }

    /// Sets how much history of a stream is kept; what expires by that is dropped from then on.
    ///
    /// # Errors
    /// [`ControlError`]
    pub async fn set_retention(
        &self,
        author: &KeyId,
        stream: StreamName,
        limits: Retention,
    ) -> Result<(), ControlError> {
        let subject = stream.to_string();
        let change = ControlChange::RetentionSet {
            stream,
            max_age_seconds: limits.max_age_seconds,
            max_positions: limits.max_positions,
        };
        self.control.change(author, &subject, change).await?;
        self.retentions.look();
        Ok(())
    }

    /// What these limits would make unreadable now.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn expiring(
        &self,
        stream: &StreamName,
        limits: Retention,
    ) -> Result<Expiring, ReadError> {
        let plan = self.control.registry().plan(stream.as_str());
        let floors = Floors {
            log: Arc::clone(&self.log),
            pool: Arc::clone(&self.pool),
            clock: self.clock.clone(),
        };
        floors.expiring(stream, &plan, limits).await
    }

    /// How far retention is.
    #[must_use]
    pub fn retentions(&self) -> &Retentions {
        &self.retentions
    }
}
