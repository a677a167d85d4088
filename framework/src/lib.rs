//! Event streaming for Rust.

extern crate self as klamm;

pub mod serde;
