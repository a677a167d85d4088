//! Streams from the outside: worked examples on the test driver, stores against a model, applications
//! against the embedded broker.

// A failing step is a failing test; and tests look at real files.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

#[cfg(feature = "testing")]
mod acknowledged;
mod aggregations;
mod alike;
#[cfg(feature = "embedded")]
mod applications;
#[cfg(feature = "testing")]
mod blows;
#[cfg(feature = "testing")]
mod call_blows;
mod calls;
#[cfg(feature = "testing")]
mod calls_running;
#[cfg(feature = "testing")]
mod changing_topics;
mod cogroups;
mod cut_off;
mod describe;
mod errors;
#[cfg(feature = "testing")]
mod exactly_once;
mod expiring;
#[cfg(feature = "testing")]
mod failing_clocks;
#[cfg(feature = "testing")]
mod failing_tasks;
#[cfg(feature = "testing")]
mod fences;
mod fingerprint;
mod foreign_keys;
#[cfg(feature = "testing")]
mod free_space;
mod globals;
mod grouped_tables;
mod idle_inputs;
#[cfg(feature = "testing")]
mod idle_running;
mod idle_time;
#[cfg(feature = "testing")]
mod interrupted_restores;
mod joins;
mod journal;
mod nulls;
#[cfg(feature = "testing")]
mod observing;
mod own_stores;
#[cfg(feature = "testing")]
mod own_stores_running;
mod panicking_kinds;
mod panicking_operators;
#[cfg(feature = "testing")]
mod panicking_running;
mod patterns;
#[cfg(feature = "testing")]
mod pipeline;
mod processor_reads;
mod processor_store_rows;
mod processor_stores;
#[cfg(feature = "testing")]
mod processor_stores_running;
mod processors;
#[cfg(feature = "testing")]
mod processors_running;
#[cfg(all(feature = "testing", feature = "queries"))]
mod queries;
#[cfg(all(feature = "testing", feature = "queries"))]
mod query_bounds;
#[cfg(feature = "testing")]
mod rebalances;
#[cfg(feature = "testing")]
mod restores;
#[cfg(feature = "testing")]
mod restoring;
mod routing;
#[cfg(feature = "testing")]
mod running;
mod standbys;
#[cfg(feature = "testing")]
mod standbys_in_trouble;
#[cfg(feature = "testing")]
mod state_files;
mod stateless;
mod stores;
mod stream_joins;
#[cfg(feature = "testing")]
mod stubborn_starts;
mod suppress;
#[cfg(feature = "embedded")]
mod table_applications;
mod table_joins;
mod table_views;
#[cfg(feature = "testing")]
mod threads;
#[cfg(feature = "testing")]
mod time_order;
mod unlimited_windows;
mod unreadable_rows;
mod versions;
#[cfg(feature = "testing")]
mod window_restores;
mod windows;
#[cfg(feature = "testing")]
mod zombies;
