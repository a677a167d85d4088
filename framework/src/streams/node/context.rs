//! What processors see of their task.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use klamm_client::Headers;
use klamm_runtime::Clock;

use super::dropped::Dropped;
use super::room::Room;
use super::{Output, Spawn, TopicId};
use crate::listener::BoxError;
use crate::streams::error::TaskError;
use crate::streams::incoming::Incoming;

/// What processors see of their task.
pub(crate) struct Context {
    /// The names of the topics, by id: serdes are told where bytes go to and come from.
    pub(crate) topics: Vec<Arc<str>>,
    /// What has been produced and not taken yet.
    pub(crate) outputs: Vec<Output>,
    /// The task's.
    pub(crate) partition: i32,
    /// The headers of the record in work; they follow it to every output.
    pub(crate) headers: Headers,
    /// Whether table updates wait for the commit, so that only the last one of each key is forwarded.
    pub(crate) deduplicate: bool,
    /// Memory held by changes that are not committed, in bytes, as estimated.
    pub(crate) uncommitted_bytes: usize,
    /// Records left out, by reason.
    pub(crate) dropped: Dropped,
    /// Topic, partition and offset of the record in work; none while held-back updates are forwarded.
    pub(crate) place: Option<(TopicId, i32, i64)>,
    /// Which of the task's inputs the record in work is of.
    pub(crate) input: u32,
    /// How many numbers the record in work has given away.
    pub(crate) numbered: u32,
    /// The next number for what has none by its record.
    left_over: u32,
    /// The largest timestamp that the task has seen; -1 before the first.
    pub(crate) stream_time_ms: i64,
    /// The wall clock, as the caller told it.
    pub(crate) now_ms: i64,
    /// Whether a clock called something since the last commit.
    pub(crate) punctuated: bool,
    /// Whether outputs, stores and positions are one transaction.
    pub(crate) exactly_once: bool,
    /// Whether a processor asked for a commit.
    pub(crate) commit_requested: bool,
    /// Failures of the record in work that make it a dead letter.
    pub(crate) letters: Vec<Letter>,
    /// Waits before another attempt at what failed.
    pub(crate) pause: fn(Duration),
    /// Asks how many partitions a topic has; without it, each has one.
    pub(crate) ask_partition_count: Option<AskPartitionCount>,
    partition_counts: HashMap<TopicId, i32>,
    /// The headers that the closure in work has set.
    pub(crate) edited: Option<Headers>,
    /// The operator that a panic on its way came from, by its place in the graph.
    pub(crate) culprit: Option<usize>,
    /// The operators' names.
    pub(crate) operators: Vec<Arc<str>>,
    /// How often something was told to what follows, or a row of a table was changed.
    pub(crate) effects: u64,
    /// Where the operator in work was when it began, or what it did was right whatever becomes of the rest.
    whole: Effects,
    /// Where asynchronous calls run.
    pub(crate) spawn: Option<Spawn>,
    /// Whether attempts at what failed wait for each other.
    pub(crate) waits: bool,
    /// The record in work as it came, in a task with asynchronous operators.
    pub(crate) record: Option<Incoming>,
    /// Tells what time it is; without it, it is always the start of 1970.
    pub(crate) clock: Option<Arc<dyn Clock>>,
    /// What operators did that is rare, since it was taken last.
    pub(crate) tally: Tally,
    /// For bytes that leave the task.
    pub(crate) room: Room,
}

/// What has been done: it grows with all that an operator does outside of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Effects {
    told: u64,
    outputs: usize,
    uncommitted_bytes: usize,
}

/// How often something happened, by the operator's place in the graph.
pub(crate) type Tally = BTreeMap<(usize, Happened), u64>;

/// What is counted of an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Happened {
    /// It went on without a record that it could not read.
    Unreadable,
    /// It went on without a record that it failed with.
    Skipped,
    /// The same, and the record went to a topic of dead letters.
    DeadLetter,
    /// A clock called it.
    Punctuated,
}

/// A record that becomes a dead letter once the task has its bytes at hand again.
#[derive(Debug)]
pub(crate) struct Letter {
    pub(super) topic: TopicId,
    pub(super) kind: &'static str,
    pub(super) message: String,
}

/// Asks how many partitions a topic has.
pub(crate) type AskPartitionCount = Arc<dyn Fn(&str) -> Result<i32, BoxError> + Send + Sync>;

