//! How much an application has still to process.

use std::collections::HashMap;
use std::sync::Arc;

use klamm_client::TopicPartition;

use super::error::StreamsError;
use super::shared::Shared;
use crate::streams::topology::TopologyInner;

/// The ends of partitions.
type Ends = HashMap<TopicPartition, i64>;

/// Records between the group's committed offsets and the ends of all topics read.
///
/// Upstream first, and of each topic the end before the commit: an upstream commit says that its outputs are
/// written, so a topic downstream shows them when it is looked at after that. Zero everywhere then means that
/// nothing is left anywhere.
///
/// Where topics form a circle, as those of a foreign-key join do, there is no upstream: what was looked at first may
/// have got more meanwhile. Nothing is left there when a second look finds nothing either, and no topic longer.
pub(super) async fn lag(shared: &Shared) -> Result<u64, StreamsError> {
    let (left, ends) = look(shared).await?;
    if left > 0 || !has_circle(&shared.topology) {
        return Ok(left);
    }
    let (left, later) = look(shared).await?;
    Ok(left.max(grown(&ends, &later)))
}

fn grown(ends: &Ends, later: &Ends) -> u64 {
    let more = |(partition, end): (&TopicPartition, &i64)| end - ends.get(partition).copied().unwrap_or(0);
    u64::try_from(later.iter().map(more).sum::<i64>()).unwrap_or(0)
}

async fn look(shared: &Shared) -> Result<(u64, Ends), StreamsError> {
    let consumer = shared.started().await.ok_or(StreamsError::Closed)?;
    let mut left = 0;
    let mut all = Ends::new();
    let matching = matching(shared).await?;
    for sub_topology in upstream_first(&shared.topology) {
        let (mut partitions, mut ends) = (Vec::new(), HashMap::new());
        let named = shared.topology.sub_topologies[sub_topology].sources.iter();
        let named = named.map(|topic| Arc::from(topic.in_application(shared.group())));
        let matching = matching.iter().filter(|(_, readers)| readers.contains(&sub_topology));
        for name in named.chain(matching.map(|(topic, _)| Arc::clone(topic))) {
            let count = shared.client.partition_count(&name).await?;
            let of_topic: Vec<_> =
                (0..count).map(|partition| TopicPartition::new(Arc::clone(&name), partition)).collect();
            // Not the ends of what is committed: when a commit is answered, its markers may still be on their way.
            ends.extend(shared.ends.end_offsets(&of_topic).await?);
            partitions.extend(of_topic);
        }
        let committed = consumer.committed(&partitions).await?;
        let unread: Vec<_> = partitions.iter().filter(|p| !committed.contains_key(p)).cloned().collect();
        let beginnings = match unread.is_empty() {
            true => Default::default(),
            false => consumer.beginning_offsets(&unread).await?,
        };
        #[expect(clippy::iter_over_hash_type, reason = "it is a sum that is made")]
        for (partition, end) in &ends {
            let committed = committed.get(partition).map(|committed| committed.offset);
            let at = committed.or_else(|| beginnings.get(partition).copied()).unwrap_or(0);
            left += u64::try_from(end - at).unwrap_or(0);
        }
        all.extend(ends);
    }
    if left == 0 {
        // Offsets are committed before the stores are written: who reads a store now must find all of it.
        let mut committing = shared.committing.subscribe();
        committing.wait_for(|workers| *workers == 0).await.map_err(|_| StreamsError::Closed)?;
    }
    Ok((left, all))
}

/// The topics that match patterns, with the sub-topologies that read them.
async fn matching(shared: &Shared) -> Result<Vec<(Arc<str>, Vec<usize>)>, StreamsError> {
    if shared.topology.patterns().next().is_none() {
        return Ok(Vec::new());
    }
    let mut matching = Vec::new();
    for topic in shared.client.admin().list_topics().await? {
        let readers = match shared.readers.contains_key(&topic.name) {
            true => Vec::new(),
            false => shared.topology.pattern_readers(&topic.name, shared.group()),
        };
        if !readers.is_empty() {
            matching.push((topic.name, readers));
        }
    }
    Ok(matching)
}

fn feeds(topology: &TopologyInner, from: usize, to: usize) -> bool {
    let all = &topology.sub_topologies;
    all[to].sources.iter().any(|topic| all[from].sinks.contains(topic))
}

/// Whether a sub-topology reads, over whatever others, what it writes.
fn has_circle(topology: &TopologyInner) -> bool {
    let count = topology.sub_topologies.len();
    (0..count).any(|start| {
        let (mut reached, mut open) = (vec![false; count], vec![start]);
        while let Some(from) = open.pop() {
            for to in (0..count).filter(|to| feeds(topology, from, *to)) {
                if to == start {
                    return true;
                }
                if !std::mem::replace(&mut reached[to], true) {
                    open.push(to);
                }
            }
        }
        false
    })
}

/// Sub-topologies such that those that write a topic come before those that read it; where topics
/// form a circle, as declared.
fn upstream_first(topology: &TopologyInner) -> Vec<usize> {
    let all = &topology.sub_topologies;
    let mut order: Vec<usize> = Vec::new();
    let mut waiting: Vec<usize> = (0..all.len()).collect();
    while !waiting.is_empty() {
        let free = |at: &usize| !waiting.iter().any(|other| other != at && feeds(topology, *other, *at));
        let next = waiting.iter().position(free).unwrap_or(0);
        order.push(waiting.remove(next));
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::streams::StreamsBuilder;

    #[test]
    fn a_foreign_key_join_is_a_circle_and_a_repartition_topic_is_none() {
        let mut streams = StreamsBuilder::new();
        streams.stream::<String, String>("in").group_by(|_, value| value.clone()).count("counts");
        assert!(!has_circle(&streams.build().unwrap().inner));
        let mut streams = StreamsBuilder::new();
        let orders = streams.table::<String, String>("orders");
        let users = streams.table::<String, String>("users");
        orders.foreign_key_join(&users, "of", |_, user| user.clone(), |order, user| format!("{order}{user}"));
        assert!(has_circle(&streams.build().unwrap().inner));
    }

    #[test]
    fn a_topic_that_grew_meanwhile_is_not_caught_up_with() {
        let at = |end| Ends::from([(TopicPartition::new("a", 0), 3), (TopicPartition::new("b", 0), end)]);
        assert_eq!((grown(&at(5), &at(5)), grown(&at(5), &at(7)), grown(&Ends::new(), &at(1))), (0, 2, 4));
    }
}
