//! `TestKit`: the cluster of a test, and what goes in.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use klamm_client::admin::MemberToRemove;
use klamm_client::testing::{FaultyNet, SeenCommit, SeenFetch};
use klamm_client::{
    Acks, Client, ClientError, ErrorCode, NewTopic, Producer, Record, RecordMetadata, TopicPartition,
};
use klamm_runtime::{SeededRng, SystemClock};

use super::app::{RunningTestApp, TestApp};
use super::in_process::{InProcess, SEED};
use super::probe::TopicProbe;
use crate::app::App;
use crate::serde::{DefaultSerde, Serde};
use crate::template::Template;

/// The cluster of a test. Cheap to clone. Usually made by `#[klamm::test]`.
#[derive(Debug, Clone)]
pub struct TestKit {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// `None` on a cluster that is not ours.
    in_process: Option<InProcess>,
    bootstrap: String,
    client: Client,
    producer: Producer,
}

impl TestKit {
    /// A new broker in this process, on a network and a disk in memory. Its settings are the defaults, except that a
    /// new group does not wait for more members. Timestamps follow tokio's clock, paused or not.
    pub async fn in_process() -> Self {
        let in_process = InProcess::start().await;
        let (bootstrap, client) = (in_process.bootstrap().to_owned(), in_process.client().await);
        Self::new(Some(in_process), bootstrap, client)
    }

    /// The cluster at `bootstrap`, on real time and real sockets: never with a paused clock,
    /// which would run ahead of them.
    pub async fn on(bootstrap: impl Into<String>) -> Self {
        let bootstrap = bootstrap.into();
        let client =
            Client::builder().bootstrap(bootstrap.clone()).clock(Arc::new(SystemClock)).build().await;
        Self::new(None, bootstrap, client)
    }

    fn new(in_process: Option<InProcess>, bootstrap: String, client: Result<Client, ClientError>) -> Self {
        let client =
            client.unwrap_or_else(|error| panic!("the test cluster at {bootstrap} does not answer: {error}"));
        let producer = client.producer().build().unwrap_or_else(|error| panic!("the test producer: {error}"));
        Self { inner: Arc::new(Inner { in_process, bootstrap, client, producer }) }
    }

    /// The address of the cluster. On the in-process network nobody else can reach it.
    pub fn bootstrap(&self) -> &str {
        &self.inner.bootstrap
    }

    /// A client of the cluster.
    pub fn client(&self) -> &Client {
        &self.inner.client
    }

    /// Whether the broker is in this process, which is where the clock may be paused.
    pub fn is_in_process(&self) -> bool {
        self.inner.in_process.is_some()
    }

    /// An app on the cluster.
    pub fn app(&self) -> TestApp {
        TestApp::new(App::with_client(self.inner.client.clone()).rng(Arc::new(SeededRng::new(SEED))))
    }

    /// Starts an app as `main` makes it, on this cluster in place of its own: one function makes the service for both.
    /// What a test replaces, it adds before: the second state of a type takes the place of the first one.
    ///
    /// ```
    /// # use klamm::prelude::*;
    /// # use klamm::testing::TestKit;
    /// #[derive(Clone)]
    /// struct Greeting(&'static str);
    ///
    /// #[kafka_listener(topics = "names", group = "greeters")]
    /// async fn greet(Value(name): Value<String>, State(greeting): State<Greeting>) {
    ///     println!("{}, {name}", greeting.0);
    /// }
    /// fn service() -> App {
    ///     App::new("broker.example:9092").state(Greeting("Good day")).listener(greet)
    /// }
    /// #[klamm::test]
    /// async fn names_are_greeted(kit: TestKit) {
    ///     let app = kit.start(service().state(Greeting("Hello"))).await;
    ///     kit.send("names", "k", "Ada").await;
    ///     app.handled("greet", 1).await;
    /// }
    /// # fn main() {}
    /// ```
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start(&self, app: App) -> RunningTestApp {
        self.adopt(app).start().await
    }

    /// As [`start`](Self::start), to be started later, or to see how it fails.
    pub fn adopt(&self, app: App) -> TestApp {
        TestApp::new(app.on_client(self.inner.client.clone()).rng(Arc::new(SeededRng::new(SEED))))
    }

    /// A typed sender, for instance as state of the app under test.
    pub fn template<K: DefaultSerde, V: DefaultSerde>(&self, topic: impl Into<Arc<str>>) -> Template<K, V> {
        Template::new(&self.inner.producer, topic)
    }

