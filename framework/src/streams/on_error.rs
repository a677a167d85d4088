//! What an operator is told after it was made: its error policy, and at the end of a stream its name.

use std::fmt;

use super::branch::BranchedStream;
use super::builder::SharedGraph;
use super::policy::ErrorPolicy;
use super::stream::KStream;
use super::table::KTable;
use super::topology::NodeId;

impl<K: 'static, V: 'static> KStream<K, V> {
    /// What becomes of records that the last step cannot process, if it is not what
    /// [`StreamsConfig::on_error`](crate::streams::StreamsConfig::on_error) says for all. Of a source, of records that
    /// cannot be read.
    #[must_use]
    pub fn on_error(self, policy: ErrorPolicy) -> Self {
        self.graph.edit(|graph| graph.set_policy(self.node, policy));
        self
    }
}

impl<K: 'static, V: 'static> KTable<K, V> {
    /// [`KStream::on_error`] for the step that made the table. A row that an aggregation's closure panics with is what
    /// it was before; so that it is, rows are written for each change, where otherwise those in use stay decoded.
    #[must_use]
    pub fn on_error(self, policy: ErrorPolicy) -> Self {
        self.graph.edit(|graph| graph.set_policy(self.node, policy));
        self
    }
}

impl<K: 'static, V: 'static> BranchedStream<K, V> {
    /// [`KStream::on_error`] for the predicates of the branches.
    #[must_use]
    pub fn on_error(self, policy: ErrorPolicy) -> Self {
        self.graph.edit(|graph| graph.set_policy(self.node, policy));
        self
    }
}

/// The end of a stream: a sink, or a closure that nothing follows.
pub struct StreamEnd {
    graph: SharedGraph,
    node: NodeId,
}

impl StreamEnd {
    pub(crate) fn new(graph: SharedGraph, node: NodeId) -> Self {
        Self { graph, node }
    }

    pub(crate) fn of<K, V>(stream: &KStream<K, V>) -> Self {
        Self::new(stream.graph.clone(), stream.node)
    }

    /// What becomes of records that it cannot write or process; see [`KStream::on_error`].
    pub fn on_error(self, policy: ErrorPolicy) -> Self {
        self.graph.edit(|graph| graph.set_policy(self.node, policy));
        self
    }

    /// Names it; otherwise it is named after its path from the source.
    pub fn named(self, name: impl Into<String>) -> Self {
        self.graph.edit(|graph| graph.rename(self.node, name.into()));
        self
    }
}

impl fmt::Debug for StreamEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.graph.edit(|graph| graph.node(self.node).name.clone());
        f.debug_struct("StreamEnd").field("node", &name).finish()
    }
}
