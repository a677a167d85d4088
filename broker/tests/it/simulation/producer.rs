//! Producers: idempotent ones, which repeat what was not answered, and plain ones, which send once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use klamm_protocol::messages::produce::{PartitionProduceData, PartitionProduceResponse, TopicProduceData};
use klamm_protocol::messages::{InitProducerIdRequest, ProduceRequest};
use klamm_protocol::records::{BatchBuilder, BatchOptions};
use klamm_protocol::{ErrorCode, Records};
use klamm_runtime::Rng;

use super::client::{Role, Shared};
use super::connection::{Connection, decoded};
use super::model::{Place, value_of};

/// Topics are named by id.
pub(super) const PRODUCE: i16 = 13;
pub(super) const INIT_PRODUCER_ID: i16 = 4;
/// What a client may have in flight, and the broker remembers.
const IN_FLIGHT_MAX: usize = 5;

/// A batch for one partition, not acknowledged yet.
#[derive(Debug, Clone)]
pub(super) struct Batch {
    place: Place,
    base_sequence: i32,
    records: Vec<(u64, usize)>,
    dated_ms: i64,
    in_flight: bool,
    sent_before: bool,
}

impl Batch {
    fn new(place: Place, base_sequence: i32, shared: &mut Shared) -> Self {
        let count = 1 + shared.rng.below(3);
        let record = |shared: &mut Shared| (shared.number(), shared.rng.below(200) as usize);
        let records = (0..count).map(|_| record(shared)).collect();
        let dated_ms = shared.now_ms();
        Self { place, base_sequence, records, dated_ms, in_flight: false, sent_before: false }
    }

    fn first(&self) -> u64 {
        self.records[0].0
    }

    fn bytes(&self, producer_id: Option<i64>) -> Bytes {
        let options = match producer_id {
            Some(producer_id) => BatchOptions {
                producer_id,
                producer_epoch: 0,
                base_sequence: self.base_sequence,
                ..BatchOptions::default()
            },
            None => BatchOptions::default(),
        };
        let mut batch = BatchBuilder::new(options);
        for (number, len) in &self.records {
            batch.append(self.dated_ms, None, Some(value_of(*number, *len).as_bytes()), []).unwrap();
        }
        batch.build().unwrap()
    }

    fn tell_sent(&self, bytes: usize, shared: &mut Shared) {
        let share = bytes as u64 / self.records.len() as u64;
        for (number, _) in &self.records {
            shared.model.sent(*number, self.place, self.dated_ms, share);
        }
    }

    fn tell_acknowledged(&self, base_offset: Option<i64>, shared: &mut Shared) {
        for (at, (number, _)) in (0..).zip(&self.records) {
            shared.model.acknowledged(*number, base_offset.map(|base| base + at));
        }
    }

    fn tell_refused(&self, shared: &mut Shared) {
        for (number, _) in &self.records {
            shared.model.refused(*number);
        }
    }
}

pub(super) fn produce(place: Place, batch: Bytes, acks: i16) -> ProduceRequest {
    let partition = PartitionProduceData {
        index: place.1,
        records: Some(Records::Bytes(batch)),
        ..PartitionProduceData::default()
    };
    let topic = TopicProduceData {
        topic_id: place.0,
        partition_data: vec![partition],
        ..TopicProduceData::default()
    };
    ProduceRequest { acks, timeout_ms: 30_000, topic_data: vec![topic], ..ProduceRequest::default() }
}

pub(super) fn produced(frame: Bytes) -> PartitionProduceResponse {
    let mut response = decoded::<ProduceRequest>(frame, PRODUCE);
    response.responses.remove(0).partition_responses.remove(0)
}

fn is_unknown_topic(code: i16) -> bool {
    code == ErrorCode::UnknownTopicId.code() || code == ErrorCode::UnknownTopicOrPartition.code()
}

/// A topic may only be unknown when somebody deletes it.
fn check_unknown(place: Place, shared: &mut Shared) {
    let there = shared.model.topics.get(&place.0).filter(|topic| !topic.gone && !topic.deleting);
    if let Some(name) = there.map(|topic| topic.name.clone()) {
        shared.model.fail(format!("topic {name} is unknown, and nobody deleted it"));
    }
}

#[derive(Debug, Default)]
pub(super) struct Idempotent {
    producer_id: Option<i64>,
    asking: bool,
    next: BTreeMap<Place, i32>,
    batches: VecDeque<Batch>,
    /// Where a batch was refused: those behind it may be out of order without anybody's fault.
    troubled: BTreeSet<Place>,
}

#[derive(Debug)]
pub(super) enum AskedIdempotent {
    Id,
    /// Its first record.
    Batch(u64),
}

impl Idempotent {
    /// Sends what was sent and not acknowledged again, in order, once nothing of a partition is in flight.
    fn repeat(
        &mut self,
        producer_id: i64,
        connection: &mut Connection<AskedIdempotent>,
        shared: &mut Shared,
    ) {
        let busy: BTreeSet<Place> =
            self.batches.iter().filter(|batch| batch.in_flight).map(|batch| batch.place).collect();
        let hidden = shared.planted.is_some_and(super::planted::Planted::hides_repeats);
        for batch in self.batches.iter_mut().filter(|batch| !busy.contains(&batch.place)) {
            let known_as = Some(producer_id).filter(|_| !(hidden && batch.sent_before));
            let bytes = batch.bytes(known_as);
            if !batch.sent_before {
                batch.tell_sent(bytes.len(), shared);
            }
            (batch.in_flight, batch.sent_before) = (true, true);
            let asked = AskedIdempotent::Batch(batch.first());
            connection.send(&produce(batch.place, bytes, -1), PRODUCE, Some(asked));
        }
    }

