//! What a reader says that it reads, against what it has to read: each record once, in order. Pure.

use std::collections::BTreeMap;

/// How far a reader is in each partition.
#[derive(Debug)]
pub(super) struct Reading {
    /// The offsets of the records, by partition.
    expected: BTreeMap<i32, Vec<i64>>,
    /// How many of them were read.
    read: BTreeMap<i32, usize>,
    /// Partitions that may begin again, once: a member that joined again goes back to what was committed.
    may_go_back: BTreeMap<i32, bool>,
    pub(super) gone_back: usize,
}

impl Reading {
    pub(super) fn new(expected: BTreeMap<i32, Vec<i64>>) -> Self {
        let read = expected.keys().map(|partition| (*partition, 0)).collect();
        let may_go_back = expected.keys().map(|partition| (*partition, false)).collect();
        Self { expected, read, may_go_back, gone_back: 0 }
    }

    /// Takes a line: `record PARTITION OFFSET` or `joined`; others say nothing about records.
    ///
    /// # Errors
    /// Another record comes next.
    pub(super) fn line(&mut self, line: &str) -> Result<(), String> {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["joined"] => self.may_go_back.values_mut().for_each(|may| *may = true),
            ["record", partition, offset] => {
                let number = |_| format!("{line} is no record");
                self.record(partition.parse().map_err(number)?, offset.parse().map_err(number)?)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn record(&mut self, partition: i32, offset: i64) -> Result<(), String> {
        let (Some(expected), Some(read), Some(may_go_back)) = (
            self.expected.get(&partition),
            self.read.get_mut(&partition),
            self.may_go_back.get_mut(&partition),
        ) else {
            return Err(format!("nothing was written to partition {partition}"));
        };
        let back = expected[..*read].iter().position(|before| *before == offset);
        match back {
            Some(before) if *may_go_back => {
                (*read, self.gone_back) = (before + 1, self.gone_back + 1);
            }
            _ if expected.get(*read) == Some(&offset) => *read += 1,
            _ => {
                let next = expected.get(*read);
                return Err(format!("partition {partition}: read {offset}, and {next:?} comes next"));
            }
        }
        *may_go_back = false;
        Ok(())
    }

    /// Whether all was read.
    pub(super) fn is_done(&self) -> bool {
        self.expected.iter().all(|(partition, all)| self.read.get(partition) == Some(&all.len()))
    }

    /// How many records were read, of how many.
    pub(super) fn so_far(&self) -> (usize, usize) {
        (self.read.values().sum(), self.expected.values().map(Vec::len).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(lines: &[&str]) -> (Reading, Result<(), String>) {
        let mut reading = Reading::new(BTreeMap::from([(0, vec![0, 1, 4]), (1, vec![2])]));
        let result = lines.iter().try_for_each(|line| reading.line(line));
        (reading, result)
    }

    #[test]
    fn all_in_order_is_done() {
        let (done, result) =
            reading(&["joined", "record 0 0", "told X", "record 1 2", "record 0 1", "record 0 4"]);
        assert_eq!((done.is_done(), result, done.so_far(), done.gone_back), (true, Ok(()), (4, 4), 0));
        let (begun, result) = reading(&["record 0 0"]);
        assert_eq!((begun.is_done(), result, begun.so_far()), (false, Ok(()), (1, 4)));
    }

    #[test]
    fn planted_faults_are_found() {
        for lines in [
            &["record 0 1"][..],
            &["record 0 0", "record 0 0"],
            &["record 0 0", "record 0 4"],
            &["record 0 0", "record 0 2"],
            &["record 1 2", "record 1 3"],
            &["record 2 0"],
            &["record 0 x"],
            // Once, and only back.
            &["record 0 0", "joined", "record 0 0", "record 0 0"],
            &["record 0 0", "joined", "record 0 4"],
            &["record 0 0", "joined", "record 0 1", "record 0 0"],
        ] {
            assert!(reading(lines).1.is_err(), "{lines:?}");
        }
    }

    #[test]
    fn a_member_that_joined_again_may_go_back() {
        let lines =
            ["record 0 0", "record 0 1", "joined", "record 0 0", "record 0 1", "record 0 4", "record 1 2"];
        let (done, result) = reading(&lines);
        assert_eq!((done.is_done(), result, done.gone_back), (true, Ok(()), 1));
    }
}
