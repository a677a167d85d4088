//! Metadata and topics.

use klamm_protocol::messages::create_topics::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use klamm_protocol::messages::delete_topics::DeleteTopicState;
use klamm_protocol::messages::metadata::MetadataRequestTopic;
use klamm_protocol::messages::{
    ApiVersionsRequest, CreateTopicsRequest, DeleteTopicsRequest, MetadataRequest,
};
use klamm_protocol::{ErrorCode, Utf8Bytes, Uuid};

use super::wire::*;

fn create(name: &str) -> CreateTopicsRequest {
    let topic = CreatableTopic {
        name: name.into(),
        num_partitions: 2,
        replication_factor: 1,
        ..CreatableTopic::default()
    };
    CreateTopicsRequest { topics: vec![topic], ..CreateTopicsRequest::default() }
}

#[tokio::test(start_paused = true)]
async fn a_topic_is_created_described_deleted_and_created_anew_with_another_id() {
    let memory = InMemory::start().await;
    let mut wire = memory.connect().await;
    let created = wire.ask(&create("t")).await.topics.remove(0);
    assert_eq!((created.error_code, created.num_partitions), (0, 2));
    let described = wire.metadata(&["t"]).await.topics.remove(0);
    assert_eq!((described.topic_id, described.partitions.len()), (created.topic_id, 2));
    let again = wire.ask(&create("t")).await.topics.remove(0);
    assert_eq!(again.error_code, ErrorCode::TopicAlreadyExists.code());
    wire.produce("t", batch(&["old"])).await;

    let by_id = DeleteTopicState { topic_id: created.topic_id, ..DeleteTopicState::default() };
    let request = DeleteTopicsRequest { topics: vec![by_id], ..DeleteTopicsRequest::default() };
    let deleted = wire.ask(&request).await.responses.remove(0);
    assert_eq!((deleted.error_code, deleted.name.as_deref()), (0, Some("t")));
    assert_eq!(wire.ask(&request).await.responses[0].error_code, ErrorCode::UnknownTopicId.code());
    assert_eq!(wire.produce("t", batch(&["x"])).await.error_code, ErrorCode::UnknownTopicOrPartition.code());

    let anew = wire.ask(&create("t")).await.topics.remove(0);
    assert_ne!(anew.topic_id, created.topic_id);
    assert!(wire.read_all("t").await.is_empty());
    let by_name =
        DeleteTopicsRequest { topic_names: vec!["t".into(), "u".into()], ..DeleteTopicsRequest::default() };
    let deleted = wire.ask_in(&by_name, 5).await.responses;
    let codes: Vec<i16> = deleted.iter().map(|topic| topic.error_code).collect();
    assert_eq!(codes, [0, ErrorCode::UnknownTopicOrPartition.code()]);
}

#[tokio::test(start_paused = true)]
async fn topics_that_cannot_be_are_refused_one_by_one() {
    let memory = InMemory::with(|builder| builder.set("max.partitions", 100)).await;
    let mut wire = memory.connect().await;
    let topic = |name: &str| create(name).topics.remove(0);
    let assigned = |broker| CreatableReplicaAssignment { broker_ids: vec![broker], ..Default::default() };
    let config = |name: &str, value: &str| CreatableTopicConfig {
        name: name.into(),
        value: Some(value.into()),
        ..CreatableTopicConfig::default()
    };
    let by_hand = |broker| CreatableTopic {
        num_partitions: -1,
        replication_factor: -1,
        assignments: vec![assigned(broker)],
        ..topic("by-hand")
    };
    let cases = [
        (topic("good"), ErrorCode::None),
        (CreatableTopic { num_partitions: -1, replication_factor: -1, ..topic("defaults") }, ErrorCode::None),
        (by_hand(1), ErrorCode::None),
        (CreatableTopic { name: "twice".into(), ..by_hand(2) }, ErrorCode::InvalidReplicaAssignment),
        (topic(""), ErrorCode::InvalidTopicException),
        (topic("a/b"), ErrorCode::InvalidTopicException),
        (topic("__consumer_offsets"), ErrorCode::InvalidTopicException),
        (topic("__cluster_metadata"), ErrorCode::InvalidTopicException),
        (CreatableTopic { replication_factor: 3, ..topic("rf") }, ErrorCode::InvalidReplicationFactor),
        (CreatableTopic { num_partitions: 0, ..topic("none") }, ErrorCode::InvalidPartitions),
        (CreatableTopic { num_partitions: 1_000_000, ..topic("many") }, ErrorCode::InvalidPartitions),
        (
            CreatableTopic { configs: vec![config("retention.ms", "soon")], ..topic("config") },
            ErrorCode::InvalidConfig,
        ),
    ];
    let (topics, expected): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
    let dry = CreateTopicsRequest { topics: topics.clone(), validate_only: true, ..create("x") };
    let codes = |response: klamm_protocol::messages::CreateTopicsResponse| -> Vec<ErrorCode> {
        response.topics.iter().map(|topic| ErrorCode::from_code(topic.error_code)).collect()
    };
    assert_eq!(codes(wire.ask(&dry).await), expected);
    let wet = CreateTopicsRequest { topics, ..create("x") };
    assert_eq!(codes(wire.ask(&wet).await), expected, "and the dry run had created nothing");
    let doubled = CreateTopicsRequest { topics: vec![topic("d"), topic("d")], ..create("x") };
    assert_eq!(codes(wire.ask(&doubled).await), [ErrorCode::InvalidRequest; 2]);
}

