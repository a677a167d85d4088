//! Where leader epochs end, at the partitions' leaders: what tells a consumer that its log lost records (KIP-320).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::OffsetForLeaderEpochRequest;
use klamm_protocol::messages::offset_for_leader_epoch::{OffsetForLeaderPartition, OffsetForLeaderTopic};

use super::core::Core;
use crate::connection::Links;
use crate::error::RequestError;
use crate::types::TopicPartition;

/// As a consumer asks.
const NO_REPLICA: i32 = -1;

/// By partition, the greatest epoch of the leader's log that is not above the one asked for, and the offset after it;
/// both -1 when there is none.
pub(crate) type Epochs = HashMap<TopicPartition, Result<(i32, i64), ErrorCode>>;

/// Asks one leader about partitions, each with the leader's epoch and the epoch to look up.
pub(crate) async fn epoch_ends(
    core: &Core,
    links: &Links,
    leader: i32,
    partitions: &[(&TopicPartition, i32, i32)],
) -> Result<Epochs, RequestError> {
    let mut topics: BTreeMap<&Arc<str>, Vec<OffsetForLeaderPartition>> = BTreeMap::new();
    for (partition, current_leader_epoch, leader_epoch) in partitions {
        topics.entry(&partition.topic).or_default().push(OffsetForLeaderPartition {
            partition: partition.partition,
            current_leader_epoch: *current_leader_epoch,
            leader_epoch: *leader_epoch,
            ..Default::default()
        });
    }
    let topics = topics.into_iter().map(|(name, partitions)| OffsetForLeaderTopic {
        topic: (&**name).into(),
        partitions,
        ..Default::default()
    });
    let request = OffsetForLeaderEpochRequest {
        replica_id: NO_REPLICA,
        topics: topics.collect(),
        ..Default::default()
    };
    let connection = links.connection(core, leader).await?;
    let answer = connection.call(&request, core.config.request_timeout).await?;
    let mut ends = HashMap::new();
    for topic in answer.topics {
        let name: Arc<str> = Arc::from(&*topic.topic);
        for part in topic.partitions {
            let end = match ErrorCode::from_code(part.error_code) {
                ErrorCode::None => Ok((part.leader_epoch, part.end_offset)),
                code => Err(code),
            };
            ends.insert(TopicPartition::new(Arc::clone(&name), part.partition), end);
        }
    }
    Ok(ends)
}
