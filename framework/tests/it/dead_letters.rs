//! Dead letters as a tool: counted, replayed, parked and purged, also when a run ends in the middle.

use std::future::{Future, poll_fn};
use std::ops::ControlFlow;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use klamm::client::{NewTopic, OffsetAndMetadata, Record, TimestampType, TopicPartition};
use klamm::dead_letters::{
    DeadLetter, DeadLetterError, DeadLetters, HeaderText, LetterFilter, ReplayReport, Stays,
};
use klamm::prelude::*;
use klamm::testing::TestKit;
use tokio::time::{Instant, timeout};

use crate::seen::Seen;

/// Fails on everything, in words that say on what.
async fn refuse(Value(text): Value<String>) -> Result<(), String> {
    Err(format!("{text} is refused"))
}

/// A topic of three partitions whose records a listener made into dead letters: `a0`, `a1`, ... in partition 0 and so
/// on.
async fn letters_of_three_partitions(kit: &TestKit, each: usize) -> DeadLetters {
    for topic in ["orders", "orders-dlt"] {
        kit.create_topic(topic, 3).await;
    }
    let policy = FailurePolicy::new().dead_letter();
    let app = kit
        .app()
        .listener(Listener::on("orders").group("billing").on_failure(policy).handle(refuse))
        .start()
        .await;
    for (partition, name) in (0..).zip(["a", "b", "c"]) {
        for number in 0..each {
            kit.send_to("orders", partition, format!("{name}{number}"), format!("{name}{number}")).await;
        }
    }
    app.handled("refuse", 3 * each as u64).await;
    app.stop().await;
    DeadLetters::new(kit.client(), "orders-dlt")
}

/// The values of a partition, in order.
async fn values(kit: &TestKit, topic: &str, partition: i32) -> Vec<String> {
    let records = kit.topic(topic.to_owned()).records().await;
    let of_partition = records.iter().filter(|record| record.partition == partition);
    of_partition.map(|record| String::from_utf8(record.value.clone().unwrap().to_vec()).unwrap()).collect()
}

fn sent(report: &ReplayReport) -> (u64, u64, u64) {
    (report.sent, report.left_out, report.done_before)
}

