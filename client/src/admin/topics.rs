//! Topics and partitions: created, deleted, described.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use klamm_protocol::messages::create_partitions::{CreatePartitionsAssignment, CreatePartitionsTopic};
use klamm_protocol::messages::create_topics::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use klamm_protocol::messages::delete_topics::DeleteTopicState;
use klamm_protocol::messages::metadata::{
    MetadataRequestTopic, MetadataResponsePartition, MetadataResponseTopic,
};
use klamm_protocol::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse,
    DeleteTopicsRequest, DeleteTopicsResponse, MetadataRequest, MetadataResponse,
};
use klamm_protocol::{ErrorCode, Utf8Bytes};
use tokio::time::Instant;

use super::asking::Exchange;
use super::handle::Admin;
use super::progress::{PerItem, check};
use super::route::Destination;
use super::types::{NewTopic, PartitionDescription, TopicDescription};
use crate::connection::Backoff;
use crate::error::AdminError;

/// From here on topics to delete can be named by id, and the request has another shape.
const DELETE_BY_STATE_FROM: i16 = 6;
/// How long a created topic may take to be known to a broker, and how soon it is asked again.
const LEARN_WAIT: Duration = Duration::from_secs(2);
const LEARN_POLL: Duration = Duration::from_millis(10);

impl Admin {
    /// Creates topics and waits until the controller has them, and up to 2 s more until a broker knows them.
    ///
    /// After an answer that got lost the request is sent again, and may then find that the topic exists.
    ///
    /// # Errors
    /// No controller in time. What the controller says of each topic is in the map.
    pub async fn create_topics(&self, topics: &[NewTopic]) -> Result<PerItem<Arc<str>, ()>, AdminError> {
        let results = self.send_topics("creating topics", topics, false).await?;
        let created = topics.iter().filter(|topic| matches!(results.get(&topic.name), Some(Ok(()))));
        self.learn(created.map(|topic| Arc::clone(&topic.name)).collect(), LEARN_WAIT).await;
        Ok(results)
    }

    /// Checks whether topics could be created, and creates none.
    ///
    /// # Errors
    /// As [`Admin::create_topics`].
    pub async fn validate_topics(&self, topics: &[NewTopic]) -> Result<PerItem<Arc<str>, ()>, AdminError> {
        self.send_topics("checking topics", topics, true).await
    }

    async fn send_topics(
        &self,
        what: &'static str,
        topics: &[NewTopic],
        validate_only: bool,
    ) -> Result<PerItem<Arc<str>, ()>, AdminError> {
        let by_name: BTreeMap<&str, &NewTopic> = topics.iter().map(|topic| (&*topic.name, topic)).collect();
        let timeout_ms = self.timeout_ms();
        let build = |names: &[Arc<str>], _| CreateTopicsRequest {
            topics: names.iter().filter_map(|name| by_name.get(&**name).copied()).map(creatable).collect(),
            timeout_ms,
            validate_only,
            ..Default::default()
        };
        let read = |answer: CreateTopicsResponse, _: &[Arc<str>]| {
            let results = answer.topics.into_iter();
            results.map(|topic| (key(&topic.name), check(topic.error_code, topic.error_message))).collect()
        };
        let names = topics.iter().map(|topic| Arc::clone(&topic.name));
        self.ask(names, |_| Destination::Controller, Exchange { what, up_to: i16::MAX, build, read }).await
    }

