//! `klamm completions` and `klamm man`: what a shell and `man` know of this command, made from the command line itself.

// The pages are files of the user's choosing; there is no data here that the disk seam would stand for.
#![allow(clippy::disallowed_methods)]

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Command};
use clap_complete::Shell;

use crate::error::CliError;

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell. For bash: klamm completions bash > /etc/bash_completion.d/klamm
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Folder to write the pages to; created if it does not exist
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

pub(crate) fn write_completions(args: &CompletionsArgs, mut command: Command) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "klamm", &mut script);
    let mut out = io::stdout().lock();
    out.write_all(&script)?;
    Ok(out.flush()?)
}

pub(crate) fn write_man_pages(args: &ManArgs, command: Command) -> Result<(), CliError> {
    let folder = &args.folder;
    let written = std::fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(command.disable_help_subcommand(true), folder));
    written
        .map_err(|error| CliError::failed(format!("cannot write the pages to {}: {error}", folder.display())))
}
