//! The engine: each rule by itself, then all of them in random histories.

use std::collections::BTreeMap;

use klamm_protocol::ErrorCode;

use super::super::core::{BatchKind, Now, StoredBatch, Ticket};
use super::super::engine::{AppendFailure, Engine, Told};
use super::registers::{Ask, CLOCK, Mixed, Registers, producer};
use super::world::{MAX_BATCH_BYTES, World};

const NOW: Now = Now { ms: 5, wall_ms: 7 };
const UNAVAILABLE: ErrorCode = ErrorCode::CoordinatorNotAvailable;

fn ready() -> Engine<Registers> {
    let mut engine = Engine::loading(Registers::default(), MAX_BATCH_BYTES);
    engine.loaded(NOW, Registers::default(), None);
    engine
}

fn refused() -> Result<i64, AppendFailure> {
    Err(AppendFailure::Refused("no space".into()))
}

fn values(engine: &Engine<Registers>) -> Vec<(u8, u64)> {
    engine.ask(|core| core.values.clone()).unwrap().into_iter().collect()
}

fn told(engine: &mut Engine<Registers>) -> Vec<(Ticket, Told<u64>)> {
    engine.take_told()
}

#[test]
fn an_answer_waits_until_what_it_rests_on_is_durable() {
    let mut engine = ready();
    assert_eq!(engine.on(NOW, 1, Ask::Get(1)), None);
    assert_eq!(told(&mut engine), [(1, Ok(0))], "nothing is under way");
    assert_eq!(engine.on(NOW, 2, Ask::Set(1, 10)), Some(1));
    assert_eq!(engine.on(NOW, 3, Ask::Get(1)), None);
    assert_eq!(engine.on(NOW, 4, Ask::Get(2)), None);
    assert_eq!(told(&mut engine), [(4, Ok(0))], "who asks of another register does not wait");
    assert!(engine.has_append() && engine.is_pending(1) && !engine.is_pending(2));
    assert_eq!(engine.next_append().unwrap().records.len(), 1);
    assert!(!engine.has_append() && engine.next_append().is_none(), "nothing to append");
    assert_eq!(engine.next_durable(), None);
    engine.appended(NOW, Ok(70));
    assert_eq!((engine.next_durable(), told(&mut engine)), (Some(70), vec![]));
    engine.durable(69);
    assert_eq!((engine.next_durable(), told(&mut engine)), (Some(70), vec![]));
    engine.durable(70);
    assert_eq!((engine.next_durable(), engine.is_pending(1)), (None, false));
    assert_eq!(told(&mut engine), [(2, Ok(10)), (3, Ok(10))]);
}

#[test]
fn a_step_that_writes_nothing_has_no_number_to_rest_on() {
    let mut engine = ready();
    engine.on(NOW, 1, Ask::Claim);
    assert_eq!(told(&mut engine), [(1, Ok(0))]);
    engine.on(NOW, 2, Ask::Set(1, 10));
    engine.on(NOW, 3, Ask::Claim);
    assert_eq!(told(&mut engine), []);
    engine.next_append();
    engine.appended(NOW, Ok(0));
    engine.durable(0);
    assert_eq!(told(&mut engine), [(2, Ok(10)), (3, Ok(0))]);
}

#[test]
fn commands_gather_while_an_append_is_under_way() {
    let mut engine = ready();
    engine.on(NOW, 1, Ask::Set(1, 10));
    assert_eq!(engine.next_append().unwrap().records.len(), 1);
    for (ticket, key) in [(2, 2), (3, 3), (4, 4)] {
        engine.on(NOW, ticket, Ask::Set(key, 20));
    }
    assert!(!engine.has_append());
    engine.appended(NOW, Ok(0));
    assert_eq!(engine.next_append().unwrap().records.len(), 3);
    engine.appended(NOW, Ok(3));
    engine.durable(0);
    assert_eq!(told(&mut engine), [(1, Ok(10))]);
    engine.durable(3);
    assert_eq!(told(&mut engine).len(), 3);
}

