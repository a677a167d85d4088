//! What the controller decides: which commands become records, who is answered when, which topics others see, and when
//! directories are looked at again. Pure: `task.rs` brings it what happens and does what it says.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use klamm_protocol::{ErrorCode, Uuid};
use tokio::time::Instant;

use super::change::ChangeTopic;
use super::change_broker::ChangeBroker;
use super::change_quotas::ChangeQuotas;
use super::command::{CreateTopic, Surroundings, TopicError};
use super::image::{Image, Topic};
use super::record::MetadataRecord;

/// Producer ids are taken from the log in blocks; what is left of a block when the broker stops is never used.
const PRODUCER_ID_BLOCK: i64 = 1_000;
/// When to look again at directories that could not be made or removed; doubled each time up to the longest.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// Who waits for an answer.
pub(super) type Ticket = u64;

/// What somebody wants done.
#[derive(Debug, Clone)]
pub(super) enum Command {
    /// A topic, or with the flag only to be told what would come of it.
    Create(CreateTopic, bool),
    /// A change of a topic, or with the flag only to be told whether it can be.
    Change(ChangeTopic, bool),
    /// A change of a broker's settings, or with the flag only to be told whether it can be.
    ChangeBroker(ChangeBroker, bool),
    /// Somebody's quotas: names and values, none for one that goes. With the flag only to be told whether that can be.
    ChangeQuotas(ChangeQuotas, bool),
    /// A topic's end.
    Delete(Uuid),
    /// More producer ids.
    ProducerIds,
}

/// A command was carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Done {
    Created(Topic),
    Changed(Topic),
    Altered,
    Deleted,
    ProducerIds,
}

pub(super) type Answer = Result<Done, TopicError>;

/// What a command comes to that needs not be written, and the topic that it is about.
type Decided = (Answer, Option<(Arc<str>, Uuid)>);

/// A topic is gone, for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeletedTopic {
    /// Its id, which no other topic gets.
    pub id: Uuid,
    /// Its name, which another topic may have by now.
    pub name: String,
}

/// A command that is accepted and has to be written. When that is done or has failed, [`Core::written`] or
/// [`Core::not_written`] wants it back.
#[derive(Debug)]
pub(super) struct Accepted {
    ticket: Ticket,
    /// One batch of the metadata log.
    pub(super) records: Vec<MetadataRecord>,
    done: Done,
    /// The topic that it is about.
    topic: Option<(Arc<str>, Uuid)>,
}

/// What a look at the directories of one name came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attempt {
    pub(super) name: Arc<str>,
    /// The topic that had the name when the look began.
    pub(super) topic: Option<Uuid>,
    /// Why not everything is as it should be.
    pub(super) failure: Option<String>,
}

/// What has to be done now, in this order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Effects {
    /// Ids to be handed out.
    pub(super) producer_ids: Option<Range<i64>>,
    /// What others see has changed.
    pub(super) publish: bool,
    pub(super) deleted: Vec<DeletedTopic>,
    pub(super) answers: Vec<(Ticket, Answer)>,
}

/// The controller's state.
#[derive(Debug)]
pub(super) struct Core {
    surroundings: Surroundings,
    committed: Image,
    /// The committed image and, on top of it, what is written but perhaps not durable: what commands are checked
    /// against.
    written: Image,
    /// What waits for the disk, in the order of the log.
    in_flight: Vec<InFlight>,
    /// Topics that nobody sees yet, because their logs are being made for the first time.
    fresh: BTreeSet<Uuid>,
    /// Names whose directories have to be looked at, and who waits for that.
    dirty: BTreeMap<Arc<str>, Vec<Waiter>>,
    /// Names whose directories are being looked at.
    passing: BTreeMap<Arc<str>, Vec<Waiter>>,
    /// Names whose directories are not as they should be.
    failed: BTreeSet<Arc<str>>,
    retry_at: Option<Instant>,
    retry_delay: Duration,
    effects: Effects,
}

#[derive(Debug)]
struct InFlight {
    ticket: Ticket,
    records: Vec<MetadataRecord>,
    answer: Answer,
    topic: Option<(Arc<str>, Uuid)>,
}

