//! One transaction of a partition: begun, filled, committed. Every way out says what became of it.

use std::time::Duration;

use futures::future::join;
use klamm_client::{
    GroupMetadata, OffsetAndMetadata, ProduceError, TopicPartition, Transaction, TransactionError,
    TransactionalProducer,
};
use tokio::time::Instant;

use super::call::Failures;
use super::faults::{Fault, of_send, of_step, was_committed};
use super::shared::Shared;
use super::transacted::Sent;
use super::transactions::{Asked, Notes, Transactions};
use crate::listener::flow::{PartId, Safe, Ticket};

/// What became of a unit of work.
pub(super) enum Outcome {
    /// It is committed.
    Done(Safe),
    /// These records failed, and nothing of it is committed.
    Failed(Failures),
    /// Nothing is committed, and which of the records that shared the transaction is to blame is not known.
    Apart,
    /// The transaction before, whose end nobody had seen, was committed.
    Before(Safe),
    Halted(Halt),
}

/// Why a transaction was not committed.
pub(super) enum Halt {
    /// Nobody wants it any more: the partition is another member's, or was moved.
    Void,
    /// A record that it was to write was refused.
    Refused(ProduceError),
    /// It was open for longer than the coordinator waits.
    Overdue(TransactionError),
    /// No record is to blame.
    Wrong(Wrong),
}

/// What is wrong, and whose fault it is.
pub(super) struct Wrong {
    pub(super) fault: Fault,
    pub(super) text: String,
}

/// A transaction that is open, or what is known instead.
pub(super) enum Begun<'a> {
    Open(Transaction<'a>, Instant),
    /// The one before, whose end nobody had seen, was committed.
    Before(Asked),
}

impl Wrong {
    pub(super) fn of_send(error: &ProduceError) -> Self {
        Self { fault: of_send(error), text: error.to_string() }
    }

    pub(super) fn of_step(error: &TransactionError) -> Self {
        Self { fault: of_step(error, Duration::ZERO, Duration::MAX), text: error.to_string() }
    }

    pub(super) fn passing(text: impl Into<String>) -> Self {
        Self { fault: Fault::Passing, text: text.into() }
    }
}

impl Halt {
    pub(super) fn of_send(error: ProduceError) -> Self {
        match of_send(&error) {
            Fault::OfRecord => Self::Refused(error),
            _ => Self::Wrong(Wrong::of_send(&error)),
        }
    }
}

/// The producer of a partition; made if there is none.
///
/// # Errors
/// Settings of the client that cannot work.
pub(super) fn producer_in<'a>(
    producer: &'a mut Option<TransactionalProducer>,
    transactions: &Transactions,
    place: &TopicPartition,
) -> Result<&'a mut TransactionalProducer, Wrong> {
    if producer.is_none() {
        let made = transactions.producer(place);
        *producer = Some(made.map_err(|error| Wrong { fault: Fault::Refused, text: error.to_string() })?);
    }
    producer.as_mut().ok_or_else(|| Wrong::passing("there is no producer"))
}

/// Begins the next transaction, which settles what became of the one before: that is then looked up where it would
/// stand, and never guessed.
///
/// # Errors
/// The coordinator, or that of the group, does not answer or refuses.
pub(super) async fn begin<'a>(
    shared: &Shared,
    producer: &'a mut TransactionalProducer,
    notes: &mut Notes,
    place: &TopicPartition,
) -> Result<Begun<'a>, Wrong> {
    let transaction = producer.begin().await.map_err(|error| Wrong::of_step(&error))?;
    let Some(asked) = &notes.unknown else { return Ok(Begun::Open(transaction, Instant::now())) };
    let Some(consumer) = shared.consumer() else { return Err(Wrong::passing("the listener is starting")) };
    let committed = consumer.committed(std::slice::from_ref(place)).await;
    let committed = committed.map_err(|error| Wrong::passing(error.to_string()))?;
    let was_committed = was_committed(committed.get(place), &asked.mark);
    match notes.unknown.take() {
        Some(asked) if was_committed => Ok(Begun::Before(asked)),
        _ => Ok(Begun::Open(transaction, Instant::now())),
    }
}

