//! How listeners end, and what is left of their work then.

use std::fmt;
use std::sync::Arc;

use klamm_client::{ConsumeError, ProduceError, TopicPartition};
use thiserror::Error;

use crate::listener::failure::Failure;

/// Why a listener ended by itself.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum ListenerFailure {
    /// A record failed, and the failure policy says to stop. It is not committed and comes again after a restart.
    #[error("{topic}-{partition}, offset {offset}: {failure}")]
    Record {
        /// Its topic.
        topic: Arc<str>,
        /// Its partition.
        partition: i32,
        /// Its offset.
        offset: i64,
        /// Why it failed.
        failure: Arc<Failure>,
    },
    /// The dead letter of a record was refused for good, and the failure policy says to stop then
    /// ([`Unsendable::Stop`](crate::listener::Unsendable::Stop)). The record comes again after a restart.
    #[error("{topic}-{partition}, offset {offset}: its dead letter cannot be sent: {source}")]
    Unsendable {
        /// Its topic.
        topic: Arc<str>,
        /// Its partition.
        partition: i32,
        /// Its offset.
        offset: i64,
        /// Why it was refused.
        source: Arc<ProduceError>,
    },
    /// The transactions of a [transactional](crate::listener::ListenerBuilder::transactional) listener were refused for
    /// a minute. What was not committed comes again after a restart.
    #[error(
        "the transactions of {partition} are refused: {reason} (a transactional listener may have to be allowed to \
         write to the transactional ids that begin with its group's name, and to read its group)"
    )]
    Transactions {
        /// The partition whose transactions they are.
        partition: TopicPartition,
        /// What the cluster says.
        reason: Arc<str>,
    },
    /// The consumer met an error that retrying does not cure.
    #[error(transparent)]
    Consumer(#[from] ConsumeError),
    /// The consumer ended without saying why. This is a defect of klamm.
    #[error("its consumer ended unexpectedly")]
    Ended,
}

/// A record that was begun with and not finished when its listener ended. It is not committed
/// and will be delivered again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnfinishedRecord {
    /// The listener's id.
    pub listener: Arc<str>,
    /// The record's topic.
    pub topic: Arc<str>,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
}

impl fmt::Display for UnfinishedRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}-{} offset {}", self.listener, self.topic, self.partition, self.offset)
    }
}

/// How a shutdown went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrainReport {
    /// Records that were in work, in retry or not acknowledged at the deadline.
    pub unfinished: Vec<UnfinishedRecord>,
    /// The listeners whose last commit failed: what they finished since the commit before may be delivered again.
    pub uncommitted: Vec<Arc<str>>,
}

impl DrainReport {
    /// Whether everything that was begun is finished and committed.
    pub fn is_clean(&self) -> bool {
        self.unfinished.is_empty() && self.uncommitted.is_empty()
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.unfinished.extend(other.unfinished);
        self.uncommitted.extend(other.uncommitted);
    }
}

/// How a container ended.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    pub(crate) report: DrainReport,
    pub(crate) failure: Option<ListenerFailure>,
}
