//! Why one delivery of a record failed.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::listener::extract::Rejection;

/// Any error. What handlers return is turned into it, so `?` works on anything inside them.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Why one delivery of a record failed, as the [`FailurePolicy`](super::FailurePolicy) sees it and the
/// dead-letter headers tell it.
pub struct Failure {
    kind: FailureKind,
    /// There until the end, which takes it out: see [`let_go`].
    error: Option<Arc<dyn Error + Send + Sync>>,
    type_name: &'static str,
    /// The error with its sources in one line: asked for once, because what writes it is the user's and may panic.
    text: Box<str>,
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
    /// The handler's reply cannot be made or sent. The handler was done by then.
    Unanswered,
    /// What the handler sent in its transaction was refused, or the transaction was open for longer than it may be. The
    /// handler was done by then; nothing of it is visible.
    NotCommitted,
    /// The handler returned without error but dropped its [`Ack`](crate::Ack) unused.
    NotAcknowledged,
    /// The handler put the record off, by [`Ack::nack`](crate::Ack::nack). No policy is asked about this.
    PutOff,
}

impl FailureKind {
    /// In the order of their numbers.
    pub(crate) const ALL: [Self; 7] = [
        Self::Handler,
        Self::Rejected,
        Self::Panicked,
        Self::Unanswered,
        Self::NotCommitted,
        Self::NotAcknowledged,
        Self::PutOff,
    ];

    /// As it is called in metrics and spans.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Handler => "handler",
            Self::Rejected => "rejected",
            Self::Panicked => "panicked",
            Self::Unanswered => "unanswered",
            Self::NotCommitted => "not_committed",
            Self::NotAcknowledged => "not_acknowledged",
            Self::PutOff => "put_off",
        }
    }
}

impl Failure {
    /// The handler's error, remembering its concrete type for the dead-letter headers.
    pub(crate) fn handler<E: Into<BoxError> + 'static>(error: E) -> Self {
        Self::new(FailureKind::Handler, boxed(error), std::any::type_name::<E>())
    }

    pub(crate) fn rejected(rejection: Rejection) -> Self {
        Self::new(FailureKind::Rejected, rejection.into(), std::any::type_name::<Rejection>())
    }

    /// `payload` is what `catch_unwind` gives.
    pub(crate) fn panicked(payload: Box<dyn Any + Send>) -> Self {
        let message = match payload.downcast::<String>() {
            Ok(message) => *message,
            Err(payload) => match payload.downcast::<&'static str>() {
                Ok(message) => (*message).to_owned(),
                Err(payload) => {
                    let_go(payload);
                    "a panic without a message".to_owned()
                }
            },
        };
        Self::new(FailureKind::Panicked, Box::new(Panic(message)), "panic")
    }

    /// The handler returned a reply, and it cannot be made or sent.
    pub(crate) fn unanswered<E: Error + Send + Sync + 'static>(error: E) -> Self {
        Self::new(FailureKind::Unanswered, Box::new(error), std::any::type_name::<E>())
    }

    /// The handler is done, and its transaction cannot be committed for a reason of its own.
    pub(crate) fn not_committed<E: Error + Send + Sync + 'static>(error: E) -> Self {
        Self::new(FailureKind::NotCommitted, Box::new(error), std::any::type_name::<E>())
    }

    pub(crate) fn not_acknowledged() -> Self {
        Self::new(FailureKind::NotAcknowledged, Box::new(AckDropped), "klamm::Ack")
    }

    pub(crate) fn put_off(delay: Duration) -> Self {
        Self::new(FailureKind::PutOff, Box::new(PutOff(delay)), "klamm::Ack")
    }

    /// For how long the handler put the record off, if it did.
    pub(crate) fn delay(&self) -> Option<Duration> {
        self.find::<PutOff>().filter(|_| self.kind == FailureKind::PutOff).map(|put_off| put_off.0)
    }

    fn new(kind: FailureKind, error: BoxError, type_name: &'static str) -> Self {
        let text = catch_unwind(AssertUnwindSafe(|| in_one_line(&*error)));
        let text = text.unwrap_or_else(|_| format!("an error whose text panicked ({type_name})"));
        Self { kind, error: Some(error.into()), type_name, text: text.into() }
    }

    /// The same, with no more of its text than this, for where there is little room.
    pub(crate) fn shortened(&self, text_bytes_max: usize) -> Self {
        let text = self.text[..self.text.floor_char_boundary(text_bytes_max)].into();
        Self { kind: self.kind, error: self.error.clone(), type_name: self.type_name, text }
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
        std::iter::successors(self.source(), |error: &&(dyn Error + 'static)| (*error).source())
    }
}

/// The error itself, so that it is found by its type: `anyhow::Error` would hide what is in it.
fn boxed<E: Into<BoxError> + 'static>(error: E) -> BoxError {
    #[cfg(feature = "anyhow")]
    let error = {
        let mut error = Some(error);
        let any: &mut dyn Any = &mut error;
        if let Some(hiding) = any.downcast_mut::<Option<anyhow::Error>>().and_then(Option::take) {
            return hiding.reallocate_into_boxed_dyn_error_without_backtrace();
        }
        match error {
            Some(error) => error,
            None => return "an error that was taken".into(),
        }
    };
    error.into()
}

