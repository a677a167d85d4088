//! `TransactionalProducer` and its `Transaction`s.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::builder::ProducerBuilder;
use super::coordination::{Coordination, Coordinator};
use super::delivery::{Delivery, Watch};
use super::enqueue_error::EnqueueError;
use super::handle::Producer;
use super::record::{Record, RecordMetadata};
use super::settings::Acks;
use crate::cluster::Client;
use crate::error::{ConfigError, ProduceError, TransactionError};
use crate::group::GroupMetadata;
use crate::runtime::Tasks;
use crate::types::{OffsetAndMetadata, TopicPartition};

/// Settings of a [`TransactionalProducer`]; made by [`ProducerBuilder::transactional_id`].
#[derive(Debug, Clone)]
pub struct TransactionalProducerBuilder {
    builder: ProducerBuilder,
}

impl TransactionalProducerBuilder {
    pub(super) fn new(builder: ProducerBuilder) -> Self {
        Self { builder }
    }

    /// How long a transaction may be open before the coordinator aborts it (`transaction.timeout.ms`). Default 60 s.
    /// Brokers limit it (`transaction.max.timeout.ms`, 15 minutes by default).
    #[must_use]
    pub fn transaction_timeout(mut self, timeout: Duration) -> Self {
        self.builder.set_transaction_timeout(timeout);
        self
    }

    /// Checks the settings and starts the producer's background tasks. Must be called inside a tokio runtime. The
    /// coordinator is asked by the first [`TransactionalProducer::begin`].
    ///
    /// # Errors
    /// A setting that cannot work, named.
    pub fn build(self) -> Result<TransactionalProducer, ConfigError> {
        let (client, config) = self.builder.checked()?;
        let Some(id) = config.transactional_id.clone().filter(|id| !id.is_empty()) else {
            return Err(ConfigError::new("transactional_id", "must not be empty"));
        };
        if !config.idempotent || config.acks != Acks::All {
            return Err(ConfigError::new("transactional_id", "needs idempotence and acks(Acks::All)"));
        }
        if config.transaction_timeout.is_zero() {
            return Err(ConfigError::new("transaction_timeout", "must be positive"));
        }
        let producer = Producer::start(client, config);
        let (coordinator, coordination) = Coordinator::new(producer.shared.clone(), id);
        let tasks = Tasks::new();
        tasks.spawn("transactions", coordinator.run());
        Ok(TransactionalProducer { producer, coordination, tasks, unsettled: false })
    }
}

/// Sends records in transactions: those of a committed one become visible together to consumers that read committed
/// records, those of an aborted one never.
///
/// ```no_run
/// # async fn example(client: klamm_client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use klamm_client::Record;
///
/// let mut producer = client.producer().transactional_id("billing-1").build()?;
/// let transaction = producer.begin().await?;
/// transaction.enqueue(Record::to("invoices").key("k1").value("v")).await?;
/// transaction.enqueue(Record::to("ledger").key("k1").value("v")).await?;
/// transaction.commit().await?; // waits for both
/// # Ok(())
/// # }
/// ```
///
/// There is one transaction at a time, and a record belongs to one:
///
/// ```compile_fail
/// # async fn example(mut producer: klamm_client::TransactionalProducer) {
/// let first = producer.begin().await.unwrap();
/// let second = producer.begin().await.unwrap();
/// first.commit().await.unwrap();
/// # }
/// ```
pub struct TransactionalProducer {
    producer: Producer,
    coordination: Coordination,
    tasks: Tasks,
    /// Whether a transaction was begun whose end nobody has seen.
    unsettled: bool,
}

impl TransactionalProducer {
    /// Begins a transaction, after the one before has ended. The first one, and one after a failure, asks the
    /// coordinator for an epoch, which fences other producers with this transactional id and ends what they left open;
    /// that may take up to `max_block`. When this future is dropped, nothing was begun.
    ///
    /// # Errors
    /// [`TransactionError::Fenced`] when another producer has the transactional id; a broker that has no transactions
    /// or refuses them; no answer within `max_block`.
    pub async fn begin(&mut self) -> Result<Transaction<'_>, TransactionError> {
        self.coordination.begin().await?;
        self.unsettled = true;
        Ok(Transaction { producer: self, open: true })
    }

    /// The client this producer was made from.
    pub fn client(&self) -> &Client {
        self.producer.client()
    }

    /// Waits for the end of a transaction that was dropped, and ends the background tasks.
    ///
    /// # Errors
    /// None of a transaction that was committed or aborted: those were told there.
    pub async fn close(mut self) -> Result<(), TransactionError> {
        let ended = self.coordination.end(false).await;
        self.unsettled = false;
        self.tasks.shutdown().await;
        // Nothing is left that could fail.
        drop(self.producer.close().await);
        ended
    }
}

