//! The one stage for what a record's completion depends on: outputs go out side by side, and a record is finished when
//! its own is acknowledged.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use klamm_client::{ErrorCode, ProduceError, TopicPartition};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::ListenerFailure;
use super::dead_letter::failed;
use super::events::PauseReason;
use super::outputs::{Output, What};
use super::sending::{Next, Sending, advice};
use super::shared::{Back, Item, Shared};
use super::troubles::Subject;
use crate::listener::failure::Failure;

/// How often a reply is tried to a topic that is not there, each time as long as the producer waits for a topic.
const NOWHERE_MAX: u32 = 3;

/// Sends until it is dropped.
pub(super) async fn run(shared: Arc<Shared>, mut outputs: mpsc::UnboundedReceiver<Output>) {
    let mut under_way = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            // In the order in which they come, because the producer keeps it.
            Some(output) = outputs.recv() => under_way.push(see_to(&shared, output)),
            Some(()) = under_way.next() => {}
            else => return,
        }
    }
}

/// Sends an output until it is acknowledged, its partition goes, or the policy says otherwise.
async fn see_to(shared: &Shared, output: Output) {
    let mut stage = Stage { shared, output, halted: false, told: false };
    stage.send().await;
    stage.over();
}

struct Stage<'a> {
    shared: &'a Shared,
    output: Output,
    /// The partition stands still because of this one.
    halted: bool,
    told: bool,
}

