//! C1 to C8: what a history says of transactions. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::operation::{
    Check, End, Entry, Holds, Isolation, Micros, Number, Outcome, Place, Violation, What,
};
use super::seen::{Fate, Seen};

pub(super) fn check(seen: &Seen<'_>) -> Vec<Violation> {
    let checks = [too_early, torn, lost, zombies, late, waiting, copies];
    checks.iter().flat_map(|check| check(seen)).collect()
}

/// C1 and C2: who reads committed records gets none of an aborted or open transaction.
fn too_early(seen: &Seen<'_>) -> Vec<Violation> {
    let live = seen.reads().filter(|(_, read)| read.isolation == Isolation::Committed);
    let live = live.flat_map(|(operation, read)| {
        let at = operation.ended().unwrap_or(Micros::MAX);
        read.records.iter().map(move |found| (read.place, found, at))
    });
    let finals = seen.history.finals.iter().filter(|((_, isolation), _)| *isolation == Isolation::Committed);
    let last = finals
        .flat_map(|((place, _), read)| read.records.values().map(move |found| (*place, found, Micros::MAX)));
    let mut wrong = BTreeSet::new();
    for (place, found, at) in live.chain(last) {
        let Some(number) = found.number else { continue };
        let Some(fate) = seen.transaction_of(number) else { continue };
        let how = format!("of transaction {:?}", fate.transaction);
        let read = format!("{number} at {} of {place} was read as committed", found.offset);
        match fate.end {
            Some((end, true)) if end.outcome == Outcome::Fail => {
                wrong.insert(Violation::new(Check::C1, format!("{read}, {how}, whose commit failed")));
            }
            Some((end, true)) if end.begun > at => {
                wrong.insert(Violation::new(Check::C2, format!("{read} before somebody committed, {how}")));
            }
            Some((_, true)) => {}
            Some((end, false)) if end.begun < at => {
                wrong.insert(Violation::new(Check::C1, format!("{read}, {how}, which was aborted")));
            }
            _ => {
                wrong.insert(Violation::new(Check::C2, format!("{read}, {how}, which is open")));
            }
        }
    }
    wrong.into_iter().collect()
}

/// Which records of a transaction readers of this isolation have in the end.
fn there(seen: &Seen<'_>, fate: &Fate<'_>, isolation: Isolation) -> BTreeSet<Number> {
    fate.sends.iter().copied().filter(|number| seen.is_final(*number, isolation)).collect()
}

/// C3: all of a transaction or nothing.
fn torn(seen: &Seen<'_>) -> Vec<Violation> {
    let of = |fate: &Fate<'_>| {
        let (all, shown) =
            (there(seen, fate, Isolation::Uncommitted), there(seen, fate, Isolation::Committed));
        let missing: Vec<_> = all.difference(&shown).collect();
        let what = format!("of {:?} are {shown:?} to be seen and {missing:?} not", fate.transaction);
        (!shown.is_empty() && !missing.is_empty()).then(|| Violation::new(Check::C3, what))
    };
    seen.transactions.values().filter_map(of).collect()
}

/// C4: what was committed is there.
fn lost(seen: &Seen<'_>) -> Vec<Violation> {
    let mut wrong = Vec::new();
    for fate in seen.transactions.values().filter(|fate| fate.committed().is_some()) {
        let sent = fate.sends.iter().filter_map(|number| seen.sends.get(number));
        let told = sent.filter(|sent| sent.operation.ended().is_some());
        let missing: Vec<_> = told
            .map(|sent| sent.send.number)
            .filter(|it| !seen.is_final(*it, Isolation::Committed))
            .collect();
        if !missing.is_empty() {
            let what = format!("{:?} was committed, and {missing:?} are not there", fate.transaction);
            wrong.push(Violation::new(Check::C4, what));
        }
    }
    wrong
}

/// C5: once another producer of the same id has begun, nothing of the one before is taken.
fn zombies(seen: &Seen<'_>) -> Vec<Violation> {
    // When each producer was the one for the first time: from when and until when that was done.
    let mut begun: BTreeMap<(&str, u64), (Micros, Micros)> = BTreeMap::new();
    for operation in &seen.history.operations {
        if let (What::Begin(one), Some(ended)) = (&operation.what, operation.ended()) {
            begun.entry((&one.id, one.instance)).or_insert((operation.begun, ended));
        }
    }
    let fenced = |id: &str, instance: u64| {
        let (_, own) = *begun.get(&(id, instance))?;
        let others =
            begun.iter().filter(|((other, by), (from, _))| *other == id && *by != instance && *from > own);
        others.map(|(_, (_, done))| *done).min()
    };
    let mut wrong = Vec::new();
    for operation in &seen.history.operations {
        let (transaction, taken) = match &operation.what {
            What::Send(send) => {
                let Some(transaction) = &send.transaction else { continue };
                (transaction, operation.ended().is_some() || seen.landed.contains_key(&send.number))
            }
            What::SendOffsets { transaction, .. } => (transaction, operation.ended().is_some()),
            What::End { transaction, commit: true } => {
                let Some(fate) = seen.transactions.get(&transaction.number) else { continue };
                let shown = !there(seen, fate, Isolation::Committed).is_empty();
                (transaction, shown || (fate.touched && operation.ended().is_some()))
            }
            _ => continue,
        };
        let Some(since) = fenced(&transaction.id, transaction.instance) else { continue };
        if taken && operation.begun > since {
            let what = format!("{:?} at {} was taken, fenced at {since}", operation.what, operation.begun);
            wrong.push(Violation::new(Check::C5, what));
        }
    }
    wrong
}

