//! Pool snapshots that page chains hold on to, so that every page of a chain shows one position.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hookpool_core::position::{Generation, Position};
use tokio::time::Instant;

/// How long a chain may pause between two pages.
const CHAIN_LIFETIME: Duration = Duration::from_secs(60);
/// Positions held at once; beyond it the one that was used longest ago goes.
const HELD_MAX: usize = 4_096;

/// What all pages of a chain show: a position, in a generation.
pub(crate) type Chain = (Position, Generation);

/// Held snapshots by what they show; chains that show the same share one.
pub(crate) struct PageChains<S>(Arc<Held<S>>);

type Held<S> = Mutex<BTreeMap<Chain, (Instant, Arc<S>)>>;

impl<S> Default for PageChains<S> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<S: Send + Sync + 'static> PageChains<S> {
    /// Keeps a snapshot for the next page. It is let go in time even if nobody asks again: a held snapshot keeps what the pool has
    /// overwritten since.
    pub(crate) fn hold(&self, chain: Chain, snapshot: Arc<S>) {
        {
            let mut held = locked(&self.0);
            held.insert(chain, (Instant::now(), snapshot));
            if held.len() > HELD_MAX {
                let oldest = held
                    .iter()
                    .min_by_key(|(_, (used, _))| *used)
                    .map(|(chain, _)| *chain);
                oldest.and_then(|oldest| held.remove(&oldest));
            }
        }
        let held = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            tokio::time::sleep(CHAIN_LIFETIME).await;
            if let Some(held) = held.upgrade() {
                locked(&held).retain(|_, (used, _)| used.elapsed() < CHAIN_LIFETIME);
            }
        });
    }

    /// The snapshot of a chain, unless it waited too long.
    pub(crate) fn find(&self, chain: Chain) -> Option<Arc<S>> {
        let held = locked(&self.0);
        held.get(&chain)
            .filter(|(used, _)| used.elapsed() < CHAIN_LIFETIME)
            .map(|(_, snapshot)| Arc::clone(snapshot))
    }
}

fn locked<S>(held: &Held<S>) -> MutexGuard<'_, BTreeMap<Chain, (Instant, Arc<S>)>> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_held_snapshot_is_let_go_after_its_lifetime() {
        let (chains, snapshot) = (PageChains::default(), Arc::new(()));
        let chain = (Position(1), Generation(1));
        chains.hold(chain, Arc::clone(&snapshot));
        assert!(chains.find(chain).is_some());
        tokio::time::sleep(CHAIN_LIFETIME + Duration::from_secs(1)).await;
        assert!(chains.find(chain).is_none());
        assert_eq!(Arc::strong_count(&snapshot), 1);
    }
}
