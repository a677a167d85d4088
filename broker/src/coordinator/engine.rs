//! One partition of a coordinator, pure: in which order commands are done, their records appended, and answers given.
//!
//! ```text
//! loading -> ready -> failed, until the broker starts again
//! step:  done by the core -> open (may wait for its append) -> appending -> written -> durable
//! ```
//!
//! Only a ready engine takes commands. One batch is appended at a time; what comes meanwhile gathers in the next. An
//! answer waits for the step it rests on. When an append is refused, its batch and everything after it is rolled back;
//! when the log is lost, everything that is not durable.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use klamm_protocol::ErrorCode;

use super::core::{BatchKind, Core, Effects, NOBODY, Now, Step, StoredBatch, Ticket};

/// Steps are gathered in one batch up to this size. A single step may be larger.
const BATCH_TARGET_BYTES: usize = 1 << 20;

/// Why a batch was not appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AppendFailure {
    /// Nothing was written, and the log takes what comes next.
    Refused(String),
    /// It may be written or not; the log takes nothing any more.
    Lost(String),
}

/// Whether commands are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Loading,
    Ready,
    Failed,
}

/// Steps that are appended together: as many as fit that follow each other and are of one kind.
#[derive(Debug)]
struct Batch {
    stored: StoredBatch,
    bytes: usize,
    last: Step,
}

/// A batch that is in the log.
#[derive(Debug, Clone, Copy)]
struct Written {
    last: Step,
    last_offset: i64,
}

/// An answer, or why there is none.
pub(crate) type Told<R> = Result<R, ErrorCode>;

/// The core of one partition and what is under way for it.
#[derive(Debug)]
pub(super) struct Engine<C: Core> {
    core: C,
    phase: Phase,
    /// The largest batch that the log takes.
    max_batch_bytes: usize,
    /// The last step that wrote something.
    last: Step,
    durable: Step,
    /// Batches that wait for their append; the newest still grows.
    open: VecDeque<Batch>,
    /// The last step of the batch that is being appended.
    appending: Option<Step>,
    /// Batches that are not known to be durable, the oldest first.
    written: VecDeque<Written>,
    /// Answers that wait for the step they rest on.
    held: BTreeMap<(Step, Ticket), C::Reply>,
    /// Callers that the core has not answered.
    waiting: BTreeSet<Ticket>,
    /// Nobody may wait for the core any more.
    stopping: bool,
    /// Came while loading.
    postponed: Vec<C::Command>,
    told: Vec<(Ticket, Told<C::Reply>)>,
}

impl<C: Core> Engine<C> {
    /// An engine whose log is yet to be read; `core` knows nothing.
    pub(super) fn loading(core: C, max_batch_bytes: usize) -> Self {
        Self {
            core,
            phase: Phase::Loading,
            max_batch_bytes,
            last: 0,
            durable: 0,
            open: VecDeque::new(),
            appending: None,
            written: VecDeque::new(),
            held: BTreeMap::new(),
            waiting: BTreeSet::new(),
            stopping: false,
            postponed: Vec::new(),
            told: Vec::new(),
        }
    }

    /// The log was read, all of it is durable, and `core` has replayed it. `first` is done before anything else, then
    /// what came while loading.
    pub(super) fn loaded(&mut self, now: Now, core: C, first: Option<C::Command>) {
        if self.phase != Phase::Loading {
            return;
        }
        self.core = core;
        self.phase = Phase::Ready;
        for command in first.into_iter().chain(std::mem::take(&mut self.postponed)) {
            self.step(now, NOBODY, |core, effects| core.on(now, NOBODY, command, effects));
        }
    }

    /// Does what a caller asks. Gives the step if something was written.
    pub(super) fn on(&mut self, now: Now, ticket: Ticket, command: C::Command) -> Option<Step> {
        self.waiting.insert(ticket);
        if let Some(error) = self.refusal() {
            self.tell(ticket, Err(error));
            return None;
        }
        while self.step(now, NOBODY, |core, effects| core.begin(&command, effects)).is_some() {}
        let step = self.step(now, ticket, |core, effects| core.on(now, ticket, command, effects));
        if self.stopping {
            self.tell(ticket, Err(ErrorCode::CoordinatorNotAvailable));
        }
        step
    }

