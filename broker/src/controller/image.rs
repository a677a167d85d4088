//! What the cluster is: topics with their ids, sizes and settings, and which producer ids are taken. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use klamm_protocol::Uuid;
use rpds::{HashTrieMapSync, HashTrieSetSync, RedBlackTreeMapSync};

use super::broker_settings::BrokerSettings;
use super::record::MetadataRecord;
use crate::quota::ClientQuotas;

/// The topic whose only partition is the metadata log. Clients never see it.
pub const METADATA_TOPIC: &str = "__cluster_metadata";

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
pub(crate) fn is_internal(name: &str) -> bool {
    name == "__consumer_offsets" || name == "__transaction_state"
}

/// The cluster's metadata after some number of records. A clone costs nothing and shares what later changes leave
/// alone, so that every reader can have an image of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    by_name: RedBlackTreeMapSync<Arc<str>, Arc<Topic>>,
    names: HashTrieMapSync<Uuid, Arc<str>>,
    /// The topics whose names could be taken for another's where dots become underscores: by the name in which they
    /// are.
    by_metric_name: HashTrieMapSync<String, Arc<str>>,
    /// Topics that are gone, by id. What is left of them on disk may be removed.
    deleted: HashTrieMapSync<Uuid, Arc<str>>,
    /// Their names. Only under these may there be something on disk that does not know whose it is.
    deleted_names: HashTrieSetSync<Arc<str>>,
    /// The first producer id that no broker has been given.
    next_producer_id: i64,
    partition_count: usize,
    broker_settings: Arc<BrokerSettings>,
    client_quotas: Arc<ClientQuotas>,
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
        self.deleted.contains_key(&id)
    }

    /// The topics that are gone, in the order of their ids.
    pub(super) fn deleted_topics(&self) -> BTreeMap<Uuid, Arc<str>> {
        self.deleted.iter().map(|(id, name)| (*id, name.clone())).collect()
    }

    /// Whether records ever spoke of a topic of this name.
    pub fn was_spoken_of(&self, name: &str) -> bool {
        self.by_name.contains_key(name) || self.deleted_names.contains(name)
    }

    /// Whether a topic of this name was deleted, whatever the one is that has it now.
    pub(super) fn had_another(&self, name: &str) -> bool {
        self.deleted_names.contains(name)
    }

    /// The topic whose name differs from this one only in dots and underscores, if there is one. Kafka turns dots into
    /// underscores in the names of metrics, where the two would be one.
    pub fn collision(&self, name: &str) -> Option<&Arc<str>> {
        self.by_metric_name.get(&metric_name(name)?).filter(|other| ***other != *name)
    }

    /// The first producer id that has not been handed out.
    pub fn next_producer_id(&self) -> i64 {
        self.next_producer_id
    }

    /// Partitions of all topics together.
    pub fn partition_count(&self) -> usize {
        self.partition_count
    }

    /// What was altered of the brokers' settings while they ran. As long as it is the same one, nothing was.
    pub fn broker_settings(&self) -> &Arc<BrokerSettings> {
        &self.broker_settings
    }

    /// The quotas of clients.
    pub(crate) fn client_quotas(&self) -> &Arc<ClientQuotas> {
        &self.client_quotas
    }

    /// Takes a record in.
    pub fn apply(&mut self, record: &MetadataRecord) {
        match record {
            MetadataRecord::Topic { name, id } => self.add(name.as_str().into(), *id),
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
            MetadataRecord::BrokerSetting { broker, key, value } => {
                Arc::make_mut(&mut self.broker_settings).set(broker, key, value.as_deref());
            }
            MetadataRecord::ClientQuota { entity, key, value } => {
                Arc::make_mut(&mut self.client_quotas).set(entity, key, *value);
            }
            MetadataRecord::RemoveTopic { id } => self.remove(*id),
            MetadataRecord::ProducerIds { next } => self.next_producer_id = *next,
        }
    }

    /// The image without a topic, as if nothing had ever been said of it.
    pub(super) fn hide(&mut self, id: Uuid) {
        self.take_out(id);
    }

    /// Another topic of the name ends here, as if it had been removed: there is one of a name. Brokers of ours that
    /// were interrupted at the right moment have left such logs.
    fn add(&mut self, name: Arc<str>, id: Uuid) {
        if let Some(before) = self.by_name.get(&name).map(|topic| topic.id) {
            if before == id {
                self.take_out(id);
            } else {
                self.remove(before);
            }
        }
        let topic = Topic { name: name.clone(), id, partitions: 0, settings: BTreeMap::new() };
        if let Some(metric_name) = metric_name(&name) {
            self.by_metric_name.insert_mut(metric_name, name.clone());
        }
        self.by_name.insert_mut(name.clone(), Arc::new(topic));
        self.names.insert_mut(id, name);
    }

    fn remove(&mut self, id: Uuid) {
        if let Some(topic) = self.take_out(id) {
            self.deleted.insert_mut(id, topic.name.clone());
            self.deleted_names.insert_mut(topic.name.clone());
        }
    }

    fn take_out(&mut self, id: Uuid) -> Option<Arc<Topic>> {
        let topic = self.topic_by_id(id)?.clone();
        self.names.remove_mut(&id);
        self.by_name.remove_mut(&topic.name);
        if let Some(metric_name) = metric_name(&topic.name)
            && self.by_metric_name.get(&metric_name) == Some(&topic.name)
        {
            self.by_metric_name.remove_mut(&metric_name);
        }
        self.partition_count -= usize::try_from(topic.partitions).unwrap_or(0);
        Some(topic)
    }

    fn topic_mut(&mut self, id: Uuid) -> Option<&mut Topic> {
        let name = self.names.get(&id)?;
        self.by_name.get_mut(name).map(Arc::make_mut)
    }
}

