//! What is asked of which leader, step by step.

use klamm_protocol::Uuid;
use klamm_protocol::records::TimestampType;

use super::super::locks::Said;
use super::*;
use crate::error::RequestError;
use crate::runtime::SeededRng;
use crate::types::Headers;

pub(super) const LASTS: Duration = Duration::from_secs(30);
const MAX_WAIT: Duration = Duration::from_millis(500);
const LINGER: Duration = Duration::from_millis(100);
const PAUSE: Duration = Duration::from_millis(100);
const TICK: Duration = Duration::from_nanos(1);

pub(super) fn slot(partition: i32) -> Slot {
    Slot { topic_id: Uuid::from_u128(1), partition }
}

fn slots(partitions: &[i32]) -> BTreeSet<Slot> {
    partitions.iter().copied().map(slot).collect()
}

pub(super) fn rules(mode: AcquireMode, seed: u64) -> Rules {
    Rules {
        mode,
        max_wait: MAX_WAIT,
        linger: LINGER,
        backoff: Backoff::new(PAUSE, Duration::from_secs(1)),
        rng: Arc::new(SeededRng::new(seed)),
    }
}

pub(super) fn record(partition: i32, offset: i64) -> ConsumerRecord {
    ConsumerRecord {
        topic: "t".into(),
        partition,
        offset,
        timestamp_ms: 0,
        timestamp_type: TimestampType::CreateTime,
        leader_epoch: None,
        key: None,
        value: None,
        headers: Headers::default(),
    }
}

/// Reads these partitions of `t`, each with its leader.
fn sharing(mode: AcquireMode, leaders: &[(i32, i32)]) -> (Sharing, Instant) {
    let mut sharing = Sharing::new(rules(mode, 1));
    place(&mut sharing, leaders);
    (sharing, Instant::now())
}

fn place(sharing: &mut Sharing, leaders: &[(i32, i32)]) {
    sharing.read(&leaders.iter().map(|(partition, _)| slot(*partition)).collect());
    let leader = |partition| leaders.iter().find(|(known, _)| *known == partition).map(|(_, leader)| *leader);
    sharing.place(|slot| Some(("t".into(), leader(slot.partition))));
}

/// One partition, led by broker 1, and somebody who waits.
fn waiting() -> (Sharing, Instant) {
    let (mut sharing, now) = sharing(AcquireMode::BatchOptimized, &[(0, 1)]);
    sharing.want(true);
    (sharing, now)
}

/// The same with these records handed out.
fn handed(offsets: &[i64]) -> (Sharing, Instant, Vec<Handed>) {
    let (mut sharing, now) = waiting();
    sends(&mut sharing, now);
    sharing.answered(1, Ok(brings(0, offsets)), now);
    let handed = sharing.take(100, now);
    assert_eq!(handed.len(), offsets.len());
    sharing.want(false);
    (sharing, now, handed)
}

fn part(partition: i32) -> Part {
    Part {
        slot: slot(partition),
        code: ErrorCode::None,
        acknowledged: ErrorCode::None,
        records: Vec::new(),
        passed_over: Vec::new(),
        broken: None,
    }
}

fn answer(parts: Vec<Part>) -> Answer {
    Answer { lasts: LASTS, renews: true, parts, ..Answer::default() }
}

fn brings(partition: i32, offsets: &[i64]) -> Answer {
    let records = offsets.iter().map(|&offset| (record(partition, offset), 1)).collect();
    answer(vec![Part { records, ..part(partition) }])
}

fn sends(sharing: &mut Sharing, now: Instant) -> Vec<Send> {
    sharing.send(now).0
}

fn fetch(node: i32, epoch: i32, added: &[i32], forgotten: &[i32]) -> Send {
    let what = What::Fetch { added: slots(added), forgotten: slots(forgotten) };
    Send { node, epoch, what, said: BTreeMap::new() }
}

/// A request that only says what became of records of partition 0.
fn tells(node: i32, epoch: i32, batches: &[(i64, i64, &[i8])]) -> Send {
    Send { node, epoch, what: What::Acknowledge, said: said(batches) }
}

fn said(batches: &[(i64, i64, &[i8])]) -> BTreeMap<Slot, Said> {
    if batches.is_empty() {
        return BTreeMap::new();
    }
    let batch = |&(first_offset, last_offset, kinds): &(i64, i64, &[i8])| {
        klamm_protocol::messages::share_fetch::AcknowledgementBatch {
            first_offset,
            last_offset,
            acknowledge_types: kinds.to_vec(),
            ..Default::default()
        }
    };
    let renews = batches.iter().any(|(_, _, kinds)| kinds.contains(&4));
    [(slot(0), Said { batches: batches.iter().map(batch).collect(), renews })].into()
}

fn accept(sharing: &mut Sharing, handed: &Handed, now: Instant) -> Result<bool, Gone> {
    sharing.decide(handed.node, handed.id, Verdict::Accept, now)
}

