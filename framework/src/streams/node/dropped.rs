//! What a task has left out: records, counted by reason.

use std::fmt;

/// Records that were left out, by reason: Kafka's `dropped-records`, told apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Dropped {
    /// Without a key where one is needed: tables, repartitioning, aggregations, joins.
    pub null_key: u64,
    /// Without a value where one is needed: aggregations and joins.
    pub null_value: u64,
    /// Too late for their window.
    pub late: u64,
    /// With a negative timestamp.
    pub negative_timestamp: u64,
    /// Not readable with the serde, under [`ErrorPolicy::skip`](crate::streams::ErrorPolicy::skip).
    pub unreadable: u64,
    /// Skipped where an operator failed, under the same policy.
    pub failed: u64,
    /// Sent to a topic of dead letters.
    pub dead_lettered: u64,
}

impl Dropped {
    /// All of them.
    pub fn total(&self) -> u64 {
        let Self { null_key, null_value, late, negative_timestamp, unreadable, failed, dead_lettered } = self;
        null_key + null_value + late + negative_timestamp + unreadable + failed + dead_lettered
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.null_key += other.null_key;
        self.null_value += other.null_value;
        self.late += other.late;
        self.negative_timestamp += other.negative_timestamp;
        self.unreadable += other.unreadable;
        self.failed += other.failed;
        self.dead_lettered += other.dead_lettered;
    }
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { null_key, null_value, late, negative_timestamp, unreadable, failed, dead_lettered } = self;
        write!(
            f,
            "{null_key} without key, {null_value} without value, {late} late, {negative_timestamp} with a negative \
             timestamp, {unreadable} unreadable, {failed} failed, {dead_lettered} dead letters"
        )
    }
}
