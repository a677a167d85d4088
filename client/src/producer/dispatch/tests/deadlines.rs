//! What is given up in time, and what is forgotten when it is not used.

use super::*;

#[test]
fn deadlines_hold_where_a_batch_waits_and_where_it_flies() {
    let mut bench = Bench::settled();
    let timeout = rules().delivery_timeout;
    bench.add(0, 1);
    bench.pass();
    bench.add(1, 2);
    bench.pass();
    bench.answer(2, ErrorCode::NotEnoughReplicas);
    bench.nodes.connected.clear();
    bench.now += SECOND;
    bench.pass();
    bench.add(2, 3);
    bench.pass();
    bench.now = bench.start + LINGER - LINGER + timeout - Duration::from_nanos(1);
    assert!(!bench.pass().iter().any(|told| told.contains("failed")));
    bench.now += Duration::from_nanos(1);
    let told = bench.pass();
    let failed: Vec<_> = told.iter().filter(|told| told.contains("failed")).collect();
    assert_eq!(failed.len(), 2, "{told:?}");
    assert!(failed[0].starts_with("[2] failed, maybe written false"), "{told:?}");
    assert!(failed[0].contains("the broker answered NOT_ENOUGH_REPLICAS"), "{told:?}");
    assert!(failed[1].starts_with("[1] failed, maybe written true"), "{told:?}");
    assert!(told.contains(&"release [2]".to_owned()) && !told.contains(&"release [1]".to_owned()));
    bench.now += SECOND;
    let told = bench.pass();
    assert!(told[0].starts_with("[3] failed, maybe written false"), "{told:?}");
    assert!(told[0].contains("last error: none"), "{told:?}");
    // Its place is free when it comes back.
    bench.lose(1);
    assert_eq!(bench.pass(), ["report 1, first false", "release [1]", "refresh"]);
}

#[test]
fn what_is_behind_an_expired_batch_goes_on() {
    let mut bench = Bench::settled();
    bench.add(0, 1);
    bench.pass();
    bench.now += 60 * SECOND;
    bench.add(0, 2);
    bench.pass();
    bench.lose(1);
    bench.lose(2);
    bench.nodes.connected.clear();
    bench.pass();
    bench.now += 60 * SECOND;
    let told = bench.pass();
    assert!(told[0].starts_with("[1] failed, maybe written true"), "{told:?}");
    bench.nodes.connected.insert(1);
    assert_eq!(bench.pass(), ["send 3 to 1: 0:[2]@7.0.2 again"], "the broker knows whether it has them");
    bench.answer(3, ErrorCode::OutOfOrderSequenceNumber);
    bench.now += SECOND;
    assert_eq!(bench.pass(), ["send 4 to 1: 0:[2]@7.1.0"]);
}

#[test]
fn what_is_overdue_in_flight_is_told_once_and_released_when_it_is_over() {
    for code in [ErrorCode::None, ErrorCode::OutOfOrderSequenceNumber, ErrorCode::MessageTooLarge] {
        let mut bench = Bench::settled();
        bench.store.add(0, vec![1, 2], bench.now - LINGER);
        bench.pass();
        bench.now += 120 * SECOND;
        let told = bench.pass();
        assert!(told[0].starts_with("[1, 2] failed, maybe written true"), "{told:?}");
        assert_eq!(told.len(), 1);
        bench.now += 31 * SECOND;
        assert_eq!(bench.pass(), NOTHING, "its place is kept");
        bench.answer(1, code);
        let told = bench.pass();
        let released = told.iter().filter(|told| told.starts_with("release")).count();
        assert_eq!(released, 1, "{told:?}");
    }
}

/// What is behind the deadline of one has its own.
#[test]
fn each_batch_has_a_deadline_of_its_own() {
    let mut bench = Bench::settled();
    bench.add(0, 1);
    bench.pass();
    bench.now += SECOND;
    bench.add(0, 2);
    bench.pass();
    bench.now = bench.start + 120 * SECOND;
    let told = bench.pass();
    assert!(told[0].starts_with("[1] failed, maybe written true"), "{told:?}");
    assert_eq!(told.len(), 1, "the other one is a second younger");
    assert_eq!(bench.wakes_in(), Some(SECOND));
    bench.now += SECOND - Duration::from_nanos(1);
    assert_eq!(bench.pass(), NOTHING);
    bench.now += Duration::from_nanos(1);
    assert!(bench.pass()[0].starts_with("[2] failed, maybe written true"));
}

/// A lane that is only kept because it was used lately gets a batch whose deadline comes first.
#[test]
fn a_deadline_before_the_end_of_idleness_is_kept() {
    let mut bench = Bench::settled_by(Rules { delivery_timeout: 10 * SECOND, ..rules() });
    bench.now = bench.start + 10 * SECOND;
    assert_eq!(bench.pass(), NOTHING);
    assert_eq!(bench.wakes_in(), Some(20 * SECOND + LINGER), "30 s after its last record it is forgotten");
    bench.nodes.connected.clear();
    bench.add(0, 1);
    assert_eq!(bench.pass(), ["connect 1"]);
    assert_eq!(bench.wakes_in(), Some(10 * SECOND - LINGER));
    bench.now += 10 * SECOND - LINGER;
    assert!(bench.pass()[0].starts_with("[1] failed, maybe written false"));
}

