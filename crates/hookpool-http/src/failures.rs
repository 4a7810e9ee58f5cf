//! How often an address may show what is no key. Only failures are looked at, so a good key works from anywhere, at any time.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use hookpool_core::{
    rate::{Bucket, Rate, Wait},
    time::Timestamp,
};

use crate::peer::one_sender;

/// Addresses that are remembered: 4 MiB. Those for whom there is no room share one budget.
const ADDRESSES_MAX: usize = 65_536;
const EVERYBODY_ELSE: u128 = u128::MAX;

/// A budget for each address that has failed.
#[derive(Debug)]
pub(crate) struct Failures {
    rate: Rate,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    buckets: HashMap<u128, Bucket>,
    swept: Timestamp,
}

impl Failures {
    pub(crate) fn new(per_minute: u32) -> Self {
        Self {
            rate: Rate::new(per_minute, Duration::from_secs(60), per_minute),
            state: Mutex::default(),
        }
    }

    /// Counts a failure; an error if there were too many.
    pub(crate) fn spend(&self, address: IpAddr, now: Timestamp) -> Result<(), Wait> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = state.bucket(one_sender(address), now);
        bucket.take(self.rate, 1, now).map(drop)
    }
}

impl State {
    fn bucket(&mut self, sender: u128, now: Timestamp) -> &mut Bucket {
        let is_full = self.buckets.len() >= ADDRESSES_MAX;
        if is_full && self.swept.seconds() != now.seconds() {
            self.buckets.retain(|_, bucket| !bucket.is_full(now));
            self.swept = now;
        }
        let has_room = self.buckets.len() < ADDRESSES_MAX || self.buckets.contains_key(&sender);
        let sender = if has_room { sender } else { EVERYBODY_ELSE };
        self.buckets.entry(sender).or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const NOW: Timestamp = Timestamp(1_700_000_000_000_000);

    fn address(n: u32) -> IpAddr {
        Ipv4Addr::from_bits(n).into()
    }

    #[test]
    fn each_address_has_a_budget_that_comes_back() {
        let failures = Failures::new(60);
        for _ in 0..60 {
            failures.spend(address(1), NOW).unwrap();
        }
        assert_eq!(failures.spend(address(1), NOW).unwrap_err().seconds, 1);
        failures.spend(address(2), NOW).unwrap();
        failures.spend(address(1), NOW.plus_seconds(1)).unwrap();
        failures.spend(address(1), NOW.plus_seconds(1)).unwrap_err();
    }

    #[test]
    fn any_number_of_addresses_takes_bounded_memory() {
        let failures = Failures::new(2);
        for n in 0..200_000 {
            // Those for whom there is no room are refused together.
            let _spent = failures.spend(address(n), NOW);
        }
        assert_eq!(
            failures.state.lock().unwrap().buckets.len(),
            ADDRESSES_MAX + 1
        );
        failures.spend(address(300_000), NOW).unwrap_err();
        let later = NOW.plus_seconds(120);
        failures.spend(address(300_000), later).unwrap();
        assert_eq!(failures.state.lock().unwrap().buckets.len(), 1);
    }
}
