//! RFC 3339, and nothing that only looks like it: what an event means must not move with a library that reads times.

use jiff::{SignedDuration, civil::DateTime};

/// The shape of a date and a time of day; each zero is a digit.
const WALL: &str = "0000-00-00T00:00:00";
const ZONE: &str = "+00:00";
const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);

/// When an RFC 3339 text is, in UTC and a year of four digits. A leap second has no number of its own there and is none.
pub(super) fn rfc3339(text: &str) -> Option<DateTime> {
    let (wall, rest) = text.split_at_checked(WALL.len())?;
    let digits = rest.strip_prefix('.').map_or(0, |digits| {
        1 + digits.bytes().take_while(u8::is_ascii_digit).count()
    });
    let zone = rest.get(digits..)?;
    if !is_shaped(wall, WALL) || wall.ends_with("60") {
        return None;
    }
    let local: DateTime = text.get(..WALL.len() + digits)?.parse().ok()?;
    let utc = local.checked_sub(offset(zone)?).ok()?;
    (utc.year() >= 0).then_some(utc)
}

/// Whether a text that is a time is written as times are shown: in UTC, to the second.
pub(super) fn is_plain(text: &str) -> bool {
    text.len() == WALL.len() + 1 && text.contains('T') && text.ends_with('Z')
}

/// A time so long after the start of 1970.
pub(super) fn since_epoch(duration: SignedDuration) -> Option<DateTime> {
    EPOCH.checked_add(duration).ok()
}

/// Since the start of 1970.
pub(super) fn nanoseconds(utc: DateTime) -> i128 {
    utc.duration_since(EPOCH).as_nanos()
}

/// How far east of Greenwich.
fn offset(zone: &str) -> Option<SignedDuration> {
    if zone.eq_ignore_ascii_case("Z") {
        return Some(SignedDuration::ZERO);
    }
    let signed = zone.replacen('-', "+", 1);
    let hours: i64 = zone.get(1..3)?.parse().ok()?;
    let minutes: i64 = zone.get(4..)?.parse().ok()?;
    let fits = is_shaped(&signed, ZONE) && hours < 24 && minutes < 60;
    let east = SignedDuration::from_mins(hours * 60 + minutes);
    fits.then_some(if zone.starts_with('-') { -east } else { east })
}

fn is_shaped(text: &str, shape: &str) -> bool {
    let fits = |(byte, shape): (u8, u8)| match shape {
        b'0' => byte.is_ascii_digit(),
        _ => byte.eq_ignore_ascii_case(&shape),
    };
    text.len() == shape.len() && text.bytes().zip(shape.bytes()).all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_3339_is_read_to_the_end_of_the_year_9999() {
        for (text, utc) in [
            ("2024-02-01T12:00:00+02:00", "2024-02-01T10:00:00"),
            ("2024-02-29T23:30:00.250-04:30", "2024-03-01T04:00:00.25"),
            (
                "2024-01-01t00:00:00.123456789z",
                "2024-01-01T00:00:00.123456789",
            ),
            ("2024-01-01T00:00:00-00:00", "2024-01-01T00:00:00"),
            ("0000-01-01T00:00:00Z", "0000-01-01T00:00:00"),
            ("9999-12-31T23:59:59.9Z", "9999-12-31T23:59:59.9"),
        ] {
            assert_eq!(rfc3339(text).unwrap().to_string(), utc);
        }
        let nanoseconds = |text| nanoseconds(rfc3339(text).unwrap());
        assert_eq!(nanoseconds("1970-01-01T00:00:01.000000001Z"), 1_000_000_001);
        assert_eq!(nanoseconds("1969-12-31T23:59:59Z"), -1_000_000_000);
    }

    #[test]
    fn what_only_looks_like_it_is_no_time() {
        for text in [
            "",
            "2024-01-01",
            "2024-01-01T00:00:00",
            "2024-01-01 00:00:00Z",
            "2024-01-01T00:00Z",
            "20240101T000000Z",
            "-00001-01-01T00:00:00Z",
            "2024-02-30T00:00:00Z",
            "2024-01-01T24:00:00Z",
            "2016-12-31T23:59:60Z",
            "2024-01-01T00:00:00.Z",
            "2024-01-01T00:00:00,5Z",
            "2024-01-01T00:00:00.1234567891Z",
            "2024-01-01T00:00:00+01",
            "2024-01-01T00:00:00+0100",
            "2024-01-01T00:00:00+24:00",
            "2024-01-01T00:00:00+01:60",
            "2024-01-01T00:00:00+01:00:30",
            "2024-01-01T00:00:00+-1:00",
            "2024-01-01T00:00:00Z[UTC]",
            "2024-01-01T00:00:00ZZ",
            "0000-01-01T00:00:00+00:01",
            "9999-12-31T23:59:59-00:01",
            "２024-01-01T00:00:00Z",
        ] {
            assert_eq!(rfc3339(text), None, "{text}");
        }
    }
}
