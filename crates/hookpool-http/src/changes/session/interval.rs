//! What happens in an interval, merged item by item.

use std::sync::Arc;

use hookpool_core::position::Position;
use hookpool_engine::follow::{FollowError, READ_HERE_BYTES_MAX, Step, Told, blocking_if};
use hookpool_store::{EventLog, PoolStore};
use tokio::time::{Instant, sleep_until};

use super::{Phase, Session, Status};
use crate::changes::selected::{Merging, stretch};

impl<L: EventLog, P: PoolStore> Session<L, P> {
    /// Merges events that follow the last ones with all others that are there when the interval ends: at once after a quiet one. Whoever is so
    /// far behind that there are more is told what there was time for.
    pub(super) async fn merge(
        &mut self,
        after: Position,
        mut told: Vec<Told>,
        until: Position,
    ) -> Result<(), FollowError> {
        let latest = self.due.max(Instant::now() + self.ask.conflate);
        let (mut merging, mut from) = (self.merging(), after);
        let is_cut = loop {
            let Phase::Live(follower) = &self.phase else {
                return Ok(());
            };
            let through = follower.position().min(until);
            told.retain(|told| told.event.position <= until);
            let projection = &self.ruled.projection;
            let stretch = stretch((from, through), told, projection, &self.ask.wanted)?;
            let folded = self.fold(self.app.engine.pool(), stretch, merging).await?;
            let Some((merged, reached)) = folded else {
                // The generation is not there any more. Of what is merged nothing was told.
                return self.go_over_after(after).await;
            };
            (merging, from) = (merged, reached);
            let is_cut = from < through;
            if from >= until || is_cut || Instant::now() >= latest {
                break is_cut;
            }
            let Some(more) = self.more_of_interval().await? else {
                break false;
            };
            if matches!(self.phase, Phase::Ended) {
                return Ok(());
            }
            told = more;
        };
        // The parts of what is too much for one interval do not wait.
        self.due = Instant::now();
        if !is_cut {
            self.due += self.ask.conflate;
        }
        self.push_merged(merging, after, from).await;
        self.go_on_after(from);
        Ok(())
    }

    /// Events that come next in the interval; `None` at its end. It may be that of the whole stream, too.
    async fn more_of_interval(&mut self) -> Result<Option<Vec<Told>>, FollowError> {
        loop {
            if self.must_end() {
                return Ok(Some(Vec::new()));
            }
            let Phase::Live(follower) = &mut self.phase else {
                return Ok(None);
            };
            match follower.try_next().await? {
                Some(Step::Told(more)) => return Ok(Some(more)),
                Some(Step::Passed) => return Ok(Some(Vec::new())),
                // Another generation is told of again by the next step.
                Some(Step::Encoded(..) | Step::Retired) => return Ok(None),
                None if Instant::now() >= self.due => return Ok(None),
                None => {}
            }
            tokio::select! {
                _ = self.status.wait_for(|status| *status != Status::Ready) => {}
                // It is looked at above.
                _ = self.registry.changed() => self.registry.mark_changed(),
                () = sleep_until(self.due) => {}
            }
        }
    }

    pub(super) fn merging(&self) -> Merging {
        Merging::new(Arc::clone(&self.ask.wanted))
    }

    /// Frames of what was merged of a stretch.
    pub(super) async fn push_merged(
        &mut self,
        merging: Merging,
        after: Position,
        through: Position,
    ) {
        let end = self.app.engine.cursor(self.ruled.generation, through);
        let stream = self.ask.stream.clone();
        let mut known = std::mem::take(&mut self.known);
        let long = merging.memory_bytes(&known) > READ_HERE_BYTES_MAX;
        let (frames, known) = blocking_if(long, move || {
            let frames = merging.frames(&known, &stream, end);
            known.forget_if_large();
            (frames, known)
        })
        .await;
        self.known = known;
        self.push_frames(frames, Some(through).filter(|through| *through > after));
    }
}
