//! What a life leaves: the log holds what was acknowledged once, and the pool is its fold.

use std::collections::BTreeMap;

use hookpool_core::{
    event::{Event, Op, RequestId},
    fold::Item,
    name::{ItemId, StreamName},
    position::{Generation, Position},
    projection::Projection,
};
use hookpool_store::{EventLog, PageRequest, PoolSnapshot};

use super::{
    Disk, STREAM, plain,
    senders::{Asks, Sent},
};

/// Of each request all events are in the log, next to each other, or none; once, however often it was sent; and at the position that was told.
pub(super) fn check_log(disk: &Disk, ledger: &[Sent]) {
    let mut requests: BTreeMap<RequestId, Vec<Event>> = BTreeMap::new();
    for event in events(disk).into_values() {
        requests
            .entry(event.event.request_id)
            .or_default()
            .push(event);
    }
    for sent in ledger {
        let there = sent.attempts.iter().filter_map(|id| requests.remove(id));
        let there: Vec<Event> = there.flatten().collect();
        if there.is_empty() {
            assert_eq!(sent.acknowledged, [], "nothing of {sent:?}");
            continue;
        }
        let found: Vec<_> = there
            .iter()
            .map(|Event { event, .. }| (event.item_id.to_string(), &*event.body))
            .collect();
        let asked: Vec<_> = sent
            .asks
            .events()
            .into_iter()
            .map(|(item, body)| (item, body.as_bytes()))
            .collect();
        assert_eq!(found, asked, "{sent:?}");
        let (first, last) = (there[0].position, there[there.len() - 1].position);
        assert_eq!(
            last.0 - first.0 + 1,
            there.len() as u64,
            "{sent:?} in one piece"
        );
        assert!(
            sent.acknowledged.iter().all(|told| *told == last),
            "{sent:?} at {last}"
        );
        let op = match sent.asks {
            Asks::Deletion(_) => Op::Delete,
            Asks::Body(_) | Asks::Lines(_) => Op::Upsert,
        };
        assert!(there.iter().all(|event| event.event.op == op), "{sent:?}");
    }
    assert_eq!(requests.len(), 0, "nobody asked for {requests:?}");
}

pub(super) fn check_pool(disk: &Disk, pool: &impl PoolSnapshot) {
    let stream = StreamName::new(STREAM).unwrap();
    let mut expected: BTreeMap<ItemId, Item> = BTreeMap::new();
    for event in events(disk).values() {
        let projection = Projection::default();
        let change = projection
            .read(event, event.event.fields().unwrap())
            .unwrap();
        let item = expected.entry(event.event.item_id.clone()).or_default();
        item.apply(event, &change, &projection);
        item.take_history();
    }
    expected.retain(|_, item| item.is_there());
    let items = pool
        .items(&stream, Generation::FIRST, None, usize::MAX, usize::MAX)
        .unwrap()
        .items;
    let shown = items.iter().map(|(id, item)| {
        let fields = item.fields().iter();
        let fields = fields.map(|(name, field)| (name.to_string(), field.text.to_string()));
        (id.to_string(), fields.collect())
    });
    assert_eq!(
        shown.collect::<BTreeMap<_, _>>(),
        plain::Fold::of(&events(disk)).items,
        "the items are those of the log"
    );
    assert_eq!(
        items,
        expected.into_iter().collect::<Vec<_>>(),
        "the pool is the fold of the log"
    );
    let state = pool.generation(&stream, Generation::FIRST).unwrap();
    assert_eq!(state.map_or(0, |state| state.items), items.len() as u64);
}

pub(super) fn events(disk: &Disk) -> BTreeMap<Position, Event> {
    let request = PageRequest {
        events_max: usize::MAX,
        bytes_max: usize::MAX,
        ..PageRequest::after(Position::ZERO)
    };
    let page = futures_executor(disk.log.page(request));
    page.events
        .into_iter()
        .map(|event| (event.position, event))
        .collect()
}

/// The memory log never waits.
fn futures_executor<T, E: std::fmt::Debug>(future: impl Future<Output = Result<T, E>>) -> T {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(outcome) => outcome.unwrap(),
        std::task::Poll::Pending => panic!("the memory log waited"),
    }
}
