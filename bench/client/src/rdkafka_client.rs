//! The work on rdkafka: the threaded producer with callbacks and the polled consumer, which are its fastest.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{
    BaseRecord, DeliveryResult, FutureProducer, FutureRecord, Producer, ProducerContext, ThreadedProducer,
};

use crate::case::{BATCH_BYTES, Case, Delays, LINGER, Measured, Stopwatch, send_paced, until_received};
use crate::{LIMIT, Result};

fn producer(bootstrap: &str, case: Case, linger: Duration) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("linger.ms", linger.as_millis().to_string())
        .set("batch.size", BATCH_BYTES.to_string())
        .set("compression.type", if case.lz4 { "lz4" } else { "none" })
        .set("queue.buffering.max.messages", "500000");
    config
}

fn consumer(bootstrap: &str, reset: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("group.id", format!("bench-{}", std::process::id()))
        .set("auto.offset.reset", reset)
        .set("enable.auto.commit", "false")
        // With the default a full queue makes it wait a second before it fetches again.
        .set("queued.min.messages", "1000000");
    config
}

#[derive(Clone, Default)]
struct Acknowledged(Arc<AtomicUsize>);

impl ClientContext for Acknowledged {}

impl ProducerContext for Acknowledged {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        self.0.fetch_add(usize::from(result.is_ok()), Ordering::Relaxed);
    }
}

pub fn produce(bootstrap: &str, topic: &str, case: Case) -> Result<Measured> {
    let acknowledged = Acknowledged::default();
    let producer: ThreadedProducer<Acknowledged> =
        producer(bootstrap, case, LINGER).create_with_context(acknowledged.clone())?;
    let values = case.values();
    let watch = Stopwatch::start();
    for number in 0..case.records {
        let at = Case::at(number);
        let mut record = BaseRecord::<(), [u8]>::to(topic).payload(&values[at..at + case.size]);
        while let Err((error, back)) = producer.send(record) {
            if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                return Err(error.into());
            }
            record = back;
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    producer.flush(LIMIT)?;
    let measured = watch.stop(case.records);
    match acknowledged.0.load(Ordering::Relaxed) == case.records {
        true => Ok(measured),
        false => Err("records failed".into()),
    }
}

pub fn consume(bootstrap: &str, topic: &str, case: Case) -> Result<Measured> {
    let consumer: BaseConsumer = consumer(bootstrap, "earliest").create()?;
    consumer.subscribe(&[topic])?;
    let (mut seen, mut bytes, mut watch) = (0, 0, Stopwatch::start());
    let deadline = Instant::now() + LIMIT;
    while seen < case.records {
        match consumer.poll(Duration::from_secs(1)) {
            Some(message) => {
                if seen == 0 {
                    watch = Stopwatch::start();
                }
                bytes += message?.payload_len();
                seen += 1;
            }
            None if Instant::now() > deadline => return Err("records went missing".into()),
            None => {}
        }
    }
    let measured = watch.stop(seen);
    match bytes == seen * case.size {
        true => Ok(measured),
        false => Err("wrong sizes".into()),
    }
}

pub async fn latency(bootstrap: &str, topic: &str, case: Case) -> Result<Measured> {
    let consumer: StreamConsumer = consumer(bootstrap, "latest").create()?;
    consumer.subscribe(&[topic])?;
    let producer: FutureProducer = producer(bootstrap, case, Duration::ZERO).create()?;
    let send = send_paced(case, async |value| {
        let record = FutureRecord::<(), _>::to(topic).payload(&value);
        drop(producer.send_result(record).map_err(|(error, _)| error)?);
        Ok(())
    });
    let receive = async {
        let mut delays = Delays::default();
        while delays.count() < case.records {
            delays.note(consumer.recv().await?.payload());
        }
        Ok(delays)
    };
    until_received(send, receive).await
}
