//! `ListenerHandle`: what can be known of a listener from outside while it runs, and what it can be told.

use std::sync::Arc;
use std::time::Duration;

use klamm_client::TopicPartition;
use tokio::sync::{mpsc, oneshot, watch};

use super::command::{Command, CommandError, SeekTo, Todo};
use super::events::{EventSource, Events, ListenerEvent};
use super::monitor::UNRESPONSIVE_AFTER;
use super::shared::Shared;
use super::status::{Ended, ListenerFailure};
use super::troubles::Trouble;
use crate::listener::ack::AckError;
use crate::listener::flow::Flow;
use crate::listener::topics::IntoTopics;

/// A look at one running listener, and its controls. Cheap to clone; it does not keep the listener alive.
#[derive(Debug, Clone)]
pub struct ListenerHandle {
    pub(super) shared: Arc<Shared>,
    pub(super) ended: watch::Receiver<Option<Ended>>,
    pub(super) command: mpsc::UnboundedSender<Command>,
}

impl ListenerHandle {
    /// The listener's id.
    pub fn id(&self) -> &str {
        &self.shared.scope.id
    }

    /// The listener's group.
    pub fn group(&self) -> &str {
        &self.shared.scope.group
    }

    /// How many records it has finished since it started: handled, dead-lettered or skipped.
    pub fn handled(&self) -> u64 {
        self.shared.look(Flow::handled)
    }

    /// How many records it holds that are not finished.
    pub fn unfinished(&self) -> usize {
        self.shared.look(|flow| flow.load().unfinished)
    }

    /// How many records it has in hand: those that are not finished, and what is finished above the lowest of them in
    /// its partition. So many come again if the process ends now; see
    /// [`max_in_flight`](crate::listener::ListenerBuilder::max_in_flight).
    pub fn in_flight(&self) -> usize {
        self.shared.look(|flow| flow.load().kept)
    }

    /// How many records failed and wait for another attempt.
    pub fn in_retry(&self) -> usize {
        self.shared.look(|flow| flow.load().in_retry)
    }

    /// The partitions it is assigned.
    pub fn assignment(&self) -> Vec<TopicPartition> {
        self.shared.look(Flow::places)
    }

    /// What keeps it from its work and somebody has to see to: a partition that has not been read for half a minute,
    /// a dead letter that cannot be sent, or could not be if there were one, commits that are refused, a topic that
    /// it may not read, a batch that is damaged. The log says them too, every minute.
    pub fn troubles(&self) -> Vec<Trouble> {
        self.shared.troubles.all()
    }

    /// A topic that it may not read.
    pub(crate) fn topic_refused(&self) -> Option<Trouble> {
        self.shared.troubles.of_topics().into_iter().next()
    }

    /// Waits until it has finished `records` records since it started, and until what is finished is committed.
    ///
    /// # Errors
    /// When the commit fails, or the listener ends before.
    pub async fn wait_handled(&self, records: u64) -> Result<(), AckError> {
        let mut ended = self.ended.clone();
        tokio::select! {
            biased;
            () = self.shared.bell.until(|| (self.handled() >= records).then_some(())) => {}
            _ = ended.wait_for(Option::is_some) => return Err(AckError::Gone),
        }
        self.shared.commits.flush().await
    }

    /// Waits until the group has given it partitions; none, if there are not enough for all members. Returns at once
    /// when that has happened.
    ///
    /// # Errors
    /// Why it ended before.
    pub async fn wait_assigned(&self) -> Result<(), ListenerFailure> {
        let mut assignments = self.shared.assignments.subscribe();
        let mut ended = self.ended.clone();
        tokio::select! {
            _ = assignments.wait_for(|assignments| *assignments > 0) => Ok(()),
            ended = ended.wait_for(Option::is_some) => Err(failure_of(ended.ok().as_deref())),
        }
    }

    /// How many records of its partitions it has not finished, as far as it knows their ends, which it does from the
    /// last read; `None` before it has read from each of them, and while it is not in its group.
    pub fn lag(&self) -> Option<u64> {
        let consumer = self.shared.consumer().filter(|_| self.has_joined())?;
        let unread = self.assignment().iter().map(|place| consumer.lag(place)).sum::<Option<i64>>()?;
        let unfinished = u64::try_from(self.unfinished()).unwrap_or(u64::MAX);
        Some(u64::try_from(unread).unwrap_or(0).saturating_add(unfinished))
    }

    /// What happens to it from here on. It ends with the listener. Of a start, [`App::events`](crate::App::events)
    /// tells more: that is over when there is a handle.
    pub fn events(&self) -> Events {
        let events = self.shared.observed.follow();
        if self.is_running() { events } else { EventSource::none() }
    }

    /// How long the record has been in hand that has been for longest, to about a second; zero when none is.
    pub fn oldest(&self) -> Duration {
        self.shared.observed.oldest()
    }

    /// How long its poll loop has not turned, if that is too long: something blocks the threads that it runs on. It
    /// turns every five seconds also when nothing comes.
    pub fn unresponsive(&self) -> Option<Duration> {
        let age = self.shared.observed.poll_age();
        (self.is_running() && age >= UNRESPONSIVE_AFTER).then_some(age)
    }

    /// Whether it is a member of its group that knows its partitions.
    pub(crate) fn has_joined(&self) -> bool {
        self.shared.has_joined()
    }

