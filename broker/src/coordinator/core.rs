//! What the runtime asks of a coordinator: a pure machine whose durable state changes by records alone.

use std::fmt;

use bytes::Bytes;
use klamm_protocol::{DecodeError, ErrorCode};

/// What a caller is known by until it has its answer.
pub(crate) type Ticket = u64;

/// The number of a step that wrote records, from 1 on. Steps that write nothing have none.
pub(crate) type Step = u64;

/// The ticket of a command that nobody waits for.
pub(crate) const NOBODY: Ticket = 0;

/// The time, twice: sessions and rebalances are measured by a clock that never jumps, what is written down
/// is dated by the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Now {
    /// Milliseconds since some fixed point; never goes back.
    pub ms: i64,
    /// Milliseconds since the Unix epoch.
    pub wall_ms: i64,
}

/// A record of a coordinator's log. No value is a tombstone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredRecord {
    /// The key, in Kafka's layout.
    pub key: Bytes,
    /// The value, in Kafka's layout.
    pub value: Option<Bytes>,
}

/// A transactional producer, as its batches name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Producer {
    /// Its id.
    pub id: i64,
    /// Its epoch.
    pub epoch: i16,
}

/// What the records of a batch count for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum BatchKind {
    /// They count as they are written.
    #[default]
    Plain,
    /// They are part of this producer's transaction, and count or not as its marker says.
    Transactional(Producer),
    /// The marker of a producer's transaction, which has no records.
    Marker {
        /// Whose.
        producer: Producer,
        /// Commit, or abort.
        commit: bool,
    },
}

/// What a coordinator's log takes, and keeps or loses, as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct StoredBatch {
    /// What the records count for.
    pub kind: BatchKind,
    /// The records, in their order.
    pub records: Vec<StoredRecord>,
}

/// What a record takes in a batch beside key and value, at most: its length, deltas, two lengths and a header count.
const RECORD_OVERHEAD_BYTES: usize = 40;

impl StoredRecord {
    /// What the record takes in a batch, at most.
    pub(crate) fn max_bytes(&self) -> usize {
        RECORD_OVERHEAD_BYTES + self.key.len() + self.value.as_ref().map_or(0, Bytes::len)
    }
}

/// An answer, and what it rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer<R> {
    /// Whose.
    pub ticket: Ticket,
    /// What is said.
    pub reply: R,
    /// It may be said when the records of this step and all before it are durable; 0 rests on none.
    pub rests_on: Step,
}

/// What a step brings about.
#[derive(Debug)]
pub(crate) struct Effects<R> {
    /// The number this step has if it writes something.
    pub step: Step,
    /// To be appended, in this order.
    pub records: Vec<StoredRecord>,
    /// What it counts for; nothing while nothing is written.
    kind: Option<BatchKind>,
    /// For callers that wait.
    pub answers: Vec<Answer<R>>,
    /// Something could not be written down: the whole step is taken back, and this is why.
    pub refused: Option<ErrorCode>,
    /// How much the records of one step may take.
    max_bytes: usize,
    written_bytes: usize,
}

impl<R> Default for Effects<R> {
    fn default() -> Self {
        Self::new(1, usize::MAX)
    }
}

impl<R> Effects<R> {
    pub(crate) fn new(step: Step, max_bytes: usize) -> Self {
        Self {
            step,
            records: Vec::new(),
            kind: None,
            answers: Vec::new(),
            refused: None,
            max_bytes,
            written_bytes: 0,
        }
    }

    /// Writes a record down. A step is one batch at most, so that all of it is written in one of the three ways, or it
    /// is refused.
    pub(crate) fn write(&mut self, record: StoredRecord) {
        self.write_in(BatchKind::Plain, record);
    }

    /// Writes a record down that is part of a producer's transaction.
    pub(crate) fn write_as(&mut self, producer: Producer, record: StoredRecord) {
        self.write_in(BatchKind::Transactional(producer), record);
    }

    /// Ends a producer's transaction in the log. A step has one marker and no records beside it.
    pub(crate) fn marker(&mut self, producer: Producer, commit: bool) {
        if self.has_written() {
            self.refused = Some(ErrorCode::UnknownServerError);
        }
        self.kind = Some(BatchKind::Marker { producer, commit });
    }

