//! Running a topology against a broker: the thin shell around the tasks.
//!
//! ```text
//! consumer group ──> pump (async) ──channel──> worker thread: tasks, stores ──channel──> outbox (async) ──> producer
//!                      ^ pause/resume                  │ commit: flush, acks, stores, offsets
//!                      └──── rebalance listener ───────┘
//! ```
//!
//! - `app`: [`StreamsApp`], what a user holds. `config`, `config_instances`: its settings. `start`: from settings to
//!   running.
//! - `directory`: the state directory's lock. `instance`: its name in the group, `fingerprint`: how names become a
//!   number. `remember`: the topology that ran here before. `topics`: internal topics. `upkeep`: looks after them.
//!   `free_space`, `space_guard`: room on the disk.
//! - `pump`, `flow`: records to workers, rebalances. `silence`: who gets none. `worker`, `round`: the threads, `clock`:
//!   their time; `running`, `slice`, `tasks`, `task_setup`, `engines`, `commit`, `committing`: their tasks; `failing`,
//!   `restarts`: those that fail, `again`: those that begin again; `threads`, `workers`, `spawn`, `spread`: how threads
//!   come and go. `changelogs`, `restore`, `loading`: changelogs to stores, `origins`: which ones those were. `rewind`:
//!   back to the last commit.
//! - `outbox`: outputs to the producer, commits to the group; `transactions`: the same in transactions; `records`:
//!   what they have in common; `fate`: what became of records; `trouble`: what errors mean.
//! - `flushing`, `unflushed`: stores are made durable beside all that.
//! - `assignment`: which instance runs what; `assignor`: how that was shared out before. `standbys`: what is held of
//!   tasks that do not run here, `keeper`: the thread that holds it, `tail`: from changelogs to it, `following`: from
//!   where on, `standby_inputs` and `standby_looks`: how far it is in what its tasks read. `known_state`: what an
//!   instance finds on its disk.
//! - `observe`: metrics. `lag`: what is left to process. `stores`: queries. `placing`: who has which key.
//!
//! At least once: a commit makes every output durable, and after them every changelog record, then commits the input
//! offsets, then writes the stores together with the changelog offsets they lead to. A crash before the offsets repeats
//! work; one after them leaves stores that are behind their changelogs and are restored from there. Nothing is lost in
//! between. Nothing leaves a member that its group may have gone on without.
//!
//! Exactly once: outputs, changelog records and offsets are one transaction; the stores follow it. Whatever ends a
//! transaction otherwise, or a member's time in its group, drops what the tasks hold: they begin again from the last
//! commit, where their stores are.

mod again;
mod app;
mod assignment;
mod assignor;
mod changelogs;
mod clock;
mod commit;
mod committing;
mod config;
mod config_instances;
mod directory;
mod engines;
mod error;
mod failing;
mod fate;
mod fingerprint;
mod flow;
mod flushing;
mod following;
mod free_space;
mod global;
mod instance;
mod keeper;
mod known_state;
mod lag;
mod loading;
mod observe;
mod origins;
mod outbox;
mod placing;
mod positions;
mod pump;
mod queries;
mod records;
mod remember;
mod restarts;
mod restore;
mod rewind;
mod round;
mod running;
mod shared;
mod silence;
mod slice;
mod space_guard;
mod spawn;
mod spread;
mod standby_inputs;
mod standby_looks;
mod standbys;
mod start;
mod state;
mod stores;
mod tail;
mod task_setup;
mod tasks;
mod threads;
mod topics;
mod transactions;
mod trouble;
mod unflushed;
mod upkeep;
mod worker;
mod workers;
mod write_ahead;

pub use app::{StreamsApp, StreamsMetrics};
pub use config::StreamsConfig;
pub use error::StreamsError;
pub use failing::{AfterFailure, FailingTask, TaskFailure};
pub use free_space::PauseReason;
pub use observe::{METRICS, StoreMetrics, TaskMetrics, TaskState};
pub use placing::{InstanceTasks, KeyHosts, StandbyTask};
pub use state::AppState;
pub use stores::AppStore;