/// In whose name offsets are committed: that of a member. Without one they would be taken from anybody.
pub(super) fn member(shared: &Shared) -> Option<GroupMetadata> {
    let group = shared.consumer()?.group_metadata()?;
    (group.generation >= 0 && !group.member_id.is_empty()).then_some(group)
}

/// What is to be committed with these deliveries, and in whose name. Who the member is comes first: if the partition is
/// ours after that, it was as this member, and once it is not, the group refuses this member.
///
/// # Errors
/// One of the deliveries counts for nothing any more, or the listener is no member of its group now.
pub(super) fn ready(
    shared: &Shared,
    part: PartId,
    tickets: &[Ticket],
) -> Result<(GroupMetadata, Safe), Halt> {
    let group = member(shared);
    let safe = shared.look(|flow| flow.committable_with(part, tickets)).ok_or(Halt::Void)?;
    let group =
        group.ok_or_else(|| Halt::Wrong(Wrong::passing("the listener is no member of its group now")))?;
    if tickets.last().is_some_and(|last| last.offset() >= safe.offset) {
        // What comes of it would be there twice if we ended before the records below are finished.
        return Err(Halt::Wrong(Wrong::passing("records below these are not finished")));
    }
    Ok((group, safe))
}

/// Sends the offset, and waits until all is written: after it, the transaction may be committed.
///
/// # Errors
/// It may not.
pub(super) async fn settle(
    shared: &Shared,
    transactions: &Transactions,
    (transaction, began): (&Transaction<'_>, Instant),
    sent: &mut Sent,
    (part, tickets): (PartId, &[Ticket]),
) -> Result<Asked, Halt> {
    let (group, safe) = ready(shared, part, tickets)?;
    let mark = transactions.mark(&group.member_id);
    let offset = OffsetAndMetadata::new(safe.offset).with_metadata(mark.clone());
    let offsets = transaction.send_offsets([(safe.place.clone(), offset)], &group);
    let (written, offsets) = join(sent.settled(), offsets).await;
    match (written, offsets) {
        (Err(error), _) if of_send(&error) == Fault::OfRecord => Err(Halt::Refused(error)),
        // It says more: of a transaction that was given up, each of its records only that it was not taken.
        (_, Err(error)) => Err(stopped(error, began, transactions.timeout)),
        (Err(error), Ok(())) => Err(Halt::of_send(error)),
        (Ok(()), Ok(())) => Ok(Asked { safe, mark, began }),
    }
}

/// What became of a commit that was `asked` for, and noted before. When it failed, whether it was done all the same is
/// found out.
///
/// # Errors
/// It was not done, or that is not known yet: then the next [`begin`] tells.
pub(super) async fn committed(
    shared: &Shared,
    transactions: &Transactions,
    producer: &mut TransactionalProducer,
    notes: &mut Notes,
    (asked, answer): (Asked, Result<(), TransactionError>),
) -> Result<Safe, Halt> {
    shared.observed.meters.committed(answer.is_ok());
    let Err(error) = answer else {
        notes.unknown = None;
        return Ok(asked.safe);
    };
    let halt = stopped(error, asked.began, transactions.timeout);
    if matches!(&halt, Halt::Wrong(Wrong { fault: Fault::Fenced, .. })) {
        // Another producer is needed to find out.
        return Err(halt);
    }
    match begin(shared, producer, notes, &asked.safe.place).await {
        Ok(Begun::Before(asked)) => Ok(asked.safe),
        // This one is not needed: nobody knows of it yet.
        Ok(Begun::Open(..)) => Err(halt),
        Err(wrong) => Err(Halt::Wrong(wrong)),
    }
}

fn stopped(error: TransactionError, began: Instant, timeout: Duration) -> Halt {
    match of_step(&error, began.elapsed(), timeout) {
        Fault::OfRecord => Halt::Overdue(error),
        fault => Halt::Wrong(Wrong { fault, text: error.to_string() }),
    }
}

/// Ends a transaction of which nothing is to remain.
pub(super) async fn abort(shared: &Shared, transaction: Transaction<'_>) {
    if let Err(error) = transaction.abort().await {
        // Nothing of it becomes visible: the next one ends it.
        tracing::debug!(listener = %shared.scope.id, %error, "a transaction was not aborted yet");
    }
}
