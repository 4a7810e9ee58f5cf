//! What a log and a pool must promise, in prose and code: [`EventLog`] and [`PoolStore`].
//!
//! A backend is written from these two pages alone and passes [`conformance`]. The memory implementations in [`memory`] are the
//! reference; [`faulty`] wraps any log in seeded failures. Not here: HTTP, tasks, files, or who calls whom.

pub mod conformance;
pub mod dedupe;
pub mod faulty;
pub mod log;
pub mod memory;
pub mod pool;
pub mod rejections;

pub use log::{
    AppendError, Appended, Cause, Dropped, EventLog, LogEnd, Page, PageRequest, ReadError,
    wait_past,
};
pub use pool::{
    Checkpoint, DifferenceState, GenerationChanges, GenerationState, ItemPage, PoolChanges,
    PoolError, PoolSnapshot, PoolStore,
};
pub use rejections::RejectionStore;
