//! What members ask of a group: join, sync, heartbeat, leave, commit.

use bytes::Bytes;
use klamm_protocol::ErrorCode;

use super::calls::{Caller, JoinGroup, JoinReply, SyncGroup, SyncReply};
use super::member::{Member, PendingJoin, Protocol};
use super::state::{Group, State, Turn};
use crate::coordinator::Ticket;

/// Kafka's clients take a `group.instance.id` of up to so many characters of a topic's name; its broker does not look.
const INSTANCE_ID_MAX_BYTES: usize = 249;

impl Group {
    /// A JoinGroup. The answer comes by `ticket`, perhaps later.
    pub(super) fn join(&mut self, turn: &mut Turn<'_>, ticket: Ticket, mut join: JoinGroup) {
        // What begins a member id comes back in every answer and record that names the member.
        if join.instance_id.as_ref().is_some_and(|instance| instance.len() > INSTANCE_ID_MAX_BYTES) {
            return turn.reply_join(ticket, JoinReply::error(ErrorCode::InvalidRequest, join.member_id));
        }
        // Copies: the request's frame would otherwise live as long as the member.
        for protocol in &mut join.protocols {
            protocol.metadata = Bytes::copy_from_slice(&protocol.metadata);
        }
        if !self.admits(turn, &join) {
            return self.turn_away(turn, ticket, &join);
        }
        if !self.offers_fit(&join) {
            let error = ErrorCode::InconsistentGroupProtocol;
            return turn.reply_join(ticket, JoinReply::error(error, join.member_id));
        }
        if join.member_id.is_empty() {
            self.join_first(turn, ticket, join);
        } else {
            self.join_again(turn, ticket, join);
        }
    }

    /// The member whose place the caller would have: its own, or that of the process that had its instance id before.
    fn place_of(&self, join: &JoinGroup) -> Option<&Member> {
        let instance = join.instance_id.as_deref();
        if join.member_id.is_empty() {
            return self.members.get(self.members.static_id(instance?)?);
        }
        self.validate(&join.member_id, instance).ok()?;
        self.members.get(&join.member_id)
    }

    /// Room for one more (`group.max.size`)?
    fn admits(&self, turn: &Turn<'_>, join: &JoinGroup) -> bool {
        let max = turn.config.max_size;
        let place = self.place_of(join);
        match self.state {
            State::Empty => true,
            State::PreparingRebalance => {
                place.is_some_and(|member| member.joining.is_some()) || self.members.joining() < max
            }
            State::CompletingRebalance | State::Stable => place.is_some() || self.members.len() < max,
        }
    }

    /// There is no room for the caller: it is no member any more, and nobody waits for it.
    fn turn_away(&mut self, turn: &mut Turn<'_>, ticket: Ticket, join: &JoinGroup) {
        turn.reply_join(ticket, JoinReply::error(ErrorCode::GroupMaxSizeReached, ""));
        self.pending.remove(&join.member_id);
        if let Some(id) = self.place_of(join).map(|member| member.id.clone()) {
            self.remove_member(turn, &id);
        }
        self.check_join(turn);
    }

    /// Some protocol offered is supported by every member, and the type is the group's.
    fn offers_fit(&self, join: &JoinGroup) -> bool {
        if join.protocol_type.is_empty() || join.protocols.is_empty() {
            return false;
        }
        if self.state == State::Empty {
            return true;
        }
        let all_support = |offer: &Protocol| self.members.all_support(&offer.name);
        self.protocol_type.as_ref() == Some(&join.protocol_type) && join.protocols.iter().any(all_support)
    }

    /// The caller has no member id yet.
    fn join_first(&mut self, turn: &mut Turn<'_>, ticket: Ticket, mut join: JoinGroup) {
        let prefix = join.instance_id.as_ref().unwrap_or(&join.client_id);
        join.member_id = format!("{prefix}-{}", join.fresh_id);
        let current =
            join.instance_id.as_ref().and_then(|instance| self.members.static_id(instance)).cloned();
        if let Some(current) = current {
            self.replace_static(turn, ticket, &current, join);
        } else if join.knows_member_id_required && join.instance_id.is_none() {
            let deadline_ms = turn.now.ms + i64::from(join.session_timeout_ms);
            self.pending.set(&join.member_id, Some(deadline_ms));
            turn.reply_join(ticket, JoinReply::error(ErrorCode::MemberIdRequired, join.member_id));
        } else {
            self.take_in(turn, ticket, join);
        }
    }

