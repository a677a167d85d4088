//! The requests of a group member, one attempt each, with the coordinator's errors as codes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use klamm_protocol::messages::consumer_group_heartbeat::ConsumerGroupTopicPartitions;
use klamm_protocol::messages::join_group::JoinGroupRequestProtocol;
use klamm_protocol::messages::leave_group::MemberIdentity;
use klamm_protocol::messages::sync_group::SyncGroupRequestAssignment;
use klamm_protocol::messages::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, HeartbeatRequest, JoinGroupRequest,
    JoinGroupResponse, LeaveGroupRequest, SyncGroupRequest,
};
use klamm_protocol::{ApiKey, ErrorCode, Utf8Bytes, Uuid};

use super::coordinator::CoordinatorLink;
use super::event::{Beat, Failure, Joined, JoinedMember};
use super::member::Member;
use super::protocol::{MemberShare, decode_assignment, encode_assignment};
use super::strategy::Shares;
use crate::cluster::Core;
use crate::error::RequestError;
use crate::types::TopicPartition;

/// The protocol type of consumers.
const CONSUMER: Utf8Bytes = Utf8Bytes::from_static("consumer");
/// What an answer to a join may take beyond the rebalance timeout.
const JOIN_SLACK: Duration = Duration::from_secs(5);
/// From here on static members are understood.
const JOIN_STATIC_FROM: i16 = 5;
const SYNC_STATIC_FROM: i16 = 3;
const HEARTBEAT_STATIC_FROM: i16 = 3;
/// From here on several members leave at once, static ones too.
const LEAVE_MANY_FROM: i16 = 3;

fn check(code: i16) -> Result<(), Failure> {
    match ErrorCode::from_code(code) {
        ErrorCode::None => Ok(()),
        code => Err(Failure::Coordinator { code, member_id: None }),
    }
}

/// What requests say of a member besides what they are about.
#[derive(Debug, Clone)]
pub(crate) struct MemberSettings {
    pub(crate) session_timeout: Duration,
    pub(crate) rebalance_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) group_instance_id: Option<Arc<str>>,
    pub(crate) rack: Option<Arc<str>>,
}

/// Sends the requests. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Requests {
    pub(super) core: Arc<Core>,
    pub(super) settings: Arc<MemberSettings>,
    pub(super) link: Arc<CoordinatorLink>,
}

impl Requests {
    fn group(&self) -> Utf8Bytes {
        (&**self.link.group()).into()
    }

    fn instance(&self, version: i16, from: i16) -> Option<Utf8Bytes> {
        self.settings.group_instance_id.as_ref().filter(|_| version >= from).map(|id| (&**id).into())
    }

    /// Notes what a failure on the way says about the coordinator.
    fn learn<T>(&self, result: Result<T, Failure>) -> Result<T, Failure> {
        if let Err(Failure::Request(error)) = &result {
            self.link.learn_from(error);
        }
        result
    }

    /// Finds the coordinator anew.
    pub(super) async fn find_coordinator(&self) -> Result<(), Failure> {
        self.link.forget();
        let found = async { Ok(self.link.connection(&self.core).await.map(drop)?) };
        self.learn(found.await)
    }

    /// Joins; answered when all members have joined or the rebalance timeout is over.
    pub(super) async fn join(
        &self,
        member_id: &str,
        protocols: Vec<(Arc<str>, Bytes)>,
    ) -> Result<Joined, Failure> {
        self.learn(self.try_join(member_id, protocols).await)
    }

    async fn try_join(&self, member_id: &str, protocols: Vec<(Arc<str>, Bytes)>) -> Result<Joined, Failure> {
        let first = protocols.first().map(|(name, _)| Arc::clone(name));
        let connection = self.link.patient_connection(&self.core).await?;
        let version = connection.version::<JoinGroupRequest>()?;
        let protocol = |(name, metadata): (Arc<str>, Bytes)| JoinGroupRequestProtocol {
            name: (&*name).into(),
            metadata,
            ..Default::default()
        };
        let request = JoinGroupRequest {
            group_id: self.group(),
            session_timeout_ms: millis(self.settings.session_timeout),
            rebalance_timeout_ms: millis(self.settings.rebalance_timeout),
            member_id: member_id.into(),
            group_instance_id: self.instance(version, JOIN_STATIC_FROM),
            protocol_type: CONSUMER,
            protocols: protocols.into_iter().map(protocol).collect(),
            ..Default::default()
        };
        let answer = connection.start(&request, version)?.within(self.patience()).await?;
        match ErrorCode::from_code(answer.error_code) {
            ErrorCode::None => Ok(joined(answer, first)),
            code => Err(Failure::Coordinator { code, member_id: Some(Arc::from(&*answer.member_id)) }),
        }
    }

    /// How long a rebalance may hold back an answer.
    fn patience(&self) -> Duration {
        self.settings.rebalance_timeout.max(self.settings.request_timeout) + JOIN_SLACK
    }

