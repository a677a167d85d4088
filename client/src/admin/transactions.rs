//! Transactions and the producers that write them: listed, described, fenced, aborted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use klamm_protocol::messages::describe_producers::{PartitionResponse, TopicRequest};
use klamm_protocol::messages::describe_transactions::TransactionState;
use klamm_protocol::messages::write_txn_markers::{WritableTxnMarker, WritableTxnMarkerTopic};
use klamm_protocol::messages::{
    DescribeProducersRequest, DescribeProducersResponse, DescribeTransactionsRequest,
    DescribeTransactionsResponse, InitProducerIdRequest, InitProducerIdResponse, ListTransactionsRequest,
    ListTransactionsResponse, WriteTxnMarkersRequest, WriteTxnMarkersResponse,
};

use super::asking::Exchange;
use super::groups::texts;
use super::handle::Admin;
use super::progress::{PerItem, check};
use super::route::{Destination, KeyType};
use super::topics::{key, keys};
use crate::error::{AdminError, RequestError};
use crate::types::TopicPartition;

/// From here on transactions are listed by how long they are open, and by a pattern of their ids.
const DURATION_FROM: i16 = 1;
const PATTERN_FROM: i16 = 2;
/// Before this version fencing needs no more than the transactional id.
const FENCE_VERSION_CAP: i16 = 5;

impl Admin {
    /// The transactional ids that all brokers coordinate, and the state of each, by id.
    ///
    /// # Errors
    /// A broker did not answer in time, or is too old for what the filter asks.
    pub async fn list_transactions(
        &self,
        filter: &TransactionFilter,
    ) -> Result<Vec<TransactionListing>, AdminError> {
        let what = "listing transactions";
        let version = self.version_somewhere::<ListTransactionsRequest>(what).await?;
        let asks_too_much = (version < DURATION_FROM && filter.open_longer_than.is_some())
            || (version < PATTERN_FROM && filter.id_pattern.is_some());
        if asks_too_much {
            let api = klamm_protocol::ApiKey::ListTransactions;
            return Err(RequestError::Unsupported { address: Arc::from("the cluster"), api }.into());
        }
        let open =
            filter.open_longer_than.map_or(-1, |open| i64::try_from(open.as_millis()).unwrap_or(i64::MAX));
        let build = |_: &[i32], _| ListTransactionsRequest {
            state_filters: texts(&filter.states),
            producer_id_filters: filter.producer_ids.clone(),
            duration_filter: open,
            transactional_id_pattern: filter.id_pattern.as_ref().map(Into::into),
            ..Default::default()
        };
        let read = |answer: ListTransactionsResponse, asked: &[i32]| {
            let listed = check(answer.error_code, None).map(|()| answer.transaction_states);
            asked.iter().map(|&broker| (broker, listed.clone())).collect()
        };
        let exchange = Exchange { what, up_to: i16::MAX, build, read };
        let mut transactions = Vec::new();
        for (_, listed) in BTreeMap::from_iter(self.ask_all_brokers(exchange).await?) {
            transactions.extend(listed?.iter().map(|listed| TransactionListing {
                transactional_id: key(&listed.transactional_id),
                producer_id: listed.producer_id,
                state: key(&listed.transaction_state),
            }));
        }
        transactions.sort_by(|a, b| a.transactional_id.cmp(&b.transactional_id));
        Ok(transactions)
    }

    /// Describes transactions by their transactional ids.
    ///
    /// # Errors
    /// No coordinator in time.
    pub async fn describe_transactions<T: AsRef<str>>(
        &self,
        transactional_ids: &[T],
    ) -> Result<PerItem<Arc<str>, TransactionDescription>, AdminError> {
        let build = |ids: &[Arc<str>], _| DescribeTransactionsRequest {
            transactional_ids: texts(ids),
            ..Default::default()
        };
        let read = |answer: DescribeTransactionsResponse, _: &[Arc<str>]| {
            let states = answer.transaction_states.into_iter().map(|state| {
                let id = key(&state.transactional_id);
                (id, check(state.error_code, None).map(|()| describe(&state)))
            });
            states.collect()
        };
        let exchange = Exchange { what: "describing transactions", up_to: i16::MAX, build, read };
        self.ask(keys(transactional_ids), coordinator, exchange).await
    }

