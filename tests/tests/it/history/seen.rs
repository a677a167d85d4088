//! A history by what the checks ask for: who sent what, where it was seen, and how transactions went. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::operation::{
    Found, History, Isolation, Micros, Number, Operation, Outcome, Place, Read, Send, Transaction, What,
};

pub(super) struct Seen<'a> {
    pub(super) history: &'a History,
    pub(super) sends: BTreeMap<Number, Sent<'a>>,
    /// Where each record was read, at whatever isolation and time.
    pub(super) landed: BTreeMap<Number, BTreeSet<(Place, i64)>>,
    pub(super) transactions: BTreeMap<u64, Fate<'a>>,
}

pub(super) struct Sent<'a> {
    pub(super) operation: &'a Operation,
    pub(super) send: &'a Send,
}

/// How a transaction went.
pub(super) struct Fate<'a> {
    pub(super) transaction: &'a Transaction,
    /// The first that its client asked for to end it, and whether it is a commit.
    pub(super) end: Option<(&'a Operation, bool)>,
    pub(super) sends: Vec<Number>,
    /// Whether something was asked for that the coordinator hears of.
    pub(super) touched: bool,
}

impl Fate<'_> {
    /// When its client asked to commit it.
    pub(super) fn asked_to_commit(&self) -> Option<Micros> {
        self.end.filter(|(_, commit)| *commit).map(|(operation, _)| operation.begun)
    }

    /// Its client was told that it is committed, at this time.
    pub(super) fn committed(&self) -> Option<Micros> {
        self.end.filter(|(_, commit)| *commit).and_then(|(operation, _)| operation.ended())
    }

    /// Whether it may be committed at all.
    pub(super) fn may_be_committed(&self) -> bool {
        self.end.is_some_and(|(operation, commit)| commit && operation.outcome != Outcome::Fail)
    }
}

impl<'a> Seen<'a> {
    pub(super) fn of(history: &'a History) -> Self {
        let (sends, landed, transactions) = Default::default();
        let mut seen = Self { history, sends, landed, transactions };
        for operation in &history.operations {
            seen.take(operation);
        }
        for ((place, _), read) in &history.finals {
            for found in read.records.values() {
                seen.land(*place, found);
            }
        }
        seen
    }

    fn take(&mut self, operation: &'a Operation) {
        match &operation.what {
            What::Send(send) => {
                self.sends.insert(send.number, Sent { operation, send });
                if let Some(transaction) = &send.transaction {
                    let fate = self.fate(transaction);
                    fate.sends.push(send.number);
                    fate.touched |= operation.outcome != Outcome::Fail;
                }
            }
            What::Begin(transaction) => drop(self.fate(transaction)),
            What::End { transaction, commit } => {
                self.fate(transaction).end.get_or_insert((operation, *commit));
            }
            What::SendOffsets { transaction, .. } => {
                self.fate(transaction).touched |= operation.outcome != Outcome::Fail;
            }
            What::Read(read) => read.records.iter().for_each(|found| self.land(read.place, found)),
            What::Own { .. } | What::Commit { .. } | What::FetchOffset { .. } | What::Look { .. } => {}
        }
    }

    fn fate(&mut self, transaction: &'a Transaction) -> &mut Fate<'a> {
        let new = Fate { transaction, end: None, sends: Vec::new(), touched: false };
        self.transactions.entry(transaction.number).or_insert(new)
    }

    fn land(&mut self, place: Place, found: &Found) {
        if let Some(number) = found.number {
            self.landed.entry(number).or_default().insert((place, found.offset));
        }
    }

    /// All that readers got, with who got it and when.
    pub(super) fn reads(&self) -> impl Iterator<Item = (&'a Operation, &'a Read)> {
        self.history.operations.iter().filter_map(|operation| match &operation.what {
            What::Read(read) => Some((operation, read)),
            _ => None,
        })
    }

    /// Sends that were acknowledged, with where and when.
    pub(super) fn acknowledged(&self) -> impl Iterator<Item = (&Sent<'a>, i64, Micros)> {
        self.sends.values().filter_map(|sent| Some((sent, sent.send.offset?, sent.operation.ended()?)))
    }

    /// Whether a record is there for readers of this isolation in the end.
    pub(super) fn is_final(&self, number: Number, isolation: Isolation) -> bool {
        let at = self.landed.get(&number).into_iter().flatten();
        at.into_iter().any(|(place, offset)| {
            let read = self.history.finals.get(&(*place, isolation));
            read.and_then(|read| read.records.get(offset)).is_some_and(|found| found.number == Some(number))
        })
    }

    /// The transaction that a record was sent in.
    pub(super) fn transaction_of(&self, number: Number) -> Option<&Fate<'a>> {
        let transaction = self.sends.get(&number)?.send.transaction.as_ref()?;
        self.transactions.get(&transaction.number)
    }
}
