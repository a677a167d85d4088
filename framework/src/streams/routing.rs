//! Where a sink's records go: a topic chosen by the record, and partitions chosen by the user.

use std::sync::Arc;

use super::node::RecordContext;
use crate::listener::BoxError;

/// Chooses the topic of a record.
pub(crate) type ChooseTopic<K, V> =
    Arc<dyn Fn(&RecordContext<'_>, &K, &V) -> Result<Arc<str>, BoxError> + Send + Sync>;

/// Chooses the partitions of a record, told its topic and how many partitions that has.
pub(crate) type StreamPartitioner<K, V> = Arc<dyn Fn(&str, &K, &V, i32) -> Partitions + Send + Sync>;

/// The partitions that a record goes to: what a partitioner gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Partitions {
    /// One, by the hash of the key as Kafka's Java client has it; without a key as the producer likes.
    ByKey,
    /// Each of these; none drops the record.
    These(Vec<i32>),
}

impl Partitions {
    /// None: the record is not sent.
    pub fn none() -> Self {
        Self::These(Vec::new())
    }

    /// An error unless the topic has them all.
    pub(crate) fn checked(self, topic: &str, count: i32) -> Result<Self, BoxError> {
        if let Self::These(these) = &self
            && let Some(wrong) = these.iter().find(|partition| !(0..count).contains(partition))
        {
            let text = format!("its partitioner chose partition {wrong} of {topic}, which has {count}");
            return Err(text.into());
        }
        Ok(self)
    }
}

impl From<i32> for Partitions {
    fn from(partition: i32) -> Self {
        Self::These(vec![partition])
    }
}

impl From<Option<i32>> for Partitions {
    /// `None` leaves it to the key.
    fn from(partition: Option<i32>) -> Self {
        partition.map_or(Self::ByKey, Self::from)
    }
}

impl From<Vec<i32>> for Partitions {
    fn from(partitions: Vec<i32>) -> Self {
        Self::These(partitions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_of_partitions_that_there_are() {
        assert_eq!(Partitions::from(2).checked("t", 3).unwrap(), Partitions::These(vec![2]));
        assert_eq!(Partitions::from(None).checked("t", 0).unwrap(), Partitions::ByKey);
        assert_eq!(Partitions::none().checked("t", 1).unwrap(), Partitions::These(vec![]));
        for wrong in [3, -1, i32::MIN, i32::MAX] {
            let error = Partitions::from(vec![0, wrong]).checked("t", 3).unwrap_err().to_string();
            assert_eq!(error, format!("its partitioner chose partition {wrong} of t, which has 3"));
        }
    }
}
