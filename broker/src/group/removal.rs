//! How groups and their offsets go: somebody deletes them, nobody has used them for long, their topics are gone. Pure.
//!
//! Each offset that goes has a tombstone, which takes away what is committed for the partition and what transactions
//! have pending for it: a marker that comes later finds nothing. What is too much for one step goes in several, one
//! right
//! after the other where somebody asks for it: a crash between them leaves a part, of which nobody was told that it is
//! gone.

use std::collections::BTreeSet;

use klamm_protocol::{EncodeError, ErrorCode, Uuid};

use super::calls::Reply;
use super::changes::{Before, Changes};
use super::coordinator::{Coordinator, is_group_id};
use super::offset_calls::CommittedOffset;
use super::records;
use super::state::{Group, State, Written};
use super::subscription::CONSUMER;
use crate::coordinator::{Effects, Now, Step, StoredRecord};

/// Stands for the topic of an offset that does not say for which it is, when there is none of its name.
const NO_TOPIC: Uuid = Uuid::from_u128(u128::MAX);

impl Coordinator {
    /// One group of a DeleteGroups request: it goes with its offsets, unless it has members.
    pub(super) fn delete_group(&mut self, name: &str, effects: &mut Effects<Reply>) -> ErrorCode {
        let Some(group) = self.groups.get_mut(name) else { return ErrorCode::GroupIdNotFound };
        if group.state != State::Empty {
            return ErrorCode::NonEmptyGroup;
        }
        remove_offsets(group, all_places(group), effects, &mut self.committed);
        if let Err(error) = forget(group, effects, &mut self.written) {
            return error;
        }
        self.timers.remove(name);
        self.groups.remove(name);
        ErrorCode::None
    }

    /// Takes some of the offsets away of a group that is to be deleted, if all are too much for one step.
    pub(super) fn begin_to_delete(&mut self, name: &str, effects: &mut Effects<Reply>) {
        if let Some(group) = self.groups.get_mut(name).filter(|group| group.state == State::Empty) {
            let all = all_places(group);
            remove_if_too_many(group, all, effects, &mut self.committed);
        }
    }

    /// The same for the offsets that are to be deleted.
    pub(super) fn begin_to_delete_offsets(
        &mut self,
        name: &str,
        topics: &[(String, Vec<i32>)],
        effects: &mut Effects<Reply>,
    ) {
        if let Some(group) = self.groups.get_mut(name).filter(|group| may_lose_offsets(group)) {
            let gone = places_among(group, topics);
            remove_if_too_many(group, gone, effects, &mut self.committed);
        }
    }

    /// OffsetDelete: one answer for each partition of each topic. A group that has members must be one of consumers,
    /// and keeps the offsets of the topics that they subscribe to.
    ///
    /// # Errors
    /// Why none of them is.
    pub(super) fn delete_offsets(
        &mut self,
        name: &str,
        topics: &[(String, Vec<i32>)],
        effects: &mut Effects<Reply>,
    ) -> Result<Vec<ErrorCode>, ErrorCode> {
        if !is_group_id(name) {
            return Err(ErrorCode::InvalidGroupId);
        }
        let Some(group) = self.groups.get_mut(name) else { return Err(ErrorCode::GroupIdNotFound) };
        if !may_lose_offsets(group) {
            return Err(ErrorCode::NonEmptyGroup);
        }
        let mut codes = Vec::new();
        for (topic, partitions) in topics {
            let kept = group.subscription.may_have(topic);
            let code = if kept { ErrorCode::GroupSubscribedToTopic } else { ErrorCode::None };
            codes.extend(partitions.iter().map(|_| code));
        }
        let gone = places_among(group, topics);
        remove_offsets(group, gone, effects, &mut self.committed);
        self.tidy(name);
        Ok(codes)
    }

    /// What answers rest on that say what there is of a group: its record and its offsets.
    pub(super) fn existence_rests_on(&self, group: &str) -> Step {
        self.rests_on(group).max(self.committed.pending(group))
    }

    /// A topic is gone: its offsets are too, and those that do not say for which topic of this name they are.
    pub(super) fn topic_deleted(&mut self, id: Uuid, name: &str, effects: &mut Effects<Reply>) {
        let of_it = |topic: &str, offset: &CommittedOffset| {
            topic == name && (offset.topic_id == id || offset.topic_id.is_zero())
        };
        for group in self.groups.values_mut() {
            let visible = group.offsets.partitions_where(name, |offset| of_it(name, offset));
            let visible = visible.into_iter().map(|partition| (name.to_owned(), partition));
            let gone = with_pending(group, visible.collect(), of_it);
            remove_some_offsets(group, gone, effects, &mut self.committed);
        }
    }

