//! The headers of a request, as a verifier sees them: each is absent, sent once or repeated.

use super::VerifyError;
use crate::key::PresentedKey;

/// A header that may be sent once.
#[derive(Debug, Clone, Copy)]
pub enum Header<'a> {
    /// Not sent.
    Absent,
    /// Sent once.
    One(&'a [u8]),
    /// Sent more than once; none of the values counts.
    Repeated,
}

impl<'a> Header<'a> {
    /// From all values of one header.
    pub fn from_values(mut values: impl Iterator<Item = &'a [u8]>) -> Self {
        match (values.next(), values.next()) {
            (None, _) => Self::Absent,
            (Some(value), None) => Self::One(value),
            (Some(_), Some(_)) => Self::Repeated,
        }
    }

    /// The presented key, if this is one well-formed `Authorization`.
    #[must_use]
    pub fn presented_key(self) -> Option<PresentedKey<'a>> {
        match self {
            Self::One(value) => PresentedKey::from_authorization(value),
            Self::Absent | Self::Repeated => None,
        }
    }

    pub(super) fn one(self) -> Result<&'a [u8], VerifyError> {
        match self {
            Self::One(value) => Ok(value),
            Self::Absent | Self::Repeated => Err(VerifyError::SignatureInvalid),
        }
    }
}

/// The headers of a request; names in any case.
pub trait Headers {
    /// All values of one header.
    fn header(&self, name: &str) -> Header<'_>;
}

/// Written down, name and value.
impl<N: AsRef<str>, V: AsRef<[u8]>, const COUNT: usize> Headers for [(N, V); COUNT] {
    fn header(&self, name: &str) -> Header<'_> {
        find(self, name)
    }
}

/// The same.
impl<N: AsRef<str>, V: AsRef<[u8]>> Headers for Vec<(N, V)> {
    fn header(&self, name: &str) -> Header<'_> {
        find(self, name)
    }
}

fn find<'a>(headers: &'a [(impl AsRef<str>, impl AsRef<[u8]>)], name: &str) -> Header<'a> {
    let values = headers
        .iter()
        .filter(|(given, _)| given.as_ref().eq_ignore_ascii_case(name));
    Header::from_values(values.map(|(_, value)| value.as_ref()))
}