#[derive(Debug)]
struct Waiter {
    ticket: Ticket,
    answer: Answer,
}

impl Core {
    /// The controller of a cluster that is what its log says.
    pub(super) fn new(image: Image, surroundings: Surroundings) -> Self {
        Self {
            surroundings,
            written: image.clone(),
            committed: image,
            in_flight: Vec::new(),
            fresh: BTreeSet::new(),
            dirty: BTreeMap::new(),
            passing: BTreeMap::new(),
            failed: BTreeSet::new(),
            retry_at: None,
            retry_delay: FIRST_RETRY,
            effects: Effects::default(),
        }
    }

    /// The metadata as it is committed: what directories have to follow.
    pub(super) fn committed(&self) -> &Image {
        &self.committed
    }

    /// The metadata as others see it: a topic is there when its logs are, or could not be made.
    pub(super) fn visible(&self) -> Image {
        let mut image = self.committed.clone();
        self.fresh.iter().for_each(|id| image.hide(*id));
        image
    }

    /// Takes what has to be done.
    pub(super) fn take_effects(&mut self) -> Effects {
        std::mem::take(&mut self.effects)
    }

    /// Decides a command. What is returned has to be written; nothing means that it is answered, now or when
    /// what it rests on is durable.
    pub(super) fn propose(
        &mut self,
        ticket: Ticket,
        command: &Command,
        fresh_id: impl FnMut() -> Uuid,
    ) -> Option<Accepted> {
        let (answer, topic) = match command {
            Command::Create(wanted, validate_only) => match self.create(wanted, *validate_only, fresh_id) {
                Ok((topic, records)) if !records.is_empty() => {
                    let about = Some((topic.name.clone(), topic.id));
                    return Some(Accepted { ticket, records, done: Done::Created(topic), topic: about });
                }
                Ok((topic, _)) => (Ok(Done::Created(topic)), None),
                Err(error) => {
                    let there = self.written.topic(&wanted.name).map(|topic| (topic.name.clone(), topic.id));
                    (Err(error), there)
                }
            },
            Command::Change(wanted, validate_only) => match self.change(ticket, wanted, *validate_only) {
                Ok(accepted) => return Some(accepted),
                Err(decided) => decided,
            },
            Command::ChangeBroker(wanted, validate_only) => {
                match altered(ticket, wanted.records(&self.written), *validate_only) {
                    Ok(accepted) => return Some(accepted),
                    Err(answer) => (answer, None),
                }
            }
            Command::ChangeQuotas(wanted, validate_only) => {
                match altered(ticket, wanted.records(&self.written), *validate_only) {
                    Ok(accepted) => return Some(accepted),
                    Err(answer) => (answer, None),
                }
            }
            Command::Delete(id) => match self.written.topic_by_id(*id) {
                Some(topic) => {
                    let (topic, records) =
                        (topic.name.clone(), vec![MetadataRecord::RemoveTopic { id: *id }]);
                    return Some(Accepted {
                        ticket,
                        records,
                        done: Done::Deleted,
                        topic: Some((topic, *id)),
                    });
                }
                None => {
                    let message = format!("there is no topic with the id {id}");
                    (Err(TopicError::new(ErrorCode::UnknownTopicId, message)), None)
                }
            },
            Command::ProducerIds => {
                let next = self.written.next_producer_id();
                // One block is enough for all who wait.
                if next == self.committed.next_producer_id() {
                    let records = vec![MetadataRecord::ProducerIds { next: next + PRODUCER_ID_BLOCK }];
                    return Some(Accepted { ticket, records, done: Done::ProducerIds, topic: None });
                }
                (Ok(Done::ProducerIds), None)
            }
        };
        let decided = InFlight { ticket, records: Vec::new(), answer, topic };
        if self.in_flight.is_empty() {
            self.finish(decided);
        } else {
            self.in_flight.push(decided);
        }
        None
    }

