//! What a log promises of events that are dropped.

use std::sync::Arc;

use hookpool_core::{
    codec::{Block, Digest},
    event::Event,
    position::Position,
};

use super::{LogFixture, all, all_blocks, append, everything, fill, of, page, sample};
use crate::log::{Appended, Dropped, EventLog, PageRequest};

/// Ordinals of the thirty events of [`fill`], one drop after the other: of one block and of several, the last of a block, the first and
/// last of all.
const DROPS: [&[usize]; 6] = [
    &[5],
    &[0],
    &[29],
    &[11, 12, 13, 14, 15, 16, 17, 18, 19],
    &[3, 4, 6, 7, 8, 9],
    &[1, 2, 10, 20, 23, 27],
];

async fn drop_events(log: &impl EventLog, positions: Vec<Position>) -> Dropped {
    log.drop_events(positions).await.expect("a drop")
}

/// Drops these of the events; gives the others.
async fn drop_ordinals(log: &impl EventLog, events: &[Event], ordinals: &[usize]) -> Vec<Event> {
    let gone: Vec<_> = ordinals.iter().map(|n| events[*n].position).collect();
    let dropped = drop_events(log, gone.clone()).await;
    assert_eq!(dropped.events, ordinals.len() as u64);
    let bodies = ordinals.iter().map(|n| events[*n].event.body.len() as u64);
    assert!(dropped.bytes > bodies.sum());
    without(events, &gone)
}

fn without(events: &[Event], gone: &[Position]) -> Vec<Event> {
    let kept = events
        .iter()
        .filter(|event| !gone.contains(&event.position));
    kept.cloned().collect()
}

/// These are all events that can be read, in every way.
async fn assert_holds(log: &impl EventLog, expected: &[Event]) {
    assert_eq!(everything(log).await, expected);
    for name in ["sales", "sales-2", "hr"] {
        let stream = sample::stream(name);
        let request = PageRequest::of_stream(stream.clone(), Position::ZERO);
        assert_eq!(all(log, request).await, of(expected, &stream), "{name}");
    }
    let blocks = all_blocks(log, usize::MAX).await;
    let events = blocks.iter().flat_map(Block::events);
    let events: Result<Vec<_>, _> = events.collect();
    assert_eq!(events.expect("intact events"), expected);
}

/// **Dropping.** A dropped event is gone ... Every other event is there as before, at its position, byte for byte. ... through a kill.
pub async fn a_dropped_event_is_gone_and_every_other_is_as_it_was<F: LogFixture>(fixture: &mut F) {
    let mut log = fixture.create().await;
    let events = fill(&log).await;
    let mut kept = events.clone();
    for ordinals in DROPS {
        drop_ordinals(&log, &events, ordinals).await;
        let gone: Vec<_> = ordinals.iter().map(|n| events[*n].position).collect();
        kept = without(&kept, &gone);
        assert_holds(&log, &kept).await;
        log = fixture.reopen(log).await;
        assert_holds(&log, &kept).await;
        for event in &events {
            let request = PageRequest {
                until: event.position,
                ..PageRequest::after(Position(event.position.0 - 1))
            };
            let page = page(&log, request).await;
            let there = kept.contains(event).then_some(event);
            assert_eq!(page.events.first(), there);
            assert_eq!(page.through, event.position);
        }
    }
}

/// Its block keeps its place and the digest of what was committed ... So head, end and chain stay what they were.
pub async fn dropping_leaves_the_head_the_end_and_the_chain<F: LogFixture>(fixture: &mut F) {
    let all = async |log: &F::Log| {
        let blocks = all_blocks(log, usize::MAX).await;
        let link = |block: &Block| {
            let header = block.header();
            (header.first, header.last(), header.previous, block.digest())
        };
        let chain: Vec<_> = blocks.iter().map(link).collect();
        (log.head(), log.end(), log.epoch(), chain)
    };
    let mut log = fixture.create().await;
    let events = fill(&log).await;
    let before = all(&log).await;
    for ordinals in DROPS {
        drop_ordinals(&log, &events, ordinals).await;
        assert_eq!(all(&log).await, before);
        log = fixture.reopen(log).await;
        assert_eq!(all(&log).await, before);
    }
    let (head, end, _, chain) = before;
    let next = append(&log, vec![sample::event("sales", 40, "{}")]).await;
    assert_eq!(next, [Appended::New(head.plus(1))]);
    let longer = all_blocks(&log, usize::MAX).await;
    assert_eq!(longer.len(), chain.len() + 1);
    assert_eq!(
        longer.last().map(|block| block.header().previous),
        Some(end.digest)
    );
}

