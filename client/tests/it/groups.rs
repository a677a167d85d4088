//! What a member of a group promises, whatever else goes on.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use klamm_client::testing::{Answer, FakeBroker};
use klamm_client::{
    Client, ConsumeError, Consumer, ConsumerHandle, ErrorCode, OffsetReset, RebalanceListener, Record,
    TopicPartition, async_trait,
};
use klamm_protocol::ApiKey;
use klamm_protocol::messages::{OffsetFetchRequest, OffsetFetchResponse};
use tokio::time::{Instant, timeout};

use crate::scripted::{self, TOPIC};

const SECOND: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Notes {
    fn note(&self, what: &str, partitions: &[TopicPartition]) {
        self.0.lock().unwrap().push(format!("{what} {}", partitions.len()));
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

#[async_trait]
impl RebalanceListener for Notes {
    async fn assigned(&self, partitions: &[TopicPartition]) {
        self.note("assigned", partitions);
    }

    async fn revoked(&self, partitions: &[TopicPartition]) {
        self.note("revoked", partitions);
    }

    async fn lost(&self, partitions: &[TopicPartition]) {
        self.note("lost", partitions);
    }
}

async fn broker(records: usize) -> (FakeBroker, Client) {
    let broker = scripted::start(2).await;
    let client = broker.client().await.unwrap();
    let producer = client.producer().build().unwrap();
    for number in 0..records {
        producer.send(Record::to(TOPIC).partition(0).value(number.to_string())).await.unwrap();
    }
    (broker, client)
}

async fn member(client: &Client, topics: &[&str], notes: &Arc<Notes>) -> Consumer {
    client
        .consumer()
        .group("g")
        .topics(topics.iter().copied())
        .from_beginning()
        .session_timeout(6 * SECOND)
        .heartbeat_interval(SECOND)
        .rebalance_listener(Arc::clone(notes) as Arc<dyn RebalanceListener>)
        .start()
        .await
        .unwrap()
}

async fn offsets(consumer: &mut Consumer, count: usize) -> Vec<i64> {
    let mut offsets = Vec::new();
    while offsets.len() < count {
        let record = timeout(60 * SECOND, consumer.next()).await.unwrap().unwrap().unwrap();
        offsets.push(record.offset);
    }
    offsets
}

/// Whatever refreshes metadata faster than heartbeats are due must not put them off: the group would expel every member
/// of the process.
#[tokio::test(start_paused = true)]
async fn answers_about_topics_do_not_put_heartbeats_off() {
    let (broker, client) = broker(1).await;
    let notes = Arc::new(Notes::default());
    let mut consumer = member(&client, &[TOPIC], &notes).await;
    offsets(&mut consumer, 1).await;
    let beats = || broker.requests(ApiKey::Heartbeat);
    let before = beats();
    for _ in 0..300 {
        // Each asks for metadata.
        let _ = timeout(SECOND / 10, client.partition_count("mispelt")).await;
    }
    assert_eq!(broker.expelled("g"), 0);
    let beats = beats() - before;
    assert!((28..=32).contains(&beats), "{beats} heartbeats in 30 s");
    assert_eq!(notes.all(), ["assigned 2"]);
}

/// A look-up for a topic that does not exist hangs with its broker: heartbeats go on.
#[tokio::test(start_paused = true)]
async fn a_look_up_that_hangs_does_not_hold_up_heartbeats() {
    let (broker, client) = broker(1).await;
    let notes = Arc::new(Notes::default());
    let mut consumer = member(&client, &[TOPIC, "mispelt"], &notes).await;
    offsets(&mut consumer, 1).await;
    broker.next(ApiKey::Metadata, 100, Answer::Never);
    tokio::time::sleep(40 * SECOND).await;
    assert_eq!((broker.expelled("g"), notes.all()), (0, vec!["assigned 2".to_owned()]));
}

/// A member whose coordinator falls silent stops handing out within the session timeout.
#[tokio::test(start_paused = true)]
async fn a_member_without_a_coordinator_knows_that_it_is_expelled() {
    let (broker, client) = broker(100).await;
    let notes = Arc::new(Notes::default());
    let mut consumer = member(&client, &[TOPIC], &notes).await;
    offsets(&mut consumer, 2).await;
    broker.next(ApiKey::Heartbeat, 1_000, Answer::Never);
    broker.next(ApiKey::JoinGroup, 1_000, Answer::Never);
    tokio::time::sleep(8 * SECOND).await;
    assert_eq!(notes.all(), ["assigned 2", "lost 2"]);
    assert_eq!(consumer.handle().assignment(), []);
    assert!(timeout(SECOND, consumer.next()).await.is_err(), "nothing is handed out");
}

/// Records that were handed out and not committed come again, also to the same member.
#[tokio::test(start_paused = true)]
async fn what_was_handed_out_but_not_committed_comes_again() {
    let (broker, client) = broker(6).await;
    let notes = Arc::new(Notes::default());
    let mut consumer = member(&client, &[TOPIC], &notes).await;
    assert_eq!(offsets(&mut consumer, 4).await, [0, 1, 2, 3]);
    broker.expel("g");
    tokio::time::sleep(5 * SECOND).await;
    assert_eq!(notes.all(), ["assigned 2", "lost 2", "assigned 2"]);
    assert_eq!(offsets(&mut consumer, 1).await, [0]);
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_cannot_be_read_is_an_error_in_time() {
    let (broker, client) = broker(1).await;
    broker.always_for("secret", ApiKey::Metadata, Answer::Error(ErrorCode::TopicAuthorizationFailed));
    for (name, expected) in
        [("no name!", ErrorCode::InvalidTopicException), ("secret", ErrorCode::TopicAuthorizationFailed)]
    {
        let mut consumer = member(&client, &[name], &Arc::default()).await;
        let error = timeout(5 * SECOND, consumer.next()).await.unwrap().unwrap().unwrap_err();
        match &error {
            ConsumeError::Topic { topic, code } => assert_eq!((&**topic, *code), (name, expected)),
            other => panic!("{other}"),
        }
        assert!(!error.is_fatal());
        consumer.handle().subscribe([TOPIC]).unwrap();
        offsets(&mut consumer, 1).await;
    }
}

/// The first commit's answer is lost, and it is tried again: behind the second one it would set the offset back.
#[tokio::test(start_paused = true)]
async fn a_later_commit_is_not_overtaken() {
    let (broker, client) = broker(1).await;
    let mut consumer = member(&client, &[TOPIC], &Arc::default()).await;
    offsets(&mut consumer, 1).await;
    broker.next(ApiKey::OffsetCommit, 1, Answer::DisconnectBefore);
    let handle = consumer.handle();
    let at = |offset: i64| [((TOPIC, 0).into(), offset)];
    // The first is polled, and so asked for, first.
    let (early, late) = tokio::join!(handle.commit(at(5)), handle.commit(at(9)));
    early.unwrap();
    late.unwrap();
    assert_eq!(broker.committed("g", (TOPIC, 0)), Some(9));
}

#[tokio::test(start_paused = true)]
async fn what_a_member_does_not_own_it_may_not_commit() {
    let (broker, client) = broker(1).await;
    let mut consumer = member(&client, &[TOPIC], &Arc::default()).await;
    offsets(&mut consumer, 1).await;
    let error =
        consumer.handle().commit([((TOPIC, 0).into(), 1), (("other", 3).into(), 7)]).await.unwrap_err();
    assert_eq!(error.to_string(), "other-3 is not assigned to this consumer");
    assert_eq!((broker.committed("g", (TOPIC, 0)), broker.committed("g", ("other", 3))), (Some(1), None));
}

#[tokio::test(start_paused = true)]
async fn a_commit_for_a_topic_that_is_gone_is_answered_at_once() {
    let (broker, client) = broker(1).await;
    let consumer = client.consumer().group("g").assign([(TOPIC, 0)]).start().await.unwrap();
    let started = Instant::now();
    let error =
        consumer.handle().commit([((TOPIC, 0).into(), 1), (("gone", 0).into(), 7)]).await.unwrap_err();
    assert!(
        error.to_string().contains("gone-0") && started.elapsed() < SECOND,
        "{error} {:?}",
        started.elapsed()
    );
    assert_eq!(broker.committed("g", (TOPIC, 0)), Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_stream_does_not_commit_by_itself() {
    use futures::StreamExt;
    let (_broker, client) = broker(3).await;
    let builder = client.consumer().group("g").topics([TOPIC]).from_beginning();
    let consumer = builder.auto_commit(Some(SECOND)).start().await.unwrap();
    let all: Vec<_> = timeout(5 * SECOND, StreamExt::collect(consumer)).await.unwrap();
    assert!(matches!(&all[..], [Err(ConsumeError::AutoCommit)]), "{all:?}");
}

#[tokio::test(start_paused = true)]
async fn closing_has_a_deadline() {
    struct Slow;
    #[async_trait]
    impl RebalanceListener for Slow {
        async fn revoked(&self, _partitions: &[TopicPartition]) {
            std::future::pending::<()>().await;
        }
    }
    let (_broker, client) = broker(1).await;
    let builder = client.consumer().group("g").topics([TOPIC]).from_beginning();
    let mut consumer = builder.rebalance_listener(Arc::new(Slow)).start().await.unwrap();
    offsets(&mut consumer, 1).await;
    let started = Instant::now();
    let error = consumer.close_within(3 * SECOND).await.unwrap_err();
    assert_eq!(started.elapsed().as_secs(), 3, "{error}");
}

/// A listener that panics takes the membership with it: the reader is told, and nothing more is handed out.
#[tokio::test(start_paused = true)]
async fn a_listener_that_panics_ends_the_consumer() {
    struct Clumsy;
    #[async_trait]
    impl RebalanceListener for Clumsy {
        async fn assigned(&self, _partitions: &[TopicPartition]) {
            panic!("as the test wants it");
        }
    }
    let (_broker, client) = broker(1).await;
    let builder = client.consumer().group("g").topics([TOPIC]).from_beginning();
    let mut consumer = builder.rebalance_listener(Arc::new(Clumsy)).start().await.unwrap();
    let error = timeout(5 * SECOND, consumer.next()).await.unwrap().unwrap().unwrap_err();
    assert!(matches!(error, ConsumeError::Closed) && error.is_fatal(), "{error}");
    assert!(timeout(SECOND, consumer.next()).await.unwrap().is_none());
}

/// Whoever takes what was lost commits too, and may have left since: a coordinator whose group is empty takes anything.
#[tokio::test(start_paused = true)]
async fn what_was_lost_is_not_committed_over_its_owner() {
    struct Commits(Mutex<Option<ConsumerHandle>>, Mutex<Vec<Result<(), String>>>);
    #[async_trait]
    impl RebalanceListener for Commits {
        // Lost partitions come here too.
        async fn revoked(&self, partitions: &[TopicPartition]) {
            let handle = self.0.lock().unwrap().clone().unwrap();
            let result = handle.commit([(partitions[0].clone(), 2)]).await;
            self.1.lock().unwrap().push(result.map_err(|error| error.to_string()));
        }
    }
    let (broker, client) = broker(3).await;
    let commits = Arc::new(Commits(Mutex::default(), Mutex::default()));
    let listener = Arc::clone(&commits) as Arc<dyn RebalanceListener>;
    let builder = client.consumer().group("g").topics([TOPIC]).from_beginning();
    let mut consumer = builder.rebalance_listener(listener).start().await.unwrap();
    *commits.0.lock().unwrap() = Some(consumer.handle());
    offsets(&mut consumer, 2).await;
    broker.expel("g").commit("g", (TOPIC, 0), 9);
    tokio::time::sleep(5 * SECOND).await;
    let results = commits.1.lock().unwrap().clone();
    assert_eq!(results, [Err("t-0 is not assigned to this consumer".to_owned())]);
    assert_eq!(broker.committed("g", (TOPIC, 0)), Some(9));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_beyond_all_time_is_none() {
    let (_broker, client) = broker(1).await;
    let mut consumer = member(&client, &[TOPIC], &Arc::default()).await;
    offsets(&mut consumer, 1).await;
    consumer.close_within(Duration::MAX).await.unwrap();
    let consumer = member(&client, &[TOPIC], &Arc::default()).await;
    consumer.leave_within(Duration::MAX).await.unwrap();
}

/// A coordinator that says nothing of a partition has not said that nothing is committed: to start at the end would
/// skip records.
#[tokio::test(start_paused = true)]
async fn a_committed_offset_that_is_not_told_is_asked_for_again() {
    let (broker, client) = broker(3).await;
    let untold = |answer: &mut OffsetFetchResponse| {
        answer.groups.iter_mut().for_each(|group| group.topics.clear());
    };
    broker.commit("g", (TOPIC, 0), 1);
    broker.next(ApiKey::OffsetFetch, 2, Answer::edited::<OffsetFetchRequest>(untold));
    let builder = client.consumer().group("g").assign([(TOPIC, 0)]);
    let mut consumer = builder.auto_offset_reset(OffsetReset::Latest).start().await.unwrap();
    assert_eq!(offsets(&mut consumer, 2).await, [1, 2]);
}
