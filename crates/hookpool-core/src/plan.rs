//! What is to be materialised of a stream, and by which rules: a fold of the control log.

use std::sync::Arc;

use thiserror::Error;

use crate::{
    difference::Counts,
    position::{Generation, Position},
    projection::{Projection, Rules, RulesError},
    retention::{Floor, Retention},
    time::Timestamp,
};

/// A generation and the rules it follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruled {
    /// Which.
    pub generation: Generation,
    /// By what.
    pub projection: Arc<Projection>,
}

/// A rebuild that is neither promoted nor cancelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebuild {
    /// What it makes.
    pub made: Ruled,
    /// When it was started.
    pub started_at: Timestamp,
    /// Whether it rests.
    pub paused: bool,
    /// How fast it may be.
    pub events_per_second: Option<u32>,
}

/// How a rebuild ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Its generation was served from then on.
    Promoted,
    /// Its generation was thrown away.
    Cancelled,
}

/// A rebuild that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// What it made.
    pub generation: Generation,
    /// Version of its projection.
    pub projection: u32,
    /// How.
    pub outcome: Outcome,
    /// When it was started.
    pub started_at: Timestamp,
    /// When it ended.
    pub at: Timestamp,
    /// Digest and counts of the difference that was promoted, if they were recorded.
    pub promoted: Option<(String, Counts)>,
}

/// Why a change does not fit a plan.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PlanError {
    /// One rebuild at a time.
    #[error("start a rebuild: generation {0} is being rebuilt; promote or cancel it first")]
    Running(Generation),
    /// Nothing of that number is being rebuilt.
    #[error("find the rebuild: generation {0} is not being rebuilt")]
    NotRunning(Generation),
    /// There is nothing to go back to.
    #[error("go back: the generation before this one was released, or there was none")]
    NoPrevious,
    /// There is no projection of this version.
    #[error("find projection {0}: the stream has no such version")]
    NoProjection(u32),
    /// The rules contradict themselves.
    #[error("take the rules: {0}")]
    Rules(#[from] RulesError),
    /// What was dropped does not come back.
    #[error("drop history: all up to {0} is dropped already")]
    Dropped(Position),
}

/// What is to be materialised of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What readers see.
    pub live: Ruled,
    /// What is being made to take its place.
    pub next: Option<Rebuild>,
    /// What was live before, kept up to date so that one call goes back to it.
    pub previous: Option<Ruled>,
    /// Oldest first.
    pub ended: Vec<Ended>,
    /// How much history is kept.
    pub retention: Retention,
    /// Where the history that can be read begins; `None` if nothing was ever dropped.
    pub floor: Option<Floor>,
    /// Version n at n - 1.
    projections: Vec<Arc<Projection>>,
    last: Generation,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            live: Ruled {
                generation: Generation::FIRST,
                projection: Arc::default(),
            },
            next: None,
            previous: None,
            ended: Vec::new(),
            retention: Retention::default(),
            floor: None,
            projections: Vec::new(),
            last: Generation::FIRST,
        }
    }
}

impl Plan {
    /// The newest projection, whether or not it is live; version 0 before the first.
    #[must_use]
    pub fn newest(&self) -> Arc<Projection> {
        self.projections.last().cloned().unwrap_or_default()
    }

    /// The projection of a version.
    #[must_use]
    pub fn projection(&self, version: u32) -> Option<Arc<Projection>> {
        match version.checked_sub(1) {
            None => Some(Arc::default()),
            Some(index) => self.projections.get(usize::try_from(index).ok()?).cloned(),
        }
    }

    /// The number of the next generation.
    #[must_use]
    pub fn next_generation(&self) -> Generation {
        Generation(self.last.0 + 1)
    }

    /// The last expired event: the earliest moment that can be read.
    #[must_use]
    pub fn earliest(&self) -> Position {
        self.floor.map_or(Position::ZERO, |floor| floor.position)
    }

    /// Every generation that is to be there.
    pub fn generations(&self) -> impl Iterator<Item = &Ruled> {
        let next = self.next.iter().map(|rebuild| &rebuild.made);
        std::iter::once(&self.live)
            .chain(next)
            .chain(&self.previous)
    }

    /// The rules of a generation that is to be there.
    #[must_use]
    pub fn ruled(&self, generation: Generation) -> Option<&Ruled> {
        self.generations()
            .find(|ruled| ruled.generation == generation)
    }

    pub(crate) fn set_projection(&mut self, rules: Rules) -> Result<(), PlanError> {
        let version = self.newest().version + 1;
        self.projections
            .push(Arc::new(Projection::new(version, rules)?));
        Ok(())
    }

    pub(crate) fn start(
        &mut self,
        generation: Generation,
        version: u32,
        events_per_second: Option<u32>,
        at: Timestamp,
    ) -> Result<(), PlanError> {
        if let Some(running) = &self.next {
            return Err(PlanError::Running(running.made.generation));
        }
        if generation != self.next_generation() {
            return Err(PlanError::Running(self.last));
        }
        let projection = self
            .projection(version)
            .ok_or(PlanError::NoProjection(version))?;
        self.last = generation;
        self.next = Some(Rebuild {
            made: Ruled {
                generation,
                projection,
            },
            started_at: at,
            paused: false,
            events_per_second,
        });
        Ok(())
    }

