//! A stream divided into branches.

use std::sync::{Arc, PoisonError};

use super::builder::SharedGraph;
use super::node::{Pass, Predicates, Split, guarded_node, inner_node};
use super::stream::KStream;
use super::topology::NodeId;

/// A stream that is being divided: see [`KStream::split`].
pub struct BranchedStream<K, V> {
    pub(crate) graph: SharedGraph,
    pub(crate) node: NodeId,
    key_changed: bool,
    predicates: Predicates<K, V>,
}

impl<K, V> std::fmt::Debug for BranchedStream<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BranchedStream").field("node", &self.node).finish_non_exhaustive()
    }
}

impl<K: 'static, V: 'static> BranchedStream<K, V> {
    pub(crate) fn below(stream: &KStream<K, V>) -> Self {
        let predicates = Predicates::<K, V>::default();
        let shared = Arc::clone(&predicates);
        let factory =
            guarded_node::<K, V, _, _, _>(move |boundary, children| Split::new(boundary, &shared, children));
        let node = stream.graph.edit(|graph| graph.step(&[stream.node], "split", factory));
        Self { graph: stream.graph.clone(), node, key_changed: stream.key_changed, predicates }
    }

    /// The records that `predicate` accepts and no branch before took.
    pub fn branch(
        &mut self,
        name: impl Into<String>,
        predicate: impl Fn(&K, &V) -> bool + Send + Sync + 'static,
    ) -> KStream<K, V> {
        self.add(&name.into(), Some(Arc::new(predicate)))
    }

    /// The records that no branch took.
    pub fn otherwise(self, name: impl Into<String>) -> KStream<K, V> {
        self.add(&name.into(), None)
    }

    fn add(&self, name: &str, predicate: super::node::Predicate<K, V>) -> KStream<K, V> {
        self.predicates.lock().unwrap_or_else(PoisonError::into_inner).push(predicate);
        let factory = inner_node::<K, V, _, _, _>(|children| Pass { children });
        let node = self.graph.edit(|graph| graph.step(&[self.node], name, factory));
        KStream::new(self.graph.clone(), node, self.key_changed)
    }
}
