//! The partitions of a consumer: what is assigned, paused, fetched and handed out, within one budget. Pure: it is told
//! the time.
//!
//! A partition's records flow through here: the fetcher brings chunks, the reader takes them out in turn. Whatever
//! makes fetched records invalid (a seek, a rebalance, a log that lost records) gives the partition a new [`Cell`];
//! answers and chunks that belong to an old one are recognised by it and dropped.
//!
//! # The budget
//!
//! `prefetch_bytes` bounds what waits here, of paused partitions too, as it came over the wire: it is decompressed
//! batch by batch when it is handed out (what was begun when its partition was paused waits decompressed, and counts
//! so). Paused partitions keep at most half of it, so that they cannot starve the others; what does not fit is
//! fetched again when they are resumed.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::chunk::Chunk;
use super::positions::{Anchor, Pauses, Place, Position, Start, by_policy};
use super::settings::{OffsetReset, ResetOf};
use crate::error::ConsumeError;
use crate::types::TopicPartition;

/// How far one partition has been handed out. Shared with the reader, so that handing out a
/// record needs no common lock.
#[derive(Debug)]
pub(super) struct Cell(Mutex<CellState>);

#[derive(Debug, Clone)]
struct CellState {
    /// False after a seek or when the partition is given up: its records must not be handed out any more.
    live: bool,
    paused: bool,
    /// Offset of the next record to hand out.
    position: Option<i64>,
    /// Offset of the next record that is not processed for certain. Shared with the cells before it, back to the last
    /// seek: what they handed out is processed later than it is handed out.
    processed: Processed,
}

pub(super) type Processed = Arc<Mutex<Option<i64>>>;

/// What came of asking for records.
#[derive(Debug)]
pub(super) enum Handed<T> {
    /// These, and the position moved past them.
    Given(T),
    /// There are no more in this chunk; the position moved past it.
    Empty,
    /// Not now: keep the chunk.
    Paused,
    /// Not any more: drop the chunk.
    Dead,
}

impl Cell {
    pub(super) fn new(position: Option<i64>, processed: Processed, paused: bool) -> Arc<Self> {
        Arc::new(Self(Mutex::new(CellState { live: true, paused, position, processed })))
    }

    fn state(&self) -> MutexGuard<'_, CellState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands out what `take` gives, with the position after it, if that is still allowed. Under the cell's lock: a
    /// partition that was given up is not handed out from any more, not even at the same instant.
    pub(super) fn hand_out<T>(&self, take: impl FnOnce() -> (Option<T>, i64)) -> Handed<T> {
        let mut state = self.state();
        if !state.live {
            return Handed::Dead;
        }
        if state.paused {
            return Handed::Paused;
        }
        let (given, next) = take();
        state.position = Some(next);
        given.map_or(Handed::Empty, Handed::Given)
    }

    /// The offset to begin with is found. What was handed out before it is not processed by that.
    pub(super) fn begin(&self, offset: i64, nothing_waits: bool) {
        let mut state = self.state();
        if nothing_waits || state.position.is_none() {
            state.position = Some(offset);
        }
        state.processed().get_or_insert(offset);
    }

    /// What was handed out is processed: the program came back for more.
    pub(super) fn processed(&self) {
        let state = self.state();
        *state.processed() = state.position;
    }
}

impl CellState {
    fn processed(&self) -> MutexGuard<'_, Option<i64>> {
        self.processed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What `Partitions` goes by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// Most bytes that wait here.
    pub(super) prefetch_bytes: usize,
    /// Most bytes that one fetch of one partition brings.
    pub(super) partition_bytes: usize,
    pub(super) reset: OffsetReset,
    /// Whether there is a group whose committed offsets can be asked for.
    pub(super) has_group: bool,
    pub(super) pauses: Pauses,
}

