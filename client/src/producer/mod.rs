//! Sending: records are gathered into a batch per partition, and one background task delivers the batches.
//!
//! ```text
//! record.rs         what is sent, and where it went
//! builder.rs        settings
//! settings.rs       the same as text
//! handle.rs         Producer: back-pressure, enqueue
//! enqueue_error.rs  a record that was not taken
//! newcomers.rs      records of topics that are not known yet
//! interceptor.rs    code of the application that sees every record
//! partitioner.rs    by key (murmur2), sticky, in turn, or as the application says
//! accumulator.rs    open batches, when they are ready                            (pure)
//! batch.rs          one batch, from its first record to the bytes on the wire    (pure)
//! lane.rs           order, sequences and retries of one partition's batches      (pure)
//! dispatch.rs       what to send to whom, when to connect, identify, give up     (pure)
//! answer.rs         what an answer about a batch means                           (pure)
//! sender.rs         the task: runs the commands of dispatch.rs
//! transaction.rs    the life of one transaction after another                    (pure)
//! coordination.rs   the task that talks to the transactions' coordinator
//! transactional.rs  TransactionalProducer and Transaction
//! delivery.rs       what becomes of a record, as a future
//! metrics.rs        what is told to the program's metrics recorder
//! ```
//!
#![doc = include_str!("sending.md")]

mod accumulator;
mod answer;
mod batch;
mod builder;
mod coordination;
mod delivery;
mod dispatch;
mod enqueue_error;
mod handle;
mod interceptor;
mod lane;
mod metrics;
mod newcomers;
mod partitioner;
mod record;
mod sender;
mod settings;
mod shared;
mod transaction;
mod transactional;

pub use builder::ProducerBuilder;
pub use delivery::{Delivery, Watch};
pub use enqueue_error::EnqueueError;
pub use handle::Producer;
pub use interceptor::Interceptor;
pub use partitioner::{Partitioner, Partitions, RoundRobin};
pub use record::{Record, RecordMetadata};
pub use settings::Acks;
pub use transactional::{Transaction, TransactionalProducer, TransactionalProducerBuilder};

/// The partition that a key goes to in a topic of `partitions` partitions: the same as Kafka's Java client chooses.
pub fn partition_for_key(key: &[u8], partitions: i32) -> i32 {
    partitioner::partition_for_key(key, partitions)
}
