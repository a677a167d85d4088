//! Reads anywhere in any partition, with and without waiting: everything, or what is committed.

use std::collections::BTreeSet;

use bytes::Bytes;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::FetchRequest;
use klamm_protocol::messages::fetch::{FetchPartition, FetchTopic, PartitionData};
use klamm_protocol::records::batches;
use klamm_runtime::Rng;

use super::client::{Role, Shared};
use super::connection::{Connection, decoded};
use super::model::{Place, number_in};

/// Topics are named by id.
pub(super) const FETCH: i16 = 13;

#[derive(Debug, Default)]
pub(super) struct Reader;

#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    place: Place,
    offset: i64,
    /// Start and end as they were known.
    known: (i64, i64),
    /// As far as it was stable, when only what is committed is asked for.
    stable: Option<i64>,
}

/// A record that was fetched, or a marker, which has no value.
struct Found {
    offset: i64,
    value: Option<Vec<u8>>,
    /// The reader is told that its transaction was aborted.
    aborted: bool,
}

/// Makes it ask for what is committed.
pub(super) fn of_committed(request: FetchRequest) -> FetchRequest {
    FetchRequest { isolation_level: 1, ..request }
}

pub(super) fn fetch(place: Place, offset: i64, max_wait_ms: i32, max_bytes: i32) -> FetchRequest {
    let partition = FetchPartition {
        partition: place.1,
        fetch_offset: offset,
        partition_max_bytes: max_bytes,
        ..FetchPartition::default()
    };
    let topic = FetchTopic { topic_id: place.0, partitions: vec![partition], ..FetchTopic::default() };
    FetchRequest { max_wait_ms, min_bytes: 1, topics: vec![topic], ..FetchRequest::default() }
}

/// A question after what is at an offset.
pub(super) fn asked(place: Place, offset: i64, committed: bool, shared: &Shared) -> Asked {
    let stable = committed.then(|| shared.model.ledger.stable(place));
    Asked { place, offset, known: shared.model.known_ends(place), stable }
}

/// Holds an answer against what is known; gives it, and the offset behind what was read.
pub(super) fn fetched(asked: Asked, frame: Bytes, shared: &mut Shared) -> (PartitionData, i64) {
    let Asked { place, offset, known, stable } = asked;
    let mut answer = decoded::<FetchRequest>(frame, FETCH);
    let code = answer.error_code;
    let found = answer.responses.pop().and_then(|mut topic| topic.partitions.pop());
    let found = found.unwrap_or(PartitionData { error_code: code, ..PartitionData::default() });
    shared.check_refusal(found.error_code, Some(place.0), "a reader");
    let outside = found.error_code == ErrorCode::OffsetOutOfRange.code();
    if found.error_code == 0 || (outside && found.high_watermark >= 0 && found.log_start_offset >= 0) {
        let now_ms = shared.now_ms();
        shared.model.ends(place, known, (found.log_start_offset, found.high_watermark), now_ms);
    }
    let mut next = offset;
    let inside = (found.log_start_offset..=known.1).contains(&offset) && found.log_start_offset >= 0;
    if outside && inside {
        shared.model.fail(format!("offset {offset} of {known:?} is out of range"));
    } else if found.error_code == 0 {
        let records = records(&found, shared);
        let records: Vec<Found> = records.into_iter().filter(|found| found.offset >= offset).collect();
        next = records.last().map_or(offset, |last| last.offset + 1);
        if let Some(stable) = stable {
            check_committed(asked, stable, (&found, next), &records, shared);
        }
        let records: Vec<_> = records.into_iter().map(|found| (found.offset, found.value)).collect();
        shared.model.seen(place, offset, &records);
    }
    shared.note(format!("  fetch of {offset}: {} to {next} of {}", found.error_code, found.high_watermark));
    (found, next)
}

/// Nobody who reads what is committed is given anything else, or misses any of it.
fn check_committed(
    asked: Asked,
    stable: i64,
    (answer, next): (&PartitionData, i64),
    records: &[Found],
    shared: &mut Shared,
) {
    let (until, high_watermark) = (answer.last_stable_offset, answer.high_watermark);
    shared.model.is_stable_until(asked.place, stable, until, high_watermark);
    shared.model.check(next <= until || records.is_empty(), || {
        format!("offsets up to {next} are given to a reader of committed records, and {until} is stable")
    });
    for found in records {
        if let Some(number) = found.value.as_deref().and_then(number_in) {
            shared.model.read_committed(found.offset, number, !found.aborted);
        }
    }
}

/// What was fetched. Which records were aborted is found out as consumers do: by the list that comes with them.
fn records(found: &PartitionData, shared: &mut Shared) -> Vec<Found> {
    let mut all = Vec::new();
    let mut aborted = BTreeSet::new();
    for batch in
        batches(found.records.clone().and_then(klamm_protocol::Records::into_bytes).unwrap_or_default())
    {
        let whole = batch.ok().filter(|batch| batch.verify_crc().is_ok());
        let Some((batch, records)) =
            whole.and_then(|batch| batch.records(1 << 20).ok().map(|set| (batch, set)))
        else {
            shared.model.fail("a reader was given a damaged batch");
            return all;
        };
        let header = *batch.header();
        let listed = found.aborted_transactions.iter().flatten();
        let begun =
            listed.filter(|one| (header.base_offset..=header.last_offset()).contains(&one.first_offset));
        aborted.extend(begun.map(|one| one.producer_id));
        if all.is_empty() {
            let listed = found.aborted_transactions.iter().flatten();
            let before = listed.filter(|one| one.first_offset < header.base_offset);
            aborted.extend(before.map(|one| one.producer_id));
        }
        let of_aborted = header.is_transactional() && aborted.contains(&header.producer_id);
        for record in records.iter().flatten() {
            let value = (!header.is_control()).then(|| record.value.unwrap_or_default().to_vec());
            all.push(Found { offset: record.offset(&header), value, aborted: of_aborted });
        }
        if header.is_control() {
            aborted.remove(&header.producer_id);
        }
    }
    all
}

impl Role for Reader {
    type Asked = Asked;

    fn act(&mut self, connection: &mut Connection<Asked>, shared: &mut Shared) {
        let places = shared.model.places();
        let Some(place) = shared.pick(&places).filter(|_| connection.waiting() < 3) else { return };
        let (start, end) = shared.model.known_ends(place);
        let offset = (start + shared.rng.below((end - start) as u64 + 2) as i64 - 1).max(0);
        let max_wait_ms = shared.pick(&[0, 0, 100, 3_000]).unwrap_or(0);
        let max_bytes = 1 + shared.rng.below(4_096) as i32;
        let committed = shared.chance(50);
        let asked = asked(place, offset, committed, shared);
        let request = fetch(place, offset, max_wait_ms, max_bytes);
        let request = if committed { of_committed(request) } else { request };
        connection.send(&request, FETCH, Some(asked));
    }

    fn answered(&mut self, asked: Asked, frame: Bytes, shared: &mut Shared) {
        fetched(asked, frame, shared);
    }

    fn lost(&mut self, _: Asked, _: &mut Shared) {}
}
