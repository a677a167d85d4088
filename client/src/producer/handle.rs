//! `Producer`: the handle that records are given to.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use klamm_protocol::records::BATCH_HEADER_LEN;
use tokio::sync::TryAcquireError;
use tokio::time::{Instant, timeout};

use super::accumulator::{Aim, Appended};
use super::coordination::Coordination;
use super::delivery::{Callback, Delivery, Watch};
use super::enqueue_error::EnqueueError;
use super::interceptor::{on_acknowledgement, on_send};
use super::newcomers::Newcomer;
use super::partitioner::{Partitions, partition_for_key};
use super::record::{Record, RecordMetadata};
use super::sender::Sender;
use super::settings::ProducerConfig;
use super::shared::{Gathering, Shared};
use crate::cluster::{Client, ClusterView, TopicView};
use crate::error::{ProduceError, RequestError};
use crate::runtime::Tasks;
use crate::types::TopicPartition;

/// What a record takes in a batch beyond its key, value and headers, at most; and a header beyond its name and value.
const RECORD_OVERHEAD_BYTES: usize = 31;
const HEADER_OVERHEAD_BYTES: usize = 10;

/// How many records are put into the buffer before others may do so, and the sender look into it.
const RECORDS_UNDER_LOCK: usize = 32;

/// How long a record for a topic that is known by now waits for those that came before it.
const NEWCOMER_WAIT: Duration = Duration::from_secs(1);

/// How far taking records has come.
enum Run {
    /// It goes on.
    GoesOn,
    /// This one has to wait for something.
    Waits(Record),
}

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
    pub(super) shared: Arc<Shared>,
    /// The sender task.
    tasks: Tasks,
    /// Keeps metadata fresh.
    _client: Client,
}

impl Producer {
    pub(super) fn start(client: Client, config: ProducerConfig) -> Self {
        let shared = Arc::new(Shared::new(Arc::clone(client.core()), config));
        let tasks = Tasks::new();
        tasks.spawn("producer", Sender::new(Arc::clone(&shared)).run());
        Self { shared, tasks, _client: client }
    }

    /// Sends a record and waits until it is acknowledged.
    ///
    /// For many records, [`Producer::enqueue`] them and await the deliveries later: that way they travel in batches.
    ///
    /// When the future is dropped, the record was either not taken yet or is sent all the same.
    ///
    /// # Errors
    /// See [`ProduceError`]; [`ProduceError::may_have_been_written`] says whether sending it again may duplicate it.
    pub async fn send(&self, record: Record) -> Result<RecordMetadata, ProduceError> {
        self.enqueue(record).await?.await
    }

    /// Puts a record into the buffer and returns the future of what becomes of it. Waits only for metadata of a topic
    /// not seen before and for room in the buffer, at most for `max_block`. When this future is dropped, the record was
    /// not taken, and is gone with it: clone it before if it is needed.
    ///
    /// # Errors
    /// The record cannot be taken: it is too large, the topic is unknown, the buffer stayed full for `max_block`. The
    /// error hands the record back.
    pub async fn enqueue(&self, record: Record) -> Result<Delivery, EnqueueError> {
        match self.append(&record, None, None).await {
            Ok(appended) => Ok(Delivery::from(appended)),
            Err(error) => Err(self.refused(error, record)),
        }
    }

    /// As [`Producer::enqueue`], but never waits: for callers that cannot, or that would rather drop a record.
    ///
    /// # Errors
    /// As of [`Producer::enqueue`]; [`ProduceError::WouldBlock`] when that would have waited. The error hands the
    /// record back.
    pub fn try_enqueue(&self, record: Record) -> Result<Delivery, EnqueueError> {
        let appended = self.admit(&record).and_then(|(admitted, size)| {
            let mut callback = on_acknowledgement(&self.shared.config.interceptors, None);
            self.append_now(&admitted, size, &mut callback)
        });
        match appended {
            Ok(appended) => Ok(Delivery::from(appended)),
            Err(error) => Err(self.refused(error, record)),
        }
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
        let taken = self.append(&record, Some(Callback::once(callback)), None).await;
        taken.map(drop).inspect_err(|error| self.shared.metrics.failed(error.kind(), 1))
    }

