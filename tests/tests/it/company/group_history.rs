//! What the members of a group did, seen from outside: records skipped or repeated within an assignment, commits that
//! went back, partitions with two owners. Pure.

use std::collections::{BTreeMap, BTreeSet};

/// What a member says of itself, by partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// These were added to what it owns.
    Assigned(Vec<i32>),
    /// It gives these up, after its last commit.
    Revoked(Vec<i32>),
    /// The group has expelled it; somebody else may own these already.
    Lost(Vec<i32>),
    /// It processes this one.
    Record { partition: i32, offset: i64, value: String },
    /// It is about to commit.
    Commit { partition: i32, offset: i64 },
    /// The group has taken the commit.
    Committed { partition: i32, offset: i64 },
    /// Its process has ended.
    Gone,
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) at_us: i64,
    pub(super) member: String,
    pub(super) event: Event,
}

/// One member's hold on one partition.
#[derive(Debug, Default)]
struct Tenure {
    /// The offset of the next record, once there was one.
    next: Option<i64>,
    /// The newest commit that the group had taken when this began.
    committed_before: Option<i64>,
    /// Who was assigned the partition meanwhile.
    taken_by: Option<String>,
}

/// What a history amounts to.
#[derive(Debug, Default)]
pub(super) struct Judgement {
    pub(super) faults: Vec<String>,
    /// Every (partition, offset, value) that somebody processed.
    pub(super) processed: BTreeSet<(i32, i64, String)>,
    /// How often partitions were handed to a member.
    pub(super) assignments: usize,
    /// Holds on a partition that ended by expulsion or death.
    pub(super) lost: usize,
}

#[derive(Debug, Default)]
struct Judge {
    tenures: BTreeMap<(i32, String), Tenure>,
    attempted: BTreeMap<i32, i64>,
    committed: BTreeMap<i32, i64>,
    judgement: Judgement,
}

/// Judges a history whose entries are in the order of their times.
pub(super) fn judge(entries: &[Entry]) -> Judgement {
    let mut judge = Judge::default();
    for entry in entries {
        judge.take(&entry.member, &entry.event);
    }
    for ((partition, member), tenure) in std::mem::take(&mut judge.tenures) {
        if let Some(other) = tenure.taken_by {
            judge.fault(format!("B4: {member} and {other} both own {partition}"));
        }
    }
    judge.judgement
}

impl Judge {
    fn fault(&mut self, fault: String) {
        self.judgement.faults.push(fault);
    }

    fn take(&mut self, member: &str, event: &Event) {
        match event {
            Event::Assigned(partitions) => {
                self.judgement.assignments += 1;
                partitions.iter().for_each(|&partition| self.assigned(member, partition));
            }
            Event::Revoked(partitions) => partitions.iter().for_each(|&at| self.ended(member, at, true)),
            Event::Lost(partitions) => partitions.iter().for_each(|&at| self.ended(member, at, false)),
            Event::Gone => {
                let held = self.tenures.keys().filter(|(_, holder)| holder == member);
                let held: Vec<i32> = held.map(|(partition, _)| *partition).collect();
                held.into_iter().for_each(|at| self.ended(member, at, false));
            }
            Event::Record { partition, offset, value } => {
                self.record(member, *partition, *offset);
                self.judgement.processed.insert((*partition, *offset, value.clone()));
            }
            Event::Commit { partition, offset } => {
                let highest = self.attempted.entry(*partition).or_insert(*offset);
                *highest = (*highest).max(*offset);
            }
            Event::Committed { partition, offset } => {
                let highest = self.committed.entry(*partition).or_insert(*offset);
                *highest = (*highest).max(*offset);
            }
        }
    }

    fn assigned(&mut self, member: &str, partition: i32) {
        for ((at, _), tenure) in &mut self.tenures {
            if *at == partition {
                tenure.taken_by = Some(member.to_owned());
            }
        }
        let committed_before = self.committed.get(&partition).copied();
        let tenure = Tenure { committed_before, ..Tenure::default() };
        if self.tenures.insert((partition, member.to_owned()), tenure).is_some() {
            self.fault(format!("B4: {member} was assigned {partition} twice without giving it up"));
        }
    }

