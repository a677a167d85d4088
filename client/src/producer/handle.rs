//! `Producer`: the handle that records are given to.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use super::accumulator::{Accumulator, Appended, Limits};
use super::builder::ProducerConfig;
use super::delivery::{Callback, Delivery, decided};
use super::partitioner::{Sticky, partition_for_key};
use super::record::{Record, RecordMetadata};
use super::sender::Sender;
use crate::client::Client;
use crate::cluster::Core;
use crate::cluster::TopicView;
use crate::error::{ProduceError, RequestError};
use crate::runtime::Tasks;
use crate::types::TopicPartition;

/// What a record takes in a batch beyond its key, value and headers, at most; and a header beyond its name and value.
const RECORD_OVERHEAD_BYTES: usize = 31;
const HEADER_OVERHEAD_BYTES: usize = 10;

/// Sends records. Cheap to clone; clones share one buffer and one background task, which ends when
/// the last clone is dropped.
///
/// A record that was taken meets one of two fates: it is acknowledged, or its [`Delivery`] fails and says whether it
/// may be in the log all the same. With idempotence, the default, it is in the log at most once and in the order of
/// `enqueue` calls per partition, whatever retries were needed.
///
/// ```no_run
/// # async fn example(client: klamm_client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use klamm_client::Record;
///
/// let producer = client.producer().build()?;
/// let at = producer.send(Record::to("orders").key("k1").value("v")).await?;
/// println!("partition {} offset {}", at.partition, at.offset);
///
/// let mut deliveries = Vec::new();
/// for number in 0..1_000 {
///     deliveries.push(producer.enqueue(Record::to("orders").value(format!("{number}"))).await?);
/// }
/// for delivery in deliveries {
///     delivery.await?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Producer {
    shared: Arc<Shared>,
    /// The sender task.
    tasks: Tasks,
    /// Keeps metadata fresh.
    _client: Client,
}

/// Shared by the handles and the sender task.
pub(super) struct Shared {
    pub(super) core: Arc<Core>,
    pub(super) config: ProducerConfig,
    gathering: Mutex<Gathering>,
    /// Wakes the sender.
    pub(super) wake: Notify,
    /// One permit a byte that may still be buffered.
    pub(super) room: Semaphore,
}

/// What is changed by every record.
pub(super) struct Gathering {
    pub(super) accumulator: Accumulator,
    sticky: HashMap<Arc<str>, Sticky>,
    closed: bool,
}

impl Shared {
    pub(super) fn gathering(&self) -> MutexGuard<'_, Gathering> {
        self.gathering.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// While the guard lives, nothing lingers.
    fn hurry(&self) -> Hurry<'_> {
        self.gathering().accumulator.hurried += 1;
        self.wake.notify_one();
        Hurry(self)
    }
}

struct Hurry<'a>(&'a Shared);

impl Drop for Hurry<'_> {
    fn drop(&mut self) {
        self.0.gathering().accumulator.hurried -= 1;
    }
}

impl Producer {
    pub(super) fn start(client: Client, config: ProducerConfig) -> Self {
        let limits = Limits {
            batch_bytes: config.batch_bytes,
            linger: config.linger,
            compression: config.compression,
        };
        let gathering =
            Gathering { accumulator: Accumulator::new(limits), sticky: HashMap::new(), closed: false };
        let shared = Arc::new(Shared {
            core: Arc::clone(client.core()),
            room: Semaphore::new(config.buffer_bytes.min(Semaphore::MAX_PERMITS)),
            config,
            gathering: Mutex::new(gathering),
            wake: Notify::new(),
        });
        let tasks = Tasks::new();
        tasks.spawn("producer", Sender::new(Arc::clone(&shared)).run());
        Self { shared, tasks, _client: client }
    }

    /// Sends a record and waits until it is acknowledged.
    ///
    /// For many records, [`Producer::enqueue`] them and await the deliveries later: that way they travel in batches.
    ///
    /// Cancel-safe in this sense: when the future is dropped, the record was either not taken
    /// yet or is sent all the same.
    ///
    /// # Errors
    /// See [`ProduceError`]; [`ProduceError::may_have_been_written`] says whether sending it again may duplicate it.
    pub async fn send(&self, record: Record) -> Result<RecordMetadata, ProduceError> {
        self.enqueue(record).await?.await
    }

    /// Puts a record into the buffer and returns the future of its fate. Waits only for metadata of a topic not seen
    /// before and for room in the buffer. Cancel-safe: a dropped call has taken nothing.
    ///
    /// # Errors
    /// The record cannot be taken: it is too large, the topic is unknown, the buffer stayed full for `max_block`.
    pub async fn enqueue(&self, record: Record) -> Result<Delivery, ProduceError> {
        self.append(record, None).await.map(Delivery::from)
    }

    /// As [`Producer::enqueue`], with a callback instead of a future. It runs on the producer's task: it
    /// must be quick and not block.
    ///
    /// # Errors
    /// The record cannot be taken; the callback is not called then.
    pub async fn send_with(
        &self,
        record: Record,
        callback: impl FnOnce(Result<RecordMetadata, ProduceError>) + Send + 'static,
    ) -> Result<(), ProduceError> {
        self.append(record, Some(Box::new(callback))).await.map(drop)
    }

