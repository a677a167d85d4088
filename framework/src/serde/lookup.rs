//! What a serde has to learn before it can go on, without holding up whoever called it.
//!
//! Serdes are synchronous: they run for every record, and in streams on threads that have no runtime. A serde of a
//! schema registry now and then needs the network all the same. It does not wait for it; it returns
//! [`SerdeError::Pending`](super::SerdeError::Pending) with the [`Lookup`] that is missing, and who called it awaits
//! that and calls again. A step that is awaited before every record would cost every record; this costs the first
//! record of a schema.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt, Shared};

/// Something that must be looked up before a value can be read or written. Nothing happens until it is awaited; clones
/// share the work.
#[derive(Clone)]
pub struct Lookup {
    what: Arc<str>,
    work: Shared<BoxFuture<'static, Result<(), LookupError>>>,
}

/// Why a [`Lookup`] found nothing.
#[derive(Debug, Clone)]
pub struct LookupError {
    transient: bool,
    source: Arc<dyn Error + Send + Sync>,
}

impl Lookup {
    /// A lookup that is done by `work`, which puts what it finds where the serde will see it. `what` is for messages.
    pub fn new(
        what: impl Into<Arc<str>>,
        work: impl Future<Output = Result<(), LookupError>> + Send + 'static,
    ) -> Self {
        Self { what: what.into(), work: work.boxed().shared() }
    }

    /// Looks it up.
    ///
    /// # Errors
    /// See [`LookupError`].
    pub async fn done(self) -> Result<(), LookupError> {
        self.work.await
    }

    /// What is looked up.
    pub fn what(&self) -> &str {
        &self.what
    }
}

impl fmt::Debug for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lookup").field(&self.what).finish()
    }
}

impl fmt::Display for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl LookupError {
    /// It may be found later, without anybody changing the record: the network, a server that is down.
    pub fn transient(source: impl Error + Send + Sync + 'static) -> Self {
        Self { transient: true, source: Arc::new(source) }
    }

    /// It is not there.
    pub fn permanent(source: impl Error + Send + Sync + 'static) -> Self {
        Self { transient: false, source: Arc::new(source) }
    }

    /// Whether it may be found later.
    pub fn is_transient(&self) -> bool {
        self.transient
    }
}

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)
    }
}

impl Error for LookupError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.source()
    }
}

/// The lookup that an error asks for.
pub(crate) trait AsksFor {
    fn lookup(&self) -> Option<&Lookup>;
}
