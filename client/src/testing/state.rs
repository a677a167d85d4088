//! Everything that the broker knows: its topics, groups and transactions, what a test wants of it, and what it has
//! seen. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use klamm_protocol::{ApiKey, ErrorCode, Uuid, supported_versions};

use super::group::Group;
use super::log::Log;
use super::received::{APIS, Seen};
use super::script::Script;
use super::transactions::{Ended, Transactions};
use crate::types::TopicPartition;

/// Most partitions of all topics together.
pub(super) const PARTITIONS_MAX: usize = 10_000;
/// Most groups.
const GROUPS_MAX: usize = 1_000;
/// What all logs together may hold.
const LOG_BYTES_MAX: usize = 1024 * 1024 * 1024;
/// Kafka's default of `max.message.bytes`.
const MAX_BATCH_BYTES: usize = 1_048_588;
const TOPIC_NAME_LENGTH_MAX: usize = 249;

#[derive(Debug)]
pub(super) struct State {
    pub(super) script: Script,
    pub(super) seen: Seen,
    pub(super) topics: BTreeMap<Arc<str>, Topic>,
    pub(super) groups: BTreeMap<String, Group>,
    pub(super) transactions: Transactions,
    /// Larger batches are refused.
    pub(super) max_batch_bytes: usize,
    /// Highest versions offered, where they are not the highest known; `None` for an API that is not offered.
    limits: BTreeMap<ApiKey, Option<i16>>,
    /// Connections taken.
    pub(super) connections: usize,
    /// Where the broker is.
    pub(super) host: String,
    pub(super) port: i32,
    topics_made: u128,
}

#[derive(Debug)]
pub(super) struct Topic {
    pub(super) id: Uuid,
    pub(super) partitions: Vec<Partition>,
}

#[derive(Debug, Default)]
pub(super) struct Partition {
    pub(super) log: Log,
    /// Led by a broker that nobody can reach.
    pub(super) away: bool,
}

impl State {
    /// `address` is host and port.
    pub(super) fn new(address: &str) -> Self {
        let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
        Self {
            script: Script::default(),
            seen: Seen::default(),
            topics: BTreeMap::new(),
            groups: BTreeMap::new(),
            transactions: Transactions::default(),
            max_batch_bytes: MAX_BATCH_BYTES,
            limits: BTreeMap::new(),
            connections: 0,
            host: host.trim_matches(['[', ']']).to_owned(),
            port: port.parse().unwrap_or(0),
            topics_made: 0,
        }
    }

    /// Makes a topic, or gives it more partitions; it never has fewer.
    pub(super) fn make_topic(&mut self, name: &str, partitions: usize) -> Result<(), ErrorCode> {
        if !is_legal(name) {
            return Err(ErrorCode::InvalidTopicException);
        }
        let others = self.topics.iter().filter(|(other, _)| ***other != *name);
        let others: usize = others.map(|(_, topic)| topic.partitions.len()).sum();
        if partitions == 0 || others + partitions > PARTITIONS_MAX {
            return Err(ErrorCode::InvalidPartitions);
        }
        let made = &mut self.topics_made;
        let topic = self.topics.entry(Arc::from(name)).or_insert_with(|| {
            *made += 1;
            Topic { id: Uuid::from_u128(*made), partitions: Vec::new() }
        });
        let more = partitions.saturating_sub(topic.partitions.len());
        topic.partitions.extend(std::iter::repeat_with(Partition::default).take(more));
        Ok(())
    }

    /// The name of the topic with an id.
    pub(super) fn name_of(&self, id: Uuid) -> Option<Arc<str>> {
        self.topics.iter().find(|(_, topic)| topic.id == id).map(|(name, _)| Arc::clone(name))
    }

    /// The name of a topic that was named by its id, where there is one, or else by its name.
    pub(super) fn resolve(&self, name: &str, id: Uuid) -> Result<Arc<str>, ErrorCode> {
        match id.is_zero() {
            false => self.name_of(id).ok_or(ErrorCode::UnknownTopicId),
            true => match self.topics.get_key_value(name) {
                Some((name, _)) => Ok(Arc::clone(name)),
                None => Err(ErrorCode::UnknownTopicOrPartition),
            },
        }
    }

    /// A partition's log, to be written or read by a client.
    pub(super) fn log(&mut self, topic: &str, partition: i32) -> Result<&mut Log, ErrorCode> {
        match self.partition(topic, partition) {
            None => Err(ErrorCode::UnknownTopicOrPartition),
            Some(Partition { away: true, .. }) => Err(ErrorCode::NotLeaderOrFollower),
            Some(partition) => Ok(&mut partition.log),
        }
    }

    pub(super) fn partition(&mut self, topic: &str, partition: i32) -> Option<&mut Partition> {
        let index = usize::try_from(partition).ok()?;
        self.topics.get_mut(topic)?.partitions.get_mut(index)
    }

    pub(super) fn is_full(&self) -> bool {
        let partitions = self.topics.values().flat_map(|topic| &topic.partitions);
        partitions.map(|partition| partition.log.size_bytes()).sum::<usize>() >= LOG_BYTES_MAX
    }

    /// A group, made when there is none.
    pub(super) fn group(&mut self, id: &str) -> Result<&mut Group, ErrorCode> {
        if id.is_empty() {
            return Err(ErrorCode::InvalidGroupId);
        }
        if !self.groups.contains_key(id) && self.groups.len() >= GROUPS_MAX {
            return Err(ErrorCode::PolicyViolation);
        }
        Ok(self.groups.entry(id.to_owned()).or_default())
    }

