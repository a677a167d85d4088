//! `DeadLetters`: one dead-letter topic, and what can be done with what is in it.

use std::ops::ControlFlow;
use std::sync::Arc;

use klamm_client::Client;

use super::destination::Destination;
use super::error::DeadLetterError;
use super::filter::LetterFilter;
use super::letter::DeadLetter;
use super::purge::Purge;
use super::replay::Replay;
use super::source::Source;
use super::summary::Summary;

/// What dead-letter topics end in: ours and spring-kafka's, and what spring-kafka used before 3.3.
const SUFFIXES: [&str; 2] = ["-dlt", ".DLT"];
/// What the name of a group begins with whose offsets say what is replayed.
const GROUP_PREFIX: &str = "klamm-dlt-";

/// One dead-letter topic, and what can be done with what is in it: counted, looked at, replayed, parked, purged.
///
/// ```no_run
/// use klamm::dead_letters::{DeadLetters, LetterFilter};
///
/// # async fn f(client: klamm::client::Client) -> klamm::Result<()> {
/// let letters = DeadLetters::new(&client, "orders-dlt");
/// let timeouts = LetterFilter::new().error("timeout");
/// println!("{} timed out", letters.summary(&timeouts).await?.letters.letters);
/// let report = letters.replay().only(timeouts).per_second(50.0).run().await?; // each to where it came from
/// println!("{} went back", report.sent);
/// letters.park("orders-parked").run().await?; // what is left
/// # Ok(()) }
/// ```
///
/// What is replayed or parked stays in the topic until it is [purged](Self::purge) or retention takes it; the
/// committed offsets of a group say which letters those are, so that the next replay begins behind them.
#[derive(Debug, Clone)]
pub struct DeadLetters {
    source: Source,
}

impl DeadLetters {
    /// The letters of a topic.
    pub fn new(client: &Client, topic: impl Into<Arc<str>>) -> Self {
        let topic = topic.into();
        let group = format!("{GROUP_PREFIX}{topic}").into();
        Self { source: Source { client: client.clone(), topic, group } }
    }

    /// The group whose committed offsets say what is replayed and parked. Default `klamm-dlt-<topic>`. It must not
    /// have members.
    #[must_use]
    pub fn group(mut self, group: impl Into<Arc<str>>) -> Self {
        self.source.group = group.into();
        self
    }

    /// The topics of a cluster that are dead-letter topics by their names: they end in `-dlt` or `.DLT`.
    ///
    /// # Errors
    /// The cluster does not answer.
    pub async fn topics(client: &Client) -> Result<Vec<Arc<str>>, DeadLetterError> {
        let listed = client.admin().list_topics().await?;
        let names = listed.into_iter().map(|topic| topic.name);
        let mut topics: Vec<_> =
            names.filter(|name| SUFFIXES.iter().any(|suffix| name.ends_with(suffix))).collect();
        topics.sort();
        Ok(topics)
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        &self.source.topic
    }

    /// Counts letters, by where they came from and why. Reads the whole topic.
    ///
    /// # Errors
    /// The topic does not exist, or cannot be read.
    pub async fn summary(&self, filter: &LetterFilter) -> Result<Summary, DeadLetterError> {
        let mut summary = Summary::default();
        self.each(filter, |letter, is_open| {
            summary.add(&letter, is_open);
            ControlFlow::Continue(())
        })
        .await?;
        Ok(summary)
    }

    /// Looks at letters, one after the other, until `look` has enough; in each partition in order. It is told of each
    /// whether it is still open: neither replayed nor parked. A letter that comes in meanwhile is not looked at.
    ///
    /// # Errors
    /// The topic does not exist, or cannot be read.
    pub async fn each(
        &self,
        filter: &LetterFilter,
        mut look: impl FnMut(DeadLetter, bool) -> ControlFlow<()>,
    ) -> Result<(), DeadLetterError> {
        let (mut scan, standing) = self.source.open(false).await?;
        scan.read(standing.bounds)?;
        'pieces: while let Some(piece) = scan.next().await? {
            for record in piece.records {
                let letter = DeadLetter::new(record);
                let is_done = standing
                    .progress
                    .get(&piece.at)
                    .is_some_and(|progress| progress.is_done(letter.record.offset));
                if filter.matches(&letter) && look(letter, !is_done).is_break() {
                    break 'pieces;
                }
            }
        }
        scan.close().await;
        Ok(())
    }

    /// The letter at an offset of the topic; none if there is none (any more).
    ///
    /// # Errors
    /// The topic does not exist, has no such partition, or cannot be read.
    pub async fn at(&self, partition: i32, offset: i64) -> Result<Option<DeadLetter>, DeadLetterError> {
        let (mut scan, standing) = self.source.open(false).await?;
        let at = self.source.partition(&standing, partition)?;
        let (begin, end) = standing.bounds.get(&at).copied().unwrap_or_default();
        if !(begin..end).contains(&offset) {
            return Ok(None);
        }
        scan.read([(at, (offset, offset + 1))].into())?;
        let mut found = None;
        while let Some(piece) = scan.next().await? {
            found = found.or(piece.records.into_iter().next());
        }
        scan.close().await;
        Ok(found.map(DeadLetter::new))
    }

    /// Sends letters back to work: each to the topic and partition it came from, unless another topic is named.
    pub fn replay(&self) -> Replay {
        Replay::new(self.source.clone(), Destination::Origin)
    }

    /// Moves letters out of the way, as they are, to a topic that is kept longer or looked at by people.
    pub fn park(&self, topic: impl Into<Arc<str>>) -> Replay {
        Replay::new(self.source.clone(), Destination::Parking(topic.into()))
    }

    /// Deletes letters: what a broker deletes is everything below an offset.
    pub fn purge(&self) -> Purge {
        Purge::new(self.source.clone())
    }
}
