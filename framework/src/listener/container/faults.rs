//! What it means that a step of a transaction failed: whose fault it is, how long to wait, and when to stop. Pure.
//!
//! Records are not blamed for what the world does: only [`Fault::OfRecord`] counts for the failure policy.

use std::sync::Arc;
use std::time::Duration;

use klamm_client::{ErrorCode, OffsetAndMetadata, ProduceError, TopicPartition, TransactionError};
use tokio::time::Instant;

use crate::listener::failure::Backoff;

/// How long who was fenced waits. By then a member that was expelled from its group has heard of it, so that it does
/// not fence the new owner of its partitions in turn.
const FENCED_WAIT: Duration = Duration::from_secs(5);
/// How often something is tried again that was refused.
const REFUSED_RETRY: Duration = Duration::from_secs(5);
/// How long transactions may be refused before the listener stops: who changes permissions needs a moment.
const REFUSED_MAX: Duration = Duration::from_secs(60);
/// From so many failures in a row on it is a trouble that somebody should see. One or two come with every rebalance.
const TOLD_FROM: u32 = 3;

/// Whose fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The cluster's: it passes.
    Passing,
    /// Another producer has the transactional id: another member has the partition, or somebody ended the transaction
    /// by hand.
    Fenced,
    /// Somebody has to change a setting or a permission.
    Refused,
    /// The record's: another try would go the same way.
    OfRecord,
}

/// The name of a partition's transactions. Whoever has the partition uses it, so that a new owner ends at once what the
/// one before left open, however that one ended. No topic has a slash in its name, so that no two partitions of any two
/// groups have the same. `prefix` is the user's.
pub(super) fn transactional_id(prefix: &str, group: &str, place: &TopicPartition) -> Arc<str> {
    format!("{prefix}{group}/{}/{}", place.topic, place.partition).into()
}

/// What a transaction writes beside the offset that it commits, by which it is known again: the member of the group,
/// which no two instances share, and a number of its own.
pub(super) fn mark(member_id: &str, number: u64) -> Arc<str> {
    format!("klamm-tx {member_id} {number}").into()
}

/// Whether the transaction that wrote this mark was committed, going by what the group has committed after it ended.
pub(super) fn was_committed(committed: Option<&OffsetAndMetadata>, mark: &str) -> bool {
    committed.is_some_and(|committed| &*committed.metadata == mark)
}

/// Of a record that was not written. Where the transaction as such is broken, another error says why.
pub(super) fn of_send(error: &ProduceError) -> Fault {
    match error {
        ProduceError::Broker { code, .. } => match code {
            ErrorCode::ProducerFenced | ErrorCode::InvalidProducerEpoch => Fault::Fenced,
            ErrorCode::TransactionalIdAuthorizationFailed => Fault::Refused,
            ErrorCode::UnknownTopicOrPartition => Fault::OfRecord,
            ErrorCode::TransactionAbortable
            | ErrorCode::InvalidTxnState
            | ErrorCode::InvalidProducerIdMapping
            | ErrorCode::UnknownProducerId
            | ErrorCode::OutOfOrderSequenceNumber
            | ErrorCode::ConcurrentTransactions
            | ErrorCode::UnknownServerError => Fault::Passing,
            code if code.is_retriable() => Fault::Passing,
            _ => Fault::OfRecord,
        },
        ProduceError::RecordTooLarge { .. }
        | ProduceError::InvalidRecord { .. }
        | ProduceError::UnknownPartition { .. }
        // Its topic is not there.
        | ProduceError::Blocked { .. } => Fault::OfRecord,
        _ => Fault::Passing,
    }
}

/// Of a step that the coordinator did not take, `took` after the beginning of the transaction.
pub(super) fn of_step(error: &TransactionError, took: Duration, timeout: Duration) -> Fault {
    match error {
        TransactionError::Fenced { .. } => Fault::Fenced,
        // The coordinator gave it up, and would again.
        TransactionError::Aborted { .. } if took >= timeout => Fault::OfRecord,
        TransactionError::Broker { code, .. } if !passes(*code) => Fault::Refused,
        TransactionError::Request(error) if !error.is_retriable() => Fault::Refused,
        _ => Fault::Passing,
    }
}

