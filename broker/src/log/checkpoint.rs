//! Kafka's text checkpoints: a version line, a count line, then the entries. Parsing and printing only.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// File names in a log directory.
pub(crate) const RECOVERY_POINTS: &str = "recovery-point-offset-checkpoint";
pub(crate) const LOG_STARTS: &str = "log-start-offset-checkpoint";
pub(crate) const HIGH_WATERMARKS: &str = "replication-offset-checkpoint";
/// File name in a partition directory.
pub(crate) const LEADER_EPOCHS: &str = "leader-epoch-checkpoint";

const VERSION: &str = "0";

/// One offset for each partition: lines `topic partition offset`.
pub(crate) type Offsets = BTreeMap<(String, i32), i64>;

pub(crate) fn print_offsets(offsets: &Offsets) -> String {
    let mut text = format!("{VERSION}\n{}\n", offsets.len());
    for ((topic, partition), offset) in offsets {
        let _ = writeln!(text, "{topic} {partition} {offset}");
    }
    text
}

pub(crate) fn parse_offsets(text: &str) -> Option<Offsets> {
    entries(text)?
        .map(|line| {
            let mut words = line.split(' ');
            let key = (words.next()?.to_owned(), words.next()?.parse().ok()?);
            let offset = words.next()?.parse().ok()?;
            words.next().is_none().then_some((key, offset))
        })
        .collect()
}

/// The start offset of each leader epoch, ascending in both: lines `epoch offset`. With it one can tell to whose term
/// an offset belongs, and where a replica that diverged has to go back to (KIP-101).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct EpochCache {
    entries: Vec<(i32, i64)>,
}

impl EpochCache {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut cache = Self::default();
        for line in entries(text)? {
            let (epoch, offset) = line.split_once(' ')?;
            if !cache.assign(epoch.parse().ok()?, offset.parse().ok()?) {
                return None;
            }
        }
        Some(cache)
    }

    pub(crate) fn print(&self) -> String {
        let mut text = format!("{VERSION}\n{}\n", self.entries.len());
        for (epoch, offset) in &self.entries {
            let _ = writeln!(text, "{epoch} {offset}");
        }
        text
    }

    /// The newest epoch that has records.
    pub(crate) fn latest(&self) -> Option<i32> {
        self.entries.last().map(|(epoch, _)| *epoch)
    }

    /// Notes that `epoch` has a record at `offset`; says whether that is its first, and so an entry. Entries that
    /// cannot be true beside it give way: an epoch never begins above a later one.
    pub(crate) fn assign(&mut self, epoch: i32, offset: i64) -> bool {
        if epoch < 0 || self.latest().is_some_and(|latest| epoch <= latest) {
            return false;
        }
        while self.entries.last().is_some_and(|(_, start)| *start >= offset) {
            self.entries.pop();
        }
        self.entries.push((epoch, offset));
        true
    }

    /// The largest epoch that is at most `epoch`, and where it ends; -1 and -1 when there is none
    /// (`OffsetForLeaderEpoch`).
    pub(crate) fn end_offset_for(&self, epoch: i32, log_end_offset: i64) -> (i32, i64) {
        if self.latest() == Some(epoch) {
            return (epoch, log_end_offset);
        }
        let above = self.entries.partition_point(|(known, _)| *known <= epoch);
        match (above.checked_sub(1).map(|found| self.entries[found].0), self.entries.get(above)) {
            (Some(found), Some((_, end))) => (found, *end),
            (None, Some((_, end))) => (epoch, *end),
            _ => (-1, -1),
        }
    }

    /// Forgets what begins at or after `offset`; says whether anything did.
    pub(crate) fn truncate_end(&mut self, offset: i64) -> bool {
        let kept = self.entries.partition_point(|(_, start)| *start < offset);
        let changed = kept < self.entries.len();
        self.entries.truncate(kept);
        changed
    }

    /// Forgets what ended before `offset`; the epoch of the record at `offset` now begins there.
    pub(crate) fn truncate_start(&mut self, offset: i64) -> bool {
        let below = self.entries.partition_point(|(_, start)| *start <= offset);
        let before = self.entries.clone();
        if let Some(current) = below.checked_sub(1) {
            self.entries.drain(..current);
            self.entries[0].1 = offset;
        }
        before != self.entries
    }
}

/// The lines behind the version and the count, if both are right.
fn entries(text: &str) -> Option<std::str::Lines<'_>> {
    let mut lines = text.lines();
    let version = lines.next()?;
    let count: usize = lines.next()?.parse().ok()?;
    (version == VERSION && lines.clone().count() == count).then_some(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_print_as_kafka_does_and_read_back() {
        let offsets = [(("clicks".to_owned(), 0), 17), (("my.topic".to_owned(), 3), 0)];
        let text = print_offsets(&Offsets::from(offsets));
        assert_eq!(text, "0\n2\nclicks 0 17\nmy.topic 3 0\n");
        assert_eq!(parse_offsets(&text).unwrap()[&("clicks".to_owned(), 0)], 17);
        for broken in ["", "1\n0\n", "0\n2\na 0 1\n", "0\n1\na 0\n", "0\n1\na b 1\n", "0\n1\na 0 1 2\n"] {
            assert_eq!(parse_offsets(broken), None, "{broken:?}");
        }
    }

    #[test]
    fn epochs_know_where_they_end() {
        let mut cache = EpochCache::parse("0\n3\n0 0\n2 10\n5 40\n").unwrap();
        assert_eq!(cache.end_offset_for(0, 100), (0, 10));
        assert_eq!(cache.end_offset_for(1, 100), (0, 10));
        assert_eq!(cache.end_offset_for(3, 100), (2, 40));
        assert_eq!(cache.end_offset_for(5, 100), (5, 100));
        assert_eq!(cache.end_offset_for(6, 100), (-1, -1));
        assert!(!cache.assign(5, 50) && cache.assign(6, 60));
        assert!(cache.truncate_end(60) && cache.latest() == Some(5));
        assert!(cache.truncate_start(20));
        assert_eq!(cache.print(), "0\n2\n2 20\n5 40\n");
        assert_eq!(EpochCache::default().end_offset_for(0, 0), (-1, -1));
    }

    #[test]
    fn an_epoch_that_begins_lower_displaces_what_lies_above() {
        let mut cache = EpochCache::parse("0\n2\n0 0\n1 10\n").unwrap();
        assert!(cache.assign(2, 10));
        assert_eq!(cache.print(), "0\n2\n0 0\n2 10\n");
    }
}
