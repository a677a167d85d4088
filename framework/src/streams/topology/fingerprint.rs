//! What of a topology its state depends on, kept beside the state, so that a change that would orphan state is noticed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Value, json};

use super::{SubTopology, TopologyInner};
use crate::streams::node::{StoreLayout, StoreSpec};

/// The form of the document, for those who read it later.
const VERSION: u64 = 1;

/// The parts of a topology that its state depends on: stores with their types and windows, and the topics between
/// sub-topologies.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fingerprint {
    stores: BTreeMap<String, StoreFacts>,
    repartitions: BTreeSet<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct StoreFacts {
    types: String,
    layout: String,
    logged: bool,
    /// The topics that the store's sub-topology reads: as many partitions as these, the store has.
    reads: BTreeSet<String>,
}

/// What may happen to state that a changed topology does not know any more, stated by whoever changed it.
///
/// ```
/// # use klamm::streams::{Migration, StreamsConfig};
/// let config = StreamsConfig::new("word-count", "127.0.0.1:9092")
///     .migration(Migration::new().forgets("old-counts").rereads("totals"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Migration {
    forgets: BTreeSet<String>,
    rereads: BTreeSet<String>,
}

impl Migration {
    /// Nothing may be orphaned.
    pub fn new() -> Self {
        Self::default()
    }

    /// The topology has this store, or this topic between sub-topologies, no more, and what it holds may be given up.
    /// Its topic stays on the cluster until somebody deletes it.
    #[must_use]
    pub fn forgets(mut self, name: impl Into<String>) -> Self {
        self.forgets.insert(name.into());
        self
    }

    /// The store's types, windows or inputs have another name or form, and what it holds can be read all the same: a
    /// type was renamed, a field with a default was added.
    #[must_use]
    pub fn rereads(mut self, store: impl Into<String>) -> Self {
        self.rereads.insert(store.into());
        self
    }
}

/// State that would be orphaned.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Orphan {
    /// The topology has no such store any more.
    Store {
        /// The store.
        store: String,
        /// What it held.
        types: String,
    },
    /// The store holds, or is thought to hold, something else.
    Changed {
        /// The store.
        store: String,
        /// Which fact: `types`, `layout` or `inputs`.
        what: &'static str,
        /// As it was.
        before: String,
        /// As it is now.
        now: String,
    },
    /// The topology has no such topic between sub-topologies any more; records in it may be unprocessed.
    Repartition {
        /// The topic, without the application's id.
        topic: String,
    },
}

impl fmt::Display for Orphan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store { store, types } => write!(
                f,
                "store `{store}` of {types} is gone, and with it everything that it counted. Give the new store that \
                 name; or, if it may go, state `Migration::new().forgets(\"{store}\")`"
            ),
            Self::Changed { store, what, before, now } => write!(
                f,
                "the {what} of store `{store}` were {before} and are {now}. Give what is new a name of its own; or, if \
                 the bytes that it holds can still be read so, state `Migration::new().rereads(\"{store}\")`"
            ),
            Self::Repartition { topic } => write!(
                f,
                "nobody reads the topic `{topic}` any more, and records may wait in it. Keep its name, with \
                 `Grouped::named`, `Joined::name` or `Repartitioned::named`; or, once the old version has processed \
                 everything, state `Migration::new().forgets(\"{topic}\")`"
            ),
        }
    }
}

impl Fingerprint {
    pub(crate) fn of(topology: &TopologyInner) -> Self {
        let mut stores = BTreeMap::new();
        for sub_topology in &topology.sub_topologies {
            for spec in topology.stores_of(sub_topology) {
                stores.insert(spec.name.to_string(), facts(spec, sub_topology));
            }
        }
        let repartitions = topology.graph.repartitions.keys().map(ToString::to_string).collect();
        Self { stores, repartitions }
    }

    /// Whether there is nothing that could be orphaned.
    pub fn is_empty(&self) -> bool {
        self.stores.is_empty() && self.repartitions.is_empty()
    }

    /// What of the state of `self`, the topology as it was, a topology as `now` would orphan.
    pub fn orphans(&self, now: &Self, migration: &Migration) -> Vec<Orphan> {
        let mut orphans = Vec::new();
        for (store, before) in &self.stores {
            match now.stores.get(store) {
                None if migration.forgets.contains(store) => {}
                None => orphans.push(Orphan::Store { store: store.clone(), types: before.types.clone() }),
                Some(_) if migration.rereads.contains(store) => {}
                Some(after) => orphans.extend(before.changes(store, after)),
            }
        }
        for topic in self.repartitions.difference(&now.repartitions) {
            if !migration.forgets.contains(topic) {
                orphans.push(Orphan::Repartition { topic: topic.clone() });
            }
        }
        orphans
    }

    /// The fingerprint as a document.
    pub fn to_json(&self) -> Value {
        let stores: BTreeMap<_, _> =
            self.stores.iter().map(|(name, facts)| (name, facts.to_json())).collect();
        json!({ "version": VERSION, "stores": stores, "repartition_topics": self.repartitions })
    }

    /// The fingerprint that a document stands for; `None` if it is none, or of a later version of this library.
    pub fn from_json(document: &Value) -> Option<Self> {
        if document.get("version")?.as_u64()? != VERSION {
            return None;
        }
        let mut stores = BTreeMap::new();
        for (name, facts) in document.get("stores")?.as_object()? {
            stores.insert(name.clone(), StoreFacts::from_json(facts)?);
        }
        Some(Self { stores, repartitions: texts(document.get("repartition_topics")?)? })
    }
}

fn facts(spec: &StoreSpec, sub_topology: &SubTopology) -> StoreFacts {
    let layout = match spec.layout {
        StoreLayout::KeyValue => "key and value".to_owned(),
        StoreLayout::Window(layout) => format!("windows kept for {} ms", layout.retention_ms()),
        // How long they are kept can change: what is there can be read all the same.
        StoreLayout::Versioned(_) => "versions".to_owned(),
    };
    StoreFacts {
        types: spec.types.to_owned(),
        layout,
        logged: spec.logged,
        reads: sub_topology.sources.iter().map(ToString::to_string).collect(),
    }
}

impl StoreFacts {
    fn changes(&self, store: &str, now: &Self) -> Option<Orphan> {
        let changed = |what, before: &str, now: &str| Orphan::Changed {
            store: store.to_owned(),
            what,
            before: format!("`{before}`"),
            now: format!("`{now}`"),
        };
        if self.types != now.types {
            return Some(changed("types", &self.types, &now.types));
        }
        if self.layout != now.layout {
            return Some(changed("windows", &self.layout, &now.layout));
        }
        if self.reads.is_disjoint(&now.reads) {
            let list = |topics: &BTreeSet<String>| topics.iter().cloned().collect::<Vec<_>>().join(", ");
            return Some(changed("inputs", &list(&self.reads), &list(&now.reads)));
        }
        None
    }

    fn to_json(&self) -> Value {
        let Self { types, layout, logged, reads } = self;
        json!({ "types": types, "layout": layout, "logged": logged, "reads": reads })
    }

    fn from_json(facts: &Value) -> Option<Self> {
        Some(Self {
            types: facts.get("types")?.as_str()?.to_owned(),
            layout: facts.get("layout")?.as_str()?.to_owned(),
            logged: facts.get("logged")?.as_bool()?,
            reads: texts(facts.get("reads")?)?,
        })
    }
}

fn texts(list: &Value) -> Option<BTreeSet<String>> {
    list.as_array()?.iter().map(|item| item.as_str().map(str::to_owned)).collect()
}
