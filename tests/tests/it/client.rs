//! Our client against our broker: round trips, groups, and restarts in the middle of everything.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use klamm_broker::log::LogError;
use klamm_broker::{Broker, BrokerError};
use klamm_client::{
    Acks, Assignor, Client, Compression, ConsumeError, Consumer, ConsumerRecord, NewTopic, OffsetReset,
    RebalanceListener, Record, TopicPartition, async_trait,
};
use klamm_runtime::MemoryNet;
use tokio::time::Instant;

/// Generous: a loaded machine is not a defect.
const DEADLINE: Duration = Duration::from_secs(60);

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("the test's deadline passed")
}

async fn broker() -> (Broker, Client) {
    let broker = Broker::builder().ephemeral().start().await.unwrap();
    let client = Client::connect(broker.bootstrap()).await.unwrap();
    (broker, client)
}

async fn create(client: &Client, topic: &str, partitions: i32) {
    let results = client.admin().create_topics(&[NewTopic::new(topic).partitions(partitions)]).await.unwrap();
    results.into_values().for_each(|result| result.unwrap());
}

async fn take(consumer: &mut Consumer, count: usize) -> Vec<ConsumerRecord> {
    let mut records = Vec::new();
    while records.len() < count {
        records.push(in_time(consumer.next()).await.unwrap().unwrap());
    }
    records
}

fn number(record: &ConsumerRecord) -> u64 {
    std::str::from_utf8(record.value.as_ref().unwrap()).unwrap().parse().unwrap()
}

#[tokio::test]
async fn every_codec_makes_the_round_trip() {
    let (_broker, client) = broker().await;
    for codec in Compression::ALL {
        let topic = format!("codec-{codec}");
        create(&client, &topic, 3).await;
        let producer = client.producer().compression(codec).linger(Duration::from_millis(5)).build().unwrap();
        let mut deliveries = Vec::new();
        for index in 0..300 {
            let mut record = Record::to(topic.as_str())
                .key(format!("key-{}", index % 7))
                .value(format!("value {index} ").repeat(20))
                .timestamp_ms(1_000 + index);
            if index % 3 == 0 {
                record = record.header("a", "1").header("a", "2");
            }
            deliveries.push(producer.enqueue(record).await.unwrap());
        }
        let mut written = BTreeSet::new();
        for delivery in deliveries {
            let at = in_time(delivery).await.unwrap();
            assert!(written.insert((at.partition, at.offset)));
        }
        let assigned = (0..3).map(|partition| (topic.as_str(), partition));
        let mut consumer = client.consumer().assign(assigned).from_beginning().start().await.unwrap();
        let mut by_key: BTreeMap<_, Vec<i64>> = BTreeMap::new();
        for record in take(&mut consumer, 300).await {
            assert!(written.remove(&(record.partition, record.offset)));
            let index = record.timestamp_ms - 1_000;
            assert_eq!(record.value.unwrap(), format!("value {index} ").repeat(20));
            let headers: Vec<_> = record.headers.iter().map(|(name, value)| (name, value.unwrap())).collect();
            let expected: &[(&str, &[u8])] = if index % 3 == 0 { &[("a", b"1"), ("a", b"2")] } else { &[] };
            assert_eq!(headers, expected);
            by_key.entry(record.key.unwrap()).or_default().push(index);
        }
        assert!(by_key.values().all(|indexes| indexes.is_sorted()), "records of a key stay in order");
        consumer.close().await.unwrap();
        producer.close().await.unwrap();
    }
}

#[tokio::test]
async fn nulls_batches_and_fire_and_forget() {
    let (_broker, client) = broker().await;
    create(&client, "t", 1).await;
    let producer = client.producer().build().unwrap();
    producer.send(Record::to("t").key("k")).await.unwrap();
    producer.send(Record::to("t").value("")).await.unwrap();
    let unsure = client.producer().acks(Acks::None).build().unwrap();
    assert_eq!(unsure.send(Record::to("t").value("x")).await.unwrap().offset, -1);

    let mut consumer = client.consumer().assign([("t", 0)]).from_beginning().start().await.unwrap();
    let mut records = Vec::new();
    while records.len() < 3 {
        let batch = in_time(consumer.next_batch()).await.unwrap().unwrap();
        assert_eq!(batch.next_offset, batch.records.last().unwrap().offset + 1);
        records.extend(batch.records);
    }
    assert_eq!(records[0].key.as_deref(), Some(&b"k"[..]));
    assert_eq!(records[0].value, None);
    assert_eq!(records[1].value.as_deref(), Some(&b""[..]));
    assert_eq!(records[1].key, None);
    assert_eq!(records[2].value.as_deref(), Some(&b"x"[..]));
    assert_eq!(consumer.handle().position(&("t", 0).into()), Some(3));
    assert_eq!(consumer.handle().lag(&("t", 0).into()), Some(0));
}

