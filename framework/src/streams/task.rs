//! A task: one sub-topology on one partition of each of its topics. Synchronous, and without any I/O but its stores: records go in,
//! outputs come out, and a commit happens when the caller has made the outputs durable.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use klamm_client::Headers;

use super::error::{OnBadRecord, TaskError};
use super::node::{Context, Dropped, Flush, OpenStore, Output, Source, TaskStore, TopicId, Wiring};
use super::topology::{NodeKind, TopologyInner};

/// A task's id: the number of its sub-topology and its partition. Prints as `0_1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId {
    /// The sub-topology's number in [`Topology::describe`](crate::streams::Topology::describe).
    pub sub_topology: usize,
    /// The partition.
    pub partition: i32,
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.sub_topology, self.partition)
    }
}

/// A record as it comes from a partition.
#[derive(Debug, Clone)]
pub(crate) struct Incoming {
    pub(crate) offset: i64,
    pub(crate) timestamp_ms: i64,
    pub(crate) key: Option<Bytes>,
    pub(crate) value: Option<Bytes>,
    pub(crate) headers: Headers,
}

/// Records of one partition, as fetched.
#[derive(Debug)]
pub(crate) struct IncomingBatch {
    pub(crate) records: Vec<Incoming>,
    /// Where to go on from when all are processed.
    pub(crate) next_offset: i64,
    /// Whether there was nothing after them when they were fetched.
    pub(crate) is_last: bool,
}

/// How a task treats its records.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TaskOptions {
    pub(crate) on_bad_record: OnBadRecord,
    /// Memory for changes between commits and for entries that stay decoded, in bytes; 0 forwards every table update by itself.
    pub(crate) cache_bytes: usize,
}

/// A running task.
pub(crate) struct Task {
    pub(crate) id: TaskId,
    context: Context,
    options: TaskOptions,
    sources: Vec<Box<dyn Source>>,
    inputs: Vec<Input>,
    stores: Vec<Rc<RefCell<dyn TaskStore>>>,
    flushing: Vec<Rc<RefCell<dyn Flush>>>,
    processed: u64,
}

/// One partition that the task reads.
struct Input {
    topic: TopicId,
    sources: Vec<usize>,
    queue: VecDeque<Incoming>,
    /// The first offset that is not processed, once a record came.
    position: Option<i64>,
    /// Where to go on from when the queue is empty.
    next_offset: i64,
    caught_up: bool,
}

impl Task {
    /// Puts a task together. `names` are the topics' names by id; `open` opens the stores.
    pub(crate) fn new(
        topology: &TopologyInner,
        id: TaskId,
        names: Vec<Arc<str>>,
        open: &mut OpenStore<'_>,
        options: TaskOptions,
    ) -> Result<Self, TaskError> {
        let mut open = |spec: &_| open(spec);
        let mut wiring = Wiring::new(&topology.graph, &topology.topic_ids, &mut open);
        let mut sources = Vec::new();
        let mut inputs: Vec<Input> = Vec::new();
        for node in &topology.sub_topologies[id.sub_topology].nodes {
            let NodeKind::Source { topics, factory } = &topology.graph.node(*node).kind else { continue };
            let source = sources.len();
            sources.push(factory(&mut wiring, *node)?);
            for topic in topics {
                let topic = wiring.topic(topic);
                match inputs.iter_mut().find(|input| input.topic == topic) {
                    Some(input) => input.sources.push(source),
                    None => inputs.push(Input::new(topic, source)),
                }
            }
        }
        let flushing = wiring.flush_order();
        let stores = wiring.stores;
        let context = Context::new(names, options.cache_bytes > 0);
        Ok(Self { id, context, options, sources, inputs, stores, flushing, processed: 0 })
    }

    /// Queues records of one of the task's topics; ignored for others.
    pub(crate) fn add(&mut self, topic: TopicId, batch: IncomingBatch) {
        let Some(input) = self.inputs.iter_mut().find(|input| input.topic == topic) else { return };
        input.queue.extend(batch.records);
        input.next_offset = batch.next_offset;
        input.caught_up = batch.is_last;
        if input.queue.is_empty() {
            input.position = Some(batch.next_offset);
        }
    }

    /// Says that a partition has nothing to read at the moment.
    pub(crate) fn set_caught_up(&mut self, topic: TopicId) {
        if let Some(input) = self.inputs.iter_mut().find(|input| input.topic == topic) {
            input.caught_up = true;
        }
    }

