//! `App`: state and listeners put together, started, and ended in good order.

mod assigned;
mod book;
mod check;
mod configured;
#[cfg(feature = "asyncapi")]
mod described;
#[cfg(feature = "asyncapi")]
mod documented;
mod error;
mod handle;
mod health;
mod listener_registry;
mod placeholders;
mod register;
mod registry;
mod restarts;
mod rules;
mod sequence;
mod signals;
mod supervise;
mod templates;
mod topics;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use klamm_client::{Client, NewTopic};
use klamm_runtime::settings::parse_properties;
use klamm_runtime::{Rng, SeededRng, read_text_file};

pub use error::{RegistryError, RunError, StartError};
pub use handle::AppHandle;
pub use health::{Health, ListenerHealth, ListenerState};
pub use listener_registry::ListenerRegistry;
pub use placeholders::PlaceholderError;
use placeholders::Properties;
#[cfg(feature = "macros")]
#[doc(hidden)]
pub use register::Declared;
pub use register::IntoListener;
use registry::Registry;
use rules::Rules;
use sequence::Sequence;
use templates::DeclaredTemplate;
pub use topics::TopicDifference;

use crate::listener::{
    DeadLetterTopics, EventHub, Events, Interceptors, ListenInterceptor, Listener, States, Surroundings,
};
use crate::serde::DefaultSerde;
#[cfg(doc)]
use crate::template::Template;

/// How long a drain may take unless told otherwise. Below the 30 s that Kubernetes gives a pod
/// between SIGTERM and SIGKILL.
const DEFAULT_DRAIN_DEADLINE: Duration = Duration::from_secs(20);
/// How long the groups may take to give partitions to the listeners. Other members have to let go of them first.
const DEFAULT_START_DEADLINE: Duration = Duration::from_secs(60);

/// An application: shared state and listeners.
///
/// ```no_run
/// use klamm::prelude::*;
///
/// async fn print(Value(text): Value<String>) {
///     println!("{text}");
/// }
///
/// #[tokio::main]
/// async fn main() -> klamm::Result<()> {
///     App::new("127.0.0.1:9092").listener(Listener::on("lines").group("printers").handle(print)).run().await
/// }
/// ```
#[must_use = "an app does nothing until it is started with `run` or `start`"]
pub struct App {
    cluster: Cluster,
    states: States,
    listeners: Vec<Listener>,
    errors: Vec<StartError>,
    properties: Properties,
    properties_files: Vec<PathBuf>,
    drain_deadline: Duration,
    start_deadline: Duration,
    rng: Arc<dyn Rng>,
    topics: Vec<NewTopic>,
    templates: Vec<DeclaredTemplate>,
    sequence: Option<Sequence>,
    interceptors: Interceptors,
    events: EventHub,
    #[cfg(feature = "asyncapi")]
    described: described::Described,
}

/// An app that is checked, and not connected yet.
struct Prepared {
    cluster: Cluster,
    listeners: Vec<Listener>,
    rules: Rules,
    #[cfg(feature = "asyncapi")]
    described: described::Described,
}

enum Cluster {
    Bootstrap(String),
    Client(Client),
}

impl App {
    /// An app on the cluster at `bootstrap`: one address (`host:port`) or several, separated by commas. Nothing is
    /// connected before the start.
    pub fn new(bootstrap: impl Into<String>) -> Self {
        Self::on(Cluster::Bootstrap(bootstrap.into()))
    }

    /// An app on a client with settings of its own.
    pub fn with_client(client: Client) -> Self {
        Self::on(Cluster::Client(client))
    }

    /// The same on another cluster, whose client this is.
    #[cfg(feature = "testing")]
    pub(crate) fn on_client(self, client: Client) -> Self {
        Self { cluster: Cluster::Client(client), ..self }
    }

    fn on(cluster: Cluster) -> Self {
        Self {
            cluster,
            states: States::default(),
            listeners: Vec::new(),
            errors: Vec::new(),
            properties: Properties::default(),
            properties_files: Vec::new(),
            drain_deadline: DEFAULT_DRAIN_DEADLINE,
            start_deadline: DEFAULT_START_DEADLINE,
            rng: Arc::new(SeededRng::from_os()),
            topics: Vec::new(),
            templates: Vec::new(),
            sequence: None,
            interceptors: Interceptors::default(),
            events: EventHub::default(),
            #[cfg(feature = "asyncapi")]
            described: described::Described::new(),
        }
    }