/// By partition: how many came to something, how many to nothing.
type Told = Vec<(String, u64, Option<(u64, Loss)>)>;

fn outcomes(sharing: &mut Sharing) -> Told {
    let outcomes = sharing.take_outcomes().into_iter();
    outcomes.map(|(partition, tally)| (partition.to_string(), tally.done, tally.failed)).collect()
}

fn error(sharing: &mut Sharing) -> String {
    sharing.take_error().map(|error| error.to_string()).unwrap_or_default()
}

#[test]
fn records_are_acquired_when_somebody_waits_for_them() {
    let (mut sharing, now) = sharing(AcquireMode::BatchOptimized, &[(0, 1), (1, 2)]);
    assert_eq!(sharing.send(now), (vec![], None), "nobody waits");
    sharing.want(true);
    assert_eq!(sends(&mut sharing, now), [fetch(1, 0, &[0], &[]), fetch(2, 0, &[1], &[])]);
    assert_eq!(sharing.send(now), (vec![], None), "one at a time");
    sharing.answered(1, Ok(brings(0, &[5, 6])), now);
    assert_eq!(sends(&mut sharing, now), [], "there are records to be handed out");
    let taken = sharing.take(1, now);
    assert_eq!(taken.len(), 1);
    assert_eq!((taken[0].node, taken[0].id.offset, taken[0].deliveries), (1, 5, 1));
    assert_eq!(taken[0].record, record(0, 5));
    assert_eq!(sends(&mut sharing, now), []);
    assert_eq!(sharing.take(100, now).len(), 1);
    assert_eq!(sharing.take(100, now), []);
    assert_eq!(sends(&mut sharing, now), [fetch(1, 1, &[], &[])]);
    sharing.want(false);
    sharing.answered(1, Ok(answer(vec![])), now + MAX_WAIT);
    assert_eq!(sends(&mut sharing, now + MAX_WAIT), []);
    assert_eq!(outcomes(&mut sharing), []);
}

#[test]
fn a_limit_on_records_is_kept_by_asking_one_leader_at_a_time() {
    let (mut sharing, now) = sharing(AcquireMode::RecordLimit, &[(0, 1), (1, 2), (2, 3)]);
    sharing.want(true);
    let mut asked = Vec::new();
    for round in 0..6 {
        let sent = sends(&mut sharing, now + round * MAX_WAIT);
        assert_eq!(sent.len(), 1);
        assert_eq!(sends(&mut sharing, now + round * MAX_WAIT), []);
        asked.push(sent[0].node);
        sharing.answered(sent[0].node, Ok(answer(vec![])), now + (round + 1) * MAX_WAIT);
    }
    assert_eq!(asked, [1, 2, 3, 1, 2, 3]);
}

#[test]
fn a_leader_that_is_to_be_left_alone_does_not_hold_up_the_others() {
    let (mut sharing, now) = sharing(AcquireMode::RecordLimit, &[(0, 1), (1, 2)]);
    sharing.want(true);
    assert_eq!(sends(&mut sharing, now), [fetch(1, 0, &[0], &[])]);
    sharing.answered(1, Err(NoAnswer::Unanswered), now);
    assert_eq!(sends(&mut sharing, now), [fetch(2, 0, &[1], &[])]);
}

#[test]
fn what_is_said_goes_with_the_next_fetch() {
    let (mut sharing, now, handed) = handed(&[5, 6, 7]);
    assert_eq!(accept(&mut sharing, &handed[0], now), Ok(true), "the first to be sent");
    assert_eq!(accept(&mut sharing, &handed[1], now + TICK), Ok(false));
    assert_eq!(accept(&mut sharing, &handed[1], now), Err(Gone));
    assert_eq!(sharing.decide(2, handed[2].id, Verdict::Accept, now), Err(Gone), "another leader");
    assert_eq!(sharing.send(now), (vec![], Some(now + LINGER)));
    sharing.want(true);
    assert_eq!(sends(&mut sharing, now), [Send { said: said(&[(5, 6, &[1])]), ..fetch(1, 1, &[], &[]) }]);
    assert!(!sharing.is_settled(1) && sharing.is_settled(0));
    assert_eq!(accept(&mut sharing, &handed[2], now), Ok(true), "what is under way is not to be sent");
    sharing.answered(1, Ok(brings(0, &[])), now + MAX_WAIT);
    assert!(sharing.is_settled(2) && !sharing.is_settled(3));
    assert_eq!(outcomes(&mut sharing), [("t-0".to_owned(), 2, None)]);
    assert_eq!(outcomes(&mut sharing), []);
}

