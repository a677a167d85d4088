//! `Listener`: what to consume and how, as a value.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use klamm_client::{IsolationLevel, OffsetReset};

use super::dispatch::Dispatch;
use super::extract::Needs;
use super::failure::{Backoff, FailurePolicy};
use super::flow::{Batching, Budget};
use super::handler::{Call, Handler};
use super::intercept::{Interceptors, ListenInterceptor};
use super::partitions::Partitions;
use super::topics::{IntoTopics, Topics};

/// A listener: topics, a group, a handler, and how they go together. Made by [`Listener::on`] or by
/// `#[kafka_listener]`, run by an [`App`](crate::App).
#[derive(Clone)]
pub struct Listener {
    pub(crate) id: Arc<str>,
    /// Where its function is: several may have the same name.
    pub(crate) path: &'static str,
    pub(crate) call: Call,
    pub(crate) needs: Needs,
    pub(crate) settings: Settings,
}

/// Everything but the handler.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Of partitions that are named, their topics.
    pub(crate) topics: Topics,
    /// Those that are read without the group's saying so.
    pub(crate) partitions: Option<Arc<[Partitions]>>,
    /// Empty: none, which only a listener on partitions that are named may have.
    pub(crate) group: Arc<str>,
    pub(crate) id: Option<Arc<str>>,
    pub(crate) concurrency: usize,
    pub(crate) ack: AckPolicy,
    pub(crate) dispatch: Dispatch,
    pub(crate) policy: FailurePolicy,
    pub(crate) batch: Option<BatchSize>,
    /// Batches hold records of several partitions.
    pub(crate) batches_across: bool,
    pub(crate) offset_reset: OffsetReset,
    pub(crate) commit_on_assign: CommitOnAssign,
    pub(crate) send_to: Option<Arc<str>>,
    pub(crate) budget: Budget,
    pub(crate) revoke_deadline: Duration,
    pub(crate) interceptors: Interceptors,
    pub(crate) transactional: bool,
    pub(crate) transaction_timeout: Option<Duration>,
    /// Of a handler of single records; `None`: each has a transaction of its own.
    pub(crate) shared_transaction: Option<SharedTransaction>,
    /// What stands before the group in the names of transactions.
    pub(crate) transactional_id_prefix: Arc<str>,
    pub(crate) isolation: IsolationLevel,
    pub(crate) idle_after: Option<Duration>,
    pub(crate) slow_after: Duration,
    pub(crate) auto_start: bool,
    pub(crate) container_group: Option<Arc<str>>,
    pub(crate) restart: Option<Backoff>,
}

impl Settings {
    /// How many records go to the handler at once.
    pub(crate) fn batching(&self) -> Batching {
        match (self.batch, self.shared_transaction) {
            (Some(BatchSize { most, wait }), _) => Batching { most, wait, across: self.batches_across },
            (None, Some(SharedTransaction { most, .. })) => {
                Batching { most, wait: Duration::ZERO, across: false }
            }
            (None, None) => Batching { most: 1, wait: Duration::ZERO, across: false },
        }
    }
}

/// Whether a partition without a committed offset gets one, its start, when it is assigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum CommitOnAssign {
    /// With [`OffsetReset::Latest`], whose start moves: what was read and not finished when the listener stopped would
    /// otherwise lie before the next start. The default.
    #[default]
    LatestOnly,
    /// With [`OffsetReset::Earliest`] too.
    Always,
    /// The first commit is of a record that was finished.
    Never,
}

/// How many records a batch handler gets at most, and how long a batch waits for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchSize {
    pub(crate) most: usize,
    pub(crate) wait: Duration,
}

/// How many records share a transaction at most, and after how long it takes no further one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SharedTransaction {
    pub(crate) most: usize,
    pub(crate) within: Duration,
}