    /// A new schema registry beside the cluster: in this process, and on its network.
    #[cfg(feature = "schema-registry")]
    pub async fn registry(&self) -> super::TestRegistry {
        match &self.inner.in_process {
            Some(in_process) => super::TestRegistry::start(in_process.net(), "127.0.0.1:0").await,
            None => super::TestRegistry::on_tcp().await,
        }
    }

    /// Creates a topic, for those that need a certain number of partitions. Others are created when they are first
    /// used, where the cluster does so.
    pub async fn create_topic(&self, name: &str, partitions: i32) {
        let topic = NewTopic::new(name).partitions(partitions).replication(1);
        let created = self.inner.client.admin().create_topics(&[topic]).await;
        let created = created.unwrap_or_else(|error| panic!("cannot create topic {name}: {error}"));
        created.into_values().for_each(|result| {
            result.unwrap_or_else(|error| panic!("cannot create topic {name}: {error}"));
        });
    }

    /// Writes a record and waits for the acknowledgement. Key and value are anything with a default serde, or text.
    pub async fn send(&self, topic: &str, key: impl TestPart, value: impl TestPart) -> RecordMetadata {
        self.send_record(Record {
            key: Some(key.into_bytes(topic)),
            value: Some(value.into_bytes(topic)),
            ..Record::to(topic)
        })
        .await
    }

    /// Writes a record to one partition.
    pub async fn send_to(
        &self,
        topic: &str,
        partition: i32,
        key: impl TestPart,
        value: impl TestPart,
    ) -> RecordMetadata {
        self.send_record(Record {
            key: Some(key.into_bytes(topic)),
            value: Some(value.into_bytes(topic)),
            partition: Some(partition),
            ..Record::to(topic)
        })
        .await
    }

    /// Writes a record as it is: with headers, without a key, a tombstone.
    pub async fn send_record(&self, record: Record) -> RecordMetadata {
        let topic = Arc::clone(&record.topic);
        let sent = self.inner.producer.send(record).await;
        sent.unwrap_or_else(|error| panic!("cannot write to {topic}: {error}"))
    }

    /// Leaves a gap of so many offsets in a partition, as an aborted transaction does, whose records readers of
    /// committed records never see; compaction leaves such gaps as well. What is sent next comes behind it.
    ///
    /// ```
    /// # use klamm::testing::TestKit;
    /// # async fn with(kit: TestKit) {
    /// kit.send("orders", "k1", "first").await;
    /// kit.leave_gap("orders", 0, 5).await;
    /// assert_eq!(kit.send("orders", "k1", "second").await.offset, 6);
    /// # }
    /// ```
    ///
    /// # Panics
    /// With fewer than two offsets: a record and the marker that ends its transaction are two.
    pub async fn leave_gap(&self, topic: &str, partition: i32, offsets: usize) {
        assert!(offsets >= 2, "the smallest gap is of two offsets");
        let id = format!("klamm-test-gap-{topic}-{partition}");
        let producer =
            self.inner.client.producer().idempotent(true).acks(Acks::All).transactional_id(id).build();
        let mut producer = producer.unwrap_or_else(|error| panic!("the producer of a gap: {error}"));
        let left = async {
            let transaction = producer.begin().await.map_err(|error| error.to_string())?;
            for _ in 1..offsets {
                let record = Record::to(topic).partition(partition).value("aborted");
                let sent = transaction.enqueue(record).await.map_err(|error| error.to_string())?;
                sent.await.map_err(|error| error.to_string())?;
            }
            transaction.abort().await.map_err(|error| error.to_string())
        };
        let left: Result<(), String> = left.await;
        left.unwrap_or_else(|error| panic!("cannot leave a gap in {topic}-{partition}: {error}"));
        drop(producer.close().await);
    }

    /// The offset that a group has committed. One that a transaction is about to commit is waited for, for as long as
    /// the test may take: time that is not real may be over before a thread has done its part.
    pub async fn committed(&self, group: &str, topic: &str, partition: i32) -> Option<i64> {
        let committed = loop {
            match self.inner.client.admin().committed_offsets(group).await {
                Err(error) if error.code() == Some(ErrorCode::UnstableOffsetCommit) => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                other => break other,
            }
        };
        let committed = committed.unwrap_or_else(|error| panic!("offsets of group {group}: {error}"));
        committed.get(&TopicPartition::new(topic, partition)).copied()
    }

    /// What comes out of a topic. Each probe reads from the beginning.
    pub fn topic(&self, name: impl Into<Arc<str>>) -> TopicProbe {
        TopicProbe::new(self.inner.client.clone(), name.into())
    }

