//! What a panic of the user's is when it is caught: an error with its message.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A panic of what is the user's.
#[derive(Debug)]
pub(super) struct Panicked {
    pub(super) text: String,
    /// The operator that it came from, by its place in the graph, where one is known.
    pub(super) culprit: Option<usize>,
}

#[cold]
pub(super) fn text_of_panic(panic: Box<dyn Any + Send>) -> String {
    let text = panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str));
    let text = text.unwrap_or("no message").to_owned();
    // The payload is the user's, too, and its drop may be no better.
    if let Err(worse) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(worse);
    }
    text
}

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it panicked: {}", self.text)
    }
}

impl Error for Panicked {}
