//! What a listener tells of its work, as far as it knows nothing of how it runs.
//!
//! ```text
//! metric.rs  the table of metrics
//! meters.rs  their handles
//! at_work.rs what each worker is at
//! slow.rs    calls that take long         (pure)
//! ages.rs    how long records are in hand (pure)
//! idle.rs    when nothing comes           (pure)
//! ```

mod ages;
mod at_work;
mod idle;
mod meters;
mod metric;
mod slow;

pub(crate) use ages::Ages;
pub(crate) use at_work::{AtWork, Calls};
pub(crate) use idle::{Idleness, Turn};
pub(crate) use meters::{Change, Gauges, Meters, Output};
pub use metric::METRICS;
pub(crate) use slow::{Slow, SlowCall};
