//! What is written is read back; bytes as Kafka writes them.

use bytes::Bytes;
use klamm_runtime::{Rng, SeededRng};

use super::super::records::{read, record, tombstone};
use super::super::transaction::{NO_EPOCH, Partitions, State, Transaction, TransactionVersion};
use super::sim::partitions;
use crate::coordinator::StoredRecord;

fn some(rng: &SeededRng) -> Transaction {
    let state = State::ALL[rng.below(6) as usize];
    let id = |none: u64| if rng.below(2) == none { -1 } else { rng.below(1 << 40) as i64 };
    let mut all = Partitions::new();
    for _ in 0..rng.below(5) {
        all.entry(format!("topic{}", rng.below(3))).or_default().insert(rng.below(9) as i32);
    }
    Transaction {
        producer_id: rng.below(1 << 40) as i64,
        previous_producer_id: id(0),
        next_producer_id: id(0),
        epoch: rng.below(1 << 15) as i16 - 1,
        last_epoch: NO_EPOCH,
        timeout_ms: rng.below(1 << 30) as i32,
        state,
        partitions: if state == State::Empty { Partitions::new() } else { all },
        started_at_ms: rng.below(1 << 40) as i64 - 1,
        updated_at_ms: rng.below(1 << 40) as i64,
        version: if rng.below(2) == 0 { TransactionVersion::V1 } else { TransactionVersion::V2 },
    }
}

#[test]
fn what_is_written_is_read_back() {
    let rng = SeededRng::new(7);
    for _ in 0..1_000 {
        let transaction = some(&rng);
        let stored = record("pay", &transaction).unwrap();
        assert_eq!(read(&stored).unwrap(), Some(("pay".to_owned(), Some(transaction))));
    }
    assert_eq!(read(&tombstone("pay").unwrap()).unwrap(), Some(("pay".to_owned(), None)));
}

#[test]
fn the_layout_is_kafkas() {
    let transaction = Transaction {
        epoch: 3,
        state: State::Ongoing,
        partitions: partitions([("t", 1), ("t", 2)]),
        started_at_ms: 9,
        updated_at_ms: 10,
        version: TransactionVersion::V2,
        ..Transaction::new(5, 60_000, 0)
    };
    let stored = record("id", &transaction).unwrap();
    assert_eq!(&stored.key[..], b"\0\0\0\x02id");
    let mut expected = vec![0, 1];
    expected.extend(5_i64.to_be_bytes());
    expected.extend([0, 3]);
    expected.extend(60_000_i32.to_be_bytes());
    expected.push(1);
    expected.extend([2, 2, b't', 3, 0, 0, 0, 1, 0, 0, 0, 2, 0]);
    expected.extend(10_i64.to_be_bytes());
    expected.extend(9_i64.to_be_bytes());
    expected.extend([1, 2, 2, 0, 2]);
    assert_eq!(stored.value.as_deref(), Some(&expected[..]));
}

/// As Kafka 2 and 3 wrote them: no compact lengths, no tags.
#[test]
fn values_of_version_0_are_read() {
    let mut value = vec![0, 0];
    value.extend(5_i64.to_be_bytes());
    value.extend([0, 3]);
    value.extend(60_000_i32.to_be_bytes());
    value.push(4);
    value.extend([0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, 0, 0, 0, 7]);
    value.extend(10_i64.to_be_bytes());
    value.extend(9_i64.to_be_bytes());
    let stored = StoredRecord { key: Bytes::from_static(b"\0\0\0\x02id"), value: Some(value.clone().into()) };
    let (_, found) = read(&stored).unwrap().unwrap();
    let found = found.unwrap();
    assert_eq!((found.producer_id, found.epoch, found.state), (5, 3, State::CompleteCommit));
    assert_eq!(found.partitions, partitions([("t", 7)]));
    assert_eq!((found.updated_at_ms, found.started_at_ms), (10, 9));
    assert_eq!(found.version, TransactionVersion::V1);
    // One that was being forgotten, one that was being fenced, and one that nobody knows.
    for (number, state) in [(6, None), (7, Some(State::PrepareAbort))] {
        value[16] = number;
        let stored = StoredRecord { key: stored.key.clone(), value: Some(value.clone().into()) };
        let found = read(&stored).unwrap().unwrap().1;
        assert_eq!(found.map(|found| found.state), state);
    }
    value[16] = 8;
    read(&StoredRecord { key: stored.key.clone(), value: Some(value.into()) }).unwrap_err();
}

#[test]
fn other_records_are_skipped_and_cut_ones_refused() {
    let other = StoredRecord { key: Bytes::from_static(b"\0\x01\0\x02id"), value: None };
    assert_eq!(read(&other).unwrap(), None);
    let whole = record("pay", &some(&SeededRng::new(1))).unwrap();
    let value = whole.value.unwrap();
    for len in 0..value.len() {
        let cut = StoredRecord { key: whole.key.clone(), value: Some(value.slice(..len)) };
        read(&cut).unwrap_err();
    }
}
