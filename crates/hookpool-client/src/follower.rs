//! Follows a stream over any number of connections as if it were one.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    ops::RangeInclusive,
    pin::Pin,
    time::Duration,
};

use futures_util::{Stream, stream};
use hookpool_core::key::Secret;
use reqwest::{RequestBuilder, Response, header::CONTENT_TYPE};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::{
    ask::{Ask, Start, Streams},
    backoff::{Backoff, Dice},
    error::Error,
    frame::{Frame, Goodbye, Reset},
    problem::text,
    server::Server,
    sse,
    state::State as Items,
};

const SILENT: &str = "it fell silent";
const BACKOFF: Backoff = Backoff {
    first: Duration::from_secs(1),
    longest: Duration::from_secs(30),
};

/// What `retry:` may set the first wait to: never so short that doubling it leads nowhere, never so long that nobody would wait for it.
const RETRY: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(60);
/// No `Retry-After` is waited for longer.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);

/// Told to whom it concerns when a connection is lost that will be made again.
#[derive(Debug)]
pub struct Interruption {
    /// What happened.
    pub error: Error,
    /// When the next try is made.
    pub retry_in: Duration,
}

type Observer = Box<dyn FnMut(&Interruption) + Send>;

/// Follows one stream, or several on one connection.
///
/// After a cut it connects again and resumes where it was: each change comes once and in order. A cut inside a snapshot, which has
/// nothing to resume from, starts the snapshot again, announced by [`Frame::Reset`] with [`Reset::CUT`]; so whoever forgets
/// everything of its stream at a `Reset` is never wrong. Merged changes are handed out once all of their interval are there, so that a cut
/// tells none of them twice. [`State`](Items) does that.
///
/// It ends after [`until`](Self::until), and with an error only if trying again is no use: the key is refused, the stream does not exist, the answer is
/// not Hookpool's, or not even the first connection could be made.
pub struct Follower {
    server: Server,
    key: Secret,
    ask: Ask,
    backoff: Backoff,
    dice: Dice,
    observer: Option<Observer>,
    /// What to resume from; empty until the server gave a cursor.
    cursor: String,
    /// Streams of which rows were handed out, and whose snapshot has not ended.
    inside: BTreeSet<String>,
    /// Those of them of which nothing came since the connection was cut.
    cut: BTreeSet<String>,
    /// Whether any connection was ever made.
    was_reached: bool,
    failures: u32,
    /// Streams that are between two generations.
    crossing: BTreeSet<String>,
    /// Changes by stream whose id has not come: without it they are not to be resumed after, and come again.
    unmarked: BTreeMap<String, Vec<Frame>>,
    /// Frames that are ready.
    held: VecDeque<Frame>,
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
    silence_max: Duration,
}

impl Follower {
    /// Follows a stream from a snapshot on, with a read key or an operator key. Nothing is sent before [`next`](Self::next).
    #[must_use]
    pub fn new(server: Server, stream: impl Into<String>, key: Secret) -> Self {
        Self::asking(server, Streams::One(stream.into()), key)
    }

    /// Follows several streams on one connection. A cursor then says where each of them is.
    #[must_use]
    pub fn several<T: Into<String>>(
        server: Server,
        streams: impl IntoIterator<Item = T>,
        key: Secret,
    ) -> Self {
        let streams = streams.into_iter().map(Into::into).collect();
        Self::asking(server, Streams::Several(streams), key)
    }

    fn asking(server: Server, streams: Streams, key: Secret) -> Self {
        Self {
            server,
            key,
            ask: Ask::new(streams),
            backoff: BACKOFF,
            dice: Dice::default(),
            observer: None,
            cursor: String::new(),
            inside: BTreeSet::new(),
            cut: BTreeSet::new(),
            was_reached: false,
            failures: 0,
            crossing: BTreeSet::new(),
            unmarked: BTreeMap::new(),
            held: VecDeque::new(),
            state: State::Waiting(Instant::now()),
        }
    }

    /// Starts elsewhere.
    #[must_use]
    pub fn start(mut self, start: Start) -> Self {
        self.ask.start = start;
        self
    }

    /// Only this item.
    #[must_use]
    pub fn item(mut self, item_id: impl Into<String>) -> Self {
        self.ask.item = Some(item_id.into());
        self
    }

    /// Only items that meet a condition such as `status=open` or `sales>=1000`; with several all must hold.
    #[must_use]
    pub fn condition(mut self, condition: impl Into<String>) -> Self {
        self.ask.conditions.push(condition.into());
        self
    }

    /// Only these fields.
    #[must_use]
    pub fn fields<T: Into<String>>(mut self, names: impl IntoIterator<Item = T>) -> Self {
        self.ask.fields = names.into_iter().map(Into::into).collect();
        self
    }

    /// At most one frame for an item in this time, 1 ms to 60 s, with all that happened to it.
    #[must_use]
    pub fn conflate(mut self, interval: Duration) -> Self {
        self.ask.conflate = Some(interval);
        self
    }

    /// Ends after this position, once the log is there.
    #[must_use]
    pub fn until(mut self, position: u64) -> Self {
        self.ask.until = Some(position);
        self
    }

    /// How often a quiet server says that it is there: whole seconds, 1 to 60, 15 without this. A connection that misses two of them is
    /// made again.
    #[must_use]
    pub fn heartbeat(mut self, interval: Duration) -> Self {
        self.ask.heartbeat = interval;
        self
    }

