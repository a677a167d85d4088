//! `Purge`: deleting letters.

use std::collections::{BTreeMap, HashMap};

use klamm_client::admin::OffsetSpec;
use klamm_client::{TopicPartition, Uuid};

use super::described::is_still;
use super::error::DeadLetterError;
use super::scan::Ranges;
use super::source::{Source, Standing};

/// Which letters are deleted; made by [`DeadLetters::purge`](super::DeadLetters::purge). Without a word it is those
/// that are replayed or parked,
/// up to the first of each partition that is not.
#[derive(Debug, Clone)]
#[must_use = "nothing is deleted before `plan` is executed"]
pub struct Purge {
    source: Source,
    up_to: UpTo,
    partition: Option<i32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UpTo {
    Done,
    Offset(i64),
    Time(i64),
    End,
}

impl Purge {
    pub(super) fn new(source: Source) -> Self {
        Self { source, up_to: UpTo::Done, partition: None }
    }

    /// Only of this partition.
    pub fn partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// What lies below this offset, replayed or not.
    pub fn below(mut self, offset: i64) -> Self {
        self.up_to = UpTo::Offset(offset);
        self
    }

    /// What lies below the first letter of this time or later (milliseconds since the Unix epoch), replayed or not.
    pub fn before_ms(mut self, time_ms: i64) -> Self {
        self.up_to = UpTo::Time(time_ms);
        self
    }

    /// Everything that is there when the plan is made, replayed or not.
    pub fn everything(mut self) -> Self {
        self.up_to = UpTo::End;
        self
    }

    /// Looks up what that means. Nothing is deleted by this.
    ///
    /// # Errors
    /// The topic does not exist, has no such partition, or cannot be asked about.
    pub async fn plan(self) -> Result<PurgePlan, DeadLetterError> {
        let (scan, standing) = self.source.open(false).await?;
        scan.close().await;
        let only = self.partition.map(|number| self.source.partition(&standing, number)).transpose()?;
        let mut ends = self.ends(&standing).await?;
        ends.retain(|at, _| only.as_ref().is_none_or(|only| only == at));
        let below = standing.bounds.iter().filter_map(|(at, (begin, end))| {
            let up_to = ends.get(at).copied()?.min(*end);
            (up_to > *begin).then(|| (at.clone(), (*begin, up_to)))
        });
        let below: Ranges = below.collect();
        let open = below.iter().map(|(at, (begin, up_to))| {
            standing.progress.get(at).map_or(0, |progress| progress.open_within(*begin..*up_to))
        });
        let open = open.sum();
        Ok(PurgePlan { source: self.source, topic_id: standing.topic_id, below, open })
    }

    async fn ends(&self, standing: &Standing) -> Result<BTreeMap<TopicPartition, i64>, DeadLetterError> {
        let all = || standing.bounds.iter();
        Ok(match self.up_to {
            UpTo::Done => {
                standing.progress.iter().map(|(at, progress)| (at.clone(), progress.open())).collect()
            }
            UpTo::Offset(offset) => all().map(|(at, _)| (at.clone(), offset)).collect(),
            UpTo::End => all().map(|(at, (_, end))| (at.clone(), *end)).collect(),
            UpTo::Time(time_ms) => {
                let ask: HashMap<_, _> =
                    all().map(|(at, _)| (at.clone(), OffsetSpec::Timestamp(time_ms))).collect();
                let mut found = self.source.client.admin().offsets(&ask).await?;
                let mut ends = BTreeMap::new();
                for (at, (_, end)) in all() {
                    // Of a partition that nothing was said of, nothing goes.
                    let Some(found) = found.remove(at).transpose()? else { continue };
                    // Nothing of that time or later: all of it is older.
                    ends.insert(at.clone(), found.offset.unwrap_or(*end));
                }
                ends
            }
        })
    }
}

/// What a [`Purge`] would delete now.
#[derive(Debug)]
#[must_use = "nothing is deleted before it is executed"]
pub struct PurgePlan {
    source: Source,
    topic_id: Uuid,
    below: Ranges,
    open: u64,
}

impl PurgePlan {
    /// For each partition of which something would go: its first offset, and the first that would stay.
    pub fn partitions(&self) -> impl Iterator<Item = (&TopicPartition, i64, i64)> {
        self.below.iter().map(|(at, (begin, up_to))| (at, *begin, *up_to))
    }

    /// How many offsets would go: letters, and what else takes an offset, such as markers of transactions.
    pub fn offsets(&self) -> u64 {
        self.below.values().map(|(begin, up_to)| begin.abs_diff(*up_to)).sum()
    }

    /// How many of these offsets were neither replayed nor parked.
    pub fn open(&self) -> u64 {
        self.open
    }

    /// Deletes. Who reads the topic goes on behind what was deleted.
    ///
    /// # Errors
    /// The broker refuses, for instance because the topic is compacted; what was deleted until then stays deleted. Or
    /// the topic was made anew after the plan was made: then nothing is deleted.
    pub async fn execute(self) -> Result<(), DeadLetterError> {
        if self.below.is_empty() {
            return Ok(());
        }
        is_still(&self.source.client, &self.source.topic, self.topic_id).await?;
        let before = self.below.into_iter().map(|(at, (_, up_to))| (at, up_to)).collect();
        let deleted = self.source.client.admin().delete_records(&before).await?;
        for (_, result) in BTreeMap::from_iter(deleted) {
            result?;
        }
        Ok(())
    }
}
