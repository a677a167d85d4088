//! The order of one partition's batches on their way: sequences, what is in flight, what must be sent again. Pure.
//!
//! A lane gives out batches in order. Until the broker has acknowledged one under the producer's present identity, it
//! gives out one at a time: a broker that does not know the identity takes any first sequence, so that of two batches
//! in flight the second could get in before the first. After that it gives out several. When one fails in a way that
//! retrying may cure, the lane takes no new ones until all that were in flight have come back; then it sends the failed
//! ones again, in order and with the same sequences, so that the broker recognises those it has.
//!
//! A batch that is given up leaves a gap, unless the broker has it after all. Those behind it that the broker may have
//! too are tried under their sequences, one at a time: the broker's answer says which it is. What cannot be in the log
//! goes under another identity, from sequence 0 (KIP-360).

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use tokio::time::Instant;

use crate::error::RequestError;

/// Sequences wrap to 0 after this one.
const MAX_SEQUENCE: i32 = i32::MAX;

/// How many batches of a producer the broker remembers (KIP-98). One that is sent again is recognised only if fewer
/// than this many came after it.
const REMEMBERED_BATCHES: usize = 5;

/// Between the places of two batches in the order there is room for the parts of the first.
const ORDER_STEP: u64 = 1 << 20;

/// Who the broker takes this producer for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) producer_id: i64,
    pub(super) epoch: i16,
}

impl Identity {
    /// As a broker told it. Numbers below zero mean "none" in a batch: with them nothing would be recognised, and no
    /// error would say so.
    pub(super) fn told(producer_id: i64, epoch: i16, address: &Arc<str>) -> Result<Self, RequestError> {
        match producer_id >= 0 && epoch >= 0 {
            true => Ok(Self { producer_id, epoch }),
            false => Err(RequestError::Protocol {
                address: Arc::clone(address),
                reason: Arc::from(format!("a producer id of {producer_id} with epoch {epoch}")),
            }),
        }
    }
}

/// What a batch carries to be recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) identity: Identity,
    pub(super) sequence: i32,
}

/// A batch as far as its lane is concerned.
#[derive(Debug)]
pub(super) struct Sequenced<B> {
    pub(super) batch: B,
    /// Place among the batches of this lane.
    order: u64,
    /// How many places it has for its parts.
    span: u64,
    pub(super) created: Instant,
    pub(super) records: i32,
    pub(super) stamp: Option<Stamp>,
    /// Whether a request that got no definite answer carried it: the broker may have it.
    pub(super) possibly_written: bool,
    pub(super) attempts: u32,
}

/// What is in flight.
#[derive(Debug, Clone, Copy)]
struct Flying {
    order: u64,
    created: Instant,
}

/// What stands in the way of going on under the present identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    None,
    /// The batch at this place was given up. Whether the broker has it is not known.
    Gap(u64),
    /// The sequences lead nowhere. `proven` says that the broker has none of those that wait.
    Restart {
        proven: bool,
        new_id: bool,
    },
}

/// The way of one partition.
#[derive(Debug)]
pub(super) struct Lane<B> {
    idempotent: bool,
    identity: Option<Identity>,
    next_sequence: i32,
    /// Whether the broker acknowledged a batch under this identity.
    acknowledged: bool,
    trouble: Trouble,
    next_order: u64,
    in_flight: Vec<Flying>,
    /// The places of all that were sent and are not older than the oldest without an answer.
    trail: BTreeSet<u64>,
    /// The broker that they went to.
    node: Option<i32>,
    /// To be sent again, in order.
    again: VecDeque<Sequenced<B>>,
    /// Nothing is sent until all in flight have come back.
    recovering: bool,
    not_before: Option<Instant>,
}

/// Why a lane gives nothing now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blocked {
    /// Until something in flight comes back.
    InFlight,
    /// Until then.
    Until(Instant),
    /// Until there is an identity, or another one.
    Identity,
}

/// What is left of a lane that was not used for long: without it, its sequences would begin at 0 again, and the broker
/// would take new batches for old ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parked {
    pub(super) identity: Identity,
    next_sequence: i32,
    trouble: Trouble,
}

