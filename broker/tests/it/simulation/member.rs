//! Members of a group: they join, share the partitions, commit, and leave or fall silent.

use bytes::Bytes;
use klamm_protocol::messages::join_group::{JoinGroupRequestProtocol, JoinGroupResponseMember};
use klamm_protocol::messages::leave_group::MemberIdentity;
use klamm_protocol::messages::sync_group::SyncGroupRequestAssignment;
use klamm_protocol::messages::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, SyncGroupRequest,
};
use klamm_protocol::{ErrorCode, Request};

use super::client::{Role, Shared, Takeover};
use super::committer::{self, COMMIT, Caller, FETCH, Question, Sent};
use super::connection::{Connection, decoded};
use super::model::Place;

pub(super) const JOIN: i16 = 9;
pub(super) const SYNC: i16 = 5;
const HEARTBEAT: i16 = 4;
const LEAVE: i16 = 5;
/// The shortest that the broker allows.
const SESSION_MS: i32 = 6_000;

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Out,
    Joined,
    Stable,
}

#[derive(Debug)]
pub(super) struct Member {
    group: String,
    /// `group.instance.id`. Another client may have the same: the one that joins last is the member.
    instance: Option<String>,
    id: String,
    generation: i32,
    state: State,
    /// When it asked to be a member and when it was told that it is one, as numbers.
    asked: u64,
    joined: u64,
    /// Whom to give something, when this one leads: member id and what it is known by.
    members: Vec<Named>,
    places: Vec<Place>,
    /// Waits for the answer to a join or sync.
    waits: bool,
}

/// A member's id, and what it is known by: its instance, which keeps what a member was given when another takes its
/// place, or the same again.
pub(super) type Named = (String, String);

#[derive(Debug)]
pub(super) struct Asked {
    what: What,
    /// Another had its instance for sure when this was sent.
    fenced: bool,
}

#[derive(Debug)]
enum What {
    /// When it was sent.
    Join(u64),
    Sync,
    Heartbeat,
    Leave,
    Commit(Sent),
    Question(Question),
}

/// Whom a leader's answer to a join names.
pub(super) fn named(answer: &JoinGroupResponse) -> Vec<Named> {
    let named = |member: &JoinGroupResponseMember| {
        let id = member.member_id.as_str().to_owned();
        let instance = member.group_instance_id.as_ref().map(|instance| instance.as_str().to_owned());
        (id.clone(), instance.unwrap_or(id))
    };
    answer.members.iter().map(named).collect()
}

pub(super) fn join(group: &str, member_id: &str, instance: Option<&str>) -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol {
        name: "range".into(),
        metadata: Bytes::from_static(b"all"),
        ..JoinGroupRequestProtocol::default()
    };
    JoinGroupRequest {
        group_id: group.into(),
        session_timeout_ms: SESSION_MS,
        rebalance_timeout_ms: SESSION_MS,
        member_id: member_id.into(),
        group_instance_id: instance.map(Into::into),
        protocol_type: "consumer".into(),
        protocols: vec![protocol],
        ..JoinGroupRequest::default()
    }
}

/// Gives every member its share of all partitions, with a number by which it can be known.
pub(super) fn sync(
    group: &str,
    caller: Caller<'_>,
    members: &[Named],
    shared: &mut Shared,
) -> SyncGroupRequest {
    let request = shared.number();
    let places = shared.model.places();
    let mut assignments = Vec::new();
    for (at, (member, known_as)) in members.iter().enumerate() {
        let share = places.iter().enumerate().filter(|(index, _)| index % members.len() == at);
        let key = (group.to_owned(), caller.generation, known_as.clone());
        let share = share.map(|(_, place)| *place).collect();
        shared.assignments.entry(key).or_default().push((request, share));
        assignments.push(SyncGroupRequestAssignment {
            member_id: member.as_str().into(),
            assignment: Bytes::from(request.to_string()),
            ..SyncGroupRequestAssignment::default()
        });
    }
    SyncGroupRequest {
        group_id: group.into(),
        generation_id: caller.generation,
        member_id: caller.id.into(),
        group_instance_id: caller.instance.map(Into::into),
        protocol_type: Some("consumer".into()),
        protocol_name: Some("range".into()),
        assignments,
        ..SyncGroupRequest::default()
    }
}

