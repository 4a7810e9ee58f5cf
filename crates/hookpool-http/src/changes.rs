//! `GET /api/streams/{s}/changes`: a snapshot, then every change, on one connection that can be cut anywhere.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use hookpool_core::{
    cursor::Cursor,
    json,
    key::PresentedKey,
    name::{ItemId, StreamName},
    position::Position,
    verify::Header,
};
use hookpool_engine::{
    follow::{Follower, Form, Step, blocking},
    status::Status,
};
use hookpool_store::{EventLog, ItemPage, PoolError, PoolSnapshot, PoolStore, ReadError};
use tokio::sync::watch;
use warp::{
    Reply,
    http::{HeaderName, header},
    reply::Response,
};

use crate::{
    app::{App, Request, set},
    metrics::FollowerGauge,
    problem::{Code, Problem},
    query::Query,
    render::{Nested, push_item},
    sse::{Framing, RETRY},
};

/// Rows of a snapshot that are written at once.
const ROWS: usize = 256;
/// Bytes of item text in them; the last row may go over.
const ROWS_BYTES: usize = 256 << 10;

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

/// Where a client wants to start.
#[derive(Debug, PartialEq, Eq)]
enum Start {
    Snapshot,
    Now,
    Earliest,
    /// As sent: whether it is a cursor of ours is answered on the stream.
    Cursor(String),
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

/// One open connection.
struct Session<L, P: PoolStore> {
    app: Arc<App<L, P>>,
    framing: Framing,
    stream: StreamName,
    item: Option<ItemId>,
    heartbeat: Duration,
    authorization: Bytes,
    registry: watch::Receiver<Position>,
    status: watch::Receiver<Status>,
    phase: Phase<L, P>,
    /// Frames that are ready to go out before the phase goes on.
    ready: VecDeque<Bytes>,
    greeted: bool,
    _open: FollowerGauge,
}

enum Phase<L, P: PoolStore> {
    Snapshot {
        pool: Arc<P::Snapshot>,
        after: Option<ItemId>,
        rows: u64,
    },
    Live(Box<Follower<L>>),
    Ended,
}

/// So that the first look at it checks the key again: it may have been revoked since the request came.
fn changed_at_first(mut registry: watch::Receiver<Position>) -> watch::Receiver<Position> {
    registry.mark_changed();
    registry
}

/// What a live connection woke up for.
enum Woken {
    Step(Result<Step, ReadError>),
    Quiet,
    Stopping,
    RegistryChanged,
}

impl<L: EventLog, P: PoolStore> Session<L, P> {
    fn new(
        app: &Arc<App<L, P>>,
        framing: Framing,
        stream: StreamName,
        item: Option<ItemId>,
        heartbeat: Duration,
        authorization: Bytes,
        start: Start,
    ) -> Self {
        let mut session = Self {
            framing,
            stream,
            item,
            heartbeat,
            authorization,
            registry: changed_at_first(app.engine.control().changes()),
            status: app.engine.status().subscribe(),
            phase: Phase::Ended,
            ready: VecDeque::new(),
            greeted: false,
            _open: app.metrics.follower(),
            app: Arc::clone(app),
        };
        session.begin(start);
        session
    }

    fn begin(&mut self, start: Start) {
        match start {
            Start::Snapshot => self.phase = self.snapshot(),
            Start::Earliest => self.phase = self.live(Position::ZERO),
            Start::Now => {
                // The head, not what is applied: what was acknowledged before this request is the past.
                let now = self.app.engine.head();
                self.bookmark(now);
                self.phase = self.live(now);
            }
            Start::Cursor(text) => match self.honour(&text) {
                Ok(position) => self.phase = self.live(position),
                Err(reason) => {
                    self.reset(reason, &text);
                    self.phase = self.snapshot();
                }
            },
        }
    }

    /// The position of a cursor that this log can go on from.
    fn honour(&self, text: &str) -> Result<Position, &'static str> {
        let cursor: Cursor = text.parse().map_err(|_| "malformed")?;
        let here = self.app.engine.cursor(self.app.engine.head());
        if cursor.epoch != here.epoch {
            Err("other-epoch")
        } else if cursor.generation != here.generation {
            Err("other-generation")
        } else if cursor.position > here.position {
            tracing::warn!(cursor = %cursor, head = %here, "a follower says it has seen more than this log holds");
            Err("ahead-of-head")
        } else {
            Ok(cursor.position)
        }
    }

    fn snapshot(&self) -> Phase<L, P> {
        Phase::Snapshot {
            pool: self.app.engine.pool(),
            after: None,
            rows: 0,
        }
    }

    fn live(&self, after: Position) -> Phase<L, P> {
        let shared = self.framing == Framing::Sse && self.item.is_none();
        let form = if shared { Form::Encoded } else { Form::Events };
        Phase::Live(Box::new(self.app.engine.follow(
            self.stream.clone(),
            form,
            after,
        )))
    }

