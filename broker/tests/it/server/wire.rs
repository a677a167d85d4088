//! A client that is just frames, and brokers to speak to.

#![allow(clippy::unwrap_used)] // Helpers of tests fail like tests.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use klamm_broker::{Broker, BrokerBuilder};
use klamm_protocol::frame::{decode_response, encode_request};
use klamm_protocol::messages::fetch::{FetchPartition, FetchTopic, PartitionData};
use klamm_protocol::messages::metadata::MetadataRequestTopic;
use klamm_protocol::messages::produce::{PartitionProduceData, PartitionProduceResponse, TopicProduceData};
use klamm_protocol::messages::{
    CreateTopicsRequest, FetchRequest, MetadataRequest, MetadataResponse, ProduceRequest, create_topics,
};
use klamm_protocol::records::{BatchBuilder, BatchOptions, batches};
use klamm_protocol::{Message, Records, Request};
use klamm_runtime::{MemoryNet, Net, Stream, TcpNet, TokioClock};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// No test takes as long, on real time or on a paused clock.
pub(super) const DEADLINE: Duration = Duration::from_secs(300);

/// A connection.
#[derive(Debug)]
pub(super) struct Wire {
    stream: Box<dyn Stream>,
    next_id: i32,
}

impl Wire {
    pub(super) async fn connect(net: &dyn Net, address: &str) -> Self {
        Self { stream: net.connect(address).await.unwrap(), next_id: 0 }
    }

    pub(super) async fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    pub(super) async fn send_in<R: Request>(&mut self, request: &R, version: i16) -> i32 {
        self.next_id += 1;
        let frame = encode_request(request, version, self.next_id, Some("wire")).unwrap();
        self.send_raw(&frame).await;
        self.next_id
    }

    /// The next frame without its length; nothing when the broker has closed the connection.
    pub(super) async fn receive_raw(&mut self) -> Option<Bytes> {
        let read = async {
            let len = self.stream.read_i32().await.ok()?;
            let mut frame = BytesMut::zeroed(usize::try_from(len).unwrap());
            self.stream.read_exact(&mut frame).await.ok()?;
            Some(frame.freeze())
        };
        tokio::time::timeout(DEADLINE, read).await.expect("no answer in time")
    }

    /// Reads the next frame and keeps nothing of it; says how many bytes it had.
    pub(super) async fn swallow(&mut self) -> usize {
        let read = async {
            let len = usize::try_from(self.stream.read_i32().await.ok()?).unwrap();
            let mut piece = [0; 16 << 10];
            let mut left = len;
            while left > 0 {
                let most = left.min(piece.len());
                left -= self.stream.read_exact(&mut piece[..most]).await.ok()?;
            }
            Some(len)
        };
        tokio::time::timeout(DEADLINE, read).await.expect("no answer in time").unwrap_or(0)
    }

    /// Waits until the next frame has begun to come, and says how long it is; [`Self::receive_rest`] has to follow.
    pub(super) async fn receive_len(&mut self) -> usize {
        let len = tokio::time::timeout(DEADLINE, self.stream.read_i32()).await.expect("no answer in time");
        usize::try_from(len.unwrap()).unwrap()
    }

    /// The frame that [`Self::receive_len`] saw the length of.
    pub(super) async fn receive_rest<R: Request>(&mut self, len: usize, version: i16) -> R::Response {
        let mut frame = BytesMut::zeroed(len);
        let read = self.stream.read_exact(&mut frame);
        tokio::time::timeout(DEADLINE, read).await.expect("no answer in time").unwrap();
        decode_response::<R>(frame.freeze(), version).unwrap().1
    }

    pub(super) async fn receive_in<R: Request>(&mut self, version: i16) -> (i32, R::Response) {
        let frame = self.receive_raw().await.expect("the broker closed the connection");
        decode_response::<R>(frame, version).unwrap()
    }

    pub(super) async fn ask_in<R: Request>(&mut self, request: &R, version: i16) -> R::Response {
        let id = self.send_in(request, version).await;
        let (answered, response) = self.receive_in::<R>(version).await;
        assert_eq!(answered, id);
        response
    }

    /// Asks in the newest version.
    pub(super) async fn ask<R: Request>(&mut self, request: &R) -> R::Response {
        self.ask_in(request, newest::<R>()).await
    }

    pub(super) async fn metadata(&mut self, topics: &[&str]) -> MetadataResponse {
        let topics = topics.iter().map(|name| MetadataRequestTopic {
            name: Some((*name).into()),
            ..MetadataRequestTopic::default()
        });
        self.ask(&MetadataRequest { topics: Some(topics.collect()), ..MetadataRequest::default() }).await
    }

    /// Produces to partition 0 with acks of all.
    pub(super) async fn produce(&mut self, topic: &str, batch: Bytes) -> PartitionProduceResponse {
        let mut response = self.ask_in(&produce_request(topic, batch, -1), 9).await;
        response.responses.remove(0).partition_responses.remove(0)
    }

