//! One member of a share group: what its heartbeats say, and what the answers mean. Pure: it is told the time.
//!
//! A member names itself and joins with epoch 0. The coordinator answers with the member's epoch and, when it changed,
//! with what the member is to read, at once: locks, and not the assignment, keep records apart, so nothing has to be
//! given up before others may have it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use klamm_protocol::{ErrorCode, Uuid};
use tokio::time::Instant;

use crate::connection::Backoff;
use crate::runtime::Rng;

/// The epoch with which a member joins, and the one with which it leaves.
const JOINING: i32 = 0;
const LEAVING: i32 = -1;
/// The coordinator names the interval; a shorter one than this is not followed, nor a longer one than that.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);
const LONGEST_INTERVAL: Duration = Duration::from_secs(60);

/// A partition as share groups name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Slot {
    pub(super) topic_id: Uuid,
    pub(super) partition: i32,
}

/// A heartbeat to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Beat {
    /// Of its answer.
    pub(super) attempt: u64,
    pub(super) epoch: i32,
    /// The subscription, when it is to be told (again).
    pub(super) topics: Option<Vec<Arc<str>>>,
}

/// What the coordinator answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) epoch: i32,
    pub(super) interval: Duration,
    /// What to read, when it changed.
    pub(super) assignment: Option<BTreeSet<Slot>>,
}

/// Why a heartbeat was in vain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Vain {
    Refused(ErrorCode),
    /// Nobody answered; another attempt may be heard.
    Unheard,
}

/// What an answer changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    Nothing,
    /// Read these and no others.
    Read(BTreeSet<Slot>),
    /// The group refuses this member for good.
    Refused(ErrorCode),
}

/// The membership.
#[derive(Debug)]
pub(super) struct Member {
    topics: Vec<Arc<str>>,
    /// Whether the coordinator has been told of the topics.
    told: bool,
    epoch: i32,
    interval: Duration,
    due: Instant,
    under_way: Option<u64>,
    attempts: u64,
    backoff: Backoff,
    rng: Arc<dyn Rng>,
    ended: bool,
}

impl Member {
    pub(super) fn new(topics: Vec<Arc<str>>, backoff: Backoff, rng: Arc<dyn Rng>, now: Instant) -> Self {
        Self {
            topics,
            told: false,
            epoch: JOINING,
            interval: LONGEST_INTERVAL,
            due: now,
            under_way: None,
            attempts: 0,
            backoff,
            rng,
            ended: false,
        }
    }

    /// Wants to read other topics.
    pub(super) fn subscribe(&mut self, topics: Vec<Arc<str>>, now: Instant) {
        if self.topics != topics {
            self.topics = topics;
            self.told = false;
            self.due = self.due.min(now);
        }
    }

    /// The heartbeat to send now, if there is one: one at a time.
    pub(super) fn beat(&mut self, now: Instant) -> Option<Beat> {
        if self.ended || self.under_way.is_some() || now < self.due {
            return None;
        }
        self.attempts += 1;
        self.under_way = Some(self.attempts);
        let topics = (!self.told || self.epoch == JOINING).then(|| self.topics.clone());
        self.told = true;
        Some(Beat { attempt: self.attempts, epoch: self.epoch, topics })
    }

