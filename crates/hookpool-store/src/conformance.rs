//! One function per promise of the contracts; every backend runs them all, with [`log_conformance!`](crate::log_conformance)
//! and [`pool_conformance!`](crate::pool_conformance).
//!
//! A promise panics when it is broken. It gets a store of its own, empty, and may close and open it.

mod blocks;
mod drops;
mod rejections;
mod requests;

use std::{future::Future, sync::Arc, time::Duration};

use hookpool_core::{
    event::{DedupeKey, Event, NewEvent, Request},
    name::{ItemId, StreamName},
    position::Position,
};

use crate::{
    dedupe::WINDOW_SECONDS,
    log::{Appended, EventLog, Page, PageRequest},
    pool::PoolStore,
};

pub use blocks::*;
pub use drops::*;
pub use rejections::*;
pub use requests::*;

/// Makes logs to be tested.
pub trait LogFixture {
    /// The log.
    type Log: EventLog;

    /// A new, empty log.
    fn create(&mut self) -> impl Future<Output = Self::Log>;

    /// Closes a log and opens it again. One that lives in memory is given back.
    fn reopen(&mut self, log: Self::Log) -> impl Future<Output = Self::Log>;
}

/// Makes pools to be tested.
pub trait PoolFixture {
    /// The pool.
    type Pool: PoolStore;

    /// A new, empty pool.
    fn create(&mut self) -> Self::Pool;

    /// Closes a pool and opens it again. One that lives in memory is given back.
    fn reopen(&mut self, pool: Self::Pool) -> Self::Pool;
}

/// A test for each promise of [`EventLog`], over a [`LogFixture`] made by the expression.
#[macro_export]
macro_rules! log_conformance {
    ($fixture:expr) => {
        $crate::log_conformance!($fixture,
            a_new_log_is_empty
            positions_strictly_increase_in_the_order_of_appending
            what_is_appended_is_read_back_byte_for_byte
            an_empty_batch_is_nothing
            a_duplicate_yields_the_first_position
            a_duplicate_inside_one_batch_yields_the_first_position
            events_without_a_key_are_never_duplicates
            a_key_is_known_for_the_whole_window
            pages_hold_the_events_after_a_position_up_to_another
            pages_are_bounded_and_go_on_where_the_last_one_ended
            a_page_says_how_far_it_saw
            a_page_of_whole_blocks_divides_none
            a_page_of_a_stream_holds_its_events_only
            pages_of_a_stream_are_bounded_and_go_on
            a_stream_without_events_is_seen_to_the_end
            waiting_ends_when_the_head_is_past
            readers_never_see_a_hole_or_more_than_the_head
            a_reopened_log_is_the_same_and_goes_on
            duplicates_are_known_after_reopening
            blocks_hold_every_event_and_are_chained
            blocks_after_a_position_are_whole_and_bounded
            the_end_is_the_head_with_the_digest_of_the_last_block
            blocks_never_end_past_the_head
            blocks_are_the_same_after_reopening
            a_dropped_event_is_gone_and_every_other_is_as_it_was
            dropping_leaves_the_head_the_end_and_the_chain
            a_dropped_event_is_gone_from_the_bytes_of_its_block
            dropping_twice_or_what_is_not_there_is_nothing
            a_block_may_lose_all_of_its_events
            a_log_may_lose_all_of_its_events_and_goes_on
            pages_are_bounded_and_go_on_past_dropped_events
            duplicates_of_what_was_kept_are_known
            events_are_dropped_while_others_are_appended
            the_events_of_a_request_lie_in_one_block_in_order
            a_request_that_is_known_is_not_appended_with_any_of_its_events
            a_request_is_known_by_its_idempotency_key_for_its_whole_window
            an_idempotency_key_that_has_expired_is_free_again
            idempotency_keys_are_known_inside_one_batch
            idempotency_keys_are_known_after_reopening
            an_idempotency_key_comes_before_a_dedupe_key
            a_key_of_one_sort_is_none_of_the_other
            idempotency_keys_of_what_was_kept_are_known
            a_request_is_found_by_its_idempotency_key_while_it_counts
        );
    };
    ($fixture:expr, $($promise:ident)+) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $promise() {
            $crate::conformance::$promise(&mut $fixture).await;
        }
    )+};
}

