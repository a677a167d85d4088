//! The topology as data: nodes, edges, stores and topics, grouped into sub-topologies. It can be
//! described, checked and run.

mod describe;
mod graph;
mod partitions;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::error::TopologyError;
use super::node::{StoreSpec, TopicId};

pub use describe::{NodeDescription, SubTopologyDescription, TopologyDescription};
pub(crate) use graph::{Graph, NodeId, NodeKind, TopicName};
pub use partitions::PartitionError;
pub(crate) use partitions::{PartitionPlan, plan_partitions};

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
    pub(crate) fn new(graph: Graph) -> Result<Self, TopologyError> {
        if let Some(error) = graph.errors.first() {
            return Err(error.clone());
        }
        if !graph.nodes.iter().any(|node| matches!(node.kind, NodeKind::Source { .. })) {
            return Err(TopologyError::NoSource);
        }
        let sub_topologies = divide(&graph);
        let mut topics = BTreeSet::new();
        for sub_topology in &sub_topologies {
            topics.extend(sub_topology.sources.iter().cloned());
            topics.extend(sub_topology.sinks.iter().cloned());
        }
        topics.extend(graph.stores.keys().map(|store| TopicName::changelog(store)));
        topics.extend(graph.globals.keys().cloned().map(TopicName::User));
        let topics: Vec<_> = topics.into_iter().collect();
        let topic_ids = (0..).map(TopicId).zip(&topics).map(|(id, topic)| (topic.clone(), id)).collect();
        Ok(Self { inner: Arc::new(TopologyInner { graph, sub_topologies, topics, topic_ids }) })
    }

    /// The sub-topologies with their nodes, stores and topics; prints in the manner of Kafka's `Topology#describe`. The
    /// same program gives the same text.
    pub fn describe(&self) -> TopologyDescription {
        TopologyDescription::of(&self.inner)
    }
}

impl TopologyInner {
    /// The same for one application or test driver, whose global tables are its own.
    pub(crate) fn for_one_run(self: Arc<Self>) -> Arc<Self> {
        match self.graph.globals.is_empty() {
            true => self,
            false => Arc::new(Self { graph: self.graph.afresh(), ..Self::clone(&self) }),
        }
    }

    /// A store by its name.
    pub(crate) fn store(&self, name: &str) -> Option<&StoreSpec> {
        let mut globals = self.graph.globals.values().map(|table| &table.spec);
        self.graph.stores.get(name).or_else(|| globals.find(|spec| &*spec.name == name))
    }

    /// The names of the topics of application `application_id`, by id.
    pub(crate) fn topic_names(&self, application_id: &str) -> Vec<Arc<str>> {
        self.topics.iter().map(|topic| topic.in_application(application_id).into()).collect()
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
            NodeKind::Sink { topic, .. } => {
                sinks.insert(topic.clone());
            }
            NodeKind::Step { .. } => {}
        }
    }
    SubTopology { nodes, sources: sources.into_iter().collect(), sinks, stores: stores.into_iter().collect() }
}
