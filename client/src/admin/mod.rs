//! Administration: everything that a cluster can be asked and told. Every call about several things gives a result for
//! each of them.
//!
//! ```text
//! handle.rs     Admin: the handle
//! topics.rs     topics and partitions
//! records.rs    offsets of partitions, deleting records
//! groups.rs     groups: listing, describing, deleting, removing members
//! offsets.rs    committed offsets of groups
//! shares.rs     from where share groups read
//! streams_groups.rs  groups of Kafka Streams
//! tokens.rs     delegation tokens
//! configs.rs    settings of topics, brokers, groups
//! transactions.rs  transactions and their producers
//! cluster.rs    brokers, features, quorum, log directories
//! replicas.rs   partitions' moves, elections of leaders
//! acls.rs       access rules
//! users.rs      SCRAM credentials and quotas
//! asking.rs     how a call is carried out: to whom, again, until when
//! progress.rs   what is left to ask, what was answered            (pure)
//! route.rs      who answers for what, which errors are temporary   (pure)
//! types.rs      topics and groups as they are described
//! ```

mod acls;
mod asking;
mod cluster;
mod configs;
mod groups;
mod handle;
mod offsets;
mod progress;
mod records;
mod replicas;
mod route;
mod shares;
mod streams_groups;
mod tokens;
mod topics;
mod transactions;
mod types;
mod users;

pub use crate::cluster::{OffsetAt, OffsetSpec};
pub use acls::{Acl, AclFilter, AclOperation, AclPattern, AclPermission, AclResourceType};
pub use cluster::{
    BrokerDescription, ClusterDescription, FeatureDescription, FeatureUpdate, LogDirDescription,
    QuorumDescription, QuorumReplica, ReplicaLog,
};
pub use configs::{ConfigChange, ConfigEntry, ConfigResource, ConfigResourceType, ConfigSource};
pub use groups::{GroupFilter, MemberToRemove};
pub use handle::Admin;
pub use progress::PerItem;
pub use replicas::Reassignment;
pub use shares::SharePosition;
pub use streams_groups::{StreamsGroupDescription, StreamsMemberDescription, StreamsTask, StreamsTasks};
pub use tokens::{DelegationToken, NewDelegationToken, Principal};
pub use topics::NewPartitions;
pub use transactions::{
    HangingTransaction, ProducerDescription, TransactionDescription, TransactionFilter, TransactionListing,
};
pub use types::{
    GroupDescription, GroupListing, MemberDescription, NewTopic, PartitionDescription, TopicDescription,
};
pub use users::{NewScramCredential, QuotaEntity, ScramChange, ScramCredential, ScramMechanism};
