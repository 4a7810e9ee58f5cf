//! What the headers of a signed delivery say, and whether the bytes of the body are what was signed.

use subtle::{Choice, ConstantTimeEq};

use super::{
    Headers, VerifyError,
    delivery::{dedupe_key, named},
    entries::Entries,
};
use crate::{
    event::DedupeKey,
    registry::Connector,
    scheme::{Description, TimestampAt},
    time::Timestamp,
};

/// What the headers of a signed delivery say.
#[derive(Debug)]
pub(super) struct Signed {
    macs: Vec<[u8; 32]>,
    /// The digits as sent, which go into the MAC verbatim, and what they mean.
    timestamp: Option<(Box<[u8]>, u64)>,
    /// As sent; empty if there is none.
    id: Box<[u8]>,
    pub(super) delivery: Option<DedupeKey>,
}

impl Signed {
    pub(super) fn parse(
        connector: &Connector,
        headers: &dyn Headers,
        now: Timestamp,
    ) -> Result<Self, VerifyError> {
        let scheme = connector.scheme.description();
        let own_timestamp = match &scheme.timestamp {
            Some(TimestampAt::Header(name)) => Some(headers.header(name).one()?),
            Some(TimestampAt::Entry(_)) | None => None,
        };
        let header = headers.header(&scheme.signature).one()?;
        let Entries { macs, timestamp } = Entries::parse(scheme, header)?;
        let timestamp = own_timestamp.or(timestamp);
        if timestamp.is_some() != scheme.timestamp.is_some() {
            return Err(VerifyError::SignatureInvalid);
        }
        let timestamp = match timestamp {
            Some(digits) => Some((digits.into(), unix_seconds(digits)?)),
            None => None,
        };
        let (id, delivery) = named(connector, headers)?;
        let signed = Self {
            macs,
            timestamp,
            id,
            delivery,
        };
        signed.in_window(scheme, now)?;
        Ok(signed)
    }

    fn in_window(&self, scheme: &Description, now: Timestamp) -> Result<(), VerifyError> {
        let off = match &self.timestamp {
            Some((_, seconds)) => now.seconds().abs_diff(*seconds),
            None => 0,
        };
        if off <= scheme.tolerance {
            Ok(())
        } else {
            Err(VerifyError::TimestampOutOfRange)
        }
    }

    /// The MAC that was found among those that were sent, under one of the keys that work.
    pub(super) fn check(
        &self,
        connector: &Connector,
        body: &[u8],
        now: Timestamp,
    ) -> Result<[u8; 32], VerifyError> {
        let scheme = connector.scheme.description();
        self.in_window(scheme, now)?;
        let parts = [self.digits(), &self.id, body];
        connector
            .signing_keys(now)
            .map(|key| key.mac(&scheme.template, parts))
            .find(|mac| self.holds(mac))
            .ok_or(VerifyError::SignatureInvalid)
    }

    /// Takes the same time wherever they differ.
    fn holds(&self, mac: &[u8; 32]) -> bool {
        let equal = |found: Choice, sent: &[u8; 32]| found | sent.ct_eq(mac);
        self.macs.iter().fold(Choice::from(0), equal).into()
    }

    fn digits(&self) -> &[u8] {
        self.timestamp.as_ref().map_or(&[], |(digits, _)| digits)
    }

    /// What makes the very same request known when it comes again inside the window; without a timestamp there is no window.
    ///
    /// Hashed, so that no signature is kept. Of a list it is what was signed that counts: with some of its signatures taken away it is
    /// still the same request.
    pub(super) fn replay_key(
        &self,
        connector: &Connector,
        mac: &[u8; 32],
        body: &[u8],
    ) -> Option<DedupeKey> {
        self.timestamp.as_ref()?;
        let is_list = connector.scheme.description().separator.is_some();
        Some(if is_list {
            let signed = [b"content", self.digits(), b".", &self.id, b".", body];
            dedupe_key(b"replay\0", connector, &signed)
        } else {
            dedupe_key(b"replay\0", connector, &[mac])
        })
    }
}

/// 1 to 12 ASCII digits: with anything else allowed, two requests could share one signed string.
fn unix_seconds(digits: &[u8]) -> Result<u64, VerifyError> {
    let malformed = VerifyError::SignatureInvalid;
    if digits.is_empty() || digits.len() > 12 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(malformed);
    }
    std::str::from_utf8(digits)
        .ok()
        .and_then(|digits| digits.parse().ok())
        .ok_or(malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(macs: Vec<[u8; 32]>) -> Signed {
        Signed {
            macs,
            timestamp: None,
            id: Box::default(),
            delivery: None,
        }
    }

    #[test]
    fn a_mac_is_held_only_if_all_of_its_32_bytes_are_the_same() {
        let mac: [u8; 32] = std::array::from_fn(|n| u8::try_from(n).unwrap());
        assert!(sent(vec![mac]).holds(&mac));
        for byte in 0..32 {
            for bit in 0..8 {
                let mut other = mac;
                *other.get_mut(byte).unwrap() ^= 1 << bit;
                assert!(!sent(vec![other]).holds(&mac), "bit {bit} of byte {byte}");
                assert!(sent(vec![other, mac]).holds(&mac));
                assert!(sent(vec![mac, other]).holds(&mac));
            }
        }
        assert!(!sent(Vec::new()).holds(&mac));
    }
}
