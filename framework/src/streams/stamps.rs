//! The time of a source's records: what their producer wrote, or something better.

use std::sync::Arc;

use super::incoming::Incoming;
use crate::listener::BoxError;
use crate::serde::Serde;

/// What a source does about the time of its records; without it, records with a negative timestamp are dropped
/// and counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Timestamps {
    /// A negative timestamp is an error of the source, under its [`ErrorPolicy`](crate::streams::ErrorPolicy): Kafka's
    /// default, `FailOnInvalidTimestamp`.
    FailIfNegative,
    /// In place of a negative timestamp the largest that the partition has had so far (`UsePartitionTimeOnInvalid`);
    /// while there was none, the record is dropped and counted.
    PartitionTimeIfNegative,
    /// When the record is read (`WallclockTimestampExtractor`).
    WallClock,
}

/// What is known when a record gets its time.
pub(crate) struct Moment<'a> {
    pub(crate) topic: &'a str,
    /// The largest time of the partition so far, -1 without one.
    pub(crate) partition_ms: i64,
    pub(crate) now_ms: i64,
}

/// Gives a record its time; a negative one drops it.
pub(crate) type Stamping = Arc<dyn Fn(&Incoming, &Moment<'_>) -> Result<i64, BoxError> + Send + Sync>;

impl Timestamps {
    pub(crate) fn stamping(self) -> Stamping {
        Arc::new(move |record, moment| match self {
            Self::FailIfNegative if record.timestamp_ms < 0 => {
                Err(format!("its timestamp {} is negative", record.timestamp_ms).into())
            }
            Self::PartitionTimeIfNegative if record.timestamp_ms < 0 => Ok(moment.partition_ms),
            Self::FailIfNegative | Self::PartitionTimeIfNegative => Ok(record.timestamp_ms),
            Self::WallClock => Ok(moment.now_ms),
        })
    }
}

/// A time that is in the value. A record without a value keeps its producer's time.
pub(crate) fn of_value<V: 'static>(
    serde: Arc<dyn Serde<V>>,
    time_of: impl Fn(&V) -> i64 + Send + Sync + 'static,
) -> Stamping {
    Arc::new(move |record, moment| match &record.value {
        Some(bytes) => match serde.deserialize(moment.topic, bytes) {
            Ok(value) => Ok(time_of(&value)),
            // The source meets it again, and says so as its policy tells it.
            Err(_) => Ok(record.timestamp_ms.max(0)),
        },
        None => Ok(record.timestamp_ms),
    })
}
