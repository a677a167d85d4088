//! One coordinator and its time; what is written is durable at once.

use std::collections::BTreeSet;

use klamm_protocol::ErrorCode;

use super::super::calls::{AddPartitions, Command, EndTransaction, InitProducer, Markers, Reply};
use super::super::coordinator::Coordinator;
use super::super::transaction::{Partitions, ProducerIdAndEpoch, State, TransactionVersion};
use crate::config::TransactionConfig;
use crate::coordinator::{Core, Effects, Now, StoredRecord, Ticket};

pub(super) const ID: &str = "payments";
pub(super) const TIMEOUT_MS: i32 = 60_000;

pub(super) fn producer(id: i64, epoch: i16) -> ProducerIdAndEpoch {
    ProducerIdAndEpoch { id, epoch }
}

pub(super) fn partitions<const N: usize>(all: [(&str, i32); N]) -> Partitions {
    let mut partitions = Partitions::new();
    for (topic, index) in all {
        partitions.entry(topic.to_owned()).or_default().insert(index);
    }
    partitions
}

pub(super) struct Sim {
    pub(super) coordinator: Coordinator,
    pub(super) ms: i64,
    pub(super) log: Vec<StoredRecord>,
    pub(super) told: Vec<(Ticket, Reply)>,
    tickets: Ticket,
    step: u64,
    fresh_producer_id: i64,
}

impl Sim {
    pub(super) fn new() -> Self {
        let coordinator = Coordinator::new(TransactionConfig::default());
        Self {
            coordinator,
            ms: 0,
            log: Vec::new(),
            told: Vec::new(),
            tickets: 0,
            step: 1,
            fresh_producer_id: 100,
        }
    }

    /// A moment's clocks: they do not show the same.
    pub(super) fn now(&self) -> Now {
        Now { ms: self.ms, wall_ms: 1_000_000 + self.ms }
    }

    pub(super) fn submit(&mut self, command: Command) -> Ticket {
        self.tickets += 1;
        let ticket = self.tickets;
        self.step(|core, now, effects| core.on(now, ticket, command, effects));
        ticket
    }

    fn step(&mut self, run: impl FnOnce(&mut Coordinator, Now, &mut Effects<Reply>)) {
        let mut effects = Effects::new(self.step, usize::MAX);
        let now = self.now();
        run(&mut self.coordinator, now, &mut effects);
        assert_eq!(effects.refused, None);
        if !effects.records.is_empty() {
            self.coordinator.durable(self.step);
            self.step += 1;
        }
        self.log.extend(effects.records);
        self.told.extend(effects.answers.into_iter().map(|answer| (answer.ticket, answer.reply)));
    }

    /// Does a thing that cannot be written down, and is taken back.
    pub(super) fn in_vain(&mut self, run: impl FnOnce(&mut Coordinator, Now, &mut Effects<Reply>)) {
        let mut effects = Effects::new(self.step, usize::MAX);
        let now = self.now();
        run(&mut self.coordinator, now, &mut effects);
        assert!(!effects.records.is_empty(), "nothing was to be written");
        self.coordinator.roll_back(now, self.step - 1, &mut Effects::new(self.step, usize::MAX));
    }

    /// What is said to a ticket, which is forgotten then.
    pub(super) fn answer(&mut self, ticket: Ticket) -> Option<Reply> {
        let at = self.told.iter().position(|(told, _)| *told == ticket)?;
        Some(self.told.remove(at).1)
    }

    pub(super) fn ask(&mut self, command: Command) -> Reply {
        let ticket = self.submit(command);
        self.answer(ticket).expect("an answer at once")
    }

    pub(super) fn init_command(&mut self, expected: Option<ProducerIdAndEpoch>) -> Command {
        self.fresh_producer_id += 1;
        Command::Init(InitProducer {
            id: ID.to_owned(),
            timeout_ms: TIMEOUT_MS,
            expected,
            fresh_producer_id: Some(self.fresh_producer_id),
        })
    }

    pub(super) fn init(
        &mut self,
        expected: Option<ProducerIdAndEpoch>,
    ) -> Result<ProducerIdAndEpoch, ErrorCode> {
        let command = self.init_command(expected);
        match self.ask(command) {
            Reply::Producer(result) => result,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn add<const N: usize>(
        &mut self,
        producer: ProducerIdAndEpoch,
        all: [(&str, i32); N],
        version: TransactionVersion,
    ) -> ErrorCode {
        match self.ask(add_command(producer, all, version)) {
            Reply::Code(code) => code,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn end(
        &mut self,
        producer: ProducerIdAndEpoch,
        commit: bool,
        version: TransactionVersion,
    ) -> Result<ProducerIdAndEpoch, ErrorCode> {
        self.fresh_producer_id += 1;
        let fresh_producer_id = Some(self.fresh_producer_id);
        let call = EndTransaction { id: ID.to_owned(), producer, commit, version, fresh_producer_id };
        match self.ask(Command::End(call)) {
            Reply::Producer(result) => result,
            other => panic!("{other:?}"),
        }
    }

    /// What is to be marked now.
    pub(super) fn markers(&mut self) -> Vec<Markers> {
        let ticket = self.submit(Command::NextMarkers { under_way: BTreeSet::new() });
        match self.answer(ticket) {
            Some(Reply::Markers(markers)) => markers,
            None => Vec::new(),
            other => panic!("{other:?}"),
        }
    }

    /// Marks everything that is decided.
    pub(super) fn mark_all(&mut self) -> Vec<Markers> {
        let markers = self.markers();
        for one in &markers {
            let marked = Command::Marked { id: one.id.clone(), decision: one.decision };
            assert_eq!(self.ask(marked), Reply::Done);
        }
        markers
    }

    pub(super) fn state(&mut self) -> Option<State> {
        match self.ask(Command::Describe { id: ID.to_owned() }) {
            Reply::Described(found) => found.map(|found| found.state),
            other => panic!("{other:?}"),
        }
    }

    /// Lets time pass, with everything that falls due.
    pub(super) fn pass(&mut self, ms: i64) {
        let until = self.ms + ms;
        while let Some(deadline) = self.coordinator.next_deadline().filter(|deadline| *deadline <= until) {
            self.ms = self.ms.max(deadline);
            self.step(Coordinator::on_time);
        }
        self.ms = until;
    }

    /// Another process over the same log.
    pub(super) fn restart(&mut self) {
        self.coordinator = Coordinator::new(TransactionConfig::default());
        let now = self.now();
        for record in &self.log {
            Core::replay(&mut self.coordinator, now, record).unwrap();
        }
        Core::replayed(&mut self.coordinator, now);
        self.told.clear();
    }
}

pub(super) fn add_command<const N: usize>(
    producer: ProducerIdAndEpoch,
    all: [(&str, i32); N],
    version: TransactionVersion,
) -> Command {
    Command::Add(AddPartitions { id: ID.to_owned(), producer, partitions: partitions(all), version })
}
