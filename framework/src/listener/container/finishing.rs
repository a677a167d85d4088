//! Deliveries that need no more work: the ledger is told, and a commit may be due.

use klamm_client::ConsumerRecord;

use super::item::Item;
use super::shared::Shared;
use crate::listener::flow::{Flow, Run, Safe, Ticket};

/// What was finished at once.
#[derive(Default)]
struct Finishing {
    records: u64,
    /// Nothing of a partition is unfinished any more.
    all_done: bool,
}

impl Finishing {
    fn add(&mut self, finished: Option<bool>) {
        self.records += u64::from(finished.is_some());
        self.all_done |= finished.unwrap_or(false);
    }
}

impl Shared {
    /// These deliveries need no more work, and if `go_on` says so, the run gets its next records.
    pub(super) fn finish_and_go_on(&self, done: &[Item], run: &Run, next: Option<&mut Vec<Item>>) -> bool {
        let mut finished = Finishing::default();
        let goes_on = self.change(|flow| {
            for item in done {
                finished.add(self.finish_one(flow, item.ticket));
            }
            next.is_some_and(|items| flow.go_on(run, items))
        });
        self.finished(finished);
        goes_on
    }

    /// These deliveries need no more work.
    pub(super) fn finish(&self, tickets: impl IntoIterator<Item = Ticket>) {
        let mut finished = Finishing::default();
        self.change(|flow| {
            for ticket in tickets {
                finished.add(self.finish_one(flow, ticket));
            }
        });
        self.finished(finished);
    }

    fn finished(&self, finished: Finishing) {
        if self.pace.finished(finished.records, finished.all_done) {
            self.commits.request();
        }
    }

    /// These deliveries need no more work, and this is committed.
    pub(super) fn finish_committed(&self, safe: &Safe, done: &[Item]) {
        let more = self.change(|flow| {
            let mut all_done = false;
            for item in done {
                all_done |= self.finish_one(flow, item.ticket) == Some(true);
            }
            flow.committed(std::slice::from_ref(safe));
            all_done && !flow.committable(&[safe.part]).is_empty()
        });
        if more {
            self.commits.request();
        }
    }

    /// If it counts: whether nothing of the record's partition is unfinished any more.
    fn finish_one(&self, flow: &mut Flow<ConsumerRecord>, ticket: Ticket) -> Option<bool> {
        let finished = flow.finish(ticket);
        finished.tell.into_iter().for_each(|tell| self.tell(tell));
        if finished.room {
            self.nudge.notify_one();
        }
        finished.counts.then_some(finished.all_done)
    }
}
