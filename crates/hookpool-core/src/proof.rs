//! Signed heads: one line that commits to the whole history of a log, to be kept where whoever can change the log can't change it.
//!
//! Each block names the digest of the one before it, so the digest of the last one is that of all of them. `docs/protocol.md` has the
//! signed bytes. Not here: where a head comes from, and where it is kept.

use std::{fmt, str::FromStr};

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use thiserror::Error;

use crate::{
    codec::Digest,
    hex::Hex,
    position::{Epoch, Position},
    time::Timestamp,
};

/// What the signed bytes begin with: they mean nothing else, and another layout is another number.
const DOMAIN: &[u8; 16] = b"hookpool-head-1\n";
/// What the key is derived from the master key with. Never change it: every head that is kept was signed with it.
const KEY_LABEL: &[u8] = b"hookpool head signing key 1";

/// Signs heads.
#[derive(Clone)]
pub struct HeadKey(SigningKey);

impl fmt::Debug for HeadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HeadKey(..)")
    }
}

impl HeadKey {
    /// The key that belongs to a master key.
    pub(crate) fn derive(master: &[u8; 32]) -> Self {
        let mut hmac = Hmac::<Sha256>::new_from_slice(master).expect("HMAC takes any key");
        hmac.update(KEY_LABEL);
        Self(SigningKey::from_bytes(&hmac.finalize().into_bytes().into()))
    }

    /// Signs that a log's history up to a position is that of this digest.
    #[must_use]
    pub fn sign(
        &self,
        epoch: Epoch,
        position: Position,
        digest: Digest,
        time: Timestamp,
    ) -> SignedHead {
        let signature = self.0.sign(&signed_bytes(epoch, position, digest, time));
        SignedHead {
            epoch,
            position,
            digest,
            time,
            public_key: PublicKey(self.0.verifying_key().to_bytes()),
            signature: signature.to_bytes(),
        }
    }
}

/// All of fixed length, so that no two heads have the same bytes.
fn signed_bytes(epoch: Epoch, position: Position, digest: Digest, time: Timestamp) -> Vec<u8> {
    [
        &DOMAIN[..],
        &epoch.0.to_le_bytes(),
        &position.0.to_le_bytes(),
        &digest.0,
        &time.0.to_le_bytes(),
    ]
    .concat()
}

/// Who signed: 64 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&const_hex::encode(self.0))
    }
}

impl FromStr for PublicKey {
    type Err = HeadError;

    fn from_str(text: &str) -> Result<Self, HeadError> {
        Hex::parse(text)
            .map(|key| Self(key.0))
            .ok_or(HeadError::Malformed)
    }
}

/// Why a head proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HeadError {
    /// The text is none.
    #[error(
        "read the signed head: it is malformed; `hookpool log head --output json` prints a whole one"
    )]
    Malformed,
    /// Something in it was changed.
    #[error("check the signed head: its signature does not match; take an unchanged copy")]
    Signature,
    /// Another server's, or a forger's.
    #[error("check the signed head: it was signed with key {0}, which is not the expected one")]
    OtherKey(PublicKey),
}

/// The end of a log at a time, signed. As JSON an object of six members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Document", into = "Document")]
pub struct SignedHead {
    /// Of the log.
    pub epoch: Epoch,
    /// The last durable position.
    pub position: Position,
    /// Of the block that ends there; zeros in an empty log.
    pub digest: Digest,
    /// When it was signed.
    pub time: Timestamp,
    /// Who says that they signed it.
    pub public_key: PublicKey,
    signature: [u8; 64],
}

impl SignedHead {
    /// Whether the signature is right, and of the expected key if there is one.
    ///
    /// # Errors
    /// [`HeadError`]
    pub fn verify(&self, expected: Option<PublicKey>) -> Result<(), HeadError> {
        if expected.is_some_and(|key| key != self.public_key) {
            return Err(HeadError::OtherKey(self.public_key));
        }
        let bytes = signed_bytes(self.epoch, self.position, self.digest, self.time);
        VerifyingKey::from_bytes(&self.public_key.0)
            .and_then(|key| key.verify_strict(&bytes, &Signature::from_bytes(&self.signature)))
            .map_err(|_| HeadError::Signature)
    }
}

impl FromStr for SignedHead {
    type Err = HeadError;

    fn from_str(text: &str) -> Result<Self, HeadError> {
        serde_json::from_str(text).map_err(|_| HeadError::Malformed)
    }
}

/// A head as JSON.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document {
    epoch: Hex<8>,
    position: Position,
    digest: Hex<32>,
    time: String,
    public_key: Hex<32>,
    signature: Hex<64>,
}

impl From<SignedHead> for Document {
    fn from(head: SignedHead) -> Self {
        Self {
            epoch: Hex(head.epoch.0.to_be_bytes()),
            position: head.position,
            digest: Hex(head.digest.0),
            time: head.time.to_string(),
            public_key: Hex(head.public_key.0),
            signature: Hex(head.signature),
        }
    }
}

impl TryFrom<Document> for SignedHead {
    type Error = HeadError;

    fn try_from(document: Document) -> Result<Self, HeadError> {
        Ok(Self {
            epoch: Epoch(u64::from_be_bytes(document.epoch.0)),
            position: document.position,
            digest: Digest(document.digest.0),
            time: Timestamp::parse(&document.time).ok_or(HeadError::Malformed)?,
            public_key: PublicKey(document.public_key.0),
            signature: document.signature.0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::MasterKey;

    /// Made with Python's `hmac` and `cryptography` from master key 01 x 32 and the values below.
    const GOLDEN: &str = include_str!("proof_v1.json");

    fn head() -> SignedHead {
        MasterKey::new(&[1; 32]).head_key().sign(
            Epoch(0x0102_0304_0506_0708),
            Position(42),
            Digest([0xaa; 32]),
            Timestamp(1_700_000_000_123_456),
        )
    }

    #[test]
    fn the_golden_head_of_another_program_holds() {
        assert_eq!(serde_json::to_string(&head()).unwrap(), GOLDEN.trim_end());
        let golden: SignedHead = GOLDEN.parse().unwrap();
        assert_eq!(golden, head());
        assert_eq!(golden.verify(Some(golden.public_key)), Ok(()));
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        for bit in 0..GOLDEN.len() * 8 {
            let mut bytes = GOLDEN.as_bytes().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let verdict = String::from_utf8(bytes)
                .map_err(|_| HeadError::Malformed)
                .and_then(|text| text.parse::<SignedHead>())
                .and_then(|head| head.verify(None));
            assert!(verdict.is_err(), "bit {bit}");
        }
    }

    #[test]
    fn another_key_is_refused_where_one_is_expected() {
        let other = MasterKey::new(&[2; 32]).head_key().sign(
            Epoch(1),
            Position(1),
            Digest::default(),
            Timestamp(1),
        );
        assert_eq!(other.verify(None), Ok(()));
        assert_eq!(
            head().verify(Some(other.public_key)),
            Err(HeadError::OtherKey(head().public_key))
        );
    }

    #[test]
    fn a_head_may_be_laid_out_in_another_way() {
        let pretty = GOLDEN.replace(',', " ,\n  ").replace(':', " : ");
        // The time has colons of its own.
        let pretty = pretty.replace("22 : 13 : 20", "22:13:20");
        assert_eq!(pretty.parse(), Ok(head()));
    }

    #[test]
    fn the_key_has_no_debug_text() {
        let key = MasterKey::new(&[1; 32]);
        assert_eq!(format!("{:?}", key.head_key()), "HeadKey(..)");
    }
}
