//! The client against a broker that does what a test tells it to, on a network in memory and a paused clock.
// The helpers are test code too, but clippy only knows that of functions marked as tests.
#![allow(clippy::unwrap_used, clippy::panic)]

mod broken_brokers;
mod fake;
mod retries;
