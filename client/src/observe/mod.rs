//! What a client tells of itself: metrics and events. Nothing here knows more of the client than its errors
//! and types.
//!
//! ```text
//! metric.rs    every metric: its name, kind and labels
//! observer.rs  events that a program may listen to
//! ```

mod metric;
mod observer;

pub(crate) use klamm_runtime::metrics::{ByLabel, Part, describe};
pub(crate) use metric::names;
pub use metric::{METRICS, Metric, MetricKind};
pub(crate) use observer::Observers;
pub use observer::{ClientEvent, Observer};
