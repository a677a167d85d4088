//! All transactional ids of one partition of `__transaction_state`: finds the one of a call, keeps the timers, hands
//! out markers to be written, replays what was stored, takes back what was not.
//!
//! Pure. What is written down is noted in a journal before it changes, so that a step which does not become durable can
//! be undone. A call that comes while the transaction before is being marked waits for it, so that a client needn't ask
//! again; it is done as if it had come then.

use std::collections::{BTreeMap, BTreeSet};

use klamm_protocol::{EncodeError, ErrorCode};

use super::calls::{
    AddPartitions, Command, Decision, Description, EndTransaction, InitProducer, Markers, Reply,
};
use super::records;
use super::transaction::{End, Init, Next, State, Transaction};
use crate::config::TransactionConfig;
use crate::coordinator::{Effects, Journal, Now, Step, StoredRecord, Ticket, Timers};

/// Kafka has no bound but that of its strings, 32,767 bytes. The id is in every record of every transaction.
const ID_MAX_BYTES: usize = 1_024;

/// How many calls of one id may wait for the transaction before: a client has one, and retries.
const PARKED_MAX: usize = 16;

/// How long until the end of a transaction that has taken too long is written again, when it could not be: the disk may
/// be full for hours.
const RETRY_MS: i64 = 1_000;

/// The transactional ids of one partition of `__transaction_state`.
#[derive(Debug)]
pub(super) struct Coordinator {
    config: TransactionConfig,
    transactions: BTreeMap<String, Transaction>,
    /// When an open transaction has taken too long.
    timers: Timers<String>,
    /// Ids as they were before writes that are not durable.
    written: Journal<String, Before>,
    /// Decided, and not yet marked in every partition, with the number of the decision.
    prepared: BTreeMap<String, Decision>,
    last_decision: Decision,
    /// Who wants to hear of what is to be marked, and what it is marking already.
    marker: Option<(Ticket, BTreeSet<Decision>)>,
    /// Calls that wait for a transaction to be marked.
    parked: BTreeMap<String, Vec<(Ticket, Command)>>,
}

/// An id as it was.
#[derive(Debug)]
struct Before {
    transaction: Option<Transaction>,
    decision: Option<Decision>,
}

impl Coordinator {
    /// No ids yet.
    pub(super) fn new(config: TransactionConfig) -> Self {
        Self {
            config,
            transactions: BTreeMap::new(),
            timers: Timers::default(),
            written: Journal::default(),
            prepared: BTreeMap::new(),
            last_decision: 0,
            marker: None,
            parked: BTreeMap::new(),
        }
    }

    /// InitProducerId.
    pub(super) fn init(
        &mut self,
        now: Now,
        ticket: Ticket,
        call: InitProducer,
        effects: &mut Effects<Reply>,
    ) {
        let id = call.id.clone();
        let refusal = if id.is_empty() || id.len() > ID_MAX_BYTES {
            Some(ErrorCode::InvalidRequest)
        } else if call.timeout_ms <= 0 || call.timeout_ms > self.config.max_timeout_ms {
            Some(ErrorCode::InvalidTransactionTimeout)
        } else {
            None
        };
        if let Some(error) = refusal {
            return effects.answer(ticket, Reply::Producer(Err(error)), 0);
        }
        let init = Init {
            timeout_ms: call.timeout_ms,
            expected: call.expected,
            fresh_producer_id: call.fresh_producer_id,
        };
        let next = match (self.transactions.get(&id), call.fresh_producer_id) {
            (Some(known), _) => known.init(init, now.wall_ms),
            (None, None) => Ok(Next::NeedsProducerId),
            (None, Some(producer_id)) => {
                Transaction::new(producer_id, call.timeout_ms, now.wall_ms).init(init, now.wall_ms)
            }
        };
        match next {
            Err(ErrorCode::ConcurrentTransactions) => self.park(ticket, &id, Command::Init(call), effects),
            Err(error) => effects.answer(ticket, Reply::Producer(Err(error)), self.written.pending(&id)),
            Ok(Next::NeedsProducerId) => effects.answer(ticket, Reply::NeedsProducerId, 0),
            Ok(Next::AbortFirst(aborted)) => {
                self.keep(now, &id, aborted, effects);
                // The one that it aborts is not the one that it expects to find afterwards.
                let call = InitProducer { expected: None, ..call };
                self.park(ticket, &id, Command::Init(call), effects);
            }
            Ok(Next::Write(transaction)) => {
                let producer = transaction.producer();
                self.keep(now, &id, transaction, effects);
                effects.answer(ticket, Reply::Producer(Ok(producer)), effects.step);
            }
            Ok(Next::Nothing) => {
                let producer = self.transactions.get(&id).map(Transaction::producer);
                let reply = producer.ok_or(ErrorCode::UnknownServerError);
                effects.answer(ticket, Reply::Producer(reply), self.written.pending(&id));
            }
        }
    }

