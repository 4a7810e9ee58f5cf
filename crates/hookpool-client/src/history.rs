//! The whole history: signed heads, exports and the blocks of a backup.

use std::time::Duration;

use bytes::Bytes;
use hookpool_core::{position::Epoch, proof::SignedHead};
use reqwest::{RequestBuilder, Response, header::HeaderMap};
use serde::Serialize;

use crate::{error::Error, operator::Operator, problem, server::Server};

/// Before a download begins, and between two pieces of it.
const PIECE_TIMEOUT: Duration = Duration::from_secs(60);

/// What to export.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ExportQuery {
    /// Only events after this position.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// Only events up to this position; up to the end as of the request if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
    /// Only events of this stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// `ndjson` or `cloudevents`.
    pub format: String,
}

/// Every call fails as [`Error`] says.
impl Operator {
    /// The end of the log of deliveries, signed. The signature is not checked.
    pub async fn head(&self) -> Result<SignedHead, Error> {
        self.get(&["head"]).await
    }

    /// The events as lines of text.
    pub async fn export(&self, query: &ExportQuery) -> Result<Download, Error> {
        self.download(self.request_of(&["export"])?.query(query))
            .await
    }

    /// The blocks of a log, `events` or `control`, that end after a position; each as it is stored.
    pub async fn blocks(&self, log: &str, after: u64) -> Result<Download, Error> {
        let request = self.request_of(&["blocks"])?;
        let after = after.to_string();
        self.download(request.query(&[("log", log), ("after", &after)]))
            .await
    }

    async fn download(&self, request: RequestBuilder) -> Result<Download, Error> {
        let server = self.server().clone();
        let response = server.head_within(PIECE_TIMEOUT, request).await?;
        Download::new(server, response)
    }
}

/// Bytes that come piece by piece, with what the server said about them.
#[derive(Debug)]
pub struct Download {
    server: Server,
    response: Response,
    /// Of the log.
    pub epoch: Epoch,
    /// The last position that will come; for a stream of few events it may be less.
    pub until: u64,
}

impl Download {
    fn new(server: Server, response: Response) -> Result<Self, Error> {
        let headers = response.headers();
        let epoch = u64::from_str_radix(&header(headers, "datapool-epoch")?, 16).map(Epoch);
        let until = header(headers, "datapool-position")?.parse();
        let (Ok(epoch), Ok(until)) = (epoch, until) else {
            return Err(Error::Protocol("its epoch or position is malformed".into()));
        };
        Ok(Self {
            server,
            response,
            epoch,
            until,
        })
    }

    /// The next piece; `None` at the end that the server meant. Anything else is an error.
    ///
    /// # Errors
    /// [`Error::Unreachable`] if it stops coming.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let response = &mut self.response;
        self.server.piece_within(PIECE_TIMEOUT, response).await
    }
}

fn header(headers: &HeaderMap, name: &str) -> Result<String, Error> {
    problem::text(headers, name).ok_or_else(|| Error::Protocol(format!("it has no {name}")))
}
