//! `klamm dlt`: looks into dead-letter topics, sends letters back to work, parks and purges them. What it does, the
//! library does: `klamm::dead_letters`.
//!
//! ```text
//! topic.rs    which topic is meant, as options
//! filter.rs   which letters are meant, as options
//! list.rs     what there is: by cause, or letter by letter
//! show.rs     letters as a whole
//! replay.rs   back to work, or to a parking topic
//! purge.rs    deleted for good
//! ```

mod filter;
mod list;
mod purge;
mod replay;
mod show;
mod topic;

use clap::Subcommand;

use crate::error::CliError;

#[derive(Debug, Subcommand)]
pub(crate) enum DltCommand {
    /// Counts dead letters by where they came from and why, or lists them one by one
    List(Box<list::ListArgs>),
    /// Shows letters as a whole: origin, error, headers, key and value
    Show(show::ShowArgs),
    /// Sends letters back to where they came from, or to another topic; goes on where it was interrupted
    Replay(Box<replay::ReplayArgs>),
    /// Copies letters as they are to a parking topic; then they count as done and are not replayed any more
    Park(Box<replay::ParkArgs>),
    /// Deletes letters: those that are replayed or parked, or what options say
    Purge(purge::PurgeArgs),
}

pub(crate) async fn run(command: DltCommand) -> Result<(), CliError> {
    match command {
        DltCommand::List(args) => list::run(*args).await,
        DltCommand::Show(args) => show::run(args).await,
        DltCommand::Replay(args) => replay::run(*args).await,
        DltCommand::Park(args) => replay::park(*args).await,
        DltCommand::Purge(args) => purge::run(args).await,
    }
}
