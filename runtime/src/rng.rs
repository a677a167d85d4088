//! Randomness, for jitter and sticky partitions; never for secrets.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// A source of random numbers that a test can seed.
pub trait Rng: Send + Sync + fmt::Debug + 'static {
    /// A uniformly distributed number.
    fn next_u64(&self) -> u64;

    /// Two of them in one, as ids need.
    fn next_u128(&self) -> u128 {
        u128::from(self.next_u64()) << 64 | u128::from(self.next_u64())
    }

    /// A number in `0..bound`; 0 when `bound` is 0.
    fn below(&self, bound: u64) -> u64 {
        // Multiply-shift: unbiased enough for bounds far below 2^64.
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }
}

/// SplitMix64: the same seed gives the same numbers.
#[derive(Debug)]
pub struct SeededRng {
    state: AtomicU64,
}

impl SeededRng {
    /// A generator that repeats for the same seed.
    pub fn new(seed: u64) -> Self {
        Self { state: AtomicU64::new(seed) }
    }

    /// A generator seeded by the operating system.
    pub fn from_os() -> Self {
        // `RandomState` draws its keys from the operating system.
        Self::new(RandomState::new().hash_one(0_u64))
    }
}

impl Rng for SeededRng {
    fn next_u64(&self) -> u64 {
        const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
        let mut z = self.state.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_bounds_hold() {
        let (a, b) = (SeededRng::new(7), SeededRng::new(7));
        for _ in 0..1_000 {
            assert_eq!(a.next_u64(), b.next_u64());
            assert!(a.below(10) < 10 && b.below(10) < 10);
        }
        assert_eq!(a.below(0), 0);
    }
}