fn passes(code: ErrorCode) -> bool {
    code.is_retriable() || code == ErrorCode::UnknownServerError
}

/// What to do after a failure that is not the record's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Try again after this time, and tell somebody if it is time to.
    Again { wait: Duration, tell: bool },
    /// The listener stops.
    Stop,
}

/// How often in a row the transactions of a partition failed, and since when they are refused.
#[derive(Debug)]
pub(super) struct Patience {
    backoff: Backoff,
    failures: u32,
    refused_since: Option<Instant>,
}

impl Patience {
    pub(super) fn new() -> Self {
        let backoff =
            Backoff::exponential(Duration::from_millis(100)).cap(Duration::from_secs(10)).jitter(0.2);
        Self { backoff: backoff.forever(), failures: 0, refused_since: None }
    }

    /// Another one failed.
    pub(super) fn failed(&mut self, fault: Fault, now: Instant, random: u64) -> Next {
        self.failures = self.failures.saturating_add(1);
        if fault != Fault::Refused {
            self.refused_since = None;
        }
        match fault {
            Fault::Refused => {
                let since = *self.refused_since.get_or_insert(now);
                match now.duration_since(since) >= REFUSED_MAX {
                    true => Next::Stop,
                    false => Next::Again { wait: REFUSED_RETRY, tell: true },
                }
            }
            Fault::Fenced => Next::Again { wait: FENCED_WAIT, tell: self.failures >= TOLD_FROM },
            Fault::Passing | Fault::OfRecord => {
                let wait = self.backoff.delay(self.failures, Duration::ZERO, random).unwrap_or(FENCED_WAIT);
                Next::Again { wait, tell: self.failures >= TOLD_FROM }
            }
        }
    }

    /// Whether the last one did not fail.
    pub(super) fn is_fresh(&self) -> bool {
        self.failures == 0
    }

    /// One was committed. `true`: something had failed before.
    pub(super) fn worked(&mut self) -> bool {
        self.refused_since = None;
        std::mem::take(&mut self.failures) > 0
    }
}

#[cfg(test)]
mod tests {
    use klamm_client::ApiKey;

    use super::*;

    fn broker(code: ErrorCode) -> ProduceError {
        let partition = TopicPartition::new("out", 0);
        ProduceError::Broker { partition, code, message: None, possibly_written: false }
    }

    fn step(code: ErrorCode) -> TransactionError {
        TransactionError::Broker { transactional_id: "t".into(), api: ApiKey::TxnOffsetCommit, code }
    }

    #[test]
    fn records_are_blamed_for_what_is_wrong_with_them_and_for_nothing_else() {
        let of_record = [
            ProduceError::RecordTooLarge { size: 2, limit: 1 },
            ProduceError::InvalidRecord { reason: "no".into() },
            ProduceError::UnknownPartition { topic: "out".into(), partition: 7, count: 1 },
            ProduceError::Blocked { topic: "out".into(), after: Duration::ZERO, reason: "no".into() },
            broker(ErrorCode::MessageTooLarge),
            broker(ErrorCode::TopicAuthorizationFailed),
            broker(ErrorCode::UnknownTopicOrPartition),
        ];
        for error in of_record {
            assert_eq!(of_send(&error), Fault::OfRecord, "{error}");
        }
        let passing = [
            ProduceError::TransactionBroken { reason: "no".into() },
            ProduceError::Closed { possibly_written: true },
            broker(ErrorCode::NotLeaderOrFollower),
            broker(ErrorCode::UnknownServerError),
            broker(ErrorCode::InvalidTxnState),
            broker(ErrorCode::TransactionAbortable),
        ];
        for error in passing {
            assert_eq!(of_send(&error), Fault::Passing, "{error}");
        }
        assert_eq!(of_send(&broker(ErrorCode::ProducerFenced)), Fault::Fenced);
        assert_eq!(of_send(&broker(ErrorCode::InvalidProducerEpoch)), Fault::Fenced);
        assert_eq!(of_send(&broker(ErrorCode::TransactionalIdAuthorizationFailed)), Fault::Refused);
    }

