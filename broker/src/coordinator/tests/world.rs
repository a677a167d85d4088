//! An engine, a log that does what it pleases, and time: everything that happens is drawn from a seed.

use std::collections::BTreeMap;

use klamm_protocol::ErrorCode;
use klamm_runtime::{Rng, SeededRng};

use super::super::core::{BatchKind, Core, Now, StoredBatch, StoredRecord, Ticket, replay_batch};
use super::super::engine::{AppendFailure, Engine, Told};

/// How large a batch the log takes.
pub(crate) const MAX_BATCH_BYTES: usize = 4_000;

/// What happens to everything that is not a command.
#[derive(Debug)]
pub(crate) struct World<C: Core> {
    pub(super) engine: Engine<C>,
    fresh: fn() -> C,
    rng: SeededRng,
    now_ms: i64,
    /// The batches in the log. Those from `durable` on may be lost with the power.
    log: Vec<StoredBatch>,
    durable: usize,
    appending: Option<StoredBatch>,
    /// The log takes nothing until the next start.
    lost: bool,
    next_ticket: Ticket,
    /// Answers that the test has not seen.
    told: BTreeMap<Ticket, Told<C::Reply>>,
    asked: BTreeMap<Ticket, bool>,
    /// What went wrong so far, so that a test can see that something did.
    pub(crate) refused: usize,
    pub(crate) crashes: usize,
}

impl<C: Core> World<C> {
    pub(crate) fn new(seed: u64, fresh: fn() -> C) -> Self {
        let mut world = Self {
            engine: Engine::loading(fresh(), MAX_BATCH_BYTES),
            fresh,
            rng: SeededRng::new(seed),
            now_ms: 0,
            log: Vec::new(),
            durable: 0,
            appending: None,
            lost: false,
            next_ticket: 1,
            told: BTreeMap::new(),
            asked: BTreeMap::new(),
            refused: 0,
            crashes: 0,
        };
        world.load(None);
        world
    }

    pub(crate) fn below(&self, bound: u64) -> u64 {
        self.rng.below(bound)
    }

    pub(crate) fn now(&self) -> Now {
        Now { ms: self.now_ms, wall_ms: 1_000_000 + self.now_ms }
    }

    pub(crate) fn ask(&mut self, command: C::Command) -> Ticket {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.asked.insert(ticket, false);
        self.engine.on(self.now(), ticket, command);
        self.collect();
        ticket
    }

    pub(crate) fn inform(&mut self, command: C::Command) {
        self.engine.inform(self.now(), command);
        self.collect();
    }

