//! Who sent a delivery, and whether these bytes are what they sent. Nothing is parsed before this.
//!
//! In two steps, so that the body of a stranger is never read: [`admit`] looks at the headers alone, [`Admitted::verify`] at
//! the bytes. There is no other way to a [`Verified`].

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};
use thiserror::Error;

use crate::{
    event::{DedupeKey, Idempotency},
    idempotency::{Call, IdempotencyKey, fingerprint},
    json::{self, Fields, Value},
    key::{KeyKind, PresentedKey},
    name::ItemId,
    registry::{Connector, Registry, Replay},
    scheme::{DELIVERY_ID_BYTES_MAX, DeliveryAt, Description, SIGNATURES_MAX, TimestampAt},
    source::Source,
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
    /// A well-formed timestamp further from the clock than the scheme tolerates.
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

/// The headers of a request; names in any case.
pub trait Headers {
    /// All values of one header.
    fn header(&self, name: &str) -> Header<'_>;
}

/// Written down, name and value.
impl<N: AsRef<str>, V: AsRef<[u8]>, const COUNT: usize> Headers for [(N, V); COUNT] {
    fn header(&self, name: &str) -> Header<'_> {
        find(self, name)
    }
}

/// The same.
impl<N: AsRef<str>, V: AsRef<[u8]>> Headers for Vec<(N, V)> {
    fn header(&self, name: &str) -> Header<'_> {
        find(self, name)
    }
}

fn find<'a>(headers: &'a [(impl AsRef<str>, impl AsRef<[u8]>)], name: &str) -> Header<'a> {
    let values = headers
        .iter()
        .filter(|(given, _)| given.as_ref().eq_ignore_ascii_case(name));
    Header::from_values(values.map(|(_, value)| value.as_ref()))
}

/// What proves a delivery; which headers do, the connector's scheme says.
#[derive(Clone, Copy)]
pub struct Proof<'a> {
    /// `Authorization`.
    pub authorization: Header<'a>,
    /// All of them.
    pub headers: &'a dyn Headers,
}

impl std::fmt::Debug for Proof<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Proof(..)")
    }
}

/// Headers that may write to the stream; the body is still to come.
#[derive(Debug)]
pub struct Admitted {
    connector: Arc<Connector>,
    kind: KeyKind,
    key_id: Box<str>,
    signed: Option<Signed>,
}

/// What the headers of a signed delivery say.
#[derive(Debug)]
struct Signed {
    macs: Vec<[u8; 32]>,
    /// The digits as sent, which go into the MAC verbatim, and what they mean.
    timestamp: Option<(Box<[u8]>, u64)>,
    /// As sent; empty if there is none.
    id: Box<[u8]>,
    delivery: Option<DedupeKey>,
}

/// A delivery whose sender is known. Only this module makes one.
#[derive(Debug)]
pub struct Verified {
    pub(crate) connector: Arc<Connector>,
    pub(crate) body: Bytes,
    pub(crate) dedupe: Option<DedupeKey>,
    delivery: Option<DedupeKey>,
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
    let admitted = known_connector(registry, proof, now)?;
    if admitted.connector.stream.as_str() == stream {
        admitted.signed_by(proof.headers, now)
    } else {
        Err(VerifyError::Unauthorized)
    }
}

/// The same where the stream is that of the connector, or is named in the body, which is yet to come.
///
/// # Errors
/// As for [`admit`].
pub fn admit_any(
    registry: &Registry,
    proof: Proof<'_>,
    now: Timestamp,
) -> Result<Admitted, VerifyError> {
    known_connector(registry, proof, now)?.signed_by(proof.headers, now)
}

/// The same for a sender that shows its key as a part of the URL; the stream is that of the connector.
///
/// # Errors
/// As for [`admit`].
pub fn admit_hook(
    registry: &Registry,
    hook: &str,
    headers: &dyn Headers,
    now: Timestamp,
) -> Result<Admitted, VerifyError> {
    known_hook(registry, hook, now)?.signed_by(headers, now)
}

/// Whether deliveries to a hook may be taken at all, for handshakes that carry no signature.
///
/// # Errors
/// [`VerifyError::Unauthorized`], for whatever is no working hook.
pub fn must_be_hook(registry: &Registry, hook: &str, now: Timestamp) -> Result<(), VerifyError> {
    known_hook(registry, hook, now).map(drop)
}

fn known_connector(
    registry: &Registry,
    proof: Proof<'_>,
    now: Timestamp,
) -> Result<Admitted, VerifyError> {
    let presented = proof.authorization.presented_key();
    let presented = presented.filter(|key| key.kind == KeyKind::Ingest);
    Admitted::of_key(registry, presented, now)
}

fn known_hook(registry: &Registry, hook: &str, now: Timestamp) -> Result<Admitted, VerifyError> {
    let presented = PresentedKey::parse(hook).filter(|key| key.kind == KeyKind::Hook);
    Admitted::of_key(registry, presented, now)
}

