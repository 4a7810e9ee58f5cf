//! Field values exactly as the server sent them: a number with 30 digits stays one.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

/// The fields of an item by name.
pub type Fields = BTreeMap<String, Value>;

/// One JSON value, kept as its text.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Value(Box<RawValue>);

impl Value {
    /// The JSON text: strings with their quotes, numbers digit by digit.
    #[must_use]
    pub fn json(&self) -> &str {
        self.0.get()
    }

    /// The value as a Rust type; numbers may lose digits on the way.
    ///
    /// # Errors
    /// The value is of another type.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.json())
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.json() == other.json()
    }
}

impl Eq for Value {}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.json())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_every_digit() {
        let text = r#"{"a":123456789012345678901234567890,"b":1.0,"c":1e2,"d":"x"}"#;
        let fields: Fields = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&fields).unwrap(), text);
        assert_eq!(fields["d"].decode::<String>().unwrap(), "x");
    }
}
