//! What a panic of the user's says, once it is caught.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

#[cold]
pub(crate) fn text_of_panic(panic: Box<dyn Any + Send>) -> String {
    let text = panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str));
    let text = text.unwrap_or("no message").to_owned();
    // The payload is the user's, too, and its drop may be no better.
    if let Err(worse) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(worse);
    }
    text
}
