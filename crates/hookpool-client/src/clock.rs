//! The one place where this crate asks for the time of day: signatures carry it.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970, as a signature wants them. A clock before 1970 reads as 0, which every server refuses as too old.
pub(crate) fn unix_seconds() -> u64 {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one clock of this crate; signatures carry the time"
    )]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
