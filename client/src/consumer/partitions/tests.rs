//! Tests of `partitions.rs`: the partitions of a consumer and their buffer.

use std::time::Duration;

use bytes::Bytes;
use klamm_protocol::compression::Compression;
use klamm_protocol::records::{BatchBuilder, BatchOptions};

use super::super::chunk::{self, Reading};
use super::super::lookups::{Plan, Wanted};
use super::super::record::BatchRoom;
use super::*;
use crate::cluster::testing;

const PREFETCH: usize = 1_000;
const SHARE: usize = 100;

fn rules() -> Rules {
    Rules {
        prefetch_bytes: PREFETCH,
        partition_bytes: SHARE,
        reset: OffsetReset::Earliest,
        has_group: false,
        pauses: Pauses { first: Duration::from_millis(100), longest: Duration::from_secs(1) },
    }
}

fn partition(number: i32) -> TopicPartition {
    TopicPartition::new("t", number)
}

fn chunk_reading() -> Reading {
    Reading { check_crcs: true, max_batch_bytes: 1_000_000, committed_only: false, together_bytes: 1_000_000 }
}

/// A chunk of `count` records of 100 bytes and a batch's header from `position` on.
fn chunk(number: i32, position: i64, count: i64) -> Chunk {
    chunk_read(number, position, count, chunk_reading())
}

fn chunk_read(number: i32, position: i64, count: i64, reading: Reading) -> Chunk {
    let mut batch = BatchBuilder::new(BatchOptions { base_offset: position, ..BatchOptions::default() });
    for _ in 0..count {
        batch.append(0, None, Some(&[0; 91]), std::iter::empty::<(&str, Option<&[u8]>)>()).unwrap();
    }
    let position = Anchor::from(position);
    let batch = if count == 0 { Bytes::new() } else { batch.build().unwrap() };
    chunk::read(&partition(number), position, batch, &[], position.offset + count, reading)
}

/// A chunk of `count` records of 100 bytes that take next to nothing on the wire.
fn compressed(number: i32, count: i64) -> Chunk {
    let options = BatchOptions { compression: Compression::Gzip, ..BatchOptions::default() };
    let mut batch = BatchBuilder::new(options);
    for _ in 0..count {
        batch.append(0, None, Some(&[0; 91]), std::iter::empty::<(&str, Option<&[u8]>)>()).unwrap();
    }
    let reading = chunk_reading();
    chunk::read(&partition(number), Anchor::from(0), batch.build().unwrap(), &[], count, reading)
}

/// Partitions at offset 0, ready to be fetched.
fn partitions(count: i32) -> Partitions {
    let mut partitions = Partitions::new(rules());
    for number in 0..count {
        partitions.add(partition(number), Start::At(0), false);
        partitions.seek(&partition(number), Start::At(0), None);
    }
    partitions
}

/// What can be fetched; it counts as asked from here on.
fn begin(partitions: &mut Partitions) -> Vec<Wanted> {
    let Plan { mut fetch, .. } = partitions.plan(&testing::view("t", &[(1, 0); 9]), Instant::now());
    let wanted = fetch.remove(&1).unwrap_or_default();
    for one in &wanted {
        partitions.current(&one.ask.partition, &one.ask.cell).unwrap().position.ask();
    }
    wanted
}

fn fetched(partitions: &mut Partitions, wanted: &Wanted, chunk: Chunk) -> bool {
    partitions.fetched(&wanted.ask.partition, &wanted.ask.cell, chunk, Instant::now())
}

fn names(wanted: &[Wanted]) -> Vec<i32> {
    wanted.iter().map(|wanted| wanted.ask.partition.partition).collect()
}

fn next(chunk: &mut Chunk) -> (Option<i64>, i64) {
    let offset = chunk.next().map(|record| record.unwrap().offset);
    (offset, chunk.position())
}

fn waiting(partitions: &Partitions) -> usize {
    partitions.buffered
}

