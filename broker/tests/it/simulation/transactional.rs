//! Transactional clients: they write to several partitions and commit offsets in one transaction, commit or abort it,
//! ask again when there was no answer, disappear, and fence those who have the same id.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use klamm_protocol::Request;
use klamm_runtime::Rng;

use super::client::{Role, Shared};
use super::connection::Connection;
use super::ledger::{Identity, Txn};
use super::model::Place;
use super::offsets::Commit;
use super::planted::Planted;
use super::txn_requests::{self as requests, FIRST, KEPT, SECOND, TxnBatch, Versions, Who};

/// How often something is asked for again within a transaction before it is given up.
const TRIES: u32 = 12;

#[derive(Debug)]
pub(super) struct Transactional {
    pub(super) id: String,
    pub(super) group: String,
    pub(super) timeout_ms: i32,
    pub(super) second: bool,
    pub(super) identity: Option<Identity>,
    /// Who it was, to be said when it begins anew.
    pub(super) was: Option<Identity>,
    /// What its batches begin with.
    pub(super) sequences: BTreeMap<Place, i32>,
    pub(super) open: Option<Open>,
    /// The transaction before.
    pub(super) last: Option<Txn>,
}

/// A transaction as its client has it.
#[derive(Debug, Default)]
pub(super) struct Open {
    pub(super) txn: Txn,
    /// Partitions of the topic that stays which take part, for who has to add them.
    pub(super) added: BTreeSet<i32>,
    pub(super) group_added: bool,
    /// Not acknowledged yet.
    pub(super) batches: Vec<TxnBatch>,
    pub(super) offset: Option<(Place, Commit)>,
    /// What else it wants to do before it ends.
    pub(super) wanted: u64,
    /// Something takes part in it for sure.
    pub(super) acknowledged: bool,
    pub(super) must_abort: bool,
    pub(super) tries: u32,
    /// Commit or abort, and how often that was asked for.
    pub(super) ending: Option<(bool, u32)>,
}

#[derive(Debug)]
pub(super) struct Asked {
    pub(super) what: What,
    pub(super) newest: Option<Identity>,
    /// A newer one had been answered before this was sent.
    pub(super) stale: bool,
}

#[derive(Debug)]
pub(super) enum What {
    Init,
    Add(Vec<i32>),
    AddGroup,
    /// The first record of each batch.
    Write(Vec<u64>),
    Offset(Commit),
    End,
}

impl Transactional {
    pub(super) fn of(id: &str, timeout_ms: i32) -> Self {
        Self {
            id: id.to_owned(),
            group: format!("of {id}"),
            timeout_ms,
            second: true,
            identity: None,
            was: None,
            sequences: BTreeMap::new(),
            open: None,
            last: None,
        }
    }

    pub(super) fn versions(&self) -> Versions {
        if self.second { SECOND } else { FIRST }
    }

    fn send<R: Request>(
        &self,
        (request, version): (&R, i16),
        what: What,
        connection: &mut Connection<Asked>,
        shared: &mut Shared,
    ) {
        let newest = shared.model.ledger.newest(&self.id);
        let own = if matches!(what, What::Init) { self.was } else { self.identity };
        let stale = own.is_some() && own < newest;
        shared.model.ledger.stale += u64::from(stale);
        connection.send(request, version, Some(Asked { what, newest, stale }));
    }

    /// Nothing is known any more; who asks next begins anew.
    pub(super) fn forget(&mut self, was: Option<Identity>) {
        *self = Self { was, last: self.last, second: self.second, ..Self::of(&self.id, self.timeout_ms) };
    }

    /// The identity that goes on the wire: its own.
    fn stamped(&self, identity: Identity, shared: &Shared) -> Identity {
        let newest = shared.model.ledger.newest(&self.id).filter(|_| shared.plants(Planted::accepts_zombies));
        newest.unwrap_or(identity)
    }

    fn begin(&mut self, shared: &mut Shared) {
        let txn = shared.number();
        shared.model.ledger.begun(txn);
        self.open = Some(Open { txn, wanted: 1 + shared.rng.below(4), ..Open::default() });
    }

    /// Batches for up to three partitions, of which those that have to be added are added first.
    fn write(&mut self, shared: &mut Shared) {
        let Some(open) = &mut self.open else { return };
        let mut places = shared.model.places();
        if !self.second {
            places.retain(|(topic, _)| shared.model.topics[topic].name == KEPT);
        }
        let wanted: BTreeSet<Place> =
            (0..1 + shared.rng.below(3)).filter_map(|_| shared.pick(&places)).collect();
        for place in wanted {
            let count = 1 + shared.rng.below(2);
            let numbers: Vec<u64> = (0..count).map(|_| shared.number()).collect();
            let late = self.last.filter(|_| shared.plants(Planted::writes_late));
            for number in &numbers {
                shared.model.ledger.wrote(late.unwrap_or(open.txn), *number);
            }
            let next = self.sequences.entry(place).or_insert(0);
            let base_sequence = *next;
            *next += count as i32;
            let dated_ms = shared.now_ms();
            open.batches.push(TxnBatch { place, base_sequence, numbers, dated_ms, sent: false });
        }
    }