    fn ended(&mut self, member: &str, partition: i32, politely: bool) {
        let Some(tenure) = self.tenures.remove(&(partition, member.to_owned())) else {
            return self.fault(format!("B4: {member} gives up {partition}, which it does not own"));
        };
        self.judgement.lost += usize::from(!politely);
        if let Some(other) = tenure.taken_by.filter(|_| politely) {
            self.fault(format!("B4: {other} was assigned {partition} before {member} gave it up"));
        }
    }

    fn record(&mut self, member: &str, partition: i32, offset: i64) {
        let attempted = self.attempted.get(&partition).copied().unwrap_or(0);
        let Some(tenure) = self.tenures.get_mut(&(partition, member.to_owned())) else {
            return self.fault(format!("B4: {member} processes {partition}-{offset}, which it does not own"));
        };
        let (next, before) = (tenure.next.replace(offset + 1), tenure.committed_before);
        match next {
            Some(next) if offset > next => {
                self.fault(format!("B1: {member} skips {partition}-{next} to {offset}"));
            }
            Some(next) if offset < next => {
                self.fault(format!("B2: {member} goes back from {partition}-{next} to {offset}"));
            }
            Some(_) => {}
            None if offset > attempted => {
                self.fault(format!(
                    "B1: {member} begins at {partition}-{offset}, at most {attempted} was committed"
                ));
            }
            None if before.is_some_and(|before| offset < before) => {
                let before = before.unwrap_or_default();
                self.fault(format!("B3: {member} begins at {partition}-{offset}, {before} was committed"));
            }
            None => {}
        }
    }
}

/// A member `a` that reads and commits two records and hands over to `b`, which reads on.
fn sound() -> Vec<Entry> {
    let record = |offset| Event::Record { partition: 0, offset, value: offset.to_string() };
    let events = [
        ("a", Event::Assigned(vec![0])),
        ("a", record(0)),
        ("a", record(1)),
        ("a", Event::Commit { partition: 0, offset: 2 }),
        ("a", Event::Committed { partition: 0, offset: 2 }),
        ("a", Event::Revoked(vec![0])),
        ("b", Event::Assigned(vec![0])),
        ("b", record(2)),
        ("b", record(3)),
    ];
    let entry =
        |(at_us, (member, event)): (i64, (&str, Event))| Entry { at_us, member: member.into(), event };
    (0..).zip(events).map(entry).collect()
}

/// The first fault after planting a defect.
fn shown(plant: impl FnOnce(&mut Vec<Entry>)) -> String {
    let mut entries = sound();
    plant(&mut entries);
    let faults = judge(&entries).faults;
    faults.first().map(|fault| fault[..2].to_owned()).unwrap_or_default()
}

#[test]
fn a_sound_group_has_no_faults() {
    let judgement = judge(&sound());
    assert!(judgement.faults.is_empty(), "{:?}", judgement.faults);
    assert_eq!((judgement.processed.len(), judgement.assignments, judgement.lost), (4, 2, 0));
    // Whoever is expelled learns it late: that is no fault.
    let expelled = |entries: &mut Vec<Entry>| {
        entries[5].event = Event::Lost(vec![0]);
        entries.swap(5, 6);
    };
    assert_eq!(shown(expelled), "");
    let killed = |entries: &mut Vec<Entry>| entries[5].event = Event::Gone;
    assert_eq!(shown(killed), "");
}

#[test]
fn planted_defects_of_a_group_are_found() {
    let skips = |entries: &mut Vec<Entry>| drop(entries.remove(7));
    assert_eq!(shown(skips), "B1");
    let skips_within = |entries: &mut Vec<Entry>| drop(entries.remove(1));
    assert_eq!(shown(skips_within), "B1");
    let back = |entries: &mut Vec<Entry>| entries.push(entries[7].clone());
    assert_eq!(shown(back), "B2");
    let forgets_a_commit = |entries: &mut Vec<Entry>| {
        entries[7].event = Event::Record { partition: 0, offset: 0, value: "0".into() };
    };
    assert_eq!(shown(forgets_a_commit), "B3");
    let takes_early = |entries: &mut Vec<Entry>| entries.swap(5, 6);
    assert_eq!(shown(takes_early), "B4");
    let never_gives_up = |entries: &mut Vec<Entry>| drop(entries.remove(5));
    assert_eq!(shown(never_gives_up), "B4");
    let after_giving_up = |entries: &mut Vec<Entry>| entries[6].event = Event::Assigned(vec![1]);
    assert_eq!(shown(after_giving_up), "B4");
}