#[tokio::test(start_paused = true)]
async fn metadata_in_every_version() {
    let memory = InMemory::with(|builder| builder.set("num.partitions", 3).set("node.id", 7)).await;
    let mut wire = memory.connect().await;
    for version in 0..=13 {
        let name = format!("auto-{version}");
        let wanted = MetadataRequestTopic { name: Some(name.as_str().into()), ..Default::default() };
        let request = MetadataRequest { topics: Some(vec![wanted]), ..MetadataRequest::default() };
        let response = wire.ask_in(&request, version).await;
        let address = format!("{}:{}", response.brokers[0].host, response.brokers[0].port);
        assert_eq!(address, memory.broker.bootstrap());
        let topic = &response.topics[0];
        assert_eq!((topic.error_code, topic.name.as_deref(), topic.partitions.len()), (0, Some(&*name), 3));
        assert!(topic.partitions.iter().all(|p| p.leader_id == 7 && p.isr_nodes == [7]));
        assert!(version < 10 || !topic.topic_id.is_zero());

        let all = MetadataRequest {
            topics: (version > 0).then_some(()).map_or(Some(vec![]), |()| None),
            ..MetadataRequest::default()
        };
        assert_eq!(wire.ask_in(&all, version).await.topics.len(), usize::try_from(version).unwrap() + 1);
        if version > 0 {
            let none = MetadataRequest { topics: Some(vec![]), ..MetadataRequest::default() };
            assert!(wire.ask_in(&none, version).await.topics.is_empty());
        }
    }
    let by_id = MetadataRequestTopic { topic_id: Uuid::from_u128(1), name: None, ..Default::default() };
    let request = MetadataRequest { topics: Some(vec![by_id]), ..MetadataRequest::default() };
    assert_eq!(wire.ask(&request).await.topics[0].error_code, ErrorCode::UnknownTopicId.code());
}

#[tokio::test(start_paused = true)]
async fn topics_appear_by_themselves_only_where_that_is_allowed() {
    let memory = InMemory::start().await;
    let mut wire = memory.connect().await;
    assert_eq!(
        wire.metadata(&["bad name"]).await.topics[0].error_code,
        ErrorCode::InvalidTopicException.code()
    );
    let wanted = MetadataRequestTopic { name: Some("t".into()), ..MetadataRequestTopic::default() };
    let request = MetadataRequest {
        topics: Some(vec![wanted]),
        allow_auto_topic_creation: false,
        ..Default::default()
    };
    assert_eq!(wire.ask(&request).await.topics[0].error_code, ErrorCode::UnknownTopicOrPartition.code());

    let strict = InMemory::with(|builder| builder.set("auto.create.topics.enable", false)).await;
    let mut wire = strict.connect().await;
    let unknown = &wire.metadata(&["t"]).await.topics[0];
    assert_eq!(unknown.error_code, ErrorCode::UnknownTopicOrPartition.code());
    assert_eq!(unknown.name, Some(Utf8Bytes::from_static("t")));
}

#[tokio::test(start_paused = true)]
async fn what_is_served_is_announced_to_any_version() {
    let memory = InMemory::start().await;
    let mut wire = memory.connect().await;
    for version in 0..=5 {
        let request = ApiVersionsRequest {
            client_software_name: "test".into(),
            client_software_version: "1.0".into(),
            ..ApiVersionsRequest::default()
        };
        let response = wire.ask_in(&request, version).await;
        assert_eq!((response.error_code, response.api_keys.len()), (0, 33));
        let produce = response.api_keys.iter().find(|api| api.api_key == 0).unwrap();
        assert_eq!((produce.min_version, produce.max_version), (0, 13));
    }
    let nameless = wire.ask_in(&ApiVersionsRequest::default(), 3).await;
    assert_eq!(nameless.error_code, ErrorCode::InvalidRequest.code());
}
