//! Streams: typed pipelines over topics, with state.
//!
//! [`StreamsBuilder`] makes [`KStream`]s and [`KTable`]s; what they are told to do becomes a [`Topology`], which is
//! data. A topology runs against a broker with [`Topology::start`], and without one in [`TopologyTestDriver`].
//!
//! - `builder`, `stream`, `stateless`, `fallible`, `asynchronous`, `outlets`, `branch`, `options`: streams.
//!   `grouped`, `windowed`, `session_windowed`, `cogrouped`, `windows`: aggregations. `table` and its siblings,
//!   `suppress`: tables. `stream_join`: streams with streams. `processor`, `store_refs`: steps of
//!   one's own.
//! - `policy`, `on_error`, `stamps`, `routing`: what an operator does with records that fail, how records get their
//!   time, where they go.
//! - `topology`: nodes, edges, sub-topologies, partition counts; descriptions and fingerprints.
//! - `node`, `task`: what runs, one record at a time; pure but for its stores.
//! - `idling`: how long records wait for inputs that have none. `input_time`: what is committed of their time.
//! - `driver`: the test driver. `runtime`: threads, consumer, producer, commits, restore.
//!
//! Null policy: a type without null (`String`) never meets null; reading one is an error under the
//! source's [`ErrorPolicy`].
//! `Option<T>` reads null as `None`. Where a key is needed (tables, repartitioning, aggregations, joins) null
//! keys are dropped and counted; where a value is needed (aggregations, also windowed ones, and joins) null
//! values are. See [`Dropped`].

mod asynchronous;
mod branch;
mod builder;
mod cache;
#[cfg(test)]
mod calling_properties;
mod cogrouped;
mod cogrouped_windows;
mod driver;
mod driver_directory;
mod driver_io;
mod driver_time;
mod error;
mod fallible;
mod foreign_key;
#[cfg(test)]
mod fragile_store;
mod global;
mod grouped;
mod grouped_table;
mod idling;
mod incoming;
mod input_time;
#[cfg(test)]
mod join_properties;
mod node;
mod on_error;
mod options;
mod outlets;
mod policy;
mod processing;
mod processor;
mod queries;
mod query;
mod routing;
mod runtime;
mod session_windowed;
mod stamps;
mod stateless;
mod store_refs;
mod stream;
mod stream_join;
mod suppress;
mod table;
mod table_join;
mod table_key;
#[cfg(test)]
mod table_properties;
#[cfg(test)]
mod table_rig;
mod task;
mod topology;
#[cfg(test)]
mod window_properties;
mod windowed;
mod windowed_by;
mod windows;

pub use asynchronous::AsyncCalls;
pub use branch::BranchedStream;
pub use builder::StreamsBuilder;
pub use cogrouped::CogroupedStream;
pub use cogrouped_windows::{CogroupedBy, SessionWindowedCogroupedStream, TimeWindowedCogroupedStream};
pub use driver::TopologyTestDriver;
pub use driver_io::{Piped, TestInput, TestOutput, TestRecord, TestStore};
pub use error::{RecordPart, RecordPlace, TaskError, TopologyError};
pub use foreign_key::ForeignKeyJoined;
pub use global::GlobalKTable;
pub use grouped::KGroupedStream;
pub use grouped_table::KGroupedTable;
pub use node::{
    Dropped, ProcessorContext, ProcessorGlobalStore, ProcessorSessionStore, ProcessorStore,
    ProcessorVersionedStore, ProcessorWindowStore, RecordContext, StoreEntries, StoreHandle,
};
pub use on_error::StreamEnd;
pub use options::{Consumed, Grouped, Joined, Materialized, Produced, Repartitioned, Topics};
pub use policy::ErrorPolicy;
pub use processor::{InRecord, Processor, Punctuation, PunctuationType, PunctuatorId};
pub use queries::{Answered, AnsweredBy, PageToken, PositionBound, QueryError, QueryRow, Rows, StoreQuery};
pub use routing::Partitions;
pub use runtime::{
    AfterFailure, AppState, AppStore, FailingTask, InstanceTasks, KeyHosts, METRICS, PauseReason,
    StandbyTask, StoreMetrics, StreamsApp, StreamsConfig, StreamsError, StreamsMetrics, TaskFailure,
    TaskMetrics, TaskState,
};
pub use session_windowed::SessionWindowedStream;
pub use stamps::Timestamps;
pub use store_refs::{
    GlobalStoreRef, SessionStoreRef, StoreName, StoreRef, VersionedStoreRef, WindowStoreRef,
};
pub use stream::KStream;
pub use stream_join::StreamJoined;
pub use suppress::{BufferLimit, Suppressed, SuppressedUntil, TimeLimit, WindowClose};
pub use table::KTable;
pub use table_key::TableKey;
pub use task::TaskId;
pub use topology::{
    Fingerprint, Migration, NodeDescription, NotATopology, Orphan, PartitionError, SubTopologyDescription,
    Topology, TopologyDescription,
};
pub use windowed::TimeWindowedStream;
pub use windowed_by::WindowedBy;
pub use windows::{
    HoppingWindows, JoinWindows, SessionWindowedSerde, SessionWindows, SlidingWindows, TumblingWindows,
    UnlimitedWindows, Window, Windowed, WindowedSerde,
};
