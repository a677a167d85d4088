//! OffsetDelete, key 47: version 0. Takes away what a group has committed for partitions, also what open transactions
//! have; those of topics that its members subscribe to stay.
//!
//! Answered when that is durable. Topics and partitions that are named several times are answered once, and come after
//! those that do not exist: as in Kafka, unless the whole request is refused.

use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::offset_delete::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
use klamm_protocol::messages::{OffsetDeleteRequest, OffsetDeleteResponse};

use super::{Answer, Call, Context, Refusal};
use crate::controller::View;

pub(super) const VERSIONS: RangeInclusive<i16> = 0..=0;

/// Topics with their partitions.
type Named = Vec<(String, Vec<i32>)>;

pub(super) async fn serve(context: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    let request: OffsetDeleteRequest = call.decode()?;
    let (missing, asked) = sorted(&context.view(), &request);
    let held_bytes = held_bytes(&missing) + 2 * held_bytes(&asked);
    let deleting = context.groups().delete_offsets(&request.group_id, asked.clone()).await;
    let reply = call.reply();
    Ok(Answer::later(held_bytes, async move {
        let mut response = OffsetDeleteResponse::default();
        match deleting.await {
            Err(error) => response.error_code = error.code(),
            Ok(codes) => {
                let unknown = std::iter::repeat(ErrorCode::UnknownTopicOrPartition);
                response.topics = answered(missing, unknown, Vec::new());
                response.topics = answered(asked, codes, response.topics);
            }
        }
        reply.encode(&response).map(Some)
    }))
}

/// What there is not, and what there is of the partitions that a request names, each once.
fn sorted(view: &View, request: &OffsetDeleteRequest) -> (Named, Named) {
    let (mut missing, mut asked) = (Named::new(), Named::new());
    let mut places: HashMap<(&str, bool), usize> = HashMap::new();
    let mut seen = HashSet::new();
    for topic in &request.topics {
        let count = view.image.topic(&topic.name).map_or(0, |topic| topic.partitions);
        let exists = |index: i32| (0..count).contains(&index);
        for partition in &topic.partitions {
            let index = partition.partition_index;
            if !seen.insert((topic.name.as_ref(), index)) {
                continue;
            }
            let list = if exists(index) { &mut asked } else { &mut missing };
            let place = *places.entry((&topic.name, exists(index))).or_insert_with(|| {
                list.push((topic.name.to_string(), Vec::new()));
                list.len() - 1
            });
            list[place].1.push(index);
        }
    }
    (missing, asked)
}

/// Adds what is said of partitions to what is said of their topics already.
fn answered(
    named: Named,
    codes: impl IntoIterator<Item = ErrorCode>,
    mut topics: Vec<OffsetDeleteResponseTopic>,
) -> Vec<OffsetDeleteResponseTopic> {
    let mut places: HashMap<String, usize> = HashMap::new();
    for (place, topic) in topics.iter().enumerate() {
        places.insert(topic.name.to_string(), place);
    }
    let mut codes = codes.into_iter();
    for (name, partitions) in named {
        let place = *places.entry(name).or_insert_with_key(|name| {
            topics.push(OffsetDeleteResponseTopic { name: name.clone().into(), ..Default::default() });
            topics.len() - 1
        });
        let of_partition = |(partition_index, code): (i32, ErrorCode)| OffsetDeleteResponsePartition {
            partition_index,
            error_code: code.code(),
            ..OffsetDeleteResponsePartition::default()
        };
        topics[place].partitions.extend(partitions.into_iter().zip(codes.by_ref()).map(of_partition));
    }
    topics
}

/// What names and numbers take until the answer is there.
fn held_bytes(named: &Named) -> usize {
    let of = |(name, partitions): &(String, Vec<i32>)| {
        size_of::<OffsetDeleteResponseTopic>()
            + 2 * name.len()
            + partitions.len() * size_of::<OffsetDeleteResponsePartition>()
    };
    named.iter().map(of).sum()
}
