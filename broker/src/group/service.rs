//! The shell around the coordinator: which partition of `__consumer_offsets` a group lives in, who waits for which
//! answer, the timer, and when an answer may be given.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Duration;

use klamm_protocol::{ErrorCode, Uuid};
use klamm_runtime::{Clock, Rng, Tasks};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until};

use super::calls::{
    Caller, Commit, Effects, GroupDescription, GroupListing, JoinGroup, JoinReply, Now, Reply, SyncGroup,
    SyncReply,
};
use super::coordinator::Coordinator;
use super::member::Ticket;
use super::shard::{Durable, Shard};
use crate::config::{BrokerConfig, GroupConfig};
use crate::controller::{Controller, CreateTopic};
use crate::disk::Disk;
use crate::replay::on_disk;

/// The topic that groups and offsets are kept in.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";
/// A group may be as large as a request, so its record may be too.
const OFFSETS_MAX_RECORD_BYTES: &str = "104857600";
/// No group has a deadline.
const NEVER: i64 = i64::MAX;

/// All groups of the broker.
#[derive(Debug)]
pub struct GroupService {
    config: GroupConfig,
    offsets_partitions: i32,
    offsets_segment_bytes: u64,
    controller: Arc<Controller>,
    clock: Arc<dyn Clock>,
    rng: Arc<dyn Rng>,
    disk: Arc<dyn Disk>,
    started: Instant,
    /// One for each partition of `__consumer_offsets`; empty until that exists.
    shards: RwLock<Arc<[Arc<Shard>]>>,
    creating: tokio::sync::Mutex<()>,
    waiting: Mutex<HashMap<Ticket, oneshot::Sender<Reply>>>,
    next_ticket: AtomicU64,
    stopped: AtomicBool,
    /// When the timer task will wake by itself.
    armed_ms: AtomicI64,
    rearm: Arc<Notify>,
    tasks: Tasks,
}

/// Offsets that are written but perhaps not durable.
#[derive(Debug)]
pub struct Committing {
    codes: Vec<ErrorCode>,
    durable: Option<Durable>,
}

impl Committing {
    fn refused(error: ErrorCode, count: usize) -> Self {
        Self { codes: vec![error; count], durable: None }
    }

    /// Waits until the offsets are durable; gives one code for each.
    pub async fn finish(self) -> Vec<ErrorCode> {
        match self.durable {
            Some(durable) if !durable.comes().await => {
                vec![ErrorCode::CoordinatorNotAvailable; self.codes.len()]
            }
            _ => self.codes,
        }
    }
}

impl GroupService {
    /// Begins to load the groups, and to keep their time.
    pub fn start(
        config: &BrokerConfig,
        controller: Arc<Controller>,
        clock: Arc<dyn Clock>,
        rng: Arc<dyn Rng>,
        disk: Arc<dyn Disk>,
    ) -> Arc<Self> {
        let service = Arc::new(Self {
            config: config.group.clone(),
            offsets_partitions: config.offsets_topic_partitions,
            offsets_segment_bytes: config.offsets_topic_segment_bytes,
            controller,
            clock,
            rng,
            disk,
            started: Instant::now(),
            shards: RwLock::new(Arc::new([])),
            creating: tokio::sync::Mutex::new(()),
            waiting: Mutex::new(HashMap::new()),
            next_ticket: AtomicU64::new(1),
            stopped: AtomicBool::new(false),
            armed_ms: AtomicI64::new(NEVER),
            rearm: Arc::new(Notify::new()),
            tasks: Tasks::new(),
        });
        let shards = service.open_shards(Shard::loading);
        if !shards.is_empty() {
            service.tasks.spawn("group loader", load(Arc::downgrade(&service), shards));
        }
        service.tasks.spawn("group timer", keep_time(Arc::downgrade(&service), service.rearm.clone()));
        service
    }

