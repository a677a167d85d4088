//! What the clients know: what was sent, acknowledged and seen, topic by topic id. Whatever is learned is held against
//! what was known before.

use std::collections::{BTreeMap, BTreeSet};

use klamm_protocol::Uuid;

use super::known::{Known, stands};
use super::ledger::Ledger;
use super::offsets::{Commit, Register};

/// A partition of a topic, which is not the one of the next topic of its name.
pub(super) type Place = (Uuid, i32);

/// What stands at the offset of a marker of a transaction: no record has this number.
const MARKER: u64 = 0;

/// What became of a record, as far as its producer knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Unknown,
    Acknowledged,
    /// The broker said that it is not and never will be in the log.
    Refused,
}

/// A record that was sent.
#[derive(Debug)]
pub(super) struct Sent {
    place: Place,
    fate: Fate,
    /// Where it was told or seen to be.
    offset: Option<i64>,
    /// It cannot be below: this offset was taken before it was sent.
    floor: i64,
    sent_ms: i64,
    bytes: u64,
}

#[derive(Debug, Default)]
pub(super) struct Topic {
    pub(super) name: String,
    pub(super) partitions: i32,
    /// Somebody asked for its deletion and does not know what became of that.
    pub(super) deleting: bool,
    pub(super) gone: bool,
}

/// What is known of a partition's log.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// Which record is at which offset.
    pub(super) facts: BTreeMap<i64, u64>,
    pub(super) high_watermark: i64,
    pub(super) start: i64,
    /// When that was learned.
    start_ms: i64,
}

/// What may be deleted by age or size.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retention {
    pub(super) ms: Option<i64>,
    pub(super) bytes: Option<u64>,
    /// What may have been counted when segments were deleted and was lost in a crash afterwards.
    pub(super) slack_bytes: u64,
}

impl Retention {
    /// Nothing is deleted.
    pub(super) fn without(self) -> Self {
        Self { ms: None, bytes: None, ..self }
    }
}

#[derive(Debug)]
pub(super) struct Model {
    pub(super) topics: BTreeMap<Uuid, Topic>,
    pub(super) logs: BTreeMap<Place, Log>,
    pub(super) offsets: BTreeMap<(String, Place), Register>,
    /// What was committed for deleted topics, by group, name and partition.
    former: BTreeMap<(String, String, i32), BTreeSet<Commit>>,
    /// Names that somebody asked to create without learning what became of it, with their partitions.
    pub(super) creating: BTreeMap<String, BTreeSet<i32>>,
    sent: BTreeMap<u64, Sent>,
    pub(super) ledger: Ledger,
    producer_ids: BTreeSet<i64>,
    retention: Retention,
    broken: Option<String>,
    pub(super) acknowledged: u64,
    pub(super) read: u64,
}

/// A record's value: its number, and bytes that follow from it.
pub(super) fn value_of(number: u64, len: usize) -> String {
    let letter = char::from(b'a' + (number % 26) as u8);
    format!("{number}:{}", letter.to_string().repeat(len))
}

/// The number in a value that is as [`value_of`] makes it.
pub(super) fn number_in(value: &[u8]) -> Option<u64> {
    let (number, filler) = std::str::from_utf8(value).ok()?.split_once(':')?;
    let number: u64 = number.parse().ok()?;
    let letter = b'a' + (number % 26) as u8;
    filler.bytes().all(|byte| byte == letter).then_some(number)
}

impl Model {
    pub(super) fn new(retention: Retention) -> Self {
        Self {
            topics: BTreeMap::new(),
            logs: BTreeMap::new(),
            offsets: BTreeMap::new(),
            former: BTreeMap::new(),
            creating: BTreeMap::new(),
            sent: BTreeMap::new(),
            ledger: Ledger::default(),
            producer_ids: BTreeSet::new(),
            retention,
            broken: None,
            acknowledged: 0,
            read: 0,
        }
    }

    /// The first promise that was not kept.
    pub(super) fn broken(&self) -> Option<&String> {
        self.broken.as_ref()
    }

    pub(super) fn fail(&mut self, what: impl Into<String>) {
        self.broken.get_or_insert(what.into());
    }