    /// Adds state that handlers take as [`State<T>`](crate::State). A second state of the same type replaces the
    /// first.
    pub fn state<T: Clone + Send + Sync + 'static>(mut self, state: T) -> Self {
        self.states.insert(state);
        self
    }

    /// Adds a listener: a [`Listener`] value, or the name of a function under `#[kafka_listener]`.
    pub fn listener<L, M>(mut self, listener: L) -> Self
    where
        L: IntoListener<M>,
    {
        match listener.into_listener() {
            Ok(listener) => self.listeners.push(listener),
            Err(error) => self.errors.push(error),
        }
        self
    }

    /// Adds an interceptor to all listeners; it is asked before their own.
    pub fn intercept(mut self, interceptor: impl ListenInterceptor) -> Self {
        self.interceptors.add(Arc::new(interceptor));
        self
    }

    /// Declares a topic: it is made at the start where it is missing, and gets more partitions where it has fewer.
    /// Nothing is taken away: what differs otherwise is logged, and [`AppHandle::topic_differences`] tells it. A
    /// second declaration of a topic replaces the first.
    ///
    /// ```
    /// use klamm::app::App;
    /// use klamm::client::NewTopic;
    ///
    /// let app = App::new("127.0.0.1:9092")
    ///     .topic(NewTopic::new("orders").partitions(12))
    ///     .topic(NewTopic::new("orders-dlt").partitions(12).config("retention.ms", "-1"));
    /// # let _ = app;
    /// ```
    pub fn topic(mut self, topic: NewTopic) -> Self {
        self.topics.retain(|known| known.name != topic.name);
        self.topics.push(topic);
        self
    }

    /// Runs groups of listeners one after the other
    /// ([`container_group`](crate::listener::ListenerBuilder::container_group)): the first starts with the app, and
    /// each of the others when all listeners of the one before have been idle for so long, which are stopped then. The
    /// last one goes on. It replaces [`auto_start`](crate::listener::ListenerBuilder::auto_start) and
    /// [`idle_after`](crate::listener::ListenerBuilder::idle_after) of its listeners; those in no group of it go their
    /// own way. For a table that is to be read before what needs it, for instance.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use klamm::prelude::*;
    /// # async fn read_prices(_: Value<String>) {}
    /// # async fn bill(_: Value<String>) {}
    /// let app = App::new("127.0.0.1:9092")
    ///     .listener(Listener::on("prices").group("g1").container_group("tables").handle(read_prices))
    ///     .listener(Listener::on("orders").group("g2").container_group("work").handle(bill))
    ///     .sequence(Duration::from_secs(5), ["tables", "work"]);
    /// # let _ = app;
    /// ```
    pub fn sequence<G: Into<Arc<str>>>(
        mut self,
        idle: Duration,
        groups: impl IntoIterator<Item = G>,
    ) -> Self {
        self.sequence = Some(Sequence { idle, groups: groups.into_iter().map(Into::into).collect() });
        self
    }

    /// Declares a template to `topic`, on the app's producer, that handlers take as an argument: [`Template<K, V>`], by
    /// its types. Each pair of types has one. The topic may have [placeholders](Self::property).
    ///
    /// ```
    /// use klamm::prelude::*;
    /// use klamm::template::SendError;
    ///
    /// async fn bill(Value(order): Value<String>, invoices: Template<String, String>) -> Result<(), SendError> {
    ///     invoices.send("k1", format!("invoice for {order}")).await?;
    ///     Ok(())
    /// }
    ///
    /// let billing = Listener::on("orders").group("billing").handle(bill);
    /// let app = App::new("127.0.0.1:9092").template::<String, String>("invoices").listener(billing);
    /// # let _ = app;
    /// ```
    ///
    /// In a [transactional](crate::listener::ListenerBuilder::transactional) listener its sends belong to the
    /// transaction of the delivery, as those of a [`Tx`](crate::template::Tx) do.
    pub fn template<K: DefaultSerde, V: DefaultSerde>(mut self, topic: impl Into<Arc<str>>) -> Self {
        self.templates.push(DeclaredTemplate::new::<K, V>(topic.into()));
        self
    }

    /// Adds every function under `#[kafka_listener]` that is linked into this program and not added yet. Listeners of
    /// another crate are linked only if something of that crate is used: `use my_listeners as _;` is enough.
    #[cfg(feature = "macros")]
    pub fn discover(mut self) -> Self {
        let declared = register::declared(&self.listeners);
        tracing::info!(listeners = declared.len(), "discovered");
        self.listeners.extend(declared);
        self
    }

    /// What `${name}` stands for in the topics, pattern, group, id, dead-letter topic and `send_to` of listeners, and
    /// in the topics of templates:
    /// `#[kafka_listener(topics = "${orders.topic:orders}", group = "billing")]`. What is not set here is looked for in
    /// the environment (`ORDERS_TOPIC`), then in [`properties_file`](Self::properties_file)s, and is then the default
    /// behind the colon. One placeholder may stand for several topics, separated by commas; `\\${` is a plain `${`.
    pub fn property(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.set(name.into(), value.into());
        self
    }

    /// Reads what placeholders stand for from a file of lines `name=value` (Java's `.properties`), when the app starts.
    /// Of several files that have a name the last one says.
    pub fn properties_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.properties_files.push(path.into());
        self
    }

    /// How long a shutdown by [`run`](Self::run) waits for handlers that have begun. Default 20 s, which leaves room
    /// within the 30 s that Kubernetes gives.
    pub fn drain_deadline(mut self, deadline: Duration) -> Self {
        self.drain_deadline = deadline;
        self
    }

    /// How long the start waits until the groups have given the listeners their partitions. Default 60 s: when members
    /// of other processes are busy, they have the time of their
    /// [`revoke_deadline`](crate::listener::ListenerBuilder::revoke_deadline) to finish.
    pub fn start_deadline(mut self, deadline: Duration) -> Self {
        self.start_deadline = deadline;
        self
    }

    /// What happens to the listeners, from their start on; see [`Events`].
    pub fn events(&self) -> Events {
        self.events.events()
    }

    /// Where the jitter of retries comes from; default seeded by the operating system.
    pub fn rng(mut self, rng: Arc<dyn Rng>) -> Self {
        self.rng = rng;
        self
    }

    /// Connects, begins to consume with every listener that is to
    /// ([`auto_start`](crate::listener::ListenerBuilder::auto_start)), and waits until their groups have given them
    /// partitions (none, where there are more members than partitions): what is sent from here on is seen also by
    /// listeners that begin at the end of their topics.
    ///
    /// # Errors
    /// The cluster does not answer, the parts do not fit together, a group or a topic refuses a listener, or the groups
    /// take longer than [`start_deadline`](Self::start_deadline); see [`StartError`].
    pub async fn start(self) -> Result<AppHandle, StartError> {
        let (rng, topics, hub) = (Arc::clone(&self.rng), self.topics.clone(), self.events.clone());
        let (start_deadline, drain_deadline) = (self.start_deadline, self.drain_deadline);
        let sequence = self.sequence.clone();
        let prepared = self.prepare().await?;
        let (mut rules, listeners) = (prepared.rules, prepared.listeners);
        let client = match prepared.cluster {
            Cluster::Client(client) => client,
            Cluster::Bootstrap(bootstrap) => Client::connect(bootstrap).await.map_err(StartError::Connect)?,
        };
        let differences = topics::declare(&client, &topics).await?;
        topics::make_retry_topics(&client, &listeners).await?;
        let producer = client.producer().build().map_err(|error| StartError::Connect(error.into()))?;
        templates::make(&rules.templates, &producer, &mut rules.states);
        let (states, serdes, events) = (rules.states.clone(), rules.states.serdes(), hub.source());
        let dead_letter_topics = Arc::clone(&rules.dead_letter_topics);
        let surroundings =
            Surroundings { producer: producer.clone(), dead_letter_topics, states, rng, events: hub };
        let registry = Registry::new(client, rules, start_deadline, surroundings);
        #[cfg(feature = "asyncapi")]
        let registry = registry.described(prepared.described);
        let registry = Arc::new(registry);
        let app = AppHandle::new(Arc::clone(&registry), producer, differences, serdes, events);
        match registry.begin_all(listeners).await {
            Ok(()) => {}
            Err(error) => {
                // Not half an app: what runs already leaves its group again.
                app.shutdown(Duration::ZERO).await;
                return Err(error);
            }
        }
        if let Some(sequence) = sequence {
            let book = Arc::clone(&registry.book);
            let follow = sequence.follow(Arc::downgrade(&registry), book, drain_deadline);
            registry.tasks.spawn("listener sequence", follow);
        }
        Ok(app)
    }

    /// Replaces the placeholders and checks that the parts fit together. Nothing is connected.
    async fn prepare(self) -> Result<Prepared, StartError> {
        let Self { cluster, states, listeners, interceptors, mut properties, .. } = self;
        if let Some(error) = self.errors.into_iter().next() {
            return Err(error);
        }
        for path in self.properties_files {
            match read_text_file(&path).await {
                Ok(text) => properties.read(parse_properties(&text)),
                Err(source) => return Err(StartError::PropertiesFile { path, source }),
            }
        }
        let mut rules = Rules {
            properties,
            interceptors,
            states,
            templates: self.templates,
            dead_letter_topics: Arc::new(DeadLetterTopics::default()),
        };
        rules.configure_templates()?;
        let mut listeners = listeners
            .into_iter()
            .map(|listener| rules.configured(listener))
            .collect::<Result<Vec<_>, _>>()?;
        if let Some(sequence) = &self.sequence {
            sequence.prepare(&mut listeners)?;
        }
        rules.check(&listeners)?;
        #[cfg(feature = "asyncapi")]
        let described = described::Described {
            bootstrap: match &cluster {
                Cluster::Bootstrap(bootstrap) => bootstrap.clone(),
                Cluster::Client(_) => String::new(),
            },
            topics: self.topics,
            ..self.described
        };
        Ok(Prepared {
            cluster,
            listeners,
            rules,
            #[cfg(feature = "asyncapi")]
            described,
        })
    }

    /// Starts, and runs until SIGTERM, SIGINT (Ctrl-C) or the failure of a listener; then drains: begins nothing
    /// more, waits for the handlers that have begun, commits, leaves the groups. A second signal ends the wait. What
    /// is unfinished at the deadline is logged; it will be delivered again.
    ///
    /// # Errors
    /// The app cannot start, or a listener stopped by itself. The error holds a [`RunError`] (see
    /// [`Error::downcast_ref`](crate::Error::downcast_ref)); it is a [`klamm::Error`](crate::Error) so that
    /// `run().await` can be the last line of a `main` in which other things fail too.
    pub async fn run(self) -> crate::Result<()> {
        Ok(self.run_to_the_end().await?)
    }

    async fn run_to_the_end(self) -> Result<(), RunError> {
        #[cfg(feature = "asyncapi")]
        let Some(this) = self.or_document().await? else { return Ok(()) };
        #[cfg(not(feature = "asyncapi"))]
        let this = self;
        this.run_till_stopped().await
    }

    async fn run_till_stopped(self) -> Result<(), RunError> {
        let drain_deadline = self.drain_deadline;
        let mut signals = signals::Signals::new().map_err(RunError::Signals)?;
        let app = self.start().await?;
        let failed = tokio::select! {
            failed = app.failure() => Some(failed),
            signal = signals.next() => {
                tracing::info!(signal, "draining");
                None
            }
        };
        let report = tokio::select! {
            report = app.shutdown(drain_deadline) => report,
            _ = signals.next() => app.shutdown(Duration::ZERO).await,
        };
        for record in &report.unfinished {
            tracing::warn!(%record, "not finished; it will be delivered again");
        }
        match failed {
            Some((listener, failure)) => Err(RunError::Listener { listener, failure }),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("states", &self.states).field("listeners", &self.listeners).finish()
    }
}
