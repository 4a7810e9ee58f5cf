//! What a supervisor and a monitor ask, without a key.

use std::collections::BTreeSet;

use hookpool_engine::status::Status;
use hookpool_store::{EventLog, PoolError, PoolSnapshot as _, PoolStore};
use warp::{http::header, reply::Response};

use crate::{
    app::{App, set},
    problem::{Code, Problem},
    render::json_response,
};

/// The process lives.
pub(crate) fn healthz() -> Response {
    json_response(r#"{"status":"ok"}"#.to_owned())
}

/// Deliveries are taken.
pub(crate) fn readyz<L: EventLog, P: PoolStore>(app: &App<L, P>) -> Result<Response, Problem> {
    let engine = &app.engine;
    match engine.status().get() {
        Status::Ready => {
            let (position, applied) = (engine.head(), engine.applied());
            Ok(json_response(format!(
                r#"{{"status":"ready","position":{position},"applied":{applied}}}"#
            )))
        }
        Status::Stopping => Err(Problem::with(Code::Unavailable, "the server is stopping")),
        Status::Failed(_) => Err(Problem::with(
            Code::Unavailable,
            "the server has failed; its log says why",
        )),
    }
}

/// Prometheus text. A pool that can't be read hides nothing else.
pub(crate) fn metrics<L: EventLog, P: PoolStore>(app: &App<L, P>) -> Result<Response, Problem> {
    match quarantined(app) {
        Ok(events) => app.metrics.quarantined(events),
        Err(error) => tracing::error!(%error, "quarantined events can't be counted"),
    }
    let text = app.metrics.render(&app.engine).map_err(|error| {
        tracing::error!(%error, "metrics can't be written");
        Problem::from(Code::Internal)
    })?;
    let mut response = json_response(text);
    set(
        &mut response,
        header::CONTENT_TYPE,
        "application/openmetrics-text; version=1.0.0; charset=utf-8",
    );
    Ok(response)
}

/// Of all streams together: a monitor has no key, and is not told which streams there are.
fn quarantined<L: EventLog, P: PoolStore>(app: &App<L, P>) -> Result<u64, PoolError> {
    let pool = app.engine.pool();
    let registry = app.engine.control().registry();
    let streams: BTreeSet<_> = registry.connectors().map(|it| &it.stream).collect();
    let mut events = 0;
    for stream in streams {
        let served = app.engine.served(&pool, stream)?;
        let state = pool.generation(stream, served.generation)?;
        events += state.map_or(0, |state| state.quarantined);
    }
    Ok(events)
}
