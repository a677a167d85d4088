//! The requests of a group member (Kafka's classic group protocol), one attempt each, with the
//! coordinator's errors as codes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use klamm_protocol::messages::join_group::JoinGroupRequestProtocol;
use klamm_protocol::messages::leave_group::MemberIdentity;
use klamm_protocol::messages::sync_group::SyncGroupRequestAssignment;
use klamm_protocol::messages::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, SyncGroupRequest,
};
use klamm_protocol::{ErrorCode, Utf8Bytes};

use super::assignors::{Assignment, Assignor};
use super::coordinator::CoordinatorLink;
use super::protocol::encode_assignment;
use crate::cluster::Core;
use crate::error::RequestError;

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

/// A request of this member that failed: on the way, or by the coordinator's word.
#[derive(Debug)]
pub(crate) enum MemberError {
    Request(RequestError),
    Coordinator { code: ErrorCode, member_id: Option<Arc<str>> },
}

impl From<RequestError> for MemberError {
    fn from(error: RequestError) -> Self {
        Self::Request(error)
    }
}

fn check(code: i16) -> Result<(), MemberError> {
    match ErrorCode::from_code(code) {
        ErrorCode::None => Ok(()),
        code => Err(MemberError::Coordinator { code, member_id: None }),
    }
}

/// What a member is set to.
#[derive(Debug, Clone)]
pub(crate) struct MemberSettings {
    pub(crate) session_timeout: Duration,
    pub(crate) rebalance_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) group_instance_id: Option<Arc<str>>,
    pub(crate) assignor: Assignor,
}

/// Sends the requests.
pub(crate) struct Requests<'a> {
    pub(crate) core: &'a Core,
    pub(crate) settings: &'a MemberSettings,
    pub(crate) link: &'a CoordinatorLink,
}

impl Requests<'_> {
    fn group(&self) -> Utf8Bytes {
        (&**self.link.group()).into()
    }

    fn instance(&self, version: i16, from: i16) -> Option<Utf8Bytes> {
        self.settings.group_instance_id.as_ref().filter(|_| version >= from).map(|id| (&**id).into())
    }

    /// Joins; answered when all members have joined or the rebalance timeout is over.
    pub(crate) async fn join(
        &self,
        member_id: &str,
        subscription: Bytes,
    ) -> Result<JoinGroupResponse, MemberError> {
        let connection = self.link.connection(self.core).await?;
        let version = connection.version::<JoinGroupRequest>()?;
        let request = JoinGroupRequest {
            group_id: self.group(),
            session_timeout_ms: millis(self.settings.session_timeout),
            rebalance_timeout_ms: millis(self.settings.rebalance_timeout),
            member_id: member_id.into(),
            group_instance_id: self.instance(version, JOIN_STATIC_FROM),
            protocol_type: CONSUMER,
            protocols: vec![JoinGroupRequestProtocol {
                name: Utf8Bytes::from_static(self.settings.assignor.name()),
                metadata: subscription,
                ..Default::default()
            }],
            ..Default::default()
        };
        let timeout = self.settings.rebalance_timeout.max(self.settings.request_timeout) + JOIN_SLACK;
        let answer = connection.start(&request, version)?.within(timeout).await?;
        match ErrorCode::from_code(answer.error_code) {
            ErrorCode::None => Ok(answer),
            code => Err(MemberError::Coordinator { code, member_id: Some(Arc::from(&*answer.member_id)) }),
        }
    }

    /// Gives (as the leader) and gets assignments.
    pub(crate) async fn sync(
        &self,
        member_id: &str,
        generation: i32,
        assignment: Assignment,
    ) -> Result<Bytes, MemberError> {
        let connection = self.link.connection(self.core).await?;
        let version = connection.version::<SyncGroupRequest>()?;
        let assignments = assignment.into_iter().map(|(member, partitions)| SyncGroupRequestAssignment {
            member_id: (&*member).into(),
            assignment: encode_assignment(&partitions),
            ..Default::default()
        });
        let request = SyncGroupRequest {
            group_id: self.group(),
            generation_id: generation,
            member_id: member_id.into(),
            group_instance_id: self.instance(version, SYNC_STATIC_FROM),
            protocol_type: Some(CONSUMER),
            protocol_name: Some(Utf8Bytes::from_static(self.settings.assignor.name())),
            assignments: assignments.collect(),
            ..Default::default()
        };
        // The leader may take its time, at most the rebalance timeout.
        let timeout = self.settings.rebalance_timeout.max(self.settings.request_timeout) + JOIN_SLACK;
        let answer = connection.start(&request, version)?.within(timeout).await?;
        check(answer.error_code)?;
        Ok(answer.assignment)
    }

    /// Tells that this member lives, and learns of rebalances.
    pub(crate) async fn heartbeat(&self, member_id: &str, generation: i32) -> Result<(), MemberError> {
        let connection = self.link.connection(self.core).await?;
        let version = connection.version::<HeartbeatRequest>()?;
        let request = HeartbeatRequest {
            group_id: self.group(),
            generation_id: generation,
            member_id: member_id.into(),
            group_instance_id: self.instance(version, HEARTBEAT_STATIC_FROM),
            ..Default::default()
        };
        // An unanswered one is no better than a lost one after the session timeout.
        let timeout = self.settings.request_timeout.min(self.settings.session_timeout);
        let answer = connection.start(&request, version)?.within(timeout).await?;
        check(answer.error_code)
    }

    /// Leaves, so that the others need not wait for the session timeout.
    pub(crate) async fn leave(&self, member_id: &str) -> Result<(), MemberError> {
        let connection = self.link.connection(self.core).await?;
        let version = connection.version::<LeaveGroupRequest>()?;
        let mut request = LeaveGroupRequest { group_id: self.group(), ..Default::default() };
        if version >= LEAVE_MANY_FROM {
            let member = MemberIdentity { member_id: member_id.into(), ..Default::default() };
            request.members = vec![member];
        } else {
            request.member_id = member_id.into();
        }
        let answer = connection.start(&request, version)?.within(self.settings.request_timeout).await?;
        check(answer.error_code)
    }
}

fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}
