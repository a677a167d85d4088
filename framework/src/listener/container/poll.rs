//! The poll loop of a listener. It moves records from the consumer into the flow, has workers begun, and obeys
//! commands; it waits for no handler.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use klamm_client::{ConsumeError, Consumer, ConsumerRecords, ErrorCode, RequestError, TopicPartition};
use klamm_runtime::Tasks;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::ListenerFailure;
use super::command::Command;
use super::judge::take_back;
use super::obey::obey;
use super::shared::{Back, Shared};
use super::sought::Sought;
use super::status::Ended;
use super::troubles::Subject;
use super::worker::work;
use crate::listener::failure::Unreadable;
use crate::listener::flow::PartId;

/// How long a listener that stops by itself waits for what is in work.
const OWN_STOP_DRAIN: Duration = Duration::from_secs(10);
/// How long the other partitions wait for one that has its share of the budget, before it is paused. To pause costs
/// more than a quick handler takes to make room.
const PATIENCE: Duration = Duration::from_millis(5);
/// The loop turns so often also when there is nothing to do, so that it is seen to be able to.
const BEAT: Duration = Duration::from_secs(5);

pub(super) struct PollLoop {
    pub(super) shared: Arc<Shared>,
    pub(super) consumer: Consumer,
    pub(super) stopping: watch::Receiver<Option<Instant>>,
    pub(super) take_back: mpsc::UnboundedReceiver<Back>,
    pub(super) commands: mpsc::UnboundedReceiver<Command>,
    pub(super) sought: Sought,
}

/// Records that are sorted into lanes at once.
const TOGETHER: usize = 64;

/// Why the loop ended.
enum Stop {
    Asked(Instant),
    Failed(ListenerFailure),
}

/// A partition that has its share, and until when it is waited for.
type Full = Option<(PartId, Instant)>;

impl PollLoop {
    /// Runs to the end. `workers` do the work; none outlives them.
    pub(super) async fn run(mut self, workers: Tasks) -> Ended {
        let stop = self.poll(&workers).await;
        let (deadline, failure) = match stop {
            Stop::Asked(deadline) => (deadline, None),
            Stop::Failed(failure) => {
                tracing::error!(listener = %self.shared.scope.id, reason = %failure, "the listener stops");
                (Instant::now() + OWN_STOP_DRAIN, Some(failure))
            }
        };
        self.shared.observed.stopping();
        let report = super::drain::drain(self, workers, deadline).await;
        Ended { report, failure }
    }

    async fn poll(&mut self, workers: &Tasks) -> Stop {
        let shared = Arc::clone(&self.shared);
        let mut stopped_by = shared.stopped_by.subscribe();
        let mut full: Full = None;
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            shared.observed.turned();
            let due = begin_work(&shared, workers);
            self.sought.note(&shared, Instant::now());
            full = full.filter(|(part, _)| !shared.look(|flow| flow.has_room(*part)));
            tokio::select! {
                biased;
                asked = self.stopping.wait_for(Option::is_some) => {
                    // An error means that the container was dropped; then this task ends at its next await anyway.
                    let asked = asked.ok().and_then(|deadline| *deadline);
                    return Stop::Asked(asked.unwrap_or_else(Instant::now));
                }
                Ok(failure) = stopped_by.wait_for(Option::is_some) => {
                    return Stop::Failed(failure.clone().unwrap_or(ListenerFailure::Ended));
                }
                Some(back) = self.take_back.recv() => take_back(&shared, back),
                Some(command) = self.commands.recv() => obey(&shared, &mut self.sought, command),
                () = shared.nudge.notified() => {}
                () = at(due) => {}
                _ = beat.tick() => {}
                () = at(self.sought.next_due()) => {}
                () = at(full.map(|(_, until)| until)) => {
                    if let Some((part, _)) = full.take() {
                        shared.change_and_tell(|flow| flow.hold_if_full(part, true).into_iter().collect());
                    }
                }
                next = self.consumer.next_batch_within(|place| shared.look(|flow| flow.room(place))),
                    if full.is_none() =>
                {
                    match next {
                        Some(Ok(records)) => full = take_in(&shared, records),
                        Some(Err(error)) => if let Err(failure) = bear(&shared, error) {
                            return Stop::Failed(failure);
                        },
                        None => return Stop::Failed(ListenerFailure::Ended),
                    }
                }
            }
        }
    }
}

