//! The records that one leader has locked for this member: until when, what is to be said of each, and what was said
//! and is not answered yet. Pure: it is told the time.
//!
//! A leader takes the acknowledgements of one partition in one request all together or not at all. One lock that ran
//! out on the way would fail its neighbours, so what was refused for that reason is told again in smaller portions,
//! until the refusal is about one record.

use std::collections::BTreeMap;
use std::time::Duration;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::share_fetch::AcknowledgementBatch;
use tokio::time::Instant;

use super::member::Slot;

/// What is said of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i8)]
pub(super) enum Verdict {
    /// There is none at this offset.
    Gap = 0,
    /// It is done.
    Accept = 1,
    /// Somebody is to try again.
    Release = 2,
    /// It can never be done.
    Reject = 3,
    /// It is still being worked on.
    Renew = 4,
}

/// Which lock: the same record may be locked again later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LockId {
    pub(super) slot: Slot,
    pub(super) offset: i64,
    pub(super) number: u64,
}

/// Why an acknowledgement came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// The leader refused it.
    Refused(ErrorCode),
    /// The lock ran out before it was sent.
    RanOut,
    /// The share session ended before it was sent.
    SessionEnded,
    /// It was sent, and no answer came.
    Unanswered,
}

/// The lock is not held any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gone;

/// How many acknowledgements of a partition came to something, and how many to nothing.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) done: u64,
    pub(super) failed: Option<(u64, Loss)>,
}

impl Tally {
    pub(super) fn fail(&mut self, count: u64, loss: Loss) {
        if count > 0 {
            self.failed = Some(self.failed.map_or((count, loss), |(before, first)| (before + count, first)));
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.done += other.done;
        if let Some((count, loss)) = other.failed {
            self.fail(count, loss);
        }
    }
}

/// What is said of one partition in one request.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Said {
    pub(super) batches: Vec<AcknowledgementBatch>,
    /// Whether locks are renewed among it.
    pub(super) renews: bool,
}

