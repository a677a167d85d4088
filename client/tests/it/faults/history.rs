//! What happened in a run: sends and what became of them, records handed out, commits; and what must hold of it, by
//! the names of the anomalies that it would be otherwise.

use std::collections::{BTreeMap, BTreeSet};

/// A send of a unique value.
#[derive(Debug, Clone)]
pub(crate) struct Send {
    pub(crate) value: String,
    pub(crate) producer: usize,
    pub(crate) partition: i32,
    /// Logical time.
    pub(crate) begun: u64,
    pub(crate) ended: u64,
    pub(crate) outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It has not ended, or nobody knows what came of it.
    Unknown,
    /// Acknowledged at this offset.
    At(i64),
    /// It failed and was not written, as the error said.
    Not,
}

/// A record that a member was given.
#[derive(Debug, Clone)]
pub(crate) struct Handed {
    pub(crate) member: usize,
    /// Counts the assignments of the partition to the member.
    pub(crate) assignment: usize,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) value: String,
}

#[derive(Debug, Default)]
pub(crate) struct History {
    time: u64,
    pub(crate) sends: Vec<Send>,
    pub(crate) handed: Vec<Handed>,
    processed: BTreeSet<(i32, i64)>,
    committed: BTreeMap<i32, i64>,
    pub(crate) commits: usize,
    /// Found while it ran.
    pub(crate) anomalies: Vec<String>,
}

impl History {
    fn tick(&mut self) -> u64 {
        self.time += 1;
        self.time
    }

    /// A send begins; gives its number.
    pub(crate) fn begin(&mut self, producer: usize, partition: i32, value: String) -> usize {
        let begun = self.tick();
        let outcome = Outcome::Unknown;
        self.sends.push(Send { value, producer, partition, begun, ended: u64::MAX, outcome });
        self.sends.len() - 1
    }

    pub(crate) fn end(&mut self, send: usize, outcome: Outcome) {
        let ended = self.tick();
        let send = &mut self.sends[send];
        (send.ended, send.outcome) = (ended, outcome);
    }

    pub(crate) fn hand_out(&mut self, handed: Handed) {
        self.handed.push(handed);
    }

    pub(crate) fn process(&mut self, partition: i32, offset: i64) {
        self.processed.insert((partition, offset));
    }

    /// The group's offset as the broker tells it.
    pub(crate) fn see_committed(&mut self, partition: i32, offset: i64) {
        let before = self.committed.insert(partition, offset).unwrap_or(0);
        if offset < before {
            self.anomalies.push(format!("B3: {partition} was committed at {before} and then at {offset}"));
        }
        for missing in (before..offset).filter(|&offset| !self.processed.contains(&(partition, offset))) {
            self.anomalies.push(format!("B6: {partition}-{missing} is committed and was never processed"));
        }
        self.commits += usize::from(offset > before);
    }

    pub(crate) fn committed(&self, partition: i32) -> i64 {
        self.committed.get(&partition).copied().unwrap_or(0)
    }

    pub(crate) fn acknowledged(&self) -> usize {
        self.sends.iter().filter(|send| matches!(send.outcome, Outcome::At(_))).count()
    }

    /// Everything that is wrong, given what stands in the partitions at the end.
    pub(crate) fn anomalies(&self, logs: &BTreeMap<i32, Vec<(i64, String)>>) -> Vec<String> {
        let mut found = self.anomalies.clone();
        found.extend(self.lost_or_false(logs));
        found.extend(self.out_of_order(logs));
        found.extend(self.misread(logs));
        found
    }

    /// A1, A2, A3, A5, A8: each acknowledged value is where its acknowledgement says, and once; nothing else is there.
    fn lost_or_false(&self, logs: &BTreeMap<i32, Vec<(i64, String)>>) -> Vec<String> {
        let mut found = Vec::new();
        let mut at: BTreeMap<&str, Vec<(i32, i64)>> = BTreeMap::new();
        for (&partition, log) in logs {
            for (offset, value) in log {
                at.entry(value).or_default().push((partition, *offset));
            }
        }
        let sent: BTreeMap<&str, &Send> = self.sends.iter().map(|send| (&*send.value, send)).collect();
        for (value, places) in &at {
            match sent.get(value) {
                None => found.push(format!("A5: nobody sent {value:?}, at {places:?}")),
                Some(send) if send.outcome == Outcome::Not => {
                    found.push(format!("A8: {value:?} failed and is at {places:?}"));
                }
                Some(_) => {}
            }
            if places.len() > 1 {
                found.push(format!("A2: {value:?} is at {places:?}"));
            }
        }
        for send in &self.sends {
            let Outcome::At(offset) = send.outcome else { continue };
            match at.get(&*send.value) {
                None => found.push(format!("A1: {:?}, acknowledged at {offset}, is gone", send.value)),
                Some(places) if !places.contains(&(send.partition, offset)) => {
                    found.push(format!("A3: {:?}, acknowledged at {offset}, is at {places:?}", send.value));
                }
                Some(_) => {}
            }
        }
        found
    }

