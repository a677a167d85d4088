//! What each producer wrote last to a partition: the state machine behind idempotence. Pure.

use std::collections::{BTreeSet, VecDeque};

use klamm_protocol::records::{BatchHeader, EndTxnMarker, NO_SEQUENCE, next_sequence};

use super::error::ProducerError;
use super::layered_map::{Frozen, LayeredMap};
use super::marker::{End, Guard};
use super::transactions::TransactionStep;
use crate::log::AbortedTransaction;

/// How many batches of a producer are remembered: a client has at most 5 requests in flight, so
/// any of these may come again.
pub(super) const REMEMBERED_BATCHES: usize = 5;

/// A producer that the partition remembers (`DescribeProducers`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActiveProducer {
    /// Its id.
    pub producer_id: i64,
    /// Its epoch.
    pub producer_epoch: i16,
    /// The sequence number of its last record, or -1.
    pub last_sequence: i32,
    /// When it wrote last, in milliseconds.
    pub last_timestamp: i64,
    /// The epoch of the transaction coordinator that wrote the last marker, or -1.
    pub coordinator_epoch: i32,
    /// Where its open transaction begins, or -1.
    pub current_txn_start_offset: i64,
}

/// A batch that was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AppendedBatch {
    pub(crate) last_sequence: i32,
    pub(crate) last_offset: i64,
    /// The last offset less the first; the same for the sequence numbers.
    pub(crate) offset_delta: i32,
    pub(crate) timestamp: i64,
}

impl AppendedBatch {
    pub(crate) fn base_offset(&self) -> i64 {
        self.last_offset - i64::from(self.offset_delta)
    }

    fn base_sequence(&self) -> i32 {
        self.last_sequence.wrapping_sub(self.offset_delta) & i32::MAX
    }
}

/// What is known of one producer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Producer {
    pub(crate) epoch: i16,
    /// The last batches of this epoch, oldest first.
    pub(crate) batches: VecDeque<AppendedBatch>,
    pub(crate) coordinator_epoch: i32,
    pub(crate) txn_start: Option<i64>,
    /// The broker's clock when it wrote last. Not its records' timestamps: a producer that writes history is not idle.
    pub(crate) seen_ms: i64,
    /// How many ends had been counted with the last of its own, see [`ProducerStates::count_end`].
    pub(crate) ended_at: u64,
}

impl Producer {
    fn new(epoch: i16) -> Self {
        let (batches, coordinator_epoch) = (VecDeque::new(), -1);
        Self { epoch, batches, coordinator_epoch, txn_start: None, seen_ms: -1, ended_at: 0 }
    }

    fn last_sequence(&self) -> i32 {
        self.batches.back().map_or(NO_SEQUENCE, |batch| batch.last_sequence)
    }

    /// Takes note of a batch of its epoch.
    fn note(&mut self, header: &BatchHeader, marker: Option<EndTxnMarker>) -> Option<TransactionStep> {
        if let Some(marker) = marker {
            self.coordinator_epoch = marker.coordinator_epoch;
            let start = self.txn_start.take()?;
            return Some(TransactionStep::Ended { start, end: header.last_offset() });
        }
        if header.is_control() {
            return None;
        }
        self.remember(AppendedBatch {
            last_sequence: header.last_sequence(),
            last_offset: header.last_offset(),
            offset_delta: header.last_offset_delta,
            timestamp: header.max_timestamp,
        });
        if !header.is_transactional() || self.txn_start.is_some() {
            return None;
        }
        self.txn_start = Some(header.base_offset);
        let (producer_id, producer_epoch) = (header.producer_id, header.producer_epoch);
        Some(TransactionStep::Began { start: header.base_offset, producer_id, producer_epoch })
    }

    pub(crate) fn remember(&mut self, batch: AppendedBatch) {
        if self.batches.len() == REMEMBERED_BATCHES {
            self.batches.pop_front();
        }
        self.batches.push_back(batch);
    }
}

/// Whether a batch may be appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Append,
    /// The same batch is in the log; the answer is the one that it got.
    Duplicate(AppendedBatch),
}

/// The producers of a partition. Ordered maps, so that the same history gives the same snapshot.
#[derive(Debug, Clone, Default)]
pub(crate) struct ProducerStates {
    producers: LayeredMap<Producer>,
    /// When each producer wrote last, and its id: those that may be forgotten, because they have no transaction open.
    idle: BTreeSet<(i64, i64)>,
    /// Where each open transaction begins, and whose it is.
    open: BTreeSet<(i64, i64)>,
    /// How many transactions have ended that guards have to know of.
    ends: u64,
    /// How many there had been with the last of a producer that was forgotten since.
    forgotten_at: u64,
}

