//! Lies about the cluster: versions, brokers, topics and leaders.

use klamm_client::testing::Answer;
use klamm_protocol::messages::api_versions::ApiVersion;
use klamm_protocol::messages::metadata::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use klamm_protocol::messages::*;
use klamm_protocol::{ApiKey, ErrorCode, Uuid};

use super::{Case, reads_through, sends_through};

fn broker(node_id: i32, host: &str, port: i32) -> MetadataResponseBroker {
    MetadataResponseBroker { node_id, host: host.into(), port, ..Default::default() }
}

fn partition(partition_index: i32, leader_id: i32, leader_epoch: i32) -> MetadataResponsePartition {
    MetadataResponsePartition { partition_index, leader_id, leader_epoch, ..Default::default() }
}

/// Topics that were asked about, as a lie has them.
fn topics(name: &str, edit: impl Fn(&mut MetadataResponseTopic) + Clone + Send + Sync + 'static) -> Case {
    metadata(name, move |answer| answer.topics.iter_mut().for_each(&edit))
}

fn partitions(
    name: &str,
    edit: impl Fn(&mut MetadataResponsePartition) + Clone + Send + Sync + 'static,
) -> Case {
    topics(name, move |topic| topic.partitions.iter_mut().for_each(&edit))
}

fn metadata(name: &str, edit: impl Fn(&mut MetadataResponse) + Clone + Send + Sync + 'static) -> Case {
    Case::edited::<MetadataRequest>(format!("metadata: {name}"), edit)
}

fn of_brokers() -> Vec<Case> {
    let addresses = [
        ("broker at 0.0.0.0", "0.0.0.0", 1),
        ("broker without a host", "", 9_092),
        ("broker on port 0", "broker", 0),
        ("broker on port -1", "broker", -1),
        ("broker on port 70,000", "broker", 70_000),
        ("broker on port 2^31 - 1", "broker", i32::MAX),
        ("broker whose host is no name", "\u{0}\r\n/@:::", 1),
    ];
    let mut cases: Vec<Case> = Vec::new();
    for (name, host, port) in addresses {
        cases.push(metadata(name, move |answer| answer.brokers = vec![broker(1, host, port)]));
    }
    cases.push(metadata("no brokers", |answer| answer.brokers.clear()));
    // Often enough; the broker needs its time to write so many.
    let many = |answer: &mut MetadataResponse| {
        answer.brokers.extend((0..65_536).map(|id| broker(id, "broker", 1)));
    };
    cases.push(Case::new("metadata: 65,536 brokers", move |broker| {
        broker.next(ApiKey::Metadata, 10, Answer::edited::<MetadataRequest>(many));
    }));
    cases.push(metadata("a host of 32 KiB", |answer| {
        answer.brokers = vec![broker(1, &"x".repeat(32_767), 1)];
    }));
    cases.push(metadata("negative ids", |answer| answer.brokers.iter_mut().for_each(|one| one.node_id = -1)));
    cases.push(metadata("one id twice", |answer| answer.brokers.push(broker(1, "broker", 1))));
    cases.push(metadata("a controller of -5", |answer| answer.controller_id = -5));
    cases.push(metadata("the longest throttle", |answer| answer.throttle_time_ms = i32::MAX));
    cases.push(metadata("a negative throttle", |answer| answer.throttle_time_ms = i32::MIN));
    cases
}

fn of_topics() -> Vec<Case> {
    vec![
        metadata("no topics", |answer| answer.topics.clear()),
        metadata("topics that nobody asked about", |answer| {
            let other = |number| MetadataResponseTopic {
                name: Some(format!("other-{number}").into()),
                partitions: vec![partition(0, 1, 0)],
                ..Default::default()
            };
            answer.topics.extend((0..20_000).map(other));
        }),
        topics("another topic", |topic| topic.name = Some("other".into())),
        topics("a topic without a name", |topic| topic.name = None),
        topics("an error that nobody knows", |topic| topic.error_code = 12_345),
        topics("a negative error", |topic| topic.error_code = i16::MIN),
        topics("no partitions", |topic| topic.partitions.clear()),
        topics("200,000 partitions", |topic| {
            topic.partitions.extend((2..200_000).map(|index| partition(index, 1, 0)));
        }),
        topics("an id of zero", |topic| topic.topic_id = Uuid::ZERO),
        topics("the id of no topic", |topic| topic.topic_id = Uuid::from_u128(0xdead)),
        partitions("partitions without a leader", |part| part.leader_id = -1),
        partitions("partitions led by nobody", |part| part.leader_id = 99),
        partitions("partitions led by the least number", |part| part.leader_id = i32::MIN),
        partitions("partitions with an error that nobody knows", |part| part.error_code = 12_345),
        partitions("partition numbers below zero", |part| part.partition_index = i32::MIN),
        partitions("the greatest partition number", |part| part.partition_index = i32::MAX),
        partitions("one partition number", |part| part.partition_index = 0),
        partitions("an epoch below zero", |part| part.leader_epoch = i32::MIN),
    ]
}

fn errors() -> Vec<Case> {
    let codes = [
        ErrorCode::UnknownServerError,
        ErrorCode::UnknownTopicOrPartition,
        ErrorCode::LeaderNotAvailable,
        ErrorCode::InvalidTopicException,
        ErrorCode::TopicAuthorizationFailed,
        ErrorCode::Unknown(i16::MAX),
    ];
    codes.into_iter().map(|code| Case::answered(ApiKey::Metadata, Answer::Error(code))).collect()
}

fn versions(name: &str, edit: fn(&mut ApiVersionsResponse)) -> Case {
    // Only a connection that is made anew is told of versions.
    let name = format!("versions: {name}");
    Case::new(name, move |broker| {
        broker.always(ApiKey::ApiVersions, Answer::edited::<ApiVersionsRequest>(edit)).disconnect();
    })
    .believed()
}

fn of_versions() -> Vec<Case> {
    vec![
        versions("none", |answer| answer.api_keys.clear()),
        versions("from high to low", |answer| {
            answer.api_keys.iter_mut().for_each(|api| (api.min_version, api.max_version) = (9, 1));
        }),
        versions("negative ones", |answer| {
            answer.api_keys.iter_mut().for_each(|api| (api.min_version, api.max_version) = (-9, -1));
        }),
        versions("later ones only", |answer| {
            answer.api_keys.iter_mut().for_each(|api| (api.min_version, api.max_version) = (900, i16::MAX));
        }),
        versions("an error that nobody knows", |answer| answer.error_code = 12_345),
        versions("unsupported for ever", |answer| answer.error_code = ErrorCode::UnsupportedVersion.code()),
        versions("the longest throttle", |answer| answer.throttle_time_ms = i32::MAX),
        versions("60,000 of them", |answer| {
            answer.api_keys.extend((0..30_000).map(|api_key| ApiVersion {
                api_key,
                max_version: i16::MAX,
                ..Default::default()
            }));
        }),
    ]
}

#[tokio::test(start_paused = true)]
async fn about_brokers() {
    sends_through(of_brokers()).await;
    reads_through(of_brokers(), true).await;
}

#[tokio::test(start_paused = true)]
async fn about_topics() {
    sends_through(of_topics()).await;
    reads_through(of_topics(), true).await;
}

#[tokio::test(start_paused = true)]
async fn errors_for_ever() {
    sends_through(errors()).await;
    reads_through(errors(), true).await;
}

#[tokio::test(start_paused = true)]
async fn about_versions() {
    sends_through(of_versions()).await;
    reads_through(of_versions(), false).await;
}
