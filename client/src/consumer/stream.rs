//! `Consumer`: the stream of records.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use tokio::time::Instant;

use super::chunk::Chunk;
use super::committer::{commit_by_clock, run_commits};
use super::fetcher::Fetcher;
use super::handle::ConsumerHandle;
use super::membership::member_task;
use super::partitions::{Cell, Handed};
use super::positions::{ERROR_PAUSE, Start};
use super::record::{BatchRoom, ConsumerRecord, ConsumerRecords};
use super::settings::{ConsumerConfig, Subscription};
use super::shared::Shared;
use crate::cluster::Client;
use crate::error::{ClientError, ConsumeError};
use crate::group::Close;
use crate::runtime::Tasks;
use crate::types::{OffsetAndMetadata, TopicPartition};

/// How long leaving may take: it is a courtesy.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// What a deadline beyond what clocks can tell stands for.
const NEVER: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// Hands out records. Fetching, heartbeats and rebalances go on in the background whether or not records are asked for.
///
/// ```no_run
/// # async fn example(client: klamm_client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// let mut consumer = client.consumer().group("billing").topics(["orders"]).start().await?;
/// while let Some(record) = consumer.next().await.transpose()? {
///     println!("{}: {:?}", record.offset, record.value);
///     consumer.commit(&record).await?;
/// }
/// # Ok(())
/// # }
/// ```
///
/// Dropping it ends the background tasks at once and without a word to the group, which notices after the session
/// timeout; [`Consumer::close`] is the polite way.
pub struct Consumer {
    shared: Arc<Shared>,
    /// What is being handed out.
    current: Option<(Chunk, Arc<Cell>)>,
    /// When `current` was taken up, until the program asks beyond it.
    taken_up: Option<Instant>,
    /// What was handed out last from, for `auto_commit`.
    last: Option<Arc<Cell>>,
    fetching: Tasks,
    /// The stream has said that it does not go with `auto_commit`.
    refused_stream: bool,
    /// Group membership, which ends by itself on close.
    membership: Tasks,
    /// Runs to the very end: the last commits are made while partitions are given up.
    _committing: Tasks,
    _client: Client,
}

impl Consumer {
    pub(super) async fn start(client: Client, config: ConsumerConfig) -> Result<Self, ClientError> {
        let shared = Arc::new(Shared::new(Arc::clone(client.core()), config));
        let (fetching, membership, committing) = (Tasks::new(), Tasks::new(), Tasks::new());
        match &shared.config.subscription {
            Subscription::Partitions(assigned) => {
                let mut partitions = shared.partitions();
                for partition in assigned {
                    partitions.add(partition.clone(), Start::Committed, false);
                }
            }
            _ => {
                let task = shared.wanted.as_ref().and_then(|wanted| member_task(&shared, wanted.subscribe()));
                task.into_iter().for_each(|task| membership.spawn("group membership", task.run()));
            }
        }
        fetching.spawn("fetcher", Fetcher::new(Arc::clone(&shared)).run());
        if shared.offsets.is_some() {
            committing.spawn("committer", run_commits(Arc::clone(&shared)));
            fetching.spawn("automatic commits", commit_by_clock(Arc::clone(&shared)));
        }
        Ok(Self {
            shared,
            current: None,
            taken_up: None,
            last: None,
            refused_stream: false,
            fetching,
            membership,
            _committing: committing,
            _client: client,
        })
    }

    /// The next record. `None` after a fatal error and after close. Cancel-safe: no record is lost
    /// when the future is dropped.
    ///
    /// An error does not end the stream unless [`ConsumeError::is_fatal`].
    pub async fn next(&mut self) -> Option<Result<ConsumerRecord, ConsumeError>> {
        poll_fn(|cx| self.poll_record(cx)).await
    }

    /// The next records of one partition: the fast path. Cancel-safe.
    pub async fn next_batch(&mut self) -> Option<Result<ConsumerRecords, ConsumeError>> {
        poll_fn(|cx| self.poll_records(cx, |_| BatchRoom::UNLIMITED, false)).await
    }

