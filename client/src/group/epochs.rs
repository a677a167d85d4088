//! The protocol of KIP-848: the coordinator assigns, each member follows at its own pace, heartbeats carry everything.
//! Pure.
//!
//! A member names itself and joins with epoch 0. The coordinator answers with the member's epoch and, when it changed,
//! with what the member is to own; the member gives up and takes over, and tells with its next heartbeat what it owns
//! now. Only then does the coordinator give to others what was given up.

use std::sync::Arc;

use klamm_protocol::ErrorCode;
use tokio::time::Instant;

use super::event::{Beat, Effect, Failure, GroupProtocol, listed, moved, passes};
use super::heart::Heart;
use super::member::{Member, Phase};

/// The epoch with which a member joins.
const JOINING: i32 = 0;

impl Member {
    /// With a coordinator and no pause to wait out: joins if it is outside.
    pub(super) fn enter_epochs(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Outside) {
            self.phase = Phase::Joining;
            let mut heart = Heart::new(self.settings.heartbeat_interval, self.settings.session_timeout, now);
            heart.hurry(now);
            self.heart = Some(heart);
            self.beat_epochs(now);
        }
    }

    /// Sends a heartbeat when one is due or there is something to tell.
    pub(super) fn beat_epochs(&mut self, now: Instant) {
        let joins = match self.phase {
            Phase::Joining => true,
            Phase::Stable => false,
            _ => return,
        };
        // What is being given up or taken over is told when that is over; after a failure everything is told at once,
        // because only then the coordinator repeats what the member is to own.
        let settled = self.reconciler.is_idle();
        // What is about to be owned counts: the coordinator must not give it to others meanwhile.
        let owned = self.reconciler.claimed();
        let tells_owned = match &self.acknowledged {
            None => true,
            Some(acknowledged) => joins || (settled && (self.owes_answer || *acknowledged != owned)),
        };
        let tells_topics = joins || self.rejoin;
        let may_hurry = self.may_hurry(now);
        if !self.knows_coordinator() {
            return;
        }
        let Some(heart) = &mut self.heart else { return };
        if may_hurry && (tells_owned || tells_topics) {
            heart.hurry(now);
        }
        if !heart.is_due(now) {
            return;
        }
        let owned = tells_owned.then_some(owned);
        let epoch = if joins { JOINING } else { self.generation };
        let attempt = self.next_attempt();
        self.heart.iter_mut().for_each(|heart| heart.send(attempt, epoch, now));
        self.rejoin = false;
        self.effects.push(Effect::SendBeat {
            attempt,
            member_id: Arc::clone(&self.member_id),
            epoch,
            topics: tells_topics.then(|| self.subscription.clone()),
            owned: owned.as_ref().map(listed),
        });
        if owned.is_some() {
            self.acknowledged = owned;
            self.owes_answer = false;
        }
    }

    pub(super) fn beat_answered(&mut self, attempt: u64, result: Result<Beat, Failure>, now: Instant) {
        let Some(sent) = self.heart.as_mut().and_then(|heart| heart.answered(attempt)) else { return };
        let beat = match result {
            Ok(beat) => beat,
            Err(failure) => {
                self.forget_told();
                return self.beat_refused(failure, now);
            }
        };
        self.recovered();
        if let Some(heart) = &mut self.heart {
            heart.renew(sent.at);
            heart.set_interval(beat.interval, now);
        }
        self.phase = Phase::Stable;
        if self.generation != beat.epoch || self.member_id != beat.member_id {
            self.generation = beat.epoch;
            self.member_id = beat.member_id;
            self.identify();
        }
        // One that leaves takes nothing over any more.
        if let Some(assignment) = beat.assignment.filter(|_| !self.is_closing()) {
            self.reconciler.own(assignment.into_iter().collect());
            // Also when it changes nothing: another assignment may have been on its way in between.
            self.owes_answer = true;
        }
    }

    /// Whether the last heartbeat was heard is not known: everything is told again.
    pub(super) fn forget_told(&mut self) {
        if self.settings.protocol == GroupProtocol::Consumer {
            self.acknowledged = None;
            self.rejoin = true;
        }
    }

    fn beat_refused(&mut self, failure: Failure, now: Instant) {
        let code = match failure {
            Failure::Coordinator { code, .. } => code,
            Failure::Request(error) => {
                self.heartbeat_failed(now);
                return self.refuse_if_final(&error);
            }
        };
        match code {
            ErrorCode::FencedMemberEpoch | ErrorCode::UnknownMemberId => {
                self.pause(now);
                self.lose();
            }
            code if moved(code) => self.heartbeat_failed(now),
            // A predecessor of the same name is not gone yet: it leaves, or its session ends.
            code if passes(code) || code == ErrorCode::UnreleasedInstanceId => {
                self.pause(now);
                let soon = now + self.settings.retry_backoff.1.min(self.settings.heartbeat_interval);
                self.heart.iter_mut().for_each(|heart| heart.pause(soon));
            }
            code => self.refuse(code),
        }
    }
}