    /// Deletes topics.
    ///
    /// # Errors
    /// No controller in time. What the controller says of each topic is in the map.
    pub async fn delete_topics<T: AsRef<str>>(
        &self,
        topics: &[T],
    ) -> Result<PerItem<Arc<str>, ()>, AdminError> {
        let timeout_ms = self.timeout_ms();
        let build = |names: &[Arc<str>], version| {
            let mut request = DeleteTopicsRequest { timeout_ms, ..Default::default() };
            if version >= DELETE_BY_STATE_FROM {
                let state =
                    |name: &Arc<str>| DeleteTopicState { name: Some((&**name).into()), ..Default::default() };
                request.topics = names.iter().map(state).collect();
            } else {
                request.topic_names = names.iter().map(|name| (&**name).into()).collect();
            }
            request
        };
        let read = |answer: DeleteTopicsResponse, _: &[Arc<str>]| {
            let named = answer.responses.into_iter().filter_map(|topic| Some((topic.name.clone()?, topic)));
            named.map(|(name, topic)| (key(&name), check(topic.error_code, topic.error_message))).collect()
        };
        let exchange = Exchange { what: "deleting topics", up_to: i16::MAX, build, read };
        let results = self.ask(keys(topics), |_| Destination::Controller, exchange).await?;
        self.learn(keys(topics), Duration::ZERO).await;
        Ok(results)
    }

    /// Adds partitions to topics: each is to have as many in all as its [`NewPartitions`] says. Records with keys go to
    /// other partitions from then on.
    ///
    /// # Errors
    /// No controller in time. What the controller says of each topic is in the map.
    pub async fn create_partitions(
        &self,
        topics: &HashMap<Arc<str>, NewPartitions>,
    ) -> Result<PerItem<Arc<str>, ()>, AdminError> {
        let timeout_ms = self.timeout_ms();
        let build = |names: &[Arc<str>], _| CreatePartitionsRequest {
            topics: names
                .iter()
                .filter_map(|name| Some((name, topics.get(name)?)))
                .map(|(name, wanted)| CreatePartitionsTopic {
                    name: (&**name).into(),
                    count: wanted.total,
                    assignments: wanted.assignments.as_ref().map(|partitions| {
                        let brokers = |broker_ids: &Vec<i32>| CreatePartitionsAssignment {
                            broker_ids: broker_ids.clone(),
                            ..Default::default()
                        };
                        partitions.iter().map(brokers).collect()
                    }),
                    ..Default::default()
                })
                .collect(),
            timeout_ms,
            ..Default::default()
        };
        let read = |answer: CreatePartitionsResponse, _: &[Arc<str>]| {
            let results = answer.results.into_iter();
            results.map(|topic| (key(&topic.name), check(topic.error_code, topic.error_message))).collect()
        };
        let exchange = Exchange { what: "adding partitions", up_to: i16::MAX, build, read };
        let results = self.ask(topics.keys().cloned(), |_| Destination::Controller, exchange).await?;
        self.learn(topics.keys().cloned().collect(), Duration::ZERO).await;
        Ok(results)
    }

    /// Describes topics; does not create them.
    ///
    /// # Errors
    /// No broker in time.
    pub async fn describe_topics<T: AsRef<str>>(
        &self,
        topics: &[T],
    ) -> Result<PerItem<Arc<str>, TopicDescription>, AdminError> {
        let build = |names: &[Arc<str>], _| {
            let named =
                |name: &Arc<str>| MetadataRequestTopic { name: Some((&**name).into()), ..Default::default() };
            MetadataRequest {
                topics: Some(names.iter().map(named).collect()),
                allow_auto_topic_creation: false,
                ..Default::default()
            }
        };
        let read = |answer: MetadataResponse, _: &[Arc<str>]| {
            let described = answer.topics.into_iter().filter_map(|topic| {
                let name = key(topic.name.as_ref()?);
                let result = check(topic.error_code, None).map(|()| describe(Arc::clone(&name), &topic));
                Some((name, result))
            });
            described.collect()
        };
        let exchange = Exchange { what: "describing topics", up_to: i16::MAX, build, read };
        self.ask(keys(topics), |_| Destination::Any, exchange).await
    }

