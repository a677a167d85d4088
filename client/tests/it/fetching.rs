//! What a consumer's fetching promises, each with the story of how it was broken.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use klamm_client::testing::Answer;
use klamm_client::{
    Client, ConsumeError, Consumer, ConsumerInterceptor, ConsumerRecord, OffsetReset, Record, TopicPartition,
};
use klamm_protocol::ApiKey;
use klamm_protocol::messages::{FetchRequest, FetchResponse};
use tokio::time::{Instant, timeout};

use crate::scripted::{self, TOPIC};

/// Far less than any request timeout, far more than any answer takes.
const SOON: Duration = Duration::from_secs(5);

async fn send(client: &Client, partition: i32, values: &[&str]) {
    let producer = client.producer().build().unwrap();
    for value in values {
        producer.send(Record::to(TOPIC).partition(partition).value((*value).to_owned())).await.unwrap();
    }
    producer.close().await.unwrap();
}

async fn next(consumer: &mut Consumer) -> ConsumerRecord {
    timeout(SOON, consumer.next()).await.expect("a record in time").unwrap().unwrap()
}

async fn values(consumer: &mut Consumer, count: usize) -> Vec<String> {
    let mut values = Vec::new();
    while values.len() < count {
        let value = next(consumer).await.value.unwrap();
        values.push(String::from_utf8(value.to_vec()).unwrap());
    }
    values
}

/// A partition whose leader was down, or whose topic was missing, kept all others from starting: offsets were looked
/// up for all of them together, and that failed together.
#[tokio::test(start_paused = true)]
async fn a_partition_that_cannot_be_looked_up_keeps_no_other_waiting() {
    let broker = scripted::start(3).await;
    broker.reachable((TOPIC, 1), false);
    let client = broker.client().await.unwrap();
    send(&client, 0, &["a"]).await;
    send(&client, 2, &["b"]).await;
    let partitions = [(TOPIC, 0), (TOPIC, 1), (TOPIC, 2), ("missing", 0), (TOPIC, 99)];
    let mut consumer = client.consumer().assign(partitions).from_beginning().start().await.unwrap();
    let mut both = values(&mut consumer, 2).await;
    both.sort();
    assert_eq!(both, ["a", "b"]);
    // When the broker is back its partition goes on by itself.
    broker.reachable((TOPIC, 1), true);
    send(&client, 1, &["c"]).await;
    assert_eq!(values(&mut consumer, 1).await, ["c"]);
}

/// Two connections to a broker could both be held by it for `fetch_max_wait`; a seek then waited for one of them, and a
/// second one for the other.
#[tokio::test(start_paused = true)]
async fn a_seek_waits_for_no_fetch_that_is_held() {
    let broker = scripted::start(2).await;
    let client = broker.client().await.unwrap();
    send(&client, 0, &["a"]).await;
    let wait = Duration::from_secs(2);
    let consumer = client.consumer().assign([(TOPIC, 0), (TOPIC, 1)]).from_beginning().fetch_max_wait(wait);
    let mut consumer = consumer.start().await.unwrap();
    assert_eq!(values(&mut consumer, 1).await, ["a"]);
    let handle = consumer.handle();
    for _ in 0..5 {
        // The consumer has come to rest.
        assert!(timeout(Duration::from_millis(700), consumer.next()).await.is_err());
        let sought = Instant::now();
        handle.seek(&(TOPIC, 1).into(), 0).unwrap();
        handle.seek(&(TOPIC, 0).into(), 0).unwrap();
        assert_eq!(values(&mut consumer, 1).await, ["a"]);
        assert!(sought.elapsed() < Duration::from_millis(50), "{:?}", sought.elapsed());
    }
}

/// An idle partition that is paused and sought took both connections, and a busy one got 12 MB/s instead of 321.
#[tokio::test(start_paused = true)]
async fn an_idle_partition_that_is_sought_slows_no_other_down() {
    let broker = scripted::start(2).await;
    let client = broker.client().await.unwrap();
    let consumer = client.consumer().assign([(TOPIC, 0), (TOPIC, 1)]).from_beginning();
    let mut consumer = consumer.start().await.unwrap();
    let handle = consumer.handle();
    let started = Instant::now();
    for number in 0..20 {
        send(&client, 0, &["a"]).await;
        handle.seek(&(TOPIC, 1).into(), 0).unwrap();
        handle.seek(&(TOPIC, 0).into(), number).unwrap();
        assert_eq!(next(&mut consumer).await.offset, number);
    }
    assert!(started.elapsed() < Duration::from_millis(500), "{:?}", started.elapsed());
}

