//! CreateTopics, key 19: versions 2 to 7. The topics of a request are created together; each has a result of its own.
//! A topic is there when it is answered. What is not there after `timeout_ms` is answered with `REQUEST_TIMED_OUT`, and
//! made by itself. 0 or less is no limit, where Kafka would answer so at once whatever becomes of the topic.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use futures::future::join_all;
use klamm_protocol::messages::create_topics::{CreatableTopic, CreatableTopicConfigs, CreatableTopicResult};
use klamm_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse};
use klamm_protocol::{ErrorCode, Utf8Bytes};
use tokio::time::Instant;

use super::context::deadline;
use super::{Answer, Call, Context, Refusal};
use crate::controller::{COMMANDS_AT_ONCE, CreateTopic, is_internal};

pub(super) const VERSIONS: RangeInclusive<i16> = 2..=7;
/// Kafka's number for a setting that a topic has of its own.
const SET_ON_TOPIC: i8 = 1;

pub(super) async fn serve(context: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    let request: CreateTopicsRequest = call.decode()?;
    let mut seen = BTreeSet::new();
    let doubled: BTreeSet<_> = request
        .topics
        .iter()
        .filter(|topic| !seen.insert(&topic.name))
        .map(|topic| topic.name.clone())
        .collect();
    let until = deadline(request.timeout_ms);
    let mut topics = Vec::new();
    for some in request.topics.chunks(COMMANDS_AT_ONCE) {
        let results =
            some.iter().map(|topic| answer_for(context, topic, &doubled, request.validate_only, until));
        topics.extend(join_all(results).await);
    }
    call.answer(&CreateTopicsResponse { topics, ..CreateTopicsResponse::default() })
}

async fn answer_for(
    context: &Context,
    topic: &CreatableTopic,
    doubled: &BTreeSet<Utf8Bytes>,
    validate_only: bool,
    until: Option<Instant>,
) -> CreatableTopicResult {
    if doubled.contains(&topic.name) {
        refused(topic, ErrorCode::InvalidRequest, "the topic is in the request twice".into())
    } else if is_internal(&topic.name) {
        let message = "the broker creates its own topics when it needs them";
        refused(topic, ErrorCode::InvalidTopicException, message.into())
    } else {
        create(context, topic, validate_only, until).await
    }
}

async fn create(
    context: &Context,
    wanted: &CreatableTopic,
    validate_only: bool,
    until: Option<Instant>,
) -> CreatableTopicResult {
    let mut settings = BTreeMap::new();
    for config in &wanted.configs {
        let Some(value) = &config.value else {
            return refused(
                wanted,
                ErrorCode::InvalidConfig,
                format!("setting {} has no value", config.name),
            );
        };
        settings.insert(config.name.to_string(), value.to_string());
    }
    let assignments = wanted.assignments.iter();
    let command = CreateTopic {
        name: wanted.name.to_string(),
        partitions: wanted.num_partitions,
        replication_factor: wanted.replication_factor,
        assignments: assignments.map(|one| (one.partition_index, one.broker_ids.clone())).collect(),
        settings,
    };
    match context.controller().create_topic_until(&command, validate_only, until).await {
        Err(error) => refused(wanted, error.code, error.message),
        Ok(topic) => {
            let configs = topic.settings.iter().map(|(name, value)| CreatableTopicConfigs {
                name: name.into(),
                value: Some(value.into()),
                config_source: SET_ON_TOPIC,
                ..CreatableTopicConfigs::default()
            });
            CreatableTopicResult {
                name: wanted.name.clone(),
                topic_id: topic.id,
                num_partitions: topic.partitions,
                replication_factor: 1,
                configs: Some(configs.collect()),
                ..CreatableTopicResult::default()
            }
        }
    }
}

fn refused(topic: &CreatableTopic, error: ErrorCode, message: String) -> CreatableTopicResult {
    CreatableTopicResult {
        name: topic.name.clone(),
        error_code: error.code(),
        error_message: Some(message.into()),
        ..CreatableTopicResult::default()
    }
}
