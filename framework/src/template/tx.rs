//! `Tx`: an open transaction, in the hands of the work that runs in it.

use std::fmt;
use std::sync::Arc;

use klamm_client::{
    GroupMetadata, OffsetAndMetadata, ProduceError, Record, RecordMetadata, TopicPartition, TransactionError,
};
use tokio::sync::{mpsc, oneshot};

use super::error::SendError;
use super::outgoing::{Outgoing, put};
use super::part::Part;
use crate::serde::AppSerdes;

/// An open transaction, in the hands of the work that runs in it: what [`Transactions::run`](super::Transactions::run)
/// gives to its work, and an argument of [transactional](crate::listener::ListenerBuilder::transactional) listeners.
/// Cheap to clone. When the work has ended, it is of no use any more.
#[derive(Clone)]
pub struct Tx {
    asks: mpsc::UnboundedSender<Ask>,
    serdes: AppSerdes,
}

impl Tx {
    /// One, and what it asks of whoever has the transaction.
    pub(crate) fn new(serdes: AppSerdes) -> (Self, mpsc::UnboundedReceiver<Ask>) {
        let (asks, asked) = mpsc::unbounded_channel();
        (Self { asks, serdes }, asked)
    }

    /// Sends a record as part of the transaction. Returns when the producer took it: the commit waits for all, and
    /// fails if one of them does.
    ///
    /// # Errors
    /// See [`SendError`]. The transaction can then not be committed any more, unless the record was refused before
    /// the producer saw it.
    pub async fn send(
        &self,
        topic: impl Into<Arc<str>>,
        key: impl Part,
        value: impl Part,
    ) -> Result<(), SendError> {
        let mut record = Record::to(topic);
        let (topic, serdes) = (|| Arc::clone(&record.topic), || self.serdes.clone());
        let (key, value) = (
            key.write("key", topic(), serdes(), SendError::Key).await?,
            value.write("value", topic(), serdes(), SendError::Value).await?,
        );
        put(&mut record, key, value);
        self.send_raw(record).await
    }

    /// As [`send`](Self::send), of a record that a template makes, with its serdes and interceptors:
    /// `tx.send_record(orders.record(order).key("k1")).await?`. A timeout of its own has no effect.
    /// [`Template::within`](super::Template::within) waits until records are written, and tells where they are.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn send_record<K: 'static, V: 'static>(
        &self,
        record: Outgoing<'_, K, V>,
    ) -> Result<(), SendError> {
        let (_, record) = record.prepared().await?;
        self.send_raw(record).await
    }

    /// As [`send`](Self::send), of a record as it is.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn send_raw(&self, record: Record) -> Result<(), SendError> {
        self.take(record, None).await
    }

    /// As [`send_raw`](Self::send_raw); `on_result` is called when it is known whether the record was written. It is
    /// dropped when the transaction ends before.
    pub(super) async fn send_telling(&self, record: Record, on_result: OnResult) -> Result<(), SendError> {
        self.take(record, Some(on_result)).await
    }

    async fn take(&self, record: Record, on_result: Option<OnResult>) -> Result<(), SendError> {
        let (tell, told) = oneshot::channel();
        self.asks.send(Ask::Send(record, tell, on_result)).map_err(|_| SendError::TransactionEnded)?;
        Ok(told.await.map_err(|_| SendError::TransactionEnded)??)
    }

    /// Commits a group's offsets together with the records; see
    /// [`Transaction::send_offsets`](klamm_client::Transaction::send_offsets).
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
        let offsets =
            offsets.into_iter().map(|(partition, offset)| (partition.into(), offset.into())).collect();
        let (tell, told) = oneshot::channel();
        let ask = Ask::Offsets(offsets, group.clone(), tell);
        self.asks.send(ask).map_err(|_| TransactionError::Closed)?;
        told.await.unwrap_or(Err(TransactionError::Closed))
    }
}

/// What is called when it is known whether a record was written.
pub(crate) type OnResult = Box<dyn FnOnce(Result<RecordMetadata, ProduceError>) + Send>;

/// What a [`Tx`] asks of the transaction, and whom to tell.
pub(crate) enum Ask {
    /// Whom to tell when the producer took it, and what to call when it is known whether it was written.
    Send(Record, oneshot::Sender<Result<(), ProduceError>>, Option<OnResult>),
    Offsets(
        Vec<(TopicPartition, OffsetAndMetadata)>,
        GroupMetadata,
        oneshot::Sender<Result<(), TransactionError>>,
    ),
}

impl fmt::Debug for Tx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tx").field("ended", &self.asks.is_closed()).finish()
    }
}
