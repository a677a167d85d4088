//! The order of one consumer's commits: what goes into the next request, who waits for what, what is tried again.
//! Pure: it is told the time.
//!
//! One request is in flight at a time, so that no commit overtakes another. Meanwhile calls gather: of two that name a
//! partition the later one counts, and the earlier one is answered with it. What a member does not own (any more) is
//! refused here, because a coordinator would take it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use klamm_protocol::ErrorCode;
use klamm_runtime::Rng;
use tokio::time::Instant;

use super::standing::Standing;
use crate::connection::Backoff;
use crate::error::{ConsumeError, RequestError};
use crate::types::{OffsetAndMetadata, TopicPartition};

/// Offsets by partition.
pub(super) type Offsets = BTreeMap<TopicPartition, OffsetAndMetadata>;

/// One partition's offset and the calls that wait for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Entry {
    offset: OffsetAndMetadata,
    calls: Vec<u64>,
    /// Asked for also by whom nobody waits, until then: such calls are not kept one by one.
    until: Option<Instant>,
}

/// A call that is not answered.
#[derive(Debug)]
struct Call {
    /// Partitions without an answer.
    open: usize,
    /// The first partition's that was refused.
    error: Option<ConsumeError>,
    deadline: Instant,
}

/// How long a coordinator that did not know who committed is believed: by then a heartbeat says the same, if it is so.
const STALE_PAUSE: Duration = Duration::from_secs(5);

/// What has to happen before the next request.
#[derive(Debug, PartialEq, Eq)]
enum Hold {
    Until(Instant),
    /// The coordinator did not know who committed: this must have changed. If it does not, because the coordinator was
    /// wrong, the same is tried again at this instant.
    NotAs(Standing, Instant),
}

/// A request in flight.
#[derive(Debug)]
struct Sent {
    by: Standing,
    entries: BTreeMap<TopicPartition, Entry>,
    /// What was not owned at some time since: whoever owned it then may have committed more.
    foreign: BTreeSet<TopicPartition>,
}

/// The commits of one consumer.
#[derive(Debug)]
pub(super) struct Commits {
    group: Arc<str>,
    request_timeout: Duration,
    backoff: Backoff,
    rng: Arc<dyn Rng>,
    last_call: u64,
    calls: BTreeMap<u64, Call>,
    waiting: BTreeMap<TopicPartition, Entry>,
    sent: Option<Sent>,
    hold: Option<Hold>,
    /// Why the last request failed.
    failure: Option<ConsumeError>,
    answers: Vec<(u64, Result<(), ConsumeError>)>,
}

impl Commits {
    pub(super) fn new(
        group: Arc<str>,
        request_timeout: Duration,
        backoff: Backoff,
        rng: Arc<dyn Rng>,
    ) -> Self {
        Self {
            group,
            request_timeout,
            backoff,
            rng,
            last_call: 0,
            calls: BTreeMap::new(),
            waiting: BTreeMap::new(),
            sent: None,
            hold: None,
            failure: None,
            answers: Vec::new(),
        }
    }

    /// Commits these after everything that was asked for before. Gives the call's number.
    pub(super) fn call(&mut self, offsets: Offsets, deadline: Instant) -> u64 {
        let call = self.open(offsets.len(), deadline);
        for (partition, offset) in offsets {
            let entry = self.waiting.entry(partition).or_default();
            entry.offset = offset;
            entry.calls.push(call);
        }
        call
    }

    /// As [`Commits::call`], but nobody waits. However many there are, they take no more room than their partitions.
    pub(super) fn later(&mut self, offsets: Offsets, deadline: Instant) {
        for (partition, offset) in offsets {
            let entry = self.waiting.entry(partition).or_default();
            entry.offset = offset;
            entry.until = entry.until.max(Some(deadline));
        }
    }

