//! Which instance of an application runs which task, and which holds a standby of it.
//!
//! - `plan`: the decision, `balance` and `standbys` its parts; `members`: what it is made of. Pure.
//! - `properties`: what holds of it, whatever comes.
//! - `wire`: what members tell their leader, and it them.
//! - `sticky`: the assignor that a member offers its group.

mod balance;
mod members;
mod plan;
#[cfg(test)]
mod properties;
mod standbys;
mod sticky;
mod wire;

pub(super) use members::Rules;
pub(super) use sticky::{StickyTasks, names_of_tasks};
pub(super) use wire::{HostTasks, Orders, Told};