/// When offsets are committed. Whatever the policy, a commit never passes the lowest
/// unfinished record of its partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum AckPolicy {
    /// After every record (every batch, for a batch handler), before the next one of its lane is handled: the fewest
    /// repetitions after a crash, at the price of a round trip each.
    Record,
    /// When everything that was polled of a partition is handled, and every second meanwhile. The default.
    #[default]
    Batch,
    /// In this interval: fewer commits than by [`Batch`](Self::Batch), and up to an interval's records come again after
    /// a crash. Shutdown and rebalances commit what is finished all the same, as with every policy.
    Time(Duration),
    /// When so many records of the listener are finished since the last commit; what is left over, when nothing more
    /// was for a second.
    Count(u64),
    /// When so many records are finished, or this time is over since the last commit, whichever is first.
    CountTime(u64, Duration),
    /// The handler takes an [`Ack`](crate::Ack) and says when.
    Manual,
}

/// Handler calls at once: enough that the partitions of an ordinary topic do not wait for one another.
const DEFAULT_CONCURRENCY: usize = 16;
/// Records in hand: a second of work for a handler that takes a millisecond and is called 16 times at once.
const DEFAULT_MAX_IN_FLIGHT: usize = 10_000;
/// Bytes of the records in hand. The consumer's own buffer comes on top.
const DEFAULT_MAX_IN_FLIGHT_BYTES: usize = 16 * 1024 * 1024;
/// Records of a batch unless told otherwise; Kafka's `max.poll.records`.
const DEFAULT_BATCH: usize = 500;
/// How long handlers may finish what they have begun when their partition goes to another member.
const DEFAULT_REVOKE_DEADLINE: Duration = Duration::from_secs(10);
/// A call of a handler that runs for longer is told of.
const DEFAULT_SLOW_AFTER: Duration = Duration::from_secs(30);

impl Listener {
    /// Listens on a topic, or several: `"orders"`, `["a", "b"]`.
    pub fn on(topics: impl IntoTopics) -> ListenerBuilder<WantsGroup> {
        ListenerBuilder::new(Topics::Names(topics.into_topics()))
    }

    /// Listens on every topic whose whole name matches the regular expression, also on those that are created later.
    pub fn on_pattern(pattern: impl Into<Arc<str>>) -> ListenerBuilder<WantsGroup> {
        ListenerBuilder::new(Topics::Pattern(pattern.into()))
    }

    /// Reads these partitions, whoever else reads them, and begins in each where it says: the group gives out nothing,
    /// and there are no rebalances. With a [`group`](ListenerBuilder::group) offsets are committed there; one with
    /// members refuses that, so it is a group of its own. Without one nothing is committed: each start begins where
    /// [`Partitions::start_at`] says, or as [`offset_reset`](ListenerBuilder::offset_reset) has it. Partitions that the
    /// topic gets later are not read before the next start.
    ///
    /// Two instances of a program both read all of them: this is for a table that every instance keeps, for instance.
    /// Retry topics and transactions need a group that gives out partitions, and are refused at the start.
    ///
    /// ```
    /// use klamm::listener::{Partitions, StartAt};
    /// use klamm::prelude::*;
    ///
    /// async fn price(Key(_product): Key<String>, Value(_cents): Value<i64>) {}
    ///
    /// let table = Partitions::all("prices").start_at(StartAt::Beginning);
    /// let listener = Listener::on_partitions([table]).handle(price);
    /// # let _ = listener;
    /// ```
    pub fn on_partitions(partitions: impl IntoIterator<Item = Partitions>) -> ListenerBuilder<MayHaveGroup> {
        let partitions: Arc<[Partitions]> = partitions.into_iter().collect();
        let mut settings = settings(topics_of(&partitions));
        settings.partitions = Some(partitions);
        ListenerBuilder { settings, step: PhantomData }
    }

    /// Its name in logs, in [`AppHandle::listener`](crate::AppHandle::listener) and in headers of dead letters' errors.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its consumer group; empty if it has none.
    pub fn group(&self) -> &str {
        &self.settings.group
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("id", &self.id).field("settings", &self.settings).finish()
    }
}

/// A listener in the making. The parameter says what is still missing.
#[derive(Debug, Clone)]
pub struct ListenerBuilder<Step> {
    settings: Settings,
    step: PhantomData<fn() -> Step>,
}

/// The group is still missing: call [`ListenerBuilder::group`].
#[derive(Debug, Clone, Copy)]
pub struct WantsGroup;

/// Only the handler is missing, and perhaps a group: [`ListenerBuilder::group`], [`ListenerBuilder::handle`].
#[derive(Debug, Clone, Copy)]
pub struct MayHaveGroup;

