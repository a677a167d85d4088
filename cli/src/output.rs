//! What the commands print: tables or JSON on standard output, words for people on standard error.

// This file's job is output; everywhere else printing is a mistake.
#![allow(clippy::print_stderr)]

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::error::CliError;

/// How results are written to standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum OutputFormat {
    /// Aligned columns under a heading, for people.
    #[default]
    Table,
    /// One JSON document, for programs.
    Json,
}

/// Says why the command failed and gives its exit code.
pub(crate) fn fail(error: &CliError) -> ExitCode {
    if !matches!(error, CliError::BrokenPipe) {
        note(&format!("error: {error}"));
    }
    ExitCode::from(error.exit_code())
}

/// A line for people, on standard error.
pub(crate) fn note(line: &str) {
    // Standard error may be closed; that must not end the command.
    let _ = writeln!(io::stderr(), "{line}");
}

/// Writes one document as JSON, with a line end.
pub(crate) fn json(document: &Value) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, document).map_err(io::Error::from)?;
    writeln!(out)?;
    Ok(out.flush()?)
}

/// A line of data on standard output, at once.
pub(crate) fn line(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}

/// Rows under a heading, in columns as wide as their widest cell. Columns of numbers are aligned to the right.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new<const N: usize>(heading: [&str; N]) -> Self {
        Self { rows: vec![heading.map(str::to_owned).to_vec()] }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.to_vec());
    }

    pub(crate) fn print(&self) -> Result<(), CliError> {
        let mut out = io::stdout().lock();
        out.write_all(self.render().as_bytes())?;
        Ok(out.flush()?)
    }

    pub(crate) fn render(&self) -> String {
        let columns = self.rows.first().map_or(0, Vec::len);
        let widths: Vec<usize> = (0..columns)
            .map(|column| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
            .collect();
        let right: Vec<bool> = (0..columns).map(|column| self.is_numeric(column)).collect();
        let mut text = String::new();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).zip(&right).map(|((cell, width), right)| match right {
                true => format!("{cell:>width$}"),
                false => format!("{cell:<width$}"),
            });
            text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
            text.push('\n');
        }
        text
    }

    fn is_numeric(&self, column: usize) -> bool {
        self.rows.iter().skip(1).all(|row| row[column] == "-" || row[column].parse::<f64>().is_ok())
    }
}

/// A line on standard error that tells how far a long command is; nothing at all where nobody watches.
pub(crate) fn progress(total: Option<u64>) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = match total {
        Some(total) => ProgressBar::new(total),
        None => ProgressBar::new_spinner(),
    };
    let template = match total {
        Some(_) => "{bar:30} {human_pos}/{human_len} records, {per_sec}",
        None => "{spinner} {human_pos} records, {per_sec}",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(["TOPIC", "LAG"]);
        table.row(["a-long-name".to_owned(), "5".to_owned()]);
        table.row(["b".to_owned(), "-".to_owned()]);
        table.row(["ä".to_owned(), "12345".to_owned()]);
        assert_eq!(
            table.render(),
            "TOPIC          LAG\na-long-name      5\nb                -\nä            12345\n"
        );
    }

    #[test]
    fn a_table_without_rows_is_its_heading() {
        assert_eq!(Table::new(["A", "B"]).render(), "A  B\n");
    }
}
