//! Changes of a topic that exists: more partitions, other settings. Checked against the image, they become records, or
//! an error that changes nothing. Pure.

use std::collections::{BTreeMap, BTreeSet};

use klamm_protocol::ErrorCode;

use super::command::{Surroundings, TopicError, check_room};
use super::image::{Image, Topic};
use super::record::MetadataRecord;
use crate::config::topic;

/// A change of a topic.
#[derive(Debug, Clone)]
pub struct ChangeTopic {
    /// Its name.
    pub name: String,
    /// What is to change.
    pub change: Change,
}

/// What is to change of a topic.
#[derive(Debug, Clone)]
pub enum Change {
    /// It gets more partitions.
    Grow {
        /// How many it has then.
        partitions: i32,
        /// The brokers of each new one, when the caller chooses them.
        assignments: Option<Vec<Vec<i32>>>,
    },
    /// It has these settings, and no others.
    Replace(BTreeMap<String, String>),
    /// Some of its settings change, in this order.
    Adjust(Vec<(String, Adjustment)>),
}

/// What becomes of a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Adjustment {
    /// It has this value.
    Set(String),
    /// It is the broker's again.
    Delete,
    /// These words are added to its list, where they are not in it.
    Append(String),
    /// These words are taken out of its list.
    Subtract(String),
}

impl ChangeTopic {
    /// The records of the change, none when the topic is like that already, and the topic as it is then.
    ///
    /// # Errors
    /// When there is no such topic, or the change cannot be.
    pub(super) fn records(
        &self,
        image: &Image,
        surroundings: Surroundings,
    ) -> Result<(Topic, Vec<MetadataRecord>), TopicError> {
        let Some(topic) = image.topic(&self.name) else {
            let message = format!("there is no topic {}", self.name);
            return Err(TopicError::new(ErrorCode::UnknownTopicOrPartition, message));
        };
        match &self.change {
            Change::Grow { partitions, assignments } => {
                check_growth(topic, *partitions, assignments.as_deref(), surroundings)?;
                let more = usize::try_from(partitions - topic.partitions).unwrap_or(0);
                check_room(&topic.name, *partitions, more, image, surroundings)?;
                let topic_id = topic.id;
                let new = topic.partitions..*partitions;
                let records = new.map(|index| MetadataRecord::Partition { topic_id, index }).collect();
                Ok((Topic { partitions: *partitions, ..Topic::clone(topic) }, records))
            }
            Change::Replace(settings) => settings_records(topic, settings.clone()),
            Change::Adjust(adjustments) => {
                settings_records(topic, adjusted(&topic.settings, adjustments, topic::default_list)?)
            }
        }
    }
}

fn check_growth(
    topic: &Topic,
    partitions: i32,
    assignments: Option<&[Vec<i32>]>,
    surroundings: Surroundings,
) -> Result<(), TopicError> {
    let has = topic.partitions;
    if topic.is_internal() {
        let message =
            format!("{} keeps its partitions: what is in them is found by their number", topic.name);
        return Err(TopicError::new(ErrorCode::InvalidRequest, message));
    }
    if partitions <= has {
        let message = match partitions == has {
            true => format!("topic {} has {has} partitions already", topic.name),
            false => format!("topic {} has {has} partitions, and a topic cannot lose any", topic.name),
        };
        return Err(TopicError::new(ErrorCode::InvalidPartitions, message));
    }
    let Some(assignments) = assignments else { return Ok(()) };
    let message = if usize::try_from(partitions - has) != Ok(assignments.len()) {
        format!("{} new partitions, and brokers for {}", partitions - has, assignments.len())
    } else if assignments.iter().any(|brokers| *brokers != [surroundings.node_id]) {
        "every partition must be assigned to the one broker there is".to_owned()
    } else {
        return Ok(());
    };
    Err(TopicError::new(ErrorCode::InvalidReplicaAssignment, message))
}

