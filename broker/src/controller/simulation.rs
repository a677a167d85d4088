//! Random histories of commands, failures and crashes: the core and the reconciler against a model that knows what was
//! promised. At the end the disk is what the image says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use klamm_protocol::{ErrorCode, Uuid};
use klamm_runtime::{Rng, SeededRng};
use tokio::time::Instant;

use super::change::{Adjustment, Change, ChangeTopic};
use super::command::{CreateTopic, Surroundings};
use super::decide::{Attempt, Command, Core, DeletedTopic, Done, Ticket};
use super::image::{Image, Topic};
use super::reconcile::{Action, Found, plan};
use super::record::MetadataRecord;

const HERE: Surroundings = Surroundings { node_id: 1, default_partitions: 2, max_partitions: 12 };
const STRANGE: Uuid = Uuid::from_u128(7);
const NAMES: [&str; 5] = ["a", "b", "c.d", "c_d", "e"];

/// A partition's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Dir {
    id: Uuid,
    empty: bool,
    synced: bool,
}

struct World {
    rng: SeededRng,
    now: Instant,
    core: Core,
    /// Batches that are durable, and those that are written.
    log: Vec<Vec<MetadataRecord>>,
    pending: Vec<Vec<MetadataRecord>>,
    disk: BTreeMap<(String, i32), Dir>,
    /// Removed, but a crash may bring them back.
    removed: BTreeMap<(String, i32), Dir>,
    /// Names that are being looked at, each under the image of its beginning.
    passes: BTreeMap<Arc<str>, Image>,
    failing: bool,
    next_ticket: Ticket,
    waiting: BTreeMap<Ticket, Command>,
    /// What was answered, in any life.
    created: BTreeMap<Uuid, i32>,
    deleted: BTreeSet<Uuid>,
    to_be_deleted: BTreeSet<Uuid>,
    next_producer_id: i64,
    /// In this life.
    attempted: BTreeSet<Uuid>,
    visible: Image,
    told: Vec<DeletedTopic>,
    durable_at_start: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        let rng = SeededRng::new(seed);
        let mut disk = BTreeMap::new();
        if rng.below(3) == 0 {
            disk.insert(("a".to_owned(), 0), Dir { id: STRANGE, empty: false, synced: true });
            disk.insert(("notes".to_owned(), 1), Dir { id: Uuid::ZERO, empty: true, synced: true });
        }
        let mut world = Self {
            rng,
            now: Instant::now(),
            core: Core::new(Image::default(), HERE),
            log: Vec::new(),
            pending: Vec::new(),
            disk,
            removed: BTreeMap::new(),
            passes: BTreeMap::new(),
            failing: true,
            next_ticket: 0,
            waiting: BTreeMap::new(),
            created: BTreeMap::new(),
            deleted: BTreeSet::new(),
            to_be_deleted: BTreeSet::new(),
            next_producer_id: 0,
            attempted: BTreeSet::new(),
            visible: Image::default(),
            told: Vec::new(),
            durable_at_start: 0,
        };
        world.start();
        world
    }

    fn step(&mut self) {
        match self.rng.below(20) {
            0..=5 => self.propose_create(),
            6..=8 => self.propose_delete(),
            9 => self.propose(Command::ProducerIds),
            19 if self.rng.below(2) == 0 => self.propose_change(),
            10..=12 => self.commit(),
            13 | 14 => self.begin_pass(),
            15 | 16 => self.end_passes(false),
            17 | 18 => self.now += Duration::from_millis(self.rng.below(400)),
            _ if self.rng.below(5) > 0 => {}
            _ => self.crash(),
        }
        self.effects();
    }

    fn propose_create(&mut self) {
        let name = NAMES[self.rng.below(NAMES.len() as u64) as usize].to_owned();
        let partitions = self.rng.below(4) as i32;
        let topic = CreateTopic { name, partitions, replication_factor: -1, ..CreateTopic::default() };
        let validate_only = self.rng.below(10) == 0;
        self.propose(Command::Create(topic, validate_only));
    }

    fn propose_delete(&mut self) {
        let known: Vec<Uuid> = self.core.committed().topics().map(|topic| topic.id).collect();
        let id = match self.rng.below(known.len() as u64 + 1) as usize {
            at if at < known.len() => known[at],
            _ => self.created.keys().next().copied().unwrap_or(STRANGE),
        };
        self.to_be_deleted.insert(id);
        self.propose(Command::Delete(id));
    }

    fn propose_change(&mut self) {
        let name = NAMES[self.rng.below(NAMES.len() as u64) as usize].to_owned();
        let change = match self.rng.below(3) {
            0 => Change::Grow { partitions: self.rng.below(7) as i32, assignments: None },
            1 => Change::Replace(BTreeMap::new()),
            _ => {
                let value = self.rng.below(3).to_string();
                Change::Adjust(vec![("retention.ms".to_owned(), Adjustment::Set(value))])
            }
        };
        let validate_only = self.rng.below(10) == 0;
        self.propose(Command::Change(ChangeTopic { name, change }, validate_only));
    }

    fn propose(&mut self, command: Command) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let fresh = || Uuid::from_random(self.rng.next_u128());
        let accepted = self.core.propose(ticket, &command, fresh);
        self.waiting.insert(ticket, command);
        let Some(accepted) = accepted else { return };
        if self.failing && self.rng.below(8) == 0 {
            let full = super::command::TopicError::new(ErrorCode::KafkaStorageError, "full");
            return self.core.not_written(&accepted, full);
        }
        self.pending.push(accepted.records.clone());
        self.core.written(accepted);
    }

    fn commit(&mut self) {
        if self.failing && self.rng.below(20) == 0 {
            // A sync failed: nobody knows what is durable, and only a start helps.
            self.core.lost(&super::command::TopicError::new(ErrorCode::KafkaStorageError, "sync"));
            self.effects();
            return self.crash();
        }
        self.log.append(&mut self.pending);
        self.core.commit();
    }

    fn begin_pass(&mut self) {
        for name in self.core.begin_pass(self.now).unwrap_or_default() {
            let before = self.passes.insert(name, self.core.committed().clone());
            assert!(before.is_none(), "one look at a name at a time");
        }
    }

    /// Looks end in any order, or all of them.
    fn end_passes(&mut self, all: bool) {
        let mut ended = Vec::new();
        for (name, image) in std::mem::take(&mut self.passes) {
            if all || self.rng.below(3) > 0 {
                ended.push(self.follow(&name, &image));
            } else {
                self.passes.insert(name, image);
            }
        }
        self.attempted.extend(ended.iter().filter_map(|attempt| attempt.topic));
        if !ended.is_empty() {
            self.core.end_pass(&ended, self.now);
        }
    }

    fn follow(&mut self, name: &Arc<str>, image: &Image) -> Attempt {
        let found: Vec<Found> = self
            .disk
            .iter()
            .filter(|((topic, _), _)| **topic == **name)
            .map(|((_, index), dir)| Found { index: *index, topic_id: dir.id, empty: dir.empty })
            .collect();
        let topic = image.topic(name).map(|topic| topic.id);
        let mut failure = None;
        for action in plan(name, image, &found) {
            let key = |index: i32| (name.to_string(), index);
            let fails = self.failing && self.rng.below(6) == 0;
            match action {
                Action::Remove(_) | Action::Create(_) if fails => failure = Some("injected".to_owned()),
                Action::Remove(index) => {
                    let dir = self.disk.remove(&key(index)).unwrap();
                    assert_ne!(dir.id, STRANGE);
                    self.removed.insert(key(index), dir);
                }
                Action::Create(index) => {
                    // As on a disk: one that could not be removed is in the way.
                    let dir = Dir { id: topic.unwrap(), empty: false, synced: false };
                    let made = *self.disk.entry(key(index)).or_insert(dir);
                    failure = failure.or((made != dir).then(|| "exists".to_owned()));
                }
                Action::Blocked(_) => failure = Some("blocked".to_owned()),
                Action::Keep(_) | Action::Leave(..) => {}
            }
        }
        if self.rng.below(2) == 0 {
            self.sync();
        }
        Attempt { name: name.clone(), topic, failure }
    }

    fn sync(&mut self) {
        self.disk.values_mut().for_each(|dir| dir.synced = true);
        self.removed.clear();
    }

    fn crash(&mut self) {
        let kept = self.rng.below(self.pending.len() as u64 + 1) as usize;
        self.pending.truncate(kept);
        self.log.append(&mut self.pending);
        for (key, dir) in std::mem::take(&mut self.removed) {
            if self.rng.below(2) == 0 {
                self.disk.insert(key, dir);
            }
        }
        for (key, dir) in self.disk.clone().into_iter().filter(|(_, dir)| !dir.synced) {
            match self.rng.below(3) {
                0 => drop(self.disk.remove(&key)),
                1 => drop(self.disk.insert(key, Dir { id: Uuid::ZERO, empty: true, synced: true })),
                _ => drop(self.disk.insert(key, Dir { synced: true, ..dir })),
            }
        }
        self.waiting.clear();
        self.passes.clear();
        self.start();
    }

    fn start(&mut self) {
        let mut image = Image::default();
        self.log.iter().flatten().for_each(|record| image.apply(record));
        for (id, partitions) in &self.created {
            let gone = image.was_deleted(*id) && self.to_be_deleted.contains(id);
            let topic = image.topic_by_id(*id);
            assert!(topic.is_some() || gone, "an acknowledged topic is lost");
            assert!(
                topic.is_none_or(|topic| topic.partitions >= *partitions),
                "an acknowledged partition is lost"
            );
        }
        assert!(self.deleted.iter().all(|id| image.was_deleted(*id)), "a deleted topic is back");
        assert!(image.next_producer_id() >= self.next_producer_id);
        self.core = Core::new(image, HERE);
        let on_disk = self.disk.keys().map(|(name, _)| Arc::from(name.as_str())).collect::<Vec<_>>();
        let in_image = self.core.committed().topics().map(|topic| topic.name.clone()).collect::<Vec<_>>();
        self.core.suspect(on_disk.into_iter().chain(in_image));
        (self.attempted, self.told) = (BTreeSet::new(), Vec::new());
        self.durable_at_start = self.log.len();
        self.begin_pass();
        self.end_passes(true);
        self.core.take_effects();
        self.visible = self.core.visible();
    }

    /// Does what the core wants, and checks that it may want it.
    fn effects(&mut self) {
        let effects = self.core.take_effects();
        if let Some(ids) = effects.producer_ids {
            assert!(ids.start >= self.next_producer_id && ids.end == ids.start + 1_000);
            self.next_producer_id = ids.end;
        }
        if effects.publish {
            self.visible = self.core.visible();
        }
        let unseen = self.visible.topics().find(|topic| !self.attempted.contains(&topic.id));
        assert!(unseen.is_none(), "{unseen:?} is seen before its logs are");
        self.told.extend(effects.deleted);
        let removals = self.log[self.durable_at_start..].iter().flatten().filter_map(|record| match record {
            MetadataRecord::RemoveTopic { id } => Some(*id),
            _ => None,
        });
        assert!(removals.eq(self.told.iter().map(|deleted| deleted.id)), "every deletion is told, in order");
        for (ticket, answer) in effects.answers {
            let command = self.waiting.remove(&ticket).expect("an answer for somebody who waits");
            match (command, answer) {
                (Command::Create(_, true), Ok(Done::Created(topic))) => assert!(topic.id.is_zero()),
                (Command::Create(..), Ok(Done::Created(topic))) => {
                    self.created.insert(topic.id, topic.partitions);
                    let there = self.visible.topic_by_id(topic.id).is_some();
                    assert!(there || self.core.committed().was_deleted(topic.id));
                    for index in (0..topic.partitions).filter(|_| there) {
                        let dir = self.disk.get(&(topic.name.to_string(), index));
                        assert_eq!(dir.map(|dir| dir.id), Some(topic.id), "it can be used at once");
                    }
                }
                (Command::Create(topic, _), Err(error)) if error.code == ErrorCode::TopicAlreadyExists => {
                    let seen = self.visible.topic(&topic.name).is_some();
                    assert!(
                        seen || self.core.committed().was_spoken_of(&topic.name),
                        "it exists, and is seen"
                    );
                }
                (Command::Change(_, true), Ok(Done::Changed(_))) => {}
                (Command::Change(command, _), Ok(Done::Changed(topic))) => {
                    self.changed(&topic, matches!(command.change, Change::Grow { .. }));
                }
                (Command::Delete(id), Ok(Done::Deleted)) => {
                    self.deleted.insert(id);
                    assert!(self.visible.topic_by_id(id).is_none() && self.visible.was_deleted(id));
                }
                (Command::ProducerIds, Ok(Done::ProducerIds)) | (_, Err(_)) => {}
                (command, answer) => panic!("{command:?} is answered with {answer:?}"),
            }
        }
    }

    /// A topic that was changed is seen so, and one that has grown can be used, unless it is gone.
    fn changed(&mut self, topic: &Topic, grown: bool) {
        let Some(seen) = self.visible.topic_by_id(topic.id) else { return };
        assert!(seen.partitions >= topic.partitions, "no partition is lost");
        if let Some(known) = self.created.get_mut(&topic.id) {
            *known = (*known).max(topic.partitions);
        }
        for index in (0..topic.partitions).filter(|_| grown) {
            let dir = self.disk.get(&(topic.name.to_string(), index));
            assert_eq!(dir.map(|dir| dir.id), Some(topic.id), "it can be used at once");
        }
    }

    /// Nothing fails any more: everything comes to its end.
    fn settle(&mut self) {
        self.failing = false;
        self.commit();
        self.effects();
        for _ in 0..10 {
            self.end_passes(true);
            self.effects();
            self.now += Duration::from_secs(31);
            self.begin_pass();
        }
        self.end_passes(true);
        self.effects();
        assert!(self.waiting.is_empty(), "nobody waits for ever: {:?}", self.waiting);
    }

    fn check(&self) {
        let image = self.core.committed();
        assert!(self.core.visible() == *image && self.visible.topics().eq(image.topics()));
        let blocked = |key: &(String, i32)| self.disk.get(key).is_some_and(|dir| dir.id == STRANGE);
        let mut expected: BTreeMap<(String, i32), Uuid> = image
            .topics()
            .flat_map(|topic| (0..topic.partitions).map(|index| ((topic.name.to_string(), index), topic.id)))
            .filter(|(key, _)| !blocked(key))
            .collect();
        for (key, dir) in &self.disk {
            if dir.id == STRANGE || key.0 == "notes" {
                expected.insert(key.clone(), dir.id);
            }
        }
        let found: BTreeMap<_, _> = self.disk.iter().map(|(key, dir)| (key.clone(), dir.id)).collect();
        assert_eq!(found, expected, "the disk is what the image says");
        let in_the_way =
            image.topic("a").is_some_and(|topic| topic.partitions > 0) && blocked(&("a".to_owned(), 0));
        assert_eq!(self.core.retry_at().is_some(), in_the_way, "it is tried again only what fails");
    }
}

#[test]
fn whatever_happens_the_disk_becomes_what_the_image_says_and_promises_are_kept() {
    let mut reached = BTreeSet::new();
    for seed in 0..2_000 {
        let mut world = World::new(seed);
        for _ in 0..150 {
            world.step();
        }
        world.settle();
        world.check();
        reached.insert((world.created.len().min(3), world.deleted.len().min(3)));
        world.crash();
        world.settle();
        world.check();
    }
    assert!(reached.contains(&(3, 3)), "histories long enough to mean something");
}
