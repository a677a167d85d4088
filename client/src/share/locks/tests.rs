//! The locks of one leader: what is sent, what answers change, what runs out.

use klamm_protocol::Uuid;

use super::*;

const LASTS: Duration = Duration::from_secs(30);
const TICK: Duration = Duration::from_nanos(1);
const STALE: Loss = Loss::Refused(ErrorCode::InvalidRecordState);
const MOVED: Loss = Loss::Refused(ErrorCode::NotLeaderOrFollower);

fn slot(partition: i32) -> Slot {
    Slot { topic_id: Uuid::from_u128(1), partition }
}

fn id(partition: i32, offset: i64) -> LockId {
    LockId { slot: slot(partition), offset, number: 100 + offset as u64 }
}

/// Locks on these offsets of partition 0.
fn locks(offsets: impl IntoIterator<Item = i64>) -> (Locks, Instant) {
    let (mut locks, now) = (Locks::default(), Instant::now());
    for offset in offsets {
        assert_eq!(locks.acquire(id(0, offset), now + LASTS), Tally::default());
    }
    (locks, now)
}

/// What is said, by partition: first offset, last offset, kinds; and whether locks are renewed.
type Taken = Vec<(i32, Vec<(i64, i64, Vec<i8>)>, bool)>;

fn take(locks: &mut Locks) -> Taken {
    let said = locks.take().into_iter().map(|(slot, said)| {
        let batches = said.batches.into_iter();
        let batches = batches.map(|batch| (batch.first_offset, batch.last_offset, batch.acknowledge_types));
        (slot.partition, batches.collect(), said.renews)
    });
    said.collect()
}

fn done(done: u64) -> Tally {
    Tally { done, failed: None }
}

fn failed(count: u64, loss: Loss) -> Tally {
    Tally { done: 0, failed: Some((count, loss)) }
}

#[test]
fn a_lock_is_decided_once_and_only_by_whom_it_is_held_for() {
    let (mut locks, now) = locks([5]);
    assert!(locks.is_held(id(0, 5), now));
    assert_eq!(locks.decide(id(0, 6), Verdict::Accept, 0, now), Err(Gone));
    assert_eq!(locks.decide(id(1, 5), Verdict::Accept, 0, now), Err(Gone));
    let other = LockId { number: 9, ..id(0, 5) };
    assert_eq!(locks.decide(other, Verdict::Accept, 0, now), Err(Gone), "an earlier lock");
    assert!(!locks.has_pending());
    assert_eq!(locks.decide(id(0, 5), Verdict::Accept, 0, now + LASTS - TICK), Ok(()));
    assert!(locks.has_pending() && !locks.is_held(id(0, 5), now));
    assert_eq!(locks.decide(id(0, 5), Verdict::Reject, 1, now), Err(Gone), "it is decided");
    assert_eq!(locks.renew(id(0, 5), now), Err(Gone));
    assert_eq!(take(&mut locks), [(0, vec![(5, 5, vec![1])], false)]);
    assert!(!locks.has_pending() && !locks.is_empty());
    assert_eq!(take(&mut locks), []);
    assert_eq!(locks.decide(id(0, 5), Verdict::Reject, 1, now), Err(Gone), "it is sent");
    assert_eq!(locks.answered(slot(0), Ok(()), LASTS, now), done(1));
    assert!(locks.is_empty());
    assert_eq!(locks.answered(slot(0), Ok(()), LASTS, now), done(0));
    assert_eq!(locks.answered(slot(7), Ok(()), LASTS, now), done(0), "no such partition");
}

#[test]
fn a_record_that_is_locked_again_has_another_lock() {
    let (mut locks, now) = locks([5]);
    let again = |number| LockId { number, ..id(0, 5) };
    assert_eq!(locks.acquire(again(1), now + LASTS), done(0), "nothing was said of it");
    assert_eq!(locks.decide(id(0, 5), Verdict::Accept, 0, now), Err(Gone));
    locks.decide(again(1), Verdict::Accept, 0, now).unwrap();
    assert_eq!(locks.acquire(again(2), now + LASTS), failed(1, Loss::RanOut));
    assert!(locks.is_held(again(2), now) && !locks.has_pending());
}

