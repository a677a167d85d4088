//! The handles of a listener's metrics: made once, and used for each record without being looked up. Without a recorder
//! there are none, and nothing is measured.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use klamm_client::TopicPartition;
use klamm_runtime::metrics::{
    ByLabel, Counter, Histogram, Metric, Part, SharedString, describe, is_recording,
};

use super::metric::{METRICS, names};
use crate::listener::failure::FailureKind;

/// Partitions whose lag is told by itself; the others are added up.
const PARTITIONS_MAX: usize = 1_000;

/// What is told of a listener.
pub(crate) struct Meters(Option<Box<Handles>>);

struct Handles {
    listener: SharedString,
    group: SharedString,
    topics: ByLabel<Arc<OfTopic>>,
    output_failures: [Counter; 3],
    commits: [Counter; 2],
    pauses: Counter,
    rebalances: [Counter; 3],
    ends: [Counter; 2],
    drain_seconds: Histogram,
    drain_unfinished: Counter,
    gauges: Mutex<OwnGauges>,
    /// A recorder that panics is told of once.
    is_broken: AtomicBool,
}

/// The handles for the records of one topic.
pub(crate) struct OfTopic {
    deliveries: Counter,
    handler_seconds: Histogram,
    failures: [Counter; FailureKind::ALL.len()],
    retries: Counter,
    retry_copies: Counter,
    dead_letters: Counter,
    parked: Counter,
    skipped: Counter,
    discarded: Counter,
    replies: Counter,
}

struct OwnGauges {
    parts: [Part; GAUGES.len()],
    lags: BTreeMap<(Arc<str>, Option<i32>), Part>,
}

/// In the order of [`Gauges::values`].
const GAUGES: [Metric; 13] = [
    names::OLDEST_SECONDS,
    names::UNFINISHED,
    names::IN_FLIGHT,
    names::IN_FLIGHT_BYTES,
    names::BUDGET_RATIO,
    names::IN_RETRY,
    names::CALLS,
    names::SLOW_CALLS,
    names::ASSIGNED,
    names::POLL_AGE_SECONDS,
    names::TROUBLES,
    names::LIVE,
    names::READY,
];

/// How a listener stands.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Gauges {
    pub(crate) oldest: Duration,
    pub(crate) unfinished: usize,
    pub(crate) in_flight: usize,
    pub(crate) in_flight_bytes: u64,
    pub(crate) budget_ratio: f64,
    pub(crate) in_retry: usize,
    pub(crate) calls: usize,
    pub(crate) slow_calls: usize,
    pub(crate) assigned: usize,
    pub(crate) poll_age: Duration,
    pub(crate) troubles: usize,
    pub(crate) is_live: bool,
    pub(crate) is_ready: bool,
}

impl Gauges {
    fn values(&self) -> [f64; GAUGES.len()] {
        [
            self.oldest.as_secs_f64(),
            self.unfinished as f64,
            self.in_flight as f64,
            self.in_flight_bytes as f64,
            self.budget_ratio,
            self.in_retry as f64,
            self.calls as f64,
            self.slow_calls as f64,
            self.assigned as f64,
            self.poll_age.as_secs_f64(),
            self.troubles as f64,
            f64::from(u8::from(self.is_live)),
            f64::from(u8::from(self.is_ready)),
        ]
    }
}

/// What is sent on behalf of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    DeadLetter,
    RetryCopy,
    Reply,
}

/// What became of partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Assigned,
    Revoked,
    Lost,
}

impl Meters {
    pub(crate) fn new(listener: &Arc<str>, group: &Arc<str>) -> Self {
        Self(
            is_recording()
                .then(|| {
                    // A recorder that cannot even make handles shows nothing, and ends nothing.
                    let made = AssertUnwindSafe(|| {
                        Handles::new(Arc::clone(listener).into(), Arc::clone(group).into())
                    });
                    catch_unwind(made).ok().map(Box::new)
                })
                .flatten(),
        )
    }

    /// Whether anybody wants to know.
    pub(crate) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// The handles of a topic, to be kept by who works on it.
    pub(crate) fn of_topic(&self, topic: &Arc<str>) -> Option<Arc<OfTopic>> {
        let mut found = None;
        self.tell(|handles| handles.with_topic(topic, |of_topic| found = Some(Arc::clone(of_topic))));
        found
    }

    /// The handler was called.
    pub(crate) fn called(&self, topic: &OfTopic, records: usize, took: Duration) {
        self.tell(|_| {
            topic.deliveries.increment(records as u64);
            topic.handler_seconds.record(took.as_secs_f64());
        });
    }

    pub(crate) fn failed(&self, topic: &Arc<str>, kind: FailureKind) {
        self.count(topic, |of_topic| &of_topic.failures[kind as usize]);
    }

    pub(crate) fn retried(&self, topic: &Arc<str>) {
        self.count(topic, |of_topic| &of_topic.retries);
    }

    pub(crate) fn skipped(&self, topic: &Arc<str>) {
        self.count(topic, |of_topic| &of_topic.skipped);
    }

    pub(crate) fn discarded(&self, topic: &Arc<str>) {
        self.count(topic, |of_topic| &of_topic.discarded);
    }

    /// An output of a record of this topic is acknowledged.
    pub(crate) fn sent(&self, topic: &Arc<str>, output: Output, parked: bool) {
        self.count(topic, |of_topic| match output {
            _ if parked => &of_topic.parked,
            Output::DeadLetter => &of_topic.dead_letters,
            Output::RetryCopy => &of_topic.retry_copies,
            Output::Reply => &of_topic.replies,
        });
    }

    pub(crate) fn not_sent(&self, output: Output) {
        self.tell(|handles| handles.output_failures[output as usize].increment(1));
    }