    /// A call that is answered when everything asked for before is.
    pub(super) fn flush(&mut self, deadline: Instant) -> u64 {
        let sent = self.sent.iter_mut().flat_map(|sent| sent.entries.values_mut());
        let number = self.last_call + 1;
        let mut open = 0;
        for entry in self.waiting.values_mut().chain(sent) {
            entry.calls.push(number);
            open += 1;
        }
        self.open(open, deadline)
    }

    fn open(&mut self, open: usize, deadline: Instant) -> u64 {
        self.last_call += 1;
        let call = self.last_call;
        if open == 0 {
            self.answers.push((call, Ok(())));
        } else {
            self.calls.insert(call, Call { open, error: None, deadline });
        }
        call
    }

    /// What is to be sent now, if anything. `owned` is what the consumer owns as a member of its group; `None` for one
    /// that assigns partitions by hand, which may commit anything.
    pub(super) fn next(
        &mut self,
        standing: &Standing,
        owned: Option<&BTreeSet<TopicPartition>>,
        now: Instant,
    ) -> Option<Offsets> {
        if let Some(owned) = owned {
            // Without a generation all that is still there is lost: a group without members would take it.
            match standing.generation < 0 {
                true => self.refuse_foreign(&BTreeSet::new()),
                false => self.refuse_foreign(owned),
            }
        }
        if self.sent.is_some() {
            return None;
        }
        match &self.hold {
            Some(Hold::Until(at)) if now < *at => return None,
            Some(Hold::NotAs(before, until)) if before == standing && now < *until => return None,
            _ => self.hold = None,
        }
        if self.waiting.is_empty() {
            return None;
        }
        let entries = std::mem::take(&mut self.waiting);
        let offsets =
            entries.iter().map(|(partition, entry)| (partition.clone(), entry.offset.clone())).collect();
        self.sent = Some(Sent { by: standing.clone(), entries, foreign: BTreeSet::new() });
        Some(offsets)
    }

    /// What moved away meanwhile belongs to another member.
    fn refuse_foreign(&mut self, owned: &BTreeSet<TopicPartition>) {
        let foreign: Vec<TopicPartition> =
            self.waiting.keys().filter(|partition| !owned.contains(partition)).cloned().collect();
        for partition in foreign {
            if let Some(entry) = self.waiting.remove(&partition) {
                self.settle(&entry, &Err(ConsumeError::NotAssigned { partition }));
            }
        }
        if let Some(Sent { entries, foreign, .. }) = &mut self.sent {
            foreign.extend(entries.keys().filter(|partition| !owned.contains(partition)).cloned());
        }
    }

    /// The request in flight was answered with these refusals, or failed.
    pub(super) fn answered(
        &mut self,
        result: Result<BTreeMap<TopicPartition, ErrorCode>, RequestError>,
        now: Instant,
    ) {
        let Some(Sent { by, entries, foreign }) = self.sent.take() else { return };
        let refused = match result {
            Ok(refused) => refused,
            Err(error) => {
                let retriable = error.is_retriable();
                let error = ConsumeError::Request(error);
                for (partition, entry) in entries {
                    if retriable {
                        self.put_back(partition, entry, &foreign);
                    } else {
                        self.settle(&entry, &Err(error.clone()));
                    }
                }
                return self.pause(error, now);
            }
        };
        if refused.is_empty() {
            self.backoff.reset();
            self.failure = None;
        }
        for (partition, entry) in entries {
            let Some(&code) = refused.get(&partition) else {
                self.settle(&entry, &Ok(()));
                continue;
            };
            let error =
                ConsumeError::Commit { group: Arc::clone(&self.group), partition: partition.clone(), code };
            if is_stale(code) {
                // Inside `revoked` the rebalance waits for this very commit.
                if by.revoking || by.generation < 0 {
                    self.settle(&entry, &Err(error));
                } else {
                    self.put_back(partition, entry, &foreign);
                    self.failure = Some(error);
                    self.hold = Some(Hold::NotAs(by.clone(), now + STALE_PAUSE));
                }
            } else if code.is_retriable() && code != ErrorCode::UnknownTopicOrPartition {
                self.put_back(partition, entry, &foreign);
                if !matches!(self.hold, Some(Hold::NotAs(..))) {
                    self.pause(error, now);
                }
            } else {
                self.settle(&entry, &Err(error));
            }
        }
    }

