//! Which partitions go into which fetch, over which connection, in which session. Pure: it is told the time.
//!
//! A broker holds a fetch without records for a while, and answers the requests of one connection in order. So there
//! are two lines to each broker. The *patient* line carries the fetch that is held: it covers all that can be read,
//! and in a fetch session (KIP-227) it names only what changed, so that idle partitions cost nothing. What becomes of
//! interest while it is held (a seek, a resumed partition, room in the buffer) goes over the *prompt* line, whose
//! fetches are never held; partitions that turn out to have nothing new are looked at again there, with pauses, until
//! the patient line is free and takes them over. Nothing ever waits out another's wait.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use klamm_protocol::messages::fetch::{FetchPartition, FetchTopic, PartitionData};
use klamm_protocol::messages::{FetchRequest, FetchResponse};
use klamm_protocol::{ErrorCode, Records, Uuid};
use tokio::time::Instant;

use super::chunk::{self, Reading};
use super::lookups::{Ask, Wanted};
use super::partitions::Partitions;
use super::positions::{Anchor, ERROR_PAUSE};
use super::session::Session;
use crate::cluster::LeaderHint;
use crate::error::ConsumeError;

/// From here on topics go by id.
const IDS_FROM: i16 = 13;
/// After so many sessions that a broker refused in a row, there is a pause before the next.
const MOST_REFUSALS: u32 = 3;
/// Pauses after a held fetch that came back too early and empty: something is wrong with the broker, or it knows of
/// changes that are none to us.
const LONGEST_CALM: Duration = Duration::from_millis(100);
/// A broker that is to be left alone for longer says so again.
const LONGEST_THROTTLE: Duration = Duration::from_secs(30);

/// What fetches ask for, and how answers are read.
#[derive(Debug, Clone)]
pub(super) struct FetchRules {
    pub(super) max_wait: Duration,
    pub(super) min_bytes: usize,
    pub(super) max_bytes: usize,
    pub(super) partition_bytes: usize,
    /// As Fetch spells it.
    pub(super) isolation: i8,
    /// Empty for none.
    pub(super) rack: Arc<str>,
    /// How long a nearer replica is read from before the leader is asked again.
    pub(super) replica_age: Duration,
    pub(super) reading: Reading,
}

/// One of the two connections to a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Line {
    /// Its fetches are held until there are records.
    Patient,
    /// Its fetches are answered at once.
    Prompt,
}

/// A line to a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Way {
    pub(super) node: i32,
    pub(super) line: Line,
}

/// A fetch to be sent.
#[derive(Debug)]
pub(super) struct Fetch {
    pub(super) way: Way,
    pub(super) request: FetchRequest,
    /// Highest version that can carry it.
    pub(super) cap: i16,
    /// It continues a session, which belongs to the connection that the last fetch of this line went over.
    pub(super) in_session: bool,
}

/// Why a fetch has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoAnswer {
    /// It was not sent: the connection that its session belongs to is gone.
    SessionGone,
    /// It failed.
    Failed,
}

/// The fetches that are under way.
#[derive(Debug)]
pub(super) struct Fetching {
    rules: FetchRules,
    brokers: BTreeMap<i32, Broker>,
    /// Bytes that answers may bring.
    reserved: usize,
    /// What answers have brought since that was asked last.
    brought: Vec<Brought>,
    /// What brokers told of other leaders.
    hints: Vec<LeaderHint>,
}

/// What one answer brought of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Brought {
    pub(super) topic: Arc<str>,
    /// As its batches have it.
    pub(super) records: usize,
    pub(super) bytes: usize,
}

#[derive(Debug, Default)]
struct Broker {
    patient: Option<Flight>,
    prompt: Option<Flight>,
    session: Session,
    /// It asked to be left alone until then.
    muted_until: Option<Instant>,
    /// Sessions refused in a row.
    refusals: u32,
    /// Held fetches in a row that came back early with nothing, and until when the next one waits.
    early: u32,
    calm_until: Option<Instant>,
}

/// A fetch under way.
#[derive(Debug)]
struct Flight {
    wanted: Vec<Wanted>,
    /// Most bytes that it was to bring.
    bytes: usize,
    sent_at: Instant,
}

