//! The other side of a scheme: the headers that a sender adds.

use base64::{Engine as _, prelude::BASE64_STANDARD};

use super::{DeliveryAt, Description, Encoding, Scheme, TimestampAt};
use crate::sign::SigningKey;

/// Name and value.
type SignedHeader = (String, String);

impl Scheme {
    /// The headers of a delivery; `timestamp` is in Unix seconds and used where the scheme has one, and so is `id`.
    #[must_use]
    pub fn sign(
        &self,
        key: &SigningKey,
        timestamp: u64,
        id: &str,
        body: &[u8],
    ) -> Vec<SignedHeader> {
        let description = self.description();
        let timestamp = timestamp.to_string();
        let parts = [timestamp.as_bytes(), id.as_bytes(), body];
        let mac = description
            .encoding
            .write(&key.mac(&description.template, parts));
        let mut signature = format!("{}{mac}", description.prefix);
        let mut headers = Vec::new();
        match &description.timestamp {
            Some(TimestampAt::Header(name)) => headers.push((name.to_string(), timestamp)),
            Some(TimestampAt::Entry(prefix)) => {
                let separator = description.separator.map_or(' ', char::from);
                signature = format!("{prefix}{timestamp}{separator}{signature}");
            }
            None => {}
        }
        headers.extend(delivery(description, id));
        headers.push((description.signature.to_string(), signature));
        headers
    }
}

fn delivery(description: &Description, id: &str) -> Option<SignedHeader> {
    match description.delivery.as_ref()? {
        DeliveryAt::SignedHeader(name) | DeliveryAt::TrustedHeader { id: name, .. } => {
            Some((name.to_string(), id.to_owned()))
        }
        DeliveryAt::Body(_) => None,
    }
}

impl Encoding {
    fn write(self, mac: &[u8; 32]) -> String {
        match self {
            Self::Hex => const_hex::encode(mac),
            Self::Base64 => BASE64_STANDARD.encode(mac),
        }
    }

    /// Reads exactly what [`Self::write`] writes, hex digits in either case.
    pub(crate) fn read(self, text: &[u8]) -> Option<[u8; 32]> {
        match self {
            // The decoder skips a `0x` in front, so that the length is what refuses it: 64 digits behind it are two too many.
            Self::Hex if text.len() == 64 => const_hex::decode_to_array(text).ok(),
            Self::Hex => None,
            Self::Base64 => {
                // 44 characters are 33 bytes where the padding was left out.
                let mut mac = [0; 33];
                let read = BASE64_STANDARD.decode_slice(text, &mut mac).ok()?;
                mac.get(..read)?.try_into().ok()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 32] = [0xab; 32];

    #[test]
    fn a_signature_is_read_at_its_one_length() {
        for encoding in [Encoding::Hex, Encoding::Base64] {
            let written = encoding.write(&MAC);
            assert_eq!(encoding.read(written.as_bytes()), Some(MAC));
            for length in (0..=2 * written.len()).filter(|length| *length != written.len()) {
                let other: Vec<u8> = written.bytes().cycle().take(length).collect();
                assert_eq!(encoding.read(&other), None, "{encoding:?} of {length}");
            }
        }
    }

    #[test]
    fn hex_of_the_right_length_has_digits_alone() {
        let written = Encoding::Hex.write(&MAC);
        assert_eq!(
            Encoding::Hex.read(written.to_uppercase().as_bytes()),
            Some(MAC)
        );
        for other in ["0x", "g", " ", "+", "é"] {
            let rest = written.get(other.len()..).unwrap();
            let start = format!("{other}{rest}");
            assert_eq!(start.len(), 64);
            assert_eq!(Encoding::Hex.read(start.as_bytes()), None, "{start}");
        }
        let prefixed = format!("0x{written}");
        assert_eq!(Encoding::Hex.read(prefixed.as_bytes()), None);
    }

    #[test]
    fn base64_of_the_right_length_has_32_bytes_and_one_spelling() {
        let written = Encoding::Base64.write(&MAC);
        // 44 characters without padding are 33 bytes.
        assert_eq!(Encoding::Base64.read("q".repeat(44).as_bytes()), None);
        // The last character has two bits that count for nothing.
        let loose = format!("{}t=", written.get(..42).unwrap());
        assert_eq!(Encoding::Base64.read(loose.as_bytes()), None);
        let url_safe = BASE64_STANDARD.encode([0xff; 32]).replace('/', "_");
        assert_eq!(Encoding::Base64.read(url_safe.as_bytes()), None);
    }
}
