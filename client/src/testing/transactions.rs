//! The coordinator of transactions, as it was before KIP-890: producer ids, epochs, and what each transaction
//! holds. Pure.

use std::collections::{BTreeMap, BTreeSet};

use klamm_protocol::ErrorCode;

use crate::types::{OffsetAndMetadata, TopicPartition};

/// Most transactional ids.
const IDS_MAX: usize = 10_000;

#[derive(Debug, Default)]
pub(super) struct Transactions {
    /// The last producer id that was given out.
    last_producer_id: i64,
    by_id: BTreeMap<String, Transaction>,
}

#[derive(Debug)]
struct Transaction {
    producer_id: i64,
    epoch: i16,
    partitions: BTreeSet<TopicPartition>,
    offsets: Vec<Offset>,
    groups: BTreeSet<String>,
    /// How the last one ended, until the next begins.
    ended: Option<bool>,
}

/// An offset that counts when its transaction is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Offset {
    pub(super) group: String,
    pub(super) partition: TopicPartition,
    pub(super) offset: OffsetAndMetadata,
}

/// A transaction that has just ended.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) producer_id: i64,
    pub(super) epoch: i16,
    pub(super) committed: bool,
    pub(super) partitions: BTreeSet<TopicPartition>,
    /// None when it was aborted.
    pub(super) offsets: Vec<Offset>,
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asker<'a> {
    pub(super) transactional_id: &'a str,
    pub(super) producer_id: i64,
    pub(super) epoch: i16,
}

impl Transactions {
    /// An id for a producer without transactions.
    pub(super) fn new_producer(&mut self) -> i64 {
        self.last_producer_id += 1;
        self.last_producer_id
    }

    /// Id and epoch for a producer with transactions, which fences the one before it, and what that left open.
    pub(super) fn init(&mut self, transactional_id: &str) -> Result<(i64, i16, Option<Ended>), ErrorCode> {
        if transactional_id.is_empty() {
            return Err(ErrorCode::InvalidRequest);
        }
        if !self.by_id.contains_key(transactional_id) && self.by_id.len() >= IDS_MAX {
            return Err(ErrorCode::PolicyViolation);
        }
        let next_id = self.last_producer_id + 1;
        let mut is_new = false;
        let transaction = self.by_id.entry(transactional_id.to_owned()).or_insert_with(|| {
            is_new = true;
            Transaction::of(next_id)
        });
        if is_new {
            self.last_producer_id = next_id;
            return Ok((transaction.producer_id, transaction.epoch, None));
        }
        // With the next epoch, so that the marker fences the producer whose transaction this was.
        transaction.epoch = transaction.epoch.checked_add(1).unwrap_or(0);
        let left_open = transaction.is_open().then(|| transaction.end(false));
        transaction.ended = None;
        Ok((transaction.producer_id, transaction.epoch, left_open))
    }

    fn of(&mut self, asker: Asker<'_>) -> Result<&mut Transaction, ErrorCode> {
        let transaction =
            self.by_id.get_mut(asker.transactional_id).ok_or(ErrorCode::InvalidProducerIdMapping)?;
        match transaction {
            known if known.producer_id != asker.producer_id => Err(ErrorCode::InvalidProducerIdMapping),
            known if known.epoch != asker.epoch => Err(ErrorCode::ProducerFenced),
            known => Ok(known),
        }
    }

    pub(super) fn add_partition(
        &mut self,
        asker: Asker<'_>,
        partition: TopicPartition,
    ) -> Result<(), ErrorCode> {
        let transaction = self.of(asker)?;
        transaction.ended = None;
        transaction.partitions.insert(partition);
        Ok(())
    }

    pub(super) fn add_group(&mut self, asker: Asker<'_>, group: &str) -> Result<(), ErrorCode> {
        let transaction = self.of(asker)?;
        transaction.ended = None;
        transaction.groups.insert(group.to_owned());
        Ok(())
    }

    pub(super) fn add_offset(&mut self, asker: Asker<'_>, offset: Offset) -> Result<(), ErrorCode> {
        let transaction = self.of(asker)?;
        if !transaction.groups.contains(&offset.group) {
            return Err(ErrorCode::InvalidTxnState);
        }
        transaction.offsets.push(offset);
        Ok(())
    }

    /// Whether a batch of this producer may be written to the partition.
    pub(super) fn may_write(
        &mut self,
        asker: Asker<'_>,
        partition: &TopicPartition,
    ) -> Result<(), ErrorCode> {
        match self.of(asker)?.partitions.contains(partition) {
            true => Ok(()),
            false => Err(ErrorCode::InvalidTxnState),
        }
    }