    /// Writes markers and offsets of a transaction that has ended.
    pub(super) fn finish(&mut self, ended: Ended) {
        for TopicPartition { topic, partition } in &ended.partitions {
            if let Some(partition) = self.partition(topic, *partition) {
                partition.log.end_transaction(ended.producer_id, ended.epoch, ended.committed, 0);
            }
        }
        for offset in ended.offsets {
            if let Ok(group) = self.group(&offset.group) {
                group.commit(offset.partition, offset.offset);
            }
        }
    }

    /// Offers versions of an API up to this one only; `None` for none.
    pub(super) fn limit(&mut self, api: ApiKey, highest: Option<i16>) {
        self.limits.insert(api, highest);
    }

    /// The APIs that are offered, with their lowest and highest versions.
    pub(super) fn offered(&self) -> Vec<(ApiKey, i16, i16)> {
        let offered = APIS.iter().filter_map(|&api| {
            let known = supported_versions(api)?;
            let highest = match self.limits.get(&api) {
                None => *known.end(),
                Some(limit) => (*limit)?.min(*known.end()),
            };
            (highest >= *known.start()).then_some((api, *known.start(), highest))
        });
        offered.collect()
    }

    /// Whether a request may come in this version.
    pub(super) fn offers(&self, api: ApiKey, version: i16) -> bool {
        let mut offered = self.offered().into_iter();
        offered.any(|(other, lowest, highest)| other == api && (lowest..=highest).contains(&version))
    }
}

/// Kafka's rule for names of topics.
pub(super) fn is_legal(name: &str) -> bool {
    let legal = |character: char| character.is_ascii_alphanumeric() || "._-".contains(character);
    !name.is_empty()
        && name.len() <= TOPIC_NAME_LENGTH_MAX
        && ![".", ".."].contains(&name)
        && name.chars().all(legal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_grow_and_have_ids_of_their_own() {
        let mut state = State::new("[::1]:9092");
        assert_eq!((&*state.host, state.port), ("::1", 9_092));
        state.make_topic("a", 2).unwrap();
        state.make_topic("b", 1).unwrap();
        state.make_topic("a", 1).unwrap();
        assert_eq!(state.topics["a"].partitions.len(), 2, "never fewer");
        state.make_topic("a", 3).unwrap();
        assert_eq!(state.topics["a"].partitions.len(), 3);
        let (a, b) = (state.topics["a"].id, state.topics["b"].id);
        assert_eq!(state.resolve("", a).as_deref(), Ok("a"));
        assert_eq!(state.resolve("b", Uuid::ZERO).as_deref(), Ok("b"));
        assert_eq!(state.resolve("c", Uuid::ZERO), Err(ErrorCode::UnknownTopicOrPartition));
        assert_eq!(state.resolve("b", Uuid::from_u128(99)), Err(ErrorCode::UnknownTopicId));
        state.topics.remove("b");
        state.make_topic("b", 1).unwrap();
        assert!(state.topics["b"].id != b && state.topics["b"].id != a);
        assert_eq!(state.make_topic("a b", 1), Err(ErrorCode::InvalidTopicException));
        assert_eq!(state.make_topic("c", 0), Err(ErrorCode::InvalidPartitions));
        assert_eq!(state.make_topic("c", PARTITIONS_MAX - 3), Err(ErrorCode::InvalidPartitions));
        assert_eq!(state.make_topic("c", PARTITIONS_MAX - 4), Ok(()));
    }

    #[test]
    fn names_are_legal_as_in_kafka() {
        let longest = "x".repeat(249);
        for name in ["a", "A.b_c-9", "...", &longest] {
            assert!(is_legal(name), "{name}");
        }
        for name in ["", ".", "..", "a b", "a/b", "ä", &format!("{longest}x")] {
            assert!(!is_legal(name), "{name}");
        }
    }

    #[test]
    fn versions_are_limited() {
        let mut state = State::new("host:1");
        let known = supported_versions(ApiKey::Fetch).unwrap();
        assert!(state.offers(ApiKey::Fetch, *known.end()) && !state.offers(ApiKey::Fetch, *known.end() + 1));
        assert!(
            state.offers(ApiKey::Fetch, *known.start()) && !state.offers(ApiKey::Fetch, *known.start() - 1)
        );
        state.limit(ApiKey::Fetch, Some(12));
        assert!(state.offers(ApiKey::Fetch, 12) && !state.offers(ApiKey::Fetch, 13));
        state.limit(ApiKey::Fetch, Some(i16::MAX));
        assert!(!state.offers(ApiKey::Fetch, *known.end() + 1));
        state.limit(ApiKey::Fetch, None);
        assert!(state.offered().iter().all(|(api, ..)| *api != ApiKey::Fetch));
        assert!(!state.offers(ApiKey::DeleteTopics, 1), "not served at all");
    }

    #[test]
    fn groups_and_partitions_are_bounded_and_checked() {
        let mut state = State::new("host:1");
        state.make_topic("t", 1).unwrap();
        assert_eq!(state.log("t", 1).map(|_| ()).unwrap_err(), ErrorCode::UnknownTopicOrPartition);
        assert_eq!(state.log("t", -1).map(|_| ()).unwrap_err(), ErrorCode::UnknownTopicOrPartition);
        assert!(state.log("t", 0).is_ok());
        state.partition("t", 0).unwrap().away = true;
        assert_eq!(state.log("t", 0).map(|_| ()).unwrap_err(), ErrorCode::NotLeaderOrFollower);
        assert_eq!(state.group("").map(|_| ()).unwrap_err(), ErrorCode::InvalidGroupId);
        for number in 0..GROUPS_MAX {
            state.group(&number.to_string()).unwrap();
        }
        assert_eq!(state.group("more").map(|_| ()).unwrap_err(), ErrorCode::PolicyViolation);
        assert!(state.group("7").is_ok());
    }
}
