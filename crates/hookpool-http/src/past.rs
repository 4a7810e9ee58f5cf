//! The past of items: `at=`, their history, and how a stream differs between two moments. All under the rules that are served now.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use hookpool_core::{
    difference::Difference,
    name::{ItemId, StreamName},
    plan::Ruled,
    position::Position,
    time::Timestamp,
};
use hookpool_engine::{
    follow::{FollowError, blocking, follows_checkpoint},
    past::{Touch, View},
};
use hookpool_store::{EventLog, ItemPage, PoolError, PoolSnapshot, PoolStore};
use thiserror::Error;
use warp::{Reply, http::header, reply::Response};

use crate::{
    app::{App, Request, set},
    problem::{Code, Problem},
    query::{Query, decode},
    render::{Nested, json_response, push_difference, push_event_facts, push_values},
    viewer::Viewer,
};

/// Items of one moment that are read at once for a difference.
const ROWS: usize = 256;
const ROWS_BYTES: usize = 1 << 20;

impl<L: EventLog, P: PoolStore> App<L, P> {
    /// The position that `at=` names, as a position or a time.
    pub(crate) async fn moment(
        &self,
        stream: &StreamName,
        query: &Query<'_>,
        name: &str,
    ) -> Result<Option<Position>, Problem> {
        let Some(text) = query.text(name)? else {
            return Ok(None);
        };
        let position = match (text.parse(), text.parse::<Timestamp>()) {
            (Ok(position), _) => Position(position),
            (Err(_), Ok(time)) => self.engine.position_at(stream, time).await?,
            (Err(_), Err(_)) => {
                let known = format!("{name} is a position or an RFC 3339 time");
                return Err(Problem::with(Code::InvalidParameter, known));
            }
        };
        if position > self.engine.head() {
            let detail = format!("{name} is after the last event");
            return Err(Problem::with(Code::InvalidParameter, detail));
        }
        if position > self.engine.applied() {
            return Err(Code::NotYetApplied.into());
        }
        self.engine.must_reach(stream, position)?;
        Ok(Some(position))
    }

    /// A view of the pool, and what of the stream is served in it.
    pub(crate) async fn view(
        self: &Arc<Self>,
        stream: &StreamName,
    ) -> Result<View<P::Snapshot>, PoolError> {
        let (app, stream, pool) = (Arc::clone(self), stream.clone(), self.engine.pool());
        let view = move || {
            let ruled = app.engine.served(&pool, &stream)?;
            Ok(View {
                pool,
                stream,
                ruled,
            })
        };
        blocking(view).await
    }
}

/// `GET /api/streams/{s}/items/{id}/history`
pub(crate) async fn history<L: EventLog, P: PoolStore>(
    app: &Arc<App<L, P>>,
    request: &Request,
    stream: &str,
    id: &str,
) -> Result<Response, Problem> {
    let stream = app.visible(request, stream)?;
    let query = Query::of(request)?;
    let id = decode(id, false)
        .and_then(|id| ItemId::new(id).ok())
        .ok_or(Code::NotFound)?;
    let after = query.number("after", 0..=u64::MAX - 1)?.map(Position);
    let limit = usize::try_from(query.number("limit", 1..=1_000)?.unwrap_or(100)).unwrap_or(1_000);
    let nested = query.nested()?;
    app.wait_for(request, &query).await?;
    let at = app.moment(&stream, &query, "at").await?;
    let view = app.view(&stream).await?;
    let read = app.engine.history(view.clone(), id.clone(), after, limit);
    let (mut touches, mut more) = read.await?;
    if let Some(at) = at {
        let read = touches.len();
        touches.retain(|touch| touch.event.position <= at);
        more = more && touches.len() == read;
    }
    if touches.is_empty() && after.unwrap_or_default() == Position::ZERO {
        // It may be there, and all that touched it expired; of a deleted one nothing is left to be seen then.
        let item = match at {
            Some(at) => app.engine.item_at(view, id, at).await?,
            None => {
                let generation = view.ruled.generation;
                blocking(move || view.pool.item(&view.stream, generation, &id)).await?
            }
        };
        item.ok_or(Code::NotFound)?;
    }
    // Items are compared for it, and may be large.
    let json = blocking(move || history_page(&touches, more, nested)).await;
    Ok(json_response(json))
}

