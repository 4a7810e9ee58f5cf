//! What is there of an interval, merged item by item.

use hookpool_core::position::Position;
use hookpool_engine::follow::{FollowError, Step, Told};
use hookpool_store::{EventLog, PoolStore};
use tokio::time::Instant;

use super::{Phase, Session};
use crate::changes::selected::{Known, Merging, Window};

impl<L: EventLog, P: PoolStore> Session<L, P> {
    /// Merges events that follow the last ones with all others that are there, for an interval at most: whoever is far behind moves on in each.
    /// Up to where they were told; `None` if the generation is not there any more.
    pub(super) async fn merge(
        &mut self,
        after: Position,
        mut told: Vec<Told>,
        until: Position,
    ) -> Result<Option<Position>, FollowError> {
        self.due = Instant::now() + self.ask.conflate;
        let (mut merging, mut from) = (Merging::default(), after);
        loop {
            let Phase::Live(follower) = &self.phase else {
                return Ok(None);
            };
            let through = follower.position().min(until);
            told.retain(|told| told.event.position <= until);
            let projection = &self.ruled.projection;
            let window = Window::new(from, told, projection, &self.ask.wanted)?;
            let Some(touched) = self.touches(self.app.engine.pool(), window).await? else {
                // Of what is merged nothing was told.
                self.known = Known::default();
                return Ok(None);
            };
            merging.add(touched);
            from = through;
            if merging.is_full() {
                // Told in parts, and the next one need not wait.
                self.due = Instant::now();
            }
            if through >= until || Instant::now() >= self.due {
                break;
            }
            let Phase::Live(follower) = &mut self.phase else {
                return Ok(None);
            };
            told = match follower.try_next().await? {
                Some(Step::Told(more)) => more,
                Some(Step::Passed) => Vec::new(),
                // Another generation is told of again by the next step.
                Some(Step::Encoded(..) | Step::Retired) | None => break,
            };
        }
        self.push_merged(merging, after, from);
        Ok(Some(from))
    }

    /// Frames of what was merged of a stretch.
    pub(super) fn push_merged(&mut self, merging: Merging, after: Position, through: Position) {
        let end = self.app.engine.cursor(self.ruled.generation, through);
        let frames = merging.frames(&self.ask.stream, &self.ask.wanted, end);
        self.known.trim();
        self.push_frames(frames, Some(through).filter(|through| *through > after));
    }
}
