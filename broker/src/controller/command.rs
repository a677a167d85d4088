//! Commands on the metadata: each is checked against the image and becomes records, or an error
//! that changes nothing. Pure.

use std::collections::BTreeMap;

use klamm_protocol::{ErrorCode, Uuid};

use super::image::{Image, METADATA_TOPIC, Topic};
use super::record::MetadataRecord;
use crate::config::topic;

/// Kafka's limit for names of topics, which become names of directories.
const MAX_NAME_LEN: usize = 249;
/// What file systems let the name of a directory be: `<topic>-<partition>`.
const MAX_DIR_NAME_LEN: usize = 255;

/// A topic to be created.
#[derive(Debug, Clone, Default)]
pub struct CreateTopic {
    /// Its name.
    pub name: String,
    /// How many partitions; -1 for the broker's default, or when they are assigned.
    pub partitions: i32,
    /// On how many brokers; there is one, so 1 or, for the default, -1.
    pub replication_factor: i16,
    /// Partition and brokers, when the caller chooses them.
    pub assignments: Vec<(i32, Vec<i32>)>,
    /// Settings, under Kafka's names.
    pub settings: BTreeMap<String, String>,
}

/// What the broker knows that a command does not say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Surroundings {
    pub(super) node_id: i32,
    pub(super) default_partitions: i32,
    pub(super) max_partitions: usize,
}

/// A command that cannot be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TopicError {
    /// Kafka's code for it.
    pub code: ErrorCode,
    /// The reason in words.
    pub message: String,
}

impl TopicError {
    pub(super) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// Whether a topic may have this name: 1 to 249 of `a-z A-Z 0-9 . _ -`, not `.` or `..`.
///
/// # Errors
/// `INVALID_TOPIC_EXCEPTION` with the reason.
pub(super) fn check_name(name: &str) -> Result<(), TopicError> {
    let invalid = |why: String| Err(TopicError::new(ErrorCode::InvalidTopicException, why));
    if name.is_empty() || name == "." || name == ".." {
        return invalid("a topic name cannot be empty, '.' or '..'".into());
    }
    if name == METADATA_TOPIC {
        return invalid(format!("{name} is the broker's own"));
    }
    if name.len() > MAX_NAME_LEN {
        return invalid(format!("a topic name has at most {MAX_NAME_LEN} characters, not {}", name.len()));
    }
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if !name.chars().all(legal) {
        return invalid("a topic name has only ASCII letters and digits, '.', '_' and '-'".into());
    }
    Ok(())
}

/// Whether a topic may have this name.
pub(crate) fn is_valid_name(name: &str) -> bool {
    check_name(name).is_ok()
}

impl CreateTopic {
    /// The records that create the topic, and the topic.
    ///
    /// # Errors
    /// When the name, size, replication or a setting cannot be, or the topic exists.
    pub(super) fn records(
        &self,
        image: &Image,
        surroundings: Surroundings,
        id: Uuid,
    ) -> Result<(Topic, Vec<MetadataRecord>), TopicError> {
        check_name(&self.name)?;
        if image.topic(&self.name).is_some() {
            return Err(TopicError::new(
                ErrorCode::TopicAlreadyExists,
                format!("topic {} exists", self.name),
            ));
        }
        if let Some(other) = image.collision(&self.name) {
            let message = format!("topic {} collides with {other}: '.' and '_' count as the same", self.name);
            return Err(TopicError::new(ErrorCode::InvalidTopicException, message));
        }
        let partitions = self.partition_count(image, surroundings)?;
        for (key, value) in &self.settings {
            topic::check(key, value)
                .map_err(|error| TopicError::new(ErrorCode::InvalidConfig, error.to_string()))?;
        }
        let mut records = vec![MetadataRecord::Topic { name: self.name.clone(), id }];
        records.extend(self.settings.iter().map(|(key, value)| MetadataRecord::TopicSetting {
            topic: self.name.clone(),
            key: key.clone(),
            value: Some(value.clone()),
        }));
        records.extend((0..partitions).map(|index| MetadataRecord::Partition { topic_id: id, index }));
        let settings = self.settings.clone();
        Ok((Topic { name: self.name.as_str().into(), id, partitions, settings }, records))
    }

