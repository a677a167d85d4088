//! Nodes and edges, as the builder adds them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use klamm_client::OffsetReset;

use super::topic_pattern::Pattern;
use crate::serde::{Bytes, BytesSerde, Serde};
use crate::store::{MemoryStore, StateStore};
use crate::streams::error::TopologyError;
use crate::streams::node::{NodeFactory, RoutedTopics, SourceFactory, StoreCodec, StoreLayout, StoreSpec};
use crate::streams::policy::ErrorPolicy;
use crate::streams::stamps::Stamping;
use crate::streams::windows::millis;

/// The longest name of a store or repartition topic: the application's name and a suffix must fit
/// beside it in a topic's 249.
const MAX_NAME_BYTES: usize = 200;

/// A node, by its place in the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct NodeId(pub(crate) usize);

/// A topic of the user, or one that belongs to the application and carries its name in front.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum TopicName {
    User(String),
    Internal(String),
}

impl TopicName {
    pub(crate) fn changelog(store: &str) -> Self {
        Self::Internal(format!("{store}-changelog"))
    }

    pub(crate) fn repartition(name: &str) -> Self {
        Self::Internal(format!("{name}-repartition"))
    }

    pub(crate) fn in_application(&self, application_id: &str) -> String {
        match self {
            Self::User(name) => name.clone(),
            Self::Internal(name) => format!("{application_id}-{name}"),
        }
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) | Self::Internal(name) => f.write_str(name),
        }
    }
}

/// What a node does.
#[derive(Clone)]
pub(crate) enum NodeKind {
    Source {
        topics: Vec<TopicName>,
        factory: SourceFactory,
    },
    Step {
        factory: NodeFactory,
    },
    /// Without a topic where each record chooses its own.
    Sink {
        topic: Option<TopicName>,
        factory: NodeFactory,
    },
}

/// One step of a topology.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) name: String,
    /// The name without the number that tells equal ones apart: it does not depend on the order of lines.
    pub(crate) path: String,
    pub(crate) kind: NodeKind,
    pub(crate) parents: Vec<NodeId>,
    pub(crate) children: Vec<NodeId>,
    /// Those who get what came too late for this node; their parent, too.
    pub(crate) late: Vec<NodeId>,
    /// The names of children that this node, a processor, forwards to one by one.
    pub(crate) forwards_to: Vec<String>,
    /// Those of its children that have such a name.
    pub(crate) named: Vec<(String, NodeId)>,
    pub(crate) stores: Vec<String>,
    /// The store that this node, a table, keeps its rows in; a view keeps none.
    pub(crate) kept_in: Option<String>,
    /// Whether what follows this node, a table, needs to know what a row was before.
    pub(crate) sends_old_values: bool,
    /// Whether this node, a table that keeps nothing, cannot tell what a row was before.
    forgets_old_values: bool,
    /// Whether it writes a store; it may read others.
    pub(crate) writes: bool,
    /// The nodes that do a part of what it is for the user.
    parts: Vec<NodeId>,
    /// What becomes of what it cannot process, unless the application says it for all.
    pub(crate) policy: Option<Arc<ErrorPolicy>>,
    /// How a source's records get their time, if not as their producer said.
    pub(crate) stamping: Option<Stamping>,
    /// Where a source begins, if not at the oldest record.
    pub(crate) offset_reset: Option<OffsetReset>,
    /// Of a source: it reads all topics that match this, beside those that it names.
    pub(crate) pattern: Option<Pattern>,
    /// Of a windowed table: how long after the end that a window names nothing can change it any more.
    pub(crate) closes_after_ms: Option<i64>,
}

/// A topic between two sub-topologies.
#[derive(Debug, Clone)]
pub(crate) struct Repartition {
    /// As many partitions as the user said; otherwise as many as what is joined or upstream has.
    pub(crate) partitions: Option<i32>,
    /// Whether it never has as many partitions as what is upstream, but always those of what it meets.
    pub(crate) adopts: bool,
}

/// A table that every instance has all of.
#[derive(Clone)]
pub(crate) struct GlobalTable {
    pub(crate) spec: StoreSpec,
    /// Where its rows are, for all tasks of one application or test driver.
    pub(crate) engine: Arc<dyn StateStore>,
}