    /// Stops the broker in good order and starts it again at the same address, with its data. Clients reconnect.
    ///
    /// # Panics
    /// On a cluster that is not in this process.
    pub async fn restart_broker(&self) {
        self.in_this_process().restart().await;
    }

    /// Pulls the plug and starts the broker again at the same address: what it had not acknowledged may be lost or
    /// torn, what it had is there.
    ///
    /// # Panics
    /// On a cluster that is not in this process.
    pub async fn crash_broker(&self) {
        self.in_this_process().crash().await;
    }

    /// What goes wrong between the apps of this test and their broker, and what came by there: the next requests of an
    /// API get an error, come late, lose their connection before or after they are carried out, or are never answered.
    /// The kit's own sender and probes are subject to it, too.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use klamm::client::testing::Answer;
    /// use klamm::client::{ApiKey, ErrorCode};
    /// use klamm::testing::TestKit;
    ///
    /// # async fn with(kit: TestKit) {
    /// kit.faults().next(ApiKey::Produce, 2, Answer::Error(ErrorCode::NotLeaderOrFollower));
    /// kit.faults().next(ApiKey::OffsetCommit, 1, Answer::DisconnectAfter);
    /// kit.faults().next_for("orders-dlt", ApiKey::Produce, 1, Answer::Delayed(Duration::from_secs(60)));
    /// // ...
    /// kit.faults().behave();
    /// # }
    /// ```
    ///
    /// # Panics
    /// On a cluster that is not in this process.
    pub fn faults(&self) -> &FaultyNet {
        self.in_this_process().faults()
    }

    /// What a group committed, in order, since the test began.
    ///
    /// # Panics
    /// On a cluster that is not in this process.
    pub fn commits(&self, group: &str) -> Vec<SeenCommit> {
        self.faults().commits(group)
    }

    /// Where consumers asked for records of a topic, in order; see [`FaultyNet::fetches`].
    ///
    /// # Panics
    /// On a cluster that is not in this process.
    pub fn fetches(&self, topic: &str) -> Vec<SeenFetch> {
        self.faults().fetches(topic)
    }

    /// Ends the sessions of all members of a group, as if the broker had not heard of them for too long: their
    /// partitions are given out anew, and whoever lives joins again.
    ///
    /// # Panics
    /// The broker does not do it.
    pub async fn expel(&self, group: &str) {
        let admin = self.inner.client.admin();
        let described = admin.describe_groups(&[group]).await;
        let described = described.unwrap_or_else(|error| panic!("group {group}: {error}")).remove(group);
        let Some(Ok(description)) = described else { panic!("group {group}: {described:?}") };
        let members = description.members.iter();
        let members: Vec<_> =
            members.map(|member| MemberToRemove::Dynamic(member.member_id.clone())).collect();
        let removed = admin.remove_members(group, &members).await;
        removed.unwrap_or_else(|error| panic!("members of group {group} cannot be removed: {error}"));
    }

    /// From here on the broker's disk has no room for another byte.
    ///
    /// # Panics
    /// On a cluster that is not in this process.
    pub fn fill_disk(&self) {
        self.in_this_process().limit_disk(0);
    }

    /// Undoes [`fill_disk`](Self::fill_disk). A broker that noticed may have to be [restarted](Self::restart_broker).
    ///
    /// # Panics
    /// On a cluster that is not in this process.
    pub fn free_disk(&self) {
        self.in_this_process().limit_disk(u64::MAX);
    }

    fn in_this_process(&self) -> &InProcess {
        let in_process = self.inner.in_process.as_ref();
        in_process.unwrap_or_else(|| panic!("{} is not in this process", self.inner.bootstrap))
    }

    /// Ends the broker in good order. `#[klamm::test]` does it.
    pub(super) async fn finish(self) {
        let _ = self.inner.producer.close().await;
        if let Some(in_process) = &self.inner.in_process {
            in_process.shutdown().await;
        }
    }
}

/// A key or value for a test: anything with a default serde, or text.
pub trait TestPart {
    /// Its bytes.
    fn into_bytes(self, topic: &str) -> Bytes;
}

impl<T: DefaultSerde> TestPart for T {
    fn into_bytes(self, topic: &str) -> Bytes {
        let written = T::Serde::default().serialize(topic, &self);
        written.unwrap_or_else(|error| panic!("cannot write to {topic}: {error}"))
    }
}

impl TestPart for &str {
    fn into_bytes(self, _topic: &str) -> Bytes {
        Bytes::copy_from_slice(self.as_bytes())
    }
}
