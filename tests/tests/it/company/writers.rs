//! Producers under load: idempotent, each record with a value of its own, and a note of what became of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use klamm_client::{Client, Delivery, IsolationLevel, ProduceError, Producer, Record, TopicPartition};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::log_history::{Found, Outcome, Write, value};
use super::{STUCK, now_us};

/// Records that a writer enqueues in one go, and the pause behind them: 200 records a second each.
const AT_ONCE: u64 = 4;
const PAUSE: Duration = Duration::from_millis(20);

/// Writers of one topic.
pub(super) struct Writers {
    stop: Arc<AtomicBool>,
    writes: Arc<Mutex<Vec<Write>>>,
    producers: Vec<Producer>,
    tasks: JoinSet<()>,
}

impl Writers {
    /// Starts so many of them, each with a producer of its own.
    pub(super) fn start(client: &Client, topic: &str, partitions: i32, count: u32) -> Self {
        let (stop, writes): (Arc<AtomicBool>, Arc<Mutex<Vec<Write>>>) = Default::default();
        let (mut producers, mut tasks) = (Vec::new(), JoinSet::new());
        for writer in 0..count {
            let producer = client.producer().linger(Duration::from_millis(5)).build().unwrap();
            producers.push(producer.clone());
            let (stop, writes, topic) = (Arc::clone(&stop), Arc::clone(&writes), topic.to_owned());
            tasks.spawn(async move {
                let mut deliveries = JoinSet::new();
                for number in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let partition = (number % u64::from(partitions.unsigned_abs())) as i32;
                    let (begun_us, value) = (now_us(), value(writer, number));
                    let record = Record::to(&*topic).partition(partition).value(value);
                    let enqueued = producer.enqueue(record).await;
                    let writes = Arc::clone(&writes);
                    deliveries.spawn(async move {
                        let outcome = outcome(enqueued.map_err(Into::into)).await;
                        writes.lock().unwrap().push(Write { partition, writer, number, begun_us, outcome });
                    });
                    if number % AT_ONCE == AT_ONCE - 1 {
                        while deliveries.try_join_next().is_some() {}
                        tokio::time::sleep(PAUSE).await;
                    }
                }
                deliveries.join_all().await;
            });
        }
        Self { stop, writes, producers, tasks }
    }

    /// Waits until something that was begun from now on is acknowledged in each of so many partitions.
    pub(super) async fn progress(&self, partitions: i32) {
        let (from_us, began) = (now_us(), Instant::now());
        for partition in 0..partitions {
            let acknowledged = |write: &Write| {
                write.partition == partition
                    && write.begun_us >= from_us
                    && matches!(write.outcome, Outcome::Acknowledged { .. })
            };
            // The newest come last.
            while !self.writes.lock().unwrap().iter().rev().take(5_000).any(acknowledged) {
                assert!(began.elapsed() < STUCK, "B7: nothing is acknowledged in partition {partition}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    /// Waits until so many writes are decided: with fewer there is nothing to judge.
    pub(super) async fn decided(&self, count: usize) {
        let began = Instant::now();
        while self.writes.lock().unwrap().len() < count {
            assert!(began.elapsed() < STUCK, "B7: {count} writes take too long");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Ends the load and waits until everything is decided.
    pub(super) async fn finish(self) -> Vec<Write> {
        self.stop.store(true, Ordering::Relaxed);
        timeout(STUCK, self.tasks.join_all()).await.expect("B7: a record is neither delivered nor given up");
        for producer in self.producers {
            timeout(STUCK, producer.close()).await.expect("B7: a producer closes").unwrap();
        }
        std::mem::take(&mut *self.writes.lock().unwrap())
    }
}

async fn outcome(enqueued: Result<Delivery, ProduceError>) -> Outcome {
    let delivered = match enqueued {
        Ok(delivery) => delivery.await,
        Err(error) => Err(error),
    };
    match delivered {
        Ok(at) => Outcome::Acknowledged { offset: at.offset, at_us: now_us() },
        Err(error) if error.may_have_been_written() => Outcome::Unknown,
        Err(_) => Outcome::Refused,
    }
}

/// How long the slowest acknowledged write took.
pub(super) fn slowest(writes: &[Write]) -> Duration {
    let took = |write: &Write| match write.outcome {
        Outcome::Acknowledged { at_us, .. } => at_us - write.begun_us,
        Outcome::Refused | Outcome::Unknown => 0,
    };
    let longest_us = writes.iter().map(took).max().unwrap_or(0);
    Duration::from_micros(longest_us.unsigned_abs())
}

/// Everything that the topic holds now.
pub(super) async fn read_all(client: &Client, topic: &str, partitions: i32) -> Found {
    let assigned: Vec<_> = (0..partitions).map(|partition| TopicPartition::new(topic, partition)).collect();
    let read = async {
        let consumer = client.consumer().assign(assigned.clone()).from_beginning();
        let mut consumer = consumer.isolation(IsolationLevel::ReadUncommitted).start().await.unwrap();
        let ends = consumer.handle().end_offsets(&assigned).await.unwrap();
        let mut found: Found = (0..partitions).map(|partition| (partition, Vec::new())).collect();
        let whole = |found: &Found| {
            assigned.iter().all(|at| {
                let last = found[&at.partition].last().map_or(0, |(offset, _)| offset + 1);
                last >= ends[at]
            })
        };
        while !whole(&found) {
            let batch = consumer.next_batch().await.unwrap().unwrap();
            let records = batch.records.into_iter().map(|record| {
                let value = record.value.unwrap_or_default();
                (record.offset, String::from_utf8_lossy(&value).into_owned())
            });
            found.get_mut(&batch.partition).unwrap().extend(records);
        }
        consumer.close().await.unwrap();
        found
    };
    timeout(2 * STUCK, read).await.expect("B7: reading to the end")
}
