//! The contract of what is kept of refused deliveries.

use std::fmt;

use hookpool_core::event::RequestId;

use crate::log::Cause;

/// Some bytes for each of some refused deliveries.
///
/// They are for people who look for a mistake, and never the truth about anything: a power cut may take some of them, and whoever deletes them all
/// loses nothing that was acknowledged. What was put survives the end of the process, however it ended. What is read is what was put, or an error, or
/// nothing. Who puts also bounds: a store takes what it is given.
///
/// Calls may block the calling thread for the time of a disk access.
pub trait RejectionStore: fmt::Debug + Send + Sync + 'static {
    /// Keeps the bytes of one, in place of those before.
    ///
    /// # Errors
    /// Whatever the disk says; what was there before may be gone.
    fn put(&self, id: RequestId, bytes: &[u8]) -> Result<(), Cause>;

    /// The bytes of one, if it is there.
    ///
    /// # Errors
    /// Whatever the disk says.
    fn get(&self, id: RequestId) -> Result<Option<Vec<u8>>, Cause>;

    /// Forgets one, if it is there.
    ///
    /// # Errors
    /// Whatever the disk says.
    fn remove(&self, id: RequestId) -> Result<(), Cause>;

    /// All that are there, in any order.
    ///
    /// # Errors
    /// Whatever the disk says.
    fn ids(&self) -> Result<Vec<RequestId>, Cause>;
}
