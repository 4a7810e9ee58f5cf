//! What can go wrong between asking and having an answer.

use std::{error::Error as _, time::Duration};

use serde::de::DeserializeOwned;

use crate::problem::Problem;

/// Why a call gave nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No answer, or only a part of one. What the request did is unknown if it may have been sent.
    #[error("no answer from {server}: {reason}")]
    Unreachable {
        /// Who was asked.
        server: String,
        /// The innermost cause.
        reason: String,
        /// Whether the request may have reached the server.
        sent: bool,
    },
    /// The server refused.
    #[error("{0}")]
    Problem(Box<Problem>),
    /// A try of a delivery may have arrived, and none was answered with what became of it. The same delivery under the same key makes no second event.
    #[error(
        "it may be in the log, and is not recorded again under the idempotency key {idempotency_key}; the last try: {last}"
    )]
    MayBeRecorded {
        /// The one that all tries had.
        idempotency_key: String,
        /// What became of the last try.
        last: Box<Self>,
    },
    /// The server answered with something that the protocol does not know. It may have done what was asked.
    #[error("the answer is not Hookpool's: {0}")]
    Protocol(String),
    /// The request can't be expressed; nothing was sent.
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    /// The server's refusal, if it refused; of several tries the last one's.
    #[must_use]
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Problem(refusal) => Some(refusal),
            Self::MayBeRecorded { last, .. } => last.problem(),
            Self::Unreachable { .. } | Self::Protocol(_) | Self::Invalid(_) => None,
        }
    }

    /// Whether a call that was to change something may have done so in spite of the error; otherwise it has not.
    #[must_use]
    pub fn outcome_is_unknown(&self) -> bool {
        match self {
            Self::Unreachable { sent, .. } => *sent,
            Self::Problem(problem) => problem.outcome_is_unknown(),
            Self::MayBeRecorded { .. } | Self::Protocol(_) => true,
            Self::Invalid(_) => false,
        }
    }

    /// Whether it was refused for a timestamp that is too far from the server's clock.
    pub(crate) fn is_late(&self) -> bool {
        let problem = self.problem();
        problem.is_some_and(|problem| problem.code == "TIMESTAMP_OUT_OF_RANGE")
    }

    pub(crate) fn retry_after(&self) -> Option<Duration> {
        self.problem()?.retry_after
    }

    pub(crate) fn unreachable(server: &str, error: &reqwest::Error) -> Self {
        Self::Unreachable {
            server: server.to_owned(),
            reason: if error.is_timeout() {
                "it took too long".to_owned()
            } else {
                innermost(error)
            },
            sent: !error.is_connect(),
        }
    }
}

/// What an answer or a frame says, if it is what the protocol says there.
pub(crate) fn read_json<T: DeserializeOwned>(json: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(json).map_err(|error| Error::Protocol(error.to_string()))
}

fn innermost(error: &reqwest::Error) -> String {
    let mut cause = error.source();
    while let Some(deeper) = cause.and_then(std::error::Error::source) {
        cause = Some(deeper);
    }
    // The outermost text would name the URL, which the caller knows and which may be long.
    cause.map_or_else(|| "the request failed".to_owned(), ToString::to_string)
}
