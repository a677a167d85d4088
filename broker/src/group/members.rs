//! The members of a group, with what is asked of all of them at once kept up to date: who has joined, which protocols
//! all support, whose session ends next. A change costs the logarithm of their number.

use std::collections::{BTreeMap, BTreeSet};

use super::member::{Member, Protocol, vote};
use crate::coordinator::Timers;

/// The members of a group, in order of their ids.
#[derive(Debug, Default)]
pub(super) struct Members {
    by_id: BTreeMap<String, Member>,
    /// `group.instance.id` to member id.
    static_ids: BTreeMap<String, String>,
    /// When whose session ends.
    sessions: Timers<String>,
    joining: usize,
    /// How many members offer a protocol.
    offers: BTreeMap<String, usize>,
}

impl Members {
    pub(super) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn get(&self, id: &str) -> Option<&Member> {
        self.by_id.get(id)
    }

    pub(super) fn contains(&self, id: &str) -> bool {
        self.by_id.contains_key(id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Member> + Clone {
        self.by_id.values()
    }

    pub(super) fn first_id(&self) -> Option<&String> {
        self.by_id.keys().next()
    }

    /// The member with this `group.instance.id`.
    pub(super) fn static_id(&self, instance: &str) -> Option<&String> {
        self.static_ids.get(instance)
    }

    /// How many wait in their JoinGroup.
    pub(super) fn joining(&self) -> usize {
        self.joining
    }

    /// Whether every member offers this protocol.
    pub(super) fn all_support(&self, protocol: &str) -> bool {
        self.is_empty() || self.offers.get(protocol) == Some(&self.len())
    }

    /// The protocol that all support and most prefer.
    pub(super) fn vote(&self) -> Option<String> {
        vote(self.iter(), |protocol| self.all_support(protocol))
    }

    pub(super) fn insert(&mut self, member: Member) {
        self.remove(&member.id);
        if let Some(instance) = &member.instance_id {
            self.static_ids.insert(instance.clone(), member.id.clone());
        }
        self.joining += usize::from(member.joining.is_some());
        self.count_offers(&member.protocols, true);
        self.sessions.set(&member.id, member.expires_at());
        self.by_id.insert(member.id.clone(), member);
    }

    pub(super) fn remove(&mut self, id: &str) -> Option<Member> {
        let member = self.by_id.remove(id)?;
        if let Some(instance) = &member.instance_id
            && self.static_ids.get(instance).is_some_and(|current| current == id)
        {
            self.static_ids.remove(instance);
        }
        self.joining -= usize::from(member.joining.is_some());
        self.count_offers(&member.protocols, false);
        self.sessions.remove(id);
        Some(member)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Changes a member; its id, its `group.instance.id` and its protocols stay.
    pub(super) fn change<T>(&mut self, id: &str, act: impl FnOnce(&mut Member) -> T) -> Option<T> {
        let member = self.by_id.get_mut(id)?;
        let joined_before = usize::from(member.joining.is_some());
        let done = act(member);
        self.joining = self.joining + usize::from(member.joining.is_some()) - joined_before;
        self.sessions.set(&member.id, member.expires_at());
        Some(done)
    }

    /// Changes every member, in order of their ids.
    pub(super) fn change_all(&mut self, mut act: impl FnMut(&mut Member)) {
        let ids: Vec<String> = self.by_id.keys().cloned().collect();
        for id in ids {
            self.change(&id, &mut act);
        }
    }

    /// A member was heard of.
    pub(super) fn touch(&mut self, id: &str, now_ms: i64) {
        self.change(id, |member| member.touch(now_ms));
    }

    /// A member offers other protocols now.
    pub(super) fn set_protocols(&mut self, id: &str, protocols: Vec<Protocol>) {
        let Some(member) = self.by_id.get_mut(id) else { return };
        let before = std::mem::replace(&mut member.protocols, protocols);
        let now = member.protocols.clone();
        self.count_offers(&before, false);
        self.count_offers(&now, true);
    }

    /// When the next session ends.
    pub(super) fn next_deadline(&self) -> Option<i64> {
        self.sessions.next()
    }

    /// The members whose session has ended, in order of their ids. They are to be removed.
    pub(super) fn take_silent(&mut self, now_ms: i64) -> Vec<String> {
        let mut silent = self.sessions.take_due(now_ms);
        silent.sort_unstable();
        silent
    }

    fn count_offers(&mut self, protocols: &[Protocol], more: bool) {
        let names: BTreeSet<&str> = protocols.iter().map(|protocol| protocol.name.as_str()).collect();
        for name in names {
            if more {
                *self.offers.entry(name.to_owned()).or_default() += 1;
            } else if let Some(count) = self.offers.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    self.offers.remove(name);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use klamm_runtime::{Rng, SeededRng};

    use super::super::member::PendingJoin;
    use super::*;

    fn protocols(rng: &SeededRng) -> Vec<Protocol> {
        let one = |_| Protocol { name: format!("p{}", rng.below(4)), metadata: Bytes::new() };
        (0..rng.below(4)).map(one).collect()
    }

    fn joining(rng: &SeededRng) -> Option<PendingJoin> {
        (rng.below(2) == 0).then_some(PendingJoin { ticket: 1, skips_assignment: false })
    }

    fn member(rng: &SeededRng, now_ms: i64) -> Member {
        let number = rng.below(6);
        Member {
            id: format!("m{number}"),
            instance_id: (number < 3).then(|| format!("i{number}")),
            client_id: String::new(),
            client_host: String::new(),
            session_timeout_ms: 10,
            rebalance_timeout_ms: 10,
            protocols: protocols(rng),
            assignment: Bytes::new(),
            deadline_ms: now_ms + i64::try_from(rng.below(20)).unwrap(),
            is_new: rng.below(2) == 0,
            joining: joining(rng),
            syncing: (rng.below(4) == 0).then_some(2),
        }
    }

    /// Against a look at every member.
    fn check(members: &Members) {
        let all: Vec<&Member> = members.iter().collect();
        assert_eq!((members.len(), members.is_empty()), (all.len(), all.is_empty()));
        assert_eq!(members.joining(), all.iter().filter(|member| member.joining.is_some()).count());
        for number in 0..5 {
            let name = format!("p{number}");
            assert_eq!(members.all_support(&name), all.iter().all(|member| member.supports(&name)));
            let holder = all.iter().find(|m| m.instance_id.as_deref() == Some(&*format!("i{number}")));
            assert_eq!(members.static_id(&format!("i{number}")), holder.map(|member| &member.id));
        }
        let first = all.iter().filter_map(|member| member.expires_at()).min();
        assert_eq!(members.next_deadline(), first);
    }

    #[test]
    fn what_is_kept_is_what_a_look_at_every_member_finds() {
        for seed in 0..1_000 {
            let rng = SeededRng::new(seed);
            let (mut members, mut now_ms) = (Members::default(), 0);
            for _ in 0..rng.below(40) {
                let id = format!("m{}", rng.below(6));
                match rng.below(8) {
                    0 | 1 => members.insert(member(&rng, now_ms)),
                    2 => {
                        let gone = members.remove(&id);
                        assert!(!members.contains(&id) && gone.is_none_or(|gone| gone.id == id));
                    }
                    3 => {
                        let known = members.contains(&id);
                        let done = members.change(&id, |member| {
                            member.joining = joining(&rng);
                            member.syncing = None;
                            member.touch(now_ms);
                        });
                        assert_eq!(done.is_some(), known);
                    }
                    4 => members.touch(&id, now_ms),
                    5 => members.set_protocols(&id, protocols(&rng)),
                    6 if rng.below(4) == 0 => members.change_all(|member| member.joining = None),
                    _ => {
                        now_ms += i64::try_from(rng.below(15)).unwrap();
                        let due = |member: &&Member| member.expires_at().is_some_and(|at| at <= now_ms);
                        let silent: Vec<String> = members.iter().filter(due).map(|m| m.id.clone()).collect();
                        assert_eq!(members.take_silent(now_ms), silent, "seed {seed}");
                        silent.iter().for_each(|id| drop(members.remove(id)));
                        assert!(
                            members.next_deadline().is_none_or(|next| next > now_ms),
                            "not looked at again"
                        );
                    }
                }
                check(&members);
            }
            members.clear();
            check(&members);
            assert_eq!(members.next_deadline(), None);
        }
    }
}