/// A test for each promise of [`PoolStore`], over a [`PoolFixture`] made by the expression.
#[macro_export]
macro_rules! pool_conformance {
    ($fixture:expr) => {
        $crate::pool_conformance!($fixture,
            a_new_pool_has_no_checkpoint
            a_commit_is_in_the_next_snapshot
            deleted_items_are_neither_found_nor_listed
            a_snapshot_stays_as_it_was
            items_come_in_byte_order_of_their_ids_page_by_page
            streams_and_generations_are_apart
            items_are_replaced_as_a_whole
            one_snapshot_is_one_checkpoint_while_commits_go_on
            a_reopened_pool_is_at_its_last_commit
            a_commit_of_a_generation_that_is_built_leaves_the_checkpoint
            the_past_of_an_item_is_found_by_position
            notes_are_found_by_position_and_quarantine_by_itself
            dropped_history_goes_with_the_commit_that_replaces_it
            a_removed_generation_leaves_nothing_and_others_stay
        );
    };
    ($fixture:expr, $($promise:ident)+) => {$(
        #[test]
        fn $promise() {
            $crate::conformance::$promise(&mut $fixture);
        }
    )+};
}

mod pool;

pub use pool::*;

/// Events and items to test with.
pub mod sample {
    use bytes::Bytes;
    use hookpool_core::{
        event::{Idempotency, Op, Request, RequestId},
        name::ConnectorName,
        time::Timestamp,
    };

    use super::{DedupeKey, Event, ItemId, NewEvent, StreamName};

    /// A stream name.
    ///
    /// # Panics
    /// If it is none.
    #[must_use]
    pub fn stream(name: &str) -> StreamName {
        StreamName::new(name).expect("a stream name")
    }

