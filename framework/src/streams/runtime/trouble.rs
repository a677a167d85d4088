//! What to make of an error on the way of a commit: nothing counts and the tasks begin again from the last commit, the
//! next commit makes up for it, or the application ends. And who may write at all.

use std::time::Duration;

use klamm_client::{ConsumeError, ErrorCode, GroupMetadata, ProduceError, TransactionError};
use tokio::time::Instant;

use super::error::StreamsError;
use super::shared::Shared;

/// How long tasks begin again and again without a commit in between before the application gives up
/// (`task.timeout.ms`).
const PATIENCE: Duration = Duration::from_secs(5 * 60);

/// Between looks at a heartbeat that is late.
const LOOK: Duration = Duration::from_millis(10);

/// Why a commit was not made.
#[derive(Debug)]
pub(super) enum Trouble {
    /// What was done since the last commit does not count: the tasks begin again from there.
    Void { why: String },
    /// As before, and the group said so to this generation of it: another one has to come first.
    Refused { why: String, generation: i32 },
    /// No other try would help.
    Fatal(StreamsError),
}

/// What became of offsets that were to be committed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The next commit says the same and more.
    Passing,
    /// This member is not who it thinks it is.
    NotMember,
    Fatal,
}

impl Trouble {
    pub(super) fn void(why: impl ToString) -> Self {
        Self::Void { why: why.to_string() }
    }

    /// Of a record that was not taken, or not delivered.
    pub(super) fn of_record(error: ProduceError) -> Self {
        match error {
            ProduceError::DeliveryTimeout { .. }
            | ProduceError::TransactionBroken { .. }
            | ProduceError::Request { .. }
            | ProduceError::Closed { .. } => Self::void(error),
            ProduceError::Broker { code, .. } if code.is_retriable() => Self::void(error),
            other => Self::Fatal(other.into()),
        }
    }

    /// Of a change of a store, whose topic may be about to be found missing: it was created with enough partitions.
    pub(super) fn of_change(error: ProduceError) -> Self {
        match error {
            ProduceError::UnknownPartition { .. } => Self::void(error),
            other => Self::of_record(other),
        }
    }

    /// Of a step of a transaction.
    pub(super) fn of_transaction(error: TransactionError) -> Self {
        match error {
            TransactionError::Broker { code, .. } if is_final(code) => Self::Fatal(error.into()),
            other => Self::void(other),
        }
    }
}

/// Whether it is no use to begin again: a rebalance ends, and a server that does not know what is wrong with it may be
/// well soon.
pub(super) fn is_final(code: ErrorCode) -> bool {
    !code.is_retriable() && !matches!(code, ErrorCode::RebalanceInProgress | ErrorCode::UnknownServerError)
}

/// Reads the answer to a commit of offsets.
pub(super) fn verdict(error: &ConsumeError) -> Verdict {
    match error {
        ConsumeError::NotAssigned { .. } => Verdict::NotMember,
        ConsumeError::Commit { code, .. } => match code {
            ErrorCode::UnknownMemberId | ErrorCode::IllegalGeneration | ErrorCode::StaleMemberEpoch => {
                Verdict::NotMember
            }
            ErrorCode::RebalanceInProgress => Verdict::Passing,
            code if code.is_retriable() => Verdict::Passing,
            _ => Verdict::Fatal,
        },
        error if error.is_retriable() => Verdict::Passing,
        _ => Verdict::Fatal,
    }
}

/// How long nothing but trouble came.
#[derive(Debug, Default)]
pub(super) struct Patience {
    since: Option<Instant>,
}

impl Patience {
    pub(super) fn committed(&mut self) {
        self.since = None;
    }

    /// The same trouble, or its end.
    pub(super) fn after(&mut self, trouble: Trouble) -> Trouble {
        let Trouble::Void { why } = trouble else { return trouble };
        let after = self.since.get_or_insert_with(Instant::now).elapsed();
        if after < PATIENCE {
            return Trouble::Void { why };
        }
        Trouble::Fatal(StreamsError::NoProgress { after, why })
    }
}

/// The member that tasks of this generation belong to. What it writes is written by the owner of its partitions only
/// while the group counts it in, which nothing checks where records are not part of a transaction: the last heartbeat
/// that was answered must be younger than half of a session, and records leave within the other half. A process that
/// was stopped, or cut off, finds out here before it writes over what the next owner wrote.
pub(super) async fn member(shared: &Shared, generation: i32) -> Result<GroupMetadata, Trouble> {
    let margin = shared.config.session_timeout / 2;
    loop {
        let consumer = shared.consumer().ok_or_else(|| Trouble::void("the application is starting"))?;
        let member = consumer.group_metadata().filter(|member| member.generation == generation);
        let member = member.ok_or_else(|| {
            let why = "the group has gone on to another generation".to_owned();
            Trouble::Refused { why, generation }
        })?;
        if shared.config.is_exactly_once() {
            return Ok(member);
        }
        let left = consumer.alive_until().map(|until| until.saturating_duration_since(Instant::now()));
        match left {
            Some(left) if left >= margin => return Ok(member),
            Some(left) if !left.is_zero() => tokio::time::sleep(LOOK.min(left)).await,
            _ => return Err(Trouble::void("no heartbeat was answered for a session timeout")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use klamm_client::TopicPartition;

    use super::*;

    fn refused(code: ErrorCode) -> ConsumeError {
        ConsumeError::Commit { group: Arc::from("g"), partition: TopicPartition::new("t", 0), code }
    }

    #[test]
    fn a_refused_commit_is_passing_or_not_ours_or_the_end() {
        use ErrorCode as E;
        let table = [
            (Verdict::NotMember, &[E::UnknownMemberId, E::IllegalGeneration, E::StaleMemberEpoch][..]),
            (
                Verdict::Passing,
                &[
                    E::RebalanceInProgress,
                    E::NotCoordinator,
                    E::CoordinatorLoadInProgress,
                    E::RequestTimedOut,
                ],
            ),
            (
                Verdict::Fatal,
                &[E::GroupAuthorizationFailed, E::TopicAuthorizationFailed, E::FencedInstanceId],
            ),
        ];
        for (expected, codes) in table {
            for code in codes {
                assert_eq!(verdict(&refused(*code)), expected, "{code}");
            }
        }
        let gone = ConsumeError::NotAssigned { partition: TopicPartition::new("t", 0) };
        assert_eq!(verdict(&gone), Verdict::NotMember);
        assert_eq!(verdict(&ConsumeError::NoGroup), Verdict::Fatal);
    }

    #[tokio::test(start_paused = true)]
    async fn patience_ends_unless_a_commit_is_made() {
        let mut patience = Patience::default();
        assert!(matches!(patience.after(Trouble::void("x")), Trouble::Void { .. }));
        tokio::time::advance(PATIENCE - Duration::from_secs(1)).await;
        assert!(matches!(patience.after(Trouble::void("x")), Trouble::Void { .. }));
        patience.committed();
        tokio::time::advance(PATIENCE).await;
        assert!(matches!(patience.after(Trouble::void("x")), Trouble::Void { .. }), "counted anew");
        tokio::time::advance(PATIENCE).await;
        let end = patience.after(Trouble::void("the last reason"));
        let Trouble::Fatal(error) = end else { panic!("{end:?}") };
        assert!(error.to_string().contains("the last reason"), "{error}");
    }
}
