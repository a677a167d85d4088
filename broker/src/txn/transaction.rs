//! One transactional id: the states of its transaction and what each call makes of them. Pure: a call gives the next
//! state whole, and nothing has changed until somebody keeps it.
//!
//! ```text
//! Empty ──add──▶ Ongoing ──end──▶ PrepareCommit ──marked──▶ CompleteCommit ──add──▶ Ongoing
//!                   │  └─end, fenced, too old─▶ PrepareAbort ──marked──▶ CompleteAbort ──add──▶ Ongoing
//! Empty, Complete ──end(abort), version 2──▶ PrepareAbort          Empty, Complete ──init──▶ Empty
//! ```
//!
//! Behaviour as Apache Kafka's coordinator has it (KIP-98, KIP-360, KIP-588, KIP-890), but for one thing: who asks for
//! a newer epoch with one that is neither the current nor the last one is fenced also while a transaction is open, and
//! cannot abort it.

use std::collections::{BTreeMap, BTreeSet};

use klamm_protocol::ErrorCode;

/// No producer id, epoch or time.
pub(super) const NONE: i64 = -1;
pub(super) const NO_EPOCH: i16 = -1;

/// The epoch that ends a transaction is one higher than the last that a client has: this is the last one for a client.
const LAST_EPOCH: i16 = i16::MAX - 1;

/// A producer, as it names itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ProducerIdAndEpoch {
    pub(crate) id: i64,
    pub(crate) epoch: i16,
}

/// What the client knows of transactions (`transaction.version`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TransactionVersion {
    /// Partitions are added by AddPartitionsToTxn, the epoch rises with InitProducerId alone.
    V1,
    /// Partitions are added by Produce, every end raises the epoch (KIP-890).
    V2,
}

impl TransactionVersion {
    /// Kafka's number for it.
    pub(super) fn number(self) -> i16 {
        match self {
            Self::V1 => 1,
            Self::V2 => 2,
        }
    }
}

/// Where a transaction is. The numbers are Kafka's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    Empty = 0,
    Ongoing = 1,
    PrepareCommit = 2,
    PrepareAbort = 3,
    CompleteCommit = 4,
    CompleteAbort = 5,
}

impl State {
    pub(super) const ALL: [Self; 6] = [
        Self::Empty,
        Self::Ongoing,
        Self::PrepareCommit,
        Self::PrepareAbort,
        Self::CompleteCommit,
        Self::CompleteAbort,
    ];

    /// As Kafka's tools print it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Ongoing => "Ongoing",
            Self::PrepareCommit => "PrepareCommit",
            Self::PrepareAbort => "PrepareAbort",
            Self::CompleteCommit => "CompleteCommit",
            Self::CompleteAbort => "CompleteAbort",
        }
    }

    /// The state that has this name.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// Decided, and not yet marked in every partition.
    pub(super) fn is_prepared(self) -> bool {
        matches!(self, Self::PrepareCommit | Self::PrepareAbort)
    }
}

/// The partitions of a transaction, by topic.
pub(crate) type Partitions = BTreeMap<String, BTreeSet<i32>>;

/// What is known of a transactional id. Stored as it is, but for `last_epoch`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Transaction {
    pub(super) producer_id: i64,
    /// The one before, after its epochs were used up; [`NONE`] when there is none.
    pub(super) previous_producer_id: i64,
    /// The one that the end of this transaction gives the client; [`NONE`] when it keeps its own.
    pub(super) next_producer_id: i64,
    pub(super) epoch: i16,
    /// The one before, for a client that did not hear the answer; forgotten at a restart, as Kafka does.
    pub(super) last_epoch: i16,
    pub(super) timeout_ms: i32,
    pub(super) state: State,
    pub(super) partitions: Partitions,
    /// When the open transaction began; [`NONE`] when there never was one.
    pub(super) started_at_ms: i64,
    pub(super) updated_at_ms: i64,
    pub(super) version: TransactionVersion,
}

/// What comes of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// This is the state from now on.
    Write(Transaction),
    /// The open transaction has to be aborted first, by this.
    AbortFirst(Transaction),
    /// Nothing changes: it was done before, or it is there already.
    Nothing,
    /// Nothing has happened; the call needs a producer id that nobody has.
    NeedsProducerId,
}

/// InitProducerId of a client that says who it was, or does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Init {
    pub(super) timeout_ms: i32,
    pub(super) expected: Option<ProducerIdAndEpoch>,
    pub(super) fresh_producer_id: Option<i64>,
}

/// EndTxn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    pub(super) producer: ProducerIdAndEpoch,
    pub(super) commit: bool,
    pub(super) version: TransactionVersion,
    pub(super) fresh_producer_id: Option<i64>,
}

impl Transaction {
    /// Of an id that nobody has used, before its first epoch.
    pub(super) fn new(producer_id: i64, timeout_ms: i32, now_ms: i64) -> Self {
        Self {
            producer_id,
            previous_producer_id: NONE,
            next_producer_id: NONE,
            epoch: NO_EPOCH,
            last_epoch: NO_EPOCH,
            timeout_ms,
            state: State::Empty,
            partitions: Partitions::new(),
            started_at_ms: NONE,
            updated_at_ms: now_ms,
            version: TransactionVersion::V1,
        }
    }