    /// As [`Consumer::next_batch`], with no more records than `room` says for their partition (at least one): for who
    /// passes them on to slower hands. What there is no room for waits in the consumer's own buffer, within
    /// `prefetch_bytes`, and comes next unless the partition is paused. A batch without records says that the position
    /// moved over what is no record: transaction markers, or what compaction left. Cancel-safe.
    pub async fn next_batch_within(
        &mut self,
        room: impl Fn(&TopicPartition) -> BatchRoom,
    ) -> Option<Result<ConsumerRecords, ConsumeError>> {
        poll_fn(|cx| self.poll_records(cx, &room, true)).await
    }

    /// Commits the offset after this record and waits for the answer.
    ///
    /// # Errors
    /// As [`ConsumerHandle::commit`].
    pub async fn commit(&self, record: &ConsumerRecord) -> Result<(), ConsumeError> {
        let next = OffsetAndMetadata::new(record.offset + 1).with_leader_epoch(record.leader_epoch);
        self.shared.commit([(record.topic_partition(), next)].into()).await
    }

    /// A handle to control this consumer from elsewhere.
    pub fn handle(&self) -> ConsumerHandle {
        ConsumerHandle::new(Arc::clone(&self.shared))
    }

    /// Stops fetching, commits what waits to be committed (with `auto_commit` everything handed out), calls the
    /// listener's `revoked`, leaves the group (static members stay), and ends the background tasks. Within
    /// `rebalance_timeout` and 5 s, or see [`Consumer::close_within`].
    ///
    /// # Errors
    /// The broker could not be told in time; the group then notices after the session timeout.
    pub async fn close(self) -> Result<(), ConsumeError> {
        // The listener's own time, and the courtesy of leaving.
        let within = self.shared.config.rebalance_timeout + LEAVE_TIMEOUT;
        self.end(within, false).await
    }

    /// As [`Consumer::close`], with a deadline: what is not done by then, the last commit and the listener included, is
    /// left undone.
    ///
    /// # Errors
    /// It was not done in time.
    pub async fn close_within(self, within: Duration) -> Result<(), ConsumeError> {
        self.end(within, false).await
    }

    /// As [`Consumer::close`], and leaves the group also as a static member: its partitions go to others at once.
    ///
    /// # Errors
    /// As [`Consumer::close`].
    pub async fn leave(self) -> Result<(), ConsumeError> {
        let within = self.shared.config.rebalance_timeout + LEAVE_TIMEOUT;
        self.end(within, true).await
    }

    /// As [`Consumer::leave`], with a deadline.
    ///
    /// # Errors
    /// It was not done in time.
    pub async fn leave_within(self, within: Duration) -> Result<(), ConsumeError> {
        self.end(within, true).await
    }

    async fn end(mut self, within: Duration, leave: bool) -> Result<(), ConsumeError> {
        let now = Instant::now();
        let deadline = now.checked_add(within).unwrap_or(now + NEVER);
        self.mark_processed();
        let end = async {
            self.fetching.shutdown().await;
            // Whoever waited for a record learns that there are no more.
            self.shared.closing.send_replace(Some(Close { deadline, leave }));
            if self.membership.running() == 0 {
                let assigned = self.shared.partitions().assignment();
                self.shared.commit_before_revoke(&assigned).await;
            }
            self.membership.join().await;
        };
        let in_time = tokio::time::timeout_at(deadline, end).await.is_ok();
        self.shared.partitions().finish();
        if in_time {
            return Ok(());
        }
        Err(ConsumeError::Request(crate::error::RequestError::Deadline {
            what: "closing a consumer",
            after: within,
            last: Arc::from("the rebalance listener or the coordinator took too long"),
        }))
    }

    /// The client this consumer was made from.
    pub fn client(&self) -> &Client {
        &self._client
    }