#[test]
fn what_is_said_goes_by_itself_after_a_while() {
    let (mut sharing, now, handed) = handed(&[5]);
    sharing.decide(1, handed[0].id, Verdict::Release, now).unwrap();
    assert_eq!(sharing.send(now + LINGER - TICK), (vec![], Some(now + LINGER)));
    assert_eq!(sends(&mut sharing, now + LINGER), [tells(1, 1, &[(5, 5, &[2])])]);
    assert_eq!(sharing.send(now + 2 * LINGER), (vec![], None));
    sharing.answered(1, Ok(answer(vec![part(0)])), now);
    assert_eq!(outcomes(&mut sharing), [("t-0".to_owned(), 1, None)]);
    assert_eq!(sharing.send(now), (vec![], None));
}

#[test]
fn whoever_waits_for_an_answer_waits_for_no_records() {
    let (mut sharing, now, handed) = handed(&[5, 6]);
    assert_eq!(sharing.flush(), 0);
    assert_eq!(sends(&mut sharing, now), [], "there is nothing to say");
    accept(&mut sharing, &handed[0], now).unwrap();
    let mark = sharing.flush();
    assert_eq!(mark, 1);
    sharing.want(true);
    assert_eq!(sends(&mut sharing, now), [tells(1, 1, &[(5, 5, &[1])])]);
    assert!(!sharing.is_settled(mark));
    sharing.answered(1, Ok(answer(vec![part(0)])), now);
    assert!(sharing.is_settled(mark));
    assert_eq!(sends(&mut sharing, now), [fetch(1, 2, &[], &[])], "and on it goes");
    accept(&mut sharing, &handed[1], now).unwrap();
    sharing.answered(1, Ok(answer(vec![])), now + MAX_WAIT);
    sharing.want(false);
    assert_eq!(sends(&mut sharing, now), [], "the flush is over");
}

#[test]
fn a_flush_during_a_fetch_follows_it() {
    let (mut sharing, now, handed) = handed(&[5]);
    sharing.want(true);
    assert_eq!(sends(&mut sharing, now), [fetch(1, 1, &[], &[])]);
    accept(&mut sharing, &handed[0], now).unwrap();
    sharing.flush();
    assert_eq!(sharing.send(now), (vec![], None), "one request at a time");
    sharing.answered(1, Ok(answer(vec![])), now + MAX_WAIT);
    assert_eq!(sends(&mut sharing, now + MAX_WAIT), [tells(1, 2, &[(5, 5, &[1])])]);
}

#[test]
fn what_a_fetch_cannot_say_is_said_before_it() {
    let (mut sharing, now, handed) = handed(&[5]);
    accept(&mut sharing, &handed[0], now).unwrap();
    // The partition is not read any more, another one is.
    place(&mut sharing, &[(1, 1)]);
    sharing.want(true);
    assert_eq!(sends(&mut sharing, now), [tells(1, 1, &[(5, 5, &[1])])]);
    sharing.answered(1, Ok(answer(vec![part(0)])), now);
    assert_eq!(sends(&mut sharing, now), [fetch(1, 2, &[1], &[0])]);
}

#[test]
fn a_lock_is_prolonged_at_once() {
    let (mut sharing, now, handed) = handed(&[5]);
    let id = handed[0].id;
    assert!(sharing.can_renew(1) && !sharing.can_renew(2));
    assert_eq!(sharing.renew(2, id, now), Err(Gone));
    assert_eq!(sharing.is_renewing(2, id, now), Err(Gone));
    sharing.renew(1, id, now).unwrap();
    assert_eq!(sharing.is_renewing(1, id, now), Ok(true));
    sharing.want(true);
    assert_eq!(sends(&mut sharing, now), [tells(1, 1, &[(5, 5, &[4])])]);
    let late = now + LASTS - TICK;
    sharing.answered(1, Ok(answer(vec![part(0)])), late);
    assert_eq!(sharing.is_renewing(1, id, late), Ok(false));
    assert_eq!(outcomes(&mut sharing), [], "nothing was said of it");
    assert_eq!(accept(&mut sharing, &handed[0], late + LASTS - TICK), Ok(true));
    let old = Answer { renews: false, ..answer(vec![]) };
    assert_eq!(sends(&mut sharing, late), [Send { said: said(&[(5, 5, &[1])]), ..fetch(1, 2, &[], &[]) }]);
    sharing.answered(1, Ok(old), late);
    assert!(!sharing.can_renew(1));
}

#[test]
fn locks_that_ran_out_are_told_and_not_handed_out() {
    let (mut sharing, now) = waiting();
    sends(&mut sharing, now);
    sharing.answered(1, Ok(brings(0, &[5, 6])), now);
    let taken = sharing.take(1, now);
    assert_eq!(accept(&mut sharing, &taken[0], now + LASTS - TICK), Ok(true));
    assert_eq!(sharing.take(9, now + LASTS), [], "somebody else has it");
    sharing.want(false);
    assert_eq!(sharing.send(now + LASTS), (vec![], None));
    assert_eq!(outcomes(&mut sharing), [("t-0".to_owned(), 0, Some((1, Loss::RanOut)))]);
    assert!(sharing.is_settled(u64::MAX));
}

