//! What most programs need: `use klamm::prelude::*;`.

pub use crate::app::{App, AppHandle};
pub use crate::error::Error;
pub use crate::listener::{
    Ack, AckPolicy, Backoff, Batch, BatchOutcome, CommitOnAssign, Dispatch, FailurePolicy, Header, Key,
    Listener, RecordMeta, Rejection, Reply, State, Value,
};
#[cfg(feature = "json")]
pub use crate::serde::Json;
pub use crate::template::{Template, Tx};
#[cfg(feature = "macros")]
pub use klamm_macros::{Deserialize, Headers, Record, Serialize, kafka_listener};

// The traits; with the macros, the derives of the same names are ours, which need no dependency on serde.
#[cfg(not(feature = "macros"))]
pub use ::serde::{Deserialize, Serialize};
#[cfg(feature = "macros")]
pub use ::serde::{de::Deserialize, ser::Serialize};
pub use klamm_client::{ConsumerRecord, Headers};
