//! What a fetch has to do with its session (KIP-227): which partitions it is for, though it names only some of them,
//! and which of them its answer names. The rules are in [`fetch_session`](crate::fetch_session).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use klamm_protocol::messages::fetch::{FetchPartition, FetchTopic, FetchableTopicResponse, PartitionData};
use klamm_protocol::messages::{FetchRequest, FetchResponse};
use klamm_protocol::{ErrorCode, Records, Utf8Bytes, Uuid};
use klamm_runtime::Rng;
use tokio::time::Instant;

use crate::config::BrokerConfig;
use crate::fetch_session::{FetchSessions, Found, Place, Session, SessionLimits, Told, TopicKey, Wanted};

/// Kafka's limit for names of topics. A session remembers no longer ones: there is no such topic.
const NAME_LEN_MAX: usize = 249;
/// What a partition takes in a request that names it, and a topic beside its name.
const NAMED_PARTITION_BYTES: usize = 33;
const NAMED_TOPIC_BYTES: usize = 20;

/// The sessions of all clients. Nothing is done under their lock that takes longer where a session has more partitions:
/// one that is worked on is taken out.
#[derive(Debug)]
pub(crate) struct FetchVisits {
    sessions: Mutex<FetchSessions>,
    rng: Arc<dyn Rng>,
}

/// What a fetch is to its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Visit {
    /// It has none and wants none.
    Alone,
    /// It begins one, if there is room for it.
    First,
    /// It goes on with one.
    Next { id: i32, epoch: i32 },
}

impl FetchVisits {
    pub(crate) fn new(config: &BrokerConfig, rng: Arc<dyn Rng>) -> Self {
        let limits = SessionLimits {
            sessions: config.fetch_sessions_max,
            partitions: config.fetch_session_partitions_max,
            partitions_of_one: config.max_partitions,
        };
        Self { sessions: Mutex::new(FetchSessions::new(limits)), rng }
    }

    /// Makes of a request what it would be without a session: it names all partitions that it is for.
    ///
    /// # Errors
    /// What the client is told instead of an answer: it begins anew then.
    pub(super) fn enter(&self, request: &mut FetchRequest, by_id: bool) -> Result<Visit, ErrorCode> {
        let (id, epoch) = (request.session_id, request.session_epoch);
        if epoch == -1 || epoch == 0 {
            if id != 0 {
                self.sessions().end(id);
            }
            return Ok(if epoch == 0 { Visit::First } else { Visit::Alone });
        }
        let mut changed = Vec::new();
        for topic in &request.topics {
            let Some(key) = key(by_id, &topic.topic, topic.topic_id) else {
                self.sessions().end(id);
                return Err(ErrorCode::FetchSessionIdNotFound);
            };
            changed.extend(topic.partitions.iter().map(|one| ((key.clone(), one.partition), wanted(one))));
        }
        let forgotten = request.forgotten_topics_data.iter().flat_map(|topic| {
            let key = key(by_id, &topic.topic, topic.topic_id);
            let partitions = topic.partitions.iter();
            partitions.filter_map(move |partition| Some((key.clone()?, *partition)))
        });
        let forgotten: Vec<Place> = forgotten.collect();
        let mut session = self.sessions().take(id, epoch, by_id)?;
        for (place, wanted) in changed {
            session.set(place, wanted);
        }
        forgotten.iter().for_each(|place| session.forget(place));
        request.topics = topics_of(session.wanted());
        self.sessions().put_back(id, epoch, session, Instant::now())?;
        Ok(if request.topics.is_empty() { Visit::Alone } else { Visit::Next { id, epoch } })
    }

    /// Makes of the answer to all partitions of a request what the client is told of them.
    ///
    /// # Errors
    /// As with [`Self::enter`]: the client did not wait for the answer.
    pub(super) fn leave(
        &self,
        visit: Visit,
        request: &FetchRequest,
        by_id: bool,
        response: &mut FetchResponse,
    ) -> Result<(), ErrorCode> {
        match visit {
            Visit::Alone => {}
            Visit::First => response.session_id = self.begin(request, by_id, response).unwrap_or(0),
            Visit::Next { id, epoch } => {
                response.session_id = id;
                let found: Vec<Found> =
                    response.responses.iter().flat_map(|topic| &topic.partitions).map(found).collect();
                let taken = self.sessions().take_to_tell(id, epoch, found.len());
                let mut session = match taken {
                    // It has gone meanwhile. As in Kafka that is told with the next fetch: what was found is not lost.
                    Err(ErrorCode::FetchSessionIdNotFound) => return Ok(()),
                    taken => taken?,
                };
                let news = session.tell(&found);
                self.sessions().put_back_told(id, epoch, session);
                keep_news(&mut response.responses, news);
            }
        }
        Ok(())
    }