/// C6: in each log the records of a producer between two markers are of one transaction, which goes as the second of
/// the markers says, and has no records behind it.
fn late(seen: &Seen<'_>) -> Vec<Violation> {
    let logs = seen.history.logs.iter();
    logs.flat_map(|(place, entries)| late_in_log(seen, *place, entries)).collect()
}

fn late_in_log(seen: &Seen<'_>, place: Place, entries: &[Entry]) -> Vec<Violation> {
    let mut open: BTreeMap<i64, u64> = BTreeMap::new();
    let mut ended: BTreeSet<u64> = BTreeSet::new();
    let mut wrong = Vec::new();
    for entry in entries {
        let at = entry.offset;
        match entry.holds {
            Holds::Record { number: Some(number), transactional: true } => {
                let Some(fate) = seen.transaction_of(number) else { continue };
                let own = fate.transaction.number;
                let before = open.insert(entry.producer_id, own).filter(|before| *before != own);
                if let Some(before) = before {
                    let what = format!("{number} at {at} of {place}, of transaction {own}, joins {before}");
                    wrong.push(Violation::new(Check::C6, what));
                }
                if ended.contains(&own) {
                    let what = format!("{number} at {at} of {place} comes after its transaction {own} ended");
                    wrong.push(Violation::new(Check::C6, what));
                }
            }
            Holds::Record { .. } => {}
            Holds::Marker { commit } => {
                let Some(own) = open.remove(&entry.producer_id) else { continue };
                ended.insert(own);
                let Some(fate) = seen.transactions.get(&own) else { continue };
                let agrees = if commit { fate.may_be_committed() } else { fate.committed().is_none() };
                if !agrees {
                    let what = format!("the marker at {at} of {place} ends {own}, commit: {commit}");
                    wrong.push(Violation::new(Check::C6, what));
                }
            }
        }
    }
    wrong
}

/// C7: readers of committed records get on.
fn waiting(seen: &Seen<'_>) -> Vec<Violation> {
    let Some(healed) = seen.history.healed else { return Vec::new() };
    let bound = seen.history.rules.transaction;
    let mut written: BTreeMap<Place, Vec<(Micros, i64)>> = BTreeMap::new();
    for (sent, offset, ended) in seen.acknowledged() {
        written.entry(sent.send.place).or_default().push((ended.max(healed), offset));
    }
    let mut wrong = Vec::new();
    for operation in &seen.history.operations {
        let What::Look { place, end: End::LastStable, found } = operation.what else { continue };
        let written = written.get(&place).into_iter().flatten();
        let waits = operation.ended().and_then(|_| {
            written.filter(|(at, offset)| at + bound < operation.begun && *offset >= found).min()
        });
        if let Some((since, offset)) = waits {
            let what = format!("{place} is stable up to {found}; {offset} was taken at {since}");
            wrong.push(Violation::new(Check::C7, what));
        }
    }
    wrong
}

/// C8: each record before the committed offset was copied once, and none behind it.
fn copies(seen: &Seen<'_>) -> Vec<Violation> {
    let mut copied: BTreeMap<(Place, i64), BTreeSet<Number>> = BTreeMap::new();
    for sent in seen.sends.values() {
        let Some(source) = sent.send.source else { continue };
        if seen.is_final(sent.send.number, Isolation::Committed) {
            copied.entry(source).or_default().insert(sent.send.number);
        }
    }
    let mut wrong = Vec::new();
    for ((group, place), committed) in &seen.history.committed {
        let Some(read) = seen.history.finals.get(&(*place, Isolation::Committed)) else { continue };
        if !seen.history.rules.exactly_once.contains(group) {
            continue;
        }
        for offset in read.records.keys() {
            let copies = copied.get(&(*place, *offset)).map_or(0, BTreeSet::len);
            if copies != usize::from(offset < committed) {
                let what = format!("{offset} of {place} has {copies} copies; {group} is at {committed}");
                wrong.push(Violation::new(Check::C8, what));
            }
        }
    }
    wrong
}