    /// The caller says it has a member id.
    fn join_again(&mut self, turn: &mut Turn<'_>, ticket: Ticket, join: JoinGroup) {
        if join.instance_id.is_none() && self.pending.remove(&join.member_id) {
            return self.take_in(turn, ticket, join);
        }
        if let Err(error) = self.validate(&join.member_id, join.instance_id.as_deref()) {
            return turn.reply_join(ticket, JoinReply::error(error, join.member_id));
        }
        let unchanged =
            self.members.get(&join.member_id).is_some_and(|member| member.protocols == join.protocols);
        let is_leader = self.leader.as_ref() == Some(&join.member_id);
        match self.state {
            // Its answer was lost, or it does not care: this generation is still good for it.
            State::CompletingRebalance if unchanged => self.repeat_generation(turn, ticket, &join.member_id),
            // A leader that comes again wants a new assignment.
            State::Stable if unchanged && !is_leader => self.repeat_generation(turn, ticket, &join.member_id),
            _ => {
                let member_id = join.member_id.clone();
                self.update(turn, ticket, &member_id, join);
                self.rebalance(turn);
            }
        }
    }

    fn repeat_generation(&mut self, turn: &mut Turn<'_>, ticket: Ticket, member_id: &str) {
        let reply = self.current_generation(member_id);
        self.members.touch(member_id, turn.now.ms);
        turn.reply_join(ticket, reply);
    }

    fn take_in(&mut self, turn: &mut Turn<'_>, ticket: Ticket, join: JoinGroup) {
        if self.members.is_empty() {
            self.protocol_type = Some(join.protocol_type);
        }
        let member = Member {
            id: join.member_id,
            instance_id: join.instance_id,
            client_id: join.client_id,
            client_host: join.client_host,
            session_timeout_ms: join.session_timeout_ms,
            rebalance_timeout_ms: join.rebalance_timeout_ms,
            protocols: join.protocols,
            assignment: Bytes::new(),
            deadline_ms: 0,
            is_new: true,
            joining: Some(PendingJoin { ticket, skips_assignment: join.knows_skip_assignment }),
            syncing: None,
        };
        self.add_member(turn, member);
    }

    /// What a member says of itself replaces what it said before, and its JoinGroup waits.
    fn update(&mut self, turn: &mut Turn<'_>, ticket: Ticket, member_id: &str, join: JoinGroup) {
        let now_waiting = PendingJoin { ticket, skips_assignment: join.knows_skip_assignment };
        self.members.set_protocols(member_id, join.protocols);
        let before = self.members.change(member_id, |member| {
            member.session_timeout_ms = join.session_timeout_ms;
            member.rebalance_timeout_ms = join.rebalance_timeout_ms;
            member.client_id = join.client_id;
            member.client_host = join.client_host;
            member.joining.replace(now_waiting)
        });
        if let Some(before) = before.flatten() {
            // The client gave up on its first request and sent another; should it still read
            // that answer, it tries again.
            turn.reply_join(before.ticket, JoinReply::error(ErrorCode::RebalanceInProgress, member_id));
        }
    }

    /// A process with this `group.instance.id` has started anew: it takes over place and assignment,
    /// and the old one is fenced.
    fn replace_static(&mut self, turn: &mut Turn<'_>, ticket: Ticket, old_id: &str, join: JoinGroup) {
        let Some(mut member) = self.members.remove(old_id) else { return };
        let new_id = join.member_id.clone();
        if let Some(old) = member.joining.take() {
            turn.reply_join(old.ticket, JoinReply::error(ErrorCode::FencedInstanceId, old_id));
        }
        if let Some(old) = member.syncing.take() {
            turn.reply_sync(old, SyncReply::error(ErrorCode::FencedInstanceId));
        }
        member.id.clone_from(&new_id);
        member.is_new = false;
        self.members.insert(member);
        if self.unsynced.remove(old_id) {
            self.unsynced.insert(new_id.clone());
        }
        let old_leader = self.leader.clone().unwrap_or_default();
        if old_leader == old_id {
            self.leader = Some(new_id.clone());
        }
        self.update(turn, ticket, &new_id, join);
        let same_protocol = self.members.vote() == self.protocol;
        if self.state != State::Stable || !same_protocol {
            return self.rebalance(turn);
        }
        let mut reply = self.current_generation(&new_id);
        let joining = self.members.change(&new_id, |member| {
            member.touch(turn.now.ms);
            member.joining.take()
        });
        if joining.flatten().is_some_and(|join| join.skips_assignment) {
            reply.skip_assignment = reply.leader == new_id;
        } else {
            // An older client that finds itself the leader computes an assignment, which a stable group would not take.
            // So it is told of the leader that was, and keeps what it has.
            reply.leader = old_leader;
            reply.members = Vec::new();
        }
        self.store(turn);
        turn.reply_join(ticket, reply);
    }

