//! A rebuild in the middle of its fold.

use std::sync::Arc;

use hookpool_core::{
    control::ControlChange,
    position::{Generation, Position},
};
use hookpool_store::PoolSnapshot;

use crate::world::{World, author, stream, until};

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