    /// The producers that partitions' leaders know, with their open transactions.
    ///
    /// # Errors
    /// No leader in time.
    pub async fn describe_producers(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<PerItem<TopicPartition, Vec<ProducerDescription>>, AdminError> {
        let build = |partitions: &[TopicPartition], _| {
            let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
            for partition in partitions {
                topics.entry(&partition.topic).or_default().push(partition.partition);
            }
            let topic = |(name, partition_indexes): (&str, Vec<i32>)| TopicRequest {
                name: name.into(),
                partition_indexes,
                ..Default::default()
            };
            DescribeProducersRequest { topics: topics.into_iter().map(topic).collect(), ..Default::default() }
        };
        let read = |answer: DescribeProducersResponse, _: &[TopicPartition]| {
            let mut results = Vec::new();
            for topic in answer.topics {
                results.extend(topic.partitions.into_iter().map(|part| {
                    let at = TopicPartition::new(&*topic.name, part.partition_index);
                    (at, check(part.error_code, part.error_message.clone()).map(|()| producers(&part)))
                }));
            }
            results
        };
        let exchange = Exchange { what: "describing producers", up_to: i16::MAX, build, read };
        let leader = |partition: &TopicPartition| Destination::Leader(partition.clone());
        self.ask(partitions.iter().cloned(), leader, exchange).await
    }

    /// Fences the producers that use these transactional ids now: their open transactions are aborted, and they fail.
    /// Gives the producer id and epoch that took their place.
    ///
    /// # Errors
    /// No coordinator in time.
    pub async fn fence_producers<T: AsRef<str>>(
        &self,
        transactional_ids: &[T],
    ) -> Result<PerItem<Arc<str>, (i64, i16)>, AdminError> {
        let mut results = PerItem::new();
        // The request carries one id: each goes on its own, after the other.
        for id in keys(transactional_ids) {
            let build = |ids: &[Arc<str>], _| InitProducerIdRequest {
                transactional_id: ids.first().map(|id| (&**id).into()),
                transaction_timeout_ms: self.timeout_ms(),
                ..Default::default()
            };
            let read = |answer: InitProducerIdResponse, asked: &[Arc<str>]| {
                let fenced =
                    check(answer.error_code, None).map(|()| (answer.producer_id, answer.producer_epoch));
                asked.iter().map(|id| (Arc::clone(id), fenced.clone())).collect()
            };
            let exchange = Exchange { what: "fencing producers", up_to: FENCE_VERSION_CAP, build, read };
            match self.ask([Arc::clone(&id)], coordinator, exchange).await {
                Ok(result) => results.extend(result),
                Err(error) => drop(results.insert(id, Err(error))),
            }
        }
        Ok(results)
    }

    /// Aborts a transaction in one partition whose coordinator has forgotten it: the remedy for a transaction that
    /// hangs. [`Admin::describe_producers`] tells the fields of [`HangingTransaction`].
    ///
    /// # Errors
    /// No leader in time, or the leader refuses: a wrong epoch is `INVALID_PRODUCER_EPOCH`.
    pub async fn abort_transaction(&self, transaction: &HangingTransaction) -> Result<(), AdminError> {
        let partition = &transaction.partition;
        let build = |_: &[TopicPartition], _| WriteTxnMarkersRequest {
            markers: vec![WritableTxnMarker {
                producer_id: transaction.producer_id,
                producer_epoch: transaction.producer_epoch,
                transaction_result: false,
                topics: vec![WritableTxnMarkerTopic {
                    name: (&*partition.topic).into(),
                    partition_indexes: vec![partition.partition],
                    ..Default::default()
                }],
                coordinator_epoch: transaction.coordinator_epoch,
                ..Default::default()
            }],
            ..Default::default()
        };
        let read = |answer: WriteTxnMarkersResponse, _: &[TopicPartition]| {
            let mut results = Vec::new();
            for topic in answer.markers.iter().flat_map(|marker| &marker.topics) {
                results.extend(topic.partitions.iter().map(|part| {
                    (TopicPartition::new(&*topic.name, part.partition_index), check(part.error_code, None))
                }));
            }
            results
        };
        let exchange = Exchange { what: "aborting a transaction", up_to: i16::MAX, build, read };
        self.ask_one(partition.clone(), Destination::Leader(partition.clone()), exchange).await
    }
}

/// Which transactions to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransactionFilter {
    /// States wanted, such as `Ongoing`; empty for all.
    pub states: Vec<String>,
    /// Producers wanted; empty for all.
    pub producer_ids: Vec<i64>,
    /// Only those open for longer.
    pub open_longer_than: Option<Duration>,
    /// A regular expression for the transactional id (RE2's syntax); brokers from Kafka 4.1 on know it.
    pub id_pattern: Option<String>,
}

