//! Which request was the last to use an idempotency key: the keyspace `requests`. Memory holds none of it; what has expired leaves when fjall
//! merges tables. A row is a hint: what it says is believed when the event says so too.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use fjall::{
    Readable as _, Slice,
    compaction::filter::{
        CompactionFilter, CompactionFilterResult, Context, Factory, ItemAccessor, Verdict,
    },
};
use hookpool_core::{
    event::{DedupeKey, Event},
    position::Position,
    time::Timestamp,
};
use hookpool_store::dedupe::{IDEMPOTENCY_SECONDS, key_counts};

use crate::{
    keys::Key,
    rows::{self, RequestRow},
    tables::Finding,
    tail::{View, missing, unreadable},
};

/// How long rows are kept: a day more than they count, so that a clock that steps back by less forgets nothing.
const KEPT_SECONDS: u64 = IDEMPOTENCY_SECONDS + 24 * 60 * 60;

impl View {
    /// The row of a key.
    fn request_row(&self, key: &DedupeKey) -> Result<Option<RequestRow>, Finding> {
        let key = Key::Request(key).encode();
        let row = self.snapshot.get(&self.requests, &key);
        let row = row.map_err(|error| unreadable(&error))?;
        row.map(|row| rows::to_request(&key, &row).ok_or_else(damaged))
            .transpose()
    }

    /// Where the request with this key begins, if the key still counts for a request of this time. One whose first event was dropped is forgotten.
    pub(crate) fn request(
        &self,
        key: &DedupeKey,
        time: Timestamp,
    ) -> Result<Option<Position>, Finding> {
        let row = self.request_row(key)?;
        match row.filter(|row| key_counts(row.time, time)) {
            Some(row) => self.believe(key, row),
            None => Ok(None),
        }
    }

    /// IMPORTANT: nobody is answered for an event that is not theirs, whatever became of the row.
    fn believe(&self, key: &DedupeKey, row: RequestRow) -> Result<Option<Position>, Finding> {
        let at = row.position;
        let block = self
            .block_at(at)?
            .filter(|block| at <= block.header().last())
            .ok_or_else(|| missing(at))?;
        match block.events_within(at..at.plus(1)).next() {
            Some(Ok(event)) if key_of(&event) == Some(*key) => Ok(Some(at)),
            Some(Ok(_)) => Err(format!(
                "the index of requests is wrong about position {at}"
            )),
            Some(Err(error)) => Err(error.to_string()),
            None if block.header().thinned.is_some() => Ok(None),
            None => Err(missing(at)),
        }
    }

    /// What the index says of the first event of a request that said who it is.
    pub(crate) fn indexed(&self, key: &DedupeKey, at: Position) -> Result<Indexed, Finding> {
        Ok(match self.request_row(key)?.map(|row| row.position) {
            Some(position) if position == at => Indexed::Named,
            Some(position) if position > at => Indexed::Replaced,
            Some(_) | None => Indexed::Missing,
        })
    }

    /// Number of rows.
    pub(crate) fn request_rows(&self) -> Result<u64, Finding> {
        let rows = self.snapshot.iter(&self.requests).map(|row| {
            let (key, row) = row.into_inner().map_err(|error| unreadable(&error))?;
            rows::to_request(&key, &row).ok_or_else(damaged)?;
            Ok(1)
        });
        rows.sum()
    }
}

/// What the index says of the first event of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Indexed {
    /// Its row names it.
    Named,
    /// Its row names a later one, that used the key when it had expired.
    Replaced,
    /// It has no row. That is as it should be only where it has expired.
    Missing,
}

/// The key that the index has a row for, if there is one.
pub(crate) fn key_of(event: &Event) -> Option<DedupeKey> {
    Some(event.event.idempotency?.key)
}

fn damaged() -> Finding {
    "a row of the index of requests is damaged".into()
}

/// The first events of requests that are in no row, met from either end of the log. They are missed unless they have expired.
#[derive(Debug, Default)]
pub(crate) struct Missed(Vec<(Timestamp, Position)>);

impl Missed {
    pub(crate) fn push(&mut self, time: Timestamp, at: Position) {
        self.0.push((time, at));
    }

    /// Forgets those that were expired when the log had an event of this time.
    pub(crate) fn expire(&mut self, later: Timestamp) {
        self.0.retain(|(time, _)| key_counts(*time, later));
    }

    /// Takes more.
    pub(crate) fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    /// Fails if one is missed.
    pub(crate) fn finish(&self) -> Result<(), Finding> {
        match self.0.first() {
            None => Ok(()),
            Some((_, at)) => Err(format!(
                "the index of requests does not name the one at position {at}"
            )),
        }
    }
}

/// Removes rows that have expired by the time of the log, which is that of its last event.
#[derive(Debug, Clone, Default)]
pub(crate) struct Expiry(Arc<AtomicU64>);

impl Expiry {
    /// IMPORTANT: only to the time of what is durable. A row must not go for an event that a crash undoes.
    pub(crate) fn set(&self, time: Timestamp) {
        self.0.store(time.0, Ordering::Relaxed);
    }

    fn has_expired(&self, row: RequestRow) -> bool {
        row.time.plus_seconds(KEPT_SECONDS) < Timestamp(self.0.load(Ordering::Relaxed))
    }
}

impl Factory for Expiry {
    fn name(&self) -> &str {
        "expired requests"
    }

    fn make_filter(&self, _: &Context) -> Box<dyn CompactionFilter> {
        Box::new(self.clone())
    }
}

impl CompactionFilter for Expiry {
    fn filter_item(&mut self, item: ItemAccessor<'_>, _: &Context) -> CompactionFilterResult {
        let row: Slice = item.value()?;
        let expired = rows::to_request(item.key(), &row).is_some_and(|row| self.has_expired(row));
        // An older row that comes to light with it has expired before it.
        Ok(if expired {
            Verdict::Destroy
        } else {
            Verdict::Keep
        })
    }
}
