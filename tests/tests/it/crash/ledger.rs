//! What clients were told, and what that makes of what they are told later. Pure.

use std::collections::BTreeMap;

/// A number's record that was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Acknowledged {
    pub(super) offset: i64,
    /// When it was sent, on the test's own clock: the record's timestamp is not older.
    pub(super) sent_ms: u64,
}

/// How much a topic keeps at least; `None` is everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keeps {
    Everything,
    /// The newest records, as many as these.
    Newest(i64),
    /// What is younger.
    Younger {
        than_ms: u64,
    },
}

/// What a look at a partition found.
#[derive(Debug, Clone, Default)]
pub(super) struct Found {
    /// Records by offset, as they were read one after the other.
    pub(super) records: Vec<(i64, u64)>,
    /// The log's start after everything was read: retention goes on meanwhile.
    pub(super) start: i64,
    /// The log's end before anything was read.
    pub(super) end: i64,
    /// The log's end after [`Self::start`] was seen: what retention may have counted from.
    pub(super) end_after: i64,
    /// When this was seen, on the clock of [`Acknowledged::sent_ms`].
    pub(super) seen_ms: u64,
}

/// One partition: what was acknowledged of it, and what was seen of it.
#[derive(Debug, Clone)]
pub(super) struct PartitionLedger {
    keeps: Keeps,
    acknowledged: BTreeMap<u64, Acknowledged>,
    seen: BTreeMap<i64, u64>,
    start: i64,
    end: i64,
}

impl PartitionLedger {
    pub(super) fn new(keeps: Keeps) -> Self {
        let (acknowledged, seen) = (BTreeMap::new(), BTreeMap::new());
        Self { keeps, acknowledged, seen, start: 0, end: 0 }
    }

    pub(super) fn acknowledge(&mut self, number: u64, acknowledged: Acknowledged) {
        self.acknowledged.insert(number, acknowledged);
    }

    pub(super) fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    /// Where the log was last seen to start.
    pub(super) fn start(&self) -> i64 {
        self.start
    }

    /// Takes in that a consumer got this.
    pub(super) fn see(&mut self, offset: i64, number: u64) -> Result<(), String> {
        match self.seen.insert(offset, number) {
            Some(before) if before != number => {
                Err(format!("{before} was seen at offset {offset}, and now it is {number}"))
            }
            _ => Ok(()),
        }
    }

    /// Holds what was found against `told`, which is this ledger as of before the look.
    pub(super) fn check(&mut self, told: &Self, found: &Found) -> Result<(), String> {
        if found.start < self.start {
            return Err(format!("the log's start went back from {} to {}", self.start, found.start));
        }
        if found.end < self.end {
            return Err(format!("the log's end went back from {} to {}", self.end, found.end));
        }
        (self.start, self.end) = (found.start, found.end.max(found.start));
        for pair in found.records.windows(2) {
            let [(before, low), (after, high)] = [pair[0], pair[1]];
            if low >= high || before >= after {
                return Err(format!("{low} at {before} is followed by {high} at {after}"));
            }
        }
        for (offset, number) in &found.records {
            self.see(*offset, *number)?;
        }
        let by_offset: BTreeMap<i64, u64> = found.records.iter().copied().collect();
        for (offset, number) in told.seen.range(found.start..found.end.max(found.start)) {
            if by_offset.get(offset) != Some(number) {
                return Err(format!("{number} was seen at offset {offset} and is gone"));
            }
        }
        for (number, record) in &told.acknowledged {
            if record.offset < found.start {
                self.check_gone(*number, *record, found)?;
            } else if by_offset.get(&record.offset) != Some(number) {
                let there = by_offset.get(&record.offset);
                return Err(format!(
                    "acknowledged {number} is not at offset {} but {there:?}; the log is {} to {}",
                    record.offset, found.start, found.end
                ));
            }
        }
        Ok(())
    }

    /// Only what is old, or has enough behind it, may be gone.
    fn check_gone(&self, number: u64, record: Acknowledged, found: &Found) -> Result<(), String> {
        let behind = found.end_after - record.offset;
        let age_ms = found.seen_ms.saturating_sub(record.sent_ms);
        let may_go = match self.keeps {
            Keeps::Everything => false,
            Keeps::Newest(count) => behind > count,
            Keeps::Younger { than_ms } => age_ms >= than_ms,
        };
        if may_go {
            return Ok(());
        }
        Err(format!(
            "retention took {number} at offset {}, {age_ms} ms old and with {behind} to the log's end: {:?}",
            record.offset, self.keeps
        ))
    }
}

/// A topic that was created anew has nothing of the one before. Numbers tell whose they are.
pub(super) fn only_of_generation(found: &Found, generation: u64, numbers: u64) -> Result<(), String> {
    match found.records.iter().find(|(_, number)| number / numbers != generation) {
        None => Ok(()),
        Some((offset, number)) => {
            Err(format!("{number} at offset {offset} is not of the topic's generation {generation}"))
        }
    }
}

/// The committed offset of a group for one partition, by a committer that waits for each answer and only goes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Commits {
    pub(super) acknowledged: i64,
    pub(super) sent: i64,
}

/// No commit.
pub(super) const NONE: i64 = -1;

impl Default for Commits {
    fn default() -> Self {
        Self { acknowledged: NONE, sent: NONE }
    }
}

impl Commits {
    /// The next value: takes in that it is sent.
    pub(super) fn send(&mut self, offset: i64) {
        self.sent = self.sent.max(offset);
    }

    pub(super) fn acknowledge(&mut self, offset: i64) {
        self.acknowledged = offset;
    }

