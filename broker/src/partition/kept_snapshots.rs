//! Which snapshots of the producers are on the disk, which may go, and how far retention may rely on them. Pure.
//!
//! A snapshot may speak of records that a power cut takes away; then it is worth nothing. So two are kept: the newest,
//! and the newest that speaks of synced records alone. Those at a segment's start stay with the segment.

/// After so many snapshots for which there was no space, retention does not wait for one.
const IN_VAIN: u32 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kept {
    /// It speaks of everything below.
    offset: i64,
    /// It lies where a segment begins, and stays as long as that.
    at_segment: bool,
}

/// The snapshots that count, in the order of their offsets.
#[derive(Debug, Default)]
pub(super) struct KeptSnapshots {
    kept: Vec<Kept>,
    /// How many in a row there was no space for.
    without_space: u32,
}

impl KeptSnapshots {
    /// What a start found; the rest is removed by then, or lies at a segment's start.
    pub(super) fn found(offset: Option<i64>, at_segment: bool) -> Self {
        Self {
            kept: offset.map(|offset| Kept { offset, at_segment }).into_iter().collect(),
            without_space: 0,
        }
    }

    /// The newest.
    pub(super) fn newest(&self) -> Option<i64> {
        self.kept.last().map(|kept| kept.offset)
    }

    /// Whether the one of this offset counts.
    pub(super) fn relies_on(&self, offset: i64) -> bool {
        self.kept.iter().any(|kept| kept.offset == offset)
    }

    /// One is on the disk. Gives those that are needed no more and lie at no segment's start; below `synced` everything
    /// was synced.
    pub(super) fn written(&mut self, offset: i64, at_segment: bool, synced: i64) -> Vec<i64> {
        self.without_space = 0;
        self.kept.retain(|kept| kept.offset != offset);
        let place = self.kept.partition_point(|kept| kept.offset < offset);
        self.kept.insert(place, Kept { offset, at_segment });
        let reliable = self.kept.partition_point(|kept| kept.offset <= synced).saturating_sub(1);
        let newest = self.kept.len() - 1;
        let mut obsolete = Vec::new();
        let mut number = 0;
        self.kept.retain(|kept| {
            let (older, between) = (number < reliable, reliable < number && number < newest);
            number += 1;
            let removed = (older || between) && !kept.at_segment;
            if removed {
                obsolete.push(kept.offset);
            }
            !older && !removed
        });
        obsolete
    }

    /// There was no space for one.
    pub(super) fn without_space(&mut self) {
        self.without_space = self.without_space.saturating_add(1);
    }

    /// The log ends here now.
    pub(super) fn truncated(&mut self, end: i64) {
        self.kept.retain(|kept| kept.offset <= end);
    }

    /// How far retention may go where there are producers: what they sent has to be known when it is gone. But space
    /// comes first, or there would never be any for a snapshot.
    pub(super) fn deletable_end(&self, synced: i64, visible: i64) -> i64 {
        if self.without_space >= IN_VAIN {
            return visible;
        }
        let reliable = self.kept.iter().rev().find(|kept| kept.offset <= synced);
        reliable.map_or(i64::MIN, |kept| kept.offset.min(visible))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use klamm_runtime::{Rng, SeededRng};

    use super::*;

    #[test]
    fn the_newest_of_what_was_synced_stays_until_a_later_one_is() {
        let mut snapshots = KeptSnapshots::default();
        assert_eq!((snapshots.newest(), snapshots.deletable_end(50, 50)), (None, i64::MIN));
        assert!(snapshots.written(10, false, 10).is_empty());
        assert_eq!(snapshots.deletable_end(10, 10), 10);
        assert!(snapshots.written(20, false, 19).is_empty(), "a power cut may take 19 away");
        assert_eq!((snapshots.newest(), snapshots.deletable_end(19, 30)), (Some(20), 10));
        assert_eq!((snapshots.deletable_end(20, 30), snapshots.deletable_end(20, 15)), (20, 15));
        assert_eq!(snapshots.written(30, false, 20), [10]);
        assert_eq!(snapshots.written(40, true, 40), [20, 30]);
        assert!(snapshots.written(50, false, 45).is_empty(), "40 lies at a segment's start");
        assert_eq!(snapshots.written(55, false, 45), [50], "neither the newest nor reliable");
        assert_eq!(snapshots.written(50, false, 55), [50], "written late");
        assert_eq!(snapshots.written(55, true, 55), [] as [i64; 0], "a segment was begun there since");
        assert!(snapshots.written(60, false, 60).is_empty());
    }

    #[test]
    fn what_speaks_of_lost_records_is_forgotten() {
        let mut snapshots = KeptSnapshots::found(Some(10), false);
        snapshots.written(20, false, 10);
        snapshots.truncated(20);
        assert_eq!(snapshots.newest(), Some(20));
        snapshots.truncated(19);
        assert_eq!((snapshots.newest(), snapshots.deletable_end(19, 19)), (Some(10), 10));
        assert_eq!(KeptSnapshots::found(None, true).newest(), None);
        assert_eq!(KeptSnapshots::found(Some(10), true).written(20, false, 20), [] as [i64; 0]);
    }

    #[test]
    fn retention_does_not_wait_for_ever_for_space() {
        let mut snapshots = KeptSnapshots::default();
        snapshots.written(10, true, 10);
        snapshots.without_space();
        assert_eq!(snapshots.deletable_end(30, 40), 10);
        snapshots.without_space();
        assert_eq!(snapshots.deletable_end(30, 40), 40);
        snapshots.written(20, true, 20);
        assert_eq!(snapshots.deletable_end(30, 40), 20);
    }

    /// Whatever a power cut leaves of the records, a snapshot that was relied on is still there.
    #[test]
    fn a_power_cut_never_takes_what_retention_relied_on() {
        for seed in 0..500 {
            let rng = SeededRng::new(seed);
            let mut snapshots = KeptSnapshots::default();
            let mut on_disk = BTreeSet::new();
            let (mut end, mut synced, mut relied_on) = (0, 0, i64::MIN);
            for _ in 0..100 {
                end += (rng.next_u64() % 5) as i64;
                synced += (rng.next_u64() % 6) as i64;
                synced = synced.min(end);
                if rng.next_u64().is_multiple_of(2) {
                    on_disk.insert(end);
                    for obsolete in snapshots.written(end, rng.next_u64().is_multiple_of(4), synced) {
                        assert!(on_disk.remove(&obsolete), "seed {seed}");
                    }
                }
                relied_on = relied_on.max(snapshots.deletable_end(synced, synced));
                let left = on_disk.range(..=synced).next_back().copied().unwrap_or(i64::MIN);
                assert!(left >= relied_on, "seed {seed}: {left} is left of {relied_on}");
                let passing = snapshots.kept.iter().filter(|kept| !kept.at_segment);
                assert!(passing.count() <= 2, "seed {seed}");
            }
        }
    }
}
