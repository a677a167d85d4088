//! An asynchronous Kafka client: `Producer`, `Consumer` and `Admin` on one shared connection pool.
//!
//! Everything starts from a [`Client`], which knows the cluster and is cheap to clone:
//!
//! ```no_run
//! use klamm_client::{Client, NewTopic, Record};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect("127.0.0.1:9092").await?;
//! client.admin().create_topics(&[NewTopic::new("orders").partitions(4)]).await?;
//!
//! let producer = client.producer().build()?;
//! producer.send(Record::to("orders").key("k1").value("v")).await?;
//!
//! let mut consumer = client.consumer().group("billing").topics(["orders"]).from_beginning().start().await?;
//! while let Some(record) = consumer.next().await.transpose()? {
//!     println!("{:?}", record.value);
//!     consumer.commit(&record).await?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What holds everywhere
//!
//! - Every call is async and has a deadline, set on the builder it came from. No call blocks a thread, and neither does
//!   drop: background tasks end with their owner. [`Producer::close`] and [`Consumer::close`] finish in good order.
//! - Calls are cancel-safe: dropping a future loses no record and leaves nothing half done.
//! - An error says whose fault it is, whether trying again can help and, where a setting would have avoided it, which
//!   ([`RequestError`], [`ProduceError`], [`ConsumeError`], [`AdminError`]; [`ClientError`] is any of them).
//! - Nothing a broker sends can make the client panic or allocate without bounds; a broken answer ends the connection.
//!
//! # Sending
//!
//! A [`Record`] that was taken is acknowledged, or its [`Delivery`] fails and says whether it may be in the log all the
//! same. The producer is idempotent by default: with up to five requests in flight to each broker, retries neither
//! repeat nor reorder records. Records with a key go where Kafka's Java client sends them; those without stay with one
//! partition for a while, which fills batches.
//!
//! # Reading
//!
//! A [`Consumer`] fetches in the background, up to a budget of bytes, whether or not records are asked for; membership
//! of its group does not depend on how fast they are processed. Keys and values are slices of the fetched buffer.
//! [`Consumer::next_batch`] is the fast path; a [`ConsumerHandle`] pauses, seeks and commits from any task, also from
//! inside a [`RebalanceListener`].
//!
//! A [`ShareConsumer`] reads from a share group, which is a queue: its members have partitions in common, each record
//! is locked for one of them at a time, and it comes back until one accepts it.
//!
//! # Time, network and tasks
//!
//! They enter through the traits of [`runtime`], so that a test can run everything in memory on a paused clock.

pub mod admin;
mod client;
mod cluster;
mod config;
mod connection;
pub mod consumer;
mod error;
mod group;
mod observe;
pub mod producer;
pub mod security;
pub mod share;
#[cfg(feature = "testing")]
pub mod testing;
mod types;

pub use admin::{Admin, NewTopic};
/// For implementing [`RebalanceListener`].
pub use async_trait::async_trait;
pub use client::{Client, ClientBuilder};
pub use config::SETTINGS;
pub use consumer::{
    Assignor, BatchRoom, Consumer, ConsumerBuilder, ConsumerHandle, ConsumerInterceptor, ConsumerRecord,
    ConsumerRecords, GroupMember, GroupMetadata, GroupProtocol, MemberShare, OffsetReset, PartitionAssignor,
    RebalanceListener,
};
pub use error::{
    AdminError, ClientError, ConfigError, ConsumeError, ProduceError, RequestError, ShareError,
    TransactionError,
};
pub use klamm_protocol::compression::Compression;
pub use klamm_protocol::records::TimestampType;
pub use klamm_protocol::{ApiKey, ErrorCode, Uuid};
/// The seams: clock, network, randomness, tasks.
pub use klamm_runtime as runtime;
pub use observe::{ClientEvent, METRICS, Metric, MetricKind, Observer};
pub use producer::{
    Acks, Delivery, EnqueueError, Interceptor, Partitioner, Partitions, Producer, ProducerBuilder, Record,
    RecordMetadata, RoundRobin, Transaction, TransactionalProducer, TransactionalProducerBuilder, Watch,
};
pub use security::{Sasl, Security};
pub use share::{AcknowledgementMode, AcquireMode, ShareConsumer, ShareConsumerBuilder, ShareRecord};
pub use types::{Headers, IsolationLevel, OffsetAndMetadata, TopicPartition};
