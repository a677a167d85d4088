//! One group as a pure state machine: its members, its generation, and the rebalance that leads from
//! one generation to the next.
//!
//! ```text
//! Empty -> PreparingRebalance -> CompletingRebalance -> Stable
//!            members join          the leader assigns     until somebody comes, goes or changes
//! ```
//!
//! Semantics are those of Apache Kafka's classic groups. Requests are in `requests.rs`; this
//! file holds what they share.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use klamm_protocol::ErrorCode;

use super::calls::{
    Effects, GroupDescription, JoinReply, JoinedMember, MemberDescription, Now, Reply, SyncReply,
};
use super::member::{Member, vote};
use super::offsets::Offsets;
use super::records;
use crate::config::GroupConfig;

/// How long the JoinGroup of a member that does not know its id yet is kept waiting.
const NEW_MEMBER_JOIN_TIMEOUT_MS: i64 = 5 * 60 * 1_000;

/// Where a group is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// No members; perhaps offsets.
    Empty,
    /// Waiting for all members to send JoinGroup.
    PreparingRebalance,
    /// Waiting for the leader's assignment.
    CompletingRebalance,
    /// Every member has its assignment, or may fetch it.
    Stable,
}

impl State {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

/// One step of the machine: when it happens, under which settings, and what comes of it.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    pub(super) now: Now,
    pub(super) config: &'a GroupConfig,
    pub(super) effects: &'a mut Effects,
}

impl Turn<'_> {
    pub(super) fn reply_join(&mut self, ticket: u64, reply: JoinReply) {
        self.effects.replies.push((ticket, Reply::Join(reply)));
    }

    pub(super) fn reply_sync(&mut self, ticket: u64, reply: SyncReply) {
        self.effects.replies.push((ticket, Reply::Sync(reply)));
    }
}

/// The time that members have to join.
#[derive(Debug, Clone, Copy)]
struct JoinPhase {
    deadline_ms: i64,
    initial: Option<InitialDelay>,
}

/// An empty group that gets its first member waits a little for more, so that a fleet that starts does not
/// rebalance once per member.
#[derive(Debug, Clone, Copy)]
struct InitialDelay {
    /// By how much the wait may still be prolonged.
    remaining_ms: i64,
    /// Somebody came since the wait began or was last prolonged.
    member_came: bool,
}

impl InitialDelay {
    /// How much longer to wait, at the end of the wait so far.
    fn prolongation_ms(&mut self, delay_ms: i64) -> i64 {
        let more_ms =
            if std::mem::take(&mut self.member_came) { delay_ms.min(self.remaining_ms).max(0) } else { 0 };
        self.remaining_ms -= more_ms;
        more_ms
    }
}

/// A group.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) id: String,
    pub(super) state: State,
    /// Wall clock, when the state was entered.
    pub(super) state_since_ms: i64,
    pub(super) generation: i32,
    pub(super) protocol_type: Option<String>,
    pub(super) protocol: Option<String>,
    pub(super) leader: Option<String>,
    pub(super) members: BTreeMap<String, Member>,
    /// `group.instance.id` to member id.
    pub(super) static_ids: BTreeMap<String, String>,
    /// Member ids handed out with MEMBER_ID_REQUIRED that nobody has joined with yet, and until when they are good.
    pub(super) pending: BTreeMap<String, i64>,
    pub(super) offsets: Offsets,
    join_phase: Option<JoinPhase>,
    /// Members of this generation that have not sent SyncGroup, and when that gets them removed.
    pub(super) unsynced: BTreeSet<String>,
    sync_deadline_ms: i64,
}

impl Group {
    pub(super) fn new(id: &str, now: Now) -> Self {
        Self {
            id: id.to_owned(),
            state: State::Empty,
            state_since_ms: now.wall_ms,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            static_ids: BTreeMap::new(),
            pending: BTreeMap::new(),
            offsets: Offsets::default(),
            join_phase: None,
            unsynced: BTreeSet::new(),
            sync_deadline_ms: 0,
        }
    }

    /// A group as it was stored: what was stable is stable again, and every member has one session to be heard of.
    pub(super) fn restore(&mut self, stored: records::StoredGroup, now: Now) {
        self.generation = stored.generation;
        self.protocol_type = Some(stored.protocol_type).filter(|text| !text.is_empty());
        self.protocol = stored.protocol.clone();
        self.leader = stored.leader;
        self.state_since_ms = stored.state_since_ms;
        self.state = if stored.members.is_empty() { State::Empty } else { State::Stable };
        self.members.clear();
        self.static_ids.clear();
        for stored_member in stored.members {
            let member = stored_member.into_member(stored.protocol.clone().unwrap_or_default(), now.ms);
            if let Some(instance) = &member.instance_id {
                self.static_ids.insert(instance.clone(), member.id.clone());
            }
            self.members.insert(member.id.clone(), member);
        }
    }

    /// Nothing would be lost by forgetting the group.
    pub(super) fn is_vacant(&self) -> bool {
        self.members.is_empty() && self.pending.is_empty() && self.offsets.is_empty() && self.generation == 0
    }

