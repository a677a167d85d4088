//! A worker: takes the next records whose turn it is, has them handled, and takes on, until there are none.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::Instant;

use super::ListenerFailure;
use super::call::{Called, call};
use super::item::Hand;
use super::judge::judge;
use super::shared::{Item, Shared};
use super::transactions::Transactions;
use super::unit::unit;
use crate::listener::builder::AckPolicy;
use crate::listener::flow::{Run, after};
use crate::listener::observe::AtWork;

/// Records that are handled before others on the same thread get their turn, at most.
const SLICE_RECORDS_MAX: u32 = 128;
/// How long a slice should take. Handlers that compute get shorter ones.
const SLICE: Duration = Duration::from_millis(1);

/// Works until nothing is ready.
pub(super) async fn work(shared: Arc<Shared>) {
    let alarm = Alarm(&shared);
    let mut pace = Pace { records: 1 };
    let (mut items, mut done) = (Vec::new(), Vec::new());
    let mut at_work = shared.observed.at_work();
    while let Some(run) = shared.take(&mut items) {
        let begun = Instant::now();
        let (items, done) = (&mut items, &mut done);
        let handled = match &shared.transactions {
            Some(transactions) => {
                in_transactions(&shared, transactions, run, pace.records, items, &mut at_work).await
            }
            None => slice(&shared, run, pace.records, (items, done), &mut at_work).await,
        };
        pace.took(handled, begun.elapsed());
        yield_now().await;
    }
    std::mem::forget(alarm);
}

/// Has up to `most` records of a lane handled, and ends the run. Gives how many it were.
async fn slice(
    shared: &Arc<Shared>,
    run: Run,
    most: u32,
    (items, done): (&mut Vec<Item>, &mut Vec<Item>),
    at_work: &mut AtWork<'_>,
) -> u32 {
    let mut handled = 0_u32;
    loop {
        handled = handled.saturating_add(u32::try_from(items.len()).unwrap_or(u32::MAX));
        if let Some(first) = items.first() {
            at_work.begins(&first.record, items.len());
        }
        let called = call(shared, items).await;
        at_work.ends();
        match called {
            Called::AllHandled => {
                std::mem::swap(items, done);
                let waits_for_commit = shared.settings.ack == AckPolicy::Record;
                let next = (handled < most && !waits_for_commit).then_some(&mut *items);
                let goes_on = shared.finish_and_go_on(done, &run, next);
                // What records hold is let go of outside of the lock.
                done.clear();
                if goes_on {
                    continue;
                }
                match waits_for_commit {
                    true => await_commit(shared, run),
                    false => shared.change_times(|flow, now| flow.end(run, now)),
                }
            }
            Called::Noted { failed, any_handled } => {
                let commits = any_handled && shared.settings.ack == AckPolicy::Record;
                let (retried, delay) = judge(shared, failed);
                if !retried.is_empty() {
                    if commits {
                        shared.commits.request();
                    }
                    shared.change_times(|flow, now| {
                        flow.retry(run, retried, after(now, delay), now);
                        flow.wake(now);
                    });
                } else if commits {
                    await_commit(shared, run);
                } else {
                    shared.change_times(|flow, now| flow.end(run, now));
                }
            }
        }
        return handled;
    }
}

/// As [`slice`], a transaction after the other.
async fn in_transactions(
    shared: &Arc<Shared>,
    transactions: &Transactions,
    run: Run,
    most: u32,
    items: &mut Vec<Item>,
    at_work: &mut AtWork<'_>,
) -> u32 {
    let mut handled = 0_u32;
    loop {
        let mut hand = Hand { items: std::mem::take(items), ..Hand::default() };
        handled = handled.saturating_add(u32::try_from(hand.items.len()).unwrap_or(u32::MAX));
        if let Some(first) = hand.items.first() {
            at_work.begins(&first.record, hand.items.len());
        }
        unit(shared, transactions, run.part, &mut hand).await;
        at_work.ends_after(hand.begun);
        if hand.back.is_empty() && handled < most && shared.change(|flow| flow.go_on(&run, items)) {
            continue;
        }
        shared.change_times(|flow, now| {
            flow.put_back(run, hand.back, hand.begun_to, now);
            flow.wake(now);
        });
        return handled;
    }
}

/// The lane's next record waits until what was finished is committed. If that fails it is told where it happens, and
/// the next commit covers these records too.
fn await_commit(shared: &Shared, run: Run) {
    // The round is asked for under the lock, so that it is not over before the lane waits for it.
    shared.change(|flow| flow.await_round(run, shared.commits.request()));
}

/// How many records a slice has.
struct Pace {
    records: u32,
}

impl Pace {
    fn took(&mut self, records: u32, time: Duration) {
        let each_ns = time.as_nanos() / u128::from(records.max(1));
        let fit = SLICE.as_nanos().checked_div(each_ns).unwrap_or(u128::MAX);
        self.records = u32::try_from(fit).unwrap_or(u32::MAX).clamp(1, SLICE_RECORDS_MAX);
    }
}

/// A worker that panics where no user code runs would hold its lane for ever while the listener looks healthy.
struct Alarm<'a>(&'a Shared);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(ListenerFailure::Ended);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handlers_that_compute_get_short_slices() {
        let mut pace = Pace { records: 1 };
        let mut after = |records: u32, time: Duration| {
            pace.took(records, time);
            pace.records
        };
        assert_eq!(after(1, Duration::ZERO), SLICE_RECORDS_MAX);
        assert_eq!(after(128, Duration::from_millis(128)), 1);
        assert_eq!(after(1, Duration::from_millis(500)), 1);
        assert_eq!(after(1, Duration::from_micros(50)), 20);
    }
}
