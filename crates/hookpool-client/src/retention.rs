//! How much history of a stream is kept.

use reqwest::Method;
use serde::{Deserialize, Serialize};

use crate::{
    error::Error,
    operator::{Operator, admin},
};

/// Limits of the history of a stream, and what became of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Retention {
    /// The stream.
    pub stream: String,
    /// Only events that are at most this old.
    pub max_age_seconds: Option<u64>,
    /// Only this many positions before the head.
    pub max_positions: Option<u64>,
    /// The earliest moment that can be read; `None` if nothing was ever dropped.
    pub earliest: Option<Floor>,
    /// Whether all that expired is dropped.
    pub dropped: bool,
    /// What it waits for.
    pub waiting: Option<String>,
    /// Expired events that items need, once that is known.
    pub kept: Option<u64>,
    /// Items of which all events are kept, since fewer did not prove to be enough.
    pub whole_items: u64,
    /// Why it failed the last time; it is tried again.
    pub error: Option<String>,
}

/// The last expired event of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Floor {
    /// Its position.
    pub position: u64,
    /// Its time, RFC 3339.
    pub time: String,
}

/// What limits would make unreadable now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expiring {
    /// The stream.
    pub stream: String,
    /// The earliest moment that could be read then; `None` if nothing would go.
    pub earliest: Option<Floor>,
    /// Events that could not be read any more.
    pub events: u64,
}

/// Limits to set; at least one of them.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Only events that are at most this old.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age_seconds: Option<u64>,
    /// Only this many positions before the head.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_positions: Option<u64>,
}

/// Every call fails as [`Error`] says; 404 is a stream that is not there.
impl Operator {
    /// How much history of a stream is kept.
    pub async fn retention(&self, stream: &str) -> Result<Retention, Error> {
        self.get(&["streams", stream, "retention"]).await
    }

    /// Keeps only what is within these limits from now on.
    pub async fn set_retention(&self, stream: &str, limits: Limits) -> Result<Retention, Error> {
        let path = admin(&["streams", stream, "retention"]);
        let request = self.server.request(Method::PUT, &path, Some(&self.key))?;
        self.server.json(request.json(&limits)).await
    }

    /// What these limits would make unreadable now; nothing is changed.
    pub async fn check_retention(&self, stream: &str, limits: Limits) -> Result<Expiring, Error> {
        let path = admin(&["streams", stream, "retention"]);
        let request = self.server.request(Method::PUT, &path, Some(&self.key))?;
        let request = request.query(&[("check", true)]).json(&limits);
        self.server.json_without_limit(request).await
    }

    /// Keeps all that is there from now on.
    pub async fn clear_retention(&self, stream: &str) -> Result<Retention, Error> {
        let path = admin(&["streams", stream, "retention"]);
        let request = self
            .server
            .request(Method::DELETE, &path, Some(&self.key))?;
        self.server.json(request).await
    }
}