/// A transaction that was dropped, or whose commit nobody waits for, is ended before the tasks are: without that,
/// readers of committed records would wait for the transaction's timeout.
impl Drop for TransactionalProducer {
    fn drop(&mut self) {
        // Without a runtime there is nothing to end it with.
        if !self.unsettled || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let (producer, coordination, tasks) =
            (self.producer.clone(), self.coordination.clone(), self.tasks.clone());
        let last = Tasks::new();
        let itself = last.clone();
        last.spawn("last transaction", async move {
            if let Err(error) = coordination.end(false).await {
                tracing::warn!(%error, "a dropped transaction was not aborted");
            }
            // All that is needed until here, this task included, ends now.
            drop((producer, tasks, itself));
        });
    }
}

impl fmt::Debug for TransactionalProducer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransactionalProducer").field("producer", &self.producer).finish_non_exhaustive()
    }
}

/// An open transaction. Dropping it aborts it, in the background, also when the producer is dropped with it; the next
/// `begin` waits for that.
#[derive(Debug)]
#[must_use = "a transaction that is dropped is aborted"]
pub struct Transaction<'a> {
    producer: &'a mut TransactionalProducer,
    open: bool,
}

impl Transaction<'_> {
    /// As [`Producer::send`], as part of the transaction: acknowledged does not mean committed.
    ///
    /// # Errors
    /// See [`ProduceError`]. The transaction can then only be aborted.
    pub async fn send(&self, record: Record) -> Result<RecordMetadata, ProduceError> {
        self.enqueue(record).await?.await
    }

    /// As [`Producer::enqueue`], as part of the transaction. [`Transaction::commit`] waits for all records: their
    /// deliveries can be dropped.
    ///
    /// # Errors
    /// The record cannot be taken; the error hands it back. Without it the transaction can still be committed, unless
    /// the error is a [`ProduceError::TransactionBroken`].
    pub async fn enqueue(&self, record: Record) -> Result<Delivery, EnqueueError> {
        let coordination = &self.producer.coordination;
        match self.producer.producer.append(&record, None, Some(coordination)).await {
            Ok(appended) => Ok(Delivery::from(appended)),
            Err(error) => Err(self.producer.producer.refused(error, record)),
        }
    }

    /// As [`Producer::enqueue_all`], as part of the transaction.
    ///
    /// # Errors
    /// As of [`Producer::enqueue_all`]; without the record that was not taken and those after it the transaction can
    /// still be committed, unless the error is a [`ProduceError::TransactionBroken`].
    pub async fn enqueue_all(
        &self,
        records: impl IntoIterator<Item = Record, IntoIter: Send>,
        watch: &Arc<dyn Watch>,
    ) -> Result<(), ProduceError> {
        let TransactionalProducer { producer, coordination, .. } = &*self.producer;
        let taken = producer.append_all(records.into_iter(), watch, Some(coordination)).await;
        taken.inspect_err(|error| producer.shared.metrics.failed(error.kind(), 1))
    }

    /// Commits a group's offsets together with the records: consumed records count as processed if, and only if, what
    /// came of them is committed. An offset is that of the next record to read, as in
    /// any other commit. `group` is what the consumer says of itself now: a member that was expelled cannot commit.
    ///
    /// # Errors
    /// The group or the coordinator refuses. The transaction can then only be aborted.
    pub async fn send_offsets<P, O>(
        &self,
        offsets: impl IntoIterator<Item = (P, O)>,
        group: &GroupMetadata,
    ) -> Result<(), TransactionError>
    where
        P: Into<TopicPartition>,
        O: Into<OffsetAndMetadata>,
    {
        let offsets: Vec<_> =
            offsets.into_iter().map(|(partition, offset)| (partition.into(), offset.into())).collect();
        if offsets.is_empty() {
            return Ok(());
        }
        self.producer.coordination.send_offsets(offsets, group.clone()).await
    }

    /// Waits for all records and commits. When this future is dropped, the transaction is committed all the same, if
    /// that is possible; the next `begin` waits for the end.
    ///
    /// # Errors
    /// [`TransactionError::Aborted`] when a record or a step failed, and nothing was committed;
    /// [`TransactionError::UnknownOutcome`] when the coordinator did not answer, or only after it was asked again;
    /// [`TransactionError::Fenced`] when another producer has the transactional id, which aborted this transaction.
    pub async fn commit(mut self) -> Result<(), TransactionError> {
        self.open = false;
        let ended = self.producer.coordination.end(true).await;
        self.producer.unsettled = false;
        ended
    }

    /// Aborts: records that were not sent yet are not sent any more. When this future is dropped, the transaction is
    /// aborted all the same.
    ///
    /// # Errors
    /// The coordinator refuses. What is not committed does not become visible: the coordinator aborts it when
    /// `transaction_timeout` has passed.
    pub async fn abort(mut self) -> Result<(), TransactionError> {
        self.open = false;
        let ended = self.producer.coordination.end(false).await;
        self.producer.unsettled = false;
        ended
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if self.open {
            self.producer.coordination.abort();
        }
    }
}
