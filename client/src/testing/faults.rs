//! `FaultyNet`: a network on which requests meet the faults of a script on their way to a broker that is a real one.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use klamm_protocol::ApiKey;

use super::received::{APIS, SeenRequest};
use super::script::{Answer, Target};
use super::through::pass_through;
use super::watched::{SeenCommit, SeenFetch, Watched};
use crate::runtime::{Listener, Net, Stream, Tasks};

/// How much may be on its way between the client and the script.
const BUFFER_BYTES: usize = 64 * 1024;

/// A network between a client and brokers that are real ones: what a script says happens to requests on their way, and
/// all others pass. The script is that of a [`FakeBroker`](super::FakeBroker), with what a bystander cannot do:
///
/// - An error is the answer to the request as a whole, also if it names others than the target.
/// - Errors are to be had for the APIs that a `FakeBroker` serves; connections can be cut for all.
/// - Fetch sessions do not name what they fetch: rules for fetches have no target.
///
/// ```
/// # use std::sync::Arc;
/// # use klamm_client::runtime::{MemoryNet, Net};
/// use klamm_client::testing::{Answer, FaultyNet};
/// use klamm_client::{ApiKey, Client, ErrorCode};
///
/// # fn with(net: Arc<dyn Net>) {
/// let faulty = FaultyNet::over(net);
/// let client = Client::builder().bootstrap("broker:9092").net(Arc::new(faulty.clone()));
/// faulty.next(ApiKey::Produce, 2, Answer::Error(ErrorCode::NotLeaderOrFollower));
/// faulty.next(ApiKey::OffsetCommit, 1, Answer::DisconnectAfter);
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct FaultyNet {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    net: Arc<dyn Net>,
    watched: Arc<Mutex<Watched>>,
    connections: Mutex<Tasks>,
}

impl FaultyNet {
    /// Faults on the way through `net`.
    pub fn over(net: Arc<dyn Net>) -> Self {
        Self { inner: Arc::new(Inner { net, watched: Arc::default(), connections: Mutex::default() }) }
    }

    /// What happens to the next `count` requests of an API.
    ///
    /// # Panics
    /// An error for an API for which none can be had.
    pub fn next(&self, api: ApiKey, count: usize, answer: Answer) -> &Self {
        self.add(api, None, Some(count), answer)
    }

    /// As [`next`](Self::next), of those that name a topic or partition.
    ///
    /// # Panics
    /// As [`next`](Self::next), and for fetches.
    pub fn next_for(&self, target: impl Into<Target>, api: ApiKey, count: usize, answer: Answer) -> &Self {
        self.add(api, Some(target.into()), Some(count), answer)
    }

    /// What happens to all requests of an API, until [`behave`](Self::behave).
    ///
    /// # Panics
    /// As [`next`](Self::next).
    pub fn always(&self, api: ApiKey, answer: Answer) -> &Self {
        self.add(api, None, None, answer)
    }

    /// As [`always`](Self::always), of those that name a topic or partition.
    ///
    /// # Panics
    /// As [`next_for`](Self::next_for).
    pub fn always_for(&self, target: impl Into<Target>, api: ApiKey, answer: Answer) -> &Self {
        self.add(api, Some(target.into()), None, answer)
    }

    fn add(&self, api: ApiKey, target: Option<Target>, left: Option<usize>, answer: Answer) -> &Self {
        let is_error = matches!(answer, Answer::Error(_));
        assert!(!is_error || APIS.contains(&api), "{api:?} has no errors here: cut its connection instead");
        assert!(target.is_none() || api != ApiKey::Fetch, "fetch sessions do not name what they fetch");
        self.watched().script.add(api, target, left, answer);
        self
    }

    /// Forgets all rules. What hangs goes on hanging.
    pub fn behave(&self) -> &Self {
        self.watched().script.clear();
        self
    }

    /// Cuts all connections. Clients connect anew.
    pub fn disconnect(&self) -> &Self {
        *self.connections() = Tasks::new();
        self
    }

    /// How many requests of an API there have been.
    pub fn requests(&self, api: ApiKey) -> usize {
        self.watched().seen.count(api)
    }

    /// The newest requests of an API, as they came; 10,000 of all APIs are kept.
    pub fn seen(&self, api: ApiKey) -> Vec<SeenRequest> {
        self.watched().seen.newest(api)
    }

    /// The offsets that a group committed through this network, in transactions or not, in the order in which the
    /// broker took them; the newest 100,000 of all groups are kept.
    pub fn commits(&self, group: &str) -> Vec<SeenCommit> {
        self.watched().commits(group)
    }

    /// Where consumers asked for records, in order. Within a fetch session only what changed is named: a consumer that
    /// waits at an offset asks for it once. Told from the newest requests, of which 10,000 of all APIs are kept.
    pub fn fetches(&self, topic: &str) -> Vec<SeenFetch> {
        let mut fetches = self.watched().fetches();
        fetches.retain(|fetch| *fetch.partition.topic == *topic);
        fetches
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.inner.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connections(&self) -> MutexGuard<'_, Tasks> {
        self.inner.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Net for FaultyNet {
    async fn connect(&self, address: &str) -> io::Result<Box<dyn Stream>> {
        let broker = self.inner.net.connect(address).await?;
        let (ours, theirs) = tokio::io::duplex(BUFFER_BYTES);
        let watched = Arc::clone(&self.inner.watched);
        self.connections().spawn("faulty connection", pass_through(theirs, broker, watched));
        Ok(Box::new(ours))
    }

    async fn bind(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        self.inner.net.bind(address).await
    }
}