impl<B> Lane<B> {
    pub(super) fn new(idempotent: bool, parked: Option<Parked>) -> Self {
        Self {
            idempotent,
            identity: parked.map(|parked| parked.identity),
            next_sequence: parked.map_or(0, |parked| parked.next_sequence),
            // The broker may have forgotten it meanwhile.
            acknowledged: false,
            trouble: parked.map_or(Trouble::None, |parked| parked.trouble),
            next_order: 0,
            in_flight: Vec::new(),
            trail: BTreeSet::new(),
            node: None,
            again: VecDeque::new(),
            recovering: false,
            not_before: None,
        }
    }

    /// What must be remembered of a lane that is forgotten.
    pub(super) fn park(&self) -> Option<Parked> {
        let Self { next_sequence, trouble, .. } = *self;
        self.identity.map(|identity| Parked { identity, next_sequence, trouble })
    }

    /// Whether a batch may go to `node` now, under the producer's identity as it is `present`.
    pub(super) fn check(
        &mut self,
        node: i32,
        present: Option<Identity>,
        now: Instant,
    ) -> Result<(), Blocked> {
        if !self.in_flight.is_empty() {
            // Two brokers at once could not keep the order.
            if self.recovering || self.trouble != Trouble::None || self.node != Some(node) {
                return Err(Blocked::InFlight);
            }
            if self.idempotent && (!self.acknowledged || self.remembers_no_more()) {
                return Err(Blocked::InFlight);
            }
        }
        if let Some(not_before) = self.not_before {
            if now < not_before {
                return Err(Blocked::Until(not_before));
            }
            self.not_before = None;
        }
        self.recovering = false;
        if self.idempotent && !self.may_go_under(present) {
            return Err(Blocked::Identity);
        }
        Ok(())
    }

    /// Whether the broker could not recognise the oldest in flight if one more were sent.
    fn remembers_no_more(&self) -> bool {
        let next = self.again.front().map_or(self.next_order, |batch| batch.order);
        let oldest = self.in_flight.iter().map(|flying| flying.order).min().unwrap_or(next);
        let behind = self.trail.iter().filter(|&&order| order > oldest && order != next).count();
        behind + 1 >= REMEMBERED_BATCHES
    }

    fn may_go_under(&mut self, present: Option<Identity>) -> bool {
        if self.identity.is_none() || present.is_none() {
            return false;
        }
        let next_in_doubt =
            self.again.front().is_some_and(|batch| batch.possibly_written && batch.stamp.is_some());
        match self.trouble {
            Trouble::Restart { .. } => false,
            Trouble::Gap(_) if next_in_doubt => true,
            // No batch behind one that the broker does not have can be in the log.
            Trouble::Gap(_) => {
                self.restart(true, false);
                false
            }
            Trouble::None => {
                let unbound =
                    self.in_flight.is_empty() && self.again.iter().all(|batch| batch.stamp.is_none());
                self.identity == present || !unbound
            }
        }
    }

    /// The identity that did not work, if any: another one is needed. And whether that takes another producer id.
    pub(super) fn rejected_identity(&self) -> Option<(Identity, bool)> {
        match self.trouble {
            Trouble::Restart { new_id, .. } => self.identity.map(|identity| (identity, new_id)),
            _ => None,
        }
    }

