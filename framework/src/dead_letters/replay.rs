//! `Replay`: letters go back to work, or out of the way. Read, chosen, sent, noted as done; in this order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use klamm_client::{ErrorCode, Record, TopicPartition};
use tokio::time::{Instant, sleep_until};

use super::deliver::{Chosen, Delivery, Progresses};
use super::destination::{Destination, Stays, Target, Targets};
use super::error::DeadLetterError;
use super::filter::LetterFilter;
use super::letter::DeadLetter;
use super::pace::Pace;
use super::scan::Scan;
use super::source::Source;

/// How often a letter may come back before it stays, unless told otherwise.
const REPLAYS_MAX: u32 = 3;
/// Letters that are sent together, and then noted as done together: by number, by size, and by the time it takes to
/// gather them.
const TOGETHER_MAX: usize = 500;
const TOGETHER_BYTES_MAX: usize = 4 * 1024 * 1024;
const TOGETHER_FOR: Duration = Duration::from_secs(1);
/// No topic has a longer name: Kafka's limit.
const NAME_BYTES_MAX: usize = 249;

/// Letters that go somewhere; made by [`DeadLetters::replay`](super::DeadLetters::replay) and
/// [`DeadLetters::park`](super::DeadLetters::park).
///
/// What is promised: a letter counts as done when the broker has acknowledged it where it went, never before. Letters
/// of one partition keep their order. A run that is interrupted, by `kill -9` too, goes on where it was: at least
/// once, or, with [`exactly_once`](Self::exactly_once), exactly once. Letters that come in during a run are left for
/// the next.
#[derive(Debug, Clone)]
#[must_use = "nothing is sent before `run`"]
pub struct Replay {
    source: Source,
    destination: Destination,
    filter: LetterFilter,
    per_second: Option<f64>,
    replays_max: u32,
    dry_run: bool,
    exactly_once: bool,
}

/// What a replay did, or, as a dry run, what it would have done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ReplayReport {
    /// How many letters were sent.
    pub sent: u64,
    /// The same, by the topic they went to.
    pub sent_to: BTreeMap<Arc<str>, u64>,
    /// How many the filter left out.
    pub left_out: u64,
    /// How many that it came by were done before: those that lie behind one that was not.
    pub done_before: u64,
    /// How many could not go, and why. They stay open.
    pub stayed: BTreeMap<Stays, u64>,
}

impl Replay {
    pub(super) fn new(source: Source, destination: Destination) -> Self {
        let (filter, replays_max) = (LetterFilter::new(), REPLAYS_MAX);
        Self {
            source,
            destination,
            filter,
            per_second: None,
            replays_max,
            dry_run: false,
            exactly_once: false,
        }
    }

    /// Only these letters. Those that are left out stay open: another replay may take them.
    pub fn only(mut self, filter: LetterFilter) -> Self {
        self.filter = filter;
        self
    }

    /// To this topic, instead of where each came from, or instead of where they were to be parked: a retry topic, or
    /// one that a mended listener reads. Their headers go on telling where they came from first.
    pub fn to(mut self, topic: impl Into<Arc<str>>) -> Self {
        self.destination = match self.destination {
            Destination::Parking(_) => Destination::Parking(topic.into()),
            _ => Destination::Work(topic.into()),
        };
        self
    }

    /// Not more than so many letters a second.
    pub fn per_second(mut self, letters: f64) -> Self {
        self.per_second = Some(letters);
        self
    }

    /// How often a letter may be replayed: one that came back as often stays, so that nothing goes round for ever.
    /// Default 3. Parking does not count.
    pub fn replays_max(mut self, replays: u32) -> Self {
        self.replays_max = replays;
        self
    }

    /// Sends nothing and notes nothing; the report says what would have been done.
    pub fn dry_run(mut self) -> Self {
        self.dry_run = true;
        self
    }

    /// Sends in transactions, which commit with what they sent that it is done: readers of committed records get each
    /// letter once, whatever happened. The transactional id is the group's name, so that a second replay at the same
    /// time ends the first.
    pub fn exactly_once(mut self) -> Self {
        self.exactly_once = true;
        self
    }

    /// Replays what is there now and is not done.
    ///
    /// When the future is dropped, what was acknowledged but not yet noted is sent again by the next run (in
    /// transactions: not at all, or it is noted).
    ///
    /// # Errors
    /// See [`DeadLetterError`]. What was done before is noted: run it again, and it goes on behind it.
    pub async fn run(self) -> Result<ReplayReport, DeadLetterError> {
        if let Some(rate) = self.per_second.filter(|rate| !Pace::can_keep(*rate)) {
            return Err(DeadLetterError::Rate { rate });
        }
        if let Destination::Work(topic) | Destination::Parking(topic) = &self.destination
            && *topic == self.source.topic
        {
            return Err(DeadLetterError::IntoItself { topic: Arc::clone(topic) });
        }
        // Another run that is still at it is ended before it is looked up what is done.
        let delivery = match self.dry_run {
            true => None,
            false => Some(Delivery::start(&self.source, self.exactly_once).await?),
        };
        let (mut scan, standing) = self.source.open(!self.dry_run).await?;
        let ranges = standing.bounds.iter().map(|(at, (begin, end))| {
            let open = standing.progress.get(at).map_or(*begin, super::progress::Progress::open);
            (at.clone(), (open.max(*begin), *end))
        });
        scan.read(ranges.collect())?;
        let mut run = Run {
            pace: Pace::new(self.per_second),
            progress: Progresses::new(self.source.clone(), standing),
            replay: self,
            delivery,
            topics: Targets::new(),
            chosen: Vec::new(),
            chosen_bytes: 0,
            report: ReplayReport::default(),
        };
        let ended = run.all(&mut scan).await;
        scan.close().await;
        if let Some(delivery) = run.delivery.take() {
            delivery.close().await;
        }
        ended.map(|()| run.report)
    }
}

