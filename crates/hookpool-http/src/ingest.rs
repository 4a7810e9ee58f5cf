//! `POST /api/webhook/{stream}`, to the letter of the product page, and what other ways in share with it.

use std::sync::Arc;

use bytes::Buf;
use futures_util::Stream;
use hookpool_core::{
    idempotency::IdempotencyKey,
    verify::{Admitted, Header, Proof},
};
use hookpool_engine::{Asked, Receipt};
use hookpool_store::{EventLog, PoolStore};
use warp::{
    http::{HeaderName, StatusCode, header},
    reply::Response,
};

use crate::{
    app::{App, Request, set},
    body,
    problem::{Code, Problem},
    query::Query,
    render::{json_response, push_string, text_response},
};

pub(crate) const POSITION: HeaderName = HeaderName::from_static("datapool-position");
const NOTICE: HeaderName = HeaderName::from_static("datapool-notice");
pub(crate) const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Takes one delivery. The order of the checks is promised: nothing of a stranger's body is kept.
pub(crate) async fn webhook<L: EventLog, P: PoolStore>(
    app: &Arc<App<L, P>>,
    request: &Request,
    stream: &str,
    body: impl Stream<Item = Result<impl Buf, warp::Error>>,
) -> Result<Response, Problem> {
    body::must_fit(request, app.settings.body_bytes)?;
    let admitted = app.engine.admit(stream, proof(request))?;
    take(app, request, admitted, body).await
}

/// The rest of a delivery whose headers may write to the stream, whichever way it came in.
pub(crate) async fn take<L: EventLog, P: PoolStore>(
    app: &Arc<App<L, P>>,
    request: &Request,
    admitted: Admitted,
    body: impl Stream<Item = Result<impl Buf, warp::Error>>,
) -> Result<Response, Problem> {
    let query = Query::new(&request.query);
    let id_field = query.source("idField")?;
    // Other parameters are ignored, as senders add their own; this one asks for the opposite of what would happen.
    if query.text("dryRun")?.is_some() {
        return Err(Problem::with(
            Code::InvalidParameter,
            "dryRun is not supported yet; nothing was written",
        ));
    }
    let key = idempotency_key(request)?;
    must_be_plain(request)?;
    let body = body::capped(body, app.settings.body_bytes, app.settings.body_timeout).await?;
    let verified = app.engine.verify(admitted, body)?;
    if let Some(challenge) = verified.challenge() {
        return Ok(text_response(challenge));
    }
    let asked = Asked {
        id_field: id_field.as_ref(),
        key: key.as_ref(),
    };
    let receipt = app.engine.record(verified, asked, request.id).await?;
    Ok(accepted(&receipt))
}

/// What proves a request: its key and whatever its connector's scheme asks for.
pub(crate) fn proof(request: &Request) -> Proof<'_> {
    Proof {
        authorization: request.header(header::AUTHORIZATION),
        headers: request,
    }
}

/// What the sender calls the request by, if it does.
pub(crate) fn idempotency_key(request: &Request) -> Result<Option<IdempotencyKey>, Problem> {
    let invalid = |detail: String| Problem::with(Code::InvalidParameter, detail);
    match request.header(IDEMPOTENCY_KEY) {
        Header::Absent => Ok(None),
        Header::Repeated => Err(invalid("Idempotency-Key is sent twice".into())),
        Header::One(value) => IdempotencyKey::parse(value)
            .map(Some)
            .map_err(|error| invalid(error.to_string())),
    }
}

/// Refuses a compressed body.
pub(crate) fn must_be_plain(request: &Request) -> Result<(), Problem> {
    match request.header(header::CONTENT_ENCODING) {
        Header::Absent => Ok(()),
        Header::One(coding) if coding.eq_ignore_ascii_case(b"identity") => Ok(()),
        Header::One(_) | Header::Repeated => Err(Code::UnsupportedEncoding.into()),
    }
}

fn accepted(receipt: &Receipt) -> Response {
    let mut json = String::from(r#"{"status":"accepted","itemId":"#);
    push_string(&mut json, receipt.item_id.as_str());
    json.push_str(r#","fieldsUpdated":"#);
    json.push_str(&receipt.field_count.to_string());
    json.push('}');
    let mut response = json_response(json);
    *response.status_mut() = StatusCode::ACCEPTED;
    set(&mut response, POSITION, &receipt.position.to_string());
    if receipt.replayed {
        set(&mut response, REPLAYED, "true");
    }
    match (receipt.generated_id, receipt.duplicate_keys) {
        (true, true) => set(&mut response, NOTICE, "generated-id, duplicate-keys"),
        (true, false) => set(&mut response, NOTICE, "generated-id"),
        (false, true) => set(&mut response, NOTICE, "duplicate-keys"),
        (false, false) => {}
    }
    response
}
