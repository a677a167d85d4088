//! For every check a history that breaks it and no other promise than is said, and one in which all is well.

use std::collections::BTreeSet;

use super::check;
use super::example::*;
use super::operation::{
    Check, End, Entry, Found, Holds, Isolation, Number, Operation, Outcome, Place, Send, What,
};
use Isolation::{Committed, Uncommitted};

/// What is broken in the good history after a change.
#[track_caller]
fn finds<T>(wanted: &[Check], change: impl FnOnce(&mut Example) -> T) {
    let mut example = good();
    change(&mut example);
    let violations = check(&example.history);
    let found: BTreeSet<Check> = violations.iter().map(|one| one.check).collect();
    assert_eq!(found, wanted.iter().copied().collect(), "{violations:#?}");
}

impl Example {
    fn send_of(&mut self, wanted: Number) -> &mut Operation {
        let of =
            |operation: &&mut Operation| matches!(&operation.what, What::Send(send) if send.number == wanted);
        self.history.operations.iter_mut().find(of).unwrap()
    }

    fn end_of(&mut self, wanted: u64) -> usize {
        let ended = |one: &Operation| match &one.what {
            What::End { transaction, .. } => Some(transaction.number),
            _ => None,
        };
        self.history.operations.iter().position(|one| ended(one) == Some(wanted)).unwrap()
    }

    /// One more record at the end of a log, there for readers of these isolations.
    fn append(&mut self, place: Place, producer_id: i64, number: Number, isolations: &[Isolation]) -> i64 {
        let at = self.history.finals[&(place, Uncommitted)].end;
        for isolation in [Uncommitted, Committed] {
            let read = self.history.finals.get_mut(&(place, isolation)).unwrap();
            read.end = at + 1;
            if isolations.contains(&isolation) {
                read.records.insert(at, found(at, number));
            }
        }
        self.history.logs.get_mut(&place).unwrap().push(record(at, producer_id, number));
        at
    }

    fn forget(&mut self, place: Place, isolation: Isolation, offset: i64) {
        self.history.finals.get_mut(&(place, isolation)).unwrap().records.remove(&offset);
    }

    fn unanswered(&mut self, place: Place, number: Number) -> usize {
        let at = self.send(place, number, 0);
        let operation = &mut self.history.operations[at];
        (operation.begun, operation.outcome) = (0, Outcome::Info);
        let What::Send(send) = &mut operation.what else { unreachable!() };
        send.offset = None;
        at
    }
}

const BOTH: &[Isolation] = &[Uncommitted, Committed];

#[test]
fn in_a_good_history_nothing_is_found() {
    finds(&[], |_| {});
    // Whatever has no answer may have been done or not.
    finds(&[], |it| it.unanswered(IN, 12));
    finds(&[], |it| {
        it.unanswered(IN, 12);
        it.append(IN, -1, 12, BOTH);
    });
}

#[test]
fn a1_acknowledged_or_read_and_gone() {
    finds(&[Check::A1, Check::A7], |it| BOTH.iter().for_each(|isolation| it.forget(IN, *isolation, 3)));
    finds(&[Check::A1], |it| {
        BOTH.iter().for_each(|isolation| it.forget(IN, *isolation, 4));
        BOTH.iter().for_each(|isolation| it.history.finals.get_mut(&(IN, *isolation)).unwrap().end = 4);
    });
    finds(&[Check::A1], |it| {
        it.unanswered(IN, 12);
        it.read(IN, Uncommitted, 9, &[(5, 12)]);
    });
}

#[test]
fn a2_twice() {
    finds(&[Check::A2], |it| it.append(IN, -1, 3, BOTH));
    finds(&[], |it| {
        it.append(IN, -1, 3, BOTH);
        let What::Send(send) = &mut it.send_of(3).what else { unreachable!() };
        send.idempotent = false;
    });
}

