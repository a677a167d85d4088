//! The classic protocol of a member: it joins, shares out partitions if it leads, and gets its own in a sync. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use klamm_protocol::ErrorCode;
use tokio::time::Instant;

use super::assignors::MemberView;
use super::event::{Effect, Failure, Joined, listed};
use super::heart::Heart;
use super::member::{Member, Phase};
use super::protocol::{MemberShare, MemberSubscription};
use super::strategy::{Shares, Strategy};
use crate::types::TopicPartition;

/// So many generations in a row may end before this member has its part, as when a whole fleet starts, without a pause.
const OVERTAKEN_AT_ONCE: u32 = 5;

impl Member {
    /// With a coordinator, no pause to wait out and nothing under way in the reconciler: joins if there is a reason to.
    pub(super) fn enter_classic(&mut self, now: Instant) {
        let joins = match self.phase {
            Phase::Outside => true,
            Phase::Stable => self.rejoin,
            _ => false,
        };
        if !joins {
            return;
        }
        let keep: BTreeSet<TopicPartition> = match self.is_eager() {
            true => BTreeSet::new(),
            false => {
                let owned = self.reconciler.owned().iter();
                owned.filter(|partition| self.subscription.contains(&partition.topic)).cloned().collect()
            }
        };
        if keep.len() < self.reconciler.owned().len() {
            self.reconciler.keep(keep);
            // What is to go is not gone yet, so this is its first step.
            self.reconciler.step(now, &mut self.effects);
            return;
        }
        self.send_join();
    }

    fn send_join(&mut self) {
        self.rejoin = false;
        self.shared_for = None;
        self.phase = Phase::Joining;
        self.entering = self.next_attempt();
        if self.member_id.is_empty() {
            self.silent_since = -1;
        }
        // A coordinator that was silent need not have expelled this member. It would give an unchanged subscription its
        // old generation back, in which what was begun before the loss can still be committed, while records are read
        // anew.
        let generation = if self.generation >= 0 { self.generation } else { self.silent_since };
        let last = self.last_assignment.as_ref().map(|(partitions, generation)| (&**partitions, *generation));
        let protocols = self.settings.strategies.iter().map(|strategy| {
            let subscription = MemberSubscription {
                topics: self.subscription.clone(),
                user_data: strategy.user_data(&self.subscription, last),
                owned: listed(self.reconciler.owned()),
                generation,
                rack: self.settings.rack.clone(),
            };
            (strategy.name(), subscription.encode())
        });
        let protocols = protocols.collect();
        let member_id = Arc::clone(&self.member_id);
        self.effects.push(Effect::SendJoin { attempt: self.entering, member_id, protocols });
    }

    pub(super) fn joined(&mut self, result: Result<Joined, Failure>, now: Instant) {
        if !matches!(self.phase, Phase::Joining) {
            return;
        }
        let joined = match result {
            Ok(joined) => joined,
            Err(Failure::Coordinator { code: ErrorCode::MemberIdRequired, member_id: Some(id) })
                if self.member_id.is_empty() && !id.is_empty() =>
            {
                self.member_id = id;
                return self.send_join();
            }
            Err(failure) => {
                self.phase = Phase::Outside;
                return self.failed(failure, now);
            }
        };
        self.member_id = Arc::clone(&joined.member_id);
        self.recovered();
        let (interval, session) = (self.settings.heartbeat_interval, self.settings.session_timeout);
        self.heart = Some(Heart::new(interval, session, now));
        if !joined.leads {
            return self.send_sync(&joined, Shares::new());
        }
        let topics = topics_of(&joined);
        if topics.iter().all(|topic| self.topics.counts.contains_key(topic)) {
            return self.share_out(joined);
        }
        // Topics that do not exist (yet) are left out; when they appear the group rebalances.
        self.ask_for_sharing(topics);
        self.phase = Phase::Sharing(joined);
    }

