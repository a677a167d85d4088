//! Random histories of transactions that commit offsets, on a log that refuses, gets lost and loses power, against a
//! model that knows nothing but the log: which record counts for a partition is read off it, from the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use klamm_protocol::{ErrorCode, Uuid};

use super::super::records::{self, Stored};
use super::sim::*;
use super::transactions::producer;
use super::*;
use crate::controller::{MetadataRecord, View};
use crate::coordinator::{BatchKind, Core, StoredBatch, World, replay_batch};

/// Group, topic and partition.
type Place = (String, String, i32);

/// Where offsets are committed. All of a transaction's are for one group.
const PLACES: [(&str, i32); 3] = [("t", 0), ("t", 1), ("u", 0)];
const PRODUCERS: u64 = 4;

/// One record, or one marker.
#[derive(Debug, Clone)]
enum Entry {
    Offset { place: Place, producer_id: Option<i64>, offset: Option<CommittedOffset> },
    Marker { producer_id: i64, commit: bool },
}

fn entries<'a>(log: impl IntoIterator<Item = &'a StoredBatch>) -> Vec<Entry> {
    let mut entries = Vec::new();
    for batch in log {
        let producer_id = match batch.kind {
            BatchKind::Plain => None,
            BatchKind::Transactional(producer) => Some(producer.id),
            BatchKind::Marker { producer, commit } => {
                entries.push(Entry::Marker { producer_id: producer.id, commit });
                continue;
            }
        };
        for record in &batch.records {
            let stored = records::read(&record.key, record.value.as_ref()).unwrap();
            if let Stored::Offset { group, topic, partition, offset } = stored {
                entries.push(Entry::Offset { place: (group, topic, partition), producer_id, offset });
            }
        }
    }
    entries
}

/// What a log says.
#[derive(Debug, Default, PartialEq)]
struct Said {
    visible: BTreeMap<Place, CommittedOffset>,
    /// By place and producer.
    pending: BTreeMap<(Place, i64), CommittedOffset>,
}

/// From the end to the beginning: the first marker of a producer that is met decides about what is before it and after
/// the next one, and the first record that counts for a partition is what is visible there.
fn said(log: &[Entry]) -> Said {
    let mut said = Said::default();
    let mut decided: BTreeMap<i64, bool> = BTreeMap::new();
    let mut buried: BTreeSet<&Place> = BTreeSet::new();
    for entry in log.iter().rev() {
        match entry {
            Entry::Marker { producer_id, commit } => drop(decided.insert(*producer_id, *commit)),
            Entry::Offset { place, offset: None, .. } => drop(buried.insert(place)),
            Entry::Offset { place, .. } if buried.contains(place) => {}
            Entry::Offset { place, producer_id, offset: Some(offset) } => {
                match producer_id.map(|id| (id, decided.get(&id))) {
                    None | Some((_, Some(true))) => {
                        said.visible.entry(place.clone()).or_insert_with(|| offset.clone());
                    }
                    Some((_, Some(false))) => {}
                    Some((id, None)) => {
                        said.pending.entry((place.clone(), id)).or_insert_with(|| offset.clone());
                    }
                }
            }
        }
    }
    said
}

/// What a coordinator knows.
fn known(coordinator: &Coordinator) -> Said {
    let mut visible = BTreeMap::new();
    for (name, (_, topics)) in coordinator.written_groups() {
        for (topic, partitions) in topics {
            let one = |(partition, offset)| ((name.clone(), topic.clone(), partition), offset);
            visible.extend(partitions.into_iter().map(one));
        }
    }
    let of_place = |((group, topic, partition, id), offset)| (((group, topic, partition), id), offset);
    let pending = coordinator.all_pending().into_iter().map(of_place).collect();
    Said { visible, pending }
}

fn fresh() -> Coordinator {
    let offsets_retention_ms = 30_000;
    Coordinator::new(GroupConfig {
        initial_rebalance_delay_ms: 0,
        offsets_retention_ms,
        ..GroupConfig::default()
    })
}

fn view(t: Uuid) -> Arc<View> {
    let mut view = View::default();
    for (name, id) in [("t", t), ("u", TOPIC)] {
        view.image.apply(&MetadataRecord::Topic { name: name.into(), id });
    }
    Arc::new(view)
}

