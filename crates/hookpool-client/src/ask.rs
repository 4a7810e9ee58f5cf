//! What a follower asks of the server, on each of its connections anew.

use std::time::Duration;

use hookpool_core::{key::Secret, time::Timestamp};
use reqwest::{RequestBuilder, header::ACCEPT};

use crate::{clock, error::Error, server::Server};

/// Where to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// With all items as they are, then the changes.
    Snapshot,
    /// With the next change.
    Now,
    /// With the first change there is.
    Earliest,
    /// With the first change after a time, RFC 3339.
    Time(String),
    /// After what a cursor has seen.
    Cursor(String),
}

impl Start {
    /// With the first change of the last so long, by the clock of this machine.
    #[must_use]
    pub fn ago(duration: Duration) -> Self {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Self::Time(Timestamp(clock::now().0.saturating_sub(micros)).to_string())
    }

    fn parameter(&self) -> &str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Now => "now",
            Self::Earliest => "earliest",
            Self::Time(text) | Self::Cursor(text) => text,
        }
    }
}

/// Whose changes.
#[derive(Debug, Clone)]
pub(crate) enum Streams {
    One(String),
    /// On one connection.
    Several(Vec<String>),
}

impl Streams {
    pub(crate) fn names(&self) -> &[String] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Several(names) => names,
        }
    }
}

/// The words of the protocol for what is wanted.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) streams: Streams,
    pub(crate) start: Start,
    pub(crate) item: Option<String>,
    pub(crate) conditions: Vec<String>,
    pub(crate) fields: Vec<String>,
    pub(crate) conflate: Option<Duration>,
    pub(crate) until: Option<u64>,
    pub(crate) heartbeat: Duration,
}

impl Ask {
    pub(crate) fn new(streams: Streams) -> Self {
        Self {
            streams,
            start: Start::Snapshot,
            item: None,
            conditions: Vec::new(),
            fields: Vec::new(),
            conflate: None,
            until: None,
            heartbeat: Duration::from_secs(15),
        }
    }

    /// Two heartbeats may be late or lost; then the connection is taken for dead.
    pub(crate) fn silence_max(&self) -> Duration {
        2 * self.heartbeat + Duration::from_secs(5)
    }

    /// A request that resumes after a cursor, which is empty for none.
    pub(crate) fn request(
        &self,
        server: &Server,
        key: &Secret,
        cursor: &str,
    ) -> Result<RequestBuilder, Error> {
        let mut request = match &self.streams {
            Streams::One(stream) => {
                server.get(&["api", "streams", stream, "changes"], Some(key))?
            }
            Streams::Several(streams) => {
                let streams: Vec<_> = streams.iter().map(|name| ("stream", name)).collect();
                server.get(&["api", "changes"], Some(key))?.query(&streams)
            }
        };
        request = request
            .header(ACCEPT, "text/event-stream")
            .query(&[("after", self.start.parameter())])
            .query(&[("heartbeat", self.heartbeat.as_secs())]);
        if let Some(item) = &self.item {
            request = request.query(&[("item", item)]);
        }
        request = selecting(request, &self.conditions, &self.fields);
        if let Some(conflate) = self.conflate {
            request = request.query(&[("conflate", conflate.as_millis())]);
        }
        if let Some(until) = self.until {
            request = request.query(&[("until", until)]);
        }
        if !cursor.is_empty() {
            request = request.header("last-event-id", cursor);
        }
        Ok(request)
    }
}

/// The same request for some items, and some of their fields; all where none are named.
pub(crate) fn selecting(
    mut request: RequestBuilder,
    conditions: &[String],
    fields: &[String],
) -> RequestBuilder {
    for condition in conditions {
        request = request.query(&[("where", condition)]);
    }
    if !fields.is_empty() {
        request = request.query(&[("fields", fields.join(","))]);
    }
    request
}
