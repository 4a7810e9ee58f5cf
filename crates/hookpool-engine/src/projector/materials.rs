//! The generations that follow the checkpoint, by stream, and what they differ by while one waits to be promoted.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use hookpool_core::{
    difference::{Difference, DifferenceSum},
    event::Event,
    fold::Note,
    json::Fields,
    name::{ItemId, StreamName},
    plan::{Plan, Ruled},
    position::{Generation, Position},
    registry::Registry,
};
use hookpool_store::{DifferenceState, GenerationChanges, PoolChanges, PoolError, PoolSnapshot};
use thiserror::Error;

use crate::{follow::Frames, material::Material, retention::Trim};

pub(super) struct Materials {
    /// The plans that are followed: those of the last [`Materials::replan`], so that none comes into force in the middle of something.
    registry: Arc<Registry>,
    streams: BTreeMap<StreamName, OfStream>,
    /// Streams with events since the last commit.
    touched: Vec<StreamName>,
}

/// Memory of what is in hand from which on it is committed and let go.
const HELD_BYTES: usize = 144 << 20;
/// Streams in hand after which all are let go.
const STREAMS_MAX: usize = 1_024;

/// A generation that should be in the pool is not, or only in part.
#[derive(Debug, Clone, Copy, Error)]
#[error("generation {0} is not there as a whole")]
struct Missing(Generation);

/// The generations of one stream.
struct OfStream {
    plan: Arc<Plan>,
    live: Material,
    /// The one before it, and the one that waits to be promoted.
    others: Vec<Material>,
    /// Items of this page whose difference was taken off the sum.
    taken_off: BTreeSet<ItemId>,
    /// Whether the stream is new in the pool.
    unserved: bool,
    touched: bool,
}

impl Materials {
    pub(super) fn new(registry: Arc<Registry>) -> Self {
        Self {
            registry,
            streams: BTreeMap::new(),
            touched: Vec::new(),
        }
    }

    /// Takes the next event into every generation of its stream; frames are made of what became of it in the one that is served.
    pub(super) fn fold(
        &mut self,
        pool: &impl PoolSnapshot,
        event: &Event,
        fields: Fields<'_>,
        frames: &mut Frames<'_>,
    ) -> Result<(), PoolError> {
        let stream = self.stream(pool, &event.event.stream)?;
        let first = !std::mem::replace(&mut stream.touched, true);
        stream.fold(pool, event, fields, frames)?;
        if first {
            self.touched.push(event.event.stream.clone());
        }
        Ok(())
    }

    /// All that is to be committed.
    pub(super) fn changes(&mut self, pool: &impl PoolSnapshot) -> Result<PoolChanges, PoolError> {
        let mut changes = PoolChanges::default();
        for name in self.touched.drain(..) {
            let Some(stream) = self.streams.get_mut(&name) else {
                continue;
            };
            stream.touched = false;
            stream.add_again(pool)?;
            let all = std::iter::once(&mut stream.live).chain(&mut stream.others);
            changes.generations.extend(all.map(Material::changes));
            if std::mem::take(&mut stream.unserved) {
                changes.served.push((name, stream.plan.live.generation));
            }
        }
        if self.is_full() {
            self.streams.clear();
        }
        Ok(changes)
    }

    /// Whether so much is in hand that it should be committed.
    pub(super) fn is_full(&self) -> bool {
        let held: usize = self.streams.values().map(OfStream::held_bytes).sum();
        held > HELD_BYTES || self.streams.len() > STREAMS_MAX
    }