#[test]
fn a_batch_takes_no_more_than_the_log_does() {
    let mut engine = ready();
    // Two of these are too much for one batch, and each of the last two is just as much as there may be, and one more.
    let overhead = 40 + 1;
    for (ticket, bytes) in [(1, 2_500), (2, 1_000), (3, 1_000), (4, MAX_BATCH_BYTES - overhead)] {
        assert_eq!(engine.on(NOW, ticket, Ask::SetLarge(1, ticket, bytes)), Some(ticket));
    }
    assert_eq!(engine.on(NOW, 5, Ask::SetLarge(2, 5, MAX_BATCH_BYTES - overhead + 1)), None);
    assert_eq!(told(&mut engine), [(5, Err(ErrorCode::MessageTooLarge))]);
    assert_eq!(values(&engine), [(1, 4)], "the others are as they were");
    let mut batches = Vec::new();
    while let Some(batch) = engine.next_append() {
        batches.push(batch.records.len());
        engine.appended(NOW, Ok(batches.len() as i64));
    }
    assert_eq!(batches, [2, 1, 1]);
    engine.durable(3);
    assert_eq!(told(&mut engine).len(), 4);
}

/// What waits for its append, each batch with its kind and the number of its records.
fn take_batches(engine: &mut Engine<Registers>) -> Vec<(BatchKind, usize)> {
    let mut batches = Vec::new();
    while let Some(StoredBatch { kind, records }) = engine.next_append() {
        batches.push((kind, records.len()));
        engine.appended(NOW, Ok(batches.len() as i64));
    }
    batches
}

/// Steps of one kind that follow each other share a batch; none is put before one that came before it.
#[test]
fn the_log_has_the_order_of_the_steps_whoever_writes_them() {
    let mut engine = ready();
    let steps = [
        Ask::Set(1, 1),
        Ask::Set(2, 1),
        Ask::SetAs(7, 1, 2),
        Ask::SetAs(7, 2, 2),
        Ask::SetAs(8, 1, 3),
        Ask::SetAs(7, 3, 2),
        Ask::Set(1, 4),
        Ask::End(8, false),
        Ask::End(7, true),
        Ask::End(7, true),
        Ask::Set(2, 5),
    ];
    for (ticket, step) in (1..).zip(steps) {
        assert_eq!(engine.on(NOW, ticket, step), Some(ticket), "a marker is a step as any other");
    }
    assert_eq!(values(&engine), [(1, 2), (2, 5), (3, 2)]);
    let (as_7, as_8) = (BatchKind::Transactional(producer(7)), BatchKind::Transactional(producer(8)));
    let marker = |id, commit| (BatchKind::Marker { producer: producer(id), commit }, 0);
    let plain = |count| (BatchKind::Plain, count);
    let expected = [
        plain(2),
        (as_7, 2),
        (as_8, 1),
        (as_7, 1),
        plain(1),
        marker(8, false),
        marker(7, true),
        marker(7, true),
        plain(1),
    ];
    assert_eq!(take_batches(&mut engine), expected);
    engine.durable(6);
    assert_eq!(told(&mut engine).last(), Some(&(8, Ok(1))), "the abort is durable, the commit is not");
    engine.durable(7);
    assert_eq!(told(&mut engine), [(9, Ok(3))]);
    engine.durable(9);
    assert_eq!(told(&mut engine), [(10, Ok(0)), (11, Ok(5))]);
}

#[test]
fn a_marker_that_is_refused_has_ended_nothing() {
    let mut engine = ready();
    engine.on(NOW, 1, Ask::SetAs(7, 1, 2));
    engine.next_append();
    engine.appended(NOW, Ok(0));
    engine.on(NOW, 2, Ask::End(7, true));
    engine.on(NOW, 3, Ask::Get(1));
    assert_eq!(engine.next_append().map(|batch| batch.records.len()), Some(0));
    engine.appended(NOW, refused());
    assert_eq!(told(&mut engine), [(2, Err(UNAVAILABLE)), (3, Err(UNAVAILABLE))]);
    assert_eq!(values(&engine), []);
    engine.on(NOW, 4, Ask::End(7, true));
    assert_eq!(values(&engine), [(1, 2)]);
}

