//! Any log wrapped in seeded failures: slow, failing, failing for ever. The same seed and calls give the same failures.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hookpool_core::{
    codec::Block,
    event::{DedupeKey, Request},
    position::{Epoch, Position},
    time::Timestamp,
};
use thiserror::Error;

use crate::log::{
    AppendError, Appended, Cause, Dropped, EventLog, LogEnd, Page, PageRequest, ReadError,
};

/// Which failures happen and how often. "One in `n`" calls on average; 0 is never.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// Chooses when.
    pub seed: u64,
    /// Every call takes up to this long; a delay needs a tokio runtime with time.
    pub delay_max: Duration,
    /// One in this many appends and drops ends as [`AppendError::Unknown`], half of them after it was done.
    pub unknown_one_in: u64,
    /// One in this many appends and drops ends as [`AppendError::Final`], half of them after it was done, and so do all later ones.
    pub final_one_in: u64,
    /// One in this many reads of pages or blocks ends as [`ReadError::Backend`].
    pub read_one_in: u64,
}

/// A log that fails.
#[derive(Debug)]
pub struct FaultyLog<L> {
    inner: L,
    faults: Faults,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    random: SplitMix64,
    stopped: Option<Cause>,
}

/// What becomes of a call, besides taking its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Works,
    FailsBefore,
    FailsAfter,
}

#[derive(Debug, Clone, Copy, Error)]
#[error("an injected fault")]
struct Injected;

impl<L> FaultyLog<L> {
    /// Wraps a log.
    pub fn new(inner: L, faults: Faults) -> Self {
        let state = State {
            random: SplitMix64(faults.seed),
            stopped: None,
        };
        Self {
            inner,
            faults,
            state: Mutex::new(state),
        }
    }

    /// The log without failures.
    pub fn inner(&self) -> &L {
        &self.inner
    }

    /// The log without failures, for good.
    pub fn into_inner(self) -> L {
        self.inner
    }

