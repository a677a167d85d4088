//! The assignor of applications that work exactly once: the range assignor under a name of its own. Members of a group
//! agree on an assignor, so an instance with the other guarantee is refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use klamm_client::{GroupMember, PartitionAssignor, TopicPartition};

/// Per topic, consecutive ranges: members get the same partition numbers of topics with equally many partitions.
#[derive(Debug)]
pub(super) struct ExactlyOnceRange;

impl PartitionAssignor for ExactlyOnceRange {
    fn name(&self) -> &'static str {
        "klamm-streams-exactly-once"
    }

    fn assign(
        &self,
        members: &[GroupMember],
        counts: &BTreeMap<Arc<str>, i32>,
    ) -> BTreeMap<Arc<str>, Vec<TopicPartition>> {
        let mut ids: Vec<&Arc<str>> = members.iter().map(|member| &member.id).collect();
        ids.sort();
        let mut shares: BTreeMap<Arc<str>, Vec<TopicPartition>> =
            ids.iter().map(|id| (Arc::clone(id), Vec::new())).collect();
        let Ok(members) = i32::try_from(ids.len()) else { return shares };
        for (topic, count) in counts {
            let mut next = 0;
            for (index, id) in (0..).zip(&ids) {
                let share = count / members + i32::from(index < count % members);
                let own =
                    (next..next + share).map(|partition| TopicPartition::new(Arc::clone(topic), partition));
                shares.entry(Arc::clone(id)).or_default().extend(own);
                next += share;
            }
        }
        shares
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_shared_out_and_equal_topics_equally() {
        for members in 1..=5_usize {
            let named: Vec<GroupMember> = (0..members)
                .map(|n| {
                    let mut member = GroupMember::default();
                    member.id = format!("m{n}").into();
                    member
                })
                .collect();
            let counts = BTreeMap::from([(Arc::from("a"), 7), (Arc::from("b"), 7), (Arc::from("c"), 1)]);
            let shares = ExactlyOnceRange.assign(&named, &counts);
            let mut all: Vec<_> = shares.values().flatten().cloned().collect();
            all.sort();
            all.dedup();
            assert_eq!((all.len(), shares.values().flatten().count()), (15, 15));
            for share in shares.values() {
                let of = |topic: &str| -> Vec<i32> {
                    share.iter().filter(|p| &*p.topic == topic).map(|p| p.partition).collect()
                };
                assert_eq!(of("a"), of("b"));
            }
        }
    }
}
