//! What the cluster is: topics with their ids, sizes and settings, and which producer ids are taken. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use klamm_protocol::Uuid;

use super::record::MetadataRecord;

/// A topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: Arc<str>,
    /// Its id, never given to another topic, not even one of the same name.
    pub id: Uuid,
    /// How many partitions it has.
    pub partitions: i32,
    /// What it sets differently from the broker, under Kafka's names.
    pub settings: BTreeMap<String, String>,
}

impl Topic {
    /// Kept by the broker for itself; clients may read but not write it.
    pub fn is_internal(&self) -> bool {
        is_internal(&self.name)
    }
}

/// Whether a topic of this name is the broker's own.
pub fn is_internal(name: &str) -> bool {
    name == "__consumer_offsets" || name == "__transaction_state"
}

/// The cluster's metadata after some number of records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    by_name: BTreeMap<Arc<str>, Arc<Topic>>,
    names: HashMap<Uuid, Arc<str>>,
    /// Ids of topics that are gone. What is left of them on disk may be removed.
    deleted: HashSet<Uuid>,
    /// The first producer id that no broker has been given.
    next_producer_id: i64,
    partition_count: usize,
}

impl Image {
    /// A topic by its name.
    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.by_name.get(name)
    }

    /// A topic by its id.
    pub fn topic_by_id(&self, id: Uuid) -> Option<&Arc<Topic>> {
        self.names.get(&id).and_then(|name| self.by_name.get(name))
    }

    /// All topics in order of their names.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.by_name.values()
    }

    /// Whether a topic of this id existed and was deleted.
    pub fn was_deleted(&self, id: Uuid) -> bool {
        self.deleted.contains(&id)
    }

    /// The first producer id that has not been handed out.
    pub fn next_producer_id(&self) -> i64 {
        self.next_producer_id
    }

    /// Partitions of all topics together.
    pub fn partition_count(&self) -> usize {
        self.partition_count
    }

    /// Takes a record in.
    pub fn apply(&mut self, record: &MetadataRecord) {
        match record {
            MetadataRecord::Topic { name, id } => {
                let name: Arc<str> = name.as_str().into();
                let topic = Topic { name: name.clone(), id: *id, partitions: 0, settings: BTreeMap::new() };
                self.by_name.insert(name.clone(), Arc::new(topic));
                self.names.insert(*id, name);
            }
            MetadataRecord::Partition { topic_id, index } => {
                if let Some(topic) = self.topic_mut(*topic_id) {
                    let grown = (*index + 1).max(topic.partitions);
                    let more = grown - topic.partitions;
                    topic.partitions = grown;
                    self.partition_count += usize::try_from(more).unwrap_or(0);
                }
            }
            MetadataRecord::TopicSetting { topic, key, value } => {
                if let Some(topic) = self.by_name.get_mut(topic.as_str()).map(Arc::make_mut) {
                    match value {
                        Some(value) => topic.settings.insert(key.clone(), value.clone()),
                        None => topic.settings.remove(key),
                    };
                }
            }
            MetadataRecord::RemoveTopic { id } => {
                if let Some(topic) = self.names.remove(id).and_then(|name| self.by_name.remove(&name)) {
                    self.partition_count -= usize::try_from(topic.partitions).unwrap_or(0);
                    self.deleted.insert(*id);
                }
            }
            MetadataRecord::ProducerIds { next } => self.next_producer_id = *next,
        }
    }

    fn topic_mut(&mut self, id: Uuid) -> Option<&mut Topic> {
        let name = self.names.get(&id)?;
        self.by_name.get_mut(name).map(Arc::make_mut)
    }
}
