//! The client against a broker that does what a test tells it to, on a network in memory and a paused clock.
// The helpers are test code too, but clippy only knows that of functions marked as tests.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]
// Files here are how one process tells another that it is ready.
#![allow(clippy::disallowed_methods)]

mod admin;
mod alive;
mod alloc;
mod apache_kafka;
mod broken_brokers;
mod connections;
mod cutting;
mod fake;
mod fake_broker;
mod fake_group;
mod fake_share;
mod faults;
mod fetching;
mod following;
mod groups;
mod hostile;
mod klamm_groups;
mod observing;
mod producing;
mod real_broker;
mod retries;
mod scripted;
mod secured_broker;
mod sessions;
mod share_groups;
mod sharing;
mod spans;

/// The seed of this run: `KLAMM_SEED`, which `make soak` sets, else the same for everybody.
fn seed() -> u64 {
    std::env::var("KLAMM_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0)
}