impl ProducerStates {
    /// Whether a producer's batch may be appended. `header` has been validated.
    pub(crate) fn check(&self, header: &BatchHeader) -> Result<Verdict, ProducerError> {
        let producer_id = header.producer_id;
        let Some(known) = self.producers.get(producer_id).filter(|_| header.has_producer_id()) else {
            // Nothing is known of it, perhaps because it expired: any sequence number is taken (KIP-360).
            return Ok(Verdict::Append);
        };
        let epoch = header.producer_epoch;
        if epoch < known.epoch {
            return Err(ProducerError::InvalidEpoch { producer_id, found: epoch, current: known.epoch });
        }
        let found = header.base_sequence;
        if epoch == known.epoch {
            let same = |batch: &&AppendedBatch| {
                batch.base_sequence() == found && batch.last_sequence == header.last_sequence()
            };
            if let Some(batch) = known.batches.iter().find(same) {
                return Ok(Verdict::Duplicate(*batch));
            }
        }
        // A new epoch begins its sequence anew.
        let last = if epoch == known.epoch { known.last_sequence() } else { NO_SEQUENCE };
        let expected = if last == NO_SEQUENCE { 0 } else { next_sequence(last, 1) };
        if found != expected {
            return Err(ProducerError::OutOfOrderSequence { producer_id, epoch, found, expected });
        }
        if known.txn_start.is_some() && !header.is_transactional() {
            return Err(ProducerError::InvalidTransactionState { producer_id });
        }
        Ok(Verdict::Append)
    }

    /// Whether a batch of a transaction may be appended: it goes on with the one that is open, or may begin one,
    /// because none of its producer has ended since the guard was taken.
    pub(crate) fn check_begin(
        &self,
        header: &BatchHeader,
        guard: Option<Guard>,
    ) -> Result<(), ProducerError> {
        let (producer_id, epoch) = (header.producer_id, header.producer_epoch);
        let known = self.producers.get(producer_id);
        let goes_on = known.is_some_and(|known| known.txn_start.is_some() && known.epoch == epoch);
        let ended_at = known.map_or(self.forgotten_at, |known| known.ended_at);
        if goes_on {
            return Ok(());
        }
        let guard = guard.filter(|guard| guard.covers(header, ended_at));
        let guard = guard.ok_or(ProducerError::NoTransaction { producer_id, epoch })?;
        let (found, expected) = (header.base_sequence, 0);
        if guard.is_of_new_epoch() && known.is_none() && found != expected {
            return Err(ProducerError::OutOfOrderSequence { producer_id, epoch, found, expected });
        }
        Ok(())
    }

    /// Whether the marker of a transaction may be appended. Where markers raise the epoch, one of the epoch that is
    /// known already is another transaction's, or comes a second time; then it does no harm.
    pub(crate) fn check_end(&self, header: &BatchHeader, end: End) -> Result<(), ProducerError> {
        let Some(known) = self.producers.get(header.producer_id) else { return Ok(()) };
        let ends_the_next =
            end.raises_epoch && header.producer_epoch == known.epoch && known.txn_start.is_some();
        let marker = end.marker;
        if header.producer_epoch < known.epoch || ends_the_next {
            return Err(ProducerError::InvalidEpoch {
                producer_id: header.producer_id,
                found: header.producer_epoch,
                current: known.epoch,
            });
        }
        if marker.coordinator_epoch < known.coordinator_epoch {
            let (found, current) = (marker.coordinator_epoch, known.coordinator_epoch);
            return Err(ProducerError::CoordinatorFenced { found, current });
        }
        Ok(())
    }

    /// Makes room for the producer of a batch, if it is not known yet: of those without an open transaction, the one
    /// that has been idle for longest is forgotten. It may come back at any sequence number, as if it had expired.
    pub(crate) fn make_room(&mut self, header: &BatchHeader, limit: usize) -> Result<(), ProducerError> {
        let producer_id = header.producer_id;
        if !header.has_producer_id() || self.producers.get(producer_id).is_some() {
            return Ok(());
        }
        while self.producers.len() >= limit.max(1) {
            let (_, longest_idle) =
                self.idle.pop_first().ok_or(ProducerError::TooManyProducers { producer_id, limit })?;
            self.forget(longest_idle);
        }
        Ok(())
    }

    fn forget(&mut self, producer_id: i64) {
        if let Some(known) = self.producers.remove(producer_id) {
            self.forgotten_at = self.forgotten_at.max(known.ended_at);
        }
    }

    /// How many ends have been counted, for [`Guard`].
    pub(crate) fn ends(&self) -> u64 {
        self.ends
    }

    /// The transaction that a marker aborts, which is about to be taken note of; nothing when none is open, or it is
    /// committed.
    pub(crate) fn aborted_by(
        &self,
        header: &BatchHeader,
        marker: EndTxnMarker,
    ) -> Option<AbortedTransaction> {
        let (producer_id, last_offset) = (header.producer_id, header.last_offset());
        let known = self.producers.get(producer_id).filter(|_| !marker.committed)?;
        let first_offset = known.txn_start?;
        let next_open = self.open.iter().find(|(_, other)| *other != producer_id);
        let last_stable_offset = next_open.map_or(last_offset + 1, |(start, _)| *start);
        Some(AbortedTransaction { producer_id, first_offset, last_offset, last_stable_offset })
    }

    /// Counts the end of a transaction, whose marker was just taken note of, if batches of the transaction could still
    /// come: where markers raise the epoch, older batches are refused anyway, and those of the marker's epoch are of
    /// the next transaction.
    pub(crate) fn count_end(&mut self, header: &BatchHeader, end: End) {
        if end.raises_epoch {
            return;
        }
        self.ends += 1;
        let ends = self.ends;
        if let Some(known) = self.producers.edit(header.producer_id) {
            known.ended_at = ends;
        }
    }

