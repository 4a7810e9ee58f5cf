//! `GET /api/streams/{s}/changes` and `GET /api/changes`: a snapshot, then every change, on one connection that can be cut anywhere.

mod feeds;
mod heartbeat;
mod poll;
mod selected;
mod session;
mod wire;

use std::{collections::BTreeSet, convert::Infallible, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use hookpool_core::{
    name::{ItemId, StreamName},
    position::Position,
    time::Timestamp,
    verify::Header,
};
use hookpool_store::{EventLog, PoolStore};
use tokio_stream::StreamMap;
use warp::{
    Reply,
    http::{HeaderName, header},
    reply::Response,
};

use crate::{
    app::{App, Request, set},
    problem::{Code, Problem},
    query::Query,
    render::Nested,
    server::Endless,
    sse::Framing,
};
pub(crate) use feeds::Feeds;
use heartbeat::Heartbeat;
use selected::Wanted;
use session::{Ask, Session, Start};
use wire::{Asked, Out, Places, Wire};

/// Streams on one connection.
const STREAMS_MAX: usize = 64;

/// The changes of one stream.
pub(crate) fn of_stream<L: EventLog, P: PoolStore>(
    app: &Arc<App<L, P>>,
    request: &Request,
    stream: &str,
) -> Result<Response, Problem> {
    let viewer = app.viewer(request, &Query::new(&request.query))?;
    let stream = app.seen_by(&viewer, stream)?;
    let query = Query::of(request)?;
    let wish = Wish::parse(request, &query)?;
    let place = Asked::parse(request, &query)?.one();
    let ask = Ask {
        shared: match wish.form {
            Form::Open(framing) if wish.wanted.nested == Nested::AsString => Some(framing),
            Form::Open(_) | Form::Poll => None,
        },
        ..wish.of(stream, Start::parse(place.clone()))
    };
    let outs = outs(Session::new(app, viewer, ask));
    Ok(wish.answer(request, outs, 1, Places::of_one(place)))
}

/// The changes of several streams.
pub(crate) fn of_streams<L: EventLog, P: PoolStore>(
    app: &Arc<App<L, P>>,
    request: &Request,
) -> Result<Response, Problem> {
    let viewer = app.viewer(request, &Query::new(&request.query))?;
    let query = Query::of(request)?;
    let names = query.texts("stream")?;
    let streams = names.iter().map(|name| app.seen_by(&viewer, name));
    let streams: BTreeSet<_> = streams.collect::<Result<_, _>>()?;
    if !(1..=STREAMS_MAX).contains(&streams.len()) {
        let known = format!("stream is given from 1 to {STREAMS_MAX} times");
        return Err(Problem::with(Code::InvalidParameter, known));
    }
    let wish = Wish::parse(request, &query)?;
    let asked = Asked::parse(request, &query)?;
    let places = Places::of_several(&asked, &streams);
    let mut all = StreamMap::new();
    for (n, stream) in streams.iter().enumerate() {
        let ask = wish.of(stream.clone(), asked.start(stream));
        all.insert(n, outs(Session::new(app, viewer.clone(), ask)));
    }
    let outs = Box::pin(all.map(|(_, out)| out));
    Ok(wish.answer(request, outs, streams.len(), places))
}

/// How the answer looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// A stream that goes on.
    Open(Framing),
    /// What there is, once there is something.
    Poll,
}

impl Form {
    fn of(request: &Request) -> Result<Self, Problem> {
        const FORMS: [Form; 3] = [
            Form::Open(Framing::Sse),
            Form::Open(Framing::Ndjson),
            Form::Poll,
        ];
        let best = request.best_of(&FORMS.map(Self::media_type));
        best.and_then(|best| FORMS.get(best).copied())
            .ok_or_else(|| Code::NotAcceptable.into())
    }

    fn media_type(self) -> &'static str {
        match self {
            Self::Open(framing) => framing.media_type(),
            Self::Poll => "application/json",
        }
    }
}

/// What a client asks of each stream.
struct Wish {
    form: Form,
    wanted: Arc<Wanted>,
    conflate: Option<Duration>,
    until: Option<Position>,
    heartbeat: Duration,
}

impl Wish {
    fn parse(request: &Request, query: &Query<'_>) -> Result<Self, Problem> {
        let item = query.text("item")?.map(|id| {
            ItemId::new(id)
                .map_err(|_| Problem::with(Code::InvalidParameter, "item is not an item id"))
        });
        let conflate = query.number("conflate", 1..=60_000)?;
        let conflate = conflate.map(Duration::from_millis);
        Ok(Self {
            form: Form::of(request)?,
            wanted: Arc::new(Wanted {
                item: item.transpose()?,
                selection: query.selection()?,
                merged: conflate.is_some(),
                nested: query.nested()?,
            }),
            conflate,
            until: query.number("until", 0..=u64::MAX)?.map(Position),
            heartbeat: Duration::from_secs(query.number("heartbeat", 1..=60)?.unwrap_or(15)),
        })
    }

