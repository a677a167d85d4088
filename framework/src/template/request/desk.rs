//! The place where replies come in: a reader of one partition of the reply topic, or of all of them.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use klamm_client::{Client, ClientError, Consumer, ConsumerHandle, ConsumerRecord, Producer, TopicPartition};
use klamm_runtime::{Rng, SeededRng, Tasks};
use tokio::sync::{OnceCell, mpsc};
use tokio::time::sleep;

use super::correlations::{Correlations, ReplyStats};
use super::error::ReplyError;
use super::reply_to::CORRELATION_ID;
use crate::serde::AppSerdes;

/// How often it is looked for new partitions while somebody waits.
const LOOK: Duration = Duration::from_secs(1);

/// Where replies are to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Place {
    /// To a partition that is chosen when the first request is made.
    #[default]
    AnyPartition,
    /// To this one.
    Partition(i32),
    /// Wherever who answers puts them: all partitions are read.
    EveryPartition,
}

/// Who waits gets replies by a channel, which has room for as many as are waited for.
type Table = Correlations<mpsc::Sender<ConsumerRecord>>;

/// The place where replies come in. It is opened by the first request.
pub(super) struct Desk {
    pub(super) client: Client,
    pub(super) producer: Producer,
    pub(super) reply_topic: Arc<str>,
    pub(super) place: Place,
    /// What writes the keys of requests.
    pub(super) serdes: AppSerdes,
    open: OnceCell<OpenDesk>,
}

/// A desk whose replies are read.
#[derive(Debug)]
pub(super) struct OpenDesk {
    /// Where replies are to go; none leaves it to who answers.
    pub(super) partition: Option<i32>,
    correlations: Arc<Mutex<Table>>,
    _reading: Tasks,
}

impl Desk {
    pub(super) fn new(
        client: &Client,
        producer: &Producer,
        serdes: &AppSerdes,
        reply_topic: Arc<str>,
        place: Place,
    ) -> Self {
        let (client, producer, serdes) = (client.clone(), producer.clone(), serdes.clone());
        Self { client, producer, reply_topic, place, serdes, open: OnceCell::new() }
    }

    /// Opens the desk, if nobody has: from then on no reply is missed. Whoever is dropped in the middle of it leaves
    /// it to the next.
    pub(super) async fn open(&self) -> Result<&OpenDesk, ReplyError> {
        self.open.get_or_try_init(|| self.start()).await
    }

    pub(super) fn stats(&self) -> ReplyStats {
        self.open.get().map_or_else(ReplyStats::default, |open| open.correlations().stats())
    }

    async fn start(&self) -> Result<OpenDesk, ReplyError> {
        let rng = SeededRng::from_os();
        let not_read =
            |source: ClientError| ReplyError::ReplyTopic { topic: Arc::clone(&self.reply_topic), source };
        let count = self.client.partition_count(&self.reply_topic).await.map_err(not_read)?;
        let any = || i32::try_from(rng.below(count.unsigned_abs().into())).unwrap_or(0);
        let partition = match self.place {
            Place::AnyPartition => Some(any()),
            Place::Partition(partition) if (0..count).contains(&partition) => Some(partition),
            Place::Partition(partition) => {
                return Err(ReplyError::ReplyPartition {
                    topic: Arc::clone(&self.reply_topic),
                    partition,
                    count,
                });
            }
            Place::EveryPartition => None,
        };
        let numbers = partition.map_or(0..count, |partition| partition..partition + 1);
        let partitions = numbers.map(|number| TopicPartition::new(Arc::clone(&self.reply_topic), number));
        let consumer = self.read(partitions.collect()).await.map_err(not_read)?;
        let correlations = Arc::new(Mutex::new(Correlations::new(rng.next_u64())));
        let reading = Tasks::new();
        if partition.is_none() {
            let growing = Growing {
                client: self.client.clone(),
                consumer: consumer.handle(),
                topic: Arc::clone(&self.reply_topic),
                count,
            };
            reading.spawn("reply partitions", growing.follow(Arc::clone(&correlations)));
        }
        reading.spawn("replies", read_replies(consumer, Arc::clone(&correlations)));
        Ok(OpenDesk { partition, correlations, _reading: reading })
    }

    /// From the ends that the partitions have now: a reply to a request that is sent later comes behind them,
    /// whenever the reading begins. Partitions are assigned by hand, so that no group has to agree first and none is
    /// left over.
    async fn read(&self, partitions: Vec<TopicPartition>) -> Result<Consumer, ClientError> {
        let nothing = Vec::<TopicPartition>::new();
        let consumer =
            self.client.consumer().assign(nothing).auto_commit(None).from_beginning().start().await?;
        let handle = consumer.handle();
        let ends = handle.end_offsets(&partitions).await?;
        handle.assign(partitions.iter().cloned())?;
        for partition in &partitions {
            handle.seek(partition, ends.get(partition).copied().unwrap_or(0))?;
        }
        Ok(consumer)
    }
}

/// A reply topic of which all partitions are read, also those that come later.
struct Growing {
    client: Client,
    consumer: ConsumerHandle,
    topic: Arc<str>,
    /// How many are read.
    count: i32,
}

impl Growing {
    /// Looks while somebody waits, and reads what is new from its beginning: nobody was answered there before.
    async fn follow(mut self, correlations: Arc<Mutex<Table>>) {
        loop {
            sleep(LOOK).await;
            if locked(&correlations).stats().waiting == 0 {
                continue;
            }
            let Some(count) = self.partitions().await.filter(|count| *count > self.count) else { continue };
            let new = (self.count..count).map(|number| TopicPartition::new(Arc::clone(&self.topic), number));
            match self.consumer.assign_also(new) {
                Ok(()) => self.count = count,
                Err(error) => tracing::warn!(topic = %self.topic, %error, "reading new reply partitions"),
            }
        }
    }

    /// How many there are now, if the cluster says so.
    async fn partitions(&self) -> Option<i32> {
        let mut described = self.client.admin().describe_topics(&[&*self.topic]).await.ok()?;
        i32::try_from(described.remove(&self.topic)?.ok()?.partitions.len()).ok()
    }
}

impl OpenDesk {
    pub(super) fn correlations(&self) -> MutexGuard<'_, Table> {
        locked(&self.correlations)
    }
}

fn locked(correlations: &Mutex<Table>) -> MutexGuard<'_, Table> {
    correlations.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn read_replies(mut consumer: Consumer, correlations: Arc<Mutex<Table>>) {
    while let Some(batch) = consumer.next_batch().await {
        match batch {
            Ok(batch) => {
                let mut correlations = locked(&correlations);
                for record in batch.records {
                    let headers = record.headers.clone();
                    let id = headers.last(CORRELATION_ID).flatten();
                    correlations.reply(id, |waiting| waiting.try_send(record).is_ok());
                }
            }
            // The consumer goes on; requests that wait for what it could not read run into their timeouts.
            Err(error) => tracing::warn!(%error, "reading replies"),
        }
    }
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk")
            .field("reply_topic", &self.reply_topic)
            .field("place", &self.place)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
