//! A classic consumer group: joins that wait for one another, sessions that end, and committed offsets. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use klamm_protocol::messages::join_group::{JoinGroupRequestProtocol, JoinGroupResponseMember};
use klamm_protocol::messages::{JoinGroupRequest, JoinGroupResponse, SyncGroupRequest, SyncGroupResponse};
use klamm_protocol::{ErrorCode, Utf8Bytes};
use tokio::time::Instant;

use crate::types::{OffsetAndMetadata, TopicPartition};

/// Most members of a group.
const MEMBERS_MAX: usize = 100;

/// A group and what it has committed.
#[derive(Debug, Default)]
pub(super) struct Group {
    generation: i32,
    phase: Phase,
    members: BTreeMap<Utf8Bytes, Member>,
    /// Members named so far.
    named: usize,
    leader: Utf8Bytes,
    protocol: Utf8Bytes,
    committed: BTreeMap<TopicPartition, OffsetAndMetadata>,
    /// Members dropped for silence, or because a test wanted it.
    expelled: usize,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    #[default]
    Empty,
    /// Members join again, until all have or the time is over.
    Joining {
        until: Instant,
    },
    /// The leader is asked for the assignment.
    Syncing,
    Stable,
}

#[derive(Debug)]
struct Member {
    session: Duration,
    session_end: Instant,
    rebalance_timeout: Duration,
    protocols: Vec<JoinGroupRequestProtocol>,
    instance: Option<Utf8Bytes>,
    /// Whether it waits for the generation to come.
    joined: bool,
    assignment: Bytes,
}

/// An answer, or until when to hold the request if nothing happens before.
#[derive(Debug, PartialEq)]
pub(super) enum Held<T> {
    Answer(T),
    Until(Instant),
}

impl Group {
    /// `arriving` for a request that was not held yet.
    pub(super) fn join(
        &mut self,
        request: &JoinGroupRequest,
        arriving: bool,
        now: Instant,
    ) -> Held<JoinGroupResponse> {
        self.expire(now);
        if arriving {
            if let Some(refused) = self.take_in(request, now) {
                return Held::Answer(refused);
            }
        } else if !self.members.get(&request.member_id).is_some_and(|member| member.joined) {
            // Expelled while it waited, or overtaken by another request of its own.
            let code = match self.members.contains_key(&request.member_id) {
                true if self.is_formed() => return Held::Answer(self.joined(&request.member_id)),
                true => ErrorCode::RebalanceInProgress,
                false => ErrorCode::UnknownMemberId,
            };
            return Held::Answer(refusal(request.member_id.clone(), code));
        }
        self.form(now);
        match self.phase {
            Phase::Joining { until } => {
                Held::Until(self.first_silent_end().map_or(until, |end| end.min(until)))
            }
            _ => Held::Answer(self.joined(&request.member_id)),
        }
    }

    /// Makes whoever joins a member that waits; the answer when it may not be one.
    fn take_in(&mut self, request: &JoinGroupRequest, now: Instant) -> Option<JoinGroupResponse> {
        let known = self.members.contains_key(&request.member_id);
        let no_protocol = request.protocols.is_empty() || self.common_protocol(&request.protocols).is_none();
        let code = match () {
            () if request.member_id.is_empty() => {
                self.named += 1;
                let id = Utf8Bytes::from(format!("member-{}", self.named));
                return Some(refusal(id, ErrorCode::MemberIdRequired));
            }
            () if no_protocol => ErrorCode::InconsistentGroupProtocol,
            () if !known && self.members.len() >= MEMBERS_MAX => ErrorCode::GroupMaxSizeReached,
            // An id that was given out and is not known any more; who kept silent for too long joins anew.
            () if !known && !self.was_named(&request.member_id) => ErrorCode::UnknownMemberId,
            () => ErrorCode::None,
        };
        if code != ErrorCode::None {
            return Some(refusal(request.member_id.clone(), code));
        }
        let session = milliseconds(request.session_timeout_ms);
        let rebalance_timeout = match request.rebalance_timeout_ms {
            ..0 => session,
            timeout_ms => milliseconds(timeout_ms),
        };
        let member = Member {
            session,
            session_end: now + session,
            rebalance_timeout,
            protocols: request.protocols.clone(),
            instance: request.group_instance_id.clone(),
            joined: true,
            assignment: Bytes::new(),
        };
        // A static member that restarts takes the place of the one before it.
        if let Some(instance) = &member.instance {
            self.members.retain(|_, other| other.instance.as_ref() != Some(instance));
        }
        self.members.insert(request.member_id.clone(), member);
        if !matches!(self.phase, Phase::Joining { .. }) {
            let patience = self.members.values().map(|member| member.rebalance_timeout).max();
            self.phase = Phase::Joining { until: now + patience.unwrap_or_default() };
        }
        None
    }

