//! Processors: what runs inside a task. Typed from source to sink; types are erased only while a task is put together.

mod aggregate;
mod async_step;
mod buffered_format;
mod called;
mod calling;
mod calls;
mod change_format;
mod changelog_rows;
mod connected;
mod context;
mod dropped;
mod expiring_rows;
mod expiry;
mod fault;
mod foreign_key;
mod global;
mod graceful_join;
mod grouped_table;
mod hot_rows;
mod in_flight;
mod join;
mod join_rows;
mod list_entries;
mod local_calls;
mod murmur3;
mod ordered_reverse;
mod ordered_store;
mod panicked;
mod planned;
mod processor;
mod processor_global;
mod processor_store;
mod processor_versions;
mod processor_windows;
mod record_context;
mod room;
mod routed;
mod row_format;
mod sessions;
mod sink;
mod sliding;
mod source;
mod stateless;
mod store_entries;
mod store_spec;
mod stream_join;
mod subscription_format;
mod suppress;
mod suppress_buffer;
mod table;
mod table_called;
mod table_commit;
mod table_join;
mod table_reads;
mod table_store;
mod table_views;
mod unmatched;
mod versioned;
mod versioned_load;
mod versioned_rows;
mod window_table;
mod windowed;
mod wiring;

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use klamm_client::Headers;

use super::error::TaskError;

pub(crate) use aggregate::{Aggregate, Fold};
pub(crate) use async_step::{AsyncStep, CallSettings, Give, MakeCall};
pub(crate) use calling::Calling;
pub(crate) use calls::{Arrivals, Spawn};
pub(crate) use changelog_rows::ChangelogRows;
pub use connected::StoreHandle;
pub(crate) use context::{AskPartitionCount, Context, Happened, Tally};
pub use dropped::Dropped;
pub(crate) use fault::{
    Boundary, Guarded, GuardedTable, UserError, at_the_end, caught, of_a_clock, of_no_record, post, stamp,
};
pub(crate) use foreign_key::{AnswerSource, Answers, Subscribe, SubscriptionSource, TellSubscribers};
pub(crate) use global::{GlobalJoin, GlobalRows};
pub(crate) use graceful_join::GracefulJoin;
pub(crate) use grouped_table::{GroupChanges, GroupSource, TableAggregate, Unfold};
pub(crate) use in_flight::InFlight;
pub(crate) use join::{FilterLookup, Lookup, LookupFactory, MapLookup, StreamTableJoin};
pub(crate) use join_rows::JoinRows;
pub(crate) use list_entries::ListTime;
pub(crate) use local_calls::LocalCalls;
pub(crate) use ordered_store::OrderedStore;
pub use processor::ProcessorContext;
pub(crate) use processor::ProcessorStep;
pub use processor_global::ProcessorGlobalStore;
pub use processor_store::ProcessorStore;
pub use processor_versions::ProcessorVersionedStore;
pub use processor_windows::{ProcessorSessionStore, ProcessorWindowStore};
pub use record_context::RecordContext;
pub(crate) use routed::RoutedTopics;
pub(crate) use sessions::{Merge, SessionAggregate};
pub(crate) use sink::{Destination, Sink};
pub(crate) use sliding::SlidingAggregate;
pub(crate) use source::{Source, SourceCodec, StreamSource, TableSource};
pub(crate) use stateless::{
    FlatMap, FlatMapValues, ForwardIf, Inspect, Map, MapValues, Pass, Predicate, Predicates, SelectKey, Split,
};
pub use store_entries::StoreEntries;
pub(crate) use store_spec::{CacheFigures, Medium, StoreCodec, StoreLayout, StoreSpec, TaskStore};
pub(crate) use stream_join::{Joiner, Side, StreamStreamJoin, Unmatched};
pub(crate) use suppress::{Bound, LetGo, Suppress, Suppressing};
pub(crate) use suppress_buffer::{Buffer, SuppressLookup, Until};
pub(crate) use table::{Change, Kept, TableChild, TableChildren, TableProcessor};
pub(crate) use table_join::{JoinLookup, PassChanges, TableJoin};
pub(crate) use table_store::TableStore;
pub(crate) use table_views::{
    Materialize, MaterializeValues, TableFilter, TableMapValues, TellLatest, ToStream,
};
pub(crate) use versioned::{MaterializeVersions, VersionedReader, VersionedSource, VersionedTable};
pub(crate) use versioned_rows::VersionedRows;
pub(crate) use window_table::{Emit, WindowTable};
pub(crate) use windowed::{AlignedAggregate, AlignedFinal, Entrance};
pub(crate) use wiring::{
    Built, Flush, FollowsTime, NodeFactory, OpenStore, Punctuates, SourceFactory, Wiring, following_node,
    guarded_node, inner_node, node, table_node, view_node,
};