#[derive(Debug)]
pub(super) struct Partition {
    pub(super) cell: Arc<Cell>,
    pub(super) position: Position,
    chunks: VecDeque<Chunk>,
    chunk_bytes: usize,
    /// The last chunk ends with an error: nothing more is fetched before the reader gets there.
    broken: bool,
    paused: bool,
    /// Nothing is fetched yet: the rebalance listener has not returned.
    held: bool,
    /// About to go: nothing is fetched or handed out any more.
    leaving: bool,
    pub(super) high_watermark: Option<i64>,
    /// When its leader answered last.
    pub(super) heard_at: Option<Instant>,
    /// No fetch in a session has asked for it yet.
    pub(super) is_new: bool,
    /// When it last brought records, counted in answers.
    pub(super) served: u64,
}

impl Partition {
    fn new(start: Start, held: bool) -> Self {
        Self {
            cell: Cell::new(None, Processed::default(), false),
            position: Position::new(start),
            chunks: VecDeque::new(),
            chunk_bytes: 0,
            broken: false,
            paused: false,
            held,
            leaving: false,
            high_watermark: None,
            heard_at: None,
            is_new: true,
            served: 0,
        }
    }

    /// Where the next record to hand out is.
    pub(super) fn handed_out(&self) -> Option<i64> {
        self.cell.state().position
    }

    /// Whether records may be asked for: it is not paused and has less than `share` waiting.
    pub(super) fn wants_records(&self, share: usize) -> bool {
        !self.paused && !self.broken && self.chunk_bytes < share
    }

    /// Whether all that was fetched is with the reader.
    pub(super) fn has_nothing_waiting(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Whether anything may be asked for at all.
    pub(super) fn is_active(&self) -> bool {
        !self.held && !self.leaving
    }

    /// Forgets what is fetched. Answers to what is under way come for the old cell.
    fn renew(&mut self, position: Option<i64>, processed: Processed) {
        self.cell.state().live = false;
        self.cell = Cell::new(position, processed, self.paused);
        self.broken = false;
    }
}

/// What metrics tell of where a consumer stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) assigned: usize,
    pub(super) buffered_bytes: usize,
    /// Records up to the end, of partitions where that is known.
    pub(super) lags: BTreeMap<TopicPartition, i64>,
}

/// The partitions of one consumer.
#[derive(Debug)]
pub(super) struct Partitions {
    pub(super) rules: Rules,
    reset_of: ResetOf,
    pub(super) all: BTreeMap<TopicPartition, Partition>,
    /// Partitions with chunks, in the order in which they get their turn.
    ready: VecDeque<TopicPartition>,
    /// Bytes of all chunks, and of those of paused partitions.
    buffered: usize,
    paused_bytes: usize,
    errors: VecDeque<ConsumeError>,
    /// Metadata was found to be old.
    pub(super) stale: bool,
    /// Answers that brought records, counted.
    answers: u64,
    /// Nothing more comes.
    finished: bool,
    /// How often the assignment changed.
    changes: u64,
}

