//! What a call of the DSL can be told beside its main arguments: one struct per kind of call, with
//! a default for everything.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use klamm_client::OffsetReset;

use super::node::Medium;
use super::routing::{Partitions, StreamPartitioner};
use super::stamps::{Stamping, Timestamps, of_value};
use crate::serde::{DefaultSerde, Serde};
use crate::store::StoreEngine;

/// The serdes of a pair of types.
pub(crate) struct Serdes<K, V> {
    pub(crate) key: Arc<dyn Serde<K>>,
    pub(crate) value: Arc<dyn Serde<V>>,
}

impl<K, V> Serdes<K, V> {
    pub(crate) fn of(key: impl Serde<K>, value: impl Serde<V>) -> Self {
        Self { key: Arc::new(key), value: Arc::new(value) }
    }
}

impl<K: DefaultSerde, V: DefaultSerde> Default for Serdes<K, V> {
    fn default() -> Self {
        Self::of(K::Serde::default(), V::Serde::default())
    }
}

impl<K, V> Clone for Serdes<K, V> {
    fn clone(&self) -> Self {
        Self { key: Arc::clone(&self.key), value: Arc::clone(&self.value) }
    }
}

impl<K, V> fmt::Debug for Serdes<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serdes").field("key", &self.key).field("value", &self.value).finish()
    }
}

/// The topics of one source: a name, or several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics(pub(crate) Vec<String>);

impl From<&str> for Topics {
    fn from(topic: &str) -> Self {
        Self(vec![topic.to_owned()])
    }
}

impl From<String> for Topics {
    fn from(topic: String) -> Self {
        Self(vec![topic])
    }
}

impl<T: Into<String>, const N: usize> From<[T; N]> for Topics {
    fn from(topics: [T; N]) -> Self {
        Self(topics.into_iter().map(Into::into).collect())
    }
}

impl<T: Into<String>> From<Vec<T>> for Topics {
    fn from(topics: Vec<T>) -> Self {
        Self(topics.into_iter().map(Into::into).collect())
    }
}

/// How a source reads its records.
#[derive(Clone)]
pub struct Consumed<K, V> {
    pub(crate) serdes: Serdes<K, V>,
    pub(crate) stamping: Option<Stamping>,
    pub(crate) offset_reset: Option<OffsetReset>,
}

impl<K, V> fmt::Debug for Consumed<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumed").field("serdes", &self.serdes).finish_non_exhaustive()
    }
}

impl<K, V> Consumed<K, V> {
    /// With these serdes.
    pub fn with(key: impl Serde<K>, value: impl Serde<V>) -> Self {
        Self { serdes: Serdes::of(key, value), stamping: None, offset_reset: None }
    }

    /// Where to begin with topics of which the application has committed nothing, or the records that it was at are
    /// gone (`auto.offset.reset`): at the oldest record unless set. Until something is committed of a topic, its
    /// records count as [lag](crate::streams::StreamsApp::lag), wherever it begins.
    #[must_use]
    pub fn offset_reset(mut self, reset: OffsetReset) -> Self {
        self.offset_reset = Some(reset);
        self
    }

    /// Gives the records another time than their producer's.
    #[must_use]
    pub fn timestamps(mut self, timestamps: Timestamps) -> Self {
        self.stamping = Some(timestamps.stamping());
        self
    }

    /// Takes the time of a record, in milliseconds since the Unix epoch, out of its value, which is read once more for
    /// it. A record whose time is negative is dropped and counted; one without a value keeps its producer's time.
    ///
    /// ```
    /// # use klamm::streams::{Consumed, StreamsBuilder, TopologyTestDriver};
    /// # let mut streams = StreamsBuilder::new();
    /// let consumed = Consumed::<String, i64>::default().timestamp_of(|seconds| seconds * 1_000);
    /// streams.stream_with("measured", consumed).to("out");
    /// # let driver = TopologyTestDriver::new(streams.build().unwrap());
    /// # driver.input::<String, i64>("measured").pipe("k", 7).at(1);
    /// # assert_eq!(driver.output::<String, i64>("out").read_all(), [("k", 7, 7_000)]);
    /// ```
    #[must_use]
    pub fn timestamp_of(mut self, time_of: impl Fn(&V) -> i64 + Send + Sync + 'static) -> Self
    where
        V: 'static,
    {
        self.stamping = Some(of_value(Arc::clone(&self.serdes.value), time_of));
        self
    }
}

impl<K: DefaultSerde, V: DefaultSerde> Default for Consumed<K, V> {
    fn default() -> Self {
        Self { serdes: Serdes::default(), stamping: None, offset_reset: None }
    }
}

/// How a sink writes its records.
#[derive(Clone)]
pub struct Produced<K, V> {
    pub(crate) serdes: Serdes<K, V>,
    pub(crate) partitioner: Option<StreamPartitioner<K, V>>,
}

impl<K, V> fmt::Debug for Produced<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Produced").field("serdes", &self.serdes).finish_non_exhaustive()
    }
}