#[derive(Debug)]
struct Lock {
    number: u64,
    until: Instant,
    stage: Stage,
    renewal: Renewal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing is said of it yet.
    Held,
    /// To be sent. Verdicts are numbered in the order of calls.
    Decided(Verdict, u64),
    Sent(Verdict, u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Renewal {
    None,
    Wanted,
    Sent,
}

impl Lock {
    /// Whether it has not run out. The answer to a renewal may still prolong it.
    fn lives(&self, now: Instant) -> bool {
        self.until > now || self.renewal == Renewal::Sent
    }
}

#[derive(Debug, Default)]
struct Partition {
    locks: BTreeMap<i64, Lock>,
    /// Offsets of which nobody is told, to be sent with the next acknowledgements.
    ranges: Vec<(i64, i64, Verdict)>,
    /// Whether some of them are under way.
    ranges_sent: bool,
    /// Most acknowledgements in the next request.
    portion: Option<usize>,
}

/// The locks of one leader.
#[derive(Debug, Default)]
pub(super) struct Locks {
    partitions: BTreeMap<Slot, Partition>,
}

impl Locks {
    /// A record was acquired. If it was before, that lock has run out: gives what comes to nothing by that.
    pub(super) fn acquire(&mut self, id: LockId, until: Instant) -> Tally {
        let lock = Lock { number: id.number, until, stage: Stage::Held, renewal: Renewal::None };
        let before = self.partitions.entry(id.slot).or_default().locks.insert(id.offset, lock);
        let mut tally = Tally::default();
        tally.fail(u64::from(before.is_some_and(|before| before.stage != Stage::Held)), Loss::RanOut);
        tally
    }

    /// Offsets were acquired that are not handed out.
    pub(super) fn pass_over(&mut self, slot: Slot, ranges: Vec<(i64, i64, Verdict)>) {
        if !ranges.is_empty() {
            self.partitions.entry(slot).or_default().ranges.extend(ranges);
        }
    }

    /// The lock, if it is held and nothing final is said of it yet.
    fn held(&mut self, id: LockId, now: Instant) -> Result<&mut Lock, Gone> {
        let lock =
            self.partitions.get_mut(&id.slot).and_then(|partition| partition.locks.get_mut(&id.offset));
        lock.filter(|lock| lock.number == id.number && lock.lives(now) && lock.stage == Stage::Held)
            .ok_or(Gone)
    }

    pub(super) fn is_held(&mut self, id: LockId, now: Instant) -> bool {
        self.held(id, now).is_ok()
    }

    /// The program says what became of a record. `at` numbers verdicts.
    pub(super) fn decide(&mut self, id: LockId, verdict: Verdict, at: u64, now: Instant) -> Result<(), Gone> {
        let lock = self.held(id, now)?;
        lock.stage = Stage::Decided(verdict, at);
        // One that is under way may prolong the lock until the verdict is sent.
        if lock.renewal == Renewal::Wanted {
            lock.renewal = Renewal::None;
        }
        Ok(())
    }

    /// The program needs more time for a record.
    pub(super) fn renew(&mut self, id: LockId, now: Instant) -> Result<(), Gone> {
        let lock = self.held(id, now)?;
        if lock.renewal == Renewal::None {
            lock.renewal = Renewal::Wanted;
        }
        Ok(())
    }

    /// Whether a renewal was asked for and is not answered; an error when the lock is gone.
    pub(super) fn is_renewing(&mut self, id: LockId, now: Instant) -> Result<bool, Gone> {
        Ok(self.held(id, now)?.renewal != Renewal::None)
    }

    /// Whether there is something to say.
    pub(super) fn has_pending(&self) -> bool {
        self.partitions.values().any(Partition::is_pending)
    }

    /// Whether a fetch of these partitions can say all there is to say: it cannot renew, and it cannot be told to be
    /// small.
    pub(super) fn fits_into_fetch(&self, of: impl Fn(&Slot) -> bool) -> bool {
        self.partitions
            .iter()
            .filter(|(_, partition)| partition.is_pending())
            .all(|(slot, partition)| of(slot) && !partition.is_renewing() && partition.portion.is_none())
    }

    /// Whether one request may not be enough for all there is to say.
    pub(super) fn has_portions(&self) -> bool {
        self.partitions.values().any(|partition| partition.is_pending() && partition.portion.is_some())
    }

    /// Whether nothing is locked and nothing is to be said.
    pub(super) fn is_empty(&self) -> bool {
        self.partitions.values().all(|partition| partition.locks.is_empty() && partition.ranges.is_empty())
    }

    /// Whether a verdict numbered below `mark` waits to be sent or answered.
    pub(super) fn has_unsettled(&self, mark: u64) -> bool {
        let mut locks = self.partitions.values().flat_map(|partition| partition.locks.values());
        locks.any(|lock| match lock.stage {
            Stage::Held => false,
            Stage::Decided(_, at) | Stage::Sent(_, at) => at < mark,
        })
    }

    /// Lets go of locks that ran out, those aside whose verdict is under way. Gives what came to nothing by that.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<(Slot, Tally)> {
        self.drop_where(Loss::RanOut, |lock| !lock.lives(now) && !matches!(lock.stage, Stage::Sent(..)))
    }

    /// The session ended, and with it all locks. `unanswered`: what is to be thought of what was under way.
    pub(super) fn end(&mut self, unanswered: Loss) -> Vec<(Slot, Tally)> {
        let mut lost = self.drop_where(unanswered, |lock| matches!(lock.stage, Stage::Sent(..)));
        lost.extend(self.drop_where(Loss::SessionEnded, |_| true));
        self.partitions.clear();
        lost
    }

    fn drop_where(&mut self, loss: Loss, which: impl Fn(&Lock) -> bool) -> Vec<(Slot, Tally)> {
        let mut lost = Vec::new();
        for (slot, partition) in &mut self.partitions {
            let mut tally = Tally::default();
            partition.locks.retain(|_, lock| {
                let goes = which(lock);
                tally.fail(u64::from(goes && lock.stage != Stage::Held), loss);
                !goes
            });
            if tally.failed.is_some() {
                lost.push((*slot, tally));
            }
        }
        lost
    }

    /// What is to be said now, by partition. It is under way from now on.
    pub(super) fn take(&mut self) -> BTreeMap<Slot, Said> {
        let mut all = BTreeMap::new();
        for (slot, partition) in &mut self.partitions {
            let said = partition.take();
            if !said.batches.is_empty() {
                all.insert(*slot, said);
            }
        }
        all
    }

    /// The leader answered what was under way of a partition. Renewed locks last for `lasts`.
    pub(super) fn answered(
        &mut self,
        slot: Slot,
        result: Result<(), Loss>,
        lasts: Duration,
        now: Instant,
    ) -> Tally {
        let Some(partition) = self.partitions.get_mut(&slot) else { return Tally::default() };
        match result {
            Ok(()) => partition.accepted(now + lasts),
            Err(loss) => partition.refused(loss),
        }
    }
}

impl Partition {
    fn is_pending(&self) -> bool {
        let waits = |lock: &Lock| matches!(lock.stage, Stage::Decided(..)) || lock.renewal == Renewal::Wanted;
        !self.ranges.is_empty() || self.locks.values().any(waits)
    }

