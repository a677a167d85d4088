//! How a moment is written for people: `2026-01-31T12:00:00.000Z`.

const MS_PER_DAY: i64 = 24 * 60 * 60 * 1_000;
/// Days of 400 years, after which the calendar repeats.
const ERA_DAYS: i64 = 146_097;
/// Days from March 1 of the year 0 to January 1, 1970.
const EPOCH_FROM_MARCH_0: i64 = 719_468;

/// Milliseconds since the Unix epoch in RFC 3339; the number itself beyond the years that this can write.
pub(crate) fn rfc3339(at_ms: i64) -> String {
    let (days, ms) = (at_ms.div_euclid(MS_PER_DAY), at_ms.rem_euclid(MS_PER_DAY));
    let (year, month, day) = date(days);
    if !(0..=9_999).contains(&year) {
        return at_ms.to_string();
    }
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", ms % 1_000)
}

/// Year, month and day, so many days after January 1, 1970. Years are counted from March here, so that the leap day is
/// a year's last.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days.saturating_add(EPOCH_FROM_MARCH_0);
    let (era, day_of_era) = (days.div_euclid(ERA_DAYS), days.rem_euclid(ERA_DAYS));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::start::datetime;

    #[test]
    fn moments_that_are_known() {
        for (at_ms, written) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_000_000_000_000, "2001-09-09T01:46:40.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(at_ms), written);
        }
        assert_eq!(rfc3339(i64::MAX), i64::MAX.to_string());
        assert_eq!(rfc3339(i64::MIN), i64::MIN.to_string());
    }

    #[test]
    fn every_day_is_read_again() {
        for day in -1_000..60_000 {
            let at_ms = day * MS_PER_DAY + 45_296_789;
            assert_eq!(datetime(&rfc3339(at_ms)), Ok(at_ms), "{}", rfc3339(at_ms));
        }
    }
}
