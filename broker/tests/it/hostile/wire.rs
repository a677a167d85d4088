//! A client that is just frames.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use klamm_protocol::frame::{decode_response, encode_request};
use klamm_protocol::messages::fetch::{FetchPartition, FetchTopic, PartitionData};
use klamm_protocol::messages::produce::{PartitionProduceData, PartitionProduceResponse, TopicProduceData};
use klamm_protocol::messages::{FetchRequest, ProduceRequest};
use klamm_protocol::records::{BatchBuilder, BatchOptions, batches};
use klamm_protocol::{Records, Request};
use klamm_runtime::{Net, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Nothing takes as long.
const DEADLINE: Duration = Duration::from_secs(120);

/// A connection of somebody who behaves.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) stream: Box<dyn Stream>,
    next_id: i32,
}

impl Wire {
    pub(super) async fn connect(net: &dyn Net, address: &str) -> Self {
        Self { stream: net.connect(address).await.unwrap(), next_id: 0 }
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// The next frame without its length; nothing when the broker has closed the connection.
    pub(super) async fn receive(&mut self) -> Option<Bytes> {
        tokio::time::timeout(DEADLINE, next_frame(&mut self.stream)).await.expect("an answer in time")
    }

    pub(super) async fn ask_in<R: Request>(&mut self, request: &R, version: i16) -> R::Response {
        self.next_id += 1;
        self.send(&encode_request(request, version, self.next_id, Some("well behaved")).unwrap()).await;
        let frame = self.receive().await.expect("the broker closed a connection that behaved");
        let (id, response) = decode_response::<R>(frame, version).unwrap();
        assert_eq!(id, self.next_id);
        response
    }

    /// Asks in the newest version.
    pub(super) async fn ask<R: Request>(&mut self, request: &R) -> R::Response {
        self.ask_in(request, *R::VERSIONS.end()).await
    }

    /// Produces to partition 0.
    pub(super) async fn produce(&mut self, topic: &str, batch: Bytes) -> PartitionProduceResponse {
        let mut response = self.ask_in(&produce_request(topic, batch), 9).await;
        response.responses.remove(0).partition_responses.remove(0)
    }

    /// Fetches from partition 0 what is there.
    pub(super) async fn fetch(&mut self, topic: &str, offset: i64, isolation_level: i8) -> PartitionData {
        let request = FetchRequest { isolation_level, ..fetch_request(topic, offset) };
        self.ask_in(&request, 12).await.responses.remove(0).partitions.remove(0)
    }
}

/// The next frame without its length, if there is one.
pub(super) async fn next_frame(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Option<Bytes> {
    let len = stream.read_i32().await.ok()?;
    let mut frame = BytesMut::zeroed(usize::try_from(len).unwrap());
    stream.read_exact(&mut frame).await.ok()?;
    Some(frame.freeze())
}

pub(super) fn produce_request(topic: &str, batch: Bytes) -> ProduceRequest {
    let partition = PartitionProduceData { records: Some(Records::Bytes(batch)), ..Default::default() };
    let topic = TopicProduceData {
        name: topic.into(),
        partition_data: vec![partition],
        ..TopicProduceData::default()
    };
    ProduceRequest { acks: -1, timeout_ms: 1_000, topic_data: vec![topic], ..ProduceRequest::default() }
}

pub(super) fn fetch_request(topic: &str, fetch_offset: i64) -> FetchRequest {
    let partition =
        FetchPartition { fetch_offset, partition_max_bytes: 1 << 20, ..FetchPartition::default() };
    let topic = FetchTopic { topic: topic.into(), partitions: vec![partition], ..FetchTopic::default() };
    FetchRequest { min_bytes: 1, topics: vec![topic], ..FetchRequest::default() }
}

/// A batch of these values, of the year 2023.
pub(super) fn batch(options: BatchOptions, values: &[&str]) -> Bytes {
    let mut batch = BatchBuilder::new(options);
    for value in values {
        batch.append(super::target::NOW_MS, Some(b"k"), Some(value.as_bytes()), []).unwrap();
    }
    batch.build().unwrap()
}

/// The values from an offset on that a reader sees, of everything or of what is committed, and the offset behind all of
/// what came.
pub(super) fn visible(found: &PartitionData, from: i64, committed: bool) -> (Vec<(i64, String)>, i64) {
    let (mut next, mut values, mut open) = (from, Vec::new(), BTreeSet::new());
    let mut aborted = found.aborted_transactions.clone().unwrap_or_default();
    aborted.sort_by_key(|one| one.first_offset);
    let mut aborted = aborted.into_iter().peekable();
    let bytes = found.records.clone().and_then(Records::into_bytes).unwrap_or_default();
    for batch in batches(bytes) {
        let batch = batch.unwrap();
        batch.verify_crc().unwrap();
        let header = *batch.header();
        next = header.next_offset();
        while let Some(one) = aborted.next_if(|one| one.first_offset <= header.last_offset()) {
            open.insert(one.producer_id);
        }
        let ends = header.is_control() && open.remove(&header.producer_id);
        let counts = !(committed && header.is_transactional() && open.contains(&header.producer_id));
        if ends || header.is_control() || !counts {
            continue;
        }
        for record in batch.records(1 << 20).unwrap().iter() {
            let record = record.unwrap();
            let value = String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned();
            if record.offset(&header) >= from {
                values.push((record.offset(&header), value));
            }
        }
    }
    (values, next)
}
