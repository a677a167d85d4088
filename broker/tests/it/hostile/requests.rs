//! Requests to coordinators, in few words.

use klamm_protocol::messages::alter_client_quotas::{EntityData, EntryData, OpData};
use klamm_protocol::messages::create_partitions::CreatePartitionsTopic;
use klamm_protocol::messages::create_topics::CreatableTopic;
use klamm_protocol::messages::delete_records::{DeleteRecordsPartition, DeleteRecordsTopic};
use klamm_protocol::messages::describe_configs::DescribeConfigsResource;
use klamm_protocol::messages::incremental_alter_configs::{AlterConfigsResource, AlterableConfig};
use klamm_protocol::messages::offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use klamm_protocol::messages::offset_delete::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use klamm_protocol::messages::sync_group::SyncGroupRequestAssignment;
use klamm_protocol::messages::txn_offset_commit::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use klamm_protocol::messages::*;

/// The kind of resource that a topic is.
const OF_TOPIC: i8 = 2;

pub(super) fn heartbeat(group: &str, member_id: &str, generation_id: i32) -> HeartbeatRequest {
    HeartbeatRequest {
        group_id: group.into(),
        generation_id,
        member_id: member_id.into(),
        ..HeartbeatRequest::default()
    }
}

/// The leader gives each member its id.
pub(super) fn sync(group: &str, joined: &JoinGroupResponse) -> SyncGroupRequest {
    let assignments = joined.members.iter().map(|member| SyncGroupRequestAssignment {
        member_id: member.member_id.clone(),
        assignment: member.member_id.as_bytes().clone(),
        ..SyncGroupRequestAssignment::default()
    });
    SyncGroupRequest {
        group_id: group.into(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        protocol_type: joined.protocol_type.clone(),
        protocol_name: joined.protocol_name.clone(),
        assignments: assignments.collect(),
        ..SyncGroupRequest::default()
    }
}

pub(super) fn commit(
    group: &str,
    member_id: &str,
    generation_id_or_member_epoch: i32,
    topic: &str,
    committed_offset: i64,
) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition { committed_offset, ..Default::default() };
    let topic = OffsetCommitRequestTopic {
        name: topic.into(),
        partitions: vec![partition],
        ..OffsetCommitRequestTopic::default()
    };
    OffsetCommitRequest {
        group_id: group.into(),
        generation_id_or_member_epoch,
        member_id: member_id.into(),
        topics: vec![topic],
        ..OffsetCommitRequest::default()
    }
}

pub(super) fn commit_in_transaction(
    id: &str,
    (producer_id, producer_epoch): (i64, i16),
    group: &str,
    topic: &str,
    committed_offset: i64,
) -> TxnOffsetCommitRequest {
    let partition = TxnOffsetCommitRequestPartition { committed_offset, ..Default::default() };
    let topic = TxnOffsetCommitRequestTopic {
        name: topic.into(),
        partitions: vec![partition],
        ..TxnOffsetCommitRequestTopic::default()
    };
    TxnOffsetCommitRequest {
        transactional_id: id.into(),
        group_id: group.into(),
        producer_id,
        producer_epoch,
        generation_id: -1,
        topics: vec![topic],
        ..TxnOffsetCommitRequest::default()
    }
}

/// All that a group has committed.
pub(super) fn all_offsets(group: &str) -> OffsetFetchRequest {
    OffsetFetchRequest { group_id: group.into(), topics: None, ..OffsetFetchRequest::default() }
}

pub(super) fn delete_group(group: &str) -> DeleteGroupsRequest {
    DeleteGroupsRequest { groups_names: vec![group.into()], ..DeleteGroupsRequest::default() }
}

pub(super) fn delete_offset(group: &str, topic: &str) -> OffsetDeleteRequest {
    let topic = OffsetDeleteRequestTopic {
        name: topic.into(),
        partitions: vec![OffsetDeleteRequestPartition::default()],
        ..OffsetDeleteRequestTopic::default()
    };
    OffsetDeleteRequest { group_id: group.into(), topics: vec![topic], ..OffsetDeleteRequest::default() }
}

pub(super) fn describe_transactions(ids: &[&str]) -> DescribeTransactionsRequest {
    let transactional_ids = ids.iter().map(|id| (*id).into()).collect();
    DescribeTransactionsRequest { transactional_ids, ..DescribeTransactionsRequest::default() }
}

pub(super) fn describe_topic(topic: &str) -> DescribeConfigsRequest {
    let resource = DescribeConfigsResource {
        resource_type: OF_TOPIC,
        resource_name: topic.into(),
        ..DescribeConfigsResource::default()
    };
    DescribeConfigsRequest { resources: vec![resource], ..DescribeConfigsRequest::default() }
}

pub(super) fn alter_topic(topic: &str, name: &str, value: i64) -> IncrementalAlterConfigsRequest {
    let config = AlterableConfig {
        name: name.into(),
        value: Some(value.to_string().into()),
        ..AlterableConfig::default()
    };
    let resource = AlterConfigsResource {
        resource_type: OF_TOPIC,
        resource_name: topic.into(),
        configs: vec![config],
        ..AlterConfigsResource::default()
    };
    IncrementalAlterConfigsRequest { resources: vec![resource], ..Default::default() }
}

/// How many bytes a second a client may produce.
pub(super) fn alter_quota(client: &str, value: f64) -> AlterClientQuotasRequest {
    let entity = EntityData {
        entity_type: "client-id".into(),
        entity_name: Some(client.into()),
        ..EntityData::default()
    };
    let entry = EntryData {
        entity: vec![entity],
        ops: vec![OpData { key: "producer_byte_rate".into(), value, ..OpData::default() }],
        ..EntryData::default()
    };
    AlterClientQuotasRequest { entries: vec![entry], ..AlterClientQuotasRequest::default() }
}

pub(super) fn grow(topic: &str, count: i32) -> CreatePartitionsRequest {
    let topic = CreatePartitionsTopic { name: topic.into(), count, ..CreatePartitionsTopic::default() };
    CreatePartitionsRequest { topics: vec![topic], ..CreatePartitionsRequest::default() }
}

pub(super) fn delete_records(topic: &str, offset: i64) -> DeleteRecordsRequest {
    let partition = DeleteRecordsPartition { offset, ..DeleteRecordsPartition::default() };
    let topic = DeleteRecordsTopic {
        name: topic.into(),
        partitions: vec![partition],
        ..DeleteRecordsTopic::default()
    };
    DeleteRecordsRequest { topics: vec![topic], ..DeleteRecordsRequest::default() }
}

pub(super) fn create(name: &str, num_partitions: i32) -> CreateTopicsRequest {
    let topic = CreatableTopic {
        name: name.into(),
        num_partitions,
        replication_factor: 1,
        ..CreatableTopic::default()
    };
    CreateTopicsRequest { topics: vec![topic], ..CreateTopicsRequest::default() }
}
