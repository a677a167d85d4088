//! Where reading goes on in one partition, and what must be asked of whom to find out. Pure: it is told the time.
//!
//! A position is first looked for (the committed offset, an end of the log, a time), then read from. When the
//! partition gets a new leader it is checked once against that leader's log before it is read from again (KIP-320):
//! a log that lost records would otherwise go on with others under the same offsets. Each partition has pauses of its
//! own, so that one that cannot be looked up keeps no other waiting.

use std::time::Duration;

use klamm_protocol::Uuid;
use tokio::time::Instant;

use super::settings::OffsetReset;

/// Where reading is to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// At the committed offset, or else as `auto_offset_reset` has it.
    Committed,
    /// At a place that the leader knows.
    Find(Place),
    /// At this offset.
    At(i64),
}

/// A place in the log that its leader can tell the offset of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The oldest record.
    Earliest,
    /// After the newest.
    Latest,
    /// The first record at or after this time, in milliseconds since the Unix epoch; the end if there is none.
    Time(i64),
    /// The first record that is not older than this.
    Ago(Duration),
}

impl Place {
    /// As ListOffsets spells it.
    pub(super) fn wire(self, now_ms: i64) -> i64 {
        match self {
            Self::Earliest => -2,
            Self::Latest => -1,
            Self::Time(timestamp_ms) => timestamp_ms.max(0),
            Self::Ago(age) => {
                now_ms.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX)).max(0)
            }
        }
    }
}

/// Where to start by policy; `None` when that is an error.
pub(super) fn by_policy(reset: OffsetReset) -> Option<Place> {
    match reset {
        OffsetReset::Earliest => Some(Place::Earliest),
        OffsetReset::Latest => Some(Place::Latest),
        OffsetReset::ByDuration(age) => Some(Place::Ago(age)),
        OffsetReset::None => None,
    }
}

/// An offset, and the leader epoch of the record before it where that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Anchor {
    pub(super) offset: i64,
    pub(super) epoch: Option<i32>,
}

impl From<i64> for Anchor {
    fn from(offset: i64) -> Self {
        Self { offset, epoch: None }
    }
}

/// Who leads a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Leader {
    pub(super) node: i32,
    /// -1 when the cluster does not tell.
    pub(super) epoch: i32,
}

/// What metadata says of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    /// Zero when the cluster does not tell.
    pub(super) topic_id: Uuid,
    pub(super) leader: Option<Leader>,
}

/// What is to be done for a partition now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing: an answer is on its way.
    Wait,
    /// Nothing before this instant.
    Rest(Instant),
    /// Nobody is known to ask; metadata must be refreshed, and is looked at again at this instant at the latest.
    Refresh(Instant),
    /// Ask the group's coordinator.
    Committed,
    /// Ask the leader for the offset of a place.
    Find(Leader, Place),
    /// Ask the leader where the epoch of the position ends in its log.
    Check(Leader, Anchor),
    /// Fetch from this broker.
    Fetch { node: i32, leader: Leader, offset: i64 },
    /// The topic is another than the one that the position belongs to.
    Recreated,
}

/// Pauses between attempts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pauses {
    pub(super) first: Duration,
    pub(super) longest: Duration,
}

impl Pauses {
    /// The pause after that many failures before the last one.
    fn after(self, failures: u32) -> Duration {
        self.first.saturating_mul(1 << failures.min(20)).min(self.longest)
    }
}

/// How long a partition rests after an error that the program was told.
pub(super) const ERROR_PAUSE: Duration = Duration::from_secs(1);
/// How soon a partition without new records is looked at again over a connection that does not wait for them.
const FIRST_PEEK: Duration = Duration::from_millis(10);
const LONGEST_PEEK: Duration = Duration::from_millis(50);

