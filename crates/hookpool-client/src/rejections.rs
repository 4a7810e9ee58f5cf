//! Deliveries that were refused.

use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    error::Error,
    operator::{Operator, admin},
};

/// A refused delivery.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rejection {
    /// The request, as its sender was told it in `X-Request-Id`.
    pub id: String,
    /// RFC 3339.
    pub time: String,
    /// One of the words of the documentation.
    pub reason: String,
    /// What the sender was answered.
    pub status: u16,
    /// What is wrong with the signature, for people.
    pub diagnosis: Option<String>,
    /// The same for programs.
    pub findings: Vec<Value>,
    /// By which way it came.
    pub way: String,
    /// Where it was meant for, if there is such a stream.
    pub stream: Option<String>,
    /// Who sent it, as far as it is known.
    pub connector: Option<String>,
    /// The public part of the key that was shown, if it is one of the server's.
    pub key_id: Option<String>,
    /// Where it came from.
    pub address: Option<String>,
    /// Of the body, as far as it was read.
    pub body_bytes: u64,
    /// Which headers it had.
    pub headers: Vec<HeaderShape>,
    /// Whether it is kept whole and can be tried again.
    pub kept: bool,
    /// Why it is not.
    pub not_kept: Option<NotKept>,
    /// By what it is known when its sender sends it again, if it is kept: `idempotency-key`, `delivery-id` or `content`.
    pub known_by: Option<String>,
    /// What became of it, once it was tried again and taken.
    pub retried: Option<Retried>,
}

/// Why a rejection can't be tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotKept {
    /// One of the words of the documentation.
    pub reason: String,
    /// For people, with what can be done.
    pub detail: String,
}

/// A header without its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderShape {
    /// In lower case.
    pub name: String,
    /// Of the value.
    pub bytes: u64,
}

/// What became of a rejection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retried {
    /// RFC 3339.
    pub time: String,
    /// Where its event is; the last one of many.
    pub position: u64,
    /// How many they are.
    pub events: u64,
}

/// Some rejections, the newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RejectionPage {
    /// The rejections.
    pub rejections: Vec<Rejection>,
    /// Where the next page begins, if there is one.
    pub next: Option<String>,
}

/// Which rejections are asked for.
#[derive(Debug, Clone, Default, Serialize)]
pub struct RejectionQuery {
    /// Only of this connector.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connector: Option<String>,
    /// Only for this reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Only those before this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// How many at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

/// What became of one that was tried again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// Which.
    pub id: String,
    /// `accepted`, `refused`, or `doubtful`: it may be there already.
    pub outcome: String,
    /// Where its event is, the last one of many; of a doubtful one where something with the same content begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    /// How many they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<u64>,
    /// The item it touched, if it was a delivery of one event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item_id: Option<String>,
    /// Whether the event was there already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replayed: Option<bool>,
    /// The code that its sender would be told now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What is wrong with it now, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diagnosis: Option<String>,
    /// The same for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub findings: Option<Vec<Value>>,
    /// Which line of many events is refused, from 1 on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// Which item of them is, from 0 on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<u64>,
}

/// What became of all of a connector, or of some.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RetriedAll {
    /// How many are events now.
    pub accepted: u64,
    /// How many are still refused.
    pub refused: u64,
    /// How many may be there already.
    pub doubtful: u64,
    /// Behind which the next call goes on, if there are more than one call tries.
    pub next: Option<String>,
    /// Each of them.
    pub rejections: Vec<Outcome>,
}

/// Every call fails as [`Error`] says; 404 is a rejection or connector that is not there, `CONFLICT` one that was not kept.
impl Operator {
    /// Why deliveries were refused.
    pub async fn rejections(&self, query: &RejectionQuery) -> Result<RejectionPage, Error> {
        let request = self.request_of(&["rejections"])?.query(query);
        self.server.json(request).await
    }

    /// One of them.
    pub async fn rejection(&self, id: &str) -> Result<Rejection, Error> {
        self.get(&["rejections", id]).await
    }

    /// Tries one again, with its connector as it is now; `force` also takes what may be there already.
    pub async fn retry_rejection(&self, id: &str, force: bool) -> Result<Outcome, Error> {
        let action = format!("{id}:retry");
        let path = admin(&["rejections", &action]);
        let request = self.server.request(Method::POST, &path, Some(&self.key))?;
        let request = request.query(&[("force", force)]);
        self.server.json_without_limit(request).await
    }

    /// Tries those of a connector again that wait for it, the oldest first, from behind one of them on: up to 1,000.
    pub async fn retry_rejections(
        &self,
        connector: &str,
        after: Option<&str>,
        force: bool,
    ) -> Result<RetriedAll, Error> {
        let path = admin(&["rejections:retry"]);
        let request = self.server.request(Method::POST, &path, Some(&self.key))?;
        let request = request.query(&[("connector", connector)]);
        let request = request.query(after.map(|id| ("after", id)).as_slice());
        let request = request.query(&[("force", force)]);
        self.server.json_without_limit(request).await
    }
}