    /// The partition has been loaded, and these are the topics now. Offsets that do not say for which topic they are,
    /// from before there were ids in records, are taken to be for the one that has the name.
    pub(super) fn adopt_topics(
        &mut self,
        id_of: impl Fn(&str) -> Option<Uuid>,
        effects: &mut Effects<Reply>,
    ) {
        for group in self.groups.values_mut() {
            group.offsets.adopt(|topic| id_of(topic).unwrap_or(NO_TOPIC));
            group.pending_offsets.adopt(|topic| id_of(topic).unwrap_or(NO_TOPIC));
        }
        self.sweep_topics(id_of, effects);
    }

    /// Offsets of topics that are gone go away. What is too much for one step goes another time: nobody sees it.
    pub(super) fn sweep_topics(
        &mut self,
        id_of: impl Fn(&str) -> Option<Uuid>,
        effects: &mut Effects<Reply>,
    ) {
        let is_gone = |topic: &str, offset: &CommittedOffset| id_of(topic) != Some(offset.topic_id);
        for group in self.groups.values_mut() {
            if effects.is_half_full() {
                return;
            }
            let gone = with_pending(group, group.offsets.all_where(is_gone), is_gone);
            remove_some_offsets(group, gone, effects, &mut self.committed);
        }
    }

    /// Forgets what `offsets.retention.minutes` says is too old: offsets of a group that has been empty for so long;
    /// offsets of consumers outside group management that were committed so long ago, and those of topics to which a
    /// group with members does not subscribe any more; and empty groups that then have nothing left. What an open
    /// transaction may change is kept, and its group.
    pub(super) fn expire(&mut self, now: Now, effects: &mut Effects<Reply>) {
        let horizon_ms = now.wall_ms.saturating_sub(self.config.offsets_retention_ms);
        let Self { groups, timers, written, committed, .. } = self;
        groups.retain(|name, group| {
            // Who is at the door has not been heard of yet, and may be whose offsets these are.
            if effects.is_half_full() || !group.pending.is_empty() {
                return true;
            }
            let mut old = old_offsets(group, horizon_ms);
            old.retain(|(topic, partition)| group.pending_offsets.at(topic, *partition).next().is_none());
            remove_some_offsets(group, old, effects, committed);
            let has_offsets = !group.offsets.is_empty() || !group.pending_offsets.is_empty();
            if group.state != State::Empty || has_offsets || forget(group, effects, written).is_err() {
                return true;
            }
            timers.remove(name);
            false
        });
    }
}

/// Everything that a group has committed or has pending.
fn all_places(group: &Group) -> BTreeSet<(String, i32)> {
    let pending = group.pending_offsets.all_where(|_, _| true);
    group.offsets.all_where(|_, _| true).into_iter().chain(pending).collect()
}

/// Whether somebody may take offsets away from a group.
fn may_lose_offsets(group: &Group) -> bool {
    group.state == State::Empty || group.protocol_type.as_deref() == Some(CONSUMER)
}

/// What a group has committed or has pending of these partitions, without the topics that its members subscribe to.
fn places_among(group: &Group, topics: &[(String, Vec<i32>)]) -> BTreeSet<(String, i32)> {
    let mut found = BTreeSet::new();
    for (topic, partitions) in topics.iter().filter(|(topic, _)| !group.subscription.may_have(topic)) {
        let has_one = |partition: &&i32| {
            group.offsets.get(topic, **partition).is_some()
                || group.pending_offsets.at(topic, **partition).next().is_some()
        };
        found.extend(partitions.iter().filter(has_one).map(|partition| (topic.clone(), *partition)));
    }
    found
}

/// Takes some of these offsets away if all of them are too much for one step, which something else may be written in.
fn remove_if_too_many(
    group: &mut Group,
    gone: BTreeSet<(String, i32)>,
    effects: &mut Effects<Reply>,
    committed: &mut Changes,
) {
    let bytes_of = |(topic, partition): &(String, i32)| {
        let tombstone = records::offset_tombstone(&group.id, topic, *partition);
        tombstone.map_or(0, |record| record.max_bytes())
    };
    let bytes: usize = gone.iter().map(bytes_of).sum();
    if !effects.has_room_for(2 * bytes) {
        remove_some_offsets(group, gone.into_iter().collect(), effects, committed);
    }
}