    /// Other dice for the jitter of the waits.
    #[must_use]
    pub fn dice(mut self, dice: Dice) -> Self {
        self.dice = dice;
        self
    }

    /// The empty state of its streams, to be fed with its frames.
    #[must_use]
    pub fn state(&self) -> Items {
        Items::new(self.ask.streams.names())
    }

    /// Other waits between connections than 1 s to 30 s. The server's `retry:` still sets the first one, within 100 ms to 60 s.
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
            if let Some(frame) = self.held.pop_front() {
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
        let request = self.ask.request(&self.server, &self.key, &self.cursor)?;
        let parser = sse::Parser::resuming(self.cursor.clone());
        let silence_max = self.ask.silence_max();
        Ok(Connection::open(
            self.server.clone(),
            request,
            parser,
            silence_max,
        ))
    }

    /// Turns an event into a frame and remembers what is needed to resume after it.
    fn accept(&mut self, event: sse::Event) -> Result<Option<Frame>, Error> {
        let cursor = event.last_event_id.clone();
        let frame = Frame::read(event)?;
        self.cursor = cursor;
        // Who is sent away at once has not been served.
        if !matches!(frame, Some(Frame::Goodbye(_))) {
            self.failures = 0;
        }
        let Some(frame) = frame else { return Ok(None) };
        let stream = self.stream_of(&frame).to_owned();
        // A server's own reset says the same.
        if self.cut.remove(&stream) && !matches!(frame, Frame::Reset(_)) {
            self.held.push_back(self.cut_of(&stream));
        }
        match &frame {
            Frame::Item(_) => drop(self.inside.insert(stream)),
            Frame::SnapshotEnd(_) => drop(self.inside.remove(&stream)),
            Frame::Reset(_) => {
                self.inside.remove(&stream);
                self.crossing.remove(&stream);
                self.unmarked.remove(&stream);
            }
            Frame::Generation(_) => drop(self.crossing.insert(stream)),
            Frame::Bookmark(_) => drop(self.crossing.remove(&stream)),
            // The id of a `generation` is one that is answered with a reset: what comes behind it need not wait.
            Frame::Change(change) if !self.crossing.contains(&stream) => {
                if change.cursor.is_empty() {
                    self.unmarked.entry(stream).or_default().push(frame);
                    return Ok(self.held.pop_front());
                }
                let unmarked = self.unmarked.remove(&stream);
                self.held.extend(unmarked.into_iter().flatten());
            }
            Frame::Change(_) => {}
            Frame::Goodbye(goodbye) if goodbye.reason == Goodbye::UNTIL => {
                self.state = State::Ended;
            }
            Frame::Goodbye(_) => {}
        }
        self.held.push_back(frame);
        Ok(self.held.pop_front())
    }

    fn cut_of(&self, stream: &str) -> Frame {
        let several = matches!(self.ask.streams, Streams::Several(_));
        Frame::Reset(Reset {
            cursor: String::new(),
            stream: several.then(|| stream.to_owned()),
            reason: Reset::CUT.to_owned(),
            requested: None,
            earliest: None,
        })
    }

    /// A frame that names no stream is of the only one; the last word on several is of none.
    fn stream_of<'a>(&'a self, frame: &'a Frame) -> &'a str {
        match (&self.ask.streams, frame.stream()) {
            (Streams::One(stream), _) => stream,
            (Streams::Several(_), stream) => stream.unwrap_or_default(),
        }
    }

    /// Plans the next connection, or gives the error back if there should be none.
    fn interrupted(&mut self, error: Error) -> Result<Option<Frame>, Error> {
        if !self.is_temporary(&error) {
            return Err(error);
        }
        // Or it would not be temporary.
        self.was_reached = true;
        if let State::Connected(connection) = &self.state
            && let Some(first) = connection.parser.retry()
        {
            let first = first.clamp(*RETRY.start(), *RETRY.end());
            self.backoff.first = first;
            self.backoff.longest = self.backoff.longest.max(first);
        }
        self.cut = self.inside.clone();
        self.crossing.clear();
        self.unmarked.clear();
        self.failures = self.failures.saturating_add(1);
        let wait = self.backoff.delay(self.failures, self.dice.throw());
        let asked = error.retry_after().unwrap_or_default();
        let retry_in = asked.min(RETRY_AFTER_MAX) + wait;
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
            Error::MayBeRecorded { .. } | Error::Protocol(_) | Error::Invalid(_) => false,
        }
    }
}

impl Connection {
    async fn open(
        server: Server,
        request: RequestBuilder,
        parser: sse::Parser,
        silence_max: Duration,
    ) -> Result<Self, Error> {
        let response = timeout(silence_max, server.head(request))
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
            silence_max,
        })
    }

    /// The next event of this connection; its end is an error like every other.
    async fn event(&mut self, server: &Server) -> Result<sse::Event, Error> {
        loop {
            if let Some(event) = self.parser.next_event() {
                return Ok(event);
            }
            let chunk = timeout_at(self.heard + self.silence_max, self.response.chunk())
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

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower")
            .field("server", &self.server.url())
            .field("ask", &self.ask)
            .field("cursor", &self.cursor)
            .finish_non_exhaustive()
    }
}
