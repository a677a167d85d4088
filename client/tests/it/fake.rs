//! A broker in a few lines: one node, one topic, a log per partition with Kafka's rules for idempotent
//! producers, and a script of faults.

#![allow(dead_code, reason = "what is left until its users move to klamm_client::testing")]

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use klamm_client::Client;
use klamm_client::runtime::{MemoryNet, Net, Stream, Tasks};
use klamm_protocol::frame::{decode_request_header, encode_response};
use klamm_protocol::messages::add_partitions_to_txn::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnTopic, AddPartitionsToTxnTopicResult,
};
use klamm_protocol::messages::api_versions::ApiVersion;
use klamm_protocol::messages::create_topics::{CreatableTopic, CreatableTopicResult};
use klamm_protocol::messages::describe_groups::DescribedGroup;
use klamm_protocol::messages::fetch::{FetchableTopicResponse, PartitionData};
use klamm_protocol::messages::find_coordinator::Coordinator;
use klamm_protocol::messages::list_offsets::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use klamm_protocol::messages::metadata::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use klamm_protocol::messages::produce::{PartitionProduceResponse, TopicProduceResponse};
use klamm_protocol::messages::*;
use klamm_protocol::records::{RecordBatch, patch};
use klamm_protocol::{ApiKey, Decoder, ErrorCode, Message, Records, Utf8Bytes, Uuid, supported_versions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::fake_group::{self, Group};
use crate::fake_share::{self, Share};

pub(crate) const TOPIC: &str = "t";
pub(crate) const NODE: i32 = 1;
/// A broker that is down.
const NOBODY: i32 = 2;

/// What happens to the next request of an API instead of the usual.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// Nothing: the request is served.
    None,
    /// Each partition of a Produce request gets this error, and nothing is written.
    Refuse(ErrorCode),
    /// The connection is closed before the request is looked at.
    Disconnect,
    /// It is served, and the connection is closed instead of the answer.
    ServeThenDisconnect,
    /// It is served and answered, and the connection is closed after that.
    ServeThenClose,
    /// It is served, and the answer never comes.
    ServeThenSilence,
    /// The connection stays open, and nothing ever comes on it again.
    Hang,
    /// These bytes instead of an answer.
    Bytes(Vec<u8>),
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) faults: HashMap<i16, VecDeque<Fault>>,
    /// Requests seen, by API key.
    pub(crate) seen: HashMap<i16, usize>,
    /// Batches by partition.
    pub(crate) logs: Vec<Vec<RecordBatch>>,
    /// Next producer id.
    producers: i64,
    /// Asked for a producer id, it answers -1 and no error.
    pub(crate) has_no_producer_ids: bool,
    /// Larger batches are refused.
    pub(crate) max_batch_bytes: Option<usize>,
    /// Highest version of ApiVersions that is understood.
    pub(crate) api_versions_up_to: Option<i16>,
    /// Connections taken.
    pub(crate) connections: usize,
    pub(crate) group: Group,
    pub(crate) share: Share,
    /// How long a session lasts, in milliseconds; 0 for ever.
    pub(crate) session_lifetime_ms: i64,
    /// Requests that came in the middle of a login, which Kafka's brokers close the connection for.
    pub(crate) interrupted_logins: usize,
    /// Partitions that a broker leads at whose address nobody listens.
    pub(crate) led_by_nobody: BTreeSet<usize>,
    /// Zero for a broker that does not tell.
    pub(crate) topic_id: Uuid,
    /// What fetches say of the end of the log, instead of the truth.
    pub(crate) high_watermark: Option<i64>,
    /// How long produced and fetched data is asked to stay away, in milliseconds.
    pub(crate) throttle_ms: i32,
    /// Whether it coordinates transactions: each ends as it is told to.
    pub(crate) has_transactions: bool,
    pub(crate) refuses_logins: bool,
}

pub(crate) struct FakeBroker {
    pub(crate) net: MemoryNet,
    pub(crate) address: String,
    state: Arc<Mutex<State>>,
    _tasks: Tasks,
}

