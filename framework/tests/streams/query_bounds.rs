//! Queries that can have no answer, or none that is known to be right: they end, and say so.

use std::collections::BTreeMap;
use std::time::Duration;

use klamm::client::testing::Answer;
use klamm::client::{ApiKey, Record};
use klamm::serde::{Bytes, NumberSerde, Serde, SerdeError};
use klamm::streams::{
    AppState, Materialized, PositionBound, QueryError, StreamsApp, StreamsBuilder, StreamsConfig,
    StreamsError,
};
use klamm::testing::TestKit;
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::pipeline::{Pipeline, caught_up, topology, until};
use crate::queries::{counts_of, feed_others, served, two};

/// The counts of the keys that are at this instance, as another one finds them.
async fn keys_at(address: &str, asked: &StreamsApp, pipeline: &Pipeline) -> BTreeMap<String, i64> {
    let counts = asked.query::<String, i64>("counts").unwrap();
    let mut found = BTreeMap::new();
    for (key, count) in counts_of(pipeline) {
        if counts.key(&*key).await.unwrap().from[0].host.as_deref() == Some(address) {
            found.insert(key, count);
        }
    }
    found
}

/// Where an instance was, one of another application answered with its own rows.
#[klamm::test]
async fn an_instance_of_another_application_is_not_believed(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let [first, second] = two(&mut pipeline, |config| config).await;
    let address = second.query_address().unwrap().to_owned();
    let keys = keys_at(&address, &first, &pipeline).await;
    kit.create_topic("strange", 4).await;
    let producer = kit.client().producer().build().unwrap();
    for key in keys.keys() {
        producer.send(Record::to("strange").key(key.clone()).value("v")).await.unwrap();
    }
    drop(second);
    let stranger = loop {
        let mut streams = StreamsBuilder::new();
        streams.stream::<String, String>("strange").group_by_key().count("counts");
        let config = StreamsConfig::new("strangers", kit.bootstrap()).client(kit.client().clone());
        let config = config.state_dir(pipeline.directory.path().join("strangers")).query_server(&*address);
        match streams.build().unwrap().start(config).await {
            Ok(app) => break app,
            Err(StreamsError::QueryServer { .. }) => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(error) => panic!("{error}"),
        }
    };
    stranger.wait_for(AppState::Running).await.unwrap();
    caught_up(&stranger).await;
    let counts = first.query::<String, i64>("counts").unwrap().within(Duration::from_millis(300));
    for (key, count) in &keys {
        match counts.key(&**key).await {
            Ok(answer) => assert_eq!(answer.value, Some(*count), "{answer:?}"),
            Err(error) => assert!(error.is_retriable(), "{error}"),
        }
    }
    stranger.close().await.unwrap();
    first.close().await.unwrap();
}

/// An instance took questions of two megabytes, and no two bounds of the longest keys.
#[klamm::test]
async fn bounds_of_the_longest_keys_are_asked_for_elsewhere(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let [first, second] = two(&mut pipeline, |config| config).await;
    let longest = |first: &str| format!("{first}{}", "\u{1}".repeat((1 << 20) - first.len()));
    let counts = first.query::<String, i64>("counts").unwrap();
    let rows = counts.range(longest("")..longest("k4")).await.unwrap().value.rows;
    assert_eq!(rows.iter().map(|row| &*row.key).collect::<Vec<_>>(), ["k0", "k1", "k2", "k3", "k4"]);
    // Many at once, of which some wait for room.
    let counts = counts.within(Duration::from_secs(60));
    let asked = (0..20).map(|_| async { counts.range(longest("k1")..longest("k3")).await });
    for answer in futures::future::join_all(asked).await {
        assert_eq!(answer.unwrap().value.rows.len(), 2);
    }
    let error = counts.keys((0..7).map(|_| longest(""))).await.unwrap_err();
    assert!(matches!(&error, QueryError::Wrong { .. }), "{error}");
    first.close().await.unwrap();
    second.close().await.unwrap();
}

