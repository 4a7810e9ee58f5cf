//! What a supervisor and a monitor ask, without a key.

use hookpool_engine::status::Status;
use hookpool_store::{EventLog, PoolStore};
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

/// Prometheus text.
pub(crate) fn metrics<L: EventLog, P: PoolStore>(app: &App<L, P>) -> Result<Response, Problem> {
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