    fn of(&self, stream: StreamName, start: Start) -> Ask {
        Ask {
            stream,
            start,
            wanted: Arc::clone(&self.wanted),
            conflate: self.conflate.unwrap_or_default(),
            until: self.until,
            says_at_rest: self.form == Form::Poll,
            shared: None,
        }
    }

    fn answer(self, request: &Request, outs: Outs, left: usize, places: Places) -> Response {
        let connection = |framing, heartbeat| Connection {
            outs,
            wire: Wire::new(framing, places),
            left,
            at_rest: BTreeSet::new(),
            heartbeat,
        };
        match self.form {
            Form::Open(framing) => {
                let heartbeat = Heartbeat::new(self.heartbeat);
                open(connection(framing, Some(heartbeat)), framing)
            }
            Form::Poll => poll::answer(request, connection(Framing::Ndjson, None)),
        }
    }
}

impl Start {
    fn parse(place: Option<String>) -> Self {
        match place.as_deref() {
            None | Some("snapshot") => Self::Snapshot,
            Some("now") => Self::Now,
            Some("earliest") => Self::Earliest,
            Some(text) => match text.parse::<Timestamp>() {
                Ok(time) => Self::Time(time),
                Err(_) => Self::Cursor(text.to_owned()),
            },
        }
    }
}

impl Asked {
    /// `Last-Event-ID` wins over `last_event_id`.
    fn parse(request: &Request, query: &Query<'_>) -> Result<Self, Problem> {
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
        let after = query.text("after")?;
        Ok(Self { resumed, after })
    }
}

/// What the sessions of one connection hand out, in the order of each.
type Outs = Pin<Box<dyn Stream<Item = (StreamName, Out)> + Send + Sync>>;

fn outs<L: EventLog, P: PoolStore>(session: Session<L, P>) -> Outs {
    Box::pin(stream::unfold(session, |mut session| async move {
        let out = session.next().await?;
        Some(((session.stream().clone(), out), session))
    }))
}

/// One connection: everything that is said on it goes through here.
struct Connection {
    outs: Outs,
    wire: Wire,
    /// Streams that have not ended.
    left: usize,
    /// Those of them that said that they have nothing more for now.
    at_rest: BTreeSet<StreamName>,
    /// Whatever its streams are at; `None` says nothing however long it is quiet.
    heartbeat: Option<Heartbeat>,
}

impl Connection {
    /// The next bytes; `None` after the end.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(heartbeat) = &mut self.heartbeat {
            heartbeat.restart();
        }
        loop {
            let bytes = self.step().await?;
            if !bytes.is_empty() {
                return Some(bytes);
            }
        }
    }

    /// The bytes of what a stream does next, which may be none; `None` after the end.
    async fn step(&mut self) -> Option<Bytes> {
        if self.left == 0 {
            return None;
        }
        let quiet = async {
            match &mut self.heartbeat {
                Some(heartbeat) => heartbeat.due().await,
                None => std::future::pending().await,
            }
        };
        let (stream, out) = tokio::select! {
            biased;
            // What a stream is at is in the stream, and is not lost with this.
            out = self.outs.next() => out?,
            () = quiet => return Some(self.wire.heartbeat()),
        };
        match out {
            Out::AtRest => self.at_rest.insert(stream.clone()),
            _ => self.at_rest.remove(&stream),
        };
        if let Out::Goodbye(reason) = out {
            // A stream may be done before the others; anything else ends them all.
            let done = reason == session::DONE;
            self.left = if done { self.left - 1 } else { 0 };
            if self.left > 0 {
                return Some(Bytes::new());
            }
        }
        Some(self.wire.write(&stream, out))
    }

    /// Whether none of its streams has anything for now.
    fn is_at_rest(&self) -> bool {
        self.at_rest.len() == self.left
    }
}

/// Answers with a stream that ends when the client leaves, its key is revoked, the server stops, or all that it asked for is said.
fn open(connection: Connection, framing: Framing) -> Response {
    let frames = stream::unfold(connection, |mut connection| async move {
        let bytes = connection.next().await?;
        Some((Ok::<_, Infallible>(bytes), connection))
    });
    let mut response = streamed(frames, framing.media_type());
    response.extensions_mut().insert(Endless);
    response
}

fn streamed(
    body: impl Stream<Item = Result<Bytes, Infallible>> + Send + Sync + 'static,
    media_type: &str,
) -> Response {
    let mut response = warp::reply::stream(body).into_response();
    set(&mut response, header::CONTENT_TYPE, media_type);
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
    response
}