    /// A SyncGroup. The answer comes by `ticket`, perhaps later.
    pub(super) fn sync(&mut self, turn: &mut Turn<'_>, ticket: Ticket, sync: SyncGroup) {
        if let Err(error) = self.validate_sync(&sync) {
            return turn.reply_sync(ticket, SyncReply::error(error));
        }
        self.unsynced.remove(&sync.member_id);
        let is_leader = self.leader.as_ref() == Some(&sync.member_id);
        match self.state {
            State::CompletingRebalance => {
                let before = self.members.change(&sync.member_id, |member| member.syncing.replace(ticket));
                if let Some(before) = before.flatten() {
                    turn.reply_sync(before, SyncReply::error(ErrorCode::RebalanceInProgress));
                }
                if is_leader {
                    self.assign(turn, sync.assignments);
                }
            }
            _ => {
                self.members.touch(&sync.member_id, turn.now.ms);
                let assignment = self.members.get(&sync.member_id).map(|member| member.assignment.clone());
                let assignment = assignment.unwrap_or_default();
                let (protocol_type, protocol) = (self.protocol_type.clone(), self.protocol.clone());
                turn.reply_sync(
                    ticket,
                    SyncReply { error: ErrorCode::None, protocol_type, protocol, assignment },
                );
            }
        }
    }

    fn validate_sync(&self, sync: &SyncGroup) -> Result<(), ErrorCode> {
        self.validate(&sync.member_id, sync.instance_id.as_deref())?;
        if sync.generation != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        let differs = |given: &Option<String>, ours: &Option<String>| {
            given.is_some() && ours.is_some() && given != ours
        };
        if differs(&sync.protocol_type, &self.protocol_type) || differs(&sync.protocol, &self.protocol) {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        if self.state == State::PreparingRebalance {
            return Err(ErrorCode::RebalanceInProgress);
        }
        Ok(())
    }

    /// A Heartbeat.
    pub(super) fn heartbeat(&mut self, turn: &mut Turn<'_>, caller: &Caller) -> ErrorCode {
        if let Err(error) = self.validate(&caller.member_id, caller.instance_id.as_deref()) {
            return error;
        }
        if caller.generation != self.generation {
            return ErrorCode::IllegalGeneration;
        }
        self.members.touch(&caller.member_id, turn.now.ms);
        if self.state == State::PreparingRebalance { ErrorCode::RebalanceInProgress } else { ErrorCode::None }
    }

    /// One member of a LeaveGroup. A static member may be named by its instance id alone.
    pub(super) fn leave(&mut self, turn: &mut Turn<'_>, caller: &Caller) -> ErrorCode {
        let member_id = match &caller.instance_id {
            Some(instance) if caller.member_id.is_empty() => match self.members.static_id(instance) {
                Some(current) => current.clone(),
                None => return ErrorCode::UnknownMemberId,
            },
            _ => caller.member_id.clone(),
        };
        if caller.instance_id.is_none() && self.pending.remove(&member_id) {
            self.check_join(turn);
            return ErrorCode::None;
        }
        if let Err(error) = self.validate(&member_id, caller.instance_id.as_deref()) {
            return error;
        }
        self.remove_member(turn, &member_id);
        ErrorCode::None
    }

    /// May the caller commit offsets? It counts as a sign of life.
    pub(super) fn may_commit(&mut self, turn: &Turn<'_>, caller: &Caller) -> Result<(), ErrorCode> {
        if caller.generation < 0 && self.state == State::Empty {
            return Ok(());
        }
        self.validate(&caller.member_id, caller.instance_id.as_deref())?;
        if caller.generation != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        if self.state == State::CompletingRebalance {
            return Err(ErrorCode::RebalanceInProgress);
        }
        self.members.touch(&caller.member_id, turn.now.ms);
        Ok(())
    }

    /// May the caller commit offsets in a transaction? As in Kafka, whoever does not say who it is may, for older
    /// clients cannot, and so may a member while its group is between two generations. It counts as no sign of life.
    pub(super) fn may_commit_in_transaction(&self, caller: &Caller) -> Result<(), ErrorCode> {
        let is_outside = caller.generation < 0;
        let is_nobody = caller.member_id.is_empty() && caller.instance_id.is_none();
        if is_outside && (is_nobody || self.state == State::Empty) {
            return Ok(());
        }
        self.validate(&caller.member_id, caller.instance_id.as_deref())?;
        if caller.generation == self.generation { Ok(()) } else { Err(ErrorCode::IllegalGeneration) }
    }
}
