//! What the user sees meanwhile: a bar and a table on a terminal, a line a second elsewhere.

// This file's job is output.
#![allow(clippy::print_stdout)]

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::time::Instant;

use crate::gauges::Gauges;
use crate::table::Table;

const TERMINAL_INTERVAL: Duration = Duration::from_millis(200);
const LINE_INTERVAL: Duration = Duration::from_secs(1);
/// Words of the table that fit into a line.
const WORDS_IN_LINE: usize = 5;

/// Shows how it goes until it is dropped.
pub async fn show(gauges: &Gauges, table: &Table, total_bytes: Option<u64>) {
    if std::io::stderr().is_terminal() {
        bars(gauges, table, total_bytes).await;
    } else {
        lines(gauges, table).await;
    }
}

/// What to try while the broker goes on serving. Each line works when it is pasted.
pub fn what_next(bootstrap: &str, data_dir: &Path) {
    let data_dir = data_dir.display();
    println!(
        "
The broker serves until Ctrl-C. In another terminal, with any Kafka client:
  kcat -b {bootstrap} -C -t word-counts -e -q -K ' ' -s value='>q' | tail

After Ctrl-C:
  make quickstart ARGS=/usr/share/doc     # another folder, added to these counts
  rm -r '{data_dir}'     # to begin again: topics and counts lie there"
    );
}

/// A bar for the input and a row for each of the most frequent words.
async fn bars(gauges: &Gauges, table: &Table, total_bytes: Option<u64>) {
    let all = MultiProgress::new();
    let bar = all.add(match total_bytes {
        Some(bytes) => ProgressBar::new(bytes),
        None => ProgressBar::new_spinner(),
    });
    let template = match total_bytes {
        Some(_) => "{bar:30} {bytes}/{total_bytes} fed  {msg}",
        None => "{spinner} {bytes} fed  {msg}",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    let rows = all.add(ProgressBar::new_spinner());
    if let Ok(style) = ProgressStyle::with_template("{msg}") {
        rows.set_style(style);
    }
    let _clear = Clear(&all);
    let mut rate = Rate::new();
    let mut tick = tokio::time::interval(TERMINAL_INTERVAL);
    loop {
        tick.tick().await;
        let words = gauges.words();
        bar.set_position(gauges.bytes_fed());
        bar.set_message(format!("{words} words, {:.0}/s", rate.at(words)));
        let mut text = String::new();
        for (word, count) in table.top() {
            let _ = writeln!(text, "{count:>12}  {}", shortened(&word));
        }
        rows.set_message(text);
    }
}

/// Leaves a clean terminal behind.
struct Clear<'a>(&'a MultiProgress);

impl Drop for Clear<'_> {
    fn drop(&mut self) {
        // The terminal may be gone; the program goes on.
        let _ = self.0.clear();
    }
}

async fn lines(gauges: &Gauges, table: &Table) {
    let mut rate = Rate::new();
    let mut tick = tokio::time::interval(LINE_INTERVAL);
    tick.tick().await; // The first one comes at once, when there is nothing to tell yet.
    loop {
        tick.tick().await;
        let (lines, words) = (gauges.lines_fed(), gauges.words());
        let top = table.top().into_iter().take(WORDS_IN_LINE);
        let top: Vec<String> = top.map(|(word, count)| format!("{} {count}", shortened(&word))).collect();
        println!("{lines} lines fed, {words} words, {:.0} words/s; {}", rate.at(words), top.join(", "));
    }
}

fn shortened(word: &str) -> String {
    const CHARACTERS: usize = 40;
    match word.char_indices().nth(CHARACTERS) {
        Some((end, _)) => format!("{}...", &word[..end]),
        None => word.to_owned(),
    }
}

/// Words a second since the last look.
struct Rate {
    looked: Instant,
    words: u64,
}

impl Rate {
    fn new() -> Self {
        Self { looked: Instant::now(), words: 0 }
    }

    fn at(&mut self, words: u64) -> f64 {
        let seconds = self.looked.elapsed().as_secs_f64();
        let rate = words.saturating_sub(self.words) as f64 / seconds.max(1e-3);
        *self = Self { looked: Instant::now(), words };
        rate
    }
}