#[test]
fn consecutive_offsets_are_said_together() {
    let (mut locks, now) = locks([1, 2, 3, 7, 8, 10]);
    locks.acquire(id(1, 0), now + LASTS);
    let verdicts = [
        (1, Verdict::Accept),
        (2, Verdict::Accept),
        (3, Verdict::Accept),
        (7, Verdict::Release),
        (8, Verdict::Reject),
    ];
    for (offset, verdict) in verdicts {
        locks.decide(id(0, offset), verdict, 0, now).unwrap();
    }
    locks.decide(id(1, 0), Verdict::Reject, 0, now).unwrap();
    locks.pass_over(slot(0), vec![(4, 6, Verdict::Gap), (20, 30, Verdict::Release)]);
    let expected = vec![(1, 3, vec![1]), (4, 6, vec![0]), (7, 8, vec![2, 3]), (20, 30, vec![2])];
    assert_eq!(take(&mut locks), [(0, expected, false), (1, vec![(0, 0, vec![3])], false)]);
    assert_eq!(locks.answered(slot(0), Ok(()), LASTS, now), done(5));
    assert!(locks.is_held(id(0, 10), now), "nothing was said of it");
    assert_eq!(locks.answered(slot(1), Err(MOVED), LASTS, now), failed(1, MOVED));
}

#[test]
fn the_last_offset_there_is_has_no_next() {
    let (mut locks, now) = locks([]);
    let last = |offset| LockId { slot: slot(0), offset, number: 1 };
    for offset in [0, i64::MAX - 1, i64::MAX] {
        locks.acquire(last(offset), now + LASTS);
        locks.decide(last(offset), Verdict::Accept, 0, now).unwrap();
    }
    assert_eq!(take(&mut locks), [(0, vec![(0, 0, vec![1]), (i64::MAX - 1, i64::MAX, vec![1])], false)]);
}

#[test]
fn offsets_that_nobody_is_told_of_are_pending_and_locked() {
    let (mut locks, now) = locks([]);
    locks.pass_over(slot(0), Vec::new());
    assert!(locks.is_empty() && !locks.has_pending());
    locks.pass_over(slot(0), vec![(4, 6, Verdict::Gap)]);
    assert!(!locks.is_empty() && locks.has_pending());
    assert!(locks.fits_into_fetch(|_| true));
    assert_eq!(take(&mut locks), [(0, vec![(4, 6, vec![0])], false)]);
    assert!(locks.is_empty());
    assert_eq!(locks.answered(slot(0), Err(STALE), LASTS, now), done(0), "nobody waits for them");
    assert_eq!(take(&mut locks), []);
}

#[test]
fn locks_run_out() {
    let (mut locks, now) = locks([1, 2, 3]);
    locks.acquire(id(1, 9), now + LASTS);
    locks.acquire(id(2, 9), now + 2 * LASTS);
    locks.decide(id(0, 3), Verdict::Accept, 0, now).unwrap();
    take(&mut locks);
    locks.decide(id(0, 2), Verdict::Accept, 1, now).unwrap();
    assert_eq!(locks.expire(now + LASTS - TICK), []);
    assert!(locks.is_held(id(0, 1), now + LASTS - TICK) && !locks.is_held(id(0, 1), now + LASTS));
    assert_eq!(locks.decide(id(0, 1), Verdict::Accept, 2, now + LASTS), Err(Gone));
    assert_eq!(locks.expire(now + LASTS), [(slot(0), failed(1, Loss::RanOut))]);
    assert_eq!(locks.expire(now + LASTS), []);
    assert!(!locks.is_held(id(0, 1), now), "it is gone, whatever time it is");
    assert!(locks.is_held(id(2, 9), now + LASTS));
    assert_eq!(locks.answered(slot(0), Ok(()), LASTS, now), done(1), "what was under way counts");
}