/// A record on its way through the processors: borrowed, so that no step copies what it does not change.
pub(crate) struct Record<'a, K, V> {
    pub(crate) key: &'a K,
    pub(crate) value: &'a V,
    pub(crate) timestamp_ms: i64,
}

impl<K, V> Clone for Record<'_, K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V> Copy for Record<'_, K, V> {}

impl<'a, K, V> Record<'a, K, V> {
    pub(crate) fn with<'b, K2, V2>(self, key: &'b K2, value: &'b V2) -> Record<'b, K2, V2> {
        Record { key, value, timestamp_ms: self.timestamp_ms }
    }
}

/// One step of a topology inside a task.
pub(crate) trait Processor<K, V> {
    /// Handles a record: depth first, everything that follows from it is done when this returns.
    fn process(&mut self, context: &mut Context, record: Record<'_, K, V>) -> Result<(), TaskError>;
}

/// A processor that a parent forwards to. Shared where streams merge.
pub(crate) type Child<K, V> = Rc<dyn Step<K, V>>;

/// What is entered through a shared pointer: a step that remembers nothing as it is, any other processor in a cell. The
/// cell is behind the trait and not around it, for where its value lies would have to be computed for each record.
pub(crate) trait Step<K, V> {
    /// As [`Processor::process`].
    fn enter(&self, context: &mut Context, record: Record<'_, K, V>) -> Result<(), TaskError>;
}

impl<K, V, P: Processor<K, V>> Step<K, V> for RefCell<P> {
    fn enter(&self, context: &mut Context, record: Record<'_, K, V>) -> Result<(), TaskError> {
        // The borrow cannot conflict: topologies have no cycles, so no processor is entered before it returned.
        self.borrow_mut().process(context, record)
    }
}

/// Everything that follows a processor.
pub(crate) struct Children<K, V>(pub(crate) Vec<Child<K, V>>);

impl<K, V> Children<K, V> {
    /// Inlined for the one child that most steps have: calling it is the last thing that they do.
    #[inline]
    pub(crate) fn forward(&self, context: &mut Context, record: Record<'_, K, V>) -> Result<(), TaskError> {
        context.effects += 1;
        match &self.0[..] {
            [child] => child.enter(context, record),
            children => children.iter().try_for_each(|child| child.enter(context, record)),
        }
    }
}

/// A topic in the task's list of topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TopicId(pub(crate) u32);

/// A record that leaves the task.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    pub(crate) topic: TopicId,
    pub(crate) kind: OutputKind,
    pub(crate) key: Option<Bytes>,
    pub(crate) value: Option<Bytes>,
    pub(crate) timestamp_ms: i64,
    pub(crate) headers: Headers,
}

/// How an output finds its partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutputKind {
    /// By the hash of the key, or as the producer likes when there is none.
    ByKey,
    /// By the hash of the key's first bytes.
    ByKeyPrefix(usize),
    /// To this partition.
    Partition(i32),
    /// To the task's own partition: a store's changelog.
    Changelog,
}
