//! Random histories: clients, zombies, timeouts and one that writes markers, on a log that is slow, refuses, gets lost
//! and loses power. Each partition number is added once, so that it tells its transaction.

use std::collections::{BTreeMap, BTreeSet};

use klamm_protocol::ErrorCode;

use super::super::calls::{AddPartitions, Command, Decision, EndTransaction, InitProducer, Markers, Reply};
use super::super::coordinator::Coordinator;
use super::super::transaction::{Partitions, ProducerIdAndEpoch, TransactionVersion};
use crate::config::TransactionConfig;
use crate::coordinator::{Ticket, World};

const IDS: u64 = 3;
const TIMEOUT_MS: i32 = 20_000;

/// A client as it knows itself.
#[derive(Debug, Clone)]
struct Client {
    id: u64,
    producer: ProducerIdAndEpoch,
    version: TransactionVersion,
    /// It waits for an answer.
    is_busy: bool,
    /// What it was told takes part, and what it asked for.
    added: BTreeSet<i32>,
    asked: BTreeSet<i32>,
}

#[derive(Debug)]
enum Asked {
    Init(u64),
    Add(usize, i32),
    End(usize, bool),
    Markers,
    Marked(Decision),
}

/// What became of a partition number.
#[derive(Debug, Default)]
struct Fate {
    /// A client was told that it takes part.
    is_added: bool,
    /// A commit was asked for by a client that thinks it takes part.
    may_commit: bool,
    /// What the client was told of the end.
    told: Option<bool>,
    /// What was handed out, and in which life.
    marked: Vec<(bool, usize)>,
}

struct History {
    world: World<Coordinator>,
    clients: Vec<Client>,
    asked: BTreeMap<Ticket, Asked>,
    fates: BTreeMap<i32, Fate>,
    /// The newest epoch that a client of each id was told.
    newest: BTreeMap<u64, ProducerIdAndEpoch>,
    under_way: BTreeMap<Decision, Markers>,
    /// Markers that are written; it is yet to be noted.
    written: BTreeSet<Decision>,
    marker_asks: bool,
    fresh_producer_id: i64,
    next_partition: i32,
    life: usize,
    ended: usize,
}

fn fresh() -> Coordinator {
    Coordinator::new(TransactionConfig::default())
}

fn name(id: u64) -> String {
    format!("id-{id}")
}

impl History {
    fn new(seed: u64) -> Self {
        Self {
            world: World::new(seed, fresh),
            clients: Vec::new(),
            asked: BTreeMap::new(),
            fates: BTreeMap::new(),
            newest: BTreeMap::new(),
            under_way: BTreeMap::new(),
            written: BTreeSet::new(),
            marker_asks: false,
            fresh_producer_id: 0,
            next_partition: 0,
            life: 0,
            ended: 0,
        }
    }

    fn ask(&mut self, command: Command, asked: Asked) {
        let ticket = self.world.ask(command);
        self.asked.insert(ticket, asked);
        self.hear();
    }

    fn init(&mut self, id: u64, expected: Option<ProducerIdAndEpoch>) {
        self.fresh_producer_id += 1;
        let fresh_producer_id = Some(self.fresh_producer_id);
        let call = InitProducer { id: name(id), timeout_ms: TIMEOUT_MS, expected, fresh_producer_id };
        self.ask(Command::Init(call), Asked::Init(id));
    }

    fn add(&mut self, at: usize) {
        let partition = self.next_partition;
        self.next_partition += 1;
        self.fates.insert(partition, Fate::default());
        self.clients[at].asked.insert(partition);
        self.clients[at].is_busy = true;
        let client = &self.clients[at];
        let partitions = Partitions::from([("t".to_owned(), BTreeSet::from([partition]))]);
        let (id, producer, version) = (name(client.id), client.producer, client.version);
        self.ask(
            Command::Add(AddPartitions { id, producer, partitions, version }),
            Asked::Add(at, partition),
        );
    }

