//! The requests: one file for each, named by its key. Here: which are served in which versions, and how a frame becomes
//! an answer.
//!
//! A request that cannot be read, or an API or version that is not served, ends its connection; the one exception is
//! ApiVersions, by which a client finds out. Bytes behind the last field of a request are ignored.

#[path = "25_add_offsets_to_txn.rs"]
mod add_offsets_to_txn;
#[path = "24_add_partitions_to_txn.rs"]
mod add_partitions_to_txn;
#[path = "49_alter_client_quotas.rs"]
mod alter_client_quotas;
#[path = "33_alter_configs.rs"]
mod alter_configs;
#[path = "45_alter_partition_reassignments.rs"]
mod alter_partition_reassignments;
#[path = "51_alter_user_scram_credentials.rs"]
mod alter_user_scram_credentials;
#[path = "18_api_versions.rs"]
mod api_versions;
#[path = "30_create_acls.rs"]
mod create_acls;
#[path = "37_create_partitions.rs"]
mod create_partitions;
#[path = "19_create_topics.rs"]
mod create_topics;
#[path = "31_delete_acls.rs"]
mod delete_acls;
#[path = "42_delete_groups.rs"]
mod delete_groups;
#[path = "21_delete_records.rs"]
mod delete_records;
#[path = "20_delete_topics.rs"]
mod delete_topics;
#[path = "29_describe_acls.rs"]
mod describe_acls;
#[path = "48_describe_client_quotas.rs"]
mod describe_client_quotas;
#[path = "60_describe_cluster.rs"]
mod describe_cluster;
#[path = "32_describe_configs.rs"]
mod describe_configs;
#[path = "15_describe_groups.rs"]
mod describe_groups;
#[path = "35_describe_log_dirs.rs"]
mod describe_log_dirs;
#[path = "61_describe_producers.rs"]
mod describe_producers;
#[path = "55_describe_quorum.rs"]
mod describe_quorum;
#[path = "75_describe_topic_partitions.rs"]
mod describe_topic_partitions;
#[path = "65_describe_transactions.rs"]
mod describe_transactions;
#[path = "50_describe_user_scram_credentials.rs"]
mod describe_user_scram_credentials;
#[path = "43_elect_leaders.rs"]
mod elect_leaders;
#[path = "26_end_txn.rs"]
mod end_txn;
#[path = "01_fetch.rs"]
mod fetch;
#[path = "10_find_coordinator.rs"]
mod find_coordinator;
#[path = "71_get_telemetry_subscriptions.rs"]
mod get_telemetry_subscriptions;
#[path = "12_heartbeat.rs"]
mod heartbeat;
#[path = "44_incremental_alter_configs.rs"]
mod incremental_alter_configs;
#[path = "22_init_producer_id.rs"]
mod init_producer_id;
#[path = "11_join_group.rs"]
mod join_group;
#[path = "13_leave_group.rs"]
mod leave_group;
#[path = "74_list_config_resources.rs"]
mod list_config_resources;
#[path = "16_list_groups.rs"]
mod list_groups;
#[path = "02_list_offsets.rs"]
mod list_offsets;
#[path = "46_list_partition_reassignments.rs"]
mod list_partition_reassignments;
#[path = "66_list_transactions.rs"]
mod list_transactions;
#[path = "03_metadata.rs"]
mod metadata;
#[path = "08_offset_commit.rs"]
mod offset_commit;
#[path = "47_offset_delete.rs"]
mod offset_delete;
#[path = "09_offset_fetch.rs"]
mod offset_fetch;
#[path = "23_offset_for_leader_epoch.rs"]
mod offset_for_leader_epoch;
#[path = "00_produce.rs"]
mod produce;
#[path = "72_push_telemetry.rs"]
mod push_telemetry;
#[path = "36_sasl_authenticate.rs"]
mod sasl_authenticate;
#[path = "17_sasl_handshake.rs"]
mod sasl_handshake;
#[path = "14_sync_group.rs"]
mod sync_group;
#[path = "28_txn_offset_commit.rs"]
mod txn_offset_commit;
#[path = "64_unregister_broker.rs"]
mod unregister_broker;
#[path = "57_update_features.rs"]
mod update_features;
#[path = "27_write_txn_markers.rs"]
mod write_txn_markers;

mod call;
mod configs;
mod context;
mod fetch_visits;
mod leader_hints;
mod taking_part;
mod throttle;

use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;
use klamm_protocol::{ApiKey, ElementLimits};

pub(crate) use call::{Answer, Call, Refusal, Reply, Response};
pub(crate) use context::{Context, Coordinators, Peer};

