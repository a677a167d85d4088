//! OffsetFetch, key 9: versions 1 to 10; several groups at once from 8 on, topics by id from 10 on.
//!
//! The answer waits until what was committed for the group before is durable, and shows nothing that is not. A
//! partition without a committed offset, or with one for another topic of this name, is answered with -1 and no error.
//! No topics (null) asks for everything committed. Who asks for what is stable (`require_stable`, from 7 on) is told
//! UNSTABLE_OFFSET_COMMIT for a partition that an open transaction has committed an offset for, and tries again. How
//! much may be asked for in vain is bounded by `request.elements.max`.

use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use futures::future::BoxFuture;
use klamm_protocol::messages::offset_fetch::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics, OffsetFetchResponseGroup,
    OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use klamm_protocol::messages::{OffsetFetchRequest, OffsetFetchResponse};
use klamm_protocol::{ErrorCode, Utf8Bytes, Uuid};

use super::context::named;
use super::{Answer, Call, Context, Refusal};
use crate::controller::View;
use crate::group::{CommittedOffset, FetchOffsets, FetchTopic, FetchedTopic};

pub(super) const VERSIONS: RangeInclusive<i16> = 1..=10;
/// From here on a request asks for several groups.
const GROUPS: i16 = 8;
/// From here on topics are named by their id.
const TOPIC_IDS: i16 = 10;
/// From here on there is a place for the error of the whole group.
const GROUP_ERRORS: i16 = 2;

