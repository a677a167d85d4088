//! The offset ledger of one partition: which records are unfinished, and therefore up to where
//! it is safe to commit. Pure.
//!
//! Everything that decides about commits asks this: acknowledgement policies only choose *when* to ask. The one
//! invariant is that [`Ledger::committable`] never exceeds the lowest unfinished offset, whatever order records finish
//! in and whatever gaps compaction and control records leave.

use std::collections::VecDeque;

/// Names one delivery of one record. Unlike a bare offset it goes stale when the position is moved back over the
/// record, so that a late result of the old delivery says nothing about the new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Ticket {
    pub(crate) offset: i64,
    epoch: u64,
}

/// What the ledger knows of one received record that cannot be forgotten yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    InFlight,
    Retrying,
    Done,
}

/// One record that cannot be forgotten yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    offset: i64,
    bytes: u32,
    state: State,
}

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// By rising offset. The first is never `Done`: finished records at the front are forgotten at once.
    records: VecDeque<Entry>,
    /// Of all records here.
    kept_bytes: u64,
    /// One past the highest received offset.
    next_offset: Option<i64>,
    /// Where the group stands: the last commit; before the first, the record that came first, because
    /// the group read from there.
    settled: Option<i64>,
    /// The position was moved on purpose: where the group stands says nothing about where it goes on, and the next
    /// record's place is to be committed before anything else.
    moved: bool,
    unfinished: usize,
    retrying: usize,
    epoch: u64,
}

impl Ledger {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A record came from the broker. Offsets rise, with any gaps; one that does not rise means that the position was
    /// moved back (the topic was recreated, or the offset was reset), and everything known before is void.
    pub(crate) fn received(&mut self, offset: i64, bytes: usize) -> Ticket {
        if self.next_offset.is_some_and(|next| offset < next) {
            *self = Self { epoch: self.epoch + 1, moved: self.moved, ..Self::default() };
        }
        if !self.moved {
            self.settled.get_or_insert(offset);
        }
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.records.push_back(Entry { offset, bytes, state: State::InFlight });
        self.kept_bytes += u64::from(bytes);
        self.next_offset = Some(offset + 1);
        self.unfinished += 1;
        Ticket { offset, epoch: self.epoch }
    }

    /// The position is moved on purpose: what was delivered before is void, and what comes next is where the group
    /// stands.
    pub(crate) fn restart(&mut self) {
        *self = Self { epoch: self.epoch + 1, moved: true, ..Self::default() };
    }

    /// After [`Ledger::restart`]: the place that was moved to, if no record came from there yet.
    pub(crate) fn stands_at(&mut self, offset: i64) {
        if self.moved {
            self.next_offset.get_or_insert(offset);
        }
    }

    /// The position is at `next_offset` now, although no record lies between: transaction
    /// markers or compacted records do. Also when no record came before: the group may stand below what is none, and
    /// would for ever if none came.
    pub(crate) fn read_to(&mut self, next_offset: i64) {
        self.next_offset = Some(self.next_offset.map_or(next_offset, |known| known.max(next_offset)));
    }

    /// The record needs no more work: handled, dead-lettered or skipped. `false` if it was finished before or is stale.
    pub(crate) fn finished(&mut self, ticket: Ticket) -> bool {
        let Some(state) = self.unfinished_state(ticket) else { return false };
        let was_retrying = std::mem::replace(state, State::Done) == State::Retrying;
        self.unfinished -= 1;
        self.retrying -= usize::from(was_retrying);
        while let Some(first) = self.records.front()
            && first.state == State::Done
        {
            self.kept_bytes -= u64::from(first.bytes);
            self.records.pop_front();
        }
        true
    }

    /// The record failed and waits for its next attempt. `false` if it is finished or stale.
    pub(crate) fn retrying(&mut self, ticket: Ticket) -> bool {
        let Some(state) = self.unfinished_state(ticket) else { return false };
        let was_retrying = std::mem::replace(state, State::Retrying) == State::Retrying;
        self.retrying += usize::from(!was_retrying);
        true
    }

    /// Whether this delivery still counts: neither finished nor stale.
    pub(crate) fn is_unfinished(&self, ticket: Ticket) -> bool {
        self.unfinished_index(ticket).is_some()
    }

