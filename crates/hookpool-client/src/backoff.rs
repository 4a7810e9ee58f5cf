//! How long to wait before trying again. Knows no clock; chance comes from dice that may be somebody else's.

use std::{fmt, sync::Arc, time::Duration};

/// Waits that double from `first` to `longest`, each shortened at random by up to half so that many clients spread out.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    /// Before the second try.
    pub first: Duration,
    /// Never more than this.
    pub longest: Duration,
}

impl Backoff {
    /// The wait after this many failures in a row (1 is the first). `dice` is in 0..1: 0 is the shortest, half of the full wait.
    #[must_use]
    pub fn delay(self, failures: u32, dice: f64) -> Duration {
        let doublings = failures.saturating_sub(1).min(20);
        let full = self.first.saturating_mul(1 << doublings).min(self.longest);
        full.mul_f64(0.5 + dice.clamp(0.0, 1.0) / 2.0)
    }
}

/// Where the jitter of waits comes from. The default is random; tests and simulations have their own.
#[derive(Clone)]
pub struct Dice(Arc<dyn Fn() -> f64 + Send + Sync>);

impl Dice {
    /// Each throw is in 0..1.
    #[must_use]
    pub fn new(throw: impl Fn() -> f64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(throw))
    }

    pub(crate) fn throw(&self) -> f64 {
        (self.0)()
    }
}

impl Default for Dice {
    fn default() -> Self {
        Self::new(rand::random)
    }
}

impl fmt::Debug for Dice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dice")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff {
        first: Duration::from_millis(100),
        longest: Duration::from_secs(2),
    };

    #[test]
    fn waits_double_up_to_the_longest() {
        let full = |failures| BACKOFF.delay(failures, 1.0).as_millis();
        assert_eq!(
            [1, 2, 3, 5, 6, 7, u32::MAX].map(full),
            [100, 200, 400, 1600, 2000, 2000, 2000]
        );
    }

    #[test]
    fn dice_take_at_most_half() {
        assert_eq!(BACKOFF.delay(1, 0.0), Duration::from_millis(50));
        assert_eq!(BACKOFF.delay(1, 0.5), Duration::from_millis(75));
    }
}
