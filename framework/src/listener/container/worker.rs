//! The work on one lane: deliver, and when that fails, what the failure policy says.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::future::FutureExt;
use tokio::sync::SemaphorePermit;
use tokio::time::{Instant, sleep};

use super::ListenerFailure;
use super::ack_call::{AckCall, Returned};
use super::partition::{Item, Partition};
use super::shared::Shared;
use crate::listener::ack::Ack;
use crate::listener::builder::AckPolicy;
use crate::listener::dispatch::Lane;
use crate::listener::extract::Delivery;
use crate::listener::failure::{Backoff, Decision, Ending, Failure};
use crate::listener::handler::{BatchCall, BatchInput, Call, PreparedBatch, RecordCall};
use crate::listener::ledger::Ticket;
use crate::listener::lookups::{call_record, prepare_batch};

#[derive(Debug, Clone)]
pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) partition: Arc<Partition>,
}

/// Records that failed, each with its reason; records of a batch that failed as a whole share theirs.
type Failed = Vec<(Item, Arc<Failure>)>;

impl Worker {
    /// Handles the records of a lane until it is empty or the partition closes.
    pub(super) async fn run_lane(self, lane: Lane) {
        loop {
            let items = self.next(&lane).await;
            if items.is_empty() {
                return;
            }
            self.handle(items).await;
        }
    }

    /// Takes up records whose `Ack` was dropped after their handler had returned.
    pub(super) async fn take_back(self, items: Vec<Item>) {
        let failure = Arc::new(Failure::not_acknowledged());
        let failed = items.into_iter().map(|item| (item, Arc::clone(&failure))).collect();
        let Some(work) = self.partition.begin() else { return };
        let (retried, delay) = self.judge(failed).await;
        drop(work);
        if self.wait_to_retry(&retried, delay).await {
            self.handle(retried).await;
        }
    }

    /// The lane's next record, or its next batch.
    async fn next(&self, lane: &Lane) -> Vec<Item> {
        let Some(batch) = self.shared.settings.batch else { return self.partition.take(lane, 1) };
        if !batch.wait.is_zero() && self.partition.waiting(lane) > 0 {
            let full = async {
                while self.partition.waiting(lane) < batch.most {
                    self.partition.arrived().await;
                }
            };
            tokio::select! {
                () = full => {}
                () = sleep(batch.wait) => {}
                () = self.partition.closed() => {}
            }
        }
        self.partition.take(lane, batch.most)
    }

    /// Delivers these records until none is left to deliver, or the partition closes: then they stay unfinished.
    async fn handle(&self, mut items: Vec<Item>) {
        while !items.is_empty() {
            let Some(permit) = self.permit().await else { return };
            let Some(work) = self.partition.begin() else { return };
            // In manual mode an earlier delivery's `Ack` may have been used since.
            items.retain(|item| self.partition.wants(item.ticket));
            let count = items.len();
            let failed = self.deliver(items).await;
            let any_done = failed.len() < count;
            // Others may run while this lane waits for a broker or a clock.
            drop(permit);
            let (retried, delay) = self.judge(failed).await;
            drop(work);
            if any_done && self.shared.settings.ack == AckPolicy::Record {
                tokio::select! {
                    // A failed commit is logged where it happened; the next one covers these records too.
                    _ = self.shared.commits.flush() => {}
                    () = self.partition.closed() => return,
                }
            }
            if !self.wait_to_retry(&retried, delay).await {
                return;
            }
            items = retried;
        }
    }