/// One partition's position and what is under way to find or check it.
#[derive(Debug)]
pub(super) struct Position {
    start: Start,
    /// The epoch that goes with `Start::At`.
    epoch: Option<i32>,
    /// The topic that the offset belongs to; zero while that is not known.
    topic_id: Uuid,
    /// The leader epoch against which the position was checked.
    checked: Option<i32>,
    /// A request is under way.
    asked: bool,
    failures: u32,
    not_before: Option<Instant>,
    /// Who refused: another leader is asked without a pause.
    refused_by: Option<Leader>,
    /// How often nobody was there to ask, and when that is looked at again.
    leaderless: u32,
    refresh_at: Option<Instant>,
    /// A nearer replica (KIP-392), until this instant.
    replica: Option<(i32, Instant)>,
    /// The last fetch from here brought nothing.
    idle: Option<Idle>,
    /// How often the place that was found was not in the log, with nothing read since.
    resets: u32,
    /// Since when nobody has answered as he should, with nothing fetched since.
    failing_since: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Idle {
    peek_at: Instant,
    pause: Duration,
}

impl Position {
    pub(super) fn new(start: Start) -> Self {
        Self {
            start,
            epoch: None,
            topic_id: Uuid::ZERO,
            checked: None,
            asked: false,
            failures: 0,
            not_before: None,
            refused_by: None,
            leaderless: 0,
            refresh_at: None,
            replica: None,
            idle: None,
            resets: 0,
            failing_since: None,
        }
    }

    /// The place in the log to read from, once it is known.
    pub(super) fn anchor(&self) -> Option<Anchor> {
        match self.start {
            Start::At(offset) => Some(Anchor { offset, epoch: self.epoch }),
            _ => None,
        }
    }

    /// What to do now. Nothing is asked before what is under way is answered.
    pub(super) fn step(&mut self, known: Known, now: Instant, pauses: Pauses) -> Step {
        if self.asked {
            return Step::Wait;
        }
        let refuser_left =
            self.refused_by.is_some() && known.leader.is_some() && self.refused_by != known.leader;
        if let Some(not_before) = self.not_before.filter(|&at| at > now && !refuser_left) {
            return Step::Rest(not_before);
        }
        if matches!(self.start, Start::Committed) {
            return Step::Committed;
        }
        let Some(leader) = known.leader else { return self.leaderless(now, pauses) };
        (self.leaderless, self.refresh_at) = (0, None);
        match self.start {
            Start::Find(place) => Step::Find(leader, place),
            Start::At(offset) => self.read_step(offset, leader, known.topic_id, now),
            Start::Committed => Step::Committed,
        }
    }

    fn leaderless(&mut self, now: Instant, pauses: Pauses) -> Step {
        if let Some(refresh_at) = self.refresh_at.filter(|&at| at > now) {
            return Step::Rest(refresh_at);
        }
        let refresh_at = now + pauses.after(self.leaderless);
        self.leaderless = self.leaderless.saturating_add(1);
        self.failing_since.get_or_insert(now);
        self.refresh_at = Some(refresh_at);
        Step::Refresh(refresh_at)
    }

    fn read_step(&mut self, offset: i64, leader: Leader, topic_id: Uuid, now: Instant) -> Step {
        if self.topic_id == Uuid::ZERO {
            self.topic_id = topic_id;
        } else if topic_id != Uuid::ZERO && topic_id != self.topic_id {
            return Step::Recreated;
        }
        if self.checked != Some(leader.epoch) {
            if let Some(epoch) = self.epoch.filter(|_| leader.epoch >= 0) {
                return Step::Check(leader, Anchor { offset, epoch: Some(epoch) });
            }
            self.checked = Some(leader.epoch);
        }
        if self.replica.is_some_and(|(_, until)| until <= now) {
            self.replica = None;
        }
        let node = self.replica.map_or(leader.node, |(node, _)| node);
        Step::Fetch { node, leader, offset }
    }

    /// A request is on its way.
    pub(super) fn ask(&mut self) {
        self.asked = true;
        self.not_before = None;
        self.refused_by = None;
    }

    /// Looks elsewhere for the start: what was asked led there.
    pub(super) fn look(&mut self, start: Start) {
        *self = Self { failing_since: self.failing_since, ..Self::new(start) };
    }

    /// The log does not hold the position: another is looked for. When what was found is not in the log either that has
    /// growing pauses, for a broker may contradict itself as fast as it answers.
    pub(super) fn reset(&mut self, place: Place, now: Instant, pauses: Pauses) {
        let resets = self.resets;
        self.look(Start::Find(place));
        self.not_before = resets.checked_sub(1).map(|before| now + pauses.after(before));
        self.resets = resets.saturating_add(1);
        self.failing_since.get_or_insert(now);
    }

