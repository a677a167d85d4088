//! Sending: records are gathered into a batch per partition, and one background task delivers the batches.
//!
//! ```text
//! record.rs        what is sent, and where it went
//! builder.rs       settings
//! settings.rs      the same as text
//! handle.rs        Producer: partition choice, back-pressure, enqueue
//! partitioner.rs   by key (murmur2) or sticky                                   (pure)
//! accumulator.rs   open batches, when they are ready                            (pure)
//! lane.rs          order, sequences and retries of one partition's batches      (pure)
//! sender.rs        the task: batches to requests, answers to fates
//! answer.rs        what an answer about a batch means                           (pure)
//! delivery.rs      the future of one record's fate
//! ```

mod accumulator;
mod answer;
mod builder;
mod delivery;
mod handle;
mod lane;
mod partitioner;
mod record;
mod sender;
mod settings;

pub use builder::{Acks, ProducerBuilder};
pub use delivery::Delivery;
pub use handle::Producer;
pub use record::{Record, RecordMetadata};

/// The partition that a key goes to in a topic of `partitions` partitions: the same as Kafka's Java client chooses.
pub fn partition_for_key(key: &[u8], partitions: i32) -> i32 {
    partitioner::partition_for_key(key, partitions)
}