/// The name of a topic in metrics; nothing when it is its own and can be no other's.
fn metric_name(name: &str) -> Option<String> {
    name.contains(['.', '_']).then(|| name.replace('.', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Uuid = Uuid::from_u128(1);
    const B: Uuid = Uuid::from_u128(2);

    fn image(records: &[MetadataRecord]) -> Image {
        let mut image = Image::default();
        records.iter().for_each(|record| image.apply(record));
        image
    }

    fn topic(name: &str, id: Uuid) -> MetadataRecord {
        MetadataRecord::Topic { name: name.into(), id }
    }

    fn partition(topic_id: Uuid, index: i32) -> MetadataRecord {
        MetadataRecord::Partition { topic_id, index }
    }

    fn setting(key: &str, value: Option<&str>) -> MetadataRecord {
        MetadataRecord::TopicSetting { topic: "a".into(), key: key.into(), value: value.map(Into::into) }
    }

    #[test]
    fn partitions_count_once_and_go_with_their_topic() {
        let records = [topic("a", A), partition(A, 0), partition(A, 2), partition(A, 1), partition(A, 2)];
        let mut image = image(&records);
        assert_eq!((image.topic("a").unwrap().partitions, image.partition_count()), (3, 3));
        image.apply(&topic("b", B));
        image.apply(&partition(B, 0));
        image.apply(&partition(Uuid::from_u128(9), 0));
        assert_eq!(image.partition_count(), 4, "one of a topic that nobody knows does not count");
        image.apply(&MetadataRecord::RemoveTopic { id: A });
        image.apply(&MetadataRecord::RemoveTopic { id: A });
        assert_eq!(image.partition_count(), 1);
        assert!(image.topic_by_id(A).is_none() && image.was_deleted(A) && !image.was_deleted(B));
        assert_eq!(image.topics().map(|topic| &*topic.name).collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn settings_are_set_replaced_and_removed() {
        let set = [topic("a", A), setting("x", Some("1")), setting("y", Some("2")), setting("x", Some("3"))];
        let mut image = image(&set);
        let settings = |image: &Image| image.topic("a").unwrap().settings.clone();
        let both = BTreeMap::from([("x".to_owned(), "3".to_owned()), ("y".to_owned(), "2".to_owned())]);
        assert_eq!(settings(&image), both);
        image.apply(&setting("x", None));
        assert_eq!(settings(&image), BTreeMap::from([("y".to_owned(), "2".to_owned())]));
    }

    #[test]
    fn a_name_that_comes_again_is_another_topic() {
        let remove = MetadataRecord::RemoveTopic { id: A };
        let image = image(&[topic("a", A), setting("x", Some("1")), partition(A, 0), remove, topic("a", B)]);
        let again = image.topic("a").unwrap();
        assert_eq!((again.id, again.partitions, again.settings.len()), (B, 0, 0));
        assert_eq!(image.topic_by_id(B), Some(again));
        assert_eq!(image.partition_count(), 0);
    }

    #[test]
    fn of_two_topics_of_one_name_the_later_stands_and_the_earlier_is_gone() {
        let first = [topic("a.x", A), partition(A, 0), partition(A, 1)];
        let mut image = image(&first);
        image.apply(&topic("a.x", B));
        image.apply(&partition(B, 0));
        assert_eq!(image.topic("a.x").map(|topic| topic.id), Some(B));
        assert!(image.topic_by_id(A).is_none() && image.was_deleted(A) && !image.was_deleted(B));
        assert_eq!(image.partition_count(), 1);
        image.apply(&MetadataRecord::RemoveTopic { id: A });
        assert_eq!(image.topic("a.x").map(|topic| topic.id), Some(B), "it is another's name now");
        // The same topic again begins anew.
        image.apply(&topic("a.x", B));
        assert_eq!((image.topic("a.x").unwrap().partitions, image.partition_count()), (0, 0));
        assert!(!image.was_deleted(B));
    }

    #[test]
    fn names_collide_in_dots_and_underscores_as_long_as_the_topic_is_there() {
        let mut image = image(&[topic("a.b", A), topic("c", B)]);
        assert_eq!(image.collision("a_b").map(|name| &**name), Some("a.b"));
        assert_eq!(image.collision("a.b"), None, "that is the topic itself");
        assert_eq!(image.collision("ab"), None);
        assert_eq!(image.collision("c"), None);
        image.apply(&MetadataRecord::RemoveTopic { id: A });
        assert_eq!(image.collision("a_b"), None);
    }

    #[test]
    fn names_are_remembered_and_what_is_hidden_was_never_there() {
        let mut image = image(&[topic("a", A), topic("b_", B), partition(B, 0)]);
        assert!(image.was_spoken_of("a") && image.was_spoken_of("b_") && !image.was_spoken_of("c"));
        let before = image.clone();
        image.hide(B);
        assert!(image.topic("b_").is_none() && image.topic_by_id(B).is_none() && !image.was_deleted(B));
        assert!(!image.was_spoken_of("b_") && image.collision("b.").is_none());
        assert_eq!(image.partition_count(), 0);
        assert_eq!(before.partition_count(), 1, "a clone keeps what it had");
        assert!(before.topic("b_").is_some());
        image.apply(&MetadataRecord::RemoveTopic { id: A });
        assert!(image.was_spoken_of("a"));
    }

    #[test]
    fn producer_ids_go_on_where_they_were() {
        assert_eq!(Image::default().next_producer_id(), 0);
        let records =
            [MetadataRecord::ProducerIds { next: 1_000 }, MetadataRecord::ProducerIds { next: 2_000 }];
        assert_eq!(image(&records).next_producer_id(), 2_000);
    }

    #[test]
    fn the_brokers_own_topics() {
        for (name, internal) in
            [("__consumer_offsets", true), ("__transaction_state", true), ("orders", false)]
        {
            assert_eq!(is_internal(name), internal);
            assert_eq!(image(&[topic(name, A)]).topic(name).unwrap().is_internal(), internal);
        }
    }
}
