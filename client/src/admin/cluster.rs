//! The cluster itself: brokers, features, quorum, log directories.

use std::collections::BTreeMap;
use std::sync::Arc;

use klamm_protocol::messages::describe_log_dirs::DescribeLogDirsResult;
use klamm_protocol::messages::describe_quorum::{PartitionRequest, ReplicaState, TopicRequest};
use klamm_protocol::messages::update_features::FeatureUpdateKey;
use klamm_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, DescribeClusterRequest, DescribeClusterResponse,
    DescribeLogDirsRequest, DescribeLogDirsResponse, DescribeQuorumRequest, DescribeQuorumResponse,
    MetadataRequest, MetadataResponse, UpdateFeaturesRequest, UpdateFeaturesResponse,
};
use klamm_protocol::{Utf8Bytes, Uuid};

use super::asking::Exchange;
use super::handle::Admin;
use super::progress::{Answer, PerItem, check};
use super::route::Destination;
use super::topics::key;
use crate::error::{AdminError, RequestError};
use crate::types::TopicPartition;

/// The partition that the metadata quorum keeps.
const QUORUM_TOPIC: Utf8Bytes = Utf8Bytes::from_static("__cluster_metadata");
/// From here on a feature's level goes down by what the update says, and not by a flag.
const UPGRADE_TYPE_FROM: i16 = 1;
/// From here on only the whole update has a result.
const ALL_OR_NOTHING_FROM: i16 = 2;

impl Admin {
    /// The cluster's id, controller and brokers. Asks brokers that do not know DescribeCluster for their metadata.
    ///
    /// # Errors
    /// No broker in time.
    pub async fn describe_cluster(&self) -> Result<ClusterDescription, AdminError> {
        let what = "describing the cluster";
        let build = |_: &[()], _| DescribeClusterRequest::default();
        let read = |answer: DescribeClusterResponse, _: &[()]| {
            let checked = check(answer.error_code, answer.error_message.clone());
            vec![((), checked.map(|()| describe(answer)))]
        };
        let exchange = Exchange { what, up_to: i16::MAX, build, read };
        match self.ask_one((), Destination::Any, exchange).await {
            Err(AdminError::Request(RequestError::Unsupported { .. })) => {}
            result => return result,
        }
        let build = |_: &[()], _| MetadataRequest {
            topics: Some(Vec::new()),
            allow_auto_topic_creation: false,
            ..Default::default()
        };
        let read = |answer: MetadataResponse, _: &[()]| vec![((), Ok(describe_metadata(answer)))];
        self.ask_one((), Destination::Any, Exchange { what, up_to: i16::MAX, build, read }).await
    }

    /// The features that brokers could use and the cluster uses, by name.
    ///
    /// # Errors
    /// No broker in time.
    pub async fn describe_features(&self) -> Result<BTreeMap<Arc<str>, FeatureDescription>, AdminError> {
        let build = |_: &[()], _| ApiVersionsRequest {
            client_software_name: Utf8Bytes::from_static("klamm"),
            client_software_version: Utf8Bytes::from_static(env!("CARGO_PKG_VERSION")),
            ..Default::default()
        };
        let read = |answer: ApiVersionsResponse, _: &[()]| {
            vec![((), check(answer.error_code, None).map(|()| features(&answer)))]
        };
        let exchange = Exchange { what: "describing features", up_to: i16::MAX, build, read };
        self.ask_one((), Destination::Any, exchange).await
    }

    /// Sets the cluster's levels of features, all or none of them. Level 0 stops using a feature.
    ///
    /// # Errors
    /// No controller in time. What the controller says of a feature is in the map.
    pub async fn update_features(
        &self,
        updates: &BTreeMap<Arc<str>, FeatureUpdate>,
    ) -> Result<PerItem<Arc<str>, ()>, AdminError> {
        let timeout_ms = self.timeout_ms();
        let build = |names: &[Arc<str>], version| UpdateFeaturesRequest {
            timeout_ms,
            feature_updates: names
                .iter()
                .filter_map(|name| Some((name, updates.get(name)?)))
                .map(|(name, update)| update.wire(name, version))
                .collect(),
            ..Default::default()
        };
        let read = |answer: UpdateFeaturesResponse, asked: &[Arc<str>]| {
            let whole = check(answer.error_code, answer.error_message);
            let mut told: BTreeMap<Arc<str>, Answer<()>> = BTreeMap::new();
            for result in answer.results {
                told.insert(key(&result.feature), check(result.error_code, result.error_message));
            }
            let result = |name: &Arc<str>| {
                let own = told.get(name).cloned().unwrap_or(Ok(()));
                (Arc::clone(name), whole.clone().and(own))
            };
            asked.iter().map(result).collect()
        };
        let exchange = Exchange { what: "updating features", up_to: ALL_OR_NOTHING_FROM, build, read };
        self.ask(updates.keys().cloned(), |_| Destination::Controller, exchange).await
    }