    /// Gives (as the leader) and gets assignments.
    pub(super) async fn sync(
        &self,
        member_id: &str,
        generation: i32,
        assignor: &str,
        assignment: Shares,
    ) -> Result<MemberShare, Failure> {
        self.learn(self.try_sync(member_id, generation, assignor, assignment).await)
    }

    async fn try_sync(
        &self,
        member_id: &str,
        generation: i32,
        assignor: &str,
        assignment: Shares,
    ) -> Result<MemberShare, Failure> {
        let connection = self.link.patient_connection(&self.core).await?;
        let version = connection.version::<SyncGroupRequest>()?;
        let assignments = assignment.into_iter().map(|(member, share)| SyncGroupRequestAssignment {
            member_id: (&*member).into(),
            assignment: encode_assignment(&share),
            ..Default::default()
        });
        let request = SyncGroupRequest {
            group_id: self.group(),
            generation_id: generation,
            member_id: member_id.into(),
            group_instance_id: self.instance(version, SYNC_STATIC_FROM),
            protocol_type: Some(CONSUMER),
            protocol_name: Some(assignor.into()),
            assignments: assignments.collect(),
            ..Default::default()
        };
        // The leader may take its time, at most the rebalance timeout.
        let answer = connection.start(&request, version)?.within(self.patience()).await?;
        check(answer.error_code)?;
        decode_assignment(&answer.assignment).map_err(|error| {
            let reason = Arc::from(format!("the leader's assignment cannot be read: {error}"));
            RequestError::Protocol { address: Arc::clone(connection.address()), reason }.into()
        })
    }

    /// Tells that this member lives, and learns of rebalances.
    pub(super) async fn heartbeat(&self, member_id: &str, generation: i32) -> Result<(), Failure> {
        let patience = Member::heartbeat_patience(self.settings.session_timeout);
        let beat = tokio::time::timeout(patience, self.try_heartbeat(member_id, generation, patience));
        let result = beat.await.unwrap_or_else(|_| {
            let last = Arc::from("no answer");
            Err(RequestError::Deadline { what: "a heartbeat", after: patience, last }.into())
        });
        self.learn(result)
    }

    async fn try_heartbeat(
        &self,
        member_id: &str,
        generation: i32,
        patience: Duration,
    ) -> Result<(), Failure> {
        let connection = self.link.connection(&self.core).await?;
        let version = connection.version::<HeartbeatRequest>()?;
        let request = HeartbeatRequest {
            group_id: self.group(),
            generation_id: generation,
            member_id: member_id.into(),
            group_instance_id: self.instance(version, HEARTBEAT_STATIC_FROM),
            ..Default::default()
        };
        let timeout = self.settings.request_timeout.min(patience);
        let answer = connection.start(&request, version)?.within(timeout).await?;
        check(answer.error_code)
    }

    /// Leaves, so that the others need not wait for the session timeout. A courtesy: it may fail.
    pub(super) async fn leave(&self, member_id: &str) {
        self.note_leave(&self.try_leave(member_id).await);
    }

    fn note_leave(&self, left: &Result<(), Failure>) {
        if let Err(failure) = left {
            tracing::debug!(group = %self.link.group(), ?failure, "cannot leave; the group will notice by itself");
        }
    }

    async fn try_leave(&self, member_id: &str) -> Result<(), Failure> {
        let connection = self.link.connection(&self.core).await?;
        let version = connection.version::<LeaveGroupRequest>()?;
        let mut request = LeaveGroupRequest { group_id: self.group(), ..Default::default() };
        if version >= LEAVE_MANY_FROM {
            let group_instance_id = self.settings.group_instance_id.as_ref().map(|id| (&**id).into());
            let member =
                MemberIdentity { member_id: member_id.into(), group_instance_id, ..Default::default() };
            request.members = vec![member];
        } else {
            request.member_id = member_id.into();
        }
        let answer = connection.start(&request, version)?.within(self.settings.request_timeout).await?;
        check(answer.error_code)
    }
}

impl Requests {
    /// A heartbeat to a coordinator that assigns by itself (KIP-848).
    pub(super) async fn beat(&self, beat: BeatRequest) -> Result<Beat, Failure> {
        let patience = Member::heartbeat_patience(self.settings.session_timeout);
        let result = tokio::time::timeout(patience, self.try_beat(beat, patience)).await;
        self.learn(result.unwrap_or_else(|_| {
            let last = Arc::from("no answer");
            Err(RequestError::Deadline { what: "a heartbeat", after: patience, last }.into())
        }))
    }

    /// As [`Requests::leave`], with a coordinator that assigns.
    pub(super) async fn leave_epochs(&self, member_id: Arc<str>, epoch: i32) {
        let beat = BeatRequest { member_id, epoch, topics: None, owned: None };
        self.note_leave(&self.beat(beat).await.map(drop));
    }

