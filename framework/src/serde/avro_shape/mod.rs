//! Avro schemas as far as their shape goes: what the bytes of a value look like, and which schema reads what another
//! wrote. Pure.
//!
//! ```text
//! shape.rs   Shape: a schema with its names resolved
//! parse.rs   JSON -> Shape
//! decode.rs  bytes -> a value, with bounds on everything
//! defaults.rs  what stands for a field that was not written
//! reads.rs   whether one schema reads what another wrote
//! ```

#[cfg(feature = "avro")]
mod decode;
#[cfg(feature = "avro")]
mod defaults;
mod pairs;
mod parse;
mod reads;
mod shape;

#[cfg(feature = "avro")]
pub(crate) use decode::decode;
pub(crate) use reads::reads;
pub(crate) use shape::Shape;
