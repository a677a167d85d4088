//! Stories of one transactional id.

use std::collections::BTreeSet;

use klamm_protocol::ErrorCode;

use super::super::calls::{AddPartitions, Command, Reply};
use super::super::coordinator::Coordinator;
use super::super::transaction::{State, TransactionVersion, TransactionVersion::*};
use super::sim::*;
use crate::coordinator::{Core, Ticket};

const BOTH: [TransactionVersion; 2] = [V1, V2];

#[test]
fn a_transaction_is_committed() {
    for version in BOTH {
        let mut sim = Sim::new();
        let first = sim.init(None).unwrap();
        assert_eq!(first, producer(101, 0));
        assert_eq!(sim.state(), Some(State::Empty));
        assert_eq!(sim.add(first, [("t", 0), ("u", 3)], version), ErrorCode::None);
        assert_eq!(sim.add(first, [("t", 1)], version), ErrorCode::None);
        let written = sim.log.len();
        assert_eq!(sim.add(first, [("t", 1), ("u", 3)], version), ErrorCode::None);
        assert_eq!(sim.log.len(), written, "they take part already");
        assert_eq!(sim.markers(), []);
        let after = sim.end(first, true, version).unwrap();
        assert_eq!(after, producer(101, i16::from(version == V2)));
        assert_eq!(sim.state(), Some(State::PrepareCommit));
        let markers = sim.mark_all();
        assert_eq!(markers.len(), 1);
        assert_eq!((markers[0].producer, markers[0].commit), (after, true), "markers carry the new epoch");
        assert_eq!(markers[0].partitions, partitions([("t", 0), ("t", 1), ("u", 3)]));
        assert_eq!(sim.state(), Some(State::CompleteCommit));
        assert_eq!(sim.markers(), []);
        assert_eq!(sim.add(after, [("t", 0)], version), ErrorCode::None, "the next one");
        let abort = sim.end(after, false, version).unwrap();
        let markers = sim.mark_all();
        assert_eq!((markers[0].producer, markers[0].commit), (abort, false));
        assert_eq!(markers[0].partitions, partitions([("t", 0)]), "nothing of the one before");
        assert_eq!(sim.state(), Some(State::CompleteAbort));
    }
}

#[test]
fn who_comes_anew_fences_who_was_there() {
    let mut sim = Sim::new();
    let old = sim.init(None).unwrap();
    let new = sim.init(None).unwrap();
    assert_eq!(new, producer(101, 1));
    assert_eq!(sim.add(old, [("t", 0)], V1), ErrorCode::ProducerFenced);
    assert_eq!(sim.end(old, true, V1), Err(ErrorCode::ProducerFenced));
    assert_eq!(sim.init(Some(producer(99, 1))), Err(ErrorCode::ProducerFenced));
    assert_eq!(sim.add(producer(99, 1), [("t", 0)], V1), ErrorCode::InvalidProducerIdMapping);
    assert_eq!(sim.end(producer(99, 1), true, V1), Err(ErrorCode::InvalidProducerIdMapping));
    assert_eq!(sim.add(new, [("t", 0)], V1), ErrorCode::None);
}

#[test]
fn an_open_transaction_is_aborted_for_who_comes_anew() {
    let mut sim = Sim::new();
    let old = sim.init(None).unwrap();
    assert_eq!(sim.add(old, [("t", 0)], V1), ErrorCode::None);
    let command = sim.init_command(None);
    let ticket = sim.submit(command);
    assert_eq!(sim.answer(ticket), None, "it waits for the markers");
    assert_eq!(sim.end(old, true, V1), Err(ErrorCode::ProducerFenced));
    let markers = sim.mark_all();
    assert_eq!((markers[0].producer, markers[0].commit), (producer(101, 1), false));
    assert_eq!(sim.answer(ticket), Some(Reply::Producer(Ok(producer(101, 2)))));
}