use crate::budget::Share;

/// What the topics, partitions, groups and so on of a request may take in memory, beside how many there may be
/// (`request.elements.max`): four times the request, or 4 MiB.
const ELEMENTS: ElementLimits = ElementLimits { factor: 4, least_bytes: 4 << 20, count: usize::MAX };

macro_rules! apis {
    ($($key:ident in $module:ident),* $(,)?) => {
        /// The APIs that are served, and the versions that are announced for each.
        ///
        /// Produce is announced from 0 though versions below 3 are not served: librdkafka before 2.12 concludes from
        /// another minimum that it may not compress (KAFKA-18659). Nobody sends them who can read ApiVersions.
        pub(crate) const SERVED: &[(ApiKey, RangeInclusive<i16>)] = &[$((ApiKey::$key, $module::VERSIONS)),*];

        async fn serve(context: &Arc<Context>, call: Call) -> Result<Answer, Refusal> {
            match call.api {
                $(ApiKey::$key => $module::serve(context, call).await,)*
                other => Err(Refusal::new(format!("{} is not served", other.name()))),
            }
        }
    };
}

apis! {
    Produce in produce,
    Fetch in fetch,
    ListOffsets in list_offsets,
    Metadata in metadata,
    OffsetCommit in offset_commit,
    OffsetFetch in offset_fetch,
    FindCoordinator in find_coordinator,
    JoinGroup in join_group,
    Heartbeat in heartbeat,
    LeaveGroup in leave_group,
    SyncGroup in sync_group,
    DescribeGroups in describe_groups,
    ListGroups in list_groups,
    ApiVersions in api_versions,
    CreateTopics in create_topics,
    DeleteTopics in delete_topics,
    DeleteRecords in delete_records,
    InitProducerId in init_producer_id,
    AddPartitionsToTxn in add_partitions_to_txn,
    AddOffsetsToTxn in add_offsets_to_txn,
    EndTxn in end_txn,
    WriteTxnMarkers in write_txn_markers,
    TxnOffsetCommit in txn_offset_commit,
    DescribeProducers in describe_producers,
    DescribeTransactions in describe_transactions,
    ListTransactions in list_transactions,
    DescribeConfigs in describe_configs,
    AlterConfigs in alter_configs,
    DescribeLogDirs in describe_log_dirs,
    CreatePartitions in create_partitions,
    IncrementalAlterConfigs in incremental_alter_configs,
    DescribeClientQuotas in describe_client_quotas,
    AlterClientQuotas in alter_client_quotas,
    DescribeCluster in describe_cluster,
    DeleteGroups in delete_groups,
    OffsetDelete in offset_delete,
    SaslHandshake in sasl_handshake,
    OffsetForLeaderEpoch in offset_for_leader_epoch,
    DescribeAcls in describe_acls,
    CreateAcls in create_acls,
    DeleteAcls in delete_acls,
    SaslAuthenticate in sasl_authenticate,
    ElectLeaders in elect_leaders,
    AlterPartitionReassignments in alter_partition_reassignments,
    ListPartitionReassignments in list_partition_reassignments,
    DescribeUserScramCredentials in describe_user_scram_credentials,
    AlterUserScramCredentials in alter_user_scram_credentials,
    DescribeQuorum in describe_quorum,
    UpdateFeatures in update_features,
    UnregisterBroker in unregister_broker,
    GetTelemetrySubscriptions in get_telemetry_subscriptions,
    PushTelemetry in push_telemetry,
    ListConfigResources in list_config_resources,
    DescribeTopicPartitions in describe_topic_partitions,
}

/// Works on one request, whose memory is `share`'s. When it returns, everything is done that later requests of the
/// connection must not overtake.
pub(crate) async fn answer(
    context: &Arc<Context>,
    peer: &Arc<Peer>,
    frame: Bytes,
    share: &Arc<Share>,
) -> Result<Answer, Refusal> {
    let limits = ElementLimits { count: context.config().request_elements_max, ..ELEMENTS };
    let call = Call::read(peer.clone(), frame, limits, share.clone())?;
    let served = SERVED.iter().find(|(api, _)| *api == call.api).map(|(_, versions)| versions);
    match served {
        Some(versions) if versions.contains(&call.version) => serve(context, call).await,
        Some(_) if call.api == ApiKey::ApiVersions => api_versions::unsupported(&call),
        Some(_) => Err(Refusal::new(format!("{} has no version {}", call.api.name(), call.version))),
        None => Err(Refusal::new(format!("{} is not served", call.api.name()))),
    }
}
