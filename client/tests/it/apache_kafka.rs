//! What only the real thing proves: run against an Apache Kafka broker of one node, with
//! `KLAMM_APACHE_KAFKA=127.0.0.1:9092 cargo test -p klamm-client --test it apache_kafka`. Without the variable each
//! test says that it was skipped.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use klamm_client::{Client, IsolationLevel, NewTopic, Record, TopicPartition, TransactionError};
use tokio::time::timeout;

/// Longest that one step may take.
pub(crate) const STEP: Duration = Duration::from_secs(60);

/// Where the broker is, if there is one.
pub(crate) fn address() -> Option<String> {
    let address = std::env::var("KLAMM_APACHE_KAFKA").ok();
    if address.is_none() {
        #[allow(clippy::print_stdout)] // Whoever runs it is told.
        {
            println!("skipped: KLAMM_APACHE_KAFKA names no broker");
        }
    }
    address
}

async fn client() -> Option<Client> {
    Some(timeout(STEP, Client::connect(address()?)).await.unwrap().unwrap())
}

/// A name that no earlier run has used.
pub(crate) fn fresh(name: &str) -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let random = klamm_client::runtime::Rng::next_u64(&klamm_client::runtime::SeededRng::from_os());
    format!("{name}-{random:x}-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

pub(crate) async fn topic(client: &Client, name: &str, partitions: i32) -> String {
    let topic = fresh(name);
    timeout(STEP, client.admin().create_topics(&[NewTopic::new(&*topic).partitions(partitions)]))
        .await
        .unwrap()
        .unwrap();
    topic
}

/// What the first partition holds for this kind of reader.
pub(crate) async fn read(client: &Client, topic: &str, isolation: IsolationLevel) -> Vec<String> {
    read_partition(client, topic, 0, isolation).await
}

/// What a partition holds for this kind of reader: nothing more comes for a while.
pub(crate) async fn read_partition(
    client: &Client,
    topic: &str,
    partition: i32,
    isolation: IsolationLevel,
) -> Vec<String> {
    let consumer =
        client.consumer().assign([(topic, partition)]).isolation(isolation).from_beginning().start();
    let mut consumer = timeout(STEP, consumer).await.unwrap().unwrap();
    let mut values = Vec::new();
    while let Ok(Some(record)) = timeout(Duration::from_secs(2), consumer.next()).await {
        values.push(String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap());
    }
    timeout(STEP, consumer.close()).await.unwrap().unwrap();
    values
}

/// The leader of a partition that was just made refuses the first batches, and Kafka takes any first sequence of a
/// producer id that it does not know: of 40 such topics, 26 were reordered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_that_were_just_made_keep_their_order() {
    let Some(client) = client().await else { return };
    let producer = client.producer().build().unwrap();
    for _ in 0..40 {
        // The first record makes the topic, and goes as soon as its leader is known.
        let topic = fresh("fresh");
        let mut deliveries = Vec::new();
        for number in 0..200 {
            // So much that several batches are on their way at once.
            let record = Record::to(&*topic).value(format!("{number:>8000}"));
            deliveries.push(timeout(STEP, producer.enqueue(record)).await.unwrap().unwrap());
            tokio::task::yield_now().await;
        }
        for (number, delivery) in (0..).zip(deliveries) {
            let at = timeout(STEP, delivery).await.unwrap().unwrap();
            assert_eq!(at.offset, number, "{topic}");
        }
    }
}

/// A broker tells of a new topic's leaders before it has made their logs: of many partitions the last ones refuse what
/// comes first, and take what comes a moment later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_whose_logs_are_still_being_made_keep_their_order() {
    const PARTITIONS: usize = 60;
    const RECORDS: i64 = 10;
    let Some(client) = client().await else { return };
    for _ in 0..40 {
        let topic = topic(&client, "many", PARTITIONS as i32).await;
        // Each record is a batch of its own, so that a partition has several on their way at once.
        let producer = client.producer().batch_bytes(1_000).build().unwrap();
        let mut deliveries = Vec::new();
        for number in 0..RECORDS {
            for partition in 0..PARTITIONS {
                let record = Record::to(&*topic).partition(partition as i32).value(format!("{number:>900}"));
                let delivery = timeout(STEP, producer.enqueue(record)).await.unwrap().unwrap();
                deliveries.push((partition, number, delivery));
            }
        }
        for (partition, number, delivery) in deliveries {
            let at = timeout(STEP, delivery).await.unwrap().unwrap();
            assert_eq!(at.offset, number, "{topic}-{partition}");
        }
        producer.close().await.unwrap();
    }
}

