//! Where something is in a log: position, epoch, generation.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Place of an event in a log: strictly increasing, may have gaps. The first event is after [`Position::ZERO`].
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Position(pub u64);

impl Position {
    /// Before every event.
    pub const ZERO: Self = Self(0);

    /// The position `by` later.
    #[must_use]
    pub fn plus(self, by: u64) -> Self {
        Self(self.0 + by)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Random identity of a log, made when the log is created. Positions of different epochs have nothing to do with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// One materialisation of a stream in the pool, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u32);

impl Generation {
    /// The first materialisation of every stream.
    pub const FIRST: Self = Self(1);

    /// No materialisation of any stream: in a cursor, that there is no way on from where its holder is.
    pub const NONE: Self = Self(0);
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
