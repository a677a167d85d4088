//! The messages: one file per API, named like it, its key on the first line. Structures inside a
//! message stay in its file.

pub mod add_offsets_to_txn;
pub mod add_partitions_to_txn;
pub mod alter_client_quotas;
pub mod alter_configs;
pub mod alter_partition_reassignments;
pub mod alter_share_group_offsets;
pub mod alter_user_scram_credentials;
pub mod api_versions;
pub mod consumer_group_describe;
pub mod consumer_group_heartbeat;
pub mod create_acls;
pub mod create_delegation_token;
pub mod create_partitions;
pub mod create_topics;
pub mod delete_acls;
pub mod delete_groups;
pub mod delete_records;
pub mod delete_share_group_offsets;
pub mod delete_topics;
pub mod describe_acls;
pub mod describe_client_quotas;
pub mod describe_cluster;
pub mod describe_configs;
pub mod describe_delegation_token;
pub mod describe_groups;
pub mod describe_log_dirs;
pub mod describe_producers;
pub mod describe_quorum;
pub mod describe_share_group_offsets;
pub mod describe_topic_partitions;
pub mod describe_transactions;
pub mod describe_user_scram_credentials;
pub mod elect_leaders;
pub mod end_txn;
pub mod expire_delegation_token;
pub mod fetch;
pub mod find_coordinator;
pub mod get_telemetry_subscriptions;
pub mod heartbeat;
pub mod incremental_alter_configs;
pub mod init_producer_id;
pub mod join_group;
pub mod leave_group;
pub mod list_config_resources;
pub mod list_groups;
pub mod list_offsets;
pub mod list_partition_reassignments;
pub mod list_transactions;
pub mod metadata;
pub mod offset_commit;
pub mod offset_delete;
pub mod offset_fetch;
pub mod offset_for_leader_epoch;
pub mod produce;
pub mod push_telemetry;
pub mod renew_delegation_token;
pub mod sasl_authenticate;
pub mod sasl_handshake;
pub mod share_acknowledge;
pub mod share_fetch;
pub mod share_group_describe;
pub mod share_group_heartbeat;
pub mod streams_group_describe;
pub mod sync_group;
pub mod txn_offset_commit;
pub mod unregister_broker;
pub mod update_features;
pub mod write_txn_markers;

use std::ops::RangeInclusive;

