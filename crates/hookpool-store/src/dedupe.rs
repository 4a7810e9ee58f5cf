//! Which deliveries came before: one window for every backend, rebuilt from the tail of the log.

use std::collections::{HashMap, VecDeque};

use hookpool_core::{event::DedupeKey, position::Position, sign, time::Timestamp};

/// How long a key is remembered at least, in seconds: a timestamp may be one window early and come again until it is one late.
/// One more, since the window of signatures is checked in whole seconds.
pub const WINDOW_SECONDS: u64 = 2 * sign::WINDOW_SECONDS + 1;

/// How long an idempotency key is remembered at least, in seconds. Senders that give up last (Stripe, GitHub) do so after three days; this is four.
pub const IDEMPOTENCY_SECONDS: u64 = 96 * 60 * 60;

/// Whether the idempotency key of a request of this time still counts for one of that time.
#[must_use]
pub fn key_counts(first: Timestamp, later: Timestamp) -> bool {
    later <= first.plus_seconds(IDEMPOTENCY_SECONDS)
}

/// Seconds of log time in one slice of the window; whole slices are forgotten.
const SLICE_SECONDS: u64 = sign::WINDOW_SECONDS + 1;
const SLICES: usize = 3;

/// The first position of each dedupe key of the last 601 to 903 seconds of log time.
///
/// Memory: some 50 bytes a key, so about 45 MB at a steady thousand signed requests a second.
#[derive(Debug, Default)]
pub struct DedupeWindow {
    /// Oldest first, each with the time it began.
    slices: VecDeque<(Timestamp, HashMap<DedupeKey, Position>)>,
}

impl DedupeWindow {
    /// Where an event with this key is.
    #[must_use]
    pub fn find(&self, key: &DedupeKey) -> Option<Position> {
        self.slices
            .iter()
            .find_map(|(_, slice)| slice.get(key).copied())
    }

    /// Remembers an event. Times of events that step back stay in the slice that is open.
    pub fn remember(&mut self, key: DedupeKey, time: Timestamp, position: Position) {
        let open = self
            .slices
            .back()
            .is_some_and(|(began, _)| time < began.plus_seconds(SLICE_SECONDS));
        if !open {
            self.slices.push_back((time, HashMap::new()));
            while self.slices.len() > SLICES {
                self.slices.pop_front();
            }
        }
        if let Some((_, slice)) = self.slices.back_mut() {
            slice.entry(key).or_insert(position);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u64) -> DedupeKey {
        DedupeKey(u128::from(n).to_le_bytes())
    }

    #[test]
    fn a_key_is_known_for_the_whole_window_and_forgotten_after_it() {
        let mut window = DedupeWindow::default();
        for second in 0..2_000 {
            window.remember(
                key(second),
                Timestamp::from_seconds(second),
                Position(second + 1),
            );
            let oldest_kept = second.saturating_sub(WINDOW_SECONDS);
            assert_eq!(
                window.find(&key(oldest_kept)),
                Some(Position(oldest_kept + 1)),
                "at {second}"
            );
        }
        assert_eq!(window.find(&key(0)), None);
        assert!(window.slices.len() <= SLICES);
    }

    #[test]
    fn a_clock_that_steps_back_forgets_nothing() {
        let mut window = DedupeWindow::default();
        window.remember(key(1), Timestamp::from_seconds(10_000), Position(1));
        window.remember(key(2), Timestamp::from_seconds(9_000), Position(2));
        assert_eq!(
            (window.find(&key(1)), window.find(&key(2))),
            (Some(Position(1)), Some(Position(2)))
        );
    }

    #[test]
    fn the_first_position_is_kept() {
        let mut window = DedupeWindow::default();
        window.remember(key(1), Timestamp(0), Position(1));
        window.remember(key(1), Timestamp(1), Position(2));
        assert_eq!(window.find(&key(1)), Some(Position(1)));
    }
}
