//! A small history in which all is well, for each check to be shown what it must find in one that is not. Pure.

use super::operation::{
    End, Entry, FinalRead, Found, History, Holds, Isolation, Micros, Number, Operation, Outcome, Place, Read,
    Send, Transaction, What,
};

pub(super) const IN: Place = Place { topic: "in", partition: 0 };
pub(super) const OUT: Place = Place { topic: "out", partition: 0 };
pub(super) const OTHER: Place = Place { topic: "out", partition: 1 };

/// What one step takes.
const STEP: Micros = 10;

/// A history that is being told.
#[derive(Debug, Default)]
pub(super) struct Example {
    pub(super) history: History,
    pub(super) now: Micros,
}

impl Example {
    /// One thing after the other; gives where it stands.
    pub(super) fn step(&mut self, client: &str, what: What, done: bool) -> usize {
        let begun = self.now;
        self.now += STEP;
        let outcome = if done { Outcome::Ok(begun + STEP / 2) } else { Outcome::Info };
        self.history.operations.push(Operation { client: client.to_owned(), begun, outcome, what });
        self.history.operations.len() - 1
    }

    pub(super) fn send(&mut self, place: Place, number: Number, offset: i64) -> usize {
        let (transaction, source, offset) = (None, None, Some(offset));
        let send = Send { place, number, idempotent: true, transaction, source, offset };
        self.step("writer", What::Send(send), true)
    }

    pub(super) fn send_in(&mut self, of: &Transaction, place: Place, number: Number, offset: i64) -> usize {
        let at = self.send(place, number, offset);
        if let What::Send(send) = &mut self.history.operations[at].what {
            send.transaction = Some(of.clone());
        }
        at
    }

    pub(super) fn end(&mut self, transaction: &Transaction, commit: bool) -> usize {
        self.step("writer", What::End { transaction: transaction.clone(), commit }, true)
    }

    pub(super) fn read(
        &mut self,
        place: Place,
        isolation: Isolation,
        session: u64,
        at: &[(i64, Number)],
    ) -> usize {
        let records: Vec<Found> = at.iter().map(|(offset, number)| found(*offset, *number)).collect();
        let next = at.last().map_or(0, |(offset, _)| offset + 1);
        let group = (place == IN).then_some("readers");
        self.step("reader", What::Read(Read { place, isolation, session, group, records, next }), true)
    }

    pub(super) fn commit(&mut self, generation: i32, member: &str, offset: i64) -> usize {
        let member = member.to_owned();
        let (group, place, again) = ("readers", IN, false);
        self.step("reader", What::Commit { group, generation, member, place, offset, again }, true)
    }

    pub(super) fn fetch(&mut self, found: Option<i64>) -> usize {
        self.step("asker", What::FetchOffset { group: "readers", place: IN, found }, true)
    }

    pub(super) fn look(&mut self, place: Place, end: End, found: i64) -> usize {
        self.step("looker", What::Look { place, end, found }, true)
    }
}

pub(super) fn found(offset: i64, number: Number) -> Found {
    Found { offset, number: Some(number), epoch: 3 }
}

pub(super) fn transaction(instance: u64, number: u64) -> Transaction {
    Transaction { id: "mover".to_owned(), instance, number }
}

pub(super) fn record(offset: i64, producer_id: i64, number: Number) -> Entry {
    let transactional = producer_id >= 0;
    Entry { offset, producer_id, holds: Holds::Record { number: Some(number), transactional } }
}

pub(super) fn marker(offset: i64, producer_id: i64, commit: bool) -> Entry {
    Entry { offset, producer_id, holds: Holds::Marker { commit } }
}

pub(super) fn final_read(end: i64, at: &[(i64, Number)]) -> FinalRead {
    let records = at.iter().map(|(offset, number)| (*offset, found(*offset, *number))).collect();
    FinalRead { start: 0, end, records }
}

/// Records 1 to 4 in `in`; 5 to 8 in two committed transactions, 9 and 10 in an aborted one between them; a group that
/// reads two records in each of two generations.
pub(super) fn good() -> Example {
    let mut example = Example::default();
    let it = &mut example;
    for (number, offset) in [(1, 0), (2, 1), (3, 2)] {
        it.send(IN, number, offset);
    }
    it.look(IN, End::HighWatermark, 3);
    it.fetch(None);
    let own = |generation, member: &str| {
        let member = member.to_owned();
        What::Own { group: "readers", generation, member, places: vec![IN] }
    };
    it.step("reader", own(1, "a"), true);
    it.read(IN, Isolation::Uncommitted, 1, &[(0, 1), (1, 2)]);
    it.commit(1, "a", 2);
    it.fetch(Some(2));
    it.send(IN, 4, 3);
    it.step("reader", own(2, "b"), true);
    it.read(IN, Isolation::Uncommitted, 2, &[(2, 3)]);
    it.read(IN, Isolation::Uncommitted, 2, &[(3, 4)]);
    it.commit(2, "b", 4);
    it.fetch(Some(4));
    for (at, (numbers, offset, commit)) in
        [([5, 6], 0, true), ([9, 10], 2, false), ([7, 8], 4, true)].into_iter().enumerate()
    {
        let one = transaction(1, at as u64);
        it.step("mover", What::Begin(one.clone()), true);
        it.send_in(&one, OUT, numbers[0], offset);
        it.send_in(&one, OTHER, numbers[1], offset);
        it.look(OUT, End::LastStable, offset);
        it.end(&one, commit);
        if commit {
            it.read(OUT, Isolation::Committed, 3, &[(offset, numbers[0])]);
        }
    }
    it.look(OUT, End::LastStable, 6);
    it.history.healed = Some(it.now);
    for client in ["writer", "looker"] {
        it.history.alive.insert(client.to_owned());
    }
    it.send(IN, 11, 4);
    it.look(OUT, End::HighWatermark, 6);
    let h = &mut it.history;
    let all = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 11)];
    for isolation in [Isolation::Uncommitted, Isolation::Committed] {
        h.finals.insert((IN, isolation), final_read(5, &all));
    }
    h.logs.insert(IN, all.iter().map(|(offset, number)| record(*offset, -1, *number)).collect());
    for (place, [a, b, c]) in [(OUT, [5, 9, 7]), (OTHER, [6, 10, 8])] {
        h.finals.insert((place, Isolation::Uncommitted), final_read(6, &[(0, a), (2, b), (4, c)]));
        h.finals.insert((place, Isolation::Committed), final_read(6, &[(0, a), (4, c)]));
        let entries = [(0, a, true), (2, b, false), (4, c, true)];
        let entries = entries.map(|(at, number, commit)| [record(at, 7, number), marker(at + 1, 7, commit)]);
        h.logs.insert(place, entries.concat());
    }
    h.committed.insert(("readers", IN), 4);
    example
}