    /// As the leader: what each member gets.
    pub(super) fn share_out(&mut self, joined: Joined) {
        let members: Vec<MemberView> = joined
            .members
            .iter()
            .map(|member| MemberView {
                id: Arc::clone(&member.id),
                instance_id: member.instance_id.clone(),
                subscription: MemberSubscription::decode(&member.metadata).unwrap_or_else(|error| {
                    tracing::warn!(member = %member.id, %error, "it gets nothing");
                    MemberSubscription::default()
                }),
            })
            .collect();
        let topics = topics_of(&joined);
        let counts: BTreeMap<Arc<str>, i32> = topics
            .iter()
            .filter_map(|topic| Some((Arc::clone(topic), *self.topics.counts.get(topic)?)))
            .collect();
        // Also when the assignment is to stay as it is: whoever leads watches for topics that grow.
        self.shared_for = Some(
            topics
                .into_iter()
                .map(|topic| (Arc::clone(&topic), counts.get(&topic).copied().unwrap_or(0)))
                .collect(),
        );
        let strategy = self.settings.strategies.iter().find(|strategy| strategy.name() == joined.assignor);
        let assignment = match strategy {
            _ if joined.skip_assignment => Shares::new(),
            Some(strategy) => strategy.assign(&members, &counts),
            None => return self.refuse(ErrorCode::InconsistentGroupProtocol),
        };
        self.send_sync(&joined, assignment);
    }

    fn send_sync(&mut self, joined: &Joined, assignment: Shares) {
        let assignor = Arc::clone(&joined.assignor);
        self.phase = Phase::Syncing { generation: joined.generation, assignor };
        self.entering = self.next_attempt();
        self.effects.push(Effect::SendSync {
            attempt: self.entering,
            member_id: Arc::clone(&self.member_id),
            generation: joined.generation,
            assignor: Arc::clone(&joined.assignor),
            assignment,
        });
    }

    pub(super) fn synced(&mut self, result: Result<MemberShare, Failure>, now: Instant) {
        let Phase::Syncing { generation, ref assignor } = self.phase else { return };
        let assignor = Arc::clone(assignor);
        let share = match result {
            Ok(share) => share,
            Err(failure) => {
                self.phase = Phase::Outside;
                return match failure {
                    Failure::Coordinator { code: ErrorCode::RebalanceInProgress, .. } => {
                        self.was_overtaken(now);
                    }
                    failure => self.failed(failure, now),
                };
            }
        };
        self.phase = Phase::Stable;
        self.overtaken = 0;
        self.recovered();
        self.heart.iter_mut().for_each(|heart| heart.renew(now));
        self.generation = generation;
        self.identify();
        if let Some(strategy) = self.settings.strategies.iter().find(|strategy| strategy.name() == assignor) {
            strategy.on_assignment(&share, generation);
        }
        let assigned = share.partitions;
        self.last_assignment = Some((assigned.clone(), generation));
        // The subscription may have changed since the join: what is not wanted any more is not taken.
        let wanted = assigned.into_iter().filter(|partition| self.subscription.contains(&partition.topic));
        let wanted = wanted.collect();
        self.reconciler.own(wanted);
    }

    /// The next generation begins already: it is joined at once, unless that goes on and on.
    fn was_overtaken(&mut self, now: Instant) {
        self.overtaken = self.overtaken.saturating_add(1);
        if self.overtaken > OVERTAKEN_AT_ONCE {
            self.pause(now);
        }
    }

    /// Whether everything is given up before a rebalance. It is, unless every offered assignor can do without.
    fn is_eager(&self) -> bool {
        !self.settings.strategies.iter().all(Strategy::is_cooperative)
    }
}

/// The topics that some member subscribes to.
fn topics_of(joined: &Joined) -> Vec<Arc<str>> {
    let subscriptions =
        joined.members.iter().filter_map(|member| MemberSubscription::decode(&member.metadata).ok());
    let topics: BTreeSet<Arc<str>> = subscriptions.flat_map(|subscription| subscription.topics).collect();
    topics.into_iter().collect()
}
