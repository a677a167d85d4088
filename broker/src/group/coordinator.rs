//! All groups of one partition of `__consumer_offsets`: finds the group of a call, keeps the
//! timers, replays what was stored, takes back what was not. What it does with their offsets is in `commits.rs`.
//!
//! Pure like the groups themselves. Members live in memory; what is written down, a generation and its offsets, is
//! noted in a journal before it changes, so that a step which does not become durable can be undone. A group whose
//! record is undone is what it was when it was last written, as after a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use klamm_protocol::ErrorCode;

use super::calls::{Caller, JoinGroup, JoinReply, Reply, SyncGroup, SyncReply};
use super::changes::Changes;
#[cfg(test)]
use super::offset_calls::CommittedOffset;
use super::offset_calls::{GroupDescription, GroupListing};
use super::producers::Producers;
use super::records::{self, Stored, StoredGroup};
use super::state::{Group, Turn, Written};
use crate::config::GroupConfig;
use crate::coordinator::{Effects, Journal, Now, Producer, Step, StoredRecord, Ticket, Timers};

/// Kafka has no bound but that of its strings, 32,767 bytes. A group's name is in every record of every offset it
/// commits, so that a long one would make a small request a large write.
const GROUP_ID_MAX_BYTES: usize = 1_024;

/// Whether a group may have this name.
pub(super) fn is_group_id(name: &str) -> bool {
    !name.is_empty() && name.len() <= GROUP_ID_MAX_BYTES
}

/// The groups of one partition of `__consumer_offsets`.
#[derive(Debug)]
pub(super) struct Coordinator {
    pub(super) config: GroupConfig,
    pub(super) groups: BTreeMap<String, Group>,
    /// When to look at which group.
    pub(super) timers: Timers<String>,
    /// Groups as they were before writes that are not durable.
    pub(super) written: Written,
    /// Offsets as they were before writes that are not durable.
    pub(super) committed: Changes,
    /// Who has written offsets in transactions of late.
    pub(super) producers: Producers,
    /// The epochs of producers as they were before writes that are not durable.
    pub(super) epochs: Journal<i64, Option<i16>>,
}

impl Coordinator {
    /// No groups yet.
    pub(super) fn new(config: GroupConfig) -> Self {
        Self {
            config,
            groups: BTreeMap::new(),
            timers: Timers::default(),
            written: Journal::default(),
            committed: Changes::default(),
            producers: Producers::default(),
            epochs: Journal::default(),
        }
    }

    /// JoinGroup. The answer comes as a reply to `ticket`, now or later.
    pub(super) fn join(&mut self, now: Now, ticket: Ticket, join: JoinGroup, effects: &mut Effects<Reply>) {
        let timeouts = self.config.min_session_timeout_ms..=self.config.max_session_timeout_ms;
        let refusal = if !is_group_id(&join.group) {
            Some(ErrorCode::InvalidGroupId)
        } else if !timeouts.contains(&join.session_timeout_ms) {
            Some(ErrorCode::InvalidSessionTimeout)
        } else if !join.member_id.is_empty() && !self.groups.contains_key(&join.group) {
            Some(ErrorCode::UnknownMemberId)
        } else {
            None
        };
        if let Some(error) = refusal {
            let reply = JoinReply::error(error, &join.member_id);
            let rests_on = self.written.pending(&join.group);
            effects.answer(ticket, Reply::Join(reply), rests_on);
            return;
        }
        let name = join.group.clone();
        self.group(&name, now);
        self.turn(now, &name, effects, |group, turn| group.join(turn, ticket, join));
    }

    /// SyncGroup. The answer comes as a reply to `ticket`, now or later.
    pub(super) fn sync(&mut self, now: Now, ticket: Ticket, sync: SyncGroup, effects: &mut Effects<Reply>) {
        let name = sync.group.clone();
        if self.turn(now, &name, effects, |group, turn| group.sync(turn, ticket, sync)).is_none() {
            let reply = SyncReply::error(unknown_group(&name));
            effects.answer(ticket, Reply::Sync(reply), self.written.pending(&name));
        }
    }

