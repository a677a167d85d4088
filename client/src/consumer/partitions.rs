//! The partitions of a consumer: positions, what is fetched, what may be fetched next. Pure: it is told the time.
//!
//! A partition's records flow through here: the fetcher asks what it may fetch and brings chunks, the reader takes
//! chunks out in turn. Whatever makes fetched records invalid (a seek, a rebalance) gives the partition a new [`Cell`];
//! answers and chunks that belong to an old one are recognised by it and dropped.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::chunk::Chunk;
use crate::error::ConsumeError;
use crate::types::TopicPartition;

/// How far one partition has been handed out. Shared with the reader, so that handing out a
/// record needs no common lock.
#[derive(Debug)]
pub(super) struct Cell(Mutex<CellState>);

#[derive(Debug, Clone, Copy)]
struct CellState {
    /// False after a seek or when the partition is given up: its records must not be handed out any more.
    live: bool,
    paused: bool,
    /// Offset of the next record to hand out.
    position: Option<i64>,
    /// Offset of the next record that is not processed for certain.
    processed: Option<i64>,
}

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
    fn new(position: Option<i64>, paused: bool) -> Arc<Self> {
        Arc::new(Self(Mutex::new(CellState { live: true, paused, position, processed: position })))
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

    /// What was handed out is processed: the program came back for more.
    pub(super) fn processed(&self) {
        let mut state = self.state();
        state.processed = state.position;
    }
}

/// Where fetching goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// At the committed offset, or else as `auto_offset_reset` has it.
    Committed,
    /// At the oldest record.
    Earliest,
    /// After the newest.
    Latest,
    At(i64),
}

/// A piece of work for the fetcher.
#[derive(Debug, Clone)]
pub(super) struct Task {
    pub(super) partition: TopicPartition,
    pub(super) start: Start,
    pub(super) cell: Arc<Cell>,
}

#[derive(Debug)]
struct Partition {
    cell: Arc<Cell>,
    start: Start,
    chunks: VecDeque<Chunk>,
    chunk_bytes: usize,
    /// A request for it is under way.
    busy: bool,
    paused: bool,
    /// Nothing is fetched yet: the rebalance listener has not returned.
    held: bool,
    /// About to go: nothing is fetched or handed out any more.
    leaving: bool,
    not_before: Option<Instant>,
    high_watermark: Option<i64>,
}

impl Partition {
    fn new(start: Start, held: bool) -> Self {
        Self {
            cell: Cell::new(None, false),
            start,
            chunks: VecDeque::new(),
            chunk_bytes: 0,
            busy: false,
            paused: false,
            held,
            leaving: false,
            not_before: None,
            high_watermark: None,
        }
    }

    /// Forgets what is fetched and goes on from `start`. Returns the bytes set free.
    fn restart(&mut self, start: Start, position: Option<i64>) -> usize {
        self.cell.state().live = false;
        self.cell = Cell::new(position, self.paused);
        self.start = start;
        // A request under way brings an answer for the old cell.
        self.busy = false;
        self.not_before = None;
        self.drop_chunks()
    }

    fn drop_chunks(&mut self) -> usize {
        self.chunks.clear();
        std::mem::take(&mut self.chunk_bytes)
    }
}

/// The partitions of one consumer.
#[derive(Debug)]
pub(super) struct Partitions {
    partitions: HashMap<TopicPartition, Partition>,
    /// Partitions with chunks, in the order in which they get their turn.
    ready: VecDeque<TopicPartition>,
    /// Bytes of chunks of partitions that are not paused.
    buffered: usize,
    prefetch_bytes: usize,
    partition_bytes: usize,
    errors: VecDeque<ConsumeError>,
    /// Nothing more comes.
    finished: bool,
}

impl Partitions {
    pub(super) fn new(prefetch_bytes: usize, partition_bytes: usize) -> Self {
        Self {
            partitions: HashMap::new(),
            ready: VecDeque::new(),
            buffered: 0,
            prefetch_bytes,
            partition_bytes,
            errors: VecDeque::new(),
            finished: false,
        }
    }

    // ---- assignment

    /// Adds a partition. While it is held nothing is fetched.
    pub(super) fn add(&mut self, partition: TopicPartition, start: Start, held: bool) {
        self.partitions.entry(partition).or_insert_with(|| Partition::new(start, held));
    }

    /// Lets held partitions be fetched.
    pub(super) fn release(&mut self) {
        self.partitions.values_mut().for_each(|partition| partition.held = false);
    }