    /// Goes on with the ends that another counted, who knew what this does not: every guard of before is worthless.
    pub(crate) fn count_on_from(&mut self, before: &Self) {
        self.ends = before.ends + 1;
        self.forgotten_at = self.ends;
        let known: Vec<i64> = self.producers.iter().map(|(producer_id, _)| producer_id).collect();
        for producer_id in known {
            if let Some(known) = self.producers.edit(producer_id) {
                known.ended_at = self.ends;
            }
        }
    }

    /// Takes note of a batch that is in the log. Says what it means for the transactions.
    pub(crate) fn appended(
        &mut self,
        header: &BatchHeader,
        marker: Option<EndTxnMarker>,
        now_ms: i64,
    ) -> Option<TransactionStep> {
        if !header.has_producer_id() {
            return None;
        }
        let (producer_id, epoch) = (header.producer_id, header.producer_epoch);
        if self.producers.get(producer_id).is_none() {
            let producer = Producer { ended_at: self.forgotten_at, ..Producer::new(epoch) };
            self.producers.insert(producer_id, producer);
        }
        let known = self.producers.edit(producer_id)?;
        if known.epoch != epoch {
            known.epoch = epoch;
            known.batches.clear();
        }
        let before_ms = std::mem::replace(&mut known.seen_ms, now_ms);
        let step = known.note(header, marker);
        let may_be_forgotten = known.txn_start.is_none();
        match step {
            Some(TransactionStep::Began { start, .. }) => drop(self.open.insert((start, producer_id))),
            Some(TransactionStep::Ended { start, .. }) => drop(self.open.remove(&(start, producer_id))),
            None => {}
        }
        self.idle.remove(&(before_ms, producer_id));
        if may_be_forgotten {
            self.idle.insert((now_ms, producer_id));
        }
        step
    }

    /// Takes note that a batch could not be written. If it was to be the first of a producer that nobody knows, what
    /// the producer has in flight behind it must not be taken for its beginning.
    pub(crate) fn not_written(&mut self, header: &BatchHeader, now_ms: i64) {
        let first = header.has_producer_id() && header.base_sequence == 0;
        if first && self.producers.get(header.producer_id).is_none() {
            let ended_at = self.forgotten_at;
            let producer = Producer { seen_ms: now_ms, ended_at, ..Producer::new(header.producer_epoch) };
            self.restore(header.producer_id, producer);
        }
    }

    /// Whether no producer is known.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many are known.
    pub(crate) fn len(&self) -> usize {
        self.producers.len()
    }

    /// Forgets producers that have written nothing for `expiration_ms` and have no transaction open.
    pub(crate) fn expire(&mut self, now_ms: i64, expiration_ms: i64) {
        while let Some((seen_ms, producer_id)) = self.idle.first().copied()
            && now_ms.saturating_sub(seen_ms) >= expiration_ms
        {
            self.idle.pop_first();
            self.forget(producer_id);
        }
    }

    /// Puts in what is known of a producer.
    pub(crate) fn restore(&mut self, producer_id: i64, producer: Producer) {
        if let Some(before) = self.producers.get(producer_id) {
            self.idle.remove(&(before.seen_ms, producer_id));
            self.open.remove(&(before.txn_start.unwrap_or(-1), producer_id));
        }
        match producer.txn_start {
            Some(start) => drop(self.open.insert((start, producer_id))),
            None => drop(self.idle.insert((producer.seen_ms, producer_id))),
        }
        self.producers.insert(producer_id, producer);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (i64, &Producer)> {
        self.producers.iter()
    }

    /// The transactions that are open, as they began.
    pub(crate) fn open_transactions(&self) -> impl Iterator<Item = TransactionStep> {
        self.iter().filter_map(|(producer_id, producer)| {
            let producer_epoch = producer.epoch;
            Some(TransactionStep::Began { start: producer.txn_start?, producer_id, producer_epoch })
        })
    }

    /// The producers as they are now, while they go on changing; none while an earlier such look is still held.
    pub(crate) fn freeze(&mut self) -> Option<Frozen<Producer>> {
        self.producers.freeze()
    }

    pub(crate) fn active(&self) -> Vec<ActiveProducer> {
        let active = |(producer_id, producer): (i64, &Producer)| ActiveProducer {
            producer_id,
            producer_epoch: producer.epoch,
            last_sequence: producer.last_sequence(),
            last_timestamp: producer.seen_ms,
            coordinator_epoch: producer.coordinator_epoch,
            current_txn_start_offset: producer.txn_start.unwrap_or(-1),
        };
        self.iter().map(active).collect()
    }
}

#[cfg(test)]
mod tests {
    use klamm_protocol::ErrorCode;
    use proptest::prelude::*;

    use super::super::transactions::Transactions;
    use super::*;

    /// Producers and transactions, as a partition has them.
    #[derive(Debug, Default)]
    struct Known {
        producers: ProducerStates,
        transactions: Transactions,
    }

    impl Known {
        fn appended(&mut self, header: &BatchHeader, marker: Option<EndTxnMarker>, now_ms: i64) {
            if let Some(step) = self.producers.appended(header, marker, now_ms) {
                self.transactions.apply(step);
            }
        }

        fn check(&self, header: &BatchHeader) -> Result<Verdict, ProducerError> {
            self.producers.check(header)
        }