    /// Fetches partition 0 without waiting.
    pub(super) async fn fetch(&mut self, topic: &str, offset: i64) -> PartitionData {
        let mut response = self.ask_in(&fetch_request(topic, offset, 0), 12).await;
        response.responses.remove(0).partitions.remove(0)
    }

    /// The values of all records of partition 0.
    pub(super) async fn read_all(&mut self, topic: &str) -> Vec<String> {
        let (mut offset, mut all) = (0, Vec::new());
        loop {
            let found = self.fetch(topic, offset).await;
            assert_eq!(found.error_code, 0);
            let found = values(&found);
            if found.is_empty() {
                return all;
            }
            offset = found.last().unwrap().0 + 1;
            all.extend(found.into_iter().map(|(_, value)| value));
        }
    }
}

pub(super) fn newest<R: Request>() -> i16 {
    *<R as Message>::VERSIONS.end()
}

pub(super) fn produce_request(topic: &str, batch: Bytes, acks: i16) -> ProduceRequest {
    let partition = PartitionProduceData {
        index: 0,
        records: Some(Records::Bytes(batch)),
        ..PartitionProduceData::default()
    };
    let topic = TopicProduceData {
        name: topic.into(),
        partition_data: vec![partition],
        ..TopicProduceData::default()
    };
    ProduceRequest { acks, timeout_ms: 30_000, topic_data: vec![topic], ..ProduceRequest::default() }
}

pub(super) fn fetch_request(topic: &str, fetch_offset: i64, max_wait_ms: i32) -> FetchRequest {
    let partition = FetchPartition {
        partition: 0,
        fetch_offset,
        partition_max_bytes: 1 << 20,
        ..FetchPartition::default()
    };
    let topic = FetchTopic { topic: topic.into(), partitions: vec![partition], ..FetchTopic::default() };
    FetchRequest { max_wait_ms, min_bytes: 1, topics: vec![topic], ..FetchRequest::default() }
}

/// One batch of these values, dated 1,000 after the epoch.
pub(super) fn batch(values: &[&str]) -> Bytes {
    batch_with(BatchOptions::default(), values)
}

pub(super) fn batch_with(options: BatchOptions, values: &[&str]) -> Bytes {
    let mut batch = BatchBuilder::new(options);
    for value in values {
        batch.append(1_000, Some(b"k"), Some(value.as_bytes()), []).unwrap();
    }
    batch.build().unwrap()
}

/// Offsets and values in what was fetched.
pub(super) fn values(found: &PartitionData) -> Vec<(i64, String)> {
    let bytes = found.records.clone().unwrap().into_bytes().unwrap();
    let mut all = Vec::new();
    for batch in batches(bytes) {
        let batch = batch.unwrap();
        batch.verify_crc().unwrap();
        for record in batch.records(1 << 20).unwrap().iter() {
            let record = record.unwrap();
            let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
            all.push((record.offset(batch.header()), value));
        }
    }
    all
}

/// A broker in memory, on a network in memory.
#[derive(Debug)]
pub(super) struct InMemory {
    pub(super) broker: Broker,
    pub(super) net: Arc<MemoryNet>,
}

impl InMemory {
    pub(super) async fn start() -> Self {
        Self::with(|builder| builder).await
    }

    pub(super) async fn with(change: impl FnOnce(BrokerBuilder) -> BrokerBuilder) -> Self {
        let net = Arc::new(MemoryNet::new());
        let clock = Arc::new(TokioClock::starting_at(1_700_000_000_000));
        let builder = Broker::builder().ephemeral().net(net.clone()).clock(clock);
        Self { broker: change(builder).start().await.unwrap(), net }
    }

    pub(super) async fn connect(&self) -> Wire {
        Wire::connect(&*self.net, self.broker.bootstrap()).await
    }
}

/// A connection to a broker on TCP.
pub(super) async fn tcp(broker: &Broker) -> Wire {
    Wire::connect(&TcpNet, broker.bootstrap()).await
}

/// A topic with one partition, or why there is none.
pub(super) async fn create_topic(
    wire: &mut Wire,
    name: &str,
    settings: &[(&str, &str)],
) -> create_topics::CreatableTopicResult {
    let configs = settings.iter().map(|(name, value)| create_topics::CreatableTopicConfig {
        name: (*name).into(),
        value: Some((*value).into()),
        ..Default::default()
    });
    let topic = create_topics::CreatableTopic {
        name: name.into(),
        num_partitions: 1,
        replication_factor: 1,
        configs: configs.collect(),
        ..Default::default()
    };
    let request = CreateTopicsRequest { topics: vec![topic], ..CreateTopicsRequest::default() };
    wire.ask(&request).await.topics.remove(0)
}
