//! Keeps the promises of `hookpool-store` on fjall: [`FjallLog`] is the truth, [`FjallPool`] is derived from it.
//!
//! `docs/storage.md` has the folders, keys and bytes, and what is checked when. Two databases: a log of blocks, synced with
//! every commit, and a pool that may be deleted at any time. Knows nothing of who appends or who reads.

mod database;
mod error;
mod folder;
mod journal;
mod keys;
mod log;
mod pool;
mod rejections;
mod requests;
mod rows;
mod tables;
mod tail;
mod verify;
mod witness;

pub use error::OpenError;
pub use log::{CopyError, FjallLog, Options, VERIFY_BYTES};
pub use pool::{FjallPool, FjallPoolSnapshot};
pub use rejections::RejectionFolder;
pub use verify::{Problem, Progress, Report, verify};
