//! `POST /api/ingest`: many events in one request, all or none of them.

use std::sync::Arc;

use bytes::Buf;
use futures_util::Stream;
use hookpool_core::{
    bulk::{BulkError, Form},
    verify::Header,
};
use hookpool_engine::{AcceptError, BulkAsked, BulkReceipt};
use hookpool_store::{EventLog, PoolStore};
use warp::{
    http::{StatusCode, header},
    reply::Response,
};

use crate::{
    app::{App, Request, set},
    body,
    ingest::{POSITION, REPLAYED, idempotency_key, must_be_plain, proof},
    pace,
    problem::{Code, Problem},
    query::Query,
    render::json_response,
};

/// Takes one request. Its checks come in the order of the webhook's.
pub(crate) async fn ingest<L: EventLog, P: PoolStore>(
    app: &Arc<App<L, P>>,
    request: &Request,
    body: impl Stream<Item = Result<impl Buf, warp::Error>>,
) -> Result<Response, Problem> {
    let settings = &app.settings;
    body::must_fit(request, settings.bulk_bytes)?;
    // A query that can't be read is told to those who may write.
    let stream = Query::new(&request.query).text("stream");
    let named = stream.as_ref().ok().and_then(Option::as_deref);
    let admitted = app.engine.admit_bulk(named, proof(request))?;
    stream?;
    let asked = BulkAsked {
        form: form(request)?,
        key: idempotency_key(request)?,
        body_bytes_max: admitted
            .connector()
            .limits
            .body_bytes_of(settings.body_bytes),
    };
    must_be_plain(request)?;
    request.seen.begin();
    let body = body::capped(body, settings.bulk_bytes, settings.bulk_timeout).await?;
    request.seen.body(&body);
    let engine = &app.engine;
    let bulk = engine
        .prepare_bulk(admitted, body, asked, request.id)
        .await
        .inspect_err(|error| {
            if let AcceptError::Bulk(BulkError::Stream(named)) = error {
                request.seen.other_stream(named.clone());
            }
        })?;
    let pace = engine.pace(&bulk.connector, bulk.events().into())?;
    let recorded = engine.record_bulk(bulk).await;
    let answer = recorded.map(|receipt| accepted(&receipt));
    pace::told(pace, answer.map_err(Problem::from))
}

/// What the media type says. There is no default: the two forms would be taken for one another.
pub(crate) fn form(request: &Request) -> Result<Form, Problem> {
    let query = Query::of(request)?;
    let id_field = query.source("idField")?;
    let unsupported = Code::UnsupportedMediaType;
    let Header::One(value) = request.header(header::CONTENT_TYPE) else {
        return Err(unsupported.into());
    };
    let media = value.split(|byte| *byte == b';').next();
    let media = media.unwrap_or_default().trim_ascii();
    if media.eq_ignore_ascii_case(b"application/x-ndjson") {
        return Ok(Form::Lines { id_field });
    }
    if !media.eq_ignore_ascii_case(b"application/json") {
        return Err(unsupported.into());
    }
    if id_field.is_some() || query.text("stream")?.is_some() {
        return Err(Problem::with(
            Code::InvalidParameter,
            "idField and stream go with application/x-ndjson; items name both themselves",
        ));
    }
    Ok(Form::Items)
}

fn accepted(receipt: &BulkReceipt) -> Response {
    let mut response = json_response(format!(
        r#"{{"status":"accepted","requestId":"{}","itemsReceived":{}}}"#,
        receipt.request_id, receipt.events
    ));
    *response.status_mut() = StatusCode::ACCEPTED;
    set(&mut response, POSITION, &receipt.last.to_string());
    if receipt.replayed {
        set(&mut response, REPLAYED, "true");
    }
    response
}