    fn pause(&mut self, error: ConsumeError, now: Instant) {
        self.failure = Some(error);
        if !matches!(self.hold, Some(Hold::Until(_))) {
            self.hold = Some(Hold::Until(now + self.backoff.next(&*self.rng)));
        }
    }

    /// To be sent again, unless a later call has another offset for the partition or it was another member's meanwhile.
    fn put_back(&mut self, partition: TopicPartition, entry: Entry, foreign: &BTreeSet<TopicPartition>) {
        if foreign.contains(&partition) {
            return self.settle(&entry, &Err(ConsumeError::NotAssigned { partition }));
        }
        match self.waiting.get_mut(&partition) {
            Some(newer) => {
                newer.calls.extend(entry.calls);
                newer.until = newer.until.max(entry.until);
            }
            None => drop(self.waiting.insert(partition, entry)),
        }
    }

    fn settle(&mut self, entry: &Entry, result: &Result<(), ConsumeError>) {
        if let (Some(_), Err(error)) = (entry.until, result) {
            tracing::warn!(%error, "a background commit failed");
        }
        for number in &entry.calls {
            let Some(call) = self.calls.get_mut(number) else { continue };
            call.open -= 1;
            if let Err(error) = result {
                call.error.get_or_insert_with(|| error.clone());
            }
            if call.open == 0 {
                let error = call.error.take();
                self.calls.remove(number);
                self.answers.push((*number, error.map_or(Ok(()), Err)));
            }
        }
    }

    /// Answers calls whose deadline has passed. What nobody waits for any more is not sent.
    pub(super) fn expire(&mut self, now: Instant) {
        let expired: Vec<u64> =
            self.calls.iter().filter(|(_, call)| call.deadline <= now).map(|(number, _)| *number).collect();
        let after = self.request_timeout;
        let last = self.failure.as_ref().map_or_else(|| "no answer".to_owned(), ToString::to_string);
        let late = RequestError::Deadline { what: "committing offsets", after, last: Arc::from(last) };
        for number in expired {
            let error = self.calls.remove(&number).and_then(|call| call.error);
            let error = error.or_else(|| self.failure.clone()).unwrap_or_else(|| late.clone().into());
            self.answers.push((number, Err(error)));
        }
        let calls = &self.calls;
        self.waiting.retain(|partition, entry| {
            let wanted = entry.calls.iter().any(|number| calls.contains_key(number));
            let late = entry.until.take_if(|until| *until <= now).is_some();
            if late && !wanted {
                tracing::warn!(%partition, "a background commit came too late");
            }
            wanted || entry.until.is_some()
        });
    }

    /// When time alone brings something.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        let hold = match self.hold {
            Some(Hold::Until(at) | Hold::NotAs(_, at)) if !self.waiting.is_empty() => Some(at),
            _ => None,
        };
        self.calls.values().map(|call| call.deadline).chain(hold).min()
    }

    /// Calls that are answered.
    pub(super) fn take_answers(&mut self) -> Vec<(u64, Result<(), ConsumeError>)> {
        std::mem::take(&mut self.answers)
    }
}

/// Whether the coordinator has another generation, or counts the consumer out.
fn is_stale(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::RebalanceInProgress
            | ErrorCode::IllegalGeneration
            | ErrorCode::UnknownMemberId
            | ErrorCode::StaleMemberEpoch
            | ErrorCode::FencedMemberEpoch
    )
}

#[cfg(test)]
mod tests {
    use klamm_runtime::SeededRng;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const PAUSE: Duration = Duration::from_millis(100);

    fn commits() -> (Commits, Instant) {
        let backoff = Backoff::new(PAUSE, SECOND);
        (Commits::new("g".into(), 30 * SECOND, backoff, Arc::new(SeededRng::new(1))), Instant::now())
    }

