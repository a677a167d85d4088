//! Fetch sessions (KIP-227): what a client reads is remembered from fetch to fetch, so that it names only what changes,
//! and is told only what is new to it. Pure; the fetch request has the shell.
//!
//! ```text
//! session   one session: its partitions in their order, and what the client knows of each
//! cache     all sessions: how many there may be, and which goes when another comes
//! ```

mod cache;
mod session;
#[cfg(test)]
mod tests;

pub(crate) use cache::{FetchSessions, SessionLimits};
pub(crate) use session::{Found, Place, Session, Told, TopicKey, Wanted};
