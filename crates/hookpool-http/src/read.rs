//! The pool and the log as pages of JSON.

use std::{collections::BTreeSet, fmt::Display, sync::Arc, time::Duration};

use hookpool_core::{
    cursor::Cursor,
    event::Event,
    fold::Item,
    name::{ItemId, StreamName},
    position::{Generation, Position},
    selection::Selection,
    verify::Header,
};
use hookpool_engine::{
    follow::{FollowError, blocking, follows_checkpoint},
    past::View,
};
use hookpool_store::{EventLog, PageRequest, PoolError, PoolSnapshot, PoolStore};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use warp::{
    http::{StatusCode, header},
    reply::Response,
};

use crate::{
    app::{App, Request, set},
    problem::{Code, Problem},
    query::{Query, decode},
    render::{
        Nested, json_response, push_event, push_item, push_some_of_item, push_string,
        push_whole_item,
    },
    viewer::Viewer,
};

/// Bytes of item text in a page, and of bodies in a page of the log; the last one may go over.
const PAGE_BYTES: usize = 4 << 20;

/// Longest wait that `Prefer: wait=` gets, in seconds.
pub(crate) const WAIT_SECONDS_MAX: u64 = 60;

impl<L: EventLog, P: PoolStore> App<L, P> {
    /// The stream, if the key may see it. One that is not there and one that is not to be seen are the same.
    pub(crate) fn visible(&self, request: &Request, stream: &str) -> Result<StreamName, Problem> {
        self.seen_by(&Viewer::of(request)?, stream)
    }

    /// Holds a read back until the position that it asks for is in the pool.
    pub(crate) async fn wait_for(
        &self,
        request: &Request,
        query: &Query<'_>,
    ) -> Result<(), Problem> {
        let Some(position) = query.number("minPosition", 0..=u64::MAX)? else {
            return Ok(());
        };
        let patience =
            Duration::from_secs(preferred_wait(request).unwrap_or(0).min(WAIT_SECONDS_MAX));
        if self.engine.wait_applied(Position(position), patience).await {
            Ok(())
        } else {
            Err(Code::NotYetApplied.into())
        }
    }
}

/// Seconds of `Prefer: wait=` (RFC 7240); a preference that is not understood is none.
pub(crate) fn preferred_wait(request: &Request) -> Option<u64> {
    let values = request
        .headers
        .get_all("prefer")
        .iter()
        .filter_map(|value| value.to_str().ok());
    let mut preferences = values.flat_map(|value| value.split([',', ';']));
    preferences.find_map(|preference| {
        preference
            .trim()
            .strip_prefix("wait=")?
            .trim_matches('"')
            .parse()
            .ok()
    })
}

/// `GET /api/streams`
pub(crate) async fn streams<L: EventLog, P: PoolStore>(
    app: &Arc<App<L, P>>,
    request: &Request,
) -> Result<Response, Problem> {
    let access = app.access(request)?;
    let query = Query::of(request)?;
    app.wait_for(request, &query).await?;
    let app = Arc::clone(app);
    // Two reads of the pool for each.
    let read = move || -> Result<Vec<Value>, PoolError> {
        let pool = app.engine.pool();
        let registry = app.engine.control().registry();
        let names = registry.connectors().map(|connector| &connector.stream);
        let names = names.filter(|name| access.may_read(name.as_str()));
        let names: BTreeSet<_> = names.collect();
        let rows = names.into_iter();
        rows.map(|name| stream_json(&app, &pool, name)).collect()
    };
    let rows = blocking(read).await?;
    Ok(json_response(json!({ "streams": rows }).to_string()))
}

fn stream_json<L: EventLog, P: PoolStore>(
    app: &App<L, P>,
    pool: &P::Snapshot,
    stream: &StreamName,
) -> Result<Value, PoolError> {
    let served = app.engine.served(pool, stream)?;
    let state = pool
        .generation(stream, served.generation)?
        .unwrap_or_default();
    Ok(json!({
        "name": stream.as_str(),
        "stream": stream.as_str(),
        "items": state.items,
        "events": state.events,
        "position": state.position,
        "generation": served.generation,
        "projection": served.projection.version,
        "quarantined": state.quarantined,
        "earliest": app.engine.earliest(stream),
        "lag": app.engine.head().0.saturating_sub(app.engine.applied().0),
    }))
}

