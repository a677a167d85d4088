//! What the tests of transactions have in common: a broker whose power may go, and clients of both versions.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests fail like tests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use klamm_broker::disk::MemoryDisk;
use klamm_broker::{Broker, BrokerBuilder};
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::add_partitions_to_txn::AddPartitionsToTxnTopic;
use klamm_protocol::messages::produce::PartitionProduceResponse;
use klamm_protocol::messages::*;
use klamm_protocol::records::{BatchOptions, ControlRecord, batches};
use klamm_runtime::{MemoryNet, TokioClock};

use super::wire::*;

/// A broker whose wall clock goes with tokio's, on a disk that outlives it.
pub(super) struct Powered {
    pub(super) disk: MemoryDisk,
    net: Arc<MemoryNet>,
    clock: Arc<TokioClock>,
    pub(super) broker: Broker,
}

impl Powered {
    pub(super) async fn start() -> Self {
        let (disk, net) = (MemoryDisk::new(), Arc::new(MemoryNet::new()));
        let clock = Arc::new(TokioClock::starting_at(1_700_000_000_000));
        let broker = Self::builder(&disk, &net, &clock).start().await.unwrap();
        Self { disk, net, clock, broker }
    }

    fn builder(disk: &MemoryDisk, net: &Arc<MemoryNet>, clock: &Arc<TokioClock>) -> BrokerBuilder {
        Broker::builder()
            .data_dir("/data")
            .set("transaction.state.log.num.partitions", 2)
            .set("offsets.topic.num.partitions", 2)
            .disk(Arc::new(disk.clone()))
            .net(net.clone())
            .clock(clock.clone())
    }

    pub(super) async fn connect(&self) -> Wire {
        Wire::connect(&*self.net, self.broker.bootstrap()).await
    }

    /// What becomes of the broker, and another one after it.
    pub(super) async fn again(self, end: impl FnOnce(&MemoryDisk)) -> Self {
        let Self { disk, net, clock, broker } = self;
        drop(broker);
        end(&disk);
        let broker = Self::builder(&disk, &net, &clock).start().await.unwrap();
        Self { disk, net, clock, broker }
    }
}

/// Who a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Client {
    pub(super) id: i64,
    pub(super) epoch: i16,
}

pub(super) const TX: &str = "payments";

/// From these versions on clients know transactions of version 2.
pub(super) const PRODUCE_2: i16 = 12;
pub(super) const END_2: i16 = 5;

pub(super) async fn init(wire: &mut Wire) -> Client {
    let given = ask_init(wire, TX, 60_000, None).await;
    assert_eq!(given.error_code, 0);
    Client { id: given.producer_id, epoch: given.producer_epoch }
}

pub(super) async fn ask_init(
    wire: &mut Wire,
    id: &str,
    timeout_ms: i32,
    was: Option<Client>,
) -> InitProducerIdResponse {
    let was = was.unwrap_or(Client { id: -1, epoch: -1 });
    let request = InitProducerIdRequest {
        transactional_id: Some(id.into()),
        transaction_timeout_ms: timeout_ms,
        producer_id: was.id,
        producer_epoch: was.epoch,
        ..InitProducerIdRequest::default()
    };
    wire.ask_in(&request, 5).await
}

/// A transactional batch of one record, in a request for partition 0.
pub(super) fn write(client: Client, topic: &str, sequence: i32, value: &str) -> ProduceRequest {
    let options = BatchOptions {
        producer_id: client.id,
        producer_epoch: client.epoch,
        base_sequence: sequence,
        transactional: true,
        ..BatchOptions::default()
    };
    let mut request = produce_request(topic, batch_with(options, &[value]), -1);
    request.transactional_id = Some(TX.into());
    request
}

pub(super) async fn produce(
    wire: &mut Wire,
    request: &ProduceRequest,
    version: i16,
) -> PartitionProduceResponse {
    wire.ask_in(request, version).await.responses.remove(0).partition_responses.remove(0)
}

pub(super) fn end_request(client: Client, commit: bool) -> EndTxnRequest {
    EndTxnRequest {
        transactional_id: TX.into(),
        producer_id: client.id,
        producer_epoch: client.epoch,
        committed: commit,
        ..EndTxnRequest::default()
    }
}

