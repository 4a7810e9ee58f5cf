//! A bucket that fills at a steady rate (GCRA): whether there is enough in it, what is left, how long to wait. Time is an argument, and may go
//! backwards, as the clock of a machine does when it is set.

use std::time::Duration;

use crate::time::Timestamp;

/// How fast a bucket fills and how much it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    nanos_each: u64,
    burst: u64,
}

impl Rate {
    /// So many in so much time, and at most `burst` at once; none of them counts as one.
    #[must_use]
    pub fn new(count: u32, per: Duration, burst: u32) -> Self {
        let per = u64::try_from(per.as_nanos()).unwrap_or(u64::MAX);
        Self {
            nanos_each: (per / u64::from(count.max(1))).max(1),
            burst: burst.max(1).into(),
        }
    }

    /// The most at once.
    #[must_use]
    pub fn burst(&self) -> u64 {
        self.burst
    }

    /// In how many seconds an empty bucket is full, rounded up.
    #[must_use]
    pub fn window_seconds(&self) -> u64 {
        seconds(self.capacity())
    }

    fn capacity(&self) -> u64 {
        self.nanos_each.saturating_mul(self.burst)
    }
}

/// What a bucket holds, as the time at which it is full.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bucket {
    full_at: u64,
    seen: u64,
}

/// A bucket after something was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level {
    /// What is left.
    pub left: u64,
    /// In how many seconds it is full, rounded up.
    pub full_in: u64,
}

/// There is not enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// In how many seconds there is, rounded up, so never 0.
    pub seconds: u64,
    /// As it is.
    pub level: Level,
}

impl Bucket {
    /// Takes so many, or nothing. More than the bucket holds is taken of a full one, and has to be filled up before anything else is taken.
    ///
    /// # Errors
    /// [`Wait`], until there is enough.
    pub fn take(&mut self, rate: Rate, count: u64, now: Timestamp) -> Result<Level, Wait> {
        let now = self.turn_to(now);
        let missing = self.full_at.saturating_sub(now);
        let needed = rate.nanos_each.saturating_mul(count.min(rate.burst));
        let lacking = missing
            .saturating_add(needed)
            .saturating_sub(rate.capacity());
        if lacking > 0 {
            return Err(Wait {
                seconds: seconds(lacking),
                level: level(rate, missing),
            });
        }
        let missing = missing.saturating_add(rate.nanos_each.saturating_mul(count));
        self.full_at = now.saturating_add(missing);
        Ok(level(rate, missing))
    }

    /// Whether nothing is missing: then it need not be remembered.
    #[must_use]
    pub fn is_full(&self, now: Timestamp) -> bool {
        self.full_at <= nanos(now)
    }

    /// A clock that was set back must not make a bucket wait for the time between.
    fn turn_to(&mut self, now: Timestamp) -> u64 {
        let now = nanos(now);
        let back = self.seen.saturating_sub(now);
        self.full_at = self.full_at.saturating_sub(back);
        self.seen = now;
        now
    }
}

fn nanos(time: Timestamp) -> u64 {
    time.0.saturating_mul(1_000)
}

fn seconds(nanos: u64) -> u64 {
    nanos.div_ceil(1_000_000_000)
}

fn level(rate: Rate, missing: u64) -> Level {
    Level {
        left: rate.capacity().saturating_sub(missing) / rate.nanos_each,
        full_in: seconds(missing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(millis: u64) -> Timestamp {
        Timestamp(1_700_000_000_000_000 + millis * 1_000)
    }

    #[test]
    fn a_burst_is_taken_at_once_and_then_what_comes_in() {
        let (rate, mut bucket) = (Rate::new(10, SECOND, 3), Bucket::default());
        for left in [2, 1, 0] {
            assert_eq!(bucket.take(rate, 1, at(0)).unwrap().left, left);
        }
        let wait = bucket.take(rate, 1, at(99)).unwrap_err();
        assert_eq!((wait.seconds, wait.level.left), (1, 0));
        assert!(bucket.take(rate, 1, at(100)).is_ok());
        assert!(bucket.take(rate, 1, at(199)).is_err());
        assert_eq!(bucket.take(rate, 3, at(10_000)).unwrap().left, 0);
    }

    #[test]
    fn what_was_refused_takes_nothing() {
        let (rate, mut bucket) = (Rate::new(1, SECOND, 2), Bucket::default());
        bucket.take(rate, 1, at(0)).unwrap();
        for _ in 0..100 {
            bucket.take(rate, 2, at(0)).unwrap_err();
        }
        assert!(bucket.take(rate, 1, at(0)).is_ok());
    }

    #[test]
    fn more_than_it_holds_is_taken_of_a_full_bucket_and_filled_up_again() {
        let (rate, mut bucket) = (Rate::new(10, SECOND, 10), Bucket::default());
        let level = bucket.take(rate, 100, at(0)).unwrap();
        assert_eq!((level.left, level.full_in), (0, 10));
        assert_eq!(bucket.take(rate, 1, at(0)).unwrap_err().seconds, 10);
        assert!(bucket.take(rate, 1, at(9_100)).is_ok());
        assert!(bucket.take(rate, 100, at(9_200)).is_err());
    }

    #[test]
    fn a_clock_that_is_set_back_makes_nobody_wait_for_it() {
        let (rate, mut bucket) = (Rate::new(10, SECOND, 2), Bucket::default());
        bucket.take(rate, 2, at(3_600_000)).unwrap();
        assert_eq!(bucket.take(rate, 1, at(0)).unwrap_err().seconds, 1);
        assert!(bucket.take(rate, 1, at(100)).is_ok());
    }
}
