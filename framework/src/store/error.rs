//! What can go wrong in a state store.

use std::path::PathBuf;

use thiserror::Error;

/// A state store that cannot be opened, read or written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The directory of a task's stores cannot be made.
    #[error("the state directory {path} cannot be created: {source}", path = path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The engine failed. The data is safe in the changelog: removing the task's directory rebuilds it from there.
    #[error("state store `{store}`: {source}")]
    Engine {
        /// The store's name.
        store: String,
        /// What the engine said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Bytes in the store are not what klamm writes there.
    #[error(
        "a state store holds what klamm did not write ({what}); remove the task's directory to rebuild it"
    )]
    Corrupt {
        /// What is wrong.
        what: &'static str,
    },
    /// The topology has no store of this name.
    #[error("there is no state store `{store}`; the stores are: {known}")]
    Unknown {
        /// The name asked for.
        store: String,
        /// The names that exist.
        known: String,
    },
    /// The store holds other types than those asked for.
    #[error("state store `{store}` holds `{holds}`, not `{asked}`")]
    Types {
        /// The store's name.
        store: String,
        /// Its key and value types.
        holds: &'static str,
        /// The types asked for.
        asked: &'static str,
    },
    /// A processor uses a store that it did not name.
    #[error("`{operator}` did not name the store `{store}` in `Processor::stores`; it named: {known}")]
    NotConnected {
        /// The store.
        store: String,
        /// The processor.
        operator: String,
        /// What it named.
        known: String,
    },
    /// Windows were asked of a store that holds plain keys.
    #[error("state store `{store}` holds no windows: ask it with `get`")]
    NotWindowed {
        /// The store's name.
        store: String,
    },
    /// A time was asked of a store that only knows what its rows are.
    #[error("state store `{store}` keeps no versions: make its table with `Materialized::versioned`")]
    NotVersioned {
        /// The store's name.
        store: String,
    },
    /// No task of this process holds the store at the moment: the application is starting, rebalancing or closed.
    #[error("no task here holds state store `{store}` now: the application is {state}")]
    NotHere {
        /// The store's name.
        store: String,
        /// What the application is doing.
        state: &'static str,
    },
    /// The group has not answered for a session: it may have given the store to another instance, which may be ahead.
    #[error(
        "the group of this instance has answered no heartbeat for {session:?}: others may have state store `{store}` \
         by now. Ask again when it does, or ask them; `session_timeout` says how long it may be silent"
    )]
    CutOff {
        /// The store's name.
        store: String,
        /// How long a member may be silent.
        session: std::time::Duration,
    },
    /// A key or value does not fit its serde.
    #[error(transparent)]
    Serde(#[from] crate::serde::SerdeError),
}
