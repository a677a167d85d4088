//! Reads the changelogs of standbys, one batch at a time: the next is handed over when the last is applied, and what is
//! fetched meanwhile has a bound in bytes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use klamm_client::{BatchRoom, ConsumeError, Consumer, ConsumerHandle, ConsumerRecords, TopicPartition};
use klamm_runtime::{Clock, SystemClock};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::changelogs::{self, Reading};
use super::error::StreamsError;
use super::following::{Begin, Beginning, Beginnings, Begun};
use super::keeper::Tail;
use super::shared::Shared;
use super::standbys::{Order, UNKNOWN_LAG};
use crate::streams::incoming::Incoming;
use crate::streams::node::TopicId;
use crate::streams::task::TaskId;

/// Between looks at how far behind the standbys are.
const LOOK: Duration = Duration::from_millis(200);

/// By how much later than before a standby has to have been whole.
const WORTH_TELLING_MS: i64 = 10_000;

/// Between two looks, the process stood still or the clock was set.
const STANDSTILL_MS: u64 = 5_000;

/// After that, until the ends are heard of again.
const UNSURE_MS: i64 = 30_000;

/// Where the records of a changelog go.
#[derive(Debug, Clone, Copy)]
struct Follower {
    task: TaskId,
    epoch: u64,
    topic: TopicId,
    /// Its lag when it began to follow, which holds until the consumer knows better.
    begins_behind: u64,
    /// Where the changelog ended at some time: whoever is there had all of it then.
    mark: Option<Mark>,
    whole_ms: Option<i64>,
}

#[derive(Debug, Clone, Copy)]
struct Mark {
    end: i64,
    at_ms: i64,
}

struct Reader {
    shared: Arc<Shared>,
    handle: ConsumerHandle,
    followers: BTreeMap<TopicPartition, Follower>,
    /// Since when standbys have all, as far as it was told.
    told_whole: BTreeMap<(TaskId, u64), i64>,
    looked_ms: i64,
    unsure_until_ms: i64,
    /// When a round was asked last, or there was nothing to ask for.
    asked_at: Instant,
}

/// Reads until the application ends.
pub(super) async fn serve(shared: Arc<Shared>, tails: mpsc::UnboundedReceiver<Tail>) {
    if let Err(error) = run(&shared, tails).await {
        // What runs goes on; whoever takes over restores more.
        tracing::warn!(application = %shared.group(), %error, "standbys are not kept up to date any more");
    }
}

async fn run(shared: &Arc<Shared>, mut tails: mpsc::UnboundedReceiver<Tail>) -> Result<(), StreamsError> {
    let mut consumer = changelogs::reader(shared.client.consumer(), shared, Vec::new()).await?;
    let handle = consumer.handle();
    let asked_at = Instant::now();
    let mut reader = Reader {
        shared: Arc::clone(shared),
        handle,
        followers: BTreeMap::new(),
        told_whole: BTreeMap::new(),
        looked_ms: SystemClock.now_ms(),
        unsure_until_ms: i64::MIN,
        asked_at,
    };
    let mut beginnings = Beginnings::default();
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            tail = tails.recv() => match tail {
                Some(Tail::Follow { task, epoch, changelogs }) => {
                    beginnings.ask(Arc::clone(shared), task, epoch, changelogs);
                }
                Some(Tail::Leave { task }) => {
                    beginnings.forget(task);
                    reader.leave(task)?;
                }
                None => return Ok(()),
            },
            begun = beginnings.next() => reader.follow(begun)?,
            batch = next(shared, &mut consumer) => match batch {
                Some(Ok(batch)) => reader.apply(batch).await,
                Some(Err(error)) => reader.failed(error)?,
                None => return Ok(()),
            },
            _ = look.tick() => reader.look(),
        }
    }
}

/// The next batch, when there is room for it.
async fn next(shared: &Shared, consumer: &mut Consumer) -> Option<Result<ConsumerRecords, ConsumeError>> {
    shared.has_room().await;
    consumer.next_batch_within(|_| BatchRoom::UNLIMITED).await
}

impl Reader {
    fn follow(&mut self, begun: Begun) -> Result<(), StreamsError> {
        let Begun { task, epoch, at } = begun;
        let begins = match at {
            Begin::At(begins) => begins,
            Begin::Anew(why) => {
                self.shared.standbys.tell(Order::Rebuild { task, epoch, why });
                return Ok(());
            }
            Begin::Nowhere => return Ok(()),
        };
        for Beginning { topic, partition, begin, end } in begins {
            let begins_behind = u64::try_from(end.saturating_sub(begin)).unwrap_or(0);
            self.handle.assign_also([partition.clone()])?;
            self.handle.seek(&partition, begin)?;
            let follower = Follower { task, epoch, topic, begins_behind, mark: None, whole_ms: None };
            self.followers.insert(partition, follower);
        }
        Ok(())
    }

    fn leave(&mut self, task: TaskId) -> Result<(), StreamsError> {
        let left: Vec<TopicPartition> = self
            .followers
            .extract_if(.., |_, follower| follower.task == task)
            .map(|(partition, _)| partition)
            .collect();
        self.shared.standbys.set_lag(task, None);
        Ok(self.handle.unassign(left)?)
    }

    async fn apply(&mut self, batch: ConsumerRecords) {
        let Some(follower) = self.followers.get(&batch.topic_partition()).copied() else { return };
        let (done, applied) = oneshot::channel();
        let next_offset = batch.next_offset;
        let records = batch.records.into_iter().map(Incoming::from).collect();
        let Follower { task, epoch, topic, .. } = follower;
        self.shared.standbys.tell(Order::Apply { task, epoch, topic, records, next_offset, done });
        // The next batch waits. Nobody answers for a standby that is over.
        applied.await.ok();
    }