#[test]
fn a_lock_can_be_prolonged() {
    let (mut locks, now) = locks([1, 2]);
    assert_eq!(locks.is_renewing(id(0, 1), now), Ok(false));
    assert_eq!(locks.is_renewing(id(0, 9), now), Err(Gone));
    assert_eq!(locks.renew(id(0, 1), now), Ok(()));
    assert_eq!(locks.is_renewing(id(0, 1), now), Ok(true));
    assert!(locks.has_pending() && !locks.fits_into_fetch(|_| true));
    locks.decide(id(0, 2), Verdict::Accept, 0, now).unwrap();
    assert_eq!(take(&mut locks), [(0, vec![(1, 2, vec![4, 1])], true)]);
    assert!(!locks.has_pending());
    assert_eq!(locks.renew(id(0, 1), now), Ok(()), "it is under way");
    assert_eq!(take(&mut locks), []);
    let late = now + LASTS;
    assert_eq!(locks.expire(late), [], "the answer may still prolong it");
    assert_eq!(locks.is_renewing(id(0, 1), late), Ok(true));
    assert_eq!(locks.answered(slot(0), Ok(()), LASTS, late), done(1));
    assert_eq!(locks.is_renewing(id(0, 1), late), Ok(false));
    assert!(locks.is_held(id(0, 1), late + LASTS - TICK) && !locks.is_held(id(0, 1), late + LASTS));
    // Once more.
    assert_eq!(locks.renew(id(0, 1), late), Ok(()));
    assert_eq!(take(&mut locks), [(0, vec![(1, 1, vec![4])], true)]);
    assert_eq!(locks.answered(slot(0), Err(STALE), LASTS, late), done(0));
    assert_eq!(locks.is_renewing(id(0, 1), late), Err(Gone), "the leader does not know it");
    assert!(locks.is_empty());
}

#[test]
fn a_record_may_be_done_before_its_renewal_is_answered() {
    let (mut locks, now) = locks([1, 2]);
    locks.renew(id(0, 1), now).unwrap();
    locks.renew(id(0, 2), now).unwrap();
    locks.decide(id(0, 2), Verdict::Accept, 0, now).unwrap();
    assert_eq!(take(&mut locks), [(0, vec![(1, 2, vec![4, 1])], true)], "it needs no more time");
    locks.decide(id(0, 1), Verdict::Release, 1, now).unwrap();
    assert_eq!(locks.answered(slot(0), Ok(()), LASTS, now + LASTS - TICK), done(1));
    assert_eq!(take(&mut locks), [(0, vec![(1, 1, vec![2])], false)]);
    assert_eq!(locks.answered(slot(0), Err(Loss::Unanswered), LASTS, now), failed(1, Loss::Unanswered));
    assert!(locks.is_empty());
}

/// A leader takes all of a partition's acknowledgements or none: one that is too late must not fail the others.
#[test]
fn what_one_stale_lock_fails_is_said_again_in_smaller_portions() {
    let (mut locks, now) = locks(0..8);
    locks.acquire(id(1, 0), now + LASTS);
    (0..8).for_each(|offset| locks.decide(id(0, offset), Verdict::Accept, 0, now).unwrap());
    assert!(locks.fits_into_fetch(|_| true));
    assert_eq!(take(&mut locks), [(0, vec![(0, 7, vec![1])], false)]);
    // Offset 3 is the stale one.
    let mut total = Tally::default();
    let mut asked = Vec::new();
    total.add(locks.answered(slot(0), Err(STALE), LASTS, now));
    while locks.has_pending() {
        assert!(!locks.fits_into_fetch(|_| true), "fetches carry everything");
        let (_, batches, _) = take(&mut locks).remove(0);
        let (first, last) = (batches[0].0, batches.last().unwrap().1);
        asked.push((first, last));
        let result = if (first..=last).contains(&3) { Err(STALE) } else { Ok(()) };
        total.add(locks.answered(slot(0), result, LASTS, now));
    }
    assert_eq!(asked, [(0, 3), (0, 1), (2, 5), (2, 3), (2, 2), (3, 4), (3, 3), (4, 4), (5, 6), (7, 7)]);
    assert_eq!(total, Tally { done: 7, failed: Some((1, STALE)) });
    locks.decide(id(1, 0), Verdict::Accept, 0, now).unwrap();
    assert!(locks.fits_into_fetch(|_| true), "other partitions are not concerned");
}