        fn check_marker(&self, header: &BatchHeader, marker: EndTxnMarker) -> Result<(), ProducerError> {
            self.producers.check_end(header, End::of(marker))
        }

        fn last_stable_offset(&self, high_watermark: i64) -> i64 {
            self.transactions.last_stable_offset(high_watermark)
        }

        fn active(&self) -> Vec<ActiveProducer> {
            self.producers.active()
        }

        fn ids(&self) -> Vec<i64> {
            self.active().iter().map(|active| active.producer_id).collect()
        }
    }

    fn header(producer_id: i64, epoch: i16, sequence: i32, count: i32, offset: i64) -> BatchHeader {
        BatchHeader {
            base_offset: offset,
            batch_length: 49,
            partition_leader_epoch: 0,
            magic: 2,
            crc: 0,
            attributes: 0,
            last_offset_delta: count - 1,
            base_timestamp: 0,
            max_timestamp: 0,
            producer_id,
            producer_epoch: epoch,
            base_sequence: sequence,
            record_count: count,
        }
    }

    const TRANSACTIONAL: i16 = 0x10;
    const CONTROL: i16 = 0x20;

    #[test]
    fn a_sequence_wraps_and_a_gap_is_refused() {
        let mut states = Known::default();
        let first = header(1, 0, i32::MAX - 1, 2, 0);
        assert_eq!(states.check(&first), Ok(Verdict::Append), "an unknown producer may begin anywhere");
        states.appended(&first, None, 0);
        assert_eq!(states.check(&header(1, 0, 0, 3, 2)), Ok(Verdict::Append));
        let gap = states.check(&header(1, 0, 1, 1, 2)).unwrap_err();
        assert_eq!(gap.error_code(), ErrorCode::OutOfOrderSequenceNumber);

        let across = header(2, 0, i32::MAX, 3, 2);
        states.appended(&across, None, 0);
        assert_eq!(across.last_sequence(), 1);
        assert!(matches!(states.check(&across), Ok(Verdict::Duplicate(batch)) if batch.base_offset() == 2));
    }

    #[test]
    fn a_first_batch_that_was_not_written_must_come_before_the_others() {
        let mut states = ProducerStates::default();
        states.not_written(&header(1, 3, 0, 2, 0), 50);
        assert_eq!(states.active()[0].last_timestamp, 50);
        assert!(matches!(
            states.check(&header(1, 3, 2, 1, 0)),
            Err(ProducerError::OutOfOrderSequence { found: 2, expected: 0, .. })
        ));
        assert_eq!(states.check(&header(1, 3, 0, 2, 0)), Ok(Verdict::Append));
        // It may be forgotten like others, and what is known of others stays.
        states.expire(60, 10);
        assert_eq!(states.active(), []);
        states.appended(&header(1, 3, 0, 1, 0), None, 70);
        states.not_written(&header(1, 3, 0, 1, 0), 80);
        assert_eq!((states.active()[0].last_sequence, states.active()[0].last_timestamp), (0, 70));
        // Who begins in the middle has been forgotten, and nobody knows where it was; who has no id is nobody.
        states.not_written(&header(2, 0, 7, 1, 0), 80);
        states.not_written(&header(-1, -1, 0, 1, 0), 80);
        assert_eq!(states.active().len(), 1);
    }

    #[test]
    fn an_old_epoch_is_fenced_and_a_new_one_begins_at_zero() {
        let mut states = Known::default();
        states.appended(&header(1, 3, 0, 5, 0), None, 0);
        let fenced = states.check(&header(1, 2, 5, 1, 5)).unwrap_err();
        assert_eq!(fenced.error_code(), ErrorCode::InvalidProducerEpoch);
        assert!(states.check(&header(1, 4, 5, 1, 5)).is_err());
        assert_eq!(states.check(&header(1, 4, 0, 1, 5)), Ok(Verdict::Append));
    }

    #[test]
    fn the_last_stable_offset_waits_for_a_durable_marker() {
        let mut states = Known::default();
        let mut data = header(1, 0, 0, 2, 10);
        data.attributes = TRANSACTIONAL;
        states.appended(&data, None, 0);
        assert_eq!(states.last_stable_offset(12), 10);
        assert_eq!(
            states.check(&header(1, 0, 2, 1, 12)).unwrap_err().error_code(),
            ErrorCode::InvalidTxnState
        );
        let mut end = header(1, 0, NO_SEQUENCE, 1, 12);
        end.attributes = TRANSACTIONAL | CONTROL;
        let marker = EndTxnMarker { committed: true, coordinator_epoch: 2 };
        states.check_marker(&end, marker).unwrap();
        states.appended(&end, Some(marker), 0);
        assert_eq!(states.last_stable_offset(12), 10, "the marker is not durable");
        assert_eq!(states.last_stable_offset(13), 13);
        states.transactions.advance_high_watermark(13);
        let old = EndTxnMarker { committed: true, coordinator_epoch: 1 };
        assert_eq!(
            states.check_marker(&end, old).unwrap_err().error_code(),
            ErrorCode::TransactionCoordinatorFenced
        );
    }