    fn with_state<T>(&self, run: impl FnOnce(&mut State) -> T) -> T {
        run(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn delay(&self) {
        let max = u64::try_from(self.faults.delay_max.as_nanos()).unwrap_or(u64::MAX);
        if max > 0 {
            let nanos = self.with_state(|state| state.random.below(max));
            tokio::time::sleep(Duration::from_nanos(nanos)).await;
        }
    }

    async fn may_read(&self) -> Result<(), ReadError> {
        self.delay().await;
        match self.with_state(|state| state.random.fate(self.faults.read_one_in)) {
            Fate::Works => Ok(()),
            Fate::FailsBefore | Fate::FailsAfter => Err(ReadError::Backend(Arc::new(Injected))),
        }
    }

    fn stop(&self) -> AppendError {
        let cause: Cause = Arc::new(Injected);
        self.with_state(|state| state.stopped = Some(Arc::clone(&cause)));
        AppendError::Final(cause)
    }
}

impl<L: EventLog> FaultyLog<L> {
    /// Writes unless this fails first; which error there is, if any, was decided by the seed.
    async fn write<T>(
        &self,
        write: impl Future<Output = Result<T, AppendError>>,
    ) -> Result<T, AppendError> {
        self.delay().await;
        let (stopped, unknown, last) = self.with_state(|state| {
            let unknown = state.random.fate(self.faults.unknown_one_in);
            let last = state.random.fate(self.faults.final_one_in);
            (state.stopped.clone(), unknown, last)
        });
        if let Some(cause) = stopped {
            return Err(AppendError::Final(cause));
        }
        let fate = if last == Fate::Works { unknown } else { last };
        let written = match fate {
            Fate::Works => return write.await,
            Fate::FailsBefore => Ok(()),
            Fate::FailsAfter => write.await.map(drop),
        };
        written?;
        Err(if last == Fate::Works {
            AppendError::Unknown(Arc::new(Injected))
        } else {
            self.stop()
        })
    }
}

impl<L: EventLog> EventLog for FaultyLog<L> {
    async fn append(&self, batch: Vec<Request>) -> Result<Vec<Appended>, AppendError> {
        self.write(self.inner.append(batch)).await
    }

    async fn drop_events(&self, positions: Vec<Position>) -> Result<Dropped, AppendError> {
        self.write(self.inner.drop_events(positions)).await
    }

    async fn page(&self, request: PageRequest) -> Result<Page, ReadError> {
        self.may_read().await?;
        self.inner.page(request).await
    }

    async fn blocks(&self, after: Position, bytes_max: usize) -> Result<Vec<Block>, ReadError> {
        self.may_read().await?;
        self.inner.blocks(after, bytes_max).await
    }

    async fn find(&self, key: DedupeKey, time: Timestamp) -> Result<Option<Position>, ReadError> {
        self.may_read().await?;
        self.inner.find(key, time).await
    }

    fn head(&self) -> Position {
        self.inner.head()
    }

    fn end(&self) -> LogEnd {
        self.inner.end()
    }

    fn epoch(&self) -> Epoch {
        self.inner.epoch()
    }

    async fn wait(&self, past: Position) -> Position {
        self.inner.wait(past).await
    }
}

/// Sebastiano Vigna's splitmix64: enough to choose failures, and the same everywhere.
#[derive(Debug)]
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn fate(&mut self, one_in: u64) -> Fate {
        if one_in == 0 || self.below(one_in) != 0 {
            Fate::Works
        } else if self.next().is_multiple_of(2) {
            Fate::FailsBefore
        } else {
            Fate::FailsAfter
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{conformance::sample, memory::MemoryLog};

    async fn outcomes(faults: Faults, appends: u64) -> (Vec<&'static str>, Position) {
        let log = FaultyLog::new(MemoryLog::new(Epoch(1)), faults);
        let mut outcomes = Vec::new();
        for n in 0..appends {
            let batch = Request::each([sample::event("s", n, "{}")]);
            outcomes.push(match log.append(batch).await {
                Ok(_) => "ok",
                Err(AppendError::Unknown(_)) => "unknown",
                Err(AppendError::Final(_)) => "final",
            });
        }
        let head = log.into_inner().head();
        (outcomes, head)
    }

    #[tokio::test]
    async fn the_same_seed_gives_the_same_failures() {
        let faults = Faults {
            seed: 7,
            unknown_one_in: 3,
            final_one_in: 50,
            ..Faults::default()
        };
        assert_eq!(outcomes(faults, 100).await, outcomes(faults, 100).await);
        let other = Faults { seed: 8, ..faults };
        assert_ne!(outcomes(faults, 100).await, outcomes(other, 100).await);
    }

    #[tokio::test]
    async fn some_failed_appends_are_in_the_log_and_some_are_not() {
        let faults = Faults {
            seed: 1,
            unknown_one_in: 1,
            ..Faults::default()
        };
        let (outcomes, head) = outcomes(faults, 100).await;
        assert!(outcomes.iter().all(|outcome| *outcome == "unknown"));
        assert!((20..80).contains(&head.0), "{head}");
    }

    #[tokio::test]
    async fn after_a_final_failure_nothing_is_appended() {
        let faults = Faults {
            seed: 1,
            final_one_in: 10,
            ..Faults::default()
        };
        let (outcomes, head) = outcomes(faults, 1_000).await;
        let worked = outcomes.iter().filter(|outcome| **outcome == "ok").count();
        let failed = outcomes.iter().skip(worked);
        assert!(failed.clone().count() > 0 && failed.clone().all(|outcome| *outcome == "final"));
        assert!((worked as u64..=worked as u64 + 1).contains(&head.0));
    }

    #[tokio::test]
    async fn drops_fail_as_appends_do() {
        let faults = Faults {
            seed: 1,
            unknown_one_in: 2,
            final_one_in: 60,
            ..Faults::default()
        };
        let log = FaultyLog::new(MemoryLog::new(Epoch(1)), faults);
        let events = Request::each((0..100).map(|n| sample::event("s", n, "{}")));
        log.inner().append(events).await.unwrap();
        let (mut dropped, mut unknown, mut last) = (0, 0, 0);
        for n in 1..=100 {
            match log.drop_events(vec![Position(n)]).await {
                Ok(one) => dropped += one.events,
                Err(AppendError::Unknown(_)) => unknown += 1,
                Err(AppendError::Final(_)) => last += 1,
            }
        }
        assert!(dropped > 0 && unknown > 0 && last > 0);
        let left = log.inner().page(PageRequest::after(Position::ZERO)).await;
        let gone = 100 - left.unwrap().events.len() as u64;
        assert!(gone > dropped && gone < dropped + unknown + last, "{gone}");
        let appended = log
            .append(Request::each([sample::event("s", 101, "{}")]))
            .await;
        assert!(matches!(appended, Err(AppendError::Final(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn calls_are_delayed_and_reads_fail() {
        let faults = Faults {
            seed: 1,
            delay_max: Duration::from_secs(60),
            read_one_in: 2,
            ..Faults::default()
        };
        let log = FaultyLog::new(MemoryLog::new(Epoch(1)), faults);
        let before = tokio::time::Instant::now();
        let mut failed = 0;
        for _ in 0..100 {
            let page = log.page(PageRequest::after(Position::ZERO)).await;
            failed += usize::from(page.is_err());
        }
        assert!((20..80).contains(&failed), "{failed}");
        assert!(before.elapsed() > Duration::from_secs(600));
    }
}