/// `lag` subtracted without a thought for what brokers may say.
#[tokio::test(start_paused = true)]
async fn a_hostile_high_watermark_makes_no_lag_panic() {
    let broker = scripted::start(1).await;
    let client = broker.client().await.unwrap();
    send(&client, 0, &["a", "b"]).await;
    for (high_watermark, lag) in [(i64::MIN, 0), (i64::MAX, i64::MAX - 2), (-1, 0)] {
        let lie = move |answer: &mut FetchResponse| {
            let parts = answer.responses.iter_mut().flat_map(|topic| &mut topic.partitions);
            parts.for_each(|part| part.high_watermark = high_watermark);
        };
        broker.behave().always(ApiKey::Fetch, Answer::edited::<FetchRequest>(lie));
        let mut consumer = client.consumer().assign([(TOPIC, 0)]).from_beginning().start().await.unwrap();
        assert_eq!(values(&mut consumer, 2).await, ["a", "b"]);
        assert_eq!(consumer.handle().lag(&(TOPIC, 0).into()), Some(lag));
    }
}

/// A topic that was deleted and made anew was read on at the old position.
#[tokio::test(start_paused = true)]
async fn a_topic_that_is_made_anew_is_read_from_its_beginning() {
    let broker = scripted::start(1).await;
    let client = broker.client().await.unwrap();
    send(&client, 0, &["a", "b", "c"]).await;
    let mut consumer = client.consumer().assign([(TOPIC, 0)]).from_beginning().start().await.unwrap();
    assert_eq!(values(&mut consumer, 3).await, ["a", "b", "c"]);
    broker.remove_topic(TOPIC).topic(TOPIC, 1);
    send(&broker.client().await.unwrap(), 0, &["d", "e", "f", "g"]).await;
    assert_eq!(values(&mut consumer, 4).await, ["d", "e", "f", "g"]);
}

/// Without a policy it is for the program to say where to go on.
#[tokio::test(start_paused = true)]
async fn a_topic_that_is_made_anew_is_an_error_without_a_policy() {
    let broker = scripted::start(1).await;
    let client = broker.client().await.unwrap();
    send(&client, 0, &["a"]).await;
    let consumer = client.consumer().assign([(TOPIC, 0)]).auto_offset_reset(OffsetReset::None);
    let mut consumer = consumer.start().await.unwrap();
    let partition = TopicPartition::from((TOPIC, 0));
    let first = timeout(SOON, consumer.next()).await.unwrap().unwrap().unwrap_err();
    assert!(matches!(first, ConsumeError::NoOffset { offset: None, .. }), "{first}");
    consumer.handle().seek(&partition, 0).unwrap();
    assert_eq!(values(&mut consumer, 1).await, ["a"]);
    broker.remove_topic(TOPIC).topic(TOPIC, 1);
    send(&broker.client().await.unwrap(), 0, &["a"]).await;
    let told = timeout(SOON, consumer.next()).await.unwrap().unwrap().unwrap_err();
    assert!(matches!(told, ConsumeError::NoOffset { offset: Some(1), .. }), "{told}");
    consumer.handle().seek(&partition, 0).unwrap();
    assert_eq!(values(&mut consumer, 1).await, ["a"]);
}