    /// Whether a record waits that may be processed now. A partition that is empty though it has more to fetch holds the others
    /// back, because its next record may be the oldest: Kafka's `max.task.idle.ms=0`.
    pub(crate) fn is_ready(&self) -> bool {
        let mut waiting = false;
        for input in &self.inputs {
            match input.queue.is_empty() {
                true if !input.caught_up && self.inputs.len() > 1 => return false,
                true => {}
                false => waiting = true,
            }
        }
        waiting
    }

    /// Processes the oldest of the records at the queues' heads; gives its topic, if there was one.
    pub(crate) fn process_next(&mut self) -> Result<Option<TopicId>, TaskError> {
        let head = |input: &Input| input.queue.front().map(|record| record.timestamp_ms);
        let oldest = (0..self.inputs.len())
            .filter_map(|index| Some((head(self.inputs.get(index)?)?, index)))
            .min_by_key(|(timestamp_ms, _)| *timestamp_ms);
        let Some((_, index)) = oldest else { return Ok(None) };
        let input = &mut self.inputs[index];
        let Some(record) = input.queue.pop_front() else { return Ok(None) };
        if record.timestamp_ms < 0 {
            self.context.dropped.negative_timestamp += 1;
        } else {
            self.context.headers = record.headers.clone();
            for source in &input.sources {
                let received =
                    self.sources[*source].receive(&mut self.context, input.topic, self.id.partition, &record);
                match received {
                    Err(error)
                        if error.is_bad_record() && self.options.on_bad_record == OnBadRecord::Skip =>
                    {
                        self.context.dropped.unreadable += 1;
                        tracing::warn!(task = %self.id, %error, "skipped a record");
                    }
                    other => other?,
                }
            }
        }
        self.processed += 1;
        let more = !input.queue.is_empty();
        input.position =
            Some(if more { record.offset + 1 } else { input.next_offset.max(record.offset + 1) });
        Ok(Some(input.topic))
    }

    /// Whether so much has changed since the last commit that one is due.
    pub(crate) fn uncommitted_bytes(&self) -> usize {
        self.context.uncommitted_bytes
    }

    /// First step of a commit: forwards what stores hold back. The outputs are complete after it.
    pub(crate) fn flush(&mut self) -> Result<(), TaskError> {
        for node in &self.flushing {
            node.borrow_mut().flush(&mut self.context)?;
        }
        Ok(())
    }

    /// What was produced since the last call.
    pub(crate) fn take_outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.context.outputs)
    }

    /// Second step of a commit, when all outputs are durable: writes the stores. `changelog_offsets` are the first offsets after what was
    /// written to each changelog.
    pub(crate) fn commit_stores(
        &mut self,
        changelog_offsets: &HashMap<TopicId, i64>,
    ) -> Result<(), TaskError> {
        let share = self.options.cache_bytes / self.stores.len().max(1);
        for store in &self.stores {
            let mut store = store.borrow_mut();
            let offset = store.changelog().and_then(|topic| changelog_offsets.get(&topic).copied());
            store.commit(offset, share)?;
        }
        self.context.uncommitted_bytes = 0;
        Ok(())
    }

    /// Third step of a commit: the offsets to commit, the first not processed of each topic.
    pub(crate) fn positions(&self) -> impl Iterator<Item = (TopicId, i64)> + '_ {
        self.inputs.iter().filter_map(|input| Some((input.topic, input.position?)))
    }

    /// The topics read.
    pub(crate) fn input_topics(&self) -> impl Iterator<Item = TopicId> + '_ {
        self.inputs.iter().map(|input| input.topic)
    }

    pub(crate) fn stores(&self) -> &[Rc<RefCell<dyn TaskStore>>] {
        &self.stores
    }

    pub(crate) fn topic_name(&self, topic: TopicId) -> &Arc<str> {
        &self.context.topics[topic.0 as usize]
    }

    /// Records processed since the task began.
    pub(crate) fn processed(&self) -> u64 {
        self.processed
    }

    /// Records left out since the task began.
    pub(crate) fn dropped(&self) -> Dropped {
        self.context.dropped
    }
}

impl Input {
    fn new(topic: TopicId, source: usize) -> Self {
        Self {
            topic,
            sources: vec![source],
            queue: VecDeque::new(),
            position: None,
            next_offset: 0,
            caught_up: false,
        }
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("id", &self.id)
            .field("processed", &self.processed)
            .finish_non_exhaustive()
    }
}