/// Only the handler is missing: call [`ListenerBuilder::handle`].
#[derive(Debug, Clone, Copy)]
pub struct WantsHandler;

impl ListenerBuilder<WantsGroup> {
    fn new(topics: Topics) -> Self {
        Self { settings: settings(topics), step: PhantomData }
    }

    /// The consumer group (`group.id`): listeners of the same group share the partitions, also across processes.
    pub fn group(self, group: impl Into<Arc<str>>) -> ListenerBuilder<WantsHandler> {
        self.in_group(group.into())
    }
}

impl ListenerBuilder<MayHaveGroup> {
    /// The consumer group (`group.id`) that offsets are committed under. It gives out no partitions, and must have no
    /// members that do.
    pub fn group(self, group: impl Into<Arc<str>>) -> ListenerBuilder<WantsHandler> {
        self.in_group(group.into())
    }
}

impl<Step> ListenerBuilder<Step> {
    fn in_group(mut self, group: Arc<str>) -> ListenerBuilder<WantsHandler> {
        self.settings.group = group;
        ListenerBuilder { settings: self.settings, step: PhantomData }
    }
}

fn settings(topics: Topics) -> Settings {
    Settings {
        topics,
        partitions: None,
        group: "".into(),
        id: None,
        concurrency: DEFAULT_CONCURRENCY,
        ack: AckPolicy::default(),
        dispatch: Dispatch::default(),
        policy: FailurePolicy::default(),
        batch: None,
        batches_across: false,
        offset_reset: OffsetReset::Earliest,
        commit_on_assign: CommitOnAssign::default(),
        send_to: None,
        budget: Budget { records: DEFAULT_MAX_IN_FLIGHT, bytes: DEFAULT_MAX_IN_FLIGHT_BYTES },
        revoke_deadline: DEFAULT_REVOKE_DEADLINE,
        interceptors: Interceptors::default(),
        transactional: false,
        transaction_timeout: None,
        shared_transaction: None,
        transactional_id_prefix: "".into(),
        isolation: IsolationLevel::ReadCommitted,
        idle_after: None,
        slow_after: DEFAULT_SLOW_AFTER,
        auto_start: true,
        container_group: None,
        restart: None,
    }
}

/// The topics of these partitions, each once.
pub(crate) fn topics_of(partitions: &[Partitions]) -> Topics {
    let mut names: Vec<_> = partitions.iter().map(|partitions| Arc::clone(&partitions.topic)).collect();
    names.sort();
    names.dedup();
    Topics::Names(names)
}

/// A step at which a listener has what its handler needs to begin.
#[diagnostic::on_unimplemented(
    message = "the listener has no group yet",
    label = "call `.group(\"name\")` before `.handle(...)`",
    note = "the group is whose offsets are committed: listeners of the same group share the partitions"
)]
pub trait HasGroup: sealed::Sealed {}

impl HasGroup for WantsHandler {}
impl HasGroup for MayHaveGroup {}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::WantsHandler {}
    impl Sealed for super::MayHaveGroup {}
}

impl<Step> ListenerBuilder<Step> {
    /// The handler: an async fn of extractors. See [`Handler`]. The group must have been set.
    pub fn handle<H, M>(self, handler: H) -> Listener
    where
        Step: HasGroup,
        H: Handler<M>,
    {
        let handler = handler.erase();
        let mut settings = self.settings;
        let id = settings.id.take().unwrap_or_else(|| default_id(handler.path, &settings));
        if matches!(handler.call, Call::Batch(_)) && settings.batch.is_none() {
            settings.batch = Some(BatchSize { most: DEFAULT_BATCH, wait: Duration::ZERO });
        }
        if let Some(batch) = settings.batch {
            // A full batch must be able to gather before fetching pauses.
            settings.budget.records = settings.budget.records.max(batch.most);
        }
        Listener { id, path: handler.path, call: handler.call, needs: handler.needs, settings }
    }
}

