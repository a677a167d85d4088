//! `klamm log verify`.

use std::path::{Path, PathBuf};

use clap::Args;
use klamm_broker::inspect::{self, Partition};
use serde_json::{Value, json};

use crate::error::CliError;
use crate::output::{self, OutputFormat, Table};

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Data directories, or directories of partitions; of Klamm or of Apache Kafka, whose broker is not running
    #[arg(required = true, value_name = "DIR")]
    dirs: Vec<PathBuf>,
    /// How results are printed
    #[arg(long, value_enum, default_value_t)]
    output: OutputFormat,
}

pub(super) fn run(args: &VerifyArgs) -> Result<(), CliError> {
    let mut verified = Vec::new();
    for dir in &args.dirs {
        let found = inspect::partitions(dir).map_err(|error| unreadable(dir, &error))?;
        if found.is_empty() {
            return Err(CliError::usage(format!(
                "{} has no segments and no partitions: is it a data directory?",
                dir.display()
            )));
        }
        for partition in found {
            let looked_at = inspect::verify(&partition).map_err(|error| unreadable(&partition, &error))?;
            verified.push((partition, looked_at));
        }
    }
    let failed = verified.iter().filter(|(_, partition)| !partition.findings.is_empty()).count();
    match args.output {
        OutputFormat::Json => {
            output::json(&verified.iter().map(|(dir, partition)| as_json(dir, partition)).collect())?;
        }
        OutputFormat::Table => {
            table(&verified).print()?;
            for finding in verified.iter().flat_map(|(_, partition)| &partition.findings) {
                output::note(&format!("{}: {}", finding.file.display(), finding.what));
            }
        }
    }
    match failed {
        0 => Ok(()),
        failed => Err(CliError::Some { failed, of: verified.len() }),
    }
}

pub(super) fn unreadable(path: &Path, error: &std::io::Error) -> CliError {
    CliError::failed(format!("{} cannot be read: {error}", path.display()))
}

fn name(dir: &Path) -> String {
    dir.file_name().unwrap_or(dir.as_os_str()).to_string_lossy().into_owned()
}

fn table(verified: &[(PathBuf, Partition)]) -> Table {
    let heading = [
        "PARTITION",
        "SEGMENTS",
        "BATCHES",
        "RECORDS",
        "BYTES",
        "START",
        "END",
        "GAPS",
        "OPEN_TXN",
        "FINDINGS",
    ];
    let mut table = Table::new(heading);
    for (dir, partition) in verified {
        table.row([
            name(dir),
            partition.segments.to_string(),
            partition.batches.to_string(),
            partition.records.to_string(),
            partition.bytes.to_string(),
            partition.start_offset.to_string(),
            partition.end_offset.to_string(),
            partition.missing_offsets.to_string(),
            partition.open_transaction.map_or("-".to_owned(), |offset| offset.to_string()),
            partition.findings.len().to_string(),
        ]);
    }
    table
}

fn as_json(dir: &Path, partition: &Partition) -> Value {
    let findings = partition
        .findings
        .iter()
        .map(|finding| json!({ "file": finding.file.display().to_string(), "what": finding.what }));
    json!({
        "partition": name(dir), "directory": dir.display().to_string(), "segments": partition.segments,
        "batches": partition.batches, "records": partition.records, "bytes": partition.bytes,
        "start_offset": partition.start_offset, "end_offset": partition.end_offset,
        "missing_offsets": partition.missing_offsets, "open_transaction": partition.open_transaction,
        "findings": findings.collect::<Vec<_>>(),
    })
}
