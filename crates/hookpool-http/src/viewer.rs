//! Who reads a change stream: asked again whenever keys change, for as long as the stream is open. And tickets, with which a browser,
//! whose `EventSource` sends no headers, shows once that it has a key.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::{Buf, Bytes};
use futures_util::Stream;
use hookpool_core::{key::PresentedKey, name::StreamName, registry::Access, verify::Header};
use hookpool_engine::Engine;
use hookpool_store::{EventLog, PoolStore};
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use warp::{
    http::{StatusCode, header},
    reply::Response,
};

use crate::{
    admin,
    app::{App, Request, set},
    body,
    problem::{Code, Problem},
    query::Query,
    render::json_response,
};

/// A key as it was presented, and what of its streams may be read by it.
#[derive(Clone)]
pub(crate) struct Viewer {
    authorization: Bytes,
    /// Only these, where a ticket says so.
    streams: Option<Vec<StreamName>>,
}

impl Viewer {
    pub(crate) fn of(request: &Request) -> Result<Self, Problem> {
        match request.header(header::AUTHORIZATION) {
            Header::One(value) => Ok(Self {
                authorization: Bytes::copy_from_slice(value),
                streams: None,
            }),
            Header::Absent | Header::Repeated => Err(Code::Unauthorized.into()),
        }
    }

    fn access<L: EventLog, P: PoolStore>(&self, engine: &Engine<L, P>) -> Option<Access> {
        engine.access(&PresentedKey::from_authorization(&self.authorization)?)
    }

    /// The name of its read key; none for an operator's.
    pub(crate) fn reader<L: EventLog, P: PoolStore>(
        &self,
        engine: &Engine<L, P>,
    ) -> Option<String> {
        match self.access(engine)? {
            Access::Reader(reader) => Some(reader.name.to_string()),
            Access::Operator(_) => None,
        }
    }

    /// Whether its key, as of now, may read a stream.
    pub(crate) fn may_read<L: EventLog, P: PoolStore>(
        &self,
        engine: &Engine<L, P>,
        stream: &str,
    ) -> bool {
        let listed = |streams: &Vec<StreamName>| streams.iter().any(|name| name.as_str() == stream);
        self.streams.as_ref().is_none_or(listed)
            && self
                .access(engine)
                .is_some_and(|access| access.may_read(stream))
    }
}

/// Longest life of a ticket.
const LIFETIME_MAX: u64 = 300;
const LIFETIME: u64 = 60;
/// Tickets at once; beyond it the one that ends first goes.
const TICKETS_MAX: usize = 10_000;

/// Tickets that were not used yet, by SHA-256. They live as long as the process: whoever comes too late asks for another.
#[derive(Default)]
pub(crate) struct Tickets(Mutex<BTreeMap<[u8; 32], Ticket>>);

struct Ticket {
    viewer: Viewer,
    ends_at: Instant,
}

impl Tickets {
    fn add(&self, text: &str, ticket: Ticket) {
        let mut tickets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        tickets.retain(|_, ticket| ticket.ends_at > now);
        if tickets.len() >= TICKETS_MAX {
            let first = tickets.iter().min_by_key(|(_, ticket)| ticket.ends_at);
            let first = first.map(|(hash, _)| *hash);
            first.and_then(|first| tickets.remove(&first));
        }
        tickets.insert(hash(text), ticket);
    }

    /// Who holds a ticket; it is used up then.
    fn redeem(&self, text: &str) -> Option<Viewer> {
        let mut tickets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ticket = tickets.remove(&hash(text))?;
        (ticket.ends_at > Instant::now()).then_some(ticket.viewer)
    }
}

fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}

impl<L: EventLog, P: PoolStore> App<L, P> {
    /// Who asks for a change stream, by key or by ticket.
    pub(crate) fn viewer(&self, request: &Request, query: &Query<'_>) -> Result<Viewer, Problem> {
        match query.text("ticket")? {
            Some(ticket) => {
                let viewer = self.tickets.redeem(&ticket);
                viewer.ok_or_else(|| Code::Unauthorized.into())
            }
            None => Viewer::of(request),
        }
    }

    /// A stream that somebody may see; one that is not there and one that is not to be seen are the same.
    pub(crate) fn seen_by(&self, viewer: &Viewer, stream: &str) -> Result<StreamName, Problem> {
        if viewer.access(&self.engine).is_none() {
            return Err(Code::Unauthorized.into());
        }
        let there = self.engine.control().registry().has_stream(stream);
        if !there || !viewer.may_read(&self.engine, stream) {
            return Err(Code::NotFound.into());
        }
        StreamName::new(stream).map_err(|_| Code::NotFound.into())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NewTicket {
    streams: Vec<String>,
    ttl_seconds: Option<u64>,
}

/// `POST /api/tickets`
pub(crate) async fn ticket<L: EventLog, P: PoolStore>(
    app: &Arc<App<L, P>>,
    request: &Request,
    body: impl Stream<Item = Result<impl Buf, warp::Error>>,
) -> Result<Response, Problem> {
    let viewer = Viewer::of(request)?;
    // Before the body: a stranger's is not read.
    viewer.access(&app.engine).ok_or(Code::Unauthorized)?;
    Query::of(request)?;
    let body = body::capped(body, app.settings.body_bytes, app.settings.body_timeout).await?;
    let new: NewTicket = admin::parse(&body)?;
    let seconds = new.ttl_seconds.unwrap_or(LIFETIME);
    if new.streams.is_empty() || !(1..=LIFETIME_MAX).contains(&seconds) {
        let known = format!("streams has at least one, ttlSeconds is from 1 to {LIFETIME_MAX}");
        return Err(Problem::with(Code::InvalidParameter, known));
    }
    let streams = new.streams.iter();
    let streams: Result<Vec<_>, _> = streams.map(|name| app.seen_by(&viewer, name)).collect();
    let text = format!("tk_{}", const_hex::encode(app.engine.random::<20>()));
    let viewer = Viewer {
        streams: Some(streams?),
        ..viewer
    };
    let lifetime = Duration::from_secs(seconds);
    let ends_at = Instant::now() + lifetime;
    app.tickets.add(&text, Ticket { viewer, ends_at });
    let expires_at = app.engine.now().plus_seconds(seconds).to_string();
    let answer = json!({ "ticket": text, "expiresAt": expires_at });
    let mut response = json_response(answer.to_string());
    *response.status_mut() = StatusCode::CREATED;
    set(&mut response, header::CACHE_CONTROL, "no-store");
    Ok(response)
}
