//! Which partitions a reset is about, and where they begin and end.

use std::collections::{BTreeMap, HashMap};

use klamm_client::admin::{OffsetAt, OffsetSpec, PerItem};
use klamm_client::{Admin, TopicPartition};

use super::plan::{Bounds, Target};
use crate::error::CliError;

/// `TOPIC` or `TOPIC:0,1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SomeOfTopic {
    topic: String,
    /// All when there is none.
    partitions: Vec<i32>,
}

/// # Errors
/// It is neither.
pub(crate) fn some_of_topic(text: &str) -> Result<SomeOfTopic, String> {
    let (topic, partitions) = text.split_once(':').map_or((text, None), |(topic, rest)| (topic, Some(rest)));
    let number = |one: &str| match one.parse() {
        Ok(number) if number >= 0 => Ok(number),
        _ => Err("it must be TOPIC, or TOPIC:0,1 with numbers of partitions".to_owned()),
    };
    let partitions = partitions.map(|list| list.split(',').map(number).collect()).transpose()?;
    Ok(SomeOfTopic { topic: topic.to_owned(), partitions: partitions.unwrap_or_default() })
}

/// The partitions that `--topic` names.
pub(crate) async fn of_topics(
    admin: &Admin,
    topics: &[SomeOfTopic],
) -> Result<Vec<TopicPartition>, CliError> {
    if topics.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<&str> = topics.iter().map(|topic| topic.topic.as_str()).collect();
    let described = admin.describe_topics(&names).await?;
    let mut partitions = Vec::new();
    for SomeOfTopic { topic, partitions: some } in topics {
        let description = match described.get(topic.as_str()) {
            Some(Ok(description)) => description,
            Some(Err(error)) => return Err(CliError::about("topic", topic, error)),
            None => continue,
        };
        let there: Vec<i32> = description.partitions.iter().map(|partition| partition.partition).collect();
        if let Some(missing) = some.iter().find(|number| !there.contains(number)) {
            return Err(CliError::failed(format!("topic {topic} has no partition {missing}")));
        }
        let wanted = if some.is_empty() { &there } else { some };
        partitions.extend(wanted.iter().map(|&number| TopicPartition::new(topic.as_str(), number)));
    }
    Ok(partitions)
}

/// Where partitions begin and end, and what a plan needs beside that.
pub(crate) async fn bounds(
    admin: &Admin,
    targets: &BTreeMap<TopicPartition, Target>,
    committed: &HashMap<TopicPartition, i64>,
) -> Result<HashMap<TopicPartition, Result<Bounds, String>>, CliError> {
    let ask = |spec| targets.keys().map(|partition| (partition.clone(), spec)).collect::<HashMap<_, _>>();
    let times = targets.iter().filter_map(|(partition, target)| match target {
        Target::Time(at_ms) => Some((partition.clone(), OffsetSpec::Timestamp(*at_ms))),
        _ => None,
    });
    let times: HashMap<TopicPartition, OffsetSpec> = times.collect();
    let earliest = admin.offsets(&ask(OffsetSpec::Earliest)).await?;
    let latest = admin.offsets(&ask(OffsetSpec::Latest)).await?;
    let at_time = if times.is_empty() { HashMap::new() } else { admin.offsets(&times).await? };
    let offset = |found: &PerItem<TopicPartition, OffsetAt>, at: &TopicPartition| {
        found.get(at).map(|result| match result {
            Ok(found) => Ok(found.offset),
            Err(error) => Err(CliError::about("partition", &at.to_string(), error).to_string()),
        })
    };
    let mut bounds = HashMap::new();
    for partition in targets.keys() {
        let (first, end) = (offset(&earliest, partition), offset(&latest, partition));
        let (Some(first), Some(end)) = (first, end) else { continue };
        let known = || {
            Ok(Bounds {
                committed: committed.get(partition).copied(),
                earliest: first?.unwrap_or(0),
                latest: end?.unwrap_or(0),
                at_time: offset(&at_time, partition).transpose()?.flatten(),
            })
        };
        bounds.insert(partition.clone(), known());
    }
    Ok(bounds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_of_a_topic_are_named_behind_a_colon() {
        let some = |topic: &str, partitions: &[i32]| {
            Ok(SomeOfTopic { topic: topic.to_owned(), partitions: partitions.to_vec() })
        };
        assert_eq!(some_of_topic("t"), some("t", &[]));
        assert_eq!(some_of_topic("t:0,12"), some("t", &[0, 12]));
        for wrong in ["t:", "t:x", "t:-1", "t:1,,2", "t:1-2"] {
            assert!(some_of_topic(wrong).is_err(), "{wrong}");
        }
    }
}