    /// Puts records into the buffer, one after the other, and has `watch` told what becomes of them: as
    /// [`send_with`](Self::send_with) for those who send very many, with less work for each.
    ///
    /// ```no_run
    /// # async fn example(producer: klamm_client::Producer) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicBool, Ordering};
    ///
    /// use klamm_client::{ProduceError, Record, TopicPartition, Watch};
    ///
    /// #[derive(Default)]
    /// struct Trouble(AtomicBool);
    ///
    /// impl Watch for Trouble {
    ///     fn told(&self, fate: Result<(&TopicPartition, i64), &ProduceError>) {
    ///         self.0.fetch_or(fate.is_err(), Ordering::Relaxed);
    ///     }
    /// }
    ///
    /// let trouble = Arc::new(Trouble::default());
    /// let watch: Arc<dyn Watch> = Arc::clone(&trouble) as _;
    /// producer.enqueue_all((0..1_000).map(|number| Record::to("orders").value(format!("{number}"))), &watch).await?;
    /// drop(producer.flush().await);
    /// assert!(!trouble.0.load(Ordering::Relaxed));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// A record cannot be taken, for which see [`Producer::enqueue`]; those before it were, those after it were not,
    /// and of none of these `watch` is told.
    pub async fn enqueue_all(
        &self,
        records: impl IntoIterator<Item = Record, IntoIter: Send>,
        watch: &Arc<dyn Watch>,
    ) -> Result<(), ProduceError> {
        let taken = self.append_all(records.into_iter(), watch, None).await;
        taken.inspect_err(|error| self.shared.metrics.failed(error.kind(), 1))
    }

    /// Sends what is buffered without lingering, and waits until every record enqueued before
    /// this call has met its fate. When the future is dropped, the records are sent all the same, but may linger again.
    ///
    /// # Errors
    /// The first error among them.
    pub async fn flush(&self) -> Result<(), ProduceError> {
        self.shared.flush().await
    }

    /// Refuses further records from now on, flushes, and ends the background task. Bounded by `delivery_timeout`.
    /// When the future is dropped, records are refused from then on and the others are sent all the same.
    ///
    /// # Errors
    /// As of [`Producer::flush`].
    pub async fn close(&self) -> Result<(), ProduceError> {
        self.refuse_records();
        let result = self.flush().await;
        self.tasks.shutdown().await;
        result
    }

    /// As [`Producer::close`], but gives up after `limit`: what is not acknowledged then fails with
    /// [`ProduceError::Closed`], which says whether it may have been written.
    ///
    /// # Errors
    /// As of [`Producer::flush`].
    pub async fn close_within(&self, limit: Duration) -> Result<(), ProduceError> {
        self.refuse_records();
        let in_time = tokio::time::timeout(limit, self.flush()).await;
        self.tasks.shutdown().await;
        match in_time {
            Ok(result) => result,
            // Everything has met its fate by now.
            Err(_) => self.flush().await,
        }
    }

    /// The client this producer was made from.
    pub fn client(&self) -> &Client {
        &self._client
    }

    /// A record that was not taken goes back.
    pub(super) fn refused(&self, error: ProduceError, record: Record) -> EnqueueError {
        self.shared.metrics.failed(error.kind(), 1);
        EnqueueError::new(error, record)
    }

    fn refuse_records(&self) {
        self.shared.gathering().closed = true;
        self.shared.room.close();
    }

    /// Takes a record, as part of a transaction if one is given.
    pub(super) async fn append(
        &self,
        record: &Record,
        callback: Option<Callback>,
        enlist: Option<&Coordination>,
    ) -> Result<Appended, ProduceError> {
        let (record, size) = self.admit(record)?;
        let record = &*record;
        let mut callback = on_acknowledgement(&self.shared.config.interceptors, callback);
        // The application's own partitioner is asked once a record.
        if enlist.is_none() && self.shared.config.partitioner.is_none() {
            match self.append_now(record, size, &mut callback) {
                Err(ProduceError::WouldBlock { .. } | ProduceError::UnknownPartition { .. }) => {}
                result => return result,
            }
        }
        let view = self.shared.core.metadata.view();
        let known = self.shared.gathering().open(&view, &record.topic);
        let topic = match known {
            Some(topic) => topic,
            None => &self.learn(&record.topic).await?,
        };
        let topic = match record.partition {
            Some(partition) if partition >= topic.partition_count() => {
                // It may have been added since.
                let newer = self.shared.core.refresh_metadata(view.version);
                let newer = tokio::time::timeout(self.shared.config.max_block, newer).await;
                let newer = newer.ok().and_then(Result::ok);
                &newer.as_ref().and_then(|view| view.usable(&record.topic)).unwrap_or(topic).clone()
            }
            _ => topic,
        };
        let mut partition = self.partition(record, topic)?;
        if let Some(coordination) = enlist {
            partition = self.enlist(coordination, record, topic, partition, size).await?;
        }
        self.reserve(&record.topic, size).await?;
        let mut gathering = self.shared.gathering();
        let appended =
            self.put(&mut gathering, record, aim(partition, topic, &self.shared), size, &mut callback);
        drop(gathering);
        self.put_done(appended, size)
    }