    /// Heartbeat.
    pub(super) fn heartbeat(&mut self, now: Now, group: &str, caller: &Caller) -> ErrorCode {
        // It changes nothing that is told or written.
        let mut effects = Effects::default();
        self.turn(now, group, &mut effects, |group, turn| group.heartbeat(turn, caller))
            .unwrap_or_else(|| unknown_group(group))
    }

    /// LeaveGroup: one answer for each caller.
    pub(super) fn leave(
        &mut self,
        now: Now,
        group: &str,
        callers: &[Caller],
        effects: &mut Effects<Reply>,
    ) -> Vec<ErrorCode> {
        let leave_all = |group: &mut Group, turn: &mut Turn<'_>| {
            callers.iter().map(|caller| group.leave(turn, caller)).collect()
        };
        self.turn(now, group, effects, leave_all).unwrap_or_else(|| vec![unknown_group(group); callers.len()])
    }

    /// The offset committed for a partition.
    #[cfg(test)]
    pub(super) fn committed(&self, group: &str, topic: &str, partition: i32) -> Option<&CommittedOffset> {
        self.groups.get(group)?.offsets.get(topic, partition)
    }

    /// All offsets of a group, by topic and partition.
    #[cfg(test)]
    pub(super) fn all_committed(&self, group: &str) -> BTreeMap<String, BTreeMap<i32, CommittedOffset>> {
        self.groups.get(group).map(|group| group.offsets.all()).unwrap_or_default()
    }

    /// Everything that is pending, by group, topic, partition and producer.
    #[cfg(test)]
    pub(super) fn all_pending(&self) -> BTreeMap<(String, String, i32, i64), CommittedOffset> {
        let mut all = BTreeMap::new();
        for (producer_id, groups) in self.committed.all_groups() {
            assert!(!groups.is_empty(), "nothing is left behind");
            for name in groups {
                assert!(self.groups[name].pending_offsets.has_producer(*producer_id));
                let pending = &self.groups[name].pending_offsets;
                for (topic, partition) in pending.of_producer(*producer_id) {
                    let (_, kept) = pending.at(&topic, partition).find(|(id, _)| id == producer_id).unwrap();
                    all.insert((name.clone(), topic, partition, *producer_id), kept.offset.clone());
                }
            }
        }
        let count: usize = self.groups.values().map(|group| group.pending_offsets.len()).sum();
        assert_eq!(all.len(), count, "every producer is found");
        all
    }

    /// What is written down of every group, durable or not.
    #[cfg(test)]
    #[expect(clippy::type_complexity, reason = "a picture of everything, for tests")]
    pub(super) fn written_groups(
        &self,
    ) -> BTreeMap<String, (Option<StoredGroup>, BTreeMap<String, BTreeMap<i32, CommittedOffset>>)> {
        let of = |(name, group): (&String, &Group)| {
            (name.clone(), (group.stored.as_deref().cloned(), group.offsets.all()))
        };
        self.groups.iter().map(of).collect()
    }

    /// DescribeGroups; `None` when there is no such group. Shows nothing that rests on a record which is not durable.
    pub(super) fn describe(&self, name: &str) -> Option<GroupDescription> {
        let is_pending = self.written.pending(name) > 0;
        match self.groups.get(name) {
            Some(group) if !self.is_only_pending(group) => Some(group.describe(is_pending)),
            // Gone, but not durably.
            _ => self.stored_durably(name).map(|stored| {
                let mut group = Group::new(name, Now { ms: 0, wall_ms: 0 });
                group.restore(stored, Now { ms: 0, wall_ms: 0 });
                group.describe(false)
            }),
        }
    }

    /// ListGroups, a page: so many groups at a time by their names, those after one, and the name to go on after if
    /// there may be more. Shows nothing that rests on a record which is not durable.
    pub(super) fn list(&self, after: Option<&str>, count: usize) -> (Vec<GroupListing>, Option<String>) {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut known = self.groups.range::<str, _>((from, Bound::Unbounded));
        let page: Vec<&Group> = known.by_ref().take(count).map(|(_, group)| group).collect();
        let last = page.last().filter(|_| known.next().is_some()).map(|group| group.id.clone());
        let is_here = |name: &str| {
            after.is_none_or(|after| name > after) && last.as_deref().is_none_or(|last| name <= last)
        };
        // Those that are gone, but not durably.
        let changed = self.written.keys().chain(self.committed.names()).filter(|name| is_here(name));
        let changed: BTreeSet<&String> = changed.collect();
        let is_shown = |group: &&Group| !self.is_only_pending(group);
        let is_gone = |name: &&String| !self.groups.get(*name).is_some_and(|group| is_shown(&group));
        let gone = changed.into_iter().filter(is_gone).filter_map(|name| {
            let description = self.describe(name)?;
            let (protocol_type, state) = (description.protocol_type, description.state);
            Some(GroupListing { group: name.clone(), protocol_type, state })
        });
        let listing = |group: &Group| GroupListing {
            group: group.id.clone(),
            protocol_type: group.protocol_type.clone().unwrap_or_default(),
            state: group.told_state(self.written.pending(&group.id) > 0).name(),
        };
        let shown = page.into_iter().filter(is_shown).map(listing);
        (shown.chain(gone).collect(), last)
    }

    /// The group as it is durably written, when it is not in memory any more: nothing when it never was.
    fn stored_durably(&self, name: &str) -> Option<Option<Arc<StoredGroup>>> {
        let stored = self.written.of(name).next().cloned().flatten();
        let had_offsets = self.committed.of(name).any(|before| before.kept.is_some());
        (stored.is_some() || had_offsets).then_some(stored)
    }

    /// The group is there for nothing but a commit that is not durable.
    fn is_only_pending(&self, group: &Group) -> bool {
        if self.committed.pending(&group.id) == 0 || !group.members.is_empty() || group.stored.is_some() {
            return false;
        }
        let mut first = BTreeMap::new();
        for before in self.committed.of(&group.id) {
            let place = (&before.topic, before.partition, before.producer_id);
            first.entry(place).or_insert(before.kept.is_some());
        }
        let (had, new): (Vec<bool>, Vec<bool>) = first.into_values().partition(|had| *had);
        let offsets = group.offsets.len() + group.pending_offsets.len();
        had.is_empty() && offsets <= new.len() && group.pending.is_empty()
    }

    /// When [`Coordinator::on_time`] should be called next. May be earlier than there is something to do.
    pub(super) fn next_deadline(&self) -> Option<i64> {
        self.timers.next()
    }

    /// Time has passed: ends the sessions and rebalances that are due.
    pub(super) fn on_time(&mut self, now: Now, effects: &mut Effects<Reply>) {
        // Each group once: one that is due again at once is looked at in the next call, as are those that would make
        // the step too large to be written.
        for name in self.timers.take_due(now.ms) {
            if effects.is_half_full() {
                self.timers.set(&name, Some(now.ms));
            } else {
                self.turn(now, &name, effects, Group::on_time);
            }
        }
    }

    /// Takes in a stored record, at start and in the order of the log, and whose transaction it is part of.
    ///
    /// # Errors
    /// When key or value are not in Kafka's layout.
    pub(super) fn replay(
        &mut self,
        now: Now,
        producer: Option<Producer>,
        record: &StoredRecord,
    ) -> Result<(), klamm_protocol::DecodeError> {
        match records::read(&record.key, record.value.as_ref())? {
            Stored::Other => {}
            Stored::Group { group, stored: None } => {
                if let Some(known) = self.groups.get_mut(&group) {
                    known.restore(None, now);
                    if known.is_vacant() {
                        self.groups.remove(&group);
                    }
                }
            }
            Stored::Group { group, stored: Some(stored) } => {
                self.group(&group, now).restore(Some(Arc::new(stored)), now);
            }
            Stored::Offset { group, topic, partition, offset } => {
                self.replay_offset(now, &group, producer, (&topic, partition), offset);
            }
        }
        Ok(())
    }

    /// Everything stored has been replayed: sessions begin to run.
    pub(super) fn replayed(&mut self, now: Now) {
        self.groups.retain(|_, group| !group.is_vacant());
        // Nobody waits yet, so that nothing is answered; and nothing is written.
        let mut effects = Effects::default();
        let turn = &mut Turn { now, config: &self.config, effects: &mut effects, written: &mut self.written };
        for (name, group) in &mut self.groups {
            group.loaded(turn);
            self.timers.set(name, group.next_deadline());
        }
    }

    /// All steps up to this one are durable.
    pub(super) fn durable(&mut self, step: Step) {
        self.written.settle(step);
        self.committed.settle(step);
        self.epochs.settle(step);
    }

    /// What was written after a step never happened: groups are what they were when they were last written, and their
    /// offsets too.
    pub(super) fn roll_back(&mut self, now: Now, to: Step, effects: &mut Effects<Reply>) {
        // Undone from the newest to the oldest, so that the oldest is what remains.
        let stored: BTreeMap<String, _> = self.written.roll_back(to).into_iter().collect();
        let committed = self.committed.roll_back(to);
        let mut touched: BTreeSet<String> = stored.keys().cloned().collect();
        touched.extend(committed.iter().map(|(name, _)| name.clone()));
        for (name, stored) in stored {
            self.group(&name, now).roll_back(stored, now, effects);
        }
        for (name, before) in committed {
            self.put_back(now, &name, before);
        }
        for (producer_id, epoch) in self.epochs.roll_back(to) {
            self.producers.put_back(producer_id, epoch);
        }
        touched.iter().for_each(|name| self.tidy(name));
    }

    /// What the answers about a group's members rest on.
    pub(super) fn rests_on(&self, group: &str) -> Step {
        self.written.pending(group)
    }

    /// The group of this name, a new one if there is none.
    pub(super) fn group(&mut self, name: &str, now: Now) -> &mut Group {
        group_in(&mut self.groups, name, now)
    }

    /// Lets a group do one thing, then sets its timer, or forgets it if nothing is left of it. What it says rests on
    /// what was last written of it. `None` when there is no such group.
    pub(super) fn turn<T>(
        &mut self,
        now: Now,
        name: &str,
        effects: &mut Effects<Reply>,
        act: impl FnOnce(&mut Group, &mut Turn<'_>) -> T,
    ) -> Option<T> {
        let group = self.groups.get_mut(name)?;
        let said = effects.answers.len();
        let answer = act(group, &mut Turn { now, config: &self.config, effects, written: &mut self.written });
        let rests_on = self.written.pending(name);
        effects.answers.iter_mut().skip(said).for_each(|answer| answer.rests_on = rests_on);
        self.tidy(name);
        Some(answer)
    }

    pub(super) fn tidy(&mut self, name: &str) {
        let Some((name, group)) = self.groups.get_key_value(name) else { return };
        if group.is_vacant() {
            self.timers.remove(name);
            let name = name.clone();
            self.groups.remove(&name);
        } else {
            self.timers.set(name, group.next_deadline());
        }
    }
}

/// The group of this name, a new one if there is none.
pub(super) fn group_in<'a>(groups: &'a mut BTreeMap<String, Group>, name: &str, now: Now) -> &'a mut Group {
    groups.entry(name.to_owned()).or_insert_with(|| Group::new(name, now))
}

fn unknown_group(name: &str) -> ErrorCode {
    if name.is_empty() { ErrorCode::InvalidGroupId } else { ErrorCode::UnknownMemberId }
}