    fn end(&mut self, at: usize, commit: bool) {
        self.fresh_producer_id += 1;
        self.clients[at].is_busy = true;
        let client = &self.clients[at];
        if commit {
            for partition in &client.asked {
                self.fates.get_mut(partition).unwrap().may_commit = true;
            }
        }
        let call = EndTransaction {
            id: name(client.id),
            producer: client.producer,
            commit,
            version: client.version,
            fresh_producer_id: Some(self.fresh_producer_id),
        };
        self.ask(Command::End(call), Asked::End(at, commit));
    }

    /// One turn of the task that writes markers.
    fn mark(&mut self) {
        if !self.marker_asks {
            self.marker_asks = true;
            let under_way = self.under_way.keys().copied().collect();
            return self.ask(Command::NextMarkers { under_way }, Asked::Markers);
        }
        let pick = self.world.below(self.under_way.len() as u64 + 1);
        let Some((decision, markers)) = self.under_way.iter().nth(usize::try_from(pick).unwrap()) else {
            return;
        };
        let (id, decision) = (markers.id.clone(), *decision);
        if self.written.insert(decision) {
            self.ask(Command::Marked { id, decision }, Asked::Marked(decision));
        }
    }

    /// A client says that it was told something of its transaction.
    fn hear(&mut self) {
        for (ticket, told) in self.world.take_told() {
            let asked = self.asked.remove(&ticket);
            if let Some(Asked::Add(at, _) | Asked::End(at, _)) = asked {
                self.clients[at].is_busy = false;
            }
            match (asked, told) {
                (Some(Asked::Init(id)), Ok(Reply::Producer(Ok(producer)))) => self.began(id, producer),
                (Some(Asked::Add(at, partition)), Ok(Reply::Code(ErrorCode::None))) => {
                    self.clients[at].added.insert(partition);
                    self.fates.get_mut(&partition).unwrap().is_added = true;
                }
                (Some(Asked::End(at, commit)), Ok(Reply::Producer(Ok(producer)))) => {
                    let client = &mut self.clients[at];
                    client.producer = producer;
                    client.asked.clear();
                    for partition in std::mem::take(&mut client.added) {
                        self.fates.get_mut(&partition).unwrap().told = Some(commit);
                    }
                    let newest = self.newest.entry(client.id).or_insert(producer);
                    *newest = producer.max(*newest);
                    self.ended += 1;
                }
                (Some(Asked::Markers), told) => {
                    self.marker_asks = false;
                    if let Ok(Reply::Markers(all)) = told {
                        all.into_iter().for_each(|markers| self.handed_out(markers));
                    }
                }
                (Some(Asked::Marked(decision)), told) => {
                    self.written.remove(&decision);
                    if told == Ok(Reply::Done) {
                        self.under_way.remove(&decision);
                    }
                }
                _ => {}
            }
        }
    }

    fn began(&mut self, id: u64, producer: ProducerIdAndEpoch) {
        let version = if self.world.below(2) == 0 { TransactionVersion::V1 } else { TransactionVersion::V2 };
        let newest = self.newest.insert(id, producer);
        assert!(newest.is_none_or(|newest| newest <= producer), "{producer:?} after {newest:?}");
        if self.clients.iter().any(|client| (client.id, client.producer) == (id, producer)) {
            // One that did not hear the answer asks again.
            return;
        }
        let (added, asked) = (BTreeSet::new(), BTreeSet::new());
        self.clients.push(Client { id, producer, version, is_busy: false, added, asked });
    }

    fn handed_out(&mut self, markers: Markers) {
        let life = self.life;
        for partition in markers.partitions.values().flatten() {
            let fate = self.fates.get_mut(partition).unwrap();
            assert!(fate.marked.iter().all(|(commit, _)| *commit == markers.commit), "committed and aborted");
            assert!(fate.marked.iter().all(|(_, in_life)| *in_life != life), "marked twice");
            assert!(fate.may_commit || !markers.commit, "committed unasked");
            fate.marked.push((markers.commit, life));
        }
        let before = self.under_way.insert(markers.decision, markers);
        assert_eq!(before, None, "handed out while it is marked");
    }