#[tokio::test]
async fn a_group_commits_and_resumes() {
    let (_broker, client) = broker().await;
    create(&client, "t", 1).await;
    let producer = client.producer().build().unwrap();
    for index in 0..10 {
        producer.send(Record::to("t").value(index.to_string())).await.unwrap();
    }
    let start =
        || async { client.consumer().group("g").topics(["t"]).from_beginning().start().await.unwrap() };
    let mut consumer = start().await;
    let records = take(&mut consumer, 10).await;
    consumer.commit(&records[3]).await.unwrap();
    let partition: TopicPartition = ("t", 0).into();
    let committed = consumer.handle().committed(std::slice::from_ref(&partition)).await.unwrap();
    assert_eq!(committed[&partition].offset, 4);
    consumer.close().await.unwrap();

    let mut consumer = start().await;
    let records = take(&mut consumer, 6).await;
    assert_eq!(records.iter().map(number).collect::<Vec<_>>(), [4, 5, 6, 7, 8, 9]);
    consumer.handle().commit_async([(partition.clone(), 7)]);
    consumer.handle().commit_async([(partition.clone(), 9)]);
    consumer.close().await.unwrap();
    assert_eq!(client.admin().committed_offsets("g").await.unwrap()[&partition], 9);
    let groups = client.admin().list_groups().await.unwrap();
    assert!(groups.iter().any(|group| &*group.group == "g"), "{groups:?}");
}