    /// Ids go out in order, so that the number tells.
    fn was_named(&self, id: &str) -> bool {
        let number = id.strip_prefix("member-").and_then(|number| number.parse::<usize>().ok());
        number.is_some_and(|number| (1..=self.named).contains(&number))
    }

    /// When the first of those that have not joined again is dropped.
    fn first_silent_end(&self) -> Option<Instant> {
        self.members.values().filter(|member| !member.joined).map(|member| member.session_end).min()
    }

    /// Begins the next generation when all have joined, or without those that have not in time.
    fn form(&mut self, now: Instant) {
        let Phase::Joining { until } = self.phase else { return };
        if until > now && !self.members.values().all(|member| member.joined) {
            return;
        }
        let before = self.members.len();
        self.members.retain(|_, member| member.joined);
        self.expelled += before - self.members.len();
        let Some((leader, offered)) = self.members.first_key_value() else {
            self.phase = Phase::Empty;
            return;
        };
        if !self.members.contains_key(&self.leader) {
            self.leader = leader.clone();
        }
        self.protocol = self.common_protocol(&offered.protocols).unwrap_or_default();
        self.generation += 1;
        self.phase = Phase::Syncing;
        for member in self.members.values_mut() {
            member.joined = false;
            member.session_end = now + member.session;
            member.assignment = Bytes::new();
        }
    }

    fn is_formed(&self) -> bool {
        matches!(self.phase, Phase::Syncing | Phase::Stable)
    }

    /// The first of these protocols that every member has.
    fn common_protocol(&self, offered: &[JoinGroupRequestProtocol]) -> Option<Utf8Bytes> {
        let has = |member: &Member, name: &Utf8Bytes| member.protocols.iter().any(|own| own.name == *name);
        let mut names = offered.iter().map(|protocol| &protocol.name);
        names.find(|name| self.members.values().all(|member| has(member, name))).cloned()
    }

    fn joined(&self, id: &Utf8Bytes) -> JoinGroupResponse {
        let metadata = |member: &Member| {
            let chosen = member.protocols.iter().find(|protocol| protocol.name == self.protocol);
            chosen.map(|protocol| protocol.metadata.clone()).unwrap_or_default()
        };
        let members = self.members.iter().map(|(id, member)| JoinGroupResponseMember {
            member_id: id.clone(),
            group_instance_id: member.instance.clone(),
            metadata: metadata(member),
            ..Default::default()
        });
        JoinGroupResponse {
            generation_id: self.generation,
            protocol_type: Some("consumer".into()),
            protocol_name: Some(self.protocol.clone()),
            leader: self.leader.clone(),
            member_id: id.clone(),
            members: if *id == self.leader { members.collect() } else { Vec::new() },
            ..Default::default()
        }
    }

