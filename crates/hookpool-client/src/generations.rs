//! Projections and rebuilds: how history is read, and what is served of it.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use reqwest::{
    Method, RequestBuilder, Response,
    header::{ETAG, HeaderValue, IF_MATCH},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    error::Error,
    operator::{Operator, admin},
    problem::text,
    server::{ANSWER_TIMEOUT, Server},
    value::Value,
};

/// A version of a stream's projection.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Projection {
    /// Its stream.
    pub stream: String,
    /// Counted from 1; 0 is the behaviour without rules.
    pub version: u32,
    /// The version that the served generation follows.
    pub live: u32,
    /// The rules, as `docs/projections.md` describes them.
    pub projection: Box<RawValue>,
}

/// A rebuild, running or ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rebuild {
    /// Number of the generation that it makes.
    pub id: String,
    /// Its stream.
    pub stream: String,
    /// Version of the projection that it follows.
    pub projection: u32,
    /// `running`, `ready`, `promoted`, `cancelled` or `failed`.
    pub state: String,
    /// Whether it rests.
    #[serde(default)]
    pub paused: bool,
    /// Events that are folded; of a rebuild that ended those that are in its generation by now, as long as that is kept.
    #[serde(default)]
    pub done: Option<u64>,
    /// Events of the stream; the same once it is ready.
    #[serde(default)]
    pub total: Option<u64>,
    /// Events a second, lately.
    #[serde(default)]
    pub rate: u64,
    /// How long it will take, at that rate.
    #[serde(default)]
    pub eta_seconds: Option<u64>,
    /// Items that are compared with the served ones, once all events are folded.
    #[serde(default)]
    pub compared: Option<u64>,
    /// Events that fit the projection not at all, of those that are folded.
    #[serde(default)]
    pub quarantined: Option<u64>,
    /// Events that were older than what their item had seen, of those that are folded.
    #[serde(default)]
    pub superseded: Option<u64>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How it differs from what is served, once that is known; of one that was promoted, how it did then.
    #[serde(default)]
    pub diff: Option<Summary>,
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// RFC 3339, for one that ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
}

/// How many items differ, and what names exactly these differences.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Items that the rebuild has and the served generation has not.
    pub added: u64,
    /// The other way round.
    pub removed: u64,
    /// Items with other fields.
    pub changed: u64,
    /// What a promotion names.
    pub digest: String,
}

/// How one item differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// `added`, `removed` or `changed`.
    pub kind: String,
    /// The item.
    pub item_id: String,
    /// Old and new value of each field that differs.
    pub fields: BTreeMap<String, Sides>,
}

/// A field before and after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sides {
    /// As it is served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<Value>,
    /// As the rebuild has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<Value>,
}

/// What is served of a stream.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Served {
    /// The stream.
    pub stream: String,
    /// The generation.
    pub generation: u32,
    /// Version of its projection.
    pub projection: u32,
    /// The generation that a rollback goes to.
    pub previous: Option<u32>,
}

/// Events that fit a projection not at all.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Quarantine {
    /// The stream.
    pub stream: String,
    /// The generation that they do not fit.
    pub generation: u32,
    /// How many there are.
    pub total: u64,
    /// Some of them, oldest first.
    pub events: Vec<Unfit>,
    /// What to pass as `after` for the next ones.
    pub next: Option<u64>,
}

/// An event that fits a projection not at all.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Unfit {
    /// Where it is in the log.
    pub position: u64,
    /// Why.
    pub reason: String,
}

/// What rules are checked against.
#[derive(Debug, Clone, Copy)]
pub enum Check<'a> {
    /// Nothing: whether they can be followed.
    Rules,
    /// Every event of the stream: which would not fit.
    History,
    /// The events of one item: how it would differ from what is served.
    Item(&'a str),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Start<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    projection: Option<&'a serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    events_per_second: Option<u32>,
}

#[derive(Deserialize)]
struct Rebuilds {
    rebuilds: Vec<Rebuild>,
}

/// Every call fails as [`Error`] says; 404 is a stream or rebuild that is not there, 409 one that is in the way, 412 a difference that moved.
impl Operator {
    /// The newest projection of a stream, or one version of it.
    pub async fn projection(
        &self,
        stream: &str,
        version: Option<u32>,
    ) -> Result<Projection, Error> {
        let path = admin(&["streams", stream, "projection"]);
        let mut request = self.server.get(&path, Some(&self.key))?;
        if let Some(version) = version {
            request = request.query(&[("version", version)]);
        }
        self.server.json(request).await
    }

    /// Makes rules the newest projection; nothing follows them until a rebuild is promoted.
    pub async fn set_projection(
        &self,
        stream: &str,
        rules: &serde_json::Value,
    ) -> Result<Projection, Error> {
        let path = admin(&["streams", stream, "projection"]);
        let request = self.server.request(Method::PUT, &path, Some(&self.key))?;
        self.server.json(request.json(rules)).await
    }

