//! What a share consumer asks which leader for, and what the answers mean. Pure: it is told the time.
//!
//! Records are acquired only when somebody waits for them and none are left, because their locks run from then on.
//! There is one request to a leader at a time, as its session wants it. What was said of records goes with the next
//! fetch, or by itself: at once when somebody waits for its answer, else after a short while.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use klamm_protocol::ErrorCode;
use tokio::time::Instant;

use super::leader::{Flight, Leader};
use super::locks::{Gone, LockId, Loss, Tally, Verdict};
use super::member::Slot;
use crate::connection::Backoff;
use crate::consumer::ConsumerRecord;
use crate::error::ShareError;
use crate::runtime::Rng;
use crate::types::TopicPartition;

/// Most errors that wait for the program; what comes beyond them is only logged.
const MOST_ERRORS: usize = 100;
/// A broker that is to be left alone for longer says so again.
const LONGEST_THROTTLE: Duration = Duration::from_secs(30);
/// Pauses after a fetch that was to be held and came back early with nothing.
const FIRST_CALM: Duration = Duration::from_millis(5);
const LONGEST_CALM: Duration = Duration::from_millis(100);

/// How many records a leader may lock for one fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum AcquireMode {
    /// Whole batches: the number may exceed `max_poll_records` up to the end of a batch, which costs least. Kafka's
    /// default.
    #[default]
    BatchOptimized,
    /// Never more than `max_poll_records`, from one leader at a time. Apache Kafka from 4.2.
    RecordLimit,
}

/// What does not change while a consumer lives.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    pub(super) mode: AcquireMode,
    /// How long a leader may hold a fetch.
    pub(super) max_wait: Duration,
    /// How long what was said of records may wait for company.
    pub(super) linger: Duration,
    /// The pauses after failures.
    pub(super) backoff: Backoff,
    pub(super) rng: Arc<dyn Rng>,
}

/// A request to be sent to a leader.
#[derive(Debug, PartialEq)]
pub(super) struct Send {
    pub(super) node: i32,
    /// Of the session; 0 begins one, -1 ends it.
    pub(super) epoch: i32,
    pub(super) what: What,
    pub(super) said: BTreeMap<Slot, super::locks::Said>,
}

/// What kind of request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum What {
    Fetch { added: BTreeSet<Slot>, forgotten: BTreeSet<Slot> },
    Acknowledge,
}

/// A leader's answer.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// Of the whole request.
    pub(super) code: Option<ErrorCode>,
    /// How long records are locked that were acquired or renewed.
    pub(super) lasts: Duration,
    pub(super) throttle: Duration,
    /// Whether the leader can prolong locks.
    pub(super) renews: bool,
    pub(super) parts: Vec<Part>,
}

/// What an answer says of one partition.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) slot: Slot,
    /// Of acquiring.
    pub(super) code: ErrorCode,
    /// Of what was said.
    pub(super) acknowledged: ErrorCode,
    /// What was acquired, with the number of deliveries.
    pub(super) records: Vec<(ConsumerRecord, i16)>,
    /// Offsets that were acquired and are not handed out.
    pub(super) passed_over: Vec<(i64, i64, Verdict)>,
    /// What could not be read.
    pub(super) broken: Option<ShareError>,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoAnswer {
    /// It was not sent.
    Unsent,
    /// It may have been executed.
    Unanswered,
}

/// A record that is handed out.
#[derive(Debug, PartialEq)]
pub(super) struct Handed {
    pub(super) node: i32,
    pub(super) id: LockId,
    pub(super) record: ConsumerRecord,
    pub(super) deliveries: i16,
}

/// What became of acknowledgements, by partition.
pub(super) type Outcomes = BTreeMap<TopicPartition, Tally>;

/// A partition to read.
#[derive(Debug)]
struct Target {
    topic: Option<Arc<str>>,
    leader: Option<i32>,
    /// It failed, and is left alone until then.
    not_before: Option<Instant>,
}