/// Nodes and edges. Mistakes are collected, so that the fluent calls need not return results; `build` tells the first.
#[derive(Clone, Default)]
pub(crate) struct Graph {
    pub(crate) nodes: Vec<Node>,
    pub(crate) stores: BTreeMap<String, StoreSpec>,
    pub(crate) repartitions: BTreeMap<TopicName, Repartition>,
    /// The stores that remember what was forwarded last, for those who need to know what a row was before.
    pub(crate) remembering: BTreeSet<String>,
    /// By topic.
    pub(crate) globals: BTreeMap<String, GlobalTable>,
    pub(crate) errors: Vec<TopologyError>,
    /// The policy of nodes without one.
    pub(crate) default_policy: Arc<ErrorPolicy>,
    /// Topics beside those that the nodes name.
    pub(crate) routed: Arc<RoutedTopics>,
}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.nodes.iter().map(|node| &node.name)).finish()
    }
}

impl Graph {
    pub(crate) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    pub(crate) fn source(&mut self, topics: Vec<TopicName>, factory: SourceFactory) -> NodeId {
        let name = topics.iter().map(TopicName::to_string).collect::<Vec<_>>().join("+");
        if topics.is_empty() || topics.iter().any(|topic| topic.to_string().is_empty()) {
            self.errors.push(TopologyError::NoTopics(name.clone()));
        }
        self.add(name, NodeKind::Source { topics, factory }, &[])
    }

    /// A source of all topics that match, also of those that are made later.
    pub(crate) fn source_matching(&mut self, pattern: &str, factory: SourceFactory) -> NodeId {
        let name = format!("matching({pattern})");
        let node = self.add(name, NodeKind::Source { topics: Vec::new(), factory }, &[]);
        match Pattern::new(pattern) {
            Ok(pattern) => self.nodes[node.0].pattern = Some(pattern),
            Err(error) => self.errors.push(error),
        }
        node
    }

    /// Takes note if a source cannot read what it is given.
    pub(crate) fn check_readable(&mut self, problem: Option<&'static str>, node: NodeId) {
        if let Some(reason) = problem {
            let node = self.node(node).name.clone();
            self.errors.push(TopologyError::WriteOnly { node, reason: reason.to_owned() });
        }
    }

    /// A node below `parents`. Its name is the first parent's and what it does, so that it depends on the path from the
    /// source and on nothing else in the program: adding a step elsewhere renames nothing.
    pub(crate) fn step(&mut self, parents: &[NodeId], operation: &str, factory: NodeFactory) -> NodeId {
        let name = self.path(parents, operation);
        self.add(name, NodeKind::Step { factory }, parents)
    }

    /// A node that gets what came too late for `parent`.
    pub(crate) fn late(&mut self, parent: NodeId, factory: NodeFactory) -> NodeId {
        let node = self.step(&[parent], "late", factory);
        self.nodes[parent.0].children.retain(|child| *child != node);
        self.nodes[parent.0].late.push(node);
        node
    }

    /// A child that `parent` forwards to by this name.
    pub(crate) fn named_child(&mut self, parent: NodeId, name: &str, factory: NodeFactory) -> NodeId {
        let node = self.step(&[parent], name, factory);
        let of = &mut self.nodes[parent.0];
        of.named.push((name.to_owned(), node));
        if !of.forwards_to.iter().any(|known| known == name) {
            let (node, child, known) = (of.name.clone(), name.to_owned(), of.forwards_to.clone());
            self.errors.push(TopologyError::UnknownChild { node, child, known });
        }
        node
    }

    /// Finds a name that a processor forwards to, and that none of its children has.
    pub(crate) fn check_named_children(&self) -> Result<(), TopologyError> {
        for node in &self.nodes {
            let is_missing = |name: &&String| !node.named.iter().any(|(known, _)| known == *name);
            if let Some(child) = node.forwards_to.iter().find(is_missing) {
                return Err(TopologyError::MissingChild { node: node.name.clone(), child: child.clone() });
            }
        }
        Ok(())
    }

    pub(crate) fn sink(&mut self, parent: NodeId, topic: Option<TopicName>, factory: NodeFactory) -> NodeId {
        let operation = topic.as_ref().map_or_else(|| "to_chosen".to_owned(), |topic| format!("to({topic})"));
        let name = self.path(&[parent], &operation);
        self.add(name, NodeKind::Sink { topic, factory }, &[parent])
    }

    pub(crate) fn path(&self, parents: &[NodeId], operation: &str) -> String {
        match parents.first() {
            Some(parent) => format!("{}.{operation}", self.node(*parent).name),
            None => operation.to_owned(),
        }
    }

    /// What becomes of what a node cannot process.
    pub(crate) fn policy_of(&self, node: NodeId) -> &Arc<ErrorPolicy> {
        self.node(node).policy.as_ref().unwrap_or(&self.default_policy)
    }