#[klamm::test]
async fn letters_are_counted_by_where_they_came_from_and_why(kit: TestKit) {
    let letters = letters_of_three_partitions(&kit, 4).await;
    let summary = letters.summary(&LetterFilter::new()).await.unwrap();
    assert_eq!((summary.letters.letters, summary.letters.open, summary.letters.came_back), (12, 12, 0));
    let (cause, count) = summary.causes.first_key_value().unwrap();
    assert_eq!((cause.origin.as_deref(), cause.group.as_deref()), (Some("orders"), Some("billing")));
    assert!(cause.error.ends_with("String") && count.letters == 12 && count.oldest_ms <= count.newest_ms);

    let some = LetterFilter::new().error("A1 is").error("b3");
    assert_eq!(letters.summary(&some).await.unwrap().letters.letters, 2);
    let mut found = Vec::new();
    letters
        .each(&LetterFilter::new().partition(1), |letter, is_open| {
            found.push((letter.record.offset, is_open));
            if found.len() == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .await
        .unwrap();
    assert_eq!(found, [(0, true), (1, true)]);

    let letter = letters.at(2, 3).await.unwrap().unwrap();
    let origin = letter.origin.unwrap();
    assert_eq!((&*origin.topic, origin.partition, origin.offset), ("orders", Some(2), Some(3)));
    assert_eq!(letter.cause.unwrap().message.as_deref(), Some("c3 is refused"));
    assert_eq!(letters.at(2, 4).await.unwrap(), None);
    let missing = letters.at(3, 0).await.unwrap_err();
    assert_eq!(missing.to_string(), "topic orders-dlt has 3 partitions and no partition 3");
    assert_eq!(*DeadLetters::topics(kit.client()).await.unwrap(), ["orders-dlt".into()]);
    let nowhere =
        DeadLetters::new(kit.client(), "no-such-dlt").summary(&LetterFilter::new()).await.unwrap_err();
    assert!(matches!(nowhere, DeadLetterError::Topic { .. }), "{nowhere}");
}

#[klamm::test]
async fn a_replay_takes_every_letter_to_its_partition_once_and_in_order(kit: TestKit) {
    for exactly_once in [false, true] {
        let kit = if exactly_once { TestKit::in_process().await } else { kit.clone() };
        let letters = letters_of_three_partitions(&kit, 5).await;
        let replay = || if exactly_once { letters.replay().exactly_once() } else { letters.replay() };
        let dry = replay().dry_run().run().await.unwrap();
        assert_eq!((sent(&dry), dry.sent_to["orders"]), ((15, 0, 0), 15));
        assert_eq!(values(&kit, "orders", 0).await.len(), 5, "a dry run sends nothing");

        let report = replay().run().await.unwrap();
        assert_eq!((sent(&report), report.stayed.len()), ((15, 0, 0), 0));
        for (partition, name) in (0..).zip(["a", "b", "c"]) {
            let once: Vec<String> = (0..5).map(|number| format!("{name}{number}")).collect();
            assert_eq!(values(&kit, "orders", partition).await, [once.clone(), once].concat());
        }
        let back = kit.topic("orders").records().await.pop().unwrap();
        let names: Vec<_> = back.headers.iter().map(|(name, _)| name.to_owned()).collect();
        assert_eq!(names, ["klamm_dlt-replays"], "nothing is said of the failure any more");

        let again = replay().run().await.unwrap();
        assert_eq!(sent(&again), (0, 0, 0), "what is done is not even read again");
        let summary = letters.summary(&LetterFilter::new()).await.unwrap();
        assert_eq!((summary.letters.letters, summary.letters.open), (15, 0));
    }
}

/// A filter leaves letters out, and they stay open: a later replay takes just those.
#[klamm::test]
async fn what_a_filter_left_out_is_open_for_the_next_replay(kit: TestKit) {
    let letters = letters_of_three_partitions(&kit, 10).await;
    let even = ["0", "2", "4", "6", "8"]
        .into_iter()
        .fold(LetterFilter::new(), |filter, digit| filter.error(format!("{digit} is refused")));
    let report = letters.replay().only(even.clone()).run().await.unwrap();
    assert_eq!(sent(&report), (15, 15, 0));
    let report = letters.replay().only(even).run().await.unwrap();
    assert_eq!((report.sent, report.left_out), (0, 15));
    let report = letters.replay().only(LetterFilter::new().key("a1").key("c9")).run().await.unwrap();
    assert_eq!((report.sent, report.left_out), (2, 13));
    assert_eq!(letters.summary(&LetterFilter::new()).await.unwrap().letters.open, 13);
    let report = letters.replay().run().await.unwrap();
    assert_eq!((report.sent, report.left_out), (13, 0));
    for partition in 0..3 {
        let mut back = values(&kit, "orders", partition).await.split_off(10);
        back.sort();
        back.dedup();
        assert_eq!(back.len(), 10, "each once");
    }
}

/// Dropped after every number of polls, as a process that is killed, and begun again: nothing is lost, and in
/// transactions nothing comes twice.
#[klamm::test(deadline = "1000000s")]
async fn a_replay_that_ends_anywhere_goes_on_where_it_was(kit: TestKit) {
    const EACH: usize = 8;
    let letters = letters_of_three_partitions(&kit, EACH).await;
    for exactly_once in [false, true] {
        let (mut twice, mut ended) = (0, false);
        for polls in 0.. {
            let target = format!("mended-{exactly_once}-{polls}");
            kit.create_topic(&target, 3).await;
            // Slow, so that it takes several sendings.
            let letters = letters.clone().group(target.as_str());
            let replay = letters.replay().to(target.as_str()).per_second(8.0);
            let replay = if exactly_once { replay.exactly_once() } else { replay };
            ended = run_until(polls, replay.clone().run()).await.is_some();
            replay.run().await.unwrap();
            for (partition, name) in (0..).zip(["a", "b", "c"]) {
                let all: Vec<String> = (0..EACH).map(|number| format!("{name}{number}")).collect();
                let found = committed_values(&kit, &target, partition).await;
                let mut first_times = found.clone();
                first_times.sort();
                first_times.dedup();
                assert_eq!(first_times, all, "after {polls} polls: none is missing");
                assert!(!exactly_once || found == all, "after {polls} polls: {found:?}");
                twice += found.len() - all.len();
            }
            if ended {
                break;
            }
        }
        assert!(ended && (exactly_once || twice > 0), "no run was dropped where it matters");
    }
}

/// What a future gives, if it does so within so many polls; then it is dropped.
async fn run_until<T>(polls: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|cx| match (left, future.as_mut().poll(cx)) {
        (_, Poll::Ready(given)) => Poll::Ready(Some(given)),
        (0, Poll::Pending) => Poll::Ready(None),
        (_, Poll::Pending) => {
            left -= 1;
            Poll::Pending
        }
    })
    .await
}

/// As readers of committed records see them.
async fn committed_values(kit: &TestKit, topic: &str, partition: i32) -> Vec<String> {
    use klamm::client::IsolationLevel;
    let at = TopicPartition::new(topic, partition);
    let consumer = kit.client().consumer().assign([at.clone()]).isolation(IsolationLevel::ReadCommitted);
    let mut consumer = consumer.from_beginning().start().await.unwrap();
    let mut found = Vec::new();
    while let Ok(Some(record)) = timeout(Duration::from_secs(5), consumer.next()).await {
        found.push(String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap());
    }
    found
}

#[klamm::test]
async fn a_letter_that_comes_back_too_often_stays(kit: TestKit) {
    for topic in ["orders", "orders-dlt"] {
        kit.create_topic(topic, 1).await;
    }
    let policy = FailurePolicy::new().dead_letter();
    let app = kit
        .app()
        .listener(Listener::on("orders").group("billing").on_failure(policy).handle(refuse))
        .start()
        .await;
    kit.send("orders", "k", "poison").await;
    let letters = DeadLetters::new(kit.client(), "orders-dlt");
    for round in 1..=3 {
        app.handled("refuse", round).await;
        let report = letters.replay().run().await.unwrap();
        assert_eq!(report.sent, 1, "round {round}");
    }
    app.handled("refuse", 4).await;
    let report = letters.replay().run().await.unwrap();
    assert_eq!((report.sent, report.stayed[&Stays::TooManyReplays]), (0, 1));
    let summary = letters.summary(&LetterFilter::new()).await.unwrap();
    assert_eq!((summary.letters.letters, summary.letters.open, summary.letters.came_back), (4, 1, 3));
    assert_eq!(letters.at(0, 3).await.unwrap().unwrap().replays, 3);
    let report = letters.replay().replays_max(4).run().await.unwrap();
    assert_eq!(report.sent, 1);
}

#[klamm::test]
async fn parked_letters_are_as_they_were_and_are_not_replayed(kit: TestKit) {
    let letters = letters_of_three_partitions(&kit, 3).await;
    kit.create_topic("orders-parked", 3).await;
    let report = letters.park("orders-parked").only(LetterFilter::new().partition(1)).run().await.unwrap();
    assert_eq!((report.sent, report.sent_to["orders-parked"]), (3, 3));
    let parked = kit.topic("orders-parked").records().await;
    let original = kit.topic("orders-dlt").records().await;
    for (parked, original) in parked.iter().zip(original.iter().filter(|record| record.partition == 1)) {
        assert_eq!((parked.partition, parked.timestamp_ms), (1, original.timestamp_ms));
        assert_eq!((&parked.headers, &parked.value), (&original.headers, &original.value));
    }
    assert_eq!(letters.replay().run().await.unwrap().sent, 6, "the others");

    let refused = letters.park("orders-dlt").run().await.unwrap_err();
    assert_eq!(refused.to_string(), "letters of orders-dlt cannot go to orders-dlt itself");
    let nowhere = letters.clone().group("another").park("no-such-topic").run().await.unwrap();
    assert_eq!((nowhere.sent, nowhere.stayed[&Stays::NoTopic("no-such-topic".into())]), (0, 9));
    let topics = kit.client().admin().list_topics().await.unwrap();
    assert!(topics.iter().all(|topic| &*topic.name != "no-such-topic"), "looking makes no topic");
}

#[klamm::test]
async fn letters_that_cannot_go_stay_and_say_why(kit: TestKit) {
    kit.create_topic("t-dlt", 1).await;
    kit.send("t-dlt", "k", "no headers").await;
    kit.send_record(Record::to("t-dlt").value("v").header("kafka_dlt-original-topic", "gone")).await;
    kit.send_record(Record::to("t-dlt").value("v").header("kafka_dlt-original-topic", "t-dlt")).await;
    let letters = DeadLetters::new(kit.client(), "t-dlt");
    let report = letters.replay().run().await.unwrap();
    assert_eq!(report.sent, 0);
    let reasons: Vec<_> = report.stayed.keys().cloned().collect();
    assert_eq!(reasons, [Stays::NoOrigin, Stays::NoTopic("gone".into()), Stays::OwnTopic]);
    kit.create_topic("mended", 1).await;
    assert_eq!(letters.replay().to("mended").run().await.unwrap().sent, 3);
    for wrong in [0.0, -1.0, f64::NAN] {
        assert!(matches!(letters.replay().per_second(wrong).run().await, Err(DeadLetterError::Rate { .. })));
    }
}

#[klamm::test(needs_paused_clock)]
async fn a_rate_is_kept(kit: TestKit) {
    let letters = letters_of_three_partitions(&kit, 100).await;
    let started = Instant::now();
    let report = letters.replay().per_second(10.0).run().await.unwrap();
    let took = started.elapsed();
    assert_eq!(report.sent, 300);
    assert!((Duration::from_secs(29)..Duration::from_secs(32)).contains(&took), "{took:?}");
}

/// A letter that does not fit where it goes: those before it in its partition are done, it and nothing behind it is
/// lost.
#[klamm::test]
async fn a_letter_that_is_not_taken_is_named_and_stays_open(kit: TestKit) {
    kit.create_topic("t-dlt", 1).await;
    let small = NewTopic::new("small").partitions(1).replication(1).config("max.message.bytes", "2000");
    kit.client().admin().create_topics(&[small]).await.unwrap();
    for size in [10, 10, 5_000, 10] {
        // Letters go compressed: text that does not get smaller.
        let mut state = 1_u32;
        let noise = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            char::from(b'0' + (state >> 24) as u8 % 64)
        });
        let value: String = noise.take(size).collect();
        let letter = Record::to("t-dlt").value(value).header("kafka_dlt-original-topic", "small");
        kit.send_record(letter).await;
    }
    let letters = DeadLetters::new(kit.client(), "t-dlt");
    let refused = letters.replay().run().await.unwrap_err().to_string();
    assert!(refused.starts_with("t-dlt-0, offset "), "{refused}");
    assert!(letters.summary(&LetterFilter::new()).await.unwrap().letters.open >= 1);
    let report = letters.replay().only(LetterFilter::new().offsets(..2)).run().await.unwrap();
    let rest = letters.replay().only(LetterFilter::new().offsets(3..)).run().await.unwrap();
    assert!(report.sent <= 2 && rest.sent <= 1);
    assert_eq!(letters.summary(&LetterFilter::new()).await.unwrap().letters.open, 1, "the large one");
    let mut sizes: Vec<_> = values(&kit, "small", 0).await.iter().map(String::len).collect();
    sizes.dedup();
    assert_eq!(sizes, [10]);
}