/// The offsets of a group that nobody has used for so long that they go.
fn old_offsets(group: &Group, horizon_ms: i64) -> Vec<(String, i32)> {
    let is_old = |offset: &CommittedOffset| offset.committed_at_ms <= horizon_ms;
    match group.state {
        // Its members had until it became empty to commit anything.
        State::Empty if group.protocol_type.is_some() && group.state_since_ms > horizon_ms => Vec::new(),
        State::Empty => group.offsets.all_where(|_, offset| is_old(offset)),
        State::Stable if group.subscription.is_known() => {
            let is_unused = |topic: &str| !group.subscription.may_have(topic);
            group.offsets.all_where(|topic, offset| is_old(offset) && is_unused(topic))
        }
        _ => Vec::new(),
    }
}

/// Writes down that a group is gone, if it was written down at all. It is to be taken out.
fn forget(group: &mut Group, effects: &mut Effects<Reply>, written: &mut Written) -> Result<(), ErrorCode> {
    if group.stored.is_some() {
        // It was read or written in this layout, so that it fits.
        let record = records::group_tombstone(&group.id).map_err(|_| ErrorCode::UnknownServerError)?;
        effects.write(record);
        written.note(effects.step, &group.id, group.stored.take());
    }
    Ok(())
}

/// These places, and those with something pending that is like this. A tombstone takes away all that there is, so that
/// a place where anything else is or is pending, for a newer topic of the name, is left alone.
fn with_pending(
    group: &Group,
    mut places: Vec<(String, i32)>,
    is: impl Fn(&str, &CommittedOffset) -> bool,
) -> Vec<(String, i32)> {
    if group.pending_offsets.is_empty() {
        return places;
    }
    places.extend(group.pending_offsets.all_where(|topic, kept| is(topic, &kept.offset)));
    let all_are = |(topic, partition): &(String, i32)| {
        let pending = group.pending_offsets.at(topic, *partition).map(|(_, kept)| &kept.offset);
        group.offsets.get(topic, *partition).into_iter().chain(pending).all(|offset| is(topic, offset))
    };
    let places: BTreeSet<(String, i32)> = places.into_iter().filter(all_are).collect();
    places.into_iter().collect()
}

/// Takes offsets away, as many as there is room for in a step; the rest goes another time.
fn remove_some_offsets(
    group: &mut Group,
    gone: Vec<(String, i32)>,
    effects: &mut Effects<Reply>,
    committed: &mut Changes,
) {
    for place in gone {
        if effects.is_half_full() {
            return;
        }
        remove_offset(group, place, effects, committed);
    }
}

/// Takes offsets away, all of them.
fn remove_offsets(
    group: &mut Group,
    gone: BTreeSet<(String, i32)>,
    effects: &mut Effects<Reply>,
    committed: &mut Changes,
) {
    gone.into_iter().for_each(|place| remove_offset(group, place, effects, committed));
}

/// Takes an offset away, with a tombstone.
fn remove_offset(
    group: &mut Group,
    (topic, partition): (String, i32),
    effects: &mut Effects<Reply>,
    committed: &mut Changes,
) {
    // It was read or written in this layout, so that it fits.
    let tombstone: Result<StoredRecord, EncodeError> =
        records::offset_tombstone(&group.id, &topic, partition);
    if let Ok(record) = tombstone {
        effects.write(record);
        for before in take_away(group, &topic, partition) {
            committed.note(effects.step, group, before);
        }
    }
}

/// Takes away what is committed and what is pending for a partition; gives it.
pub(super) fn take_away(group: &mut Group, topic: &str, partition: i32) -> Vec<Before> {
    let before =
        |producer_id, kept| Before { topic: topic.to_owned(), partition, producer_id, kept: Some(kept) };
    let mut taken = Vec::new();
    taken.extend(group.offsets.remove(topic, partition).map(|kept| before(None, kept)));
    let producers: Vec<i64> = group.pending_offsets.at(topic, partition).map(|(id, _)| id).collect();
    for id in producers {
        let kept = group.pending_offsets.set(topic, partition, id, None);
        taken.extend(kept.map(|kept| before(Some(id), kept)));
    }
    taken
}
