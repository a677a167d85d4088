//! What goes into the transaction coordinator and what comes out of it.

use std::collections::BTreeSet;

use klamm_protocol::ErrorCode;

use super::transaction::{Partitions, ProducerIdAndEpoch, State, TransactionVersion};

/// The number of a decision to commit or abort, in the life of a coordinator: producers may end one transaction after
/// the other by the same id and epoch.
pub(crate) type Decision = u64;

/// Something that the coordinator is asked to do.
#[derive(Debug, Clone)]
pub(super) enum Command {
    /// InitProducerId of a transactional id. Answered with [`Reply::Producer`], once an open transaction is aborted.
    Init(InitProducer),
    /// AddPartitionsToTxn, AddOffsetsToTxn, or what a batch of a version 2 client implies. Answered with
    /// [`Reply::Code`], once the transaction before has ended.
    Add(AddPartitions),
    /// Whether partitions take part, changing nothing. Answered with [`Reply::Codes`].
    Verify(AddPartitions),
    /// EndTxn. Answered with [`Reply::Producer`] as soon as the decision is durable.
    End(EndTransaction),
    /// Answered with [`Reply::Markers`], once there are any but those: they are durably decided.
    NextMarkers {
        /// What the one that asks is still marking, or has marked and not yet been told that this is noted.
        under_way: BTreeSet<Decision>,
    },
    /// The markers of a transaction are durable in all of its partitions. Answered with [`Reply::Done`].
    Marked {
        /// The transactional id.
        id: String,
        /// As in the markers.
        decision: Decision,
    },
    /// DescribeTransactions. Answered with [`Reply::Described`].
    Describe {
        /// The transactional id.
        id: String,
    },
    /// ListTransactions. Answered with [`Reply::Listed`].
    List,
    /// Forget ids that nobody uses any more.
    Expire,
}

/// InitProducerId.
#[derive(Debug, Clone)]
pub(crate) struct InitProducer {
    /// The transactional id; never empty.
    pub(crate) id: String,
    /// `transaction.timeout.ms`
    pub(crate) timeout_ms: i32,
    /// Who the client was, if it says so (v3, KIP-360).
    pub(crate) expected: Option<ProducerIdAndEpoch>,
    /// A producer id that nobody has, when [`Reply::NeedsProducerId`] was answered before.
    pub(crate) fresh_producer_id: Option<i64>,
}

/// AddPartitionsToTxn.
#[derive(Debug, Clone)]
pub(crate) struct AddPartitions {
    /// The transactional id.
    pub(crate) id: String,
    /// Who.
    pub(crate) producer: ProducerIdAndEpoch,
    /// Which.
    pub(crate) partitions: Partitions,
    /// What the client knows.
    pub(crate) version: TransactionVersion,
}

/// EndTxn.
#[derive(Debug, Clone)]
pub(crate) struct EndTransaction {
    /// The transactional id.
    pub(crate) id: String,
    /// Who.
    pub(crate) producer: ProducerIdAndEpoch,
    /// Commit, or abort.
    pub(crate) commit: bool,
    /// What the client knows.
    pub(crate) version: TransactionVersion,
    /// As in [`InitProducer`].
    pub(crate) fresh_producer_id: Option<i64>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    /// Who the client is from now on.
    Producer(Result<ProducerIdAndEpoch, ErrorCode>),
    /// Nothing was done: ask again with a producer id that nobody has.
    NeedsProducerId,
    /// For all partitions.
    Code(ErrorCode),
    /// For each partition, in the order of the topics.
    Codes(Result<Vec<(String, i32, ErrorCode)>, ErrorCode>),
    /// To be written to partitions.
    Markers(Vec<Markers>),
    /// Nothing where there is no such id.
    Described(Option<Description>),
    /// Every id that is durable.
    Listed(Vec<Description>),
    /// It is noted.
    Done,
}

/// How a transaction ends, for its partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Markers {
    /// The transactional id.
    pub(crate) id: String,
    /// Which of its ends this is.
    pub(crate) decision: Decision,
    /// With the epoch that the markers carry.
    pub(crate) producer: ProducerIdAndEpoch,
    /// Commit, or abort.
    pub(crate) commit: bool,
    /// Where they go.
    pub(crate) partitions: Partitions,
    /// Whether markers carry a higher epoch than the records (KIP-890).
    pub(crate) version: TransactionVersion,
}

/// A transactional id, as it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Description {
    /// The transactional id.
    pub(crate) id: String,
    /// Where it is.
    pub(crate) state: State,
    /// Who has it.
    pub(crate) producer: ProducerIdAndEpoch,
    /// `transaction.timeout.ms`
    pub(crate) timeout_ms: i32,
    /// When the transaction began, -1 when none is open.
    pub(crate) started_at_ms: i64,
    /// What takes part.
    pub(crate) partitions: Partitions,
}