    pub(super) fn check(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.fail(what());
        }
    }

    pub(super) fn is_gone(&self, id: Uuid) -> bool {
        self.topics.get(&id).is_none_or(|topic| topic.gone)
    }

    /// The topics that are there for all we know, with their partitions.
    pub(super) fn places(&self) -> Vec<Place> {
        let there = self.topics.iter().filter(|(_, topic)| !topic.gone);
        there.flat_map(|(id, topic)| (0..topic.partitions).map(|index| (*id, index))).collect()
    }

    pub(super) fn created(&mut self, id: Uuid, name: &str, partitions: i32) {
        let known = self.topics.contains_key(&id);
        self.check(!known && !id.is_zero(), || format!("topic {name} was created with an id that is taken"));
        let topic = Topic { name: name.to_owned(), partitions, ..Topic::default() };
        self.topics.insert(id, topic);
    }

    pub(super) fn deleted(&mut self, id: Uuid) {
        if let Some(topic) = self.topics.get_mut(&id) {
            topic.gone = true;
            self.logs.retain(|(topic, _), _| *topic != id);
            let name = topic.name.clone();
            let (gone, kept) =
                std::mem::take(&mut self.offsets).into_iter().partition(|((_, place), _)| place.0 == id);
            self.offsets = kept;
            for ((group, (_, index)), register) in gone {
                let register: Register = register;
                self.former.entry((group, name.clone(), index)).or_default().extend(register.all());
            }
        }
    }

    /// All topics as the broker lists them, at a time at which nobody creates or deletes.
    pub(super) fn listed(&mut self, listed: &BTreeMap<Uuid, (String, i32)>) {
        for (id, (name, partitions)) in listed {
            match self.topics.get_mut(id) {
                Some(topic) if topic.gone => self.fail(format!("topic {name} is back after its deletion")),
                Some(topic) => {
                    topic.deleting = false;
                    let same = topic.partitions == *partitions && topic.name == *name;
                    self.check(same, || format!("topic {name} has changed: {partitions} partitions"));
                }
                None => {
                    let asked = self.creating.get(name).is_some_and(|sizes| sizes.contains(partitions));
                    self.check(asked, || format!("nobody asked for topic {name} of {partitions} partitions"));
                    self.created(*id, name, *partitions);
                }
            }
        }
        let known: Vec<Uuid> =
            self.topics.iter().filter(|(_, topic)| !topic.gone).map(|(id, _)| *id).collect();
        for id in known.into_iter().filter(|id| !listed.contains_key(id)) {
            let topic = &self.topics[&id];
            let (name, deleting) = (topic.name.clone(), topic.deleting);
            self.check(deleting, || format!("topic {name} is gone, and nobody deleted it"));
            self.deleted(id);
        }
        self.creating.clear();
    }

    /// The committed offset of a group.
    pub(super) fn offset(&mut self, group: &str, place: Place) -> &mut Register {
        let former = self
            .topics
            .get(&place.0)
            .and_then(|topic| self.former.get(&(group.to_owned(), topic.name.clone(), place.1)));
        let former = former.filter(|_| !stands(Known::DeletedOffsetsStayGone));
        let new = || Register::after(former.cloned().unwrap_or_default());
        self.offsets.entry((group.to_owned(), place)).or_insert_with(new)
    }

    pub(super) fn producer_id(&mut self, id: i64) {
        let new = self.producer_ids.insert(id);
        self.check(new, || format!("producer id {id} was given out twice"));
    }

    pub(super) fn sent(&mut self, number: u64, place: Place, sent_ms: i64, bytes: u64) {
        let floor = self.logs.get(&place).map_or(0, |log| {
            log.facts.keys().next_back().map_or(log.high_watermark, |last| log.high_watermark.max(last + 1))
        });
        self.sent.insert(number, Sent { place, fate: Fate::Unknown, offset: None, floor, sent_ms, bytes });
    }

    pub(super) fn refused(&mut self, number: u64) {
        let Some(sent) = self.sent.get_mut(&number) else { return };
        if sent.fate == Fate::Unknown {
            sent.fate = Fate::Refused;
            let seen = sent.offset;
            self.check(seen.is_none(), || format!("record {number} was refused, and it is at {seen:?}"));
        }
    }

    /// The broker said that a record is durable: at this offset if it said where.
    pub(super) fn acknowledged(&mut self, number: u64, offset: Option<i64>) {
        let Some(sent) = self.sent.get_mut(&number) else { return };
        sent.fate = Fate::Acknowledged;
        let place = sent.place;
        self.acknowledged += 1;
        if let Some(offset) = offset {
            self.fact(place, offset, number, "acknowledged");
        }
    }

    /// A record is at an offset for good: it was acknowledged or consumers saw it.
    fn fact(&mut self, place: Place, offset: i64, number: u64, how: &str) {
        if self.is_gone(place.0) {
            return;
        }
        let log = self.logs.entry(place).or_default();
        // A repeated batch is told where it was, and that may have been deleted meanwhile.
        let deleted = offset < log.start;
        let before = if deleted { None } else { log.facts.insert(offset, number) };
        let start_ms = log.start_ms;
        self.check(before.is_none_or(|before| before == number), || {
            format!("offset {offset} is {how} with record {number} and had {before:?}")
        });
        if number == MARKER {
            return;
        }
        let Some(sent) = self.sent.get_mut(&number) else {
            return self.fail(format!("record {number} at {offset} was never sent"));
        };
        let (at, floor, fate, of) = (sent.offset, sent.floor, sent.fate, sent.place);
        let too_young = deleted
            && self.retention.bytes.is_none()
            && self.retention.ms.is_none_or(|ms| sent.sent_ms + ms >= start_ms);
        sent.offset = Some(offset);
        self.check(!too_young, || {
            format!("record {number} at {offset} was deleted, which retention does not allow")
        });
        self.check(of == place, || format!("record {number} at {offset} was sent to another partition"));
        self.check(at.is_none_or(|at| at == offset), || {
            format!("record {number} is at {offset} and was at {at:?}: it is there twice")
        });
        self.check(offset >= floor, || {
            format!("record {number} is at {offset}, and {floor} was there before it was sent")
        });
        self.check(fate != Fate::Refused, || format!("record {number} was refused, and it is at {offset}"));
    }

    /// Part of a log as a consumer saw it, from `from` on, without a gap. What has no value is a marker.
    pub(super) fn seen(&mut self, place: Place, from: i64, records: &[(i64, Option<Vec<u8>>)]) {
        let mut expected = from;
        for (offset, value) in records {
            self.check(*offset == expected, || format!("offset {expected} is missing before {offset}"));
            expected = offset + 1;
            let Some(value) = value else {
                self.fact(place, *offset, MARKER, "seen");
                continue;
            };
            self.read += 1;
            match number_in(value) {
                Some(number) => self.fact(place, *offset, number, "seen"),
                None => self.fail(format!("the record at {offset} is not as anybody sent it: {value:?}")),
            }
        }
    }

    /// What is known of a partition's ends, to be held against an answer that is asked for now.
    pub(super) fn known_ends(&self, place: Place) -> (i64, i64) {
        self.logs.get(&place).map_or((0, 0), |log| {
            let last = log.facts.keys().next_back().map_or(0, |last| last + 1);
            (log.start, log.high_watermark.max(last))
        })
    }

    /// What an answer says of a partition's ends; they never go back behind what was known when it was asked for.
    pub(super) fn ends(&mut self, place: Place, known: (i64, i64), found: (i64, i64), now_ms: i64) {
        if self.is_gone(place.0) {
            return;
        }
        let (start, end) = found;
        self.check(end >= known.1, || format!("the high watermark is {end} and was {}", known.1));
        self.check(start >= known.0 || !stands(Known::LogStartStays), || {
            format!("the log's start is {start} and was {}", known.0)
        });
        self.check(start <= end, || format!("the log starts at {start} and ends at {end}"));
        let log = self.logs.entry(place).or_default();
        log.high_watermark = log.high_watermark.max(end);
        if start > log.start {
            self.starts_at(place, start, now_ms);
        } else if !stands(Known::LogStartStays) {
            log.start = start;
        }
    }

    fn starts_at(&mut self, place: Place, start: i64, now_ms: i64) {
        let log = self.logs.entry(place).or_default();
        let before = std::mem::replace(&mut log.start, start);
        log.start_ms = now_ms;
        let kept = log.facts.split_off(&start);
        let deleted = std::mem::replace(&mut log.facts, kept);
        let end = log.high_watermark;
        let kept_bytes: u64 =
            log.facts.values().filter_map(|number| self.sent.get(number)).map(|sent| sent.bytes).sum();
        let youngest =
            deleted.values().filter_map(|number| self.sent.get(number)).map(|sent| sent.sent_ms).max();
        let Retention { ms, bytes, slack_bytes } = self.retention;
        let by_age = ms.is_some_and(|ms| youngest.is_none_or(|youngest| youngest + ms < now_ms));
        let by_size = bytes.is_some_and(|bytes| kept_bytes + slack_bytes >= bytes);
        self.check(by_age || by_size, || {
            format!(
                "offsets {before} to {start} of {end} were deleted with {kept_bytes} bytes left, the youngest of \
                 {youngest:?} at {now_ms}, which retention does not allow"
            )
        });
    }

    /// A log was read from its start to its high watermark: what is known of it has to have been there.
    pub(super) fn read_whole(&mut self, place: Place, start: i64, end: i64) {
        let Some(log) = self.logs.get(&place) else { return };
        let missing: Vec<i64> = log.facts.keys().copied().filter(|at| *at < start || *at >= end).collect();
        self.check(missing.is_empty(), || {
            format!("offsets {missing:?} are not in the log of {start} to {end}")
        });
    }

    /// At the end: a record that was acknowledged as a repetition has to be somewhere, if nothing was deleted.
    pub(super) fn finish(&mut self) {
        let lost = self.sent.iter().find(|(_, sent)| {
            let log = self.logs.get(&sent.place);
            let whole = self.topics.get(&sent.place.0).is_some_and(|topic| !topic.gone)
                && log.is_none_or(|log| log.start == 0);
            whole && sent.fate == Fate::Acknowledged && sent.offset.is_none()
        });
        if let Some((number, _)) = lost {
            let what = format!("record {number} was acknowledged and is nowhere");
            self.fail(what);
        }
    }
}