impl FakeBroker {
    pub(crate) async fn start(partitions: usize) -> Self {
        let net = MemoryNet::new();
        let mut listener = net.bind("broker:0").await.unwrap();
        let address = listener.local_address();
        let state = Arc::new(Mutex::new(State { logs: vec![Vec::new(); partitions], ..State::default() }));
        let tasks = Tasks::new();
        let (shared, own_address) = (Arc::clone(&state), address.clone());
        tasks.spawn("fake broker", async move {
            let connections = Tasks::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (state, address) = (Arc::clone(&shared), own_address.clone());
                state.lock().unwrap().connections += 1;
                connections.spawn("fake connection", async move {
                    // An error is a client that went away.
                    let _ = serve(stream, &state, &address).await;
                });
            }
        });
        Self { net, address, state, _tasks: tasks }
    }

    pub(crate) async fn client(&self) -> Client {
        let net = Arc::new(self.net.clone());
        Client::builder().bootstrap(&self.address).net(net).build().await.unwrap()
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn script(&self, api: ApiKey, faults: impl IntoIterator<Item = Fault>) {
        self.state().faults.entry(api.code()).or_default().extend(faults);
    }

    /// The values in a partition's log.
    pub(crate) fn values(&self, partition: usize) -> Vec<String> {
        let batches = self.state().logs[partition].clone();
        let records = batches.iter().flat_map(|batch| batch.records(1 << 20).unwrap().owned());
        records.map(|record| String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap()).collect()
    }
}