#[test]
fn a_partition_with_its_share_is_not_fetched() {
    let mut state = partitions(2);
    assert_eq!(state.share(), 500);
    let wanted = begin(&mut state);
    assert_eq!(names(&wanted), [0, 1]);
    assert!(begin(&mut state).is_empty(), "both are asked for");
    assert!(fetched(&mut state, &wanted[0], chunk(0, 0, 5)));
    assert!(fetched(&mut state, &wanted[1], chunk(1, 0, 1)));
    assert_eq!(names(&begin(&mut state)), [1]);
    assert_eq!(waiting(&state), 61 + 500 + 61 + 100);
    state.take().unwrap();
    assert_eq!(names(&begin(&mut state)), [0]);
}

/// The share is what may wait, not what must wait before it is enough.
#[test]
fn exactly_its_share_is_enough() {
    for (prefetch_bytes, wants) in [(461, false), (462, true)] {
        let mut state = partitions(1);
        state.rules.prefetch_bytes = prefetch_bytes;
        let wanted = begin(&mut state);
        assert!(fetched(&mut state, &wanted[0], chunk(0, 0, 4)));
        assert_eq!(waiting(&state), 461);
        assert_eq!(begin(&mut state).len(), usize::from(wants), "{prefetch_bytes}");
    }
}

/// One chunk each, however many it has, and whether or not it was paused and resumed meanwhile.
#[test]
fn partitions_take_turns() {
    for pauses in [false, true] {
        let mut state = partitions(2);
        state.rules.prefetch_bytes = 10_000;
        for (number, at) in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)] {
            let name = partition(number);
            let cell = Arc::clone(&state.all[&name].cell);
            let alone = Reading { together_bytes: 1, ..chunk_reading() };
            assert!(state.fetched(&name, &cell, chunk_read(number, at, 1, alone), Instant::now()));
        }
        if pauses {
            assert!(state.pause(&partition(0), true) && state.pause(&partition(0), false));
        }
        let turns = std::iter::from_fn(|| state.take()).map(|(chunk, _)| chunk.partition.partition);
        assert_eq!(turns.collect::<Vec<_>>(), [0, 1, 0, 1, 0], "paused: {pauses}");
    }
}

#[test]
fn shares_are_of_what_is_not_paused_and_never_below_one_fetch() {
    let mut state = partitions(4);
    assert_eq!(state.share(), 250);
    state.pause(&partition(0), true);
    assert_eq!(state.share(), 333);
    state.stop(&[partition(1)]);
    assert_eq!(state.share(), 500);
    assert_eq!(partitions(0).share(), PREFETCH);
    assert_eq!(partitions(20).share(), SHARE);
}

/// Pausing partitions in turn used to let each of them keep what it had without counting it: sixteen times the
/// budget with the defaults.
#[test]
fn paused_partitions_count_and_keep_at_most_half() {
    let mut state = partitions(9);
    let wanted = begin(&mut state);
    for number in 0..9 {
        fetched(&mut state, &wanted[number as usize], chunk(number, 0, 1));
    }
    for number in 0..3 {
        assert!(state.pause(&partition(number), true));
        assert!(!state.pause(&partition(number), true), "it is paused already");
    }
    assert_eq!(waiting(&state), 9 * 161, "three of 161 bytes are not half");
    assert!(state.pause(&partition(3), true));
    assert_eq!(waiting(&state), 8 * 161, "the fourth is dropped");
    assert_eq!(state.paused(), (0..4).map(partition).collect::<Vec<_>>());
    for number in 4..9 {
        assert_eq!(state.take().unwrap().0.partition, partition(number));
    }
    assert!(state.take().is_none(), "paused ones are not handed out");
    for number in 0..4 {
        assert!(state.pause(&partition(number), false));
        assert!(!state.pause(&partition(number), false));
    }
    assert_eq!(names(&begin(&mut state)), [3, 4, 5, 6, 7, 8]);
    for number in 0..3 {
        assert_eq!(state.take().unwrap().0.partition, partition(number));
    }
    assert_eq!(state.room(), PREFETCH);
    assert_eq!(state.paused_bytes, 0);
}