/// It would not be one batch, and a crash could leave half of it.
#[test]
fn a_step_of_several_kinds_is_refused() {
    let all = [
        Mixed::PlainAndTransactional,
        Mixed::TwoProducers,
        Mixed::MarkerAndRecord,
        Mixed::RecordAndMarker,
        Mixed::TwoMarkers,
    ];
    for mixed in all {
        let mut engine = ready();
        assert_eq!(engine.on(NOW, 1, Ask::Mix(mixed)), None, "{mixed:?}");
        assert_eq!(told(&mut engine), [(1, Err(ErrorCode::UnknownServerError))], "{mixed:?}");
        assert!(!engine.has_append());
        assert_eq!(engine.on(NOW, 2, Ask::Set(1, 1)), Some(1));
    }
}

#[test]
fn what_cannot_be_written_down_never_happened() {
    let mut engine = ready();
    engine.on(NOW, 1, Ask::Set(1, 10));
    engine.on(NOW, 2, Ask::Wait(1));
    engine.on(NOW, 3, Ask::SetInVain(1));
    let error = Err(ErrorCode::InvalidRequest);
    assert_eq!(told(&mut engine), [(2, error), (3, error)], "nor is told who waited for it");
    assert_eq!(values(&engine), [(1, 10)]);
    assert_eq!(engine.next_append().unwrap().records.len(), 1);
}

#[test]
fn a_refused_append_takes_back_its_batch_and_what_came_after() {
    let mut engine = ready();
    engine.on(NOW, 1, Ask::Set(1, 10));
    engine.next_append();
    engine.appended(NOW, Ok(0));
    engine.on(NOW, 2, Ask::Set(1, 20));
    engine.on(NOW, 3, Ask::Set(2, 20));
    engine.next_append();
    engine.on(NOW, 4, Ask::Set(2, 30));
    engine.on(NOW, 5, Ask::Get(2));
    engine.on(NOW, 6, Ask::Wait(9));
    engine.appended(NOW, refused());
    let error = Err(UNAVAILABLE);
    assert_eq!(told(&mut engine), [(2, error), (3, error), (4, error), (5, error)]);
    assert_eq!(values(&engine), [(1, 10)], "what is written is kept");
    assert!(!engine.has_append() && !engine.is_pending(2) && engine.is_pending(1));
    // The log takes what comes next, under the numbers that are free again.
    assert_eq!(engine.on(NOW, 7, Ask::Set(9, 40)), Some(2));
    engine.next_append();
    engine.appended(NOW, Ok(1));
    engine.durable(0);
    assert_eq!(told(&mut engine), [(1, Ok(10))]);
    engine.durable(1);
    assert_eq!(told(&mut engine), [(6, Ok(40)), (7, Ok(40))], "who waits for others goes on waiting");
}

#[test]
fn a_refused_first_append_leaves_nothing() {
    let mut engine = ready();
    engine.on(NOW, 1, Ask::Set(1, 10));
    engine.next_append();
    engine.appended(NOW, refused());
    assert_eq!((told(&mut engine), values(&engine)), (vec![(1, Err(UNAVAILABLE))], vec![]));
}

#[test]
fn a_lost_log_ends_everything_that_is_not_durable() {
    for at_append in [true, false] {
        let mut engine = ready();
        engine.on(NOW, 1, Ask::Set(1, 10));
        engine.on(NOW, 2, Ask::Wait(1));
        engine.on(NOW, 3, Ask::Wait(5));
        engine.next_append();
        if at_append {
            engine.appended(NOW, Err(AppendFailure::Lost("disk failed".into())));
        } else {
            engine.appended(NOW, Ok(0));
            engine.fail(NOW);
        }
        let mut answered = told(&mut engine);
        answered.sort_by_key(|(ticket, _)| *ticket);
        let error = Err(UNAVAILABLE);
        assert_eq!(answered, [(1, error), (2, error), (3, error)]);
        assert_eq!(engine.on(NOW, 4, Ask::Get(1)), None);
        assert_eq!(told(&mut engine), [(4, error)]);
        assert_eq!(engine.ask(|_| ()), Err(UNAVAILABLE));
        engine.inform(NOW, Ask::Set(1, 1));
        engine.durable(0);
        assert_eq!((engine.has_append(), engine.next_durable(), told(&mut engine)), (false, None, vec![]));
    }
}

