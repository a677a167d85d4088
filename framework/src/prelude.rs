//! What most programs need: `use klamm::prelude::*;`.

pub use crate::app::{App, AppHandle};
pub use crate::error::Error;
pub use crate::listener::{
    Ack, AckPolicy, Backoff, Batch, BatchOutcome, CommitOnAssign, Dispatch, FailurePolicy, Header, Key,
    Listener, RecordMeta, Rejection, State, Value,
};
#[cfg(feature = "json")]
pub use crate::serde::Json;
pub use crate::template::Template;
#[cfg(feature = "macros")]
pub use klamm_macros::{Headers, Record, kafka_listener};

pub use ::serde::{Deserialize, Serialize};
pub use klamm_client::{ConsumerRecord, Headers};