    async fn permit(&self) -> Option<SemaphorePermit<'_>> {
        // The way of every record while there are permits: no waiting is set up. Who waits already is served before.
        if let Ok(permit) = self.shared.permits.try_acquire() {
            return Some(permit);
        }
        tokio::select! {
            biased;
            () = self.partition.closed() => None,
            permit = self.shared.permits.acquire() => permit.ok(),
        }
    }

    /// `false`: nothing to retry, or the partition closed.
    async fn wait_to_retry(&self, retried: &[Item], delay: Duration) -> bool {
        if retried.is_empty() {
            return false;
        }
        tokio::select! {
            biased;
            () = self.partition.closed() => false,
            () = sleep(delay) => true,
        }
    }

    fn finish(&self, tickets: &[Ticket]) {
        self.shared.finish(&self.partition, tickets);
    }

    /// Calls the handler. What it handled is finished; what it did not, comes back.
    async fn deliver(&self, items: Vec<Item>) -> Failed {
        if items.is_empty() {
            return Vec::new();
        }
        let manual = self.shared.settings.ack == AckPolicy::Manual;
        let ack = manual.then(|| AckCall::new(&self.shared, &self.partition, &items));
        let failures = match &self.shared.call {
            Call::Record(call) => self.call_with_record(&**call, &items[0], ack.as_ref()).await,
            Call::Batch(call) => self.call_with_batch(&**call, &items, ack.as_ref()).await,
        };
        self.settle(items, failures, ack)
    }

    /// A single record has index 0.
    async fn call_with_record(
        &self,
        call: &RecordCall,
        item: &Item,
        ack: Option<&Arc<AckCall>>,
    ) -> Vec<(usize, Arc<Failure>)> {
        let ack = ack.map(|ack| Ack::new(Arc::clone(ack) as _));
        let delivery = Delivery {
            record: &item.record,
            attempt: item.attempt,
            scope: &self.shared.scope,
            ack: ack.as_ref(),
        };
        let handled = AssertUnwindSafe(call_record(call, &delivery));
        let handled = handled.catch_unwind().await.unwrap_or_else(|panic| Err(Failure::panicked(panic)));
        handled.err().map(|failure| (0, Arc::new(failure))).into_iter().collect()
    }

    async fn call_with_batch(
        &self,
        call: &BatchCall,
        items: &[Item],
        ack_call: Option<&Arc<AckCall>>,
    ) -> Vec<(usize, Arc<Failure>)> {
        let ack = ack_call.map(|ack| Ack::new(Arc::clone(ack) as _));
        let input = || BatchInput {
            records: items.iter().map(|item| (&item.record, item.attempt)).collect(),
            scope: &self.shared.scope,
            ack: ack.as_ref(),
        };
        let all = |failure: Failure, indexes: &mut dyn Iterator<Item = usize>| {
            let failure = Arc::new(failure);
            indexes.map(|index| (index, Arc::clone(&failure))).collect::<Vec<_>>()
        };
        let prepared = match prepare_batch(call, input).await {
            Ok(prepared) => prepared,
            Err(panic) => return all(Failure::panicked(panic), &mut (0..items.len())),
        };
        let PreparedBatch { rejected, accepted, handling, .. } = prepared;
        for (index, _) in &rejected {
            if let Some(ack) = ack_call {
                ack.exclude(items[*index].ticket);
            }
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
                    Ok(some) => some
                        .into_iter()
                        .map(|(index, failure)| (accepted[index], Arc::new(failure)))
                        .collect(),
                },
            },
        });
        failures.sort_by_key(|(index, _)| *index);
        failures
    }

    /// Parts the handled records from the failed ones, and finishes the handled ones: at once, or
    /// when they are acknowledged.
    fn settle(
        &self,
        items: Vec<Item>,
        failures: Vec<(usize, Arc<Failure>)>,
        ack: Option<Arc<AckCall>>,
    ) -> Failed {
        let mut failures = failures.into_iter().peekable();
        let (mut failed, mut handled) = (Vec::new(), Vec::new());
        for (index, item) in items.into_iter().enumerate() {
            match failures.next_if(|(failed_index, _)| *failed_index == index) {
                Some((_, failure)) => failed.push((item, failure)),
                None => handled.push(item),
            }
        }
        let Some(ack) = ack else {
            let tickets: Vec<_> = handled.iter().map(|item| item.ticket).collect();
            self.finish(&tickets);
            return failed;
        };

        if ack.is_acknowledged() {
            // The handler said that the work is done; that it failed afterwards does not undo it. Rejected records of a
            // batch were not part of what was acknowledged.
            failed.retain(|(item, failure)| {
                let wanted = self.partition.wants(item.ticket);
                if !wanted {
                    tracing::warn!(
                        listener = %self.shared.scope.id, partition = %self.partition.place,
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
        if let Returned::Dropped(items) = ack.returned(handled) {
            let failure = Arc::new(Failure::not_acknowledged());
            failed.extend(items.into_iter().map(|item| (item, Arc::clone(&failure))));
            failed.sort_by_key(|(item, _)| item.record.offset);
        }
        failed
    }

    /// Asks the policy about each failed record and does what it says; gives those to retry, and after which delay.
    async fn judge(&self, failed: Failed) -> (Vec<Item>, Duration) {
        let (mut retried, mut delay) = (Vec::new(), Duration::ZERO);
        for (mut item, failure) in failed {
            let elapsed = item.first_failure.get_or_insert_with(Instant::now).elapsed();
            let random = self.shared.rng.next_u64();
            match self.shared.settings.policy.decide(&failure, item.attempt, elapsed, random) {
                Decision::RetryAfter(wait) => {
                    tracing::warn!(
                        listener = %self.shared.scope.id, partition = %self.partition.place,
                        offset = item.record.offset, attempt = item.attempt, %failure, retry_in = ?wait,
                        "a record failed"
                    );
                    self.partition.retrying(item.ticket);
                    item.attempt += 1;
                    delay = delay.max(wait);
                    retried.push(item);
                }
                Decision::GiveUp(ending) => self.give_up(item, &failure, ending).await,
            }
        }
        (retried, delay)
    }

    async fn give_up(&self, item: Item, failure: &Arc<Failure>, ending: Ending) {
        let what = match ending {
            Ending::DeadLetter { topic } => match self.dead_letter(&item, failure, topic.as_ref()).await {
                true => "a record failed for good and is in the dead-letter topic",
                false => return,
            },
            Ending::Skip => "a record failed for good and is skipped",
            Ending::Stop => {
                let stopped = ListenerFailure::Record {
                    topic: Arc::clone(&item.record.topic),
                    partition: item.record.partition,
                    offset: item.record.offset,
                    failure: Arc::clone(failure),
                };
                // At once, so that no later record of this partition is begun.
                self.partition.close();
                self.shared.stopped_by.send_if_modified(|first| match first {
                    Some(_) => false,
                    None => {
                        *first = Some(stopped);
                        true
                    }
                });
                return;
            }
        };
        tracing::error!(
            listener = %self.shared.scope.id, partition = %self.partition.place, offset = item.record.offset,
            attempts = item.attempt, %failure, "{what}"
        );
        self.finish(&[item.ticket]);
    }

    /// Publishes until the broker has acknowledged it. `false`: the partition closed first, and
    /// the record stays unfinished.
    async fn dead_letter(&self, item: &Item, failure: &Failure, topic: Option<&Arc<str>>) -> bool {
        let Some(dead_letters) = &self.shared.dead_letters else { return false };
        let backoff = Backoff::exponential(Duration::from_secs(1)).jitter(0.2).forever();
        let mut attempt = 0;
        loop {
            let sent = dead_letters.publish(&item.record, topic, &self.shared.scope.group, failure).await;
            let Err(error) = sent else { return true };
            attempt += 1;
            tracing::error!(
                listener = %self.shared.scope.id, partition = %self.partition.place, offset = item.record.offset,
                %error, "a dead letter could not be published; the record waits and it is tried again"
            );
            let delay =
                backoff.delay(attempt, Duration::ZERO, self.shared.rng.next_u64()).unwrap_or_default();
            tokio::select! {
                biased;
                () = self.partition.closed() => return false,
                () = sleep(delay) => {}
            }
        }
    }
}