    /// Sends what is buffered without lingering, and waits until every record enqueued before
    /// this call has met its fate.
    ///
    /// # Errors
    /// The first error among them.
    pub async fn flush(&self) -> Result<(), ProduceError> {
        let _hurry = self.shared.hurry();
        let fates = self.shared.gathering().accumulator.flush();
        self.shared.wake.notify_one();
        let mut result = Ok(());
        for fate in fates {
            result = result.and(decided(fate).await);
        }
        result
    }

    /// Refuses further records from now on, flushes, and ends the background task. Bounded by `delivery_timeout`.
    ///
    /// # Errors
    /// As [`Producer::flush`].
    pub async fn close(&self) -> Result<(), ProduceError> {
        self.shared.gathering().closed = true;
        self.shared.room.close();
        let result = self.flush().await;
        self.tasks.shutdown().await;
        result
    }

    /// The client this producer was made from.
    pub fn client(&self) -> &Client {
        &self._client
    }

    async fn append(&self, record: Record, callback: Option<Callback>) -> Result<Appended, ProduceError> {
        let shared = &*self.shared;
        let size = buffered_size(&record);
        if size > shared.config.max_request_bytes {
            return Err(ProduceError::RecordTooLarge { size, limit: shared.config.max_request_bytes });
        }
        let view = shared.core.metadata.view();
        let topic = match view.usable(&record.topic) {
            Some(topic) => topic,
            None => &self.learn(&record.topic).await?,
        };
        let count = topic.partition_count();
        if let Some(partition) = record.partition
            && !(0..count).contains(&partition)
        {
            return Err(ProduceError::UnknownPartition { topic: record.topic, partition, count });
        }
        self.reserve(&record.topic, size).await?;

        let timestamp_ms = record.timestamp_ms.unwrap_or_else(|| shared.core.config.clock.now_ms());
        let mut gathering = shared.gathering();
        let result = if gathering.closed {
            Err(ProduceError::Closed { possibly_written: false })
        } else {
            let partition = match (record.partition, &record.key) {
                (Some(partition), _) => partition,
                (None, Some(key)) => partition_for_key(key, count),
                (None, None) => gathering.sticky_partition(&record.topic, size, topic, &shared.core),
            };
            gathering
                .accumulator
                .append(&record, partition, timestamp_ms, size, callback, Instant::now())
                .map_err(|error| ProduceError::InvalidRecord { reason: Arc::from(error.to_string()) })
        };
        drop(gathering);
        match &result {
            Ok(appended) if appended.wake_sender => shared.wake.notify_one(),
            Ok(_) => {}
            Err(_) => shared.room.add_permits(size),
        }
        result
    }

    /// Waits for a topic's metadata.
    async fn learn(&self, topic: &Arc<str>) -> Result<TopicView, ProduceError> {
        let max_block = self.shared.config.max_block;
        let partition = || TopicPartition { topic: Arc::clone(topic), partition: -1 };
        match self.shared.core.topic(topic, Instant::now() + max_block).await {
            Ok(topic) => Ok(topic),
            Err(RequestError::Deadline { last, .. }) => Err(ProduceError::Blocked {
                topic: Arc::clone(topic),
                after: max_block,
                reason: Arc::from(format!("the topic's partitions are not known: {last}")),
            }),
            Err(RequestError::Broker { code, .. }) => Err(ProduceError::Broker {
                partition: partition(),
                code,
                message: None,
                possibly_written: false,
            }),
            Err(source) => {
                Err(ProduceError::Request { partition: partition(), source, possibly_written: false })
            }
        }
    }

    /// Takes `size` bytes of the buffer; whoever finishes the batch gives them back.
    async fn reserve(&self, topic: &Arc<str>, size: usize) -> Result<(), ProduceError> {
        let shared = &*self.shared;
        let permits = u32::try_from(size).unwrap_or(u32::MAX);
        if let Ok(permit) = shared.room.try_acquire_many(permits) {
            permit.forget();
            return Ok(());
        }
        let _hurry = shared.hurry();
        match tokio::time::timeout(shared.config.max_block, shared.room.acquire_many(permits)).await {
            Ok(Ok(permit)) => {
                permit.forget();
                Ok(())
            }
            Ok(Err(_)) => Err(ProduceError::Closed { possibly_written: false }),
            Err(_) => Err(ProduceError::Blocked {
                topic: Arc::clone(topic),
                after: shared.config.max_block,
                reason: Arc::from("the buffer stayed full (setting `buffer_bytes`)"),
            }),
        }
    }
}

impl Gathering {
    fn sticky_partition(&mut self, topic: &Arc<str>, size: usize, view: &TopicView, core: &Core) -> i32 {
        let has_leader = |partition: i32| {
            let known = usize::try_from(partition).ok().and_then(|at| view.partitions.get(at));
            known.is_some_and(|partition| partition.leader.is_some())
        };
        let sticky = match self.sticky.get_mut(topic) {
            Some(sticky) => sticky,
            None => self.sticky.entry(Arc::clone(topic)).or_default(),
        };
        sticky.choose(size, view.partition_count(), has_leader, &*core.config.rng)
    }
}

/// What a record counts for in the buffer: at least what it takes in a batch.
fn buffered_size(record: &Record) -> usize {
    let length = |bytes: &Option<bytes::Bytes>| bytes.as_ref().map_or(0, bytes::Bytes::len);
    let headers =
        record.headers.iter().map(|(name, value)| name.len() + length(value) + HEADER_OVERHEAD_BYTES);
    RECORD_OVERHEAD_BYTES + length(&record.key) + length(&record.value) + headers.sum::<usize>()
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("config", &self.shared.config).finish_non_exhaustive()
    }
}
