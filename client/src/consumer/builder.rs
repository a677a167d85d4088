//! The settings of a consumer.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::interceptor::ConsumerInterceptor;
use super::listener::RebalanceListener;
use super::settings::{ConsumerConfig, OffsetReset, ResetOf, Subscription};
use super::stream::Consumer;
use crate::cluster::Client;
use crate::error::{ClientError, ConfigError};
use crate::group::{Assignor, Except, GroupProtocol, PartitionAssignor, Strategy, TopicPattern};
use crate::types::{IsolationLevel, TopicPartition};

/// Settings of a [`Consumer`]; made by [`Client::consumer`]. The defaults are Kafka's unless a method says otherwise.
#[derive(Clone)]
pub struct ConsumerBuilder {
    pub(crate) client: Client,
    pub(crate) config: ConsumerConfig,
    pattern: Option<String>,
    except: Option<Except>,
    /// What is wrong with a setting that was given as text.
    wrong: Option<ConfigError>,
}

impl ConsumerBuilder {
    pub(crate) fn new(client: Client) -> Self {
        let given = ConsumerConfig::from_properties(&client.core().config.properties);
        let (config, wrong) =
            given.map_or_else(|wrong| (ConsumerConfig::default(), Some(wrong)), |config| (config, None));
        Self { client, config, pattern: None, except: None, wrong }
    }

    /// The group to join and to commit under (`group.id`).
    #[must_use]
    pub fn group(mut self, group: impl Into<Arc<str>>) -> Self {
        self.config.group = Some(group.into());
        self
    }

    /// Subscribes to topics; needs a group.
    #[must_use]
    pub fn topics<T: Into<Arc<str>>>(mut self, topics: impl IntoIterator<Item = T>) -> Self {
        self.config.subscription = Subscription::Topics(topics.into_iter().map(Into::into).collect());
        self.pattern = None;
        self
    }

    /// Subscribes to all topics whose whole name matches this regular expression, also to those
    /// created later; needs a group.
    #[must_use]
    pub fn pattern(mut self, pattern: impl Into<String>) -> Self {
        self.config.subscription = Subscription::Nothing;
        self.pattern = Some(pattern.into());
        self
    }

    /// Leaves out topics for which `except` says so, also those created later: of a pattern, not of topics that are
    /// named.
    #[must_use]
    pub fn except(mut self, except: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        self.except = Some(Arc::new(except));
        self
    }

    /// Reads these partitions, without group membership. A group, if set, only names where offsets are committed. They
    /// can be changed later: [`ConsumerHandle::assign`](super::ConsumerHandle::assign).
    #[must_use]
    pub fn assign<P: Into<TopicPartition>>(mut self, partitions: impl IntoIterator<Item = P>) -> Self {
        self.config.subscription = Subscription::Partitions(partitions.into_iter().map(Into::into).collect());
        self.pattern = None;
        self
    }

    /// Starts at the oldest record where there is no committed offset: `auto_offset_reset(OffsetReset::Earliest)`.
    #[must_use]
    pub fn from_beginning(self) -> Self {
        self.auto_offset_reset(OffsetReset::Earliest)
    }

    /// Where to start without a committed offset (`auto.offset.reset`). Default [`OffsetReset::Latest`].
    #[must_use]
    pub fn auto_offset_reset(mut self, reset: OffsetReset) -> Self {
        self.config.offset_reset = reset;
        self
    }

    /// As [`auto_offset_reset`](Self::auto_offset_reset), for topics of which `of` says something else.
    #[must_use]
    pub fn auto_offset_reset_of(
        mut self,
        of: impl Fn(&str) -> Option<OffsetReset> + Send + Sync + 'static,
    ) -> Self {
        self.config.offset_reset_of = ResetOf(Some(Arc::new(of)));
        self
    }

    /// Commits in the background at this interval, when partitions are revoked and on close
    /// (`auto.commit.interval.ms`). A record counts as processed when [`Consumer::next`] (or
    /// [`Consumer::next_batch`]) is asked for what comes after it, so it is at least once for a program that processes
    /// one after the other. Reading as a `Stream` is refused. Default `None`: the program commits.
    #[must_use]
    pub fn auto_commit(mut self, interval: Option<Duration>) -> Self {
        self.config.auto_commit = interval;
        self
    }

    /// How members and coordinator agree (`group.protocol`). Default [`GroupProtocol::Classic`]; with
    /// [`GroupProtocol::Consumer`] the coordinator assigns, so that assignors are not used, and the heartbeat interval
    /// is the broker's. `session_timeout` then only says after how much silence this consumer takes itself for
    /// expelled: the broker's own is `group.consumer.session.timeout.ms`.
    #[must_use]
    pub fn group_protocol(mut self, protocol: GroupProtocol) -> Self {
        self.config.group_protocol = protocol;
        self
    }

    /// How partitions are shared out. Default [`Assignor::CooperativeSticky`]; groups with members of librdkafka's
    /// default configuration need [`Assignor::Range`].
    #[must_use]
    pub fn assignor(self, assignor: Assignor) -> Self {
        self.assignors([assignor])
    }

    /// Several assignors, best first: the group uses one that all its members offer, so that members can be moved from
    /// one to another by two rolling restarts. Partitions stay with their owners during a rebalance only when all of
    /// them are cooperative.
    #[must_use]
    pub fn assignors(mut self, assignors: impl IntoIterator<Item = Assignor>) -> Self {
        self.config.strategies = assignors.into_iter().map(Strategy::BuiltIn).collect();
        self
    }

