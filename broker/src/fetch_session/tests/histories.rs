//! Random histories: a client that keeps what it is told knows what full fetches would show.

use std::collections::BTreeMap;
use std::time::Duration;

use klamm_protocol::Uuid;
use klamm_runtime::{Rng, SeededRng};
use tokio::time::Instant;

use super::super::*;
use super::Step;

const QUIET: Found = Found {
    told: Told { high_watermark: 0, last_stable_offset: 0, log_start_offset: 0 },
    has_records: false,
    failed: false,
};

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
        let (session, rng) = (Session::of(all.collect()), &self.rng);
        client.epoch = 1;
        client.id = self.sessions.begin(session, client.by_id, self.now, || rng.next_u64() as i32);
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
