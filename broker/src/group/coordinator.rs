//! All groups of one partition of `__consumer_offsets`: finds the group of a call, keeps the
//! timers, replays what was stored.
//!
//! Pure like the groups themselves. The caller appends the records of [`Effects`] in the order in which calls were
//! made, and gives the replies when the records are durable.

use std::collections::BTreeMap;

use bytes::Bytes;
use klamm_protocol::ErrorCode;

use super::calls::{
    Caller, Commit, CommittedOffset, Effects, GroupDescription, GroupListing, JoinGroup, JoinReply, Now,
    SyncGroup, SyncReply,
};
use super::member::Ticket;
use super::records::{self, Stored};
use super::state::{Group, State, Turn};
use super::timers::Timers;
use crate::config::GroupConfig;

/// The groups of one partition of `__consumer_offsets`.
#[derive(Debug)]
pub struct Coordinator {
    config: GroupConfig,
    groups: BTreeMap<String, Group>,
    /// A group that was heard of since is looked at too early, which is harmless.
    timers: Timers,
}

impl Coordinator {
    /// No groups yet.
    pub fn new(config: GroupConfig) -> Self {
        Self { config, groups: BTreeMap::new(), timers: Timers::default() }
    }

    /// JoinGroup. The answer comes as a reply to `ticket`, now or later.
    pub fn join(&mut self, now: Now, ticket: Ticket, join: JoinGroup, effects: &mut Effects) {
        let timeouts = self.config.min_session_timeout_ms..=self.config.max_session_timeout_ms;
        let refusal = if join.group.is_empty() {
            Some(ErrorCode::InvalidGroupId)
        } else if !timeouts.contains(&join.session_timeout_ms) {
            Some(ErrorCode::InvalidSessionTimeout)
        } else if !join.member_id.is_empty() && !self.groups.contains_key(&join.group) {
            Some(ErrorCode::UnknownMemberId)
        } else {
            None
        };
        if let Some(error) = refusal {
            let reply = JoinReply::error(error, join.member_id);
            effects.replies.push((ticket, super::calls::Reply::Join(reply)));
            return;
        }
        let name = join.group.clone();
        self.group(&name, now);
        self.turn(now, &name, effects, |group, turn| group.join(turn, ticket, join));
    }

    /// SyncGroup. The answer comes as a reply to `ticket`, now or later.
    pub fn sync(&mut self, now: Now, ticket: Ticket, sync: SyncGroup, effects: &mut Effects) {
        let name = sync.group.clone();
        if self.turn(now, &name, effects, |group, turn| group.sync(turn, ticket, sync)).is_none() {
            let reply = SyncReply::error(unknown_group(&name));
            effects.replies.push((ticket, super::calls::Reply::Sync(reply)));
        }
    }

    /// Heartbeat.
    pub fn heartbeat(&mut self, now: Now, group: &str, caller: &Caller) -> ErrorCode {
        // A heartbeat only moves a deadline back: no timer to set, nothing to tell anybody.
        let mut effects = Effects::default();
        let Some(group) = self.groups.get_mut(group) else { return unknown_group(group) };
        group.heartbeat(&mut Turn { now, config: &self.config, effects: &mut effects }, caller)
    }

