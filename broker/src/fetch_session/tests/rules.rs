//! The rules of fetch sessions, one by one.

use std::collections::BTreeMap;
use std::time::Duration;

use klamm_protocol::ErrorCode;
use tokio::time::Instant;

use super::super::*;
use super::Step;

const LIMITS: SessionLimits = SessionLimits { sessions: 3, partitions: 100, partitions_of_one: 50 };
const STALE: Duration = Duration::from_secs(120);
const TICK: Duration = Duration::from_millis(1);
const QUIET: Found = Found {
    told: Told { high_watermark: 0, last_stable_offset: 0, log_start_offset: 0 },
    has_records: false,
    failed: false,
};

fn place(index: i32) -> Place {
    (TopicKey::Name("t".into()), index)
}

fn wanted(offset: i64) -> Wanted {
    Wanted { offset, max_bytes: 10, leader_epoch: -1 }
}

fn of_size(size: i32) -> Vec<(Place, Wanted, Found)> {
    (0..size).map(|index| (place(index), wanted(0), QUIET)).collect()
}

/// Sessions with ids in a row.
struct Here {
    sessions: FetchSessions,
    last_id: i32,
    now: Instant,
}

impl Here {
    fn new(limits: SessionLimits) -> Self {
        Self { sessions: FetchSessions::new(limits), last_id: 0, now: Instant::now() }
    }

    fn begin(&mut self, size: i32) -> i32 {
        let last_id = &mut self.last_id;
        self.sessions.begin(Session::of(of_size(size)), false, self.now, || {
            *last_id += 1;
            *last_id
        })
    }

    fn step(&mut self, session_id: i32, epoch: i32) -> Result<usize, ErrorCode> {
        self.change(session_id, epoch, 0..0, 0..0)
    }

    fn change(
        &mut self,
        session_id: i32,
        epoch: i32,
        changed: std::ops::Range<i32>,
        forgotten: std::ops::Range<i32>,
    ) -> Result<usize, ErrorCode> {
        let changed = changed.map(|index| (place(index), wanted(1))).collect();
        let forgotten = forgotten.map(place).collect();
        let step = Step { session_id, epoch, by_id: false, changed, forgotten };
        self.sessions.step(step, self.now).map(|wanted| wanted.len())
    }
}

#[test]
fn steps_come_one_after_the_other_and_name_topics_in_one_way() {
    let mut here = Here::new(LIMITS);
    let id = here.begin(2);
    assert_eq!(here.step(id + 1, 1), Err(ErrorCode::FetchSessionIdNotFound));
    for wrong in [0, 2, -1] {
        assert_eq!(here.step(id, wrong), Err(ErrorCode::InvalidFetchSessionEpoch));
    }
    let by_id = Step { session_id: id, epoch: 1, by_id: true, changed: Vec::new(), forgotten: Vec::new() };
    assert_eq!(here.sessions.step(by_id, here.now).unwrap_err(), ErrorCode::FetchSessionTopicIdError);
    assert_eq!(here.step(id, 1), Ok(2), "none of that was a step");
    assert_eq!(here.step(id, 1), Err(ErrorCode::InvalidFetchSessionEpoch));
    assert_eq!(here.sessions.told(id, 2, &[QUIET; 2]), Err(ErrorCode::InvalidFetchSessionEpoch));
    assert_eq!(here.sessions.told(id, 1, &[QUIET; 3]), Err(ErrorCode::InvalidFetchSessionEpoch));
    assert_eq!(here.sessions.told(id, 1, &[QUIET; 2]), Ok(vec![false, false]));
    assert_eq!(here.step(id, 2), Ok(2));
    // The answer to the second step comes after the third has been taken.
    assert_eq!(here.step(id, 3), Ok(2));
    assert_eq!(here.sessions.told(id, 2, &[QUIET; 2]), Err(ErrorCode::InvalidFetchSessionEpoch));
    here.sessions.end(id);
    here.sessions.end(id);
    assert_eq!(here.sessions.told(id, 3, &[QUIET; 2]), Err(ErrorCode::FetchSessionIdNotFound));
    assert_eq!(here.sessions.counts(), (0, 0));
}

