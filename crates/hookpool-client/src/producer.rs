//! Sends deliveries, and sends them again where that can't do harm.

use std::time::Duration;

use bytes::Bytes;
use hookpool_core::{key::Secret, scheme::Scheme};
use reqwest::{
    Method,
    header::{CONTENT_TYPE, HeaderMap},
};
use serde::{Deserialize, Serialize};

use crate::{
    backoff::{Backoff, Dice},
    clock,
    error::{Error, read_json},
    problem::text,
    server::{ANSWER_TIMEOUT, Server},
    signature::Signer,
    tries::Tries,
    value::Fields,
};

/// Sends bodies to one stream.
///
/// # Retries
///
/// A failed try is repeated, with growing waits or after the server's `Retry-After`, if no complete answer came, if the server said 503 or that the
/// first try is still in flight, or if a proxy said 502 or 504. A 429 is final as the answer to the first try, and waited out where an earlier one may have arrived.
///
/// Every delivery has an `Idempotency-Key`, a random one where the caller has none, and a repeated delivery is the very same request, timestamp included; only a
/// signature that is as old as half of its window is made anew. The server answers it with the first answer and no second event, for 96 hours, so it is safe even if the first try had arrived.
///
/// If a try may have arrived, the error is [`Error::MayBeRecorded`], whatever the last one came to, and names the key to go on with.
///
/// Two equal bodies signed within one second are one delivery to a connector that collapses replays (the default), whatever their keys are.
#[derive(Debug, Clone)]
pub struct Producer {
    server: Server,
    stream: String,
    ingest_key: Secret,
    signing_key: Option<Secret>,
    scheme: Scheme,
    id_field: Option<String>,
    retries: Retries,
    dice: Dice,
}

/// How stubbornly a [`Producer`] repeats.
#[derive(Debug, Clone, Copy)]
pub struct Retries {
    /// How often at most, after the first try.
    pub most: u32,
    /// The waits between tries.
    pub backoff: Backoff,
    /// A `Retry-After` beyond this is not waited for.
    pub patience: Duration,
}

impl Default for Retries {
    /// Four retries from 200 ms on, and at most 20 s for a wait.
    fn default() -> Self {
        Self {
            most: 4,
            backoff: Backoff {
                first: Duration::from_millis(200),
                longest: Duration::from_secs(5),
            },
            patience: Duration::from_secs(20),
        }
    }
}

/// The server's promise: the event is durable and ordered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Accepted {
    /// `accepted`.
    pub status: String,
    /// The item that the event updates; generated where the body has no id.
    pub item_id: String,
    /// Distinct top-level properties, the id included.
    pub fields_updated: u64,
    /// Where the event is in the log.
    pub position: u64,
    /// Whether this is the answer to an earlier, equal delivery, and no new event.
    pub replayed: bool,
    /// What the server noticed: `generated-id`, `duplicate-keys`.
    pub notices: Vec<String>,
    /// What to look for in the server's log.
    pub request_id: Option<String>,
}

/// The server's promise for a request of many events: all of them are durable, and ordered one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ingested {
    /// `accepted`.
    pub status: String,
    /// The request that made the events; of a replay, the first one.
    pub request_id: String,
    /// How many events there are.
    pub items_received: u64,
    /// Where the last of them is in the log.
    pub position: u64,
    /// Whether this is the answer to an earlier, equal request, and there are no new events.
    pub replayed: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct IngestedBody {
    status: String,
    request_id: String,
    items_received: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AcceptedBody {
    status: String,
    item_id: String,
    fields_updated: u64,
}

/// The server's promise: the deletion is durable and ordered, whether or not there was such an item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Deleted {
    /// `accepted`.
    pub status: String,
    /// The item.
    pub item_id: String,
    /// Where the event is in the log.
    pub position: u64,
    /// Whether this is the answer to an earlier, equal request, and no new event.
    pub replayed: bool,
    /// What to look for in the server's log.
    pub request_id: Option<String>,
}

/// What would happen to a delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rehearsal {
    /// `dry-run`.
    pub status: String,
    /// The item that the event would update; none where the id would be generated.
    pub item_id: Option<String>,
    /// Whether the id would be generated.
    pub generated_id: bool,
    /// Distinct top-level properties, the id included.
    pub fields_updated: u64,
    /// Version of the rules that are served; 0 where there are none.
    pub projection: u32,
    /// Why the event would fit the rules not at all.
    pub quarantine: Option<String>,
    /// What it would do under the rules; none in quarantine.
    pub changes: Option<RehearsedChanges>,
}

/// What the payload alone says of its item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RehearsedChanges {
    /// The item under the rules; none where the id would be generated.
    pub item_id: Option<String>,
    /// The fields as they would be stored.
    pub set: Fields,
    /// Fields that would go away.
    pub unset: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DeletedBody {
    status: String,
    item_id: String,
}

/// What is asked for.
enum Ask<'a> {
    Record,
    Rehearse,
    /// Of this item.
    Delete(&'a str),
    /// Each line of the body is an event.
    Lines,
}

