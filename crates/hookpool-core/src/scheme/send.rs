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
    match description.delivery? {
        DeliveryAt::SignedHeader(name) | DeliveryAt::TrustedHeader { id: name, .. } => {
            Some((name.to_owned(), id.to_owned()))
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
            // The decoder alone would also take a `0x` in front.
            Self::Hex if text.len() == 64 && text.iter().all(u8::is_ascii_hexdigit) => {
                const_hex::decode_to_array(text).ok()
            }
            Self::Base64 if text.len() == 44 => {
                let mut mac = [0; 33];
                let read = BASE64_STANDARD.decode_slice(text, &mut mac).ok()?;
                mac.get(..read)?.try_into().ok()
            }
            Self::Hex | Self::Base64 => None,
        }
    }
}
