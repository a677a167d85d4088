//! How far a replay is in one partition: what is committed, and what that means to the one that goes on. Pure.
//!
//! A replay may pick letters here and there, so one offset does not say what is done. The committed offset is that of
//! the lowest letter that is *not* done; what is done above it stands beside the offset, in the commit's metadata, as
//! gaps and lengths: `klamm-dlt/1 <topic id> 3+2,1+5` is "three open, two done, one open, five done".

use std::collections::BTreeMap;
use std::ops::Range;

use klamm_client::{OffsetAndMetadata, Uuid};

const MARK: &str = "klamm-dlt/1";
/// What brokers take (`offset.metadata.max.bytes`) is 4,096 unless it was set to something else.
const METADATA_BYTES_MAX: usize = 4_096;

/// What is done of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Progress {
    /// The topic's id: one of the same name that was made anew has other letters.
    topic_id: Uuid,
    /// Everything below is done.
    open: i64,
    /// What is done above: from each offset up to, not including, another. They neither touch nor overlap.
    done: BTreeMap<i64, i64>,
}

/// More gaps than a commit's metadata can tell of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooScattered;

impl Progress {
    pub(super) fn new(topic_id: Uuid, from: i64) -> Self {
        Self { topic_id, open: from, done: BTreeMap::new() }
    }

    /// What a commit says, for a log that holds the offsets `begin..end`. One that was not written by us, of another
    /// topic or of a log that was longer says nothing: rather a letter twice than one left out.
    pub(super) fn read(committed: Option<&OffsetAndMetadata>, topic_id: Uuid, begin: i64, end: i64) -> Self {
        let mut progress = Self::new(topic_id, begin);
        if let Some(committed) = committed.filter(|committed| committed.offset <= end) {
            progress.learn(committed, end);
        }
        progress
    }

    /// What somebody else says is done, who is at it at the same time: that is done, too.
    pub(super) fn learn(&mut self, committed: &OffsetAndMetadata, end: i64) {
        let mut words = committed.metadata.split(' ');
        if words.next() != Some(MARK) || words.next() != Some(self.topic_id.to_string().as_str()) {
            return;
        }
        self.mark(i64::MIN..committed.offset);
        let mut at = committed.offset;
        for range in words.next().unwrap_or_default().split(',').filter(|range| !range.is_empty()) {
            let read = range.split_once('+').and_then(|(gap, length)| {
                let (gap, length) = (gap.parse::<u32>().ok()?, length.parse::<u32>().ok()?);
                let start = at.checked_add(i64::from(gap))?;
                Some((start, start.checked_add(i64::from(length)).filter(|up_to| *up_to <= end)?))
            });
            // A word that is none: what came before it counts.
            let Some((start, up_to)) = read else { break };
            self.mark(start..up_to);
            at = up_to;
        }
    }

    /// What is to be committed.
    pub(super) fn written(&self) -> Result<OffsetAndMetadata, TooScattered> {
        let mut metadata = format!("{MARK} {} ", self.topic_id);
        let mut at = self.open;
        for (&start, &up_to) in &self.done {
            let separator = if at == self.open { "" } else { "," };
            metadata.push_str(&format!("{separator}{}+{}", start - at, up_to - start));
            at = up_to;
            if metadata.len() > METADATA_BYTES_MAX {
                return Err(TooScattered);
            }
        }
        Ok(OffsetAndMetadata::new(self.open).with_metadata(metadata))
    }

    /// The lowest offset that is not done.
    pub(super) fn open(&self) -> i64 {
        self.open
    }

    pub(super) fn is_done(&self, offset: i64) -> bool {
        offset < self.open || self.done.range(..=offset).next_back().is_some_and(|(_, up_to)| offset < *up_to)
    }

    /// How many of these offsets are not done.
    pub(super) fn open_within(&self, offsets: Range<i64>) -> u64 {
        let (start, end) = (offsets.start.max(self.open), offsets.end);
        let done = self.done.range(..end).map(|(from, up_to)| {
            let (from, up_to) = (start.max(*from), end.min(*up_to));
            if from < up_to { from.abs_diff(up_to) } else { 0 }
        });
        if start < end { start.abs_diff(end) - done.sum::<u64>() } else { 0 }
    }

