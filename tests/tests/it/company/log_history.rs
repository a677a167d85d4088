//! What writers were told against what the log holds: lost, doubled, misplaced, reordered, invented, and visible
//! although refused. Pure; linear in the number of writes but for sorting.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A record that somebody tried to write, and what he was told.
#[derive(Debug, Clone)]
pub(super) struct Write {
    pub(super) partition: i32,
    pub(super) writer: u32,
    /// Counts the records of this writer.
    pub(super) number: u64,
    pub(super) begun_us: i64,
    pub(super) outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Acknowledged {
        offset: i64,
        at_us: i64,
    },
    /// It was not written.
    Refused,
    /// It may have been written.
    Unknown,
}

/// The records of each partition, (offset, value), as they were read.
pub(super) type Found = BTreeMap<i32, Vec<(i64, String)>>;

impl Write {
    /// What the record holds: nobody else writes the same, and a damaged one is nobody's.
    pub(super) fn value(&self) -> String {
        value(self.writer, self.number)
    }
}

pub(super) fn value(writer: u32, number: u64) -> String {
    let check = (u64::from(writer) + 1).wrapping_mul(number + 7).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
    format!("{writer}-{number}-{check:06x}")
}

/// What is wrong, each with the name of its anomaly. Acknowledgements of writes begun before `certain_from_us` prove
/// nothing: they may be of an earlier topic of this name.
pub(super) fn faults(writes: &[Write], found: &Found, certain_from_us: i64) -> Vec<String> {
    let mut faults = Vec::new();
    let sent: HashMap<String, &Write> = writes.iter().map(|write| (write.value(), write)).collect();
    let mut places: HashMap<&str, (i32, i64)> = HashMap::new();
    for (&partition, records) in found {
        faults.extend(in_partition(partition, records, &sent));
        for (offset, value) in records {
            if let Some(before) = places.insert(value, (partition, *offset)) {
                faults.push(format!("A2: {value} is at {before:?} and at {:?}", (partition, offset)));
            }
        }
    }
    let mut certain: Vec<&Write> = writes.iter().filter(|write| write.begun_us >= certain_from_us).collect();
    let mut taken: BTreeMap<(i32, i64), String> = BTreeMap::new();
    for write in &certain {
        let value = write.value();
        let place = places.get(value.as_str()).copied();
        match (write.outcome, place) {
            (Outcome::Acknowledged { offset, .. }, None) => {
                faults.push(format!(
                    "A1: {value} was acknowledged at {}-{offset} and is lost",
                    write.partition
                ));
            }
            (Outcome::Acknowledged { offset, .. }, Some(place)) if place != (write.partition, offset) => {
                faults.push(format!(
                    "A3: {value} was acknowledged at {}-{offset}, is at {place:?}",
                    write.partition
                ));
            }
            (Outcome::Refused, Some(place)) => {
                faults.push(format!("A8: {value} was refused and is at {place:?}"));
            }
            _ => {}
        }
        if let Outcome::Acknowledged { offset, .. } = write.outcome
            && let Some(other) = taken.insert((write.partition, offset), value.clone())
        {
            faults
                .push(format!("A3: {}-{offset} was acknowledged to {other} and to {value}", write.partition));
        }
    }
    certain.sort_by_key(|write| write.begun_us);
    faults.extend(overtaken(&certain));
    faults
}

fn in_partition(partition: i32, records: &[(i64, String)], sent: &HashMap<String, &Write>) -> Vec<String> {
    let mut faults = Vec::new();
    let mut last: BTreeMap<u32, u64> = BTreeMap::new();
    for (expected, (offset, _)) in (0..).zip(records) {
        if *offset != expected {
            faults.push(format!("A7: {partition}-{offset} stands where {expected} should"));
            break;
        }
    }
    for (offset, value) in records {
        let Some(write) = sent.get(value) else {
            faults.push(format!("A5: {value:?} at {partition}-{offset} was never sent"));
            continue;
        };
        if write.partition != partition {
            faults.push(format!("A5: {value} at {partition}-{offset} was sent to {}", write.partition));
        }
        let before = last.insert(write.writer, write.number);
        if before.is_some_and(|before| before > write.number) {
            faults
                .push(format!("A4: {value} at {partition}-{offset} stands behind {before:?} of its writer"));
        }
    }
    faults
}

