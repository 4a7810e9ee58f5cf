//! Producers, consumers and operators over HTTP: what `docs/protocol.md` promises, as calls.
//!
//! Not here: the server, its storage, its rules. Besides the protocol this crate shares only names, keys and the schemes of
//! signatures with the server. A [`Producer`] sends, a [`Consumer`] reads, a [`Follower`] stays up to date and a
//! [`State`] is what its frames add up to, an [`Operator`] hands out keys.
//!
//! ```no_run
//! use hookpool_client::{Follower, Producer, Secret, Server};
//!
//! # async fn example(ingest_key: Secret, signing_key: Secret, read_key: Secret) -> Result<(), hookpool_client::Error> {
//! let server = Server::new("http://127.0.0.1:8080")?;
//!
//! let producer = Producer::new(server.clone(), "sales", ingest_key)
//!     .signing_key(signing_key)
//!     .id_field("region");
//! let accepted = producer.send(r#"{"region":"North","sales":142000}"#).await?;
//! println!("{} is at position {}", accepted.item_id, accepted.position);
//!
//! let mut follower = Follower::new(server, "sales", read_key).condition("sales>=100000");
//! let mut state = follower.state();
//! while let Some(frame) = follower.next().await {
//!     state.feed(&frame?);
//!     if let Some(cursor) = state.cursor() {
//!         println!("{:?} as of {cursor}", state.items("sales"));
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod ask;
mod backoff;
mod clock;
mod consumer;
mod error;
mod follower;
mod frame;
mod generations;
mod history;
mod operator;
mod problem;
mod producer;
mod rejections;
mod retention;
mod secret;
mod server;
mod signature;
pub mod sse;
mod state;
mod tries;
mod value;

pub use ask::Start;
pub use backoff::{Backoff, Dice};
pub use consumer::{
    Consumer, Event, EventPage, FieldMeta, History, Item, ItemPage, ItemQuery, Stream, Ticket,
    Touch,
};
pub use error::Error;
pub use follower::{Follower, Interruption};
pub use frame::{Bookmark, Change, Frame, Generation, Goodbye, Op, Reset, Row, SnapshotEnd};
pub use generations::{
    Check, DiffLines, Difference, Projection, Quarantine, Rebuild, Served, Sides, Summary, Unfit,
};
pub use history::{Download, ExportQuery};
pub use hookpool_core::{key::Secret, limits::Limits as ConnectorLimits, scheme::Scheme};
pub use operator::{
    Connector, ConnectorChange, ConnectorKey, CreatedConnector, CreatedOperator, CreatedReader,
    Following, NewConnector, Operator, OperatorKey, Reader, Replay, RotatedHook, RotatedKey,
    RotatedSigningKey,
};
pub use problem::Problem;
pub use producer::{Accepted, Deleted, Ingested, Producer, Rehearsal, RehearsedChanges, Retries};
pub use rejections::{
    HeaderShape, NotKept, Outcome, Rejection, RejectionPage, RejectionQuery, Retried, RetriedAll,
};
pub use retention::{Expiring, Floor, Limits, Retention};
pub use server::{Ready, Server};
pub use state::State;
pub use value::{Fields, Value};
