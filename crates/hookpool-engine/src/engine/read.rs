//! What readers and followers ask: views of the pool, pages of the log, how far both are.

use std::{sync::Arc, time::Duration};

use hookpool_core::{
    cursor::Cursor,
    name::StreamName,
    plan::Ruled,
    position::{Generation, Position},
    time::Timestamp,
};
use hookpool_store::{EventLog, Page, PageRequest, PoolError, PoolSnapshot, PoolStore, ReadError};

use super::Engine;
use crate::{
    follow::{FollowError, Follower, Form, Told, must_reach, read_page, told},
    past::position_at,
};

impl<L: EventLog, P: PoolStore> Engine<L, P> {
    /// The pool at its last checkpoint.
    #[must_use]
    pub fn pool(&self) -> Arc<P::Snapshot> {
        self.pool.snapshot()
    }

    /// A page of the log.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn log_page(&self, request: PageRequest) -> Result<Page, ReadError> {
        read_page(&self.log, request).await
    }

    /// The last durable position.
    #[must_use]
    pub fn head(&self) -> Position {
        self.log.head()
    }

    /// The last position that is in the pool.
    #[must_use]
    pub fn applied(&self) -> Position {
        *self.applied.borrow()
    }

    /// Waits until a position is in the pool, at most for `patience`; whether it is.
    pub async fn wait_applied(&self, position: Position, patience: Duration) -> bool {
        let mut applied = self.applied.clone();
        let reached = applied.wait_for(|applied| *applied >= position);
        tokio::time::timeout(patience, reached)
            .await
            .is_ok_and(|reached| reached.is_ok())
    }

    /// The cursor of a position in a generation of a stream of this log.
    #[must_use]
    pub fn cursor(&self, generation: Generation, position: Position) -> Cursor {
        Cursor {
            epoch: self.log.epoch(),
            generation,
            position,
        }
    }

    /// What of a stream is served in a view of the pool, and its rules.
    ///
    /// # Errors
    /// [`PoolError`]
    pub fn served(&self, pool: &P::Snapshot, stream: &StreamName) -> Result<Ruled, PoolError> {
        let plan = self.control.registry().plan(stream.as_str());
        let served = pool.served(stream)?;
        // A generation that was promoted a moment ago may still be served for a moment as the next one or the previous one.
        let ruled = served.and_then(|served| plan.ruled(served));
        Ok(ruled.unwrap_or(&plan.live).clone())
    }

    /// Follows a generation of a stream after a position.
    #[must_use]
    pub fn follow(
        &self,
        stream: StreamName,
        ruled: Ruled,
        form: Form,
        after: Position,
    ) -> Follower<L, P> {
        Follower::new(
            (
                Arc::clone(&self.log),
                Arc::clone(&self.pool),
                Arc::clone(&self.control),
            ),
            &self.rings,
            stream,
            ruled,
            form,
            after,
        )
    }

    /// Some events of a stream after a position, with what became of them in a generation, no further than a view of the pool is; and up
    /// to where that is all. `None` if the view does not have the generation.
    ///
    /// # Errors
    /// [`FollowError`]
    pub async fn told(
        &self,
        pool: Arc<P::Snapshot>,
        stream: StreamName,
        generation: Generation,
        after: Position,
    ) -> Result<Option<(Vec<Told>, Position)>, FollowError> {
        let page = told(&self.log, pool, stream.clone(), generation, after).await;
        self.must_reach(&stream, after)?;
        page
    }

    /// A page of a stream; without `after`, from the earliest event that is kept.
    ///
    /// # Errors
    /// [`FollowError`]
    pub async fn stream_page(
        &self,
        stream: &StreamName,
        after: Option<Position>,
        request: impl Fn(PageRequest) -> PageRequest,
    ) -> Result<Page, FollowError> {
        loop {
            let from = after.unwrap_or_else(|| self.earliest(stream));
            let page = request(PageRequest::of_stream(stream.clone(), from));
            let page = self.log_page(page).await;
            match self.must_reach(stream, from) {
                Ok(()) => return Ok(page?),
                Err(FollowError::BeforeRetention(_)) if after.is_none() => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The earliest moment of a stream that can be read: its last expired event.
    #[must_use]
    pub fn earliest(&self, stream: &StreamName) -> Position {
        self.control.registry().plan(stream.as_str()).earliest()
    }

    /// That all of a stream after a position can be read.
    ///
    /// # Errors
    /// [`FollowError::BeforeRetention`]
    pub fn must_reach(&self, stream: &StreamName, after: Position) -> Result<(), FollowError> {
        must_reach(&self.control, stream, after)
    }

    /// The position of the last event before the first one that is later than a time; the log's times are those of the server's clock, and
    /// where that was set back, the earlier events decide. What was dropped at the floor of the stream still counts there.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn position_at(
        &self,
        stream: &StreamName,
        time: Timestamp,
    ) -> Result<Position, ReadError> {
        let position = position_at(&self.log, time).await?;
        let floor = self.control.registry().plan(stream.as_str()).floor;
        let floor = floor.filter(|floor| floor.time <= time);
        Ok(floor.map_or(position, |floor| floor.position.max(position)))
    }
}