/// For a whole exchange with many events.
const BULK_TIMEOUT: Duration = Duration::from_secs(90);

/// What stays the same over all tries.
struct Delivery<'a> {
    ask: Ask<'a>,
    body: Bytes,
    idempotency_key: &'a str,
}

impl Producer {
    /// A producer for a stream, unsigned, with the default retries.
    #[must_use]
    pub fn new(server: Server, stream: impl Into<String>, ingest_key: Secret) -> Self {
        Self {
            server,
            stream: stream.into(),
            ingest_key,
            signing_key: None,
            scheme: Scheme::default(),
            id_field: None,
            retries: Retries::default(),
            dice: Dice::default(),
        }
    }

    /// Signs every delivery with this key, as it was given out: its `whsk_` or `whsec_` included.
    #[must_use]
    pub fn signing_key(mut self, key: Secret) -> Self {
        self.signing_key = Some(key);
        self
    }

    /// Signs as another scheme does than the page's own.
    #[must_use]
    pub fn scheme(mut self, scheme: Scheme) -> Self {
        self.scheme = scheme;
        self
    }

    /// The property that holds the item id, or a JSON Pointer to it, for every delivery.
    #[must_use]
    pub fn id_field(mut self, name: impl Into<String>) -> Self {
        self.id_field = Some(name.into());
        self
    }

    /// Other retries than the default ones.
    #[must_use]
    pub fn retries(mut self, retries: Retries) -> Self {
        self.retries = retries;
        self
    }

    /// Other dice for the jitter of the waits.
    #[must_use]
    pub fn dice(mut self, dice: Dice) -> Self {
        self.dice = dice;
        self
    }

    /// Delivers a value as the JSON object that it serializes to.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it can't be serialized; otherwise as [`send`](Self::send).
    pub async fn send_value(&self, value: &impl Serialize) -> Result<Accepted, Error> {
        let body = serde_json::to_vec(value)
            .map_err(|error| Error::Invalid(format!("the value is no JSON: {error}")))?;
        self.send(body).await
    }

    /// Delivers one body, byte for byte: one JSON object.
    ///
    /// # Errors
    /// [`Error::outcome_is_unknown`] says whether the event may be in the log in spite of the error; if not, none of the tries put it there.
    pub async fn send(&self, body: impl Into<Bytes>) -> Result<Accepted, Error> {
        self.send_as(&random_key(), body).await
    }

    /// The same under an idempotency key of the caller, which makes it safe to send a delivery again in another process, or tomorrow.
    ///
    /// # Errors
    /// As [`send`](Self::send); and the server's `IDEMPOTENCY_MISMATCH` if the key was used for something else.
    pub async fn send_as(
        &self,
        idempotency_key: &str,
        body: impl Into<Bytes>,
    ) -> Result<Accepted, Error> {
        self.deliver(Ask::Record, idempotency_key, body.into(), accepted)
            .await
    }

    /// Delivers many events in one request, all or none: lines of one JSON object each, up to the server's limits (50,000 and 16 MiB).
    ///
    /// # Errors
    /// As [`send`](Self::send), for all of them or none; a refusal names the line.
    pub async fn ingest(&self, lines: impl Into<Bytes>) -> Result<Ingested, Error> {
        self.ingest_as(&random_key(), lines).await
    }

    /// The same under an idempotency key of the caller.
    ///
    /// # Errors
    /// As [`send_as`](Self::send_as).
    pub async fn ingest_as(
        &self,
        idempotency_key: &str,
        lines: impl Into<Bytes>,
    ) -> Result<Ingested, Error> {
        self.deliver(Ask::Lines, idempotency_key, lines.into(), ingested)
            .await
    }

    /// Deletes an item by its id; that there is none is no error. Repeated under the same conditions as [`send`](Self::send).
    ///
    /// # Errors
    /// As for [`send`](Self::send).
    pub async fn delete(&self, item_id: &str) -> Result<Deleted, Error> {
        self.delete_as(&random_key(), item_id).await
    }

    /// The same under an idempotency key of the caller.
    ///
    /// # Errors
    /// As [`send_as`](Self::send_as).
    pub async fn delete_as(&self, idempotency_key: &str, item_id: &str) -> Result<Deleted, Error> {
        let ask = Ask::Delete(item_id);
        self.deliver(ask, idempotency_key, Bytes::new(), deleted)
            .await
    }

    /// Asks what would happen to a body; nothing is written.
    ///
    /// # Errors
    /// Those that [`send`](Self::send) would give for what is wrong with the delivery itself.
    pub async fn dry_run(&self, body: impl Into<Bytes>) -> Result<Rehearsal, Error> {
        let read = |_: &HeaderMap, body: &[u8]| read_json(body);
        self.deliver(Ask::Rehearse, &random_key(), body.into(), read)
            .await
    }