    /// Gives up the id and all that was sent with it.
    fn begin_anew(&mut self) {
        *self = Self { asking: self.asking, ..Self::default() };
    }

    fn batch_answered(&mut self, first: u64, answer: &PartitionProduceResponse, shared: &mut Shared) {
        let Some(at) = self.batches.iter().position(|batch| batch.first() == first) else { return };
        let place = self.batches[at].place;
        let is_head = !self.batches.iter().take(at).any(|batch| batch.place == place);
        let code = answer.error_code;
        if code == 0 || code == ErrorCode::DuplicateSequenceNumber.code() {
            let base_offset = Some(answer.base_offset).filter(|base| *base >= 0);
            if let Some(batch) = self.batches.remove(at) {
                batch.tell_acknowledged(base_offset, shared);
            }
        } else if is_unknown_topic(code) {
            check_unknown(place, shared);
            self.batches.retain(|batch| batch.place != place);
            self.next.remove(&place);
        } else if code == ErrorCode::OutOfOrderSequenceNumber.code() && is_head {
            let troubled = self.troubled.contains(&place) || shared.disk.may_have_forgotten_producers();
            shared
                .model
                .check(troubled, || format!("record {first} is in order and was refused as out of order"));
            self.begin_anew();
        } else {
            self.troubled.insert(place);
            self.batches[at].in_flight = false;
        }
    }
}

impl Role for Idempotent {
    type Asked = AskedIdempotent;

    fn act(&mut self, connection: &mut Connection<AskedIdempotent>, shared: &mut Shared) {
        let Some(producer_id) = self.producer_id else {
            if !std::mem::replace(&mut self.asking, true) {
                let request = InitProducerIdRequest { transaction_timeout_ms: 1_000, ..Default::default() };
                connection.send(&request, INIT_PRODUCER_ID, Some(AskedIdempotent::Id));
            }
            return;
        };
        if self.batches.iter().any(|batch| !batch.in_flight) {
            return self.repeat(producer_id, connection, shared);
        }
        let places = shared.model.places();
        let Some(place) = shared.pick(&places).filter(|_| self.batches.len() < IN_FLIGHT_MAX) else { return };
        let next = self.next.entry(place).or_insert(0);
        let mut batch = Batch::new(place, *next, shared);
        *next += batch.records.len() as i32;
        let bytes = batch.bytes(Some(producer_id));
        batch.tell_sent(bytes.len(), shared);
        (batch.in_flight, batch.sent_before) = (true, true);
        connection.send(&produce(place, bytes, -1), PRODUCE, Some(AskedIdempotent::Batch(batch.first())));
        self.batches.push_back(batch);
    }

    fn answered(&mut self, asked: AskedIdempotent, frame: Bytes, shared: &mut Shared) {
        match asked {
            AskedIdempotent::Id => {
                self.asking = false;
                let answer = decoded::<InitProducerIdRequest>(frame, INIT_PRODUCER_ID);
                if answer.error_code == 0 {
                    shared.model.producer_id(answer.producer_id);
                    self.producer_id = Some(answer.producer_id);
                }
            }
            AskedIdempotent::Batch(first) => {
                let answer = produced(frame);
                shared.note(format!("  record {first}: {} at {}", answer.error_code, answer.base_offset));
                let batch = self.batches.iter().find(|batch| batch.first() == first);
                shared.check_refusal(answer.error_code, batch.map(|batch| batch.place.0), "a producer");
                self.batch_answered(first, &answer, shared);
            }
        }
    }

    fn lost(&mut self, asked: AskedIdempotent, _: &mut Shared) {
        match asked {
            AskedIdempotent::Id => self.asking = false,
            AskedIdempotent::Batch(first) => {
                if let Some(batch) = self.batches.iter_mut().find(|batch| batch.first() == first) {
                    batch.in_flight = false;
                }
            }
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Plain;

impl Role for Plain {
    type Asked = Batch;

    fn act(&mut self, connection: &mut Connection<Self::Asked>, shared: &mut Shared) {
        let places = shared.model.places();
        let Some(place) = shared.pick(&places).filter(|_| connection.waiting() < 3) else { return };
        let batch = Batch::new(place, -1, shared);
        let bytes = batch.bytes(None);
        batch.tell_sent(bytes.len(), shared);
        if shared.chance(15) {
            connection.send(&produce(place, bytes, 0), PRODUCE, None);
        } else {
            connection.send(&produce(place, bytes, 1), PRODUCE, Some(batch));
        }
    }

    fn answered(&mut self, asked: Self::Asked, frame: Bytes, shared: &mut Shared) {
        asked.answered_once(&produced(frame), shared);
    }

    fn lost(&mut self, _: Self::Asked, _: &mut Shared) {}
}

impl Batch {
    fn answered_once(&self, answer: &PartitionProduceResponse, shared: &mut Shared) {
        let code = answer.error_code;
        shared.note(format!("  record {}: {code} at {}", self.first(), answer.base_offset));
        shared.check_refusal(code, Some(self.place.0), "a producer");
        if code == 0 {
            return self.tell_acknowledged(Some(answer.base_offset), shared);
        }
        if is_unknown_topic(code) {
            check_unknown(self.place, shared);
        }
        // After an error of the disk, or when that took too long, it may be in the log or not.
        let open = [ErrorCode::KafkaStorageError, ErrorCode::RequestTimedOut];
        if !open.contains(&ErrorCode::from_code(code)) {
            self.tell_refused(shared);
        }
    }
}