/// Settings after some adjustments. Those that are lists have something where nothing is set.
pub(super) fn adjusted(
    before: &BTreeMap<String, String>,
    adjustments: &[(String, Adjustment)],
    default_list: impl Fn(&str) -> Option<&'static str>,
) -> Result<BTreeMap<String, String>, TopicError> {
    let mut settings = before.clone();
    let mut seen = BTreeSet::new();
    for (key, adjustment) in adjustments {
        if !seen.insert(key) {
            let message = format!("setting {key} is in the request twice");
            return Err(TopicError::new(ErrorCode::InvalidRequest, message));
        }
        match adjustment {
            Adjustment::Set(value) => drop(settings.insert(key.clone(), value.clone())),
            Adjustment::Delete => drop(settings.remove(key)),
            Adjustment::Append(words) => {
                let mut list = words_of(&settings, key, &default_list)?;
                for word in words.split(',').map(str::trim) {
                    if !list.iter().any(|known| known == word) {
                        list.push(word.to_owned());
                    }
                }
                settings.insert(key.clone(), list.join(","));
            }
            Adjustment::Subtract(words) => {
                let mut list = words_of(&settings, key, &default_list)?;
                list.retain(|known| !words.split(',').any(|word| word.trim() == known));
                settings.insert(key.clone(), list.join(","));
            }
        }
    }
    Ok(settings)
}

/// The words of a setting that is a list.
fn words_of(
    settings: &BTreeMap<String, String>,
    key: &str,
    default_list: impl Fn(&str) -> Option<&'static str>,
) -> Result<Vec<String>, TopicError> {
    let Some(default) = default_list(key) else {
        let message = format!("setting {key} is no list: nothing can be added to it or taken out of it");
        return Err(TopicError::new(ErrorCode::InvalidConfig, message));
    };
    let value = settings.get(key).map_or(default, String::as_str);
    Ok(value.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect())
}

/// From the settings that a topic has to those that it is to have. What it has is not checked again: an older broker
/// may have known it.
fn settings_records(
    topic: &Topic,
    settings: BTreeMap<String, String>,
) -> Result<(Topic, Vec<MetadataRecord>), TopicError> {
    let mut records = Vec::new();
    let record = |key: &String, value: Option<&String>| MetadataRecord::TopicSetting {
        topic: topic.name.to_string(),
        key: key.clone(),
        value: value.cloned(),
    };
    for (key, value) in settings.iter().filter(|(key, value)| topic.settings.get(*key) != Some(*value)) {
        topic::check(key, value)
            .map_err(|error| TopicError::new(ErrorCode::InvalidConfig, error.to_string()))?;
        records.push(record(key, Some(value)));
    }
    let gone = topic.settings.keys().filter(|key| !settings.contains_key(*key));
    records.extend(gone.map(|key| record(key, None)));
    Ok((Topic { settings, ..topic.clone() }, records))
}

#[cfg(test)]
mod tests {
    use klamm_protocol::Uuid;

    use super::*;

    const HERE: Surroundings = Surroundings { node_id: 1, default_partitions: 1, max_partitions: 10 };
    const ID: Uuid = Uuid::from_u128(1);

    fn image(settings: &[(&str, &str)]) -> Image {
        let mut image = Image::default();
        image.apply(&MetadataRecord::Topic { name: "t".into(), id: ID });
        for index in 0..3 {
            image.apply(&MetadataRecord::Partition { topic_id: ID, index });
        }
        for (key, value) in settings {
            let (topic, key, value) = ("t".to_owned(), (*key).to_owned(), Some((*value).to_owned()));
            image.apply(&MetadataRecord::TopicSetting { topic, key, value });
        }
        image
    }

    /// The topic after a change, which its records make of the image, too.
    fn changed(image: &Image, change: Change) -> Result<Topic, ErrorCode> {
        let change = ChangeTopic { name: "t".into(), change };
        let (topic, records) = change.records(image, HERE).map_err(|error| error.code)?;
        let mut after = image.clone();
        records.iter().for_each(|record| after.apply(record));
        assert_eq!(**after.topic("t").unwrap(), topic);
        Ok(topic)
    }

    fn grow(partitions: i32, assignments: Option<Vec<Vec<i32>>>) -> Result<i32, ErrorCode> {
        changed(&image(&[]), Change::Grow { partitions, assignments }).map(|topic| topic.partitions)
    }

    fn adjust(before: &[(&str, &str)], key: &str, adjustment: Adjustment) -> Result<String, ErrorCode> {
        let topic = changed(&image(before), Change::Adjust(vec![(key.to_owned(), adjustment)]))?;
        Ok(topic.settings.get(key).cloned().unwrap_or_default())
    }