    /// Ends every wait, now and from now on: those who wait for a rebalance are told to find their coordinator again.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.waiting().clear();
    }

    /// Ends what runs in the background. After this, sessions no longer end.
    pub async fn close(&self) {
        self.tasks.shutdown().await;
    }

    /// Makes sure that there is a place for groups, creating `__consumer_offsets` if need be.
    ///
    /// # Errors
    /// `COORDINATOR_NOT_AVAILABLE` when it cannot be created.
    pub async fn prepare(&self) -> Result<(), ErrorCode> {
        if !self.shards().is_empty() {
            return Ok(());
        }
        let _creating = self.creating.lock().await;
        if !self.shards().is_empty() {
            return Ok(());
        }
        let settings = [
            ("cleanup.policy", "compact".to_owned()),
            ("segment.bytes", self.offsets_segment_bytes.to_string()),
            ("max.message.bytes", OFFSETS_MAX_RECORD_BYTES.to_owned()),
        ];
        let topic = CreateTopic {
            name: OFFSETS_TOPIC.to_owned(),
            partitions: self.offsets_partitions,
            replication_factor: 1,
            assignments: Vec::new(),
            settings: settings.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
        };
        match self.controller.create_topic(&topic, false).await {
            Ok(_) => {}
            Err(error) if error.code == ErrorCode::TopicAlreadyExists => {}
            Err(error) => {
                tracing::error!(%error, "__consumer_offsets cannot be created");
                return Err(ErrorCode::CoordinatorNotAvailable);
            }
        }
        if self.open_shards(Shard::new).is_empty() { Err(ErrorCode::CoordinatorNotAvailable) } else { Ok(()) }
    }

    /// JoinGroup.
    pub async fn join(&self, mut join: JoinGroup) -> impl Future<Output = JoinReply> + Send + 'static {
        let member_id = join.member_id.clone();
        join.fresh_id = Uuid::from_random(self.rng.next_u128()).hyphenated().to_string();
        let group = join.group.clone();
        let waiting = self.waiting_turn(&group, |coordinator, now, ticket, effects| {
            coordinator.join(now, ticket, join, effects);
        });
        let waiting = waiting.await;
        async move {
            match waiting {
                Err(error) => JoinReply::error(error, member_id),
                Ok(receiver) => match receiver.await {
                    Ok(Reply::Join(reply)) => reply,
                    // The broker is stopping.
                    _ => JoinReply::error(ErrorCode::CoordinatorNotAvailable, member_id),
                },
            }
        }
    }

    /// SyncGroup.
    pub async fn sync(&self, sync: SyncGroup) -> impl Future<Output = SyncReply> + Send + 'static {
        let group = sync.group.clone();
        let waiting = self.waiting_turn(&group, |coordinator, now, ticket, effects| {
            coordinator.sync(now, ticket, sync, effects);
        });
        let waiting = waiting.await;
        async move {
            match waiting {
                Err(error) => SyncReply::error(error),
                Ok(receiver) => match receiver.await {
                    Ok(Reply::Sync(reply)) => reply,
                    _ => SyncReply::error(ErrorCode::CoordinatorNotAvailable),
                },
            }
        }
    }

    /// Heartbeat.
    pub fn heartbeat(&self, group: &str, caller: &Caller) -> ErrorCode {
        let Some(shard) = self.shard(group) else { return ErrorCode::UnknownMemberId };
        let now = self.now();
        shard.touch(|coordinator| coordinator.heartbeat(now, group, caller)).unwrap_or_else(|error| error)
    }

    /// LeaveGroup: one code for each caller.
    ///
    /// # Errors
    /// When the group cannot be worked on now.
    pub fn leave(&self, group: &str, callers: &[Caller]) -> Result<Vec<ErrorCode>, ErrorCode> {
        let Some(shard) = self.shard(group) else {
            return Ok(vec![ErrorCode::UnknownMemberId; callers.len()]);
        };
        let now = self.now();
        let (codes, effects, durable) =
            shard.turn(now, |coordinator, effects| coordinator.leave(now, group, callers, effects))?;
        self.after(&shard, effects, durable);
        Ok(codes)
    }

    /// OffsetCommit: written when this returns, to be waited for with [`Committing::finish`].
    pub async fn commit(&self, group: &str, caller: &Caller, commits: Vec<Commit>) -> Committing {
        let count = commits.len();
        if let Err(error) = self.prepare().await {
            return Committing::refused(error, count);
        }
        let Some(shard) = self.shard(group) else {
            return Committing::refused(ErrorCode::CoordinatorNotAvailable, count);
        };
        let now = self.now();
        let turn =
            shard.turn(now, |coordinator, effects| coordinator.commit(now, group, caller, commits, effects));
        match turn {
            Err(error) => Committing::refused(error, count),
            Ok((codes, effects, durable)) => {
                let durable = (!effects.records.is_empty()).then_some(durable);
                Committing { codes, durable }
            }
        }
    }

    /// Asks the coordinator of a group something; `None` when no group was ever made.
    ///
    /// # Errors
    /// When the group is still being loaded, or cannot be.
    pub fn ask<T>(
        &self,
        group: &str,
        question: impl FnOnce(&Coordinator) -> T,
    ) -> Result<Option<T>, ErrorCode> {
        self.shard(group).map(|shard| shard.ask(question)).transpose()
    }

    /// DescribeGroups; `None` when there is no such group.
    ///
    /// # Errors
    /// When the group is still being loaded, or cannot be.
    pub fn describe(&self, group: &str) -> Result<Option<GroupDescription>, ErrorCode> {
        Ok(self.ask(group, |coordinator| coordinator.describe(group))?.flatten())
    }

    /// ListGroups.
    ///
    /// # Errors
    /// When groups are still being loaded, or cannot be.
    pub fn list(&self) -> Result<Vec<GroupListing>, ErrorCode> {
        let mut all = Vec::new();
        for shard in self.shards().iter() {
            all.extend(shard.ask(Coordinator::list)?);
        }
        all.sort_by(|a, b| a.group.cmp(&b.group));
        Ok(all)
    }

    /// A topic was deleted: so are the offsets committed for it.
    pub fn topic_deleted(&self, topic: &str) {
        self.for_all(|coordinator, _, effects| coordinator.topic_deleted(topic, effects));
    }

    /// Forgets offsets that are too old (`offsets.retention.minutes`).
    pub fn expire_offsets(&self) {
        self.for_all(Coordinator::expire);
    }

    fn for_all(&self, act: impl Fn(&mut Coordinator, Now, &mut Effects)) {
        let now = self.now();
        for shard in self.shards().iter() {
            // A shard that is not ready forgets later.
            if let Ok(((), effects, durable)) =
                shard.turn(now, |coordinator, effects| act(coordinator, now, effects))
            {
                self.after(shard, effects, durable);
            }
        }
    }

    /// A call whose answer comes when the coordinator gives it.
    async fn waiting_turn(
        &self,
        group: &str,
        act: impl FnOnce(&mut Coordinator, Now, Ticket, &mut Effects),
    ) -> Result<oneshot::Receiver<Reply>, ErrorCode> {
        self.prepare().await?;
        let shard = self.shard(group).ok_or(ErrorCode::CoordinatorNotAvailable)?;
        let ticket = self.next_ticket.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        self.waiting().insert(ticket, sender);
        if self.stopped.load(Ordering::Acquire) {
            self.waiting().remove(&ticket);
            return Err(ErrorCode::CoordinatorNotAvailable);
        }
        let now = self.now();
        match shard.turn(now, |coordinator, effects| act(coordinator, now, ticket, effects)) {
            Ok(((), effects, durable)) => {
                self.after(&shard, effects, durable);
                Ok(receiver)
            }
            Err(error) => {
                self.waiting().remove(&ticket);
                Err(error)
            }
        }
    }

    /// Gives the answers that a turn brought, once what they rest on is durable, and sees to the timer.
    fn after(&self, shard: &Shard, effects: Effects, durable: Durable) {
        if shard.next_deadline().is_some_and(|deadline| deadline < self.armed_ms.load(Ordering::Acquire)) {
            self.rearm.notify_one();
        }
        let answers: Vec<(oneshot::Sender<Reply>, Reply)> = {
            let mut waiting = self.waiting();
            let replies = effects.replies.into_iter();
            replies.filter_map(|(ticket, reply)| Some((waiting.remove(&ticket)?, reply))).collect()
        };
        if answers.is_empty() {
            return;
        }
        if durable.is_reached() {
            answers.into_iter().for_each(|(sender, reply)| drop(sender.send(reply)));
            return;
        }
        // Not in the caller's own task: its connection may end, but the others wait all the same. If the disk fails,
        // the senders are dropped, and everybody is told that the coordinator is not available.
        self.tasks.spawn("group answers", async move {
            if durable.comes().await {
                answers.into_iter().for_each(|(sender, reply)| drop(sender.send(reply)));
            }
        });
    }

    fn on_time(&self) {
        let now = self.now();
        for shard in self.shards().iter() {
            if shard.next_deadline().is_some_and(|deadline| deadline <= now.ms)
                && let Ok(((), effects, durable)) =
                    shard.turn(now, |coordinator, effects| coordinator.on_time(now, effects))
            {
                self.after(shard, effects, durable);
            }
        }
    }

    fn next_deadline(&self) -> i64 {
        self.shards().iter().filter_map(|shard| shard.next_deadline()).min().unwrap_or(NEVER)
    }

    fn open_shards(
        &self,
        open: impl Fn(Arc<crate::partition::Partition>, GroupConfig) -> Shard,
    ) -> Arc<[Arc<Shard>]> {
        let view = self.controller.view();
        let Some(topic) = view.image.topic(OFFSETS_TOPIC) else { return Arc::new([]) };
        let logs: Result<Vec<_>, ErrorCode> =
            (0..topic.partitions).map(|index| view.log(topic, index).cloned()).collect();
        // A group's partition is found by counting all of them, so without one there is none.
        let Ok(logs) = logs else { return Arc::new([]) };
        let shards: Arc<[Arc<Shard>]> =
            logs.into_iter().map(|log| Arc::new(open(log, self.config.clone()))).collect();
        *self.shards.write().unwrap_or_else(PoisonError::into_inner) = shards.clone();
        shards
    }

    fn shards(&self) -> Arc<[Arc<Shard>]> {
        self.shards.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn shard(&self, group: &str) -> Option<Arc<Shard>> {
        let shards = self.shards();
        shards.get(partition_for(group, shards.len())?).cloned()
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<Ticket, oneshot::Sender<Reply>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Now {
        let ms = i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX);
        Now { ms, wall_ms: self.clock.now_ms() }
    }
}

