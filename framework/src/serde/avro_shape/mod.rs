//! Avro schemas as far as their shape goes: what the bytes of a value look like, and which schema reads what another
//! wrote. Pure.
//!
//! ```text
//! shape.rs   Shape: a schema with its names resolved
//! parse.rs   JSON -> Shape
//! check.rs   whether bytes are a value of a schema, before a library that trusts them decodes them
//! reads.rs   whether one schema reads what another wrote
//! ```

#[cfg(feature = "avro")]
mod check;
mod parse;
mod reads;
mod shape;

#[cfg(feature = "avro")]
pub(crate) use check::check;
pub(crate) use reads::reads;
pub(crate) use shape::Shape;