    fn at(partition: i32) -> TopicPartition {
        TopicPartition::new("t", partition)
    }

    fn offsets(of: &[(i32, i64)]) -> Offsets {
        of.iter().map(|&(partition, offset)| (at(partition), offset.into())).collect()
    }

    fn member(generation: i32) -> Standing {
        Standing { generation, member_id: "m".into(), revoking: false }
    }

    fn owned(partitions: impl IntoIterator<Item = i32>) -> BTreeSet<TopicPartition> {
        partitions.into_iter().map(at).collect()
    }

    fn refused(of: &[(i32, ErrorCode)]) -> BTreeMap<TopicPartition, ErrorCode> {
        of.iter().map(|&(partition, code)| (at(partition), code)).collect()
    }

    fn disconnected() -> RequestError {
        RequestError::Disconnected { address: "b".into(), reason: "gone".into() }
    }

    /// Calls that are answered, with their errors in words.
    fn answers(commits: &mut Commits) -> Vec<(u64, Option<String>)> {
        let told = commits.take_answers().into_iter();
        told.map(|(call, answer)| (call, answer.err().map(|error| error.to_string()))).collect()
    }

    #[test]
    fn one_request_is_in_flight_and_later_calls_win() {
        let (mut commits, now) = commits();
        let all = owned(0..9);
        assert_eq!(commits.wake_at(), None);
        let first = commits.call(offsets(&[(0, 5)]), now + 30 * SECOND);
        assert_eq!(commits.next(&member(1), Some(&all), now), Some(offsets(&[(0, 5)])));
        let second = commits.call(offsets(&[(0, 9), (1, 1)]), now + 31 * SECOND);
        let third = commits.call(offsets(&[(0, 7)]), now + 32 * SECOND);
        assert_eq!(commits.next(&member(1), Some(&all), now), None, "the first is not answered");
        assert_eq!(commits.wake_at(), Some(now + 30 * SECOND));
        commits.answered(Ok(refused(&[])), now);
        assert_eq!(answers(&mut commits), [(first, None)]);
        // The order of calls counts, not the size of offsets.
        assert_eq!(commits.next(&member(1), Some(&all), now), Some(offsets(&[(0, 7), (1, 1)])));
        commits.answered(Ok(refused(&[(1, ErrorCode::OffsetMetadataTooLarge)])), now);
        let told = answers(&mut commits);
        assert_eq!(told[0], (third, None));
        assert_eq!(told[1].0, second);
        assert!(told[1].1.as_ref().unwrap().contains("t-1"), "{told:?}");
        assert_eq!(commits.next(&member(1), Some(&all), now), None);
    }

    #[test]
    fn nothing_to_commit_is_committed_at_once() {
        let (mut commits, now) = commits();
        let call = commits.call(Offsets::new(), now);
        let flush = commits.flush(now);
        assert_eq!(answers(&mut commits), [(call, None), (flush, None)]);
        assert_eq!(commits.next(&member(1), None, now), None);
    }

    #[test]
    fn what_a_member_does_not_own_is_refused_and_the_rest_is_committed() {
        let (mut commits, now) = commits();
        let call = commits.call(offsets(&[(0, 5), (1, 5)]), now + SECOND);
        assert_eq!(commits.next(&member(1), Some(&owned([1])), now), Some(offsets(&[(1, 5)])));
        commits.answered(Ok(refused(&[])), now);
        assert_eq!(answers(&mut commits), [(call, Some("t-0 is not assigned to this consumer".into()))]);
        // While a request hangs, too.
        commits.call(offsets(&[(1, 6)]), now + SECOND);
        assert!(commits.next(&member(1), Some(&owned([1])), now).is_some());
        let foreign = commits.call(offsets(&[(0, 6)]), now + SECOND);
        assert_eq!(commits.next(&member(1), Some(&owned([1])), now), None);
        assert_eq!(answers(&mut commits)[0].0, foreign);
        // By hand anything may be committed.
        commits.answered(Ok(refused(&[])), now);
        commits.call(offsets(&[(0, 6)]), now + SECOND);
        assert_eq!(commits.next(&Standing::default(), None, now), Some(offsets(&[(0, 6)])));
    }

