//! `ShareConsumer`: hands out records, and sends what is said of them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::locks::{LockId, Verdict};
use super::record::ShareRecord;
use super::settings::{AcknowledgementMode, ShareConfig};
use super::shared::{Shared, told};
use super::sharing::Handed;
use super::task::ShareTask;
use crate::cluster::Client;
use crate::error::{RequestError, ShareError};
use crate::runtime::Tasks;
use crate::types::TopicPartition;

/// How long closing may take beyond a fetch that is held: the last request to each leader, and leaving.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(30);

/// What a deadline beyond what clocks can tell stands for.
const NEVER: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// What became of acknowledgements, by partition: how many the group took, or why not. A partition with both kinds is
/// an error, whose `records` are those that came to nothing.
pub type Acknowledged = BTreeMap<TopicPartition, Result<u64, ShareError>>;

/// A member of a share group (KIP-932): a queue. Its members have partitions in common, every record is locked for one
/// of them at a time, and it comes back until one accepts or rejects it or it was delivered too often.
///
/// Records are acquired when they are asked for, not ahead: their locks run from then on. Nothing is promised about
/// their order.
///
/// ```no_run
/// # async fn work(_record: &klamm_client::ConsumerRecord) -> Result<(), std::io::Error> { Ok(()) }
/// # async fn example(client: klamm_client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// let mut jobs = client.share_consumer("workers").topics(["jobs"]).explicit().start().await?;
/// while let Some(record) = jobs.next().await.transpose()? {
///     let said = match work(&record).await {
///         Ok(()) => record.accept(),
///         Err(_) if record.delivery_count() < 3 => record.release(), // somebody tries again
///         Err(_) => record.reject(),
///     };
///     if let Err(error) = said {
///         eprintln!("{error}"); // it took too long, and comes again
///     }
/// }
/// jobs.close().await?;
/// # Ok(())
/// # }
/// ```
///
/// Dropping it ends the background task at once; with the connections end its sessions, and brokers give to others what
/// was locked (those before Apache Kafka 4.1 when the locks run out). [`ShareConsumer::close`] is the polite way.
pub struct ShareConsumer {
    shared: Arc<Shared>,
    /// What was handed out and is accepted by asking for more.
    handed: Vec<(i32, LockId)>,
    tasks: Tasks,
    client: Client,
}

impl ShareConsumer {
    pub(super) fn start(client: Client, config: ShareConfig) -> Self {
        let shared = Arc::new(Shared::new(Arc::clone(client.core()), config));
        let tasks = Tasks::new();
        tasks.spawn("share consumer", ShareTask::new(Arc::clone(&shared)).run());
        Self { shared, handed: Vec::new(), tasks, client }
    }

    /// The next record. `None` after a fatal error. With implicit acknowledgement this accepts the one before.
    ///
    /// Cancel-safe: a record that was acquired for a future that is dropped is handed out by the next call, unless its
    /// lock runs out before; then it comes again, to any member.
    ///
    /// An error does not end the consumer unless [`ShareError::is_fatal`].
    pub async fn next(&mut self) -> Option<Result<ShareRecord, ShareError>> {
        match self.poll(1).await? {
            Ok(mut records) => records.pop().map(Ok),
            Err(error) => Some(Err(error)),
        }
    }

    /// The next records, at least one and as many as are there, up to `max_poll_records`. Otherwise as
    /// [`ShareConsumer::next`].
    pub async fn next_batch(&mut self) -> Option<Result<Vec<ShareRecord>, ShareError>> {
        self.poll(self.shared.config.max_poll_records).await
    }

    async fn poll(&mut self, most: usize) -> Option<Result<Vec<ShareRecord>, ShareError>> {
        self.accept_handed();
        let shared = Arc::clone(&self.shared);
        let mut progress = shared.progress();
        let _wants = Wants(&shared);
        loop {
            let taken = {
                let mut sharing = shared.sharing();
                if let Some(error) = sharing.take_error() {
                    return Some(Err(error));
                }
                if sharing.is_finished() {
                    return None;
                }
                let taken = sharing.take(most, Instant::now());
                sharing.want(taken.is_empty());
                taken
            };
            if !taken.is_empty() {
                return Some(Ok(self.hand_out(taken)));
            }
            shared.work();
            // The sender lives as long as the shared state.
            let _ = progress.changed().await;
        }
    }

    fn hand_out(&mut self, taken: Vec<Handed>) -> Vec<ShareRecord> {
        if self.shared.config.acknowledgement == AcknowledgementMode::Implicit {
            self.handed.extend(taken.iter().map(|handed| (handed.node, handed.id)));
        }
        taken.into_iter().map(|handed| ShareRecord::new(handed, Arc::clone(&self.shared))).collect()
    }

