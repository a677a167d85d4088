//! A handler at work in a transaction: what it sends goes into it, and so does its reply.

use std::sync::Arc;

use klamm_client::{ProduceError, Record, Transaction};
use tokio::time::Instant;

use super::call::{Failures, tell_interceptors, with_batch, with_record};
use super::conducting::{Halt, Outcome, Wrong, abort, settle};
use super::faults::{Fault, of_send};
use super::shared::{Item, Shared};
use super::spans::DeliverySpan;
use super::transacted::Sent;
use super::transactions::{Asked, Transactions};
use crate::listener::failure::Failure;
use crate::listener::flow::PartId;
use crate::listener::handler::Call;
use crate::template::Tx;

/// Calls the handler, and fills the transaction with what it sends: it may be committed then.
///
/// # Errors
/// The transaction was aborted.
pub(super) async fn handle<'a>(
    shared: &Arc<Shared>,
    transactions: &Transactions,
    (transaction, began): (Transaction<'a>, Instant),
    part: PartId,
    items: &[Item],
) -> Result<(Transaction<'a>, Asked), Outcome> {
    let (tx, mut asked) = Tx::new(shared.scope.states.serdes());
    let (mut sent, first) = (Sent::new(), items[0].ticket);
    let called = call(shared, items, &tx);
    tokio::pin!(called);
    let done = tokio::select! {
        biased;
        done = &mut called => Some(done),
        () = shared.void(first) => None,
        // Not before its end: we have a `Tx` ourselves.
        () = sent.serve(&transaction, &shared.scope.group, &mut asked) => None,
    };
    drop(asked);
    let Some((failures, reply)) = done else {
        // At once, for whoever has the partition next. The handler is not cut off: what it sends from here on fails.
        abort(shared, transaction).await;
        called.await;
        return Err(Outcome::Halted(Halt::Void));
    };
    if !failures.is_empty() {
        let wrong = sent.wrong();
        abort(shared, transaction).await;
        return Err(failed(shared, items, failures, wrong));
    }
    let tickets: Vec<_> = items.iter().map(|item| item.ticket).collect();
    let fill = async {
        if let Some(reply) = reply {
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

/// What failed, by rising index, and what answers the record.
async fn call(shared: &Shared, items: &[Item], tx: &Tx) -> (Failures, Option<Record>) {
    match &shared.call {
        Call::Record(call) => {
            let span = DeliverySpan::of_record(shared, &items[0]);
            match span.around(with_record(shared, &**call, &items[0], None, Some(tx))).await {
                Ok(reply) => (Failures::new(), reply),
                Err(failure) => {
                    span.failed(&failure, None);
                    (vec![(0, Arc::new(failure))], None)
                }
            }
        }
        Call::Batch(call) => {
            let span = DeliverySpan::of_batch(shared, items);
            let failures = span.around(with_batch(shared, &**call, items, None, Some(tx))).await;
            failures.iter().take(1).for_each(|(_, failure)| span.failed(failure, None));
            (failures, None)
        }
    }
}

/// A handler fails also because the transaction cannot go on, which is not its fault.
fn failed(shared: &Shared, items: &[Item], failures: Failures, wrong: Option<ProduceError>) -> Outcome {
    match wrong {
        Some(error) if of_send(&error) != Fault::OfRecord => {
            Outcome::Halted(Halt::Wrong(Wrong::of_send(&error)))
        }
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