/// The handler's name; for closures, which have none, `<group>:<topics>`.
fn default_id(path: &str, settings: &Settings) -> Arc<str> {
    let handler = path.rsplit("::").next().unwrap_or(path);
    if !handler.contains(['{', '>', ' ']) {
        return handler.into();
    }
    let topics = match &settings.topics {
        Topics::Names(names) => names.join(","),
        Topics::Pattern(pattern) => pattern.to_string(),
    };
    format!("{}:{topics}", settings.group).into()
}

impl<Step> ListenerBuilder<Step> {
    /// The listener's name; default the name of the handler function. Unique within an app.
    pub fn id(mut self, id: impl Into<Arc<str>>) -> Self {
        self.settings.id = Some(id.into());
        self
    }

    /// How many handler calls may run at once, over all partitions. Default 16. So many run only as far as
    /// [`dispatch`](Self::dispatch) finds records that need not wait for one another: by partition, as many as there
    /// are partitions, so that a slow handler holds up its own partition alone.
    pub fn concurrency(mut self, handlers: usize) -> Self {
        self.settings.concurrency = handlers;
        self
    }

    /// When offsets are committed; default [`AckPolicy::Batch`].
    pub fn ack(mut self, policy: AckPolicy) -> Self {
        self.settings.ack = policy;
        self
    }

    /// Which records wait for one another; default [`Dispatch::by_partition`].
    pub fn dispatch(mut self, dispatch: Dispatch) -> Self {
        self.settings.dispatch = dispatch;
        self
    }

    /// What becomes of records whose handling fails; see [`FailurePolicy`] for the default.
    pub fn on_failure(mut self, policy: FailurePolicy) -> Self {
        self.settings.policy = policy;
        self
    }

    /// For a handler of [`Batch`](crate::Batch)es: at most `most` records at once (default 500), waiting up to `wait`
    /// for that many (default not at all: a batch is what is there).
    pub fn batch(mut self, most: usize, wait: Duration) -> Self {
        self.settings.batch = Some(BatchSize { most, wait });
        self
    }

    /// Lets one [`Batch`](crate::Batch) hold records of several partitions, of all that the listener has: those of each
    /// in order, one partition after the other. For work that gets cheaper with the size of a batch where partitions
    /// have few records each. Default: a batch is of one partition, and those of several are handled at once.
    ///
    /// Nothing else changes: what fails is tried again, and holds up its own partition alone; each partition is
    /// committed up to its own lowest unfinished record. A partition that has its share of
    /// [`max_in_flight`](Self::max_in_flight) waits no longer for others, so that is best many times `most` where there
    /// are many partitions. A partition that goes to another member is waited for, up to
    /// [`revoke_deadline`](Self::revoke_deadline), as long as the whole batch takes. Not with
    /// [`transactional`](Self::transactional): a transaction is of one partition.
    pub fn batch_across_partitions(mut self) -> Self {
        self.settings.batches_across = true;
        self
    }

    /// Where a group that has not committed yet begins. Default [`OffsetReset::Earliest`]: unlike with Kafka's default,
    /// records written before the first start are not silently skipped.
    pub fn offset_reset(mut self, reset: OffsetReset) -> Self {
        self.settings.offset_reset = reset;
        self
    }

    /// Whether the start of a partition without a committed offset is committed when it is assigned; default
    /// [`CommitOnAssign::LatestOnly`].
    pub fn commit_on_assign(mut self, policy: CommitOnAssign) -> Self {
        self.settings.commit_on_assign = policy;
        self
    }

    /// The topic that a handler's [`Reply`](crate::listener::Reply) goes to. Without it, the one that the request names
    /// in its headers.
    pub fn send_to(mut self, topic: impl Into<Arc<str>>) -> Self {
        self.settings.send_to = Some(topic.into());
        self
    }

    /// Adds an interceptor, which sees every delivery before and after the handler; behind those that are there, and
    /// behind those of the [app](crate::App::intercept).
    pub fn intercept(mut self, interceptor: impl ListenInterceptor) -> Self {
        self.settings.interceptors.add(Arc::new(interceptor));
        self
    }