/// It came again before what was said of it could be sent: that is about a lock that is not any more.
#[test]
fn what_is_said_of_an_earlier_lock_comes_to_nothing() {
    let (mut sharing, now, handed) = handed(&[5]);
    sharing.want(true);
    sends(&mut sharing, now);
    accept(&mut sharing, &handed[0], now).unwrap();
    sharing.answered(1, Ok(brings(0, &[5])), now);
    assert_eq!(outcomes(&mut sharing), [("t-0".to_owned(), 0, Some((1, Loss::RanOut)))]);
    let again = sharing.take(9, now);
    sharing.want(false);
    assert_eq!(sharing.send(now), (vec![], None), "there is nothing to be sent any more");
    assert_eq!(accept(&mut sharing, &handed[0], now), Err(Gone));
    assert_eq!(accept(&mut sharing, &again[0], now), Ok(true), "the first to be sent");
    assert_eq!(sharing.send(now), (vec![], Some(now + LINGER)));
}

/// With what ran out unsent goes the hurry with which it was to be sent: what is said next is the first again, of which
/// the task is told, and waits for company.
#[test]
fn what_ran_out_is_not_due_any_more() {
    for flushes in [false, true] {
        let (mut sharing, now, first) = handed(&[5]);
        sharing.want(true);
        sends(&mut sharing, now);
        sharing.answered(1, Ok(brings(0, &[6])), now + MAX_WAIT);
        let second = sharing.take(9, now + MAX_WAIT);
        sharing.want(false);
        assert_eq!(accept(&mut sharing, &first[0], now + MAX_WAIT), Ok(true));
        if flushes {
            sharing.flush();
        }
        let late = now + LASTS;
        assert_eq!(sharing.send(late), (vec![], None));
        assert_eq!(outcomes(&mut sharing), [("t-0".to_owned(), 0, Some((1, Loss::RanOut)))]);
        assert_eq!(accept(&mut sharing, &second[0], late), Ok(true), "flushed: {flushes}");
        assert_eq!(sharing.send(late), (vec![], Some(late + LINGER)), "flushed: {flushes}");
    }
}

#[test]
fn what_was_acquired_without_records_is_said_at_once() {
    let (mut sharing, now) = waiting();
    sends(&mut sharing, now);
    let passed_over = vec![(4, 6, Verdict::Gap)];
    let records = vec![(record(0, 3), 7)];
    sharing.answered(1, Ok(answer(vec![Part { passed_over, records, ..part(0) }])), now);
    assert_eq!(sends(&mut sharing, now), [tells(1, 1, &[(4, 6, &[0])])]);
    sharing.answered(1, Ok(answer(vec![part(0)])), now);
    assert_eq!((outcomes(&mut sharing), sharing.send(now)), (vec![], (vec![], None)));
    assert_eq!(sharing.take(9, now)[0].deliveries, 7);
}

#[test]
fn an_answer_that_says_nothing_of_what_was_said_is_none() {
    let (mut sharing, now, handed) = handed(&[5]);
    accept(&mut sharing, &handed[0], now).unwrap();
    sharing.flush();
    sends(&mut sharing, now);
    sharing.answered(1, Ok(answer(vec![part(1)])), now);
    assert_eq!(outcomes(&mut sharing), [("t-0".to_owned(), 0, Some((1, Loss::Unanswered)))]);
}

#[test]
fn what_nobody_asked_for_is_ignored() {
    let (mut sharing, now) = waiting();
    sharing.answered(1, Ok(brings(0, &[1])), now);
    sharing.answered(9, Ok(brings(0, &[1])), now);
    sends(&mut sharing, now);
    let refused = Part { code: ErrorCode::TopicAuthorizationFailed, ..part(8) };
    let mut both = brings(7, &[1]);
    both.parts.push(refused);
    both.parts.push(Part { passed_over: vec![(1, 2, Verdict::Gap)], ..part(9) });
    sharing.answered(1, Ok(both), now);
    assert_eq!((sharing.take(9, now), error(&mut sharing)), (vec![], String::new()));
    sharing.want(false);
    assert_eq!(sends(&mut sharing, now + LINGER), []);
    // An acknowledgement's answer brings no records.
    let (mut sharing, now, handed) = handed(&[5]);
    accept(&mut sharing, &handed[0], now).unwrap();
    sharing.flush();
    sends(&mut sharing, now);
    sharing.answered(1, Ok(brings(0, &[6])), now);
    assert_eq!(sharing.take(9, now), []);
}