    /// AddPartitionsToTxn, and all that implies it.
    pub(super) fn add(
        &mut self,
        now: Now,
        ticket: Ticket,
        call: AddPartitions,
        effects: &mut Effects<Reply>,
    ) {
        let id = call.id.clone();
        let next = match self.transactions.get(&id) {
            None if id.is_empty() => Err(ErrorCode::InvalidRequest),
            None => Err(ErrorCode::InvalidProducerIdMapping),
            Some(known) => known.add(call.producer, &call.partitions, call.version, now.wall_ms),
        };
        let code = match next {
            Err(ErrorCode::ConcurrentTransactions) => {
                return self.park(ticket, &id, Command::Add(call), effects);
            }
            Err(error) => error,
            Ok(Next::Write(transaction)) => {
                self.keep(now, &id, transaction, effects);
                return effects.answer(ticket, Reply::Code(ErrorCode::None), effects.step);
            }
            Ok(_) => ErrorCode::None,
        };
        effects.answer(ticket, Reply::Code(code), self.written.pending(&id));
    }

    /// Whether partitions take part.
    pub(super) fn verify(&self, ticket: Ticket, call: &AddPartitions, effects: &mut Effects<Reply>) {
        let one = |known: &Transaction, topic: &str, index: i32| match known.has(topic, index) {
            true => ErrorCode::None,
            // Kafka's word for: abort it, and go on with the next.
            false => ErrorCode::TransactionAbortable,
        };
        let codes = match self.transactions.get(&call.id) {
            None => Err(ErrorCode::InvalidProducerIdMapping),
            Some(known) => known.verify(call.producer).map(|()| {
                let all = call.partitions.iter();
                let all = all.flat_map(|(topic, indexes)| indexes.iter().map(move |index| (topic, *index)));
                all.map(|(topic, index)| (topic.clone(), index, one(known, topic, index))).collect()
            }),
        };
        effects.answer(ticket, Reply::Codes(codes), self.written.pending(&call.id));
    }

    /// EndTxn.
    pub(super) fn end(
        &mut self,
        now: Now,
        ticket: Ticket,
        call: &EndTransaction,
        effects: &mut Effects<Reply>,
    ) {
        let id = &call.id;
        let end = End {
            producer: call.producer,
            commit: call.commit,
            version: call.version,
            fresh_producer_id: call.fresh_producer_id,
        };
        let next = match self.transactions.get(id) {
            None if id.is_empty() => Err(ErrorCode::InvalidRequest),
            None => Err(ErrorCode::InvalidProducerIdMapping),
            Some(known) => known.end(end, now.wall_ms),
        };
        let reply = match next {
            Ok(Next::Write(transaction) | Next::AbortFirst(transaction)) => {
                let client = transaction.client();
                self.keep(now, id, transaction, effects);
                return effects.answer(ticket, Reply::Producer(Ok(client)), effects.step);
            }
            Ok(Next::NeedsProducerId) => return effects.answer(ticket, Reply::NeedsProducerId, 0),
            Ok(Next::Nothing) => {
                let client = self.transactions.get(id).map(Transaction::client);
                Reply::Producer(client.ok_or(ErrorCode::UnknownServerError))
            }
            Err(error) => Reply::Producer(Err(error)),
        };
        effects.answer(ticket, reply, self.written.pending(id));
    }

    /// Who writes markers asks for more. One of them asks at a time; a second one takes the first one's place.
    pub(super) fn next_markers(
        &mut self,
        ticket: Ticket,
        under_way: BTreeSet<Decision>,
        effects: &mut Effects<Reply>,
    ) {
        if let Some((other, _)) = self.marker.replace((ticket, under_way)) {
            effects.answer(other, Reply::Markers(Vec::new()), 0);
        }
        self.hand_out(effects);
    }

    /// The markers of a transaction are durable.
    pub(super) fn marked(
        &mut self,
        now: Now,
        ticket: Ticket,
        id: &str,
        decision: Decision,
        effects: &mut Effects<Reply>,
    ) {
        let decided = self.transactions.get(id).filter(|_| self.prepared.get(id) == Some(&decision));
        let next = decided.and_then(|known| known.marked(now.wall_ms));
        if let Some(completed) = next {
            self.keep(now, id, completed, effects);
            self.go_on(now, id, effects);
        }
        effects.answer(ticket, Reply::Done, self.written.pending(id));
    }

