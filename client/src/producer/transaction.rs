//! The life of one transaction after another: what a step needs, and what an answer means. Pure.
//!
//! Two flows exist. With KIP-890 (`transaction.version` 2 and up) partitions and groups join by being written to, and
//! the end of each transaction gives the epoch of the next. Before it, both are announced, and the epoch stays until
//! something goes wrong; then the producer asks for the next.

use std::collections::BTreeSet;
use std::sync::Arc;

use klamm_protocol::ErrorCode;

use super::batch::Batch;
use super::dispatch::Dispatch;
use super::lane::Identity;
use crate::error::ProduceError;
use crate::types::TopicPartition;

/// The first level of the cluster's feature `transaction.version` with the newer flow.
const IMPLICIT_FROM: i16 = 2;

/// What the sender and the transaction tell each other, while the sender gathers.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    /// Another identity for another transaction.
    assigned: Option<Identity>,
    /// The transaction is over for what is not sent.
    break_off: Option<ProduceError>,
    /// Why the transaction cannot be committed.
    pub(super) broken: Option<ProduceError>,
    /// Whether partitions are announced, and do not join by being written to.
    pub(super) enlists: bool,
    /// Those that were announced.
    enlisted: BTreeSet<TopicPartition>,
    /// Whether records were taken.
    pub(super) started: bool,
}

impl Exchange {
    /// From here on records belong to another transaction.
    pub(super) fn assign(&mut self, identity: Identity, enlists: bool) {
        *self = Self { assigned: Some(identity), enlists, ..Self::default() };
    }

    /// Whether a partition has to be announced before it is written to.
    pub(super) fn must_announce(&self, partition: &TopicPartition) -> bool {
        self.enlists && !self.enlisted.contains(partition)
    }

    pub(super) fn announced(&mut self, partition: TopicPartition) {
        self.enlisted.insert(partition);
    }

    /// Nothing more of the transaction is to be sent.
    pub(super) fn break_off(&mut self, error: ProduceError) {
        self.broken.get_or_insert(error.clone());
        self.break_off = Some(error);
    }

    pub(super) fn hand_over(&mut self, dispatch: &mut Dispatch<Batch>) {
        if let Some(identity) = self.assigned.take() {
            dispatch.assign(identity);
        }
        if let Some(error) = self.break_off.take() {
            dispatch.break_off(error);
        }
    }
}

/// Where a transactional producer stands.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    phase: Phase,
    identity: Option<Identity>,
    /// Whether the identity may be used for another transaction.
    fresh: bool,
    enlists: bool,
    /// Those that were announced to the coordinator.
    groups: BTreeSet<Arc<str>>,
    /// Whether the cluster may know of the transaction.
    started: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Phase {
    #[default]
    Idle,
    Open,
    Fenced(ErrorCode),
}

/// What beginning needs.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Beginning {
    /// Nothing: it is open.
    Open(Identity),
    /// An identity from the coordinator, which ends what the last one left open.
    Initialize(Option<Identity>),
}

/// What ending needs.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Nothing: the cluster knows nothing of it.
    Nothing,
    /// To tell the coordinator.
    Tell(Identity),
}

/// What an answer of a coordinator means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    Done,
    /// Ask again after a pause.
    Again,
    /// Another broker coordinates: look for it and ask again.
    Elsewhere,
    /// Another producer has this transactional id.
    Fenced,
    /// The transaction is lost, the producer is not.
    Abort,
    /// No way.
    Refused,
}

/// Reads the error code of an answer.
pub(super) fn meaning(code: ErrorCode) -> Meaning {
    use ErrorCode as E;
    match code {
        E::None => Meaning::Done,
        E::NotCoordinator | E::CoordinatorNotAvailable => Meaning::Elsewhere,
        E::ProducerFenced | E::InvalidProducerEpoch | E::TransactionCoordinatorFenced => Meaning::Fenced,
        E::TransactionAbortable
        | E::InvalidTxnState
        | E::InvalidProducerIdMapping
        | E::UnknownProducerId
        | E::OperationNotAttempted
        | E::IllegalGeneration
        | E::UnknownMemberId
        | E::StaleMemberEpoch
        | E::FencedInstanceId => Meaning::Abort,
        code if code.is_retriable() => Meaning::Again,
        _ => Meaning::Refused,
    }
}

impl Transactions {
    /// Begins one. What an earlier one left open is ended by asking for another identity.
    pub(super) fn begin(&mut self) -> Result<Beginning, ErrorCode> {
        match (self.phase, self.identity) {
            (Phase::Fenced(code), _) => Err(code),
            (Phase::Idle, Some(identity)) if self.fresh => {
                self.open();
                Ok(Beginning::Open(identity))
            }
            (_, identity) => Ok(Beginning::Initialize(identity)),
        }
    }