    /// The program came back for more, so what it got before is done, where it said nothing else.
    fn accept_handed(&mut self) {
        for (node, id) in self.handed.drain(..) {
            // An error: something was said of it, or its lock ran out and it comes again.
            if let Err(error) = self.shared.decide(node, id, Verdict::Accept) {
                tracing::debug!(%error, "not accepted by asking for more");
            }
        }
    }

    /// Sends everything that was said of records at once and waits for the answers. Gives what became of everything
    /// that was said since the last call, also of what was sent by itself meanwhile. With implicit acknowledgement this
    /// accepts what was handed out.
    ///
    /// A fetch that is under way is waited for, at most `fetch_max_wait`. When the future is dropped, everything is
    /// sent all the same, and the next call tells what became of it.
    ///
    /// # Errors
    /// Not everything was answered within `request_timeout` after that fetch; it is still under way.
    pub async fn commit(&mut self) -> Result<Acknowledged, ShareError> {
        let mut progress = self.shared.progress();
        let mark = self.flush();
        let settled = async {
            while !self.shared.sharing().is_settled(mark) {
                // The sender lives as long as the shared state.
                let _ = progress.changed().await;
            }
        };
        let timeout = self.shared.config.patience();
        if tokio::time::timeout(timeout, settled).await.is_err() {
            let last = Arc::from("no answer");
            return Err(RequestError::Deadline { what: "acknowledging", after: timeout, last }.into());
        }
        Ok(self.acknowledged())
    }

    /// Sends everything that was said of records at once, in the background. [`ShareConsumer::commit`] tells what
    /// became of it; what came to nothing is logged too.
    pub fn commit_async(&mut self) {
        self.flush();
    }

    fn flush(&mut self) -> u64 {
        self.accept_handed();
        let mark = self.shared.sharing().flush();
        self.shared.work();
        mark
    }

    fn acknowledged(&self) -> Acknowledged {
        let outcomes = self.shared.sharing().take_outcomes();
        let told = outcomes.into_iter().map(|(partition, tally)| {
            let result = told(&partition, tally);
            (partition, result)
        });
        told.collect()
    }

    /// Subscribes to these topics instead of what the consumer was subscribed to. What is locked stays locked.
    pub fn subscribe<T: Into<Arc<str>>>(&self, topics: impl IntoIterator<Item = T>) {
        self.shared.topics.send_replace(topics.into_iter().map(Into::into).collect());
    }

    /// The partitions that this member reads now, those of them whose names are known.
    pub fn assignment(&self) -> Vec<TopicPartition> {
        self.shared.sharing().assignment()
    }

    /// The client this consumer was made from.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Sends what was said of records, gives the others back to the group at once, and leaves it. With implicit
    /// acknowledgement this accepts what was handed out. Within 30 s and `fetch_max_wait`, or see
    /// [`ShareConsumer::close_within`].
    ///
    /// # Errors
    /// Something that was said came to nothing, or it was not done in time.
    pub async fn close(self) -> Result<(), ShareError> {
        // A fetch that is held goes before the last request.
        let within = CLOSE_TIMEOUT.saturating_add(self.shared.config.fetch_max_wait);
        self.close_within(within).await
    }

    /// As [`ShareConsumer::close`], with a deadline: what is not sent by then is left to the end of the connections.
    ///
    /// # Errors
    /// As there.
    pub async fn close_within(mut self, within: Duration) -> Result<(), ShareError> {
        let now = Instant::now();
        let deadline = now.checked_add(within).unwrap_or(now + NEVER);
        self.accept_handed();
        self.shared.sharing().close();
        self.shared.work();
        if tokio::time::timeout_at(deadline, self.tasks.join()).await.is_err() {
            // The task is gone only when it is polled next.
            self.shared.sharing().abandon();
            let last = Arc::from("a leader or the coordinator took too long");
            return Err(
                RequestError::Deadline { what: "closing a share consumer", after: within, last }.into()
            );
        }
        self.acknowledged().into_values().find_map(Result::err).map_or(Ok(()), Err)
    }
}

/// Somebody waits for records, as long as this lives: what nobody waits for is not acquired.
struct Wants<'a>(&'a Shared);

impl Drop for Wants<'_> {
    fn drop(&mut self) {
        self.0.sharing().want(false);
    }
}

impl fmt::Debug for ShareConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShareConsumer").field("config", &self.shared.config).finish_non_exhaustive()
    }
}