/// `GET /api/streams/{s}`
pub(crate) async fn stream<L: EventLog, P: PoolStore>(
    app: &Arc<App<L, P>>,
    request: &Request,
    stream: &str,
) -> Result<Response, Problem> {
    let stream = app.visible(request, stream)?;
    let query = Query::of(request)?;
    let hash = query.flag("hash")?;
    app.wait_for(request, &query).await?;
    let (app, pool) = (Arc::clone(app), app.engine.pool());
    let read = move || -> Result<_, PoolError> {
        let mut row = stream_json(&app, &pool, &stream)?;
        if let (true, Some(members)) = (hash, row.as_object_mut()) {
            let served = app.engine.served(&pool, &stream)?;
            let hash = state_hash(&*pool, &stream, served.generation)?;
            members.insert("stateHash".into(), hash.into());
        }
        Ok(row)
    };
    Ok(json_response(blocking(read).await?.to_string()))
}

/// SHA-256 over the items in byte order of their ids, each as a line: what `GET .../items/{id}?meta=true` answers, and a line feed.
fn state_hash(
    pool: &impl PoolSnapshot,
    stream: &StreamName,
    generation: Generation,
) -> Result<String, PoolError> {
    let (mut hash, mut after) = (Sha256::new(), None);
    loop {
        let page = pool.items(stream, generation, after.as_ref(), 1_000, PAGE_BYTES)?;
        for (id, item) in &page.items {
            let mut line = String::from("{");
            push_whole_item(&mut line, id.as_str(), item, Nested::AsString);
            line.push_str("}\n");
            hash.update(line);
        }
        after = page.items.into_iter().last().map(|(id, _)| id);
        if !page.more {
            return Ok(const_hex::encode(hash.finalize()));
        }
    }
}

/// Items that a page looks at for those that were there and meet its conditions; a page that finds few in them has a next one.
const LOOKED_AT_MAX: usize = 10_000;

/// Items that are looked at in one go, which ends although the client has left.
const LOOKED_AT_ONCE: usize = 1_000;

