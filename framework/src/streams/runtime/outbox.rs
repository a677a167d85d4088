//! From a worker thread to the network, at least once: outputs to the producer, offsets to the group. One per worker,
//! with a producer of its own, so that its messages stay in order and what it has not sent can be taken back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use klamm_client::{ConfigError, OffsetAndMetadata, Producer, RecordMetadata, TopicPartition};
use tokio::sync::{mpsc, oneshot};

use super::error::StreamsError;
use super::records::Records;
use super::rewind::{self, Lost};
use super::shared::{Background, Shared, lock};
use super::trouble::{Patience, Trouble, Verdict, member, verdict};
use crate::streams::node::{Output, OutputKind, TopicId};

/// Batches of outputs that may wait for the producer; a worker that is ahead waits.
pub(super) const OUTBOX_MESSAGES: usize = 16;

/// Of each changelog partition the first offset that is not known to be written.
pub(super) type ChangelogOffsets = HashMap<(TopicId, i32), i64>;

/// What a worker sends.
pub(super) enum Outgoing {
    /// Records of a task on this partition, which belongs to a member of this generation.
    Outputs { generation: i32, partition: i32, outputs: Vec<Output> },
    /// Commit input offsets, after everything before is acknowledged.
    Commit {
        generation: i32,
        offsets: HashMap<TopicPartition, OffsetAndMetadata>,
        reply: oneshot::Sender<Result<Committed, Trouble>>,
    },
    /// Nothing since the last commit counts: these tasks are to begin again from there.
    Void(Lost),
    /// These tasks are to begin again, though nothing is wrong with others.
    Again(Lost),
}

/// What a commit came to.
#[derive(Debug)]
pub(super) struct Committed {
    /// How far changelogs are written.
    pub(super) changelogs: ChangelogOffsets,
    /// Whether the offsets are committed. If not, everything stays as it is for the next commit.
    pub(super) offsets: bool,
}

/// Serves a worker until it ends.
pub(super) async fn serve(shared: Arc<Shared>, mut incoming: mpsc::Receiver<Outgoing>) {
    let lookups = Background::new();
    let mut outbox = match Outbox::new(&shared) {
        Ok(outbox) => outbox,
        Err(error) => return shared.fail(error.into()),
    };
    while let Some(message) = incoming.recv().await {
        match message {
            Outgoing::Outputs { generation, partition, outputs } => {
                outbox.outputs(generation, partition, outputs).await;
            }
            Outgoing::Commit { generation, offsets, reply } => {
                reply.send(outbox.commit(generation, offsets).await).ok();
            }
            Outgoing::Void(lost) => {
                if let Err(error) = outbox.take_back() {
                    return shared.fail(error.into());
                }
                lookups.spawn("streams-rewind", rewind::look_up(Arc::clone(&shared), lost));
            }
            Outgoing::Again(lost) => {
                lookups.spawn("streams-rewind", rewind::look_up(Arc::clone(&shared), lost));
            }
        }
    }
    // Everything that counts was flushed by a commit.
}

struct Outbox {
    shared: Arc<Shared>,
    records: Records,
    producer: Producer,
    fate: Arc<Fate>,
    /// Changes of stores, until the outputs beside them are acknowledged: whoever begins with a changelog takes what it
    /// says for done, committed or not, and tells nobody again.
    changes: Vec<Changes>,
    patience: Patience,
}

struct Changes {
    generation: i32,
    partition: i32,
    changes: Vec<Output>,
}

/// What became of the records so far.
#[derive(Default)]
struct Fate {
    trouble: Mutex<Option<Trouble>>,
    changelogs: Mutex<ChangelogOffsets>,
}

impl Fate {
    /// Nothing commits any more once a record is lost: the first trouble stays.
    fn seal(&self, trouble: Trouble) {
        lock(&self.trouble).get_or_insert(trouble);
    }

    fn told(
        &self,
        changelog: Option<(TopicId, i32)>,
        told: Result<RecordMetadata, klamm_client::ProduceError>,
    ) {
        match (told, changelog) {
            (Ok(metadata), Some(changelog)) => {
                let mut changelogs = lock(&self.changelogs);
                let next = changelogs.entry(changelog).or_insert(0);
                *next = (*next).max(metadata.offset + 1);
            }
            (Ok(_), None) => {}
            (Err(error), _) => self.seal(Trouble::of_record(error)),
        }
    }
}