/// On a full disk for instance: at once again would be for ever.
#[test]
fn an_end_that_cannot_be_written_is_tried_again_after_a_while() {
    let mut sim = Sim::new();
    let old = sim.init(None).unwrap();
    sim.add(old, [("t", 0)], V1);
    let due = i64::from(TIMEOUT_MS);
    assert_eq!(sim.coordinator.next_deadline(), Some(due));
    sim.ms = due - 1;
    sim.in_vain(|core, now, effects| core.on(now, 99, add_command(old, [("u", 0)], V1), effects));
    assert_eq!(sim.coordinator.next_deadline(), Some(due), "it is not due yet");
    for ms in [due, due + 1_000, due + 2_500] {
        sim.ms = ms;
        sim.in_vain(Coordinator::on_time);
        assert_eq!(sim.coordinator.next_deadline(), Some(ms + 1_000));
    }
    assert_eq!(sim.state(), Some(State::Ongoing));
    sim.pass(1_000);
    assert_eq!(sim.state(), Some(State::PrepareAbort));
    assert_eq!(sim.coordinator.next_deadline(), None);
}

/// A zombie that says who it was cannot end the transaction of who came after it.
#[test]
fn a_zombie_that_says_who_it_was_aborts_nothing() {
    let mut sim = Sim::new();
    let old = sim.init(None).unwrap();
    let new = sim.init(None).unwrap();
    sim.add(new, [("t", 0)], V1);
    assert_eq!(sim.init(Some(old)), Err(ErrorCode::ProducerFenced));
    assert_eq!(sim.state(), Some(State::Ongoing));
}

#[test]
fn who_says_who_it_is_gets_the_next_epoch_and_the_same_again() {
    let mut sim = Sim::new();
    let first = sim.init(None).unwrap();
    let second = sim.init(Some(first)).unwrap();
    assert_eq!(second, producer(101, 1));
    assert_eq!(sim.init(Some(first)), Ok(second), "the answer was lost");
    assert_eq!(sim.init(Some(second)), Ok(producer(101, 2)));
    assert_eq!(sim.init(Some(first)), Err(ErrorCode::ProducerFenced));
}

#[test]
fn epochs_that_are_used_up_give_another_producer_id() {
    let mut sim = Sim::new();
    let mut last = sim.init(None).unwrap();
    while last.epoch < i16::MAX - 1 {
        last = sim.init(Some(last)).unwrap();
        assert_eq!(last.id, 101);
        sim.log.clear();
    }
    let next = sim.init(Some(last)).unwrap();
    assert!(next.id != 101 && next.epoch == 0, "{next:?}");
    assert_eq!(sim.init(Some(last)), Ok(next), "the answer was lost");
    assert_eq!(sim.add(last, [("t", 0)], V1), ErrorCode::InvalidProducerIdMapping);
    assert_eq!(sim.end(last, true, V1), Err(ErrorCode::ProducerFenced));
}

#[test]
fn the_end_of_a_transaction_gives_another_producer_id_when_epochs_are_used_up() {
    let mut sim = Sim::new();
    let mut last = sim.init(None).unwrap();
    while last.epoch < i16::MAX - 1 {
        last = sim.init(Some(last)).unwrap();
        sim.log.clear();
    }
    sim.add(last, [("t", 0)], V2);
    let next = sim.end(last, true, V2).unwrap();
    assert!(next.id != 101 && next.epoch == 0, "{next:?}");
    let markers = sim.mark_all();
    assert_eq!(markers[0].producer, producer(101, i16::MAX), "its own");
    assert_eq!(sim.end(last, true, V2), Ok(next), "the answer was lost");
    assert_eq!(sim.add(next, [("t", 0)], V2), ErrorCode::None);
}

#[test]
fn without_a_producer_id_that_nobody_has_nothing_happens() {
    let mut sim = Sim::new();
    let Command::Init(mut call) = sim.init_command(None) else { unreachable!() };
    call.fresh_producer_id = None;
    assert_eq!(sim.ask(Command::Init(call)), Reply::NeedsProducerId);
    assert_eq!((sim.state(), sim.log.len()), (None, 0));
}

