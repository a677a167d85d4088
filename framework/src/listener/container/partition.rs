//! One assigned partition: its ledger, its lanes, and how much work is open. All state is behind one short lock.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use klamm_client::{ConsumerRecord, ConsumerRecords, TopicPartition};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::listener::dispatch::{Dispatch, Lane, Lanes};
use crate::listener::ledger::{Ledger, Ticket};

/// A record on its way through the listener.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) record: ConsumerRecord,
    pub(super) ticket: Ticket,
    /// Of the delivery that comes next, or runs: from 1.
    pub(super) attempt: u32,
    pub(super) first_failure: Option<Instant>,
}

/// A partition from its assignment to its revocation. When it comes back, it is a new one: results of work begun
/// before say nothing about it.
#[derive(Debug)]
pub(super) struct Partition {
    pub(super) place: TopicPartition,
    state: Mutex<State>,
    closing: watch::Sender<bool>,
    /// Handler calls, dead letters and outstanding acknowledgements. Waits between retries do
    /// not count: they can be cut.
    open_work: watch::Sender<usize>,
    arrived: Notify,
    /// Another member may have it: commits are not ours any more.
    gone: AtomicBool,
}

#[derive(Debug)]
struct State {
    ledger: Ledger,
    lanes: Lanes<Item>,
    paused: bool,
    closed: bool,
    /// Offsets that waited in a lane when the partition was closed: nothing was begun with them.
    never_begun: Vec<i64>,
}

/// What finishing records changed.
#[derive(Debug, Default)]
pub(super) struct Finished {
    /// How many of them had not been finished before.
    pub(super) records: usize,
    /// Nothing of the partition is unfinished.
    pub(super) all_done: bool,
}

impl Partition {
    pub(super) fn new(place: TopicPartition) -> Self {
        let state = State {
            ledger: Ledger::new(),
            lanes: Lanes::new(),
            paused: false,
            closed: false,
            never_begun: Vec::new(),
        };
        Self {
            place,
            state: Mutex::new(state),
            closing: watch::Sender::new(false),
            open_work: watch::Sender::new(0),
            arrived: Notify::new(),
            gone: AtomicBool::new(false),
        }
    }

    /// Queues what came from the broker; gives the lanes that need a worker. `pause` is called, under the lock so that
    /// it cannot overtake a resume, when `limit` unfinished records are reached.
    pub(super) fn push(
        &self,
        records: ConsumerRecords,
        dispatch: Dispatch,
        limit: usize,
        pause: impl FnOnce(),
    ) -> Vec<Lane> {
        let mut state = self.state();
        if state.closed {
            return Vec::new();
        }
        let mut new_lanes = Vec::new();
        for record in records.records {
            let ticket = state.ledger.received(record.offset);
            let lane = dispatch.lane_of(&record);
            let item = Item { record, ticket, attempt: 1, first_failure: None };
            if state.lanes.push(lane.clone(), item) {
                new_lanes.push(lane);
            }
        }
        state.ledger.read_to(records.next_offset);
        if state.ledger.unfinished() >= limit && !state.paused {
            state.paused = true;
            pause();
        }
        drop(state);
        self.arrived.notify_one();
        new_lanes
    }

    /// How many records wait in `lane`.
    pub(super) fn waiting(&self, lane: &Lane) -> usize {
        self.state().lanes.waiting(lane)
    }

    /// Resolves when records may have come.
    pub(super) async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// Up to `most` records for the lane's worker; none: it must end.
    pub(super) fn take(&self, lane: &Lane, most: usize) -> Vec<Item> {
        self.state().lanes.take(lane, most)
    }

    /// Opens work, unless the partition is closed.
    pub(super) fn begin(&self) -> Option<OpenWork<'_>> {
        // Under the lock: after `close` returned, no work begins.
        let state = self.state();
        (!state.closed).then(|| {
            self.open();
            OpenWork(self)
        })
    }

    /// One more piece of open work; to be ended by [`Partition::end_work`].
    pub(super) fn open(&self) {
        self.open_work.send_modify(|open| *open += 1);
    }

    pub(super) fn end_work(&self) {
        self.open_work.send_modify(|open| *open -= 1);
    }

    /// Whether this delivery still needs work.
    pub(super) fn wants(&self, ticket: Ticket) -> bool {
        self.state().ledger.is_unfinished(ticket)
    }

    /// These deliveries need no more work. `resume` is called when the partition was paused and is half empty again.
    pub(super) fn finish(&self, tickets: &[Ticket], limit: usize, resume: impl FnOnce()) -> Finished {
        let mut state = self.state();
        let records = tickets.iter().filter(|ticket| state.ledger.finished(**ticket)).count();
        let unfinished = state.ledger.unfinished();
        if state.paused && !state.closed && unfinished <= limit / 2 {
            state.paused = false;
            resume();
        }
        Finished { records, all_done: unfinished == 0 }
    }

    /// The delivery failed and waits for its next attempt.
    pub(super) fn retrying(&self, ticket: Ticket) {
        self.state().ledger.retrying(ticket);
    }

    pub(super) fn committable(&self) -> Option<i64> {
        self.state().ledger.committable()
    }

    pub(super) fn committed(&self, offset: i64) {
        self.state().ledger.committed(offset);
    }

    /// Unfinished records, and how many of them wait for another attempt.
    pub(super) fn load(&self) -> (usize, usize) {
        let state = self.state();
        (state.ledger.unfinished(), state.ledger.in_retry())
    }

    /// Nothing new is begun from here on; waits between retries end. What runs goes on.
    pub(super) fn close(&self) {
        let mut state = self.state();
        if !state.closed {
            state.closed = true;
            let waiting = state.lanes.clear();
            state.never_begun = waiting.iter().map(|item| item.record.offset).collect();
            state.never_begun.sort_unstable();
        }
        drop(state);
        self.closing.send_replace(true);
    }

    /// The last commit is done, or is not ours to do: nothing that finishes from here on counts.
    pub(super) fn give_up(&self) {
        self.close();
        self.gone.store(true, Ordering::Release);
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// Resolves when the partition is closed.
    pub(super) async fn closed(&self) {
        // The sender lives as long as `self`, so that this cannot fail.
        let _ = self.closing.subscribe().wait_for(|closing| *closing).await;
    }

    /// Resolves when no work is open.
    pub(super) async fn idle(&self) {
        let _ = self.open_work.subscribe().wait_for(|open| *open == 0).await;
    }

    /// After [`Partition::close`]: the offsets that were begun with and not finished.
    pub(super) fn begun_and_unfinished(&self) -> Vec<i64> {
        let state = self.state();
        let begun = |offset: &i64| state.never_begun.binary_search(offset).is_err();
        state.ledger.unfinished_offsets().filter(begun).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends its piece of work when dropped.
#[derive(Debug)]
pub(super) struct OpenWork<'a>(&'a Partition);

impl Drop for OpenWork<'_> {
    fn drop(&mut self) {
        self.0.end_work();
    }
}
