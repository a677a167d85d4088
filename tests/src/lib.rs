//! What end-to-end tests share: real processes with a lifetime, deadlines, and places on disk that vanish.

// This crate is test code: it starts processes and looks at their files, and a failure is a panic with what happened.
#![allow(clippy::disallowed_methods, clippy::panic)]

mod command;
mod process;
#[cfg(doctest)]
mod readmes;
mod seed;
mod skip;

pub use command::{Finished, repository, run, run_command, run_with_input};
pub use process::{BrokerProcess, Signal, build_programs, klamm_binary, signal};
pub use seed::seed;
pub use skip::skip;