    /// The offset is found, by a look-up or in the group. What the leader of `checked` itself told needs no check.
    pub(super) fn found(&mut self, anchor: Anchor, checked: Option<i32>) {
        // Whoever seeks begins anew.
        let resets = if checked.is_some() { self.resets } else { 0 };
        let failing_since = self.failing_since;
        let found = Self::new(Start::At(anchor.offset));
        *self = Self { epoch: anchor.epoch, checked, resets, failing_since, ..found };
    }

    /// The position holds in the log of the leader with this epoch.
    pub(super) fn holds(&mut self, leader_epoch: i32) {
        self.asked = false;
        self.failures = 0;
        self.checked = Some(leader_epoch);
    }

    /// Records up to `next` arrived.
    pub(super) fn advance(&mut self, next: Anchor) {
        self.asked = false;
        self.failures = 0;
        self.start = Start::At(next.offset);
        self.epoch = next.epoch.or(self.epoch);
        self.idle = None;
        self.resets = 0;
        self.failing_since = None;
    }

    /// There is nothing new.
    pub(super) fn nothing_new(&mut self, now: Instant) {
        self.asked = false;
        self.failures = 0;
        self.resets = 0;
        self.failing_since = None;
        let pause = self.idle.map_or(FIRST_PEEK, |idle| (idle.pause * 2).min(LONGEST_PEEK));
        self.idle = Some(Idle { peek_at: now + pause, pause });
    }

    /// Since when nothing could be fetched, or looked up, though it was tried.
    pub(super) fn failing_since(&self) -> Option<Instant> {
        self.failing_since
    }

    /// When to look again over a connection that does not wait for records; `None` is at once, because there may be
    /// records.
    pub(super) fn peek_at(&self) -> Option<Instant> {
        self.idle.map(|idle| idle.peek_at)
    }

    /// The request brought nothing of use: again after a pause, or at once when somebody else leads.
    pub(super) fn failed(&mut self, now: Instant, pauses: Pauses, by: Option<Leader>) {
        self.asked = false;
        self.not_before = Some(now + pauses.after(self.failures));
        self.failures = self.failures.saturating_add(1);
        self.failing_since.get_or_insert(now);
        self.refused_by = by;
        self.replica = None;
        self.idle = None;
    }

    /// Not before this instant.
    pub(super) fn rest(&mut self, until: Instant) {
        self.asked = false;
        self.not_before = Some(until);
        self.failing_since.get_or_insert(until);
        self.refused_by = None;
        self.replica = None;
    }

    /// The request was not made, or its answer cannot be known.
    pub(super) fn unasked(&mut self) {
        self.asked = false;
    }

    /// Read from this replica for a while.
    pub(super) fn prefer(&mut self, node: i32, until: Instant) {
        self.asked = false;
        self.replica = Some((node, until));
    }

    /// Whether it is read from another broker than its leader.
    pub(super) fn leaves_replica(&mut self) -> bool {
        self.replica.take().is_some()
    }
}

/// Where a position lies in the log of a leader that says where its epoch ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// In it.
    Holds,
    /// The log went another way from this place on, as far as the leader can tell.
    Diverged(Option<Anchor>),
}