    /// Does what nobody waits for; while loading, later.
    pub(super) fn inform(&mut self, now: Now, command: C::Command) {
        match self.phase {
            Phase::Loading => self.postponed.push(command),
            Phase::Ready => {
                self.step(now, NOBODY, |core, effects| core.on(now, NOBODY, command, effects));
            }
            Phase::Failed => {}
        }
    }

    /// Lets the core see to what is due.
    pub(super) fn on_time(&mut self, now: Now) {
        if self.next_deadline().is_some_and(|deadline_ms| deadline_ms <= now.ms) {
            self.step(now, NOBODY, |core, effects| core.on_time(now, effects));
        }
    }

    /// When [`Self::on_time`] has something to do.
    pub(super) fn next_deadline(&self) -> Option<i64> {
        if self.phase == Phase::Ready { self.core.next_deadline() } else { None }
    }

    /// Asks something that changes nothing.
    pub(super) fn ask<T>(&self, question: impl FnOnce(&C) -> T) -> Result<T, ErrorCode> {
        self.refusal().map_or_else(|| Ok(question(&self.core)), Err)
    }

    /// Why commands are not taken, if they are not.
    fn refusal(&self) -> Option<ErrorCode> {
        match self.phase {
            Phase::Loading => Some(ErrorCode::CoordinatorLoadInProgress),
            Phase::Ready => None,
            Phase::Failed => Some(ErrorCode::CoordinatorNotAvailable),
        }
    }

    /// Whether an append should be begun.
    pub(super) fn has_append(&self) -> bool {
        self.phase == Phase::Ready && self.appending.is_none() && !self.open.is_empty()
    }

    /// Takes the next batch to be appended, unless one is under way.
    pub(super) fn next_append(&mut self) -> Option<StoredBatch> {
        if !self.has_append() {
            return None;
        }
        let batch = self.open.pop_front()?;
        self.appending = Some(batch.last);
        Some(batch.stored)
    }

    /// The append under way ended: at this last offset, or in vain.
    pub(super) fn appended(&mut self, now: Now, ended: Result<i64, AppendFailure>) {
        let Some(last) = self.appending.take() else { return };
        if self.phase != Phase::Ready {
            return;
        }
        match ended {
            Ok(last_offset) => self.written.push_back(Written { last, last_offset }),
            Err(AppendFailure::Refused(_)) => {
                let to = self.written.back().map_or(self.durable, |batch| batch.last);
                self.roll_back(now, to);
            }
            Err(AppendFailure::Lost(_)) => self.fail(now),
        }
    }

    /// The offset to wait for until it is durable.
    pub(super) fn next_durable(&self) -> Option<i64> {
        self.written.front().map(|batch| batch.last_offset)
    }

    /// Everything up to this offset is durable.
    pub(super) fn durable(&mut self, offset: i64) {
        let before = self.durable;
        while let Some(batch) = self.written.front().copied().filter(|batch| batch.last_offset <= offset) {
            self.written.pop_front();
            self.durable = batch.last;
        }
        if self.durable == before {
            return;
        }
        self.core.durable(self.durable);
        let later = self.held.split_off(&(self.durable + 1, 0));
        let due = std::mem::replace(&mut self.held, later).into_iter();
        self.told.extend(due.map(|((_, ticket), reply)| (ticket, Ok(reply))));
    }

    /// The broker stops: whoever waits for the core, now and from now on, is told. What is written is still answered.
    pub(super) fn stop(&mut self) {
        self.stopping = true;
        self.dismiss();
    }

    /// The log is lost: nothing that is not durable ever happened, and nobody is served any more.
    pub(super) fn fail(&mut self, now: Now) {
        if self.phase == Phase::Ready {
            self.roll_back(now, self.durable);
        }
        self.abandon();
    }

    /// The core must not be asked any more, not even to roll back: it panicked. Nobody is served until the next start.
    pub(super) fn abandon(&mut self) {
        self.phase = Phase::Failed;
        self.last = self.durable;
        self.open.clear();
        self.written.clear();
        self.postponed.clear();
        let held = std::mem::take(&mut self.held).into_keys();
        self.told.extend(held.map(|(_, ticket)| (ticket, Err(ErrorCode::CoordinatorNotAvailable))));
        self.dismiss();
    }

