//! Tests of klamm from outside, in one binary.

// A failed test is a panic, also in its handlers, which the lints do not see as tests.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, unreachable_pub)]

#[cfg(feature = "testing")]
mod acknowledging;
#[cfg(all(feature = "testing", feature = "asyncapi"))]
mod asyncapi;
#[cfg(feature = "testing")]
mod batches;
#[cfg(feature = "testing")]
mod batches_across;
#[cfg(feature = "testing")]
mod budget;
#[cfg(feature = "testing")]
mod churn;
#[cfg(feature = "testing")]
mod configuring;
#[cfg(feature = "testing")]
mod control;
#[cfg(feature = "testing")]
mod dead_letters;
#[cfg(feature = "json")]
mod derives;
#[cfg(feature = "testing")]
mod dispatching;
#[cfg(feature = "testing")]
mod ending;
#[cfg(feature = "testing")]
mod events;
#[cfg(feature = "testing")]
mod evil;
#[cfg(feature = "testing")]
mod failures;
#[cfg(feature = "testing")]
mod faults;
#[cfg(feature = "testing")]
mod gaps;
#[cfg(feature = "testing")]
mod health_attacks;
#[cfg(all(
    feature = "bincode",
    feature = "postcard",
    feature = "msgpack",
    feature = "avro",
    feature = "protobuf",
    feature = "json-schema"
))]
mod hostile;
#[cfg(all(feature = "testing", feature = "axum"))]
mod http_pages;
#[cfg(feature = "testing")]
mod intercepting;
mod kit;
#[cfg(feature = "testing")]
mod lifecycle;
#[cfg(feature = "testing")]
mod listener_registry;
#[cfg(feature = "testing")]
mod listening;
mod llms;
#[cfg(feature = "testing")]
mod losses;
#[cfg(feature = "testing")]
mod misbehaving;
#[cfg(feature = "testing")]
mod named_partitions;
#[cfg(feature = "testing")]
mod observing;
#[cfg(all(feature = "testing", feature = "postcard"))]
mod picky;
mod putting_off;
mod records;
#[cfg(all(feature = "testing", feature = "schema-registry", feature = "avro"))]
mod registry_attacks;
#[cfg(feature = "testing")]
mod replying;
#[cfg(feature = "testing")]
mod requests;
#[cfg(feature = "testing")]
mod restarting;
#[cfg(feature = "testing")]
mod retry_attacks;
#[cfg(feature = "testing")]
mod retry_restarts;
mod retry_topics;
#[cfg(all(
    feature = "testing",
    feature = "schema-registry",
    feature = "avro",
    feature = "protobuf",
    feature = "json-schema"
))]
mod schema_registry;
#[cfg(feature = "testing")]
mod seen;
#[cfg(feature = "testing")]
mod sending;
#[cfg(feature = "json")]
mod serde_shapes;
#[cfg(feature = "testing")]
mod shared_transactions;
#[cfg(all(feature = "testing", unix))]
mod signals;
mod starting;
#[cfg(feature = "testing")]
mod stubborn_letters;
#[cfg(feature = "testing")]
mod stubborn_requests;
#[cfg(feature = "testing")]
mod stubborn_sending;
#[cfg(all(feature = "testing", feature = "embedded"))]
mod stubborn_starts;
#[cfg(feature = "testing")]
mod templates;
#[cfg(feature = "testing")]
mod traces;
#[cfg(feature = "testing")]
mod transactional;
#[cfg(feature = "testing")]
mod transactional_chaos;
#[cfg(feature = "testing")]
mod transactional_faults;
#[cfg(feature = "testing")]
mod transactions;
#[cfg(feature = "testing")]
mod troubles;
mod ui;
#[cfg(feature = "testing")]
mod voided;
