//! The messages: one file per API, named like it, its key on the first line. Structures inside a
//! message stay in its file.

pub mod add_offsets_to_txn;
pub mod add_partitions_to_txn;
pub mod api_versions;
pub mod create_topics;
pub mod delete_topics;
pub mod describe_groups;
pub mod end_txn;
pub mod fetch;
pub mod find_coordinator;
pub mod heartbeat;
pub mod init_producer_id;
pub mod join_group;
pub mod leave_group;
pub mod list_groups;
pub mod list_offsets;
pub mod metadata;
pub mod offset_commit;
pub mod offset_fetch;
pub mod produce;
pub mod sync_group;
pub mod txn_offset_commit;

use std::ops::RangeInclusive;

pub use add_offsets_to_txn::{AddOffsetsToTxnRequest, AddOffsetsToTxnResponse};
pub use add_partitions_to_txn::{AddPartitionsToTxnRequest, AddPartitionsToTxnResponse};
pub use api_versions::{ApiVersionsRequest, ApiVersionsResponse};
pub use create_topics::{CreateTopicsRequest, CreateTopicsResponse};
pub use delete_topics::{DeleteTopicsRequest, DeleteTopicsResponse};
pub use describe_groups::{DescribeGroupsRequest, DescribeGroupsResponse};
pub use end_txn::{EndTxnRequest, EndTxnResponse};
pub use fetch::{FetchRequest, FetchResponse};
pub use find_coordinator::{FindCoordinatorRequest, FindCoordinatorResponse};
pub use heartbeat::{HeartbeatRequest, HeartbeatResponse};
pub use init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
pub use join_group::{JoinGroupRequest, JoinGroupResponse};
pub use leave_group::{LeaveGroupRequest, LeaveGroupResponse};
pub use list_groups::{ListGroupsRequest, ListGroupsResponse};
pub use list_offsets::{ListOffsetsRequest, ListOffsetsResponse};
pub use metadata::{MetadataRequest, MetadataResponse};
pub use offset_commit::{OffsetCommitRequest, OffsetCommitResponse};
pub use offset_fetch::{OffsetFetchRequest, OffsetFetchResponse};
pub use produce::{ProduceRequest, ProduceResponse};
pub use sync_group::{SyncGroupRequest, SyncGroupResponse};
pub use txn_offset_commit::{TxnOffsetCommitRequest, TxnOffsetCommitResponse};

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
}
