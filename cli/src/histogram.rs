//! Counts durations so that percentiles come out within 1 %, in fixed memory.

use std::time::Duration;

use serde_json::{Value, json};

/// Buckets in each power of two: a value is known to 1 part in 128.
const STEPS: u64 = 128;
const STEPS_LOG2: u32 = STEPS.trailing_zeros();
/// Microseconds up to 2^42, which is 50 days.
const BUCKETS: usize = (42 - STEPS_LOG2 as usize + 1) * STEPS as usize;

/// Durations by size.
#[derive(Debug, Clone)]
pub(crate) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    longest: Duration,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: vec![0; BUCKETS], count: 0, longest: Duration::ZERO }
    }
}

impl Histogram {
    pub(crate) fn record(&mut self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.buckets[bucket_of(micros).min(BUCKETS - 1)] += 1;
        self.count += 1;
        self.longest = self.longest.max(duration);
    }

    /// The duration that `percent` of all do not exceed, in milliseconds; 0 when there are none.
    pub(crate) fn percentile_ms(&self, percent: f64) -> f64 {
        let rank = (self.count as f64 * percent / 100.0).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank && *count > 0 {
                let longest_micros = self.longest.as_micros() as f64;
                return (largest_of(bucket) as f64).min(longest_micros) / 1_000.0;
            }
        }
        0.0
    }

    pub(crate) fn max_ms(&self) -> f64 {
        self.longest.as_micros() as f64 / 1_000.0
    }

    pub(crate) fn as_json(&self) -> Value {
        json!({
            "p50": self.percentile_ms(50.0), "p95": self.percentile_ms(95.0), "p99": self.percentile_ms(99.0),
            "p99_9": self.percentile_ms(99.9), "max": self.max_ms(),
        })
    }

    pub(crate) fn as_text(&self) -> String {
        format!(
            "p50 {:.2} ms, p95 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, max {:.2} ms",
            self.percentile_ms(50.0),
            self.percentile_ms(95.0),
            self.percentile_ms(99.0),
            self.percentile_ms(99.9),
            self.max_ms()
        )
    }
}

/// Values below [`STEPS`] have a bucket each; above, every power of two is cut into [`STEPS`] equal ones.
fn bucket_of(micros: u64) -> usize {
    if micros < STEPS {
        return micros as usize;
    }
    let power = micros.ilog2() - STEPS_LOG2;
    let step = (micros >> power) - STEPS;
    ((u64::from(power) + 1) * STEPS + step) as usize
}

fn largest_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < STEPS {
        return bucket;
    }
    let power = bucket / STEPS - 1;
    let step = bucket % STEPS;
    ((STEPS + step + 1) << power) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_falls_into_the_bucket_that_ends_at_or_just_above_it() {
        for micros in (0..5_000).chain([1 << 20, (1 << 20) + 12_345, (1 << 41) + 7]) {
            let largest = largest_of(bucket_of(micros));
            assert!(largest >= micros && largest as f64 <= micros as f64 * 1.01 + 1.0, "{micros} {largest}");
            assert!(bucket_of(micros) == 0 || largest_of(bucket_of(micros) - 1) < micros, "{micros}");
        }
    }

    #[test]
    fn percentiles_of_one_to_a_thousand_milliseconds() {
        let mut histogram = Histogram::default();
        for ms in 1..=1_000 {
            histogram.record(Duration::from_millis(ms));
        }
        for (percent, expected) in [(50.0, 500.0), (95.0, 950.0), (99.0, 990.0), (100.0, 1_000.0)] {
            let found = histogram.percentile_ms(percent);
            assert!((found - expected).abs() <= expected * 0.01, "{percent}: {found}");
        }
        assert_eq!(histogram.max_ms(), 1_000.0);
    }

    #[test]
    fn nothing_and_too_much() {
        assert_eq!(Histogram::default().percentile_ms(99.0), 0.0);
        let mut histogram = Histogram::default();
        histogram.record(Duration::from_secs(u64::MAX));
        assert!(histogram.percentile_ms(50.0) > 0.0);
    }
}
