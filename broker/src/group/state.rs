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

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use klamm_protocol::ErrorCode;

use super::calls::{JoinReply, JoinedMember, Reply, SyncReply};
use super::member::Member;
use super::members::Members;
use super::offset_calls::{GroupDescription, MemberDescription};
use super::offsets::Offsets;
use super::pending::PendingOffsets;
use super::records::{StoredGroup, StoredMember, group_record};
use super::subscription::Subscription;
use crate::config::GroupConfig;
use crate::coordinator::{Effects, Journal, Now, Timers};

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
    pub(super) effects: &'a mut Effects<Reply>,
    /// What groups were when they were last written down durably.
    pub(super) written: &'a mut Written,
}

/// What was last written down of a group before each write that is not durable.
pub(super) type Written = Journal<String, Option<Arc<StoredGroup>>>;

impl Turn<'_> {
    pub(super) fn reply_join(&mut self, ticket: u64, reply: JoinReply) {
        self.effects.answer(ticket, Reply::Join(reply), 0);
    }

    pub(super) fn reply_sync(&mut self, ticket: u64, reply: SyncReply) {
        self.effects.answer(ticket, Reply::Sync(reply), 0);
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
    /// What the members subscribed to when this generation began.
    pub(super) subscription: Subscription,
    pub(super) members: Members,
    /// Member ids handed out with MEMBER_ID_REQUIRED that nobody has joined with yet, and until when they are good.
    pub(super) pending: Timers<String>,
    pub(super) offsets: Offsets,
    /// What transactions have written that are not decided.
    pub(super) pending_offsets: PendingOffsets,
    /// The group as it was last written down.
    pub(super) stored: Option<Arc<StoredGroup>>,
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
            subscription: Subscription::None,
            members: Members::default(),
            pending: Timers::default(),
            offsets: Offsets::default(),
            pending_offsets: PendingOffsets::default(),
            stored: None,
            join_phase: None,
            unsynced: BTreeSet::new(),
            sync_deadline_ms: 0,
        }
    }

    /// The group is as it was stored, or was never stored: what was stable is stable again, and every member has one
    /// session to be heard of. Nobody waits.
    pub(super) fn restore(&mut self, stored: Option<Arc<StoredGroup>>, now: Now) {
        self.stored = stored;
        self.join_phase = None;
        self.unsynced.clear();
        self.members.clear();
        let (mut state, mut since_ms) = (State::Empty, now.wall_ms);
        (self.generation, self.protocol_type, self.protocol, self.leader) = (0, None, None, None);
        if let Some(stored) = &self.stored {
            self.generation = stored.generation;
            self.protocol_type = Some(stored.protocol_type.clone()).filter(|text| !text.is_empty());
            self.protocol.clone_from(&stored.protocol);
            self.leader.clone_from(&stored.leader);
            since_ms = stored.state_since_ms;
            let protocol = stored.protocol.as_deref().unwrap_or_default();
            for member in &stored.members {
                state = State::Stable;
                self.members.insert(member.to_member(protocol, now.ms));
            }
        }
        (self.state, self.state_since_ms) = (state, since_ms);
        self.subscribe();
    }

    /// A generation begins: this is what its members subscribe to.
    fn subscribe(&mut self) {
        let protocol = self.protocol.as_deref();
        let said = |member: &Member| member.metadata(protocol.unwrap_or_default());
        let said: Vec<Bytes> = self.members.iter().map(said).collect();
        self.subscription = Subscription::of(self.protocol_type.as_deref(), protocol, &said);
    }

    /// The group has been loaded. If it has more members than there may be now, they have to join anew, and the last to
    /// come are turned away.
    pub(super) fn loaded(&mut self, turn: &mut Turn<'_>) {
        if self.members.len() > turn.config.max_size {
            self.prepare(turn);
        }
    }

    /// What was written down last never happened. Whoever waits for an answer is told to find the coordinator again.
    pub(super) fn roll_back(
        &mut self,
        stored: Option<Arc<StoredGroup>>,
        now: Now,
        effects: &mut Effects<Reply>,
    ) {
        let error = ErrorCode::CoordinatorNotAvailable;
        for member in self.members.iter() {
            if let Some(join) = member.joining {
                effects.answer(join.ticket, Reply::Join(JoinReply::error(error, &member.id)), 0);
            }
            if let Some(ticket) = member.syncing {
                effects.answer(ticket, Reply::Sync(SyncReply::error(error)), 0);
            }
        }
        self.restore(stored, now);
    }

    /// Nothing would be lost by forgetting the group.
    pub(super) fn is_vacant(&self) -> bool {
        let has_offsets = !self.offsets.is_empty() || !self.pending_offsets.is_empty();
        self.members.is_empty() && self.pending.is_empty() && !has_offsets && self.generation == 0
    }

    /// When [`Group::on_time`] has something to do.
    pub(super) fn next_deadline(&self) -> Option<i64> {
        let joins = self.join_phase.map(|phase| phase.deadline_ms);
        let syncs = (!self.unsynced.is_empty()).then_some(self.sync_deadline_ms);
        [self.members.next_deadline(), self.pending.next(), joins, syncs].into_iter().flatten().min()
    }

    /// Time has passed: ends sessions and phases that are due.
    pub(super) fn on_time(&mut self, turn: &mut Turn<'_>) {
        let now_ms = turn.now.ms;
        self.pending.take_due(now_ms);
        for id in self.members.take_silent(now_ms) {
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
            match self.members.static_id(instance) {
                None => return Err(ErrorCode::UnknownMemberId),
                Some(current) if current != member_id => return Err(ErrorCode::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.members.contains(member_id) { Ok(()) } else { Err(ErrorCode::UnknownMemberId) }
    }

    /// Takes in a member that waits in its JoinGroup.
    pub(super) fn add_member(&mut self, turn: &mut Turn<'_>, mut member: Member) {
        member.deadline_ms = turn.now.ms + NEW_MEMBER_JOIN_TIMEOUT_MS;
        if let Some(initial) = self.join_phase.as_mut().and_then(|phase| phase.initial.as_mut()) {
            initial.member_came = true;
        }
        self.leader.get_or_insert_with(|| member.id.clone());
        self.members.insert(member);
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
        if self.leader.as_deref() == Some(id) {
            self.leader = self.members.first_id().cloned();
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
        self.members.joining() == self.members.len()
    }

    fn prepare(&mut self, turn: &mut Turn<'_>) {
        self.members.change_all(|member| {
            if let Some(ticket) = member.syncing.take() {
                member.touch(turn.now.ms);
                turn.reply_sync(ticket, SyncReply::error(ErrorCode::RebalanceInProgress));
            }
        });
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
        let gone = |member: &&Member| member.joining.is_none() && member.instance_id.is_none();
        let gone: Vec<String> = self.members.iter().filter(gone).map(|member| member.id.clone()).collect();
        gone.iter().for_each(|id| drop(self.members.remove(id)));
        let joined = |id: &String| self.members.get(id).is_some_and(|member| member.joining.is_some());
        if !self.leader.as_ref().is_some_and(joined) {
            self.leader = self.members.iter().find(|member| member.joining.is_some()).map(|m| m.id.clone());
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
            self.subscribe();
            self.enter(State::Empty, turn.now);
            self.store(turn);
            return;
        }
        self.protocol = self.members.vote();
        self.subscribe();
        self.enter(State::CompletingRebalance, turn.now);
        let joined: Vec<String> =
            self.members.iter().filter(|m| m.joining.is_some()).map(|m| m.id.clone()).collect();
        for id in &joined {
            let reply = self.current_generation(id);
            let join = self.members.change(id, |member| {
                member.is_new = false;
                member.touch(turn.now.ms);
                member.joining.take()
            });
            if let Some(join) = join.flatten() {
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
            .iter()
            .map(|member| JoinedMember {
                id: member.id.clone(),
                instance_id: member.instance_id.clone(),
                metadata: member.metadata(protocol),
            })
            .collect()
    }

    /// The leader has spoken: the generation is stable once this is durable.
    pub(super) fn assign(&mut self, turn: &mut Turn<'_>, assignments: Vec<(String, Bytes)>) {
        self.members.change_all(|member| member.assignment = Bytes::new());
        for (id, assignment) in assignments {
            // A copy: the request's frame would otherwise live as long as the assignment.
            self.members.change(&id, |member| member.assignment = Bytes::copy_from_slice(&assignment));
        }
        self.enter(State::Stable, turn.now);
        self.store(turn);
        let (protocol_type, protocol) = (self.protocol_type.clone(), self.protocol.clone());
        self.members.change_all(|member| {
            if let Some(ticket) = member.syncing.take() {
                member.touch(turn.now.ms);
                let assignment = member.assignment.clone();
                let (protocol_type, protocol) = (protocol_type.clone(), protocol.clone());
                turn.reply_sync(
                    ticket,
                    SyncReply { error: ErrorCode::None, protocol_type, protocol, assignment },
                );
            }
        });
    }

    /// Writes the group down as it is now.
    pub(super) fn store(&mut self, turn: &mut Turn<'_>) {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let stored = StoredGroup {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone().filter(|_| self.state != State::Empty),
            state_since_ms: self.state_since_ms,
            members: self.members.iter().map(|member| StoredMember::of(member, protocol)).collect(),
        };
        match group_record(&self.id, &stored) {
            Ok(record) => turn.effects.write(record),
            Err(_) => turn.effects.refused = Some(ErrorCode::UnknownServerError),
        }
        let before = self.stored.replace(Arc::new(stored));
        turn.written.note(turn.effects.step, &self.id, before);
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
        self.members.iter().map(|member| i64::from(member.rebalance_timeout_ms)).max().unwrap_or(0)
    }

    /// The state as it may be told: a state that rests on a record which is not durable has not been reached.
    pub(super) fn told_state(&self, is_pending: bool) -> State {
        match self.state {
            State::Stable if is_pending => State::CompletingRebalance,
            State::Empty if is_pending => State::PreparingRebalance,
            state => state,
        }
    }

    pub(super) fn describe(&self, is_pending: bool) -> GroupDescription {
        let state = self.told_state(is_pending);
        let stable = state == State::Stable;
        let protocol = self.protocol.clone().filter(|_| stable).unwrap_or_default();
        let members = self.members.iter().map(|member| MemberDescription {
            id: member.id.clone(),
            instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            metadata: if stable { member.metadata(&protocol) } else { Bytes::new() },
            assignment: if stable { member.assignment.clone() } else { Bytes::new() },
        });
        GroupDescription {
            state: state.name(),
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            members: members.collect(),
            protocol,
        }
    }
}