    /// The metadata quorum: who votes, who follows, how far each is.
    ///
    /// # Errors
    /// No broker in time, or one without a quorum.
    pub async fn describe_quorum(&self) -> Result<QuorumDescription, AdminError> {
        let build = |_: &[()], _| DescribeQuorumRequest {
            topics: vec![TopicRequest {
                topic_name: QUORUM_TOPIC,
                partitions: vec![PartitionRequest::default()],
                ..Default::default()
            }],
            ..Default::default()
        };
        let read = |answer: DescribeQuorumResponse, _: &[()]| {
            let whole = check(answer.error_code, answer.error_message.clone());
            match (whole, quorum(&answer)) {
                (Err(refusal), _) => vec![((), Err(refusal))],
                (Ok(()), Some(quorum)) => vec![((), quorum)],
                (Ok(()), None) => Vec::new(),
            }
        };
        let exchange = Exchange { what: "describing the quorum", up_to: i16::MAX, build, read };
        self.ask_one((), Destination::Any, exchange).await
    }

    /// What the log directories of brokers hold, by broker and path.
    ///
    /// # Errors
    /// No broker in time. A broker that is not there is an error of its own.
    pub async fn describe_log_dirs(
        &self,
        brokers: &[i32],
    ) -> Result<PerItem<i32, BTreeMap<Arc<str>, LogDirDescription>>, AdminError> {
        let build = |_: &[i32], _| DescribeLogDirsRequest { topics: None, ..Default::default() };
        let read = |answer: DescribeLogDirsResponse, asked: &[i32]| {
            let whole = check(answer.error_code, None).map(|()| {
                let directories = answer.results.iter();
                directories.map(|directory| (key(&directory.log_dir), log_dir(directory))).collect()
            });
            asked
                .iter()
                .map(|&broker| (broker, whole.clone()))
                .collect::<Vec<(i32, Answer<BTreeMap<_, _>>)>>()
        };
        let exchange = Exchange { what: "describing log directories", up_to: i16::MAX, build, read };
        self.ask(brokers.iter().copied(), |&broker| Destination::Broker(broker), exchange).await
    }
}

/// The cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClusterDescription {
    /// Its id; `None` from brokers that do not tell.
    pub cluster_id: Option<Arc<str>>,
    /// The controller, or a broker that passes requests on to it.
    pub controller: Option<i32>,
    /// Its brokers, by id.
    pub brokers: Vec<BrokerDescription>,
}

/// A broker.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BrokerDescription {
    /// Its id.
    pub id: i32,
    /// Its host name or address.
    pub host: Arc<str>,
    /// Its port.
    pub port: i32,
    /// Its rack, where it has one.
    pub rack: Option<Arc<str>>,
}

/// A feature of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct FeatureDescription {
    /// The levels that the broker asked could use.
    pub supported: Option<(i16, i16)>,
    /// The level that the cluster uses.
    pub level: Option<i16>,
}

/// A new level of a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct FeatureUpdate {
    level: i16,
    downgrade: i8,
}

impl FeatureUpdate {
    /// To a higher level.
    pub fn upgrade(level: i16) -> Self {
        Self { level, downgrade: 1 }
    }

    /// To a lower level, if nothing gets lost by it.
    pub fn downgrade(level: i16) -> Self {
        Self { level, downgrade: 2 }
    }

    /// To a lower level, even when metadata gets lost by it.
    pub fn danger_downgrade_and_lose_metadata(level: i16) -> Self {
        Self { level, downgrade: 3 }
    }

    fn wire(self, name: &str, version: i16) -> FeatureUpdateKey {
        let mut key =
            FeatureUpdateKey { feature: name.into(), max_version_level: self.level, ..Default::default() };
        if version >= UPGRADE_TYPE_FROM {
            key.upgrade_type = self.downgrade;
        } else {
            key.allow_downgrade = self.downgrade > 1;
        }
        key
    }
}

/// The metadata quorum.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct QuorumDescription {
    /// The node that leads.
    pub leader: Option<i32>,
    /// Its epoch.
    pub leader_epoch: i32,
    /// Everything below is committed.
    pub high_watermark: i64,
    /// The nodes that vote.
    pub voters: Vec<QuorumReplica>,
    /// The nodes that only follow.
    pub observers: Vec<QuorumReplica>,
}

/// How far a node of the quorum is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct QuorumReplica {
    /// The node.
    pub id: i32,
    /// The id of its metadata directory; zero from nodes that do not tell.
    pub directory_id: Uuid,
    /// The end of its log.
    pub log_end_offset: Option<i64>,
    /// When it last fetched, in milliseconds since the Unix epoch.
    pub last_fetch_ms: Option<i64>,
    /// When it last had everything, in milliseconds since the Unix epoch.
    pub last_caught_up_ms: Option<i64>,
}

