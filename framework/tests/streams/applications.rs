//! Applications against the embedded broker: end to end, restart, crash and restore, joins.

use std::path::Path;
use std::time::Duration;

use klamm::client::{Client, NewTopic, OffsetReset, Record};
use klamm::streams::{
    AppState, Consumed, ErrorPolicy, Materialized, Migration, Partitions, Produced, RecordContext,
    StreamsApp, StreamsBuilder, StreamsConfig, StreamsError, Topology, TumblingWindows, Windowed,
};
use klamm_broker::Broker;

const DEADLINE: Duration = Duration::from_secs(60);

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("{what}: not within {DEADLINE:?}"))
}

/// Looks again until it is so; the caller has a deadline.
async fn until(is_so: impl Fn() -> bool) {
    while !is_so() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

struct Cluster {
    broker: Broker,
    client: Client,
    directory: tempfile::TempDir,
}

impl Cluster {
    async fn with_topics(topics: &[(&str, i32)]) -> Self {
        let broker = Broker::builder().ephemeral().start().await.unwrap();
        let client = Client::connect(broker.bootstrap()).await.unwrap();
        let new: Vec<_> =
            topics.iter().map(|(name, count)| NewTopic::new(*name).partitions(*count)).collect();
        let created = client.admin().create_topics(&new).await.unwrap();
        assert!(created.values().all(Result::is_ok), "{created:?}");
        Self { broker, client, directory: tempfile::tempdir().unwrap() }
    }

    fn config(&self, application_id: &str) -> StreamsConfig {
        StreamsConfig::new(application_id, self.broker.bootstrap())
            .state_dir(self.directory.path())
            .commit_interval(Duration::from_millis(100))
            .linger(Duration::from_millis(1))
    }

    async fn produce(&self, topic: &str, records: impl IntoIterator<Item = (String, String)>) {
        let producer = self.client.producer().build().unwrap();
        for (key, value) in records {
            drop(producer.enqueue(Record::to(topic).key(key).value(value)).await.unwrap());
        }
        producer.close().await.unwrap();
    }

    async fn lines(&self, lines: impl IntoIterator<Item = impl Into<String>>) {
        self.produce(
            "lines",
            lines.into_iter().map(Into::into).enumerate().map(|(n, line)| (n.to_string(), line)),
        )
        .await;
    }

    /// Everything in a topic, as of now.
    async fn read(&self, topic: &str) -> Vec<klamm::client::ConsumerRecord> {
        let count = self.client.partition_count(topic).await.unwrap();
        let mut found = Vec::new();
        for partition in 0..count {
            let partition = klamm::client::TopicPartition::new(topic, partition);
            let mut consumer =
                self.client.consumer().assign([partition.clone()]).from_beginning().start().await.unwrap();
            let ends = consumer.handle().end_offsets(std::slice::from_ref(&partition)).await.unwrap();
            let mut next = 0;
            while next < ends[&partition] {
                let record = consumer.next().await.unwrap().unwrap();
                next = record.offset + 1;
                found.push(record);
            }
            consumer.close().await.unwrap();
        }
        found
    }
}

fn word_count() -> Topology {
    let mut streams = StreamsBuilder::new();
    streams
        .stream::<String, String>("lines")
        .flat_map_values(|line| line.split_whitespace().map(str::to_lowercase).collect::<Vec<_>>())
        .group_by(|_, word| word.clone())
        .count("counts")
        .to_stream()
        .to("word-counts");
    streams.build().unwrap()
}

async fn count_of(app: &StreamsApp, word: &str) -> Option<i64> {
    app.store::<String, i64>("counts").unwrap().get(word).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn word_count_end_to_end() {
    within("word count", async {
        let cluster = Cluster::with_topics(&[("lines", 4), ("word-counts", 2)]).await;
        let app = word_count().start(cluster.config("wc").threads(2)).await.unwrap();
        cluster.lines((0..1_000).map(|n| format!("The quick fox{} the end", n % 10))).await;
        app.caught_up().await.unwrap();
        assert_eq!(app.state(), AppState::Running);

        assert_eq!(count_of(&app, "the").await, Some(2_000));
        assert_eq!(count_of(&app, "fox7").await, Some(100));
        assert_eq!(count_of(&app, "nothing").await, None);
        let mut all = app.store::<String, i64>("counts").unwrap().all().await.unwrap();
        all.sort();
        assert_eq!(all.len(), 13);
        let metrics = app.metrics();
        assert_eq!((metrics.processed, metrics.tasks, metrics.restored), (1_000 + 5_000, 8, 0));
        assert_eq!(metrics.dropped.total(), 0);

        // The last update of each word in the output topic is its count.
        let mut last = std::collections::BTreeMap::new();
        for record in cluster.read("word-counts").await {
            let count = i64::from_be_bytes(record.value.unwrap()[..].try_into().unwrap());
            last.insert(String::from_utf8(record.key.unwrap().to_vec()).unwrap(), count);
        }
        assert_eq!(last.into_iter().collect::<Vec<_>>(), all);
        app.close().await.unwrap();
        drop(cluster.broker.shutdown().await);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_goes_on_from_its_state() {
    within("restart", async {
        let cluster = Cluster::with_topics(&[("lines", 2), ("word-counts", 1)]).await;
        for round in 1..=3 {
            let app = word_count().start(cluster.config("wc")).await.unwrap();
            cluster.lines((0..100).map(|_| "a b a")).await;
            app.caught_up().await.unwrap();
            assert_eq!(count_of(&app, "a").await, Some(200 * round));
            assert_eq!(app.metrics().restored, 0, "a clean close leaves nothing to restore");
            app.close().await.unwrap();
        }
    })
    .await;
}

/// A commit of more rows than a thread writes at a time: the store has all of them when the application has caught up,
/// and when it is closed.
#[tokio::test(flavor = "multi_thread")]
async fn many_rows_of_a_commit_are_all_written() {
    const WORDS: usize = 30_000;
    within("many rows", async {
        let cluster = Cluster::with_topics(&[("lines", 2), ("word-counts", 1)]).await;
        let line = |line: usize| (0..10).map(|n| format!("w{}", 10 * line + n)).collect::<Vec<_>>().join(" ");
        let config = || cluster.config("wc").commit_interval(Duration::from_secs(30));
        for round in 1..=2 {
            let app = word_count().start(config()).await.unwrap();
            cluster.lines((0..WORDS / 10).map(line)).await;
            app.caught_up().await.unwrap();
            let counts = app.store::<String, i64>("counts").unwrap().all().await.unwrap();
            assert_eq!(counts.len(), WORDS);
            assert!(counts.iter().all(|(_, count)| *count == round), "not all of round {round}");
            assert_eq!(app.metrics().restored, 0, "a clean close leaves nothing to restore");
            app.close().await.unwrap();
        }
    })
    .await;
}

fn wipe(directory: &Path) {
    std::fs::remove_dir_all(directory).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_crash_the_state_comes_back_from_the_changelog() {
    within("crash", async {
        let cluster = Cluster::with_topics(&[("lines", 2), ("word-counts", 1)]).await;
        // The group must find out that the first instance is gone.
        let patience = Duration::from_secs(6);
        let first = word_count().start(cluster.config("wc").session_timeout(patience)).await.unwrap();
        cluster.lines((0..500).map(|n| format!("a w{}", n % 50))).await;
        first.caught_up().await.unwrap();
        drop(first);
        // Another directory stands for a lost disk; the old one may still be being closed.
        let elsewhere = cluster.directory.path().join("elsewhere");
        let config = || cluster.config("wc").state_dir(&elsewhere).session_timeout(patience);
        let second = word_count().start(config()).await.unwrap();
        cluster.lines((0..500).map(|n| format!("a w{}", n % 50))).await;
        second.caught_up().await.unwrap();
        assert_eq!(count_of(&second, "a").await, Some(1_000));
        assert_eq!(count_of(&second, "w7").await, Some(20));
        assert!(second.metrics().restored >= 51);
        second.close().await.unwrap();
        wipe(&elsewhere);
        let third = word_count().start(config()).await.unwrap();
        third.caught_up().await.unwrap();
        assert_eq!(count_of(&third, "a").await, Some(1_000));
        third.close().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_in_the_middle_loses_nothing() {
    within("abort", async {
        let cluster = Cluster::with_topics(&[("lines", 2), ("word-counts", 1)]).await;
        // The group must find out that an instance is gone.
        let config = || cluster.config("wc").session_timeout(Duration::from_secs(6));
        cluster.lines((0..20_000).map(|n| format!("a w{}", n % 50))).await;
        let first = word_count().start(config()).await.unwrap();
        until(|| first.metrics().processed > 10_000 && first.metrics().commits > 0).await;
        drop(first);
        let second = word_count().start(config()).await.unwrap();
        second.caught_up().await.unwrap();
        let counts = second.store::<String, i64>("counts").unwrap().all().await.unwrap();
        assert_eq!(counts.len(), 51);
        for (word, count) in counts {
            let true_count = if word == "a" { 20_000 } else { 400 };
            assert!(count >= true_count, "{word}: {count} of {true_count}");
        }
        second.close().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn work_moves_when_instances_come_and_go() {
    within("rebalance", async {
        let cluster = Cluster::with_topics(&[("lines", 4), ("word-counts", 1)]).await;
        let instance =
            |n: usize| cluster.config("wc").state_dir(cluster.directory.path().join(n.to_string()));
        let first = word_count().start(instance(1)).await.unwrap();
        cluster.lines((0..400).map(|n| format!("a w{}", n % 50))).await;
        first.caught_up().await.unwrap();
        let second = word_count().start(instance(2)).await.unwrap();
        until(|| second.metrics().tasks == 4 && second.state() == AppState::Running).await;
        cluster.lines((0..400).map(|n| format!("a w{}", n % 50))).await;
        first.caught_up().await.unwrap();
        let mut all = first.store::<String, i64>("counts").unwrap().all().await.unwrap();
        all.extend(second.store::<String, i64>("counts").unwrap().all().await.unwrap());
        assert_eq!(all.iter().map(|(_, count)| count).sum::<i64>(), 1_600);
        assert_eq!(all.len(), 51);
        first.close().await.unwrap();
        second.caught_up().await.unwrap();
        until(|| second.metrics().tasks == 8 && second.state() == AppState::Running).await;
        assert_eq!(count_of(&second, "a").await, Some(800));
        second.close().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_joins_a_table_over_the_broker() {
    within("join", async {
        let cluster = Cluster::with_topics(&[("users", 2), ("clicks", 2), ("seen", 1)]).await;
        let mut streams = StreamsBuilder::new();
        let users = streams.table::<String, String>("users");
        let clicks = streams.stream::<String, String>("clicks");
        clicks.join(&users, |page, user| format!("{user} {page}")).to("seen");
        cluster.produce("users", (0..20).map(|n| (format!("u{n}"), format!("name{n}")))).await;
        cluster.produce("clicks", (0..100).map(|n| (format!("u{}", n % 25), format!("page{n}")))).await;
        let app = streams.build().unwrap().start(cluster.config("joins")).await.unwrap();
        app.caught_up().await.unwrap();
        // The table was read first: its records are older, and the task waits for a partition that has more to fetch.
        assert_eq!(cluster.read("seen").await.len(), 80);
        app.close().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_in_memory_are_restored() {
    within("windows", async {
        let cluster = Cluster::with_topics(&[("in", 2), ("out", 3)]).await;
        let topology = || {
            let mut streams = StreamsBuilder::new();
            streams
                .stream::<String, String>("in")
                .group_by_key()
                .windowed_by(TumblingWindows::of(Duration::from_secs(3_600)).grace(Duration::from_secs(60)))
                .count(Materialized::named("hourly").in_memory())
                .to_stream()
                .to("out");
            streams.build().unwrap()
        };
        for round in 1..=2_i64 {
            let app = topology().start(cluster.config("windows")).await.unwrap();
            cluster.produce("in", (0..90).map(|n| (format!("k{}", n % 3), String::new()))).await;
            app.caught_up().await.unwrap();
            let store = app.store::<Windowed<String>, i64>("hourly").unwrap();
            let windows = store.fetch("k1", 0, i64::MAX - 1).await.unwrap();
            assert_eq!(windows.iter().map(|(_, count)| count).sum::<i64>(), 30 * round);
            app.close().await.unwrap();
        }
        // Windowed keys go where the key inside them goes.
        for record in cluster.read("out").await {
            let key = record.key.unwrap();
            let expected = klamm::client::producer::partition_for_key(&key[..key.len() - 8], 3);
            assert_eq!(record.partition, expected);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_stop_the_application_with_their_reason() {
    within("failures", async {
        let cluster = Cluster::with_topics(&[("numbers", 1), ("out", 1)]).await;
        let topology = || {
            let mut streams = StreamsBuilder::new();
            streams.stream::<String, i64>("numbers").map_values(|n| 100 / n).to("out");
            streams.build().unwrap()
        };
        cluster.produce("numbers", [("k".to_owned(), "no number".to_owned())]).await;
        let app = topology().start(cluster.config("fails")).await.unwrap();
        let failure = app.ended().await.unwrap_err();
        assert!(matches!(*failure, StreamsError::Task { .. }), "{failure}");
        assert_eq!(app.state(), AppState::Failed);
        drop(app);

        let app = topology().start(cluster.config("fails").on_error(ErrorPolicy::skip())).await.unwrap();
        app.caught_up().await.unwrap();
        assert_eq!(app.metrics().dropped.unreadable, 1);
        let producer = cluster.client.producer().build().unwrap();
        producer.send(Record::to("numbers").key("k").value(0_i64.to_be_bytes().to_vec())).await.unwrap();
        app.caught_up().await.unwrap();
        assert_eq!(app.metrics().dropped.failed, 1);
        app.close().await.unwrap();

        let app = topology().start(cluster.config("panics")).await.unwrap();
        app.ended().await.unwrap_err();
        drop(app);
        let mut streams = StreamsBuilder::new();
        let numbers = streams.stream::<String, i64>("numbers").on_error(ErrorPolicy::skip());
        numbers.map_values(|n| 100 / n).named("shares").to("out");
        let app = streams.build().unwrap().start(cluster.config("panics")).await.unwrap();
        let failure = app.ended().await.unwrap_err().to_string();
        for part in ["task 0_0", "`shares`", "numbers-0 offset 1", "panicked", "divide by zero"] {
            assert!(failure.contains(part), "{part}: {failure}");
        }
        app.close().await.unwrap_err();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_that_do_not_fit_are_refused() {
    within("refusals", async {
        let cluster =
            Cluster::with_topics(&[("users", 2), ("clicks", 3), ("lines", 2), ("word-counts", 1)]).await;
        let mut streams = StreamsBuilder::new();
        let users = streams.table::<String, String>("users");
        streams.stream::<String, String>("clicks").join(&users, |a, _| a.clone()).to("out");
        let error = streams.build().unwrap().start(cluster.config("a")).await.unwrap_err();
        let expected =
            "topics that meet in `clicks.join` must have equally many partitions, and clicks has 3, users has 2";
        assert!(error.to_string().starts_with(expected), "{error}");

        let mut streams = StreamsBuilder::new();
        streams.stream::<String, String>("nowhere").to("out");
        let error = streams.build().unwrap().start(cluster.config("b")).await.unwrap_err();
        assert!(error.to_string().contains("topic `nowhere` does not exist"), "{error}");

        let error = word_count().start(cluster.config("no/slash")).await.unwrap_err();
        assert!(matches!(error, StreamsError::ApplicationId(_)), "{error}");
    })
    .await;
}

/// A worker that emptied its buffer between the moment the pump counted a batch as too much and the moment it
/// paused the partition had resumed too early, and the partition stayed paused for ever. A tiny buffer fills
/// up with nearly every batch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_buffer_that_is_always_full_never_stops_a_partition() {
    within("a pipeline with tiny buffers", async {
        let cluster = Cluster::with_topics(&[("lines", 4), ("shouted", 4)]).await;
        let mut streams = StreamsBuilder::new();
        streams.stream::<String, String>("lines").map_values(|line| line.to_uppercase()).to("shouted");
        let config = cluster.config("tiny").threads(2).buffered_records(1);
        let app = streams.build().unwrap().start(config).await.unwrap();
        for _ in 0..200 {
            cluster.lines((0..40).map(|number| format!("line {number}"))).await;
        }
        app.caught_up().await.unwrap();
        assert_eq!(cluster.read("shouted").await.len(), 8_000);
        app.close().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topology_that_would_orphan_state_does_not_start() {
    within("orphans", async {
        let cluster = Cluster::with_topics(&[("lines", 1), ("word-counts", 1)]).await;
        let app = word_count().start(cluster.config("wc")).await.unwrap();
        cluster.lines(["a b a"]).await;
        app.caught_up().await.unwrap();
        app.close().await.unwrap();

        let renamed = || {
            let mut streams = StreamsBuilder::new();
            let lines = streams.stream::<String, String>("lines");
            lines.group_by(|_, line| line.clone()).count("line-counts");
            streams.build().unwrap()
        };
        let error = renamed().start(cluster.config("wc")).await.unwrap_err().to_string();
        for part in
            ["nothing was started", "store `counts` of ", "forgets(\"counts\")", "`counts-repartition`"]
        {
            assert!(error.contains(part), "{part}: {error}");
        }
        let app = word_count().start(cluster.config("wc")).await.unwrap();
        app.caught_up().await.unwrap();
        assert_eq!(count_of(&app, "a").await, Some(2), "the refusal changed nothing");
        app.close().await.unwrap();

        let stated = Migration::new().forgets("counts").forgets("counts-repartition");
        let app = renamed().start(cluster.config("wc").migration(stated)).await.unwrap();
        app.caught_up().await.unwrap();
        app.close().await.unwrap();
        renamed().start(cluster.config("wc")).await.unwrap().close().await.unwrap();
    })
    .await;
}

/// Partitions and topics chosen by the record, and dead letters, on a cluster: they are sent where they were meant to
/// go, and before the input's offsets are committed.
#[tokio::test(flavor = "multi_thread")]
async fn records_go_where_they_choose() {
    within("routing", async {
        let cluster = Cluster::with_topics(&[("in", 1), ("even", 3), ("odd", 1), ("dlt", 1)]).await;
        let mut streams = StreamsBuilder::new();
        let numbers = streams.stream::<String, String>("in").try_map_values(|text| text.parse::<i32>());
        let numbers = numbers.on_error(ErrorPolicy::dead_letter("dlt"));
        let spread = Produced::default().partitioner(|_, _, number: &i32, count| match number {
            0 => Partitions::These((0..count).collect()),
            number => Partitions::from(number % count),
        });
        let choose = |_: &RecordContext<'_>, _: &String, n: &i32| if n % 2 == 0 { "even" } else { "odd" };
        numbers.to_chosen_with(choose, spread);
        let app = streams.build().unwrap().start(cluster.config("routing")).await.unwrap();
        cluster.produce("in", ["0", "1", "2", "three", "4"].map(|n| ("k".to_owned(), n.to_owned()))).await;
        app.caught_up().await.unwrap();
        let mut even: Vec<_> = cluster.read("even").await.iter().map(|r| (r.partition, number(r))).collect();
        even.sort();
        assert_eq!(even, [(0, 0), (1, 0), (1, 4), (2, 0), (2, 2)]);
        assert_eq!(cluster.read("odd").await.iter().map(number).collect::<Vec<_>>(), [1]);
        let letters = cluster.read("dlt").await;
        assert_eq!(letters.len(), 1);
        assert_eq!(letters[0].value.as_deref(), Some(&b"three"[..]));
        assert_eq!(letters[0].headers.last("__streams.errors.offset"), Some(Some(&b"3"[..])));
        assert_eq!(app.metrics().dropped.dead_lettered, 1);
        app.close().await.unwrap();
    })
    .await;
}

fn number(record: &klamm::client::ConsumerRecord) -> i32 {
    i32::from_be_bytes(record.value.as_deref().unwrap().try_into().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_begins_where_it_was_told() {
    within("offset resets", async {
        let cluster = Cluster::with_topics(&[("old", 1), ("new", 1), ("out", 1)]).await;
        let record = |value: &str| [("k".to_owned(), value.to_owned())];
        cluster.produce("old", record("old before")).await;
        cluster.produce("new", record("new before")).await;
        let mut streams = StreamsBuilder::new();
        let latest = Consumed::<String, String>::default().offset_reset(OffsetReset::Latest);
        let merged = streams.stream::<String, String>("old").merge(&streams.stream_with("new", latest));
        merged.to("out");
        let app = streams.build().unwrap().start(cluster.config("resets")).await.unwrap();
        // Nobody tells when the end of the topic was looked up, so records are written until one lies behind it.
        let mut values = Vec::new();
        while !values.iter().any(|value| value == "new after") {
            cluster.produce("new", record("new after")).await;
            let out = cluster.read("out").await.into_iter().map(|record| record.value.unwrap());
            values = out.map(|value| String::from_utf8(value.to_vec()).unwrap()).collect();
        }
        app.caught_up().await.unwrap();
        assert!(values.contains(&"old before".to_owned()), "{values:?}");
        assert!(!values.contains(&"new before".to_owned()), "{values:?}");
        app.close().await.unwrap();
    })
    .await;
}
