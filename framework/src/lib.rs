//! Event streaming for Rust: listeners, typed streams, a client and an embedded broker that speak the Kafka protocol.

// The macros' output says `::klamm`, also inside of this crate.
#[allow(unused_extern_crates)]
extern crate self as klamm;

#[cfg(feature = "macros")]
#[doc(hidden)]
#[path = "private.rs"]
#[allow(missing_docs)]
pub mod __private;
pub mod app;
mod error;
pub mod listener;
pub mod prelude;
pub mod serde;
#[cfg(feature = "streams-core")]
pub mod store;
#[cfg(feature = "streams-core")]
pub mod streams;
pub mod template;

pub use app::{App, AppHandle};
pub use error::{Error, Result};
pub use listener::{
    Ack, AckPolicy, Backoff, Batch, BatchOutcome, Dispatch, FailurePolicy, Header, Key, Listener, RecordMeta,
    State, Value,
};
pub use template::Template;

pub use klamm_client as client;
#[cfg(feature = "macros")]
pub use klamm_macros::{Record, kafka_listener};