#[test]
fn an_answer_for_a_paused_partition_is_dropped_when_paused_ones_hold_enough() {
    let mut state = partitions(2);
    let wanted = begin(&mut state);
    state.pause(&partition(0), true);
    assert!(!fetched(&mut state, &wanted[0], chunk(0, 0, 5)));
    assert_eq!(state.room(), PREFETCH);
    state.pause(&partition(0), false);
    let wanted = begin(&mut state);
    assert_eq!((names(&wanted), wanted[0].offset), (vec![0], 0));
    state.pause(&partition(0), true);
    assert!(fetched(&mut state, &wanted[0], chunk(0, 0, 4)), "461 bytes fit");
    assert_eq!((state.paused_bytes, waiting(&state)), (461, 461));
    assert!(state.take().is_none());
    // Exactly half of the budget is theirs.
    for (prefetch_bytes, fits) in [(921, false), (922, true)] {
        let mut state = partitions(1);
        state.rules.prefetch_bytes = prefetch_bytes;
        let wanted = begin(&mut state);
        state.pause(&partition(0), true);
        assert_eq!(fetched(&mut state, &wanted[0], chunk(0, 0, 4)), fits, "{prefetch_bytes}");
        assert_eq!(waiting(&state), if fits { 461 } else { 0 });
    }
}

#[test]
fn an_answer_from_before_a_seek_is_dropped() {
    let mut state = partitions(1);
    let wanted = begin(&mut state);
    assert!(state.seek(&partition(0), Start::At(50), Some(3)));
    assert!(!fetched(&mut state, &wanted[0], chunk(0, 0, 3)));
    assert!(state.take().is_none());
    assert_eq!(state.position(&partition(0)), Some(50));
    assert_eq!(state.positions(true)[&partition(0)], 50);
    let anchor = state.all[&partition(0)].position.anchor();
    assert_eq!(anchor, Some(Anchor { offset: 50, epoch: Some(3) }));
    assert!(!state.seek(&partition(7), Start::At(50), None), "it is not owned");
    assert!(state.seek(&partition(0), Start::Committed, None));
    assert_eq!(state.position(&partition(0)), None, "until it is found");
}

#[test]
fn nothing_is_handed_out_of_a_stopped_partition() {
    let mut state = partitions(1);
    let wanted = begin(&mut state);
    fetched(&mut state, &wanted[0], chunk(0, 0, 3));
    let (mut chunk, cell) = state.take().unwrap();
    assert!(matches!(cell.hand_out(|| next(&mut chunk)), Handed::Given(0)));
    state.stop(&[partition(0)]);
    assert!(matches!(cell.hand_out(|| next(&mut chunk)), Handed::Dead));
    assert_eq!(state.assignment(), [partition(0)], "still owned");
    assert!(!state.is_assigned(&partition(0)));
    assert!(!state.seek(&partition(0), Start::At(5), None));
    state.remove(&[partition(0)]);
    state.add(partition(0), Start::Committed, false);
    assert_eq!(state.position(&partition(0)), None, "where it was is forgotten");
    state.remove(&[partition(0)]);
    assert_eq!(state.room(), PREFETCH);
    assert!(state.assignment().is_empty());
}

#[test]
fn a_chunk_begun_before_a_pause_comes_back_after_it() {
    let mut state = partitions(1);
    let wanted = begin(&mut state);
    fetched(&mut state, &wanted[0], chunk(0, 0, 3));
    let (mut chunk, cell) = state.take().unwrap();
    assert!(matches!(cell.hand_out(|| next(&mut chunk)), Handed::Given(0)));
    state.pause(&partition(0), true);
    assert!(matches!(cell.hand_out(|| next(&mut chunk)), Handed::Paused));
    state.put_back(chunk, &cell);
    assert!(state.take().is_none());
    state.pause(&partition(0), false);
    let (mut chunk, _) = state.take().unwrap();
    assert_eq!(next(&mut chunk), (Some(1), 2));
    assert_eq!(state.room(), PREFETCH);
}

