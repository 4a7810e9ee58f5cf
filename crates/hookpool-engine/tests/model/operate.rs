//! What an operator does at random moments, and what is waited for.

use std::time::Duration;

use hookpool_core::{control::ControlChange, position::Generation, retention::Retention};
use hookpool_engine::projector::PromoteError;
use hookpool_store::PoolSnapshot;
use rand::{Rng, rngs::StdRng};

use super::{
    life::{Disk, Pipeline, author, control, plan, stream},
    posted::{Posted, there},
};

pub(super) const PATIENCE: Duration = Duration::from_secs(20);

pub(super) async fn rebuild(
    engine: &Pipeline,
    disk: &Disk,
    posted: &mut Posted,
    random: &mut StdRng,
) -> bool {
    let plan = plan(engine);
    let generation = plan.next_generation();
    let change = ControlChange::RebuildStarted {
        stream: stream(),
        generation,
        projection: random.random_range(0..=plan.newest().version),
        events_per_second: None,
    };
    let begun = control(engine, change).await.is_ok();
    if begun {
        // What is being dropped now may go, what is not stays until this is over.
        settle(engine).await;
        let there = there(&disk.log).await;
        let all = posted.bodies.iter().map(|(position, _)| *position);
        let missed = all.filter(|position| !there.contains(position)).collect();
        posted.missed.insert(generation, missed);
    }
    begun
}

/// Another retention; sometimes what follows from it is awaited.
pub(super) async fn retain(engine: &Pipeline, random: &mut StdRng) {
    let mut limit = |most: u64| {
        let some = random.random_bool(0.6);
        some.then(|| random.random_range(0..most))
    };
    let limits = Retention {
        max_age_seconds: limit(1_000),
        max_positions: limit(100),
    };
    let author = author();
    let set = engine.set_retention(&author, stream(), limits);
    set.await.unwrap();
    if random.random_bool(0.5) {
        settle(engine).await;
    }
}

/// Waits until the retention has nothing to do, or waits itself.
pub(super) async fn settle(engine: &Pipeline) {
    for _ in 0..2 {
        let now = plan(engine);
        if now.retention.is_unlimited() && now.floor.is_none() {
            return;
        }
        let before = engine.retentions().state(&stream()).looks;
        engine.retentions().look();
        let told = || {
            let state = engine.retentions().state(&stream());
            format!(
                "retention: {state:?} {:?} {:?}",
                engine.status().get(),
                plan(engine)
            )
        };
        until(&told, || {
            engine.retentions().state(&stream()).looks > before
        })
        .await;
    }
    let state = engine.retentions().state(&stream());
    assert_eq!((state.failed, state.whole_items), (None, 0));
    assert!(
        state.waiting.is_some() || state.done == Some(plan(engine).earliest()),
        "it rests where it should not"
    );
}

pub(super) async fn cancel(engine: &Pipeline) -> Option<()> {
    let generation = plan(engine).next.as_ref()?.made.generation;
    let stream = stream();
    let change = ControlChange::RebuildCancelled { stream, generation };
    control(engine, change).await.ok()
}

/// `None` if nothing is being rebuilt; else whether it was promoted: it is not under a digest that is not its own.
pub(super) async fn promote(engine: &Pipeline, random: &mut StdRng) -> Option<bool> {
    let generation = plan(engine).next.as_ref()?.made.generation;
    if random.random_bool(0.7) {
        ready(engine, generation).await;
    }
    let expected = match random.random_range(0..3) {
        0 => None,
        1 => digest(engine, generation),
        _ => Some("another".to_owned()),
    };
    let wrong = expected.as_deref() == Some("another");
    match engine
        .promote(&author(), stream(), generation, expected)
        .await
    {
        Ok(()) => {
            assert!(!wrong, "promoted under a digest of something else");
            let served = engine.served(&engine.pool(), &stream()).unwrap();
            assert_eq!(served.generation, plan(engine).live.generation);
            Some(true)
        }
        Err(PromoteError::NotReady | PromoteError::Moved(_)) => Some(false),
        Err(error) => panic!("{error}"),
    }
}

pub(super) fn digest(engine: &Pipeline, generation: Generation) -> Option<String> {
    let state = engine.pool().generation(&stream(), generation).unwrap()?;
    let difference = state.difference.filter(|difference| difference.whole)?;
    Some(difference.sum.digest())
}

pub(super) async fn ready(engine: &Pipeline, generation: Generation) {
    let told = || {
        let state = engine.pool().generation(&stream(), generation);
        let job = engine.rebuilds().state(&stream(), generation);
        format!("{generation} ready: {state:?} {job:?} {:?}", plan(engine))
    };
    until(&told, || {
        let failed = engine.rebuilds().state(&stream(), generation);
        let failed = failed.and_then(|state| state.failed);
        assert_eq!(failed, None);
        digest(engine, generation).is_some()
    })
    .await;
}

/// Looks again and again. Counts looks and not time: a machine that stood still, or had no turn for us, waited for nothing meanwhile.
pub(super) async fn until(what: &impl Fn() -> String, mut reached: impl FnMut() -> bool) {
    for _ in 0..PATIENCE.as_millis() {
        if reached() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("in vain: {}", what());
}
