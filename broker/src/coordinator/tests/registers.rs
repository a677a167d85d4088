//! The simplest coordinator: numbers by key, that can be set, read and waited for, also in transactions.

use std::collections::BTreeMap;

use bytes::Bytes;
use klamm_protocol::{DecodeError, Decoder, ErrorCode};

use super::super::core::{Core, Effects, NOBODY, Now, Producer, Step, StoredRecord, Ticket};
use super::super::journal::Journal;

#[derive(Debug, Clone)]
pub(super) enum Ask {
    /// Answered with the value set.
    Set(u8, u64),
    /// As `Set`, in a record of so many bytes.
    SetLarge(u8, u64, usize),
    /// Writes nothing, and yet says that its answer rests on what it wrote.
    Claim,
    /// A defect of the core.
    Panic,
    /// Cannot be written down.
    SetInVain(u8),
    Get(u8),
    /// Answered with the value when the register is next set.
    Wait(u8),
    /// Sets the register `CLOCK` at this time, once.
    SetAt(i64, u64),
    /// Sets the register when the producer of this id commits. Answered with the value.
    SetAs(i64, u8, u64),
    /// Ends the transaction of the producer of this id. Answered with the number of registers that it had set.
    End(i64, bool),
    /// A defect of the core: a step of several kinds.
    Mix(Mixed),
}

/// What comes first, and what comes second.
#[derive(Debug, Clone, Copy)]
pub(super) enum Mixed {
    PlainAndTransactional,
    TwoProducers,
    MarkerAndRecord,
    RecordAndMarker,
    TwoMarkers,
}

#[derive(Debug, Default)]
pub(super) struct Registers {
    pub(super) values: BTreeMap<u8, u64>,
    waiting: BTreeMap<u8, Vec<Ticket>>,
    timer: Option<(i64, u64)>,
    journal: Journal<u8, Option<u64>>,
    /// What is set when a producer commits.
    pub(super) pending: BTreeMap<i64, BTreeMap<u8, u64>>,
    pending_journal: Journal<i64, Option<BTreeMap<u8, u64>>>,
}

pub(super) fn producer(id: i64) -> Producer {
    Producer { id, epoch: 3 }
}

fn a_record(key: u8, value: u64, bytes: usize) -> StoredRecord {
    let mut stored = value.to_be_bytes().to_vec();
    stored.resize(bytes.max(8), 0);
    StoredRecord { key: Bytes::from(vec![key]), value: Some(stored.into()) }
}

fn mix(mixed: Mixed, effects: &mut Effects<u64>) {
    let record = || a_record(1, 1, 8);
    match mixed {
        Mixed::PlainAndTransactional => {
            effects.write(record());
            effects.write_as(producer(1), record());
        }
        Mixed::TwoProducers => {
            effects.write_as(producer(1), record());
            effects.write_as(producer(2), record());
        }
        Mixed::MarkerAndRecord => {
            effects.marker(producer(1), true);
            effects.write(record());
        }
        Mixed::RecordAndMarker => {
            effects.write_as(producer(1), record());
            effects.marker(producer(1), true);
        }
        Mixed::TwoMarkers => {
            effects.marker(producer(1), true);
            effects.marker(producer(1), true);
        }
    }
}

pub(super) const CLOCK: u8 = 200;

impl Registers {
    /// What a reader may be shown.
    pub(super) fn durable_values(&self) -> BTreeMap<u8, u64> {
        let mut shown = self.values.clone();
        for key in self.journal.keys() {
            match self.journal.of(key).next().copied().flatten() {
                Some(value) => shown.insert(*key, value),
                None => shown.remove(key),
            };
        }
        shown
    }

    fn set(&mut self, key: u8, value: u64, bytes: usize, effects: &mut Effects<u64>) {
        effects.write(a_record(key, value, bytes));
        self.show(key, value, effects);
    }

    fn show(&mut self, key: u8, value: u64, effects: &mut Effects<u64>) {
        let before = self.values.insert(key, value);
        self.journal.note(effects.step, &key, before);
        for ticket in self.waiting.remove(&key).unwrap_or_default() {
            effects.answer(ticket, value, effects.step);
        }
    }

