//! RFC 3339 and the civil calendar, by counting days.

const DAY: i128 = 86_400;
const NANOSECOND: i128 = 1_000_000_000;

/// Nanoseconds since 1970 of an RFC 3339 time; a leap second is none.
pub(super) fn instant(text: &str) -> Option<i128> {
    // Letters count in either case.
    let text = text.to_ascii_uppercase();
    let (date, time) = text.split_once('T')?;
    let zone_at = time.find(['Z', '+', '-'])?;
    let (clock, zone) = time.split_at(zone_at);
    let (clock, fraction) = match clock.split_once('.') {
        Some((clock, fraction)) => (clock, nanoseconds(fraction)?),
        None => (clock, 0),
    };
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let [hour, minute, second] = numbers(clock, ':', [2, 2, 2])?;
    let exists = (1..=12).contains(&month) && (1..=days_of(year, month)).contains(&day);
    if !exists || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let local = days(year, month, day) * DAY + hour * 3600 + minute * 60 + second;
    let seconds = local - offset(zone)?;
    let (first, end) = (days(0, 1, 1) * DAY, days(10_000, 1, 1) * DAY);
    let fits = (first..end).contains(&seconds);
    fits.then_some(seconds * NANOSECOND + fraction)
}

/// Numbers of exactly so many digits, with this between them.
fn numbers<const N: usize>(text: &str, between: char, digits: [usize; N]) -> Option<[i128; N]> {
    let parts: Vec<&str> = text.split(between).collect();
    let parts: [&str; N] = parts.try_into().ok()?;
    let fits = parts
        .iter()
        .zip(digits)
        .all(|(part, digits)| part.len() == digits && is_digits(part));
    fits.then(|| parts.map(|part| part.parse().unwrap()))
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn nanoseconds(fraction: &str) -> Option<i128> {
    let fits = is_digits(fraction) && fraction.len() <= 9;
    fits.then(|| format!("{fraction:0<9}").parse().unwrap())
}

/// Seconds east of Greenwich.
fn offset(zone: &str) -> Option<i128> {
    if zone == "Z" {
        return Some(0);
    }
    let [hours, minutes] = numbers(&zone[1..], ':', [2, 2])?;
    let seconds = hours * 3600 + minutes * 60;
    let east = if zone.starts_with('-') { -1 } else { 1 };
    (hours < 24 && minutes < 60).then_some(east * seconds)
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
    365 * before + before.div_euclid(4) - before.div_euclid(100) + before.div_euclid(400)
}

/// Days since 1970.
fn days(year: i128, month: i128, day: i128) -> i128 {
    let months: i128 = (1..month).map(|month| days_of(year, month)).sum();
    days_before(year) - days_before(1970) + months + day - 1
}

/// Year, month and day.
fn civil(day: i128) -> (i128, i128, i128) {
    // No later than the right one.
    let longest = if day < 0 { 365 } else { 366 };
    let mut year = 1970 + day.div_euclid(longest);
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
        ("0000-02-29T00:00:00z", "0000-02-29T00:00:00Z"),
        ("9999-12-31t23:59:59Z", "9999-12-31T23:59:59Z"),
    ] {
        assert_eq!(in_utc(instant(text).unwrap()), utc);
    }
    for bad in [
        "yesterday",
        "2024-13-01T00:00:00Z",
        "2024-01-01",
        "2024-01-01T00:00:00",
        "2024-01-01 00:00:00Z",
        "2023-02-29T00:00:00Z",
        "2024-01-01T00:00:00+0100",
        "0000-01-01T00:00:00+00:01",
    ] {
        assert_eq!(instant(bad), None, "{bad}");
    }
}
