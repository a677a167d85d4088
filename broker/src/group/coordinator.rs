//! All groups of one partition of `__consumer_offsets`: finds the group of a call, keeps the
//! timers, replays what was stored, takes back what was not.
//!
//! Pure like the groups themselves. Members live in memory; what is written down, a generation and its offsets, is
//! noted in a journal before it changes, so that a step which does not become durable can be undone. A group whose
//! record is undone is what it was when it was last written, as after a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use klamm_protocol::{EncodeError, ErrorCode, Uuid};

use super::calls::{
    Caller, Commit, CommittedOffset, FetchOffsets, FetchedTopic, GroupDescription, GroupListing, JoinGroup,
    JoinReply, Reply, SyncGroup, SyncReply,
};
use super::records::{self, Stored, StoredGroup};
use super::state::{Group, State, Turn, Written};
use crate::config::GroupConfig;
use crate::coordinator::{Effects, Journal, Now, Step, StoredRecord, Ticket, Timers};

/// Kafka has no bound but that of its strings, 32,767 bytes. A group's name is in every record of every offset it
/// commits, so that a long one would make a small request a large write.
const GROUP_ID_MAX_BYTES: usize = 1_024;

/// The groups of one partition of `__consumer_offsets`.
#[derive(Debug)]
pub(super) struct Coordinator {
    config: GroupConfig,
    groups: BTreeMap<String, Group>,
    /// When to look at which group.
    timers: Timers<String>,
    /// Groups as they were before writes that are not durable.
    written: Written,
    /// Offsets as they were before writes that are not durable, by group.
    committed: Journal<String, BeforeCommit>,
}

/// What was committed for a partition before.
#[derive(Debug)]
struct BeforeCommit {
    topic: String,
    partition: i32,
    offset: Option<CommittedOffset>,
}

impl Coordinator {
    /// No groups yet.
    pub(super) fn new(config: GroupConfig) -> Self {
        Self {
            config,
            groups: BTreeMap::new(),
            timers: Timers::default(),
            written: Journal::default(),
            committed: Journal::default(),
        }
    }

