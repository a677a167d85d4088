//! What is known of the cluster: brokers, topics, leaders. Shared by everything that is made from one client.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use klamm_protocol::messages::metadata::{MetadataRequestTopic, MetadataResponseTopic};
use klamm_protocol::messages::{MetadataRequest, MetadataResponse};
use klamm_protocol::{ErrorCode, Uuid};
use tokio::sync::watch;
use tokio::time::Instant;

use super::core::Core;
use crate::connection::Backoff;
use crate::error::RequestError;

/// How soon a topic that is being created is asked for again.
const CREATION_POLL: Duration = Duration::from_millis(10);

/// A consistent view. Never changed: a refresh makes a new one.
#[derive(Debug, Clone, Default)]
pub(crate) struct ClusterView {
    /// Counts refreshes.
    pub(crate) version: u64,
    pub(crate) controller: Option<i32>,
    /// Addresses by broker id.
    pub(crate) brokers: HashMap<i32, Arc<str>>,
    pub(crate) topics: HashMap<Arc<str>, TopicView>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TopicView {
    /// Zero when the broker does not tell.
    pub(crate) id: Uuid,
    pub(crate) internal: bool,
    /// `ErrorCode::None` for a topic that can be used.
    pub(crate) error: ErrorCode,
    /// By partition number.
    pub(crate) partitions: Arc<[PartitionView]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PartitionView {
    pub(crate) leader: Option<i32>,
    pub(crate) leader_epoch: i32,
}

impl TopicView {
    pub(crate) fn partition_count(&self) -> i32 {
        i32::try_from(self.partitions.len()).unwrap_or(i32::MAX)
    }
}

impl ClusterView {
    /// The topic, if it can be used.
    pub(crate) fn usable(&self, topic: &str) -> Option<&TopicView> {
        self.topics.get(topic).filter(|topic| topic.error == ErrorCode::None && !topic.partitions.is_empty())
    }

    pub(crate) fn partition(&self, topic: &str, partition: i32) -> Option<PartitionView> {
        let index = usize::try_from(partition).ok()?;
        self.topics.get(topic)?.partitions.get(index).copied()
    }

    pub(crate) fn leader(&self, topic: &str, partition: i32) -> Option<i32> {
        self.partition(topic, partition)?.leader
    }

    /// This view changed by an answer about some topics, or about all.
    fn updated(&self, answer: MetadataResponse, all: bool) -> Self {
        let mut next = self.clone();
        next.version += 1;
        next.controller = Some(answer.controller_id).filter(|&id| id >= 0);
        if !answer.brokers.is_empty() {
            let address = |host: &str, port: i32| match host.contains(':') {
                true => Arc::from(format!("[{host}]:{port}")),
                false => Arc::from(format!("{host}:{port}")),
            };
            let known = answer.brokers.iter().filter(|broker| broker.node_id >= 0);
            next.brokers = known.map(|broker| (broker.node_id, address(&broker.host, broker.port))).collect();
        }
        if all {
            next.topics.clear();
        }
        for topic in answer.topics {
            let Some(name) = topic.name.as_ref().map(|name| Arc::<str>::from(&**name)) else { continue };
            let view = topic_view(&topic, self.topics.get(&name));
            next.topics.insert(name, view);
        }
        next
    }
}

fn topic_view(topic: &MetadataResponseTopic, before: Option<&TopicView>) -> TopicView {
    let unknown = PartitionView { leader: None, leader_epoch: -1 };
    // Numbers beyond the count cannot be trusted: a topic's partitions are numbered without gaps.
    let mut partitions = vec![unknown; topic.partitions.len()];
    for partition in &topic.partitions {
        let Some(slot) =
            usize::try_from(partition.partition_index).ok().and_then(|at| partitions.get_mut(at))
        else {
            continue;
        };
        let told = PartitionView {
            leader: Some(partition.leader_id).filter(|&id| id >= 0),
            leader_epoch: partition.leader_epoch,
        };
        // A broker that lags behind must not bring back a leader that was deposed (KIP-320).
        let newer = before
            .filter(|before| before.id == topic.topic_id)
            .and_then(|before| before.partitions.get(usize::try_from(partition.partition_index).ok()?))
            .filter(|before| told.leader_epoch >= 0 && before.leader_epoch > told.leader_epoch);
        *slot = *newer.unwrap_or(&told);
    }
    TopicView {
        id: topic.topic_id,
        internal: topic.is_internal,
        error: ErrorCode::from_code(topic.error_code),
        partitions: partitions.into(),
    }
}

/// The cache and what it must cover.
#[derive(Debug)]
pub(crate) struct Metadata {
    view: watch::Sender<Arc<ClusterView>>,
    /// Held during a refresh; when the last one ended.
    refreshing: tokio::sync::Mutex<Option<Instant>>,
    /// Held while a topic that is not known is asked about.
    learning: tokio::sync::Mutex<()>,
    interest: Mutex<Interest>,
}

#[derive(Debug, Default)]
struct Interest {
    topics: BTreeSet<Arc<str>>,
    /// How many pattern subscriptions need all topics.
    all: usize,
}

/// Keeps all topics in the cache while it lives.
#[derive(Debug)]
pub(crate) struct AllTopics {
    core: Arc<Core>,
}

impl Drop for AllTopics {
    fn drop(&mut self) {
        self.core.metadata.interest().all -= 1;
    }
}

impl Metadata {
    pub(crate) fn new() -> Self {
        Self {
            view: watch::Sender::default(),
            refreshing: tokio::sync::Mutex::default(),
            learning: tokio::sync::Mutex::default(),
            interest: Mutex::default(),
        }
    }

    pub(crate) fn view(&self) -> Arc<ClusterView> {
        Arc::clone(&self.view.borrow())
    }

    /// Tells of every refresh.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<ClusterView>> {
        self.view.subscribe()
    }

    /// Refreshes these topics from now on.
    pub(crate) fn follow(&self, topics: &[Arc<str>]) {
        self.interest().topics.extend(topics.iter().cloned());
    }

    pub(crate) fn follow_all(core: &Arc<Core>) -> AllTopics {
        core.metadata.interest().all += 1;
        AllTopics { core: Arc::clone(core) }
    }

    fn interest(&self) -> std::sync::MutexGuard<'_, Interest> {
        self.interest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Core {
    /// Asks the cluster, unless somebody did since `seen` was the version: many askers make one request, and a failing
    /// cluster is asked once per `retry_backoff`.
    pub(crate) async fn refresh_metadata(&self, seen: u64) -> Result<Arc<ClusterView>, RequestError> {
        let mut last = self.metadata.refreshing.lock().await;
        let view = self.metadata.view();
        if view.version > seen {
            return Ok(view);
        }
        if let Some(last) = *last {
            tokio::time::sleep_until(last + self.config.retry_backoff).await;
        }
        *last = Some(Instant::now());
        let (all, topics) = {
            let interest = self.metadata.interest();
            (interest.all > 0, interest.topics.iter().cloned().collect::<Vec<_>>())
        };
        // A refresh never creates topics: it would bring deleted ones back.
        let result = self.ask_metadata(if all { None } else { Some(&topics) }, false).await;
        *last = Some(Instant::now());
        result
    }

    /// A usable topic, created if the settings and the broker allow it.
    pub(crate) async fn topic(&self, topic: &Arc<str>, deadline: Instant) -> Result<TopicView, RequestError> {
        let mut backoff = Backoff::new(CREATION_POLL, self.config.retry_backoff_max);
        let started = Instant::now();
        self.metadata.follow(std::slice::from_ref(topic));
        let mut last = RequestError::Closed;
        loop {
            if let Some(view) = self.metadata.view().usable(topic) {
                return Ok(view.clone());
            }
            match tokio::time::timeout_at(deadline, self.learn(topic)).await {
                Ok(Ok(view)) => {
                    let code = view
                        .topics
                        .get(topic)
                        .map_or(ErrorCode::UnknownTopicOrPartition, |topic| topic.error);
                    if code == ErrorCode::None && view.usable(topic).is_some() {
                        continue;
                    }
                    last = RequestError::Broker {
                        address: Arc::from("the cluster"),
                        api: klamm_protocol::ApiKey::Metadata,
                        code,
                    };
                    if code != ErrorCode::None && !code.is_retriable() {
                        return Err(last);
                    }
                }
                Ok(Err(error)) if error.is_retriable() => last = error,
                Ok(Err(error)) => return Err(error),
                Err(_) => {}
            }
            let pause = backoff.next(&*self.config.rng);
            if Instant::now() + pause >= deadline {
                return Err(RequestError::Deadline {
                    what: "learning about a topic",
                    after: started.elapsed(),
                    last: Arc::from(last.to_string()),
                });
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Asks about a topic, one asker at a time: a thousand senders of a first record make one request.
    async fn learn(&self, topic: &Arc<str>) -> Result<Arc<ClusterView>, RequestError> {
        let _turn = self.metadata.learning.lock().await;
        let view = self.metadata.view();
        if view.usable(topic).is_some() {
            return Ok(view);
        }
        self.ask_metadata(Some(std::slice::from_ref(topic)), self.config.allow_auto_create_topics).await
    }

    /// One request about some topics, or about all; the view is updated by the answer.
    pub(crate) async fn ask_metadata(
        &self,
        topics: Option<&[Arc<str>]>,
        create: bool,
    ) -> Result<Arc<ClusterView>, RequestError> {
        let answer = self.fetch_metadata(topics, create).await?;
        let mut result = Arc::default();
        self.metadata.view.send_modify(|view| {
            *view = Arc::new(view.updated(answer, topics.is_none()));
            result = Arc::clone(view);
        });
        Ok(result)
    }

    /// The bare request.
    pub(crate) async fn fetch_metadata(
        &self,
        topics: Option<&[Arc<str>]>,
        create: bool,
    ) -> Result<MetadataResponse, RequestError> {
        let named =
            |name: &Arc<str>| MetadataRequestTopic { name: Some((&**name).into()), ..Default::default() };
        let request = MetadataRequest {
            topics: topics.map(|topics| topics.iter().map(named).collect()),
            allow_auto_topic_creation: create,
            ..Default::default()
        };
        let connection = self.links.any(self).await?;
        connection.call(&request, self.config.request_timeout).await
    }
}

/// Views for the tests of what decides by them.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// One topic, with leader (below 0 for none) and leader epoch of each partition.
    pub(crate) fn view(topic: &str, partitions: &[(i32, i32)]) -> ClusterView {
        view_with_id(topic, Uuid::ZERO, partitions)
    }

    /// The same, with the topic's id.
    pub(crate) fn view_with_id(topic: &str, id: Uuid, partitions: &[(i32, i32)]) -> ClusterView {
        let partition = |&(leader, leader_epoch): &(i32, i32)| PartitionView {
            leader: Some(leader).filter(|&id| id >= 0),
            leader_epoch,
        };
        let partitions = partitions.iter().map(partition).collect();
        let topic_view = TopicView { id, internal: false, error: ErrorCode::None, partitions };
        ClusterView { topics: HashMap::from([(Arc::from(topic), topic_view)]), ..ClusterView::default() }
    }
}

#[cfg(test)]
mod tests {
    use klamm_protocol::messages::metadata::{MetadataResponseBroker, MetadataResponsePartition};

    use super::*;

    fn answer(topic: &str, partitions: &[(i32, i32, i32)]) -> MetadataResponse {
        MetadataResponse {
            brokers: vec![MetadataResponseBroker {
                node_id: 1,
                host: "::1".into(),
                port: 9092,
                ..Default::default()
            }],
            topics: vec![MetadataResponseTopic {
                name: Some(topic.into()),
                topic_id: Uuid::ZERO,
                partitions: partitions
                    .iter()
                    .map(|&(partition_index, leader_id, leader_epoch)| MetadataResponsePartition {
                        partition_index,
                        leader_id,
                        leader_epoch,
                        ..Default::default()
                    })
                    .collect(),
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    #[test]
    fn a_deposed_leader_does_not_come_back() {
        let view = ClusterView::default().updated(answer("t", &[(0, 1, 5), (1, 1, 5)]), false);
        let view = view.updated(answer("t", &[(0, 2, 4), (1, 2, 6)]), false);
        assert_eq!(view.leader("t", 0), Some(1));
        assert_eq!(view.leader("t", 1), Some(2));
        assert_eq!(view.version, 2);
        assert_eq!(&*view.brokers[&1], "[::1]:9092");
    }

    #[test]
    fn absurd_partition_numbers_are_ignored() {
        let view =
            ClusterView::default().updated(answer("t", &[(i32::MAX, 1, 0), (-5, 1, 0), (0, -1, 0)]), false);
        assert_eq!(view.usable("t").map(TopicView::partition_count), Some(3));
        assert_eq!(view.leader("t", 0), None);
        assert_eq!(view.leader("t", i32::MAX), None);
    }

    #[test]
    fn an_answer_about_all_topics_drops_the_others() {
        let view = ClusterView::default().updated(answer("old", &[(0, 1, 0)]), false);
        assert!(view.updated(answer("new", &[(0, 1, 0)]), false).usable("old").is_some());
        assert!(view.updated(answer("new", &[(0, 1, 0)]), true).usable("old").is_none());
    }
}
