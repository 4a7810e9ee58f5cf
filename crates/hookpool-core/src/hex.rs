//! Bytes as hex digits in JSON, read strictly: lower case only, so that a value has one spelling.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// Exactly these bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hex<const N: usize>(pub(crate) [u8; N]);

impl<const N: usize> Hex<N> {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let bytes = const_hex::decode_to_array(text).ok()?;
        (const_hex::encode(bytes) == text).then_some(Self(bytes))
    }
}

impl<const N: usize> Serialize for Hex<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&const_hex::encode(self.0))
    }
}

impl<'de, const N: usize> Deserialize<'de> for Hex<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom("not so many lower-case hex digits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_has_one_spelling() {
        assert_eq!(Hex::parse("00ff"), Some(Hex([0, 255])));
        for bad in ["00FF", "0x00ff", "0ff", "00ff0", " 00ff", "00fg", ""] {
            assert_eq!(Hex::<2>::parse(bad), None, "{bad}");
        }
    }
}
