//! RFC 3339 and the civil calendar, by counting days.

const DAY: i128 = 86_400;
const NANOSECOND: i128 = 1_000_000_000;

/// Nanoseconds since 1970 of an RFC 3339 time.
pub(super) fn instant(text: &str) -> Option<i128> {
    let at = |range: std::ops::Range<usize>| -> Option<i128> {
        let digits = text.get(range)?;
        let all = digits.bytes().all(|byte| byte.is_ascii_digit());
        all.then(|| digits.parse().ok()).flatten()
    };
    let marks = [(4, "-"), (7, "-"), (10, "T"), (13, ":"), (16, ":")];
    if marks
        .iter()
        .any(|(n, mark)| text.get(*n..n + 1) != Some(mark))
    {
        return None;
    }
    let (year, month, day) = (at(0..4)?, at(5..7)?, at(8..10)?);
    let (hour, minute, second) = (at(11..13)?, at(14..16)?, at(17..19)?);
    let in_range = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    let (nanoseconds, offset) = fraction_and_offset(text.get(19..)?)?;
    let seconds = days(year, month, day) * DAY + hour * 3600 + minute * 60 + second - offset;
    in_range.then_some(seconds * NANOSECOND + nanoseconds)
}

/// Nanoseconds, and seconds east of Greenwich.
fn fraction_and_offset(rest: &str) -> Option<(i128, i128)> {
    let (fraction, zone) = rest.split_at(rest.find(['Z', '+', '-'])?);
    let digits = match fraction.strip_prefix('.') {
        Some(digits) if !digits.is_empty() => digits,
        None if fraction.is_empty() => "0",
        _ => return None,
    };
    let nanoseconds = format!("{digits:0<9}").get(..9)?.parse().ok()?;
    if zone == "Z" {
        return Some((nanoseconds, 0));
    }
    let (hours, minutes) = zone.get(1..)?.split_once(':')?;
    let seconds = hours.parse::<i128>().ok()? * 3600 + minutes.parse::<i128>().ok()? * 60;
    let east = if zone.starts_with('-') {
        -seconds
    } else {
        seconds
    };
    Some((nanoseconds, east))
}

/// RFC 3339 in UTC, with as many digits after the point as there are.
pub(super) fn in_utc(nanoseconds: i128) -> String {
    let (seconds, fraction) = (
        nanoseconds.div_euclid(NANOSECOND),
        nanoseconds.rem_euclid(NANOSECOND),
    );
    let (day, second) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    let (year, month, of_month) = civil(day);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let fraction = match fraction {
        0 => String::new(),
        fraction => format!(".{}", format!("{fraction:09}").trim_end_matches('0')),
    };
    format!("{year:04}-{month:02}-{of_month:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

fn is_leap(year: i128) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_of(year: i128, month: i128) -> i128 {
    match month {
        2 => 28 + i128::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn days_before(year: i128) -> i128 {
    let before = year - 1;
    365 * before + before / 4 - before / 100 + before / 400
}

/// Days since 1970.
fn days(year: i128, month: i128, day: i128) -> i128 {
    let months: i128 = (1..month).map(|month| days_of(year, month)).sum();
    days_before(year) - days_before(1970) + months + day - 1
}

/// Year, month and day.
fn civil(day: i128) -> (i128, i128, i128) {
    let mut year = 1970 + day.div_euclid(366);
    while days(year + 1, 1, 1) <= day {
        year += 1;
    }
    let mut month = 1;
    while month < 12 && days(year, month + 1, 1) <= day {
        month += 1;
    }
    (year, month, day - days(year, month, 1) + 1)
}

#[test]
fn times_are_read_and_written() {
    for (text, utc) in [
        ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z"),
        ("2024-02-29T23:30:00.250-04:00", "2024-03-01T03:30:00.25Z"),
        ("1969-12-31T23:59:59Z", "1969-12-31T23:59:59Z"),
        ("2000-01-01T00:00:00+05:30", "1999-12-31T18:30:00Z"),
    ] {
        assert_eq!(in_utc(instant(text).unwrap()), utc);
    }
    for bad in [
        "yesterday",
        "2024-13-01T00:00:00Z",
        "2024-01-01",
        "2024-01-01T00:00:00",
    ] {
        assert_eq!(instant(bad), None, "{bad}");
    }
}