/// Lets lanes go on whose time has come, and begins workers where there is work. Gives when to look again.
fn begin_work(shared: &Arc<Shared>, workers: &Tasks) -> Option<Instant> {
    let (wanted, due) = shared.change(|flow| {
        flow.wake(Instant::now());
        (flow.workers_wanted(), flow.next_due())
    });
    for _ in 0..wanted {
        workers.spawn("listener worker", work(Arc::clone(shared)));
    }
    due
}

fn take_in(shared: &Shared, batch: ConsumerRecords) -> Full {
    let place = batch.topic_partition();
    shared.troubles.read(&place);
    // Not assigned any more: another member reads these records.
    let part = shared.look(|flow| flow.id(&place))?;
    let (now, next_offset) = (Instant::now(), batch.next_offset);
    let mut records = batch.records.into_iter();
    if records.len() > 0 {
        shared.observed.arrived();
    }
    // Without records it says that reading goes on behind what is none.
    let is_full = loop {
        // Workers get at the flow in between. Where reading goes on is known with the last ones, and not before: what
        // is finished meanwhile must not be committed past those to come.
        let read_to = (records.len() <= TOGETHER).then_some(next_offset);
        let some = shared.arrivals(records.by_ref().take(TOGETHER), now);
        let is_full = shared.change(|flow| flow.push(part, some, read_to, now));
        if read_to.is_some() {
            break is_full;
        }
    };
    if !is_full {
        return None;
    }
    shared.change(|flow| {
        if flow.await_room(part) {
            return Some((part, now + PATIENCE));
        }
        flow.hold_if_full(part, false).into_iter().for_each(|tell| shared.tell(tell));
        None
    })
}

/// What an error of the consumer means: whether the listener goes on.
fn bear(shared: &Shared, error: ConsumeError) -> Result<(), ListenerFailure> {
    let (listener, policy) = (&shared.scope.id, shared.settings.policy.unreadable_policy());
    match error {
        error if error.is_retriable() || is_hiccup(&error) => {
            tracing::warn!(%listener, %error, "polling failed, and goes on");
        }
        ConsumeError::Corrupt { ref partition, offset, next_offset: Some(next_offset), .. }
            if policy == Unreadable::Skip =>
        {
            tracing::error!(
                %listener, %error, from = offset, to = next_offset,
                "a batch cannot be read, and its records are skipped"
            );
            skip(shared, partition, next_offset);
        }
        ConsumeError::Corrupt { ref partition, .. } if policy != Unreadable::Stop => {
            let reason = format!(
                "{error}; the partition stands still (restore the log, or say what becomes of it with \
                 `FailurePolicy::unreadable`)"
            );
            stands_still(shared, partition, &reason);
        }
        ConsumeError::Fetch { ref partition, code: ErrorCode::TopicAuthorizationFailed } => {
            let reason = format!("{error} (allow this user to read the topic); the partition stands still");
            stands_still(shared, partition, &reason);
        }
        // Of one that was taken out meanwhile.
        ConsumeError::Topic { ref topic, .. } if !shared.topics().hold(topic) => {}
        ConsumeError::Topic { ref topic, .. } => {
            let reason =
                format!("{error} (allow this user to read it, or take it out of the listener's topics)");
            shared.troubles.tell(listener, Subject::Topic(Arc::clone(topic)), &reason);
        }
        // Going on would skip records silently, or never get past the place.
        error => return Err(error.into()),
    }
    Ok(())
}

/// A partition cannot be read, and somebody has to see to it.
pub(super) fn stands_still(shared: &Shared, partition: &TopicPartition, reason: &str) {
    shared.troubles.tell(&shared.scope.id, Subject::Reading(partition.clone()), reason);
    // It may have gone meanwhile: whoever takes it away ends its troubles after that.
    if shared.look(|flow| flow.id(partition)).is_none() {
        shared.troubles.gone(std::slice::from_ref(partition));
    }
}

/// Whether the broker failed at reading and does not know why, which says nothing about its next try. The consumer
/// makes one.
fn is_hiccup(error: &ConsumeError) -> bool {
    matches!(
        error,
        ConsumeError::Fetch { code: ErrorCode::UnknownServerError, .. }
            | ConsumeError::Request(RequestError::Broker { code: ErrorCode::UnknownServerError, .. })
    )
}

/// Goes on behind a batch; what was handed out before it is still worked on, and committed first.
fn skip(shared: &Shared, partition: &TopicPartition, next_offset: i64) {
    let Some(consumer) = shared.consumer() else { return };
    if let Err(error) = consumer.seek(partition, next_offset) {
        tracing::warn!(listener = %shared.scope.id, %error, "it was revoked before it could be read on");
    }
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => pending().await,
    }
}