    /// DescribeTransactions.
    pub(super) fn describe(&self, ticket: Ticket, id: &str, effects: &mut Effects<Reply>) {
        let found = self.transactions.get(id).map(|known| description(id, known));
        effects.answer(ticket, Reply::Described(found), self.written.pending(id));
    }

    /// ListTransactions: looks past what is not durable.
    pub(super) fn list(&self, ticket: Ticket, effects: &mut Effects<Reply>) {
        let ids: BTreeSet<&String> = self.transactions.keys().chain(self.written.keys()).collect();
        let durable = |id: &String| match self.written.of(id).next() {
            Some(before) => before.transaction.as_ref().map(|known| description(id, known)),
            None => self.transactions.get(id).map(|known| description(id, known)),
        };
        effects.answer(ticket, Reply::Listed(ids.into_iter().filter_map(durable).collect()), 0);
    }

    /// Forgets ids that nobody has used for long, as many as fit.
    pub(super) fn expire(&mut self, now: Now, effects: &mut Effects<Reply>) {
        let forgotten = |known: &Transaction| known.is_forgotten(now.wall_ms, self.config.id_expiration_ms);
        let old: Vec<String> = self
            .transactions
            .iter()
            .filter(|(_, known)| forgotten(known))
            .map(|(id, _)| id.clone())
            .collect();
        for id in old {
            if effects.is_half_full() {
                return;
            }
            write(records::tombstone(&id), effects);
            let transaction = self.transactions.remove(&id);
            self.written.note(effects.step, &id, Before { transaction, decision: None });
        }
    }

    /// Aborts what has taken too long.
    pub(super) fn on_time(&mut self, now: Now, effects: &mut Effects<Reply>) {
        for id in self.timers.take_due(now.ms) {
            let Some(known) = self.transactions.get(&id) else { continue };
            let due = known.times_out_at_ms().is_some_and(|at_ms| at_ms <= now.wall_ms);
            if due && !effects.is_half_full() {
                let aborted = known.fenced(now.wall_ms);
                self.keep(now, &id, aborted, effects);
            } else {
                self.set_timer(now, &id);
            }
        }
    }

    pub(super) fn next_deadline(&self) -> Option<i64> {
        self.timers.next()
    }

    /// Takes in a stored record.
    pub(super) fn replay(&mut self, record: &StoredRecord) -> Result<(), klamm_protocol::DecodeError> {
        match records::read(record)? {
            Some((id, Some(transaction))) => drop(self.transactions.insert(id, transaction)),
            Some((id, None)) => drop(self.transactions.remove(&id)),
            None => {}
        }
        Ok(())
    }

    /// Everything is replayed: what was decided is marked, and what is open has its time.
    pub(super) fn replayed(&mut self, now: Now) {
        for (id, known) in &self.transactions {
            if known.state.is_prepared() {
                self.last_decision += 1;
                self.prepared.insert(id.clone(), self.last_decision);
            }
        }
        let ids: Vec<String> = self.transactions.keys().cloned().collect();
        ids.iter().for_each(|id| self.set_timer(now, id));
    }

    pub(super) fn durable(&mut self, step: Step) {
        self.written.settle(step);
    }

    /// What was written after a step never happened.
    pub(super) fn roll_back(&mut self, now: Now, to: Step, effects: &mut Effects<Reply>) {
        let undone = self.written.roll_back(to);
        let ids: BTreeSet<String> = undone.iter().map(|(id, _)| id.clone()).collect();
        for (id, before) in undone {
            match before.decision {
                // Who marks it still has the number: it is not handed out once more, which could end the next one.
                Some(decision) => self.prepared.insert(id.clone(), decision),
                None => self.prepared.remove(&id),
            };
            match before.transaction {
                Some(transaction) => drop(self.transactions.insert(id, transaction)),
                None => drop(self.transactions.remove(&id)),
            }
        }
        for id in ids {
            let deadline_ms = self.deadline_ms(now, &id);
            let overdue = deadline_ms.is_some_and(|deadline_ms| deadline_ms <= now.ms);
            let deadline_ms = if overdue { Some(now.ms.saturating_add(RETRY_MS)) } else { deadline_ms };
            self.timers.set(&id, deadline_ms);
            if !self.prepared.contains_key(&id) {
                self.refuse_parked(&id, effects);
            }
        }
    }

