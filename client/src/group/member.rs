//! One member of a group: an event and the time in, what is to be done out. Pure: no socket, task or clock.
//!
//! What both group protocols share is here: the coordinator, heartbeats and their deadlines, the listener, topics and
//! leaving. `classic.rs` joins and syncs, `epochs.rs` speaks KIP-848, `reconciler.rs` gives up and takes over
//! partitions, `heart.rs` keeps the deadlines.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use klamm_protocol::ErrorCode;
use tokio::time::Instant;

use super::event::{
    Effect, Event, Failure, GroupProtocol, Joined, Report, Settings, Topics, listed, moved, passes,
};
use super::heart::{Heart, Sent};
use super::reconciler::{Reached, Reconciler};
use crate::connection::Backoff;
use crate::error::RequestError;
use crate::types::TopicPartition;

/// Where the member stands.
#[derive(Debug)]
pub(super) enum Phase {
    /// The subscribed topics are asked for the first time, which may create them.
    Learning,
    /// It wants to join, as soon as it can.
    Outside,
    Joining,
    /// As the leader: the topics of all members are asked for.
    Sharing(Joined),
    Syncing {
        generation: i32,
        assignor: Arc<str>,
    },
    /// It has an assignment.
    Stable,
    /// The group refused it; what it owned is being lost.
    Refused(ErrorCode),
    /// It has said goodbye.
    Leaving,
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coordinator {
    Unknown,
    Looking,
    Known,
}

/// Who waits for an answer about topics.
#[derive(Debug, Default)]
struct Asking {
    /// Look-ups under way for topics that are not known.
    look: Option<u64>,
    /// The leader's question.
    share: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Closing {
    deadline: Instant,
    leave: bool,
}

/// The state of one member.
#[derive(Debug)]
pub(crate) struct Member {
    pub(super) settings: Settings,
    pub(super) subscription: Vec<Arc<str>>,
    pub(super) phase: Phase,
    coordinator: Coordinator,
    /// Numbers requests, so that answers to abandoned ones are recognised.
    attempt: u64,
    /// The attempt that a join or sync was sent in.
    pub(super) entering: u64,
    pub(super) member_id: Arc<str>,
    /// The generation (or epoch) of the last assignment; -1 when what is owned is not confirmed by one.
    pub(super) generation: i32,
    /// The generation in which the coordinator fell silent; -1 when it never did.
    pub(super) silent_since: i32,
    /// There is a reason to join again.
    pub(super) rejoin: bool,
    /// Generations in a row that ended before this member had its part.
    pub(super) overtaken: u32,
    /// No look-up and no join before: the last one failed.
    not_before: Option<Instant>,
    backoff: Backoff,
    pub(super) heart: Option<Heart>,
    pub(super) reconciler: Reconciler,
    /// As the leader: the partition counts that the assignment was made for.
    pub(super) shared_for: Option<BTreeMap<Arc<str>, i32>>,
    /// What this member got last, in which generation: sticky assignors tell it to the next leader.
    pub(super) last_assignment: Option<(Vec<TopicPartition>, i32)>,
    /// In the protocol in which the coordinator assigns: the owned partitions that it knows of.
    pub(super) acknowledged: Option<BTreeSet<TopicPartition>>,
    /// There, too: an assignment has come and is to be answered with what is owned when it is followed.
    pub(super) owes_answer: bool,
    pub(super) topics: Topics,
    asking: Asking,
    look_at: Option<Instant>,
    /// The next look-up may create topics.
    may_create: bool,
    reported: BTreeMap<Arc<str>, ErrorCode>,
    closing: Option<Closing>,
    pub(super) effects: Vec<Effect>,
}

impl Member {
    /// A member that is not started. In the protocol in which the coordinator assigns, members name themselves.
    pub(crate) fn new(settings: Settings, subscription: Vec<Arc<str>>, member_id: Arc<str>) -> Self {
        let (first, longest) = settings.retry_backoff;
        Self {
            reconciler: Reconciler::new(settings.rebalance_timeout),
            backoff: Backoff::new(first, longest),
            settings,
            subscription,
            phase: Phase::Learning,
            coordinator: Coordinator::Unknown,
            attempt: 0,
            entering: 0,
            member_id,
            generation: -1,
            silent_since: -1,
            rejoin: false,
            overtaken: 0,
            not_before: None,
            heart: None,
            shared_for: None,
            last_assignment: None,
            acknowledged: None,
            owes_answer: false,
            topics: Topics::default(),
            asking: Asking::default(),
            look_at: None,
            may_create: false,
            reported: BTreeMap::new(),
            closing: None,
            effects: Vec::new(),
        }
    }

