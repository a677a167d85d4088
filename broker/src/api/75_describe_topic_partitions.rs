//! DescribeTopicPartitions, key 75: version 0 (KIP-966). Topics in order of their names, as many partitions as a page
//! may have, and where the next page begins.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;

use klamm_protocol::messages::describe_topic_partitions::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use klamm_protocol::messages::{DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse};
use klamm_protocol::{ErrorCode, Utf8Bytes};

use super::{Answer, Call, Context, Refusal};
use crate::controller::{Topic, View, is_valid_name};

pub(super) const VERSIONS: RangeInclusive<i16> = 0..=0;
/// The default of Kafka's `max.request.partition.size.limit`: how many partitions a page may have, whatever is asked.
const PARTITIONS_MAX: i32 = 2_000;
/// What the answer takes for a partition, more or less.
const PARTITION_BYTES: usize = 256;
/// What everybody may do with a topic, in Kafka's bits: read, write, create, delete, alter, describe, and describe and
/// alter its settings.
const EVERYTHING: i32 = 0b1101_1111_1000;

pub(super) async fn serve(context: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    let request: DescribeTopicPartitionsRequest = call.decode()?;
    let view = context.view();
    if request.cursor.as_ref().is_some_and(|cursor| !is_possible(cursor, &request)) {
        return call.answer(&refused(&request));
    }
    let (from, first) = match &request.cursor {
        Some(cursor) => (&*cursor.topic_name, cursor.partition_index),
        None => ("", 0),
    };
    let all = request.topics.is_empty();
    let limit = request.response_partition_limit.clamp(1, PARTITIONS_MAX);
    let mut page = Page { context, view: &view, left: limit, all, told: Vec::new() };
    let begin = |name: &str| if name == from { first } else { 0 };
    let next_cursor = if all {
        let names = view.image.topics().map(|topic| &*topic.name).skip_while(|name| *name < from);
        page.fill(names, begin)
    } else {
        let names: BTreeSet<&str> = request.topics.iter().map(|topic| &*topic.name).collect();
        page.fill(names.into_iter().skip_while(|name| *name < from), begin)
    };
    let topics = page.told;
    let partitions: usize = topics.iter().map(|topic| topic.partitions.len()).sum();
    call.charge((partitions + topics.len()) * PARTITION_BYTES);
    let response = DescribeTopicPartitionsResponse { topics, next_cursor, ..Default::default() };
    call.answer(&response)
}

/// A place that a page may have ended at.
fn is_possible(cursor: &Cursor, request: &DescribeTopicPartitionsRequest) -> bool {
    let is_named = || request.topics.iter().any(|topic| topic.name == cursor.topic_name);
    cursor.partition_index >= 0 && (request.topics.is_empty() || is_named())
}

/// There is no place for an error but with the topics.
fn refused(request: &DescribeTopicPartitionsRequest) -> DescribeTopicPartitionsResponse {
    let topics = request.topics.iter().map(|topic| DescribeTopicPartitionsResponseTopic {
        error_code: ErrorCode::InvalidRequest.code(),
        name: Some(topic.name.clone()),
        ..DescribeTopicPartitionsResponseTopic::default()
    });
    DescribeTopicPartitionsResponse { topics: topics.collect(), ..DescribeTopicPartitionsResponse::default() }
}

/// A page that is being filled.
struct Page<'a> {
    context: &'a Context,
    view: &'a View,
    /// How many partitions there is room for.
    left: i32,
    /// All topics are meant, so that none is missing.
    all: bool,
    told: Vec<DescribeTopicPartitionsResponseTopic>,
}

impl Page<'_> {
    /// Takes in topics, each from one of its partitions on. Says where the next page begins.
    fn fill<'n>(
        &mut self,
        names: impl Iterator<Item = &'n str>,
        begin: impl Fn(&str) -> i32,
    ) -> Option<Cursor> {
        for name in names {
            let cursor = |partition_index| {
                Some(Cursor { topic_name: name.into(), partition_index, ..Cursor::default() })
            };
            if self.left == 0 {
                return cursor(0);
            }
            let Some(topic) = self.view.image.topic(name) else {
                self.told.extend((!self.all).then(|| unknown(name)));
                continue;
            };
            let first = begin(name).min(topic.partitions);
            let end = topic.partitions.min(first.saturating_add(self.left));
            self.left -= end - first;
            self.told.push(self.describe(topic, first..end));
            if end < topic.partitions {
                return cursor(end);
            }
        }
        None
    }

    fn describe(&self, topic: &Topic, some: std::ops::Range<i32>) -> DescribeTopicPartitionsResponseTopic {
        let here = self.context.config().node_id;
        let partition = |partition_index| {
            let online = DescribeTopicPartitionsResponsePartition {
                partition_index,
                leader_id: here,
                leader_epoch: self.view.log(topic, partition_index).map_or(0, |log| log.leader_epoch()),
                replica_nodes: vec![here],
                isr_nodes: vec![here],
                eligible_leader_replicas: Some(Vec::new()),
                last_known_elr: Some(Vec::new()),
                ..DescribeTopicPartitionsResponsePartition::default()
            };
            if !self.context.is_offline(self.view, topic, partition_index) {
                return online;
            }
            let error_code = ErrorCode::LeaderNotAvailable.code();
            let offline_replicas = vec![here];
            DescribeTopicPartitionsResponsePartition { error_code, leader_id: -1, offline_replicas, ..online }
        };
        DescribeTopicPartitionsResponseTopic {
            name: Some(topic.name.as_ref().into()),
            topic_id: topic.id,
            is_internal: topic.is_internal(),
            partitions: some.map(partition).collect(),
            topic_authorized_operations: EVERYTHING,
            ..DescribeTopicPartitionsResponseTopic::default()
        }
    }
}

fn unknown(name: &str) -> DescribeTopicPartitionsResponseTopic {
    let error = match is_valid_name(name) {
        true => ErrorCode::UnknownTopicOrPartition,
        false => ErrorCode::InvalidTopicException,
    };
    DescribeTopicPartitionsResponseTopic {
        error_code: error.code(),
        name: Some(Utf8Bytes::from(name)),
        topic_authorized_operations: EVERYTHING,
        ..DescribeTopicPartitionsResponseTopic::default()
    }
}