pub use add_offsets_to_txn::{AddOffsetsToTxnRequest, AddOffsetsToTxnResponse};
pub use add_partitions_to_txn::{AddPartitionsToTxnRequest, AddPartitionsToTxnResponse};
pub use alter_client_quotas::{AlterClientQuotasRequest, AlterClientQuotasResponse};
pub use alter_configs::{AlterConfigsRequest, AlterConfigsResponse};
pub use alter_partition_reassignments::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse,
};
pub use alter_share_group_offsets::{AlterShareGroupOffsetsRequest, AlterShareGroupOffsetsResponse};
pub use alter_user_scram_credentials::{AlterUserScramCredentialsRequest, AlterUserScramCredentialsResponse};
pub use api_versions::{ApiVersionsRequest, ApiVersionsResponse};
pub use consumer_group_describe::{ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse};
pub use consumer_group_heartbeat::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};
pub use create_acls::{CreateAclsRequest, CreateAclsResponse};
pub use create_delegation_token::{CreateDelegationTokenRequest, CreateDelegationTokenResponse};
pub use create_partitions::{CreatePartitionsRequest, CreatePartitionsResponse};
pub use create_topics::{CreateTopicsRequest, CreateTopicsResponse};
pub use delete_acls::{DeleteAclsRequest, DeleteAclsResponse};
pub use delete_groups::{DeleteGroupsRequest, DeleteGroupsResponse};
pub use delete_records::{DeleteRecordsRequest, DeleteRecordsResponse};
pub use delete_share_group_offsets::{DeleteShareGroupOffsetsRequest, DeleteShareGroupOffsetsResponse};
pub use delete_topics::{DeleteTopicsRequest, DeleteTopicsResponse};
pub use describe_acls::{DescribeAclsRequest, DescribeAclsResponse};
pub use describe_client_quotas::{DescribeClientQuotasRequest, DescribeClientQuotasResponse};
pub use describe_cluster::{DescribeClusterRequest, DescribeClusterResponse};
pub use describe_configs::{DescribeConfigsRequest, DescribeConfigsResponse};
pub use describe_delegation_token::{DescribeDelegationTokenRequest, DescribeDelegationTokenResponse};
pub use describe_groups::{DescribeGroupsRequest, DescribeGroupsResponse};
pub use describe_log_dirs::{DescribeLogDirsRequest, DescribeLogDirsResponse};
pub use describe_producers::{DescribeProducersRequest, DescribeProducersResponse};
pub use describe_quorum::{DescribeQuorumRequest, DescribeQuorumResponse};
pub use describe_share_group_offsets::{DescribeShareGroupOffsetsRequest, DescribeShareGroupOffsetsResponse};
pub use describe_topic_partitions::{DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse};
pub use describe_transactions::{DescribeTransactionsRequest, DescribeTransactionsResponse};
pub use describe_user_scram_credentials::{
    DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse,
};
pub use elect_leaders::{ElectLeadersRequest, ElectLeadersResponse};
pub use end_txn::{EndTxnRequest, EndTxnResponse};
pub use expire_delegation_token::{ExpireDelegationTokenRequest, ExpireDelegationTokenResponse};
pub use fetch::{FetchRequest, FetchResponse};
pub use find_coordinator::{FindCoordinatorRequest, FindCoordinatorResponse};
pub use get_telemetry_subscriptions::{GetTelemetrySubscriptionsRequest, GetTelemetrySubscriptionsResponse};
pub use heartbeat::{HeartbeatRequest, HeartbeatResponse};
pub use incremental_alter_configs::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};
pub use init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
pub use join_group::{JoinGroupRequest, JoinGroupResponse};
pub use leave_group::{LeaveGroupRequest, LeaveGroupResponse};
pub use list_config_resources::{ListConfigResourcesRequest, ListConfigResourcesResponse};
pub use list_groups::{ListGroupsRequest, ListGroupsResponse};
pub use list_offsets::{ListOffsetsRequest, ListOffsetsResponse};
pub use list_partition_reassignments::{
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
};
pub use list_transactions::{ListTransactionsRequest, ListTransactionsResponse};
pub use metadata::{MetadataRequest, MetadataResponse};
pub use offset_commit::{OffsetCommitRequest, OffsetCommitResponse};
pub use offset_delete::{OffsetDeleteRequest, OffsetDeleteResponse};
pub use offset_fetch::{OffsetFetchRequest, OffsetFetchResponse};
pub use offset_for_leader_epoch::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};
pub use produce::{ProduceRequest, ProduceResponse};
pub use push_telemetry::{PushTelemetryRequest, PushTelemetryResponse};
pub use renew_delegation_token::{RenewDelegationTokenRequest, RenewDelegationTokenResponse};
pub use sasl_authenticate::{SaslAuthenticateRequest, SaslAuthenticateResponse};
pub use sasl_handshake::{SaslHandshakeRequest, SaslHandshakeResponse};
pub use share_acknowledge::{ShareAcknowledgeRequest, ShareAcknowledgeResponse};
pub use share_fetch::{ShareFetchRequest, ShareFetchResponse};
pub use share_group_describe::{ShareGroupDescribeRequest, ShareGroupDescribeResponse};
pub use share_group_heartbeat::{ShareGroupHeartbeatRequest, ShareGroupHeartbeatResponse};
pub use streams_group_describe::{StreamsGroupDescribeRequest, StreamsGroupDescribeResponse};
pub use sync_group::{SyncGroupRequest, SyncGroupResponse};
pub use txn_offset_commit::{TxnOffsetCommitRequest, TxnOffsetCommitResponse};
pub use unregister_broker::{UnregisterBrokerRequest, UnregisterBrokerResponse};
pub use update_features::{UpdateFeaturesRequest, UpdateFeaturesResponse};
pub use write_txn_markers::{WriteTxnMarkersRequest, WriteTxnMarkersResponse};