    fn dismiss(&mut self) {
        let waiting = std::mem::take(&mut self.waiting).into_iter();
        self.told.extend(waiting.map(|ticket| (ticket, Err(ErrorCode::CoordinatorNotAvailable))));
    }

    /// Whether a step may still be taken back.
    pub(super) fn is_pending(&self, step: Step) -> bool {
        self.durable < step && step <= self.last
    }

    /// Takes out the answers that may be given now. Each caller gets one.
    pub(super) fn take_told(&mut self) -> Vec<(Ticket, Told<C::Reply>)> {
        std::mem::take(&mut self.told)
    }

    fn step(
        &mut self,
        now: Now,
        ticket: Ticket,
        act: impl FnOnce(&mut C, &mut Effects<C::Reply>),
    ) -> Option<Step> {
        let mut effects = Effects::new(self.last + 1, self.max_batch_bytes);
        act(&mut self.core, &mut effects);
        let too_large = effects.is_too_large().then_some(ErrorCode::MessageTooLarge);
        if let Some(error) = effects.refused.or(too_large) {
            self.take_back(now, ticket, error, &effects);
            return None;
        }
        let bytes = effects.written_bytes();
        let written = effects.take_batch();
        let wrote = written.is_some();
        if let Some(batch) = written {
            self.last += 1;
            self.gather(batch, bytes);
        }
        for answer in effects.answers {
            self.answer(answer.ticket, answer.reply, answer.rests_on.min(self.last));
        }
        wrote.then_some(self.last)
    }

    /// The step of a caller cannot be written down: it never happened.
    fn take_back(&mut self, now: Now, caller: Ticket, error: ErrorCode, effects: &Effects<C::Reply>) {
        let mut undone = Effects::new(self.last + 1, self.max_batch_bytes);
        self.core.roll_back(now, self.last, &mut undone);
        // First the caller, for it is the one who can do something about it.
        for ticket in effects.answers.iter().map(|answer| answer.ticket).chain([caller]) {
            self.tell(ticket, Err(error));
        }
        for answer in undone.answers {
            self.tell(answer.ticket, Ok(answer.reply));
        }
    }

    fn gather(&mut self, stored: StoredBatch, bytes: usize) {
        let target_bytes = BATCH_TARGET_BYTES.min(self.max_batch_bytes);
        // A marker is a batch by itself. What is between it and an earlier batch of its kind keeps its place, too.
        let takes = |batch: &&mut Batch| {
            batch.stored.kind == stored.kind
                && !matches!(stored.kind, BatchKind::Marker { .. })
                && batch.bytes.saturating_add(bytes) <= target_bytes
        };
        match self.open.back_mut().filter(takes) {
            Some(batch) => {
                batch.stored.records.extend(stored.records);
                batch.bytes += bytes;
                batch.last = self.last;
            }
            None => self.open.push_back(Batch { stored, bytes, last: self.last }),
        }
    }

    fn answer(&mut self, ticket: Ticket, reply: C::Reply, rests_on: Step) {
        if rests_on <= self.durable {
            self.tell(ticket, Ok(reply));
        } else if self.waiting.remove(&ticket) {
            self.held.insert((rests_on, ticket), reply);
        }
    }

    fn tell(&mut self, ticket: Ticket, told: Told<C::Reply>) {
        if self.waiting.remove(&ticket) {
            self.told.push((ticket, told));
        }
    }

    /// Everything after a step never happened; whoever was to be told of it is told so.
    fn roll_back(&mut self, now: Now, to: Step) {
        let mut undone = Effects::new(to + 1, self.max_batch_bytes);
        self.core.roll_back(now, to, &mut undone);
        self.last = to;
        self.open.clear();
        let undone_answers = self.held.split_off(&(to + 1, 0)).into_keys();
        let unavailable = |(_, ticket)| (ticket, Err(ErrorCode::CoordinatorNotAvailable));
        self.told.extend(undone_answers.map(unavailable));
        for answer in undone.answers {
            self.tell(answer.ticket, Ok(answer.reply));
        }
    }
}