/// A log that ends in markers of transactions, and holds letters that were never committed.
#[klamm::test]
async fn aborted_letters_and_markers_are_no_letters(kit: TestKit) {
    for topic in ["orders", "orders-dlt"] {
        kit.create_topic(topic, 1).await;
    }
    let mut producer = kit.client().producer().transactional_id("writer").build().unwrap();
    for (value, commit) in [("1", true), ("2", false), ("3", true), ("4", false)] {
        let transaction = producer.begin().await.unwrap();
        let letter =
            Record::to("orders-dlt").key("k").value(value).header("kafka_dlt-original-topic", "orders");
        transaction.send(letter).await.unwrap();
        if commit { transaction.commit().await.unwrap() } else { transaction.abort().await.unwrap() }
    }
    let letters = DeadLetters::new(kit.client(), "orders-dlt");
    assert_eq!(letters.replay().run().await.unwrap().sent, 2);
    assert_eq!(values(&kit, "orders", 0).await, ["1", "3"]);
    assert_eq!(
        kit.committed("klamm-dlt-orders-dlt", "orders-dlt", 0).await,
        Some(8),
        "behind the last marker"
    );
    assert_eq!(letters.at(0, 1).await.unwrap(), None, "a marker");
}

#[klamm::test]
async fn purging_takes_what_is_done_and_more_only_on_request(kit: TestKit) {
    let letters = letters_of_three_partitions(&kit, 6).await;
    assert_eq!(letters.purge().plan().await.unwrap().offsets(), 0, "nothing is done");
    letters.replay().only(LetterFilter::new().offsets(..4).partition(0)).run().await.unwrap();
    let plan = letters.purge().plan().await.unwrap();
    let partitions: Vec<_> = plan.partitions().map(|(at, from, up_to)| (at.partition, from, up_to)).collect();
    assert_eq!((partitions, plan.open()), (vec![(0, 0, 4)], 0));
    plan.execute().await.unwrap();
    assert_eq!(values(&kit, "orders-dlt", 0).await, ["a4", "a5"]);
    assert_eq!(letters.summary(&LetterFilter::new()).await.unwrap().letters.letters, 14);

    let plan = letters.purge().partition(1).below(3).plan().await.unwrap();
    assert_eq!((plan.offsets(), plan.open()), (3, 3));
    plan.execute().await.unwrap();
    let future = letters.purge().before_ms(i64::MAX - 1).plan().await.unwrap();
    assert_eq!(future.offsets(), 2 + 3 + 6);
    assert_eq!(letters.purge().before_ms(0).plan().await.unwrap().offsets(), 0);
    assert!(letters.purge().partition(3).plan().await.is_err());
    letters.purge().everything().plan().await.unwrap().execute().await.unwrap();
    assert_eq!(letters.summary(&LetterFilter::new()).await.unwrap().letters.letters, 0);
    assert_eq!(letters.replay().run().await.unwrap(), ReplayReport::default());
}

