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

/// Something that follows stream time, and may have something to tell when that goes on without records.
pub(crate) trait FollowsTime {
    /// Takes note that stream time has come so far, and tells of nothing.
    fn note(&mut self, at_ms: i64);
    /// Stream time has come so far: tells what that closes.
    fn go_on(&mut self, context: &mut Context, at_ms: i64) -> Result<(), TaskError>;
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
