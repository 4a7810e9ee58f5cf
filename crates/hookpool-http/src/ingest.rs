//! `POST /api/webhook/{stream}`, to the letter of the product page, and what other ways in share with it; what it would do; and deletions.

use std::sync::Arc;

use bytes::Buf;
use futures_util::Stream;
use hookpool_core::{
    event::{Event, RequestId},
    idempotency::IdempotencyKey,
    name::ItemId,
    position::Position,
    shape::ShapeError,
    source::Source,
    verify::{Admitted, Header, Proof, Verified},
};
use hookpool_engine::{Asked, Receipt};
use hookpool_store::{EventLog, PoolStore};
use warp::{
    http::{HeaderName, StatusCode, header},
    reply::Response,
};

use crate::{
    app::{App, Request, set},
    body, pace,
    problem::{Code, Problem},
    query::{Query, decode},
    rehearsal::rehearsal_json,
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
    // Other parameters are ignored, as senders add their own.
    let query = Query::new(&request.query);
    let (id_field, dry_run) = (query.source("idField")?, query.flag("dryRun")?);
    let key = idempotency_key(request)?;
    must_be_plain(request)?;
    let limit = admitted
        .connector()
        .limits
        .body_bytes_of(app.settings.body_bytes);
    if limit < app.settings.body_bytes {
        body::must_fit(request, limit)?;
    }
    request.seen.begin();
    let body = body::capped(body, limit, app.settings.body_timeout).await?;
    request.seen.body(&body);
    let verified = app.engine.verify(admitted, body)?;
    if let Some(challenge) = verified.challenge() {
        return Ok(text_response(challenge));
    }
    if dry_run {
        return rehearsed(app, verified, id_field.as_ref(), request.id);
    }
    let asked = Asked {
        id_field: id_field.as_ref(),
        key: key.as_ref(),
    };
    let pace = app.engine.pace(verified.connector(), 1)?;
    let recorded = app.engine.record(verified, asked, request.id).await;
    let answer = recorded.map(|receipt| accepted(&receipt));
    pace::told(pace, answer.map_err(Problem::from))
}

/// `DELETE /api/streams/{stream}/items/{id}`, by who may write to the stream.
pub(crate) async fn delete<L: EventLog, P: PoolStore>(
    app: &Arc<App<L, P>>,
    request: &Request,
    stream: &str,
    id: &str,
    body: impl Stream<Item = Result<impl Buf, warp::Error>>,
) -> Result<Response, Problem> {
    body::must_fit(request, app.settings.body_bytes)?;
    let admitted = app.engine.admit(stream, proof(request))?;
    // Strictly, since nobody adds parameters of their own here: a `dryRun` that is overlooked would delete.
    Query::of(request)?;
    let key = idempotency_key(request)?;
    must_be_plain(request)?;
    request.seen.begin();
    let body = body::capped(body, app.settings.body_bytes, app.settings.body_timeout).await?;
    request.seen.body(&body);
    let verified = app.engine.verify(admitted, body)?;
    let id = decode(id, false).ok_or_else(|| {
        Problem::with(Code::InvalidItemId, "the item id in the path is not UTF-8")
    })?;
    let id = ItemId::new(id).map_err(ShapeError::ItemId)?;
    let pace = app.engine.pace(verified.connector(), 1)?;
    let deletion = app
        .engine
        .record_deletion(verified, id, key.as_ref(), request.id);
    let answer = deletion.await.map(|receipt| {
        let mut json = String::from(r#"{"status":"accepted","itemId":"#);
        push_string(&mut json, receipt.item_id.as_str());
        json.push('}');
        recorded(json, &receipt)
    });
    pace::told(pace, answer.map_err(Problem::from))
}

/// What would happen to a delivery, and nothing of what its item holds: a key that writes does not read.
fn rehearsed<L: EventLog, P: PoolStore>(
    app: &App<L, P>,
    verified: Verified,
    id_field: Option<&Source>,
    request_id: RequestId,
) -> Result<Response, Problem> {
    let (event, projection) = app.engine.rehearse(verified, id_field, request_id)?;
    let (generated_id, duplicate_keys) = (event.generated_id, event.duplicate_keys);
    // In no place yet: what is told of it does not depend on one.
    let event = Event {
        position: Position::ZERO,
        event,
    };
    let json = rehearsal_json(&event, &projection).map_err(ShapeError::Payload)?;
    let mut response = json_response(json);
    set_notice(&mut response, generated_id, duplicate_keys);
    Ok(response)
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
    let mut response = recorded(json, receipt);
    set_notice(&mut response, receipt.generated_id, receipt.duplicate_keys);
    response
}

/// The answer to what is in the log.
fn recorded(json: String, receipt: &Receipt) -> Response {
    let mut response = json_response(json);
    *response.status_mut() = StatusCode::ACCEPTED;
    set(&mut response, POSITION, &receipt.position.to_string());
    if receipt.replayed {
        set(&mut response, REPLAYED, "true");
    }
    response
}

fn set_notice(response: &mut Response, generated_id: bool, duplicate_keys: bool) {
    match (generated_id, duplicate_keys) {
        (true, true) => set(response, NOTICE, "generated-id, duplicate-keys"),
        (true, false) => set(response, NOTICE, "generated-id"),
        (false, true) => set(response, NOTICE, "duplicate-keys"),
        (false, false) => {}
    }
}