    /// How many records the listener has in hand, over all partitions: read and not finished, finished above one of
    /// their partition that is not, in retry, or waiting for their [`Ack`](crate::Ack). That many come again after a
    /// crash at most. Default 10,000.
    ///
    /// Every partition has an equal share, at least one record. One that has its share is not read until half of that
    /// is done; the others are not affected. What is read is also bounded by
    /// [`max_in_flight_bytes`](Self::max_in_flight_bytes). After a rebalance that brings more partitions, what was in
    /// hand before stays in hand.
    pub fn max_in_flight(mut self, records: usize) -> Self {
        self.settings.budget.records = records;
        self
    }

    /// How many bytes of keys, values and headers the records in hand have together, and 256 more for each record;
    /// shared out as [`max_in_flight`](Self::max_in_flight) is. Default 16 MiB. A record that is larger than its
    /// partition's share comes alone.
    pub fn max_in_flight_bytes(mut self, bytes: usize) -> Self {
        self.settings.budget.bytes = bytes;
        self
    }

    /// How long handlers may finish what they have begun when their partition goes to another member of the group; what
    /// is not finished or acknowledged by then is delivered again there. Default 10 s.
    pub fn revoke_deadline(mut self, deadline: Duration) -> Self {
        self.settings.revoke_deadline = deadline;
        self
    }

    /// Consumes, processes and produces exactly once: what the handler sends with its [`Tx`](crate::template::Tx), its
    /// [`Reply`](crate::listener::Reply) and the offset of its record (of its batch, for a batch handler) are committed
    /// in one transaction, or not at all. Readers with [`IsolationLevel::ReadCommitted`] see each output once, whatever
    /// is killed when.
    ///
    /// ```
    /// use klamm::prelude::*;
    ///
    /// async fn forward(Value(text): Value<String>, tx: Tx) -> Result<(), Error> {
    ///     tx.send("shouted", "key", text.to_uppercase()).await?;
    ///     tx.send("counted", "key", text.len() as i64).await?;
    ///     Ok(())
    /// }
    ///
    /// let listener = Listener::on("said").group("shouters").transactional().handle(forward);
    /// # let _ = listener;
    /// ```
    ///
    /// - **A failure**, also a panic, aborts what the attempt sent; then the [`FailurePolicy`] decides. The next
    ///   attempt has a transaction of its own, and so have dead letters and copies for retry topics, with the offset.
    ///   Of a batch, records that fail are tried again apart from the others, which come again, too: their outputs were
    ///   aborted with the rest.
    /// - **What is not the record's fault**, such as a coordinator that moves or a rebalance, aborts and comes again
    ///   without counting; see [`ListenerHandle::troubles`](crate::listener::ListenerHandle::troubles) when it lasts.
    ///   When nobody knows whether a commit was done, the group's offset is asked, which names its transaction.
    /// - **In the transaction is what goes through the `Tx`, a [`Template`](crate::Template) argument or the reply.**
    ///   What a template from elsewhere sends, such as one in a state, stays when the transaction is aborted, and so do
    ///   calls to databases.
    /// - **Each transaction** costs three to five round trips and as many syncs of the brokers' disks: batch handlers
    ///   share them among their records, and so do [shared transactions](Self::shared_transactions). Partitions go side
    ///   by side, as [`concurrency`](Self::concurrency) allows.
    /// - **Transactional ids** are `<group>/<topic>/<partition>`, or begin with a
    ///   [prefix](Self::transactional_id_prefix): the next owner of a partition ends at once what the one before left
    ///   open, also after a kill -9. Users need permission to write to ids that begin so.
    ///
    /// Only [`Dispatch::by_partition`] works with it: an offset can be committed with the work before it when that is
    /// done in order. Acknowledging by hand and [`AckPolicy::Record`] are refused at the start, because the transaction
    /// says when offsets are committed.
    pub fn transactional(mut self) -> Self {
        self.settings.transactional = true;
        self
    }