    #[test]
    fn a_topic_grows_as_far_as_there_is_room_and_never_shrinks() {
        assert_eq!(grow(4, None), Ok(4));
        assert_eq!(grow(10, None), Ok(10));
        assert_eq!(grow(11, None), Err(ErrorCode::InvalidPartitions), "max.partitions");
        assert_eq!(grow(3, None), Err(ErrorCode::InvalidPartitions));
        assert_eq!(grow(-1, None), Err(ErrorCode::InvalidPartitions));
        assert_eq!(grow(5, Some(vec![vec![1], vec![1]])), Ok(5));
        for wrong in [vec![], vec![vec![1]], vec![vec![1], vec![2]], vec![vec![1], vec![1, 1]]] {
            assert_eq!(grow(5, Some(wrong)), Err(ErrorCode::InvalidReplicaAssignment));
        }
        let nowhere = ChangeTopic { name: "u".into(), change: Change::Replace(BTreeMap::new()) };
        let error = nowhere.records(&image(&[]), HERE).unwrap_err();
        assert_eq!(error.code, ErrorCode::UnknownTopicOrPartition);
    }

    #[test]
    fn the_brokers_own_topics_keep_their_partitions() {
        let mut image = Image::default();
        image.apply(&MetadataRecord::Topic { name: "__consumer_offsets".into(), id: ID });
        image.apply(&MetadataRecord::Partition { topic_id: ID, index: 0 });
        let change = Change::Grow { partitions: 2, assignments: None };
        let change = ChangeTopic { name: "__consumer_offsets".into(), change };
        assert_eq!(change.records(&image, HERE).unwrap_err().code, ErrorCode::InvalidRequest);
    }

    #[test]
    fn settings_are_replaced_as_a_whole_or_one_by_one() {
        let before = [("retention.ms", "5"), ("segment.ms", "7")];
        let wanted = BTreeMap::from([("retention.ms".to_owned(), "6".to_owned())]);
        assert_eq!(changed(&image(&before), Change::Replace(wanted.clone())).unwrap().settings, wanted);
        assert_eq!(adjust(&before, "retention.ms", Adjustment::Set("6".into())), Ok("6".into()));
        assert_eq!(adjust(&before, "retention.ms", Adjustment::Delete), Ok(String::new()));
        assert_eq!(adjust(&before, "retention.bytes", Adjustment::Delete), Ok(String::new()));
        for (key, value) in [("retention.ms", "soon"), ("no.such.thing", "1")] {
            let refused = adjust(&before, key, Adjustment::Set(value.into()));
            assert_eq!(refused, Err(ErrorCode::InvalidConfig));
        }
        let twice = vec![("segment.ms".to_owned(), Adjustment::Delete); 2];
        let refused = changed(&image(&before), Change::Adjust(twice));
        assert_eq!(refused.unwrap_err(), ErrorCode::InvalidRequest);
    }

    #[test]
    fn what_is_so_already_needs_no_record() {
        let before = image(&[("retention.ms", "5")]);
        let change = Change::Adjust(vec![("retention.ms".into(), Adjustment::Set("5".into()))]);
        let (_, records) = ChangeTopic { name: "t".into(), change }.records(&before, HERE).unwrap();
        assert!(records.is_empty());
    }

    #[test]
    fn lists_grow_and_shrink_by_words() {
        let policy = "cleanup.policy";
        let append = |words: &str| Adjustment::Append(words.into());
        let subtract = |words: &str| Adjustment::Subtract(words.into());
        assert_eq!(adjust(&[], policy, append("compact")), Ok("delete,compact".into()));
        assert_eq!(adjust(&[(policy, "compact")], policy, append("compact")), Ok("compact".into()));
        assert_eq!(adjust(&[(policy, "compact,delete")], policy, subtract("delete")), Ok("compact".into()));
        assert_eq!(adjust(&[], policy, append("shred")), Err(ErrorCode::InvalidConfig));
        assert_eq!(adjust(&[], policy, subtract("delete")), Err(ErrorCode::InvalidConfig), "one is needed");
        assert_eq!(adjust(&[], "retention.ms", append("1")), Err(ErrorCode::InvalidConfig));
    }
}