    fn poll_record(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<ConsumerRecord, ConsumeError>>> {
        let mut polled = self.poll_taken(cx, |_| (0, ()), |chunk, ()| (chunk.next(), chunk.position()));
        if let Poll::Ready(Some(Ok(record))) = &mut polled {
            self.shared.config.interceptors.consumed(record);
        }
        polled
    }

    fn poll_records(
        &mut self,
        cx: &mut Context<'_>,
        room: impl Fn(&TopicPartition) -> BatchRoom,
        even_empty: bool,
    ) -> Poll<Option<Result<ConsumerRecords, ConsumeError>>> {
        let look = |chunk: &Chunk| {
            let room = room(&chunk.partition);
            (chunk.wanted_bytes(room), room)
        };
        let take = |chunk: &mut Chunk, room| (chunk.take_together(room, even_empty), chunk.position());
        let mut polled = self.poll_taken(cx, look, take);
        let interceptors = &self.shared.config.interceptors;
        if let Poll::Ready(Some(Ok(batch))) = &mut polled
            && !interceptors.is_empty()
        {
            batch.records.iter_mut().for_each(|record| interceptors.consumed(record));
        }
        polled
    }

    /// Takes something out of the current chunk, or out of the next one that has something. `look` says how many bytes
    /// are to be ready, and what `take` is to know.
    fn poll_taken<T, L>(
        &mut self,
        cx: &mut Context<'_>,
        look: impl Fn(&Chunk) -> (usize, L),
        mut take: impl FnMut(&mut Chunk, L) -> (Option<Result<T, ConsumeError>>, i64),
    ) -> Poll<Option<Result<T, ConsumeError>>> {
        self.mark_processed();
        loop {
            while let Some((chunk, cell)) = &mut self.current {
                // Before anything is locked: to decompress takes its time, and whoever is asked has locks of its own.
                let (wanted_bytes, looked) = look(chunk);
                chunk.prepare(wanted_bytes);
                match cell.hand_out(|| take(chunk, looked)) {
                    Handed::Given(Ok(taken)) => {
                        if self.shared.config.auto_commit.is_some() {
                            self.last = Some(Arc::clone(cell));
                        }
                        return Poll::Ready(Some(Ok(taken)));
                    }
                    Handed::Given(Err(error)) => {
                        self.shared.metrics.failed(&error);
                        let not_before = Instant::now() + ERROR_PAUSE;
                        self.shared.partitions().rewind(&chunk.partition, cell, chunk.position(), not_before);
                        self.shared.fetch.notify_one();
                        self.current = None;
                        return Poll::Ready(Some(Err(error)));
                    }
                    Handed::Paused => {
                        if let Some((chunk, cell)) = self.current.take() {
                            self.shared.partitions().put_back(chunk, &cell);
                        }
                    }
                    Handed::Empty | Handed::Dead => self.current = None,
                }
            }
            if let Some(since) = self.taken_up.take() {
                self.shared.metrics.poll_gap(since.elapsed());
            }
            // Registered first: what comes between looking and waiting wakes.
            self.shared.reader.register(cx.waker());
            let mut partitions = self.shared.partitions();
            if let Some(error) = partitions.take_error() {
                drop(partitions);
                self.shared.metrics.failed(&error);
                return Poll::Ready(Some(Err(error)));
            }
            if partitions.is_finished() {
                return Poll::Ready(None);
            }
            self.current = partitions.take();
            drop(partitions);
            if self.current.is_none() {
                return Poll::Pending;
            }
            self.taken_up = Some(Instant::now());
            self.shared.fetch.notify_one();
        }
    }

    /// The program came back for more, so what it got before is processed.
    fn mark_processed(&mut self) {
        if let Some(last) = self.last.take() {
            last.processed();
        }
    }
}

/// The same records as [`Consumer::next`]. Not with `auto_commit`: adaptors such as `buffer_unordered` ask for records
/// ahead of those in work, so that asking for the next does not say that the last is processed. The stream then is one
/// error, [`ConsumeError::AutoCommit`].
impl Stream for Consumer {
    type Item = Result<ConsumerRecord, ConsumeError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let consumer = self.get_mut();
        if consumer.shared.config.auto_commit.is_none() {
            return consumer.poll_record(cx);
        }
        let told = std::mem::replace(&mut consumer.refused_stream, true);
        Poll::Ready((!told).then_some(Err(ConsumeError::AutoCommit)))
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("config", &self.shared.config).finish_non_exhaustive()
    }
}
