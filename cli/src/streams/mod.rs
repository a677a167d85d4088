//! `klamm streams`: what a streams application is made of, and how it begins again.
//!
//! ```text
//! describe.rs  the verb describe: of a document that the application printed, or of what a cluster shows
//! reset.rs     the verb reset
//! internal.rs  which topics are an application's own   (pure)
//! ```

mod describe;
mod internal;
mod reset;

use clap::Subcommand;

use crate::error::CliError;

#[derive(Debug, Subcommand)]
pub(crate) enum StreamsCommand {
    /// Describes an application: its topology from a document, or its group and topics on a cluster
    Describe(describe::DescribeArgs),
    /// Lets an application without instances begin again: input topics are sought, its own topics deleted
    Reset(Box<reset::ResetArgs>),
}

pub(crate) async fn run(command: StreamsCommand) -> Result<(), CliError> {
    match command {
        StreamsCommand::Describe(args) => describe::run(args).await,
        StreamsCommand::Reset(args) => reset::run(*args).await,
    }
}
