//! What a bystander between client and broker knows: the script, what was asked and what was committed. Pure.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use klamm_protocol::frame::{LENGTH_BYTES, decode_response, encode_response};
use klamm_protocol::messages::*;
use klamm_protocol::{ApiKey, ErrorCode, Uuid};
use tokio::time::Instant;

use super::answers::{Outcome, answer};
use super::received::{Body, Received, Seen};
use super::script::{Script, Verdict};
use super::state::{State, Topic};
use crate::types::TopicPartition;

/// How many commits are kept.
const COMMITS_MAX: usize = 100_000;

/// An offset that a group committed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SeenCommit {
    /// Of which partition.
    pub partition: TopicPartition,
    /// The offset of the next record to read.
    pub offset: i64,
    /// When the broker had taken it.
    pub at: Instant,
}

/// Where somebody asked for records.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SeenFetch {
    /// Of which partition.
    pub partition: TopicPartition,
    /// From which offset on.
    pub offset: i64,
    /// When it was asked for.
    pub at: Instant,
}

/// Of a topic, if it is known: partitions with offsets.
type Offsets = (Option<Arc<str>>, Vec<(i32, i64)>);

#[derive(Debug, Default)]
pub(super) struct Watched {
    pub(super) script: Script,
    pub(super) seen: Seen,
    commits: VecDeque<(Arc<str>, SeenCommit)>,
    names: HashMap<Uuid, Arc<str>>,
}

/// Of partitions and what was answered for them, those that were refused.
fn refused(parts: impl Iterator<Item = (i32, i16)>) -> Vec<i32> {
    parts.filter(|(_, code)| *code != 0).map(|(index, _)| index).collect()
}

impl Watched {
    /// A request comes by: what is to happen to it.
    pub(super) fn request(&mut self, received: &Received, now: Instant) -> Verdict {
        self.seen.note(received, now);
        if self.script.len() == 0 {
            return Verdict::default();
        }
        let name = |id: Uuid| self.names.get(&id).cloned();
        let named = received.body.as_ref().map(|body| body.partitions(name)).unwrap_or_default();
        self.script.verdict(received.api, &named)
    }

    /// An answer comes by: what the broker did, and which topics there are.
    pub(super) fn answered(&mut self, received: &Received, frame: &Bytes, now: Instant) {
        let (body, version) = (frame.slice(LENGTH_BYTES.min(frame.len())..), received.version);
        match &received.body {
            Some(Body::Metadata(_)) => {
                let Ok((_, answer)) = decode_response::<MetadataRequest>(body, version) else { return };
                for topic in answer.topics {
                    if let Some(name) = topic.name.filter(|_| !topic.topic_id.is_zero()) {
                        self.names.insert(topic.topic_id, Arc::from(&*name));
                    }
                }
            }
            Some(Body::OffsetCommit(request)) => {
                let Ok((_, answer)) = decode_response::<OffsetCommitRequest>(body, version) else { return };
                let refused = answer.topics.iter().map(|topic| {
                    refused(topic.partitions.iter().map(|part| (part.partition_index, part.error_code)))
                });
                let refused: Vec<_> = refused.collect();
                let topics = request.topics.iter().map(|topic| {
                    let parts = topic.partitions.iter();
                    let offsets = parts.map(|part| (part.partition_index, part.committed_offset)).collect();
                    (self.name(&topic.name, topic.topic_id), offsets)
                });
                let topics = topics.collect();
                self.note_commits(&request.group_id, topics, &refused, now);
            }
            Some(Body::TxnOffsetCommit(request)) => {
                let Ok((_, answer)) = decode_response::<TxnOffsetCommitRequest>(body, version) else {
                    return;
                };
                let refused = answer.topics.iter().map(|topic| {
                    refused(topic.partitions.iter().map(|part| (part.partition_index, part.error_code)))
                });
                let refused: Vec<_> = refused.collect();
                let topics = request.topics.iter().map(|topic| {
                    let parts = topic.partitions.iter();
                    let offsets = parts.map(|part| (part.partition_index, part.committed_offset)).collect();
                    (Some(Arc::from(&*topic.name)), offsets)
                });
                let topics = topics.collect();
                self.note_commits(&request.group_id, topics, &refused, now);
            }
            _ => {}
        }
    }

