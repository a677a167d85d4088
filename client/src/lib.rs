//! An asynchronous Kafka client: `Producer`, `Consumer` and `Admin` on one shared connection pool.

pub mod admin;
mod client;
mod connection;
pub mod consumer;
mod coordinator;
mod error;
mod metadata;
mod offsets;
pub mod producer;
pub mod runtime;
mod types;

pub use admin::{Admin, NewTopic};
/// For implementing [`RebalanceListener`].
pub use async_trait::async_trait;
pub use client::{Client, ClientBuilder};
pub use consumer::{
    Assignor, Consumer, ConsumerBuilder, ConsumerHandle, ConsumerRecord, ConsumerRecords, GroupMetadata,
    OffsetReset, RebalanceListener,
};
pub use error::{AdminError, ClientError, ConfigError, ConsumeError, ProduceError, RequestError};
pub use klamm_protocol::compression::Compression;
pub use klamm_protocol::records::TimestampType;
pub use klamm_protocol::{ApiKey, ErrorCode, Uuid};
pub use producer::{Acks, Delivery, Producer, ProducerBuilder, Record, RecordMetadata};
pub use types::{Headers, IsolationLevel, TopicPartition};