impl Member {
    pub(super) fn of(group: &str, instance: Option<String>) -> Self {
        Self {
            group: group.to_owned(),
            instance,
            asked: 0,
            joined: 0,
            id: String::new(),
            generation: -1,
            state: State::Out,
            members: Vec::new(),
            places: Vec::new(),
            waits: false,
        }
    }

    /// Everything that is known of the group is void.
    fn out(&mut self, with_id: bool) {
        let id = if with_id { std::mem::take(&mut self.id) } else { String::new() };
        *self = Self { id, waits: self.waits, ..Self::of(&self.group, self.instance.take()) };
    }

    fn caller(&self) -> Caller<'_> {
        Caller { id: &self.id, instance: self.instance.as_deref(), generation: self.generation }
    }

    /// Sends it, with what is known of whether this is a member.
    fn ask<R: Request>(
        &self,
        (request, version): (&R, i16),
        what: What,
        connection: &mut Connection<Asked>,
        shared: &Shared,
    ) {
        let takeover = self.instance.as_ref().and_then(|instance| shared.takeovers.get(instance));
        let fenced = takeover.is_some_and(|Takeover { life, sent, member_id }| {
            *life == shared.life && *sent > self.joined && *member_id != self.id && !self.id.is_empty()
        });
        connection.send(request, version, Some(Asked { what, fenced }));
    }

    fn joined(&mut self, sent: u64, answer: &JoinGroupResponse, shared: &mut Shared) {
        match ErrorCode::from_code(answer.error_code) {
            ErrorCode::None => {
                self.state = State::Joined;
                self.id = answer.member_id.as_str().to_owned();
                self.generation = answer.generation_id;
                self.members = named(answer);
                (self.asked, self.joined) = (sent, shared.number());
            }
            ErrorCode::MemberIdRequired => self.id = answer.member_id.as_str().to_owned(),
            ErrorCode::UnknownMemberId | ErrorCode::FencedInstanceId => self.out(false),
            _ => {}
        }
    }

    /// Takes an assignment, which has to be one that a leader made for this member and generation.
    fn assigned(&mut self, assignment: &[u8], shared: &mut Shared) {
        let request = std::str::from_utf8(assignment).ok().and_then(|number| number.parse::<u64>().ok());
        let known_as = self.instance.clone().unwrap_or_else(|| self.id.clone());
        let key = (self.group.clone(), self.generation, known_as);
        let made =
            shared.assignments.get(&key).into_iter().flatten().find(|(number, _)| Some(*number) == request);
        let Some((request, places)) = made.cloned() else {
            return shared.model.fail(format!("no leader made the assignment {assignment:?} for {key:?}"));
        };
        let counts =
            *shared.counted.entry((shared.life, self.group.clone(), self.generation)).or_insert(request);
        shared.model.check(counts == request, || {
            format!("generation {} has the assignments of leaders' requests {counts} and {request}", key.1)
        });
        (self.state, self.places) = (State::Stable, places);
        // Only now it is durable that this is the member.
        if let Some(instance) = &self.instance {
            let takeover = Takeover { life: shared.life, sent: self.asked, member_id: self.id.clone() };
            let last = shared.takeovers.entry(instance.clone()).or_insert_with(|| takeover.clone());
            if last.sent < takeover.sent {
                *last = takeover;
            }
        }
    }

    /// What an error of another request means for the membership.
    fn heard(&mut self, code: i16) {
        match ErrorCode::from_code(code) {
            ErrorCode::RebalanceInProgress => self.out(true),
            ErrorCode::UnknownMemberId | ErrorCode::IllegalGeneration | ErrorCode::FencedInstanceId => {
                self.out(false);
            }
            _ => {}
        }
    }

    fn act_as_member(&mut self, connection: &mut Connection<Asked>, shared: &mut Shared) {
        let group = self.group.clone();
        let generation_id = self.generation;
        let group_instance_id = self.instance.as_deref().map(Into::into);
        if shared.chance(4) {
            let member = MemberIdentity {
                member_id: self.id.as_str().into(),
                group_instance_id,
                ..MemberIdentity::default()
            };
            let request = LeaveGroupRequest {
                group_id: group.as_str().into(),
                members: vec![member],
                ..Default::default()
            };
            self.ask((&request, LEAVE), What::Leave, connection, shared);
            return self.out(false);
        }
        let places = if shared.chance(90) { self.places.clone() } else { shared.model.places() };
        let place = shared.pick(&places).filter(|_| shared.chance(60));
        let Some(place) = place else {
            let request = HeartbeatRequest {
                group_id: group.as_str().into(),
                generation_id,
                member_id: self.id.as_str().into(),
                group_instance_id,
                ..HeartbeatRequest::default()
            };
            return self.ask((&request, HEARTBEAT), What::Heartbeat, connection, shared);
        };
        if shared.chance(30) {
            let (request, question) = committer::question(&group, place, shared);
            connection.send(&request, FETCH, Some(Asked { what: What::Question(question), fenced: false }));
        } else if let Some((request, sent)) = committer::commit(&group, place, self.caller(), shared) {
            self.ask((&request, COMMIT), What::Commit(sent), connection, shared);
        }
    }
}