/// A replay at work.
struct Run {
    replay: Replay,
    delivery: Option<Delivery>,
    pace: Pace,
    progress: Progresses,
    topics: Targets,
    /// What is to be sent next, and its size.
    chosen: Vec<Chosen>,
    chosen_bytes: usize,
    report: ReplayReport,
}

impl Run {
    async fn all(&mut self, scan: &mut Scan) -> Result<(), DeadLetterError> {
        if let Some(delivery) = &self.delivery {
            delivery.prepare(&mut self.progress, &scan.handle()).await?;
        }
        let mut send_by = Instant::now() + TOGETHER_FOR;
        while let Some(piece) = scan.next().await? {
            for record in piece.records {
                let offset = record.offset;
                let letter = DeadLetter::new(record);
                if let Some(record) = self.choose(&piece.at, &letter).await? {
                    if let Some(at) = self.pace.one(Instant::now()) {
                        if at >= send_by {
                            self.send(scan).await?;
                        }
                        sleep_until(at).await;
                    }
                    if self.chosen.is_empty() {
                        send_by = Instant::now() + TOGETHER_FOR;
                    }
                    self.chosen_bytes += size(&record);
                    self.chosen.push(Chosen { at: piece.at.clone(), offset, record });
                    let is_full =
                        self.chosen.len() >= TOGETHER_MAX || self.chosen_bytes >= TOGETHER_BYTES_MAX;
                    if is_full || Instant::now() >= send_by {
                        self.send(scan).await?;
                    }
                }
                self.progress.seen(&piece.at, offset);
            }
            self.progress.passed(&piece.at, piece.up_to);
        }
        self.send(scan).await
    }

    /// What is to be sent for a letter, if it is to go.
    async fn choose(
        &mut self,
        at: &TopicPartition,
        letter: &DeadLetter,
    ) -> Result<Option<Record>, DeadLetterError> {
        if self.progress.is_done(at, letter.record.offset) {
            self.report.done_before += 1;
            return Ok(None);
        }
        if !self.replay.filter.matches(letter) {
            self.report.left_out += 1;
            return Ok(None);
        }
        let destination = self.replay.destination.clone();
        if let Some(topic) = destination.topic(letter)
            && !self.topics.contains_key(topic)
        {
            let target = self.target(topic).await?;
            self.topics.insert(Arc::clone(topic), target);
        }
        match destination.record(letter, self.replay.replays_max, &self.topics) {
            Ok(record) => Ok(Some(record)),
            Err(stays) => {
                *self.report.stayed.entry(stays).or_default() += 1;
                Ok(None)
            }
        }
    }

    /// Described rather than asked for by name: that would make a topic that is not there.
    async fn target(&self, topic: &Arc<str>) -> Result<Target, DeadLetterError> {
        // What a header says may be anything, also what no request can hold.
        if topic.is_empty() || topic.len() > NAME_BYTES_MAX {
            return Ok(Target::Missing);
        }
        let described = self.replay.source.client.admin().describe_topics(&[&**topic]).await?.remove(topic);
        match described {
            Some(Ok(described)) => {
                Ok(Target::Partitions(i32::try_from(described.partitions.len()).unwrap_or(i32::MAX)))
            }
            Some(Err(source)) => match source.code() {
                Some(ErrorCode::UnknownTopicOrPartition | ErrorCode::InvalidTopicException) => {
                    Ok(Target::Missing)
                }
                Some(ErrorCode::TopicAuthorizationFailed) => Ok(Target::Forbidden),
                _ => Err(DeadLetterError::Topic { topic: Arc::clone(topic), source }),
            },
            None => Ok(Target::Missing),
        }
    }

    async fn send(&mut self, scan: &Scan) -> Result<(), DeadLetterError> {
        let mut chosen = std::mem::take(&mut self.chosen);
        self.chosen_bytes = 0;
        if self.delivery.is_some() {
            self.progress.learn().await?;
            let before = chosen.len();
            chosen.retain(|one| !self.progress.is_done(&one.at, one.offset));
            self.report.done_before += before.abs_diff(chosen.len()) as u64;
        }
        let topics: Vec<Arc<str>> = chosen.iter().map(|one| Arc::clone(&one.record.topic)).collect();
        let sent = match &mut self.delivery {
            Some(delivery) => delivery.deliver(chosen, &mut self.progress, &scan.handle()).await?,
            None => topics.len(),
        };
        for topic in topics.into_iter().take(sent) {
            self.report.sent += 1;
            *self.report.sent_to.entry(topic).or_default() += 1;
        }
        Ok(())
    }
}

fn size(record: &Record) -> usize {
    let length = |bytes: &Option<bytes::Bytes>| bytes.as_ref().map_or(0, bytes::Bytes::len);
    let headers = record.headers.iter().map(|(name, value)| name.len() + length(value));
    length(&record.key) + length(&record.value) + headers.sum::<usize>()
}
