//! The topology as data: nodes, edges, stores and topics, grouped into sub-topologies. It can be
//! described, checked and run.

mod describe;
mod document;
mod drawing;
mod fingerprint;
mod graph;
mod partitions;
mod pattern;
mod topic_pattern;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use klamm_client::OffsetReset;

use super::error::TopologyError;
use super::node::{RoutedTopics, StoreSpec, TopicId};
use super::policy::ErrorPolicy;

pub use describe::{NodeDescription, SubTopologyDescription, TopologyDescription};
pub use document::NotATopology;
pub use fingerprint::{Fingerprint, Migration, Orphan};
pub(crate) use graph::{GlobalTable, Graph, NodeId, NodeKind, TopicName};
pub use partitions::PartitionError;
pub(crate) use partitions::{PartitionPlan, plan_partitions};
pub(crate) use topic_pattern::{Pattern, is_internal};

/// What an application does, as data: built by [`StreamsBuilder`](crate::streams::StreamsBuilder), run by
/// [`start`](Topology::start), or by [`TopologyTestDriver`](crate::streams::TopologyTestDriver) without a broker.
#[derive(Debug, Clone)]
pub struct Topology {
    pub(crate) inner: Arc<TopologyInner>,
}

#[derive(Debug, Clone)]
pub(crate) struct TopologyInner {
    pub(crate) graph: Graph,
    pub(crate) sub_topologies: Vec<SubTopology>,
    /// Every topic that is read, written or a changelog.
    pub(crate) topics: Vec<TopicName>,
    pub(crate) topic_ids: HashMap<TopicName, TopicId>,
}

/// Nodes that are connected by edges or shared stores. Each runs as one task per partition.
#[derive(Debug, Clone)]
pub(crate) struct SubTopology {
    pub(crate) nodes: Vec<NodeId>,
    pub(crate) sources: Vec<TopicName>,
    pub(crate) sinks: BTreeSet<TopicName>,
    pub(crate) stores: Vec<String>,
}

impl Topology {
    pub(crate) fn new(mut graph: Graph) -> Result<Self, TopologyError> {
        if let Some(error) = graph.errors.first() {
            return Err(error.clone());
        }
        if !graph.nodes.iter().any(|node| matches!(node.kind, NodeKind::Source { .. })) {
            return Err(TopologyError::NoSource);
        }
        check_readers(&graph)?;
        graph.check_named_children()?;
        let sub_topologies = divide(&graph);
        pattern::check(&graph, &sub_topologies)?;
        let mut topics = BTreeSet::new();
        for sub_topology in &sub_topologies {
            topics.extend(sub_topology.sources.iter().cloned());
            topics.extend(sub_topology.sinks.iter().cloned());
        }
        topics.extend(graph.stores.keys().map(|store| TopicName::changelog(store)));
        topics.extend(graph.globals.keys().cloned().map(TopicName::User));
        let nodes = (0..graph.nodes.len()).map(NodeId);
        let letters = nodes.filter_map(|node| graph.policy_of(node).dead_letter_topic());
        topics.extend(letters.map(|topic| TopicName::User(topic.to_owned())));
        let topics: Vec<_> = topics.into_iter().collect();
        let topic_ids: HashMap<_, _> =
            (0..).map(TopicId).zip(&topics).map(|(id, topic)| (topic.clone(), id)).collect();
        let of_user = topic_ids.iter().filter_map(|(topic, id)| match topic {
            TopicName::User(name) => Some((name.clone(), *id)),
            TopicName::Internal(_) => None,
        });
        let count = u32::try_from(topics.len()).unwrap_or(u32::MAX);
        graph.routed = Arc::new(RoutedTopics::beside(of_user.collect(), count));
        Ok(Self { inner: Arc::new(TopologyInner { graph, sub_topologies, topics, topic_ids }) })
    }

    /// The same, with a policy for the operators that have none of their own.
    pub(crate) fn with_default_policy(&self, policy: &ErrorPolicy) -> Result<Self, TopologyError> {
        let mut graph = self.inner.graph.afresh();
        graph.default_policy = Arc::new(policy.clone());
        Self::new(graph)
    }

    /// The sub-topologies with their nodes, stores and topics; prints in the manner of Kafka's `Topology#describe`. The
    /// same program gives the same text.
    ///
    /// [`TopologyDescription::to_json`] gives it as a document, which `klamm streams describe` reads, and
    /// [`TopologyDescription::to_svg`] as a picture.
    pub fn describe(&self) -> TopologyDescription {
        TopologyDescription::of(&self.inner)
    }

    /// What its state depends on. A running application keeps it beside its state and refuses to start if the topology
    /// has changed so that state would be orphaned, unless a [`Migration`] says that it may.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.inner)
    }
}

impl TopologyInner {
    /// A store by its name.
    pub(crate) fn store(&self, name: &str) -> Option<&StoreSpec> {
        let mut globals = self.graph.globals.values().map(|table| &table.spec);
        self.graph.stores.get(name).or_else(|| globals.find(|spec| &*spec.name == name))
    }

    /// The name of a topic in the description: without the application's id.
    pub(crate) fn topic_name(&self, id: TopicId) -> String {
        match self.topics.get(id.0 as usize) {
            Some(topic) => topic.to_string(),
            None => self.graph.routed.name(id).map_or_else(String::new, |name| name.to_string()),
        }
    }

