//! Signing keys at rest: ChaCha20-Poly1305 under a master key that lives outside the log.

use chacha20poly1305::{
    ChaCha20Poly1305, KeyInit, Nonce,
    aead::{Aead, Payload},
};
use thiserror::Error;

use crate::{key::Secret, name::ConnectorName, proof::HeadKey};

/// The key that opens every signing key of a data folder, and that the key for its signed heads is derived from.
#[derive(Clone)]
pub struct MasterKey {
    cipher: ChaCha20Poly1305,
    heads: HeadKey,
}

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MasterKey(..)")
    }
}

/// The master key does not open this: it is another one, or the record was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "open a sealed signing key: the master key is not the one it was sealed with; restore the right one from a backup, or set HOOKPOOL_MASTER_KEY"
)]
pub struct SealError;

const NONCE_BYTES: usize = 12;

impl MasterKey {
    /// From its 32 bytes.
    #[must_use]
    pub fn new(bytes: &[u8; 32]) -> Self {
        Self {
            cipher: ChaCha20Poly1305::new(bytes.into()),
            heads: HeadKey::derive(bytes),
        }
    }

    /// Signs heads of the logs of the data folder.
    #[must_use]
    pub fn head_key(&self) -> &HeadKey {
        &self.heads
    }

    /// Seals a signing key for one connector: hex of nonce and ciphertext. `nonce` is random and never used twice.
    ///
    /// # Panics
    /// Never: the cipher takes 256 GiB and a key is shorter.
    #[must_use]
    pub fn seal(
        &self,
        key: &Secret,
        connector: &ConnectorName,
        nonce: [u8; NONCE_BYTES],
    ) -> String {
        let payload = Payload {
            msg: key.expose().as_bytes(),
            aad: connector.as_str().as_bytes(),
        };
        let sealed = self
            .cipher
            .encrypt(Nonce::from_slice(&nonce), payload)
            .expect("a key is short");
        const_hex::encode([&nonce[..], &sealed].concat())
    }

    /// Opens what [`Self::seal`] made for the same connector.
    ///
    /// # Errors
    /// [`SealError`] for any other input.
    pub fn open(&self, sealed: &str, connector: &ConnectorName) -> Result<Secret, SealError> {
        let sealed = const_hex::decode(sealed).map_err(|_| SealError)?;
        let (nonce, sealed) = sealed.split_at_checked(NONCE_BYTES).ok_or(SealError)?;
        let payload = Payload {
            msg: sealed,
            aad: connector.as_str().as_bytes(),
        };
        let key = self
            .cipher
            .decrypt(Nonce::from_slice(nonce), payload)
            .map_err(|_| SealError)?;
        String::from_utf8(key)
            .map(Secret::new)
            .map_err(|_| SealError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_only_with_the_same_master_key_connector_and_bytes() {
        let (master, other) = (MasterKey::new(&[1; 32]), MasterKey::new(&[2; 32]));
        let name = |text| ConnectorName::new(text).unwrap();
        let sealed = master.seal(&Secret::new("whsk_x".into()), &name("sales"), [3; 12]);
        assert!(!sealed.contains(&const_hex::encode("whsk_x")));
        assert_eq!(
            master.open(&sealed, &name("sales")).unwrap().expose(),
            "whsk_x"
        );
        assert!(other.open(&sealed, &name("sales")).is_err());
        assert!(master.open(&sealed, &name("other")).is_err());
        for at in 0..sealed.len() {
            let mut sealed = sealed.clone().into_bytes();
            sealed[at] = if sealed[at] == b'0' { b'1' } else { b'0' };
            assert!(
                master
                    .open(std::str::from_utf8(&sealed).unwrap(), &name("sales"))
                    .is_err(),
                "digit {at}"
            );
        }
    }
}
