//! A topology's description as a JSON document, and back.

use serde_json::{Value, json};
use thiserror::Error;

use super::describe::{NodeDescription, SubTopologyDescription, TopologyDescription};

/// A document that is no topology's description.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("this is no description of a topology, as `TopologyDescription::to_json` gives it: {0}")]
pub struct NotATopology(String);

impl TopologyDescription {
    /// The description as a document: `sub_topologies`, each with its `id` and its `nodes`; a node has its `name`, its
    /// `kind` (`source`, `processor` or `sink`), its `predecessors` and `successors`, and its `topics` or `stores`.
    pub fn to_json(&self) -> Value {
        let sub_topologies = self.sub_topologies.iter().map(|sub_topology| {
            let nodes: Vec<Value> = sub_topology.nodes.iter().map(node).collect();
            json!({ "id": sub_topology.id, "nodes": nodes })
        });
        json!({ "sub_topologies": sub_topologies.collect::<Vec<_>>() })
    }

    /// The description that a document stands for.
    ///
    /// # Errors
    /// It is not such a document.
    pub fn from_json(document: &Value) -> Result<Self, NotATopology> {
        let sub_topologies = items(document, "sub_topologies")?.iter().map(|sub_topology| {
            let id = sub_topology.get("id").and_then(Value::as_u64).and_then(|id| usize::try_from(id).ok());
            let id = id.ok_or_else(|| NotATopology("a sub-topology has no `id`".to_owned()))?;
            let nodes = items(sub_topology, "nodes")?.iter().map(read_node).collect::<Result<_, _>>()?;
            Ok(SubTopologyDescription { id, nodes })
        });
        Ok(Self { sub_topologies: sub_topologies.collect::<Result<_, _>>()? })
    }
}

fn node(node: &NodeDescription) -> Value {
    match node {
        NodeDescription::Source { name, topics, successors } => json!({
            "kind": "source", "name": name, "topics": topics, "predecessors": [], "successors": successors,
        }),
        NodeDescription::Processor { name, stores, predecessors, successors } => json!({
            "kind": "processor", "name": name, "stores": stores, "predecessors": predecessors,
            "successors": successors,
        }),
        NodeDescription::Sink { name, topic, predecessors } => json!({
            "kind": "sink", "name": name, "topic": topic, "predecessors": predecessors, "successors": [],
        }),
    }
}

fn read_node(node: &Value) -> Result<NodeDescription, NotATopology> {
    let name = text(node, "name")?;
    match &*text(node, "kind")? {
        "source" => Ok(NodeDescription::Source {
            name,
            topics: texts(node, "topics")?,
            successors: texts(node, "successors")?,
        }),
        "processor" => Ok(NodeDescription::Processor {
            name,
            stores: texts(node, "stores")?,
            predecessors: texts(node, "predecessors")?,
            successors: texts(node, "successors")?,
        }),
        "sink" => Ok(NodeDescription::Sink {
            name,
            topic: match node.get("topic") {
                None | Some(Value::Null) => None,
                Some(_) => Some(text(node, "topic")?),
            },
            predecessors: texts(node, "predecessors")?,
        }),
        other => Err(NotATopology(format!("node `{name}` is of kind `{other}`"))),
    }
}

fn items<'a>(of: &'a Value, field: &str) -> Result<&'a Vec<Value>, NotATopology> {
    let found = of.get(field).and_then(Value::as_array);
    found.ok_or_else(|| NotATopology(format!("there is no list `{field}`")))
}

fn text(of: &Value, field: &str) -> Result<String, NotATopology> {
    let found = of.get(field).and_then(Value::as_str);
    found.map(str::to_owned).ok_or_else(|| NotATopology(format!("a node has no text `{field}`")))
}

fn texts(of: &Value, field: &str) -> Result<Vec<String>, NotATopology> {
    let read = |item: &Value| item.as_str().map(str::to_owned);
    let found = items(of, field)?.iter().map(read).collect::<Option<_>>();
    found.ok_or_else(|| NotATopology(format!("`{field}` holds something else than texts")))
}
