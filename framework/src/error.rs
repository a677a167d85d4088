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
        let mut told = self.0.to_string();
        f.write_str(&told)?;
        for cause in std::iter::successors(self.0.source(), |error| error.source()) {
            let cause = cause.to_string();
            // Many errors end with their cause's text.
            if !told.ends_with(&cause) {
                write!(f, "\n  caused by: {cause}")?;
            }
            told = cause;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::Error;

    #[derive(Debug, thiserror::Error)]
    enum Broken {
        #[error("cannot start: {0}")]
        Start(#[source] io::Error),
        #[error("cannot read the settings")]
        Settings(#[source] Box<Broken>),
    }

    #[test]
    fn main_prints_every_cause_once() {
        let refused = || Broken::Start(io::Error::other("refused"));
        assert_eq!(format!("{:?}", Error::from(refused())), "cannot start: refused");
        let nested = Broken::Settings(Box::new(refused()));
        let printed = "cannot read the settings\n  caused by: cannot start: refused";
        assert_eq!(format!("{:?}", Error::from(nested)), printed);
    }
}
