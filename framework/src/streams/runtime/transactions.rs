//! From a worker thread to the network, exactly once: what its tasks write and the offsets that they read up to are one
//! transaction from commit to commit, begun by the first output.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use klamm_client::{
    Acks, ConfigError, OffsetAndMetadata, TopicPartition, Transaction, TransactionError,
    TransactionalProducer, Watch,
};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::config::StreamsConfig;
use super::error::StreamsError;
use super::fate::Fate;
use super::outbox::{ChangelogOffsets, Committed, Outgoing};
use super::records::Records;
use super::rewind::{self, Lost};
use super::shared::{Background, Shared};
use super::trouble::{Patience, Trouble, is_final, member};
use crate::streams::node::{Output, TopicId};

/// How long an instance that vanished keeps readers of its outputs and its tasks' next owner waiting
/// (`transaction.timeout.ms` of Kafka Streams), if its commits are not rarer than that.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The broker allows no longer ones by itself (`transaction.max.timeout.ms`).
const LONGEST_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// Between tries to find out what became of a transaction.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves a worker until it ends. `name` is that of its transactions: who takes it over ends what was left open.
pub(super) async fn serve(shared: Arc<Shared>, name: String, mut incoming: mpsc::Receiver<Outgoing>) {
    let mut line = match Line::new(&shared, name) {
        Ok(line) => line,
        Err(error) => return shared.fail(error.into()),
    };
    // An earlier life of this instance may have left one open, whose end its tasks wait for: not only with the first
    // output, which comes after that.
    if let Err(error) = line.settle().await {
        return shared.fail(error);
    }
    while let Some(message) = incoming.recv().await {
        match line.from(message, &mut incoming).await {
            ControlFlow::Continue(None) => {}
            ControlFlow::Continue(Some((lost, settle))) => {
                // Only then is it known where the tasks go on.
                if settle && let Err(error) = line.settle().await {
                    return shared.fail(error);
                }
                line.look_up(lost);
            }
            ControlFlow::Break(()) => break,
        }
    }
    if let Err(error) = line.producer.close().await {
        tracing::warn!(%error, "a transaction was not ended in good order; the coordinator ends it");
    }
}

struct Line {
    shared: Arc<Shared>,
    name: String,
    records: Records,
    /// By name.
    changelogs: Arc<HashMap<Arc<str>, TopicId>>,
    producer: TransactionalProducer,
    timeout: Timeout,
    patience: Patience,
    lookups: Background,
}

/// How long a transaction may take. A record that takes longer than all of a transaction would be processed again and
/// again: each time that one outlasts it, the next producer is given twice the time.
#[derive(Debug, Clone, Copy)]
struct Timeout {
    now: Duration,
    outlasted: bool,
}

/// Tasks that are to begin again, and whether the last transaction is to be settled before.
type Lookup = Option<(Lost, bool)>;

/// What is known of an open transaction.
struct Open<'a> {
    transaction: Result<Transaction<'a>, Trouble>,
    fate: Arc<Fate>,
}

impl Line {
    fn new(shared: &Arc<Shared>, name: String) -> Result<Self, ConfigError> {
        let timeout = Timeout { now: timeout(&shared.config), outlasted: false };
        let producer = producer(shared, &name, timeout)?;
        let (records, patience, lookups) = (Records::new(shared), Patience::default(), Background::new());
        let (shared, changelogs) = (Arc::clone(shared), Arc::new(records.changelogs()));
        Ok(Self { shared, name, records, changelogs, producer, timeout, patience, lookups })
    }

    fn look_up(&self, lost: Lost) {
        self.lookups.spawn("streams-rewind", rewind::look_up(Arc::clone(&self.shared), lost));
    }

