//! How fast compaction may read and write. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// The longest pause for one piece of work, however slow it is to be.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Spreads bytes over time.
#[derive(Debug)]
pub(crate) struct Pace {
    /// When what was done so far would be done at the pace.
    even_at: Instant,
}

impl Pace {
    pub(crate) fn new(now: Instant) -> Self {
        Self { even_at: now }
    }

    /// So many bytes were read and written; gives how long to wait before the next ones. Time in which nothing was done
    /// is not made up for.
    pub(crate) fn pause_after(&mut self, bytes: u64, bytes_per_second: f64, now: Instant) -> Duration {
        let seconds = (bytes as f64 / bytes_per_second).clamp(0.0, PAUSE_MAX.as_secs_f64());
        self.even_at = self.even_at.max(now) + Duration::try_from_secs_f64(seconds).unwrap_or(PAUSE_MAX);
        self.even_at - now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_take_their_time() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let ms = Duration::from_millis;
        assert_eq!(pace.pause_after(500, 1_000.0, start), ms(500));
        assert_eq!(pace.pause_after(500, 1_000.0, start + ms(200)), ms(800), "behind what goes before");
        assert_eq!(pace.pause_after(100, 1_000.0, start + ms(5_000)), ms(100), "nothing is made up for");
        assert_eq!(pace.pause_after(1 << 40, f64::MAX, start + ms(9_000)), ms(0));
        assert_eq!(pace.pause_after(1 << 40, 1e-9, start + ms(9_000)), PAUSE_MAX);
    }
}