impl Broker {
    fn flight(&mut self, line: Line) -> &mut Option<Flight> {
        match line {
            Line::Patient => &mut self.patient,
            Line::Prompt => &mut self.prompt,
        }
    }
}

/// What can go over a line now.
struct Ready {
    way: Way,
    wanted: Vec<Wanted>,
    /// There may be records in it.
    fresh: bool,
}

impl Fetching {
    pub(super) fn new(rules: FetchRules) -> Self {
        Self { rules, brokers: BTreeMap::new(), reserved: 0, hints: Vec::new(), brought: Vec::new() }
    }

    /// The leaders that brokers told of since this was asked last.
    pub(super) fn hints(&mut self) -> Vec<LeaderHint> {
        std::mem::take(&mut self.hints)
    }

    /// Bytes that answers under way may bring.
    #[cfg(test)]
    pub(super) fn reserved(&self) -> usize {
        self.reserved
    }

    /// What answers have brought since this was asked last.
    pub(super) fn take_brought(&mut self) -> Vec<Brought> {
        std::mem::take(&mut self.brought)
    }

    /// The fetches to send now, and when time alone brings more.
    pub(super) fn send(
        &mut self,
        partitions: &mut Partitions,
        wanted: BTreeMap<i32, Vec<Wanted>>,
        now: Instant,
    ) -> (Vec<Fetch>, Option<Instant>) {
        let mut wake_at: Option<Instant> = None;
        let mut ready = Vec::new();
        for (node, wanted) in wanted {
            match self.ready(node, wanted, now) {
                Ok(one) => ready.extend(one),
                Err(at) => wake_at = Some(wake_at.map_or(at, |other| other.min(at))),
            }
        }
        let mut fetches = Vec::new();
        let mut left = ready.len();
        for one in ready {
            let room = partitions.room().saturating_sub(self.reserved);
            let bytes = self.allowance(partitions, &one, room, left);
            left -= 1;
            if let Some(bytes) = bytes {
                one.wanted.iter().for_each(|wanted| partitions.begin(&wanted.ask, one.way.line));
                fetches.push(self.fetch(one, bytes, now));
            }
        }
        (fetches, wake_at)
    }

    /// What can go to a broker now, or when to look again.
    fn ready(&mut self, node: i32, mut wanted: Vec<Wanted>, now: Instant) -> Result<Option<Ready>, Instant> {
        let broker = self.brokers.entry(node).or_default();
        if let Some(until) = broker.muted_until.filter(|&until| until > now) {
            return Err(until);
        }
        let line = match (&broker.patient, &broker.prompt) {
            (None, _) => {
                if let Some(until) = broker.calm_until.filter(|&until| until > now) {
                    return Err(until);
                }
                Line::Patient
            }
            (Some(_), None) => {
                let due = |wanted: &Wanted| wanted.peek_at.is_none_or(|at| at <= now);
                let next_peek = wanted.iter().filter_map(|wanted| wanted.peek_at).min();
                wanted.retain(due);
                if wanted.is_empty() {
                    return next_peek.map_or(Ok(None), Err);
                }
                Line::Prompt
            }
            (Some(_), Some(_)) => return Ok(None),
        };
        let fresh = wanted.iter().any(|wanted| wanted.peek_at.is_none());
        // Who waited longest goes first, because a broker fills its answer in this order.
        wanted.sort_by(|a, b| (a.served, &a.ask.partition).cmp(&(b.served, &b.ask.partition)));
        Ok(Some(Ready { way: Way { node, line }, wanted, fresh }))
    }

    /// How many bytes a fetch may bring, `left` of them sharing the room; `None` when it is not worth sending.
    fn allowance(&self, partitions: &Partitions, ready: &Ready, room: usize, left: usize) -> Option<usize> {
        let worthwhile = self.rules.partition_bytes.min(partitions.rules.prefetch_bytes / 4).max(1);
        if !ready.fresh {
            // Where nothing is expected little is set aside, so that it is there for others.
            let few = self.rules.partition_bytes.min(room / 2 / left.max(1));
            return (room > 0).then_some(few.max(1));
        }
        (room >= worthwhile).then(|| self.rules.max_bytes.min(room / left.max(1)).max(1))
    }

