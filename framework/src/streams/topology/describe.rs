//! What a topology looks like, for people and for comparing.

use std::fmt;

use super::{NodeKind, SubTopology, TopologyInner};

/// A topology's sub-topologies, in the order of their sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopologyDescription {
    /// The sub-topologies; each runs as one task per partition.
    pub sub_topologies: Vec<SubTopologyDescription>,
}

/// Nodes that run in one task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubTopologyDescription {
    /// Its number, the first part of its tasks' ids.
    pub id: usize,
    /// Its nodes, parents before children.
    pub nodes: Vec<NodeDescription>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NodeDescription {
    /// Where records come in.
    Source {
        /// The node's name.
        name: String,
        /// The topics read.
        topics: Vec<String>,
        /// What follows.
        successors: Vec<String>,
    },
    /// What happens to them.
    Processor {
        /// The node's name.
        name: String,
        /// The stores it uses.
        stores: Vec<String>,
        /// What comes before.
        predecessors: Vec<String>,
        /// What follows.
        successors: Vec<String>,
    },
    /// Where records go out.
    Sink {
        /// The node's name.
        name: String,
        /// The topic written; `None` where each record chooses its own.
        topic: Option<String>,
        /// What comes before.
        predecessors: Vec<String>,
    },
}

impl TopologyDescription {
    pub(crate) fn of(topology: &TopologyInner) -> Self {
        let describe = |(id, sub_topology): (usize, &SubTopology)| SubTopologyDescription {
            id,
            nodes: nodes(topology, sub_topology),
        };
        Self { sub_topologies: topology.sub_topologies.iter().enumerate().map(describe).collect() }
    }
}

fn nodes(topology: &TopologyInner, sub_topology: &SubTopology) -> Vec<NodeDescription> {
    let graph = &topology.graph;
    let names = |ids: &[super::NodeId]| ids.iter().map(|id| graph.node(*id).name.clone()).collect();
    let describe = |id: &super::NodeId| {
        let node = graph.node(*id);
        let name = node.name.clone();
        match &node.kind {
            NodeKind::Source { topics, .. } => NodeDescription::Source {
                name,
                topics: match &node.pattern {
                    Some(pattern) => vec![pattern.text.to_string()],
                    None => topics.iter().map(ToString::to_string).collect(),
                },
                successors: names(&node.children),
            },
            NodeKind::Step { .. } => NodeDescription::Processor {
                name,
                stores: node.stores.clone(),
                predecessors: names(&node.parents),
                successors: names(&node.children),
            },
            NodeKind::Sink { topic, .. } => {
                let topic = topic.as_ref().map(ToString::to_string);
                NodeDescription::Sink { name, topic, predecessors: names(&node.parents) }
            }
        }
    };
    sub_topology.nodes.iter().map(describe).collect()
}

impl fmt::Display for TopologyDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Topologies:")?;
        for sub_topology in &self.sub_topologies {
            writeln!(f, "   Sub-topology: {}", sub_topology.id)?;
            for node in &sub_topology.nodes {
                write!(f, "{node}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for NodeDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |names: &[String]| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        match self {
            Self::Source { name, topics, successors } => {
                writeln!(f, "    Source: {name} (topics: [{}])", topics.join(", "))?;
                writeln!(f, "      --> {}", list(successors))
            }
            Self::Processor { name, stores, predecessors, successors } => {
                writeln!(f, "    Processor: {name} (stores: [{}])", stores.join(", "))?;
                writeln!(f, "      --> {}", list(successors))?;
                writeln!(f, "      <-- {}", list(predecessors))
            }
            Self::Sink { name, topic, predecessors } => {
                match topic {
                    Some(topic) => writeln!(f, "    Sink: {name} (topic: {topic})")?,
                    None => writeln!(f, "    Sink: {name} (topic chosen by the record)")?,
                }
                writeln!(f, "      <-- {}", list(predecessors))
            }
        }
    }
}
