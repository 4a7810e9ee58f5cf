//! The difference of a rebuild as lines of JSON, read as they are sent.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, stream};
use hookpool_core::difference::Difference;
use hookpool_engine::{
    compare::{Comparison, Pair},
    follow::blocking,
};
use hookpool_store::{EventLog, PoolError, PoolStore};

use crate::{
    app::App,
    render::{Nested, push_difference},
};

/// So many lines at most.
pub(super) fn lines<L: EventLog, P: PoolStore>(
    app: Arc<App<L, P>>,
    comparison: Comparison<P::Snapshot>,
    limit: u64,
) -> impl Stream<Item = Result<Bytes, PoolError>> {
    let left = Left {
        app,
        comparison,
        lines: limit,
    };
    stream::try_unfold(left, Left::next)
}

/// What is still to be sent.
struct Left<L, P: PoolStore> {
    app: Arc<App<L, P>>,
    comparison: Comparison<P::Snapshot>,
    lines: u64,
}

impl<L: EventLog, P: PoolStore> Left<L, P> {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, PoolError> {
        while self.lines > 0 && self.app.engine.status().is_ready() {
            let (pairs, comparison) = {
                let mut comparison = self.comparison;
                blocking(move || comparison.pairs().map(|pairs| (pairs, comparison))).await?
            };
            self.comparison = comparison;
            let Some(pairs) = pairs else {
                return Ok(None);
            };
            let lines = self.take(&pairs);
            if !lines.is_empty() {
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
