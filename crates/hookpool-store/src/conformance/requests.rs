//! What a log promises of requests: all of their events or none, and never twice.

use hookpool_core::{
    codec::Block,
    event::{NewEvent, Request},
    position::Position,
};

use super::{LogFixture, all_blocks, append, append_requests, everything, sample};
use crate::{
    dedupe::IDEMPOTENCY_SECONDS,
    log::{Appended, EventLog},
};

fn events(from: u64, count: u64) -> Vec<NewEvent> {
    let stream = |n: u64| ["sales", "hr"][usize::from(n.is_multiple_of(3))];
    let event = |n| sample::event(stream(n), n, &format!(r#"{{"n":{n}}}"#));
    (from..from + count).map(event).collect()
}

/// The events of one lie in one block, in order, at positions without a gap between them.
pub async fn the_events_of_a_request_lie_in_one_block_in_order<F: LogFixture>(fixture: &mut F) {
    let log = fixture.create().await;
    let requests = vec![
        sample::request(1, events(0, 3)),
        sample::event("sales", 3, "{}").into(),
        sample::request(2, events(4, 2_000)),
        sample::request(3, events(2_004, 1)),
    ];
    let outcomes = append_requests(&log, requests.clone()).await;
    append(&log, events(3_000, 2)).await;
    let log = fixture.reopen(log).await;
    let blocks = all_blocks(&log, usize::MAX).await;
    let stored = everything(&log).await;
    for (request, outcome) in requests.iter().zip(outcomes) {
        let Appended::New(first) = outcome else {
            panic!("a new request is {outcome:?}");
        };
        let last = Position(first.0 + request.count() as u64 - 1);
        let lies_in =
            |block: &&Block| block.header().first <= first && last <= block.header().last();
        assert_eq!(blocks.iter().filter(lies_in).count(), 1, "in one block");
        let at = stored.partition_point(|event| event.position < first);
        let there = stored.iter().skip(at).take(request.count());
        let positions: Vec<_> = there.clone().map(|event| event.position).collect();
        assert_eq!(
            positions,
            (first.0..=last.0).map(Position).collect::<Vec<_>>()
        );
        assert!(there.map(|event| &event.event).eq(request.events()));
    }
}

/// One whose ... key is equal ... is not appended again, with none of its events.
pub async fn a_request_that_is_known_is_not_appended_with_any_of_its_events<F: LogFixture>(
    fixture: &mut F,
) {
    let log = fixture.create().await;
    let mut first = sample::request(1, events(0, 5));
    first.first.dedupe = sample::keyed("sales", 0, 9).dedupe;
    let at = append_requests(&log, vec![first.clone()]).await[0].position();
    let head = log.head();
    let again = sample::request(1, events(10, 7));
    let mut by_dedupe = Request {
        first: sample::keyed("hr", 11, 9),
        rest: events(20, 3),
    };
    let batch = vec![again, by_dedupe.clone(), first.clone()];
    assert_eq!(
        append_requests(&log, batch).await,
        [Appended::Duplicate(at); 3]
    );
    assert_eq!(log.head(), head);
    // Only the first event says what a request is.
    by_dedupe.rest[0].dedupe = by_dedupe.first.dedupe.take();
    let new = append_requests(&log, vec![by_dedupe]).await;
    assert_eq!(new, [Appended::New(head.plus(1))]);
    assert_eq!(everything(&log).await.len(), 9);
}

/// ... whose idempotency key is equal to that of a request at most [`IDEMPOTENCY_SECONDS`] older ...
pub async fn a_request_is_known_by_its_idempotency_key_for_its_whole_window<F: LogFixture>(
    fixture: &mut F,
) {
    let log = fixture.create().await;
    let first = append(&log, vec![sample::identified("sales", 0, 1)]).await[0];
    assert!(matches!(first, Appended::New(_)));
    let known = [Appended::Duplicate(first.position())];
    for hours in 1..=95 {
        append(&log, vec![sample::event("sales", hours * 3_600, "{}")]).await;
        let again = vec![sample::identified("hr", hours * 3_600, 1)];
        assert_eq!(append(&log, again).await, known, "{hours}");
    }
    let last = vec![sample::identified("hr", IDEMPOTENCY_SECONDS, 1)];
    assert_eq!(append(&log, last).await, known);
    // A clock that stepped back.
    let earlier = vec![sample::identified("hr", 10, 1)];
    assert_eq!(append(&log, earlier).await, known);
}

/// ... at most so much older: a key that is older is one that was never used.
pub async fn an_idempotency_key_that_has_expired_is_free_again<F: LogFixture>(fixture: &mut F) {
    let log = fixture.create().await;
    append(&log, vec![sample::identified("sales", 0, 1)]).await;
    let later = IDEMPOTENCY_SECONDS + 1;
    let second = append(&log, vec![sample::identified("sales", later, 1)]).await[0];
    assert_eq!(second, Appended::New(Position(2)));
    let log = fixture.reopen(log).await;
    let third = append(&log, vec![sample::identified("sales", later + 5, 1)]).await;
    assert_eq!(third, [Appended::Duplicate(second.position())]);
}

/// ... also inside one batch.
pub async fn idempotency_keys_are_known_inside_one_batch<F: LogFixture>(fixture: &mut F) {
    let log = fixture.create().await;
    let request = || sample::request(1, events(0, 3));
    let batch = vec![request(), sample::event("sales", 4, "{}").into(), request()];
    let outcomes = append_requests(&log, batch).await;
    assert_eq!(outcomes[2], Appended::Duplicate(outcomes[0].position()));
    assert_eq!(everything(&log).await.len(), 4);
}

/// ... and also after a restart.
pub async fn idempotency_keys_are_known_after_reopening<F: LogFixture>(fixture: &mut F) {
    let mut log = fixture.create().await;
    let mut first = Vec::new();
    for n in 0..20 {
        let batch = vec![
            sample::event("sales", u64::from(n), "{}").into(),
            sample::request(n, events(u64::from(n), 2)),
        ];
        first.push(append_requests(&log, batch).await[1].position());
        if n.is_multiple_of(6) {
            log = fixture.reopen(log).await;
        }
    }
    let (log, head) = (fixture.reopen(log).await, Position(60));
    for (n, first) in (0..).zip(first) {
        let again = append(&log, vec![sample::identified("hr", 300, n)]).await;
        assert_eq!(again, [Appended::Duplicate(first)]);
    }
    assert_eq!(log.head(), head);
}

/// An idempotency key comes before a dedupe key.
pub async fn an_idempotency_key_comes_before_a_dedupe_key<F: LogFixture>(fixture: &mut F) {
    let log = fixture.create().await;
    let batch = vec![
        sample::keyed("sales", 0, 1),
        sample::identified("sales", 1, 2),
    ];
    let outcomes = append(&log, batch).await;
    let both = NewEvent {
        dedupe: sample::keyed("sales", 0, 1).dedupe,
        ..sample::identified("sales", 3, 2)
    };
    let known = append(&log, vec![both.clone()]).await;
    assert_eq!(known, [Appended::Duplicate(outcomes[1].position())]);
    // A replayed request is known by its dedupe key, whatever it calls itself.
    let renamed = NewEvent {
        dedupe: both.dedupe,
        ..sample::identified("sales", 4, 3)
    };
    let known = append(&log, vec![renamed]).await;
    assert_eq!(known, [Appended::Duplicate(outcomes[0].position())]);
}

/// Equal bytes are no equal key where one is a dedupe key and the other an idempotency key.
pub async fn a_key_of_one_sort_is_none_of_the_other<F: LogFixture>(fixture: &mut F) {
    let log = fixture.create().await;
    let batch = vec![
        sample::keyed("sales", 0, 1),
        sample::identified("sales", 1, 1),
    ];
    let outcomes = append(&log, batch).await;
    assert!(
        outcomes
            .iter()
            .all(|outcome| matches!(outcome, Appended::New(_)))
    );
}

/// What is not dropped is still known; what is dropped may be forgotten, and is then as if it had never been.
pub async fn idempotency_keys_of_what_was_kept_are_known<F: LogFixture>(fixture: &mut F) {
    let log = fixture.create().await;
    let requests = (0..4).map(|n| sample::request(n, events(u64::from(n) * 10, 3)));
    let outcomes = append_requests(&log, requests.collect()).await;
    let dropped = vec![Position(2), Position(4), Position(5)];
    log.drop_events(dropped).await.expect("a drop");
    let log = fixture.reopen(log).await;
    for n in [0, 2, 3] {
        let again = append(&log, vec![sample::identified("hr", 300, n)]).await;
        let first = outcomes[usize::from(n)].position();
        assert_eq!(again, [Appended::Duplicate(first)], "{n}");
    }
    // Whichever it is, it is not an error.
    append(&log, vec![sample::identified("hr", 300, 1)]).await;
}

/// Where the request with this idempotency key begins, if the key still counts for a request of this time.
pub async fn a_request_is_found_by_its_idempotency_key_while_it_counts<F: LogFixture>(
    fixture: &mut F,
) {
    let log = fixture.create().await;
    let batch = vec![
        sample::keyed("sales", 0, 2).into(),
        sample::request(1, events(0, 3)),
    ];
    let first = append_requests(&log, batch).await[1].position();
    let log = fixture.reopen(log).await;
    let event = sample::identified("sales", 0, 1);
    let key = event.idempotency.expect("a key").key;
    let at = |seconds| sample::event("sales", seconds, "{}").time;
    for (seconds, found) in [
        (0, Some(first)),
        (IDEMPOTENCY_SECONDS, Some(first)),
        (IDEMPOTENCY_SECONDS + 1, None),
    ] {
        assert_eq!(log.find(key, at(seconds)).await.expect("a read"), found);
    }
    let other = sample::keyed("sales", 0, 2).dedupe.expect("a key");
    assert_eq!(log.find(other, at(0)).await.expect("a read"), None);
}