    /// From now on nothing of these partitions is handed out. They are still owned.
    pub(super) fn stop(&mut self, partitions: &[TopicPartition]) {
        for name in partitions {
            if let Some(partition) = self.partitions.get_mut(name) {
                partition.cell.state().live = false;
                partition.leaving = true;
                let freed = partition.drop_chunks();
                if !partition.paused {
                    self.buffered -= freed;
                }
            }
        }
    }

    /// Removes partitions. Nothing is remembered of them: when they come back, what is committed counts.
    pub(super) fn remove(&mut self, partitions: &[TopicPartition]) {
        self.stop(partitions);
        for name in partitions {
            self.partitions.remove(name);
        }
    }

    /// Everything that is owned, also what is about to go.
    pub(super) fn assignment(&self) -> Vec<TopicPartition> {
        let mut all: Vec<_> = self.partitions.keys().cloned().collect();
        all.sort_unstable();
        all
    }

    // ---- control

    /// Pauses or resumes; returns whether something changed.
    pub(super) fn pause(&mut self, name: &TopicPartition, paused: bool) -> bool {
        let Some(partition) = self.partitions.get_mut(name).filter(|partition| partition.paused != paused)
        else {
            return false;
        };
        partition.paused = paused;
        partition.cell.state().paused = paused;
        if paused {
            self.buffered -= partition.chunk_bytes;
        } else {
            self.buffered += partition.chunk_bytes;
            if !partition.chunks.is_empty() && !self.ready.contains(name) {
                self.ready.push_back(name.clone());
            }
        }
        true
    }

    pub(super) fn paused(&self) -> Vec<TopicPartition> {
        let paused = self.partitions.iter().filter(|(_, partition)| partition.paused);
        paused.map(|(name, _)| name.clone()).collect()
    }

    /// Goes on elsewhere; false when the partition is not owned.
    pub(super) fn seek(&mut self, name: &TopicPartition, start: Start) -> bool {
        let Some(partition) = self.partitions.get_mut(name).filter(|partition| !partition.leaving) else {
            return false;
        };
        let position = match start {
            Start::At(offset) => Some(offset),
            _ => None,
        };
        let freed = partition.restart(start, position);
        if !partition.paused {
            self.buffered -= freed;
        }
        true
    }

    /// Goes back to the position of `cell` after a pause: its records cannot be read now.
    pub(super) fn rewind(
        &mut self,
        name: &TopicPartition,
        cell: &Arc<Cell>,
        position: i64,
        not_before: Instant,
    ) {
        if self.current(name, cell).is_some()
            && self.seek(name, Start::At(position))
            && let Some(partition) = self.partitions.get_mut(name)
        {
            partition.not_before = Some(not_before);
        }
    }

    pub(super) fn position(&self, name: &TopicPartition) -> Option<i64> {
        self.partitions.get(name)?.cell.state().position
    }

    /// The positions of all partitions that have one.
    pub(super) fn positions(&self, processed_only: bool) -> HashMap<TopicPartition, i64> {
        let position = |partition: &Partition| {
            let state = *partition.cell.state();
            if processed_only { state.processed } else { state.position }
        };
        self.partitions
            .iter()
            .filter_map(|(name, partition)| Some((name.clone(), position(partition)?)))
            .collect()
    }

    pub(super) fn lag(&self, name: &TopicPartition) -> Option<i64> {
        let partition = self.partitions.get(name)?;
        Some((partition.high_watermark? - partition.cell.state().position?).max(0))
    }

    // ---- fetching