    /// Goes on under this identity. Returns the batches that cannot: the broker may have them under the old one, so
    /// sending them again might duplicate them.
    pub(super) fn identify(&mut self, identity: Identity) -> Vec<Sequenced<B>> {
        self.identity = Some(identity);
        self.next_sequence = 0;
        self.acknowledged = false;
        self.trouble = Trouble::None;
        let (doubtful, mut clean): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.again).into_iter().partition(|batch| batch.possibly_written);
        clean.iter_mut().for_each(|batch| batch.stamp = None);
        self.again = clean;
        doubtful.into()
    }

    /// The next batch to send again, if there is one; otherwise a new one may go ([`Lane::admit`]).
    pub(super) fn next_again(&mut self) -> Option<Sequenced<B>> {
        self.again.pop_front()
    }

    /// A batch that was never sent.
    pub(super) fn admit(&mut self, batch: B, records: i32, created: Instant) -> Sequenced<B> {
        let order = self.next_order;
        self.next_order += ORDER_STEP;
        Sequenced {
            batch,
            order,
            span: ORDER_STEP,
            created,
            records,
            stamp: None,
            possibly_written: false,
            attempts: 0,
        }
    }

    /// Stamps a batch, which goes to `node` now. Returns whether the stamp is new.
    pub(super) fn send(&mut self, batch: &mut Sequenced<B>, node: i32) -> bool {
        self.node = Some(node);
        self.in_flight.push(Flying { order: batch.order, created: batch.created });
        // What is older than all without an answer does not matter any more.
        let flying = self.in_flight.iter().map(|flying| flying.order);
        let oldest = flying.chain(self.again.front().map(|first| first.order)).min();
        self.trail = self.trail.split_off(&oldest.unwrap_or(batch.order));
        self.trail.insert(batch.order);
        batch.attempts = batch.attempts.saturating_add(1);
        let fresh = batch.stamp.is_none();
        if fresh && let Some(identity) = self.identity.filter(|_| self.idempotent) {
            batch.stamp = Some(Stamp { identity, sequence: self.next_sequence });
            self.next_sequence = add_sequence(self.next_sequence, batch.records);
        }
        fresh && batch.stamp.is_some()
    }

    /// A batch came back and is acknowledged.
    pub(super) fn done(&mut self, batch: &Sequenced<B>) {
        self.landed(batch);
        self.acknowledged |= self.is_present(batch);
        // What comes behind a gap is accepted only where there is none.
        if matches!(self.trouble, Trouble::Gap(order) if order < batch.order) {
            self.trouble = Trouble::None;
        }
    }

    /// A batch came back and is to be sent again, not before `not_before`.
    pub(super) fn retry(&mut self, mut batch: Sequenced<B>, not_before: Instant) {
        self.landed(&batch);
        self.recovering = true;
        self.not_before = Some(not_before);
        if matches!(self.trouble, Trouble::Restart { proven: true, .. }) {
            batch.possibly_written = false;
        }
        self.wait(batch);
    }

    /// A batch came back and goes on in two parts, which share its sequences.
    pub(super) fn split(&mut self, batch: Sequenced<()>, parts: [(B, i32); 2], not_before: Instant) {
        self.in_flight.retain(|flying| flying.order != batch.order);
        self.recovering = true;
        self.not_before = Some(not_before);
        self.trail.remove(&batch.order);
        let mut sequence = batch.stamp;
        let mut order = batch.order;
        for (part, records) in parts {
            let span = (batch.span / 2).max(1);
            let part = Sequenced {
                batch: part,
                order,
                span,
                created: batch.created,
                records,
                stamp: sequence,
                possibly_written: batch.possibly_written,
                attempts: 0,
            };
            sequence =
                sequence.map(|stamp| Stamp { sequence: add_sequence(stamp.sequence, records), ..stamp });
            order += span;
            self.wait(part);
        }
    }

    /// A batch came back and is given up: the ones behind it may find a gap.
    pub(super) fn give_up<C>(&mut self, batch: &Sequenced<C>) {
        self.landed(batch);
        self.abandon(batch);
    }

    /// As [`Lane::give_up`], for a batch that is not in flight.
    fn abandon<C>(&mut self, batch: &Sequenced<C>) {
        if batch.stamp.is_none_or(|stamp| Some(stamp.identity) != self.identity) {
            return;
        }
        self.trouble = match self.trouble {
            Trouble::None => Trouble::Gap(batch.order),
            Trouble::Gap(order) => Trouble::Gap(order.max(batch.order)),
            restart @ Trouble::Restart { .. } => restart,
        };
    }

    /// The broker does not accept this identity's sequences any more. `proven` says that it does not have the oldest
    /// batch that is not acknowledged, and thus none behind it; `new_id` that the next epoch would not help.
    pub(super) fn restart(&mut self, proven: bool, new_id: bool) {
        self.trouble = match self.trouble {
            Trouble::Restart { proven: before, new_id: other } => {
                Trouble::Restart { proven: before || proven, new_id: other || new_id }
            }
            _ => Trouble::Restart { proven, new_id },
        };
        if proven {
            self.again.iter_mut().for_each(|batch| batch.possibly_written = false);
        }
    }

    /// Whoever gave this identity wants nothing more to go under another one, also not behind what is in flight.
    pub(super) fn leave_for(&mut self, identity: Identity) {
        if self.identity.is_some_and(|own| own != identity) {
            self.restart(false, false);
        }
    }

    /// Whether no earlier batch is in flight or waits to be sent again.
    pub(super) fn is_first<C>(&self, batch: &Sequenced<C>) -> bool {
        self.in_flight.iter().all(|flying| flying.order >= batch.order)
            && self.again.front().is_none_or(|first| first.order > batch.order)
    }

    /// The next batch to be sent again.
    pub(super) fn first_again(&self) -> Option<&Sequenced<B>> {
        self.again.front()
    }

    /// Whether nothing is in flight and nothing waits to be sent again.
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.is_empty() && self.again.is_empty()
    }

    /// Whether anything is in flight.
    pub(super) fn has_in_flight(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// When the oldest batch here was created that is younger than `after`.
    pub(super) fn oldest_after(&self, after: Instant) -> Option<Instant> {
        let waiting = self.again.iter().map(|batch| batch.created);
        let flying = self.in_flight.iter().map(|flying| flying.created);
        waiting.chain(flying).filter(|&created| created > after).min()
    }

    /// Takes out the waiting batches for which `hopeless` holds.
    pub(super) fn expire(&mut self, hopeless: impl Fn(&Sequenced<B>) -> bool) -> Vec<Sequenced<B>> {
        let (expired, kept): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.again).into_iter().partition(|batch| hopeless(batch));
        self.again = kept;
        expired.iter().for_each(|batch| self.abandon(batch));
        expired.into()
    }

    fn is_present(&self, batch: &Sequenced<B>) -> bool {
        batch.stamp.is_some_and(|stamp| Some(stamp.identity) == self.identity)
    }

    fn wait(&mut self, batch: Sequenced<B>) {
        let at = self.again.partition_point(|other| other.order < batch.order);
        self.again.insert(at, batch);
    }

    fn landed<C>(&mut self, batch: &Sequenced<C>) {
        self.in_flight.retain(|flying| flying.order != batch.order);
    }
}

