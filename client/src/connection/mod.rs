//! Connections to brokers: framing, correlation, deadlines, version negotiation, reconnecting.
//!
//! ```text
//! socket.rs      one connection: requests go out pipelined, answers come back in order
//! negotiate.rs   which version of each API the broker speaks
//! login.rs       the login on a connection, and again before the session ends
//! links.rs       connections by broker, made on demand, remade with backoff
//! backoff.rs     growing pauses with jitter (pure)
//! faults.rs      which brokers an operator was told of (pure)
//! metrics.rs     what is told to the program's metrics recorder
//! retry.rs       the one retry: attempts within a deadline
//! ```
//!
//! A broker answers the requests of one connection in order, so what may be held back must not share a connection with
//! what must not wait: a producer, each consumer's fetches and each consumer's group membership have their own
//! [`Links`], and metadata and administration share another.

mod backoff;
mod faults;
mod links;
mod login;
mod metrics;
mod negotiate;
mod retry;
mod socket;

pub(crate) use backoff::{Backoff, pause_after};
pub(crate) use faults::Faults;
pub(crate) use links::{Brokers, Links};
pub(crate) use retry::Retry;
pub(crate) use socket::Connection;
