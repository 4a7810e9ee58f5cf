//! The signature of the webhook page: HMAC-SHA256 over timestamp, `.` and the raw body.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// How far a timestamp may be from the server's clock, either way, in seconds; the bound itself is inside (`api.md` section 1).
pub const WINDOW_SECONDS: u64 = 300;

/// A signing key with its HMAC state prepared, so that a request pays only for its own bytes.
#[derive(Clone)]
pub struct SigningKey(Hmac<Sha256>);

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningKey(..)")
    }
}

impl SigningKey {
    /// The whole configured string is the key, its `whsk_` included.
    ///
    /// # Panics
    /// Never: HMAC takes keys of any length.
    #[must_use]
    pub fn new(key: &str) -> Self {
        Self(Hmac::new_from_slice(key.as_bytes()).expect("HMAC takes keys of any length"))
    }

    /// Whether `mac` is the MAC of `timestamp.body`; takes the same time wherever they differ.
    #[must_use]
    pub fn verify(&self, timestamp: &[u8], body: &[u8], mac: &[u8; 32]) -> bool {
        self.over(timestamp, body).verify_slice(mac).is_ok()
    }

    fn over(&self, timestamp: &[u8], body: &[u8]) -> Hmac<Sha256> {
        let mut hmac = self.0.clone();
        hmac.update(timestamp);
        hmac.update(b".");
        hmac.update(body);
        hmac
    }
}

/// The value of `X-Webhook-Signature` for a body: `sha256=` and 64 hex digits. `timestamp` is in Unix seconds.
#[must_use]
pub fn signature(key: &str, timestamp: u64, body: &[u8]) -> String {
    let timestamp = timestamp.to_string();
    let mac = SigningKey::new(key)
        .over(timestamp.as_bytes(), body)
        .finalize()
        .into_bytes();
    format!("sha256={}", const_hex::encode(mac))
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

    #[test]
    fn every_flipped_bit_is_refused() {
        let key = SigningKey::new(KEY);
        let mac: [u8; 32] = const_hex::decode_to_array(GOLDEN).unwrap();
        assert!(key.verify(b"1700000000", BODY, &mac));
        for bit in 0..256 {
            let mut mac = mac;
            mac[bit / 8] ^= 1 << (bit % 8);
            assert!(
                !key.verify(b"1700000000", BODY, &mac),
                "bit {bit} of the signature"
            );
        }
        for bit in 0..BODY.len() * 8 {
            let mut body = BODY.to_vec();
            body[bit / 8] ^= 1 << (bit % 8);
            assert!(
                !key.verify(b"1700000000", &body, &mac),
                "bit {bit} of the body"
            );
        }
    }
}
