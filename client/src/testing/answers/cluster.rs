//! Who and what there is: ApiVersions, Metadata, FindCoordinator, CreateTopics, logins. Pure.

use klamm_protocol::frame::encode_response;
use klamm_protocol::messages::api_versions::ApiVersion;
use klamm_protocol::messages::create_topics::{CreatableTopic, CreatableTopicResult};
use klamm_protocol::messages::find_coordinator::Coordinator;
use klamm_protocol::messages::metadata::{
    MetadataRequestTopic, MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use klamm_protocol::messages::*;
use klamm_protocol::{ApiKey, ErrorCode, Utf8Bytes, Uuid};

use super::outcome::Outcome;
use crate::testing::received::Received;
use crate::testing::script::Verdict;
use crate::testing::state::{PARTITIONS_MAX, Partition, State, Topic, is_legal};

/// The broker's id.
const NODE: i32 = 1;
/// The id of a broker at whose address nobody listens.
const UNREACHABLE: i32 = 2;
const UNREACHABLE_HOST: &str = "127.0.0.1";
const UNREACHABLE_PORT: i32 = 1;

/// As Kafka does: ApiVersions is answered in its version 0, for anything else the connection is closed.
pub(super) fn unknown_version(state: &State, received: &Received) -> Outcome {
    if received.api != ApiKey::ApiVersions {
        return Outcome::Close;
    }
    let answer = ApiVersionsResponse { error_code: ErrorCode::UnsupportedVersion.code(), ..versions(state) };
    match encode_response(received.api, &answer, 0, received.correlation_id) {
        Ok(encoded) => Outcome::Answer(encoded.bytes),
        Err(_) => Outcome::Close,
    }
}

pub(super) fn api_versions(state: &State, verdict: &Verdict) -> ApiVersionsResponse {
    match verdict.whole() {
        Some(code) => ApiVersionsResponse { error_code: code.code(), ..Default::default() },
        None => versions(state),
    }
}

fn versions(state: &State) -> ApiVersionsResponse {
    let offered = state.offered().into_iter().map(|(api, min_version, max_version)| ApiVersion {
        api_key: api.code(),
        min_version,
        max_version,
        ..Default::default()
    });
    ApiVersionsResponse { api_keys: offered.collect(), ..Default::default() }
}

pub(super) fn metadata(
    state: &State,
    request: &MetadataRequest,
    version: i16,
    verdict: &Verdict,
) -> MetadataResponse {
    // Version 0 has no null: no topics are all topics.
    let named = request.topics.as_ref().filter(|topics| version > 0 || !topics.is_empty());
    let topics = match named {
        None => state.topics.iter().map(|(name, topic)| described(name, topic, verdict)).collect(),
        Some(topics) => topics.iter().map(|topic| asked_for(state, topic, verdict)).collect(),
    };
    let broker = |node_id, host: &str, port| MetadataResponseBroker {
        node_id,
        host: host.into(),
        port,
        ..Default::default()
    };
    let mut brokers = vec![broker(NODE, &state.host, state.port)];
    if state.topics.values().any(|topic| topic.partitions.iter().any(|partition| partition.away)) {
        brokers.push(broker(UNREACHABLE, UNREACHABLE_HOST, UNREACHABLE_PORT));
    }
    MetadataResponse {
        brokers,
        cluster_id: Some(Utf8Bytes::from_static("fake")),
        controller_id: NODE,
        topics,
        ..Default::default()
    }
}

fn asked_for(state: &State, asked: &MetadataRequestTopic, verdict: &Verdict) -> MetadataResponseTopic {
    let (name, id) = match &asked.name {
        Some(name) => (name.clone(), Uuid::ZERO),
        None => (Utf8Bytes::default(), asked.topic_id),
    };
    let resolved = state.resolve(&name, id);
    let refused = verdict.topic(resolved.as_deref().unwrap_or(&name));
    let illegal = (asked.name.is_some() && !is_legal(&name)).then_some(ErrorCode::InvalidTopicException);
    let code = match (refused.or(illegal), resolved) {
        (None, Ok(name)) => match state.topics.get(&name) {
            Some(topic) => return described(&name, topic, verdict),
            None => ErrorCode::UnknownTopicOrPartition,
        },
        (None, Err(code)) | (Some(code), _) => code,
    };
    MetadataResponseTopic {
        error_code: code.code(),
        name: asked.name.clone(),
        topic_id: id,
        ..Default::default()
    }
}

fn described(name: &str, topic: &Topic, verdict: &Verdict) -> MetadataResponseTopic {
    if let Some(code) = verdict.topic(name) {
        return MetadataResponseTopic {
            error_code: code.code(),
            name: Some(name.into()),
            ..Default::default()
        };
    }
    let partition = |(partition_index, partition): (i32, &Partition)| {
        let leader_id = if partition.away { UNREACHABLE } else { NODE };
        let code = verdict.own(name, partition_index).unwrap_or(ErrorCode::None);
        MetadataResponsePartition {
            error_code: code.code(),
            partition_index,
            leader_id: if code == ErrorCode::LeaderNotAvailable { -1 } else { leader_id },
            leader_epoch: 0,
            replica_nodes: vec![leader_id],
            isr_nodes: vec![leader_id],
            ..Default::default()
        }
    };
    MetadataResponseTopic {
        name: Some(name.into()),
        topic_id: topic.id,
        partitions: (0..).zip(&topic.partitions).map(partition).collect(),
        ..Default::default()
    }
}

/// It coordinates every group and every transaction.
pub(super) fn coordinators(
    state: &State,
    request: &FindCoordinatorRequest,
    version: i16,
    verdict: &Verdict,
) -> FindCoordinatorResponse {
    const SINGLE_UP_TO: i16 = 3;
    let code = verdict.whole().unwrap_or(ErrorCode::None);
    let (node_id, host, port) = match code {
        ErrorCode::None => (NODE, Utf8Bytes::from(&*state.host), state.port),
        _ => (-1, Utf8Bytes::default(), -1),
    };
    let error_code = code.code();
    if version <= SINGLE_UP_TO {
        return FindCoordinatorResponse { error_code, node_id, host, port, ..Default::default() };
    }
    let coordinator = |key: &Utf8Bytes| Coordinator {
        key: key.clone(),
        node_id,
        host: host.clone(),
        port,
        error_code,
        ..Default::default()
    };
    let coordinators = request.coordinator_keys.iter().map(coordinator).collect();
    FindCoordinatorResponse { coordinators, ..Default::default() }
}

pub(super) fn create_topics(
    state: &mut State,
    request: &CreateTopicsRequest,
    verdict: &Verdict,
) -> CreateTopicsResponse {
    let mut create = |topic: &CreatableTopic| {
        let count = match (topic.num_partitions, topic.assignments.len()) {
            (_, placed) if placed > 0 => placed,
            (-1, _) => 1,
            (count, _) => usize::try_from(count).unwrap_or(0),
        };
        let code = match verdict.topic(&topic.name) {
            Some(code) => code,
            None if state.topics.contains_key(&*topic.name) => ErrorCode::TopicAlreadyExists,
            None if request.validate_only && !is_legal(&topic.name) => ErrorCode::InvalidTopicException,
            None if request.validate_only && (count == 0 || count > PARTITIONS_MAX) => {
                ErrorCode::InvalidPartitions
            }
            None if request.validate_only => ErrorCode::None,
            None => state.make_topic(&topic.name, count).err().unwrap_or(ErrorCode::None),
        };
        let made = state.topics.get(&*topic.name).filter(|_| code == ErrorCode::None);
        CreatableTopicResult {
            name: topic.name.clone(),
            topic_id: made.map_or(Uuid::ZERO, |topic| topic.id),
            error_code: code.code(),
            ..Default::default()
        }
    };
    CreateTopicsResponse { topics: request.topics.iter().map(&mut create).collect(), ..Default::default() }
}

/// Any mechanism is welcome.
pub(super) fn handshake(request: &SaslHandshakeRequest, verdict: &Verdict) -> SaslHandshakeResponse {
    SaslHandshakeResponse {
        error_code: verdict.whole().unwrap_or(ErrorCode::None).code(),
        mechanisms: vec![request.mechanism.clone()],
        ..Default::default()
    }
}

/// Anybody may come in, and for as long as he likes.
pub(super) fn authenticate(verdict: &Verdict) -> SaslAuthenticateResponse {
    let error_code = verdict.whole().unwrap_or(ErrorCode::None).code();
    SaslAuthenticateResponse { error_code, ..Default::default() }
}
