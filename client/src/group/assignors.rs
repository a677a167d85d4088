//! How a group's leader shares out partitions. Pure: members and partition counts in, assignments out.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::protocol::MemberSubscription;
use crate::types::TopicPartition;

/// How a group's leader shares out partitions (`partition.assignment.strategy`). The group uses one that all members
/// offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Assignor {
    /// Per topic, consecutive ranges. Eager.
    Range,
    /// Partitions dealt out in turn. Eager.
    RoundRobin,
    /// Balanced, moving as little as possible. Eager.
    Sticky,
    /// Balanced, moving as little as possible; what stays keeps being consumed during the rebalance (KIP-429).
    #[default]
    CooperativeSticky,
}

impl Assignor {
    /// The name that group members know it by.
    pub fn name(self) -> &'static str {
        match self {
            Self::Range => "range",
            Self::RoundRobin => "roundrobin",
            Self::Sticky => "sticky",
            Self::CooperativeSticky => "cooperative-sticky",
        }
    }
}

/// A member as the leader sees it.
#[derive(Debug, Clone)]
pub(crate) struct MemberView {
    pub(crate) id: Arc<str>,
    pub(crate) instance_id: Option<Arc<str>>,
    pub(crate) subscription: MemberSubscription,
}

/// What each member gets, by member id.
pub(crate) type Assignment = BTreeMap<Arc<str>, Vec<TopicPartition>>;

/// Shares out all partitions of the topics that members subscribe to. `counts` has the number of
/// partitions of each existing topic.
pub(crate) fn assign(
    assignor: Assignor,
    members: &[MemberView],
    counts: &BTreeMap<Arc<str>, i32>,
) -> Assignment {
    let mut members: Vec<&MemberView> = members.iter().collect();
    // Static members first and by their lasting names, as in Kafka, so that a restart changes nothing.
    members.sort_by_key(|member| {
        (member.instance_id.is_none(), member.instance_id.clone(), Arc::clone(&member.id))
    });
    let mut assignment: Assignment =
        members.iter().map(|member| (Arc::clone(&member.id), Vec::new())).collect();
    match assignor {
        Assignor::Range => range(&members, counts, &mut assignment),
        Assignor::RoundRobin => round_robin(&members, counts, &mut assignment),
        Assignor::Sticky => {
            let shares = Sticky::balanced(&members, counts);
            for (member, share) in members.iter().zip(shares) {
                assignment.insert(Arc::clone(&member.id), share.into_iter().collect());
            }
        }
        Assignor::CooperativeSticky => {
            for (id, partitions) in cooperative(&members, counts) {
                assignment.insert(id, partitions);
            }
        }
    }
    assignment.values_mut().for_each(|partitions| partitions.sort_unstable());
    assignment
}

fn subscribes(member: &MemberView, topic: &str) -> bool {
    member.subscription.topics.iter().any(|subscribed| **subscribed == *topic)
}

/// Per topic, each member gets a run of partitions; the first ones get one more when they do not divide evenly.
fn range(members: &[&MemberView], counts: &BTreeMap<Arc<str>, i32>, assignment: &mut Assignment) {
    for (topic, &count) in counts {
        let takers: Vec<&&MemberView> = members.iter().filter(|member| subscribes(member, topic)).collect();
        let Ok(taker_count) = i32::try_from(takers.len()) else { continue };
        if taker_count == 0 {
            continue;
        }
        let (each, extra) = (count / taker_count, count % taker_count);
        let mut next = 0;
        for (at, taker) in (0..).zip(takers) {
            let run = each + i32::from(at < extra);
            let partitions =
                (next..next + run).map(|partition| TopicPartition::new(Arc::clone(topic), partition));
            assignment.entry(Arc::clone(&taker.id)).or_default().extend(partitions);
            next += run;
        }
    }
}

/// All partitions are dealt out in turn; members that do not subscribe to a topic are passed over.
fn round_robin(members: &[&MemberView], counts: &BTreeMap<Arc<str>, i32>, assignment: &mut Assignment) {
    let mut turn = 0;
    for (topic, &count) in counts {
        for partition in 0..count {
            let Some(step) =
                (0..members.len()).find(|step| subscribes(members[(turn + step) % members.len()], topic))
            else {
                break;
            };
            let taker = (turn + step) % members.len();
            let partition = TopicPartition::new(Arc::clone(topic), partition);
            assignment.entry(Arc::clone(&members[taker].id)).or_default().push(partition);
            turn = taker + 1;
        }
    }
}

