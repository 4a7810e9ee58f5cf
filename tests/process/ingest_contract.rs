//! The ingest contract of `docs/protocol.md` over raw sockets against one server, where more is to be said than which request is refused:
//! that is in `tests/corpus`.

mod answers;
mod credentials;
mod fields;
mod names;
mod replays;
mod transport;

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::common::fold::{Event, Field, Pool, fold};
use crate::common::http::{Request, Response};
use crate::common::server::{Connector, Server};
use crate::common::shared::{Shared, shared};

/// A stream of the shared server that belongs to one test.
struct Stream {
    shared: Arc<Shared>,
    connector: Connector,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Accepted {
    status: String,
    item_id: String,
    fields_updated: u64,
}

impl Stream {
    fn new(name: &str) -> Self {
        Self::with(json!({"stream": name}))
    }

    fn signed(name: &str) -> Self {
        Self::with(json!({"stream": name, "signed": true}))
    }

    fn with(settings: Value) -> Self {
        let shared = shared();
        let connector = shared.server.add_connector_with(&settings);
        Self { shared, connector }
    }

    fn server(&self) -> &Server {
        &self.shared.server
    }

    fn call(&self, request: &Request) -> Response {
        self.server().call(request)
    }

    fn post(&self, body: impl AsRef<[u8]>) -> Response {
        self.server().post(&self.connector, body)
    }

    /// A delivery with this query string.
    fn query(&self, query: &str, body: &str) -> Response {
        let target = format!("{}?{query}", self.connector.target());
        self.call(&self.connector.delivery_to(&target, body.as_bytes()))
    }

    /// The start of a request with the ingest key and nothing else.
    fn request(&self) -> Request {
        Request::post(&self.connector.target()).bearer(&self.connector.ingest_key)
    }

    fn log(&self) -> Vec<Event> {
        self.server().log(&self.connector.stream)
    }

    /// The items when everything in the log is applied, which have to be the fold of that log.
    fn items(&self) -> Pool {
        let log = self.log();
        let last = log.last().map_or(0, |event| event.position);
        let (_, pool) = self.server().items(&self.connector.stream, last);
        assert_eq!(pool, fold(&log));
        pool
    }

    /// Asserts a refusal that leaves no event behind and does not harm the next delivery.
    #[track_caller]
    fn refuses(&self, request: &Request, status: u16, code: &str) {
        let before = self.log().len();
        self.call(request).expect_problem(status, code);
        assert_eq!(self.log().len(), before, "a refused delivery is in the log");
        self.post("{}").expect(202);
        assert_eq!(self.log().len(), before + 1);
    }
}

#[track_caller]
fn accepted(response: Response) -> Accepted {
    let accepted: Accepted = response.expect(202).json();
    assert_eq!(accepted.status, "accepted");
    accepted
}

fn string(text: &str) -> Field {
    Field::String(text.to_owned())
}

fn verbatim(text: &str) -> Field {
    Field::Verbatim(text.to_owned())
}