    /// The id of a new session; nothing when a topic is not one to be remembered.
    fn begin(&self, request: &FetchRequest, by_id: bool, response: &FetchResponse) -> Option<i32> {
        let mut all: Vec<(Place, Wanted, Found)> = Vec::new();
        for (topic, answer) in request.topics.iter().zip(&response.responses) {
            let key = key(by_id, &topic.topic, topic.topic_id)?;
            let partitions = topic.partitions.iter().zip(&answer.partitions);
            all.extend(
                partitions.map(|(one, answer)| ((key.clone(), one.partition), wanted(one), found(answer))),
            );
        }
        let random_id = || (self.rng.next_u64() >> 33) as i32;
        let session = Session::of(all);
        Some(self.sessions().begin(session, by_id, Instant::now(), random_id))
    }

    fn sessions(&self) -> MutexGuard<'_, FetchSessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many partitions a fetch is for.
pub(super) fn partition_count(request: &FetchRequest) -> usize {
    request.topics.iter().map(|topic| topic.partitions.len()).sum()
}

/// What a request takes that names all of its partitions, more or less.
pub(super) fn named_bytes(request: &FetchRequest) -> usize {
    let topic = |topic: &FetchTopic| {
        NAMED_TOPIC_BYTES + topic.topic.len() + topic.partitions.len() * NAMED_PARTITION_BYTES
    };
    request.topics.iter().map(topic).sum()
}

/// Its own copy of the name: a slice would keep the frame.
fn key(by_id: bool, name: &str, id: Uuid) -> Option<TopicKey> {
    if by_id {
        return Some(TopicKey::Id(id));
    }
    (name.len() <= NAME_LEN_MAX).then(|| TopicKey::Name(name.to_owned().into()))
}

fn wanted(partition: &FetchPartition) -> Wanted {
    Wanted {
        offset: partition.fetch_offset,
        max_bytes: partition.partition_max_bytes,
        leader_epoch: partition.current_leader_epoch,
    }
}

fn found(answer: &PartitionData) -> Found {
    Found {
        told: Told {
            high_watermark: answer.high_watermark,
            last_stable_offset: answer.last_stable_offset,
            log_start_offset: answer.log_start_offset,
        },
        has_records: answer.records.as_ref().is_some_and(|records| match records {
            Records::Bytes(bytes) => !bytes.is_empty(),
            Records::External { len, .. } => *len > 0,
        }),
        failed: answer.error_code != 0,
    }
}

/// The partitions of a session as a request names them, in their order: a topic comes as often as others are between
/// its partitions.
fn topics_of(all: Vec<(Place, Wanted)>) -> Vec<FetchTopic> {
    let mut topics: Vec<FetchTopic> = Vec::new();
    for ((key, partition), wanted) in all {
        let (topic, topic_id) = match key {
            TopicKey::Name(name) => (name, Uuid::ZERO),
            TopicKey::Id(id) => (Utf8Bytes::default(), id),
        };
        let partition = FetchPartition {
            partition,
            current_leader_epoch: wanted.leader_epoch,
            fetch_offset: wanted.offset,
            partition_max_bytes: wanted.max_bytes,
            ..FetchPartition::default()
        };
        match topics.last_mut().filter(|last| last.topic == topic && last.topic_id == topic_id) {
            Some(last) => last.partitions.push(partition),
            None => topics.push(FetchTopic {
                topic,
                topic_id,
                partitions: vec![partition],
                ..FetchTopic::default()
            }),
        }
    }
    topics
}

fn keep_news(topics: &mut Vec<FetchableTopicResponse>, news: Vec<bool>) {
    let mut news = news.into_iter();
    for topic in topics.iter_mut() {
        topic.partitions.retain(|_| news.next().unwrap_or(true));
    }
    topics.retain(|topic| !topic.partitions.is_empty());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_of_a_topic_are_named_together_where_they_follow_each_other() {
        let wanted = Wanted { offset: 5, max_bytes: 7, leader_epoch: 2 };
        let place = |name: &'static str, index| ((TopicKey::Name(name.into()), index), wanted);
        let topics = topics_of(vec![place("a", 0), place("a", 1), place("b", 0), place("a", 2)]);
        let named: Vec<(&str, Vec<i32>)> = topics
            .iter()
            .map(|topic| (&*topic.topic, topic.partitions.iter().map(|one| one.partition).collect()))
            .collect();
        assert_eq!(named, [("a", vec![0, 1]), ("b", vec![0]), ("a", vec![2])]);
        let first = &topics[0].partitions[0];
        assert_eq!((first.fetch_offset, first.partition_max_bytes, first.current_leader_epoch), (5, 7, 2));
    }

    #[test]
    fn what_is_no_news_is_left_out_and_a_topic_without_news_too() {
        let topic = |partitions: i32| FetchableTopicResponse {
            partitions: (0..partitions)
                .map(|partition_index| PartitionData { partition_index, ..PartitionData::default() })
                .collect(),
            ..FetchableTopicResponse::default()
        };
        let mut topics = vec![topic(2), topic(1), topic(2)];
        keep_news(&mut topics, vec![false, true, false, true, false]);
        let left: Vec<i32> =
            topics.iter().flat_map(|topic| &topic.partitions).map(|one| one.partition_index).collect();
        assert_eq!((topics.len(), left), (2, vec![1, 0]));
    }
}
