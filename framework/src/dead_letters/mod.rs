//! Dead letters as a tool: what is in a dead-letter topic, and where it goes from there. What `klamm dlt` does, as a
//! library.
//!
//! [`DeadLetters`] is one topic. A [`DeadLetter`] is a record of it with what its headers say, whether klamm's
//! listeners or spring-kafka wrote them. [`Replay`] sends letters back to where they came from, or parks them;
//! [`Purge`] deletes them.
//!
//! ```text
//! headers.rs      names and encodings; what a listener writes and what a replay strips   (pure)
//! letter.rs       a record with what its headers say                                     (pure)
//! filter.rs       which letters are meant                                                (pure)
//! summary.rs      how many, from where, why                                              (pure)
//! destination.rs  where a letter goes, and as what                                       (pure)
//! progress.rs     what is done, as a committed offset with its metadata                  (pure)
//! pace.rs         not more a second than asked for                                       (pure)
//! source.rs       the topic as it stands
//! scan.rs         reading up to an end
//! deliver.rs      sending, and noting as done
//! replay.rs       all of that together
//! purge.rs        deleting
//! letters.rs      `DeadLetters`: a face, nothing else
//! ```

mod deliver;
mod described;
mod destination;
mod error;
mod filter;
mod headers;
mod letter;
mod letters;
mod pace;
mod progress;
mod purge;
mod replay;
mod scan;
mod source;
mod summary;

pub use destination::Stays;
pub use error::DeadLetterError;
pub use filter::LetterFilter;
pub use headers::{Cause, Origin};
pub(crate) use headers::{Failed, OwnedHeaders, integer, of_failed};
pub use letter::{DeadLetter, HeaderText};
pub use letters::DeadLetters;
pub use purge::{Purge, PurgePlan};
pub use replay::{Replay, ReplayReport};
pub use summary::{CauseKey, Count, Summary};