    pub(super) fn sync(&mut self, request: &SyncGroupRequest, now: Instant) -> Held<SyncGroupResponse> {
        let answer = |code: ErrorCode, assignment| {
            Held::Answer(SyncGroupResponse { error_code: code.code(), assignment, ..Default::default() })
        };
        let code = self.check(&request.member_id, request.generation_id, now);
        if code != ErrorCode::None {
            return answer(code, Bytes::new());
        }
        if self.phase == Phase::Syncing && request.member_id == self.leader {
            for given in &request.assignments {
                if let Some(member) = self.members.get_mut(&given.member_id) {
                    // A copy: the request's frame need not stay.
                    member.assignment = Bytes::copy_from_slice(&given.assignment);
                }
            }
            self.phase = Phase::Stable;
        }
        let Some(member) = self.members.get(&request.member_id) else {
            return answer(ErrorCode::UnknownMemberId, Bytes::new());
        };
        match self.phase {
            Phase::Stable => answer(ErrorCode::None, member.assignment.clone()),
            // When the leader falls silent its session ends.
            _ => Held::Until(self.first_session_end().unwrap_or(now)),
        }
    }

    fn first_session_end(&self) -> Option<Instant> {
        self.members.values().map(|member| member.session_end).min()
    }

    pub(super) fn heartbeat(&mut self, id: &str, generation: i32, now: Instant) -> ErrorCode {
        match self.check(id, generation, now) {
            ErrorCode::None if !self.is_formed() => ErrorCode::RebalanceInProgress,
            code => code,
        }
    }

    /// Whether this is a member in its generation; then its session begins anew.
    fn check(&mut self, id: &str, generation: i32, now: Instant) -> ErrorCode {
        self.expire(now);
        let joining = matches!(self.phase, Phase::Joining { .. });
        let current = self.generation;
        match self.members.get_mut(id) {
            None => ErrorCode::UnknownMemberId,
            Some(_) if generation != current => ErrorCode::IllegalGeneration,
            Some(member) => {
                member.session_end = now + member.session;
                if joining { ErrorCode::RebalanceInProgress } else { ErrorCode::None }
            }
        }
    }

    pub(super) fn leave(&mut self, id: &str, instance: Option<&Utf8Bytes>, now: Instant) -> ErrorCode {
        let named = |(own, member): (&Utf8Bytes, &Member)| {
            (own == id || instance.is_some() && member.instance.as_ref() == instance).then(|| own.clone())
        };
        let Some(id) = self.members.iter().find_map(named) else { return ErrorCode::UnknownMemberId };
        self.members.remove(&id);
        self.rebalance(now);
        ErrorCode::None
    }

    /// Drops all members, as if their sessions had ended.
    pub(super) fn expel(&mut self) {
        self.expelled += self.members.len();
        self.members.clear();
        self.phase = Phase::Empty;
    }

    pub(super) fn expelled(&self) -> usize {
        self.expelled
    }

    /// Drops whoever was silent for longer than its session.
    fn expire(&mut self, now: Instant) {
        let before = self.members.len();
        // Who waits for a join or its answer says nothing meanwhile.
        self.members.retain(|_, member| member.joined || member.session_end > now);
        if self.members.len() < before {
            self.expelled += before - self.members.len();
            self.rebalance(now);
        }
    }

    /// Has the remaining members join again.
    fn rebalance(&mut self, now: Instant) {
        match self.members.values().map(|member| member.rebalance_timeout).max() {
            None => self.phase = Phase::Empty,
            Some(_) if matches!(self.phase, Phase::Joining { .. }) => {}
            Some(patience) => self.phase = Phase::Joining { until: now + patience },
        }
    }

    /// Whether offsets of this member may be committed; nobody in particular may while there are no members.
    pub(super) fn may_commit(&mut self, id: &str, generation: i32, now: Instant) -> ErrorCode {
        self.expire(now);
        match generation {
            ..0 if self.members.is_empty() => ErrorCode::None,
            ..0 => ErrorCode::UnknownMemberId,
            // A member that has to join again may still commit what it has done.
            generation => match self.check(id, generation, now) {
                ErrorCode::RebalanceInProgress => ErrorCode::None,
                code => code,
            },
        }
    }

    pub(super) fn commit(&mut self, partition: TopicPartition, offset: OffsetAndMetadata) {
        self.committed.insert(partition, offset);
    }

