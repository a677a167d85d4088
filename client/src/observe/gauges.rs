//! Gauges that are the sum of several parts: two producers in one process do not overwrite each other.

use std::sync::{Mutex, PoisonError};

use metrics::Gauge;

/// One's part of a gauge. It is taken away when this is dropped.
#[derive(Debug)]
pub(crate) struct Part {
    gauge: Gauge,
    value: Mutex<f64>,
}

impl Part {
    pub(crate) fn of(gauge: Gauge) -> Self {
        Self { gauge, value: Mutex::new(0.0) }
    }

    pub(crate) fn set(&self, value: f64) {
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
        self.set(0.0);
    }
}

#[cfg(test)]
mod tests {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    use super::*;

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