    /// A client that sends a batch again sends the same one. Any other batch with one of its numbers is a client's
    /// defect and must not be answered as if it were in the log.
    #[test]
    fn only_the_very_same_batch_is_a_duplicate() {
        let mut states = Known::default();
        states.appended(&header(1, 0, 0, 5, 0), None, 0);
        assert!(matches!(states.check(&header(1, 0, 0, 5, 5)), Ok(Verdict::Duplicate(_))));
        for (sequence, count) in [(0, 4), (0, 6), (1, 4), (4, 1)] {
            let other = states.check(&header(1, 0, sequence, count, 5)).unwrap_err();
            assert_eq!(other.error_code(), ErrorCode::OutOfOrderSequenceNumber, "{sequence}, {count}");
        }
    }

    #[test]
    fn producers_without_an_id_are_not_remembered() {
        let mut states = Known::default();
        let anonymous = header(-1, -1, NO_SEQUENCE, 3, 0);
        states.appended(&anonymous, None, 0);
        assert_eq!(states.ids(), [0; 0]);
        assert_eq!(states.check(&anonymous), Ok(Verdict::Append));
    }

    #[test]
    fn what_is_known_of_a_producer_is_listed() {
        let mut states = Known::default();
        states.appended(&header(7, 2, 0, 3, 10), None, 1_000);
        let mut open = header(7, 2, 3, 2, 13);
        open.attributes = TRANSACTIONAL;
        states.appended(&open, None, 2_000);
        let mut more = header(7, 2, 5, 1, 15);
        more.attributes = TRANSACTIONAL;
        states.appended(&more, None, 3_000);
        let expected = ActiveProducer {
            producer_id: 7,
            producer_epoch: 2,
            last_sequence: 5,
            last_timestamp: 3_000,
            coordinator_epoch: -1,
            current_txn_start_offset: 13,
        };
        assert_eq!(states.active(), std::slice::from_ref(&expected));
        assert_eq!(states.last_stable_offset(100), 13);

        let mut end = header(7, 2, NO_SEQUENCE, 1, 16);
        end.attributes = TRANSACTIONAL | CONTROL;
        states.appended(&end, Some(EndTxnMarker { committed: false, coordinator_epoch: 4 }), 4_000);
        let ended = ActiveProducer {
            last_timestamp: 4_000,
            coordinator_epoch: 4,
            current_txn_start_offset: -1,
            ..expected
        };
        assert_eq!(states.active(), [ended], "a marker has no sequence number and changes none");
    }

    /// Control batches of kinds that are not markers may come; they are not the producer's records.
    #[test]
    fn a_control_batch_is_no_data() {
        let mut states = Known::default();
        states.appended(&header(1, 0, 0, 2, 0), None, 0);
        let mut control = header(1, 0, NO_SEQUENCE, 1, 2);
        control.attributes = TRANSACTIONAL | CONTROL;
        states.appended(&control, None, 0);
        assert_eq!(states.active()[0].last_sequence, 1);
        assert_eq!(states.last_stable_offset(3), 3, "no transaction begins with it");
    }

    #[test]
    fn markers_of_older_epochs_are_fenced() {
        let mut states = Known::default();
        let end = |epoch: i16| {
            let mut header = header(1, epoch, NO_SEQUENCE, 1, 9);
            header.attributes = TRANSACTIONAL | CONTROL;
            header
        };
        let marker = |coordinator_epoch| EndTxnMarker { committed: true, coordinator_epoch };
        assert_eq!(states.check_marker(&end(3), marker(2)), Ok(()), "nothing is known of the producer");
        states.appended(&end(3), Some(marker(2)), 0);
        assert_eq!(states.check_marker(&end(3), marker(2)), Ok(()), "the same coordinator may say it again");
        assert_eq!(states.check_marker(&end(4), marker(3)), Ok(()));
        let older = states.check_marker(&end(2), marker(2)).unwrap_err();
        assert_eq!(older.error_code(), ErrorCode::InvalidProducerEpoch);
    }

    /// Who ends a transaction with a raised epoch may say so twice, but not into the next one (KAFKA-19999).
    #[test]
    fn a_marker_that_raises_the_epoch_ends_no_transaction_of_its_own_epoch() {
        let mut states = Known::default();
        let batch = |epoch: i16, attributes: i16, offset: i64| {
            let sequence = if attributes & CONTROL == 0 { 0 } else { NO_SEQUENCE };
            BatchHeader { attributes, ..header(1, epoch, sequence, 1, offset) }
        };
        let end = |raises_epoch| {
            let marker = EndTxnMarker { committed: true, coordinator_epoch: 2 };
            End { marker, raises_epoch }
        };
        let check = |states: &Known, epoch, raises| {
            let marker = batch(epoch, TRANSACTIONAL | CONTROL, 9);
            states.producers.check_end(&marker, end(raises)).map_err(|error| error.error_code())
        };
        let fenced = Err(ErrorCode::InvalidProducerEpoch);
        assert_eq!((check(&states, 3, true), check(&states, 3, false)), (Ok(()), Ok(())), "not known");
        states.appended(&batch(3, TRANSACTIONAL, 0), None, 0);
        assert_eq!((check(&states, 2, true), check(&states, 2, false)), (fenced, fenced));
        assert_eq!((check(&states, 3, true), check(&states, 3, false)), (fenced, Ok(())));
        assert_eq!((check(&states, 4, true), check(&states, 4, false)), (Ok(()), Ok(())));
        states.appended(&batch(4, TRANSACTIONAL | CONTROL, 1), Some(end(true).marker), 0);
        assert_eq!((check(&states, 3, true), check(&states, 4, true)), (fenced, Ok(())), "once more");
        states.appended(&batch(4, TRANSACTIONAL, 2), None, 0);
        assert_eq!(check(&states, 4, true), fenced, "the next transaction has begun");
    }

