//! Tests of the whole crate, in one binary: a counting allocator watches all of them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers outside of test functions fail by panicking")]

mod alloc;
mod apis;
mod compression;
mod differential;
mod frames;
mod records;
mod records_oracle;
mod tags;
mod totality;
