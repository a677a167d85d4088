//! `klamm log dump`: one line for each batch, record or entry; with `--output json` each is a JSON object.

use std::fmt::Write as _;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use klamm_broker::inspect::{self, BatchScan, FileKind, Found};
use klamm_protocol::records::{BatchHeader, ControlRecord, RecordBatch, RecordView};
use serde_json::Value;

use super::verify::unreadable;
use crate::error::CliError;
use crate::format::bytes_field;
use crate::output::OutputFormat;

/// Into how much a batch may decompress.
const DECOMPRESSED_BYTES_MAX: usize = 1 << 30;

#[derive(Debug, Args)]
pub(crate) struct DumpArgs {
    /// A partition's directory, or one of its files: .log, .index, .timeindex, .txnindex, .snapshot
    path: PathBuf,
    /// Prints records, not only batches
    #[arg(long)]
    records: bool,
    /// Begins with the batch or record that has this offset, or the next
    #[arg(long, value_name = "OFFSET", default_value_t = 0)]
    from: i64,
    /// Ends after so many lines
    #[arg(long, value_name = "N", default_value_t = u64::MAX, hide_default_value = true)]
    max: u64,
    /// How each line is printed
    #[arg(long, value_enum, default_value_t)]
    output: OutputFormat,
}

/// A line: the same fields, for people in this order, or for programs.
type Line = Vec<(String, Value)>;

fn line<const N: usize>(fields: [(&str, Value); N]) -> Line {
    fields.map(|(name, value)| (name.to_owned(), value)).into()
}

pub(super) fn run(args: &DumpArgs) -> Result<(), CliError> {
    let mut printer = Printer {
        out: BufWriter::new(io::stdout().lock()),
        left: args.max,
        output: args.output,
        damaged: None,
    };
    for file in files(&args.path)? {
        if !printer.file(&file, args)? {
            break;
        }
    }
    printer.out.flush()?;
    printer.damaged.map_or(Ok(()), |what| Err(CliError::failed(what)))
}

/// The segments of a directory, or the one file.
fn files(path: &Path) -> Result<Vec<PathBuf>, CliError> {
    if FileKind::of(path).is_some() && !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let segments = inspect::segments(path).map_err(|error| unreadable(path, &error))?;
    match segments.is_empty() {
        false => Ok(segments),
        true => Err(CliError::usage(format!(
            "{} has no segments: give a partition's directory or one of its files",
            path.display()
        ))),
    }
}

struct Printer<W: Write> {
    out: W,
    left: u64,
    output: OutputFormat,
    damaged: Option<String>,
}

