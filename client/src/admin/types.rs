//! What the admin calls take and give.

use std::sync::Arc;

use klamm_protocol::Uuid;

use crate::types::TopicPartition;

/// A topic to create.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewTopic {
    /// Its name.
    pub name: Arc<str>,
    /// How many partitions; -1 is the broker's `num.partitions`.
    pub partitions: i32,
    /// How many replicas; -1 is the broker's `default.replication.factor`.
    pub replication: i16,
    /// Topic settings by Kafka's names, such as `retention.ms`.
    pub configs: Vec<(String, String)>,
    /// The brokers of each partition, the preferred leader first; empty lets the controller choose.
    pub assignments: Vec<Vec<i32>>,
}

impl NewTopic {
    /// A topic with the broker's defaults.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self {
            name: name.into(),
            partitions: -1,
            replication: -1,
            configs: Vec::new(),
            assignments: Vec::new(),
        }
    }

    /// Sets how many partitions it has.
    #[must_use]
    pub fn partitions(mut self, count: i32) -> Self {
        self.partitions = count;
        self
    }

    /// Sets how many replicas each partition has.
    #[must_use]
    pub fn replication(mut self, factor: i16) -> Self {
        self.replication = factor;
        self
    }

    /// Names the brokers of each partition, the preferred leader first. Takes the place of `partitions` and
    /// `replication`.
    #[must_use]
    pub fn on_brokers(mut self, assignments: Vec<Vec<i32>>) -> Self {
        (self.partitions, self.replication) = (-1, -1);
        self.assignments = assignments;
        self
    }

    /// Adds a topic setting.
    #[must_use]
    pub fn config(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.configs.push((name.into(), value.into()));
        self
    }
}

/// A topic as the cluster knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicDescription {
    /// Its name.
    pub name: Arc<str>,
    /// Its id; zero from brokers that do not tell.
    pub id: Uuid,
    /// Whether Kafka itself keeps it, such as `__consumer_offsets`.
    pub internal: bool,
    /// Its partitions by number.
    pub partitions: Vec<PartitionDescription>,
}

/// A partition and where it lives.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionDescription {
    /// Its number.
    pub partition: i32,
    /// The leading broker's id; `None` when there is no leader.
    pub leader: Option<i32>,
    /// The leader's epoch.
    pub leader_epoch: i32,
    /// The brokers that hold it.
    pub replicas: Vec<i32>,
    /// Those that are in sync.
    pub in_sync: Vec<i32>,
}

/// A group in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupListing {
    /// Its id.
    pub group: Arc<str>,
    /// `consumer` for groups of consumers.
    pub protocol_type: Arc<str>,
    /// Such as `Stable` or `Empty`; empty from brokers that do not tell.
    pub state: Arc<str>,
    /// `classic`, `consumer` (KIP-848), `share` or `streams`; empty from brokers that do not tell.
    pub group_type: Arc<str>,
}

/// A group with its members.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupDescription {
    /// Its id.
    pub group: Arc<str>,
    /// Such as `Stable`, `PreparingRebalance`, `Empty`, `Dead`.
    pub state: Arc<str>,
    /// `consumer` for groups of consumers.
    pub protocol_type: Arc<str>,
    /// The assignor in use.
    pub assignor: Arc<str>,
    /// The broker that coordinates it.
    pub coordinator: i32,
    /// `classic`, `consumer` (KIP-848) or `share`.
    pub group_type: Arc<str>,
    /// The group's epoch and that of the assignment it is moving to; `None` for classic groups.
    pub epochs: Option<(i32, i32)>,
    /// Its members.
    pub members: Vec<MemberDescription>,
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemberDescription {
    /// The id that the coordinator gave.
    pub member_id: Arc<str>,
    /// The static member's id.
    pub group_instance_id: Option<Arc<str>>,
    /// The client's id.
    pub client_id: Arc<str>,
    /// The client's host as the broker sees it.
    pub client_host: Arc<str>,
    /// What it owns; empty when the assignment is not in the consumer protocol.
    pub assignment: Vec<TopicPartition>,
    /// What it is to own; `None` for members of classic and share groups.
    pub target: Option<Vec<TopicPartition>>,
    /// The epoch of what it owns; `None` for members of classic groups.
    pub epoch: Option<i32>,
    /// Its rack, where it told one.
    pub rack: Option<Arc<str>>,
    /// The topics it subscribes to by name; empty for members of classic groups, whose subscriptions are their own.
    pub topics: Vec<Arc<str>>,
}