/// A balanced assignment that keeps what it can; then, as KIP-429 asks, partitions that move are taken from everybody
/// in this round: their new owner gets them in the next, when the old one has let go.
fn cooperative(members: &[&MemberView], counts: &BTreeMap<Arc<str>, i32>) -> Assignment {
    let shares = Sticky::balanced(members, counts);
    let mut assignment = Assignment::new();
    for (at, (member, share)) in members.iter().zip(shares).enumerate() {
        let free = |partition: &&TopicPartition| {
            member.subscription.owned.contains(partition) || !claimed_by_another(members, at, partition)
        };
        let gets = share.iter().filter(free);
        assignment.insert(Arc::clone(&member.id), gets.cloned().collect());
    }
    assignment
}

fn claimed_by_another(members: &[&MemberView], at: usize, partition: &TopicPartition) -> bool {
    members
        .iter()
        .enumerate()
        .any(|(other, member)| other != at && member.subscription.owned.contains(partition))
}

struct Sticky<'a> {
    members: &'a [&'a MemberView],
    counts: &'a BTreeMap<Arc<str>, i32>,
    /// By topic, the members that subscribe to it.
    takers: HashMap<Arc<str>, Vec<usize>>,
    shares: Vec<BTreeSet<TopicPartition>>,
}

impl<'a> Sticky<'a> {
    /// Fair shares, by member, that keep what they can.
    fn balanced(
        members: &'a [&'a MemberView],
        counts: &'a BTreeMap<Arc<str>, i32>,
    ) -> Vec<BTreeSet<TopicPartition>> {
        let mut sticky = Self::new(members, counts);
        let owners = sticky.owners();
        sticky.keep(&owners);
        sticky.fill();
        sticky.balance();
        sticky.shares
    }

    fn new(members: &'a [&'a MemberView], counts: &'a BTreeMap<Arc<str>, i32>) -> Self {
        let takers = counts.keys().map(|topic| {
            let takers = members.iter().enumerate().filter(|(_, member)| subscribes(member, topic));
            (Arc::clone(topic), takers.map(|(at, _)| at).collect())
        });
        Self { members, counts, takers: takers.collect(), shares: vec![BTreeSet::new(); members.len()] }
    }

    /// Who owned a partition last. Of two that claim it the later generation is right; of the same
    /// generation neither is trusted.
    fn owners(&self) -> BTreeMap<TopicPartition, usize> {
        let mut claims: HashMap<&TopicPartition, (i32, Option<usize>)> = HashMap::new();
        for (at, member) in self.members.iter().enumerate() {
            let generation = member.subscription.generation;
            for partition in &member.subscription.owned {
                let claim = claims.entry(partition).or_insert((generation, Some(at)));
                if claim.1 == Some(at) {
                    continue;
                }
                match generation.cmp(&claim.0) {
                    std::cmp::Ordering::Greater => *claim = (generation, Some(at)),
                    std::cmp::Ordering::Equal => claim.1 = None,
                    std::cmp::Ordering::Less => {}
                }
            }
        }
        claims.into_iter().filter_map(|(partition, (_, owner))| Some((partition.clone(), owner?))).collect()
    }

    /// Everybody keeps what exists and is still wanted.
    fn keep(&mut self, owners: &BTreeMap<TopicPartition, usize>) {
        for (partition, &owner) in owners {
            let exists = self
                .counts
                .get(&partition.topic)
                .is_some_and(|&count| (0..count).contains(&partition.partition));
            if exists && subscribes(self.members[owner], &partition.topic) {
                self.shares[owner].insert(partition.clone());
            }
        }
    }

    /// What nobody has goes to the least loaded, topics with the fewest takers first, because
    /// those have the least choice.
    fn fill(&mut self) {
        let taken: BTreeSet<TopicPartition> = self.shares.iter().flatten().cloned().collect();
        let mut topics: Vec<(&Arc<str>, i32)> =
            self.counts.iter().map(|(topic, &count)| (topic, count)).collect();
        topics.sort_by_key(|(topic, _)| self.takers.get(*topic).map_or(0, Vec::len));
        for (topic, count) in topics {
            for partition in (0..count).map(|partition| TopicPartition::new(Arc::clone(topic), partition)) {
                if !taken.contains(&partition)
                    && let Some(taker) = self.least_loaded(topic)
                {
                    self.shares[taker].insert(partition);
                }
            }
        }
    }

    fn least_loaded(&self, topic: &str) -> Option<usize> {
        self.takers.get(topic)?.iter().copied().min_by_key(|&at| (self.shares[at].len(), at))
    }

    /// Moves single partitions from members to others that have at least two fewer, until there are none. Each move
    /// makes the sum of squared shares smaller, so it ends.
    fn balance(&mut self) {
        while let Some((from, to, partition)) = self.unfair() {
            self.shares[from].remove(&partition);
            self.shares[to].insert(partition);
        }
    }

    fn unfair(&self) -> Option<(usize, usize, TopicPartition)> {
        let mut by_load: Vec<usize> = (0..self.members.len()).collect();
        by_load.sort_by_key(|&at| std::cmp::Reverse(self.shares[at].len()));
        for from in by_load {
            let mut topics_seen = BTreeSet::new();
            // From the back: what came last stays least.
            for partition in self.shares[from].iter().rev() {
                if !topics_seen.insert(&partition.topic) {
                    continue;
                }
                if let Some(to) = self.least_loaded(&partition.topic)
                    && self.shares[to].len() + 1 < self.shares[from].len()
                {
                    return Some((from, to, partition.clone()));
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn member(id: &str, topics: &[&str], owned: &[TopicPartition], generation: i32) -> MemberView {
        let topics = topics.iter().map(|&topic| Arc::from(topic)).collect();
        let subscription =
            MemberSubscription { topics, owned: owned.to_vec(), generation, ..Default::default() };
        MemberView { id: id.into(), instance_id: None, subscription }
    }

    fn counts(topics: &[(&str, i32)]) -> BTreeMap<Arc<str>, i32> {
        topics.iter().map(|&(topic, count)| (topic.into(), count)).collect()
    }

    fn shown(assignment: &Assignment) -> String {
        let lines = assignment.iter().map(|(id, partitions)| {
            let partitions: Vec<String> = partitions.iter().map(ToString::to_string).collect();
            format!("{id}: {}", partitions.join(" "))
        });
        lines.collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn range_gives_the_first_members_more() {
        let members = [member("b", &["t", "u"], &[], -1), member("a", &["t"], &[], -1)];
        let assignment = assign(Assignor::Range, &members, &counts(&[("t", 3), ("u", 2)]));
        assert_eq!(shown(&assignment), "a: t-0 t-1; b: t-2 u-0 u-1");
    }

    #[test]
    fn round_robin_passes_over_those_who_do_not_subscribe() {
        let members = [member("a", &["t"], &[], -1), member("b", &["t", "u"], &[], -1)];
        let assignment = assign(Assignor::RoundRobin, &members, &counts(&[("t", 3), ("u", 2)]));
        assert_eq!(shown(&assignment), "a: t-0 t-2; b: t-1 u-0 u-1");
    }

    #[test]
    fn static_members_come_first_by_their_names() {
        let mut members = [member("z", &["t"], &[], -1), member("a", &["t"], &[], -1)];
        members[0].instance_id = Some("x".into());
        let assignment = assign(Assignor::Range, &members, &counts(&[("t", 1)]));
        assert_eq!(shown(&assignment), "a: ; z: t-0");
    }

    #[test]
    fn a_moving_partition_is_first_taken_and_then_given() {
        let owned: Vec<TopicPartition> = (0..4).map(|at| ("t", at).into()).collect();
        let all = counts(&[("t", 4)]);
        let first = assign(
            Assignor::CooperativeSticky,
            &[member("a", &["t"], &owned, 1), member("b", &["t"], &[], -1)],
            &all,
        );
        assert_eq!(shown(&first), "a: t-0 t-1; b: ");
        let second = assign(
            Assignor::CooperativeSticky,
            &[member("a", &["t"], &owned[..2], 2), member("b", &["t"], &[], 2)],
            &all,
        );
        assert_eq!(shown(&second), "a: t-0 t-1; b: t-2 t-3");
    }

    #[test]
    fn a_stale_claim_loses() {
        let claim: Vec<TopicPartition> = vec![("t", 0).into()];
        let members = [member("old", &["t"], &claim, 1), member("new", &["t"], &claim, 2)];
        let assignment = assign(Assignor::CooperativeSticky, &members, &counts(&[("t", 1)]));
        assert_eq!(shown(&assignment), "new: t-0; old: ");
    }

    /// Two members that claim the same in the same generation: one of them is wrong, and nobody can say which.
    #[test]
    fn equal_claims_count_for_nobody() {
        let claim: Vec<TopicPartition> = vec![("t", 0).into(), ("t", 1).into()];
        let members = [member("a", &["t"], &claim, 5), member("b", &["t"], &claim, 5)];
        let assignment = assign(Assignor::CooperativeSticky, &members, &counts(&[("t", 3)]));
        assert_eq!(shown(&assignment), "a: t-0 t-2; b: t-1");
    }

    #[test]
    fn what_is_gone_or_no_longer_wanted_is_not_kept() {
        let owned: Vec<TopicPartition> =
            vec![("t", 0).into(), ("t", 2).into(), ("t", -1).into(), ("u", 0).into(), ("gone", 0).into()];
        let members = [member("a", &["t", "gone"], &owned, 1), member("b", &["u"], &[], 1)];
        let all = counts(&[("t", 2), ("u", 1)]);
        let first = assign(Assignor::CooperativeSticky, &members, &all);
        assert_eq!(shown(&first), "a: t-0 t-1; b: ", "u-0 is first taken from a");
        let members = [member("a", &["t", "gone"], &owned[..1], 2), member("b", &["u"], &[], 2)];
        assert_eq!(shown(&assign(Assignor::CooperativeSticky, &members, &all)), "a: t-0 t-1; b: u-0");
    }

    #[test]
    fn nobody_gets_what_nobody_subscribes_to() {
        let members = [member("a", &["t"], &[], -1)];
        for assignor in [Assignor::Range, Assignor::RoundRobin, Assignor::CooperativeSticky] {
            let assignment = assign(assignor, &members, &counts(&[("t", 1), ("u", 3)]));
            assert_eq!(shown(&assignment), "a: t-0");
            assert_eq!(assign(assignor, &[], &counts(&[("t", 1)])), Assignment::new());
        }
    }

    /// Runs rebalances as members would, until nothing moves.
    fn settle(members: &mut [MemberView], counts: &BTreeMap<Arc<str>, i32>) -> (Assignment, usize) {
        for round in 1..=4 {
            let assignment = assign(Assignor::CooperativeSticky, members, counts);
            let mut moved = false;
            for member in members.iter_mut() {
                let gets = &assignment[&member.id];
                moved |= member.subscription.owned.iter().any(|partition| !gets.contains(partition));
                member.subscription.owned.clone_from(gets);
                member.subscription.generation = round;
            }
            if !moved {
                return (assignment, round as usize);
            }
        }
        (Assignment::new(), usize::MAX)
    }

    fn check_complete(assignment: &Assignment, members: &[MemberView], counts: &BTreeMap<Arc<str>, i32>) {
        let mut seen = BTreeSet::new();
        for (id, partitions) in assignment {
            let member = members.iter().find(|member| member.id == *id).unwrap();
            for partition in partitions {
                assert!(subscribes(member, &partition.topic));
                assert!(seen.insert(partition.clone()), "{partition} twice");
            }
        }
        let wanted =
            counts.iter().filter(|(topic, _)| members.iter().any(|member| subscribes(member, topic)));
        assert_eq!(seen.len(), wanted.map(|(_, &count)| count as usize).sum::<usize>());
    }

    fn any_members() -> impl Strategy<Value = Vec<Vec<bool>>> {
        prop::collection::vec(prop::collection::vec(any::<bool>(), 3), 1..6)
    }

    fn build(wants: &[Vec<bool>]) -> Vec<MemberView> {
        let topics = ["t", "u", "v"];
        let subscribed = |wants: &Vec<bool>| {
            topics
                .iter()
                .zip(wants)
                .filter(|(_, wanted)| **wanted)
                .map(|(topic, _)| *topic)
                .collect::<Vec<_>>()
        };
        wants
            .iter()
            .enumerate()
            .map(|(at, wants)| member(&format!("m{at}"), &subscribed(wants), &[], -1))
            .collect()
    }

    proptest! {
        #[test]
        fn every_partition_has_exactly_one_owner(
            wants in any_members(), partitions in prop::collection::vec(0..12_i32, 3),
        ) {
            let counts = counts(&[("t", partitions[0]), ("u", partitions[1]), ("v", partitions[2])]);
            let mut members = build(&wants);
            for assignor in [Assignor::Range, Assignor::RoundRobin] {
                check_complete(&assign(assignor, &members, &counts), &members, &counts);
            }
            let (assignment, _) = settle(&mut members, &counts);
            check_complete(&assignment, &members, &counts);
        }

        #[test]
        fn sticky_balances_within_one_and_moves_no_more_than_it_must(
            count in 1..5_usize, joining in 0..3_usize, partitions in 0..30_i32,
        ) {
            let counts = counts(&[("t", partitions)]);
            let all = |count: usize| build(&vec![vec![true, false, false]; count]);
            let mut members = all(count);
            let (before, _) = settle(&mut members, &counts);
            let mut newcomers = all(count + joining).split_off(count);
            members.append(&mut newcomers);
            let (after, rounds) = settle(&mut members, &counts);
            prop_assert!(rounds <= 2 || joining > 0);
            let sizes: Vec<usize> = after.values().map(Vec::len).collect();
            prop_assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1);
            // What moved is what the newcomers have, and nothing else.
            let kept: usize = before
                .iter()
                .map(|(id, partitions)| partitions.iter().filter(|partition| after[id].contains(partition)).count())
                .sum();
            let gained: usize =
                after.iter().filter(|(id, _)| !before.contains_key(*id)).map(|(_, got)| got.len()).sum();
            prop_assert_eq!(kept + gained, partitions as usize);
        }
    }
}
