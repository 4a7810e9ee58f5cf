//! Follows a stream over any number of connections as if it were one.

use std::{fmt, pin::Pin, time::Duration};

use futures_util::{Stream, stream};
use hookpool_core::key::Secret;
use reqwest::{
    RequestBuilder, Response,
    header::{ACCEPT, CONTENT_TYPE},
};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::{
    backoff::Backoff,
    error::Error,
    frame::{Frame, Reset},
    problem::text,
    server::Server,
    sse,
};

const HEARTBEAT_SECONDS: u64 = 15;
/// Two heartbeats may be late or lost; then the connection is taken for dead.
const SILENCE_MAX: Duration = Duration::from_secs(2 * HEARTBEAT_SECONDS + 5);
const SILENT: &str = "it fell silent";
const BACKOFF: Backoff = Backoff {
    first: Duration::from_secs(1),
    longest: Duration::from_secs(30),
};

/// Where to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// With all items as they are, then the changes.
    Snapshot,
    /// With the next change.
    Now,
    /// With the first change there is.
    Earliest,
    /// After what a cursor has seen.
    Cursor(String),
}

impl Start {
    fn parameter(&self) -> &str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Now => "now",
            Self::Earliest => "earliest",
            Self::Cursor(cursor) => cursor,
        }
    }
}

/// Told to whom it concerns when a connection is lost that will be made again.
#[derive(Debug)]
pub struct Interruption {
    /// What happened.
    pub error: Error,
    /// When the next try is made.
    pub retry_in: Duration,
}

type Observer = Box<dyn FnMut(&Interruption) + Send>;

/// Follows one stream.
///
/// After a cut it connects again and resumes where it was: each change comes once and in order. A cut inside a snapshot, which has
/// nothing to resume from, starts the snapshot again, announced by [`Frame::Reset`] with [`Reset::CUT`]; so whoever forgets
/// everything at a `Reset` is never wrong.
///
/// It ends with an error only if trying again is no use: the key is refused, the stream does not exist, the answer is
/// not Hookpool's, or not even the first connection could be made.
pub struct Follower {
    server: Server,
    stream: String,
    key: Secret,
    start: Start,
    item: Option<String>,
    backoff: Backoff,
    observer: Option<Observer>,
    /// What to resume from; empty until the server gave a cursor.
    cursor: String,
    /// Rows were handed out and their snapshot has not ended.
    inside_snapshot: bool,
    /// The next frame comes from another connection than the row before it.
    was_cut: bool,
    /// Whether any connection was ever made.
    was_reached: bool,
    failures: u32,
    /// A frame that waits behind a [`Reset::CUT`].
    held: Option<Frame>,
    state: State,
}

enum State {
    Waiting(Instant),
    /// Kept here and not in [`Follower::next`], so that dropping that does not start over.
    Connecting(Pin<Box<dyn Future<Output = Result<Connection, Error>> + Send>>),
    Connected(Box<Connection>),
    Ended,
}

struct Connection {
    response: Response,
    parser: sse::Parser,
    heard: Instant,
}

impl Follower {
    /// Follows a stream from a snapshot on, with a read key or an operator key. Nothing is sent before [`next`](Self::next).
    #[must_use]
    pub fn new(server: Server, stream: impl Into<String>, key: Secret) -> Self {
        Self {
            server,
            stream: stream.into(),
            key,
            start: Start::Snapshot,
            item: None,
            backoff: BACKOFF,
            observer: None,
            cursor: String::new(),
            inside_snapshot: false,
            was_cut: false,
            was_reached: false,
            failures: 0,
            held: None,
            state: State::Waiting(Instant::now()),
        }
    }

    /// Starts elsewhere.
    #[must_use]
    pub fn start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// Only this item.
    #[must_use]
    pub fn item(mut self, item_id: impl Into<String>) -> Self {
        self.item = Some(item_id.into());
        self
    }

    /// Other waits between connections than 1 s to 30 s. The server's `retry:` still sets the first one.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Calls back at each interruption, for logs and people.
    #[must_use]
    pub fn on_interruption(mut self, observer: impl FnMut(&Interruption) + Send + 'static) -> Self {
        self.observer = Some(Box::new(observer));
        self
    }

    /// The next frame; `None` after an error. Dropping the future loses nothing, so it may stand in a `select!`.
    pub async fn next(&mut self) -> Option<Result<Frame, Error>> {
        loop {
            if let Some(frame) = self.held.take() {
                return Some(Ok(frame));
            }
            let step = match &mut self.state {
                State::Ended => return None,
                State::Waiting(until) => {
                    sleep_until(*until).await;
                    self.connection().map(|connection| {
                        self.state = State::Connecting(Box::pin(connection));
                        None
                    })
                }
                State::Connecting(connection) => connection.await.map(|connection| {
                    self.was_reached = true;
                    self.state = State::Connected(Box::new(connection));
                    None
                }),
                State::Connected(connection) => match connection.event(&self.server).await {
                    Ok(event) => self.accept(event),
                    Err(error) => Err(error),
                },
            };
            match step.or_else(|error| self.interrupted(error)) {
                Ok(None) => {}
                Ok(Some(frame)) => return Some(Ok(frame)),
                Err(error) => {
                    self.state = State::Ended;
                    return Some(Err(error));
                }
            }
        }
    }