/// A dropped event is gone for good, ... from its block.
pub async fn a_dropped_event_is_gone_from_the_bytes_of_its_block<F: LogFixture>(fixture: &mut F) {
    let log = fixture.create().await;
    let events = (0..3).map(|n| sample::event("sales", n, &format!("event number {n}")));
    append(&log, events.collect()).await;
    let events = everything(&log).await;
    drop_ordinals(&log, &events, &[1]).await;
    let blocks = all_blocks(&log, usize::MAX).await;
    let found = |text: &str| {
        let of = |block: &Block| {
            block
                .bytes()
                .windows(text.len())
                .any(|b| b == text.as_bytes())
        };
        blocks.iter().any(of)
    };
    assert!(found("event number 0") && found("event number 2"));
    assert!(!found("event number 1") && !found("item 1"));
}

/// A position without an event is nothing.
pub async fn dropping_twice_or_what_is_not_there_is_nothing<F: LogFixture>(fixture: &mut F) {
    let log = fixture.create().await;
    assert_eq!(
        drop_events(&log, vec![Position(1)]).await,
        Dropped::default()
    );
    let events = fill(&log).await;
    assert_eq!(drop_events(&log, Vec::new()).await, Dropped::default());
    let kept = drop_ordinals(&log, &events, &[4, 5]).await;
    let nowhere = [
        events[4].position,
        Position::ZERO,
        log.head().plus(1),
        Position(u64::MAX),
    ];
    let dropped = drop_events(&log, nowhere.to_vec()).await;
    assert_eq!(dropped, Dropped::default());
    assert_holds(&log, &kept).await;
    // Some of them, more than once, in any order.
    let positions = [7, 4, 6, 7].map(|n: usize| events[n].position);
    assert_eq!(drop_events(&log, positions.to_vec()).await.events, 2);
    let gone = [4, 5, 6, 7].map(|n: usize| events[n].position);
    let kept = without(&events, &gone);
    assert_holds(&log, &kept).await;
}

/// ... even without any event.
pub async fn a_block_may_lose_all_of_its_events<F: LogFixture>(fixture: &mut F) {
    let log = fixture.create().await;
    let mut kept = fill(&log).await;
    // One at a time, until the log has but its first and last event.
    while kept.len() > 2 {
        kept = drop_ordinals(&log, &kept, &[kept.len() / 2]).await;
    }
    assert_holds(&log, &kept).await;
    let log = fixture.reopen(log).await;
    assert_holds(&log, &kept).await;
}

/// Its position stays a gap: no other event gets it.
pub async fn a_log_may_lose_all_of_its_events_and_goes_on<F: LogFixture>(fixture: &mut F) {
    let log = fixture.create().await;
    let events = fill(&log).await;
    let ordinals: Vec<_> = (0..events.len()).collect();
    drop_ordinals(&log, &events, &ordinals).await;
    assert_holds(&log, &[]).await;
    let next = append(&log, vec![sample::event("hr", 30, "{}")]).await;
    assert_eq!(next, [Appended::New(events[29].position.plus(1))]);
    let one = sample::at(vec![sample::event("hr", 30, "{}")], [log.head().0]);
    assert_holds(&log, &one).await;
    drop_ordinals(&log, &one, &[0]).await;
    let (head, end) = (log.head(), log.end());
    let log = fixture.reopen(log).await;
    assert_eq!((log.head(), log.end()), (head, end));
    assert_holds(&log, &[]).await;
    let next = append(&log, vec![sample::event("hr", 31, "{}")]).await;
    assert_eq!(next, [Appended::New(head.plus(1))]);
    assert_eq!(everything(&log).await.len(), 1);
}

