//! HMAC-SHA256 over the parts of a delivery that a scheme names, and the signature of the webhook page.

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::scheme::{Part, Scheme};

/// How far a timestamp may be from the server's clock, either way, in seconds; the bound itself is inside (`api.md` section 1).
pub const WINDOW_SECONDS: u64 = 300;

/// A signing key with its HMAC state prepared, so that a request pays only for its own bytes.
#[derive(Clone)]
pub struct SigningKey {
    hmac: Hmac<Sha256>,
    /// What senders take for the key by mistake: only to say so.
    mistaken: Vec<(KeyMistake, Hmac<Sha256>)>,
}

/// How a sender uses another key than the one it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyMistake {
    /// Without its prefix.
    WithoutPrefix,
    /// As text, where it is base64 of the key.
    NotDecoded,
    /// With a line feed behind it.
    LineFeed,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningKey(..)")
    }
}

impl SigningKey {
    /// The whole configured string is the key, its `whsk_` included.
    #[must_use]
    pub fn new(key: &str) -> Self {
        Self::of_bytes(key.as_bytes())
    }

    /// Of the bytes of a key.
    ///
    /// # Panics
    /// Never: HMAC takes keys of any length.
    pub(crate) fn of_bytes(key: &[u8]) -> Self {
        Self {
            hmac: Hmac::new_from_slice(key).expect("HMAC takes keys of any length"),
            mistaken: Vec::new(),
        }
    }

    /// Knows that senders take other bytes for the key.
    pub(crate) fn mistaken_for(mut self, mistake: KeyMistake, key: &[u8]) -> Self {
        self.mistaken.push((mistake, Self::of_bytes(key).hmac));
        self
    }

    /// The keys that senders use in its place.
    pub(crate) fn mistaken(&self) -> impl Iterator<Item = (KeyMistake, Self)> {
        self.mistaken.iter().map(|(mistake, hmac)| {
            let key = Self {
                hmac: hmac.clone(),
                mistaken: Vec::new(),
            };
            (*mistake, key)
        })
    }

    /// The MAC of a template filled with a timestamp, an id and a body.
    pub(crate) fn mac(&self, template: &[Part], [timestamp, id, body]: [&[u8]; 3]) -> [u8; 32] {
        let mut hmac = self.hmac.clone();
        for part in template {
            hmac.update(match part {
                Part::Timestamp => timestamp,
                Part::Id => id,
                Part::Body => body,
                Part::Text(text) => text.as_bytes(),
            });
        }
        hmac.finalize().into_bytes().into()
    }
}

/// The value of `X-Webhook-Signature` for a body: `sha256=` and 64 hex digits. `timestamp` is in Unix seconds.
#[must_use]
pub fn signature(key: &str, timestamp: u64, body: &[u8]) -> String {
    let headers = Scheme::Hookpool.sign(&SigningKey::new(key), timestamp, "", body);
    headers
        .into_iter()
        .next_back()
        .map(|(_, signature)| signature)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "whsk_your_signing_key_here";
    const BODY: &[u8] = br#"{"region":"North","sales":142000}"#;
    // printf '%s.%s' 1700000000 "$BODY" | openssl dgst -sha256 -hmac "$KEY"
    const GOLDEN: &str = "65bf7c973453b208f75bc0c018c6d7afad6ac71ec5f7b3fd40c16bbfe5a4a02e";

    #[test]
    fn golden_vector_of_openssl_holds() {
        assert_eq!(
            signature(KEY, 1_700_000_000, BODY),
            format!("sha256={GOLDEN}")
        );
    }
}
