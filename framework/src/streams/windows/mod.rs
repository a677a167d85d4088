//! Windows of time, and keys that carry one.
//!
//! - `aligned`: tumbling and hopping windows. `unlimited`: one without an end.
//!   `sliding`, `session`, `join`: those that records make.
//! - `serde`: how windowed keys are written to topics and stores.

mod aligned;
mod join;
pub(crate) mod serde;
mod session;
mod sliding;
mod unlimited;

use std::time::Duration;

pub(crate) use aligned::AlignedWindows;
pub use aligned::{HoppingWindows, TumblingWindows};
pub use join::JoinWindows;
pub use serde::{SessionWindowedSerde, WindowedSerde};
pub use session::SessionWindows;
pub use sliding::SlidingWindows;
pub use unlimited::UnlimitedWindows;

pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A window: from its start, included, to its end. The end of tumbling and hopping windows is excluded; that of sliding
/// windows and of sessions is the last millisecond in them. Milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Window {
    /// The first millisecond.
    pub start_ms: i64,
    /// The first millisecond after it; of sliding windows and sessions the last one in it.
    pub end_ms: i64,
}

/// A key and the window that its value is of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Windowed<K> {
    /// The key.
    pub key: K,
    /// The window.
    pub window: Window,
}
