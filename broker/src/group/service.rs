//! What requests ask of the groups: which command each is, and what its caller is told when there is no answer.

use std::sync::Arc;

use klamm_protocol::{ErrorCode, Uuid};
use klamm_runtime::{Clock, Rng};
use tokio::sync::oneshot;
use tokio::task::yield_now;

use super::calls::{Caller, Command, JoinGroup, JoinReply, Reply, SyncGroup, SyncReply};
use super::coordinator::{Coordinator, is_group_id};
use super::offset_calls::{Commit, FetchOffsets, FetchedTopic, GroupDescription, GroupListing};
use super::offsets_topic::offsets_topic;
use crate::config::{BrokerConfig, GroupConfig};
use crate::controller::Controller;
use crate::coordinator::{PartitionLog, Runtime, Shard, StateTopic};
use crate::disk::Disk;
use crate::ids::fresh_uuid;

/// How many groups of a partition are looked at in one go when all are listed.
const LISTED_AT_ONCE: usize = 500;

/// An answer to come, or why there is none.
pub(super) type Waiting = Result<oneshot::Receiver<Result<Reply, ErrorCode>>, ErrorCode>;

/// All groups of the broker.
#[derive(Debug)]
pub(crate) struct GroupService {
    config: GroupConfig,
    controller: Arc<Controller>,
    rng: Arc<dyn Rng>,
    disk: Arc<dyn Disk>,
    topic: StateTopic,
    pub(super) runtime: Runtime<Coordinator, PartitionLog>,
}

impl GroupService {
    /// Begins to load the groups, and to keep their time.
    pub(crate) fn start(
        config: &BrokerConfig,
        controller: Arc<Controller>,
        clock: Arc<dyn Clock>,
        rng: Arc<dyn Rng>,
        disk: Arc<dyn Disk>,
    ) -> Arc<Self> {
        let service = Self {
            config: config.group.clone(),
            topic: offsets_topic(config, controller.clone()),
            controller,
            rng,
            disk,
            runtime: Runtime::new(clock),
        };
        service.open();
        Arc::new(service)
    }

    /// Ends every wait, now and from now on: those who wait for a rebalance are told to find their coordinator again.
    /// What is written is still answered.
    pub(crate) fn stop(&self) {
        self.runtime.stop();
    }

    /// Ends what runs in the background. After this, nothing is written and sessions no longer end.
    pub(crate) async fn close(&self) {
        self.runtime.close().await;
    }

    /// Makes sure that there is a place for groups, creating `__consumer_offsets` if need be.
    ///
    /// # Errors
    /// `COORDINATOR_NOT_AVAILABLE` when it cannot be created.
    pub(crate) async fn prepare(&self) -> Result<(), ErrorCode> {
        if self.runtime.is_open() {
            return Ok(());
        }
        self.topic.create().await?;
        self.open();
        // Where some logs could not be made, the other partitions serve.
        if self.runtime.is_empty() { Err(ErrorCode::CoordinatorNotAvailable) } else { Ok(()) }
    }