    /// Whether it has ended, and why if that was by itself.
    pub(crate) fn ended(&self) -> Option<Option<ListenerFailure>> {
        self.ended.borrow().as_ref().map(|ended| ended.failure.clone())
    }

    /// Whether it has not ended.
    pub fn is_running(&self) -> bool {
        self.ended.borrow().is_none()
    }

    /// Waits until it ends by itself, and says why. Resolves with `None` when it is shut down.
    pub async fn failure(&self) -> Option<ListenerFailure> {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(ended) => ended.as_ref().and_then(|ended| ended.failure.clone()),
            // The container's task panicked: it did not get to say anything.
            Err(_) => Some(ListenerFailure::Ended),
        }
    }

    /// Begins nothing more until [`resume`](Self::resume), and reads nothing more. What is in work goes on, the
    /// listener stays in its group, and partitions that come meanwhile are paused too.
    ///
    /// # Errors
    /// The listener has ended.
    pub async fn pause(&self) -> Result<(), CommandError> {
        self.tell(Todo::Pause(None)).await
    }

    /// Goes on after [`pause`](Self::pause). What was paused one by one stays paused.
    ///
    /// # Errors
    /// The listener has ended.
    pub async fn resume(&self) -> Result<(), CommandError> {
        self.tell(Todo::Resume(None)).await
    }

    /// As [`pause`](Self::pause), of one partition; also if it goes and comes again, or is not assigned yet.
    ///
    /// # Errors
    /// The listener has ended.
    pub async fn pause_partition(&self, partition: impl Into<TopicPartition>) -> Result<(), CommandError> {
        self.tell(Todo::Pause(Some(partition.into()))).await
    }

    /// Goes on after [`pause_partition`](Self::pause_partition).
    ///
    /// # Errors
    /// The listener has ended.
    pub async fn resume_partition(&self, partition: impl Into<TopicPartition>) -> Result<(), CommandError> {
        self.tell(Todo::Resume(Some(partition.into()))).await
    }

    /// Whether [`pause`](Self::pause) was called, and [`resume`](Self::resume) not since.
    pub fn is_paused(&self) -> bool {
        self.shared.look(|flow| flow.is_paused(None))
    }

    /// Goes on elsewhere in a partition. Records of it that are in work are not stopped, but what comes of them counts
    /// for nothing; those that wait are dropped. The new place is committed when its first record comes, and a second
    /// later if none does.
    ///
    /// # Errors
    /// The partition is not assigned to this listener, or the listener has ended.
    pub async fn seek(&self, partition: impl Into<TopicPartition>, to: SeekTo) -> Result<(), CommandError> {
        self.tell(Todo::Seek(partition.into(), to)).await
    }

    /// Listens on these topics, too. The group shares out anew; wait for [`assignment`](Self::assignment) to see them.
    ///
    /// # Errors
    /// The listener listens on a pattern, no topic can have such a name, its own dead letters or replies go there, or
    /// it has ended.
    pub async fn add_topics(&self, topics: impl IntoTopics) -> Result<(), CommandError> {
        let topics = topics.into_topics();
        // Before they are asked for: brokers that make topics by themselves would give them another size.
        for topic in &topics {
            self.shared.retry_copies.see_to(topic).await;
        }
        self.tell(Todo::AddTopics(topics)).await
    }

    /// Listens on these topics no more. What is in work of them may finish, as whenever partitions go; what waits in
    /// their retry topics waits until they are added again.
    ///
    /// # Errors
    /// The listener listens on a pattern, would have no topics left, or has ended.
    pub async fn remove_topics(&self, topics: impl IntoTopics) -> Result<(), CommandError> {
        self.tell(Todo::RemoveTopics(topics.into_topics())).await
    }

    /// How many handler calls may run at once from here on.
    pub(crate) async fn resize(&self, concurrency: usize) -> Result<(), CommandError> {
        self.tell(Todo::Resize(concurrency)).await
    }

    /// It is started again after so long.
    pub(crate) fn tell_restart(&self, after: Duration) {
        self.shared.observed.tell(|| ListenerEvent::Restarting { after });
    }

    /// Waits until it is idle, as [`idle_after`](crate::listener::ListenerBuilder::idle_after) has it; for ever, if
    /// that is not set. Returns at once when it is.
    ///
    /// # Errors
    /// Why it ended before.
    pub async fn wait_idle(&self) -> Result<(), ListenerFailure> {
        let mut is_idle = self.shared.observed.is_idle.subscribe();
        let mut ended = self.ended.clone();
        tokio::select! {
            _ = is_idle.wait_for(|is_idle| *is_idle) => Ok(()),
            ended = ended.wait_for(Option::is_some) => Err(failure_of(ended.ok().as_deref())),
        }
    }

    async fn tell(&self, what: Todo) -> Result<(), CommandError> {
        let (done, answer) = oneshot::channel();
        self.command.send(Command { what, done }).map_err(|_| CommandError::Ended)?;
        answer.await.unwrap_or(Err(CommandError::Ended))
    }
}

/// Why it ended; one that was shut down has no better reason.
fn failure_of(ended: Option<&Option<Ended>>) -> ListenerFailure {
    let failure = ended.and_then(|ended| ended.as_ref()?.failure.clone());
    failure.unwrap_or(ListenerFailure::Ended)
}