impl<K, V> Produced<K, V> {
    /// With these serdes.
    pub fn with(key: impl Serde<K>, value: impl Serde<V>) -> Self {
        Self { serdes: Serdes::of(key, value), partitioner: None }
    }

    /// Lets `choose` say to which partitions each record goes: one, several or none. It is told the topic, key, value
    /// and how many partitions the topic has (one, in the test driver).
    ///
    /// ```
    /// # use klamm::streams::{Partitions, Produced, StreamsBuilder};
    /// # let mut streams = StreamsBuilder::new();
    /// let by_size = Produced::default().partitioner(|_, _, size: &i64, count| match size {
    ///     0 => Partitions::none(),
    ///     size => i32::try_from(size % i64::from(count)).ok().into(),
    /// });
    /// streams.stream::<String, i64>("parcels").to_with("sorted", by_size);
    /// # streams.build().unwrap();
    /// ```
    #[must_use]
    pub fn partitioner<P: Into<Partitions>>(
        mut self,
        choose: impl Fn(&str, &K, &V, i32) -> P + Send + Sync + 'static,
    ) -> Self {
        self.partitioner =
            Some(Arc::new(move |topic, key, value, count| choose(topic, key, value, count).into()));
        self
    }
}

impl<K: DefaultSerde, V: DefaultSerde> Default for Produced<K, V> {
    fn default() -> Self {
        Self { serdes: Serdes::default(), partitioner: None }
    }
}

/// How a grouped stream writes its records between two sub-topologies, and its keys into stores.
#[derive(Debug, Clone)]
pub struct Grouped<K, V> {
    pub(crate) serdes: Serdes<K, V>,
    pub(crate) name: Option<String>,
}

impl<K, V> Grouped<K, V> {
    /// With these serdes.
    pub fn with(key: impl Serde<K>, value: impl Serde<V>) -> Self {
        Self { serdes: Serdes::of(key, value), name: None }
    }

    /// Names the repartition topic, should there be one: `<application>-<name>-repartition`. Unless named, it has the
    /// name of the first store that is made of the group.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }
}

impl<K: DefaultSerde, V: DefaultSerde> Grouped<K, V> {
    /// With the types' default serdes and a name for the repartition topic.
    pub fn named(name: impl Into<String>) -> Self {
        Self::default().name(name)
    }
}

impl<K: DefaultSerde, V: DefaultSerde> Default for Grouped<K, V> {
    fn default() -> Self {
        Self { serdes: Serdes::default(), name: None }
    }
}

/// A topic through which a stream is sent so that equal keys meet.
#[derive(Clone)]
pub struct Repartitioned<K, V> {
    pub(crate) serdes: Serdes<K, V>,
    pub(crate) name: String,
    pub(crate) partitions: Option<i32>,
    pub(crate) partitioner: Option<StreamPartitioner<K, V>>,
}

impl<K, V> fmt::Debug for Repartitioned<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { serdes, name, partitions, .. } = self;
        let mut shown = f.debug_struct("Repartitioned");
        shown.field("serdes", serdes).field("name", name).field("partitions", partitions);
        shown.finish_non_exhaustive()
    }
}

impl<K: DefaultSerde, V: DefaultSerde> Repartitioned<K, V> {
    /// The topic `<application>-<name>-repartition`, with the types' default serdes.
    pub fn named(name: impl Into<String>) -> Self {
        Self { serdes: Serdes::default(), name: name.into(), partitions: None, partitioner: None }
    }
}

impl<K, V> Repartitioned<K, V> {
    /// The topic `<application>-<name>-repartition`, with these serdes.
    pub fn with(name: impl Into<String>, key: impl Serde<K>, value: impl Serde<V>) -> Self {
        Self { serdes: Serdes::of(key, value), name: name.into(), partitions: None, partitioner: None }
    }

    /// How many partitions the topic has. Unless said, as many as what it is joined with, or
    /// else as what comes before it.
    #[must_use]
    pub fn partitions(mut self, partitions: i32) -> Self {
        self.partitions = Some(partitions);
        self
    }

    /// Lets `choose` say to which partition each record goes, instead of its key; see [`Produced::partitioner`].
    /// Records with equal keys meet only if it sends them to the same one.
    #[must_use]
    pub fn partitioner<P: Into<Partitions>>(
        mut self,
        choose: impl Fn(&str, &K, &V, i32) -> P + Send + Sync + 'static,
    ) -> Self {
        self.partitioner =
            Some(Arc::new(move |topic, key, value, count| choose(topic, key, value, count).into()));
        self
    }
}