    #[test]
    fn what_a_marker_aborts_is_known_before_it_is_written() {
        let mut states = Known::default();
        let data = |id, offset| BatchHeader { attributes: TRANSACTIONAL, ..header(id, 0, 0, 1, offset) };
        let marker = |id, offset| {
            let attributes = TRANSACTIONAL | CONTROL;
            BatchHeader { attributes, ..header(id, 0, NO_SEQUENCE, 1, offset) }
        };
        let end = |committed| EndTxnMarker { committed, coordinator_epoch: 0 };
        for (id, offset) in [(1, 10), (2, 12), (3, 13)] {
            states.appended(&data(id, offset), None, 0);
        }
        states.appended(&header(4, 0, 0, 1, 14), None, 0);
        let aborted =
            |states: &ProducerStates, id, offset| states.aborted_by(&marker(id, offset), end(false));
        let expected = |producer_id, first_offset, last_offset, last_stable_offset| {
            Some(AbortedTransaction { producer_id, first_offset, last_offset, last_stable_offset })
        };
        assert_eq!(states.producers.aborted_by(&marker(2, 15), end(true)), None, "committed");
        assert_eq!([4, 5].map(|id| aborted(&states.producers, id, 15)), [None, None], "none is open");
        let mut from_snapshot = ProducerStates::default();
        states.producers.iter().for_each(|(id, producer)| from_snapshot.restore(id, producer.clone()));
        for producers in [&states.producers, &from_snapshot] {
            assert_eq!(aborted(producers, 2, 15), expected(2, 12, 15, 10));
            assert_eq!(aborted(producers, 1, 15), expected(1, 10, 15, 12), "its own does not count");
        }
        states.appended(&marker(1, 15), Some(end(true)), 0);
        assert_eq!(aborted(&states.producers, 2, 16), expected(2, 12, 16, 13));
        states.appended(&marker(3, 16), Some(end(false)), 0);
        assert_eq!(aborted(&states.producers, 2, 17), expected(2, 12, 17, 18), "everything is decided");
        from_snapshot.restore(1, Producer::new(0));
        assert_eq!(aborted(&from_snapshot, 2, 17), expected(2, 12, 17, 13), "1 is known to have none open");
    }

    /// As [`ProducerStates::check_begin`] sees it: `true` when the batch may be appended.
    fn may_begin(states: &Known, header: &BatchHeader, guard: Option<Guard>) -> bool {
        match states.producers.check_begin(header, guard) {
            Ok(()) => true,
            Err(error) => {
                assert_eq!(error.error_code(), ErrorCode::InvalidTxnState);
                assert!(error.to_string().contains("not open"), "{error}");
                false
            }
        }
    }

    #[test]
    fn a_transaction_begins_with_a_guard_that_no_marker_came_after() {
        let mut states = Known::default();
        let data = |offset| BatchHeader { attributes: TRANSACTIONAL, ..header(1, 3, 0, 1, offset) };
        let marker = |producer_id, offset| {
            let attributes = TRANSACTIONAL | CONTROL;
            BatchHeader { attributes, ..header(producer_id, 3, NO_SEQUENCE, 1, offset) }
        };
        let end = End::of(EndTxnMarker { committed: false, coordinator_epoch: 0 });
        let guard_of = |states: &Known, id, epoch| Some(Guard::new(id, epoch, states.producers.ends()));
        let first = guard_of(&states, 1, 3);
        assert!(may_begin(&states, &data(0), first) && !may_begin(&states, &data(0), None));
        assert!(!may_begin(&states, &data(0), guard_of(&states, 2, 3)), "of another producer");
        assert!(!may_begin(&states, &data(0), guard_of(&states, 1, 2)), "of another epoch");
        // A marker for a producer that nobody knows counts, too: the batch that is late may be its first.
        states.appended(&marker(1, 0), Some(end.marker), 0);
        states.producers.count_end(&marker(1, 0), end);
        assert_eq!(states.producers.ends(), 1);
        assert!(!may_begin(&states, &data(1), first));
        let second = guard_of(&states, 1, 3);
        states.appended(&marker(2, 1), Some(end.marker), 0);
        states.producers.count_end(&marker(2, 1), end);
        assert!(may_begin(&states, &data(2), second), "that was another producer's");
        states.appended(&data(2), None, 0);
        assert!(may_begin(&states, &data(3), None), "it goes on");
        let next_epoch = BatchHeader { producer_epoch: 4, ..data(3) };
        assert!(!may_begin(&states, &next_epoch, None));
        assert!(may_begin(&states, &next_epoch, guard_of(&states, 1, 4)));
        // With a raised epoch the marker is of the transaction before.
        let raised = BatchHeader { producer_epoch: 4, ..marker(1, 3) };
        let third = guard_of(&states, 1, 4);
        states.appended(&raised, Some(end.marker), 0);
        states.producers.count_end(&raised, End { raises_epoch: true, ..end });
        assert_eq!(states.producers.ends(), 2);
        assert!(may_begin(&states, &next_epoch, third));
    }

