//! Tasks of a topology without a broker, with a cache or without, committed and restored when a test says: what the
//! properties of tables are tested with.
#![allow(clippy::unwrap_used)] // A failing step is a failing test.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use klamm_client::Headers;

use super::incoming::{Incoming, IncomingBatch};
use super::node::{OutputKind, StoreSpec, TopicId};
use super::task::{Task, TaskId, TaskOptions};
use super::topology::Topology;
use crate::store::{MemoryStore, StateStore};

pub(crate) struct TableRig {
    topology: Topology,
    cache_bytes: usize,
    tasks: Vec<Task>,
    /// Everything written to topics that no task reads, and to changelogs.
    written: BTreeMap<String, Vec<Incoming>>,
    next_offsets: HashMap<TopicId, i64>,
}

impl TableRig {
    pub(crate) fn new(topology: Topology, cache_bytes: usize) -> Self {
        let (written, next_offsets) = (BTreeMap::new(), HashMap::new());
        let mut rig = Self { topology, cache_bytes, tasks: Vec::new(), written, next_offsets };
        rig.restore();
        rig
    }

    /// Goes on with new tasks, whose stores are read from the changelogs. Everything must be committed.
    pub(crate) fn restore(&mut self) {
        let inner = &self.topology.inner;
        let options = TaskOptions { cache_bytes: self.cache_bytes };
        let task = |sub_topology| {
            let id = TaskId { sub_topology, partition: 0 };
            let mut open = |_: &StoreSpec| Ok(Arc::new(MemoryStore::new()) as Arc<dyn StateStore>);
            Task::new(inner, id, inner.topic_names("app"), &mut open, options).unwrap()
        };
        self.tasks = (0..inner.sub_topologies.len()).map(task).collect();
        for task in &self.tasks {
            for store in task.stores() {
                let mut store = store.borrow_mut();
                let records = self.written.get(&format!("{}-changelog", store.name())).cloned();
                let records = records.unwrap_or_default();
                store.restore(&records, records.len() as i64).unwrap();
            }
        }
    }

    /// Processes a record, and nothing of what follows from it in other tasks.
    pub(crate) fn write(&mut self, topic: &str, key: &str, value: Option<Bytes>, timestamp_ms: i64) {
        let id = self.topology.inner.topics.iter().position(|name| name.to_string() == topic).unwrap();
        let key = Some(Bytes::copy_from_slice(key.as_bytes()));
        let headers = Headers::new();
        self.deliver(TopicId(id as u32), Incoming { offset: 0, timestamp_ms, key, value, headers });
        self.process();
    }

    fn deliver(&mut self, topic: TopicId, mut record: Incoming) {
        let next = self.next_offsets.entry(topic).or_insert(0);
        record.offset = *next;
        *next += 1;
        let next_offset = *next;
        for task in &mut self.tasks {
            if task.input_topics().any(|input| input == topic) {
                let records = vec![record.clone()];
                task.add(topic, IncomingBatch { records, next_offset, is_last: true });
            }
        }
    }

    fn process(&mut self) {
        for task in &mut self.tasks {
            while task.process_next().unwrap().is_some() {}
        }
    }

    /// Lets what follows from everything so far happen.
    pub(crate) fn commit(&mut self) {
        loop {
            self.process();
            let mut outputs = Vec::new();
            for task in &mut self.tasks {
                task.flush().unwrap();
                let of_task = task.take_outputs();
                let mut offsets = HashMap::new();
                for output in of_task {
                    let record = Incoming {
                        offset: 0,
                        timestamp_ms: output.timestamp_ms,
                        key: output.key,
                        value: output.value,
                        headers: output.headers,
                    };
                    let name = self.topology.inner.topics[output.topic.0 as usize].to_string();
                    let log = self.written.entry(name).or_default();
                    if output.kind == OutputKind::Changelog {
                        offsets.insert(output.topic, log.len() as i64 + 1);
                    } else {
                        outputs.push((output.topic, record.clone()));
                    }
                    log.push(record);
                }
                task.commit_stores(&offsets).unwrap();
            }
            if outputs.is_empty() {
                return;
            }
            outputs.into_iter().for_each(|(topic, record)| self.deliver(topic, record));
        }
    }

    /// The last value of each key that was written to a topic; nulls are left out.
    pub(crate) fn latest(&self, topic: &str) -> BTreeMap<Bytes, Bytes> {
        let mut latest = BTreeMap::new();
        for record in self.written.get(topic).into_iter().flatten() {
            let key = record.key.clone().unwrap();
            match record.value.clone() {
                Some(value) => latest.insert(key, value),
                None => latest.remove(&key),
            };
        }
        latest
    }
}
