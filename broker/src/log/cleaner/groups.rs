//! Which segments become one when a log is compacted. Pure.

use std::ops::Range;

/// A segment that nothing is appended to any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClosedSegment {
    pub(crate) base_offset: i64,
    /// Where the next one begins.
    pub(crate) end_offset: i64,
    pub(crate) size_bytes: u64,
    /// Of the larger one of its two indexes.
    pub(crate) index_bytes: u64,
    /// The largest timestamp, or -1.
    pub(crate) max_timestamp: i64,
}

/// How large a segment may become.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SegmentLimits {
    pub(crate) size_bytes: u64,
    pub(crate) index_bytes: u64,
}

/// Segments that follow each other, as many to a group as are one segment even if nothing of them goes: within the
/// limits, and with offsets that an index can tell apart.
pub(crate) fn grouped(segments: &[ClosedSegment], limits: SegmentLimits) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    let (mut size_bytes, mut index_bytes, mut base_offset) = (0_u64, 0_u64, 0);
    for (number, segment) in segments.iter().enumerate() {
        size_bytes = size_bytes.saturating_add(segment.size_bytes);
        index_bytes = index_bytes.saturating_add(segment.index_bytes);
        let fits = size_bytes <= limits.size_bytes
            && index_bytes <= limits.index_bytes
            && segment.end_offset.saturating_sub(base_offset) <= i64::from(i32::MAX);
        match groups.last_mut().filter(|_| fits) {
            Some(group) => group.end = number + 1,
            None => {
                groups.push(number..number + 1);
                (size_bytes, index_bytes) = (segment.size_bytes, segment.index_bytes);
                base_offset = segment.base_offset;
            }
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use klamm_runtime::{Rng, SeededRng};

    use super::*;

    fn segment(base_offset: i64, end_offset: i64, size_bytes: u64, index_bytes: u64) -> ClosedSegment {
        ClosedSegment { base_offset, end_offset, size_bytes, index_bytes, max_timestamp: -1 }
    }

    const LIMITS: SegmentLimits = SegmentLimits { size_bytes: 100, index_bytes: 20 };

    #[test]
    fn a_group_is_no_larger_than_a_segment() {
        let of = |sizes: &[(u64, u64)]| {
            let segments: Vec<_> = sizes
                .iter()
                .enumerate()
                .map(|(at, (size, index))| segment(at as i64, at as i64 + 1, *size, *index))
                .collect();
            grouped(&segments, LIMITS)
        };
        assert_eq!(of(&[]), []);
        assert_eq!(of(&[(50, 1), (50, 1), (1, 1)]), [0..2, 2..3]);
        assert_eq!(of(&[(50, 1), (51, 1), (49, 1)]), [0..1, 1..3]);
        assert_eq!(of(&[(1, 10), (1, 10), (1, 1)]), [0..2, 2..3], "the index");
        assert_eq!(of(&[(500, 1), (0, 1), (100, 50)]), [0..1, 1..2, 2..3], "one that is too large is one");
    }

    #[test]
    fn offsets_of_a_group_fit_into_31_bits() {
        let most = i64::from(i32::MAX);
        let two = |end| grouped(&[segment(10, 20, 1, 1), segment(20, end, 1, 1)], LIMITS).len();
        assert_eq!((two(10 + most), two(11 + most)), (1, 2));
    }

    #[test]
    fn every_segment_is_in_one_group_and_no_two_neighbours_would_be_one() {
        for seed in 0..500 {
            let rng = SeededRng::new(seed);
            let mut base = 0;
            let segments: Vec<_> = (0..rng.below(30))
                .map(|_| {
                    let end = base + 1 + rng.below(1 << 30) as i64;
                    let made = segment(base, end, rng.below(60), rng.below(12));
                    base = end;
                    made
                })
                .collect();
            let groups = grouped(&segments, LIMITS);
            let all: Vec<usize> = groups.iter().cloned().flatten().collect();
            assert_eq!(all, (0..segments.len()).collect::<Vec<_>>(), "seed {seed}");
            let fits = |range: Range<usize>| {
                let group = &segments[range];
                group.iter().map(|segment| segment.size_bytes).sum::<u64>() <= LIMITS.size_bytes
                    && group.iter().map(|segment| segment.index_bytes).sum::<u64>() <= LIMITS.index_bytes
                    && group[group.len() - 1].end_offset - group[0].base_offset <= i64::from(i32::MAX)
            };
            assert!(groups.iter().all(|group| group.len() == 1 || fits(group.clone())), "seed {seed}");
            let greedy = |pair: &[Range<usize>]| !fits(pair[0].start..pair[1].start + 1);
            assert!(groups.windows(2).all(greedy), "seed {seed}");
        }
    }
}
