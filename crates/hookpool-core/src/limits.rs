//! What a connector may send, as an operator set it; without a limit, what the server takes.

use std::{
    num::{NonZeroU32, NonZeroUsize},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::rate::Rate;

/// Limits of one connector.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limits {
    /// Events that are taken in a second, on average.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events_per_second: Option<NonZeroU32>,
    /// Events at once; left out, those of one second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<NonZeroU32>,
    /// Largest body; never more than the server takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_bytes: Option<NonZeroUsize>,
    /// Most distinct top-level properties of an event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<NonZeroU32>,
}

impl Limits {
    /// No limit at all.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Whether they make sense together.
    #[must_use]
    pub fn fit(&self) -> bool {
        self.burst.is_none() || self.events_per_second.is_some()
    }

    /// How fast events may come, if that is limited.
    #[must_use]
    pub fn rate(&self) -> Option<Rate> {
        let count = self.events_per_second?.get();
        let burst = self.burst.map_or(count, NonZeroU32::get);
        Some(Rate::new(count, Duration::from_secs(1), burst))
    }

    /// The largest body, of a server that takes so many bytes.
    #[must_use]
    pub fn body_bytes_of(&self, server: usize) -> usize {
        self.body_bytes
            .map_or(server, |limit| limit.get().min(server))
    }
}
