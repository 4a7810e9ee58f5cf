//! How a stream passes from one generation to another: what is left of the one before, then the difference, then the new one.

use std::sync::Arc;

use hookpool_core::position::Position;
use hookpool_engine::{
    compare::{Comparison, Pair},
    follow::{FollowError, blocking},
    past::Known,
};
use hookpool_store::{EventLog, PoolStore};

use super::{BOOKMARK_EVERY, Phase, Session, checkpoint};
use crate::{
    changes::{selected::between, wire::Out},
    sse::{Facts, Frame},
};

impl<L: EventLog, P: PoolStore> Session<L, P> {
    /// From the generation that was followed to the one that is served now.
    pub(super) async fn go_over(&mut self) -> Result<(), FollowError> {
        let Phase::Live(follower) = &self.phase else {
            return Ok(());
        };
        self.go_over_after(follower.position()).await
    }

    pub(super) async fn go_over_after(&mut self, after: Position) -> Result<(), FollowError> {
        let pool = self.app.engine.pool();
        let to = self.served(&pool).await?;
        self.phase = if to.generation == self.ruled.generation {
            // What was followed may be known to be gone before that is in the pool.
            self.app.engine.wait_planned(BOOKMARK_EVERY).await;
            self.live(after)
        } else {
            // Who waits for its first frame waits for the end of this, too.
            self.says_at_rest = self.ask.says_at_rest;
            self.ready.push_back(Out::Frames(Vec::new()));
            let pool = self.lease(pool);
            Phase::Leaving { pool, to, after }
        };
        Ok(())
    }

    /// Begins with a snapshot of what is served, where there is no way on in what is being told as of a position.
    pub(super) async fn start_over(&mut self, at: Position) -> Result<(), FollowError> {
        let cursor = self.nowhere(at);
        let pool = self.app.engine.pool();
        self.ruled = self.served(&pool).await?;
        self.phase = self.reset("other-generation", &cursor.to_string(), pool);
        Ok(())
    }

    /// What is left of the generation before, page by page, then the frame that says that another is served.
    ///
    /// Until the difference is through, the id is one that nobody can resume from: a client that breaks off in it holds some of both, and
    /// gets a snapshot.
    pub(super) async fn leave(&mut self) -> Result<(), FollowError> {
        let Phase::Leaving { pool, to, after } = &self.phase else {
            return Ok(());
        };
        let (to, after) = (to.clone(), *after);
        let Some(pool) = pool.take() else {
            // The view was let go: another one, which may serve yet another generation.
            return self.go_over_after(after).await;
        };
        self.told = after;
        let (stream, generation) = (self.ask.stream.clone(), self.ruled.generation);
        let page = self
            .app
            .engine
            .told(Arc::clone(&pool), stream, generation, after);
        let told = match page.await? {
            // However often the follower wants to hear of it: it was to be told already.
            Some((mut told, through)) => {
                let through = through.min(self.until());
                told.retain(|told| told.event.position <= through);
                self.push_told(Arc::clone(&pool), after, told, through)
                    .await?
            }
            None => None,
        };
        let Some(through) = told else {
            let cursor = self.app.engine.cursor(generation, after).to_string();
            self.ruled = to;
            self.phase = self.reset("other-generation", &cursor, pool);
            return Ok(());
        };
        self.end_if_done(through);
        if matches!(self.phase, Phase::Ended) {
            return Ok(());
        }
        let at = checkpoint(&*pool);
        if through < at {
            if let Phase::Leaving {
                pool: lease, after, ..
            } = &mut self.phase
            {
                lease.put_back(pool);
                *after = through;
            }
            return Ok(());
        }
        let (number, version) = (to.generation, to.projection.version);
        let data = format!(r#"{{"generation":{number},"projection":{version},"position":{at}}}"#);
        self.push_lost("generation", at, data);
        let stream = self.ask.stream.clone();
        let comparison = Comparison::new(pool, stream, generation, number);
        self.phase = Phase::Crossing {
            comparison: self.lease(Box::new(comparison)),
            to,
            at,
        };
        Ok(())
    }

    /// Some of the difference, or its end.
    pub(super) async fn cross(&mut self) -> Result<(), FollowError> {
        let Phase::Crossing { comparison, at, .. } = &self.phase else {
            return Ok(());
        };
        let at = *at;
        let Some(mut reading) = comparison.take() else {
            // The view was let go, and no other shows the same difference.
            return self.start_over(at).await;
        };
        let read = move || reading.pairs().map(|pairs| (pairs, reading));
        let (pairs, reading) = blocking(read).await?;
        let Phase::Crossing { comparison, to, .. } = &self.phase else {
            return Ok(());
        };
        match pairs {
            Some(pairs) => {
                comparison.put_back(reading);
                self.push_differences(&pairs, at);
            }
            None => {
                self.ruled = to.clone();
                self.known = Known::default();
                self.bookmark(at);
                self.go_live(at);
            }
        }
        Ok(())
    }

    fn push_differences(&mut self, pairs: &[Pair], at: Position) {
        let facts = Facts {
            position: at,
            time: self.app.engine.now(),
            merged: None,
        };
        let (stream, wanted) = (&self.ask.stream, &self.ask.wanted);
        let named = pairs.iter().filter(|pair| wanted.names(&pair.id));
        let differences = named.filter_map(|Pair { id, old, new }| {
            between(stream, wanted, id, old.as_ref(), new.as_ref(), facts)
        });
        let frames = differences.map(|data| Frame {
            event: "change",
            cursor: None,
            data,
        });
        self.ready.push_back(Out::Frames(frames.collect()));
    }
}
