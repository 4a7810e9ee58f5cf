//! Turns bytes into verified, shaped, encoded events and folds events into state.
//!
//! Not here: sockets, files, tasks, clocks, randomness. Time and random bytes are arguments, so every function gives the
//! same answer on every machine and in every run. The way of a delivery is the order of the types:
//! [`verify::Admitted`] -> [`verify::Verified`] -> [`event::NewEvent`] -> [`event::Event`] -> [`fold::Item`].
//!
//! ```
//! use hookpool_core::json;
//!
//! let object = json::object(br#"{"region":"North","sales":142000}"#)?;
//! assert_eq!(object.fields.len(), 2);
//! # Ok::<(), json::JsonError>(())
//! ```

#![warn(clippy::indexing_slicing, clippy::wildcard_enum_match_arm)]

pub mod bulk;
pub mod codec;
pub mod control;
pub mod cursor;
pub mod diagnosis;
pub mod difference;
pub mod event;
pub mod export;
pub mod fold;
mod hex;
pub mod idempotency;
pub mod json;
pub mod key;
pub mod limits;
pub mod name;
pub mod plan;
pub mod position;
pub mod projection;
pub mod proof;
pub mod rate;
pub mod registry;
pub mod rejection;
pub mod retention;
pub mod scheme;
pub mod seal;
pub mod selection;
pub mod shape;
pub mod sign;
pub mod source;
pub mod time;
pub mod verify;
