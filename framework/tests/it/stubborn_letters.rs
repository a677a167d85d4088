//! Dead letters that make trouble: headers that lie, topics that go away under a replay, and replays that meet.

#![allow(clippy::disallowed_methods)] // Tasks beside the test are what is looked at.

use std::time::Duration;

use klamm::client::testing::{Answer, FakeBroker};
use klamm::client::{ApiKey, Compression, ErrorCode, NewTopic, Record, TopicPartition};
use klamm::dead_letters::{DeadLetterError, DeadLetters, LetterFilter, Stays};
use klamm::testing::TestKit;
use tokio::time::{sleep, timeout};

const ORIGIN: &str = "kafka_dlt-original-topic";
/// Of the paused clock: whatever takes longer is stuck.
const LONG: Duration = Duration::from_secs(3_600);

fn letter(value: impl Into<String>) -> Record {
    Record::to("orders-dlt").key("k").value(value.into()).header(ORIGIN, "orders")
}

async fn topics(kit: &TestKit) -> DeadLetters {
    for topic in ["orders", "orders-dlt"] {
        kit.create_topic(topic, 1).await;
    }
    DeadLetters::new(kit.client(), "orders-dlt")
}

async fn values(kit: &TestKit, topic: &str) -> Vec<String> {
    kit.topic(topic.to_owned()).values::<String>().await
}

async fn open(letters: &DeadLetters) -> u64 {
    letters.summary(&LetterFilter::new()).await.unwrap().letters.open
}

/// A header that names what no topic can be called, however long, is that letter's trouble and not the others'.
#[klamm::test]
async fn a_header_that_names_no_topic_keeps_no_other_letter(kit: TestKit) {
    let letters = topics(&kit).await;
    let names = ["".to_owned(), "a/b".to_owned(), "x".repeat(300), "x".repeat(40_000), "\0".to_owned()];
    for name in &names {
        kit.send_record(Record::to("orders-dlt").key("k").value("odd").header(ORIGIN, name.clone())).await;
        kit.send_record(letter("good")).await;
    }
    let report = letters.replay().run().await.unwrap();
    assert_eq!((report.sent, report.stayed.values().sum::<u64>()), (5, 5), "{:?}", report.stayed.len());
}

/// A letter whose headers name a topic that this user may not even look at does not keep the others.
#[tokio::test(start_paused = true)]
async fn a_topic_that_is_forbidden_keeps_no_other_letter() {
    let broker = FakeBroker::start_in_memory().await.unwrap();
    broker.topic("orders", 1).topic("orders-dlt", 1).topic("forbidden", 1);
    let client = broker.client().await.unwrap();
    let producer = client.producer().build().unwrap();
    for origin in ["forbidden", "orders"] {
        producer.send(Record::to("orders-dlt").value("v").header(ORIGIN, origin)).await.unwrap();
    }
    broker.always_for("forbidden", ApiKey::Metadata, Answer::Error(ErrorCode::TopicAuthorizationFailed));
    let letters = DeadLetters::new(&client, "orders-dlt");
    let report = letters.replay().run().await.unwrap();
    assert_eq!((report.sent, report.stayed[&Stays::Forbidden("forbidden".into())]), (1, 1));
    let said = Stays::Forbidden("forbidden".into()).to_string();
    assert!(said.contains("may not"), "{said}");
}

/// Two that are at it at the same time, each with other letters: what the one did stays done.
#[klamm::test(deadline = "100000s")]
async fn two_replays_at_once_do_not_forget_what_the_other_did(kit: TestKit) {
    let letters = topics(&kit).await;
    kit.create_topic("parked", 1).await;
    for number in 0..40 {
        let key = if number % 2 == 0 { "even" } else { "odd" };
        kit.send_record(Record { key: Some(key.into()), ..letter(format!("{number}")) }).await;
    }
    let slow = letters.replay().only(LetterFilter::new().key("even")).per_second(2.0);
    let quick = async {
        sleep(Duration::from_secs(3)).await;
        letters.park("parked").only(LetterFilter::new().key("odd")).run().await
    };
    let (slow, quick) = tokio::join!(slow.run(), quick);
    assert_eq!((slow.unwrap().sent, quick.unwrap().sent), (20, 20));
    assert_eq!(open(&letters).await, 0, "what was parked is not open again");
    assert_eq!(letters.replay().run().await.unwrap().sent, 0);
}