impl<W: Write> Printer<W> {
    /// Prints what is in a file; says whether more may be printed.
    fn file(&mut self, path: &Path, args: &DumpArgs) -> Result<bool, CliError> {
        let cannot = |error: io::Error| unreadable(path, &error);
        let lines: Vec<Line> = match FileKind::of(path) {
            Some(FileKind::Records) | None => return self.segment(path, args),
            Some(FileKind::BatchIndex) => {
                let entries = inspect::batch_index(path).map_err(cannot)?.into_iter();
                entries
                    .map(|entry| {
                        line([("offset", entry.last_offset.into()), ("position", entry.position.into())])
                    })
                    .collect()
            }
            Some(FileKind::TimeIndex) => {
                let entries = inspect::time_index(path).map_err(cannot)?.into_iter();
                entries
                    .map(|entry| {
                        line([("timestamp_ms", entry.timestamp_ms.into()), ("offset", entry.offset.into())])
                    })
                    .collect()
            }
            Some(FileKind::TransactionIndex) => {
                let entries = inspect::aborted_transactions(path).map_err(cannot)?;
                entries.iter().map(aborted).collect()
            }
            Some(FileKind::Producers) => {
                inspect::producers(path).map_err(cannot)?.iter().map(producer).collect()
            }
        };
        for line in &lines {
            if !self.line(line)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn segment(&mut self, path: &Path, args: &DumpArgs) -> Result<bool, CliError> {
        let cannot = |error: io::Error| unreadable(path, &error);
        for found in BatchScan::open(path).map_err(cannot)? {
            match found.map_err(cannot)? {
                Found::Damage { position, what, rest_bytes } => {
                    self.damaged = Some(format!(
                        "{}: at position {position}, {rest_bytes} bytes before the end: {what}",
                        path.display()
                    ));
                    return Ok(true);
                }
                Found::Batch { batch, .. } if batch.header().last_offset() < args.from => {}
                Found::Batch { position, batch } => {
                    let more = match args.records {
                        true => self.records(path, &batch, args.from)?,
                        false => self.line(&batch_line(position, &batch))?,
                    };
                    if !more {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }

    fn records(&mut self, path: &Path, batch: &RecordBatch, from: i64) -> Result<bool, CliError> {
        let header = batch.header();
        let wrong = |what: String| {
            let offset = header.base_offset;
            CliError::failed(format!("{}: the batch at offset {offset}: {what}", path.display()))
        };
        let records = batch.records(DECOMPRESSED_BYTES_MAX).map_err(|error| wrong(error.to_string()))?;
        for record in records.iter() {
            let record = record.map_err(|error| wrong(error.to_string()))?;
            if header.base_offset + i64::from(record.offset_delta) < from {
                continue;
            }
            if !self.line(&record_line(header, &record))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Says whether more may follow.
    fn line(&mut self, line: &Line) -> Result<bool, CliError> {
        if self.left == 0 {
            return Ok(false);
        }
        self.left -= 1;
        match self.output {
            OutputFormat::Json => {
                let fields = line.iter().cloned();
                writeln!(self.out, "{}", Value::Object(fields.collect()))?;
            }
            OutputFormat::Table => writeln!(self.out, "{}", words(line))?,
        }
        Ok(self.left > 0)
    }
}

/// `name=value` for all that is there; text is quoted.
fn words(line: &Line) -> String {
    let mut text = String::new();
    for (name, value) in line.iter().filter(|(_, value)| !matches!(value, Value::Null | Value::Bool(false))) {
        let space = if text.is_empty() { "" } else { " " };
        // Writing to a String cannot fail.
        let _ = match value {
            Value::Bool(_) => write!(text, "{space}{name}"),
            _ => write!(text, "{space}{name}={value}"),
        };
    }
    text
}

fn batch_line(position: u64, batch: &RecordBatch) -> Line {
    let header = batch.header();
    let of_producer = |value: Value| if header.has_producer_id() { value } else { Value::Null };
    let codec = header.compression().map(|codec| format!("{codec:?}").to_lowercase());
    line([
        ("offset", header.base_offset.into()),
        ("last_offset", header.last_offset().into()),
        ("records", header.record_count.into()),
        ("position", position.into()),
        ("bytes", header.total_len().into()),
        ("timestamp_ms", header.max_timestamp.into()),
        ("compression", codec.unwrap_or_else(|_| "unknown".to_owned()).into()),
        ("leader_epoch", header.partition_leader_epoch.into()),
        ("producer_id", of_producer(header.producer_id.into())),
        ("producer_epoch", of_producer(header.producer_epoch.into())),
        ("sequence", of_producer(header.base_sequence.into())),
        ("transactional", header.is_transactional().into()),
        ("control", header.is_control().into()),
        ("delete_horizon", header.has_delete_horizon().into()),
        ("log_append_time", header.log_append_time().is_some().into()),
    ])
}

fn record_line(header: &BatchHeader, record: &RecordView<'_>) -> Line {
    let offset = header.base_offset + i64::from(record.offset_delta);
    let mut fields = line([("offset", offset.into()), ("timestamp_ms", record.timestamp(header).into())]);
    if header.is_control() {
        let kind = match ControlRecord::parse(record.key, record.value) {
            Ok(ControlRecord::EndTxn(marker)) => if marker.committed { "commit" } else { "abort" }.to_owned(),
            Ok(ControlRecord::Other { kind }) => kind.to_string(),
            Err(error) => error.to_string(),
        };
        fields.extend(line([("control", kind.into()), ("producer_id", header.producer_id.into())]));
        return fields;
    }
    fields.extend([bytes_field("key", record.key), bytes_field("value", record.value)]);
    // A header's key is text, or between producer and consumer.
    let headers = record.headers().flatten().map(|(name, value)| {
        let fields = [("name".to_owned(), name.into()), bytes_field("value", value)];
        Value::Object(fields.into_iter().collect())
    });
    let headers: Vec<Value> = headers.collect();
    if !headers.is_empty() {
        fields.push(("headers".to_owned(), headers.into()));
    }
    fields
}

fn aborted(entry: &inspect::AbortedTransaction) -> Line {
    line([
        ("producer_id", entry.producer_id.into()),
        ("first_offset", entry.first_offset.into()),
        ("last_offset", entry.last_offset.into()),
        ("last_stable_offset", entry.last_stable_offset.into()),
    ])
}

fn producer(entry: &inspect::ProducerEntry) -> Line {
    line([
        ("producer_id", entry.producer_id.into()),
        ("producer_epoch", entry.producer_epoch.into()),
        ("last_sequence", entry.last_sequence.into()),
        ("last_offset", entry.last_offset.into()),
        ("last_timestamp_ms", entry.last_timestamp_ms.into()),
        ("coordinator_epoch", entry.coordinator_epoch.into()),
        ("transaction_start", entry.transaction_start.into()),
    ])
}