    #[test]
    fn an_unknown_topic_is_answered_at_once_and_the_others_are_committed() {
        let (mut commits, now) = commits();
        let call = commits.call(offsets(&[(0, 5), (1, 5)]), now + 30 * SECOND);
        commits.next(&member(1), None, now).unwrap();
        commits.answered(Ok(refused(&[(0, ErrorCode::UnknownTopicOrPartition)])), now);
        let told = answers(&mut commits);
        assert_eq!((told.len(), told[0].0), (1, call));
        assert!(told[0].1.as_ref().unwrap().contains("UNKNOWN_TOPIC_OR_PARTITION"));
        assert_eq!(commits.next(&member(1), None, now), None, "nothing is tried again");
        assert_eq!(commits.wake_at(), None);
    }

    #[test]
    fn failures_are_tried_again_after_a_pause_until_the_deadline() {
        let (mut commits, now) = commits();
        let call = commits.call(offsets(&[(0, 5), (1, 5)]), now + 30 * SECOND);
        let other = commits.call(offsets(&[(2, 5)]), now + 2 * SECOND);
        assert_eq!(commits.next(&member(1), None, now), Some(offsets(&[(0, 5), (1, 5), (2, 5)])));
        commits.answered(Err(disconnected()), now);
        let again = commits.wake_at().unwrap();
        assert!((now + PAUSE * 8 / 10..=now + PAUSE * 12 / 10).contains(&again));
        assert_eq!(commits.next(&member(1), None, again - Duration::from_millis(1)), None);
        // A newer offset of a partition replaces what is to be sent again.
        let newer = commits.call(offsets(&[(1, 8)]), now + 30 * SECOND);
        assert_eq!(commits.next(&member(1), None, again), Some(offsets(&[(0, 5), (1, 8), (2, 5)])));
        commits.answered(
            Ok(refused(&[(0, ErrorCode::CoordinatorLoadInProgress), (2, ErrorCode::NotCoordinator)])),
            again,
        );
        assert_eq!(answers(&mut commits), [(newer, None)]);
        commits.expire(now + 2 * SECOND - Duration::from_nanos(1));
        assert_eq!(answers(&mut commits), []);
        commits.expire(now + 2 * SECOND);
        let told = answers(&mut commits);
        assert_eq!(told[0].0, other);
        assert!(told[0].1.as_ref().unwrap().contains("COORDINATOR"), "{told:?}");
        // What nobody waits for any more is not sent.
        assert_eq!(commits.next(&member(1), None, now + 2 * SECOND), Some(offsets(&[(0, 5)])));
        commits.answered(Ok(refused(&[])), now);
        assert_eq!(answers(&mut commits), [(call, None)]);
    }

    #[test]
    fn without_an_answer_the_deadline_says_so_and_the_next_commits_go_on() {
        let (mut commits, now) = commits();
        let call = commits.call(offsets(&[(0, 5)]), now + 30 * SECOND);
        commits.next(&member(1), None, now).unwrap();
        commits.expire(now + 30 * SECOND);
        let told = answers(&mut commits);
        assert_eq!(told[0].0, call);
        assert!(told[0].1.as_ref().unwrap().contains("no answer"), "{told:?}");
        commits.answered(Err(disconnected()), now + 30 * SECOND);
        let next = commits.call(offsets(&[(0, 6)]), now + 60 * SECOND);
        let later = now + 31 * SECOND;
        assert_eq!(commits.next(&member(1), None, later), Some(offsets(&[(0, 6)])));
        commits.answered(Ok(refused(&[])), later);
        assert_eq!(answers(&mut commits), [(next, None)]);
    }