    /// Outside of a session, which is what a request says when nothing else is said, or in the one of the patient line.
    fn fetch(&mut self, ready: Ready, bytes: usize, now: Instant) -> Fetch {
        let Ready { way, wanted, .. } = ready;
        let patient = way.line == Line::Patient;
        let by_id = wanted.iter().all(|wanted| wanted.topic_id != Uuid::ZERO);
        let broker = self.brokers.entry(way.node).or_default();
        let mut request = FetchRequest {
            max_wait_ms: if patient { wire_millis(self.rules.max_wait) } else { 0 },
            min_bytes: wire_size(self.rules.min_bytes),
            max_bytes: wire_size(bytes),
            isolation_level: self.rules.isolation,
            rack_id: (&*self.rules.rack).into(),
            ..FetchRequest::default()
        };
        let mut in_session = false;
        if patient {
            let part = broker.session.next(&wanted, by_id);
            (request.session_id, request.session_epoch) = (part.id, part.epoch);
            request.topics = topics(part.changed.iter().map(|&at| &wanted[at]), self.rules.partition_bytes);
            request.forgotten_topics_data = part.forgotten;
            in_session = part.epoch > 0;
        } else {
            request.topics = topics(wanted.iter(), self.rules.partition_bytes);
        }
        self.reserved += bytes;
        *broker.flight(way.line) = Some(Flight { wanted, bytes, sent_at: now });
        Fetch { way, request, cap: if by_id { i16::MAX } else { IDS_FROM - 1 }, in_session }
    }

    /// A fetch ended. Returns whether the reader has something new.
    pub(super) fn answered(
        &mut self,
        partitions: &mut Partitions,
        way: Way,
        answer: Result<FetchResponse, NoAnswer>,
        now: Instant,
    ) -> bool {
        let Some(broker) = self.brokers.get_mut(&way.node) else { return false };
        let Some(flight) = broker.flight(way.line).take() else { return false };
        self.reserved = self.reserved.saturating_sub(flight.bytes);
        let asks = flight.wanted.iter().map(|wanted| &wanted.ask);
        let answer = match answer {
            Ok(answer) => answer,
            Err(NoAnswer::SessionGone) => {
                broker.session.gone();
                partitions.unasked(asks);
                return false;
            }
            Err(NoAnswer::Failed) => {
                if way.line == Line::Patient {
                    broker.session.uncertain();
                }
                partitions.not_answered(asks, now);
                partitions.stale = true;
                return false;
            }
        };
        let throttled = Duration::from_millis(u64::try_from(answer.throttle_time_ms).unwrap_or(0));
        broker.muted_until = broker.muted_until.max(Some(now + throttled.min(LONGEST_THROTTLE)));
        let code = ErrorCode::from_code(answer.error_code);
        if code != ErrorCode::None {
            return self.refused(partitions, way, flight, code, now);
        }
        if way.line == Line::Patient {
            broker.session.answered(answer.session_id);
            broker.refusals = 0;
        }
        self.take_in(partitions, way, flight, answer, now)
    }

    /// The broker refused a fetch as a whole.
    fn refused(
        &mut self,
        partitions: &mut Partitions,
        way: Way,
        flight: Flight,
        code: ErrorCode,
        now: Instant,
    ) -> bool {
        let Some(broker) = self.brokers.get_mut(&way.node) else { return false };
        let asks = flight.wanted.iter().map(|wanted| &wanted.ask);
        tracing::debug!(node = way.node, %code, "a fetch was refused");
        let of_session = matches!(
            code,
            ErrorCode::FetchSessionIdNotFound
                | ErrorCode::InvalidFetchSessionEpoch
                | ErrorCode::FetchSessionTopicIdError
        );
        if way.line == Line::Patient {
            match code {
                ErrorCode::FetchSessionIdNotFound => broker.session.gone(),
                _ => broker.session.uncertain(),
            }
            broker.refusals = broker.refusals.saturating_add(1);
        }
        if of_session && broker.refusals <= MOST_REFUSALS {
            // All is named anew, at once.
            partitions.unasked(asks);
            return false;
        }
        if code.is_retriable() {
            partitions.not_answered(asks, now);
            partitions.stale = true;
            return false;
        }
        for wanted in &flight.wanted {
            partitions.refused(&wanted.ask, wanted.leader, code, now);
        }
        true
    }

