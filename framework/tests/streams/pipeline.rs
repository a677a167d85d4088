//! A counting pipeline on the in-process cluster: what goes in, what must come out, and instances of it.

use std::collections::BTreeMap;
use std::time::Duration;

use klamm::client::{ConsumerRecord, IsolationLevel, Record, TopicPartition};
use klamm::streams::{AppState, StreamsApp, StreamsBuilder, StreamsConfig, TaskState, Topology};
use klamm::testing::TestKit;

pub(crate) const APPLICATION: &str = "pipeline";
pub(crate) const CHANGELOG: &str = "pipeline-counts-changelog";
pub(crate) const SESSION: Duration = Duration::from_secs(6);
const DEADLINE: Duration = Duration::from_secs(90);
pub(crate) const PARTITIONS: i32 = 4;
const KEYS: usize = 7;

/// One pipeline: `in` is echoed to `echo`, and counted by key into the store `counts` and the topic `totals`.
pub(crate) struct Pipeline {
    pub(crate) kit: TestKit,
    pub(crate) directory: tempfile::TempDir,
    fed: usize,
}

impl Pipeline {
    pub(crate) async fn new(kit: &TestKit) -> Self {
        on_real_time(kit);
        for topic in ["in", "echo", "totals"] {
            kit.create_topic(topic, PARTITIONS).await;
        }
        Self { kit: kit.clone(), directory: tempfile::tempdir().unwrap(), fed: 0 }
    }

    /// Of an instance: each has a state directory of its own.
    pub(crate) fn config(&self, instance: usize) -> StreamsConfig {
        StreamsConfig::new(APPLICATION, self.kit.bootstrap())
            .client(self.kit.client().clone())
            .state_dir(self.directory.path().join(instance.to_string()))
            .linger(Duration::from_millis(1))
            .commit_interval(Duration::from_millis(100))
            .session_timeout(SESSION)
    }

    pub(crate) async fn feed(&mut self, records: usize) {
        let producer = self.kit.client().producer().build().unwrap();
        let mut sent = Vec::new();
        for number in self.fed..self.fed + records {
            let record = Record::to("in").key(format!("k{}", number % KEYS)).value(number.to_string());
            sent.push(producer.enqueue(record).await.unwrap());
        }
        for sent in sent {
            sent.await.unwrap();
        }
        self.fed += records;
    }

    /// The true counts.
    pub(crate) fn counts(&self) -> BTreeMap<String, i64> {
        let mut counts = BTreeMap::new();
        (0..self.fed).for_each(|number| *counts.entry(format!("k{}", number % KEYS)).or_default() += 1);
        counts
    }

    /// What readers of committed records find in a topic now.
    pub(crate) async fn read(&self, topic: &str) -> Vec<ConsumerRecord> {
        let count = self.kit.client().partition_count(topic).await.unwrap();
        let mut found = Vec::new();
        for partition in 0..count {
            let partition = TopicPartition::new(topic, partition);
            let reader = self.kit.client().consumer().assign([partition.clone()]).from_beginning();
            let mut reader = reader.isolation(IsolationLevel::ReadCommitted).start().await.unwrap();
            let end =
                reader.handle().end_offsets(std::slice::from_ref(&partition)).await.unwrap()[&partition];
            // An empty one has no position for a moment, and nothing that could be waited for.
            while reader.handle().position(&partition).unwrap_or(0) < end {
                let batch = reader.next_batch_within(|_| klamm::client::BatchRoom::UNLIMITED).await;
                found.extend(batch.unwrap().unwrap().records);
            }
            reader.close().await.unwrap();
        }
        found
    }

    /// Waits until readers of committed records find so many in a topic.
    pub(crate) async fn holds(&self, topic: &str, records: usize) {
        let wait = async {
            while self.read(topic).await.len() < records {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let held = tokio::time::timeout(DEADLINE, wait).await;
        held.unwrap_or_else(|_| panic!("`{topic}` never holds {records} records"));
    }

    /// The last total of each key.
    pub(crate) async fn totals(&self) -> BTreeMap<String, i64> {
        let number = |bytes: &[u8]| i64::from_be_bytes(bytes.try_into().unwrap());
        let read = self.read("totals").await.into_iter();
        read.map(|record| (text(&record.key.unwrap()), number(&record.value.unwrap()))).collect()
    }

    /// Stores and totals are right.
    pub(crate) async fn counts_are_right(&self, apps: &[&StreamsApp]) {
        let mut stored = BTreeMap::new();
        for app in apps {
            if let Ok(all) = app.store::<String, i64>("counts").unwrap().all().await {
                stored.extend(all);
            }
        }
        assert_eq!(stored, self.counts(), "the stores");
        assert_eq!(self.totals().await, self.counts(), "the totals");
    }

    /// All effects of all records are there, and there once.
    pub(crate) async fn is_exact(&self, apps: &[&StreamsApp]) {
        self.counts_are_right(apps).await;
        let mut echoes: Vec<usize> = self
            .read("echo")
            .await
            .into_iter()
            .map(|record| text(&record.value.unwrap()).parse().unwrap())
            .collect();
        echoes.sort_unstable();
        let wrong = echoes.iter().copied().zip(0..).find(|(echo, number)| echo != number);
        assert_eq!((echoes.len(), wrong), (self.fed, None), "the echoes");
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

pub(crate) fn topology() -> Topology {
    let mut streams = StreamsBuilder::new();
    let input = streams.stream::<String, String>("in");
    input.to("echo");
    input.group_by_key().count("counts").to_stream().to("totals");
    streams.build().unwrap()
}

/// Stream threads work in real time: a paused clock would run ahead of them.
pub(crate) fn on_real_time(kit: &TestKit) {
    thread_local!(static RESUMED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) });
    if kit.is_in_process() && !RESUMED.replace(true) {
        tokio::time::resume();
    }
}

/// Waits until it runs and all is processed and committed.
pub(crate) async fn caught_up(app: &StreamsApp) {
    let caught_up = tokio::time::timeout(DEADLINE, app.caught_up()).await;
    caught_up.unwrap_or_else(|_| panic!("not caught up: {app:?}")).unwrap();
    assert_eq!(app.state(), AppState::Running);
}

/// How many tasks it runs.
pub(crate) fn active(app: &StreamsApp) -> usize {
    app.tasks().iter().filter(|task| task.state == TaskState::Running).count()
}

/// Looks again until it is so.
#[track_caller]
pub(crate) fn until(mut is_so: impl FnMut() -> bool) -> impl Future<Output = ()> {
    let asked = std::panic::Location::caller();
    async move {
        let wait = async {
            while !is_so() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let so = tokio::time::timeout(DEADLINE, wait).await;
        so.unwrap_or_else(|_| panic!("what {asked} waits for never happens"));
    }
}
