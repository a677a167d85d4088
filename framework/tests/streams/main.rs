//! Streams from the outside: worked examples on the test driver, stores against a model, applications
//! against the embedded broker.

// A failing step is a failing test; and tests look at real files.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod aggregations;
#[cfg(feature = "embedded")]
mod applications;
mod describe;
#[cfg(feature = "testing")]
mod exactly_once;
mod joins;
mod nulls;
#[cfg(feature = "testing")]
mod pipeline;
#[cfg(feature = "testing")]
mod restores;
#[cfg(feature = "testing")]
mod running;
mod stateless;
mod stores;
#[cfg(feature = "testing")]
mod zombies;
