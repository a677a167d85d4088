//! Why one delivery of a record failed.

use std::any::Any;
use std::error::Error;
use std::fmt;

use crate::listener::extract::Rejection;

/// Any error. What handlers return is turned into it, so `?` works on anything inside them.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Why one delivery of a record failed, as the [`FailurePolicy`](super::FailurePolicy) sees it and the
/// dead-letter headers tell it.
pub struct Failure {
    kind: FailureKind,
    error: BoxError,
    type_name: &'static str,
}

/// Where in the handling of a record the failure arose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureKind {
    /// The handler returned an error.
    Handler,
    /// An argument could not be made of the record: it does not decode, or a part is missing.
    /// The handler was not called.
    Rejected,
    /// The handler panicked.
    Panicked,
    /// The handler returned without error but dropped its [`Ack`](crate::Ack) unused.
    NotAcknowledged,
}

impl Failure {
    /// The handler's error, remembering its concrete type for the dead-letter headers.
    pub(crate) fn handler<E: Into<BoxError>>(error: E) -> Self {
        Self { kind: FailureKind::Handler, error: error.into(), type_name: std::any::type_name::<E>() }
    }

    pub(crate) fn rejected(rejection: Rejection) -> Self {
        let type_name = std::any::type_name::<Rejection>();
        Self { kind: FailureKind::Rejected, error: rejection.into(), type_name }
    }

    /// `payload` is what `catch_unwind` gives.
    pub(crate) fn panicked(payload: Box<dyn Any + Send>) -> Self {
        let message = match payload.downcast::<String>() {
            Ok(message) => *message,
            Err(payload) => match payload.downcast::<&'static str>() {
                Ok(message) => (*message).to_owned(),
                Err(_) => "a panic without a message".to_owned(),
            },
        };
        Self { kind: FailureKind::Panicked, error: Box::new(Panic(message)), type_name: "panic" }
    }

    pub(crate) fn not_acknowledged() -> Self {
        Self { kind: FailureKind::NotAcknowledged, error: Box::new(AckDropped), type_name: "klamm::Ack" }
    }

    /// Where it arose.
    pub fn kind(&self) -> FailureKind {
        self.kind
    }

    /// The Rust type of the error, as `my_app::LedgerError`; "panic" for a panic.
    pub fn type_name(&self) -> &'static str {
        self.type_name
    }

    /// The error or one of its sources, if one of them is an `E`. The outermost wins.
    pub fn find<E: Error + 'static>(&self) -> Option<&E> {
        self.chain().find_map(|error| error.downcast_ref::<E>())
    }

    /// The error and its sources, outermost first.
    pub fn chain(&self) -> impl Iterator<Item = &(dyn Error + 'static)> {
        let outermost: &(dyn Error + 'static) = &*self.error;
        std::iter::successors(Some(outermost), |error: &&(dyn Error + 'static)| (*error).source())
    }
}

impl fmt::Display for Failure {
    /// The error with its sources, in one line, without repeating what an error already says of its source.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.error.to_string();
        f.write_str(&said)?;
        for source in self.chain().skip(1) {
            let next = source.to_string();
            if !said.contains(&next) {
                write!(f, ": {next}")?;
            }
            said = next;
        }
        Ok(())
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failure").field("kind", &self.kind).field("error", &self.error).finish()
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.error)
    }
}

#[derive(Debug)]
struct Panic(String);

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the handler panicked: {}", self.0)
    }
}

impl Error for Panic {}

#[derive(Debug)]
struct AckDropped;

impl fmt::Display for AckDropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the handler dropped its `Ack` without using it")
    }
}

impl Error for AckDropped {}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] std::num::ParseIntError);

    #[test]
    fn finds_types_in_the_chain_and_names_them() {
        let failure = Failure::handler(Outer("x".parse::<i32>().unwrap_err()));
        assert!(failure.find::<Outer>().is_some());
        assert!(failure.find::<std::num::ParseIntError>().is_some());
        assert!(failure.find::<fmt::Error>().is_none());
        assert!(failure.type_name().ends_with("Outer"));
        assert_eq!(failure.to_string(), "outer: invalid digit found in string");
    }

    /// The dead-letter headers tell where a failure arose, by these words.
    #[test]
    fn each_kind_is_told_apart() {
        let told = |failure: Failure| (failure.kind(), failure.type_name());
        let (kind, name) = told(Failure::rejected(Rejection::NoKey));
        assert_eq!(kind, FailureKind::Rejected);
        assert!(name.ends_with("Rejection"));
        assert_eq!(told(Failure::panicked(Box::new("x"))), (FailureKind::Panicked, "panic"));
        assert_eq!(told(Failure::not_acknowledged()), (FailureKind::NotAcknowledged, "klamm::Ack"));
        assert!(Failure::not_acknowledged().to_string().contains("`Ack`"));
        assert_eq!(Failure::handler("x").kind(), FailureKind::Handler);
    }

    /// Libraries often say their source in their own text; twice in one line helps nobody.
    #[test]
    fn a_source_that_was_said_already_is_not_repeated() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot book: {0}")]
        struct Says(#[source] Outer);

        let failure = Failure::handler(Says(Outer("x".parse::<i32>().unwrap_err())));
        assert_eq!(failure.to_string(), "cannot book: outer: invalid digit found in string");
        assert_eq!(failure.chain().count(), 3);
        assert!(failure.source().unwrap().is::<Says>());
        let printed = format!("{failure:?}");
        assert!(printed.contains("kind: Handler") && printed.contains("error: Says("), "{printed}");
    }

    #[test]
    fn panics_keep_their_message() {
        for payload in [
            Box::new("dropped a glass") as Box<dyn Any + Send>,
            Box::new("dropped a glass".to_owned()) as Box<dyn Any + Send>,
        ] {
            assert_eq!(Failure::panicked(payload).to_string(), "the handler panicked: dropped a glass");
        }
        assert!(Failure::panicked(Box::new(7)).to_string().contains("without a message"));
    }
}
