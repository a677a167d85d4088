//! The pipeline: lines to words to counts, and the counts as a file.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use klamm::Error;
use klamm::streams::{StreamsApp, StreamsBuilder, StreamsConfig, Topology};

use crate::feed;
use crate::gauges::Gauges;

/// The application's id: the group that reads `lines`, and the prefix of the topics that are its own.
const APPLICATION: &str = "quickstart";
pub const OUTPUT: &str = "word-counts";
const STORE: &str = "counts";

/// The words of a line: maximal runs of alphanumeric characters, lower-cased.
pub fn words(line: &str) -> Vec<String> {
    let runs = line.split(|character: char| !character.is_alphanumeric());
    runs.filter(|run| !run.is_empty()).map(str::to_lowercase).collect()
}

/// What is to be done, as data.
pub fn topology(gauges: Arc<Gauges>) -> klamm::Result<Topology> {
    let mut streams = StreamsBuilder::new();
    streams
        .stream::<Option<String>, String>(feed::TOPIC)
        .flat_map_values(move |line| gauges.counting(words(line)))
        .group_by(|_, word| word.clone())
        .count(STORE)
        .to_stream()
        .to(OUTPUT);
    Ok(streams.build()?)
}

/// Starts it, with its stores below `state_dir`.
pub async fn start(bootstrap: &str, state_dir: &Path, gauges: Arc<Gauges>) -> klamm::Result<StreamsApp> {
    let config = StreamsConfig::new(APPLICATION, bootstrap)
        .state_dir(state_dir)
        .threads(2)
        .exactly_once()
        .commit_interval(Duration::from_millis(500));
    Ok(topology(gauges)?.start(config).await?)
}

/// Every word with its count, by word.
pub async fn counts(streams: &StreamsApp) -> klamm::Result<Vec<(String, i64)>> {
    let mut counts = streams.store::<String, i64>(STORE)?.all().await?;
    counts.sort();
    Ok(counts)
}

/// Writes a line `word<TAB>count` for every word.
pub async fn write_counts(counts: &[(String, i64)], file: &Path) -> klamm::Result<()> {
    let text: String = counts.iter().map(|(word, count)| format!("{word}\t{count}\n")).collect();
    let written = tokio::fs::write(file, text).await;
    written.map_err(|error| Error::msg(format!("cannot write {}: {error}", file.display())))
}

#[cfg(test)]
mod tests {
    use klamm::streams::TopologyTestDriver;

    use super::*;

    #[test]
    fn words_are_runs_of_letters_and_digits() {
        assert_eq!(
            words("It's 2 o'clock, Ümläut-WORD_x"),
            ["it", "s", "2", "o", "clock", "ümläut", "word", "x"]
        );
        assert_eq!(words("  \t--- "), Vec::<String>::new());
    }

    #[test]
    fn the_pipeline_counts() {
        let driver = TopologyTestDriver::new(topology(Arc::default()).unwrap());
        let lines = driver.input::<Option<String>, String>(feed::TOPIC);
        let counts = driver.output::<String, i64>(OUTPUT);
        lines.pipe(None, "a B a").at(5);
        assert_eq!(counts.read_all(), [("a", 1), ("b", 1), ("a", 2)]);
    }
}