#[test]
fn the_last_epoch_is_followed_by_the_first() {
    let mut here = Here::new(LIMITS);
    let id = here.begin(1);
    here.sessions.set_epoch(id, i32::MAX);
    assert_eq!(here.step(id, i32::MAX), Ok(1));
    assert_eq!(here.sessions.told(id, i32::MAX, &[QUIET]), Ok(vec![false]));
    assert_eq!(here.step(id, 1), Ok(1));
}

#[test]
fn ids_are_above_zero_and_never_those_of_others() {
    let mut sessions = FetchSessions::new(LIMITS);
    let mut drawn = [5, -7, 0, 5, 8].into_iter();
    let mut begin =
        || sessions.begin(Session::of(of_size(1)), false, Instant::now(), || drawn.next().unwrap());
    assert_eq!((begin(), begin()), (5, 8));
}

#[test]
fn a_session_without_partitions_is_over() {
    let mut here = Here::new(LIMITS);
    let id = here.begin(2);
    assert_eq!(here.change(id, 1, 2..3, 0..3), Ok(0));
    assert_eq!(here.step(id, 2), Err(ErrorCode::FetchSessionIdNotFound));
    assert_eq!(here.sessions.counts(), (0, 0));
}

#[test]
fn one_that_was_not_used_for_two_minutes_goes_first() {
    let mut here = Here::new(LIMITS);
    let ids = [here.begin(9), here.begin(9), here.begin(9)];
    assert_eq!(here.begin(10), 0, "all are young");
    here.now += TICK;
    assert_eq!((here.step(ids[0], 1), here.step(ids[2], 1)), (Ok(9), Ok(9)));
    here.now += STALE - TICK;
    assert_eq!(here.begin(1), 0);
    here.now += TICK;
    assert_ne!(here.begin(1), 0);
    assert_eq!(here.step(ids[1], 1), Err(ErrorCode::FetchSessionIdNotFound));
    assert_eq!((here.step(ids[0], 2), here.step(ids[2], 2)), (Ok(9), Ok(9)));
}

#[test]
fn of_those_that_are_older_the_smallest_goes_for_a_larger_one() {
    let mut here = Here::new(LIMITS);
    let ids = [here.begin(5), here.begin(4), here.begin(6)];
    here.now += STALE;
    for id in ids {
        here.step(id, 1).unwrap();
    }
    assert_eq!(here.begin(50), 0, "two minutes are not over yet");
    here.now += TICK;
    for id in ids {
        here.step(id, 2).unwrap();
    }
    assert_eq!(here.begin(4), 0, "as large is not larger");
    assert_ne!(here.begin(5), 0);
    assert_eq!(here.step(ids[1], 3), Err(ErrorCode::FetchSessionIdNotFound));
    assert_eq!((here.step(ids[0], 3), here.step(ids[2], 3)), (Ok(5), Ok(6)));
    assert_eq!(here.sessions.counts(), (3, 16));
}

#[test]
fn partitions_are_counted_in_one_session_and_in_all() {
    let mut here = Here::new(LIMITS);
    assert_eq!(here.begin(51), 0);
    let (first, second) = (here.begin(50), here.begin(49));
    assert!(first != 0 && second != 0);
    assert_eq!(here.begin(2), 0, "100 in all");
    assert_eq!(here.change(second, 1, 49..50, 0..0), Ok(50));
    assert_eq!(here.sessions.counts(), (2, 100));
    // One that grows beyond begins anew.
    assert_eq!(here.change(first, 1, 50..51, 0..0), Err(ErrorCode::FetchSessionIdNotFound));
    assert_eq!(here.sessions.counts(), (1, 50));
    let third = here.begin(49);
    assert_eq!(here.change(third, 1, 0..0, 0..9), Ok(40));
    let fourth = here.begin(10);
    assert_eq!(here.change(fourth, 1, 10..11, 0..0), Err(ErrorCode::FetchSessionIdNotFound));
    assert_eq!((here.step(third, 2), here.sessions.counts()), (Ok(40), (2, 90)));
    here.now += STALE + TICK;
    assert_eq!(here.step(third, 3), Ok(40));
    assert_ne!(here.begin(50), 0, "the second is stale");
    assert_eq!(here.sessions.counts(), (2, 90));
    assert_eq!(Here::new(SessionLimits { sessions: 0, ..LIMITS }).begin(1), 0);
}