impl Partitions {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            reset_of: ResetOf::default(),
            all: BTreeMap::new(),
            ready: VecDeque::new(),
            buffered: 0,
            paused_bytes: 0,
            errors: VecDeque::new(),
            stale: false,
            answers: 0,
            finished: false,
            changes: 0,
        }
    }

    pub(super) fn with_resets(self, reset_of: ResetOf) -> Self {
        Self { reset_of, ..self }
    }

    /// Where to start without a committed offset, or when that is not in the log; `None` is an error.
    pub(super) fn policy(&self, partition: &TopicPartition) -> Option<Place> {
        by_policy(self.reset_of.of(&partition.topic).unwrap_or(self.rules.reset))
    }

    /// Since when it has not been read, though it is asked for.
    pub(super) fn failing_since(&self, name: &TopicPartition) -> Option<Instant> {
        let partition = self.all.get(name)?;
        let is_asked = partition.is_active() && partition.wants_records(self.share());
        partition.position.failing_since().filter(|_| is_asked)
    }

    // ---- assignment

    /// Adds a partition. While it is held nothing is fetched.
    pub(super) fn add(&mut self, partition: TopicPartition, start: Start, held: bool) {
        self.changes += 1;
        self.all.entry(partition).or_insert_with(|| Partition::new(start, held));
    }

    /// Lets held partitions be fetched.
    pub(super) fn release(&mut self) {
        self.all.values_mut().for_each(|partition| partition.held = false);
    }

    /// From now on nothing of these partitions is handed out. They are still owned.
    pub(super) fn stop(&mut self, partitions: &[TopicPartition]) {
        for name in partitions {
            if let Some(partition) = self.all.get_mut(name) {
                partition.cell.state().live = false;
                partition.leaving = true;
                self.drop_chunks(name);
            }
        }
    }

    /// Removes partitions. Nothing is remembered of them: when they come back, what is committed counts.
    pub(super) fn remove(&mut self, partitions: &[TopicPartition]) {
        self.changes += 1;
        self.stop(partitions);
        for name in partitions {
            self.all.remove(name);
        }
    }

    /// Everything that is owned, also what is about to go.
    pub(super) fn assignment(&self) -> Vec<TopicPartition> {
        self.all.keys().cloned().collect()
    }

    /// Counts changes of what is owned.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// The topics of what is owned.
    pub(super) fn topics(&self) -> BTreeSet<Arc<str>> {
        self.all.keys().map(|partition| Arc::clone(&partition.topic)).collect()
    }

    // ---- control

    /// Pauses or resumes; returns whether something changed.
    pub(super) fn pause(&mut self, name: &TopicPartition, paused: bool) -> bool {
        let Some(partition) = self.all.get_mut(name).filter(|partition| partition.paused != paused) else {
            return false;
        };
        partition.paused = paused;
        partition.cell.state().paused = paused;
        if paused {
            self.paused_bytes += partition.chunk_bytes;
            // It may wait for long, and the rest of the answer that it shares a buffer with would wait along.
            partition.chunks.iter_mut().for_each(Chunk::detach);
            self.trim_paused(name);
        } else {
            self.paused_bytes -= partition.chunk_bytes;
            let has_chunks = !partition.chunks.is_empty();
            if has_chunks && !self.ready.contains(name) {
                self.ready.push_back(name.clone());
            }
        }
        true
    }

    pub(super) fn paused(&self) -> Vec<TopicPartition> {
        let paused = self.all.iter().filter(|(_, partition)| partition.paused);
        paused.map(|(name, _)| name.clone()).collect()
    }

    /// Whether it is owned and not about to go.
    pub(super) fn is_assigned(&self, name: &TopicPartition) -> bool {
        self.all.get(name).is_some_and(|partition| !partition.leaving)
    }

    /// Goes on elsewhere; false when the partition is not owned.
    pub(super) fn seek(&mut self, name: &TopicPartition, start: Start, epoch: Option<i32>) -> bool {
        if !self.is_assigned(name) {
            return false;
        }
        self.drop_chunks(name);
        if let Some(partition) = self.all.get_mut(name) {
            let offset = match start {
                Start::At(offset) => Some(offset),
                _ => None,
            };
            partition.renew(offset, Arc::new(Mutex::new(offset)));
            match offset {
                Some(offset) => partition.position.found(Anchor { offset, epoch }, None),
                None => partition.position.look(start),
            }
        }
        true
    }

    /// Fetches again from where the reader is: what is buffered is dropped.
    pub(super) fn refetch(&mut self, name: &TopicPartition, anchor: Anchor) {
        self.drop_chunks(name);
        if let Some(partition) = self.all.get_mut(name) {
            let processed = Arc::clone(&partition.cell.state().processed);
            partition.renew(Some(anchor.offset), processed);
            partition.position.found(anchor, None);
        }
    }

    /// Goes back to the position of `cell` after a pause: its records cannot be read now.
    pub(super) fn rewind(
        &mut self,
        name: &TopicPartition,
        cell: &Arc<Cell>,
        position: i64,
        not_before: Instant,
    ) {
        if self.current(name, cell).is_some() {
            self.refetch(name, Anchor { offset: position, epoch: self.last_epoch(name) });
            if let Some(partition) = self.all.get_mut(name) {
                partition.position.rest(not_before);
            }
        }
    }

    /// The leader epoch of what was fetched last. It does for earlier offsets too: a log that has another at their
    /// place has none of it.
    fn last_epoch(&self, name: &TopicPartition) -> Option<i32> {
        self.all.get(name)?.position.anchor()?.epoch
    }

    pub(super) fn position(&self, name: &TopicPartition) -> Option<i64> {
        self.all.get(name)?.handed_out()
    }

    /// The positions of all partitions that have one.
    pub(super) fn positions(&self, processed_only: bool) -> HashMap<TopicPartition, i64> {
        let position = |partition: &Partition| {
            let state = partition.cell.state();
            if processed_only { *state.processed() } else { state.position }
        };
        self.all.iter().filter_map(|(name, partition)| Some((name.clone(), position(partition)?))).collect()
    }

    /// The offset after the last record that may be read, as of the last fetch.
    pub(super) fn end_offset(&self, name: &TopicPartition) -> Option<i64> {
        self.all.get(name)?.high_watermark
    }

    /// Records between the position and the end, as of the last fetch.
    pub(super) fn lag(&self, name: &TopicPartition) -> Option<i64> {
        Some(lag(self.end_offset(name)?, self.position(name)?))
    }

    /// When the leader answered last.
    pub(super) fn heard_at(&self, name: &TopicPartition) -> Option<Instant> {
        self.all.get(name)?.heard_at
    }

    /// Where the consumer stands, for metrics.
    pub(super) fn sample(&self) -> Sample {
        let lags = self.all.iter().filter_map(|(name, partition)| {
            Some((name.clone(), lag(partition.high_watermark?, partition.handed_out()?)))
        });
        Sample { assigned: self.all.len(), buffered_bytes: self.buffered, lags: lags.collect() }
    }

    // ---- fetching

    /// How many bytes of one partition may wait before it is not fetched for a while.
    pub(super) fn share(&self) -> usize {
        let active = self.all.values().filter(|partition| !partition.paused && !partition.leaving).count();
        (self.rules.prefetch_bytes / active.max(1)).max(self.rules.partition_bytes)
    }

    /// How much more may be buffered.
    pub(super) fn room(&self) -> usize {
        self.rules.prefetch_bytes.saturating_sub(self.buffered)
    }

    /// Bytes that wait.
    #[cfg(test)]
    pub(super) fn buffered(&self) -> usize {
        self.buffered
    }

    /// A fetch brought this. Returns whether the reader has something new.
    pub(super) fn fetched(
        &mut self,
        name: &TopicPartition,
        cell: &Arc<Cell>,
        chunk: Chunk,
        now: Instant,
    ) -> bool {
        let paused_room = (self.rules.prefetch_bytes / 2).saturating_sub(self.paused_bytes);
        let Some(partition) = self.current(name, cell) else { return false };
        partition.high_watermark = Some(chunk.high_watermark);
        partition.heard_at = Some(now);
        let anchor = partition.position.anchor();
        if anchor.is_none_or(|anchor| anchor.offset == chunk.next.offset) && !chunk.is_broken() {
            partition.position.nothing_new(now);
            return false;
        }
        if partition.paused && chunk.bytes > paused_room {
            partition.position.unasked();
            return false;
        }
        partition.position.advance(chunk.next);
        // One that ends with an error is not fetched on: the reader sends it back when it gets there.
        partition.broken = chunk.is_broken();
        self.answers += 1;
        let answers = self.answers;
        if let Some(partition) = self.all.get_mut(name) {
            partition.served = answers;
        }
        self.keep(name, chunk, false);
        true
    }

    /// The partition, if `cell` is still its own and it is not about to go.
    pub(super) fn current(&mut self, name: &TopicPartition, cell: &Arc<Cell>) -> Option<&mut Partition> {
        self.all.get_mut(name).filter(|partition| Arc::ptr_eq(&partition.cell, cell) && !partition.leaving)
    }

    // ---- the buffer

    /// Puts a chunk behind or before the others of its partition.
    fn keep(&mut self, name: &TopicPartition, mut chunk: Chunk, first: bool) {
        let Some(partition) = self.all.get_mut(name) else { return };
        let bytes = chunk.bytes;
        partition.chunk_bytes += bytes;
        self.buffered += bytes;
        if partition.paused {
            chunk.detach();
            self.paused_bytes += bytes;
        }
        let paused = partition.paused;
        if first {
            partition.chunks.push_front(chunk);
        } else {
            let apart = match partition.chunks.back_mut() {
                Some(last) => last.join(chunk),
                None => Some(chunk),
            };
            partition.chunks.extend(apart);
        }
        if !paused && !self.ready.contains(name) {
            match first {
                true => self.ready.push_front(name.clone()),
                false => self.ready.push_back(name.clone()),
            }
        }
    }

    fn drop_chunks(&mut self, name: &TopicPartition) {
        let Some(partition) = self.all.get_mut(name) else { return };
        partition.chunks.clear();
        let freed = std::mem::take(&mut partition.chunk_bytes);
        self.buffered -= freed;
        if partition.paused {
            self.paused_bytes -= freed;
        }
    }

    /// Drops what a paused partition holds when paused partitions hold too much.
    fn trim_paused(&mut self, name: &TopicPartition) {
        if self.paused_bytes <= self.rules.prefetch_bytes / 2 {
            return;
        }
        if let Some(offset) = self.position(name) {
            self.refetch(name, Anchor { offset, epoch: self.last_epoch(name) });
        }
    }

    // ---- reading

    /// The next chunk of the partition whose turn it is.
    pub(super) fn take(&mut self) -> Option<(Chunk, Arc<Cell>)> {
        while let Some(name) = self.ready.pop_front() {
            let Some(partition) = self.all.get_mut(&name).filter(|partition| !partition.paused) else {
                continue;
            };
            let Some(chunk) = partition.chunks.pop_front() else { continue };
            partition.chunk_bytes -= chunk.bytes;
            self.buffered -= chunk.bytes;
            let cell = Arc::clone(&partition.cell);
            if !partition.chunks.is_empty() {
                self.ready.push_back(name);
            }
            return Some((chunk, cell));
        }
        None
    }

    /// Puts a chunk back that was begun when its partition was paused.
    pub(super) fn put_back(&mut self, mut chunk: Chunk, cell: &Arc<Cell>) {
        let name = chunk.partition.clone();
        // What was opened waits now, too, decompressed.
        chunk.bytes = chunk.held_bytes();
        if self.current(&name, cell).is_some() {
            self.keep(&name, chunk, true);
            if self.all.get(&name).is_some_and(|partition| partition.paused) {
                self.trim_paused(&name);
            }
        }
    }

    pub(super) fn report(&mut self, error: ConsumeError) {
        /// More errors than this tell nothing new.
        const MOST_ERRORS: usize = 1_000;
        if self.errors.len() < MOST_ERRORS {
            self.errors.push_back(error);
        }
    }

    pub(super) fn take_error(&mut self) -> Option<ConsumeError> {
        self.errors.pop_front()
    }

    /// Ends the stream of records, after what is reported.
    pub(super) fn finish(&mut self) {
        self.finished = true;
        let all = self.assignment();
        self.stop(&all);
    }

    /// Whether the program is to be told something.
    pub(super) fn has_errors(&self) -> bool {
        !self.errors.is_empty()
    }

    pub(super) fn is_finished(&self) -> bool {
        self.finished
    }
}

/// Records between a position and the end; what brokers say of an end may be anything.
pub(super) fn lag(end_offset: i64, position: i64) -> i64 {
    end_offset.saturating_sub(position).max(0)
}

#[cfg(test)]
mod tests;