    pub(crate) fn committed(&self, ok: bool) {
        self.tell(|handles| handles.commits[usize::from(!ok)].increment(1));
    }

    pub(crate) fn paused(&self) {
        self.tell(|handles| handles.pauses.increment(1));
    }

    pub(crate) fn rebalanced(&self, change: Change) {
        self.tell(|handles| handles.rebalances[change as usize].increment(1));
    }

    /// How it stands, and how far behind its partitions are, as far as that is known.
    pub(crate) fn stands(&self, gauges: &Gauges, lags: &[(TopicPartition, Option<u64>)]) {
        self.tell(|handles| handles.stands(gauges, lags));
    }

    /// It has ended.
    pub(crate) fn ended(&self, failed: bool, drain: Duration, unfinished: usize) {
        self.tell(|handles| {
            handles.ends[usize::from(failed)].increment(1);
            handles.drain_seconds.record(drain.as_secs_f64());
            handles.drain_unfinished.increment(unfinished as u64);
        });
        self.stands(&Gauges::default(), &[]);
    }

    fn count(&self, topic: &Arc<str>, which: impl FnOnce(&OfTopic) -> &Counter) {
        self.tell(|handles| handles.with_topic(topic, |of_topic| which(of_topic).increment(1)));
    }

    /// The recorder is the user's: what it does wrong is nobody's failure.
    fn tell(&self, tell: impl FnOnce(&Handles)) {
        let Some(handles) = &self.0 else { return };
        if catch_unwind(AssertUnwindSafe(|| tell(handles))).is_err()
            && !handles.is_broken.swap(true, Ordering::Relaxed)
        {
            tracing::error!(
                listener = %handles.listener,
                "the recorder of metrics panicked: what it shows of this listener may be wrong"
            );
        }
    }
}

impl Handles {
    fn new(listener: SharedString, group: SharedString) -> Self {
        describe(METRICS);
        let own = [listener.clone(), group.clone()];
        let with = |metric: Metric, word: &'static str| {
            metric.counter(&[listener.clone(), group.clone(), SharedString::const_str(word)])
        };
        let gauges =
            OwnGauges { parts: GAUGES.map(|metric| Part::of(metric.gauge(&own))), lags: BTreeMap::new() };
        Self {
            topics: ByLabel::default(),
            output_failures: ["dead_letter", "retry_copy", "reply"]
                .map(|word| with(names::OUTPUT_FAILURES, word)),
            commits: ["ok", "failed"].map(|word| with(names::COMMITS, word)),
            pauses: names::PAUSES.counter(&own),
            rebalances: ["assigned", "revoked", "lost"].map(|word| with(names::REBALANCES, word)),
            ends: ["stopped", "failed"].map(|word| with(names::ENDS, word)),
            drain_seconds: names::DRAIN_SECONDS.histogram(&own),
            drain_unfinished: names::DRAIN_UNFINISHED.counter(&own),
            gauges: Mutex::new(gauges),
            is_broken: AtomicBool::new(false),
            listener,
            group,
        }
    }

    fn with_topic(&self, topic: &Arc<str>, using: impl FnOnce(&Arc<OfTopic>)) {
        self.topics.with(topic, |topic| Arc::new(self.make(topic)), using);
    }

    fn make(&self, topic: SharedString) -> OfTopic {
        let labels = [self.listener.clone(), self.group.clone(), topic.clone()];
        let of_kind = |kind: FailureKind| {
            let kind = SharedString::const_str(kind.word());
            names::FAILURES.counter(&[self.listener.clone(), self.group.clone(), topic.clone(), kind])
        };
        OfTopic {
            deliveries: names::DELIVERIES.counter(&labels),
            handler_seconds: names::HANDLER_SECONDS.histogram(&labels),
            failures: FailureKind::ALL.map(of_kind),
            retries: names::RETRIES.counter(&labels),
            retry_copies: names::RETRY_COPIES.counter(&labels),
            dead_letters: names::DEAD_LETTERS.counter(&labels),
            parked: names::PARKED.counter(&labels),
            skipped: names::SKIPPED.counter(&labels),
            discarded: names::DISCARDED.counter(&labels),
            replies: names::REPLIES.counter(&labels),
        }
    }

    fn stands(&self, gauges: &Gauges, lags: &[(TopicPartition, Option<u64>)]) {
        let mut own = self.gauges.lock().unwrap_or_else(PoisonError::into_inner);
        let OwnGauges { parts, lags: known } = &mut *own;
        for (part, value) in parts.iter().zip(gauges.values()) {
            part.set(value);
        }
        let mut told: BTreeMap<(Arc<str>, Option<i32>), u64> = BTreeMap::new();
        for (index, (place, lag)) in lags.iter().enumerate() {
            let partition = (index < PARTITIONS_MAX).then_some(place.partition);
            *told.entry((Arc::clone(&place.topic), partition)).or_default() += lag.unwrap_or(0);
        }
        // One that went is dropped, and 0 from then on.
        known.retain(|place, _| told.contains_key(place));
        for (place, lag) in told {
            known.entry(place).or_insert_with_key(|place| self.lag_of(place)).set(lag as f64);
        }
    }

    fn lag_of(&self, (topic, partition): &(Arc<str>, Option<i32>)) -> Part {
        let partition = partition.map_or_else(|| "other".to_owned(), |partition| partition.to_string());
        let labels = [self.listener.clone(), self.group.clone(), Arc::clone(topic).into(), partition.into()];
        Part::of(names::LAG.gauge(&labels))
    }
}

impl fmt::Debug for Meters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meters").field("is_on", &self.is_on()).finish()
    }
}
