//! Sending chosen letters and noting them as done: what is noted was acknowledged before, or is noted in the same
//! transaction.

use std::collections::BTreeMap;
use std::sync::Arc;

use klamm_client::{
    Compression, ConsumerHandle, OffsetAndMetadata, ProduceError, Producer, Record, TopicPartition,
    TransactionalProducer,
};

use super::error::DeadLetterError;
use super::progress::Progress;
use super::source::{Source, Standing};

/// As much as brokers take in one request (`socket.request.max.bytes`).
const LETTER_BYTES_MAX: usize = 100 * 1024 * 1024;

/// A letter that is to be sent.
#[derive(Debug)]
pub(super) struct Chosen {
    /// Where it lies.
    pub(super) at: TopicPartition,
    pub(super) offset: i64,
    /// What is sent.
    pub(super) record: Record,
}

/// What is done of each partition, and what of it is not noted yet.
#[derive(Debug, Clone)]
pub(super) struct Progresses {
    source: Source,
    partitions: BTreeMap<TopicPartition, Progress>,
    /// Where letters may follow that were not seen yet.
    next: BTreeMap<TopicPartition, i64>,
    /// What was last noted, or found.
    noted: BTreeMap<TopicPartition, OffsetAndMetadata>,
}

impl Progresses {
    pub(super) fn new(source: Source, Standing { progress, committed, .. }: Standing) -> Self {
        let next = progress.iter().map(|(at, progress)| (at.clone(), progress.open())).collect();
        Self { source, partitions: progress, next, noted: committed }
    }

    /// Looks up what others noted meanwhile: another replay that is at it at the same time, with other letters. What
    /// is noted next would forget it otherwise.
    pub(super) async fn learn(&mut self) -> Result<(), DeadLetterError> {
        for (at, found) in self.source.committed().await? {
            let is_news = self.noted.get(&at).is_none_or(|noted| !says_the_same(noted, &found));
            if let (true, Some(progress)) = (is_news, self.partitions.get_mut(&at)) {
                // Whoever wrote it knows where the log ends now.
                progress.learn(&found, i64::MAX);
            }
        }
        Ok(())
    }

    pub(super) fn is_done(&self, at: &TopicPartition, offset: i64) -> bool {
        self.partitions.get(at).is_some_and(|progress| progress.is_done(offset))
    }

    /// A letter was read; where offsets lie between it and the one before, there are no letters.
    pub(super) fn seen(&mut self, at: &TopicPartition, offset: i64) {
        self.passed(at, offset);
        self.next.insert(at.clone(), offset + 1);
    }

    /// Up to here there are no letters but those that were seen.
    pub(super) fn passed(&mut self, at: &TopicPartition, up_to: i64) {
        let (Some(progress), Some(next)) = (self.partitions.get_mut(at), self.next.get_mut(at)) else {
            return;
        };
        progress.mark(*next..up_to);
        *next = up_to.max(*next);
    }

    /// As it is when these letters are done.
    fn after(&self, chosen: &[Chosen]) -> Self {
        let mut after = self.clone();
        chosen.iter().for_each(|one| after.done(&one.at, one.offset));
        after
    }

    fn done(&mut self, at: &TopicPartition, offset: i64) {
        if let Some(progress) = self.partitions.get_mut(at) {
            progress.mark(offset..offset + 1);
        }
    }

    /// What changed since it was noted last.
    fn to_note(&self) -> Result<BTreeMap<TopicPartition, OffsetAndMetadata>, DeadLetterError> {
        let mut changed = BTreeMap::new();
        for (at, progress) in &self.partitions {
            let too_scattered = |_| DeadLetterError::TooScattered {
                partition: at.clone(),
                group: Arc::clone(&self.source.group),
            };
            let written = progress.written().map_err(too_scattered)?;
            if self.noted.get(at).is_none_or(|noted| !says_the_same(noted, &written)) {
                changed.insert(at.clone(), written);
            }
        }
        Ok(changed)
    }
}

fn says_the_same(one: &OffsetAndMetadata, other: &OffsetAndMetadata) -> bool {
    one.offset == other.offset && one.metadata == other.metadata
}

/// The way letters go.
#[derive(Debug)]
pub(super) enum Delivery {
    AtLeastOnce(Producer),
    ExactlyOnce(Box<TransactionalProducer>),
}