fn history_page(touches: &[Touch], more: bool, nested: Nested) -> String {
    let mut json = String::from(r#"{"events":["#);
    for (n, touch) in touches.iter().enumerate() {
        json.push_str(if n > 0 { ",{" } else { "{" });
        push_touch(&mut json, touch, nested);
        json.push('}');
    }
    let next = touches.last().filter(|_| more);
    let next = next.map_or_else(
        || "null".to_owned(),
        |touch| touch.event.position.to_string(),
    );
    json.push_str(&format!(r#"],"next":{next}}}"#));
    json
}

fn push_touch(json: &mut String, touch: &Touch, nested: Nested) {
    push_event_facts(json, &touch.event);
    let superseded = touch.superseded;
    json.push_str(&format!(r#","superseded":{superseded},"fields":"#));
    let before = touch.before.clone().unwrap_or_default();
    let difference = Difference::between(Some(&before), Some(&touch.after));
    push_values(json, difference.as_ref(), nested);
}

/// `GET /api/streams/{s}/diff?from=P&to=Q`, as lines of JSON
pub(crate) async fn diff<L: EventLog, P: PoolStore>(
    app: &Arc<App<L, P>>,
    request: &Request,
    stream: &str,
) -> Result<Response, Problem> {
    let viewer = Viewer::of(request)?;
    let stream = app.seen_by(&viewer, stream)?;
    let query = Query::of(request)?;
    let nested = query.nested()?;
    let missing = || Problem::with(Code::InvalidParameter, "from and to are positions or times");
    let from = app.moment(&stream, &query, "from").await?;
    let to = app.moment(&stream, &query, "to").await?;
    let (from, to) = (from.ok_or_else(missing)?, to.ok_or_else(missing)?);
    let lines = Lines {
        app: Arc::clone(app),
        viewer,
        ruled: app.view(&stream).await?.ruled,
        stream,
        from,
        to,
        nested,
        after: None,
        ended: false,
    };
    let lines = stream::try_unfold(lines, Lines::next);
    let mut response = warp::reply::stream(lines).into_response();
    set(&mut response, header::CONTENT_TYPE, "application/x-ndjson");
    Ok(response)
}

/// Why a difference is broken off.
#[derive(Debug, Error)]
enum BrokenOff {
    #[error("the key may not read the stream any more")]
    Revoked,
    #[error("the generation that was served is not kept any more")]
    Gone,
    #[error("the server stops")]
    Stopping,
    #[error(transparent)]
    Read(#[from] FollowError),
}

/// The items of a stream that are still to be compared at two moments.
///
/// Between two reads it holds no view of the pool: the newest one says the same of every moment that can still be read.
struct Lines<L, P: PoolStore> {
    app: Arc<App<L, P>>,
    viewer: Viewer,
    stream: StreamName,
    ruled: Ruled,
    from: Position,
    to: Position,
    nested: Nested,
    after: Option<ItemId>,
    ended: bool,
}

impl<L: EventLog, P: PoolStore> Lines<L, P> {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, BrokenOff> {
        while !self.ended {
            if !self.app.engine.status().is_ready() {
                return Err(BrokenOff::Stopping);
            }
            let lines = self.some().await?;
            if !lines.is_empty() {
                return Ok(Some((lines.into(), self)));
            }
        }
        Ok(None)
    }

    /// Some more lines; none if none of the next items differs.
    async fn some(&mut self) -> Result<String, BrokenOff> {
        let engine = &self.app.engine;
        if !self.viewer.may_read(engine, self.stream.as_str()) {
            return Err(BrokenOff::Revoked);
        }
        let view = View {
            pool: engine.pool(),
            stream: self.stream.clone(),
            ruled: self.ruled.clone(),
        };
        let page = touched_items(view.clone(), self.after.take()).await?;
        let page = page.ok_or(BrokenOff::Gone)?;
        self.ended = !page.more;
        self.after = page.items.last().map(|(id, _)| id.clone());
        let earlier = self.from.min(self.to);
        let mut lines = String::new();
        // Only those may differ that were touched after the earlier moment.
        for (id, _) in page.items.iter().filter(|(_, now)| now.position > earlier) {
            let (old, new) = (
                engine.item_at(view.clone(), id.clone(), self.from).await?,
                engine.item_at(view.clone(), id.clone(), self.to).await?,
            );
            if let Some(difference) = Difference::between(old.as_ref(), new.as_ref()) {
                push_difference(&mut lines, id.as_str(), &difference, self.nested);
                lines.push('\n');
            }
        }
        // An item that expired is not among those that were read.
        engine.must_reach(&self.stream, earlier)?;
        Ok(lines)
    }
}

/// The next items that there ever were; `None` if the view does not have the generation any more.
async fn touched_items<S: PoolSnapshot>(
    view: View<S>,
    after: Option<ItemId>,
) -> Result<Option<ItemPage>, FollowError> {
    let read = move || -> Result<_, PoolError> {
        if !follows_checkpoint(&*view.pool, &view.stream, view.ruled.generation)? {
            return Ok(None);
        }
        let page = view.touched_items(after.as_ref(), ROWS, ROWS_BYTES);
        page.map(Some)
    };
    Ok(blocking(read).await?)
}