/// `GET /api/streams/{s}/items`
pub(crate) async fn items<L: EventLog, P: PoolStore>(
    app: &Arc<App<L, P>>,
    request: &Request,
    stream: &str,
) -> Result<Response, Problem> {
    let stream = app.visible(request, stream)?;
    let query = Query::of(request)?;
    let limit = usize::try_from(query.number("limit", 1..=1_000)?.unwrap_or(100)).unwrap_or(1_000);
    let (nested, selection) = (query.nested()?, query.selection()?);
    app.wait_for(request, &query).await?;
    let at = app.moment(&stream, &query, "at").await?;
    let token = query.text("after")?;
    let token = token.map(|token| parse_token(&token)).transpose()?;
    let (view, chain, after) = match token {
        None => {
            let view = app.view(&stream).await?;
            let chain = app
                .engine
                .cursor(view.ruled.generation, checkpoint(&*view.pool));
            (view, chain, None)
        }
        Some((chain, after)) => {
            let view = chained(app, &stream, chain).await?;
            (view, chain, Some(after))
        }
    };
    if at.is_some_and(|at| at > chain.position) {
        let detail = "at is not that of the page before";
        return Err(Problem::with(Code::InvalidParameter, detail));
    }
    let position = at.unwrap_or(chain.position);
    let begins = after.is_none();
    let moment = (at.is_some() || !begins).then_some(position);
    let etag = page_etag(app, &view, moment).await?;
    if matches_etag(request, &etag) {
        return Ok(not_modified(&etag));
    }
    let pool = Arc::clone(&view.pool);
    let selected = Selected {
        selection: &selection,
        limit,
        after,
    };
    let (rows, last) = match selected.read(app, view, position).await {
        // Nobody asked for this moment: the chain was overtaken by the floor.
        Err(FollowError::BeforeRetention(_)) if at.is_none() => {
            return Err(Code::PageExpired.into());
        }
        read => read?,
    };
    let next = last.map(|last| token_of(chain, &last));
    if begins && next.is_some() {
        let chain = (stream.clone(), chain.generation, chain.position);
        app.pages.hold(chain, pool);
    }
    let mut json = format!(r#"{{"position":{position},"items":["#);
    for (n, (id, item)) in rows.iter().enumerate() {
        json.push_str(if n > 0 { ",{" } else { "{" });
        push_some_of_item(&mut json, id.as_str(), item, &selection, nested);
        json.push('}');
    }
    json.push_str(r#"],"next":"#);
    match &next {
        Some(next) => push_string(&mut json, next),
        None => json.push_str("null"),
    }
    json.push('}');
    let mut response = json_response(json);
    set(&mut response, header::ETAG, &etag);
    if let Some(next) = next {
        set_next(&mut response, &query, &format!("{stream}/items"), next);
    }
    Ok(response)
}

/// The view that a page behind another is read in: that of its chain or, once that was let go, the newest, in which the chain's position is past.
async fn chained<L: EventLog, P: PoolStore>(
    app: &App<L, P>,
    stream: &StreamName,
    chain: Cursor,
) -> Result<View<P::Snapshot>, Problem> {
    let Cursor {
        generation,
        position,
        ..
    } = chain;
    let plan = app.engine.control().registry().plan(stream.as_str());
    // What is being rebuilt is for nobody's eyes before it is promoted.
    let mut seen = std::iter::once(&plan.live).chain(&plan.previous);
    let ruled = seen.find(|ruled| ruled.generation == generation).cloned();
    let is_ours = chain == app.engine.cursor(generation, position);
    let ruled = ruled.filter(|_| is_ours).ok_or(Code::PageExpired)?;
    let held = app.pages.find(&(stream.clone(), generation, position));
    let view = View {
        pool: held.unwrap_or_else(|| app.engine.pool()),
        stream: stream.clone(),
        ruled,
    };
    let reaches = {
        let View { pool, stream, .. } = view.clone();
        move || follows_checkpoint(&*pool, &stream, generation)
    };
    if checkpoint(&*view.pool) < position {
        let is_to_come = position <= app.engine.head();
        let code = if is_to_come {
            Code::NotYetApplied
        } else {
            Code::PageExpired
        };
        return Err(code.into());
    }
    if !blocking(reaches).await? {
        return Err(Code::PageExpired.into());
    }
    Ok(view)
}

/// Up to where the log is in a view of the pool.
pub(crate) fn checkpoint(pool: &impl PoolSnapshot) -> Position {
    pool.checkpoint()
        .map_or(Position::ZERO, |checkpoint| checkpoint.position)
}

/// What a page is to hold.
struct Selected<'a> {
    selection: &'a Selection,
    limit: usize,
    after: Option<ItemId>,
}

impl Selected<'_> {
    /// The items of the page, and the last one that was looked at if more may follow.
    async fn read<L: EventLog, P: PoolStore>(
        mut self,
        app: &App<L, P>,
        view: View<P::Snapshot>,
        position: Position,
    ) -> Result<(Vec<(ItemId, Item)>, Option<ItemId>), FollowError> {
        let (mut rows, mut bytes, mut looked_at) = (Vec::new(), 0, 0);
        loop {
            let (view, after) = (view.clone(), self.after.take());
            let page = app
                .engine
                .items_at(
                    view,
                    position,
                    after,
                    self.limit,
                    PAGE_BYTES,
                    LOOKED_AT_ONCE,
                )
                .await?;
            looked_at += page.looked_at;
            let mut items = page.items.into_iter().peekable();
            while let Some((id, item)) = items.next() {
                self.after = Some(id.clone());
                if self.selection.takes(&item) {
                    bytes += item.text_bytes();
                    rows.push((id, item));
                }
                let full = rows.len() == self.limit || bytes >= PAGE_BYTES;
                if full && (page.more || items.peek().is_some()) {
                    return Ok((rows, self.after));
                }
            }
            if !page.more {
                return Ok((rows, None));
            }
            self.after = page.after;
            if looked_at >= LOOKED_AT_MAX {
                return Ok((rows, self.after));
            }
        }
    }
}