    fn send_batches(&mut self, who: Identity, connection: &mut Connection<Asked>, shared: &mut Shared) {
        let versions = self.versions();
        let Some(open) = &mut self.open else { return };
        let missing: BTreeSet<i32> = open.batches.iter().map(|batch| batch.place.1).collect();
        let missing: Vec<i32> = missing.difference(&open.added).copied().collect();
        let who = Who { id: &self.id, identity: who };
        if !self.second && !missing.is_empty() {
            let request = requests::add(who, missing.clone());
            return self.send((&request, requests::ADD), What::Add(missing), connection, shared);
        }
        for batch in open.batches.iter_mut().filter(|batch| !batch.sent) {
            batch.sent = true;
            for number in &batch.numbers {
                shared.model.sent(*number, batch.place, batch.dated_ms, 120);
            }
        }
        let transactional = !(open.acknowledged && shared.plants(Planted::leaks_open_records));
        let request = requests::produce(who, &open.batches, transactional, versions, &shared.model);
        let firsts = open.batches.iter().map(|batch| batch.numbers[0]).collect();
        self.send((&request, versions.produce), What::Write(firsts), connection, shared);
    }

    fn send_offset(&mut self, who: Identity, connection: &mut Connection<Asked>, shared: &mut Shared) {
        let Some((place, commit)) = self.open.as_ref().and_then(|open| open.offset) else { return };
        let who = Who { id: &self.id, identity: who };
        if !self.second && !self.open.as_ref().is_some_and(|open| open.group_added) {
            let request = requests::add_group(who, &self.group);
            return self.send((&request, requests::ADD_GROUP), What::AddGroup, connection, shared);
        }
        if shared.plants(Planted::commits_offsets_at_once) {
            let request = requests::commit_at_once(&self.group, place, commit);
            return self.send((&request, super::committer::COMMIT), What::Offset(commit), connection, shared);
        }
        let request = requests::commit_offset(who, &self.group, place.1, commit);
        self.send((&request, self.versions().offset), What::Offset(commit), connection, shared);
    }

    fn offset(&mut self, shared: &mut Shared) {
        let mut places = shared.model.places();
        places.retain(|(topic, _)| shared.model.topics[topic].name == KEPT);
        let (Some(open), Some(place)) = (&mut self.open, shared.pick(&places)) else { return };
        let commit = Commit::try_from(shared.number()).unwrap();
        open.offset = Some((place, commit));
        shared.model.ledger.sent_offset(open.txn, &self.group, place, commit);
    }

    fn end(&mut self, who: Identity, connection: &mut Connection<Asked>, shared: &mut Shared) {
        let Some(open) = &mut self.open else { return };
        let may_commit = open.acknowledged && !open.must_abort;
        let commit = match open.ending {
            Some((commit, _)) => commit,
            None => may_commit && shared.chance(70),
        };
        open.ending = Some((commit, open.ending.map_or(1, |(_, tries)| tries + 1)));
        if commit {
            shared.model.ledger.asked_to_commit(open.txn);
        }
        let request = requests::end(Who { id: &self.id, identity: who }, commit);
        self.send((&request, self.versions().end), What::End, connection, shared);
    }

    /// What the open transaction needs next.
    fn go_on(&mut self, connection: &mut Connection<Asked>, shared: &mut Shared) {
        let (Some(identity), Some(open)) = (self.identity, &mut self.open) else { return };
        open.must_abort |= open.tries > TRIES;
        let idle = open.batches.is_empty() && open.offset.is_none();
        let ends = open.ending.is_some() || open.must_abort || (idle && open.wanted == 0);
        if idle && !ends {
            open.wanted -= 1;
            if shared.chance(30) { self.offset(shared) } else { self.write(shared) }
        }
        let identity = self.stamped(identity, shared);
        match &self.open {
            _ if ends => self.end(identity, connection, shared),
            Some(open) if !open.batches.is_empty() => self.send_batches(identity, connection, shared),
            _ => self.send_offset(identity, connection, shared),
        }
    }
}

impl Role for Transactional {
    type Asked = Asked;

    fn act(&mut self, connection: &mut Connection<Asked>, shared: &mut Shared) {
        if connection.waiting() > 0 {
            return;
        }
        if shared.chance(1) {
            // It disappears, and another begins in its place.
            return self.forget(self.identity.filter(|_| shared.chance(50)));
        }
        if self.identity.is_none() {
            if shared.chance(50) {
                return;
            }
            self.second = if self.was.is_some() { self.second } else { shared.chance(65) };
            let request = requests::init(&self.id, self.timeout_ms, self.was);
            return self.send((&request, self.versions().init), What::Init, connection, shared);
        }
        if self.open.is_none() {
            self.begin(shared);
        }
        self.go_on(connection, shared);
    }

    fn answered(&mut self, asked: Asked, frame: Bytes, shared: &mut Shared) {
        self.hear(asked, frame, shared);
    }

    fn lost(&mut self, _: Asked, _: &mut Shared) {
        if let Some(open) = &mut self.open {
            open.tries += 1;
        }
    }
}