    /// The records of a command are in the log, in its order, but perhaps not durable.
    pub(super) fn written(&mut self, accepted: Accepted) {
        let Accepted { ticket, records, done, topic } = accepted;
        records.iter().for_each(|record| self.written.apply(record));
        self.in_flight.push(InFlight { ticket, records, answer: Ok(done), topic });
    }

    /// The records of a command are not in the log.
    pub(super) fn not_written(&mut self, accepted: &Accepted, error: TopicError) {
        self.effects.answers.push((accepted.ticket, Err(error)));
    }

    /// Everything that was written is durable: committed.
    pub(super) fn commit(&mut self) {
        self.committed = self.written.clone();
        for decided in std::mem::take(&mut self.in_flight) {
            self.finish(decided);
        }
    }

    /// Whether what was written is durable is not known, and nothing more can be until a restart.
    pub(super) fn lost(&mut self, error: &TopicError) {
        self.written = self.committed.clone();
        let undecided = std::mem::take(&mut self.in_flight);
        self.effects
            .answers
            .extend(undecided.into_iter().map(|undecided| (undecided.ticket, Err(error.clone()))));
    }

    /// Directories of these names may not be what they should be.
    pub(super) fn suspect(&mut self, names: impl IntoIterator<Item = Arc<str>>) {
        for name in names {
            self.dirty.entry(name).or_default();
        }
    }

    /// Begins to look at directories: those of the returned names, under the committed image as it is now. Nothing when
    /// there is no need. A name that is being looked at has to wait for the end of that; for each of the others
    /// [`Self::end_pass`] has to come, for all together or one after the other.
    pub(super) fn begin_pass(&mut self, now: Instant) -> Option<Vec<Arc<str>>> {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            self.suspect(self.failed.clone());
        }
        let mut names = Vec::new();
        for (name, waiters) in std::mem::take(&mut self.dirty) {
            match self.passing.entry(name) {
                Entry::Occupied(under_way) => drop(self.dirty.insert(under_way.key().clone(), waiters)),
                Entry::Vacant(free) => {
                    names.push(free.key().clone());
                    free.insert(waiters);
                }
            }
        }
        (!names.is_empty()).then_some(names)
    }

    /// The settings of logs are others now: directories that are being looked at may have got the ones before.
    pub(super) fn suspect_passing(&mut self) {
        let passing: Vec<_> = self.passing.keys().cloned().collect();
        self.suspect(passing);
    }

    /// What came of it, for some of the names.
    pub(super) fn end_pass(&mut self, attempts: &[Attempt], now: Instant) {
        for attempt in attempts {
            if let Some(id) = attempt.topic {
                self.fresh.remove(&id);
                self.effects.publish = true;
            }
            match &attempt.failure {
                Some(_) => self.failed.insert(attempt.name.clone()),
                None => self.failed.remove(&attempt.name),
            };
            for waiter in self.passing.remove(&attempt.name).unwrap_or_default() {
                self.effects.answers.push((waiter.ticket, attempt.judge(waiter.answer)));
            }
        }
        if self.failed.is_empty() {
            (self.retry_at, self.retry_delay) = (None, FIRST_RETRY);
        } else if self.retry_at.is_none() && self.failed.iter().any(|name| !self.passing.contains_key(name)) {
            self.retry_at = Some(now + self.retry_delay);
            self.retry_delay = (self.retry_delay * 2).min(LONGEST_RETRY);
        }
    }

    /// When a look is due that nobody asked for.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    fn create(
        &self,
        wanted: &CreateTopic,
        validate_only: bool,
        mut fresh_id: impl FnMut() -> Uuid,
    ) -> Result<(Topic, Vec<MetadataRecord>), TopicError> {
        let mut id = fresh_id();
        while self.written.topic_by_id(id).is_some() || self.written.was_deleted(id) {
            id = fresh_id();
        }
        let (topic, records) = wanted.records(&self.written, self.surroundings, id)?;
        if validate_only {
            return Ok((Topic { id: Uuid::ZERO, ..topic }, Vec::new()));
        }
        Ok((topic, records))
    }

    /// A change of a topic that has to be written, or what it comes to and which topic that is about.
    fn change(&self, ticket: Ticket, wanted: &ChangeTopic, validate_only: bool) -> Result<Accepted, Decided> {
        match wanted.records(&self.written, self.surroundings) {
            Ok((topic, records)) if !records.is_empty() && !validate_only => {
                let about = Some((topic.name.clone(), topic.id));
                Ok(Accepted { ticket, records, done: Done::Changed(topic), topic: about })
            }
            Ok((topic, _)) => {
                // What it is like already may not be in its directories yet.
                let about = (!validate_only).then(|| (topic.name.clone(), topic.id));
                Err((Ok(Done::Changed(topic)), about))
            }
            Err(error) => Err((Err(error), None)),
        }
    }

    /// What a command came to is certain.
    fn finish(&mut self, decided: InFlight) {
        let InFlight { ticket, records, answer, topic } = decided;
        match (&answer, &topic, records.first()) {
            (Ok(Done::Created(_)), Some((name, id)), Some(_)) => {
                self.fresh.insert(*id);
                self.dirty.entry(name.clone()).or_default().push(Waiter { ticket, answer });
            }
            (Ok(Done::Changed(_)), Some((name, _)), Some(_)) => {
                self.dirty.entry(name.clone()).or_default().push(Waiter { ticket, answer });
            }
            (Ok(Done::Changed(_)), Some((name, _)), None) => {
                match self.dirty.get_mut(name).or_else(|| self.passing.get_mut(name)) {
                    Some(waiters) => waiters.push(Waiter { ticket, answer }),
                    None => self.effects.answers.push((ticket, answer)),
                }
            }
            (Ok(Done::Deleted), Some((name, id)), Some(_)) => {
                self.fresh.remove(id);
                self.effects.publish = true;
                self.effects.deleted.push(DeletedTopic { id: *id, name: name.to_string() });
                self.dirty.entry(name.clone()).or_default().push(Waiter { ticket, answer });
            }
            (Ok(Done::Altered), _, Some(_)) => {
                self.effects.publish = true;
                self.effects.answers.push((ticket, answer));
            }
            (Ok(Done::ProducerIds), _, Some(MetadataRecord::ProducerIds { next })) => {
                self.effects.producer_ids = Some(next - PRODUCER_ID_BLOCK..*next);
                self.effects.answers.push((ticket, answer));
            }
            // The topic exists, but whoever hears that wants to use it.
            (Err(_), Some((name, id)), None) if self.fresh.contains(id) => {
                let waiters = match self.dirty.get_mut(name) {
                    Some(waiters) => waiters,
                    None => self.passing.entry(name.clone()).or_default(),
                };
                waiters.push(Waiter { ticket, answer });
            }
            _ => self.effects.answers.push((ticket, answer)),
        }
    }
}