#[test]
fn portions_grow_again() {
    let (mut locks, now) = locks(0..4);
    (0..4).for_each(|offset| locks.decide(id(0, offset), Verdict::Accept, 0, now).unwrap());
    take(&mut locks);
    assert_eq!(locks.answered(slot(0), Err(STALE), LASTS, now), done(0));
    let mut next = 4;
    let mut sizes = Vec::new();
    loop {
        let (_, batches, _) = take(&mut locks).remove(0);
        let size = batches[0].1 - batches[0].0 + 1;
        sizes.push(size);
        locks.answered(slot(0), Ok(()), LASTS, now);
        for offset in next..next + 2 * size {
            locks.acquire(id(0, offset), now + LASTS);
            locks.decide(id(0, offset), Verdict::Accept, 0, now).unwrap();
        }
        next += 2 * size;
        if locks.fits_into_fetch(|_| true) {
            break;
        }
    }
    assert_eq!(sizes, [2, 4, 8, 16, 32, 64, 128, 256, 512], "from 1,024 on there is no limit");
}

#[test]
fn renewals_are_said_again_too() {
    let (mut locks, now) = locks([1, 2]);
    locks.renew(id(0, 1), now).unwrap();
    locks.renew(id(0, 2), now).unwrap();
    assert_eq!(take(&mut locks), [(0, vec![(1, 2, vec![4])], true)]);
    assert_eq!(locks.answered(slot(0), Err(STALE), LASTS, now), done(0));
    assert_eq!(take(&mut locks), [(0, vec![(1, 1, vec![4])], true)]);
    assert_eq!(locks.answered(slot(0), Ok(()), 2 * LASTS, now), done(0));
    assert_eq!(locks.is_renewing(id(0, 2), now), Ok(true));
    assert!(locks.is_held(id(0, 1), now + 2 * LASTS - TICK));
}

#[test]
fn other_refusals_are_final_for_all_of_them() {
    let (mut locks, now) = locks([1, 2, 3]);
    locks.decide(id(0, 1), Verdict::Accept, 0, now).unwrap();
    locks.decide(id(0, 2), Verdict::Accept, 0, now).unwrap();
    take(&mut locks);
    assert_eq!(locks.answered(slot(0), Err(MOVED), LASTS, now), failed(2, MOVED));
    assert!(locks.is_held(id(0, 3), now) && !locks.has_pending());
}

#[test]
fn a_fetch_can_say_what_is_about_its_partitions() {
    let (mut locks, now) = locks([1]);
    locks.acquire(id(1, 1), now + LASTS);
    assert!(locks.fits_into_fetch(|_| false), "nothing is to be said");
    locks.decide(id(1, 1), Verdict::Accept, 0, now).unwrap();
    assert!(locks.fits_into_fetch(|slot| slot.partition == 1));
    assert!(!locks.fits_into_fetch(|slot| slot.partition == 0));
}

#[test]
fn verdicts_are_settled_in_the_order_of_calls() {
    let (mut locks, now) = locks([1, 2, 3]);
    assert!(!locks.has_unsettled(u64::MAX));
    locks.decide(id(0, 1), Verdict::Accept, 0, now).unwrap();
    locks.decide(id(0, 2), Verdict::Accept, 1, now).unwrap();
    assert!(!locks.has_unsettled(0) && locks.has_unsettled(1) && locks.has_unsettled(2));
    take(&mut locks);
    assert!(!locks.has_unsettled(0) && locks.has_unsettled(1));
    locks.decide(id(0, 3), Verdict::Accept, 2, now).unwrap();
    locks.answered(slot(0), Ok(()), LASTS, now);
    assert!(!locks.has_unsettled(2) && locks.has_unsettled(3));
}

