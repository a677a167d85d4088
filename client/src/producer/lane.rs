//! The order of one partition's batches on their way: sequences, what is in flight, what must be sent again. Pure.
//!
//! A lane gives out batches in order, several at a time. When one fails in a way that retrying may cure, the lane takes
//! no new ones until all that were in flight have come back; then it sends the failed ones again, in order and with the
//! same sequences, so that the broker recognises those it has. Only when a batch is given up, or the broker has lost
//! track of the producer, does the lane start afresh under a new producer id.

use std::collections::VecDeque;

use tokio::time::Instant;

/// Sequences wrap to 0 after this one.
const MAX_SEQUENCE: i32 = i32::MAX;

/// How many batches of a producer the broker remembers (KIP-98). One that is sent again is recognised only if fewer
/// than this many came after it.
const REMEMBERED_BATCHES: u64 = 5;

/// Who the broker takes this producer for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) producer_id: i64,
    pub(super) epoch: i16,
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
    /// Position among the batches of this lane.
    order: u64,
    pub(super) stamp: Option<Stamp>,
    records: i32,
    /// Whether a request that got no definite answer carried it: the broker may have it.
    pub(super) possibly_written: bool,
    pub(super) attempts: u32,
}

/// The way of one partition.
#[derive(Debug)]
pub(super) struct Lane<B> {
    idempotent: bool,
    identity: Option<Identity>,
    next_sequence: i32,
    next_order: u64,
    /// The orders of batches in flight.
    in_flight: Vec<u64>,
    /// The broker that they went to.
    node: Option<i32>,
    /// To be sent again, by order.
    again: VecDeque<Sequenced<B>>,
    /// Nothing is sent until all in flight have come back.
    recovering: bool,
    /// The identity is of no more use: the next batch needs a new one.
    stale: bool,
    not_before: Option<Instant>,
}

/// Why a lane gives nothing now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blocked {
    /// Until something in flight comes back.
    InFlight,
    /// Until then.
    Until(Instant),
    /// Until it is given an identity.
    Identity,
}

impl<B> Lane<B> {
    pub(super) fn new(idempotent: bool) -> Self {
        Self {
            idempotent,
            identity: None,
            next_sequence: 0,
            next_order: 0,
            in_flight: Vec::new(),
            node: None,
            again: VecDeque::new(),
            recovering: false,
            stale: false,
            not_before: None,
        }
    }

    /// Whether a batch may go to `node` now.
    pub(super) fn check(&mut self, node: i32, now: Instant) -> Result<(), Blocked> {
        let idle = self.in_flight.is_empty();
        // Two brokers at once could not keep the order.
        if !idle && (self.recovering || self.stale || self.node != Some(node)) {
            return Err(Blocked::InFlight);
        }
        if let Some(not_before) = self.not_before {
            if now < not_before {
                return Err(Blocked::Until(not_before));
            }
            self.not_before = None;
        }
        self.recovering = false;
        if self.idempotent && (self.identity.is_none() || self.stale) {
            return Err(Blocked::Identity);
        }
        let oldest = self.in_flight.iter().min().copied().unwrap_or(self.next_order);
        if self.idempotent && self.again.is_empty() && self.next_order - oldest >= REMEMBERED_BATCHES {
            return Err(Blocked::InFlight);
        }
        Ok(())
    }

    /// The identity that did not work, if any: another one is needed.
    pub(super) fn rejected_identity(&self) -> Option<Identity> {
        self.identity.filter(|_| self.stale)
    }

    /// Goes on under this identity. Returns the batches that cannot: the broker may have them under the old one, so
    /// sending them again might duplicate them.
    pub(super) fn identify(&mut self, identity: Identity) -> Vec<Sequenced<B>> {
        self.identity = Some(identity);
        self.next_sequence = 0;
        self.stale = false;
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
    pub(super) fn admit(&mut self, batch: B, records: i32) -> Sequenced<B> {
        let order = self.next_order;
        self.next_order += 1;
        Sequenced { batch, order, stamp: None, records, possibly_written: false, attempts: 0 }
    }

    /// Stamps a batch, which goes to `node` now. Returns whether the stamp is new.
    pub(super) fn send(&mut self, batch: &mut Sequenced<B>, node: i32) -> bool {
        self.node = Some(node);
        self.in_flight.push(batch.order);
        batch.attempts += 1;
        let fresh = batch.stamp.is_none();
        if fresh && let Some(identity) = self.identity {
            batch.stamp = Some(Stamp { identity, sequence: self.next_sequence });
            self.next_sequence = add_sequence(self.next_sequence, batch.records);
        }
        fresh && batch.stamp.is_some()
    }

    /// A batch came back and is done with, acknowledged or not worth retrying without consequences for the others.
    pub(super) fn done(&mut self, batch: &Sequenced<B>) {
        self.landed(batch);
    }

    /// A batch came back and is to be sent again, not before `not_before`.
    pub(super) fn retry(&mut self, batch: Sequenced<B>, not_before: Instant) {
        self.landed(&batch);
        self.recovering = true;
        self.not_before = Some(not_before);
        let at = self.again.partition_point(|other| other.order < batch.order);
        self.again.insert(at, batch);
    }

    /// A batch that had a sequence came back and is given up: the ones behind it would leave a gap.
    pub(super) fn give_up(&mut self, batch: &Sequenced<B>) {
        self.landed(batch);
        self.abandon(batch);
    }

    /// As [`Lane::give_up`], for a batch that is not in flight.
    pub(super) fn abandon(&mut self, batch: &Sequenced<B>) {
        self.stale |= batch.stamp.is_some_and(|stamp| Some(stamp.identity) == self.identity);
    }

    /// The broker does not accept this identity's sequences any more.
    pub(super) fn reject_identity(&mut self) {
        self.stale = true;
    }

    /// Whether no earlier batch is in flight or waits to be sent again.
    pub(super) fn is_first(&self, batch: &Sequenced<B>) -> bool {
        self.in_flight.iter().all(|&order| order >= batch.order)
            && self.again.front().is_none_or(|first| first.order > batch.order)
    }

    /// Whether batches wait to be sent again.
    pub(super) fn has_again(&self) -> bool {
        !self.again.is_empty()
    }

    /// The batches that wait to be sent again.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &Sequenced<B>> {
        self.again.iter()
    }

