//! Who sent a delivery, and whether these bytes are what they sent. Nothing is parsed before this.
//!
//! In two steps, so that the body of a stranger is never read: [`admit`] looks at the headers alone, [`Admitted::verify`] at
//! the bytes. There is no other way to a [`Verified`].

use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::{
    event::{DedupeKey, Idempotency},
    idempotency::{Call, IdempotencyKey, fingerprint},
    key::{KeyKind, PresentedKey},
    registry::{Connector, Registry, Replay},
    sign::WINDOW_SECONDS,
    time::Timestamp,
};

/// Why a delivery is refused. What the sender is told is one status for all (`api.md` section 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum VerifyError {
    /// No key that may write to this stream: unknown, revoked, malformed, of another stream, sent twice.
    #[error("find a key that may write to the stream")]
    Unauthorized,
    /// Signature or timestamp missing, repeated, malformed or wrong.
    #[error("match the signature")]
    SignatureInvalid,
    /// A well-formed timestamp more than 300 s from the clock.
    #[error("take a timestamp outside the window")]
    TimestampOutOfRange,
}

/// A header that may be sent once.
#[derive(Debug, Clone, Copy)]
pub enum Header<'a> {
    /// Not sent.
    Absent,
    /// Sent once.
    One(&'a [u8]),
    /// Sent more than once; none of the values counts.
    Repeated,
}

impl<'a> Header<'a> {
    /// From all values of one header.
    pub fn from_values(mut values: impl Iterator<Item = &'a [u8]>) -> Self {
        match (values.next(), values.next()) {
            (None, _) => Self::Absent,
            (Some(value), None) => Self::One(value),
            (Some(_), Some(_)) => Self::Repeated,
        }
    }

    /// The presented key, if this is one well-formed `Authorization`.
    #[must_use]
    pub fn presented_key(self) -> Option<PresentedKey<'a>> {
        match self {
            Self::One(value) => PresentedKey::from_authorization(value),
            Self::Absent | Self::Repeated => None,
        }
    }

    fn one(self) -> Result<&'a [u8], VerifyError> {
        match self {
            Self::One(value) => Ok(value),
            Self::Absent | Self::Repeated => Err(VerifyError::SignatureInvalid),
        }
    }
}

/// The headers that prove a delivery.
#[derive(Debug, Clone, Copy)]
pub struct Proof<'a> {
    /// `Authorization`.
    pub authorization: Header<'a>,
    /// `X-Webhook-Signature`.
    pub signature: Header<'a>,
    /// `X-Webhook-Timestamp`.
    pub timestamp: Header<'a>,
}

/// Headers that may write to the stream; the body is still to come.
#[derive(Debug)]
pub struct Admitted {
    connector: Arc<Connector>,
    key_id: Box<str>,
    signed: Option<Signed>,
}

#[derive(Debug)]
struct Signed {
    mac: [u8; 32],
    /// The digits as sent: they go into the MAC verbatim.
    timestamp: Box<[u8]>,
    seconds: u64,
}

/// A delivery whose sender is known. Only this module makes one.
#[derive(Debug)]
pub struct Verified {
    pub(crate) connector: Arc<Connector>,
    pub(crate) body: Bytes,
    pub(crate) dedupe: Option<DedupeKey>,
}

/// Decides by the headers alone whether the body may be read.
///
/// # Errors
/// [`VerifyError`]; an unknown key takes as long as a wrong one.
pub fn admit(
    registry: &Registry,
    stream: &str,
    proof: Proof<'_>,
    now: Timestamp,
) -> Result<Admitted, VerifyError> {
    let presented = proof
        .authorization
        .presented_key()
        .filter(|key| key.kind == KeyKind::Ingest);
    let (connector, key_id) = presented
        .and_then(|key| Some((registry.connector_of(&key, now)?, key.id)))
        .filter(|(connector, _)| connector.enabled && connector.stream.as_str() == stream)
        .ok_or(VerifyError::Unauthorized)?;
    let signed = if connector.is_signed() {
        Some(Signed::parse(proof, now)?)
    } else {
        None
    };
    Ok(Admitted {
        connector: Arc::clone(connector),
        key_id: key_id.into(),
        signed,
    })
}