    pub(crate) fn pause(&mut self, generation: Generation, paused: bool) -> Result<(), PlanError> {
        match &mut self.next {
            Some(rebuild) if rebuild.made.generation == generation => {
                rebuild.paused = paused;
                Ok(())
            }
            _ => Err(PlanError::NotRunning(generation)),
        }
    }

    pub(crate) fn cancel(
        &mut self,
        generation: Generation,
        at: Timestamp,
    ) -> Result<(), PlanError> {
        self.end(generation, Outcome::Cancelled, None, at).map(drop)
    }

    /// The rebuilt generation becomes live; what was live is kept, and what was kept before it is not.
    pub(crate) fn promote(
        &mut self,
        generation: Generation,
        difference: Option<(String, Counts)>,
        at: Timestamp,
    ) -> Result<(), PlanError> {
        let made = self.end(generation, Outcome::Promoted, difference, at)?;
        self.previous = Some(std::mem::replace(&mut self.live, made));
        Ok(())
    }

    /// Live and previous change places.
    pub(crate) fn roll_back(&mut self) -> Result<(), PlanError> {
        let previous = self.previous.as_mut().ok_or(PlanError::NoPrevious)?;
        std::mem::swap(&mut self.live, previous);
        Ok(())
    }

    pub(crate) fn release(&mut self) -> Result<(), PlanError> {
        self.previous.take().map(drop).ok_or(PlanError::NoPrevious)
    }

    pub(crate) fn raise_floor(
        &mut self,
        position: Position,
        time: Timestamp,
    ) -> Result<(), PlanError> {
        if position <= self.earliest() {
            return Err(PlanError::Dropped(self.earliest()));
        }
        self.floor = Some(Floor { position, time });
        Ok(())
    }

    fn end(
        &mut self,
        generation: Generation,
        outcome: Outcome,
        promoted: Option<(String, Counts)>,
        at: Timestamp,
    ) -> Result<Ruled, PlanError> {
        let running = |rebuild: &mut Rebuild| rebuild.made.generation == generation;
        let rebuild = self
            .next
            .take_if(running)
            .ok_or(PlanError::NotRunning(generation))?;
        self.ended.push(Ended {
            generation,
            projection: rebuild.made.projection.version,
            outcome,
            started_at: rebuild.started_at,
            at,
            promoted,
        });
        Ok(rebuild.made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Timestamp = Timestamp(1);

    fn numbers(plan: &Plan) -> (u32, Option<u32>, Option<u32>) {
        let next = plan.next.as_ref().map(|next| next.made.generation.0);
        let previous = plan.previous.as_ref().map(|previous| previous.generation.0);
        (plan.live.generation.0, next, previous)
    }

    #[test]
    fn a_rebuild_is_promoted_rolled_back_and_released() {
        let mut plan = Plan::default();
        plan.set_projection(Rules::default()).unwrap();
        plan.start(Generation(2), 1, None, AT).unwrap();
        assert_eq!(numbers(&plan), (1, Some(2), None));
        assert_eq!(
            plan.start(Generation(3), 1, None, AT),
            Err(PlanError::Running(Generation(2)))
        );
        plan.promote(Generation(2), None, AT).unwrap();
        assert_eq!(
            (numbers(&plan), plan.live.projection.version),
            ((2, None, Some(1)), 1)
        );
        plan.roll_back().unwrap();
        assert_eq!(
            (numbers(&plan), plan.live.projection.version),
            ((1, None, Some(2)), 0)
        );
        plan.roll_back().unwrap();
        plan.release().unwrap();
        assert_eq!(plan.roll_back(), Err(PlanError::NoPrevious));
        assert_eq!(plan.next_generation(), Generation(3));
    }

    #[test]
    fn the_floor_only_rises() {
        let mut plan = Plan::default();
        assert_eq!(plan.earliest(), Position::ZERO);
        plan.raise_floor(Position(7), AT).unwrap();
        for not_higher in [0, 6, 7] {
            assert_eq!(
                plan.raise_floor(Position(not_higher), AT),
                Err(PlanError::Dropped(Position(7)))
            );
        }
        plan.raise_floor(Position(8), AT).unwrap();
        assert_eq!(plan.earliest(), Position(8));
    }

    #[test]
    fn a_cancelled_generation_is_never_used_again() {
        let mut plan = Plan::default();
        plan.start(Generation(2), 0, None, AT).unwrap();
        plan.cancel(Generation(2), AT).unwrap();
        assert_eq!(
            plan.cancel(Generation(2), AT),
            Err(PlanError::NotRunning(Generation(2)))
        );
        assert_eq!(
            plan.promote(Generation(2), None, AT),
            Err(PlanError::NotRunning(Generation(2)))
        );
        assert_eq!(plan.next_generation(), Generation(3));
        assert_eq!(
            plan.start(Generation(3), 1, None, AT),
            Err(PlanError::NoProjection(1))
        );
    }
}