#[test]
fn a3_two_at_one_offset() {
    finds(&[Check::A3], |it| {
        it.unanswered(IN, 12);
        it.read(IN, Uncommitted, 9, &[(0, 12)]);
    });
    // As its acknowledgement says, and as its reader does.
    finds(&[Check::A3], |it| {
        let What::Send(send) = &mut it.send_of(11).what else { unreachable!() };
        send.offset = Some(3);
        it.send_of(11).begun = 0;
    });
}

#[test]
fn a4_sent_later_and_standing_earlier() {
    finds(&[Check::A4], |it| {
        (it.send_of(2).begun, it.send_of(2).outcome) = (0, Outcome::Ok(1));
        (it.send_of(1).begun, it.send_of(1).outcome) = (2, Outcome::Ok(3));
    });
    finds(&[], |it| {
        (it.send_of(2).begun, it.send_of(2).outcome) = (0, Outcome::Ok(1));
        (it.send_of(1).begun, it.send_of(1).outcome) = (1, Outcome::Ok(3));
    });
}

#[test]
fn a5_sent_by_nobody() {
    finds(&[Check::A5], |it| it.append(IN, -1, 99, BOTH));
    finds(&[Check::A5], |it| {
        it.unanswered(OUT, 12);
        it.append(IN, -1, 12, BOTH);
    });
    finds(&[Check::A5], |it| {
        let at = it.append(IN, -1, 99, &[]);
        let damaged = Found { number: None, ..found(at, 0) };
        it.history.finals.get_mut(&(IN, Uncommitted)).unwrap().records.insert(at, damaged);
    });
    finds(&[Check::A5, Check::A6], |it| {
        let at = it.read(IN, Uncommitted, 9, &[(4, 11)]);
        (it.history.operations[at].begun, it.history.operations[at].outcome) = (0, Outcome::Ok(1));
    });
}

#[test]
fn a6_ends_and_epochs_that_go_back() {
    finds(&[Check::A6], |it| it.look(IN, End::HighWatermark, 4));
    finds(&[Check::A6], |it| it.look(OUT, End::LastStable, 5));
    for (second, wanted) in [(2, &[][..]), (1, &[Check::A6][..])] {
        finds(wanted, |it| {
            it.look(IN, End::LogStart, 2);
            it.look(IN, End::LogStart, second);
        });
    }
    finds(&[Check::A6], |it| {
        let read = it.history.finals.get_mut(&(IN, Uncommitted)).unwrap();
        read.records.get_mut(&2).unwrap().epoch += 1;
    });
}

#[test]
fn a7_gaps() {
    finds(&[Check::A7], |it| it.history.finals.get_mut(&(OUT, Uncommitted)).unwrap().end += 1);
    finds(&[Check::A7], |it| it.history.logs.get_mut(&IN).unwrap().remove(2));
}

#[test]
fn a8_failed_and_there() {
    finds(&[Check::A8], |it| {
        let at = it.unanswered(IN, 12);
        it.history.operations[at].outcome = Outcome::Fail;
        it.append(IN, -1, 12, BOTH);
    });
}

#[test]
fn b1_passed_over() {
    finds(&[Check::B1], |it| it.read(IN, Uncommitted, 9, &[(0, 1), (2, 3)]));
    finds(&[Check::B1], |it| {
        it.read(OUT, Committed, 9, &[(0, 5)]);
        it.unanswered(OUT, 12);
        let at = it.append(OUT, -1, 12, BOTH);
        it.read(OUT, Committed, 9, &[(at, 12)]);
    });
}

#[test]
fn b2_back() {
    finds(&[Check::B2], |it| {
        it.read(IN, Uncommitted, 9, &[(0, 1), (1, 2)]);
        it.read(IN, Uncommitted, 9, &[(1, 2)]);
    });
    finds(&[Check::B2], |it| it.read(IN, Uncommitted, 9, &[(0, 1), (1, 2), (0, 1)]));
    // Another assignment may.
    finds(&[], |it| {
        it.read(IN, Uncommitted, 9, &[(0, 1), (1, 2)]);
        it.read(IN, Uncommitted, 10, &[(1, 2)]);
    });
}