#[test]
fn what_takes_too_long_is_aborted() {
    let mut sim = Sim::new();
    let slow = sim.init(None).unwrap();
    sim.pass(5_000);
    assert_eq!(sim.add(slow, [("t", 0)], V1), ErrorCode::None);
    sim.pass(i64::from(TIMEOUT_MS) - 1);
    assert_eq!(sim.add(slow, [("t", 1)], V1), ErrorCode::None, "it began a moment less ago");
    sim.pass(1);
    assert_eq!(sim.state(), Some(State::PrepareAbort));
    assert_eq!(sim.end(slow, true, V1), Err(ErrorCode::ProducerFenced));
    let markers = sim.mark_all();
    assert_eq!((markers[0].producer, markers[0].commit), (producer(101, 1), false));
    assert_eq!(sim.state(), Some(State::CompleteAbort));
}

#[test]
fn a_restart_goes_on_where_it_was() {
    for version in BOTH {
        let mut sim = Sim::new();
        let client = sim.init(None).unwrap();
        sim.add(client, [("t", 0)], version);
        sim.pass(10_000);
        sim.restart();
        sim.pass(i64::from(TIMEOUT_MS) - 10_001);
        assert_eq!(sim.state(), Some(State::Ongoing));
        let client = sim.end(client, true, version).unwrap();
        sim.restart();
        assert_eq!(sim.state(), Some(State::PrepareCommit));
        let markers = sim.mark_all();
        assert_eq!((markers[0].producer, markers[0].commit), (client, true));
        sim.restart();
        assert_eq!((sim.state(), sim.markers()), (Some(State::CompleteCommit), vec![]));
        sim.add(client, [("t", 0)], version);
        sim.restart();
        sim.pass(i64::from(TIMEOUT_MS));
        assert_eq!(sim.state(), Some(State::PrepareAbort), "its time is known after a restart");
    }
}

#[test]
fn an_end_that_is_repeated_is_answered_as_before() {
    let mut sim = Sim::new();
    let first = sim.init(None).unwrap();
    sim.add(first, [("t", 0)], V2);
    let second = sim.end(first, true, V2).unwrap();
    assert_eq!(sim.end(first, true, V2), Ok(second));
    assert_eq!(sim.end(first, false, V2), Err(ErrorCode::InvalidTxnState));
    sim.mark_all();
    assert_eq!(sim.end(first, true, V2), Ok(second));
    assert_eq!(sim.end(first, false, V2), Err(ErrorCode::InvalidTxnState));
    sim.add(second, [("t", 0)], V2);
    assert_eq!(sim.end(first, true, V2), Err(ErrorCode::ProducerFenced), "the next one is open");
    let third = sim.end(second, false, V2).unwrap();
    sim.mark_all();
    assert_eq!(sim.end(second, false, V2), Ok(third));
    assert_eq!(sim.end(second, true, V2), Err(ErrorCode::InvalidTxnState));
    assert_eq!(sim.end(third, true, V2), Err(ErrorCode::InvalidTxnState), "nothing to commit");
}

#[test]
fn a_version_1_end_that_is_repeated() {
    let mut sim = Sim::new();
    let client = sim.init(None).unwrap();
    assert_eq!(sim.end(client, true, V1), Err(ErrorCode::InvalidTxnState));
    assert_eq!(sim.end(client, false, V1), Err(ErrorCode::InvalidTxnState));
    for commit in [true, false] {
        sim.add(client, [("t", 0)], V1);
        assert_eq!(sim.end(client, commit, V1), Ok(client));
        assert_eq!(sim.end(client, commit, V1), Err(ErrorCode::ConcurrentTransactions));
        assert_eq!(sim.end(client, !commit, V1), Err(ErrorCode::InvalidTxnState));
        sim.mark_all();
        assert_eq!(sim.end(client, commit, V1), Ok(client));
        assert_eq!(sim.end(client, !commit, V1), Err(ErrorCode::InvalidTxnState));
    }
}

