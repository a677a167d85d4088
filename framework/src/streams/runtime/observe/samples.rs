//! Some of many observations. Pure.

/// Kept between two looks.
const MOST: usize = 128;

/// Observations since the last look: all of them while they are few, then evenly spread ones.
#[derive(Debug, Default)]
pub(super) struct Samples {
    kept: Vec<f64>,
    seen: u64,
    /// Every so many is kept; a power of two.
    stride_bits: u32,
}

impl Samples {
    pub(super) fn add(&mut self, value: f64) {
        let is_kept = self.seen.trailing_zeros() >= self.stride_bits;
        self.seen += 1;
        if !is_kept {
            return;
        }
        if self.kept.len() == MOST {
            // Those that would have been kept with twice the stride.
            let mut index = 0;
            self.kept.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.stride_bits += 1;
            if (self.seen - 1).trailing_zeros() < self.stride_bits {
                return;
            }
        }
        self.kept.push(value);
    }

    /// Gives what is kept, and begins again.
    pub(super) fn take(&mut self) -> Vec<f64> {
        let kept = self.kept.clone();
        self.kept.clear();
        (self.seen, self.stride_bits) = (0, 0);
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_are_all_kept_and_many_evenly() {
        for count in [0, 1, 5, MOST, MOST + 1, 1_000, 100_000] {
            let mut samples = Samples::default();
            (0..count).for_each(|value| samples.add(value as f64));
            let kept = samples.take();
            if count <= MOST {
                assert_eq!(kept.len(), count);
            } else {
                assert!((MOST / 2..=MOST).contains(&kept.len()), "{} of {count}", kept.len());
            }
            let steps: Vec<f64> = kept.windows(2).map(|pair| pair[1] - pair[0]).collect();
            assert!(steps.windows(2).all(|pair| pair[0] == pair[1]), "of {count}: {steps:?}");
            assert_eq!(kept.first().copied(), (count > 0).then_some(0.0));
            samples.add(7.0);
            assert_eq!(samples.take(), [7.0], "it begins again");
        }
    }
}
