//! OffsetFetch, key 9: versions 1 to 10; several groups at once from 8 on, topics by id from 10 on.
//!
//! A partition without a committed offset is answered with -1 and no error. No topics (null) asks for everything
//! committed. `require_stable` concerns offsets of open transactions, of which there are none.

use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use klamm_protocol::messages::offset_fetch::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics, OffsetFetchResponseGroup,
    OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use klamm_protocol::messages::{OffsetFetchRequest, OffsetFetchResponse};
use klamm_protocol::{ErrorCode, Utf8Bytes, Uuid};

use super::context::named;
use super::{Answer, Call, Context, Refusal};
use crate::group::{CommittedOffset, Coordinator};

pub(super) const VERSIONS: RangeInclusive<i16> = 1..=10;
/// From here on a request asks for several groups.
const GROUPS: i16 = 8;
/// From here on topics are named by their id.
const TOPIC_IDS: i16 = 10;
/// From here on there is a place for the error of the whole group.
const GROUP_ERRORS: i16 = 2;

pub(super) async fn serve(context: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    let request: OffsetFetchRequest = call.decode()?;
    if call.version >= GROUPS {
        let groups = once_each(request.groups).into_iter();
        let groups = groups.map(|group| fetch(context, call.version, group)).collect();
        return call.answer(&OffsetFetchResponse { groups, ..OffsetFetchResponse::default() });
    }
    let topics = request.topics.map(|topics| {
        let newer = topics.into_iter().map(|topic| OffsetFetchRequestTopics {
            name: topic.name,
            partition_indexes: topic.partition_indexes,
            ..OffsetFetchRequestTopics::default()
        });
        newer.collect()
    });
    let group =
        OffsetFetchRequestGroup { group_id: request.group_id, topics, ..OffsetFetchRequestGroup::default() };
    let mut only = once_each(vec![group]);
    let answered = only.pop().map(|group| fetch(context, call.version, group)).unwrap_or_default();
    call.answer(&OffsetFetchResponse {
        topics: answered.topics.into_iter().map(older).collect(),
        error_code: answered.error_code,
        ..OffsetFetchResponse::default()
    })
}

fn older(topic: OffsetFetchResponseTopics) -> OffsetFetchResponseTopic {
    let partitions = topic.partitions.into_iter().map(|partition| OffsetFetchResponsePartition {
        partition_index: partition.partition_index,
        committed_offset: partition.committed_offset,
        committed_leader_epoch: partition.committed_leader_epoch,
        metadata: partition.metadata,
        error_code: partition.error_code,
        ..OffsetFetchResponsePartition::default()
    });
    OffsetFetchResponseTopic {
        name: topic.name,
        partitions: partitions.collect(),
        ..OffsetFetchResponseTopic::default()
    }
}

/// What a request has asked for of one group so far.
#[derive(Default)]
struct Asked {
    everything: bool,
    partitions: HashMap<(Uuid, Utf8Bytes), HashSet<i32>>,
}

impl Asked {
    /// Takes out what was asked for before. Whether anything is left, be it a topic without partitions.
    fn leave_new(&mut self, topics: &mut Option<Vec<OffsetFetchRequestTopics>>) -> bool {
        let Some(topics) = topics else { return !std::mem::replace(&mut self.everything, true) };
        topics.retain_mut(|topic| {
            let key = (topic.topic_id, topic.name.clone());
            let is_first = !self.partitions.contains_key(&key);
            let asked = self.partitions.entry(key).or_default();
            topic.partition_indexes.retain(|index| asked.insert(*index));
            is_first || !topic.partition_indexes.is_empty()
        });
        !topics.is_empty()
    }
}

/// Every partition of every group once: metadata is a thousand times as long as the number of a partition. A group or
/// topic may come several times, with other partitions each time.
fn once_each(mut groups: Vec<OffsetFetchRequestGroup>) -> Vec<OffsetFetchRequestGroup> {
    let mut asked: HashMap<Utf8Bytes, Asked> = HashMap::new();
    groups.retain_mut(|group| {
        let is_first = !asked.contains_key(&group.group_id);
        let has_new = asked.entry(group.group_id.clone()).or_default().leave_new(&mut group.topics);
        is_first || has_new
    });
    groups
}

fn fetch(context: &Context, version: i16, wanted: OffsetFetchRequestGroup) -> OffsetFetchResponseGroup {
    let view = context.view();
    let group = &wanted.group_id;
    let question = |coordinator: &Coordinator| match &wanted.topics {
        None => {
            let all = coordinator.all_committed(group).into_iter().map(|(topic, partitions)| {
                let partitions = partitions.iter().map(|(index, offset)| answered(*index, Some(offset)));
                OffsetFetchResponseTopics {
                    topic_id: view.image.topic(&topic).map(|topic| topic.id).unwrap_or_default(),
                    name: topic.into(),
                    partitions: partitions.collect(),
                    ..OffsetFetchResponseTopics::default()
                }
            });
            all.collect()
        }
        Some(topics) => {
            let one = |topic: &OffsetFetchRequestTopics| {
                let known = if version >= TOPIC_IDS {
                    named(&view, true, topic.topic_id, "").map(|topic| topic.name.to_string())
                } else {
                    // Of a topic that does not exist there is just no offset.
                    Ok(topic.name.to_string())
                };
                let partitions = topic.partition_indexes.iter().map(|index| match &known {
                    Ok(name) => answered(*index, coordinator.committed(group, name, *index)),
                    Err(error) => refused(*index, *error),
                });
                OffsetFetchResponseTopics {
                    name: topic.name.clone(),
                    topic_id: topic.topic_id,
                    partitions: partitions.collect(),
                    ..OffsetFetchResponseTopics::default()
                }
            };
            topics.iter().map(one).collect()
        }
    };
    let asked = match context.groups().ask(group, question) {
        Ok(Some(topics)) => Ok(topics),
        // No group ever committed anything here: ask one that knows nothing.
        Ok(None) => Ok(question(&Coordinator::new(context.config().group.clone()))),
        Err(error) => Err(error),
    };
    let mut response =
        OffsetFetchResponseGroup { group_id: group.clone(), ..OffsetFetchResponseGroup::default() };
    match asked {
        Ok(topics) => response.topics = topics,
        Err(error) if version >= GROUP_ERRORS => response.error_code = error.code(),
        Err(error) => {
            for topic in wanted.topics.unwrap_or_default() {
                let partitions = topic.partition_indexes.iter().map(|index| refused(*index, error));
                response.topics.push(OffsetFetchResponseTopics {
                    name: topic.name,
                    partitions: partitions.collect(),
                    ..OffsetFetchResponseTopics::default()
                });
            }
        }
    }
    response
}

fn answered(partition_index: i32, offset: Option<&CommittedOffset>) -> OffsetFetchResponsePartitions {
    OffsetFetchResponsePartitions {
        partition_index,
        committed_offset: offset.map_or(-1, |offset| offset.offset),
        committed_leader_epoch: offset.map_or(-1, |offset| offset.leader_epoch),
        metadata: Some(offset.map_or_else(Utf8Bytes::new, |offset| offset.metadata.as_str().into())),
        ..OffsetFetchResponsePartitions::default()
    }
}

fn refused(partition_index: i32, error: ErrorCode) -> OffsetFetchResponsePartitions {
    OffsetFetchResponsePartitions { error_code: error.code(), ..answered(partition_index, None) }
}