#[test]
fn a_chunk_put_back_of_an_old_cell_is_dropped() {
    let mut state = partitions(1);
    let wanted = begin(&mut state);
    fetched(&mut state, &wanted[0], chunk(0, 0, 3));
    let (chunk, cell) = state.take().unwrap();
    state.seek(&partition(0), Start::At(9), None);
    state.put_back(chunk, &cell);
    assert!(state.take().is_none());
    assert_eq!(state.room(), PREFETCH);
}

#[test]
fn a_resumed_chunk_put_back_comes_first() {
    let mut state = partitions(2);
    let wanted = begin(&mut state);
    fetched(&mut state, &wanted[0], chunk(0, 0, 1));
    fetched(&mut state, &wanted[1], chunk(1, 0, 1));
    let (taken, cell) = state.take().unwrap();
    state.put_back(taken, &cell);
    assert_eq!(waiting(&state), 2 * 161);
    assert_eq!(state.take().unwrap().0.partition, partition(0));
    assert_eq!(state.take().unwrap().0.partition, partition(1));
    assert!(state.take().is_none());
}

#[test]
fn processed_trails_the_position_also_when_records_are_fetched_again() {
    let mut state = partitions(1);
    let wanted = begin(&mut state);
    fetched(&mut state, &wanted[0], chunk(0, 0, 3));
    let (mut chunk, cell) = state.take().unwrap();
    assert!(matches!(cell.hand_out(|| next(&mut chunk)), Handed::Given(0)));
    assert_eq!(state.positions(true)[&partition(0)], 0);
    assert_eq!(state.positions(false)[&partition(0)], 1);
    let now = Instant::now();
    state.rewind(&partition(0), &cell, 1, now + Duration::from_secs(1));
    assert_eq!(state.positions(true)[&partition(0)], 0);
    assert_eq!(state.positions(false)[&partition(0)], 1);
    assert_eq!(state.lag(&partition(0)), Some(2));
    assert!(matches!(cell.hand_out(|| next(&mut chunk)), Handed::Dead));
    state.rewind(&partition(0), &cell, 0, now);
    assert_eq!(state.position(&partition(0)), Some(1), "that cell is gone");
    assert!(begin(&mut state).is_empty(), "it rests");
    let current = Arc::clone(&state.all[&partition(0)].cell);
    current.processed();
    assert_eq!(state.positions(true)[&partition(0)], 1);
}

#[test]
fn an_offset_that_is_found_does_not_make_what_was_handed_out_processed() {
    let cell = Cell::new(None, Arc::default(), false);
    let offsets = || {
        let state = cell.state();
        (state.position, *state.processed())
    };
    cell.begin(5, true);
    assert_eq!(offsets(), (Some(5), Some(5)));
    cell.begin(9, false);
    assert_eq!(offsets(), (Some(5), Some(5)), "records still wait");
    cell.begin(9, true);
    assert_eq!(offsets(), (Some(9), Some(5)));
}

/// It used to be computed without a thought for what a broker may say.
#[test]
fn no_high_watermark_makes_the_lag_panic() {
    assert_eq!(lag(i64::MIN, 5), 0);
    assert_eq!(lag(i64::MAX, i64::MIN), i64::MAX);
    assert_eq!(lag(-1, i64::MAX), 0);
    assert_eq!((lag(7, 5), lag(5, 5), lag(4, 5)), (2, 0, 0));
}