    /// How a source's records get their time, and where it begins.
    pub(crate) fn consume(
        &mut self,
        source: NodeId,
        stamping: Option<Stamping>,
        offset_reset: Option<OffsetReset>,
    ) {
        let node = &mut self.nodes[source.0];
        (node.stamping, node.offset_reset) = (stamping, offset_reset);
    }

    pub(crate) fn set_policy(&mut self, node: NodeId, policy: ErrorPolicy) {
        if let Some(topic) = policy.dead_letter_topic().map(str::to_owned) {
            self.check_name(&topic);
        }
        for part in self.nodes[node.0].parts.clone() {
            self.nodes[part.0].policy = Some(Arc::new(policy.clone()));
        }
        self.nodes[node.0].policy = Some(Arc::new(policy));
    }

    /// Nodes do a part of what another one is for the user, who tells that one what becomes of failures.
    pub(crate) fn does_for(&mut self, parts: &[NodeId], node: NodeId) {
        self.nodes[node.0].parts.extend(parts);
    }

    /// Takes note of that; see [`Node::closes_after_ms`].
    pub(crate) fn closes(&mut self, node: NodeId, after_ms: i64) {
        self.nodes[node.0].closes_after_ms = Some(after_ms);
    }

    /// How long after their ends the windows of the table `node`, or of those that it is made of, can change no more.
    pub(crate) fn closes_after_ms(&self, node: NodeId) -> Option<i64> {
        let node = self.node(node);
        let of_parents = || node.parents.iter().filter_map(|parent| self.closes_after_ms(*parent)).max();
        node.closes_after_ms.or_else(of_parents)
    }

    /// Gives a node a name of its own; what follows it is named after that.
    pub(crate) fn rename(&mut self, node: NodeId, name: String) {
        self.nodes[node.0].path.clone_from(&name);
        self.nodes[node.0].name.clear();
        self.nodes[node.0].name = self.unique(name);
    }

    fn add(&mut self, name: String, kind: NodeKind, parents: &[NodeId]) -> NodeId {
        let id = NodeId(self.nodes.len());
        let path = name.clone();
        let name = self.unique(name);
        self.nodes.push(Node {
            name,
            path,
            kind,
            parents: parents.to_vec(),
            children: Vec::new(),
            late: Vec::new(),
            forwards_to: Vec::new(),
            named: Vec::new(),
            stores: Vec::new(),
            kept_in: None,
            sends_old_values: false,
            forgets_old_values: false,
            writes: false,
            parts: Vec::new(),
            policy: None,
            stamping: None,
            offset_reset: None,
            pattern: None,
            closes_after_ms: None,
        });
        for parent in parents {
            self.nodes[parent.0].children.push(id);
        }
        id
    }

    fn unique(&self, name: String) -> String {
        let taken = |name: &str| self.nodes.iter().any(|node| node.name == name);
        if !taken(&name) {
            return name;
        }
        (2..).map(|number| format!("{name}-{number}")).find(|name| !taken(name)).unwrap_or(name)
    }

    pub(crate) fn store(&mut self, spec: StoreSpec, node: NodeId) {
        let name = spec.name.to_string();
        self.check_name(&name);
        self.connect_store(node, &name);
        self.nodes[node.0].kept_in = Some(name.clone());
        self.nodes[node.0].writes = true;
        self.check_keeping(&spec);
        self.check_duplicates(&spec, false);
        if let Some(list) = expiry_list(&spec) {
            let name = list.name.to_string();
            self.insert_store(list);
            self.connect_store(node, &name);
        }
        if let Some(reason) = spec.write_only {
            self.errors.push(TopologyError::WriteOnly { node: name.clone(), reason: reason.to_owned() });
        }
        if self.stores.insert(name.clone(), spec).is_some() {
            self.errors.push(TopologyError::DuplicateStore(name));
        }
    }

    /// How the keys of a store are written, if it holds these types.
    pub(crate) fn key_serde_of<K: 'static, V: 'static>(&self, store: &str) -> Option<Arc<dyn Serde<K>>> {
        let codec = Arc::clone(&self.stores.get(store)?.codec).downcast::<StoreCodec<K, V>>().ok()?;
        Some(Arc::clone(&codec.key))
    }

