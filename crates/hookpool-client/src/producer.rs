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
    error::Error,
    problem::text,
    server::{ANSWER_TIMEOUT, Server},
    value::Fields,
};

/// Sends bodies to one stream.
///
/// # Retries
///
/// A failed try is repeated, with growing waits or after the server's `Retry-After`, if no complete answer came, if the server said 503 or that the
/// first try is still in flight, or if a proxy said 502 or 504.
///
/// Every delivery has an `Idempotency-Key`, a random one where the caller has none, and a repeated delivery is the very same request, timestamp included. The
/// server answers it with the first answer and no second event, for 96 hours, so it is safe even if the first try had arrived.
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
    /// Four retries from 200 ms on. With at most 30 s for an answer and 20 s for a wait, all five tries stay inside the 300 s
    /// for which a signature holds.
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
    idempotency_key: String,
    /// What the scheme adds; nothing if it is not signed.
    headers: Vec<(String, String)>,
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
    /// The last try's. After [`Error::Unreachable`] with `sent` it is unknown whether the event is in the log.
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
        let delivery = self.sign(Ask::Record, idempotency_key, body.into())?;
        let (headers, body) = self.deliver(delivery).await?;
        accepted(&headers, &body)
    }

    /// Delivers many events in one request, all or none: lines of one JSON object each, up to the server's limits (50,000 and 16 MiB).
    ///
    /// # Errors
    /// As [`send`](Self::send); a refusal names the line. After any refusal, none of them is in the log.
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
        let delivery = self.sign(Ask::Lines, idempotency_key, lines.into())?;
        let (headers, body) = self.deliver(delivery).await?;
        ingested(&headers, &body)
    }

    /// Deletes an item by its id; that there is none is no error. Repeated under the same conditions as [`send`](Self::send).
    ///
    /// # Errors
    /// As for [`send`](Self::send).
    pub async fn delete(&self, item_id: &str) -> Result<Deleted, Error> {
        let delivery = self.sign(Ask::Delete(item_id), &random_key(), Bytes::new())?;
        let (headers, body) = self.deliver(delivery).await?;
        let body: DeletedBody =
            serde_json::from_slice(&body).map_err(|error| Error::Protocol(error.to_string()))?;
        Ok(Deleted {
            status: body.status,
            item_id: body.item_id,
            position: position(&headers)?,
            replayed: is_replayed(&headers),
            request_id: text(&headers, "x-request-id"),
        })
    }

    /// Asks what would happen to a body; nothing is written.
    ///
    /// # Errors
    /// Those that [`send`](Self::send) would give for what is wrong with the delivery itself.
    pub async fn dry_run(&self, body: impl Into<Bytes>) -> Result<Rehearsal, Error> {
        let delivery = self.sign(Ask::Rehearse, &random_key(), body.into())?;
        let (_, body) = self.deliver(delivery).await?;
        let rehearsal: Rehearsal =
            serde_json::from_slice(&body).map_err(|error| Error::Protocol(error.to_string()))?;
        Ok(rehearsal)
    }

    async fn deliver(&self, delivery: Delivery<'_>) -> Result<(HeaderMap, Bytes), Error> {
        let mut failures = 0;
        loop {
            let error = match self.request(&delivery).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            failures += 1;
            if failures > self.retries.most || !is_repeatable(&error) {
                return Err(error);
            }
            let wait = self.retries.backoff.delay(failures, self.dice.throw());
            // Jitter on top: everybody was told the same number of seconds.
            let wait = error.retry_after().map_or(wait, |asked| asked + wait);
            if wait > self.retries.patience {
                return Err(error);
            }
            tokio::time::sleep(wait).await;
        }
    }

    fn sign<'a>(
        &self,
        ask: Ask<'a>,
        idempotency_key: &str,
        body: Bytes,
    ) -> Result<Delivery<'a>, Error> {
        let mut headers = Vec::new();
        if let Some(key) = &self.signing_key {
            let key = self.scheme.key(key.expose());
            let key = key.map_err(|error| Error::Invalid(error.to_string()))?;
            let id = format!("msg_{:x}{:x}", clock::now().0, self.dice.throw().to_bits());
            headers = self.scheme.sign(&key, clock::unix_seconds(), &id, &body);
        }
        Ok(Delivery {
            ask,
            body,
            idempotency_key: quoted(idempotency_key),
            headers,
        })
    }

    async fn request(&self, delivery: &Delivery<'_>) -> Result<(HeaderMap, Bytes), Error> {
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
        request = request.header("idempotency-key", &delivery.idempotency_key);
        for (name, value) in &delivery.headers {
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
    let body: AcceptedBody =
        serde_json::from_slice(body).map_err(|error| Error::Protocol(error.to_string()))?;
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
    let body: IngestedBody =
        serde_json::from_slice(body).map_err(|error| Error::Protocol(error.to_string()))?;
    Ok(Ingested {
        status: body.status,
        request_id: body.request_id,
        items_received: body.items_received,
        position: position(headers)?,
        replayed: is_replayed(headers),
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

fn is_repeatable(error: &Error) -> bool {
    match error {
        Error::Unreachable { .. } => true,
        Error::Problem(problem) => {
            matches!(problem.status, 502..=504) || problem.code == "IDEMPOTENCY_IN_PROGRESS"
        }
        Error::Protocol(_) | Error::Invalid(_) => false,
    }
}
