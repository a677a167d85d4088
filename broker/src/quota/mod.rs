//! Client quotas: what is set for whom, which of it counts for a client, and how long a client that has used more has
//! to wait. Pure; the metadata keeps what is set, and requests have the shell.
//!
//! ```text
//! settings   what is set, and which of it counts for a client
//! meters     what clients have used of it
//! ```

mod meters;
mod settings;

pub(crate) use meters::{Meters, burst_bytes};
pub(crate) use settings::{CLIENT_ID, IP, Rate, USER, check, check_entity};
pub(crate) use settings::{ClientQuotas, Entity};
