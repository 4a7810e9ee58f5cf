//! `/api/hooks/{hookId}`, for senders that can be given nothing but a URL: the hook in it is a key. It is told to nobody: no answer, log
//! line or metric holds a path.

use std::sync::Arc;

use bytes::Buf;
use futures_util::Stream;
use hookpool_core::verify::Header;
use hookpool_store::{EventLog, PoolStore};
use warp::{
    http::{HeaderName, Method, header},
    reply::Response,
};

use crate::{
    app::{App, Request, set},
    body, ingest,
    problem::Problem,
    route::{HOOK, Secret},
};

const REQUEST_ORIGIN: HeaderName = HeaderName::from_static("webhook-request-origin");
const ALLOWED_ORIGIN: HeaderName = HeaderName::from_static("webhook-allowed-origin");
const ALLOWED_RATE: HeaderName = HeaderName::from_static("webhook-allowed-rate");

/// Takes one delivery, or answers the question whether it may come.
pub(crate) async fn hook<L: EventLog, P: PoolStore>(
    app: &Arc<App<L, P>>,
    request: &Request,
    Secret(hook): Secret<'_>,
    body: impl Stream<Item = Result<impl Buf, warp::Error>>,
) -> Result<Response, Problem> {
    if request.method == Method::OPTIONS {
        return allow(app, request, hook);
    }
    body::must_fit(request, app.settings.body_bytes)?;
    let admitted = app.engine.admit_hook(hook, request)?;
    ingest::take(app, request, admitted, body).await
}

/// The handshake of CloudEvents (HTTP Webhook 1.0, 4): whoever has the hook may deliver, from wherever and as fast as it likes.
fn allow<L: EventLog, P: PoolStore>(
    app: &App<L, P>,
    request: &Request,
    hook: &str,
) -> Result<Response, Problem> {
    let Header::One(origin) = request.header(REQUEST_ORIGIN) else {
        return Err(Problem::method_not_allowed(HOOK));
    };
    app.engine.must_be_hook(hook)?;
    let mut response = Response::default();
    let origin = std::str::from_utf8(origin).ok().filter(|it| is_plain(it));
    set(&mut response, ALLOWED_ORIGIN, origin.unwrap_or("*"));
    set(&mut response, ALLOWED_RATE, "*");
    let methods: Vec<_> = HOOK.methods().collect();
    set(&mut response, header::ALLOW, &methods.join(", "));
    Ok(response)
}

/// What is sent back is a name, not whatever was sent.
fn is_plain(origin: &str) -> bool {
    (1..=255).contains(&origin.len()) && origin.bytes().all(|byte| byte.is_ascii_graphic())
}
