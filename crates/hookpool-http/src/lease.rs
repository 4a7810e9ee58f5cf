//! A view of the pool that is let go in time, however slowly its reader goes on: the pool keeps in memory what was written since its oldest view.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hookpool_store::PoolStore;
use tokio::task::AbortHandle;

use crate::app::App;

impl<L, P: PoolStore> App<L, P> {
    /// Holds a view of the pool, or what reads one, for as long as a connection may.
    pub(crate) fn lease<T: Send + 'static>(&self, held: T) -> Lease<T> {
        Lease::new(held, self.settings.view_lifetime)
    }
}

/// Holds something for a while.
#[derive(Debug)]
pub(crate) struct Lease<T> {
    held: Arc<Mutex<Held<T>>>,
    end: AbortHandle,
}

#[derive(Debug)]
struct Held<T> {
    it: Option<T>,
    over: bool,
}

impl<T: Send + 'static> Lease<T> {
    /// Holds it so long at most.
    pub(crate) fn new(it: T, lifetime: Duration) -> Self {
        let held = Held {
            it: Some(it),
            over: false,
        };
        let held = Arc::new(Mutex::new(held));
        let leased = Arc::clone(&held);
        let end = tokio::spawn(async move {
            tokio::time::sleep(lifetime).await;
            *locked(&leased) = Held {
                it: None,
                over: true,
            };
        });
        Self {
            held,
            end: end.abort_handle(),
        }
    }

    /// Takes it out to work with it; `None` once it was let go.
    pub(crate) fn take(&self) -> Option<T> {
        locked(&self.held).it.take()
    }

    /// Puts it back, unless its time is over.
    pub(crate) fn put_back(&self, it: T) {
        let mut held = locked(&self.held);
        if !held.over {
            held.it = Some(it);
        }
    }
}

impl<T> Drop for Lease<T> {
    fn drop(&mut self) {
        self.end.abort();
    }
}

fn locked<T>(held: &Mutex<Held<T>>) -> MutexGuard<'_, Held<T>> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_held_is_let_go_in_time_even_if_it_was_in_use_then() {
        let lease = Lease::new(1, Duration::from_secs(60));
        tokio::time::sleep(Duration::from_secs(59)).await;
        let it = lease.take().unwrap();
        lease.put_back(it);
        let it = lease.take().unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
        lease.put_back(it);
        assert_eq!(lease.take(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_takes_out_again_is_let_go() {
        let it = Arc::new(());
        let lease = Lease::new(Arc::clone(&it), Duration::from_secs(60));
        tokio::time::sleep(Duration::from_secs(61)).await;
        assert_eq!(Arc::strong_count(&it), 1);
        drop(lease);
    }
}
