//! Names that go into paths, keys and logs: checked once, then trusted.

use std::{borrow::Borrow, fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A name that does not fit its rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NameError {
    /// Rule of stream and connector names.
    #[error("a name is 1 to 64 characters of A-Z a-z 0-9 . _ - and starts with a letter or digit")]
    Name,
    /// Rule of item ids: longer than [`ItemId::BYTES_MAX`].
    #[error("an item id is at most 256 bytes of UTF-8")]
    ItemIdTooLong,
    /// Rule of item ids: U+0000 to U+001F or U+007F.
    #[error("an item id has no control characters")]
    ItemIdControl,
}

/// `[A-Za-z0-9][A-Za-z0-9._-]{0,63}`, case-sensitive, never percent-decoded (`api.md` section 1).
fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() <= 64
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(Arc<str>);

        impl $type {
            /// Checks the text against the rule.
            ///
            /// # Errors
            /// [`NameError::Name`] if it does not fit.
            pub fn new(text: &str) -> Result<Self, NameError> {
                if is_name(text) { Ok(Self(text.into())) } else { Err(NameError::Name) }
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(&text)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.0.as_ref().into()
            }
        }
    };
}

name! {
    /// Name of a stream of the DataPool.
    StreamName
}
name! {
    /// Name of a connector or reader.
    ConnectorName
}

/// Identity of an item within its stream: any text of 1 to 256 bytes without control characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemId(Box<str>);

/// A copy: for maps that are looked into by reference and keep a copy of what is new.
impl From<&Self> for ItemId {
    fn from(id: &Self) -> Self {
        id.clone()
    }
}

impl ItemId {
    /// Longest id in bytes of UTF-8.
    pub const BYTES_MAX: usize = 256;

    /// Checks the text against the rule.
    ///
    /// # Errors
    /// [`NameError::ItemIdTooLong`] or [`NameError::ItemIdControl`]. An empty text is the caller's to replace; it is too short to
    /// be a key, so it is refused as [`NameError::Name`].
    pub fn new(text: impl Into<Box<str>>) -> Result<Self, NameError> {
        let text = text.into();
        if text.is_empty() {
            return Err(NameError::Name);
        }
        if text.len() > Self::BYTES_MAX {
            return Err(NameError::ItemIdTooLong);
        }
        if text.bytes().any(|b| b.is_ascii_control()) {
            return Err(NameError::ItemIdControl);
        }
        Ok(Self(text))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_rule_pass_and_aliases_do_not() {
        let longest = "a".repeat(64);
        for good in ["sales", "app-metrics", "0", "a.b_c-D", longest.as_str()] {
            assert!(StreamName::new(good).is_ok(), "{good}");
        }
        let too_long = "a".repeat(65);
        for bad in [
            "",
            ".a",
            "-a",
            "_a",
            "a/b",
            "a b",
            "%73ales",
            "ä",
            "a\0",
            too_long.as_str(),
        ] {
            assert!(StreamName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn item_ids_take_any_text_but_control_characters_and_length() {
        assert!(ItemId::new("a/b %ü\u{202e}").is_ok());
        assert!(ItemId::new("x".repeat(256)).is_ok());
        assert_eq!(ItemId::new("x".repeat(257)), Err(NameError::ItemIdTooLong));
        for bad in ["a\nb", "\0", "a\u{7f}"] {
            assert_eq!(ItemId::new(bad), Err(NameError::ItemIdControl));
        }
    }
}