    /// Follows the plans that changed: what is served from now on, generations whose difference was to something else, and those that are
    /// followed no more.
    pub(super) fn replan(
        &mut self,
        pool: &impl PoolSnapshot,
        registry: Arc<Registry>,
    ) -> Result<PoolChanges, PoolError> {
        // What is in hand is committed: it is read again under the new plan when it is needed.
        self.streams
            .retain(|name, stream| stream.plan == registry.plan(name.as_str()));
        let mut changes = PoolChanges::default();
        for (name, was) in pool.streams()? {
            let plan = registry.plan(name.as_str());
            let live = plan.live.generation;
            if was == live || !has_attached(pool, &name, live)? {
                continue;
            }
            // Only of a generation that is ours: one that is being built is written by its job.
            if let Some(next) = plan.next.as_ref().map(|next| next.made.generation)
                && has_attached(pool, &name, next)?
                && let Some(mut state) = pool.generation(&name, next)?
            {
                state.difference = None;
                let changed = GenerationChanges::empty(&name, next, state);
                changes.generations.push(changed);
            }
            changes.served.push((name, live));
        }
        changes.generations.extend(left_behind(pool, &registry)?);
        self.registry = registry;
        Ok(changes)
    }

    /// The plan of a stream that is followed.
    pub(super) fn planned(&self, stream: &StreamName) -> Arc<Plan> {
        self.registry.plan(stream.as_str())
    }

    /// What is going to be served of planned streams that the pool has nothing of yet.
    pub(super) fn awaited(
        &self,
        pool: &impl PoolSnapshot,
    ) -> Result<Vec<(StreamName, Generation)>, PoolError> {
        let mut awaited = Vec::new();
        for (name, plan) in self.registry.plans() {
            if pool.served(name)?.is_none() {
                awaited.push((name.clone(), plan.live.generation));
            }
        }
        Ok(awaited)
    }

    /// Takes in hand a generation that was built elsewhere; answers up to where the log is in it. `None` if it is not planned any more.
    pub(super) fn attach(
        &mut self,
        pool: &impl PoolSnapshot,
        name: &StreamName,
        generation: Generation,
    ) -> Result<Option<Position>, PoolError> {
        let plan = self.registry.plan(name.as_str());
        let Some(rebuild) = plan
            .next
            .as_ref()
            .filter(|next| next.made.generation == generation)
        else {
            return Ok(None);
        };
        let made = Material::open(pool, name, &rebuild.made)?;
        let checkpoint = pool.checkpoint().map_or(Position::ZERO, |at| at.position);
        let at = made.state.built.unwrap_or(checkpoint);
        let stream = self.stream(pool, name)?;
        stream
            .others
            .retain(|other| other.ruled().generation != generation);
        stream.others.push(made);
        Ok(Some(at))
    }

    /// Takes an event that is in the other generations already.
    pub(super) fn catch_up(
        &mut self,
        pool: &impl PoolSnapshot,
        event: &Event,
        fields: Fields<'_>,
        generation: Generation,
    ) -> Result<(), PoolError> {
        match self.other(&event.event.stream, generation) {
            Some(material) => apply(material, pool, event, fields).map(drop),
            None => Ok(()),
        }
    }

    /// From now on it follows the checkpoint, and its difference is kept from zero on.
    pub(super) fn attached(
        &mut self,
        name: &StreamName,
        generation: Generation,
    ) -> Option<PoolChanges> {
        let material = self.other(name, generation)?;
        material.state.built = None;
        material.state.difference = Some(DifferenceState::default());
        Some(of(material))
    }

    /// Adds the differences there were to a generation when this one was attached, if that is still the one that is served.
    pub(super) fn compared(
        &mut self,
        name: &StreamName,
        generation: Generation,
        to: Generation,
        sum: &DifferenceSum,
    ) -> Option<PoolChanges> {
        if self.streams.get(name)?.plan.live.generation != to {
            return None;
        }
        let material = self.other(name, generation)?;
        let difference = material.state.difference.as_mut()?;
        difference.sum.merge(sum);
        difference.whole = true;
        Some(of(material))
    }

    /// Lets go of history of the generation that is served, if it is this one.
    pub(super) fn trimmed(
        &mut self,
        pool: &impl PoolSnapshot,
        name: &StreamName,
        generation: Generation,
        trim: Trim,
    ) -> Result<Option<PoolChanges>, PoolError> {
        let live = &mut self.stream(pool, name)?.live;
        Ok(
            (live.ruled().generation == generation).then(|| PoolChanges {
                generations: vec![live.trimmed(trim)],
                ..PoolChanges::default()
            }),
        )
    }