    /// LeaveGroup: one answer for each caller.
    pub fn leave(
        &mut self,
        now: Now,
        group: &str,
        callers: &[Caller],
        effects: &mut Effects,
    ) -> Vec<ErrorCode> {
        let leave_all = |group: &mut Group, turn: &mut Turn<'_>| {
            callers.iter().map(|caller| group.leave(turn, caller)).collect()
        };
        self.turn(now, group, effects, leave_all).unwrap_or_else(|| vec![unknown_group(group); callers.len()])
    }

    /// OffsetCommit: one answer for each offset. The offsets count as committed when the records are durable.
    pub fn commit(
        &mut self,
        now: Now,
        group: &str,
        caller: &Caller,
        commits: Vec<Commit>,
        effects: &mut Effects,
    ) -> Vec<ErrorCode> {
        let count = commits.len();
        if group.is_empty() {
            return vec![ErrorCode::InvalidGroupId; count];
        }
        if caller.generation >= 0 && !self.groups.contains_key(group) {
            return vec![ErrorCode::IllegalGeneration; count];
        }
        self.group(group, now);
        let metadata_max_bytes = self.config.offset_metadata_max_bytes;
        let commit_all = |group: &mut Group, turn: &mut Turn<'_>| {
            if let Err(error) = group.may_commit(turn, caller) {
                return vec![error; count];
            }
            let one = |commit| commit_one(group, turn, commit, metadata_max_bytes);
            commits.into_iter().map(one).collect()
        };
        self.turn(now, group, effects, commit_all).unwrap_or_default()
    }

    /// The offset committed for a partition.
    pub fn committed(&self, group: &str, topic: &str, partition: i32) -> Option<&CommittedOffset> {
        self.groups.get(group)?.offsets.get(topic, partition)
    }

    /// All offsets of a group, by topic and partition.
    pub fn all_committed(&self, group: &str) -> BTreeMap<String, BTreeMap<i32, CommittedOffset>> {
        self.groups.get(group).map(|group| group.offsets.all()).unwrap_or_default()
    }

    /// DescribeGroups; `None` when there is no such group.
    pub fn describe(&self, group: &str) -> Option<GroupDescription> {
        self.groups.get(group).map(Group::describe)
    }

    /// ListGroups.
    pub fn list(&self) -> Vec<GroupListing> {
        let listing = |group: &Group| GroupListing {
            group: group.id.clone(),
            protocol_type: group.protocol_type.clone().unwrap_or_default(),
            state: group.state.name(),
        };
        self.groups.values().map(listing).collect()
    }

    /// A topic is gone: its offsets are too.
    pub fn topic_deleted(&mut self, topic: &str, effects: &mut Effects) {
        for (name, group) in &mut self.groups {
            for partition in group.offsets.remove_topic(topic) {
                effects.records.push(records::offset_record(name, topic, partition, None));
            }
        }
    }

    /// Offsets of topics that `exists` does not know go away.
    pub fn retain_topics(&mut self, exists: impl Fn(&str) -> bool, effects: &mut Effects) {
        let topics = |group: &Group| group.offsets.all().into_keys().collect::<Vec<_>>();
        let mut gone: Vec<String> =
            self.groups.values().flat_map(topics).filter(|topic| !exists(topic)).collect();
        gone.sort_unstable();
        gone.dedup();
        gone.iter().for_each(|topic| self.topic_deleted(topic, effects));
    }

    /// Forgets what `offsets.retention.minutes` says is too old: offsets of a group that has been empty for
    /// so long, offsets of consumers outside group management that were committed so long ago, and groups
    /// that then have nothing left.
    pub fn expire(&mut self, now: Now, effects: &mut Effects) {
        let horizon_ms = now.wall_ms.saturating_sub(self.config.offsets_retention_ms);
        let Self { groups, timers, .. } = self;
        groups.retain(|name, group| {
            if group.state != State::Empty || !group.pending.is_empty() {
                return true;
            }
            let managed = group.protocol_type.is_some();
            if managed && group.state_since_ms > horizon_ms {
                return true;
            }
            for (topic, partition) in group.offsets.committed_until(horizon_ms) {
                group.offsets.remove(&topic, partition);
                effects.records.push(records::offset_record(name, &topic, partition, None));
            }
            if !group.offsets.is_empty() {
                return true;
            }
            if group.generation > 0 {
                effects.records.push(records::group_tombstone(name));
            }
            timers.set(name, None);
            false
        });
    }

    /// When [`Coordinator::on_time`] should be called next. May be earlier than there is something to do.
    pub fn next_deadline(&self) -> Option<i64> {
        self.timers.next()
    }

    /// Time has passed: ends the sessions and rebalances that are due.
    pub fn on_time(&mut self, now: Now, effects: &mut Effects) {
        // Each group once: one that is due again at once is looked at in the next call.
        for name in self.timers.take_due(now.ms) {
            self.turn(now, &name, effects, Group::on_time);
        }
    }

    /// Takes in a stored record, at start and in the order of the log.
    ///
    /// # Errors
    /// When key or value are not in Kafka's layout.
    pub fn replay(
        &mut self,
        now: Now,
        key: &Bytes,
        value: Option<&Bytes>,
    ) -> Result<(), klamm_protocol::DecodeError> {
        match records::read(key, value)? {
            Stored::Other => {}
            Stored::Group { group, stored: None } => {
                self.groups.remove(&group);
            }
            Stored::Group { group, stored: Some(stored) } => self.group(&group, now).restore(stored, now),
            Stored::Offset { group, topic, partition, offset: Some(offset) } => {
                self.group(&group, now).offsets.set(&topic, partition, offset);
            }
            Stored::Offset { group, topic, partition, offset: None } => {
                if let Some(group) = self.groups.get_mut(&group) {
                    group.offsets.remove(&topic, partition);
                }
            }
        }
        Ok(())
    }

    /// Everything stored has been replayed: sessions begin to run.
    pub fn replayed(&mut self) {
        self.groups.retain(|_, group| !group.is_vacant());
        for (name, group) in &self.groups {
            self.timers.set(name, group.next_deadline());
        }
    }

    /// The group of this name, a new one if there is none.
    fn group(&mut self, name: &str, now: Now) -> &mut Group {
        self.groups.entry(name.to_owned()).or_insert_with(|| Group::new(name, now))
    }

    /// Lets a group do one thing, then sets its timer, or forgets it if nothing is left of it. `None`
    /// when there is no such group.
    fn turn<T>(
        &mut self,
        now: Now,
        name: &str,
        effects: &mut Effects,
        act: impl FnOnce(&mut Group, &mut Turn<'_>) -> T,
    ) -> Option<T> {
        let group = self.groups.get_mut(name)?;
        let answer = act(group, &mut Turn { now, config: &self.config, effects });
        if group.is_vacant() {
            self.groups.remove(name);
            self.timers.set(name, None);
        } else {
            self.timers.set(name, group.next_deadline());
        }
        Some(answer)
    }
}

fn unknown_group(name: &str) -> ErrorCode {
    if name.is_empty() { ErrorCode::InvalidGroupId } else { ErrorCode::UnknownMemberId }
}

fn commit_one(
    group: &mut Group,
    turn: &mut Turn<'_>,
    commit: Commit,
    metadata_max_bytes: usize,
) -> ErrorCode {
    if commit.metadata.len() > metadata_max_bytes {
        return ErrorCode::OffsetMetadataTooLarge;
    }
    let committed = CommittedOffset {
        offset: commit.offset,
        leader_epoch: commit.leader_epoch,
        metadata: commit.metadata,
        committed_at_ms: turn.now.wall_ms,
    };
    let record = records::offset_record(&group.id, &commit.topic, commit.partition, Some(&committed));
    turn.effects.records.push(record);
    group.offsets.set(&commit.topic, commit.partition, committed);
    ErrorCode::None
}
