//! Where the floor of a stream should be: as high as its limits say, and never where somebody still needs what is below.

use std::sync::Arc;

use hookpool_core::{
    event::NewEvent,
    name::StreamName,
    plan::Plan,
    position::Position,
    retention::{Floor, Retention},
    time::Timestamp,
};
use hookpool_store::{
    EventLog, PageRequest, PoolSnapshot, PoolStore, ReadError,
    dedupe::{IDEMPOTENCY_SECONDS, WINDOW_SECONDS, key_counts},
};

use crate::{clock::Clock, follow::read_page, past::position_at};

/// A signed delivery that may still come again is answered from its event. Three windows, since keys are forgotten in slices of log time.
const REPEATED_SECONDS: u64 = 3 * WINDOW_SECONDS;
/// Events read at once.
const PAGE_EVENTS: usize = 4_096;

/// Finds floors.
#[derive(Debug)]
pub(crate) struct Floors<L, P> {
    pub(crate) log: Arc<L>,
    pub(crate) pool: Arc<P>,
    pub(crate) clock: Clock,
}

/// What a floor would make unreadable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expiring {
    /// The floor; `None` if it would not rise.
    pub floor: Option<Floor>,
    /// Events that can be read now, and could not then.
    pub events: u64,
}

impl<L: EventLog, P: PoolStore> Floors<L, P> {
    /// The floor under these limits, if it is higher than the one there is: always an event of the stream, so that what is said of it is
    /// true of every moment up to the next one.
    pub(super) async fn next(
        &self,
        stream: &StreamName,
        plan: &Plan,
        limits: Retention,
    ) -> Result<Option<Floor>, ReadError> {
        let now = self.clock.now();
        let mut bound = Position::ZERO;
        if let Some(seconds) = limits.max_age_seconds {
            bound = bound.max(position_at(&self.log, before(now, seconds)).await?);
        }
        if let Some(positions) = limits.max_positions {
            bound = bound.max(Position(self.log.head().0.saturating_sub(positions)));
        }
        let applied = self.pool.snapshot().checkpoint();
        bound = bound.min(applied.map_or(Position::ZERO, |at| at.position));
        let earliest = plan.earliest();
        let bound = self.before_repeatable(stream, earliest, bound, now).await?;
        self.last_event(stream, earliest, bound).await
    }

    /// What these limits would make unreadable now.
    pub(crate) async fn expiring(
        &self,
        stream: &StreamName,
        plan: &Plan,
        limits: Retention,
    ) -> Result<Expiring, ReadError> {
        let floor = self.next(stream, plan, limits).await?;
        let (mut events, mut at) = (0, plan.earliest());
        let until = floor.map_or(at, |floor| floor.position);
        while at < until {
            let page = self.page(stream, at, until, PAGE_EVENTS).await?;
            events += page.events.len() as u64;
            at = page.through;
        }
        Ok(Expiring { floor, events })
    }

    /// No further than the first event whose delivery may come again.
    async fn before_repeatable(
        &self,
        stream: &StreamName,
        earliest: Position,
        bound: Position,
        now: Timestamp,
    ) -> Result<Position, ReadError> {
        let settled = before(now, REPEATED_SECONDS);
        // A microsecond earlier: a key counts to the end of its last one.
        let forgotten = Timestamp(before(now, IDEMPOTENCY_SECONDS).0.saturating_sub(1));
        let mut at = position_at(&self.log, forgotten).await?.max(earliest);
        while at < bound {
            let page = self.page(stream, at, bound, PAGE_EVENTS).await?;
            let repeatable = page.events.iter().find(|event| {
                let NewEvent {
                    time,
                    dedupe,
                    idempotency,
                    ..
                } = &event.event;
                dedupe.is_some() && *time > settled
                    || idempotency.is_some() && key_counts(*time, now)
            });
            if let Some(event) = repeatable {
                return Ok(Position(event.position.0 - 1));
            }
            at = page.through;
        }
        Ok(bound)
    }

    /// The last event of a stream after a position and up to another.
    async fn last_event(
        &self,
        stream: &StreamName,
        after: Position,
        until: Position,
    ) -> Result<Option<Floor>, ReadError> {
        let (mut last, mut low, mut high) = (None, after, until);
        while low < high {
            let middle = match last {
                None => low,
                Some(_) => Position(low.0 + (high.0 - low.0) / 2),
            };
            match self.page(stream, middle, until, 1).await?.events.first() {
                Some(event) => {
                    let (position, time) = (event.position, event.event.time);
                    last = Some(Floor { position, time });
                    low = position;
                }
                None => high = middle,
            }
        }
        Ok(last)
    }

    async fn page(
        &self,
        stream: &StreamName,
        after: Position,
        until: Position,
        events_max: usize,
    ) -> Result<hookpool_store::Page, ReadError> {
        let request = PageRequest {
            until,
            events_max,
            ..PageRequest::of_stream(stream.clone(), after)
        };
        read_page(&self.log, request).await
    }
}

fn before(now: Timestamp, seconds: u64) -> Timestamp {
    Timestamp(now.0.saturating_sub(seconds.saturating_mul(1_000_000)))
}