    /// Takes in hand what follows the checkpoint of a stream, whether or not an event came since its plan changed.
    pub(super) fn take_up(
        &mut self,
        pool: &impl PoolSnapshot,
        name: &StreamName,
    ) -> Result<(), PoolError> {
        self.stream(pool, name).map(drop)
    }

    /// A difference that is whole, of a stream in hand.
    pub(super) fn difference(
        &mut self,
        name: &StreamName,
        generation: Generation,
    ) -> Option<DifferenceSum> {
        let difference = self.other(name, generation)?.state.difference?;
        difference.whole.then_some(difference.sum)
    }

    fn other(&mut self, name: &StreamName, generation: Generation) -> Option<&mut Material> {
        let others = &mut self.streams.get_mut(name)?.others;
        others
            .iter_mut()
            .find(|other| other.ruled().generation == generation)
    }

    fn stream(
        &mut self,
        pool: &impl PoolSnapshot,
        name: &StreamName,
    ) -> Result<&mut OfStream, PoolError> {
        // Names are shared text, so the look-up is what costs; a busy stream is found at once.
        if !self.streams.contains_key(name) {
            let plan = self.registry.plan(name.as_str());
            let stream = OfStream::open(pool, name, plan)?;
            self.streams.insert(name.clone(), stream);
        }
        Ok(self.streams.get_mut(name).expect("it was just inserted"))
    }
}

/// That of each stream in the pool everything follows the checkpoint that is served or could be gone back to. It does not in a pool from before
/// a promotion: whoever folded on in what was built until then would leave out what came between.
pub(crate) fn must_be_of(registry: &Registry, pool: &impl PoolSnapshot) -> Result<(), PoolError> {
    for (name, _) in pool.streams()? {
        let plan = registry.plan(name.as_str());
        for ruled in std::iter::once(&plan.live).chain(&plan.previous) {
            must_follow(pool, &name, ruled.generation)?;
        }
    }
    Ok(())
}

fn must_follow(
    pool: &impl PoolSnapshot,
    name: &StreamName,
    generation: Generation,
) -> Result<(), PoolError> {
    if has_attached(pool, name, generation)? {
        Ok(())
    } else {
        Err(PoolError::Damaged(Arc::new(Missing(generation))))
    }
}

/// Generations that no plan names any more and that follow the checkpoint no longer from here on.
///
/// IMPORTANT: with the plan, and not when their rows are removed, which may be much later: a reader would take what such a generation was
/// for what it is at a later checkpoint.
fn left_behind(
    pool: &impl PoolSnapshot,
    registry: &Registry,
) -> Result<Vec<GenerationChanges>, PoolError> {
    let checkpoint = pool.checkpoint().map_or(Position::ZERO, |at| at.position);
    let mut changes = Vec::new();
    for (name, generation) in pool.generations()? {
        if registry.plan(name.as_str()).ruled(generation).is_some() {
            continue;
        }
        if let Some(mut state) = pool.generation(&name, generation)?
            && state.built.is_none()
        {
            state.built = Some(checkpoint);
            changes.push(GenerationChanges::empty(&name, generation, state));
        }
    }
    Ok(changes)
}

/// Whether a generation is in the pool and follows the checkpoint.
pub(crate) fn has_attached(
    pool: &impl PoolSnapshot,
    name: &StreamName,
    generation: Generation,
) -> Result<bool, PoolError> {
    let state = pool.generation(name, generation)?;
    Ok(state.is_some_and(|state| state.built.is_none()))
}

fn of(material: &mut Material) -> PoolChanges {
    PoolChanges {
        generations: vec![material.changes()],
        ..PoolChanges::default()
    }
}

fn apply(
    material: &mut Material,
    pool: &impl PoolSnapshot,
    event: &Event,
    fields: Fields<'_>,
) -> Result<Option<Note>, PoolError> {
    let projection = material.projection();
    let read = projection.read(event, fields);
    material.apply(pool, event, read.as_ref())
}

impl OfStream {
    fn all(&self) -> impl Iterator<Item = &Material> {
        std::iter::once(&self.live).chain(&self.others)
    }

