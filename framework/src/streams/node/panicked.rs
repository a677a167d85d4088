//! What a panic of the user's is when it is caught: an error with its message.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A panic of what is the user's.
#[derive(Debug)]
pub(super) struct Panicked(String);

impl Panicked {
    pub(super) fn of(panic: Box<dyn Any + Send>) -> Self {
        let text =
            panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str));
        let text = text.unwrap_or("no message").to_owned();
        // The payload is the user's, too, and its drop may be no better.
        if let Err(worse) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
            std::mem::forget(worse);
        }
        Self(text)
    }
}

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it panicked: {}", self.0)
    }
}

impl Error for Panicked {}