/// The logs of a topic that is made anew know no producer: they took a batch from the middle of those on their way as
/// the first one, and the ones before came behind it, in one partition of three.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_made_anew_under_load_keeps_its_order() {
    const PARTITIONS: i32 = 60;
    let Some(address) = address() else { return };
    // A record on its way would make it with as many partitions as the broker likes.
    let client = Client::builder().bootstrap(address).allow_auto_create_topics(false).build();
    let client = timeout(STEP, client).await.unwrap().unwrap();
    let topic = topic(&client, "anew", PARTITIONS).await;
    let producer = client.producer().batch_bytes(3_000).build().unwrap();
    let stop = AtomicBool::new(false);
    let load = async {
        let mut number = 0;
        while !stop.load(Ordering::Relaxed) {
            for partition in 0..PARTITIONS {
                let record = Record::to(&*topic).partition(partition).value(format!("{number:>1000}"));
                drop(timeout(STEP, producer.enqueue(record)).await.unwrap().unwrap());
            }
            number += 1;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let make_anew = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        timeout(STEP, client.admin().delete_topics(&[&*topic])).await.unwrap().unwrap();
        let made = async {
            loop {
                let again = [NewTopic::new(&*topic).partitions(PARTITIONS)];
                if client.admin().create_topics(&again).await.unwrap().values().all(Result::is_ok) {
                    break;
                }
                // The controller has not come to the end of the deletion.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(STEP, made).await.unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
        stop.store(true, Ordering::Relaxed);
    };
    tokio::join!(load, make_anew);
    timeout(STEP, producer.flush()).await.unwrap().unwrap();
    let reads = (0..PARTITIONS).map(|partition| {
        let (client, topic) = (client.clone(), topic.clone());
        async move { read_partition(&client, &topic, partition, IsolationLevel::ReadUncommitted).await }
    });
    for (partition, values) in futures::future::join_all(reads).await.into_iter().enumerate() {
        // Numbers of one width: their order is that of the texts.
        let unordered: Vec<_> = values.windows(2).filter(|two| two[0] >= two[1]).take(3).collect();
        assert!(unordered.is_empty(), "{topic}-{partition}: {unordered:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn committed_is_visible_and_aborted_is_not() {
    let Some(client) = client().await else { return };
    let topic = topic(&client, "transactions", 1).await;
    let mut producer = client.producer().transactional_id(fresh("copier")).build().unwrap();
    for (value, commit) in [("a", true), ("b", false), ("c", true), ("d", false), ("e", true)] {
        let transaction = timeout(STEP, producer.begin()).await.unwrap().unwrap();
        for part in 0..3 {
            let record = Record::to(&*topic).value(format!("{value}{part}"));
            timeout(STEP, transaction.send(record)).await.unwrap().unwrap();
        }
        let end = async { if commit { transaction.commit().await } else { transaction.abort().await } };
        timeout(STEP, end).await.unwrap().unwrap();
    }
    // One that is dropped is aborted before the next begins; an empty one is nothing.
    let transaction = timeout(STEP, producer.begin()).await.unwrap().unwrap();
    drop(timeout(STEP, transaction.enqueue(Record::to(&*topic).value("dropped"))).await.unwrap().unwrap());
    drop(transaction);
    let empty = timeout(STEP, producer.begin()).await.unwrap().unwrap();
    timeout(STEP, empty.commit()).await.unwrap().unwrap();
    let transaction = timeout(STEP, producer.begin()).await.unwrap().unwrap();
    drop(timeout(STEP, transaction.enqueue(Record::to(&*topic).value("f"))).await.unwrap().unwrap());
    timeout(STEP, transaction.commit()).await.unwrap().unwrap();
    timeout(STEP, producer.close()).await.unwrap().unwrap();

    let committed = read(&client, &topic, IsolationLevel::ReadCommitted).await;
    assert_eq!(committed, ["a0", "a1", "a2", "c0", "c1", "c2", "e0", "e1", "e2", "f"]);
    let all = read(&client, &topic, IsolationLevel::ReadUncommitted).await;
    assert!(all.iter().any(|value| value == "b0"), "{all:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_zombie_is_fenced_and_what_it_left_open_is_aborted() {
    let Some(client) = client().await else { return };
    let topic = topic(&client, "zombies", 1).await;
    let id = fresh("zombie");
    let mut zombie = client.producer().transactional_id(&*id).build().unwrap();
    let open = timeout(STEP, zombie.begin()).await.unwrap().unwrap();
    timeout(STEP, open.send(Record::to(&*topic).value("left open"))).await.unwrap().unwrap();

    let mut successor = client.producer().transactional_id(&*id).build().unwrap();
    let transaction = timeout(STEP, successor.begin()).await.unwrap().unwrap();
    timeout(STEP, transaction.send(Record::to(&*topic).value("of the successor"))).await.unwrap().unwrap();

    timeout(STEP, open.send(Record::to(&*topic).value("too late"))).await.unwrap().unwrap_err();
    let error = timeout(STEP, open.commit()).await.unwrap().unwrap_err();
    assert!(matches!(error, TransactionError::Fenced { .. }), "{error:?}");
    let error = timeout(STEP, zombie.begin()).await.unwrap().map(drop).unwrap_err();
    assert!(error.is_fatal() && !error.may_have_been_committed(), "{error:?}");
    timeout(STEP, transaction.commit()).await.unwrap().unwrap();
    assert_eq!(read(&client, &topic, IsolationLevel::ReadCommitted).await, ["of the successor"]);
}

/// The process of a producer ends in the middle: the coordinator aborts its transaction, and readers go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_ends_is_aborted_after_the_timeout() {
    let Some(client) = client().await else { return };
    let topic = topic(&client, "killed", 1).await;
    let builder = client.producer().transactional_id(fresh("killed"));
    let mut producer = builder.transaction_timeout(Duration::from_secs(3)).build().unwrap();
    let transaction = timeout(STEP, producer.begin()).await.unwrap().unwrap();
    timeout(STEP, transaction.send(Record::to(&*topic).value("never"))).await.unwrap().unwrap();
    std::mem::forget(transaction);

    let plain = client.producer().build().unwrap();
    timeout(STEP, plain.send(Record::to(&*topic).value("behind it"))).await.unwrap().unwrap();
    // Until the coordinator aborts, nothing behind the open transaction is stable.
    let committed = timeout(STEP, async {
        loop {
            let committed = read(&client, &topic, IsolationLevel::ReadCommitted).await;
            if !committed.is_empty() {
                return committed;
            }
        }
    });
    assert_eq!(committed.await.unwrap(), ["behind it"]);
}

/// The coordinator gave the transaction up: that is told apart from a successor's fencing, and another can begin.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_was_open_for_too_long_is_told_so() {
    let Some(client) = client().await else { return };
    let topic = topic(&client, "slow", 1).await;
    let id = fresh("slow");
    let builder = client.producer().transactional_id(&*id);
    let mut producer = builder.transaction_timeout(Duration::from_secs(2)).build().unwrap();
    let transaction = timeout(STEP, producer.begin()).await.unwrap().unwrap();
    timeout(STEP, transaction.send(Record::to(&*topic).value("never"))).await.unwrap().unwrap();
    // The coordinator looks every ten seconds.
    tokio::time::sleep(Duration::from_secs(13)).await;
    let error = timeout(STEP, transaction.commit()).await.unwrap().unwrap_err();
    assert!(matches!(error, TransactionError::Aborted { .. }), "{error:?}");
    assert!(error.to_string().contains("transaction_timeout"), "{error}");
    // In the older flow (`transaction.version` below 2) a coordinator that gave up looks like a successor's.
    let fenced = timeout(STEP, producer.begin()).await.unwrap().map(drop).err();
    if let Some(error) = fenced {
        assert!(matches!(error, TransactionError::Fenced { .. }), "{error:?}");
        producer = client.producer().transactional_id(id).build().unwrap();
    }
    let next = timeout(STEP, producer.begin()).await.unwrap().unwrap();
    timeout(STEP, next.send(Record::to(&*topic).value("the next"))).await.unwrap().unwrap();
    timeout(STEP, next.commit()).await.unwrap().unwrap();
    assert_eq!(read(&client, &topic, IsolationLevel::ReadCommitted).await, ["the next"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_are_committed_with_the_records_or_not_at_all() {
    let Some(client) = client().await else { return };
    let (input, output) = (topic(&client, "input", 1).await, topic(&client, "output", 1).await);
    let plain = client.producer().build().unwrap();
    for value in ["1", "2"] {
        timeout(STEP, plain.send(Record::to(&*input).value(value))).await.unwrap().unwrap();
    }
    let group = fresh("group");
    let mut producer = client.producer().transactional_id(fresh("copier")).build().unwrap();
    for commit in [false, true, true] {
        let consumer = client
            .consumer()
            .group(&*group)
            .topics([&*input])
            .isolation(IsolationLevel::ReadCommitted)
            .from_beginning()
            .start();
        let mut consumer = timeout(STEP, consumer).await.unwrap().unwrap();
        let record = timeout(STEP, consumer.next()).await.unwrap().unwrap().unwrap();
        let transaction = timeout(STEP, producer.begin()).await.unwrap().unwrap();
        let copy = Record::to(&*output).value(record.value.clone().unwrap());
        drop(timeout(STEP, transaction.enqueue(copy)).await.unwrap().unwrap());
        let offsets = [(TopicPartition::new(&*input, 0), record.offset + 1)];
        let metadata = consumer.handle().group_metadata().unwrap();
        timeout(STEP, transaction.send_offsets(offsets, &metadata)).await.unwrap().unwrap();
        let end = async { if commit { transaction.commit().await } else { transaction.abort().await } };
        timeout(STEP, end).await.unwrap().unwrap();
        timeout(STEP, consumer.close()).await.unwrap().unwrap();
    }
    assert_eq!(read(&client, &output, IsolationLevel::ReadCommitted).await, ["1", "2"]);
}

/// What must finish belongs to the producer's tasks: a commit whose future is dropped is carried out, and the next
/// transaction begins after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_nobody_waits_for_is_carried_out() {
    let Some(client) = client().await else { return };
    let topic = topic(&client, "dropped", 1).await;
    let mut producer = client.producer().transactional_id(fresh("dropped")).build().unwrap();
    for value in ["a", "b", "c"] {
        let transaction = timeout(STEP, producer.begin()).await.unwrap().unwrap();
        drop(timeout(STEP, transaction.enqueue(Record::to(&*topic).value(value))).await.unwrap().unwrap());
        let _ = timeout(Duration::ZERO, transaction.commit()).await;
    }
    timeout(STEP, producer.close()).await.unwrap().unwrap();
    assert_eq!(read(&client, &topic, IsolationLevel::ReadCommitted).await, ["a", "b", "c"]);
}

/// A function that fails with `?` drops its transaction and the producer: the abort was dropped with them, and readers
/// of committed records waited for the transaction's timeout.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_is_dropped_with_its_producer_is_aborted() {
    let Some(client) = client().await else { return };
    let topic = topic(&client, "dropped", 1).await;
    let mut producer = client.producer().transactional_id(fresh("dropped")).build().unwrap();
    let transaction = timeout(STEP, producer.begin()).await.unwrap().unwrap();
    timeout(STEP, transaction.send(Record::to(&*topic).value("never"))).await.unwrap().unwrap();
    drop(transaction);
    drop(producer);
    let plain = client.producer().build().unwrap();
    timeout(STEP, plain.send(Record::to(&*topic).value("behind it"))).await.unwrap().unwrap();
    let committed = timeout(Duration::from_secs(20), async {
        loop {
            let committed = read(&client, &topic, IsolationLevel::ReadCommitted).await;
            if !committed.is_empty() {
                return committed;
            }
        }
    });
    assert_eq!(committed.await.unwrap(), ["behind it"]);
}