    /// The offset to commit: that of the lowest unfinished record, or one past the last received.
    /// `None` if that is committed.
    pub(crate) fn committable(&self) -> Option<i64> {
        let safe = self.records.front().map(|first| first.offset).or(self.next_offset);
        safe.filter(|safe| self.settled != Some(*safe))
    }

    /// Whether the position was moved, and the place is not committed yet.
    pub(crate) fn is_moved(&self) -> bool {
        self.moved
    }

    /// As [`Ledger::committable`], as it will be when these records, by rising offset, are finished; `None` if one of
    /// them is finished or stale. It may be committed already.
    pub(crate) fn committable_with(&self, tickets: &[Ticket]) -> Option<i64> {
        if !tickets.iter().all(|ticket| self.is_unfinished(*ticket)) {
            return None;
        }
        let is_left = |entry: &&Entry| {
            let among = tickets.binary_search_by_key(&entry.offset, |ticket| ticket.offset);
            entry.state != State::Done && among.is_err()
        };
        self.records.iter().find(is_left).map(|first| first.offset).or(self.next_offset)
    }

    /// The broker took the commit of `offset`.
    pub(crate) fn committed(&mut self, offset: i64) {
        self.settled = Some(offset);
        self.moved = false;
    }

    /// The lowest record that is not finished.
    pub(crate) fn lowest(&self) -> Option<i64> {
        self.records.front().map(|first| first.offset)
    }

    /// Up to where the partition was read.
    pub(crate) fn next_offset(&self) -> Option<i64> {
        self.next_offset
    }

    /// Counts the times that everything known before became void.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// How many records are kept: the unfinished, and what is finished above the lowest of them. They come again if the
    /// process ends now.
    pub(crate) fn kept(&self) -> usize {
        self.records.len()
    }

    /// The bytes of the records that are kept.
    pub(crate) fn kept_bytes(&self) -> u64 {
        self.kept_bytes
    }

    /// How many received records are not finished, those in retry included.
    pub(crate) fn unfinished(&self) -> usize {
        self.unfinished
    }

    /// How many records wait for another attempt.
    pub(crate) fn in_retry(&self) -> usize {
        self.retrying
    }

    /// The offsets of the unfinished records, rising.
    pub(crate) fn unfinished_offsets(&self) -> impl Iterator<Item = i64> {
        self.records.iter().filter(|entry| entry.state != State::Done).map(|entry| entry.offset)
    }

    fn unfinished_state(&mut self, ticket: Ticket) -> Option<&mut State> {
        self.unfinished_index(ticket).map(|index| &mut self.records[index].state)
    }

