//! Whether a log is to be compacted, and how much of it. Pure.

use super::groups::ClosedSegment;

/// What is known of a log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogState<'a> {
    /// Its segments but for the one that is appended to, in order.
    pub(crate) segments: &'a [ClosedSegment],
    /// Where it starts and ends.
    pub(crate) start_offset: i64,
    pub(crate) end_offset: i64,
    /// Up to here it was compacted, if it ever was.
    pub(crate) cleaned_to: Option<i64>,
    /// Below, everything is durable, visible and decided.
    pub(crate) stable_to: i64,
}

/// What its topic says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WhenToClean {
    /// `min.cleanable.dirty.ratio`.
    pub(crate) min_dirty_ratio: f64,
    /// `min.compaction.lag.ms`.
    pub(crate) min_lag_ms: i64,
    /// `max.compaction.lag.ms`.
    pub(crate) max_lag_ms: i64,
}

/// What could be compacted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Candidate {
    /// Everything below was compacted before.
    pub(crate) first_dirty: i64,
    /// The first offset that stays as it is.
    pub(crate) end: i64,
    /// How much of what is compacted then was not before, from 0 to 1.
    pub(crate) dirty_ratio: f64,
    /// A record has been waiting for longer than it may.
    pub(crate) overdue: bool,
}

impl LogState<'_> {
    /// From where on the log was never compacted. What is written down may be of a log that was there before.
    pub(crate) fn first_dirty(&self) -> i64 {
        let known = self.cleaned_to.filter(|offset| *offset <= self.end_offset);
        known.map_or(self.start_offset, |offset| offset.max(self.start_offset))
    }

    /// What could be compacted now. `earliest_ms` is the oldest first timestamp of those segments that are not, if one
    /// is known.
    pub(crate) fn candidate(
        &self,
        when: WhenToClean,
        earliest_ms: Option<i64>,
        now_ms: i64,
    ) -> Option<Candidate> {
        let first_dirty = self.first_dirty();
        let is_dirty = |segment: &&ClosedSegment| segment.end_offset > first_dirty;
        let may = |segment: &&ClosedSegment| {
            let old_enough =
                when.min_lag_ms <= 0 || segment.max_timestamp <= now_ms.saturating_sub(when.min_lag_ms);
            segment.end_offset <= self.stable_to && old_enough
        };
        let dirty = self.segments.iter().filter(is_dirty).take_while(may);
        let (mut dirty_bytes, mut end) = (0, first_dirty);
        for segment in dirty {
            dirty_bytes += segment.size_bytes;
            end = segment.end_offset;
        }
        let clean = self.segments.iter().filter(|segment| segment.end_offset <= first_dirty);
        let clean_bytes: u64 = clean.map(|segment| segment.size_bytes).sum();
        let overdue = earliest_ms.is_some_and(|earliest| now_ms.saturating_sub(when.max_lag_ms) > earliest);
        let dirty_ratio = dirty_bytes as f64 / (clean_bytes + dirty_bytes) as f64;
        (dirty_bytes > 0).then_some(Candidate { first_dirty, end, dirty_ratio, overdue })
    }
}

impl Candidate {
    /// Whether it is worth it, or has to be.
    pub(crate) fn is_due(&self, when: WhenToClean) -> bool {
        self.overdue || self.dirty_ratio > when.min_dirty_ratio
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHEN: WhenToClean = WhenToClean { min_dirty_ratio: 0.5, min_lag_ms: 0, max_lag_ms: i64::MAX };

    /// Four segments of ten offsets, whose youngest records are of 100, 200, 300 and 400 ms.
    fn segments() -> Vec<ClosedSegment> {
        let segment = |at: i64| ClosedSegment {
            base_offset: 10 * at,
            end_offset: 10 * at + 10,
            size_bytes: 1_000,
            index_bytes: 8,
            max_timestamp: 100 * at + 100,
        };
        (0..4).map(segment).collect()
    }

    fn found(cleaned_to: Option<i64>, stable_to: i64, when: WhenToClean) -> Option<(i64, i64, f64)> {
        let segments = segments();
        let state = LogState { segments: &segments, start_offset: 0, end_offset: 45, cleaned_to, stable_to };
        let found = state.candidate(when, None, 1_000)?;
        Some((found.first_dirty, found.end, found.dirty_ratio))
    }

    #[test]
    fn whole_segments_that_are_decided_are_compacted() {
        assert_eq!(found(None, 45, WHEN), Some((0, 40, 1.0)));
        assert_eq!(found(Some(20), 45, WHEN), Some((20, 40, 0.5)));
        assert_eq!(found(Some(25), 45, WHEN), Some((25, 40, 0.5)), "the map was full within a segment");
        assert_eq!(found(Some(30), 40, WHEN), Some((30, 40, 0.25)));
        assert_eq!(found(Some(30), 39, WHEN), None);
        assert_eq!(found(None, 39, WHEN), Some((0, 30, 1.0)));
        assert_eq!(found(Some(40), 45, WHEN), None, "nothing is new");
        assert_eq!(found(Some(45), 45, WHEN), None);
        assert_eq!(found(Some(46), 45, WHEN), Some((0, 40, 1.0)), "of another log");
    }

    #[test]
    fn what_retention_took_is_not_dirty() {
        let segments = segments();
        let log = |start_offset, cleaned_to| LogState {
            segments: &segments[2..],
            start_offset,
            end_offset: 45,
            cleaned_to,
            stable_to: 45,
        };
        assert_eq!(log(20, Some(10)).first_dirty(), 20);
        assert_eq!(log(24, None).first_dirty(), 24);
        assert_eq!(log(20, Some(30)).candidate(WHEN, None, 0).unwrap().dirty_ratio, 0.5);
        let none = LogState { segments: &[], ..log(0, None) };
        assert_eq!(none.candidate(WHEN, Some(0), i64::MAX), None);
    }

    #[test]
    fn young_records_wait() {
        let lag = |min_lag_ms| WhenToClean { min_lag_ms, ..WHEN };
        assert_eq!(found(None, 45, lag(600)), Some((0, 40, 1.0)));
        assert_eq!(found(None, 45, lag(601)), Some((0, 30, 1.0)));
        assert_eq!(found(None, 45, lag(900)), Some((0, 10, 1.0)));
        assert_eq!(found(None, 45, lag(901)), None);
        assert_eq!(found(Some(10), 45, lag(900)), None);
    }

    #[test]
    fn it_is_due_when_there_is_enough_or_something_has_waited_for_too_long() {
        let segments = segments();
        let state = LogState {
            segments: &segments,
            start_offset: 0,
            end_offset: 45,
            cleaned_to: Some(20),
            stable_to: 45,
        };
        let due =
            |when: WhenToClean, earliest_ms| state.candidate(when, earliest_ms, 1_000).unwrap().is_due(when);
        let ratio = |min_dirty_ratio| WhenToClean { min_dirty_ratio, ..WHEN };
        assert!(!due(ratio(0.5), Some(300)));
        assert!(due(ratio(0.49), None));
        let max = |max_lag_ms| WhenToClean { max_lag_ms, ..WHEN };
        assert!(!due(max(700), Some(300)), "at the moment");
        assert!(due(max(699), Some(300)), "one later");
        assert!(!due(max(1), None));
    }
}