#[test]
fn b3_committed_offsets_that_go_back() {
    finds(&[Check::B3], |it| it.fetch(Some(2)));
    finds(&[Check::B3], |it| it.fetch(Some(3)));
    finds(&[Check::B3], |it| it.history.committed.insert(("readers", IN), 2));
    // One of which nobody knows may be done late.
    finds(&[], |it| {
        let at = it.commit(1, "a", 1);
        (it.history.operations[at].begun, it.history.operations[at].outcome) = (1, Outcome::Info);
        it.fetch(Some(1));
        it.fetch(Some(4));
    });
    finds(&[], |it| {
        let at =
            it.history.operations.iter().position(|one| matches!(one.what, What::Commit { .. })).unwrap();
        let What::Commit { again, .. } = &mut it.history.operations[at].what else { unreachable!() };
        *again = true;
        it.fetch(Some(2));
    });
    // What was seen is there, whoever was told.
    finds(&[Check::B3], |it| {
        let at = it.commit(2, "b", 5);
        it.history.operations[at].outcome = Outcome::Info;
        it.fetch(Some(5));
        it.fetch(Some(4));
    });
}

#[test]
fn b4_two_owners() {
    let own = |it: &mut Example, generation| {
        let member = "c".to_owned();
        it.step("reader", What::Own { group: "readers", generation, member, places: vec![IN] }, true);
    };
    finds(&[Check::B4], |it| own(it, 2));
    finds(&[], |it| own(it, 3));
    finds(&[Check::B4], |it| it.commit(2, "c", 4));
}

#[test]
fn b5_nought_from_nowhere() {
    finds(&[Check::B5], |it| it.fetch(None));
    finds(&[Check::B5], |it| it.fetch(Some(0)));
    finds(&[Check::B5], |it| it.look(IN, End::HighWatermark, 0));
    finds(&[Check::B5], |it| it.look(OUT, End::LastStable, 0));
}

#[test]
fn b6_committed_and_not_processed() {
    finds(&[Check::B6], |it| {
        let of = |one: &Operation| matches!(&one.what, What::Read(read) if read.records == [found(2, 3)]);
        it.history.operations.retain(|one| !of(one));
    });
}

#[test]
fn b7_nothing_done_after_the_faults() {
    finds(&[Check::B7], |it| it.history.alive.insert("gone".to_owned()));
    finds(&[Check::B7], |it| it.history.rules.progress = 4);
    finds(&[], |it| it.history.rules.progress = 15);
}

#[test]
fn c1_aborted_and_read() {
    finds(&[Check::C1], |it| it.read(OUT, Committed, 9, &[(2, 9)]));
    finds(&[Check::C1, Check::C6], |it| {
        let end = it.end_of(0);
        it.history.operations[end].outcome = Outcome::Fail;
    });
}

#[test]
fn c2_open_and_read() {
    finds(&[Check::C2], |it| {
        let end = it.end_of(1);
        it.history.operations.remove(end);
        it.read(OUT, Committed, 9, &[(2, 9)]);
    });
    finds(&[Check::C2], |it| {
        let end = it.end_of(2);
        let asked = it.history.operations[end].begun;
        let at = it.read(OUT, Committed, 9, &[(4, 7)]);
        it.history.operations[at].begun = asked - 1;
        it.history.operations[at].outcome = Outcome::Ok(asked - 1);
    });
}

#[test]
fn c3_torn() {
    finds(&[Check::C3], |it| {
        let end = it.end_of(2);
        it.history.operations[end].outcome = Outcome::Info;
        it.forget(OTHER, Committed, 4);
    });
}

#[test]
fn c4_lost() {
    finds(&[Check::C4], |it| [OUT, OTHER].iter().for_each(|place| it.forget(*place, Committed, 4)));
}