    fn unfinished_index(&self, ticket: Ticket) -> Option<usize> {
        if ticket.epoch != self.epoch {
            return None;
        }
        // What is worked on in order is at the front.
        let index = match self.records.front() {
            Some(first) if first.offset == ticket.offset => 0,
            _ => self.records.binary_search_by_key(&ticket.offset, |entry| entry.offset).ok()?,
        };
        (self.records[index].state != State::Done).then_some(index)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn out_of_order_completion_commits_up_to_the_gap() {
        let mut ledger = Ledger::new();
        let tickets: Vec<_> = (10..15).map(|offset| ledger.received(offset, 10)).collect();
        assert_eq!(ledger.committable(), None, "nothing is finished");
        ledger.finished(tickets[1]);
        ledger.finished(tickets[2]);
        assert_eq!(ledger.committable(), None, "10 is unfinished");
        ledger.finished(tickets[0]);
        assert_eq!(ledger.committable(), Some(13));
        ledger.committed(13);
        assert_eq!(ledger.committable(), None);
        ledger.finished(tickets[4]);
        ledger.finished(tickets[3]);
        assert_eq!(ledger.committable(), Some(15));
    }

    #[test]
    fn what_will_be_committable_is_known_before() {
        let mut ledger = Ledger::new();
        let tickets: Vec<_> = [3, 4, 7, 8].map(|offset| ledger.received(offset, 10)).into();
        assert_eq!(ledger.committable_with(&tickets[..1]), Some(4));
        assert_eq!(ledger.committable_with(&tickets[1..]), Some(3), "3 is unfinished");
        assert_eq!(ledger.committable_with(&tickets), Some(9));
        ledger.finished(tickets[1]);
        assert_eq!(ledger.committable_with(&tickets[..1]), Some(7));
        assert_eq!(ledger.committable_with(&[]), Some(3));
        assert_eq!(ledger.committable_with(&tickets[1..3]), None, "one is finished");
        ledger.read_to(20);
        assert_eq!(ledger.committable_with(&[tickets[0], tickets[2], tickets[3]]), Some(20));
        ledger.restart();
        assert_eq!(ledger.committable_with(&tickets[..1]), None, "it is stale");
    }

    #[test]
    fn offsets_that_never_come_do_not_hold_commits_back() {
        // Compaction and transaction markers leave holes; waiting for offset 4 would wait for ever.
        let mut ledger = Ledger::new();
        let (three, nine) = (ledger.received(3, 10), ledger.received(9, 10));
        ledger.finished(three);
        assert_eq!(ledger.committable(), Some(9));
        ledger.finished(nine);
        assert_eq!(ledger.committable(), Some(10));
    }

    #[test]
    fn a_record_in_retry_is_unfinished() {
        let mut ledger = Ledger::new();
        let (a, b) = (ledger.received(0, 10), ledger.received(1, 10));
        assert!(ledger.retrying(a));
        ledger.finished(b);
        assert_eq!((ledger.committable(), ledger.in_retry(), ledger.unfinished()), (None, 1, 1));
        assert!(ledger.finished(a));
        assert_eq!((ledger.committable(), ledger.in_retry(), ledger.unfinished()), (Some(2), 0, 0));
        assert!(!ledger.finished(a), "only once");
        assert!(!ledger.retrying(a));
    }

    #[test]
    fn moving_back_voids_what_was_delivered_before() {
        let mut ledger = Ledger::new();
        let old = ledger.received(5, 10);
        let new = ledger.received(5, 10);
        assert!(!ledger.finished(old), "the old delivery's result says nothing about the new one");
        assert_eq!(ledger.committable(), None);
        assert!(ledger.finished(new));
        assert_eq!(ledger.committable(), Some(6));
    }

    /// A transaction's marker takes an offset and is no record. A group that has handled everything would show a lag
    /// for ever if its commit stayed below it.
    #[test]
    fn what_was_read_without_a_record_is_committed_too() {
        let mut ledger = Ledger::new();
        assert_eq!(ledger.committable(), None, "nothing came yet: where the group stands is not known");
        ledger.read_to(4);
        assert_eq!(ledger.committable(), Some(4));
        ledger.committed(4);
        assert_eq!(ledger.committable(), None);
        let (five, six) = (ledger.received(5, 10), ledger.received(6, 10));
        ledger.read_to(9);
        ledger.finished(five);
        assert_eq!(ledger.committable(), Some(6), "not past a record that is unfinished");
        ledger.finished(six);
        assert_eq!(ledger.committable(), Some(9));
        ledger.read_to(7);
        assert_eq!(ledger.committable(), Some(9), "an older position moves nothing back");
    }

    /// A group that stands at 100 and seeks back to 5 begins at 5 after a crash, too.
    #[test]
    fn a_position_that_was_moved_on_purpose_is_committed_before_anything_is_finished() {
        let mut ledger = Ledger::new();
        let old = ledger.received(99, 10);
        ledger.restart();
        assert_eq!((ledger.committable(), ledger.kept()), (None, 0));
        assert!(!ledger.finished(old));
        let five = ledger.received(5, 10);
        assert_eq!(ledger.committable(), Some(5));
        ledger.committed(5);
        assert_eq!(ledger.committable(), None);
        ledger.finished(five);
        assert_eq!(ledger.committable(), Some(6));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Receive { gap: i64 },
        ReadTo { by: i64 },
        MoveBack { by: i64 },
        Finish { pick: usize },
        Retry { pick: usize },
        Commit,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => prop_oneof![5 => Just(0), 1 => 1..6_i64].prop_map(|gap| Step::Receive { gap }),
            1 => (0..4_i64).prop_map(|by| Step::ReadTo { by }),
            1 => (1..8_i64).prop_map(|by| Step::MoveBack { by }),
            6 => any::<usize>().prop_map(|pick| Step::Finish { pick }),
            2 => any::<usize>().prop_map(|pick| Step::Retry { pick }),
            2 => Just(Step::Commit),
        ]
    }