impl Outbox {
    fn new(shared: &Arc<Shared>) -> Result<Self, ConfigError> {
        Ok(Self {
            shared: Arc::clone(shared),
            records: Records::new(shared),
            producer: producer(shared)?,
            fate: Arc::default(),
            changes: Vec::new(),
            patience: Patience::default(),
        })
    }

    /// What is not sent yet is not sent any more; what becomes of the rest does not matter.
    fn take_back(&mut self) -> Result<(), ConfigError> {
        self.producer = producer(&self.shared)?;
        self.fate = Arc::default();
        self.changes = Vec::new();
        Ok(())
    }

    async fn outputs(&mut self, generation: i32, partition: i32, outputs: Vec<Output>) {
        if lock(&self.fate.trouble).is_some() {
            return;
        }
        let is_change = |output: &Output| output.kind == OutputKind::Changelog;
        let (changes, outputs): (Vec<_>, Vec<_>) = outputs.into_iter().partition(is_change);
        if !changes.is_empty() {
            self.changes.push(Changes { generation, partition, changes });
        }
        if let Err(trouble) = self.send_all(generation, partition, outputs).await {
            self.fate.seal(trouble);
        }
    }

    async fn send_all(
        &mut self,
        generation: i32,
        partition: i32,
        outputs: Vec<Output>,
    ) -> Result<(), Trouble> {
        if outputs.is_empty() {
            return Ok(());
        }
        member(&self.shared, generation).await?;
        for output in outputs {
            self.send(partition, output).await?;
        }
        Ok(())
    }

    async fn send(&mut self, task_partition: i32, output: Output) -> Result<(), Trouble> {
        let changelog = (output.kind == OutputKind::Changelog).then_some((output.topic, task_partition));
        let record = self.records.record(task_partition, output).await.map_err(Trouble::Fatal)?;
        let fate = Arc::clone(&self.fate);
        let sent = self.producer.send_with(record, move |told| fate.told(changelog, told)).await;
        sent.map_err(if changelog.is_some() { Trouble::of_change } else { Trouble::of_record })
    }

    /// Waits until all that was sent is acknowledged.
    async fn acknowledged(&self) -> Result<(), Trouble> {
        // An error of a record is told to its callback.
        drop(self.producer.flush().await);
        lock(&self.fate.trouble).take().map_or(Ok(()), Err)
    }

    async fn commit(
        &mut self,
        generation: i32,
        offsets: HashMap<TopicPartition, OffsetAndMetadata>,
    ) -> Result<Committed, Trouble> {
        let committed = self.try_commit(generation, offsets).await;
        match committed {
            Ok(committed) => {
                self.patience.committed();
                Ok(committed)
            }
            Err(trouble) => Err(self.patience.after(trouble)),
        }
    }

    async fn try_commit(
        &mut self,
        generation: i32,
        offsets: HashMap<TopicPartition, OffsetAndMetadata>,
    ) -> Result<Committed, Trouble> {
        self.acknowledged().await?;
        for Changes { generation, partition, changes } in std::mem::take(&mut self.changes) {
            self.send_all(generation, partition, changes).await?;
        }
        self.acknowledged().await?;
        let changelogs = std::mem::take(&mut *lock(&self.fate.changelogs));
        if offsets.is_empty() {
            return Ok(Committed { changelogs, offsets: true });
        }
        let consumer = self.shared.consumer().ok_or_else(|| Trouble::void("the application is starting"))?;
        let Err(error) = consumer.commit(offsets).await else {
            return Ok(Committed { changelogs, offsets: true });
        };
        match verdict(&error) {
            Verdict::Passing => {
                tracing::warn!(application = %self.shared.group(), %error, "offsets not committed yet");
                Ok(Committed { changelogs, offsets: false })
            }
            Verdict::NotMember => Err(Trouble::Refused { why: error.to_string(), generation }),
            Verdict::Fatal => Err(Trouble::Fatal(StreamsError::Consume(error))),
        }
    }
}

/// Records leave within half of a session after they are given: see [`member`].
fn producer(shared: &Shared) -> Result<Producer, ConfigError> {
    let within = (shared.config.session_timeout / 2).max(shared.config.linger + Duration::from_millis(100));
    shared.client.producer().linger(shared.config.linger).delivery_timeout(within).build()
}