impl Context {
    pub(crate) fn new(topics: Vec<Arc<str>>, deduplicate: bool) -> Self {
        Self {
            topics,
            outputs: Vec::new(),
            partition: 0,
            headers: Headers::new(),
            deduplicate,
            uncommitted_bytes: 0,
            dropped: Dropped::default(),
            place: None,
            input: 0,
            numbered: 0,
            left_over: 0,
            stream_time_ms: -1,
            now_ms: 0,
            punctuated: false,
            exactly_once: false,
            commit_requested: false,
            letters: Vec::new(),
            // Tasks have threads of their own, and nobody unparks those.
            pause: std::thread::park_timeout,
            ask_partition_count: None,
            partition_counts: HashMap::new(),
            edited: None,
            culprit: None,
            operators: Vec::new(),
            effects: 0,
            whole: Effects::default(),
            spawn: None,
            waits: true,
            record: None,
            clock: None,
            tally: Tally::new(),
            room: Room::default(),
        }
    }

    /// A number for one of the rows that a record makes under one key and time. The same record gets the same numbers
    /// when it comes again, so that it replaces its rows instead of doubling them; records of one partition get growing
    /// ones, but for a step back every million offsets.
    ///
    /// What is of no record, or of one that makes very many rows, or of one of very many topics, gets one of those that
    /// are left over: the next that is not taken.
    pub(crate) fn record_number<E>(
        &mut self,
        mut is_taken: impl FnMut(i32) -> Result<bool, E>,
    ) -> Result<i32, E> {
        const OFFSET_BITS: u32 = 20;
        const ROW_BITS: u32 = 7;
        const LEFT_OVER: u32 = 0xF;
        let of = |input: u32, rest: u32| {
            let rest = rest & ((1 << (OFFSET_BITS + ROW_BITS)) - 1);
            i32::try_from(input << (OFFSET_BITS + ROW_BITS) | rest).unwrap_or(0)
        };
        let row = self.numbered;
        self.numbered = self.numbered.saturating_add(1);
        if let Some((_, _, offset)) = self.place
            && self.input < LEFT_OVER
            && row < 1 << ROW_BITS
        {
            let offset = u32::try_from(offset.rem_euclid(1 << OFFSET_BITS)).unwrap_or(0);
            return Ok(of(self.input, offset << ROW_BITS | row));
        }
        loop {
            let number = of(LEFT_OVER, self.left_over);
            self.left_over = self.left_over.wrapping_add(1);
            if !is_taken(number)? {
                return Ok(number);
            }
        }
    }

    fn effects(&self) -> Effects {
        let Self { effects: told, uncommitted_bytes, .. } = *self;
        Effects { told, outputs: self.outputs.len(), uncommitted_bytes }
    }

    /// An operator begins; gives what [`end`](Self::end) wants back.
    pub(crate) fn begin(&mut self) -> Effects {
        let now = self.effects();
        std::mem::replace(&mut self.whole, now)
    }

    /// What the operator in work did so far is right, whatever becomes of what it does next.
    pub(crate) fn so_far_so_good(&mut self) {
        self.whole = self.effects();
    }

    /// An operator ends; whether it did nothing that could be half of something.
    pub(crate) fn end(&mut self, before: Effects) -> bool {
        let now = self.effects();
        std::mem::replace(&mut self.whole, before) == now
    }

    /// Forwards with the headers that a closure has set, if it has `changed` anything.
    #[inline]
    pub(crate) fn forward_changed(
        &mut self,
        changed: bool,
        forward: impl FnOnce(&mut Self) -> Result<(), TaskError>,
    ) -> Result<(), TaskError> {
        if changed { self.forward_edited(forward) } else { forward(self) }
    }

    // Out of line: to move headers about in every step would triple its time.
    #[inline(never)]
    fn forward_edited(
        &mut self,
        forward: impl FnOnce(&mut Self) -> Result<(), TaskError>,
    ) -> Result<(), TaskError> {
        let Some(edited) = self.edited.take() else { return forward(self) };
        let before = std::mem::replace(&mut self.headers, edited);
        let done = forward(self);
        self.headers = before;
        done
    }

    /// Counts what an operator did.
    #[cold]
    pub(crate) fn happened(&mut self, operator: usize, what: Happened) {
        *self.tally.entry((operator, what)).or_default() += 1;
    }

    /// What time it is.
    pub(crate) fn now_ms(&self) -> i64 {
        self.clock.as_ref().map_or(0, |clock| clock.now_ms())
    }

    /// How many partitions a topic has, as when it was first asked.
    pub(crate) fn partition_count(&mut self, topic: TopicId, name: Option<&str>) -> Result<i32, BoxError> {
        if let Some(count) = self.partition_counts.get(&topic) {
            return Ok(*count);
        }
        let name = name.unwrap_or_else(|| self.topic(topic));
        let count = self.ask_partition_count.as_ref().map_or(Ok(1), |ask| ask(name))?;
        self.partition_counts.insert(topic, count);
        Ok(count)
    }

    pub(crate) fn topic(&self, id: TopicId) -> &str {
        self.topics.get(id.0 as usize).map_or("", |name| name)
    }
}
