//! Metadata, key 3: versions 0 to 13.
//!
//! A topic that is asked for by name and does not exist is created and described at once, if the request and
//! `auto.create.topics.enable` allow it. There is one broker, which leads everything and is its own controller. Its
//! address is the one advertised for the listener that the client came through. A partition in a log directory whose
//! disk has failed has no leader, as in Kafka: it keeps its one replica, which is offline.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use futures::future::join_all;
use klamm_protocol::messages::metadata::{
    MetadataRequestTopic, MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use klamm_protocol::messages::{MetadataRequest, MetadataResponse};
use klamm_protocol::{ErrorCode, Utf8Bytes, Uuid};

use super::context::each_once;
use super::{Answer, Call, Context, Refusal};
use crate::controller::{COMMANDS_AT_ONCE, CreateTopic, Topic, View, is_valid_name};
use crate::group::OFFSETS_TOPIC;
use crate::txn::TRANSACTIONS_TOPIC;

pub(super) const VERSIONS: RangeInclusive<i16> = 0..=13;

pub(super) async fn serve(context: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    let mut request: MetadataRequest = call.decode()?;
    if call.version == 0 {
        request.topics = request.topics.filter(|topics| !topics.is_empty());
    }
    let topics = match request.topics {
        None => {
            let view = context.view();
            view.image.topics().map(|topic| describe(context, &view, topic)).collect()
        }
        Some(wanted) => {
            let create = request.allow_auto_topic_creation && context.config().auto_create_topics;
            let wanted: Vec<_> = each_once(wanted, named).collect();
            let refused = if create { make_missing(context, &wanted).await } else { BTreeMap::new() };
            let view = context.view();
            wanted.into_iter().map(|wanted| one(context, &view, wanted, &refused)).collect()
        }
    };
    let broker = MetadataResponseBroker {
        node_id: context.config().node_id,
        host: call.peer.advertised.host.as_str().into(),
        port: i32::from(call.peer.advertised.port),
        ..MetadataResponseBroker::default()
    };
    call.answer(&MetadataResponse {
        brokers: vec![broker],
        cluster_id: Some(context.cluster_id().into()),
        controller_id: context.config().node_id,
        topics,
        ..MetadataResponse::default()
    })
}

/// By what a topic is found: where there is an id, no name counts.
fn named(wanted: &MetadataRequestTopic) -> (Uuid, Option<Utf8Bytes>) {
    let id = wanted.topic_id;
    (id, wanted.name.clone().filter(|_| id.is_zero()))
}

/// Creates the topics that are asked for by name and are not there, together. Says which cannot be.
async fn make_missing(context: &Context, wanted: &[MetadataRequestTopic]) -> BTreeMap<Utf8Bytes, ErrorCode> {
    let view = context.view();
    let names = wanted.iter().filter_map(|wanted| named(wanted).1);
    let missing: Vec<_> =
        names.filter(|name| is_valid_name(name) && view.image.topic(name).is_none()).collect();
    let mut refused = BTreeMap::new();
    for some in missing.chunks(COMMANDS_AT_ONCE) {
        let made = join_all(some.iter().map(|name| make(context, name))).await;
        refused.extend(some.iter().zip(made).filter_map(|(name, made)| Some((name.clone(), made.err()?))));
    }
    refused
}

fn one(
    context: &Context,
    view: &View,
    wanted: MetadataRequestTopic,
    refused: &BTreeMap<Utf8Bytes, ErrorCode>,
) -> MetadataResponseTopic {
    let (id, name) = named(&wanted);
    let Some(name) = name else {
        return match view.image.topic_by_id(id) {
            Some(topic) => describe(context, view, topic),
            None => MetadataResponseTopic {
                error_code: ErrorCode::UnknownTopicId.code(),
                topic_id: id,
                // Versions that cannot say null get an empty name.
                name: Some(Utf8Bytes::new()),
                ..MetadataResponseTopic::default()
            },
        };
    };
    match (view.image.topic(&name), refused.get(&name)) {
        (Some(topic), _) => describe(context, view, topic),
        (None, Some(error)) => unknown(name, *error),
        // Nobody tried to create it, or somebody has deleted it again.
        (None, None) => {
            let error = why_unknown(&name);
            unknown(name, error)
        }
    }
}

async fn make(context: &Context, name: &str) -> Result<(), ErrorCode> {
    if name == OFFSETS_TOPIC {
        return context.groups().prepare().await;
    }
    if name == TRANSACTIONS_TOPIC {
        return context.transactions().prepare().await;
    }
    let topic = CreateTopic {
        name: name.to_owned(),
        partitions: -1,
        replication_factor: -1,
        ..CreateTopic::default()
    };
    match context.controller().create_topic(&topic, false).await {
        Ok(_) => Ok(()),
        // Somebody was faster.
        Err(error) if error.code == ErrorCode::TopicAlreadyExists => Ok(()),
        Err(error) => {
            tracing::debug!(topic = name, %error, "a topic was asked for and cannot be created");
            Err(error.code)
        }
    }
}

fn why_unknown(name: &str) -> ErrorCode {
    if is_valid_name(name) { ErrorCode::UnknownTopicOrPartition } else { ErrorCode::InvalidTopicException }
}

fn unknown(name: Utf8Bytes, error: ErrorCode) -> MetadataResponseTopic {
    MetadataResponseTopic { error_code: error.code(), name: Some(name), ..MetadataResponseTopic::default() }
}

fn describe(context: &Context, view: &View, topic: &Topic) -> MetadataResponseTopic {
    let here = context.config().node_id;
    let partitions = (0..topic.partitions).map(|index| {
        let leader_epoch = view.log(topic, index).map_or(0, |log| log.leader_epoch());
        if context.is_offline(view, topic, index) {
            return MetadataResponsePartition {
                error_code: ErrorCode::LeaderNotAvailable.code(),
                partition_index: index,
                leader_id: -1,
                leader_epoch,
                replica_nodes: vec![here],
                isr_nodes: vec![here],
                offline_replicas: vec![here],
                ..MetadataResponsePartition::default()
            };
        }
        MetadataResponsePartition {
            partition_index: index,
            leader_id: here,
            leader_epoch,
            replica_nodes: vec![here],
            isr_nodes: vec![here],
            ..MetadataResponsePartition::default()
        }
    });
    MetadataResponseTopic {
        name: Some(topic.name.as_ref().into()),
        topic_id: topic.id,
        is_internal: topic.is_internal(),
        partitions: partitions.collect(),
        ..MetadataResponseTopic::default()
    }
}
