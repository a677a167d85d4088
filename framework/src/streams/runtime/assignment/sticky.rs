//! The assignor of applications: whole tasks, where their state is.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use klamm_client::{GroupMember, MemberShare, PartitionAssignor, TopicPartition};
use tokio::sync::watch;

use super::super::fingerprint::of_names;
use super::members::{Candidate, Part, Rules, Work};
use super::plan::plan;
use super::wire::{HostTasks, Orders, Told};
use crate::streams::task::TaskId;
use crate::streams::topology::TopologyInner;

/// Gives tasks to members, and tells them of standbys.
pub(in super::super) struct StickyTasks {
    pub(in super::super) name: &'static str,
    pub(in super::super) topology: Arc<TopologyInner>,
    pub(in super::super) application: Arc<str>,
    /// The sub-topology that reads each topic.
    pub(in super::super) readers: HashMap<Arc<str>, usize>,
    pub(in super::super) rules: Rules,
    /// What this member has to tell.
    pub(in super::super) told: Box<dyn Fn() -> Told + Send + Sync>,
    /// What it is told, in which generation.
    pub(in super::super) orders: watch::Sender<(i32, Orders)>,
}

/// Tells topologies apart whose tasks or stores have other names.
pub(in super::super) fn names_of_tasks(topology: &TopologyInner) -> u64 {
    let mut names = Vec::new();
    for sub_topology in &topology.sub_topologies {
        names.push("sub-topology".to_owned());
        names.extend(sub_topology.sources.iter().map(ToString::to_string));
        names.push("stores".to_owned());
        names.extend(topology.stores_of(sub_topology).map(|store| store.name.to_string()));
    }
    of_names(names.iter().map(String::as_str))
}

/// The partitions of each task, and who could run it.
struct Tasks {
    partitions: BTreeMap<TaskId, Vec<TopicPartition>>,
    work: BTreeMap<TaskId, Work>,
}

impl StickyTasks {
    fn sub_topology_of(&self, topic: &str) -> Option<usize> {
        let named = self.readers.get(topic).copied();
        named.or_else(|| self.topology.pattern_readers(topic, &self.application).first().copied())
    }

    /// Topics that this topology does not know, as another version of it reads them, go by partition: those that the
    /// same members read together.
    fn tasks(&self, members: &[GroupMember], counts: &BTreeMap<Arc<str>, i32>) -> Tasks {
        let readers = |topic: &Arc<str>| -> BTreeSet<usize> {
            let reads = |(_, member): &(usize, &GroupMember)| member.topics.contains(topic);
            members.iter().enumerate().filter(reads).map(|(place, _)| place).collect()
        };
        let mut known: BTreeMap<usize, Vec<&Arc<str>>> = BTreeMap::new();
        let mut strange: BTreeMap<BTreeSet<usize>, Vec<&Arc<str>>> = BTreeMap::new();
        for topic in counts.keys() {
            match self.sub_topology_of(topic) {
                Some(sub_topology) => known.entry(sub_topology).or_default().push(topic),
                None => strange.entry(readers(topic)).or_default().push(topic),
            }
        }
        let mut groups = Vec::new();
        for (sub_topology, topics) in known {
            let all = topics.iter().map(|topic| readers(topic));
            let common = all.reduce(|common, more| &common & &more).unwrap_or_default();
            if common.is_empty() {
                // No version reads all of them.
                topics.into_iter().for_each(|topic| strange.entry(readers(topic)).or_default().push(topic));
            } else {
                let is_logged = |store: &crate::streams::node::StoreSpec| store.logged;
                let part = &self.topology.sub_topologies[sub_topology];
                let stateful = self.topology.stores_of(part).any(is_logged);
                groups.push((sub_topology, topics, common, stateful));
            }
        }
        let names = (0..).map(|number: usize| usize::MAX - number);
        let strange =
            strange.into_iter().zip(names).map(|((readers, topics), name)| (name, topics, readers, false));
        groups.extend(strange);
        let mut tasks = Tasks { partitions: BTreeMap::new(), work: BTreeMap::new() };
        for (sub_topology, topics, readers, stateful) in groups {
            let readers = (readers.len() < members.len()).then_some(readers);
            for topic in topics {
                for partition in 0..counts[topic] {
                    let task = TaskId { sub_topology, partition };
                    let own = TopicPartition::new(Arc::clone(topic), partition);
                    tasks.partitions.entry(task).or_default().push(own);
                    tasks.work.entry(task).or_insert_with(|| Work { stateful, readers: readers.clone() });
                }
            }
        }
        tasks
    }

