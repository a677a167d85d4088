//! Sources of all topics whose names match: what such a source cannot feed, and who reads a topic that has come.

use std::sync::Arc;

use super::graph::{Graph, NodeId, TopicName};
use super::topic_pattern::{Pattern, is_internal};
use super::{SubTopology, TopologyInner};
use crate::streams::error::TopologyError;
use crate::streams::node::TopicId;

/// What a source by pattern cannot feed: nobody knows how many partitions the topics that are still to come have.
pub(super) fn check(graph: &Graph, sub_topologies: &[SubTopology]) -> Result<(), TopologyError> {
    for sub_topology in sub_topologies {
        let of_pattern = |id: &&NodeId| graph.node(**id).pattern.is_some();
        let Some(source) = sub_topology.nodes.iter().find(of_pattern) else { continue };
        let source = graph.node(*source);
        let name = source.name.clone();
        if !sub_topology.stores.is_empty() {
            let users = sub_topology.nodes.iter().map(|id| graph.node(*id));
            let users = users.filter(|node| !node.stores.is_empty());
            let operators = users.map(|node| format!("`{}`", node.name)).collect::<Vec<_>>().join(", ");
            return Err(TopologyError::PatternWithState { reader: name, operators });
        }
        let open = |topic: &&TopicName| {
            graph.repartitions.get(*topic).is_some_and(|repartition| repartition.partitions.is_none())
        };
        if let Some(topic) = sub_topology.sinks.iter().find(open) {
            return Err(TopologyError::PatternWithoutPartitions { reader: name, topic: topic.to_string() });
        }
        check_overlap(graph, source)?;
    }
    Ok(())
}

fn check_overlap(graph: &Graph, source: &super::graph::Node) -> Result<(), TopologyError> {
    let Some(pattern) = &source.pattern else { return Ok(()) };
    for other in graph.nodes.iter().filter(|other| other.name != source.name) {
        let super::NodeKind::Source { topics, .. } = &other.kind else { continue };
        let named = topics.iter().find_map(|topic| match topic {
            TopicName::User(topic) => pattern.matches(topic).then(|| topic.clone()),
            TopicName::Internal(_) => None,
        });
        let same = other.pattern.as_ref().is_some_and(|of_other| of_other.text == pattern.text);
        if let Some(topic) = named.or_else(|| same.then(|| pattern.text.to_string())) {
            let sources = format!("`{}`, `{}`", source.name, other.name);
            return Err(TopologyError::PatternOverlaps { topic, sources });
        }
    }
    Ok(())
}

impl TopologyInner {
    /// The patterns of all sources, each with its sub-topology.
    pub(crate) fn patterns(&self) -> impl Iterator<Item = (&Pattern, usize)> {
        self.sub_topologies.iter().enumerate().flat_map(|(index, sub_topology)| {
            let patterns = sub_topology.nodes.iter().filter_map(|id| self.graph.node(*id).pattern.as_ref());
            patterns.map(move |pattern| (pattern, index))
        })
    }

    /// The sub-topologies with a source that this topic's name matches; it is none of the application's own.
    pub(crate) fn pattern_readers(&self, topic: &str, application_id: &str) -> Vec<usize> {
        match is_internal(topic, application_id) {
            true => Vec::new(),
            false => self.patterns().filter(|(of, _)| of.matches(topic)).map(|(_, index)| index).collect(),
        }
    }

    /// The id of a topic that a pattern matched.
    pub(crate) fn matched(&self, topic: &Arc<str>) -> TopicId {
        self.graph.routed.id_of(topic)
    }
}