/// Pages are bounded as before, and say how far they saw.
pub async fn pages_are_bounded_and_go_on_past_dropped_events<F: LogFixture>(fixture: &mut F) {
    let log = fixture.create().await;
    let events = fill(&log).await;
    let kept = drop_ordinals(&log, &events, &[1, 2, 3, 7, 12, 13, 14, 15, 28, 29]).await;
    for stream in [None, Some(sample::stream("sales"))] {
        let expected = stream
            .as_ref()
            .map_or_else(|| kept.clone(), |stream| of(&kept, stream));
        for events_max in 1..6 {
            for after in (0..=30).map(Position) {
                let request = PageRequest {
                    stream: stream.clone(),
                    events_max,
                    ..PageRequest::after(after)
                };
                let first = page(&log, request.clone()).await;
                let rest: Vec<_> = expected
                    .iter()
                    .filter(|event| event.position > after)
                    .cloned()
                    .collect();
                assert_eq!(first.events, rest[..rest.len().min(events_max)]);
                if rest.len() <= events_max {
                    assert_eq!(first.through, log.head());
                }
                assert_eq!(all(&log, request).await, rest);
            }
        }
    }
}

/// **Duplicates** of events that are there are known, whatever was dropped around them.
pub async fn duplicates_of_what_was_kept_are_known<F: LogFixture>(fixture: &mut F) {
    let log = fixture.create().await;
    let keyed = |n: u8| sample::keyed("sales", u64::from(n), n);
    append(&log, (0..4).map(keyed).collect()).await;
    append(&log, (4..7).map(keyed).collect()).await;
    let events = everything(&log).await;
    drop_ordinals(&log, &events, &[0, 2, 4, 5, 6]).await;
    let mut log = log;
    for _ in 0..2 {
        for n in [1, 3] {
            let again = append(&log, vec![sample::keyed("hr", 8, n)]).await;
            let first = events[usize::from(n)].position;
            assert_eq!(again, [Appended::Duplicate(first)]);
        }
        log = fixture.reopen(log).await;
    }
}

/// Dropping may run while the appender appends; readers see each event wholly or not at all.
pub async fn events_are_dropped_while_others_are_appended<F: LogFixture>(fixture: &mut F) {
    const COMMITS: u64 = 100;
    let log = Arc::new(fixture.create().await);
    let dropping = tokio::spawn({
        let log = Arc::clone(&log);
        async move {
            let mut after = Position::ZERO;
            while after.0 < 3 * COMMITS {
                let head = log.wait(after).await;
                // Two of each three.
                let dropped = (after.0 + 1..=head.0).filter(|position| position % 3 > 0);
                let dropped = drop_events(log.as_ref(), dropped.map(Position).collect()).await;
                assert_eq!(dropped.events, (head.0 - after.0) / 3 * 2);
                after = head;
            }
        }
    });
    let reading = tokio::spawn({
        let log = Arc::clone(&log);
        async move {
            while log.head().0 < 3 * COMMITS {
                let seen = everything(log.as_ref()).await;
                let kept = seen.iter().filter(|event| event.position.0 % 3 == 0);
                assert!(kept.count() as u64 >= seen.len() as u64 / 3);
                let blocks = all_blocks_intact(log.as_ref()).await;
                // What can be read is there a moment before the head says so.
                assert!(blocks <= log.head().0 / 3 + 1);
            }
        }
    });
    for n in 0..COMMITS {
        let event = |k| sample::event("sales", 3 * n + k, "{}");
        append(log.as_ref(), (0..3).map(event).collect()).await;
    }
    dropping.await.expect("drops");
    reading.await.expect("a reader");
    let positions = everything(log.as_ref()).await;
    let positions: Vec<_> = positions.iter().map(|event| event.position.0).collect();
    let expected: Vec<_> = (1..=COMMITS).map(|n| 3 * n).collect();
    assert_eq!(positions, expected);
}

/// Number of blocks, each of which is intact and follows the one before it.
async fn all_blocks_intact(log: &impl EventLog) -> u64 {
    let blocks = all_blocks(log, 1_000).await;
    let mut previous = Digest::default();
    for block in &blocks {
        assert_eq!(block.header().previous, previous);
        assert!(block.events().all(|event| event.is_ok()));
        previous = block.digest();
    }
    blocks.len() as u64
}
