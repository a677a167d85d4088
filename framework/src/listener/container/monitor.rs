//! Looks at the listener now and then: how it stands, which calls are slow, whether it is idle. What is told there
//! costs the records nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use klamm_client::TopicPartition;
use tokio::time::{Instant, sleep_until};

use super::events::ListenerEvent;
use super::shared::Shared;
use crate::listener::flow::{Flow, View};
use crate::listener::observe::{Ages, Gauges, Idleness, Slow, SlowCall, Turn};

/// How often.
const INTERVAL: Duration = Duration::from_secs(1);
/// A poll loop that has not turned for so long does not get to: something blocks its threads.
pub(super) const UNRESPONSIVE_AFTER: Duration = Duration::from_secs(20);

/// Watches until it is dropped.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut monitor = Monitor::new(&shared);
    loop {
        let next = monitor.look(&shared, Instant::now());
        tokio::select! {
            () = sleep_until(next) => {}
            () = shared.observed.woken.notified() => {}
        }
    }
}

struct Monitor {
    idleness: Option<Idleness>,
    slow: Slow,
    ages: BTreeMap<TopicPartition, Ages>,
    next_sample: Instant,
}

impl Monitor {
    fn new(shared: &Shared) -> Self {
        let now = Instant::now();
        let idleness = shared.settings.idle_after.map(|after| Idleness::new(after, now));
        Self { idleness, slow: Slow::default(), ages: BTreeMap::new(), next_sample: now }
    }

    /// Gives when to look again.
    fn look(&mut self, shared: &Shared, now: Instant) -> Instant {
        if now >= self.next_sample {
            self.next_sample = now + INTERVAL;
            self.sample(shared, now);
        }
        let Some(idleness) = &mut self.idleness else { return self.next_sample };
        if *shared.assignments.borrow() == 0 {
            // Who has no partitions yet does not know whether there is something to do.
            idleness.begin(now);
        }
        let unfinished = shared.look(|flow| flow.load().unfinished);
        if let Some(turn) = idleness.look(shared.observed.arrivals(), unfinished, now) {
            shared.observed.set_idle(matches!(turn, Turn::Idle(_)));
            shared.observed.tell(|| match turn {
                Turn::Idle(lasting) => ListenerEvent::Idle { lasting },
                Turn::Busy => ListenerEvent::NotIdle,
            });
        }
        self.next_sample.min(idleness.next(now, INTERVAL))
    }

    fn sample(&mut self, shared: &Shared, now: Instant) {
        let views = shared.look(Flow::views);
        let oldest = self.oldest(&views, now);
        shared.observed.set_oldest(oldest);
        let running = shared.observed.calls.running();
        let (slow_calls, new) = self.slow.look(&running, shared.settings.slow_after, now);
        new.into_iter().for_each(|call| tell_slow(shared, call));
        if !shared.observed.meters.is_on() {
            return;
        }
        let sum = |of: fn(&View) -> usize| views.iter().map(of).sum::<usize>();
        let (kept, kept_bytes) = (sum(|view| view.kept), views.iter().map(|view| view.kept_bytes).sum());
        let (troubles, poll_age) = (shared.troubles.all().len(), shared.observed.poll_age());
        let has_joined = shared.has_joined();
        let gauges = Gauges {
            oldest,
            unfinished: sum(|view| view.unfinished),
            in_flight: kept,
            in_flight_bytes: kept_bytes,
            budget_ratio: shared.look(|flow| flow.budget_used(kept, kept_bytes)),
            in_retry: sum(|view| view.in_retry),
            calls: running.iter().flatten().count(),
            slow_calls,
            assigned: views.len(),
            poll_age,
            troubles,
            is_live: true,
            is_ready: has_joined && troubles == 0 && poll_age < UNRESPONSIVE_AFTER,
        };
        let lags: Vec<_> = views.iter().map(|view| (view.place.clone(), lag(shared, view))).collect();
        shared.observed.meters.stands(&gauges, &lags);
    }

    /// How long the record has been in hand that has been for longest.
    fn oldest(&mut self, views: &[View], now: Instant) -> Duration {
        let mut ages = std::mem::take(&mut self.ages);
        let mut oldest = Duration::ZERO;
        for view in views {
            let mut age = ages.remove(&view.place).unwrap_or_default();
            oldest = oldest.max(age.look(view.lowest, view.next_offset, now));
            self.ages.insert(view.place.clone(), age);
        }
        oldest
    }
}

/// What is not finished of a partition, read or not, as far as its end is known.
fn lag(shared: &Shared, view: &View) -> Option<u64> {
    let unread = shared.consumer()?.lag(&view.place)?;
    Some(u64::try_from(unread).unwrap_or(0).saturating_add(view.unfinished as u64))
}

fn tell_slow(shared: &Shared, SlowCall { worker, running }: SlowCall) {
    // It may be over by now.
    let Some((partition, offset)) = shared.observed.calls.about(worker) else { return };
    tracing::warn!(
        listener = %shared.scope.id, topic = %partition.topic, partition = partition.partition, offset, ?running,
        "the handler is at a record for long, and what waits for that record waits too (give the handler a deadline, \
         let other keys pass with `dispatch`, move what blocks a thread off it, or raise `slow_after`)"
    );
    shared.observed.tell(|| ListenerEvent::HandlerSlow { partition, offset, running });
}
