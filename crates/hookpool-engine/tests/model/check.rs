//! Holds everything that can be read against the model.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use hookpool_core::{
    difference::{Difference, DifferenceSum},
    event::Op,
    fold::Item,
    name::ItemId,
    plan::Ruled,
    position::Position,
};
use hookpool_engine::{follow::FollowError, past::View};
use hookpool_store::{EventLog, PoolSnapshot, memory::MemorySnapshot};

use super::{
    life::{Disk, Pipeline, STREAM, plan, stream},
    naive,
    operate::{PATIENCE, ready, settle, until},
    posted::Posted,
};

/// No limit to a page.
const ALL: usize = usize::MAX;

/// Everything that can be read is what the model makes of the same events.
pub(super) async fn check(engine: &Pipeline, disk: &Disk, posted: &Posted) {
    assert!(engine.wait_applied(disk.log.head(), PATIENCE).await);
    assert!(engine.wait_planned(PATIENCE).await);
    let plan = plan(engine);
    if let Some(next) = &plan.next {
        ready(engine, next.made.generation).await;
    }
    let wanted: BTreeSet<_> = plan.generations().map(|ruled| ruled.generation).collect();
    until(&|| "unplanned generations are gone".to_owned(), || {
        let there = engine.pool().generations().unwrap();
        there
            .iter()
            .all(|(_, generation)| wanted.contains(generation))
    })
    .await;
    settle(engine).await;
    let plan = engine.control().registry().plan(STREAM);
    let (pool, head, floor) = (engine.pool(), disk.log.head(), plan.earliest());
    if posted.bodies.is_empty() {
        return;
    }
    assert_eq!(pool.served(&stream()).unwrap(), Some(plan.live.generation));
    let left = posted.left(&disk.log).await;
    let waiting = engine.retentions().state(&stream()).waiting.is_some();
    let mut folds = BTreeMap::new();
    for ruled in plan.generations() {
        let generation = ruled.generation;
        let rules = serde_json::to_value(ruled.projection.rules()).unwrap();
        let fold = naive::fold(&rules, &posted.seen_by(generation, head));
        let items = pool
            .items(&stream(), generation, None, usize::MAX, usize::MAX)
            .unwrap()
            .items;
        let shown: BTreeMap<_, _> = items.iter().map(shown).collect();
        assert_eq!(shown, fold.items, "generation {generation} under {rules}");
        let state = pool.generation(&stream(), generation).unwrap().unwrap();
        assert_eq!(state.items, items.len() as u64);
        // What waits to be dropped may be in the log and not count any more.
        if !waiting || plan.floor.is_none() {
            let fold = naive::fold(&rules, &left);
            assert_eq!(
                (state.events, state.quarantined, state.superseded),
                (left.len() as u64, fold.quarantined, fold.superseded),
                "what counts is what is left"
            );
            assert_eq!(shown, fold.items, "the fold of what is left");
        }
        folds.insert(generation, items);
        let middle = posted.bodies[posted.bodies.len() * 2 / 3].0;
        for at in [floor, middle.max(floor), floor.plus(1).min(head)] {
            let past = naive::fold(&rules, &posted.seen_by(generation, at)).items;
            let then = at_position(engine, ruled, at).await.unwrap();
            assert_eq!(then, past, "at {at} of {floor} to {head} under {rules}");
        }
        if floor > Position::ZERO {
            let before = at_position(engine, ruled, Position(floor.0 - 1)).await;
            assert!(matches!(before, Err(FollowError::BeforeRetention(at)) if at == floor));
        }
        let told = told(engine, ruled, floor).await;
        assert_eq!(
            told, fold.items,
            "what a follower of generation {generation} is told"
        );
        histories(engine, ruled, floor).await;
    }
    if let Some(next) = &plan.next {
        let (old, new) = (&folds[&plan.live.generation], &folds[&next.made.generation]);
        let (old, new): (BTreeMap<_, _>, BTreeMap<_, _>) =
            (old.iter().cloned().collect(), new.iter().cloned().collect());
        let mut sum = DifferenceSum::default();
        for id in old.keys().chain(new.keys()).collect::<BTreeSet<_>>() {
            if let Some(difference) = Difference::between(old.get(id), new.get(id)) {
                sum.add(id, &difference);
            }
        }
        let kept = pool
            .generation(&stream(), next.made.generation)
            .unwrap()
            .unwrap();
        assert_eq!(
            kept.difference.unwrap().sum,
            sum,
            "the difference is kept current"
        );
    }
}

pub(super) fn shown((id, item): &(ItemId, Item)) -> (String, naive::Fields) {
    let fields = item.fields().iter();
    let fields = fields.map(|(name, field)| (name.to_string(), field.text.to_string()));
    (id.to_string(), fields.collect())
}

pub(super) fn view(engine: &Pipeline, ruled: &Ruled) -> View<MemorySnapshot> {
    View {
        pool: engine.pool(),
        stream: stream(),
        ruled: ruled.clone(),
    }
}

/// The items of a moment of the past.
pub(super) async fn at_position(
    engine: &Pipeline,
    ruled: &Ruled,
    at: Position,
) -> Result<BTreeMap<String, naive::Fields>, FollowError> {
    let page = engine.items_at(view(engine, ruled), at, None, ALL, ALL, ALL);
    Ok(page.await?.items.iter().map(shown).collect())
}

/// The history of every item can be read from the floor on, and ends with the item, whether it is there or deleted.
pub(super) async fn histories(engine: &Pipeline, ruled: &Ruled, floor: Position) {
    let items = view(engine, ruled).touched_items(None, usize::MAX, usize::MAX);
    for (id, item) in items.unwrap().items {
        let read = engine.history(view(engine, ruled), id, None, usize::MAX);
        let (touches, more) = read.await.unwrap();
        assert!(!more, "its items are small");
        assert!(touches.iter().all(|touch| touch.event.position > floor));
        match touches.last() {
            Some(last) => {
                assert_eq!(last.after.fields(), item.fields());
                assert_eq!(last.after.is_there(), item.is_there());
            }
            None => assert!(item.position <= floor),
        }
    }
}

/// What a follower holds who began with the items at the floor, and applied every change of a generation since.
pub(super) async fn told(
    engine: &Pipeline,
    ruled: &Ruled,
    floor: Position,
) -> BTreeMap<String, naive::Fields> {
    let (pool, mut at) = (engine.pool(), floor);
    let mut items = at_position(engine, ruled, floor).await.unwrap();
    if let Some(before) = floor.0.checked_sub(1) {
        let before = engine.told(engine.pool(), stream(), ruled.generation, Position(before));
        assert!(matches!(before.await, Err(FollowError::BeforeRetention(_))));
    }
    while at < pool.checkpoint().unwrap().position {
        let page = engine
            .told(Arc::clone(&pool), stream(), ruled.generation, at)
            .await;
        let (told, through) = page.unwrap().unwrap();
        for told in &told {
            let Some(change) = told.change(&ruled.projection).unwrap() else {
                continue;
            };
            if told.event.event.op == Op::Delete {
                let was_there = items.remove(change.item_id.as_str());
                assert!(was_there.is_some(), "a deletion of nothing is told");
                continue;
            }
            let fields = items.entry(change.item_id.to_string()).or_default();
            fields.retain(|name, _| !change.unset.contains(name.as_str()));
            let set = change.set();
            fields.extend(set.map(|(name, value)| (name.to_owned(), value.text.to_owned())));
        }
        at = through;
    }
    items
}
