//! The client against a broker that does what a test tells it to, on a network in memory and a paused clock.

mod broken_brokers;
mod fake;
mod retries;