    /// Checks rules; the answer is the server's JSON. Nothing is stored.
    pub async fn check_projection(
        &self,
        stream: &str,
        rules: &serde_json::Value,
        check: Check<'_>,
    ) -> Result<serde_json::Value, Error> {
        let path = admin(&["streams", stream, "projection"]);
        let request = self.server.request(Method::PUT, &path, Some(&self.key))?;
        let request = match check {
            Check::Rules => request.query(&[("check", "true")]),
            Check::History => request.query(&[("check", "history")]),
            Check::Item(id) => request.query(&[("check", "item"), ("item", id)]),
        };
        let request = request.json(rules);
        self.server.json_without_limit(request).await
    }

    /// Starts a rebuild, with these rules or the newest projection.
    pub async fn start_rebuild(
        &self,
        stream: &str,
        rules: Option<&serde_json::Value>,
        events_per_second: Option<u32>,
    ) -> Result<Rebuild, Error> {
        let start = Start {
            projection: rules,
            events_per_second,
        };
        self.post(&["streams", stream, "rebuilds"], &start).await
    }

    /// All rebuilds of a stream, oldest first.
    pub async fn rebuilds(&self, stream: &str) -> Result<Vec<Rebuild>, Error> {
        let path = ["streams", stream, "rebuilds"];
        Ok(self.get::<Rebuilds>(&path).await?.rebuilds)
    }

    /// The rebuild that runs, or the last one.
    pub async fn rebuild(&self, stream: &str) -> Result<Rebuild, Error> {
        self.get(&["streams", stream, "rebuilds", "current"]).await
    }

    /// One of them, by its id.
    pub async fn rebuild_by_id(&self, stream: &str, id: &str) -> Result<Rebuild, Error> {
        self.get(&["streams", stream, "rebuilds", id]).await
    }

    /// The difference as lines of JSON, in pieces that end anywhere, and the digest that names it.
    pub async fn rebuild_diff(
        &self,
        stream: &str,
        limit: Option<u64>,
    ) -> Result<(String, DiffLines), Error> {
        let path = admin(&["streams", stream, "rebuilds", "current", "diff"]);
        let mut request = self.server.get(&path, Some(&self.key))?;
        if let Some(limit) = limit {
            request = request.query(&[("limit", limit)]);
        }
        let lines = DiffLines::open(&self.server, request).await?;
        let digest = text(lines.response.headers(), ETAG.as_str()).unwrap_or_default();
        Ok((digest.trim_matches('"').to_owned(), lines))
    }

    /// Serves what was rebuilt, if its difference is still the one of this digest; `None` takes whatever it is by now.
    pub async fn promote(&self, stream: &str, digest: Option<&str>) -> Result<Rebuild, Error> {
        let path = admin(&["streams", stream, "rebuilds", "current:promote"]);
        let tag = digest.map_or_else(|| "*".to_owned(), |digest| format!("\"{digest}\""));
        let tag = HeaderValue::from_str(&tag)
            .map_err(|_| Error::Invalid("the digest is no digest".to_owned()))?;
        let request = self.server.request(Method::POST, &path, Some(&self.key))?;
        self.server.json(request.header(IF_MATCH, tag)).await
    }

    /// Throws a rebuild away.
    pub async fn cancel_rebuild(&self, stream: &str) -> Result<Rebuild, Error> {
        self.act(&["streams", stream, "rebuilds", "current:cancel"])
            .await
    }

    /// Lets a rebuild rest.
    pub async fn pause_rebuild(&self, stream: &str) -> Result<Rebuild, Error> {
        self.act(&["streams", stream, "rebuilds", "current:pause"])
            .await
    }

    /// Lets it go on.
    pub async fn resume_rebuild(&self, stream: &str) -> Result<Rebuild, Error> {
        self.act(&["streams", stream, "rebuilds", "current:resume"])
            .await
    }

    /// Serves the generation before.
    pub async fn roll_back(&self, stream: &str) -> Result<Served, Error> {
        self.act(&["streams", &format!("{stream}:rollback")]).await
    }

    /// Gives up the generation before.
    pub async fn release(&self, stream: &str) -> Result<Served, Error> {
        self.act(&["streams", &format!("{stream}:release")]).await
    }

    /// Events after a position that fit the served projection not at all. `limit` is 1 to 1000.
    pub async fn quarantine(
        &self,
        stream: &str,
        after: u64,
        limit: u64,
    ) -> Result<Quarantine, Error> {
        let path = admin(&["streams", stream, "quarantine"]);
        let request = self.server.get(&path, Some(&self.key))?;
        let request = request.query(&[("after", after), ("limit", limit)]);
        self.server.json(request).await
    }
}

/// Between two pieces of a difference: nothing is sent while items are compared that do not differ, which may be many.
const PIECE_TIMEOUT: Duration = Duration::from_secs(300);

/// Lines of JSON as they arrive.
#[derive(Debug)]
pub struct DiffLines {
    server: Server,
    response: Response,
}

impl DiffLines {
    pub(crate) async fn open(server: &Server, request: RequestBuilder) -> Result<Self, Error> {
        let response = server.head_within(ANSWER_TIMEOUT, request).await?;
        Ok(Self {
            server: server.clone(),
            response,
        })
    }

    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// [`Error::Unreachable`] if it breaks off, or if nothing comes for five minutes.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let response = &mut self.response;
        self.server.piece_within(PIECE_TIMEOUT, response).await
    }
}
