//! A record that is given up, in a transaction of its own: its dead letter, or its copy in a retry topic, together with
//! the offset behind it.

use std::sync::Arc;
use std::time::Duration;

use klamm_client::{ProduceError, Record, Transaction};
use tokio::time::Instant;

use super::conducting::{Halt, Outcome, abort, settle};
use super::dead_letter::{failed, letter};
use super::output_stage::{subject_of, tell_sent};
use super::outputs::What;
use super::sending::{Next, Sending, advice};
use super::shared::{Item, Shared};
use super::status::ListenerFailure;
use super::transacted::Sent;
use super::transactions::{Asked, GivenUp, Notes, Transactions};
use crate::listener::flow::PartId;

/// Fills the transaction with what is to be sent: it may be committed then.
///
/// # Errors
/// The transaction was aborted.
pub(super) async fn send_off<'a>(
    shared: &Arc<Shared>,
    transactions: &Transactions,
    (transaction, began): (Transaction<'a>, Instant),
    part: PartId,
    item: &Item,
    notes: &Notes,
) -> Result<(Transaction<'a>, Asked), Outcome> {
    let mut sent = Sent::new();
    let fill = async {
        let Some(given_up) = notes.given_up(item.record.offset) else { return Err(Halt::Void) };
        let record = record(shared, item, given_up).await;
        let taken = match sent.send(&transaction, record).await {
            // The topic has fewer: where its key belongs.
            Err(error) if matches!(error.error(), ProduceError::UnknownPartition { .. }) => {
                sent.send(&transaction, Record { partition: None, ..error.into_record() }).await
            }
            taken => taken,
        };
        taken.map_err(|error| Halt::of_send(error.into()))?;
        settle(shared, transactions, (&transaction, began), &mut sent, (part, &[item.ticket])).await
    };
    let filled = tokio::select! {
        biased;
        filled = fill => filled,
        () = shared.void(item.ticket) => Err(Halt::Void),
    };
    match filled {
        Ok(asked) => Ok((transaction, asked)),
        Err(halt) => {
            abort(shared, transaction).await;
            Err(Outcome::Halted(halt))
        }
    }
}

async fn record(shared: &Shared, item: &Item, GivenUp { what, sending, .. }: &GivenUp) -> Record {
    let (source, group) = (&item.record, &shared.scope.group);
    match what {
        What::DeadLetter { topic, failure } => {
            let topic = sending.elsewhere().or(topic.as_ref());
            let failure = failure.shortened(sending.text_bytes_max());
            letter(source, topic, shared.scope.source_topic(&source.topic), group, &failure)
        }
        What::Retry { copies, next, failure } => {
            let failure = failure.shortened(sending.text_bytes_max());
            match sending.elsewhere() {
                Some(parked) => letter(source, Some(parked), &source.topic, group, &failure),
                None => {
                    let message = failure.to_string();
                    copies.copy(source, next, failed(group, &failure, &message)).await
                }
            }
        }
        What::Reply(reply) => (**reply).clone(),
    }
}

/// A record that is given up from here on.
pub(super) fn given_up(shared: &Shared, item: &Item, what: What) -> GivenUp {
    let sending = Sending::new(Some(shared.settings.policy.unsendable_policy().clone()));
    GivenUp { ticket: item.ticket, what, sending, told: false }
}

/// It is where it belongs, and committed.
pub(super) fn is_there(shared: &Shared, notes: &mut Notes, item: &Item) {
    let Some(given_up) = notes.take_given_up(item.record.offset, item.ticket) else { return };
    let parked = given_up.sending.elsewhere().is_some();
    shared.observed.meters.sent(&item.record.topic, given_up.what.kind(), parked);
    tell_sent(shared, item, &given_up.what);
    over(shared, item, &given_up);
}

fn over(shared: &Shared, item: &Item, given_up: &GivenUp) {
    if given_up.told {
        shared.troubles.over(&subject_of(item));
    }
}

/// What was to be sent was refused. Gives after which time it is tried again, if it is.
pub(super) fn refused(
    shared: &Shared,
    notes: &mut Notes,
    part: PartId,
    item: &Item,
    error: ProduceError,
) -> Option<Duration> {
    let mut given_up = notes.take_given_up(item.record.offset, item.ticket)?;
    let name = given_up.what.name();
    shared.observed.meters.not_sent(given_up.what.kind());
    if let What::Retry { copies, next, .. } = &given_up.what {
        copies.look_again(next);
    }
    let (wait, halted) = match given_up.sending.failed(&error, shared.rng.next_u64()) {
        Next::Trimmed | Next::Elsewhere => (Some(Duration::ZERO), false),
        Next::Again(wait) => (Some(wait), false),
        Next::Halt(wait) => (Some(wait), true),
        Next::Skip => {
            let record = &item.record;
            tracing::error!(
                listener = %shared.scope.id, topic = %record.topic, partition = record.partition,
                offset = record.offset, %error, "{name} cannot be sent, and its record is skipped"
            );
            shared.observed.meters.skipped(&record.topic);
            shared.finish([item.ticket]);
            (None, false)
        }
        Next::Stop | Next::Back => {
            stop(shared, part, item, error.clone());
            (None, false)
        }
    };
    match wait {
        None => over(shared, item, &given_up),
        Some(wait) if wait.is_zero() => {}
        Some(_) => {
            given_up.told = true;
            let halted = if halted { "; the partition stands still" } else { "" };
            let reason = format!("{name} cannot be sent: {error}{}{halted}", advice(&error));
            shared.troubles.tell(&shared.scope.id, subject_of(item), &reason);
        }
    }
    if wait.is_some() {
        notes.give_up(item.record.offset, given_up);
    }
    wait
}

fn stop(shared: &Shared, part: PartId, item: &Item, error: ProduceError) {
    shared.change(|flow| flow.close(part));
    shared.fail(ListenerFailure::Unsendable {
        topic: Arc::clone(&item.record.topic),
        partition: item.record.partition,
        offset: item.record.offset,
        source: Arc::new(error),
    });
}