impl Delivery {
    /// In transactions, whoever was at it before is ended: what is done is known from then on.
    pub(super) async fn start(source: &Source, exactly_once: bool) -> Result<Self, DeadLetterError> {
        // What is too large is for the topic to say: what came to be a letter may come from a producer that is allowed
        // more than others, and lie there compressed.
        let producer = source.client.producer().compression(Compression::Gzip);
        let producer = producer.max_request_bytes(LETTER_BYTES_MAX).buffer_bytes(2 * LETTER_BYTES_MAX);
        if !exactly_once {
            return Ok(Self::AtLeastOnce(producer.build()?));
        }
        let mut producer = producer.transactional_id(Arc::clone(&source.group)).build()?;
        producer.begin().await?.abort().await?;
        Ok(Self::ExactlyOnce(Box::new(producer)))
    }

    /// Notes what is done as it was found: a group that takes no commits is to be known before anything is sent. In
    /// transactions that goes without saying.
    pub(super) async fn prepare(
        &self,
        progress: &mut Progresses,
        group: &ConsumerHandle,
    ) -> Result<(), DeadLetterError> {
        match self {
            Self::AtLeastOnce(_) => {
                // All of it, also where nothing changed.
                progress.noted.clear();
                note(progress, group).await
            }
            Self::ExactlyOnce(_) => Ok(()),
        }
    }

    /// Sends these letters in order, and notes them as done. Gives how many were sent.
    pub(super) async fn deliver(
        &mut self,
        chosen: Vec<Chosen>,
        progress: &mut Progresses,
        group: &ConsumerHandle,
    ) -> Result<usize, DeadLetterError> {
        match self {
            Self::AtLeastOnce(producer) => at_least_once(producer, chosen, progress, group).await,
            Self::ExactlyOnce(producer) => exactly_once(producer, chosen, progress, group).await,
        }
    }

    pub(super) async fn close(self) {
        // All that was sent is acknowledged, or an error was given.
        match self {
            Self::AtLeastOnce(producer) => drop(producer.close().await),
            Self::ExactlyOnce(producer) => drop(producer.close().await),
        }
    }
}

/// What was acknowledged is noted, also when others were not.
async fn at_least_once(
    producer: &Producer,
    chosen: Vec<Chosen>,
    progress: &mut Progresses,
    group: &ConsumerHandle,
) -> Result<usize, DeadLetterError> {
    // Better not sent than sent and not noted.
    progress.after(&chosen).to_note()?;
    let mut failed = None;
    let mut deliveries = Vec::with_capacity(chosen.len());
    for Chosen { at, offset, record } in chosen {
        match producer.enqueue(record).await {
            Ok(delivery) => deliveries.push((at, offset, delivery)),
            Err(error) => {
                // Nothing may overtake it.
                failed = Some(refused(&at, offset, error.into()));
                break;
            }
        }
    }
    let mut sent = 0;
    for (at, offset, delivery) in deliveries {
        match delivery.await {
            Ok(_) => {
                progress.done(&at, offset);
                sent += 1;
            }
            Err(error) => failed = Some(failed.unwrap_or_else(|| refused(&at, offset, error))),
        }
    }
    let noted = note(progress, group).await;
    match failed {
        Some(failed) => Err(failed),
        None => noted.map(|()| sent),
    }
}

async fn note(progress: &mut Progresses, group: &ConsumerHandle) -> Result<(), DeadLetterError> {
    let changed = progress.to_note()?;
    if !changed.is_empty() {
        group.commit(changed.clone()).await?;
        progress.noted.extend(changed);
    }
    Ok(())
}

/// The letters and that they are done, or neither.
async fn exactly_once(
    producer: &mut TransactionalProducer,
    chosen: Vec<Chosen>,
    progress: &mut Progresses,
    group: &ConsumerHandle,
) -> Result<usize, DeadLetterError> {
    let sent = chosen.len();
    let mut after = progress.after(&chosen);
    let changed = after.to_note()?;
    if chosen.is_empty() && changed.is_empty() {
        return Ok(0);
    }
    let group = group.group_metadata().ok_or(klamm_client::ConsumeError::NoGroup)?;
    let transaction = producer.begin().await?;
    for Chosen { at, offset, record } in chosen {
        // What becomes of it, the commit says.
        let taken = transaction.enqueue(record).await;
        drop(taken.map_err(|error| refused(&at, offset, error.into()))?);
    }
    transaction.send_offsets(changed.clone(), &group).await?;
    transaction.commit().await?;
    after.noted.extend(changed);
    *progress = after;
    Ok(sent)
}

fn refused(at: &TopicPartition, offset: i64, source: ProduceError) -> DeadLetterError {
    DeadLetterError::Send { partition: at.clone(), offset, source }
}