/// Retention, or somebody who purges, takes letters away while they are replayed.
#[klamm::test(deadline = "100000s")]
async fn letters_that_are_purged_meanwhile_are_passed_by(kit: TestKit) {
    let letters = topics(&kit).await;
    let text = "x".repeat(100_000);
    for number in 0..60 {
        kit.send_record(letter(format!("{number} {text}"))).await;
    }
    let slow = letters.replay().per_second(5.0);
    let purge = async {
        sleep(Duration::from_secs(3)).await;
        letters.purge().partition(0).below(50).plan().await.unwrap().execute().await.unwrap();
    };
    let (report, ()) = tokio::join!(timeout(LONG, slow.run()), purge);
    let report = report.expect("it ends").unwrap();
    assert!((10..=60).contains(&report.sent), "{report:?}");
    assert_eq!(open(&letters).await, 0);
}

/// The dead-letter topic goes away, or is made anew with less in it: a replay that reads it ends, and says why.
#[klamm::test(deadline = "100000s")]
async fn a_topic_that_goes_away_ends_the_replay(kit: TestKit) {
    for (anew, dry_run) in [(false, false), (true, false), (false, true), (true, true)] {
        let letters = topics(&kit).await;
        let text = "x".repeat(500_000);
        for number in 0..100 {
            kit.send_record(letter(format!("{number} {text}"))).await;
        }
        let slow = letters.replay().per_second(5.0);
        let slow = if dry_run { slow.dry_run() } else { slow };
        let change = async {
            sleep(Duration::from_secs(3)).await;
            kit.client().admin().delete_topics(&["orders-dlt"]).await.unwrap();
            if anew {
                kit.create_topic("orders-dlt", 1).await;
                kit.send_record(letter("new")).await;
            }
        };
        let (report, ()) = tokio::join!(timeout(LONG, slow.run()), change);
        let ended = report.expect("it ends");
        assert!(dry_run || ended.is_err(), "{ended:?}");
        kit.client().admin().delete_topics(&["orders"]).await.unwrap();
        if anew {
            assert_eq!(open(&letters).await, 1, "the new one");
            kit.client().admin().delete_topics(&["orders-dlt"]).await.unwrap();
        }
    }
}

/// As large as the topics allow, which is more than producers send unless told otherwise.
#[klamm::test]
async fn letters_of_every_size_that_topics_allow_go_back(kit: TestKit) {
    let large =
        |name: &str| NewTopic::new(name).partitions(1).replication(1).config("max.message.bytes", "8000000");
    kit.client().admin().create_topics(&[large("orders"), large("orders-dlt")]).await.unwrap();
    let producer = kit.client().producer().max_request_bytes(10_000_000).build().unwrap();
    producer.send(letter("x".repeat(5_000_000))).await.unwrap();
    let letters = DeadLetters::new(kit.client(), "orders-dlt");
    for exactly_once in [false, true] {
        let letters = letters.clone().group(format!("{exactly_once}"));
        let replay = if exactly_once { letters.replay().exactly_once() } else { letters.replay() };
        assert_eq!(replay.run().await.unwrap().sent, 1);
    }
}

/// A letter that is larger than the topics allow, except that it lies there compressed.
#[klamm::test]
async fn letters_that_fit_compressed_go_back_compressed(kit: TestKit) {
    let letters = topics(&kit).await;
    let builder = kit.client().producer().compression(Compression::Zstd);
    let producer = builder.max_request_bytes(10_000_000).build().unwrap();
    producer.send(letter("x".repeat(5_000_000))).await.unwrap();
    assert_eq!(letters.replay().run().await.unwrap().sent, 1);
    assert_eq!(values(&kit, "orders").await[0].len(), 5_000_000);
}

