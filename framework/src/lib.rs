//! Event streaming for Rust.

pub mod serde;