    /// Holds what was found between `before` and `self`, the ledger after the answer, against them.
    pub(super) fn check(&self, before: Self, found: Option<i64>) -> Result<(), String> {
        let found = found.unwrap_or(NONE);
        if found < before.acknowledged {
            return Err(format!("the committed offset {found} is behind {}", before.acknowledged));
        }
        if found > self.sent {
            return Err(format!("the committed offset {found} is beyond {}, the last one sent", self.sent));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers 0 to 9 at offsets 0 to 9, sent at 0, 100, ... ms.
    fn told(keeps: Keeps) -> PartitionLedger {
        let mut ledger = PartitionLedger::new(keeps);
        for number in 0..10 {
            let (offset, sent_ms) = (i64::try_from(number).unwrap(), number * 100);
            ledger.acknowledge(number, Acknowledged { offset, sent_ms });
        }
        ledger
    }

    fn found(start: i64) -> Found {
        let records = (start..10).map(|offset| (offset, u64::try_from(offset).unwrap())).collect();
        Found { records, start, end: 10, end_after: 10, seen_ms: 1_000 }
    }

    fn check(keeps: Keeps, found: &Found) -> Result<(), String> {
        let told = told(keeps);
        told.clone().check(&told, found)
    }

    fn wrong(keeps: Keeps, found: &Found, what: &str) {
        let said = check(keeps, found).unwrap_err();
        assert!(said.contains(what), "{said}");
    }

    #[test]
    fn what_is_as_it_was_told_is_right() {
        for keeps in [Keeps::Everything, Keeps::Newest(3), Keeps::Younger { than_ms: 500 }] {
            assert_eq!(check(keeps, &found(0)), Ok(()));
        }
        assert_eq!(check(Keeps::Newest(3), &found(7)), Ok(()));
        assert_eq!(check(Keeps::Younger { than_ms: 500 }, &found(6)), Ok(()));
        // Retention went on while it was read, and so did the writer.
        let ahead = Found { start: 7, ..found(2) };
        assert_eq!(check(Keeps::Newest(3), &ahead), Ok(()));
        let further = Found { start: 11, end_after: 14, ..found(2) };
        assert_eq!(check(Keeps::Newest(3), &further), Ok(()));
        // More than was acknowledged is fine.
        let mut more = found(0);
        (more.end, _) = (11, more.records.push((10, 12)));
        assert_eq!(check(Keeps::Everything, &more), Ok(()));
    }

    #[test]
    fn a_lost_record_is_found() {
        let mut lost = found(0);
        lost.records.remove(4);
        wrong(Keeps::Everything, &lost, "acknowledged 4 is not at offset 4 but None");
        let cut = Found { end: 9, records: found(0).records[..9].to_vec(), ..found(0) };
        wrong(Keeps::Everything, &cut, "acknowledged 9 is not at offset 9");
    }

    #[test]
    fn a_repeated_record_is_found() {
        let mut twice = found(0);
        (twice.end, _) = (11, twice.records.push((10, 9)));
        wrong(Keeps::Everything, &twice, "9 at 9 is followed by 9 at 10");
    }

    #[test]
    fn a_record_at_another_ones_offset_is_found() {
        let mut other = found(0);
        other.records[9].1 = 11;
        wrong(Keeps::Everything, &other, "acknowledged 9 is not at offset 9 but Some(11)");
    }

    #[test]
    fn retention_that_takes_too_much_is_found() {
        wrong(Keeps::Everything, &found(1), "retention took 0");
        wrong(Keeps::Newest(3), &found(8), "retention took 7");
        wrong(Keeps::Younger { than_ms: 500 }, &found(7), "retention took 6");
    }

    #[test]
    fn a_log_start_or_end_that_goes_back_is_found() {
        let told = told(Keeps::Newest(1));
        let mut ledger = told.clone();
        ledger.check(&told, &found(5)).unwrap();
        assert_eq!(ledger.start(), 5);
        assert!(ledger.clone().check(&told, &found(4)).unwrap_err().contains("start went back from 5 to 4"));
        let shorter = Found { end: 9, ..found(5) };
        assert!(ledger.check(&told, &shorter).unwrap_err().contains("end went back from 10 to 9"));
    }

    #[test]
    fn what_was_seen_and_is_gone_or_different_is_found() {
        let mut told = PartitionLedger::new(Keeps::Everything);
        told.see(3, 3).unwrap();
        let mut gone = found(0);
        gone.records.remove(3);
        assert!(told.clone().check(&told, &gone).unwrap_err().contains("3 was seen at offset 3 and is gone"));
        assert!(told.see(3, 4).unwrap_err().contains("3 was seen at offset 3, and now it is 4"));
    }

    #[test]
    fn a_record_of_the_topic_before_is_found() {
        let mut records = Found { records: vec![(0, 2_000), (1, 2_999)], ..Found::default() };
        only_of_generation(&records, 2, 1_000).unwrap();
        records.records.push((2, 1_999));
        let said = only_of_generation(&records, 2, 1_000).unwrap_err();
        assert_eq!(said, "1999 at offset 2 is not of the topic's generation 2");
    }

    #[test]
    fn commits_that_went_back_or_ahead_are_found() {
        let mut commits = Commits::default();
        commits.check(commits, None).unwrap();
        commits.send(1);
        commits.check(Commits::default(), Some(1)).unwrap();
        commits.acknowledge(1);
        commits.send(2);
        for fine in [1, 2] {
            commits.check(commits, Some(fine)).unwrap();
        }
        assert!(commits.check(commits, None).unwrap_err().contains("-1 is behind 1"));
        assert!(commits.check(commits, Some(0)).unwrap_err().contains("0 is behind 1"));
        assert!(commits.check(commits, Some(3)).unwrap_err().contains("3 is beyond 2"));
    }
}