    /// Takes records, as part of a transaction if one is given.
    pub(super) async fn append_all(
        &self,
        mut records: impl Iterator<Item = Record> + Send,
        watch: &Arc<dyn Watch>,
        enlist: Option<&Coordination>,
    ) -> Result<(), ProduceError> {
        // The application's code runs without our lock: it may send.
        let mut next = VecDeque::with_capacity(RECORDS_UNDER_LOCK);
        loop {
            next.extend(records.by_ref().take(RECORDS_UNDER_LOCK - next.len()));
            if next.is_empty() {
                return Ok(());
            }
            match self.append_some(&mut next, watch)? {
                Run::GoesOn => {}
                Run::Waits(record) => {
                    let callback = Some(Callback::Watch(Arc::clone(watch)));
                    drop(self.append(&record, callback, enlist).await?);
                }
            }
        }
    }

    /// Takes some records, under one lock.
    fn append_some(
        &self,
        records: &mut VecDeque<Record>,
        watch: &Arc<dyn Watch>,
    ) -> Result<Run, ProduceError> {
        let mut gathering = self.shared.gathering();
        let view = gathering.view();
        let (mut wake_sender, mut closing) = (false, None);
        let mut run = Ok(Run::GoesOn);
        while let Some(record) = records.pop_front() {
            match self.append_next(&mut gathering, &view, &record, watch) {
                Ok(Some(appended)) => {
                    wake_sender |= appended.wake_sender;
                    closing = appended.closing;
                }
                Ok(None) => run = Ok(Run::Waits(record)),
                Err(error) => run = Err(error),
            }
            if closing.is_some() || !matches!(run, Ok(Run::GoesOn)) {
                break;
            }
        }
        gathering.keep(view);
        drop(gathering);
        if wake_sender {
            self.shared.wake.notify_one();
        }
        if let Some(closing) = closing {
            self.shared.close_batch(closing);
        }
        run
    }

    /// Takes a record for which nothing has to be waited for and nobody asked; `None` of others.
    fn append_next(
        &self,
        gathering: &mut Gathering,
        view: &ClusterView,
        record: &Record,
        watch: &Arc<dyn Watch>,
    ) -> Result<Option<Appended>, ProduceError> {
        let shared = &*self.shared;
        if !shared.config.interceptors.is_empty() || shared.config.partitioner.is_some() {
            return Ok(None);
        }
        let (_, size) = self.admit(record)?;
        let Some(topic) = gathering.open(view, &record.topic) else { return Ok(None) };
        let partition = match self.partition(record, topic) {
            // It may have been added since.
            Err(ProduceError::UnknownPartition { .. }) => return Ok(None),
            partition => partition?,
        };
        if let Some(transaction) = gathering.transaction.as_ref().filter(|transaction| transaction.enlists) {
            let Some(partition) = partition else { return Ok(None) };
            if transaction.must_announce(&TopicPartition { topic: Arc::clone(&record.topic), partition }) {
                return Ok(None);
            }
        }
        match shared.room.try_acquire_many(permits(size)) {
            Ok(permit) => permit.forget(),
            Err(TryAcquireError::Closed) => return Err(ProduceError::Closed { possibly_written: false }),
            Err(TryAcquireError::NoPermits) => return Ok(None),
        }
        let mut callback = Some(Callback::Watch(Arc::clone(watch)));
        let appended = self.put(gathering, record, aim(partition, topic, shared), size, &mut callback);
        appended.map(Some).inspect_err(|_| shared.room.add_permits(size))
    }

