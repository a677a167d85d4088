//! Listeners: async functions that consume topics. Arguments are extractors, failures go through one policy, and offsets are
//! committed no further than the lowest record that is not finished.

mod ack;
mod builder;
mod container;
mod dispatch;
mod extract;
mod failure;
mod handler;
mod ledger;
mod outcome;

pub use ack::{Ack, AckError};
pub use builder::{AckPolicy, IntoTopics, Listener, ListenerBuilder, WantsGroup, WantsHandler};
pub(crate) use container::Container;
pub use container::{DrainReport, ListenerFailure, ListenerHandle, UnfinishedRecord};
pub use dispatch::Dispatch;
pub(crate) use extract::States;
pub use extract::{
    Batch, BatchDelivery, Delivery, FromBatch, FromRecord, Header, HeaderName, Key, Needs, RecordMeta,
    Rejection, State, Value,
};
pub use failure::{Backoff, BoxError, Failure, FailureKind, FailurePolicy};
pub(crate) use handler::Call;
pub use handler::Handler;
#[doc(hidden)]
pub use handler::{Erased, OfBatch, OfRecord};
pub use outcome::{BatchOutcome, IntoBatchOutcome, IntoOutcome};