/// The error with its sources, without repeating what an error already says of its source.
fn in_one_line(error: &(dyn Error + 'static)) -> String {
    let mut said = error.to_string();
    let mut line = said.clone();
    for source in std::iter::successors(error.source(), |error: &&(dyn Error + 'static)| (*error).source()) {
        let next = source.to_string();
        if !said.contains(&next) {
            line.push_str(": ");
            line.push_str(&next);
        }
        said = next;
    }
    line
}

impl fmt::Display for Failure {
    /// The error with its sources, in one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the error's own: that may panic, too.
        f.debug_struct("Failure").field("kind", &self.kind).field("error", &self.text).finish_non_exhaustive()
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let error: &(dyn Error + 'static) = self.error.as_deref()?;
        Some(error)
    }
}

impl Drop for Failure {
    fn drop(&mut self) {
        self.error.take().into_iter().for_each(let_go);
    }
}

/// Drops what is the user's, which may panic. That is told by the panic hook and has no other consequences: a worker
/// that dies of it would take its listener along.
fn let_go<T>(of: T) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(of))) {
        // It may be no better.
        std::mem::forget(panic);
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

#[derive(Debug)]
struct PutOff(Duration);

impl fmt::Display for PutOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the handler put the record off for {:?}", self.0)
    }
}

impl Error for PutOff {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_found_by_their_numbers() {
        for (number, kind) in FailureKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, number, "{kind:?}");
        }
    }

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

    #[test]
    fn what_a_boxed_error_holds_is_found() {
        let number = || "x".parse::<i32>().unwrap_err();
        let boxed: BoxError = number().into();
        assert!(Failure::handler(boxed).find::<std::num::ParseIntError>().is_some());
        assert!(Failure::handler(crate::Error::from(number())).find::<std::num::ParseIntError>().is_some());
        #[cfg(feature = "anyhow")]
        {
            let failure = Failure::handler(anyhow::Error::from(Outer(number())));
            assert!(failure.find::<Outer>().is_some() && failure.find::<std::num::ParseIntError>().is_some());
            let failure = Failure::handler(anyhow::Error::from(Outer(number())).context("while booking"));
            assert!(failure.find::<Outer>().is_some());
            assert_eq!(failure.to_string(), "while booking: outer: invalid digit found in string");
        }
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
        assert!(
            printed.contains("kind: Handler") && printed.contains("error: \"cannot book: outer"),
            "{printed}"
        );
    }

    #[test]
    fn an_error_whose_text_panics_is_a_failure_like_any_other() {
        #[derive(Debug)]
        struct Broken;
        impl fmt::Display for Broken {
            fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
                panic!("no text");
            }
        }
        impl Error for Broken {}
        let failure = Failure::handler(Broken);
        assert!(
            failure.to_string().starts_with("an error whose text panicked (")
                && failure.find::<Broken>().is_some()
        );
        assert!(format!("{failure:?}").contains("Broken"));
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
