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
pub(super) fn judge(shared: &Shared, part: PartId, failed: Failed) -> (Vec<Item>, Duration) {
    let (mut retried, mut delay) = (Vec::new(), Duration::ZERO);
    for (mut item, failure) in failed {
        shared.observed.meters.failed(&item.record.topic, failure.kind());
        if !shared.look(|flow| flow.wants(item.ticket)) {
            tracing::warn!(
                listener = %shared.scope.id, topic = %item.record.topic, partition = item.record.partition,
                offset = item.record.offset, %failure,
                "a record failed after its partition had been moved to another place or member, which counts for \
                 nothing"
            );
            continue;
        }
        let elapsed = item.first_failure.get_or_insert_with(Instant::now).elapsed();
        let random = shared.rng.next_u64();
        let steps_taken = shared.retry_copies.as_ref().map_or(0, |copies| copies.steps_taken(&item.record));
        let delivered = Delivered { attempt: item.attempt, elapsed, steps_taken };
        match shared.settings.policy.decide(&failure, delivered, random) {
            Decision::RetryAfter(wait) => {
                tracing::warn!(
                    listener = %shared.scope.id, topic = %item.record.topic, partition = item.record.partition,
                    offset = item.record.offset, attempt = shared.attempt_of(&item), %failure, retry_in = ?wait,
                    "a record failed"
                );
                shared.observed.meters.retried(&item.record.topic);
                item.attempt += 1;
                delay = delay.max(wait);
                retried.push(item);
            }
            Decision::Forward => forward(shared, part, item, failure),
            Decision::GiveUp(ending) => give_up(shared, part, item, failure, ending),
        }
    }
    (retried, delay)
}

/// Takes up records that failed after their handler had returned, when they belong to no lane any more.
pub(super) fn take_back(shared: &Shared, Back { part, items, failure }: Back) {
    if shared.look(|flow| flow.is_closed(part)) {
        return;
    }
    let failure = Arc::new(failure);
    let failed = items.into_iter().map(|item| (item, Arc::clone(&failure))).collect();
    let (retried, delay) = judge(shared, part, failed);
    if !retried.is_empty() {
        shared.change_times(|flow, now| flow.retry_apart(part, retried, after(now, delay)));
    }
}

/// Lets the record wait in its next retry topic.
fn forward(shared: &Shared, part: PartId, item: Item, failure: Arc<Failure>) {
    let deliveries = shared.attempt_of(&item);
    let step = shared
        .retry_copies
        .as_ref()
        .and_then(|copies| Some((copies, copies.next(&item.record, deliveries)?)));
    let Some((copies, next)) = step else {
        // There is no step that the policy could mean: it is not passed over in silence.
        return give_up(shared, part, item, failure, Ending::DeadLetter { topic: None });
    };
    let what = What::Retry { copies: Arc::clone(copies), next, failure };
    shared.change(|flow| flow.open(part));
    // Nobody receives when the listener has ended; then the record is delivered again after a restart.
    let _ = shared.outputs.send(Output { part, item, what });
}

fn give_up(shared: &Shared, part: PartId, item: Item, failure: Arc<Failure>, ending: Ending) {
    match ending {
        Ending::DeadLetter { topic } => {
            shared.change(|flow| flow.open(part));
            // Nobody receives when the listener has ended; then the record is delivered again after a restart.
            let _ = shared.outputs.send(Output { part, item, what: What::DeadLetter { topic, failure } });
        }
        Ending::Skip => {
            tracing::error!(
                listener = %shared.scope.id, topic = %item.record.topic, partition = item.record.partition,
                offset = item.record.offset, attempts = shared.attempt_of(&item), %failure,
                "a record failed for good and is skipped"
            );
            shared.observed.meters.skipped(&item.record.topic);
            shared.finish([item.ticket]);
        }
        Ending::Stop => {
            // At once, so that no later record of this partition is begun.
            shared.change(|flow| flow.close(part));
            shared.fail(ListenerFailure::Record {
                topic: Arc::clone(&item.record.topic),
                partition: item.record.partition,
                offset: item.record.offset,
                failure,
            });
        }
    }
}
