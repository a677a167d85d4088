//! What the poll loop, the workers, the rebalance hook and the acknowledgements of one listener share.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use klamm_client::{Client, ConsumerHandle, ConsumerRecord, Producer};
use klamm_runtime::Rng;
use tokio::sync::{Notify, SetOnce, mpsc, watch};
use tokio::time::Instant;

use super::ListenerFailure;
use super::bell::Bell;
use super::commit_pace::CommitPace;
use super::commits::Commits;
use super::dead_letter::DeadLetters;
use super::events::EventSource;
pub(super) use super::item::{Back, Item};
use super::observed::Observed;
use super::outputs::Output;
use super::retry_copies::RetryCopies;
use super::transactions::Transactions;
use super::troubles::Troubles;
use crate::listener::builder::Settings;
use crate::listener::extract::Scope;
use crate::listener::flow::{self, Arrival, Flow, PartId, Rules, Run, Tell, Ticket};
use crate::listener::handler::Call;
use crate::listener::topics::Topics;

pub(super) struct Shared {
    pub(super) scope: Scope,
    pub(super) call: Call,
    pub(super) settings: Settings,
    flow: Mutex<Flow<ConsumerRecord>>,
    /// Rings when the flow changes.
    pub(super) bell: Bell,
    /// Rings when a partition is closed or moved: outputs that wait for long do not hear of every record.
    endings: Bell,
    /// Wakes the poll loop: something is due earlier, or there may be work that nobody has begun.
    pub(super) nudge: Notify,
    pub(super) commits: Commits,
    pub(super) dead_letters: DeadLetters,
    pub(super) retry_copies: Arc<RetryCopies>,
    pub(super) producer: Producer,
    /// None: the listener is not transactional.
    pub(super) transactions: Option<Transactions>,
    pub(super) outputs: mpsc::UnboundedSender<Output>,
    pub(super) rng: Arc<dyn Rng>,
    pub(super) returned: mpsc::UnboundedSender<Back>,
    /// Set when the listener is to stop by itself.
    pub(super) stopped_by: watch::Sender<Option<ListenerFailure>>,
    pub(super) troubles: Troubles,
    pub(super) observed: Observed,
    /// How often partitions were assigned, none included.
    pub(super) assignments: watch::Sender<u64>,
    /// Its group went on without it, and it has not joined it again.
    pub(super) is_out: AtomicBool,
    pub(super) consumer: SetOnce<ConsumerHandle>,
    pub(super) pace: CommitPace,
    /// Commits go out one after the other, so that an older one cannot overtake a newer one.
    pub(super) commit_turn: tokio::sync::Mutex<()>,
    /// What is subscribed to now.
    topics: Mutex<Topics>,
    /// Retry topics of delays that the policy has no more, which are subscribed to as well.
    left_over: Mutex<Vec<Arc<str>>>,
}

/// What the container is made of, before it runs.
pub(super) struct Parts {
    pub(super) scope: Scope,
    pub(super) call: Call,
    pub(super) settings: Settings,
    pub(super) client: Client,
    pub(super) producer: Producer,
    pub(super) transactions: Option<Transactions>,
    pub(super) outputs: mpsc::UnboundedSender<Output>,
    pub(super) rng: Arc<dyn Rng>,
    pub(super) returned: mpsc::UnboundedSender<Back>,
    pub(super) events: EventSource,
}