    #[test]
    fn steps_are_refused_fenced_or_tried_again() {
        let minute = Duration::from_secs(60);
        let fault = |error: &TransactionError| of_step(error, Duration::ZERO, minute);
        let id = || Arc::from("t");
        let fenced = TransactionError::Fenced { transactional_id: id(), code: ErrorCode::ProducerFenced };
        assert_eq!(fault(&fenced), Fault::Fenced);
        let aborted = TransactionError::Aborted { transactional_id: id(), reason: "no".into() };
        assert_eq!(fault(&aborted), Fault::Passing);
        assert_eq!(of_step(&aborted, minute, minute), Fault::OfRecord, "it was open for too long");
        assert_eq!(of_step(&fenced, minute, minute), Fault::Fenced);
        for code in [ErrorCode::TransactionalIdAuthorizationFailed, ErrorCode::InvalidTransactionTimeout] {
            assert_eq!(fault(&step(code)), Fault::Refused, "{code}");
        }
        for code in [ErrorCode::CoordinatorNotAvailable, ErrorCode::UnknownServerError] {
            assert_eq!(fault(&step(code)), Fault::Passing, "{code}");
        }
        let (after, last) = (minute, Arc::from("no"));
        let unknown = TransactionError::UnknownOutcome { transactional_id: id(), after, last };
        assert_eq!([fault(&unknown), fault(&TransactionError::Closed)], [Fault::Passing; 2]);
    }

    #[test]
    fn a_transaction_is_known_by_its_mark() {
        let mark = mark("member-1", 7);
        let with = |metadata: &str| OffsetAndMetadata::new(5).with_metadata(metadata);
        assert!(was_committed(Some(&with(&mark)), &mark));
        assert!(!was_committed(Some(&with("klamm-tx member-1 8")), &mark));
        assert!(!was_committed(Some(&with("")), &mark) && !was_committed(None, &mark));
    }

    #[test]
    fn no_two_partitions_have_the_same_name() {
        let id = |group: &str, topic: &str| transactional_id("", group, &TopicPartition::new(topic, 0));
        assert_eq!(&*id("billing", "orders"), "billing/orders/0");
        assert_ne!(id("a", "b-c"), id("a-b", "c"));
        assert_ne!(id("a/b", "c"), id("a", "b"));
        assert_eq!(&*transactional_id("eu-", "billing", &TopicPartition::new("t", 7)), "eu-billing/t/7");
    }

    #[test]
    fn what_fails_is_tried_ever_more_slowly_and_told_when_it_lasts() {
        let (mut patience, now) = (Patience::new(), Instant::now());
        let mut waits = Vec::new();
        for failure in 1..=10 {
            match patience.failed(Fault::Passing, now, 0) {
                Next::Again { wait, tell } => {
                    assert_eq!(tell, failure >= 3);
                    waits.push(wait.as_millis());
                }
                Next::Stop => panic!("it passes"),
            }
        }
        assert!(waits.is_sorted() && waits[0] <= 100 && *waits.last().unwrap() >= 8_000, "{waits:?}");
        assert!(patience.worked() && !patience.worked());
        assert!(matches!(patience.failed(Fault::Passing, now, 0), Next::Again { tell: false, .. }));
        let fenced = patience.failed(Fault::Fenced, now, 0);
        assert_eq!(fenced, Next::Again { wait: FENCED_WAIT, tell: false });
    }

    #[test]
    fn what_is_refused_for_a_minute_stops_the_listener() {
        let (mut patience, start) = (Patience::new(), Instant::now());
        let mut refused =
            |after_s: u64, fault: Fault| patience.failed(fault, start + Duration::from_secs(after_s), 0);
        let again = Next::Again { wait: REFUSED_RETRY, tell: true };
        assert_eq!([refused(0, Fault::Refused), refused(59, Fault::Refused)], [again; 2]);
        assert!(matches!(refused(60, Fault::Passing), Next::Again { .. }));
        assert_eq!(refused(61, Fault::Refused), again, "it had gone meanwhile");
        assert_eq!(refused(121, Fault::Refused), Next::Stop);
    }
}