/// The group's offsets were of a topic that is gone: its successor's letters are not taken for done.
#[klamm::test]
async fn a_topic_that_was_made_anew_begins_anew(kit: TestKit) {
    let letters = letters_of_three_partitions(&kit, 2).await;
    letters.replay().run().await.unwrap();
    kit.client().admin().delete_topics(&["orders-dlt"]).await.unwrap();
    kit.create_topic("orders-dlt", 3).await;
    for _ in 0..3 {
        let letter =
            Record::to("orders-dlt").value("new").partition(0).header("kafka_dlt-original-topic", "orders");
        kit.send_record(letter).await;
    }
    assert_eq!(letters.replay().run().await.unwrap().sent, 3);
    // An offset that somebody else committed under the group's name says nothing either.
    let other = DeadLetters::new(kit.client(), "orders-dlt").group("other");
    let offsets = [(TopicPartition::new("orders-dlt", 0), OffsetAndMetadata::new(2))].into();
    kit.client().admin().alter_group_offsets("other", &offsets).await.unwrap();
    assert_eq!(other.replay().run().await.unwrap().sent, 3);
}

/// A group with members takes no commits from others: that is found before anything is sent.
#[klamm::test]
async fn a_group_that_is_in_use_is_refused_before_anything_is_sent(kit: TestKit) {
    let letters = letters_of_three_partitions(&kit, 1).await.group("readers");
    let seen = Seen::default();
    let listener = Listener::on("other").group("readers").handle(crate::seen::note);
    kit.create_topic("other", 1).await;
    let app = kit.app().state(seen).listener(listener).start().await;
    kit.send("other", "k", "v").await;
    app.handled("note", 1).await;
    let refused = letters.replay().run().await.unwrap_err();
    assert!(matches!(refused, DeadLetterError::Consume(_)), "{refused}");
    assert_eq!(values(&kit, "orders", 0).await, ["a0"]);
}