    /// Ends the open transaction; nothing when the same end is asked for again.
    pub(super) fn end(&mut self, asker: Asker<'_>, commit: bool) -> Result<Option<Ended>, ErrorCode> {
        let transaction = self.of(asker)?;
        match (transaction.is_open(), transaction.ended) {
            (true, _) => Ok(Some(transaction.end(commit))),
            (false, Some(ended)) if ended == commit => Ok(None),
            (false, _) => Err(ErrorCode::InvalidTxnState),
        }
    }
}

impl Transaction {
    fn of(producer_id: i64) -> Self {
        let (partitions, offsets, groups) = Default::default();
        Self { producer_id, epoch: 0, partitions, offsets, groups, ended: None }
    }

    fn is_open(&self) -> bool {
        !self.partitions.is_empty() || !self.groups.is_empty()
    }

    fn end(&mut self, committed: bool) -> Ended {
        self.ended = Some(committed);
        self.groups.clear();
        let mut offsets = std::mem::take(&mut self.offsets);
        if !committed {
            offsets.clear();
        }
        let partitions = std::mem::take(&mut self.partitions);
        Ended { producer_id: self.producer_id, epoch: self.epoch, committed, partitions, offsets }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asker(epoch: i16) -> Asker<'static> {
        Asker { transactional_id: "x", producer_id: 1, epoch }
    }

    #[test]
    fn a_transaction_is_opened_and_ended_once() {
        let mut all = Transactions::default();
        assert_eq!(all.init("x"), Ok((1, 0, None)));
        assert_eq!(all.init(""), Err(ErrorCode::InvalidRequest));
        assert_eq!(all.new_producer(), 2);
        let (here, other) = (TopicPartition::new("t", 0), TopicPartition::new("t", 1));
        assert_eq!(all.end(asker(0), true), Err(ErrorCode::InvalidTxnState), "nothing is open");
        all.add_partition(asker(0), here.clone()).unwrap();
        assert_eq!(all.may_write(asker(0), &here), Ok(()));
        assert_eq!(all.may_write(asker(0), &other), Err(ErrorCode::InvalidTxnState));
        let offset = Offset { group: "g".to_owned(), partition: other, offset: 7.into() };
        assert_eq!(all.add_offset(asker(0), offset.clone()), Err(ErrorCode::InvalidTxnState));
        all.add_group(asker(0), "g").unwrap();
        all.add_offset(asker(0), offset.clone()).unwrap();
        let ended = all.end(asker(0), true).unwrap().unwrap();
        assert_eq!((ended.producer_id, ended.epoch, ended.committed), (1, 0, true));
        assert_eq!((ended.partitions, ended.offsets), (BTreeSet::from([here.clone()]), vec![offset.clone()]));
        assert_eq!(all.end(asker(0), true), Ok(None), "asked again");
        assert_eq!(all.end(asker(0), false), Err(ErrorCode::InvalidTxnState));
        assert_eq!(all.may_write(asker(0), &here), Err(ErrorCode::InvalidTxnState));
        all.add_group(asker(0), "g").unwrap();
        all.add_offset(asker(0), offset).unwrap();
        assert_eq!(all.end(asker(0), false).unwrap().unwrap().offsets, []);
    }

    #[test]
    fn who_comes_next_fences_and_ends_what_was_open() {
        let mut all = Transactions::default();
        all.init("x").unwrap();
        all.add_partition(asker(0), TopicPartition::new("t", 0)).unwrap();
        let (id, epoch, left_open) = all.init("x").unwrap();
        let left_open = left_open.unwrap();
        assert_eq!((id, epoch, left_open.epoch, left_open.committed), (1, 1, 1, false));
        assert_eq!(left_open.partitions.len(), 1);
        assert_eq!(all.add_group(asker(0), "g"), Err(ErrorCode::ProducerFenced));
        assert_eq!(all.end(asker(1), false), Err(ErrorCode::InvalidTxnState), "that end was not asked for");
        let stranger = Asker { producer_id: 5, ..asker(1) };
        assert_eq!(all.add_group(stranger, "g"), Err(ErrorCode::InvalidProducerIdMapping));
        let unknown = Asker { transactional_id: "y", ..asker(1) };
        assert_eq!(all.add_group(unknown, "g"), Err(ErrorCode::InvalidProducerIdMapping));
    }
}