    fn is_renewing(&self) -> bool {
        self.locks.values().any(|lock| lock.renewal == Renewal::Wanted)
    }

    fn take(&mut self) -> Said {
        let ranges = std::mem::take(&mut self.ranges);
        self.ranges_sent = !ranges.is_empty();
        let mut said = Said::default();
        let mut left = self.portion.unwrap_or(usize::MAX);
        let mut singles: BTreeMap<i64, Verdict> = BTreeMap::new();
        for (&offset, lock) in &mut self.locks {
            if left == 0 {
                break;
            }
            let verdict = match lock.stage {
                Stage::Decided(verdict, at) => {
                    lock.stage = Stage::Sent(verdict, at);
                    verdict
                }
                Stage::Held if lock.renewal == Renewal::Wanted => {
                    lock.renewal = Renewal::Sent;
                    said.renews = true;
                    Verdict::Renew
                }
                _ => continue,
            };
            left -= 1;
            singles.insert(offset, verdict);
        }
        said.batches =
            ranges.into_iter().map(|(first, last, verdict)| batch(first, last, vec![verdict])).collect();
        said.batches.extend(runs(singles));
        said.batches.sort_by_key(|batch| batch.first_offset);
        said
    }

    fn accepted(&mut self, until: Instant) -> Tally {
        let mut tally = Tally::default();
        self.locks.retain(|_, lock| {
            let sent = matches!(lock.stage, Stage::Sent(..));
            tally.done += u64::from(sent);
            if lock.renewal == Renewal::Sent {
                lock.renewal = Renewal::None;
                lock.until = until;
            }
            !sent
        });
        // More can be said at once again.
        self.portion =
            self.portion.and_then(|portion| portion.checked_mul(2)).filter(|&portion| portion < MANY);
        tally
    }

    fn refused(&mut self, loss: Loss) -> Tally {
        // Of a record that was decided meanwhile the verdict counts, not the renewal.
        for lock in self.locks.values_mut().filter(|lock| lock.stage != Stage::Held) {
            lock.renewal = Renewal::None;
        }
        let sent = |lock: &Lock| matches!(lock.stage, Stage::Sent(..)) || lock.renewal == Renewal::Sent;
        let count = self.locks.values().filter(|lock| sent(lock)).count();
        // Ranges are not told again: where their locks ran out, nobody has to know of it.
        let alone = count <= 1 && !self.ranges_sent;
        if loss == Loss::Refused(ErrorCode::InvalidRecordState) && !alone && count > 0 {
            self.portion = Some((count / 2).max(1));
            for lock in self.locks.values_mut() {
                if let Stage::Sent(verdict, at) = lock.stage {
                    lock.stage = Stage::Decided(verdict, at);
                }
                if lock.renewal == Renewal::Sent {
                    lock.renewal = Renewal::Wanted;
                }
            }
            return Tally::default();
        }
        let mut tally = Tally::default();
        self.locks.retain(|_, lock| {
            tally.fail(u64::from(matches!(lock.stage, Stage::Sent(..))), loss);
            !sent(lock)
        });
        tally
    }
}

/// Portions of this size are no portions any more.
const MANY: usize = 1_024;

/// Consecutive offsets go into one batch, with one verdict for all where it is the same.
fn runs(singles: BTreeMap<i64, Verdict>) -> Vec<AcknowledgementBatch> {
    let mut batches: Vec<AcknowledgementBatch> = Vec::new();
    for (offset, verdict) in singles {
        match batches.last_mut().filter(|last| last.last_offset.checked_add(1) == Some(offset)) {
            Some(last) => {
                last.last_offset = offset;
                last.acknowledge_types.push(verdict as i8);
            }
            None => batches.push(batch(offset, offset, vec![verdict])),
        }
    }
    for batch in &mut batches {
        let first = batch.acknowledge_types.first().copied();
        if batch.acknowledge_types.iter().all(|one| Some(*one) == first) {
            batch.acknowledge_types.truncate(1);
        }
    }
    batches
}

fn batch(first_offset: i64, last_offset: i64, verdicts: Vec<Verdict>) -> AcknowledgementBatch {
    let acknowledge_types = verdicts.into_iter().map(|verdict| verdict as i8).collect();
    AcknowledgementBatch { first_offset, last_offset, acknowledge_types, ..Default::default() }
}

#[cfg(test)]
mod tests;
