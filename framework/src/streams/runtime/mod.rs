//! Running a topology against a broker: the thin shell around the tasks.
//!
//! ```text
//! consumer group ──> pump (async) ──channel──> worker thread: tasks, stores ──channel──> outbox (async) ──> producer
//!                      ^ pause/resume                  │ commit: flush, acks, stores, offsets
//!                      └──── rebalance listener ───────┘
//! ```
//!
//! - `app`: [`StreamsApp`], what a user holds. `config`: its settings. `start`: from settings to running.
//! - `topics`: internal topics. `pump`: records to workers, rebalances. `worker`: the threads. `outbox`:
//!   outputs to the producer, commits to the group. `restore`: changelogs to stores. `lag`: what is left to
//!   process. `stores`: queries.
//!
//! At least once: a commit makes every output and changelog record durable, then commits the input offsets, then writes
//! the stores together with the changelog offsets they lead to. A crash before the offsets repeats work; one after them
//! leaves stores that are behind their changelogs and are restored from there. Nothing is lost in between.

mod app;
mod config;
mod error;
mod global;
mod lag;
mod outbox;
mod pump;
mod remember;
mod restore;
mod shared;
mod start;
mod state;
mod stores;
mod topics;
mod worker;

pub use app::{StreamsApp, StreamsMetrics};
pub use config::StreamsConfig;
pub use error::StreamsError;
pub use state::AppState;
pub use stores::AppStore;