    /// Takes in what an answer brought.
    fn take_in(
        &mut self,
        partitions: &mut Partitions,
        way: Way,
        flight: Flight,
        answer: FetchResponse,
        now: Instant,
    ) -> bool {
        self.note_hints(&answer, &flight.wanted);
        let mut parts = by_place(answer, &flight.wanted);
        let (mut news, mut early) = (false, true);
        for (at, wanted) in flight.wanted.iter().enumerate() {
            match parts.remove(&at) {
                Some(part) => {
                    early &= part.error_code == 0 && part.preferred_read_replica < 0;
                    news |= self.part_taken(partitions, way.node, wanted, part, now);
                }
                // A session's answer names only what has news.
                None => partitions.nothing_new(&wanted.ask, now),
            }
        }
        if let Some(broker) = self.brokers.get_mut(&way.node)
            && way.line == Line::Patient
        {
            early &= !news && now - flight.sent_at < self.rules.max_wait / 2;
            broker.early = if early { broker.early.saturating_add(1) } else { 0 };
            broker.calm_until = early.then(|| now + calm(broker.early));
        }
        news
    }

    /// A broker that does not lead a partition any more may tell who does.
    fn note_hints(&mut self, answer: &FetchResponse, wanted: &[Wanted]) {
        if answer.node_endpoints.is_empty() {
            return;
        }
        let endpoint = |id| answer.node_endpoints.iter().find(|node| node.node_id == id);
        let parts =
            answer.responses.iter().flat_map(|topic| topic.partitions.iter().map(move |part| (topic, part)));
        for (topic, part) in parts {
            let of = |wanted: &&Wanted| {
                let same_topic = match topic.topic.is_empty() {
                    true => wanted.topic_id == topic.topic_id,
                    false => *wanted.ask.partition.topic == *topic.topic,
                };
                same_topic && wanted.ask.partition.partition == part.partition_index
            };
            let leader = &part.current_leader;
            let Some(node) = endpoint(leader.leader_id).filter(|_| part.error_code != 0) else { continue };
            let Some(wanted) = wanted.iter().find(of) else { continue };
            self.hints.push(LeaderHint {
                partition: wanted.ask.partition.clone(),
                leader: leader.leader_id,
                leader_epoch: leader.leader_epoch,
                endpoint: Some((Arc::from(&*node.host), node.port)),
            });
        }
    }

    /// Takes in one partition's part. Returns whether the reader has something new.
    fn part_taken(
        &mut self,
        partitions: &mut Partitions,
        node: i32,
        wanted: &Wanted,
        part: PartitionData,
        now: Instant,
    ) -> bool {
        let ask = &wanted.ask;
        match ErrorCode::from_code(part.error_code) {
            ErrorCode::None => {}
            ErrorCode::OffsetOutOfRange => {
                partitions.out_of_range(ask, wanted.offset, now);
                return true;
            }
            ErrorCode::CorruptMessage => {
                partitions.corrupt(ask, wanted.offset, now + ERROR_PAUSE);
                return true;
            }
            code => {
                partitions.refused(ask, wanted.leader, code, now);
                return !code.is_retriable();
            }
        }
        let records = part.records.and_then(Records::into_bytes).unwrap_or_default();
        let replica = part.preferred_read_replica;
        if replica >= 0 && replica != node && records.is_empty() {
            partitions.prefer(ask, replica, now + self.rules.replica_age);
            return false;
        }
        let reading = self.rules.reading;
        let aborted = part.aborted_transactions.unwrap_or_default();
        let end = if reading.committed_only { part.last_stable_offset } else { part.high_watermark };
        let Some(anchor) = partitions.anchor(ask) else { return false };
        let chunk = chunk::read(&ask.partition, anchor, records, &aborted, end, reading);
        if chunk.bytes > 0 {
            let topic = Arc::clone(&ask.partition.topic);
            self.brought.push(Brought { topic, records: chunk.records, bytes: chunk.bytes });
        }
        partitions.fetched(&ask.partition, &ask.cell, chunk, now)
    }
}