/// A4 in real time: what begins after the acknowledgement of an offset lands above it.
fn overtaken(by_begin: &[&Write]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut acknowledged: Vec<(i64, i32, i64)> = Vec::new();
    for write in by_begin {
        if let Outcome::Acknowledged { offset, at_us } = write.outcome {
            acknowledged.push((at_us, write.partition, offset));
        }
    }
    acknowledged.sort_unstable();
    let mut highest: BTreeMap<i32, i64> = BTreeMap::new();
    let mut earlier = acknowledged.into_iter().peekable();
    for write in by_begin {
        while let Some((_, partition, offset)) = earlier.next_if(|(at_us, ..)| *at_us < write.begun_us) {
            let high = highest.entry(partition).or_insert(offset);
            *high = (*high).max(offset);
        }
        let Outcome::Acknowledged { offset, .. } = write.outcome else { continue };
        let high = highest.get(&write.partition).copied();
        if high.is_some_and(|high| offset <= high) {
            faults
                .push(format!("A4: {} is at {offset}, begun after {high:?} was acknowledged", write.value()));
        }
    }
    faults
}

/// What of `records` no member has processed, or with another value: B6 and A3. `processed` is by (partition, offset).
pub(super) fn unprocessed(found: &Found, processed: &BTreeSet<(i32, i64, String)>) -> Vec<String> {
    let mut faults = Vec::new();
    for (&partition, records) in found {
        for (offset, value) in records {
            if !processed.contains(&(partition, *offset, value.clone())) {
                faults.push(format!("B6: {value} at {partition}-{offset} was never processed"));
            }
        }
    }
    for (partition, offset, value) in processed {
        let there = found.get(partition).and_then(|records| {
            let at = records.binary_search_by_key(offset, |(offset, _)| *offset).ok()?;
            records.get(at)
        });
        if there.is_none_or(|(_, there)| there != value) {
            faults.push(format!(
                "A3: a member has read {value} at {partition}-{offset}, the log has {there:?}"
            ));
        }
    }
    faults
}

/// Four records of one writer in one partition, as they should be.
fn sound() -> (Vec<Write>, Found) {
    let write = |number: u64| Write {
        partition: 0,
        writer: 1,
        number,
        begun_us: 10 * number as i64,
        outcome: Outcome::Acknowledged { offset: number as i64, at_us: 10 * number as i64 + 5 },
    };
    let writes: Vec<Write> = (0..4).map(write).collect();
    let found = writes.iter().map(|write| (write.number as i64, write.value())).collect();
    (writes, Found::from([(0, found)]))
}

/// The names of the anomalies that planting a defect shows, each once.
fn shown(plant: impl FnOnce(&mut Vec<Write>, &mut Vec<(i64, String)>)) -> Vec<String> {
    let (mut writes, mut found) = sound();
    plant(&mut writes, found.get_mut(&0).unwrap());
    let faults = faults(&writes, &found, 0);
    let names: BTreeSet<String> = faults.iter().map(|fault| fault[..2].to_owned()).collect();
    names.into_iter().collect()
}

#[test]
fn a_sound_log_has_no_faults() {
    assert!(shown(|_, _| {}).is_empty());
    // Whether this one is there was not said.
    let unknown = |writes: &mut Vec<Write>, found: &mut Vec<(i64, String)>| {
        writes[3].outcome = Outcome::Unknown;
        found.pop();
    };
    assert!(shown(unknown).is_empty());
}

#[test]
fn planted_defects_of_a_log_are_found() {
    let lost = shown(|_, found| drop(found.pop()));
    assert_eq!(lost, ["A1"]);
    let doubled = shown(|_, found| {
        let again = found[3].1.clone();
        found.push((4, again));
    });
    assert!(doubled.contains(&"A2".to_owned()), "{doubled:?}");
    let misplaced = shown(|writes, _| writes[3].outcome = Outcome::Acknowledged { offset: 9, at_us: 99 });
    assert_eq!(misplaced, ["A3"]);
    let swapped = shown(|_, found| {
        let (second, third) = (found[1].1.clone(), found[2].1.clone());
        (found[1].1, found[2].1) = (third, second);
    });
    assert_eq!(swapped, ["A3", "A4"]);
    let late = shown(|writes, _| writes[0].begun_us = 100);
    assert_eq!(late, ["A4"]);
    let damaged = shown(|_, found| found[0].1.push('!'));
    assert_eq!(damaged, ["A1", "A5"]);
    let gap = shown(|writes, found| {
        writes[3].outcome = Outcome::Acknowledged { offset: 5, at_us: 99 };
        found[3].0 = 5;
    });
    assert_eq!(gap, ["A7"]);
    let refused = shown(|writes, _| writes[1].outcome = Outcome::Refused);
    assert_eq!(refused, ["A8"]);
}

#[test]
fn what_nobody_processed_is_found() {
    let (_, found) = sound();
    let mut processed: BTreeSet<_> =
        found[&0].iter().map(|(offset, value)| (0, *offset, value.clone())).collect();
    assert!(unprocessed(&found, &processed).is_empty());
    processed.remove(&(0, 2, value(1, 2)));
    assert!(unprocessed(&found, &processed)[0].starts_with("B6"));
    processed.insert((0, 2, value(1, 3)));
    assert!(unprocessed(&found, &processed).iter().any(|fault| fault.starts_with("A3")));
}
