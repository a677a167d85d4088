//! A request as it came in: its header, its body, the partitions that it names; and those that a test may look at.
//! Pure.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use klamm_protocol::frame::decode_request_header;
use klamm_protocol::messages::*;
use klamm_protocol::{ApiKey, DecodeError, Decoder, Message, Request, Utf8Bytes, Uuid};
use tokio::time::Instant;

use crate::types::TopicPartition;

/// How many requests are kept for tests to look at, the newest ones.
const SEEN_MAX: usize = 10_000;
/// How many bytes of bodies are kept with them.
const SEEN_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A request that the broker has got.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SeenRequest {
    /// What was asked.
    pub api: ApiKey,
    /// In which version.
    pub version: i16,
    /// When it came.
    pub at: Instant,
    /// The name that the client gave itself.
    pub client_id: Option<Utf8Bytes>,
    /// Its body, undecoded.
    pub body: Bytes,
}

impl SeenRequest {
    /// The body as a request of this API.
    ///
    /// # Errors
    /// It is another API's, or cannot be read.
    pub fn decode<R: Request>(&self) -> Result<R, DecodeError> {
        R::decode(&mut Decoder::new(self.body.clone()), self.version)
    }
}

/// The requests that came in.
#[derive(Debug, Default)]
pub(super) struct Seen {
    counts: BTreeMap<ApiKey, usize>,
    newest: VecDeque<SeenRequest>,
    bytes: usize,
}

impl Seen {
    pub(super) fn note(&mut self, received: &Received, at: Instant) {
        *self.counts.entry(received.api).or_default() += 1;
        self.bytes += received.bytes.len();
        self.newest.push_back(SeenRequest {
            api: received.api,
            version: received.version,
            at,
            client_id: received.client_id.clone(),
            body: received.bytes.clone(),
        });
        while self.newest.len() > SEEN_MAX || self.bytes > SEEN_BYTES_MAX {
            let Some(oldest) = self.newest.pop_front() else { break };
            self.bytes -= oldest.body.len();
        }
    }

    pub(super) fn count(&self, api: ApiKey) -> usize {
        self.counts.get(&api).copied().unwrap_or(0)
    }

    pub(super) fn newest(&self, api: ApiKey) -> Vec<SeenRequest> {
        self.newest.iter().filter(|request| request.api == api).cloned().collect()
    }
}

/// A request to be answered.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) api: ApiKey,
    pub(super) version: i16,
    pub(super) correlation_id: i32,
    client_id: Option<Utf8Bytes>,
    /// The body as it came.
    pub(super) bytes: Bytes,
    /// None for a version that is not known, which only ApiVersions may be asked in.
    pub(super) body: Option<Body>,
}

/// Bytes that are no request of an API that is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unreadable(pub(super) String);

impl Received {
    pub(super) fn decode(frame: Bytes) -> Result<Self, Unreadable> {
        let unreadable = |error: DecodeError| Unreadable(error.to_string());
        let mut input = Decoder::new(frame.clone());
        let header = decode_request_header(&mut input).map_err(unreadable)?;
        let api = ApiKey::from_code(header.api_key).filter(|api| APIS.contains(api));
        let api = api.ok_or_else(|| Unreadable(format!("API {} is not served", header.api_key)))?;
        let bytes = frame.slice(frame.len() - input.remaining()..);
        let version = header.api_version;
        let body = match Body::decode(api, &mut input, version) {
            Err(_) if api == ApiKey::ApiVersions => None,
            body => Some(body.map_err(unreadable)?),
        };
        let (correlation_id, client_id) = (header.correlation_id, header.client_id);
        Ok(Self { api, version, correlation_id, client_id, bytes, body })
    }
}

impl Received {
    /// A request of which the header is all that is wanted.
    ///
    /// # Errors
    /// It has none, or is of an API that nobody knows.
    pub(super) fn header(frame: Bytes) -> Result<Self, Unreadable> {
        let mut input = Decoder::new(frame.clone());
        let header = decode_request_header(&mut input).map_err(|error| Unreadable(error.to_string()))?;
        let api = ApiKey::from_code(header.api_key);
        let api = api.ok_or_else(|| Unreadable(format!("API {} is not known", header.api_key)))?;
        let bytes = frame.slice(frame.len() - input.remaining()..);
        let (correlation_id, client_id) = (header.correlation_id, header.client_id);
        Ok(Self { api, version: header.api_version, correlation_id, client_id, bytes, body: None })
    }
}

