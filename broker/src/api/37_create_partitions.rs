//! CreatePartitions, key 37: versions 0 to 3. A topic gets more partitions; they are there when it is answered. Where a
//! key belongs changes with them, so that records of a key are in two partitions then.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;

use futures::future::join_all;
use klamm_protocol::messages::create_partitions::{CreatePartitionsTopic, CreatePartitionsTopicResult};
use klamm_protocol::messages::{CreatePartitionsRequest, CreatePartitionsResponse};
use klamm_protocol::{ErrorCode, Utf8Bytes};
use tokio::time::Instant;

use super::configs::{Refused, change_topic, named_twice};
use super::context::{deadline, each_once};
use super::{Answer, Call, Context, Refusal};
use crate::controller::{COMMANDS_AT_ONCE, Change};

pub(super) const VERSIONS: RangeInclusive<i16> = 0..=3;

pub(super) async fn serve(context: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    let request: CreatePartitionsRequest = call.decode()?;
    let doubled = named_twice(request.topics.iter().map(|one| one.name.clone()));
    let until = deadline(request.timeout_ms);
    let topics: Vec<_> = each_once(request.topics, |one| one.name.clone()).collect();
    let mut results = Vec::new();
    for some in topics.chunks(COMMANDS_AT_ONCE) {
        let grown = some.iter().map(|topic| grow(context, topic, &doubled, request.validate_only, until));
        let grown = some.iter().zip(join_all(grown).await);
        results.extend(grown.map(|(topic, result)| {
            let (error, message) = result.err().map_or((ErrorCode::None, None), |(e, m)| (e, Some(m.into())));
            CreatePartitionsTopicResult {
                name: topic.name.clone(),
                error_code: error.code(),
                error_message: message,
                ..CreatePartitionsTopicResult::default()
            }
        }));
    }
    call.answer(&CreatePartitionsResponse { results, ..CreatePartitionsResponse::default() })
}

async fn grow(
    context: &Context,
    topic: &CreatePartitionsTopic,
    doubled: &BTreeSet<Utf8Bytes>,
    validate_only: bool,
    until: Option<Instant>,
) -> Result<(), Refused> {
    if doubled.contains(&topic.name) {
        return Err((ErrorCode::InvalidRequest, "the topic is in the request twice".to_owned()));
    }
    let assignments = topic.assignments.as_ref();
    let assignments = assignments.map(|all| all.iter().map(|one| one.broker_ids.clone()).collect());
    let change = Change::Grow { partitions: topic.count, assignments };
    change_topic(context, &topic.name, change, validate_only, until).await
}
