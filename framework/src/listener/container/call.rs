//! One call of a handler: with one record, or with a batch. User code runs here, and what it does wrong is a failure
//! of its records.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::future::FutureExt;
use klamm_client::Record;

use super::ack_call::{AckCall, Returned};
use super::outputs::{Output, What};
use super::shared::{Item, Shared};
use super::spans::DeliverySpan;
use crate::listener::ack::Ack;
use crate::listener::builder::AckPolicy;
use crate::listener::extract::Delivery;
use crate::listener::failure::Failure;
use crate::listener::handler::{BatchCall, BatchInput, Call, PreparedBatch, RecordCall};
use crate::listener::intercept::Before;
use crate::listener::lookups::{call_record, prepare_batch};
use crate::template::Tx;

/// Records that failed, each with its reason; records of a batch that failed as a whole share theirs.
pub(super) type Failed = Vec<(Item, Arc<Failure>)>;

/// Failures by the index of their record.
pub(super) type Failures = Vec<(usize, Arc<Failure>)>;

/// What became of the records that a handler was called with.
pub(super) enum Called {
    /// All of them are handled, and are to be noted as finished.
    AllHandled,
    /// What is not among the failed is noted as finished, or waits for its acknowledgement.
    Noted { failed: Failed, any_handled: bool },
}

/// Calls the handler with what the interceptors let through. `items` stay there when all are handled.
pub(super) async fn call(shared: &Arc<Shared>, items: &mut Vec<Item>) -> Called {
    if shared.settings.interceptors.is_empty() {
        return handle(shared, items).await;
    }
    let refused = sift(shared, items);
    let called = match items.is_empty() {
        true => Called::AllHandled,
        false => handle(shared, items).await,
    };
    if refused.is_empty() {
        return called;
    }
    let (mut failed, any_handled) = match called {
        Called::AllHandled => {
            shared.finish(items.iter().map(|item| item.ticket));
            (Failed::new(), !items.is_empty())
        }
        Called::Noted { failed, any_handled } => (failed, any_handled),
    };
    items.clear();
    failed.extend(refused);
    failed.sort_by_key(|(item, _)| (item.ticket.part, item.record.offset));
    Called::Noted { failed, any_handled }
}

/// Finishes what interceptors discard, and gives what they refuse; the rest stays.
pub(super) fn sift(shared: &Shared, items: &mut Vec<Item>) -> Failed {
    if shared.settings.interceptors.is_empty() {
        return Failed::new();
    }
    let (mut kept, mut discarded, mut refused) = (Vec::with_capacity(items.len()), Vec::new(), Failed::new());
    for item in items.drain(..) {
        match shared.settings.interceptors.before(&delivery(shared, &item)) {
            Ok(Before::Handle) => kept.push(item),
            Ok(Before::Discard) => {
                shared.observed.meters.discarded(&item.record.topic);
                discarded.push(item.ticket);
            }
            Err(failure) => refused.push((item, Arc::new(failure))),
        }
    }
    *items = kept;
    shared.finish(discarded);
    refused
}

/// A delivery as interceptors see it.
fn delivery<'a>(shared: &'a Shared, item: &'a Item) -> Delivery<'a> {
    let attempt = shared.attempt_of(item);
    Delivery { record: &item.record, attempt, scope: &shared.scope, ack: None, tx: None }
}

/// Tells interceptors what became of records. `failures` come by rising index.
pub(super) fn tell_interceptors(shared: &Shared, items: &[Item], failures: &Failures) {
    if shared.settings.interceptors.is_empty() {
        return;
    }
    let mut failures = failures.iter().peekable();
    for (index, item) in items.iter().enumerate() {
        let failure = failures.next_if(|(failed, _)| *failed == index).map(|(_, failure)| &**failure);
        shared.settings.interceptors.after(&delivery(shared, item), failure);
    }
}

async fn handle(shared: &Arc<Shared>, items: &mut Vec<Item>) -> Called {
    let manual = shared.settings.ack == AckPolicy::Manual;
    let ack = manual.then(|| AckCall::new(shared, items));
    let failures = match &shared.call {
        Call::Record(call) => match items.first() {
            Some(item) => {
                let span = DeliverySpan::of_record(shared, item);
                match span.around(with_record(shared, &**call, item, ack.as_ref(), None)).await {
                    Ok(None) => Vec::new(),
                    Ok(Some(reply)) => {
                        tell_interceptors(shared, items, &Failures::new());
                        if let Some(item) = items.pop() {
                            send(shared, item, reply);
                        }
                        return Called::Noted { failed: Vec::new(), any_handled: false };
                    }
                    Err(failure) => {
                        span.failed(&failure, items.first_mut());
                        vec![(0, Arc::new(failure))]
                    }
                }
            }
            None => Vec::new(),
        },
        Call::Batch(call) => {
            let span = DeliverySpan::of_batch(shared, items);
            let failures = span.around(with_batch(shared, &**call, items, ack.as_ref(), None)).await;
            if let Some((_, failure)) = failures.first() {
                span.failed(failure, None);
            }
            failures
        }
    };
    let failures = match &ack {
        Some(ack) => ack.failures(items, failures),
        None => failures,
    };
    tell_interceptors(shared, items, &failures);
    // To note as finished what was acknowledged changes nothing.
    if failures.is_empty() && ack.as_ref().is_none_or(|ack| ack.is_acknowledged()) {
        return Called::AllHandled;
    }
    let count = items.len();
    let failed = settle(shared, std::mem::take(items), failures, ack);
    Called::Noted { any_handled: failed.len() < count, failed }
}

