//! A point in time as data. Asking for the time is the engine's business.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Microseconds since 1970-01-01T00:00:00Z.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// From whole seconds since 1970.
    #[must_use]
    pub fn from_seconds(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1_000_000))
    }

    /// Reads what is shown, and no other spelling of it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let micros = text.parse::<jiff::Timestamp>().ok()?.as_microsecond();
        let time = Self(u64::try_from(micros).ok()?);
        (time.to_string() == text).then_some(time)
    }

    /// Whole seconds since 1970, rounded down.
    #[must_use]
    pub fn seconds(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Whole milliseconds since 1970, rounded down.
    #[must_use]
    pub fn millis(self) -> u64 {
        self.0 / 1_000
    }

    /// This many seconds later.
    #[must_use]
    pub fn plus_seconds(self, seconds: u64) -> Self {
        Self(self.0.saturating_add(seconds.saturating_mul(1_000_000)))
    }
}

/// RFC 3339 in UTC with microseconds: `2026-04-09T10:30:00.000000Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = i64::try_from(self.0).unwrap_or(i64::MAX);
        let time = jiff::Timestamp::from_microsecond(micros).unwrap_or(jiff::Timestamp::MAX);
        write!(f, "{time:.6}")
    }
}

/// RFC 3339 with any offset, not before 1970.
impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, TimestampError> {
        let time: jiff::Timestamp = text.parse().map_err(|_| TimestampError)?;
        let micros = u64::try_from(time.as_microsecond()).map_err(|_| TimestampError)?;
        Ok(Self(micros))
    }
}

/// The text is no time, or one before 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the time is not RFC 3339, or before 1970")]
pub struct TimestampError;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_as_rfc_3339_with_microseconds() {
        assert_eq!(
            Timestamp::from_seconds(1_700_000_000).to_string(),
            "2023-11-14T22:13:20.000000Z"
        );
        assert_eq!(Timestamp(1).to_string(), "1970-01-01T00:00:00.000001Z");
    }

    #[test]
    fn only_what_is_shown_is_read() {
        let time = Timestamp(1_700_000_000_123_456);
        assert_eq!(Timestamp::parse(&time.to_string()), Some(time));
        for bad in [
            "",
            "2023-11-14T22:13:20Z",
            "2023-11-14t22:13:20.123456Z",
            "2023-11-14T22:13:20.123456+00:00",
            "1969-12-31T23:59:59.000000Z",
        ] {
            assert_eq!(Timestamp::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn times_with_any_offset_are_read() {
        let time = |text: &str| text.parse::<Timestamp>();
        assert_eq!(time("1970-01-01T01:00:00.000001+01:00"), Ok(Timestamp(1)));
        for bad in ["", "1", "1969-12-31T23:59:59Z", "2024-01-01"] {
            assert_eq!(time(bad), Err(TimestampError), "{bad}");
        }
    }
}