    /// These offsets are done, or there is no letter at them.
    pub(super) fn mark(&mut self, offsets: Range<i64>) {
        let (mut start, mut up_to) = (offsets.start, offsets.end);
        if start >= up_to {
            return;
        }
        // Ranges that touch or overlap become one.
        while let Some((&other, &other_end)) =
            self.done.range(..=up_to).next_back().filter(|(_, end)| **end >= start)
        {
            self.done.remove(&other);
            (start, up_to) = (start.min(other), up_to.max(other_end));
        }
        if start <= self.open {
            self.open = self.open.max(up_to);
        } else {
            self.done.insert(start, up_to);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use klamm_runtime::{Rng, SeededRng};

    use super::*;

    const TOPIC: Uuid = Uuid::from_u128(0x1234);

    #[track_caller]
    fn again(progress: &Progress, end: i64) -> Progress {
        let written = progress.written().unwrap();
        Progress::read(Some(&written), TOPIC, 0, end)
    }

    /// Against a set of offsets, in any order of marking, and through a commit at any moment.
    #[test]
    fn progress_is_the_set_of_what_was_marked() {
        const END: i64 = 60;
        let rng = SeededRng::new(11);
        for _ in 0..3_000 {
            let mut progress = Progress::new(TOPIC, 0);
            let mut model = BTreeSet::new();
            for _ in 0..rng.below(30) {
                let start = rng.below(END as u64) as i64;
                let up_to = (start + rng.below(5) as i64).min(END);
                progress.mark(start..up_to);
                model.extend(start..up_to);
                if rng.below(8) == 0 {
                    progress = again(&progress, END);
                }
            }
            let lowest_open = (0..).find(|offset| !model.contains(offset)).unwrap();
            assert_eq!(progress.open(), lowest_open);
            for offset in 0..END + 5 {
                assert_eq!(progress.is_done(offset), model.contains(&offset), "{offset} of {progress:?}");
            }
            let (from, up_to) = (rng.below(70) as i64, rng.below(70) as i64);
            let open = (from..up_to).filter(|offset| !model.contains(offset)).count() as u64;
            assert_eq!(progress.open_within(from..up_to), open, "{from}..{up_to} of {progress:?}");
            let ends: Vec<i64> = progress.done.iter().flat_map(|(start, up_to)| [*start, *up_to]).collect();
            assert!(
                ends.is_sorted() && ends.first().is_none_or(|first| *first > progress.open),
                "{progress:?}"
            );
            assert!(ends.windows(2).all(|pair| pair[0] < pair[1]), "ranges that touch are one: {progress:?}");
        }
    }

    #[test]
    fn a_commit_reads_as_people_would_say_it() {
        let mut progress = Progress::new(TOPIC, 10);
        progress.mark(10..12);
        progress.mark(15..17);
        progress.mark(18..23);
        let written = progress.written().unwrap();
        assert_eq!((written.offset, &*written.metadata), (12, &*format!("klamm-dlt/1 {TOPIC} 3+2,1+5")));
    }

    #[test]
    fn a_commit_of_somebody_else_says_nothing() {
        let fresh = Progress::new(TOPIC, 3);
        let read = |offset, metadata: &str| {
            Progress::read(Some(&OffsetAndMetadata::new(offset).with_metadata(metadata)), TOPIC, 3, 20)
        };
        assert_eq!(Progress::read(None, TOPIC, 3, 20), fresh);
        assert_eq!(read(7, ""), fresh);
        assert_eq!(read(7, "klamm-dlt/2 x 1+1"), fresh);
        assert_eq!(
            read(7, &format!("klamm-dlt/1 {} 1+1", Uuid::from_u128(9))),
            fresh,
            "another topic of the name"
        );
        assert_eq!(read(21, &format!("klamm-dlt/1 {TOPIC} ")), fresh, "the log was longer");
        assert_eq!(read(7, &format!("klamm-dlt/1 {TOPIC} ")).open(), 7);
        assert_eq!(read(1, &format!("klamm-dlt/1 {TOPIC} ")).open(), 3, "retention went on");
        for broken in ["x", "1", "1+x", "-1+2", "1+99", "4294967295+4294967295", "1+1,,", "+", ","] {
            let progress = read(7, &format!("klamm-dlt/1 {TOPIC} {broken}"));
            assert!(progress.open() == 7 && !progress.is_done(7), "{broken}");
        }
    }

    #[test]
    fn more_gaps_than_fit_are_an_error() {
        let mut progress = Progress::new(TOPIC, 0);
        let mut marked = 0;
        while progress.written().is_ok() {
            marked += 1;
            progress.mark(2 * marked..2 * marked + 1);
            assert!(marked < 5_000);
        }
        assert!(marked > 900, "{marked} gaps are few");
        assert_eq!(progress.written(), Err(TooScattered));
    }
}