#[test]
fn acknowledgements_that_are_refused_are_told() {
    let (mut sharing, now, handed) = handed(&[5, 6]);
    accept(&mut sharing, &handed[0], now).unwrap();
    sharing.want(true);
    sends(&mut sharing, now);
    let refused = Part { acknowledged: ErrorCode::InvalidRecordState, ..part(0) };
    sharing.answered(1, Ok(answer(vec![refused])), now + MAX_WAIT);
    let loss = Loss::Refused(ErrorCode::InvalidRecordState);
    assert_eq!(outcomes(&mut sharing), [("t-0".to_owned(), 0, Some((1, loss)))]);
    assert_eq!(accept(&mut sharing, &handed[1], now), Ok(true), "the other is locked still");
}

#[test]
fn what_is_to_be_said_again_is_said_at_once() {
    let (mut sharing, now, handed) = handed(&[5, 6]);
    for handed in &handed {
        accept(&mut sharing, handed, now).unwrap();
    }
    sharing.flush();
    assert_eq!(sends(&mut sharing, now), [tells(1, 1, &[(5, 6, &[1])])]);
    let refused = || Part { acknowledged: ErrorCode::InvalidRecordState, ..part(0) };
    sharing.answered(1, Ok(answer(vec![refused()])), now);
    assert_eq!(sends(&mut sharing, now), [tells(1, 2, &[(5, 5, &[1])])]);
    sharing.answered(1, Ok(answer(vec![part(0)])), now);
    assert_eq!(sends(&mut sharing, now), [tells(1, 3, &[(6, 6, &[1])])]);
    sharing.answered(1, Ok(answer(vec![refused()])), now);
    let loss = Loss::Refused(ErrorCode::InvalidRecordState);
    assert_eq!(outcomes(&mut sharing), [("t-0".to_owned(), 1, Some((1, loss)))]);
}

#[test]
fn a_lost_session_loses_its_locks_and_begins_anew_after_a_pause() {
    for (why, loss) in [(NoAnswer::Unsent, Loss::SessionEnded), (NoAnswer::Unanswered, Loss::Unanswered)] {
        let (mut sharing, now, handed) = handed(&[5, 6, 7]);
        accept(&mut sharing, &handed[0], now).unwrap();
        sharing.want(true);
        sends(&mut sharing, now);
        accept(&mut sharing, &handed[1], now).unwrap();
        sharing.stale = false;
        sharing.answered(1, Err(why), now);
        assert!(sharing.stale, "it may lead no more");
        assert_eq!(outcomes(&mut sharing), [("t-0".to_owned(), 0, Some((2, loss)))]);
        assert_eq!(accept(&mut sharing, &handed[2], now), Err(Gone));
        let (none, wake_at) = sharing.send(now);
        let again = wake_at.unwrap();
        assert!(none.is_empty() && again >= now + PAUSE * 8 / 10 && again <= now + PAUSE * 12 / 10);
        assert_eq!(sends(&mut sharing, again - TICK), []);
        assert_eq!(sends(&mut sharing, again), [fetch(1, 0, &[0], &[])]);
    }
}

#[test]
fn pauses_grow_until_something_succeeds() {
    let (mut sharing, mut now) = waiting();
    for nominal in [1, 2, 4, 1, 2] {
        sends(&mut sharing, now);
        sharing.answered(1, Err(NoAnswer::Unsent), now);
        let at = sharing.send(now).1.unwrap();
        assert!(at - now >= PAUSE * nominal * 8 / 10 && at - now <= PAUSE * nominal * 12 / 10);
        now = at;
        if nominal == 4 {
            sends(&mut sharing, now);
            now += MAX_WAIT;
            sharing.answered(1, Ok(answer(vec![])), now);
        }
    }
}

#[test]
fn records_that_wait_are_lost_with_their_session() {
    let (mut sharing, now) = sharing(AcquireMode::BatchOptimized, &[(0, 1), (1, 2)]);
    sharing.want(true);
    sends(&mut sharing, now);
    sharing.answered(1, Ok(brings(0, &[5])), now);
    sharing.answered(2, Ok(brings(1, &[6])), now);
    sharing.take(2, now);
    sends(&mut sharing, now);
    sharing.answered(1, Ok(brings(0, &[7])), now);
    sharing.answered(2, Err(NoAnswer::Unsent), now);
    let left: Vec<_> = sharing.take(9, now).iter().map(|handed| handed.record.offset).collect();
    assert_eq!(left, [7]);
}

#[test]
fn a_session_that_the_leader_does_not_know_begins_anew() {
    for code in [ErrorCode::ShareSessionNotFound, ErrorCode::InvalidShareSessionEpoch] {
        let (mut sharing, now, handed) = handed(&[5, 6]);
        accept(&mut sharing, &handed[0], now).unwrap();
        sharing.want(true);
        sends(&mut sharing, now);
        sharing.stale = false;
        sharing.answered(1, Ok(Answer { code: Some(code), ..Answer::default() }), now);
        assert_eq!(outcomes(&mut sharing), [("t-0".to_owned(), 0, Some((1, Loss::Refused(code))))]);
        assert_eq!(accept(&mut sharing, &handed[1], now), Err(Gone));
        assert_eq!((error(&mut sharing), sharing.stale), (String::new(), true));
        let again = sharing.send(now).1.unwrap();
        assert_eq!(sends(&mut sharing, again), [fetch(1, 0, &[0], &[])]);
    }
}