#[test]
fn with_the_session_everything_is_lost() {
    let (mut locks, now) = locks([1, 2, 3, 4]);
    locks.acquire(id(1, 1), now + LASTS);
    locks.pass_over(slot(2), vec![(1, 2, Verdict::Gap)]);
    locks.decide(id(0, 1), Verdict::Accept, 0, now).unwrap();
    locks.renew(id(0, 4), now).unwrap();
    take(&mut locks);
    locks.decide(id(0, 2), Verdict::Accept, 1, now).unwrap();
    let lost = locks.end(Loss::Unanswered);
    assert_eq!(lost, [(slot(0), failed(1, Loss::Unanswered)), (slot(0), failed(1, Loss::SessionEnded))]);
    assert!(locks.is_empty() && !locks.has_pending());
    assert_eq!(locks.is_renewing(id(0, 4), now), Err(Gone));
    assert!(!locks.is_held(id(1, 1), now));
}

#[test]
fn tallies_add_up_and_keep_the_first_reason() {
    let mut tally = Tally::default();
    tally.fail(0, MOVED);
    assert_eq!(tally, done(0));
    tally.add(done(2));
    tally.add(failed(1, MOVED));
    tally.add(Tally { done: 3, failed: Some((2, Loss::RanOut)) });
    assert_eq!(tally, Tally { done: 5, failed: Some((3, MOVED)) });
}

/// Which of them the leader does not take is not known: it may be the offsets of which nobody is told.
#[test]
fn offsets_that_nobody_is_told_of_do_not_fail_a_verdict() {
    let (mut locks, now) = locks([1]);
    locks.pass_over(slot(0), vec![(5, 9, Verdict::Gap)]);
    locks.decide(id(0, 1), Verdict::Accept, 0, now).unwrap();
    assert_eq!(take(&mut locks), [(0, vec![(1, 1, vec![1]), (5, 9, vec![0])], false)]);
    assert_eq!(locks.answered(slot(0), Err(STALE), LASTS, now), done(0));
    assert_eq!(take(&mut locks), [(0, vec![(1, 1, vec![1])], false)], "by itself");
    assert_eq!(locks.answered(slot(0), Err(STALE), LASTS, now), failed(1, STALE));
    locks.pass_over(slot(0), vec![(5, 9, Verdict::Gap)]);
    take(&mut locks);
    assert_eq!(locks.answered(slot(0), Err(STALE), LASTS, now), done(0));
    assert!(!locks.has_pending(), "they are not said again");
}

/// The leader prolonged the lock. That the program is done with the record meanwhile does not shorten it.
#[test]
fn a_verdict_during_a_renewal_has_the_time_that_it_brings() {
    let (mut locks, now) = locks([1]);
    locks.renew(id(0, 1), now).unwrap();
    take(&mut locks);
    locks.decide(id(0, 1), Verdict::Accept, 0, now).unwrap();
    let late = now + LASTS;
    assert_eq!(locks.expire(late), [], "the answer may still prolong it");
    assert_eq!(locks.answered(slot(0), Ok(()), LASTS, late), done(0));
    assert_eq!(locks.expire(late + LASTS - TICK), []);
    assert_eq!(take(&mut locks), [(0, vec![(1, 1, vec![1])], false)]);
    assert_eq!(locks.answered(slot(0), Ok(()), LASTS, late), done(1));
}

#[test]
fn a_verdict_during_a_renewal_that_is_refused_is_said_and_counted_once() {
    for (offsets, code) in [(1..2, STALE), (1..3, STALE), (1..3, MOVED)] {
        let (mut locks, now) = locks(offsets.clone());
        for offset in offsets.clone() {
            locks.renew(id(0, offset), now).unwrap();
        }
        take(&mut locks);
        locks.decide(id(0, 1), Verdict::Accept, 0, now).unwrap();
        assert_eq!(locks.answered(slot(0), Err(code), LASTS, now), done(0));
        assert_eq!(take(&mut locks)[0].1[0], (1, 1, vec![1]));
        assert_eq!(locks.answered(slot(0), Err(STALE), LASTS, now), failed(1, STALE));
        assert_eq!(locks.expire(now + LASTS), []);
    }
}
