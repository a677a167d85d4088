//! From a worker thread to the network, at least once: outputs to the producer, offsets to the group. One per worker,
//! with a producer of its own, so that its messages stay in order and what it has not sent can be taken back.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use klamm_client::{ConfigError, OffsetAndMetadata, Producer, TopicPartition, Watch};
use tokio::sync::{mpsc, oneshot};

use super::error::StreamsError;
use super::fate::Fate;
use super::records::Records;
use super::rewind::{self, Lost};
use super::shared::{Background, Shared};
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
    changelogs: Arc<HashMap<Arc<str>, TopicId>>,
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

impl Outbox {
    fn new(shared: &Arc<Shared>) -> Result<Self, ConfigError> {
        let records = Records::new(shared);
        let changelogs = Arc::new(records.changelogs());
        Ok(Self {
            shared: Arc::clone(shared),
            records,
            producer: producer(shared)?,
            fate: Fate::new(&changelogs),
            changelogs,
            changes: Vec::new(),
            patience: Patience::default(),
        })
    }

    /// What is not sent yet is not sent any more; what becomes of the rest does not matter.
    fn take_back(&mut self) -> Result<(), ConfigError> {
        self.producer = producer(&self.shared)?;
        self.fate = Fate::new(&self.changelogs);
        self.changes = Vec::new();
        Ok(())
    }

    async fn outputs(&mut self, generation: i32, partition: i32, outputs: Vec<Output>) {
        if self.fate.is_sealed() {
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
        self.records.prepare(&outputs).await.map_err(Trouble::Fatal)?;
        let records = outputs.into_iter().map(|output| self.records.record(partition, output));
        let watch: Arc<dyn Watch> = Arc::clone(&self.fate) as _;
        self.producer.enqueue_all(records, &watch).await.map_err(|error| self.fate.trouble_of(error))
    }

    /// Waits until all that was sent is acknowledged.
    async fn acknowledged(&self) -> Result<(), Trouble> {
        // An error of a record is told to its callback.
        drop(self.producer.flush().await);
        self.fate.unseal()
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
        let changelogs = self.fate.take_written();
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
