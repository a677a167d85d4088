//! The handles of an application's metrics: made once. A recorder that panics harms nobody.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use klamm_runtime::metrics::{Counter, Histogram, Metric, Part, SharedString, describe, is_recording};
use tokio::time::Instant;

use super::metric::METRICS;

/// Tells a recorder of an application, if there is one.
pub(in super::super) struct Meters {
    handles: Option<Mutex<Handles>>,
    /// A recorder that panics is told of once.
    is_broken: AtomicBool,
}

/// A metric with the values of its labels.
type Place = (&'static str, Vec<SharedString>);

pub(super) struct Handles {
    application: SharedString,
    /// With what was told.
    counters: BTreeMap<Place, (Counter, u64)>,
    gauges: BTreeMap<Place, Gauge>,
    histograms: BTreeMap<Place, Histogram>,
    pub(super) looked: Instant,
    /// Of each thread, at the last look.
    pub(super) busy: BTreeMap<usize, Duration>,
    look: u64,
}

struct Gauge {
    part: Part,
    /// The last look that it was part of.
    look: u64,
}

impl Meters {
    pub(in super::super) fn new(application: &Arc<str>) -> Self {
        let make = || {
            describe(METRICS);
            Mutex::new(Handles {
                application: SharedString::from(Arc::clone(application)),
                counters: BTreeMap::new(),
                gauges: BTreeMap::new(),
                histograms: BTreeMap::new(),
                looked: Instant::now(),
                busy: BTreeMap::new(),
                look: 0,
            })
        };
        // A recorder that cannot even be told what metrics are shows nothing, and ends nothing.
        let handles = is_recording().then(|| catch_unwind(AssertUnwindSafe(make)).ok()).flatten();
        Self { handles, is_broken: AtomicBool::new(false) }
    }

    /// Whether anybody wants to know.
    pub(super) fn is_on(&self) -> bool {
        self.handles.is_some()
    }

    /// Lets `look` tell everything that there is; gauges that it leaves out are 0 from then on.
    pub(super) fn tell(&self, look: impl FnOnce(&mut Handles)) {
        let Some(handles) = &self.handles else { return };
        // The recorder is the user's: what it does wrong is nobody's failure.
        let told = catch_unwind(AssertUnwindSafe(|| {
            let mut handles = handles.lock().unwrap_or_else(PoisonError::into_inner);
            handles.look += 1;
            look(&mut handles);
            handles.looked = Instant::now();
            let look = handles.look;
            handles.gauges.retain(|_, gauge| gauge.look == look);
        }));
        if told.is_err() && !self.is_broken.swap(true, Ordering::Relaxed) {
            tracing::error!("the recorder of metrics panicked: what it shows of streams may be wrong");
        }
    }
}

impl Handles {
    fn labels(&self, values: &[SharedString]) -> Vec<SharedString> {
        std::iter::once(&self.application).chain(values).cloned().collect()
    }

    pub(super) fn counter(&mut self, metric: &Metric, values: &[SharedString], total: u64) {
        let labels = self.labels(values);
        let make = |(_, labels): &Place| (metric.counter(labels), 0);
        let (counter, told) = self.counters.entry((metric.name, labels)).or_insert_with_key(make);
        counter.increment(total.saturating_sub(*told));
        *told = total;
    }

    pub(super) fn gauge(&mut self, metric: &Metric, values: &[SharedString], value: f64) {
        let (labels, look) = (self.labels(values), self.look);
        let make = |(_, labels): &Place| Gauge { part: Part::of(metric.gauge(labels)), look };
        let gauge = self.gauges.entry((metric.name, labels)).or_insert_with_key(make);
        gauge.look = look;
        gauge.part.set(value);
    }

    pub(super) fn observe(&mut self, metric: &Metric, values: &[SharedString], observed: Vec<f64>) {
        let labels = self.labels(values);
        let make = |(_, labels): &Place| metric.histogram(labels);
        let histogram = self.histograms.entry((metric.name, labels)).or_insert_with_key(make);
        observed.into_iter().for_each(|value| histogram.record(value));
    }
}

impl fmt::Debug for Meters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meters").field("is_on", &self.handles.is_some()).finish()
    }
}