    /// How long a store keeps what must go with what it is.
    fn check_keeping(&mut self, spec: &StoreSpec) {
        let store = spec.name.to_string();
        let plain = spec.layout == StoreLayout::KeyValue;
        if let (true, Some(retention)) = (plain, spec.retention) {
            self.errors.push(TopologyError::RetentionOfPlainStore { store: store.clone(), retention });
        }
        let mut misfit = |asked, why| {
            self.errors.push(TopologyError::KeepsOtherwise { store: store.clone(), asked, why });
        };
        if spec.history.is_some() && !matches!(spec.layout, StoreLayout::Versioned(_)) {
            misfit(
                "versioned",
                "versions are kept by tables of a topic, by `to_table` and by `versioned_store`",
            );
        }
        if spec.time_to_live.is_some() && !plain {
            misfit("time_to_live", "windows go by their retention, and versions by their history");
        }
        let is_of_windows = matches!(spec.layout, StoreLayout::Window(layout) if !layout.is_of_sessions());
        self.check_duplicates(spec, is_of_windows);
    }

    fn check_duplicates(&mut self, spec: &StoreSpec, may_keep: bool) {
        if spec.keeps_duplicates && !may_keep {
            let (store, asked) = (spec.name.to_string(), "retain_duplicates");
            let why = "several values for a window are kept by `window_store`s of processors";
            self.errors.push(TopologyError::KeepsOtherwise { store, asked, why });
        }
    }

    /// A join that waits needs to know what rows were for as long as it waits, and serdes for what waits.
    pub(crate) fn check_grace(&mut self, node: NodeId, tables: &[String], grace: Duration) {
        let keeps = |store: &String| match self.stores.get(store).map(|spec| spec.layout) {
            Some(StoreLayout::Versioned(layout)) => layout.history_ms() >= millis(grace),
            _ => false,
        };
        if !tables.iter().all(keeps) {
            let node = self.node(node).name.clone();
            self.errors.push(TopologyError::GraceWithoutVersions { node, grace });
        }
    }

    /// The name of the list of when rows of a store expire.
    pub(crate) fn expiry_of(store: &str) -> String {
        format!("{store}-expiry")
    }

    /// A store that nodes come to use one by one, and its rows are for them to delete.
    pub(crate) fn add_store(&mut self, spec: StoreSpec) {
        if spec.time_to_live.is_some() {
            let (store, asked, why) =
                (spec.name.to_string(), "time_to_live", "what waits in a buffer goes when it is due");
            self.errors.push(TopologyError::KeepsOtherwise { store, asked, why });
        }
        self.insert_store(spec);
    }

    /// A store of processors, with the list of when its rows expire, if they do.
    pub(crate) fn add_processor_store(&mut self, spec: StoreSpec) {
        if let Some(list) = expiry_list(&spec) {
            self.insert_store(list);
        }
        self.insert_store(spec);
    }

    fn insert_store(&mut self, spec: StoreSpec) {
        let name = spec.name.to_string();
        self.check_name(&name);
        self.check_keeping(&spec);
        if self.stores.insert(name.clone(), spec).is_some() {
            self.errors.push(TopologyError::DuplicateStore(name));
        }
    }

    /// Connects a store that must have been added.
    pub(crate) fn use_store(&mut self, node: NodeId, store: &str) {
        if let Some(spec) = self.stores.get(store) {
            let list = expiry_list(spec).map(|list| list.name);
            self.write_store(node, store);
            if let Some(list) = list {
                self.connect_store(node, &list);
            }
        } else {
            let (node, store) = (self.node(node).name.clone(), store.to_owned());
            self.errors.push(TopologyError::UnknownStore { node, store });
        }
    }

    /// Connects a store that another node was given first, and in which this node keeps the same table.
    pub(crate) fn keep_in(&mut self, node: NodeId, store: &str) {
        self.nodes[node.0].kept_in = Some(store.to_owned());
        self.write_store(node, store);
    }

    /// Connects a store that the node writes.
    pub(crate) fn write_store(&mut self, node: NodeId, store: &str) {
        self.nodes[node.0].writes = true;
        self.connect_store(node, store);
    }

    pub(crate) fn connect_store(&mut self, node: NodeId, store: &str) {
        let stores = &mut self.nodes[node.0].stores;
        if !stores.iter().any(|known| known == store) {
            stores.push(store.to_owned());
        }
    }

    pub(crate) fn global(&mut self, topic: String, spec: StoreSpec) {
        let name = spec.name.to_string();
        self.check_name(&name);
        let table = GlobalTable { spec, engine: Arc::new(MemoryStore::new()) };
        if self.globals.insert(topic, table).is_some() || self.stores.contains_key(&name) {
            self.errors.push(TopologyError::DuplicateStore(name));
        }
    }