macro_rules! bodies {
    ($($api:ident $request:ident)*) => {
        /// A request's body.
        #[derive(Debug)]
        #[expect(dead_code, reason = "what some requests say does not matter here")]
        pub(super) enum Body {
            $($api($request),)*
        }

        /// What is served.
        pub(super) const APIS: &[ApiKey] = &[$(ApiKey::$api),*];

        impl Body {
            /// `api` is one of [`APIS`].
            fn decode(api: ApiKey, input: &mut Decoder, version: i16) -> Result<Self, DecodeError> {
                match api {
                    $(ApiKey::$api => $request::decode(input, version).map(Self::$api),)*
                    _ => ApiVersionsRequest::decode(input, -1).map(Self::ApiVersions),
                }
            }
        }
    };
}

bodies! {
    Produce ProduceRequest
    Fetch FetchRequest
    ListOffsets ListOffsetsRequest
    Metadata MetadataRequest
    OffsetCommit OffsetCommitRequest
    OffsetFetch OffsetFetchRequest
    FindCoordinator FindCoordinatorRequest
    JoinGroup JoinGroupRequest
    Heartbeat HeartbeatRequest
    LeaveGroup LeaveGroupRequest
    SyncGroup SyncGroupRequest
    DescribeGroups DescribeGroupsRequest
    SaslHandshake SaslHandshakeRequest
    ApiVersions ApiVersionsRequest
    CreateTopics CreateTopicsRequest
    InitProducerId InitProducerIdRequest
    AddPartitionsToTxn AddPartitionsToTxnRequest
    AddOffsetsToTxn AddOffsetsToTxnRequest
    EndTxn EndTxnRequest
    TxnOffsetCommit TxnOffsetCommitRequest
    SaslAuthenticate SaslAuthenticateRequest
}

/// The partition that stands for a topic as a whole.
const WHOLE_TOPIC: i32 = -1;

impl Body {
    /// The partitions that the request is about; a topic without a partition counts as one of number -1. `name` tells
    /// the name of a topic that is given by its id.
    pub(super) fn partitions(&self, name: impl Fn(Uuid) -> Option<Arc<str>>) -> Vec<TopicPartition> {
        let mut named = Vec::new();
        let mut add = |text: &str, id: Uuid, partitions: &mut dyn Iterator<Item = i32>| {
            let topic = if id.is_zero() { Some(Arc::from(text)) } else { name(id) };
            let Some(topic) = topic else { return };
            named.extend(partitions.map(|partition| TopicPartition::new(Arc::clone(&topic), partition)));
        };
        match self {
            Self::Produce(request) => request.topic_data.iter().for_each(|topic| {
                add(&topic.name, topic.topic_id, &mut topic.partition_data.iter().map(|part| part.index));
            }),
            Self::Fetch(request) => request.topics.iter().for_each(|topic| {
                add(&topic.topic, topic.topic_id, &mut topic.partitions.iter().map(|part| part.partition));
            }),
            Self::ListOffsets(request) => request.topics.iter().for_each(|topic| {
                add(&topic.name, Uuid::ZERO, &mut topic.partitions.iter().map(|part| part.partition_index));
            }),
            Self::Metadata(request) => request.topics.iter().flatten().for_each(|topic| {
                let text = topic.name.as_deref().unwrap_or_default();
                let id = if topic.name.is_some() { Uuid::ZERO } else { topic.topic_id };
                add(text, id, &mut std::iter::once(WHOLE_TOPIC));
            }),
            Self::OffsetCommit(request) => request.topics.iter().for_each(|topic| {
                let partitions = topic.partitions.iter().map(|part| part.partition_index);
                add(&topic.name, topic.topic_id, &mut { partitions });
            }),
            Self::OffsetFetch(request) => {
                for topic in request.topics.iter().flatten() {
                    add(&topic.name, Uuid::ZERO, &mut topic.partition_indexes.iter().copied());
                }
                for topic in request.groups.iter().flat_map(|group| group.topics.iter().flatten()) {
                    add(&topic.name, topic.topic_id, &mut topic.partition_indexes.iter().copied());
                }
            }
            Self::AddPartitionsToTxn(request) => request.v3_and_below_topics.iter().for_each(|topic| {
                add(&topic.name, Uuid::ZERO, &mut topic.partitions.iter().copied());
            }),
            Self::TxnOffsetCommit(request) => request.topics.iter().for_each(|topic| {
                add(&topic.name, Uuid::ZERO, &mut topic.partitions.iter().map(|part| part.partition_index));
            }),
            Self::CreateTopics(request) => request.topics.iter().for_each(|topic| {
                add(&topic.name, Uuid::ZERO, &mut std::iter::once(WHOLE_TOPIC));
            }),
            _ => {}
        }
        named
    }
}

