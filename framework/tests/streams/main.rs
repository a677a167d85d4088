//! Streams from the outside: worked examples on the test driver, stores against a model, applications
//! against the embedded broker.

// A failing step is a failing test; and tests look at real files.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod aggregations;
#[cfg(feature = "embedded")]
mod applications;
mod calls;
#[cfg(feature = "testing")]
mod calls_running;
mod cogroups;
mod describe;
mod errors;
#[cfg(feature = "testing")]
mod exactly_once;
mod expiring;
mod fingerprint;
mod foreign_keys;
mod globals;
mod grouped_tables;
mod joins;
mod nulls;
mod patterns;
#[cfg(feature = "testing")]
mod pipeline;
mod processors;
#[cfg(feature = "testing")]
mod processors_running;
#[cfg(feature = "testing")]
mod restores;
mod routing;
#[cfg(feature = "testing")]
mod running;
mod stateless;
mod stores;
mod stream_joins;
mod suppress;
#[cfg(feature = "embedded")]
mod table_applications;
mod table_joins;
mod table_views;
mod versions;
#[cfg(feature = "testing")]
mod window_restores;
mod windows;
#[cfg(feature = "testing")]
mod zombies;