    #[test]
    fn a_final_failure_is_told_at_once() {
        let (mut commits, now) = commits();
        let call = commits.call(offsets(&[(0, 5), (1, 5)]), now + 30 * SECOND);
        commits.next(&member(1), None, now).unwrap();
        commits.answered(Err(RequestError::Closed), now);
        assert_eq!(answers(&mut commits), [(call, Some("the client is closed".into()))]);
        assert_eq!(commits.next(&member(1), None, now + 60 * SECOND), None);
    }

    #[test]
    fn a_rebalance_is_waited_for_and_what_moved_is_refused_after_it() {
        for code in [
            ErrorCode::RebalanceInProgress,
            ErrorCode::IllegalGeneration,
            ErrorCode::UnknownMemberId,
            ErrorCode::StaleMemberEpoch,
            ErrorCode::FencedMemberEpoch,
        ] {
            let (mut commits, now) = commits();
            let stays = commits.call(offsets(&[(0, 5)]), now + 30 * SECOND);
            let moves = commits.call(offsets(&[(1, 5)]), now + 30 * SECOND);
            // Of the first generation, too.
            commits.next(&member(0), Some(&owned(0..2)), now).unwrap();
            commits.answered(Ok(refused(&[(0, code), (1, code)])), now);
            let later = now + 4 * SECOND;
            assert_eq!(
                commits.next(&member(0), Some(&owned(0..2)), later),
                None,
                "the same member would fail again"
            );
            assert_eq!(commits.wake_at(), Some(now + STALE_PAUSE));
            assert_eq!(commits.next(&member(2), Some(&owned([0])), later), Some(offsets(&[(0, 5)])));
            commits.answered(Ok(refused(&[])), later);
            let told = answers(&mut commits);
            assert_eq!(told[0], (moves, Some("t-1 is not assigned to this consumer".into())));
            assert_eq!(told[1], (stays, None));
        }
    }

    /// Every commit waited for a rebalance that never came, and failed.
    #[test]
    fn a_coordinator_that_is_wrong_once_is_asked_again() {
        let (mut commits, now) = commits();
        let call = commits.call(offsets(&[(0, 5)]), now + 30 * SECOND);
        let mut at = now;
        for _ in 0..3 {
            assert_eq!(commits.next(&member(1), None, at), Some(offsets(&[(0, 5)])));
            commits.answered(Ok(refused(&[(0, ErrorCode::RebalanceInProgress)])), at);
            at += STALE_PAUSE;
        }
        assert!(commits.next(&member(1), None, at).is_some());
        commits.answered(Ok(refused(&[])), at);
        assert_eq!(answers(&mut commits), [(call, None)]);
    }

    #[test]
    fn inside_revoked_and_outside_a_group_nothing_is_waited_for() {
        let all = owned([0]);
        for (standing, owned) in
            [(Standing { revoking: true, ..member(1) }, Some(&all)), (Standing::default(), None)]
        {
            let (mut commits, now) = commits();
            let call = commits.call(offsets(&[(0, 5)]), now + 30 * SECOND);
            commits.next(&standing, owned, now).unwrap();
            commits.answered(Ok(refused(&[(0, ErrorCode::IllegalGeneration)])), now);
            let told = answers(&mut commits);
            assert_eq!(told[0].0, call);
            assert!(told[0].1.as_ref().unwrap().contains("ILLEGAL_GENERATION"));
        }
    }

    #[test]
    fn a_flush_waits_for_all_that_was_asked_before_it() {
        let (mut commits, now) = commits();
        let first = commits.call(offsets(&[(0, 5)]), now + 30 * SECOND);
        commits.next(&member(1), None, now).unwrap();
        let second = commits.call(offsets(&[(0, 6), (1, 6)]), now + 30 * SECOND);
        let flush = commits.flush(now + 30 * SECOND);
        let third = commits.call(offsets(&[(2, 6)]), now + 30 * SECOND);
        // It fails, and what is sent again waits for the newer offset.
        commits.answered(Err(disconnected()), now);
        assert_eq!(answers(&mut commits), []);
        let later = now + SECOND;
        assert_eq!(commits.next(&member(1), None, later), Some(offsets(&[(0, 6), (1, 6), (2, 6)])));
        commits.answered(Ok(refused(&[(2, ErrorCode::CoordinatorLoadInProgress)])), later);
        let mut told: Vec<u64> = answers(&mut commits).into_iter().map(|(call, _)| call).collect();
        told.sort_unstable();
        assert_eq!(told, [first, second, flush]);
        assert!(third > flush);
    }