    fn partition_count(&self, image: &Image, surroundings: Surroundings) -> Result<i32, TopicError> {
        let replication =
            |message: String| Err(TopicError::new(ErrorCode::InvalidReplicationFactor, message));
        let assignment = |message: &str| Err(TopicError::new(ErrorCode::InvalidReplicaAssignment, message));
        let partitions = if self.assignments.is_empty() {
            if self.replication_factor != -1 && self.replication_factor != 1 {
                return replication(format!(
                    "replication factor {}: there is 1 broker",
                    self.replication_factor
                ));
            }
            if self.partitions == -1 { surroundings.default_partitions } else { self.partitions }
        } else {
            if self.partitions != -1 || self.replication_factor != -1 {
                let message = "with assignments, the numbers of partitions and replicas must be -1";
                return Err(TopicError::new(ErrorCode::InvalidRequest, message));
            }
            let mut indexes: Vec<i32> = self.assignments.iter().map(|(index, _)| *index).collect();
            indexes.sort_unstable();
            if !indexes.iter().copied().eq(0..i32::try_from(indexes.len()).unwrap_or(i32::MAX)) {
                return assignment("the assigned partitions must be numbered from 0 without a gap");
            }
            if self.assignments.iter().any(|(_, brokers)| *brokers != [surroundings.node_id]) {
                return assignment("every partition must be assigned to the one broker there is");
            }
            i32::try_from(indexes.len()).unwrap_or(i32::MAX)
        };
        let count = usize::try_from(partitions).unwrap_or(0);
        if count == 0 {
            let message = format!("a topic has at least 1 partition, not {partitions}");
            return Err(TopicError::new(ErrorCode::InvalidPartitions, message));
        }
        check_room(&self.name, partitions, count, image, surroundings)?;
        Ok(partitions)
    }
}

/// Whether a topic can have so many partitions, some of which are new.
pub(super) fn check_room(
    name: &str,
    partitions: i32,
    new: usize,
    image: &Image,
    surroundings: Surroundings,
) -> Result<(), TopicError> {
    if image.partition_count().saturating_add(new) > surroundings.max_partitions {
        let message = format!(
            "{new} partitions more would exceed max.partitions = {} of this broker, which has {}",
            surroundings.max_partitions,
            image.partition_count()
        );
        return Err(TopicError::new(ErrorCode::InvalidPartitions, message));
    }
    let last = format!("{name}-{}", partitions.saturating_sub(1));
    if last.len() > MAX_DIR_NAME_LEN {
        let message = format!(
            "a partition's directory, {last}, would have more than {MAX_DIR_NAME_LEN} characters: \
             fewer partitions or a shorter name"
        );
        return Err(TopicError::new(ErrorCode::InvalidPartitions, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Surroundings = Surroundings { node_id: 1, default_partitions: 3, max_partitions: 10 };

    fn topic(name: &str) -> CreateTopic {
        CreateTopic { name: name.into(), partitions: -1, replication_factor: -1, ..CreateTopic::default() }
    }

    fn code(image: &Image, command: &CreateTopic) -> ErrorCode {
        command.records(image, HERE, Uuid::from_u128(9)).map_or_else(|error| error.code, |_| ErrorCode::None)
    }

    fn with(names: &[&str]) -> Image {
        let mut image = Image::default();
        for (number, name) in names.iter().enumerate() {
            let (_, records) =
                topic(name).records(&image, HERE, Uuid::from_u128(number as u128 + 1)).unwrap();
            records.iter().for_each(|record| image.apply(record));
        }
        image
    }

    #[test]
    fn a_topic_is_created_known_by_name_and_id_and_deleted() {
        let mut image = with(&["a"]);
        let id = Uuid::from_u128(1);
        let created = image.topic_by_id(id).unwrap();
        assert_eq!((&*created.name, created.partitions, image.partition_count()), ("a", 3, 3));
        assert_eq!(code(&image, &topic("a")), ErrorCode::TopicAlreadyExists);
        image.apply(&MetadataRecord::RemoveTopic { id });
        assert!(image.topic("a").is_none() && image.was_deleted(id) && image.partition_count() == 0);
        assert_eq!(code(&image, &topic("a")), ErrorCode::None);
    }

    #[test]
    fn names() {
        let image = with(&["a.b"]);
        let longest = "x".repeat(249);
        for good in ["a", "A-9_.", &longest] {
            assert_eq!(code(&image, &topic(good)), ErrorCode::None, "{good}");
        }
        let too_long = "x".repeat(250);
        for bad in ["", ".", "..", "a b", "a/b", "ä", "a\0", "a_b", &too_long] {
            assert_eq!(code(&image, &topic(bad)), ErrorCode::InvalidTopicException, "{bad}");
        }
    }

    #[test]
    fn names_may_be_asked_for_and_the_metadata_log_is_not_to_be_had() {
        assert!(is_valid_name("orders") && !is_valid_name("or/ders") && !is_valid_name(METADATA_TOPIC));
    }

    #[test]
    fn the_records_say_everything_in_the_order_in_which_they_are_applied() {
        let id = Uuid::from_u128(5);
        let settings = BTreeMap::from([("retention.ms".to_owned(), "5".to_owned())]);
        let command = CreateTopic { partitions: 2, settings: settings.clone(), ..topic("n") };
        let (created, records) = command.records(&Image::default(), HERE, id).unwrap();
        let name = || "n".to_owned();
        let expected = [
            MetadataRecord::Topic { name: name(), id },
            MetadataRecord::TopicSetting {
                topic: name(),
                key: "retention.ms".into(),
                value: Some("5".into()),
            },
            MetadataRecord::Partition { topic_id: id, index: 0 },
            MetadataRecord::Partition { topic_id: id, index: 1 },
        ];
        assert_eq!(records, expected);
        let mut image = Image::default();
        records.iter().for_each(|record| image.apply(record));
        assert_eq!(**image.topic("n").unwrap(), created);
        assert_eq!(created, Topic { name: "n".into(), id, partitions: 2, settings });
    }

    #[test]
    fn sizes() {
        let image = with(&["seven", "of", "them"]);
        let sized =
            |partitions, replication_factor| CreateTopic { partitions, replication_factor, ..topic("n") };
        assert_eq!(code(&image, &sized(1, 1)), ErrorCode::None);
        assert_eq!(code(&image, &sized(2, 1)), ErrorCode::InvalidPartitions, "there are 9 of 10");
        for bad in [0, -2, i32::MIN] {
            assert_eq!(code(&image, &sized(bad, 1)), ErrorCode::InvalidPartitions);
        }
        for bad in [0, 2, -2] {
            assert_eq!(code(&image, &sized(1, bad)), ErrorCode::InvalidReplicationFactor);
        }
    }

    #[test]
    fn a_directory_has_room_for_a_long_name_and_its_number() {
        let here = Surroundings { max_partitions: 1_000_000, ..HERE };
        let code = |name_len: usize, partitions| {
            let command = CreateTopic { partitions, ..topic(&"n".repeat(name_len)) };
            let records = command.records(&Image::default(), here, Uuid::from_u128(9));
            records.map_or_else(|error| error.code, |_| ErrorCode::None)
        };
        assert_eq!(code(249, 100_000), ErrorCode::None, "the last one is 99999");
        assert_eq!(code(249, 100_001), ErrorCode::InvalidPartitions);
        assert_eq!(code(248, 100_001), ErrorCode::None);
    }

    #[test]
    fn assignments_and_settings() {
        let image = Image::default();
        let assigned = |assignments: &[(i32, &[i32])]| CreateTopic {
            assignments: assignments.iter().map(|(index, brokers)| (*index, brokers.to_vec())).collect(),
            ..topic("n")
        };
        assert_eq!(code(&image, &assigned(&[(1, &[1]), (0, &[1])])), ErrorCode::None);
        assert_eq!(code(&image, &assigned(&[(1, &[1])])), ErrorCode::InvalidReplicaAssignment);
        assert_eq!(code(&image, &assigned(&[(0, &[2])])), ErrorCode::InvalidReplicaAssignment);
        assert_eq!(code(&image, &assigned(&[(0, &[1, 1])])), ErrorCode::InvalidReplicaAssignment);
        let both = CreateTopic { partitions: 1, ..assigned(&[(0, &[1])]) };
        assert_eq!(code(&image, &both), ErrorCode::InvalidRequest);
        let set = |key: &str, value: &str| CreateTopic {
            settings: BTreeMap::from([(key.to_owned(), value.to_owned())]),
            ..topic("n")
        };
        assert_eq!(code(&image, &set("retention.ms", "5")), ErrorCode::None);
        assert_eq!(code(&image, &set("retention.ms", "x")), ErrorCode::InvalidConfig);
    }
}