    /// When [`Group::on_time`] has something to do.
    pub(super) fn next_deadline(&self) -> Option<i64> {
        let sessions = self.members.values().filter_map(Member::expires_at);
        let pending = self.pending.values().copied();
        let joins = self.join_phase.map(|phase| phase.deadline_ms);
        let syncs = (!self.unsynced.is_empty()).then_some(self.sync_deadline_ms);
        sessions.chain(pending).chain(joins).chain(syncs).min()
    }

    /// Time has passed: ends sessions and phases that are due.
    pub(super) fn on_time(&mut self, turn: &mut Turn<'_>) {
        let now_ms = turn.now.ms;
        self.pending.retain(|_, deadline_ms| *deadline_ms > now_ms);
        let silent: Vec<String> = self
            .members
            .values()
            .filter(|member| member.expires_at().is_some_and(|deadline_ms| deadline_ms <= now_ms))
            .map(|member| member.id.clone())
            .collect();
        for id in silent {
            tracing::info!(
                group = self.id,
                member = id,
                "member was silent for its session timeout: removed"
            );
            self.remove_member(turn, &id);
        }
        if self.sync_deadline_ms <= now_ms {
            for id in std::mem::take(&mut self.unsynced) {
                tracing::info!(group = self.id, member = id, "member did not sync in time: removed");
                self.remove_member(turn, &id);
            }
        }
        self.check_join(turn);
    }

