//! A rebuild in the middle of its fold.

use std::sync::{Arc, atomic::Ordering};

use hookpool_core::{
    control::ControlChange,
    position::{Generation, Position},
};
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

/// Its rows are removed later: who reads it meanwhile would take what it was for what it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_generation_that_was_released_follows_the_checkpoint_no_longer() {
    let mut world = World::with_events(3).await;
    world.pool.keeps.store(true, Ordering::SeqCst);
    let started = ControlChange::RebuildStarted {
        stream: stream(),
        generation: Generation(2),
        projection: 0,
        events_per_second: None,
    };
    let control = world.engine.control();
    control.change(&author(), "sales", started).await.unwrap();
    let state_of = |world: &World, generation| {
        let state = world
            .pool
            .snapshot()
            .generation(&stream(), Generation(generation));
        state.unwrap()
    };
    until("the rebuild is compared", || {
        let difference = state_of(&world, 2).and_then(|state| state.difference);
        difference.is_some_and(|difference| difference.whole)
    })
    .await;
    let author = author();
    let promoted = world
        .engine
        .promote(&author, stream(), Generation(2), None)
        .await;
    promoted.unwrap();
    world.deliver(None).await;
    assert_eq!(state_of(&world, 1).unwrap().built, None, "it is kept");
    let released = ControlChange::GenerationReleased { stream: stream() };
    let last = world.last;
    let control = world.engine.control();
    control.change(&author, "sales", released).await.unwrap();
    assert!(world.engine.wait_planned(PATIENCE).await);
    assert_eq!(state_of(&world, 1).unwrap().built, Some(last));
    world.deliver(None).await;
    assert_eq!(state_of(&world, 1).unwrap().built, Some(last));
    assert_eq!(state_of(&world, 2).unwrap().built, None);
    world.end().await;
}