/// The state of one share consumer.
#[derive(Debug)]
pub(super) struct Sharing {
    rules: Rules,
    targets: BTreeMap<Slot, Target>,
    /// Also of partitions that are not read any more.
    names: BTreeMap<klamm_protocol::Uuid, Arc<str>>,
    leaders: BTreeMap<i32, Leader>,
    buffer: VecDeque<Handed>,
    /// Somebody waits for records.
    wanted: bool,
    locks_made: u64,
    verdicts_made: u64,
    fetches_made: u64,
    outcomes: Outcomes,
    errors: VecDeque<ShareError>,
    /// Leaders are to be asked for anew.
    pub(super) stale: bool,
    closing: bool,
    finished: bool,
}

impl Sharing {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            targets: BTreeMap::new(),
            names: BTreeMap::new(),
            leaders: BTreeMap::new(),
            buffer: VecDeque::new(),
            wanted: false,
            locks_made: 0,
            verdicts_made: 0,
            fetches_made: 0,
            outcomes: Outcomes::new(),
            errors: VecDeque::new(),
            stale: false,
            closing: false,
            finished: false,
        }
    }

    /// Reads these partitions from now on. What is locked of others stays so.
    pub(super) fn read(&mut self, slots: &BTreeSet<Slot>) {
        self.targets.retain(|slot, _| slots.contains(slot));
        for slot in slots {
            let target = Target { topic: None, leader: None, not_before: None };
            self.targets.entry(*slot).or_insert(target);
        }
    }

    /// The partitions that are read.
    pub(super) fn assignment(&self) -> Vec<TopicPartition> {
        let named = |(slot, target): (&Slot, &Target)| {
            Some(TopicPartition::new(Arc::clone(target.topic.as_ref()?), slot.partition))
        };
        self.targets.iter().filter_map(named).collect()
    }

    /// Names and leaders as the cluster tells them now. Of what it does not know it is to be asked again.
    pub(super) fn place(&mut self, find: impl Fn(&Slot) -> Option<(Arc<str>, Option<i32>)>) {
        for (slot, target) in &mut self.targets {
            let Some((topic, leader)) = find(slot) else {
                self.stale = true;
                target.leader = None;
                continue;
            };
            self.stale |= leader.is_none();
            self.names.insert(slot.topic_id, Arc::clone(&topic));
            (target.topic, target.leader) = (Some(topic), leader);
        }
    }

    /// Whether somebody waits for records.
    pub(super) fn want(&mut self, wanted: bool) {
        self.wanted = wanted;
    }

    /// The requests to send now, and when time alone brings more.
    pub(super) fn send(&mut self, now: Instant) -> (Vec<Send>, Option<Instant>) {
        let mut wake_at: Option<Instant> = None;
        let mut wake = |at: Instant| wake_at = Some(wake_at.map_or(at, |other| other.min(at)));
        let mut readable: BTreeMap<i32, BTreeSet<Slot>> = BTreeMap::new();
        let mut led: BTreeSet<i32> = BTreeSet::new();
        for (slot, target) in &mut self.targets {
            let Some(leader) = target.leader else { continue };
            led.insert(leader);
            target.not_before = target.not_before.filter(|&at| at > now);
            match target.not_before {
                Some(at) => wake(at),
                None => drop(readable.entry(leader).or_default().insert(*slot)),
            }
        }
        if self.wants_records() {
            for node in &led {
                self.leaders.entry(*node).or_insert_with(|| self.rules.leader());
            }
        }
        self.expire(now);
        let fetching = self.may_fetch(&readable, now);
        let mut sends = Vec::new();
        let mut gone = Vec::new();
        for (&node, leader) in &mut self.leaders {
            if leader.flight.is_some() {
                continue;
            }
            if let Some(at) = leader.not_before.filter(|&at| at > now && !self.closing) {
                wake(at);
                continue;
            }
            let mine = readable.remove(&node).unwrap_or_default();
            // A last request carries one portion; what is said in several is said before it.
            let parting = self.closing && !leader.locks.has_portions();
            let leaves = parting || (!led.contains(&node) && leader.locks.is_empty());
            let send = if leaves {
                leader.leave(node, now)
            } else if self.closing {
                Some(leader.acknowledge(node, now))
            } else if fetching.contains(&node) && leader.fits_into_fetch(&mine) {
                self.fetches_made += 1;
                leader.turn = self.fetches_made;
                Some(leader.fetch(node, mine, now))
            } else {
                leader.forget_due();
                let due = leader.due(now, fetching.contains(&node));
                due.map_or_else(
                    |at| {
                        at.into_iter().for_each(&mut wake);
                        None
                    },
                    |()| Some(leader.acknowledge(node, now)),
                )
            };
            if leaves && send.is_none() {
                gone.push(node);
            }
            sends.extend(send);
        }
        gone.iter().for_each(|node| drop(self.leaders.remove(node)));
        (sends, wake_at)
    }

    fn wants_records(&self) -> bool {
        self.wanted && self.buffer.is_empty() && !self.closing && !self.finished
    }

    /// The leaders from which records are to be acquired now.
    fn may_fetch(&self, readable: &BTreeMap<i32, BTreeSet<Slot>>, now: Instant) -> BTreeSet<i32> {
        if !self.wants_records() {
            return BTreeSet::new();
        }
        let ready = self.leaders.iter().filter(|(node, leader)| {
            leader.flight.is_none()
                && leader.not_before.is_none_or(|at| at <= now)
                && readable.contains_key(*node)
        });
        if self.rules.mode == AcquireMode::BatchOptimized {
            return ready.map(|(node, _)| *node).collect();
        }
        if self.leaders.values().any(Leader::is_fetching) {
            return BTreeSet::new();
        }
        ready.min_by_key(|(_, leader)| leader.turn).map(|(node, _)| *node).into_iter().collect()
    }

    fn expire(&mut self, now: Instant) {
        let lost: Vec<(Slot, Tally)> =
            self.leaders.values_mut().flat_map(|leader| leader.expire(now)).collect();
        self.note(lost);
    }

    fn note(&mut self, tallies: impl IntoIterator<Item = (Slot, Tally)>) {
        for (slot, tally) in tallies {
            let partition = self.named(slot);
            if let Some((count, loss)) = tally.failed {
                tracing::warn!(%partition, count, ?loss, "acknowledgements came to nothing");
            }
            if tally != Tally::default() {
                self.outcomes.entry(partition).or_default().add(tally);
            }
        }
    }

    /// A partition under its topic's name, or under the topic's id as long as that is all that is known.
    pub(super) fn named(&self, slot: Slot) -> TopicPartition {
        let topic = self.names.get(&slot.topic_id).cloned();
        TopicPartition::new(topic.unwrap_or_else(|| slot.topic_id.to_string().into()), slot.partition)
    }

    /// A request to a leader ended.
    pub(super) fn answered(&mut self, node: i32, answer: Result<Answer, NoAnswer>, now: Instant) {
        let Some(leader) = self.leaders.get_mut(&node) else { return };
        let Some(flight) = leader.flight.take() else { return };
        let answer = match answer {
            Ok(answer) => answer,
            Err(no_answer) => {
                self.stale = true;
                leader.pause(now, &self.rules);
                let loss = match no_answer {
                    NoAnswer::Unsent => Loss::SessionEnded,
                    NoAnswer::Unanswered => Loss::Unanswered,
                };
                return self.session_ended(node, loss);
            }
        };
        if !answer.throttle.is_zero() {
            leader.not_before = Some(now + answer.throttle.min(LONGEST_THROTTLE));
        }
        match answer.code {
            Some(code) => self.refused(node, code, now),
            None => self.take_in(node, &flight, answer, now),
        }
    }

    /// The leader refused a request as a whole.
    fn refused(&mut self, node: i32, code: ErrorCode, now: Instant) {
        tracing::debug!(node, %code, "a request of a share session was refused");
        if let Some(leader) = self.leaders.get_mut(&node) {
            leader.pause(now, &self.rules);
        }
        self.session_ended(node, Loss::Refused(code));
        if code.is_retriable() {
            self.stale = true;
        } else {
            self.report(ShareError::Refused { node, code });
        }
    }

    /// With a session ends what was acquired in it.
    fn session_ended(&mut self, node: i32, loss: Loss) {
        let Some(leader) = self.leaders.get_mut(&node) else { return };
        leader.session.end();
        leader.flush = false;
        let lost = leader.locks.end(loss);
        self.buffer.retain(|handed| handed.node != node);
        if self.closing {
            self.leaders.remove(&node);
        }
        self.note(lost);
    }

    fn take_in(&mut self, node: i32, flight: &Flight, answer: Answer, now: Instant) {
        let Some(leader) = self.leaders.get_mut(&node) else { return };
        leader.session.answered();
        leader.backoff.reset();
        leader.renews = answer.renews;
        let mut unanswered = flight.said.clone();
        let mut tallies = Vec::new();
        // Locks that do not last bring nothing either.
        let in_vain = answer.lasts.is_zero();
        let mut empty = true;
        for part in &answer.parts {
            if !unanswered.remove(&part.slot) {
                continue;
            }
            let result = match part.acknowledged {
                ErrorCode::None => Ok(()),
                code => Err(Loss::Refused(code)),
            };
            tallies.push((part.slot, leader.locks.answered(part.slot, result, answer.lasts, now)));
        }
        for slot in unanswered {
            tallies.push((slot, leader.locks.answered(slot, Err(Loss::Unanswered), answer.lasts, now)));
        }
        if flight.ends {
            tallies.extend(leader.locks.end(Loss::SessionEnded));
            self.leaders.remove(&node);
            return self.note(tallies);
        }
        if flight.fetches {
            for part in answer.parts {
                empty &= part.code == ErrorCode::None && (in_vain || part.records.is_empty());
                self.acquire(node, part, now + answer.lasts, now);
            }
            self.keep_calm(node, flight, empty, now);
        }
        self.note(tallies);
        self.hurry(node, now);
    }

    /// What has to be said again, or of offsets without records, needs no verdict of the program to be sent.
    fn hurry(&mut self, node: i32, now: Instant) {
        if let Some(leader) = self.leaders.get_mut(&node).filter(|leader| leader.locks.has_pending()) {
            leader.due_at.get_or_insert(now);
        }
    }

    /// A broker that answers at once and with nothing is not asked as fast as it answers.
    fn keep_calm(&mut self, node: i32, flight: &Flight, empty: bool, now: Instant) {
        let Some(leader) = self.leaders.get_mut(&node) else { return };
        if !empty || now >= flight.sent_at + self.rules.max_wait / 2 {
            leader.early = 0;
            return;
        }
        let calm = FIRST_CALM.saturating_mul(1 << leader.early.min(10)).min(LONGEST_CALM);
        leader.early = leader.early.saturating_add(1);
        leader.not_before = Some(leader.not_before.map_or(now + calm, |at| at.max(now + calm)));
    }

    fn acquire(&mut self, node: i32, part: Part, until: Instant, now: Instant) {
        let Part { slot, code, records, passed_over, broken, .. } = part;
        // What nobody asked for is nobody's.
        if !self.leaders.get(&node).is_some_and(|leader| leader.session.reads(&slot)) {
            return;
        }
        self.report_of(slot, code, now);
        if let Some(error) = broken {
            self.report(error);
        }
        let Some(leader) = self.leaders.get_mut(&node) else { return };
        leader.locks.pass_over(slot, passed_over);
        let mut lost = Tally::default();
        for (record, deliveries) in records {
            self.locks_made += 1;
            let id = LockId { slot, offset: record.offset, number: self.locks_made };
            lost.add(leader.locks.acquire(id, until));
            self.buffer.push_back(Handed { node, id, record, deliveries });
        }
        self.note([(slot, lost)]);
    }

    /// What the error of a partition means: where another leader may know better, the cluster is asked.
    fn report_of(&mut self, slot: Slot, code: ErrorCode, now: Instant) {
        if code == ErrorCode::None {
            return;
        }
        let partition = self.named(slot);
        tracing::debug!(%partition, %code, "a partition was not read");
        let pause = self.rules.backoff.clone().next(&*self.rules.rng);
        if let Some(target) = self.targets.get_mut(&slot) {
            target.not_before = Some(now + pause);
        }
        self.stale = true;
        if !code.is_retriable() {
            self.report(ShareError::Fetch { partition, code });
        }
    }

    /// Tells the program of an error.
    pub(super) fn report(&mut self, error: ShareError) {
        self.finished |= error.is_fatal();
        if self.errors.len() < MOST_ERRORS {
            self.errors.push_back(error);
        } else {
            tracing::warn!(%error, "too many errors wait for the program");
        }
    }

    pub(super) fn take_error(&mut self) -> Option<ShareError> {
        self.errors.pop_front()
    }

    /// Up to `most` records whose locks have not run out.
    pub(super) fn take(&mut self, most: usize, now: Instant) -> Vec<Handed> {
        let mut taken = Vec::new();
        while taken.len() < most
            && let Some(handed) = self.buffer.pop_front()
        {
            let leader = self.leaders.get_mut(&handed.node);
            // A lock that ran out has given the record to somebody else.
            if leader.is_some_and(|leader| leader.locks.is_held(handed.id, now)) {
                taken.push(handed);
            }
        }
        taken
    }

    /// The program says what became of a record. Returns whether there was nothing to be sent before.
    pub(super) fn decide(
        &mut self,
        node: i32,
        id: LockId,
        verdict: Verdict,
        now: Instant,
    ) -> Result<bool, Gone> {
        let leader = self.leaders.get_mut(&node).ok_or(Gone)?;
        leader.locks.decide(id, verdict, self.verdicts_made, now)?;
        self.verdicts_made += 1;
        let first = leader.due_at.is_none();
        leader.due_at.get_or_insert(now + self.rules.linger);
        Ok(first)
    }

    /// Whether a leader can prolong locks.
    pub(super) fn can_renew(&self, node: i32) -> bool {
        self.leaders.get(&node).is_some_and(|leader| leader.renews)
    }

    /// The program needs more time for a record: its lock is to be prolonged, at once.
    pub(super) fn renew(&mut self, node: i32, id: LockId, now: Instant) -> Result<(), Gone> {
        let leader = self.leaders.get_mut(&node).ok_or(Gone)?;
        leader.locks.renew(id, now)?;
        leader.flush = true;
        Ok(())
    }

    /// Whether a renewal is not answered yet.
    pub(super) fn is_renewing(&mut self, node: i32, id: LockId, now: Instant) -> Result<bool, Gone> {
        self.leaders.get_mut(&node).ok_or(Gone)?.locks.is_renewing(id, now)
    }

    /// Sends what was said so far at once. [`Sharing::is_settled`] tells when it is answered.
    pub(super) fn flush(&mut self) -> u64 {
        self.leaders.values_mut().for_each(|leader| leader.flush = leader.locks.has_pending());
        self.verdicts_made
    }

    /// Whether everything said before `mark` is answered.
    pub(super) fn is_settled(&self, mark: u64) -> bool {
        !self.leaders.values().any(|leader| leader.locks.has_unsettled(mark))
    }

    /// What became of acknowledgements since the last call.
    pub(super) fn take_outcomes(&mut self) -> Outcomes {
        std::mem::take(&mut self.outcomes)
    }

    /// Acquires nothing any more, says what is to be said, and ends all sessions: leaders give what is locked to
    /// others.
    pub(super) fn close(&mut self) {
        self.closing = true;
        self.finished = true;
        self.buffer.clear();
    }

    /// Whether all sessions have ended.
    pub(super) fn is_closed(&self) -> bool {
        self.closing && self.leaders.is_empty()
    }

    /// Nobody sends anything any more: all locks are as good as lost.
    pub(super) fn abandon(&mut self) {
        self.close();
        let nodes: Vec<i32> = self.leaders.keys().copied().collect();
        nodes.into_iter().for_each(|node| self.session_ended(node, Loss::Unanswered));
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing
    }

    pub(super) fn is_finished(&self) -> bool {
        self.finished
    }
}

impl Rules {
    fn leader(&self) -> Leader {
        Leader::new(self.backoff.clone())
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
