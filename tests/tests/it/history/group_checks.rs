//! B1 to B7: what a history says of readers, groups and their offsets. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::operation::{Check, Isolation, Micros, Outcome, Place, Read, Violation, What};
use super::seen::Seen;

pub(super) fn check(seen: &Seen<'_>) -> Vec<Violation> {
    let checks = [within_sessions, offsets, owners, unprocessed, stuck];
    checks.iter().flat_map(|check| check(seen)).collect()
}

/// B1 and B2: within a session a reader passes over nothing and never steps back.
fn within_sessions(seen: &Seen<'_>) -> Vec<Violation> {
    let mut sessions: BTreeMap<(u64, Place, Isolation), Vec<&Read>> = BTreeMap::new();
    for (_, read) in seen.reads() {
        sessions.entry((read.session, read.place, read.isolation)).or_default().push(read);
    }
    let mut wrong = Vec::new();
    for ((session, place, isolation), reads) in sessions {
        let who = format!("session {session} in {place}");
        let mut position = None;
        for read in &reads {
            for found in &read.records {
                if position.is_some_and(|position| found.offset < position) {
                    let what = format!("{who} got {} and was at {position:?}", found.offset);
                    wrong.push(Violation::new(Check::B2, what));
                }
                position = Some(found.offset + 1);
            }
            if position.is_some_and(|position| read.next < position) {
                let what = format!("{who} goes on from {} and was at {position:?}", read.next);
                wrong.push(Violation::new(Check::B2, what));
            }
            position = Some(read.next);
        }
        let first = reads.first().map(|read| read.records.first().map_or(read.next, |found| found.offset));
        let got: BTreeSet<i64> =
            reads.iter().flat_map(|read| &read.records).map(|found| found.offset).collect();
        let (Some(first), Some(next)) = (first, position) else { continue };
        let Some(last) = seen.history.finals.get(&(place, isolation)).filter(|_| first < next) else {
            continue;
        };
        let passed = last.records.range(first..next).find(|(offset, _)| !got.contains(offset));
        if let Some((offset, found)) = passed {
            let what = format!("{who} read {first} to {next} and passed over {offset}: {found:?}");
            wrong.push(Violation::new(Check::B1, what));
        }
    }
    wrong
}

/// Somebody committed an offset.
#[derive(Debug, Clone, Copy)]
struct Write {
    offset: i64,
    begun: Micros,
    /// Nothing where it may be done at any time.
    ended: Option<Micros>,
    /// Whether it may be done once more.
    again: bool,
}

/// Somebody asked for a committed offset.
#[derive(Debug, Clone, Copy)]
struct Question {
    asked: Micros,
    answered: Micros,
    /// -1 for none.
    found: i64,
}

/// B3 and B5: a committed offset is one that somebody committed, and none that was written over.
fn offsets(seen: &Seen<'_>) -> Vec<Violation> {
    let mut writes: BTreeMap<(&str, Place), Vec<Write>> = BTreeMap::new();
    let mut questions: BTreeMap<(&str, Place), Vec<Question>> = BTreeMap::new();
    for operation in seen.history.operations.iter().filter(|one| one.outcome != Outcome::Fail) {
        let (begun, ended) = (operation.begun, operation.ended());
        match &operation.what {
            What::Commit { group, place, offset, again, .. } => {
                let write = Write { offset: *offset, begun, ended, again: *again };
                writes.entry((*group, *place)).or_default().push(write);
            }
            What::SendOffsets { transaction, group, offsets } => {
                let fate = seen.transactions.get(&transaction.number);
                let Some(fate) = fate.filter(|fate| fate.may_be_committed()) else { continue };
                let begun = fate.asked_to_commit().unwrap_or(begun);
                for (place, offset) in offsets {
                    let write = Write { offset: *offset, begun, ended: fate.committed(), again: false };
                    writes.entry((*group, *place)).or_default().push(write);
                }
            }
            What::FetchOffset { group, place, found } => {
                let Some(answered) = ended else { continue };
                let question = Question { asked: begun, answered, found: found.unwrap_or(-1) };
                questions.entry((*group, *place)).or_default().push(question);
            }
            _ => {}
        }
    }
    for ((group, place), found) in &seen.history.committed {
        let question = Question { asked: Micros::MAX, answered: Micros::MAX, found: *found };
        questions.entry((*group, *place)).or_default().push(question);
    }
    let mut wrong = Vec::new();
    for ((group, place), mut asked) in questions {
        asked.sort_by_key(|question| question.asked);
        let writes = writes.get(&(group, place)).map(Vec::as_slice).unwrap_or_default();
        let found = wrong_answers(writes, &asked).into_iter();
        wrong.extend(found.map(|(check, what)| Violation::new(check, format!("{group} in {place}: {what}"))));
    }
    wrong
}