#[klamm::test]
async fn a_rate_that_no_clock_can_count_is_refused(kit: TestKit) {
    let letters = topics(&kit).await;
    for wrong in [1e-19, 1e-300, f64::MIN_POSITIVE] {
        let refused = letters.replay().per_second(wrong).run().await;
        assert!(matches!(refused, Err(DeadLetterError::Rate { .. })), "{wrong}: {refused:?}");
    }
}

/// Somebody answered "yes" to a question about another topic of the name.
#[klamm::test]
async fn a_plan_to_purge_is_of_the_topic_that_was_looked_at(kit: TestKit) {
    let letters = topics(&kit).await;
    for number in 0..5 {
        kit.send_record(letter(format!("{number}"))).await;
    }
    let plan = letters.purge().everything().plan().await.unwrap();
    kit.client().admin().delete_topics(&["orders-dlt"]).await.unwrap();
    kit.create_topic("orders-dlt", 1).await;
    for number in 0..5 {
        kit.send_record(letter(format!("new {number}"))).await;
    }
    let refused = plan.execute().await;
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!(values(&kit, "orders-dlt").await.len(), 5);
}

/// Headers of other programs: numbers as text, of odd lengths, twice, without a value.
#[klamm::test]
async fn foreign_headers_are_read_or_left_alone(kit: TestKit) {
    let letters = topics(&kit).await;
    let odd: [&[u8]; 7] = [b"0", b"", &[0xff; 4], &[0; 9], &[0x7f; 8], &[0, 0, 0, 9], b"partition"];
    for partition in odd {
        let record = letter("odd").header("kafka_dlt-original-partition", partition.to_vec());
        let record = record.header("kafka_dlt-original-offset", b"12".to_vec());
        let record = record.header("klamm_dlt-replays", partition.to_vec()).header(ORIGIN, "another");
        let mut record = record.header("own", "kept").header("own", "twice");
        record.headers.push(("kafka_dlt-exception-message".into(), None));
        kit.send_record(record).await;
    }
    let report = letters.replay().replays_max(u32::MAX).run().await.unwrap();
    let stayed = report.stayed.get(&Stays::TooManyReplays).copied().unwrap_or_default();
    assert_eq!(report.sent + stayed, 7, "{report:?}");
    for record in kit.topic("orders").records().await {
        assert_eq!(record.headers.all("own").count(), 2);
        assert_eq!(record.headers.all("klamm_dlt-replays").count(), 1);
        assert!(record.headers.last("kafka_dlt-exception-message").is_none());
    }
}

/// New letters come in all the while: the run ends, and the next takes the rest, each once.
#[klamm::test(deadline = "100000s")]
async fn letters_that_come_in_meanwhile_are_left_for_the_next(kit: TestKit) {
    let letters = topics(&kit).await;
    for number in 0..30 {
        kit.send_record(letter(format!("{number:03}"))).await;
    }
    let slow = letters.replay().per_second(5.0).run();
    let more = async {
        for number in 30..100 {
            sleep(Duration::from_millis(100)).await;
            kit.send_record(letter(format!("{number:03}"))).await;
        }
    };
    let (report, ()) = tokio::join!(slow, more);
    assert_eq!(report.unwrap().sent, 30);
    assert_eq!(letters.replay().run().await.unwrap().sent, 70);
    let all: Vec<String> = (0..100).map(|number| format!("{number:03}")).collect();
    assert_eq!(values(&kit, "orders").await, all);
    assert_eq!(
        kit.committed("klamm-dlt-orders-dlt", "orders-dlt", 0).await,
        Some(100),
        "{:?}",
        TopicPartition::new("orders-dlt", 0)
    );
}