    /// The coordinator gave an identity; `version` is the cluster's `transaction.version`.
    pub(super) fn initialized(&mut self, identity: Identity, version: Option<i16>) {
        self.identity = Some(identity);
        self.enlists = version.is_none_or(|version| version < IMPLICIT_FROM);
        self.open();
    }

    fn open(&mut self) {
        self.phase = Phase::Open;
        self.fresh = true;
        self.started = false;
        self.groups.clear();
    }

    pub(super) fn identity(&self) -> Option<Identity> {
        self.identity
    }

    pub(super) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Whether partitions and groups have to be announced.
    pub(super) fn enlists(&self) -> bool {
        self.enlists
    }

    /// Whether a group has to be announced before its offsets are committed.
    pub(super) fn must_announce_group(&self, group: &str) -> bool {
        self.enlists && !self.groups.contains(group)
    }

    /// A group may be in the transaction as far as the coordinator is concerned.
    pub(super) fn announced_group(&mut self, group: Arc<str>) {
        self.started = true;
        self.groups.insert(group);
    }

    /// Something may have been written.
    pub(super) fn touched(&mut self) {
        self.started = true;
    }

    /// Ends it, by commit or abort.
    pub(super) fn end(&mut self) -> Ending {
        match self.identity {
            Some(identity) if self.started => Ending::Tell(identity),
            _ => {
                self.phase = Phase::Idle;
                Ending::Nothing
            }
        }
    }

    /// It has ended. The coordinator gave `next` for the next, in the newer flow. After an abort in the older one, a
    /// late batch of it would be taken for one of the next: that needs another epoch.
    pub(super) fn ended(&mut self, commit: bool, next: Option<Identity>) {
        self.phase = Phase::Idle;
        match next {
            Some(identity) => self.identity = Some(identity),
            None => self.fresh &= commit && self.enlists,
        }
    }

    /// It may or may not have ended: the next identity settles it.
    pub(super) fn lost(&mut self) {
        self.phase = Phase::Idle;
        self.fresh = false;
    }