    /// `model` has what was received since the last move back, `tickets` from `stale_below` on are its own.
    fn agree(
        ledger: &mut Ledger,
        model: &BTreeMap<i64, State>,
        tickets: &[Ticket],
        stale_below: usize,
        next: i64,
        last_commit: Option<i64>,
    ) -> Result<(), TestCaseError> {
        let unfinished: Vec<i64> =
            model.iter().filter(|(_, state)| **state != State::Done).map(|(offset, _)| *offset).collect();
        let lowest = unfinished.first().copied();
        if let Some(offset) = ledger.committable().or(last_commit) {
            prop_assert!(lowest.is_none_or(|lowest| offset <= lowest), "never past the lowest unfinished");
        }
        let safe = lowest.or((!model.is_empty()).then_some(next));
        let stood = last_commit.or(model.keys().next().copied());
        prop_assert_eq!(ledger.committable(), safe.filter(|safe| Some(*safe) != stood));
        prop_assert_eq!(ledger.unfinished(), unfinished.len());
        prop_assert_eq!(ledger.unfinished_offsets().collect::<Vec<_>>(), unfinished);
        let in_retry = model.values().filter(|state| **state == State::Retrying).count();
        prop_assert_eq!(ledger.in_retry(), in_retry);
        // Finished ones below the lowest unfinished are forgotten.
        let kept = lowest.map_or(0, |lowest| model.range(lowest..).count());
        prop_assert_eq!((ledger.kept(), ledger.kept_bytes()), (kept, 10 * kept as u64));
        for (index, ticket) in tickets.iter().enumerate() {
            let expected = index >= stale_below && model[&ticket.offset] != State::Done;
            prop_assert_eq!(ledger.is_unfinished(*ticket), expected);
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// Against the simplest model: a map of every offset received since the last move back.
        #[test]
        fn agrees_with_the_model(steps in proptest::collection::vec(step(), 1..120)) {
            let mut ledger = Ledger::new();
            let mut model: BTreeMap<i64, State> = BTreeMap::new();
            let mut tickets: Vec<Ticket> = Vec::new();
            let mut stale_below = 0;
            let mut next = 100;
            let mut last_commit = None;
            for step in steps {
                match step {
                    Step::Receive { gap } => {
                        next += gap;
                        tickets.push(ledger.received(next, 10));
                        model.insert(next, State::InFlight);
                        next += 1;
                    }
                    Step::ReadTo { by } if !model.is_empty() => {
                        next += by;
                        ledger.read_to(next);
                    }
                    Step::MoveBack { by } if !model.is_empty() => {
                        model.clear();
                        stale_below = tickets.len();
                        last_commit = None;
                        next = (next - by).max(0);
                        tickets.push(ledger.received(next, 10));
                        model.insert(next, State::InFlight);
                        next += 1;
                    }
                    Step::Finish { pick } if !tickets.is_empty() => {
                        let index = pick % tickets.len();
                        let ticket = tickets[index];
                        let expected = index >= stale_below && model[&ticket.offset] != State::Done;
                        prop_assert_eq!(ledger.finished(ticket), expected);
                        if expected {
                            model.insert(ticket.offset, State::Done);
                        }
                    }
                    Step::Retry { pick } if !tickets.is_empty() => {
                        let index = pick % tickets.len();
                        let ticket = tickets[index];
                        let expected = index >= stale_below && model[&ticket.offset] != State::Done;
                        prop_assert_eq!(ledger.retrying(ticket), expected);
                        if expected {
                            model.insert(ticket.offset, State::Retrying);
                        }
                    }
                    Step::Commit => {
                        if let Some(offset) = ledger.committable() {
                            ledger.committed(offset);
                            last_commit = Some(offset);
                        }
                        prop_assert_eq!(ledger.committable(), None);
                    }
                    _ => {}
                }
                agree(&mut ledger, &model, &tickets, stale_below, next, last_commit)?;
            }
        }
    }
}