    /// All topics, by name.
    ///
    /// # Errors
    /// No broker in time.
    pub async fn list_topics(&self) -> Result<Vec<TopicDescription>, AdminError> {
        let build = |_: &[()], _| MetadataRequest {
            allow_auto_topic_creation: false,
            topics: None,
            ..Default::default()
        };
        let read = |answer: MetadataResponse, _: &[()]| vec![((), Ok(answer))];
        let exchange = Exchange { what: "listing topics", up_to: i16::MAX, build, read };
        let answer = self.ask_one((), Destination::Any, exchange).await?;
        let described = answer.topics.iter().filter(|topic| topic.error_code == ErrorCode::None.code());
        let mut topics: Vec<TopicDescription> =
            described.filter_map(|topic| Some(describe(key(topic.name.as_ref()?), topic))).collect();
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(topics)
    }

    /// So that what was changed can be used at once through this client: brokers learn of it a moment after the
    /// controller. The change is made, so failures here are none of the call; the next refresh tells too.
    async fn learn(&self, topics: Vec<Arc<str>>, wait: Duration) {
        let core = self.core();
        let mut backoff = Backoff::new(LEARN_POLL, core.config.retry_backoff_max);
        let deadline = Instant::now() + wait;
        while !topics.is_empty() {
            let asked = core.ask_metadata(Some(&topics), false);
            let Ok(Ok(view)) = tokio::time::timeout(self.request_timeout(), asked).await else {
                tracing::debug!(?topics, "no metadata after a change of topics");
                return;
            };
            let pause = backoff.next(&*core.config.rng);
            let all = topics.iter().all(|topic| view.usable(topic).is_some());
            if all || Instant::now() + pause >= deadline {
                return;
            }
            tokio::time::sleep(pause).await;
        }
    }
}

/// How many partitions a topic is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewPartitions {
    /// All of them, those that there are included.
    pub total: i32,
    /// Brokers for each new partition, the preferred leader first; `None` lets the controller choose.
    pub assignments: Option<Vec<Vec<i32>>>,
}

impl NewPartitions {
    /// So many in all, on brokers that the controller chooses.
    pub fn total(total: i32) -> Self {
        Self { total, assignments: None }
    }

    /// The brokers of each new partition, the preferred leader first.
    #[must_use]
    pub fn on_brokers(mut self, assignments: Vec<Vec<i32>>) -> Self {
        self.assignments = Some(assignments);
        self
    }
}

pub(super) fn key(name: &Utf8Bytes) -> Arc<str> {
    Arc::from(&**name)
}

pub(super) fn keys<T: AsRef<str>>(names: &[T]) -> Vec<Arc<str>> {
    names.iter().map(|name| Arc::from(name.as_ref())).collect()
}

fn creatable(topic: &NewTopic) -> CreatableTopic {
    let config = |(name, value): &(String, String)| CreatableTopicConfig {
        name: name.into(),
        value: Some(value.into()),
        ..Default::default()
    };
    let assignment = |(partition, brokers): (i32, &Vec<i32>)| CreatableReplicaAssignment {
        partition_index: partition,
        broker_ids: brokers.clone(),
        ..Default::default()
    };
    CreatableTopic {
        name: (&*topic.name).into(),
        num_partitions: topic.partitions,
        replication_factor: topic.replication,
        assignments: (0..).zip(&topic.assignments).map(assignment).collect(),
        configs: topic.configs.iter().map(config).collect(),
        ..Default::default()
    }
}

fn describe(name: Arc<str>, topic: &MetadataResponseTopic) -> TopicDescription {
    let partition = |part: &MetadataResponsePartition| PartitionDescription {
        partition: part.partition_index,
        leader: Some(part.leader_id).filter(|&leader| leader >= 0),
        leader_epoch: part.leader_epoch,
        replicas: part.replica_nodes.clone(),
        in_sync: part.isr_nodes.clone(),
    };
    let mut partitions: Vec<PartitionDescription> = topic.partitions.iter().map(partition).collect();
    partitions.sort_by_key(|partition| partition.partition);
    TopicDescription { name, id: topic.topic_id, internal: topic.is_internal, partitions }
}