    /// Takes out the waiting batches for which `expired` holds.
    pub(super) fn expire(&mut self, expired: impl Fn(&Sequenced<B>) -> bool) -> Vec<Sequenced<B>> {
        let (expired, kept): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.again).into_iter().partition(|batch| expired(batch));
        self.again = kept;
        expired.iter().for_each(|batch| self.abandon(batch));
        expired.into()
    }

    fn landed(&mut self, batch: &Sequenced<B>) {
        self.in_flight.retain(|&order| order != batch.order);
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

    fn identity(producer_id: i64) -> Identity {
        Identity { producer_id, epoch: 0 }
    }

    fn send(lane: &mut Lane<char>, batch: char) -> Sequenced<char> {
        let mut batch = lane.admit(batch, 10);
        lane.send(&mut batch, NODE);
        batch
    }

    fn sequence(batch: &Sequenced<char>) -> i32 {
        batch.stamp.unwrap().sequence
    }

    #[test]
    fn failed_batches_go_again_in_order_with_their_sequences() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let mut lane = Lane::new(true);
        assert_eq!(lane.check(NODE, now), Err(Blocked::Identity));
        lane.identify(identity(7));
        lane.check(NODE, now).unwrap();
        let [a, b, c] = ['a', 'b', 'c'].map(|batch| send(&mut lane, batch));
        assert_eq!([&a, &b, &c].map(sequence), [0, 10, 20]);
        assert!(lane.is_first(&a) && !lane.is_first(&b));
        // c and a fail, b is still in flight.
        lane.retry(c, later);
        lane.retry(a, later);
        assert_eq!(lane.check(NODE, later), Err(Blocked::InFlight));
        lane.retry(b, later);
        assert_eq!(lane.check(NODE, now), Err(Blocked::Until(later)));
        lane.check(NODE, later).unwrap();
        let mut again = Vec::new();
        while let Some(mut batch) = lane.next_again() {
            assert!(!lane.send(&mut batch, NODE), "the stamp stays");
            again.push((batch.batch, sequence(&batch)));
        }
        assert_eq!(again, [('a', 0), ('b', 10), ('c', 20)]);
        assert_eq!(sequence(&send(&mut lane, 'd')), 30);
    }

    /// Found by the test with random faults: a batch was written, its answer lost, and sending it again refused a few
    /// times, while the ones behind it were written; then the broker did not remember it.
    #[test]
    fn an_unanswered_batch_is_not_left_behind_by_more_than_the_broker_remembers() {
        let now = Instant::now();
        let mut lane = Lane::new(true);
        lane.identify(identity(7));
        let batches: Vec<_> = ('a'..='e').map(|batch| send(&mut lane, batch)).collect();
        assert_eq!(lane.check(NODE, now), Err(Blocked::InFlight));
        let mut batches = batches.into_iter();
        lane.retry(batches.next().unwrap(), now);
        batches.for_each(|batch| lane.done(&batch));
        lane.check(NODE, now).unwrap();
        let mut a = lane.next_again().unwrap();
        lane.send(&mut a, NODE);
        assert_eq!(lane.check(NODE, now), Err(Blocked::InFlight));
        lane.done(&a);
        lane.check(NODE, now).unwrap();
    }

    #[test]
    fn a_given_up_batch_starts_the_others_afresh_without_risking_duplicates() {
        let now = Instant::now();
        let mut lane = Lane::new(true);
        lane.identify(identity(7));
        let [a, b, mut c] = ['a', 'b', 'c'].map(|batch| send(&mut lane, batch));
        c.possibly_written = true;
        lane.give_up(&a);
        lane.retry(b, now);
        lane.retry(c, now);
        assert_eq!(lane.check(NODE, now), Err(Blocked::Identity));
        assert_eq!(lane.rejected_identity(), Some(identity(7)));
        let doubtful = lane.identify(identity(8));
        assert_eq!(doubtful.iter().map(|batch| batch.batch).collect::<Vec<_>>(), ['c']);
        lane.check(NODE, now).unwrap();
        let mut b = lane.next_again().unwrap();
        assert!(lane.send(&mut b, NODE));
        assert_eq!(b.stamp, Some(Stamp { identity: identity(8), sequence: 0 }));
    }

    #[test]
    fn a_moved_leader_waits_for_the_old_ones_answers() {
        let now = Instant::now();
        let mut lane = Lane::new(false);
        let a = send(&mut lane, 'a');
        assert_eq!(lane.check(2, now), Err(Blocked::InFlight));
        lane.done(&a);
        lane.check(2, now).unwrap();
    }

    #[test]
    fn sequences_wrap_as_in_kafka() {
        assert_eq!(add_sequence(i32::MAX - 9, 10), 0);
        assert_eq!(add_sequence(i32::MAX - 5, 10), 4);
        assert_eq!(add_sequence(i32::MAX - 10, 10), i32::MAX);
    }
}