/// The same for all pages that show the same; weak, since they also say how far the pool is. Behind the first one they show a moment, as with `at`.
async fn page_etag<L: EventLog, P: PoolStore>(
    app: &App<L, P>,
    view: &View<P::Snapshot>,
    at: Option<Position>,
) -> Result<String, PoolError> {
    let (view, generation) = (view.clone(), view.ruled.generation);
    let position = match at {
        Some(at) => at,
        None => blocking(move || view.pool.generation(&view.stream, generation))
            .await?
            .map_or(Position::ZERO, |state| state.position),
    };
    Ok(format!("W/\"{}\"", app.engine.cursor(generation, position)))
}

pub(crate) fn not_modified(etag: &str) -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    set(&mut response, header::ETAG, etag);
    response
}

/// `GET /api/streams/{s}/items/{id}`
pub(crate) async fn item<L: EventLog, P: PoolStore>(
    app: &Arc<App<L, P>>,
    request: &Request,
    stream: &str,
    id: &str,
) -> Result<Response, Problem> {
    let stream = app.visible(request, stream)?;
    let query = Query::of(request)?;
    let (meta, nested) = (query.flag("meta")?, query.nested()?);
    let id = decode(id, false)
        .and_then(|id| ItemId::new(id).ok())
        .ok_or(Code::NotFound)?;
    app.wait_for(request, &query).await?;
    let key = id.clone();
    let at = app.moment(&stream, &query, "at").await?;
    let view = app.view(&stream).await?;
    let generation = view.ruled.generation;
    let item = match at {
        Some(at) => app.engine.touched_at(view, key, at).await?,
        None => blocking(move || view.pool.touched(&view.stream, generation, &key)).await?,
    };
    let item = item.ok_or(Code::NotFound)?;
    if !item.is_there() {
        let plan = app.engine.control().registry().plan(stream.as_str());
        return Err(gone(&item, plan.earliest()));
    }
    let form = if nested == Nested::Expanded { "x" } else { "" };
    let etag = format!(
        "\"{}{form}{}\"",
        app.engine.cursor(generation, item.position),
        if meta { "m" } else { "" }
    );
    if matches_etag(request, &etag) {
        return Ok(not_modified(&etag));
    }
    let mut json = String::from("{");
    if meta {
        push_whole_item(&mut json, id.as_str(), &item, nested);
    } else {
        push_item(&mut json, id.as_str(), &item, nested);
        json.push_str(&format!(r#","position":{}"#, item.position));
    }
    json.push('}');
    let mut response = json_response(json);
    set(&mut response, header::ETAG, &etag);
    Ok(response)
}

/// A deleted item is not there, and who may read its history is told since when; unless that is dropped.
fn gone(item: &Item, earliest: Position) -> Problem {
    match item.deleted.filter(|deleted| *deleted > earliest) {
        Some(deleted) => {
            let detail = format!("the item was deleted at position {deleted}");
            Problem::with(Code::NotFound, detail)
        }
        None => Code::NotFound.into(),
    }
}

/// `GET /api/streams/{s}/log`
pub(crate) async fn log<L: EventLog, P: PoolStore>(
    app: &Arc<App<L, P>>,
    request: &Request,
    stream: &str,
) -> Result<Response, Problem> {
    let stream = app.visible(request, stream)?;
    let query = Query::of(request)?;
    let body = query.flag("body")?;
    let limit = usize::try_from(query.number("limit", 1..=1_000)?.unwrap_or(100)).unwrap_or(1_000);
    app.wait_for(request, &query).await?;
    let after = query.number("after", 0..=u64::MAX)?.map(Position);
    let until = Position(query.number("until", 0..=u64::MAX)?.unwrap_or(u64::MAX));
    let at = app.moment(&stream, &query, "at").await?;
    let until = until.min(at.unwrap_or(until));
    // As of the request: what comes meanwhile is not missing from this page.
    let head = app.engine.head();
    let page = app.engine.stream_page(&stream, after, |page| PageRequest {
        until,
        events_max: limit,
        bytes_max: PAGE_BYTES,
        ..page
    });
    let page = page.await?;
    let next = (page.through < until.min(head)).then_some(page.through);
    let mut response = match request.best_of(&["application/json", "application/x-ndjson"]) {
        Some(1) => ndjson(&page.events, body),
        _ => json_page(&page.events, next, body),
    };
    if let Some(next) = next {
        set_next(&mut response, &query, &format!("{stream}/log"), next);
    }
    Ok(response)
}

fn json_page(events: &[Event], next: Option<Position>, body: bool) -> Response {
    let mut json = String::from(r#"{"events":["#);
    for (n, event) in events.iter().enumerate() {
        if n > 0 {
            json.push(',');
        }
        push_event(&mut json, event, body);
    }
    let next = next.map_or_else(|| "null".to_owned(), |next| next.to_string());
    json.push_str(&format!(r#"],"next":{next}}}"#));
    json_response(json)
}

/// Says where the next page is: the same query behind this one.
fn set_next(response: &mut Response, query: &Query<'_>, path: &str, after: impl Display) {
    let others = query.raw_without("after");
    let link = format!("</api/streams/{path}?{others}after={after}>; rel=\"next\"");
    set(response, header::LINK, &link);
}

fn ndjson(events: &[Event], body: bool) -> Response {
    let mut lines = String::new();
    for event in events {
        push_event(&mut lines, event, body);
        lines.push('\n');
    }
    let mut response = json_response(lines);
    set(&mut response, header::CONTENT_TYPE, "application/x-ndjson");
    response
}

/// `GET /api/streams/{s}/log/{position}`
pub(crate) async fn log_event<L: EventLog, P: PoolStore>(
    app: &Arc<App<L, P>>,
    request: &Request,
    stream: &str,
    position: Position,
) -> Result<Response, Problem> {
    let stream = app.visible(request, stream)?;
    let query = Query::of(request)?;
    app.wait_for(request, &query).await?;
    let at = app.moment(&stream, &query, "at").await?;
    if at.is_some_and(|at| position > at) {
        return Err(Code::NotFound.into());
    }
    let after = Position(position.0.checked_sub(1).ok_or(Code::NotFound)?);
    let page = app
        .engine
        .stream_page(&stream, Some(after), |page| PageRequest {
            until: position,
            events_max: 1,
            ..page
        });
    let event = page.await?.events.pop().ok_or(Code::NotFound)?;
    if request.best_of(&["application/json", "application/octet-stream"]) == Some(1) {
        let mut response = Response::new(event.event.body.into());
        set(
            &mut response,
            header::CONTENT_TYPE,
            "application/octet-stream",
        );
        return Ok(response);
    }
    let mut json = String::new();
    push_event(&mut json, &event, true);
    Ok(json_response(json))
}

pub(crate) fn matches_etag(request: &Request, etag: &str) -> bool {
    let etag = etag.strip_prefix("W/").unwrap_or(etag);
    match request.header(header::IF_NONE_MATCH) {
        Header::One(value) => value
            .split(|byte| *byte == b',')
            .map(<[u8]>::trim_ascii)
            // A proxy that compresses weakens the tag; for a 304 weak comparison is the rule (RFC 9110, 13.1.2).
            .map(|given| given.strip_prefix(b"W/").unwrap_or(given))
            .any(|given| given == b"*" || given == etag.as_bytes()),
        Header::Absent | Header::Repeated => false,
    }
}

/// Where the next page starts: what the chain shows and the last id, in letters that need no encoding.
fn token_of(chain: Cursor, last: &ItemId) -> String {
    format!("{chain}.{}", const_hex::encode(last.as_str()))
}

fn parse_token(token: &str) -> Result<(Cursor, ItemId), Problem> {
    let parse = || {
        let (chain, last) = token.rsplit_once('.')?;
        let last = String::from_utf8(const_hex::decode(last).ok()?).ok()?;
        Some((chain.parse().ok()?, ItemId::new(last).ok()?))
    };
    parse()
        .ok_or_else(|| Problem::with(Code::InvalidParameter, "after is the next of another page"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_carry_any_id() {
        let chain: Cursor = "00000000000000a1.2.7".parse().unwrap();
        for id in ["a", "a/b %ü.\u{202e}"] {
            let id = ItemId::new(id).unwrap();
            let token = token_of(chain, &id);
            assert_eq!(parse_token(&token).unwrap(), (chain, id));
        }
        for bad in ["", "7", "7.61", "2.7.61"] {
            assert!(parse_token(bad).is_err(), "{bad}");
        }
        for bad in ["", ".", ".6", ".zz", ".ff", ".00", ".61.1"] {
            let bad = format!("{chain}{bad}");
            assert!(parse_token(&bad).is_err(), "{bad}");
        }
    }
}
