//! Where `klamm consume --from` begins: at an end, at an offset, or at a time. Also how times are written elsewhere.

use std::str::FromStr;
use std::time::Duration;

use klamm_runtime::settings::parse_duration;

const MS_PER_DAY: i64 = 24 * 60 * 60 * 1_000;

/// Where reading begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// The oldest record there is.
    Beginning,
    /// After the newest record there is now.
    End,
    /// This offset in every partition read.
    Offset(i64),
    /// The first record of this time or later.
    Time(Time),
}

/// A point in time as it is written after `@`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Time {
    /// Milliseconds since the Unix epoch.
    At(i64),
    /// So many milliseconds before now.
    Ago(i64),
}

impl Time {
    /// Milliseconds since the Unix epoch, when it is `now_ms`.
    pub(crate) fn resolve(self, now_ms: i64) -> i64 {
        match self {
            Self::At(at_ms) => at_ms,
            Self::Ago(ago_ms) => now_ms.saturating_sub(ago_ms),
        }
    }
}

impl FromStr for Start {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "beginning" => return Ok(Self::Beginning),
            "end" => return Ok(Self::End),
            _ => {}
        }
        if let Some(time) = text.strip_prefix('@') {
            return parse_time(time).map(Self::Time).ok_or_else(|| {
                "a time is @MILLISECONDS since 1970, @2026-01-31, @2026-01-31T12:00:00Z (RFC 3339), or @-15m (s, m, h, \
                 d)"
                    .to_owned()
            });
        }
        match text.parse() {
            Ok(offset) if offset >= 0 => Ok(Self::Offset(offset)),
            _ => Err("it must be beginning, end, an offset, or @TIME".to_owned()),
        }
    }
}

/// Reads a time on the command line: with or without the `@` that `--from` wants before it.
///
/// # Errors
/// It is none.
pub(crate) fn time(text: &str) -> Result<Time, String> {
    parse_time(text.strip_prefix('@').unwrap_or(text)).ok_or_else(|| {
        "a time is 2026-01-31, 2026-01-31T12:00:00Z (RFC 3339), milliseconds since 1970, or -15m (s, m, h, d)"
            .to_owned()
    })
}

/// Reads a duration on the command line: `500ms`, `30s`, `15m`, `2h`, `1d`, or as ISO 8601 has it (`PT1H30M`).
///
/// # Errors
/// It is none of these.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let count = text.strip_suffix("ms").map_or_else(|| in_units_ms(text), digits);
    let short = count.and_then(|ms| u64::try_from(ms).ok()).map(Duration::from_millis);
    short
        .or_else(|| parse_duration(text))
        .ok_or_else(|| "a duration is like 500ms, 30s, 15m, 2h, 1d, or PT1H30M (ISO 8601)".to_owned())
}

/// Reads a time on the command line: milliseconds since 1970, or RFC 3339; a time without a zone is UTC.
///
/// # Errors
/// It is neither.
pub(crate) fn datetime(text: &str) -> Result<i64, String> {
    digits(text).or_else(|| parse_rfc3339(text)).ok_or_else(|| {
        "a time is milliseconds since 1970, 2026-01-31, or 2026-01-31T12:00:00Z (RFC 3339)".to_owned()
    })
}

/// A number with a unit of time, in milliseconds.
fn in_units_ms(text: &str) -> Option<i64> {
    let unit = text.chars().last()?;
    let unit_ms = match unit {
        's' => 1_000,
        'm' => 60 * 1_000,
        'h' => 60 * 60 * 1_000,
        'd' => MS_PER_DAY,
        _ => return None,
    };
    digits(text.strip_suffix(unit)?)?.checked_mul(unit_ms)
}

fn parse_time(text: &str) -> Option<Time> {
    if let Some(ago) = text.strip_prefix('-') {
        return in_units_ms(ago).map(Time::Ago);
    }
    digits(text).or_else(|| parse_rfc3339(text)).map(Time::At)
}

/// A date, or a date and time with `Z` or an offset; a time without either is UTC.
fn parse_rfc3339(text: &str) -> Option<i64> {
    let (date, time) = match text.split_once(['T', 't', ' ']) {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    };
    let mut parts = date.split('-');
    let (year, month, day) = (fixed(parts.next()?, 4)?, fixed(parts.next()?, 2)?, fixed(parts.next()?, 2)?);
    if parts.next().is_some()
        || !(1..=12).contains(&month)
        || !(1..=days_in_month(year, month)).contains(&day)
    {
        return None;
    }
    let day_ms = days_since_epoch(year, month, day) * MS_PER_DAY;
    match time {
        None => Some(day_ms),
        Some(time) => Some(day_ms + time_of_day_ms(time)?),
    }
}

