//! Random histories of transactions: clients of both versions that commit, abort, give up and come anew, on a disk
//! that is full now and then, with a power that goes. In the end every transaction is decided everywhere, alike in all
//! of its partitions, and as its client was told.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests fail like tests.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::time::Duration;

use futures::future::join_all;
use klamm_broker::disk::{Calls, DiskCall, MemoryDisk, Tear};
use klamm_protocol::records::{ControlRecord, batches};
use klamm_runtime::{Rng, SeededRng};

use super::transacting::*;
use super::wire::*;

const TOPICS: [&str; 3] = ["t", "u", "v"];
const IDS: [&str; 4] = ["one", "two", "three", "four"];

/// What a client knows of how a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Committed,
    /// It never asked to commit.
    Aborted,
    Unknown,
}

/// A transaction, as its client saw it.
#[derive(Debug)]
struct Attempt {
    /// What was acknowledged, by topic.
    acknowledged: Vec<(&'static str, String)>,
    /// What may be there.
    unknown: Vec<(&'static str, String)>,
    fate: Fate,
}

fn below(rng: &SeededRng, bound: u64) -> u64 {
    rng.next_u64() % bound
}

/// A client and what it remembers.
struct Actor<'a> {
    wire: Wire,
    id: &'static str,
    rng: &'a SeededRng,
    client: Option<Client>,
    version_2: bool,
    /// The next numbers of its batches, by topic.
    sequences: BTreeMap<&'static str, i32>,
    name: String,
    attempts: Vec<Attempt>,
}

impl Actor<'_> {
    async fn run(mut self) -> Vec<Attempt> {
        let mut failures = 0;
        for number in 0..20 {
            if failures == 5 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(below(self.rng, 20))).await;
            if self.client.is_none() || below(self.rng, 8) == 0 {
                let given = ask_init(&mut self.wire, self.id, 60_000, None).await;
                if given.error_code != 0 {
                    failures += 1;
                    continue;
                }
                self.client = Some(Client { id: given.producer_id, epoch: given.producer_epoch });
                self.version_2 = below(self.rng, 2) == 0;
                self.sequences.clear();
            }
            if !self.transact(number).await {
                self.client = None;
                failures += 1;
            }
        }
        self.attempts
    }

    /// One transaction; false when the client is of no use any more.
    async fn transact(&mut self, number: usize) -> bool {
        let Some(client) = self.client else { return false };
        let (acknowledged, unknown) = (Vec::new(), Vec::new());
        let mut attempt = Attempt { acknowledged, unknown, fate: Fate::Aborted };
        let written = self.write_all(client, number, &mut attempt).await;
        let end = below(self.rng, 6);
        if !written || end == 0 {
            self.attempts.push(attempt);
            // It is open, and whoever comes anew ends it.
            return false;
        }
        let commit = end > 2;
        let mut request = end_request(client, commit);
        request.transactional_id = self.id.into();
        let version = if self.version_2 { END_2 } else { 4 };
        let ended = self.wire.ask_in(&request, version).await;
        attempt.fate = match (commit, ended.error_code) {
            (true, 0) => Fate::Committed,
            (true, _) => Fate::Unknown,
            (false, _) => Fate::Aborted,
        };
        self.attempts.push(attempt);
        if ended.error_code == 0 && self.version_2 {
            self.client = Some(Client { id: ended.producer_id, epoch: ended.producer_epoch });
            self.sequences.clear();
        }
        ended.error_code == 0
    }

    async fn write_all(&mut self, client: Client, number: usize, attempt: &mut Attempt) -> bool {
        let writes = 1 + below(self.rng, 5);
        for write_number in 0..writes {
            let topic = TOPICS[usize::try_from(below(self.rng, 3)).unwrap()];
            if !self.version_2 {
                let mut request = add_request(client, &[(topic, &[0])]);
                request.v3_and_below_transactional_id = self.id.into();
                if add(&mut self.wire, &request, 3).await.values().any(|code| *code != 0) {
                    return false;
                }
            }
            let value = format!("{}.{number}.{write_number}", self.name);
            let sequence = self.sequences.entry(topic).or_default();
            let mut request = write(client, topic, *sequence, &value);
            *sequence += 1;
            request.transactional_id = Some(self.id.into());
            let version = if self.version_2 { PRODUCE_2 } else { 9 };
            if produce(&mut self.wire, &request, version).await.error_code != 0 {
                attempt.unknown.push((topic, value));
                return false;
            }
            attempt.acknowledged.push((topic, value));
        }
        true
    }
}