#[test]
fn who_brought_nothing_is_known_to_have_nothing() {
    let mut state = partitions(1);
    let wanted = begin(&mut state);
    assert!(!fetched(&mut state, &wanted[0], chunk(0, 0, 0)));
    assert!(begin(&mut state)[0].peek_at.is_some());
    assert_eq!(state.end_offset(&partition(0)), Some(0));
    assert_eq!(state.lag(&partition(0)), Some(0));
}

#[test]
fn errors_are_told_in_order_and_not_without_end() {
    let mut state = partitions(1);
    for _ in 0..2_000 {
        state.report(ConsumeError::NoGroup);
    }
    assert!(state.has_errors());
    assert_eq!(std::iter::from_fn(|| state.take_error()).count(), 1_000);
    assert!(!state.has_errors());
    assert!(!state.is_finished());
    state.finish();
    assert!(state.is_finished());
    assert!(begin(&mut state).is_empty());
}

#[test]
fn held_partitions_wait_for_their_release() {
    let mut state = Partitions::new(rules());
    state.add(partition(0), Start::At(3), true);
    assert!(begin(&mut state).is_empty());
    state.release();
    assert_eq!(begin(&mut state)[0].offset, 3);
    state.add(partition(0), Start::At(8), false);
    assert_eq!(state.all[&partition(0)].position.anchor(), Some(Anchor::from(3)), "it was there already");
    assert_eq!(state.topics().into_iter().collect::<Vec<_>>(), [Arc::from("t")]);
}

#[test]
fn changes_of_what_is_owned_are_counted() {
    let mut state = Partitions::new(rules());
    assert_eq!(state.changes(), 0);
    for owned in 1..3 {
        state.add(partition(owned), Start::At(0), false);
        assert_eq!(state.changes(), owned as u64);
    }
    state.stop(&[partition(1)]);
    assert_eq!(state.changes(), 2, "still owned");
    state.remove(&[partition(1)]);
    assert_eq!(state.changes(), 3);
}

/// One record of each, and then a pause: what was opened for it waits, however small it was on the wire.
#[test]
fn what_paused_partitions_keep_open_counts() {
    let mut state = partitions(9);
    let mut open = Vec::new();
    for wanted in begin(&mut state) {
        let number = wanted.ask.partition.partition;
        fetched(&mut state, &wanted, compressed(number, 30));
        let (mut chunk, cell) = state.take().unwrap();
        assert!(chunk.bytes < 200, "{} bytes on the wire", chunk.bytes);
        assert!(matches!(cell.hand_out(|| next(&mut chunk)), Handed::Given(0)));
        state.pause(&partition(number), true);
        state.put_back(chunk, &cell);
        open.push(number);
    }
    let kept: usize = state.all.values().flat_map(|partition| &partition.chunks).map(Chunk::held_bytes).sum();
    assert!(kept <= PREFETCH, "{kept} bytes wait");
    assert_eq!(state.paused_bytes, kept);
    // Nothing is lost by it.
    for number in open {
        state.pause(&partition(number), false);
        assert_eq!(state.position(&partition(number)), Some(1));
    }
    let again = begin(&mut state);
    assert!(again.iter().all(|wanted| wanted.offset == 1 || wanted.offset == 30), "{again:?}");
}

/// What was opened when its partition was paused lets go of the answer that it came in.
#[test]
fn a_paused_partition_keeps_no_answer_alive() {
    let mut batch = BatchBuilder::new(BatchOptions::default());
    for _ in 0..2 {
        batch.append(0, None, Some(&[0; 9]), std::iter::empty::<(&str, Option<&[u8]>)>()).unwrap();
    }
    let batch = batch.build().unwrap();
    let answer = Bytes::from([&batch[..], &[0; 9_000]].concat());
    let mut state = partitions(1);
    let wanted = begin(&mut state).remove(0);
    let reading = chunk_reading();
    let part = answer.slice(..batch.len());
    fetched(&mut state, &wanted, chunk::read(&partition(0), Anchor::from(0), part, &[], 2, reading));
    let (mut chunk, cell) = state.take().unwrap();
    assert!(matches!(cell.hand_out(|| next(&mut chunk)), Handed::Given(0)));
    assert!(!answer.is_unique());
    state.pause(&partition(0), true);
    state.put_back(chunk, &cell);
    assert!(answer.is_unique());
    state.pause(&partition(0), false);
    let (mut chunk, cell) = state.take().unwrap();
    assert!(matches!(cell.hand_out(|| next(&mut chunk)), Handed::Given(1)));
}

