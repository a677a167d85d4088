//! What is known of transactions: which records and offsets are theirs, what was asked and told, and how they ended by
//! all that anybody saw. Whatever says that one is committed and whatever says that it is not must never meet.

use std::collections::BTreeMap;

use super::model::{Model, Place};
use super::offsets::Commit;

/// A transaction of the run, by its number: of one transactional id the later one has the higher number.
pub(super) type Txn = u64;

/// A producer id and an epoch. A newer one of the same transactional id is higher.
pub(super) type Identity = (i64, i16);

#[derive(Debug, Default)]
struct Known {
    /// Its client asked to commit it, and with that has an answer to everything else.
    asked_to_commit: bool,
    /// How it ended, and what says so.
    ended: Option<(bool, String)>,
}

/// An offset that was sent within a transaction.
#[derive(Debug)]
struct SentOffset {
    txn: Txn,
    commit: Commit,
    acknowledged: bool,
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    transactions: BTreeMap<Txn, Known>,
    records: BTreeMap<u64, Txn>,
    /// By group and partition, in the order in which they were sent.
    offsets: BTreeMap<(String, Place), Vec<SentOffset>>,
    /// The newest that somebody was told, by transactional id.
    newest: BTreeMap<String, Identity>,
    /// Up to where readers of committed records saw, or were told that they could.
    stable: BTreeMap<Place, i64>,
    pub(super) committed: u64,
    pub(super) aborted: u64,
    /// Requests that came from an epoch behind the newest.
    pub(super) stale: u64,
}

/// A question after an offset that a transaction may have committed.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    pub(super) group: String,
    pub(super) place: Place,
    /// What was acknowledged when it was asked.
    acknowledged: Vec<Commit>,
}

impl Ledger {
    pub(super) fn begun(&mut self, txn: Txn) {
        self.transactions.insert(txn, Known::default());
    }

    pub(super) fn wrote(&mut self, txn: Txn, number: u64) {
        self.records.insert(number, txn);
    }

    pub(super) fn asked_to_commit(&mut self, txn: Txn) {
        if let Some(known) = self.transactions.get_mut(&txn) {
            known.asked_to_commit = true;
        }
    }

    pub(super) fn sent_offset(&mut self, txn: Txn, group: &str, place: Place, commit: Commit) {
        let sent = SentOffset { txn, commit, acknowledged: false };
        self.offsets.entry((group.to_owned(), place)).or_default().push(sent);
    }

    pub(super) fn offset_acknowledged(&mut self, commit: Commit) {
        let all = self.offsets.values_mut().flatten();
        all.filter(|sent| sent.commit == commit).for_each(|sent| sent.acknowledged = true);
    }

    /// The newest identity that a client of this id was told.
    pub(super) fn newest(&self, id: &str) -> Option<Identity> {
        self.newest.get(id).copied()
    }

    pub(super) fn told(&mut self, id: &str, identity: Identity) {
        let newest = self.newest.entry(id.to_owned()).or_insert(identity);
        *newest = identity.max(*newest);
    }

    pub(super) fn ids(&self) -> Vec<String> {
        self.newest.keys().cloned().collect()
    }

    /// The offsets that anybody committed within a transaction.
    pub(super) fn places_of_offsets(&self) -> Vec<(String, Place)> {
        self.offsets.keys().cloned().collect()
    }

    pub(super) fn question(&self, group: &str, place: Place) -> Pending {
        let sent = self.offsets.get(&(group.to_owned(), place));
        let acknowledged = sent.into_iter().flatten().filter(|sent| sent.acknowledged);
        let acknowledged = acknowledged.map(|sent| sent.commit).collect();
        Pending { group: group.to_owned(), place, acknowledged }
    }

    pub(super) fn stable(&self, place: Place) -> i64 {
        self.stable.get(&place).copied().unwrap_or(0)
    }

    /// Something says how a transaction ended. All that ever says so has to agree.
    fn ended(&mut self, txn: Txn, committed: bool, how: &str) -> Result<(), String> {
        let Some(known) = self.transactions.get_mut(&txn) else {
            return Err(format!("{how}: of no transaction"));
        };
        if committed && !known.asked_to_commit {
            return Err(format!("{how}, and nobody asked to commit transaction {txn}"));
        }
        match &known.ended {
            Some((before, by)) if *before != committed => {
                let end = |committed| if committed { "committed" } else { "not committed" };
                Err(format!("{how}: transaction {txn} is {}; it was {}: {by}", end(committed), end(*before)))
            }
            Some(_) => Ok(()),
            None => {
                known.ended = Some((committed, how.to_owned()));
                let count = if committed { &mut self.committed } else { &mut self.aborted };
                *count += 1;
                Ok(())
            }
        }
    }