/// What is on its way.
#[derive(Debug)]
enum Asked {
    /// This number was committed, in a transaction or not.
    Commit(Option<i64>, i64),
    End(i64, bool),
    /// For a group, when the durable log had so many entries.
    Fetch {
        group: String,
        t: Uuid,
        require_stable: bool,
        durable: usize,
    },
    /// Of a group, or of these places of it, when the durable log had so many entries.
    Deletion {
        group: String,
        places: Vec<(&'static str, i32)>,
        durable: usize,
    },
}

struct History {
    world: World<Coordinator>,
    asked: BTreeMap<Ticket, Asked>,
    /// The id of `t` now.
    t: Uuid,
    /// What was told so far, so that a test can see that something was.
    committed: usize,
    ended: usize,
    fetched: usize,
    unstable: usize,
    deleted: usize,
}

impl History {
    fn new(seed: u64) -> Self {
        let (asked, t) = (BTreeMap::new(), Uuid::from_u128(1));
        let world = World::new(seed, fresh);
        Self { world, asked, t, committed: 0, ended: 0, fetched: 0, unstable: 0, deleted: 0 }
    }

    fn durable(&self) -> Vec<Entry> {
        entries(self.world.durable_batches())
    }

    fn id_of(&self, topic: &str) -> Uuid {
        if topic == "t" { self.t } else { TOPIC }
    }

    fn act(&mut self, number: i64) {
        let group = format!("g{}", self.world.below(2));
        let id = i64::try_from(self.world.below(PRODUCERS)).unwrap();
        match self.world.below(18) {
            0..3 => self.commit(group, None, number),
            3..8 => self.commit(group, Some(id), number),
            8..10 => {
                let commit = self.world.below(3) > 0;
                let command = Command::EndTransaction { producer: producer(id), commit };
                self.asked.insert(self.world.ask(command), Asked::End(id, commit));
            }
            10..12 => self.fetch(group),
            12 if self.world.below(6) == 0 => {
                let new = Uuid::from_u128(100 + u128::from(number.unsigned_abs()));
                let id = std::mem::replace(&mut self.t, new);
                self.world.inform(Command::TopicDeleted { id, name: "t".into() });
            }
            13 if self.world.below(3) == 0 => self.world.inform(Command::Expire(view(self.t))),
            16 if self.world.below(3) == 0 => self.delete(group, PLACES.to_vec(), true),
            17 => {
                let some = usize::try_from(self.world.below(3)).unwrap();
                self.delete(group, PLACES[some..].to_vec(), false);
            }
            _ => self.world.happen(Some(Command::Loaded(view(self.t)))),
        }
    }