#[test]
fn a_refusal_for_good_is_told() {
    let (mut sharing, now) = waiting();
    sends(&mut sharing, now);
    let answer = |code| Ok(Answer { code: Some(code), ..Answer::default() });
    sharing.stale = false;
    sharing.answered(1, answer(ErrorCode::InvalidRequest), now);
    assert_eq!(error(&mut sharing), "broker 1 answered INVALID_REQUEST");
    assert!(!sharing.is_finished() && !sharing.stale);
    let again = sharing.send(now).1.unwrap();
    sends(&mut sharing, again);
    sharing.answered(1, answer(ErrorCode::GroupAuthorizationFailed), again);
    assert!(sharing.is_finished());
    assert!(sharing.take_error().unwrap().is_fatal());
    assert_eq!(sends(&mut sharing, again + LASTS), [], "nothing more is acquired");
}

#[test]
fn a_partition_that_fails_is_left_alone_for_a_while() {
    let (mut sharing, now) = sharing(AcquireMode::BatchOptimized, &[(0, 1), (1, 1)]);
    sharing.want(true);
    assert_eq!(sends(&mut sharing, now), [fetch(1, 0, &[0, 1], &[])]);
    sharing.stale = false;
    let moved = Part { code: ErrorCode::NotLeaderOrFollower, ..part(0) };
    sharing.answered(1, Ok(answer(vec![moved])), now);
    assert!(sharing.stale);
    assert_eq!(error(&mut sharing), "");
    let (sent, wake_at) = sharing.send(now);
    assert_eq!(sent, [fetch(1, 1, &[], &[0])]);
    let again = wake_at.unwrap();
    assert!(again >= now + PAUSE * 8 / 10 && again <= now + PAUSE * 12 / 10);
    assert!(again < now + MAX_WAIT);
    sharing.answered(1, Ok(answer(vec![])), now + MAX_WAIT);
    assert_eq!(sends(&mut sharing, again), [fetch(1, 2, &[0], &[])]);
    let forbidden = Part { code: ErrorCode::TopicAuthorizationFailed, ..part(1) };
    sharing.answered(1, Ok(answer(vec![forbidden])), now + 2 * MAX_WAIT);
    assert_eq!(error(&mut sharing), "t-1: the broker answered TOPIC_AUTHORIZATION_FAILED");
    assert!(!sharing.is_finished());
}

#[test]
fn what_cannot_be_read_is_told() {
    let (mut sharing, now) = waiting();
    sends(&mut sharing, now);
    sharing.answered(1, Ok(answer(vec![Part { broken: Some(ShareError::Closed), ..part(0) }])), now);
    assert_eq!(error(&mut sharing), ShareError::Closed.to_string());
}

#[test]
fn a_partition_goes_to_its_new_leader_and_the_old_session_ends() {
    let (mut sharing, now, handed) = handed(&[5]);
    place(&mut sharing, &[(0, 2)]);
    sharing.want(true);
    assert_eq!(sends(&mut sharing, now), [fetch(2, 0, &[0], &[])], "of the old leader something is locked");
    accept(&mut sharing, &handed[0], now).unwrap();
    assert_eq!(sends(&mut sharing, now + LINGER), [tells(1, 1, &[(5, 5, &[1])])]);
    sharing.answered(1, Ok(answer(vec![part(0)])), now);
    assert_eq!(sends(&mut sharing, now), [tells(1, -1, &[])]);
    sharing.answered(1, Ok(answer(vec![])), now);
    assert_eq!(outcomes(&mut sharing), [("t-0".to_owned(), 1, None)]);
    assert_eq!(sends(&mut sharing, now), []);
    assert_eq!(sharing.leaders.keys().copied().collect::<Vec<_>>(), [2]);
    place(&mut sharing, &[(0, 1)]);
    assert_eq!(sends(&mut sharing, now), [fetch(1, 0, &[0], &[])], "a session of its own");
}

#[test]
fn leaders_that_nobody_knows_are_asked_for() {
    let (mut sharing, now) = waiting();
    assert!(!sharing.stale);
    sharing.place(|_| Some(("t".into(), None)));
    assert!(sharing.stale);
    assert_eq!(sends(&mut sharing, now), []);
    assert_eq!(sharing.assignment(), [TopicPartition::new("t", 0)]);
    sharing.stale = false;
    sharing.read(&slots(&[0, 1]));
    assert_eq!(sharing.assignment(), [TopicPartition::new("t", 0)], "the other has no name yet");
    sharing.place(|slot| (slot.partition == 1).then(|| ("t".into(), Some(1))));
    assert!(sharing.stale);
    assert_eq!(sends(&mut sharing, now), [fetch(1, 0, &[1], &[])]);
    sharing.read(&slots(&[]));
    assert_eq!(sharing.assignment(), []);
    assert_eq!(sharing.named(slot(5)).to_string(), "t-5");
    let unknown = Slot { topic_id: Uuid::from_u128(9), partition: 2 };
    assert_eq!(sharing.named(unknown).to_string(), format!("{}-2", unknown.topic_id));
}