/// Gives what answers the record, if something does.
pub(super) async fn with_record(
    shared: &Shared,
    call: &RecordCall,
    item: &Item,
    ack: Option<&Arc<AckCall>>,
    tx: Option<&Tx>,
) -> Result<Option<Record>, Failure> {
    let is_manual = ack.is_some();
    let ack = ack.map(|ack| Ack::new(Arc::clone(ack) as _));
    let delivery = Delivery {
        record: &item.record,
        attempt: shared.attempt_of(item),
        scope: &shared.scope,
        ack: ack.as_ref(),
        tx,
    };
    let handled = AssertUnwindSafe(call_record(call, &delivery));
    let answer = handled.catch_unwind().await.unwrap_or_else(|panic| Err(Failure::panicked(panic)))?;
    let Some(answer) = answer else { return Ok(None) };
    if is_manual {
        // The record would be finished before its reply is there.
        return Err(Failure::handler(
            "who acknowledges by hand replies by hand: send with a template, then acknowledge",
        ));
    }
    let (send_to, states) = (shared.settings.send_to.as_ref(), &shared.scope.states);
    answer.record(&item.record, send_to, states).await.map(Some)
}

/// The record is finished when its reply is acknowledged.
fn send(shared: &Shared, item: Item, reply: Record) {
    let part = item.ticket.part;
    shared.change(|flow| flow.open(part));
    // Nobody receives when the listener has ended; then the record is delivered again after a restart.
    let _ = shared.outputs.send(Output { part, item, what: What::Reply(Box::new(reply)) });
}

pub(super) async fn with_batch(
    shared: &Shared,
    call: &BatchCall,
    items: &[Item],
    ack_call: Option<&Arc<AckCall>>,
    tx: Option<&Tx>,
) -> Failures {
    let ack = ack_call.map(|ack| Ack::new(Arc::clone(ack) as _));
    let input = || BatchInput {
        records: items.iter().map(|item| (&item.record, shared.attempt_of(item))).collect(),
        scope: &shared.scope,
        ack: ack.as_ref(),
        tx,
        failed: None,
    };
    let all = |failure: Failure, indexes: &mut dyn Iterator<Item = usize>| {
        let failure = Arc::new(failure);
        indexes.map(|index| (index, Arc::clone(&failure))).collect::<Vec<_>>()
    };
    let prepared = match prepare_batch(call, input).await {
        Ok(prepared) => prepared,
        Err(panic) => return all(Failure::panicked(panic), &mut (0..items.len())),
    };
    let PreparedBatch { rejected, accepted, mut handling, .. } = prepared;
    if tx.is_some() && !rejected.is_empty() {
        // What the others make could not be committed: not without those below them.
        handling = None;
    }
    if let Some(ack) = ack_call.filter(|_| !rejected.is_empty()) {
        ack.accepted(accepted.iter().map(|index| items[*index].ticket));
    }
    let mut failures: Vec<_> = rejected
        .into_iter()
        .map(|(index, rejection)| (index, Arc::new(Failure::rejected(rejection))))
        .collect();
    failures.extend(match handling {
        None => Vec::new(),
        Some(Err(rejection)) => all(Failure::rejected(rejection), &mut accepted.iter().copied()),
        Some(Ok(handling)) => match AssertUnwindSafe(handling).catch_unwind().await {
            Err(panic) => all(Failure::panicked(panic), &mut accepted.iter().copied()),
            Ok(outcome) => match outcome.into_failures(accepted.len()) {
                Err(whole) => all(whole, &mut accepted.iter().copied()),
                Ok(some) => {
                    some.into_iter().map(|(index, failure)| (accepted[index], Arc::new(failure))).collect()
                }
            },
        },
    });
    failures.sort_by_key(|(index, _)| *index);
    failures
}

/// Notes what was handled, and gives what was not. `failures` come by rising index.
fn settle(shared: &Shared, items: Vec<Item>, failures: Failures, ack: Option<Arc<AckCall>>) -> Failed {
    let (mut handled, mut failed) = (Vec::with_capacity(items.len()), Vec::new());
    let mut failures = failures.into_iter().peekable();
    for (index, item) in items.into_iter().enumerate() {
        match failures.next_if(|(failed, _)| *failed == index) {
            Some((_, failure)) => failed.push((item, failure)),
            None => handled.push(item),
        }
    }
    let Some(ack) = ack else {
        shared.finish(handled.iter().map(|item| item.ticket));
        return failed;
    };
    if ack.is_acknowledged() {
        // The handler said that the work is done; that it failed afterwards does not undo it. Rejected records of a
        // batch were not part of what was acknowledged.
        failed.retain(|(item, failure)| {
            let wanted = shared.look(|flow| flow.wants(item.ticket));
            if !wanted {
                tracing::warn!(
                    listener = %shared.scope.id, topic = %item.record.topic, partition = item.record.partition,
                    offset = item.record.offset, %failure, "the handler failed after it had acknowledged"
                );
            }
            wanted
        });
        return failed;
    }
    if handled.is_empty() {
        ack.over();
        return failed;
    }
    failed.iter().for_each(|(item, _)| ack.exclude(item.ticket));
    if let Returned::Back(items, failure) = ack.returned(handled) {
        let failure = Arc::new(failure);
        failed.extend(items.into_iter().map(|item| (item, Arc::clone(&failure))));
        failed.sort_by_key(|(item, _)| (item.ticket.part, item.record.offset));
    }
    failed
}
