//! A client of a schema registry, and the serdes whose schemas lie in one.
//!
//! ```text
//! settings.rs    where the registry is, and what is done with it
//! client.rs      SchemaRegistry: its REST calls
//! http.rs        one request and its answer over HTTP/1.1
//! url.rs         where, and names in paths
//! model.rs       schemas, versions, compatibility
//! known.rs       what was learned: ids, subjects, compiled schemas            (pure)
//! flights.rs     several that ask the same wait for one answer
//! subject.rs     the subject that a topic's schemas lie under                 (pure)
//! wire.rs        magic byte, id, and the indexes of Protobuf messages         (pure)
//! registered.rs  Registered<S>: a format whose schemas lie in the registry
//! ```
//!
//! It speaks the REST API of Confluent's schema registry, as Karapace, Apicurio and Redpanda do, and the serdes write
//! and read Confluent's wire format.
//!
//! ```no_run
//! # #[cfg(all(feature = "macros", feature = "avro"))] {
//! use klamm::prelude::*;
//! use klamm::serde::registry::SchemaRegistry;
//!
//! const ORDER: &str = r#"{"type": "record", "name": "Order", "fields": [{"name": "id", "type": "long"}]}"#;
//!
//! #[derive(Serialize, Deserialize, Record)]
//! #[record(avro, registry, schema = ORDER)]
//! struct Order {
//!     id: i64,
//! }
//!
//! #[kafka_listener(topics = "orders", group = "billing")]
//! async fn bill(order: Order) {
//!     println!("{}", order.id);
//! }
//!
//! # async fn run() -> klamm::Result<()> {
//! let registry = SchemaRegistry::builder("http://127.0.0.1:8081").auto_register(false).build()?;
//! App::new("127.0.0.1:9092").state(registry).discover().run().await
//! # }
//! # }
//! ```
//!
//! The first record of a schema waits for the registry, also when that is down: it is not the record's fault. A schema
//! that is not there, or that the type cannot read, is a rejection that goes to the listener's failure policy.

mod client;
mod error;
mod flights;
mod http;
mod known;
mod model;
mod registered;
mod settings;
mod subject;
mod url;
mod wire;

pub use client::SchemaRegistry;
pub use error::RegistryError;
#[cfg(feature = "testing")]
pub(crate) use model::SchemaBody;
pub use model::{Compatibility, Schema, SchemaReference, SchemaType, SubjectVersion, Version};
pub use registered::{Registered, RegistryFormat, TypeSchema};
pub use settings::SchemaRegistryBuilder;
pub use subject::SubjectNaming;
#[cfg(feature = "testing")]
pub(crate) use url::decoded;
pub use wire::{WireError, message_indexes, split, write_message_indexes};