async fn serve(mut stream: Box<dyn Stream>, state: &Mutex<State>, address: &str) -> std::io::Result<()> {
    let mut logging_in = false;
    loop {
        let length = stream.read_u32().await?;
        let mut frame = vec![0; length as usize];
        stream.read_exact(&mut frame).await?;
        let key = i16::from_be_bytes([frame[0], frame[1]]);
        let fault = {
            let mut state = state.lock().unwrap();
            *state.seen.entry(key).or_default() += 1;
            state.faults.get_mut(&key).and_then(VecDeque::pop_front).unwrap_or(Fault::None)
        };
        let refuse = match &fault {
            Fault::Refuse(code) => Some(*code),
            _ => None,
        };
        match fault {
            Fault::Disconnect => return Ok(()),
            Fault::Hang => std::future::pending().await,
            Fault::Bytes(bytes) => {
                stream.write_all(&bytes).await?;
                continue;
            }
            _ => {}
        }
        let (handshake, authenticate) = (ApiKey::SaslHandshake.code(), ApiKey::SaslAuthenticate.code());
        if logging_in && key != authenticate {
            state.lock().unwrap().interrupted_logins += 1;
            return Ok(());
        }
        if key == handshake || key == authenticate {
            logging_in = key == handshake;
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        if key == ApiKey::Fetch.code() {
            let wait = nothing_to_fetch(&frame, &state.lock().unwrap());
            tokio::time::sleep(wait.unwrap_or_default()).await;
        }
        if key == ApiKey::ShareFetch.code() {
            let wait = fake_share::hold(&frame, &state.lock().unwrap());
            tokio::time::sleep(wait).await;
        }
        let answer = answer(frame.into(), &mut state.lock().unwrap(), address, refuse);
        match fault {
            Fault::ServeThenDisconnect => return Ok(()),
            Fault::ServeThenClose => return stream.write_all(&answer).await,
            Fault::ServeThenSilence => {}
            _ => stream.write_all(&answer).await?,
        }
    }
}

fn answer(frame: Bytes, state: &mut State, address: &str, refuse: Option<ErrorCode>) -> Bytes {
    let mut input = Decoder::new(frame);
    let header = decode_request_header(&mut input).unwrap();
    let key = ApiKey::try_from(header.api_key).unwrap();
    let (version, id) = (header.api_version, header.correlation_id);
    match key {
        ApiKey::ApiVersions => api_versions(state, version, id),
        ApiKey::Metadata => {
            let request = MetadataRequest::decode(&mut input, version).unwrap();
            encode(key, &metadata(state, &request, address), version, id)
        }
        ApiKey::ListOffsets => {
            let request = ListOffsetsRequest::decode(&mut input, version).unwrap();
            encode(key, &list_offsets(state, request), version, id)
        }
        ApiKey::InitProducerId => {
            state.producers += 1;
            let producer_id = if state.has_no_producer_ids { -1 } else { state.producers };
            let answer = InitProducerIdResponse { producer_id, ..Default::default() };
            encode(key, &answer, version, id)
        }
        ApiKey::Produce => {
            let request = ProduceRequest::decode(&mut input, version).unwrap();
            encode(key, &produce(state, request, refuse), version, id)
        }
        ApiKey::Fetch => {
            let request = FetchRequest::decode(&mut input, version).unwrap();
            encode(key, &fetch(state, request), version, id)
        }
        ApiKey::FindCoordinator => {
            let request = FindCoordinatorRequest::decode(&mut input, version).unwrap();
            encode(key, &coordinators(request, state.has_transactions), version, id)
        }
        ApiKey::DescribeGroups => {
            let request = DescribeGroupsRequest::decode(&mut input, version).unwrap();
            encode(key, &groups(request), version, id)
        }
        ApiKey::AddPartitionsToTxn => {
            let request = AddPartitionsToTxnRequest::decode(&mut input, version).unwrap();
            encode(key, &added(request), version, id)
        }
        ApiKey::EndTxn => {
            let error_code = refuse.unwrap_or(ErrorCode::None).code();
            encode(key, &EndTxnResponse { error_code, ..Default::default() }, version, id)
        }
        ApiKey::SaslHandshake => encode(key, &SaslHandshakeResponse::default(), version, id),
        ApiKey::SaslAuthenticate => {
            let session_lifetime_ms = state.session_lifetime_ms;
            let error_code =
                if state.refuses_logins { ErrorCode::SaslAuthenticationFailed.code() } else { 0 };
            let answer = SaslAuthenticateResponse { session_lifetime_ms, error_code, ..Default::default() };
            encode(key, &answer, version, id)
        }
        ApiKey::CreateTopics => {
            let request = CreateTopicsRequest::decode(&mut input, version).unwrap();
            let created =
                |topic: CreatableTopic| CreatableTopicResult { name: topic.name, ..Default::default() };
            let topics = request.topics.into_iter().map(created).collect();
            encode(key, &CreateTopicsResponse { topics, ..Default::default() }, version, id)
        }
        share if fake_share::APIS.contains(&share) => {
            fake_share::answer(state, share, &mut input, version, id)
        }
        group => state.group.answer(group, &mut input, version, id),
    }
}

pub(crate) fn encode<M: Message>(key: ApiKey, answer: &M, version: i16, id: i32) -> Bytes {
    encode_response(key, answer, version, id).unwrap().bytes
}

fn api_versions(state: &State, version: i16, id: i32) -> Bytes {
    let served = [
        ApiKey::Produce,
        ApiKey::Fetch,
        ApiKey::Metadata,
        ApiKey::ApiVersions,
        ApiKey::InitProducerId,
        ApiKey::FindCoordinator,
        ApiKey::DescribeGroups,
        ApiKey::CreateTopics,
        ApiKey::ListOffsets,
        ApiKey::SaslHandshake,
        ApiKey::SaslAuthenticate,
        ApiKey::AddPartitionsToTxn,
        ApiKey::EndTxn,
    ];
    let mut api_keys: Vec<ApiVersion> = served
        .into_iter()
        .chain(fake_group::APIS)
        .chain(fake_share::APIS)
        .map(|key| {
            let versions = supported_versions(key).unwrap();
            ApiVersion {
                api_key: key.code(),
                min_version: *versions.start(),
                max_version: *versions.end(),
                ..Default::default()
            }
        })
        .collect();
    let up_to = state.api_versions_up_to.unwrap_or(i16::MAX);
    api_keys.iter_mut().filter(|api| api.api_key == ApiKey::ApiVersions.code()).for_each(|api| {
        api.max_version = api.max_version.min(up_to);
    });
    let share_up_to = state.share.up_to.unwrap_or(i16::MAX);
    let of_share = |api: &&mut ApiVersion| fake_share::APIS.iter().any(|key| key.code() == api.api_key);
    api_keys.iter_mut().filter(of_share).for_each(|api| api.max_version = api.max_version.min(share_up_to));
    let (code, version) =
        if version > up_to { (ErrorCode::UnsupportedVersion, 0) } else { (ErrorCode::None, version) };
    let answer = ApiVersionsResponse { error_code: code.code(), api_keys, ..Default::default() };
    encode(ApiKey::ApiVersions, &answer, version, id)
}

fn metadata(state: &State, request: &MetadataRequest, address: &str) -> MetadataResponse {
    let (host, port) = address.rsplit_once(':').unwrap();
    let partition = |index: usize| MetadataResponsePartition {
        partition_index: index as i32,
        leader_id: if state.led_by_nobody.contains(&index) { NOBODY } else { NODE },
        leader_epoch: 0,
        ..Default::default()
    };
    let broker = |node_id, host: &str| MetadataResponseBroker {
        node_id,
        host: host.into(),
        port: port.parse().unwrap(),
        ..Default::default()
    };
    // There is one topic; others are illegal, forbidden or not there.
    let named = request.topics.iter().flatten().filter_map(|topic| topic.name.clone());
    let others = named.filter(|name| **name != *TOPIC).map(|name| {
        let code = match &*name {
            "secret" => ErrorCode::TopicAuthorizationFailed,
            illegal if illegal.contains(' ') => ErrorCode::InvalidTopicException,
            _ => ErrorCode::UnknownTopicOrPartition,
        };
        MetadataResponseTopic { error_code: code.code(), name: Some(name), ..Default::default() }
    });
    let topic = MetadataResponseTopic {
        name: Some(TOPIC.into()),
        topic_id: state.topic_id,
        partitions: (0..state.logs.len()).map(partition).collect(),
        ..Default::default()
    };
    MetadataResponse {
        brokers: vec![broker(NODE, host), broker(NOBODY, "nobody")],
        controller_id: NODE,
        topics: std::iter::once(topic).chain(others).collect(),
        ..Default::default()
    }
}

/// All partitions join the transaction.
fn added(request: AddPartitionsToTxnRequest) -> AddPartitionsToTxnResponse {
    let result =
        |partition_index| AddPartitionsToTxnPartitionResult { partition_index, ..Default::default() };
    let topic = |topic: AddPartitionsToTxnTopic| AddPartitionsToTxnTopicResult {
        name: topic.name,
        results_by_partition: topic.partitions.into_iter().map(result).collect(),
        ..Default::default()
    };
    let results_by_topic_v3_and_below = request.v3_and_below_topics.into_iter().map(topic).collect();
    AddPartitionsToTxnResponse { results_by_topic_v3_and_below, ..Default::default() }
}

fn coordinators(request: FindCoordinatorRequest, of_transactions: bool) -> FindCoordinatorResponse {
    let (node_id, code) = match request.key_type {
        0 => (NODE, ErrorCode::None),
        _ if of_transactions => (NODE, ErrorCode::None),
        _ => (-1, ErrorCode::TransactionalIdAuthorizationFailed),
    };
    let coordinator = |key| Coordinator { key, node_id, error_code: code.code(), ..Default::default() };
    let coordinators = request.coordinator_keys.into_iter().map(coordinator).collect();
    FindCoordinatorResponse { coordinators, ..Default::default() }
}

/// Every group is there and stable.
fn groups(request: DescribeGroupsRequest) -> DescribeGroupsResponse {
    let described = |group_id| DescribedGroup {
        group_id,
        group_state: Utf8Bytes::from_static("Stable"),
        ..Default::default()
    };
    DescribeGroupsResponse {
        groups: request.groups.into_iter().map(described).collect(),
        ..Default::default()
    }
}

fn produce(state: &mut State, request: ProduceRequest, refuse: Option<ErrorCode>) -> ProduceResponse {
    let mut response = ProduceResponse { throttle_time_ms: state.throttle_ms, ..Default::default() };
    for topic in request.topic_data {
        let topic_id = topic.topic_id;
        let mut answered = TopicProduceResponse { name: topic.name, topic_id, ..Default::default() };
        for data in topic.partition_data {
            let batch = data.records.unwrap().into_bytes().unwrap();
            let too_large = state.max_batch_bytes.is_some_and(|most| batch.len() > most);
            let refuse = refuse.or(too_large.then_some(ErrorCode::MessageTooLarge));
            let another = topic_id != Uuid::ZERO && topic_id != state.topic_id;
            let refuse = refuse.or(another.then_some(ErrorCode::UnknownTopicId));
            let log = &mut state.logs[data.index as usize];
            let result = refuse.map_or_else(|| append(log, batch), Err);
            answered.partition_responses.push(PartitionProduceResponse {
                index: data.index,
                error_code: result.err().unwrap_or(ErrorCode::None).code(),
                base_offset: result.unwrap_or(-1),
                ..Default::default()
            });
        }
        response.responses.push(answered);
    }
    response
}

/// Kafka's rules: any first sequence is accepted from a producer id that the partition does not know; then the last
/// five batches are recognised, gaps are refused, a new epoch begins at 0 and fences the ones before it.
fn append(log: &mut Vec<RecordBatch>, batch: Bytes) -> Result<i64, ErrorCode> {
    let batch = RecordBatch::parse(batch).unwrap();
    batch.verify_crc().unwrap();
    let header = *batch.header();
    if header.producer_id >= 0 {
        let own = log.iter().map(|other| *other.header());
        let own: Vec<_> = own.filter(|other| other.producer_id == header.producer_id).collect();
        let epoch = own.last().map_or(header.producer_epoch, |last| last.producer_epoch);
        if header.producer_epoch < epoch {
            return Err(ErrorCode::InvalidProducerEpoch);
        }
        let mut recent =
            own.iter().rev().filter(|other| other.producer_epoch == header.producer_epoch).take(5);
        if let Some(same) = recent.clone().find(|other| other.base_sequence == header.base_sequence) {
            return Ok(same.base_offset);
        }
        let expected = match recent.next() {
            Some(last) => last.base_sequence + last.record_count,
            None if own.is_empty() => header.base_sequence,
            None => 0,
        };
        if header.base_sequence != expected {
            return Err(ErrorCode::OutOfOrderSequenceNumber);
        }
    }
    let base_offset = log.last().map_or(0, |last| last.header().next_offset());
    let mut bytes = batch.bytes().to_vec();
    patch::set_base_offset(&mut bytes, base_offset).unwrap();
    log.push(RecordBatch::parse(bytes.into()).unwrap());
    Ok(base_offset)
}

/// The end of the log for -1, else its beginning.
fn list_offsets(state: &State, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let mut response = ListOffsetsResponse::default();
    for topic in request.topics {
        let mut answered = ListOffsetsTopicResponse { name: topic.name, ..Default::default() };
        for part in topic.partitions {
            let log = &state.logs[part.partition_index as usize];
            let end = log.last().map_or(0, |last| last.header().next_offset());
            answered.partitions.push(ListOffsetsPartitionResponse {
                partition_index: part.partition_index,
                offset: if part.timestamp == -1 { end } else { 0 },
                ..Default::default()
            });
        }
        response.topics.push(answered);
    }
    response
}

/// How long a fetch is held.
fn nothing_to_fetch(frame: &[u8], state: &State) -> Option<Duration> {
    let mut input = Decoder::new(Bytes::copy_from_slice(frame));
    let header = decode_request_header(&mut input).unwrap();
    let request = FetchRequest::decode(&mut input, header.api_version).unwrap();
    let max_wait = Duration::from_millis(request.max_wait_ms as u64);
    let nothing =
        |part: &PartitionData| part.error_code == 0 && part.records.as_ref().is_none_or(Records::is_empty);
    let answer = fetch(state, request);
    answer.responses.iter().flat_map(|topic| &topic.partitions).all(nothing).then_some(max_wait)
}

fn fetch(state: &State, request: FetchRequest) -> FetchResponse {
    let mut response = FetchResponse { throttle_time_ms: state.throttle_ms, ..Default::default() };
    for topic in request.topics {
        let mut answered =
            FetchableTopicResponse { topic: topic.topic, topic_id: topic.topic_id, ..Default::default() };
        for part in topic.partitions {
            let log = &state.logs[part.partition as usize];
            let wanted = log.iter().filter(|batch| batch.header().last_offset() >= part.fetch_offset);
            let records = wanted.flat_map(|batch| batch.bytes().to_vec()).collect::<Vec<u8>>();
            let end = log.last().map_or(0, |last| last.header().next_offset());
            let error_code = match () {
                () if topic.topic_id != state.topic_id => ErrorCode::UnknownTopicId,
                () if part.fetch_offset > end => ErrorCode::OffsetOutOfRange,
                () => ErrorCode::None,
            };
            answered.partitions.push(PartitionData {
                partition_index: part.partition,
                error_code: error_code.code(),
                high_watermark: state.high_watermark.unwrap_or(end),
                records: Some(Records::Bytes(records.into())),
                ..Default::default()
            });
        }
        response.responses.push(answered);
    }
    response
}