impl<K: DefaultSerde, V: DefaultSerde> From<&str> for Repartitioned<K, V> {
    fn from(name: &str) -> Self {
        Self::named(name)
    }
}

/// How a join sends its stream through a repartition topic, where the stream's key may have changed.
#[derive(Debug, Clone)]
pub struct Joined<K, V> {
    pub(crate) serdes: Option<Serdes<K, V>>,
    pub(crate) name: Option<String>,
    pub(crate) grace: Option<(String, Duration)>,
}

impl<K, V> Joined<K, V> {
    /// No serdes: for streams whose key has not changed since the source, which need no repartition topic.
    pub fn in_place() -> Self {
        Self { serdes: None, name: None, grace: None }
    }

    /// With these serdes.
    pub fn with(key: impl Serde<K>, value: impl Serde<V>) -> Self {
        Self { serdes: Some(Serdes::of(key, value)), name: None, grace: None }
    }

    /// Lets each record wait until the stream's time is `grace` past it (KIP-923). It is joined then, in the order of
    /// time, with the row that its key had at its own time: a row that came a little later than the record, and is
    /// older, is met. The table must keep [versions](Materialized::versioned) for at least as long. Records that come
    /// later than that are joined at once. What waits lies in the store `buffer`, with a changelog.
    ///
    /// ```
    /// use std::time::Duration;
    /// use klamm::streams::{Consumed, Joined, Materialized, StreamsBuilder, TopologyTestDriver};
    ///
    /// let mut streams = StreamsBuilder::new();
    /// let kept = Materialized::named("prices").versioned(Duration::from_secs(60));
    /// let prices = streams.table_with::<String, i64>("prices", Consumed::default(), kept);
    /// let joined = Joined::default().grace("sales-that-wait", Duration::from_millis(10));
    /// let sales = streams.stream::<String, i64>("sales");
    /// sales.join_with(&prices, |count, cents| count * cents, joined).to("revenue");
    ///
    /// let driver = TopologyTestDriver::new(streams.build()?);
    /// driver.input::<String, i64>("sales").pipe("tea", 2).at(15);
    /// driver.input::<String, i64>("prices").pipe("tea", 3).at(12);
    /// driver.input::<String, i64>("sales").pipe("tea", 1).at(25);
    /// assert_eq!(driver.output::<String, i64>("revenue").read_all(), [("tea", 6, 15)]);
    /// # Ok::<(), klamm::streams::TopologyError>(())
    /// ```
    #[must_use]
    pub fn grace(mut self, buffer: impl Into<String>, grace: Duration) -> Self {
        self.grace = Some((buffer.into(), grace));
        self
    }

    /// Names the repartition topic, should there be one; otherwise it is named after the path to the join.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }
}

impl<K: DefaultSerde, V: DefaultSerde> Default for Joined<K, V> {
    fn default() -> Self {
        Self { serdes: Some(Serdes::default()), name: None, grace: None }
    }
}

/// How a table is kept: the name of its store, where it lies, how values are written.
///
/// A plain name stands for a store on disk (in memory without the feature `streams`) with a changelog and the
/// value type's default serde.
#[derive(Debug, Clone)]
pub struct Materialized<V> {
    pub(crate) name: String,
    pub(crate) value: Arc<dyn Serde<V>>,
    pub(crate) medium: Medium,
    pub(crate) logged: bool,
    pub(crate) retention: Option<Duration>,
    pub(crate) history: Option<Duration>,
    pub(crate) time_to_live: Option<Duration>,
    pub(crate) keeps_duplicates: bool,
}

impl<V: DefaultSerde> Materialized<V> {
    /// The store `name`, values in their default serde.
    pub fn named(name: impl Into<String>) -> Self {
        Self::with(name, V::Serde::default())
    }
}

impl<V> Materialized<V> {
    /// The store `name`, values written by `value`.
    pub fn with(name: impl Into<String>, value: impl Serde<V>) -> Self {
        Self::written_by(name, Arc::new(value))
    }

    pub(crate) fn written_by(name: impl Into<String>, value: Arc<dyn Serde<V>>) -> Self {
        let (name, medium, logged) = (name.into(), Medium::Disk, true);
        Self {
            name,
            value,
            medium,
            logged,
            retention: None,
            history: None,
            time_to_live: None,
            keeps_duplicates: false,
        }
    }

    /// Keeps the store in memory: faster to write, and restored from the changelog at every start.
    #[must_use]
    pub fn in_memory(mut self) -> Self {
        self.medium = Medium::Memory;
        self
    }

