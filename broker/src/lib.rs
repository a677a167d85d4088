//! An embeddable broker that speaks the Kafka protocol and keeps Kafka's on-disk format.
//!
//! [`Broker::builder`] is the way in; everything else is what it is built from:
//!
//! | module | its job |
//! |---|---|
//! | [`disk`] | the disk seam: files, and files in memory that can fail on purpose |
//! | [`log`] | segments, indexes, recovery, retention |
//! | [`partition`] | a log with producer state, leader epoch and high watermark |
//! | `controller` | cluster metadata: topics, their ids and settings, producer ids |
//! | `coordinator` | what all coordinators run on: a log, answers when it is durable, rollback, timers, loading |
//! | `group` | the group coordinator and `__consumer_offsets` |
//! | `txn` | the transaction coordinator and `__transaction_state` |
//! | `fetch_session` | fetch sessions: what a client reads, remembered from fetch to fetch |
//! | `quota` | client quotas: whose, how much, and how long whoever used more has to wait |
//! | `api` | one file for each request |
//! | `net` | connections: frames, limits, answers in order |
//! | [`inspect`] | a data directory looked into offline |
//! | [`config`] | settings under Kafka's names |

mod api;
mod budget;
pub mod config;
mod controller;
mod coordinator;
pub mod disk;
mod embedded;
mod fetch_session;
mod group;
mod ids;
pub mod inspect;
pub mod log;
mod net;
pub mod partition;
mod quiet;
mod quota;
mod replay;
mod txn;

/// What the broker's own tests and benches reach for; nothing here is promised to anybody.
#[doc(hidden)]
pub mod internals {
    pub use crate::controller::{Controller, CreateTopic, DeletedTopic, METADATA_TOPIC, MetadataRecord};
}

pub use embedded::{Broker, BrokerBuilder, BrokerError};