/// `questions` in the order in which they were asked.
fn wrong_answers(writes: &[Write], questions: &[Question]) -> Vec<(Check, String)> {
    let mut of: BTreeMap<i64, Vec<Write>> = BTreeMap::new();
    writes.iter().for_each(|write| of.entry(write.offset).or_default().push(*write));
    // What was there for sure, from when on: somebody was told so, or somebody saw it.
    let mut known: Vec<(Micros, Write)> =
        writes.iter().filter_map(|write| Some((write.ended?, *write))).collect();
    for question in questions {
        let first = of.get(&question.found).and_then(|all| all.iter().min_by_key(|write| write.begun));
        known.extend(first.map(|write| (question.answered, *write)));
    }
    known.sort_by_key(|(at, _)| *at);
    let (mut known, mut highest) = (known.into_iter().peekable(), None::<Write>);
    let mut wrong = Vec::new();
    for question in questions {
        let found = question.found;
        while let Some((_, write)) = known.next_if(|(at, _)| *at < question.asked) {
            highest = highest.filter(|before| before.offset >= write.offset).or(Some(write));
        }
        let check = if found <= 0 { Check::B5 } else { Check::B3 };
        let of_it = of.get(&found).map(Vec::as_slice).unwrap_or_default();
        if found >= 0 && !of_it.iter().any(|write| write.begun <= question.answered) {
            wrong.push((check, format!("nobody committed {found}")));
            continue;
        }
        let Some(highest) = highest.filter(|write| found < write.offset) else { continue };
        // One that was sent before and done later.
        let late =
            of_it.iter().any(|write| write.again || write.ended.is_none_or(|ended| ended >= highest.begun));
        if !late {
            wrong.push((check, format!("{found} is committed and {} was", highest.offset)));
        }
    }
    wrong
}

/// B4: in a generation a partition is one member's.
fn owners(seen: &Seen<'_>) -> Vec<Violation> {
    let mut owners: BTreeMap<(&str, i32, Place), BTreeSet<&str>> = BTreeMap::new();
    for operation in &seen.history.operations {
        match &operation.what {
            What::Own { group, generation, member, places } => {
                for place in places {
                    owners.entry((*group, *generation, *place)).or_default().insert(member);
                }
            }
            What::Commit { group, generation, member, place, .. } if operation.ended().is_some() => {
                owners.entry((*group, *generation, *place)).or_default().insert(member);
            }
            _ => {}
        }
    }
    let several = owners.iter().filter(|(_, members)| members.len() > 1);
    several
        .map(|((group, generation, place), members)| {
            let what = format!("{place} is of {members:?} in generation {generation} of {group}");
            Violation::new(Check::B4, what)
        })
        .collect()
}

/// B6: what is committed was processed by somebody.
fn unprocessed(seen: &Seen<'_>) -> Vec<Violation> {
    let mut processed: BTreeSet<(&str, Place, i64)> = BTreeSet::new();
    for (_, read) in seen.reads() {
        let Some(group) = read.group else { continue };
        processed.extend(read.records.iter().map(|found| (group, read.place, found.offset)));
    }
    let mut wrong = Vec::new();
    let committed = seen.history.committed.iter();
    for ((group, place), offset) in
        committed.filter(|((group, _), _)| seen.history.rules.at_least_once.contains(group))
    {
        let Some(read) = seen.history.finals.get(&(*place, Isolation::Uncommitted)) else { continue };
        let missed =
            read.records.range(..*offset).find(|(at, _)| !processed.contains(&(*group, *place, **at)));
        if let Some((at, found)) = missed {
            let what = format!("{group} committed {offset} in {place} and never got {at}: {found:?}");
            wrong.push(Violation::new(Check::B6, what));
        }
    }
    wrong
}

/// B7: after the faults every client gets something done.
fn stuck(seen: &Seen<'_>) -> Vec<Violation> {
    let Some(healed) = seen.history.healed else { return Vec::new() };
    let until = healed + seen.history.rules.progress;
    let progress = seen.history.operations.iter().filter(|one| one.what.is_progress());
    let done = progress.filter(|one| one.ended().is_some_and(|at| at > healed && at <= until));
    let busy: BTreeSet<&str> = done.map(|one| &*one.client).collect();
    let idle = seen.history.alive.iter().filter(|client| !busy.contains(&***client));
    idle.map(|client| Violation::new(Check::B7, format!("{client} got nothing done after the faults")))
        .collect()
}
