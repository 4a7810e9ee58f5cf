//! `/api/admin/streams/{s}/retention`: how much history of a stream is kept. Under an operator key.

use std::{num::NonZeroU64, sync::Arc};

use hookpool_core::{
    key::KeyId,
    name::StreamName,
    retention::{Floor, Retention},
};
use hookpool_engine::retention::Waiting;
use hookpool_store::{EventLog, PoolStore};
use serde::Deserialize;
use serde_json::{Value, json};
use warp::reply::Response;

use crate::{
    app::{App, Request},
    problem::{Code, Problem},
    query::Query,
    render::json_response,
};

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RetentionBody {
    max_age_seconds: Option<NonZeroU64>,
    max_positions: Option<NonZeroU64>,
}

/// `GET`: the limits, where history begins by them, and what is still to be done.
pub(crate) fn show<L: EventLog, P: PoolStore>(app: &App<L, P>, stream: &StreamName) -> Response {
    let plan = app.engine.control().registry().plan(stream.as_str());
    let state = app.engine.retentions().state(stream);
    let Retention {
        max_age_seconds,
        max_positions,
    } = plan.retention;
    let answer = json!({
        "stream": stream.as_str(),
        "maxAgeSeconds": max_age_seconds,
        "maxPositions": max_positions,
        "earliest": plan.floor.map(floor_json),
        "dropped": state.done.is_some_and(|done| done == plan.earliest()),
        "waiting": state.waiting.map(said),
        "kept": state.kept,
        "wholeItems": state.whole_items,
        "error": state.failed,
    });
    json_response(answer.to_string())
}

/// `PUT`: takes limits, or with `check=true` says what they would make unreadable now.
pub(crate) async fn set<L: EventLog, P: PoolStore>(
    app: &Arc<App<L, P>>,
    request: &Request,
    author: &KeyId,
    stream: StreamName,
    body: RetentionBody,
) -> Result<Response, Problem> {
    let query = Query::of(request)?;
    let limits = Retention {
        max_age_seconds: body.max_age_seconds.map(NonZeroU64::get),
        max_positions: body.max_positions.map(NonZeroU64::get),
    };
    if limits.is_unlimited() {
        let detail = "maxAgeSeconds, maxPositions or both are at least 1; DELETE keeps everything";
        return Err(Problem::with(Code::InvalidPayload, detail));
    }
    if query.flag("check")? {
        let expiring = app.engine.expiring(&stream, limits).await?;
        let answer = json!({
            "stream": stream.as_str(),
            "earliest": expiring.floor.map(floor_json),
            "events": expiring.events,
        });
        return Ok(json_response(answer.to_string()));
    }
    let limited = app.engine.set_retention(author, stream.clone(), limits);
    limited.await?;
    Ok(show(app, &stream))
}

/// `DELETE`: nothing more is dropped.
pub(crate) async fn clear<L: EventLog, P: PoolStore>(
    app: &Arc<App<L, P>>,
    author: &KeyId,
    stream: StreamName,
) -> Result<Response, Problem> {
    let limits = Retention::default();
    let unlimited = app.engine.set_retention(author, stream.clone(), limits);
    unlimited.await?;
    Ok(show(app, &stream))
}

fn floor_json(floor: Floor) -> Value {
    json!({ "position": floor.position, "time": floor.time.to_string() })
}

fn said(waiting: Waiting) -> String {
    match waiting {
        Waiting::Rebuild(generation) => {
            format!("rebuild {generation} reads the history: promote or cancel it")
        }
        Waiting::Previous(generation) => {
            format!("generation {generation} can be gone back to: release it")
        }
        Waiting::Pool => "the pool has to catch up".to_owned(),
    }
}