pub(super) async fn serve(context: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    let request: OffsetFetchRequest = call.decode()?;
    let reply = call.reply();
    let is_older = call.version < GROUPS;
    let asks = Asks { version: call.version, require_stable: request.require_stable };
    let groups = if is_older {
        let topics = request.topics.map(|topics| {
            let newer = topics.into_iter().map(|topic| OffsetFetchRequestTopics {
                name: topic.name,
                partition_indexes: topic.partition_indexes,
                ..OffsetFetchRequestTopics::default()
            });
            newer.collect()
        });
        vec![OffsetFetchRequestGroup {
            group_id: request.group_id,
            topics,
            ..OffsetFetchRequestGroup::default()
        }]
    } else {
        request.groups
    };
    // All are asked before any is waited for: what is asked later on this connection comes after.
    let fetches: Vec<Fetch> =
        once_each(groups).into_iter().map(|group| Fetch::begin(context, asks, group)).collect();
    let held_bytes = fetches.iter().map(Fetch::held_bytes).sum();
    Ok(Answer::later(held_bytes, async move {
        let mut groups = Vec::with_capacity(fetches.len());
        for fetch in fetches {
            groups.push(fetch.finish().await);
        }
        if !is_older {
            return reply.encode(&OffsetFetchResponse { groups, ..Default::default() }).map(Some);
        }
        let only = groups.pop().unwrap_or_default();
        let response = OffsetFetchResponse {
            topics: only.topics.into_iter().map(older).collect(),
            error_code: only.error_code,
            ..OffsetFetchResponse::default()
        };
        reply.encode(&response).map(Some)
    }))
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

/// What holds for all groups of a request.
#[derive(Clone, Copy)]
struct Asks {
    version: i16,
    require_stable: bool,
}

/// One group that was asked for.
struct Fetch {
    view: Arc<View>,
    version: i16,
    group: String,
    /// What the answer says of each topic beside its offsets; nothing when everything is asked for.
    wanted: Option<Vec<Wanted>>,
    asked: BoxFuture<'static, Result<Option<Vec<FetchedTopic>>, ErrorCode>>,
}

/// A topic that was asked for.
struct Wanted {
    name: Utf8Bytes,
    id: Uuid,
    partitions: Vec<i32>,
    /// There is no topic of this id.
    error: ErrorCode,
}

impl Fetch {
    fn begin(context: &Context, asks: Asks, request: OffsetFetchRequestGroup) -> Self {
        let Asks { version, require_stable } = asks;
        let view = context.view();
        let group = request.group_id.to_string();
        let want = |topic: OffsetFetchRequestTopics| {
            let known = named(&view, version >= TOPIC_IDS, topic.topic_id, &topic.name);
            let wanted = Wanted {
                // A copy: the answer may wait, and would keep the request's frame.
                name: topic.name.to_string().into(),
                id: topic.topic_id,
                partitions: topic.partition_indexes,
                // By name, of a topic that does not exist there is just no offset.
                error: known.err().filter(|_| version >= TOPIC_IDS).unwrap_or(ErrorCode::None),
            };
            // A topic that does not exist is asked for too, so that each has its place: nothing is found.
            let (name, id) =
                known.map_or((String::new(), Uuid::ZERO), |topic| (topic.name.to_string(), topic.id));
            let partitions = if known.is_ok() { wanted.partitions.clone() } else { Vec::new() };
            (wanted, FetchTopic { name, id, partitions })
        };
        let (wanted, topics) = match request.topics {
            Some(topics) => {
                let (wanted, topics) = topics.into_iter().map(want).unzip();
                (Some(wanted), Some(topics))
            }
            None => (None, None),
        };
        let asked = context.groups().fetch(FetchOffsets { group: group.clone(), topics, require_stable });
        Self { view, version, group, wanted, asked: Box::pin(asked) }
    }

    /// What is kept until the answer is there.
    fn held_bytes(&self) -> usize {
        let of = |topic: &Wanted| {
            size_of::<Wanted>() + topic.name.len() + 2 * topic.partitions.len() * size_of::<i32>()
        };
        size_of::<Self>() + self.group.len() + self.wanted.iter().flatten().map(of).sum::<usize>()
    }

    async fn finish(self) -> OffsetFetchResponseGroup {
        let mut response =
            OffsetFetchResponseGroup { group_id: self.group.into(), ..OffsetFetchResponseGroup::default() };
        let (found, error) = match self.asked.await {
            Ok(found) => (found.unwrap_or_default(), ErrorCode::None),
            Err(error) => (Vec::new(), error),
        };
        match self.wanted {
            _ if error != ErrorCode::None && self.version >= GROUP_ERRORS => {
                response.error_code = error.code();
            }
            None => {
                let is_current = |topic: &FetchedTopic| {
                    self.view.image.topic(&topic.name).is_some_and(|current| current.id == topic.id)
                };
                response.topics = found.into_iter().filter(is_current).map(everything_of).collect();
            }
            Some(wanted) => {
                let mut found = found.into_iter();
                for topic in wanted {
                    let error = if error == ErrorCode::None { topic.error } else { error };
                    response.topics.push(answered_topic(topic, found.next(), error));
                }
            }
        }
        response
    }
}

fn everything_of(topic: FetchedTopic) -> OffsetFetchResponseTopics {
    let unstable = topic.unstable;
    let one = |(index, offset)| match unstable.contains(&index) {
        true => answered(index, None, ErrorCode::UnstableOffsetCommit),
        false => answered(index, offset, ErrorCode::None),
    };
    OffsetFetchResponseTopics {
        topic_id: topic.id,
        name: topic.name.into(),
        partitions: topic.partitions.into_iter().map(one).collect(),
        ..OffsetFetchResponseTopics::default()
    }
}

fn answered_topic(
    wanted: Wanted,
    found: Option<FetchedTopic>,
    error: ErrorCode,
) -> OffsetFetchResponseTopics {
    let (found, unstable) = found.map(|topic| (topic.partitions, topic.unstable)).unwrap_or_default();
    let mut found = found.into_iter();
    let one = |index: i32| match found.next().and_then(|(_, offset)| offset) {
        _ if unstable.contains(&index) => answered(index, None, ErrorCode::UnstableOffsetCommit),
        offset => answered(index, offset, error),
    };
    OffsetFetchResponseTopics {
        name: wanted.name,
        topic_id: wanted.id,
        partitions: wanted.partitions.into_iter().map(one).collect(),
        ..OffsetFetchResponseTopics::default()
    }
}

fn answered(
    partition_index: i32,
    offset: Option<CommittedOffset>,
    error: ErrorCode,
) -> OffsetFetchResponsePartitions {
    let (committed_offset, committed_leader_epoch, metadata) =
        offset.map_or((-1, -1, String::new()), |found| (found.offset, found.leader_epoch, found.metadata));
    OffsetFetchResponsePartitions {
        partition_index,
        committed_offset,
        committed_leader_epoch,
        metadata: Some(metadata.into()),
        error_code: error.code(),
        ..OffsetFetchResponsePartitions::default()
    }
}