/// A position that goes back keeps the epoch of what was fetched last: the next leader is asked whether it has it.
#[test]
fn what_is_fetched_again_is_checked_by_its_epoch() {
    let epoch = Some(3);
    let mut state = partitions(1);
    let at = |state: &mut Partitions, offset| {
        state.all.get_mut(&partition(0)).unwrap().position.found(Anchor { offset, epoch }, None);
    };
    let anchor = |state: &Partitions| state.all[&partition(0)].position.anchor();
    at(&mut state, 7);
    let cell = Arc::clone(&state.all[&partition(0)].cell);
    state.rewind(&partition(0), &cell, 5, Instant::now());
    assert_eq!(anchor(&state), Some(Anchor { offset: 5, epoch }));
    // The same for what a pause dropped.
    let cell = Arc::clone(&state.all[&partition(0)].cell);
    assert!(state.fetched(&partition(0), &cell, chunk(0, 5, 5), Instant::now()));
    state.pause(&partition(0), true);
    assert_eq!(anchor(&state), Some(Anchor { offset: 5, epoch }));
}

/// What was handed out before its partition's buffer was dropped is processed like any other: without a seek in between
/// the program has it.
#[test]
fn what_is_processed_counts_also_when_it_is_fetched_again() {
    let mut state = partitions(1);
    let wanted = begin(&mut state).remove(0);
    fetched(&mut state, &wanted, chunk(0, 0, 7));
    let (mut chunk, cell) = state.take().unwrap();
    assert!(matches!(cell.hand_out(|| next(&mut chunk)), Handed::Given(0)));
    state.refetch(&partition(0), Anchor::from(1));
    assert_eq!(state.positions(true)[&partition(0)], 0, "not yet");
    cell.processed();
    assert_eq!(state.positions(true)[&partition(0)], 1);
    // After a seek the old place says nothing.
    state.seek(&partition(0), Start::At(5), None);
    cell.processed();
    assert_eq!(state.positions(true)[&partition(0)], 5);
}

#[test]
fn a_sample_has_what_is_known() {
    let mut state = partitions(2);
    let wanted = begin(&mut state);
    let fetched_first = chunk(0, 0, 3);
    assert_eq!(fetched_first.records, 3);
    assert!(fetched(&mut state, &wanted[0], fetched_first));
    let sample = state.sample();
    assert_eq!((sample.assigned, sample.buffered_bytes), (2, state.buffered()));
    assert!(sample.buffered_bytes > 0);
    assert_eq!(sample.lags, BTreeMap::from([(partition(0), 3)]), "of the other nothing is known");
}

/// A program that commits after each batch never caught up with a topic of small fetches: what came meanwhile waited in
/// as many pieces as it had come in.
#[test]
fn a_reader_that_is_behind_gets_many_records_at_a_time() {
    let mut state = partitions(1);
    for offset in 0..3 {
        let wanted = begin(&mut state).remove(0);
        assert!(fetched(&mut state, &wanted, chunk(0, offset, 1)));
    }
    assert_eq!(waiting(&state), 3 * 161);
    let (mut chunk, _) = state.take().unwrap();
    assert_eq!(chunk.take_together(BatchRoom::UNLIMITED, false).unwrap().unwrap().records.len(), 3);
    assert_eq!(waiting(&state), 0);
    assert!(state.take().is_none());
}
