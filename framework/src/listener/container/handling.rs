//! A handler at work in a transaction: what it sends goes into it, and so do its replies.

use std::sync::Arc;
use std::time::Duration;

use klamm_client::{ProduceError, Record, Transaction};
use tokio::time::Instant;

use super::call::{Failures, tell_interceptors, with_batch, with_record};
use super::conducting::{Halt, Outcome, Wrong, abort, settle};
use super::faults::{Fault, of_send};
use super::item::Hand;
use super::shared::{Item, Shared};
use super::spans::DeliverySpan;
use super::transacted::Sent;
use super::transactions::{Asked, Transactions};
use crate::listener::failure::Failure;
use crate::listener::flow::PartId;
use crate::listener::handler::Call;
use crate::template::Tx;

/// Calls the handler, and fills the transaction with what it sends: it may be committed then. Records that it does not
/// take come again.
///
/// # Errors
/// The transaction was aborted.
pub(super) async fn handle<'a>(
    shared: &Arc<Shared>,
    transactions: &Transactions,
    (transaction, began): (Transaction<'a>, Instant),
    part: PartId,
    hand: &mut Hand,
) -> Result<(Transaction<'a>, Asked), Outcome> {
    let (tx, mut asked) = Tx::new(shared.scope.states.serdes());
    let (mut sent, first) = (Sent::new(), hand.items[0].ticket);
    let done = {
        let called = call(shared, (part, began), &hand.items, &tx);
        tokio::pin!(called);
        let done = tokio::select! {
            biased;
            done = &mut called => Some(done),
            () = shared.void(first) => None,
            // Not before its end: we have a `Tx` ourselves.
            () = sent.serve(&transaction, &shared.scope.group, &mut asked) => None,
        };
        drop(asked);
        if done.is_none() {
            // At once, for whoever has the partition next. The handler is not cut off: what it sends now fails.
            abort(shared, transaction).await;
            called.await;
            return Err(Outcome::Halted(Halt::Void));
        }
        done
    };
    let Called { failures, replies, taken } = done.unwrap_or_default();
    hand.begun(taken);
    if !failures.is_empty() {
        let wrong = sent.wrong();
        abort(shared, transaction).await;
        let is_overdue = began.elapsed() >= transactions.timeout;
        return Err(failed(shared, &hand.items[..taken], failures, (wrong, is_overdue)));
    }
    hand.begin_only(taken);
    let tickets: Vec<_> = hand.items.iter().map(|item| item.ticket).collect();
    let fill = async {
        for reply in replies {
            let taken = sent.send(&transaction, reply).await;
            taken.map_err(|error| Halt::of_send(ProduceError::from(error)))?;
        }
        settle(shared, transactions, (&transaction, began), &mut sent, (part, &tickets)).await
    };
    let filled = tokio::select! {
        biased;
        filled = fill => filled,
        () = shared.void(first) => Err(Halt::Void),
    };
    match filled {
        Ok(asked) => Ok((transaction, asked)),
        Err(halt) => {
            abort(shared, transaction).await;
            Err(Outcome::Halted(halt))
        }
    }
}

/// What a handler made of records.
#[derive(Default)]
struct Called {
    /// What failed, by rising index.
    failures: Failures,
    /// What answers them.
    replies: Vec<Record>,
    /// So many of them, from the first, were begun.
    taken: usize,
}

async fn call(shared: &Shared, (part, began): (PartId, Instant), items: &[Item], tx: &Tx) -> Called {
    match &shared.call {
        Call::Record(call) => {
            let mut called = Called::default();
            for item in items {
                if called.taken > 0 && !joins(shared, part, began) {
                    break;
                }
                let span = DeliverySpan::of_record(shared, item);
                let handled = span.around(with_record(shared, &**call, item, None, Some(tx))).await;
                called.taken += 1;
                match handled {
                    Ok(reply) => called.replies.extend(reply),
                    Err(failure) => {
                        span.failed(&failure, None);
                        called.failures.push((called.taken - 1, Arc::new(failure)));
                        break;
                    }
                }
            }
            called
        }
        Call::Batch(call) => {
            let span = DeliverySpan::of_batch(shared, items);
            let failures = span.around(with_batch(shared, &**call, items, None, Some(tx))).await;
            failures.iter().take(1).for_each(|(_, failure)| span.failed(failure, None));
            Called { failures, replies: Vec::new(), taken: items.len() }
        }
    }
}

/// Whether one more record may share the transaction.
fn joins(shared: &Shared, part: PartId, began: Instant) -> bool {
    let within = shared.settings.shared_transaction.map_or(Duration::ZERO, |shared| shared.within);
    began.elapsed() < within && shared.look(|flow| flow.runs(part))
}

/// A handler fails also because the transaction cannot go on, which is not its fault.
fn failed(
    shared: &Shared,
    items: &[Item],
    failures: Failures,
    (wrong, is_overdue): (Option<ProduceError>, bool),
) -> Outcome {
    let is_shared = shared.settings.shared_transaction.is_some() && items.len() > 1;
    match wrong {
        // Together they may take too long each time.
        Some(error) if of_send(&error) != Fault::OfRecord && !(is_shared && is_overdue) => {
            Outcome::Halted(Halt::Wrong(Wrong::of_send(&error)))
        }
        // It may be an earlier one whose record was refused.
        Some(_) if is_shared => Outcome::Apart,
        _ => {
            tell_interceptors(shared, items, &failures);
            Outcome::Failed(failures)
        }
    }
}

/// A transaction that could not be committed for a reason that lies in its records, as their failure.
pub(super) fn failures(items: &[Item], failure: Failure) -> Failures {
    let failure = Arc::new(failure);
    (0..items.len()).map(|index| (index, Arc::clone(&failure))).collect()
}