    /// JoinGroup. The answer comes as a reply to `ticket`, now or later.
    pub(super) fn join(&mut self, now: Now, ticket: Ticket, join: JoinGroup, effects: &mut Effects<Reply>) {
        let timeouts = self.config.min_session_timeout_ms..=self.config.max_session_timeout_ms;
        let refusal = if join.group.is_empty() || join.group.len() > GROUP_ID_MAX_BYTES {
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

    /// OffsetCommit: one answer for each offset. The offsets count as committed when the records are durable.
    pub(super) fn commit(
        &mut self,
        now: Now,
        group: &str,
        caller: &Caller,
        commits: Vec<Commit>,
        effects: &mut Effects<Reply>,
    ) -> Vec<ErrorCode> {
        let count = commits.len();
        if group.is_empty() || group.len() > GROUP_ID_MAX_BYTES {
            return vec![ErrorCode::InvalidGroupId; count];
        }
        if caller.generation >= 0 && !self.groups.contains_key(group) {
            return vec![ErrorCode::IllegalGeneration; count];
        }
        self.group(group, now);
        let metadata_max_bytes = self.config.offset_metadata_max_bytes;
        let mut before = Vec::new();
        let commit_all = |group: &mut Group, turn: &mut Turn<'_>| {
            if let Err(error) = group.may_commit(turn, caller) {
                return vec![error; count];
            }
            let last = last_of_each(&commits, metadata_max_bytes);
            let one = |(place, commit)| {
                commit_one(group, turn, commit, last.contains(&place), metadata_max_bytes, &mut before)
            };
            commits.into_iter().enumerate().map(one).collect()
        };
        let codes = self.turn(now, group, effects, commit_all).unwrap_or_default();
        before.into_iter().for_each(|before| self.committed.note(effects.step, &group.to_owned(), before));
        codes
    }

    /// OffsetFetch: what is committed, and what the answer rests on. An offset that was committed for another topic of
    /// the same name is none.
    pub(super) fn fetch(&self, fetch: &FetchOffsets) -> (Vec<FetchedTopic>, Step) {
        let offsets = self.groups.get(&fetch.group).map(|group| &group.offsets);
        let found = match &fetch.topics {
            Some(topics) => {
                let of_topic = |topic: &super::calls::FetchTopic| {
                    let one = |partition: &i32| {
                        let found = offsets.and_then(|offsets| offsets.get(&topic.name, *partition));
                        (*partition, found.filter(|found| found.topic_id == topic.id).cloned())
                    };
                    let partitions = topic.partitions.iter().map(one).collect();
                    FetchedTopic { name: topic.name.clone(), id: topic.id, partitions }
                };
                topics.iter().map(of_topic).collect()
            }
            None => offsets.map(super::offsets::Offsets::by_topic_and_id).unwrap_or_default(),
        };
        (found, self.committed.pending(&fetch.group))
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

    /// ListGroups. Shows nothing that rests on a record which is not durable.
    pub(super) fn list(&self) -> Vec<GroupListing> {
        let listing = |group: &Group| GroupListing {
            group: group.id.clone(),
            protocol_type: group.protocol_type.clone().unwrap_or_default(),
            state: group.told_state(self.written.pending(&group.id) > 0).name(),
        };
        let is_shown = |group: &&Group| !self.is_only_pending(group);
        let known = self.groups.values().filter(is_shown).map(listing);
        // Those that are gone, but not durably.
        let changed: BTreeSet<&String> = self.written.keys().chain(self.committed.keys()).collect();
        let is_gone = |name: &&String| !self.groups.get(*name).is_some_and(|group| is_shown(&group));
        let gone = changed.into_iter().filter(is_gone).filter_map(|name| {
            let description = self.describe(name)?;
            let (protocol_type, state) = (description.protocol_type, description.state);
            Some(GroupListing { group: name.clone(), protocol_type, state })
        });
        known.chain(gone).collect()
    }

    /// The group as it is durably written, when it is not in memory any more: nothing when it never was.
    fn stored_durably(&self, name: &str) -> Option<Option<Arc<StoredGroup>>> {
        let stored = self.written.of(name).next().cloned().flatten();
        let had_offsets = self.committed.of(name).any(|before| before.offset.is_some());
        (stored.is_some() || had_offsets).then_some(stored)
    }

    /// The group is there for nothing but a commit that is not durable.
    fn is_only_pending(&self, group: &Group) -> bool {
        if self.committed.pending(&group.id) == 0 || !group.members.is_empty() || group.stored.is_some() {
            return false;
        }
        let mut first = BTreeMap::new();
        for before in self.committed.of(&group.id) {
            first.entry((&before.topic, before.partition)).or_insert(before.offset.is_some());
        }
        let (had, new): (Vec<bool>, Vec<bool>) = first.into_values().partition(|had| *had);
        had.is_empty() && group.offsets.len() <= new.len() && group.pending.is_empty()
    }

    /// A topic is gone: its offsets are too, and those that do not say for which topic of this name they are.
    pub(super) fn topic_deleted(&mut self, id: Uuid, name: &str, effects: &mut Effects<Reply>) {
        let of_it = |offset: &CommittedOffset| offset.topic_id == id || offset.topic_id.is_zero();
        for group in self.groups.values_mut() {
            let gone = group.offsets.partitions_where(name, of_it);
            remove_offsets(group, gone.into_iter().map(|partition| (name.to_owned(), partition)), effects)
                .for_each(|before| self.committed.note(effects.step, &group.id, before));
        }
    }

    /// The partition has been loaded, and these are the topics now. Offsets that do not say for which topic they are,
    /// from before there were ids in records, are taken to be for the one that has the name.
    pub(super) fn adopt_topics(
        &mut self,
        id_of: impl Fn(&str) -> Option<Uuid>,
        effects: &mut Effects<Reply>,
    ) {
        self.groups
            .values_mut()
            .for_each(|group| group.offsets.adopt(|topic| id_of(topic).unwrap_or(NO_TOPIC)));
        self.sweep_topics(id_of, effects);
    }

    /// Offsets of topics that are gone go away. What is too much for one step goes another time: nobody sees it.
    pub(super) fn sweep_topics(
        &mut self,
        id_of: impl Fn(&str) -> Option<Uuid>,
        effects: &mut Effects<Reply>,
    ) {
        for group in self.groups.values_mut() {
            if effects.is_half_full() {
                return;
            }
            let gone = group.offsets.all_where(|topic, offset| id_of(topic) != Some(offset.topic_id));
            remove_offsets(group, gone.into_iter(), effects)
                .for_each(|before| self.committed.note(effects.step, &group.id, before));
        }
    }

    /// Forgets what `offsets.retention.minutes` says is too old: offsets of a group that has been empty for
    /// so long, offsets of consumers outside group management that were committed so long ago, and groups
    /// that then have nothing left.
    pub(super) fn expire(&mut self, now: Now, effects: &mut Effects<Reply>) {
        let horizon_ms = now.wall_ms.saturating_sub(self.config.offsets_retention_ms);
        let Self { groups, timers, written, committed, .. } = self;
        groups.retain(|name, group| {
            if effects.is_half_full() || group.state != State::Empty || !group.pending.is_empty() {
                return true;
            }
            let managed = group.protocol_type.is_some();
            if managed && group.state_since_ms > horizon_ms {
                return true;
            }
            let old = group.offsets.all_where(|_, offset| offset.committed_at_ms <= horizon_ms);
            remove_offsets(group, old.into_iter(), effects)
                .for_each(|before| committed.note(effects.step, name, before));
            if !group.offsets.is_empty() {
                return true;
            }
            if group.generation > 0 {
                match records::group_tombstone(name) {
                    Ok(record) => effects.write(record),
                    Err(_) => return true,
                }
                written.note(effects.step, name, group.stored.take());
            }
            timers.remove(name);
            false
        });
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

    /// Takes in a stored record, at start and in the order of the log.
    ///
    /// # Errors
    /// When key or value are not in Kafka's layout.
    pub(super) fn replay(
        &mut self,
        now: Now,
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
    pub(super) fn replayed(&mut self) {
        self.groups.retain(|_, group| !group.is_vacant());
        for (name, group) in &self.groups {
            self.timers.set(name, group.next_deadline());
        }
    }

    /// All steps up to this one are durable.
    pub(super) fn durable(&mut self, step: Step) {
        self.written.settle(step);
        self.committed.settle(step);
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
            let offsets = &mut self.group(&name, now).offsets;
            match before.offset {
                Some(offset) => drop(offsets.set(&before.topic, before.partition, offset)),
                None => drop(offsets.remove(&before.topic, before.partition)),
            }
        }
        touched.iter().for_each(|name| self.tidy(name));
    }

    /// What the answers about a group's members rest on.
    pub(super) fn rests_on(&self, group: &str) -> Step {
        self.written.pending(group)
    }

    /// The group of this name, a new one if there is none.
    fn group(&mut self, name: &str, now: Now) -> &mut Group {
        self.groups.entry(name.to_owned()).or_insert_with(|| Group::new(name, now))
    }

    /// Lets a group do one thing, then sets its timer, or forgets it if nothing is left of it. What it says rests on
    /// what was last written of it. `None` when there is no such group.
    fn turn<T>(
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

    fn tidy(&mut self, name: &str) {
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

/// Stands for the topic of an offset that does not say for which it is, when there is none of its name.
const NO_TOPIC: Uuid = Uuid::from_u128(u128::MAX);

fn unknown_group(name: &str) -> ErrorCode {
    if name.is_empty() { ErrorCode::InvalidGroupId } else { ErrorCode::UnknownMemberId }
}

/// The places of the commits that no later one of the same request replaces: they alone need a record.
fn last_of_each(commits: &[Commit], metadata_max_bytes: usize) -> BTreeSet<usize> {
    let last: BTreeMap<(&str, i32), usize> = commits
        .iter()
        .enumerate()
        .filter(|(_, commit)| commit.metadata.len() <= metadata_max_bytes)
        .map(|(place, commit)| ((commit.topic.as_str(), commit.partition), place))
        .collect();
    last.into_values().collect()
}

fn commit_one(
    group: &mut Group,
    turn: &mut Turn<'_>,
    commit: Commit,
    is_last: bool,
    metadata_max_bytes: usize,
    before: &mut Vec<BeforeCommit>,
) -> ErrorCode {
    if commit.metadata.len() > metadata_max_bytes {
        return ErrorCode::OffsetMetadataTooLarge;
    }
    if !is_last {
        return ErrorCode::None;
    }
    let committed = CommittedOffset {
        topic_id: commit.topic_id,
        offset: commit.offset,
        leader_epoch: commit.leader_epoch,
        metadata: commit.metadata,
        committed_at_ms: turn.now.wall_ms,
    };
    match records::offset_record(&group.id, &commit.topic, commit.partition, &committed) {
        Ok(record) => turn.effects.write(record),
        Err(_) => return ErrorCode::OffsetMetadataTooLarge,
    }
    let offset = group.offsets.set(&commit.topic, commit.partition, committed);
    before.push(BeforeCommit { topic: commit.topic, partition: commit.partition, offset });
    ErrorCode::None
}

/// Takes offsets away, with a tombstone for each; gives what was there.
fn remove_offsets(
    group: &mut Group,
    gone: impl Iterator<Item = (String, i32)>,
    effects: &mut Effects<Reply>,
) -> std::vec::IntoIter<BeforeCommit> {
    let mut before = Vec::new();
    for (topic, partition) in gone {
        if effects.is_half_full() {
            // The rest goes another time.
            break;
        }
        // It was read or written in this layout, so that it fits.
        let tombstone: Result<StoredRecord, EncodeError> =
            records::offset_tombstone(&group.id, &topic, partition);
        if let Ok(record) = tombstone {
            effects.write(record);
            let offset = group.offsets.remove(&topic, partition);
            before.push(BeforeCommit { topic, partition, offset });
        }
    }
    before.into_iter()
}
