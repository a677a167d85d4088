//! Code of the application that sees every record on its way.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::delivery::Callback;
use super::record::{Record, RecordMetadata};
use crate::error::ProduceError;

/// Sees every record before it is sent and learns what became of it
/// ([`ProducerBuilder::interceptor`](super::ProducerBuilder::interceptor)). Both must be quick and not block.
pub trait Interceptor: fmt::Debug + Send + Sync + 'static {
    /// Before anything else happens to a record; it may be changed. On the caller's thread; a panic fails the record.
    fn on_send(&self, record: &mut Record) {
        let _ = record;
    }

    /// What became of a record that was taken. On the producer's task; a panic is logged.
    fn on_acknowledgement(&self, result: Result<&RecordMetadata, &ProduceError>) {
        let _ = result;
    }
}

/// Shows a record to all, in order.
pub(super) fn on_send(
    interceptors: &[Arc<dyn Interceptor>],
    record: &mut Record,
) -> Result<(), ProduceError> {
    for interceptor in interceptors {
        catch_unwind(AssertUnwindSafe(|| interceptor.on_send(record))).map_err(|_| {
            ProduceError::InvalidRecord {
                reason: Arc::from(format!("the interceptor {interceptor:?} panicked")),
            }
        })?;
    }
    Ok(())
}

/// A callback that tells all, in order, and then the caller's own.
pub(super) fn on_acknowledgement(
    interceptors: &[Arc<dyn Interceptor>],
    callback: Option<Callback>,
) -> Option<Callback> {
    if interceptors.is_empty() {
        return callback;
    }
    let interceptors = interceptors.to_vec();
    Some(Callback::once(move |result| {
        for interceptor in interceptors {
            let tell = || interceptor.on_acknowledgement(result.as_ref());
            if catch_unwind(AssertUnwindSafe(tell)).is_err() {
                tracing::error!(?interceptor, "an interceptor panicked");
            }
        }
        if let Some(callback) = callback {
            callback.call(result);
        }
    }))
}
