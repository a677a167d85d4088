//! Topics that an app declares: made at its start where they are missing, grown where they are too small, never
//! shrunk; what differs otherwise is told.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use klamm_client::admin::{ConfigResource, NewPartitions, TopicDescription};
use klamm_client::{AdminError, Client, ErrorCode, NewTopic};

use super::StartError;
use crate::listener::{Listener, RetryTopics, Topics, make_missing};

/// What differs between a topic as an app declares it and as it is, and is left as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TopicDifference {
    /// It has more partitions; taking some away would take their records away.
    MorePartitions {
        /// The topic.
        topic: Arc<str>,
        /// How many were declared.
        declared: i32,
        /// How many there are.
        found: i32,
    },
    /// Its partitions have another number of replicas.
    Replication {
        /// The topic.
        topic: Arc<str>,
        /// How many were declared.
        declared: i16,
        /// How many there are; the least of all partitions.
        found: i16,
    },
    /// A setting has another value.
    Setting {
        /// The topic.
        topic: Arc<str>,
        /// Kafka's name of the setting.
        name: Arc<str>,
        /// What was declared.
        declared: Arc<str>,
        /// What it is; `None` when it is not told.
        found: Option<Arc<str>>,
    },
}

impl fmt::Display for TopicDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MorePartitions { topic, declared, found } => {
                write!(f, "topic {topic} has {found} partitions, more than the {declared} that are declared")
            }
            Self::Replication { topic, declared, found } => {
                write!(f, "topic {topic} has {found} replicas, not {declared} as declared")
            }
            Self::Setting { topic, name, declared, found } => {
                let found = found.as_deref().unwrap_or("unknown");
                write!(f, "topic {topic}: {name} is {found}, not {declared} as declared")
            }
        }
    }
}

/// What is to be done, and what is only to be told.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    create: Vec<NewTopic>,
    /// To so many partitions.
    grow: BTreeMap<Arc<str>, i32>,
    differences: Vec<TopicDifference>,
}

/// How a topic is.
#[derive(Debug, Clone, Default)]
struct Found {
    partitions: i32,
    replication: i16,
    settings: HashMap<Arc<str>, Option<Arc<str>>>,
}

/// Makes and grows topics, and says what differs.
///
/// # Errors
/// A topic cannot be made or grown: that is named.
pub(super) async fn declare(
    client: &Client,
    declared: &[NewTopic],
) -> Result<Vec<TopicDifference>, StartError> {
    if declared.is_empty() {
        return Ok(Vec::new());
    }
    let plan = plan(declared, &look(client, declared).await?);
    let admin = client.admin();
    if !plan.create.is_empty() {
        let created = admin.create_topics(&plan.create).await.map_err(StartError::Topic)?;
        told(created.into_iter(), |code| code == ErrorCode::TopicAlreadyExists)?;
    }
    if !plan.grow.is_empty() {
        let wanted = plan.grow.iter().map(|(topic, total)| (Arc::clone(topic), NewPartitions::total(*total)));
        let grown = admin.create_partitions(&wanted.collect()).await.map_err(StartError::Topic)?;
        // Another instance, which starts at the same time, was faster.
        told(grown.into_iter(), |code| code == ErrorCode::InvalidPartitions)?;
    }
    for difference in &plan.differences {
        tracing::warn!("{difference}");
    }
    Ok(plan.differences)
}

/// Makes the retry topics of listeners whose topics there are already; others are made when they are needed.
///
/// # Errors
/// A topic cannot be made: that is named.
pub(super) async fn make_retry_topics(client: &Client, listeners: &[Listener]) -> Result<(), StartError> {
    for listener in listeners {
        let settings = &listener.settings;
        let retries = RetryTopics::new(&settings.group, settings.policy.steps());
        let Topics::Names(names) = &settings.topics else { continue };
        for source in names {
            make_missing(client, &retries, source).await.map_err(StartError::Topic)?;
        }
    }
    Ok(())
}

fn told(
    results: impl Iterator<Item = (Arc<str>, Result<(), AdminError>)>,
    is_fine: impl Fn(ErrorCode) -> bool,
) -> Result<(), StartError> {
    for result in BTreeMap::from_iter(results).into_values() {
        match result {
            Err(error) if !error.code().is_some_and(&is_fine) => return Err(StartError::Topic(error)),
            _ => {}
        }
    }
    Ok(())
}

