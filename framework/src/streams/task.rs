//! A task: one sub-topology on one partition of each of its topics. Synchronous, and without any I/O but its stores:
//! records go in, outputs come out, and a commit happens when the caller has made the outputs durable.

mod time;

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use super::cache::CacheBudget;
use super::error::TaskError;
use super::incoming::{Incoming, IncomingBatch};
use super::node::{
    Arrivals, Boundary, Calling, Context, Dropped, Flush, FollowsTime, OpenStore, Output, Punctuates, Source,
    TaskStore, TopicId, Wiring, at_the_end, of_a_clock, of_no_record, post, stamp,
};
use super::stamps::Stamping;
use super::topology::{NodeKind, Pattern, TopologyInner};
use crate::listener::BoxError;

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

/// Rows of each store that a commit writes before it ends; what is left is written between the next records.
const ROWS_SETTLED_AT_ONCE: usize = 8_192;

/// How a task treats its records.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TaskOptions {
    /// Memory for changes between commits and for entries that stay decoded, in bytes; 0 forwards
    /// every table update by itself.
    pub(crate) cache_bytes: usize,
}

/// A running task.
pub(crate) struct Task {
    pub(crate) id: TaskId,
    context: Context,
    sources: Vec<(Boundary, Box<dyn Source>)>,
    inputs: Vec<Input>,
    /// Sources of topics that are still to come.
    patterns: Vec<(Pattern, Option<Stamping>, usize)>,
    stores: Vec<Rc<RefCell<dyn TaskStore>>>,
    flushing: Vec<Rc<RefCell<dyn Flush>>>,
    punctuating: Vec<Rc<RefCell<dyn Punctuates>>>,
    following: Vec<Rc<RefCell<dyn FollowsTime>>>,
    calling: Vec<Rc<RefCell<dyn Calling>>>,
    arrivals: Arc<Arrivals>,
    is_begun: bool,
    processed: u64,
    /// The time of the last record.
    last_timestamp_ms: i64,
    /// The stream time at which it came: from there it goes on while none comes.
    silent_since_ms: i64,
    /// Where it had gone on to when that last brought something forth, -1 if it never did.
    idle_ms: i64,
    /// Whether the stores have all that is committed.
    is_settled: bool,
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
    /// How records get their time, if not as their producer said.
    stamping: Option<Stamping>,
    /// The largest time so far, -1 without one; that of the head among them where records are stamped.
    partition_ms: i64,
    /// The largest time of those that are processed.
    processed_ms: i64,
    /// What stamping gave for the head of the queue, if that was asked already.
    head: Option<Result<(), BoxError>>,
}

impl Task {
    /// [`with_budget`](Self::with_budget) with a budget of its own.
    #[cfg(test)]
    pub(crate) fn new(
        topology: &TopologyInner,
        id: TaskId,
        names: Vec<Arc<str>>,
        open: &mut OpenStore<'_>,
        options: TaskOptions,
    ) -> Result<Self, TaskError> {
        let budget = CacheBudget::new(options.cache_bytes, None);
        Self::with_budget(topology, id, names, open, &budget)
    }

    /// Puts a task together. `names` are the topics' names by id; `open` opens the stores. What it holds in memory
    /// comes out of `budget`, which it shares with other tasks; without one, every table update is forwarded by itself.
    pub(crate) fn with_budget(
        topology: &TopologyInner,
        id: TaskId,
        names: Vec<Arc<str>>,
        open: &mut OpenStore<'_>,
        budget: &Arc<CacheBudget>,
    ) -> Result<Self, TaskError> {
        let mut open = |spec: &_| open(spec);
        let mut wiring = Wiring::new(&topology.graph, &topology.topic_ids, &mut open, budget);
        let mut sources = Vec::new();
        let mut inputs: Vec<Input> = Vec::new();
        let mut patterns = Vec::new();
        for node in &topology.sub_topologies[id.sub_topology].nodes {
            let NodeKind::Source { topics, factory } = &topology.graph.node(*node).kind else { continue };
            let source = sources.len();
            let boundary = wiring.boundary(*node);
            sources.push((boundary, factory(&mut wiring, *node)?));
            if let Some(pattern) = &topology.graph.node(*node).pattern {
                patterns.push((pattern.clone(), topology.graph.node(*node).stamping.clone(), source));
            }
            for topic in topics {
                let topic = wiring.topic(topic);
                let stamping = topology.graph.node(*node).stamping.clone();
                match inputs.iter_mut().find(|input| input.topic == topic) {
                    Some(input) => input.sources.push(source),
                    None => inputs.push(Input { stamping, ..Input::new(topic, source) }),
                }
            }
        }
        let (flushing, following) = (wiring.flush_order(), wiring.time_order());
        let (stores, punctuating) = (wiring.stores, wiring.punctuating);
        let (calling, arrivals) = (wiring.calling, wiring.arrivals);
        let mut context = Context::new(names, budget.limit_bytes() > 0);
        context.operators = topology.graph.nodes.iter().map(|node| node.name.as_str().into()).collect();
        context.partition = id.partition;
        let (is_begun, processed) = (false, 0);
        let is_settled = true;
        Ok(Self {
            id,
            context,
            sources,
            inputs,
            patterns,
            stores,
            flushing,
            punctuating,
            following,
            calling,
            arrivals,
            is_begun,
            processed,
            last_timestamp_ms: -1,
            silent_since_ms: -1,
            idle_ms: -1,
            is_settled,
        })
    }

