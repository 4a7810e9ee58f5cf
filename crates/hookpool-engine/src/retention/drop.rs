//! The log drops expired events that the pool does not name, some at a time, and leaves others room in between.

use std::{sync::Arc, time::Duration};

use hookpool_core::{
    event::Event,
    name::StreamName,
    plan::Ruled,
    position::{Generation, Position},
};
use hookpool_store::{Dropped, EventLog, PageRequest, PoolSnapshot, PoolStore};
use tokio::{runtime::Handle, time::Instant};

use super::{RetainError, Retainer, Trim, trim::Trimmed};
use crate::{
    follow::{FollowError, blocking},
    past::{View, is_named},
};

/// Events that are looked at at once, and dropped by one write.
const PAGE_EVENTS: usize = 1_024;
/// Ingest has the disk at least as long as a drop had it.
const REST_MIN: Duration = Duration::from_millis(1);

impl<L: EventLog, P: PoolStore> Retainer<L, P> {
    /// Drops the events up to the floor that fit no item, and then what the pool says of them; whether all are gone.
    ///
    /// Before all others: whether an event made an item too large depends on those before it.
    pub(super) async fn drop_quarantined(
        &self,
        stream: &StreamName,
        generation: Generation,
        to: Position,
        go_on: &(impl Fn() -> bool + Sync),
    ) -> Result<bool, RetainError> {
        loop {
            let (pool, name) = (self.pool.snapshot(), stream.clone());
            let read = move || pool.quarantined(&name, generation, Position::ZERO, PAGE_EVENTS);
            let expired: Vec<_> = blocking(read)
                .await?
                .into_iter()
                .map(|(position, _)| position)
                .filter(|position| *position <= to)
                .collect();
            if expired.is_empty() {
                return Ok(true);
            }
            if !go_on() {
                return Ok(false);
            }
            self.drop_events(expired.clone()).await?;
            let events = expired.len() as u64;
            let trim = Trim {
                notes: expired,
                events,
                quarantined: events,
                ..Trim::default()
            };
            if !self.commit(stream, generation, trim).await {
                return Ok(false);
            }
        }
    }

    /// Drops the events up to the floor that the pool does not name; whether all are gone.
    pub(super) async fn drop_unnamed(
        &self,
        stream: &StreamName,
        live: &Ruled,
        to: Position,
        go_on: &(impl Fn() -> bool + Sync),
    ) -> Result<bool, RetainError> {
        let (mut at, mut kept) = (Position::ZERO, 0);
        while at < to {
            if !go_on() {
                return Ok(false);
            }
            let request = PageRequest {
                until: to,
                events_max: PAGE_EVENTS,
                ..PageRequest::of_stream(stream.clone(), at)
            };
            let view = View {
                pool: self.pool.snapshot(),
                stream: stream.clone(),
                ruled: live.clone(),
            };
            let (log, runtime) = (Arc::clone(&self.log), Handle::current());
            let page = blocking(move || -> Result<_, RetainError> {
                let page = runtime.block_on(log.page(request))?;
                let (mut unnamed, events) = (Vec::new(), page.events.len() as u64);
                for event in page.events {
                    if !is_needed(&view, &event)? {
                        unnamed.push(event.position);
                    }
                }
                Ok((events - unnamed.len() as u64, unnamed, page.through))
            });
            let (named, unnamed, through) = page.await?;
            if !unnamed.is_empty() {
                self.drop_events(unnamed).await?;
            }
            (at, kept) = (through, kept + named);
        }
        self.retentions
            .update(stream, |state| state.kept = Some(kept));
        Ok(true)
    }

    /// Drops what trimming came upon; whether all of it is gone.
    pub(super) async fn drop_trimmed(
        &self,
        stream: &StreamName,
        mut trimmed: Trimmed,
        go_on: &(impl Fn() -> bool + Sync),
    ) -> Result<bool, RetainError> {
        let (looked_at, gone) = (trimmed.events, trimmed.gone.len() as u64);
        trimmed.gone.sort_unstable();
        for gone in trimmed.gone.chunks(PAGE_EVENTS) {
            if !go_on() {
                return Ok(false);
            }
            self.drop_events(gone.to_vec()).await?;
        }
        self.retentions.update(stream, |state| {
            let before = state.kept.unwrap_or_default();
            state.kept = Some((before + looked_at).saturating_sub(gone));
        });
        Ok(true)
    }

    async fn drop_events(&self, positions: Vec<Position>) -> Result<(), RetainError> {
        let (log, runtime) = (Arc::clone(&self.log), Handle::current());
        let begun = Instant::now();
        let dropped: Dropped =
            blocking(move || runtime.block_on(log.drop_events(positions))).await?;
        self.retentions.count(dropped);
        tokio::time::sleep(begun.elapsed().max(REST_MIN)).await;
        Ok(())
    }
}

fn is_needed(view: &View<impl PoolSnapshot>, event: &Event) -> Result<bool, RetainError> {
    let fields = event.event.fields();
    let fields = fields.map_err(|error| FollowError::Body(event.position, error))?;
    match view.ruled.projection.read(event, fields) {
        Ok(change) => Ok(is_named(view, &change.item_id, event.position)?),
        Err(_) => Ok(false),
    }
}
