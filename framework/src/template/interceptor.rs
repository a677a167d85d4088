//! The one seam for code that sees every record of a template: to add headers, to refuse, to measure, to trace.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use klamm_client::{ProduceError, Record, RecordMetadata};
use tokio::time::Instant;

use super::error::SendError;

/// Sees every record that a template sends, and what becomes of it
/// ([`Template::interceptor`](super::Template::interceptor)). Both must be quick and not block; both have a default
/// that does nothing.
///
/// ```
/// use klamm::client::Record;
/// use klamm::template::{SendInterceptor, SendOutcome};
///
/// #[derive(Debug)]
/// struct Stamp;
///
/// impl SendInterceptor for Stamp {
///     fn on_send(&self, record: &mut Record) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
///         record.headers.push(("service".into(), Some("billing".into())));
///         Ok(())
///     }
///
///     fn on_result(&self, outcome: &SendOutcome<'_>) {
///         println!("{} took {:?}, well: {}", outcome.topic, outcome.took, outcome.result.is_ok());
///     }
/// }
/// ```
pub trait SendInterceptor: fmt::Debug + Send + Sync + 'static {
    /// Before the record goes to the producer, key and value written already; it may be changed.
    ///
    /// # Errors
    /// The record is not to be sent. A panic is that record's failure, too.
    fn on_send(&self, record: &mut Record) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let _ = record;
        Ok(())
    }

    /// What became of a record that the producer took, in the end, whether or not anybody waits for it. On the
    /// producer's task; a panic is logged. Records of transactions are not told of one by one: their transaction is
    /// what counts.
    fn on_result(&self, outcome: &SendOutcome<'_>) {
        let _ = outcome;
    }
}

/// What became of a record.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SendOutcome<'a> {
    /// The topic.
    pub topic: &'a str,
    /// From the moment it was given to the producer.
    pub took: Duration,
    /// Where it is in the log, or why it is not.
    pub result: Result<&'a RecordMetadata, &'a ProduceError>,
}

/// A template's interceptors, in order.
#[derive(Debug, Clone, Default)]
pub(super) struct Interceptors(Arc<[Arc<dyn SendInterceptor>]>);

impl Interceptors {
    pub(super) fn with(&self, interceptor: Arc<dyn SendInterceptor>) -> Self {
        Self(self.0.iter().cloned().chain([interceptor]).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Shows a record to all, in order.
    pub(super) fn on_send(&self, record: &mut Record) -> Result<(), SendError> {
        for interceptor in &*self.0 {
            let shown = catch_unwind(AssertUnwindSafe(|| interceptor.on_send(record)));
            shown
                .unwrap_or_else(|_| Err(format!("{} panicked", name(interceptor)).into()))
                .map_err(SendError::Refused)?;
        }
        Ok(())
    }

    /// What the producer is to call when it knows what became of the record: all of them, then `last`.
    pub(super) fn on_result(
        &self,
        topic: Arc<str>,
        last: impl FnOnce(Result<RecordMetadata, ProduceError>) + Send + 'static,
    ) -> impl FnOnce(Result<RecordMetadata, ProduceError>) + Send + 'static {
        let (this, since) = (self.clone(), Instant::now());
        move |result| {
            let outcome = SendOutcome { topic: &topic, took: since.elapsed(), result: result.as_ref() };
            for interceptor in &*this.0 {
                if catch_unwind(AssertUnwindSafe(|| interceptor.on_result(&outcome))).is_err() {
                    tracing::error!(interceptor = %name(interceptor), "an interceptor panicked");
                }
            }
            last(result);
        }
    }
}

/// Its `Debug` is the user's and may panic, too.
fn name(interceptor: &Arc<dyn SendInterceptor>) -> String {
    catch_unwind(AssertUnwindSafe(|| format!("{interceptor:?}")))
        .unwrap_or_else(|_| "an interceptor".to_owned())
}
