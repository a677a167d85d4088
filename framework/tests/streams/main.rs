//! Streams from the outside: worked examples on the test driver, stores against a model, applications against the embedded broker.

mod aggregations;
#[cfg(feature = "embedded")]
mod applications;
mod describe;
mod joins;
mod nulls;
mod stateless;
mod stores;