use crate::api_key::ApiKey;
use crate::message::{Message, Request};

macro_rules! versions_by_key {
    ($($request:ty)*) => {
        /// The versions of an API that this crate can write and read, if it has the API at all.
        ///
        /// A server may offer others: Kafka announces Produce from 0 though it serves 3 and up, because librdkafka
        /// before 2.12 compresses only then (KAFKA-18659).
        pub fn supported_versions(key: ApiKey) -> Option<RangeInclusive<i16>> {
            match key {
                $(<$request as Request>::KEY => Some(<$request as Message>::VERSIONS),)*
                _ => None,
            }
        }

        $(
            // A request and its response go by one version and share the first flexible one, which
            // the header code relies on.
            const _: () = {
                type Response = <$request as Request>::Response;
                assert!(*<$request as Message>::VERSIONS.start() == *<Response as Message>::VERSIONS.start());
                assert!(*<$request as Message>::VERSIONS.end() == *<Response as Message>::VERSIONS.end());
                assert!(<$request as Message>::FLEXIBLE_FROM == <Response as Message>::FLEXIBLE_FROM);
                assert!(<$request as Message>::FLEXIBLE_FROM == <$request as Request>::KEY.flexible_from());
            };
        )*
    };
}

versions_by_key! {
    ProduceRequest
    FetchRequest
    ListOffsetsRequest
    MetadataRequest
    OffsetCommitRequest
    OffsetFetchRequest
    FindCoordinatorRequest
    JoinGroupRequest
    HeartbeatRequest
    LeaveGroupRequest
    SyncGroupRequest
    DescribeGroupsRequest
    ListGroupsRequest
    ApiVersionsRequest
    CreateTopicsRequest
    DeleteTopicsRequest
    InitProducerIdRequest
    AddPartitionsToTxnRequest
    AddOffsetsToTxnRequest
    EndTxnRequest
    TxnOffsetCommitRequest
    SaslHandshakeRequest
    DeleteRecordsRequest
    OffsetForLeaderEpochRequest
    WriteTxnMarkersRequest
    DescribeAclsRequest
    CreateAclsRequest
    DeleteAclsRequest
    DescribeConfigsRequest
    AlterConfigsRequest
    DescribeLogDirsRequest
    SaslAuthenticateRequest
    CreatePartitionsRequest
    CreateDelegationTokenRequest
    RenewDelegationTokenRequest
    ExpireDelegationTokenRequest
    DescribeDelegationTokenRequest
    DeleteGroupsRequest
    ElectLeadersRequest
    IncrementalAlterConfigsRequest
    AlterPartitionReassignmentsRequest
    ListPartitionReassignmentsRequest
    OffsetDeleteRequest
    DescribeClientQuotasRequest
    AlterClientQuotasRequest
    DescribeUserScramCredentialsRequest
    AlterUserScramCredentialsRequest
    DescribeQuorumRequest
    UpdateFeaturesRequest
    DescribeClusterRequest
    DescribeProducersRequest
    UnregisterBrokerRequest
    DescribeTransactionsRequest
    ListTransactionsRequest
    ConsumerGroupHeartbeatRequest
    ConsumerGroupDescribeRequest
    GetTelemetrySubscriptionsRequest
    PushTelemetryRequest
    ListConfigResourcesRequest
    DescribeTopicPartitionsRequest
    ShareGroupHeartbeatRequest
    ShareGroupDescribeRequest
    ShareFetchRequest
    ShareAcknowledgeRequest
    StreamsGroupDescribeRequest
    DescribeShareGroupOffsetsRequest
    AlterShareGroupOffsetsRequest
    DeleteShareGroupOffsetsRequest
}