    async fn try_beat(&self, beat: BeatRequest, patience: Duration) -> Result<Beat, Failure> {
        let member_id = Arc::clone(&beat.member_id);
        let answer = self.exchange_beat(beat, patience).await?;
        let assignment = match answer.assignment {
            Some(assignment) => Some(self.named(&assignment.topic_partitions).await?),
            None => None,
        };
        Ok(Beat {
            member_id: answer.member_id.map_or(member_id, |id| Arc::from(&*id)),
            epoch: answer.member_epoch,
            interval: Duration::from_millis(u64::try_from(answer.heartbeat_interval_ms.max(1)).unwrap_or(1)),
            assignment,
        })
    }

    async fn exchange_beat(
        &self,
        beat: BeatRequest,
        patience: Duration,
    ) -> Result<ConsumerGroupHeartbeatResponse, Failure> {
        let connection = self.link.connection(&self.core).await?;
        let version = connection.version::<ConsumerGroupHeartbeatRequest>()?;
        let tells_all = beat.topics.is_some();
        let text = |text: &Arc<str>| Utf8Bytes::from(&**text);
        let request = ConsumerGroupHeartbeatRequest {
            group_id: self.group(),
            member_id: text(&beat.member_id),
            member_epoch: beat.epoch,
            instance_id: self.settings.group_instance_id.as_ref().map(text),
            rack_id: self.settings.rack.as_ref().filter(|_| tells_all).map(text),
            rebalance_timeout_ms: if tells_all { millis(self.settings.rebalance_timeout) } else { -1 },
            subscribed_topic_names: beat.topics.map(|topics| topics.iter().map(text).collect()),
            topic_partitions: beat.owned.map(|owned| self.by_id(&owned)),
            ..Default::default()
        };
        let timeout = self.settings.request_timeout.min(patience);
        let answer = connection.start(&request, version)?.within(timeout).await?;
        if let Some(message) = &answer.error_message {
            tracing::debug!(group = %self.link.group(), %message, "a heartbeat was refused");
        }
        check(answer.error_code)?;
        Ok(answer)
    }

    fn by_id(&self, owned: &[TopicPartition]) -> Vec<ConsumerGroupTopicPartitions> {
        let view = self.core.metadata.view();
        let mut topics: BTreeMap<&Arc<str>, ConsumerGroupTopicPartitions> = BTreeMap::new();
        for partition in owned {
            // One whose topic is gone is not owned any more.
            let Some(topic) = view.topics.get(&partition.topic) else { continue };
            let entry = topics.entry(&partition.topic).or_default();
            entry.topic_id = topic.id;
            entry.partitions.push(partition.partition);
        }
        topics.into_values().collect()
    }

    /// The partitions by the names of their topics. One that is not known yet is an error: the coordinator tells again.
    async fn named(
        &self,
        topics: &[ConsumerGroupTopicPartitions],
    ) -> Result<Vec<TopicPartition>, RequestError> {
        let mut view = self.core.metadata.view();
        for refreshed in [false, true] {
            let names: BTreeMap<Uuid, &Arc<str>> =
                view.topics.keys().filter_map(|name| Some((view.topics.get(name)?.id, name))).collect();
            if topics.iter().all(|topic| names.contains_key(&topic.topic_id)) {
                let partitions = topics.iter().flat_map(|topic| {
                    let name = names.get(&topic.topic_id).copied();
                    let numbers = topic.partitions.iter();
                    numbers.filter_map(move |&number| Some(TopicPartition::new(Arc::clone(name?), number)))
                });
                return Ok(partitions.collect());
            }
            if !refreshed {
                view = self.core.refresh_metadata(view.version).await?;
            }
        }
        Err(RequestError::Broker {
            address: Arc::from("the cluster"),
            api: ApiKey::Metadata,
            code: ErrorCode::UnknownTopicId,
        })
    }
}

/// What a heartbeat tells a coordinator that assigns.
#[derive(Debug)]
pub(super) struct BeatRequest {
    pub(super) member_id: Arc<str>,
    pub(super) epoch: i32,
    pub(super) topics: Option<Vec<Arc<str>>>,
    pub(super) owned: Option<Vec<TopicPartition>>,
}

/// The answer as the member's core takes it. Old brokers do not name the assignor when only one was offered.
fn joined(answer: JoinGroupResponse, offered: Option<Arc<str>>) -> Joined {
    let chosen = answer.protocol_name.as_ref().map(|name| Arc::from(&**name));
    let members = answer.members.into_iter().map(|member| JoinedMember {
        id: Arc::from(&*member.member_id),
        instance_id: member.group_instance_id.as_ref().map(|id| Arc::from(&**id)),
        metadata: member.metadata,
    });
    Joined {
        generation: answer.generation_id,
        leads: answer.leader == answer.member_id,
        member_id: Arc::from(&*answer.member_id),
        skip_assignment: answer.skip_assignment,
        assignor: chosen.or(offered).unwrap_or_default(),
        members: members.collect(),
    }
}

fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}
