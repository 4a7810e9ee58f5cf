//! The pool lets go of expired events: of each item only those stay named that it needs, and its past begins at the floor.

use std::{collections::HashSet, sync::Arc};

use hookpool_core::{
    fold::History,
    name::{ItemId, StreamName},
    plan::Ruled,
    position::{Generation, Position},
    retention::{self, Needs},
};
use hookpool_store::{EventLog, PageRequest, PoolSnapshot, PoolStore};
use tokio::{runtime::Handle, sync::oneshot};

use super::{RetainError, Retainer};
use crate::{
    follow::{FollowError, blocking},
    past::{View, Walk, event_at, named_until},
    projector::{Command, ask},
};

/// Events that are looked at between two commits.
const PAGE_EVENTS: usize = 512;
/// Items that are remembered as done, so that a busy one is looked at once.
const DONE_MAX: usize = 100_000;

/// What the pool lets go of, and what takes its place, in one commit.
#[derive(Debug, Default)]
pub(crate) struct Trim {
    /// Where the past of items begins from now on; what is before it goes.
    pub(crate) histories: Vec<(ItemId, History)>,
    /// Events whose notes go.
    pub(crate) notes: Vec<Position>,
    /// Events that no longer count.
    pub(crate) events: u64,
    /// Those of them that were superseded.
    pub(crate) superseded: u64,
    /// Those of them that were quarantined.
    pub(crate) quarantined: u64,
}

/// What trimming came upon.
#[derive(Debug, Default)]
pub(super) struct Trimmed {
    /// Events that were looked at.
    pub(super) events: u64,
    /// Events that no item names any more, of these and of those before.
    pub(super) gone: Vec<Position>,
}

impl Trim {
    fn is_empty(&self) -> bool {
        self.histories.is_empty() && self.notes.is_empty()
    }
}

impl<L: EventLog, P: PoolStore> Retainer<L, P> {
    /// Trims every item that was touched after a position and up to the floor; `None` if it was broken off.
    pub(super) async fn trim(
        &self,
        stream: &StreamName,
        live: &Ruled,
        mut after: Position,
        to: Position,
        go_on: &(impl Fn() -> bool + Sync),
    ) -> Result<Option<Trimmed>, RetainError> {
        let (mut done, mut trimmed) = (HashSet::new(), Trimmed::default());
        while after < to {
            if !go_on() {
                return Ok(None);
            }
            let request = PageRequest {
                until: to,
                events_max: PAGE_EVENTS,
                ..PageRequest::of_stream(stream.clone(), after)
            };
            let view = View {
                pool: self.pool.snapshot(),
                stream: stream.clone(),
                ruled: live.clone(),
            };
            let (log, runtime) = (Arc::clone(&self.log), Handle::current());
            let page = blocking(move || -> Result<_, RetainError> {
                let page = runtime.block_on(log.page(request))?;
                let (mut trim, mut whole) = (Trim::default(), 0);
                let events = page.events.len() as u64;
                for event in &page.events {
                    let fields = event.event.fields();
                    let fields =
                        fields.map_err(|error| FollowError::Body(event.position, error))?;
                    let Ok(change) = view.ruled.projection.read(event, fields) else {
                        continue;
                    };
                    if done.insert(change.item_id.as_ref().clone()) {
                        let item =
                            runtime.block_on(trim_item(&*log, &view, &change.item_id, to))?;
                        whole += u64::from(item.add_to(&mut trim));
                    }
                }
                if done.len() > DONE_MAX {
                    done.clear();
                }
                Ok((trim, whole, events, page.through, done))
            });
            let (trim, whole, events, through, looked_at) = page.await?;
            done = looked_at;
            trimmed.events += events;
            trimmed.gone.extend(&trim.notes);
            if !self.commit(stream, live.generation, trim).await {
                return Ok(None);
            }
            self.retentions
                .update(stream, |state| state.whole_items += whole);
            after = through;
        }
        Ok(Some(trimmed))
    }

    /// Has the projector, the one writer of the generation, commit it; whether it did.
    pub(super) async fn commit(
        &self,
        stream: &StreamName,
        generation: Generation,
        trim: Trim,
    ) -> bool {
        if trim.is_empty() {
            return true;
        }
        let (answer, trimmed) = oneshot::channel();
        let command = Command::Trim {
            stream: stream.clone(),
            generation,
            trim,
            answer,
        };
        // The projector stops only with the engine.
        ask(&self.projector, command, trimmed)
            .await
            .unwrap_or(false)
    }
}

/// What becomes of the expired events of an item.
enum Fate {
    /// All that are there are needed.
    Needed,
    /// Fewer did not prove to be enough.
    Unproved,
    To {
        id: ItemId,
        history: Box<History>,
        gone: Vec<Position>,
        superseded: u64,
    },
}

impl Fate {
    /// Whether the item keeps all because fewer could not be proved to do.
    fn add_to(self, trim: &mut Trim) -> bool {
        match self {
            Self::Needed => false,
            Self::Unproved => true,
            Self::To {
                id,
                history,
                gone,
                superseded,
            } => {
                trim.histories.push((id, *history));
                trim.events += gone.len() as u64;
                trim.superseded += superseded;
                trim.notes.extend(gone);
                false
            }
        }
    }
}

async fn trim_item<L: EventLog>(
    log: &L,
    view: &View<impl PoolSnapshot>,
    id: &ItemId,
    to: Position,
) -> Result<Fate, FollowError> {
    let named = named_until(view, id, to)?;
    let walk = Walk::from(log, view, id, to).await?;
    let Some(item) = walk.item() else {
        return Ok(Fate::Needed);
    };
    let projection = &*view.ruled.projection;
    let mut superseded = Default::default();
    let needed = if projection.only_adds() {
        retention::sources(item)
    } else {
        let mut needs = Needs::new(projection);
        for position in &named {
            let event = event_at(log, &view.stream, *position).await?;
            if needs.take(&event).is_err() {
                return Ok(Fate::Unproved);
            }
        }
        superseded = needs.superseded().clone();
        needs.needed()
    };
    let gone: Vec<_> = named
        .iter()
        .copied()
        .filter(|position| !needed.contains(position))
        .collect();
    if gone.is_empty() {
        return Ok(Fate::Needed);
    }
    // The proof, from the log, before anything is let go of.
    let mut events = Vec::with_capacity(needed.len());
    for position in &needed {
        events.push(event_at(log, &view.stream, *position).await?);
    }
    if retention::refolds(item, &events, projection) != Ok(true) {
        return Ok(Fate::Unproved);
    }
    let late = gone.iter().filter(|position| superseded.contains(position));
    Ok(Fate::To {
        superseded: late.count() as u64,
        id: id.clone(),
        history: Box::new(History {
            positions: needed.into_iter().collect(),
            after: item.clone(),
        }),
        gone,
    })
}