#[test]
fn c5_zombies() {
    let (own, other) = (transaction(1, 51), transaction(2, 52));
    let succeed = |it: &mut Example| it.step("other", What::Begin(other.clone()), true);
    // Its record.
    finds(&[Check::C5], |it| {
        succeed(it);
        let at = it.append(OTHER, 7, 20, &[Uncommitted]);
        it.send_in(&own, OTHER, 20, at);
    });
    // Its record, of which it was told nothing.
    finds(&[Check::C5], |it| {
        succeed(it);
        it.append(OTHER, 7, 20, &[Uncommitted]);
        let at = it.send_in(&own, OTHER, 20, 0);
        it.history.operations[at].outcome = Outcome::Info;
        let What::Send(Send { offset, .. }) = &mut it.history.operations[at].what else { unreachable!() };
        *offset = None;
    });
    // Its offsets.
    finds(&[Check::C5], |it| {
        succeed(it);
        let offsets = vec![(IN, 4)];
        it.step("mover", What::SendOffsets { transaction: own.clone(), group: "copiers", offsets }, true);
    });
    // Its commit.
    let commit = |it: &mut Example, before: bool| {
        let at = it.append(OTHER, 7, 20, BOTH);
        it.send_in(&own, OTHER, 20, at);
        if before {
            succeed(it);
        }
        it.end(&own, true);
    };
    finds(&[Check::C5], |it| commit(it, true));
    finds(&[], |it| commit(it, false));
}

#[test]
fn c6_the_wrong_transaction() {
    let entry =
        |it: &mut Example, at: usize, entry: Entry| it.history.logs.get_mut(&OUT).unwrap()[at] = entry;
    finds(&[Check::C6], |it| entry(it, 5, marker(5, 7, false)));
    finds(&[Check::C6], |it| entry(it, 3, marker(3, 7, true)));
    // The marker of another producer: its own is missing, and its record joins the next transaction.
    finds(&[Check::C6], |it| entry(it, 3, marker(3, 8, false)));
    finds(&[Check::C6], |it| {
        let at = it.append(OUT, 7, 21, BOTH);
        it.send_in(&transaction(1, 2), OUT, 21, at);
    });
    // One of no transaction has nothing to do with it.
    finds(&[], |it| {
        let at = it.append(OUT, 7, 21, BOTH);
        it.send(OUT, 21, at);
        let holds = Holds::Record { number: Some(21), transactional: false };
        entry(it, 6, Entry { offset: 6, producer_id: 7, holds });
    });
}

#[test]
fn c7_stuck_behind_a_transaction() {
    let waits = |it: &mut Example, steps: u64| {
        it.history.rules.transaction = 35;
        let at = it.append(OUT, -1, 22, BOTH);
        it.send(OUT, 22, at);
        it.now += 10 * steps;
        it.look(OUT, End::LastStable, 6);
    };
    finds(&[], |it| waits(it, 3));
    finds(&[Check::C7], |it| waits(it, 4));
}

#[test]
fn c8_copies_and_offsets() {
    let copies = |it: &mut Example, sources: [Option<(Place, i64)>; 2]| {
        for (number, from) in [5, 6].into_iter().zip(sources) {
            let What::Send(send) = &mut it.send_of(number).what else { unreachable!() };
            send.source = from;
        }
        let offsets = vec![(IN, 2)];
        it.step(
            "mover",
            What::SendOffsets { transaction: transaction(1, 0), group: "copiers", offsets },
            true,
        );
        it.history.committed.insert(("copiers", IN), 2);
    };
    finds(&[], |it| copies(it, [Some((IN, 0)), Some((IN, 1))]));
    finds(&[Check::C8], |it| copies(it, [Some((IN, 0)), None]));
    finds(&[Check::C8], |it| copies(it, [Some((IN, 0)), Some((IN, 0))]));
    finds(&[Check::C8], |it| {
        copies(it, [Some((IN, 0)), Some((IN, 1))]);
        let What::Send(send) = &mut it.send_of(7).what else { unreachable!() };
        send.source = Some((IN, 3));
    });
}