    /// Checks that the caller is a member, and the right one for its `group.instance.id`.
    pub(super) fn validate(&self, member_id: &str, instance_id: Option<&str>) -> Result<(), ErrorCode> {
        if let Some(instance) = instance_id {
            match self.static_ids.get(instance) {
                None => return Err(ErrorCode::UnknownMemberId),
                Some(current) if current != member_id => return Err(ErrorCode::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.members.contains_key(member_id) { Ok(()) } else { Err(ErrorCode::UnknownMemberId) }
    }

    /// Takes in a member that waits in its JoinGroup.
    pub(super) fn add_member(&mut self, turn: &mut Turn<'_>, mut member: Member) {
        member.deadline_ms = turn.now.ms + NEW_MEMBER_JOIN_TIMEOUT_MS;
        if let Some(initial) = self.join_phase.as_mut().and_then(|phase| phase.initial.as_mut()) {
            initial.member_came = true;
        }
        self.leader.get_or_insert_with(|| member.id.clone());
        if let Some(instance) = &member.instance_id {
            self.static_ids.insert(instance.clone(), member.id.clone());
        }
        self.members.insert(member.id.clone(), member);
        self.rebalance(turn);
    }

    /// Takes a member out and lets the others rebalance. Its waiting requests are answered, so that a client that is
    /// alive after all comes back.
    pub(super) fn remove_member(&mut self, turn: &mut Turn<'_>, id: &str) {
        let Some(member) = self.members.remove(id) else { return };
        if let Some(join) = member.joining {
            turn.reply_join(join.ticket, JoinReply::error(ErrorCode::UnknownMemberId, id));
        }
        if let Some(ticket) = member.syncing {
            turn.reply_sync(ticket, SyncReply::error(ErrorCode::UnknownMemberId));
        }
        if let Some(instance) = &member.instance_id {
            self.static_ids.remove(instance);
        }
        if self.leader.as_deref() == Some(id) {
            self.leader = self.members.keys().next().cloned();
        }
        self.unsynced.remove(id);
        self.rebalance(turn);
    }

    /// Begins a rebalance unless one is waiting for members already, and ends the wait if it is over.
    pub(super) fn rebalance(&mut self, turn: &mut Turn<'_>) {
        if self.state != State::PreparingRebalance {
            self.prepare(turn);
        }
        self.check_join(turn);
    }

    /// Ends the wait for members when it is over.
    pub(super) fn check_join(&mut self, turn: &mut Turn<'_>) {
        let Some(phase) = &mut self.join_phase else { return };
        if turn.now.ms >= phase.deadline_ms {
            let delay_ms = i64::from(turn.config.initial_rebalance_delay_ms);
            match phase.initial.as_mut().map_or(0, |initial| initial.prolongation_ms(delay_ms)) {
                0 => self.complete_join(turn),
                more_ms => phase.deadline_ms = turn.now.ms + more_ms,
            }
        } else if phase.initial.is_none() && self.pending.is_empty() && self.all_joined() {
            self.complete_join(turn);
        }
    }

    fn all_joined(&self) -> bool {
        self.members.values().all(|member| member.joining.is_some())
    }

    fn prepare(&mut self, turn: &mut Turn<'_>) {
        for member in self.members.values_mut() {
            if let Some(ticket) = member.syncing.take() {
                member.touch(turn.now.ms);
                turn.reply_sync(ticket, SyncReply::error(ErrorCode::RebalanceInProgress));
            }
        }
        self.unsynced.clear();
        let rebalance_ms = self.rebalance_timeout_ms();
        self.join_phase = Some(if self.state == State::Empty {
            let delay_ms = i64::from(turn.config.initial_rebalance_delay_ms);
            let initial = InitialDelay { remaining_ms: (rebalance_ms - delay_ms).max(0), member_came: false };
            JoinPhase { deadline_ms: turn.now.ms + delay_ms, initial: Some(initial) }
        } else {
            JoinPhase { deadline_ms: turn.now.ms + rebalance_ms, initial: None }
        });
        self.enter(State::PreparingRebalance, turn.now);
    }

    /// Everybody who came is the next generation.
    fn complete_join(&mut self, turn: &mut Turn<'_>) {
        // A static member that has not come back keeps its place until its session ends: it may be restarting.
        self.members.retain(|_, member| member.joining.is_some() || member.instance_id.is_some());
        let joined = |id: &String| self.members.get(id).is_some_and(|member| member.joining.is_some());
        if !self.leader.as_ref().is_some_and(joined) {
            self.leader = self.members.values().find(|member| member.joining.is_some()).map(|m| m.id.clone());
        }
        if self.leader.is_none() && !self.members.is_empty() {
            // Only static members, none of which came: wait for them or for the end of their sessions.
            let deadline_ms = turn.now.ms + self.rebalance_timeout_ms().max(1);
            self.join_phase = Some(JoinPhase { deadline_ms, initial: None });
            return;
        }
        self.join_phase = None;
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        if self.members.is_empty() {
            self.protocol = None;
            self.leader = None;
            self.enter(State::Empty, turn.now);
            self.store(turn);
            return;
        }
        self.protocol = vote(self.members.values());
        self.enter(State::CompletingRebalance, turn.now);
        let joined: Vec<String> =
            self.members.values().filter(|m| m.joining.is_some()).map(|m| m.id.clone()).collect();
        for id in &joined {
            let reply = self.current_generation(id);
            let Some(member) = self.members.get_mut(id) else { continue };
            member.is_new = false;
            member.touch(turn.now.ms);
            if let Some(join) = member.joining.take() {
                turn.reply_join(join.ticket, reply);
            }
        }
        self.sync_deadline_ms = turn.now.ms + self.rebalance_timeout_ms();
        self.unsynced.extend(joined);
    }

    /// The answer to a JoinGroup that joined, or already belongs to, this generation.
    pub(super) fn current_generation(&self, member_id: &str) -> JoinReply {
        let leader = self.leader.clone().unwrap_or_default();
        let members = if leader == member_id { self.joined_members() } else { Vec::new() };
        JoinReply {
            error: ErrorCode::None,
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader,
            member_id: member_id.to_owned(),
            skip_assignment: false,
            members,
        }
    }

    fn joined_members(&self) -> Vec<JoinedMember> {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        self.members
            .values()
            .map(|member| JoinedMember {
                id: member.id.clone(),
                instance_id: member.instance_id.clone(),
                metadata: member.metadata(protocol),
            })
            .collect()
    }

    /// The leader has spoken: the generation is stable once this is durable.
    pub(super) fn assign(&mut self, turn: &mut Turn<'_>, assignments: Vec<(String, Bytes)>) {
        for member in self.members.values_mut() {
            member.assignment = Bytes::new();
        }
        for (id, assignment) in assignments {
            if let Some(member) = self.members.get_mut(&id) {
                // A copy: the request's frame would otherwise live as long as the assignment.
                member.assignment = Bytes::copy_from_slice(&assignment);
            }
        }
        self.enter(State::Stable, turn.now);
        self.store(turn);
        let (protocol_type, protocol) = (self.protocol_type.clone(), self.protocol.clone());
        for member in self.members.values_mut() {
            if let Some(ticket) = member.syncing.take() {
                member.touch(turn.now.ms);
                let assignment = member.assignment.clone();
                let (protocol_type, protocol) = (protocol_type.clone(), protocol.clone());
                turn.reply_sync(
                    ticket,
                    SyncReply { error: ErrorCode::None, protocol_type, protocol, assignment },
                );
            }
        }
    }

    /// Writes the group down as it is now.
    pub(super) fn store(&self, turn: &mut Turn<'_>) {
        turn.effects.records.push(records::group_record(self));
    }

    fn enter(&mut self, state: State, now: Now) {
        tracing::debug!(
            group = self.id,
            from = self.state.name(),
            to = state.name(),
            generation = self.generation
        );
        self.state = state;
        self.state_since_ms = now.wall_ms;
    }

    fn rebalance_timeout_ms(&self) -> i64 {
        self.members.values().map(|member| i64::from(member.rebalance_timeout_ms)).max().unwrap_or(0)
    }

    pub(super) fn describe(&self) -> GroupDescription {
        let stable = self.state == State::Stable;
        let protocol = self.protocol.clone().filter(|_| stable).unwrap_or_default();
        let members = self.members.values().map(|member| MemberDescription {
            id: member.id.clone(),
            instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            metadata: if stable { member.metadata(&protocol) } else { Bytes::new() },
            assignment: if stable { member.assignment.clone() } else { Bytes::new() },
        });
        GroupDescription {
            state: self.state.name(),
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            members: members.collect(),
            protocol,
        }
    }
}
