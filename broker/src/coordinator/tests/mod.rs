//! The runtime against a log that is slow, refuses, gets lost and loses power: the engine by the thousand and pure, the
//! shell on a paused clock.

mod engine;
mod registers;
mod shell;
pub(crate) mod world;