    pub(super) fn committed(&self) -> &BTreeMap<TopicPartition, OffsetAndMetadata> {
        &self.committed
    }

    /// The name of its state in Kafka, and its members.
    pub(super) fn state(&self) -> (&'static str, impl Iterator<Item = &Utf8Bytes>) {
        let name = match self.phase {
            Phase::Empty => "Empty",
            Phase::Joining { .. } => "PreparingRebalance",
            Phase::Syncing => "CompletingRebalance",
            Phase::Stable => "Stable",
        };
        (name, self.members.keys())
    }
}

fn refusal(member_id: Utf8Bytes, code: ErrorCode) -> JoinGroupResponse {
    JoinGroupResponse { error_code: code.code(), member_id, ..Default::default() }
}

pub(super) fn milliseconds(count: i32) -> Duration {
    Duration::from_millis(u64::try_from(count).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn request(id: &str, protocols: &[&str]) -> JoinGroupRequest {
        let protocol = |name: &&str| JoinGroupRequestProtocol {
            name: (*name).into(),
            metadata: Bytes::copy_from_slice(id.as_bytes()),
            ..Default::default()
        };
        JoinGroupRequest {
            member_id: id.into(),
            session_timeout_ms: 6_000,
            rebalance_timeout_ms: 60_000,
            protocols: protocols.iter().map(protocol).collect(),
            ..Default::default()
        }
    }

    fn id(group: &mut Group, now: Instant) -> String {
        let Held::Answer(answer) = group.join(&request("", &["range"]), true, now) else { unreachable!() };
        assert_eq!(answer.error_code, ErrorCode::MemberIdRequired.code());
        answer.member_id.to_string()
    }

    fn sync(id: &str, generation_id: i32, given: &[(&str, &'static str)]) -> SyncGroupRequest {
        let assignment = |(id, what): &(&str, &'static str)| {
            klamm_protocol::messages::sync_group::SyncGroupRequestAssignment {
                member_id: (*id).into(),
                assignment: Bytes::from_static(what.as_bytes()),
                ..Default::default()
            }
        };
        let assignments = given.iter().map(assignment).collect();
        SyncGroupRequest { member_id: id.into(), generation_id, assignments, ..Default::default() }
    }

    fn answered<T: std::fmt::Debug>(held: Held<T>) -> T {
        match held {
            Held::Answer(answer) => answer,
            Held::Until(until) => panic!("held until {until:?}"),
        }
    }

    fn alone(now: Instant) -> (Group, String) {
        let mut group = Group::default();
        let a = id(&mut group, now);
        let answer = answered(group.join(&request(&a, &["range"]), true, now));
        assert_eq!((answer.error_code, answer.generation_id, &*answer.leader), (0, 1, &*a));
        assert_eq!(answer.members.len(), 1);
        assert_eq!(group.state().0, "CompletingRebalance");
        let synced = answered(group.sync(&sync(&a, 1, &[(&a, "all")]), now));
        assert_eq!((synced.error_code, &synced.assignment[..]), (0, &b"all"[..]));
        assert_eq!(group.state().0, "Stable");
        (group, a)
    }

    #[tokio::test]
    async fn two_members_share_a_generation() {
        let now = Instant::now();
        let (mut group, a) = alone(now);
        let b = id(&mut group, now);
        let b_joins = request(&b, &["other", "range"]);
        let held = group.join(&b_joins, true, now);
        assert_eq!(held, Held::Until(now + 6 * SECOND), "until the silent one's session ends");
        assert_eq!(group.heartbeat(&a, 1, now + SECOND), ErrorCode::RebalanceInProgress);
        assert_eq!(group.may_commit(&a, 1, now), ErrorCode::None);
        let first = answered(group.join(&request(&a, &["range"]), true, now + SECOND));
        assert_eq!(
            (first.generation_id, first.members.len(), &*first.protocol_name.unwrap()),
            (2, 2, "range")
        );
        let second = answered(group.join(&b_joins, false, now + SECOND));
        assert_eq!((second.generation_id, second.members.len(), &*second.leader), (2, 0, &*a));
        let waits = group.sync(&sync(&b, 2, &[]), now + SECOND);
        assert_eq!(waits, Held::Until(now + 7 * SECOND));
        answered(group.sync(&sync(&a, 2, &[(&a, "x"), (&b, "y")]), now + SECOND));
        assert_eq!(&answered(group.sync(&sync(&b, 2, &[]), now + SECOND)).assignment[..], b"y");
        assert_eq!(group.heartbeat(&b, 2, now + SECOND), ErrorCode::None);
        assert_eq!(group.heartbeat(&b, 1, now + SECOND), ErrorCode::IllegalGeneration);
        assert_eq!(group.leave(&a, None, now + SECOND), ErrorCode::None);
        assert_eq!(group.heartbeat(&b, 2, now + SECOND), ErrorCode::RebalanceInProgress);
        let last = answered(group.join(&request(&b, &["range"]), true, now + SECOND));
        assert_eq!((last.generation_id, &*last.leader), (3, &*b));
        assert_eq!(group.leave(&a, None, now), ErrorCode::UnknownMemberId);
    }

    #[tokio::test]
    async fn who_is_silent_is_expelled_at_the_end_of_its_session() {
        let now = Instant::now();
        let (mut group, a) = alone(now);
        let just_before = now + 6 * SECOND - Duration::from_millis(1);
        assert_eq!(group.heartbeat(&a, 1, just_before), ErrorCode::None);
        assert_eq!(group.heartbeat(&a, 1, just_before + 6 * SECOND), ErrorCode::UnknownMemberId);
        assert_eq!((group.expelled(), group.state().0), (1, "Empty"));
        assert_eq!(group.may_commit(&a, 1, just_before + 6 * SECOND), ErrorCode::UnknownMemberId);
        assert_eq!(group.may_commit("", -1, just_before), ErrorCode::None);
        // It joins under its old id again.
        assert_eq!(answered(group.join(&request(&a, &["range"]), true, now)).generation_id, 2);
        assert_eq!(group.may_commit("", -1, now), ErrorCode::UnknownMemberId, "there are members");
        group.expel();
        assert_eq!((group.expelled(), group.heartbeat(&a, 2, now)), (2, ErrorCode::UnknownMemberId));
    }

    #[tokio::test]
    async fn a_generation_forms_without_whom_it_waited_for_in_vain() {
        let now = Instant::now();
        let (mut group, a) = alone(now);
        let b = id(&mut group, now);
        let b_joins = request(&b, &["range"]);
        assert!(matches!(group.join(&b_joins, true, now), Held::Until(_)));
        let formed = answered(group.join(&b_joins, false, now + 6 * SECOND));
        assert_eq!((formed.generation_id, &*formed.leader, group.expelled()), (2, &*b, 1));
        assert_eq!(group.heartbeat(&a, 1, now + 6 * SECOND), ErrorCode::UnknownMemberId);
    }

    #[tokio::test]
    async fn who_may_not_join_is_told_why() {
        let now = Instant::now();
        let (mut group, _) = alone(now);
        let code = |group: &mut Group, request: &JoinGroupRequest| {
            answered(group.join(request, true, now)).error_code
        };
        assert_eq!(code(&mut group, &request("member-9", &["range"])), ErrorCode::UnknownMemberId.code());
        assert_eq!(code(&mut group, &request("stranger", &["range"])), ErrorCode::UnknownMemberId.code());
        let b = id(&mut group, now);
        assert_eq!(code(&mut group, &request(&b, &["sticky"])), ErrorCode::InconsistentGroupProtocol.code());
        assert_eq!(code(&mut group, &request(&b, &[])), ErrorCode::InconsistentGroupProtocol.code());
        assert_eq!(group.heartbeat(&b, 1, now), ErrorCode::UnknownMemberId);
    }
}