/// What is named twice in the fetch that begins a session is in it once, as it was named last.
#[test]
fn a_partition_is_in_a_session_once() {
    let mut here = Here::new(LIMITS);
    let twice =
        vec![(place(0), wanted(0), QUIET), (place(1), wanted(1), QUIET), (place(0), wanted(2), QUIET)];
    let id = here.sessions.begin(Session::of(twice), false, here.now, || 7);
    let step = Step { session_id: id, epoch: 1, by_id: false, changed: Vec::new(), forgotten: Vec::new() };
    let all = here.sessions.step(step, here.now).unwrap();
    assert_eq!(all, [(place(0), wanted(2)), (place(1), wanted(1))]);
    assert_eq!(here.sessions.told(id, 1, &[QUIET; 2]), Ok(vec![false; 2]));
}

/// With room for one partition in each answer, all get their turn.
#[test]
fn none_starves() {
    let mut here = Here::new(LIMITS);
    let id = here.begin(5);
    let mut served = BTreeMap::new();
    for epoch in 1..=50 {
        let step = Step { session_id: id, epoch, by_id: false, changed: Vec::new(), forgotten: Vec::new() };
        let all = here.sessions.step(step, here.now).unwrap();
        *served.entry(all[0].0.1).or_insert(0) += 1;
        let found: Vec<Found> = (0..5).map(|turn| Found { has_records: turn == 0, ..QUIET }).collect();
        here.sessions.told(id, epoch, &found).unwrap();
    }
    assert_eq!(served, (0..5).map(|index| (index, 10)).collect());
}

/// Who works on a session has it alone, and what goes meanwhile is gone.
#[test]
fn a_session_that_is_taken_is_nobody_elses_and_is_put_back_where_it_still_is() {
    let mut here = Here::new(LIMITS);
    let id = here.begin(2);
    let taken = here.sessions.take(id, 1, false).unwrap();
    assert_eq!(here.step(id, 2), Err(ErrorCode::InvalidFetchSessionEpoch), "the step before is being taken");
    assert_eq!(here.sessions.told(id, 1, &[QUIET; 2]), Err(ErrorCode::InvalidFetchSessionEpoch));
    assert_eq!(
        here.sessions.put_back(id, 2, Session::default(), here.now),
        Err(ErrorCode::FetchSessionIdNotFound)
    );
    assert_eq!(here.sessions.put_back(id, 1, taken, here.now), Ok(()));
    assert_eq!(here.sessions.told(id, 1, &[QUIET; 2]), Ok(vec![false; 2]));
    let told = here.sessions.take_to_tell(id, 1, 2).unwrap();
    assert_eq!(here.step(id, 2), Err(ErrorCode::InvalidFetchSessionEpoch));
    here.sessions.put_back_told(id, 1, told);
    assert_eq!(
        here.sessions.put_back(id, 1, Session::default(), here.now),
        Err(ErrorCode::FetchSessionIdNotFound)
    );
    assert_eq!((here.step(id, 2), here.sessions.counts()), (Ok(2), (1, 2)), "it is there once");

    let taken = here.sessions.take(id, 3, false).unwrap();
    here.sessions.end(id);
    assert_eq!(here.sessions.put_back(id, 3, taken, here.now), Err(ErrorCode::FetchSessionIdNotFound));
    assert_eq!(here.sessions.counts(), (0, 0));
}
