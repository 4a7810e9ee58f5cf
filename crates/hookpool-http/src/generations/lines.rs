//! The difference of a rebuild as lines of JSON, read as they are sent.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, stream};
use hookpool_core::{difference::Difference, key::KeyId};
use hookpool_engine::{
    compare::{Comparison, Pair},
    follow::blocking,
};
use hookpool_store::{EventLog, PoolError, PoolStore};
use thiserror::Error;

use crate::{
    app::App,
    lease::Lease,
    render::{Nested, push_difference},
};

/// Why a difference is broken off.
#[derive(Debug, Error)]
pub(super) enum BrokenOff {
    #[error("the difference was read too slowly")]
    Slow,
    #[error("the operator key is revoked")]
    Revoked,
    #[error("the server stops")]
    Stopping,
    #[error(transparent)]
    Pool(#[from] PoolError),
}

/// So many lines at most. Two generations differ at one checkpoint, so its view is held, but not for long while nobody reads.
pub(super) fn lines<L: EventLog, P: PoolStore>(
    app: Arc<App<L, P>>,
    author: KeyId,
    comparison: Comparison<P::Snapshot>,
    limit: u64,
) -> impl Stream<Item = Result<Bytes, BrokenOff>> {
    let left = Left {
        comparison: app.lease(comparison),
        app,
        author,
        lines: limit,
    };
    stream::try_unfold(left, Left::next)
}

/// What is still to be sent.
struct Left<L, P: PoolStore> {
    app: Arc<App<L, P>>,
    author: KeyId,
    comparison: Lease<Comparison<P::Snapshot>>,
    lines: u64,
}

impl<L: EventLog, P: PoolStore> Left<L, P> {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, BrokenOff> {
        let mut comparison = self.comparison.take().ok_or(BrokenOff::Slow)?;
        while self.lines > 0 {
            if !self.app.engine.status().is_ready() {
                return Err(BrokenOff::Stopping);
            }
            if !self.app.may_operate(&self.author) {
                return Err(BrokenOff::Revoked);
            }
            let read = move || comparison.pairs().map(|pairs| (pairs, comparison));
            let (pairs, rest) = blocking(read).await?;
            comparison = rest;
            let Some(pairs) = pairs else {
                return Ok(None);
            };
            let lines = self.take(&pairs);
            if !lines.is_empty() {
                self.comparison = self.app.lease(comparison);
                return Ok(Some((lines.into(), self)));
            }
        }
        Ok(None)
    }

    fn take(&mut self, pairs: &[Pair]) -> String {
        let mut lines = String::new();
        for pair in pairs {
            let difference = Difference::between(pair.old.as_ref(), pair.new.as_ref());
            if let Some(difference) = difference.filter(|_| self.lines > 0) {
                push_difference(&mut lines, pair.id.as_str(), &difference, Nested::AsString);
                lines.push('\n');
                self.lines -= 1;
            }
        }
        lines
    }
}