#[tokio::test]
async fn auto_commit_covers_what_was_processed() {
    let (_broker, client) = broker().await;
    create(&client, "t", 1).await;
    let producer = client.producer().build().unwrap();
    for index in 0..5 {
        producer.send(Record::to("t").value(index.to_string())).await.unwrap();
    }
    let every = Some(Duration::from_millis(20));
    let mut consumer =
        client.consumer().group("g").topics(["t"]).from_beginning().auto_commit(every).start().await.unwrap();
    take(&mut consumer, 3).await;
    let partition: TopicPartition = ("t", 0).into();
    // The third record is in hand, not processed.
    in_time(async {
        while client.admin().committed_offsets("g").await.unwrap().get(&partition) != Some(&2) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    consumer.close().await.unwrap();
    assert_eq!(client.admin().committed_offsets("g").await.unwrap()[&partition], 3);
}

/// Notes what a member owns, and commits what it processed when it must give up partitions.
#[derive(Default)]
struct Notes {
    owned: Mutex<BTreeSet<TopicPartition>>,
    revoked: Mutex<usize>,
}

#[async_trait]
impl RebalanceListener for Notes {
    async fn assigned(&self, partitions: &[TopicPartition]) {
        self.owned.lock().unwrap().extend(partitions.iter().cloned());
    }

    async fn revoked(&self, partitions: &[TopicPartition]) {
        *self.revoked.lock().unwrap() += partitions.len();
        self.owned.lock().unwrap().retain(|partition| !partitions.contains(partition));
    }
}

#[tokio::test]
async fn two_members_share_and_one_takes_over() {
    for assignor in [Assignor::Range, Assignor::RoundRobin, Assignor::CooperativeSticky] {
        let (_broker, client) = broker().await;
        create(&client, "t", 4).await;
        let notes = [Arc::new(Notes::default()), Arc::new(Notes::default())];
        let start = |notes: &Arc<Notes>| {
            client
                .consumer()
                .group("g")
                .topics(["t"])
                .from_beginning()
                .assignor(assignor)
                .heartbeat_interval(Duration::from_millis(50))
                .rebalance_listener(Arc::clone(notes) as Arc<dyn RebalanceListener>)
                .start()
        };
        let owns = |notes: &Arc<Notes>, count: usize| {
            let notes = Arc::clone(notes);
            in_time(async move {
                while notes.owned.lock().unwrap().len() != count {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            })
        };
        let mut first = start(&notes[0]).await.unwrap();
        owns(&notes[0], 4).await;
        let second = start(&notes[1]).await.unwrap();
        owns(&notes[1], 2).await;
        owns(&notes[0], 2).await;
        let together: BTreeSet<_> =
            notes.iter().flat_map(|notes| notes.owned.lock().unwrap().clone()).collect();
        assert_eq!(together.len(), 4, "{assignor:?}: nobody shares a partition");
        let given_up = *notes[0].revoked.lock().unwrap();
        assert_eq!(given_up, if assignor == Assignor::CooperativeSticky { 2 } else { 4 });
        let described = client.admin().describe_groups(&["g"]).await.unwrap().remove("g").unwrap().unwrap();
        assert_eq!(&*described.state, "Stable");
        assert_eq!(described.members.len(), 2);

        let producer = client.producer().build().unwrap();
        second.close().await.unwrap();
        owns(&notes[0], 4).await;
        for partition in 0..4 {
            producer.send(Record::to("t").partition(partition).value("1")).await.unwrap();
        }
        assert_eq!(take(&mut first, 4).await.len(), 4);
        first.close().await.unwrap();
        assert!(notes.iter().all(|notes| notes.owned.lock().unwrap().is_empty()), "close revokes");
    }
}

#[tokio::test]
async fn a_commit_inside_revoked_reaches_the_next_owner() {
    struct CommitOnRevoke(Mutex<Option<klamm_client::ConsumerHandle>>);

    #[async_trait]
    impl RebalanceListener for CommitOnRevoke {
        async fn revoked(&self, _partitions: &[TopicPartition]) {
            let handle = self.0.lock().unwrap().clone().unwrap();
            handle.commit_position().await.unwrap();
        }
    }

    let (_broker, client) = broker().await;
    create(&client, "t", 1).await;
    let producer = client.producer().build().unwrap();
    for index in 0..4 {
        producer.send(Record::to("t").value(index.to_string())).await.unwrap();
    }
    let listener = Arc::new(CommitOnRevoke(Mutex::default()));
    let builder = client.consumer().group("g").topics(["t"]).from_beginning();
    let mut first = builder.clone().rebalance_listener(listener.clone()).start().await.unwrap();
    *listener.0.lock().unwrap() = Some(first.handle());
    take(&mut first, 3).await;
    first.close().await.unwrap();
    let mut second = builder.start().await.unwrap();
    assert_eq!(number(&take(&mut second, 1).await[0]), 3);
}

#[tokio::test]
async fn a_pattern_finds_topics_that_come_later() {
    let (broker, client) = broker().await;
    create(&client, "clicks-a", 1).await;
    create(&client, "other", 1).await;
    let watching = Client::builder()
        .bootstrap(broker.bootstrap())
        .metadata_max_age(Duration::from_millis(50))
        .build()
        .await
        .unwrap();
    let mut consumer =
        watching.consumer().group("g").pattern("clicks-.*").from_beginning().start().await.unwrap();
    let producer = client.producer().build().unwrap();
    producer.send(Record::to("other").value("0")).await.unwrap();
    producer.send(Record::to("clicks-a").value("1")).await.unwrap();
    assert_eq!(&*take(&mut consumer, 1).await[0].topic, "clicks-a");
    create(&client, "clicks-b", 2).await;
    producer.send(Record::to("clicks-b").value("2")).await.unwrap();
    assert_eq!(&*take(&mut consumer, 1).await[0].topic, "clicks-b");
    consumer.close().await.unwrap();
}

#[tokio::test]
async fn pause_seek_and_look_ups() {
    let (_broker, client) = broker().await;
    create(&client, "t", 2).await;
    let producer = client.producer().build().unwrap();
    for index in 0..10 {
        let record =
            Record::to("t").partition(index % 2).value(index.to_string()).timestamp_ms(i64::from(index) * 10);
        producer.send(record).await.unwrap();
    }
    let (even, odd): (TopicPartition, TopicPartition) = (("t", 0).into(), ("t", 1).into());
    let mut consumer =
        client.consumer().assign([even.clone(), odd.clone()]).from_beginning().start().await.unwrap();
    let handle = consumer.handle();
    take(&mut consumer, 2).await;
    handle.pause(std::slice::from_ref(&even));
    assert_eq!(handle.paused(), std::slice::from_ref(&even));
    handle.seek(&odd, 0).unwrap();
    let odds = take(&mut consumer, 5).await;
    assert_eq!(odds.iter().map(number).collect::<Vec<_>>(), [1, 3, 5, 7, 9]);
    let nothing = tokio::time::timeout(Duration::from_millis(50), consumer.next()).await;
    assert!(nothing.is_err(), "the other partition is paused: {nothing:?}");

    handle.seek(&odd, 4).unwrap();
    assert_eq!(number(&take(&mut consumer, 1).await[0]), 9);
    handle.seek(&even, 1).unwrap();
    handle.resume(std::slice::from_ref(&even));
    assert_eq!(take(&mut consumer, 4).await.iter().map(number).collect::<Vec<_>>(), [2, 4, 6, 8]);
    handle.seek_to_beginning(&even).unwrap();
    assert_eq!(number(&take(&mut consumer, 1).await[0]), 0);

    let both = [even.clone(), odd.clone()];
    assert_eq!(handle.beginning_offsets(&both).await.unwrap(), [(even.clone(), 0), (odd.clone(), 0)].into());
    assert_eq!(handle.end_offsets(&both).await.unwrap(), [(even.clone(), 5), (odd.clone(), 5)].into());
    let at = handle.offsets_for_time(&[(even.clone(), 35), (odd.clone(), 1_000)].into()).await.unwrap();
    assert_eq!(at, [(even.clone(), Some(2)), (odd.clone(), None)].into());
    let nobody = handle.seek(&("t", 7).into(), 0);
    assert!(matches!(nobody, Err(ConsumeError::NotAssigned { .. })), "{nobody:?}");
}

#[tokio::test]
async fn without_a_start_it_is_an_error() {
    let (_broker, client) = broker().await;
    create(&client, "t", 1).await;
    let mut consumer =
        client.consumer().assign([("t", 0)]).auto_offset_reset(OffsetReset::None).start().await.unwrap();
    let error = in_time(consumer.next()).await.unwrap().unwrap_err();
    assert!(matches!(error, ConsumeError::NoOffset { .. }), "{error}");
    assert!(!error.is_fatal());
}

/// A broker and a client in memory, on the test's paused clock.
async fn in_memory() -> (Broker, Client) {
    let net = Arc::new(MemoryNet::new());
    let broker = Broker::builder().ephemeral().net(net.clone()).start().await.unwrap();
    let client = Client::builder().bootstrap(broker.bootstrap()).net(net).build().await.unwrap();
    (broker, client)
}

/// Nobody leaves politely here: the group learns of it by silence, in virtual time.
#[tokio::test(start_paused = true)]
async fn a_member_that_vanished_is_replaced_after_its_session() {
    let (_broker, client) = in_memory().await;
    create(&client, "t", 1).await;
    let producer = client.producer().build().unwrap();
    producer.send(Record::to("t").value("0")).await.unwrap();
    let builder = client.consumer().group("g").topics(["t"]).from_beginning();
    let mut first = builder.clone().start().await.unwrap();
    take(&mut first, 1).await;
    let started = Instant::now();
    let mut second = builder.start().await.unwrap();
    drop(first);
    assert_eq!(number(&take(&mut second, 1).await[0]), 0);
    let waited = started.elapsed();
    assert!((40..60).contains(&waited.as_secs()), "the session timeout is 45 s, it took {waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_static_member_comes_back_without_a_rebalance() {
    let (_broker, client) = in_memory().await;
    create(&client, "t", 2).await;
    let builder = |id: &str, notes: &Arc<Notes>| {
        let listener = Arc::clone(notes) as Arc<dyn RebalanceListener>;
        client.consumer().group("g").topics(["t"]).group_instance_id(id).rebalance_listener(listener)
    };
    let (a, b) = (Arc::new(Notes::default()), Arc::new(Notes::default()));
    let owns = async |notes: &Notes| {
        while notes.owned.lock().unwrap().len() != 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let first = builder("a", &a).start().await.unwrap();
    let _second = builder("b", &b).start().await.unwrap();
    in_time(async { tokio::join!(owns(&a), owns(&b)) }).await;
    let before = b.owned.lock().unwrap().clone();
    first.close().await.unwrap();
    let _again = builder("a", &a).start().await.unwrap();
    in_time(owns(&a)).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(*b.owned.lock().unwrap(), before);
    assert_eq!(*b.revoked.lock().unwrap(), 0, "the other member noticed nothing");
}

/// A broker may hold a fetch of an idle partition for as long as it likes: a partition that is resumed
/// meanwhile is fetched at once.
#[tokio::test(start_paused = true)]
async fn a_resumed_partition_does_not_wait_for_an_idle_one() {
    let (_broker, client) = in_memory().await;
    create(&client, "t", 2).await;
    let producer = client.producer().build().unwrap();
    producer.send(Record::to("t").partition(1).value("1")).await.unwrap();
    let mut consumer = client
        .consumer()
        .assign([("t", 0), ("t", 1)])
        .from_beginning()
        .fetch_max_wait(Duration::from_secs(3_600))
        .request_timeout(Duration::from_secs(7_200))
        .start()
        .await
        .unwrap();
    let handle = consumer.handle();
    handle.pause(&[("t", 1).into()]);
    assert!(tokio::time::timeout(Duration::from_secs(1), consumer.next()).await.is_err());
    let started = Instant::now();
    handle.seek(&("t", 1).into(), 0).unwrap();
    handle.resume(&[("t", 1).into()]);
    assert_eq!(number(&take(&mut consumer, 1).await[0]), 1);
    assert!(started.elapsed() < Duration::from_secs(1));
}

/// Two producers and a consumer go on while the broker is stopped, politely and not, and started
/// again on the same address.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_lose_and_reorder_nothing() {
    const RECORDS: u64 = 20_000;
    let data = tempfile::tempdir().unwrap();
    let mut broker = Broker::builder().data_dir(data.path()).start().await.unwrap();
    let address = broker.bootstrap().to_owned();
    let client = Client::connect(&address).await.unwrap();
    create(&client, "t", 2).await;

    let producer = client.producer().build().unwrap();
    let writing = async {
        let mut deliveries = Vec::new();
        for index in 0..RECORDS {
            let record = Record::to("t").partition((index % 2) as i32).value(index.to_string());
            deliveries.push(producer.enqueue(record).await.unwrap());
            if index % 50 == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        for delivery in deliveries {
            delivery.await.unwrap();
        }
    };
    let reading = async {
        let mut consumer = client
            .consumer()
            .group("g")
            .topics(["t"])
            .from_beginning()
            .heartbeat_interval(Duration::from_millis(100))
            .start()
            .await
            .unwrap();
        // Records may come again after a restart, but never with a gap or out of order within what follows a rewind.
        let mut next = [0_u64, 1];
        while next.iter().any(|&next| next < RECORDS) {
            let record = consumer.next().await.unwrap().unwrap();
            let (partition, index) = (record.partition as usize, number(&record));
            assert_eq!(record.offset as u64, index / 2, "every record is there once");
            assert!(index <= next[partition], "a gap: {index} instead of {}", next[partition]);
            next[partition] = index + 2;
            if index % 100 == 0 {
                consumer.handle().commit_async([(record.topic_partition(), record.offset + 1)]);
            }
        }
        consumer.close().await.unwrap();
    };
    let restarting = async {
        for round in 0..4 {
            tokio::time::sleep(Duration::from_millis(300)).await;
            if round % 2 == 0 {
                broker.shutdown().await.unwrap();
            }
            drop(broker);
            // What was dropped may hold the directory for as long as the disk takes.
            broker = loop {
                tokio::time::sleep(Duration::from_millis(50)).await;
                match Broker::builder().data_dir(data.path()).listen(&address).start().await {
                    Err(BrokerError::Storage(LogError::Locked { .. })) => {}
                    started => break started.unwrap(),
                }
            };
        }
        broker
    };
    let (_, _, broker) = in_time(async { tokio::join!(writing, reading, restarting) }).await;
    broker.shutdown().await.unwrap();
}
