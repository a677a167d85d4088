//! What a task calls without a record: at its commits, and when a clock says so.

use super::Context;
use crate::streams::error::TaskError;

/// A processor that holds updates back until the commit.
pub(crate) trait Flush {
    /// Forwards what has been held back.
    fn flush(&mut self, context: &mut Context) -> Result<(), TaskError>;
    /// How many rows are held back and can be [forwarded ahead](Self::flush_ahead).
    fn unsent(&self) -> usize {
        0
    }
    /// Forwards the oldest of it, `rows` at most, until no more than `keep` are held back.
    fn flush_ahead(&mut self, _context: &mut Context, _keep: usize, _rows: usize) -> Result<(), TaskError> {
        Ok(())
    }
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
