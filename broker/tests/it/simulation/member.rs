//! Members of a group: they join, share the partitions, commit, and leave or fall silent.

use bytes::Bytes;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::join_group::JoinGroupRequestProtocol;
use klamm_protocol::messages::leave_group::MemberIdentity;
use klamm_protocol::messages::sync_group::SyncGroupRequestAssignment;
use klamm_protocol::messages::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, SyncGroupRequest,
};

use super::client::{Role, Shared};
use super::committer::{self, COMMIT, FETCH, Question, Sent};
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
    id: String,
    generation: i32,
    state: State,
    /// What to give the members, when this one leads.
    members: Vec<String>,
    places: Vec<Place>,
    /// Waits for the answer to a join or sync.
    waits: bool,
}

#[derive(Debug)]
pub(super) enum Asked {
    Join,
    Sync,
    Heartbeat,
    Leave,
    Commit(Sent),
    Question(Question),
}

pub(super) fn join(group: &str, member_id: &str) -> JoinGroupRequest {
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
        protocol_type: "consumer".into(),
        protocols: vec![protocol],
        ..JoinGroupRequest::default()
    }
}

/// Gives every member its share of all partitions, with a number by which it can be known.
pub(super) fn sync(
    group: &str,
    joined: (&str, i32),
    members: &[String],
    shared: &mut Shared,
) -> SyncGroupRequest {
    let request = shared.number();
    let places = shared.model.places();
    let mut assignments = Vec::new();
    for (at, member) in members.iter().enumerate() {
        let share = places.iter().enumerate().filter(|(index, _)| index % members.len() == at);
        let key = (group.to_owned(), joined.1, member.clone());
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
        generation_id: joined.1,
        member_id: joined.0.into(),
        protocol_type: Some("consumer".into()),
        protocol_name: Some("range".into()),
        assignments,
        ..SyncGroupRequest::default()
    }
}

impl Member {
    pub(super) fn of(group: &str) -> Self {
        Self {
            group: group.to_owned(),
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
        *self = Self { id, waits: self.waits, ..Self::of(&self.group) };
    }

    fn joined(&mut self, answer: JoinGroupResponse) {
        match ErrorCode::from_code(answer.error_code) {
            ErrorCode::None => {
                self.state = State::Joined;
                self.id = answer.member_id.as_str().to_owned();
                self.generation = answer.generation_id;
                self.members =
                    answer.members.iter().map(|member| member.member_id.as_str().to_owned()).collect();
            }
            ErrorCode::MemberIdRequired => self.id = answer.member_id.as_str().to_owned(),
            ErrorCode::UnknownMemberId => self.out(false),
            _ => {}
        }
    }

    /// Takes an assignment, which has to be one that a leader made for this member and generation.
    fn assigned(&mut self, assignment: &[u8], shared: &mut Shared) {
        let request = std::str::from_utf8(assignment).ok().and_then(|number| number.parse::<u64>().ok());
        let key = (self.group.clone(), self.generation, self.id.clone());
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
        if shared.chance(4) {
            let member = MemberIdentity { member_id: self.id.as_str().into(), ..MemberIdentity::default() };
            let request = LeaveGroupRequest {
                group_id: group.as_str().into(),
                members: vec![member],
                ..Default::default()
            };
            connection.send(&request, LEAVE, Some(Asked::Leave));
            return self.out(false);
        }
        let places = if shared.chance(90) { self.places.clone() } else { shared.model.places() };
        let place = shared.pick(&places).filter(|_| shared.chance(60));
        let Some(place) = place else {
            let request = HeartbeatRequest {
                group_id: group.as_str().into(),
                generation_id,
                member_id: self.id.as_str().into(),
                ..HeartbeatRequest::default()
            };
            return connection.send(&request, HEARTBEAT, Some(Asked::Heartbeat));
        };
        if shared.chance(30) {
            let (request, question) = committer::question(&group, place, shared);
            connection.send(&request, FETCH, Some(Asked::Question(question)));
        } else if let Some((request, sent)) =
            committer::commit(&group, place, (&self.id, generation_id), shared)
        {
            connection.send(&request, COMMIT, Some(Asked::Commit(sent)));
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
                connection.send(&join(&self.group, &self.id), JOIN, Some(Asked::Join));
            }
            State::Joined => {
                self.waits = true;
                let request = sync(&self.group, (&self.id, self.generation), &self.members, shared);
                connection.send(&request, SYNC, Some(Asked::Sync));
            }
            State::Stable => self.act_as_member(connection, shared),
        }
    }

    fn answered(&mut self, asked: Asked, frame: Bytes, shared: &mut Shared) {
        let code = match asked {
            Asked::Join => {
                self.waits = false;
                let answer = decoded::<JoinGroupRequest>(frame, JOIN);
                let (code, generation) = (answer.error_code, answer.generation_id);
                self.joined(answer);
                shared.note(format!("  join of {}: {code}, generation {generation}", self.group));
                return;
            }
            Asked::Sync => {
                self.waits = false;
                let answer = decoded::<SyncGroupRequest>(frame, SYNC);
                shared.note(format!("  sync of {}: {}", self.group, answer.error_code));
                if answer.error_code == 0 && self.state == State::Joined {
                    self.assigned(&answer.assignment, shared);
                }
                answer.error_code
            }
            Asked::Heartbeat => decoded::<HeartbeatRequest>(frame, HEARTBEAT).error_code,
            Asked::Leave => return drop(decoded::<LeaveGroupRequest>(frame, LEAVE)),
            Asked::Commit(sent) => committer::committed(&sent, frame, shared),
            Asked::Question(question) => {
                let _ = committer::told(&question, frame, shared);
                return;
            }
        };
        self.heard(code);
    }

    fn lost(&mut self, asked: Asked, shared: &mut Shared) {
        match asked {
            Asked::Commit(sent) => committer::unanswered(&sent, shared),
            // Whether it counted is not known.
            Asked::Join | Asked::Sync => (self.waits, self.state) = (false, State::Out),
            _ => {}
        }
    }
}
