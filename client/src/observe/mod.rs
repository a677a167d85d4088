//! What a client tells of itself: metrics and events. Nothing here knows more of the client than its errors
//! and types.
//!
//! ```text
//! metric.rs    every metric: its name, kind and labels, and how its handles are made
//! gauges.rs    gauges that are the sum of several parts
//! observer.rs  events that a program may listen to
//! ```

mod gauges;
mod metric;
mod observer;

pub(crate) use gauges::Part;
pub(crate) use metric::{ByLabel, describe_all, names};
pub use metric::{METRICS, Metric, MetricKind};
pub(crate) use observer::Observers;
pub use observer::{ClientEvent, Observer};
