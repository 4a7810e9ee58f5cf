//! What can go wrong between asking and having an answer.

use std::{error::Error as _, time::Duration};

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
    /// The server answered with something that the protocol does not know. It may have done what was asked.
    #[error("the answer is not Hookpool's: {0}")]
    Protocol(String),
    /// The request can't be expressed; nothing was sent.
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    /// The server's refusal, if that is what it is.
    #[must_use]
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Problem(problem) => Some(problem),
            Self::Unreachable { .. } | Self::Protocol(_) | Self::Invalid(_) => None,
        }
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

fn innermost(error: &reqwest::Error) -> String {
    let mut cause = error.source();
    while let Some(deeper) = cause.and_then(std::error::Error::source) {
        cause = Some(deeper);
    }
    // The outermost text would name the URL, which the caller knows and which may be long.
    cause.map_or_else(|| "the request failed".to_owned(), ToString::to_string)
}