    /// A client begins anew: whoever had the id before is fenced.
    pub(super) fn init(&self, init: Init, now_ms: i64) -> Result<Next, ErrorCode> {
        if init.expected.is_some_and(|expected| !self.is_or_was(expected)) {
            return Err(ErrorCode::ProducerFenced);
        }
        match self.state {
            State::PrepareCommit | State::PrepareAbort => Err(ErrorCode::ConcurrentTransactions),
            State::Ongoing => Ok(Next::AbortFirst(self.fenced(now_ms))),
            State::Empty | State::CompleteCommit | State::CompleteAbort => Ok(self.next_epoch(init, now_ms)),
        }
    }

    /// Whether this is the producer that has the id, or the same one before an answer that it did not hear.
    fn is_or_was(&self, expected: ProducerIdAndEpoch) -> bool {
        let ProducerIdAndEpoch { id, epoch } = expected;
        let is = id == self.producer_id && (epoch == self.epoch || epoch == self.last_epoch);
        let was = id == self.previous_producer_id && epoch >= LAST_EPOCH && epoch == self.last_epoch;
        self.epoch == NO_EPOCH || is || was
    }

    fn next_epoch(&self, init: Init, now_ms: i64) -> Next {
        let empty = Self {
            timeout_ms: init.timeout_ms,
            state: State::Empty,
            next_producer_id: NONE,
            partitions: Partitions::new(),
            started_at_ms: NONE,
            updated_at_ms: now_ms,
            ..self.clone()
        };
        let repeats = init.expected.is_some_and(|expected| expected.epoch != self.epoch);
        if repeats && self.epoch != NO_EPOCH {
            // The answer to the same question was lost: it gets it again.
            return Next::Write(empty);
        }
        let last_epoch = if init.expected.is_some() { self.epoch } else { NO_EPOCH };
        if self.epoch < LAST_EPOCH {
            return Next::Write(Self { epoch: self.epoch + 1, last_epoch, ..empty });
        }
        match init.fresh_producer_id {
            None => Next::NeedsProducerId,
            Some(producer_id) => Next::Write(Self {
                producer_id,
                previous_producer_id: self.producer_id,
                epoch: 0,
                last_epoch,
                ..empty
            }),
        }
    }

    /// Partitions take part from now on; the first ones open the transaction.
    pub(super) fn add(
        &self,
        producer: ProducerIdAndEpoch,
        partitions: &Partitions,
        version: TransactionVersion,
        now_ms: i64,
    ) -> Result<Next, ErrorCode> {
        self.check(producer)?;
        match self.state {
            State::PrepareCommit | State::PrepareAbort => Err(ErrorCode::ConcurrentTransactions),
            State::Ongoing if self.has_all(partitions) => Ok(Next::Nothing),
            state => {
                let mut next = self.clone();
                if state != State::Ongoing {
                    (next.started_at_ms, next.partitions) = (now_ms, Partitions::new());
                }
                for (topic, indexes) in partitions {
                    next.partitions.entry(topic.clone()).or_default().extend(indexes);
                }
                (next.state, next.updated_at_ms, next.version) = (State::Ongoing, now_ms, version);
                Ok(Next::Write(next))
            }
        }
    }

    /// Whether the producer has an open transaction; of each partition, whether it takes part.
    pub(super) fn verify(&self, producer: ProducerIdAndEpoch) -> Result<(), ErrorCode> {
        self.check(producer)?;
        if self.state.is_prepared() {
            return Err(ErrorCode::ConcurrentTransactions);
        }
        Ok(())
    }

    pub(super) fn has(&self, topic: &str, partition: i32) -> bool {
        self.state == State::Ongoing
            && self.partitions.get(topic).is_some_and(|indexes| indexes.contains(&partition))
    }

    fn has_all(&self, partitions: &Partitions) -> bool {
        partitions.iter().all(|(topic, wanted)| {
            self.partitions.get(topic).is_some_and(|indexes| wanted.is_subset(indexes))
        })
    }

    fn check(&self, producer: ProducerIdAndEpoch) -> Result<(), ErrorCode> {
        if producer.id != self.producer_id {
            return Err(ErrorCode::InvalidProducerIdMapping);
        }
        if producer.epoch != self.epoch { Err(ErrorCode::ProducerFenced) } else { Ok(()) }
    }

