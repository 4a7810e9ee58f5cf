//! Retention between the steps of a drop, and in the middle of somebody's read.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use hookpool_core::{
    control::ControlChange,
    idempotency::IdempotencyKey,
    position::{Generation, Position},
    retention::Retention,
};
use hookpool_engine::follow::FollowError;
use hookpool_store::{PoolSnapshot, dedupe::IDEMPOTENCY_SECONDS};

use crate::world::{START, World, author, stream, until};

#[tokio::test(flavor = "multi_thread")]
async fn no_rebuild_begins_to_read_what_is_being_dropped() {
    let world = World::with_events(20).await;
    world.log.drops.shut();
    world.keep(5).await;
    world.log.drops.holds().await;
    let change = ControlChange::RebuildStarted {
        stream: stream(),
        generation: Generation(2),
        projection: 0,
        events_per_second: None,
    };
    let control = world.engine.control();
    control.change(&author(), "sales", change).await.unwrap();
    // The plans are looked at every second.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let made = world.engine.pool().generation(&stream(), Generation(2));
    assert_eq!(made.unwrap(), None, "it has begun");
    world.log.drops.open();
    until("the rebuild is there", || {
        let made = world.engine.pool().generation(&stream(), Generation(2));
        // Of the expired events the last one is left.
        made.unwrap().is_some_and(|state| state.events == 6)
    })
    .await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_the_floor_overtakes_is_refused_and_no_shorter_page() {
    let world = World::with_events(20).await;
    world.log.pages.shut();
    let engine = Arc::clone(&world.engine);
    let reader = tokio::spawn(async move {
        let sales = stream();
        let page = engine.stream_page(&sales, Some(Position::ZERO), |page| page);
        page.await.map(|page| page.events.len())
    });
    world.log.pages.holds().await;
    world.keep(5).await;
    let floor = Position(world.last.0 - 5);
    world.is_done_at(floor).await;
    world.log.pages.open();
    let read = reader.await.unwrap();
    assert!(
        matches!(read, Err(FollowError::BeforeRetention(at)) if at == floor),
        "{read:?}"
    );
    let sales = stream();
    let page = world.engine.stream_page(&sales, None, |page| page);
    assert_eq!(page.await.unwrap().events.len(), 5);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_is_taken_away_while_a_floor_is_looked_for_raises_none() {
    let world = World::with_events(20).await;
    world.log.pages.shut();
    world.keep(5).await;
    world.log.pages.holds().await;
    world.retain(Retention::default()).await;
    world.log.pages.open();
    until("it was looked at", || {
        world.engine.retentions().state(&stream()).looks > 0
    })
    .await;
    assert_eq!(world.engine.earliest(&stream()), Position::ZERO);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_expire_by_age() {
    let world = World::with_events(20).await;
    // The last event is ten seconds old, the first one two hundred.
    let limits = Retention {
        max_age_seconds: Some(105),
        max_positions: None,
    };
    let expiring = world.engine.expiring(&stream(), limits).await.unwrap();
    assert_eq!(expiring.events, 10);
    world.retain(limits).await;
    let floor = Position(10);
    world.is_done_at(floor).await;
    let plan = world.engine.control().registry().plan("sales");
    assert_eq!(plan.floor.unwrap().time.0, START + 9 * 10_000_000);
    world.clock.fetch_add(50_000_000, Ordering::Relaxed);
    world.engine.retentions().look();
    world.is_done_at(Position(15)).await;
    world.end().await;
}

/// Nobody is told of an event that is gone, or made one twice: a request with a key may come again for four days.
#[tokio::test(flavor = "multi_thread")]
async fn events_whose_idempotency_key_counts_do_not_expire() {
    let mut world = World::with_events(4).await;
    let key = IdempotencyKey::parse(b"order-5").unwrap();
    world.deliver(Some(&key)).await;
    for _ in 0..5 {
        world.deliver(None).await;
    }
    assert_eq!(world.floor_of(1).await, Some(Position(4)));
    let advance = |seconds: u64| {
        world
            .clock
            .fetch_add(seconds * 1_000_000, Ordering::Relaxed);
    };
    // The fifth event came 40 seconds after the start, and it is 100 seconds after it now.
    advance(IDEMPOTENCY_SECONDS - 60);
    assert_eq!(world.floor_of(1).await, Some(Position(4)));
    advance(1);
    assert_eq!(world.floor_of(1).await, Some(Position(9)));
    world.end().await;
}
