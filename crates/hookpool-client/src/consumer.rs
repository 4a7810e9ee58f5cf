//! Reads the pool and the log.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use hookpool_core::key::Secret;
use reqwest::{Method, RequestBuilder, header::ACCEPT};
use serde::{Deserialize, Serialize};

use crate::{
    ask::selecting,
    error::Error,
    follower::Follower,
    generations::{DiffLines, Sides},
    secret,
    server::Server,
    value::Fields,
};

/// Reads streams with a read key, or with an operator key, which reads all of them.
#[derive(Debug, Clone)]
pub struct Consumer {
    server: Server,
    key: Secret,
}

/// A stream and how far it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Stream {
    /// Its name.
    pub stream: String,
    /// How many items it has.
    pub items: u64,
    /// How many of its events the pool has applied.
    #[serde(default)]
    pub events: u64,
    /// The last position that its pool shows.
    pub position: u64,
    /// Which materialisation is served.
    pub generation: u64,
    /// How many positions of the log the pool has not applied.
    pub lag: u64,
    /// The earliest position that can be read; 0 if that is all of them.
    #[serde(default)]
    pub earliest: u64,
}

/// An item of the pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Item {
    /// Its id within the stream.
    pub item_id: String,
    /// Its fields.
    pub fields: Fields,
    /// The event that changed it last; not given on pages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    /// Where each field came from, if that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meta: Option<BTreeMap<String, FieldMeta>>,
}

/// Where a field came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldMeta {
    /// The event that set it.
    pub position: u64,
    /// When that was recorded, RFC 3339.
    pub time: String,
    /// Who sent it.
    pub connector: String,
    /// The request that brought it.
    #[serde(default, rename = "requestId")]
    pub request_id: String,
}

/// Some items in byte order of their ids, as they were at one position.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ItemPage {
    /// The position; the same on every page of a chain.
    pub position: u64,
    /// The items.
    pub items: Vec<Item>,
    /// What to pass as `after` for the next page, if there is one.
    #[serde(default)]
    pub next: Option<String>,
}

/// Which items a page is to show, and how.
#[derive(Debug, Clone, Default)]
pub struct ItemQuery {
    /// The `next` of the page before.
    pub after: Option<String>,
    /// How many at most, 1 to 1000; 100 without it.
    pub limit: Option<u64>,
    /// A position or an RFC 3339 time: as they were then.
    pub at: Option<String>,
    /// Only items that meet them all, such as `status=open` or `sales>=1000`.
    pub conditions: Vec<String>,
    /// Only these fields; all if it is empty.
    pub fields: Vec<String>,
}

/// What opens one change stream, once, in place of a key.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ticket {
    /// The ticket. Serializing it shows it.
    #[serde(with = "secret::required")]
    pub ticket: Secret,
    /// RFC 3339.
    pub expires_at: String,
}

/// An event of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Where it is in the log.
    pub position: u64,
    /// When it was recorded, RFC 3339.
    pub time: String,
    /// The stream it belongs to.
    pub stream: String,
    /// `upsert` or `delete`.
    pub op: String,
    /// The item it is about.
    pub item_id: String,
    /// Who sent it.
    pub connector: String,
    /// Of the request that brought it.
    pub request_id: String,
    /// The size of its body.
    pub bytes: u64,
    /// Its body as text, if that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
}

/// Some events, oldest first.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EventPage {
    /// The events.
    pub events: Vec<Event>,
    /// What to pass as `after` for the next page, if there is one.
    pub next: Option<u64>,
}

/// What some events did to an item, oldest first.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct History {
    /// The events.
    pub events: Vec<Touch>,
    /// What to pass as `after` for the next ones, if there are more.
    pub next: Option<u64>,
}

/// What an event did to an item.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Touch {
    /// The event.
    #[serde(flatten)]
    pub event: Event,
    /// Whether it was older than what the item had seen, and changed nothing.
    pub superseded: bool,
    /// Old and new value of each field that changed.
    pub fields: BTreeMap<String, Sides>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NewTicket<'a> {
    streams: &'a [&'a str],
    ttl_seconds: u64,
}

#[derive(Deserialize)]
struct Streams {
    streams: Vec<Stream>,
}

impl Consumer {
    /// A consumer with a read key or an operator key.
    #[must_use]
    pub fn new(server: Server, key: Secret) -> Self {
        Self { server, key }
    }

    /// The streams that the key may see.
    ///
    /// # Errors
    /// As every call: see [`Error`].
    pub async fn streams(&self) -> Result<Vec<Stream>, Error> {
        let request = self.server.get(&["api", "streams"], Some(&self.key))?;
        Ok(self.server.json::<Streams>(request).await?.streams)
    }