#[test]
fn a_quota_is_heeded() {
    for (throttle, pause) in [(LINGER, LINGER), (Duration::MAX, LONGEST_THROTTLE)] {
        let (mut sharing, now) = waiting();
        sends(&mut sharing, now);
        let answered = now + MAX_WAIT;
        sharing.answered(1, Ok(Answer { throttle, ..answer(vec![]) }), answered);
        assert_eq!(sharing.send(answered), (vec![], Some(answered + pause)));
        assert_eq!(sends(&mut sharing, answered + pause).len(), 1);
    }
}

#[test]
fn a_broker_that_does_not_hold_fetches_is_not_asked_as_fast_as_it_answers() {
    let (mut sharing, mut now) = waiting();
    let mut pauses = Vec::new();
    for _ in 0..7 {
        sends(&mut sharing, now);
        sharing.answered(1, Ok(answer(vec![])), now);
        let at = sharing.send(now).1.unwrap();
        pauses.push((at - now).as_millis());
        now = at;
    }
    assert_eq!(pauses, [5, 10, 20, 40, 80, 100, 100]);
    for (wait, parts, pause) in [
        (MAX_WAIT / 2 - TICK, vec![], Some(LONGEST_CALM)),
        (MAX_WAIT / 2, vec![], None),
        (Duration::ZERO, vec![Part { records: vec![(record(0, 1), 1)], ..part(0) }], None),
        (Duration::ZERO, vec![], Some(FIRST_CALM)),
    ] {
        sends(&mut sharing, now);
        now += wait;
        sharing.answered(1, Ok(answer(parts)), now);
        sharing.take(9, now);
        let (sent, wake_at) = sharing.send(now);
        assert_eq!((sent.is_empty(), wake_at.map(|at| at - now)), (pause.is_some(), pause));
        if !sent.is_empty() {
            sharing.answered(1, Ok(answer(vec![])), now + MAX_WAIT);
        }
        now += MAX_WAIT;
    }
}

#[test]
fn a_quota_beyond_the_calm_counts() {
    let (mut sharing, now) = waiting();
    sends(&mut sharing, now);
    sharing.answered(1, Ok(Answer { throttle: LASTS, ..answer(vec![]) }), now);
    assert_eq!(sharing.send(now), (vec![], Some(now + LASTS)));
}

#[test]
fn closing_says_what_is_to_be_said_and_ends_all_sessions() {
    let (mut sharing, now, handed) = handed(&[5, 6]);
    accept(&mut sharing, &handed[0], now).unwrap();
    assert!(!sharing.is_closing() && !sharing.is_closed());
    sharing.close();
    assert!(sharing.is_closing() && sharing.is_finished() && !sharing.is_closed());
    sharing.want(true);
    assert_eq!(sends(&mut sharing, now), [tells(1, -1, &[(5, 5, &[1])])]);
    assert!(!sharing.is_closed());
    sharing.answered(1, Ok(answer(vec![part(0)])), now);
    assert!(sharing.is_closed());
    assert_eq!(outcomes(&mut sharing), [("t-0".to_owned(), 1, None)]);
    assert_eq!(accept(&mut sharing, &handed[1], now), Err(Gone));
    assert_eq!(sharing.send(now), (vec![], None));
}

#[test]
fn closing_waits_for_what_is_under_way() {
    let (mut sharing, now) = sharing(AcquireMode::BatchOptimized, &[(0, 1), (1, 2)]);
    sharing.want(true);
    sends(&mut sharing, now);
    sharing.close();
    assert_eq!(sends(&mut sharing, now), []);
    sharing.answered(1, Ok(brings(0, &[5])), now);
    assert_eq!(sends(&mut sharing, now), [tells(1, -1, &[])], "the session ends and the lock with it");
    sharing.answered(2, Err(NoAnswer::Unanswered), now);
    assert!(!sharing.is_closed());
    sharing.answered(1, Err(NoAnswer::Unsent), now);
    assert!(sharing.is_closed());
    assert_eq!(outcomes(&mut sharing), []);
}

#[test]
fn closing_does_not_wait_out_pauses() {
    let (mut sharing, now) = waiting();
    sends(&mut sharing, now);
    sharing.answered(1, Ok(Answer { throttle: LASTS, ..answer(vec![]) }), now);
    sharing.close();
    assert_eq!(sends(&mut sharing, now), [tells(1, -1, &[])]);
    let (mut unasked, now) = self::sharing(AcquireMode::BatchOptimized, &[(0, 1)]);
    unasked.close();
    assert!(unasked.is_closed(), "nobody was asked");
    assert_eq!(unasked.send(now), (vec![], None));
}