    fn name(&self, text: &str, id: Uuid) -> Option<Arc<str>> {
        if id.is_zero() { Some(Arc::from(text)) } else { self.names.get(&id).cloned() }
    }

    fn note_commits(&mut self, group: &str, topics: Vec<Offsets>, refused: &[Vec<i32>], at: Instant) {
        let group: Arc<str> = group.into();
        for (index, (name, offsets)) in topics.into_iter().enumerate() {
            let Some(name) = name else { continue };
            for (number, offset) in offsets {
                if refused.get(index).is_none_or(|refused| refused.contains(&number)) {
                    continue;
                }
                let partition = TopicPartition::new(Arc::clone(&name), number);
                self.commits.push_back((Arc::clone(&group), SeenCommit { partition, offset, at }));
            }
        }
        let more = self.commits.len().saturating_sub(COMMITS_MAX);
        self.commits.drain(..more);
    }

    pub(super) fn commits(&self, group: &str) -> Vec<SeenCommit> {
        let of_group = self.commits.iter().filter(|(of, _)| **of == *group);
        of_group.map(|(_, commit)| commit.clone()).collect()
    }

    /// Where records were asked for, in order, as far as the requests are kept.
    pub(super) fn fetches(&self) -> Vec<SeenFetch> {
        let mut fetches = Vec::new();
        for seen in self.seen.newest(ApiKey::Fetch) {
            let Ok(request) = seen.decode::<FetchRequest>() else { continue };
            for topic in &request.topics {
                let Some(name) = self.name(&topic.topic, topic.topic_id) else { continue };
                fetches.extend(topic.partitions.iter().map(|part| SeenFetch {
                    partition: TopicPartition::new(Arc::clone(&name), part.partition),
                    offset: part.fetch_offset,
                    at: seen.at,
                }));
            }
        }
        fetches
    }

    /// The answer to a request that is refused as a whole, with its length; `None` if it has none.
    pub(super) fn refusal(&self, received: &Received, code: ErrorCode, now: Instant) -> Option<Bytes> {
        if received.api == ApiKey::Fetch {
            // A session's request does not name its partitions.
            let answer = FetchResponse { error_code: code.code(), ..Default::default() };
            let encoded = encode_response(received.api, &answer, received.version, received.correlation_id);
            return encoded.ok().map(|encoded| encoded.bytes);
        }
        let mut state = State::new("");
        let mut ids = Vec::new();
        if let Some(body) = &received.body {
            let ids = std::cell::RefCell::new(&mut ids);
            let named = body.partitions(|id| {
                let name = self.names.get(&id).cloned().unwrap_or_else(|| id.to_string().into());
                ids.borrow_mut().push((id, Arc::clone(&name)));
                Some(name)
            });
            for TopicPartition { topic, .. } in named {
                // A name that no topic can have is answered for as well.
                let _ = state.make_topic(&topic, 1);
            }
        }
        for (id, name) in ids {
            state.topics.insert(name, Topic { id, partitions: Vec::new() });
        }
        match answer(&mut state, received, &Verdict::refusing(code), (now, true), now) {
            Outcome::Answer(frame) => Some(frame),
            Outcome::Nothing | Outcome::Hold(_) | Outcome::Close => None,
        }
    }
}

/// The answer to a look at the metadata with the error for its topics: brokers stay known.
pub(super) fn refused_metadata(received: &Received, frame: &Bytes, code: ErrorCode) -> Option<Bytes> {
    let body = frame.slice(LENGTH_BYTES.min(frame.len())..);
    let (id, mut answer) = decode_response::<MetadataRequest>(body, received.version).ok()?;
    for topic in &mut answer.topics {
        topic.error_code = code.code();
        topic.partitions.clear();
    }
    Some(encode_response(received.api, &answer, received.version, id).ok()?.bytes)
}

/// A frame with its length before it.
pub(super) fn with_length(frame: &[u8]) -> Bytes {
    let mut whole = BytesMut::with_capacity(LENGTH_BYTES + frame.len());
    whole.put_i32(i32::try_from(frame.len()).unwrap_or(i32::MAX));
    whole.put_slice(frame);
    whole.freeze()
}
