//! A1 to A8: what a history says of logs. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::operation::{
    Check, End, Found, Holds, Isolation, Micros, Number, Outcome, Place, Violation, What,
};
use super::seen::Seen;

pub(super) fn check(seen: &Seen<'_>) -> Vec<Violation> {
    let checks = [missing, repeated, differing, order, unknown, going_back, gaps, failed];
    checks.iter().flat_map(|check| check(seen)).collect()
}

/// A1: what was acknowledged, or read by anybody, is there in the end.
fn missing(seen: &Seen<'_>) -> Vec<Violation> {
    let mut known: BTreeMap<(Place, i64), (Number, &str)> = BTreeMap::new();
    for (number, at) in &seen.landed {
        known.extend(at.iter().map(|(place, offset)| ((*place, *offset), (*number, "read"))));
    }
    for (sent, offset, _) in seen.acknowledged() {
        known.insert((sent.send.place, offset), (sent.send.number, "acknowledged"));
    }
    let gone = |((place, offset), (number, how)): (&(Place, i64), &(Number, &str))| {
        let read = seen.history.finals.get(&(*place, Isolation::Uncommitted))?;
        let there = read.records.contains_key(offset);
        let what = format!("{number} was {how} at {offset} of {place} and is gone; it is {}", shown(read));
        (!there).then(|| Violation::new(Check::A1, what))
    };
    known.iter().filter_map(gone).collect()
}

fn shown(read: &super::operation::FinalRead) -> String {
    format!("{} to {} with {} records", read.start, read.end, read.records.len())
}

/// A2: one record at two offsets.
fn repeated(seen: &Seen<'_>) -> Vec<Violation> {
    let twice = |(number, at): (&Number, &BTreeSet<(Place, i64)>)| {
        let idempotent = seen.sends.get(number).is_some_and(|sent| sent.send.idempotent);
        (idempotent && at.len() > 1).then(|| Violation::new(Check::A2, format!("{number} is at {at:?}")))
    };
    seen.landed.iter().filter_map(twice).collect()
}

/// A3: two records at one offset.
fn differing(seen: &Seen<'_>) -> Vec<Violation> {
    let mut at: BTreeMap<(Place, i64), BTreeSet<Number>> = BTreeMap::new();
    for (number, places) in &seen.landed {
        for place in places {
            at.entry(*place).or_default().insert(*number);
        }
    }
    for (sent, offset, _) in seen.acknowledged() {
        at.entry((sent.send.place, offset)).or_default().insert(sent.send.number);
    }
    let several = at.iter().filter(|(_, numbers)| numbers.len() > 1);
    several
        .map(|((place, offset), numbers)| {
            Violation::new(Check::A3, format!("{numbers:?} are at {offset} of {place}"))
        })
        .collect()
}

/// A4: a send that began after another was acknowledged stands above it.
fn order(seen: &Seen<'_>) -> Vec<Violation> {
    let mut floors: BTreeMap<Place, Vec<Floor>> = BTreeMap::new();
    for (sent, offset, ended) in seen.acknowledged() {
        floors.entry(sent.send.place).or_default().push(Floor { known: ended, least: offset + 1 });
    }
    let mut wrong = Vec::new();
    for (place, floors) in floors {
        let mut questions = Vec::new();
        for sent in seen.sends.values().filter(|sent| sent.send.place == place) {
            let read = seen.landed.get(&sent.send.number).into_iter().flatten();
            let offsets = read.filter(|(at, _)| *at == place).map(|(_, offset)| *offset);
            for offset in offsets.chain(sent.send.offset) {
                questions.push((sent.operation.begun, offset, sent.send.number));
            }
        }
        for (offset, number, least) in below(floors, questions) {
            let what =
                format!("{number} is at {offset} of {place}; below {least} was taken when it was sent");
            wrong.push(Violation::new(Check::A4, what));
        }
    }
    wrong
}

/// From some time on something is at least so much.
#[derive(Debug, Clone, Copy)]
struct Floor {
    known: Micros,
    least: i64,
}

/// When something was asked, what was found, and whatever else.
type Question<T> = (Micros, i64, T);

/// Which of the questions found less than was known before: what was found, whatever else, and what was known.
fn below<T>(mut floors: Vec<Floor>, mut questions: Vec<Question<T>>) -> Vec<(i64, T, i64)> {
    floors.sort_by_key(|floor| floor.known);
    questions.sort_by_key(|(asked, ..)| *asked);
    let (mut floors, mut least) = (floors.into_iter().peekable(), i64::MIN);
    let mut wrong = Vec::new();
    for (asked, found, more) in questions {
        while let Some(floor) = floors.next_if(|floor| floor.known < asked) {
            least = least.max(floor.least);
        }
        if found < least {
            wrong.push((found, more, least));
        }
    }
    wrong
}

