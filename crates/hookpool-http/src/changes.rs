//! `GET /api/streams/{s}/changes`: a snapshot, then every change, on one connection that can be cut anywhere.

mod session;

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use hookpool_core::{name::ItemId, verify::Header};
use hookpool_store::{EventLog, PoolStore};
use warp::{
    Reply,
    http::{HeaderName, header},
    reply::Response,
};

use crate::{
    app::{App, Request, set},
    problem::{Code, Problem},
    query::Query,
    sse::Framing,
};
use session::{Session, Start};

/// Answers with a stream that ends only when the client leaves, its key is revoked, or the server stops.
pub(crate) fn changes<L: EventLog, P: PoolStore>(
    app: &Arc<App<L, P>>,
    request: &Request,
    stream: &str,
) -> Result<Response, Problem> {
    let stream = app.visible(request, stream)?;
    let query = Query::only(
        &request.query,
        &["after", "last_event_id", "item", "heartbeat"],
    )?;
    let heartbeat = Duration::from_secs(query.number("heartbeat", 1..=60)?.unwrap_or(15));
    let item = query.text("item")?.map(|id| {
        ItemId::new(id).map_err(|_| Problem::with(Code::InvalidParameter, "item is not an item id"))
    });
    let framing = framing(request)?;
    let start = start(request, &query)?;
    let authorization = request.header(header::AUTHORIZATION);
    let Header::One(authorization) = authorization else {
        return Err(Code::Unauthorized.into());
    };
    let session = Session::new(
        app,
        framing,
        stream,
        item.transpose()?,
        heartbeat,
        Bytes::copy_from_slice(authorization),
        start,
    );
    let frames = stream::unfold(session, |mut session| async move {
        let bytes = session.next().await?;
        Some((Ok::<_, Infallible>(bytes), session))
    });
    let mut response = warp::reply::stream(frames).into_response();
    set(&mut response, header::CONTENT_TYPE, framing.media_type());
    set(
        &mut response,
        header::CACHE_CONTROL,
        "no-store, no-transform",
    );
    set(
        &mut response,
        HeaderName::from_static("x-accel-buffering"),
        "no",
    );
    Ok(response)
}

fn framing(request: &Request) -> Result<Framing, Problem> {
    const FRAMINGS: [Framing; 2] = [Framing::Sse, Framing::Ndjson];
    let best = request.best_of(&FRAMINGS.map(Framing::media_type));
    best.and_then(|best| FRAMINGS.get(best).copied())
        .ok_or_else(|| Code::NotAcceptable.into())
}

/// `Last-Event-ID` wins over `last_event_id`, which wins over `after`.
fn start(request: &Request, query: &Query<'_>) -> Result<Start, Problem> {
    let resumed = match request.header("last-event-id") {
        Header::One(id) if !id.is_empty() => Some(String::from_utf8_lossy(id).into_owned()),
        Header::Repeated => {
            return Err(Problem::with(
                Code::InvalidParameter,
                "Last-Event-ID is sent twice",
            ));
        }
        Header::One(_) | Header::Absent => query.text("last_event_id")?,
    };
    if let Some(cursor) = resumed {
        return Ok(Start::Cursor(cursor));
    }
    Ok(match query.text("after")?.as_deref() {
        None | Some("snapshot") => Start::Snapshot,
        Some("now") => Start::Now,
        Some("earliest") => Start::Earliest,
        Some(cursor) => Start::Cursor(cursor.to_owned()),
    })
}