    /// Of everything that a group has, or of these places.
    fn delete(&mut self, group: String, places: Vec<(&'static str, i32)>, is_all: bool) {
        let durable = self.durable().len();
        let command = if is_all {
            Command::DeleteGroup { group: group.clone() }
        } else {
            let topics = places.iter().map(|(topic, partition)| ((*topic).to_owned(), vec![*partition]));
            Command::DeleteOffsets { group: group.clone(), topics: topics.collect() }
        };
        let ticket = self.world.ask(command);
        self.asked.insert(ticket, Asked::Deletion { group, places, durable });
    }

    fn commit(&mut self, group: String, id: Option<i64>, offset: i64) {
        let some = self.world.below(3);
        let places = PLACES.iter().skip(usize::try_from(some).unwrap());
        let commits = places.map(|(topic, partition)| Commit {
            topic: (*topic).into(),
            topic_id: self.id_of(topic),
            partition: *partition,
            offset,
            leader_epoch: -1,
            metadata: String::new(),
        });
        let (commits, caller) = (commits.collect(), caller("", -1));
        let command = match id {
            None => Command::Commit { group, caller, commits },
            Some(id) => {
                let (producer, marker) = (producer(id), u64::MAX);
                Command::CommitInTransaction { group, caller, producer, marker, commits }
            }
        };
        self.asked.insert(self.world.ask(command), Asked::Commit(id, offset));
    }

    fn fetch(&mut self, group: String) {
        let topic = |name: &str, partitions: &[i32]| FetchTopic {
            name: name.into(),
            id: self.id_of(name),
            partitions: partitions.to_vec(),
        };
        let topics = Some(vec![topic("t", &[0, 1]), topic("u", &[0])]);
        let require_stable = self.world.below(2) == 0;
        let fetch = FetchOffsets { group: group.clone(), topics, require_stable };
        let (t, durable) = (self.t, self.durable().len());
        let ticket = self.world.ask(Command::Fetch(fetch));
        self.asked.insert(ticket, Asked::Fetch { group, t, require_stable, durable });
    }

    /// Looks at the answers: each says what the durable part of the log says, or said.
    fn hear(&mut self) {
        let told = self.world.take_told();
        if told.is_empty() {
            return;
        }
        let durable = self.durable();
        for (ticket, told) in told {
            match (self.asked.remove(&ticket).expect("was asked"), told) {
                (_, Err(error)) => assert!(error == UNAVAILABLE || error == TOO_LARGE, "{error:?}"),
                (Asked::Commit(id, number), Ok(Reply::Codes(codes))) => {
                    assert!(codes.iter().all(|code| *code == ErrorCode::None));
                    let is_it = |entry: &Entry| match entry {
                        Entry::Offset { producer_id, offset: Some(offset), .. } => {
                            *producer_id == id && offset.offset == number
                        }
                        _ => false,
                    };
                    assert_eq!(durable.iter().filter(|entry| is_it(entry)).count(), codes.len());
                    self.committed += 1;
                }
                (Asked::End(id, commit), Ok(Reply::Codes(codes))) => {
                    assert_eq!(codes, [ErrorCode::None]);
                    let is_it = |entry: &Entry| match entry {
                        Entry::Marker { producer_id, commit: durable } => {
                            (*producer_id, *durable) == (id, commit)
                        }
                        Entry::Offset { .. } => false,
                    };
                    assert!(durable.iter().any(is_it), "a marker that is not durable");
                    self.ended += 1;
                }
                (Asked::Fetch { group, t, require_stable, durable: from }, Ok(Reply::Offsets(found))) => {
                    let told = flat(found);
                    let fits =
                        |end: usize| expected(&said(&durable[..end]), &group, t, require_stable) == told;
                    assert!((from..=durable.len()).rev().any(fits), "the log never said {told:?}");
                    self.fetched += 1;
                    self.unstable += told.iter().filter(|told| told.is_none()).count();
                }
                (Asked::Deletion { group, places, durable: from }, Ok(reply)) => {
                    let codes = match reply {
                        Reply::Codes(codes) | Reply::Deleted(Ok(codes)) => codes,
                        Reply::Deleted(Err(error)) => vec![error],
                        other => panic!("a deletion got {other:?}"),
                    };
                    let is_done =
                        |code: &ErrorCode| [ErrorCode::None, ErrorCode::GroupIdNotFound].contains(code);
                    assert!(codes.iter().all(is_done), "{codes:?}");
                    let is_here = |(at, topic, partition): &Place| {
                        *at == group && places.contains(&(topic.as_str(), *partition))
                    };
                    let has_none = |end: usize| {
                        let said = said(&durable[..end]);
                        let pending = said.pending.keys().map(|(place, _)| place);
                        !said.visible.keys().chain(pending).any(is_here)
                    };
                    assert!((from..=durable.len()).rev().any(has_none), "it was never gone from {group}");
                    self.deleted += 1;
                }
                (asked, reply) => panic!("{asked:?} got {reply:?}"),
            }
        }
    }
}

const UNAVAILABLE: ErrorCode = ErrorCode::CoordinatorNotAvailable;
const TOO_LARGE: ErrorCode = ErrorCode::MessageTooLarge;

/// For each partition that was asked for the offset, if any, or nothing where it may change.
fn flat(found: Vec<FetchedTopic>) -> Vec<Option<Option<CommittedOffset>>> {
    let of_topic = |topic: FetchedTopic| {
        let unstable = topic.unstable;
        let one = move |(partition, offset)| if unstable.contains(&partition) { None } else { Some(offset) };
        topic.partitions.into_iter().map(one)
    };
    found.into_iter().flat_map(of_topic).collect()
}

fn expected(said: &Said, group: &str, t: Uuid, require_stable: bool) -> Vec<Option<Option<CommittedOffset>>> {
    let one = |(topic, partition): &(&str, i32)| {
        let id = if *topic == "t" { t } else { TOPIC };
        let place = (group.to_owned(), (*topic).to_owned(), *partition);
        let of_it =
            |((at, _), offset): (&(Place, i64), &CommittedOffset)| *at == place && offset.topic_id == id;
        match require_stable && said.pending.iter().any(of_it) {
            true => None,
            false => Some(said.visible.get(&place).filter(|offset| offset.topic_id == id).cloned()),
        }
    };
    PLACES.iter().map(one).collect()
}

/// At every end that the log may have had.
fn check_prefixes(log: &[StoredBatch]) {
    let mut coordinator = fresh();
    for end in 0..=log.len() {
        let expected = said(&entries(&log[..end]));
        assert_eq!(known(&coordinator), expected, "after {end} batches");
        if let Some(batch) = log.get(end) {
            let now = Now { ms: 0, wall_ms: 0 };
            replay_batch(&mut coordinator, now, batch, |error| panic!("{error}"));
        }
    }
    Core::replayed(&mut coordinator, Now { ms: 0, wall_ms: 0 });
    assert_eq!(known(&coordinator), said(&entries(log)), "nothing goes when all is read");
}

#[test]
fn a_transaction_is_visible_as_a_whole_or_not_at_all_whatever_the_log_does() {
    let (mut refused, mut crashes, mut ended, mut fetched, mut unstable, mut deleted) = (0, 0, 0, 0, 0, 0);
    for seed in 0..1_500 {
        let mut history = History::new(seed);
        let steps = history.world.below(150) + 10;
        for number in 1..i64::try_from(steps).unwrap() {
            history.act(number);
            history.hear();
        }
        history.world.settle(Some(Command::Loaded(view(history.t))));
        history.hear();
        assert!(history.world.all_are_answered(), "seed {seed}: an answer was lost");
        let log = history.world.durable_batches();
        assert_eq!(history.world.look(known), said(&entries(log)), "seed {seed}");
        assert_eq!(known(&history.world.replayed()), said(&entries(log)), "seed {seed}");
        if seed % 5 == 0 {
            check_prefixes(log);
        }
        refused += history.world.refused;
        crashes += history.world.crashes;
        ended += history.ended;
        fetched += history.fetched;
        unstable += history.unstable;
        deleted += history.deleted;
    }
    assert!(
        refused > 200 && crashes > 50 && ended > 2_000,
        "{refused} refused, {crashes} crashes, {ended} ended"
    );
    assert!(fetched > 4_000 && unstable > 1_000, "{fetched} fetched, {unstable} unstable");
    assert!(deleted > 1_000, "{deleted} deleted");
}

#[test]
fn the_model_reads_a_log_as_kafka_does() {
    let at = |partition| ("g".to_owned(), "t".to_owned(), partition);
    let offset = |offset| CommittedOffset {
        topic_id: TOPIC,
        offset,
        leader_epoch: -1,
        metadata: String::new(),
        committed_at_ms: 0,
    };
    let write = |producer_id, partition, number: i64| Entry::Offset {
        place: at(partition),
        producer_id,
        offset: Some(offset(number)),
    };
    let end = |producer_id, commit| Entry::Marker { producer_id, commit };
    let log = [
        write(Some(1), 0, 1),
        write(None, 0, 2),
        write(Some(1), 1, 3),
        write(Some(2), 1, 4),
        end(1, true),
        write(Some(1), 1, 5),
        end(2, false),
    ];
    let found = said(&log);
    assert_eq!(found.visible, BTreeMap::from([(at(0), offset(2)), (at(1), offset(3))]));
    assert_eq!(found.pending, BTreeMap::from([((at(1), 1), offset(5))]));
    let buried = Entry::Offset { place: at(1), producer_id: None, offset: None };
    let found = said(&[&log[..], &[buried]].concat());
    assert_eq!((found.visible.len(), found.pending.len()), (1, 0));
}
