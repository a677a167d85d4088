//! By how much earlier than `segment.ms` a segment is closed: another part of `segment.jitter.ms` for each. Pure.

use std::path::Path;

/// From 0 up to the jitter, or up to the age itself where that is less. What it is for a segment does not change, and
/// those of other partitions have another: a hash of where the segment is.
pub(super) fn jitter_ms(dir: &Path, base_offset: i64, jitter_ms: i64, segment_ms: i64) -> i64 {
    let most = jitter_ms.min(segment_ms);
    if most <= 0 {
        return 0;
    }
    let bytes = dir.as_os_str().as_encoded_bytes();
    let hash =
        bytes.iter().chain(&base_offset.to_be_bytes()).fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3)
        });
    // FNV's high bits are the well mixed ones.
    ((hash >> 1) % most.unsigned_abs()) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_spread_over_the_jitter_and_each_keeps_its_own() {
        let of = |index: usize, base_offset| {
            jitter_ms(Path::new(&format!("/data/clicks-{index}")), base_offset, 1_000, 5_000)
        };
        let mut quarters = [0; 4];
        for index in 0..100 {
            for base_offset in [0, 1_000, 123_456] {
                let found = of(index, base_offset);
                assert!((0..1_000).contains(&found));
                assert_eq!(found, of(index, base_offset));
                quarters[found as usize / 250] += 1;
            }
        }
        assert!(quarters.iter().all(|count| (45..=105).contains(count)), "{quarters:?}");
        let dir = Path::new("/data/clicks-0");
        assert_eq!((jitter_ms(dir, 0, 0, 5_000), jitter_ms(dir, 0, -1, 5_000)), (0, 0));
        assert!((0..100).all(|base_offset| (0..7).contains(&jitter_ms(dir, base_offset, 1_000, 7))));
    }
}
