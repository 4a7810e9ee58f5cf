//! Where in a body a rule finds its value.

use serde::{Deserialize, Serialize};

use super::RulesError;
use crate::json::{self, Fields, Value};

/// The name of a property, or a JSON Pointer (RFC 6901) where it begins with `/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Source {
    property: Box<str>,
    /// Tokens below the property.
    path: Vec<Box<str>>,
    written: Box<str>,
}

impl Source {
    /// The property itself.
    pub(super) fn property(name: &str) -> Self {
        Self {
            property: name.into(),
            path: Vec::new(),
            written: name.into(),
        }
    }

    /// The value in a body with these properties.
    #[must_use]
    pub fn find<'a>(&self, fields: &Fields<'a>) -> Option<Value<'a>> {
        json::at(*fields.get(self.property.as_ref())?, &self.path)
    }

    /// The property, if all of it is taken.
    pub(super) fn whole_property(&self) -> Option<&str> {
        self.path.is_empty().then_some(&self.property)
    }
}

impl TryFrom<String> for Source {
    type Error = RulesError;

    fn try_from(written: String) -> Result<Self, RulesError> {
        let Some(pointer) = written.strip_prefix('/') else {
            return if written.is_empty() {
                Err(RulesError::Pointer)
            } else {
                Ok(Self::property(&written))
            };
        };
        let mut tokens = pointer.split('/').map(unescape);
        let property = tokens.next().flatten().ok_or(RulesError::Pointer)?;
        let path: Option<Vec<_>> = tokens.collect();
        Ok(Self {
            property,
            path: path.ok_or(RulesError::Pointer)?,
            written: written.into(),
        })
    }
}

impl From<Source> for String {
    fn from(source: Source) -> Self {
        source.written.into()
    }
}

/// `~1` is `/` and `~0` is `~`; another `~` is an error.
fn unescape(token: &str) -> Option<Box<str>> {
    let mut parts = token.split('~');
    let mut text = parts.next()?.to_owned();
    for part in parts {
        text.push(match part.as_bytes().first()? {
            b'0' => '~',
            b'1' => '/',
            _ => return None,
        });
        text.push_str(part.get(1..)?);
    }
    Some(text.into())
}