    async fn deliver<T>(
        &self,
        ask: Ask<'_>,
        idempotency_key: &str,
        body: Bytes,
        read: fn(&HeaderMap, &[u8]) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut signer = self.signer()?;
        let mut tries = Tries::new(self.retries, !matches!(ask, Ask::Rehearse));
        let delivery = Delivery {
            ask,
            body,
            idempotency_key,
        };
        loop {
            let headers = match &mut signer {
                Some(signer) => signer.headers(&delivery.body),
                None => &[],
            };
            let answer = self.request(&delivery, headers).await;
            let error = match answer.and_then(|(headers, body)| read(&headers, &body)) {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let is_late = error.is_late() && signer.as_mut().is_some_and(Signer::renew);
            match tries.wait(&error, is_late, &self.dice) {
                Some(wait) => tokio::time::sleep(wait).await,
                None => return Err(tries.outcome(error, idempotency_key)),
            }
        }
    }

    fn signer(&self) -> Result<Option<Signer>, Error> {
        let Some(key) = &self.signing_key else {
            return Ok(None);
        };
        let id = format!("msg_{:x}{:x}", clock::now().0, self.dice.throw().to_bits());
        Signer::new(self.scheme.clone(), key, id).map(Some)
    }

    async fn request(
        &self,
        delivery: &Delivery<'_>,
        signature: &[(String, String)],
    ) -> Result<(HeaderMap, Bytes), Error> {
        let (stream, key) = (self.stream.as_str(), Some(&self.ingest_key));
        let mut request = match delivery.ask {
            Ask::Delete(item) => {
                let path = ["api", "streams", stream, "items", item];
                self.server.request(Method::DELETE, &path, key)?
            }
            Ask::Lines => {
                let request = self.server.request(Method::POST, &["api", "ingest"], key)?;
                let request = request.header(CONTENT_TYPE, "application/x-ndjson");
                let id_field = self.id_field.iter().map(|name| ("idField", name.as_str()));
                let query: Vec<_> = [("stream", stream)].into_iter().chain(id_field).collect();
                request.query(&query).body(delivery.body.clone())
            }
            Ask::Record | Ask::Rehearse => {
                let path = ["api", "webhook", stream];
                let request = self.server.request(Method::POST, &path, key)?;
                let request = request.header(CONTENT_TYPE, "application/json");
                let query = self.id_field.iter().map(|name| ("idField", name.as_str()));
                let dry_run = matches!(delivery.ask, Ask::Rehearse).then_some(("dryRun", "true"));
                let query: Vec<_> = query.chain(dry_run).collect();
                request.query(&query).body(delivery.body.clone())
            }
        };
        request = request.header("idempotency-key", quoted(delivery.idempotency_key));
        for (name, value) in signature {
            request = request.header(name, value);
        }
        let timeout = match delivery.ask {
            Ask::Lines => BULK_TIMEOUT,
            Ask::Record | Ask::Rehearse | Ask::Delete(_) => ANSWER_TIMEOUT,
        };
        self.server.head_and_body_within(timeout, request).await
    }
}

fn accepted(headers: &HeaderMap, body: &[u8]) -> Result<Accepted, Error> {
    let body: AcceptedBody = read_json(body)?;
    let notices = text(headers, "datapool-notice").unwrap_or_default();
    Ok(Accepted {
        status: body.status,
        item_id: body.item_id,
        fields_updated: body.fields_updated,
        position: position(headers)?,
        replayed: is_replayed(headers),
        notices: notices
            .split(',')
            .map(|notice| notice.trim().to_owned())
            .filter(|notice| !notice.is_empty())
            .collect(),
        request_id: text(headers, "x-request-id"),
    })
}

fn ingested(headers: &HeaderMap, body: &[u8]) -> Result<Ingested, Error> {
    let body: IngestedBody = read_json(body)?;
    Ok(Ingested {
        status: body.status,
        request_id: body.request_id,
        items_received: body.items_received,
        position: position(headers)?,
        replayed: is_replayed(headers),
    })
}

fn deleted(headers: &HeaderMap, body: &[u8]) -> Result<Deleted, Error> {
    let body: DeletedBody = read_json(body)?;
    Ok(Deleted {
        status: body.status,
        item_id: body.item_id,
        position: position(headers)?,
        replayed: is_replayed(headers),
        request_id: text(headers, "x-request-id"),
    })
}

fn position(headers: &HeaderMap) -> Result<u64, Error> {
    text(headers, "datapool-position")
        .and_then(|position| position.parse().ok())
        .ok_or_else(|| Error::Protocol("DataPool-Position is missing".to_owned()))
}

fn is_replayed(headers: &HeaderMap) -> bool {
    text(headers, "idempotency-replayed").as_deref() == Some("true")
}

/// As a string of structured fields, which every key can be.
fn quoted(key: &str) -> String {
    format!("\"{}\"", key.replace('\\', "\\\\").replace('"', "\\\""))
}

fn random_key() -> String {
    format!("{:032x}", rand::random::<u128>())
}