    /// JoinGroup.
    pub(crate) async fn join(&self, mut join: JoinGroup) -> impl Future<Output = JoinReply> + Send + 'static {
        let member_id = join.member_id.clone();
        join.fresh_id = fresh_uuid(&*self.rng).hyphenated().to_string();
        let group = join.group.clone();
        let waiting = self.submit(&group, Command::Join(join)).await;
        async move {
            match reply(waiting, CANNOT_BE_WRITTEN).await {
                Ok(Reply::Join(reply)) => reply,
                Ok(_) => JoinReply::error(ErrorCode::UnknownServerError, member_id),
                Err(error) => JoinReply::error(error, member_id),
            }
        }
    }

    /// SyncGroup.
    pub(crate) async fn sync(&self, sync: SyncGroup) -> impl Future<Output = SyncReply> + Send + 'static {
        let group = sync.group.clone();
        let waiting = self.submit(&group, Command::Sync(sync)).await;
        async move {
            match reply(waiting, CANNOT_BE_WRITTEN).await {
                Ok(Reply::Sync(reply)) => reply,
                Ok(_) => SyncReply::error(ErrorCode::UnknownServerError),
                Err(error) => SyncReply::error(error),
            }
        }
    }

    /// Heartbeat.
    pub(crate) fn heartbeat(
        &self,
        group: &str,
        caller: Caller,
    ) -> impl Future<Output = ErrorCode> + Send + 'static {
        let waiting = match self.runtime.shard(group) {
            Some(shard) => Ok(shard.submit_now(Command::Heartbeat { group: group.to_owned(), caller })),
            None => Err(self.without_shard(ErrorCode::UnknownMemberId)),
        };
        async move {
            match reply(waiting, CANNOT_BE_WRITTEN).await {
                Ok(Reply::Codes(codes)) => codes.first().copied().unwrap_or(ErrorCode::UnknownServerError),
                Ok(_) => ErrorCode::UnknownServerError,
                // As in Kafka: sessions do not run while a group is loaded, so that all is well.
                Err(ErrorCode::CoordinatorLoadInProgress) => ErrorCode::None,
                Err(error) => error,
            }
        }
    }

    /// LeaveGroup: one code for each caller; an error when the group cannot be worked on now.
    pub(crate) async fn leave(
        &self,
        group: &str,
        callers: Vec<Caller>,
    ) -> impl Future<Output = Result<Vec<ErrorCode>, ErrorCode>> + Send + 'static {
        let count = callers.len();
        let waiting = match self.runtime.shard(group) {
            // That is nobody's fault in particular.
            _ if group.is_empty() => Err(ErrorCode::InvalidGroupId),
            Some(shard) => Ok(shard.submit(Command::Leave { group: group.to_owned(), callers }).await),
            None => Err(self.without_shard(ErrorCode::UnknownMemberId)),
        };
        async move {
            match reply(waiting, CANNOT_BE_WRITTEN).await {
                Ok(Reply::Codes(codes)) => Ok(codes),
                Ok(_) => Err(ErrorCode::UnknownServerError),
                Err(ErrorCode::UnknownMemberId) => Ok(vec![ErrorCode::UnknownMemberId; count]),
                Err(error) => Err(error),
            }
        }
    }

    /// OffsetCommit: one code for each offset, when they are durable. When this returns, later requests see that it
    /// came before them.
    pub(crate) async fn commit(
        &self,
        group: &str,
        caller: Caller,
        commits: Vec<Commit>,
    ) -> impl Future<Output = Vec<ErrorCode>> + Send + 'static {
        let count = commits.len();
        let command = Command::Commit { group: group.to_owned(), caller, commits };
        let waiting = self.submit(group, command).await;
        async move {
            match reply(waiting, ErrorCode::InvalidCommitOffsetSize).await {
                Ok(Reply::Codes(codes)) => codes,
                Ok(_) => vec![ErrorCode::UnknownServerError; count],
                Err(error) => vec![error; count],
            }
        }
    }

    /// OffsetFetch: what is durably committed, commits that came before included; `None` when no group ever
    /// committed anything.
    pub(crate) fn fetch(
        &self,
        fetch: FetchOffsets,
    ) -> impl Future<Output = Result<Option<Vec<FetchedTopic>>, ErrorCode>> + Send + 'static {
        let waiting = match self.runtime.shard(&fetch.group) {
            Some(shard) => Ok(Some(shard.submit_now(Command::Fetch(fetch)))),
            None if self.runtime.is_empty() => Ok(None),
            None => Err(ErrorCode::CoordinatorNotAvailable),
        };
        async move {
            let Some(waiting) = waiting? else { return Ok(None) };
            match reply(Ok(waiting), CANNOT_BE_WRITTEN).await? {
                Reply::Offsets(found) => Ok(Some(found)),
                _ => Err(ErrorCode::UnknownServerError),
            }
        }
    }

    /// DescribeGroups; `None` when there is no such group.
    ///
    /// # Errors
    /// When the group is still being loaded, or cannot be.
    pub(crate) fn describe(&self, group: &str) -> Result<Option<GroupDescription>, ErrorCode> {
        match self.runtime.shard(group) {
            Some(shard) => shard.ask(|coordinator| coordinator.describe(group)),
            None if self.runtime.is_empty() => Ok(None),
            None => Err(ErrorCode::CoordinatorNotAvailable),
        }
    }

    /// ListGroups: a page at a time, so that those who ask for one group need not wait for all of them.
    ///
    /// # Errors
    /// When groups are still being loaded, or cannot be.
    pub(crate) async fn list(&self) -> Result<Vec<GroupListing>, ErrorCode> {
        let mut all = Vec::new();
        for shard in self.runtime.shards().iter() {
            let shard: &Arc<Shard<_, _>> = shard.as_ref().ok_or(ErrorCode::CoordinatorNotAvailable)?;
            let mut after = None;
            loop {
                let (page, last) = shard.ask(|groups| groups.list(after.as_deref(), LISTED_AT_ONCE))?;
                all.extend(page);
                after = last;
                if after.is_none() {
                    break;
                }
                yield_now().await;
            }
        }
        all.sort_by(|a, b| a.group.cmp(&b.group));
        Ok(all)
    }

    /// DeleteGroups, of one group: when this returns later requests see that it is gone, and when what it gives is
    /// there it is so durably.
    pub(crate) async fn delete(&self, group: &str) -> impl Future<Output = ErrorCode> + Send + 'static {
        let waiting = match self.runtime.shard(group) {
            Some(shard) => Ok(shard.submit(Command::DeleteGroup { group: group.to_owned() }).await),
            None => Err(self.without_shard(ErrorCode::GroupIdNotFound)),
        };
        async move {
            match reply(waiting, CANNOT_BE_WRITTEN).await {
                Ok(Reply::Codes(codes)) => codes.first().copied().unwrap_or(ErrorCode::UnknownServerError),
                Ok(_) => ErrorCode::UnknownServerError,
                Err(error) => error,
            }
        }
    }

    /// OffsetDelete: one code for each partition, or why nothing is deleted, when that is durable.
    pub(crate) async fn delete_offsets(
        &self,
        group: &str,
        topics: Vec<(String, Vec<i32>)>,
    ) -> impl Future<Output = Result<Vec<ErrorCode>, ErrorCode>> + Send + 'static {
        let waiting = match self.runtime.shard(group) {
            Some(shard) => Ok(shard.submit(Command::DeleteOffsets { group: group.to_owned(), topics }).await),
            None if !is_group_id(group) => Err(ErrorCode::InvalidGroupId),
            None => Err(self.without_shard(ErrorCode::GroupIdNotFound)),
        };
        async move {
            match reply(waiting, CANNOT_BE_WRITTEN).await? {
                Reply::Deleted(deleted) => deleted,
                _ => Err(ErrorCode::UnknownServerError),
            }
        }
    }

    /// A topic was deleted: so are the offsets committed for it. May be called at any time; partitions that are loading
    /// see to it when they have loaded.
    pub(crate) fn topic_deleted(&self, id: Uuid, name: &str) {
        self.runtime.inform_all(|| Command::TopicDeleted { id, name: name.to_owned() });
    }

    /// Forgets offsets that are too old (`offsets.retention.minutes`), and what is left of topics that are gone.
    pub(crate) fn expire_offsets(&self) {
        self.runtime.inform_all(|| Command::Expire(self.controller.view()));
    }

    pub(super) async fn submit(&self, group: &str, command: Command) -> Waiting {
        self.prepare().await?;
        let shard = self.runtime.shard(group).ok_or(ErrorCode::CoordinatorNotAvailable)?;
        Ok(shard.submit(command).await)
    }

    fn without_shard(&self, no_group_yet: ErrorCode) -> ErrorCode {
        if self.runtime.is_empty() { no_group_yet } else { ErrorCode::CoordinatorNotAvailable }
    }

    fn open(&self) {
        let Some(logs) = self.topic.logs() else { return };
        let of = |log: Option<_>| log.map(|log| PartitionLog::new(log, self.disk.clone()));
        let (config, controller) = (self.config.clone(), self.controller.clone());
        self.runtime.open(
            logs.into_iter().map(of),
            move || Coordinator::new(config.clone()),
            move || Some(Command::Loaded(controller.view())),
        );
    }
}

/// What a member is told whose group cannot be written down, as in Kafka.
pub(super) const CANNOT_BE_WRITTEN: ErrorCode = ErrorCode::UnknownServerError;

/// Waits for an answer. `too_large` is said when what was asked cannot be written down.
pub(super) async fn reply(waiting: Waiting, too_large: ErrorCode) -> Result<Reply, ErrorCode> {
    match waiting?.await {
        Ok(Err(ErrorCode::MessageTooLarge)) => Err(too_large),
        Ok(told) => told,
        // The broker is stopping.
        Err(_) => Err(ErrorCode::CoordinatorNotAvailable),
    }
}
