//! Where in a body a value is found: the item id of a delivery, the value of a rule.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::json::{self, Fields, Value};

/// A path that is empty or broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "a source is the name of a property or a JSON Pointer like /a/b, with ~1 for / and ~0 for ~"
)]
pub struct SourceError;

/// The name of a property, or a JSON Pointer (RFC 6901) where it begins with `/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Source {
    property: Cow<'static, str>,
    /// Tokens below the property.
    path: Vec<Box<str>>,
    written: Cow<'static, str>,
}

impl Source {
    /// The property itself.
    pub(crate) fn property(name: &str) -> Self {
        Self {
            property: name.to_owned().into(),
            path: Vec::new(),
            written: name.to_owned().into(),
        }
    }

    /// A property whose name is known when this is compiled.
    pub(crate) const fn fixed(name: &'static str) -> Self {
        Self {
            property: Cow::Borrowed(name),
            path: Vec::new(),
            written: Cow::Borrowed(name),
        }
    }

    /// The path as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.written
    }

    /// The value in a body with these properties.
    #[must_use]
    pub fn find<'a>(&self, fields: &Fields<'a>) -> Option<Value<'a>> {
        json::at(*fields.get(self.property.as_ref())?, &self.path)
    }

    /// The property, if all of it is taken.
    pub(crate) fn whole_property(&self) -> Option<&str> {
        self.path.is_empty().then_some(&self.property)
    }
}

impl TryFrom<String> for Source {
    type Error = SourceError;

    fn try_from(written: String) -> Result<Self, SourceError> {
        let Some(pointer) = written.strip_prefix('/') else {
            return if written.is_empty() {
                Err(SourceError)
            } else {
                Ok(Self::property(&written))
            };
        };
        let mut tokens = pointer.split('/').map(unescape);
        let property: Box<str> = tokens.next().flatten().ok_or(SourceError)?;
        let path: Option<Vec<_>> = tokens.collect();
        Ok(Self {
            property: property.into_string().into(),
            path: path.ok_or(SourceError)?,
            written: written.into(),
        })
    }
}

impl From<Source> for String {
    fn from(source: Source) -> Self {
        source.written.into_owned()
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

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = br#"{"a":{"b":[10,{"c":"x"}],"":1,"k/l":2,"m~n":3,"\u0065":4,"b2":5,"b2":6},"/":7,"":8,"0":9,"a/b":11}"#;

    fn found(path: &str) -> Option<String> {
        let source = Source::try_from(path.to_owned()).unwrap();
        assert_eq!(source.as_str(), path);
        let object = json::object(BODY).unwrap();
        source
            .find(&object.fields)
            .map(|value| value.text.to_owned())
    }

    #[test]
    fn pointers_follow_names_and_indexes_and_everything_else_is_a_name() {
        for (path, value) in [
            ("/a/b/0", "10"),
            ("/a/b/1/c", "\"x\""),
            ("/a/", "1"),
            ("/a/k~1l", "2"),
            ("/a/m~0n", "3"),
            ("/a/e", "4"),
            ("/a/b2", "6"),
            ("/~1", "7"),
            ("/", "8"),
            ("/0", "9"),
            ("0", "9"),
            ("a/b", "11"),
            ("/a~1b", "11"),
        ] {
            assert_eq!(found(path).as_deref(), Some(value), "{path}");
        }
        for nothing in [
            "/a/b/2",
            "/a/b/-",
            "/a/b/01",
            "/a/b/+0",
            "/a/b/0/c",
            "/b",
            "/a/m~0",
            "b",
            "/a/b/18446744073709551616",
        ] {
            assert_eq!(found(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn a_broken_pointer_is_no_source() {
        for bad in ["", "/~", "/a~2", "/a/~", "/a/b~", "/~01~"] {
            assert_eq!(Source::try_from(bad.to_owned()), Err(SourceError), "{bad}");
        }
    }
}
