//! Pool snapshots that page chains hold on to, so that every page of a chain shows one position.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hookpool_core::{
    name::StreamName,
    position::{Generation, Position},
};
use tokio::time::Instant;

/// Positions held at once; beyond it the one that is held for longest goes.
const HELD_MAX: usize = 4_096;

/// What all pages of a chain show: a stream at a position, in a generation.
pub(crate) type Chain = (StreamName, Generation, Position);

/// Held snapshots by what they show; chains that show the same share one.
pub(crate) struct PageChains<S> {
    held: Arc<Held<S>>,
    lifetime: Duration,
}

type Held<S> = Mutex<BTreeMap<Chain, (Instant, Arc<S>)>>;

impl<S: Send + Sync + 'static> PageChains<S> {
    /// Snapshots are held so long at most.
    pub(crate) fn new(lifetime: Duration) -> Self {
        Self {
            held: Arc::default(),
            lifetime,
        }
    }

    /// Keeps a snapshot for the next pages. It is let go in time, however often it is asked for and even if nobody asks again: a held snapshot
    /// keeps what the pool has overwritten since.
    pub(crate) fn hold(&self, chain: Chain, snapshot: Arc<S>) {
        {
            let mut held = locked(&self.held);
            if held.contains_key(&chain) {
                return;
            }
            held.insert(chain, (Instant::now(), snapshot));
            if held.len() > HELD_MAX {
                let oldest = held
                    .iter()
                    .min_by_key(|(_, (since, _))| *since)
                    .map(|(chain, _)| chain.clone());
                oldest.and_then(|oldest| held.remove(&oldest));
            }
        }
        let (held, lifetime) = (Arc::downgrade(&self.held), self.lifetime);
        tokio::spawn(async move {
            tokio::time::sleep(lifetime).await;
            if let Some(held) = held.upgrade() {
                locked(&held).retain(|_, (since, _)| since.elapsed() < lifetime);
            }
        });
    }

    /// The snapshot of a chain, unless it was let go.
    pub(crate) fn find(&self, chain: &Chain) -> Option<Arc<S>> {
        let held = locked(&self.held);
        held.get(chain).map(|(_, snapshot)| Arc::clone(snapshot))
    }
}

fn locked<S>(held: &Held<S>) -> MutexGuard<'_, BTreeMap<Chain, (Instant, Arc<S>)>> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_held_snapshot_is_let_go_in_time_however_often_it_is_asked_for() {
        let (chains, snapshot) = (PageChains::new(Duration::from_secs(60)), Arc::new(()));
        let stream = StreamName::new("sales").unwrap();
        let chain = (stream, Generation(1), Position(1));
        for _ in 0..6 {
            chains.hold(chain.clone(), Arc::clone(&snapshot));
            assert!(chains.find(&chain).is_some());
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(chains.find(&chain).is_none());
        assert_eq!(Arc::strong_count(&snapshot), 1);
    }
}
