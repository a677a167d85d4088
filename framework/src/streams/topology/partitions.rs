//! How many partitions each topic of the application and each sub-topology has.

use std::collections::BTreeMap;

use thiserror::Error;

use super::{TopicName, TopologyInner};

/// Partition counts of a topology on a given cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PartitionPlan {
    /// Of every repartition topic.
    pub(crate) repartition: BTreeMap<TopicName, i32>,
    /// Tasks of each sub-topology.
    pub(crate) tasks: Vec<i32>,
}

/// The cluster's topics do not fit the topology.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PartitionError {
    /// A topic that the topology reads does not exist.
    #[error("topic `{0}` does not exist; create it before the application starts")]
    MissingTopic(String),
    /// Keys of one store would lie in different tasks.
    #[error(
        "topics that meet in {operators} must have equally many partitions, and {topics}: send one of the streams \
         through `repartition`, which adopts the others' number, or make the topics alike"
    )]
    NotCoPartitioned {
        /// The operators that use the stores.
        operators: String,
        /// The topics with their partitions.
        topics: String,
    },
    /// No upstream tells how many partitions a repartition topic gets.
    #[error("the partitions of `{0}` depend on themselves: say how many with `Repartitioned::partitions`")]
    Undetermined(String),
}

/// Decides the partition counts. `existing` tells those of the user's topics.
pub(crate) fn plan_partitions(
    topology: &TopologyInner,
    existing: &BTreeMap<String, i32>,
) -> Result<PartitionPlan, PartitionError> {
    let mut repartition: BTreeMap<TopicName, i32> = topology
        .graph
        .repartitions
        .iter()
        .filter_map(|(topic, spec)| Some((topic.clone(), spec.partitions?)))
        .collect();
    // A repartition topic joined with a topic of the user adopts its count; otherwise it takes the largest upstream
    // count. Upstream counts may depend on other repartition topics, so this goes round until nothing is new.
    loop {
        let before = repartition.len();
        for sub_topology in &topology.sub_topologies {
            if sub_topology.stores.is_empty() {
                continue;
            }
            let adopted = sub_topology.sources.iter().find_map(|topic| count(topic, existing, &repartition));
            if let Some(adopted) = adopted {
                for topic in &sub_topology.sources {
                    if topology.graph.repartitions.contains_key(topic) && joins_outside(sub_topology, topic) {
                        repartition.entry(topic.clone()).or_insert(adopted);
                    }
                }
            }
        }
        for sub_topology in &topology.sub_topologies {
            let counts: Option<Vec<i32>> =
                sub_topology.sources.iter().map(|topic| count(topic, existing, &repartition)).collect();
            let Some(tasks) = counts.and_then(|counts| counts.into_iter().max()) else { continue };
            for topic in &sub_topology.sinks {
                if topology.graph.repartitions.get(topic).is_some_and(|spec| !spec.adopts) {
                    repartition.entry(topic.clone()).or_insert(tasks);
                }
            }
        }
        if repartition.len() == before {
            break;
        }
    }
    let mut tasks = Vec::new();
    for sub_topology in &topology.sub_topologies {
        let mut counts = Vec::new();
        for topic in &sub_topology.sources {
            let partitions = count(topic, existing, &repartition).ok_or_else(|| match topic {
                TopicName::User(name) => PartitionError::MissingTopic(name.clone()),
                TopicName::Internal(name) => PartitionError::Undetermined(name.clone()),
            })?;
            counts.push((topic, partitions));
        }
        let most = counts.iter().map(|(_, partitions)| *partitions).max().unwrap_or(0);
        if !sub_topology.stores.is_empty() && counts.iter().any(|(_, partitions)| *partitions != most) {
            let list = counts.iter().map(|(topic, partitions)| format!("{topic} has {partitions}"));
            let topics = list.collect::<Vec<_>>().join(", ");
            let nodes = sub_topology.nodes.iter().map(|node| topology.graph.node(*node));
            let users = nodes.filter(|node| !node.stores.is_empty() && !node.parents.is_empty());
            let operators = users.map(|node| format!("`{}`", node.name)).collect::<Vec<_>>().join(", ");
            return Err(PartitionError::NotCoPartitioned { operators, topics });
        }
        tasks.push(most);
    }
    Ok(PartitionPlan { repartition, tasks })
}

fn count(
    topic: &TopicName,
    existing: &BTreeMap<String, i32>,
    planned: &BTreeMap<TopicName, i32>,
) -> Option<i32> {
    match topic {
        TopicName::User(name) => existing.get(name).copied(),
        TopicName::Internal(_) => planned.get(topic).copied(),
    }
}

