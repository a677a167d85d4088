//! Interceptors: code around every delivery, for what is the same in many handlers: filters, checks, measuring.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::extract::Delivery;
use super::failure::{BoxError, Failure};

/// Sees every delivery to a listener, before and after its handler: the one seam for filters, checks and measuring.
/// Given to one listener by [`intercept`](super::ListenerBuilder::intercept), to all of an app by
/// [`App::intercept`](crate::App::intercept).
///
/// Both run on the worker that calls the handler, and may not block. A retry is a delivery like any other. Of a batch,
/// each record is asked about by itself, before the batch is put together.
///
/// ```
/// use klamm::listener::{Before, Delivery, ListenInterceptor};
///
/// /// Leaves out what other tenants sent.
/// #[derive(Debug)]
/// struct OfTenant(&'static str);
///
/// impl ListenInterceptor for OfTenant {
///     fn before(&self, delivery: &Delivery<'_>) -> Result<Before, klamm::listener::BoxError> {
///         let tenant = delivery.record().headers.last("tenant").flatten();
///         Ok(if tenant == Some(self.0.as_bytes()) { Before::Handle } else { Before::Discard })
///     }
/// }
/// ```
pub trait ListenInterceptor: fmt::Debug + Send + Sync + 'static {
    /// Before the handler gets the record.
    ///
    /// # Errors
    /// The record failed, and goes to the failure policy without having been handled. So does one at which this panics.
    fn before(&self, delivery: &Delivery<'_>) -> Result<Before, BoxError> {
        let _ = delivery;
        Ok(Before::Handle)
    }

    /// After the handler, with what became of the record. Not called for what was discarded. A panic is logged.
    fn after(&self, delivery: &Delivery<'_>, failure: Option<&Failure>) {
        let _ = (delivery, failure);
    }
}

/// What becomes of a record that an interceptor saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// The handler gets it, if the other interceptors agree.
    Handle,
    /// It is finished, and no handler sees it.
    Discard,
}

/// The interceptors of a listener, in the order in which they are asked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interceptors(Vec<Arc<dyn ListenInterceptor>>);

impl Interceptors {
    pub(crate) fn add(&mut self, interceptor: Arc<dyn ListenInterceptor>) {
        self.0.push(interceptor);
    }

    /// Those of the app come before the listener's own.
    pub(crate) fn prepend(&mut self, of_app: &Self) {
        self.0.splice(..0, of_app.0.iter().cloned());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// # Errors
    /// What the first says that does not want the record handled.
    pub(crate) fn before(&self, delivery: &Delivery<'_>) -> Result<Before, Failure> {
        for interceptor in &self.0 {
            match catch_unwind(AssertUnwindSafe(|| interceptor.before(delivery))) {
                Ok(Ok(Before::Handle)) => {}
                Ok(Ok(Before::Discard)) => return Ok(Before::Discard),
                Ok(Err(error)) => return Err(Failure::handler(error)),
                Err(panic) => return Err(Failure::panicked(panic)),
            }
        }
        Ok(Before::Handle)
    }

    /// In the opposite order.
    pub(crate) fn after(&self, delivery: &Delivery<'_>, failure: Option<&Failure>) {
        for interceptor in self.0.iter().rev() {
            if catch_unwind(AssertUnwindSafe(|| interceptor.after(delivery, failure))).is_err() {
                let listener = delivery.listener();
                tracing::error!(%listener, ?interceptor, "an interceptor panicked after a handler");
            }
        }
    }
}
