//! Steps that wait for something outside: what a [`KStream`] offers for asynchronous calls.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;

use super::node::{
    AsyncStep, Built, CallSettings, Calling, Child, Give, InFlight, MakeCall, NodeFactory, UserError,
};
use super::stream::KStream;

/// How an asynchronous step makes its calls: at most 100 at a time in each task, those of one key one after the other,
/// each for 30 s at most, unless told otherwise.
#[derive(Debug, Clone, Copy)]
pub struct AsyncCalls {
    settings: CallSettings,
}

impl Default for AsyncCalls {
    fn default() -> Self {
        let timeout = Duration::from_secs(30);
        Self { settings: CallSettings { max_in_flight: 100, by_key: true, timeout } }
    }
}

impl AsyncCalls {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many calls a task may have under way, one at least. With so many the task takes no more records until one
    /// has ended, and then its partitions are not fetched further.
    #[must_use]
    pub fn max_in_flight(mut self, calls: usize) -> Self {
        self.settings.max_in_flight = calls.max(1);
        self
    }

    /// Calls begin as records come, also of keys with calls under way, and results go on as they come back. Otherwise
    /// the calls and results of each key are in the order of its records; records without a key are of one key then.
    #[must_use]
    pub fn unordered(mut self) -> Self {
        self.settings.by_key = false;
        self
    }

    /// How long an attempt may take; after that it has failed. A commit may wait for it.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = timeout;
        self
    }
}

impl<K, V> KStream<K, V>
where
    K: Clone + Hash + Send + 'static,
    V: Clone + Send + 'static,
{
    /// Gives each record the value that an asynchronous call comes back with: a look-up in a database, a request to a
    /// service. Calls run beside each other on the runtime in which the application was started, and hold up neither
    /// its threads nor each other; see [`AsyncCalls`].
    ///
    /// - No offset is committed past a record whose call has not ended. A task with state, and any task exactly once,
    ///   waits for its calls before a commit, because what it commits is one whole; others commit up to the first
    ///   record that is not finished. Before a task is given up, its calls are waited for.
    /// - A call that fails, panics or takes too long follows the step's
    ///   [`ErrorPolicy`](crate::streams::ErrorPolicy): it is made again as often as `retry` says, and then the
    ///   application fails, the record is skipped, or it becomes a dead letter.
    /// - After a crash, calls whose records were not committed are made again: what they do outside should bear that.
    ///
    /// In the test driver a call has ended when its record was piped, and in a
    /// [`cached`](crate::streams::TopologyTestDriver::cached) one with the commit.
    ///
    /// ```
    /// use klamm::streams::{ErrorPolicy, StreamsBuilder, TopologyTestDriver};
    /// # async fn city_of(user: &str) -> Result<String, std::io::Error> { Ok(format!("{user}'s city")) }
    ///
    /// let mut streams = StreamsBuilder::new();
    /// streams
    ///     .stream::<String, String>("logins")
    ///     .map_values_async(|user, page| async move { city_of(&user).await.map(|city| format!("{page} in {city}")) })
    ///     .on_error(ErrorPolicy::dead_letter("logins-dlt").retry(3, std::time::Duration::from_millis(100)))
    ///     .to("out");
    /// let driver = TopologyTestDriver::new(streams.build()?);
    /// driver.input::<String, String>("logins").pipe("anna", "home").at(1);
    /// assert_eq!(driver.output::<String, String>("out").read_all(), [("anna", "home in anna's city")]);
    /// # Ok::<(), klamm::streams::TopologyError>(())
    /// ```
    pub fn map_values_async<V2, E, F>(
        &self,
        call: impl Fn(K, V) -> F + Send + Sync + 'static,
    ) -> KStream<K, V2>
    where
        V2: Send + 'static,
        E: Into<crate::listener::BoxError>,
        F: Future<Output = Result<V2, E>> + Send + 'static,
    {
        self.map_values_async_with(AsyncCalls::default(), call)
    }

    /// [`map_values_async`](Self::map_values_async), called as `calls` says.
    pub fn map_values_async_with<V2, E, F>(
        &self,
        calls: AsyncCalls,
        call: impl Fn(K, V) -> F + Send + Sync + 'static,
    ) -> KStream<K, V2>
    where
        V2: Send + 'static,
        E: Into<crate::listener::BoxError>,
        F: Future<Output = Result<V2, E>> + Send + 'static,
    {
        let give: Give<K, V2, K, V2> = |key, value, forward| forward(key, &value);
        self.step("map_values_async", false, calling(calls, call, give))
    }

    /// Gives any number of records for each, as an asynchronous call says; see
    /// [`map_values_async`](Self::map_values_async). Marks the stream as key-changing.
    pub fn flat_map_async<K2, V2, I, E, F>(
        &self,
        call: impl Fn(K, V) -> F + Send + Sync + 'static,
    ) -> KStream<K2, V2>
    where
        K2: 'static,
        V2: 'static,
        I: IntoIterator<Item = (K2, V2)> + Send + 'static,
        E: Into<crate::listener::BoxError>,
        F: Future<Output = Result<I, E>> + Send + 'static,
    {
        self.flat_map_async_with(AsyncCalls::default(), call)
    }

    /// [`flat_map_async`](Self::flat_map_async), called as `calls` says.
    pub fn flat_map_async_with<K2, V2, I, E, F>(
        &self,
        calls: AsyncCalls,
        call: impl Fn(K, V) -> F + Send + Sync + 'static,
    ) -> KStream<K2, V2>
    where
        K2: 'static,
        V2: 'static,
        I: IntoIterator<Item = (K2, V2)> + Send + 'static,
        E: Into<crate::listener::BoxError>,
        F: Future<Output = Result<I, E>> + Send + 'static,
    {
        let give: Give<K, I, K2, V2> =
            |_, given, forward| given.into_iter().try_for_each(|(key, value)| forward(&key, &value));
        self.step("flat_map_async", true, calling(calls, call, give))
    }
}

fn calling<K, V, R, K2, V2, E, F>(
    calls: AsyncCalls,
    call: impl Fn(K, V) -> F + Send + Sync + 'static,
    give: Give<K, R, K2, V2>,
) -> NodeFactory
where
    K: Clone + Hash + Send + 'static,
    V: Clone + Send + 'static,
    R: Send + 'static,
    K2: 'static,
    V2: 'static,
    E: Into<crate::listener::BoxError>,
    F: Future<Output = Result<R, E>> + Send + 'static,
{
    let make: MakeCall<K, V, R> =
        Arc::new(move |key, value| call(key, value).map(|given| given.map_err(UserError::of)).boxed());
    let settings = calls.settings;
    Arc::new(move |wiring, id| {
        let (children, boundary) = (wiring.children::<K2, V2>(id)?, wiring.boundary(id));
        let step = Rc::new(RefCell::new(AsyncStep {
            operator: wiring.calling.len(),
            boundary,
            settings,
            lane_of: lane_of::<K>,
            make: Arc::clone(&make),
            give,
            arrivals: Arc::clone(&wiring.arrivals),
            in_flight: InFlight::new(settings.max_in_flight),
            held: BTreeMap::new(),
            children,
        }));
        wiring.calling.push(Rc::clone(&step) as Rc<RefCell<dyn Calling>>);
        Ok(Built::shared::<K, V>(step as Child<K, V>).guarding_itself())
    })
}

/// Keys of one lane wait for each other; that two keys share one by chance does no harm.
fn lane_of<K: Hash>(key: &K) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}