    /// From the first message after a commit to the next one.
    async fn from(
        &mut self,
        first: Outgoing,
        incoming: &mut mpsc::Receiver<Outgoing>,
    ) -> ControlFlow<(), Lookup> {
        let first = match first {
            Outgoing::Void(lost) => return ControlFlow::Continue(Some((lost, true))),
            Outgoing::Again(lost) => return ControlFlow::Continue(Some((lost, false))),
            Outgoing::Commit { offsets, reply, .. } if offsets.is_empty() => {
                let nothing = Committed { changelogs: ChangelogOffsets::new(), offsets: true };
                reply.send(Ok(nothing)).ok();
                return ControlFlow::Continue(None);
            }
            other => other,
        };
        let Self { shared, records, changelogs, producer, timeout, patience, lookups, .. } = self;
        let since = Instant::now();
        let begun = producer.begin().await.map_err(Trouble::of_transaction);
        let mut open = Open { transaction: begun, fate: Fate::new(changelogs) };
        let mut message = Some(first);
        loop {
            match message {
                None => return ControlFlow::Break(()),
                Some(Outgoing::Outputs { partition, outputs, .. }) => {
                    open.send(records, partition, outputs).await;
                }
                Some(Outgoing::Commit { generation, offsets, reply }) => {
                    let committed = open.commit(shared, generation, offsets).await;
                    let committed = match committed {
                        Ok(changelogs) => {
                            patience.committed();
                            Ok(Committed { changelogs, offsets: true })
                        }
                        Err(trouble) => {
                            timeout.outlasted |= since.elapsed() >= timeout.now;
                            Err(patience.after(trouble))
                        }
                    };
                    reply.send(committed).ok();
                    return ControlFlow::Continue(None);
                }
                Some(Outgoing::Void(lost)) => {
                    open.abort().await;
                    return ControlFlow::Continue(Some((lost, true)));
                }
                Some(Outgoing::Again(lost)) => {
                    lookups.spawn("streams-rewind", rewind::look_up(Arc::clone(shared), lost));
                }
            }
            message = incoming.recv().await;
        }
    }

    /// Finds out what became of the last transaction, however long that takes.
    ///
    /// # Errors
    /// The coordinator refuses for good.
    async fn settle(&mut self) -> Result<(), StreamsError> {
        if std::mem::take(&mut self.timeout.outlasted) {
            self.timeout.now = (self.timeout.now * 2).min(LONGEST_TIMEOUT);
            self.producer = producer(&self.shared, &self.name, self.timeout)?;
        }
        while !*self.shared.close.borrow() {
            let settled = match self.producer.begin().await {
                Ok(transaction) => {
                    transaction.abort().await.ok();
                    Ok(())
                }
                Err(error) => Err(error),
            };
            match settled {
                Ok(()) => break,
                Err(TransactionError::Fenced { .. } | TransactionError::Closed) => {
                    // The coordinator gave it up, or a member of the same name is gone: another one takes over.
                    self.producer = producer(&self.shared, &self.name, self.timeout)?;
                }
                Err(error @ TransactionError::Broker { code, .. }) if is_final(code) => {
                    return Err(error.into());
                }
                Err(error) => {
                    let application = self.shared.group();
                    tracing::warn!(%application, %error, "finding out what became of a transaction");
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }
}

impl Open<'_> {
    async fn send(&mut self, records: &mut Records, partition: i32, outputs: Vec<Output>) {
        let Ok(transaction) = &self.transaction else { return };
        if let Err(trouble) = self.send_in(transaction, records, partition, outputs).await {
            // Dropped, it is aborted.
            self.transaction = Err(trouble);
        }
    }

    async fn send_in(
        &self,
        transaction: &Transaction<'_>,
        records: &mut Records,
        partition: i32,
        outputs: Vec<Output>,
    ) -> Result<(), Trouble> {
        records.prepare(&outputs).await.map_err(Trouble::Fatal)?;
        let all = outputs.into_iter().map(|output| records.record(partition, output));
        let watch: Arc<dyn Watch> = Arc::clone(&self.fate) as _;
        transaction.enqueue_all(all, &watch).await.map_err(|error| self.fate.trouble_of(error))
    }

    async fn commit(
        self,
        shared: &Shared,
        generation: i32,
        offsets: HashMap<TopicPartition, OffsetAndMetadata>,
    ) -> Result<ChangelogOffsets, Trouble> {
        let transaction = self.transaction?;
        let member = member(shared, generation).await?;
        transaction.send_offsets(offsets, &member).await.map_err(Trouble::of_transaction)?;
        transaction.commit().await.map_err(Trouble::of_transaction)?;
        // All were told before that.
        self.fate.unseal()?;
        Ok(self.fate.take_written())
    }

    async fn abort(self) {
        if let Ok(transaction) = self.transaction
            && let Err(error) = transaction.abort().await
        {
            tracing::debug!(%error, "a transaction was not aborted yet; the next one ends it");
        }
    }
}

fn producer(shared: &Shared, name: &str, timeout: Timeout) -> Result<TransactionalProducer, ConfigError> {
    let builder = shared.client.producer().idempotent(true).acks(Acks::All).linger(shared.config.linger);
    builder.transactional_id(name).transaction_timeout(timeout.now).build()
}

fn timeout(config: &StreamsConfig) -> Duration {
    TIMEOUT.max(config.commit_every().saturating_mul(2)).min(LONGEST_TIMEOUT)
}