    /// Tells the task the wall clock and calls what is due; the first time, when its stores are restored, processors
    /// begin. Gives when it wants to be told again.
    pub(crate) fn turn(&mut self, now_ms: i64) -> Result<Option<i64>, TaskError> {
        self.context.now_ms = now_ms;
        if !self.is_begun {
            let seen_ms = self.stores.iter().map(|store| store.borrow().position().stream_time_ms).max();
            self.context.stream_time_ms = self.context.stream_time_ms.max(seen_ms.unwrap_or(-1));
            self.silent_since_ms = self.context.stream_time_ms;
            self.begin()?;
            self.is_begun = true;
        }
        for punctuating in &self.punctuating {
            of_a_clock(&mut self.context, |context| punctuating.borrow_mut().on_wall_clock(context))?;
        }
        Ok(self.punctuating.iter().filter_map(|of| of.borrow().next_wall_clock_ms()).min())
    }

    /// Whether its processors have begun.
    pub(crate) fn is_begun(&self) -> bool {
        self.is_begun
    }

    /// Whether the next turn calls something at this time.
    pub(crate) fn is_due(&self, now_ms: i64) -> bool {
        let due = self.punctuating.iter().filter_map(|of| of.borrow().next_wall_clock_ms()).min();
        !self.is_begun || due.is_some_and(|at_ms| at_ms <= now_ms)
    }

    fn begin(&mut self) -> Result<(), TaskError> {
        let before = self.context.uncommitted_bytes;
        for punctuating in &self.punctuating {
            of_a_clock(&mut self.context, |context| punctuating.borrow_mut().init(context))?;
        }
        // What processors did is to be committed, though no record came.
        self.context.punctuated |=
            !self.context.outputs.is_empty() || self.context.uncommitted_bytes > before;
        Ok(())
    }

    /// Whether a processor asked for a commit since this was asked last.
    pub(crate) fn take_commit_request(&mut self) -> bool {
        std::mem::take(&mut self.context.commit_requested)
    }

    /// Whether a clock called something since the last commit: then there is something to commit though no record was
    /// processed.
    pub(crate) fn was_punctuated(&self) -> bool {
        self.context.punctuated
    }

