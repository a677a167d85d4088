//! Tests of the whole crate, in one binary: a counting allocator watches all of them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers outside of test functions fail by panicking")]

mod alloc;
mod apis;
mod compression;
mod differential;
mod frames;
mod records;
mod records_bounds;
mod records_oracle;
mod share_golden;
mod tags;
mod totality;

/// The seed of this run: `KLAMM_SEED`, which `make soak` sets, else the same for everybody.
fn seed() -> u64 {
    std::env::var("KLAMM_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0)
}