#[test]
fn an_append_that_ends_after_the_log_was_lost_changes_nothing() {
    for ended in [Ok(0), refused()] {
        let mut engine = ready();
        engine.on(NOW, 1, Ask::Set(1, 10));
        engine.next_append();
        engine.fail(NOW);
        assert_eq!(told(&mut engine), [(1, Err(UNAVAILABLE))]);
        engine.appended(NOW, ended);
        assert_eq!((engine.next_durable(), told(&mut engine)), (None, vec![]));
    }
}

#[test]
fn nobody_is_served_while_loading_and_what_the_broker_says_is_done_after() {
    let mut engine = Engine::loading(Registers::default(), MAX_BATCH_BYTES);
    assert_eq!(engine.on(NOW, 1, Ask::Get(1)), None);
    assert_eq!(told(&mut engine), [(1, Err(ErrorCode::CoordinatorLoadInProgress))]);
    assert_eq!(engine.ask(|_| ()), Err(ErrorCode::CoordinatorLoadInProgress));
    engine.inform(NOW, Ask::Set(1, 2));
    assert!(!engine.has_append());
    let mut core = Registers::default();
    core.values.insert(1, 9);
    core.values.insert(2, 9);
    engine.loaded(NOW, core, Some(Ask::Set(1, 1)));
    assert_eq!(values(&engine), [(1, 2), (2, 9)], "first what a core begins with, then what came meanwhile");
    assert_eq!(engine.next_append().unwrap().records.len(), 2);
    engine.loaded(NOW, Registers::default(), None);
    assert_eq!(values(&engine).len(), 2, "loaded once");
    assert_eq!(told(&mut engine), [], "and nobody is told");
}

#[test]
fn time_passes_when_there_is_something_to_do() {
    let mut engine = ready();
    assert_eq!(engine.next_deadline(), None);
    engine.on(NOW, 1, Ask::SetAt(20, 3));
    assert_eq!(engine.next_deadline(), Some(20));
    engine.on_time(Now { ms: 19, ..NOW });
    assert!(!engine.has_append());
    engine.on_time(Now { ms: 20, ..NOW });
    assert!(engine.has_append() && engine.next_deadline().is_none());
    assert_eq!(values(&engine), [(CLOCK, 3)]);
    engine.on(NOW, 2, Ask::SetAt(30, 3));
    engine.fail(NOW);
    assert_eq!(engine.next_deadline(), None);
}

#[test]
fn a_broker_that_stops_ends_the_waits_and_answers_what_is_written() {
    let mut engine = ready();
    engine.on(NOW, 1, Ask::Set(1, 10));
    engine.on(NOW, 2, Ask::Wait(2));
    engine.stop();
    assert_eq!(told(&mut engine), [(2, Err(UNAVAILABLE))]);
    engine.on(NOW, 3, Ask::Wait(2));
    assert_eq!(told(&mut engine), [(3, Err(UNAVAILABLE))]);
    engine.on(NOW, 4, Ask::Set(1, 20));
    assert_eq!(told(&mut engine), []);
    engine.next_append();
    engine.appended(NOW, Ok(1));
    engine.durable(1);
    assert_eq!(told(&mut engine), [(1, Ok(10)), (4, Ok(20))]);
}

/// What the callers of a history know.
#[derive(Debug, Default)]
struct Known {
    sets: BTreeMap<Ticket, (u8, u64)>,
    gets: BTreeMap<Ticket, (u8, u64)>,
    /// The last value of each register that somebody was told of.
    seen: BTreeMap<u8, u64>,
}

