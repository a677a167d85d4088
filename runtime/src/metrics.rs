//! What is told of metrics: tables of them, and their handles. A handle can be made of a row alone, so there is no
//! metric outside of a table.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

pub use metrics::{Counter, Gauge, Histogram, SharedString};
use metrics::{
    Label, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
    with_recorder,
};

/// A metric that the [`metrics`](https://docs.rs/metrics) facade is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metric {
    /// Its name; the end says the unit. It stays.
    pub name: &'static str,
    /// What it is.
    pub kind: MetricKind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it says.
    pub doc: &'static str,
}

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MetricKind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Many values, of which a recorder makes quantiles or buckets.
    Histogram,
}

impl fmt::Display for MetricKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        })
    }
}

impl Metric {
    /// A row of a table: see [`metrics_table`](crate::metrics_table).
    #[doc(hidden)]
    pub const fn new(
        name: &'static str,
        kind: MetricKind,
        labels: &'static [&'static str],
        doc: &'static str,
    ) -> Self {
        Self { name, kind, labels, doc }
    }

    /// Its handle with these values of its labels.
    pub fn counter(&self, values: &[SharedString]) -> Counter {
        debug_assert_eq!(self.kind, MetricKind::Counter, "{}", self.name);
        counter!(self.name, self.labelled(values))
    }

    /// As [`Metric::counter`].
    pub fn gauge(&self, values: &[SharedString]) -> Gauge {
        debug_assert_eq!(self.kind, MetricKind::Gauge, "{}", self.name);
        gauge!(self.name, self.labelled(values))
    }

    /// As [`Metric::counter`].
    pub fn histogram(&self, values: &[SharedString]) -> Histogram {
        debug_assert_eq!(self.kind, MetricKind::Histogram, "{}", self.name);
        histogram!(self.name, self.labelled(values))
    }

    fn labelled(&self, values: &[SharedString]) -> Vec<Label> {
        debug_assert_eq!(self.labels.len(), values.len(), "{}", self.name);
        self.labels.iter().zip(values).map(|(&name, value)| Label::new(name, value.clone())).collect()
    }
}

/// Whether somebody records metrics: for what costs something to find out. A recorder must hold something; what is
/// registered with one that comes later goes nowhere.
pub fn is_recording() -> bool {
    // That of the facade itself, which does nothing, is empty, and it cannot be asked for its type.
    with_recorder(|recorder| size_of_val(recorder) > 0)
}

/// Tells the recorder what each metric is.
pub fn describe(table: &[Metric]) {
    for Metric { name, kind, doc, .. } in table {
        let unit = match name {
            name if name.ends_with("_seconds") => Unit::Seconds,
            name if name.ends_with("_bytes") || name.ends_with("_bytes_total") => Unit::Bytes,
            _ => Unit::Count,
        };
        match kind {
            MetricKind::Counter => describe_counter!(*name, unit, *doc),
            MetricKind::Gauge => describe_gauge!(*name, unit, *doc),
            MetricKind::Histogram => describe_histogram!(*name, unit, *doc),
        }
    }
}

/// Handles of one metric by the value of one label, made when they are first needed.
pub struct ByLabel<T> {
    handles: Mutex<BTreeMap<SharedString, T>>,
}

/// More values than this are not kept: they are made each time.
const MOST_KEPT: usize = 10_000;

impl<T> Default for ByLabel<T> {
    fn default() -> Self {
        Self { handles: Mutex::default() }
    }
}

impl<T> fmt::Debug for ByLabel<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByLabel").finish_non_exhaustive()
    }
}

impl<T> ByLabel<T> {
    /// Uses the handle for a topic, or for another label's value.
    pub fn with(&self, value: &Arc<str>, make: impl FnOnce(SharedString) -> T, using: impl FnOnce(&T)) {
        let mut handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        // Without a copy of the name where it is known.
        let value = SharedString::from(Arc::clone(value));
        if let Some(handle) = handles.get(&value) {
            return using(handle);
        }
        let handle = make(value.clone());
        using(&handle);
        if handles.len() < MOST_KEPT {
            handles.insert(value, handle);
        }
    }

