//! `FakeBroker`: what a test calls.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use klamm_protocol::records::{OwnedRecord, RecordBatch};
use klamm_protocol::{ApiKey, ErrorCode};

use super::group::Group;
use super::received::SeenRequest;
use super::script::{Answer, Target};
use super::serve::{Shared, serve};
use super::state::{PARTITIONS_MAX, State};
use crate::client::{Client, ClientBuilder};
use crate::error::ClientError;
use crate::runtime::{MemoryNet, Net, Tasks, TcpNet};
use crate::types::TopicPartition;

/// A broker that does what a test tells it to. It ends when it is dropped.
///
/// One node, which leads every partition and coordinates every group and transaction. Everything is in memory.
#[derive(Debug)]
pub struct FakeBroker {
    net: Arc<dyn Net>,
    bootstrap: String,
    shared: Arc<Shared>,
    connections: Arc<Mutex<Tasks>>,
    _acceptor: Tasks,
}

impl FakeBroker {
    /// Listens on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// There is no port to be had.
    pub async fn start() -> io::Result<Self> {
        Self::start_on(Arc::new(TcpNet), "127.0.0.1:0").await
    }

    /// Listens on an in-memory network of its own: with tokio's clock paused, an hour of waiting for a broker that is
    /// silent passes in no time.
    ///
    /// # Errors
    /// None in practice.
    pub async fn start_in_memory() -> io::Result<Self> {
        Self::start_on(Arc::new(MemoryNet::new()), "broker:0").await
    }

    /// Listens on an address (`host:port`, port 0 for a free one) of this network.
    ///
    /// # Errors
    /// The address is taken, or not to be had.
    pub async fn start_on(net: Arc<dyn Net>, address: &str) -> io::Result<Self> {
        let mut listener = net.bind(address).await?;
        let bootstrap = listener.local_address();
        let shared = Arc::new(Shared::new(State::new(&bootstrap)));
        let connections = Arc::new(Mutex::new(Tasks::new()));
        let acceptor = Tasks::new();
        let (accepting, served) = (Arc::clone(&connections), Arc::clone(&shared));
        acceptor.spawn("fake broker", async move {
            while let Ok((stream, _)) = listener.accept().await {
                served.state().connections += 1;
                let shared = Arc::clone(&served);
                let tasks = accepting.lock().unwrap_or_else(PoisonError::into_inner).clone();
                tasks.spawn("fake broker connection", async move {
                    // An error is a client that went away.
                    let _ = serve(stream, shared).await;
                });
            }
        });
        Ok(Self { net, bootstrap, shared, connections, _acceptor: acceptor })
    }

    /// The address for `bootstrap.servers`.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// The network that it is on.
    pub fn net(&self) -> Arc<dyn Net> {
        Arc::clone(&self.net)
    }

    /// A client of this broker, with default settings otherwise.
    pub fn client_builder(&self) -> ClientBuilder {
        Client::builder().bootstrap(self.bootstrap.clone()).net(self.net())
    }

    /// A client of this broker with default settings.
    ///
    /// # Errors
    /// The script has the broker refuse it.
    pub async fn client(&self) -> Result<Client, ClientError> {
        self.client_builder().build().await
    }

    /// Makes a topic, or gives one more partitions. Topics that are not made here or by a client are unknown: sending
    /// to them makes none.
    ///
    /// # Panics
    /// Not a legal name, no partition, or more than 10,000 of all topics together.
    pub fn topic(&self, name: &str, partitions: usize) -> &Self {
        let made = self.shared.state().make_topic(name, partitions);
        let told = made.map_err(ErrorCode::name);
        assert!(
            told.is_ok(),
            "topic {name:?} with {partitions} partitions of at most {PARTITIONS_MAX}: {told:?}"
        );
        self
    }

    /// Forgets a topic with its records. Made again it has another id.
    pub fn remove_topic(&self, name: &str) -> &Self {
        self.shared.state().topics.remove(name);
        self.shared.changed.notify_waiters();
        self
    }

    /// Whether the leader of a partition can be reached; else another broker leads it, at whose address nobody listens.
    /// Nothing happens for a partition that there is not.
    pub fn reachable(&self, partition: impl Into<TopicPartition>, reachable: bool) -> &Self {
        let TopicPartition { topic, partition } = partition.into();
        if let Some(partition) = self.shared.state().partition(&topic, partition) {
            partition.away = !reachable;
        }
        self.shared.changed.notify_waiters();
        self
    }

    /// The next `count` requests of an API are answered so. Rules of one API are used up in the order in which they
    /// were made, one request at a time.
    pub fn next(&self, api: ApiKey, count: usize, answer: Answer) -> &Self {
        self.shared.state().script.add(api, None, Some(count), answer);
        self
    }

    /// The next `count` requests of an API that name this topic (`"orders"`) or partition (`("orders", 3)`) are
    /// answered so; [`Answer::Error`] is told for that topic or partition alone. These rules are used up beside those
    /// of [`FakeBroker::next`].
    pub fn next_for(&self, target: impl Into<Target>, api: ApiKey, count: usize, answer: Answer) -> &Self {
        self.shared.state().script.add(api, Some(target.into()), Some(count), answer);
        self
    }

