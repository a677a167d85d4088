//! What a task calls without a record: at its commits, and when a clock says so.

use super::Context;
use crate::streams::error::TaskError;

/// A processor that holds updates back until the commit.
pub(crate) trait Flush {
    /// Forwards what has been held back.
    fn flush(&mut self, context: &mut Context) -> Result<(), TaskError>;
}

/// Something that is called when a clock says so.
pub(crate) trait Punctuates {
    /// Called once, before anything else.
    fn init(&mut self, context: &mut Context) -> Result<(), TaskError>;
    /// Calls what is due at the context's stream time.
    fn on_stream_time(&mut self, context: &mut Context) -> Result<(), TaskError>;
    /// Calls what is due at the context's wall clock.
    fn on_wall_clock(&mut self, context: &mut Context) -> Result<(), TaskError>;
    /// When the wall clock is due next.
    fn next_wall_clock_ms(&self) -> Option<i64>;
    fn close(&mut self);
}