    /// The client commits or aborts.
    pub(super) fn end(&self, end: End, now_ms: i64) -> Result<Next, ErrorCode> {
        if end.producer.id != self.producer_id && end.producer.id != self.previous_producer_id {
            return Err(ErrorCode::InvalidProducerIdMapping);
        }
        let repeats = end.version == TransactionVersion::V2 && self.is_ended_before(end.producer);
        if !repeats && end.producer != self.producer() {
            return Err(ErrorCode::ProducerFenced);
        }
        let invalid = Err(ErrorCode::InvalidTxnState);
        match (self.state, end.commit, end.version) {
            (State::Ongoing, ..) if repeats => Err(ErrorCode::ProducerFenced),
            (State::Ongoing, ..) => Ok(self.prepared(end, now_ms)),
            (State::PrepareCommit, true, _) | (State::PrepareAbort, false, _) if repeats => Ok(Next::Nothing),
            (State::PrepareCommit, true, _) | (State::PrepareAbort, false, _) => {
                Err(ErrorCode::ConcurrentTransactions)
            }
            // By version 2 the epoch has risen already: it is the next transaction that is ended.
            (State::PrepareCommit | State::PrepareAbort, _, TransactionVersion::V2) if !repeats => {
                Err(ErrorCode::ConcurrentTransactions)
            }
            (State::CompleteCommit, true, TransactionVersion::V1)
            | (State::CompleteAbort, false, TransactionVersion::V1) => Ok(Next::Nothing),
            (State::CompleteCommit, true, TransactionVersion::V2) if repeats => Ok(Next::Nothing),
            (State::CompleteAbort, false, TransactionVersion::V2) if repeats => Ok(Next::Nothing),
            // A transaction into which nothing was written is aborted too, so that nothing late can open it.
            (State::Empty | State::CompleteCommit | State::CompleteAbort, false, TransactionVersion::V2)
                if !repeats =>
            {
                let opened = Self { started_at_ms: now_ms, partitions: Partitions::new(), ..self.clone() };
                Ok(opened.prepared(end, now_ms))
            }
            _ => invalid,
        }
    }

    /// Whether this is who ended the last transaction, with what it knew before the answer.
    fn is_ended_before(&self, producer: ProducerIdAndEpoch) -> bool {
        let rose = producer.id == self.producer_id && self.epoch.checked_sub(1) == Some(producer.epoch);
        let rotated =
            producer.id == self.previous_producer_id && producer.epoch == LAST_EPOCH && self.epoch == 0;
        self.epoch > NO_EPOCH && (rose && producer.epoch > NO_EPOCH || rotated)
    }

    fn prepared(&self, end: End, now_ms: i64) -> Next {
        let mut next = self.clone();
        if end.version == TransactionVersion::V2 {
            if self.epoch >= LAST_EPOCH {
                let Some(fresh) = end.fresh_producer_id else { return Next::NeedsProducerId };
                next.next_producer_id = fresh;
            }
            (next.epoch, next.last_epoch) = (self.epoch.saturating_add(1), self.epoch);
        }
        next.state = if end.commit { State::PrepareCommit } else { State::PrepareAbort };
        (next.version, next.updated_at_ms) = (end.version, now_ms);
        Next::Write(next)
    }

    /// Aborted over the client's head: it took too long, or another one has its id. It is fenced.
    pub(super) fn fenced(&self, now_ms: i64) -> Self {
        Self {
            epoch: self.epoch.saturating_add(1),
            last_epoch: NO_EPOCH,
            state: State::PrepareAbort,
            updated_at_ms: now_ms,
            ..self.clone()
        }
    }

    /// All partitions are marked. Nothing where nothing was decided.
    pub(super) fn marked(&self, now_ms: i64) -> Option<Self> {
        let state = match self.state {
            State::PrepareCommit => State::CompleteCommit,
            State::PrepareAbort => State::CompleteAbort,
            _ => return None,
        };
        let mut next = Self { state, partitions: Partitions::new(), updated_at_ms: now_ms, ..self.clone() };
        if self.next_producer_id != NONE {
            (next.producer_id, next.epoch) = (self.next_producer_id, 0);
            (next.previous_producer_id, next.next_producer_id) = (self.producer_id, NONE);
        }
        Some(next)
    }

    /// Who may write now, or wrote the transaction that is ending.
    pub(super) fn producer(&self) -> ProducerIdAndEpoch {
        ProducerIdAndEpoch { id: self.producer_id, epoch: self.epoch }
    }

    /// Who the client is once the transaction has ended.
    pub(super) fn client(&self) -> ProducerIdAndEpoch {
        match self.next_producer_id {
            NONE => self.producer(),
            id => ProducerIdAndEpoch { id, epoch: 0 },
        }
    }

    /// When the open transaction has taken too long, by the wall clock.
    pub(super) fn times_out_at_ms(&self) -> Option<i64> {
        let open = self.state == State::Ongoing;
        open.then(|| self.started_at_ms.saturating_add(i64::from(self.timeout_ms.max(0))))
    }

    /// Whether nobody has used it for so long.
    pub(super) fn is_forgotten(&self, now_ms: i64, expiration_ms: i64) -> bool {
        let at_rest = !matches!(self.state, State::Ongoing | State::PrepareCommit | State::PrepareAbort);
        at_rest && now_ms.saturating_sub(self.updated_at_ms) >= expiration_ms
    }
}
