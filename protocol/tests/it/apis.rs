//! The list of all messages, for tests that go through them.

/// Calls `$callback!(Request, Response, oracle module of the request, oracle module of the response)` with a name for a
/// module per API: `$callback! { produce: ProduceRequest, ProduceResponse; }`, all APIs in one call.
macro_rules! for_all_apis {
    ($callback:ident) => {
        $callback! {
            produce: ProduceRequest, ProduceResponse;
            fetch: FetchRequest, FetchResponse;
            list_offsets: ListOffsetsRequest, ListOffsetsResponse;
            metadata: MetadataRequest, MetadataResponse;
            offset_commit: OffsetCommitRequest, OffsetCommitResponse;
            offset_fetch: OffsetFetchRequest, OffsetFetchResponse;
            find_coordinator: FindCoordinatorRequest, FindCoordinatorResponse;
            join_group: JoinGroupRequest, JoinGroupResponse;
            heartbeat: HeartbeatRequest, HeartbeatResponse;
            leave_group: LeaveGroupRequest, LeaveGroupResponse;
            sync_group: SyncGroupRequest, SyncGroupResponse;
            describe_groups: DescribeGroupsRequest, DescribeGroupsResponse;
            list_groups: ListGroupsRequest, ListGroupsResponse;
            api_versions: ApiVersionsRequest, ApiVersionsResponse;
            create_topics: CreateTopicsRequest, CreateTopicsResponse;
            delete_topics: DeleteTopicsRequest, DeleteTopicsResponse;
            init_producer_id: InitProducerIdRequest, InitProducerIdResponse;
            add_partitions_to_txn: AddPartitionsToTxnRequest, AddPartitionsToTxnResponse;
            add_offsets_to_txn: AddOffsetsToTxnRequest, AddOffsetsToTxnResponse;
            end_txn: EndTxnRequest, EndTxnResponse;
            txn_offset_commit: TxnOffsetCommitRequest, TxnOffsetCommitResponse;
            sasl_handshake: SaslHandshakeRequest, SaslHandshakeResponse;
            delete_records: DeleteRecordsRequest, DeleteRecordsResponse;
            offset_for_leader_epoch: OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse;
            write_txn_markers: WriteTxnMarkersRequest, WriteTxnMarkersResponse;
            describe_acls: DescribeAclsRequest, DescribeAclsResponse;
            create_acls: CreateAclsRequest, CreateAclsResponse;
            delete_acls: DeleteAclsRequest, DeleteAclsResponse;
            describe_configs: DescribeConfigsRequest, DescribeConfigsResponse;
            alter_configs: AlterConfigsRequest, AlterConfigsResponse;
            describe_log_dirs: DescribeLogDirsRequest, DescribeLogDirsResponse;
            sasl_authenticate: SaslAuthenticateRequest, SaslAuthenticateResponse;
            create_partitions: CreatePartitionsRequest, CreatePartitionsResponse;
            delete_groups: DeleteGroupsRequest, DeleteGroupsResponse;
            elect_leaders: ElectLeadersRequest, ElectLeadersResponse;
            incremental_alter_configs: IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse;
            alter_partition_reassignments: AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse;
            list_partition_reassignments: ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse;
            offset_delete: OffsetDeleteRequest, OffsetDeleteResponse;
            describe_client_quotas: DescribeClientQuotasRequest, DescribeClientQuotasResponse;
            alter_client_quotas: AlterClientQuotasRequest, AlterClientQuotasResponse;
            describe_user_scram_credentials: DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse;
            alter_user_scram_credentials: AlterUserScramCredentialsRequest, AlterUserScramCredentialsResponse;
            describe_quorum: DescribeQuorumRequest, DescribeQuorumResponse;
            update_features: UpdateFeaturesRequest, UpdateFeaturesResponse;
            describe_cluster: DescribeClusterRequest, DescribeClusterResponse;
            describe_producers: DescribeProducersRequest, DescribeProducersResponse;
            describe_transactions: DescribeTransactionsRequest, DescribeTransactionsResponse;
            list_transactions: ListTransactionsRequest, ListTransactionsResponse;
            consumer_group_describe: ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse;
            list_config_resources: ListConfigResourcesRequest, ListConfigResourcesResponse;
            share_group_describe: ShareGroupDescribeRequest, ShareGroupDescribeResponse;
            share_group_heartbeat: ShareGroupHeartbeatRequest, ShareGroupHeartbeatResponse;
            share_fetch: ShareFetchRequest, ShareFetchResponse;
            share_acknowledge: ShareAcknowledgeRequest, ShareAcknowledgeResponse;
            describe_share_group_offsets: DescribeShareGroupOffsetsRequest, DescribeShareGroupOffsetsResponse;
            alter_share_group_offsets: AlterShareGroupOffsetsRequest, AlterShareGroupOffsetsResponse;
            delete_share_group_offsets: DeleteShareGroupOffsetsRequest, DeleteShareGroupOffsetsResponse;
            create_delegation_token: CreateDelegationTokenRequest, CreateDelegationTokenResponse;
            renew_delegation_token: RenewDelegationTokenRequest, RenewDelegationTokenResponse;
            expire_delegation_token: ExpireDelegationTokenRequest, ExpireDelegationTokenResponse;
            describe_delegation_token: DescribeDelegationTokenRequest, DescribeDelegationTokenResponse;
            unregister_broker: UnregisterBrokerRequest, UnregisterBrokerResponse;
            get_telemetry_subscriptions: GetTelemetrySubscriptionsRequest, GetTelemetrySubscriptionsResponse;
            push_telemetry: PushTelemetryRequest, PushTelemetryResponse;
            describe_topic_partitions: DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse;
            consumer_group_heartbeat: ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse;
        }
    };
}

pub(crate) use for_all_apis;

use bytes::Bytes;
use klamm_protocol::arbitrary::{Arbitrary, Gen};
use klamm_protocol::{Decoder, Encoder, Message};

/// A generated message of a version.
pub(crate) fn generate<M: Message + Arbitrary>(seed: u64, version: i16) -> M {
    M::arbitrary(&mut Gen::new(seed, version, version >= M::FLEXIBLE_FROM))
}

/// The body in a version.
#[track_caller]
pub(crate) fn encode<M: Message>(message: &M, version: i16) -> Bytes {
    let mut out = Encoder::new(version, version >= M::FLEXIBLE_FROM);
    if let Err(error) = message.encode(&mut out, version) {
        panic!("{} version {version}: {error}", M::NAME);
    }
    out.finish().bytes
}

/// The body back, which must take all bytes.
#[track_caller]
pub(crate) fn decode<M: Message + std::fmt::Debug>(bytes: &Bytes, version: i16) -> M {
    let mut input = Decoder::new(bytes.clone());
    let message = M::decode(&mut input, version)
        .unwrap_or_else(|error| panic!("{} version {version}: {error}\n{bytes:02x?}", M::NAME));
    assert_eq!(input.remaining(), 0, "{} version {version} leaves bytes: {message:?}", M::NAME);
    message
}