    /// Delivery number `n` of a test, one second after the last.
    ///
    /// # Panics
    /// If the stream is no name.
    #[must_use]
    pub fn event(name: &str, n: u64, body: &str) -> NewEvent {
        NewEvent {
            time: Timestamp::from_seconds(1_700_000_000 + n),
            stream: stream(name),
            op: Op::Upsert,
            item_id: ItemId::new(format!("item {n}")).expect("an item id"),
            generated_id: n.is_multiple_of(2),
            duplicate_keys: n.is_multiple_of(3),
            field_count: 1,
            connector: ConnectorName::new("till").expect("a connector name"),
            request_id: RequestId(u128::from(n).to_le_bytes()),
            dedupe: None,
            idempotency: None,
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    /// The same with a dedupe key.
    #[must_use]
    pub fn keyed(name: &str, n: u64, key: u8) -> NewEvent {
        NewEvent {
            dedupe: Some(DedupeKey([key; 16])),
            ..event(name, n, "{}")
        }
    }

    /// The same with an idempotency key.
    #[must_use]
    pub fn identified(name: &str, n: u64, key: u8) -> NewEvent {
        NewEvent {
            idempotency: Some(Idempotency {
                key: DedupeKey([key; 16]),
                request: n.is_multiple_of(2).then_some([key; 16]),
                events: 1,
            }),
            ..event(name, n, "{}")
        }
    }

    /// A request of these events, with an identity.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn request(key: u8, mut events: Vec<NewEvent>) -> Request {
        let count = u32::try_from(events.len()).unwrap_or(u32::MAX);
        let mut rest = events.split_off(1);
        let mut first = events.pop().expect("an event");
        first.idempotency = Some(Idempotency {
            key: DedupeKey([key; 16]),
            request: None,
            events: count,
        });
        rest.shrink_to_fit();
        Request { first, rest }
    }

    /// Bodies that have been trouble somewhere: empty, a block's magic, every byte value, and one larger than any buffer.
    #[must_use]
    pub fn bodies() -> Vec<Bytes> {
        vec![
            Bytes::new(),
            Bytes::from_static(b"HKPL\x01\0\0\0"),
            (0..=u8::MAX).collect(),
            Bytes::from_static(br#"{"a":1.0e+2,"a":"\u0000"}"#),
            Bytes::from(vec![b' '; 300_000]),
        ]
    }

    /// The events at these positions.
    pub fn at(events: Vec<NewEvent>, positions: impl IntoIterator<Item = u64>) -> Vec<Event> {
        let positions = positions.into_iter().map(super::Position);
        positions
            .zip(events)
            .map(|(position, event)| Event { position, event })
            .collect()
    }
}

async fn append(log: &impl EventLog, events: Vec<NewEvent>) -> Vec<Appended> {
    append_requests(log, Request::each(events)).await
}

async fn append_requests(log: &impl EventLog, requests: Vec<Request>) -> Vec<Appended> {
    log.append(requests).await.expect("an append")
}

async fn page(log: &impl EventLog, request: PageRequest) -> Page {
    log.page(request).await.expect("a page")
}

/// All pages of a request, with the limits that it has.
async fn all(log: &impl EventLog, request: PageRequest) -> Vec<Event> {
    let end = log.head().min(request.until);
    let mut events = Vec::new();
    let mut after = request.after;
    while after < end {
        let request = PageRequest {
            after,
            ..request.clone()
        };
        let page = page(log, request).await;
        assert!(page.through > after, "a page goes on");
        after = page.through;
        events.extend(page.events);
    }
    events
}

async fn everything(log: &impl EventLog) -> Vec<Event> {
    all(log, PageRequest::after(Position::ZERO)).await
}

/// Thirty events of three streams, in batches of different sizes. Returns them as the log holds them.
async fn fill(log: &impl EventLog) -> Vec<Event> {
    let events: Vec<_> = (0..30)
        .map(|n| {
            let stream = ["sales", "sales-2", "hr"][usize::try_from(n % 7 % 3).unwrap_or_default()];
            sample::event(stream, n, &format!(r#"{{"n":{n}}}"#))
        })
        .collect();
    let mut rest = events.as_slice();
    let mut appended = Vec::new();
    for size in [1, 2, 7, 1, 10, 9] {
        let (batch, others) = rest.split_at(size);
        appended.extend(append(log, batch.to_vec()).await);
        rest = others;
    }
    let positions: Vec<_> = appended
        .iter()
        .map(|outcome| outcome.position().0)
        .collect();
    sample::at(events, positions)
}

/// **Positions** ... start after [`Position::ZERO`].
pub async fn a_new_log_is_empty<F: LogFixture>(fixture: &mut F) {
    let log = fixture.create().await;
    assert_eq!(log.head(), Position::ZERO);
    let page = page(&log, PageRequest::after(Position::ZERO)).await;
    assert_eq!((page.events.len(), page.through), (0, Position::ZERO));
}

/// **Positions** strictly increase in the order of appending.
pub async fn positions_strictly_increase_in_the_order_of_appending<F: LogFixture>(fixture: &mut F) {
    let log = fixture.create().await;
    let events = fill(&log).await;
    assert!(events.is_sorted_by(|a, b| a.position < b.position));
    assert!(events[0].position > Position::ZERO);
    assert_eq!(log.head(), events[29].position);
    assert_eq!(everything(&log).await, events);
}

/// What is reported appended is ... at that position, with those bytes.
pub async fn what_is_appended_is_read_back_byte_for_byte<F: LogFixture>(fixture: &mut F) {
    let log = fixture.create().await;
    let events: Vec<_> = (1..)
        .zip(sample::bodies())
        .map(|(n, body)| NewEvent {
            body,
            ..sample::keyed("sales", n, u8::try_from(n).unwrap_or_default())
        })
        .collect();
    let outcomes = append(&log, events.clone()).await;
    let positions: Vec<_> = outcomes.iter().map(|at| at.position().0).collect();
    assert_eq!(everything(&log).await, sample::at(events, positions));
}

/// An empty batch is nothing.
pub async fn an_empty_batch_is_nothing<F: LogFixture>(fixture: &mut F) {
    let log = fixture.create().await;
    assert_eq!(append(&log, Vec::new()).await, []);
    assert_eq!(log.head(), Position::ZERO);
}

/// **Duplicates.** One whose dedupe key is equal ... yields the first one's position.
pub async fn a_duplicate_yields_the_first_position<F: LogFixture>(fixture: &mut F) {
    let log = fixture.create().await;
    let first = append(&log, vec![sample::keyed("sales", 1, 7)]).await[0];
    assert!(matches!(first, Appended::New(_)));
    let head = log.head();
    let batch = vec![sample::keyed("hr", 2, 7), sample::keyed("hr", 3, 8)];
    let outcomes = append(&log, batch).await;
    assert_eq!(outcomes[0], Appended::Duplicate(first.position()));
    assert!(matches!(outcomes[1], Appended::New(position) if position > head));
    let again = append(&log, vec![sample::keyed("sales", 4, 7)]).await;
    assert_eq!(again, [Appended::Duplicate(first.position())]);
    assert_eq!(everything(&log).await.len(), 2);
    assert_eq!(log.head(), outcomes[1].position());
}

/// **Duplicates.** ... also inside one batch.
pub async fn a_duplicate_inside_one_batch_yields_the_first_position<F: LogFixture>(
    fixture: &mut F,
) {
    let log = fixture.create().await;
    let batch = vec![
        sample::keyed("sales", 1, 1),
        sample::keyed("sales", 2, 2),
        sample::keyed("sales", 3, 1),
    ];
    let outcomes = append(&log, batch).await;
    assert_eq!(outcomes[2], Appended::Duplicate(outcomes[0].position()));
    assert_eq!(everything(&log).await.len(), 2);
}

/// **Duplicates.** One whose dedupe key ...: without one, each delivery counts.
pub async fn events_without_a_key_are_never_duplicates<F: LogFixture>(fixture: &mut F) {
    let log = fixture.create().await;
    let event = sample::event("sales", 1, "{}");
    append(&log, vec![event.clone(), event.clone()]).await;
    append(&log, vec![event]).await;
    assert_eq!(everything(&log).await.len(), 3);
}

/// **Duplicates.** ... at most [`WINDOW_SECONDS`] older.
pub async fn a_key_is_known_for_the_whole_window<F: LogFixture>(fixture: &mut F) {
    let log = fixture.create().await;
    let first = append(&log, vec![sample::keyed("sales", 0, 1)]).await[0];
    for second in 1..WINDOW_SECONDS {
        if second.is_multiple_of(50) {
            append(&log, vec![sample::keyed("sales", second, 2)]).await;
        }
    }
    let again = append(&log, vec![sample::keyed("sales", WINDOW_SECONDS, 1)]).await;
    assert_eq!(again, [Appended::Duplicate(first.position())]);
}

/// **Reading.** A page holds the events after a position in order, without holes.
pub async fn pages_hold_the_events_after_a_position_up_to_another<F: LogFixture>(fixture: &mut F) {
    let log = fixture.create().await;
    let events = fill(&log).await;
    for from in 0..30 {
        for to in from..30 {
            let request = PageRequest {
                until: events[to].position,
                ..PageRequest::after(events[from].position)
            };
            let page = page(&log, request).await;
            assert_eq!(page.events, events[from + 1..=to], "{from} to {to}");
            assert_eq!(page.through, events[to].position);
        }
    }
}

/// At most this many events; no further event once the bodies have this many bytes; at least one event.
pub async fn pages_are_bounded_and_go_on_where_the_last_one_ended<F: LogFixture>(fixture: &mut F) {
    let log = fixture.create().await;
    let events = fill(&log).await;
    for events_max in 1..12 {
        for bytes_max in [0, 1, 8, 40, 1 << 20] {
            let request = PageRequest {
                events_max,
                bytes_max,
                ..PageRequest::after(Position::ZERO)
            };
            let first = page(&log, request.clone()).await;
            let before_last: usize = first
                .events
                .iter()
                .rev()
                .skip(1)
                .map(|event| event.event.body.len())
                .sum();
            assert!((1..=events_max).contains(&first.events.len()));
            assert!(before_last < bytes_max || first.events.len() == 1);
            assert_eq!(first.through, first.events[first.events.len() - 1].position);
            assert_eq!(all(&log, request).await, events);
        }
    }
}

/// At the end `through` is the head or `until`, whichever is less, and never less than `after`.
pub async fn a_page_says_how_far_it_saw<F: LogFixture>(fixture: &mut F) {
    let log = fixture.create().await;
    fill(&log).await;
    let head = log.head();
    let through = async |after: Position, until: Position| {
        let request = PageRequest {
            until,
            ..PageRequest::after(after)
        };
        page(&log, request).await.through
    };
    assert_eq!(through(Position::ZERO, Position(u64::MAX)).await, head);
    assert_eq!(through(head, Position(u64::MAX)).await, head);
    assert_eq!(
        through(head.plus(5), Position(u64::MAX)).await,
        head.plus(5)
    );
    assert_eq!(
        through(Position::ZERO, Position::ZERO).await,
        Position::ZERO
    );
    assert_eq!(through(head, Position(1)).await, head);
}

/// However small the limits are, with `whole_blocks` a page ends where a block does; and so no page is longer than it has to be.
pub async fn a_page_of_whole_blocks_divides_none<F: LogFixture>(fixture: &mut F) {
    let log = fixture.create().await;
    let events = fill(&log).await;
    let blocks = log.blocks(Position::ZERO, usize::MAX).await;
    let blocks = blocks.expect("all blocks");
    let ends: Vec<_> = blocks.iter().map(|block| block.header().last()).collect();
    assert!(ends.len() > 1 && ends.len() < events.len());
    for stream in [None, Some(sample::stream("sales"))] {
        for (events_max, bytes_max) in [(1, 1 << 20), (5, 1 << 20), (1_024, 1)] {
            let request = PageRequest {
                stream: stream.clone(),
                events_max,
                bytes_max,
                whole_blocks: true,
                ..PageRequest::after(Position::ZERO)
            };
            let (mut after, mut seen) = (Position::ZERO, Vec::new());
            while after < log.head() {
                let request = PageRequest {
                    after,
                    ..request.clone()
                };
                let page = page(&log, request).await;
                let next = ends.iter().find(|end| **end > after);
                assert!(page.through > after, "a page goes on");
                if events_max == 1 && stream.is_none() {
                    assert_eq!(Some(&page.through), next, "one block");
                }
                after = page.through;
                let block = ends.partition_point(|end| *end < after);
                let rest = |event: &&Event| {
                    let of_it = stream.as_ref().is_none_or(|it| *it == event.event.stream);
                    of_it
                        && event.position > after
                        && ends.get(block).is_some_and(|end| event.position <= *end)
                };
                assert_eq!(
                    events.iter().find(rest),
                    None,
                    "a block is divided at {after}"
                );
                seen.extend(page.events);
            }
            let of_it = |event: &&Event| stream.as_ref().is_none_or(|it| *it == event.event.stream);
            let expected: Vec<_> = events.iter().filter(of_it).cloned().collect();
            assert_eq!(seen, expected);
        }
    }
}

fn of(events: &[Event], stream: &StreamName) -> Vec<Event> {
    let of_stream = |event: &&Event| event.event.stream == *stream;
    events.iter().filter(of_stream).cloned().collect()
}

/// Only events of this stream, also where one name begins with another.
pub async fn a_page_of_a_stream_holds_its_events_only<F: LogFixture>(fixture: &mut F) {
    let log = fixture.create().await;
    let events = fill(&log).await;
    for name in ["sales", "sales-2", "hr"] {
        let stream = sample::stream(name);
        for after in (0..=30).map(Position) {
            for until in (after.0..=31).map(Position) {
                let request = PageRequest {
                    until,
                    ..PageRequest::of_stream(stream.clone(), after)
                };
                let page = page(&log, request).await;
                let mut expected = of(&events, &stream);
                expected.retain(|event| event.position > after && event.position <= until);
                assert_eq!(page.events, expected, "{name} {after} {until}");
                assert_eq!(page.through, until.min(log.head()).max(after));
            }
        }
    }
}

/// The limits hold for pages of a stream too.
pub async fn pages_of_a_stream_are_bounded_and_go_on<F: LogFixture>(fixture: &mut F) {
    let log = fixture.create().await;
    let events = fill(&log).await;
    for name in ["sales", "sales-2", "hr"] {
        let stream = sample::stream(name);
        for events_max in 1..5 {
            let request = PageRequest {
                events_max,
                ..PageRequest::of_stream(stream.clone(), Position::ZERO)
            };
            let first = page(&log, request.clone()).await;
            assert_eq!(first.events.len(), events_max);
            assert_eq!(all(&log, request).await, of(&events, &stream));
        }
    }
}

/// Everything asked for up to `through` has been seen, also if that is nothing.
pub async fn a_stream_without_events_is_seen_to_the_end<F: LogFixture>(fixture: &mut F) {
    let log = fixture.create().await;
    fill(&log).await;
    let request = PageRequest::of_stream(sample::stream("sales-"), Position(3));
    let page = page(&log, request).await;
    assert_eq!((page.events.len(), page.through), (0, log.head()));
}

/// Waits until the head is past a position, and returns the head.
pub async fn waiting_ends_when_the_head_is_past<F: LogFixture>(fixture: &mut F) {
    let log = Arc::new(fixture.create().await);
    let waiting = tokio::spawn({
        let log = Arc::clone(&log);
        async move { log.wait(Position::ZERO).await }
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!waiting.is_finished());
    append(log.as_ref(), vec![sample::event("sales", 1, "{}")]).await;
    let head = waiting.await.expect("a head");
    assert_eq!(head, log.head());
    assert_eq!(log.wait(Position::ZERO).await, head);
}

/// A page ... never \[holds\] one that is not durable. **Head** ... moves only after what it covers can be read.
pub async fn readers_never_see_a_hole_or_more_than_the_head<F: LogFixture>(fixture: &mut F) {
    const EVENTS: u64 = 400;
    let log = Arc::new(fixture.create().await);
    let reader = |stream: Option<StreamName>| {
        let log = Arc::clone(&log);
        tokio::spawn(async move {
            let mut events = Vec::new();
            let mut after = Position::ZERO;
            while events.len() < usize::try_from(EVENTS).unwrap_or_default() {
                let head = log.wait(after).await;
                let request = PageRequest {
                    stream: stream.clone(),
                    events_max: 5,
                    ..PageRequest::after(after)
                };
                let page = page(log.as_ref(), request).await;
                assert!(page.through > after, "what the head covers can be read");
                assert!(page.through >= head || !page.events.is_empty());
                assert!(page.through <= log.head());
                after = page.through;
                events.extend(page.events);
            }
            events
        })
    };
    let readers = [reader(None), reader(Some(sample::stream("sales")))];
    for n in 0..EVENTS / 4 {
        let event = |k| sample::event("sales", 4 * n + k, "{}");
        append(log.as_ref(), (0..4).map(event).collect()).await;
    }
    for reader in readers {
        assert_eq!(
            reader.await.expect("a reader"),
            everything(log.as_ref()).await
        );
    }
}

/// What is reported appended is durable. A log is one epoch for its whole life.
pub async fn a_reopened_log_is_the_same_and_goes_on<F: LogFixture>(fixture: &mut F) {
    let log = fixture.create().await;
    let empty = log.epoch();
    let mut log = fixture.reopen(log).await;
    assert_eq!((log.epoch(), log.head()), (empty, Position::ZERO));
    let mut events = fill(&log).await;
    for n in 30..34 {
        let (epoch, head) = (log.epoch(), log.head());
        let reopened = fixture.reopen(log).await;
        assert_eq!((reopened.epoch(), reopened.head()), (epoch, head));
        assert_eq!(everything(&reopened).await, events);
        let event = sample::event("sales", n, "{}");
        let outcomes = append(&reopened, vec![event.clone()]).await;
        assert!(outcomes[0].position() > head);
        events.extend(sample::at(vec![event], [outcomes[0].position().0]));
        log = reopened;
    }
}

/// **Duplicates.** ... also after a restart.
pub async fn duplicates_are_known_after_reopening<F: LogFixture>(fixture: &mut F) {
    let log = fixture.create().await;
    let mut first = Vec::new();
    for n in 0..20 {
        first.extend(append(&log, vec![sample::keyed("sales", u64::from(n), n)]).await);
    }
    let log = fixture.reopen(log).await;
    for n in 0..20 {
        let again = append(&log, vec![sample::keyed("hr", 30, n)]).await;
        assert_eq!(
            again,
            [Appended::Duplicate(first[usize::from(n)].position())]
        );
    }
    assert_eq!(log.head(), first[19].position());
}
