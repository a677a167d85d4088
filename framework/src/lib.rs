//! Event streaming for Rust: listeners, typed streams, a client and an embedded broker that speak the Kafka protocol.
//!
//! # A listener
//!
//! An async function consumes a topic. Its arguments say what it needs; [`App`] brings it to life.
//!
//! ```no_run
//! use klamm::prelude::*;
//!
//! #[derive(Deserialize)]
//! struct Order {
//!     id: u64,
//!     cents: i64,
//! }
//!
//! # #[derive(Clone)] struct Ledger;
//! # #[derive(Debug, thiserror::Error)] #[error("no")] struct LedgerError;
//! # impl Ledger {
//! #     fn open() -> Result<Self, LedgerError> { Ok(Self) }
//! #     async fn charge(&self, _: u64, _: i64) -> Result<(), LedgerError> { Ok(()) }
//! # }
//! #[kafka_listener(topics = "orders", group = "billing")]
//! async fn bill(Json(order): Json<Order>, State(ledger): State<Ledger>) -> Result<(), LedgerError> {
//!     ledger.charge(order.id, order.cents).await
//! }
//!
//! #[tokio::main]
//! async fn main() -> klamm::Result<()> {
//!     App::new("127.0.0.1:9092").state(Ledger::open()?).discover().run().await // drains on SIGTERM
//! }
//! ```
//!
//! The macro is only comfort. The same from the same parts:
//!
//! ```no_run
//! # use klamm::prelude::*;
//! # async fn bill(Value(_order): Value<String>) {}
//! # async fn run(bootstrap: &str) -> klamm::Result<()> {
//! let listener = Listener::on("orders").group("billing").concurrency(4).dispatch(Dispatch::by_key()).handle(bill);
//! App::new(bootstrap).listener(listener).run().await
//! # }
//! ```
//!
//! # What is promised
//!
//! - **At least once.** An offset is committed only when that record and every one before it in its partition is
//!   finished: handled, in the dead-letter topic, or skipped because the [`FailurePolicy`] says so. [`AckPolicy`]
//!   chooses when, never how far.
//! - **A failure has one way to go**, whether it is an error, a panic or a record that does not decode: the listener's
//!   [`FailurePolicy`]. The default tries ten times within half a minute, then publishes to `<topic>-dlt`.
//! - **Polling never stops.** A slow handler or a long retry delay holds up its own partition (or key, see
//!   [`Dispatch`]), no other, and never gets the consumer out of its group.
//! - **An orderly end.** On SIGTERM, and when a partition moves to another member, what is in work may finish, within a
//!   deadline; then offsets are committed.
//!
//! # More
//!
//! | | |
//! |---|---|
//! | [`listener`] | arguments ([`Value`], [`Key`], [`Header`], [`State`], [`Ack`], [`Batch`], ...), builders, policy |
//! | [`template`] | typed sending: `app.template::<String, Json<Order>>("orders").send("k", Json(order)).await?` |
//! | [`serde`] | how types are written: `#[derive(Record)] #[record(json)]`, or a [`Serde`](serde::Serde) of your own |
//! | `testing` | feature `testing`: `#[klamm::test]` with an in-process broker and a paused clock |
//! | `streams` | feature `streams`: the typed streams DSL with RocksDB stores (`streams-core`: in memory only) |
//! | [`trace`] | which trace a record belongs to, from its headers into those of what is sent |
//! | `http` | feature `axum`: pages for probes and scrapes |
//! | `asyncapi` | feature `asyncapi`: a document of what an app reads and writes |
//! | [`client`] | the client underneath: producer, consumer, admin |
//!
//! Features: `macros` and `json` are on by default; `bincode`, `postcard`, `msgpack`, `avro`, `protobuf` and
//! `json-schema` add formats, `schema-registry` the client of one; `embedded` adds the in-process broker, `axum` pages
//! for probes (`http`), `asyncapi` a document of an app, `queries` the way of streams to other instances' stores,
//! `opentelemetry` the traces that records come from.

// On docs.rs, which builds with nightly, every item says which feature it needs.
#![cfg_attr(docsrs, feature(doc_cfg))]

// The macros' output says `::klamm`, also inside of this crate.
#[allow(unused_extern_crates)]
extern crate self as klamm;

#[cfg(feature = "macros")]
#[doc(hidden)]
#[path = "private.rs"]
#[allow(missing_docs, missing_debug_implementations)]
pub mod __private;
pub mod app;
#[cfg(feature = "asyncapi")]
pub mod asyncapi;
pub mod dead_letters;
mod error;
#[cfg(feature = "axum")]
pub mod http;
pub mod listener;
#[cfg(feature = "streams-core")]
mod panic_text;
pub mod prelude;
pub mod serde;
#[cfg(feature = "streams-core")]
pub mod store;
#[cfg(feature = "streams-core")]
pub mod streams;
pub mod template;
#[cfg(feature = "testing")]
pub mod testing;
pub mod trace;

pub use app::{App, AppHandle};
pub use error::{Error, Result};
pub use listener::{
    Ack, AckPolicy, Backoff, Batch, BatchOutcome, CommitOnAssign, Dispatch, FailurePolicy, Header, Key,
    Listener, RecordMeta, Reply, State, Value,
};
pub use template::Template;

#[cfg(feature = "embedded")]
pub use klamm_broker as broker;
pub use klamm_client as client;
#[cfg(feature = "testing")]
pub use klamm_macros::test;
#[cfg(feature = "macros")]
pub use klamm_macros::{Headers, Record, kafka_listener};