    /// Keeps the store in an engine of one's own, which is told where, and has to do what a
    /// [`StateStore`](crate::store::StateStore) promises: changelog, restore, standbys and exactly once are as of any
    /// other store. What panics there is an error of the store. The test driver opens it in a directory that is
    /// removed with the driver. Without a changelog, what is in it is what the engine remembers.
    #[must_use]
    pub fn stored_in(mut self, engine: impl StoreEngine) -> Self {
        self.medium = Medium::Own(Arc::new(engine));
        self
    }

    /// Writes no changelog. What the store holds is lost with the task's directory, or for a store in memory at
    /// every stop and rebalance.
    #[must_use]
    pub fn danger_without_changelog(mut self) -> Self {
        self.logged = false;
        self
    }

    /// Keeps windows readable for this long past their start, in stream time; at least for size and grace, the default.
    /// For windowed tables only.
    #[must_use]
    pub fn retention(mut self, retention: Duration) -> Self {
        self.retention = Some(retention);
        self
    }

    /// Keeps all values that are put for a key and the start of a window, instead of the last one, as Kafka's window
    /// stores with `retainDuplicates` do. For [`window_store`](crate::streams::StreamsBuilder::window_store)s of
    /// processors only. A record that is processed again after a crash adds nothing.
    #[must_use]
    pub fn retain_duplicates(mut self) -> Self {
        self.keeps_duplicates = true;
        self
    }

    /// Keeps what each row was, for this much of the table's stream time (KIP-889): a stream that is joined with the
    /// table meets the row as it was at the time of its own record, and queries can ask `get_as_of`. A row that comes
    /// out of order is put where it belongs, and changes neither the latest row nor what is made of it; one that is
    /// older than the history is dropped and counted as late. For tables of a topic and
    /// [`to_table`](crate::streams::KStream::to_table); they tell of each change, cache or not.
    ///
    /// ```
    /// use std::time::Duration;
    /// use klamm::streams::{Consumed, Materialized, StreamsBuilder, TopologyTestDriver};
    ///
    /// let mut streams = StreamsBuilder::new();
    /// let kept = Materialized::named("prices").versioned(Duration::from_secs(3600));
    /// let prices = streams.table_with::<String, i64>("prices", Consumed::default(), kept);
    /// let sales = streams.stream::<String, i64>("sales");
    /// sales.join(&prices, |count, cents| count * cents).to("revenue");
    ///
    /// let driver = TopologyTestDriver::new(streams.build()?);
    /// let (prices, sales) = (driver.input::<String, i64>("prices"), driver.input::<String, i64>("sales"));
    /// prices.pipe("tea", 3).at(10);
    /// prices.pipe("tea", 4).at(20);
    /// sales.pipe("tea", 2).at(15);
    /// assert_eq!(driver.output::<String, i64>("revenue").read_all(), [("tea", 6, 15)]);
    /// assert_eq!(driver.store::<String, i64>("prices").get_as_of("tea", 19), Some(3));
    /// # Ok::<(), klamm::streams::TopologyError>(())
    /// ```
    #[must_use]
    pub fn versioned(mut self, history: Duration) -> Self {
        self.history = Some(history);
        self
    }

    /// Lets rows expire: once the stream time of the table's task, the largest timestamp of all that the task has read,
    /// is this much past a row's own time, the row is deleted, with a tombstone in the changelog and for everything
    /// that follows the table, at the time at which it expired. An update makes a row live on. Nothing expires while no
    /// records come. When each row is due is kept in a store of its own, `<name>-expiry`, beside the table's.
    ///
    /// ```
    /// use std::time::Duration;
    /// use klamm::streams::{Consumed, Materialized, StreamsBuilder, TopologyTestDriver};
    ///
    /// let mut streams = StreamsBuilder::new();
    /// let kept = Materialized::named("logins").time_to_live(Duration::from_millis(100));
    /// streams.table_with::<String, String>("logins", Consumed::default(), kept).to_stream().to("out");
    /// let driver = TopologyTestDriver::new(streams.build()?);
    /// let logins = driver.input::<String, String>("logins");
    /// logins.pipe("anna", "Bern").at(10);
    /// logins.pipe("otto", "Rome").at(110);
    /// let told = driver.output::<String, Option<String>>("out").read_all();
    /// assert_eq!(told.len(), 3);
    /// assert_eq!(told[2], ("anna", None::<String>, 110));
    /// # Ok::<(), klamm::streams::TopologyError>(())
    /// ```
    #[must_use]
    pub fn time_to_live(mut self, time: Duration) -> Self {
        self.time_to_live = Some(time);
        self
    }
}

impl<V: DefaultSerde> From<&str> for Materialized<V> {
    fn from(name: &str) -> Self {
        Self::named(name)
    }
}

impl<V: DefaultSerde> From<String> for Materialized<V> {
    fn from(name: String) -> Self {
        Self::named(name)
    }
}