/// What may go wrong in a round.
fn trouble(disk: &MemoryDisk, rng: &SeededRng) {
    let writes = Calls::of(&[DiskCall::Write, DiskCall::Sync]);
    match below(rng, 4) {
        0 => {}
        1 => {
            let topic = ["/t-0/", "/u-0/", "/v-0/", "/__transaction_state-0/"];
            let on = topic[usize::try_from(below(rng, 4)).unwrap()];
            let full = Calls::of(&[DiskCall::Write]).on(on).nth(below(rng, 30));
            disk.fail(full, ErrorKind::StorageFull);
        }
        2 => disk.cut_power(writes.nth(below(rng, 300)), Tear::None),
        _ => disk.cut_power(writes.nth(below(rng, 300)), Tear::Prefix(below(rng, 1_000))),
    }
}

/// What became of the values of a topic, by readers of committed records.
async fn fates(wire: &mut Wire, topic: &str) -> BTreeMap<String, bool> {
    let (mut offset, mut open, mut decided) = (0, BTreeMap::<i64, Vec<String>>::new(), BTreeMap::new());
    loop {
        let (found, before) = (wire.fetch(topic, offset).await, offset);
        for batch in batches(found.records.unwrap().into_bytes().unwrap()) {
            let batch = batch.unwrap();
            let header = *batch.header();
            offset = header.next_offset();
            for record in batch.records(1 << 20).unwrap().iter() {
                let record = record.unwrap();
                if !header.is_control() {
                    let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
                    open.entry(header.producer_id).or_default().push(value);
                    continue;
                }
                let ControlRecord::EndTxn(end) = ControlRecord::parse(record.key, record.value).unwrap()
                else {
                    panic!("a control record of another kind")
                };
                for value in open.remove(&header.producer_id).unwrap_or_default() {
                    assert_eq!(decided.insert(value, end.committed), None, "a value twice");
                }
            }
        }
        if offset == before {
            assert_eq!(open, BTreeMap::new(), "{topic}: nobody ended these");
            assert_eq!(found.last_stable_offset, offset, "{topic}: readers wait");
            return decided;
        }
    }
}

async fn history(seed: u64) {
    let rng = SeededRng::new(seed);
    let mut broker = Powered::start().await;
    broker.connect().await.metadata(&TOPICS).await;
    let mut attempts = Vec::new();
    for round in 0..6 {
        trouble(&broker.disk, &rng);
        let mut actors = Vec::new();
        for id in IDS {
            let (wire, name) = (broker.connect().await, format!("{round}.{id}"));
            let (client, version_2, sequences) = (None, false, BTreeMap::new());
            let actor =
                Actor { wire, id, rng: &rng, client, version_2, sequences, name, attempts: Vec::new() };
            actors.push(actor.run());
        }
        attempts.extend(join_all(actors).await.into_iter().flatten());
        let restart = |disk: &MemoryDisk| {
            if !disk.power_on() {
                disk.kill();
            }
        };
        broker = broker.again(restart).await;
    }
    let mut wire = broker.connect().await;
    tokio::time::sleep(Duration::from_secs(65)).await;
    for id in IDS {
        for _ in 0..1_000 {
            let now = state(&mut wire, id).await;
            if now.starts_with("Complete") || now == "Empty" || now == "TRANSACTIONAL_ID_NOT_FOUND" {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let mut found = BTreeMap::new();
    for topic in TOPICS {
        for (value, committed) in fates(&mut wire, topic).await {
            found.insert((topic, value), committed);
        }
    }
    check(seed, &attempts, &found);
}

fn check(seed: u64, attempts: &[Attempt], found: &BTreeMap<(&'static str, String), bool>) {
    let mut committed = 0;
    for attempt in attempts {
        let fates: BTreeSet<Option<bool>> =
            attempt.acknowledged.iter().map(|value| found.get(value).copied()).collect();
        assert!(fates.len() <= 1, "seed {seed}: torn: {attempt:?}");
        let fate = fates.first().copied().flatten();
        assert!(attempt.acknowledged.is_empty() || fate.is_some(), "seed {seed}: lost: {attempt:?}");
        match attempt.fate {
            Fate::Committed => assert_eq!(fate, Some(true), "seed {seed}: {attempt:?}"),
            Fate::Aborted => assert_ne!(fate, Some(true), "seed {seed}: {attempt:?}"),
            Fate::Unknown => {}
        }
        for value in &attempt.unknown {
            assert_ne!(found.get(value), Some(&true), "seed {seed}: it was not to be committed: {attempt:?}");
        }
        committed += usize::from(fate == Some(true));
    }
    assert!(committed > 10, "seed {seed}: a history with {committed} committed transactions shows nothing");
}

#[tokio::test(start_paused = true)]
async fn random_histories_end_as_clients_were_told() {
    for seed in 0..40 {
        history(seed).await;
    }
}