#[test]
fn acknowledgements_of_a_last_request_that_is_not_answered_are_told() {
    let (mut sharing, now, handed) = handed(&[5]);
    accept(&mut sharing, &handed[0], now).unwrap();
    sharing.close();
    sends(&mut sharing, now);
    sharing.answered(1, Ok(answer(vec![])), now);
    assert_eq!(outcomes(&mut sharing), [("t-0".to_owned(), 0, Some((1, Loss::Unanswered)))]);
    assert!(sharing.is_closed());
}

#[test]
fn whoever_is_abandoned_holds_nothing() {
    let (mut sharing, now, handed) = handed(&[5, 6]);
    accept(&mut sharing, &handed[0], now).unwrap();
    sharing.abandon();
    assert!(sharing.is_closed() && sharing.is_finished() && sharing.is_settled(u64::MAX));
    assert_eq!(accept(&mut sharing, &handed[1], now), Err(Gone));
    assert_eq!(outcomes(&mut sharing), [("t-0".to_owned(), 0, Some((1, Loss::SessionEnded)))]);
}

#[test]
fn errors_do_not_pile_up_without_bounds() {
    let (mut sharing, _) = waiting();
    for node in 0..1_000 {
        sharing.report(RequestError::UnknownNode { node }.into());
    }
    let told = std::iter::from_fn(|| sharing.take_error()).count();
    assert_eq!((told, sharing.is_finished()), (MOST_ERRORS, false));
    sharing.report(ShareError::Closed);
    assert!(sharing.is_finished());
}

/// After a refusal acknowledgements go in portions. Closing must not give up those beyond the first portion.
#[test]
fn closing_says_everything_that_goes_in_portions() {
    let (mut sharing, now, handed) = handed(&[5, 6, 7, 8]);
    for handed in &handed {
        accept(&mut sharing, handed, now).unwrap();
    }
    sharing.flush();
    assert_eq!(sends(&mut sharing, now), [tells(1, 1, &[(5, 8, &[1])])]);
    sharing.close();
    let refused = Part { acknowledged: ErrorCode::InvalidRecordState, ..part(0) };
    sharing.answered(1, Ok(answer(vec![refused])), now);
    assert_eq!(sends(&mut sharing, now), [tells(1, 2, &[(5, 6, &[1])])]);
    sharing.answered(1, Ok(answer(vec![part(0)])), now);
    assert_eq!(sends(&mut sharing, now), [tells(1, 3, &[(7, 8, &[1])])]);
    sharing.answered(1, Ok(answer(vec![part(0)])), now);
    assert_eq!(sends(&mut sharing, now), [tells(1, -1, &[])], "nothing is left to say");
    sharing.answered(1, Ok(answer(vec![])), now);
    assert!(sharing.is_closed());
    assert_eq!(outcomes(&mut sharing), [("t-0".to_owned(), 4, None)]);
}

#[test]
fn a_refusal_does_not_shorten_what_a_quota_asks_for() {
    let (mut sharing, now) = waiting();
    sends(&mut sharing, now);
    let code = Some(ErrorCode::ShareSessionLimitReached);
    sharing.answered(1, Ok(Answer { throttle: LASTS, code, ..answer(vec![]) }), now);
    assert_eq!(sharing.send(now), (vec![], Some(now + LASTS)));
}

/// Else nothing would hold up a broker that says so: it locks, and nothing is ever handed out.
#[test]
fn records_whose_locks_do_not_last_are_not_asked_for_as_fast_as_they_come() {
    let (mut sharing, now) = waiting();
    sends(&mut sharing, now);
    sharing.answered(1, Ok(Answer { lasts: Duration::ZERO, ..brings(0, &[5]) }), now);
    assert_eq!(sharing.take(9, now), []);
    assert_eq!(sharing.send(now), (vec![], Some(now + FIRST_CALM)));
}

#[test]
fn a_verdict_after_one_that_was_never_sent_wakes_whoever_sends_it() {
    let (mut sharing, now, handed) = handed(&[5, 6]);
    sharing.renew(1, handed[1].id, now).unwrap();
    sends(&mut sharing, now);
    sharing.answered(1, Ok(Answer { lasts: 3 * LASTS, ..answer(vec![part(0)]) }), now);
    let late = now + LASTS - TICK;
    assert_eq!(accept(&mut sharing, &handed[0], late), Ok(true));
    assert_eq!(sharing.send(now + LASTS), (vec![], None), "its lock ran out");
    assert_eq!(accept(&mut sharing, &handed[1], now + LASTS), Ok(true), "there was nothing to be sent");
}
