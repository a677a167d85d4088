//! The transaction coordinator: who may write under a transactional id, and how its transactions end.
//!
//! ```text
//! service      what requests ask
//! markers      how what is decided gets into the partitions
//! transaction  one transactional id: its states, and what each call makes of them    (pure)
//! coordinator  all ids of one partition: timers, markers to be written, waiting calls (pure)
//! machine      the same as the coordinator runtime knows it                           (pure)
//! calls        what goes in and what comes out
//! records      the records of `__transaction_state`, in Kafka's layout
//! ```

mod calls;
mod coordinator;
mod machine;
mod markers;
mod records;
mod service;
#[cfg(test)]
mod tests;
mod transaction;

pub(crate) use calls::{AddPartitions, Description, EndTransaction, InitProducer};
pub(crate) use service::{TRANSACTIONS_TOPIC, TransactionService};
pub(crate) use transaction::{Partitions, ProducerIdAndEpoch, State, TransactionVersion};