    /// Sees to it that the coordinator knows of a record's partition, where it has to, which is then chosen.
    async fn enlist(
        &self,
        coordination: &Coordination,
        record: &Record,
        topic: &TopicView,
        partition: Option<i32>,
        size: usize,
    ) -> Result<Option<i32>, ProduceError> {
        let (number, enlisted) = {
            let mut gathering = self.shared.gathering();
            if gathering.transaction.as_ref().is_none_or(|transaction| !transaction.enlists) {
                return Ok(partition);
            }
            let rng = &*self.shared.core.config.rng;
            let any = || gathering.accumulator.choose(&record.topic, Partitions::new(topic), size, rng);
            let number = partition.unwrap_or_else(any);
            let partition = TopicPartition { topic: Arc::clone(&record.topic), partition: number };
            let must = gathering.transaction.as_ref().is_some_and(|all| all.must_announce(&partition));
            (number, must.then_some(partition))
        };
        if let Some(partition) = enlisted {
            coordination.enlist(partition).await?;
        }
        Ok(Some(number))
    }

    /// As `append`, where nothing has to be waited for: that is the way of most records, and everything else about
    /// them is looked at under one lock. What could be otherwise after waiting leaves the callback
    /// where it is.
    fn append_now(
        &self,
        record: &Record,
        size: usize,
        callback: &mut Option<Callback>,
    ) -> Result<Appended, ProduceError> {
        let shared = &*self.shared;
        let would_block = |reason: &str| ProduceError::WouldBlock { reason: Arc::from(reason) };
        let unknown = || would_block("the topic is not known yet");
        // The application's code runs without our lock: it may send.
        let chosen = match &shared.config.partitioner {
            Some(_) => self
                .partition(record, shared.core.metadata.view().usable(&record.topic).ok_or_else(unknown)?)?,
            None => None,
        };
        match shared.room.try_acquire_many(permits(size)) {
            Ok(permit) => permit.forget(),
            Err(TryAcquireError::Closed) => return Err(ProduceError::Closed { possibly_written: false }),
            Err(TryAcquireError::NoPermits) => {
                return Err(would_block("the buffer is full (setting `buffer_bytes`)"));
            }
        }
        let mut gathering = shared.gathering();
        let view = gathering.view();
        let known = gathering.open(&view, &record.topic);
        let appended = known.ok_or_else(unknown).and_then(|topic| {
            let partition = match chosen {
                Some(chosen) => Some(chosen),
                None => self.partition(record, topic)?,
            };
            self.put(&mut gathering, record, aim(partition, topic, shared), size, callback)
        });
        gathering.keep(view);
        drop(gathering);
        self.put_done(appended, size)
    }