    /// While its answer is waited for nothing is known of it, so that the look at what is owned must not count it out.
    #[test]
    fn what_stays_is_sent_again_when_its_request_failed() {
        let (mut commits, now) = commits();
        let call = commits.call(offsets(&[(0, 5)]), now + 30 * SECOND);
        commits.next(&member(1), Some(&owned([0])), now).unwrap();
        assert_eq!(commits.next(&member(1), Some(&owned([0])), now), None);
        commits.answered(Err(disconnected()), now);
        let again = commits.wake_at().unwrap();
        assert_eq!(commits.next(&member(1), Some(&owned([0])), again), Some(offsets(&[(0, 5)])));
        commits.answered(Ok(refused(&[])), again);
        assert_eq!(answers(&mut commits), [(call, None)]);
    }

    /// The end of a pause is no reason to wake when there is nothing left to send.
    #[test]
    fn a_pause_counts_for_what_waits() {
        let (mut commits, now) = commits();
        let call = commits.call(offsets(&[(0, 5)]), now + PAUSE / 2);
        commits.next(&member(1), None, now).unwrap();
        commits.answered(Err(disconnected()), now);
        assert_eq!(commits.wake_at(), Some(now + PAUSE / 2), "the call's deadline is nearer");
        commits.expire(now + PAUSE / 2);
        assert_eq!(answers(&mut commits)[0].0, call);
        assert_eq!(commits.wake_at(), None);
        let next = commits.call(offsets(&[(0, 6)]), now + 30 * SECOND);
        let again = commits.wake_at().unwrap();
        assert!(again < now + SECOND, "the coordinator is left alone for as long: {:?}", again - now);
        assert_eq!(commits.next(&member(1), None, again - Duration::from_nanos(1)), None);
        assert_eq!(commits.next(&member(1), None, again), Some(offsets(&[(0, 6)])));
        commits.answered(Ok(refused(&[])), again);
        assert_eq!(answers(&mut commits), [(next, None)]);
    }

    /// A pause grows with failures in a row, and is short again after a success.
    #[test]
    fn pauses_grow_and_start_afresh() {
        let (mut commits, now) = commits();
        commits.call(offsets(&[(0, 5)]), now + 3_000 * SECOND);
        let mut at = now;
        for _ in 0..8 {
            commits.next(&member(1), None, at).unwrap();
            commits.answered(Err(disconnected()), at);
            let again = commits.wake_at().unwrap();
            assert!(again > at);
            at = again;
        }
        commits.next(&member(1), None, at).unwrap();
        commits.answered(Err(disconnected()), at);
        let long = commits.wake_at().unwrap() - at;
        assert!(long >= 8 * PAUSE, "{long:?}");
        at += long;
        commits.next(&member(1), None, at).unwrap();
        commits.answered(Ok(refused(&[])), at);
        commits.call(offsets(&[(0, 6)]), now + 3_000 * SECOND);
        commits.next(&member(1), None, at).unwrap();
        commits.answered(Err(disconnected()), at);
        let short = commits.wake_at().unwrap() - at;
        assert!(short <= PAUSE * 12 / 10, "{short:?}");
    }