    /// As [`ByLabel::with`], of a word of our own.
    pub fn with_word(
        &self,
        value: &'static str,
        make: impl FnOnce(SharedString) -> T,
        using: impl FnOnce(&T),
    ) {
        let mut handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        let value = SharedString::const_str(value);
        using(handles.entry(value.clone()).or_insert_with(|| make(value)));
    }
}

/// One's part of a gauge that is the sum of several: two producers in one process do not overwrite each other. It is
/// taken away when this is dropped.
#[derive(Debug)]
pub struct Part {
    gauge: Gauge,
    value: Mutex<f64>,
}

impl Part {
    /// A part of this gauge, 0 at first.
    pub fn of(gauge: Gauge) -> Self {
        Self { gauge, value: Mutex::new(0.0) }
    }

    /// What this part is now.
    pub fn set(&self, value: f64) {
        let mut part = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        let change = value - *part;
        if change != 0.0 {
            *part = value;
            self.gauge.increment(change);
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // A recorder that panics here would take the process along, if others of its parts are dropped meanwhile.
        let _ = catch_unwind(AssertUnwindSafe(|| self.set(0.0)));
    }
}

/// Makes a table of metrics, `METRICS`, and a module `names` with each of them by a name of its own. The table's docs
/// come first.
#[macro_export]
macro_rules! metrics_table {
    ($(#[$docs:meta])* $($id:ident = $name:literal, $kind:ident, [$($label:literal),*], $doc:literal;)*) => {
        /// Each metric by a name of its own.
        pub(crate) mod names {
            use $crate::metrics::{Metric, MetricKind};
            $(
                pub(crate) const $id: Metric = Metric::new($name, MetricKind::$kind, &[$($label),*], $doc);
            )*
        }

        $(#[$docs])*
        pub const METRICS: &[$crate::metrics::Metric] = &[$(names::$id),*];
    };
}

#[cfg(test)]
mod tests {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    use super::*;

    #[test]
    fn nothing_is_recorded_without_a_recorder() {
        assert!(!is_recording());
        let recorder = DebuggingRecorder::new();
        metrics::with_local_recorder(&recorder, || assert!(is_recording()));
    }

    #[test]
    fn a_handle_is_made_once_and_too_many_are_not_kept() {
        let by_topic = ByLabel::default();
        let made = Mutex::new(0);
        let make = |_| *made.lock().unwrap() += 1;
        let mut used = 0;
        for topic in ["a", "b", "a"] {
            by_topic.with(&Arc::from(topic), make, |()| used += 1);
        }
        assert_eq!((*made.lock().unwrap(), used), (2, 3));
        for number in 0..2 * MOST_KEPT {
            by_topic.with(&Arc::from(number.to_string()), make, |()| {});
        }
        assert_eq!(by_topic.handles.lock().unwrap().len(), MOST_KEPT);
        let words = ByLabel::default();
        for word in ["x", "x"] {
            words.with_word(word, make, |()| used += 1);
        }
        assert_eq!((*made.lock().unwrap(), used), (3 + 2 * MOST_KEPT, 5));
    }

    #[test]
    fn parts_add_up_and_go_with_their_owners() {
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        metrics::with_local_recorder(&recorder, || {
            let mut sum = 0.0;
            // What a snapshot shows is what changed since the last one.
            let mut shown = || match snapshotter.snapshot().into_vec().pop() {
                Some((_, _, _, DebugValue::Gauge(change))) => {
                    sum += change.into_inner();
                    sum
                }
                other => panic!("{other:?}"),
            };
            let (one, other) = (Part::of(metrics::gauge!("sum")), Part::of(metrics::gauge!("sum")));
            one.set(3.0);
            other.set(4.0);
            assert_eq!(shown(), 7.0);
            one.set(1.0);
            assert_eq!(shown(), 5.0);
            drop(other);
            assert_eq!(shown(), 1.0);
            drop(one);
            assert_eq!(shown(), 0.0);
        });
    }
}
