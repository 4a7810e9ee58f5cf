//! What there is to say of a rebuild: while it runs, and once it ended.

use hookpool_core::{
    difference::{Counts, DifferenceSum},
    name::StreamName,
    plan::{Ended, Outcome, Plan, Rebuild},
    position::Generation,
};
use hookpool_store::{EventLog, GenerationState, PoolError, PoolSnapshot, PoolStore};
use serde_json::{Value, json};

use crate::app::App;

/// Those of a stream that are known, oldest first.
pub(super) fn rows<L: EventLog, P: PoolStore>(
    app: &App<L, P>,
    stream: &StreamName,
) -> Result<Vec<Value>, PoolError> {
    let plan = app.engine.control().registry().plan(stream.as_str());
    let ended = plan.ended.iter();
    let ended = ended.map(|ended| ended_json(app, stream, &plan, ended));
    let running = plan.next.iter();
    let running = running.map(|rebuild| running_json(app, stream, &plan, rebuild));
    ended.chain(running).collect()
}

/// One of them; `None` if there is none of that number.
pub(super) fn row<L: EventLog, P: PoolStore>(
    app: &App<L, P>,
    stream: &StreamName,
    generation: Generation,
) -> Result<Option<Value>, PoolError> {
    let plan = app.engine.control().registry().plan(stream.as_str());
    let mut ended = plan.ended.iter();
    let ended = ended.find(|ended| ended.generation == generation);
    let running = plan.next.as_ref();
    let running = running.filter(|next| next.made.generation == generation);
    match (ended, running) {
        (Some(ended), _) => ended_json(app, stream, &plan, ended).map(Some),
        (None, Some(rebuild)) => running_json(app, stream, &plan, rebuild).map(Some),
        (None, None) => Ok(None),
    }
}

fn running_json<L: EventLog, P: PoolStore>(
    app: &App<L, P>,
    stream: &StreamName,
    plan: &Plan,
    rebuild: &Rebuild,
) -> Result<Value, PoolError> {
    let generation = rebuild.made.generation;
    let pool = app.engine.pool();
    let state = pool.generation(stream, generation)?;
    let live = pool.generation(stream, plan.live.generation)?;
    let job = app
        .engine
        .rebuilds()
        .state(stream, generation)
        .unwrap_or_default();
    let total = live.map_or(0, |live| live.events);
    let done = state.map_or(0, |state| state.events).max(job.events);
    let difference = state.as_ref().and_then(whole);
    let diff = difference.map(|sum| diff_json(&sum.digest(), sum.counts()));
    let running = match (&job.failed, &diff) {
        (Some(_), _) => "failed",
        (None, Some(_)) => "ready",
        (None, None) => "running",
    };
    let rate = if rebuild.paused { 0 } else { job.rate };
    let eta = (running == "running" && rate > 0).then(|| total.saturating_sub(done) / rate);
    Ok(json!({
        "id": generation.to_string(),
        "stream": stream.as_str(),
        "projection": rebuild.made.projection.version,
        "state": running,
        "paused": rebuild.paused,
        "startedAt": rebuild.started_at.to_string(),
        "done": done,
        "total": total,
        "rate": rate,
        "etaSeconds": eta,
        "compared": job.compared,
        "quarantined": state.map_or(0, |state| state.quarantined),
        "superseded": state.map_or(0, |state| state.superseded),
        "error": job.failed,
        "diff": diff,
    }))
}

/// What is still true of it: its events are those that are in its generation by now, as long as that is kept.
fn ended_json<L: EventLog, P: PoolStore>(
    app: &App<L, P>,
    stream: &StreamName,
    plan: &Plan,
    ended: &Ended,
) -> Result<Value, PoolError> {
    let kept = plan.ruled(ended.generation);
    let kept = kept.map(|kept| app.engine.pool().generation(stream, kept.generation));
    // A generation that is kept and not in the pool yet has no events by now.
    let kept = kept.transpose()?.map(Option::unwrap_or_default);
    let events = kept.map(|kept| kept.events);
    let promoted = ended.promoted.as_ref();
    Ok(json!({
        "id": ended.generation.to_string(),
        "stream": stream.as_str(),
        "projection": ended.projection,
        "state": word(ended.outcome),
        "startedAt": ended.started_at.to_string(),
        "endedAt": ended.at.to_string(),
        "done": events,
        "total": events,
        "quarantined": kept.map(|kept| kept.quarantined),
        "superseded": kept.map(|kept| kept.superseded),
        "diff": promoted.map(|(digest, counts)| diff_json(digest, *counts)),
    }))
}

fn diff_json(digest: &str, counts: Counts) -> Value {
    let Counts {
        added,
        removed,
        changed,
    } = counts;
    json!({ "added": added, "removed": removed, "changed": changed, "digest": digest })
}

/// The state of a rebuild that ended.
pub(super) fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Promoted => "promoted",
        Outcome::Cancelled => "cancelled",
    }
}

/// A difference that is whole.
pub(super) fn whole(state: &GenerationState) -> Option<DifferenceSum> {
    let difference = state.difference.filter(|difference| difference.whole)?;
    Some(difference.sum)
}