    /// A page of items. All pages of one chain show one position; they are short where few items meet the conditions, and the last one has
    /// no `next`.
    ///
    /// # Errors
    /// `PAGE_EXPIRED` if what the page before showed can't be read any more; otherwise as every call.
    pub async fn items(&self, stream: &str, query: &ItemQuery) -> Result<ItemPage, Error> {
        let mut request = self.get(stream, &["items"])?;
        request = request.query(&[("limit", query.limit)]);
        request = request.query(&[("at", &query.at), ("after", &query.after)]);
        request = selecting(request, &query.conditions, &query.fields);
        self.server.json(request).await
    }

    /// One item, with the origin of its fields if `meta`; as it was `at` a position or time, if that is given.
    ///
    /// # Errors
    /// 404 if there is none; otherwise as every call.
    pub async fn item(
        &self,
        stream: &str,
        item_id: &str,
        meta: bool,
        at: Option<&str>,
    ) -> Result<Item, Error> {
        let mut request = self.get(stream, &["items", item_id])?;
        if let Some(at) = at {
            request = request.query(&[("at", at)]);
        }
        if meta {
            request = request.query(&[("meta", true)]);
        }
        self.server.json(request).await
    }

    /// The events after a position that touched an item, oldest first. `limit` is 1 to 1000; of a large item a page holds fewer, with a `next`.
    ///
    /// # Errors
    /// 404 if nothing ever did; otherwise as every call.
    pub async fn history(
        &self,
        stream: &str,
        item_id: &str,
        after: Option<u64>,
        limit: u64,
    ) -> Result<History, Error> {
        let request = self.get(stream, &["items", item_id, "history"])?;
        let request = request.query(&[("limit", limit)]);
        self.server.json(since(request, after)).await
    }

    /// How the items of a stream differ between two moments, each a position or an RFC 3339 time, as lines of JSON.
    ///
    /// # Errors
    /// As every call: see [`Error`].
    pub async fn diff(&self, stream: &str, from: &str, to: &str) -> Result<DiffLines, Error> {
        let request = self.get(stream, &["diff"])?;
        let request = request.query(&[("from", from), ("to", to)]);
        DiffLines::open(&self.server, request).await
    }

    /// A page of the log after a position, or from the earliest event that is kept, with bodies if `body`. `limit` is 1 to 1000.
    ///
    /// # Errors
    /// As every call: see [`Error`].
    pub async fn log(
        &self,
        stream: &str,
        after: Option<u64>,
        limit: u64,
        body: bool,
    ) -> Result<EventPage, Error> {
        let request = self.get(stream, &["log"])?;
        let mut request = since(request.query(&[("limit", limit)]), after);
        if body {
            request = request.query(&[("body", true)]);
        }
        self.server.json(request).await
    }

    /// One event with its body.
    ///
    /// # Errors
    /// 404 if there is none; otherwise as every call.
    pub async fn event(&self, stream: &str, position: u64) -> Result<Event, Error> {
        let request = self.get(stream, &["log", &position.to_string()])?;
        self.server.json(request).await
    }

    /// The bytes that were posted.
    ///
    /// # Errors
    /// 404 if there is no such event; otherwise as every call.
    pub async fn posted(&self, stream: &str, position: u64) -> Result<Bytes, Error> {
        let request = self
            .get(stream, &["log", &position.to_string()])?
            .header(ACCEPT, "application/octet-stream");
        self.server.body(request).await
    }

    /// A ticket for somebody who must not have the key, as a browser: it opens one change stream on these streams, within `lifetime`, which
    /// is 1 s to 300 s.
    ///
    /// # Errors
    /// 404 if one of the streams is not to be seen; otherwise as every call.
    pub async fn ticket(&self, streams: &[&str], lifetime: Duration) -> Result<Ticket, Error> {
        let ttl_seconds = lifetime.as_secs();
        let request = self
            .server
            .request(Method::POST, &["api", "tickets"], Some(&self.key))?
            .json(&NewTicket {
                streams,
                ttl_seconds,
            });
        self.server.json(request).await
    }

    /// Follows several streams on one connection, each from a snapshot on.
    #[must_use]
    pub fn follow_several<T: Into<String>>(
        &self,
        streams: impl IntoIterator<Item = T>,
    ) -> Follower {
        Follower::several(self.server.clone(), streams, self.key.clone())
    }

    /// Follows a stream from a snapshot on.
    #[must_use]
    pub fn follow(&self, stream: &str) -> Follower {
        Follower::new(self.server.clone(), stream, self.key.clone())
    }

    fn get(&self, stream: &str, rest: &[&str]) -> Result<RequestBuilder, Error> {
        let path = [&["api", "streams", stream], rest].concat();
        self.server.get(&path, Some(&self.key))
    }
}

fn since(request: RequestBuilder, after: Option<u64>) -> RequestBuilder {
    match after {
        Some(after) => request.query(&[("after", after)]),
        None => request,
    }
}