/// A second replay in transactions ends the first: neither sends what the other has sent.
#[klamm::test]
async fn of_two_replays_in_transactions_the_second_goes_on(kit: TestKit) {
    let letters = letters_of_three_partitions(&kit, 50).await;
    let first = letters.replay().exactly_once().per_second(20.0);
    let second = letters.replay().exactly_once();
    let later = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        second.run().await
    };
    let (first, second) = tokio::join!(first.run(), later);
    assert!(matches!(first, Err(DeadLetterError::Transaction(_))), "{first:?}");
    let second = second.unwrap().sent;
    assert!((1..150).contains(&second), "{second}");
    for (partition, name) in (0..).zip(["a", "b", "c"]) {
        let all: Vec<String> = (0..50).map(|number| format!("{name}{number}")).collect();
        assert_eq!(committed_values(&kit, "orders", partition).await[50..], all);
    }
}

/// The bytes that spring-kafka wrote, as they came from a service of it.
#[test]
fn letters_of_spring_kafka_are_read() {
    let mut letters: Vec<ConsumerRecord> = Vec::new();
    for line in include_str!("spring_letters.txt").lines().filter(|line| !line.starts_with('#')) {
        let words: Vec<&str> = line.split(' ').collect();
        if let ["letter", topic, partition, offset, timestamp_ms] = words[..] {
            letters.push(ConsumerRecord {
                topic: topic.into(),
                partition: partition.parse().unwrap(),
                offset: offset.parse().unwrap(),
                timestamp_ms: timestamp_ms.parse().unwrap(),
                timestamp_type: TimestampType::CreateTime,
                leader_epoch: None,
                key: None,
                value: None,
                headers: Headers::new(),
            });
            continue;
        }
        let hex = words.get(1).unwrap_or(&"").as_bytes();
        let byte = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap();
        let value: Vec<u8> = hex.chunks(2).map(byte).collect();
        letters.last_mut().unwrap().headers.push(words[0], Some(value.into()));
    }
    let letters: Vec<DeadLetter> = letters.into_iter().map(DeadLetter::new).collect();
    for (letter, origin, group, text) in [
        (&letters[0], "spring-orders", "spring-billing", "no such order: one"),
        (&letters[1], "spring-payments", "spring-paying", "no such order: two"),
    ] {
        let found = letter.origin.as_ref().unwrap();
        assert_eq!((&*found.topic, found.partition, found.offset), (origin, Some(0), Some(0)));
        assert_eq!(
            (found.group.as_deref(), found.timestamp_type),
            (Some(group), Some(TimestampType::CreateTime))
        );
        // It failed within a minute.
        let waited_ms = letter.record.timestamp_ms - found.timestamp_ms.unwrap();
        assert!((0..60_000).contains(&waited_ms), "{waited_ms}");
        let cause = letter.cause.as_ref().unwrap();
        assert_eq!(cause.name(), "java.lang.IllegalStateException");
        let wrapper = "org.springframework.kafka.listener.ListenerExecutionFailedException";
        assert_eq!(cause.type_name.as_deref(), Some(wrapper));
        assert!(cause.message.as_ref().unwrap().ends_with(text), "{cause:?}");
        assert!(cause.stack_trace.as_ref().unwrap().starts_with(wrapper));
    }
    let attempts = letters[1].readable_headers().find(|(name, _)| *name == "retry_topic-attempts");
    assert_eq!(attempts.map(|(_, text)| text), Some(HeaderText::Number(2)));
}