    /// A request is on its way when the partition goes to another member and comes back: what that one committed
    /// counts.
    #[test]
    fn what_moved_away_while_its_commit_was_in_flight_is_not_sent_again() {
        let failures = [
            Err(disconnected()),
            Ok(refused(&[(0, ErrorCode::UnknownMemberId)])),
            Ok(refused(&[(0, ErrorCode::CoordinatorLoadInProgress)])),
        ];
        for failure in failures {
            let (mut commits, now) = commits();
            let call = commits.call(offsets(&[(0, 5)]), now + 30 * SECOND);
            commits.next(&member(1), Some(&owned([0])), now).unwrap();
            assert_eq!(commits.next(&Standing::default(), Some(&owned([])), now), None);
            assert_eq!(commits.next(&member(3), Some(&owned([0])), now), None);
            commits.answered(failure, now);
            assert_eq!(answers(&mut commits), [(call, Some("t-0 is not assigned to this consumer".into()))]);
            assert_eq!(commits.next(&member(3), Some(&owned([0])), now + 10 * SECOND), None);
            // A new call is another matter.
            commits.call(offsets(&[(0, 9)]), now + 30 * SECOND);
            let sent = commits.next(&member(3), Some(&owned([0])), now + 10 * SECOND);
            assert_eq!(sent, Some(offsets(&[(0, 9)])));
        }
        // It was committed all the same.
        let (mut commits, now) = commits();
        let call = commits.call(offsets(&[(0, 5)]), now + 30 * SECOND);
        commits.next(&member(1), Some(&owned([0])), now).unwrap();
        assert_eq!(commits.next(&Standing::default(), Some(&owned([])), now), None);
        commits.answered(Ok(refused(&[])), now);
        assert_eq!(answers(&mut commits), [(call, None)]);
    }

    #[test]
    fn without_a_generation_a_member_owns_nothing_that_it_may_commit() {
        let (mut commits, now) = commits();
        let call = commits.call(offsets(&[(0, 5)]), now + 30 * SECOND);
        assert_eq!(commits.next(&Standing::default(), Some(&owned([0])), now), None);
        assert_eq!(answers(&mut commits), [(call, Some("t-0 is not assigned to this consumer".into()))]);
        commits.call(offsets(&[(0, 6)]), now + 30 * SECOND);
        assert_eq!(commits.next(&member(0), Some(&owned([0])), now), Some(offsets(&[(0, 6)])));
    }

    /// A commit for each of a million records while the coordinator is silent.
    #[test]
    fn commits_that_nobody_waits_for_take_no_room() {
        let (mut commits, now) = commits();
        let all = owned(0..2);
        for offset in 0..1_000 {
            commits.later(offsets(&[(0, offset), (1, 7)]), now + 30 * SECOND);
            if offset == 0 {
                assert_eq!(commits.next(&member(1), Some(&all), now), Some(offsets(&[(0, 0), (1, 7)])));
            }
        }
        let waiting: usize = commits.waiting.values().map(|entry| entry.calls.len()).sum();
        assert!(commits.calls.len() + waiting <= 4, "{} calls, {waiting} waiting", commits.calls.len());
        commits.answered(Ok(refused(&[])), now);
        assert_eq!(commits.next(&member(1), Some(&all), now), Some(offsets(&[(0, 999), (1, 7)])));
        // One that waits too hears of them.
        let flush = commits.flush(now + 30 * SECOND);
        commits.answered(Ok(refused(&[(1, ErrorCode::OffsetMetadataTooLarge)])), now);
        assert_eq!(answers(&mut commits)[0].0, flush);
        // They end with their time, and are tried again before.
        commits.later(offsets(&[(0, 1_000)]), now + 30 * SECOND);
        commits.next(&member(1), Some(&all), now).unwrap();
        commits.answered(Err(disconnected()), now);
        commits.expire(now + 29 * SECOND);
        assert_eq!(commits.next(&member(1), Some(&all), now + 29 * SECOND), Some(offsets(&[(0, 1_000)])));
        commits.answered(Err(disconnected()), now + 29 * SECOND);
        commits.expire(now + 30 * SECOND);
        assert_eq!(commits.next(&member(1), Some(&all), now + 60 * SECOND), None);
    }
}