    fn write_in(&mut self, kind: BatchKind, record: StoredRecord) {
        if *self.kind.get_or_insert(kind) != kind {
            self.refused = Some(ErrorCode::UnknownServerError);
        }
        self.written_bytes = self.written_bytes.saturating_add(record.max_bytes());
        self.records.push(record);
    }

    /// Whether anything is to be appended.
    pub(crate) fn has_written(&self) -> bool {
        self.kind.is_some()
    }

    /// What is to be appended, if anything is.
    pub(crate) fn take_batch(&mut self) -> Option<StoredBatch> {
        let kind = self.kind.take()?;
        Some(StoredBatch { kind, records: std::mem::take(&mut self.records) })
    }

    /// Says something that rests on a step: 0 for what is known anyway.
    pub(crate) fn answer(&mut self, ticket: Ticket, reply: R, rests_on: Step) {
        self.answers.push(Answer { ticket, reply, rests_on });
    }

    /// How much the records take, at most.
    pub(super) fn written_bytes(&self) -> usize {
        self.written_bytes
    }

    /// Whether records of so many bytes may still be written.
    pub(crate) fn has_room_for(&self, bytes: usize) -> bool {
        self.written_bytes.saturating_add(bytes) <= self.max_bytes
    }

    /// Whether a chore that can go on another time should stop here.
    pub(crate) fn is_half_full(&self) -> bool {
        self.written_bytes >= self.max_bytes / 2
    }

    /// Whether the step would be refused for the size of its records.
    pub(super) fn is_too_large(&self) -> bool {
        self.written_bytes > self.max_bytes
    }
}

/// A coordinator of one kind, for one partition of its topic. Pure: time comes in, records and answers come out.
pub(crate) trait Core: fmt::Debug + Send + 'static {
    /// What is asked of it.
    type Command: fmt::Debug + Send + 'static;
    /// What it answers.
    type Reply: fmt::Debug + Send + 'static;

    /// Does one thing. The answer comes now or in a later step; a command with the ticket [`NOBODY`] gets none.
    fn on(&mut self, now: Now, ticket: Ticket, command: Self::Command, effects: &mut Effects<Self::Reply>);

    /// Does a part of what a command asks, in a step of its own, where all of it would not fit into one. Called before
    /// [`Core::on`] as long as something is written; nothing comes in between. If what follows is taken back, the part
    /// may stay.
    fn begin(&mut self, command: &Self::Command, effects: &mut Effects<Self::Reply>) {
        let _ = (command, effects);
    }

    /// Time has passed.
    fn on_time(&mut self, now: Now, effects: &mut Effects<Self::Reply>);

    /// When [`Core::on_time`] should be called next. May be earlier than there is something to do.
    fn next_deadline(&self) -> Option<i64>;

    /// Takes in a stored record, at start and in the order of the log.
    fn replay(&mut self, now: Now, record: &StoredRecord) -> Result<(), DecodeError>;

    /// Takes in a stored record that is part of a producer's transaction, in the order of the log. Coordinators that
    /// write none find none, but for what somebody else has put into their topic.
    fn replay_as(&mut self, now: Now, producer: Producer, record: &StoredRecord) -> Result<(), DecodeError> {
        let _ = producer;
        self.replay(now, record)
    }

    /// Takes in the marker of a producer's transaction, in the order of the log.
    fn replay_marker(&mut self, now: Now, producer: Producer, commit: bool) {
        let _ = (now, producer, commit);
    }

    /// Everything stored has been replayed.
    fn replayed(&mut self, now: Now);

    /// All steps up to this one are durable: they will not be taken back.
    fn durable(&mut self, step: Step);

    /// What was written after a step never happened. Those who wait for something that cannot come any more are told.
    fn roll_back(&mut self, now: Now, to: Step, effects: &mut Effects<Self::Reply>);
}

/// Gives a core what was stored. `unreadable` is told of records that it cannot read, one by one: one record of a later
/// Kafka must not cost all the others.
pub(crate) fn replay_batch<C: Core>(
    core: &mut C,
    now: Now,
    batch: &StoredBatch,
    mut unreadable: impl FnMut(DecodeError),
) {
    for record in &batch.records {
        let read = match batch.kind {
            BatchKind::Transactional(producer) => core.replay_as(now, producer, record),
            _ => core.replay(now, record),
        };
        read.unwrap_or_else(&mut unreadable);
    }
    if let BatchKind::Marker { producer, commit } = batch.kind {
        core.replay_marker(now, producer, commit);
    }
}