    /// The names of the topics of application `application_id`, by id.
    pub(crate) fn topic_names(&self, application_id: &str) -> Vec<Arc<str>> {
        self.topics.iter().map(|topic| topic.in_application(application_id).into()).collect()
    }

    /// Where to begin with topics that match a pattern, if not at the oldest record.
    pub(crate) fn pattern_resets(&self) -> Vec<(Pattern, OffsetReset)> {
        let reset = |node: &graph::Node| Some((node.pattern.clone()?, node.offset_reset?));
        self.graph.nodes.iter().filter_map(reset).collect()
    }

    /// Where to begin with topics that are not to be read from the oldest record.
    pub(crate) fn offset_resets(&self) -> BTreeMap<String, OffsetReset> {
        let mut resets = BTreeMap::new();
        for node in &self.graph.nodes {
            if let (NodeKind::Source { topics, .. }, Some(reset)) = (&node.kind, node.offset_reset) {
                resets.extend(topics.iter().map(|topic| (topic.to_string(), reset)));
            }
        }
        resets
    }

    /// The topics that are written, without the application's id; `None` if records choose some of them.
    pub(crate) fn written_topics(&self) -> Option<BTreeSet<String>> {
        let mut written = BTreeSet::new();
        for (index, node) in self.graph.nodes.iter().enumerate() {
            if let NodeKind::Sink { topic, .. } = &node.kind {
                written.insert(topic.as_ref()?.to_string());
            }
            written.extend(self.graph.policy_of(NodeId(index)).dead_letter_topic().map(str::to_owned));
        }
        let logged = self.graph.stores.values().filter(|store| store.logged);
        written.extend(logged.map(|store| TopicName::changelog(&store.name).to_string()));
        Some(written)
    }

    pub(crate) fn stores_of<'a>(
        &'a self,
        sub_topology: &'a SubTopology,
    ) -> impl Iterator<Item = &'a StoreSpec> {
        sub_topology.stores.iter().filter_map(|name| self.graph.stores.get(name))
    }

    pub(crate) fn known_stores(&self) -> String {
        let globals = self.graph.globals.values().map(|table| table.spec.name.to_string());
        let names: Vec<String> = self.graph.stores.keys().cloned().chain(globals).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    }
}

/// A topic is read once, however many sources it has: its records have one time, and there is one place to begin.
fn check_readers(graph: &Graph) -> Result<(), TopologyError> {
    let mut readers: BTreeMap<&TopicName, Vec<&graph::Node>> = BTreeMap::new();
    for node in &graph.nodes {
        if let NodeKind::Source { topics, .. } = &node.kind {
            topics.iter().for_each(|topic| readers.entry(topic).or_default().push(node));
        }
    }
    for (topic, nodes) in readers {
        let topic = topic.to_string();
        let sources = || nodes.iter().map(|node| format!("`{}`", node.name)).collect::<Vec<_>>().join(", ");
        if nodes.len() > 1 && nodes.iter().any(|node| node.stamping.is_some()) {
            return Err(TopologyError::TimesDiffer { topic, sources: sources() });
        }
        let reset = nodes.first().and_then(|node| node.offset_reset);
        if nodes.iter().any(|node| node.offset_reset != reset) {
            return Err(TopologyError::ResetsDiffer { topic, sources: sources() });
        }
    }
    Ok(())
}

/// Groups nodes that must run in one task: those joined by an edge, by a store or by reading one topic.
fn divide(graph: &Graph) -> Vec<SubTopology> {
    let mut group: Vec<usize> = (0..graph.nodes.len()).collect();
    fn root(group: &[usize], mut node: usize) -> usize {
        while group[node] != node {
            node = group[node];
        }
        node
    }
    let mut unite = |a: usize, b: usize| {
        let (a, b) = (root(&group, a), root(&group, b));
        // The smaller number wins, so that groups are numbered by their first node.
        group[a.max(b)] = a.min(b);
    };
    let mut first_user: BTreeMap<String, usize> = BTreeMap::new();
    let mut first_reader: BTreeMap<&TopicName, usize> = BTreeMap::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        for child in node.children.iter().chain(&node.late) {
            unite(index, child.0);
        }
        for store in &node.stores {
            unite(index, *first_user.entry(store.clone()).or_insert(index));
        }
        if let NodeKind::Source { topics, .. } = &node.kind {
            for topic in topics {
                unite(index, *first_reader.entry(topic).or_insert(index));
            }
        }
    }
    let mut members: BTreeMap<usize, Vec<NodeId>> = BTreeMap::new();
    for index in 0..graph.nodes.len() {
        members.entry(root(&group, index)).or_default().push(NodeId(index));
    }
    members.into_values().map(|nodes| sub_topology(graph, nodes)).collect()
}

fn sub_topology(graph: &Graph, nodes: Vec<NodeId>) -> SubTopology {
    let (mut sources, mut sinks, mut stores) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for &id in &nodes {
        let node = graph.node(id);
        stores.extend(node.stores.iter().cloned());
        match &node.kind {
            NodeKind::Source { topics, .. } => sources.extend(topics.iter().cloned()),
            NodeKind::Sink { topic, .. } => sinks.extend(topic.clone()),
            NodeKind::Step { .. } => {}
        }
    }
    SubTopology { nodes, sources: sources.into_iter().collect(), sinks, stores: stores.into_iter().collect() }
}
