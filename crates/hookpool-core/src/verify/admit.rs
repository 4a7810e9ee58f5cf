//! Whether the body of a delivery may be read, by its headers alone.

use std::sync::Arc;

use bytes::Bytes;

use super::{Header, Headers, Verified, VerifyError, signed::Signed};
use crate::{
    key::{KeyKind, PresentedKey},
    registry::{Connector, Keyed, Registry, Replay},
    time::Timestamp,
};

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

    /// The same by what operators have changed while the body was on its way: a key or signing key that they took away does not count; a
    /// rotation that lets the old key work on changes nothing.
    ///
    /// # Errors
    /// [`VerifyError::Unauthorized`] if the key does not count any more.
    pub fn renewed(mut self, registry: &Registry, now: Timestamp) -> Result<Self, VerifyError> {
        let current = registry
            .connector(self.connector.name.as_str())
            .ok_or(VerifyError::Unauthorized)?;
        if Arc::ptr_eq(current, &self.connector) {
            return Ok(self);
        }
        let is_own = |key: &Keyed<_>| key.key_id.as_str() == &*self.key_id && key.works(now);
        let stands = current.enabled
            && current.is_signed() == self.signed.is_some()
            && current.keys_of(self.kind).iter().any(is_own);
        if !stands {
            return Err(VerifyError::Unauthorized);
        }
        self.connector = Arc::clone(current);
        Ok(self)
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
