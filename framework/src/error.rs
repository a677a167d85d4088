//! `klamm::Error`: any error, for `main` and for handlers. Operations themselves return narrow errors.

use std::fmt;

use crate::listener::BoxError;

/// Any error, so that `?` works on everything: the error of `main`, or of handlers that do not define their own.
///
/// It deliberately is not a `std::error::Error` itself (that is what lets it take any of them), but converts into a
/// boxed one, as handlers' errors must. Its `Debug` output, which `main` prints, is the message with its causes.
pub struct Error(BoxError);

/// A result whose error is [`klamm::Error`](Error) unless another is named.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error that is only a message.
    pub fn msg(message: impl Into<String>) -> Self {
        Self(message.into().into())
    }

    /// The error underneath, if it is an `E`.
    pub fn downcast_ref<E: std::error::Error + 'static>(&self) -> Option<&E> {
        self.0.downcast_ref()
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for Error {
    fn from(error: E) -> Self {
        Self(Box::new(error))
    }
}

impl From<Error> for BoxError {
    fn from(error: Error) -> Self {
        error.0
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)?;
        let causes = std::iter::successors(self.0.source(), |error| error.source());
        for cause in causes {
            write!(f, "\n  caused by: {cause}")?;
        }
        Ok(())
    }
}