/// A5: a record that nobody sent, or not there, or not yet.
fn unknown(seen: &Seen<'_>) -> Vec<Violation> {
    let live = seen.reads().flat_map(|(operation, read)| {
        read.records.iter().map(move |found| (read.place, found, operation.ended()))
    });
    let last = seen
        .history
        .finals
        .iter()
        .flat_map(|((place, _), read)| read.records.values().map(move |found| (*place, found, None)));
    live.chain(last).filter_map(|(place, found, at)| of_nobody(seen, place, found, at)).collect()
}

fn of_nobody(seen: &Seen<'_>, place: Place, found: &Found, at: Option<Micros>) -> Option<Violation> {
    let offset = found.offset;
    let sent = found.number.and_then(|number| seen.sends.get(&number));
    let what = match (found.number, sent) {
        (None, _) => format!("what is at {offset} of {place} is damaged"),
        (Some(number), None) => format!("nobody sent {number}, which is at {offset} of {place}"),
        (Some(number), Some(sent)) if sent.send.place != place => {
            format!("{number} was sent to {} and is at {offset} of {place}", sent.send.place)
        }
        (Some(number), Some(sent)) if at.is_some_and(|at| at < sent.operation.begun) => {
            format!("{number} was read at {offset} of {place} before it was sent")
        }
        _ => return None,
    };
    Some(Violation::new(Check::A5, what))
}

/// A6: ends of a log and epochs only go up, whoever tells them. An end that is nought where more was known is a B5.
fn going_back(seen: &Seen<'_>) -> Vec<Violation> {
    let mut floors: BTreeMap<(Place, End), Vec<Floor>> = BTreeMap::new();
    let mut questions: BTreeMap<(Place, End), Vec<Question<()>>> = BTreeMap::new();
    let mut known = |place, end, known, least| {
        floors.entry((place, end)).or_default().push(Floor { known, least });
    };
    for (sent, offset, ended) in seen.acknowledged() {
        known(sent.send.place, End::HighWatermark, ended, offset + 1);
    }
    for operation in &seen.history.operations {
        let Some(ended) = operation.ended() else { continue };
        match &operation.what {
            What::Read(read) => {
                let Some(last) = read.records.last() else { continue };
                known(read.place, End::HighWatermark, ended, last.offset + 1);
                if read.isolation == Isolation::Committed {
                    known(read.place, End::LastStable, ended, last.offset + 1);
                }
            }
            What::Look { place, end, found } => {
                known(*place, *end, ended, *found);
                questions.entry((*place, *end)).or_default().push((operation.begun, *found, ()));
            }
            _ => {}
        }
    }
    let mut wrong = Vec::new();
    for ((place, end), asked) in questions {
        for (found, (), least) in below(floors.remove(&(place, end)).unwrap_or_default(), asked) {
            let check = if found == 0 { Check::B5 } else { Check::A6 };
            wrong.push(Violation::new(check, format!("{end:?} of {place} is {found} and was {least}")));
        }
    }
    for ((place, _), read) in &seen.history.finals {
        let pairs = read.records.values().zip(read.records.values().skip(1));
        let back = pairs.filter(|(before, after)| before.epoch > after.epoch);
        wrong.extend(back.map(|(before, after)| {
            Violation::new(Check::A6, format!("the epoch of {place} goes back: {before:?}, then {after:?}"))
        }));
    }
    wrong
}

/// A7: where nothing is read, the file has a marker.
fn gaps(seen: &Seen<'_>) -> Vec<Violation> {
    let mut wrong = Vec::new();
    for ((place, isolation), read) in &seen.history.finals {
        let log = seen.history.logs.get(place).map(Vec::as_slice).unwrap_or_default();
        let markers: BTreeSet<i64> = log
            .iter()
            .filter(|entry| matches!(entry.holds, Holds::Marker { .. }))
            .map(|entry| entry.offset)
            .collect();
        if *isolation == Isolation::Committed {
            continue;
        }
        let missing: Vec<i64> = (read.start..read.end)
            .filter(|offset| !read.records.contains_key(offset) && !markers.contains(offset))
            .collect();
        if let Some(first) = missing.first() {
            let what = format!("{first} of {place}, and {} more, are not there", missing.len() - 1);
            wrong.push(Violation::new(Check::A7, what));
        }
        let pairs = log.iter().zip(log.iter().skip(1));
        let hole = pairs.filter(|(before, after)| before.offset + 1 != after.offset);
        wrong.extend(hole.map(|(before, after)| {
            Violation::new(Check::A7, format!("the file of {place} goes from {before:?} to {after:?}"))
        }));
    }
    wrong
}

/// A8: what failed, and did not only stay without an answer, is nowhere.
fn failed(seen: &Seen<'_>) -> Vec<Violation> {
    let failed = seen.sends.values().filter(|sent| sent.operation.outcome == Outcome::Fail);
    let there = failed.filter_map(|sent| Some((sent.send.number, seen.landed.get(&sent.send.number)?)));
    there.map(|(number, at)| Violation::new(Check::A8, format!("{number} failed and is at {at:?}"))).collect()
}