/// The partition of `__consumer_offsets` that a group lives in: Java's hash of its name, as in Kafka.
fn partition_for(group: &str, partitions: usize) -> Option<usize> {
    let hash =
        group.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    (hash & i32::MAX).unsigned_abs().try_into().ok().and_then(|hash: usize| hash.checked_rem(partitions))
}

async fn load(service: Weak<GroupService>, shards: Arc<[Arc<Shard>]>) {
    let Some(service) = service.upgrade() else { return };
    let now = service.now();
    let view = service.controller.view();
    let disk = service.disk.clone();
    let started = Instant::now();
    on_disk(&disk, move || shards.iter().for_each(|shard| shard.load(now, &view.image))).await;
    tracing::debug!(took_ms = started.elapsed().as_millis(), "groups loaded");
    service.rearm.notify_one();
}

/// Calls the coordinators when they have something to do. Holds the service only while it does.
async fn keep_time(service: Weak<GroupService>, rearm: Arc<Notify>) {
    loop {
        let Some(due) = service.upgrade().map(|service| {
            // Whoever sets an earlier deadline while this is found out wakes the timer by comparing with it.
            service.armed_ms.store(NEVER, Ordering::Release);
            service.on_time();
            let deadline_ms = service.next_deadline();
            service.armed_ms.store(deadline_ms, Ordering::Release);
            (deadline_ms != NEVER)
                .then(|| service.started + Duration::from_millis(u64::try_from(deadline_ms).unwrap_or(0)))
        }) else {
            return;
        };
        match due {
            Some(due) => {
                tokio::select! {
                    () = sleep_until(due) => {}
                    () = rearm.notified() => {}
                }
            }
            None => rearm.notified().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_live_where_kafka_puts_them() {
        // "".hashCode() is 0; "a" is 97; "test-group" and "polygenelubricants"
        // (Integer.MIN_VALUE) as Java computes them.
        assert_eq!(partition_for("", 50), Some(0));
        assert_eq!(partition_for("a", 50), Some(47));
        assert_eq!(partition_for("polygenelubricants", 50), Some(0));
        assert_eq!(partition_for("a", 0), None);
    }
}