    /// An offset that is committed: its transaction is, and those that committed another one later are not.
    fn saw_offset(&mut self, asked: &Pending, found: Commit) -> Result<(), String> {
        let sent = self.offsets.get(&(asked.group.clone(), asked.place));
        let sent: Vec<(Txn, Commit)> =
            sent.into_iter().flatten().map(|sent| (sent.txn, sent.commit)).collect();
        let of = |commit: Commit| sent.iter().find(|(_, other)| *other == commit).map(|(txn, _)| *txn);
        let of_found = of(found);
        if let Some(txn) = of_found {
            self.ended(txn, true, &format!("offset {found} of {} is there", asked.group))?;
        } else if found != -1 {
            return Err(format!("nobody committed offset {found} of {}", asked.group));
        }
        for later in asked.acknowledged.iter().filter(|later| **later > found) {
            let what = format!("offset {found} of {} is there, and not {later}", asked.group);
            match of(*later) {
                txn if txn == of_found => return Err(what),
                Some(txn) => self.ended(txn, false, &what)?,
                None => {}
            }
        }
        Ok(())
    }
}

impl Model {
    pub(super) fn transaction_ended(&mut self, txn: Txn, committed: bool, how: &str) {
        if let Err(wrong) = self.ledger.ended(txn, committed, how) {
            self.fail(wrong);
        }
    }

    /// A client has got an identity. Nobody had it before, nor a newer one.
    pub(super) fn identity_given(&mut self, id: &str, newest_when_asked: Option<Identity>, given: Identity) {
        let newer = newest_when_asked.is_none_or(|newest| given > newest);
        self.check(newer, || format!("{id} became {given:?}, and somebody was {newest_when_asked:?} before"));
        if self.ledger.newest(id).is_none_or(|newest| newest.0 != given.0) {
            self.producer_id(given.0);
        }
        self.ledger.told(id, given);
    }

    /// A reader of committed records was given one, or passed one that he is told was aborted.
    pub(super) fn read_committed(&mut self, offset: i64, number: u64, given: bool) {
        match self.ledger.records.get(&number).copied() {
            Some(txn) => {
                let how = if given { "is read" } else { "is passed over" };
                self.transaction_ended(txn, given, &format!("record {number} at {offset} {how}"));
            }
            None => self.check(given, || format!("record {number} is passed over, and is of no transaction")),
        }
    }

    /// What an answer says of how far readers of committed records see; that never goes back.
    pub(super) fn is_stable_until(&mut self, place: Place, known: i64, found: i64, high_watermark: i64) {
        if self.is_gone(place.0) {
            return;
        }
        self.check(found >= known, || format!("the last stable offset is {found} and was {known}"));
        self.check(found <= high_watermark, || format!("{found} is stable, and {high_watermark} is the end"));
        let stable = self.ledger.stable.entry(place).or_insert(0);
        *stable = found.max(*stable);
    }

    /// A committed offset as one is told who waits for open transactions.
    pub(super) fn offset_is(&mut self, asked: &Pending, found: Commit) {
        if !self.is_gone(asked.place.0)
            && let Err(wrong) = self.ledger.saw_offset(asked, found)
        {
            self.fail(wrong);
        }
    }
}

#[test]
fn what_says_how_a_transaction_ended_agrees() {
    let place = (klamm_protocol::Uuid::ZERO, 0);
    let mut ledger = Ledger::default();
    for txn in [1, 2, 3] {
        ledger.begun(txn);
        ledger.sent_offset(txn, "g", place, 10 * Commit::try_from(txn).unwrap());
    }
    ledger.ended(1, true, "too early").unwrap_err();
    ledger.asked_to_commit(1);
    ledger.ended(1, true, "seen").unwrap();
    ledger.ended(1, false, "passed over").unwrap_err();
    ledger.offset_acknowledged(10);
    ledger.offset_acknowledged(20);
    ledger.asked_to_commit(2);
    ledger.saw_offset(&ledger.question("g", place), -1).unwrap_err();
    ledger.saw_offset(&ledger.question("g", place), 7).unwrap_err();
    ledger.saw_offset(&ledger.question("g", place), 10).unwrap();
    ledger.ended(2, true, "its offset was not there").unwrap_err();
    ledger.saw_offset(&ledger.question("g", place), 30).unwrap_err();
}
