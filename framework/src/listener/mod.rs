//! Listeners: async functions that consume topics.
//!
//! # Arguments
//!
//! | Argument | Is | Missing |
//! |---|---|---|
//! | a type with `#[derive(Record)]` | the value, in the type's format | `Option<Order>` for tombstones |
//! | a struct with `#[derive(Headers)]` | the headers that its fields name | `Option` around a field |
//! | [`Json<T>`](crate::serde::Json) | the value, from JSON | `Option<Json<T>>` for tombstones |
//! | [`Value<T>`] | the value, in the format that `T` names ([`DefaultSerde`]) | `Option<Value<T>>` |
//! | [`Key<K>`] | the key, likewise | `Option<Key<K>>` |
//! | [`Header<"name", T>`](Header) | the last header of that name | `Option<Header<"name", T>>` |
//! | [`Headers`](klamm_client::Headers) | all headers | |
//! | [`RecordMeta`] | topic, partition, offset, timestamp, attempt | |
//! | [`TraceContext`](crate::trace::TraceContext) | the trace that the record belongs to | |
//! | [`ConsumerRecord`](klamm_client::ConsumerRecord) | the record, undecoded | |
//! | [`State<T>`] | what [`App::state`](crate::App::state) was given | an error at start |
//! | [`Ack`] | the acknowledgement, with `ack = manual` | an error at start |
//! | `Valid<E>` | an `E` that keeps the rules of its type (feature `garde`) | |
//! | [`Tx`](crate::template::Tx) | the open transaction, with `transactional` | an error at start |
//! | [`Template<K, V>`](crate::Template) | a template of the app, in the open transaction | an error at start |
//! | [`Batch<T>`] | several records, each made into a `T`; first argument | |
//!
//! Whatever cannot be made is a [`Rejection`] and goes to the [`FailurePolicy`]; take `Result<E, Rejection>` to see to
//! it yourself. Arguments of your own implement [`FromRecord`].
//!
//! # Results
//!
//! `()` or `Result<(), E>` with any error type; a [`Reply<T>`] in the place of `()` answers the record. With a
//! [`Batch`] also [`BatchOutcome`], which speaks for each record.
//!
//! # How it runs
//!
//! Each listener has one consumer. Its poll loop only sorts records into lanes (by partition, by key, or each for
//! itself: [`Dispatch`]) and pauses a partition that has its share of the budget in hand. Workers, at most
//! `concurrency` of them, take the lanes whose turn it is, and tell one ledger per partition what is finished. A lane
//! in retry has no worker. Dead letters go out side by side, and their records are finished when they are acknowledged.
//! Commits come from the ledger alone, and never pass the lowest record that is not finished.
//!
//! [`DefaultSerde`]: crate::serde::DefaultSerde

mod ack;
mod builder;
mod container;
mod dispatch;
mod extract;
mod failed_lookups;
mod failure;
mod flow;
mod handler;
mod intercept;
mod ledger;
mod lookups;
mod observe;
mod outcome;
mod partitions;
mod reply;
mod retry_topics;
mod topics;

pub use ack::{Ack, AckError};
pub use builder::{
    AckPolicy, CommitOnAssign, HasGroup, Listener, ListenerBuilder, MayHaveGroup, WantsGroup, WantsHandler,
};
pub(crate) use builder::{Settings, topics_of};
pub use container::{
    CommandError, DrainReport, Event, Events, ListenerEvent, ListenerFailure, ListenerHandle, PauseReason,
    SeekTo, Trouble, UnfinishedRecord,
};
pub(crate) use container::{Container, EventHub, EventSource, NotStarted, Surroundings, make_missing};
pub use dispatch::Dispatch;
#[cfg(feature = "asyncapi")]
pub(crate) use extract::HeaderField;
pub(crate) use extract::States;
#[cfg(feature = "garde")]
pub use extract::Valid;
pub use extract::{
    Batch, BatchDelivery, Delivery, FromBatch, FromRecord, Header, HeaderName, Key, Needs, RecordMeta,
    Rejection, State, Value,
};
pub use failure::{Backoff, BoxError, Failure, FailureKind, FailurePolicy, Unreadable, Unsendable};
pub(crate) use handler::Call;
pub use handler::Handler;
#[cfg(feature = "macros")]
pub(crate) use handler::prepare_batch;
#[doc(hidden)]
pub use handler::{Erased, OfBatch, OfRecord};
pub(crate) use intercept::Interceptors;
pub use intercept::{Before, ListenInterceptor};
pub use observe::METRICS;
#[doc(hidden)]
pub use outcome::Answers;
pub use outcome::{BatchOutcome, HandlerError, IntoBatchOutcome, IntoOutcome};
pub(crate) use partitions::wrong_with;
pub use partitions::{IntoNumbers, Partitions, StartAt};
#[doc(hidden)]
pub use reply::Answer;
pub use reply::Reply;
pub(crate) use retry_topics::RetryTopics;
pub use topics::IntoTopics;
pub(crate) use topics::{DeadLetterTopics, Topics, is_legal};