    fn held_bytes(&self) -> usize {
        self.all().map(Material::held_bytes).sum()
    }

    /// What of the plan follows the checkpoint. In a pool that has nothing of the stream, all but what is rebuilt begins at its start.
    fn open(
        pool: &impl PoolSnapshot,
        name: &StreamName,
        plan: Arc<Plan>,
    ) -> Result<Self, PoolError> {
        let unserved = pool.served(name)?.is_none();
        let open = |ruled: &Ruled| {
            let mut material = Material::open(pool, name, ruled)?;
            material.state.difference = None;
            if !unserved {
                must_follow(pool, name, ruled.generation)?;
            }
            Ok(material)
        };
        let mut others = Vec::new();
        if let Some(next) = &plan.next
            && has_attached(pool, name, next.made.generation)?
        {
            others.push(Material::open(pool, name, &next.made)?);
        }
        if let Some(previous) = &plan.previous {
            others.push(open(previous)?);
        }
        Ok(Self {
            live: open(&plan.live)?,
            others,
            plan,
            taken_off: BTreeSet::new(),
            unserved,
            touched: false,
        })
    }

    fn fold(
        &mut self,
        pool: &impl PoolSnapshot,
        event: &Event,
        fields: Fields<'_>,
        frames: &mut Frames<'_>,
    ) -> Result<(), PoolError> {
        let projection = self.live.projection();
        if !self.others.is_empty() {
            self.fold_others(pool, event, &fields)?;
        }
        let read = projection.read(event, fields);
        let note = self.live.apply(pool, event, read.as_ref())?;
        if let Ok(mut change) = read {
            frames.push(self.live.ruled(), event, &mut change, note.as_ref());
        }
        Ok(())
    }

    /// The generations that are not served, and the items whose difference moves. Before the live one, so that what is taken off the sum
    /// is what was in it.
    fn fold_others(
        &mut self,
        pool: &impl PoolSnapshot,
        event: &Event,
        fields: &Fields<'_>,
    ) -> Result<(), PoolError> {
        let compared = self
            .others
            .iter()
            .position(|other| other.state.difference.is_some());
        if let Some(compared) = compared {
            let next = self.others.get(compared).map(Material::projection);
            for projection in [Some(self.live.projection()), next].into_iter().flatten() {
                if let Ok(change) = projection.read(event, fields.clone()) {
                    self.take_off(pool, compared, &change.item_id)?;
                }
            }
        }
        for other in &mut self.others {
            apply(other, pool, event, fields.clone())?;
        }
        Ok(())
    }

    /// Takes the difference of an item off the sum, before anything of this page changes it.
    fn take_off(
        &mut self,
        pool: &impl PoolSnapshot,
        compared: usize,
        id: &ItemId,
    ) -> Result<(), PoolError> {
        if self.taken_off.contains(id) {
            return Ok(());
        }
        self.taken_off.insert(id.clone());
        self.sum_up(pool, compared, id, DifferenceSum::subtract)
    }

    /// Adds the differences of this page's items as they are now.
    fn add_again(&mut self, pool: &impl PoolSnapshot) -> Result<(), PoolError> {
        let taken_off = std::mem::take(&mut self.taken_off);
        let compared = self
            .others
            .iter()
            .position(|other| other.state.difference.is_some());
        let Some(compared) = compared else {
            return Ok(());
        };
        for id in &taken_off {
            self.sum_up(pool, compared, id, DifferenceSum::add)?;
        }
        Ok(())
    }

    fn sum_up(
        &mut self,
        pool: &impl PoolSnapshot,
        compared: usize,
        id: &ItemId,
        into: fn(&mut DifferenceSum, &ItemId, &Difference<'_>),
    ) -> Result<(), PoolError> {
        let old = self.live.item(pool, id)?;
        let Some(next) = self.others.get_mut(compared) else {
            return Ok(());
        };
        let new = next.item(pool, id)?;
        let difference = Difference::between(old.as_deref(), new.as_deref());
        if let (Some(difference), Some(state)) = (difference, &mut next.state.difference) {
            into(&mut state.sum, id, &difference);
        }
        Ok(())
    }
}