    /// The same with nothing in its global tables.
    pub(crate) fn afresh(&self) -> Self {
        let mut graph = self.clone();
        graph.globals.values_mut().for_each(|table| table.engine = Arc::new(MemoryStore::new()));
        graph
    }

    /// Lets the table `node` say with each change what the row was before. A view asks those it is a view of; a table
    /// that is kept reads it from its store.
    pub(crate) fn send_old_values(&mut self, node: NodeId) {
        let asked = &mut self.nodes[node.0];
        if std::mem::replace(&mut asked.sends_old_values, true) {
            return;
        }
        match asked.kept_in.clone() {
            Some(store) => {
                self.remembering.insert(store);
            }
            None if asked.forgets_old_values => {
                self.errors.push(TopologyError::OldValuesUnknown { node: asked.name.clone() });
            }
            None => asked.parents.clone().into_iter().for_each(|parent| self.send_old_values(parent)),
        }
    }

    /// Whether a change of one of `stores` comes to `node` in the same step.
    pub(crate) fn follows(&self, node: NodeId, stores: &[String]) -> bool {
        let mut look = vec![node];
        while let Some(id) = look.pop() {
            let node = self.node(id);
            if node.kept_in.as_ref().is_some_and(|store| stores.contains(store)) {
                return true;
            }
            look.extend(&node.parents);
        }
        false
    }

    /// Says whether a join cannot tell what its rows were: one change may come to it from both sides, and the first
    /// already sees what the second has not told.
    pub(crate) fn forgets_old_values(&mut self, join: NodeId, forgets: bool) {
        self.nodes[join.0].forgets_old_values = forgets;
    }

    pub(crate) fn repartition(&mut self, name: &str, partitions: Option<i32>) -> TopicName {
        self.check_name(name);
        let topic = TopicName::repartition(name);
        if self.repartitions.insert(topic.clone(), Repartition { partitions, adopts: false }).is_some() {
            self.errors.push(TopologyError::DuplicateRepartition(name.to_owned()));
        }
        topic
    }

    /// A topic of the application that leads to where a table lies, and has as many partitions as that.
    pub(crate) fn adopting(&mut self, name: &str) -> TopicName {
        let topic = TopicName::Internal(name.to_owned());
        self.repartitions.insert(topic.clone(), Repartition { partitions: None, adopts: true });
        topic
    }

    /// Names the repartition topic of `source` after `store` if that comes first in the alphabet: of the stores
    /// that share the topic, whichever line is written first.
    pub(crate) fn name_repartition_after(&mut self, source: NodeId, store: &str) {
        let NodeKind::Source { topics, .. } = &self.node(source).kind else { return };
        let (Some(old), new) = (topics.first().cloned(), TopicName::repartition(store)) else { return };
        if new >= old || self.repartitions.contains_key(&new) {
            return;
        }
        let Some(spec) = self.repartitions.remove(&old) else { return };
        self.repartitions.insert(new.clone(), spec);
        let (was, is) = (old.to_string(), new.to_string());
        for node in &mut self.nodes {
            match &mut node.kind {
                NodeKind::Source { topics, .. } => {
                    topics.iter_mut().filter(|topic| **topic == old).for_each(|topic| *topic = new.clone());
                }
                NodeKind::Sink { topic: Some(topic), .. } if *topic == old => *topic = new.clone(),
                NodeKind::Sink { .. } | NodeKind::Step { .. } => {}
            }
            for name in [&mut node.name, &mut node.path] {
                if let Some(rest) = name.strip_prefix(&*was) {
                    *name = format!("{is}{rest}");
                } else if let Some(before) = name.strip_suffix(&format!("to({was})")) {
                    *name = format!("{before}to({is})");
                }
            }
        }
    }

    fn check_name(&mut self, name: &str) {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.chars().all(legal) {
            self.errors.push(TopologyError::BadName(name.to_owned()));
        }
    }
}

/// The store that lists when the rows of another one expire.
fn expiry_list(spec: &StoreSpec) -> Option<StoreSpec> {
    spec.time_to_live?;
    let codec = StoreCodec::<Bytes, Bytes> { key: Arc::new(BytesSerde), value: Arc::new(BytesSerde) };
    Some(StoreSpec {
        name: Graph::expiry_of(&spec.name).into(),
        codec: Arc::new(codec),
        types: "times of rows",
        write_only: None,
        time_to_live: None,
        ..spec.clone()
    })
}