    fn candidate(&self, member: &GroupMember, told: Option<&Told>) -> Candidate {
        let Some(told) = told else {
            tracing::warn!(member = %member.id, "it does not tell what state it has");
            return Candidate { threads: 1, ..Candidate::default() };
        };
        let same_topology = told.topology == names_of_tasks(&self.topology);
        let mut candidate = Candidate {
            threads: told.threads,
            generation: told.generation,
            same_topology,
            ..Candidate::default()
        };
        if same_topology {
            candidate.ran = told.ran.iter().copied().collect();
            candidate.lags = told.lags.iter().copied().collect();
        }
        candidate
    }
}

impl PartitionAssignor for StickyTasks {
    fn name(&self) -> &str {
        self.name
    }

    fn user_data(&self, _topics: &[Arc<str>]) -> Option<Bytes> {
        Some((self.told)().encode())
    }

    fn assign(
        &self,
        members: &[GroupMember],
        counts: &BTreeMap<Arc<str>, i32>,
    ) -> BTreeMap<Arc<str>, Vec<TopicPartition>> {
        let shares = self.share_out(members, counts).into_iter();
        shares.map(|(member, share)| (member, share.partitions)).collect()
    }

    fn share_out(
        &self,
        members: &[GroupMember],
        counts: &BTreeMap<Arc<str>, i32>,
    ) -> BTreeMap<Arc<str>, MemberShare> {
        let decode = |member: &GroupMember| Told::decode(member.user_data.as_deref()?).ok();
        let mut members: Vec<(GroupMember, Option<Told>)> =
            members.iter().map(|member| (member.clone(), decode(member))).collect();
        // By the names that outlive processes, so that a restart changes nothing.
        members.sort_by_key(|(member, told)| {
            (told.as_ref().map(|told| Arc::clone(&told.process)), Arc::clone(&member.id))
        });
        let (members, told): (Vec<GroupMember>, Vec<Option<Told>>) = members.into_iter().unzip();
        let Tasks { partitions, work } = self.tasks(&members, counts);
        let candidates: Vec<Candidate> =
            members.iter().zip(&told).map(|(member, told)| self.candidate(member, told.as_ref())).collect();
        let parts = plan(&candidates, &work, &self.rules);
        let listed = |tasks: &BTreeSet<TaskId>| tasks.iter().copied().collect::<Vec<_>>();
        let queried = |(part, told): (&Part, &Option<Told>)| {
            let host = told.as_ref()?.host.clone()?;
            Some(HostTasks { host, active: listed(&part.active), standby: listed(&part.standby) })
        };
        let hosts: Vec<HostTasks> = parts.iter().zip(&told).filter_map(queried).collect();
        let share = |(member, part): (&GroupMember, &Part)| {
            let own = part.active.iter().flat_map(|task| &partitions[task]).cloned().collect();
            let (standby, warming) = (listed(&part.standby), listed(&part.warming));
            let orders = Orders { standby, warming, hosts: hosts.clone() };
            let share = MemberShare { partitions: own, user_data: Some(orders.encode()) };
            (Arc::clone(&member.id), share)
        };
        members.iter().zip(&parts).map(share).collect()
    }

    fn on_assignment(&self, share: &MemberShare, generation: i32) {
        let orders = match share.user_data.as_deref().map(Orders::decode) {
            Some(Ok(orders)) => orders,
            Some(Err(error)) => {
                tracing::warn!(application = %self.application, %error, "the leader's orders cannot be read");
                Orders::default()
            }
            None => Orders::default(),
        };
        self.orders.send_replace((generation, orders));
    }
}

impl fmt::Debug for StickyTasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StickyTasks")
            .field("name", &self.name)
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}