    /// Offers an assignor of one's own, before those that are set already.
    #[must_use]
    pub fn custom_assignor(mut self, assignor: Arc<dyn PartitionAssignor>) -> Self {
        self.config.strategies.insert(0, Strategy::Custom(assignor));
        self
    }

    /// Silence after which the group takes this member for dead (`session.timeout.ms`). Default 45 s.
    #[must_use]
    pub fn session_timeout(mut self, timeout: Duration) -> Self {
        self.config.session_timeout = timeout;
        self
    }

    /// How often the group hears of this member, and this member of rebalances (`heartbeat.interval.ms`). Default 3 s.
    #[must_use]
    pub fn heartbeat_interval(mut self, interval: Duration) -> Self {
        self.config.heartbeat_interval = interval;
        self
    }

    /// How long a rebalance waits for its members, and so how long a rebalance listener may take
    /// (`max.poll.interval.ms` of the Java client). Default 300 s.
    #[must_use]
    pub fn rebalance_timeout(mut self, timeout: Duration) -> Self {
        self.config.rebalance_timeout = timeout;
        self
    }

    /// Makes this a static member: a restart within the session timeout keeps its partitions
    /// (`group.instance.id`, KIP-345).
    #[must_use]
    pub fn group_instance_id(mut self, id: impl Into<Arc<str>>) -> Self {
        self.config.group_instance_id = Some(id.into());
        self
    }

    /// Bytes that a broker gathers before it answers a fetch, unless `fetch_max_wait` passes
    /// (`fetch.min.bytes`). Default 1.
    #[must_use]
    pub fn fetch_min_bytes(mut self, bytes: usize) -> Self {
        self.config.fetch_min_bytes = bytes;
        self
    }

    /// How long a broker holds a fetch without enough data (`fetch.max.wait.ms`). Default 500 ms.
    #[must_use]
    pub fn fetch_max_wait(mut self, wait: Duration) -> Self {
        self.config.fetch_max_wait = wait;
        self
    }

    /// Most bytes of one fetch answer (`fetch.max.bytes`). Default 16 MiB (Kafka: 50 MiB).
    #[must_use]
    pub fn fetch_max_bytes(mut self, bytes: usize) -> Self {
        self.config.fetch_max_bytes = bytes;
        self
    }

    /// Most bytes of one partition in a fetch answer (`max.partition.fetch.bytes`). Default 1 MiB. A
    /// larger batch comes whole.
    #[must_use]
    pub fn partition_fetch_bytes(mut self, bytes: usize) -> Self {
        self.config.partition_fetch_bytes = bytes;
        self
    }

    /// Bytes of fetched records that may wait to be handed out; beyond them fetching pauses. Default 32 MiB. They
    /// wait as they came over the wire and are decompressed batch by batch when they are handed out. What one broker
    /// sends at once may exceed this by one batch. Paused partitions keep what was fetched, but together no more than
    /// half of this: the rest is fetched again when they are resumed.
    #[must_use]
    pub fn prefetch_bytes(mut self, bytes: usize) -> Self {
        self.config.prefetch_bytes = bytes;
        self
    }

    /// Most bytes that one batch may decompress to; beyond it the batch is reported as corrupt. Default 128 MiB.
    #[must_use]
    pub fn max_batch_bytes(mut self, bytes: usize) -> Self {
        self.config.max_batch_bytes = bytes;
        self
    }

    /// Whether the checksum of every batch is compared (`check.crcs`). Default true.
    #[must_use]
    pub fn check_crcs(mut self, check: bool) -> Self {
        self.config.check_crcs = check;
        self
    }

    /// Which records of transactions are seen (`isolation.level`). Default [`IsolationLevel::ReadUncommitted`].
    #[must_use]
    pub fn isolation(mut self, isolation: IsolationLevel) -> Self {
        self.config.isolation = isolation;
        self
    }

    /// How long one request may take, and the deadline of commits and offset look-ups
    /// (`request.timeout.ms`). Default 30 s.
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.config.request_timeout = timeout;
        self
    }

    /// Where this consumer is (`client.rack`). Brokers that choose replicas by rack (`replica.selector.class`) let it
    /// read from a near one instead of the leader (KIP-392), and assignors of the group may heed it. Default none.
    #[must_use]
    pub fn rack(mut self, rack: impl Into<Arc<str>>) -> Self {
        self.config.rack = Some(rack.into());
        self
    }

    /// Is told when partitions come and go.
    #[must_use]
    pub fn rebalance_listener(mut self, listener: Arc<dyn RebalanceListener>) -> Self {
        self.config.listener = Some(listener);
        self
    }

    /// Sees every record that is handed out and every commit. Several are called in the order in which they are added.
    #[must_use]
    pub fn interceptor(mut self, interceptor: Arc<dyn ConsumerInterceptor>) -> Self {
        self.config.interceptors.add(interceptor);
        self
    }

    /// Checks the settings and starts the consumer's background tasks. Joining the group goes on in the background.
    ///
    /// # Errors
    /// A setting that cannot work, named.
    pub async fn start(mut self) -> Result<Consumer, ClientError> {
        if let Some(wrong) = self.wrong {
            return Err(wrong.into());
        }
        if let Some(pattern) = &self.pattern {
            let pattern = TopicPattern::new(pattern, self.except.take())
                .map_err(|error| ConfigError::new("pattern", error.to_string()))?;
            self.config.subscription = Subscription::Pattern(pattern);
        }
        self.config.check()?;
        Consumer::start(self.client, self.config).await
    }
}

impl fmt::Debug for ConsumerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsumerBuilder")
            .field("group", &self.config.group)
            .field("subscription", &self.config.subscription)
            .field("pattern", &self.pattern)
            .finish_non_exhaustive()
    }
}
