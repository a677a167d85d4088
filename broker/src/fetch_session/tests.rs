//! Fetch sessions as clients see them: rules one by one, and random histories against simple models.

use std::collections::BTreeMap;
use std::time::Duration;

use klamm_protocol::{ErrorCode, Uuid};
use klamm_runtime::{Rng, SeededRng};
use tokio::time::Instant;

use super::*;

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
        self.sessions.begin(of_size(size), false, self.now, || {
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
    let mut begin = || sessions.begin(of_size(1), false, Instant::now(), || drawn.next().unwrap());
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
    let id = here.sessions.begin(twice, false, here.now, || 7);
    let step = Step { session_id: id, epoch: 1, by_id: false, changed: Vec::new(), forgotten: Vec::new() };
    let all = here.sessions.step(step, here.now).unwrap();
    assert_eq!(all, [(place(0), wanted(2)), (place(1), wanted(1))]);
    assert_eq!(here.sessions.told(id, 1, &[QUIET; 2]), Ok(vec![false; 2]));
}

/// One client: its session, what it believes of the partitions in it, and the log as it really is.
struct Client {
    id: i32,
    epoch: i32,
    by_id: bool,
    offsets: BTreeMap<i32, i64>,
    /// What the broker knows of that.
    sent: BTreeMap<i32, i64>,
    /// What it was told last; nothing of partitions that failed then.
    knows: BTreeMap<i32, Option<Told>>,
}

impl Client {
    fn new() -> Self {
        let (offsets, sent, knows) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { id: 0, epoch: 0, by_id: false, offsets, sent, knows }
    }
}

struct World {
    rng: SeededRng,
    now: Instant,
    logs: Vec<Found>,
    sessions: FetchSessions,
}

const PARTITIONS: usize = 8;

impl World {
    fn below(&self, bound: u64) -> usize {
        self.rng.below(bound) as usize
    }

    fn some_partitions(&self) -> Vec<i32> {
        (0..PARTITIONS as i32).filter(|_| self.rng.below(3) == 0).collect()
    }

    fn place(client: &Client, index: i32) -> Place {
        let topic = match client.by_id {
            true => TopicKey::Id(Uuid::from_u128(1)),
            false => TopicKey::Name("t".into()),
        };
        (topic, index)
    }

    /// What a fetch finds: records where the client has not read to the end, as far as there is room.
    fn found(&self, index: i32, offset: i64, room: &mut usize) -> Found {
        let log = self.logs[index as usize];
        let has_records = !log.failed && *room > 0 && offset < log.told.high_watermark;
        *room -= usize::from(has_records);
        Found { has_records, ..log }
    }

    fn change_logs(&mut self) {
        let index = self.below(PARTITIONS as u64);
        let kind = self.rng.below(4);
        let log = &mut self.logs[index];
        match kind {
            0 => log.told.high_watermark += 1,
            1 => log.told.last_stable_offset = log.told.high_watermark,
            2 => log.told.log_start_offset = log.told.last_stable_offset,
            _ => log.failed = !log.failed,
        }
    }

    fn full_fetch(&mut self, client: &mut Client) {
        self.sessions.end(client.id);
        client.by_id = self.rng.below(2) == 0;
        client.offsets = self.some_partitions().into_iter().map(|index| (index, 0)).collect();
        client.sent.clone_from(&client.offsets);
        client.knows.clear();
        let mut room = 2;
        let mut all = Vec::new();
        for (index, offset) in &mut client.offsets {
            let found = self.found(*index, *offset, &mut room);
            let wanted = Wanted { offset: *offset, max_bytes: 10, leader_epoch: -1 };
            all.push((*index, wanted, found));
            client.knows.insert(*index, (!found.failed).then_some(found.told));
            *offset += i64::from(found.has_records);
        }
        let all = all.into_iter().map(|(index, wanted, found)| (Self::place(client, index), wanted, found));
        let (all, rng) = (all.collect(), &self.rng);
        client.epoch = 1;
        client.id = self.sessions.begin(all, client.by_id, self.now, || rng.next_u64() as i32);
    }

    /// A fetch that names only what is to change. False when the client has to begin anew.
    fn next_fetch(&mut self, client: &mut Client) -> bool {
        let forgotten: Vec<i32> =
            self.some_partitions().into_iter().filter(|_| self.rng.below(4) == 0).collect();
        if self.rng.below(3) == 0 {
            for index in self.some_partitions() {
                client.offsets.entry(index).or_insert(0);
            }
        }
        for index in &forgotten {
            client.offsets.remove(index);
            client.knows.remove(index);
        }
        let changed =
            client.offsets.iter().filter(|(index, offset)| client.sent.get(*index) != Some(*offset));
        let changed = changed.map(|(index, offset)| {
            (Self::place(client, *index), Wanted { offset: *offset, max_bytes: 10, leader_epoch: -1 })
        });
        let step = Step {
            session_id: client.id,
            epoch: client.epoch,
            by_id: client.by_id,
            changed: changed.collect(),
            forgotten: forgotten.iter().map(|index| Self::place(client, *index)).collect(),
        };
        let Ok(all) = self.sessions.step(step, self.now) else { return false };
        client.sent.clone_from(&client.offsets);
        let named: BTreeMap<i32, i64> =
            all.iter().map(|((_, index), wanted)| (*index, wanted.offset)).collect();
        assert_eq!(named, client.offsets, "the session is what the client reads");
        let mut room = 2;
        let found: Vec<Found> =
            all.iter().map(|((_, index), wanted)| self.found(*index, wanted.offset, &mut room)).collect();
        if all.is_empty() {
            client.id = 0;
            return true;
        }
        let told = self.sessions.told(client.id, client.epoch, &found).expect("the session is there");
        client.epoch += 1;
        for ((((_, index), _), found), told) in all.iter().zip(&found).zip(told) {
            if told {
                client.knows.insert(*index, (!found.failed).then_some(found.told));
                *client.offsets.get_mut(index).unwrap() += i64::from(found.has_records);
            } else {
                assert!(!found.failed && !found.has_records);
            }
        }
        true
    }

    /// The client knows what a full fetch would have shown.
    fn check(&self, client: &Client) {
        let full = client.offsets.keys().map(|index| {
            let log = self.logs[*index as usize];
            (*index, (!log.failed).then_some(log.told))
        });
        assert_eq!(client.knows, full.collect());
    }
}

#[test]
fn a_client_that_keeps_what_it_is_told_knows_what_full_fetches_would_show() {
    let (mut steps, mut begun) = (0, 0);
    for seed in 0..300 {
        let limits = SessionLimits { sessions: 2, partitions: 14, partitions_of_one: PARTITIONS };
        let sessions = FetchSessions::new(limits);
        let logs = vec![QUIET; PARTITIONS];
        let mut world = World { rng: SeededRng::new(seed), now: Instant::now(), logs, sessions };
        let mut clients = [Client::new(), Client::new(), Client::new()];
        for _ in 0..200 {
            world.now += Duration::from_secs(world.rng.below(20));
            for _ in 0..world.rng.below(4) {
                world.change_logs();
            }
            let client = &mut clients[world.below(3)];
            if client.id != 0 && world.next_fetch(client) {
                steps += 1;
            } else {
                begun += 1;
                world.full_fetch(client);
            }
            world.check(client);
        }
    }
    assert!(steps > 10_000 && begun > 5_000, "{steps} steps in {begun} sessions");
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
