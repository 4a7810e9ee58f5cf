//! Pool snapshots that page chains hold on to, so that every page of a chain shows one position.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hookpool_core::position::Position;
use tokio::time::Instant;

/// How long a chain may pause between two pages.
const CHAIN_LIFETIME: Duration = Duration::from_secs(60);
/// Positions held at once; beyond it the one that was used longest ago goes.
const HELD_MAX: usize = 64;

/// Held snapshots by position; chains that started at one position share one.
pub(crate) struct PageChains<S>(Mutex<BTreeMap<Position, (Instant, Arc<S>)>>);

impl<S> Default for PageChains<S> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<S> PageChains<S> {
    /// Keeps a snapshot for the next page.
    pub(crate) fn hold(&self, position: Position, snapshot: Arc<S>) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|_, (used, _)| used.elapsed() < CHAIN_LIFETIME);
        held.insert(position, (Instant::now(), snapshot));
        if held.len() > HELD_MAX {
            let oldest = held
                .iter()
                .min_by_key(|(_, (used, _))| *used)
                .map(|(position, _)| *position);
            oldest.and_then(|oldest| held.remove(&oldest));
        }
    }

    /// The snapshot of a chain, unless it waited too long.
    pub(crate) fn find(&self, position: Position) -> Option<Arc<S>> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.get(&position)
            .filter(|(used, _)| used.elapsed() < CHAIN_LIFETIME)
            .map(|(_, snapshot)| Arc::clone(snapshot))
    }
}
