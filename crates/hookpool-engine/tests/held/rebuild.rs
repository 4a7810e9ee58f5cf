//! A rebuild in the middle of its fold.

use std::sync::{Arc, atomic::Ordering};

use hookpool_core::{
    control::ControlChange,
    position::{Generation, Position},
};
use hookpool_engine::projector::PromoteError;
use hookpool_store::{PoolSnapshot, PoolStore};

use crate::world::{PATIENCE, World, author, stream, until};

/// A pool keeps in memory what was written since its oldest view: held through a rebuild, that was twice the memory of the rebuild.
#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_that_folds_holds_no_view_of_the_pool() {
    let mut world = World::with_events(20).await;
    let begun = world.last;
    world.log.pages.shut();
    let change = ControlChange::RebuildStarted {
        stream: stream(),
        generation: Generation(2),
        projection: 0,
        events_per_second: None,
    };
    let control = world.engine.control();
    control.change(&author(), "sales", change).await.unwrap();
    // It has looked at what was there, and waits for its first events.
    world.log.pages.holds().await;
    for _ in 0..3 {
        world.deliver(None).await;
    }
    let pool = Arc::clone(&world.pool);
    until("nobody holds a view from before", || {
        !pool.is_held_before(Position(begun.0 + 1))
    })
    .await;
    world.log.pages.open();
    until("the rebuild is there", || {
        let made = world.engine.pool().generation(&stream(), Generation(2));
        made.unwrap().is_some_and(|state| state.events == 23)
    })
    .await;
    world.end().await;
}

impl World {
    /// Makes the second generation, and serves it.
    async fn rebuild(&self) {
        self.make(2).await;
        let author = author();
        let promoted = self.engine.promote(&author, stream(), Generation(2), None);
        promoted.await.unwrap();
    }

    /// Makes a generation, up to where it could be served.
    async fn make(&self, generation: u32) {
        let change = ControlChange::RebuildStarted {
            stream: stream(),
            generation: Generation(generation),
            projection: 0,
            events_per_second: None,
        };
        self.change(change).await;
        until("the rebuild is compared", || {
            is_compared(&*self.pool.snapshot(), generation)
        })
        .await;
    }

    async fn change(&self, change: ControlChange) {
        let control = self.engine.control();
        control.change(&author(), "sales", change).await.unwrap();
    }

    /// Up to where the log is in a generation that does not follow the checkpoint.
    fn built(&self, generation: u32) -> Option<Position> {
        let state = self
            .pool
            .snapshot()
            .generation(&stream(), Generation(generation));
        state.unwrap().unwrap().built
    }
}

fn is_compared(pool: &impl PoolSnapshot, generation: u32) -> bool {
    let state = pool.generation(&stream(), Generation(generation)).unwrap();
    let difference = state.and_then(|state| state.difference);
    difference.is_some_and(|difference| difference.whole)
}

/// The record of a promotion does.
#[tokio::test(flavor = "multi_thread")]
async fn a_generation_outlives_a_power_cut_before_it_is_promoted() {
    let world = World::with_events(3).await;
    world.rebuild().await;
    let lasting = world.pool.lasting.lock().unwrap().clone().unwrap();
    assert!(is_compared(&*lasting, 2));
    assert_eq!(
        lasting.served(&stream()).unwrap(),
        Some(Generation(1)),
        "before"
    );
    world.end().await;
}

/// The difference that was looked at is from what was served then.
#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_that_a_rollback_overtakes_is_refused() {
    let world = World::with_events(3).await;
    world.rebuild().await;
    world.make(3).await;
    world.pool.syncs_wait.store(true, Ordering::SeqCst);
    let engine = Arc::clone(&world.engine);
    let promoted = tokio::spawn(async move {
        let author = author();
        engine.promote(&author, stream(), Generation(3), None).await
    });
    until("it is about to be recorded", || {
        world.pool.sync_waits.load(Ordering::SeqCst)
    })
    .await;
    let back = ControlChange::GenerationRolledBack { stream: stream() };
    world.change(back).await;
    world.pool.syncs_wait.store(false, Ordering::SeqCst);
    let promoted = promoted.await.unwrap();
    assert!(
        matches!(promoted, Err(PromoteError::NotReady)),
        "{promoted:?}"
    );
    let plan = world.engine.control().registry().plan("sales");
    assert_eq!(plan.live.generation, Generation(1));
    assert!(plan.next.is_some(), "it can be promoted later");
    world.end().await;
}

/// Its rows are removed later: who reads it meanwhile would take what it was for what it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_generation_that_was_released_follows_the_checkpoint_no_longer() {
    let mut world = World::with_events(3).await;
    world.pool.keeps.store(true, Ordering::SeqCst);
    world.rebuild().await;
    world.deliver(None).await;
    assert_eq!(world.built(1), None, "it is kept");
    let last = world.last;
    let released = ControlChange::GenerationReleased { stream: stream() };
    world.change(released).await;
    assert!(world.engine.wait_planned(PATIENCE).await);
    assert_eq!(world.built(1), Some(last));
    world.deliver(None).await;
    assert_eq!(world.built(1), Some(last));
    assert_eq!(world.built(2), None);
    world.end().await;
}