impl Admitted {
    fn of_key(
        registry: &Registry,
        presented: Option<PresentedKey<'_>>,
        now: Timestamp,
    ) -> Result<Self, VerifyError> {
        let key = presented.ok_or(VerifyError::Unauthorized)?;
        let connector = registry
            .connector_of(&key, now)
            .filter(|connector| connector.enabled)
            .ok_or(VerifyError::Unauthorized)?;
        Ok(Self {
            connector: Arc::clone(connector),
            kind: key.kind,
            key_id: key.id.into(),
            signed: None,
        })
    }

    /// A refused delivery that is tried again: its credential was good when it came, and its headers are looked at as of then.
    ///
    /// # Errors
    /// [`VerifyError`], [`VerifyError::Unauthorized`] while the connector is switched off.
    pub fn again(
        connector: &Arc<Connector>,
        headers: &dyn Headers,
        at: Timestamp,
    ) -> Result<Self, VerifyError> {
        if !connector.enabled {
            return Err(VerifyError::Unauthorized);
        }
        let admitted = Self {
            connector: Arc::clone(connector),
            kind: KeyKind::Ingest,
            key_id: Box::default(),
            signed: None,
        };
        admitted.signed_by(headers, at)
    }

    fn signed_by(mut self, headers: &dyn Headers, now: Timestamp) -> Result<Self, VerifyError> {
        if self.connector.is_signed() {
            self.signed = Some(Signed::parse(&self.connector, headers, now)?);
        }
        Ok(self)
    }

    /// Who sends.
    #[must_use]
    pub fn connector(&self) -> &Arc<Connector> {
        &self.connector
    }

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
                            .keys_of(self.kind)
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
        let (mut dedupe, mut delivery) = (None, None);
        if let Some(signed) = signed {
            let mac = signed.check(&connector, &body, now)?;
            if connector.replay == Replay::Collapse {
                dedupe = signed.replay_key(&connector, &mac, &body);
                delivery = signed.delivery;
            }
        }
        Ok(Verified {
            connector,
            body,
            dedupe,
            delivery,
        })
    }
}

impl Verified {
    /// Who sends.
    #[must_use]
    pub fn connector(&self) -> &Arc<Connector> {
        &self.connector
    }

    /// What names the delivery, the same on every retry of its sender; `fields` are those of its body.
    #[must_use]
    pub fn delivery(&self, fields: &Fields<'_>) -> Option<DedupeKey> {
        self.delivery.or_else(|| {
            let scheme = self.connector.scheme.description();
            let Some(DeliveryAt::Body(name)) = scheme.delivery else {
                return None;
            };
            let counts = self.connector.is_signed() && self.connector.replay == Replay::Collapse;
            let id = fields.get(name).filter(|_| counts)?.as_string()?;
            (!id.is_empty()).then(|| delivery_key(&self.connector, &[id.as_bytes()]))
        })
    }

    /// The text that the sender wants back before it sends anything, if this is its question.
    #[must_use]
    pub fn challenge(&self) -> Option<String> {
        const QUESTION: &str = "url_verification";
        let may_be = self.connector.scheme.description().challenge
            && self.connector.is_signed()
            && memchr::memmem::find(&self.body, QUESTION.as_bytes()).is_some();
        if !may_be {
            return None;
        }
        let object = json::object(&self.body).ok()?;
        let text = |name| object.fields.get(name).and_then(Value::as_string);
        (text("type")? == QUESTION).then(|| text("challenge").map(Cow::into_owned))?
    }
}