    /// A4: what was begun after an acknowledgement stands behind it; and the order of one producer.
    fn out_of_order(&self, logs: &BTreeMap<i32, Vec<(i64, String)>>) -> Vec<String> {
        let mut found = Vec::new();
        for (&partition, log) in logs {
            let offsets: BTreeMap<&str, i64> =
                log.iter().map(|(offset, value)| (&**value, *offset)).collect();
            let mut ends: Vec<(u64, i64)> = Vec::new();
            for send in self.sends.iter().filter(|send| send.partition == partition) {
                if let Outcome::At(offset) = send.outcome {
                    ends.push((send.ended, offset));
                }
            }
            ends.sort_unstable();
            // The highest offset acknowledged up to each time.
            let mut highest = -1;
            for (_, offset) in &mut ends {
                highest = highest.max(*offset);
                *offset = highest;
            }
            let mut last: BTreeMap<usize, i64> = BTreeMap::new();
            for send in self.sends.iter().filter(|send| send.partition == partition) {
                let Some(&offset) = offsets.get(&*send.value) else { continue };
                let before = ends.partition_point(|(ended, _)| *ended < send.begun);
                if let Some((_, highest)) = before.checked_sub(1).and_then(|at| ends.get(at))
                    && offset < *highest
                {
                    found.push(format!(
                        "A4: {:?} is at {offset}, begun after {highest} was acknowledged",
                        send.value
                    ));
                }
                if last.get(&send.producer).is_some_and(|last| *last > offset) {
                    found.push(format!("A4: {:?} at {offset} overtook its producer's next", send.value));
                }
                last.insert(send.producer, offset);
            }
        }
        found
    }

    /// A3, B1, B2: what was handed out is what is there, one after the other within an assignment.
    fn misread(&self, logs: &BTreeMap<i32, Vec<(i64, String)>>) -> Vec<String> {
        let mut found = Vec::new();
        let mut last: BTreeMap<(usize, usize, i32), i64> = BTreeMap::new();
        for handed in &self.handed {
            let Handed { member, assignment, partition, offset, value } = handed;
            let there = logs
                .get(partition)
                .and_then(|log| log.iter().find(|(at, _)| at == offset).map(|(_, value)| value));
            if there != Some(value) {
                found.push(format!("A3: {partition}-{offset} was read as {value:?} and is {there:?}"));
            }
            let before = last.insert((*member, *assignment, *partition), *offset);
            match before.map(|before| offset - before) {
                None | Some(1) => {}
                Some(..1) => {
                    found.push(format!("B2: member {member} got {partition}-{offset} after {before:?}"));
                }
                Some(_) => {
                    found.push(format!("B1: member {member} got {partition}-{offset} after {before:?}"));
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logs(values: &[&str]) -> BTreeMap<i32, Vec<(i64, String)>> {
        BTreeMap::from([(0, (0..).zip(values.iter().map(|value| (*value).to_owned())).collect())])
    }

    /// `a` and then `b` were sent, acknowledged and read; `edit` plants something.
    fn found(values: &[&str], edit: impl Fn(&mut History)) -> Vec<String> {
        let mut history = History::default();
        for (offset, value) in [(0, "a"), (1, "b")] {
            let send = history.begin(0, 0, value.to_owned());
            history.end(send, Outcome::At(offset));
            let handed = Handed { member: 0, assignment: 0, partition: 0, offset, value: value.to_owned() };
            history.hand_out(handed);
            history.process(0, offset);
        }
        history.see_committed(0, 2);
        edit(&mut history);
        let found = history.anomalies(&logs(values));
        found.into_iter().map(|anomaly| anomaly[..2].to_owned()).collect()
    }

    #[test]
    fn every_anomaly_is_found_and_nothing_else() {
        let nothing: [&str; 0] = [];
        assert_eq!(found(&["a", "b"], |_| {}), nothing);
        assert_eq!(found(&["a"], |_| {}), ["A1", "A3"]);
        assert_eq!(found(&["a", "b", "a"], |_| {}), ["A2", "A4"]);
        assert_eq!(found(&["a", "b", "c"], |_| {}), ["A5"]);
        assert_eq!(found(&["b", "a"], |_| {}), ["A3", "A3", "A4", "A3", "A3"]);
        let failed = |history: &mut History| {
            let send = history.begin(1, 0, "c".to_owned());
            history.end(send, Outcome::Not);
        };
        assert_eq!(found(&["a", "b"], failed), nothing);
        assert_eq!(found(&["a", "b", "c"], failed), ["A8"]);
        let unknown = |history: &mut History| {
            let _ = history.begin(1, 0, "c".to_owned());
        };
        assert_eq!(found(&["a", "b", "c"], unknown), nothing);
        assert_eq!(found(&["a", "b"], unknown), nothing);
        let again = |assignment, offset, value: &'static str| {
            move |history: &mut History| {
                let value = value.to_owned();
                history.hand_out(Handed { member: 0, assignment, partition: 0, offset, value });
            }
        };
        assert_eq!(found(&["a", "b"], again(0, 1, "b")), ["B2"]);
        assert_eq!(found(&["a", "b"], again(1, 1, "b")), nothing, "another assignment begins anywhere");
        assert_eq!(found(&["a", "b"], again(1, 0, "b")), ["A3"]);
        let skips = |history: &mut History| {
            for value in ["c", "d"] {
                history.begin(1, 0, value.to_owned());
            }
            again(0, 3, "d")(history);
        };
        assert_eq!(found(&["a", "b", "c", "d"], skips), ["B1"]);
        assert_eq!(found(&["a", "b"], |history| history.see_committed(0, 1)), ["B3"]);
        assert_eq!(found(&["a", "b"], |history| history.see_committed(0, 4)), ["B6", "B6"]);
    }
}
