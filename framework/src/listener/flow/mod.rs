//! Everything that a listener decides without waiting: which record is whose turn, how much may be in hand, what may be
//! committed. Pure; the container feeds it and does what it says.
//!
//! ```text
//! lanes.rs    the records of one partition, in the order in which they wait for one another
//! timers.rs   what waits for a time
//! part.rs     one partition: ledger, lanes, what holds it
//! budget.rs   how much may be in hand
//! gathering.rs what gathers for a batch across partitions
//! record.rs   what flows
//! state.rs    Flow: all partitions
//! arriving.rs Flow: records come, lanes wait
//! working.rs  Flow: whose turn is next, and what becomes of what was worked on
//! holding.rs  Flow: partitions come, are held, and go; what may be committed
//! viewing.rs  Flow: how partitions stand
//! ```
//!
//! # What must hold
//!
//! - A commit never passes the lowest unfinished record of its partition.
//! - Records of one lane are in work one after the other, in order, also while one of them is in retry.
//! - A partition never has more records in hand than its share of the budget. A stuck one keeps no other from its own.
//! - Wherever there is work that may be begun, and fewer workers than there may be, a worker is asked for.

mod arriving;
mod budget;
mod gathering;
mod holding;
mod lanes;
mod part;
mod record;
mod state;
#[cfg(test)]
mod tests;
mod timers;
mod viewing;
mod working;

pub(crate) use budget::Budget;
pub(crate) use holding::Safe;
pub(crate) use record::{Arrival, Item, PartId, Tell, Ticket};
pub(crate) use state::{Batching, Flow, Rules};
pub(crate) use timers::after;
pub(crate) use viewing::View;
pub(crate) use working::Run;