    /// As [`FakeBroker::next`], for all requests until [`FakeBroker::behave`].
    pub fn always(&self, api: ApiKey, answer: Answer) -> &Self {
        self.shared.state().script.add(api, None, None, answer);
        self
    }

    /// As [`FakeBroker::next_for`], for all requests until [`FakeBroker::behave`].
    pub fn always_for(&self, target: impl Into<Target>, api: ApiKey, answer: Answer) -> &Self {
        self.shared.state().script.add(api, Some(target.into()), None, answer);
        self
    }

    /// Forgets all rules that are not used up. A connection that a rule has silenced stays so.
    pub fn behave(&self) -> &Self {
        self.shared.state().script.clear();
        self
    }

    /// Cuts all connections. Clients may connect again at once.
    pub fn disconnect(&self) -> &Self {
        drop(std::mem::take(&mut *self.connections.lock().unwrap_or_else(PoisonError::into_inner)));
        self
    }

    /// Offers no version of an API above this one, as an older broker would.
    pub fn up_to_version(&self, api: ApiKey, version: i16) -> &Self {
        self.shared.state().limit(api, Some(version));
        self
    }

    /// Does not offer an API at all.
    pub fn without(&self, api: ApiKey) -> &Self {
        self.shared.state().limit(api, None);
        self
    }

    /// The largest batch that is taken, in bytes with its header (`max.message.bytes`). Default 1,048,588.
    pub fn max_batch_bytes(&self, bytes: usize) -> &Self {
        self.shared.state().max_batch_bytes = bytes;
        self
    }

    /// How many connections were made to it.
    pub fn connections(&self) -> usize {
        self.shared.state().connections
    }

    /// How many requests of an API have come.
    pub fn requests(&self, api: ApiKey) -> usize {
        self.shared.state().seen.count(api)
    }

    /// The requests of an API, oldest first. Of all APIs together the last 10,000 are kept, with up to 64 MiB.
    pub fn seen(&self, api: ApiKey) -> Vec<SeenRequest> {
        self.shared.state().seen.newest(api)
    }

    /// Waits until the broker is as `condition` wants it; it is looked at after each request. Put a deadline around it.
    pub async fn until(&self, condition: impl Fn(&Self) -> bool) {
        loop {
            let changed = self.shared.changed.notified();
            if condition(self) {
                return;
            }
            changed.await;
        }
    }

    /// The records in a partition, those of aborted transactions too. None where there is no such partition.
    pub fn records(&self, topic: &str, partition: i32) -> Vec<OwnedRecord> {
        let mut state = self.shared.state();
        let partition = state.partition(topic, partition);
        partition.map_or_else(Vec::new, |partition| partition.log.records().collect())
    }

    /// The values of [`FakeBroker::records`] as text; what is not UTF-8 is replaced, and no value is empty text.
    pub fn values(&self, topic: &str, partition: i32) -> Vec<String> {
        let text = |record: OwnedRecord| {
            String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned()
        };
        self.records(topic, partition).into_iter().map(text).collect()
    }

    /// The batches in a partition, markers of transactions too.
    pub fn batches(&self, topic: &str, partition: i32) -> Vec<RecordBatch> {
        let mut state = self.shared.state();
        state.partition(topic, partition).map_or_else(Vec::new, |partition| partition.log.batches().to_vec())
    }

    /// Puts other bytes in the place of a batch of [`FakeBroker::batches`], damaged ones for example. False when there
    /// is no such batch, or when the bytes do not even begin like one and have its length.
    pub fn replace_batch(&self, topic: &str, partition: i32, index: usize, bytes: impl Into<Bytes>) -> bool {
        let mut state = self.shared.state();
        state.partition(topic, partition).is_some_and(|partition| partition.log.replace(index, bytes.into()))
    }

    /// What a group has committed for a partition.
    pub fn committed(&self, group: &str, partition: impl Into<TopicPartition>) -> Option<i64> {
        let state = self.shared.state();
        state.groups.get(group)?.committed().get(&partition.into()).map(|committed| committed.offset)
    }

    /// Commits for a group, as if it had read so far before.
    ///
    /// # Panics
    /// An empty name, or more than 1,000 groups.
    pub fn commit(&self, group: &str, partition: impl Into<TopicPartition>, offset: i64) -> &Self {
        let mut state = self.shared.state();
        let made = state.group(group).map(|group| group.commit(partition.into(), offset.into()));
        let told = made.map_err(ErrorCode::name);
        drop(state);
        assert!(told.is_ok(), "group {group:?}: {told:?}");
        self
    }

    /// Drops all members of a group, as if their sessions had ended.
    pub fn expel(&self, group: &str) -> &Self {
        if let Some(group) = self.shared.state().groups.get_mut(group) {
            group.expel();
        }
        self.shared.changed.notify_waiters();
        self
    }

    /// How many members a group has dropped, for their silence or by [`FakeBroker::expel`].
    pub fn expelled(&self, group: &str) -> usize {
        self.shared.state().groups.get(group).map_or(0, Group::expelled)
    }
}
