//! The topics of an application: counts what exists, creates what is missing, refuses what does not fit.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use klamm_client::{AdminError, Client, ErrorCode, NewTopic};

use super::config::StreamsConfig;
use super::error::StreamsError;
use crate::streams::node::StoreLayout;
use crate::streams::topology::{PartitionPlan, TopicName, TopologyInner, plan_partitions};

/// How much longer than its store a windowed changelog keeps records (`windowstore.changelog.additional.retention.ms`).
const EXTRA_RETENTION_MS: i64 = 24 * 60 * 60 * 1_000;

/// The longest application id: store names have 200 of a topic name's 249 bytes at most, and usually far fewer.
const MAX_APPLICATION_ID_BYTES: usize = 120;

/// Makes sure that every internal topic exists.
pub(super) async fn prepare(
    topology: &TopologyInner,
    config: &StreamsConfig,
    client: &Client,
) -> Result<PartitionPlan, StreamsError> {
    check_application_id(&config.application_id)?;
    let plan = plan_partitions(topology, &existing_sources(topology, client).await?)?;
    let wanted = internal_topics(topology, config, &plan);
    if wanted.is_empty() {
        return Ok(plan);
    }
    let admin = client.admin();
    let created = create(client, &wanted).await?;
    let mut existing = Vec::new();
    for topic in &wanted {
        match created.get(&topic.name) {
            Some(Err(error)) if error.code() == Some(ErrorCode::TopicAlreadyExists) => existing.push(topic),
            Some(Err(error)) => return Err(error.clone().into()),
            Some(Ok(())) | None => {}
        }
    }
    let names: Vec<_> = existing.iter().map(|topic| &*topic.name).collect();
    if names.is_empty() {
        return Ok(plan);
    }
    let described = admin.describe_topics(&names).await?;
    for topic in existing {
        let Some(Ok(found)) = described.get(&topic.name) else { continue };
        let found = i32::try_from(found.partitions.len()).unwrap_or(i32::MAX);
        if found != topic.partitions {
            let (topic, needed) = (topic.name.to_string(), topic.partitions);
            return Err(StreamsError::InternalTopic { topic, found, needed });
        }
    }
    Ok(plan)
}

/// Creates topics, and asks again where a controller was too slow or is another one by now.
async fn create(
    client: &Client,
    wanted: &[NewTopic],
) -> Result<HashMap<Arc<str>, Result<(), AdminError>>, StreamsError> {
    const TRIES: u32 = 10;
    const PAUSE: Duration = Duration::from_millis(200);
    let mut tried = 0;
    loop {
        let created = client.admin().create_topics(wanted).await?;
        tried += 1;
        let again = |result: &Result<(), AdminError>| result.as_ref().is_err_and(AdminError::is_retriable);
        if tried == TRIES || !created.values().any(again) {
            return Ok(created);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The changelogs of a topology.
pub(super) fn changelogs(topology: &TopologyInner, application: &str) -> impl Iterator<Item = String> {
    let stores = topology.sub_topologies.iter().flat_map(|part| topology.stores_of(part));
    let logged = stores.filter(|store| store.logged);
    logged.map(move |store| TopicName::changelog(&store.name).in_application(application))
}

/// The first changelog that has fewer partitions than a topic which its tasks read has by now.
pub(super) fn too_small(
    topology: &TopologyInner,
    application: &str,
    plan: &PartitionPlan,
    counts: &BTreeMap<Arc<str>, i32>,
) -> Option<StreamsError> {
    topology.sub_topologies.iter().zip(&plan.tasks).find_map(|(sub_topology, found)| {
        let of = |topic: &TopicName| counts.get(&*topic.in_application(application)).copied();
        let needed = sub_topology.sources.iter().filter_map(of).max().filter(|needed| needed > found)?;
        let store = topology.stores_of(sub_topology).find(|store| store.logged)?;
        let topic = TopicName::changelog(&store.name).in_application(application);
        Some(StreamsError::InternalTopic { topic, found: *found, needed })
    })
}

fn check_application_id(id: &str) -> Result<(), StreamsError> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    match !id.is_empty() && id.len() <= MAX_APPLICATION_ID_BYTES && id.chars().all(legal) {
        true => Ok(()),
        false => Err(StreamsError::ApplicationId(id.to_owned())),
    }
}

async fn existing_sources(
    topology: &TopologyInner,
    client: &Client,
) -> Result<BTreeMap<String, i32>, StreamsError> {
    let sources = topology.sub_topologies.iter().flat_map(|sub_topology| &sub_topology.sources);
    let names: Vec<&str> = sources
        .filter_map(|topic| match topic {
            TopicName::User(name) => Some(name.as_str()),
            TopicName::Internal(_) => None,
        })
        .collect();
    let mut counts = BTreeMap::new();
    for (name, described) in BTreeMap::from_iter(client.admin().describe_topics(&names).await?) {
        match described {
            Ok(topic) => {
                counts.insert(name.to_string(), i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX));
            }
            // The plan names the topic that is missing.
            Err(error) if error.code() == Some(ErrorCode::UnknownTopicOrPartition) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(counts)
}

fn internal_topics(topology: &TopologyInner, config: &StreamsConfig, plan: &PartitionPlan) -> Vec<NewTopic> {
    let topic = |name: &TopicName, partitions: i32| {
        NewTopic::new(name.in_application(&config.application_id))
            .partitions(partitions)
            .replication(config.replication)
    };
    let mut topics: Vec<NewTopic> = plan
        .repartition
        .iter()
        .map(|(name, partitions)| {
            topic(name, *partitions).config("cleanup.policy", "delete").config("retention.ms", "-1")
        })
        .collect();
    for (sub_topology, tasks) in topology.sub_topologies.iter().zip(&plan.tasks) {
        for store in topology.stores_of(sub_topology).filter(|store| store.logged) {
            let changelog = topic(&TopicName::changelog(&store.name), *tasks);
            topics.push(match store.layout {
                StoreLayout::KeyValue => changelog.config("cleanup.policy", "compact"),
                StoreLayout::Versioned(layout) => {
                    // Versions are records of their own, until the history has gone past them.
                    let lag_ms = layout.history_ms().saturating_add(EXTRA_RETENTION_MS);
                    changelog
                        .config("cleanup.policy", "compact")
                        .config("min.compaction.lag.ms", lag_ms.to_string())
                }
                StoreLayout::Window(layout) => {
                    // A window without an end is kept for ever.
                    let retention_ms = layout.retention_ms().checked_add(EXTRA_RETENTION_MS).unwrap_or(-1);
                    changelog
                        .config("cleanup.policy", "compact,delete")
                        .config("retention.ms", retention_ms.to_string())
                }
            });
        }
    }
    topics
}