    /// What is stored of each id, without what is forgotten at a restart.
    #[cfg(test)]
    pub(super) fn stored(&self) -> BTreeMap<String, Transaction> {
        let stored = |(id, known): (&String, &Transaction)| {
            (id.clone(), Transaction { last_epoch: super::transaction::NO_EPOCH, ..known.clone() })
        };
        self.transactions.iter().map(stored).collect()
    }

    /// The state from now on.
    fn keep(&mut self, now: Now, id: &str, transaction: Transaction, effects: &mut Effects<Reply>) {
        write(records::record(id, &transaction), effects);
        let prepared = transaction.state.is_prepared();
        let before = Before {
            transaction: self.transactions.insert(id.to_owned(), transaction),
            decision: self.prepared.remove(id),
        };
        self.written.note(effects.step, &id.to_owned(), before);
        self.set_timer(now, id);
        if prepared {
            self.last_decision += 1;
            self.prepared.insert(id.to_owned(), self.last_decision);
            self.hand_out(effects);
        }
    }

    /// Hands out what is to be marked, if somebody waits for it. It is told when the decision is durable.
    fn hand_out(&mut self, effects: &mut Effects<Reply>) {
        let Some((ticket, under_way)) = self.marker.take() else { return };
        let new = self.prepared.iter().filter(|(_, decision)| !under_way.contains(decision));
        let new: Vec<Markers> = new
            .filter_map(|(id, decision)| Some(markers(id, *decision, self.transactions.get(id)?)))
            .collect();
        if new.is_empty() {
            self.marker = Some((ticket, under_way));
            return;
        }
        let rests_on = new.iter().map(|markers| self.written.pending(&markers.id)).max().unwrap_or(0);
        effects.answer(ticket, Reply::Markers(new), rests_on);
    }

    /// Lets a call wait until the transaction before has ended.
    fn park(&mut self, ticket: Ticket, id: &str, command: Command, effects: &mut Effects<Reply>) {
        let parked = self.parked.entry(id.to_owned()).or_default();
        if parked.len() < PARKED_MAX {
            return parked.push((ticket, command));
        }
        let error = ErrorCode::ConcurrentTransactions;
        effects.answer(ticket, refused(&command, error), self.written.pending(id));
    }

    /// Does what has waited.
    fn go_on(&mut self, now: Now, id: &str, effects: &mut Effects<Reply>) {
        for (ticket, command) in self.parked.remove(id).unwrap_or_default() {
            match command {
                Command::Init(call) => self.init(now, ticket, call, effects),
                Command::Add(call) => self.add(now, ticket, call, effects),
                _ => {}
            }
        }
    }

    /// What they waited for will not come.
    fn refuse_parked(&mut self, id: &str, effects: &mut Effects<Reply>) {
        for (ticket, command) in self.parked.remove(id).unwrap_or_default() {
            let reply = refused(&command, ErrorCode::CoordinatorNotAvailable);
            effects.answer(ticket, reply, self.written.pending(id));
        }
    }

    fn set_timer(&mut self, now: Now, id: &str) {
        let deadline_ms = self.deadline_ms(now, id);
        self.timers.set(&id.to_owned(), deadline_ms);
    }

    /// When the open transaction has taken too long: at the earliest now.
    fn deadline_ms(&self, now: Now, id: &str) -> Option<i64> {
        let at_ms = self.transactions.get(id).and_then(Transaction::times_out_at_ms);
        // What is written down is dated by the wall clock, and waited for by the other.
        at_ms.map(|at_ms| now.ms.saturating_add(at_ms.saturating_sub(now.wall_ms).max(0)))
    }
}

fn refused(command: &Command, error: ErrorCode) -> Reply {
    match command {
        Command::Add(_) => Reply::Code(error),
        _ => Reply::Producer(Err(error)),
    }
}

fn markers(id: &str, decision: Decision, known: &Transaction) -> Markers {
    Markers {
        id: id.to_owned(),
        decision,
        producer: known.producer(),
        commit: known.state == State::PrepareCommit,
        partitions: known.partitions.clone(),
        version: known.version,
    }
}

fn description(id: &str, known: &Transaction) -> Description {
    Description {
        id: id.to_owned(),
        state: known.state,
        producer: known.producer(),
        timeout_ms: known.timeout_ms,
        started_at_ms: known.started_at_ms,
        partitions: known.partitions.clone(),
    }
}

fn write(record: Result<StoredRecord, EncodeError>, effects: &mut Effects<Reply>) {
    match record {
        Ok(record) => effects.write(record),
        Err(_) => effects.refused = Some(ErrorCode::InvalidRequest),
    }
}
