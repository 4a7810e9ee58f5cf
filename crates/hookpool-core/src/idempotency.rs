//! What a sender calls a request by, and what it asked: from the header `Idempotency-Key` to the identity that is kept with the events.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::{
    event::{DedupeKey, Idempotency, RequestId},
    name::ConnectorName,
};

/// The header, in lower case.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Longest key in characters.
pub const KEY_CHARS_MAX: usize = 255;

/// The value of a header `Idempotency-Key`, unquoted: 1 to 255 visible ASCII characters. Chosen by senders, so it is not shown in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct IdempotencyKey(String);

impl fmt::Debug for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdempotencyKey")
    }
}

/// Why a header is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("Idempotency-Key is not 1 to 255 visible characters, bare or as a quoted string")]
pub struct KeyError;

impl IdempotencyKey {
    /// Reads a header's value: a bare token, or a string as in structured fields (RFC 8941), which is the same key.
    ///
    /// # Errors
    /// [`KeyError`]. A bare token has no quote, backslash or comma: these are quoted, or two headers that somebody joined.
    pub fn parse(value: &[u8]) -> Result<Self, KeyError> {
        let text = str::from_utf8(value).map_err(|_| KeyError)?.trim_ascii();
        let key = match text.strip_prefix('"') {
            Some(rest) => unquoted(rest.strip_suffix('"').ok_or(KeyError)?)?,
            None if text.contains(['"', '\\', ',']) => return Err(KeyError),
            None => text.to_owned(),
        };
        let is_key = (1..=KEY_CHARS_MAX).contains(&key.len())
            && key.bytes().all(|byte| byte.is_ascii_graphic());
        if is_key { Ok(Self(key)) } else { Err(KeyError) }
    }

    /// The identity of a request of a connector under this key.
    #[must_use]
    pub fn identity(&self, connector: &ConnectorName, asked: [u8; 16]) -> Idempotency {
        let digest = Sha256::new()
            .chain_update(b"idempotency\0")
            .chain_update(connector.as_str())
            .chain_update([0])
            .chain_update(&self.0);
        Idempotency {
            key: DedupeKey(first_half(digest)),
            request: Some(asked),
            events: 1,
        }
    }
}

/// The content of a quoted string: `\"` and `\\` are the only escapes.
fn unquoted(inner: &str) -> Result<String, KeyError> {
    let mut key = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(char) = chars.next() {
        key.push(match char {
            '\\' => chars
                .next()
                .filter(|char| matches!(char, '"' | '\\'))
                .ok_or(KeyError)?,
            '"' => return Err(KeyError),
            char => char,
        });
    }
    Ok(key)
}

/// Which call it is; the same bytes ask for something else in another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Call {
    /// One body is one event.
    Webhook = 1,
    /// Of the item whose id takes the place of `idField`.
    Delete = 2,
    /// An array of items, each of which is one event.
    Items = 3,
    /// Each line is one event.
    Lines = 4,
}

/// A fingerprint of what is asked: the call, its parameters, the body.
#[must_use]
pub fn fingerprint(call: Call, id_field: Option<&str>, body: &[u8]) -> [u8; 16] {
    let id_field = id_field.unwrap_or_default();
    let digest = Sha256::new()
        .chain_update(b"asked\0")
        .chain_update([call as u8])
        .chain_update((id_field.len() as u64).to_le_bytes())
        .chain_update(id_field)
        .chain_update(body);
    first_half(digest)
}

/// The identity of the one more try of a refused request, whose sender named it by nothing: it is one, however often it is tried.
#[must_use]
pub fn of_rejection(connector: &ConnectorName, id: RequestId, events: u32) -> Idempotency {
    let digest = Sha256::new()
        .chain_update(b"rejection\0")
        .chain_update(connector.as_str())
        .chain_update([0])
        .chain_update(id.0);
    Idempotency {
        key: DedupeKey(first_half(digest)),
        request: None,
        events,
    }
}

pub(crate) fn first_half(digest: Sha256) -> [u8; 16] {
    let digest: [u8; 32] = digest.finalize().into();
    let (first, _) = digest.split_first_chunk().unwrap_or((&[0; 16], &[]));
    *first
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Option<String> {
        IdempotencyKey::parse(text.as_bytes()).ok().map(|key| key.0)
    }

    #[test]
    fn a_key_is_the_same_bare_and_quoted() {
        for (text, expected) in [
            (
                "8e03978e-40d5-43dd-bc93-6894a57f9324",
                "8e03978e-40d5-43dd-bc93-6894a57f9324",
            ),
            (r#""8e03978e""#, "8e03978e"),
            (r#" "a;b,c" "#, "a;b,c"),
            (r#""say\"hi\"\\""#, r#"say"hi"\"#),
            ("a;b=1", "a;b=1"),
            ("!~", "!~"),
        ] {
            assert_eq!(key(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn other_values_are_no_keys() {
        for bad in [
            "",
            " ",
            "\"\"",
            "\"",
            "\"a",
            "a\"",
            "a b",
            "\"a b\"",
            "a, b",
            "a,b",
            "\"a\",\"b\"",
            "\"a\";x=1",
            "\"a\\b\"",
            "\"a\\\"",
            "\\",
            "ü",
            "\"ü\"",
            "a\tb",
            "\x7f",
        ] {
            assert_eq!(key(bad), None, "{bad:?}");
        }
        assert_eq!(IdempotencyKey::parse(b"\xff").ok(), None);
        assert!(key(&"k".repeat(255)).is_some());
        assert!(key(&format!("\"{}\"", "k".repeat(255))).is_some());
        assert_eq!(key(&"k".repeat(256)), None);
        assert_eq!(key(&format!("\"{}\"", "k".repeat(256))), None);
    }

    #[test]
    fn an_identity_is_that_of_the_connector_and_the_key() {
        let name = |text: &str| ConnectorName::new(text).unwrap();
        let key = |text: &str| IdempotencyKey::parse(text.as_bytes()).unwrap();
        let of = |connector, text| key(text).identity(&name(connector), [0; 16]).key;
        assert_eq!(of("till", "a"), of("till", "\"a\""));
        assert_ne!(of("till", "a"), of("till", "b"));
        assert_ne!(of("till", "a"), of("shop", "a"));
    }

    #[test]
    fn a_fingerprint_is_that_of_everything_asked() {
        let of = |id_field, body: &str| fingerprint(Call::Webhook, id_field, body.as_bytes());
        assert_eq!(of(None, "{}"), of(None, "{}"));
        assert_ne!(of(None, "{}"), of(None, "{ }"));
        assert_ne!(of(None, "x{}"), of(Some("x"), "{}"));
        assert_ne!(of(None, "{}"), fingerprint(Call::Lines, None, b"{}"));
        // As in the header, an empty parameter is none.
        assert_eq!(of(None, "{}"), of(Some(""), "{}"));
    }
}
