//! Connections: accepting them within limits, frames in, answers out in the order of the requests.

mod accept;
mod connection;
mod frame;
mod transport;
mod way;

pub(crate) use accept::{Acceptor, Limits};