/// A log directory.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LogDirDescription {
    /// `KAFKA_STORAGE_ERROR` when it is offline.
    pub error: Option<klamm_protocol::ErrorCode>,
    /// The size of its volume.
    pub total_bytes: Option<i64>,
    /// The room left on its volume.
    pub usable_bytes: Option<i64>,
    /// The replicas that it holds, by partition.
    pub replicas: BTreeMap<TopicPartition, ReplicaLog>,
}

/// The log of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplicaLog {
    /// Its size in bytes.
    pub size_bytes: i64,
    /// How far it is behind.
    pub offset_lag: i64,
    /// Whether it is a copy on its way to this directory.
    pub future: bool,
}

fn describe(answer: DescribeClusterResponse) -> ClusterDescription {
    let broker = |broker: &klamm_protocol::messages::describe_cluster::DescribeClusterBroker| {
        let (host, rack) = (key(&broker.host), broker.rack.as_ref().map(key));
        BrokerDescription { id: broker.broker_id, host, port: broker.port, rack }
    };
    let mut brokers: Vec<BrokerDescription> = answer.brokers.iter().map(broker).collect();
    brokers.sort_by_key(|broker| broker.id);
    let cluster_id = Some(key(&answer.cluster_id)).filter(|id| !id.is_empty());
    let controller = Some(answer.controller_id).filter(|&id| id >= 0);
    ClusterDescription { cluster_id, controller, brokers }
}

fn describe_metadata(answer: MetadataResponse) -> ClusterDescription {
    let broker = |broker: &klamm_protocol::messages::metadata::MetadataResponseBroker| BrokerDescription {
        id: broker.node_id,
        host: key(&broker.host),
        port: broker.port,
        rack: broker.rack.as_ref().map(key),
    };
    let mut brokers: Vec<BrokerDescription> = answer.brokers.iter().map(broker).collect();
    brokers.sort_by_key(|broker| broker.id);
    let cluster_id = answer.cluster_id.as_ref().map(key).filter(|id| !id.is_empty());
    let controller = Some(answer.controller_id).filter(|&id| id >= 0);
    ClusterDescription { cluster_id, controller, brokers }
}

fn features(answer: &ApiVersionsResponse) -> BTreeMap<Arc<str>, FeatureDescription> {
    let mut features: BTreeMap<Arc<str>, FeatureDescription> = BTreeMap::new();
    for feature in &answer.supported_features {
        features.entry(key(&feature.name)).or_default().supported =
            Some((feature.min_version, feature.max_version));
    }
    // Without an epoch the levels mean nothing.
    let finalized = answer.finalized_features.iter().filter(|_| answer.finalized_features_epoch >= 0);
    for feature in finalized {
        features.entry(key(&feature.name)).or_default().level = Some(feature.max_version_level);
    }
    features
}

fn quorum(answer: &DescribeQuorumResponse) -> Option<Answer<QuorumDescription>> {
    let part = answer.topics.iter().flat_map(|topic| &topic.partitions).next()?;
    let replica = |state: &ReplicaState| QuorumReplica {
        id: state.replica_id,
        directory_id: state.replica_directory_id,
        log_end_offset: Some(state.log_end_offset).filter(|&offset| offset >= 0),
        last_fetch_ms: Some(state.last_fetch_timestamp).filter(|&at| at >= 0),
        last_caught_up_ms: Some(state.last_caught_up_timestamp).filter(|&at| at >= 0),
    };
    Some(check(part.error_code, part.error_message.clone()).map(|()| QuorumDescription {
        leader: Some(part.leader_id).filter(|&id| id >= 0),
        leader_epoch: part.leader_epoch,
        high_watermark: part.high_watermark,
        voters: part.current_voters.iter().map(replica).collect(),
        observers: part.observers.iter().map(replica).collect(),
    }))
}

fn log_dir(told: &DescribeLogDirsResult) -> LogDirDescription {
    let mut replicas = BTreeMap::new();
    for topic in &told.topics {
        let name = key(&topic.name);
        replicas.extend(topic.partitions.iter().map(|part| {
            let log = ReplicaLog {
                size_bytes: part.partition_size,
                offset_lag: part.offset_lag,
                future: part.is_future_key,
            };
            (TopicPartition::new(Arc::clone(&name), part.partition_index), log)
        }));
    }
    LogDirDescription {
        error: check(told.error_code, None).err().map(|refusal| refusal.code),
        total_bytes: Some(told.total_bytes).filter(|&bytes| bytes >= 0),
        usable_bytes: Some(told.usable_bytes).filter(|&bytes| bytes >= 0),
        replicas,
    }
}
