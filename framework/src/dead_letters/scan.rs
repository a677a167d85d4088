//! Reading letters from where one is to begin up to where the log ended when the reading began.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use klamm_client::{Client, Consumer, ConsumerHandle, ConsumerRecord, IsolationLevel, TopicPartition, Uuid};
use tokio::time::{Instant, timeout};

use super::described::is_still;
use super::error::DeadLetterError;

/// How often the position is looked at while nothing comes: a log may end in markers of transactions, which are never
/// handed out.
const LOOK: Duration = Duration::from_millis(20);
/// When nothing came for this long, it is looked up whether there is still something to come.
const QUIET: Duration = Duration::from_secs(5);

/// Reads letters that are committed, partition by partition in order, the partitions as they come.
#[derive(Debug)]
pub(super) struct Scan {
    consumer: Consumer,
    topic: Arc<str>,
    topic_id: Uuid,
    /// What is not read to its end: the next offset, and the end.
    open: Ranges,
}

/// From one offset up to, not including, another.
pub(super) type Ranges = BTreeMap<TopicPartition, (i64, i64)>;

/// A piece of one partition.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) at: TopicPartition,
    /// The letters in it, in order.
    pub(super) records: Vec<ConsumerRecord>,
    /// Up to here there are no others.
    pub(super) up_to: i64,
}

impl Scan {
    /// Reads nothing yet. With a group, its offsets are committed by the scan's handle.
    pub(super) async fn new(
        client: &Client,
        (topic, topic_id): (Arc<str>, Uuid),
        group: Option<&Arc<str>>,
    ) -> Result<Self, DeadLetterError> {
        let mut builder = client
            .consumer()
            .assign(Vec::<TopicPartition>::new())
            .isolation(IsolationLevel::ReadCommitted)
            .auto_commit(None)
            .from_beginning();
        if let Some(group) = group {
            builder = builder.group(Arc::clone(group));
        }
        Ok(Self { consumer: builder.start().await?, topic, topic_id, open: BTreeMap::new() })
    }

    /// Where partitions begin, and where what is committed in them ends now.
    pub(super) async fn bounds(&self, partitions: &[TopicPartition]) -> Result<Ranges, DeadLetterError> {
        let handle = self.handle();
        let (begins, ends) =
            futures::future::try_join(handle.beginning_offsets(partitions), handle.end_offsets(partitions))
                .await?;
        let bounds = partitions.iter().map(|at| {
            let begin = begins.get(at).copied().unwrap_or(0);
            (at.clone(), (begin, ends.get(at).copied().unwrap_or(begin)))
        });
        Ok(bounds.collect())
    }

    /// Reads these ranges from now on.
    pub(super) fn read(&mut self, ranges: Ranges) -> Result<(), DeadLetterError> {
        self.open = ranges.into_iter().filter(|(_, (from, end))| from < end).collect();
        let handle = self.handle();
        handle.assign(self.open.keys().cloned())?;
        for (partition, (from, _)) in &self.open {
            handle.seek(partition, *from)?;
        }
        Ok(())
    }

    pub(super) fn handle(&self) -> ConsumerHandle {
        self.consumer.handle()
    }

    /// The next piece; none when everything is read. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Option<Piece>, DeadLetterError> {
        let mut looked = Instant::now();
        loop {
            if self.open.is_empty() {
                return Ok(None);
            }
            match timeout(LOOK, self.consumer.next_batch()).await {
                Ok(Some(batch)) => {
                    let batch = batch?;
                    let (at, next) = (batch.topic_partition(), batch.next_offset);
                    if let Some(piece) = self.take(&at, batch.records, next) {
                        return Ok(Some(piece));
                    }
                }
                Ok(None) => return Ok(None),
                Err(_) => {
                    if let Some(piece) = self.take_what_is_empty() {
                        return Ok(Some(piece));
                    }
                    if looked.elapsed() >= QUIET {
                        self.look_again().await?;
                        looked = Instant::now();
                    }
                }
            }
        }
    }

    /// Whether what is not read yet can still come: a topic that is gone, was made anew or lost what it had at its end
    /// would be waited for for ever.
    async fn look_again(&self) -> Result<(), DeadLetterError> {
        is_still(self.consumer.client(), &self.topic, self.topic_id).await?;
        let partitions: Vec<_> = self.open.keys().cloned().collect();
        let now = self.bounds(&partitions).await?;
        let lost =
            |(at, (_, end)): (&TopicPartition, &(i64, i64))| now.get(at).is_some_and(|now| now.1 < *end);
        match self.open.iter().any(lost) {
            true => Err(DeadLetterError::Changed { topic: Arc::clone(&self.topic) }),
            false => Ok(()),
        }
    }

    /// What of a batch was asked for, and not given before: a log that was cut off may begin again below.
    fn take(&mut self, at: &TopicPartition, mut records: Vec<ConsumerRecord>, next: i64) -> Option<Piece> {
        let (from, end) = self.open.get_mut(at)?;
        records.retain(|record| (*from..*end).contains(&record.offset));
        *from = next.clamp(*from, *end);
        let up_to = *from;
        if up_to == *end {
            self.open.remove(at);
            // It was assigned by hand, so that it can be given up.
            drop(self.handle().unassign([at.clone()]));
        }
        Some(Piece { at: at.clone(), records, up_to })
    }

    /// The rest of a partition in which the consumer passed everything without a record.
    fn take_what_is_empty(&mut self) -> Option<Piece> {
        let handle = self.handle();
        let passed = |(at, (_, end)): (&TopicPartition, &(i64, i64))| {
            (handle.position(at)? >= *end).then(|| (at.clone(), *end))
        };
        let (at, end) = self.open.iter().find_map(passed)?;
        self.take(&at, Vec::new(), end)
    }

    pub(super) async fn close(self) {
        // Nothing is left to lose: what was done is committed.
        drop(self.consumer.close().await);
    }
}