fn time_of_day_ms(text: &str) -> Option<i64> {
    let (clock, zone_ms) = split_zone(text)?;
    let (clock, fraction_ms) = match clock.split_once('.') {
        Some((clock, fraction)) => {
            digits(fraction)?;
            // Milliseconds are as fine as Kafka's timestamps are.
            (clock, fixed(&format!("{fraction:0<3}")[..3], 3)?)
        }
        None => (clock, 0),
    };
    let mut parts = clock.split(':');
    let (hour, minute) = (fixed(parts.next()?, 2)?, fixed(parts.next()?, 2)?);
    let second = parts.next().map_or(Some(0), |second| fixed(second, 2))?;
    if parts.next().is_some() || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    Some(((hour * 60 + minute) * 60 + second) * 1_000 + fraction_ms - zone_ms)
}

/// The clock part, and what the zone is ahead of UTC in milliseconds.
fn split_zone(text: &str) -> Option<(&str, i64)> {
    if let Some(clock) = text.strip_suffix(['Z', 'z']) {
        return Some((clock, 0));
    }
    let Some(at) = text.rfind(['+', '-']) else { return Some((text, 0)) };
    let (hours, minutes) = text[at + 1..].split_once(':')?;
    let (hours, minutes) = (fixed(hours, 2)?, fixed(minutes, 2)?);
    if hours > 23 || minutes > 59 {
        return None;
    }
    let ahead_ms = (hours * 60 + minutes) * 60 * 1_000;
    Some((&text[..at], if text.as_bytes()[at] == b'+' { ahead_ms } else { -ahead_ms }))
}

fn fixed(text: &str, length: usize) -> Option<i64> {
    if text.len() == length { digits(text) } else { None }
}

/// A number of ASCII digits only: `parse` alone would take a sign.
fn digits(text: &str) -> Option<i64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 in the Gregorian calendar. The year is taken to begin in March, so that
/// the leap day is its last.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let days_before_month = (153 * month + 2) / 5;
    // 719,468 days lie between March 1 of the year 0 and the epoch.
    year * 365 + leap_days + days_before_month + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Start) {
        assert_eq!(text.parse(), Ok(expected), "{text}");
    }

    fn at(ms: i64) -> Start {
        Start::Time(Time::At(ms))
    }

    #[test]
    fn ends_and_offsets() {
        check("beginning", Start::Beginning);
        check("end", Start::End);
        check("0", Start::Offset(0));
        check("12345678901", Start::Offset(12_345_678_901));
        for wrong in ["", "start", "-1", "1.5", "+3x"] {
            assert!(wrong.parse::<Start>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn times() {
        check("@0", at(0));
        check("@1700000000123", at(1_700_000_000_123));
        check("@1970-01-01", at(0));
        check("@1970-01-02T00:00:01Z", at(86_401_000));
        check("@2000-02-29T12:34:56.789Z", at(951_827_696_789));
        check("@2026-11-20T21:00:00.5+02:00", at(1_795_201_200_500));
        check("@2026-11-20 19:00:00.500", at(1_795_201_200_500));
        check("@2026-11-20T14:00-05:00", at(1_795_201_200_000));
        check("@1969-12-31T23:59:59Z", at(-1_000));
    }

    #[test]
    fn times_before_now() {
        check("@-15m", Start::Time(Time::Ago(900_000)));
        check("@-1d", Start::Time(Time::Ago(86_400_000)));
        assert_eq!(Time::Ago(900_000).resolve(1_000_000), 100_000);
        assert_eq!(Time::At(5).resolve(1_000_000), 5);
    }

    #[test]
    fn durations_and_times_outside_of_from() {
        for (text, ms) in [
            ("500ms", 500),
            ("30s", 30_000),
            ("15m", 900_000),
            ("2h", 7_200_000),
            ("1d", 86_400_000),
            ("PT1H30M", 5_400_000),
            ("PT0.5S", 500),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for wrong in ["", "5", "-5m", "ms", "m", "1.5h", "5y", "PT", "99999999999999999d"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert_eq!(datetime("5"), Ok(5));
        assert_eq!(datetime("1970-01-02T00:00:01Z"), Ok(86_401_000));
        assert_eq!(datetime("1970-01-01T00:00:00.250"), Ok(250));
        for wrong in ["", "noon", "-15m", "@5"] {
            assert!(datetime(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        let wrong = [
            "@",
            "@noon",
            "@2026-13-01",
            "@2026-02-29",
            "@2026-1-1",
            "@2026-01-01T25:00:00Z",
            "@2026-01-01T10",
            "@2026-01-01T10:00:00+2",
            "@2026-01-01T10:00:00.xZ",
            "@-5",
            "@-m",
            "@-5y",
            "@+5",
            "@-99999999999999999d",
            "@2026-01-01T10:00é",
        ];
        for text in wrong {
            assert!(text.parse::<Start>().is_err(), "{text}");
        }
    }
}
