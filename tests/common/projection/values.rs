//! Types and order of values, by the tables of `docs/projections.md`.

use std::cmp::Ordering;

use serde_json::value::RawValue;

use super::{Unfit, time};

/// The JSON text of a value as another type.
pub(super) fn convert(text: &str, into: &str) -> Option<String> {
    if text == "null" {
        return Some(text.to_owned());
    }
    let string: Option<String> = serde_json::from_str(text).ok();
    let inner = string.as_deref().unwrap_or(text);
    match into {
        "string" => Some(match string {
            Some(_) => text.to_owned(),
            None => quoted(text),
        }),
        "number" => is_number(inner).then(|| inner.to_owned()),
        "boolean" => matches!(inner, "true" | "false").then(|| inner.to_owned()),
        "time" => time_in(text, string.as_deref()).map(|at| quoted(&time::in_utc(at))),
        "json" => match string {
            Some(held) => Some(
                serde_json::from_str::<Box<RawValue>>(&held)
                    .ok()?
                    .get()
                    .to_owned(),
            ),
            None => Some(text.to_owned()),
        },
        _ => panic!("no type {into}"),
    }
}

fn time_in(text: &str, string: Option<&str>) -> Option<i128> {
    match string {
        Some(written) => time::instant(written),
        None => unix(text),
    }
}

/// Nanoseconds of a Unix time by its digits.
fn unix(digits: &str) -> Option<i128> {
    let all = digits.bytes().all(|byte| byte.is_ascii_digit());
    let number: i128 = all.then(|| digits.parse().ok()).flatten()?;
    match digits.len() {
        1..=11 => Some(number * 1_000_000_000),
        12..=14 => Some(number * 1_000_000),
        _ => None,
    }
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

fn is_number(text: &str) -> bool {
    let begins = text.starts_with(|c: char| c == '-' || c.is_ascii_digit());
    begins && serde_json::from_str::<&RawValue>(text).is_ok_and(|raw| raw.get() == text)
}

/// What events of an item are ordered by.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Mark {
    Number(String),
    Time(i128),
    Text(String),
}

/// `None` for null.
pub(super) fn mark_of(text: &str) -> Result<Option<Mark>, Unfit> {
    if text == "null" {
        return Ok(None);
    }
    if is_number(text) {
        return Ok(Some(Mark::Number(text.to_owned())));
    }
    let string: String = serde_json::from_str(text).map_err(|_| Unfit)?;
    Ok(Some(match time::instant(&string) {
        _ if is_number(&string) => Mark::Number(string),
        Some(at) => Mark::Time(at),
        None => Mark::Text(string),
    }))
}

impl PartialOrd for Mark {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        use Mark::{Number, Text, Time};
        Some(match (self, other) {
            (Number(a), Number(b)) => by_size(a, b),
            (Time(a), Time(b)) => a.cmp(b),
            (Text(a), Text(b)) => a.as_bytes().cmp(b.as_bytes()),
            (Number(_), _) | (Time(_), Text(_)) => Ordering::Less,
            (Time(_), Number(_)) | (Text(_), _) => Ordering::Greater,
        })
    }
}

/// Written out without exponents, aligned at the point, and compared as text. For exponents that a test would write.
fn by_size(a: &str, b: &str) -> Ordering {
    let ((a_below, a), (b_below, b)) = (written_out(a), written_out(b));
    match (a_below, b_below) {
        (false, false) => a.cmp(&b),
        (true, true) => b.cmp(&a),
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
    }
}

/// Whether it is below zero, and 500 digits before and after the point.
fn written_out(number: &str) -> (bool, String) {
    const HALF: usize = 500;
    let lower = number.trim_start_matches('-').to_ascii_lowercase();
    let (mantissa, exponent) = lower.split_once('e').unwrap_or((&lower, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent: isize = exponent.parse().unwrap();
    let mut digits = vec![b'0'; 2 * HALF];
    let first = HALF.checked_add_signed(-exponent).unwrap() - whole.len();
    for (n, digit) in whole.bytes().chain(fraction.bytes()).enumerate() {
        digits[first + n] = digit;
    }
    let zero = digits.iter().all(|digit| *digit == b'0');
    let digits = String::from_utf8(digits).unwrap();
    (number.starts_with('-') && !zero, digits)
}

#[test]
fn marks_are_ordered_as_the_page_says() {
    let mark = |text: &str| mark_of(text).ok().flatten().unwrap();
    let ascending = [
        "-12",
        "-1.5",
        "0",
        "1e-3",
        "\"2\"",
        "9.99",
        "1E1",
        "123456789012345678901234567890",
        "123456789012345678901234567891",
        "\"2024-01-01T00:00:00+01:00\"",
        "\"2024-01-01T00:00:00Z\"",
        "\"a\"",
    ];
    for pair in ascending.windows(2) {
        assert!(mark(pair[0]) < mark(pair[1]), "{pair:?}");
    }
    assert_eq!(mark("-0").partial_cmp(&mark("0.0")), Some(Ordering::Equal));
}
