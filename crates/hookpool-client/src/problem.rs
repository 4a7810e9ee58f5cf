//! The server's refusals: RFC 9457 problem documents, and what stands in for one where a proxy answered instead.

use std::{fmt, time::Duration};

use reqwest::{
    Response, StatusCode,
    header::{HeaderMap, RETRY_AFTER},
};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

/// What is longer is none of ours.
const DOCUMENT_BYTES_MAX: usize = 64 << 10;
/// From the head to the end of a document; less than for a whole exchange, so that the status is told at least.
const DOCUMENT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the server did not do it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// The stable name of the problem, `INVALID_PAYLOAD` for one. Empty if something else than Hookpool answered.
    pub code: String,
    /// The problem in a few words.
    pub title: String,
    /// More about this occurrence.
    pub detail: Option<String>,
    /// Of a request of many events: the number of the line that is meant, from 1 on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// What to look for in the server's log.
    pub request_id: Option<String>,
    /// How long the server asked to be left alone.
    #[serde(skip)]
    pub retry_after: Option<Duration>,
}

/// The members we read; a problem document may hold more and may miss any.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Document {
    code: String,
    title: String,
    detail: Option<String>,
    line: Option<u64>,
    request_id: Option<String>,
}

impl Problem {
    /// Reads the answer as far as a problem document goes. An answer that is none, or not whole, still gives its status.
    pub(crate) async fn read(mut response: Response) -> Self {
        let status = response.status();
        let headers = std::mem::take(response.headers_mut());
        let mut body = Vec::new();
        // Whoever stops in the middle has refused all the same.
        let _ = timeout(DOCUMENT_TIMEOUT, document(&mut response, &mut body)).await;
        Self::new(status, &headers, &body)
    }

    /// The request with the same idempotency key is not done yet.
    pub(crate) fn is_in_progress(&self) -> bool {
        self.code == "IDEMPOTENCY_IN_PROGRESS"
    }

    /// What a server or proxy says that may have handed the request on.
    pub(crate) fn outcome_is_unknown(&self) -> bool {
        self.status >= 500 || self.is_in_progress()
    }

    fn new(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        let mut document: Document = serde_json::from_slice(body).unwrap_or_default();
        if document.title.is_empty() {
            document.title = status
                .canonical_reason()
                .unwrap_or("no reason given")
                .into();
        }
        Self {
            status: status.as_u16(),
            code: document.code,
            title: document.title,
            detail: document.detail,
            line: document.line,
            request_id: document
                .request_id
                .or_else(|| text(headers, "x-request-id")),
            retry_after: text(headers, RETRY_AFTER.as_str())
                .and_then(|seconds| seconds.parse().ok())
                .map(Duration::from_secs),
        }
    }
}

/// Reads until the end, until it breaks off, or until it is too long for a document.
async fn document(response: &mut Response, body: &mut Vec<u8>) {
    while body.len() <= DOCUMENT_BYTES_MAX
        && let Ok(Some(piece)) = response.chunk().await
    {
        body.extend_from_slice(&piece);
    }
}

/// A header as text, if it is there and is text.
pub(crate) fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(ToOwned::to_owned)
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.title.trim_end_matches('.'))?;
        if let Some(detail) = &self.detail {
            write!(f, ": {}", detail.trim_end_matches('.'))?;
        }
        match self.code.as_str() {
            "" => write!(f, " ({}", self.status)?,
            code => write!(f, " ({} {code}", self.status)?,
        }
        match &self.request_id {
            Some(id) => write!(f, ", request {id})"),
            None => write!(f, ")"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_document_is_told_in_one_sentence() {
        let body = br#"{"type":"/problems/unavailable","title":"Try again later.","status":503,"code":"UNAVAILABLE","requestId":"r1"}"#;
        let headers = HeaderMap::from_iter([(RETRY_AFTER, "7".parse().unwrap())]);
        let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, &headers, body);
        assert_eq!(
            problem.to_string(),
            "Try again later (503 UNAVAILABLE, request r1)"
        );
        assert_eq!(problem.retry_after, Some(Duration::from_secs(7)));
    }

    #[test]
    fn an_answer_of_something_else_keeps_its_status() {
        let problem = Problem::new(
            StatusCode::BAD_GATEWAY,
            &HeaderMap::new(),
            b"<html>oops</html>",
        );
        assert_eq!(problem.to_string(), "Bad Gateway (502)");
    }
}