/// By version 2 an abort raises the epoch also when nothing was written, so that nothing late gets in.
#[test]
fn nothing_can_be_aborted_by_version_2() {
    let mut sim = Sim::new();
    let first = sim.init(None).unwrap();
    let second = sim.end(first, false, V2).unwrap();
    assert_eq!(second, producer(101, 1));
    assert_eq!(sim.end(second, false, V2), Err(ErrorCode::ConcurrentTransactions));
    assert_eq!(sim.end(second, true, V2), Err(ErrorCode::ConcurrentTransactions));
    let markers = sim.mark_all();
    assert!(markers[0].partitions.is_empty());
    assert_eq!(sim.add(first, [("t", 0)], V2), ErrorCode::ProducerFenced);
    assert_eq!(sim.end(second, false, V2), Ok(producer(101, 2)));
}

#[test]
fn the_next_transaction_waits_for_the_markers_of_the_one_before() {
    let mut sim = Sim::new();
    let client = sim.init(None).unwrap();
    sim.add(client, [("t", 0)], V1);
    sim.end(client, true, V1).unwrap();
    let next = sim.submit(add_command(client, [("u", 1)], V1));
    assert_eq!(sim.answer(next), None);
    sim.mark_all();
    assert_eq!(sim.answer(next), Some(Reply::Code(ErrorCode::None)));
    assert_eq!(sim.state(), Some(State::Ongoing));
    sim.end(client, true, V1).unwrap();
    let all: Vec<Ticket> = (0..17).map(|_| sim.submit(add_command(client, [("u", 1)], V1))).collect();
    let told: Vec<bool> = all.iter().map(|ticket| sim.answer(*ticket).is_some()).collect();
    assert_eq!(told.iter().filter(|told| **told).count(), 1, "so many may wait");
    assert!(told[16]);
}

#[test]
fn what_takes_part_is_verified() {
    let mut sim = Sim::new();
    let client = sim.init(None).unwrap();
    let verify = |producer, all| {
        Command::Verify(AddPartitions { id: ID.to_owned(), producer, partitions: all, version: V1 })
    };
    let both = || partitions([("t", 0), ("t", 1)]);
    let code = |index, code| ("t".to_owned(), index, code);
    let none = vec![code(0, ErrorCode::TransactionAbortable), code(1, ErrorCode::TransactionAbortable)];
    assert_eq!(sim.ask(verify(client, both())), Reply::Codes(Ok(none.clone())));
    sim.add(client, [("t", 1)], V1);
    let one = vec![code(0, ErrorCode::TransactionAbortable), code(1, ErrorCode::None)];
    assert_eq!(sim.ask(verify(client, both())), Reply::Codes(Ok(one)));
    let fenced = sim.ask(verify(producer(101, 5), both()));
    assert_eq!(fenced, Reply::Codes(Err(ErrorCode::ProducerFenced)));
    sim.end(client, true, V1).unwrap();
    assert_eq!(sim.ask(verify(client, both())), Reply::Codes(Err(ErrorCode::ConcurrentTransactions)));
    sim.mark_all();
    assert_eq!(sim.ask(verify(client, both())), Reply::Codes(Ok(none)));
}