    /// The same as a `Stream`.
    pub fn into_stream(self) -> impl Stream<Item = Result<Frame, Error>> {
        stream::unfold(self, async |mut follower| {
            let frame = follower.next().await?;
            Some((frame, follower))
        })
    }

    /// A connection in the making, which resumes where this follower is.
    fn connection(
        &self,
    ) -> Result<impl Future<Output = Result<Connection, Error>> + Send + use<>, Error> {
        let path = ["api", "streams", self.stream.as_str(), "changes"];
        let mut request = self
            .server
            .get(&path, Some(&self.key))?
            .header(ACCEPT, "text/event-stream")
            .query(&[("after", self.start.parameter())])
            .query(&[("heartbeat", HEARTBEAT_SECONDS)]);
        if let Some(item) = &self.item {
            request = request.query(&[("item", item)]);
        }
        if !self.cursor.is_empty() {
            request = request.header("last-event-id", &self.cursor);
        }
        let parser = sse::Parser::resuming(self.cursor.clone());
        Ok(Connection::open(self.server.clone(), request, parser))
    }

    /// Turns an event into a frame and remembers what is needed to resume after it.
    fn accept(&mut self, event: sse::Event) -> Result<Option<Frame>, Error> {
        let cursor = event.last_event_id.clone();
        let frame = Frame::read(event)?;
        self.cursor = cursor;
        self.failures = 0;
        let Some(frame) = frame else { return Ok(None) };
        let starts_over =
            std::mem::take(&mut self.was_cut) && self.inside_snapshot && !is_reset(&frame);
        match frame {
            Frame::Item(_) => self.inside_snapshot = true,
            Frame::SnapshotEnd(_) | Frame::Reset(_) => self.inside_snapshot = false,
            Frame::Change(_) | Frame::Bookmark(_) | Frame::Generation(_) | Frame::Goodbye(_) => {}
        }
        if !starts_over {
            return Ok(Some(frame));
        }
        self.held = Some(frame);
        Ok(Some(Frame::Reset(Reset {
            reason: Reset::CUT.to_owned(),
            requested: None,
            earliest: None,
        })))
    }

    /// Plans the next connection, or gives the error back if there should be none.
    fn interrupted(&mut self, error: Error) -> Result<Option<Frame>, Error> {
        if !self.is_temporary(&error) {
            return Err(error);
        }
        if let State::Connected(connection) = &self.state
            && let Some(first) = connection.parser.retry()
        {
            self.backoff.first = first;
            self.backoff.longest = self.backoff.longest.max(first);
        }
        self.was_cut = true;
        self.failures = self.failures.saturating_add(1);
        let wait = self.backoff.jittered(self.failures);
        let retry_in = error.retry_after().map_or(wait, |asked| asked + wait);
        self.state = State::Waiting(Instant::now() + retry_in);
        if let Some(observer) = &mut self.observer {
            observer(&Interruption { error, retry_in });
        }
        Ok(None)
    }

    fn is_temporary(&self, error: &Error) -> bool {
        match error {
            Error::Unreachable { sent, .. } => *sent || self.was_reached,
            Error::Problem(problem) => matches!(problem.status, 408 | 429 | 500..),
            Error::Protocol(_) | Error::Invalid(_) => false,
        }
    }
}

impl Connection {
    async fn open(
        server: Server,
        request: RequestBuilder,
        parser: sse::Parser,
    ) -> Result<Self, Error> {
        let response = timeout(SILENCE_MAX, server.head(request))
            .await
            .map_err(|_| server.lost(SILENT))??;
        let media_type = text(response.headers(), CONTENT_TYPE.as_str()).unwrap_or_default();
        if !media_type.starts_with("text/event-stream") {
            return Err(Error::Protocol(format!(
                "{media_type:?} instead of text/event-stream"
            )));
        }
        Ok(Self {
            response,
            parser,
            heard: Instant::now(),
        })
    }

    /// The next event of this connection; its end is an error like every other.
    async fn event(&mut self, server: &Server) -> Result<sse::Event, Error> {
        loop {
            if let Some(event) = self.parser.next_event() {
                return Ok(event);
            }
            let chunk = timeout_at(self.heard + SILENCE_MAX, self.response.chunk())
                .await
                .map_err(|_| server.lost(SILENT))?
                .map_err(|error| server.failed(&error))?
                .ok_or_else(|| server.lost("the stream ended"))?;
            self.heard = Instant::now();
            self.parser
                .push(&chunk)
                .map_err(|error| Error::Protocol(error.to_string()))?;
        }
    }
}

fn is_reset(frame: &Frame) -> bool {
    matches!(frame, Frame::Reset(_))
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower")
            .field("server", &self.server.url())
            .field("stream", &self.stream)
            .field("item", &self.item)
            .field("cursor", &self.cursor)
            .finish_non_exhaustive()
    }
}