    /// Callers are gone with the process.
    fn notice_crash(&mut self) {
        if self.life != self.world.crashes {
            self.life = self.world.crashes;
            self.asked.clear();
            self.under_way.clear();
            self.written.clear();
            self.marker_asks = false;
            self.clients.iter_mut().for_each(|client| client.is_busy = false);
        }
    }

    fn turn(&mut self) {
        let id = self.world.below(IDS);
        // Mostly the newest, sometimes one that was fenced.
        let of_id: Vec<usize> = (0..self.clients.len()).filter(|at| self.clients[*at].id == id).collect();
        let back = if self.world.below(6) == 0 { self.world.below(3) } else { 0 };
        let at = of_id.iter().rev().nth(usize::try_from(back).unwrap()).copied();
        let idle = at.filter(|at| !self.clients[*at].is_busy);
        match (self.world.below(12), at) {
            (0, _) if at.is_none() || self.world.below(3) == 0 => self.init(id, None),
            (1, Some(at)) if self.world.below(3) == 0 => self.init(id, Some(self.clients[at].producer)),
            (1..4, Some(_)) if idle.is_some() => self.add(idle.unwrap()),
            (4, Some(_)) if idle.is_some() => {
                let commit = self.world.below(3) > 0;
                self.end(idle.unwrap(), commit);
            }
            (5..8, _) => self.mark(),
            _ => self.world.happen(None),
        }
        self.notice_crash();
        self.hear();
    }

    /// Everything ends: what is open takes too long, what is decided is marked.
    fn finish(&mut self) {
        for _ in 0..8 {
            self.world.pass(i64::from(TIMEOUT_MS));
            for _ in 0..8 * IDS {
                self.world.settle(None);
                self.notice_crash();
                self.hear();
                self.mark();
            }
        }
        self.world.settle(None);
        self.hear();
    }
}

/// How many transactions were committed and aborted in a history.
fn judge(history: &mut History, seed: u64) -> (usize, usize) {
    let (mut committed, mut aborted) = (0, 0);
    for (partition, fate) in &history.fates {
        let marked = fate.marked.last().map(|(commit, _)| *commit);
        assert!(!fate.is_added || marked.is_some(), "seed {seed}: {partition} was never marked");
        assert!(
            fate.told.is_none_or(|told| marked == Some(told)),
            "seed {seed}: {partition} ended otherwise than its client was told: {fate:?}"
        );
        committed += usize::from(marked == Some(true));
        aborted += usize::from(marked == Some(false));
    }
    assert!(history.world.all_are_answered() || history.marker_asks, "seed {seed}: an answer was lost");
    let durable = history.world.replayed();
    let now = history.world.look(Coordinator::stored);
    assert_eq!(now, durable.stored(), "seed {seed}: rolled back is as if replayed");
    (committed, aborted)
}

#[test]
fn a_transaction_ends_one_way_whatever_happens() {
    let (mut ended, mut crashes, mut refused, mut committed, mut aborted) = (0, 0, 0, 0, 0);
    for seed in 0..1_500 {
        let mut history = History::new(seed);
        for _ in 0..150 {
            history.turn();
        }
        history.finish();
        let fates = judge(&mut history, seed);
        committed += fates.0;
        aborted += fates.1;
        ended += history.ended;
        crashes += history.world.crashes;
        refused += history.world.refused;
    }
    assert!(ended > 1_000 && crashes > 100 && refused > 100, "{ended} {crashes} {refused}");
    assert!(committed > 500 && aborted > 1_000, "{committed} {aborted}");
}

/// What a short history cannot have: epochs that are used up, ids that have lived through hundreds of crashes.
#[test]
fn a_transaction_ends_one_way_after_a_hundred_thousand_others() {
    let mut history = History::new(20_261_122);
    for _ in 0..100_000 {
        history.turn();
    }
    history.finish();
    let (committed, aborted) = judge(&mut history, 20_261_122);
    assert!(committed > 200 && aborted > 1_000, "{committed} {aborted}");
    assert!(history.world.crashes > 100, "{}", history.world.crashes);
}
