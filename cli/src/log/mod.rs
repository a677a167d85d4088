//! `klamm log`: looks into a data directory, offline: what is in it, and whether it is sound.

mod dump;
mod verify;

use clap::Subcommand;

use crate::error::CliError;

#[derive(Debug, Subcommand)]
pub(crate) enum LogCommand {
    /// Prints the batches or records of a partition's directory, or what a file of it holds
    Dump(dump::DumpArgs),
    /// Reads all of a data directory, or of partitions, and says what is damaged; changes nothing
    Verify(verify::VerifyArgs),
}

pub(crate) fn run(command: &LogCommand) -> Result<(), CliError> {
    match command {
        LogCommand::Dump(args) => dump::run(args),
        LogCommand::Verify(args) => verify::run(args),
    }
}