    fn set_as(&mut self, id: i64, key: u8, value: u64, effects: &mut Effects<u64>) {
        effects.write_as(producer(id), a_record(key, value, 8));
        self.pending_journal.note(effects.step, &id, self.pending.get(&id).cloned());
        self.pending.entry(id).or_default().insert(key, value);
    }

    fn end(&mut self, id: i64, commit: bool, effects: &mut Effects<u64>) -> u64 {
        effects.marker(producer(id), commit);
        let pending = self.pending.remove(&id);
        self.pending_journal.note(effects.step, &id, pending.clone());
        let pending = pending.unwrap_or_default();
        for (key, value) in pending.iter().filter(|_| commit) {
            self.show(*key, *value, effects);
        }
        pending.len() as u64
    }
}

impl Core for Registers {
    type Command = Ask;
    type Reply = u64;

    fn on(&mut self, _: Now, ticket: Ticket, command: Ask, effects: &mut Effects<u64>) {
        let (key, value, bytes) = match command {
            Ask::Set(key, value) => (key, value, 8),
            Ask::SetLarge(key, value, bytes) => (key, value, bytes),
            Ask::SetInVain(key) => {
                effects.refused = Some(ErrorCode::InvalidRequest);
                (key, u64::MAX, 8)
            }
            Ask::Get(key) => {
                let value = self.values.get(&key).copied().unwrap_or(0);
                return effects.answer(ticket, value, self.journal.pending(&key));
            }
            Ask::Panic => panic!("as the test wants"),
            Ask::Claim => return effects.answer(ticket, 0, effects.step),
            Ask::Wait(key) => return self.waiting.entry(key).or_default().push(ticket),
            Ask::SetAs(id, key, value) => {
                self.set_as(id, key, value, effects);
                return effects.answer(ticket, value, effects.step);
            }
            Ask::End(id, commit) => {
                let count = self.end(id, commit, effects);
                return effects.answer(ticket, count, effects.step);
            }
            Ask::Mix(mixed) => {
                mix(mixed, effects);
                return effects.answer(ticket, 0, effects.step);
            }
            Ask::SetAt(at_ms, value) => {
                self.timer = Some((at_ms, value));
                return effects.answer(ticket, value, 0);
            }
        };
        self.set(key, value, bytes, effects);
        if ticket != NOBODY {
            effects.answer(ticket, value, effects.step);
        }
    }

    fn on_time(&mut self, now: Now, effects: &mut Effects<u64>) {
        if let Some((_, value)) = self.timer.take_if(|(at_ms, _)| *at_ms <= now.ms) {
            self.set(CLOCK, value, 8, effects);
        }
    }

    fn next_deadline(&self) -> Option<i64> {
        self.timer.map(|(at_ms, _)| at_ms)
    }

    fn replay(&mut self, _: Now, record: &StoredRecord) -> Result<(), DecodeError> {
        let mut input = Decoder::new(record.value.clone().unwrap_or_default());
        self.values.insert(record.key[0], u64::try_from(input.take_i64()?).unwrap());
        Ok(())
    }

    fn replay_as(&mut self, _: Now, producer: Producer, record: &StoredRecord) -> Result<(), DecodeError> {
        let mut input = Decoder::new(record.value.clone().unwrap_or_default());
        let value = u64::try_from(input.take_i64()?).unwrap();
        self.pending.entry(producer.id).or_default().insert(record.key[0], value);
        Ok(())
    }

    fn replay_marker(&mut self, _: Now, producer: Producer, commit: bool) {
        let pending = self.pending.remove(&producer.id).unwrap_or_default();
        self.values.extend(pending.into_iter().filter(|_| commit));
    }

    fn replayed(&mut self, _now: Now) {}

    fn durable(&mut self, step: Step) {
        self.journal.settle(step);
        self.pending_journal.settle(step);
    }

    fn roll_back(&mut self, _: Now, to: Step, _: &mut Effects<u64>) {
        for (key, before) in self.journal.roll_back(to) {
            match before {
                Some(value) => self.values.insert(key, value),
                None => self.values.remove(&key),
            };
        }
        for (id, before) in self.pending_journal.roll_back(to) {
            match before {
                Some(pending) => self.pending.insert(id, pending),
                None => self.pending.remove(&id),
            };
        }
    }
}