    /// Takes an event in; gives what is to be done now, in this order.
    pub(crate) fn on(&mut self, event: Event, now: Instant) -> Vec<Effect> {
        if matches!(self.phase, Phase::Done) {
            return Vec::new();
        }
        self.take_in(event, now);
        self.advance(now);
        std::mem::take(&mut self.effects)
    }

    /// When [`Event::Time`] is due, if nothing else happens before.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        if matches!(self.phase, Phase::Done) {
            return None;
        }
        let known = self.coordinator == Coordinator::Known;
        let heart = self.heart.as_ref().map(|heart| heart.wake_at(known));
        let closing = self.closing.map(|closing| closing.deadline);
        let refused = matches!(self.phase, Phase::Refused(_) | Phase::Leaving);
        let paused = self.not_before.filter(|_| !refused);
        let look = self.look_at.filter(|_| self.asking.look.is_none() && self.closing.is_none() && !refused);
        [heart, closing, paused, look].into_iter().flatten().min()
    }

    /// Until when the coordinator surely counts this member in; `None` while it is no member.
    pub(crate) fn alive_until(&self) -> Option<Instant> {
        self.heart.as_ref().map(Heart::alive_until)
    }

    /// The topics whose changes matter: those subscribed to and, for a leader, those of the whole group.
    pub(crate) fn watched(&self) -> BTreeSet<Arc<str>> {
        let shared = self.shared_for.iter().flat_map(BTreeMap::keys);
        self.subscription.iter().chain(shared).cloned().collect()
    }

    fn take_in(&mut self, event: Event, now: Instant) {
        match event {
            Event::Started => self.ask_first(),
            Event::CoordinatorFound => {
                if self.coordinator == Coordinator::Looking {
                    self.coordinator = Coordinator::Known;
                }
            }
            Event::CoordinatorFailed(failure) => {
                self.coordinator = Coordinator::Unknown;
                self.failed(failure, now);
            }
            Event::JoinAnswered(attempt, result) if attempt == self.entering => self.joined(result, now),
            Event::SyncAnswered(attempt, result) if attempt == self.entering => self.synced(result, now),
            Event::JoinAnswered(..) | Event::SyncAnswered(..) | Event::Time => {}
            Event::HeartbeatAnswered(attempt, result) => {
                if let Some(sent) = self.heart.as_mut().and_then(|heart| heart.answered(attempt)) {
                    self.heartbeat_answered(sent, result, now);
                }
            }
            Event::BeatAnswered(attempt, result) => self.beat_answered(attempt, result, now),
            Event::LeaveAnswered => {
                if matches!(self.phase, Phase::Leaving) {
                    self.done();
                }
            }
            Event::ListenerReturned => self.reconciler.returned(&mut self.effects),
            Event::TopicsAnswered(ask, result) => self.topics_answered(ask, result, now),
            Event::TopicsChanged(topics) => self.learn(topics),
            Event::SubscriptionChanged(topics) => self.subscribe(topics, now),
            // Before the first assignment it joins in any case.
            Event::Rejoin => {
                let classic = self.settings.protocol == GroupProtocol::Classic;
                self.rejoin |= classic && matches!(self.phase, Phase::Stable);
            }
            Event::Close { deadline, leave } => self.close(deadline, leave),
        }
    }