impl Signed {
    fn parse(
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
    fn check(
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
    fn replay_key(&self, connector: &Connector, mac: &[u8; 32], body: &[u8]) -> Option<DedupeKey> {
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

/// The header with the signatures, taken apart.
struct Entries<'a> {
    macs: Vec<[u8; 32]>,
    timestamp: Option<&'a [u8]>,
}

impl<'a> Entries<'a> {
    fn parse(scheme: &Description, header: &'a [u8]) -> Result<Self, VerifyError> {
        let invalid = VerifyError::SignatureInvalid;
        let read = |entry: &[u8]| scheme.encoding.read(entry).ok_or(invalid);
        let Some(separator) = scheme.separator else {
            let entry = header.strip_prefix(scheme.prefix.as_bytes());
            return Ok(Self {
                macs: vec![read(entry.ok_or(invalid)?)?],
                timestamp: None,
            });
        };
        let mut entries = Self {
            macs: Vec::new(),
            timestamp: None,
        };
        for entry in header.split(|byte| *byte == separator) {
            if let Some(entry) = entry.strip_prefix(scheme.prefix.as_bytes()) {
                if entries.macs.len() == SIGNATURES_MAX {
                    return Err(invalid);
                }
                entries.macs.push(read(entry)?);
            } else if let Some(TimestampAt::Entry(prefix)) = &scheme.timestamp
                && let Some(digits) = entry.strip_prefix(prefix.as_bytes())
                && entries.timestamp.replace(digits).is_some()
            {
                return Err(invalid);
            }
        }
        if entries.macs.is_empty() {
            return Err(invalid);
        }
        Ok(entries)
    }
}

/// The id that is signed, and the key that the headers name the delivery by.
fn named(
    connector: &Connector,
    headers: &dyn Headers,
) -> Result<(Box<[u8]>, Option<DedupeKey>), VerifyError> {
    let scheme = connector.scheme.description();
    Ok(match scheme.delivery {
        Some(DeliveryAt::SignedHeader(name)) => {
            let id = checked_id(headers.header(name).one()?, scheme.ends_id())?;
            (id.into(), Some(delivery_key(connector, &[id])))
        }
        Some(DeliveryAt::TrustedHeader { id, scope }) => {
            let value = |name: &str| match headers.header(name) {
                Header::Absent => Ok(None),
                Header::One(value) => checked_id(value, None).map(Some),
                Header::Repeated => Err(VerifyError::SignatureInvalid),
            };
            let scope = match scope {
                Some(name) => value(name)?.unwrap_or_default(),
                None => &[],
            };
            let key = value(id)?.map(|id| delivery_key(connector, &[scope, b"\0", id]));
            (Box::default(), key)
        }
        Some(DeliveryAt::Body(_)) | None => (Box::default(), None),
    })
}

/// Visible ASCII, and not what ends an id in the text that is signed.
fn checked_id(id: &[u8], end: Option<u8>) -> Result<&[u8], VerifyError> {
    let fits = (1..=DELIVERY_ID_BYTES_MAX).contains(&id.len())
        && id
            .iter()
            .all(|byte| byte.is_ascii_graphic() && Some(*byte) != end);
    if fits {
        Ok(id)
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

fn delivery_key(connector: &Connector, id: &[&[u8]]) -> DedupeKey {
    dedupe_key(b"delivery\0", connector, id)
}

fn dedupe_key(kind: &[u8], connector: &Connector, parts: &[&[u8]]) -> DedupeKey {
    let start = Sha256::new()
        .chain_update(kind)
        .chain_update(connector.name.as_str())
        .chain_update([0]);
    let digest = parts
        .iter()
        .fold(start, |hash, part| hash.chain_update(part))
        .finalize();
    let mut key = [0; 16];
    key.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    DedupeKey(key)
}

impl Verified {
    /// The identity that a key gives the deletion of an item.
    #[must_use]
    pub fn deletion_identity(&self, key: &IdempotencyKey, item_id: &ItemId) -> Idempotency {
        key.identity(
            &self.connector.name,
            fingerprint(Call::Delete, Some(item_id.as_str()), &self.body),
        )
    }

    /// The identity that a key gives it.
    #[must_use]
    pub fn identity(
        &self,
        key: &IdempotencyKey,
        call: Call,
        id_field: Option<&Source>,
    ) -> Idempotency {
        key.identity(
            &self.connector.name,
            fingerprint(call, id_field.map(Source::as_str), &self.body),
        )
    }

    /// The identity of a request of many events that has no key: what its sender named it by in the headers, or what it signed. The first
    /// event has to say how many there were, so that a replay gets the same answer.
    pub(crate) fn own_identity(&self) -> Option<Idempotency> {
        let key = self.delivery(&Fields::default()).or(self.dedupe)?;
        Some(Idempotency {
            key,
            request: None,
            events: 1,
        })
    }
}

#[cfg(test)]
impl Verified {
    pub(crate) fn for_test(connector: Connector, body: &str) -> Self {
        Self {
            connector: Arc::new(connector),
            body: Bytes::copy_from_slice(body.as_bytes()),
            dedupe: None,
            delivery: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{registry::tests::World, sign::signature};

    const NOW: u64 = 1_700_000_000;
    const NONE: [(&str, &str); 0] = [];
    const BODY: &[u8] = br#"{"region":"North"}"#;

    fn delivery(
        world: &World,
        stream: &str,
        key: &str,
        signature: &str,
        timestamp: &str,
    ) -> Result<Verified, VerifyError> {
        let bearer = format!("Bearer {key}");
        let headers = [
            ("X-Webhook-Signature", signature),
            ("X-Webhook-Timestamp", timestamp),
        ];
        let proof = Proof {
            authorization: Header::One(bearer.as_bytes()),
            headers: &headers,
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
        let headers = [
            ("X-Webhook-Signature", text.as_str()),
            ("X-Webhook-Timestamp", "1700000000"),
        ];
        let proof = Proof {
            authorization: Header::One(bearer.as_bytes()),
            headers: &headers,
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
            headers: &NONE,
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
        let (good_signature, good_timestamp) = (
            ("X-Webhook-Signature", text.as_str()),
            ("X-Webhook-Timestamp", "1700000000"),
        );
        for headers in [
            vec![good_timestamp],
            vec![good_signature],
            vec![],
            vec![good_signature, good_signature, good_timestamp],
            vec![good_signature, good_timestamp, good_timestamp],
        ] {
            let proof = Proof {
                authorization: Header::One(bearer.as_bytes()),
                headers: &headers,
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
