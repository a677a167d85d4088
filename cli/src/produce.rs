//! `klamm produce`: every line of standard input becomes a record.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use clap::Args;
use klamm_client::{ProduceError, Record};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

use crate::connect::{AcksArg, ClientArgs, CompressionArg};
use crate::error::CliError;
use crate::input::{InputFormat, Lines};
use crate::output::{self, OutputFormat};
use crate::properties;

/// Bytes of standard input read at once.
const READ_BYTES: usize = 256 * 1024;
/// A longer line is not read: no broker takes a request of 100 MiB, which is less than this in base64.
const LONGEST_LINE_BYTES: usize = 256 * 1024 * 1024;

#[derive(Debug, Args)]
pub(crate) struct ProduceArgs {
    /// Topic to write to
    topic: String,
    /// Splits each line at its first occurrence into key and value; a line without it has no key
    #[arg(long, value_name = "S")]
    key_separator: Option<String>,
    /// How a line is read
    #[arg(long, value_enum, default_value_t)]
    input: InputFormat,
    /// Key of every record whose line has none
    #[arg(long, value_name = "K")]
    key: Option<String>,
    /// A key or value that is exactly this text is none: a value of none is a tombstone
    #[arg(long, value_name = "TEXT")]
    null_marker: Option<String>,
    /// Partition of every record [default: by the key, or in turns]
    #[arg(long, value_name = "P", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// Timestamp of every record that brings none, in milliseconds since 1970 [default: now]
    #[arg(long, value_name = "MS", allow_negative_numbers = true)]
    timestamp: Option<i64>,
    /// Header of every record; may be repeated
    #[arg(long, value_name = "k=v", value_parser = properties::key_value)]
    header: Vec<(String, String)>,
    /// When a record counts as written [default: all]
    #[arg(long, value_enum)]
    acks: Option<AcksArg>,
    /// How records are compressed [default: none]
    #[arg(long, value_name = "C", value_enum)]
    compression: Option<CompressionArg>,
    #[command(flatten)]
    client: ClientArgs,
}

pub(crate) async fn run(args: ProduceArgs) -> Result<(), CliError> {
    if args.input == InputFormat::Json && args.key_separator.is_some() {
        return Err(CliError::usage(
            "--key-separator is for lines of text; with --input json a record has its `key`",
        ));
    }
    let session = args.client.connect().await?;
    let mut builder = session.producer();
    if let Some(acks) = args.acks {
        builder = builder.acks(acks.into());
    }
    if let Some(compression) = args.compression {
        builder = builder.compression(compression.into());
    }
    let producer = builder.build()?;

    let lines = args.lines();

    let outcome = Arc::new(Outcome::default());
    let progress = output::progress(None);
    let mut input = BufReader::with_capacity(READ_BYTES, tokio::io::stdin());
    let mut number = 0_u64;
    let mut refused = Ok(());
    // After a failure the rest of the input is not read: what comes after the failed line would be out of place.
    while !outcome.has_failed() {
        // What was taken so far is sent and told of, whatever is wrong with what follows.
        let record = match next_line(&mut input, LONGEST_LINE_BYTES).await {
            Ok(None) => break,
            Ok(Some(line)) => lines.record(line),
            Err(wrong) => Err(wrong),
        };
        number += 1;
        let record = match record {
            Ok(record) => record,
            Err(wrong) => {
                refused = Err(CliError::failed(format!("line {number}: {wrong}")));
                break;
            }
        };
        let outcome = Arc::clone(&outcome);
        let taken = producer.send_with(record, move |result| outcome.note(number, result.map(drop))).await;
        if let Err(error) = taken {
            refused = Err(CliError::failed(format!("line {number}: {error}")));
            break;
        }
        progress.set_position(number);
    }
    // Its error is the first failure of a record, which the outcome holds with the line's number.
    let closed = producer.close().await;
    progress.finish_and_clear();

    let written = outcome.written.load(Ordering::Acquire);
    match args.client.output {
        OutputFormat::Json => output::json(&json!({ "topic": args.topic, "records": written }))?,
        OutputFormat::Table => output::note(&format!("{written} records written to {}", args.topic)),
    }
    outcome.into_result()?;
    refused?;
    Ok(closed?)
}

impl ProduceArgs {
    fn lines(&self) -> Lines {
        let mut template = Record::to(self.topic.as_str());
        for (name, value) in &self.header {
            template = template.header(name.as_str(), Bytes::copy_from_slice(value.as_bytes()));
        }
        template.key = self.key.clone().map(Bytes::from);
        template.partition = self.partition;
        template.timestamp_ms = self.timestamp;
        Lines {
            format: self.input,
            template,
            key_separator: self.key_separator.clone(),
            null_marker: self.null_marker.clone(),
        }
    }
}

/// What became of the records.
#[derive(Debug, Default)]
struct Outcome {
    written: AtomicU64,
    first_failure: Mutex<Option<(u64, ProduceError)>>,
}

impl Outcome {
    fn note(&self, line: u64, result: Result<(), ProduceError>) {
        match result {
            Ok(()) => {
                self.written.fetch_add(1, Ordering::Release);
            }
            Err(error) => {
                let mut first = self.first_failure.lock().unwrap_or_else(PoisonError::into_inner);
                if first.as_ref().is_none_or(|(earlier, _)| line < *earlier) {
                    *first = Some((line, error));
                }
            }
        }
    }

    fn has_failed(&self) -> bool {
        self.first_failure.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn into_result(self: Arc<Self>) -> Result<(), CliError> {
        match self.first_failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            None => Ok(()),
            Some((line, error)) => Err(CliError::failed(format!("line {line}: {error}"))),
        }
    }
}

/// The next line without its end; `None` after the last.
async fn next_line(
    input: &mut (impl AsyncBufReadExt + Unpin),
    longest_bytes: usize,
) -> Result<Option<Bytes>, String> {
    let mut line = Vec::new();
    // With its end, which does not count.
    let mut limited = input.take(longest_bytes as u64 + 1);
    let read = limited.read_until(b'\n', &mut line).await;
    if read.map_err(|error| format!("cannot read standard input: {error}"))? == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    if line.len() > longest_bytes {
        return Err(format!("it is longer than {longest_bytes} bytes"));
    }
    Ok(Some(line.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_taken_as_their_bytes() {
        let mut input: &[u8] = b"one\n\n\xff\r\nlast";
        let mut lines = Vec::new();
        while let Some(line) = next_line(&mut input, 5).await.unwrap() {
            lines.push(line);
        }
        assert_eq!(lines, [&b"one"[..], b"", b"\xff\r", b"last"]);
    }

    #[tokio::test]
    async fn a_line_without_end_is_given_up() {
        let mut input: &[u8] = b"12345\n123456\n";
        assert_eq!(next_line(&mut input, 5).await.unwrap().as_deref(), Some(&b"12345"[..]));
        assert_eq!(next_line(&mut input, 5).await.unwrap_err(), "it is longer than 5 bytes");
        let mut endless = BufReader::new(tokio::io::repeat(b'x'));
        assert!(next_line(&mut endless, 1_000_000).await.unwrap_err().contains("longer than 1000000"));
    }

    #[test]
    fn the_first_failed_line_is_told() {
        let outcome = Arc::new(Outcome::default());
        outcome.note(1, Ok(()));
        assert!(!outcome.has_failed());
        for line in [7, 3, 9] {
            outcome.note(line, Err(ProduceError::Closed { possibly_written: false }));
        }
        assert!(outcome.has_failed());
        assert!(outcome.into_result().unwrap_err().to_string().starts_with("line 3:"));
    }
}