    #[test]
    fn with_an_epoch_for_each_transaction_the_first_batch_has_number_zero() {
        let mut states = Known::default();
        let data = |sequence| BatchHeader { attributes: TRANSACTIONAL, ..header(1, 3, sequence, 1, 0) };
        let guard = Guard::new(1, 3, 0);
        let check = |states: &Known, sequence, guard| {
            states.producers.check_begin(&data(sequence), Some(guard)).map_err(|error| error.error_code())
        };
        assert_eq!((check(&states, 0, guard), check(&states, 5, guard)), (Ok(()), Ok(())));
        let lost = Err(ErrorCode::OutOfOrderSequenceNumber);
        assert_eq!(check(&states, 0, guard.of_new_epoch()), Ok(()));
        assert_eq!(check(&states, 5, guard.of_new_epoch()), lost);
        // Who is known is held to what it wrote last.
        states.appended(&header(1, 3, 0, 5, 0), None, 0);
        assert_eq!(check(&states, 5, guard.of_new_epoch()), Ok(()));
        states.appended(&data(5), None, 0);
        assert_eq!(check(&states, 6, guard.of_new_epoch()), Ok(()));
    }

    /// What ended a producer's transaction is remembered for as long as somebody may hold a guard.
    #[test]
    fn a_producer_that_was_forgotten_leaves_its_last_end_behind() {
        let end = End::of(EndTxnMarker { committed: true, coordinator_epoch: 0 });
        let marker = |producer_id| {
            let attributes = TRANSACTIONAL | CONTROL;
            BatchHeader { attributes, ..header(producer_id, 0, NO_SEQUENCE, 1, 0) }
        };
        let forget: [fn(&mut ProducerStates); 2] =
            [|states| states.expire(100, 10), |states| states.make_room(&header(9, 0, 0, 1, 0), 1).unwrap()];
        for forget in forget {
            let mut states = Known::default();
            let before = Some(Guard::new(1, 0, states.producers.ends()));
            states.appended(&marker(1), Some(end.marker), 0);
            states.producers.count_end(&marker(1), end);
            let after = Some(Guard::new(1, 0, states.producers.ends()));
            forget(&mut states.producers);
            assert_eq!(states.ids(), [0; 0]);
            let data = BatchHeader { attributes: TRANSACTIONAL, ..header(1, 0, 0, 1, 1) };
            assert!(!may_begin(&states, &data, before) && may_begin(&states, &data, after));
            // And when something of it comes again.
            states.producers.not_written(&data, 200);
            assert!(!may_begin(&states, &data, before) && may_begin(&states, &data, after));
            states.producers.expire(300, 10);
            states.appended(&header(1, 0, 0, 1, 1), None, 300);
            assert!(!may_begin(&states, &data, before) && may_begin(&states, &data, after));
        }
    }

    #[test]
    fn no_guard_outlives_a_truncation() {
        let mut before = Known::default();
        let end = End::of(EndTxnMarker { committed: true, coordinator_epoch: 0 });
        before.producers.count_end(&header(1, 0, NO_SEQUENCE, 1, 0), end);
        let guards = [1, 2].map(|id| Some(Guard::new(id, 0, before.producers.ends())));
        let mut after = Known::default();
        after.appended(&header(1, 0, 0, 1, 0), None, 0);
        after.producers.count_on_from(&before.producers);
        assert_eq!(after.producers.ends(), 2);
        for (id, guard) in [1, 2].into_iter().zip(guards) {
            let data = BatchHeader { attributes: TRANSACTIONAL, ..header(id, 0, 1, 1, 1) };
            assert!(!may_begin(&after, &data, guard), "{id}");
            assert!(may_begin(&after, &data, Some(Guard::new(id, 0, 2))), "{id}");
        }
    }

    #[test]
    fn a_snapshot_brings_open_transactions_back() {
        let mut before = Known::default();
        let mut open = header(5, 1, 0, 1, 30);
        open.attributes = TRANSACTIONAL;
        before.appended(&header(4, 0, 0, 1, 29), None, 7);
        before.appended(&open, None, 8);
        let mut after = ProducerStates::default();
        before.producers.iter().for_each(|(id, producer)| after.restore(id, producer.clone()));
        assert!(after.iter().eq(before.producers.iter()));
        assert_eq!(after.idle, before.producers.idle);
        let began = TransactionStep::Began { start: 30, producer_id: 5, producer_epoch: 1 };
        assert_eq!(after.open_transactions().collect::<Vec<_>>(), [began]);
    }

    #[test]
    fn idle_producers_expire_unless_a_transaction_is_open() {
        let mut states = Known::default();
        states.appended(&header(1, 0, 0, 1, 0), None, 1_000);
        let mut open = header(2, 0, 0, 1, 1);
        open.attributes = TRANSACTIONAL;
        states.appended(&open, None, 1_000);
        states.producers.expire(1_999, 1_000);
        assert_eq!(states.ids(), [1, 2]);
        states.producers.expire(2_000, 1_000);
        assert_eq!(states.ids(), [2]);
        states.producers.expire(i64::MAX, 0);
        assert_eq!(states.ids(), [2]);
    }