/// The declared topics that there are.
async fn look(client: &Client, declared: &[NewTopic]) -> Result<HashMap<Arc<str>, Found>, StartError> {
    let admin = client.admin();
    let names: Vec<Arc<str>> = declared.iter().map(|topic| Arc::clone(&topic.name)).collect();
    let described = admin.describe_topics(&names).await.map_err(StartError::Topic)?;
    let mut found = HashMap::new();
    for (topic, described) in BTreeMap::from_iter(described) {
        match described {
            Ok(description) => drop(found.insert(topic, Found::of(&description))),
            Err(error) if error.code() == Some(ErrorCode::UnknownTopicOrPartition) => {}
            Err(error) => return Err(StartError::Topic(error)),
        }
    }
    let with_settings =
        declared.iter().filter(|topic| !topic.configs.is_empty() && found.contains_key(&topic.name));
    let resources: Vec<_> =
        with_settings.map(|topic| ConfigResource::topic(Arc::clone(&topic.name))).collect();
    if !resources.is_empty() {
        // Who may not look at settings may use the topics all the same.
        let settings = admin.describe_configs(&resources).await.unwrap_or_default();
        for resource in &resources {
            let (Some(Ok(entries)), Some(found)) = (settings.get(resource), found.get_mut(&resource.name))
            else {
                continue;
            };
            found.settings.extend(entries.iter().map(|entry| (Arc::clone(&entry.name), entry.value.clone())));
        }
    }
    Ok(found)
}

impl Found {
    fn of(description: &TopicDescription) -> Self {
        let replicas = description.partitions.iter().map(|partition| partition.replicas.len());
        Self {
            partitions: i32::try_from(description.partitions.len()).unwrap_or(i32::MAX),
            replication: replicas.min().and_then(|least| i16::try_from(least).ok()).unwrap_or(0),
            settings: HashMap::new(),
        }
    }
}

fn plan(declared: &[NewTopic], found: &HashMap<Arc<str>, Found>) -> Plan {
    let mut plan = Plan::default();
    for wanted in declared {
        let topic = || Arc::clone(&wanted.name);
        let Some(found) = found.get(&wanted.name) else {
            plan.create.push(wanted.clone());
            continue;
        };
        let by_hand = wanted.assignments.iter().map(Vec::len).min();
        let partitions = match wanted.assignments.len() {
            0 => wanted.partitions,
            count => i32::try_from(count).unwrap_or(i32::MAX),
        };
        let replication = by_hand.and_then(|least| i16::try_from(least).ok()).unwrap_or(wanted.replication);
        // -1 leaves it to the broker.
        if partitions > found.partitions {
            plan.grow.insert(topic(), partitions);
        } else if partitions > 0 && partitions < found.partitions {
            let (declared, found) = (partitions, found.partitions);
            plan.differences.push(TopicDifference::MorePartitions { topic: topic(), declared, found });
        }
        if replication > 0 && replication != found.replication {
            let (declared, found) = (replication, found.replication);
            plan.differences.push(TopicDifference::Replication { topic: topic(), declared, found });
        }
        for (name, declared) in &wanted.configs {
            let there = found.settings.get(name.as_str());
            if let Some(there) = there.filter(|there| there.as_deref() != Some(declared)) {
                let (name, declared, found) = (name.as_str().into(), declared.as_str().into(), there.clone());
                plan.differences.push(TopicDifference::Setting { topic: topic(), name, declared, found });
            }
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(partitions: i32, replication: i16, settings: &[(&str, &str)]) -> Found {
        let settings = settings.iter().map(|(name, value)| (Arc::from(*name), Some(Arc::from(*value))));
        Found { partitions, replication, settings: settings.collect() }
    }

    fn planned(declared: NewTopic, found: Found) -> Plan {
        plan(&[declared], &[(Arc::from("t"), found)].into())
    }

    #[test]
    fn what_is_missing_is_made_and_what_is_small_grows() {
        let declared = [NewTopic::new("t").partitions(3), NewTopic::new("u")];
        let plan = plan(&declared, &[(Arc::from("t"), found(2, 1, &[]))].into());
        assert_eq!(plan.create, declared[1..]);
        assert_eq!(plan.grow, [(Arc::from("t"), 3)].into());
        assert!(plan.differences.is_empty());
    }

    #[test]
    fn what_the_broker_decides_does_not_differ() {
        assert_eq!(planned(NewTopic::new("t"), found(7, 3, &[("retention.ms", "5")])), Plan::default());
        let exact = NewTopic::new("t").partitions(7).replication(3).config("retention.ms", "5");
        assert_eq!(planned(exact, found(7, 3, &[("retention.ms", "5")])), Plan::default());
        let by_hand = NewTopic::new("t").on_brokers(vec![vec![1, 2], vec![2, 1]]);
        assert_eq!(planned(by_hand, found(2, 2, &[])), Plan::default());
    }

    #[test]
    fn nothing_is_taken_away_but_it_is_told() {
        let declared = NewTopic::new("t").partitions(2).replication(3).config("retention.ms", "9");
        let plan = planned(declared, found(4, 1, &[("retention.ms", "5")]));
        assert!(plan.create.is_empty() && plan.grow.is_empty());
        let told: Vec<String> = plan.differences.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "topic t has 4 partitions, more than the 2 that are declared",
                "topic t has 1 replicas, not 3 as declared",
                "topic t: retention.ms is 5, not 9 as declared",
            ]
        );
    }
}