    /// Does whatever can be done in the state that an event has left.
    fn advance(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Done) {
            return;
        }
        if !self.is_paused(now) {
            self.not_before = None;
        }
        self.expire(now);
        while let Some(reached) = self.reconciler.step(now, &mut self.effects) {
            let gave_up = reached == (Reached::Owned { gave_up: true });
            // What was given up goes to its new owners in the next round (KIP-429).
            self.rejoin |= gave_up && self.settings.protocol == GroupProtocol::Classic;
        }
        if let Phase::Refused(code) = self.phase
            && self.reconciler.is_idle()
        {
            self.effects.push(Effect::Report(Report::Refused(code)));
            return self.done();
        }
        if matches!(self.phase, Phase::Refused(_)) {
            return self.close_in_time(now);
        }
        if let Some(closing) = self.closing {
            return self.advance_closing(closing, now);
        }
        self.find_coordinator(now);
        self.look_for_topics(now);
        self.beat(now);
        self.enter(now);
    }

    /// Joins, when that is due and possible.
    fn enter(&mut self, now: Instant) {
        if !self.reconciler.is_idle() || self.coordinator != Coordinator::Known || self.is_paused(now) {
            return;
        }
        match self.settings.protocol {
            GroupProtocol::Classic => self.enter_classic(now),
            GroupProtocol::Consumer => self.enter_epochs(now),
        }
    }

    // ---- the coordinator

    fn find_coordinator(&mut self, now: Instant) {
        if self.coordinator == Coordinator::Unknown && !self.is_paused(now) {
            self.coordinator = Coordinator::Looking;
            self.effects.push(Effect::FindCoordinator);
        }
    }

    pub(super) fn forget_coordinator(&mut self) {
        self.coordinator = Coordinator::Unknown;
    }

    /// Whether a heartbeat may go out before its time: not right after one was refused.
    pub(super) fn may_hurry(&self, now: Instant) -> bool {
        !self.is_paused(now)
    }

    fn is_paused(&self, now: Instant) -> bool {
        self.not_before.is_some_and(|not_before| now < not_before)
    }

    /// The next look-up or join waits, longer with every failure in a row.
    pub(super) fn pause(&mut self, now: Instant) {
        self.not_before = Some(now + self.backoff.next(&*self.settings.rng));
    }

    /// The coordinator answered well.
    pub(super) fn recovered(&mut self) {
        self.backoff.reset();
        self.not_before = None;
    }

    pub(super) fn next_attempt(&mut self) -> u64 {
        self.attempt += 1;
        self.attempt
    }

    /// What a failed look-up, join or sync means.
    pub(super) fn failed(&mut self, failure: Failure, now: Instant) {
        let code = match failure {
            Failure::Request(error) => {
                self.forget_coordinator();
                self.pause(now);
                return self.refuse_if_final(&error);
            }
            Failure::Coordinator { code, .. } => code,
        };
        self.pause(now);
        match code {
            ErrorCode::UnknownMemberId => {
                self.member_id = Arc::from("");
                self.lose();
            }
            ErrorCode::IllegalGeneration => self.lose(),
            ErrorCode::RebalanceInProgress => {}
            code if moved(code) => self.forget_coordinator(),
            code if passes(code) => {}
            code => self.refuse(code),
        }
    }

    /// Some failures on the way are as final as the coordinator's word.
    pub(super) fn refuse_if_final(&mut self, error: &RequestError) {
        match error {
            RequestError::Broker { code, .. } if !passes(*code) => self.refuse(*code),
            RequestError::Unsupported { .. } => self.refuse(ErrorCode::UnsupportedVersion),
            _ => {}
        }
    }

    /// The group does not want this member.
    pub(super) fn refuse(&mut self, code: ErrorCode) {
        self.lose();
        self.phase = Phase::Refused(code);
    }

    // ---- heartbeats

    fn beat(&mut self, now: Instant) {
        if self.settings.protocol == GroupProtocol::Consumer {
            return self.beat_epochs(now);
        }
        let Some(heart) = self.heart.as_mut().filter(|heart| heart.is_due(now)) else { return };
        if self.coordinator != Coordinator::Known {
            return;
        }
        self.attempt += 1;
        let generation = match self.phase {
            Phase::Syncing { generation, .. } => generation,
            Phase::Sharing(ref joined) => joined.generation,
            _ => self.generation,
        };
        heart.send(self.attempt, generation, now);
        let member_id = Arc::clone(&self.member_id);
        self.effects.push(Effect::SendHeartbeat { attempt: self.attempt, member_id, generation });
    }

    pub(super) fn knows_coordinator(&self) -> bool {
        self.coordinator == Coordinator::Known
    }

    fn heartbeat_answered(&mut self, sent: Sent, result: Result<(), Failure>, now: Instant) {
        let code = match result {
            Ok(()) => ErrorCode::None,
            // Only the coordinator's word or its silence ends a membership; a broken connection is made anew.
            Err(Failure::Request(_)) => return self.heartbeat_failed(now),
            Err(Failure::Coordinator { code, .. }) => code,
        };
        let serves = matches!(self.phase, Phase::Stable);
        match code {
            ErrorCode::None | ErrorCode::RebalanceInProgress => {
                self.recovered();
                self.heart.iter_mut().for_each(|heart| heart.renew(sent.at));
                self.rejoin |=
                    code == ErrorCode::RebalanceInProgress && serves && sent.generation == self.generation;
            }
            // Between two generations: the answer to the join says which one is right.
            ErrorCode::IllegalGeneration if !serves || sent.generation != self.generation => {}
            ErrorCode::UnknownMemberId => {
                self.member_id = Arc::from("");
                self.lose();
            }
            ErrorCode::IllegalGeneration => self.lose(),
            code if moved(code) => self.heartbeat_failed(now),
            code if passes(code) => {
                let soon = now + self.settings.retry_backoff.1.min(self.settings.heartbeat_interval);
                self.heart.iter_mut().for_each(|heart| heart.pause(soon));
            }
            code => self.refuse(code),
        }
    }

    /// Another one goes out as soon as the coordinator is found again.
    pub(super) fn heartbeat_failed(&mut self, now: Instant) {
        self.forget_coordinator();
        self.pause(now);
        self.heart.iter_mut().for_each(|heart| heart.hurry(now));
    }

    /// A coordinator that was silent for a session timeout has expelled this member, or will have when it speaks.
    fn expire(&mut self, now: Instant) {
        if self.heart.as_mut().is_some_and(|heart| heart.give_up(now)) {
            self.heartbeat_failed(now);
            self.forget_told();
        }
        if self.heart.as_ref().is_some_and(|heart| heart.is_expelled(now)) {
            self.forget_coordinator();
            self.silent_since = self.silent_since.max(self.generation);
            self.lose();
        }
    }

    // ---- giving up

    /// Whatever this member owned may belong to others: it starts afresh.
    pub(super) fn lose(&mut self) {
        self.reconciler.lose(&mut self.effects);
        self.heart = None;
        self.shared_for = None;
        self.acknowledged = None;
        self.owes_answer = false;
        self.rejoin = false;
        self.entering = self.next_attempt();
        if self.generation >= 0 {
            self.generation = -1;
            self.identify();
        }
        if !matches!(self.phase, Phase::Learning | Phase::Refused(_) | Phase::Leaving | Phase::Done) {
            self.phase = Phase::Outside;
        }
    }

    pub(super) fn identify(&mut self) {
        let member_id = Arc::clone(&self.member_id);
        self.effects.push(Effect::Identify { member_id, generation: self.generation });
    }

    fn close(&mut self, deadline: Instant, leave: bool) {
        if self.closing.is_some() {
            return;
        }
        self.closing = Some(Closing { deadline, leave: leave || !self.settings.is_static });
        // An answer to a join would come too late.
        self.entering = self.next_attempt();
        self.reconciler.keep(BTreeSet::new());
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    fn advance_closing(&mut self, closing: Closing, now: Instant) {
        if !self.reconciler.is_idle() && now < closing.deadline {
            self.find_coordinator(now);
            return self.beat(now);
        }
        let says_goodbye = closing.leave || self.settings.protocol == GroupProtocol::Consumer;
        if now >= closing.deadline || matches!(self.phase, Phase::Leaving) {
            return self.close_in_time(now);
        }
        if self.member_id.is_empty() || !says_goodbye {
            return self.done();
        }
        let epoch = if closing.leave { -1 } else { -2 };
        self.heart = None;
        self.phase = Phase::Leaving;
        self.effects.push(Effect::SendLeave { member_id: Arc::clone(&self.member_id), epoch });
    }

    /// The deadline of closing ends everything.
    fn close_in_time(&mut self, now: Instant) {
        if self.closing.is_some_and(|closing| now >= closing.deadline) {
            self.done();
        }
    }

    fn done(&mut self) {
        let owned = listed(self.reconciler.owned());
        if !owned.is_empty() {
            self.effects.push(Effect::StopHandingOut(owned.clone()));
            self.effects.push(Effect::Release(owned));
        }
        self.phase = Phase::Done;
        self.heart = None;
        self.effects.push(Effect::Done);
    }

    // ---- topics

    fn ask_first(&mut self) {
        let create = self.settings.create_topics;
        let topics = self.subscription.clone();
        self.asking.look = Some(self.ask(topics, create));
    }

    fn ask(&mut self, topics: Vec<Arc<str>>, create: bool) -> u64 {
        let ask = self.next_attempt();
        self.effects.push(Effect::AskTopics { ask, topics, create });
        ask
    }

    /// As the leader, before sharing out: topics that are not known are asked for.
    pub(super) fn ask_for_sharing(&mut self, topics: Vec<Arc<str>>) {
        let create = self.settings.create_topics;
        self.asking.share = Some(self.ask(topics, create));
    }

    fn topics_answered(&mut self, ask: u64, result: Result<Topics, RequestError>, now: Instant) {
        let failure = match result {
            Ok(topics) => {
                self.topics.counts.extend(topics.counts);
                self.report_refused(&topics.refused);
                None
            }
            Err(error) => Some(error),
        };
        if self.asking.look.take_if(|look| *look == ask).is_some() {
            // The interval of heartbeats is a fair pace for this too, but neither waits for the other.
            self.look_at = Some(now + self.settings.heartbeat_interval);
            if matches!(self.phase, Phase::Learning) {
                self.phase = Phase::Outside;
                // What was not heard has created nothing.
                self.may_create = failure.is_some() && self.settings.create_topics;
            }
        }
        if self.asking.share.take_if(|share| *share == ask).is_some()
            && let Phase::Sharing(joined) = &self.phase
        {
            let joined = joined.clone();
            match failure {
                Some(error) => {
                    self.phase = Phase::Outside;
                    self.pause(now);
                    tracing::debug!(%error, "the group's topics are not known");
                }
                None => self.share_out(joined),
            }
        }
    }

    fn learn(&mut self, topics: Topics) {
        self.report_refused(&topics.refused);
        self.topics = topics;
        let Some(shared_for) = &self.shared_for else { return };
        // A topic that vanished, perhaps for a moment, is no reason: there is nothing to share out.
        let changed =
            |(topic, count): (&Arc<str>, &i32)| self.topics.counts.get(topic).is_some_and(|now| now != count);
        self.rejoin |= shared_for.iter().any(changed);
    }

    /// Each refusal is told once.
    fn report_refused(&mut self, refused: &BTreeMap<Arc<str>, ErrorCode>) {
        for (topic, code) in refused.iter().filter(|(topic, _)| self.subscription.contains(topic)) {
            if self.reported.insert(Arc::clone(topic), *code) != Some(*code) {
                self.effects.push(Effect::Report(Report::Topic(Arc::clone(topic), *code)));
            }
        }
    }

    /// Asks again for topics that did not exist: without this they would be found only by the age of the metadata.
    fn look_for_topics(&mut self, now: Instant) {
        if self.asking.look.is_some() || self.look_at.is_none_or(|at| now < at) {
            return;
        }
        let missing: Vec<Arc<str>> =
            self.watched().into_iter().filter(|topic| !self.topics.counts.contains_key(topic)).collect();
        self.look_at = Some(now + self.settings.heartbeat_interval);
        if !missing.is_empty() {
            let create = std::mem::take(&mut self.may_create);
            self.asking.look = Some(self.ask(missing, create));
        }
    }

    fn subscribe(&mut self, topics: Vec<Arc<str>>, now: Instant) {
        if topics == self.subscription {
            return;
        }
        self.subscription = topics;
        self.reported.retain(|topic, _| self.subscription.contains(topic));
        self.rejoin = true;
        // Named for the first time: looked for at once, which may create them.
        if self.look_at.is_some() {
            self.look_at = Some(now);
            self.may_create = self.settings.create_topics;
        }
    }

    /// How long the answer to a heartbeat is waited for.
    pub(crate) fn heartbeat_patience(session: Duration) -> Duration {
        Heart::patience(session)
    }
}