    /// A changelog that cannot be read on: what a standby lacks of it is gone, or kept from it.
    fn failed(&mut self, error: ConsumeError) -> Result<(), StreamsError> {
        tracing::warn!(application = %self.shared.group(), %error, "reading for standbys");
        if error.is_fatal() {
            return Err(error.into());
        }
        let of = match &error {
            ConsumeError::Fetch { partition, .. } | ConsumeError::Corrupt { partition, .. } => {
                Some(partition.clone())
            }
            _ => None,
        };
        match Reading::from(error) {
            Reading::GoesOn => {}
            Reading::Fails(_) => {
                // The others go on.
                let follower = of.and_then(|partition| self.followers.get(&partition).copied());
                if let Some(Follower { task, .. }) = follower {
                    tracing::warn!(%task, "a standby is not kept up to date");
                    self.leave(task)?;
                    self.shared.standbys.set_lag(task, Some(UNKNOWN_LAG));
                }
            }
            Reading::Lost { partition, why } => {
                if let Some(Follower { task, epoch, .. }) = self.followers.get(&partition).copied() {
                    self.shared.standbys.tell(Order::Rebuild { task, epoch, why });
                }
            }
        }
        Ok(())
    }

    /// Says since when standbys have all of their changelogs: what is left of those tells of deletions for some time
    /// only.
    fn look_for_whole(&mut self) {
        let now_ms = SystemClock.now_ms();
        if now_ms.abs_diff(self.looked_ms) > STANDSTILL_MS {
            // The process stood still: what it knows of the ends may be as old as that.
            self.unsure_until_ms = now_ms.saturating_add(UNSURE_MS);
            self.followers.values_mut().for_each(|follower| follower.mark = None);
        }
        self.looked_ms = now_ms;
        let is_sure = now_ms >= self.unsure_until_ms;
        let mut whole: BTreeMap<(TaskId, u64), Option<i64>> = BTreeMap::new();
        for (partition, follower) in &mut self.followers {
            let read = self.handle.lag(partition).zip(self.handle.position(partition));
            if let Some((lag, position)) = read
                && is_sure
                && self.handle.failing_for(partition).is_none()
            {
                let is_reached = follower.mark.is_none_or(|mark| position >= mark.end);
                if is_reached {
                    follower.whole_ms = follower.mark.map(|mark| mark.at_ms).max(follower.whole_ms);
                    follower.mark = Some(Mark { end: position.saturating_add(lag), at_ms: now_ms });
                }
            }
            let of_task = whole.entry((follower.task, follower.epoch)).or_insert(Some(i64::MAX));
            *of_task = (*of_task).zip(follower.whole_ms).map(|(one, other)| one.min(other));
        }
        self.told_whole.retain(|standby, _| whole.contains_key(standby));
        for ((task, epoch), at_ms) in whole {
            let Some(at_ms) = at_ms else { continue };
            let told_ms = self.told_whole.entry((task, epoch)).or_insert(i64::MIN);
            if at_ms.saturating_sub(*told_ms) >= WORTH_TELLING_MS {
                *told_ms = at_ms;
                self.shared.standbys.tell(Order::Whole { task, epoch, at_ms });
            }
        }
    }

    /// Takes note of how far the standbys are, and asks the group for another round when one that is to move here has
    /// caught up.
    fn look(&mut self) {
        let mut lags: BTreeMap<TaskId, u64> = BTreeMap::new();
        let mut heard_at: BTreeMap<TaskId, Option<Instant>> = BTreeMap::new();
        for (partition, follower) in &self.followers {
            let heard = self.handle.heard_at(partition);
            let of_task = heard_at.entry(follower.task).or_insert(heard);
            *of_task = (*of_task).zip(heard).map(|(one, other)| one.min(other));
            let known = self.handle.lag(partition).map(|lag| u64::try_from(lag).unwrap_or(0));
            let lag = known.unwrap_or(follower.begins_behind);
            if let Some(position) = self.handle.position(partition) {
                // All that was handed out is applied.
                self.shared.standbys.inputs.apply(follower.task, follower.epoch, partition, position);
            }
            let sum = lags.entry(follower.task).or_default();
            *sum = sum.saturating_add(lag);
        }
        lags.iter().for_each(|(task, lag)| self.shared.standbys.set_lag(*task, Some(*lag)));
        let heard_at = heard_at.into_iter().filter_map(|(task, heard)| Some((task, heard?)));
        self.shared.standbys.set_heard_at(heard_at.collect());
        self.look_for_whole();
        let Some(consumer) = self.shared.consumer() else { return };
        let generation = consumer.group_metadata().map_or(-1, |member| member.generation);
        let warming = self.shared.standbys.orders_of(generation).warming;
        if generation < 0 {
            return;
        }
        if warming.is_empty() {
            self.asked_at = Instant::now();
            return;
        }
        let limit = self.shared.config.acceptable_lag;
        let has_caught_up = |task: &&TaskId| lags.get(task).is_some_and(|lag| *lag <= limit);
        let told = self.shared.standbys.told();
        // The leader has heard of the others, and thinks otherwise: it is not asked again and again.
        let is_news = |task: &TaskId| told.get(task).is_none_or(|lag| *lag > limit);
        let is_news = warming.iter().filter(has_caught_up).any(is_news);
        let is_late = self.asked_at.elapsed() >= self.shared.config.probing_rebalance_interval;
        if is_news || is_late {
            tracing::debug!(application = %self.shared.group(), generation, "tasks may move here");
            self.asked_at = Instant::now();
            consumer.rejoin().ok();
        }
    }
}