impl Admitted {
    /// Whether the key still counts. What an operator took away while the body was on its way must not; a rotation that lets the old
    /// key work on changes nothing.
    #[must_use]
    pub fn still_stands(&self, registry: &Registry, now: Timestamp) -> bool {
        registry
            .connector(self.connector.name.as_str())
            .is_some_and(|current| {
                Arc::ptr_eq(current, &self.connector)
                    || current.enabled
                        && current.is_signed() == self.signed.is_some()
                        && current
                            .keys
                            .iter()
                            .any(|key| key.key_id.as_str() == &*self.key_id && key.works(now))
            })
    }

    /// Checks the signature over exactly these bytes; `now` again, since a slow body may have outlived the window.
    ///
    /// # Errors
    /// [`VerifyError::SignatureInvalid`] or [`VerifyError::TimestampOutOfRange`].
    pub fn verify(self, body: Bytes, now: Timestamp) -> Result<Verified, VerifyError> {
        let Self {
            connector, signed, ..
        } = self;
        let dedupe = match signed {
            Some(signed) => signed.check(&connector, &body, now)?,
            None => None,
        };
        Ok(Verified {
            connector,
            body,
            dedupe,
        })
    }
}

impl Signed {
    fn parse(proof: Proof<'_>, now: Timestamp) -> Result<Self, VerifyError> {
        let timestamp = proof.timestamp.one()?;
        let signature = proof.signature.one()?;
        let hex = signature
            .strip_prefix(b"sha256=")
            .ok_or(VerifyError::SignatureInvalid)?;
        let mac = const_hex::decode_to_array(hex_digits(hex)?)
            .map_err(|_| VerifyError::SignatureInvalid)?;
        let signed = Self {
            mac,
            seconds: unix_seconds(timestamp)?,
            timestamp: timestamp.into(),
        };
        signed.in_window(now)?;
        Ok(signed)
    }

    fn in_window(&self, now: Timestamp) -> Result<(), VerifyError> {
        if now.seconds().abs_diff(self.seconds) <= WINDOW_SECONDS {
            Ok(())
        } else {
            Err(VerifyError::TimestampOutOfRange)
        }
    }

    fn check(
        &self,
        connector: &Connector,
        body: &[u8],
        now: Timestamp,
    ) -> Result<Option<DedupeKey>, VerifyError> {
        self.in_window(now)?;
        if !connector
            .signing_keys(now)
            .any(|key| key.verify(&self.timestamp, body, &self.mac))
        {
            return Err(VerifyError::SignatureInvalid);
        }
        Ok(match connector.replay {
            Replay::Collapse => Some(replay_key(connector, &self.mac)),
            Replay::Allow => None,
        })
    }
}

