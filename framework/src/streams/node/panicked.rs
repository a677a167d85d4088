//! What a panic of the user's is when it is caught: an error with its message.

use std::error::Error;
use std::fmt;

/// A panic of what is the user's.
#[derive(Debug)]
pub(super) struct Panicked {
    pub(super) text: String,
    /// The operator that it came from, by its place in the graph, where one is known.
    pub(super) culprit: Option<usize>,
}

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it panicked: {}", self.text)
    }
}

impl Error for Panicked {}