impl Shared {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { scope, call, settings, client, producer, transactions, outputs, rng, returned, events } =
            parts;
        let observed = Observed::new(&scope.id, &scope.group, events.clone());
        let rules = Rules {
            budget: settings.budget,
            workers: settings.concurrency,
            dispatch: settings.dispatch,
            batching: settings.batching(),
        };
        let topics = Mutex::new(settings.topics.clone());
        let retry_copies = RetryCopies::new(scope.retries.clone(), &client, producer.clone());
        let id = Arc::clone(&scope.id);
        Self {
            scope,
            call,
            pace: CommitPace::new(settings.ack),
            settings,
            topics,
            left_over: Mutex::default(),
            flow: Mutex::new(Flow::new(rules)),
            bell: Bell::default(),
            endings: Bell::default(),
            nudge: Notify::new(),
            commits: Commits::new(),
            dead_letters: DeadLetters::new(producer.clone()),
            retry_copies: Arc::new(retry_copies),
            producer,
            transactions,
            outputs,
            rng,
            returned,
            stopped_by: watch::Sender::new(None),
            troubles: Troubles::new(&id, events),
            observed,
            assignments: watch::Sender::new(0),
            is_out: AtomicBool::new(false),
            consumer: SetOnce::new(),
            commit_turn: tokio::sync::Mutex::new(()),
        }
    }

    pub(super) fn attach(&self, consumer: ConsumerHandle) {
        // Attached once, right after the consumer was started.
        let _ = self.consumer.set(consumer);
    }

    pub(super) fn consumer(&self) -> Option<&ConsumerHandle> {
        self.consumer.get()
    }

    /// What is subscribed to now, to be changed.
    pub(super) fn topics(&self) -> MutexGuard<'_, Topics> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Retry topics of delays that the policy has no more were found.
    pub(super) fn add_left_over(&self, topics: Vec<Arc<str>>) {
        self.left_over.lock().unwrap_or_else(PoisonError::into_inner).extend(topics);
    }

    /// All that is to be subscribed to for these topics.
    pub(super) fn subscription(&self, topics: &[Arc<str>]) -> Vec<Arc<str>> {
        let Topics::Names(mut all) = self.scope.with_retries(&Topics::Names(topics.to_vec())) else {
            return Vec::new();
        };
        let left_over = self.left_over.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend(self.scope.retries.left_over(topics, &*left_over));
        all
    }

    // ---- the flow

    /// What comes, with when it is due if it comes from a retry topic.
    pub(super) fn arrivals(
        &self,
        records: impl Iterator<Item = ConsumerRecord>,
        now: Instant,
    ) -> impl Iterator<Item = Arrival<ConsumerRecord>> {
        let now_ms = self.retry_copies.clock().now_ms();
        records.map(move |record| {
            let wait = self.scope.retries.wait(&record.topic, &record.headers, now_ms);
            Arrival { record, due: wait.map(|wait| flow::after(now, wait)) }
        })
    }

    /// Of the delivery that comes next, or runs, counted from the record's first, in whichever topic that was.
    pub(super) fn attempt_of(&self, item: &Item) -> u32 {
        let before = self.scope.retries.deliveries_before(&item.record.topic, &item.record.headers);
        before.saturating_add(item.attempt)
    }

    /// Looks at the flow.
    pub(super) fn look<R>(&self, look: impl FnOnce(&Flow<ConsumerRecord>) -> R) -> R {
        look(&self.flow())
    }

    /// Changes the flow, and rings the bell.
    pub(super) fn change<R>(&self, change: impl FnOnce(&mut Flow<ConsumerRecord>) -> R) -> R {
        let (changed, ended) = {
            let mut flow = self.flow();
            let before = flow.endings();
            (change(&mut flow), flow.endings() != before)
        };
        self.bell.ring();
        if ended {
            self.endings.ring();
        }
        changed
    }

    /// As [`Shared::change`], of what the consumer is to be told about; under the flow's lock, so that no pause
    /// overtakes a resume.
    pub(super) fn change_and_tell(&self, change: impl FnOnce(&mut Flow<ConsumerRecord>) -> Vec<Tell>) {
        self.change(|flow| change(flow).into_iter().for_each(|tell| self.tell(tell)));
    }

    pub(super) fn tell(&self, tell: Tell) {
        let Some(consumer) = self.consumer.get() else { return };
        match tell {
            Tell::Pause(place) => {
                self.observed.meters.paused();
                consumer.pause(&[place]);
            }
            Tell::Resume(place) => consumer.resume(&[place]),
        }
    }

    /// A worker with nothing in hand gets its next records.
    pub(super) fn take(&self, items: &mut Vec<Item>) -> Option<Run> {
        self.change(|flow| flow.take(items, Instant::now()))
    }

    /// Changes the flow so that something may be due; wakes the poll loop if that is earlier than what was.
    pub(super) fn change_times(&self, change: impl FnOnce(&mut Flow<ConsumerRecord>, Instant)) {
        let earlier = self.change(|flow| {
            let before = flow.next_due();
            change(flow, Instant::now());
            flow.next_due().is_some_and(|due| before.is_none_or(|before| due < before))
        });
        if earlier {
            self.nudge.notify_one();
        }
    }

    /// Resolves when none of these partitions has work in hand.
    pub(super) async fn idle(&self, parts: &[PartId]) {
        let is_idle = || self.look(|flow| parts.iter().all(|part| flow.is_idle(*part)));
        self.bell.until(|| is_idle().then_some(())).await;
    }

    /// Resolves when the partition is closed, or was moved, so that this delivery counts for nothing.
    pub(super) async fn closed_or_void(&self, part: PartId, ticket: Ticket) {
        let is_over = || self.look(|flow| flow.is_closed(part) || !flow.wants(ticket));
        self.endings.until(|| is_over().then_some(())).await;
    }

    /// Resolves when the partition is closed.
    pub(super) async fn closed(&self, part: PartId) {
        self.endings.until(|| self.look(|flow| flow.is_closed(part)).then_some(())).await;
    }

    /// Resolves when this delivery counts for nothing any more.
    pub(super) async fn void(&self, ticket: Ticket) {
        self.endings.until(|| self.look(|flow| !flow.wants(ticket)).then_some(())).await;
    }

    /// Whether it is a member of its group that knows its partitions.
    pub(super) fn has_joined(&self) -> bool {
        *self.assignments.borrow() > 0 && !self.is_out.load(Ordering::Relaxed)
    }

    /// The listener stops, unless it does already for another reason.
    pub(super) fn fail(&self, failure: ListenerFailure) {
        self.stopped_by.send_if_modified(|first| match first {
            Some(_) => false,
            None => {
                *first = Some(failure);
                true
            }
        });
    }

    fn flow(&self) -> MutexGuard<'_, Flow<ConsumerRecord>> {
        self.flow.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("scope", &self.scope).finish_non_exhaustive()
    }
}
