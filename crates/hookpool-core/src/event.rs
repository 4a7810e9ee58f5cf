//! An event: a delivery that is, or is about to be, in the log.

use std::fmt;

use bytes::Bytes;

use crate::{
    json::{self, Fields, JsonError},
    name::{ConnectorName, ItemId, StreamName},
    position::Position,
    time::Timestamp,
};

/// What an event does to its item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Merges the body's fields into the item.
    Upsert,
    /// Takes the item away; what it was before counts no more. It has no body.
    Delete,
}

impl Op {
    /// The word used over HTTP.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Upsert => "upsert",
            Self::Delete => "delete",
        }
    }
}

/// Identity of a request: a UUIDv7, shown in `X-Request-Id` and kept with the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub [u8; 16]);

impl RequestId {
    /// From the time of arrival and random bytes.
    #[must_use]
    pub fn new(now: Timestamp, random: &[u8; 10]) -> Self {
        Self(uuid_v7(now, random).into_bytes())
    }
}

impl RequestId {
    /// Reads what is shown; other spellings of a UUID too.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        uuid::Uuid::parse_str(text)
            .ok()
            .map(|uuid| Self(uuid.into_bytes()))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid::Uuid::from_bytes(self.0).fmt(f)
    }
}

/// A UUIDv7 (RFC 9562) of a time in milliseconds and 74 of the random bits.
pub(crate) fn uuid_v7(now: Timestamp, random: &[u8; 10]) -> uuid::Uuid {
    uuid::Builder::from_unix_timestamp_millis(now.millis(), random).into_uuid()
}

/// Two deliveries with equal keys are one: the log keeps the first. 128 bits of a SHA-256 that names its kind and connector.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct DedupeKey(pub [u8; 16]);

/// What a request said of its own identity: one with the same key is the same request, however it is sent. In the first event of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Idempotency {
    /// Of the connector and what its sender named the request by.
    pub key: DedupeKey,
    /// Fingerprint of what was asked, where the key must not be used for anything else; `None` where the key alone decides.
    pub request: Option<[u8; 16]>,
    /// How many events the request made.
    pub events: u32,
}

/// An event that the log has not taken yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// When the delivery was verified.
    pub time: Timestamp,
    /// Where it goes.
    pub stream: StreamName,
    /// What it does.
    pub op: Op,
    /// To which item.
    pub item_id: ItemId,
    /// Whether the id was generated here.
    pub generated_id: bool,
    /// Whether the body held a property twice.
    pub duplicate_keys: bool,
    /// `fieldsUpdated`: distinct top-level properties.
    pub field_count: u32,
    /// Who wrote it.
    pub connector: ConnectorName,
    /// The request it came with.
    pub request_id: RequestId,
    /// What makes a repetition known; `None` where each delivery counts.
    pub dedupe: Option<DedupeKey>,
    /// The identity of the request that begins with this event, if it said one.
    pub idempotency: Option<Idempotency>,
    /// Exactly the bytes that were posted; empty in a deletion.
    pub body: Bytes,
}

impl NewEvent {
    /// The properties of the body, which is checked again; none of a deletion.
    ///
    /// # Errors
    /// [`JsonError`] where the body is not what was checked before the event was appended.
    pub fn fields(&self) -> Result<Fields<'_>, JsonError> {
        match self.op {
            Op::Upsert => Ok(json::object(&self.body)?.fields),
            Op::Delete => Ok(Fields::default()),
        }
    }
}

/// The events that one request makes: all of them get into the log, or none. What makes a repetition of it known is in the first one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// There is at least one.
    pub first: NewEvent,
    /// Most requests make no more.
    pub rest: Vec<NewEvent>,
}

impl From<NewEvent> for Request {
    fn from(first: NewEvent) -> Self {
        let rest = Vec::new();
        Self { first, rest }
    }
}

impl Request {
    /// Makes a request of each event.
    pub fn each(events: impl IntoIterator<Item = NewEvent>) -> Vec<Self> {
        events.into_iter().map(Self::from).collect()
    }

    /// Its events, in order.
    pub fn events(&self) -> impl Iterator<Item = &NewEvent> {
        std::iter::once(&self.first).chain(&self.rest)
    }

    /// How many they are.
    #[must_use]
    pub fn count(&self) -> usize {
        1 + self.rest.len()
    }
}

/// An event of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Where it is.
    pub position: Position,
    /// What it is.
    pub event: NewEvent,
}
