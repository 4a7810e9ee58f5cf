//! Frames that one task makes of a stream for all who want the same of it. They are taken as those of the whole stream are.

use std::sync::Arc;

use hookpool_core::position::Position;

use super::ring::{BYTES_EACH, Fresh, Ring};

/// Recent frames of one selection of a generation. A handle.
#[derive(Debug, Clone)]
pub struct Feed {
    pub(super) ring: Arc<Ring>,
}

impl Feed {
    /// A feed of everything after a position, which the pool has reached.
    #[must_use]
    pub fn new(from: Position) -> Self {
        Self {
            ring: Arc::new(Ring::new(from, BYTES_EACH)),
        }
    }

    /// Shows the frames that come next, each with the position of its event: all that there are up to `through`.
    pub fn push<B: AsRef<[u8]>>(
        &self,
        frames: impl IntoIterator<Item = (Position, B)>,
        through: Position,
    ) {
        let mut fresh = Fresh::default();
        for (position, frame) in frames {
            fresh.push(position, "", |into| into.extend_from_slice(frame.as_ref()));
        }
        fresh.pass(through);
        // The last ones are kept for as long as nothing comes.
        fresh.shrink();
        self.ring.push(fresh);
    }

    /// Leaves out what comes next, up to a position that the pool has reached: followers read it from the log.
    pub fn skip(&self, through: Position) {
        self.ring.skip(through);
    }

    /// Says that another generation is served, after all frames of this one.
    pub fn retire(&self) {
        self.ring.retire();
    }

    /// Whether it is the same one.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.ring, &other.ring)
    }

    /// How many follow it.
    #[must_use]
    pub fn followers(&self) -> usize {
        self.ring.followers()
    }

    /// Waits until nobody follows it.
    pub async fn unfollowed(&self) {
        self.ring.unfollowed().await;
    }
}
