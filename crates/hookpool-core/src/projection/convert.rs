//! A value as another type, or not at all: nothing is guessed and no number passes through a float. Null is of every type.

use std::borrow::Cow;

use jiff::{SignedDuration, civil::DateTime};

use super::{
    Text, Type,
    order::number_in,
    time::{is_plain, rfc3339, since_epoch},
};
use crate::json::{self, Kind, Value};

/// The value as this type; `None` if it is none.
pub(super) fn convert(value: Value<'_>, into: Type) -> Option<Text<'_>> {
    if value.text == "null" {
        return Some(value.into());
    }
    match into {
        Type::String => Some(string(value)),
        Type::Number => number(value),
        Type::Boolean => boolean(value),
        Type::Time => time(value),
        Type::Json => nested(value),
    }
}

/// The JSON text of whatever is no string yet.
fn string(value: Value<'_>) -> Text<'_> {
    if value.as_string().is_some() {
        return value.into();
    }
    quoted(value.text)
}

/// A number, or a string that holds exactly one.
fn number(value: Value<'_>) -> Option<Text<'_>> {
    match (value.kind, value.as_string()) {
        (Kind::Nested, _) => None,
        (Kind::Scalar, Some(text)) => {
            let text = number_in(&text)?.into_owned();
            Some(scalar(Cow::Owned(text)))
        }
        (Kind::Scalar, None) => number_in(value.text).map(scalar),
    }
}

/// `true` or `false`, also in a string.
fn boolean(value: Value<'_>) -> Option<Text<'_>> {
    let text = match value.text {
        "true" | "\"true\"" => "true",
        "false" | "\"false\"" => "false",
        _ => return None,
    };
    Some(scalar(Cow::Borrowed(text)))
}

/// RFC 3339 with any offset, or Unix time: up to 11 digits are seconds, 12 to 14 are milliseconds. It becomes RFC 3339 in UTC.
fn time(value: Value<'_>) -> Option<Text<'_>> {
    let time = match value.as_string() {
        Some(Cow::Borrowed(text)) if is_plain(text) => {
            return rfc3339(text).map(|_| value.into());
        }
        Some(text) => rfc3339(&text)?,
        None if value.kind == Kind::Scalar => unix(value.text)?,
        None => return None,
    };
    Some(scalar(Cow::Owned(format!("\"{time}Z\""))))
}

fn unix(digits: &str) -> Option<DateTime> {
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number = digits.parse().ok()?;
    match digits.len() {
        ..=11 => since_epoch(SignedDuration::from_secs(number)),
        12..=14 => since_epoch(SignedDuration::from_millis(number)),
        _ => None,
    }
}

/// What a string holds, if that is JSON; anything else as it is.
fn nested(value: Value<'_>) -> Option<Text<'_>> {
    let Some(text) = value.as_string() else {
        return Some(value.into());
    };
    let Value { kind, text } = json::value(&text)?;
    Some(Text {
        kind,
        text: Cow::Owned(text.to_owned()),
    })
}

fn scalar(text: Cow<'_, str>) -> Text<'_> {
    Text {
        kind: Kind::Scalar,
        text,
    }
}

fn quoted<'a>(text: &str) -> Text<'a> {
    // Every text is a JSON string.
    scalar(Cow::Owned(serde_json::Value::from(text).to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_become_a_type_or_do_not_fit() {
        for (json, into, expected) in [
            ("\"a\"", Type::String, Some("\"a\"")),
            ("1.0", Type::String, Some("\"1.0\"")),
            ("true", Type::String, Some("\"true\"")),
            (r#"{"a": "b"}"#, Type::String, Some(r#""{\"a\": \"b\"}""#)),
            ("null", Type::Number, Some("null")),
            ("1e2", Type::Number, Some("1e2")),
            ("\"0.10\"", Type::Number, Some("0.10")),
            ("\" 1\"", Type::Number, None),
            ("\"1x\"", Type::Number, None),
            ("\"\"", Type::Number, None),
            ("true", Type::Number, None),
            ("[1]", Type::Number, None),
            ("true", Type::Boolean, Some("true")),
            ("\"false\"", Type::Boolean, Some("false")),
            ("1", Type::Boolean, None),
            ("\"yes\"", Type::Boolean, None),
            (
                "\"2024-02-01T12:00:00+02:00\"",
                Type::Time,
                Some("\"2024-02-01T10:00:00Z\""),
            ),
            (
                "\"2024-02-01T10:00:00.250Z\"",
                Type::Time,
                Some("\"2024-02-01T10:00:00.25Z\""),
            ),
            (
                "\"2024-02-01T10:00:00Z\"",
                Type::Time,
                Some("\"2024-02-01T10:00:00Z\""),
            ),
            (
                "\"2024-02-01t10:00:00Z\"",
                Type::Time,
                Some("\"2024-02-01T10:00:00Z\""),
            ),
            ("\"2024-02-30T10:00:00Z\"", Type::Time, None),
            ("1700000000", Type::Time, Some("\"2023-11-14T22:13:20Z\"")),
            (
                "1700000000123",
                Type::Time,
                Some("\"2023-11-14T22:13:20.123Z\""),
            ),
            (
                "\"9999-12-31T23:59:59Z\"",
                Type::Time,
                Some("\"9999-12-31T23:59:59Z\""),
            ),
            (
                "99999999999999",
                Type::Time,
                Some("\"5138-11-16T09:46:39.999Z\""),
            ),
            ("\"2024-02-01 10:00:00Z\"", Type::Time, None),
            ("1.5", Type::Time, None),
            ("-1", Type::Time, None),
            ("\"yesterday\"", Type::Time, None),
            ("{}", Type::Time, None),
            (r#""{\"a\": 1}""#, Type::Json, Some(r#"{"a": 1}"#)),
            ("\"1.0\"", Type::Json, Some("1.0")),
            ("[1]", Type::Json, Some("[1]")),
            ("\"x\"", Type::Json, None),
        ] {
            let converted = convert(json::value(json).unwrap(), into);
            assert_eq!(
                converted.as_ref().map(|text| text.text.as_ref()),
                expected,
                "{json} {into:?}"
            );
        }
        let held = convert(json::value(r#""{\"a\": 1}""#).unwrap(), Type::Json);
        assert_eq!(held.unwrap().kind, Kind::Nested);
    }
}
