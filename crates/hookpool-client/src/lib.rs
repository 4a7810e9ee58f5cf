//! Producers, consumers and operators over HTTP: what `docs/protocol.md` promises, as calls.
//!
//! Not here: the server, its storage, its rules. Besides the protocol this crate shares only names, keys and the signature
//! with the server. A [`Producer`] sends, a [`Consumer`] reads, a [`Follower`] stays up to date, an [`Operator`] hands out keys.
//!
//! ```no_run
//! use hookpool_client::{Follower, Frame, Producer, Secret, Server};
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
//! let mut follower = Follower::new(server, "sales", read_key);
//! while let Some(frame) = follower.next().await {
//!     match frame? {
//!         Frame::Item(item) => println!("{} {:?}", item.item_id, item.fields),
//!         Frame::Change(change) => println!("{} {:?}", change.item_id, change.set),
//!         Frame::Reset(_) => println!("forget everything, a snapshot follows"),
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```

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
mod retention;
mod secret;
mod server;
pub mod sse;
mod value;

pub use backoff::Backoff;
pub use consumer::{Consumer, Event, EventPage, FieldMeta, History, Item, ItemPage, Stream, Touch};
pub use error::Error;
pub use follower::{Follower, Interruption, Start};
pub use frame::{Bookmark, Change, Frame, Generation, Goodbye, Op, Reset, Row, SnapshotEnd};
pub use generations::{
    Check, DiffLines, Difference, Projection, Quarantine, Rebuild, Served, Sides, Summary, Unfit,
};
pub use history::{Download, ExportQuery};
pub use hookpool_core::key::Secret;
pub use operator::{
    Connector, ConnectorKey, CreatedConnector, CreatedReader, NewConnector, Operator, Reader,
    Replay, RotatedKey, RotatedSigningKey,
};
pub use problem::Problem;
pub use producer::{Accepted, Producer, Retries};
pub use retention::{Expiring, Floor, Limits, Retention};
pub use server::{Ready, Server};
pub use value::{Fields, Value};