/// What the answers to fetches mean for a partition.
impl Partitions {
    /// A fetch of this partition is on its way.
    fn begin(&mut self, ask: &Ask, line: Line) {
        if let Some(partition) = self.current(&ask.partition, &ask.cell) {
            partition.position.ask();
            partition.is_new &= line == Line::Prompt;
        }
    }

    fn unasked<'a>(&mut self, asks: impl IntoIterator<Item = &'a Ask>) {
        for ask in asks {
            if let Some(partition) = self.current(&ask.partition, &ask.cell) {
                partition.position.unasked();
            }
        }
    }

    fn nothing_new(&mut self, ask: &Ask, now: Instant) {
        if let Some(partition) = self.current(&ask.partition, &ask.cell) {
            partition.heard_at = Some(now);
            partition.position.nothing_new(now);
        }
    }

    fn prefer(&mut self, ask: &Ask, node: i32, until: Instant) {
        if let Some(partition) = self.current(&ask.partition, &ask.cell) {
            partition.position.prefer(node, until);
        }
    }

    fn anchor(&mut self, ask: &Ask) -> Option<Anchor> {
        self.current(&ask.partition, &ask.cell)?.position.anchor()
    }

    /// The broker cannot read its own log.
    fn corrupt(&mut self, ask: &Ask, offset: i64, not_before: Instant) {
        let Some(partition) = self.current(&ask.partition, &ask.cell) else { return };
        partition.position.rest(not_before);
        self.report(ConsumeError::Corrupt {
            partition: ask.partition.clone(),
            offset,
            next_offset: None,
            reason: Arc::from("the broker found it corrupt"),
        });
    }
}

/// The parts of an answer by their place in what was asked for. Other parts are none of ours.
fn by_place(answer: FetchResponse, wanted: &[Wanted]) -> BTreeMap<usize, PartitionData> {
    let by_name: BTreeMap<(&str, i32), usize> = wanted
        .iter()
        .enumerate()
        .map(|(at, wanted)| ((&*wanted.ask.partition.topic, wanted.ask.partition.partition), at))
        .collect();
    let by_id: BTreeMap<(Uuid, i32), usize> = wanted
        .iter()
        .enumerate()
        .map(|(at, wanted)| ((wanted.topic_id, wanted.ask.partition.partition), at))
        .collect();
    let mut parts = BTreeMap::new();
    for topic in answer.responses {
        for part in topic.partitions {
            let at = match topic.topic.is_empty() {
                true => by_id.get(&(topic.topic_id, part.partition_index)),
                false => by_name.get(&(&*topic.topic, part.partition_index)),
            };
            if let Some(&at) = at {
                parts.insert(at, part);
            }
        }
    }
    parts
}

/// Groups by topic, in the order in which topics first appear.
fn topics<'a>(wanted: impl Iterator<Item = &'a Wanted>, partition_bytes: usize) -> Vec<FetchTopic> {
    let mut topics: Vec<FetchTopic> = Vec::new();
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    for wanted in wanted {
        let name = &*wanted.ask.partition.topic;
        let place = *places.entry(name).or_insert_with(|| {
            topics.push(FetchTopic { topic: name.into(), topic_id: wanted.topic_id, ..Default::default() });
            topics.len() - 1
        });
        if let Some(topic) = topics.get_mut(place) {
            topic.partitions.push(FetchPartition {
                partition: wanted.ask.partition.partition,
                current_leader_epoch: wanted.leader.epoch,
                fetch_offset: wanted.offset,
                partition_max_bytes: wire_size(partition_bytes),
                ..Default::default()
            });
        }
    }
    topics
}

fn calm(early: u32) -> Duration {
    Duration::from_millis(1 << early.min(10)).min(LONGEST_CALM)
}

fn wire_millis(wait: Duration) -> i32 {
    i32::try_from(wait.as_millis()).unwrap_or(i32::MAX)
}

fn wire_size(bytes: usize) -> i32 {
    i32::try_from(bytes).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests;