/// A change that no directory has to follow: to be written, or what it comes to.
fn altered(
    ticket: Ticket,
    records: Result<Vec<MetadataRecord>, TopicError>,
    validate_only: bool,
) -> Result<Accepted, Answer> {
    match records {
        Ok(records) if !records.is_empty() && !validate_only => {
            Ok(Accepted { ticket, records, done: Done::Altered, topic: None })
        }
        decided => Err(decided.map(|_| Done::Altered)),
    }
}

impl Attempt {
    /// The answer to somebody who waited for this.
    fn judge(&self, answer: Answer) -> Answer {
        match (answer, &self.failure) {
            (Ok(Done::Created(topic)), Some(why)) if self.topic == Some(topic.id) => {
                let message = format!(
                    "topic {} was created, but not all of its logs could be: {why}. The broker goes on trying; there \
                     is no need to create the topic again",
                    topic.name
                );
                Err(TopicError::new(ErrorCode::KafkaStorageError, message))
            }
            (Ok(Done::Changed(topic)), Some(why)) if self.topic == Some(topic.id) => {
                let message = format!(
                    "topic {} was changed, but not all of its logs are as they should be: {why}. The broker goes on \
                     trying; there is no need to change the topic again",
                    topic.name
                );
                Err(TopicError::new(ErrorCode::KafkaStorageError, message))
            }
            (answer, _) => answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Surroundings = Surroundings { node_id: 1, default_partitions: 1, max_partitions: 10 };
    const A: Uuid = Uuid::from_u128(10);
    const B: Uuid = Uuid::from_u128(11);

    fn core() -> Core {
        Core::new(Image::default(), HERE)
    }

    fn create(name: &str) -> Command {
        let topic = CreateTopic {
            name: name.into(),
            partitions: -1,
            replication_factor: -1,
            ..CreateTopic::default()
        };
        Command::Create(topic, false)
    }

    fn topic(name: &str, id: Uuid) -> Topic {
        Topic { name: name.into(), id, partitions: 1, settings: BTreeMap::new() }
    }

    /// Proposes and writes.
    fn write(core: &mut Core, ticket: Ticket, command: &Command, id: Uuid) {
        let accepted = core.propose(ticket, command, || id).unwrap();
        core.written(accepted);
    }

    fn attempt(name: &str, topic: Option<Uuid>, failure: Option<&str>) -> Attempt {
        Attempt { name: name.into(), topic, failure: failure.map(Into::into) }
    }

    fn answers(core: &mut Core) -> Vec<(Ticket, Result<Done, ErrorCode>)> {
        let answers = core.take_effects().answers.into_iter();
        answers.map(|(ticket, answer)| (ticket, answer.map_err(|error| error.code))).collect()
    }

    #[test]
    fn a_topic_is_seen_and_answered_when_its_logs_are_there() {
        let (mut core, now) = (core(), Instant::now());
        write(&mut core, 1, &create("a"), A);
        assert_eq!(
            (core.take_effects(), core.begin_pass(now)),
            (Effects::default(), None),
            "not durable yet"
        );
        core.commit();
        assert_eq!(core.take_effects(), Effects::default());
        assert!(core.visible().topic("a").is_none() && core.committed().topic("a").is_some());
        assert_eq!(core.begin_pass(now), Some(vec!["a".into()]));
        assert_eq!(core.begin_pass(now), None, "a look is under way");
        core.end_pass(&[attempt("a", Some(A), None)], now);
        let done = Ok(Done::Created(topic("a", A)));
        let expected = Effects { publish: true, answers: vec![(1, done)], ..Effects::default() };
        assert_eq!(core.take_effects(), expected);
        assert_eq!(core.visible(), *core.committed());
        assert_eq!((core.begin_pass(now), core.retry_at()), (None, None));
    }

    #[test]
    fn a_deletion_is_told_when_it_is_durable_and_answered_when_it_is_done() {
        let (mut core, now) = (core(), Instant::now());
        write(&mut core, 1, &create("a"), A);
        core.commit();
        core.begin_pass(now);
        core.end_pass(&[attempt("a", Some(A), None)], now);
        core.take_effects();
        write(&mut core, 2, &Command::Delete(A), B);
        assert!(core.propose(3, &Command::Delete(A), || B).is_none(), "somebody was faster");
        assert_eq!(core.take_effects(), Effects::default(), "though not for certain");
        core.commit();
        let effects = core.take_effects();
        assert!(effects.publish && effects.producer_ids.is_none());
        assert_eq!(effects.deleted, [DeletedTopic { id: A, name: "a".into() }]);
        assert_eq!(effects.answers.len(), 1);
        assert_eq!(effects.answers[0].1.as_ref().unwrap_err().code, ErrorCode::UnknownTopicId);
        assert_eq!(core.begin_pass(now), Some(vec!["a".into()]));
        core.end_pass(&[attempt("a", None, Some("stuck"))], now);
        assert_eq!(answers(&mut core), [(2, Ok(Done::Deleted))], "the topic is gone, whatever is left of it");
        assert!(core.retry_at().is_some());
    }

    #[test]
    fn what_cannot_be_made_is_told_and_tried_again_ever_later_until_it_can() {
        let (mut core, mut now) = (core(), Instant::now());
        write(&mut core, 1, &create("a"), A);
        core.commit();
        core.begin_pass(now);
        core.end_pass(&[attempt("a", Some(A), Some("no space"))], now);
        let effects = core.take_effects();
        let error = effects.answers[0].1.as_ref().unwrap_err();
        assert_eq!(error.code, ErrorCode::KafkaStorageError);
        assert!(error.message.contains("topic a was created") && error.message.contains("no space"));
        assert!(effects.publish && core.visible().topic("a").is_some());
        for delay_ms in [100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000] {
            let due = now + Duration::from_millis(delay_ms);
            assert_eq!(core.retry_at(), Some(due));
            assert_eq!(core.begin_pass(due - Duration::from_millis(1)), None);
            assert_eq!(core.begin_pass(due), Some(vec!["a".into()]));
            assert_eq!(core.retry_at(), None, "a look is under way");
            now = due;
            core.end_pass(&[attempt("a", Some(A), Some("no space"))], now);
        }
        // A look at another name in between neither hastens nor delays it.
        let due = core.retry_at();
        core.suspect(["b".into()]);
        core.begin_pass(now);
        core.end_pass(&[attempt("b", None, None)], now);
        assert_eq!(core.retry_at(), due);
        now += Duration::from_secs(30);
        core.begin_pass(now);
        core.end_pass(&[attempt("a", Some(A), None)], now);
        assert!(core.retry_at().is_none());
        core.suspect(["a".into()]);
        core.begin_pass(now);
        core.end_pass(&[attempt("a", Some(A), Some("again"))], now);
        assert_eq!(core.retry_at(), Some(now + FIRST_RETRY), "and the delays begin anew");
    }

    /// A directory that hangs held up all names, because there was one look at a time.
    #[test]
    fn a_look_that_does_not_end_holds_up_its_own_name() {
        let (mut core, now) = (core(), Instant::now());
        write(&mut core, 1, &create("a"), A);
        core.commit();
        assert_eq!(core.begin_pass(now), Some(vec!["a".into()]));
        write(&mut core, 2, &create("b"), B);
        write(&mut core, 3, &Command::Delete(A), B);
        core.commit();
        assert_eq!(core.begin_pass(now), Some(vec!["b".into()]));
        assert_eq!(core.begin_pass(now), None);
        core.end_pass(&[attempt("b", Some(B), Some("no space"))], now);
        assert_eq!(answers(&mut core), [(2, Err(ErrorCode::KafkaStorageError))]);
        // It is tried again meanwhile, and nothing is due while that goes on.
        let due = now + FIRST_RETRY;
        assert_eq!((core.retry_at(), core.begin_pass(due)), (Some(due), Some(vec!["b".into()])));
        core.suspect(["c".into()]);
        assert_eq!(core.begin_pass(due), Some(vec!["c".into()]));
        core.end_pass(&[attempt("c", None, None)], due);
        assert_eq!(core.retry_at(), None);
        core.end_pass(&[attempt("b", Some(B), Some("no space"))], due);
        assert_eq!(core.retry_at(), Some(due + 2 * FIRST_RETRY));
        core.end_pass(&[attempt("a", Some(A), None)], due);
        assert_eq!(answers(&mut core), [(1, Ok(Done::Created(topic("a", A))))]);
        assert_eq!(core.begin_pass(due), Some(vec!["a".into()]), "now its deletion is seen to");
        core.end_pass(&[attempt("a", None, None)], due);
        assert_eq!(answers(&mut core), [(3, Ok(Done::Deleted))]);
    }

    #[test]
    fn who_hears_that_a_topic_exists_can_use_it() {
        let (mut core, now) = (core(), Instant::now());
        write(&mut core, 1, &create("a"), A);
        assert!(core.propose(2, &create("a"), || B).is_none());
        core.commit();
        assert!(core.propose(3, &create("a"), || B).is_none());
        core.begin_pass(now);
        assert!(core.propose(4, &create("a"), || B).is_none());
        assert_eq!(core.take_effects(), Effects::default());
        core.end_pass(&[attempt("a", Some(A), None)], now);
        assert!(core.propose(5, &create("a"), || B).is_none());
        let exists = || Err(ErrorCode::TopicAlreadyExists);
        let created = Ok(Done::Created(topic("a", A)));
        assert_eq!(
            answers(&mut core),
            [(1, created), (2, exists()), (3, exists()), (4, exists()), (5, exists())]
        );
    }

    #[test]
    fn a_round_that_is_lost_changes_nothing_and_everybody_in_it_is_told() {
        let mut core = core();
        write(&mut core, 1, &create("a"), A);
        write(&mut core, 2, &Command::ProducerIds, A);
        assert!(core.propose(3, &create("a"), || B).is_none());
        let accepted = core.propose(4, &create("b"), || B).unwrap();
        core.not_written(&accepted, TopicError::new(ErrorCode::KafkaStorageError, "full"));
        assert_eq!(answers(&mut core), [(4, Err(ErrorCode::KafkaStorageError))]);
        core.lost(&TopicError::new(ErrorCode::KafkaStorageError, "gone"));
        let told = answers(&mut core);
        assert_eq!(told.iter().map(|(ticket, _)| *ticket).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(told.iter().all(|(_, answer)| *answer == Err(ErrorCode::KafkaStorageError)));
        assert_eq!(*core.committed(), Image::default());
        assert!(core.propose(5, &create("a"), || A).is_some(), "nothing stands in the way");
    }

    #[test]
    fn one_block_of_producer_ids_serves_all_who_wait() {
        let mut core = core();
        write(&mut core, 1, &Command::ProducerIds, A);
        assert!(core.propose(2, &Command::ProducerIds, || A).is_none());
        assert_eq!(core.take_effects(), Effects::default());
        core.commit();
        let answers = vec![(1, Ok(Done::ProducerIds)), (2, Ok(Done::ProducerIds))];
        let expected = Effects { producer_ids: Some(0..1_000), answers, ..Effects::default() };
        assert_eq!(core.take_effects(), expected);
        write(&mut core, 3, &Command::ProducerIds, A);
        core.commit();
        assert_eq!(core.take_effects().producer_ids, Some(1_000..2_000));
    }

    #[test]
    fn asking_what_would_come_of_it_changes_nothing_and_ids_are_never_used_twice() {
        let mut core = core();
        let Command::Create(wanted, _) = create("a") else { panic!("a create") };
        assert!(core.propose(1, &Command::Create(wanted, true), || A).is_none());
        assert_eq!(answers(&mut core), [(1, Ok(Done::Created(topic("a", Uuid::ZERO))))]);
        assert_eq!(*core.committed(), Image::default());
        write(&mut core, 2, &create("a"), A);
        write(&mut core, 3, &Command::Delete(A), A);
        let mut ids = [A, A, B].into_iter();
        let accepted = core.propose(4, &create("a"), || ids.next().unwrap()).unwrap();
        assert_eq!(accepted.records[0], MetadataRecord::Topic { name: "a".into(), id: B });
    }

    #[test]
    fn a_topic_that_is_gone_before_its_logs_were_made_is_never_seen() {
        let (mut core, now) = (core(), Instant::now());
        write(&mut core, 1, &create("a"), A);
        core.commit();
        core.begin_pass(now);
        write(&mut core, 2, &Command::Delete(A), B);
        write(&mut core, 3, &create("a"), B);
        core.commit();
        assert_eq!(core.take_effects().deleted.len(), 1);
        core.end_pass(&[attempt("a", Some(A), Some("no space"))], now);
        assert_eq!(answers(&mut core), [(1, Err(ErrorCode::KafkaStorageError))]);
        assert!(core.visible().topic("a").is_none(), "neither the one nor, yet, the other");
        assert_eq!(core.begin_pass(now), Some(vec!["a".into()]));
        core.end_pass(&[attempt("a", Some(B), None)], now);
        assert_eq!(answers(&mut core), [(2, Ok(Done::Deleted)), (3, Ok(Done::Created(topic("a", B))))]);
        assert_eq!(core.visible().topic("a").map(|topic| topic.id), Some(B));
        assert!(core.retry_at().is_none());
    }
}