/// Ends a transaction; who the client is then.
pub(super) async fn end(wire: &mut Wire, client: Client, commit: bool, version: i16) -> Client {
    let ended = wire.ask_in(&end_request(client, commit), version).await;
    assert_eq!(ended.error_code, 0);
    if version < END_2 {
        return client;
    }
    Client { id: ended.producer_id, epoch: ended.producer_epoch }
}

pub(super) fn add_request(client: Client, topics: &[(&str, &[i32])]) -> AddPartitionsToTxnRequest {
    AddPartitionsToTxnRequest {
        v3_and_below_transactional_id: TX.into(),
        v3_and_below_producer_id: client.id,
        v3_and_below_producer_epoch: client.epoch,
        v3_and_below_topics: named(topics),
        ..AddPartitionsToTxnRequest::default()
    }
}

pub(super) fn named(topics: &[(&str, &[i32])]) -> Vec<AddPartitionsToTxnTopic> {
    let topic = |(name, partitions): &(&str, &[i32])| AddPartitionsToTxnTopic {
        name: (*name).into(),
        partitions: partitions.to_vec(),
        ..AddPartitionsToTxnTopic::default()
    };
    topics.iter().map(topic).collect()
}

/// Codes by topic and partition.
pub(super) type Codes = BTreeMap<(String, i32), i16>;

pub(super) async fn add(wire: &mut Wire, request: &AddPartitionsToTxnRequest, version: i16) -> Codes {
    let answer = wire.ask_in(request, version).await;
    let topics = answer.results_by_topic_v3_and_below.iter();
    let all = topics.flat_map(|topic| {
        let results = topic.results_by_partition.iter();
        results.map(|one| ((topic.name.to_string(), one.partition_index), one.partition_error_code))
    });
    all.collect()
}

/// What is in a log: values, and how transactions ended.
pub(super) async fn log(wire: &mut Wire, topic: &str) -> Vec<String> {
    let (mut offset, mut all) = (0, Vec::new());
    loop {
        // An answer ends with its segment, and a marker may begin one: it is dated much later than the records are.
        let found = wire.fetch(topic, offset).await;
        assert_eq!(found.error_code, 0, "{topic} from {offset} on: {found:?}");
        let before = offset;
        for batch in batches(found.records.unwrap().into_bytes().unwrap()) {
            let batch = batch.unwrap();
            offset = batch.header().next_offset();
            for record in batch.records(1 << 20).unwrap().iter() {
                let record = record.unwrap();
                all.push(match batch.header().is_control() {
                    false => String::from_utf8(record.value.unwrap().to_vec()).unwrap(),
                    true => end_of(ControlRecord::parse(record.key, record.value).unwrap()),
                });
            }
        }
        if offset == before {
            return all;
        }
    }
}

pub(super) fn end_of(record: ControlRecord) -> String {
    match record {
        ControlRecord::EndTxn(end) if end.committed => "COMMIT".to_owned(),
        ControlRecord::EndTxn(_) => "ABORT".to_owned(),
        other => panic!("{other:?}"),
    }
}

/// How much of a log readers of committed records see.
pub(super) async fn stable(wire: &mut Wire, topic: &str) -> i64 {
    wire.fetch(topic, 0).await.last_stable_offset
}

/// Where the transaction of an id is.
pub(super) async fn state(wire: &mut Wire, id: &str) -> String {
    let request = DescribeTransactionsRequest {
        transactional_ids: vec![id.into()],
        ..DescribeTransactionsRequest::default()
    };
    let found = wire.ask(&request).await.transaction_states.remove(0);
    match found.error_code {
        0 => found.transaction_state.to_string(),
        code => ErrorCode::from_code(code).name().to_owned(),
    }
}

/// Waits until the transaction is ended everywhere.
pub(super) async fn until(wire: &mut Wire, id: &str, wanted: &str) {
    for _ in 0..10_000 {
        if state(wire, id).await == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{id} does not become {wanted}: {}", state(wire, id).await);
}