impl Role for Member {
    type Asked = Asked;

    fn act(&mut self, connection: &mut Connection<Asked>, shared: &mut Shared) {
        if self.waits || connection.waiting() > 3 {
            return;
        }
        match self.state {
            State::Out => {
                self.waits = true;
                let sent = shared.number();
                let request = join(&self.group, &self.id, self.instance.as_deref());
                connection.send(&request, JOIN, Some(Asked { what: What::Join(sent), fenced: false }));
            }
            State::Joined => {
                self.waits = true;
                let request = sync(&self.group, self.caller(), &self.members, shared);
                self.ask((&request, SYNC), What::Sync, connection, shared);
            }
            State::Stable => self.act_as_member(connection, shared),
        }
    }

    fn answered(&mut self, asked: Asked, frame: Bytes, shared: &mut Shared) {
        let Asked { what, fenced } = asked;
        let code = match what {
            What::Join(sent) => {
                self.waits = false;
                let answer = decoded::<JoinGroupRequest>(frame, JOIN);
                let (code, generation) = (answer.error_code, answer.generation_id);
                self.joined(sent, &answer, shared);
                shared.note(format!("  join of {}: {code}, generation {generation}", self.group));
                return;
            }
            What::Sync => {
                self.waits = false;
                let answer = decoded::<SyncGroupRequest>(frame, SYNC);
                shared.note(format!("  sync of {}: {}", self.group, answer.error_code));
                if answer.error_code == 0 && self.state == State::Joined {
                    self.assigned(&answer.assignment, shared);
                }
                answer.error_code
            }
            What::Heartbeat => decoded::<HeartbeatRequest>(frame, HEARTBEAT).error_code,
            What::Leave => return drop(decoded::<LeaveGroupRequest>(frame, LEAVE)),
            What::Commit(sent) => committer::committed(&sent, frame, shared),
            What::Question(question) => {
                let _ = committer::told(&question, frame, shared);
                return;
            }
        };
        shared.fenced += u64::from(fenced);
        shared.model.check(!fenced || code != 0, || {
            format!("a member is served, and another had taken its place as {:?}", self.instance)
        });
        self.heard(code);
    }

    fn lost(&mut self, asked: Asked, shared: &mut Shared) {
        match asked.what {
            What::Commit(sent) => committer::unanswered(&sent, shared),
            // Whether it counted is not known.
            What::Join(_) | What::Sync => (self.waits, self.state) = (false, State::Out),
            _ => {}
        }
    }
}