    /// What is checked of every record before anything is waited for. Gives it as the interceptors leave it, and its
    /// size. The one that was given stays as it is: it goes back to the caller if it cannot be taken.
    fn admit<'a>(&self, record: &'a Record) -> Result<(Cow<'a, Record>, usize), ProduceError> {
        let shared = &*self.shared;
        // It is closed together with the producer.
        if shared.room.is_closed() {
            return Err(ProduceError::Closed { possibly_written: false });
        }
        let mut record = Cow::Borrowed(record);
        if !shared.config.interceptors.is_empty() {
            on_send(&shared.config.interceptors, record.to_mut())?;
        }
        let size = buffered_size(&record);
        let (alone, limit) = (size.saturating_add(BATCH_HEADER_LEN), shared.config.max_request_bytes);
        if alone > limit {
            return Err(ProduceError::RecordTooLarge { size: alone, limit });
        }
        Ok((record, size))
    }

    /// The partition that the record, its key or the application's partitioner names; `None` leaves it to the load.
    fn partition(&self, record: &Record, topic: &TopicView) -> Result<Option<i32>, ProduceError> {
        let count = topic.partition_count();
        let partition = match (record.partition, &self.shared.config.partitioner, &record.key) {
            (Some(partition), ..) => partition,
            (None, Some(partitioner), _) => {
                let choose = || partitioner.partition(record, Partitions::new(topic));
                catch_unwind(AssertUnwindSafe(choose)).map_err(|_| ProduceError::InvalidRecord {
                    reason: Arc::from("the partitioner panicked (setting `partitioner`)"),
                })?
            }
            (None, None, Some(key)) => partition_for_key(key, count),
            (None, None, None) => return Ok(None),
        };
        if (0..count).contains(&partition) {
            return Ok(Some(partition));
        }
        Err(ProduceError::UnknownPartition { topic: Arc::clone(&record.topic), partition, count })
    }

    /// Puts a record, for which there is room, into its batch. [`Producer::put_done`] follows, without the lock.
    fn put(
        &self,
        gathering: &mut Gathering,
        record: &Record,
        aim: Aim<'_>,
        size: usize,
        callback: &mut Option<Callback>,
    ) -> Result<Appended, ProduceError> {
        if gathering.closed {
            return Err(ProduceError::Closed { possibly_written: false });
        }
        if let Some(transaction) = &mut gathering.transaction {
            if let Some(broken) = &transaction.broken {
                return Err(broken.clone());
            }
            transaction.started = true;
        }
        let timestamp_ms = record.timestamp_ms.unwrap_or_else(|| self.shared.core.config.clock.now_ms());
        let appended =
            gathering.accumulator.append(record, aim, timestamp_ms, size, callback.take(), Instant::now);
        appended.map_err(|error| ProduceError::InvalidRecord { reason: Arc::from(error.to_string()) })
    }

    fn put_done(
        &self,
        result: Result<Appended, ProduceError>,
        size: usize,
    ) -> Result<Appended, ProduceError> {
        match result {
            Ok(mut appended) => {
                if appended.wake_sender {
                    self.shared.wake.notify_one();
                }
                if let Some(closing) = appended.closing.take() {
                    self.shared.close_batch(closing);
                }
                Ok(appended)
            }
            Err(error) => {
                self.shared.room.add_permits(size);
                Err(error)
            }
        }
    }

    /// Waits for a topic's metadata, and for those who wait for it already.
    async fn learn(&self, topic: &Arc<str>) -> Result<TopicView, ProduceError> {
        let newcomer = Newcomer::new(&self.shared, topic);
        let mut turn = pin!(newcomer.turn());
        let has_turn = turn.as_mut().now_or_never();
        let topic = self.ask_for(topic).await?;
        if has_turn.is_none() {
            // Nobody can be waited for for ever who may not be polled any more.
            drop(timeout(NEWCOMER_WAIT, turn).await);
        }
        Ok(topic)
    }

    async fn ask_for(&self, topic: &Arc<str>) -> Result<TopicView, ProduceError> {
        let max_block = self.shared.config.max_block;
        let partition = || TopicPartition { topic: Arc::clone(topic), partition: -1 };
        self.shared.followed.add(std::slice::from_ref(topic));
        let told = tokio::select! {
            biased;
            // As soon as anybody is told.
            topic = self.known(topic) => Ok(topic),
            told = self.shared.core.topic(topic, Instant::now() + max_block) => told,
        };
        match told {
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

    /// Waits until somebody learns of the topic.
    async fn known(&self, topic: &Arc<str>) -> TopicView {
        let mut views = self.shared.core.metadata.watch();
        let view = views.wait_for(|view| view.usable(topic).is_some()).await;
        let known = view.ok().and_then(|view| view.usable(topic).cloned());
        match known {
            Some(known) => known,
            // The client is gone.
            None => std::future::pending().await,
        }
    }

    /// Takes `size` bytes of the buffer; whoever finishes the batch gives them back.
    async fn reserve(&self, topic: &Arc<str>, size: usize) -> Result<(), ProduceError> {
        let shared = &*self.shared;
        let permits = permits(size);
        if let Ok(permit) = shared.room.try_acquire_many(permits) {
            permit.forget();
            return Ok(());
        }
        let _hurry = shared.hurry();
        let since = Instant::now();
        let room = tokio::time::timeout(shared.config.max_block, shared.room.acquire_many(permits)).await;
        shared.metrics.waited_for_room(since.elapsed());
        match room {
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

/// Where a record goes for which no partition is chosen: by the load.
fn aim<'a>(partition: Option<i32>, topic: &'a TopicView, shared: &'a Shared) -> Aim<'a> {
    match partition {
        Some(partition) => Aim::Partition(partition),
        None => Aim::Any { partitions: Partitions::new(topic), rng: &*shared.core.config.rng },
    }
}

fn permits(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
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