/// Its end of idleness is the very instant of its deadline, and its batch is still in flight: it is looked at later,
/// not for ever at this instant.
#[test]
fn what_is_in_flight_at_the_end_of_idleness_is_looked_at_later() {
    let idle_after = 120 * SECOND - LINGER;
    let mut bench = Bench::settled_by(Rules { idle_after, ..rules() });
    bench.add(0, 1);
    bench.pass();
    bench.now = bench.start + 120 * SECOND;
    let told = bench.pass();
    assert!(told[0].starts_with("[1] failed, maybe written true"), "{told:?}");
    assert_eq!((bench.dispatch.entries.len(), bench.wakes_in()), (1, Some(idle_after)));
}

/// A batch that is being closed cannot be taken: it comes back in a moment, and is told then.
#[test]
fn what_is_being_closed_at_its_deadline_is_looked_at_again_in_a_moment() {
    let mut bench = Bench::settled();
    bench.nodes.connected.clear();
    bench.add(0, 1);
    bench.pass();
    bench.store.away.insert(0);
    bench.now = bench.start + 120 * SECOND;
    assert_eq!(bench.pass(), NOTHING);
    assert_eq!(bench.wakes_in(), Some(MOMENT));
    bench.store.away.clear();
    bench.now += MOMENT;
    assert!(bench.pass()[0].starts_with("[1] failed, maybe written false"));
}

/// The records of the batch have been told, but what the broker says of its sequences counts for those behind it.
#[test]
fn what_is_told_of_an_overdue_batch_counts_for_those_behind_it() {
    let overdue = || {
        let mut bench = Bench::settled();
        bench.add(0, 1);
        bench.pass();
        bench.now += SECOND;
        bench.add(0, 2);
        bench.pass();
        bench.now = bench.start + 120 * SECOND;
        assert!(bench.pass()[0].starts_with("[1] failed, maybe written true"));
        bench
    };
    // The broker does not have it, and thus nothing behind it, whatever became of that.
    let mut bench = overdue();
    bench.lose(2);
    bench.answer(1, ErrorCode::OutOfOrderSequenceNumber);
    bench.pass();
    bench.now += SECOND / 2;
    assert_eq!(
        bench.pass(),
        ["send 3 to 1: 0:[2]@7.1.0"],
        "under the next epoch, which needs nobody's leave"
    );
    // The broker knows nothing: what may be written is not sent again under another epoch.
    let mut bench = overdue();
    bench.lose(2);
    bench.answer(1, ErrorCode::UnknownProducerId);
    bench.pass();
    bench.now += SECOND / 2;
    let told = bench.pass();
    assert!(
        told[0].starts_with("[2] failed, maybe written true: t-0: the broker answered UNKNOWN_PRODUCER_ID"),
        "{told:?}"
    );
    // Another producer has taken over the id.
    let mut bench = overdue();
    bench.answer(2, ErrorCode::NotEnoughReplicas);
    bench.answer(1, ErrorCode::ProducerFenced);
    assert_eq!(bench.pass(), ["release [1]"]);
    bench.now += SECOND / 2;
    assert_eq!(bench.pass(), ["identify"]);
    bench.identify(8);
    assert_eq!(bench.pass(), ["send 3 to 1: 0:[2]@8.0.0"]);
}

#[test]
fn idle_lanes_are_forgotten_but_not_their_sequences() {
    let mut bench = Bench::settled();
    assert_eq!(bench.wakes_in(), Some(120 * SECOND - LINGER));
    bench.now = bench.start + 120 * SECOND;
    assert_eq!(bench.pass(), NOTHING);
    assert!(bench.dispatch.entries.is_empty(), "not used for 30 s");
    assert!(bench.store.partitions.is_empty());
    assert_eq!(bench.wakes_in(), None);
    bench.add(0, 1);
    assert_eq!(bench.pass(), ["send 1 to 1: 3:[1]@7.0.1"]);
    // One that is used is kept for as long again.
    bench.now += 119 * SECOND;
    bench.answer(1, ErrorCode::None);
    bench.pass();
    bench.now += SECOND - LINGER;
    bench.pass();
    assert_eq!(bench.wakes_in(), Some(29 * SECOND + LINGER));
    bench.now += 29 * SECOND + LINGER - Duration::from_nanos(1);
    bench.pass();
    assert_eq!(bench.dispatch.entries.len(), 1);
    bench.now += Duration::from_nanos(1);
    bench.pass();
    assert_eq!(bench.dispatch.entries.len(), 0);
}

#[test]
fn sequences_of_the_past_and_of_too_many_are_forgotten_too() {
    let mut bench = Bench::settled();
    bench.add(0, 1);
    bench.pass();
    bench.answer(1, ErrorCode::OutOfOrderSequenceNumber);
    bench.now += SECOND;
    assert_eq!(bench.pass(), ["send 2 to 1: 0:[1]@7.1.0"]);
    bench.answer(2, ErrorCode::None);
    bench.pass();
    bench.now += 150 * SECOND;
    bench.pass();
    let parked: Vec<i32> = bench.dispatch.parked.keys().map(|partition| partition.partition).collect();
    assert_eq!(parked, [0], "the others' are of the epoch before");

    let parked = bench.dispatch.parked.first_key_value().map(|(_, parked)| *parked).unwrap();
    for partition in 1..MAX_PARKED as i32 {
        bench.dispatch.parked.insert(TopicPartition::new("many", partition), parked);
    }
    // The last one that there is room for, and one more.
    for (partition, kept) in [(0, MAX_PARKED), (1, 0)] {
        bench.add(partition, 2);
        bench.pass();
        let request = bench.dispatch.next_request - 1;
        bench.answer(request, ErrorCode::None);
        bench.pass();
        bench.now += 150 * SECOND;
        bench.pass();
        assert_eq!(bench.dispatch.parked.len(), kept);
    }
    bench.add(0, 3);
    assert!(bench.pass()[0].ends_with("[3]@7.2.0"));
}
