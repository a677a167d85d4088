//! Processors: what runs inside a task. Typed from source to sink; types are erased only while a task is put together.

mod aggregate;
mod change_format;
mod foreign_key;
mod global;
mod grouped_table;
mod join;
mod murmur3;
mod ordered_store;
mod sink;
mod source;
mod stateless;
mod subscription_format;
mod table;
mod table_join;
mod table_store;
mod table_views;
mod window_table;
mod windowed;
mod wiring;

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use klamm_client::Headers;

use super::error::TaskError;

pub(crate) use aggregate::{Aggregate, Fold};
pub(crate) use foreign_key::{AnswerSource, Answers, Subscribe, SubscriptionSource, TellSubscribers};
pub(crate) use global::{GlobalJoin, GlobalRows};
pub(crate) use grouped_table::{GroupChanges, GroupSource, TableAggregate, Unfold};
pub(crate) use join::{FilterLookup, Lookup, LookupFactory, MapLookup, StreamTableJoin};
pub(crate) use ordered_store::{ListTime, OrderedStore};
pub(crate) use sink::Sink;
pub(crate) use source::{Source, SourceCodec, StreamSource, TableSource};
pub(crate) use stateless::{
    FlatMap, FlatMapValues, ForwardIf, Inspect, Map, MapValues, Pass, Predicate, Predicates, SelectKey, Split,
};
pub(crate) use table::{Change, Kept, TableChild, TableChildren, TableProcessor};
pub(crate) use table_join::{JoinLookup, PassChanges, TableJoin};
pub(crate) use table_store::{StoreCodec, StoreLayout, StoreSpec, TableStore, TaskStore};
pub(crate) use table_views::{Materialize, MaterializeValues, TableFilter, TableMapValues, ToStream};
pub(crate) use window_table::{Emit, WindowTable};
pub(crate) use windowed::{
    AlignedAggregate, AlignedFinal, Entrance, Merge, SessionAggregate, SlidingAggregate,
};
pub(crate) use wiring::{
    Flush, NodeFactory, OpenStore, SourceFactory, Wiring, inner_node, node, table_node, view_node,
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

/// A processor that a parent forwards to. Shared where streams merge. The borrow cannot conflict: topologies have no
/// cycles, so no processor is entered again before it returned.
pub(crate) type Child<K, V> = Rc<RefCell<dyn Processor<K, V>>>;

/// Everything that follows a processor.
pub(crate) struct Children<K, V>(pub(crate) Vec<Child<K, V>>);

impl<K, V> Children<K, V> {
    pub(crate) fn forward(&self, context: &mut Context, record: Record<'_, K, V>) -> Result<(), TaskError> {
        for child in &self.0 {
            child.borrow_mut().process(context, record)?;
        }
        Ok(())
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

/// What processors see of their task.
pub(crate) struct Context {
    /// The names of the topics, by id: serdes are told where bytes go to and come from.
    pub(crate) topics: Vec<Arc<str>>,
    /// What has been produced and not taken yet.
    pub(crate) outputs: Vec<Output>,
    /// The task's.
    pub(crate) partition: i32,
    /// The headers of the record in work; they follow it to every output.
    pub(crate) headers: Headers,
    /// Whether table updates wait for the commit, so that only the last one of each key is forwarded.
    pub(crate) deduplicate: bool,
    /// Memory held by changes that are not committed, in bytes, as estimated.
    pub(crate) uncommitted_bytes: usize,
    /// Records left out, by reason.
    pub(crate) dropped: Dropped,
}

impl Context {
    pub(crate) fn new(topics: Vec<Arc<str>>, deduplicate: bool) -> Self {
        Self {
            topics,
            outputs: Vec::new(),
            partition: 0,
            headers: Headers::new(),
            deduplicate,
            uncommitted_bytes: 0,
            dropped: Dropped::default(),
        }
    }

    pub(crate) fn topic(&self, id: TopicId) -> &str {
        self.topics.get(id.0 as usize).map_or("", |name| name)
    }
}

/// Records that were left out, by reason: Kafka's `dropped-records`, told apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Dropped {
    /// Without a key where one is needed: tables, repartitioning, aggregations, joins.
    pub null_key: u64,
    /// Without a value where one is needed: aggregations and joins.
    pub null_value: u64,
    /// Too late for their window.
    pub late: u64,
    /// With a negative timestamp.
    pub negative_timestamp: u64,
    /// Not readable with the serde, under [`OnBadRecord::Skip`](crate::streams::OnBadRecord::Skip).
    pub unreadable: u64,
}

impl Dropped {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.null_key + self.null_value + self.late + self.negative_timestamp + self.unreadable
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.null_key += other.null_key;
        self.null_value += other.null_value;
        self.late += other.late;
        self.negative_timestamp += other.negative_timestamp;
        self.unreadable += other.unreadable;
    }
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { null_key, null_value, late, negative_timestamp, unreadable } = self;
        write!(
            f,
            "{null_key} without key, {null_value} without value, {late} late, {negative_timestamp} with a negative \
             timestamp, {unreadable} unreadable"
        )
    }
}
