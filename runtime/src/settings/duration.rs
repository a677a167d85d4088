//! Durations as ISO 8601 writes them, which Kafka takes in settings and on the command line.

use std::time::Duration;

/// A duration like `P1DT2H3M4.5S`: days, hours, minutes and seconds, each at most once and in this order.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (days, time) = match text.strip_prefix('P')?.split_once('T') {
        Some((days, time)) if !time.is_empty() => (days, time),
        Some(_) => return None,
        None => (text.strip_prefix('P')?, ""),
    };
    if days.is_empty() && time.is_empty() {
        return None;
    }
    let mut total = Duration::ZERO;
    for (mut rest, units) in [(days, &[('D', 86_400)][..]), (time, &[('H', 3_600), ('M', 60), ('S', 1)][..])]
    {
        for &(unit, seconds) in units {
            let Some((number, behind)) = rest.split_once(unit) else { continue };
            let exact = number.parse::<u32>().ok().map(|count| Duration::from_secs(seconds) * count);
            let fraction = || Duration::try_from_secs_f64(number.parse().ok()?).ok();
            let part = if unit == 'S' { exact.or_else(fraction) } else { exact };
            total = total.checked_add(part?)?;
            rest = behind;
        }
        if !rest.is_empty() {
            return None;
        }
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_once_and_in_order() {
        for (text, seconds) in [
            ("P1D", 86_400.0),
            ("PT1H30M", 5_400.0),
            ("P1DT2H3M4.5S", 93_784.5),
            ("PT0S", 0.0),
            ("PT0.25S", 0.25),
            ("P2DT1M", 172_860.0),
        ] {
            assert_eq!(parse_duration(text), Some(Duration::from_secs_f64(seconds)), "{text}");
        }
        for text in [
            "", "P", "PT", "P1", "1D", "PT1D", "P1H", "PT1M1H", "PT1S1S", "PT-1S", "P-1D", "PT1,5S", "PTS",
            "P1DT", "PTinfS", "P1.5D",
        ] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