    /// Takes up a topic, if it is none of the task's and matches a pattern of its sources.
    pub(crate) fn take_up(&mut self, topic: TopicId, name: &Arc<str>) {
        if self.inputs.iter().any(|input| input.topic == topic) {
            return;
        }
        let matching = self.patterns.iter().find(|(pattern, ..)| pattern.matches(name));
        let Some((_, stamping, source)) = matching else { return };
        let place = topic.0 as usize;
        if self.context.topics.len() <= place {
            self.context.topics.resize(place + 1, Arc::from(""));
        }
        self.context.topics[place] = Arc::clone(name);
        self.inputs.push(Input { stamping: stamping.clone(), ..Input::new(topic, *source) });
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

    /// Whether a record of this topic waits.
    pub(crate) fn has_records_of(&self, topic: TopicId) -> bool {
        self.inputs.iter().any(|input| input.topic == topic && !input.queue.is_empty())
    }

    /// Says whether a partition has nothing to read at the moment.
    pub(crate) fn set_caught_up(&mut self, topic: TopicId, caught_up: bool) {
        if let Some(input) = self.inputs.iter_mut().find(|input| input.topic == topic) {
            input.caught_up = caught_up;
        }
    }

    /// Whether a record waits that may be processed now. An empty partition that is not said to have nothing holds the
    /// others back, because its next record may be the oldest.
    pub(crate) fn is_ready(&self) -> bool {
        let held_back = self.inputs.iter().any(|input| input.queue.is_empty() && !input.caught_up);
        !held_back && self.inputs.iter().any(|input| !input.queue.is_empty()) && !self.is_full()
    }

    /// Processes the oldest of the records at the queues' heads; gives its topic, if there was one.
    pub(crate) fn process_next(&mut self) -> Result<Option<TopicId>, TaskError> {
        if self.is_full() {
            return Ok(None);
        }
        self.inputs.iter_mut().for_each(|input| input.stamp(&self.context));
        let head = |input: &Input| input.queue.front().map(|record| record.timestamp_ms);
        let oldest = (0..self.inputs.len())
            .filter_map(|index| Some((head(self.inputs.get(index)?)?, index)))
            .min_by_key(|(timestamp_ms, _)| *timestamp_ms);
        let Some((_, index)) = oldest else { return Ok(None) };
        let input = &mut self.inputs[index];
        let Some(record) = input.queue.pop_front() else { return Ok(None) };
        let mut fault = input.stamped();
        if record.timestamp_ms < 0 && fault.is_none() {
            self.context.dropped.negative_timestamp += 1;
        } else {
            let (topic, partition) = (input.topic, self.id.partition);
            self.context.headers = record.headers.clone();
            self.context.place = Some((topic, partition, record.offset));
            self.context.input = u32::try_from(index).unwrap_or(u32::MAX);
            self.context.numbered = 0;
            if !self.calling.is_empty() {
                self.context.record = Some(record.clone());
            }
            for source in &input.sources {
                let (boundary, source) = &mut self.sources[*source];
                match fault.take() {
                    Some(fault) => boundary.judge(&mut self.context, fault)?,
                    None => boundary
                        .receive(&mut self.context, |context| source.receive(context, topic, &record))?,
                }
            }
            if !self.context.letters.is_empty() {
                post(&mut self.context, partition, &record, topic);
            }
        }
        self.context.stream_time_ms = self.context.stream_time_ms.max(record.timestamp_ms);
        for punctuating in &self.punctuating {
            of_a_clock(&mut self.context, |context| punctuating.borrow_mut().on_stream_time(context))?;
        }
        self.processed += 1;
        self.last_timestamp_ms = record.timestamp_ms;
        self.silent_since_ms = self.context.stream_time_ms;
        input.processed_ms = input.processed_ms.max(record.timestamp_ms);
        let more = !input.queue.is_empty();
        input.position =
            Some(if more { record.offset + 1 } else { input.next_offset.max(record.offset + 1) });
        Ok(Some(input.topic))
    }

    /// Whether as many calls are under way as may be: no record is processed then.
    fn is_full(&self) -> bool {
        self.calling.iter().any(|calling| calling.borrow().is_full())
    }

    /// Whether records wait for nothing but calls that are under way.
    pub(crate) fn is_ready_after_calls(&self) -> bool {
        self.is_full() && self.inputs.iter().any(|input| !input.queue.is_empty())
    }

    /// Whether calls have not ended.
    pub(crate) fn is_calling(&self) -> bool {
        self.calling.iter().any(|calling| !calling.borrow().is_empty())
    }

    /// Whether a commit has to wait for the calls that are under way: what it makes durable is one whole. Without state
    /// and transactions it leaves the offsets of their records out.
    pub(crate) fn commits_as_one(&self) -> bool {
        self.context.exactly_once || !self.stores.is_empty()
    }

    /// Where calls arrive that have ended.
    pub(crate) fn arrivals(&self) -> &Arc<Arrivals> {
        &self.arrivals
    }

    /// Whether calls have ended whose records can go on.
    pub(crate) fn has_arrivals(&self) -> bool {
        !self.calling.is_empty() && !self.arrivals.is_empty()
    }

    /// Goes on with the records whose calls have ended; whether there were any.
    pub(crate) fn go_on(&mut self) -> Result<bool, TaskError> {
        let mut any = false;
        while let Some(arrival) = self.has_arrivals().then(|| self.arrivals.pop()).flatten() {
            any = true;
            let Some(calling) = self.calling.get(arrival.operator).cloned() else { continue };
            // Though no record is processed, there is something to commit.
            self.context.punctuated = true;
            of_a_clock(&mut self.context, move |context| {
                calling.borrow_mut().arrive(context, arrival.number, arrival.given)
            })?;
        }
        Ok(any)
    }

    /// Whether so much has changed since the last commit that one is due.
    pub(crate) fn uncommitted_bytes(&self) -> usize {
        self.context.uncommitted_bytes
    }

    /// First step of a commit: forwards what stores hold back. The outputs are complete after it.
    pub(crate) fn flush(&mut self) -> Result<(), TaskError> {
        let flushing = &self.flushing;
        of_no_record(&mut self.context, |context| {
            flushing.iter().try_for_each(|node| node.borrow_mut().flush(context))
        })
    }

    /// A part of [`flush`](Self::flush), of `rows` rows where there are many; whether it was the last. What it produced
    /// is to be taken before the next, so that it does not all lie in memory.
    pub(crate) fn flush_part(&mut self, rows: usize) -> Result<bool, TaskError> {
        let flushing = &self.flushing;
        let mut is_last = true;
        of_no_record(&mut self.context, |context| {
            for node in flushing {
                let mut node = node.borrow_mut();
                if node.unsent() > rows {
                    is_last = false;
                    return node.flush_ahead(context, 0, rows);
                }
                node.flush(context)?;
            }
            Ok(())
        })?;
        Ok(is_last)
    }

    /// What was produced since the last call.
    pub(crate) fn take_outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.context.outputs)
    }

    /// Second step of a commit: the offsets to commit, the first not finished of each topic.
    pub(crate) fn positions(&self) -> impl Iterator<Item = (TopicId, i64)> + '_ {
        let unfinished =
            |topic| self.calling.iter().filter_map(move |calling| calling.borrow().lowest(topic)).min();
        self.inputs.iter().filter_map(move |input| {
            let (topic, position) = (input.topic, input.position?);
            Some((topic, unfinished(topic).map_or(position, |lowest| lowest.min(position))))
        })
    }

    /// Last step of a commit, when all outputs are durable and the positions are committed: writes the stores, or,
    /// where that is a lot, begins with it; [`settle`](Self::settle) goes on. `changelog_offsets` are the first offsets
    /// after what was written to each changelog.
    pub(crate) fn commit_stores(
        &mut self,
        changelog_offsets: &HashMap<TopicId, i64>,
    ) -> Result<(), TaskError> {
        self.commit_stores_in_part(changelog_offsets, ROWS_SETTLED_AT_ONCE)
    }

    /// [`commit_stores`](Self::commit_stores) that begins with so many rows.
    pub(super) fn commit_stores_in_part(
        &mut self,
        changelog_offsets: &HashMap<TopicId, i64>,
        rows: usize,
    ) -> Result<(), TaskError> {
        for store in &self.stores {
            let mut store = store.borrow_mut();
            let offset = store.changelog().and_then(|topic| changelog_offsets.get(&topic).copied());
            store.commit(offset)?;
        }
        self.context.uncommitted_bytes = 0;
        self.context.punctuated = false;
        self.is_settled = false;
        self.settle(rows).map(drop)
    }

    /// Writes so many more committed rows to the stores; whether they have all of them.
    pub(crate) fn settle(&mut self, rows: usize) -> Result<bool, TaskError> {
        if !self.is_settled {
            let mut is_settled = true;
            for store in &self.stores {
                is_settled &= store.borrow_mut().settle(rows)?;
            }
            self.is_settled = is_settled;
        }
        Ok(self.is_settled)
    }

    /// Whether the stores have all that is committed.
    pub(crate) fn is_settled(&self) -> bool {
        self.is_settled
    }

    /// How many rows are held back.
    pub(crate) fn unsent(&self) -> usize {
        self.flushing.iter().map(|node| node.borrow().unsent()).sum()
    }

    /// Forgets rows that were not used lately, where all tasks together hold too many.
    pub(crate) fn shrink(&mut self) {
        self.stores.iter().for_each(|store| store.borrow_mut().shrink());
    }

    /// Forwards the oldest of what stores hold back until each holds back no more than `keep` rows, or `rows` of each
    /// are forwarded: what is done before a commit, the commit need not do.
    pub(crate) fn flush_ahead(&mut self, keep: usize, rows: usize) -> Result<(), TaskError> {
        let flushing = &self.flushing;
        of_no_record(&mut self.context, |context| {
            flushing.iter().try_for_each(|node| node.borrow_mut().flush_ahead(context, keep, rows))
        })
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

    /// The time of the record that was processed last.
    pub(crate) fn last_timestamp_ms(&self) -> i64 {
        self.last_timestamp_ms
    }

    /// The operators' names, by their place in the graph.
    pub(crate) fn operators(&self) -> &[Arc<str>] {
        &self.context.operators
    }

    /// How operators wait, and learn how many partitions a topic has, where not as a thread of an application does.
    pub(crate) fn context_mut(&mut self) -> &mut Context {
        &mut self.context
    }

    /// Records left out since the task began.
    pub(crate) fn dropped(&self) -> Dropped {
        self.context.dropped
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        // What never began has nothing to end: a standby, for instance.
        if !self.is_begun {
            return;
        }
        for punctuating in &self.punctuating {
            at_the_end(|| punctuating.borrow_mut().close());
        }
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
            stamping: None,
            partition_ms: -1,
            processed_ms: -1,
            head: None,
        }
    }

    /// Gives the head of the queue its time, once.
    fn stamp(&mut self, context: &Context) {
        let (Some(stamping), None) = (&self.stamping, &self.head) else { return };
        let Some(record) = self.queue.front_mut() else { return };
        let stamped = stamp(stamping, context, self.topic, record, self.partition_ms);
        self.head = Some(stamped.map(|timestamp_ms| {
            record.timestamp_ms = timestamp_ms;
            self.partition_ms = self.partition_ms.max(timestamp_ms);
        }));
    }

    /// Why the record that was the head has no time, if it has none.
    fn stamped(&mut self) -> Option<BoxError> {
        self.head.take()?.err()
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use bytes::Bytes;
    use klamm_client::Headers;

    use super::*;
    use crate::store::{MemoryStore, StateStore};
    use crate::streams::{ErrorPolicy, StreamsBuilder, Topology, TumblingWindows};

    const CACHED: TaskOptions = TaskOptions { cache_bytes: 1 << 20 };

    fn task(topology: &Topology, engine: &Arc<dyn StateStore>, options: TaskOptions) -> Task {
        let names = topology.inner.topic_names("app");
        let id = TaskId { sub_topology: 0, partition: 0 };
        Task::new(&topology.inner, id, names, &mut |_| Ok(Arc::clone(engine)), options).unwrap()
    }

    fn memory() -> Arc<dyn StateStore> {
        Arc::new(MemoryStore::new())
    }

    fn topic(task: &Task, name: &str) -> TopicId {
        task.input_topics().find(|topic| &**task.topic_name(*topic) == name).unwrap()
    }

    fn batch(first_offset: i64, records: &[(&str, i64)], is_last: bool) -> IncomingBatch {
        let record = |(offset, (key, timestamp_ms)): (i64, &(&str, i64))| Incoming {
            offset,
            timestamp_ms: *timestamp_ms,
            key: Some(Bytes::copy_from_slice(key.as_bytes())),
            value: Some(Bytes::from_static(b"v")),
            headers: Headers::new(),
        };
        let records: Vec<_> = (first_offset..).zip(records).map(record).collect();
        IncomingBatch { next_offset: first_offset + records.len() as i64, records, is_last }
    }

    fn drain(task: &mut Task) {
        while task.is_ready() {
            task.process_next().unwrap().expect("it was ready");
        }
    }

    #[test]
    fn the_oldest_head_goes_first_and_an_empty_partition_with_more_to_fetch_is_waited_for() {
        let order = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&order);
        let mut streams = StreamsBuilder::new();
        streams
            .stream::<String, String>(["a", "b"])
            .for_each(move |key, _| log.lock().unwrap().push(key.clone()));
        let mut task = task(&streams.build().unwrap(), &memory(), CACHED);
        let (a, b) = (topic(&task, "a"), topic(&task, "b"));
        task.add(a, batch(0, &[("A1", 1), ("A5", 5), ("A3", 3), ("A9", 9)], false));
        task.add(b, batch(0, &[("B2", 2), ("B4", 4), ("B2", 2), ("B7", 7)], false));
        drain(&mut task);
        assert_eq!(*order.lock().unwrap(), ["A1", "B2", "B4", "B2", "A5", "A3", "B7"]);
        let mut positions: Vec<_> = task.positions().collect();
        positions.sort();
        assert_eq!(positions, [(a, 3), (b, 4)]);
        task.set_caught_up(b, true);
        drain(&mut task);
        assert_eq!(order.lock().unwrap().last().unwrap(), "A9");
    }

    fn counting() -> Topology {
        let mut streams = StreamsBuilder::new();
        streams.stream::<String, String>("in").group_by_key().count("counts").to_stream().to("out");
        streams.build().unwrap()
    }

    #[test]
    fn with_a_cache_only_the_last_update_of_a_key_leaves_the_task() {
        let engine = memory();
        let mut task = task(&counting(), &engine, CACHED);
        let input = topic(&task, "in");
        task.add(input, batch(0, &[("a", 1), ("b", 2), ("a", 3), ("a", 2)], true));
        drain(&mut task);
        assert!(task.take_outputs().is_empty());
        assert!(task.uncommitted_bytes() > 0);
        task.flush().unwrap();
        let outputs = task.take_outputs();
        let seen: Vec<_> = outputs
            .iter()
            .map(|output| {
                let count = i64::from_be_bytes(output.value.as_deref().unwrap().try_into().unwrap());
                (output.kind == crate::streams::node::OutputKind::Changelog, count, output.timestamp_ms)
            })
            .collect();
        assert_eq!(seen, [(true, 3, 3), (false, 3, 3), (true, 1, 2), (false, 1, 2)]);
        task.flush().unwrap();
        assert!(task.take_outputs().is_empty(), "nothing twice");
    }

    /// The store is written at the commit and not before: what a crash leaves is the last commit, and
    /// the changelog has the rest.
    #[test]
    fn stores_are_written_with_their_changelog_offset_at_the_commit() {
        let engine = memory();
        let topology = counting();
        for cache_bytes in [0, 1 << 20] {
            let options = TaskOptions { cache_bytes };
            let mut task = task(&topology, &engine, options);
            let changelog = task.stores()[0].borrow().changelog().unwrap();
            let before = engine.position().unwrap().changelog_offset;
            let input = topic(&task, "in");
            task.add(input, batch(0, &[("a", 1), ("a", 2)], true));
            drain(&mut task);
            task.flush().unwrap();
            assert_eq!(engine.position().unwrap().changelog_offset, before);
            task.commit_stores(&[(changelog, before + 2)].into()).unwrap();
            assert_eq!(engine.position().unwrap().changelog_offset, before + 2);
            assert_eq!(task.uncommitted_bytes(), 0);
        }
        let count = engine.get(b"a").unwrap().unwrap();
        assert_eq!(
            i64::from_be_bytes(count[8..].try_into().unwrap()),
            4,
            "the second task went on from the first"
        );
    }

    #[test]
    fn what_is_late_stays_late_after_a_restart() {
        let mut streams = StreamsBuilder::new();
        let windows = TumblingWindows::of(std::time::Duration::from_millis(10));
        streams.stream::<String, String>("in").group_by_key().windowed_by(windows).count("counts");
        let (topology, engine) = (streams.build().unwrap(), memory());
        for (records, late) in [(&[("a", 100)], 0), (&[("a", 5)], 1)] {
            let mut task = task(&topology, &engine, CACHED);
            let input = topic(&task, "in");
            task.add(input, batch(0, records, true));
            drain(&mut task);
            task.flush().unwrap();
            task.commit_stores(&HashMap::new()).unwrap();
            assert_eq!(task.dropped().late, late);
        }
    }

    /// What is forwarded at a commit is of no single record; a panic there is told with the operator's name all the
    /// same.
    #[test]
    fn a_panic_at_a_commit_names_its_operator() {
        let mut streams = StreamsBuilder::new();
        let counts = streams.stream::<String, String>("in").group_by_key().count("counts").to_stream();
        counts.for_each(|_, count| assert_eq!(*count, None, "a closure that panics")).named("end");
        let mut task = task(&streams.build().unwrap(), &memory(), CACHED);
        let input = topic(&task, "in");
        task.add(input, batch(0, &[("a", 1)], true));
        drain(&mut task);
        let error = task.flush().unwrap_err().to_string();
        assert!(error.starts_with("operator `end` failed at a commit"), "{error}");
    }

    #[test]
    fn restored_entries_are_read_back() {
        let (topology, engine) = (counting(), memory());
        let mut task = task(&topology, &engine, CACHED);
        let entry = |key: &'static str, count: i64, timestamp_ms| Incoming {
            offset: 0,
            timestamp_ms,
            key: Some(Bytes::from_static(key.as_bytes())),
            value: Some(Bytes::copy_from_slice(&count.to_be_bytes())),
            headers: Headers::new(),
        };
        task.stores()[0]
            .borrow_mut()
            .restore(&[entry("a", 1, 5), entry("b", 1, 6), entry("a", 7, 9)], 3)
            .unwrap();
        let position = engine.position().unwrap();
        assert_eq!((position.changelog_offset, position.stream_time_ms), (3, 9));
        let input = topic(&task, "in");
        task.add(input, batch(0, &[("a", 1)], true));
        drain(&mut task);
        task.flush().unwrap();
        let output = task.take_outputs().pop().unwrap();
        assert_eq!(output.value.unwrap(), 8_i64.to_be_bytes().as_slice());
        assert_eq!(output.timestamp_ms, 9);
    }

    /// Echoes `in` to `out`; the keys are read as strings, the values are strings too.
    fn echo(inputs: &'static [&'static str]) -> Topology {
        let mut streams = StreamsBuilder::new();
        streams.stream::<String, String>(inputs.to_vec()).to("out");
        streams.build().unwrap()
    }

    fn positions(task: &Task) -> Vec<(TopicId, i64)> {
        let mut positions: Vec<_> = task.positions().collect();
        positions.sort();
        positions
    }

    #[test]
    fn a_task_says_who_it_is_and_what_it_did() {
        let id = TaskId { sub_topology: 3, partition: 14 };
        assert_eq!(id.to_string(), "3_14");
        let mut task = task(&echo(&["in"]), &memory(), CACHED);
        let input = topic(&task, "in");
        task.add(input, batch(0, &[("a", 1), ("b", 2), ("c", 3)], true));
        for processed in 0..3 {
            assert_eq!(task.processed(), processed);
            assert_eq!(task.process_next().unwrap(), Some(input));
        }
        assert_eq!((task.processed(), task.process_next().unwrap()), (3, None));
        assert_eq!(task.processed(), 3);
        let text = format!("{task:?}");
        assert_eq!(text, "Task { id: TaskId { sub_topology: 0, partition: 0 }, processed: 3, .. }");
    }

    /// What is committed is the next record while there is one, and behind the last what the fetch said:
    /// markers of transactions may follow it.
    #[test]
    fn a_position_is_the_first_offset_that_is_not_processed() {
        let mut task = task(&echo(&["in"]), &memory(), CACHED);
        let input = topic(&task, "in");
        assert_eq!(positions(&task), []);
        task.add(input, IncomingBatch { next_offset: 9, ..batch(5, &[("a", 1), ("b", 2)], true) });
        assert_eq!(positions(&task), [], "nothing is processed yet");
        task.process_next().unwrap();
        assert_eq!(positions(&task), [(input, 6)]);
        task.process_next().unwrap();
        assert_eq!(positions(&task), [(input, 9)]);
        task.add(input, batch(12, &[], true));
        assert_eq!(positions(&task), [(input, 12)]);
        task.add(input, IncomingBatch { next_offset: 0, ..batch(20, &[("c", 3)], true) });
        task.process_next().unwrap();
        assert_eq!(positions(&task), [(input, 21)], "never before what was processed");
    }

    #[test]
    fn an_empty_partition_holds_others_back_until_it_is_read_to_its_end() {
        let mut task = task(&echo(&["a", "b"]), &memory(), CACHED);
        let (a, b) = (topic(&task, "a"), topic(&task, "b"));
        assert!(!task.is_ready());
        task.add(a, batch(0, &[("1", 1)], false));
        assert!(!task.is_ready());
        task.set_caught_up(b, true);
        assert!(task.is_ready());
        task.add(b, batch(0, &[], false));
        assert!(!task.is_ready(), "there is more to fetch after all");
        task.add(b, batch(0, &[], true));
        assert!(task.is_ready());
        task.process_next().unwrap();
        assert!(!task.is_ready(), "nothing is left");
        task.add(TopicId(99), batch(0, &[("?", 1)], true));
        task.set_caught_up(TopicId(99), true);
        assert!(!task.is_ready(), "of a topic that is not the task's");
    }

    #[test]
    fn a_negative_timestamp_is_left_out_and_zero_is_a_time() {
        let mut task = task(&echo(&["in"]), &memory(), CACHED);
        let input = topic(&task, "in");
        task.add(
            input,
            batch(0, &[("before", -1), ("long before", i64::MIN), ("at", 0), ("after", 1)], true),
        );
        drain(&mut task);
        let keys: Vec<_> = task.take_outputs().into_iter().map(|output| output.key.unwrap()).collect();
        assert_eq!(keys, ["at", "after"]);
        assert_eq!((task.dropped().negative_timestamp, task.dropped().total()), (2, 2));
        assert_eq!((task.processed(), positions(&task)), (4, vec![(input, 4)]));
    }

    #[test]
    fn a_bad_record_is_skipped_only_where_it_may_be() {
        for policy in [ErrorPolicy::skip(), ErrorPolicy::fail()] {
            let topology = echo(&["in"]).with_default_policy(&policy).unwrap();
            let mut task = task(&topology, &memory(), CACHED);
            let input = topic(&task, "in");
            let mut records = batch(0, &[("a", 1), ("b", 2), ("c", 3)], true);
            records.records[0].key = None;
            records.records[1].value = Some(Bytes::from_static(&[0xff]));
            task.add(input, records);
            if policy == ErrorPolicy::fail() {
                for offset in 0..2 {
                    let error = task.process_next().unwrap_err().to_string();
                    assert!(error.contains(&format!("the record at in-0 offset {offset}")), "{error}");
                }
                assert_eq!((task.processed(), positions(&task)), (0, vec![]), "neither counts as processed");
            }
            drain(&mut task);
            let skipped = if policy == ErrorPolicy::skip() { 2 } else { 0 };
            assert_eq!((task.dropped().unreadable, task.dropped().total()), (skipped, skipped));
            assert_eq!((task.take_outputs().len(), positions(&task)), (1, vec![(input, 3)]));
        }
    }

    /// The records are sound, so skipping them would lose what the store failed to keep.
    #[test]
    fn a_store_that_fails_ends_the_task_even_where_bad_records_are_skipped() {
        let engine = memory();
        let mut damaged = crate::store::Batch::new();
        damaged.put(Bytes::from_static(b"a"), Bytes::from_static(b"short"));
        engine.apply(&damaged).unwrap();
        let topology = counting().with_default_policy(&ErrorPolicy::skip()).unwrap();
        let mut task = task(&topology, &engine, CACHED);
        let input = topic(&task, "in");
        task.add(input, batch(0, &[("a", 1)], true));
        assert!(matches!(task.process_next(), Err(TaskError::Store(_))));
        assert_eq!(task.dropped().total(), 0);
    }

    /// A large commit is written to its store in parts, between the records that follow. What those change is not
    /// written with it, and what they read is what they changed.
    #[test]
    fn a_large_commit_is_written_between_records_and_holds_nothing_newer() {
        const KEYS: i64 = 20_000;
        let engine = memory();
        let mut task = task(&counting(), &engine, TaskOptions { cache_bytes: 64 << 20 });
        let changelog = task.stores()[0].borrow().changelog().unwrap();
        let input = topic(&task, "in");
        let count = |engine: &Arc<dyn StateStore>, key: &str| {
            let stored = engine.get(key.as_bytes()).unwrap()?;
            Some(i64::from_be_bytes(stored[8..].try_into().unwrap()))
        };
        let keys: Vec<String> = (0..KEYS).map(|key| format!("key-{key:06}")).collect();
        let records: Vec<(&str, i64)> = keys.iter().map(|key| (&**key, 1)).collect();
        for (round, offset) in [(1, KEYS), (2, 2 * KEYS)] {
            task.add(input, batch(offset - KEYS, &records, true));
            drain(&mut task);
            task.flush().unwrap();
            task.take_outputs();
            task.commit_stores(&[(changelog, offset)].into()).unwrap();
            assert!(engine.position().unwrap().changelog_offset < offset, "not all of it is written");
            // The last ones are not in the engine yet, and change again.
            task.add(input, batch(offset, &records[19_000..], true));
            drain(&mut task);
            while !task.settle(1_000).unwrap() {
                assert!(engine.position().unwrap().changelog_offset < offset);
            }
            assert_eq!(engine.position().unwrap().changelog_offset, offset);
            for key in [0, 10_000, 18_999] {
                assert_eq!(count(&engine, &keys[key]), Some(round), "of {key}");
            }
            for key in [19_000, 19_999] {
                assert_eq!(
                    count(&engine, &keys[key]),
                    Some(2 * round - 1),
                    "of {key}: the commit's, not the newest"
                );
            }
        }
    }

    /// What is held back for long is forwarded before the commit, the oldest first.
    #[test]
    fn what_is_held_back_can_be_forwarded_ahead_of_the_commit() {
        let engine = memory();
        let mut task = task(&counting(), &engine, CACHED);
        let input = topic(&task, "in");
        task.add(input, batch(0, &[("a", 1), ("b", 2), ("c", 3), ("a", 4)], true));
        drain(&mut task);
        let keys = |task: &mut Task| {
            let outputs = task.take_outputs().into_iter();
            outputs.map(|output| output.key.unwrap()).step_by(2).collect::<Vec<_>>()
        };
        task.flush_ahead(1, 1).unwrap();
        assert_eq!(keys(&mut task), ["a"]);
        task.flush_ahead(1, 100).unwrap();
        assert_eq!(keys(&mut task), ["b"]);
        assert_eq!(engine.get(b"a").unwrap(), None, "nothing is written before the commit");
        task.add(input, batch(4, &[("a", 5)], true));
        drain(&mut task);
        task.flush().unwrap();
        assert_eq!(keys(&mut task), ["c", "a"]);
        task.commit_stores(&HashMap::new()).unwrap();
        assert_eq!(engine.get(b"a").unwrap().unwrap()[8..], 3_i64.to_be_bytes());
    }

    /// All stores of all tasks take from one budget; rows of other tasks make room when there is not enough.
    #[test]
    fn tasks_share_one_budget() {
        const LIMIT_BYTES: usize = 400_000;
        let budget = CacheBudget::new(LIMIT_BYTES, None);
        let topology = counting();
        let names = topology.inner.topic_names("app");
        let open = |partition| {
            let id = TaskId { sub_topology: 0, partition };
            let mut open = |_: &_| Ok(memory());
            Task::with_budget(&topology.inner, id, names.clone(), &mut open, &budget).unwrap()
        };
        let mut tasks = [open(0), open(1), open(2)];
        let keys: Vec<String> = (0..4_000).map(|key| format!("key-{key:06}")).collect();
        let records: Vec<(&str, i64)> = keys.iter().map(|key| (&**key, 1)).collect();
        for task in &mut tasks {
            let input = topic(task, "in");
            task.add(input, batch(0, &records, true));
            drain(task);
            task.flush().unwrap();
            task.take_outputs();
            task.commit_stores(&HashMap::new()).unwrap();
        }
        tasks.iter_mut().for_each(Task::shrink);
        assert!(budget.held_bytes() <= LIMIT_BYTES, "{} bytes", budget.held_bytes());
        assert!(budget.held_bytes() > LIMIT_BYTES / 2, "only {} bytes are used", budget.held_bytes());
        drop(tasks);
        assert_eq!(budget.held_bytes(), 0);
    }
}