    /// Another producer took over.
    pub(super) fn fenced(&mut self, code: ErrorCode) {
        self.phase = Phase::Fenced(code);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::dispatch::Rules;
    use super::*;
    use crate::runtime::SeededRng;

    fn identity(epoch: i16) -> Identity {
        Identity { producer_id: 7, epoch }
    }

    #[test]
    fn the_newer_flow_goes_from_epoch_to_epoch() {
        let mut transactions = Transactions::default();
        assert!(!transactions.is_open());
        assert_eq!(transactions.begin(), Ok(Beginning::Initialize(None)));
        assert!(!transactions.is_open());
        transactions.initialized(identity(0), Some(2));
        assert!(transactions.is_open() && !transactions.enlists());
        assert!(!transactions.must_announce_group("g"));
        transactions.touched();
        assert_eq!(transactions.end(), Ending::Tell(identity(0)));
        assert!(transactions.is_open(), "until the answer");
        transactions.ended(true, Some(identity(1)));
        assert!(!transactions.is_open());
        assert_eq!(transactions.begin(), Ok(Beginning::Open(identity(1))));
        assert!(transactions.is_open());
        transactions.touched();
        transactions.end();
        transactions.ended(false, Some(identity(2)));
        assert_eq!(transactions.begin(), Ok(Beginning::Open(identity(2))));
        assert_eq!(transactions.identity(), Some(identity(2)));
        assert_eq!(transactions.end(), Ending::Nothing, "nobody knows of it");
        assert_eq!(transactions.begin(), Ok(Beginning::Open(identity(2))));
        // An answer without an epoch leaves none for the next.
        transactions.touched();
        transactions.end();
        transactions.ended(true, None);
        assert_eq!(transactions.begin(), Ok(Beginning::Initialize(Some(identity(2)))));
    }

    #[test]
    fn the_older_flow_announces_once_and_keeps_its_epoch_until_an_abort() {
        for version in [None, Some(0), Some(1)] {
            let mut transactions = Transactions::default();
            transactions.initialized(identity(0), version);
            assert!(transactions.enlists());
            for commit in [true, false] {
                assert!(transactions.must_announce_group("g"));
                assert_eq!(transactions.end(), Ending::Nothing);
                transactions.begin().unwrap();
                transactions.touched();
                assert!(transactions.must_announce_group("g"));
                assert_eq!(transactions.end(), Ending::Tell(identity(0)));
                transactions.announced_group("g".into());
                assert!(!transactions.must_announce_group("g"));
                transactions.ended(commit, None);
                let next = transactions.begin();
                let expected = match commit {
                    true => Beginning::Open(identity(0)),
                    false => Beginning::Initialize(Some(identity(0))),
                };
                assert_eq!(next, Ok(expected));
            }
        }
    }

    #[test]
    fn a_group_alone_makes_a_transaction() {
        let mut transactions = Transactions::default();
        transactions.initialized(identity(0), Some(1));
        transactions.announced_group("g".into());
        assert_eq!(transactions.end(), Ending::Tell(identity(0)));
    }

    #[test]
    fn what_is_lost_is_settled_by_the_next_identity_and_what_is_fenced_is_over() {
        let mut transactions = Transactions::default();
        transactions.initialized(identity(0), Some(2));
        transactions.touched();
        transactions.lost();
        assert!(!transactions.is_open());
        assert_eq!(transactions.begin(), Ok(Beginning::Initialize(Some(identity(0)))));
        transactions.initialized(identity(1), Some(2));
        // Whoever began it has gone.
        assert_eq!(transactions.begin(), Ok(Beginning::Initialize(Some(identity(1)))));
        transactions.fenced(ErrorCode::ProducerFenced);
        assert!(!transactions.is_open());
        assert_eq!(transactions.begin(), Err(ErrorCode::ProducerFenced));
    }

    #[test]
    fn every_code_means_something() {
        use ErrorCode as E;
        let table = [
            (Meaning::Done, &[E::None][..]),
            (Meaning::Elsewhere, &[E::NotCoordinator, E::CoordinatorNotAvailable]),
            (Meaning::Again, &[E::CoordinatorLoadInProgress, E::ConcurrentTransactions, E::RequestTimedOut]),
            (Meaning::Fenced, &[E::ProducerFenced, E::InvalidProducerEpoch, E::TransactionCoordinatorFenced]),
            (
                Meaning::Abort,
                &[
                    E::TransactionAbortable,
                    E::InvalidTxnState,
                    E::InvalidProducerIdMapping,
                    E::UnknownProducerId,
                    E::OperationNotAttempted,
                    E::IllegalGeneration,
                    E::UnknownMemberId,
                    E::StaleMemberEpoch,
                    E::FencedInstanceId,
                ],
            ),
            (Meaning::Refused, &[E::TransactionalIdAuthorizationFailed, E::InvalidTransactionTimeout]),
        ];
        for (expected, codes) in table {
            for &code in codes {
                assert_eq!(meaning(code), expected, "{code}");
            }
        }
    }

    #[test]
    fn what_was_told_reaches_the_dispatch_once() {
        let mut dispatch = Dispatch::new(Rules {
            idempotent: true,
            transactional: true,
            max_in_flight: 5,
            max_request_bytes: 1_000,
            delivery_timeout: Duration::from_secs(120),
            retry_backoff: Duration::from_millis(100),
            retry_backoff_max: Duration::from_secs(1),
            idle_after: Duration::from_secs(30),
            rng: Arc::new(SeededRng::new(1)),
        });
        let mut exchange = Exchange::default();
        exchange.break_off(ProduceError::Closed { possibly_written: false });
        exchange.hand_over(&mut dispatch);
        assert!(matches!(dispatch.broken(), Some(ProduceError::Closed { .. })));
        exchange.assign(identity(3), false);
        exchange.hand_over(&mut dispatch);
        assert!(dispatch.broken().is_none(), "another transaction");
        dispatch.break_off(ProduceError::Closed { possibly_written: false });
        exchange.hand_over(&mut dispatch);
        assert!(dispatch.broken().is_some(), "it is still the same one");
    }

    #[test]
    fn an_exchange_forgets_the_transaction_before() {
        let mut exchange = Exchange::default();
        exchange.break_off(ProduceError::WouldBlock { reason: "first".into() });
        exchange.break_off(ProduceError::Closed { possibly_written: false });
        assert!(matches!(exchange.broken, Some(ProduceError::WouldBlock { .. })), "the first reason stays");
        exchange.assign(identity(3), true);
        assert!(exchange.broken.is_none() && exchange.break_off.is_none() && exchange.enlists);
        assert_eq!(exchange.assigned, Some(identity(3)));
        let partition = TopicPartition::new("t", 0);
        assert!(exchange.must_announce(&partition));
        exchange.announced(partition.clone());
        assert!(!exchange.must_announce(&partition));
        exchange.assign(identity(3), true);
        assert!(exchange.must_announce(&partition), "each transaction anew");
        exchange.assign(identity(4), false);
        assert!(!exchange.must_announce(&partition));
    }
}