    /// Makes the listener [transactional](Self::transactional), and lets records that wait share a transaction, which
    /// saves the others the round trips and syncs that each commit costs: up to `most` records of a partition, as many
    /// as are there. One that was begun within `within` of the transaction's beginning is the last to join it; nothing
    /// waits for more to come. The handler still gets one record at a time.
    ///
    /// When a record fails, or the transaction cannot be committed, nothing of it is visible, and its records are
    /// handled again, each in a transaction of its own: the one that fails goes the way of the failure policy, alone.
    /// Handlers of batches have one transaction for each batch without this.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use klamm::prelude::*;
    /// # async fn invoice(_: Value<String>, _: Tx) {}
    /// let listener = Listener::on("orders").group("invoicing");
    /// let listener = listener.shared_transactions(100, Duration::from_millis(50)).handle(invoice);
    /// # let _ = listener;
    /// ```
    pub fn shared_transactions(mut self, most: usize, within: Duration) -> Self {
        self.settings.transactional = true;
        self.settings.shared_transaction = Some(SharedTransaction { most, within });
        self
    }

    /// What the names of the transactions (`transactional.id`) of a [transactional](Self::transactional) listener begin
    /// with: `<prefix><group>/<topic>/<partition>`. Default nothing. For clusters that allow names with a certain
    /// beginning only. All instances of the group need the same: who takes a partition over under another name does
    /// not end what was left open there, and readers of the outputs wait for its timeout.
    pub fn transactional_id_prefix(mut self, prefix: impl Into<Arc<str>>) -> Self {
        self.settings.transactional_id_prefix = prefix.into();
        self
    }

    /// How long a transaction of a [transactional](Self::transactional) listener may be open before the coordinator
    /// aborts it (`transaction.timeout.ms`); a handler that takes longer fails. Default 60 s. Brokers limit it
    /// (`transaction.max.timeout.ms`, 15 minutes unless told otherwise). After a crash of the whole group, readers of
    /// its outputs wait so long, or until the group is back.
    pub fn transaction_timeout(mut self, timeout: Duration) -> Self {
        self.settings.transaction_timeout = Some(timeout);
        self
    }

    /// Which records of transactions the listener sees (`isolation.level`). Default [`IsolationLevel::ReadCommitted`],
    /// whatever the client's settings say: records of a transaction that was aborted are none.
    pub fn isolation(mut self, isolation: IsolationLevel) -> Self {
        self.settings.isolation = isolation;
        self
    }

    /// After how long without records, and without anything in hand, the listener counts as idle, and tells so as
    /// [`ListenerEvent::Idle`](crate::listener::ListenerEvent::Idle). Default: never.
    pub fn idle_after(mut self, duration: Duration) -> Self {
        self.settings.idle_after = Some(duration);
        self
    }

    /// How long a call of the handler may run before it is logged, with the record that it is about, and told as
    /// [`ListenerEvent::HandlerSlow`](crate::listener::ListenerEvent::HandlerSlow). It goes on. Default 30 s.
    pub fn slow_after(mut self, duration: Duration) -> Self {
        self.settings.slow_after = duration;
        self
    }

    /// Whether the listener starts with its app; default true. Otherwise
    /// [`ListenerRegistry::start`](crate::app::ListenerRegistry::start) starts it.
    pub fn auto_start(mut self, auto_start: bool) -> Self {
        self.settings.auto_start = auto_start;
        self
    }

    /// The group of listeners that it is started and stopped with:
    /// [`ListenerRegistry::start_group`](crate::app::ListenerRegistry::start_group),
    /// [`App::sequence`](crate::App::sequence). It has nothing to do with the consumer [`group`](Self::group).
    pub fn container_group(mut self, name: impl Into<Arc<str>>) -> Self {
        self.settings.container_group = Some(name.into());
        self
    }

    /// What becomes of the listener when it ends by itself: when its policy says stop, its consumer meets an error that
    /// retrying does not cure, or its commits or transactions are refused for a minute. It is started again after the
    /// backoff's delay, as often as that allows; a listener that ran for ten minutes begins to count anew. Meanwhile
    /// the app is live and not ready. Default: it is not started again, and [`App::run`](crate::App::run) ends.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use klamm::prelude::*;
    /// # async fn bill(_: Value<String>) {}
    /// let patient = Backoff::exponential(Duration::from_secs(1)).cap(Duration::from_secs(300)).forever();
    /// let listener = Listener::on("orders").group("billing").restart(patient).handle(bill);
    /// # let _ = listener;
    /// ```
    pub fn restart(mut self, backoff: Backoff) -> Self {
        self.settings.restart = Some(backoff);
        self
    }
}