#[cfg(test)]
mod tests {
    use klamm_protocol::frame::{LENGTH_BYTES, encode_request};
    use klamm_protocol::messages::fetch::{FetchPartition, FetchTopic};
    use klamm_protocol::messages::metadata::MetadataRequestTopic;

    use super::*;

    fn received<R: Request>(request: &R, version: i16) -> Received {
        let frame = encode_request(request, version, 3, Some("me")).unwrap().slice(LENGTH_BYTES..);
        Received::decode(frame).unwrap()
    }

    #[test]
    fn a_request_is_read_and_kept() {
        let request = HeartbeatRequest { group_id: "g".into(), generation_id: 4, ..Default::default() };
        let received = received(&request, 4);
        assert_eq!((received.api, received.version, received.correlation_id), (ApiKey::Heartbeat, 4, 3));
        let mut seen = Seen::default();
        (0..SEEN_MAX + 5).for_each(|_| seen.note(&received, Instant::now()));
        assert_eq!((seen.count(ApiKey::Heartbeat), seen.count(ApiKey::Fetch)), (SEEN_MAX + 5, 0));
        let kept = seen.newest(ApiKey::Heartbeat);
        assert_eq!((kept.len(), kept[0].client_id.as_deref()), (SEEN_MAX, Some("me")));
        assert_eq!(kept[0].decode::<HeartbeatRequest>().unwrap(), request);
        assert!(seen.newest(ApiKey::Fetch).is_empty());
    }

    #[test]
    fn what_is_no_request_is_told() {
        let code =
            |bytes: &'static [u8]| Received::decode(Bytes::from_static(bytes)).map(|_| ()).unwrap_err().0;
        assert!(code(&[0, 1]).contains("needs"));
        assert!(code(&[0, 99, 0, 0, 0, 0, 0, 0, 255, 255, 0]).contains("API 99"), "not served");
        assert!(!code(&[0, 12, 0, 99, 0, 0, 0, 0, 255, 255, 0]).is_empty(), "no such version");
        let newer = Received::decode(Bytes::from_static(&[0, 18, 0, 99, 0, 0, 0, 7, 255, 255, 0])).unwrap();
        assert!(newer.body.is_none() && newer.correlation_id == 7);
    }

    #[test]
    fn partitions_are_named_by_name_and_by_id() {
        let partition = FetchPartition { partition: 5, ..Default::default() };
        let topic = |name: &str, id| FetchTopic {
            topic: name.into(),
            topic_id: Uuid::from_u128(id),
            partitions: vec![partition.clone()],
            ..Default::default()
        };
        let topics = vec![topic("a", 0), topic("", 7), topic("", 8)];
        let body = Body::Fetch(FetchRequest { topics, ..Default::default() });
        let name = |id: Uuid| (id == Uuid::from_u128(7)).then(|| Arc::from("b"));
        assert_eq!(body.partitions(name), [("a", 5).into(), ("b", 5).into()]);
        let topics = Some(vec![MetadataRequestTopic { name: Some("c".into()), ..Default::default() }]);
        let body = Body::Metadata(MetadataRequest { topics, ..Default::default() });
        assert_eq!(body.partitions(name), [("c", -1).into()]);
    }
}
