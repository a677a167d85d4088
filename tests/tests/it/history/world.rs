//! What all clients of a run have in common: where the broker is, where they write down what they do, and whether they
//! are to stop.

use std::sync::Arc;
use std::time::Duration;

use klamm_client::{Client, ClientError, TopicPartition};
use klamm_runtime::SeededRng;
use tokio::sync::watch;
use tokio::time::timeout;

use super::net::BadNet;
use super::operation::Place;
use super::recorder::Recorder;

/// What groups read.
pub(super) const INPUT: &str = "input";
/// What transactional producers write on their own.
pub(super) const MOVED: &str = "moved";
/// What copiers write.
pub(super) const COPIES: &str = "copies";
pub(super) const READERS: &str = "readers";
pub(super) const COPIERS: &str = "copiers";

/// A member that does not get in touch for so long is out of its group.
pub(super) const SESSION: Duration = Duration::from_millis(700);
pub(super) const HEARTBEAT: Duration = Duration::from_millis(100);
pub(super) const TRANSACTION: Duration = Duration::from_millis(800);
/// What one request may take; a broker can be paused for longer.
pub(super) const REQUEST: Duration = Duration::from_millis(1_200);
/// What a record may take.
pub(super) const DELIVERY: Duration = Duration::from_millis(2_500);
/// What any call of a client may take that has deadlines of its own: beyond it, it hangs.
pub(super) const STEP: Duration = Duration::from_secs(20);

pub(super) const INPUT_PARTITIONS: i32 = 3;
pub(super) const OUTPUT_PARTITIONS: i32 = 2;

/// Where anything goes wrong for a client, it begins anew.
pub(super) type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug)]
pub(super) struct World {
    pub(super) address: String,
    pub(super) recorder: Recorder,
    pub(super) net: BadNet,
    pub(super) rng: SeededRng,
    /// Who writes what nobody told him to write ends first, then everybody.
    stopping: watch::Sender<Stop>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stop {
    Nobody,
    Writers,
    All,
}

impl World {
    pub(super) fn new(address: String, seed: u64) -> Arc<Self> {
        let (stopping, _) = watch::channel(Stop::Nobody);
        let (recorder, net, rng) = (Recorder::new(), BadNet::new(seed), SeededRng::new(seed ^ 0xC11E));
        Arc::new(Self { address, recorder, net, rng, stopping })
    }

    pub(super) fn stop(&self, who: Stop) {
        self.stopping.send_replace(who);
    }

    pub(super) fn stops(&self, me: Stop) -> bool {
        *self.stopping.borrow() >= me
    }

    /// A client of its own, by the network that is bad.
    pub(super) async fn client(&self) -> Result<Client, Failure> {
        self.connect(Some(self.net.clone())).await
    }

    /// One whose network is good.
    pub(super) async fn good_client(&self) -> Result<Client, Failure> {
        self.connect(None).await
    }

    async fn connect(&self, net: Option<BadNet>) -> Result<Client, Failure> {
        let builder = Client::builder()
            .bootstrap(&*self.address)
            .connect_timeout(REQUEST)
            .request_timeout(REQUEST)
            .retry_backoff(Duration::from_millis(10), Duration::from_millis(100));
        let builder = match net {
            Some(net) => builder.net(Arc::new(net)),
            None => builder,
        };
        let built: Result<Client, ClientError> = timeout(STEP, builder.build()).await?;
        Ok(built?)
    }

    /// After a life of a client: whether there is another, which begins a moment after a failure.
    pub(super) async fn goes_on(&self, name: &str, me: Stop, life: Result<(), Failure>) -> bool {
        if let Err(error) = life {
            self.recorder.trouble(name, &error);
            tokio::time::sleep(Duration::from_millis(5 + self.below(20))).await;
        }
        !self.stops(me)
    }

    /// Waits for a call that has a deadline of its own. One that has none is written down.
    pub(super) async fn wait<T, E>(
        &self,
        name: &str,
        what: &str,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Failure>
    where
        Failure: From<E>,
    {
        match timeout(STEP, call).await {
            Ok(told) => Ok(told?),
            Err(late) => {
                self.recorder.hung(name, what);
                Err(late.into())
            }
        }
    }

    /// Any of the numbers below.
    pub(super) fn below(&self, bound: u64) -> u64 {
        klamm_runtime::Rng::below(&self.rng, bound)
    }
}

/// The topics with their partitions.
pub(super) const TOPICS: [(&str, i32); 3] =
    [(INPUT, INPUT_PARTITIONS), (MOVED, OUTPUT_PARTITIONS), (COPIES, OUTPUT_PARTITIONS)];

pub(super) fn places() -> Vec<Place> {
    let all = TOPICS.iter();
    all.flat_map(|(topic, count)| (0..*count).map(|partition| Place { topic, partition })).collect()
}

pub(super) fn partition(place: Place) -> TopicPartition {
    TopicPartition::new(place.topic, place.partition)
}

/// The place that a partition of ours is.
pub(super) fn place(topic: &str, partition: i32) -> Place {
    let known = TOPICS.iter().find(|(name, _)| *name == topic);
    Place { topic: known.expect("only our topics are read").0, partition }
}