    /// 400,000 producers that came once each were remembered for a day. Now those idle for longest give way, and what
    /// has a transaction open stays.
    #[test]
    fn so_many_producers_are_remembered_and_the_longest_idle_goes_first() {
        let mut states = Known::default();
        let append = |states: &mut Known, producer_id: i64, now_ms: i64, attributes: i16| {
            let mut header = header(producer_id, 0, 0, 1, now_ms);
            header.attributes = attributes;
            let room = states.producers.make_room(&header, 3);
            if room.is_ok() {
                states.appended(&header, None, now_ms);
            }
            room
        };
        for (producer_id, now_ms) in [(1, 10), (2, 11), (3, 12), (1, 13)] {
            append(&mut states, producer_id, now_ms, 0).unwrap();
        }
        assert_eq!(states.ids(), [1, 2, 3]);
        append(&mut states, 4, 14, 0).unwrap();
        assert_eq!(states.ids(), [1, 3, 4], "1 has written since");
        append(&mut states, -1, 15, 0).unwrap();
        assert_eq!(states.ids(), [1, 3, 4], "who has no id needs no room");
        for producer_id in [3, 1, 5] {
            append(&mut states, producer_id, 16, TRANSACTIONAL).unwrap();
        }
        assert_eq!(states.ids(), [1, 3, 5], "4 was the only one without a transaction");
        let refused = append(&mut states, 6, 17, 0).unwrap_err();
        assert_eq!(refused.error_code(), ErrorCode::ThrottlingQuotaExceeded);
        assert!(refused.to_string().contains("max.producer.ids.per.partition"), "{refused}");
        assert_eq!(states.ids(), [1, 3, 5]);
        append(&mut states, 5, 18, TRANSACTIONAL).unwrap();
    }

    /// What a client may do next with a producer.
    #[derive(Debug, Clone)]
    enum Step {
        Send { producer: usize, count: i32 },
        Repeat { producer: usize, back: usize },
        Skip { producer: usize, by: i32 },
        Bump { producer: usize },
    }

    fn step() -> impl Strategy<Value = Step> {
        let producer = 0..3_usize;
        prop_oneof![
            4 => (producer.clone(), 1..20_i32).prop_map(|(producer, count)| Step::Send { producer, count }),
            2 => (producer.clone(), 0..8_usize).prop_map(|(producer, back)| Step::Repeat { producer, back }),
            1 => (producer.clone(), 1..5_i32).prop_map(|(producer, by)| Step::Skip { producer, by }),
            1 => producer.prop_map(|producer| Step::Bump { producer }),
        ]
    }

    proptest! {
        /// The model keeps every batch ever sent. The state machine must append each once, in
        /// order, and know its last five.
        #[test]
        fn every_batch_is_appended_once_and_in_order(
            steps in prop::collection::vec(step(), 1..200),
            start in prop_oneof![Just(0), Just(i32::MAX - 30)],
        ) {
            let mut states = Known::default();
            let mut log_end = 0_i64;
            // For each producer: epoch, next sequence number, all batches of the epoch with their offsets.
            let mut model = vec![(0_i16, start, Vec::<(i32, i32, i64)>::new()); 3];
            for step in steps {
                match step {
                    Step::Send { producer, count } => {
                        let (epoch, next, sent) = &mut model[producer];
                        let batch = header(producer as i64, *epoch, *next, count, log_end);
                        prop_assert_eq!(states.check(&batch), Ok(Verdict::Append));
                        states.appended(&batch, None, 0);
                        sent.push((*next, count, log_end));
                        *next = next_sequence(*next, count);
                        log_end += i64::from(count);
                    }
                    Step::Repeat { producer, back } => {
                        let (epoch, _, sent) = &model[producer];
                        if sent.len() <= back { continue }
                        let (sequence, count, offset) = sent[sent.len() - 1 - back];
                        let again = states.check(&header(producer as i64, *epoch, sequence, count, log_end));
                        if back < REMEMBERED_BATCHES {
                            let Ok(Verdict::Duplicate(batch)) = again else {
                                return Err(TestCaseError::fail(format!("{again:?}")));
                            };
                            prop_assert_eq!(batch.base_offset(), offset);
                        } else {
                            prop_assert!(again.is_err());
                        }
                    }
                    Step::Skip { producer, by } => {
                        let (epoch, next, sent) = &model[producer];
                        if sent.is_empty() { continue }
                        let batch = header(producer as i64, *epoch, next_sequence(*next, by), 1, log_end);
                        prop_assert!(states.check(&batch).is_err());
                    }
                    Step::Bump { producer } => {
                        let (epoch, next, sent) = &mut model[producer];
                        if sent.is_empty() { continue }
                        *epoch += 1;
                        *next = 0;
                        sent.clear();
                        // The old epoch is fenced from the first batch of the new one on.
                        let batch = header(producer as i64, *epoch, 0, 1, log_end);
                        prop_assert_eq!(states.check(&batch), Ok(Verdict::Append));
                        states.appended(&batch, None, 0);
                        sent.push((0, 1, log_end));
                        *next = 1;
                        log_end += 1;
                        prop_assert!(states.check(&header(producer as i64, *epoch - 1, 0, 1, log_end)).is_err());
                    }
                }
            }
        }
    }
}