    /// The next bytes to send, or the end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                return Some(self.greet(bytes));
            }
            match &mut self.phase {
                Phase::Ended => return None,
                Phase::Snapshot { .. } => self.snapshot_rows().await,
                Phase::Live(_) => self.live_step().await,
            }
        }
    }

    /// The first frame with data carries the retry time; alone it would be an empty event to some clients.
    fn greet(&mut self, bytes: Bytes) -> Bytes {
        if self.greeted || self.framing == Framing::Ndjson || !bytes.starts_with(b"event:") {
            return bytes;
        }
        self.greeted = true;
        [RETRY, &bytes].concat().into()
    }

    /// Some rows of the snapshot, or its end.
    async fn snapshot_rows(&mut self) {
        if !self.app.engine.status().is_ready() {
            return self.goodbye("shutdown");
        }
        if self.registry.has_changed().unwrap_or(true) {
            self.registry.mark_unchanged();
            if !self.may_still_read() {
                return self.goodbye("revoked");
            }
        }
        let Phase::Snapshot { pool, after, .. } = &self.phase else {
            return;
        };
        match blocking(rows_after(
            Arc::clone(pool),
            self.stream.clone(),
            self.item.clone(),
            after.clone(),
        ))
        .await
        {
            Ok(page) => self.push_rows(&page),
            Err(error) => {
                tracing::error!(%error, "a snapshot can't be read");
                self.goodbye("unreadable");
            }
        }
    }

    fn push_rows(&mut self, page: &ItemPage) {
        let Phase::Snapshot { pool, after, rows } = &mut self.phase else {
            return;
        };
        *rows += page.items.len() as u64;
        let mut bytes = Vec::new();
        for (id, item) in &page.items {
            let mut json = format!(r#"{{"stream":"{}","#, self.stream);
            push_item(&mut json, id.as_str(), item, Nested::AsString);
            json.push_str(&format!(r#","position":{}}}"#, item.position));
            self.framing.push(&mut bytes, "item", None, &json);
        }
        if !bytes.is_empty() {
            self.ready.push_back(bytes.into());
        }
        if page.more {
            *after = page.items.last().map(|(id, _)| id.clone());
            return;
        }
        let position = pool
            .checkpoint()
            .map_or(Position::ZERO, |checkpoint| checkpoint.position);
        let data = format!(r#"{{"position":{position},"items":{rows}}}"#);
        self.push("snapshot-end", Some(position), &data);
        self.phase = self.live(position);
    }

    async fn live_step(&mut self) {
        match self.woken().await {
            Woken::Step(Ok(Step::Encoded(bytes))) => self.ready.push_back(bytes),
            Woken::Step(Ok(Step::Events(events))) => self.push_events(&events),
            Woken::Step(Err(error)) => {
                tracing::error!(%error, "a follower can't go on");
                self.goodbye("unreadable");
            }
            Woken::Quiet => self
                .ready
                .push_back(Bytes::from_static(self.framing.heartbeat())),
            Woken::Stopping => self.goodbye("shutdown"),
            Woken::RegistryChanged => {
                if !self.may_still_read() {
                    self.goodbye("revoked");
                }
            }
        }
    }

    async fn woken(&mut self) -> Woken {
        let Phase::Live(follower) = &mut self.phase else {
            return Woken::Quiet;
        };
        tokio::select! {
            biased;
            _ = self.status.wait_for(|status| *status != Status::Ready) => Woken::Stopping,
            _ = self.registry.changed() => Woken::RegistryChanged,
            step = follower.next() => Woken::Step(step),
            () = tokio::time::sleep(self.heartbeat) => Woken::Quiet,
        }
    }

    /// Frames of these events; a bookmark if the filter hides them all.
    fn push_events(&mut self, events: &[hookpool_core::event::Event]) {
        let mut bytes = Vec::new();
        for event in events.iter().filter(|event| {
            self.item
                .as_ref()
                .is_none_or(|id| *id == event.event.item_id)
        }) {
            match json::object(&event.event.body) {
                Ok(object) => self.framing.push_change(
                    &mut bytes,
                    &self.app.engine.cursor(event.position),
                    event,
                    &object.fields,
                ),
                Err(error) => {
                    tracing::error!(position = %event.position, %error, "a recorded body is not an object");
                    return self.goodbye("unreadable");
                }
            }
        }
        if !bytes.is_empty() {
            self.ready.push_back(bytes.into());
        } else if let (false, Phase::Live(follower)) = (events.is_empty(), &self.phase) {
            self.bookmark(follower.position());
        }
    }

    fn may_still_read(&self) -> bool {
        PresentedKey::from_authorization(&self.authorization)
            .and_then(|key| self.app.engine.access(&key))
            .is_some_and(|access| access.may_read(self.stream.as_str()))
    }

    fn bookmark(&mut self, position: Position) {
        self.push(
            "bookmark",
            Some(position),
            &format!(r#"{{"position":{position}}}"#),
        );
    }

    fn reset(&mut self, reason: &str, requested: &str) {
        let earliest = self.app.engine.cursor(Position::ZERO).to_string();
        // Only as much of a stranger's text as a cursor may have.
        let requested: String = requested.chars().take(64).collect();
        let data =
            serde_json::json!({ "reason": reason, "requested": requested, "earliest": earliest });
        self.push("reset", None, &data.to_string());
    }

    fn goodbye(&mut self, reason: &str) {
        self.push("goodbye", None, &format!(r#"{{"reason":"{reason}"}}"#));
        self.phase = Phase::Ended;
    }

    fn push(&mut self, event: &str, position: Option<Position>, data: &str) {
        let cursor = position.map(|position| self.app.engine.cursor(position));
        let mut bytes = Vec::new();
        self.framing.push(&mut bytes, event, cursor.as_ref(), data);
        self.ready.push_back(bytes.into());
    }
}

/// The next rows of a snapshot, all of them or those of one item.
fn rows_after<S: PoolSnapshot>(
    pool: Arc<S>,
    stream: StreamName,
    item: Option<ItemId>,
    after: Option<ItemId>,
) -> impl FnOnce() -> Result<ItemPage, PoolError> {
    move || {
        let generation = pool.generation(&stream)?;
        match item {
            Some(id) => {
                let item = pool.item(&stream, generation, &id)?;
                Ok(ItemPage {
                    items: item.map(|item| (id, item)).into_iter().collect(),
                    more: false,
                })
            }
            None => pool.items(&stream, generation, after.as_ref(), ROWS, ROWS_BYTES),
        }
    }
}