/// The error did not say where the batch ends, so that a program could only try one offset after the other.
#[tokio::test(start_paused = true)]
async fn a_corrupt_batch_says_where_to_go_on() {
    let broker = scripted::start(1).await;
    let client = broker.client().await.unwrap();
    send(&client, 0, &["a", "b", "c"]).await;
    let mut damaged = broker.batches(TOPIC, 0)[1].bytes().to_vec();
    let in_the_value = damaged.len() - 2;
    damaged[in_the_value] ^= 1;
    assert!(broker.replace_batch(TOPIC, 0, 1, damaged));
    let mut consumer = client.consumer().assign([(TOPIC, 0)]).from_beginning().start().await.unwrap();
    assert_eq!(values(&mut consumer, 1).await, ["a"]);
    let error = timeout(SOON, consumer.next()).await.unwrap().unwrap().unwrap_err();
    let ConsumeError::Corrupt { partition, offset: 1, next_offset: Some(next_offset), .. } = error else {
        panic!("{error}");
    };
    consumer.handle().seek(&partition, next_offset).unwrap();
    assert_eq!(values(&mut consumer, 1).await, ["c"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_assigned_by_hand_can_change() {
    let broker = scripted::start(3).await;
    let client = broker.client().await.unwrap();
    for (partition, value) in [(0, "a"), (1, "b"), (2, "c")] {
        send(&client, partition, &[value]).await;
    }
    let mut consumer = client.consumer().assign([(TOPIC, 0)]).from_beginning().start().await.unwrap();
    let handle = consumer.handle();
    assert_eq!(values(&mut consumer, 1).await, ["a"]);
    handle.assign_also([(TOPIC, 1)]).unwrap();
    assert_eq!(values(&mut consumer, 1).await, ["b"]);
    handle.assign([(TOPIC, 1), (TOPIC, 2)]).unwrap();
    assert_eq!(handle.assignment(), [(TOPIC, 1).into(), (TOPIC, 2).into()]);
    assert_eq!(values(&mut consumer, 1).await, ["c"]);
    handle.unassign([(TOPIC, 1)]).unwrap();
    send(&client, 1, &["d"]).await;
    send(&client, 0, &["e"]).await;
    assert!(timeout(SOON, consumer.next()).await.is_err(), "neither is read any more");
    handle.assign_also([(TOPIC, 1)]).unwrap();
    assert_eq!(values(&mut consumer, 2).await, ["b", "d"], "it starts anew");
}

#[tokio::test(start_paused = true)]
async fn partitions_are_sought_by_time_and_by_ends() {
    let broker = scripted::start(1).await;
    let client = broker.client().await.unwrap();
    send(&client, 0, &["a", "b"]).await;
    let mut consumer = client.consumer().assign([(TOPIC, 0)]).from_beginning().start().await.unwrap();
    let (handle, partition) = (consumer.handle(), TopicPartition::from((TOPIC, 0)));
    assert_eq!(values(&mut consumer, 2).await, ["a", "b"]);
    handle.seek_to_timestamp(&partition, 5).unwrap();
    assert_eq!(values(&mut consumer, 2).await, ["a", "b"]);
    handle.seek_to_beginning(&partition).unwrap();
    assert_eq!(values(&mut consumer, 1).await, ["a"]);
    handle.seek_to_end(&partition).unwrap();
    assert!(timeout(SOON, consumer.next()).await.is_err());
    send(&client, 0, &["c"]).await;
    assert_eq!(values(&mut consumer, 1).await, ["c"]);
    let other = TopicPartition::from((TOPIC, 7));
    let error = handle.seek_to_timestamp(&other, 5).unwrap_err();
    assert!(matches!(error, ConsumeError::NotAssigned { .. }), "{error}");
}

/// Upper-cases what is read, and panics at "b".
#[derive(Default)]
struct Shouting(Mutex<Vec<i64>>);

impl ConsumerInterceptor for Shouting {
    fn on_consume(&self, record: &mut ConsumerRecord) {
        self.0.lock().unwrap().push(record.offset);
        let value = record.value.take().unwrap();
        record.value = Some(value.to_ascii_uppercase().into());
        assert_ne!(&*value, b"b", "not this one");
    }
}

#[tokio::test(start_paused = true)]
async fn interceptors_see_every_record_and_may_panic() {
    let broker = scripted::start(1).await;
    let client = broker.client().await.unwrap();
    send(&client, 0, &["a", "b", "c"]).await;
    let shouting = Arc::new(Shouting::default());
    let consumer = client.consumer().assign([(TOPIC, 0)]).from_beginning();
    let mut consumer = consumer.interceptor(Arc::<Shouting>::clone(&shouting)).start().await.unwrap();
    assert_eq!(values(&mut consumer, 3).await, ["A", "B", "C"]);
    consumer.handle().seek(&(TOPIC, 0).into(), 0).unwrap();
    let batch = timeout(SOON, consumer.next_batch()).await.unwrap().unwrap().unwrap();
    assert_eq!(batch.records[0].value.as_deref(), Some(&b"A"[..]));
    let mut seen: HashMap<i64, usize> = HashMap::new();
    shouting.0.lock().unwrap().iter().for_each(|offset| *seen.entry(*offset).or_default() += 1);
    assert_eq!((seen[&0], seen[&2] >= 1), (2, true));
}
