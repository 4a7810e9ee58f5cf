//! The signing keys of schemes: how a key that an operator brings is read, and how one is made.

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
    prelude::BASE64_STANDARD,
};
use thiserror::Error;

use super::{KeyForm, Scheme};
use crate::{
    key::{self, Secret},
    sign::{KeyMistake, SigningKey},
};

/// A text that is no signing key. The message never holds any of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SecretError {
    /// Anybody could guess it.
    #[error(
        "a signing key has at least 16 characters; copy all of it from the sender, or leave it out to have one made here"
    )]
    TooShort,
    /// Nobody has one so long.
    #[error("a signing key has at most 512 characters; this is something else")]
    TooLong,
    /// A part of something else came along.
    #[error(
        "a signing key has no white space around it and no control characters; copy it again, without what is around it"
    )]
    Space,
    /// Not in the scheme's form.
    #[error(
        "a signing key of standard-webhooks is whsec_ and base64 of at least 16 bytes; copy all of it from the sender"
    )]
    NotBase64,
}

const KEY_MIN: usize = 16;
const KEY_MAX: usize = 512;
/// Random bytes of a key that is written as base64.
const KEY_BYTES: usize = 32;

/// For keys: senders differ about padding.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// As it stands in a file.
fn line(text: &str) -> Vec<u8> {
    [text.as_bytes(), b"\n"].concat()
}

impl Scheme {
    /// The key that a text stands for.
    ///
    /// # Errors
    /// [`SecretError`], for texts that are too short to be secret or not written as this scheme's are.
    pub fn key(&self, text: &str) -> Result<SigningKey, SecretError> {
        // Blanks around it don't make a key longer; inside they may be part of it, as in GitHub's own example.
        let inner = text.trim();
        let length = inner.chars().count();
        if length < KEY_MIN {
            return Err(SecretError::TooShort);
        }
        if length > KEY_MAX {
            return Err(SecretError::TooLong);
        }
        if inner != text || text.chars().any(char::is_control) {
            return Err(SecretError::Space);
        }
        match self.description().key {
            KeyForm::Text(prefix) => {
                let key = SigningKey::new(text).mistaken_for(KeyMistake::LineFeed, &line(text));
                let rest = text.strip_prefix(prefix).filter(|rest| *rest != text);
                Ok(match rest {
                    Some(rest) => key.mistaken_for(KeyMistake::WithoutPrefix, rest.as_bytes()),
                    None => key,
                })
            }
            KeyForm::Base64(prefix) => {
                let base64 = text.strip_prefix(prefix).unwrap_or(text);
                let bytes = LENIENT.decode(base64).map_err(|_| SecretError::NotBase64)?;
                if bytes.len() < KEY_MIN {
                    return Err(SecretError::NotBase64);
                }
                let key = SigningKey::of_bytes(&bytes);
                let key = key.mistaken_for(KeyMistake::NotDecoded, text.as_bytes());
                Ok(key.mistaken_for(KeyMistake::NotDecoded, base64.as_bytes()))
            }
        }
    }

    /// A new key in the scheme's own form. `None` asks for new random bytes.
    #[must_use]
    pub fn generate_key(&self, random: &[u8; 64]) -> Option<Secret> {
        Some(Secret::new(match self.description().key {
            KeyForm::Text(prefix) => format!("{prefix}{}", key::text(random)?),
            KeyForm::Base64(prefix) => {
                let bytes = random.first_chunk::<KEY_BYTES>()?;
                format!("{prefix}{}", BASE64_STANDARD.encode(bytes))
            }
        }))
    }
}
