//! Queries of state stores, over all instances of an application.
//!
//! ```text
//! StoreQuery (typed) ─┐                               ┌─> raw: rows of one partition, here
//!                     ├─> asking, rounds: who, again ─┤                                      ──> merging: one answer
//! endpoint (HTTP) ────┘                               └─> peers: another instance's endpoint
//! ```
//!
//! - `typed`, `many` (several keys, values): [`StoreQuery`]. `answer`: what answers say of themselves. `error`.
//! - `raw`: queries as bytes on an engine; `merging`: several partitions' rows in order, page by page. Pure.
//! - `asking`: whether a query fits its store, and which partitions it is about. `rounds`: whom to ask, how often, how
//!   long. `instance`: what they need to know.
//! - `place`: where to read. `wire`, `wire_reply`: requests and answers as JSON.
//! - `endpoint`: the server of them; `socket`: its connections. `peers`: its
//!   client. (Feature `queries`.)

mod answer;
mod asking;
#[cfg(feature = "queries")]
pub(crate) mod endpoint;
mod error;
mod instance;
mod many;
mod merging;
#[cfg(feature = "queries")]
pub(crate) mod peers;
mod place;
#[cfg(test)]
mod properties;
mod raw;
mod rounds;
#[cfg(feature = "queries")]
mod socket;
mod typed;
#[cfg(feature = "queries")]
mod wire;
#[cfg(feature = "queries")]
mod wire_reply;

pub use answer::{Answered, AnsweredBy, PageToken, PositionBound, QueryRow, Rows};
pub use error::QueryError;
pub(crate) use instance::{Holders, Instance, Peers, StoreFacts};
pub(crate) use raw::RawRow;
pub use typed::StoreQuery;
