//! The container runs one listener: a poll loop that never waits for a handler, workers, commits, and an orderly end.
//!
//! ```text
//! running.rs      Container: start and stop
//! poll.rs         the loop that reads and has workers begun
//! assigning.rs    partitions that it names
//! obey.rs         commands: pause, seek, other topics
//! sought.rs       where partitions stand that were moved
//! worker.rs       takes records whose turn it is
//! call.rs         calls the handler with them
//! ack_call.rs     a call that acknowledges by hand
//! spans.rs        the span that this happens in
//! judge.rs        what becomes of what failed
//! unit.rs         a transactional listener's work: a record, several that share one, or a batch in a transaction
//! handling.rs     the handler at work in it
//! given_up.rs     dead letters and copies in it
//! transacted.rs   what is sent in it
//! conducting.rs   begins and commits it
//! concluding.rs   what becomes of its records
//! faults.rs       what it means that a step of it failed                             (pure)
//! transactions.rs where a partition's transactions are made
//! taking_over.rs  ends what the last owner of a partition left open
//! idle_offsets.rs offsets that no record takes along
//! outputs.rs      what must be acknowledged before a record is finished
//! output_stage.rs sends it
//! sending.rs      what to do when that fails                                         (pure)
//! dead_letter.rs  dead letters
//! retry_copies.rs copies in retry topics
//! commits.rs      requests for commits
//! commit_pace.rs  when finished records ask for one                                  (pure)
//! committing.rs   makes them
//! rebalance.rs    partitions come and go
//! drain.rs        the end
//! troubles.rs     what somebody has to see to
//! watching.rs     looks for topics that are missing
//! events.rs       what happens, as a stream
//! observed.rs     what is told of a running listener, and where
//! monitor.rs      looks at it now and then
//! item.rs         a record on its way
//! finishing.rs    its end
//! offsets.rs      what is committed of it
//! shared.rs       what all of these share, first of all the flow
//! ```

mod ack_call;
mod assigning;
mod bell;
mod call;
mod command;
mod commit_pace;
mod commits;
mod committing;
mod concluding;
mod conducting;
mod dead_letter;
mod drain;
mod events;
mod faults;
mod finishing;
mod given_up;
mod handle;
mod handling;
mod idle_offsets;
mod item;
mod judge;
mod letter_topics;
mod monitor;
mod obey;
mod observed;
mod offsets;
mod output_stage;
mod outputs;
mod poll;
mod rebalance;
mod retry_copies;
mod running;
mod sending;
mod shared;
mod sought;
mod spans;
mod start_offsets;
mod status;
mod taking_over;
mod transacted;
mod transactions;
mod troubles;
mod unit;
mod watching;
mod worker;

pub use command::{CommandError, SeekTo};
pub use events::{Event, Events, ListenerEvent, PauseReason};
pub(crate) use events::{EventHub, EventSource};
pub use handle::ListenerHandle;
pub(crate) use retry_copies::make_missing;
pub(crate) use running::{Container, NotStarted, Surroundings};
pub use status::{DrainReport, ListenerFailure, UnfinishedRecord};
pub use troubles::Trouble;
