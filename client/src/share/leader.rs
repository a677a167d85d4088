//! One leader of partitions that are shared: its session, what it has locked, and the one request under way. Pure.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use super::locks::{Locks, Said, Tally};
use super::member::Slot;
use super::session::{FINAL_EPOCH, Session};
use super::sharing::{Rules, Send, What};
use crate::connection::Backoff;

/// A request under way.
#[derive(Debug, Clone)]
pub(super) struct Flight {
    pub(super) fetches: bool,
    /// It ends the session.
    pub(super) ends: bool,
    /// The partitions of which it says something.
    pub(super) said: BTreeSet<Slot>,
    pub(super) sent_at: Instant,
}

/// A leader.
#[derive(Debug)]
pub(super) struct Leader {
    pub(super) session: Session,
    pub(super) locks: Locks,
    pub(super) flight: Option<Flight>,
    /// What was said is to be sent at once, and by then at the latest.
    pub(super) flush: bool,
    pub(super) due_at: Option<Instant>,
    /// It failed, or asked to be left alone until then.
    pub(super) not_before: Option<Instant>,
    pub(super) backoff: Backoff,
    /// Fetches in a row that came back early with nothing.
    pub(super) early: u32,
    /// The number of its last fetch.
    pub(super) turn: u64,
    /// Whether it can prolong locks.
    pub(super) renews: bool,
}

impl Leader {
    pub(super) fn new(backoff: Backoff) -> Self {
        Self {
            session: Session::default(),
            locks: Locks::default(),
            flight: None,
            flush: false,
            due_at: None,
            not_before: None,
            backoff,
            early: 0,
            turn: 0,
            renews: false,
        }
    }

    pub(super) fn is_fetching(&self) -> bool {
        self.flight.as_ref().is_some_and(|flight| flight.fetches)
    }

    /// Nothing is sent to it for a while, or for as long as it asked for before.
    pub(super) fn pause(&mut self, now: Instant, rules: &Rules) {
        self.not_before = self.not_before.max(Some(now + self.backoff.next(&*rules.rng)));
    }

    /// Lets go of locks that ran out. Gives what came to nothing by that.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<(Slot, Tally)> {
        let lost = self.locks.expire(now);
        self.calm_down();
        lost
    }

    /// Where nothing is to be said any more, nothing is due: what is said next is the first again.
    fn calm_down(&mut self) {
        if !self.locks.has_pending() {
            self.flush = false;
            self.due_at = None;
        }
    }

    /// Whether a fetch of these partitions can carry what is to be said. Somebody who waits for an answer does not wait
    /// for records.
    pub(super) fn fits_into_fetch(&self, of: &BTreeSet<Slot>) -> bool {
        let waits = self.flush && self.locks.has_pending();
        !waits && self.locks.fits_into_fetch(|slot| of.contains(slot))
    }

    /// Nothing is due where what was said came to nothing before it was sent.
    pub(super) fn forget_due(&mut self) {
        self.due_at = self.due_at.filter(|_| self.locks.has_pending());
    }

    /// Whether what was said is to be sent now by itself; else when, if there is something. `blocks`: a fetch waits for
    /// it. After [`Leader::expire`], so nothing is due where nothing is to be said.
    pub(super) fn due(&self, now: Instant, blocks: bool) -> Result<(), Option<Instant>> {
        match self.due_at {
            _ if self.flush || blocks => Ok(()),
            Some(at) if at <= now => Ok(()),
            at => Err(at),
        }
    }

    /// A fetch of these partitions.
    pub(super) fn fetch(&mut self, node: i32, of: BTreeSet<Slot>, now: Instant) -> Send {
        let part = self.session.fetch(&of);
        let what = What::Fetch { added: part.added, forgotten: part.forgotten };
        self.send(node, part.epoch, what, now)
    }

    /// An acknowledgement.
    pub(super) fn acknowledge(&mut self, node: i32, now: Instant) -> Send {
        self.send(node, self.session.acknowledge(), What::Acknowledge, now)
    }

    /// The request that ends the session, if there is one.
    pub(super) fn leave(&mut self, node: i32, now: Instant) -> Option<Send> {
        self.session.is_open().then(|| self.send(node, FINAL_EPOCH, What::Acknowledge, now))
    }

    fn send(&mut self, node: i32, epoch: i32, what: What, now: Instant) -> Send {
        let said: BTreeMap<Slot, Said> = self.locks.take();
        self.due_at = Some(now);
        self.calm_down();
        self.flight = Some(Flight {
            fetches: what != What::Acknowledge,
            ends: epoch == FINAL_EPOCH,
            said: said.keys().copied().collect(),
            sent_at: now,
        });
        Send { node, epoch, what, said }
    }
}