/// Whether a repartition topic shares its sub-topology with another topic, whose count it must match.
fn joins_outside(sub_topology: &super::SubTopology, topic: &TopicName) -> bool {
    sub_topology.sources.iter().any(|other| other != topic)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::streams::{Repartitioned, StreamsBuilder};

    /// Repartition topics and tasks of sub-topologies.
    type Planned = (Vec<(String, i32)>, Vec<i32>);

    fn plan(
        build: impl FnOnce(&mut StreamsBuilder),
        existing: &[(&str, i32)],
    ) -> Result<Planned, PartitionError> {
        let mut streams = StreamsBuilder::new();
        build(&mut streams);
        let existing = existing.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        let plan = plan_partitions(&streams.build().unwrap().inner, &existing)?;
        let repartition =
            plan.repartition.into_iter().map(|(topic, count)| (topic.to_string(), count)).collect();
        Ok((repartition, plan.tasks))
    }

    fn repartitioned(topics: &[(&str, i32)]) -> Vec<(String, i32)> {
        topics.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    #[test]
    fn a_repartition_topic_has_as_many_partitions_as_what_is_upstream() {
        let count = |streams: &mut StreamsBuilder| {
            let stream = streams.stream::<String, String>(["a", "b"]);
            stream.repartition("one").group_by(|_, value| value.clone()).count("counts");
        };
        let found = plan(count, &[("a", 2), ("b", 5)]).unwrap();
        assert_eq!(
            found,
            (repartitioned(&[("counts-repartition", 5), ("one-repartition", 5)]), vec![5, 5, 5])
        );
    }

    #[test]
    fn what_the_user_says_goes_on_downstream() {
        let build = |streams: &mut StreamsBuilder| {
            let stream = streams
                .stream::<String, String>("a")
                .repartition(Repartitioned::named("wide").partitions(12));
            stream.group_by(|_, value| value.clone()).count("counts");
        };
        let found = plan(build, &[("a", 1)]).unwrap();
        assert_eq!(
            found,
            (repartitioned(&[("counts-repartition", 12), ("wide-repartition", 12)]), vec![1, 12, 12])
        );
    }

    #[test]
    fn what_is_joined_with_a_table_adopts_its_partitions() {
        let build = |streams: &mut StreamsBuilder| {
            let users = streams.table::<String, String>("users");
            let clicks = streams.stream::<String, String>("clicks").select_key(|_, user| user.clone());
            clicks.join(&users, |click, _| click.clone()).to("out");
        };
        let (topics, tasks) = plan(build, &[("users", 3), ("clicks", 8)]).unwrap();
        assert_eq!(topics, repartitioned(&[("clicks.select_key.join.users-table-repartition", 3)]));
        assert_eq!(tasks.iter().copied().max(), Some(8));
    }

    #[test]
    fn s1_6_tables_that_are_joined_have_equally_many_partitions() {
        let join = |streams: &mut StreamsBuilder| {
            let users = streams.table::<String, String>("users");
            let cities = streams.table::<String, String>("cities");
            users.join(&cities, |user, city| format!("{user}{city}")).to_stream().to("out");
        };
        assert_eq!(plan(join, &[("users", 3), ("cities", 3)]).unwrap().1, [3]);
        assert_eq!(
            plan(join, &[("users", 3), ("cities", 8)]),
            Err(PartitionError::NotCoPartitioned {
                operators: "`users.join_left`, `cities.join_right`".to_owned(),
                topics: "cities has 8, users has 3".to_owned(),
            })
        );
    }

    #[test]
    fn s1_6_tables_that_are_joined_by_a_foreign_key_have_as_many_partitions_as_they_like() {
        let join = |streams: &mut StreamsBuilder| {
            let users = streams.table::<String, String>("users");
            let orders = streams.table::<String, String>("orders").group_by(|k, v| (v.clone(), k.clone()));
            let orders = orders.reduce("orders", |_, new| new.clone(), |old, _| old);
            orders.foreign_key_join(&users, "joined", |_, user| user.clone(), |_, user| user.clone());
        };
        let (topics, tasks) = plan(join, &[("users", 5), ("orders", 3)]).unwrap();
        let expected = repartitioned(&[
            ("joined-subscription-registration-topic", 5),
            ("joined-subscription-response-topic", 3),
            ("orders-repartition", 3),
        ]);
        assert_eq!((topics, tasks), (expected, vec![5, 3, 3]));
    }

    #[test]
    fn topics_that_do_not_fit() {
        let join = |streams: &mut StreamsBuilder| {
            let users = streams.table::<String, String>("users");
            streams.stream::<String, String>("clicks").join(&users, |click, _| click.clone()).to("out");
        };
        assert_eq!(
            plan(join, &[("users", 3), ("clicks", 8)]),
            Err(PartitionError::NotCoPartitioned {
                operators: "`clicks.join`".to_owned(),
                topics: "clicks has 8, users has 3".to_owned(),
            })
        );
        assert_eq!(plan(join, &[("users", 3)]), Err(PartitionError::MissingTopic("clicks".to_owned())));
    }
}
