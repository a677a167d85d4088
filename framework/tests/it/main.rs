//! Tests of klamm from outside, in one binary.

// A failed test is a panic, also in its handlers, which the lints do not see as tests.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, unreachable_pub)]

#[cfg(feature = "testing")]
mod acknowledging;
#[cfg(feature = "testing")]
mod batches;
#[cfg(feature = "testing")]
mod failures;
#[cfg(all(
    feature = "bincode",
    feature = "postcard",
    feature = "msgpack",
    feature = "avro",
    feature = "protobuf",
    feature = "json-schema"
))]
mod hostile;
#[cfg(feature = "testing")]
mod kit;
#[cfg(feature = "testing")]
mod lifecycle;
#[cfg(feature = "testing")]
mod listening;
#[cfg(feature = "testing")]
mod losses;
#[cfg(all(feature = "testing", feature = "postcard"))]
mod records;
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
#[cfg(all(feature = "testing", unix))]
mod signals;
mod ui;
