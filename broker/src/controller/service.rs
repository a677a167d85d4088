//! [`Controller`]: where commands are handed in, and the metadata is seen.

use std::collections::BTreeMap;
use std::sync::Arc;

use klamm_protocol::{ErrorCode, Uuid};
use klamm_runtime::{Clock, Rng, Tasks};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout_at};

use super::change::ChangeTopic;
use super::change_broker::ChangeBroker;
use super::change_quotas::ChangeQuotas;
use super::command::{CreateTopic, Surroundings, TopicError};
use super::decide::{Command, Core, DeletedTopic, Done};
use super::error::ControllerError;
use super::image::{Image, Topic};
use super::metadata_log::{MetadataLog, Opened, unmounted};
use super::shared::Shared;
use super::snapshots::Snapshots;
use super::task::{COMMANDS_PER_ROUND, Means, Proposal, Task, stopped};
use super::view::View;
use crate::config::{BrokerConfig, LiveConfig, topic};
use crate::disk::Disk;
use crate::log::{LogConfig, StorageError};
use crate::partition::{LogManager, Partition};
use crate::replay::on_disk;

/// The controller of a cluster of one. Dropping it ends its task as a crash would; better call [`Self::close`].
///
/// A command is carried out by the controller's own task. Whoever drops the future of one gives up the answer and
/// nothing else: the command is either not proposed yet, and never will be, or it takes its course.
#[derive(Debug)]
pub struct Controller {
    proposals: mpsc::Sender<Proposal>,
    shared: Arc<Shared>,
    live: Arc<LiveConfig>,
    stopping: watch::Sender<bool>,
    tasks: Tasks,
    metadata_log: Arc<Partition>,
}

impl Controller {
    /// Settings of the metadata log: kept for ever, and always synced, whatever the broker's `flush` says, because
    /// topics and producer ids must not come undone.
    pub fn metadata_log_config() -> LogConfig {
        MetadataLog::config()
    }

    /// The settings of all topics' logs, by topic, as the metadata log says; of none where it cannot be read, which
    /// [`Self::open`] tells. Blocks on the disk.
    pub(crate) fn log_configs(
        metadata: &Partition,
        disk: &dyn Disk,
        config: &BrokerConfig,
    ) -> BTreeMap<String, LogConfig> {
        let image = MetadataLog::read_image(metadata, disk).unwrap_or_default();
        let live = LiveConfig::new(config.clone());
        let altered = image.broker_settings();
        live.alter(altered.of(""), altered.of(&config.node_id.to_string()));
        let defaults = &live.now().log;
        let of = |topic: &Arc<Topic>| (topic.name.to_string(), topic::log_config(defaults, &topic.settings));
        image.topics().map(of).collect()
    }

    /// Reads the metadata log, or begins one, makes the partitions on disk what it says, and begins to take commands on
    /// the current tokio runtime.
    ///
    /// # Errors
    /// When the metadata log cannot be read or made. Directories that cannot be made are tried again.
    pub async fn open(
        disk: Arc<dyn Disk>,
        logs: Arc<LogManager>,
        clock: Arc<dyn Clock>,
        rng: Arc<dyn Rng>,
        config: &BrokerConfig,
    ) -> Result<Self, ControllerError> {
        let surroundings = Surroundings {
            node_id: config.node_id,
            default_partitions: config.num_partitions,
            max_partitions: config.max_partitions,
        };
        let (proposals, incoming) = mpsc::channel(COMMANDS_PER_ROUND);
        let (live, now) = (Arc::new(LiveConfig::new(config.clone())), Instant::now());
        let load = {
            let (logs, disk, config) = (logs.clone(), disk.clone(), config.clone());
            move || {
                let opened = MetadataLog::open(&logs, disk, clock, &config)?;
                logs.settle_doubles(|id| opened.image.was_deleted(id))?;
                refuse_unmounted(&logs, &opened.image)?;
                logs.expect_partitions(partitions_of(&opened.image));
                logs.adopt_new_dirs()?;
                Ok::<_, ControllerError>(opened)
            }
        };
        let Opened { log: metadata, image, snapshot, bytes_since_snapshot } = on_disk(&disk, load).await?;
        let snapshots = Snapshots::new(config.metadata_snapshot_bytes, snapshot, bytes_since_snapshot);
        let metadata_log = metadata.partition();
        let means = Means { logs, rng, live: live.clone(), node_id: config.node_id, metadata };
        let task = Task::new(means, Core::new(image, surroundings), snapshots, incoming, now).await;
        let (shared, tasks) = (task.shared(), Tasks::new());
        let (stopping, stops) = watch::channel(false);
        tasks.spawn("controller", task.run(stops));
        Ok(Self { proposals, shared, live, stopping, tasks, metadata_log })
    }

    /// The metadata and logs as they are now.
    pub fn view(&self) -> Arc<View> {
        self.shared.view.borrow().clone()
    }

    /// Follows the metadata and logs.
    pub fn views(&self) -> watch::Receiver<Arc<View>> {
        self.shared.view.subscribe()
    }

    /// Where the metadata is written down. To be looked at, not to be written into.
    pub fn metadata_log(&self) -> &Arc<Partition> {
        &self.metadata_log
    }

    /// The broker's settings, as far as the metadata changes them. When a change is answered, they are the new ones.
    pub(crate) fn live_config(&self) -> &Arc<LiveConfig> {
        &self.live
    }

    /// Every deletion of a topic that is committed from now on, in order. One that is committed before shows in
    /// [`Self::view`], so that whoever calls this first and looks at the view then misses none.
    pub fn deletions(&self) -> mpsc::UnboundedReceiver<DeletedTopic> {
        self.shared.follow_deletions()
    }