fn take_told(world: &mut World<Registers>, known: &mut Known) {
    let durable = |world: &World<Registers>, key: u8, value: u64| {
        world
            .durable_records()
            .any(|record| record.key[0] == key && record.value.as_ref().unwrap()[..8] == value.to_be_bytes())
    };
    for (ticket, told) in world.take_told() {
        let set = known.sets.remove(&ticket);
        let get = known.gets.remove(&ticket);
        let Ok(value) = told else { continue };
        if let Some((key, expected)) = set {
            assert_eq!(value, expected);
            assert!(durable(world, key, value), "told of what is not durable");
            let seen = known.seen.entry(key).or_default();
            *seen = value.max(*seen);
        }
        if let Some((key, seen_before)) = get {
            assert!(value == 0 || durable(world, key, value), "shown what is not durable");
            assert!(value >= seen_before, "shown something older than what was known when it was asked for");
        }
    }
}

/// Histories of commands, slow and failing appends, crashes at every point.
#[test]
fn whatever_the_log_does_nobody_is_told_what_is_not_so() {
    let (mut refused, mut crashes) = (0, 0);
    for seed in 0..2_000 {
        let mut world = World::new(seed, Registers::default);
        let mut known = Known::default();
        for value in 1..world.below(200) + 2 {
            let key = u8::try_from(world.below(4)).unwrap();
            match world.below(15) {
                // Others than those that are set at once: what a transaction sets is shown late.
                12 | 13 => drop(world.ask(Ask::SetAs(i64::from(key) % 3, key + 4, value))),
                14 => drop(world.ask(Ask::End(i64::from(key) % 3, value % 3 > 0))),
                0..3 => drop(known.sets.insert(world.ask(Ask::Set(key, value)), (key, value))),
                3 => {
                    let bytes = usize::try_from(world.below(5_000)).unwrap();
                    known.sets.insert(world.ask(Ask::SetLarge(key, value, bytes)), (key, value));
                }
                4 => drop(world.ask(Ask::SetInVain(key))),
                5 => {
                    let seen = known.seen.get(&key).copied().unwrap_or(0);
                    known.gets.insert(world.ask(Ask::Get(key)), (key, seen));
                }
                6 => drop(world.ask(Ask::Wait(key))),
                7 => drop(world.ask(Ask::SetAt(world.now().ms + 500, value))),
                8 => world.inform(Ask::Set(key, value)),
                _ => world.happen(None),
            }
            take_told(&mut world, &mut known);
            let shown = world.engine.ask(Registers::durable_values);
            assert!(
                shown.is_err() || shown == Ok(world.replayed().values),
                "seed {seed}: what a reader may see"
            );
        }
        world.settle(None);
        take_told(&mut world, &mut known);
        // Whoever waits for a register is told when it is set.
        for key in 0..4 {
            world.ask(Ask::Set(key, 1_000_000));
        }
        world.settle(None);
        assert!(world.all_are_answered(), "seed {seed}: an answer was lost");
        let state = |core: &Registers| (core.values.clone(), core.pending.clone());
        let found = world.engine.ask(state).unwrap();
        assert_eq!(found, state(&world.replayed()), "seed {seed}: rolled back is as if replayed");
        refused += world.refused;
        crashes += world.crashes;
    }
    assert!(refused > 400 && crashes > 200, "{refused} refused, {crashes} crashes");
}

#[test]
fn the_same_seed_writes_the_same_log() {
    let run = |seed| {
        let mut world = World::new(seed, Registers::default);
        for value in 1..200 {
            let key = u8::try_from(world.below(4)).unwrap();
            match world.below(4) {
                0 => world.ask(Ask::SetAs(i64::from(key), key, value)),
                1 => world.ask(Ask::End(i64::from(key), value % 2 == 0)),
                _ => world.ask(Ask::Set(key, value)),
            };
            world.happen(None);
        }
        world.settle(None);
        world.log().to_vec()
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3), run(4));
}
