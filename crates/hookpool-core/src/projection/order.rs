//! The value that events of an item are ordered by: numbers by size, times by when, other texts by their bytes.

use std::{borrow::Cow, cmp::Ordering};

use super::{
    Unfit,
    time::{nanoseconds, rfc3339},
};
use crate::json::{self, Kind, Value};

/// Comparable across events; an older value loses against a newer one. Of different sorts: numbers, then times, then texts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    /// Also in a string. Compared digit by digit, never through a float.
    Number(Decimal),
    /// RFC 3339, as nanoseconds since 1970.
    Time(i128),
    /// Any other string.
    Text(Box<str>),
}

impl Order {
    /// Of a value; `None` if it is null, which orders nothing.
    pub(super) fn of(value: Value<'_>) -> Result<Option<Self>, Unfit> {
        match (value.kind, value.text, value.as_string()) {
            (Kind::Scalar, "null", _) => Ok(None),
            (Kind::Scalar, _, Some(text)) => Ok(Some(Self::of_string(&text))),
            (Kind::Scalar, text, None) => {
                let number = Decimal::parse(text).ok_or(Unfit::Order)?;
                Ok(Some(Self::Number(number)))
            }
            (Kind::Nested, ..) => Err(Unfit::Order),
        }
    }

    fn of_string(text: &str) -> Self {
        if let Some(number) = number_in(text).and_then(|text| Decimal::parse(&text)) {
            return Self::Number(number);
        }
        match rfc3339(text) {
            Some(time) => Self::Time(nanoseconds(time)),
            None => Self::Text(text.into()),
        }
    }
}

/// The text, if it is a JSON number.
pub(super) fn number_in(text: &str) -> Option<Cow<'_, str>> {
    let digit = |byte: &u8| byte.is_ascii_digit() || *byte == b'-';
    let begins = text.as_bytes().first().is_some_and(digit);
    let whole = begins && json::value(text).is_some_and(|value| value.text == text);
    whole.then_some(Cow::Borrowed(text))
}

/// A JSON number of any length: sign, power of ten of its first digit, and digits without zeros at either end.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Decimal {
    negative: bool,
    magnitude: i64,
    digits: Box<str>,
}

impl Decimal {
    /// Exponents beyond 64 bits count as the largest.
    pub(crate) fn parse(number: &str) -> Option<Self> {
        let (negative, number) = match number.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, number),
        };
        if !number.as_bytes().first()?.is_ascii_digit() {
            return None;
        }
        let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = [whole, fraction].concat();
        let zeros = all.len() - all.trim_start_matches('0').len();
        let digits = all.trim_matches('0');
        let before_point = i64::try_from(whole.len())
            .ok()?
            .checked_sub(i64::try_from(zeros).ok()?)?;
        let magnitude = before_point.saturating_add(saturating(exponent));
        let zero = digits.is_empty();
        Some(Self {
            negative: negative && !zero,
            magnitude: if zero { i64::MIN } else { magnitude },
            digits: digits.into(),
        })
    }

    fn size(&self) -> (i64, &str) {
        (self.magnitude, &self.digits)
    }
}

fn saturating(exponent: &str) -> i64 {
    let furthest = if exponent.starts_with('-') {
        i64::MIN / 2
    } else {
        i64::MAX / 2
    };
    exponent.parse().unwrap_or(furthest)
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.negative, other.negative) {
            (false, false) => self.size().cmp(&other.size()),
            (true, true) => other.size().cmp(&self.size()),
            (false, true) => Ordering::Greater,
            (true, false) => Ordering::Less,
        }
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Stored as text that parses back: a number, a time or a quoted text as JSON.
impl Order {
    /// The order as one JSON value, which [`Self::from_stored`] reads.
    #[must_use]
    pub fn to_stored(&self) -> String {
        match self {
            Self::Number(number) => {
                let sign = if number.negative { "-" } else { "" };
                let digits: &str = if number.digits.is_empty() {
                    "0"
                } else {
                    &number.digits
                };
                let magnitude = if number.digits.is_empty() {
                    1
                } else {
                    number.magnitude
                };
                format!("n{sign}0.{digits}e{magnitude}")
            }
            Self::Time(nanoseconds) => format!("t{nanoseconds}"),
            Self::Text(text) => format!("s{text}"),
        }
    }

    /// Reads [`Self::to_stored`].
    #[must_use]
    pub fn from_stored(text: &str) -> Option<Self> {
        let sort = text.get(..1)?;
        let rest = text.get(1..)?;
        match sort {
            "n" => Decimal::parse(rest).map(Self::Number),
            "t" => rest.parse().ok().map(Self::Time),
            "s" => Some(Self::Text(rest.into())),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn order(json: &str) -> Order {
        Order::of(json::value(json).unwrap()).unwrap().unwrap()
    }

    #[test]
    fn numbers_order_by_size_times_by_when_and_texts_by_bytes() {
        let ascending = [
            "-1e400",
            "-12",
            "-1.5",
            "-1",
            "0",
            "0.001",
            "1",
            "\"2\"",
            "9.99",
            "10",
            "1e2",
            "123456789012345678901234567890",
            "123456789012345678901234567891",
            "1e400",
            "\"2024-01-01T00:00:00+01:00\"",
            "\"2024-01-01T00:00:00Z\"",
            "\"2024-01-01T00:00:00.000000001Z\"",
            "\"9999-12-31T23:59:59Z\"",
            "\"2024-01-01\"",
            "\"a\"",
            "\"b\"",
        ];
        for pair in ascending.windows(2) {
            assert!(order(pair[0]) < order(pair[1]), "{pair:?}");
        }
        for (a, b) in [
            ("1", "1.0"),
            ("100", "1e2"),
            ("-0", "0"),
            ("0.10", "1e-1"),
            ("0e5", "0"),
        ] {
            assert_eq!(order(a), order(b));
        }
        assert_eq!(Order::of(json::value("null").unwrap()), Ok(None));
        for bad in ["true", "{}", "[1]"] {
            assert_eq!(
                Order::of(json::value(bad).unwrap()),
                Err(Unfit::Order),
                "{bad}"
            );
        }
    }

    #[test]
    fn monstrous_exponents_still_order() {
        assert!(order("1e99999999999999999999") > order("1e400"));
        assert!(order("1e-99999999999999999999") < order("1e-400"));
    }

    proptest! {
        #[test]
        fn integers_order_as_integers(a: i64, b: i64) {
            prop_assert_eq!(order(&a.to_string()).cmp(&order(&b.to_string())), a.cmp(&b));
        }

        #[test]
        fn an_order_is_stored_and_read_back(number: f64, text: String, time in -1_000_000_000i64..4_000_000_000) {
            let time = jiff::Timestamp::from_second(time).unwrap().to_string();
            for order in [
                order(&serde_json::to_string(&number).unwrap().replace("null", "0")),
                order(&serde_json::to_string(&text).unwrap()),
                order(&serde_json::to_string(&time).unwrap()),
            ] {
                prop_assert_eq!(Order::from_stored(&order.to_stored()), Some(order));
            }
        }
    }
}
