//! Administration through faults.

use std::collections::HashMap;

use klamm_client::testing::Answer;
use klamm_client::{AdminError, NewTopic, RequestError, TopicPartition};
use klamm_protocol::ApiKey;
use klamm_protocol::messages::{DescribeGroupsRequest, DescribeGroupsResponse};

use crate::scripted::{self, TOPIC};

/// A hundred groups were a hundred connections, made one after the other, each with its own search for the coordinator.
#[tokio::test(start_paused = true)]
async fn many_groups_are_described_by_few_requests_on_the_shared_connection() {
    let broker = scripted::start(1).await;
    let client = broker.client().await.unwrap();
    let stable = |answer: &mut DescribeGroupsResponse| {
        answer.groups.iter_mut().for_each(|group| group.group_state = "Stable".into());
    };
    broker.always(ApiKey::DescribeGroups, Answer::edited::<DescribeGroupsRequest>(stable));
    let names: Vec<String> = (0..100).map(|number| format!("group-{number}")).collect();
    // The first may open a connection to the broker by its id, beside that to the bootstrap address.
    client.admin().list_topics().await.unwrap();
    let before = broker.connections();
    let described = client.admin().describe_groups(&names).await.unwrap();
    assert_eq!(described.len(), 100);
    assert_eq!(&*described["group-42"].as_ref().unwrap().state, "Stable");
    let connections = broker.connections();
    assert!(connections <= before + 1, "{before} connections, then {connections}");
    assert_eq!(broker.requests(ApiKey::FindCoordinator), 1);
    assert_eq!(broker.requests(ApiKey::DescribeGroups), 1);
}

/// The topic was there, but the call failed because the metadata request after it did; trying again said that
/// the topic exists.
#[tokio::test(start_paused = true)]
async fn a_topic_is_created_although_the_metadata_request_after_it_fails() {
    let broker = scripted::start(1).await;
    let client = broker.client().await.unwrap();
    broker.next(ApiKey::Metadata, 1_000, Answer::DisconnectBefore);
    let created = client.admin().create_topics(&[NewTopic::new("new")]).await.unwrap();
    assert!(created["new"].is_ok(), "{created:?}");
}

/// A broker that cannot do something says so at once; what can be had in an older way is.
#[tokio::test(start_paused = true)]
async fn what_a_broker_lacks_is_told_or_had_in_another_way() {
    let broker = scripted::start(1).await;
    let admin = broker.client().await.unwrap().admin();
    let cluster = admin.clone().timeout(std::time::Duration::MAX).describe_cluster().await.unwrap();
    assert_eq!(cluster.controller, Some(1), "from its metadata");
    assert!(cluster.brokers.iter().any(|broker| broker.id == 1), "{cluster:?}");
    let started = tokio::time::Instant::now();
    let error = admin.delete_groups(&["g"]).await.unwrap_err();
    let is_unsupported =
        |error: &AdminError| matches!(error, AdminError::Request(RequestError::Unsupported { .. }));
    assert!(is_unsupported(&error), "{error}");
    let before = HashMap::from([(TopicPartition::new(TOPIC, 0), 1)]);
    let error = admin.delete_records(&before).await.unwrap_err();
    assert!(is_unsupported(&error), "{error}");
    assert!(is_unsupported(&admin.describe_acls(&klamm_client::admin::AclFilter::any()).await.unwrap_err()));
    assert!(started.elapsed() < std::time::Duration::from_secs(1));
    let nothing: [&str; 0] = [];
    assert!(admin.delete_groups(&nothing).await.unwrap().is_empty(), "nothing is asked for nothing");
}
