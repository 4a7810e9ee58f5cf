//! The one place where this crate asks for the time of day: signatures carry it, and a start can be so long ago.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hookpool_core::time::Timestamp;

/// Seconds since 1970, as a signature wants them. A clock before 1970 reads as 0, which every server refuses as too old.
pub(crate) fn unix_seconds() -> u64 {
    since_1970().as_secs()
}

/// The time of day.
pub(crate) fn now() -> Timestamp {
    Timestamp(u64::try_from(since_1970().as_micros()).unwrap_or(u64::MAX))
}

fn since_1970() -> Duration {
    #[expect(clippy::disallowed_methods, reason = "the one clock of this crate")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).unwrap_or_default()
}