    /// Creates a topic and its logs; with `validate_only` only says what would come of it.
    ///
    /// # Errors
    /// When the topic cannot be, or the disk fails. The message says when the topic was created all the same and only
    /// its logs are still to come.
    pub async fn create_topic(
        &self,
        command: &CreateTopic,
        validate_only: bool,
    ) -> Result<Topic, TopicError> {
        self.create_topic_until(command, validate_only, None).await
    }

    /// As [`Self::create_topic`], for a caller who waits no longer than that.
    ///
    /// # Errors
    /// As there, and `REQUEST_TIMED_OUT`: then the command goes on by itself, unless the message says that it was not
    /// begun.
    pub async fn create_topic_until(
        &self,
        command: &CreateTopic,
        validate_only: bool,
        until: Option<Instant>,
    ) -> Result<Topic, TopicError> {
        match self.propose(Command::Create(command.clone(), validate_only), until).await? {
            Done::Created(topic) => Ok(topic),
            _ => Err(stopped()),
        }
    }

    /// Changes a topic, and its logs with it; with `validate_only` only says whether that can be.
    ///
    /// # Errors
    /// When there is no such topic, or the change cannot be or not be written down. The message says when the topic was
    /// changed all the same and only its logs are still to follow. As with [`Self::create_topic_until`].
    pub async fn change_topic_until(
        &self,
        command: ChangeTopic,
        validate_only: bool,
        until: Option<Instant>,
    ) -> Result<(), TopicError> {
        self.propose(Command::Change(command, validate_only), until).await.map(drop)
    }

    /// Alters settings of a broker, or of all; with `validate_only` only says whether that can be.
    ///
    /// # Errors
    /// When they cannot be altered, or not be written down.
    pub(crate) async fn change_broker(
        &self,
        command: ChangeBroker,
        validate_only: bool,
    ) -> Result<(), TopicError> {
        self.propose(Command::ChangeBroker(command, validate_only), None).await.map(drop)
    }

    /// Sets quotas of a client; with `validate_only` only says whether that can be.
    ///
    /// # Errors
    /// When they cannot be, or not be written down.
    pub(crate) async fn change_quotas(
        &self,
        command: ChangeQuotas,
        validate_only: bool,
    ) -> Result<(), TopicError> {
        self.propose(Command::ChangeQuotas(command, validate_only), None).await.map(drop)
    }

    /// Deletes a topic and its logs.
    ///
    /// # Errors
    /// When there is no such topic, or its end cannot be written down.
    pub async fn delete_topic(&self, id: Uuid) -> Result<(), TopicError> {
        self.delete_topic_until(id, None).await
    }

    /// As [`Self::delete_topic`], for a caller who waits no longer than that.
    ///
    /// # Errors
    /// As there, and as with [`Self::create_topic_until`].
    pub async fn delete_topic_until(&self, id: Uuid, until: Option<Instant>) -> Result<(), TopicError> {
        self.propose(Command::Delete(id), until).await.map(drop)
    }

    /// A producer id that was never given out before, whatever crashed in between.
    ///
    /// # Errors
    /// When a new block of ids cannot be made durable.
    pub async fn next_producer_id(&self) -> Result<i64, ControllerError> {
        loop {
            if let Some(id) = self.shared.take_producer_id() {
                return Ok(id);
            }
            // Others may be faster and take the whole block.
            self.propose(Command::ProducerIds, None).await?;
        }
    }

    /// Takes no more commands, and waits for those that were proposed and for directories that are being made.
    pub async fn close(&self) {
        self.stopping.send_replace(true);
        self.tasks.join().await;
    }

    async fn propose(&self, command: Command, until: Option<Instant>) -> Result<Done, TopicError> {
        let (answer, answered) = oneshot::channel();
        let proposed = in_time(until, self.proposals.send(Proposal { command, answer })).await;
        proposed.map_err(|_| not_begun())?.map_err(|_| stopped())?;
        in_time(until, answered).await.map_err(|_| goes_on())?.map_err(|_| stopped())?
    }
}

/// Waits for as long as there is time, or for as long as it takes.
async fn in_time<F: Future>(until: Option<Instant>, work: F) -> Result<F::Output, Elapsed> {
    match until {
        Some(until) => timeout_at(until, work).await,
        None => Ok(work.await),
    }
}

fn not_begun() -> TopicError {
    let message = "there was no time left to begin with it: the cluster's metadata cannot be written at the moment. \
                   Nothing was changed";
    TopicError::new(ErrorCode::RequestTimedOut, message)
}

fn goes_on() -> TopicError {
    let message = "it takes longer than the request's timeout; what was asked for goes on by itself, and the metadata \
                   will show it. Is the disk of one of log.dirs well?";
    TopicError::new(ErrorCode::RequestTimedOut, message)
}

/// The partitions that there have to be.
fn partitions_of(image: &Image) -> impl Iterator<Item = ((String, i32), Uuid)> {
    image
        .topics()
        .flat_map(|topic| (0..topic.partitions).map(|index| ((topic.name.to_string(), index), topic.id)))
}

/// A log directory that is empty beside others may have been added, if nothing is missing. If something is, it would be
/// made anew there, and be in the way when the file system is mounted.
fn refuse_unmounted(logs: &LogManager, image: &Image) -> Result<(), StorageError> {
    if logs.new_dirs().is_empty() {
        return Ok(());
    }
    let missing = image
        .topics()
        .flat_map(|topic| (0..topic.partitions).map(move |index| (&topic.name, index)))
        .find(|(name, index)| logs.partition(name, *index).is_none());
    missing.map_or(Ok(()), |(name, index)| Err(unmounted(logs, name, index)))
}