impl TransactionFilter {
    /// All transactions.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only those in this state; several calls name several.
    #[must_use]
    pub fn state(mut self, state: impl Into<String>) -> Self {
        self.states.push(state.into());
        self
    }

    /// Only those of this producer; several calls name several.
    #[must_use]
    pub fn producer_id(mut self, producer_id: i64) -> Self {
        self.producer_ids.push(producer_id);
        self
    }

    /// Only those open for longer.
    #[must_use]
    pub fn open_longer_than(mut self, duration: Duration) -> Self {
        self.open_longer_than = Some(duration);
        self
    }

    /// Only those whose transactional id matches a regular expression.
    #[must_use]
    pub fn id_pattern(mut self, pattern: impl Into<String>) -> Self {
        self.id_pattern = Some(pattern.into());
        self
    }
}

/// A transactional id in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransactionListing {
    /// The id.
    pub transactional_id: Arc<str>,
    /// Its producer.
    pub producer_id: i64,
    /// Such as `Empty`, `Ongoing`, `CompleteCommit`.
    pub state: Arc<str>,
}

/// A transaction as its coordinator knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransactionDescription {
    /// Such as `Empty`, `Ongoing`, `CompleteCommit`.
    pub state: Arc<str>,
    /// Its producer.
    pub producer_id: i64,
    /// The producer's epoch.
    pub producer_epoch: i16,
    /// The longest that it may be open.
    pub timeout: Duration,
    /// When it began, in milliseconds since the Unix epoch; `None` when none is open.
    pub started_ms: Option<i64>,
    /// The partitions that take part.
    pub partitions: Vec<TopicPartition>,
}

/// A producer as a partition's leader knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProducerDescription {
    /// Its id.
    pub producer_id: i64,
    /// Its epoch.
    pub producer_epoch: i32,
    /// The sequence of its last record.
    pub last_sequence: Option<i32>,
    /// When it last wrote, in milliseconds since the Unix epoch.
    pub last_timestamp_ms: Option<i64>,
    /// The epoch of the coordinator that ended its last transaction.
    pub coordinator_epoch: Option<i32>,
    /// Where its open transaction starts.
    pub transaction_start: Option<i64>,
}

/// A transaction to abort in one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HangingTransaction {
    /// The partition.
    pub partition: TopicPartition,
    /// The producer that began it.
    pub producer_id: i64,
    /// The producer's epoch.
    pub producer_epoch: i16,
    /// The epoch of the coordinator: the one the partition knows, or 0.
    pub coordinator_epoch: i32,
}

fn coordinator(transactional_id: &Arc<str>) -> Destination {
    Destination::Coordinator(KeyType::Transaction, Arc::clone(transactional_id))
}

fn describe(state: &TransactionState) -> TransactionDescription {
    let mut partitions = Vec::new();
    for topic in &state.topics {
        let name = key(&topic.topic);
        let of_topic = topic.partitions.iter();
        partitions.extend(of_topic.map(|&partition| TopicPartition::new(Arc::clone(&name), partition)));
    }
    TransactionDescription {
        state: key(&state.transaction_state),
        producer_id: state.producer_id,
        producer_epoch: state.producer_epoch,
        timeout: Duration::from_millis(u64::try_from(state.transaction_timeout_ms).unwrap_or(0)),
        started_ms: Some(state.transaction_start_time_ms).filter(|&at| at >= 0),
        partitions,
    }
}

fn producers(part: &PartitionResponse) -> Vec<ProducerDescription> {
    let producers = part.active_producers.iter().map(|producer| ProducerDescription {
        producer_id: producer.producer_id,
        producer_epoch: producer.producer_epoch,
        last_sequence: Some(producer.last_sequence).filter(|&sequence| sequence >= 0),
        last_timestamp_ms: Some(producer.last_timestamp).filter(|&at| at >= 0),
        coordinator_epoch: Some(producer.coordinator_epoch).filter(|&epoch| epoch >= 0),
        transaction_start: Some(producer.current_txn_start_offset).filter(|&offset| offset >= 0),
    });
    producers.collect()
}