#[test]
fn markers_are_handed_out_to_who_waits_and_not_what_is_under_way() {
    let mut sim = Sim::new();
    let client = sim.init(None).unwrap();
    let first = sim.submit(Command::NextMarkers { under_way: BTreeSet::new() });
    let second = sim.submit(Command::NextMarkers { under_way: BTreeSet::new() });
    assert_eq!(sim.answer(first), Some(Reply::Markers(vec![])), "one asks at a time");
    sim.add(client, [("t", 0)], V1);
    assert_eq!(sim.answer(second), None);
    sim.end(client, true, V1).unwrap();
    let Some(Reply::Markers(markers)) = sim.answer(second) else { panic!("markers") };
    let under_way = BTreeSet::from([markers[0].decision]);
    let third = sim.submit(Command::NextMarkers { under_way });
    assert_eq!((markers.len(), sim.answer(third)), (1, None));
    assert_eq!(sim.markers().len(), 1, "who is not marking it gets it");
}

#[test]
fn what_was_marked_of_another_transaction_ends_nothing() {
    let mut sim = Sim::new();
    let client = sim.init(None).unwrap();
    let marked = |decision| Command::Marked { id: ID.to_owned(), decision };
    sim.add(client, [("t", 0)], V1);
    assert_eq!(sim.ask(marked(0)), Reply::Done);
    assert_eq!(sim.state(), Some(State::Ongoing));
    sim.end(client, true, V1).unwrap();
    let first = sim.mark_all()[0].decision;
    sim.add(client, [("t", 0)], V1);
    sim.end(client, false, V1).unwrap();
    assert_eq!(sim.ask(marked(first)), Reply::Done);
    assert_eq!(sim.state(), Some(State::PrepareAbort), "by the same producer and epoch");
    assert_eq!(sim.ask(Command::Marked { id: "other".to_owned(), decision: first + 1 }), Reply::Done);
    assert_eq!(sim.state(), Some(State::PrepareAbort));
}

#[test]
fn ids_that_nobody_uses_are_forgotten() {
    const WEEK_MS: i64 = 7 * 24 * 60 * 60 * 1_000;
    let mut sim = Sim::new();
    let client = sim.init(None).unwrap();
    sim.add(client, [("t", 0)], V1);
    sim.end(client, true, V1).unwrap();
    sim.ms += WEEK_MS;
    let expire = |sim: &mut Sim| {
        sim.submit(Command::Expire);
    };
    expire(&mut sim);
    assert_eq!(sim.state(), Some(State::PrepareCommit), "it is not ended");
    sim.mark_all();
    sim.ms += WEEK_MS - 1;
    expire(&mut sim);
    assert_eq!(sim.state(), Some(State::CompleteCommit));
    sim.ms += 1;
    expire(&mut sim);
    assert_eq!(sim.state(), None);
    assert_eq!(sim.log.last().map(|record| record.value.is_none()), Some(true));
    sim.restart();
    assert_eq!(sim.state(), None);
}

#[test]
fn what_cannot_be_is_refused() {
    let mut sim = Sim::new();
    for (timeout_ms, expected) in [
        (0, ErrorCode::InvalidTransactionTimeout),
        (-1, ErrorCode::InvalidTransactionTimeout),
        (900_001, ErrorCode::InvalidTransactionTimeout),
    ] {
        let Command::Init(mut call) = sim.init_command(None) else { unreachable!() };
        call.timeout_ms = timeout_ms;
        assert_eq!(sim.ask(Command::Init(call)), Reply::Producer(Err(expected)));
    }
    for id in [String::new(), "x".repeat(1_025)] {
        let Command::Init(mut call) = sim.init_command(None) else { unreachable!() };
        call.id = id;
        assert_eq!(sim.ask(Command::Init(call)), Reply::Producer(Err(ErrorCode::InvalidRequest)));
    }
    let Command::Init(mut call) = sim.init_command(None) else { unreachable!() };
    (call.timeout_ms, call.id) = (900_000, "x".repeat(1_024));
    assert!(matches!(sim.ask(Command::Init(call)), Reply::Producer(Ok(_))));
    let nobody = producer(1, 0);
    assert_eq!(sim.add(nobody, [("t", 0)], V1), ErrorCode::InvalidProducerIdMapping);
    assert_eq!(sim.end(nobody, true, V1), Err(ErrorCode::InvalidProducerIdMapping));
}