/// Judges a position by the leader's answer: the greatest epoch not above the asked one, and the offset after it.
pub(super) fn judge(position: Anchor, epoch: i32, end_offset: i64) -> Verdict {
    if epoch < 0 || end_offset < 0 {
        return Verdict::Diverged(None);
    }
    let older = position.epoch.is_some_and(|own| epoch < own);
    match end_offset < position.offset || older {
        // With an older epoch the log may have grown past the position all the same: what is there is other records.
        true => {
            Verdict::Diverged(Some(Anchor { offset: end_offset.min(position.offset), epoch: Some(epoch) }))
        }
        false => Verdict::Holds,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSES: Pauses = Pauses { first: Duration::from_millis(100), longest: Duration::from_millis(350) };
    const LEADER: Leader = Leader { node: 1, epoch: 5 };

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn led_by(leader: Leader) -> Known {
        Known { topic_id: Uuid::from_u128(1), leader: Some(leader) }
    }

    fn fetch(node: i32, leader: Leader, offset: i64) -> Step {
        Step::Fetch { node, leader, offset }
    }

    fn reading(offset: i64, epoch: Option<i32>) -> Position {
        let mut position = Position::new(Start::At(offset));
        position.found(Anchor { offset, epoch }, Some(LEADER.epoch));
        position
    }

    #[test]
    fn places_are_spelt_as_in_list_offsets() {
        assert_eq!(Place::Earliest.wire(0), -2);
        assert_eq!(Place::Latest.wire(0), -1);
        assert_eq!((Place::Time(7).wire(0), Place::Time(-2).wire(0)), (7, 0));
        assert_eq!(Place::Ago(ms(3)).wire(10), 7);
        assert_eq!((Place::Ago(ms(11)).wire(10), Place::Ago(Duration::MAX).wire(10)), (0, 0));
        assert_eq!(by_policy(OffsetReset::Earliest), Some(Place::Earliest));
        assert_eq!(by_policy(OffsetReset::Latest), Some(Place::Latest));
        assert_eq!(by_policy(OffsetReset::ByDuration(ms(3))), Some(Place::Ago(ms(3))));
        assert_eq!(by_policy(OffsetReset::None), None);
    }

    #[test]
    fn a_start_is_found_step_by_step() {
        let now = Instant::now();
        let mut position = Position::new(Start::Committed);
        let nobody = Known { topic_id: Uuid::ZERO, leader: None };
        assert_eq!(position.step(nobody, now, PAUSES), Step::Committed, "no leader is needed for that");
        position.ask();
        assert_eq!(position.step(nobody, now, PAUSES), Step::Wait);
        position.look(Start::Find(Place::Latest));
        assert_eq!(position.anchor(), None);
        assert_eq!(position.step(led_by(LEADER), now, PAUSES), Step::Find(LEADER, Place::Latest));
        position.ask();
        position.found(Anchor { offset: 9, epoch: Some(2) }, Some(5));
        assert_eq!(position.anchor(), Some(Anchor { offset: 9, epoch: Some(2) }));
        assert_eq!(position.step(led_by(LEADER), now, PAUSES), fetch(1, LEADER, 9), "its leader told it");
    }

    /// A broker said that the log begins where it then said that there is no log, as fast as it was asked.
    #[test]
    fn a_position_that_is_reset_in_vain_waits_longer_each_time() {
        let now = Instant::now();
        let mut position = Position::new(Start::Committed);
        let find = Step::Find(LEADER, Place::Earliest);
        for (number, pause) in [0, 100, 200, 350, 350].into_iter().enumerate() {
            position.ask();
            position.reset(Place::Earliest, now, PAUSES);
            if pause > 0 {
                let before = now + ms(pause - 1);
                assert_eq!(
                    position.step(led_by(LEADER), before, PAUSES),
                    Step::Rest(now + ms(pause)),
                    "{number}"
                );
            }
            assert_eq!(position.step(led_by(LEADER), now + ms(pause), PAUSES), find, "{number}");
            position.ask();
            position.found(9.into(), Some(LEADER.epoch));
        }
        // What was read, or that there is nothing to read, or a seek: it begins anew.
        let again: [fn(&mut Position); 2] = [|at| at.advance(10.into()), |at| at.found(3.into(), None)];
        for again in again {
            again(&mut position);
            position.reset(Place::Earliest, now, PAUSES);
            assert_eq!(position.step(led_by(LEADER), now, PAUSES), find);
            position.reset(Place::Earliest, now, PAUSES);
            assert_eq!(position.step(led_by(LEADER), now, PAUSES), Step::Rest(now + ms(100)));
        }
        position.nothing_new(now);
        position.reset(Place::Earliest, now, PAUSES);
        assert_eq!(position.step(led_by(LEADER), now, PAUSES), find);
    }

    #[test]
    fn while_nobody_leads_metadata_is_asked_for_with_growing_pauses() {
        let now = Instant::now();
        let mut position = Position::new(Start::Find(Place::Earliest));
        let nobody = Known { topic_id: Uuid::ZERO, leader: None };
        let mut at = now;
        for pause in [100, 200, 350, 350] {
            assert_eq!(position.step(nobody, at, PAUSES), Step::Refresh(at + ms(pause)));
            let before = at + ms(pause - 1);
            assert_eq!(position.step(nobody, before, PAUSES), Step::Rest(at + ms(pause)));
            at += ms(pause);
        }
        assert_eq!(
            position.step(led_by(LEADER), now, PAUSES),
            Step::Find(LEADER, Place::Earliest),
            "at once"
        );
        assert_eq!(position.step(nobody, now, PAUSES), Step::Refresh(now + ms(100)), "it begins anew");
    }

    #[test]
    fn pauses_grow_with_failures_and_another_leader_ends_them() {
        let now = Instant::now();
        let mut position = reading(3, None);
        for pause in [100, 200, 350] {
            position.ask();
            position.failed(now, PAUSES, Some(LEADER));
            assert_eq!(
                position.step(led_by(LEADER), now + ms(pause - 1), PAUSES),
                Step::Rest(now + ms(pause))
            );
            assert_eq!(position.step(led_by(LEADER), now + ms(pause), PAUSES), fetch(1, LEADER, 3));
        }
        let other = Leader { node: 2, epoch: 6 };
        assert_eq!(position.step(led_by(other), now, PAUSES), fetch(2, other, 3));
        let nobody = Known { topic_id: Uuid::ZERO, leader: None };
        assert_eq!(position.step(nobody, now, PAUSES), Step::Rest(now + ms(350)), "nobody is not another");
        position.failed(now, PAUSES, None);
        assert_eq!(
            position.step(led_by(other), now, PAUSES),
            Step::Rest(now + ms(350)),
            "not for its leader's sake"
        );
        position.ask();
        position.advance(Anchor { offset: 4, epoch: None });
        position.failed(now, PAUSES, Some(LEADER));
        assert_eq!(position.step(led_by(LEADER), now, PAUSES), Step::Rest(now + ms(100)), "records forgave");
        position.rest(now + ms(7));
        assert_eq!(position.step(led_by(other), now, PAUSES), Step::Rest(now + ms(7)), "whoever leads");
    }

    #[test]
    fn what_forgives_failures() {
        let now = Instant::now();
        for forgive in [
            |position: &mut Position| position.nothing_new(Instant::now()),
            |position: &mut Position| position.holds(5),
        ] {
            let mut position = reading(3, None);
            position.failed(now, PAUSES, None);
            position.failed(now, PAUSES, None);
            forgive(&mut position);
            position.failed(now, PAUSES, None);
            assert_eq!(position.step(led_by(LEADER), now, PAUSES), Step::Rest(now + ms(100)));
        }
    }

    #[test]
    fn a_new_leader_is_asked_where_the_epoch_ends() {
        let now = Instant::now();
        let mut position = reading(3, Some(4));
        assert_eq!(position.step(led_by(LEADER), now, PAUSES), fetch(1, LEADER, 3));
        let newer = Leader { node: 1, epoch: 6 };
        let anchor = Anchor { offset: 3, epoch: Some(4) };
        assert_eq!(position.step(led_by(newer), now, PAUSES), Step::Check(newer, anchor));
        position.ask();
        assert_eq!(position.step(led_by(newer), now, PAUSES), Step::Wait);
        position.holds(6);
        assert_eq!(position.step(led_by(newer), now, PAUSES), fetch(1, newer, 3));
        // What comes without an epoch says nothing new about it.
        position.ask();
        position.advance(Anchor { offset: 8, epoch: None });
        assert_eq!(position.anchor(), Some(Anchor { offset: 8, epoch: Some(4) }));
        position.advance(Anchor { offset: 9, epoch: Some(6) });
        assert_eq!(position.anchor(), Some(Anchor { offset: 9, epoch: Some(6) }));
        // Where epochs are not told there is nothing to check by.
        let silent = Leader { node: 1, epoch: -1 };
        assert_eq!(position.step(led_by(silent), now, PAUSES), fetch(1, silent, 9));
        let mut sought = Position::new(Start::At(5));
        assert_eq!(sought.step(led_by(LEADER), now, PAUSES), fetch(1, LEADER, 5), "no epoch, no check");
        assert_eq!(sought.step(led_by(newer), now, PAUSES), fetch(1, newer, 5));
    }

    #[test]
    fn a_topic_made_anew_is_noticed_by_its_id() {
        let now = Instant::now();
        let mut position = reading(3, None);
        let of = |id| Known { topic_id: Uuid::from_u128(id), leader: Some(LEADER) };
        let nameless = Known { topic_id: Uuid::ZERO, leader: Some(LEADER) };
        assert_eq!(position.step(nameless, now, PAUSES), fetch(1, LEADER, 3));
        assert_eq!(
            position.step(of(1), now, PAUSES),
            fetch(1, LEADER, 3),
            "the first id is taken for its own"
        );
        assert_eq!(position.step(nameless, now, PAUSES), fetch(1, LEADER, 3), "no id says nothing");
        assert_eq!(position.step(of(2), now, PAUSES), Step::Recreated);
        assert_eq!(position.step(of(2), now, PAUSES), Step::Recreated, "until somebody does something");
        position.found(0.into(), None);
        assert_eq!(position.step(of(2), now, PAUSES), fetch(1, LEADER, 0));
    }

    #[test]
    fn a_nearer_replica_is_read_from_for_a_while_and_until_it_fails() {
        let now = Instant::now();
        let mut position = reading(3, None);
        position.ask();
        position.prefer(7, now + ms(10));
        assert_eq!(position.step(led_by(LEADER), now + ms(9), PAUSES), fetch(7, LEADER, 3));
        position.advance(Anchor { offset: 4, epoch: None });
        assert_eq!(position.step(led_by(LEADER), now + ms(9), PAUSES), fetch(7, LEADER, 4));
        assert_eq!(position.step(led_by(LEADER), now + ms(10), PAUSES), fetch(1, LEADER, 4));
        position.prefer(7, now + ms(900));
        assert!(position.leaves_replica());
        assert!(!position.leaves_replica());
        assert_eq!(position.step(led_by(LEADER), now, PAUSES), fetch(1, LEADER, 4));
        position.prefer(7, now + ms(900));
        position.failed(now, PAUSES, Some(LEADER));
        assert_eq!(position.step(led_by(LEADER), now + ms(100), PAUSES), fetch(1, LEADER, 4));
        position.prefer(7, now + ms(900));
        position.rest(now);
        assert_eq!(position.step(led_by(LEADER), now, PAUSES), fetch(1, LEADER, 4));
    }

    #[test]
    fn who_has_nothing_new_is_looked_at_with_growing_pauses() {
        let now = Instant::now();
        let mut position = reading(3, None);
        assert_eq!(position.peek_at(), None);
        for pause in [10, 20, 40, 50, 50] {
            position.ask();
            position.nothing_new(now);
            assert_eq!(position.peek_at(), Some(now + ms(pause)));
            assert_eq!(position.step(led_by(LEADER), now, PAUSES), fetch(1, LEADER, 3));
        }
        position.advance(Anchor { offset: 4, epoch: None });
        assert_eq!(position.peek_at(), None);
        position.nothing_new(now);
        position.failed(now, PAUSES, None);
        assert_eq!(position.peek_at(), None);
        position.ask();
        position.unasked();
        assert_eq!(position.step(led_by(LEADER), now, PAUSES), fetch(1, LEADER, 4));
    }

    #[test]
    fn a_position_is_judged_by_where_its_epoch_ends() {
        let position = Anchor { offset: 10, epoch: Some(4) };
        let diverged = |offset, epoch| Verdict::Diverged(Some(Anchor { offset, epoch: Some(epoch) }));
        assert_eq!(judge(position, 4, 11), Verdict::Holds);
        assert_eq!(judge(position, 4, 10), Verdict::Holds);
        assert_eq!(judge(position, 4, 9), diverged(9, 4));
        assert_eq!(judge(position, 4, 0), diverged(0, 4));
        assert_eq!(judge(position, 3, 10), diverged(10, 3), "records of an older epoch are at its place");
        assert_eq!(judge(position, 3, 20), diverged(10, 3));
        assert_eq!(judge(position, 0, 5), diverged(5, 0));
        assert_eq!(judge(position, -1, 20), Verdict::Diverged(None));
        assert_eq!(judge(position, 4, -1), Verdict::Diverged(None));
        assert_eq!(judge(Anchor::from(10), 3, 10), Verdict::Holds);
    }
}
