//! What becomes of records that failed: the failure policy is asked, and its decisions are begun. Nothing waits here:
//! what takes time belongs to the flow (retries) or to the outputs (dead letters).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::ListenerFailure;
use super::call::Failed;
use super::outputs::{Output, What};
use super::shared::{Back, Item, Shared};
use crate::listener::failure::{Decision, Delivered, Ending, Failure};
use crate::listener::flow::{PartId, after};

/// Asks the policy about each failed record; gives those to try again, and after which delay. What became of a delivery
/// that is void is of no consequence: the record comes again, here or elsewhere, or nobody wants it any more.
pub(super) fn judge(shared: &Shared, failed: Failed) -> (Vec<Item>, Duration) {
    let (mut retried, mut delay) = (Vec::new(), Duration::ZERO);
    for (mut item, failure) in failed {
        let part = item.ticket.part;
        if !shared.look(|flow| flow.wants(item.ticket)) {
            tracing::warn!(
                listener = %shared.scope.id, topic = %item.record.topic, partition = item.record.partition,
                offset = item.record.offset, %failure,
                "a record failed after its partition had been moved to another place or member, which counts for \
                 nothing"
            );
            continue;
        }
        match decide(shared, &mut item, &failure) {
            Judged::Retry(wait) => {
                delay = delay.max(wait);
                retried.push(item);
            }
            Judged::Send(what) => {
                shared.change(|flow| flow.open(part));
                // Nobody receives when the listener has ended; then the record is delivered again after a restart.
                let _ = shared.outputs.send(Output { part, item, what });
            }
            Judged::Skip => shared.finish([item.ticket]),
            Judged::Stop => stop(shared, part, &item, failure),
        }
    }
    (retried, delay)
}

/// What becomes of a record that failed.
pub(super) enum Judged {
    /// It is tried again after this time.
    Retry(Duration),
    /// It is finished when this is sent.
    Send(What),
    Skip,
    Stop,
}

/// Asks the policy about one.
pub(super) fn decide(shared: &Shared, item: &mut Item, failure: &Arc<Failure>) -> Judged {
    if let Some(wait) = failure.delay() {
        tracing::debug!(
            listener = %shared.scope.id, topic = %item.record.topic, partition = item.record.partition,
            offset = item.record.offset, ?wait, "a record was put off by its handler"
        );
        return Judged::Retry(wait);
    }
    shared.observed.meters.failed(&item.record.topic, failure.kind());
    let elapsed = item.first_failure.get_or_insert_with(Instant::now).elapsed();
    let random = shared.rng.next_u64();
    let steps_taken = shared.retry_copies.steps_taken(&item.record);
    let delivered = Delivered { attempt: item.attempt, elapsed, steps_taken };
    match shared.settings.policy.decide(failure, delivered, random) {
        Decision::RetryAfter(wait) => {
            tracing::warn!(
                listener = %shared.scope.id, topic = %item.record.topic, partition = item.record.partition,
                offset = item.record.offset, attempt = shared.attempt_of(item), %failure, retry_in = ?wait,
                "a record failed"
            );
            shared.observed.meters.retried(&item.record.topic);
            item.attempt += 1;
            Judged::Retry(wait)
        }
        Decision::Forward => Judged::Send(forward(shared, item, failure)),
        Decision::GiveUp(Ending::DeadLetter { topic }) => {
            Judged::Send(What::DeadLetter { topic, failure: Arc::clone(failure) })
        }
        Decision::GiveUp(Ending::Skip) => {
            tracing::error!(
                listener = %shared.scope.id, topic = %item.record.topic, partition = item.record.partition,
                offset = item.record.offset, attempts = shared.attempt_of(item), %failure,
                "a record failed for good and is skipped"
            );
            shared.observed.meters.skipped(&item.record.topic);
            Judged::Skip
        }
        Decision::GiveUp(Ending::Stop) => Judged::Stop,
    }
}

/// Takes up records that failed after their handler had returned, when they belong to no lane any more.
pub(super) fn take_back(shared: &Shared, Back { mut items, failure }: Back) {
    items.retain(|item| !shared.look(|flow| flow.is_closed(item.ticket.part)));
    let failure = Arc::new(failure);
    let failed = items.into_iter().map(|item| (item, Arc::clone(&failure))).collect();
    let (mut retried, delay) = judge(shared, failed);
    while let Some(part) = retried.first().map(|item| item.ticket.part) {
        let own = retried.extract_if(.., |item| item.ticket.part == part).collect();
        shared.change_times(|flow, now| flow.retry_apart(part, own, after(now, delay)));
    }
}

/// Lets the record wait in its next retry topic.
fn forward(shared: &Shared, item: &Item, failure: &Arc<Failure>) -> What {
    let failure = Arc::clone(failure);
    match shared.retry_copies.next(&item.record, shared.attempt_of(item)) {
        Some(next) => What::Retry { copies: Arc::clone(&shared.retry_copies), next, failure },
        // There is no step that the policy could mean: it is not passed over in silence.
        None => What::DeadLetter { topic: None, failure },
    }
}

/// The listener stops because of this record; at once, so that no later one of its partition is begun.
pub(super) fn stop(shared: &Shared, part: PartId, item: &Item, failure: Arc<Failure>) {
    shared.change(|flow| flow.close(part));
    shared.fail(ListenerFailure::Record {
        topic: Arc::clone(&item.record.topic),
        partition: item.record.partition,
        offset: item.record.offset,
        failure,
    });
}
