//! What names a delivery, and the keys that make it known when it comes again.

use sha2::{Digest, Sha256};

use super::{Header, Headers, VerifyError};
use crate::{
    event::DedupeKey,
    registry::Connector,
    scheme::{DELIVERY_ID_BYTES_MAX, DeliveryAt},
};

/// The id that is signed, and the key that the headers name the delivery by.
pub(super) fn named(
    connector: &Connector,
    headers: &dyn Headers,
) -> Result<(Box<[u8]>, Option<DedupeKey>), VerifyError> {
    let scheme = connector.scheme.description();
    Ok(match &scheme.delivery {
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

pub(super) fn delivery_key(connector: &Connector, id: &[&[u8]]) -> DedupeKey {
    dedupe_key(b"delivery\0", connector, id)
}

pub(super) fn dedupe_key(kind: &[u8], connector: &Connector, parts: &[&[u8]]) -> DedupeKey {
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
