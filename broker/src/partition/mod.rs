//! A partition: its log, the state of its producers, its leader epoch and its high watermark; and
//! the manager of all of them.
//!
//! ```text
//! manager         LogManager: log directories, load, create, delete, housekeeping, shutdown
//! log_dir         one log directory: its lock, identity, checkpoints and partitions
//! handle          Partition: opening, offsets, failure            append, read   what requests do with it
//! rules           which batches are taken, and which records are to blame; pure
//! flush           group commit: one flusher for each log directory
//! producer_state  who wrote what last: duplicates, gaps, epochs, open transactions; pure
//! snapshot        the producer state in a file                    error          what can go wrong
//! ```
//!
//! With one replica the in-sync set is that replica, and the high watermark is the end of what is durable. Nothing here
//! knows requests, connections or topics' settings.

mod append;
mod error;
mod flush;
mod handle;
mod log_dir;
mod manager;
mod producer_state;
mod read;
mod rules;
mod snapshot;

pub use append::Appended;
pub use error::{AppendError, ReadError};
pub use handle::Partition;
pub use manager::{LogManager, LogManagerOptions};
pub use producer_state::{ActiveProducer, ProducerError};
pub use read::{Isolation, LogRead};
pub use rules::{AppendOrigin, RefusedRecord, RefusedRecords};