impl Stage<'_> {
    async fn send(&mut self) {
        let policy = match &self.output.what {
            What::DeadLetter { .. } | What::Retry { .. } => {
                Some(self.shared.settings.policy.unsendable_policy().clone())
            }
            What::Reply(_) => None,
        };
        let mut sending = Sending::new(policy);
        let mut nowhere = 0;
        loop {
            if !self.is_wanted() {
                return;
            }
            let Err(error) = self.attempt(&sending).await else {
                let record = &self.output.item.record;
                let parked = sending.elsewhere().is_some();
                self.shared.observed.meters.sent(&record.topic, self.output.what.kind(), parked);
                return self.sent();
            };
            self.shared.observed.meters.not_sent(self.output.what.kind());
            if self.goes_nowhere(&error).await {
                nowhere += 1;
                if nowhere == NOWHERE_MAX {
                    return self.give_back(error);
                }
            }
            match sending.failed(&error, self.shared.rng.next_u64()) {
                Next::Trimmed | Next::Elsewhere => {}
                Next::Again(wait) => {
                    self.tell(&error);
                    if !self.wait(wait).await {
                        return;
                    }
                }
                Next::Halt(wait) => {
                    self.tell(&error);
                    self.halt();
                    if !self.wait(wait).await {
                        return;
                    }
                }
                Next::Skip => {
                    let record = &self.output.item.record;
                    tracing::error!(
                        listener = %self.shared.scope.id, topic = %record.topic, partition = record.partition,
                        offset = record.offset, %error, "{} cannot be sent, and its record is skipped",
                        self.output.what.name()
                    );
                    self.shared.observed.meters.skipped(&record.topic);
                    return self.shared.finish([self.output.item.ticket]);
                }
                Next::Stop => return self.stop(error),
                Next::Back => return self.give_back(error),
            }
        }
    }

    async fn attempt(&self, sending: &Sending) -> Result<(), ProduceError> {
        let (shared, record) = (self.shared, &self.output.item.record);
        match &self.output.what {
            What::DeadLetter { topic, failure } => {
                let topic = sending.elsewhere().or(topic.as_ref());
                let failure = failure.shortened(sending.text_bytes_max());
                let source = shared.scope.source_topic(&record.topic);
                shared.dead_letters.publish(record, topic, source, &shared.scope.group, &failure).await?;
            }
            What::Retry { copies, next, failure } => {
                let failure = failure.shortened(sending.text_bytes_max());
                if let Some(parked) = sending.elsewhere() {
                    let (group, parked) = (&shared.scope.group, Some(parked));
                    shared.dead_letters.publish(record, parked, &record.topic, group, &failure).await?;
                } else {
                    let message = failure.to_string();
                    copies.publish(record, next, failed(&shared.scope.group, &failure, &message)).await?;
                }
            }
            What::Reply(reply) => {
                shared.producer.send((**reply).clone()).await?;
            }
        }
        Ok(())
    }

    /// Whether this is a reply to a topic that is not there, although the brokers answer. Whoever asked named it, and
    /// may name anything: it must not be waited for for ever.
    async fn goes_nowhere(&self, error: &ProduceError) -> bool {
        let What::Reply(reply) = &self.output.what else { return false };
        let may_be = matches!(
            error,
            ProduceError::Blocked { .. }
                | ProduceError::Broker { code: ErrorCode::UnknownTopicOrPartition, .. }
        );
        if !may_be {
            return false;
        }
        let admin = self.shared.producer.client().admin();
        let described = admin.describe_topics(&[&*reply.topic]).await.ok();
        let described = described.and_then(|mut described| described.remove(&reply.topic));
        let code = described.and_then(Result::err).and_then(|error| error.code());
        code == Some(ErrorCode::UnknownTopicOrPartition)
    }

    fn sent(&self) {
        tell_sent(self.shared, &self.output.item, &self.output.what);
        self.shared.finish([self.output.item.ticket]);
    }

    /// `false`: the partition closed first, and the record stays unfinished; or it was moved, and nobody wants this.
    async fn wait(&self, wait: Duration) -> bool {
        tokio::select! {
            biased;
            () = self.shared.closed_or_void(self.output.part, self.output.item.ticket) => false,
            () = sleep(wait) => true,
        }
    }

    fn is_wanted(&self) -> bool {
        self.shared.look(|flow| flow.wants(self.output.item.ticket))
    }

    fn halt(&mut self) {
        if !self.halted {
            self.halted = true;
            self.shared.observed.paused(Some(&self.place()), PauseReason::Output);
            self.shared.change_and_tell(|flow| flow.halt(self.output.part).into_iter().collect());
        }
    }

    fn give_back(&self, error: ProduceError) {
        let Item { record, ticket, attempt, first_failure, due } = &self.output.item;
        let item = Item {
            record: record.clone(),
            ticket: *ticket,
            attempt: *attempt,
            first_failure: *first_failure,
            due: *due,
        };
        let back = Back { items: vec![item], failure: Failure::unanswered(error) };
        // Nobody receives when the listener has ended; then the record is delivered again after a restart.
        let _ = self.shared.returned.send(back);
    }

    fn stop(&self, error: ProduceError) {
        let record = &self.output.item.record;
        self.shared.change(|flow| flow.close(self.output.part));
        self.shared.fail(ListenerFailure::Unsendable {
            topic: Arc::clone(&record.topic),
            partition: record.partition,
            offset: record.offset,
            source: Arc::new(error),
        });
    }

    fn tell(&mut self, error: &ProduceError) {
        self.told = true;
        let halted = if self.halted { "; the partition stands still" } else { "" };
        let what = self.output.what.name();
        let reason = format!("{what} cannot be sent: {error}{}{halted}", advice(error));
        self.shared.troubles.tell(&self.shared.scope.id, self.subject(), &reason);
    }

    fn place(&self) -> TopicPartition {
        let record = &self.output.item.record;
        TopicPartition::new(Arc::clone(&record.topic), record.partition)
    }

    fn subject(&self) -> Subject {
        subject_of(&self.output.item)
    }

    fn over(self) {
        if self.told {
            self.shared.troubles.over(&self.subject());
        }
        let part = self.output.part;
        if self.halted {
            self.shared.observed.resumed(Some(&self.place()), PauseReason::Output);
            self.shared.change_and_tell(|flow| flow.unhalt(part).into_iter().collect());
            self.shared.nudge.notify_one();
        }
        self.shared.change(|flow| flow.shut(part));
    }
}

/// What is told of when outputs of this record cannot be sent.
pub(super) fn subject_of(item: &Item) -> Subject {
    let record = &item.record;
    Subject::Output(TopicPartition::new(Arc::clone(&record.topic), record.partition), record.offset)
}

/// Says that a record is where it belongs now.
pub(super) fn tell_sent(shared: &Shared, item: &Item, what: &What) {
    let (record, attempts) = (&item.record, shared.attempt_of(item));
    match what {
        What::DeadLetter { failure, .. } => tracing::error!(
            listener = %shared.scope.id, topic = %record.topic, partition = record.partition,
            offset = record.offset, attempts, %failure,
            "a record failed for good and is in the dead-letter topic"
        ),
        What::Retry { failure, next, .. } => tracing::warn!(
            listener = %shared.scope.id, topic = %record.topic, partition = record.partition,
            offset = record.offset, attempts, %failure, due_ms = next.step.due_ms,
            "a record failed, and waits in a retry topic"
        ),
        What::Reply(_) => {}
    }
}
