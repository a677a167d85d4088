//! A partition: its log, the state of its producers, its leader epoch and its high watermark; and
//! the manager of all of them.
//!
//! ```text
//! manager         LogManager: log directories, load, create, delete, housekeeping, shutdown
//! log_dir         one log directory: its lock, identity, checkpoints, partitions and disk threads
//! handle          Partition: what is known of it without the disk, settings, failure
//! open            how it comes to be          upkeep    retention, snapshots, truncation, closing
//! compaction      one log is compacted, in steps (compaction_steps)
//! cleaner         which one, when and how fast            resting   which failed and wait (pure)
//! reopen          what could not be opened is opened later, by itself
//! loading         what a start knows of producers, and of transactions that were aborted
//! append, read    what requests do with it    stored    what was read, on its way to the socket
//! cleaned_to      up to where logs are compacted         begin_at  where they begin (`DeleteRecords`)
//! log_starts      who waits for that to be written down                            (pure)
//! isolation       how far readers see
//! job             what waits for the disk: one thing after the other
//! flush           group commit: each partition for itself
//! watchers        who waits for records, and is woken when enough may have come
//! writer          the log and its producers: the side that changes, on disk threads
//! marks           what is published of it: ends, high watermark, transactions      (pure)
//! tail            where the last batches lie                                       (pure)
//! batch           a batch on its way in: checked, stamped                          (pure)
//! marker          the end of a transaction, and who may begin one after it         (pure)
//! rules           which batches are taken, and which records are to blame          (pure)
//! producer_state  who wrote what last: duplicates, gaps, epochs, the limit         (pure)
//! layered_map     a map that can be looked at while it changes                     (pure)
//! transactions    where readers of committed records stop                          (pure)
//! aborted         which transactions they leave out, at the end of the log         (pure)
//! snapshot        the producer state in a file            snapshots  when it is written
//! kept_snapshots  which of those files are needed                                 (pure)
//! error           what can go wrong                       appending  an append under way, for who asked
//! ```
//!
//! With one replica the in-sync set is that replica, and the high watermark is the end of what is durable. Nothing here
//! knows requests, connections or topics' settings.
//!
#![doc = include_str!("appending.md")]

mod aborted;
mod append;
mod appending;
mod batch;
mod begin_at;
mod cleaned_to;
mod cleaner;
mod compaction;
mod compaction_steps;
mod dir_health;
mod directories;
mod error;
mod flush;
mod flush_queue;
mod handle;
mod isolation;
mod job;
mod kept_snapshots;
mod layered_map;
mod loading;
mod log_dir;
mod log_starts;
mod manager;
mod marker;
mod marks;
mod open;
mod opening;
mod options;
mod producer_state;
mod read;
mod recompress;
mod reopen;
mod reserve;
mod resting;
mod rules;
mod snapshot;
mod snapshots;
mod stored;
mod tail;
mod transactions;
mod trash;
mod upkeep;
mod watchers;
mod writer;

pub use appending::Appending;
pub use batch::Appended;
pub use cleaner::CleanerOptions;
pub(crate) use directories::{DirContents, DirReport};
pub use error::{AppendError, ProducerError, ReadError};
pub use handle::Partition;
pub use isolation::Isolation;
pub use manager::LogManager;
pub(crate) use manager::SHUTDOWN_LIMIT;
pub use marker::{Guard, Marker};
pub use options::LogManagerOptions;
pub(crate) use options::TopicSettings;
pub use producer_state::ActiveProducer;
pub use read::LogRead;
pub(crate) use read::Wanted;
pub use reserve::DiskReserve;
pub use rules::{AppendOrigin, RefusedRecord, RefusedRecords};
pub(crate) use snapshot::decode as decode_snapshot;
pub(crate) use stored::StoredRecords;
pub(crate) use watchers::{Waiter, Watching};