impl<B> Sequenced<B> {
    /// The batch apart from what its lane knows of it.
    pub(super) fn apart(self) -> (B, Sequenced<()>) {
        let Self { batch, order, span, created, records, stamp, possibly_written, attempts } = self;
        (batch, Sequenced { batch: (), order, span, created, records, stamp, possibly_written, attempts })
    }
}

fn add_sequence(sequence: i32, records: i32) -> i32 {
    match MAX_SEQUENCE - sequence {
        left if records > left => records - left - 1,
        _ => sequence + records,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NODE: i32 = 1;
    const SECOND: Duration = Duration::from_secs(1);

    fn identity(epoch: i16) -> Identity {
        Identity { producer_id: 7, epoch }
    }

    fn present() -> Option<Identity> {
        Some(identity(0))
    }

    fn send(lane: &mut Lane<char>, batch: char) -> Sequenced<char> {
        let mut batch = lane.admit(batch, 10, Instant::now());
        assert!(lane.send(&mut batch, NODE));
        batch
    }

    fn again(lane: &mut Lane<char>) -> Sequenced<char> {
        let mut batch = lane.next_again().unwrap();
        lane.send(&mut batch, NODE);
        batch
    }

    fn sequence(batch: &Sequenced<char>) -> i32 {
        batch.stamp.unwrap().sequence
    }

    /// A lane whose identity the broker knows.
    fn settled(now: Instant) -> Lane<char> {
        let mut lane = Lane::new(true, None);
        assert_eq!(lane.check(NODE, None, now), Err(Blocked::Identity));
        assert_eq!(lane.check(NODE, present(), now), Err(Blocked::Identity));
        assert!(lane.identify(identity(0)).is_empty());
        lane.check(NODE, present(), now).unwrap();
        let first = send(&mut lane, '0');
        assert_eq!(lane.check(NODE, present(), now), Err(Blocked::InFlight), "one until it is acknowledged");
        lane.done(&first);
        lane.check(NODE, present(), now).unwrap();
        lane
    }

    #[test]
    fn failed_batches_go_again_in_order_with_their_sequences() {
        let now = Instant::now();
        let later = now + SECOND;
        let mut lane = settled(now);
        let [a, b, c] = ['a', 'b', 'c'].map(|batch| send(&mut lane, batch));
        assert_eq!([&a, &b, &c].map(sequence), [10, 20, 30]);
        assert!(lane.is_first(&a) && !lane.is_first(&b));
        // c and a fail, b is still in flight.
        lane.retry(c, later);
        assert!(lane.is_first(&a), "what waits to be sent again is behind it");
        lane.retry(a, later);
        assert!(!lane.is_first(&b));
        assert_eq!(lane.check(NODE, present(), later), Err(Blocked::InFlight));
        lane.retry(b, later);
        assert_eq!(lane.check(NODE, present(), later - Duration::from_nanos(1)), Err(Blocked::Until(later)));
        lane.check(NODE, present(), later).unwrap();
        let mut sent = Vec::new();
        while let Some(mut batch) = lane.next_again() {
            assert!(!lane.send(&mut batch, NODE), "the stamp stays");
            sent.push((batch.batch, sequence(&batch), batch.attempts));
        }
        assert_eq!(sent, [('a', 10, 2), ('b', 20, 2), ('c', 30, 2)]);
        assert_eq!(sequence(&send(&mut lane, 'd')), 40);
    }

    /// Found by the test with random faults: a batch was written, its answer lost, and sending it again refused a few
    /// times, while the ones behind it were written; then the broker did not remember it.
    #[test]
    fn an_unanswered_batch_is_not_left_behind_by_more_than_the_broker_remembers() {
        let now = Instant::now();
        let mut lane = settled(now);
        let batches: Vec<_> = ('a'..='d').map(|batch| send(&mut lane, batch)).collect();
        lane.check(NODE, present(), now).unwrap();
        let last = send(&mut lane, 'e');
        assert_eq!(lane.check(NODE, present(), now), Err(Blocked::InFlight));
        let mut batches = batches.into_iter().chain([last]);
        lane.retry(batches.next().unwrap(), now);
        batches.for_each(|batch| lane.done(&batch));
        lane.check(NODE, present(), now).unwrap();
        let a = again(&mut lane);
        assert_eq!(lane.check(NODE, present(), now), Err(Blocked::InFlight));
        lane.done(&a);
        lane.check(NODE, present(), now).unwrap();
    }

    #[test]
    fn all_that_were_in_flight_go_again_together() {
        let now = Instant::now();
        let mut lane = settled(now);
        let flying: Vec<_> = ('a'..='e').map(|batch| send(&mut lane, batch)).collect();
        flying.into_iter().for_each(|batch| lane.retry(batch, now));
        let mut flying: VecDeque<_> = (0..5)
            .map(|_| {
                lane.check(NODE, present(), now).unwrap();
                again(&mut lane)
            })
            .collect();
        assert_eq!(lane.check(NODE, present(), now), Err(Blocked::InFlight));
        lane.done(&flying.pop_front().unwrap());
        lane.check(NODE, present(), now).unwrap();
        send(&mut lane, 'f');
        assert_eq!(lane.check(NODE, present(), now), Err(Blocked::InFlight));
    }

    #[test]
    fn a_gap_without_doubt_starts_the_others_under_the_next_identity() {
        let now = Instant::now();
        let mut lane = settled(now);
        let [a, b, mut c] = ['a', 'b', 'c'].map(|batch| send(&mut lane, batch));
        lane.give_up(&a);
        assert_eq!(lane.check(NODE, present(), now), Err(Blocked::InFlight));
        lane.retry(b, now);
        c.possibly_written = true;
        lane.retry(c, now);
        assert_eq!(lane.rejected_identity(), None);
        assert_eq!(lane.check(NODE, present(), now), Err(Blocked::Identity));
        assert_eq!(lane.rejected_identity(), Some((identity(0), false)));
        assert!(lane.identify(identity(1)).is_empty(), "c cannot be there without b");
        assert_eq!(lane.rejected_identity(), None);
        lane.check(NODE, Some(identity(1)), now).unwrap();
        let b = again(&mut lane);
        assert_eq!(b.stamp, Some(Stamp { identity: identity(1), sequence: 0 }));
        assert_eq!(lane.check(NODE, Some(identity(1)), now), Err(Blocked::InFlight));
        lane.done(&b);
        lane.check(NODE, Some(identity(1)), now).unwrap();
        assert_eq!(sequence(&again(&mut lane)), 10);
    }

    #[test]
    fn behind_a_gap_in_doubt_the_broker_is_asked() {
        let now = Instant::now();
        for written in [true, false] {
            let mut lane = settled(now);
            let mut flying = ['a', 'b', 'c'].map(|batch| send(&mut lane, batch));
            flying.iter_mut().for_each(|batch| batch.possibly_written = true);
            flying.into_iter().for_each(|batch| lane.retry(batch, now));
            let expired = lane.expire(|batch| batch.batch == 'a');
            assert_eq!(expired.len(), 1);
            lane.check(NODE, present(), now).unwrap();
            let b = again(&mut lane);
            assert_eq!(sequence(&b), 20);
            assert_eq!(lane.check(NODE, present(), now), Err(Blocked::InFlight), "one at a time");
            if written {
                lane.done(&b);
                lane.check(NODE, present(), now).unwrap();
                assert_eq!(sequence(&again(&mut lane)), 30);
                lane.check(NODE, present(), now).unwrap();
                assert_eq!(sequence(&send(&mut lane, 'd')), 40);
            } else {
                lane.restart(true, false);
                lane.retry(b, now);
                assert_eq!(lane.check(NODE, present(), now), Err(Blocked::Identity));
                assert!(lane.identify(identity(1)).is_empty());
                assert_eq!(sequence(&again(&mut lane)), 0);
            }
        }
    }

    #[test]
    fn an_older_batch_says_nothing_about_a_gap() {
        let now = Instant::now();
        let mut lane = settled(now);
        let [a, b, c] = ['a', 'b', 'c'].map(|batch| send(&mut lane, batch));
        lane.give_up(&b);
        lane.done(&a);
        assert_eq!(lane.check(NODE, present(), now), Err(Blocked::InFlight));
        lane.done(&c);
        lane.check(NODE, present(), now).unwrap();
        // Of two gaps the later one counts.
        let [a, b, c, d] = ['a', 'b', 'c', 'd'].map(|batch| send(&mut lane, batch));
        lane.give_up(&c);
        lane.give_up(&a);
        lane.done(&b);
        assert_eq!(lane.check(NODE, present(), now), Err(Blocked::InFlight));
        lane.done(&d);
        lane.check(NODE, present(), now).unwrap();
    }

    #[test]
    fn a_gap_at_the_end_is_left_under_the_next_identity() {
        let now = Instant::now();
        let mut lane = settled(now);
        let a = send(&mut lane, 'a');
        lane.give_up(&a);
        assert_eq!(lane.check(NODE, present(), now), Err(Blocked::Identity));
        assert_eq!(lane.rejected_identity(), Some((identity(0), false)));
        // The same is no help.
        assert_eq!(lane.check(NODE, present(), now), Err(Blocked::Identity));
        lane.identify(identity(1));
        lane.check(NODE, Some(identity(1)), now).unwrap();
        // What was given up under an old identity, or before it had one, leaves no gap.
        lane.give_up(&a);
        let unsent = lane.admit('b', 1, now);
        lane.give_up(&unsent);
        lane.check(NODE, Some(identity(1)), now).unwrap();
    }

    #[test]
    fn an_idle_lane_follows_the_producers_identity() {
        let now = Instant::now();
        let mut lane = settled(now);
        let next = Some(identity(1));
        let a = send(&mut lane, 'a');
        lane.check(NODE, next, now).unwrap();
        assert_eq!(lane.check(NODE, None, now), Err(Blocked::Identity), "nobody goes on without one");
        lane.retry(a, now);
        lane.check(NODE, next, now).unwrap();
        let a = again(&mut lane);
        lane.done(&a);
        assert_eq!(lane.check(NODE, next, now), Err(Blocked::Identity));
        assert_eq!(lane.rejected_identity(), None, "it works, but the producer has moved on");
        lane.identify(identity(1));
        lane.check(NODE, next, now).unwrap();
        assert_eq!(sequence(&send(&mut lane, 'b')), 0);
    }

    #[test]
    fn what_may_be_written_does_not_go_under_another_identity_unproven() {
        let now = Instant::now();
        let mut lane = settled(now);
        let [mut a, b] = ['a', 'b'].map(|batch| send(&mut lane, batch));
        a.possibly_written = true;
        lane.restart(false, true);
        lane.retry(a, now);
        lane.retry(b, now);
        assert_eq!(lane.rejected_identity(), Some((identity(0), true)));
        let doubtful = lane.identify(identity(1));
        assert_eq!(doubtful.iter().map(|batch| batch.batch).collect::<Vec<_>>(), ['a']);
        assert_eq!(again(&mut lane).batch, 'b');
    }

    #[test]
    fn a_proof_reaches_those_that_are_still_in_flight() {
        let now = Instant::now();
        let mut lane = settled(now);
        let [a, mut b] = ['a', 'b'].map(|batch| send(&mut lane, batch));
        b.possibly_written = true;
        lane.restart(false, false);
        lane.restart(true, false);
        lane.restart(false, true);
        lane.retry(a, now);
        lane.retry(b, now);
        assert_eq!(lane.rejected_identity(), Some((identity(0), true)));
        assert!(lane.identify(identity(1)).is_empty());
    }

    #[test]
    fn a_moved_leader_waits_for_the_old_ones_answers() {
        let now = Instant::now();
        let mut lane = Lane::new(false, None);
        let mut a = lane.admit('a', 1, now);
        assert!(!lane.send(&mut a, NODE), "no stamps without idempotence");
        assert_eq!((a.stamp, lane.park()), (None, None));
        for _ in 0..10 {
            lane.check(NODE, None, now).unwrap();
            let mut other = lane.admit('b', 1, now);
            lane.send(&mut other, NODE);
            lane.done(&other);
        }
        assert_eq!(lane.check(2, None, now), Err(Blocked::InFlight));
        assert!(lane.has_in_flight() && !lane.is_idle());
        lane.done(&a);
        lane.check(2, None, now).unwrap();
        assert!(!lane.has_in_flight() && lane.is_idle());
        lane.retry(a, now);
        assert!(!lane.has_in_flight() && !lane.is_idle());
    }

    #[test]
    fn the_parts_of_a_batch_share_its_sequences_and_its_place() {
        let now = Instant::now();
        let mut lane = settled(now);
        let [a, b] = ['a', 'b'].map(|batch| send(&mut lane, batch));
        let (_, a) = a.apart();
        lane.retry(b, now);
        lane.split(a, [('c', 4), ('d', 6)], now + SECOND);
        assert_eq!(lane.check(NODE, present(), now), Err(Blocked::Until(now + SECOND)));
        lane.check(NODE, present(), now + SECOND).unwrap();
        let c = again(&mut lane);
        assert_eq!((c.batch, sequence(&c), c.records, c.attempts), ('c', 10, 4, 1));
        let (_, c) = c.apart();
        lane.split(c, [('e', 1), ('f', 3)], now);
        let sent: Vec<_> =
            (0..4).map(|_| again(&mut lane)).map(|batch| (batch.batch, sequence(&batch))).collect();
        assert_eq!(sent, [('e', 10), ('f', 11), ('d', 14), ('b', 20)]);
    }

    /// Each part has a place of its own, so that the end of one is not taken for the end of another.
    #[test]
    fn the_parts_of_parts_come_back_one_by_one() {
        let now = Instant::now();
        let mut lane = settled(now);
        let (_, a) = send(&mut lane, 'a').apart();
        lane.split(a, [('b', 5), ('c', 5)], now);
        let (_, b) = again(&mut lane).apart();
        lane.split(b, [('d', 2), ('e', 3)], now);
        let parts: Vec<_> = (0..3).map(|_| again(&mut lane)).collect();
        assert_eq!(parts.iter().map(|part| part.batch).collect::<String>(), "dec");
        for part in parts {
            assert!(lane.has_in_flight(), "{} is still there", part.batch);
            assert!(lane.is_first(&part));
            lane.done(&part);
        }
        assert!(lane.is_idle());
    }

    /// What the broker has under an old identity does not tell that it knows the new one.
    #[test]
    fn an_answer_under_an_old_identity_settles_nothing() {
        let now = Instant::now();
        let mut lane = settled(now);
        let old = send(&mut lane, 'a');
        lane.identify(identity(1));
        let new = send(&mut lane, 'b');
        lane.done(&old);
        assert_eq!(lane.check(NODE, Some(identity(1)), now), Err(Blocked::InFlight));
        lane.done(&new);
        let _next = send(&mut lane, 'c');
        lane.check(NODE, Some(identity(1)), now).unwrap();
    }

    #[test]
    fn an_identity_below_zero_is_none() {
        for (producer_id, epoch, is_one) in [(0, 0, true), (-1, 0, false), (0, -1, false), (-1, -1, false)] {
            assert_eq!(
                Identity::told(producer_id, epoch, &"b".into()).is_ok(),
                is_one,
                "{producer_id} {epoch}"
            );
        }
    }

    #[test]
    fn a_parked_lane_goes_on_where_it_was() {
        let now = Instant::now();
        let mut lane = settled(now);
        let parked = lane.park();
        let mut woken = Lane::new(true, parked);
        woken.check(NODE, present(), now).unwrap();
        assert_eq!(sequence(&send(&mut woken, 'a')), 10);
        assert_eq!(woken.check(NODE, present(), now), Err(Blocked::InFlight), "it may have been forgotten");
        let a = send(&mut lane, 'a');
        lane.give_up(&a);
        let mut woken: Lane<char> = Lane::new(true, lane.park());
        assert_eq!(woken.check(NODE, present(), now), Err(Blocked::Identity));
    }

    #[test]
    fn the_oldest_counts_what_waits_and_what_flies() {
        let now = Instant::now();
        let mut lane = settled(now);
        assert_eq!(lane.oldest_after(now), None);
        let at = |lane: &mut Lane<char>, seconds: u32| {
            let mut batch = lane.admit('a', 1, now + SECOND * seconds);
            lane.send(&mut batch, NODE);
            batch
        };
        let [first, _second] = [1, 2].map(|seconds| at(&mut lane, seconds));
        lane.retry(first, now);
        assert_eq!(lane.oldest_after(now), Some(now + SECOND));
        assert_eq!(lane.oldest_after(now + SECOND), Some(now + 2 * SECOND));
        assert_eq!(lane.oldest_after(now + 2 * SECOND), None);
        assert!(lane.first_again().is_some());
    }

    #[test]
    fn sequences_wrap_as_in_kafka() {
        assert_eq!(add_sequence(i32::MAX - 9, 10), 0);
        assert_eq!(add_sequence(i32::MAX - 5, 10), 4);
        assert_eq!(add_sequence(i32::MAX - 10, 10), i32::MAX);
    }
}
