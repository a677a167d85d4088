//! What a running application tells of its work.
//!
//! ```text
//! metric.rs   the table of metrics
//! ledger.rs   what threads write down at the end of a turn         (pure)
//! samples.rs  some of many observations                            (pure)
//! engines.rs  what engines say of their rows and memory
//! telling.rs  from the ledger to the recorder, about every second
//! meters.rs   the handles
//! snapshot.rs the same for programs: `StreamsApp::tasks`
//! ```
//!
//! Threads of streams never call the recorder: they add up, and write down what it came to when a turn of up to a
//! thousand records ends.

mod engines;
mod ledger;
mod meters;
mod metric;
mod samples;
mod snapshot;
mod telling;

pub(super) use ledger::{CommitResult, Ledger, Part, Turn};
pub(super) use meters::Meters;
pub use metric::METRICS;
pub(super) use snapshot::tasks;
pub use snapshot::{StoreMetrics, TaskMetrics, TaskState};
pub(super) use telling::{serve, tell_last};