/// Its process is stopped: connections are made, and nothing comes.
#[klamm::test]
async fn an_owner_that_stands_still_is_given_up_in_time(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let [first, second] = two(&mut pipeline, |config| config).await;
    let address = second.query_address().unwrap().to_owned();
    let keys = keys_at(&address, &first, &pipeline).await;
    drop(second);
    let _still = loop {
        match TcpListener::bind(&address).await {
            Ok(listener) => break listener,
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    let counts = first.query::<String, i64>("counts").unwrap().within(Duration::from_millis(500));
    let (key, _) = keys.first_key_value().unwrap();
    for all in [false, true] {
        let began = Instant::now();
        let error = match all {
            false => counts.key(&**key).await.map(drop).unwrap_err(),
            true => counts.all().await.map(drop).unwrap_err(),
        };
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        assert!(
            matches!(&error, QueryError::TimedOut { .. }) && error.to_string().contains(&address),
            "{error}"
        );
    }
    first.close().await.unwrap();
}

/// It lacked nothing when that was looked at, long ago, and answered as if it were so still.
#[klamm::test]
async fn a_standby_that_hears_nothing_does_not_know_how_far_behind_it_is(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let [first, second] = two(&mut pipeline, |config| config.standby_replicas(1)).await;
    let lacks_nothing =
        |app: &StreamsApp| app.standby_tasks().iter().filter(|one| one.lag == Some(0)).count();
    until(|| lacks_nothing(&first) == 2).await;
    let keys = keys_at(second.query_address().unwrap(), &first, &pipeline).await;
    let counts = first.query::<String, i64>("counts").unwrap().within(Duration::from_millis(300));
    let (key, count) = keys.first_key_value().unwrap();
    kit.faults().always(ApiKey::Fetch, Answer::Hang);
    drop(second);
    tokio::time::sleep(Duration::from_millis(3_500)).await;
    let error = counts.clone().or_standby(1_000_000).key(&**key).await.unwrap_err();
    assert!(error.is_retriable(), "{error}");
    let any = counts.or_standby(u64::MAX).key(&**key).await.unwrap();
    assert_eq!((any.value, any.from[0].behind), (Some(*count), None));
    kit.faults().behave().disconnect();
    first.close().await.unwrap();
}

/// Records of all partitions of its topic, which the table has as one; and how many it lacks.
#[klamm::test]
async fn a_global_table_answers_with_what_was_just_written(kit: TestKit) {
    let pipeline = Pipeline::new(&kit).await;
    let producer = kit.client().producer().build().unwrap();
    producer.send(Record::to("echo").partition(2).key("old").value("0")).await.unwrap();
    let mut streams = StreamsBuilder::new();
    streams.global_table::<String, String>("echo");
    streams.stream::<String, String>("in").to("totals");
    let app = streams.build().unwrap().start(served(&pipeline, 1)).await.unwrap();
    app.wait_for(AppState::Running).await.unwrap();
    let rows = app.query::<String, String>("echo-global").unwrap();
    let answer = rows.key("old").await.unwrap();
    let inputs: Vec<_> = answer.from.iter().map(|by| (by.partition, by.inputs["echo"])).collect();
    assert_eq!((answer.value.as_deref(), inputs), (Some("0"), vec![(0, 0), (1, 0), (2, 1), (3, 0)]));
    for number in 1..=20 {
        let record = Record::to("echo").partition(number % 4).key("k").value(number.to_string());
        let at = producer.send(record).await.unwrap();
        let bound = PositionBound::new().record("echo", at.partition, at.offset);
        let answer = rows.clone().at_least(bound).within(Duration::from_secs(20)).key("k").await.unwrap();
        assert_eq!(answer.value, Some(number.to_string()));
        assert!(answer.from[at.partition as usize].inputs["echo"] > at.offset);
    }
    let seen = async {
        while rows.key("k").await.unwrap().from.iter().any(|by| by.behind != Some(0)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), seen).await.expect("it lacks nothing");
    // Of every partition, and of one that there is not yet.
    for partition in [0, 3, 4] {
        let bound = PositionBound::new().record("echo", partition, 1_000_000);
        let asked = rows.clone().at_least(bound).within(Duration::ZERO);
        let error = asked.key("k").await.unwrap_err();
        assert!(
            matches!(&error, QueryError::NotUpToBound { partition: of, .. } if *of == partition),
            "{error}"
        );
    }
    app.close().await.unwrap();
}

async fn a_standby_has_what_was_just_written(kit: &TestKit, configure: fn(StreamsConfig) -> StreamsConfig) {
    let mut pipeline = Pipeline::new(kit).await;
    let [first, second] = two(&mut pipeline, configure).await;
    until(|| first.standby_tasks().iter().filter(|one| one.lag == Some(0)).count() == 2).await;
    let keys = keys_at(second.query_address().unwrap(), &first, &pipeline).await;
    let (key, count) = keys.first_key_value().unwrap();
    let producer = kit.client().producer().build().unwrap();
    let at = producer.send(Record::to("in").key(key.clone()).value("x")).await.unwrap();
    let bound = PositionBound::new().record("in", at.partition, at.offset);
    let counts = first.query::<String, i64>("counts").unwrap().within(Duration::from_secs(30));
    let counts = counts.or_standby(u64::MAX).at_least(bound);
    assert!(!counts.key(&**key).await.unwrap().from[0].standby, "who has it answers as long as he is there");
    drop(second);
    let answer = counts.key(&**key).await.unwrap();
    let by = &answer.from[0];
    assert!(by.standby && by.inputs["in"] > at.offset, "{by:?}");
    assert_eq!(answer.value, Some(count + 1));
    let never = PositionBound::new().record("in", at.partition, at.offset + 1_000);
    let error = counts.at_least(never).within(Duration::ZERO).key(&**key).await.unwrap_err();
    assert!(error.is_retriable(), "{error}");
    first.close().await.unwrap();
}

/// It knew nothing of what it had of its task's inputs, and answered no query for what was just written.
#[klamm::test]
async fn a_standby_answers_with_what_was_just_written(kit: TestKit) {
    a_standby_has_what_was_just_written(&kit, |config| config.standby_replicas(1)).await;
}

#[klamm::test]
async fn a_standby_answers_with_what_was_just_written_exactly_once(kit: TestKit) {
    a_standby_has_what_was_just_written(&kit, |config| config.standby_replicas(1).exactly_once()).await;
}

/// A standby has what changelogs have; of a store without one it answered with nothing, as if nothing were lacking.
#[klamm::test]
async fn a_standby_does_not_answer_for_a_store_without_a_changelog(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let mut apps = Vec::new();
    for instance in 1..=2 {
        let mut streams = StreamsBuilder::new();
        let input = streams.stream::<String, String>("in").group_by_key();
        input.count("counts");
        input.count(Materialized::named("unlogged").danger_without_changelog());
        let config = served(&pipeline, instance).standby_replicas(1);
        apps.push(streams.build().unwrap().start(config).await.unwrap());
    }
    pipeline.feed(100).await;
    feed_others(&pipeline).await;
    let lacks_nothing =
        |app: &StreamsApp| app.standby_tasks().iter().filter(|one| one.lag == Some(0)).count();
    until(|| apps.iter().all(|app| app.metrics().tasks == 2 && lacks_nothing(app) == 2)).await;
    for app in &apps {
        caught_up(app).await;
    }
    for (store, by_standbys) in [("counts", 2), ("unlogged", 0)] {
        let here = apps[0].query::<String, i64>(store).unwrap().here().or_standby(u64::MAX);
        let mut answered = 0;
        for partition in 0..4 {
            match here.clone().within(Duration::ZERO).in_partition(partition).all().await {
                Ok(answer) => answered += usize::from(answer.from[0].standby),
                Err(error) => assert!(matches!(&error, QueryError::NotHere { .. }), "{error}"),
            }
        }
        assert_eq!(answered, by_standbys, "{store}");
    }
    for app in apps {
        app.close().await.unwrap();
    }
}

/// They went on to their deadline, though nobody was there any more.
#[klamm::test]
async fn queries_end_with_their_application(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let app = topology().start(served(&pipeline, 1)).await.unwrap();
    pipeline.feed(10).await;
    caught_up(&app).await;
    let never =
        (0..4).fold(PositionBound::new(), |bound, partition| bound.record("in", partition, 1_000_000));
    let counts = app.query::<String, i64>("counts").unwrap().at_least(never).within(Duration::from_secs(60));
    let began = Instant::now();
    let (answer, closed) = tokio::join!(counts.all(), app.close());
    closed.unwrap();
    let error = answer.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(20) && error.to_string().contains("is clos"), "{error}");
}

/// It was known of tasks whose stores have changelogs, and of others with their first commit only.
#[klamm::test]
async fn what_a_store_without_a_changelog_has_is_known_of_it(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let start = async |pipeline: &Pipeline| {
        let mut streams = StreamsBuilder::new();
        let input = streams.stream::<String, String>("in").group_by_key();
        input.count(Materialized::named("counts").danger_without_changelog());
        streams.build().unwrap().start(served(pipeline, 1)).await.unwrap()
    };
    let app = start(&pipeline).await;
    pipeline.feed(100).await;
    feed_others(&pipeline).await;
    caught_up(&app).await;
    app.close().await.unwrap();
    let app = start(&pipeline).await;
    until(|| app.metrics().tasks == 4 && app.state() == AppState::Running).await;
    let old = (0..4).fold(PositionBound::new(), |bound, partition| bound.record("in", partition, 0));
    let counts = app.query::<String, i64>("counts").unwrap().at_least(old);
    let rows = counts.within(Duration::from_secs(3)).all().await.unwrap().value.rows;
    let rows: BTreeMap<_, _> = rows.into_iter().map(|row| (row.key, row.value)).collect();
    assert_eq!(rows, counts_of(&pipeline));
    app.close().await.unwrap();
}

/// Numbers, but for 13.
#[derive(Debug, Clone, Copy)]
struct Superstitious;

impl Serde<i64> for Superstitious {
    fn serialize(&self, topic: &str, value: &i64) -> Result<Bytes, SerdeError> {
        NumberSerde.serialize(topic, value)
    }

    fn deserialize(&self, topic: &str, bytes: &Bytes) -> Result<i64, SerdeError> {
        let number = NumberSerde.deserialize(topic, bytes)?;
        assert_ne!(number, 13, "I do not read that");
        Ok(number)
    }
}

/// It took the asker's task along.
#[klamm::test]
async fn a_serde_that_panics_in_a_query_is_an_error_of_it(kit: TestKit) {
    let pipeline = Pipeline::new(&kit).await;
    let mut streams = StreamsBuilder::new();
    let input = streams.stream::<String, i64>("in").group_by_key();
    input.aggregate(Materialized::with("last", Superstitious), || 0_i64, |_, value, _| *value);
    let app = streams.build().unwrap().start(served(&pipeline, 1)).await.unwrap();
    let producer = kit.client().producer().build().unwrap();
    for number in [7_i64, 13] {
        let record = Record::to("in").key(format!("k{number}")).value(number.to_be_bytes().to_vec());
        producer.send(record).await.unwrap();
    }
    caught_up(&app).await;
    let last = app.query::<String, i64>("last").unwrap();
    assert_eq!(last.key("k7").await.unwrap().value, Some(7));
    for error in [last.key("k13").await.map(drop).unwrap_err(), last.all().await.map(drop).unwrap_err()] {
        assert!(error.to_string().contains("I do not read that") && !error.is_retriable(), "{error}");
    }
    let error = app.store::<String, i64>("last").unwrap().get("k13").await.unwrap_err();
    assert!(error.to_string().contains("I do not read that"), "{error}");
    app.close().await.unwrap();
}
