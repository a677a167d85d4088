//! A document of what an app reads and writes, in the terms of [AsyncAPI](https://www.asyncapi.com) 3.1 with its Kafka
//! bindings (feature `asyncapi`).
//!
//! ```
//! use klamm::asyncapi::JsonSchema;
//! use klamm::prelude::*;
//!
//! #[derive(Deserialize, JsonSchema)]
//! # #[schemars(crate = "klamm::serde::schemars")]
//! struct Order { id: u64, cents: i64 }
//!
//! #[kafka_listener(topics = "orders", group = "billing")]
//! async fn bill(Key(_customer): Key<String>, Json(order): Json<Order>) {
//!     println!("{} cents", order.cents);
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), klamm::app::StartError> {
//! let app = App::new("127.0.0.1:9092").info("billing", "1.4.0").listener(bill);
//! let document = app.asyncapi().await?; // asks no broker
//! let groups = document.value().pointer("/operations/bill/bindings/kafka/groupId/enum");
//! assert_eq!(groups, Some(&serde_json::json!(["billing"])));
//! # Ok(())
//! # }
//! ```
//!
//! | Of the app | In the document |
//! |---|---|
//! | a topic that is listened on, sent to, or declared | a channel, with partitions and replicas if declared |
//! | a listener | a `receive` operation with the group, for each of its topics |
//! | a [`Reply`](crate::Reply) | the operation's `reply`: to `send_to`, or where the request's header says |
//! | [`App::template`](crate::App::template) | a `send` operation |
//! | the types of values, keys and headers | messages; an enum that a header tells apart is several |
//!
//! The payload's schema comes from the type: [`JsonSchema`], a derive of the crate `schemars`, whose version 1 is
//! `klamm::serde::schemars` (`#[schemars(crate = "klamm::serde::schemars")]` without a dependency of your own); Avro
//! and Protobuf types have their own. It is found for the types of functions under `#[kafka_listener]` and of
//! `#[derive(Record)]`; others are named once, [`App::schema`](crate::App::schema). A type without a schema is a
//! message without one, and no error. What is sent with a [`Tx`](crate::template::Tx), a producer, or a template that
//! the app does not declare, is not known and not told; dead-letter and retry topics are the listener's own affair.
//!
//! `KLAMM_ASYNCAPI=json` in the environment makes [`App::run`](crate::App::run) print the document and end, and
//! `KLAMM_ASYNCAPI=html` a page: `KLAMM_ASYNCAPI=json cargo run > asyncapi.json` needs no broker. The routes of
//! `klamm::http::asyncapi` serve both (feature `axum`).

mod channels;
mod document;
mod messages;
mod names;
mod page;
mod plain;
mod schemas;

use std::fmt;
use std::sync::Arc;

use klamm_client::NewTopic;
use serde_json::Value;

use crate::listener::Listener;
use crate::serde::Payload;

pub use schemars::JsonSchema;
#[doc(hidden)]
pub use schemas::Schemas;
#[cfg(feature = "macros")]
#[doc(hidden)]
pub use schemas::{DeclaredSchemas, HasNoSchema, HasSchema, SchemaOf};

/// The version of AsyncAPI that documents are written in.
pub const VERSION: &str = "3.1.0";

/// A document; [`App::asyncapi`](crate::App::asyncapi) and [`AppHandle::asyncapi`](crate::AppHandle::asyncapi) make
/// one. As text it is JSON.
#[derive(Debug, Clone, PartialEq)]
pub struct AsyncApi(Value);

impl AsyncApi {
    pub(crate) fn of(outline: &Outline<'_>) -> Self {
        Self(document::document(outline))
    }

    /// The document.
    pub fn value(&self) -> &Value {
        &self.0
    }

    /// A page for people: plain HTML, without scripts and without anything from elsewhere.
    pub fn page(&self) -> String {
        page::page(&self.0)
    }
}

impl fmt::Display for AsyncApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.0)
    }
}

/// What is known of an app.
#[derive(Debug)]
pub(crate) struct Outline<'a> {
    pub(crate) info: Info,
    /// `host:port` of each, separated by commas; empty where they are not known.
    pub(crate) bootstrap: &'a str,
    pub(crate) topics: &'a [NewTopic],
    pub(crate) listeners: &'a [Listener],
    pub(crate) sends: Vec<Sends<'a>>,
    pub(crate) schemas: &'a Schemas,
}

/// What the app is called, and which version of it this is.
#[derive(Debug, Clone)]
pub(crate) struct Info {
    pub(crate) title: Arc<str>,
    pub(crate) version: Arc<str>,
}

impl Default for Info {
    fn default() -> Self {
        Self { title: "application".into(), version: "unversioned".into() }
    }
}

/// What a template sends.
#[derive(Debug)]
pub(crate) struct Sends<'a> {
    pub(crate) topic: &'a Arc<str>,
    pub(crate) keys: &'a [Payload],
    pub(crate) values: &'a [Payload],
}