    /// What the fetcher can do now, and when time alone brings more. What it takes it marks with [`Partitions::begin`].
    pub(super) fn tasks(&self, now: Instant) -> (Vec<Task>, Option<Instant>) {
        let mut wake_at: Option<Instant> = None;
        let mut tasks = Vec::new();
        let active =
            self.partitions.values().filter(|partition| !partition.paused && !partition.leaving).count();
        let share = (self.prefetch_bytes / active.max(1)).max(self.partition_bytes);
        #[expect(
            clippy::iter_over_hash_type,
            reason = "tasks are sorted below, and the time is the least of all"
        )]
        for (name, partition) in &self.partitions {
            if partition.busy || partition.held || partition.leaving || self.finished {
                continue;
            }
            if let Some(not_before) = partition.not_before.filter(|&at| at > now) {
                wake_at = Some(wake_at.map_or(not_before, |at| at.min(not_before)));
                continue;
            }
            if matches!(partition.start, Start::At(_))
                && (partition.paused
                    || partition.chunk_bytes >= share
                    || self.buffered >= self.prefetch_bytes)
            {
                continue;
            }
            tasks.push(Task {
                partition: name.clone(),
                start: partition.start,
                cell: Arc::clone(&partition.cell),
            });
        }
        tasks.sort_by(|a, b| a.partition.cmp(&b.partition));
        (tasks, wake_at)
    }

    /// How much more may be buffered.
    pub(super) fn room(&self) -> usize {
        self.prefetch_bytes.saturating_sub(self.buffered)
    }

    pub(super) fn begin(&mut self, task: &Task) {
        if let Some(partition) = self.current(&task.partition, &task.cell) {
            partition.busy = true;
        }
    }

    /// A request for this partition ended and brought nothing of use; try again after a pause.
    pub(super) fn failed(&mut self, task: &Task, not_before: Instant) {
        if let Some(partition) = self.current(&task.partition, &task.cell) {
            partition.busy = false;
            partition.not_before = Some(not_before);
        }
    }

    /// A start is found, or another way to find it.
    pub(super) fn resolved(&mut self, task: &Task, start: Start) {
        if let Some(partition) = self.current(&task.partition, &task.cell) {
            partition.busy = false;
            partition.start = start;
            if let Start::At(offset) = start {
                let mut state = partition.cell.state();
                state.position = Some(offset);
                state.processed = Some(offset);
            }
        }
    }

    /// A fetch brought this. Returns whether the reader has something new.
    pub(super) fn fetched(&mut self, task: &Task, chunk: Chunk) -> bool {
        let Some(partition) = self.current(&task.partition, &task.cell) else { return false };
        // One that ends with an error is not fetched on: the reader sends it back when it gets there.
        partition.busy = chunk.is_broken();
        partition.high_watermark = Some(chunk.high_watermark);
        if Start::At(chunk.next_offset) == task.start && !chunk.is_broken() {
            return false;
        }
        partition.start = Start::At(chunk.next_offset);
        partition.chunk_bytes += chunk.bytes;
        let (bytes, paused) = (chunk.bytes, partition.paused);
        partition.chunks.push_back(chunk);
        if !paused {
            self.buffered += bytes;
            if !self.ready.contains(&task.partition) {
                self.ready.push_back(task.partition.clone());
            }
        }
        true
    }

    fn current(&mut self, name: &TopicPartition, cell: &Arc<Cell>) -> Option<&mut Partition> {
        self.partitions
            .get_mut(name)
            .filter(|partition| Arc::ptr_eq(&partition.cell, cell) && !partition.leaving)
    }

    // ---- reading

    /// The next chunk of the partition whose turn it is.
    pub(super) fn take(&mut self) -> Option<(Chunk, Arc<Cell>)> {
        while let Some(name) = self.ready.pop_front() {
            let Some(partition) = self.partitions.get_mut(&name).filter(|partition| !partition.paused) else {
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
    pub(super) fn put_back(&mut self, chunk: Chunk, cell: &Arc<Cell>) {
        let name = chunk.partition.clone();
        let Some(partition) = self.current(&name, cell) else { return };
        partition.chunk_bytes += chunk.bytes;
        let (bytes, paused) = (chunk.bytes, partition.paused);
        partition.chunks.push_front(chunk);
        if !paused {
            // Resumed in the meantime.
            self.buffered += bytes;
            if !self.ready.contains(&name) {
                self.ready.push_front(name);
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

    pub(super) fn is_finished(&self) -> bool {
        self.finished
    }
}

/// How long a partition rests after an error that a refetch may cure.
pub(super) const ERROR_PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use klamm_protocol::records::{BatchBuilder, BatchOptions};

    use super::super::chunk::{self, Reading};
    use super::*;

    const PREFETCH: usize = 1_000;
    const SHARE: usize = 100;

    fn partition(number: i32) -> TopicPartition {
        TopicPartition::new("t", number)
    }

    /// A chunk of `count` records from `position` on.
    fn chunk(number: i32, position: i64, count: i64) -> Chunk {
        let mut batch = BatchBuilder::new(BatchOptions { base_offset: position, ..BatchOptions::default() });
        for _ in 0..count {
            batch.append(0, None, Some(&[0; 90]), std::iter::empty::<(&str, Option<&[u8]>)>()).unwrap();
        }
        let reading = Reading { check_crcs: true, max_batch_bytes: 1_000_000, committed_only: false };
        chunk::read(&partition(number), position, batch.build().unwrap(), &[], position + count, reading)
    }

    /// Partitions at offset 0, ready to be fetched.
    fn partitions(count: i32) -> Partitions {
        let mut partitions = Partitions::new(PREFETCH, SHARE);
        for number in 0..count {
            partitions.add(partition(number), Start::At(0), false);
        }
        for task in partitions.tasks(Instant::now()).0 {
            partitions.resolved(&task, Start::At(0));
        }
        partitions
    }

    fn begin(partitions: &mut Partitions) -> Vec<Task> {
        let (tasks, _) = partitions.tasks(Instant::now());
        tasks.iter().for_each(|task| partitions.begin(task));
        tasks
    }

    fn names(tasks: &[Task]) -> Vec<i32> {
        tasks.iter().map(|task| task.partition.partition).collect()
    }

    #[test]
    fn fetching_stops_at_the_budget_and_paused_partitions_do_not_count() {
        let mut state = partitions(2);
        let tasks = begin(&mut state);
        assert!(begin(&mut state).is_empty(), "both are busy");
        state.fetched(&tasks[0], chunk(0, 0, 12));
        state.fetched(&tasks[1], chunk(1, 0, 1));
        assert_eq!(state.room(), 0);
        assert!(begin(&mut state).is_empty(), "the budget is used up");
        state.pause(&partition(0), true);
        assert_eq!(names(&begin(&mut state)), [1], "one paused partition does not starve the other");
        state.pause(&partition(0), false);
        assert_eq!(state.room(), 0);
        let (taken, _) = state.take().unwrap();
        assert_eq!(taken.partition.partition, 0);
        assert!(state.room() > 800);
    }

    #[test]
    fn an_answer_from_before_a_seek_is_dropped() {
        let mut state = partitions(1);
        let tasks = begin(&mut state);
        assert!(state.seek(&partition(0), Start::At(50)));
        assert!(!state.fetched(&tasks[0], chunk(0, 0, 3)));
        assert!(state.take().is_none());
        assert_eq!(state.position(&partition(0)), Some(50));
        assert_eq!(begin(&mut state)[0].start, Start::At(50));
    }

    #[test]
    fn nothing_is_handed_out_of_a_stopped_partition() {
        let mut state = partitions(1);
        let tasks = begin(&mut state);
        state.fetched(&tasks[0], chunk(0, 0, 3));
        let (mut chunk, cell) = state.take().unwrap();
        let mut hand_out = || cell.hand_out(|| (chunk.next(), chunk.position()));
        assert!(matches!(hand_out(), Handed::Given(Ok(_))));
        state.stop(&[partition(0)]);
        assert!(matches!(hand_out(), Handed::Dead));
        assert_eq!(state.assignment(), [partition(0)], "still owned");
        state.remove(&[partition(0)]);
        state.add(partition(0), Start::Committed, false);
        assert_eq!(state.position(&partition(0)), None, "where it was is forgotten");
        assert_eq!(state.room(), PREFETCH);
    }

    #[test]
    fn a_chunk_begun_before_a_pause_comes_back_after_it() {
        let mut state = partitions(1);
        let tasks = begin(&mut state);
        state.fetched(&tasks[0], chunk(0, 0, 3));
        let (mut chunk, cell) = state.take().unwrap();
        assert!(matches!(cell.hand_out(|| (chunk.next(), chunk.position())), Handed::Given(Ok(_))));
        state.pause(&partition(0), true);
        assert!(matches!(cell.hand_out(|| (chunk.next(), chunk.position())), Handed::Paused));
        state.put_back(chunk, &cell);
        assert!(state.take().is_none());
        state.pause(&partition(0), false);
        let (mut chunk, _) = state.take().unwrap();
        assert_eq!(chunk.next().unwrap().unwrap().offset, 1);
        assert_eq!(state.room(), PREFETCH);
    }

    #[test]
    fn processed_trails_the_position() {
        let mut state = partitions(1);
        let tasks = begin(&mut state);
        state.fetched(&tasks[0], chunk(0, 0, 3));
        let (mut chunk, cell) = state.take().unwrap();
        assert!(matches!(cell.hand_out(|| (chunk.next(), chunk.position())), Handed::Given(Ok(_))));
        assert_eq!(state.positions(true)[&partition(0)], 0);
        cell.processed();
        assert_eq!(state.positions(true)[&partition(0)], 1);
        assert_eq!(state.lag(&partition(0)), Some(2));
    }
}
