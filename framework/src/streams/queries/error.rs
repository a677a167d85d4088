//! Why a query has no answer.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::store::StoreError;

/// Why a query has no answer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The store does not exist, holds other types, or cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store cannot be asked this.
    #[error("state store `{store}` cannot be asked this: {why}")]
    Wrong {
        /// The store.
        store: Arc<str>,
        /// Why.
        why: Arc<str>,
    },
    /// Nobody has this partition of the store now, as far as is known here: it moves or is restored; or whoever has it
    /// told no address (`StreamsConfig::application_server`).
    #[error("nobody is known to have partition {partition} of state store `{store}` now ({why})")]
    NotHere {
        /// The store.
        store: Arc<str>,
        /// The partition.
        partition: i32,
        /// What is known.
        why: Arc<str>,
    },
    /// Another instance has this partition of the store, and this one was not to ask it, or cannot.
    #[error("partition {partition} of state store `{store}` is at {host}: {why}")]
    Elsewhere {
        /// The store.
        store: Arc<str>,
        /// The partition.
        partition: i32,
        /// Where it is.
        host: Arc<str>,
        /// Why it was not asked.
        why: Arc<str>,
    },
    /// An instance does not answer.
    #[error("instance {host} does not answer: {why}")]
    Unreachable {
        /// The instance.
        host: Arc<str>,
        /// What happened.
        why: Arc<str>,
    },
    /// An instance answers with an error of its own.
    #[error("instance {host} answers: {message}")]
    Refused {
        /// The instance.
        host: Arc<str>,
        /// Which error it is.
        code: Arc<str>,
        /// What it says.
        message: Arc<str>,
        /// Whether it may be different in a moment.
        is_retriable: bool,
    },
    /// Records that the query names have not had their effect on the store yet.
    #[error(
        "partition {partition} of state store `{store}` has the records of `{topic}` up to {reached}, not {wanted} yet"
    )]
    NotUpToBound {
        /// The store.
        store: Arc<str>,
        /// The partition.
        partition: i32,
        /// The input topic.
        topic: Arc<str>,
        /// The first offset that is not in the store; 0 where that is not known.
        reached: i64,
        /// The offset that was to be in it.
        wanted: i64,
    },
    /// A standby lacks more than the query allows.
    #[error(
        "the standby of partition {partition} of state store `{store}` lacks {} records, and {allowed} are allowed",
        .behind.map_or_else(|| "an unknown number of".to_owned(), |behind| behind.to_string())
    )]
    TooStale {
        /// The store.
        store: Arc<str>,
        /// The partition.
        partition: i32,
        /// How many it lacks.
        behind: Option<u64>,
        /// How many it may.
        allowed: u64,
    },
    /// Another instance runs a version of the application whose store of this name holds something else.
    #[error(
        "state store `{store}` of {host} is of another form than here: the instances run different versions"
    )]
    Differs {
        /// The store.
        store: Arc<str>,
        /// Whom this instance asked; itself, of one that was asked.
        host: Arc<str>,
    },
    /// Where another instance was, one of another application is.
    #[error("this is an instance of application `{application}`")]
    OtherApplication {
        /// Its application.
        application: Arc<str>,
    },
    /// Too many queries are being answered.
    #[error("too many queries are being answered now: {limit} at a time")]
    Overloaded {
        /// How many are.
        limit: usize,
    },
    /// There was no answer in time.
    #[error("no answer within {within:?}: {last}")]
    TimedOut {
        /// The time.
        within: Duration,
        /// Why there was none last.
        last: Box<QueryError>,
    },
}

impl QueryError {
    /// Whether it may be different in a moment.
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Store(StoreError::NotHere { .. })
            | Self::NotHere { .. }
            | Self::Unreachable { .. }
            | Self::NotUpToBound { .. }
            | Self::TooStale { .. }
            | Self::OtherApplication { .. }
            | Self::Overloaded { .. }
            | Self::TimedOut { .. } => true,
            Self::Refused { is_retriable, .. } => *is_retriable,
            Self::Store(_) | Self::Wrong { .. } | Self::Elsewhere { .. } | Self::Differs { .. } => false,
        }
    }

    /// Its name, as answers over HTTP have it.
    pub fn code(&self) -> &str {
        match self {
            Self::Store(StoreError::Unknown { .. }) => "unknown_store",
            Self::Store(StoreError::NotHere { .. }) | Self::NotHere { .. } => "not_here",
            Self::Store(_) => "store_error",
            Self::Wrong { .. } => "wrong_query",
            Self::Elsewhere { .. } => "elsewhere",
            Self::Unreachable { .. } => "unreachable",
            Self::Refused { code, .. } => code,
            Self::NotUpToBound { .. } => "not_up_to_bound",
            Self::TooStale { .. } => "too_stale",
            Self::Differs { .. } => "differs",
            Self::OtherApplication { .. } => "other_application",
            Self::Overloaded { .. } => "overloaded",
            Self::TimedOut { .. } => "timed_out",
        }
    }
}
