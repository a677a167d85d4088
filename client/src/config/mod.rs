//! Settings: one table under Kafka's names, given in code, as text or in a file, and checked before anything is sent.
//!
//! ```text
//! table.rs        every setting: name, default, what a value must be, what it does
//! security.rs     security given as text
//! properties.rs   what was given as text, checked against the table
//! client.rs       the settings of a client
//! ```

mod client;
mod properties;
mod security;
mod table;

pub(crate) use client::{ClientConfig, addresses, check_duration, check_longest};
pub(crate) use properties::Properties;
pub use table::SETTINGS;