/// 64 digits and nothing else: the decoder alone would also take a `0x` in front.
fn hex_digits(hex: &[u8]) -> Result<&[u8], VerifyError> {
    if hex.len() == 64 && hex.iter().all(u8::is_ascii_hexdigit) {
        Ok(hex)
    } else {
        Err(VerifyError::SignatureInvalid)
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

/// Hashed, so that no signature is kept.
fn replay_key(connector: &Connector, mac: &[u8; 32]) -> DedupeKey {
    let digest = Sha256::new()
        .chain_update(b"replay\0")
        .chain_update(connector.name.as_str())
        .chain_update([0])
        .chain_update(mac)
        .finalize();
    let mut key = [0; 16];
    key.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    DedupeKey(key)
}

impl Verified {
    /// The identity that a key gives it.
    #[must_use]
    pub fn identity(
        &self,
        key: &IdempotencyKey,
        call: Call,
        id_field: Option<&str>,
    ) -> Idempotency {
        key.identity(
            &self.connector.name,
            fingerprint(call, id_field, &self.body),
        )
    }
}

#[cfg(test)]
impl Verified {
    pub(crate) fn for_test(connector: Connector, body: &str) -> Self {
        Self {
            connector: Arc::new(connector),
            body: Bytes::copy_from_slice(body.as_bytes()),
            dedupe: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{registry::tests::World, sign::signature};

    const NOW: u64 = 1_700_000_000;
    const BODY: &[u8] = br#"{"region":"North"}"#;

    fn delivery(
        world: &World,
        stream: &str,
        key: &str,
        signature: &str,
        timestamp: &str,
    ) -> Result<Verified, VerifyError> {
        let bearer = format!("Bearer {key}");
        let proof = Proof {
            authorization: Header::One(bearer.as_bytes()),
            signature: Header::One(signature.as_bytes()),
            timestamp: Header::One(timestamp.as_bytes()),
        };
        let now = Timestamp::from_seconds(NOW);
        admit(&world.registry, stream, proof, now)?.verify(Bytes::from_static(BODY), now)
    }

    fn signed(world: &World, timestamp: u64) -> Result<Verified, VerifyError> {
        let signature = signature(&world.signing_key, timestamp, BODY);
        delivery(
            world,
            "signed",
            &world.signed_key,
            &signature,
            &timestamp.to_string(),
        )
    }

    #[test]
    fn three_hundred_seconds_are_in_and_301_are_out() {
        let world = World::new();
        for good in [NOW - 300, NOW, NOW + 300] {
            assert!(signed(&world, good).is_ok(), "{good}");
        }
        for bad in [NOW - 301, NOW + 301, 0, 999_999_999_999] {
            assert_eq!(
                signed(&world, bad).err(),
                Some(VerifyError::TimestampOutOfRange),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_body_that_arrives_after_the_window_is_refused() {
        let world = World::new();
        let text = signature(&world.signing_key, NOW, BODY);
        let bearer = format!("Bearer {}", world.signed_key);
        let proof = Proof {
            authorization: Header::One(bearer.as_bytes()),
            signature: Header::One(text.as_bytes()),
            timestamp: Header::One(b"1700000000"),
        };
        let admitted = admit(
            &world.registry,
            "signed",
            proof,
            Timestamp::from_seconds(NOW + 300),
        )
        .unwrap();
        let late = admitted.verify(Bytes::from_static(BODY), Timestamp::from_seconds(NOW + 301));
        assert_eq!(late.err(), Some(VerifyError::TimestampOutOfRange));
    }

    #[test]
    fn a_key_that_is_taken_away_while_the_body_arrives_does_not_count() {
        let mut world = World::new();
        let bearer = format!("Bearer {}", world.plain_key);
        let proof = Proof {
            authorization: Header::One(bearer.as_bytes()),
            signature: Header::Absent,
            timestamp: Header::Absent,
        };
        let now = Timestamp::from_seconds(NOW);
        let admitted = admit(&world.registry, "plain", proof, now).unwrap();
        assert!(admitted.still_stands(&world.registry, now));
        world.rotate_plain(Timestamp::from_seconds(NOW + 10));
        assert!(
            admitted.still_stands(&world.registry, now),
            "the old key works until its overlap ends"
        );
        assert!(!admitted.still_stands(&world.registry, Timestamp::from_seconds(NOW + 10)));
    }

    #[test]
    fn malformed_timestamps_are_refused_before_any_window() {
        let world = World::new();
        for bad in [
            "",
            "1.2",
            "+1700000000",
            " 1700000000",
            "1700000000 ",
            "1e9",
            "0x1",
            "-1",
            "1700000000000",
            "2023-11-14",
            "\u{661}",
        ] {
            let text = signature(&world.signing_key, NOW, BODY);
            let outcome = delivery(&world, "signed", &world.signed_key, &text, bad);
            assert_eq!(outcome.err(), Some(VerifyError::SignatureInvalid), "{bad}");
        }
    }

    #[test]
    fn leading_zeros_count_in_the_mac_as_sent() {
        let world = World::new();
        let text = signature(&world.signing_key, NOW, BODY);
        let outcome = delivery(&world, "signed", &world.signed_key, &text, "01700000000");
        assert_eq!(outcome.err(), Some(VerifyError::SignatureInvalid));
    }

    #[test]
    fn only_the_pages_spelling_of_a_signature_counts() {
        let world = World::new();
        let text = signature(&world.signing_key, NOW, BODY);
        let hex = text.strip_prefix("sha256=").unwrap().to_owned();
        let send = |signature: &str| {
            delivery(&world, "signed", &world.signed_key, signature, "1700000000")
        };
        assert!(send(&format!("sha256={}", hex.to_uppercase())).is_ok());
        for bad in [
            hex.clone(),
            format!("SHA256={hex}"),
            format!("sha1={hex}"),
            format!("sha256:{hex}"),
            format!(" {text}"),
            format!("{text} "),
            format!("{text},{text}"),
            format!("sha256={}", hex.get(..62).unwrap()),
            format!("sha256={hex}00"),
            format!("sha256=0x{}", hex.get(2..).unwrap()),
            format!("sha256={}g", hex.get(..63).unwrap()),
            "sha256=".to_owned(),
            String::new(),
            format!("sha256=0x{hex}"),
        ] {
            assert_eq!(
                send(&bad).err(),
                Some(VerifyError::SignatureInvalid),
                "{bad}"
            );
        }
    }

    #[test]
    fn missing_and_repeated_signature_headers_are_refused() {
        let world = World::new();
        let text = signature(&world.signing_key, NOW, BODY);
        let bearer = format!("Bearer {}", world.signed_key);
        let (good_signature, good_timestamp) =
            (Header::One(text.as_bytes()), Header::One(b"1700000000"));
        for (signature, timestamp) in [
            (Header::Absent, good_timestamp),
            (good_signature, Header::Absent),
            (Header::Absent, Header::Absent),
            (Header::Repeated, good_timestamp),
            (good_signature, Header::Repeated),
        ] {
            let proof = Proof {
                authorization: Header::One(bearer.as_bytes()),
                signature,
                timestamp,
            };
            let outcome = admit(
                &world.registry,
                "signed",
                proof,
                Timestamp::from_seconds(NOW),
            );
            assert_eq!(outcome.err(), Some(VerifyError::SignatureInvalid));
        }
    }

    #[test]
    fn without_a_signing_key_signature_headers_are_ignored() {
        let world = World::new();
        assert!(delivery(&world, "plain", &world.plain_key, "nonsense", "nonsense").is_ok());
    }

    #[test]
    fn unknown_wrong_foreign_and_misused_keys_are_one_error() {
        let world = World::new();
        let wrong = format!("{}x", world.plain_key);
        for (stream, key) in [
            ("plain", "ik_000000000000_nothing"),
            ("plain", wrong.as_str()),
            ("plain", world.signed_key.as_str()),
            ("nowhere", world.plain_key.as_str()),
            ("plain", world.read_key.as_str()),
            ("plain", "whsk_abc"),
        ] {
            let outcome = delivery(&world, stream, key, "", "");
            assert_eq!(
                outcome.err(),
                Some(VerifyError::Unauthorized),
                "{stream} {key}"
            );
        }
    }

    #[test]
    fn equal_signed_deliveries_share_a_dedupe_key_and_others_do_not() {
        let world = World::new();
        let first = signed(&world, NOW).unwrap().dedupe;
        assert!(first.is_some());
        assert_eq!(first, signed(&world, NOW).unwrap().dedupe);
        assert_ne!(first, signed(&world, NOW + 1).unwrap().dedupe);
        assert!(
            delivery(&world, "plain", &world.plain_key, "", "")
                .unwrap()
                .dedupe
                .is_none()
        );
    }
}