    /// Looks at the core, which is ready.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&C) -> T) -> T {
        self.engine.ask(look).unwrap()
    }

    /// The answers since the last time.
    pub(crate) fn take_told(&mut self) -> BTreeMap<Ticket, Told<C::Reply>> {
        std::mem::take(&mut self.told)
    }

    pub(crate) fn durable_records(&self) -> impl Iterator<Item = &StoredRecord> {
        self.durable_batches().iter().flat_map(|batch| &batch.records)
    }

    pub(crate) fn durable_batches(&self) -> &[StoredBatch] {
        &self.log[..self.durable]
    }

    pub(crate) fn log(&self) -> &[StoredBatch] {
        &self.log
    }

    /// A core that has read what is durable.
    pub(crate) fn replayed(&self) -> C {
        let mut core = (self.fresh)();
        for batch in self.durable_batches() {
            replay_batch(&mut core, self.now(), batch, |error| panic!("{error}"));
        }
        core.replayed(self.now());
        core
    }

    /// One thing beside the commands.
    pub(crate) fn happen(&mut self, first: Option<C::Command>) {
        match self.rng.below(40) {
            0..12 => self.begin_append(),
            12..22 => self.end_append(Ok(())),
            22 => self.end_append(Err(AppendFailure::Refused("no space".into()))),
            23..33 => self.make_durable(),
            33..38 => self.pass(i64::try_from(self.rng.below(3_000)).unwrap()),
            38 if self.rng.below(8) == 0 => {
                self.end_append(Err(AppendFailure::Lost("disk failed".into())));
                self.lose();
            }
            39 if self.rng.below(8) == 0 => self.crash(first),
            _ => {}
        }
    }

    pub(crate) fn pass(&mut self, ms: i64) {
        self.now_ms += ms;
        self.engine.on_time(self.now());
        self.collect();
    }

    /// Everything that is under way ends well. When the log was lost, the broker starts again.
    pub(crate) fn settle(&mut self, first: Option<C::Command>) {
        if self.lost {
            self.crash(first);
        }
        for _ in 0..10_000 {
            self.begin_append();
            self.end_append(Ok(()));
            self.make_durable();
            if !self.engine.has_append() && self.engine.next_durable().is_none() && self.appending.is_none() {
                return;
            }
        }
        panic!("never at rest");
    }

    /// The broker dies with the power: of what was not durable, some may be left, from the front.
    pub(crate) fn crash(&mut self, first: Option<C::Command>) {
        self.crashes += 1;
        self.log.extend(self.appending.take());
        let left = self.rng.below((self.log.len() - self.durable) as u64 + 1);
        self.log.truncate(self.durable + usize::try_from(left).unwrap());
        // Callers are gone; nobody hears of them again.
        self.asked.clear();
        self.told.clear();
        self.engine = Engine::loading((self.fresh)(), MAX_BATCH_BYTES);
        self.lost = false;
        self.load(first);
    }

    /// Nobody waits for an answer that was given, or was given two.
    pub(crate) fn all_are_answered(&self) -> bool {
        self.asked.values().all(|answered| *answered)
    }

    fn load(&mut self, first: Option<C::Command>) {
        assert!(self.engine.ask(|_| ()).is_err(), "not while loading");
        self.durable = self.log.len();
        let core = self.replayed();
        self.engine.loaded(self.now(), core, first);
        self.collect();
    }

    fn begin_append(&mut self) {
        if let Some(batch) = self.engine.next_append() {
            assert!(self.appending.replace(batch).is_none(), "two appends at a time");
        }
    }

    fn end_append(&mut self, ended: Result<(), AppendFailure>) {
        let Some(batch) = self.appending.take() else { return };
        let taken: usize = batch.records.iter().map(StoredRecord::max_bytes).sum();
        let is_marker = matches!(batch.kind, BatchKind::Marker { .. });
        assert!(taken <= MAX_BATCH_BYTES && batch.records.is_empty() == is_marker);
        let ended = match ended {
            Ok(()) => {
                self.log.push(batch);
                Ok(i64::try_from(self.log.len()).unwrap() - 1)
            }
            Err(failure) => {
                self.refused += 1;
                if matches!(failure, AppendFailure::Lost(_)) && self.rng.below(2) == 0 {
                    // It is in the log all the same.
                    self.log.push(batch);
                }
                Err(failure)
            }
        };
        self.engine.appended(self.now(), ended);
        self.collect();
    }

    fn make_durable(&mut self) {
        if self.lost {
            return;
        }
        if let Some(offset) = self.engine.next_durable() {
            // Perhaps more than was waited for.
            let end = self.log.len() as u64;
            let offset = u64::try_from(offset).unwrap();
            let durable = offset + self.rng.below(end - offset);
            self.durable = usize::try_from(durable).unwrap() + 1;
            self.engine.durable(i64::try_from(durable).unwrap());
            self.collect();
        }
    }

    /// A flush failed: nothing more becomes durable until the broker starts again.
    fn lose(&mut self) {
        self.lost = true;
        self.engine.fail(self.now());
        self.collect();
        assert!(self.all_are_answered(), "the log is lost, and somebody waits for it");
        assert_eq!(self.engine.ask(|_| ()), Err(ErrorCode::CoordinatorNotAvailable));
        assert!(self.engine.next_append().is_none() && self.engine.next_deadline().is_none());
    }

    fn collect(&mut self) {
        for (ticket, told) in self.engine.take_told() {
            // After a crash old tickets mean nothing.
            let Some(answered) = self.asked.get_mut(&ticket) else { continue };
            assert!(!std::mem::replace(answered, true), "ticket {ticket} answered twice");
            self.told.insert(ticket, told);
        }
    }
}