    /// When the next heartbeat is due, if none is under way.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        (!self.ended && self.under_way.is_none()).then_some(self.due)
    }

    pub(super) fn answered(&mut self, attempt: u64, answer: Result<Told, Vain>, now: Instant) -> Change {
        if self.under_way != Some(attempt) || self.ended {
            return Change::Nothing;
        }
        self.under_way = None;
        let code = match answer {
            Ok(told) => return self.heard(told, now),
            Err(Vain::Refused(code)) => Some(code),
            Err(Vain::Unheard) => None,
        };
        // Whether the last one was heard is not known: everything is told again.
        self.told = false;
        self.due = now + self.backoff.next(&*self.rng);
        match code {
            Some(ErrorCode::FencedMemberEpoch | ErrorCode::UnknownMemberId) => {
                self.epoch = JOINING;
                Change::Read(BTreeSet::new())
            }
            Some(code) if !code.is_retriable() => {
                self.ended = true;
                Change::Refused(code)
            }
            _ => Change::Nothing,
        }
    }

    fn heard(&mut self, told: Told, now: Instant) -> Change {
        self.backoff.reset();
        self.epoch = told.epoch;
        self.interval = told.interval.clamp(SHORTEST_INTERVAL, LONGEST_INTERVAL);
        // A subscription that changed meanwhile is told at once.
        self.due = if self.told { now + self.interval } else { now };
        told.assignment.map_or(Change::Nothing, Change::Read)
    }

    /// Ends the membership. Gives the member's last word, if the coordinator may know it; its answer changes nothing.
    pub(super) fn leave(&mut self) -> Option<Beat> {
        let known = self.epoch != JOINING || self.under_way.is_some();
        let tells = !std::mem::replace(&mut self.ended, true) && known;
        tells.then_some(Beat { attempt: 0, epoch: LEAVING, topics: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::SeededRng;

    const INTERVAL: Duration = Duration::from_secs(5);
    const TICK: Duration = Duration::from_nanos(1);
    const FIRST: Duration = Duration::from_millis(100);

    fn names(topics: &[&str]) -> Vec<Arc<str>> {
        topics.iter().map(|&topic| topic.into()).collect()
    }

    fn member() -> (Member, Instant) {
        let now = Instant::now();
        let backoff = Backoff::new(FIRST, Duration::from_secs(1));
        (Member::new(names(&["t"]), backoff, Arc::new(SeededRng::new(7)), now), now)
    }

    fn told(epoch: i32, partitions: Option<&[i32]>) -> Result<Told, Vain> {
        Ok(Told { epoch, interval: INTERVAL, assignment: partitions.map(slots) })
    }

    fn slots(partitions: &[i32]) -> BTreeSet<Slot> {
        partitions.iter().map(|&partition| Slot { topic_id: Uuid::from_u128(1), partition }).collect()
    }

    fn beat(attempt: u64, epoch: i32, topics: Option<&[&str]>) -> Option<Beat> {
        Some(Beat { attempt, epoch, topics: topics.map(names) })
    }

    /// A member that has joined with epoch 3.
    fn joined() -> (Member, Instant) {
        let (mut member, now) = member();
        member.beat(now).unwrap();
        assert_eq!(member.answered(1, told(3, Some(&[0])), now), Change::Read(slots(&[0])));
        (member, now)
    }

    #[test]
    fn it_joins_at_once_and_beats_at_the_interval_that_it_is_told() {
        let (mut member, now) = member();
        assert_eq!(member.wake_at(), Some(now));
        assert_eq!(member.beat(now - TICK), None);
        assert_eq!(member.beat(now), beat(1, 0, Some(&["t"])));
        assert_eq!((member.beat(now + INTERVAL), member.wake_at()), (None, None), "one is under way");
        assert_eq!(member.answered(2, told(9, None), now), Change::Nothing, "not the answer to it");
        assert_eq!(member.wake_at(), None);
        let later = now + TICK;
        assert_eq!(member.answered(1, told(3, Some(&[0, 1])), later), Change::Read(slots(&[0, 1])));
        assert_eq!(member.answered(1, told(9, None), later), Change::Nothing, "answered already");
        assert_eq!(member.wake_at(), Some(later + INTERVAL));
        assert_eq!(member.beat(later + INTERVAL - TICK), None);
        assert_eq!(member.beat(later + INTERVAL), beat(2, 3, None));
        assert_eq!(member.answered(2, told(4, None), later + INTERVAL), Change::Nothing);
        assert_eq!(member.beat(later + 2 * INTERVAL), beat(3, 4, None));
    }

    #[test]
    fn an_interval_is_followed_within_reason() {
        for (told, followed) in
            [(Duration::ZERO, SHORTEST_INTERVAL), (Duration::MAX, LONGEST_INTERVAL), (INTERVAL, INTERVAL)]
        {
            let (mut member, now) = member();
            member.beat(now).unwrap();
            member.answered(1, Ok(Told { epoch: 1, interval: told, assignment: None }), now);
            assert_eq!(member.wake_at(), Some(now + followed));
        }
    }

    #[test]
    fn another_subscription_is_told_at_once() {
        let (mut member, now) = joined();
        member.subscribe(names(&["t"]), now);
        assert_eq!(member.beat(now), None, "nothing changed");
        member.subscribe(names(&["u"]), now);
        assert_eq!(member.beat(now), beat(2, 3, Some(&["u"])));
        member.subscribe(names(&["u", "v"]), now);
        assert_eq!(member.answered(2, told(4, None), now), Change::Nothing);
        assert_eq!(member.beat(now), beat(3, 4, Some(&["u", "v"])));
        member.answered(3, told(5, None), now);
        assert_eq!(member.wake_at(), Some(now + INTERVAL));
    }

    #[test]
    fn one_that_is_fenced_or_forgotten_joins_again() {
        for code in [ErrorCode::FencedMemberEpoch, ErrorCode::UnknownMemberId] {
            let (mut member, now) = joined();
            let due = now + INTERVAL;
            member.beat(due).unwrap();
            assert_eq!(member.answered(2, Err(Vain::Refused(code)), due), Change::Read(BTreeSet::new()));
            let again = member.wake_at().unwrap();
            assert!(again >= due + FIRST * 8 / 10 && again <= due + FIRST * 12 / 10, "after a pause");
            assert_eq!(member.beat(again), beat(3, 0, Some(&["t"])));
        }
    }

    #[test]
    fn after_silence_and_temporary_errors_everything_is_told_again() {
        let vains = [
            Vain::Unheard,
            Vain::Refused(ErrorCode::NotCoordinator),
            Vain::Refused(ErrorCode::CoordinatorLoadInProgress),
        ];
        let (mut member, now) = joined();
        let mut at = now + INTERVAL;
        for (failures, vain) in (0..).zip(vains) {
            let sent = member.beat(at).unwrap();
            assert_eq!(sent.epoch, 3);
            assert_eq!(sent.topics.is_some(), failures > 0);
            assert_eq!(member.answered(sent.attempt, Err(vain), at), Change::Nothing);
            let pause = member.wake_at().unwrap() - at;
            let nominal = FIRST * (1 << failures);
            assert!(pause >= nominal * 8 / 10 && pause <= nominal * 12 / 10, "{pause:?}");
            at += pause;
        }
        let sent = member.beat(at).unwrap();
        assert_eq!(sent.topics, Some(names(&["t"])));
        member.answered(sent.attempt, told(3, None), at);
        let sent = member.beat(at + INTERVAL).unwrap();
        assert_eq!(sent.topics, None);
        member.answered(sent.attempt, Err(Vain::Unheard), at);
        assert!(member.wake_at().unwrap() <= at + FIRST * 12 / 10, "pauses begin anew");
    }

    #[test]
    fn a_final_refusal_ends_it() {
        let (mut member, now) = joined();
        member.beat(now + INTERVAL).unwrap();
        let code = ErrorCode::GroupAuthorizationFailed;
        assert_eq!(member.answered(2, Err(Vain::Refused(code)), now), Change::Refused(code));
        assert_eq!((member.beat(now + 9 * INTERVAL), member.wake_at()), (None, None));
        assert_eq!(member.leave(), None, "it is out already");
    }

    #[test]
    fn whoever_may_be_known_leaves_once() {
        let (mut one, _) = joined();
        assert_eq!(one.leave(), beat(0, -1, None));
        assert_eq!(one.leave(), None);
        assert_eq!(one.wake_at(), None);
        let (mut two, now) = member();
        assert_eq!(two.leave(), None, "nobody has heard of it");
        assert_eq!(two.beat(now), None);
        let (mut three, now) = member();
        three.beat(now).unwrap();
        assert_eq!(three.leave(), beat(0, -1, None), "it may have joined");
        assert_eq!(three.answered(1, told(3, Some(&[0])), now), Change::Nothing);
        assert_eq!(three.wake_at(), None);
    }
}
